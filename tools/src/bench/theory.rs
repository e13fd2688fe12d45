//! What queueing theory says of the mean wait, from service times that were measured.
//!
//! - One record a service: M/G/1, by Pollaczek and Khinchine; and Kingman's upper bound for GI/G/1 (Kingman, *Some inequalities
//!   for the queue GI/G/1*, Biometrika 49, 1962), which needs no Poisson arrivals.
//! - Group commit, greedy, one write at a time: the bulk-service queue M/G\[1,n]/1 (Bailey 1954; Neuts, *A general class of bulk
//!   queues with Poisson input*, Ann. Math. Statist. 38, 1967): when the server is free it takes all that wait, and at least one.
//!   A service is followed by an idle time with the probability p0 that nobody came during it, so a cycle takes E\[S] + p0/λ. By
//!   PASTA an arrival finds the server busy with probability E\[S] over that, and then waits the residual E\[S²]/2E\[S]:
//!   E\[W] = E\[S²] / 2(E\[S] + p0/λ), if a write has room for all. There is no pole at any load: what grows is the batch. A write has
//!   an end, of n records, which matters behind a service that is long beside the others, as when a disk or the machine stands
//!   still: what is added for that is the time of a [fluid](backlog), and has one. Where full writes start beside one in flight,
//!   as Graven's do, S ends when the next one starts.
//! - Timer: an arrival waits the residual of the time between two starts, E\[I²]/2E\[I].

use serde::Serialize;

/// Moments of measured times, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// How many.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub sum_squares: f64,
}

impl Moments {
    /// Counts one.
    pub fn add(&mut self, seconds: f64) {
        self.count += 1.0;
        self.sum += seconds;
        self.sum_squares += seconds * seconds;
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let count = self.count + other.count;
        Self { count, sum: self.sum + other.sum, sum_squares: self.sum_squares + other.sum_squares }
    }

    /// The first moment.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1.0)
    }

    /// The second.
    #[must_use]
    pub fn second(&self) -> f64 {
        self.sum_squares / self.count.max(1.0)
    }

    /// The variance.
    #[must_use]
    pub fn variance(&self) -> f64 {
        (self.second() - self.mean().powi(2)).max(0.0)
    }
}

/// Which formula is meant for a discipline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Model {
    /// Pollaczek and Khinchine.
    #[serde(rename = "M/G/1")]
    Mg1,
    /// Bulk service.
    #[serde(rename = "M/G[1,n]/1")]
    Bulk,
    /// Residual of the interval.
    #[serde(rename = "timer residual")]
    Timer,
}

impl Model {
    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mg1 => "M/G/1",
            Self::Bulk => "M/G[1,n]/1",
            Self::Timer => "timer residual",
        }
    }
}

/// Mean wait by Pollaczek and Khinchine, in seconds; `None` at a load of 1 and beyond.
#[must_use]
pub fn mg1(rate: f64, service: &Moments) -> Option<f64> {
    let load = rate * service.mean();
    (load < 1.0).then(|| rate * service.second() / (2.0 * (1.0 - load)))
}

/// Kingman's upper bound of the mean wait, in seconds; `None` at a load of 1 and beyond.
#[must_use]
pub fn kingman(rate: f64, arrival_variance: f64, service: &Moments) -> Option<f64> {
    let load = rate * service.mean();
    (load < 1.0).then(|| rate * (arrival_variance + service.variance()) / (2.0 * (1.0 - load)))
}

/// Mean wait of bulk service, in seconds. `p0` is the mean of exp(-λS): that nobody comes during a service.
#[must_use]
pub fn bulk(rate: f64, service: &Moments, p0: f64) -> f64 {
    service.second() / (2.0 * (service.mean() + p0 / rate))
}

/// What is added to it, in seconds, because a write has an end: what came during a service and is more than that waits for the
/// writes after it too, which follow each other at the rate of saturation. As a fluid: if a service was longer by T than it
/// takes until a write is full, λT records are left, which take λT / (saturation - λ) to go, while others come.
/// `over` is the sum of all T² a second. `None` at a load of 1 and beyond.
#[must_use]
pub fn backlog(rate: f64, saturation: f64, over: f64) -> Option<f64> {
    let load = rate / saturation;
    (load < 1.0).then(|| over * load / (2.0 * (1.0 - load)))
}

/// Mean wait for a timer, in seconds, from the times between two starts.
#[must_use]
pub fn timer(intervals: &Moments) -> f64 {
    intervals.second() / (2.0 * intervals.mean().max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::arrivals::{Arrivals, exponential};
    use std::time::Duration;

    /// Exact moments of a distribution.
    fn moments(mean: f64, second: f64) -> Moments {
        Moments { count: 1.0, sum: mean, sum_squares: second }
    }

    fn close(value: Option<f64>, expected: f64) {
        let value = value.expect("below saturation");
        assert!((value / expected - 1.0).abs() < 1e-9, "{value} {expected}");
    }

    #[test]
    fn known_values_of_mm1_and_md1() {
        // Services of mean 1: M/M/1 waits ρ/(1-ρ), M/D/1 half of that.
        for load in [0.1, 0.5, 0.9] {
            let expected = load / (1.0 - load);
            close(mg1(load, &moments(1.0, 2.0)), expected);
            close(mg1(load, &moments(1.0, 1.0)), expected / 2.0);
            // Kingman's bound of M/M/1 is (1/ρ + ρ)/2(1-ρ): above, and near it at a high load.
            let bound = kingman(load, 1.0 / (load * load), &moments(1.0, 2.0));
            close(bound, (1.0 / load + load) / (2.0 * (1.0 - load)));
            assert!(bound > Some(expected));
        }
        assert_eq!(mg1(1.0, &moments(1.0, 2.0)), None);
        assert_eq!(kingman(1.5, 1.0, &moments(1.0, 1.0)), None);
    }

    #[test]
    fn bulk_service_has_its_limits() {
        // So few arrivals that the server is always free: λE[S²]/2, as M/G/1 has it.
        let rare = bulk(1e-6, &moments(1.0, 1.0), (-1e-6_f64).exp());
        assert!((rare / 0.5e-6 - 1.0).abs() < 1e-5, "{rare}");
        // So many that it never is: half a service if all take the same time, a whole one if exponential.
        assert!((bulk(1e6, &moments(1.0, 1.0), 0.0) - 0.5).abs() < 1e-9);
        assert!((bulk(1e6, &moments(1.0, 2.0), 0.0) - 1.0).abs() < 1e-9);
        assert!((timer(&moments(5.0, 25.0)) - 2.5).abs() < 1e-12);
    }

    /// Services of 1, one in a thousand of 100, and at most 10 records in each.
    #[test]
    fn a_backlog_behind_a_long_service_agrees_with_its_simulation() {
        let most = 10;
        let saturation = most as f64 / (0.999 + 0.001 * 100.0);
        for load in [0.3, 0.5, 0.7] {
            let rate = load * saturation;
            let due = Arrivals::Poisson.due_ns(rate, Duration::from_secs(300_000), 4, &[]);
            let mut rng = fastrand::Rng::with_seed(5);
            let (mut free, mut at, mut waited) = (0.0, 0, 0.0);
            let (mut services, mut nobody, mut over) = (Moments::default(), 0.0, 0.0);
            while at < due.len() {
                let start = (due[at] as f64 / 1e9).max(free);
                let end = due.len().min(at + most);
                while at < end && due[at] as f64 / 1e9 <= start {
                    waited += start - due[at] as f64 / 1e9;
                    at += 1;
                }
                let service = if rng.u32(..1000) == 0 { 100.0 } else { 1.0 };
                services.add(service);
                nobody += (-rate * service).exp();
                over += (service - most as f64 / rate).max(0.0).powi(2);
                free = start + service;
            }
            let simulated = waited / due.len() as f64;
            let more = backlog(rate, saturation, over / free).expect("below saturation");
            let without = bulk(rate, &services, nobody / services.count);
            let ratio = simulated / (without + more);
            assert!((ratio - 1.0).abs() < 0.1, "{load}: {simulated} {without} {more}");
            assert!(more > 0.1 * without, "it matters: {without} {more}");
        }
        assert_eq!(backlog(1.0, 1.0, 1.0), None);
    }

    #[test]
    fn bulk_service_agrees_with_its_simulation() {
        for rate in [0.3, 1.0, 5.0] {
            let due = Arrivals::Poisson.due_ns(rate, Duration::from_secs(100_000), 3, &[]);
            let mut rng = fastrand::Rng::with_seed(9);
            let (mut free, mut at, mut waited) = (0.0, 0, 0.0);
            while at < due.len() {
                let start = (due[at] as f64 / 1e9).max(free);
                while at < due.len() && due[at] as f64 / 1e9 <= start {
                    waited += start - due[at] as f64 / 1e9;
                    at += 1;
                }
                free = start + exponential(&mut rng);
            }
            let simulated = waited / due.len() as f64;
            // exp(-λS) of an exponential S of mean 1 is 1/(1+λ) in the mean.
            let predicted = bulk(rate, &moments(1.0, 2.0), 1.0 / (1.0 + rate));
            assert!((simulated / predicted - 1.0).abs() < 0.03, "{rate}: {simulated} {predicted}");
        }
    }
}
