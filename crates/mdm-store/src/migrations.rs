//! Migrations: forward only, run under a lock, so that of several nodes that start at once one
//! migrates and the others wait for it.

use sqlx::{PgPool, migrate::Migrator};

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// A migration that this version knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub description: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// Why the database cannot be brought to this version.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// A newer server has been here.
    #[error(
        "the database has the migration {0}, which this version does not know: it was written by a newer server. \
         Run that version, or restore a backup made before the upgrade"
    )]
    DatabaseIsNewer(i64),
    /// A migration that was applied has since been changed.
    #[error(
        "the applied migration {0} differs from the one that this version holds: this binary was not built from a release"
    )]
    Changed(i64),
    /// Anything else.
    #[error("the migration failed and was rolled back: {0}")]
    Failed(sqlx::migrate::MigrateError),
}

impl From<sqlx::migrate::MigrateError> for MigrationError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError;
        match error {
            MigrateError::VersionMissing(version) => Self::DatabaseIsNewer(version),
            MigrateError::VersionMismatch(version) => Self::Changed(version),
            other => Self::Failed(other),
        }
    }
}

/// Brings the database to this version. Does nothing if it is there already.
pub async fn run(pool: &PgPool) -> Result<(), MigrationError> {
    MIGRATOR.run(pool).await.map_err(MigrationError::from)
}

/// What is applied and what is not.
pub async fn status(pool: &PgPool) -> Result<Vec<MigrationStatus>, sqlx::Error> {
    let applied = applied_versions(pool).await?;
    Ok(MIGRATOR
        .iter()
        .map(|migration| MigrationStatus {
            version: migration.version,
            description: migration.description.to_string(),
            applied: applied.contains(&migration.version),
        })
        .collect())
}

/// The table that records migrations is there only once the first has run.
async fn applied_versions(pool: &PgPool) -> Result<Vec<i64>, sqlx::Error> {
    let recorded: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(pool)
        .await?;
    if !recorded {
        return Ok(Vec::new());
    }
    sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
        .fetch_all(pool)
        .await
}
