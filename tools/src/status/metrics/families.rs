//! The families of metrics, one line each.

use super::{Value, conditions, keeper, kernel, lost, writer};
use crate::status::snapshot::{Grade, Latency, Snapshot};

/// The kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only rises, from 0 at the start of the writer.
    Counter,
    /// How many were at most so large.
    Histogram,
    /// Words.
    Info,
}

/// A unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum In {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

impl In {
    /// Its name, with which that of a family ends.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        }
    }
}

/// Labels and their values.
type Labels = Vec<(String, String)>;

/// Where samples come from.
#[derive(Clone, Copy)]
pub enum Of {
    /// One, if the snapshot has it.
    One(fn(&Snapshot) -> Option<Value>),
    /// Any number, with labels.
    Each(fn(&Snapshot) -> Vec<(Labels, Value)>),
    /// A distribution.
    Latency(fn(&Snapshot) -> &Latency),
}

/// A family of metrics.
#[derive(Clone, Copy)]
pub struct Family {
    /// Its name, without what all begin with and without its unit.
    pub name: &'static str,
    /// Its unit, which is a part of the name.
    pub unit: Option<In>,
    /// Its kind.
    pub kind: Kind,
    /// Labels beside `trail`.
    pub labels: &'static [&'static str],
    /// A sentence without its full stop.
    pub help: &'static str,
    /// Where samples come from.
    pub of: Of,
}

impl Family {
    /// Its line of the table in `docs/metrics.md`.
    #[must_use]
    pub fn row(&self) -> String {
        let (kind, ending) = match self.kind {
            Kind::Gauge => ("gauge", ""),
            Kind::Counter => ("counter", "_total"),
            Kind::Histogram => ("histogram", ""),
            Kind::Info => ("info", "_info"),
        };
        let labels: Vec<String> = self.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, labels, help) = (self.full_name(), labels.join(", "), self.help);
        let unit = self.unit.map_or("", In::name);
        format!("| `{name}{ending}` | {kind} | {unit} | {labels} | {help} |")
    }
}

const fn one(
    name: &'static str,
    unit: Option<In>,
    kind: Kind,
    help: &'static str,
    read: fn(&Snapshot) -> Option<Value>,
) -> Family {
    Family { name, unit, kind, labels: &[], help, of: Of::One(read) }
}

const fn each(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Snapshot) -> Vec<(Labels, Value)>,
) -> Family {
    Family { name, unit: None, kind, labels, help, of: Of::Each(read) }
}

const fn latency(
    name: &'static str,
    help: &'static str,
    read: fn(&Snapshot) -> &Latency,
) -> Family {
    let (unit, kind) = (SECONDS, Kind::Histogram);
    Family { name, unit, kind, labels: &[], help, of: Of::Latency(read) }
}

const BYTES: Option<In> = Some(In::Bytes);
const SECONDS: Option<In> = Some(In::Seconds);

use Kind::{Counter, Gauge, Info};
use Value::Whole;

/// All of them.
pub const FAMILIES: &[Family] = &[
    each("writer", Info, &["version", "trail_id", "source"], "Who writes", writer),
    one("start_time", SECONDS, Gauge, "When the trail was opened, since 1970", |s| {
        Some(Value::seconds(s.realtime_ns.saturating_sub(s.uptime_ns)))
    }),
    one("snapshot_time", SECONDS, Gauge, "When these numbers were taken, since 1970", |s| {
        Some(Value::seconds(s.realtime_ns))
    }),
    one("grade", None, Gauge, "The gravest condition: 0 ok, 1 warning, 2 critical", |s| {
        Some(Whole(match s.grade {
            Grade::Ok => 0,
            Grade::Warning => 1,
            Grade::Critical => 2,
        }))
    }),
    each(
        "condition",
        Gauge,
        &["condition", "grade"],
        "1 for each condition that stands",
        conditions,
    ),
    one(
        "records",
        None,
        Counter,
        "Records that this writer has made durable, checkpoints included",
        |s| Some(Whole(s.records.written)),
    ),
    one("record", BYTES, Counter, "Their bytes, headers included, before compression", |s| {
        Some(Whole(s.records.written_bytes))
    }),
    one("frames", None, Counter, "Frames submitted to the disk", |s| Some(Whole(s.records.frames))),
    one("frame", BYTES, Counter, "Their bytes, padding included, after compression", |s| {
        Some(Whole(s.records.frame_bytes))
    }),
    one("accepted_records", None, Gauge, "Records of the whole trail that were accepted", |s| {
        Some(Whole(s.records.accepted))
    }),
    one("durable_records", None, Gauge, "Records of the whole trail that are durable", |s| {
        Some(Whole(s.records.durable))
    }),
    one("lag_records", None, Gauge, "Records that are accepted and not durable", |s| {
        Some(Whole(s.lag.records))
    }),
    one("lag", SECONDS, Gauge, "Age of the oldest of them; 0 if there is none", |s| {
        Some(Value::seconds(s.lag.oldest_ns))
    }),
    latency("durable_latency", "From the taking of a record to its barrier", |s| &s.latency),
    latency("barrier_latency", "From the submission of a frame to its barrier", |s| &s.barrier),
    one("ring_batches", None, Gauge, "Batches of the ring", |s| Some(Whole(s.ring.batches))),
    one("ring_batches_used", None, Gauge, "Batches filled, waiting, or not durable yet", |s| {
        Some(Whole(s.ring.batches_used))
    }),
    one("ring_batches_used_max", None, Gauge, "The most of them at once", |s| {
        Some(Whole(s.ring.batches_used_max))
    }),
    one("ring_queued_records", None, Gauge, "Records that the engine has not taken yet", |s| {
        Some(Whole(s.ring.queued_records))
    }),
    one("ring_queued", BYTES, Gauge, "Their bytes", |s| Some(Whole(s.ring.queued_bytes))),
    one("producers_waiting", None, Gauge, "Producers that wait for room in the ring now", |s| {
        Some(Whole(s.producers.waiting))
    }),
    one("producer_waits", None, Counter, "Waits of producers, those of now included", |s| {
        Some(Whole(s.producers.waits))
    }),
    one("producer_wait", SECONDS, Counter, "How long they took together", |s| {
        Some(Value::seconds(s.producers.wait_ns_total))
    }),
    one("producer_wait_max", SECONDS, Gauge, "The longest of them", |s| {
        Some(Value::seconds(s.producers.wait_ns_max))
    }),
    one("loss_statements", None, Counter, "Loss statements", |s| Some(Whole(s.lost.statements))),
    each("lost_events", Counter, &["cause"], "Events that were stated as lost", |s| {
        lost(s, "events")
    }),
    each(
        "lost_records",
        Counter,
        &["cause"],
        "Records that were stated as lost beside these",
        |s| lost(s, "records"),
    ),
    one("kernel_backlog_records", None, Gauge, "Records in the kernel's queue", |s| {
        kernel(s, |it| Some(Whole(it.backlog.into())))
    }),
    one(
        "kernel_backlog_limit_records",
        None,
        Gauge,
        "Most of them before producers wait; 0 for no limit",
        |s| kernel(s, |it| Some(Whole(it.backlog_limit.into()))),
    ),
    one(
        "kernel_lost_records",
        None,
        Counter,
        "Records that the kernel knows it lost, since boot",
        |s| kernel(s, |it| Some(Whole(it.lost.into()))),
    ),
    one(
        "kernel_wait",
        SECONDS,
        Counter,
        "How long producers waited for the kernel's queue, since boot",
        |s| kernel(s, |it| it.waited_ns.map(Value::seconds)),
    ),
    one("kernel_answer_age", SECONDS, Gauge, "How long ago the kernel said this", |s| {
        kernel(s, |it| Some(Value::seconds(it.age_ns)))
    }),
    one("keeper_capacity", BYTES, Gauge, "Memory of the keeper", |s| {
        keeper(s, |it| it.capacity_bytes)
    }),
    one("keeper_used", BYTES, Gauge, "How much of it is in use", |s| keeper(s, |it| it.used_bytes)),
    one("keeper_used_max", BYTES, Gauge, "The most that was", |s| {
        keeper(s, |it| it.used_bytes_max)
    }),
    one("keeper_blocks", None, Gauge, "Blocks that the keeper holds", |s| {
        keeper(s, |it| it.blocks)
    }),
    one("keeper_blocks_compressed", None, Gauge, "How many of them are compressed", |s| {
        keeper(s, |it| it.blocks_compressed)
    }),
    one("keeper_frozen", None, Gauge, "1 while producers are frozen", |s| {
        keeper(s, |it| it.is_frozen.into())
    }),
    one("space", BYTES, Gauge, "Size of the trail's filesystem", |s| {
        s.space.map(|it| Whole(it.total_bytes))
    }),
    one("space_available", BYTES, Gauge, "What the writer may still use of it", |s| {
        s.space.map(|it| Whole(it.available_bytes))
    }),
    one("segment_number", None, Gauge, "The segment that frames go to", |s| {
        s.segment.map(|it| Whole(it.number))
    }),
    one("segment", BYTES, Gauge, "Its size", |s| s.segment.map(|it| Whole(it.total_bytes))),
    one("segment_used", BYTES, Gauge, "How much of it is in use", |s| {
        s.segment.map(|it| Whole(it.used_bytes))
    }),
    one(
        "checkpoint_records",
        None,
        Gauge,
        "Records that the newest durable checkpoint covers",
        |s| s.checkpoint.map(|it| Whole(it.size)),
    ),
    one(
        "checkpoint_uncovered_records",
        None,
        Gauge,
        "Durable records that it does not cover",
        |s| s.checkpoint.map(|it| Whole(it.uncovered_records)),
    ),
    one("checkpoint_age", SECONDS, Gauge, "How long ago this writer published it", |s| {
        s.checkpoint.and_then(|it| it.age_ns).map(Value::seconds)
    }),
    one("epoch", None, Gauge, "How many keys came before the one that signs", |s| {
        s.epoch.map(Whole)
    }),
    one("control_clients", None, Gauge, "Clients at the control socket now", |s| {
        Some(Whole(s.control.clients))
    }),
    one("control_requests", None, Counter, "Requests that were answered", |s| {
        Some(Whole(s.control.requests))
    }),
    one("control_refused", None, Counter, "Clients that were refused", |s| {
        Some(Whole(s.control.refused))
    }),
    one(
        "control_dropped",
        None,
        Counter,
        "Clients that were dropped because they did not read",
        |s| Some(Whole(s.control.dropped)),
    ),
];
