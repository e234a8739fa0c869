//! Events as messages: JSON, with the payloads as the log has them.

use std::sync::Arc;

use mdm_core::{
    Timestamp,
    events::{Audience, EventKind},
    ids::{DeviceId, GroupId, OrganizationId},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    cursor::Epoch,
    envelope::{LogEvent, Record},
};

#[derive(Serialize, Deserialize)]
struct Message<'a> {
    epoch: String,
    #[serde(borrow)]
    events: Vec<Event<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Event<'a> {
    offset: u64,
    organization_id: Uuid,
    kind: EventKind,
    audience: i16,
    device_id: Option<Uuid>,
    group_ids: Vec<Uuid>,
    at_micros: i64,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Writes consecutive events; none if there are none, or if this version does not know the kind of
/// one and so cannot pass on what it is.
pub(super) fn write(events: &[Arc<LogEvent>]) -> Option<Vec<u8>> {
    let epoch = events.first()?.cursor().epoch;
    let events: Option<Vec<_>> = events
        .iter()
        .map(|event| {
            let record = event.record();
            Some(Event {
                offset: record.cursor.offset,
                organization_id: record.organization_id.uuid(),
                kind: record.kind?,
                audience: record.audience.code(),
                device_id: record.device_id.map(DeviceId::uuid),
                group_ids: record.group_ids.iter().map(|id| id.uuid()).collect(),
                at_micros: record.at.timestamp_micros(),
                payload: &record.payload,
            })
        })
        .collect();
    let message = Message {
        epoch: epoch.to_string(),
        events: events?,
    };
    serde_json::to_vec(&message).ok()
}

/// Reads what [`write`] wrote; none if it is not that.
pub(super) fn read(payload: &[u8]) -> Option<Vec<LogEvent>> {
    let message: Message<'_> = serde_json::from_slice(payload).ok()?;
    let epoch: Epoch = message.epoch.parse().ok()?;
    let events = message.events.into_iter();
    events
        .map(|event| {
            Some(LogEvent::new(Record {
                cursor: epoch.at(event.offset),
                organization_id: OrganizationId::from_uuid(event.organization_id),
                kind: Some(event.kind),
                audience: Audience::from_code(event.audience)?,
                device_id: event.device_id.map(DeviceId::from_uuid),
                group_ids: event
                    .group_ids
                    .into_iter()
                    .map(GroupId::from_uuid)
                    .collect(),
                at: Timestamp::from_timestamp_micros(event.at_micros)?,
                payload: event.payload.to_owned(),
            }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use mdm_core::roles::Role;
    use proptest::prelude::*;

    use super::*;
    use crate::envelope::View;

    fn event(offset: u64, kind: Option<EventKind>, payload: &str, micros: i64) -> Arc<LogEvent> {
        Arc::new(LogEvent::new(Record {
            cursor: Epoch::from_bits(7).at(offset),
            organization_id: OrganizationId::from_uuid(Uuid::from_u128(1)),
            kind,
            audience: Audience::Role(Role::Operator),
            device_id: Some(DeviceId::from_uuid(Uuid::from_u128(2))),
            group_ids: [GroupId::from_uuid(Uuid::from_u128(3))].into(),
            at: Timestamp::from_timestamp_micros(micros).unwrap(),
            payload: RawValue::from_string(payload.to_owned()).unwrap(),
        }))
    }

    proptest! {
        #[test]
        fn an_event_from_the_bus_is_the_one_of_the_log(
            offset in 1_u64..1_000_000_000_000,
            number in any::<f64>().prop_filter("JSON has no such numbers", |n| n.is_finite()),
            text in ".{0,40}",
            micros in 0_i64..4_000_000_000_000_000,
        ) {
            let payload = serde_json::json!({ "result": text, "number": number }).to_string();
            let kinds = EventKind::ALL.iter();
            let events: Vec<_> = kinds
                .zip(offset..)
                .map(|(kind, offset)| event(offset, Some(*kind), &payload, micros))
                .collect();
            let read = read(&write(&events).unwrap()).unwrap();
            for (before, after) in events.iter().zip(&read) {
                prop_assert_eq!(format!("{:?}", before.record()), format!("{:?}", after.record()));
                for view in [View::Full, View::Reduced] {
                    prop_assert_eq!(before.json(view), after.json(view));
                }
            }
            prop_assert_eq!(read.len(), events.len());
        }

        #[test]
        fn any_bytes_are_read_or_left(bytes: Vec<u8>) {
            let _events = read(&bytes);
        }
    }

    #[test]
    fn what_this_version_does_not_know_is_left_to_the_log() {
        let known = event(1, Some(EventKind::DeviceUpdated), "{}", 0);
        assert!(write(&[known, event(2, None, "{}", 0)]).is_none());
    }
}
