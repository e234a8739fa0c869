//! The HTTP side: one call, one answer.

use std::{sync::Once, time::Duration};

use mdm_proto::problem::Problem;
use reqwest::{Method, RequestBuilder, Response, header::HeaderValue, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

use crate::{error::ClientError, lists::ListQuery};

/// A call may wait 60 s for a device, and some more for the answer.
const TIMEOUT: Duration = Duration::from_secs(90);

/// An HTTP client with the given time limit for a whole call, TLS included.
pub fn http_client(timeout: Duration) -> Result<reqwest::Client, ClientError> {
    install_crypto();
    let builder = reqwest::Client::builder()
        .timeout(timeout)
        .connect_timeout(Duration::from_secs(10))
        // The API never redirects, and whoever else does must not get the API key.
        .redirect(redirect::Policy::none());
    Ok(builder
        .user_agent(concat!("mobius-mdm/", env!("CARGO_PKG_VERSION")))
        .build()?)
}

/// TLS takes the cryptography that the process has chosen; somebody else may have chosen first.
pub(crate) fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _chosen_already = rustls::crypto::ring::default_provider().install_default();
    });
}

/// What a client proves with who it is.
#[derive(Debug, Clone)]
enum Credential {
    Token(SecretString),
    ApiKey(SecretString),
}

impl Credential {
    /// The header that it travels in.
    fn header(&self) -> Result<(&'static str, HeaderValue), ClientError> {
        let (name, text) = match self {
            Self::Token(token) => ("authorization", format!("Bearer {}", token.expose_secret())),
            Self::ApiKey(key) => ("x-api-key", key.expose_secret().to_owned()),
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_unprintable| {
            ClientError::Transport(
                "the token or API key has characters that no header can have".to_owned(),
            )
        })?;
        value.set_sensitive(true);
        Ok((name, value))
    }
}

/// A client of one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    credential: Option<Credential>,
    idempotency_key: Option<String>,
}

impl Client {
    /// A client of the server at `base`, such as `https://mdm.example.org`, with an access token or
    /// a device token.
    pub fn new(base: Url, token: Option<SecretString>) -> Result<Self, ClientError> {
        Ok(Self {
            http: http_client(TIMEOUT)?,
            base,
            credential: token.map(Credential::Token),
            idempotency_key: None,
        })
    }

    /// The same client with another token, in place of what it had.
    #[must_use]
    pub fn with_token(mut self, token: SecretString) -> Self {
        self.credential = Some(Credential::Token(token));
        self
    }

    /// The token, if the client has one.
    pub(crate) const fn token(&self) -> Option<&SecretString> {
        match &self.credential {
            Some(Credential::Token(token)) => Some(token),
            _ => None,
        }
    }

    /// The same client with an API key (`X-API-Key`), in place of what it had.
    #[must_use]
    pub fn with_api_key(mut self, key: SecretString) -> Self {
        self.credential = Some(Credential::ApiKey(key));
        self
    }

    /// The same client with an `Idempotency-Key`, 1 to 128 visible ASCII characters, on every
    /// `POST`: the same call again answers with the first outcome instead of doing it twice. Make
    /// one such client for one change; a key that comes with another request is a 422.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// The server's address.
    pub const fn base(&self) -> &Url {
        &self.base
    }

    /// The header with the client's credential, for the WebSockets.
    pub(crate) fn credential(&self) -> Result<Option<(&'static str, HeaderValue)>, ClientError> {
        self.credential.as_ref().map(Credential::header).transpose()
    }

    /// Begins a call of a path, which may have a query string.
    pub(crate) fn call(&self, method: Method, path: &str) -> Result<Call, ClientError> {
        let url = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        let is_post = method == Method::POST;
        let mut request = self.http.request(method, url);
        if let Some((name, value)) = self.credential()? {
            request = request.header(name, value);
        }
        if let Some(key) = self.idempotency_key.as_deref().filter(|_| is_post) {
            request = request.header("idempotency-key", key);
        }
        Ok(Call { request })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path)?.answer().await
    }

    /// A page of a list.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &ListQuery,
    ) -> Result<T, ClientError> {
        self.get(&with_query(path, &query.to_string())).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        self.call(Method::POST, path)?.json(body).answer().await
    }

    /// Changes something; with a version, only if it still has it.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        version: Option<i64>,
    ) -> Result<T, ClientError> {
        let call = self.call(Method::PUT, path)?.json(body);
        call.if_match(version).answer().await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.call(Method::DELETE, path)?.done().await
    }
}

/// A request on its way.
pub(crate) struct Call {
    request: RequestBuilder,
}

impl Call {
    pub(crate) fn json(self, body: &(impl Serialize + Sync)) -> Self {
        self.with(|request| request.json(body))
    }

    fn if_match(self, version: Option<i64>) -> Self {
        match version {
            Some(version) => {
                self.with(|request| request.header("if-match", format!("\"{version}\"")))
            }
            None => self,
        }
    }

    pub(crate) fn with(self, change: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Self {
        Self {
            request: change(self.request),
        }
    }

    /// Sends it and reads the answer's body.
    pub(crate) async fn answer<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let response = self.send().await?;
        let status = response.status().as_u16();
        read(status, &response.bytes().await?)
    }

    /// Sends it; its answer has no body.
    pub(crate) async fn done(self) -> Result<(), ClientError> {
        let response = self.send().await?;
        // A body that is read to its end leaves the connection for the next call.
        let _empty = response.bytes().await?;
        Ok(())
    }

    /// Sends it and reads the answer as text.
    pub(crate) async fn text(self) -> Result<String, ClientError> {
        Ok(self.send().await?.text().await?)
    }

    /// Sends it and gives the answer, if it is a good one, before its body is read.
    pub(crate) async fn send(self) -> Result<Response, ClientError> {
        let response = self.request.send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(ClientError::Problem(Box::new(problem))),
            Err(_) => Err(unexpected(status.as_u16(), &body)),
        }
    }
}

fn read<T: DeserializeOwned>(status: u16, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| unexpected(status, error.to_string().as_bytes()))
}

fn unexpected(status: u16, body: &[u8]) -> ClientError {
    let body = String::from_utf8_lossy(body).chars().take(200).collect();
    ClientError::Unexpected { status, body }
}

/// Writes a text as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

/// A path with a query string, if there is one.
pub(crate) fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}
