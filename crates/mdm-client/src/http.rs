//! The HTTP side: one request, one answer.

use std::{sync::Once, time::Duration};

use mdm_proto::problem::Problem;
use reqwest::{Method, RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

use crate::error::ClientError;

/// A call may wait 60 s for a device, and some more for the answer.
const TIMEOUT: Duration = Duration::from_secs(90);

/// An HTTP client with the given time limit for a whole call, TLS included.
pub fn http_client(timeout: Duration) -> Result<reqwest::Client, ClientError> {
    install_crypto();
    let builder = reqwest::Client::builder()
        .timeout(timeout)
        .connect_timeout(Duration::from_secs(10));
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

/// A client of one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<SecretString>,
}

impl Client {
    /// A client of the server at `base`, such as `https://mdm.example.org`, with an access token or
    /// a device token.
    pub fn new(base: Url, token: Option<SecretString>) -> Result<Self, ClientError> {
        Ok(Self {
            http: http_client(TIMEOUT)?,
            base,
            token,
        })
    }

    /// The same client with another token.
    #[must_use]
    pub fn with_token(mut self, token: SecretString) -> Self {
        self.token = Some(token);
        self
    }

    /// The server's address.
    pub const fn base(&self) -> &Url {
        &self.base
    }

    pub(crate) const fn token(&self) -> Option<&SecretString> {
        self.token.as_ref()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        answer(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), ClientError> {
        done(self.request(Method::DELETE, path)).await
    }
}

/// Sends a request and reads the answer's body.
pub(crate) async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, ClientError> {
    let (status, body) = exchange(request).await?;
    serde_json::from_slice(&body).map_err(|error| unexpected(status, error.to_string().as_bytes()))
}

/// Sends a request whose answer has no body.
pub(crate) async fn done(request: RequestBuilder) -> Result<(), ClientError> {
    exchange(request).await.map(|_| ())
}

/// Sends a request whose answer is read piece by piece.
pub(crate) async fn opened(request: RequestBuilder) -> Result<Response, ClientError> {
    let response = request.send().await?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await?.to_vec();
    Err(refusal(status.as_u16(), &body))
}

async fn exchange(request: RequestBuilder) -> Result<(u16, Vec<u8>), ClientError> {
    let response = request.send().await?;
    let status = response.status();
    let body = response.bytes().await?.to_vec();
    if status.is_success() {
        return Ok((status.as_u16(), body));
    }
    Err(refusal(status.as_u16(), &body))
}

fn refusal(status: u16, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => ClientError::Problem(Box::new(problem)),
        Err(_) => unexpected(status, body),
    }
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
