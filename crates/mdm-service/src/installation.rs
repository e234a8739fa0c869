//! The first start of an installation: its organisation, its administrator, its first signing key.

use std::sync::Arc;

use mdm_core::{
    Clock, Entropy, Invalid,
    ids::{OrganizationId, UserId},
    roles::Role,
    users::{Email, User},
};
use mdm_store::{PgPool, StoreError, organizations, second_factors, signing_keys, users};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    passwords::{PasswordError, Passwords, parse_new_password},
    sealing::{CannotOpen, SecretKey},
    tokens::new_signing_key,
};

/// What the first start is given.
pub struct FirstStart {
    /// The administrator's address.
    pub admin_email: String,
    /// The administrator's password; made and shown once if absent.
    pub admin_password: Option<SecretString>,
}

/// What the first start made.
pub struct FirstStarted {
    /// The administrator's address.
    pub admin_email: String,
    /// The administrator's password, if it was made here.
    pub generated_password: Option<SecretString>,
}

/// Why an installation cannot start.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another secret key sealed what the database holds.
    #[error(
        "the secret key does not belong to this database: its keys were sealed with another one. \
         Set MDM_SECRET_KEY (or MDM_SECRET_KEY_FILE) to the key of the node that started first"
    )]
    WrongSecretKey,
    /// Sealing failed.
    #[error(transparent)]
    Sealing(#[from] CannotOpen),
    /// The administrator's address or password is not acceptable.
    #[error("MDM_ADMIN_EMAIL or MDM_ADMIN_PASSWORD: {0}")]
    Admin(#[from] Invalid),
    /// The password could not be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// There is no such user.
    #[error("no user signs in with {0}")]
    NoSuchUser(String),
}

/// Checks that `secret_key` belongs to the database, and makes what the first start makes. Of
/// several nodes that start at once one does it.
pub async fn prepare(
    pool: &PgPool,
    clock: &dyn Clock,
    entropy: Arc<dyn Entropy>,
    secret_key: &SecretKey,
    first: FirstStart,
) -> Result<Option<FirstStarted>, InstallationError> {
    let mut tx = pool.begin().await.map_err(StoreError::from)?;
    organizations::lock_first_start(&mut tx).await?;
    if let Some(check) = organizations::key_check(&mut tx).await? {
        return if secret_key.matches(&check) {
            Ok(None)
        } else {
            Err(InstallationError::WrongSecretKey)
        };
    }
    let now = clock.now();
    let email = Email::parse(&first.admin_email)?;
    let given = first.admin_password.is_some();
    let password = match first.admin_password {
        Some(password) => parse_new_password("/admin_password", password.expose_secret())?,
        None => generate_password(entropy.as_ref()),
    };
    let hash = Passwords::new(Arc::clone(&entropy))
        .hash(password.clone())
        .await?;
    let organization_id = OrganizationId::new(clock, entropy.as_ref());
    let admin = User {
        id: UserId::new(clock, entropy.as_ref()),
        organization_id,
        email: email.clone(),
        name: "admin".to_owned(),
        role: Role::Admin,
        totp_enabled: false,
        disabled_at: None,
        created_at: now,
        updated_at: now,
        version: 1,
    };
    organizations::insert_installation(&mut tx, &secret_key.make_check(entropy.as_ref())?, now)
        .await?;
    organizations::insert(&mut tx, organization_id, "default", now).await?;
    users::insert(&mut tx, &admin, &hash).await?;
    signing_keys::insert(
        &mut tx,
        &new_signing_key(clock, entropy.as_ref(), secret_key)?,
    )
    .await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(Some(FirstStarted {
        admin_email: email.as_str().to_owned(),
        generated_password: (!given).then_some(password),
    }))
}

/// Makes a new signing key and retires the others: they verify until their last token has expired.
pub async fn rotate_signing_key(
    pool: &PgPool,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
    secret_key: &SecretKey,
) -> Result<mdm_core::ids::SigningKeyId, InstallationError> {
    let mut tx = pool.begin().await.map_err(StoreError::from)?;
    organizations::lock_first_start(&mut tx).await?;
    let check = organizations::key_check(&mut tx).await?;
    if !check.is_some_and(|check| secret_key.matches(&check)) {
        return Err(InstallationError::WrongSecretKey);
    }
    let key = new_signing_key(clock, entropy, secret_key)?;
    signing_keys::insert(&mut tx, &key).await?;
    signing_keys::retire_others(&mut tx, key.id, clock.now()).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(key.id)
}

/// Sets a user's password to a new random one, takes the second factor away, ends the user's
/// sessions, and gives the password.
pub async fn reset_password(
    pool: &PgPool,
    clock: &dyn Clock,
    entropy: Arc<dyn Entropy>,
    email: &str,
) -> Result<SecretString, InstallationError> {
    let email = Email::parse(email)?;
    let password = generate_password(entropy.as_ref());
    let hash = Passwords::new(entropy).hash(password.clone()).await?;
    let mut tx = pool.begin().await.map_err(StoreError::from)?;
    let found = users::find_by_email(&mut tx, &email).await?;
    let user = found
        .ok_or_else(|| InstallationError::NoSuchUser(email.as_str().to_owned()))?
        .user;
    crate::auth::change_password(&mut tx, &user, &hash, clock.now()).await?;
    if user.totp_enabled {
        second_factors::remove(&mut tx, &user, clock.now()).await?;
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok(password)
}

/// 24 letters and digits without those that look alike: 120 bits.
fn generate_password(entropy: &dyn Entropy) -> SecretString {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789A";
    let mut bytes = [0_u8; 24];
    entropy.fill(&mut bytes);
    let text: String = bytes
        .iter()
        .filter_map(|byte| LETTERS.get(usize::from(byte % 32)).copied())
        .map(char::from)
        .collect();
    text.into()
}
