//! Events straight into the server's outbox: what a use case does, without the use case, so that
//! nothing but the stream is measured.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use mdm_client::Client;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::{
    process::{PASSWORD, Server},
    stamp,
};

/// A server with its database, and who may follow its events.
pub struct Site {
    /// The server.
    pub server: Server,
    /// An administrator's access token.
    pub token: String,
    database: PgConnection,
    organization: Uuid,
    device: Uuid,
    _directory: tempfile::TempDir,
}

impl Site {
    /// Starts a server of its own.
    pub async fn start(binary: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        // PostgreSQL's user must be able to pass through.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(directory.path(), open)?;
        let data_dir = directory.path().join("data");
        let server = Server::start(binary, &data_dir)?;
        let anyone = Client::new(server.url.parse()?, None)?;
        let login = anyone.login("admin", PASSWORD.to_owned().into()).await?;
        let options = mdm_postgres::running(&data_dir, mdm_postgres::DATABASE)
            .await?
            .context("the server has no database")?;
        let mut database = PgConnection::connect_with(&options).await?;
        let organization = sqlx::query_scalar("SELECT id FROM organizations")
            .fetch_one(&mut database)
            .await?;
        Ok(Self {
            server,
            token: login.token,
            database,
            organization,
            device: Uuid::from_u128(0x019b_e5c0_0000_7000_8000_0000_0000_0001),
            _directory: directory,
        })
    }

    /// Where the event stream is.
    pub fn address(&self) -> anyhow::Result<std::net::SocketAddr> {
        let address = self.server.url.trim_start_matches("http://");
        Ok(address.parse()?)
    }

    /// A client with the administrator's token.
    pub fn client(&self) -> anyhow::Result<Client> {
        let anyone = Client::new(self.server.url.parse()?, None)?;
        Ok(anyone.with_token(self.token.clone().into()))
    }

    /// Commits events with these stamps in one transaction, and wakes the sequencer.
    pub async fn publish(&mut self, stamps: impl Iterator<Item = u64>) -> anyhow::Result<()> {
        let payloads: Vec<_> = stamps.map(|at| stamp::data(self.device, at)).collect();
        sqlx::query(
            "INSERT INTO outbox (organization_id, kind, audience, device_id, payload, created_at) \
             SELECT $1, 'device_updated', 1, $2, payload::json, now() FROM UNNEST($3::text[]) AS payload",
        )
        .bind(self.organization)
        .bind(self.device)
        .bind(payloads)
        .execute(&mut self.database)
        .await?;
        sqlx::query("SELECT pg_notify('mdm_outbox', '')")
            .execute(&mut self.database)
            .await?;
        Ok(())
    }

    /// How many transactions the database has committed. What it tells is up to a second old.
    pub async fn transactions(&mut self) -> anyhow::Result<i64> {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let counted = sqlx::query_scalar(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()",
        );
        Ok(counted.fetch_one(&mut self.database).await?)
    }
}
