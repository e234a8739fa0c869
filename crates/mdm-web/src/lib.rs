//! What browsers load, inside the binary: the JavaScript event client and the example page that
//! uses it. A server needs no directory of assets beside it, and client and server cannot differ.
//!
//! To add a file: put it below `client/`, and add a line to `SOURCES`. What ends in a suffix that
//! is not known yet also needs a line in `content_type`. The server serves what is below
//! `/client/` always, and what is below `/examples/` only where it is tried out.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// One file as it is served.
#[derive(Debug)]
pub struct File {
    /// Where it is served, such as `/client/mobius-mdm.js`.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub content: &'static [u8],
    /// A strong `ETag` with its quotes: another one for other bytes (RFC 9110, section 8.8.3).
    pub etag: String,
}

/// Each file: where it is served, and what is in it.
const SOURCES: &[(&str, &[u8])] = &[
    (
        "/client/mobius-mdm.js",
        include_bytes!("../client/mobius-mdm.js"),
    ),
    (
        "/client/mobius-mdm.d.ts",
        include_bytes!("../client/mobius-mdm.d.ts"),
    ),
    (
        "/examples/live.html",
        include_bytes!("../client/examples/live.html"),
    ),
    (
        "/examples/live.css",
        include_bytes!("../client/examples/live.css"),
    ),
    (
        "/examples/live.js",
        include_bytes!("../client/examples/live.js"),
    ),
];

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    let file = |&(path, content)| File {
        path,
        content_type: content_type(path),
        content,
        etag: format!("\"{}\"", hex::encode(Sha256::digest(content))),
    };
    SOURCES.iter().map(file).collect()
});

/// The file that is served at this path.
pub fn find(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

/// All files.
pub fn files() -> &'static [File] {
    &FILES
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("ts") => "application/typescript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("html") => "text/html; charset=utf-8",
        // Browsers do not run it, and people get it as a download.
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests;
