//! API keys: how programs sign in.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use mdm_core::{
    Invalid, Timestamp,
    api_keys::{ApiKey, parse_scopes},
    events::{EventData, NewEvent, ObjectAction},
    ids::{ApiKeyId, SessionId},
    invalid,
    roles::{Permission, Role},
    tokens::{Token, TokenHash, TokenKind},
};
use mdm_store::{StoreError, api_keys, events, lists::ListRequest};

use crate::{
    context::{Forbidden, OpContext},
    lists::Listed,
    services::Services,
    users::parse_role,
};

/// Why something about a key was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// A field is not acceptable.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The organisation has no such key.
    #[error("there is no such API key")]
    NotFound,
    /// Only a user makes keys.
    #[error("an API key is made by a signed-in user: it acts for the one who made it")]
    NotAUser,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A wish for a new key.
#[derive(Debug, Default)]
pub struct NewApiKey {
    /// What people call it.
    pub name: String,
    /// The most that it may do; the least if absent.
    pub role: Option<String>,
    /// What of the role's permissions it has; all if absent.
    pub scopes: Option<Vec<String>>,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
}

/// How long a key is held at most: for so long another node may not have heard that it was deleted.
const HELD_FOR: Duration = Duration::from_secs(1);
/// How many keys are held at most.
const HELD_AT_MOST: usize = 1_000;

/// Keys that were looked up a moment ago, and good until anything is changed.
#[derive(Default)]
pub struct HeldKeys(Mutex<HashMap<TokenHash, (Instant, u64, ApiKey)>>);

impl HeldKeys {
    fn get(&self, hash: TokenHash, changes: u64) -> Option<ApiKey> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, then, key) = held.get(&hash)?;
        (*then == changes && since.elapsed() < HELD_FOR).then(|| key.clone())
    }

    fn hold(&self, hash: TokenHash, changes: u64, key: &ApiKey) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= HELD_AT_MOST {
            held.clear();
        }
        held.insert(hash, (Instant::now(), changes, key.clone()));
    }
}

impl Services {
    /// Makes a key. It is given this once and kept as a hash.
    pub async fn create_api_key(
        &self,
        ctx: &OpContext,
        new: NewApiKey,
    ) -> Result<(ApiKey, Token), ApiKeyError> {
        ctx.require(Permission::ManageApiKeys)?;
        let now = self.now();
        check_expiry(new.expires_at, now)?;
        let role = parse_role(new.role.as_deref().unwrap_or(Role::Viewer.as_str()))?;
        let scopes = new.scopes.as_deref();
        let key = ApiKey {
            id: ApiKeyId::new(self.clock.as_ref(), self.entropy.as_ref()),
            organization_id: ctx.organization_id,
            name: invalid::text("/name", &new.name, 100)?,
            role,
            scopes: scopes.map(|names| parse_scopes(role, names)).transpose()?,
            expires_at: new.expires_at,
            last_used_at: None,
            created_by: ctx.user_id().ok_or(ApiKeyError::NotAUser)?,
            created_at: now,
            updated_at: now,
        };
        let token = Token::generate(TokenKind::ApiKey, self.entropy.as_ref());
        let mut tx = self.begin().await?;
        api_keys::insert(&mut tx, &key, token.hash()).await?;
        events::append(&mut tx, now, &changed(&key, ObjectAction::Created)).await?;
        self.commit(tx).await?;
        Ok((key, token))
    }

    /// A key of the organisation.
    pub async fn get_api_key(&self, ctx: &OpContext, id: ApiKeyId) -> Result<ApiKey, ApiKeyError> {
        ctx.require(Permission::ManageApiKeys)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        api_keys::find(&mut conn, ctx.organization_id, id)
            .await?
            .ok_or(ApiKeyError::NotFound)
    }

    /// A page of the organisation's keys.
    pub async fn list_api_keys(
        &self,
        ctx: &OpContext,
        request: &ListRequest,
    ) -> Result<Listed<ApiKey>, ApiKeyError> {
        ctx.require(Permission::ManageApiKeys)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let page = api_keys::list(&mut conn, ctx.organization_id, request).await?;
        let total = api_keys::total(&mut conn, ctx.organization_id).await?;
        Ok(Listed::new(page, total))
    }

    /// Changes what may change of a key: its name, and how long it is good for.
    pub async fn update_api_key(
        &self,
        ctx: &OpContext,
        id: ApiKeyId,
        name: Option<String>,
        expires_at: Option<Option<Timestamp>>,
    ) -> Result<ApiKey, ApiKeyError> {
        ctx.require(Permission::ManageApiKeys)?;
        let now = self.now();
        let mut tx = self.begin().await?;
        let mut key = api_keys::find(&mut tx, ctx.organization_id, id)
            .await?
            .ok_or(ApiKeyError::NotFound)?;
        if let Some(name) = name {
            key.name = invalid::text("/name", &name, 100)?;
        }
        if let Some(expires_at) = expires_at {
            check_expiry(expires_at, now)?;
            key.expires_at = expires_at;
        }
        key.updated_at = now;
        api_keys::update(&mut tx, &key).await?;
        events::append(&mut tx, now, &changed(&key, ObjectAction::Updated)).await?;
        self.commit(tx).await?;
        Ok(key)
    }

    /// Deletes a key: it stops working at once, and what was opened with it is closed.
    pub async fn delete_api_key(&self, ctx: &OpContext, id: ApiKeyId) -> Result<(), ApiKeyError> {
        ctx.require(Permission::ManageApiKeys)?;
        let mut tx = self.begin().await?;
        let key = api_keys::find(&mut tx, ctx.organization_id, id)
            .await?
            .ok_or(ApiKeyError::NotFound)?;
        if !api_keys::delete(&mut tx, ctx.organization_id, id).await? {
            return Err(ApiKeyError::NotFound);
        }
        let session_id = SessionId::from_uuid(id.uuid());
        let ended = EventData::SessionEnded { session_id };
        let told = [
            changed(&key, ObjectAction::Deleted),
            NewEvent::new(ctx.organization_id, ended),
        ];
        events::append_all(&mut tx, self.now(), &told).await?;
        self.commit(tx).await?;
        self.tokens.session_ended(session_id);
        Ok(())
    }

    /// The key that a caller presented, if it is good now.
    pub async fn authenticate_api_key(
        &self,
        presented: &str,
    ) -> Result<Option<ApiKey>, StoreError> {
        let Some(token) = Token::parse(TokenKind::ApiKey, presented) else {
            return Ok(None);
        };
        let (now, hash) = (self.now(), token.hash());
        let is_good = |key: &ApiKey| key.expires_at.is_none_or(|at| at > now);
        let changes = self.changes.count();
        if let Some(key) = self.held_keys.get(hash, changes) {
            return Ok(Some(key).filter(is_good));
        }
        let mut conn = self.pool.acquire().await?;
        let found = api_keys::find_by_hash(&mut conn, hash).await?;
        let Some(key) = found.filter(is_good) else {
            return Ok(None);
        };
        self.held_keys.hold(hash, changes, &key);
        let noted = key
            .last_used_at
            .is_some_and(|at| now - at < chrono::Duration::minutes(1));
        if !noted {
            api_keys::touch(&mut conn, &key, now).await?;
        }
        Ok(Some(key))
    }
}

fn check_expiry(expires_at: Option<Timestamp>, now: Timestamp) -> Result<(), Invalid> {
    if expires_at.is_some_and(|at| at <= now) {
        return Err(Invalid::new(
            "/expires_at",
            "IN_THE_PAST",
            "must be in the future",
        ));
    }
    Ok(())
}

fn changed(key: &ApiKey, action: ObjectAction) -> NewEvent {
    let data = EventData::UserChanged {
        user_id: key.created_by,
        api_key_id: Some(key.id),
        action,
        role: key.role,
        disabled: false,
    };
    NewEvent::new(key.organization_id, data)
}
