//! A second factor at login: codes that change every 30 seconds (TOTP, RFC 6238), and recovery codes
//! for whoever lost the device that makes them.

use mdm_core::{
    Entropy, Invalid, Timestamp,
    events::{EventData, NewEvent, ObjectAction},
    users::User,
};
use mdm_store::{PgConnection, StoreError, events, second_factors, users};
use sha2::{Digest, Sha256};
use totp_rs::{Builder, Totp};

use crate::{
    auth::AuthError,
    context::{Actor, OpContext},
    services::Services,
};

const RECOVERY_CODES: usize = 10;
/// Of 80 random bits, as they are typed in: four groups of four.
const RECOVERY_CODE_BYTES: usize = 16;
const SECRET_BYTES: usize = 20;

/// What an authenticator needs. Shown once.
pub struct NewSecondFactor {
    /// The secret in Base32 (RFC 4648), to type in.
    pub secret: String,
    /// The same as an `otpauth` address, for a QR code.
    pub uri: String,
}

impl Services {
    /// Makes a new secret for the caller. It counts when a code from it is confirmed.
    pub async fn begin_totp(&self, ctx: &OpContext) -> Result<NewSecondFactor, AuthError> {
        let mut secret = [0_u8; SECRET_BYTES];
        self.entropy.fill(&mut secret);
        let mut tx = self.begin().await?;
        let user = self.own_account(&mut tx, ctx).await?;
        let sealed = self.secret_key.seal(self.entropy.as_ref(), &secret)?;
        if !second_factors::begin(&mut tx, &user, &sealed, self.now()).await? {
            return Err(AuthError::TotpEnabled);
        }
        let totp = totp(secret.to_vec(), &user);
        let uri = totp.to_url().map_err(|_unnamed| AuthError::TotpNotBegun)?;
        self.commit(tx).await?;
        Ok(NewSecondFactor {
            secret: totp.secret().to_base32(),
            uri,
        })
    }

    /// Puts the caller's second factor into force if the code is right, and gives the recovery
    /// codes, each good for one login.
    pub async fn confirm_totp(
        &self,
        ctx: &OpContext,
        code: &str,
        origin: &str,
    ) -> Result<Vec<String>, AuthError> {
        let mut tx = self.begin().await?;
        let user = self.own_account(&mut tx, ctx).await?;
        if user.totp_enabled {
            return Err(AuthError::TotpEnabled);
        }
        self.check_own_code(&mut tx, &user, code, origin).await?;
        let codes: Vec<String> = (0..RECOVERY_CODES)
            .map(|_| recovery_code(self.entropy.as_ref()))
            .collect();
        let hashes: Vec<Vec<u8>> = codes.iter().map(|code| hash(code)).collect();
        let now = self.now();
        second_factors::confirm(&mut tx, &user, &hashes, now).await?;
        tell(&mut tx, &user, now).await?;
        self.commit(tx).await?;
        Ok(codes)
    }

    /// Takes the caller's second factor away, with a code of it or a recovery code.
    pub async fn remove_totp(
        &self,
        ctx: &OpContext,
        code: &str,
        origin: &str,
    ) -> Result<(), AuthError> {
        let mut tx = self.begin().await?;
        let user = self.own_account(&mut tx, ctx).await?;
        self.check_own_code(&mut tx, &user, code, origin).await?;
        let now = self.now();
        second_factors::remove(&mut tx, &user, now).await?;
        tell(&mut tx, &user, now).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// Takes a code; `false` if it is wrong or was taken before. The caller's transaction has to be
    /// committed for it to be used up.
    pub(crate) async fn take_code(
        &self,
        tx: &mut PgConnection,
        user: &User,
        code: &str,
    ) -> Result<Option<bool>, AuthError> {
        let (organization, id) = (user.organization_id, user.id);
        let Some(sealed) = second_factors::secret(&mut *tx, organization, id).await? else {
            return Ok(None);
        };
        let code = code.trim();
        let totp = totp(self.secret_key.open(&sealed)?, user);
        let now = u64::try_from(self.now().timestamp()).unwrap_or_default();
        if let Some(step) = totp.check(code, now) {
            let step = i64::try_from(step).unwrap_or(i64::MAX);
            let taken = second_factors::take_step(tx, organization, id, step).await?;
            return Ok(Some(taken));
        }
        let hash = hash(&code.to_lowercase());
        let taken = second_factors::take_recovery_code(tx, organization, id, &hash).await?;
        Ok(Some(taken))
    }

    async fn check_own_code(
        &self,
        tx: &mut PgConnection,
        user: &User,
        code: &str,
        origin: &str,
    ) -> Result<(), AuthError> {
        let throttle_key = format!("totp {origin} {}", user.id);
        self.throttle.check(&throttle_key)?;
        match self.take_code(tx, user, code).await? {
            Some(true) => Ok(()),
            Some(false) => {
                self.throttle.failed(&throttle_key);
                let detail = "is not the present code, or was used before";
                Err(Invalid::new("/code", "WRONG_CODE", detail).into())
            }
            None => Err(AuthError::TotpNotBegun),
        }
    }

    /// The account of the caller, who must have a session: a key has no second factor.
    async fn own_account(&self, tx: &mut PgConnection, ctx: &OpContext) -> Result<User, AuthError> {
        let Actor::User { user_id, .. } = ctx.actor else {
            return Err(AuthError::NotSignedIn);
        };
        let found = users::find(tx, ctx.organization_id, user_id).await?;
        found.map(|found| found.user).ok_or(AuthError::NotSignedIn)
    }
}

/// Six digits every 30 seconds, by SHA-1 as all authenticators have it, and one step of a clock that
/// is wrong in either direction.
fn totp(secret: Vec<u8>, user: &User) -> Totp {
    Builder::new()
        .with_secret(secret)
        // A colon would end the name.
        .with_account_name(user.email.as_str().replace(':', "_"))
        .with_issuer(Some("Mobius MDM"))
        .build_noncompliant()
}

fn recovery_code(entropy: &dyn Entropy) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789z";
    let mut bytes = [0_u8; RECOVERY_CODE_BYTES];
    entropy.fill(&mut bytes);
    let letters: Vec<char> = bytes
        .iter()
        .filter_map(|byte| LETTERS.get(usize::from(byte % 32)).copied())
        .map(char::from)
        .collect();
    let groups: Vec<String> = letters
        .chunks(4)
        .map(|group| group.iter().collect())
        .collect();
    groups.join("-")
}

fn hash(code: &str) -> Vec<u8> {
    let plain: String = code.chars().filter(char::is_ascii_alphanumeric).collect();
    Sha256::digest(plain).to_vec()
}

/// Administrators see that an account has another protection.
async fn tell(conn: &mut PgConnection, user: &User, now: Timestamp) -> Result<(), StoreError> {
    let data = EventData::UserChanged {
        user_id: user.id,
        api_key_id: None,
        action: ObjectAction::Updated,
        role: user.role,
        disabled: user.disabled_at.is_some(),
    };
    events::append(conn, now, &NewEvent::new(user.organization_id, data)).await
}
