//! SQL over the system's live tables, with osquery's names and columns. Read-only, and bounded in
//! time, rows and memory.

mod live_table;
mod tables;

use std::time::{Duration, Instant};

use mdm_proto::commands::OsqueryResult;
use rusqlite::{
    Batch, Connection,
    fallible_iterator::FallibleIterator as _,
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
    types::ValueRef,
};
use serde_json::{Map, Value};

pub use live_table::{Row, Table};

/// More rows than anybody reads.
const ROWS_AT_MOST: usize = 10_000;
/// Below what the agent may send.
const BYTES_AT_MOST: usize = 3 * 1024 * 1024;
/// A single text or blob.
const VALUE_AT_MOST: i32 = 1024 * 1024;
/// Steps of SQLite's machine between two looks at the clock.
const STEPS_PER_LOOK: i32 = 1_000;

/// Why a query gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// SQLite refused.
    #[error("{0}")]
    Sql(String),
    /// It took too long.
    #[error("the query took longer than {} s and was ended", .0.as_secs())]
    TooLong(Duration),
    /// It gave too much.
    #[error("the query gives more than {ROWS_AT_MOST} rows: narrow it down, or add LIMIT")]
    TooManyRows,
    /// It gave too much.
    #[error("the query gives more than {BYTES_AT_MOST} bytes: select fewer columns or rows")]
    TooManyBytes,
}

/// Runs one query. Takes its time on the calling thread, at most `time`.
pub fn query(sql: &str, time: Duration) -> Result<OsqueryResult, QueryError> {
    let begun = Instant::now();
    let connection = open(begun + time).map_err(|error| QueryError::Sql(error.to_string()))?;
    let (columns, rows) = rows(&connection, sql).map_err(|failure| match failure {
        Failure::Sqlite(_) if begun.elapsed() >= time => QueryError::TooLong(time),
        Failure::Sqlite(error) => QueryError::Sql(message(&error)),
        Failure::Query(error) => error,
    })?;
    let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(OsqueryResult {
        query: sql.to_owned(),
        columns,
        rows,
        duration_ms,
    })
}

fn open(deadline: Instant) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_in_memory()?;
    for table in tables::ALL {
        live_table::register(&connection, table)?;
    }
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_AT_MOST)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.progress_handler(STEPS_PER_LOOK, Some(move || Instant::now() >= deadline))?;
    connection.authorizer(Some(authorize))?;
    Ok(connection)
}

/// Reading, and nothing else.
fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        AuthAction::Function { function_name }
            if !function_name.eq_ignore_ascii_case("load_extension") =>
        {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

enum Failure {
    Sqlite(rusqlite::Error),
    Query(QueryError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

type Rows = (Vec<String>, Vec<Map<String, Value>>);

fn rows(connection: &Connection, sql: &str) -> Result<Rows, Failure> {
    let mut batch = Batch::new(connection, sql);
    let mut statement = batch
        .next()?
        .ok_or_else(|| Failure::Query(QueryError::Sql("there is no statement".to_owned())))?;
    if batch.next()?.is_some() {
        return Err(Failure::Query(QueryError::Sql(
            "one statement at a time".to_owned(),
        )));
    }
    let columns = unique(statement.column_names());
    let (mut found, mut rows, mut bytes) = (Vec::new(), statement.query([])?, 0_usize);
    while let Some(row) = rows.next()? {
        if found.len() >= ROWS_AT_MOST {
            return Err(Failure::Query(QueryError::TooManyRows));
        }
        let mut object = Map::new();
        for (index, name) in columns.iter().enumerate() {
            let value = to_json(row.get_ref(index)?);
            bytes += name.len() + size(&value);
            object.insert(name.clone(), value);
        }
        if bytes > BYTES_AT_MOST {
            return Err(Failure::Query(QueryError::TooManyBytes));
        }
        found.push(object);
    }
    Ok((columns, found))
}

/// Columns of one name are told apart, because a row names its columns.
fn unique(names: Vec<&str>) -> Vec<String> {
    let mut unique: Vec<String> = Vec::new();
    for name in names {
        let mut candidate = name.to_owned();
        let mut number = 0;
        while unique.contains(&candidate) {
            number += 1;
            candidate = format!("{name}:{number}");
        }
        unique.push(candidate);
    }
    unique
}

fn to_json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        // The server stores no U+0000.
        ValueRef::Text(text) => String::from_utf8_lossy(text)
            .replace('\0', "\u{fffd}")
            .into(),
        ValueRef::Blob(bytes) => hex(bytes).into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 4,
        _ => 12,
    }
}

/// SQLite's own words, without the crate's around them.
fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
