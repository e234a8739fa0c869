//! The `mdm-api` binary.

use std::{io::Write, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser;
use mdm_api::{
    cli::{AdminCommand, Cli, Command, KeysCommand},
    config::{self, Loaded},
    database::Database,
    license_command, logging, openapi, secret_key,
    server::Application,
    trial,
};
use mdm_core::{OsEntropy, SystemClock, ids::SigningKeyId};
use mdm_service::installation;
use mdm_store::migrations;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let loaded = match config::load(
        cli.settings.config.as_deref(),
        std::env::vars(),
        cli.settings.given(),
    ) {
        Ok(loaded) => loaded,
        Err(error) => return fail(2, &error.to_string()),
    };
    if let Err(error) = logging::init(loaded.settings.log_format, &loaded.settings.log_level) {
        return fail(2, &error);
    }
    let command = cli.command.unwrap_or(Command::Serve);
    let code = match actix_web::rt::System::new().block_on(run(command, loaded)) {
        Ok(()) => 0,
        Err(error) => {
            fail(1, &format!("{error:#}"));
            1
        }
    };
    // Everything is written and stopped. Returning would wait for threads that nobody waits for.
    std::process::exit(code)
}

fn fail(code: u8, message: &str) -> ExitCode {
    // On stderr as it is: a person or a service manager reads it last of all.
    let _nobody_reads = writeln!(std::io::stderr(), "mdm-api: {message}");
    ExitCode::from(code)
}

async fn run(command: Command, loaded: Loaded) -> anyhow::Result<()> {
    match command {
        Command::Serve => serve(loaded).await,
        Command::Try => try_out(loaded).await,
        Command::Migrate { status, json } => migrate(loaded, status, json).await,
        Command::Config { json } => show(&loaded, json),
        Command::Keys(KeysCommand::Rotate) => rotate_keys(loaded).await,
        Command::Admin(AdminCommand::ResetPassword { email }) => {
            reset_password(loaded, &email).await
        }
        Command::License(command) => {
            let known = &loaded.settings.license_public_keys;
            say(&license_command::run(command, known)?);
            Ok(())
        }
        Command::Openapi => {
            say(&serde_json::to_string_pretty(&openapi::document())?);
            Ok(())
        }
    }
}

/// Writes a line to stdout. That nobody reads it any more is no reason to stop serving.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _nobody_reads = writeln!(out, "{line}").and_then(|()| out.flush());
}

async fn serve(loaded: Loaded) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    let Some(application) = build(loaded, &stop).await? else {
        return Ok(());
    };
    say(&format!("listening on {}", application.url()));
    Ok(application.run(stop).await?)
}

async fn try_out(loaded: Loaded) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    let state_dir = loaded.settings.data_dir.join("try-agent");
    let Some(application) = build(loaded, &stop).await? else {
        return Ok(());
    };
    say(&format!("listening on {}", application.url()));
    let trial = trial::Trial::new(&application, state_dir);
    let trying = tokio::spawn(trial.run(stop.clone()));
    let served = application.run(stop).await;
    trying.await??;
    Ok(served?)
}

/// Builds the server; `None` if it was told to stop in the meantime.
async fn build(loaded: Loaded, stop: &CancellationToken) -> anyhow::Result<Option<Application>> {
    let application = Application::build(loaded.settings).await?;
    if stop.is_cancelled() {
        application.run(stop.clone()).await?;
        return Ok(None);
    }
    if let Some(location) = application.database_location() {
        tracing::info!(location = %location.display(), "the server's own PostgreSQL is running");
    }
    if let Some(first) = application.first_started() {
        say(&format!("administrator: {}", first.admin_email));
        if let Some(password) = &first.generated_password {
            say(&format!(
                "password: {} (shown this once; `mdm-api admin reset-password` makes another)",
                password.expose_secret()
            ));
        }
    }
    Ok(Some(application))
}

fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}

async fn migrate(loaded: Loaded, status: bool, json: bool) -> anyhow::Result<()> {
    let database = if status {
        Database::attach_or_open_existing(&loaded.settings).await?
    } else {
        Database::attach_or_open(&loaded.settings).await?
    };
    let done = migrate_or_show(&database, status, json).await;
    database.close().await;
    done
}

async fn migrate_or_show(database: &Database, status: bool, json: bool) -> anyhow::Result<()> {
    if !status {
        migrations::run(&database.pool).await?;
    }
    let all = migrations::status(&database.pool).await?;
    if json {
        let rows: Vec<_> = all
            .iter()
            .map(|m| serde_json::json!({ "version": m.version, "description": m.description, "applied": m.applied }))
            .collect();
        say(&serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    for migration in &all {
        let mark = if migration.applied {
            "applied"
        } else {
            "pending"
        };
        say(&format!(
            "{mark}  {:04}  {}",
            migration.version, migration.description
        ));
    }
    Ok(())
}

fn show(loaded: &Loaded, json: bool) -> anyhow::Result<()> {
    let lines = loaded.lines();
    if json {
        let rows: Vec<_> = lines
            .iter()
            .map(|(key, value, source)| serde_json::json!({ "key": key, "value": value, "source": source }))
            .collect();
        say(&serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    for (key, value, source) in &lines {
        say(&format!("{key:<32} {:<40} {source}", value.to_string()));
    }
    Ok(())
}

async fn rotate_keys(loaded: Loaded) -> anyhow::Result<()> {
    let database = Database::attach_or_open_existing(&loaded.settings).await?;
    let rotated = rotate_in(&database, &loaded).await;
    database.close().await;
    say(&format!(
        "new signing key: {}",
        rotated.context("no key was changed")?
    ));
    Ok(())
}

async fn rotate_in(database: &Database, loaded: &Loaded) -> anyhow::Result<SigningKeyId> {
    let secret_key = secret_key::load(&loaded.settings, &OsEntropy)?;
    let rotated =
        installation::rotate_signing_key(&database.pool, &SystemClock, &OsEntropy, &secret_key);
    Ok(rotated.await?)
}

async fn reset_password(loaded: Loaded, email: &str) -> anyhow::Result<()> {
    let database = Database::attach_or_open_existing(&loaded.settings).await?;
    let reset =
        installation::reset_password(&database.pool, &SystemClock, Arc::new(OsEntropy), email)
            .await;
    database.close().await;
    say(&format!(
        "new password: {}",
        reset.context("no password was changed")?.expose_secret()
    ));
    Ok(())
}
