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
use crate::disk::{Disk, DiskChoice, DiskReport, IoBuf, Wake, open_disk};
use crate::engine::checkpoints::{Checkpoints, Published};
use crate::engine::durability::{WaitError, Watermark};
use crate::engine::metrics::{Metrics, Totals};
use crate::engine::recover::{Recovered, recover};
use crate::engine::{
    Cadence, Compress, Engine, OnFull, SQUEEZE_BYTES, Settings, Signing, TREE_BYTES, Turn,
};
use crate::error::{OpenError, WriteError};
use crate::keys::files::{self, KeyFiles};
use crate::keys::{Choice, InForce, KeyOption, KeyTrouble, LocalKeys, choose};
use crate::ring::{Ring, RingStats};
use crate::room::Room;
use crate::source::{AppendError, Sink};
use graven_format::consts::{
    ALIGN_BYTES_MAX, CHECKPOINT_STORED_BYTES_MAX, FRAME_BYTES_MAX, HOST_BYTES_MAX,
    SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
};
use graven_format::key_file::KeyFile;
use graven_format::note::{Note, PublicKey, Signed};
use graven_format::{Record, TrailId, name};
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

/// How old a record grows before a checkpoint covers it, unless told otherwise.
pub const CHECKPOINT_DEFAULT: Duration = Duration::from_secs(1);

/// How long a key signs unless told otherwise: what was recorded longer ago cannot be signed anew by
/// whoever takes the machine.
pub const EPOCH_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// In how many segments a key signs unless told otherwise: a GiB of them.
pub const EPOCH_SEGMENTS_DEFAULT: u64 = 16;

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
    /// Where the first key comes from.
    pub key: KeyOption,
    /// How old a record grows before a checkpoint covers it, 10 ms to a day; without, only what ends a
    /// segment or is asked for is signed.
    pub checkpoint: Option<Duration>,
    /// How long a key signs, 1 s to a year.
    pub epoch: Duration,
    /// In how many segments a key signs, at least 1.
    pub epoch_segments: u64,
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
            key: KeyOption::Auto,
            checkpoint: Some(CHECKPOINT_DEFAULT),
            epoch: EPOCH_DEFAULT,
            epoch_segments: EPOCH_SEGMENTS_DEFAULT,
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
        let (min, max) = (Duration::from_millis(10), Duration::from_secs(86_400));
        if let Some(interval) = self.checkpoint.filter(|it| !(min..=max).contains(it)) {
            let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            return option("checkpoint", ms, "from 10 to 86400000 milliseconds".to_owned());
        }
        let (min, max) = (Duration::from_secs(1), Duration::from_secs(365 * 86_400));
        if !(min..=max).contains(&self.epoch) {
            let range = "from 1 to 31536000 seconds".to_owned();
            return option("epoch", self.epoch.as_secs(), range);
        }
        if self.epoch_segments == 0 {
            return option("epoch_segments", 0, "at least 1".to_owned());
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
    checkpoints: Arc<Checkpoints>,
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

/// Why there is no checkpoint.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The trail has no key.
    #[error("the trail is not signed: it has no key")]
    Unsigned,
    /// The trail was closed, or storage failed.
    #[error(transparent)]
    Ended(WaitError),
}

impl Trail {
    /// Opens the trail in `dir` for writing, or makes one of a missing or empty directory: takes
    /// the lock, puts the end in order after a crash, and prepares the first segment.
    ///
    /// # Errors
    /// [`OpenError`]; nothing that had been announced durable was changed.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, OpenError> {
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

    /// As [`Asker::checkpoint`].
    ///
    /// # Errors
    /// [`CheckpointError`] if the trail is not signed, or ended before.
    pub fn checkpoint(&self) -> Result<Arc<Published>, CheckpointError> {
        self.asker().checkpoint()
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

    /// Tells whether producers wait because the disk is slow; it outlives the trail. While the disk is
    /// full it is not: then compressing what is sealed is what may make room.
    pub fn producers_wait(&self) -> impl Fn() -> bool + Send + use<> {
        let (ring, room) = (Arc::clone(&self.shared.ring), Arc::clone(&self.shared.room));
        move || ring.stats().producers_waiting > 0 && !room.is_missing()
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
            checkpoint: self.shared.checkpoints.newest(),
            key: self.shared.opened.key.clone(),
        })
    }
}

/// Asks the writer of a trail for checkpoints.
#[derive(Clone, Debug)]
pub struct Asker {
    shared: Shared,
}

impl Asker {
    /// The durable checkpoints, to look at and to wait for.
    #[must_use]
    pub fn checkpoints(&self) -> Arc<Checkpoints> {
        Arc::clone(&self.shared.checkpoints)
    }

    /// A durable checkpoint over all that has been accepted: the newest, if it covers that, or else one
    /// that is made now and waited for.
    ///
    /// # Errors
    /// [`CheckpointError`] if the trail is not signed, or ended before.
    pub fn checkpoint(&self) -> Result<Arc<Published>, CheckpointError> {
        let size = self.ask_checkpoint()?;
        let waited = self.shared.checkpoints.wait_covering(size);
        waited.map_err(|_| CheckpointError::Ended(self.how_ended()))
    }

    /// The same, without blocking the thread.
    ///
    /// # Errors
    /// As [`Asker::checkpoint`].
    pub async fn checkpoint_durable(&self) -> Result<Arc<Published>, CheckpointError> {
        let size = self.ask_checkpoint()?;
        let waited = self.shared.checkpoints.covering(size).await;
        waited.map_err(|_| CheckpointError::Ended(self.how_ended()))
    }

    /// Asks for a checkpoint if one is needed, and says what it must cover.
    fn ask_checkpoint(&self) -> Result<u64, CheckpointError> {
        if self.shared.opened.key.is_none() {
            return Err(CheckpointError::Unsigned);
        }
        let size = self.shared.ring.stats().next_seq;
        let covered = self.shared.checkpoints.newest().is_some_and(|it| it.size >= size);
        Ok(if covered { size } else { self.shared.ring.cover() })
    }

    /// Why no checkpoint comes any more.
    fn how_ended(&self) -> WaitError {
        // It ends before or with the watermark.
        self.shared.watermark.wait_past(u64::MAX - 1).err().unwrap_or(WaitError::Closed)
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
        self.0.checkpoints.end();
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
    let mut local = files::read_all(dir.path()).map_err(io("reading the keys of"))?;
    local.may_break = options.key == KeyOption::Restart;
    let recovered = recover(&mut disk, dir.trail_id(), &local, clock::now())?;
    let key = settle_keys(dir, &local, &recovered)?;
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
        broken: recovered.in_force.filter(|it| key.as_ref().is_some_and(|key| !is_of(key, it))),
        recovered: recovered.clone(),
        key: key.as_ref().map(|file| file.key.public().clone()),
    };
    let mut ring = Ring::new(buffers, recovered.next_seq(), disk.waker());
    if key.is_some() {
        ring = ring.with_checkpoints(CHECKPOINT_STORED_BYTES_MAX);
    }
    let ring = Arc::new(ring);
    let watermark = Arc::new(recovered.watermark());
    let (accepted, durable) = (Arc::clone(&ring), Arc::clone(&watermark));
    let unsettled = move || durable.durable()..accepted.stats().next_seq;
    let (ring_too, watermark_too) = (Arc::clone(&ring), Arc::clone(&watermark));
    let metrics = Arc::new(Metrics::default());
    let room = Arc::new(Room::new(disk.waker(), unsettled));
    let signing = key.map(|key| signing(key, dir, options, &recovered, disk.waker()));
    let metrics_too = Arc::clone(&metrics);
    let mut engine = Engine::new(disk, ring_too, watermark_too, metrics_too, settings, recovered)
        .map_err(io("allocation of buffers for"))?;
    if let Some(signing) = signing {
        engine = engine.with_signing(signing);
    }
    let (checkpoints, opened) = (engine.checkpoints(), Arc::new(opened));
    let shared = Shared { ring, watermark, metrics, room, checkpoints, opened };
    prepare_first(&mut engine)?;
    Ok((engine, shared))
}

/// Whether the trail's key in force is this one.
fn is_of(file: &KeyFile, in_force: &InForce) -> bool {
    file.key.public().bytes() == in_force.key
}

/// The key that signs from here on, if one does. Ends a change of keys that was cut off.
fn settle_keys(
    dir: &LockedDir,
    local: &LocalKeys,
    recovered: &Recovered,
) -> Result<Option<KeyFile>, OpenError> {
    let path = dir.path();
    let io = |operation| {
        let path = path.to_owned();
        move |source| OpenError::Io { operation, path, source }
    };
    let restart = |epoch| {
        let (now, segment) = (clock::now(), recovered.next_segment);
        let file = files::generate(dir.trail_id(), epoch, now.realtime_ns, segment)?;
        files::create(path, &file).map(|()| Some(file))
    };
    match choose(local, recovered.in_force) {
        Ok(Choice::Unsigned) if local.may_break => restart(0).map_err(io("making of a key in")),
        Ok(Choice::Unsigned) => Ok(None),
        Ok(Choice::Current(file)) => {
            if local.next_exists {
                files::erase(&path.join(name::KEY_NEXT)).map_err(io("erasing the next key in"))?;
            }
            Ok(Some(file))
        }
        Ok(Choice::Next(file)) => {
            files::install(path).map_err(io("erasing the last key in"))?;
            Ok(Some(file))
        }
        Err(KeyTrouble::Missing { in_force, .. }) if local.may_break => {
            restart(in_force.epoch + 1).map_err(io("making of a key in"))
        }
        Err(trouble) => Err(trouble.into()),
    }
}

/// What the engine signs with.
fn signing(
    key: KeyFile,
    dir: &LockedDir,
    options: &Options,
    recovered: &Recovered,
    wake: Arc<dyn Wake>,
) -> Signing {
    let nanoseconds = |it: Duration| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX);
    let cadence = Cadence {
        interval_ns: options.checkpoint.map(nanoseconds),
        epoch_ns: nanoseconds(options.epoch),
        epoch_segments: options.epoch_segments,
    };
    let signed =
        Note::parse(&recovered.note).is_ok_and(|note| note.verify(key.key.public()) == Signed::Yes);
    let store = KeyFiles::new(dir.path().to_owned(), dir.trail_id(), wake);
    Signing { key, signed, store: Box::new(store), cadence }
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
