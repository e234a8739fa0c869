//! Pages of lists.

/// A page of any list; each list names its items in its own way.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// How many match in all.
    pub total: i64,
    /// Whether `total` is an estimate.
    pub total_is_estimate: bool,
    /// The page's size.
    pub limit: i64,
    /// The page's place, if it was asked for by one.
    pub offset: i64,
    /// For the next page; none on the last.
    pub next_cursor: Option<String>,
}

/// A list's own page.
pub trait ListPage {
    /// What is listed.
    type Item;

    /// The same, whatever the list calls its items.
    fn into_page(self) -> Page<Self::Item>;
}

/// Defines a page of a list: its items under their plural, and where the page stands.
macro_rules! list {
    ($(#[$doc:meta])* $name:ident { $items:ident: $item:ty }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        pub struct $name {
            /// The page.
            pub $items: Vec<$item>,
            /// How many match in all; exact up to 10,000.
            pub total: i64,
            /// Whether `total` is an estimate because there are more than 10,000.
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            pub total_is_estimate: bool,
            /// The page's size.
            pub limit: i64,
            /// The page's place, if it was asked for by one.
            pub offset: i64,
            /// For the next page; none on the last.
            pub next_cursor: Option<String>,
        }

        impl From<$crate::lists::Page<$item>> for $name {
            fn from(page: $crate::lists::Page<$item>) -> Self {
                Self {
                    $items: page.items,
                    total: page.total,
                    total_is_estimate: page.total_is_estimate,
                    limit: page.limit,
                    offset: page.offset,
                    next_cursor: page.next_cursor,
                }
            }
        }

        impl $crate::lists::ListPage for $name {
            type Item = $item;

            fn into_page(self) -> $crate::lists::Page<$item> {
                $crate::lists::Page {
                    items: self.$items,
                    total: self.total,
                    total_is_estimate: self.total_is_estimate,
                    limit: self.limit,
                    offset: self.offset,
                    next_cursor: self.next_cursor,
                }
            }
        }
    };
}
pub(crate) use list;
