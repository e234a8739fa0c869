//! Firewall, forwarding, clock.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Finding, Unreadable, asks_nothing, read};

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

pub(super) fn firewall(_root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    if let Some(nothing) = asks_nothing(value, false) {
        return Ok(nothing);
    }
    let asked = [
        output("nft", &["list", "ruleset"]).map(|told| told.map(|rules| nft_filters(&rules))),
        output("iptables-save", &[]).map(|told| told.map(|rules| iptables_filters(&rules))),
    ];
    let told: Vec<_> = asked.into_iter().flatten().collect();
    if told.contains(&Ok(true)) {
        return Ok(Finding::Passed(true.into()));
    }
    if let Some(error) = told.iter().find_map(|told| told.as_ref().err()) {
        return Err(Unreadable(format!("the rules cannot be read: {error}")));
    }
    if told.is_empty() {
        let why = "neither nft nor iptables-save is here to tell the rules";
        return Ok(Finding::Unknown(why.to_owned()));
    }
    let why = "nothing that comes in is filtered";
    Ok(Finding::Failed(false.into(), why.to_owned()))
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

pub(super) fn ip_forwarding(root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    if let Some(nothing) = asks_nothing(value, true) {
        return Ok(nothing);
    }
    let files = [
        "proc/sys/net/ipv4/ip_forward",
        "proc/sys/net/ipv6/conf/all/forwarding",
    ];
    let mut set = Vec::new();
    for path in files {
        set.extend(read(root, path)?);
    }
    if set.is_empty() {
        return Ok(Finding::Unknown(
            "the kernel's settings cannot be read".to_owned(),
        ));
    }
    let on = set.iter().any(|text| text.trim() != "0");
    Ok(Finding::of(
        !on,
        on,
        "packets are passed on between networks",
    ))
}

pub(super) fn time_sync(_root: &Path, value: &Value) -> Result<Finding, Unreadable> {
    if let Some(nothing) = asks_nothing(value, false) {
        return Ok(nothing);
    }
    let show = ["show", "--property=NTPSynchronized", "--value"];
    Ok(match output("timedatectl", &show) {
        Some(Ok(text)) => Finding::of(
            text == "yes",
            text == "yes",
            "the clock is not synchronised",
        ),
        Some(Err(error)) => return Err(Unreadable(format!("timedatectl: {error}"))),
        None => Finding::Unknown("timedatectl is not here".to_owned()),
    })
}
