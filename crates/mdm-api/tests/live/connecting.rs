use std::time::Duration;

use mdm_api::live::{LiveConfig, SeatLimits};
use mdm_core::roles::Role;
use tokio_tungstenite::tungstenite::{self, http::header};

use crate::harness::{Client, Live, event, token};

async fn refused(live: &Live, request: tungstenite::http::Request<()>) -> (u16, String) {
    match live.open(request).await {
        Err(tungstenite::Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            (response.status().as_u16(), String::from_utf8(body).unwrap())
        }
        other => panic!("the upgrade was not refused: {:?}", other.err()),
    }
}

#[actix_web::test]
async fn without_a_valid_token_there_is_no_upgrade() {
    let live = Live::start().await;
    for path in ["/ws", "/ws?token=nonsense", "/api/v1/ws"] {
        let (status, body) = refused(&live, live.request(path)).await;
        assert_eq!(status, 401, "{path}: {body}");
        assert!(body.contains(r#""status":401"#), "a problem: {body}");
    }
    assert_eq!(live.state.counters().connected(), 0);
    live.stop().await;
}

#[actix_web::test]
async fn the_token_may_come_in_the_header_or_as_a_subprotocol() {
    let live = Live::start().await;
    let mut in_header = live.request("/api/v1/ws");
    let value = format!("Bearer {}", token(Role::Viewer)).parse().unwrap();
    in_header.headers_mut().insert(header::AUTHORIZATION, value);
    assert_eq!(
        live.open(in_header).await.unwrap().frame().await["type"],
        "welcome"
    );
    let mut in_protocol = live.request("/ws");
    let value = format!("bearer, {}", token(Role::Viewer)).parse().unwrap();
    in_protocol
        .headers_mut()
        .insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    let (socket, response) = tokio_tungstenite::connect_async(in_protocol).await.unwrap();
    assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], "bearer");
    assert_eq!(Client(socket).frame().await["type"], "welcome");
    live.stop().await;
}

#[actix_web::test]
async fn a_page_of_another_site_is_refused() {
    let live = Live::start().await;
    let path = format!("/ws?token={}", token(Role::Viewer));
    let mut foreign = live.request(&path);
    foreign
        .headers_mut()
        .insert(header::ORIGIN, "http://evil.example".parse().unwrap());
    assert_eq!(refused(&live, foreign).await.0, 403);
    let mut own = live.request(&path);
    let origin = format!("http://{}", live.address).parse().unwrap();
    own.headers_mut().insert(header::ORIGIN, origin);
    assert!(live.open(own).await.is_ok());
    live.stop().await;
}

#[actix_web::test]
async fn a_filter_that_means_nothing_is_refused() {
    let live = Live::start().await;
    for query in [
        "types=weather",
        "types=session_ended",
        "device_id=7",
        "after=7",
        "colour=red",
    ] {
        let path = format!("/ws?token={}&{query}", token(Role::Admin));
        assert_eq!(refused(&live, live.request(&path)).await.0, 422, "{query}");
    }
    live.stop().await;
}

#[actix_web::test]
async fn one_connection_too_many_is_closed() {
    let live = Live::with(LiveConfig {
        seats: SeatLimits {
            per_user: 2,
            per_address: 100,
        },
        ..LiveConfig::default()
    })
    .await;
    let (first, _) = live.connect(Role::Viewer, "").await;
    let (_second, _) = live.connect(Role::Viewer, "").await;
    let path = format!("/ws?token={}", token(Role::Viewer));
    let mut third = live.open(live.request(&path)).await.unwrap();
    assert_eq!(third.close_code().await, 4429);
    drop(first);
    live.wait_until("the place is free", |state| {
        state.counters().connected() == 1
    })
    .await;
    live.connect(Role::Viewer, "").await;
    live.stop().await;
}

#[actix_web::test]
async fn a_token_that_ends_takes_its_connection_along() {
    let live = Live::start().await;
    let mut client = live
        .open(live.request("/ws?token=viewer.1.9.2"))
        .await
        .unwrap();
    assert_eq!(client.frame().await["type"], "welcome");
    assert_eq!(client.frame().await["type"], "token_expiring");
    assert_eq!(client.close_code().await, 4401);
    live.stop().await;
}

#[actix_web::test]
async fn a_newer_token_of_the_same_session_keeps_it_open() {
    let live = Live::start().await;
    let mut client = live
        .open(live.request("/ws?token=viewer.1.9.2"))
        .await
        .unwrap();
    assert_eq!(client.frame().await["type"], "welcome");
    let foreign = serde_json::json!({"type": "authenticate", "data": {"token": "admin.1.8.900"}});
    client.say(foreign).await;
    let mut frame = client.frame().await;
    if frame["type"] == "token_expiring" {
        frame = client.frame().await;
    }
    assert_eq!(frame["data"]["code"], "OTHER_SESSION");
    // The new token also has a higher role, which holds at once.
    let newer = serde_json::json!({"type": "authenticate", "data": {"token": "operator.1.9.900"}});
    client.say(newer).await;
    while frame["type"] != "authenticated" {
        frame = client.frame().await;
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    live.append(&[event(5)]).await;
    assert_eq!(crate::harness::number(&client.events(1).await[0]), 5);
    live.stop().await;
}

#[actix_web::test]
async fn who_is_silent_for_too_long_is_closed() {
    let live = Live::with(LiveConfig {
        silence: Duration::from_secs(1),
        ..LiveConfig::default()
    })
    .await;
    let (mut client, _) = live.connect(Role::Viewer, "").await;
    assert_eq!(client.close_code().await, 4408);
    live.stop().await;
}

#[actix_web::test]
async fn a_server_that_stops_says_so_to_all() {
    let live = Live::start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(live.connect(Role::Viewer, "").await.0);
    }
    let closing = futures_util::future::join_all(clients.iter_mut().map(Client::close_code));
    let ((), codes) = futures_util::future::join(live.state.drain(), closing).await;
    assert!(codes.iter().all(|code| *code == 1001), "{codes:?}");
    let path = format!("/ws?token={}", token(Role::Viewer));
    assert_eq!(refused(&live, live.request(&path)).await.0, 503);
    live.stop().await;
}
