//! Settings, from the lowest to the highest: defaults, `mobius.toml`, environment (`MDM_*`),
//! flags. To add one: a field of [`Settings`] with its default, a line in `KEYS`, and, if it
//! deserves one, a flag in `cli.rs`.

use std::path::{Path, PathBuf};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Serialized, Toml},
    value::{Dict, Map, Value},
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to listen.
    pub listen: String,
    /// Where the server keeps its files.
    pub data_dir: PathBuf,
    /// An outside database; unset, the server runs its own.
    pub database_url: Option<SecretString>,
    /// NATS servers, with JetStream, that carry events and wake-ups between nodes; unset, the
    /// database alone does.
    pub nats_url: Option<SecretString>,
    /// How many connections to the database.
    pub database_connections: u32,
    /// Where PostgreSQL's programs are, if they are not found by themselves.
    pub postgres_bin_dir: Option<PathBuf>,
    /// 64 hexadecimal digits; unset, kept in a file in the data directory.
    pub secret_key: Option<SecretString>,
    /// A file that holds the secret key.
    pub secret_key_file: Option<PathBuf>,
    /// The first administrator's address.
    pub admin_email: String,
    /// The first administrator's password; unset, made and printed once.
    pub admin_password: Option<SecretString>,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What is logged, such as `info` or `info,mdm_service=debug`.
    pub log_level: String,
    /// Threads that serve requests; 0 means one per core.
    pub workers: usize,
    /// How many connections may be open.
    pub connections: usize,
    /// How often devices without a channel check in, in seconds.
    pub checkin_interval_seconds: i64,
    /// How often connected agents send a heartbeat, in seconds.
    pub heartbeat_seconds: u64,
    /// What lets others than loopback read `/metrics`.
    pub metrics_token: Option<SecretString>,
    /// Web origins, beside the server's own, from which browsers may open the event stream.
    pub allowed_origins: Vec<String>,
    /// How long events are kept, in days; dropped by whole partitions, so some stay longer.
    pub event_retention_days: i64,
    /// How many event connections one user may have on this node.
    pub event_connections_per_user: usize,
    /// How many event connections one address may have on this node.
    pub event_connections_per_address: usize,
    /// Whether webhooks may lead into private networks and to this machine.
    pub webhook_allow_private: bool,
    /// The largest package of an application, in MiB.
    pub package_limit_mib: u64,
    /// The S3 bucket for packages; unset, they are kept in the data directory.
    pub s3_bucket: Option<String>,
    /// The bucket's region.
    pub s3_region: String,
    /// Another S3 service than Amazon's.
    pub s3_endpoint: Option<String>,
    /// The id of the key to the bucket.
    pub s3_access_key_id: Option<SecretString>,
    /// The key to the bucket.
    pub s3_secret_access_key: Option<SecretString>,
    /// Ed25519 public keys, in base64, whose license keys are good.
    pub license_public_keys: Vec<String>,
}

/// How a setting is read from the environment and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Flag,
    List,
    Secret,
}

/// Every setting, in the order in which it is shown.
const KEYS: &[(&str, Kind)] = &[
    ("listen", Kind::Text),
    ("data_dir", Kind::Text),
    ("database_url", Kind::Secret),
    ("nats_url", Kind::Secret),
    ("database_connections", Kind::Number),
    ("postgres_bin_dir", Kind::Text),
    ("secret_key", Kind::Secret),
    ("secret_key_file", Kind::Text),
    ("admin_email", Kind::Text),
    ("admin_password", Kind::Secret),
    ("log_format", Kind::Text),
    ("log_level", Kind::Text),
    ("workers", Kind::Number),
    ("connections", Kind::Number),
    ("checkin_interval_seconds", Kind::Number),
    ("heartbeat_seconds", Kind::Number),
    ("metrics_token", Kind::Secret),
    ("allowed_origins", Kind::List),
    ("event_retention_days", Kind::Number),
    ("event_connections_per_user", Kind::Number),
    ("event_connections_per_address", Kind::Number),
    ("webhook_allow_private", Kind::Flag),
    ("package_limit_mib", Kind::Number),
    ("s3_bucket", Kind::Text),
    ("s3_region", Kind::Text),
    ("s3_endpoint", Kind::Text),
    ("s3_access_key_id", Kind::Secret),
    ("s3_secret_access_key", Kind::Secret),
    ("license_public_keys", Kind::List),
];

/// Variables with our prefix that belong to the other programs.
const FOREIGN: &[&str] = &[
    "MDM_AGENT_",
    "MDM_SERVER",
    "MDM_API_KEY",
    "MDM_CONFIG",
    "MDM_LICENSE_PRIVATE_KEY",
    "MDM_BENCH_",
    "MDM_TEST_",
];

fn defaults() -> Figment {
    Figment::from(Serialized::default("listen", "127.0.0.1:8081"))
        .merge(Serialized::default("data_dir", "./data"))
        .merge(Serialized::default("database_connections", 16))
        .merge(Serialized::default("admin_email", "admin@mobius.local"))
        .merge(Serialized::default("log_format", LogFormat::Auto))
        .merge(Serialized::default("log_level", "info"))
        .merge(Serialized::default("workers", 0))
        .merge(Serialized::default("connections", 19_000))
        .merge(Serialized::default("checkin_interval_seconds", 60))
        .merge(Serialized::default("heartbeat_seconds", 30))
        .merge(Serialized::default("allowed_origins", Vec::<String>::new()))
        .merge(Serialized::default("event_retention_days", 7))
        .merge(Serialized::default("event_connections_per_user", 100))
        .merge(Serialized::default("event_connections_per_address", 1_000))
        .merge(Serialized::default("webhook_allow_private", false))
        .merge(Serialized::default("package_limit_mib", 4_096))
        .merge(Serialized::default("s3_region", "us-east-1"))
        .merge(Serialized::default(
            "license_public_keys",
            Vec::<String>::new(),
        ))
}

/// The settings in force and where each came from.
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    figment: Figment,
}

/// The settings cannot be used; the text names key and source.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named is not there.
    #[error("the configuration file {0} does not exist")]
    NoFile(PathBuf),
    /// A key is unknown or a value wrong.
    #[error("{0}")]
    Wrong(String),
}

/// Values given by flags: absent ones do not count.
pub type Flags = Vec<(&'static str, figment::value::Value)>;

/// Reads all sources. Without a named file, `mobius.toml` in the working directory is read if it
/// is there.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    flags: Flags,
) -> Result<Loaded, ConfigError> {
    let named = file.map(Path::to_path_buf);
    if let Some(path) = &named
        && !path.is_file()
    {
        return Err(ConfigError::NoFile(path.clone()));
    }
    let path = named.unwrap_or_else(|| PathBuf::from("mobius.toml"));
    let mut figment = defaults();
    if path.is_file() {
        figment = figment.merge(Toml::file_exact(path));
    }
    figment = figment.merge(Environment::read(environment)?);
    for (key, value) in flags {
        figment = figment.merge(Flag { key, value });
    }
    let settings: Settings = figment
        .extract()
        .map_err(|error| ConfigError::Wrong(explain(&error)))?;
    check(&settings)?;
    Ok(Loaded { settings, figment })
}

/// Says which keys were wrong, why, and where they came from.
fn explain(error: &figment::Error) -> String {
    let one = |error: figment::Error| {
        let key = error.path.join(".");
        let source = error.metadata.as_ref().map(source_of).unwrap_or_default();
        let what = match &error.kind {
            figment::error::Kind::UnknownField(name, _) => {
                let known: Vec<_> = KEYS.iter().map(|(key, _)| *key).collect();
                format!(
                    "there is no setting {name}; the settings are {}",
                    known.join(", ")
                )
            }
            other => format!("{key}: {other}"),
        };
        if source.is_empty() {
            what
        } else {
            format!("{what} (from {source})")
        }
    };
    error
        .clone()
        .into_iter()
        .map(one)
        .collect::<Vec<_>>()
        .join("\n")
}

fn check(settings: &Settings) -> Result<(), ConfigError> {
    let within = |key: &str, value: i64, least: i64, most: i64| {
        if (least..=most).contains(&value) {
            Ok(())
        } else {
            Err(ConfigError::Wrong(format!(
                "{key}: must be from {least} to {most}, not {value}"
            )))
        }
    };
    within(
        "database_connections",
        settings.database_connections.into(),
        4,
        1_000,
    )?;
    within(
        "checkin_interval_seconds",
        settings.checkin_interval_seconds,
        5,
        86_400,
    )?;
    within(
        "heartbeat_seconds",
        i64::try_from(settings.heartbeat_seconds).unwrap_or(i64::MAX),
        5,
        3_600,
    )?;
    within(
        "connections",
        i64::try_from(settings.connections).unwrap_or(i64::MAX),
        10,
        1_000_000,
    )?;
    within(
        "event_retention_days",
        settings.event_retention_days,
        1,
        3_650,
    )?;
    if settings.secret_key.is_some() && settings.secret_key_file.is_some() {
        return Err(ConfigError::Wrong(
            "secret_key and secret_key_file: give one of them, not both".to_owned(),
        ));
    }
    Ok(())
}

impl Loaded {
    /// One line per setting: key, value with secrets masked, source.
    pub fn lines(&self) -> Vec<(String, serde_json::Value, String)> {
        KEYS.iter()
            .map(|&(key, kind)| {
                let value = self.figment.find_value(key).ok();
                let shown = match (value, kind) {
                    (None, _) => serde_json::Value::Null,
                    (Some(_), Kind::Secret) => "********".into(),
                    (Some(value), _) => value.deserialize().unwrap_or(serde_json::Value::Null),
                };
                let source = self
                    .figment
                    .find_metadata(key)
                    .map_or_else(|| "not set".to_owned(), source_of);
                (key.to_owned(), shown, source)
            })
            .collect()
    }
}

fn source_of(metadata: &Metadata) -> String {
    match &metadata.source {
        Some(figment::Source::File(path)) => path.display().to_string(),
        _ if metadata.name.starts_with("default") => "default".to_owned(),
        _ if metadata.name.contains("TOML") => metadata
            .source
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        _ if metadata.name.contains("flag") || metadata.name.contains("environment") => {
            metadata.name.to_string()
        }
        _ => "default".to_owned(),
    }
}

/// `MDM_*`, each read as the setting's type wants it: a password of digits stays a text.
struct Environment(Dict);

impl Environment {
    fn read(variables: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut values = Dict::new();
        for (name, text) in variables {
            let Some(key) = name.strip_prefix("MDM_").map(str::to_lowercase) else {
                continue;
            };
            if FOREIGN.iter().any(|foreign| name.starts_with(foreign)) || text.is_empty() {
                continue;
            }
            let Some(&(_, kind)) = KEYS.iter().find(|(known, _)| *known == key) else {
                let known: Vec<_> = KEYS
                    .iter()
                    .map(|(key, _)| format!("MDM_{}", key.to_uppercase()))
                    .collect();
                return Err(ConfigError::Wrong(format!(
                    "there is no setting {name}; the variables are {}",
                    known.join(", ")
                )));
            };
            let value = match kind {
                Kind::Text | Kind::Secret => Value::from(text),
                Kind::List => Value::from(
                    text.split(',')
                        .map(|item| item.trim().to_owned())
                        .collect::<Vec<_>>(),
                ),
                Kind::Flag => {
                    let wrong = |_| {
                        ConfigError::Wrong(format!("{name}: must be true or false, not {text:?}"))
                    };
                    Value::from(text.parse::<bool>().map_err(wrong)?)
                }
                Kind::Number => {
                    let wrong = |_| {
                        ConfigError::Wrong(format!("{name}: must be a whole number, not {text:?}"))
                    };
                    Value::from(text.parse::<i64>().map_err(wrong)?)
                }
            };
            values.insert(key, value);
        }
        Ok(Self(values))
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment (MDM_*)")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

struct Flag {
    key: &'static str,
    value: Value,
}

impl Provider for Flag {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("flag --{}", self.key.replace('_', "-")))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(Dict::from([(self.key.to_owned(), self.value.clone())])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn env(pairs: &[(&str, &str)]) -> std::vec::IntoIter<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn flags_go_before_the_environment_and_the_environment_before_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mobius.toml");
        std::fs::write(
            &file,
            "listen = '1.1.1.1:1'\nworkers = 3\nlog_level = 'warn'\n",
        )
        .unwrap();
        let loaded = load(
            Some(&file),
            env(&[("MDM_LISTEN", "2.2.2.2:2"), ("MDM_WORKERS", "4")]),
            vec![("listen", Value::from("3.3.3.3:3"))],
        )
        .unwrap();
        assert_eq!(loaded.settings.listen, "3.3.3.3:3");
        assert_eq!(loaded.settings.workers, 4);
        assert_eq!(loaded.settings.log_level, "warn");
        let source = |key: &str| {
            loaded
                .lines()
                .into_iter()
                .find(|line| line.0 == key)
                .unwrap()
                .2
        };
        assert_eq!(source("listen"), "flag --listen");
        assert_eq!(source("workers"), "environment (MDM_*)");
        assert!(
            source("log_level").ends_with("mobius.toml"),
            "{}",
            source("log_level")
        );
        assert_eq!(source("connections"), "default");
        assert_eq!(source("metrics_token"), "not set");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mobius.toml");
        std::fs::write(&file, "lisen = '1.1.1.1:1'\n").unwrap();
        let error = load(Some(&file), env(&[]), vec![])
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("no setting lisen") && error.contains("mobius.toml"),
            "{error}"
        );
        let error = load(None, env(&[("MDM_LISEN", "x")]), vec![])
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("no setting MDM_LISEN"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_named() {
        let error = load(None, env(&[("MDM_WORKERS", "many")]), vec![])
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("MDM_WORKERS") && error.contains("many"),
            "{error}"
        );
        let error = load(None, env(&[("MDM_LOG_FORMAT", "xml")]), vec![])
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("log_format"), "{error}");
    }

    #[test]
    fn a_password_of_digits_stays_as_it_is_and_is_never_shown() {
        let loaded = load(None, env(&[("MDM_ADMIN_PASSWORD", "000123456789")]), vec![]).unwrap();
        assert_eq!(
            loaded
                .settings
                .admin_password
                .as_ref()
                .unwrap()
                .expose_secret(),
            "000123456789"
        );
        assert!(!format!("{:?}{:?}", loaded.lines(), loaded.settings).contains("123456789"));
    }
}
