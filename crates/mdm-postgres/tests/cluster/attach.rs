//! Commands beside a server, on its data directory.

use std::fs;

use mdm_postgres::{ClusterError, DATABASE, exists, running};
use rustix::process::Signal;
use sqlx::{Connection, PgConnection};

use crate::support::{Server, connect, place, recorded_pid, signal, start, write_row};

#[tokio::test]
async fn a_command_beside_a_server_reaches_its_database() {
    let place = place();
    let cluster = start(place.path()).await;
    write_row(&mut connect(&cluster).await).await;
    let beside = running(place.path(), DATABASE).await.unwrap().unwrap();
    let mut connection = PgConnection::connect_with(&beside).await.unwrap();
    let value: i32 = sqlx::query_scalar("SELECT value FROM kept")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(value, 42);
    connection.close().await.unwrap();
    cluster.stop().await.unwrap();
    assert!(running(place.path(), DATABASE).await.unwrap().is_none());
    assert!(exists(place.path()).unwrap());
}

#[tokio::test]
async fn a_look_at_a_directory_that_nobody_runs_makes_nothing_there() {
    let place = place();
    let missing = place.path().join("missing");
    for data_dir in [missing.as_path(), place.path()] {
        assert!(running(data_dir, DATABASE).await.unwrap().is_none());
        assert!(!exists(data_dir).unwrap());
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_postgresql_that_survived_its_server_belongs_to_nobody() {
    let place = place();
    Server::start(place.path()).kill();
    assert!(running(place.path(), DATABASE).await.unwrap().is_none());
    start(place.path()).await.stop().await.unwrap();
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_told_with_the_server_that_has_it() {
    let place = place();
    let server = Server::start(place.path());
    let postmaster = recorded_pid(place.path());
    signal(postmaster, Signal::STOP);
    let error = running(place.path(), DATABASE).await.unwrap_err();
    signal(postmaster, Signal::CONT);
    assert!(matches!(error, ClusterError::NotServing { .. }));
    let message = error.to_string();
    assert!(
        message.contains(&format!("process {}", server.id())),
        "{message}"
    );
    server.kill();
    start(place.path()).await.stop().await.unwrap();
}
