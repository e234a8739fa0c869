//! Lists: what to ask for, and how to walk one to its end.

use std::fmt;

use futures_util::{Stream, TryStreamExt, stream};
use mdm_proto::lists::{ListPage, Page};

use crate::ClientError;

/// Which page of a list, in which order, and of what.
///
/// ```
/// use mdm_client::ListQuery;
///
/// let query = ListQuery::new().limit(100).sort("-last_seen").filter("platform", "linux");
/// assert_eq!(query.to_string(), "limit=100&sort=-last_seen&platform=linux");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    pairs: Vec<(String, String)>,
}

impl ListQuery {
    /// The first page as the server likes it: 50 entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries a page has at most: 1 to 500.
    #[must_use]
    pub fn limit(self, limit: u16) -> Self {
        self.set("limit", limit.to_string())
    }

    /// How many entries to pass over. An offset slips when entries come and go; a cursor does not.
    #[must_use]
    pub fn offset(self, offset: u64) -> Self {
        self.without("cursor").set("offset", offset.to_string())
    }

    /// The page after the one whose `next_cursor` this is. The sort must be the same.
    #[must_use]
    pub fn cursor(self, cursor: impl Into<String>) -> Self {
        self.without("offset").set("cursor", cursor.into())
    }

    /// The order: fields with commas in between, each with a `-` in front for the other direction.
    #[must_use]
    pub fn sort(self, fields: impl Into<String>) -> Self {
        self.set("sort", fields.into())
    }

    /// A filter of the list, such as `platform`. The same one again takes the former's place.
    #[must_use]
    pub fn filter(self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, value.into())
    }

    /// A filter that is there only with a value.
    #[must_use]
    pub fn filter_if(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.set(name, value.to_string()),
            None => self,
        }
    }

    fn without(mut self, name: &str) -> Self {
        self.pairs.retain(|(existing, _)| existing != name);
        self
    }

    fn set(self, name: &str, value: String) -> Self {
        let mut query = self.without(name);
        query.pairs.push((name.to_owned(), value));
        query
    }
}

impl fmt::Display for ListQuery {
    /// The query string.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writer = url::form_urlencoded::Serializer::new(String::new());
        f.write_str(&writer.extend_pairs(&self.pairs).finish())
    }
}

/// All pages of a list from `query` on, one after the other; only one is in memory at a time.
///
/// ```no_run
/// # async fn example(client: mdm_client::Client) -> Result<(), mdm_client::ClientError> {
/// use futures_util::TryStreamExt;
/// use mdm_client::{ListQuery, pages};
///
/// let query = ListQuery::new().limit(500).filter("status", "online");
/// let mut pages = Box::pin(pages(query, |query| {
///     let client = client.clone();
///     async move { client.devices(&query).await }
/// }));
/// while let Some(page) = pages.try_next().await? {
///     println!("{} more", page.items.len());
/// }
/// # Ok(())
/// # }
/// ```
pub fn pages<L, F, Fut>(
    query: ListQuery,
    fetch: F,
) -> impl Stream<Item = Result<Page<L::Item>, ClientError>>
where
    L: ListPage,
    F: FnMut(ListQuery) -> Fut,
    Fut: Future<Output = Result<L, ClientError>>,
{
    stream::try_unfold((Some(query), fetch), |(query, mut fetch)| async move {
        let Some(query) = query else {
            return Ok(None);
        };
        let page = fetch(query.clone()).await?.into_page();
        let next = page.next_cursor.as_ref();
        let next = next.map(|cursor| query.clone().cursor(cursor));
        // A server that gives the same cursor again would be asked for ever.
        let next = next.filter(|next| *next != query);
        Ok(Some((page, (next, fetch))))
    })
}

/// All entries of a list from `query` on. As [`pages`], entry by entry.
pub fn all<L, F, Fut>(
    query: ListQuery,
    fetch: F,
) -> impl Stream<Item = Result<L::Item, ClientError>>
where
    L: ListPage,
    F: FnMut(ListQuery) -> Fut,
    Fut: Future<Output = Result<L, ClientError>>,
{
    pages(query, fetch)
        .map_ok(|page| stream::iter(page.items.into_iter().map(Ok)))
        .try_flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_takes_the_place_of_an_offset() {
        let query = ListQuery::new().offset(100).cursor("k 1");
        assert_eq!(query.to_string(), "cursor=k+1");
        assert_eq!(query.offset(5).to_string(), "offset=5");
    }

    #[test]
    fn the_same_filter_again_takes_the_formers_place() {
        let query = ListQuery::new()
            .filter("label", "room:a&b")
            .filter("label", "room:ü")
            .filter_if("group_id", None::<String>)
            .filter_if("enabled", Some(true));
        assert_eq!(query.to_string(), "label=room%3A%C3%BC&enabled=true");
    }
}
