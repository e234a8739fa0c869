//! `mdm-api try`: this machine enrolled by the agent, one command sent, and the events printed as
//! they come, so that a newcomer sees the main job within seconds. It enrols, obeys and follows as
//! any agent and any subscriber does, through the server's front door.

use std::{io::Write, path::PathBuf, time::Duration};

use anyhow::Context as _;
use mdm_agent::{Config, EnrollOptions};
use mdm_client::{Client, EventStream};
use mdm_core::ids::DeviceId;
use mdm_service::{OpContext, Services, commands::NewCommand, enrollment::NewSecret};
use mdm_store::devices::DeviceRef;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::server::Application;

/// How long the machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the trial needs of the server.
pub struct Trial {
    services: Services,
    url: String,
    state_dir: PathBuf,
}

impl Trial {
    /// For a server that is about to run, which from now on also serves the example pages; the
    /// agent keeps its state in `state_dir`.
    pub fn new(application: &Application, state_dir: PathBuf) -> Self {
        application.state().show_examples();
        Self {
            services: application.state().services.clone(),
            url: application.url().to_owned(),
            state_dir,
        }
    }

    /// Tries everything out, then prints events until it is told to stop.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let server: Url = self.url.parse()?;
        let (ctx, token) = self.services.first_administrator().await?;
        let mut events =
            EventStream::connect(&Client::new(server.clone(), Some(token))?, None, &[]).await?;
        let config = Config {
            state_dir: self.state_dir.clone(),
            ..Config::default()
        };
        let device = self.enroll(&ctx, &config, server).await?;
        let agent = tokio::spawn(mdm_agent::run(config, stop.clone()));
        let asking = tokio::spawn(ask(self.services.clone(), ctx, device));
        say(&format!(
            "try: devices, commands, policies and groups as they change, in a browser: {}/examples/live.html",
            self.url
        ));
        say(
            "try: this machine is enrolled and has been asked for its system information; events as they come:",
        );
        while let Some(Ok(frame)) = stop.run_until_cancelled(events.next()).await {
            if frame.id.is_some() {
                say(&format!(
                    "  {} {} {}",
                    frame.timestamp, frame.kind, frame.data
                ));
            }
        }
        asking.abort();
        Ok(agent.await??)
    }

    /// Enrols this machine, unless it is from an earlier trial.
    async fn enroll(
        &self,
        ctx: &OpContext,
        config: &Config,
        server: Url,
    ) -> anyhow::Result<DeviceId> {
        let wish = NewSecret {
            group_ids: Vec::new(),
            name: "try".to_owned(),
            labels: [("try".to_owned(), "yes".to_owned())].into(),
            expires_at: None,
            max_uses: Some(1),
        };
        let (_, secret) = self.services.create_enrollment_secret(ctx, wish).await?;
        let secret: SecretString = secret.expose().to_owned().into();
        // Another trial, or an address that changed, is no reason to fail: this directory is the trial's own.
        let options = EnrollOptions {
            server,
            secret,
            uuid: None,
            labels: [].into(),
            re_enroll: true,
        };
        let identity = mdm_agent::enroll(config, options)
            .await
            .context("this machine could not be enrolled")?;
        Ok(DeviceId::from_uuid(identity.device_id))
    }
}

/// Sends `system_info` and prints what the machine answers.
async fn ask(services: Services, ctx: OpContext, device: DeviceId) {
    let new = NewCommand {
        command: "system_info".to_owned(),
        ..NewCommand::default()
    };
    let asked = async {
        let command = services
            .send_command(&ctx, &DeviceRef::Id(device), new)
            .await?;
        services.wait_for_command(&ctx, command.id, PATIENCE).await
    };
    match asked.await {
        Ok(command) => {
            let told = |key: &str| {
                command
                    .result
                    .as_ref()
                    .and_then(|result| result[key].as_str().map(str::to_owned))
                    .unwrap_or_default()
            };
            say(&format!(
                "try: system_info is {}: {}, {} {}, kernel {}",
                command.status,
                told("hostname"),
                told("os_name"),
                told("os_version"),
                told("kernel")
            ));
            say(
                "try: the server goes on; log in with the administrator's name and password (POST /api/v1/auth/login). Ctrl-C stops it.",
            );
        }
        Err(error) => say(&format!("try: system_info failed: {error}")),
    }
}

/// Writes a line to stdout. That nobody reads it any more is no reason to stop.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _nobody_reads = writeln!(out, "{line}").and_then(|()| out.flush());
}
