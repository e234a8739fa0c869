//! A subscriber's beginning: the welcome, what it missed, and the way into the live events.

use std::{rc::Rc, time::Duration};

use mdm_events::{Cursor, hub::Resumption};
use mdm_proto::channel::close;
use mdm_store::{
    StoreError,
    events::{self, PageQuery},
};

use super::{client::Client, worker::Worker};

/// How many events from the log wait for the client at a time.
const PAGE: i64 = 64;
/// How long the client may take to read a page.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn open(worker: Rc<Worker>, client: Rc<Client>, after: Option<Cursor>) {
    if let Err(error) = begin(&worker, &client, after).await {
        tracing::warn!(connection = %client.id, %error, "old events cannot be read");
        let reason = "old events cannot be read at the moment: connect again";
        let now = std::time::Instant::now();
        client.connection().close(now, close::GOING_AWAY, reason);
    }
}

async fn begin(worker: &Worker, client: &Client, after: Option<Cursor>) -> Result<(), StoreError> {
    let shard = worker.shard();
    let Some(after) = after else {
        client.welcome(worker.now(), shard.position(), None);
        shard.go_live(client.connection());
        return Ok(());
    };
    let subscription = client.connection().subscription();
    match shard.resumption(&subscription, after) {
        // Nothing else runs in this thread between the count and the joining.
        Resumption::Recent { replayed } => {
            client.welcome(worker.now(), shard.position(), Some(replayed));
            follow_or_resync(worker, client, after);
        }
        Resumption::InLog => replay_log(worker, client, after).await?,
        Resumption::Ahead => {
            let head = events::head(&worker.parts().pool).await?;
            if head.epoch == after.epoch && after.offset <= head.offset {
                client.welcome(worker.now(), after, Some(0));
                follow_or_resync(worker, client, after);
            } else {
                refuse(worker, client, "from_the_future");
            }
        }
        Resumption::OtherEpoch => refuse(worker, client, "other_epoch"),
    }
    Ok(())
}

/// The cursor is good for nothing: the client begins anew.
fn refuse(worker: &Worker, client: &Client, reason: &str) {
    client.welcome(worker.now(), worker.shard().position(), None);
    worker.resync(client, reason);
}

/// Joins the live events. The ring may have moved on or been reset if something was waited for.
fn follow_or_resync(worker: &Worker, client: &Client, after: Cursor) {
    if worker.shard().follow(client.connection(), after).is_err() {
        worker.resync(client, "too_old");
    }
}

/// Replays what is only in the log, until the recent events reach far enough back.
async fn replay_log(worker: &Worker, client: &Client, after: Cursor) -> Result<(), StoreError> {
    let (shard, pool) = (worker.shard(), &worker.parts().pool);
    let Ok(_permit) = worker.state().0.log_readers.acquire().await else {
        return Ok(());
    };
    if after.offset < events::oldest(pool).await? {
        refuse(worker, client, "too_old");
        return Ok(());
    }
    let subscription = client.connection().subscription();
    let position = shard.position();
    let replayed = events::count_after(pool, &subscription, after.offset, position.offset).await?;
    client.welcome(worker.now(), position, Some(replayed));
    let mut reached = after;
    while shard.follow(client.connection(), reached).is_err() {
        let position = shard.position();
        if position.epoch != reached.epoch {
            worker.resync(client, "other_epoch");
            return Ok(());
        }
        let subscription = client.connection().subscription();
        let query = PageQuery {
            subscription: &subscription,
            after: reached,
            until: position.offset,
            limit: PAGE,
        };
        let page = events::read_page(pool, query).await?;
        // What retention took away since the last look would be missing from the page.
        if reached.offset < events::oldest(pool).await? {
            worker.resync(client, "too_old");
            return Ok(());
        }
        let now = std::time::Instant::now();
        shard.replay(client.connection(), now, &page.events);
        reached = page.next;
        let drained = client.connection().drained();
        if tokio::time::timeout(PATIENCE, drained).await.is_err() {
            shard.close_slow(client.connection(), std::time::Instant::now());
        }
        if client.connection().closing_since().is_some() {
            return Ok(());
        }
    }
    Ok(())
}
