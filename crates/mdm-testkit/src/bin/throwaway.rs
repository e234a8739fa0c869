//! `throwaway COMMAND [ARGUMENT]…` runs a command with `DATABASE_URL` set to a new, migrated
//! database in a PostgreSQL of its own, ends with its code, and clears up.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

use anyhow::Context;
use mdm_testkit::postgres::Throwaway;
use tokio::process::Command;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments
        .next()
        .context("usage: throwaway COMMAND [ARGUMENT]...")?;
    let postgres = Throwaway::start().await?;
    let database = postgres.create_database().await?;

    let status = Command::new(&program)
        .args(arguments)
        .env("DATABASE_URL", postgres.url(&database))
        .status()
        .await
        .with_context(|| format!("cannot run {}", program.display()));
    postgres.stop().await?;

    let status = status?;
    // As a shell tells it: a command killed by a signal ends with 128 and its number.
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
