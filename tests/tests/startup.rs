//! Starting and stopping, as operators meet it.

use rustix::process::Signal;
use serde_json::json;

use crate::processes::{Site, bare};

#[tokio::test]
async fn ctrl_c_and_sigterm_stop_server_and_database_within_five_seconds() {
    let mut site = Site::start().await;
    for how in [Signal::INT, Signal::TERM] {
        let took = site.server.stop(how);
        assert!(took.as_secs_f64() < 5.0, "{took:?}");
        assert!(site.server.postmaster().is_none());
        site.server.restart();
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_told_so_and_the_first_goes_on() {
    let site = Site::start().await;
    let data_dir = site.directory.path().join("data");
    let output = bare("mdm-api")
        .arg("--data-dir")
        .arg(&data_dir)
        .args(["--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains(&data_dir.display().to_string())
            && said.contains(&site.server.pid().to_string()),
        "{said}"
    );
    site.server.get("/api/v1/devices", &site.token).await;
}

#[tokio::test]
async fn a_taken_address_and_a_wrong_setting_are_named() {
    let site = Site::start().await;
    let other = site.directory.path().join("other");
    let output = bare("mdm-api")
        .arg("--data-dir")
        .arg(&other)
        .args(["--listen", &site.server.address()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&site.server.address()), "{said}");
    assert!(
        !other.join("postgres").exists(),
        "no database is made for a server that cannot serve"
    );
    let output = bare("mdm-api")
        .args(["config"])
        .env("MDM_WORKERS", "many")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("MDM_WORKERS"));
}

#[tokio::test]
async fn an_administrator_who_lost_the_password_gets_a_new_one_while_the_server_runs() {
    let site = Site::start().await;
    let data_dir = site.directory.path().join("data");
    let output = bare("mdm-api")
        .arg("--data-dir")
        .arg(&data_dir)
        .args(["admin", "reset-password", "admin@mobius.local"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8(output.stdout).unwrap();
    let password = said
        .trim()
        .strip_prefix("new password: ")
        .unwrap()
        .to_owned();
    let old = json!({ "username": "admin", "password": site.password });
    assert_eq!(
        site.server
            .call("POST", "/api/v1/auth/login", "", Some(old))
            .await
            .0,
        401
    );
    site.server.login(&password).await;
    // The sessions of before have ended, on the running server too.
    mdm_testkit::wait_until(
        "the old session has ended",
        std::time::Duration::from_secs(10),
        async || {
            (site
                .server
                .call("GET", "/api/v1/auth/me", &site.token, None)
                .await
                .0
                == 401)
                .then_some(())
        },
    )
    .await;
}

#[tokio::test]
async fn a_rotated_key_signs_new_tokens_and_the_old_ones_stay_good() {
    let site = Site::start().await;
    let data_dir = site.directory.path().join("data");
    let output = bare("mdm-api")
        .arg("--data-dir")
        .arg(&data_dir)
        .args(["keys", "rotate"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let kid = String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .rsplit(' ')
        .next()
        .unwrap()
        .to_owned();
    mdm_testkit::wait_until(
        "the new key is published",
        std::time::Duration::from_mins(1),
        async || {
            let keys = site.server.get("/.well-known/jwks.json", "").await;
            keys["keys"]
                .as_array()
                .unwrap()
                .iter()
                .any(|key| key["kid"] == kid)
                .then_some(())
        },
    )
    .await;
    site.server.login(&site.password).await;
    site.server.get("/api/v1/auth/me", &site.token).await;
}

#[tokio::test]
async fn migrations_and_settings_are_shown_for_people_and_for_programs() {
    let site = Site::start().await;
    let data_dir = site.directory.path().join("data");
    let run = |arguments: &[&str]| {
        let output = bare("mdm-api")
            .arg("--data-dir")
            .arg(&data_dir)
            .args(arguments)
            .env("MDM_METRICS_TOKEN", "s3cret")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let status: serde_json::Value =
        serde_json::from_str(&run(&["migrate", "--status", "--json"])).unwrap();
    assert!(
        status
            .as_array()
            .unwrap()
            .iter()
            .all(|migration| migration["applied"] == true)
    );
    assert!(run(&["migrate", "--status"]).contains("applied"));
    let settings = run(&["config", "--json"]);
    assert!(
        settings.contains("flag --data-dir") && settings.contains("environment"),
        "{settings}"
    );
    assert!(!settings.contains("s3cret"));
}
