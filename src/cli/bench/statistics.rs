//! Numbers about times: quantiles, spread, and whether two measurements differ.

/// What part of the sorted values lies below: the value at `part` of 1.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let index = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// Sorted.
pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// How far the medians of rounds lie from their own median, relative to it: the median of the distances, scaled so
/// that it is the standard deviation where they are normally distributed (1.4826, the usual constant for it).
pub fn spread(rounds: &[f64]) -> Option<f64> {
    let rounds = sorted(rounds.to_vec());
    let middle = quantile(&rounds, 0.5);
    if rounds.len() < 3 || middle.is_nan() || middle <= 0.0 {
        return None;
    }
    let distances = sorted(rounds.iter().map(|r| (r - middle).abs()).collect());
    Some(1.4826 * quantile(&distances, 0.5) / middle)
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Faster,
    Slower,
    Same,
    /// One of the two has too few rounds.
    Unknown,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Faster => "faster",
            Verdict::Slower => "slower",
            Verdict::Same => "same",
            Verdict::Unknown => "unknown",
        }
    }
}

/// Less than this is the same, however quiet the machine.
const LEAST: f64 = 0.01;

/// Whether the new is faster than the old; `ratio` is new to old, and spreads are those of rounds. A difference counts
/// where it is more than twice what the rounds of both scatter. That is wider than the error of a median of twelve
/// rounds, since machines drift between two calls more than within one.
pub fn verdict(ratio: f64, old: Option<f64>, new: Option<f64>) -> Verdict {
    let (Some(old), Some(new)) = (old, new) else {
        return Verdict::Unknown;
    };
    let limit = (2.0 * old.hypot(new)).max(LEAST);
    let distance = ratio.ln();
    if !distance.is_finite() {
        Verdict::Unknown
    } else if distance.abs() <= limit {
        Verdict::Same
    } else if distance < 0.0 {
        Verdict::Faster
    } else {
        Verdict::Slower
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_counts_only_beyond_the_noise() {
        let (quiet, loud) = (Some(0.002), Some(0.08));
        assert_eq!(verdict(0.9, quiet, quiet), Verdict::Faster);
        assert_eq!(verdict(1.1, quiet, quiet), Verdict::Slower);
        assert_eq!(verdict(1.1, quiet, loud), Verdict::Same);
        assert_eq!(verdict(1.005, Some(0.0), Some(0.0)), Verdict::Same);
        assert_eq!(verdict(0.5, None, quiet), Verdict::Unknown);
        assert_eq!(verdict(f64::NAN, quiet, quiet), Verdict::Unknown);
    }

    #[test]
    fn one_wild_round_does_not_widen_the_spread() {
        let even = spread(&[1.0, 1.01, 0.99, 1.0, 1.01, 9.0]).expect("enough rounds");
        assert!(even < 0.03, "{even}");
        assert_eq!(spread(&[1.0, 1.0]), None);
    }
}
