//! Signing in, staying signed in, signing out.

use mdm_core::{
    Invalid, Timestamp,
    events::{EventData, NewEvent},
    ids::{OrganizationId, SessionId},
    sessions::{REFRESH_TOKEN_TTL, SessionEnd},
    tokens::{Token, TokenKind},
    users::{Email, User},
};
use mdm_store::{PgConnection, StoreError, events, sessions, sessions::OpenSession, users};
use secrecy::SecretString;

use crate::{
    context::{Actor, OpContext},
    passwords::{PasswordError, parse_new_password},
    sealing::CannotOpen,
    services::Services,
    throttle::Throttled,
    tokens::KeyError,
};

/// How a user names themselves at login.
pub enum LoginName {
    /// By e-mail address.
    Email(String),
    /// By e-mail address or by name, as the older API has it.
    Username(String),
}

/// A pair of tokens and whose it is.
pub struct SignedIn {
    /// The access token.
    pub token: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Renews the pair, once.
    pub refresh_token: Token,
    /// When that ends.
    pub refresh_expires_at: Timestamp,
    /// Who signed in.
    pub user: User,
}

/// Why nobody was signed in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Unknown user or wrong password: which of the two is not told.
    #[error("the name or the password is wrong")]
    WrongCredentials,
    /// The password is right, and the user has a second factor.
    #[error("send the code of the second factor as totp, or a recovery code")]
    TotpRequired,
    /// The code of the second factor is wrong, or was used before.
    #[error("the code of the second factor is wrong, or was used before")]
    WrongTotp,
    /// The second factor is in force: it has to be removed before there can be another.
    #[error("there is a second factor: remove it before you make another")]
    TotpEnabled,
    /// There is no second factor, nor one to confirm.
    #[error("there is no second factor: begin with POST /api/v1/auth/totp")]
    TotpNotBegun,
    /// The second factor's secret cannot be sealed or opened.
    #[error(transparent)]
    Sealing(#[from] CannotOpen),
    /// The refresh token is not known, expired, or of a session that ended.
    #[error("the refresh token is not valid; sign in again")]
    InvalidRefreshToken,
    /// The refresh token came a second time; its session was ended.
    #[error(
        "the refresh token was used before: the session was ended, because somebody may have a copy"
    )]
    RefreshTokenReused,
    /// Only a signed-in user has a session.
    #[error("this needs a signed-in user")]
    NotSignedIn,
    /// The user has no such session.
    #[error("there is no such session")]
    NoSuchSession,
    /// Too many failures.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// A field is not acceptable.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The password could not be checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The token could not be signed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Signs a user in and begins a session. `origin` is the caller's address, for the throttle.
    pub async fn login(
        &self,
        name: LoginName,
        password: SecretString,
        totp: Option<&str>,
        origin: &str,
    ) -> Result<SignedIn, AuthError> {
        let (LoginName::Email(text) | LoginName::Username(text)) = &name;
        let by_account = format!("login {origin} {}", text.trim().to_lowercase());
        self.throttle.check(&by_account)?;
        let found = self.find_login(&name).await?;
        let (user, hash) = found.map_or((None, None), |found| {
            (Some(found.user), Some(found.password_hash))
        });
        let right = self.passwords.verify(password, hash).await?;
        let Some(user) = user.filter(|user| right && user.disabled_at.is_none()) else {
            self.throttle.failed(&by_account);
            return Err(AuthError::WrongCredentials);
        };
        let now = self.now();
        let session = SessionId::new(self.clock.as_ref(), self.entropy.as_ref());
        let mut tx = self.begin().await?;
        if user.totp_enabled {
            let code = totp.ok_or(AuthError::TotpRequired)?;
            if self.take_code(&mut tx, &user, code).await? != Some(true) {
                self.throttle.failed(&by_account);
                return Err(AuthError::WrongTotp);
            }
        }
        sessions::insert(&mut tx, user.organization_id, session, user.id, now).await?;
        let signed_in = self.issue(&mut tx, user, session, now).await?;
        self.commit(tx).await?;
        Ok(signed_in)
    }

    async fn find_login(
        &self,
        name: &LoginName,
    ) -> Result<Option<users::UserWithPassword>, StoreError> {
        let mut conn = self.pool.acquire().await?;
        let (LoginName::Email(text) | LoginName::Username(text)) = name;
        match (Email::parse(text), name) {
            (Ok(email), _) => users::find_by_email(&mut conn, &email).await,
            (Err(_), LoginName::Username(name)) if !name.contains('\0') => {
                users::find_by_name(&mut conn, name.trim()).await
            }
            (Err(_), _) => Ok(None),
        }
    }

    /// Exchanges a refresh token for a new pair. Each works once: a second use ends the session.
    pub async fn refresh(&self, presented: &str, origin: &str) -> Result<SignedIn, AuthError> {
        let throttle_key = format!("refresh {origin}");
        self.throttle.check(&throttle_key)?;
        let refused = || {
            self.throttle.failed(&throttle_key);
            AuthError::InvalidRefreshToken
        };
        let hash = Token::parse(TokenKind::Refresh, presented)
            .ok_or_else(refused)?
            .hash();
        let now = self.now();
        let mut tx = self.begin().await?;
        let token = sessions::lock_refresh_token(&mut tx, hash)
            .await?
            .ok_or_else(refused)?;
        if token.session_ended_at.is_some() || token.expires_at <= now {
            return Err(refused());
        }
        if token.used_at.is_some() {
            self.end_in(
                &mut tx,
                token.organization_id,
                token.session_id,
                SessionEnd::TokenReuse,
                now,
            )
            .await?;
            self.commit(tx).await?;
            self.tokens.session_ended(token.session_id);
            return Err(AuthError::RefreshTokenReused);
        }
        let found = users::find(&mut tx, token.organization_id, token.user_id).await?;
        let user = found
            .map(|found| found.user)
            .filter(|user| user.disabled_at.is_none())
            .ok_or_else(refused)?;
        sessions::use_refresh_token(&mut tx, &token, hash, now).await?;
        let signed_in = self.issue(&mut tx, user, token.session_id, now).await?;
        self.commit(tx).await?;
        Ok(signed_in)
    }

    /// Ends the caller's session: its tokens stop working at once, on every node.
    pub async fn logout(&self, ctx: &OpContext) -> Result<(), AuthError> {
        let Actor::User { session_id, .. } = ctx.actor else {
            return Err(AuthError::NotSignedIn);
        };
        let now = self.now();
        let mut tx = self.begin().await?;
        self.end_in(
            &mut tx,
            ctx.organization_id,
            session_id,
            SessionEnd::Logout,
            now,
        )
        .await?;
        self.commit(tx).await?;
        self.tokens.session_ended(session_id);
        Ok(())
    }

    /// The signed-in user, as the database has it now.
    pub async fn me(&self, ctx: &OpContext) -> Result<User, AuthError> {
        let user_id = ctx.user_id().ok_or(AuthError::NotSignedIn)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let found = users::find(&mut conn, ctx.organization_id, user_id).await?;
        found.map(|found| found.user).ok_or(AuthError::NotSignedIn)
    }

    /// A session of the installation's first administrator, for the server's own trial of itself.
    pub async fn first_administrator(&self) -> Result<(OpContext, SecretString), AuthError> {
        let now = self.now();
        let mut tx = self.begin().await?;
        let user = users::first_administrator(&mut tx)
            .await?
            .ok_or(AuthError::NotSignedIn)?;
        let session_id = SessionId::new(self.clock.as_ref(), self.entropy.as_ref());
        sessions::insert(&mut tx, user.organization_id, session_id, user.id, now).await?;
        let (token, _) = self
            .tokens
            .sign(user.organization_id, user.id, session_id, user.role)?;
        self.commit(tx).await?;
        let actor = Actor::User {
            user_id: user.id,
            session_id,
            role: user.role,
        };
        Ok((
            OpContext {
                actor,
                organization_id: user.organization_id,
            },
            token.into(),
        ))
    }

    /// Changes one's own password. Ends all other sessions; the caller's goes on.
    pub async fn change_own_password(
        &self,
        ctx: &OpContext,
        current: SecretString,
        new: &str,
        origin: &str,
    ) -> Result<(), AuthError> {
        let Actor::User {
            user_id,
            session_id,
            ..
        } = ctx.actor
        else {
            return Err(AuthError::NotSignedIn);
        };
        let throttle_key = format!("password {origin} {user_id}");
        self.throttle.check(&throttle_key)?;
        let new = parse_new_password("/new_password", new)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let found = users::find(&mut conn, ctx.organization_id, user_id).await?;
        drop(conn);
        let found = found.ok_or(AuthError::NotSignedIn)?;
        if !self
            .passwords
            .verify(current, Some(found.password_hash))
            .await?
        {
            self.throttle.failed(&throttle_key);
            let detail = "is not the present password";
            return Err(Invalid::new("/current_password", "WRONG_PASSWORD", detail).into());
        }
        let hash = self.passwords.hash(new).await?;
        let now = self.now();
        let mut tx = self.begin().await?;
        users::set_password(&mut tx, &found.user, &hash, now).await?;
        let ended = sessions::end_all_but(
            &mut tx,
            ctx.organization_id,
            user_id,
            session_id,
            SessionEnd::PasswordChanged,
            now,
        )
        .await?;
        let told: Vec<NewEvent> = ended
            .iter()
            .map(|session_id| {
                let session_id = *session_id;
                NewEvent::new(ctx.organization_id, EventData::SessionEnded { session_id })
            })
            .collect();
        events::append_all(&mut tx, now, &told).await?;
        self.commit(tx).await?;
        self.tokens.sessions_ended(&ended);
        Ok(())
    }

    /// One's own sessions, the newest first, and which of them asks.
    pub async fn list_sessions(
        &self,
        ctx: &OpContext,
    ) -> Result<(Vec<OpenSession>, SessionId), AuthError> {
        let Actor::User {
            user_id,
            session_id,
            ..
        } = ctx.actor
        else {
            return Err(AuthError::NotSignedIn);
        };
        let since = self.now() - REFRESH_TOKEN_TTL;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let open = sessions::open_of(&mut conn, ctx.organization_id, user_id, since).await?;
        Ok((open, session_id))
    }

    /// Ends one of one's own sessions.
    pub async fn end_session(&self, ctx: &OpContext, session: SessionId) -> Result<(), AuthError> {
        let Actor::User { user_id, .. } = ctx.actor else {
            return Err(AuthError::NotSignedIn);
        };
        let mut tx = self.begin().await?;
        if sessions::owner(&mut tx, ctx.organization_id, session).await? != Some(user_id) {
            return Err(AuthError::NoSuchSession);
        }
        let (now, reason) = (self.now(), SessionEnd::Revoked);
        self.end_in(&mut tx, ctx.organization_id, session, reason, now)
            .await?;
        self.commit(tx).await?;
        self.tokens.session_ended(session);
        Ok(())
    }

    async fn issue(
        &self,
        conn: &mut PgConnection,
        user: User,
        session: SessionId,
        now: Timestamp,
    ) -> Result<SignedIn, AuthError> {
        let refresh_token = Token::generate(TokenKind::Refresh, self.entropy.as_ref());
        let refresh_expires_at = now + REFRESH_TOKEN_TTL;
        sessions::insert_refresh_token(
            conn,
            user.organization_id,
            session,
            refresh_token.hash(),
            refresh_expires_at,
        )
        .await?;
        let (token, expires_at) =
            self.tokens
                .sign(user.organization_id, user.id, session, user.role)?;
        Ok(SignedIn {
            token,
            expires_at,
            refresh_token,
            refresh_expires_at,
            user,
        })
    }

    async fn end_in(
        &self,
        conn: &mut PgConnection,
        organization: OrganizationId,
        session: SessionId,
        reason: SessionEnd,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if sessions::end(conn, organization, session, reason, now).await? {
            let event = NewEvent::new(
                organization,
                EventData::SessionEnded {
                    session_id: session,
                },
            );
            events::append(conn, now, &event).await?;
        }
        Ok(())
    }
}

/// Sets the password and ends all sessions of the user, each with its event for the nodes.
pub(crate) async fn change_password(
    conn: &mut PgConnection,
    user: &User,
    hash: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    users::set_password(conn, user, hash, now).await?;
    let ended = sessions::end_all_of(
        conn,
        user.organization_id,
        user.id,
        SessionEnd::PasswordChanged,
        now,
    )
    .await?;
    for session_id in ended {
        let event = NewEvent::new(user.organization_id, EventData::SessionEnded { session_id });
        events::append(conn, now, &event).await?;
    }
    Ok(())
}
