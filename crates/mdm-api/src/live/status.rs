//! `GET /websocket/status`.

use actix_web::{HttpRequest, web};
use mdm_core::roles::Permission;
use mdm_proto::system::{WebSocketDetail, WebSocketStatus};
use mdm_store::{StoreError, events};

use super::{LiveState, worker::Worker};
use crate::problem::ApiError;

pub(super) async fn show(request: HttpRequest) -> Result<web::Json<WebSocketStatus>, ApiError> {
    let worker = super::worker(&request)?;
    let detail = match super::credential(&request) {
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
    Ok(web::Json(WebSocketStatus {
        status: status(&worker).to_owned(),
        connected_clients: worker.state().counters().connected(),
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
    let latest = parts.feed.position();
    let oldest = events::oldest(&parts.pool).await?;
    Ok(WebSocketDetail {
        connected_devices: (parts.connected_devices)(),
        events_published: parts.feed.published(),
        events_delivered: counters.delivered(),
        slow_consumers_disconnected: counters.slow(),
        oldest_cursor: latest.epoch.at(oldest).to_string(),
        latest_cursor: latest.to_string(),
        nodes: vec![parts.config.node.clone()],
    })
}
