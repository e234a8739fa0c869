//! The events that the bench publishes: what a changed device looks like, some 250 bytes, with a
//! number in it by which an arrival is known. It is a time where the time is known beforehand.

use std::time::{Duration, Instant};

use uuid::Uuid;

const KEY: &[u8] = br#""at":""#;
/// Digits of a stamp, always all of them: every payload has the same length.
const DIGITS: usize = 20;

/// The stamp of a moment: nanoseconds since `base`.
pub fn of(base: Instant, moment: Instant) -> u64 {
    nanoseconds(moment.saturating_duration_since(base))
}

/// A duration as a stamp, good for 500 years.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A stamp as it is written.
pub fn text(stamp: u64) -> String {
    format!("{stamp:020}")
}

/// The data of a `device_updated`.
pub fn data(device: Uuid, stamp: u64) -> String {
    format!(
        "{{\"device_id\":\"{device}\",\"hostname\":\"desk-berlin-0001043\",\"os_version\":\"11.0.22631\",\
         \"labels\":{{\"role\":\"desk\",\"site\":\"berlin-mitte\",\"floor\":\"3\",\"owner\":\"finance department\"}},\
         \"version\":1000043,\"at\":\"{stamp:020}\"}}"
    )
}

/// The whole event, as long as the server's own, for what is compared with it.
pub fn event(number: u64, data: &str) -> String {
    format!(
        "{{\"id\":\"benchfan-{number:016}\",\"type\":\"device_updated\",\
         \"timestamp\":\"2026-01-22T13:50:00.123Z\",\"data\":{data}}}"
    )
}

/// The stamp in an event. In those of [`data`] it is the last that is said, so nothing is searched.
pub fn read(event: &[u8]) -> Option<u64> {
    let last = event
        .len()
        .checked_sub(KEY.len() + DIGITS + br#""}}"#.len())
        .and_then(|at| event.get(at..))
        .and_then(|end| end.strip_prefix(KEY));
    let digits = last.or_else(|| {
        let at = event.windows(KEY.len()).position(|part| part == KEY)?;
        event.get(at + KEY.len()..)
    })?;
    digits.get(..DIGITS)?.iter().try_fold(0_u64, |sum, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_is_read_from_the_end_and_from_anywhere() {
        let event = event(7, &data(Uuid::nil(), 1_234_567));
        assert_eq!(read(event.as_bytes()), Some(1_234_567));
        let labels = format!(
            r#"{{"labels":{{"at":"{}","b":"c"}},"version":1}}"#,
            text(99)
        );
        assert_eq!(read(labels.as_bytes()), Some(99));
    }

    #[test]
    fn other_events_have_no_stamp() {
        for text in [
            "",
            "{}",
            r#"{"at":"12"}"#,
            r#"{"at":"0000000000000000000x"}}"#,
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_event_is_some_250_bytes_of_data_whatever_its_numbers() {
        let (small, large) = (data(Uuid::nil(), 0), data(Uuid::nil(), u64::MAX));
        assert_eq!(small.len(), large.len());
        assert!((230..=270).contains(&small.len()), "{}", small.len());
        assert!(serde_json::from_str::<serde_json::Value>(&event(1, &small)).is_ok());
    }
}
