//! A server of the bench's own, in whose database an organisation was made, and which limits
//! nothing that is measured.

use std::{
    net::SocketAddrV4,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use url::Url;
use uuid::Uuid;

use crate::{
    process::{Server, scratch},
    seed::{self, Tenant},
    subscribers::Stream,
};

/// Devices of the organisation.
const DEVICES: u32 = 100;
/// More than there can be descriptors.
pub const UNLIMITED: &str = "1000000";

/// Which server.
#[derive(Debug, Clone, Args)]
pub struct ServerOptions {
    /// The server's binary. It runs on a data directory and a port of its own
    #[arg(
        long,
        visible_alias = "server-binary",
        default_value = "target/release/mdm-api"
    )]
    pub binary: PathBuf,
}

/// The server with its organisation. It is stopped when this is dropped.
pub struct Installation {
    /// The process.
    pub server: Server,
    /// The organisation.
    pub tenant: Tenant,
    /// The device that published events are about.
    pub device: Uuid,
    database: PgConnectOptions,
    // Dropped last: the server has its files in it.
    _directory: TempDir,
}

impl Installation {
    /// Starts it.
    pub async fn start(options: &ServerOptions) -> anyhow::Result<Self> {
        let directory = scratch()?;
        let data_dir = directory.path().join("data");
        let settings = [
            ("MDM_CONNECTIONS", UNLIMITED),
            ("MDM_EVENT_CONNECTIONS_PER_USER", UNLIMITED),
            ("MDM_EVENT_CONNECTIONS_PER_ADDRESS", UNLIMITED),
        ];
        let server = Server::start(&options.binary, &data_dir, &settings)?;
        let database = mdm_postgres::running(&data_dir, mdm_postgres::DATABASE)
            .await?
            .context("the server has no database")?;
        let mut conn = PgConnection::connect_with(&database).await?;
        let tenant = seed::make(&mut conn, DEVICES).await?;
        let device = devices(&mut conn, &tenant).await?;
        Ok(Self {
            server,
            device: device.first().copied().context("no device")?,
            tenant,
            database,
            _directory: directory,
        })
    }

    /// Another connection to its database.
    pub async fn database(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect_with(&self.database).await?)
    }

    /// The organisation's devices.
    pub async fn devices(&self) -> anyhow::Result<Vec<Uuid>> {
        devices(&mut self.database().await?, &self.tenant).await
    }

    /// Its event stream.
    pub fn stream(&self) -> anyhow::Result<Stream> {
        let url: Url = self.server.url.parse()?;
        let address: SocketAddrV4 = url.authority().parse()?;
        Ok(Stream {
            address,
            path: "/api/v1/ws".to_owned(),
            api_key: self.tenant.api_key.clone(),
            welcomes: true,
        })
    }

    /// What publishes into its log.
    pub async fn publisher(&self) -> anyhow::Result<Publisher> {
        Ok(Publisher {
            conn: self.database().await?,
            organization: self.tenant.organization_id,
            device: self.device,
        })
    }
}

async fn devices(conn: &mut PgConnection, tenant: &Tenant) -> anyhow::Result<Vec<Uuid>> {
    let devices = sqlx::query_scalar("SELECT id FROM devices WHERE organization_id = $1");
    Ok(devices.bind(tenant.organization_id).fetch_all(conn).await?)
}

/// Puts events where the server's changes put theirs, so that all of the log's way is measured.
pub struct Publisher {
    conn: PgConnection,
    organization: Uuid,
    device: Uuid,
}

impl Publisher {
    /// Commits the events in one transaction, then wakes the server as it wakes itself. Says when
    /// the commit had returned.
    pub async fn publish(&mut self, data: &[String]) -> anyhow::Result<Instant> {
        // 1 is the audience of viewers, and so of everyone.
        sqlx::query(
            "INSERT INTO outbox (organization_id, kind, audience, device_id, payload, created_at) \
             SELECT $1, 'device_updated', 1, $2, new.payload::json, now() \
             FROM UNNEST($3::text[]) WITH ORDINALITY AS new (payload, place) ORDER BY new.place",
        )
        .bind(self.organization)
        .bind(self.device)
        .bind(data)
        .execute(&mut self.conn)
        .await?;
        let committed = Instant::now();
        sqlx::query("SELECT pg_notify('mdm_outbox', '')")
            .execute(&mut self.conn)
            .await?;
        Ok(committed)
    }
}

/// Waits until `moment`, more exactly than the runtime's timers do. For threads that may block.
pub fn sleep_until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// The moment of the `number`th of events that come `rate` times a second.
pub fn scheduled(begun: Instant, number: u32, rate: f64) -> Instant {
    begun + Duration::from_secs_f64(f64::from(number) / rate)
}
