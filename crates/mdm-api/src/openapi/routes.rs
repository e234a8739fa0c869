//! Which methods a path takes, as the document says: for requests that no route took.

use std::sync::LazyLock;

use actix_web::dev::ResourceDef;
use serde_json::Value;

use super::document;

struct Known {
    path: ResourceDef,
    methods: Vec<String>,
}

static ROUTES: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let document = document();
    let paths = document.get("paths").and_then(Value::as_object);
    paths
        .into_iter()
        .flatten()
        .map(|(path, item)| Known {
            path: ResourceDef::new(path.as_str()),
            methods: item
                .as_object()
                .into_iter()
                .flatten()
                .map(|(method, _)| method.to_uppercase())
                .collect(),
        })
        .collect()
});

/// The methods that a path takes; none if there is no such path.
pub fn allowed_methods(path: &str) -> Vec<&'static str> {
    let mut methods: Vec<&str> = ROUTES
        .iter()
        .filter(|known| known.path.is_match(path))
        .flat_map(|known| known.methods.iter().map(String::as_str))
        .collect();
    methods.sort_unstable();
    methods.dedup();
    methods
}
