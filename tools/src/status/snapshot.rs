//! Everything that is told of a writer, at one moment. Status, watch, JSON and metrics all show this.

use serde::{Deserialize, Serialize};

/// Version of the JSON: it rises when a field changes its meaning or goes away. Fields may be added.
pub const SCHEMA: u32 = 1;

/// How a writer, or one condition of it, is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// As it should be.
    #[default]
    Ok,
    /// Somebody should look; records still become durable.
    Warning,
    /// Records do not become durable.
    Critical,
}

impl Grade {
    /// The word for people and labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Something that stands against the writer now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Its name, as policies know it: `disk_full`, `upstream_loss`.
    pub name: String,
    /// How grave it is.
    pub grade: Grade,
    /// A sentence for people.
    pub text: String,
}

/// What a writer tells of itself. Counts begin with 0 when it opens the trail, unless they are of the
/// whole trail; times are in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The version of graven that writes.
    pub version: String,
    /// The trail's id, 32 hexadecimal digits.
    pub trail_id: String,
    /// The trail's directory, as the writer was told it.
    pub trail: String,
    /// The writing process.
    pub pid: u32,
    /// Where records come from.
    pub source: String,
    /// When this was, since 1970.
    pub realtime_ns: u64,
    /// How long the trail has been open.
    pub uptime_ns: u64,
    /// The gravest of the conditions.
    pub grade: Grade,
    /// What stands against it.
    pub conditions: Vec<Condition>,
    /// The condition that ended last: when, since 1970, and which.
    pub last_condition: Option<Past>,
    /// Records.
    pub records: Records,
    /// Over the last 1, 10 and 60 seconds.
    pub rates: Vec<Rate>,
    /// The ring.
    pub ring: Ring,
    /// Those who make records, and wait while the ring is full.
    pub producers: Producers,
    /// What is accepted and not durable.
    pub lag: Lag,
    /// From the taking of a record to its barrier.
    pub latency: Latency,
    /// From the submission of a frame to its barrier.
    pub barrier: Latency,
    /// What was stated as lost.
    pub lost: Lost,
    /// The kernel's audit, if records come from it and it has answered.
    pub kernel: Option<Kernel>,
    /// The keeper, if there is one.
    pub keeper: Option<Keeper>,
    /// The trail's filesystem, if it has answered within the last half minute.
    pub space: Option<Space>,
    /// The segment that frames go to, once there is one.
    pub segment: Option<Segment>,
    /// The newest durable checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// How many keys came before the one that signs; none if nothing is signed.
    pub epoch: Option<u64>,
    /// Who asks.
    pub control: Control,
}

/// A condition that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// It.
    pub condition: Condition,
    /// Since 1970.
    pub ended_realtime_ns: u64,
}

/// Records and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Seq of the first record that this writer could append.
    pub first_seq: u64,
    /// Records of the trail that were accepted.
    pub accepted: u64,
    /// Records of the trail that are durable.
    pub durable: u64,
    /// Records of this writer that are durable, checkpoints included.
    pub written: u64,
    /// Their bytes, headers included, before compression.
    pub written_bytes: u64,
    /// Frames submitted.
    pub frames: u64,
    /// Their bytes: what went to the disk.
    pub frame_bytes: u64,
}

/// How fast records became durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Over so many seconds, or since the trail was opened if that is shorter.
    pub over_s: u32,
    /// Records a second.
    pub records_per_s: f64,
    /// Their bytes a second, before compression.
    pub bytes_per_s: f64,
    /// Bytes a second that went to the disk.
    pub disk_bytes_per_s: f64,
}

/// The ring. Batches in use are being filled, wait, or are written and not durable yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Records that the engine has not taken yet.
    pub queued_records: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Batches in use.
    pub batches_used: u64,
    /// The most that were in use at once.
    pub batches_used_max: u64,
    /// All batches.
    pub batches: u64,
    /// Bytes of all batches.
    pub capacity_bytes: u64,
}

/// Those who wait while the ring is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producers {
    /// How many wait now.
    pub waiting: u64,
    /// How long the first of them has.
    pub waiting_ns: u64,
    /// Waits, those of now included.
    pub waits: u64,
    /// The longest of them.
    pub wait_ns_max: u64,
    /// All of them together.
    pub wait_ns_total: u64,
}

/// What is accepted and not durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// How many records.
    pub records: u64,
    /// How long ago the oldest of them was taken from its source; 0 if there is none.
    pub oldest_ns: u64,
}

/// How long something took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Over the last minute.
    pub minute: Quantiles,
    /// Since the trail was opened.
    pub start: Quantiles,
    /// Since the trail was opened: how many took at most so long, and all.
    pub buckets: Buckets,
}

/// Quantiles of a distribution in nanoseconds; zeros if it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many were measured.
    pub count: u64,
    /// Half took at most so long.
    pub p50_ns: u64,
    /// All but one in a hundred.
    pub p99_ns: u64,
    /// All but one in a thousand.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// A distribution as metrics show it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Buckets {
    /// Upper bound in nanoseconds, and how many are above the bound before it and not above this one.
    pub counts: Vec<(u64, u64)>,
    /// How many there are, those above the last bound included.
    pub count: u64,
    /// Their sum in nanoseconds.
    pub sum_ns: u64,
}

/// What was stated as lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Loss statements.
    pub statements: u64,
    /// Events that they count.
    pub events: u64,
    /// Records that they count beside these.
    pub records: u64,
    /// How many statements say that it may be more.
    pub at_least: u64,
    /// The same by cause, without those that nothing was lost for.
    pub causes: Vec<LostFor>,
}

/// What was lost for one cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostFor {
    /// Its name, as loss statements have it.
    pub cause: String,
    /// What is counted: `events` or `records`.
    pub unit: String,
    /// How many statements.
    pub statements: u64,
    /// How many events or records.
    pub count: u64,
}

/// The kernel's audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// How long ago it answered.
    pub age_ns: u64,
    /// 0 off, 1 on, 2 on and locked.
    pub enabled: u32,
    /// The registered daemon.
    pub pid: u32,
    /// Records in its queue.
    pub backlog: u32,
    /// Most of them before producers wait; 0 for no limit.
    pub backlog_limit: u32,
    /// Records that it knows it lost, since boot or since somebody reset it.
    pub lost: u32,
    /// How long a producer waits for room in its queue.
    pub wait_limit_ns: Option<u64>,
    /// How long producers waited for it together (`backlog_wait_time_actual`).
    pub waited_ns: Option<u64>,
}

/// The process that holds what the kernel gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeper {
    /// Its pid.
    pub pid: u32,
    /// Bytes of its memory in use.
    pub used_bytes: u64,
    /// The most that were.
    pub used_bytes_max: u64,
    /// All of it.
    pub capacity_bytes: u64,
    /// Blocks that it holds.
    pub blocks: u64,
    /// How many of them are compressed.
    pub blocks_compressed: u64,
    /// Whether producers are frozen now.
    pub is_frozen: bool,
}

/// The trail's filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// How long ago it answered.
    pub age_ns: u64,
    /// All of it.
    pub total_bytes: u64,
    /// What the writer may still use.
    pub available_bytes: u64,
}

/// A segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its number.
    pub number: u64,
    /// Seq of its first record.
    pub first_seq: u64,
    /// Bytes of it in use.
    pub used_bytes: u64,
    /// All of them.
    pub total_bytes: u64,
}

/// A checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Records that it covers.
    pub size: u64,
    /// How long ago it was published; none for the one that the trail ended with when it was opened.
    pub age_ns: Option<u64>,
    /// Durable records that it does not cover.
    pub uncovered_records: u64,
}

/// The control socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Clients now.
    pub clients: u64,
    /// Requests answered.
    pub requests: u64,
    /// Clients refused: too many, or another user.
    pub refused: u64,
    /// Clients dropped because they did not read.
    pub dropped: u64,
}
