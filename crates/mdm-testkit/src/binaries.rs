//! The project's real binaries, for tests that run them.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

static BUILT: LazyLock<Mutex<HashMap<String, PathBuf>>> = LazyLock::new(Mutex::default);

/// Builds the binary `name`, with the profile and in the target directory of the running test, and
/// returns its path. It is built once per test process.
///
/// # Panics
///
/// If it cannot be built: the test could only run something stale.
pub fn binary(name: &str) -> PathBuf {
    // Held while building: two tests that ask for the same binary build it once.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = built.get(name) {
        return path.clone();
    }
    let path = build(name).unwrap_or_else(|error| panic!("cannot build {name}: {error:#}"));
    built.insert(name.to_owned(), path.clone());
    path
}

fn build(name: &str) -> anyhow::Result<PathBuf> {
    // Set where the tests run as a user who cannot build: the binaries were built before.
    if let Some(directory) = env::var_os("MDM_TEST_BIN_DIR") {
        let path = PathBuf::from(directory).join(name);
        anyhow::ensure!(path.is_file(), "there is no {}", path.display());
        return Ok(path);
    }
    let layout = Layout::of(&env::current_exe()?)?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What cargo told the test about itself is no setting, but some build scripts run again when it
    // differs, and much is then built again.
    for (key, _) in env::vars_os() {
        let is_told = key.to_str().is_some_and(|key| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"]
                .iter()
                .any(|prefix| key.starts_with(prefix))
        });
        if is_told {
            command.env_remove(key);
        }
    }
    let status = command
        .args([
            "build",
            "--quiet",
            "--package",
            package(name),
            "--bin",
            name,
        ])
        .args(["--profile", &layout.profile, "--target-dir"])
        .arg(&layout.target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .status()?;
    anyhow::ensure!(status.success(), "cargo ended with {status}");
    let path = layout.artifacts.join(name);
    anyhow::ensure!(path.is_file(), "there is no {}", path.display());
    Ok(path)
}

/// Where a binary's name is not its package's.
fn package(name: &str) -> &str {
    match name {
        "mdmctl" => "mdm-cli",
        "throwaway" => "mdm-testkit",
        name => name,
    }
}

/// What the path of a test, `TARGET/PROFILE/deps/NAME-HASH`, tells of how it was built.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    target: PathBuf,
    artifacts: PathBuf,
    profile: String,
}

impl Layout {
    fn of(executable: &Path) -> anyhow::Result<Self> {
        let find = || {
            let parent = executable.parent()?;
            let artifacts = if parent.ends_with("deps") {
                parent.parent()?
            } else {
                parent
            };
            let profile = match artifacts.file_name()?.to_str()? {
                "debug" => "dev",
                profile => profile,
            };
            Some(Self {
                target: artifacts.parent()?.to_path_buf(),
                artifacts: artifacts.to_path_buf(),
                profile: profile.to_owned(),
            })
        };
        find()
            .ok_or_else(|| anyhow::anyhow!("{} is not in a target directory", executable.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_and_target_directory_are_those_of_the_test() {
        let layout = Layout::of(Path::new("/t/debug/deps/main-0123")).unwrap();
        assert_eq!(layout.profile, "dev");
        assert_eq!(layout.target, Path::new("/t"));
        assert_eq!(layout.artifacts, Path::new("/t/debug"));
        let layout = Layout::of(Path::new("/t/release/throwaway")).unwrap();
        assert_eq!(layout.profile, "release");
        assert_eq!(layout.target, Path::new("/t"));
    }
}
