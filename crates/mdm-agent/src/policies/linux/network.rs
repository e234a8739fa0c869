//! Firewall, forwarding, clock.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Finding, asks_nothing, read};

/// A program's output, if it is there and succeeds; its complaint if it fails.
fn output(program: &str, arguments: &[&str]) -> Option<Result<String, String>> {
    let done = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Some(if done.status.success() {
        Ok(text(&done.stdout))
    } else {
        Err(text(&done.stderr))
    })
}

pub(super) fn firewall(_root: &Path, value: &Value) -> Finding {
    if let Some(nothing) = asks_nothing(value, false) {
        return nothing;
    }
    let asked = [
        output("nft", &["list", "ruleset"]).map(|told| told.map(|rules| nft_filters(&rules))),
        output("iptables-save", &[]).map(|told| told.map(|rules| iptables_filters(&rules))),
    ];
    let told: Vec<_> = asked.into_iter().flatten().collect();
    if told.contains(&Ok(true)) {
        return Finding::Passed(true.into());
    }
    match told.iter().find_map(|told| told.as_ref().err()) {
        Some(error) => Finding::Unknown(format!("the rules cannot be read: {error}")),
        None => Finding::Failed(false.into(), "nothing that comes in is filtered".to_owned()),
    }
}

/// Whether a chain that is hooked to input drops or rejects anything.
pub(super) fn nft_filters(ruleset: &str) -> bool {
    ruleset.split("chain ").skip(1).any(|chain| {
        let body = chain.split('}').next().unwrap_or_default();
        body.contains("hook input") && (body.contains("drop") || body.contains("reject"))
    })
}

/// Whether the chain INPUT drops or rejects anything, or leads to a chain that does.
pub(super) fn iptables_filters(rules: &str) -> bool {
    rules.lines().any(|line| {
        line.starts_with(":INPUT DROP")
            || line.starts_with("-A INPUT")
                && (line.contains("-j DROP") || line.contains("-j REJECT"))
    })
}

pub(super) fn ip_forwarding(root: &Path, value: &Value) -> Finding {
    if let Some(nothing) = asks_nothing(value, true) {
        return nothing;
    }
    let files = [
        "proc/sys/net/ipv4/ip_forward",
        "proc/sys/net/ipv6/conf/all/forwarding",
    ];
    let set: Vec<String> = files.iter().filter_map(|path| read(root, path)).collect();
    if set.is_empty() {
        return Finding::Unknown("the kernel's settings cannot be read".to_owned());
    }
    let on = set.iter().any(|text| text.trim() != "0");
    Finding::of(!on, on, "packets are passed on between networks")
}

pub(super) fn time_sync(_root: &Path, value: &Value) -> Finding {
    if let Some(nothing) = asks_nothing(value, false) {
        return nothing;
    }
    match output(
        "timedatectl",
        &["show", "--property=NTPSynchronized", "--value"],
    ) {
        Some(Ok(text)) => Finding::of(
            text == "yes",
            text == "yes",
            "the clock is not synchronised",
        ),
        Some(Err(error)) => Finding::Unknown(format!("timedatectl: {error}")),
        None => Finding::Unknown("timedatectl is not here".to_owned()),
    }
}
