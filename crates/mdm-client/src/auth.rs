//! Signing in and out.

use mdm_proto::auth::{LoginRequest, RefreshRequest, TokenResponse, User};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};

use crate::{Client, ClientError, http::done};

impl Client {
    /// Signs in with an e-mail address or a name.
    pub async fn login(
        &self,
        name: &str,
        password: SecretString,
    ) -> Result<TokenResponse, ClientError> {
        let body = LoginRequest {
            email: None,
            username: Some(name.to_owned()),
            password: password.expose_secret().to_owned(),
        };
        self.post("/api/v1/auth/login", &body).await
    }

    /// Exchanges a refresh token, which works once, for a new pair.
    pub async fn refresh(
        &self,
        refresh_token: &SecretString,
    ) -> Result<TokenResponse, ClientError> {
        let body = RefreshRequest {
            refresh_token: refresh_token.expose_secret().to_owned(),
        };
        self.post("/api/v1/auth/refresh", &body).await
    }

    /// Ends the session of the client's token.
    pub async fn logout(&self) -> Result<(), ClientError> {
        done(self.request(Method::POST, "/api/v1/auth/logout")).await
    }

    /// Who is signed in.
    pub async fn me(&self) -> Result<User, ClientError> {
        self.get("/api/v1/auth/me").await
    }
}
