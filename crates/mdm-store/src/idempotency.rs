//! First outcomes of requests that brought an `Idempotency-Key`.

use mdm_core::{Timestamp, ids::NodeId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{error::StoreError, nodes::GONE_AFTER};

/// What is known of a key.
#[derive(Debug, Clone)]
pub struct Known {
    /// What was asked for.
    pub digest: Vec<u8>,
    /// Who carries it out, or did.
    pub reservation: Uuid,
    /// Since when.
    pub reserved_at: Timestamp,
    /// Whether it was carried out.
    pub carried_out: bool,
    /// The status of the answer, if it is known.
    pub status: Option<i16>,
    /// The answer, sealed.
    pub answer: Option<Vec<u8>>,
    /// Whether whoever carries it out is gone: it has had the time, or its node runs no more.
    pub abandoned: bool,
}

/// A wish to carry out a request.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// For whom: a hash of the caller.
    pub scope: &'a [u8],
    /// Under which key.
    pub key: &'a str,
    /// A hash of the request.
    pub digest: &'a [u8],
    /// The reservation's own id.
    pub reservation: Uuid,
    /// Who would carry it out.
    pub node: NodeId,
    /// The present.
    pub now: Timestamp,
    /// What was reserved before then is abandoned.
    pub stale: Timestamp,
}

/// Reserves a key that nobody has, or takes over an abandoned one under which nothing was carried
/// out. `None` if it is reserved now; otherwise what is known of it.
pub async fn reserve(conn: &mut PgConnection, wish: Wish<'_>) -> Result<Option<Known>, StoreError> {
    let Wish {
        scope,
        key,
        digest,
        reservation,
        node,
        now,
        stale,
    } = wish;
    let reserved = sqlx::query_scalar!(
        r#"
        INSERT INTO idempotency_keys AS present (scope, key, digest, reservation, reserved_at, node)
        VALUES ($1, $2, $3, $4, $5, $7)
            ON CONFLICT (scope, key)
            DO UPDATE SET reservation = excluded.reservation,
                          reserved_at = excluded.reserved_at,
                          node = excluded.node
                    WHERE present.digest = excluded.digest
                      AND NOT present.carried_out
                      AND present.status IS NULL
                      AND (present.reserved_at < $6
                           OR NOT EXISTS (SELECT
                                            FROM nodes
                                           WHERE id = present.node
                                             AND seen_at > now() - make_interval(secs => $8)))
     RETURNING reservation
        "#,
        scope,
        key,
        digest,
        reservation,
        now,
        stale,
        node.uuid(),
        GONE_AFTER
    )
    .fetch_optional(&mut *conn)
    .await?;
    if reserved.is_some() {
        return Ok(None);
    }
    Ok(sqlx::query_as!(
        Known,
        r#"
        SELECT digest,
               reservation,
               reserved_at,
               carried_out,
               status,
               answer,
               (reserved_at < $3
                OR NOT EXISTS (SELECT
                                 FROM nodes
                                WHERE id = node
                                  AND seen_at > now() - make_interval(secs => $4))) AS "abandoned!"
          FROM idempotency_keys
         WHERE scope = $1
           AND key = $2
        "#,
        scope,
        key,
        stale,
        GONE_AFTER
    )
    .fetch_optional(conn)
    .await?)
}

/// Marks a reserved request as carried out, in the transaction that does so; `false` if somebody
/// else holds the reservation by now: then nothing may be committed.
pub async fn carry_out(
    conn: &mut PgConnection,
    scope: &[u8],
    key: &str,
    reservation: Uuid,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE idempotency_keys
           SET carried_out = true
         WHERE scope = $1
           AND key = $2
           AND reservation = $3
        "#,
        scope,
        key,
        reservation
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Adds the answer.
pub async fn keep_answer(
    conn: &mut PgConnection,
    scope: &[u8],
    key: &str,
    reservation: Uuid,
    status: i16,
    answer: &[u8],
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        UPDATE idempotency_keys
           SET status = $4,
               answer = $5
         WHERE scope = $1
           AND key = $2
           AND reservation = $3
        "#,
        scope,
        key,
        reservation,
        status,
        answer
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives up a reservation under which nothing was carried out: the request may be tried again.
pub async fn give_up(
    conn: &mut PgConnection,
    scope: &[u8],
    key: &str,
    reservation: Uuid,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        DELETE FROM idempotency_keys
         WHERE scope = $1
           AND key = $2
           AND reservation = $3
           AND NOT carried_out
        "#,
        scope,
        key,
        reservation
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets keys from before `before`, at most `limit` of them.
pub async fn forget(
    conn: &mut PgConnection,
    before: Timestamp,
    limit: i64,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        r#"
        DELETE FROM idempotency_keys
         WHERE (scope, key) IN (SELECT scope, key FROM idempotency_keys WHERE reserved_at < $1 LIMIT $2)
        "#,
        before,
        limit
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
