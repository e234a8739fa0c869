//! The server and the agent as processes of their own.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use mdm_testkit::{binary, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);

/// A command without the settings of whoever runs the tests.
pub fn bare(program: &str) -> Command {
    let mut command = Command::new(binary(program));
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("MDM"))
    {
        command.env_remove(key);
    }
    command
}

pub fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A running server with its embedded PostgreSQL.
pub struct Server {
    pub url: String,
    pub data_dir: PathBuf,
    pub password: Option<String>,
    settings: Vec<(String, String)>,
    child: Child,
    client: reqwest::Client,
}

impl Server {
    /// Starts on a free port, with settings in the environment.
    pub fn start(data_dir: &Path, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<_> = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let (child, url, password) = launch(data_dir, "127.0.0.1:0", &settings);
        let client = mdm_client::http_client(Duration::from_secs(40)).unwrap();
        Self {
            url,
            data_dir: data_dir.to_owned(),
            password,
            settings,
            child,
            client,
        }
    }

    /// Starts again at the same address, after a stop or a kill.
    pub fn restart(&mut self) {
        let (child, url, password) = launch(&self.data_dir, &self.address(), &self.settings);
        (self.child, self.url, self.password) = (child, url, password);
        // Connections to the process of before are of no use.
        self.client = mdm_client::http_client(Duration::from_secs(40)).unwrap();
    }

    pub fn address(&self) -> String {
        self.url.trim_start_matches("http://").to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it stand still, as on a machine that swaps, or behind a network that swallows packets.
    pub fn freeze(&self) {
        signal(&self.child, Signal::STOP);
    }

    pub fn thaw(&self) {
        signal(&self.child, Signal::CONT);
    }

    /// Asks it to stop, as Ctrl-C or a service manager does, and says how long it took.
    pub fn stop(&mut self, how: Signal) -> Duration {
        let begun = std::time::Instant::now();
        signal(&self.child, how);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        begun.elapsed()
    }

    /// The process id in PostgreSQL's own file.
    pub fn postmaster(&self) -> Option<Pid> {
        let file = self.data_dir.join("postgres/data/postmaster.pid");
        let text = std::fs::read_to_string(file).ok()?;
        Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
    }

    /// An answer, or nothing if the server did not give one.
    pub async fn try_call(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Option<(u16, Value)> {
        let mut request = self
            .client
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
            .bearer_auth(token);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let text = response.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    #[track_caller]
    pub fn call(
        &self,
        method: &'static str,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> impl Future<Output = (u16, Value)> {
        let path = path.to_owned();
        let token = token.to_owned();
        async move {
            self.try_call(method, &path, &token, body.as_ref(), None)
                .await
                .unwrap_or_else(|| panic!("no answer to {method} {path}"))
        }
    }

    pub async fn get(&self, path: &str, token: &str) -> Value {
        let (status, body) = self.call("GET", path, token, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, token: &str, body: Value) -> Value {
        let (status, body) = self.call("POST", path, token, Some(body)).await;
        assert!((200..300).contains(&status), "{path}: {status} {body}");
        body
    }

    pub async fn login(&self, password: &str) -> String {
        let body = json!({ "username": "admin", "password": password });
        self.post("/api/v1/auth/login", "", body).await["token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub async fn wait_for_status(&self, device: &str, status: &str, token: &str) {
        wait_until(format!("{device} is {status}"), PATIENCE, async || {
            let (code, found) = self
                .try_call(
                    "GET",
                    &format!("/api/v1/devices/{device}"),
                    token,
                    None,
                    None,
                )
                .await?;
            (code == 200 && found["status"] == status).then_some(())
        })
        .await;
    }
}

/// Starts the process and waits until it serves.
fn launch(
    data_dir: &Path,
    address: &str,
    settings: &[(String, String)],
) -> (Child, String, Option<String>) {
    std::fs::create_dir_all(data_dir).unwrap();
    let log = data_dir.join("server.log");
    let stderr: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .unwrap();
    let mut command = bare("mdm-api");
    command
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--listen", address])
        .stdout(Stdio::piped())
        .stderr(stderr);
    let mut child = command.envs(settings.iter().cloned()).spawn().unwrap();
    let mut password = None;
    for line in BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
    {
        if let Some(rest) = line.strip_prefix("password: ") {
            password = rest.split(' ').next().map(str::to_owned);
        }
        if let Some(url) = line.strip_prefix("listening on ") {
            return (child, url.to_owned(), password);
        }
    }
    child.wait().unwrap();
    panic!(
        "the server did not start: {}",
        std::fs::read_to_string(log).unwrap_or_default()
    );
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.thaw();
            signal(&self.child, Signal::TERM);
            let _ended = self.child.wait();
        }
        // After a kill the database outlives its server: the test must not leave it behind.
        if let Some(postmaster) = self.postmaster() {
            let _gone = kill_process(postmaster, Signal::INT);
        }
    }
}

/// An enrolled agent and the process that runs it, if one does.
pub struct Agent {
    pub state_dir: PathBuf,
    environment: Vec<(String, String)>,
    allow: String,
    child: Option<Child>,
}

impl Agent {
    /// Enrols this machine under the given uuid.
    pub fn enroll(state_dir: &Path, server: &str, secret: &str, uuid: &str) -> Self {
        let agent = Self {
            state_dir: state_dir.to_owned(),
            environment: Vec::new(),
            allow: String::new(),
            child: None,
        };
        let output = agent
            .command()
            .args([
                "enroll", "--server", server, "--secret", secret, "--uuid", uuid,
            ])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        agent
    }

    pub fn allowing(mut self, commands: &str) -> Self {
        self.allow = commands.to_owned();
        self
    }

    #[cfg_attr(
        not(feature = "slow"),
        expect(dead_code, reason = "the slow suite has drills")
    )]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    fn command(&self) -> Command {
        let mut command = bare("mdm-agent");
        command
            .arg("--state-dir")
            .arg(&self.state_dir)
            .envs(self.environment.clone());
        command
    }

    pub fn run(&mut self) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.state_dir.with_extension("log"))
            .unwrap();
        let mut command = self.command();
        command.arg("run");
        if !self.allow.is_empty() {
            command.args(["--allow", &self.allow]);
        }
        self.child = Some(command.stderr(log).spawn().unwrap());
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(&child, Signal::TERM);
            let status = child.wait().unwrap();
            assert!(status.success(), "{status}");
        }
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> i32 {
        self.child
            .take()
            .unwrap()
            .wait()
            .unwrap()
            .code()
            .unwrap_or(-1)
    }

    pub fn call(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server, its first administrator's token, and a directory for everything.
pub struct Site {
    pub server: Server,
    pub token: String,
    pub password: String,
    pub directory: tempfile::TempDir,
}

impl Site {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With settings in the environment.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let directory = mdm_testkit::postgres::temp_directory().unwrap();
        let server = Server::start(&directory.path().join("data"), settings);
        let password = server.password.clone().unwrap();
        let token = server.login(&password).await;
        Self {
            server,
            token,
            password,
            directory,
        }
    }

    pub async fn agent(&self, uuid: &str) -> Agent {
        let secret = self
            .server
            .post(
                "/api/v1/enrollment-secrets",
                &self.token,
                json!({ "name": uuid }),
            )
            .await;
        let state_dir = self.directory.path().join(format!("agent-{uuid}"));
        Agent::enroll(
            &state_dir,
            &self.server.url,
            secret["secret"].as_str().unwrap(),
            uuid,
        )
    }

    pub async fn send(&self, device: &str, body: Value) -> Value {
        self.server
            .post(
                &format!("/api/v1/devices/{device}/commands?wait=30"),
                &self.token,
                body,
            )
            .await
    }
}
