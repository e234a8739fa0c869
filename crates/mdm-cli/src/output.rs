//! What people and programs get to see.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    pin::pin,
};

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use futures_util::TryStreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mdm_client::{ClientError, ListQuery, pages};
use mdm_proto::lists::ListPage;
use serde::Serialize;
use serde_json::{Map, Value};

/// The most entries that a page can have.
const LARGEST_PAGE: u16 = 500;

/// For people, or as JSON.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    pub const fn new(json: bool) -> Self {
        Self { json }
    }

    pub const fn is_json(self) -> bool {
        self.json
    }

    /// One thing: a line per field.
    pub fn show(self, thing: &impl Serialize) -> Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, thing)?;
            writeln!(out)?;
            return Ok(());
        }
        match serde_json::to_value(thing)? {
            Value::Object(fields) => write!(out, "{}", lines(&fields))?,
            other => writeln!(out, "{}", cell(Some(&other)))?,
        }
        Ok(())
    }

    /// That something is done; programs see it by the exit code.
    pub fn done(self, what: &str) -> Result<()> {
        if !self.json {
            writeln!(io::stdout(), "{what}")?;
        }
        Ok(())
    }

    /// Some things: a row each, with these fields of theirs.
    pub fn rows(self, things: &[impl Serialize], columns: &[&str]) -> Result<()> {
        let mut list = List::new(self, columns);
        list.add(things)?;
        list.end()
    }

    /// A list: one page of it, or all.
    pub async fn list<L, F, Fut>(self, options: &Listing, columns: &[&str], fetch: F) -> Result<()>
    where
        L: ListPage<Item: Serialize>,
        F: FnMut(ListQuery) -> Fut,
        Fut: Future<Output = Result<L, ClientError>>,
    {
        let mut pages = pin!(pages(options.query.clone(), fetch));
        let mut list = List::new(self, columns);
        let mut left = options.most;
        while let Some(page) = pages.try_next().await? {
            let wanted = left.map_or(page.items.len(), |left| left.min(page.items.len()));
            let cut = wanted < page.items.len();
            list.add(page.items.get(..wanted).unwrap_or_default())?;
            left = left.map(|left| left - wanted);
            if left == Some(0) {
                let more = cut || page.next_cursor.is_some();
                list.end()?;
                if more && !self.json && io::stderr().is_terminal() {
                    let about = if page.total_is_estimate { "about " } else { "" };
                    eprintln!(
                        "{} of {about}{}; --all lists them all",
                        list.count, page.total
                    );
                }
                return Ok(());
            }
        }
        list.end()
    }

    /// A bar on a terminal, for something with `length` parts; nothing elsewhere.
    pub fn progress(self, length: u64, template: &str) -> Result<ProgressBar> {
        let target = if self.json {
            ProgressDrawTarget::hidden()
        } else {
            // Hidden where standard error is no terminal.
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        bar.set_style(ProgressStyle::with_template(template)?);
        Ok(bar)
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Clone)]
pub struct Listing {
    query: ListQuery,
    most: Option<usize>,
}

impl Listing {
    /// At most `most` entries, all if it is not given.
    pub fn new(query: ListQuery, most: Option<usize>) -> Self {
        let page = most.and_then(|most| u16::try_from(most).ok());
        let page = page.map_or(LARGEST_PAGE, |most| most.clamp(1, LARGEST_PAGE));
        Self {
            query: query.limit(page),
            most,
        }
    }
}

/// A list that is written page by page.
struct List<'a> {
    output: Output,
    columns: &'a [&'a str],
    count: usize,
}

impl<'a> List<'a> {
    const fn new(output: Output, columns: &'a [&'a str]) -> Self {
        Self {
            output,
            columns,
            count: 0,
        }
    }

    fn add(&mut self, things: &[impl Serialize]) -> Result<()> {
        let mut out = io::stdout().lock();
        if self.output.json {
            for thing in things {
                out.write_all(if self.count == 0 { b"[\n" } else { b",\n" })?;
                serde_json::to_writer(&mut out, thing)?;
                self.count += 1;
            }
            return Ok(());
        }
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        if self.count == 0 {
            table.set_header(
                self.columns
                    .iter()
                    .map(|name| name.replace('_', " ").to_uppercase()),
            );
        }
        for thing in things {
            let thing = serde_json::to_value(thing)?;
            table.add_row(self.columns.iter().map(|name| cell(thing.get(*name))));
            self.count += 1;
        }
        for line in table.lines() {
            writeln!(out, "{}", line.trim())?;
        }
        Ok(())
    }

    fn end(&self) -> Result<()> {
        let mut out = io::stdout().lock();
        if self.output.json {
            out.write_all(if self.count == 0 { b"[]\n" } else { b"\n]\n" })?;
        }
        Ok(())
    }
}

/// A value on one line. What devices say of themselves must not command the terminal.
pub fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
        Some(Value::Array(values)) if values.is_empty() => "-".to_owned(),
        Some(Value::Object(fields)) if fields.is_empty() => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) => {
            let values: Vec<_> = values.iter().map(|value| cell(Some(value))).collect();
            values.join(", ")
        }
        Some(Value::Object(fields)) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{name}={}", cell(Some(value))))
                .collect();
            fields.join(" ")
        }
        Some(other) => other.to_string(),
    };
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// What people look for first.
const FIRST: &[&str] = &["id", "name", "hostname", "email", "status"];

/// A line per field; what has an inside that is no line is indented below.
fn lines(fields: &Map<String, Value>) -> String {
    let width = fields.keys().map(String::len).max().unwrap_or(0);
    let first = FIRST.iter().filter_map(|name| fields.get_key_value(*name));
    let others = fields
        .iter()
        .filter(|(name, _)| !FIRST.contains(&name.as_str()));
    let mut text = String::new();
    for (name, value) in first.chain(others) {
        let is_deep = match value {
            Value::Object(fields) => fields
                .values()
                .any(|value| value.is_object() || value.is_array()),
            Value::Array(values) => values.iter().any(Value::is_object),
            _ => false,
        };
        let _infallible = if is_deep {
            let deep = serde_json::to_string_pretty(value).unwrap_or_default();
            let deep = deep.replace('\n', "\n  ");
            writeln!(text, "{name}\n  {deep}")
        } else {
            writeln!(text, "{name:<width$}  {}", cell(Some(value)))
        };
    }
    text
}

/// Whether the reader of the output went away, as `head` does.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
            || cause
                .downcast_ref::<serde_json::Error>()
                .and_then(serde_json::Error::io_error_kind)
                == Some(io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_device_says_cannot_command_the_terminal() {
        assert_eq!(cell(Some(&json!("a\u{1b}[2Jb\nc"))), "a [2Jb c");
        assert_eq!(cell(Some(&json!({ "k": ["\u{7}", null] }))), "k= , -");
    }
}
