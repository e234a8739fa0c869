//! JSON that is handed on without being looked into.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// A JSON value as text: it costs nothing to read from the database and to write into an answer.
/// Two are equal if their texts are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawJson(Box<RawValue>);

impl RawJson {
    /// An object without fields.
    pub fn empty_object() -> Self {
        Self::from(serde_json::json!({}))
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// The text, for whoever hands it on.
    pub fn into_raw(self) -> Box<RawValue> {
        self.0
    }
}

impl From<serde_json::Value> for RawJson {
    fn from(value: serde_json::Value) -> Self {
        // A `Value` can always be written: its keys are texts.
        Self(to_raw_value(&value).unwrap_or_default())
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}
