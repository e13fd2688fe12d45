//! Where everything that is told of a recording comes together.

use super::history::History;
use super::snapshot::{
    Checkpoint, Condition, Control, Grade, Keeper, Kernel, Lag, Lost, LostFor, Past, Producers,
    Records, Ring, SCHEMA, Segment, Snapshot, Space,
};
use crate::escape;
use graven_format::consts::FRAME_BYTES_MAX;
use graven_writer::clock::{self, Now};
use graven_writer::losses::Losses;
use graven_writer::ring::RingStats;
use graven_writer::source::LastStatus;
use graven_writer::{Counts, Observer};
use rustix::time::{ClockId, clock_getres};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a producer waits before it is a condition: in a storm each does for a moment.
const WAITING_NS_MAX: u64 = 1_000_000_000;
/// What a checkpoint may be late by, beside ten times its interval.
const OVERDUE_NS: u64 = 10_000_000_000;
/// An answer of the filesystem that is older says nothing any more.
const SPACE_AGE_NS_MAX: u64 = 30_000_000_000;
/// Part of the kernel's queue from which on it is a condition, in percent.
const BACKLOG_PERCENT: u64 = 90;

/// What somebody else knows of now: must not wait for anything.
type Probe<T> = Box<dyn Fn() -> Option<T> + Send>;

/// See the module's documentation.
pub struct Board {
    observer: Observer,
    trail: String,
    source: &'static str,
    opened_ns: u64,
    state: Mutex<State>,
    /// Who asks.
    pub clients: Clients,
}

/// Counts of the control socket.
#[derive(Debug, Default)]
pub struct Clients {
    /// Clients now.
    pub now: AtomicU64,
    /// Requests answered.
    pub requests: AtomicU64,
    /// Clients refused.
    pub refused: AtomicU64,
    /// Clients dropped because they did not read.
    pub dropped: AtomicU64,
}

struct State {
    history: History,
    kernel: Option<Probe<Kernel>>,
    keeper: Option<Probe<Keeper>>,
    space: Option<(u64, Space)>,
    /// Conditions that others have set.
    set: BTreeMap<&'static str, (Grade, String)>,
    /// Conditions at the last look.
    standing: Vec<Condition>,
    last: Option<Past>,
    checkpoint_interval: Option<Duration>,
    /// Since when there has been a durable record that no checkpoint covers.
    uncovered_since_ns: Option<u64>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("trail", &self.trail).finish_non_exhaustive()
    }
}

impl Board {
    /// The board of a trail that has just been opened, which takes records from `source`.
    #[must_use]
    pub fn new(
        observer: Observer,
        trail: &Path,
        source: &'static str,
        checkpoint_interval: Option<Duration>,
    ) -> Self {
        let opened_ns = clock::now().boottime_ns;
        let state = State {
            history: History::new(opened_ns),
            kernel: None,
            keeper: None,
            space: None,
            set: BTreeMap::new(),
            standing: Vec::new(),
            last: None,
            checkpoint_interval,
            uncovered_since_ns: None,
        };
        Self {
            observer,
            trail: escape::path(trail),
            source,
            opened_ns,
            state: Mutex::new(state),
            clients: Clients::default(),
        }
    }

    /// Tells of the kernel's audit, as its daemon last asked for it.
    pub fn tell_kernel(&self, last: LastStatus) {
        let tick_ns = tick_ns();
        self.lock().kernel = Some(Box::new(move || kernel(&last, tick_ns)));
    }

    /// How old a record grows without a checkpoint from now on.
    pub fn set_checkpoint_interval(&self, interval: Option<Duration>) {
        self.lock().checkpoint_interval = interval;
    }

    /// Tells of the keeper what `probe` knows, which must not wait.
    pub fn tell_keeper(&self, probe: impl Fn() -> Option<Keeper> + Send + 'static) {
        self.lock().keeper = Some(Box::new(probe));
    }

    /// Tells of the trail's filesystem.
    pub fn tell_space(&self, total_bytes: u64, available_bytes: u64) {
        let now_ns = clock::now().boottime_ns;
        self.lock().space = Some((now_ns, Space { age_ns: 0, total_bytes, available_bytes }));
    }

    /// A condition begins, or goes on with another text.
    pub fn set_condition(&self, name: &'static str, grade: Grade, text: impl Into<String>) {
        self.lock().set.insert(name, (grade, text.into()));
    }

    /// A condition is over.
    pub fn clear_condition(&self, name: &'static str) {
        self.lock().set.remove(name);
    }

    /// Takes note of the passing of time: to be called once a second.
    pub fn tick(&self) {
        let now = clock::now();
        let mut state = self.lock();
        state.history.tick(&self.observer, now.boottime_ns);
        self.judge(&mut state, now);
    }

    /// What there is to tell now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now = clock::now();
        let now_ns = now.boottime_ns;
        let mut state = self.lock();
        state.history.tick(&self.observer, now_ns);
        let seen = self.judge(&mut state, now);
        let (latency, barrier) = state.history.latencies(&self.observer, now_ns);
        let opened = self.observer.opened();
        Snapshot {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            trail_id: opened.trail_id.to_string(),
            trail: self.trail.clone(),
            pid: std::process::id(),
            source: self.source.to_owned(),
            realtime_ns: now.realtime_ns,
            uptime_ns: now_ns.saturating_sub(self.opened_ns),
            grade: state.standing.iter().map(|it| it.grade).max().unwrap_or_default(),
            conditions: state.standing.clone(),
            last_condition: state.last.clone(),
            records: records(opened.next_seq, &seen),
            rates: state.history.rates(&seen.counts, now_ns),
            ring: ring(&seen.ring),
            producers: producers(&seen.ring),
            lag: seen.lag,
            latency,
            barrier,
            lost: seen.lost,
            kernel: seen.kernel,
            keeper: seen.keeper,
            space: seen.space,
            segment: seen.counts.segment.map(|it| Segment {
                number: it.segment,
                first_seq: it.first_seq,
                used_bytes: it.used_bytes,
                total_bytes: it.total_bytes,
            }),
            checkpoint: seen.checkpoint,
            epoch: self.observer.checkpoints().epoch(),
            control: self.clients.counts(),
        }
    }

    /// Looks at everything, and keeps what stands against the writer.
    fn judge(&self, state: &mut State, now: Now) -> Seen {
        let now_ns = now.boottime_ns;
        // In this order: what is durable was accepted.
        let (durable, counts) = (self.observer.durable(), self.observer.counts());
        let ring = self.observer.ring();
        let oldest_ns = self.observer.oldest_taken_ns().map(|ns| now_ns.saturating_sub(ns));
        let newest = self.observer.checkpoints().newest();
        let checkpoint = newest.map(|newest| Checkpoint {
            size: newest.size,
            age_ns: newest.boottime_ns.map(|ns| now_ns.saturating_sub(ns)),
            // The record that is the checkpoint needs no other.
            uncovered_records: durable.saturating_sub(newest.size + 1),
        });
        let uncovered = match (&checkpoint, self.observer.checkpoints().epoch()) {
            (_, None) => false,
            (Some(checkpoint), _) => checkpoint.uncovered_records > 0,
            (None, _) => durable > 0,
        };
        state.uncovered_since_ns =
            if uncovered { state.uncovered_since_ns.or(Some(now_ns)) } else { None };
        let lag = Lag {
            records: ring.next_seq.saturating_sub(durable),
            oldest_ns: oldest_ns.unwrap_or(0),
        };
        let fresh = |it: &(u64, Space)| now_ns.saturating_sub(it.0) <= SPACE_AGE_NS_MAX;
        let aged = |(at_ns, space)| Space { age_ns: now_ns.saturating_sub(at_ns), ..space };
        let seen = Seen {
            durable,
            counts,
            ring,
            lag,
            lost: lost(self.observer.losses()),
            kernel: state.kernel.as_ref().and_then(|probe| probe()),
            keeper: state.keeper.as_ref().and_then(|probe| probe()),
            space: state.space.filter(fresh).map(aged),
            checkpoint,
        };
        let standing = self.conditions(state, &seen, now_ns);
        let is_over = |it: &&Condition| !standing.iter().any(|now| now.name == it.name);
        if let Some(over) = state.standing.iter().rev().find(is_over) {
            state.last = Some(Past { condition: over.clone(), ended_realtime_ns: now.realtime_ns });
        }
        state.standing = standing;
        seen
    }

    /// What stands against the writer, the gravest first.
    fn conditions(&self, state: &State, seen: &Seen, now_ns: u64) -> Vec<Condition> {
        let mut all: Vec<_> = state
            .set
            .iter()
            .map(|(name, (grade, text))| condition(name, *grade, text.clone()))
            .collect();
        let mut add = |name, grade, text: String| all.push(condition(name, grade, text));
        if let Some(failure) = self.observer.failure() {
            add("disk_error", Grade::Critical, escaped(&failure.to_string()));
        }
        if self.observer.room().is_missing() {
            let text = format!("no room for the next segment: {} records wait", seen.lag.records);
            add("disk_full", Grade::Critical, text);
        }
        if seen.ring.waiting_ns > WAITING_NS_MAX {
            let (count, seconds) = (seen.ring.producers_waiting, seen.ring.waiting_ns as f64 / 1e9);
            add("ring_full", Grade::Warning, format!("{count} producers wait, for {seconds:.1} s"));
        }
        if seen.lost.statements > 0 {
            let Lost { statements, events, records, .. } = seen.lost;
            let text = format!(
                "{statements} loss statements since the start: {events} events, {records} more records"
            );
            add("upstream_loss", Grade::Warning, text);
        }
        if seen.kernel.is_some_and(|kernel| kernel.enabled == 0) {
            let text = "somebody has switched the kernel's audit off: it makes no records";
            add("audit_off", Grade::Critical, text.to_owned());
        }
        if let Some(kernel) = seen.kernel
            && kernel.backlog_limit > 0
            && u64::from(kernel.backlog) * 100 >= u64::from(kernel.backlog_limit) * BACKLOG_PERCENT
        {
            let text =
                format!("the kernel's queue has {} of {}", kernel.backlog, kernel.backlog_limit);
            add("kernel_backlog", Grade::Warning, text);
        }
        if seen.keeper.is_some_and(|keeper| keeper.is_frozen) {
            add("frozen", Grade::Warning, "producers are frozen until there is room".to_owned());
        }
        if let Some(trouble) = self.observer.checkpoints().trouble() {
            add("keys", Grade::Warning, escaped(&trouble));
        }
        if let (Some(since_ns), Some(interval)) =
            (state.uncovered_since_ns, state.checkpoint_interval)
        {
            let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
            let late_ns = now_ns.saturating_sub(since_ns);
            if late_ns > interval_ns.saturating_mul(10).saturating_add(OVERDUE_NS) {
                let text = format!(
                    "no checkpoint has covered new records for {} s",
                    late_ns / 1_000_000_000
                );
                add("checkpoint_overdue", Grade::Warning, text);
            }
        }
        all.sort_by_key(|it| std::cmp::Reverse(it.grade));
        all
    }

    /// A thread that died with this lock held had nothing half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    fn counts(&self) -> Control {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Control {
            clients: of(&self.now),
            requests: of(&self.requests),
            refused: of(&self.refused),
            dropped: of(&self.dropped),
        }
    }
}

/// What was looked at together.
struct Seen {
    durable: u64,
    counts: Counts,
    ring: RingStats,
    lag: Lag,
    lost: Lost,
    kernel: Option<Kernel>,
    keeper: Option<Keeper>,
    space: Option<Space>,
    checkpoint: Option<Checkpoint>,
}

fn condition(name: &str, grade: Grade, text: String) -> Condition {
    Condition { name: name.to_owned(), grade, text }
}

/// Text that may come from elsewhere.
fn escaped(text: &str) -> String {
    escape::Escaped(text.as_bytes()).to_string()
}

fn records(first_seq: u64, seen: &Seen) -> Records {
    let Counts { records, record_bytes, frames, frame_bytes, .. } = seen.counts;
    Records {
        first_seq,
        accepted: seen.ring.next_seq,
        durable: seen.durable,
        written: records,
        written_bytes: record_bytes,
        frames,
        frame_bytes,
    }
}

fn ring(stats: &RingStats) -> Ring {
    Ring {
        queued_records: stats.queued_records,
        queued_bytes: stats.queued_bytes,
        batches_used: (stats.batches_total - stats.batches_free) as u64,
        batches_used_max: stats.batches_used_max as u64,
        batches: stats.batches_total as u64,
        capacity_bytes: (stats.batches_total * FRAME_BYTES_MAX) as u64,
    }
}

fn producers(stats: &RingStats) -> Producers {
    Producers {
        waiting: stats.producers_waiting as u64,
        waiting_ns: stats.waiting_ns,
        waits: stats.waits,
        wait_ns_max: stats.wait_ns_max,
        wait_ns_total: stats.wait_ns_total,
    }
}

fn lost(losses: &Losses) -> Lost {
    let mut lost = Lost::default();
    for (cause, count) in losses.by_cause() {
        if count.statements == 0 {
            continue;
        }
        lost.statements += count.statements;
        lost.at_least += count.at_least;
        let sum = if cause.unit() == "events" { &mut lost.events } else { &mut lost.records };
        *sum = sum.saturating_add(count.count);
        lost.causes.push(LostFor {
            cause: cause.name().to_owned(),
            unit: cause.unit().to_owned(),
            statements: count.statements,
            count: count.count,
        });
    }
    lost
}

fn kernel(last: &LastStatus, tick_ns: u64) -> Option<Kernel> {
    let (at_ns, status) = last.get()?;
    let time_ns = |ticks: u32| u64::from(ticks).saturating_mul(tick_ns);
    Some(Kernel {
        age_ns: clock::now().boottime_ns.saturating_sub(at_ns),
        enabled: status.enabled,
        pid: status.pid,
        backlog: status.backlog,
        backlog_limit: status.backlog_limit,
        lost: status.lost,
        wait_limit_ns: status.backlog_wait_ticks.map(time_ns),
        waited_ns: status.backlog_waited_ticks.map(time_ns),
    })
}

/// The kernel's tick: its coarse clock advances once in each.
fn tick_ns() -> u64 {
    let tick = clock_getres(ClockId::MonotonicCoarse);
    u64::try_from(tick.tv_nsec).unwrap_or(0)
}
