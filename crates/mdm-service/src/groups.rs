//! Device groups: members by hand and by filters.

use mdm_core::{
    Invalid,
    devices::{Device, DeviceStatus, Labels},
    events::{AssignmentAction, EventData, MembershipAction, MembershipSource, NewEvent},
    groups::{DeviceGroup, GroupFilters},
    ids::{DeviceId, GroupId, OrganizationId},
    invalid,
    roles::Permission,
};
use mdm_store::{
    StoreError,
    assignments::{self, Assigned},
    devices::{self, DeviceRef},
    events, groups,
    groups::GroupFilter,
    lists::ListRequest,
};
use serde_json::Value;

use crate::{
    context::{Forbidden, OpContext},
    devices::DeviceError,
    lists::Listed,
    services::Services,
};

mod filters;

pub(crate) use filters::Changed;

/// How many devices can be added at once.
pub const ADDED_AT_ONCE: usize = 1_000;

/// Why something about a group was not done.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The caller may not.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// A field is not acceptable.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The organisation has no such group.
    #[error("there is no such device group")]
    NotFound,
    /// The device is not there, or cannot be a member.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device is a member by hand already.
    #[error("the device is a member of this group already")]
    AlreadyMember,
    /// The device is no member.
    #[error("the device is not a member of this group")]
    NotMember,
    /// The group's filters admit the device.
    #[error(
        "the group's filters admit this device: it cannot be taken out by hand. Change the filters, or what they look at"
    )]
    MemberByFilter,
    /// `If-Match` names another version than the present one.
    #[error("the group was changed in the meantime: read it again and repeat the change")]
    Stale,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A wish for a new group.
#[derive(Debug, Default)]
pub struct NewGroup {
    /// What people call it.
    pub name: String,
    /// What people say of it.
    pub description: Option<String>,
    /// Which devices are members by themselves.
    pub filters: Option<Value>,
    /// Its labels.
    pub labels: Labels,
}

/// The fields to change; `None` leaves a field as it is.
#[derive(Debug, Default)]
pub struct GroupChange {
    /// A new name.
    pub name: Option<String>,
    /// A new description, or none.
    pub description: Option<Option<String>>,
    /// New filters, or none.
    pub filters: Option<Option<Value>>,
    /// All labels anew.
    pub labels: Option<Labels>,
    /// The version that the caller saw, from `If-Match`.
    pub if_version: Option<i64>,
}

impl Services {
    /// Makes a group. With filters, all devices are looked at before this returns, unless that
    /// takes long: then the rest follows in the background.
    pub async fn create_group(
        &self,
        ctx: &OpContext,
        new: NewGroup,
    ) -> Result<DeviceGroup, GroupError> {
        ctx.require(Permission::WriteGroups)?;
        let now = self.now();
        let group = DeviceGroup {
            id: GroupId::new(self.clock.as_ref(), self.entropy.as_ref()),
            organization_id: ctx.organization_id,
            name: invalid::text("/name", &new.name, 200)?,
            description: parse_description(new.description)?,
            filters: parse_filters(new.filters.as_ref())?,
            labels: new.labels,
            device_count: 0,
            up_to_date: true,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let mut tx = self.begin().await?;
        groups::insert(&mut tx, &group).await?;
        self.commit(tx).await?;
        if group.filters.is_none() {
            return Ok(group);
        }
        self.follow_group(group.organization_id, group.id).await?;
        self.get_group(ctx, group.id).await
    }

    /// A group of the organisation.
    pub async fn get_group(&self, ctx: &OpContext, id: GroupId) -> Result<DeviceGroup, GroupError> {
        ctx.require(Permission::ReadGroups)?;
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        groups::find(&mut conn, ctx.organization_id, id)
            .await?
            .ok_or(GroupError::NotFound)
    }

    /// A page of the organisation's groups.
    pub async fn list_groups(
        &self,
        ctx: &OpContext,
        search: Option<String>,
        device: Option<&DeviceRef>,
        request: &ListRequest,
    ) -> Result<Listed<DeviceGroup>, GroupError> {
        ctx.require(Permission::ReadGroups)?;
        let device = match device {
            Some(device) => Some(self.get_device(ctx, device).await?.id),
            None => None,
        };
        let filter = GroupFilter { search, device };
        let mut conn = self.pool.acquire().await.map_err(StoreError::from)?;
        let page = groups::list(&mut conn, ctx.organization_id, &filter, request).await?;
        let total = groups::total(&mut conn, ctx.organization_id, &filter).await?;
        Ok(Listed::new(page, total))
    }

    /// Changes a group. New filters take effect as in [`create_group`](Self::create_group).
    pub async fn update_group(
        &self,
        ctx: &OpContext,
        id: GroupId,
        change: GroupChange,
    ) -> Result<DeviceGroup, GroupError> {
        ctx.require(Permission::WriteGroups)?;
        let mut tx = self.begin().await?;
        let mut group = groups::lock(&mut tx, ctx.organization_id, id)
            .await?
            .ok_or(GroupError::NotFound)?;
        if change
            .if_version
            .is_some_and(|version| version != group.version)
        {
            return Err(GroupError::Stale);
        }
        if let Some(name) = change.name {
            group.name = invalid::text("/name", &name, 200)?;
        }
        if let Some(description) = change.description {
            group.description = parse_description(description)?;
        }
        let before = group.filters.clone();
        if let Some(filters) = change.filters {
            group.filters = parse_filters(filters.as_ref())?;
        }
        group.labels = change.labels.unwrap_or(group.labels);
        group.updated_at = self.now();
        let filters_changed = group.filters != before;
        groups::update(&mut tx, &group, filters_changed).await?;
        self.commit(tx).await?;
        if filters_changed {
            self.follow_group(group.organization_id, group.id).await?;
        }
        self.get_group(ctx, id).await
    }

    /// Deletes a group: its members leave it, and its policies and applications are taken away,
    /// each with its event.
    pub async fn delete_group(&self, ctx: &OpContext, id: GroupId) -> Result<(), GroupError> {
        ctx.require(Permission::WriteGroups)?;
        let (now, organization) = (self.now(), ctx.organization_id);
        let mut tx = self.begin().await?;
        if !groups::lock_whole(&mut tx, organization, id).await? {
            return Err(GroupError::NotFound);
        }
        let mut told = Vec::new();
        for assigned in assignments::unassign_all_of_group(&mut tx, organization, id).await? {
            told.push(
                self.group_unassigned(&mut tx, organization, id, assigned)
                    .await?,
            );
        }
        for member in groups::all_members(&mut tx, organization, id).await? {
            let source = if member.by_filter {
                MembershipSource::Filter
            } else {
                MembershipSource::Manual
            };
            told.push(membership(
                organization,
                id,
                member.device_id,
                MembershipAction::Removed,
                source,
            ));
        }
        groups::delete(&mut tx, organization, id).await?;
        devices::bump_all(&mut tx, organization).await?;
        events::append_all(&mut tx, now, &told).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// Puts devices into a group by hand, and says which were not members by hand before. One that
    /// is a member already is an error only if it is the only one that is named.
    pub async fn add_members(
        &self,
        ctx: &OpContext,
        id: GroupId,
        members: &[DeviceRef],
    ) -> Result<Vec<DeviceId>, GroupError> {
        ctx.require(Permission::WriteGroups)?;
        if members.is_empty() || members.len() > ADDED_AT_ONCE {
            let detail = format!("must name 1 to {ADDED_AT_ONCE} devices");
            return Err(Invalid::new("/device_ids", "WRONG_NUMBER", detail).into());
        }
        let organization = ctx.organization_id;
        let mut tx = self.begin().await?;
        let devices = self.lock_named(&mut tx, ctx, members).await?;
        if groups::hold(&mut tx, organization, &[id]).await?.is_empty() {
            return Err(GroupError::NotFound);
        }
        let rows: Vec<_> = devices.iter().map(|device| (id, device.id)).collect();
        let now = self.now();
        let added = groups::add_by_hand(&mut tx, organization, &rows, now).await?;
        if added.is_empty() && members.len() == 1 {
            return Err(GroupError::AlreadyMember);
        }
        let new: Vec<DeviceId> = added
            .iter()
            .filter(|(_, _, is_new)| *is_new)
            .map(|(_, device, _)| *device)
            .collect();
        let told: Vec<NewEvent> = new
            .iter()
            .map(|device| {
                membership(
                    organization,
                    id,
                    *device,
                    MembershipAction::Added,
                    MembershipSource::Manual,
                )
            })
            .collect();
        devices::bump_revisions(&mut tx, organization, &new).await?;
        events::append_all(&mut tx, now, &told).await?;
        self.commit(tx).await?;
        Ok(added.into_iter().map(|(_, device, _)| device).collect())
    }

    /// Takes a device out of a group.
    pub async fn remove_member(
        &self,
        ctx: &OpContext,
        id: GroupId,
        device: &DeviceRef,
    ) -> Result<(), GroupError> {
        ctx.require(Permission::WriteGroups)?;
        let organization = ctx.organization_id;
        let mut tx = self.begin().await?;
        let device = self.lock_device(&mut tx, ctx, device).await?;
        if groups::find(&mut tx, organization, id).await?.is_none() {
            return Err(GroupError::NotFound);
        }
        if !groups::remove_by_hand(&mut tx, organization, id, device.id).await? {
            let present = groups::memberships(&mut tx, organization, id, &[device.id]).await?;
            return Err(if present.is_empty() {
                GroupError::NotMember
            } else {
                GroupError::MemberByFilter
            });
        }
        let event = membership(
            organization,
            id,
            device.id,
            MembershipAction::Removed,
            MembershipSource::Manual,
        );
        devices::bump_revisions(&mut tx, organization, &[device.id]).await?;
        events::append(&mut tx, self.now(), &event).await?;
        self.commit(tx).await?;
        Ok(())
    }

    /// Finds and locks the devices that are named, all of which must be there and enrolled.
    pub(crate) async fn lock_named(
        &self,
        tx: &mut mdm_store::PgConnection,
        ctx: &OpContext,
        named: &[DeviceRef],
    ) -> Result<Vec<Device>, DeviceError> {
        let mut ids = Vec::with_capacity(named.len());
        // One by one only to say which is missing; found together when all are there.
        let found = devices::find_ids(&mut *tx, ctx.organization_id, named).await?;
        if found.len() == named.len() {
            ids = found;
        } else {
            for (index, device) in named.iter().enumerate() {
                let device = devices::find(&mut *tx, ctx.organization_id, device).await?;
                let missing = || match named.len() {
                    1 => DeviceError::NotFound,
                    _ => DeviceError::Invalid(Invalid::new(
                        format!("/device_ids/{index}"),
                        "DEVICE_NOT_FOUND",
                        "there is no such device",
                    )),
                };
                let id = device.ok_or_else(missing)?.id;
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        let locked = devices::lock_many(tx, ctx.organization_id, &ids).await?;
        if locked
            .iter()
            .any(|device| device.status == DeviceStatus::Unenrolled)
        {
            return Err(DeviceError::Unenrolled);
        }
        Ok(locked)
    }

    async fn group_unassigned(
        &self,
        tx: &mut mdm_store::PgConnection,
        organization: OrganizationId,
        group: GroupId,
        assigned: Assigned,
    ) -> Result<NewEvent, StoreError> {
        match assigned {
            Assigned::Policy(policy_id) => {
                let data = EventData::PolicyAssignment {
                    policy_id,
                    device_id: None,
                    group_id: Some(group),
                    action: AssignmentAction::Unassigned,
                };
                Ok(NewEvent::new(organization, data))
            }
            Assigned::Application(id) => {
                self.application_unassigned(tx, organization, id, None, Some(group))
                    .await
            }
        }
    }
}

/// The event of a device that entered or left a group.
pub(crate) const fn membership(
    organization: OrganizationId,
    group_id: GroupId,
    device_id: DeviceId,
    action: MembershipAction,
    source: MembershipSource,
) -> NewEvent {
    let data = EventData::GroupMembership {
        group_id,
        device_id,
        action,
        source,
    };
    NewEvent::new(organization, data)
}

/// Takes a description of at most 2,000 characters; an empty one is none.
pub(crate) fn parse_description(text: Option<String>) -> Result<Option<String>, Invalid> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
        return Ok(None);
    };
    if text.chars().count() > 2_000 || text.contains('\0') {
        let detail = "must have at most 2,000 characters, none of them U+0000";
        return Err(Invalid::new("/description", "TOO_LONG", detail));
    }
    Ok(Some(text))
}

pub(crate) fn parse_filters(value: Option<&Value>) -> Result<Option<GroupFilters>, Invalid> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => GroupFilters::parse("/filters", value),
    }
}
