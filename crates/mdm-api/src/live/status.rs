//! `GET /websocket/status`.

use actix_web::{HttpRequest, web};
use mdm_core::roles::Permission;
use mdm_proto::system::{ServerNode, WebSocketDetail, WebSocketStatus};
use mdm_store::{StoreError, events, nodes::Node};

use super::{LiveState, worker::Worker};
use crate::{extract::credential, problem::ApiError};

pub(super) async fn show(request: HttpRequest) -> Result<web::Json<WebSocketStatus>, ApiError> {
    let worker = super::worker(&request)?;
    let detail = match credential(&request) {
        Some(token) => {
            let claims = worker.parts().tokens.verify(token).await?;
            if claims.permissions.contain(Permission::ReadStatus) {
                Some(detail(worker.state()).await?)
            } else {
                None
            }
        }
        None => None,
    };
    let nodes = nodes(worker.state());
    Ok(web::Json(WebSocketStatus {
        status: status(&worker).to_owned(),
        connected_clients: nodes.iter().map(|node| node.subscribers).sum(),
        detail,
    }))
}

fn status(worker: &Worker) -> &'static str {
    if worker.is_draining() {
        "stopping"
    } else {
        "running"
    }
}

async fn detail(state: &LiveState) -> Result<WebSocketDetail, StoreError> {
    let parts = state.parts();
    let counters = state.counters();
    let nodes = nodes(state);
    let latest = parts.feed.position();
    let oldest = events::oldest(&parts.pool).await?;
    Ok(WebSocketDetail {
        connected_devices: nodes.iter().map(|node| node.devices).sum(),
        events_published: parts.feed.published(),
        events_delivered: counters.delivered(),
        slow_consumers_disconnected: counters.slow(),
        oldest_cursor: latest.epoch.at(oldest).to_string(),
        latest_cursor: latest.to_string(),
        nodes: nodes.into_iter().map(node).collect(),
    })
}

fn nodes(state: &LiveState) -> Vec<Node> {
    (state.parts().nodes)(state.counters().connected())
}

fn node(node: Node) -> ServerNode {
    ServerNode {
        id: node.id.uuid(),
        version: node.version,
        is_leader: node.is_leader,
        connected_clients: node.subscribers,
        connected_devices: node.devices,
        started_at: node.started_at.into(),
    }
}
