//! Where packages are kept: a local directory, or an S3 bucket.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use mdm_service::applications::Packages;
use object_store::{ObjectStore, aws::AmazonS3Builder, local::LocalFileSystem};
use secrecy::ExposeSecret;

use crate::config::Settings;

/// A bucket if one is named, else a directory below the data directory.
pub fn packages(settings: &Settings) -> anyhow::Result<Packages> {
    let store = match &settings.s3_bucket {
        Some(bucket) => in_s3(settings, bucket)?,
        None => in_directory(&settings.data_dir.join("packages"))?,
    };
    let limit = settings.package_limit_mib.saturating_mul(1024 * 1024);
    Ok(Packages::new(store, limit))
}

fn in_directory(directory: &Path) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let cannot = || format!("packages cannot be kept in {}", directory.display());
    std::fs::create_dir_all(directory).with_context(cannot)?;
    let store = LocalFileSystem::new_with_prefix(directory).with_context(cannot)?;
    Ok(Arc::new(
        store.with_automatic_cleanup(true).with_fsync(true),
    ))
}

fn in_s3(settings: &Settings, bucket: &str) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let key = (&settings.s3_access_key_id, &settings.s3_secret_access_key);
    let (Some(id), Some(secret)) = key else {
        anyhow::bail!("s3_bucket is set: s3_access_key_id and s3_secret_access_key must be, too");
    };
    // Refused if the process has chosen before, which is as good.
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&settings.s3_region)
        .with_access_key_id(id.expose_secret())
        .with_secret_access_key(secret.expose_secret());
    if let Some(endpoint) = &settings.s3_endpoint {
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://"));
    }
    let store = builder.build().context("the S3 bucket cannot be used")?;
    Ok(Arc::new(store))
}
