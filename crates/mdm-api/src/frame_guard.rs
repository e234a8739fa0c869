//! Bounds what a WebSocket's peer can make the server keep.
//!
//! The parser below actix-ws looks at a frame's length only once all of the frame is there: who
//! announces exabytes and goes on sending would fill the memory. So the headers (RFC 6455, section
//! 5.2) are looked at here, as they come.

use actix_web::{
    FromRequest as _, HttpRequest,
    dev::Payload,
    error::PayloadError,
    web::{self, Bytes},
};
use futures_util::StreamExt as _;

use crate::problem::ApiError;

/// The payload of an upgrade, which ends with an error where a frame announces more than `most`
/// bytes.
pub async fn guarded(
    request: &HttpRequest,
    payload: web::Payload,
    most: usize,
) -> Result<web::Payload, ApiError> {
    let mut guard = FrameGuard::new(most);
    let checked = payload.map(move |piece| {
        let piece: Bytes = piece?;
        guard.check(&piece)?;
        Ok(piece)
    });
    let mut inner: Payload = Payload::Stream {
        payload: Box::pin(checked),
    };
    // The only way to make one; it takes what there is, and cannot fail.
    let made = web::Payload::from_request(request, &mut inner).await;
    made.map_err(|_never| ApiError::internal())
}

/// Follows the frames of a stream.
struct FrameGuard {
    most: u64,
    header: Vec<u8>,
    /// How much of the present frame is still to come.
    left: u64,
}

impl FrameGuard {
    fn new(most: usize) -> Self {
        Self {
            most: u64::try_from(most).unwrap_or(u64::MAX),
            header: Vec::new(),
            left: 0,
        }
    }

    fn check(&mut self, mut piece: &[u8]) -> Result<(), PayloadError> {
        loop {
            let passed =
                usize::try_from(self.left).map_or(piece.len(), |left| left.min(piece.len()));
            self.left -= u64::try_from(passed).unwrap_or(self.left);
            piece = piece.get(passed..).unwrap_or_default();
            let Some((byte, rest)) = piece.split_first() else {
                return Ok(());
            };
            piece = rest;
            self.header.push(*byte);
            if let Some(length) = announced(&self.header) {
                if length > self.most {
                    return Err(PayloadError::Overflow);
                }
                self.left = length;
                self.header = Vec::new();
            }
        }
    }
}

/// The length of the payload, once all of the header is there, its mask included.
fn announced(header: &[u8]) -> Option<u64> {
    const MASK: u8 = 0x80;
    let second = *header.get(1)?;
    let mask = if second & MASK == 0 { 0 } else { 4 };
    let (extra, length) = match second & !MASK {
        126 => (
            2,
            u64::from(u16::from_be_bytes(*header.get(2..)?.first_chunk()?)),
        ),
        127 => (8, u64::from_be_bytes(*header.get(2..)?.first_chunk()?)),
        short => (0, u64::from(short)),
    };
    (header.len() == 2 + extra + mask).then_some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x81];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short), _) if short < 126 => frame.push(mask | short),
            (_, Ok(medium)) => {
                frame.push(mask | 0x7E);
                frame.extend(medium.to_be_bytes());
            }
            _ => {
                frame.push(mask | 0x7F);
                frame.extend(u64::try_from(length).unwrap().to_be_bytes());
            }
        }
        frame.extend(vec![0xFF; length + if masked { 4 } else { 0 }]);
        frame
    }

    proptest! {
        #[test]
        fn frames_pass_up_to_the_limit_however_they_are_cut(
            lengths in proptest::collection::vec((0_usize..70_000, any::<bool>()), 1..5),
            cut in 1_usize..5_000,
            most in 0_usize..70_000,
        ) {
            let stream: Vec<u8> = lengths.iter().flat_map(|&(length, masked)| frame(length, masked)).collect();
            let mut guard = FrameGuard::new(most);
            let passed = stream.chunks(cut).all(|piece| guard.check(piece).is_ok());
            prop_assert_eq!(passed, lengths.iter().all(|(length, _)| *length <= most));
        }
    }

    #[test]
    fn what_is_announced_counts_before_it_comes() {
        let mut guard = FrameGuard::new(16_384);
        assert!(guard.check(&[0x81, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF]).is_ok());
        assert!(guard.check(&[0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0]).is_ok());
        assert!(guard.check(&[0]).is_err());
    }
}
