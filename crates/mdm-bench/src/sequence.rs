//! Whether what one subscriber got is the log: every event, in order, each once.

use anyhow::{Context as _, bail};

/// How an event's text begins; a control frame's begins otherwise.
pub const EVENT: &[u8] = br#"{"id":""#;

/// The events of one subscriber, as far as they came.
#[derive(Debug, Default)]
pub struct Sequence {
    epoch: Vec<u8>,
    last: Option<u64>,
}

impl Sequence {
    /// Takes note of the next event's text, which must follow the last one. The log has no holes,
    /// and the bench's subscribers may see all that the bench causes.
    pub fn take(&mut self, text: &[u8]) -> anyhow::Result<()> {
        let (epoch, offset) = parts(text).context("an event without an id")?;
        if let Some(last) = self.last {
            if self.epoch != epoch {
                bail!("{offset} is of another history than {last}");
            }
            if offset <= last {
                bail!("{offset} came after {last}: twice, or out of order");
            }
            if offset != last + 1 {
                bail!("{offset} came after {last}: what is between was lost");
            }
        } else {
            epoch.clone_into(&mut self.epoch);
        }
        self.last = Some(offset);
        Ok(())
    }
}

/// Epoch and offset of an event's id.
fn parts(text: &[u8]) -> Option<(&[u8], u64)> {
    let rest = text.strip_prefix(EVENT)?;
    let id = rest.split(|byte| *byte == b'"').next()?;
    let dash = id.iter().position(|byte| *byte == b'-')?;
    let digits = std::str::from_utf8(id.get(dash + 1..)?).ok()?;
    Some((id.get(..dash)?, digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ids: &[&str]) -> Result<(), String> {
        let mut sequence = Sequence::default();
        ids.iter().try_for_each(|id| {
            let text = format!(r#"{{"id":"{id}","type":"device_updated","data":{{}}}}"#);
            let taken = sequence.take(text.as_bytes());
            taken.map_err(|error| error.to_string())
        })
    }

    const AT_41: &str = "k3x9-0000000000000041";
    const AT_42: &str = "k3x9-0000000000000042";
    const AT_43: &str = "k3x9-0000000000000043";

    #[test]
    fn consecutive_ids_from_anywhere_are_good() {
        assert_eq!(run(&[AT_41, AT_42, AT_43]), Ok(()));
    }

    #[test]
    fn a_hole_a_repetition_and_a_step_back_are_told_apart_from_it() {
        assert!(run(&[AT_41, AT_43]).unwrap_err().contains("lost"));
        assert!(run(&[AT_41, AT_42, AT_42]).unwrap_err().contains("twice"));
        assert!(run(&[AT_42, AT_43, AT_41]).unwrap_err().contains("order"));
    }

    #[test]
    fn another_history_and_a_text_without_an_id_are_errors() {
        let other = run(&[AT_41, "zz-0000000000000042"]);
        assert!(other.unwrap_err().contains("history"));
        assert!(run(&["nothing"]).is_err());
        assert!(
            Sequence::default()
                .take(br#"{"type":"heartbeat"}"#)
                .is_err()
        );
    }
}
