//! What a comparison has shown: what `--json` writes, and what the table is made of.

use super::super::machine::About;
use super::super::process::Usage;
use super::super::report::Floor;
use super::super::stats::{histogram, quantile_us};
use super::rival::{Durability, Path, Rival};
use hdrhistogram::Histogram;
use serde::Serialize;

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
    /// Writes of 4 KiB, each a barrier, one after the other, before each round.
    pub floor: Option<Floor>,
    /// One for each rival in each of its ways.
    pub rows: Vec<Row>,
}

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// Sizes of records on the library path.
    pub sizes: String,
    /// Their mean in bytes.
    pub mean_bytes: f64,
    /// Threads that produce on the library path.
    pub producers: usize,
    /// Seconds of each run.
    pub seconds: f64,
    /// How often each is measured.
    pub rounds: usize,
}

/// What became of a rival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "is", content = "why", rename_all = "snake_case")]
pub enum State {
    /// There are figures.
    Measured,
    /// Not installed: what is missing.
    NotInstalled(String),
    /// Installed, or ours, and not to be measured here: why.
    NotMeasured(String),
    /// It failed, or what it had was not what was sent. Figures are of the rounds before.
    Failed(String),
}

/// A figure of all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median; the lower of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of these; `None` of none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Self { median: values[(values.len() - 1) / 2], min, max })
    }
}

/// From handing over to the acknowledgement, in microseconds, all rounds together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// One round of one rival.
#[derive(Clone, Debug)]
pub struct Round {
    /// Which.
    pub index: usize,
    /// Records, or events, that were made.
    pub sent: u64,
    /// Of these, there when it was read back, each once.
    pub found: u64,
    /// From the first to when the last was there.
    pub took_ns: u64,
    /// Empty where nobody is told.
    pub latency: Histogram<u64>,
    /// Of producers and rival.
    pub usage: Usage,
}

impl Round {
    fn per_s(&self) -> f64 {
        self.found as f64 * 1e9 / self.took_ns.max(1) as f64
    }
}

/// A rival in one way.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub rival: String,
    /// The way that records take to it.
    pub path: Path,
    /// What producers wait for.
    pub mode: String,
    /// What is counted: records of the library path, events of the kernel's.
    pub unit: &'static str,
    /// What it says of itself.
    pub version: Option<String>,
    /// What became of it.
    pub state: State,
    /// How far what it has is to be trusted.
    pub durability: Durability,
    /// Which barrier, and when.
    pub barrier: &'static str,
    /// What of its figures is not its own.
    pub handicap: Option<&'static str>,
    /// Rounds that count.
    pub rounds: usize,
    /// Records a second that were there in the end.
    pub per_s: Option<Spread>,
    /// The same over Graven's in the same round and mode.
    pub over_graven: Option<Spread>,
    /// Absent where nobody is told.
    pub latency: Option<Latency>,
    /// Records that were made, in all rounds.
    pub sent: u64,
    /// Of these, there when it was read back, each once.
    pub found: u64,
    /// Of these, not there.
    pub lost: u64,
    /// Processor time a record in microseconds, of producers and rival; that of kernel threads is not in it.
    pub cpu_us: Option<Spread>,
    /// Bytes given to storage a record, by all of the same; absent where the kernel does not count them.
    pub written_bytes: Option<Spread>,
}

impl Row {
    /// Of the rounds of one rival, and of Graven's in the same way.
    #[must_use]
    pub fn of(
        rival: Rival,
        version: Option<String>,
        state: State,
        rounds: &[Round],
        ours: &[Round],
    ) -> Self {
        let each = |value: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(value).collect());
        let ratios = rounds.iter().filter_map(|it| {
            let ours = ours.iter().find(|ours| ours.index == it.index)?;
            (ours.found > 0).then(|| it.per_s() / ours.per_s())
        });
        let sum = |count: fn(&Round) -> u64| rounds.iter().map(count).sum::<u64>();
        let (sent, found) = (sum(|it| it.sent), sum(|it| it.found));
        let per = |it: &Round, value: u64| value as f64 / it.sent.max(1) as f64;
        let promise = rival.promise();
        Self {
            rival: rival.name(),
            path: rival.path(),
            mode: rival.mode().to_string(),
            unit: if rival.path() == Path::Library { "records" } else { "events" },
            version,
            state,
            durability: promise.durability,
            barrier: promise.barrier,
            handicap: rival.handicap(),
            rounds: rounds.len(),
            per_s: each(&Round::per_s),
            over_graven: Spread::of(ratios.collect()),
            latency: latency(rounds),
            sent,
            found,
            lost: sent.saturating_sub(found),
            cpu_us: each(&|it| per(it, it.usage.cpu_ns) / 1e3),
            written_bytes: each(&|it| per(it, it.usage.written_bytes)).filter(|it| it.max > 0.0),
        }
    }
}

fn latency(rounds: &[Round]) -> Option<Latency> {
    let mut all = histogram();
    for it in rounds {
        // Not reached: all are made with the same bounds.
        all.add(&it.latency).expect("histograms of the same bounds");
    }
    let at = |q| quantile_us(&all, q);
    (!all.is_empty()).then(|| Latency {
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: all.max() as f64 / 1e3,
    })
}

#[cfg(test)]
mod tests {
    use super::super::library::Appender;
    use super::super::load::Mode;
    use super::*;

    fn round(index: usize, sent: u64, found: u64, cpu_ns: u64) -> Round {
        let usage = Usage { cpu_ns, written_bytes: 0 };
        Round { index, sent, found, took_ns: 1_000_000_000, latency: histogram(), usage }
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let rival = Rival::Library(Appender::Redis, Mode::Each);
        let ours = [round(0, 100, 100, 0), round(1, 1000, 1000, 0), round(2, 10, 10, 0)];
        // Of the second round there is none.
        let theirs = [round(0, 50, 50, 100_000), round(2, 20, 5, 100_000)];
        let row = Row::of(rival, None, State::Failed("x".into()), &theirs, &ours);
        assert_eq!(row.over_graven, Some(Spread { median: 0.5, min: 0.5, max: 0.5 }));
        assert_eq!((row.sent, row.found, row.lost, row.rounds), (70, 55, 15, 2));
        assert_eq!(row.per_s, Some(Spread { median: 5.0, min: 5.0, max: 50.0 }));
        assert_eq!(row.cpu_us, Some(Spread { median: 2.0, min: 2.0, max: 5.0 }));
        assert!(row.latency.is_none() && row.written_bytes.is_none());
        assert_eq!(Spread::of(vec![]), None);
    }
}
