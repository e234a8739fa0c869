//! The database of this server: its own private PostgreSQL, or one that was named.

use std::{path::PathBuf, str::FromStr, time::Duration};

use mdm_postgres::{Cluster, ClusterConfig, ClusterError, DATABASE};
use mdm_store::{PgConnectOptions, PgPool};
use secrecy::ExposeSecret;
use sqlx::{Connection, postgres::PgPoolOptions};

use crate::config::Settings;

/// A connection that was idle for so long is asked whether it is still there before it is used.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// A database that is open, and the cluster if it is our own.
pub struct Database {
    /// Connections to it.
    pub pool: PgPool,
    cluster: Option<Cluster>,
}

/// The database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Our own PostgreSQL does not start.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The URL cannot be read. The text does not repeat it: it may hold a password.
    #[error(
        "database_url (MDM_DATABASE_URL) is not a PostgreSQL URL such as postgres://user:password@host/database"
    )]
    Url,
    /// A command that works on what is there found nothing there.
    #[error(
        "there is no database in the data directory {0}: give the server's own with --data-dir or MDM_DATA_DIR"
    )]
    Missing(PathBuf),
    /// The database does not answer.
    #[error("the database does not answer: {0}")]
    Connect(sqlx::Error),
}

impl Database {
    /// Opens the database that the settings name, starting it if it is our own.
    pub async fn open(settings: &Settings) -> Result<Self, DatabaseError> {
        let (options, cluster) = if let Some(url) = &settings.database_url {
            let options = PgConnectOptions::from_str(url.expose_secret());
            (
                options.map_err(|_may_hold_a_password| DatabaseError::Url)?,
                None,
            )
        } else {
            let cluster = Cluster::start(cluster_config(settings)).await?;
            (cluster.connect_options(DATABASE), Some(cluster))
        };
        Self::connect(settings, options, cluster).await
    }

    /// As [`open`](Self::open), but if a server runs on the data directory now, its database is used
    /// and left running: for commands beside it.
    pub async fn attach_or_open(settings: &Settings) -> Result<Self, DatabaseError> {
        if settings.database_url.is_none()
            && let Some(options) = mdm_postgres::running(&settings.data_dir, DATABASE).await?
        {
            return Self::connect(settings, options, None).await;
        }
        Self::open(settings).await
    }

    /// As [`attach_or_open`](Self::attach_or_open), but makes no database where there is none: a
    /// mistyped data directory is a mistake and no new installation.
    pub async fn attach_or_open_existing(settings: &Settings) -> Result<Self, DatabaseError> {
        if settings.database_url.is_none() && !mdm_postgres::exists(&settings.data_dir)? {
            return Err(DatabaseError::Missing(settings.data_dir.clone()));
        }
        Self::attach_or_open(settings).await
    }

    async fn connect(
        settings: &Settings,
        options: PgConnectOptions,
        cluster: Option<Cluster>,
    ) -> Result<Self, DatabaseError> {
        let opened = PgPoolOptions::new()
            .max_connections(settings.database_connections)
            .acquire_timeout(Duration::from_secs(5))
            // A connection that was used a moment ago is good; to ask costs as much as a query.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for >= ASK_AFTER {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options.application_name("mdm-api"))
            .await;
        match (opened, cluster) {
            (Ok(pool), cluster) => Ok(Self { pool, cluster }),
            (Err(error), cluster) => {
                if let Some(cluster) = cluster {
                    // The first error is the one to tell.
                    let _stopped = cluster.stop().await;
                }
                Err(DatabaseError::Connect(error))
            }
        }
    }

    /// Where our own PostgreSQL keeps its data, if it is our own.
    pub fn location(&self) -> Option<&std::path::Path> {
        self.cluster.as_ref().map(Cluster::location)
    }

    /// Closes the connections and stops our own PostgreSQL.
    pub async fn close(self) {
        let _still_busy = tokio::time::timeout(Duration::from_secs(1), self.pool.close()).await;
        if let Some(cluster) = self.cluster
            && let Err(error) = cluster.stop().await
        {
            tracing::error!(%error, "PostgreSQL did not stop as it should; the next start recovers it");
        }
    }
}

fn cluster_config(settings: &Settings) -> ClusterConfig {
    let mut config = ClusterConfig::durable(&settings.data_dir);
    config.bin_dir.clone_from(&settings.postgres_bin_dir);
    // The pool, the stream's own connections, and some for an operator with psql.
    config.max_connections = u16::try_from(settings.database_connections)
        .unwrap_or(u16::MAX)
        .saturating_add(20);
    config
}
