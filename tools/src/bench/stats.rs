//! Means of repetitions with their confidence intervals, and histograms.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time that is told apart; longer ones count as this.
const NS_MAX: u64 = 3_600_000_000_000;

/// Quantiles 0.975 of Student's t distribution for 1 to 30 degrees of freedom; beyond, the normal distribution's is near.
const T_975: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// The mean of repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half of its 95 % confidence interval, by Student's t distribution; absent with one repetition.
    pub plus_minus: Option<f64>,
}

impl Estimate {
    /// Of these values, one a repetition.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let freedom = values.len().saturating_sub(1);
        let plus_minus = (freedom > 0).then(|| {
            let variance =
                values.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / freedom as f64;
            T_975.get(freedom - 1).copied().unwrap_or(1.96) * (variance / n).sqrt()
        });
        Self { mean, plus_minus }
    }
}

/// A histogram of nanoseconds to an hour, three digits; below 2 µs each nanosecond is told apart.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, NS_MAX, 3)
        .expect("the bounds are constants that the histogram accepts")
}

/// Microseconds at a quantile; 0 of an empty one.
#[must_use]
pub fn quantile_us(histogram: &Histogram<u64>, q: f64) -> f64 {
    if histogram.is_empty() { 0.0 } else { histogram.value_at_quantile(q) as f64 / 1e3 }
}

/// The distribution as points for a plot: microseconds, and the share of what is longer.
#[must_use]
pub fn tail(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let total = histogram.len() as f64;
    let mut seen = 0;
    let mut points: Vec<(f64, f64)> = Vec::new();
    for it in histogram.iter_recorded() {
        let share = 1.0 - seen as f64 / total;
        seen += it.count_at_value();
        let us = it.value_iterated_to() as f64 / 1e3;
        // One point for each hundredth of a decade, on either axis, is finer than a plot.
        let is_new =
            points.last().is_none_or(|(last_us, last)| us / last_us > 1.02 || last / share > 1.02);
        if is_new {
            points.push((us, share));
        }
    }
    if !histogram.is_empty() {
        points.push((histogram.max() as f64 / 1e3, 1.0 / total));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_students() {
        let estimate = Estimate::of(&[9.0, 10.0, 11.0]);
        assert_eq!(estimate.mean, 10.0);
        let half = estimate.plus_minus.expect("three values");
        assert!((half - 4.303 / 3.0_f64.sqrt()).abs() < 1e-9, "{half}");
        assert_eq!(Estimate::of(&[5.0]), Estimate { mean: 5.0, plus_minus: None });
    }

    #[test]
    fn a_histogram_tells_ten_nanoseconds_apart_and_minutes() {
        let mut histogram = histogram();
        for ns in [10, 20, 1_000, 1_010, 90_000_000_000] {
            histogram.saturating_record(ns);
        }
        assert_eq!(histogram.iter_recorded().count(), 5);
        assert_eq!(quantile_us(&histogram, 0.2), 0.01);
        assert_eq!(quantile_us(&histogram, 0.4), 0.02);
        let minutes = quantile_us(&histogram, 1.0) / 60e6;
        assert!((minutes / 1.5 - 1.0).abs() < 0.001, "{minutes}");
    }

    #[test]
    fn a_tail_begins_with_all_and_ends_with_the_longest() {
        let mut histogram = histogram();
        (1..=1000_u64).for_each(|n| histogram.saturating_record(n * 1000));
        let tail = tail(&histogram);
        assert_eq!(tail.first(), Some(&(1.0, 1.0)));
        let (us, share) = *tail.last().expect("points");
        assert!((us / 1000.0 - 1.0).abs() < 0.001 && (share - 0.001).abs() < 1e-9, "{us} {share}");
        let median = tail.iter().find(|(_, share)| *share <= 0.5).expect("a median").0;
        assert!((median / 500.0 - 1.0).abs() < 0.03, "{median}");
    }
}
