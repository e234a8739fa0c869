//! WebSocket frames (RFC 6455, section 5) as a load generator needs them: whole ones, read in
//! place, without a copy for each of a million.

use anyhow::ensure;

/// A text.
pub const TEXT: u8 = 1;
/// The end, with its reason.
pub const CLOSE: u8 = 8;
/// Asks for a pong.
pub const PING: u8 = 9;
/// Answers a ping.
pub const PONG: u8 = 10;

/// No frame that a server sends here is larger.
pub const LARGEST: usize = 128 * 1024;

/// A frame, in the buffer that it was read into.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What kind of frame.
    pub opcode: u8,
    /// What is in it.
    pub payload: &'a [u8],
}

/// The first frame of what a server sent and how many bytes it takes; nothing while it is not
/// there whole.
pub fn first(bytes: &[u8]) -> anyhow::Result<Option<(Frame<'_>, usize)>> {
    let &[head, length, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    ensure!(
        head & 0xF0 == 0x80,
        "a frame in pieces or with reserved bits"
    );
    ensure!(length & 0x80 == 0, "a server must not mask its frames");
    let (length, rest) = match length {
        126 => match rest.split_first_chunk::<2>() {
            Some((length, rest)) => (usize::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (usize::try_from(u64::from_be_bytes(*length))?, rest),
            None => return Ok(None),
        },
        short => (usize::from(short), rest),
    };
    ensure!(length <= LARGEST, "a frame of {length} bytes");
    Ok(rest.get(..length).map(|payload| {
        let opcode = head & 0x0F;
        (Frame { opcode, payload }, bytes.len() - rest.len() + length)
    }))
}

/// A text as a server's frame.
pub fn server_text(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut frame = vec![0x80 | TEXT];
    match u8::try_from(text.len()) {
        Ok(short) if short < 126 => frame.push(short),
        _ => {
            frame.push(126);
            frame.extend(u16::try_from(text.len())?.to_be_bytes());
        }
    }
    frame.extend(text);
    Ok(frame)
}

/// The answer to a ping. Its mask is zero: what it says is no secret, and masking it costs nothing.
pub fn pong(payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    let length = u8::try_from(payload.len())?;
    ensure!(length < 126, "a ping of {length} bytes");
    let mut frame = vec![0x80 | PONG, 0x80 | length, 0, 0, 0, 0];
    frame.extend(payload);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_once_it_is_whole() {
        for length in [0, 1, 125, 126, 127, 300, 65_535] {
            let text = vec![b'x'; length];
            let mut bytes = server_text(&text).unwrap();
            let whole = bytes.len();
            for cut in (0..whole).rev().take(300).chain(0..whole.min(6)) {
                assert_eq!(first(&bytes[..cut]).unwrap(), None, "{cut} of {whole}");
            }
            bytes.extend([0x81, 2, b'h', b'i']);
            let (frame, taken) = first(&bytes).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.payload), (TEXT, &text[..]));
            assert_eq!(taken, whole);
            let (next, taken) = first(&bytes[taken..]).unwrap().unwrap();
            assert_eq!((next.payload, taken), (&b"hi"[..], 4));
        }
    }

    #[test]
    fn a_length_of_eight_bytes_is_read() {
        let mut bytes = vec![0x82, 127];
        bytes.extend(70_000_u64.to_be_bytes());
        assert_eq!(first(&bytes).unwrap(), None);
        bytes.extend(vec![7; 70_000]);
        let (frame, taken) = first(&bytes).unwrap().unwrap();
        assert_eq!(
            (frame.opcode, frame.payload.len(), taken),
            (2, 70_000, 70_010)
        );
    }

    #[test]
    fn what_no_server_may_send_is_an_error() {
        let huge = [0x81, 127, 0, 0, 0, 0, 0, 3, 0, 0];
        for bytes in [&[0x01, 1, b'x'][..], &[0x81, 0x81], &[0xC1, 0], &huge] {
            assert!(first(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_pong_is_masked_and_repeats_the_ping() {
        assert_eq!(pong(b"hi").unwrap(), [0x8A, 0x82, 0, 0, 0, 0, b'h', b'i']);
        assert!(pong(&[0; 126]).is_err());
    }
}
