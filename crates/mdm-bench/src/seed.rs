//! Organisations full of devices, by `COPY`: a million in a minute, which enrolments, each with its
//! events and its locks, would take an hour for. So its SQL stands beside the store's.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use mdm_core::{
    Clock, SystemClock,
    entropy::{Entropy, OsEntropy},
    ids::new_uuid,
    tokens::{Token, TokenKind},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// Rows in one piece of the `COPY`.
const PIECE: u32 = 5_000;

/// What is made, and where.
#[derive(Debug, Args)]
pub struct Options {
    /// The data directory of the running server, which has an embedded database
    #[arg(long, required_unless_present = "database_url")]
    data_dir: Option<PathBuf>,
    /// The server's database, if it is not embedded
    #[arg(long, env = "MDM_DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// How many devices a new organisation has; may be repeated, one organisation each
    #[arg(long, default_values_t = [1_000, 100_000, 1_000_000])]
    devices: Vec<u32>,
}

/// An organisation that was made, and how to call the server in its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub organization_id: Uuid,
    /// How many devices it has.
    pub devices: u32,
    /// A key with an administrator's rights.
    pub api_key: String,
    /// From what the devices' tokens are made.
    seed: String,
}

impl Tenant {
    /// The token of a device, from 0.
    pub fn device_token(&self, number: u32) -> String {
        token(&self.seed, number)
    }

    /// Reads what [`seed`] printed.
    pub fn read(path: &Path) -> anyhow::Result<Vec<Self>> {
        let context = || {
            format!(
                "cannot read the seeded organisations from {}",
                path.display()
            )
        };
        let text = fs::read(path).with_context(context)?;
        serde_json::from_slice(&text).with_context(context)
    }

    /// What it is called in figures.
    pub fn label(&self) -> String {
        format!("{}_devices", self.devices)
    }
}

fn token(seed: &str, number: u32) -> String {
    let digest = Sha256::digest(format!("{seed}:{number}"));
    format!(
        "{}{}",
        TokenKind::Device.prefix(),
        URL_SAFE_NO_PAD.encode(digest)
    )
}

/// A new id.
pub fn new_id() -> Uuid {
    new_uuid(&SystemClock, &OsEntropy)
}

/// Makes the organisations and tells of them.
pub async fn seed(options: Options) -> anyhow::Result<Value> {
    let database = match (options.database_url, options.data_dir) {
        (Some(url), _) => url.parse()?,
        (None, Some(data_dir)) => mdm_postgres::running(&data_dir, mdm_postgres::DATABASE)
            .await?
            .context("no server runs on this data directory")?,
        (None, None) => anyhow::bail!("--data-dir or --database-url says where"),
    };
    let mut conn = PgConnection::connect_with(&database).await?;
    let mut tenants = Vec::new();
    for devices in options.devices {
        let begun = Instant::now();
        tenants.push(make(&mut conn, devices).await?);
        eprintln!(
            "{devices} devices in {:.1} s",
            begun.elapsed().as_secs_f32()
        );
    }
    sqlx::query("VACUUM (ANALYZE) devices")
        .execute(&mut conn)
        .await?;
    Ok(serde_json::to_value(tenants)?)
}

/// Makes one organisation.
pub async fn make(conn: &mut PgConnection, devices: u32) -> anyhow::Result<Tenant> {
    let mut random = [0_u8; 32];
    OsEntropy.fill(&mut random);
    let seed = URL_SAFE_NO_PAD.encode(random);
    let key = Token::generate(TokenKind::ApiKey, &OsEntropy);
    let (organization, user) = (new_id(), new_id());
    let mut tx = conn.begin().await?;
    sqlx::query("INSERT INTO organizations (id, name, created_at) VALUES ($1, $2, now())")
        .bind(organization)
        .bind(format!("bench of {devices}"))
        .execute(&mut *tx)
        .await?;
    // Nobody signs in as this user: no password has such a hash.
    sqlx::query(
        "INSERT INTO users (organization_id, id, email, name, role, password_hash, created_at, updated_at) \
         VALUES ($1, $2, $2::text || '@bench.invalid', 'bench', 'admin', '!', now(), now())",
    )
    .bind(organization)
    .bind(user)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO api_keys (organization_id, id, name, key_hash, role, created_by, created_at, updated_at) \
         VALUES ($1, $2, 'bench', $3, 'admin', $4, now(), now())",
    )
    .bind(organization)
    .bind(new_id())
    .bind(key.hash().as_bytes().as_slice())
    .bind(user)
    .execute(&mut *tx)
    .await?;
    copy(&mut tx, organization, devices, &seed).await?;
    tx.commit().await?;
    Ok(Tenant {
        organization_id: organization,
        devices,
        api_key: key.expose().to_owned(),
        seed,
    })
}

async fn copy(
    conn: &mut PgConnection,
    organization: Uuid,
    devices: u32,
    seed: &str,
) -> anyhow::Result<()> {
    let mut copy = conn
        .copy_in_raw(
            "COPY devices (organization_id, id, uuid, hostname, platform, os_version, serial_number, status, \
             last_seen, enrolled_at, labels, hardware_info, hardware_observed_at, token_hash) FROM STDIN",
        )
        .await?;
    let mut piece = String::new();
    for number in 0..devices {
        line(&mut piece, organization, number, seed)?;
        if number % PIECE == PIECE - 1 {
            copy.send(std::mem::take(&mut piece).into_bytes()).await?;
        }
    }
    copy.send(piece.into_bytes()).await?;
    copy.finish().await?;
    Ok(())
}

/// A device as an agent would have told it: all platforms, most of them online.
fn line(piece: &mut String, organization: Uuid, number: u32, seed: &str) -> anyhow::Result<()> {
    let of = |texts: &[&'static str]| {
        let place = usize::try_from(number).unwrap_or(0) % texts.len();
        texts.get(place).copied().unwrap_or_default()
    };
    let platform = of(&[
        "linux", "windows", "macos", "windows", "ios", "android", "linux",
    ]);
    let version = of(&["12", "11.0.22631", "15.3", "13", "14"]);
    let status = if number % 10 == 9 {
        "offline"
    } else {
        "online"
    };
    let site = of(&[
        "berlin", "paris", "madrid", "oslo", "rome", "wien", "prag", "bern", "riga", "kyiv", "lviv",
    ]);
    let role = of(&["web", "db", "desk", "kiosk", "build", "till", "scan"]);
    let token = Token::parse(TokenKind::Device, &token(seed, number))
        .context("a device's token")?
        .hash();
    // Seen tomorrow: who is measured later shall not be taken for silent and become offline.
    let seen = SystemClock.now() + chrono::Duration::days(1);
    writeln!(
        piece,
        "{organization}\t{id}\t{hardware}\t{role}-{site}-{number:07}\t{platform}\t{version}\tSN{number:010}\t{status}\t\
         {seen}\tnow\t{{\"site\": \"{site}\", \"role\": \"{role}\"}}\t\
         {{\"hostname\": \"{role}-{site}-{number:07}\", \"architecture\": \"x86_64\", \"kernel\": \"6.1.0-{version}\", \
         \"os\": {{\"name\": \"{platform}\", \"version\": \"{version}\"}}, \
         \"cpu\": {{\"model\": \"Example CPU at 2.40GHz\", \"cores\": 8}}, \"memory_bytes\": 17179869184, \
         \"disks\": [{{\"name\": \"nvme0n1\", \"total_bytes\": 512110190592, \"free_bytes\": 201326592000}}], \
         \"addresses\": [\"10.{a}.{b}.{c}\", \"fe80::{number:x}\"], \"uptime_seconds\": {number}}}\t\
         now\t\\\\x{hash}",
        id = new_id(),
        hardware = Uuid::from_u128(organization.as_u128() ^ u128::from(number)),
        a = number >> 16 & 0xff,
        b = number >> 8 & 0xff,
        c = number & 0xff,
        hash = hex::encode(token.as_bytes()),
    )?;
    Ok(())
}
