//! What people and programs say: lists, bodies of requests, names in place of ids.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    pin::pin,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use futures_util::TryStreamExt;
use mdm_client::{ClientError, ListQuery, all};
use mdm_proto::lists::ListPage;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::output::Listing;

/// Which part of a list, in which order.
#[derive(Debug, Args)]
pub struct ListOptions {
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// All, however many there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// The order: fields with commas in between, `-` in front of one for the other direction
    #[arg(long, value_name = "FIELDS", allow_hyphen_values = true)]
    sort: Option<String>,
}

impl ListOptions {
    pub fn listing(&self, query: ListQuery) -> Listing {
        let most = usize::try_from(self.limit).unwrap_or(usize::MAX);
        Listing::new(
            query.filter_if("sort", self.sort.as_ref()),
            (!self.all).then_some(most),
        )
    }
}

/// As [`ListOptions`], of a list that can be searched.
#[derive(Debug, Args)]
pub struct SearchOptions {
    #[command(flatten)]
    list: ListOptions,
    /// Only what has this text in its name, or in what else the list is searched by
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
}

impl SearchOptions {
    pub fn listing(&self, query: ListQuery) -> Listing {
        self.list
            .listing(query.filter_if("search", self.search.as_ref()))
    }
}

/// The body of a request, from a file and from arguments, which win.
#[derive(Debug, Args)]
pub struct FileOption {
    /// A JSON file with the fields as the API has them; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl FileOption {
    pub fn body(&self) -> Result<Body> {
        let Some(path) = &self.file else {
            return Ok(Body(Map::new()));
        };
        match read_json(path)? {
            Value::Object(fields) => Ok(Body(fields)),
            _ => bail!("{} holds no JSON object", path.display()),
        }
    }
}

/// The fields of a request's body.
pub struct Body(Map<String, Value>);

impl Body {
    pub fn set(mut self, field: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.0.insert(field.to_owned(), value.into());
        }
        self
    }

    /// Sets a map of texts, if any pairs were given.
    pub fn set_pairs(self, field: &str, pairs: &[(String, String)]) -> Self {
        let map: Map<_, _> = pairs
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value.clone())))
            .collect();
        self.set(field, (!pairs.is_empty()).then_some(map))
    }

    pub fn build<T: DeserializeOwned>(self) -> Result<T> {
        if self.0.is_empty() {
            bail!("nothing is said: give arguments or a --file (see --help)");
        }
        Ok(serde_json::from_value(Value::Object(self.0))?)
    }
}

/// Reads JSON from a file, or from standard input if it is `-`.
pub fn read_json(path: &Path) -> Result<Value> {
    let from = || format!("cannot read {}", path.display());
    let value = if path == Path::new("-") {
        serde_json::from_reader(io::stdin().lock())
    } else {
        serde_json::from_reader(io::BufReader::new(File::open(path).with_context(from)?))
    };
    value.with_context(from)
}

/// A secret text: asked for on a terminal, else the first line of standard input.
pub fn read_secret(prompt: &str) -> Result<String> {
    use io::IsTerminal;
    if io::stdin().is_terminal() {
        return Ok(rpassword::prompt_password(format!("{prompt}: "))?);
    }
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(64 * 1024)
        .read_to_string(&mut text)?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => bail!("{prompt} is expected on standard input"),
    }
}

/// A `KEY=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

/// A JSON value.
pub fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("must be JSON: {error}"))
}

/// The id of what is called by its id, or by the text in its `field`, which must be its alone.
pub async fn id_of<L, F, Fut>(what: &str, text: &str, field: &str, fetch: F) -> Result<Uuid>
where
    L: ListPage<Item: Serialize>,
    F: FnMut(ListQuery) -> Fut,
    Fut: Future<Output = Result<L, ClientError>>,
{
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let mut entries = pin!(all(
        ListQuery::new().limit(500).filter("search", text),
        fetch
    ));
    let mut found = Vec::new();
    while let Some(entry) = entries.try_next().await? {
        let entry = serde_json::to_value(entry)?;
        if entry.get(field).and_then(Value::as_str) == Some(text) {
            found.extend(entry.get("id").and_then(Value::as_str).map(str::to_owned));
        }
    }
    match found.as_slice() {
        [id] => Ok(id.parse()?),
        [] => bail!("there is no {what} with the {field} {text:?}"),
        several => bail!(
            "several {what}s have the {field} {text:?}: {}",
            several.join(", ")
        ),
    }
}
