//! The throw-away PostgreSQL: a database for each test, and nothing left behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mdm_testkit::{TestDatabase, wait_until};
use sqlx::{Connection, PgConnection};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_database_is_migrated_and_its_own() {
    let (first, second) = tokio::join!(TestDatabase::create(), TestDatabase::create());
    assert_ne!(first.url(), second.url());
    sqlx::raw_sql("CREATE TABLE mine ()")
        .execute(first.pool())
        .await
        .unwrap();
    for (database, tables) in [(&first, 2), (&second, 1)] {
        let found: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_tables WHERE tablename IN ('_sqlx_migrations', 'mine')",
        )
        .fetch_one(database.pool())
        .await
        .unwrap();
        assert_eq!(found, tables);
    }
}

#[test]
fn tests_in_runtimes_of_their_own_share_the_cluster() {
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(async {
                    let database = TestDatabase::create().await;
                    let mut connection = PgConnection::connect(database.url()).await.unwrap();
                    let name: String = sqlx::query_scalar("SELECT current_database()::text")
                        .fetch_one(&mut connection)
                        .await
                        .unwrap();
                    let directory: String =
                        sqlx::query_scalar("SELECT current_setting('data_directory')")
                            .fetch_one(database.pool())
                            .await
                            .unwrap();
                    (name, directory)
                })
            })
        })
        .collect();
    let found: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    for (index, (name, directory)) in found.iter().enumerate() {
        assert_eq!(directory, &found[0].1);
        assert!(found[..index].iter().all(|(other, _)| other != name));
    }
}

#[tokio::test]
async fn a_dropped_database_is_gone() {
    let other = TestDatabase::create().await;
    let database = TestDatabase::create().await;
    let name = database
        .connect_options()
        .get_database()
        .unwrap()
        .to_owned();
    // Even one that is connected to.
    let _connected = database.pool().acquire().await.unwrap();
    drop(database);
    wait_until("the database is gone", SOON, async || {
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(&name)
                .fetch_one(other.pool())
                .await
                .unwrap();
        (!exists).then_some(())
    })
    .await;
}

#[test]
fn the_command_gets_the_url_and_its_code_is_passed_on() {
    let output = Command::new(mdm_testkit::binary("throwaway"))
        .args(["sh", "-c", "echo $DATABASE_URL; exit 7"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    let url = String::from_utf8(output.stdout).unwrap();
    assert!(url.starts_with("postgres:///"), "{url}");
    assert!(!directory_of(&url).exists());
}

#[tokio::test]
async fn nothing_is_left_of_a_killed_process() {
    let mut process = Command::new(mdm_testkit::binary("throwaway"))
        .args(["sh", "-c", "echo $DATABASE_URL; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(process.stdout.as_mut().unwrap())
        .read_line(&mut url)
        .unwrap();
    let directory = directory_of(&url);
    assert!(directory.join("postgres/data/postmaster.pid").exists());
    process.kill().unwrap();
    process.wait().unwrap();
    wait_until("the directory is gone", SOON, async || {
        (!directory.exists()).then_some(())
    })
    .await;
    assert!(!is_mentioned_by_a_process(&directory));
}

/// The directory of a cluster, from its URL.
fn directory_of(url: &str) -> PathBuf {
    let (_, socket_dir) = url.split_once("host=").unwrap();
    let (socket_dir, _) = socket_dir.split_once('&').unwrap();
    let directory = Path::new(socket_dir).ancestors().nth(2).unwrap();
    assert!(
        directory
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("mdm-test-")
    );
    directory.to_path_buf()
}

fn is_mentioned_by_a_process(directory: &Path) -> bool {
    let directory = directory.to_str().unwrap();
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| {
            let line = String::from_utf8_lossy(&line);
            line.contains("postgres") && line.contains("-D") && line.contains(directory)
        })
    })
}
