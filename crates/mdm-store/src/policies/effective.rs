//! What counts on a device, and how it came there.

use mdm_core::{
    Timestamp,
    ids::{DeviceId, GroupId, OrganizationId},
    policies::{AssignmentPath, ComplianceState, Policy, RuleResult},
};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::PolicyRow;
use crate::error::StoreError;

/// A policy that reaches a device.
#[derive(Debug, Clone)]
pub struct EffectiveRow {
    /// The policy.
    pub policy: Policy,
    /// How it came to the device: never empty.
    pub paths: Vec<AssignmentPath>,
    /// Where the device stands.
    pub state: ComplianceState,
    /// What the device said of each rule of the present version.
    pub rules: Vec<RuleResult>,
    /// When it looked.
    pub observed_at: Option<Timestamp>,
}

/// The enabled policies that reach a device, by age. A device is reached by few policies, so this
/// is no list with pages.
pub async fn effective(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
) -> Result<Vec<EffectiveRow>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT p.organization_id,
               p.id,
               p.name,
               p.description,
               p.platform,
               p.type AS kind,
               p.enabled,
               p.configuration AS "configuration: Value",
               p.version,
               p.created_at,
               p.updated_at,
               c.state AS "state!",
               CASE WHEN r.policy_version = p.version THEN r.rules END AS "rules: Json<Vec<RuleResult>>",
               CASE WHEN r.policy_version = p.version THEN r.observed_at END AS observed_at,
               EXISTS (SELECT 1
                         FROM policy_devices pd
                        WHERE pd.organization_id = p.organization_id
                          AND pd.policy_id = p.id
                          AND pd.device_id = $2) AS "direct!",
               (SELECT coalesce(jsonb_agg(jsonb_build_array(g.id, g.name) ORDER BY g.name, g.id), '[]'::jsonb)
                  FROM policy_groups pg
                  JOIN group_members m ON m.organization_id = pg.organization_id AND m.group_id = pg.group_id
                  JOIN device_groups g ON g.organization_id = pg.organization_id AND g.id = pg.group_id
                 WHERE pg.organization_id = p.organization_id
                   AND pg.policy_id = p.id
                   AND m.device_id = $2) AS "groups!: Json<Vec<(Uuid, String)>>"
          FROM effective_compliance($1, $2) c
          JOIN policies p ON p.organization_id = $1 AND p.id = c.policy_id
          LEFT JOIN policy_results r
            ON r.organization_id = $1 AND r.device_id = $2 AND r.policy_id = p.id
         ORDER BY p.id
        "#,
        organization.uuid(),
        device.uuid()
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let state = row
                .state
                .parse()
                .map_err(|_unknown| StoreError::corrupt("policy_results", "state", row.id))?;
            let direct = row.direct.then_some(AssignmentPath::Direct);
            let groups = row
                .groups
                .0
                .into_iter()
                .map(|(id, name)| AssignmentPath::Group {
                    id: GroupId::from_uuid(id),
                    name,
                });
            let policy = PolicyRow {
                organization_id: row.organization_id,
                id: row.id,
                name: row.name,
                description: row.description,
                platform: row.platform,
                kind: row.kind,
                enabled: row.enabled,
                configuration: row.configuration,
                version: row.version,
                created_at: row.created_at,
                updated_at: row.updated_at,
            };
            Ok(EffectiveRow {
                policy: policy.try_into()?,
                paths: direct.into_iter().chain(groups).collect(),
                state,
                rules: row.rules.map(|rules| rules.0).unwrap_or_default(),
                observed_at: row.observed_at,
            })
        })
        .collect()
}
