//! What devices said of policies, and what that comes to.

use std::collections::BTreeMap;

use mdm_core::{
    Timestamp,
    ids::{DeviceId, OrganizationId, PolicyId},
    policies::{ComplianceState, RuleResult},
};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::error::StoreError;

/// What a device said of a policy, assessed.
#[derive(Debug, Clone)]
pub struct StoredResult {
    /// Which policy.
    pub policy_id: PolicyId,
    /// Which version of it.
    pub policy_version: i64,
    /// What its rules come to.
    pub state: ComplianceState,
    /// What the device said of each rule.
    pub rules: Vec<RuleResult>,
    /// When it looked.
    pub observed_at: Timestamp,
}

/// Where a device stands towards the policies that reach it.
pub async fn states_of(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
) -> Result<BTreeMap<PolicyId, ComplianceState>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT policy_id AS "policy_id!",
               state AS "state!"
          FROM effective_compliance($1, $2)
        "#,
        organization.uuid(),
        device.uuid()
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let state = row.state.parse().map_err(|_unknown| {
                StoreError::corrupt("policy_results", "state", row.policy_id)
            })?;
            Ok((PolicyId::from_uuid(row.policy_id), state))
        })
        .collect()
}

/// Takes over what a locked device said, unless it said something newer before.
pub async fn record_results(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
    results: &[StoredResult],
) -> Result<(), StoreError> {
    for result in results {
        sqlx::query!(
            r#"
            INSERT INTO policy_results AS present
                   (organization_id, device_id, policy_id, policy_version, state, rules, observed_at)
            SELECT $1, $2, p.id, $4, $5, $6, $7
              FROM policies p
             WHERE p.organization_id = $1
               AND p.id = $3
               FOR KEY SHARE
                ON CONFLICT (organization_id, device_id, policy_id)
                DO UPDATE
                      SET policy_version = excluded.policy_version,
                          state = excluded.state,
                          rules = excluded.rules,
                          observed_at = excluded.observed_at
                    WHERE present.policy_version < excluded.policy_version
                       OR present.observed_at <= excluded.observed_at
            "#,
            organization.uuid(),
            device.uuid(),
            result.policy_id.uuid(),
            result.policy_version,
            result.state.as_str(),
            Json(&result.rules) as _,
            result.observed_at
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// A device that a policy reaches, and where it stands.
#[derive(Debug, Clone)]
pub struct DeviceState {
    /// Which device.
    pub device_id: DeviceId,
    /// Its name.
    pub hostname: String,
    /// Where it stands.
    pub state: ComplianceState,
    /// What it said of each rule of the present version.
    pub rules: Vec<RuleResult>,
    /// When it looked.
    pub observed_at: Option<Timestamp>,
}

/// The devices that a policy reaches, in the order of their ids, after one of them; only those in a
/// state if one is named.
pub async fn device_states(
    conn: &mut PgConnection,
    organization: OrganizationId,
    policy: PolicyId,
    state: Option<ComplianceState>,
    after: Uuid,
    limit: i64,
    offset: i64,
) -> Result<Vec<DeviceState>, StoreError> {
    let rows = sqlx::query!(
        r#"
        WITH reached AS (
            SELECT pd.device_id
              FROM policy_devices pd
             WHERE pd.organization_id = $1 AND pd.policy_id = $2
             UNION
            SELECT m.device_id
              FROM policy_groups pg
              JOIN group_members m ON m.organization_id = pg.organization_id AND m.group_id = pg.group_id
             WHERE pg.organization_id = $1 AND pg.policy_id = $2
        ), judged AS (
            SELECT d.id,
                   d.hostname,
                   CASE
                       WHEN p.platform NOT IN ('all', d.platform) THEN 'not_applicable'
                       WHEN r.policy_version = p.version THEN r.state
                       ELSE 'pending'
                   END AS state,
                   CASE WHEN r.policy_version = p.version THEN r.rules END AS rules,
                   CASE WHEN r.policy_version = p.version THEN r.observed_at END AS observed_at
              FROM reached
              JOIN devices d ON d.organization_id = $1 AND d.id = reached.device_id
              JOIN policies p ON p.organization_id = $1 AND p.id = $2
              LEFT JOIN policy_results r
                ON r.organization_id = $1 AND r.device_id = d.id AND r.policy_id = p.id
        )
        SELECT id,
               hostname,
               state AS "state!",
               rules AS "rules: Json<Vec<RuleResult>>",
               observed_at
          FROM judged
         WHERE id > $3
           AND ($4::text IS NULL OR state = $4)
         ORDER BY id
         LIMIT $5
        OFFSET $6
        "#,
        organization.uuid(),
        policy.uuid(),
        after,
        state.map(ComplianceState::as_str),
        limit,
        offset
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(DeviceState {
                device_id: DeviceId::from_uuid(row.id),
                hostname: row.hostname,
                state: row
                    .state
                    .parse()
                    .map_err(|_unknown| StoreError::corrupt("policy_results", "state", row.id))?,
                rules: row.rules.map(|rules| rules.0).unwrap_or_default(),
                observed_at: row.observed_at,
            })
        })
        .collect()
}

/// How many of the devices that each enabled policy reaches stand where; only this policy's if one
/// is named, enabled or not.
pub async fn policy_counts(
    conn: &mut PgConnection,
    organization: OrganizationId,
    policy: Option<PolicyId>,
) -> Result<Vec<(PolicyId, String, BTreeMap<ComplianceState, i64>)>, StoreError> {
    let rows = sqlx::query!(
        r#"
        WITH reached AS (
            SELECT pd.policy_id, pd.device_id
              FROM policy_devices pd
             WHERE pd.organization_id = $1 AND ($2::uuid IS NULL OR pd.policy_id = $2)
             UNION
            SELECT pg.policy_id, m.device_id
              FROM policy_groups pg
              JOIN group_members m ON m.organization_id = pg.organization_id AND m.group_id = pg.group_id
             WHERE pg.organization_id = $1 AND ($2::uuid IS NULL OR pg.policy_id = $2)
        ), judged AS (
            SELECT reached.policy_id,
                   CASE
                       WHEN p.platform NOT IN ('all', d.platform) THEN 'not_applicable'
                       WHEN r.policy_version = p.version THEN r.state
                       ELSE 'pending'
                   END AS state
              FROM reached
              JOIN devices d ON d.organization_id = $1 AND d.id = reached.device_id
              JOIN policies p ON p.organization_id = $1 AND p.id = reached.policy_id
              LEFT JOIN policy_results r
                ON r.organization_id = $1 AND r.device_id = d.id AND r.policy_id = p.id
        ), counted AS (
            SELECT policy_id, state, count(*) AS devices
              FROM judged
             GROUP BY policy_id, state
        )
        SELECT p.id,
               p.name,
               c.state AS "state?",
               c.devices AS "devices?"
          FROM policies p
          LEFT JOIN counted c ON c.policy_id = p.id
         WHERE p.organization_id = $1
           AND (p.id = $2 OR ($2::uuid IS NULL AND p.enabled))
         ORDER BY p.id
        "#,
        organization.uuid(),
        policy.map(PolicyId::uuid)
    )
    .fetch_all(conn)
    .await?;
    let mut counts: Vec<(PolicyId, String, BTreeMap<ComplianceState, i64>)> = Vec::new();
    for row in rows {
        let id = PolicyId::from_uuid(row.id);
        if counts.last().is_none_or(|(last, _, _)| *last != id) {
            counts.push((id, row.name, BTreeMap::new()));
        }
        let (Some(state), Some(devices)) = (row.state, row.devices) else {
            continue;
        };
        let state = state
            .parse()
            .map_err(|_unknown| StoreError::corrupt("policy_results", "state", row.id))?;
        if let Some((_, _, of_policy)) = counts.last_mut() {
            of_policy.insert(state, devices);
        }
    }
    Ok(counts)
}

/// How many devices stand where in the worst of their policies; `None` counts those that no policy
/// reaches.
pub async fn organization_counts(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> Result<Vec<(Option<ComplianceState>, i64)>, StoreError> {
    let rows = sqlx::query!(
        r#"
        WITH reached AS (
            SELECT pd.policy_id, pd.device_id
              FROM policy_devices pd
             WHERE pd.organization_id = $1
             UNION
            SELECT pg.policy_id, m.device_id
              FROM policy_groups pg
              JOIN group_members m ON m.organization_id = pg.organization_id AND m.group_id = pg.group_id
             WHERE pg.organization_id = $1
        ), worst AS (
            SELECT d.id,
                   min(CASE
                       WHEN p.platform NOT IN ('all', d.platform) THEN 5
                       WHEN r.policy_version IS DISTINCT FROM p.version THEN 3
                       WHEN r.state = 'non_compliant' THEN 1
                       WHEN r.state = 'error' THEN 2
                       WHEN r.state = 'compliant' THEN 4
                       ELSE 5
                   END) AS rank
              FROM reached
              JOIN devices d ON d.organization_id = $1 AND d.id = reached.device_id
              JOIN policies p ON p.organization_id = $1 AND p.id = reached.policy_id AND p.enabled
              LEFT JOIN policy_results r
                ON r.organization_id = $1 AND r.device_id = d.id AND r.policy_id = p.id
             GROUP BY d.id
        )
        SELECT rank, count(*) AS "devices!"
          FROM worst
         GROUP BY rank
         UNION ALL
        SELECT NULL,
               (SELECT count(*) FROM devices d WHERE d.organization_id = $1 AND d.status <> 'unenrolled')
               - (SELECT count(*) FROM worst)
        "#,
        organization.uuid()
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let state = match row.rank {
                Some(1) => Some(ComplianceState::NonCompliant),
                Some(2) => Some(ComplianceState::Error),
                Some(3) => Some(ComplianceState::Pending),
                Some(4) => Some(ComplianceState::Compliant),
                Some(_) => Some(ComplianceState::NotApplicable),
                None => None,
            };
            (state, row.devices)
        })
        .collect())
}
