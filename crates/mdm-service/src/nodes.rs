//! What each node says of itself, and what is known of the others.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use mdm_core::{Timestamp, ids::NodeId};
use mdm_store::{
    StoreError, events,
    nodes::{self, Node},
};
use tokio_util::sync::CancellationToken;

use crate::services::Services;

const EVERY: Duration = Duration::from_secs(1);
/// What was read longer ago is not told any more: the database may be away.
const KNOWN_FOR: Duration = Duration::from_secs(5);

/// The other nodes, as the database had them a second ago.
#[derive(Debug, Default)]
pub struct OtherNodes(Mutex<Option<(Instant, Vec<Node>)>>);

impl OtherNodes {
    fn read(&self) -> Vec<Node> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((at, nodes)) if at.elapsed() < KNOWN_FOR => nodes.clone(),
            _ => Vec::new(),
        }
    }

    fn learn(&self, nodes: Vec<Node>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((Instant::now(), nodes));
    }
}

/// What a node knows of itself. Cheap to clone.
#[derive(Clone)]
pub struct ThisNode {
    /// Which node.
    pub id: NodeId,
    /// Its version.
    pub version: &'static str,
    /// Since when it runs.
    pub started_at: Timestamp,
}

impl Services {
    /// This node as it is now.
    fn this_node(&self, subscribers: u64) -> Node {
        Node {
            id: self.this_node.id,
            version: self.this_node.version.to_owned(),
            is_leader: self.lead.is_held(),
            subscribers,
            devices: u64::try_from(self.channels.count()).unwrap_or(u64::MAX),
            started_at: self.this_node.started_at,
        }
    }

    /// All nodes that run: this one, which has so many subscribers, as it is now, the others as they
    /// were at most some seconds ago.
    pub fn nodes(&self, subscribers: u64) -> Vec<Node> {
        let mut nodes = self.other_nodes.read();
        nodes.push(self.this_node(subscribers));
        nodes.sort_by_key(|node| (node.started_at, node.id));
        nodes
    }

    /// Tells the others that this node is there; to be called before it takes requests.
    pub async fn announce_node(&self) -> Result<(), StoreError> {
        self.report_node(0).await
    }

    /// Tells the others of this node every second, and learns of them, until told to stop.
    pub async fn run_nodes(
        self,
        subscribers: impl Fn() -> u64 + Send + Sync,
        stop: CancellationToken,
    ) {
        loop {
            if let Err(error) = self.report_node(subscribers()).await {
                tracing::warn!(%error, "cannot tell the other nodes of this one; trying again");
            }
            let pause = stop.run_until_cancelled(tokio::time::sleep(EVERY));
            if pause.await.is_none() {
                break;
            }
        }
        if let Err(error) = self.forget_node().await {
            tracing::warn!(%error, "the other nodes will miss this one for some seconds");
        }
    }

    async fn report_node(&self, subscribers: u64) -> Result<(), StoreError> {
        let mut conn = self.pool.acquire().await?;
        nodes::report(&mut conn, &self.this_node(subscribers)).await?;
        let mut others = nodes::list(&mut conn).await?;
        others.retain(|node| node.id != self.this_node.id);
        self.other_nodes.learn(others);
        Ok(())
    }

    async fn forget_node(&self) -> Result<(), StoreError> {
        // Those of the pool may belong to workers that have ended already.
        let mut conn = events::connect_alone(&self.pool).await?;
        nodes::forget(&mut conn, self.this_node.id).await
    }
}
