mod permissions;

use std::task::Waker;

use chrono::DateTime;
use mdm_core::{
    events::{Audience, EventKind},
    ids::{DeviceId, OrganizationId},
    roles::Role,
};
use proptest::prelude::*;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::*;
use crate::{cursor::Epoch, envelope::Record, subscription::Filters};

const EPOCH: Epoch = Epoch::from_bits(77);

fn organization(number: u8) -> OrganizationId {
    OrganizationId::from_uuid(Uuid::from_u128(u128::from(number)))
}

fn device(number: u8) -> DeviceId {
    DeviceId::from_uuid(Uuid::from_u128(u128::from(number)))
}

fn event(offset: u64, organization: OrganizationId, audience: Audience) -> Arc<LogEvent> {
    Arc::new(LogEvent::new(Record {
        cursor: EPOCH.at(offset),
        organization_id: organization,
        kind: Some(EventKind::DeviceUpdated),
        audience,
        device_id: Some(device(1)),
        group_ids: Box::default(),
        at: DateTime::UNIX_EPOCH,
        payload: RawValue::from_string("{}".to_owned()).unwrap(),
    }))
}

fn visible(offsets: std::ops::RangeInclusive<u64>) -> Vec<Arc<LogEvent>> {
    offsets
        .map(|offset| event(offset, organization(1), Audience::Role(Role::Viewer)))
        .collect()
}

fn viewer() -> Subscription {
    Subscription {
        organization_id: organization(1),
        role: Role::Viewer,
        filters: Filters::default(),
    }
}

fn shard(position: u64, limits: Limits) -> Shard {
    Shard::new(EPOCH.at(position), limits, Arc::default())
}

/// Takes what the transport would take, and tells the events' offsets (zero: a control frame).
fn read(shard: &Shard, connection: &Rc<Connection>, now: Instant, most: usize) -> Vec<u64> {
    let context = Context::from_waker(Waker::noop());
    let mut offsets = Vec::new();
    let mut pauses = 0;
    while offsets.len() < most {
        match shard.poll_frame(connection, now, &context) {
            Poll::Ready(Some(frame)) => offsets.push(offset_of(&frame)),
            Poll::Ready(None) => break,
            // A long scan pauses to let others have their turn.
            Poll::Pending if pauses > 20 => break,
            Poll::Pending => pauses += 1,
        }
    }
    offsets
}

fn offset_of(frame: &Bytes) -> u64 {
    let text = String::from_utf8_lossy(frame);
    let id = text.split(r#""id":""#).nth(1);
    id.map_or(0, |rest| {
        rest[..rest.find('"').unwrap()]
            .parse::<Cursor>()
            .unwrap()
            .offset
    })
}

fn all(shard: &Shard, connection: &Rc<Connection>, now: Instant) -> Vec<u64> {
    read(shard, connection, now, usize::MAX)
}

#[test]
fn a_live_connection_gets_what_follows_its_arrival() {
    let (now, shard) = (Instant::now(), shard(0, Limits::default()));
    shard.publish(now, &visible(1..=3));
    let connection = shard.open(viewer(), now);
    shard.go_live(&connection);
    shard.publish(now, &visible(4..=5));
    assert_eq!(all(&shard, &connection, now), [4, 5]);
    assert_eq!(shard.reached(&connection), Some(EPOCH.at(5)));
}

#[test]
fn a_replay_joins_the_live_events_without_a_seam() {
    let (now, shard) = (Instant::now(), shard(0, Limits::default()));
    shard.publish(now, &visible(1..=300));
    let connection = shard.open(viewer(), now);
    assert_eq!(
        shard.resumption(&viewer(), EPOCH.at(10)),
        Resumption::Recent { replayed: 290 }
    );
    shard.follow(&connection, EPOCH.at(10)).unwrap();
    let mut seen = read(&shard, &connection, now, 100);
    shard.publish(now, &visible(301..=305));
    seen.extend(all(&shard, &connection, now));
    shard.publish(now, &visible(306..=306));
    seen.extend(all(&shard, &connection, now));
    assert_eq!(seen, (11..=306).collect::<Vec<_>>());
}

#[test]
fn the_edge_of_the_ring_is_exact() {
    let limits = Limits {
        ring_events: 10,
        ..Limits::default()
    };
    let (now, shard) = (Instant::now(), shard(0, limits));
    shard.publish(now, &visible(1..=30));
    assert_eq!(
        shard.resumption(&viewer(), EPOCH.at(20)),
        Resumption::Recent { replayed: 10 }
    );
    assert_eq!(shard.resumption(&viewer(), EPOCH.at(19)), Resumption::InLog);
    let connection = shard.open(viewer(), now);
    assert_eq!(shard.follow(&connection, EPOCH.at(19)), Err(NotRecent));
    shard.follow(&connection, EPOCH.at(20)).unwrap();
    assert_eq!(all(&shard, &connection, now), (21..=30).collect::<Vec<_>>());
}

#[test]
fn a_cursor_of_another_epoch_or_ahead_is_told_apart() {
    let shard = shard(5, Limits::default());
    assert_eq!(shard.resumption(&viewer(), EPOCH.at(6)), Resumption::Ahead);
    assert_eq!(
        shard.resumption(&viewer(), Epoch::from_bits(78).at(5)),
        Resumption::OtherEpoch
    );
}

#[test]
fn a_cursor_ahead_of_this_node_waits_for_it() {
    let (now, shard) = (Instant::now(), shard(5, Limits::default()));
    let connection = shard.open(viewer(), now);
    shard.follow(&connection, EPOCH.at(7)).unwrap();
    shard.publish(now, &visible(6..=6));
    assert!(all(&shard, &connection, now).is_empty());
    shard.publish(now, &visible(7..=9));
    assert_eq!(all(&shard, &connection, now), [8, 9]);
}

#[test]
fn a_burst_beyond_the_queue_is_taken_from_the_ring() {
    let (now, shard) = (Instant::now(), shard(0, Limits::default()));
    let connection = shard.open(viewer(), now);
    shard.go_live(&connection);
    shard.publish(now, &visible(1..=200));
    shard.publish(now, &visible(201..=1000));
    assert!(connection.queued() <= 256, "memory stays bounded");
    assert_eq!(
        all(&shard, &connection, now),
        (1..=1000).collect::<Vec<_>>()
    );
    shard.publish(now, &visible(1001..=1001));
    assert_eq!(connection.queued(), 1, "it is live again");
}

#[test]
fn a_reader_that_stops_is_closed_after_ten_seconds_and_no_other() {
    let (start, shard) = (Instant::now(), shard(0, Limits::default()));
    let stuck = shard.open(viewer(), start);
    let idle = shard.open(viewer(), start);
    let reader = shard.open(viewer(), start);
    shard.go_live(&stuck);
    shard.go_live(&reader);
    shard.publish(start, &visible(1..=1000));
    shard.go_live(&idle);
    assert_eq!(all(&shard, &reader, start).len(), 1000);
    shard.sweep(start + Duration::from_secs(9));
    assert!(stuck.closing_since().is_none());
    let late = start + Duration::from_secs(11);
    shard.sweep(late);
    assert!(stuck.closing_since().is_some());
    assert!(reader.closing_since().is_none() && idle.closing_since().is_none());
    assert_eq!(shard.counters().slow(), 1);
    // Nothing but the close frame is left for it.
    let context = Context::from_waker(Waker::noop());
    let Poll::Ready(Some(frame)) = shard.poll_frame(&stuck, late, &context) else {
        panic!("no close frame");
    };
    assert_eq!(&frame[2..4], &4409_u16.to_be_bytes());
    assert_eq!(shard.poll_frame(&stuck, late, &context), Poll::Ready(None));
}

#[test]
fn one_who_falls_off_the_ring_is_closed_and_never_skips() {
    let limits = Limits {
        ring_events: 500,
        ..Limits::default()
    };
    let (now, shard) = (Instant::now(), shard(0, limits));
    let connection = shard.open(viewer(), now);
    shard.go_live(&connection);
    shard.publish(now, &visible(1..=200));
    shard.publish(now, &visible(201..=400));
    shard.publish(now, &visible(401..=900));
    let seen = all(&shard, &connection, now);
    assert_eq!(seen[..200], (1..=200).collect::<Vec<_>>());
    assert_eq!(seen[200..], [0], "then the close frame");
    assert_eq!(shard.counters().slow(), 1);
}

#[test]
fn writes_are_spaced_while_events_keep_coming() {
    let (start, shard) = (Instant::now(), shard(0, Limits::default()));
    let connection = shard.open(viewer(), start);
    shard.go_live(&connection);
    shard.publish(start, &visible(1..=1));
    assert!(
        !shard.has_unflushed(),
        "an idle connection is written at once"
    );
    shard.publish(start + Duration::from_millis(1), &visible(2..=2));
    assert!(shard.has_unflushed());
    shard.flush(start + Duration::from_millis(5));
    assert!(!shard.has_unflushed());
    shard.publish(start + Duration::from_millis(20), &visible(3..=3));
    assert!(!shard.has_unflushed());
}

#[test]
fn a_new_filter_holds_from_then_on_also_there_and_back() {
    let (now, shard) = (Instant::now(), shard(0, Limits::default()));
    let connection = shard.open(viewer(), now);
    shard.go_live(&connection);
    let mut narrow = viewer();
    narrow.filters = Filters::new(Vec::new(), vec![device(9)], Vec::new());
    shard.publish(now, &visible(1..=1));
    shard.resubscribe(&connection, narrow);
    shard.publish(now, &visible(2..=2));
    shard.resubscribe(&connection, viewer());
    shard.publish(now, &visible(3..=3));
    assert_eq!(all(&shard, &connection, now), [1, 3]);
}

#[test]
fn a_new_epoch_is_announced_and_followed() {
    let (now, shard) = (Instant::now(), shard(5, Limits::default()));
    let live = shard.open(viewer(), now);
    let waiting = shard.open(viewer(), now);
    shard.go_live(&live);
    shard.follow(&waiting, EPOCH.at(9)).unwrap();
    shard.reset(now, EPOCH.at(2), &Bytes::from_static(b"resync"));
    shard.publish(now, &visible(3..=3));
    assert_eq!(all(&shard, &live, now), [0, 3]);
    assert_eq!(all(&shard, &waiting, now), [0, 3]);
}

#[test]
fn a_connection_that_left_gets_nothing_and_is_forgotten() {
    let (now, shard) = (Instant::now(), shard(0, Limits::default()));
    let connection = shard.open(viewer(), now);
    shard.go_live(&connection);
    shard.leave(&connection);
    shard.publish(now, &visible(1..=1));
    shard.sweep(now);
    assert_eq!(shard.counters().connected(), 0);
    assert_eq!(shard.counters().delivered(), 0);
    assert_eq!(Rc::strong_count(&connection), 1);
}

/// What the property test does to a shard.
#[derive(Debug, Clone)]
enum Step {
    Publish(Vec<(u8, i16, u8)>),
    Read(usize, usize),
    Reconnect(usize, Option<u64>),
    Refilter(usize, Option<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let event = (1..3_u8, prop::sample::select(vec![1_i16, 2, 3, 9]), 1..4_u8);
    let step = prop_oneof![
        4 => prop::collection::vec(event, 1..40).prop_map(Step::Publish),
        3 => (0..4_usize, 1..60_usize).prop_map(|(who, most)| Step::Read(who, most)),
        1 => (0..4_usize, prop::option::of(0..80_u64)).prop_map(|(who, back)| Step::Reconnect(who, back)),
        1 => (0..4_usize, prop::option::of(1..4_u8)).prop_map(|(who, only)| Step::Refilter(who, only)),
    ];
    prop::collection::vec(step, 1..60)
}

/// A subscriber, and what it must have seen in the end.
struct Subscriber {
    subscription: Subscription,
    connection: Rc<Connection>,
    seen: Vec<u64>,
    due: Vec<u64>,
}

impl Subscriber {
    fn read(&mut self, shard: &Shard, now: Instant, most: usize) {
        self.seen.extend(read(shard, &self.connection, now, most));
    }
}

proptest! {
    #[test]
    fn each_sees_exactly_its_permitted_events_in_order_once(steps in steps()) {
        let now = Instant::now();
        // Bounds so small that queues overflow; a ring that holds everything.
        let limits = Limits { queue_events: 16, ..Limits::default() };
        let shard = shard(0, limits);
        let mut log: Vec<Arc<LogEvent>> = Vec::new();
        let mut subscribers: Vec<_> = [(1, Role::Viewer), (1, Role::Admin), (2, Role::Operator), (1, Role::Viewer)]
            .into_iter()
            .map(|(number, role)| {
                let subscription = Subscription { organization_id: organization(number), role, filters: Filters::default() };
                let connection = shard.open(subscription.clone(), now);
                shard.go_live(&connection);
                Subscriber { subscription, connection, seen: Vec::new(), due: Vec::new() }
            })
            .collect();
        for step in steps {
            match step {
                Step::Publish(specified) => {
                    let from = log.len();
                    for (number, audience, about) in specified {
                        let offset = u64::try_from(log.len()).unwrap() + 1;
                        let audience = Audience::from_code(audience).unwrap();
                        let mut record = event(offset, organization(number), audience).record().clone();
                        record.device_id = Some(device(about));
                        log.push(Arc::new(LogEvent::new(record)));
                    }
                    shard.publish(now, &log[from..]);
                    for subscriber in &mut subscribers {
                        let admitted = log[from..].iter().filter(|event| subscriber.subscription.admits(event));
                        subscriber.due.extend(admitted.map(|event| event.cursor().offset));
                    }
                }
                Step::Read(who, most) => subscribers[who].read(&shard, now, most),
                Step::Reconnect(who, back) => {
                    let subscriber = &mut subscribers[who];
                    shard.leave(&subscriber.connection);
                    subscriber.connection = shard.open(subscriber.subscription.clone(), now);
                    let position = shard.position().offset;
                    subscriber.seen.clear();
                    if let Some(back) = back {
                        let after = position.saturating_sub(back);
                        subscriber.due = log.iter()
                            .filter(|event| event.cursor().offset > after && subscriber.subscription.admits(event))
                            .map(|event| event.cursor().offset)
                            .collect();
                        let replayed = u64::try_from(subscriber.due.len()).unwrap();
                        prop_assert_eq!(
                            shard.resumption(&subscriber.subscription, EPOCH.at(after)),
                            Resumption::Recent { replayed }
                        );
                        shard.follow(&subscriber.connection, EPOCH.at(after)).unwrap();
                    } else {
                        subscriber.due.clear();
                        shard.go_live(&subscriber.connection);
                    }
                }
                Step::Refilter(who, only) => {
                    // A filter holds for what is not queued yet: read all, so that it is certain.
                    let subscriber = &mut subscribers[who];
                    subscriber.read(&shard, now, usize::MAX);
                    let devices = only.map(device).into_iter().collect();
                    subscriber.subscription.filters = Filters::new(Vec::new(), devices, Vec::new());
                    shard.resubscribe(&subscriber.connection, subscriber.subscription.clone());
                }
            }
        }
        for subscriber in &mut subscribers {
            subscriber.read(&shard, now, usize::MAX);
            prop_assert_eq!(&subscriber.seen, &subscriber.due);
        }
    }
}
