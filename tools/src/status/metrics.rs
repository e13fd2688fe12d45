//! A snapshot as metrics: OpenMetrics for who asks at the socket, the older text format of Prometheus for
//! the file, because the textfile collector of node_exporter reads only that.
//!
//! Every family is one line of a table below, and `docs/metrics.md` has the same table: a test holds them
//! together. Each sample has the label `trail`, so that a machine may have several.

use super::snapshot::{Grade, Keeper, Kernel, Latency, Snapshot};
use graven_format::loss::Cause;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

mod families;

pub use families::{FAMILIES, Family, In, Kind, Of};

/// What all names begin with.
pub const PREFIX: &str = "graven";

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count.
    Whole(u64),
    /// A time or a part.
    Real(f64),
}

impl Value {
    /// Nanoseconds as seconds.
    fn seconds(ns: u64) -> Self {
        Self::Real(ns as f64 / 1e9)
    }
}

/// The text of OpenMetrics 1.0.
#[must_use]
pub fn openmetrics(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    // A string takes everything.
    let _ = text::encode(&mut out, &registry(snapshot));
    out
}

/// The text format of Prometheus, version 0.0.4.
#[must_use]
pub fn prometheus(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    let _ = prometheus_text::encode(&mut out, &registry(snapshot));
    out
}

fn registry(snapshot: &Snapshot) -> Registry {
    let trail = ("trail".into(), snapshot.trail.clone().into());
    let mut registry = Registry::with_prefix_and_labels(PREFIX, [trail].into_iter());
    registry.register_collector(Box::new(Shown(snapshot.clone())));
    registry
}

#[derive(Debug)]
struct Shown(Snapshot);

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        FAMILIES.iter().try_for_each(|family| family.encode(&self.0, &mut encoder))
    }
}

impl Family {
    /// The whole name of its samples, without the endings of their kind.
    #[must_use]
    pub fn full_name(&self) -> String {
        let unit = self.unit.map_or(String::new(), |unit| format!("_{}", unit.name()));
        format!("{PREFIX}_{}{unit}", self.name)
    }

    fn encode(&self, snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        match self.of {
            Of::One(read) => match read(snapshot) {
                Some(value) => self.sample(self.describe(encoder)?, value),
                None => Ok(()),
            },
            Of::Each(read) => {
                let samples = read(snapshot);
                if samples.is_empty() {
                    return Ok(());
                }
                let mut metric = self.describe(encoder)?;
                for (labels, value) in samples {
                    match self.kind {
                        Kind::Info => metric.encode_info(&labels)?,
                        _ => self.sample(metric.encode_family(&labels)?, value)?,
                    }
                }
                Ok(())
            }
            Of::Latency(read) => {
                let Latency { buckets, .. } = read(snapshot);
                let mut counts: Vec<(f64, u64)> =
                    buckets.counts.iter().map(|(ns, count)| (*ns as f64 / 1e9, *count)).collect();
                let within: u64 = buckets.counts.iter().map(|it| it.1).sum();
                counts.push((f64::INFINITY, buckets.count.saturating_sub(within)));
                let (sum, count) = (buckets.sum_ns as f64 / 1e9, buckets.count);
                self.describe(encoder)?.encode_histogram::<NoLabelSet>(sum, count, &counts, None)
            }
        }
    }

    /// What stands in front of its samples.
    fn describe<'a>(
        &self,
        encoder: &'a mut DescriptorEncoder<'_>,
    ) -> Result<MetricEncoder<'a>, fmt::Error> {
        static BYTES: Unit = Unit::Bytes;
        static SECONDS: Unit = Unit::Seconds;
        let kind = match self.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        };
        let unit = self.unit.map(|unit| match unit {
            In::Bytes => &BYTES,
            In::Seconds => &SECONDS,
        });
        // The crate ends only what is registered with a full stop.
        encoder.encode_descriptor(self.name, &format!("{}.", self.help), unit, kind)
    }

    fn sample(&self, mut metric: MetricEncoder<'_>, value: Value) -> fmt::Result {
        const NONE: Option<&Exemplar<NoLabelSet, f64>> = None;
        match (self.kind, value) {
            (Kind::Counter, Value::Whole(value)) => metric.encode_counter(&value, NONE),
            (Kind::Counter, Value::Real(value)) => metric.encode_counter(&value, NONE),
            (_, Value::Whole(value)) => metric.encode_gauge(&value),
            (_, Value::Real(value)) => metric.encode_gauge(&value),
        }
    }
}

/// What was lost for each cause that counts in `unit`, also where that is nothing: a counter that
/// appears with its first loss shows no increase.
fn lost(snapshot: &Snapshot, unit: &str) -> Vec<(Vec<(String, String)>, Value)> {
    let causes = Cause::ALL.iter().filter(|cause| cause.unit() == unit);
    let count = |cause: &Cause| {
        let of = snapshot.lost.causes.iter().find(|it| it.cause == cause.name());
        Value::Whole(of.map_or(0, |it| it.count))
    };
    causes.map(|it| (vec![("cause".to_owned(), it.name().to_owned())], count(it))).collect()
}

fn conditions(snapshot: &Snapshot) -> Vec<(Vec<(String, String)>, Value)> {
    let labels = |name: &str, grade: Grade| {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        vec![pair("condition", name), pair("grade", grade.name())]
    };
    let each = snapshot.conditions.iter();
    each.map(|it| (labels(&it.name, it.grade), Value::Whole(1))).collect()
}

fn writer(snapshot: &Snapshot) -> Vec<(Vec<(String, String)>, Value)> {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let Snapshot { version, trail_id, source, .. } = snapshot;
    let labels = [("version", version), ("trail_id", trail_id), ("source", source)];
    vec![(labels.map(|(key, value)| pair(key, value)).to_vec(), Value::Whole(1))]
}

fn kernel(snapshot: &Snapshot, read: impl FnOnce(&Kernel) -> Option<Value>) -> Option<Value> {
    snapshot.kernel.as_ref().and_then(read)
}

fn keeper(snapshot: &Snapshot, read: impl FnOnce(&Keeper) -> u64) -> Option<Value> {
    snapshot.keeper.as_ref().map(|keeper| Value::Whole(read(keeper)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::snapshot::{Buckets, Checkpoint, Condition, LostFor, Segment, Space};

    /// A snapshot that has everything.
    pub(super) fn whole() -> Snapshot {
        let latency = || Latency {
            buckets: Buckets {
                counts: vec![(1000, 2), (1_000_000, 3)],
                count: 6,
                sum_ns: 2_500_000_000,
            },
            ..Latency::default()
        };
        let condition =
            |name: &str, grade| Condition { name: name.to_owned(), grade, text: "…".to_owned() };
        let mut snapshot = Snapshot {
            trail: "/var/lib/\"graven\"\\x0a".to_owned(),
            version: "1.2.3".to_owned(),
            realtime_ns: 1_763_759_789_500_000_000,
            grade: Grade::Critical,
            conditions: vec![
                condition("disk_full", Grade::Critical),
                condition("upstream_loss", Grade::Warning),
            ],
            latency: latency(),
            barrier: latency(),
            kernel: Some(Kernel {
                wait_limit_ns: Some(1),
                waited_ns: Some(2),
                ..Kernel::default()
            }),
            keeper: Some(Keeper { is_frozen: true, ..Keeper::default() }),
            space: Some(Space { total_bytes: 100, available_bytes: 25, age_ns: 1 }),
            segment: Some(Segment::default()),
            checkpoint: Some(Checkpoint { size: 7, age_ns: Some(3), uncovered_records: 1 }),
            epoch: Some(2),
            ..Snapshot::default()
        };
        snapshot.records.written = u64::MAX;
        snapshot.lost.causes.push(LostFor {
            cause: "serial-gap".to_owned(),
            unit: "events".to_owned(),
            statements: 1,
            count: 17,
        });
        snapshot
    }

    #[test]
    fn the_text_says_what_the_snapshot_does() {
        let text = openmetrics(&whole());
        let has =
            |line: &str| assert!(text.lines().any(|it| it == line), "{line} is not in:\n{text}");
        let trail = r#"trail="/var/lib/\"graven\"\\x0a""#;
        has("# TYPE graven_records counter");
        has(&format!("graven_records_total{{{trail}}} 18446744073709551615"));
        has("# UNIT graven_durable_latency_seconds seconds");
        has(&format!("graven_durable_latency_seconds_sum{{{trail}}} 2.5"));
        has(&format!("graven_durable_latency_seconds_count{{{trail}}} 6"));
        for (le, count) in [("0.000001", 2), ("0.001", 5), ("+Inf", 6)] {
            has(&format!("graven_durable_latency_seconds_bucket{{{trail},le=\"{le}\"}} {count}"));
        }
        has(&format!("graven_lost_events_total{{{trail},cause=\"serial-gap\"}} 17"));
        has(&format!("graven_lost_records_total{{{trail},cause=\"enobufs\"}} 0"));
        has(&format!("graven_condition{{{trail},condition=\"disk_full\",grade=\"critical\"}} 1"));
        has(&format!("graven_space_available_bytes{{{trail}}} 25"));
        assert!(text.ends_with("# EOF\n"));
        let text = prometheus(&whole());
        assert!(text.contains("# TYPE graven_records_total counter\n"), "{text}");
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    }

    #[test]
    fn a_snapshot_that_lacks_things_leaves_their_families_out() {
        let text = openmetrics(&Snapshot::default());
        for name in ["kernel", "keeper", "space", "segment", "checkpoint", "epoch", "condition"] {
            assert!(!text.contains(&format!("graven_{name}")), "{name}: {text}");
        }
        assert!(text.contains("graven_lost_events_total{trail=\"\",cause=\"serial-gap\"} 0\n"));
    }

    /// OpenMetrics 1.0, as far as it is used here: a family's lines stand together, described before, each
    /// once; names are made of the family's; nothing else is there.
    #[test]
    fn the_text_keeps_to_the_grammar() {
        for snapshot in [whole(), Snapshot::default()] {
            let text = openmetrics(&snapshot);
            let mut lines = text.lines().peekable();
            let (mut families, mut samples) = (Vec::new(), Vec::new());
            while let Some(help) = lines.next().filter(|line| *line != "# EOF") {
                let (family, sentence) =
                    help.strip_prefix("# HELP ").and_then(|it| it.split_once(' ')).expect(help);
                assert!(sentence.ends_with('.') && !sentence.ends_with(".."), "{help}");
                assert!(!families.contains(&family), "{family} stands twice");
                families.push(family);
                let kind =
                    lines.next().and_then(|it| it.strip_prefix(&format!("# TYPE {family} ")));
                let kind = kind.expect(family);
                if let Some(unit) = lines.peek().and_then(|it| it.strip_prefix("# UNIT ")) {
                    let unit = unit.strip_prefix(family).expect("of this family").trim();
                    assert!(family.ends_with(&format!("_{unit}")), "{family}: {unit}");
                    lines.next();
                }
                let endings: &[&str] = match kind {
                    "gauge" => &[""],
                    "counter" => &["_total"],
                    "info" => &["_info"],
                    "histogram" => &["_bucket", "_count", "_sum"],
                    other => panic!("{family} is a {other}"),
                };
                let before = samples.len();
                while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
                    let (series, value) = sample.rsplit_once(' ').expect(sample);
                    let (name, labels) = series.split_once('{').expect(series);
                    let ending = name.strip_prefix(family).expect(series);
                    assert!(endings.contains(&ending), "{series} of a {kind}");
                    assert!(labels.ends_with('}') && labels.contains("trail=\""), "{series}");
                    assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{sample}");
                    assert!(!samples.contains(&series), "{series} stands twice");
                    samples.push(series);
                }
                assert!(samples.len() > before, "{family} has no sample");
            }
            assert_eq!(lines.next(), None, "nothing is behind the end");
        }
    }

    const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

    #[test]
    fn the_document_and_the_exposition_are_the_same() {
        let rows: Vec<&str> =
            DOCUMENT.lines().filter(|line| line.starts_with("| `graven_")).collect();
        let expected: Vec<String> = FAMILIES.iter().map(Family::row).collect();
        assert_eq!(rows.join("\n"), expected.join("\n"), "docs/metrics.md");
        // And each is there, with its labels, when a snapshot has everything.
        let text = openmetrics(&whole());
        for family in FAMILIES {
            let name = family.full_name();
            let described = format!("# TYPE {name} ");
            assert!(text.contains(&described), "{name} is not in the text");
            let series = text.lines().find(|line| line.starts_with(&name)).expect("a sample");
            for label in family.labels {
                assert!(series.contains(&format!("{label}=\"")), "{series} has no {label}");
            }
        }
    }
}
