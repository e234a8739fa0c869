//! What a start does with what a crash left behind.

use std::fs;

use mdm_postgres::{Cluster, ClusterConfig, Durability};
use mdm_testkit::wait_until;
use rustix::process::Signal;
use sqlx::{Connection, PgConnection};

use crate::support::{
    SOON, Server, connect, is_running, pid_file, place, read_row, recorded_pid, signal, start,
    write_row,
};

#[tokio::test]
async fn a_postgresql_that_survived_its_server_is_taken_over() {
    let place = place();
    let server = Server::start(place.path());
    write_row(&mut server.connect().await).await;
    let pid = recorded_pid(place.path());
    server.kill();
    assert!(is_running(pid));

    let cluster = start(place.path()).await;
    assert_eq!(cluster.postmaster_pid(), Some(pid));
    assert_eq!(read_row(&cluster).await, 42);
    cluster.stop().await.unwrap();
    assert!(!is_running(pid));
}

#[tokio::test]
async fn a_survivor_with_other_settings_is_started_again_with_the_wanted_ones() {
    let place = place();
    let server = Server::start(place.path());
    write_row(&mut server.connect().await).await;
    let pid = recorded_pid(place.path());
    server.kill();

    let config = ClusterConfig {
        durability: Durability::ThrowAway,
        ..ClusterConfig::durable(place.path())
    };
    let cluster = Cluster::start(config).await.unwrap();
    assert_ne!(cluster.postmaster_pid(), Some(pid));
    let fsync: String = sqlx::query_scalar("SELECT current_setting('fsync')")
        .fetch_one(&mut connect(&cluster).await)
        .await
        .unwrap();
    assert_eq!(fsync, "off");
    assert_eq!(read_row(&cluster).await, 42);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_postgresql_is_started_again_and_has_the_data() {
    let place = place();
    let cluster = start(place.path()).await;
    write_row(&mut connect(&cluster).await).await;
    kill_and_await_the_next(&cluster).await;
    // And not only once.
    kill_and_await_the_next(&cluster).await;
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_taken_over_postgresql_is_watched_like_our_own() {
    let place = place();
    let server = Server::start(place.path());
    write_row(&mut server.connect().await).await;
    server.kill();
    let cluster = start(place.path()).await;
    kill_and_await_the_next(&cluster).await;
    cluster.stop().await.unwrap();
}

/// Kills the server process and returns when another one serves the row.
async fn kill_and_await_the_next(cluster: &Cluster) {
    let killed = cluster.postmaster_pid().unwrap();
    signal(killed, Signal::KILL);
    wait_until("PostgreSQL runs again", SOON, async || {
        let next = cluster.postmaster_pid().filter(|next| *next != killed);
        let connected =
            PgConnection::connect_with(&cluster.connect_options(mdm_postgres::DATABASE)).await;
        next.and(connected.ok()).map(drop)
    })
    .await;
    assert_eq!(read_row(cluster).await, 42);
}

#[tokio::test]
async fn a_recorded_process_number_that_was_given_to_another_process_is_no_obstacle() {
    let place = place();
    let server = Server::start(place.path());
    write_row(&mut server.connect().await).await;
    let pid = recorded_pid(place.path());
    server.kill();
    signal(pid, Signal::KILL);
    wait_until("PostgreSQL is dead", SOON, async || {
        (!is_running(pid)).then_some(())
    })
    .await;
    // The server process of another cluster: it runs as the same user, and it is no relative.
    let other_place = crate::support::place();
    let other = start(other_place.path()).await;
    let reused = other.postmaster_pid().unwrap().to_string();
    for file in [
        pid_file(place.path()),
        place.path().join("postgres/run/.s.PGSQL.5432.lock"),
    ] {
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen(&pid.to_string(), &reused, 1)).unwrap();
    }

    let cluster = start(place.path()).await;
    assert_eq!(read_row(&cluster).await, 42);
    assert_eq!(other.postmaster_pid().unwrap().to_string(), reused);
    cluster.stop().await.unwrap();
    other.stop().await.unwrap();
}

#[tokio::test]
async fn a_session_that_outlives_its_postgresql_does_not_block_the_next_start() {
    let place = place();
    let server = Server::start(place.path());
    write_row(&mut server.connect().await).await;
    let pid = recorded_pid(place.path());
    let mut busy = server.connect().await;
    let session: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut busy)
        .await
        .unwrap();
    let session = u32::try_from(session).unwrap();
    // Stopped, it notices nothing: the worst case of a session that is busy elsewhere.
    signal(session, Signal::STOP);
    server.kill();
    signal(pid, Signal::KILL);

    let cluster = start(place.path()).await;
    assert_eq!(read_row(&cluster).await, 42);
    assert!(!is_running(session));
    cluster.stop().await.unwrap();
    // Its server is gone, so this can only fail.
    let _closed = busy.close().await;
}

#[tokio::test]
async fn a_server_killed_while_it_makes_the_database_leaves_nothing_that_looks_like_one() {
    let place = place();
    let mut server = Server::spawn(place.path());
    let base = place.path().join("postgres");
    wait_until("the new database has files", SOON, async || {
        fs::read_dir(&base).ok()?.flatten().find(|entry| {
            let is_unfinished = entry.file_name().to_string_lossy().starts_with("data.new.");
            is_unfinished && entry.path().join("PG_VERSION").exists()
        })
    })
    .await;
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(!base.join("data").exists());

    let cluster = start(place.path()).await;
    write_row(&mut connect(&cluster).await).await;
    cluster.stop().await.unwrap();
    let names: Vec<_> = fs::read_dir(&base)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with("data."))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}
