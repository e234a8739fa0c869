//! What is told of many timings.

use std::time::Duration;

use serde_json::{Value, json};

/// Minimum, median, 99th percentile and maximum, in milliseconds, and how many there were.
pub fn of(timings: &[Duration]) -> Value {
    let mut sorted: Vec<f64> = timings
        .iter()
        .map(|timing| timing.as_secs_f64() * 1_000.0)
        .collect();
    sorted.sort_by(f64::total_cmp);
    let at = |hundredths: usize| {
        let last = sorted.len().saturating_sub(1);
        sorted
            .get(last * hundredths / 100)
            .map(|value| (value * 1_000.0).round() / 1_000.0)
    };
    json!({ "count": sorted.len(), "min_ms": at(0), "p50_ms": at(50), "p90_ms": at(90), "p99_ms": at(99), "max_ms": at(100) })
}

/// The median of a figure's rounds, with the least and the most.
pub fn spread(rounds: &[f64]) -> Value {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let round = |value: &f64| (value * 1_000.0).round() / 1_000.0;
    // Of an even number of rounds, what lies between the two in the middle.
    let middle = sorted.get(sorted.len().saturating_sub(1) / 2..=sorted.len() / 2);
    let median = match middle {
        Some([one, other]) => Some(round(&f64::midpoint(*one, *other))),
        Some([one]) => Some(round(one)),
        _ => None,
    };
    json!({ "median": median, "min": sorted.first().map(round), "max": sorted.last().map(round) })
}

/// A count as a number to reckon with. None here is larger than 4 thousand million.
pub fn real(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_rounds_is_the_one_in_the_middle_or_between_two() {
        let told = |rounds: &[f64]| spread(rounds)["median"].clone();
        assert_eq!(told(&[3.0, 1.0, 2.5]), 2.5);
        assert_eq!(told(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(told(&[7.0]), 7.0);
        assert_eq!(told(&[]), Value::Null);
    }
}
