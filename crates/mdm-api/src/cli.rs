//! The command line of `mdm-api`. Results go to stdout, everything else to stderr. Exit codes: 0
//! done, 1 failed, 2 wrong usage.
#![expect(
    clippy::doc_markdown,
    reason = "the comments of the arguments are the help that people read"
)]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use figment::value::Value;

use crate::config::Flags;

/// Mobius MDM's server: REST, event stream and device channel in one program.
///
/// With nothing configured it runs its own private PostgreSQL in the data directory and listens on
/// 127.0.0.1:8081. Settings come from flags, the environment (MDM_*), and mobius.toml, in this
/// order; `mdm-api config` shows what is in force and where it came from.
#[derive(Debug, Parser)]
#[command(name = "mdm-api", version, max_term_width = 100)]
pub struct Cli {
    /// What to do; `serve` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingFlags,
}

/// Settings that have a flag.
#[derive(Debug, Args)]
pub struct SettingFlags {
    /// A configuration file [default: mobius.toml in the working directory, if it is there]
    #[arg(long, global = true, env = "MDM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one [env: MDM_LISTEN] [default: 127.0.0.1:8081]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where the server keeps its files [env: MDM_DATA_DIR] [default: ./data]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Use this PostgreSQL instead of a private one [env: MDM_DATABASE_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// Carry events between nodes over these NATS servers, with JetStream [env: MDM_NATS_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub nats_url: Option<String>,
    /// How the log is written: auto, text or json [env: MDM_LOG_FORMAT] [default: auto: text on a
    /// terminal, json otherwise]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// What is logged, such as info or info,mdm_service=debug [env: MDM_LOG_LEVEL] [default: info]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log_level: Option<String>,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until Ctrl-C or SIGTERM. The default.
    Serve,
    /// Serve, enrol this very machine, ask it for its system information, and print the events.
    Try,
    /// Bring the database to this version and end. `serve` does the same when it starts.
    Migrate {
        /// Only show which migrations the database has.
        #[arg(long)]
        status: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the settings in force and where each came from, secrets masked.
    Config {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// The keys that sign access tokens.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Emergency help for administrators.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// License keys, for whoever sells or meters. Needs no server and no database.
    #[command(subcommand)]
    License(LicenseCommand),
    /// Write the OpenAPI document of the API to stdout.
    Openapi,
}

/// What can be done with license keys.
#[derive(Debug, Subcommand)]
pub enum LicenseCommand {
    /// Make a pair of keys: the private one issues license keys, the public one goes into
    /// license_public_keys of the servers.
    Keygen {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Issue a license key.
    Issue {
        /// A file with the private key [env: MDM_LICENSE_PRIVATE_KEY holds the key itself]
        #[arg(long, value_name = "FILE")]
        private_key_file: Option<PathBuf>,
        /// The organisation's id, as its GET /api/v1/license/status tells it.
        #[arg(long, value_name = "ID")]
        organization: uuid::Uuid,
        /// professional or enterprise.
        #[arg(long, default_value = "professional")]
        tier: String,
        /// How many devices may be enrolled; any number if absent.
        #[arg(long, value_name = "NUMBER")]
        devices: Option<u32>,
        /// For how many days it is good. Everything still works for 14 days after its end.
        #[arg(long, default_value_t = 365)]
        days: u32,
        /// What else is bought, by name; may be repeated.
        #[arg(long = "feature", value_name = "NAME")]
        features: Vec<String>,
    },
    /// Show what a license key says, and whether a public key signed it.
    Inspect {
        /// The license key.
        key: String,
        /// The issuer's public key; by default those of license_public_keys.
        #[arg(long, value_name = "KEY")]
        public_key: Vec<String>,
    },
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Sign with a new key from now on. Tokens signed with the old one stay good until they expire.
    Rotate,
}

/// What can be done for administrators.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Give a user a new random password, print it, and end the user's sessions.
    ResetPassword {
        /// The user's e-mail address.
        email: String,
    },
}

impl SettingFlags {
    /// The flags that were given, as settings.
    pub fn given(&self) -> Flags {
        let path = |path: &PathBuf| path.display().to_string();
        [
            ("listen", self.listen.clone()),
            ("data_dir", self.data_dir.as_ref().map(path)),
            ("database_url", self.database_url.clone()),
            ("nats_url", self.nats_url.clone()),
            ("log_format", self.log_format.clone()),
            ("log_level", self.log_level.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| (key, Value::from(value))))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
