//! Who gets events: tickets, ends of sessions, groups.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::app::{Answer, TestApp, text};

const PATIENCE: Duration = Duration::from_secs(10);

/// A subscriber of the event stream.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(app: &TestApp, query: &str) -> Self {
        let url = app.url.replacen("http", "ws", 1);
        let (socket, _) = connect_async(format!("{url}/ws?{query}")).await.unwrap();
        let mut socket = Self(socket);
        assert_eq!(socket.frame().await.unwrap()["type"], "welcome");
        socket
    }

    /// The next frame, or the code with which the connection was closed.
    async fn frame(&mut self) -> Result<Value, u16> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next()).await;
            match message.expect("nothing arrived").unwrap().unwrap() {
                Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                Message::Close(Some(frame)) => return Err(frame.code.into()),
                _ => {}
            }
        }
    }

    async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            let frame = self.frame().await.unwrap();
            if frame["id"].is_string() {
                events.push(frame);
            }
        }
        events
    }

    /// The code of the close frame, after whatever comes before, and when it came.
    async fn closed(&mut self) -> (u16, Instant) {
        loop {
            if let Err(code) = self.frame().await {
                return (code, Instant::now());
            }
        }
    }
}

async fn ticket(app: &TestApp, token: &str) -> String {
    let issued = app
        .post("/api/v1/auth/ws-ticket", token, Value::Null)
        .await
        .expect(201);
    text(&issued, "ticket").to_owned()
}

/// The answer to a ticket that is not taken.
async fn refused(app: &TestApp, ticket: &str) -> Answer {
    let path = format!("/api/v1/events/stream?ticket={ticket}");
    TestApp::read(app.request("GET", &path)).await
}

#[actix_web::test]
async fn a_ticket_opens_one_connection_as_whom_it_was_got_by() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let ticket = ticket(&app, &admin).await;
    let mut socket = Socket::open(&app, &format!("ticket={ticket}")).await;
    app.user("u@example.org", "viewer").await;
    let user = json!({ "email": "v@example.org", "password": "a good long password" });
    app.post("/api/v1/users", &admin, user).await.expect(201);
    assert_eq!(socket.events(1).await[0]["type"], "user_changed");
    refused(&app, &ticket)
        .await
        .expect_problem(401, "TICKET_INVALID");
}

#[actix_web::test]
async fn a_ticket_is_worth_no_more_than_its_session() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let ticket = ticket(&app, &admin).await;
    app.post("/api/v1/auth/logout", &admin, Value::Null)
        .await
        .expect(204);
    refused(&app, &ticket)
        .await
        .expect_problem(401, "SESSION_ENDED");
    for nonsense in ["nonsense", "mdmt_nonsense"] {
        refused(&app, nonsense)
            .await
            .expect_problem(401, "TICKET_INVALID");
    }
    let late = self::ticket(&app, &app.admin().await).await;
    sqlx::query("UPDATE socket_tickets SET expires_at = now()")
        .execute(app.database.pool())
        .await
        .unwrap();
    refused(&app, &late)
        .await
        .expect_problem(401, "TICKET_INVALID");
}

#[actix_web::test]
async fn who_loses_session_role_or_account_loses_the_connection_within_a_second() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let user =
        json!({ "email": "u@example.org", "password": "a good long password", "role": "operator" });
    let user = app.post("/api/v1/users", &admin, user).await.expect(201);
    let path = format!("/api/v1/users/{}", text(&user, "id"));
    let login = async || {
        let body = json!({ "email": "u@example.org", "password": "a good long password" });
        let answer = app
            .call("POST", "/api/v1/auth/login", None, Some(body))
            .await;
        text(&answer.expect(200), "token").to_owned()
    };
    for end in [
        None,
        Some(json!({ "role": "viewer" })),
        Some(json!({ "disabled": true })),
    ] {
        let token = login().await;
        let mut socket = Socket::open(&app, &format!("token={token}")).await;
        let begun = Instant::now();
        match end {
            None => app
                .post("/api/v1/auth/logout", &token, Value::Null)
                .await
                .expect(204),
            Some(change) => app
                .call("PUT", &path, Some(&admin), Some(change))
                .await
                .expect(200),
        };
        let (code, at) = socket.closed().await;
        assert_eq!(code, 4403);
        assert!(at - begun < Duration::from_secs(1), "{:?}", at - begun);
    }
}

#[actix_web::test]
async fn who_follows_a_group_gets_what_its_members_do_while_they_are_in() {
    let app = TestApp::start().await;
    let admin = app.admin().await;
    let (inside, _) = app.enroll(&admin, "hw-in").await;
    let (outside, _) = app.enroll(&admin, "hw-out").await;
    let group = json!({ "name": "g" });
    let group = app
        .post("/api/v1/device-groups", &admin, group)
        .await
        .expect(201);
    let members = format!("/api/v1/device-groups/{}/devices", text(&group, "id"));
    let query = format!("token={admin}&group_id={}", text(&group, "id"));
    let mut socket = Socket::open(&app, &query).await;
    let rename = async |device: &Value, to: &str| {
        let path = format!("/api/v1/devices/{}", text(device, "id"));
        let change = json!({ "hostname": to });
        app.call("PUT", &path, Some(&admin), Some(change))
            .await
            .expect(200);
    };
    let member = format!("{members}/{}", text(&inside, "id"));
    rename(&inside, "before").await;
    app.post(&member, &admin, Value::Null).await.expect(201);
    rename(&inside, "during").await;
    rename(&outside, "elsewhere").await;
    app.call("DELETE", &member, Some(&admin), None)
        .await
        .expect(204);
    rename(&inside, "after").await;
    app.post(&member, &admin, Value::Null).await.expect(201);
    rename(&inside, "again").await;
    let told = |events: &[Value]| -> Vec<String> {
        let tell = |event: &Value| match event["data"]["action"].as_str() {
            Some(action) => action.to_owned(),
            None => text(&event["data"], "hostname").to_owned(),
        };
        events.iter().map(tell).collect()
    };
    let live = socket.events(5).await;
    assert_eq!(
        told(&live),
        ["added", "during", "removed", "added", "again"]
    );
    // Who comes back later gets the same: it counts who was in when it happened.
    let path = format!("/api/v1/events?group_id={}", text(&group, "id"));
    let replayed = app.get(&path, &admin).await.expect(200);
    assert_eq!(replayed["events"].as_array().unwrap(), &live);
}
