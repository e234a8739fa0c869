use std::{collections::BTreeSet, fs, net::TcpListener};

use serde_json::json;

use super::*;

const TIME: Duration = Duration::from_secs(30);

fn ask(sql: &str) -> Vec<Map<String, Value>> {
    query(sql, TIME)
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
        .rows
}

fn refused(sql: &str) -> String {
    query(sql, TIME)
        .err()
        .unwrap_or_else(|| panic!("{sql} was let through"))
        .to_string()
}

#[test]
fn every_table_gives_rows_in_all_of_its_columns() {
    for table in tables::ALL {
        let name = table.name.to_str().unwrap();
        let answer = query(&format!("SELECT * FROM {name}"), TIME).unwrap();
        assert_eq!(answer.columns.len(), table.columns.len(), "{name}");
        let rows = (table.rows)();
        assert!(
            rows.iter().all(|row| row.len() == table.columns.len()),
            "{name}"
        );
        assert!(
            !rows.is_empty() || name == "deb_packages",
            "{name} is empty"
        );
    }
}

#[test]
fn this_process_is_among_the_processes_with_its_parent() {
    let pid = std::process::id();
    let rows = ask(&format!(
        "SELECT parent, uid, start_time FROM processes WHERE pid = {pid}"
    ));
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:\t"))
        .unwrap();
    assert_eq!(rows[0]["parent"].to_string(), parent);
    let joined = ask(&format!(
        "SELECT u.username FROM processes p JOIN users u ON u.uid = p.uid WHERE p.pid = {pid}"
    ));
    assert_eq!(joined.len(), 1);
}

#[test]
fn users_are_those_of_the_system() {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let expected: BTreeSet<_> = passwd
        .lines()
        .map(|line| line.split(':').next().unwrap().to_owned())
        .collect();
    let told: BTreeSet<_> = ask("SELECT username FROM users")
        .iter()
        .map(|row| row["username"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn the_kernel_and_the_root_are_true() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(
        ask("SELECT version FROM kernel_info")[0]["version"],
        release.trim()
    );
    assert!(
        ask("SELECT count(*) AS n FROM mounts WHERE path = '/'")[0]["n"]
            .as_i64()
            .unwrap()
            >= 1
    );
    assert!(
        ask("SELECT total_seconds FROM uptime")[0]["total_seconds"]
            .as_i64()
            .unwrap()
            > 0
    );
}

#[test]
fn a_listening_socket_is_seen_with_its_process() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let rows = ask(&format!(
        "SELECT pid, address, protocol FROM listening_ports WHERE port = {port}"
    ));
    assert_eq!(
        Value::Object(rows[0].clone()),
        json!({ "pid": std::process::id(), "address": "127.0.0.1", "protocol": 6 })
    );
}

#[test]
fn installed_packages_are_those_that_dpkg_knows() {
    let Ok(output) = std::process::Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}\n"])
        .output()
    else {
        return;
    };
    let installed = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter(|line| *line == "installed")
        .count();
    assert_eq!(
        ask("SELECT count(*) AS n FROM deb_packages")[0]["n"],
        json!(installed)
    );
}

#[test]
fn the_agent_tells_of_itself() {
    let row = &ask("SELECT name, version, platform FROM osquery_info")[0];
    assert_eq!(
        (&row["name"], &row["version"]),
        (&json!("mobius-agent"), &json!(env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn everything_but_reading_is_refused() {
    for sql in [
        "CREATE TABLE x (a)",
        "INSERT INTO users (username) VALUES ('x')",
        "DELETE FROM processes",
        "UPDATE users SET username = 'x'",
        "ATTACH DATABASE '/tmp/x.db' AS x",
        "PRAGMA journal_mode",
        "DROP TABLE users",
        "SELECT load_extension('x')",
        "BEGIN",
        "VACUUM INTO '/tmp/x.db'",
        "CREATE VIRTUAL TABLE y USING users",
        "SELECT 1; SELECT 2",
        "",
        "SELECT * FROM nothing",
        "SELEC 1",
    ] {
        assert!(!refused(sql).is_empty());
    }
}

#[test]
fn a_query_without_end_is_ended() {
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let begun = Instant::now();
    let error = query(endless, Duration::from_millis(200)).err().unwrap();
    assert!(matches!(error, QueryError::TooLong(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_query_that_gives_too_much_is_refused() {
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) SELECT i FROM n";
    assert!(refused(many).contains("LIMIT"));
    let wide = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20) SELECT hex(zeroblob(200000)) AS x FROM n";
    assert!(refused(wide).contains("bytes"));
    assert!(!refused("SELECT zeroblob(100000000)").is_empty());
}

#[test]
fn values_keep_their_types_and_columns_their_order() {
    let answer = query(
        "SELECT 2 AS b, 1.5 AS a, NULL AS n, 'x' AS a, x'0aff' AS h",
        TIME,
    )
    .unwrap();
    assert_eq!(answer.columns, ["b", "a", "n", "a:1", "h"]);
    assert_eq!(
        Value::Object(answer.rows[0].clone()),
        json!({ "b": 2, "a": 1.5, "n": null, "a:1": "x", "h": "0aff" })
    );
}
