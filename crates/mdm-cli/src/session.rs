//! Who is calling which server: a kept session, or an API key.

use std::{
    env,
    fs::{self, File},
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Duration, Utc};
use clap::Args;
use mdm_client::Client;
use mdm_proto::auth::TokenResponse;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use url::Url;

use crate::{input::read_secret, output::Output};

/// A token that ends so soon is renewed before it is used.
const MARGIN: Duration = Duration::seconds(60);

/// Sign in, and keep the session for later calls.
#[derive(Debug, Args)]
pub struct Login {
    /// The e-mail address or name of the user; asked for if not given
    #[arg(long, short)]
    user: Option<String>,
    /// The code of the second factor, or a recovery code; asked for on a terminal
    #[arg(long, value_name = "CODE")]
    totp: Option<String>,
}

impl Login {
    /// The password is asked for, or read from standard input.
    pub async fn run(self, connection: &Connection, output: Output) -> Result<()> {
        let user = match self.user {
            Some(user) => user,
            None if io::stdin().is_terminal() => ask("User")?,
            None => bail!("say who signs in with --user"),
        };
        let password = read_secret("Password")?;
        let client = connection.anonymous()?;
        let mut signed_in = client
            .login_with(&user, password.clone().into(), self.totp)
            .await;
        if let Err(error) = &signed_in
            && error.code() == Some("TOTP_REQUIRED")
            && io::stdin().is_terminal()
        {
            let code = Some(ask("Code")?);
            signed_in = client.login_with(&user, password.into(), code).await;
        }
        let signed_in = signed_in?;
        let who = signed_in.user.clone();
        connection
            .store
            .lock()?
            .write(&Session::new(client.base(), signed_in))?;
        if output.is_json() {
            return output.show(&who);
        }
        output.done(&format!(
            "signed in to {} as {} ({})",
            client.base(),
            who.email,
            who.role
        ))
    }
}

fn ask(what: &str) -> Result<String> {
    eprint!("{what}: ");
    io::stderr().flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// What is kept of a session.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Session {
    server: Url,
    token: String,
    expires_at: DateTime<Utc>,
    refresh_token: String,
}

impl Session {
    fn new(server: &Url, tokens: TokenResponse) -> Self {
        Self {
            server: server.clone(),
            token: tokens.token,
            expires_at: tokens.expires_at.0,
            refresh_token: tokens.refresh_token,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a short-lived program has no clock to stop"
    )]
    fn is_good(&self) -> bool {
        self.expires_at - Utc::now() > MARGIN
    }
}

/// How the server is reached.
pub struct Connection {
    server: Url,
    store: Store,
    api_key: Option<String>,
}

impl Connection {
    pub fn new(server: Option<Url>) -> Result<Self> {
        let store = Store::new()?;
        let server = match server {
            Some(server) => server,
            None => match store.read()? {
                Some(session) => session.server,
                None => Url::parse("http://127.0.0.1:8081")?,
            },
        };
        if !matches!(server.scheme(), "http" | "https") {
            bail!("the server's address must begin with http:// or https://, not {server}");
        }
        let api_key = env::var("MDM_API_KEY").ok().filter(|key| !key.is_empty());
        Ok(Self {
            server,
            store,
            api_key,
        })
    }

    /// A client that nobody is signed in with.
    pub fn anonymous(&self) -> Result<Client> {
        Ok(Client::new(self.server.clone(), None)?)
    }

    /// A client with the API key, or with a token that is good for another minute at least.
    pub async fn client(&self) -> Result<Client> {
        let client = self.anonymous()?;
        if let Some(key) = &self.api_key {
            return Ok(client.with_api_key(key.clone().into()));
        }
        if let Some(session) = self.store.read()?
            && session.server == self.server
            && session.is_good()
        {
            return Ok(client.with_token(session.token.into()));
        }
        let session = self.renewed(&client).await?;
        Ok(client.with_token(session.token.into()))
    }

    /// Renews the session. A refresh token works once, and with one that was used already the
    /// server ends the session: of several processes, one renews and the others find it done.
    async fn renewed(&self, client: &Client) -> Result<Session> {
        let held = self.store.lock()?;
        let session = held
            .store
            .read()?
            .filter(|session| session.server == self.server);
        let session = session.ok_or_else(|| self.not_signed_in("nobody is signed in"))?;
        if session.is_good() {
            return Ok(session);
        }
        match client.refresh(&session.refresh_token.into()).await {
            Ok(tokens) => {
                let session = Session::new(&self.server, tokens);
                held.write(&session)?;
                Ok(session)
            }
            Err(error) if error.status() == Some(401) => {
                held.remove()?;
                Err(self.not_signed_in("the session has ended"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn not_signed_in(&self, why: &str) -> anyhow::Error {
        anyhow!(
            "{why}: run `mdmctl --server {} login`, or set MDM_API_KEY",
            self.server.as_str().trim_end_matches('/')
        )
    }

    pub async fn logout(&self, output: Output) -> Result<()> {
        let client = self.client().await?;
        if self.api_key.is_some() {
            bail!("an API key has no session to end: delete it with `mdmctl api-keys delete`");
        }
        client.logout().await?;
        self.store.lock()?.remove()?;
        output.done("signed out")
    }
}

/// The file that keeps the session, for its owner alone.
#[derive(Clone)]
struct Store {
    path: PathBuf,
}

impl Store {
    fn new() -> Result<Self> {
        let directory = match (
            env::var_os("MDMCTL_CONFIG_DIR"),
            env::var_os("XDG_CONFIG_HOME"),
            env::var_os("HOME"),
        ) {
            (Some(directory), _, _) => PathBuf::from(directory),
            (None, Some(config), _) => Path::new(&config).join("mdmctl"),
            (None, None, Some(home)) => Path::new(&home).join(".config/mdmctl"),
            (None, None, None) => {
                bail!("set MDMCTL_CONFIG_DIR: there is no HOME to keep the session in")
            }
        };
        Ok(Self {
            path: directory.join("session.json"),
        })
    }

    fn read(&self) -> Result<Option<Session>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| self.path.display().to_string()),
        };
        // What cannot be read is no session: one signs in anew, and it is written over.
        Ok(serde_json::from_slice(&text).ok())
    }

    fn lock(&self) -> Result<Held<'_>> {
        let path = self.path.with_extension("lock");
        let failed = || format!("cannot keep a session in {}", path.display());
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(failed)?;
        }
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(failed)?;
        file.lock().with_context(failed)?;
        Ok(Held {
            store: self,
            _lock: file,
        })
    }
}

/// The store while no other process changes it.
struct Held<'a> {
    store: &'a Store,
    _lock: File,
}

impl Held<'_> {
    /// Writes all of it or nothing, readable by the owner alone.
    fn write(&self, session: &Session) -> Result<()> {
        let directory = self.store.path.parent().unwrap_or(Path::new("."));
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec(session)?)?;
        file.as_file().sync_all()?;
        file.persist(&self.store.path)?;
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.store.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}
