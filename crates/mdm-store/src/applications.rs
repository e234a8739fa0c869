//! Applications, and where they stand on devices.

use mdm_core::{
    Timestamp,
    applications::{Application, Install, InstallState, Intent},
    devices::Platform,
    ids::{ApplicationId, CommandId, DeviceId, OrganizationId},
};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use crate::{
    error::{StoreError, one_row},
    lists::{ListPage, ListRequest, SortColumn, SortKind, Sorting, Source, Total, contains},
};

#[derive(sqlx::FromRow)]
struct ApplicationRow {
    organization_id: Uuid,
    id: Uuid,
    name: String,
    app_version: String,
    platform: String,
    description: Option<String>,
    file_name: String,
    size: i64,
    checksum: String,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl TryFrom<ApplicationRow> for Application {
    type Error = StoreError;

    fn try_from(row: ApplicationRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: ApplicationId::from_uuid(row.id),
            organization_id: OrganizationId::from_uuid(row.organization_id),
            name: row.name,
            app_version: row.app_version,
            platform: row
                .platform
                .parse()
                .map_err(|_unknown| StoreError::corrupt("applications", "platform", row.id))?,
            description: row.description,
            file_name: row.file_name,
            size: row.size,
            checksum: row.checksum,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// What applications can be sorted by.
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
            name: "version",
            sql: "app_version",
            kind: SortKind::Text,
        },
        SortColumn {
            name: "platform",
            sql: "platform",
            kind: SortKind::Text,
        },
        SortColumn {
            name: "size",
            sql: "size",
            kind: SortKind::Number,
        },
        SortColumn {
            name: "created_at",
            sql: "created_at",
            kind: SortKind::Timestamp,
        },
    ],
    newest_first: false,
};

const SOURCE: Source = Source {
    columns: "organization_id, id, name, app_version, platform, description, file_name, size, checksum, version, \
              created_at, updated_at",
    from: "applications",
    organization: "organization_id",
    id: "id",
    plan_each: false,
};

/// Which applications a list shows.
#[derive(Debug, Clone, Default)]
pub struct ApplicationFilter {
    /// For this platform.
    pub platform: Option<Platform>,
    /// With this text in the name.
    pub search: Option<String>,
}

impl ApplicationFilter {
    fn narrow(&self, query: &mut QueryBuilder<Postgres>) {
        if let Some(platform) = self.platform {
            query.push(" AND platform = ").push_bind(platform.as_str());
        }
        if let Some(search) = &self.search {
            query
                .push(" AND lower(name) LIKE ")
                .push_bind(contains(search));
        }
    }
}

/// A page of the organisation's applications.
pub async fn list(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &ApplicationFilter,
    request: &ListRequest,
) -> Result<ListPage<Application>, StoreError> {
    let page: ListPage<ApplicationRow> = SOURCE
        .page(conn, organization, request, &|query| filter.narrow(query))
        .await?;
    page.try_map(Application::try_from)
}

/// How many applications there are.
pub async fn total(
    conn: &mut PgConnection,
    organization: OrganizationId,
    filter: &ApplicationFilter,
) -> Result<Total, StoreError> {
    SOURCE
        .total(conn, organization, &|query| filter.narrow(query))
        .await
}

/// Finds an application of the organisation.
pub async fn find(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: ApplicationId,
) -> Result<Option<Application>, StoreError> {
    let row = sqlx::query_as!(
        ApplicationRow,
        r#"
        SELECT organization_id,
               id,
               name,
               app_version,
               platform,
               description,
               file_name,
               size,
               checksum,
               version,
               created_at,
               updated_at
          FROM applications
         WHERE organization_id = $1
           AND id = $2
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    row.map(Application::try_from).transpose()
}

/// Finds an application and locks it, whole: nobody changes, assigns or deletes it until the
/// transaction ends.
pub async fn lock(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: ApplicationId,
) -> Result<Option<Application>, StoreError> {
    let row = sqlx::query_as!(
        ApplicationRow,
        r#"
        SELECT organization_id,
               id,
               name,
               app_version,
               platform,
               description,
               file_name,
               size,
               checksum,
               version,
               created_at,
               updated_at
          FROM applications
         WHERE organization_id = $1
           AND id = $2
           FOR UPDATE
        "#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(conn)
    .await?;
    row.map(Application::try_from).transpose()
}

/// Adds an application.
pub async fn insert(conn: &mut PgConnection, application: &Application) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        INSERT INTO applications
               (organization_id, id, name, app_version, platform, description, file_name, size, checksum, version,
                created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        "#,
        application.organization_id.uuid(),
        application.id.uuid(),
        application.name,
        application.app_version,
        application.platform.as_str(),
        application.description,
        application.file_name,
        application.size,
        application.checksum,
        application.version,
        application.created_at,
        application.updated_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what may change of a locked application, and counts the change.
pub async fn update(conn: &mut PgConnection, application: &Application) -> Result<i64, StoreError> {
    let version = sqlx::query_scalar!(
        r#"
        UPDATE applications
           SET name = $3,
               app_version = $4,
               description = $5,
               updated_at = $6,
               version = version + 1
         WHERE organization_id = $1
           AND id = $2
     RETURNING version
        "#,
        application.organization_id.uuid(),
        application.id.uuid(),
        application.name,
        application.app_version,
        application.description,
        application.updated_at
    )
    .fetch_optional(conn)
    .await?;
    version.ok_or(StoreError::NotOneRow {
        table: "applications",
        changed: 0,
    })
}

/// Deletes a locked application that is assigned to nobody.
pub async fn delete(
    conn: &mut PgConnection,
    organization: OrganizationId,
    id: ApplicationId,
) -> Result<(), StoreError> {
    let done = sqlx::query!(
        "DELETE FROM applications WHERE organization_id = $1 AND id = $2",
        organization.uuid(),
        id.uuid()
    )
    .execute(conn)
    .await?;
    one_row("applications", done.rows_affected())
}

/// Those of the ids that are applications of any organisation: what a sweep of the storage keeps.
pub async fn known(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
    Ok(
        sqlx::query_scalar!("SELECT id FROM applications WHERE id = ANY ($1)", ids)
            .fetch_all(conn)
            .await?,
    )
}

/// An application that reaches a device, with what is wanted and what the device said.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The application.
    pub application: Application,
    /// What the assignments come to.
    pub intent: Intent,
    /// What the device said; none if it said nothing.
    pub state: Option<InstallState>,
}

/// The applications that reach a device, those for other platforms left out.
pub async fn wanted(
    conn: &mut PgConnection,
    organization: OrganizationId,
    device: DeviceId,
) -> Result<Vec<Wanted>, StoreError> {
    let rows = sqlx::query!(
        r#"
        WITH reached AS (
            SELECT ad.application_id, ad.intent
              FROM application_devices ad
             WHERE ad.organization_id = $1 AND ad.device_id = $2
             UNION ALL
            SELECT ag.application_id, ag.intent
              FROM group_members m
              JOIN application_groups ag ON ag.organization_id = m.organization_id AND ag.group_id = m.group_id
             WHERE m.organization_id = $1 AND m.device_id = $2
        )
        SELECT a.organization_id,
               a.id,
               a.name,
               a.app_version,
               a.platform,
               a.description,
               a.file_name,
               a.size,
               a.checksum,
               a.version,
               a.created_at,
               a.updated_at,
               array_agg(DISTINCT reached.intent) AS "intents!",
               max(i.state) AS state
          FROM reached
          JOIN applications a ON a.organization_id = $1 AND a.id = reached.application_id
          JOIN devices d ON d.organization_id = $1 AND d.id = $2 AND d.platform = a.platform
          LEFT JOIN application_installs i
            ON i.organization_id = $1 AND i.application_id = a.id AND i.device_id = $2
         GROUP BY a.organization_id, a.id
         ORDER BY a.id
        "#,
        organization.uuid(),
        device.uuid()
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let corrupt = |column| StoreError::corrupt("application_installs", column, row.id);
            let intents: Result<Vec<Intent>, _> =
                row.intents.iter().map(|text| text.parse()).collect();
            let intent = intents
                .map_err(|_unknown| corrupt("intent"))?
                .into_iter()
                .min()
                .ok_or_else(|| corrupt("intent"))?;
            let state = row.state.as_deref().map(str::parse).transpose();
            let state = state.map_err(|_unknown| corrupt("state"))?;
            let application = ApplicationRow {
                organization_id: row.organization_id,
                id: row.id,
                name: row.name,
                app_version: row.app_version,
                platform: row.platform,
                description: row.description,
                file_name: row.file_name,
                size: row.size,
                checksum: row.checksum,
                version: row.version,
                created_at: row.created_at,
                updated_at: row.updated_at,
            };
            Ok(Wanted {
                application: application.try_into()?,
                intent,
                state,
            })
        })
        .collect()
}

/// Takes over what a locked device said of an application. Passed over if the application is gone.
pub async fn record_install(
    conn: &mut PgConnection,
    organization: OrganizationId,
    install: &Install,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        INSERT INTO application_installs
               (organization_id, application_id, device_id, state, error, command_id, updated_at)
        SELECT $1, a.id, $3, $4, $5, $6, $7
          FROM applications a
         WHERE a.organization_id = $1
           AND a.id = $2
           FOR KEY SHARE
            ON CONFLICT (organization_id, application_id, device_id)
            DO UPDATE
                  SET state = excluded.state,
                      error = excluded.error,
                      command_id = excluded.command_id,
                      updated_at = excluded.updated_at
        "#,
        organization.uuid(),
        install.application_id.uuid(),
        install.device_id.uuid(),
        install.state.as_str(),
        install.error,
        install.command_id.map(CommandId::uuid),
        install.updated_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends what a command had begun: `false` if the device had not said that it is at it.
pub async fn fail_install(
    conn: &mut PgConnection,
    organization: OrganizationId,
    install: &Install,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        r#"
        UPDATE application_installs
           SET state = 'failed',
               error = $5,
               updated_at = $6
         WHERE organization_id = $1
           AND application_id = $2
           AND device_id = $3
           AND command_id = $4
           AND state IN ('installing', 'uninstalling')
        "#,
        organization.uuid(),
        install.application_id.uuid(),
        install.device_id.uuid(),
        install.command_id.map(CommandId::uuid),
        install.error,
        install.updated_at
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Where an application stands on a device, with the device's name and what is wanted.
#[derive(Debug, Clone)]
pub struct InstallOnDevice {
    /// Where it stands.
    pub install: Install,
    /// The device's name.
    pub hostname: String,
    /// What is wanted; none if nothing is any more.
    pub intent: Option<Intent>,
}

/// The devices that an application reaches or is on, in the order of their ids.
pub async fn installs(
    conn: &mut PgConnection,
    organization: OrganizationId,
    application: ApplicationId,
    state: Option<InstallState>,
    after: Uuid,
    limit: i64,
    offset: i64,
) -> Result<Vec<InstallOnDevice>, StoreError> {
    let rows = sqlx::query!(
        r#"
        WITH reached AS (
            SELECT ad.device_id, ad.intent
              FROM application_devices ad
             WHERE ad.organization_id = $1 AND ad.application_id = $2
             UNION ALL
            SELECT m.device_id, ag.intent
              FROM application_groups ag
              JOIN group_members m ON m.organization_id = ag.organization_id AND m.group_id = ag.group_id
             WHERE ag.organization_id = $1 AND ag.application_id = $2
             UNION ALL
            SELECT i.device_id, NULL
              FROM application_installs i
             WHERE i.organization_id = $1 AND i.application_id = $2
        ), wanted AS (
            SELECT device_id, array_remove(array_agg(DISTINCT intent), NULL) AS intents
              FROM reached
             GROUP BY device_id
        )
        SELECT d.id,
               d.hostname,
               w.intents AS "intents!",
               coalesce(i.state, 'pending') AS "state!",
               i.error AS "error?",
               i.command_id AS "command_id?",
               i.updated_at AS "updated_at?"
          FROM wanted w
          JOIN devices d ON d.organization_id = $1 AND d.id = w.device_id
          JOIN applications a ON a.organization_id = $1 AND a.id = $2 AND a.platform = d.platform
          LEFT JOIN application_installs i
            ON i.organization_id = $1 AND i.application_id = $2 AND i.device_id = d.id
         WHERE d.id > $3
           AND ($4::text IS NULL OR coalesce(i.state, 'pending') = $4)
         ORDER BY d.id
         LIMIT $5
        OFFSET $6
        "#,
        organization.uuid(),
        application.uuid(),
        after,
        state.map(InstallState::as_str),
        limit,
        offset
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let corrupt = |column| StoreError::corrupt("application_installs", column, row.id);
            let intents: Result<Vec<Intent>, _> =
                row.intents.iter().map(|text| text.parse()).collect();
            Ok(InstallOnDevice {
                install: Install {
                    application_id: application,
                    device_id: DeviceId::from_uuid(row.id),
                    state: row.state.parse().map_err(|_unknown| corrupt("state"))?,
                    error: row.error,
                    command_id: row.command_id.map(CommandId::from_uuid),
                    updated_at: row.updated_at,
                },
                hostname: row.hostname,
                intent: intents
                    .map_err(|_unknown| corrupt("intent"))?
                    .into_iter()
                    .min(),
            })
        })
        .collect()
}

/// How many devices an application reaches or is on, in a state if one is named.
pub async fn count_installs(
    conn: &mut PgConnection,
    organization: OrganizationId,
    application: ApplicationId,
    state: Option<InstallState>,
) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"
        WITH reached AS (
            SELECT ad.device_id
              FROM application_devices ad
             WHERE ad.organization_id = $1 AND ad.application_id = $2
             UNION
            SELECT m.device_id
              FROM application_groups ag
              JOIN group_members m ON m.organization_id = ag.organization_id AND m.group_id = ag.group_id
             WHERE ag.organization_id = $1 AND ag.application_id = $2
             UNION
            SELECT i.device_id
              FROM application_installs i
             WHERE i.organization_id = $1 AND i.application_id = $2
        )
        SELECT count(*) AS "count!"
          FROM reached
          JOIN devices d ON d.organization_id = $1 AND d.id = reached.device_id
          JOIN applications a ON a.organization_id = $1 AND a.id = $2 AND a.platform = d.platform
          LEFT JOIN application_installs i
            ON i.organization_id = $1 AND i.application_id = $2 AND i.device_id = d.id
         WHERE $3::text IS NULL OR coalesce(i.state, 'pending') = $3
        "#,
        organization.uuid(),
        application.uuid(),
        state.map(InstallState::as_str)
    )
    .fetch_one(conn)
    .await?)
}
