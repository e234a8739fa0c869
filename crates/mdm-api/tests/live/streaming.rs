//! The stream as server-sent events.

use futures_util::StreamExt;
use mdm_core::roles::Role;
use serde_json::Value;

use crate::harness::{Live, PATIENCE, event, number, token};

/// One message of the stream.
#[derive(Debug, Default, PartialEq)]
struct Message {
    name: Option<String>,
    id: Option<String>,
    data: Value,
}

/// What a browser's `EventSource` would take out of the stream.
struct Source {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>>>>,
    text: String,
}

impl Source {
    async fn open(live: &Live, query: &str, last: Option<&str>) -> Self {
        let response = get(live, query, last).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            bytes: Box::pin(response.bytes_stream()),
            text: String::new(),
        }
    }

    /// The next block of lines; none at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.into();
                return Some(block);
            }
            let more = tokio::time::timeout(PATIENCE, self.bytes.next()).await;
            let more = more.expect("nothing arrived")?.unwrap();
            self.text.push_str(std::str::from_utf8(&more).unwrap());
        }
    }

    async fn next(&mut self) -> Option<Message> {
        loop {
            let mut message = Message::default();
            for line in self.block().await?.lines() {
                let (field, value) = line.split_once(": ").unwrap_or((line, ""));
                match field {
                    "event" => message.name = Some(value.to_owned()),
                    "id" => message.id = Some(value.to_owned()),
                    "data" => message.data = serde_json::from_str(value).unwrap(),
                    "retry" | ":" => {}
                    other => panic!("an unknown field: {other}"),
                }
            }
            if !message.data.is_null() {
                return Some(message);
            }
        }
    }

    async fn events(&mut self, count: usize) -> Vec<Message> {
        let mut events = Vec::new();
        while events.len() < count {
            let message = self.next().await.expect("the stream has ended");
            assert_eq!(message.name, None, "{message:?}");
            assert_eq!(message.id.as_deref(), message.data["id"].as_str());
            events.push(message);
        }
        events
    }
}

async fn get(live: &Live, query: &str, last: Option<&str>) -> reqwest::Response {
    let url = format!("http://{}/api/v1/events/stream?{query}", live.address);
    // Another test may have installed it already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let request = reqwest::Client::new().get(url);
    let request = match last {
        Some(last) => request.header("Last-Event-ID", last),
        None => request,
    };
    request.send().await.unwrap()
}

fn signed_in(role: Role) -> String {
    format!("token={}", token(role))
}

#[actix_web::test]
async fn a_browser_gets_events_and_goes_on_where_it_was() {
    let live = Live::start().await;
    let query = signed_in(Role::Operator);
    let mut source = Source::open(&live, &query, None).await;
    let welcome = source.next().await.unwrap();
    assert_eq!(welcome.name.as_deref(), Some("welcome"));
    assert_eq!(
        welcome.id.as_deref(),
        welcome.data["data"]["cursor"].as_str()
    );
    live.append(&[event(1), event(2), event(3)]).await;
    let seen = source.events(2).await;
    drop(source);
    live.append(&[event(4)]).await;
    // As a browser does it: the same address, and the last id that it saw.
    let mut again = Source::open(&live, &query, seen[1].id.as_deref()).await;
    let welcome = again.next().await.unwrap();
    assert_eq!(
        (&welcome.data["data"]["recovered"], &welcome.id),
        (&true.into(), &None)
    );
    let rest = again.events(2).await;
    let numbers: Vec<_> = seen
        .iter()
        .chain(&rest)
        .map(|message| number(&message.data))
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    live.stop().await;
}

#[actix_web::test]
async fn a_viewer_gets_no_results_here_either() {
    let live = Live::start().await;
    let mut source = Source::open(&live, &signed_in(Role::Viewer), None).await;
    source.next().await.unwrap();
    live.append(&[event(1)]).await;
    let seen = source.events(1).await;
    assert_eq!(seen[0].data["data"]["status"], "completed");
    assert!(seen[0].data["data"]["result"].is_null());
    live.stop().await;
}

#[actix_web::test]
async fn the_end_of_the_token_is_told_and_ends_the_stream() {
    let live = Live::start().await;
    let mut source = Source::open(&live, "token=viewer.1.9.2", None).await;
    let mut last = source.next().await.unwrap();
    while let Some(message) = source.next().await {
        last = message;
    }
    assert_eq!(last.name.as_deref(), Some("closed"));
    assert_eq!(last.data["code"], 4401);
    live.wait_until("its place is free", |state| {
        state.counters().connected() == 0
    })
    .await;
    live.stop().await;
}

#[actix_web::test]
async fn what_cannot_be_streamed_is_refused_before_the_stream() {
    let live = Live::start().await;
    assert_eq!(get(&live, "", None).await.status(), 401);
    let query = signed_in(Role::Viewer);
    assert_eq!(get(&live, &query, Some("nonsense")).await.status(), 422);
    let types = format!("{query}&types=unknown");
    assert_eq!(get(&live, &types, None).await.status(), 422);
    assert_eq!(live.state.counters().connected(), 0);
    live.stop().await;
}
