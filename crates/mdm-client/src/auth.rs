//! Signing in and out, and one's own account.

use mdm_proto::{
    auth::{
        LoginRequest, RecoveryCodes, RefreshRequest, SocketTicket, TokenResponse, TotpCode,
        TotpSecret, User,
    },
    users::{ChangePassword, SessionList},
};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use crate::{Client, ClientError};

impl Client {
    /// Signs in with an e-mail address or a name.
    pub async fn login(
        &self,
        name: &str,
        password: SecretString,
    ) -> Result<TokenResponse, ClientError> {
        self.login_with(name, password, None).await
    }

    /// As [`login`](Self::login), with the code of a second factor, without which one who has it is
    /// refused with `TOTP_REQUIRED`.
    pub async fn login_with(
        &self,
        name: &str,
        password: SecretString,
        totp: Option<String>,
    ) -> Result<TokenResponse, ClientError> {
        let body = LoginRequest {
            email: None,
            username: Some(name.to_owned()),
            password: password.expose_secret().to_owned(),
            totp,
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
        self.call(Method::POST, "/api/v1/auth/logout")?.done().await
    }

    /// Who is signed in.
    pub async fn me(&self) -> Result<User, ClientError> {
        self.get("/api/v1/auth/me").await
    }

    /// Changes one's own password: 12 to 256 characters. Ends all other sessions.
    pub async fn change_password(
        &self,
        current: &SecretString,
        new: &SecretString,
    ) -> Result<(), ClientError> {
        let body = ChangePassword {
            current_password: current.expose_secret().to_owned(),
            new_password: new.expose_secret().to_owned(),
        };
        let call = self.call(Method::PUT, "/api/v1/auth/password")?;
        call.json(&body).done().await
    }

    /// One's own sessions that have not ended, the newest first.
    pub async fn sessions(&self) -> Result<SessionList, ClientError> {
        self.get("/api/v1/auth/sessions").await
    }

    /// Ends one of one's own sessions: its tokens stop working at once.
    pub async fn end_session(&self, id: Uuid) -> Result<(), ClientError> {
        self.delete(&format!("/api/v1/auth/sessions/{id}")).await
    }

    /// Gets a ticket that opens one connection to the event stream, within 30 s: for an address,
    /// where a token would stay in the logs of proxies.
    pub async fn ws_ticket(&self) -> Result<SocketTicket, ClientError> {
        self.call(Method::POST, "/api/v1/auth/ws-ticket")?
            .answer()
            .await
    }

    /// Makes a secret for one's authenticator, which counts when a code of it is confirmed.
    pub async fn begin_totp(&self) -> Result<TotpSecret, ClientError> {
        self.call(Method::POST, "/api/v1/auth/totp")?.answer().await
    }

    /// Confirms one's authenticator by a code. The recovery codes are shown this once.
    pub async fn confirm_totp(&self, code: &str) -> Result<RecoveryCodes, ClientError> {
        let code = code.to_owned();
        self.post("/api/v1/auth/totp/confirm", &TotpCode { code })
            .await
    }

    /// Removes one's authenticator, with a code of it or a recovery code.
    pub async fn remove_totp(&self, code: &str) -> Result<(), ClientError> {
        let code = code.to_owned();
        let call = self.call(Method::DELETE, "/api/v1/auth/totp")?;
        call.json(&TotpCode { code }).done().await
    }
}
