//! Invalid input: which field, and why.

/// One field of the input is not acceptable. Becomes an entry of `errors` in a 422 answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct Invalid {
    /// JSON pointer (RFC 6901) to the field within the body.
    pub pointer: String,
    /// Stable code, such as `TOO_LONG`.
    pub code: &'static str,
    /// What is wrong and what would be right, for a person.
    pub detail: String,
}

impl Invalid {
    /// Names the field `pointer` (with its leading slash), a stable code, and the reason.
    pub fn new(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            code,
            detail: detail.into(),
        }
    }
}

/// Escapes one reference token of a JSON pointer (RFC 6901, section 3).
pub fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

/// Takes a text of 1 to `max` characters without control characters, as `pointer`.
pub fn text(pointer: &str, value: &str, max: usize) -> Result<String, Invalid> {
    let trimmed = value.trim();
    if trimmed.is_empty() {
        return Err(Invalid::new(pointer, "EMPTY", "must not be empty"));
    }
    if trimmed.chars().count() > max {
        return Err(Invalid::new(
            pointer,
            "TOO_LONG",
            format!("must have at most {max} characters"),
        ));
    }
    if trimmed.chars().any(char::is_control) {
        return Err(Invalid::new(
            pointer,
            "CONTROL_CHARACTER",
            "must not contain control characters",
        ));
    }
    Ok(trimmed.to_owned())
}

/// Refuses JSON with the character U+0000 in a text or a key: PostgreSQL's `jsonb` cannot hold it.
pub fn no_nul(pointer: &str, value: &serde_json::Value) -> Result<(), Invalid> {
    use serde_json::Value;
    let clean = match value {
        Value::String(text) => !text.contains('\0'),
        Value::Array(items) => items.iter().all(|item| no_nul(pointer, item).is_ok()),
        Value::Object(fields) => fields
            .iter()
            .all(|(key, item)| !key.contains('\0') && no_nul(pointer, item).is_ok()),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    };
    if clean {
        Ok(())
    } else {
        Err(Invalid::new(
            pointer,
            "CONTROL_CHARACTER",
            "must not contain the character U+0000",
        ))
    }
}
