//! Webhooks, for administrators.

use actix_web::{HttpRequest, HttpResponse, delete, get, http::header, post, put, web};
use mdm_core::ids::{WebhookDeliveryId, WebhookId};
use mdm_proto::{
    patch::Patch,
    webhooks::{
        CreateWebhook, CreatedWebhook, UpdateWebhook, Webhook, WebhookDelivery,
        WebhookDeliveryList, WebhookList,
    },
};
use mdm_service::webhooks::{NewWebhook, WebhookChange, WebhookError};
use mdm_store::webhooks::{
    self,
    deliveries::{self, DeliveryFilter},
};
use secrecy::ExposeSecret as _;
use utoipa_actix_web::service_config::ServiceConfig;

use crate::{
    extract::{Params, SignedIn, StrictJson, if_match, list_request, not_null},
    mapping,
    openapi::params,
    problem::ApiError,
    routes::with_etag,
    state::AppState,
};

/// Adds the routes below `/api/v1`.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .service(create)
        .service(list)
        .service(get)
        .service(update)
        .service(delete)
        .service(list_deliveries)
        .service(replay)
        .service(test);
}

fn id(text: &str) -> Result<WebhookId, ApiError> {
    text.parse()
        .map_err(|_malformed| WebhookError::NotFound.into())
}

/// Makes a webhook, which gets the events from now on. Its secret is shown this once.
#[utoipa::path(tag = "webhooks", request_body = CreateWebhook, responses((status = 201, body = CreatedWebhook)))]
#[post("/webhooks")]
async fn create(
    state: web::Data<AppState>,
    caller: SignedIn,
    StrictJson(body): StrictJson<CreateWebhook>,
) -> Result<HttpResponse, ApiError> {
    let new = NewWebhook {
        name: body.name,
        url: body.url,
        event_types: body.event_types,
        enabled: body.enabled.unwrap_or(true),
    };
    let (webhook, secret) = state.services.create_webhook(&caller.ctx, new).await?;
    let location = format!("/api/v1/webhooks/{}", webhook.id);
    let body = CreatedWebhook {
        webhook: mapping::webhook(webhook),
        secret: secret.expose_secret().to_owned(),
    };
    Ok(HttpResponse::Created()
        .insert_header((header::LOCATION, location))
        .json(body))
}

/// A page of the webhooks.
#[utoipa::path(tag = "webhooks", params(params::Page), responses((status = 200, body = WebhookList)))]
#[get("/webhooks")]
async fn list(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
) -> Result<web::Json<WebhookList>, ApiError> {
    let mut params = Params::of(&request)?;
    let page = list_request(&mut params, &webhooks::SORTING)?;
    params.finish()?;
    let listed = state.services.list_webhooks(&caller.ctx, &page).await?;
    Ok(web::Json(mapping::webhook_list(listed, &page)))
}

/// A webhook: where it stands, and what went wrong the last time.
#[utoipa::path(tag = "webhooks", responses((status = 200, body = Webhook)))]
#[get("/webhooks/{id}")]
async fn get(
    state: web::Data<AppState>,
    caller: SignedIn,
    webhook_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let found = state
        .services
        .get_webhook(&caller.ctx, id(&webhook_id)?)
        .await?;
    let version = found.version;
    Ok(with_etag(version, &mapping::webhook(found)))
}

/// Changes a webhook. The next event is tried at once; one that was disabled goes on where it stood.
#[utoipa::path(tag = "webhooks", params(params::IfMatch), request_body = UpdateWebhook,
    responses((status = 200, body = Webhook)))]
#[put("/webhooks/{id}")]
async fn update(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    webhook_id: web::Path<String>,
    StrictJson(body): StrictJson<UpdateWebhook>,
) -> Result<HttpResponse, ApiError> {
    let change = WebhookChange {
        name: not_null("/name", body.name)?,
        url: not_null("/url", body.url)?,
        event_types: match body.event_types {
            Patch::Absent => None,
            Patch::Null => Some(Vec::new()),
            Patch::Value(types) => Some(types),
        },
        enabled: not_null("/enabled", body.enabled)?,
        if_version: if_match(&request),
    };
    let changed = state
        .services
        .update_webhook(&caller.ctx, id(&webhook_id)?, change)
        .await?;
    let version = changed.version;
    Ok(with_etag(version, &mapping::webhook(changed)))
}

/// Deletes a webhook, with its deliveries.
#[utoipa::path(tag = "webhooks", responses((status = 204)))]
#[delete("/webhooks/{id}")]
async fn delete(
    state: web::Data<AppState>,
    caller: SignedIn,
    webhook_id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    state
        .services
        .delete_webhook(&caller.ctx, id(&webhook_id)?)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A page of the attempts to deliver events, the newest first.
#[utoipa::path(tag = "webhooks", params(params::Page, params::Deliveries),
    responses((status = 200, body = WebhookDeliveryList)))]
#[get("/webhooks/{id}/deliveries")]
async fn list_deliveries(
    state: web::Data<AppState>,
    request: HttpRequest,
    caller: SignedIn,
    webhook_id: web::Path<String>,
) -> Result<web::Json<WebhookDeliveryList>, ApiError> {
    let mut params = Params::of(&request)?;
    let page = list_request(&mut params, &deliveries::SORTING)?;
    let filter = DeliveryFilter {
        webhook_id: id(&webhook_id)?,
        delivered: params.take_parsed("delivered")?,
    };
    params.finish()?;
    let listed = state
        .services
        .list_webhook_deliveries(&caller.ctx, &filter, &page)
        .await?;
    Ok(web::Json(mapping::webhook_delivery_list(listed, &page)))
}

/// Posts the event of a delivery once more, now and out of order, and says what became of it.
#[utoipa::path(tag = "webhooks", responses((status = 200, body = WebhookDelivery),
    (status = 410, description = "The event is not kept any more")))]
#[post("/webhooks/{id}/deliveries/{delivery}/replay")]
async fn replay(
    state: web::Data<AppState>,
    caller: SignedIn,
    path: web::Path<(String, String)>,
) -> Result<web::Json<WebhookDelivery>, ApiError> {
    let (webhook_id, delivery) = path.into_inner();
    let delivery: Result<WebhookDeliveryId, _> = delivery.parse();
    let delivery = delivery.map_err(|_malformed| WebhookError::DeliveryNotFound)?;
    let replayed = state
        .services
        .replay_webhook_delivery(&caller.ctx, id(&webhook_id)?, delivery)
        .await?;
    Ok(web::Json(mapping::webhook_delivery(replayed)))
}

/// Posts a message of the type `webhook_test`, now, and says what became of it.
#[utoipa::path(tag = "webhooks", responses((status = 200, body = WebhookDelivery)))]
#[post("/webhooks/{id}/test")]
async fn test(
    state: web::Data<AppState>,
    caller: SignedIn,
    webhook_id: web::Path<String>,
) -> Result<web::Json<WebhookDelivery>, ApiError> {
    let tested = state
        .services
        .test_webhook(&caller.ctx, id(&webhook_id)?)
        .await?;
    Ok(web::Json(mapping::webhook_delivery(tested)))
}
