//! `mdmctl`: Mobius MDM from the command line. Exit codes: 0 done, 1 refused or failed, 2 wrong
//! usage.
//!
//! One file per resource. To add one: a file with its subcommands, and a line in `Command`.
#![expect(
    clippy::doc_markdown,
    reason = "the comments of the arguments are the help that people read"
)]

mod api_keys;
mod apps;
mod commands;
mod devices;
mod events;
mod groups;
mod input;
mod license;
mod output;
mod policies;
mod run;
mod secrets;
mod session;
mod totp;
mod users;
mod webhooks;

use std::{io, process::ExitCode};

use anyhow::{Error, Result};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use mdm_client::ClientError;
use url::Url;

use output::Output;
use session::Connection;

/// Mobius MDM from the command line.
///
/// Signs in once with `mdmctl login` and keeps the session. Programs set MDM_API_KEY instead,
/// and MDM_SERVER if the server is not on this machine.
#[derive(Debug, Parser)]
#[command(name = "mdmctl", version, max_term_width = 100)]
struct Cli {
    /// The server [default: the one that was signed in to, else http://127.0.0.1:8081]
    #[arg(
        long,
        env = "MDM_SERVER",
        value_name = "URL",
        global = true,
        help_heading = "For every call"
    )]
    server: Option<Url>,
    /// Answers as JSON; lists as one array
    #[arg(long, global = true, help_heading = "For every call")]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sign in, and keep the session for later calls
    Login(session::Login),
    /// End the session
    Logout,
    /// Tell who is signed in
    Whoami,
    /// One's own second factor
    #[command(subcommand)]
    Totp(totp::Totp),
    /// Devices: what they are, what they have, where they stand
    #[command(subcommand)]
    Devices(devices::Devices),
    /// Device groups and their members
    #[command(subcommand)]
    Groups(groups::Groups),
    /// Policies: what devices must be like
    #[command(subcommand)]
    Policies(policies::Policies),
    /// Applications and their packages
    #[command(subcommand)]
    Apps(apps::Apps),
    /// Commands that were sent
    #[command(subcommand)]
    Commands(commands::Commands),
    /// Users of the organisation
    #[command(subcommand)]
    Users(users::Users),
    /// Enrolment secrets, with which devices join
    #[command(subcommand)]
    Secrets(secrets::Secrets),
    /// API keys, with which programs sign in
    #[command(subcommand)]
    ApiKeys(api_keys::ApiKeys),
    /// Webhooks, to which events are posted
    #[command(subcommand)]
    Webhooks(webhooks::Webhooks),
    /// The license
    #[command(subcommand)]
    License(license::License),
    /// Send a command to devices
    Run(run::Run),
    /// Ask a device an SQL query over its live tables
    Query(run::Query),
    /// What happened, and with --follow what happens
    Events(events::Events),
    /// Where all devices stand
    Compliance,
    /// Tell how the server is
    Health,
    /// Write a shell's completion script to standard output
    Completion {
        /// For which shell
        shell: Shell,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match Box::pin(run(Cli::parse())).await {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let output = Output::new(cli.json);
    let connection = Connection::new(cli.server)?;
    match cli.command {
        Command::Login(login) => login.run(&connection, output).await?,
        Command::Logout => connection.logout(output).await?,
        Command::Whoami => output.show(&connection.client().await?.me().await?)?,
        Command::Totp(totp) => totp.run(&connection.client().await?, output).await?,
        Command::Devices(devices) => devices.run(&connection.client().await?, output).await?,
        Command::Groups(groups) => groups.run(&connection.client().await?, output).await?,
        Command::Policies(policies) => policies.run(&connection.client().await?, output).await?,
        Command::Apps(apps) => apps.run(&connection.client().await?, output).await?,
        Command::Commands(commands) => commands.run(&connection.client().await?, output).await?,
        Command::Users(users) => users.run(&connection.client().await?, output).await?,
        Command::Secrets(secrets) => secrets.run(&connection.client().await?, output).await?,
        Command::ApiKeys(keys) => keys.run(&connection.client().await?, output).await?,
        Command::Webhooks(webhooks) => webhooks.run(&connection.client().await?, output).await?,
        Command::License(license) => license.run(&connection.client().await?, output).await?,
        Command::Run(run) => return run.run(&connection, output).await,
        Command::Query(query) => query.run(&connection.client().await?, output).await?,
        Command::Events(events) => events.run(&connection, output).await?,
        Command::Compliance => {
            output.show(&connection.client().await?.compliance_summary().await?)?;
        }
        Command::Health => output.show(&connection.anonymous()?.health().await?)?,
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "mdmctl", &mut io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says on standard error what went wrong, field by field where the server says so.
fn complain(error: &Error) {
    if output::is_broken_pipe(error) {
        return;
    }
    eprintln!("mdmctl: {error:#}");
    let Some(ClientError::Problem(problem)) = error.downcast_ref() else {
        return;
    };
    // One alone is in the detail already.
    if problem.errors.len() > 1 {
        for field in &problem.errors {
            eprintln!("  {}: {}", field.pointer, field.detail);
        }
    }
    if problem.status >= 500 {
        eprintln!(
            "  the server's log has more under the request {}",
            problem.request_id
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_declared_without_contradiction() {
        Cli::command().debug_assert();
    }
}
