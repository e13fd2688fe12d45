//! What was a while ago: rates and latencies over the last seconds.

use super::snapshot::{Buckets, Latency, Quantiles, Rate};
use graven_writer::{Counts, Latencies, Observer};
use hdrhistogram::Histogram;
use std::collections::VecDeque;

/// The times that rates are given over.
const RATES_S: [u32; 3] = [1, 10, 60];
/// How often [`History::tick`] expects to be called.
pub const TICK_NS: u64 = 1_000_000_000;
/// Samples kept: one a tick for the longest rate, and the one before.
const SAMPLES_MAX: usize = 62;
/// The last minute in slots: what is shown is between 55 and 60 seconds.
const SLOTS: usize = 12;
const SLOT_NS: u64 = 5_000_000_000;
/// Longest latency told apart over the last minute.
const SLOT_LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Upper bounds of the buckets of metrics: 50 µs to 50 s, three a decade.
pub const BUCKETS_NS: [u64; 19] = [
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
    20_000_000_000,
    50_000_000_000,
];

const _: () = assert!(SLOTS as u64 * SLOT_NS == 60_000_000_000);
const _: () = assert!(SAMPLES_MAX as u64 > RATES_S[2] as u64 * 1_000_000_000 / TICK_NS + 1);

/// See the module's documentation. Its memory is fixed: some hundred KiB.
#[derive(Debug)]
pub struct History {
    samples: VecDeque<(u64, Counts)>,
    fresh: Box<Latencies>,
    durable: Window,
    barrier: Window,
}

impl History {
    /// A history that begins now.
    #[must_use]
    pub fn new(now_ns: u64) -> Self {
        Self {
            samples: VecDeque::from([(now_ns, Counts::default())]),
            fresh: Box::default(),
            durable: Window::new(),
            barrier: Window::new(),
        }
    }

    /// Takes what has happened since the last call. Once a second is enough.
    pub fn tick(&mut self, observer: &Observer, now_ns: u64) {
        observer.drain(&mut self.fresh);
        self.durable.add(&self.fresh.durable, now_ns);
        self.barrier.add(&self.fresh.barrier, now_ns);
        let newest_ns = self.samples.back().map_or(0, |sample| sample.0);
        if now_ns.saturating_sub(newest_ns) >= TICK_NS {
            if self.samples.len() == SAMPLES_MAX {
                self.samples.pop_front();
            }
            self.samples.push_back((now_ns, observer.counts()));
        }
    }

    /// The rates up to `now`.
    #[must_use]
    pub fn rates(&self, now: &Counts, now_ns: u64) -> Vec<Rate> {
        RATES_S.iter().map(|over_s| self.rate(*over_s, now, now_ns)).collect()
    }

    fn rate(&self, over_s: u32, now: &Counts, now_ns: u64) -> Rate {
        let over_ns = u64::from(over_s) * 1_000_000_000;
        let is_before = |sample: &&(u64, Counts)| sample.0.saturating_add(over_ns) <= now_ns;
        let before = self.samples.iter().rev().find(is_before).or(self.samples.front());
        let Some((before_ns, before)) = before else { return Rate::default() };
        let seconds = now_ns.saturating_sub(*before_ns) as f64 / 1e9;
        let per_s = |now: u64, before: u64| {
            if seconds > 0.0 { now.saturating_sub(before) as f64 / seconds } else { 0.0 }
        };
        Rate {
            over_s,
            records_per_s: per_s(now.records, before.records),
            bytes_per_s: per_s(now.record_bytes, before.record_bytes),
            disk_bytes_per_s: per_s(now.frame_bytes, before.frame_bytes),
        }
    }

    /// From the taking of a record to its barrier, and from the submission of a frame to its own.
    #[must_use]
    pub fn latencies(&self, observer: &Observer, now_ns: u64) -> (Latency, Latency) {
        let latency = |window: &Window, start: &Histogram<u64>| Latency {
            minute: window.quantiles(now_ns),
            start: quantiles(start),
            buckets: buckets(start),
        };
        observer.drained(|all| {
            (latency(&self.durable, &all.durable), latency(&self.barrier, &all.barrier))
        })
    }
}

/// The last minute of one latency.
#[derive(Debug)]
struct Window {
    slots: Vec<(u64, Histogram<u32>)>,
}

impl Window {
    fn new() -> Self {
        let slots = (0..SLOTS).map(|_| (u64::MAX, histogram()));
        Self { slots: slots.collect() }
    }

    fn add(&mut self, fresh: &Histogram<u64>, now_ns: u64) {
        let number = now_ns / SLOT_NS;
        let (of, slot) = &mut self.slots[(number % SLOTS as u64) as usize];
        if *of != number {
            slot.reset();
            *of = number;
        }
        for step in fresh.iter_recorded() {
            let count = u32::try_from(step.count_at_value()).unwrap_or(u32::MAX);
            slot.saturating_record_n(step.value_iterated_to(), count);
        }
    }

    fn quantiles(&self, now_ns: u64) -> Quantiles {
        let mut all = histogram();
        let newest = now_ns / SLOT_NS;
        for (number, slot) in &self.slots {
            if newest.checked_sub(*number).is_some_and(|age| age < SLOTS as u64) {
                // Not reached: all have the same bounds.
                all.add(slot).expect("histograms of the same bounds");
            }
        }
        quantiles(&all)
    }
}

/// Two digits.
fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, SLOT_LATENCY_NS_MAX, 2)
        .expect("the bounds are constants that the histogram accepts")
}

fn quantiles<C: hdrhistogram::Counter>(all: &Histogram<C>) -> Quantiles {
    let at = |quantile| all.value_at_quantile(quantile);
    Quantiles {
        count: all.len(),
        p50_ns: at(0.5),
        p99_ns: at(0.99),
        p999_ns: at(0.999),
        max_ns: all.max(),
    }
}

/// The distribution in buckets. Only what has come since can make any of them larger.
fn buckets(all: &Histogram<u64>) -> Buckets {
    let mut counts: Vec<(u64, u64)> = BUCKETS_NS.iter().map(|bound| (*bound, 0)).collect();
    let mut sum_ns = 0_u64;
    for step in all.iter_recorded() {
        let (value_ns, count) = (step.value_iterated_to(), step.count_at_value());
        if let Some(bucket) = counts.iter_mut().find(|bucket| value_ns <= bucket.0) {
            bucket.1 += count;
        }
        sum_ns = sum_ns.saturating_add(value_ns.saturating_mul(count));
    }
    Buckets { counts, count: all.len(), sum_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn counts(records: u64) -> Counts {
        Counts { records, record_bytes: 300 * records, ..Counts::default() }
    }

    #[test]
    fn rates_are_over_the_time_that_they_say() {
        let mut history = History::new(0);
        // A hundred records a second for a minute, and then a thousand.
        history.samples.extend((1..=60).map(|s| (s * S, counts(100 * s))));
        let rates = history.rates(&counts(7000), 61 * S);
        assert_eq!(rates.iter().map(|it| it.over_s).collect::<Vec<_>>(), [1, 10, 60]);
        assert_eq!(rates[0].records_per_s, 1000.0);
        assert_eq!(rates[0].bytes_per_s, 300_000.0);
        assert_eq!(rates[1].records_per_s, 190.0);
        assert_eq!(rates[2].records_per_s, 115.0);
        // What is younger than the time is over what there is.
        let history = History::new(5 * S);
        assert_eq!(history.rates(&counts(40), 9 * S)[2].records_per_s, 10.0);
        assert_eq!(history.rates(&counts(40), 5 * S)[2].records_per_s, 0.0);
    }

    #[test]
    fn the_last_minute_forgets() {
        let mut window = Window::new();
        let mut fresh = Histogram::<u64>::new_with_bounds(1, 1 << 40, 3).expect("bounds");
        fresh.saturating_record_n(1000, 99);
        fresh.saturating_record(1_000_000);
        window.add(&fresh, 100 * S);
        fresh.reset();
        fresh.saturating_record(5_000_000);
        window.add(&fresh, 130 * S);
        let all = window.quantiles(131 * S);
        assert_eq!(all.count, 101);
        assert!((990..1010).contains(&all.p50_ns), "{all:?}");
        assert!((4_900_000..5_100_000).contains(&all.max_ns), "{all:?}");
        assert_eq!(window.quantiles(161 * S).count, 1, "the first is over a minute old");
        assert_eq!(window.quantiles(191 * S), Quantiles::default());
        window.add(&fresh, 160 * S);
        assert_eq!(window.quantiles(161 * S).count, 2, "its slot was used again");
    }

    #[test]
    fn buckets_hold_each_once() {
        let mut all = Histogram::<u64>::new_with_bounds(1, 1 << 40, 3).expect("bounds");
        for ns in [1, 50_000, 60_000, 900 * S] {
            all.saturating_record(ns);
        }
        let buckets = buckets(&all);
        assert_eq!(buckets.count, 4);
        assert_eq!(buckets.counts.iter().map(|it| it.1).sum::<u64>(), 3, "one is beyond the last");
        assert!(buckets.sum_ns >= 900 * S);
        assert!(BUCKETS_NS.is_sorted());
    }
}
