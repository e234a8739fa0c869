//! Policies, their assignments, and what devices said of them.

use mdm_core::{
    Timestamp,
    ids::{GroupId, OrganizationId, PolicyId},
    policies::{Configuration, Policy},
};
use serde_json::Value;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::{
    error::{StoreError, one_row},
    lists::{ListPage, ListRequest, SortColumn, SortKind, Sorting, Source, Total, contains},
};

mod compliance;
mod effective;

pub use compliance::{
    DeviceState, StoredResult, device_states, organization_counts, policy_counts, record_results,
    states_of,
};
pub use effective::{EffectiveRow, effective};

#[derive(sqlx::FromRow)]
pub(crate) struct PolicyRow {
    pub organization_id: Uuid,
    pub id: Uuid,
    pub name: String,
    pub description: Option<String>,
    pub platform: String,
    #[sqlx(rename = "type")]
    pub kind: Option<String>,
    pub enabled: bool,
    pub configuration: Value,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl TryFrom<PolicyRow> for Policy {
    type Error = StoreError;

    fn try_from(row: PolicyRow) -> Result<Self, StoreError> {
        let corrupt = |column| StoreError::corrupt("policies", column, row.id);
        Ok(Self {
            id: PolicyId::from_uuid(row.id),
            organization_id: OrganizationId::from_uuid(row.organization_id),
            name: row.name,
            description: row.description,
            platform: row
                .platform
                .parse()
                .map_err(|_unknown| corrupt("platform"))?,
            kind: row.kind,
            enabled: row.enabled,
            configuration: Configuration::from_stored(&row.configuration)
                .ok_or_else(|| corrupt("configuration"))?,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// What policies can be sorted by.
pub const SORTING: Sorting = Sorting {
    columns: &[
        SortColumn {
            name: "id",
            sql: "id",
            kind: SortKind::Id,
        },
        SortColumn {
            name: "name",
            sql: "name",
            kind: SortKind::Text,
        },
        SortColumn {
            name: "platform",
            sql: "platform",
            kind: SortKind::Text,
        },
        SortColumn {
            name: "created_at",
            sql: "created_at",
            kind: SortKind::Timestamp,
        },
        SortColumn {
            name: "updated_at",
            sql: "updated_at",
            kind: SortKind::Timestamp,
        },
    ],
    newest_first: false,
};

const SOURCE: Source = Source {
    columns: "organization_id, id, name, description, platform, type, enabled, configuration, version, created_at, \
              updated_at",
    from: "policies",
    organization: "organization_id",
    id: "id",
    plan_each: false,
};

/// Which policies a list shows.
#[derive(Debug, Clone, Default)]
pub struct PolicyFilter {
    /// For this platform, or `all`.
    pub platform: Option<mdm_core::policies::PolicyPlatform>,
    /// That count, or that do not.
    pub enabled: Option<bool>,
    /// With this tag.
    pub kind: Option<String>,
    /// With this text in the name.
    pub search: Option<String>,
    /// Assigned to this group.
    pub group: Option<GroupId>,
}

impl PolicyFilter {
    fn narrow(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(platform) = self.platform {
            query.push(" AND platform = ").push_bind(platform.as_str());
        }
        if let Some(enabled) = self.enabled {
            query.push(" AND enabled = ").push_bind(enabled);
        }
        if let Some(kind) = &self.kind {
            query.push(" AND type = ").push_bind(kind.clone());
        }
        if let Some(search) = &self.search {
            query
                .push(" AND lower(name) LIKE ")
                .push_bind(contains(search));
        }
        if let Some(group) = self.group {
            query
                .push(
                    " AND id IN (SELECT pg.policy_id FROM policy_groups pg \
                     WHERE pg.organization_id = policies.organization_id AND pg.group_id = ",
                )
                .push_bind(group.uuid())
                .push(")");
        }
    }
}

/// A page of the organisation's policies.
pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &PolicyFilter,
    request: &ListRequest,
) -> Result<ListPage<Policy>, StoreError> {
    let page: ListPage<PolicyRow> = SOURCE
        .page(conn, organization, request, &|query| filter.narrow(query))
        .await?;
    page.try_map(Policy::try_from)
}

/// How many policies there are.
pub async fn total(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &PolicyFilter,
) -> Result<Total, StoreError> {
    SOURCE
        .total(conn, organization, &|query| filter.narrow(query))
        .await
}

/// Finds a policy of the organisation.
pub async fn find(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: PolicyId,
) -> Result<Option<Policy>, StoreError> {
    let row = sqlx::query_as!(
        PolicyRow,
        r#"
        SELECT organization_id,
               id,
               name,
               description,
               platform,
               type AS kind,
               enabled,
               configuration,
               version,
               created_at,
               updated_at
          FROM policies
         WHERE organization_id = $1
           AND id = $2
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    row.map(Policy::try_from).transpose()
}

/// Finds a policy and locks it, whole: nobody changes, assigns or deletes it until the transaction
/// ends.
pub async fn lock(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: PolicyId,
) -> Result<Option<Policy>, StoreError> {
    let row = sqlx::query_as!(
        PolicyRow,
        r#"
        SELECT organization_id,
               id,
               name,
               description,
               platform,
               type AS kind,
               enabled,
               configuration,
               version,
               created_at,
               updated_at
          FROM policies
         WHERE organization_id = $1
           AND id = $2
           FOR UPDATE
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    row.map(Policy::try_from).transpose()
}

/// Adds a policy.
pub async fn insert(conn: &mut PgConnection, policy: &Policy) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO policies
               (organization_id, id, name, description, platform, type, enabled, configuration, version, created_at,
                updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        "#,
        policy.organization_id.uuid(),
        policy.id.uuid(),
        policy.name,
        policy.description,
        policy.platform.as_str(),
        policy.kind,
        policy.enabled,
        policy.configuration.to_json(),
        policy.version,
        policy.created_at,
        policy.updated_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes a locked policy and counts the change.
pub async fn update(conn: &mut PgConnection, policy: &Policy) -> Result<i64, StoreError> {
    let version = sqlx::query_scalar!(
        r#"
        UPDATE policies
           SET name = $3,
               description = $4,
               platform = $5,
               type = $6,
               enabled = $7,
               configuration = $8,
               updated_at = $9,
               version = version + 1
         WHERE organization_id = $1
           AND id = $2
     RETURNING version
        "#,
        policy.organization_id.uuid(),
        policy.id.uuid(),
        policy.name,
        policy.description,
        policy.platform.as_str(),
        policy.kind,
        policy.enabled,
        policy.configuration.to_json(),
        policy.updated_at
    )
    .fetch_optional(conn)
    .await?;
    version.ok_or(StoreError::NotOneRow {
        table: "policies",
        changed: 0,
    })
}

/// Deletes a locked policy that is assigned to nobody any more, with what devices said of it.
pub async fn delete(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: PolicyId,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "DELETE FROM policies WHERE organization_id = $1 AND id = $2",
        organization.uuid(),
        id.uuid()
    )
    .execute(conn)
    .await?;
    one_row("policies", done.rows_affected())
}
