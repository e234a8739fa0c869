//! Packages in their storage, whatever that is.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use mdm_core::ids::{ApplicationId, OrganizationId};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, WriteMultipart, path::Path};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::services::Services;

/// How many parts of a package may be on their way to the storage at once. With parts of 5 MiB this
/// bounds the memory that an upload takes.
const PARTS_AT_ONCE: usize = 2;
/// Packages younger than this are not swept: their application may be about to be made.
const SWEPT_AFTER: chrono::Duration = chrono::Duration::hours(24);

/// Why a package was not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// It is too large.
    #[error("the package is larger than {0} bytes, the most that this server takes")]
    TooLarge(u64),
    /// It is empty.
    #[error("the package is empty")]
    Empty,
    /// It is not what was announced.
    #[error("the package has the SHA-256 {found}, not the announced one")]
    WrongChecksum {
        /// What it has.
        found: String,
    },
    /// The storage failed.
    #[error("storage: {0}")]
    Storage(#[from] object_store::Error),
}

/// The storage of packages.
#[derive(Clone)]
pub struct Packages {
    store: Arc<dyn ObjectStore>,
    limit: u64,
}

/// A stored package.
#[derive(Debug)]
pub struct Package {
    /// Its file name, without any directory.
    pub file_name: String,
    /// Its length in bytes.
    pub size: i64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub checksum: String,
}

/// A piece of a package on its way.
pub type UploadedPart = Bytes;

/// A package that is being stored. Dropped before it is finished, it
/// leaves nothing behind in a directory; a bucket keeps the parts until its life cycle ends them.
pub struct Upload {
    id: ApplicationId,
    file_name: String,
    writer: WriteMultipart,
    hash: Sha256,
    size: u64,
    packages: Packages,
    path: Path,
}

impl Packages {
    /// Keeps packages in this storage, none larger than `limit` bytes.
    pub fn new(store: Arc<dyn ObjectStore>, limit: u64) -> Self {
        Self { store, limit }
    }

    /// The largest package that is taken, in bytes.
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    fn path(organization: OrganizationId, id: ApplicationId) -> Path {
        Path::from(format!("packages/{organization}/{id}"))
    }

    pub(super) async fn begin(
        &self,
        organization: OrganizationId,
        id: ApplicationId,
        file_name: &str,
    ) -> Result<Upload, PackageError> {
        let path = Self::path(organization, id);
        Ok(Upload {
            id,
            file_name: plain_name(file_name),
            writer: WriteMultipart::new(self.store.put_multipart(&path).await?),
            hash: Sha256::new(),
            size: 0,
            packages: self.clone(),
            path,
        })
    }

    /// A package's bytes from `from` to `to`, the end not included.
    pub async fn read(
        &self,
        organization: OrganizationId,
        id: ApplicationId,
        (from, to): (u64, u64),
    ) -> Result<BoxStream<'static, Result<Bytes, object_store::Error>>, PackageError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(from..to)),
            ..GetOptions::default()
        };
        let found = self
            .store
            .get_opts(&Self::path(organization, id), options)
            .await?;
        Ok(found.into_stream())
    }

    /// Deletes a package. If that fails, the sweep finds it later.
    pub(super) async fn delete(&self, organization: OrganizationId, id: ApplicationId) {
        if let Err(error) = self.store.delete(&Self::path(organization, id)).await {
            tracing::warn!(application = %id, %error, "cannot delete the package; the sweep will");
        }
    }

    /// Writes, reads and deletes a small object: whether the storage works now.
    /// `name` must be of this probe alone: several may be under way.
    pub async fn probe(&self, name: &str) -> Result<(), PackageError> {
        let path = Path::from(format!("probe/{name}"));
        self.store
            .put(&path, Bytes::from_static(b"probe").into())
            .await?;
        let read = self.store.get(&path).await?.bytes().await;
        self.store.delete(&path).await?;
        read?;
        Ok(())
    }
}

/// A file's name without directories, of at most 255 characters.
fn plain_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last
        .chars()
        .filter(|c| !c.is_control() && *c != '"')
        .take(255)
        .collect();
    match clean.trim() {
        "" | "." | ".." => "package".to_owned(),
        clean => clean.to_owned(),
    }
}

impl Upload {
    /// The id that the application will have.
    pub const fn id(&self) -> ApplicationId {
        self.id
    }

    /// The SHA-256 of what has come so far, in lower-case hexadecimal.
    pub fn checksum(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }

    /// Adds the next bytes; waits while the storage is slower than the sender.
    pub async fn write(&mut self, bytes: UploadedPart) -> Result<(), PackageError> {
        self.size = self
            .size
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.size > self.packages.limit {
            return Err(PackageError::TooLarge(self.packages.limit));
        }
        self.hash.update(&bytes);
        self.writer.wait_for_capacity(PARTS_AT_ONCE).await?;
        self.writer.put(bytes);
        Ok(())
    }

    /// Gives up: nothing is left of the package.
    pub async fn abort(self) {
        if let Err(error) = self.writer.abort().await {
            tracing::warn!(application = %self.id, %error, "cannot undo an upload");
        }
    }

    /// Ends the upload if the package has the announced SHA-256, or none was announced.
    pub(super) async fn finish(self, announced: Option<&str>) -> Result<Package, PackageError> {
        if self.size == 0 {
            self.abort().await;
            return Err(PackageError::Empty);
        }
        let checksum = self.checksum();
        if announced.is_some_and(|announced| announced != checksum) {
            self.abort().await;
            return Err(PackageError::WrongChecksum { found: checksum });
        }
        self.writer.finish().await?;
        tracing::debug!(path = %self.path, size = self.size, "stored a package");
        Ok(Package {
            file_name: self.file_name,
            size: i64::try_from(self.size).unwrap_or(i64::MAX),
            checksum,
        })
    }
}

impl Services {
    /// Deletes packages of which no application knows: a crash between the end of an upload and the
    /// commit, or between a deletion and the package's own, leaves such.
    pub(crate) async fn sweep_packages(&self) {
        if let Err(error) = self.try_sweep_packages().await {
            tracing::warn!(%error, "cannot sweep the storage of packages; trying again in an hour");
        }
    }

    async fn try_sweep_packages(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let before = self.now() - SWEPT_AFTER;
        let mut found = self.packages.store.list(Some(&Path::from("packages")));
        while let Some(object) = found.next().await {
            let object = object?;
            let id = object
                .location
                .filename()
                .and_then(|name| name.parse().ok());
            let Some(id) = id.filter(|_: &Uuid| object.last_modified < before) else {
                continue;
            };
            let mut conn = self.pool.acquire().await?;
            if mdm_store::applications::known(&mut conn, &[id])
                .await?
                .is_empty()
            {
                tracing::info!(path = %object.location, "deleting a package of no application");
                self.packages.store.delete(&object.location).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::plain_name;

    #[test]
    fn a_file_name_loses_its_directories() {
        assert_eq!(plain_name("../../etc/passwd"), "passwd");
        assert_eq!(plain_name(r"C:\temp\setup.exe"), "setup.exe");
        assert_eq!(plain_name("a\"b\r\n.deb"), "ab.deb");
        assert_eq!(plain_name(".."), "package");
        assert_eq!(plain_name(""), "package");
    }
}
