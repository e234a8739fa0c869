//! License keys, and the devices that are counted against them.

use mdm_core::{
    Timestamp,
    ids::OrganizationId,
    licenses::{LicenseState, LicenseTerms},
};
use sqlx::{PgConnection, types::Json};

use crate::error::{StoreError, one_row};

/// A key that was set, and how much of it is used.
#[derive(Debug, Clone)]
pub struct StoredLicense {
    /// What the key says.
    pub terms: LicenseTerms,
    /// What was last told of it.
    pub state: LicenseState,
    /// How many devices count against it.
    pub devices_enrolled: i64,
}

/// What became of an attempt to count a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It is counted, or there is nothing to count against.
    Yes,
    /// The limit is reached.
    LimitReached,
    /// The license has expired, and so has its grace.
    Expired,
}

/// Waits for all enrolments under way and keeps others from beginning until the transaction ends:
/// an enrolling device's foreign key holds the organisation's row.
pub async fn stop_enrolments(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> Result<(), StoreError> {
    sqlx::query_scalar!(
        "SELECT id FROM organizations WHERE id = $1 FOR UPDATE",
        organization.uuid()
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Sets the key and counts the devices. Enrolments are stopped.
pub async fn set(
    conn: &mut PgConnection,
    key: &str,
    terms: &LicenseTerms,
    state: LicenseState,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO licenses
               (organization_id, license_key, license_id, tier, device_limit, devices_enrolled, features, expires_at,
                grace_until, state, installed_at)
        SELECT $1, $2, $3, $4, $5,
               (SELECT count(*) FROM devices WHERE organization_id = $1 AND status <> 'unenrolled'),
               $6, $7, $8, $9, $10
            ON CONFLICT (organization_id)
            DO UPDATE
                  SET license_key = excluded.license_key,
                      license_id = excluded.license_id,
                      tier = excluded.tier,
                      device_limit = excluded.device_limit,
                      devices_enrolled = excluded.devices_enrolled,
                      features = excluded.features,
                      expires_at = excluded.expires_at,
                      grace_until = excluded.grace_until,
                      state = excluded.state,
                      installed_at = excluded.installed_at
        "#,
        terms.organization_id.uuid(),
        key,
        terms.id,
        terms.tier.as_str(),
        terms.device_limit,
        Json(&terms.features) as _,
        terms.expires_at,
        terms.grace_until,
        state.as_str(),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the key away; `false` if there was none.
pub async fn remove(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "DELETE FROM licenses WHERE organization_id = $1",
        organization.uuid()
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The organisation's license, if a key was set.
pub async fn find(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> Result<Option<StoredLicense>, StoreError> {
    let row = sqlx::query!(
        r#"
        SELECT license_id,
               tier,
               device_limit,
               devices_enrolled,
               features AS "features: Json<Vec<String>>",
               expires_at,
               grace_until,
               state
          FROM licenses
         WHERE organization_id = $1
        "#,
        organization.uuid()
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let corrupt = |column| StoreError::corrupt("licenses", column, organization);
        Ok(StoredLicense {
            terms: LicenseTerms {
                id: row.license_id,
                organization_id: organization,
                tier: row.tier.parse().map_err(|_unknown| corrupt("tier"))?,
                device_limit: row.device_limit,
                features: row.features.0,
                expires_at: row.expires_at,
                grace_until: row.grace_until,
            },
            state: row.state.parse().map_err(|_unknown| corrupt("state"))?,
            devices_enrolled: row.devices_enrolled,
        })
    })
    .transpose()
}

/// Counts a device that is being enrolled; to be called after its row was written, and last in the
/// transaction: with a limit, enrolments wait for each other from here on.
pub async fn count_enrolled(
    conn: &mut PgConnection,
    organization: OrganizationId,
    more: i64,
    now: Timestamp,
) -> Result<Counted, StoreError> {
    let row = sqlx::query!(
        r#"
        UPDATE licenses
           SET devices_enrolled = devices_enrolled + $2
         WHERE organization_id = $1
     RETURNING grace_until > $3 AS "good!",
               device_limit IS NULL OR devices_enrolled <= device_limit AS "within!"
        "#,
        organization.uuid(),
        more,
        now
    )
    .fetch_optional(conn)
    .await?;
    Ok(match row {
        Some(row) if !row.good => Counted::Expired,
        Some(row) if !row.within => Counted::LimitReached,
        _ => Counted::Yes,
    })
}

/// A device was unenrolled and counts no longer.
pub async fn count_unenrolled(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        UPDATE licenses
           SET devices_enrolled = greatest(devices_enrolled - 1, 0)
         WHERE organization_id = $1
        "#,
        organization.uuid()
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The organisations whose license has moved on since that was last told.
pub async fn moved_on(
    conn: &mut PgConnection,
    now: Timestamp,
) -> Result<Vec<OrganizationId>, StoreError> {
    let ids = sqlx::query_scalar!(
        r#"
        SELECT organization_id
          FROM licenses
         WHERE (state = 'valid' AND expires_at <= $1)
            OR (state <> 'expired' AND grace_until <= $1)
        "#,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(OrganizationId::from_uuid).collect())
}

/// Notes what was told of a license; `false` if another node told it first.
pub async fn tell(
    conn: &mut PgConnection,
    organization: OrganizationId,
    before: LicenseState,
    state: LicenseState,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE licenses SET state = $3 WHERE organization_id = $1 AND state = $2",
        organization.uuid(),
        before.as_str(),
        state.as_str()
    )
    .execute(conn)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    one_row("licenses", done.rows_affected()).map(|()| true)
}

/// How many devices an organisation has enrolled.
pub async fn count_devices(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM devices WHERE organization_id = $1 AND status <> 'unenrolled'"#,
        organization.uuid()
    )
    .fetch_one(conn)
    .await?)
}
