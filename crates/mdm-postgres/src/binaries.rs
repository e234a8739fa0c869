//! PostgreSQL's programs: where they are, and which version.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::error::ClusterError;
use crate::location::Location;

/// The oldest major version that the schema is written for.
const OLDEST: u32 = 14;

/// Where [`installed`] looks, for the message that nothing is there.
const PLACES: &str = "/usr/lib/postgresql/*/bin, /usr/pgsql-*/bin, `pg_config --bindir`, PATH";

/// The programs of one installed version.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    dir: PathBuf,
    pub major: u32,
}

impl Binaries {
    pub fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }

    pub fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }
}

/// Finds the programs for a cluster of version `wanted`, or for a new cluster the newest ones.
pub(crate) async fn find(
    override_dir: Option<&Path>,
    location: &Location,
    wanted: Option<u32>,
) -> Result<Binaries, ClusterError> {
    let mut search = Search {
        location,
        wanted,
        searched: Vec::new(),
        other_versions: Vec::new(),
    };
    if let Some(dir) = override_dir {
        if let Some(found) = search.look(dir).await {
            return Ok(found);
        }
        return Err(search.failure("no other place was to be used".to_owned()));
    }
    search.searched.push(PLACES.to_owned());
    for dir in installed(location) {
        if let Some(found) = search.look(&dir).await {
            return Ok(found);
        }
    }
    match crate::fetch::fetch(location, wanted).await {
        Ok(dir) => match search.look(&dir).await {
            Some(found) => Ok(found),
            None => Err(search.failure("the fetched one does not run here".to_owned())),
        },
        Err(reason) => Err(search.failure(format!("none could be fetched ({reason})"))),
    }
}

struct Search<'a> {
    location: &'a Location,
    wanted: Option<u32>,
    searched: Vec<String>,
    other_versions: Vec<u32>,
}

impl Search<'_> {
    /// The programs in `dir`, if they run, for the right user, and are of the right version.
    async fn look(&mut self, dir: &Path) -> Option<Binaries> {
        let outcome = if dir.join("postgres").is_file() && dir.join("initdb").is_file() {
            version(dir, self.location).await
        } else {
            Err("no postgres and initdb there".to_owned())
        };
        match outcome {
            Ok(major)
                if self
                    .wanted
                    .map_or(major >= OLDEST, |wanted| major == wanted) =>
            {
                return Some(Binaries {
                    dir: dir.to_path_buf(),
                    major,
                });
            }
            Ok(major) => {
                self.other_versions.push(major);
                self.searched.push(format!(
                    "{}: version {major}, which is not {}",
                    dir.display(),
                    self.wanted
                        .map_or_else(|| format!("{OLDEST} or newer"), |wanted| wanted.to_string())
                ));
            }
            Err(reason) => self.searched.push(format!("{}: {reason}", dir.display())),
        }
        None
    }

    fn failure(self, fetch: String) -> ClusterError {
        if let (Some(cluster), false) = (self.wanted, self.other_versions.is_empty()) {
            let found: Vec<_> = self.other_versions.iter().map(u32::to_string).collect();
            return ClusterError::WrongVersion {
                data: self.location.data(),
                cluster,
                found: found.join(" and "),
                fetch: format!(", and {fetch}"),
            };
        }
        let searched = self.searched.join("; ");
        ClusterError::NoPostgres { searched, fetch }
    }
}

/// Asks `postgres` itself, as the user who will run it: that also proves that it runs.
async fn version(dir: &Path, location: &Location) -> Result<u32, String> {
    let mut command = std::process::Command::new(dir.join("postgres"));
    command.arg("--version").current_dir(&location.base);
    location.account.confine(&mut command);
    let output = Command::from(command)
        .output()
        .await
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    parse_version(&text).ok_or_else(|| {
        format!(
            "it does not tell its version ({}, {} {})",
            output.status,
            text.trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        )
    })
}

fn parse_version(text: &str) -> Option<u32> {
    let version = text.strip_prefix("postgres (PostgreSQL) ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Every directory where an installed version may be, best first.
fn installed(location: &Location) -> Vec<PathBuf> {
    let mut dirs = versions_in(Path::new("/usr/lib/postgresql"), "");
    dirs.extend(versions_in(Path::new("/usr"), "pgsql-"));
    dirs.extend(from_pg_config());
    if let Some(path) = std::env::var_os("PATH") {
        dirs.extend(std::env::split_paths(&path).filter(|dir| dir.join("postgres").is_file()));
    }
    dirs.extend(versions_in(&crate::fetch::directory(location), ""));
    let mut seen = std::collections::HashSet::new();
    dirs.retain(|dir| seen.insert(dir.clone()));
    dirs
}

/// `parent/prefixN/bin` for every version N, the highest first.
fn versions_in(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.split('.').next()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, dir)| dir).collect()
}

fn from_pg_config() -> Option<PathBuf> {
    let output = std::process::Command::new("pg_config")
        .arg("--bindir")
        .output()
        .ok()?;
    let mut line = output.stdout;
    while line.last() == Some(&b'\n') {
        line.pop();
    }
    let dir = PathBuf::from(std::ffi::OsString::from_vec(line));
    (output.status.success() && dir.is_absolute()).then_some(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_says() {
        assert_eq!(
            parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse_version("sh: not found"), None);
    }

    #[test]
    fn higher_versions_come_first_by_number() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["9", "17", "16.4.0", "other"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let found = versions_in(parent.path(), "");
        let expected: Vec<_> = ["17", "16.4.0", "9"]
            .iter()
            .map(|name| parent.path().join(name).join("bin"))
            .collect();
        assert_eq!(found, expected);
    }
}
