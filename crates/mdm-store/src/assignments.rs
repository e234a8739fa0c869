//! To whom policies and applications are assigned. Both have the same two tables, one for devices
//! and one for groups.
//!
//! Whoever assigns to devices holds the locks of their rows; whoever assigns at all holds the
//! policy or the application, so that it is not deleted meanwhile.

use mdm_core::{
    Timestamp,
    applications::Intent,
    ids::{ApplicationId, DeviceId, GroupId, OrganizationId, PolicyId},
};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::{
    error::StoreError,
    lists::{ListPage, ListRequest, SortColumn, SortKind, Sorting, Source, Total},
};

/// What is assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assigned {
    /// A policy.
    Policy(PolicyId),
    /// An application.
    Application(ApplicationId),
}

/// To what kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    /// Devices.
    Devices,
    /// Groups.
    Groups,
}

/// An assignment.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The device's or the group's id.
    pub target: Uuid,
    /// The device's hostname or the group's name.
    pub name: String,
    /// What is wanted of an application.
    pub intent: Option<Intent>,
    /// Since when.
    pub assigned_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct AssignmentRow {
    id: Uuid,
    name: String,
    intent: Option<String>,
    assigned_at: Timestamp,
}

macro_rules! sorting {
    ($name:literal) => {
        Sorting {
            columns: &[
                SortColumn {
                    name: "id",
                    sql: "t.id",
                    kind: SortKind::Id,
                },
                SortColumn {
                    name: "name",
                    sql: $name,
                    kind: SortKind::Text,
                },
                SortColumn {
                    name: "assigned_at",
                    sql: "a.assigned_at",
                    kind: SortKind::Timestamp,
                },
            ],
            newest_first: false,
        }
    };
}

/// What assignments to devices can be sorted by.
pub const DEVICE_SORTING: Sorting = sorting!("t.hostname");
/// What assignments to groups can be sorted by.
pub const GROUP_SORTING: Sorting = sorting!("t.name");

impl Assigned {
    const fn id(self) -> Uuid {
        match self {
            Self::Policy(id) => id.uuid(),
            Self::Application(id) => id.uuid(),
        }
    }

    const fn source(self, targets: Targets) -> Source {
        let (columns, from) = match (self, targets) {
            (Self::Policy(_), Targets::Devices) => (
                "t.id, t.hostname AS name, NULL AS intent, a.assigned_at",
                "policy_devices a JOIN devices t ON t.organization_id = a.organization_id AND t.id = a.device_id",
            ),
            (Self::Policy(_), Targets::Groups) => (
                "t.id, t.name, NULL AS intent, a.assigned_at",
                "policy_groups a JOIN device_groups t ON t.organization_id = a.organization_id AND t.id = a.group_id",
            ),
            (Self::Application(_), Targets::Devices) => (
                "t.id, t.hostname AS name, a.intent, a.assigned_at",
                "application_devices a JOIN devices t ON t.organization_id = a.organization_id AND t.id = a.device_id",
            ),
            (Self::Application(_), Targets::Groups) => (
                "t.id, t.name, a.intent, a.assigned_at",
                "application_groups a JOIN device_groups t \
                 ON t.organization_id = a.organization_id AND t.id = a.group_id",
            ),
        };
        Source {
            columns,
            from,
            organization: "a.organization_id",
            id: "t.id",
            plan_each: false,
        }
    }

    fn narrow(self, query: &mut QueryBuilder<Postgres>) {
        let column = match self {
            Self::Policy(_) => " AND a.policy_id = ",
            Self::Application(_) => " AND a.application_id = ",
        };
        query.push(column).push_bind(self.id());
    }
}

/// A page of the devices or groups that something is assigned to.
pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    assigned: Assigned,
    targets: Targets,
    request: &ListRequest,
) -> Result<ListPage<Assignment>, StoreError> {
    let page: ListPage<AssignmentRow> = assigned
        .source(targets)
        .page(conn, organization, request, &|query| assigned.narrow(query))
        .await?;
    page.try_map(|row| {
        let intent = row.intent.map(|text| text.parse()).transpose();
        Ok(Assignment {
            target: row.id,
            name: row.name,
            intent: intent
                .map_err(|_unknown| StoreError::corrupt("assignments", "intent", row.id))?,
            assigned_at: row.assigned_at,
        })
    })
}

/// How many there are.
pub async fn total(
    conn: &mut PgConnection,
    organization: OrganizationId,
    assigned: Assigned,
    targets: Targets,
) -> Result<Total, StoreError> {
    assigned
        .source(targets)
        .total(conn, organization, &|query| assigned.narrow(query))
        .await
}

/// Assigns a policy to devices and gives those that did not have it.
pub async fn policy_to_devices(
    conn: &mut PgConnection,
    organization: OrganizationId,
    policy: PolicyId,
    devices: &[DeviceId],
    now: Timestamp,
) -> Result<Vec<DeviceId>, StoreError> {
    let ids: Vec<Uuid> = devices.iter().map(|id| id.uuid()).collect();
    let new = sqlx::query_scalar!(
        r#"
        INSERT INTO policy_devices (organization_id, policy_id, device_id, assigned_at)
        SELECT $1, $2, unnest($3::uuid[]), $4
            ON CONFLICT DO NOTHING
     RETURNING device_id
        "#,
        organization.uuid(),
        policy.uuid(),
        &ids,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(new.into_iter().map(DeviceId::from_uuid).collect())
}

/// Assigns a policy to groups and gives those that did not have it.
pub async fn policy_to_groups(
    conn: &mut PgConnection,
    organization: OrganizationId,
    policy: PolicyId,
    groups: &[GroupId],
    now: Timestamp,
) -> Result<Vec<GroupId>, StoreError> {
    let ids: Vec<Uuid> = groups.iter().map(|id| id.uuid()).collect();
    let new = sqlx::query_scalar!(
        r#"
        INSERT INTO policy_groups (organization_id, policy_id, group_id, assigned_at)
        SELECT $1, $2, unnest($3::uuid[]), $4
            ON CONFLICT DO NOTHING
     RETURNING group_id
        "#,
        organization.uuid(),
        policy.uuid(),
        &ids,
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(new.into_iter().map(GroupId::from_uuid).collect())
}

/// Assigns an application to devices, or changes what is wanted; gives those for which anything
/// changed.
pub async fn application_to_devices(
    conn: &mut PgConnection,
    organization: OrganizationId,
    application: ApplicationId,
    devices: &[DeviceId],
    intent: Intent,
    now: Timestamp,
) -> Result<Vec<DeviceId>, StoreError> {
    let ids: Vec<Uuid> = devices.iter().map(|id| id.uuid()).collect();
    let new = sqlx::query_scalar!(
        r#"
        INSERT INTO application_devices AS present (organization_id, application_id, device_id, intent, assigned_at)
        SELECT $1, $2, unnest($3::uuid[]), $4, $5
            ON CONFLICT (organization_id, application_id, device_id)
            DO UPDATE SET intent = excluded.intent WHERE present.intent <> excluded.intent
     RETURNING device_id
        "#,
        organization.uuid(),
        application.uuid(),
        &ids,
        intent.as_str(),
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(new.into_iter().map(DeviceId::from_uuid).collect())
}

/// Assigns an application to groups, or changes what is wanted; gives those for which anything
/// changed.
pub async fn application_to_groups(
    conn: &mut PgConnection,
    organization: OrganizationId,
    application: ApplicationId,
    groups: &[GroupId],
    intent: Intent,
    now: Timestamp,
) -> Result<Vec<GroupId>, StoreError> {
    let ids: Vec<Uuid> = groups.iter().map(|id| id.uuid()).collect();
    let new = sqlx::query_scalar!(
        r#"
        INSERT INTO application_groups AS present (organization_id, application_id, group_id, intent, assigned_at)
        SELECT $1, $2, unnest($3::uuid[]), $4, $5
            ON CONFLICT (organization_id, application_id, group_id)
            DO UPDATE SET intent = excluded.intent WHERE present.intent <> excluded.intent
     RETURNING group_id
        "#,
        organization.uuid(),
        application.uuid(),
        &ids,
        intent.as_str(),
        now
    )
    .fetch_all(conn)
    .await?;
    Ok(new.into_iter().map(GroupId::from_uuid).collect())
}

/// Takes something away from a device; `false` if it did not have it.
pub async fn unassign_device(
    conn: &mut PgConnection,
    organization: OrganizationId,
    assigned: Assigned,
    device: DeviceId,
) -> Result<bool, StoreError> {
    let done = match assigned {
        Assigned::Policy(policy) => {
            sqlx::query!(
                "DELETE FROM policy_devices WHERE organization_id = $1 AND policy_id = $2 AND device_id = $3",
                organization.uuid(),
                policy.uuid(),
                device.uuid()
            )
            .execute(conn)
            .await?
        }
        Assigned::Application(application) => {
            sqlx::query!(
                "DELETE FROM application_devices WHERE organization_id = $1 AND application_id = $2 AND device_id = $3",
                organization.uuid(),
                application.uuid(),
                device.uuid()
            )
            .execute(conn)
            .await?
        }
    };
    Ok(done.rows_affected() == 1)
}

/// Takes something away from a group; `false` if it did not have it.
pub async fn unassign_group(
    conn: &mut PgConnection,
    organization: OrganizationId,
    assigned: Assigned,
    group: GroupId,
) -> Result<bool, StoreError> {
    let done = match assigned {
        Assigned::Policy(policy) => {
            sqlx::query!(
                "DELETE FROM policy_groups WHERE organization_id = $1 AND policy_id = $2 AND group_id = $3",
                organization.uuid(),
                policy.uuid(),
                group.uuid()
            )
            .execute(conn)
            .await?
        }
        Assigned::Application(application) => {
            sqlx::query!(
                "DELETE FROM application_groups WHERE organization_id = $1 AND application_id = $2 AND group_id = $3",
                organization.uuid(),
                application.uuid(),
                group.uuid()
            )
            .execute(conn)
            .await?
        }
    };
    Ok(done.rows_affected() == 1)
}

/// Takes everything away from a device and says what.
pub async fn unassign_all_of_device(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
) -> Result<Vec<Assigned>, StoreError> {
    let policies = sqlx::query_scalar!(
        "DELETE FROM policy_devices WHERE organization_id = $1 AND device_id = $2 RETURNING policy_id",
        organization.uuid(),
        device.uuid()
    )
    .fetch_all(&mut *conn)
    .await?;
    let applications = sqlx::query_scalar!(
        "DELETE FROM application_devices WHERE organization_id = $1 AND device_id = $2 RETURNING application_id",
        organization.uuid(),
        device.uuid()
    )
    .fetch_all(conn)
    .await?;
    Ok(both(policies, applications))
}

/// Takes everything away from a group and says what.
pub async fn unassign_all_of_group(
    conn: &mut PgConnection,
    organization: OrganizationId,
    group: GroupId,
) -> Result<Vec<Assigned>, StoreError> {
    let policies = sqlx::query_scalar!(
        "DELETE FROM policy_groups WHERE organization_id = $1 AND group_id = $2 RETURNING policy_id",
        organization.uuid(),
        group.uuid()
    )
    .fetch_all(&mut *conn)
    .await?;
    let applications = sqlx::query_scalar!(
        "DELETE FROM application_groups WHERE organization_id = $1 AND group_id = $2 RETURNING application_id",
        organization.uuid(),
        group.uuid()
    )
    .fetch_all(conn)
    .await?;
    Ok(both(policies, applications))
}

fn both(policies: Vec<Uuid>, applications: Vec<Uuid>) -> Vec<Assigned> {
    let policies = policies
        .into_iter()
        .map(|id| Assigned::Policy(PolicyId::from_uuid(id)));
    let applications = applications
        .into_iter()
        .map(|id| Assigned::Application(ApplicationId::from_uuid(id)));
    policies.chain(applications).collect()
}

/// Takes a policy away from everybody and says from whom.
pub async fn unassign_policy(
    conn: &mut PgConnection,
    organization: OrganizationId,
    policy: PolicyId,
) -> Result<(Vec<DeviceId>, Vec<GroupId>), StoreError> {
    let devices = sqlx::query_scalar!(
        "DELETE FROM policy_devices WHERE organization_id = $1 AND policy_id = $2 RETURNING device_id",
        organization.uuid(),
        policy.uuid()
    )
    .fetch_all(&mut *conn)
    .await?;
    let groups = sqlx::query_scalar!(
        "DELETE FROM policy_groups WHERE organization_id = $1 AND policy_id = $2 RETURNING group_id",
        organization.uuid(),
        policy.uuid()
    )
    .fetch_all(conn)
    .await?;
    Ok((
        devices.into_iter().map(DeviceId::from_uuid).collect(),
        groups.into_iter().map(GroupId::from_uuid).collect(),
    ))
}

/// Whether an application is assigned to anybody.
pub async fn is_application_assigned(
    conn: &mut PgConnection,
    organization: OrganizationId,
    application: ApplicationId,
) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"
        SELECT EXISTS (SELECT 1 FROM application_devices WHERE organization_id = $1 AND application_id = $2)
            OR EXISTS (SELECT 1 FROM application_groups WHERE organization_id = $1 AND application_id = $2)
               AS "assigned!"
        "#,
        organization.uuid(),
        application.uuid()
    )
    .fetch_one(conn)
    .await?)
}
