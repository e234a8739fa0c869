//! Device groups.

use mdm_core::{
    Timestamp,
    devices::Labels,
    groups::{DeviceGroup, GroupFilters},
    ids::{DeviceId, GroupId, OrganizationId},
};
use sqlx::{PgConnection, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use crate::{
    error::{StoreError, one_row},
    lists::{ListPage, ListRequest, SortColumn, SortKind, Sorting, Source, Total, contains},
};

mod members;

pub use members::{
    Membership, add_by_filter, add_by_hand, all_members, memberships, of_device, remove_all_of,
    remove_by_filter, remove_by_hand,
};

#[derive(sqlx::FromRow)]
struct GroupRow {
    organization_id: Uuid,
    id: Uuid,
    name: String,
    description: Option<String>,
    filters: Option<Json<GroupFilters>>,
    labels: Json<Labels>,
    stale_after: Option<Uuid>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    device_count: i64,
}

impl From<GroupRow> for DeviceGroup {
    fn from(row: GroupRow) -> Self {
        Self {
            id: GroupId::from_uuid(row.id),
            organization_id: OrganizationId::from_uuid(row.organization_id),
            name: row.name,
            description: row.description,
            filters: row.filters.map(|filters| filters.0),
            labels: row.labels.0,
            device_count: row.device_count,
            up_to_date: row.stale_after.is_none(),
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// What groups can be sorted by.
pub const SORTING: Sorting = Sorting {
    columns: &[
        SortColumn {
            name: "id",
            sql: "g.id",
            kind: SortKind::Id,
        },
        SortColumn {
            name: "name",
            sql: "g.name",
            kind: SortKind::Text,
        },
        SortColumn {
            name: "created_at",
            sql: "g.created_at",
            kind: SortKind::Timestamp,
        },
        SortColumn {
            name: "updated_at",
            sql: "g.updated_at",
            kind: SortKind::Timestamp,
        },
    ],
    newest_first: false,
};

const SOURCE: Source = Source {
    columns: "g.organization_id, g.id, g.name, g.description, g.filters, g.labels, g.stale_after, g.version, \
              g.created_at, g.updated_at, \
              (SELECT count(*) FROM group_members m WHERE m.organization_id = g.organization_id \
               AND m.group_id = g.id) AS device_count",
    from: "device_groups g",
    organization: "g.organization_id",
    id: "g.id",
    plan_each: false,
};

/// Which groups a list shows.
#[derive(Debug, Clone, Default)]
pub struct GroupFilter {
    /// With this text in the name.
    pub search: Option<String>,
    /// With this device as a member.
    pub device: Option<DeviceId>,
}

impl GroupFilter {
    fn narrow(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(search) = &self.search {
            query
                .push(" AND lower(g.name) LIKE ")
                .push_bind(contains(search));
        }
        if let Some(device) = self.device {
            query
                .push(
                    " AND g.id IN (SELECT m.group_id FROM group_members m \
                     WHERE m.organization_id = g.organization_id AND m.device_id = ",
                )
                .push_bind(device.uuid())
                .push(")");
        }
    }
}

/// A page of the organisation's groups.
pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &GroupFilter,
    request: &ListRequest,
) -> Result<ListPage<DeviceGroup>, StoreError> {
    let page: ListPage<GroupRow> = SOURCE
        .page(conn, organization, request, &|query| filter.narrow(query))
        .await?;
    Ok(page.map(DeviceGroup::from))
}

/// How many groups there are.
pub async fn total(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &GroupFilter,
) -> Result<Total, StoreError> {
    SOURCE
        .total(conn, organization, &|query| filter.narrow(query))
        .await
}

/// Finds a group of the organisation.
pub async fn find(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: GroupId,
) -> Result<Option<DeviceGroup>, StoreError> {
    let row = sqlx::query_as!(
        GroupRow,
        r#"
        SELECT g.organization_id,
               g.id,
               g.name,
               g.description,
               g.filters AS "filters: Json<GroupFilters>",
               g.labels AS "labels: Json<Labels>",
               g.stale_after,
               g.version,
               g.created_at,
               g.updated_at,
               (SELECT count(*)
                  FROM group_members m
                 WHERE m.organization_id = g.organization_id
                   AND m.group_id = g.id) AS "device_count!"
          FROM device_groups g
         WHERE g.organization_id = $1
           AND g.id = $2
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(DeviceGroup::from))
}

/// Finds a group and locks its row: against other changes of the group, not against new members.
/// Does not count the members.
pub async fn lock(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: GroupId,
) -> Result<Option<DeviceGroup>, StoreError> {
    let row = sqlx::query_as!(
        GroupRow,
        r#"
        SELECT organization_id,
               id,
               name,
               description,
               filters AS "filters: Json<GroupFilters>",
               labels AS "labels: Json<Labels>",
               stale_after,
               version,
               created_at,
               updated_at,
               0::bigint AS "device_count!"
          FROM device_groups
         WHERE organization_id = $1
           AND id = $2
           FOR NO KEY UPDATE
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(DeviceGroup::from))
}

/// Locks a group against everything, new members too; `false` if it is not there.
pub async fn lock_whole(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: GroupId,
) -> Result<bool, StoreError> {
    let row = sqlx::query_scalar!(
        r#"SELECT id FROM device_groups WHERE organization_id = $1 AND id = $2 FOR UPDATE"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

/// Keeps those of the groups that are there from being deleted until the transaction ends, and
/// says which.
pub async fn hold(
    conn: &mut PgConnection,
    organization: OrganizationId,
    ids: &[GroupId],
) -> Result<Vec<GroupId>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let held = sqlx::query_scalar!(
        r#"
        SELECT id
          FROM device_groups
         WHERE organization_id = $1
           AND id = ANY ($2)
         ORDER BY id
           FOR KEY SHARE
        "#,
        organization.uuid(),
        &ids
    )
    .fetch_all(conn)
    .await?;
    Ok(held.into_iter().map(GroupId::from_uuid).collect())
}

/// Adds a group. With filters, every device is still to be looked at.
pub async fn insert(conn: &mut PgConnection, group: &DeviceGroup) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO device_groups
               (organization_id, id, name, description, filters, labels, stale_after, version, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        "#,
        group.organization_id.uuid(),
        group.id.uuid(),
        group.name,
        group.description,
        group.filters.as_ref().map(Json) as _,
        Json(&group.labels) as _,
        group.filters.as_ref().map(|_| Uuid::nil()),
        group.version,
        group.created_at,
        group.updated_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes a locked group and counts the change. With `filters_changed`, every device is to be
/// looked at anew.
pub async fn update(
    conn: &mut PgConnection,
    group: &DeviceGroup,
    filters_changed: bool,
) -> Result<i64, StoreError> {
    let version = sqlx::query_scalar!(
        r#"
        UPDATE device_groups
           SET name = $3,
               description = $4,
               filters = $5,
               labels = $6,
               stale_after = CASE WHEN $7 THEN '00000000-0000-0000-0000-000000000000' ELSE stale_after END,
               updated_at = $8,
               version = version + 1
         WHERE organization_id = $1
           AND id = $2
     RETURNING version
        "#,
        group.organization_id.uuid(),
        group.id.uuid(),
        group.name,
        group.description,
        group.filters.as_ref().map(Json) as _,
        Json(&group.labels) as _,
        filters_changed,
        group.updated_at
    )
    .fetch_optional(conn)
    .await?;
    version.ok_or(StoreError::NotOneRow {
        table: "device_groups",
        changed: 0,
    })
}

/// Deletes a group that is locked whole, and its memberships with it.
pub async fn delete(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: GroupId,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "DELETE FROM device_groups WHERE organization_id = $1 AND id = $2",
        organization.uuid(),
        id.uuid()
    )
    .execute(conn)
    .await?;
    one_row("device_groups", done.rows_affected())
}

/// The groups of the organisation that have filters.
pub async fn with_filters(
    conn: &mut PgConnection,
    organization: OrganizationId,
) -> Result<Vec<(GroupId, GroupFilters)>, StoreError> {
    let rows = sqlx::query!(
        r#"
        SELECT id,
               filters AS "filters!: Json<GroupFilters>"
          FROM device_groups
         WHERE organization_id = $1
           AND filters IS NOT NULL
        "#,
        organization.uuid()
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (GroupId::from_uuid(row.id), row.filters.0))
        .collect())
}

/// Groups of any organisation whose memberships by filter are not up to date, at most `limit`.
pub async fn stale(
    conn: &mut PgConnection,
    limit: i64,
) -> Result<Vec<(OrganizationId, GroupId)>, StoreError> {
    let rows = sqlx::query!(
        "SELECT organization_id, id FROM device_groups WHERE stale_after IS NOT NULL LIMIT $1",
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            (
                OrganizationId::from_uuid(row.organization_id),
                GroupId::from_uuid(row.id),
            )
        })
        .collect())
}

/// Up to which device a locked group has been looked at; `None` if it is up to date.
pub async fn stale_after(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: GroupId,
) -> Result<Option<Uuid>, StoreError> {
    let row = sqlx::query_scalar!(
        "SELECT stale_after FROM device_groups WHERE organization_id = $1 AND id = $2",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.flatten())
}

/// Notes up to which device a locked group has been looked at; `None`: all of them.
pub async fn set_stale_after(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: GroupId,
    after: Option<Uuid>,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "UPDATE device_groups SET stale_after = $3 WHERE organization_id = $1 AND id = $2",
        organization.uuid(),
        id.uuid(),
        after
    )
    .execute(conn)
    .await?;
    one_row("device_groups", done.rows_affected())
}
