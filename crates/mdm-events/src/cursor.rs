//! Positions in the log, and their text: `k3x9-0000000000001043`.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// One history of the log. Offsets of different epochs have nothing to do with each other: a
/// fail-over or a recovery to a point in time begins a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

/// A position in the log: just after the event at `offset`; zero is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The history that the offset belongs to.
    pub epoch: Epoch,
    /// The place of the event, counted from 1 without holes.
    pub offset: u64,
}

/// The text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a cursor: take one from an event's id or from a welcome, heartbeat or resync frame"
)]
pub struct InvalidCursor;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

impl Epoch {
    /// The epoch of a hash, of which the lower 40 bits count: at most 8 characters of text.
    pub const fn from_bits(hash: u64) -> Self {
        Self(hash & 0xFF_FFFF_FFFF)
    }

    /// The cursor at an offset of this epoch.
    pub const fn at(self, offset: u64) -> Cursor {
        Cursor {
            epoch: self,
            offset,
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut text = Vec::with_capacity(8);
        loop {
            let digit = usize::try_from(rest % 36).unwrap_or_default();
            text.push(char::from(DIGITS.get(digit).copied().unwrap_or(b'0')));
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        text.iter()
            .rev()
            .try_for_each(|digit| fmt::Write::write_char(f, *digit))
    }
}

impl FromStr for Epoch {
    type Err = InvalidCursor;

    /// Reads only what `Display` writes, so that equal epochs have equal texts.
    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        let canonical = text == "0" || !text.starts_with('0');
        if !plain || !canonical || !(1..=8).contains(&text.len()) {
            return Err(InvalidCursor);
        }
        u64::from_str_radix(text, 36)
            .ok()
            .filter(|bits| *bits <= 0xFF_FFFF_FFFF)
            .map(Self)
            .ok_or(InvalidCursor)
    }
}

impl fmt::Display for Cursor {
    /// Zero-padded, so that within an epoch the order of the texts is the order of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016}", self.epoch, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (epoch, offset) = text.split_once('-').ok_or(InvalidCursor)?;
        if offset.len() != 16 || !offset.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidCursor);
        }
        let epoch: Epoch = epoch.parse()?;
        let offset: Option<u64> = offset.parse().ok();
        offset.map(|offset| epoch.at(offset)).ok_or(InvalidCursor)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_reads_as_documented() {
        let cursor: Cursor = "k3x9-0000000000001043".parse().unwrap();
        assert_eq!(cursor.offset, 1043);
        assert_eq!(cursor.to_string(), "k3x9-0000000000001043");
    }

    #[test]
    fn what_was_not_written_by_the_server_is_refused() {
        for text in [
            "",
            "-",
            "k3x9",
            "k3x9-1043",
            "k3x9-00000000000001043",
            "k3x9-000000000000104x",
            "k3x9-+000000000001043",
            "K3X9-0000000000001043",
            "0k3x9-0000000000001043",
            "zzzzzzzz-0000000000001043",
            "zzzzzzzzz-0000000000001043",
            "k3x9-0000000000001043-",
            "ü-0000000000001043",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(bits: u64, offset in 0..10_000_000_000_000_000_u64) {
            let cursor = Epoch::from_bits(bits).at(offset);
            prop_assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
        }

        #[test]
        fn texts_of_one_epoch_are_ordered_as_the_log(
            bits: u64,
            one in 0..10_000_000_000_000_000_u64,
            other in 0..10_000_000_000_000_000_u64,
        ) {
            let epoch = Epoch::from_bits(bits);
            let texts = epoch.at(one).to_string().cmp(&epoch.at(other).to_string());
            prop_assert_eq!(texts, one.cmp(&other));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
