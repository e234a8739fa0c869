//! `mdmctl` as operators and their scripts use it.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::processes::{Site, bare};

/// Somebody with a configuration directory of their own.
struct Operator {
    config: PathBuf,
}

impl Operator {
    fn new(site: &Site) -> Self {
        Self {
            config: site.directory.path().join("mdmctl"),
        }
    }

    /// Signed in as the first administrator.
    fn signed_in(site: &Site) -> Self {
        let operator = Self::new(site);
        let login = [
            "--server",
            &site.server.url,
            "login",
            "--user",
            "admin@mobius.local",
        ];
        operator.succeeds_with(&login, &site.password);
        operator
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare("mdmctl");
        command
            .args(arguments)
            .env("MDMCTL_CONFIG_DIR", &self.config);
        command
    }

    fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn succeeds_with(&self, arguments: &[&str], input: &str) -> String {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{input}").unwrap();
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.succeeds(&[&["--json"], arguments].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// What it says on standard error, with this exit code.
    fn fails(&self, arguments: &[&str], code: i32) -> String {
        let output = self.call(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Makes the kept token look as if it had ended.
    fn age_session(&self) {
        let path = self.config.join("session.json");
        let mut session: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        session["expires_at"] = json!("2026-01-01T00:00:00Z");
        session["token"] = json!("of yesterday");
        std::fs::write(&path, session.to_string()).unwrap();
    }
}

#[tokio::test]
async fn an_operator_does_the_main_job_from_the_command_line() {
    let site = Site::start().await;
    let operator = Operator::signed_in(&site);
    let mut agent = site.agent("this-machine").await;
    agent.run();
    let device = site
        .server
        .get("/api/v1/devices/this-machine", &site.token)
        .await;
    let id = device["id"].as_str().unwrap();
    site.server.wait_for_status(id, "online", &site.token).await;

    operator.succeeds(&[
        "groups",
        "create",
        "--name",
        "servers",
        "--filters",
        r#"{"platform": "linux"}"#,
    ]);
    let configuration = r#"{"ssh_root_login_allowed": false}"#;
    operator.succeeds(&[
        "policies",
        "create",
        "--name",
        "base",
        "--platform",
        "linux",
        "--configuration",
        configuration,
    ]);
    operator.succeeds(&["policies", "assign", "base", "--group", "servers"]);
    let effective = operator.json(&["devices", "policies", "this-machine"]);
    assert_eq!(effective["policies"][0]["name"], "base");
    assert_eq!(
        effective["policies"][0]["paths"][0]["group_name"],
        "servers"
    );

    let ran = operator.json(&["run", "system_info", "--device", "this-machine", "--wait"]);
    assert_eq!(ran["status"], "completed");
    let batch = operator.json(&["run", "system_info", "--group", "servers", "--wait"]);
    assert_eq!(batch["counts"]["completed"], 1, "{batch}");
    let rows = operator.json(&[
        "query",
        "SELECT 6 * 7 AS answer",
        "--device",
        "this-machine",
    ]);
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(rows[0]["answer"].to_string().trim_matches('"'), "42");

    let table = operator.succeeds(&[
        "devices", "list", "--group", "servers", "--status", "online",
    ]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(
        lines[0].starts_with("ID") && lines[1].starts_with(id),
        "{table}"
    );

    // A script that is not allowed fails on the device, and so does mdmctl.
    let script = [
        "run",
        "run_script",
        "--device",
        "this-machine",
        "--param",
        "script=true",
        "--wait",
    ];
    let output = operator.call(&script);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("failed"));
    let asked = operator.fails(&["run", "wipe", "--device", "this-machine"], 1);
    assert!(asked.contains("--yes"), "{asked}");
    assert_eq!(
        operator.json(&["commands", "list", "--command", "wipe"]),
        json!([])
    );
}

#[tokio::test]
async fn many_at_once_renew_one_session() {
    let site = Site::start().await;
    let operator = Operator::signed_in(&site);
    operator.age_session();
    let all: Vec<_> = (0..8)
        .map(|_| {
            let mut command = operator.command(&["whoami"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for child in all {
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
    }
    operator.succeeds(&["logout"]);
    let told = operator.fails(&["--server", &site.server.url, "whoami"], 1);
    assert!(
        told.contains("mdmctl --server") && told.contains("login"),
        "{told}"
    );
}

#[tokio::test]
async fn a_package_goes_up_and_comes_down_whole() {
    let site = Site::start().await;
    let operator = Operator::signed_in(&site);
    let bytes: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
    let package = site.directory.path().join("tool.deb");
    std::fs::write(&package, &bytes).unwrap();
    let package = package.display().to_string();
    let create = [
        "apps",
        "create",
        &package,
        "--name",
        "tool",
        "--app-version",
        "1",
        "--platform",
        "linux",
    ];
    let app = operator.json(&create);
    let id = app["id"].as_str().unwrap();

    let down = site.directory.path().join("down");
    std::fs::create_dir(&down).unwrap();
    // What a broken download left is gone on with.
    std::fs::write(down.join(format!("tool.deb.{id}.part")), &bytes[..700_000]).unwrap();
    let to = down.display().to_string();
    operator.succeeds(&["apps", "download", "tool", "--output", &to]);
    assert!(std::fs::read(down.join("tool.deb")).unwrap() == bytes);
    assert_eq!(std::fs::read_dir(&down).unwrap().count(), 1);
    let told = operator.fails(&["apps", "download", "tool", "--output", &to], 1);
    assert!(told.contains("there already"), "{told}");
}

#[tokio::test]
async fn events_are_followed_over_a_restart_of_the_server() {
    let mut site = Site::start().await;
    let operator = Operator::signed_in(&site);
    let mut command = operator.command(&[
        "--json",
        "events",
        "--follow",
        "--type",
        "policy_changed",
        "--after",
    ]);
    operator.succeeds(&[
        "policies",
        "create",
        "--name",
        "zero",
        "--platform",
        "linux",
        "--configuration",
        "{}",
    ]);
    let first = operator.succeeds(&["--json", "events", "--type", "policy_changed"]);
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    command.arg(first["id"].as_str().unwrap());
    let mut follower = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next =
        move || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };

    for name in ["one", "two"] {
        operator.succeeds(&[
            "policies",
            "create",
            "--name",
            name,
            "--platform",
            "linux",
            "--configuration",
            "{}",
        ]);
        assert_eq!(next()["data"]["name"], name);
        site.server.kill();
        site.server.restart();
    }
    operator.succeeds(&[
        "policies",
        "create",
        "--name",
        "three",
        "--platform",
        "linux",
        "--configuration",
        "{}",
    ]);
    assert_eq!(next()["data"]["name"], "three");
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[tokio::test]
async fn what_is_wrong_is_told_and_the_exit_code_says_so() {
    let site = Site::start().await;
    let operator = Operator::new(&site);
    let told = operator.fails(&["--server", "http://127.0.0.1:9", "health"], 1);
    assert!(told.contains("cannot be reached"), "{told}");
    operator.fails(&["devices", "lst"], 2);
    let operator = Operator::signed_in(&site);
    let told = operator.fails(&["groups", "get", "nobody"], 1);
    assert!(told.contains("no group with the name \"nobody\""), "{told}");
    let told = operator.fails(
        &[
            "devices",
            "create",
            "--uuid",
            "u",
            "--hostname",
            "h",
            "--platform",
            "beos",
        ],
        1,
    );
    assert!(told.contains("/platform"), "{told}");
    let told = operator.fails(&["policies", "create"], 1);
    assert!(told.contains("--file"), "{told}");
    let script = operator.succeeds(&["completion", "bash"]);
    assert!(script.contains("_mdmctl"));
    // A key in place of a session.
    let made = operator.json(&[
        "api-keys",
        "create",
        "--name",
        "reader",
        "--scope",
        "devices:read",
    ]);
    let mut command = Operator {
        config: site.directory.path().join("nobody"),
    }
    .command(&["--server", &site.server.url, "devices", "list", "--json"]);
    let output = command
        .env("MDM_API_KEY", made["key"].as_str().unwrap())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "[]\n");
}
