//! `GET /ws`: from an HTTP request to a subscriber.

use std::{rc::Rc, time::Instant};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use actix_ws::{MessageStream, Session};
use mdm_core::{ids::ConnectionId, roles::Permission, sessions::AccessClaims};
use mdm_events::{Cursor, Filters, Subscription};
use mdm_proto::channel::close;
use secrecy::ExposeSecret as _;

use super::{
    body::{FrameBody, Portion},
    client::Client,
    filters,
    inbound::{self, MAX_MESSAGE},
    resume,
    seats::Seat,
    socket::SocketHandle,
    worker::Worker,
};
use crate::{
    extract::{Params, credential},
    frame_guard::guarded,
    problem::ApiError,
};

/// The subprotocol under which browsers, which can set no headers, may send their token.
const SUBPROTOCOL: &str = "bearer";

/// What the client asks for.
pub(super) struct Wanted {
    filters: Filters,
    pub(super) after: Option<Cursor>,
}

/// Whether a client says anything once it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    /// It answers pings: its silence means that it is gone.
    Answers,
    /// It has no way to.
    Nothing,
}

pub(super) async fn connect(
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let worker = super::worker(&request)?;
    let payload = guarded(&request, payload, MAX_MESSAGE).await?;
    let (claims, wanted) = admit(&worker, &request).await?;
    let upgraded = actix_ws::handle_with_protocols(&request, payload, &[SUBPROTOCOL]);
    let upgraded = upgraded.map_err(|error| {
        let detail = format!("this route takes WebSocket upgrades only (RFC 6455): {error}");
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "NOT_A_WEBSOCKET",
            "Bad request",
            detail,
        )
    })?;
    Ok(subscribe(&worker, &request, upgraded, claims, wanted))
}

/// Checks who comes from where, and what for. Nothing may be waited for between this and
/// [`enter`]: the end of the session either made the token bad, or finds the client among the
/// worker's.
pub(super) async fn admit(
    worker: &Worker,
    request: &HttpRequest,
) -> Result<(AccessClaims, Wanted), ApiError> {
    check_origin(request, &worker.parts().config.allowed_origins)?;
    let mut params = Params::of(request)?;
    let tokens = &worker.parts().tokens;
    let token = match params.take("ticket") {
        Some(ticket) => tokens.redeem(&ticket).await?,
        None => token(request, &mut params)?.into(),
    };
    let wanted = Wanted {
        filters: filters::of_query(&mut params)?,
        after: params.take_parsed("after")?,
    };
    params.finish()?;
    let claims = tokens.verify(token.expose_secret()).await?;
    if !claims.permissions.contain(Permission::ReadEvents) {
        return Err(ApiError::forbidden("the role may not follow events"));
    }
    if worker.is_draining() {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let detail = "the server is stopping: connect again";
        return Err(ApiError::new(
            status,
            "STOPPING",
            "Temporarily unavailable",
            detail,
        ));
    }
    Ok((claims, wanted))
}

/// Seats a client. Without a seat there were too many connections already.
pub(super) fn enter(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    claims: AccessClaims,
    wanted: Wanted,
    hearing: Hearing,
) -> (Rc<Client>, Option<Seat>) {
    let now = Instant::now();
    let parts = worker.parts();
    let address = request.peer_addr().map(|address| address.ip());
    let seat = worker.state().0.seats.take(claims.user_id, address);
    let socket = request.conn_data::<SocketHandle>().copied();
    socket.inspect(|socket| socket.tune());
    let subscription = Subscription {
        organization_id: claims.organization_id,
        role: claims.role,
        filters: wanted.filters,
    };
    let connection = worker.shard().open(subscription, now);
    let id = ConnectionId::new(&*parts.clock, &*parts.entropy);
    let client = Rc::new(Client::new(id, connection, claims, socket, hearing));
    worker.join(&client);
    (client, seat)
}

fn subscribe(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    (response, session, stream): (HttpResponse, Session, MessageStream),
    claims: AccessClaims,
    wanted: Wanted,
) -> HttpResponse {
    let after = wanted.after;
    let (client, seat) = enter(worker, request, claims, wanted, Hearing::Answers);
    if seat.is_some() {
        let opening = resume::open(Rc::clone(worker), Rc::clone(&client), after);
        actix_web::rt::spawn(opening);
    } else {
        let reason = "too many connections of this user or from this address";
        client
            .connection()
            .close(Instant::now(), close::TOO_MANY_CONNECTIONS, reason);
    }
    actix_web::rt::spawn(inbound::listen(
        Rc::clone(worker),
        Rc::clone(&client),
        session,
        stream,
    ));
    let worker = Rc::clone(worker);
    let response = response.map_body(|_head, inner| FrameBody {
        worker,
        client,
        inner,
        portion: Portion::default(),
        _seat: seat,
    });
    response.map_into_boxed_body()
}

/// The token, from where each kind of client can put it.
fn token(request: &HttpRequest, params: &mut Params) -> Result<String, ApiError> {
    let in_query = params.take("token");
    let in_header = || credential(request).map(str::to_owned);
    let token = in_query
        .or_else(in_header)
        .or_else(|| in_subprotocol(request));
    token.ok_or_else(|| {
        let detail = "send an access token as 'Authorization: Bearer …', as the query parameter token, as the subprotocols 'bearer, <token>', or a ticket of POST /auth/ws-ticket as the query parameter ticket";
        ApiError::unauthorized("TOKEN_MISSING", detail)
    })
}

/// `Sec-WebSocket-Protocol: bearer, <token>`.
fn in_subprotocol(request: &HttpRequest) -> Option<String> {
    let headers = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut offered = headers
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    offered.find(|protocol| *protocol == SUBPROTOCOL)?;
    offered.next().map(str::to_owned)
}

/// A browser tells which page connects (RFC 6455, section 10.2), and other programs tell nothing.
/// A page of another site must not ride on what the browser knows of its user.
fn check_origin(request: &HttpRequest, allowed: &[String]) -> Result<(), ApiError> {
    let Some(origin) = request.headers().get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default();
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let same = origin
        .split_once("://")
        .is_some_and(|(_scheme, authority)| authority.eq_ignore_ascii_case(host));
    let listed = allowed
        .iter()
        .any(|allowed| allowed.eq_ignore_ascii_case(origin));
    if same || listed {
        Ok(())
    } else {
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "ORIGIN_REFUSED",
            "Not permitted",
            "pages of this origin may not connect",
        ))
    }
}
