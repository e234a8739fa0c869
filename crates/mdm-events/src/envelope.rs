//! Events as the log holds them and as clients get them.

use std::{collections::BTreeMap, sync::OnceLock};

use bytes::Bytes;
use mdm_core::{
    Timestamp,
    clock::format_rfc3339,
    events::{Audience, EventKind},
    ids::{DeviceId, GroupId, OrganizationId, SessionId},
    roles::Role,
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{cursor::Cursor, websocket};

/// An event as it was read from the log.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its place in the log.
    pub cursor: Cursor,
    /// Whose event it is.
    pub organization_id: OrganizationId,
    /// Its kind; none if a newer version wrote it. Nobody gets such an event from this version,
    /// which cannot know what of it is for whom.
    pub kind: Option<EventKind>,
    /// Who may see it.
    pub audience: Audience,
    /// The device that it is about.
    pub device_id: Option<DeviceId>,
    /// The groups that it is about: the one that it names, and those that its device was in when it
    /// happened.
    pub group_ids: Box<[GroupId]>,
    /// When it happened.
    pub at: Timestamp,
    /// Its fields, as written.
    pub payload: Box<RawValue>,
}

/// How much of an event a subscriber gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// Everything.
    Full,
    /// Without the fields that are for operators.
    Reduced,
}

impl View {
    /// The view that a role has.
    pub fn of(role: Role) -> Self {
        if role >= Role::Operator {
            Self::Full
        } else {
            Self::Reduced
        }
    }
}

/// An event on its way to subscribers. Shared by all threads; each of its two views is encoded at
/// most once, by the first who needs it.
#[derive(Debug)]
pub struct LogEvent {
    record: Record,
    full: OnceLock<Bytes>,
    reduced: OnceLock<Bytes>,
}

impl LogEvent {
    /// Takes an event from the log.
    pub const fn new(record: Record) -> Self {
        Self {
            record,
            full: OnceLock::new(),
            reduced: OnceLock::new(),
        }
    }

    /// What the log says.
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// The event's place in the log.
    pub const fn cursor(&self) -> Cursor {
        self.record.cursor
    }

    /// The session that ended, if the event tells of that.
    pub fn ended_session(&self) -> Option<SessionId> {
        #[derive(Deserialize)]
        struct Ended {
            session_id: SessionId,
        }
        if self.record.kind != Some(EventKind::SessionEnded) {
            return None;
        }
        let ended: Option<Ended> = serde_json::from_str(self.record.payload.get()).ok();
        ended.map(|ended| ended.session_id)
    }

    /// The event as JSON: `{"id", "type", "timestamp", "data"}`.
    pub fn json(&self, view: View) -> String {
        let record = &self.record;
        let kind = record.kind.map_or("", EventKind::as_str);
        let at = format_rfc3339(record.at);
        match self.reduced_payload(view) {
            None => envelope(&record.cursor, kind, &at, record.payload.get()),
            Some(reduced) => envelope(&record.cursor, kind, &at, &reduced),
        }
    }

    /// The event as a WebSocket frame.
    pub fn frame(&self, view: View) -> Bytes {
        let cached = if self.hides_something(view) {
            &self.reduced
        } else {
            &self.full
        };
        cached
            .get_or_init(|| websocket::text(&self.json(view)))
            .clone()
    }

    /// About how many bytes the event takes in memory once it is encoded.
    pub fn weight(&self) -> usize {
        const REST: usize = 512;
        self.record
            .payload
            .get()
            .len()
            .saturating_mul(2)
            .saturating_add(REST)
    }

    fn hides_something(&self, view: View) -> bool {
        view == View::Reduced
            && self
                .record
                .kind
                .is_some_and(|kind| !kind.operator_fields().is_empty())
    }

    /// The payload without what the view hides; none if the payload is right as it is.
    fn reduced_payload(&self, view: View) -> Option<String> {
        if !self.hides_something(view) {
            return None;
        }
        let hidden = self.record.kind.map_or(&[][..], EventKind::operator_fields);
        let fields: Result<BTreeMap<String, Box<RawValue>>, _> =
            serde_json::from_str(self.record.payload.get());
        // A payload that is no object was not written by this version: show nothing of it.
        let Ok(mut fields) = fields else {
            return Some("{}".to_owned());
        };
        let before = fields.len();
        fields.retain(|name, _| !hidden.contains(&name.as_str()));
        if fields.len() == before {
            return None;
        }
        Some(serde_json::to_string(&fields).unwrap_or_else(|_| "{}".to_owned()))
    }
}

/// Kinds and cursors have only characters that JSON takes as they are.
fn envelope(id: &Cursor, kind: &str, at: &str, data: &str) -> String {
    format!(r#"{{"id":"{id}","type":"{kind}","timestamp":"{at}","data":{data}}}"#)
}

/// A control message as a WebSocket frame: like an event, without `id`.
pub fn control(kind: &'static str, at: Timestamp, data: &Value) -> Bytes {
    let at = format_rfc3339(at);
    websocket::text(&format!(
        r#"{{"type":"{kind}","timestamp":"{at}","data":{data}}}"#
    ))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::cursor::Epoch;

    fn event(kind: Option<EventKind>, payload: &str) -> LogEvent {
        LogEvent::new(Record {
            cursor: Epoch::from_bits(7).at(12),
            organization_id: OrganizationId::from_uuid(Uuid::nil()),
            kind,
            audience: Audience::Role(Role::Viewer),
            device_id: None,
            group_ids: Box::default(),
            at: DateTime::UNIX_EPOCH,
            payload: RawValue::from_string(payload.to_owned()).unwrap(),
        })
    }

    #[test]
    fn an_event_is_written_as_documented() {
        let event = event(
            Some(EventKind::CommandExecution),
            r#"{"status":"completed","result":{"b":1,"a":1.10}}"#,
        );
        assert_eq!(
            event.json(View::Full),
            concat!(
                r#"{"id":"7-0000000000000012","type":"command_execution","#,
                r#""timestamp":"1970-01-01T00:00:00.000Z","#,
                r#""data":{"status":"completed","result":{"b":1,"a":1.10}}}"#
            )
        );
    }

    #[test]
    fn a_viewer_gets_no_result_whatever_the_order_of_calls() {
        let event = event(
            Some(EventKind::CommandExecution),
            r#"{"status":"completed","result":"secret"}"#,
        );
        for _ in 0..2 {
            let full = event.frame(View::Full);
            let reduced = event.frame(View::Reduced);
            assert!(String::from_utf8_lossy(&full).contains("secret"));
            let reduced = String::from_utf8_lossy(&reduced);
            assert!(reduced.ends_with(r#""data":{"status":"completed"}}"#));
        }
    }

    #[test]
    fn a_payload_that_is_no_object_is_not_shown_to_viewers() {
        let event = event(Some(EventKind::CommandExecution), r#"["secret"]"#);
        assert!(event.json(View::Reduced).ends_with(r#""data":{}}"#));
    }

    #[test]
    fn both_views_share_a_frame_where_nothing_is_hidden() {
        let event = event(Some(EventKind::DeviceUpdated), r#"{"result":1}"#);
        assert_eq!(
            event.frame(View::Full).as_ptr(),
            event.frame(View::Reduced).as_ptr()
        );
    }

    #[test]
    fn the_ended_session_is_read_from_its_event_only() {
        let payload = format!(r#"{{"session_id":"{}"}}"#, Uuid::from_u128(5));
        let ended = event(Some(EventKind::SessionEnded), &payload).ended_session();
        assert_eq!(ended, Some(SessionId::from_uuid(Uuid::from_u128(5))));
        assert_eq!(
            event(Some(EventKind::DeviceUpdated), &payload).ended_session(),
            None
        );
    }
}
