//! The event log's tasks of two nodes on one database.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mdm_core::{
    Clock, SystemClock,
    devices::DeviceStatus,
    events::{EventData, NewEvent},
    ids::{DeviceId, OrganizationId},
};
use mdm_events::LogEvent;
use mdm_service::stream::{EventFeed, EventStream, EventWake, Feed, Lead, Observer, StreamParts};
use mdm_store::{PgPool, events};
use mdm_testkit::TestDatabase;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[derive(Default, Clone)]
struct Seen(Arc<Mutex<Vec<u64>>>);

impl Observer for Seen {
    fn observe(&self, events: &[Arc<LogEvent>]) {
        let offsets = events.iter().map(|event| event.cursor().offset);
        self.0.lock().unwrap().extend(offsets);
    }
}

struct Node {
    pool: PgPool,
    wake: EventWake,
    feed: EventFeed,
    events: Receiver<Feed>,
    observed: Seen,
    cancel: CancellationToken,
}

impl Node {
    async fn start(database: &TestDatabase) -> Self {
        let wake = EventWake::default();
        let observed = Seen::default();
        let parts = StreamParts {
            pool: database.pool().clone(),
            wake: wake.clone(),
            lead: Lead::default(),
            bus: None,
            clock: Arc::new(SystemClock),
            observers: vec![Box::new(observed.clone())],
            keep: EventStream::KEEP,
        };
        let stream = EventStream::start(parts).await.unwrap();
        let feed = stream.feed();
        let (_, events) = feed.subscribe();
        let cancel = CancellationToken::new();
        tokio::spawn(stream.run(cancel.clone()));
        Self {
            pool: database.pool().clone(),
            wake,
            feed,
            events,
            observed,
            cancel,
        }
    }

    async fn append(&self) {
        let data = EventData::DeviceStatusChange {
            device_id: DeviceId::from_uuid(Uuid::nil()),
            old_status: None,
            new_status: DeviceStatus::Enrolled,
        };
        let event = NewEvent::new(OrganizationId::from_uuid(Uuid::nil()), data);
        let mut conn = self.pool.acquire().await.unwrap();
        events::append(&mut conn, SystemClock.now(), &event)
            .await
            .unwrap();
        self.wake.wake();
    }

    /// Waits for the event at `offset`, which must be the next one.
    async fn receive(&mut self, offset: u64) {
        let received = tokio::time::timeout(Duration::from_secs(10), self.events.recv()).await;
        let Feed::Events(events) = received.unwrap().unwrap() else {
            panic!("the feed was reset");
        };
        let offsets: Vec<_> = events.iter().map(|event| event.cursor().offset).collect();
        assert_eq!(offsets, [offset]);
        assert_eq!(self.feed.position().offset, offset);
        assert_eq!(self.observed.0.lock().unwrap().last(), Some(&offset));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_either_node_commits_reaches_both_at_once() {
    let database = TestDatabase::create().await;
    let mut leader = Node::start(&database).await;
    leader.append().await;
    leader.receive(1).await;
    let mut follower = Node::start(&database).await;
    // The first rounds also wait for connections to be made.
    let mut took = Vec::new();
    for round in 0..20_u64 {
        let from = if round % 2 == 0 { &follower } else { &leader };
        from.append().await;
        let began = Instant::now();
        leader.receive(round + 2).await;
        follower.receive(round + 2).await;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    // Below the 50 ms of the sequencer's own poll: the wake-up crossed the nodes.
    assert!(took[took.len() / 2] < Duration::from_millis(40), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_takes_over_within_two_seconds() {
    let database = TestDatabase::create().await;
    let mut leader = Node::start(&database).await;
    leader.append().await;
    leader.receive(1).await;
    let mut follower = Node::start(&database).await;
    leader.cancel.cancel();
    let began = Instant::now();
    follower.append().await;
    follower.receive(2).await;
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_shard_that_joins_late_begins_where_the_feed_is() {
    let database = TestDatabase::create().await;
    let mut node = Node::start(&database).await;
    node.append().await;
    node.receive(1).await;
    let (position, mut late) = node.feed.subscribe();
    assert_eq!(position.offset, 1);
    node.append().await;
    let Some(Feed::Events(events)) = late.recv().await else {
        panic!("no events");
    };
    assert_eq!(events.first().unwrap().cursor().offset, 2);
    node.receive(2).await;
    assert_eq!(node.feed.published(), 2);
}
