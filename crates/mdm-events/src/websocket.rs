//! WebSocket frames as a server sends them (RFC 6455, section 5.2): unmasked, so that one encoded
//! frame serves every client.

use bytes::{BufMut, Bytes, BytesMut};

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

/// The longest payload of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL_PAYLOAD: usize = 125;

/// A whole text message in one frame.
pub fn text(payload: &str) -> Bytes {
    let length = payload.len();
    let mut frame = BytesMut::with_capacity(length.saturating_add(10));
    frame.put_u8(TEXT);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => frame.put_u8(short),
        (_, Ok(medium)) => {
            frame.put_u8(126);
            frame.put_u16(medium);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(u64::try_from(length).unwrap_or(u64::MAX));
        }
    }
    frame.put_slice(payload.as_bytes());
    frame.freeze()
}

/// A ping without payload.
pub const fn ping() -> Bytes {
    Bytes::from_static(&[PING, 0])
}

/// A close frame with its code and a reason, cut to what a control frame can hold.
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(MAX_CONTROL_PAYLOAD - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = reason.get(..end).unwrap_or_default();
    let mut frame = BytesMut::with_capacity(reason.len() + 4);
    frame.put_u8(CLOSE);
    frame.put_u8(u8::try_from(reason.len() + 2).unwrap_or(2));
    frame.put_u16(code);
    frame.put_slice(reason.as_bytes());
    frame.freeze()
}

/// A frame that this module wrote.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// A text message.
    Text(Bytes),
    /// A close frame.
    Close {
        /// Its code.
        code: u16,
        /// Its reason.
        reason: String,
    },
    /// A ping.
    Ping,
}

/// Reads a frame back; none if it is not one of this module's.
pub fn parse(frame: &Bytes) -> Option<Sent> {
    let header = match frame.get(1)? {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let payload = (header <= frame.len()).then(|| frame.slice(header..))?;
    match *frame.first()? {
        TEXT => Some(Sent::Text(payload)),
        CLOSE => Some(Sent::Close {
            code: u16::from_be_bytes(*payload.first_chunk()?),
            reason: String::from_utf8_lossy(payload.get(2..)?).into_owned(),
        }),
        PING => Some(Sent::Ping),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_length_takes_as_many_bytes_as_it_needs() {
        assert_eq!(&text("hi")[..], b"\x81\x02hi");
        assert_eq!(&text(&"x".repeat(125))[..3], b"\x81\x7dx");
        assert_eq!(&text(&"x".repeat(126))[..5], b"\x81\x7e\x00\x7ex");
        assert_eq!(&text(&"x".repeat(65_535))[..5], b"\x81\x7e\xff\xffx");
        assert_eq!(
            &text(&"x".repeat(65_536))[..11],
            b"\x81\x7f\0\0\0\0\0\x01\0\0x"
        );
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(payload in ".{0,300}", long in 65_000_usize..66_000) {
            for payload in [payload, "x".repeat(long)] {
                let read = parse(&text(&payload)).unwrap();
                prop_assert_eq!(read, Sent::Text(Bytes::from(payload)));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _sent = parse(&Bytes::from(bytes));
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close(4409, &"ü".repeat(100));
        assert_eq!(&frame[..4], &[0x88, 124, 0x11, 0x39]);
        assert_eq!(std::str::from_utf8(&frame[4..]).unwrap(), "ü".repeat(61));
    }
}
