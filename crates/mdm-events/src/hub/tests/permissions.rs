//! Nobody sees what is not for them, whatever the events, roles and filters.

use super::*;

/// An event of the log as a test wants it, and what decides who may see it.
#[derive(Debug, Clone)]
struct Wanted {
    organization: u8,
    kind: Option<EventKind>,
    audience: Audience,
    device: Option<u8>,
    groups: Vec<u8>,
}

fn wanted_events() -> impl Strategy<Value = Vec<Wanted>> {
    let kinds = proptest::option::weighted(0.9, proptest::sample::select(EventKind::ALL.to_vec()));
    let audiences = proptest::sample::select(vec![
        Audience::Role(Role::Viewer),
        Audience::Role(Role::Operator),
        Audience::Role(Role::Admin),
        Audience::Internal,
    ]);
    let groups = proptest::collection::vec(0_u8..3, 0..3);
    let event = (
        0_u8..3,
        kinds,
        audiences,
        proptest::option::of(0_u8..3),
        groups,
    )
        .prop_map(|(organization, kind, audience, device, groups)| Wanted {
            organization,
            kind,
            audience,
            device,
            groups,
        });
    proptest::collection::vec(event, 1..60)
}

#[derive(Debug, Clone)]
struct Subscriber {
    organization: u8,
    role: Role,
    kinds: Vec<EventKind>,
    devices: Vec<u8>,
    groups: Vec<u8>,
    /// After which event it connects, and from which position it goes on.
    connects_after: usize,
    resumes_from: Option<usize>,
}

fn subscribers() -> impl Strategy<Value = Vec<Subscriber>> {
    let kinds = proptest::collection::vec(proptest::sample::select(EventKind::ALL.to_vec()), 0..4);
    let few = || proptest::collection::vec(0_u8..3, 0..3);
    let place = || 0_usize..60;
    let subscriber = (
        0_u8..3,
        proptest::sample::select(Role::ALL.to_vec()),
        kinds,
        few(),
        few(),
        place(),
        proptest::option::of(place()),
    );
    let subscriber = subscriber.prop_map(
        |(organization, role, kinds, devices, groups, at, from)| Subscriber {
            organization,
            role,
            kinds,
            devices,
            groups,
            connects_after: at,
            resumes_from: from,
        },
    );
    proptest::collection::vec(subscriber, 1..12)
}

const SECRET: &str = "for operators only";

/// What a subscriber is to see, said in another way than the hub says it.
fn may_see(subscriber: &Subscriber, event: &Wanted) -> bool {
    let rank = |role: Role| Role::ALL.iter().position(|known| *known == role);
    let permitted = match event.audience {
        Audience::Internal => false,
        Audience::Role(least) => rank(subscriber.role) >= rank(least),
    };
    let wanted = |listed: bool, filter: &[u8]| filter.is_empty() || listed;
    let Some(kind) = event.kind else { return false };
    event.organization == subscriber.organization
        && permitted
        && (subscriber.kinds.is_empty() || subscriber.kinds.contains(&kind))
        && wanted(
            event
                .device
                .is_some_and(|device| subscriber.devices.contains(&device)),
            &subscriber.devices,
        )
        && wanted(
            event
                .groups
                .iter()
                .any(|group| subscriber.groups.contains(group)),
            &subscriber.groups,
        )
}

proptest! {
    #[test]
    fn nobody_sees_another_organisations_event_nor_a_viewer_a_result(
        wanted in wanted_events(),
        subscribers in subscribers(),
    ) {
        let now = Instant::now();
        let shard = shard(0, Limits::default());
        let group = |number: u8| mdm_core::ids::GroupId::from_uuid(Uuid::from_u128(u128::from(number)));
        let events: Vec<_> = wanted
            .iter()
            .zip(1_u64..)
            .map(|(wanted, offset)| {
                let payload = format!(r#"{{"status":"completed","result":"{SECRET}"}}"#);
                Arc::new(LogEvent::new(Record {
                    cursor: EPOCH.at(offset),
                    organization_id: organization(wanted.organization),
                    kind: wanted.kind,
                    audience: wanted.audience,
                    device_id: wanted.device.map(device),
                    group_ids: wanted.groups.iter().copied().map(group).collect(),
                    at: DateTime::UNIX_EPOCH,
                    payload: RawValue::from_string(payload).unwrap(),
                }))
            })
            .collect();
        let mut connections = Vec::new();
        for published in 0..=events.len() {
            for subscriber in &subscribers {
                // Who would connect after the last event connects then.
                if subscriber.connects_after.min(events.len()) != published {
                    continue;
                }
                let subscription = Subscription {
                    organization_id: organization(subscriber.organization),
                    role: subscriber.role,
                    filters: Filters::new(
                        subscriber.kinds.clone(),
                        subscriber.devices.iter().copied().map(device).collect(),
                        subscriber.groups.iter().copied().map(group).collect(),
                    ),
                };
                let connection = shard.open(subscription, now);
                let resumed = subscriber.resumes_from.map(|from| from.min(published));
                if let Some(from) = resumed {
                    let cursor = EPOCH.at(u64::try_from(from).unwrap());
                    shard.follow(&connection, cursor).unwrap();
                } else {
                    shard.go_live(&connection);
                }
                let from = resumed.unwrap_or(published);
                connections.push((subscriber, connection, from));
            }
            if let Some(event) = events.get(published) {
                shard.publish(now, std::slice::from_ref(event));
            }
        }
        for (subscriber, connection, from) in connections {
            let mut frames = Vec::new();
            let context = Context::from_waker(Waker::noop());
            while let Poll::Ready(Some(frame)) = shard.poll_frame(&connection, now, &context) {
                frames.push(frame);
            }
            let seen: Vec<_> = frames.iter().map(offset_of).collect();
            let expected: Vec<_> = wanted
                .iter()
                .zip(1_u64..)
                .skip(from)
                .filter(|(event, _)| may_see(subscriber, event))
                .map(|(_, offset)| offset)
                .collect();
            prop_assert_eq!(seen, expected);
            for frame in &frames {
                let shown = String::from_utf8_lossy(frame);
                let is_result = shown.contains("command_execution") && shown.contains(SECRET);
                prop_assert!(!is_result || subscriber.role != Role::Viewer);
            }
        }
    }
}
