//! Users: made, changed and closed out by administrators.

use mdm_core::{
    Invalid,
    events::{EventData, NewEvent, ObjectAction},
    ids::{SessionId, UserId},
    invalid,
    roles::{Permission, Role},
    sessions::SessionEnd,
    users::{Email, User},
};
use mdm_store::{
    PgConnection, StoreError, api_keys, events,
    lists::ListRequest,
    sessions,
    users::{self, UserFilter},
};
use secrecy::SecretString;

use crate::{
    context::{Forbidden, OpContext},
    lists::Listed,
    passwords::{PasswordError, parse_new_password},
    services::Services,
};

/// Why something about a user was not done.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// A field is not acceptable.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The organisation has no such user.
    #[error("there is no such user")]
    NotFound,
    /// The address is taken.
    #[error("a user with this address exists already")]
    EmailTaken,
    /// Nobody would be left who can administer the organisation.
    #[error("this is the last administrator who can sign in: make another one first")]
    LastAdministrator,
    /// `If-Match` names another version than the present one.
    #[error("the user was changed in the meantime: read it again and repeat the change")]
    Stale,
    /// The password could not be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A wish for a new user.
pub struct NewUser {
    /// What the user signs in with.
    pub email: String,
    /// How the user is called; the address if absent.
    pub name: Option<String>,
    /// What the user may do; the least if absent.
    pub role: Option<String>,
    /// The first password.
    pub password: String,
}

/// The fields to change; `None` leaves a field as it is.
#[derive(Default)]
pub struct UserChange {
    /// Another address.
    pub email: Option<String>,
    /// Another name.
    pub name: Option<String>,
    /// Another role.
    pub role: Option<String>,
    /// Whether the user is closed out.
    pub disabled: Option<bool>,
    /// A new password.
    pub password: Option<String>,
    /// The version that the caller saw, from `If-Match`.
    pub if_version: Option<i64>,
}

impl Services {
    /// Makes a user.
    pub async fn create_user(&self, ctx: &OpContext, new: NewUser) -> Result<User, UserError> {
        ctx.require(Permission::ManageUsers)?;
        let now = self.now();
        let email = Email::parse(&new.email)?;
        let name = new.name.as_deref().unwrap_or(email.as_str());
        let user = User {
            id: UserId::new(self.clock.as_ref(), self.entropy.as_ref()),
            organization_id: ctx.organization_id,
            name: invalid::text("/name", name, 200)?,
            email,
            role: parse_role(new.role.as_deref().unwrap_or(Role::Viewer.as_str()))?,
            totp_enabled: false,
            disabled_at: None,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        let hash = self.hash_password("/password", &new.password).await?;
        let mut tx = self.begin().await?;
        if !users::insert_new(&mut tx, &user, &hash).await? {
            return Err(UserError::EmailTaken);
        }
        events::append(&mut tx, now, &changed(&user, ObjectAction::Created)).await?;
        self.commit(tx).await?;
        Ok(user)
    }

    /// A user of the organisation.
    pub async fn get_user(&self, ctx: &OpContext, id: UserId) -> Result<User, UserError> {
        ctx.require(Permission::ManageUsers)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let found = users::find(&mut conn, ctx.organization_id, id).await?;
        found.map(|found| found.user).ok_or(UserError::NotFound)
    }

    /// A page of the organisation's users.
    pub async fn list_users(
        &self,
        ctx: &OpContext,
        filter: &UserFilter,
        request: &ListRequest,
    ) -> Result<Listed<User>, UserError> {
        ctx.require(Permission::ManageUsers)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let page = users::list(&mut conn, ctx.organization_id, filter, request).await?;
        let total = users::total(&mut conn, ctx.organization_id, filter).await?;
        Ok(Listed::new(page, total))
    }

    /// Changes a user. Another role, a new password, or closing the user out ends the sessions: their
    /// tokens say what no longer holds.
    pub async fn update_user(
        &self,
        ctx: &OpContext,
        id: UserId,
        change: UserChange,
    ) -> Result<User, UserError> {
        ctx.require(Permission::ManageUsers)?;
        let hash = match &change.password {
            Some(password) => Some(self.hash_password("/password", password).await?),
            None => None,
        };
        let now = self.now();
        let mut tx = self.begin().await?;
        let administrators = users::lock_administrators(&mut tx, ctx.organization_id).await?;
        let found = users::lock(&mut tx, ctx.organization_id, id).await?;
        let mut user = found.ok_or(UserError::NotFound)?.user;
        if change
            .if_version
            .is_some_and(|version| version != user.version)
        {
            return Err(UserError::Stale);
        }
        let before = (user.role, user.disabled_at.is_some());
        if let Some(email) = &change.email {
            user.email = Email::parse(email)?;
        }
        if let Some(name) = &change.name {
            user.name = invalid::text("/name", name, 200)?;
        }
        if let Some(role) = &change.role {
            user.role = parse_role(role)?;
        }
        if let Some(disabled) = change.disabled {
            user.disabled_at = disabled.then(|| user.disabled_at.unwrap_or(now));
        }
        let leaves = user.role != Role::Admin || user.disabled_at.is_some();
        if leaves && administrators == [user.id] {
            return Err(UserError::LastAdministrator);
        }
        user.updated_at = now;
        let version = users::update(&mut tx, &user).await?;
        user.version = version.ok_or(UserError::EmailTaken)?;
        if let Some(hash) = &hash {
            users::set_password(&mut tx, &user, hash, now).await?;
            user.version += 1;
        }
        let reason = if user.disabled_at.is_some() && !before.1 {
            Some(SessionEnd::Disabled)
        } else if user.role != before.0 {
            Some(SessionEnd::RoleChanged)
        } else {
            hash.map(|_| SessionEnd::PasswordChanged)
        };
        let mut ended = Vec::new();
        if let Some(reason) = reason {
            ended = self.end_sessions_of(&mut tx, &user, reason).await?;
        }
        if reason == Some(SessionEnd::Disabled) {
            ended.extend(self.end_keys_of(&mut tx, &user).await?);
        }
        events::append(&mut tx, now, &changed(&user, ObjectAction::Updated)).await?;
        self.commit(tx).await?;
        self.tokens.sessions_ended(&ended);
        Ok(user)
    }

    /// Deletes a user, with sessions and API keys.
    pub async fn delete_user(&self, ctx: &OpContext, id: UserId) -> Result<(), UserError> {
        ctx.require(Permission::ManageUsers)?;
        let mut tx = self.begin().await?;
        let administrators = users::lock_administrators(&mut tx, ctx.organization_id).await?;
        let found = users::lock(&mut tx, ctx.organization_id, id).await?;
        let user = found.ok_or(UserError::NotFound)?.user;
        if administrators == [user.id] {
            return Err(UserError::LastAdministrator);
        }
        let mut ended = self
            .end_sessions_of(&mut tx, &user, SessionEnd::Disabled)
            .await?;
        ended.extend(self.end_keys_of(&mut tx, &user).await?);
        users::delete(&mut tx, ctx.organization_id, id).await?;
        let event = changed(&user, ObjectAction::Deleted);
        events::append(&mut tx, self.now(), &event).await?;
        self.commit(tx).await?;
        self.tokens.sessions_ended(&ended);
        Ok(())
    }

    pub(crate) async fn hash_password(
        &self,
        pointer: &str,
        password: &str,
    ) -> Result<String, UserError> {
        let password: SecretString = parse_new_password(pointer, password)?;
        Ok(self.passwords.hash(password).await?)
    }

    /// Ends a user's sessions, each with its event for the nodes.
    pub(crate) async fn end_sessions_of(
        &self,
        tx: &mut PgConnection,
        user: &User,
        reason: SessionEnd,
    ) -> Result<Vec<SessionId>, StoreError> {
        let now = self.now();
        let ended =
            sessions::end_all_of(&mut *tx, user.organization_id, user.id, reason, now).await?;
        let told: Vec<NewEvent> = ended
            .iter()
            .map(|session_id| session_ended(user, *session_id))
            .collect();
        events::append_all(tx, now, &told).await?;
        Ok(ended)
    }

    /// Closes the connections that were opened with a user's API keys: a key counts as a session
    /// with the key's id.
    async fn end_keys_of(
        &self,
        tx: &mut PgConnection,
        user: &User,
    ) -> Result<Vec<SessionId>, StoreError> {
        let keys = api_keys::of_user(&mut *tx, user.organization_id, user.id).await?;
        let ended: Vec<SessionId> = keys
            .iter()
            .map(|key| SessionId::from_uuid(key.uuid()))
            .collect();
        let told: Vec<NewEvent> = ended
            .iter()
            .map(|session_id| session_ended(user, *session_id))
            .collect();
        events::append_all(tx, self.now(), &told).await?;
        Ok(ended)
    }
}

const fn session_ended(user: &User, session_id: SessionId) -> NewEvent {
    NewEvent::new(user.organization_id, EventData::SessionEnded { session_id })
}

pub(crate) fn parse_role(text: &str) -> Result<Role, Invalid> {
    text.parse()
        .map_err(|unknown: mdm_core::roles::UnknownRole| {
            Invalid::new("/role", "UNKNOWN_ROLE", unknown.to_string())
        })
}

fn changed(user: &User, action: ObjectAction) -> NewEvent {
    let data = EventData::UserChanged {
        user_id: user.id,
        api_key_id: None,
        action,
        role: user.role,
        disabled: user.disabled_at.is_some(),
    };
    NewEvent::new(user.organization_id, data)
}
