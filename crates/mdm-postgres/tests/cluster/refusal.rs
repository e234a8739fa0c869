//! Refusals: each is one message that tells what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mdm_postgres::{Cluster, ClusterConfig, ClusterError};

use crate::support::{Server, place, start};

#[tokio::test]
async fn two_servers_on_one_data_directory() {
    let place = place();
    let server = Server::start(place.path());
    let error = refuse(ClusterConfig::durable(place.path())).await;
    assert!(matches!(error, ClusterError::InUse { .. }));
    let message = error.to_string();
    assert!(
        message.contains(place.path().to_str().unwrap()),
        "{message}"
    );
    assert!(
        message.contains(&format!("process {}", server.id())),
        "{message}"
    );
    server.kill();
    start(place.path()).await.stop().await.unwrap();
}

#[tokio::test]
async fn no_postgresql_on_the_machine() {
    let place = place();
    let empty = place.path().join("bin");
    fs::create_dir(&empty).unwrap();
    let error = refuse(ClusterConfig {
        bin_dir: Some(empty.clone()),
        ..ClusterConfig::durable(place.path().join("data"))
    })
    .await;
    assert!(matches!(error, ClusterError::NoPostgres { .. }));
    let message = error.to_string();
    for part in [
        empty.to_str().unwrap(),
        "apt-get install postgresql",
        "MDM_DATABASE_URL",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_database_of_another_major_version() {
    let place = place();
    let cluster = start(place.path()).await;
    let version = cluster.location().join("data/PG_VERSION");
    cluster.stop().await.unwrap();
    let installed = fs::read_to_string(&version).unwrap().trim().to_owned();
    fs::write(&version, "9\n").unwrap();

    // Without the override, the missing version would be fetched.
    let error = refuse(ClusterConfig {
        bin_dir: Some(pretend(place.path(), &installed, "exit 1")),
        ..ClusterConfig::durable(place.path())
    })
    .await;
    assert!(matches!(error, ClusterError::WrongVersion { .. }));
    let message = error.to_string();
    for part in [
        "made by PostgreSQL 9,",
        &format!("only PostgreSQL {installed} is here"),
        "pg_upgrade",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_made() {
    let place = place();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let error = refuse(ClusterConfig::durable(file.join("data"))).await;
    assert!(matches!(error, ClusterError::File { .. }));
    assert!(error.to_string().contains("choose a"), "{error}");
}

#[tokio::test]
async fn a_full_disk() {
    let place = place();
    let script = "echo 'initdb: error: could not write: No space left on device' >&2; exit 1";
    let error = refuse(ClusterConfig {
        bin_dir: Some(pretend(place.path(), "16", script)),
        ..ClusterConfig::durable(place.path().join("data"))
    })
    .await;
    assert!(matches!(error, ClusterError::Init { .. }));
    assert!(error.to_string().contains("the disk is full"), "{error}");
    let left = fs::read_dir(place.path().join("data/postgres"))
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("data")
        })
        .count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_configuration_that_postgresql_rejects() {
    let place = place();
    let cluster = start(place.path()).await;
    let settings = cluster.location().join("data/postgresql.conf");
    cluster.stop().await.unwrap();
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("{text}\nno_such_setting = 1\n")).unwrap();
    let error = refuse(ClusterConfig::durable(place.path())).await;
    assert!(matches!(error, ClusterError::Start { .. }));
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn files_where_the_database_belongs() {
    let place = place();
    let data = place.path().join("postgres/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("notes.txt"), "mine").unwrap();
    let error = refuse(ClusterConfig::durable(place.path())).await;
    assert!(matches!(error, ClusterError::NotACluster(_)), "{error}");
    assert_eq!(fs::read_to_string(data.join("notes.txt")).unwrap(), "mine");
}

async fn refuse(config: ClusterConfig) -> ClusterError {
    Cluster::start(config).await.unwrap_err()
}

/// Programs that say they are PostgreSQL of version `major`; `initdb` runs `script`.
fn pretend(parent: &Path, major: &str, script: &str) -> PathBuf {
    let dir = parent.join("pretended-bin");
    fs::create_dir(&dir).unwrap();
    let version = format!("echo 'postgres (PostgreSQL) {major}.0'");
    for (name, script) in [("postgres", version.as_str()), ("initdb", script)] {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}
