//! `collect_logs`: the last lines of the system's logs, bounded in lines and bytes.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::process::Command;

use super::{CommandOutcome, number};
use crate::Config;

const BYTES_PER_SOURCE: u64 = 128 * 1024;
const JOURNAL_PATIENCE: Duration = Duration::from_secs(20);
const FILES: [&str; 2] = ["/var/log/syslog", "/var/log/messages"];

/// The last lines of one log.
struct Source {
    name: String,
    lines: Vec<String>,
    truncated: bool,
}

pub(super) async fn execute(parameters: &Value, _config: &Config) -> CommandOutcome {
    let count = number(parameters, "lines", 200, 1, 1_000);
    let count = usize::try_from(count).unwrap_or(1_000);
    let mut sources: Vec<Source> = journal(count).await.into_iter().collect();
    if sources.is_empty() {
        let read = tokio::task::spawn_blocking(move || {
            FILES
                .iter()
                .filter_map(|path| tail(Path::new(path), count))
                .collect()
        });
        sources = read.await.unwrap_or_default();
    }
    let note = sources
        .is_empty()
        .then_some("this machine has no log that the agent can read");
    let sources: Vec<Value> = sources
        .into_iter()
        .map(|source| json!({ "name": source.name, "lines": source.lines, "truncated": source.truncated }))
        .collect();
    CommandOutcome::Completed(json!({ "sources": sources, "note": note }))
}

/// The systemd journal, where there is one with something in it.
async fn journal(count: usize) -> Option<Source> {
    let mut command = Command::new("journalctl");
    command.args([
        "--no-pager",
        "--quiet",
        "--output",
        "short-iso",
        "--lines",
        &count.to_string(),
    ]);
    command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(JOURNAL_PATIENCE, command.output())
        .await
        .ok()?
        .ok()?;
    let source = cut("journal", &output.stdout, count);
    (output.status.success() && !source.lines.is_empty()).then_some(source)
}

/// The end of a file.
fn tail(path: &Path, count: usize) -> Option<Source> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES_PER_SOURCE)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(BYTES_PER_SOURCE).read_to_end(&mut bytes).ok()?;
    let mut source = cut(&path.display().to_string(), &bytes, count);
    source.truncated |= length > BYTES_PER_SOURCE;
    Some(source)
}

/// The last `count` lines within the bound. The first line that is left may be a piece of one.
fn cut(name: &str, bytes: &[u8], count: usize) -> Source {
    let limit = usize::try_from(BYTES_PER_SOURCE).unwrap_or(usize::MAX);
    let begin = bytes.len().saturating_sub(limit);
    let text =
        String::from_utf8_lossy(bytes.get(begin..).unwrap_or_default()).replace('\0', "\u{fffd}");
    let all: Vec<&str> = text.lines().collect();
    let lines: Vec<String> = all
        .iter()
        .skip(all.len().saturating_sub(count))
        .map(|line| (*line).to_owned())
        .collect();
    Source {
        name: name.to_owned(),
        truncated: begin > 0 || lines.len() < all.len(),
        lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_given_and_said_to_be_cut() {
        let source = cut("x", b"one\ntwo\nthree\n", 2);
        assert_eq!(
            (source.lines, source.truncated),
            (vec!["two".to_owned(), "three".to_owned()], true)
        );
        assert!(!cut("x", b"one\n", 2).truncated);
    }

    #[test]
    fn a_huge_file_is_read_from_its_end_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "x".repeat(1_000_000) + "\nlast\n").unwrap();
        let source = tail(file.path(), 10).unwrap();
        assert_eq!(source.lines.last().unwrap(), "last");
        assert!(
            source.truncated && source.lines.iter().map(String::len).sum::<usize>() <= 128 * 1024
        );
    }
}
