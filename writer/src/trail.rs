//! A trail open for writing: what applications, sources and the command line use.
//!
//! ```no_run
//! use graven_format::{Flags, Record, Source};
//! use graven_writer::{Options, Trail, clock};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let trail = Trail::open("/var/log/graven".as_ref(), &Options::default())?;
//! let now = clock::now();
//! let record = Record {
//!     source: Source::Socket,
//!     kind: 0,
//!     flags: Flags::NONE,
//!     realtime_ns: now.realtime_ns,
//!     boottime_ns: now.boottime_ns,
//!     source_seq: 0,
//!     bytes: b"door 7 opened",
//! };
//! let ticket = trail.append(&record)?; // waits while the ring is full, and never drops
//! ticket.wait_durable()?; // the record is behind a barrier
//! trail.close()?; // sealed
//! # Ok(())
//! # }
//! ```

use crate::clock;
use crate::dir::LockedDir;
use crate::disk::{Disk, DiskReport, IoBuf};
use crate::engine::Engine;
use crate::engine::Turn;
use crate::engine::checkpoints::{Checkpoints, Published};
use crate::engine::durability::{WaitError, Watermark};
use crate::engine::metrics::{Metrics, Totals};
use crate::engine::recover::Recovered;
use crate::engine::requests::Requests;
use crate::error::{OpenError, WriteError};
use crate::keys::InForce;
use crate::losses::Losses;
use crate::policy::gate::{Dropped, Gate};
use crate::ring::{Ring, RingStats};
use crate::room::Room;
use crate::source::{AppendError, Sink};
use graven_format::loss::{Cause, Certainty, LossStatement};
use graven_format::note::PublicKey;
use graven_format::{Record, TrailId};
use start::start;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

pub use handles::{Asker, CheckpointError, Exempt};
pub use observer::Observer;
pub use options::{
    CHECKPOINT_DEFAULT, EPOCH_DEFAULT, EPOCH_SEGMENTS_DEFAULT, IN_FLIGHT_DEFAULT, Options,
    RING_BYTES_DEFAULT, RING_BYTES_MAX, RING_BYTES_MIN,
};

mod handles;
mod observer;
mod options;
mod start;

/// What opening a trail found and did.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The trail.
    pub trail_id: TrailId,
    /// Seq of the first record that this writer will append.
    pub next_seq: u64,
    /// The kernel's random id of this boot; zeros where it is not known.
    pub boot_id: [u8; 16],
    /// The disk below.
    pub disk: DiskReport,
    /// What recovery found and did.
    pub recovered: Recovered,
    /// The key that signs now; none if the trail is not signed.
    pub key: Option<PublicKey>,
    /// The trail's last key that is gone, if this one takes its place and is not its successor.
    pub broken: Option<InForce>,
}

/// What a writer did from opening to closing.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Seq of the first record that this writer could append.
    pub first_seq: u64,
    /// Records of the trail that are durable: all of it.
    pub durable: u64,
    /// Counts and latencies.
    pub totals: Totals,
    /// The ring: how often and how long producers waited.
    pub ring: RingStats,
    /// The newest durable checkpoint.
    pub checkpoint: Option<Arc<Published>>,
    /// The public key of the trail's writer when it was opened; each later one follows from it.
    pub key: Option<PublicKey>,
}

/// A trail open for writing. Share it between threads by reference or in an [`Arc`].
#[derive(Debug)]
pub struct Trail {
    shared: Shared,
    engine: Option<JoinHandle<Result<(), WriteError>>>,
}

/// What the engine's thread shares.
#[derive(Clone)]
struct Shared {
    ring: Arc<Ring<IoBuf>>,
    watermark: Arc<Watermark>,
    metrics: Arc<Metrics>,
    room: Arc<Room>,
    gate: Arc<Gate>,
    checkpoints: Arc<Checkpoints>,
    requests: Arc<Requests>,
    losses: Arc<Losses>,
    opened: Arc<Opened>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("opened", &self.opened).finish_non_exhaustive()
    }
}

/// A record's place in the trail, and the way to know when it is durable.
#[derive(Clone, Copy, Debug)]
pub struct Ticket<'a> {
    seq: u64,
    watermark: &'a Watermark,
}

impl Ticket<'_> {
    /// The record's sequence.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Waits until the record is behind a barrier.
    ///
    /// # Errors
    /// [`WaitError`] if storage failed before: the record may or may not be on disk.
    pub fn wait_durable(&self) -> Result<(), WaitError> {
        self.watermark.wait_past(self.seq).map(drop)
    }

    /// The same, without blocking the thread.
    ///
    /// # Errors
    /// As [`Ticket::wait_durable`].
    pub async fn durable(&self) -> Result<(), WaitError> {
        self.watermark.past(self.seq).await.map(drop)
    }
}

impl Trail {
    /// Opens the trail in `dir` for writing, or makes one of a missing or empty directory: takes
    /// the lock, puts the end in order after a crash, and prepares the first segment.
    ///
    /// # Errors
    /// [`OpenError`]; nothing that had been announced durable was changed.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, OpenError> {
        Self::open_on(dir, options, |disk| disk)
    }

    /// The same over a disk that `wrap` makes of the driver's, on the engine's thread: what stands between may measure
    /// or delay each operation, and keeps what [`Disk`] promises.
    ///
    /// # Errors
    /// As [`Trail::open`].
    pub fn open_on(
        dir: &Path,
        options: &Options,
        wrap: impl FnOnce(Box<dyn Disk>) -> Box<dyn Disk> + Send + 'static,
    ) -> Result<Self, OpenError> {
        options.check()?;
        let dir = LockedDir::open(dir, &options.key, clock::now())?;
        let options = options.clone();
        let (sender, receiver) = channel();
        let io = |operation, source| OpenError::Io {
            operation,
            path: "the engine's thread".into(),
            source,
        };
        let engine = Builder::new()
            .name("graven-engine".to_owned())
            .spawn(move || engine_thread(&dir, &options, wrap, &sender))
            .map_err(|source| io("start of", source))?;
        match receiver.recv() {
            Ok(opened) => Ok(Self { shared: opened?, engine: Some(engine) }),
            Err(_) => Err(io("start of", io::Error::other("it ended without a word"))),
        }
    }

    /// What opening found and did.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        &self.shared.opened
    }

    /// Appends one record, waiting without limit while there is no room, or while the [gate](Trail::gate) is
    /// closed.
    ///
    /// # Errors
    /// [`AppendError`]; the record was not taken.
    pub fn append(&self, record: &Record<'_>) -> Result<Ticket<'_>, AppendError> {
        self.shared.gate.pass(record)?;
        let seq = self.shared.ring.append(record)?;
        self.shared.losses.note(record);
        Ok(Ticket { seq, watermark: &self.shared.watermark })
    }

    /// Appends one record if there is room for it now.
    ///
    /// # Errors
    /// [`AppendError::Full`] if there is not: the record was not taken and not dropped.
    pub fn try_append(&self, record: &Record<'_>) -> Result<Ticket<'_>, AppendError> {
        self.shared.gate.try_pass(record)?;
        let seq = self.shared.ring.try_append(record)?;
        self.shared.losses.note(record);
        Ok(Ticket { seq, watermark: &self.shared.watermark })
    }

    /// How many records of the trail are durable.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.shared.watermark.durable()
    }

    /// The durable watermark, to wait for; it outlives the trail.
    #[must_use]
    pub fn watermark(&self) -> Arc<Watermark> {
        Arc::clone(&self.shared.watermark)
    }

    /// The durable checkpoints, to look at and to wait for; they outlive the trail.
    #[must_use]
    pub fn checkpoints(&self) -> Arc<Checkpoints> {
        Arc::clone(&self.shared.checkpoints)
    }

    /// Who asks for checkpoints: it outlives the trail, and then says that it has ended.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker { shared: self.shared.clone() }
    }

    /// Who looks at the writer without touching it; it outlives the trail.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer::new(self.shared.clone())
    }

    /// As [`Asker::checkpoint`].
    ///
    /// # Errors
    /// [`CheckpointError`] if the trail is not signed, or ended before.
    pub fn checkpoint(&self) -> Result<Arc<Published>, CheckpointError> {
        self.asker().checkpoint()
    }

    /// As [`Asker::seal_now`].
    pub fn seal_now(&self) -> u64 {
        self.asker().seal_now()
    }

    /// Counts and latencies so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.metrics.totals()
    }

    /// Whether the writer waits for room on the disk, to wait for; it outlives the trail.
    #[must_use]
    pub fn room(&self) -> Arc<Room> {
        Arc::clone(&self.shared.room)
    }

    /// What makes producers wait before the ring; it outlives the trail.
    #[must_use]
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.shared.gate)
    }

    /// The way around the gate, for those who are trusted to use the reserve; it outlives the trail.
    #[must_use]
    pub fn exempt(&self) -> Exempt {
        Exempt { shared: self.shared.clone() }
    }

    /// What the ring holds now.
    #[must_use]
    pub fn ring(&self) -> RingStats {
        self.shared.ring.stats()
    }

    /// Tells whether producers wait because the disk is slow; it outlives the trail. While the disk is
    /// full it is not: then compressing what is sealed is what may make room.
    pub fn producers_wait(&self) -> impl Fn() -> bool + Send + use<> {
        let (ring, room) = (Arc::clone(&self.shared.ring), Arc::clone(&self.shared.room));
        move || ring.stats().producers_waiting > 0 && !room.is_missing()
    }

    /// Takes no more records, so that producers that wait or come later are refused; what was
    /// accepted becomes durable. [`Trail::close`] waits for that.
    pub fn stop(&self) {
        self.shared.gate.end();
        self.state_dropped();
        // Who waits is refused.
        self.shared.ring.close();
    }

    fn take_all(&self, records: &[Record<'_>]) -> Result<(), AppendError> {
        self.shared.ring.append_all(records)?;
        records.iter().for_each(|record| self.shared.losses.note(record));
        Ok(())
    }

    /// States what the gate has dropped, waiting as any record does. A ring that was closed before takes it not, and had
    /// taken it then.
    fn state_dropped(&self) {
        let Some(dropped) = self.shared.gate.take_dropped() else { return };
        let (certainty, range) = (Certainty::Exactly, None);
        let Dropped { source, count, between_ns } = dropped;
        let (cause, between_ns) = (Cause::Dropped, Some(between_ns));
        let statement = LossStatement { source, cause, certainty, count, range, between_ns };
        let now = clock::now();
        let payload = statement.encode(now.realtime_ns);
        let record = LossStatement::record(&payload, now.realtime_ns, now.boottime_ns);
        // Storage that failed is told by whoever closes the trail.
        let _ = self.exempt().append(&record);
    }

    /// Takes no more records, makes all that were accepted durable, and seals the trail. With
    /// [`crate::OnFull::Wait`] on a full disk this waits until there is room, or [`Room::give_up`] is asked.
    ///
    /// # Errors
    /// Storage failed: what is above the watermark may be lost.
    pub fn close(mut self) -> Result<Summary, WriteError> {
        self.stop();
        if let Some(engine) = self.engine.take() {
            engine.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(Summary {
            first_seq: self.shared.opened.next_seq,
            durable: self.durable(),
            totals: self.totals(),
            ring: self.ring(),
            checkpoint: self.shared.checkpoints.newest(),
            key: self.shared.opened.key.clone(),
        })
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            self.stop();
            // Whoever wants to know how it ended calls `close`.
            let _ = engine.join();
        }
    }
}

impl Sink for Trail {
    fn next_seq(&self) -> u64 {
        Sink::next_seq(&*self.shared.ring)
    }

    /// A record that the gate drops is counted, and the seq is that of the next one that is taken.
    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        match self.shared.gate.pass(record) {
            Ok(()) => {
                let seq = self.shared.ring.append(record)?;
                self.shared.losses.note(record);
                Ok(seq)
            }
            Err(_) => Ok(self.shared.ring.stats().next_seq),
        }
    }

    fn append_all(&self, records: &[Record<'_>]) -> Result<(), AppendError> {
        let mut rest = records;
        // Whoever is stopped by the gate has given the ring what was before.
        while let Some(at) = rest.iter().position(|record| self.shared.gate.stops(record)) {
            let (before, from) = rest.split_at(at);
            self.take_all(before)?;
            Sink::append(self, &from[0])?;
            rest = &from[1..];
        }
        self.take_all(rest)
    }
}

/// The whole life of the engine: everything from batch to watermark happens on this thread.
fn engine_thread(
    dir: &LockedDir,
    options: &Options,
    wrap: impl FnOnce(Box<dyn Disk>) -> Box<dyn Disk>,
    opened: &Sender<Result<Shared, OpenError>>,
) -> Result<(), WriteError> {
    let (mut engine, shared) = match start(dir, options, wrap) {
        Ok(started) => started,
        Err(error) => {
            if !matches!(error, OpenError::Io { .. } | OpenError::Write(_)) {
                // It refused before it asked the disk for more than it had waited for.
                dir.unlock();
            }
            // Nobody listens only if the caller's thread has died.
            let _ = opened.send(Err(error));
            return Ok(());
        }
    };
    let _ = opened.send(Ok(shared.clone()));
    let shared = AtEnd(shared);
    let mut held_up = false;
    loop {
        let now = clock::now();
        if held_up && shared.0.room.is_given_up() {
            engine.give_up();
        }
        if shared.0.room.take_asked() {
            engine.ask_for_room();
        }
        let turn = engine.turn(now);
        if engine.is_held_up() != held_up && !matches!(turn, Turn::Failed(_)) {
            held_up = !held_up;
            shared.0.room.set(held_up, now.boottime_ns);
        }
        match turn {
            Turn::Again => {}
            Turn::Sleep { until_ns } => sleep(&mut engine, until_ns),
            Turn::Finished => {
                dir.unlock();
                return Ok(());
            }
            Turn::Failed(error) => return Err(error),
        }
    }
}

/// However the engine's thread ends, nobody waits any more for what it would do.
struct AtEnd(Shared);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.room.end();
        self.0.checkpoints.end();
        self.0.gate.end();
        if !std::thread::panicking() {
            return;
        }
        // An assertion has ended it, and it has told nobody.
        let error = WriteError {
            operation: "an assertion of the engine",
            file: "the trail".to_owned(),
            offset: None,
            durable: self.0.watermark.durable(),
            accepted: self.0.ring.stats().next_seq,
            no_room: false,
            source: Arc::new(io::Error::other("the engine ended by panic")),
        };
        self.0.ring.poison(error.to_string().into());
        self.0.watermark.fail(error);
    }
}

fn sleep<D: Disk>(engine: &mut Engine<D>, until_ns: Option<u64>) {
    let timeout = until_ns
        .map(|until_ns| Duration::from_nanos(until_ns.saturating_sub(clock::now().boottime_ns)));
    engine.disk().wait(timeout);
}
