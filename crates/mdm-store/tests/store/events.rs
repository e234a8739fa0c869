use std::{collections::BTreeSet, time::Duration};

use mdm_core::{
    Timestamp,
    devices::DeviceStatus,
    events::{EventData, EventKind, NewEvent},
    ids::{DeviceId, OrganizationId, SessionId},
    roles::Role,
};
use mdm_events::{Cursor, Filters, Subscription};
use mdm_store::{
    PgConnection, PgPool,
    events::{self, Leadership, PageQuery},
};
use mdm_testkit::TestDatabase;
use sqlx::{Connection, postgres::PgPoolOptions};
use uuid::Uuid;

fn organization(number: u128) -> OrganizationId {
    OrganizationId::from_uuid(Uuid::from_u128(number))
}

fn device(number: u128) -> DeviceId {
    DeviceId::from_uuid(Uuid::from_u128(number))
}

/// An event that is told from others by its device.
fn event(number: u128) -> NewEvent {
    NewEvent::new(
        organization(1),
        EventData::DeviceStatusChange {
            device_id: device(number),
            old_status: None,
            new_status: DeviceStatus::Enrolled,
        },
    )
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(seconds, 0).unwrap()
}

async fn append(pool: &PgPool, numbers: impl IntoIterator<Item = u128>) {
    let events: Vec<_> = numbers.into_iter().map(event).collect();
    let mut conn = pool.acquire().await.unwrap();
    events::append_all(&mut conn, at(0), &events).await.unwrap();
}

async fn sequence_all(conn: &mut PgConnection) -> u64 {
    let mut moved = 0;
    loop {
        match events::sequence_batch(conn).await.unwrap() {
            0 => return moved,
            some => moved += some,
        }
    }
}

/// The whole log: offsets, and the numbers of the devices.
async fn log(pool: &PgPool) -> Vec<(u64, u128)> {
    let mut position = events::head(pool).await.unwrap().epoch.at(0);
    let mut log = Vec::new();
    loop {
        let batch = events::read_after(pool, position, 1000).await.unwrap();
        let Some(last) = batch.last() else { return log };
        position = last.cursor();
        log.extend(batch.iter().map(|event| {
            let device = event.record().device_id.unwrap().uuid().as_u128();
            (event.cursor().offset, device)
        }));
    }
}

#[tokio::test]
async fn events_come_into_the_log_as_they_were_appended() {
    let database = TestDatabase::create().await;
    let mut conn = events::connect_alone(database.pool()).await.unwrap();
    append(database.pool(), 1..=2500).await;
    assert_eq!(events::waiting(database.pool()).await.unwrap(), 2500);
    assert_eq!(sequence_all(&mut conn).await, 2500);
    let expected: Vec<_> = (1..=2500_u64).map(|n| (n, u128::from(n))).collect();
    assert_eq!(log(database.pool()).await, expected);
    assert_eq!(events::head(database.pool()).await.unwrap().offset, 2500);
    assert_eq!(events::waiting(database.pool()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_not_skipped_and_one_that_fails_leaves_no_hole() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let mut sequencer = events::connect_alone(pool).await.unwrap();
    let mut late = pool.begin().await.unwrap();
    events::append(&mut late, at(0), &event(1)).await.unwrap();
    let mut failed = pool.begin().await.unwrap();
    events::append(&mut failed, at(0), &event(2)).await.unwrap();
    append(pool, [3]).await;
    assert_eq!(sequence_all(&mut sequencer).await, 1);
    failed.rollback().await.unwrap();
    late.commit().await.unwrap();
    append(pool, [4]).await;
    assert_eq!(sequence_all(&mut sequencer).await, 2);
    assert_eq!(log(pool).await, [(1, 3), (2, 1), (3, 4)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sequencers_whose_connections_are_cut_lose_nothing_and_repeat_nothing() {
    const WRITERS: u128 = 4;
    const TRANSACTIONS: u128 = 400;
    const CUTS: usize = 12;
    let database = TestDatabase::create().await;
    let pool = database.pool().clone();
    let options = database.connect_options().application_name("sequencer");
    let sequencers = PgPoolOptions::new().connect_lazy_with(options);
    let working: Vec<_> = (0..2)
        .map(|_| tokio::spawn(sequence_for_ever(sequencers.clone())))
        .collect();
    let writing: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for transaction in 0..TRANSACTIONS {
                    let first = (writer * TRANSACTIONS + transaction) * 3;
                    append(&pool, first..first + 3).await;
                }
            })
        })
        .collect();
    let mut cut = 0;
    while cut < CUTS {
        tokio::time::sleep(Duration::from_millis(20)).await;
        cut += cut_one(&pool).await;
    }
    for writer in writing {
        writer.await.unwrap();
    }
    while events::waiting(&pool).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    working.iter().for_each(tokio::task::JoinHandle::abort);
    let total = WRITERS * TRANSACTIONS * 3;
    let log = log(&pool).await;
    let offsets: Vec<_> = log.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(
        offsets,
        (1..=u64::try_from(total).unwrap()).collect::<Vec<_>>()
    );
    let numbers: BTreeSet<_> = log.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, (0..total).collect());
}

async fn sequence_for_ever(pool: PgPool) {
    loop {
        let Ok(mut conn) = events::connect_alone(&pool).await else {
            continue;
        };
        // Small steps, so that the cuts meet them in the middle.
        while events::sequence_batch(&mut conn).await.is_ok() {}
    }
}

async fn cut_one(pool: &PgPool) -> usize {
    let cut = sqlx::query_scalar::<_, bool>(
        r"
        SELECT pg_terminate_backend(pid)
        FROM pg_stat_activity
        WHERE application_name = 'sequencer'
          AND datname = current_database()
          AND state <> 'idle'
        ORDER BY random()
        LIMIT 1
        ",
    );
    cut.fetch_all(pool).await.unwrap().len()
}

#[tokio::test]
async fn there_is_one_leader_until_its_connection_ends() {
    let database = TestDatabase::create().await;
    let mut first = events::connect_alone(database.pool()).await.unwrap();
    let mut second = events::connect_alone(database.pool()).await.unwrap();
    assert_eq!(
        events::try_lead(&mut first).await.unwrap(),
        Leadership::Leader
    );
    assert_eq!(
        events::try_lead(&mut second).await.unwrap(),
        Leadership::Follower
    );
    first.close().await.unwrap();
    let taken = async {
        while events::try_lead(&mut second).await.unwrap() == Leadership::Follower {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), taken)
        .await
        .unwrap();
}

#[tokio::test]
async fn partitions_are_made_ahead_and_dropped_whole_when_they_are_old() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let mut conn = events::connect_alone(pool).await.unwrap();
    sqlx::query(r#"UPDATE stream_head SET "offset" = 999995"#)
        .execute(pool)
        .await
        .unwrap();
    append(pool, 1..=10).await;
    assert_eq!(sequence_all(&mut conn).await, 10);
    assert_eq!(events::oldest(pool).await.unwrap(), 999_995);
    assert_eq!(
        events::drop_partitions(pool, at(0)).await.unwrap(),
        0,
        "not old yet"
    );
    assert_eq!(
        events::drop_partitions(pool, at(1)).await.unwrap(),
        1,
        "never the head's"
    );
    assert_eq!(events::oldest(pool).await.unwrap(), 1_000_000);
    append(pool, [11]).await;
    assert_eq!(sequence_all(&mut conn).await, 1);
    let until: i64 = sqlx::query_scalar("SELECT partitioned_until FROM stream_head")
        .fetch_one(pool)
        .await
        .unwrap();
    assert!(until > 3_000_000, "two whole partitions are ahead: {until}");
}

#[tokio::test]
async fn an_empty_log_ends_where_it_begins() {
    let database = TestDatabase::create().await;
    let head = events::head(database.pool()).await.unwrap();
    assert_eq!(head.offset, 0);
    assert_eq!(events::oldest(database.pool()).await.unwrap(), 0);
}

#[tokio::test]
async fn another_stream_is_another_epoch() {
    let database = TestDatabase::create().await;
    let before = events::head(database.pool()).await.unwrap();
    assert_eq!(events::head(database.pool()).await.unwrap(), before);
    sqlx::query("UPDATE stream_head SET stream = gen_random_uuid()")
        .execute(database.pool())
        .await
        .unwrap();
    let after = events::head(database.pool()).await.unwrap();
    assert_ne!(after.epoch, before.epoch);
}

async fn page(
    pool: &PgPool,
    subscription: &Subscription,
    after: Cursor,
    limit: i64,
) -> events::Page {
    let head = events::head(pool).await.unwrap();
    let query = PageQuery {
        subscription,
        after,
        until: head.offset,
        limit,
    };
    events::read_page(pool, query).await.unwrap()
}

fn offsets(page: &events::Page) -> Vec<u64> {
    page.events
        .iter()
        .map(|event| event.cursor().offset)
        .collect()
}

#[tokio::test]
async fn a_page_holds_what_its_reader_may_and_wants_to_see() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let mut conn = events::connect_alone(pool).await.unwrap();
    let mut foreign = event(1);
    foreign.organization_id = organization(2);
    let session_id = SessionId::from_uuid(Uuid::nil());
    let internal = NewEvent::new(organization(1), EventData::SessionEnded { session_id });
    let all = [event(1), foreign, internal, event(2), event(1), event(3)];
    events::append_all(&mut conn, at(0), &all).await.unwrap();
    sequence_all(&mut conn).await;
    let mut reader = Subscription {
        organization_id: organization(1),
        role: Role::Admin,
        filters: Filters::default(),
    };
    let start = events::head(pool).await.unwrap().epoch.at(0);
    let everything = page(pool, &reader, start, 50).await;
    assert_eq!(offsets(&everything), [1, 4, 5, 6]);
    assert_eq!(everything.next.offset, 6);
    let first = page(pool, &reader, start, 2).await;
    assert_eq!((offsets(&first), first.next.offset), (vec![1, 4], 4));
    let second = page(pool, &reader, first.next, 2).await;
    assert_eq!(offsets(&second), [5, 6]);
    assert_eq!(events::count_after(pool, &reader, 1, 5).await.unwrap(), 2);
    reader.filters = Filters::new(Vec::new(), vec![device(1)], Vec::new());
    let of_device = page(pool, &reader, start, 50).await;
    assert_eq!(offsets(&of_device), [1, 5]);
    assert_eq!(events::count_after(pool, &reader, 0, 6).await.unwrap(), 2);
    reader.filters = Filters::new(vec![EventKind::DeviceUpdated], Vec::new(), Vec::new());
    let nothing = page(pool, &reader, start, 50).await;
    assert!(nothing.events.is_empty());
    assert_eq!(
        nothing.next.offset, 6,
        "the next page need not look there again"
    );
}

#[tokio::test]
async fn an_event_of_an_unknown_kind_keeps_its_place_and_is_for_nobody() {
    let database = TestDatabase::create().await;
    let pool = database.pool();
    let mut conn = events::connect_alone(pool).await.unwrap();
    append(pool, [1]).await;
    sqlx::query("UPDATE outbox SET kind = 'of_a_newer_version'")
        .execute(pool)
        .await
        .unwrap();
    append(pool, [2]).await;
    sequence_all(&mut conn).await;
    assert_eq!(log(pool).await, [(1, 1), (2, 2)]);
    let reader = Subscription {
        organization_id: organization(1),
        role: Role::Admin,
        filters: Filters::default(),
    };
    let start = events::head(pool).await.unwrap().epoch.at(0);
    assert_eq!(offsets(&page(pool, &reader, start, 50).await), [2]);
    assert_eq!(events::count_after(pool, &reader, 0, 2).await.unwrap(), 1);
}
