//! Pages of lists: filters, sorting, and cursors that stay right while rows come and go.
//!
//! The one builder of dynamic SQL. A list has a source, columns that it may be sorted by, and
//! a function that narrows it; values are always bound, never written into the text.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use mdm_core::ids::OrganizationId;
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row, postgres::PgRow};
use uuid::Uuid;

use crate::error::StoreError;

/// `total` of a list is exact up to this number.
pub const COUNT_AT_MOST: i64 = 10_000;

/// How many fields a list can be sorted by at once.
const SORTS_AT_MOST: usize = 4;

/// What kind of value a column holds: cursors carry values as texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKind {
    /// A text.
    Text,
    /// A moment.
    Timestamp,
    /// An id.
    Id,
    /// A whole number.
    Number,
}

/// A column that a list can be sorted by.
#[derive(Debug, PartialEq, Eq)]
pub struct SortColumn {
    /// Its name in the API.
    pub name: &'static str,
    /// What it is in the database; never `NULL`.
    pub sql: &'static str,
    /// What kind of value it holds.
    pub kind: SortKind,
}

/// What a list can be sorted by, and how it is if nobody says.
#[derive(Debug)]
pub struct Sorting {
    /// The columns; the first is the id, which makes every order total.
    pub columns: &'static [SortColumn],
    /// Whether the newest come first if nobody says.
    pub newest_first: bool,
}

/// Why a list was not begun. Each names the parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// The list cannot be sorted so.
    #[error("sort: {0}")]
    Sort(String),
    /// The cursor is none of this list in this order.
    #[error("cursor: must be the next_cursor of a former page of the same list in the same order")]
    Cursor,
}

/// Which page of a list, in which order.
#[derive(Debug, Clone)]
pub struct ListRequest {
    order: Vec<(&'static SortColumn, bool)>,
    after: Option<Vec<String>>,
    limit: i64,
    offset: i64,
}

#[derive(Serialize, Deserialize)]
struct CursorText {
    s: String,
    k: Vec<String>,
}

impl ListRequest {
    /// Reads what a caller asks for. `sort` is a list such as `hostname,-last_seen`.
    pub fn parse(
        sorting: &Sorting,
        limit: i64,
        offset: i64,
        sort: Option<&str>,
        cursor: Option<&str>,
    ) -> Result<Self, ListError> {
        let mut request = Self {
            order: order(sorting, sort)?,
            after: None,
            limit,
            offset,
        };
        request.after = cursor.map(|text| request.key_of(text)).transpose()?;
        Ok(request)
    }

    /// The first `limit` in the list's own order.
    pub fn first(sorting: &Sorting, limit: i64) -> Self {
        Self {
            order: order(sorting, None).unwrap_or_default(),
            after: None,
            limit,
            offset: 0,
        }
    }

    /// How many at most.
    pub const fn limit(&self) -> i64 {
        self.limit
    }

    /// How many are passed over.
    pub const fn offset(&self) -> i64 {
        self.offset
    }

    fn sort_text(&self) -> String {
        let names: Vec<String> = self
            .order
            .iter()
            .map(|(column, down)| format!("{}{}", if *down { "-" } else { "" }, column.name))
            .collect();
        names.join(",")
    }

    fn cursor_of(&self, key: Vec<String>) -> String {
        let text = CursorText {
            s: self.sort_text(),
            k: key,
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&text).unwrap_or_default())
    }

    fn key_of(&self, cursor: &str) -> Result<Vec<String>, ListError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(cursor)
            .map_err(|_malformed| ListError::Cursor)?;
        let text: CursorText =
            serde_json::from_slice(&bytes).map_err(|_malformed| ListError::Cursor)?;
        let fits = text.s == self.sort_text()
            && text.k.len() == self.order.len()
            && self
                .order
                .iter()
                .zip(&text.k)
                .all(|((column, _), value)| column.kind.holds(value));
        if fits {
            Ok(text.k)
        } else {
            Err(ListError::Cursor)
        }
    }

    fn is_by_id_only(&self) -> bool {
        self.order.len() == 1
    }
}

impl SortKind {
    /// Whether the text is a value of this kind: a cursor comes from outside.
    fn holds(self, text: &str) -> bool {
        match self {
            Self::Text => !text.contains('\0'),
            Self::Id => text.parse::<Uuid>().is_ok(),
            Self::Number => text.parse::<i64>().is_ok(),
            Self::Timestamp => chrono_like(text) && text.len() <= 40,
        }
    }

    const fn cast(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::Timestamp => "::timestamptz",
            Self::Id => "::uuid",
            Self::Number => "::bigint",
        }
    }
}

/// Whether PostgreSQL wrote this text for a moment, as in `2026-01-22 13:50:00.000+00`.
fn chrono_like(text: &str) -> bool {
    let padded = format!("{text}:00");
    chrono::DateTime::parse_from_str(&padded, "%Y-%m-%d %H:%M:%S%.f%:z").is_ok()
}

fn order(
    sorting: &Sorting,
    sort: Option<&str>,
) -> Result<Vec<(&'static SortColumn, bool)>, ListError> {
    let Some(id) = sorting.columns.first() else {
        return Err(ListError::Sort("this list cannot be sorted".to_owned()));
    };
    let mut order: Vec<(&'static SortColumn, bool)> = Vec::new();
    for name in sort
        .unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty())
    {
        let (down, name) = name
            .strip_prefix('-')
            .map_or((false, name), |name| (true, name));
        let Some(column) = sorting.columns.iter().find(|column| column.name == name) else {
            let known: Vec<_> = sorting.columns.iter().map(|column| column.name).collect();
            let detail = format!(
                "there is no field {name:?} to sort by; known are: {}",
                known.join(", ")
            );
            return Err(ListError::Sort(detail));
        };
        if order.iter().any(|(other, _)| *other == column) {
            return Err(ListError::Sort(format!("{name} is named twice")));
        }
        order.push((column, down));
    }
    if order.len() > SORTS_AT_MOST {
        return Err(ListError::Sort(format!("at most {SORTS_AT_MOST} fields")));
    }
    if !order.iter().any(|(column, _)| *column == id) {
        let down = order.last().map_or(sorting.newest_first, |(_, down)| *down);
        order.push((id, down));
    }
    Ok(order)
}

/// A page of a list.
#[derive(Debug)]
pub struct ListPage<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// For the next page; none on the last.
    pub next_cursor: Option<String>,
    /// How many rows there are in all, if that was seen in passing.
    pub total: Option<Total>,
}

impl<T> ListPage<T> {
    /// The page with each item turned into something else.
    pub fn map<U>(self, turn: impl FnMut(T) -> U) -> ListPage<U> {
        ListPage {
            items: self.items.into_iter().map(turn).collect(),
            next_cursor: self.next_cursor,
            total: self.total,
        }
    }

    pub(crate) fn try_map<U, E>(
        self,
        turn: impl FnMut(T) -> Result<U, E>,
    ) -> Result<ListPage<U>, E> {
        Ok(ListPage {
            items: self.items.into_iter().map(turn).collect::<Result<_, E>>()?,
            next_cursor: self.next_cursor,
            total: self.total,
        })
    }
}

/// Where a list's rows come from.
pub(crate) struct Source {
    /// What is selected.
    pub columns: &'static str,
    /// From where, with joins.
    pub from: &'static str,
    /// The column of the organisation.
    pub organization: &'static str,
    /// The column of the id.
    pub id: &'static str,
    /// Whether the plan has to be made for the very values: a search for a part of a text is best
    /// served by another plan when the part is common.
    pub plan_each: bool,
}

/// Narrows a list: pushes conditions that begin with ` AND `.
pub(crate) type Narrow<'a> = &'a (dyn Fn(&mut QueryBuilder<Postgres>) + Sync);

impl Source {
    fn query(
        &self,
        select: &str,
        organization: OrganizationId,
        narrow: Narrow<'_>,
    ) -> QueryBuilder<Postgres> {
        let mut query = QueryBuilder::new(select);
        query
            .push(" FROM ")
            .push(self.from)
            .push(" WHERE ")
            .push(self.organization)
            .push(" = ")
            .push_bind(organization.uuid());
        narrow(&mut query);
        query
    }

    /// One page.
    pub async fn page<R>(
        &self,
        conn: &mut PgConnection,
        organization: OrganizationId,
        request: &ListRequest,
        narrow: Narrow<'_>,
    ) -> Result<ListPage<R>, StoreError>
    where
        R: for<'r> FromRow<'r, PgRow>,
    {
        let mut query = self.query(&self.select(request), organization, narrow);
        push_after(&mut query, request);
        self.read(conn, request, query, None).await
    }

    /// As [`page`](Self::page) of a search in the order of the ids: what is found is looked for once,
    /// for the page and for the total. `None` if more than [`COUNT_AT_MOST`] is found, of which a
    /// page is found faster by going along the ids.
    pub async fn search_page<R>(
        &self,
        conn: &mut PgConnection,
        organization: OrganizationId,
        request: &ListRequest,
        narrow: Narrow<'_>,
    ) -> Result<Option<ListPage<R>>, StoreError>
    where
        R: for<'r> FromRow<'r, PgRow>,
    {
        if !request.is_by_id_only() {
            return Ok(None);
        }
        let hits = format!("WITH hits AS MATERIALIZED (SELECT {}", self.id);
        let mut query = self.query(&hits, organization, narrow);
        query
            .push(format_args!(
                " LIMIT {}) SELECT {}, (SELECT count(*) FROM hits) AS found FROM {} WHERE {} = ",
                COUNT_AT_MOST + 1,
                self.columns,
                self.from,
                self.organization,
            ))
            .push_bind(organization.uuid())
            .push(format_args!(" AND {} IN (SELECT id FROM hits)", self.id));
        push_after(&mut query, request);
        let mut found = 0;
        let page = self.read(conn, request, query, Some(&mut found)).await?;
        Ok((found <= COUNT_AT_MOST).then(|| ListPage {
            total: page.total.or((found > 0).then_some(Total::Exact(found))),
            ..page
        }))
    }

    async fn read<R>(
        &self,
        conn: &mut PgConnection,
        request: &ListRequest,
        mut query: QueryBuilder<Postgres>,
        found: Option<&mut i64>,
    ) -> Result<ListPage<R>, StoreError>
    where
        R: for<'r> FromRow<'r, PgRow>,
    {
        push_order(&mut query, request);
        // The number itself, not a parameter: PostgreSQL can then plan once for few rows.
        query.push(format_args!(" LIMIT {}", request.limit + 1));
        if request.offset > 0 {
            query.push(" OFFSET ").push_bind(request.offset);
        }
        let rows = query
            .build()
            .persistent(!self.plan_each)
            .fetch_all(conn)
            .await?;
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let next_cursor = match rows.get(limit).and(rows.get(limit.wrapping_sub(1))) {
            Some(last) => Some(request.cursor_of(key_of(last, request)?)),
            None => None,
        };
        if let (Some(found), Some(row)) = (found, rows.first()) {
            *found = row.try_get("found")?;
        }
        let items: Result<Vec<R>, sqlx::Error> = rows.iter().take(limit).map(R::from_row).collect();
        let items = items?;
        let is_whole = request.after.is_none() && request.offset == 0 && next_cursor.is_none();
        let count = i64::try_from(items.len()).ok();
        Ok(ListPage {
            items,
            next_cursor,
            total: count.filter(|_| is_whole).map(Total::Exact),
        })
    }

    fn select(&self, request: &ListRequest) -> String {
        if request.is_by_id_only() {
            return format!("SELECT {}", self.columns);
        }
        let keys: Vec<String> = request
            .order
            .iter()
            .map(|(column, _)| format!("({})::text", column.sql))
            .collect();
        format!(
            "SELECT {}, ARRAY[{}] AS cursor_key",
            self.columns,
            keys.join(", ")
        )
    }

    /// How many rows there are, counted no further than [`COUNT_AT_MOST`]; beyond, the planner's
    /// estimate, and `true`.
    pub async fn total(
        &self,
        conn: &mut PgConnection,
        organization: OrganizationId,
        narrow: Narrow<'_>,
    ) -> Result<Total, StoreError> {
        let mut query = self.query("SELECT count(*) FROM (SELECT 1", organization, narrow);
        if !self.plan_each {
            // Without an order a plan for any organisation may read the whole table, hoping to find
            // enough early.
            query.push(" ORDER BY ").push(self.id);
        }
        query.push(format_args!(" LIMIT {}) AS counted", COUNT_AT_MOST + 1));
        let counted: i64 = query
            .build_query_scalar()
            .persistent(!self.plan_each)
            .fetch_one(&mut *conn)
            .await?;
        if counted <= COUNT_AT_MOST {
            return Ok(Total::Exact(counted));
        }
        let mut query = self.query("EXPLAIN (FORMAT JSON) SELECT 1", organization, narrow);
        let plan: serde_json::Value = query
            .build_query_scalar()
            .persistent(false)
            .fetch_one(conn)
            .await?;
        let rows = plan
            .pointer("/0/Plan/Plan Rows")
            .and_then(serde_json::Value::as_i64);
        Ok(Total::Estimate(rows.unwrap_or(counted).max(counted)))
    }
}

/// How many rows a list has in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    /// Counted.
    Exact(i64),
    /// More than [`COUNT_AT_MOST`]: the planner's estimate.
    Estimate(i64),
}

fn key_of(row: &PgRow, request: &ListRequest) -> Result<Vec<String>, sqlx::Error> {
    if request.is_by_id_only() {
        let id: Uuid = row.try_get("id")?;
        return Ok(vec![id.to_string()]);
    }
    row.try_get("cursor_key")
}

/// Everything behind the cursor. Where all columns run in one direction PostgreSQL can begin at
/// the right place of an index; otherwise the condition is spelled out.
fn push_after(query: &mut QueryBuilder<Postgres>, request: &ListRequest) {
    let Some(key) = &request.after else { return };
    let columns: Vec<(&SortColumn, bool, &String)> = request
        .order
        .iter()
        .zip(key)
        .map(|((column, down), value)| (*column, *down, value))
        .collect();
    let Some(&(_, first_down, _)) = columns.first() else {
        return;
    };
    query.push(" AND ");
    if columns.iter().all(|(_, down, _)| *down == first_down) {
        let names: Vec<_> = columns.iter().map(|(column, _, _)| column.sql).collect();
        query.push(format!("({})", names.join(", ")));
        query.push(if first_down { " < (" } else { " > (" });
        for (place, (column, _, value)) in columns.iter().enumerate() {
            if place > 0 {
                query.push(", ");
            }
            query.push_bind((*value).clone()).push(column.kind.cast());
        }
        query.push(")");
        return;
    }
    query.push("(");
    for place in 0..columns.len() {
        query.push(if place > 0 { " OR (" } else { "(" });
        for (column, _, value) in columns.iter().take(place) {
            query.push(column.sql).push(" = ");
            query.push_bind((*value).clone()).push(column.kind.cast());
            query.push(" AND ");
        }
        if let Some((column, down, value)) = columns.get(place) {
            query
                .push(column.sql)
                .push(if *down { " < " } else { " > " });
            query.push_bind((*value).clone()).push(column.kind.cast());
        }
        query.push(")");
    }
    query.push(")");
}

fn push_order(query: &mut QueryBuilder<Postgres>, request: &ListRequest) {
    query.push(" ORDER BY ");
    for (place, (column, down)) in request.order.iter().enumerate() {
        if place > 0 {
            query.push(", ");
        }
        query
            .push(column.sql)
            .push(if *down { " DESC" } else { "" });
    }
}

/// A pattern for `LIKE` that finds the text anywhere.
pub(crate) fn contains(text: &str) -> String {
    let escaped = text
        .to_lowercase()
        .replace('\\', r"\\")
        .replace('%', r"\%")
        .replace('_', r"\_");
    format!("%{escaped}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SORTING: Sorting = Sorting {
        columns: &[
            SortColumn {
                name: "id",
                sql: "id",
                kind: SortKind::Id,
            },
            SortColumn {
                name: "name",
                sql: "name",
                kind: SortKind::Text,
            },
            SortColumn {
                name: "created_at",
                sql: "created_at",
                kind: SortKind::Timestamp,
            },
        ],
        newest_first: false,
    };

    fn parse(sort: Option<&str>, cursor: Option<&str>) -> Result<ListRequest, ListError> {
        ListRequest::parse(&SORTING, 50, 0, sort, cursor)
    }

    #[test]
    fn a_cursor_goes_on_in_its_own_order_only() {
        let request = parse(Some("-name"), None).unwrap();
        let cursor = request.cursor_of(vec!["web".to_owned(), Uuid::nil().to_string()]);
        assert!(parse(Some("-name"), Some(&cursor)).is_ok());
        assert_eq!(
            parse(Some("name"), Some(&cursor)).unwrap_err(),
            ListError::Cursor
        );
        assert_eq!(parse(None, Some(&cursor)).unwrap_err(), ListError::Cursor);
    }

    #[test]
    fn a_forged_cursor_is_refused() {
        let forged = |key: &[&str]| {
            let request = parse(Some("created_at"), None).unwrap();
            request.cursor_of(key.iter().map(|value| (*value).to_owned()).collect())
        };
        let nil = Uuid::nil().to_string();
        let good = forged(&["2026-01-22 13:50:00.000123+00", &nil]);
        assert!(parse(Some("created_at"), Some(&good)).is_ok());
        for bad in [
            forged(&["yesterday", &nil]),
            forged(&["2026-01-22 13:50:00+00", "1"]),
            forged(&["2026-01-22 13:50:00+00"]),
            "nonsense".to_owned(),
            String::new(),
        ] {
            assert_eq!(
                parse(Some("created_at"), Some(&bad)).unwrap_err(),
                ListError::Cursor
            );
        }
    }

    #[test]
    fn what_a_list_cannot_be_sorted_by_is_told() {
        let ListError::Sort(detail) = parse(Some("colour"), None).unwrap_err() else {
            panic!("not about the order");
        };
        assert!(detail.contains("id, name, created_at"), "{detail}");
        assert!(parse(Some("name,-name"), None).is_err());
        assert!(parse(Some("name,,"), None).is_ok());
    }

    #[test]
    fn a_search_takes_wildcards_for_what_they_are() {
        assert_eq!(contains(r"50%_A\"), r"%50\%\_a\\%");
    }
}
