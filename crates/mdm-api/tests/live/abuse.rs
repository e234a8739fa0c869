//! What no well-behaved client sends, and more clients at once than usual.

use mdm_core::roles::Role;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Live, PATIENCE, event, number, token};

/// A connection that is upgraded, and then says whatever it likes.
async fn upgraded(live: &Live) -> TcpStream {
    let mut socket = TcpStream::connect(&live.address).await.unwrap();
    let request = format!(
        "GET /ws?token={} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        token(Role::Viewer)
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    socket
}

/// The code of the close frame, if one comes before the end.
async fn end_of(mut socket: TcpStream, what: &str) -> Option<u16> {
    let mut received = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut received));
    // A reset is an end, too.
    let _reset = reading
        .await
        .unwrap_or_else(|_| panic!("not ended: {what}"));
    let at = received
        .windows(2)
        .rposition(|two| two[0] == 0x88 && two[1] >= 2)?;
    let code = received.get(at + 2..at + 4)?;
    Some(u16::from_be_bytes([code[0], code[1]]))
}

/// A frame as a client sends it, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => frame.push(0x80 | short),
        _ => {
            frame.push(0xFE);
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

#[actix_web::test]
async fn malformed_frames_end_their_connection_and_no_other() {
    let live = Live::start().await;
    let (mut bystander, _) = live.connect(Role::Operator, "").await;
    let endless: Vec<u8> = std::iter::once(frame(0x01, &[b'x'; 8_000]))
        .chain((0..3).map(|_| frame(0x00, &[b'x'; 8_000])))
        .flatten()
        .collect();
    for (what, bytes) in [
        ("wrong UTF-8", frame(0x81, &[0xC3, 0x28])),
        ("half a character", frame(0x81, &[0xE2, 0x82])),
        ("an unknown opcode", frame(0x83, b"x")),
        ("a ping that is too long", frame(0x89, &[0; 126])),
        ("a continuation of nothing", frame(0x80, b"x")),
        ("a message without end", endless),
        (
            "a frame of eight exabytes",
            vec![
                0x81, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0,
            ],
        ),
        (
            "no frames at all",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3),
        ),
    ] {
        let mut socket = upgraded(&live).await;
        socket.write_all(&bytes).await.unwrap();
        let code = end_of(socket, what).await;
        assert!(code.is_none_or(|code| code == 4400), "{what}: {code:?}");
    }
    live.wait_until("only the bystander is left", |state| {
        state.counters().connected() == 1
    })
    .await;
    live.append(&[event(1)]).await;
    assert_eq!(number(&bystander.events(1).await[0]), 1);
    live.stop().await;
}

#[actix_web::test]
async fn a_flood_of_questions_from_one_who_reads_no_answers_ends_with_its_connection() {
    let live = Live::start().await;
    let (mut bystander, _) = live.connect(Role::Operator, "").await;
    let mut socket = upgraded(&live).await;
    let question = frame(0x81, json!({ "type": "ping" }).to_string().as_bytes()).repeat(1_000);
    let flood = async {
        // Until nobody takes anything more, or the connection is reset.
        while socket.write_all(&question).await.is_ok() {}
    };
    let _stuck = tokio::time::timeout(PATIENCE, flood).await;
    live.wait_until("the flood is over", |state| {
        state.counters().connected() == 1
    })
    .await;
    live.append(&[event(1)]).await;
    assert_eq!(number(&bystander.events(1).await[0]), 1);
    live.stop().await;
}

#[actix_web::test]
async fn a_storm_of_clients_that_come_back_does_not_reach_the_database() {
    const CLIENTS: u32 = 300;
    let live = Live::start().await;
    let (mut first, welcome) = live.connect(Role::Operator, "").await;
    live.append(&(1..=20).map(event).collect::<Vec<_>>()).await;
    first.events(20).await;
    // From here on there is no database: what the clients missed can only come from memory.
    live.database.shut_out().await;
    let cursor = welcome["cursor"].as_str().unwrap();
    let coming = (0..CLIENTS).map(|_| async {
        let (mut client, welcome) = live
            .connect(Role::Operator, &format!("after={cursor}"))
            .await;
        assert_eq!(
            (&welcome["recovered"], &welcome["replayed"]),
            (&true.into(), &20.into())
        );
        let missed = client.events(20).await;
        missed.iter().map(number).collect::<Vec<_>>()
    });
    for numbers in futures_util::future::join_all(coming).await {
        assert_eq!(numbers, (1..=20).collect::<Vec<u64>>());
    }
    live.stop().await;
}
