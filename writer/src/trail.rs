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
use crate::disk::{Disk, DiskChoice, DiskReport, IoBuf, open_disk};
use crate::engine::durability::{WaitError, Watermark};
use crate::engine::metrics::{Metrics, Totals};
use crate::engine::recover::{Recovered, recover};
use crate::engine::{Compress, Engine, OnFull, SQUEEZE_BYTES, Settings, TREE_BYTES, Turn};
use crate::error::{OpenError, WriteError};
use crate::ring::{Ring, RingStats};
use crate::room::Room;
use crate::source::{AppendError, Sink};
use graven_format::consts::{
    ALIGN_BYTES_MAX, FRAME_BYTES_MAX, HOST_BYTES_MAX, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN,
};
use graven_format::{Record, TrailId};
use rustix::io::Errno;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Bytes of the ring unless told otherwise: at 300 MB/s of records a fifth of a second.
pub const RING_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Smallest ring: one buffer is filled while others are written.
pub const RING_BYTES_MIN: u64 = 4 * FRAME_BYTES_MAX as u64;

/// Largest ring: io_uring registers at most 16,384 buffers.
pub const RING_BYTES_MAX: u64 = 16_384 * FRAME_BYTES_MAX as u64;

/// Frames in flight unless told otherwise. Bandwidth saturates at four.
pub const IN_FLIGHT_DEFAULT: usize = 4;

/// How long opening a trail may spend on zeroing its first segment.
const FIRST_ZEROING_NS: u64 = 200_000_000;

/// How a trail is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a segment, 512 KiB to 1 GiB, a multiple of 4096.
    pub segment_bytes: u64,
    /// Bytes of the ring, 1 MiB to 4 GiB: the memory that producers fill before they wait.
    pub ring_bytes: u64,
    /// Frames in flight at most.
    pub in_flight_max: usize,
    /// The driver.
    pub disk: DiskChoice,
    /// What to do when there is no room for another segment.
    pub on_full: OnFull,
    /// Whether segments are zeroed ahead of use; by default where that makes commits faster.
    pub zero_ahead: Option<bool>,
    /// Whether frames are compressed on their way to the disk.
    pub compress: Compress,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            ring_bytes: RING_BYTES_DEFAULT,
            in_flight_max: IN_FLIGHT_DEFAULT,
            disk: DiskChoice::Auto,
            on_full: OnFull::Wait,
            zero_ahead: None,
            compress: Compress::Auto,
        }
    }
}

impl Options {
    /// Memory that a writer with these options has fixed at start, in bytes: the buffers, the
    /// hashes of the batch that is being added to the tree, and what compressing takes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let squeeze_bytes = if self.compress == Compress::Never { 0 } else { SQUEEZE_BYTES };
        self.ring_buffers() as u64 * FRAME_BYTES_MAX as u64 + (TREE_BYTES + squeeze_bytes) as u64
    }

    fn ring_buffers(&self) -> usize {
        (self.ring_bytes / FRAME_BYTES_MAX as u64) as usize
    }

    fn check(&self) -> Result<(), OpenError> {
        let option = |option, value, range: String| Err(OpenError::Option { option, value, range });
        let (min, max) = (SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        if !(min..=max).contains(&self.segment_bytes)
            || !self.segment_bytes.is_multiple_of(ALIGN_BYTES_MAX.into())
        {
            let range = format!("a multiple of {ALIGN_BYTES_MAX} from {min} to {max}");
            return option("segment_bytes", self.segment_bytes, range);
        }
        let (min, max) = (RING_BYTES_MIN, RING_BYTES_MAX);
        if !(min..=max).contains(&self.ring_bytes) {
            return option("ring_bytes", self.ring_bytes, format!("from {min} to {max}"));
        }
        if !(1..=64).contains(&self.in_flight_max) {
            return option("in_flight_max", self.in_flight_max as u64, "from 1 to 64".to_owned());
        }
        Ok(())
    }
}

/// What opening a trail found and did.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The trail.
    pub trail_id: TrailId,
    /// Seq of the first record that this writer will append.
    pub next_seq: u64,
    /// The disk below.
    pub disk: DiskReport,
    /// What recovery found and did.
    pub recovered: Recovered,
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
        options.check()?;
        let dir = LockedDir::open(dir, clock::now())?;
        let options = options.clone();
        let (sender, receiver) = channel();
        let io = |operation, source| OpenError::Io {
            operation,
            path: "the engine's thread".into(),
            source,
        };
        let engine = Builder::new()
            .name("graven-engine".to_owned())
            .spawn(move || engine_thread(&dir, &options, &sender))
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

    /// Appends one record, waiting without limit while there is no room.
    ///
    /// # Errors
    /// [`AppendError`]; the record was not taken.
    pub fn append(&self, record: &Record<'_>) -> Result<Ticket<'_>, AppendError> {
        let seq = self.shared.ring.append(record)?;
        Ok(Ticket { seq, watermark: &self.shared.watermark })
    }

    /// Appends one record if there is room for it now.
    ///
    /// # Errors
    /// [`AppendError::Full`] if there is not: the record was not taken and not dropped.
    pub fn try_append(&self, record: &Record<'_>) -> Result<Ticket<'_>, AppendError> {
        let seq = self.shared.ring.try_append(record)?;
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

    /// What the ring holds now.
    #[must_use]
    pub fn ring(&self) -> RingStats {
        self.shared.ring.stats()
    }

    /// Tells whether producers wait for room in the ring; it outlives the trail.
    pub fn producers_wait(&self) -> impl Fn() -> bool + Send + use<> {
        let ring = Arc::clone(&self.shared.ring);
        move || ring.stats().producers_waiting > 0
    }

    /// Takes no more records, so that producers that wait or come later are refused; what was
    /// accepted becomes durable. [`Trail::close`] waits for that.
    pub fn stop(&self) {
        self.shared.ring.close();
    }

    /// Takes no more records, makes all that were accepted durable, and seals the trail. With
    /// [`OnFull::Wait`] on a full disk this waits until there is room, or [`Room::give_up`] is asked.
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
    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        self.shared.ring.append(record)
    }

    fn append_all(&self, records: &[Record<'_>]) -> Result<(), AppendError> {
        self.shared.ring.append_all(records)
    }
}

/// The whole life of the engine: everything from batch to watermark happens on this thread.
fn engine_thread(
    dir: &LockedDir,
    options: &Options,
    opened: &Sender<Result<Shared, OpenError>>,
) -> Result<(), WriteError> {
    let (mut engine, shared) = match start(dir, options) {
        Ok(started) => started,
        Err(error) => {
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
        let turn = engine.turn(now);
        if engine.is_held_up() != held_up && !matches!(turn, Turn::Failed(_)) {
            held_up = !held_up;
            shared.0.room.set(held_up, now.boottime_ns);
        }
        match turn {
            Turn::Again => {}
            Turn::Sleep { until_ns } => sleep(&mut engine, until_ns),
            Turn::Finished => return Ok(()),
            Turn::Failed(error) => return Err(error),
        }
    }
}

/// However the engine's thread ends, nobody waits any more for what it would do.
struct AtEnd(Shared);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.room.end();
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

/// Opens the disk, recovers, and prepares the first segment.
fn start(dir: &LockedDir, options: &Options) -> Result<(Engine<Box<dyn Disk>>, Shared), OpenError> {
    let io = |operation| {
        let path = dir.path().to_owned();
        move |source| OpenError::Io { operation, path, source }
    };
    let mut buffers = (0..options.ring_buffers())
        .map(|_| IoBuf::new(FRAME_BYTES_MAX))
        .collect::<io::Result<Vec<_>>>()
        .map_err(io("allocation of the ring for"))?;
    let (mut disk, report) = open_disk(dir.path(), options.disk, &mut buffers, Some(dir.lock()))
        .map_err(io("opening the disk of"))?;
    let recovered = recover(&mut disk, dir.trail_id(), clock::now())?;
    let settings = Settings {
        segment_bytes: options.segment_bytes,
        in_flight_max: options.in_flight_max,
        zero_ahead: options.zero_ahead.unwrap_or_else(|| zeroing_helps(&report)),
        on_full: options.on_full,
        compress: options.compress,
        boot_id: boot_id(),
        host: host(),
    };
    let opened = Opened {
        trail_id: dir.trail_id(),
        next_seq: recovered.next_seq(),
        disk: report,
        recovered: recovered.clone(),
    };
    let ring = Arc::new(Ring::new(buffers, recovered.next_seq(), disk.waker()));
    let watermark = Arc::new(recovered.watermark());
    let (accepted, durable) = (Arc::clone(&ring), Arc::clone(&watermark));
    let unsettled = move || durable.durable()..accepted.stats().next_seq;
    let shared = Shared {
        ring: Arc::clone(&ring),
        watermark: Arc::clone(&watermark),
        metrics: Arc::new(Metrics::default()),
        room: Arc::new(Room::new(disk.waker(), unsettled)),
        opened: Arc::new(opened),
    };
    let metrics = Arc::clone(&shared.metrics);
    let mut engine = Engine::new(disk, ring, watermark, metrics, settings, recovered)
        .map_err(io("allocation of buffers for"))?;
    prepare_first(&mut engine)?;
    Ok((engine, shared))
}

/// Runs the engine until the first segment is there, so that a disk without room for one is an
/// error now and not a wait later.
fn prepare_first<D: Disk>(engine: &mut Engine<D>) -> Result<(), OpenError> {
    let hurry_at_ns = clock::now().boottime_ns.saturating_add(FIRST_ZEROING_NS);
    while !engine.is_ready() {
        let now = clock::now();
        if now.boottime_ns >= hurry_at_ns {
            engine.hurry();
        }
        match engine.turn(now) {
            Turn::Failed(error) => return Err(error.into()),
            Turn::Sleep { until_ns } if !engine.waits_for_room() => {
                sleep(engine, Some(until_ns.unwrap_or(hurry_at_ns)));
            }
            _ => {}
        }
        if engine.waits_for_room() && engine.is_settled() {
            return Err(OpenError::Write(WriteError {
                operation: "allocation",
                file: "the first segment".to_owned(),
                offset: None,
                durable: engine.durable(),
                accepted: engine.durable(),
                no_room: true,
                source: Arc::new(Errno::NOSPC.into()),
            }));
        }
    }
    Ok(())
}

/// Whether overwriting written blocks is faster here than writing reserved ones. Filesystems
/// that never overwrite in place, or keep everything in memory, gain nothing.
fn zeroing_helps(report: &DiskReport) -> bool {
    matches!(report.filesystem.as_str(), "ext4" | "xfs")
}

/// The kernel's random id of this boot; zeros where there is no /proc.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map_or([0; 16], |id| {
        let mut bytes = id.to_le_bytes();
        // As the text has it: most significant digits first.
        bytes.reverse();
        bytes
    })
}

fn host() -> Vec<u8> {
    let mut host = rustix::system::uname().nodename().to_bytes().to_vec();
    host.truncate(HOST_BYTES_MAX);
    host
}
