//! Starting, stopping, and what is open in between.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use mdm_postgres::DATABASE;
use mdm_testkit::wait_until;
use sqlx::{Connection, PgConnection};

use crate::support::{SOON, connect, is_running, place, read_row, start, write_row};

#[tokio::test]
async fn a_later_start_keeps_the_data_of_the_first() {
    let place = place();
    let data_dir = place.path().join("data");
    let cluster = start(&data_dir).await;
    write_row(&mut connect(&cluster).await).await;
    cluster.stop().await.unwrap();

    let cluster = start(&data_dir).await;
    assert_eq!(read_row(&cluster).await, 42);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn the_url_connects_to_a_database_in_utf8_with_utc() {
    let place = place();
    let cluster = start(place.path()).await;
    let mut connection = PgConnection::connect(&cluster.url(DATABASE)).await.unwrap();
    let found: (String, String, String, String) = sqlx::query_as(
        "SELECT current_database()::text, current_user::text,
                current_setting('server_encoding'), current_setting('TimeZone')",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    let expected = ("mobius", "mobius", "UTF8", "UTC");
    assert_eq!(
        found,
        (
            expected.0.to_owned(),
            expected.1.to_owned(),
            expected.2.to_owned(),
            expected.3.to_owned()
        )
    );
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn the_only_way_in_is_a_socket_in_a_private_directory() {
    let place = place();
    let cluster = start(place.path()).await;
    let mut connection = connect(&cluster).await;
    let (addresses, directory): (String, String) = sqlx::query_as(
        "SELECT current_setting('listen_addresses'), current_setting('unix_socket_directories')",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(addresses, "");
    let mode = fs::metadata(&directory).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn stopping_is_quick_and_leaves_no_process_even_beneath_a_busy_session() {
    let place = place();
    let cluster = start(place.path()).await;
    let pid = cluster.postmaster_pid().unwrap();
    let mut busy = connect(&cluster).await;
    let query = tokio::spawn(async move {
        sqlx::query("SELECT pg_sleep(1000)")
            .execute(&mut busy)
            .await
    });
    let began = Instant::now();
    cluster.stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(!is_running(pid));
    assert_eq!(cluster.postmaster_pid(), None);
    query.await.unwrap().unwrap_err();
    // Once stopped it is stopped, and the directory is free for another.
    cluster.stop().await.unwrap();
    start(place.path()).await.stop().await.unwrap();
}

#[tokio::test]
async fn a_dropped_cluster_shuts_down_by_itself() {
    let place = place();
    let cluster = start(place.path()).await;
    let pid = cluster.postmaster_pid().unwrap();
    drop(cluster);
    wait_until("PostgreSQL has ended", SOON, async || {
        (!is_running(pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_start_during_the_shutdown_of_the_last_one_waits_for_it() {
    let place = place();
    let cluster = start(place.path()).await;
    write_row(&mut connect(&cluster).await).await;
    drop(cluster);
    let cluster = wait_until("the lock is free", SOON, async || {
        mdm_postgres::Cluster::start(mdm_postgres::ClusterConfig::durable(place.path()))
            .await
            .ok()
    })
    .await;
    assert_eq!(read_row(&cluster).await, 42);
    cluster.stop().await.unwrap();
}
