//! Requests that bring an `Idempotency-Key`: carried out once, answered alike every time.
//!
//! The key is reserved before the request is carried out. Whatever the request commits marks the
//! reservation in the same transaction (every service's commit sees to it), so that after a crash
//! it is known whether anything was done: if not, the next try does it; if so, it is never done
//! again.

use chrono::Duration;
use mdm_core::{Invalid, commands::IdempotencyKey, ids::new_uuid};
use mdm_store::{
    PgConnection, StoreError,
    idempotency::{self, Wish},
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{sealing::CannotOpen, services::Services};

/// How long a first outcome is kept.
pub const KEPT: Duration = Duration::hours(24);
/// A reservation under which nothing was committed for so long is abandoned. That of a node that
/// runs no more is so at once.
const STALE: Duration = Duration::seconds(120);
/// An answer larger than this is not kept; the next try is told that the request was carried out.
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;

/// The right to carry out a request.
#[derive(Debug, Clone)]
pub struct Reservation {
    scope: [u8; 32],
    key: String,
    id: Uuid,
}

/// What a key stands for.
pub enum Reserved {
    /// Nobody has carried out the request: go ahead.
    Now(Reservation),
    /// It was carried out, and this was the answer.
    Answered {
        /// The answer's status.
        status: u16,
        /// The rest, as it was kept.
        answer: Vec<u8>,
    },
}

/// Why a request with a key is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum IdempotencyError {
    /// The key is none.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The key was used for another request.
    #[error("the Idempotency-Key was used before, for another request")]
    Mismatch,
    /// The same request is being carried out.
    #[error("the request with this Idempotency-Key is being carried out; try again in a moment")]
    InProgress,
    /// It was carried out, and what was answered is not known.
    #[error(
        "the request with this Idempotency-Key was carried out, but its answer was lost: look at the present state"
    )]
    AnswerLost,
    /// The kept answer cannot be read.
    #[error(transparent)]
    Sealed(#[from] CannotOpen),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

tokio::task_local! {
    static RESERVATION: Reservation;
}

/// Marks the reservation of the request that is being carried out, if it has one.
pub(crate) async fn carry_out(conn: &mut PgConnection) -> Result<(), StoreError> {
    let Ok(reservation) = RESERVATION.try_with(Clone::clone) else {
        return Ok(());
    };
    let Reservation { scope, key, id } = reservation;
    if idempotency::carry_out(conn, &scope, &key, id).await? {
        Ok(())
    } else {
        Err(StoreError::ReservationLost)
    }
}

impl Services {
    /// Reserves the key for a request with this digest. `caller` tells callers apart: two may use
    /// the same key.
    pub async fn reserve(
        &self,
        caller: &str,
        key: &str,
        digest: [u8; 32],
    ) -> Result<Reserved, IdempotencyError> {
        let key = IdempotencyKey::parse(key)?;
        let reservation = Reservation {
            scope: Sha256::digest(caller.as_bytes()).into(),
            key: key.as_str().to_owned(),
            id: new_uuid(self.clock.as_ref(), self.entropy.as_ref()),
        };
        let now = self.now();
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let wish = Wish {
            scope: &reservation.scope,
            key: &reservation.key,
            digest: &digest,
            reservation: reservation.id,
            node: self.this_node.id,
            now,
            stale: now - STALE,
        };
        let known = idempotency::reserve(&mut conn, wish).await?;
        let Some(known) = known else {
            return Ok(Reserved::Now(reservation));
        };
        if known.digest != digest {
            return Err(IdempotencyError::Mismatch);
        }
        match (known.status, known.answer) {
            (Some(status), Some(sealed)) => Ok(Reserved::Answered {
                status: u16::try_from(status).unwrap_or(200),
                answer: self.secret_key.open(&sealed)?,
            }),
            _ if known.carried_out && known.abandoned => Err(IdempotencyError::AnswerLost),
            _ => Err(IdempotencyError::InProgress),
        }
    }

    /// Carries out a request under its reservation.
    pub async fn within<T>(reservation: Reservation, request: impl Future<Output = T>) -> T {
        RESERVATION.scope(reservation, request).await
    }

    /// Keeps the answer to a request that was carried out, or was refused for good.
    pub async fn keep_answer(
        &self,
        reservation: &Reservation,
        status: u16,
        answer: &[u8],
    ) -> Result<(), IdempotencyError> {
        if answer.len() > LARGEST_ANSWER {
            return Ok(());
        }
        let sealed = self.secret_key.seal(self.entropy.as_ref(), answer)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        idempotency::keep_answer(
            &mut conn,
            &reservation.scope,
            &reservation.key,
            reservation.id,
            i16::try_from(status).unwrap_or(200),
            &sealed,
        )
        .await?;
        Ok(())
    }

    /// Lets go of a reservation whose request came to nothing: the next try begins anew. One that
    /// was carried out stays.
    pub async fn give_up(&self, reservation: &Reservation) -> Result<(), StoreError> {
        let mut conn = self.pool.acquire().await?;
        idempotency::give_up(
            &mut conn,
            &reservation.scope,
            &reservation.key,
            reservation.id,
        )
        .await
    }

    pub(crate) async fn forget_idempotency_keys(&self) -> Result<(), StoreError> {
        let mut conn = self.pool.acquire().await?;
        while idempotency::forget(&mut conn, self.now() - KEPT, 1_000).await? == 1_000 {}
        Ok(())
    }
}
