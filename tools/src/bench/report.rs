//! What a whole experiment has shown: what `--json` writes, and what table, CSV and plots are made of.

use super::analyse::{Measured, Writes};
use super::appender::Discipline;
use super::machine::About;
use super::stats::{self, Estimate, histogram, quantile_us};
use super::theory::{self, Model};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;

/// Version of the JSON.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// By whom, when and where.
    #[serde(flatten)]
    pub about: About,
    /// What was asked for.
    pub asked: Asked,
    /// Writes of 4 KiB, each a barrier, one after the other: the floor of every latency here. Absent with a model.
    pub floor: Option<Floor>,
    /// Records a second at full speed.
    pub saturation: Vec<Saturation>,
    /// One for each discipline and load.
    pub points: Vec<Point>,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// The process of arrivals.
    pub arrivals: String,
    /// Sizes of records.
    pub sizes: String,
    /// Their mean in bytes.
    pub mean_bytes: f64,
    /// Who serves.
    pub service: String,
    /// Threads that produce.
    pub producers: usize,
    /// Threads beside them that never pause.
    pub hogs: usize,
    /// Seconds before the part that counts.
    pub warm_up_s: f64,
    /// Seconds of the part that counts, a repetition.
    pub seconds: f64,
    /// How often each point is measured.
    pub repetitions: usize,
    /// The seed of the first repetition; each later one has the next.
    pub seed: u64,
    /// Of whose saturation the loads are shares; absent if each discipline's own, or if rates were given.
    pub load_of: Option<String>,
    /// Records a second of the trail that is replayed.
    pub recorded_rate: Option<f64>,
}

/// The floor in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Floor {
    /// Writes.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
}

impl Floor {
    /// Of the times of all writes.
    #[must_use]
    pub fn of(it: &Histogram<u64>) -> Self {
        let at = |q| quantile_us(it, q);
        Self { count: it.len(), p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999) }
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50_us, p99_us, p999_us, .. } = self;
        write!(
            f,
            "floor: 4 KiB writes, each a barrier, one by one: p50 {p50_us:.0}, p99 {p99_us:.0}, p99.9 {p999_us:.0} µs"
        )
    }
}

/// One discipline at full speed.
#[derive(Clone, Debug, Serialize)]
pub struct Saturation {
    /// The discipline.
    pub discipline: String,
    /// Durable records a second.
    pub records_per_s: f64,
}

/// In which way a point may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Regime {
    /// No producer waited for room and nothing was lost: the loop is open and models hold.
    Open,
    /// No producer waited, and yet records were offered late, by more than a fifth of the mean wait: the machine, or a rate
    /// that a producer cannot make, was in the way. What was offered is not what was due.
    Late,
    /// Writes overlapped: several servers, for which there is a model only if none but full writes overlap, as with Graven.
    Overlapping,
    /// The queue was full at times: producers waited, or records were lost. The loop is closed.
    Full,
    /// More was offered than is served: latencies are those of a queue that grows, and last as long as the run.
    Overloaded,
}

impl Regime {
    /// As people read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Late => "producer late",
            Self::Overlapping => "overlapping",
            Self::Full => "queue full",
            Self::Overloaded => "overloaded",
        }
    }
}

/// A distribution of times in microseconds: quantiles of all repetitions together.
#[derive(Clone, Debug, Serialize)]
pub struct Times {
    /// The mean, over repetitions.
    pub mean_us: Estimate,
    /// Median; the interval is that of the repetitions' own.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// The 99th percentile of each repetition.
    pub p99_each: Estimate,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// 99.99th percentile.
    pub p9999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Times {
    fn of(each: &[&Histogram<u64>]) -> Self {
        let all = merged(each);
        let at = |q| quantile_us(&all, q);
        let means: Vec<_> = each.iter().map(|it| it.mean() / 1e3).collect();
        let p99s: Vec<_> = each.iter().map(|it| quantile_us(it, 0.99)).collect();
        Self {
            mean_us: Estimate::of(&means),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_each: Estimate::of(&p99s),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: all.max() as f64 / 1e3,
        }
    }
}

/// What theory says of the mean wait.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Prediction {
    /// Which formula.
    pub model: Model,
    /// Mean wait in microseconds, with the measured time from the server's being free to the start of its write.
    pub wait_us: Option<f64>,
    /// Kingman's upper bound, where a record is a service.
    pub kingman_us: Option<f64>,
    /// Measured over predicted.
    pub ratio: Option<f64>,
}

/// One discipline at one load.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// The discipline.
    pub discipline: String,
    /// Offered over the discipline's own saturation.
    pub load: f64,
    /// Records a second that were asked for.
    pub rate: f64,
    /// Records that were due in the parts that count.
    pub offered: u64,
    /// Of these, durable.
    pub durable: u64,
    /// Of these, dropped.
    pub lost: u64,
    /// Of these, not offered before the end of a run, because producers waited.
    pub unsent: u64,
    /// Records that became durable in a second of the schedule.
    pub throughput: Estimate,
    /// Records a second of the producers beside, which are in no other figure but bytes written.
    pub hogs_per_s: Estimate,
    /// In which way to read it.
    pub regime: Regime,
    /// From due to durable.
    pub latency: Times,
    /// From due to the start of the record's write.
    pub wait: Times,
    /// From the start of the record's write to its barrier.
    pub service: Times,
    /// Age of the oldest record that was not durable, over time.
    pub exposure: Times,
    /// How often producers waited, in all repetitions.
    pub blocked_count: u64,
    /// Seconds that they waited, in all repetitions.
    pub blocked_s: f64,
    /// Their longest wait in microseconds.
    pub blocked_max_us: f64,
    /// Processor time a record in microseconds, without the producers' own.
    pub cpu_us_per_record: Estimate,
    /// Bytes of writes a record, padding included.
    pub bytes_per_record: Estimate,
    /// Bytes of zeros written ahead a record.
    pub zeroed_bytes_per_record: Estimate,
    /// Records a write.
    pub records_per_write: f64,
    /// How late the generator was at the 99th percentile of its looks, in microseconds: part of every latency.
    pub generator_late_p99_us: f64,
    /// What theory says.
    pub theory: Option<Prediction>,
    /// The latencies as points: microseconds, share of records that took longer.
    pub tail: Vec<(f64, f64)>,
    /// The first repetition: seconds, records due and not durable.
    pub depth: Vec<(f64, u64)>,
}

impl Point {
    /// Of all repetitions of one discipline at one rate.
    #[must_use]
    pub fn of(discipline: Discipline, rate: f64, saturation: f64, each: &[Measured]) -> Self {
        let sum = |count: fn(&Measured) -> u64| each.iter().map(count).sum::<u64>();
        let estimate =
            |value: fn(&Measured) -> f64| Estimate::of(&each.iter().map(value).collect::<Vec<_>>());
        let times = |of: fn(&Measured) -> &Histogram<u64>| {
            Times::of(&each.iter().map(of).collect::<Vec<_>>())
        };
        let writes = each.iter().map(|it| it.writes).reduce(Writes::and).unwrap_or_default();
        let wait = times(|it| &it.wait);
        let regime = regime(discipline, each, &writes, wait.mean_us.mean);
        let latencies: Vec<_> = each.iter().map(|it| &it.latency).collect();
        Self {
            discipline: discipline.to_string(),
            load: rate / saturation,
            rate,
            offered: sum(|it| it.offered),
            durable: sum(|it| it.durable),
            lost: sum(|it| it.lost),
            unsent: sum(|it| it.unsent),
            throughput: estimate(|it| it.durable_in_time as f64 / it.seconds),
            hogs_per_s: estimate(|it| it.hogs_per_s),
            regime,
            latency: times(|it| &it.latency),
            service: times(|it| &it.service),
            exposure: times(|it| &it.exposure),
            blocked_count: sum(|it| it.blocked.count),
            blocked_s: sum(|it| it.blocked.total_ns) as f64 / 1e9,
            blocked_max_us: each.iter().map(|it| it.blocked.max_ns).max().unwrap_or(0) as f64 / 1e3,
            cpu_us_per_record: estimate(|it| it.cpu_ns_per_record / 1e3),
            bytes_per_record: estimate(|it| it.bytes_per_record),
            zeroed_bytes_per_record: estimate(|it| it.zeroed_per_record),
            records_per_write: writes.records / writes.occupied.count.max(1.0),
            generator_late_p99_us: each.iter().map(|it| it.late_p99_ns).max().unwrap_or(0) as f64
                / 1e3,
            theory: predict(discipline, saturation, each, &writes, wait.mean_us.mean),
            wait,
            tail: stats::tail(&merged(&latencies)),
            depth: each.first().map(|it| it.depth.clone()).unwrap_or_default(),
        }
    }
}

fn merged(each: &[&Histogram<u64>]) -> Histogram<u64> {
    let mut all = histogram();
    for it in each {
        // Not reached: all are made with the same bounds.
        all.add(*it).expect("histograms of the same bounds");
    }
    all
}

fn regime(discipline: Discipline, each: &[Measured], writes: &Writes, wait_us: f64) -> Regime {
    let sum = |count: fn(&Measured) -> u64| each.iter().map(count).sum::<u64>();
    let (offered, lost) = (sum(|it| it.offered) as f64, sum(|it| it.lost));
    // Who waits for each record's own write does not wait for room.
    let late_us = sum(|it| it.late_mean_ns) as f64 / each.len() as f64 / 1e3;
    let waited = sum(|it| it.blocked.count) > 0 && discipline != Discipline::Sync;
    if sum(|it| it.unsent) > 0
        || (lost == 0 && (sum(|it| it.durable_in_time) as f64) < 0.95 * offered)
    {
        Regime::Overloaded
    } else if waited || lost > 0 {
        Regime::Full
    } else if discipline != Discipline::Sync && late_us > 0.2 * wait_us {
        Regime::Late
    } else if writes.overlapping > 0.05 * writes.occupied.count {
        Regime::Overlapping
    } else {
        Regime::Open
    }
}

fn predict(
    discipline: Discipline,
    saturation: f64,
    each: &[Measured],
    writes: &Writes,
    measured_us: f64,
) -> Option<Prediction> {
    let seconds: f64 = each.iter().map(|it| it.seconds).sum();
    let rate = each.iter().map(|it| it.offered - it.lost).sum::<u64>() as f64 / seconds;
    if writes.occupied.count < 2.0 || rate <= 0.0 {
        return None;
    }
    let gaps = each.iter().map(|it| it.gaps).reduce(theory::Moments::and).unwrap_or_default();
    let service = &writes.occupied;
    let (model, wait_s) = match discipline {
        Discipline::Sync => (Model::Mg1, theory::mg1(rate, service)),
        Discipline::Timer(_) => (Model::Timer, Some(theory::timer(&writes.intervals))),
        Discipline::Greedy(depth) if depth > 1 => return None,
        Discipline::Graven | Discipline::Greedy(_) | Discipline::Drop(_) | Discipline::Block(_) => {
            let p0 = writes.nobody / writes.kept.count;
            let backlog = theory::backlog(rate, saturation, writes.over_squares / seconds);
            (Model::Bulk, backlog.map(|it| it + theory::bulk(rate, &writes.kept, p0)))
        }
    };
    let gap_sum = if model == Model::Timer { writes.behind_sum } else { writes.gap_sum };
    let gap_s = gap_sum / writes.records.max(1.0);
    let wait_us = wait_s.map(|it| (it + gap_s) * 1e6);
    let bound = |it: f64| (it + gap_s) * 1e6;
    let kingman_us = (model == Model::Mg1)
        .then(|| theory::kingman(rate, gaps.variance(), service))
        .flatten()
        .map(bound);
    Some(Prediction { model, wait_us, kingman_us, ratio: wait_us.map(|it| measured_us / it) })
}
