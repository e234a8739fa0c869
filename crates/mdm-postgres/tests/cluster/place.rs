//! Data directories in awkward places.

use std::fs;
use std::path::Path;

use mdm_postgres::{Cluster, ClusterConfig, ClusterError, DATABASE};

use crate::support::{closed_directory, connect, is_root, place, read_row, start, write_row};

#[tokio::test]
async fn a_path_too_long_for_a_socket_works() {
    let place = place();
    let data_dir = place.path().join("d".repeat(100)).join("e".repeat(100));
    let cluster = start(&data_dir).await;
    write_row(&mut connect(&cluster).await).await;
    assert!(cluster.location().starts_with(&data_dir));
    let options = cluster.connect_options(DATABASE);
    let socket_dir = options.get_socket().unwrap();
    assert!(socket_dir.exists());
    cluster.stop().await.unwrap();
    assert!(!socket_dir.exists());
    let cluster = start(&data_dir).await;
    assert_eq!(read_row(&cluster).await, 42);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_path_with_spaces_commas_and_umlauts_works() {
    let place = place();
    let cluster = start(&place.path().join("a, 'b' \"c\" ü%")).await;
    write_row(&mut connect(&cluster).await).await;
    cluster.stop().await.unwrap();
}

/// A cluster in a closed directory, whose place is removed with it.
struct Closed {
    place: tempfile::TempDir,
    location: Option<std::path::PathBuf>,
}

impl Closed {
    async fn start() -> (Self, Cluster) {
        let place = place();
        let home = place.path().join("home");
        closed_directory(&home);
        let cluster = start(&home.join("data")).await;
        let location = Some(cluster.location().to_path_buf());
        (Self { place, location }, cluster)
    }

    fn home(&self) -> std::path::PathBuf {
        self.place.path().join("home")
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        if let Some(location) = self.location.take() {
            // For an ordinary user it is inside the directory that goes anyway.
            let _removed = fs::remove_dir_all(location);
        }
    }
}

#[tokio::test]
async fn a_directory_closed_to_postgresqls_user_keeps_its_database_elsewhere() {
    let (closed, cluster) = Closed::start().await;
    let data_dir = closed.home().join("data");
    // An ordinary user runs PostgreSQL itself, and nothing is closed to it.
    assert_eq!(cluster.location().starts_with(&data_dir), !is_root());
    write_row(&mut connect(&cluster).await).await;
    let location = cluster.location().to_path_buf();
    cluster.stop().await.unwrap();

    let cluster = start(&data_dir).await;
    assert_eq!(cluster.location(), location);
    assert_eq!(read_row(&cluster).await, 42);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_moved_data_directory_keeps_its_database() {
    let (closed, cluster) = Closed::start().await;
    write_row(&mut connect(&cluster).await).await;
    cluster.stop().await.unwrap();
    let moved = closed.home().join("moved");
    fs::rename(closed.home().join("data"), &moved).unwrap();

    let cluster = start(&moved).await;
    assert_eq!(read_row(&cluster).await, 42);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_data_directory_made_anew_gets_a_new_database() {
    let (closed, cluster) = Closed::start().await;
    write_row(&mut connect(&cluster).await).await;
    cluster.stop().await.unwrap();
    fs::remove_dir_all(closed.home().join("data")).unwrap();

    let cluster = start(&closed.home().join("data")).await;
    let second = cluster.location().to_path_buf();
    write_row(&mut connect(&cluster).await).await;
    cluster.stop().await.unwrap();
    fs::remove_dir_all(second).unwrap();
}

#[tokio::test]
async fn a_place_that_is_gone_is_not_taken_for_an_empty_database() {
    let place = place();
    let pointer = place.path().join("postgres.location");
    fs::write(&pointer, "/var/lib/mobius-mdm/no-such-place\n").unwrap();
    let error = refuse(place.path()).await;
    assert!(matches!(error, ClusterError::Lost { .. }));
    let message = error.to_string();
    assert!(message.contains("/var/lib/mobius-mdm/no-such-place"));
    assert!(message.contains(&pointer.display().to_string()));
}

#[tokio::test]
async fn a_place_that_others_can_write_to_is_not_followed() {
    use std::os::unix::fs::PermissionsExt;

    let place = place();
    let planted = place.path().join("planted");
    fs::create_dir(&planted).unwrap();
    fs::set_permissions(&planted, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(
        place.path().join("postgres.location"),
        planted.to_str().unwrap(),
    )
    .unwrap();
    let error = refuse(place.path()).await;
    assert!(error.to_string().contains("others than the server's user"));
}

#[tokio::test]
async fn a_copied_data_directory_does_not_share_its_originals_database() {
    let place = place();
    let (original, copy) = (place.path().join("original"), place.path().join("copy"));
    let database = place.path().join("database");
    for directory in [&original, &copy, &database] {
        fs::create_dir(directory).unwrap();
    }
    for data_dir in [&original, &copy] {
        let pointer = data_dir.join("postgres.location");
        fs::write(pointer, database.to_str().unwrap()).unwrap();
    }
    fs::write(database.join("data-directory"), original.to_str().unwrap()).unwrap();
    let error = refuse(&copy).await;
    assert!(error.to_string().contains("of which this is a copy"));
}

async fn refuse(data_dir: &Path) -> ClusterError {
    Cluster::start(ClusterConfig::durable(data_dir))
        .await
        .unwrap_err()
}
