//! Access tokens: JWTs (RFC 7519) signed with Ed25519 (RFC 8037), good for 15 minutes.
//!
//! A token is checked without a query: the keys and the sessions that ended while their tokens
//! still look good are held in memory. Sessions that end on another node arrive by the event log.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{SigningKey, pkcs8::EncodePrivateKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use mdm_core::{
    Clock, Entropy, Timestamp,
    ids::{OrganizationId, SessionId, SigningKeyId, UserId},
    roles::{Permissions, Role},
    sessions::{ACCESS_TOKEN_TTL, AccessClaims},
};
use mdm_store::{PgPool, StoreError, sessions, signing_keys, signing_keys::StoredSigningKey};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::sealing::{CannotOpen, SecretKey};

const ISSUER: &str = "mobius-mdm";
const RELOAD_EVERY: Duration = Duration::from_secs(15);
/// A token with an unknown key makes the keys be read again, but no more often than this.
const RELOAD_AT_MOST_EVERY: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: Uuid,
    org: Uuid,
    sid: Uuid,
    role: Role,
    iat: i64,
    exp: i64,
}

struct KeySet {
    signing: Option<(SigningKeyId, EncodingKey)>,
    verifying: HashMap<String, DecodingKey>,
    public: Vec<(SigningKeyId, Vec<u8>)>,
}

/// Signs and checks access tokens.
pub struct AccessTokens {
    pool: PgPool,
    secret_key: Arc<SecretKey>,
    clock: Arc<dyn Clock>,
    keys: RwLock<KeySet>,
    ended: RwLock<HashMap<SessionId, Timestamp>>,
    loaded: Mutex<Instant>,
}

/// The token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of ours, or tampered with.
    #[error("the access token is not valid")]
    Invalid,
    /// Its 15 minutes are over.
    #[error("the access token has expired; get a new one with the refresh token")]
    Expired,
    /// Not a ticket of ours, used already, or older than 30 s.
    #[error("the ticket is not valid: each opens one connection, within 30 s")]
    TicketInvalid,
    /// Its session ended.
    #[error("the session has ended; sign in again")]
    SessionEnded,
    /// Whether it is good cannot be told now.
    #[error("the database cannot be reached at the moment; try again")]
    Unavailable,
}

/// A key could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored key was sealed with another secret key.
    #[error("a signing key in the database: {0}")]
    Sealed(#[from] CannotOpen),
    /// The stored key is no Ed25519 key.
    #[error("the signing key {0} in the database is not an Ed25519 key")]
    Malformed(SigningKeyId),
    /// There is no key to sign with.
    #[error("the database holds no signing key")]
    Missing,
    /// The token could not be written.
    #[error("signing: {0}")]
    Signing(#[from] jsonwebtoken::errors::Error),
}

/// Makes a new key, sealed for the database.
pub fn new_signing_key(
    clock: &dyn Clock,
    entropy: &dyn Entropy,
    secret_key: &SecretKey,
) -> Result<StoredSigningKey, CannotOpen> {
    let mut seed = [0_u8; 32];
    entropy.fill(&mut seed);
    let key = SigningKey::from_bytes(&seed);
    Ok(StoredSigningKey {
        id: SigningKeyId::new(clock, entropy),
        public_key: key.verifying_key().as_bytes().to_vec(),
        sealed_private_key: secret_key.seal(entropy, &seed)?,
        created_at: clock.now(),
        retired_at: None,
    })
}

impl AccessTokens {
    /// Reads keys and ended sessions from the database.
    pub async fn load(
        pool: PgPool,
        secret_key: Arc<SecretKey>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KeyError> {
        let keys = RwLock::new(KeySet {
            signing: None,
            verifying: HashMap::new(),
            public: Vec::new(),
        });
        let tokens = Self {
            pool,
            secret_key,
            clock,
            keys,
            ended: RwLock::default(),
            loaded: Mutex::new(Instant::now()),
        };
        tokens.reload().await?;
        Ok(tokens)
    }

    /// Reads them again, and forgets sessions whose last token has expired by now.
    pub async fn reload(&self) -> Result<(), KeyError> {
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let since = self.clock.now() - ACCESS_TOKEN_TTL;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let stored = signing_keys::list(&mut conn, since).await?;
        let ended = sessions::ended_since(&mut conn, since).await?;
        let keys = self.open_keys(&stored)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        let mut known = self.ended.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, at| *at > since);
        known.extend(ended);
        Ok(())
    }

    fn open_keys(&self, stored: &[StoredSigningKey]) -> Result<KeySet, KeyError> {
        let mut set = KeySet {
            signing: None,
            verifying: HashMap::new(),
            public: Vec::new(),
        };
        for key in stored {
            set.verifying.insert(
                key.id.to_string(),
                DecodingKey::from_ed_der(&key.public_key),
            );
            set.public.push((key.id, key.public_key.clone()));
            if key.retired_at.is_none() && set.signing.is_none() {
                let seed = self.secret_key.open(&key.sealed_private_key)?;
                let seed: [u8; 32] = seed
                    .try_into()
                    .map_err(|_length| KeyError::Malformed(key.id))?;
                let der = SigningKey::from_bytes(&seed)
                    .to_pkcs8_der()
                    .map_err(|_encoding| KeyError::Malformed(key.id))?;
                set.signing = Some((key.id, EncodingKey::from_ed_der(der.as_bytes())));
            }
        }
        Ok(set)
    }

    /// Reads the keys again every so often, so that a rotation reaches every node, until told to
    /// stop.
    pub async fn run_reload(self: Arc<Self>, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(RELOAD_EVERY))
            .await
            .is_some()
        {
            if let Err(error) = self.reload().await {
                tracing::warn!(%error, "cannot read the signing keys; going on with those in memory");
            }
        }
    }

    /// Signs a token for the session.
    pub fn sign(
        &self,
        organization: OrganizationId,
        user: UserId,
        session: SessionId,
        role: Role,
    ) -> Result<(String, Timestamp), KeyError> {
        let now = self.clock.now();
        let expires_at = now + ACCESS_TOKEN_TTL;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: user.uuid(),
            org: organization.uuid(),
            sid: session.uuid(),
            role,
            iat: now.timestamp(),
            exp: expires_at.timestamp(),
        };
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let (id, key) = keys.signing.as_ref().ok_or(KeyError::Missing)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(id.to_string());
        Ok((jsonwebtoken::encode(&header, &claims, key)?, expires_at))
    }

    /// Checks signature, issuer, expiry, and that the session has not ended.
    pub fn verify(&self, token: &str) -> Result<AccessClaims, TokenError> {
        let header =
            jsonwebtoken::decode_header(token).map_err(|_malformed| TokenError::Invalid)?;
        let kid = header.kid.ok_or(TokenError::Invalid)?;
        let claims = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            let key = keys.verifying.get(&kid).ok_or(TokenError::Invalid)?;
            decode(token, key)?
        };
        let expires_at =
            chrono::DateTime::from_timestamp(claims.exp, 0).ok_or(TokenError::Invalid)?;
        // Against our own clock, not the library's: tests stop it.
        if expires_at <= self.clock.now() {
            return Err(TokenError::Expired);
        }
        let session_id = SessionId::from_uuid(claims.sid);
        if self
            .ended
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&session_id)
        {
            return Err(TokenError::SessionEnded);
        }
        Ok(AccessClaims {
            user_id: UserId::from_uuid(claims.sub),
            organization_id: OrganizationId::from_uuid(claims.org),
            session_id,
            role: claims.role,
            permissions: Permissions::of(claims.role),
            expires_at,
        })
    }

    /// As [`verify`](Self::verify), but when the key is unknown the keys are read again first:
    /// another node may have begun to sign with a new one.
    pub async fn verify_fresh(&self, token: &str) -> Result<AccessClaims, TokenError> {
        let verified = self.verify(token);
        if verified != Err(TokenError::Invalid) || !self.may_reload(token) {
            return verified;
        }
        if let Err(error) = self.reload().await {
            tracing::warn!(%error, "cannot read the signing keys; going on with those in memory");
        }
        self.verify(token)
    }

    fn may_reload(&self, token: &str) -> bool {
        let unknown = jsonwebtoken::decode_header(token)
            .ok()
            .and_then(|header| header.kid)
            .is_some_and(|kid| {
                !self
                    .keys
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .verifying
                    .contains_key(&kid)
            });
        unknown
            && self
                .loaded
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .elapsed()
                >= RELOAD_AT_MOST_EVERY
    }

    /// Tokens of this session are refused from now on.
    pub fn session_ended(&self, session: SessionId) {
        let now = self.clock.now();
        self.ended
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(session)
            .or_insert(now);
    }

    /// Tokens of these sessions are refused from now on.
    pub fn sessions_ended(&self, sessions: &[SessionId]) {
        for session in sessions {
            self.session_ended(*session);
        }
    }

    /// The public keys as a JSON Web Key Set (RFC 7517, RFC 8037).
    pub fn jwks(&self) -> serde_json::Value {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let list: Vec<_> = keys
            .public
            .iter()
            .map(|(id, public)| {
                serde_json::json!({
                    "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
                    "kid": id.to_string(), "x": URL_SAFE_NO_PAD.encode(public),
                })
            })
            .collect();
        serde_json::json!({ "keys": list })
    }
}

fn decode(token: &str, key: &DecodingKey) -> Result<Claims, TokenError> {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "sub"]);
    validation.validate_exp = false;
    validation.validate_aud = false;
    jsonwebtoken::decode::<Claims>(token, key, &validation)
        .map(|data| data.claims)
        .map_err(|_refused| TokenError::Invalid)
}
