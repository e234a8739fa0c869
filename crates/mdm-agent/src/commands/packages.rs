//! `install_app` and `uninstall_app`: packages of dpkg and rpm, only where the agent's owner allowed
//! it.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use mdm_proto::device_side::DeliveredCommand;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::process::Command;
use uuid::Uuid;

use super::{CommandOutcome, Context, check_allowed, run_script};

/// How long a package manager may take.
const TIME: Duration = Duration::from_mins(10);

/// Which application, as the server says.
struct Wanted {
    id: Uuid,
    file_name: String,
    checksum: String,
}

impl Wanted {
    fn of(parameters: &Value) -> Result<Self, CommandOutcome> {
        let text = |key: &str| {
            let missing = || CommandOutcome::Failed(format!("the parameter {key} is missing"));
            parameters
                .get(key)
                .and_then(Value::as_str)
                .ok_or_else(missing)
        };
        let id = text("application_id")?.parse();
        Ok(Self {
            id: id.map_err(|_malformed| {
                CommandOutcome::Failed("application_id is no id".to_owned())
            })?,
            file_name: text("file_name")?.to_owned(),
            checksum: text("checksum")?.to_owned(),
        })
    }

    /// What manages packages of this kind.
    fn manager(&self) -> Result<Manager, CommandOutcome> {
        match self.file_name.rsplit_once('.').map(|(_, ending)| ending) {
            Some("deb") => Ok(Manager::Dpkg),
            Some("rpm") => Ok(Manager::Rpm),
            _ => Err(CommandOutcome::Failed(format!(
                "{} is neither a .deb nor a .rpm: this agent installs no others",
                self.file_name
            ))),
        }
    }
}

#[derive(Clone, Copy)]
enum Manager {
    Dpkg,
    Rpm,
}

impl Manager {
    fn install(self, package: &Path) -> Command {
        let mut command = match self {
            Self::Dpkg => {
                let mut dpkg = Command::new("dpkg");
                dpkg.arg("--install");
                dpkg
            }
            Self::Rpm => {
                let mut rpm = Command::new("rpm");
                rpm.args(["--upgrade", "--replacepkgs"]);
                rpm
            }
        };
        command.arg(package);
        command
    }

    fn remove(self, name: &str) -> Command {
        let (program, option) = match self {
            Self::Dpkg => ("dpkg", "--remove"),
            Self::Rpm => ("rpm", "--erase"),
        };
        let mut command = Command::new(program);
        command.args([option, name]);
        command
    }

    fn name_of(self, package: &Path) -> Command {
        let mut command = match self {
            Self::Dpkg => Command::new("dpkg-deb"),
            Self::Rpm => Command::new("rpm"),
        };
        match self {
            Self::Dpkg => command.arg("--field").arg(package).arg("Package"),
            Self::Rpm => command
                .args(["--query", "--package", "--queryformat", "%{NAME}"])
                .arg(package),
        };
        command
    }
}

pub(super) async fn install(command: &DeliveredCommand, context: &Context) -> CommandOutcome {
    match try_install(command, context).await {
        Ok(done) => CommandOutcome::Completed(done),
        Err(failed) => failed,
    }
}

pub(super) async fn uninstall(command: &DeliveredCommand, context: &Context) -> CommandOutcome {
    match try_uninstall(command, context).await {
        Ok(done) => CommandOutcome::Completed(done),
        Err(failed) => failed,
    }
}

async fn try_install(
    command: &DeliveredCommand,
    context: &Context,
) -> Result<Value, CommandOutcome> {
    check_allowed("install_app", &context.config)?;
    let wanted = Wanted::of(&command.parameters)?;
    let manager = wanted.manager()?;
    let package = fetch(&wanted, context).await?;
    let name = package_name(manager, &package).await?;
    let ran = run(manager.install(&package)).await;
    // Whatever came of it, the package is not needed any more.
    let _left_for_the_next_time = fs::remove_file(&package);
    succeeded(&ran?)?;
    Ok(json!({ "package": name }))
}

async fn try_uninstall(
    command: &DeliveredCommand,
    context: &Context,
) -> Result<Value, CommandOutcome> {
    check_allowed("install_app", &context.config)?;
    let wanted = Wanted::of(&command.parameters)?;
    let manager = wanted.manager()?;
    // The package itself says what it is called.
    let package = fetch(&wanted, context).await?;
    let name = package_name(manager, &package).await;
    let _left_for_the_next_time = fs::remove_file(&package);
    let name = name?;
    succeeded(&run(manager.remove(&name)).await?)?;
    Ok(json!({ "package": name }))
}

/// Fetches the package below the state directory. One that is not what was announced is thrown away.
async fn fetch(wanted: &Wanted, context: &Context) -> Result<PathBuf, CommandOutcome> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        CommandOutcome::Failed(format!("{what}: {error}"))
    };
    let ending = wanted.file_name.rsplit('.').next().unwrap_or_default();
    let path = context
        .state
        .file(&format!("package-{}.{ending}", wanted.id));
    let mut file =
        File::create(&path).map_err(|error| failed("the package cannot be kept", &error))?;
    let mut hash = Sha256::new();
    let fetched = context.client.own_package(wanted.id, |bytes| {
        hash.update(bytes);
        file.write_all(bytes)
    });
    if let Err(error) = fetched.await {
        let _nothing_there = fs::remove_file(&path);
        return Err(failed("the package cannot be fetched", &error));
    }
    let found = hash
        .finalize()
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    if found != wanted.checksum {
        let _nothing_there = fs::remove_file(&path);
        return Err(failed(
            "the package is not the announced one: its SHA-256 is",
            &found,
        ));
    }
    Ok(path)
}

async fn package_name(manager: Manager, package: &Path) -> Result<String, CommandOutcome> {
    let ran = run(manager.name_of(package)).await?;
    succeeded(&ran)?;
    let name = ran
        .get("stdout")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .trim();
    if name.is_empty() || name.starts_with('-') {
        return Err(CommandOutcome::Failed(
            "the package does not tell its name".to_owned(),
        ));
    }
    Ok(name.to_owned())
}

async fn run(mut command: Command) -> Result<Value, CommandOutcome> {
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    run_script::run(command, TIME)
        .await
        .map_err(CommandOutcome::Failed)
}

fn succeeded(ran: &Value) -> Result<(), CommandOutcome> {
    if ran.get("exit_code") == Some(&json!(0)) {
        return Ok(());
    }
    let text = |key: &str| {
        ran.get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    Err(CommandOutcome::Failed(format!(
        "{}\n{}",
        text("stderr"),
        text("stdout")
    )))
}
