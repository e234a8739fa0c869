//! What holds for every file, whichever there are.

use std::{collections::BTreeSet, path::Path};

use super::*;

fn text(file: &File) -> &'static str {
    std::str::from_utf8(file.content).unwrap()
}

fn ending_in(suffix: &str) -> impl Iterator<Item = &'static File> {
    let ends = move |file: &&File| {
        Path::new(file.path)
            .extension()
            .is_some_and(|e| e == suffix)
    };
    files().iter().filter(ends)
}

#[test]
fn a_file_is_found_by_its_exact_path_only() {
    let client = find("/client/mobius-mdm.js").unwrap();
    assert_eq!(client.content_type, "text/javascript; charset=utf-8");
    assert!(text(client).contains("export class EventStream"));
    for nowhere in [
        "",
        "/",
        "client/mobius-mdm.js",
        "/client/",
        "/client/mobius-mdm.js/",
        "/client/../client/mobius-mdm.js",
        "/client/package.json",
    ] {
        assert!(find(nowhere).is_none(), "{nowhere}");
    }
}

#[test]
fn every_file_has_a_media_type_and_an_etag_of_its_own() {
    let etags: BTreeSet<_> = files().iter().map(|file| &file.etag).collect();
    assert_eq!(etags.len(), files().len());
    for file in files() {
        assert_ne!(
            file.content_type, "application/octet-stream",
            "{}",
            file.path
        );
        // Two quotes around the 64 digits of a SHA-256: strong, so without `W/`.
        assert_eq!(file.etag.len(), 66, "{}", file.etag);
        assert!(file.etag.starts_with('"') && file.etag.ends_with('"'));
    }
}

#[test]
fn the_etag_is_that_of_the_bytes() {
    let empty = format!("\"{}\"", hex::encode(Sha256::digest(b"")));
    for file in files() {
        assert_ne!(file.etag, empty, "{} is empty", file.path);
        let expected = format!("\"{}\"", hex::encode(Sha256::digest(file.content)));
        assert_eq!(file.etag, expected, "{}", file.path);
    }
}

/// The pages are served with a policy that would block it, which nobody sees but their users.
#[test]
fn a_page_has_no_script_or_style_of_its_own_and_loads_only_what_is_here() {
    for page in ending_in("html") {
        let html = text(page);
        assert!(!html.contains("<style") && !html.contains(" style="));
        assert!(!html.contains(" onclick=") && !html.contains("javascript:"));
        for script in html.split("<script").skip(1) {
            assert!(script.starts_with(" type=\"module\" src=\""), "{script}");
        }
        let here = Path::new(page.path).parent().unwrap();
        for attribute in ["src=\"", "href=\""] {
            for rest in html.split(attribute).skip(1) {
                let target = rest.split('"').next().unwrap();
                let known = find(here.join(target).to_str().unwrap()).is_some();
                assert!(known || target == "data:,", "{} loads {target}", page.path);
            }
        }
    }
}

#[test]
fn every_import_of_a_script_is_one_of_the_files() {
    let mut imports = 0;
    for file in ending_in("js") {
        for rest in text(file).split("\nimport ").skip(1) {
            let target = rest.split(" from \"").nth(1).unwrap();
            let target = target.split('"').next().unwrap();
            assert!(find(target).is_some(), "{} imports {target}", file.path);
            imports += 1;
        }
    }
    assert!(imports > 0, "no import was looked at");
}

/// The events that the server's documentation lists are those that the types know.
#[test]
fn the_types_know_every_event_of_the_documentation() {
    let documentation = include_str!("../../../docs/events.md");
    let types = text(find("/client/mobius-mdm.d.ts").unwrap());
    let table = documentation.split("| event | data | when |").nth(1);
    let rows = table.unwrap().split("\n\n").next().unwrap();
    let names: Vec<_> = rows
        .lines()
        .filter_map(|row| row.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(names.len() >= 11, "{names:?}");
    for name in names {
        assert!(types.contains(&format!("  {name}: {{")), "{name}");
    }
}
