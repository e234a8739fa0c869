//! Server-sent events (WHATWG HTML, section 9.2), made of the frames that the hub queues for
//! sockets: each event is encoded once for both.
//!
//! Events of the log have no name, so that `onmessage` gets exactly them; control messages come
//! under their own names.

use bytes::{BufMut, Bytes, BytesMut};

use crate::websocket::{Sent, parse};

/// The first bytes of a stream: after how long a client shall connect again.
pub fn retry(millis: u16) -> Bytes {
    Bytes::from(format!("retry: {millis}\n\n"))
}

/// Writes a frame of a socket as a server-sent event.
pub fn encode(frame: &Bytes) -> Bytes {
    match parse(frame) {
        Some(Sent::Text(text)) => event(&text),
        Some(Sent::Close { code, reason }) => {
            let data = serde_json::json!({ "code": code, "reason": reason });
            Bytes::from(format!("event: closed\ndata: {data}\n\n"))
        }
        // A comment: it keeps proxies from taking the connection for idle.
        Some(Sent::Ping) | None => Bytes::from_static(b":\n\n"),
    }
}

/// JSON as this server writes it has no line breaks outside of its strings' escapes.
fn event(text: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len().saturating_add(96));
    if let Some(id) = value_after(text, b"{\"id\":\"") {
        out.put_slice(b"id: ");
        out.put_slice(id);
        out.put_u8(b'\n');
    } else if let Some(kind) = value_after(text, b"{\"type\":\"") {
        out.put_slice(b"event: ");
        out.put_slice(kind);
        out.put_u8(b'\n');
        if let Some(cursor) = reached(text) {
            out.put_slice(b"id: ");
            out.put_slice(cursor.as_bytes());
            out.put_u8(b'\n');
        }
    }
    out.put_slice(b"data: ");
    out.put_slice(text);
    out.put_slice(b"\n\n");
    out.freeze()
}

/// The position that a control message says the client has reached. The welcome before a replay
/// names one that it has yet to reach.
fn reached(text: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Control {
        data: Position,
    }
    #[derive(serde::Deserialize)]
    struct Position {
        cursor: Option<String>,
        #[serde(default)]
        recovered: bool,
    }
    let control: Control = serde_json::from_slice(text).ok()?;
    control.data.cursor.filter(|_| !control.data.recovered)
}

/// What stands between the prefix and the next quotation mark.
fn value_after<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let rest = text.strip_prefix(prefix)?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    rest.get(..end)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;
    use crate::{envelope::control, websocket};

    fn written(frame: &Bytes) -> String {
        String::from_utf8(encode(frame).to_vec()).unwrap()
    }

    #[test]
    fn an_event_has_its_id_and_no_name() {
        let json = r#"{"id":"7-0000000000000012","type":"device_updated","data":{}}"#;
        let expected = format!("id: 7-0000000000000012\ndata: {json}\n\n");
        assert_eq!(written(&websocket::text(json)), expected);
    }

    #[test]
    fn a_control_message_has_its_name_and_moves_the_position() {
        let at = DateTime::UNIX_EPOCH;
        let heartbeat = written(&control(
            "heartbeat",
            at,
            &json!({ "cursor": "7-0000000000000012" }),
        ));
        assert!(heartbeat.starts_with("event: heartbeat\nid: 7-0000000000000012\ndata: {"));
        let expiring = written(&control(
            "token_expiring",
            at,
            &json!({ "token_expires_at": "x" }),
        ));
        assert!(expiring.starts_with("event: token_expiring\ndata: {"));
    }

    #[test]
    fn the_welcome_before_a_replay_does_not_skip_it() {
        let welcome = |recovered: bool| {
            let data = json!({ "cursor": "7-0000000000000012", "recovered": recovered });
            written(&control("welcome", DateTime::UNIX_EPOCH, &data))
        };
        assert!(!welcome(true).contains("id: "));
        assert!(welcome(false).contains("\nid: 7-0000000000000012\n"));
    }

    #[test]
    fn the_end_tells_why() {
        assert_eq!(
            written(&websocket::close(4401, "the \"token\"")),
            "event: closed\ndata: {\"code\":4401,\"reason\":\"the \\\"token\\\"\"}\n\n"
        );
        assert_eq!(written(&websocket::ping()), ":\n\n");
    }
}
