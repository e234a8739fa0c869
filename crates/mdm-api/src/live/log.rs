//! `GET /events`: the log, piece by piece.

use actix_web::{HttpRequest, http::StatusCode, web};
use mdm_core::{ids::DeviceId, roles::Permission};
use mdm_events::{Cursor, Subscription, View};
use mdm_proto::events::EventPage;
use mdm_store::events::{self, PageQuery};
use serde_json::value::RawValue;

use super::filters;
use crate::{
    extract::{Params, credential},
    problem::ApiError,
};

pub(super) async fn list(
    request: &HttpRequest,
    of_device: Option<DeviceId>,
) -> Result<web::Json<EventPage>, ApiError> {
    let worker = super::worker(request)?;
    let parts = worker.parts();
    let token = credential(request).ok_or_else(|| {
        ApiError::unauthorized(
            "TOKEN_MISSING",
            "send an access token as 'Authorization: Bearer …' or an API key as 'X-API-Key'",
        )
    })?;
    let claims = parts.tokens.verify(token).await?;
    if !claims.permissions.contain(Permission::ReadEvents) {
        return Err(ApiError::forbidden("the role may not read events"));
    }
    let mut params = Params::of(request)?;
    let limit = params.take_number("limit", 1, 500)?.unwrap_or(50);
    let after = params.take_parsed::<Cursor>("after")?;
    let subscription = Subscription {
        organization_id: claims.organization_id,
        role: claims.role,
        filters: match of_device {
            Some(device) => filters::of_one_device(&mut params, device)?,
            None => filters::of_query(&mut params)?,
        },
    };
    params.finish()?;
    let head = events::head(&parts.pool).await?;
    let oldest = events::oldest(&parts.pool).await?;
    let after = after.unwrap_or_else(|| head.epoch.at(oldest));
    if after.epoch != head.epoch || after.offset < oldest || after.offset > head.offset {
        return Err(gone(head));
    }
    let query = PageQuery {
        subscription: &subscription,
        after,
        until: head.offset,
        limit,
    };
    let page = events::read_page(&parts.pool, query).await?;
    let view = View::of(claims.role);
    let events: Result<Vec<_>, _> = page
        .events
        .iter()
        .map(|event| RawValue::from_string(event.json(view)))
        .collect();
    Ok(web::Json(EventPage {
        events: events.map_err(mdm_store::StoreError::from)?,
        next_cursor: page.next.to_string(),
    }))
}

fn gone(head: Cursor) -> ApiError {
    let detail = format!(
        "the log does not go on from this cursor: it is older than what is kept, or of another \
         history. Read the present state of things, then go on after {head}"
    );
    ApiError::new(StatusCode::GONE, "CURSOR_GONE", "Gone", detail)
}
