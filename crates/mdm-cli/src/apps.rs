//! `mdmctl apps`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use indicatif::ProgressBar;
use mdm_client::{Client, ListQuery, NewPackage, PartOfPackage, TransferError};
use mdm_proto::applications::Application;
use tokio::fs::{self, File, OpenOptions};
use uuid::Uuid;

use crate::{
    groups::{group_id, group_ids},
    input::{FileOption, ListOptions, SearchOptions, id_of},
    output::Output,
    policies::Targets,
};

const COLUMNS: &[&str] = &["id", "name", "version", "platform", "size", "file_name"];
const BYTES: &str = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// Applications are called by id, or by a name that only one has.
#[derive(Debug, Subcommand)]
pub enum Apps {
    /// List applications
    List {
        #[command(flatten)]
        list: SearchOptions,
        /// Only for this platform
        #[arg(long)]
        platform: Option<String>,
    },
    /// Show an application
    Get {
        /// By id or name
        app: String,
    },
    /// Upload a package
    Create {
        /// The package
        package: PathBuf,
        /// What the application is called
        #[arg(long)]
        name: String,
        /// Which version of it this is; not --version, which tells mdmctl's own
        #[arg(long = "app-version", value_name = "VERSION")]
        version: String,
        /// windows, macos, linux, ios or android
        #[arg(long)]
        platform: String,
        /// What people say of it
        #[arg(long)]
        description: Option<String>,
        /// The SHA-256 that the package must have, in hexadecimal
        #[arg(long, value_name = "SHA256")]
        checksum: Option<String>,
    },
    /// Change what is said of an application
    Update {
        /// By id or name
        app: String,
        #[command(flatten)]
        file: FileOption,
        /// What the application is called
        #[arg(long)]
        name: Option<String>,
        /// Which version of it this is
        #[arg(long = "app-version", value_name = "VERSION")]
        version: Option<String>,
        /// What people say of it
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete an application that is assigned to nobody, and its package
    Delete {
        /// By id or name
        app: String,
    },
    /// Fetch a package; goes on where a broken download ended
    Download {
        /// By id or name
        app: String,
        /// Where to, a file or a directory
        #[arg(long, short, default_value = ".")]
        output: PathBuf,
    },
    /// Assign an application to devices and groups
    Assign {
        /// By id or name
        app: String,
        #[command(flatten)]
        to: Targets,
        /// install, available or uninstall
        #[arg(long, default_value = "install")]
        intent: String,
    },
    /// Take an application away from devices and groups; what is installed stays
    Unassign {
        /// By id or name
        app: String,
        #[command(flatten)]
        from: Targets,
    },
    /// List the devices that an application reaches or is on, and how far it is
    Installs {
        /// By id or name
        app: String,
        #[command(flatten)]
        list: ListOptions,
        /// Only in this state
        #[arg(long)]
        state: Option<String>,
    },
}

impl Apps {
    pub async fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::List { list, platform } => {
                let listing = list.listing(ListQuery::new().filter_if("platform", platform));
                let fetch = |query| async move { client.applications(&query).await };
                output.list(&listing, COLUMNS, fetch).await
            }
            Self::Get { app } => {
                let id = app_id(client, &app).await?;
                output.show(&client.application(id).await?)
            }
            Self::Create {
                package,
                name,
                version,
                platform,
                description,
                checksum,
            } => {
                let file_name = package.file_name().unwrap_or_default();
                let wish = NewPackage {
                    name,
                    version,
                    platform,
                    description,
                    checksum,
                    file_name: file_name.to_string_lossy().into_owned(),
                };
                output.show(&upload(client, &package, &wish, output).await?)
            }
            Self::Update {
                app,
                file,
                name,
                version,
                description,
            } => {
                let id = app_id(client, &app).await?;
                let body = file
                    .body()?
                    .set("name", name)
                    .set("version", version)
                    .set("description", description);
                output.show(&client.update_application(id, &body.build()?).await?)
            }
            Self::Delete { app } => {
                client
                    .delete_application(app_id(client, &app).await?)
                    .await?;
                output.done("deleted")
            }
            Self::Download { app, output: to } => {
                let app = client.application(app_id(client, &app).await?).await?;
                let path = download(client, &app, to, output).await?;
                output.done(&path.display().to_string())
            }
            other => other.assignment(client, output).await,
        }
    }

    /// Who has an application, and how far it is there.
    async fn assignment(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::Assign { app, to, intent } => {
                let id = app_id(client, &app).await?;
                let groups = group_ids(client, &to.groups).await?;
                let intent = Some(intent.as_str());
                let mut assigned = Vec::new();
                if !to.devices.is_empty() {
                    let devices = &to.devices;
                    assigned.push(
                        client
                            .assign_application_to_devices(id, devices, intent)
                            .await?,
                    );
                }
                if !groups.is_empty() {
                    assigned.push(
                        client
                            .assign_application_to_groups(id, &groups, intent)
                            .await?,
                    );
                }
                output.rows(&assigned, &["application_id", "assigned"])
            }
            Self::Unassign { app, from } => {
                let id = app_id(client, &app).await?;
                for device in &from.devices {
                    client.unassign_application_from_device(id, device).await?;
                }
                for group in &from.groups {
                    let group = group_id(client, group).await?;
                    client.unassign_application_from_group(id, group).await?;
                }
                output.done("unassigned")
            }
            Self::Installs { app, list, state } => {
                let id = app_id(client, &app).await?;
                let listing = list.listing(ListQuery::new().filter_if("state", state));
                let fetch = |query| async move { client.application_installs(id, &query).await };
                let columns = [
                    "device_id",
                    "hostname",
                    "intent",
                    "state",
                    "error",
                    "updated_at",
                ];
                output.list(&listing, &columns, fetch).await
            }
            _ => Ok(()),
        }
    }
}

async fn upload(
    client: &Client,
    package: &Path,
    wish: &NewPackage,
    output: Output,
) -> Result<Application> {
    let unreadable = || format!("cannot read {}", package.display());
    let file = File::open(package).await.with_context(unreadable)?;
    let about = file.metadata().await.with_context(unreadable)?;
    if !about.is_file() {
        bail!("{} is no file", package.display());
    }
    let bar = output.progress(about.len(), BYTES)?;
    let moved = bar.clone();
    let uploaded = client.upload_application(wish, file, move |sent| moved.set_position(sent));
    let uploaded = uploaded.await;
    bar.finish_and_clear();
    uploaded.map_err(unwrapped)
}

/// Downloads beside the place and moves there when it is whole.
async fn download(
    client: &Client,
    app: &Application,
    to: PathBuf,
    output: Output,
) -> Result<PathBuf> {
    let path = if to.is_dir() {
        to.join(safe_name(app))
    } else {
        to
    };
    if path.exists() {
        bail!("{} is there already", path.display());
    }
    let begun = path.with_file_name(format!("{}.{}.part", safe_name(app), app.id));
    let mut options = OpenOptions::new();
    options.create(true).read(true).append(true);
    let mut file = options
        .open(&begun)
        .await
        .with_context(|| begun.display().to_string())?;
    let here = PartOfPackage::read(&mut file).await?;
    let bar = output.progress(u64::try_from(app.size).unwrap_or(0), BYTES)?;
    let fetched = fetch(client, app, here, &mut file, &bar).await;
    bar.finish_and_clear();
    if let Err(TransferError::Damaged { .. }) = &fetched {
        fs::remove_file(&begun).await?;
    }
    fetched.map_err(unwrapped)?;
    file.sync_all().await?;
    fs::rename(&begun, &path).await?;
    Ok(path)
}

async fn fetch(
    client: &Client,
    app: &Application,
    here: PartOfPackage,
    file: &mut File,
    bar: &ProgressBar,
) -> Result<(), TransferError> {
    let progress = |bytes| bar.set_position(bytes);
    client.download_package(app, here, file, progress).await
}

/// The package's name on disk, which must not lead elsewhere.
fn safe_name(app: &Application) -> String {
    match Path::new(&app.file_name).file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => app.id.to_string(),
    }
}

/// The call's own error, so that what the server said of fields is told.
fn unwrapped(error: TransferError) -> anyhow::Error {
    match error {
        TransferError::Call(error) => error.into(),
        other => other.into(),
    }
}

async fn app_id(client: &Client, text: &str) -> Result<Uuid> {
    let fetch = |query| async move { client.applications(&query).await };
    id_of("application", text, "name", fetch).await
}
