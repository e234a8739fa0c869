//! Who gets which events.

use mdm_core::{
    events::EventKind,
    ids::{DeviceId, GroupId, OrganizationId},
    roles::Role,
};

use crate::envelope::{LogEvent, View};

/// What a subscriber wants to see. An empty list lets everything through; lists that are not
/// empty must all be met.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Filters {
    kinds: Vec<EventKind>,
    device_ids: Vec<DeviceId>,
    group_ids: Vec<GroupId>,
}

impl Filters {
    /// Takes the lists in any order; equal sets make equal filters.
    pub fn new(
        mut kinds: Vec<EventKind>,
        mut device_ids: Vec<DeviceId>,
        mut group_ids: Vec<GroupId>,
    ) -> Self {
        kinds.sort_unstable_by_key(|kind| kind.as_str());
        kinds.dedup();
        device_ids.sort_unstable();
        device_ids.dedup();
        group_ids.sort_unstable();
        group_ids.dedup();
        Self {
            kinds,
            device_ids,
            group_ids,
        }
    }

    /// The kinds of event wanted; empty means all.
    pub fn kinds(&self) -> &[EventKind] {
        &self.kinds
    }

    /// The devices wanted; empty means all.
    pub fn device_ids(&self) -> &[DeviceId] {
        &self.device_ids
    }

    /// The groups wanted; empty means all.
    pub fn group_ids(&self) -> &[GroupId] {
        &self.group_ids
    }

    fn admit(&self, event: &LogEvent) -> bool {
        let record = event.record();
        let listed = |wanted: bool, empty: bool| wanted || empty;
        listed(
            record.kind.is_some_and(|kind| self.kinds.contains(&kind)),
            self.kinds.is_empty(),
        ) && listed(
            record
                .device_id
                .is_some_and(|id| self.device_ids.binary_search(&id).is_ok()),
            self.device_ids.is_empty(),
        ) && listed(
            record
                .group_ids
                .iter()
                .any(|id| self.group_ids.binary_search(id).is_ok()),
            self.group_ids.is_empty(),
        )
    }
}

/// A class of subscribers who get the same events: the hub decides once per class and event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// Whose events.
    pub organization_id: OrganizationId,
    /// With which rights.
    pub role: Role,
    /// Which of them.
    pub filters: Filters,
}

impl Subscription {
    /// Whether the event is for these subscribers: permitted first, then wanted.
    pub fn admits(&self, event: &LogEvent) -> bool {
        let record = event.record();
        record.organization_id == self.organization_id
            && record.kind.is_some()
            && record.audience.admits(self.role)
            && self.filters.admit(event)
    }

    /// How much of an event they get.
    pub fn view(&self) -> View {
        View::of(self.role)
    }
}
