//! The simulated disk with a fuse in it: after so many moments, what would be left now is put
//! aside, and the doomed writer goes on without knowing. So a crash can come in the middle of a
//! turn, of recovery, of anything that touches the disk.

use crate::keys::{SharedKeys, SimKeys};
use crate::lies::{Liar, Lie};
use crate::rng::Rng;
use crate::stats::Stats;
use graven_format::FormatError;
use graven_format::codec::CODEC_ZSTD;
use graven_format::frame::FrameHeader;
use graven_writer::disk::sim::{OpKind, SimDisk, SimFaults};
use graven_writer::disk::{Completion, Disk, Geometry, Listed, Op, OpId, Wake};
use graven_writer::{Checkpoints, Published, Watermark};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The only error that the simulated disk makes up, beside that of a full disk.
const EIO: i32 = 5;

/// How a writer ends without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sudden {
    /// The power is cut.
    PowerCut,
    /// The process is killed and the machine goes on.
    Kill,
}

/// What a sudden end has left.
#[derive(Debug)]
pub(crate) struct Remains {
    /// Which end it was.
    pub(crate) how: Sudden,
    /// The disk, for the next writer.
    pub(crate) disk: SimDisk,
    /// Records that had been announced durable by then.
    pub(crate) announced: u64,
    /// The checkpoint that had been published last.
    pub(crate) published: Option<Arc<Published>>,
    /// The files of keys.
    pub(crate) keys: SimKeys,
}

/// Every operation, if somebody wants to know. It is shared, so that it outlives a panic.
pub(crate) type Trace = Option<Rc<RefCell<Vec<String>>>>;

/// When and how a writer ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fuse {
    /// The operation after whose submission it begins to burn, and how many of its kind before.
    pub(crate) after: Option<(OpKind, u64)>,
    /// Moments that it burns: submissions, completions, steps of the producers.
    pub(crate) moments: u64,
    /// The end.
    pub(crate) how: Sudden,
    /// For the chances of the end.
    pub(crate) seed: u64,
    /// How many possible ends of that one moment are looked at.
    pub(crate) futures: u64,
}

impl Fuse {
    /// A fuse for some moment in the life of a writer. Chance alone would hardly ever meet the
    /// few moments in which a segment changes or is sealed, so it is told of them.
    pub(crate) fn draw(rng: &mut Rng, how: Sudden) -> Self {
        let after = match rng.below(10) {
            0 => None,
            1 => Some((OpKind::Write, rng.below(8))),
            2 | 3 => Some((OpKind::Write, rng.below(100))),
            // The first is that of the first segment.
            4..=7 => Some((OpKind::Rename, rng.between(1, 3))),
            8 => Some((rng.pick(&OpKind::ALL), rng.below(4))),
            _ => Some((OpKind::Truncate, 0)),
        };
        let moments = rng.pick(&[4, 20, 60, 400]);
        let moments = rng.below(moments);
        Self { after, moments, how, seed: rng.next(), futures: rng.between(1, 3) }
    }

    /// A fuse for some moment of recovery, which has few.
    pub(crate) fn in_recovery(rng: &mut Rng, how: Sudden) -> Self {
        let moments = rng.below(60);
        Self { after: None, moments, how, seed: rng.next(), futures: rng.between(1, 3) }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Stage {
    sim: SimDisk,
    liar: Option<Liar>,
    /// Files are closed as late as can be, if they are in here before the disk hears of it.
    late: Option<VecDeque<(OpId, Op)>>,
    fuse: Option<Fuse>,
    remains: Vec<Remains>,
    /// What is announced, for the moment when the fuse is over.
    announced: u64,
    watermark: Option<Arc<Watermark>>,
    checkpoints: Option<Arc<Checkpoints>>,
    keys: SharedKeys,
    kinds: BTreeMap<OpId, OpKind>,
    /// Frames in flight, and how many of them there may be.
    frames: BTreeSet<OpId>,
    frames_max: usize,
    /// Whether there were so many since the next segment was begun.
    was_full: bool,
    stats: Stats,
    faults: u64,
    misuse: Option<String>,
    trace: Trace,
}

impl Stage {
    /// A stage around `sim`, on which `announced` records are known to be durable.
    #[must_use]
    pub(crate) fn new(
        (sim, keys): (SimDisk, SimKeys),
        announced: u64,
        lie: Option<Lie>,
        trace: Trace,
        seed: u64,
    ) -> Self {
        Self {
            sim,
            liar: lie.map(|lie| Liar::new(lie, seed)),
            late: None,
            fuse: None,
            remains: Vec::new(),
            announced,
            watermark: None,
            checkpoints: None,
            keys: Rc::new(RefCell::new(keys)),
            kinds: BTreeMap::new(),
            frames: BTreeSet::new(),
            frames_max: usize::MAX,
            was_full: false,
            stats: Stats::default(),
            faults: 0,
            misuse: None,
            trace,
        }
    }

    /// Closes files only when somebody waits for nothing else.
    pub(crate) fn close_late(&mut self) {
        self.late = Some(VecDeque::new());
    }

    /// So many frames may be in flight from now on. When they are, the next segment gets no more zeros.
    pub(crate) fn limit_frames(&mut self, max: usize) {
        self.frames_max = max;
    }

    /// Sees to it that the writer ends.
    pub(crate) fn light(&mut self, fuse: Fuse) {
        self.fuse = Some(fuse);
    }

    /// The producers have nothing more: a fuse that waits for an operation of the middle of a
    /// life would never burn.
    pub(crate) fn hasten(&mut self) {
        if let Some(Fuse { after, .. }) = &mut self.fuse {
            let of_the_end = [OpKind::Truncate, OpKind::Close, OpKind::Remove];
            *after = after.filter(|(kind, _)| of_the_end.contains(kind));
        }
    }

    /// Reads what is announced from here from now on.
    pub(crate) fn watch(&mut self, watermark: Arc<Watermark>) {
        self.watermark = Some(watermark);
    }

    /// Reads what is published from here from now on.
    pub(crate) fn watch_checkpoints(&mut self, checkpoints: Arc<Checkpoints>) {
        self.checkpoints = Some(checkpoints);
    }

    /// The files of keys.
    pub(crate) fn keys(&self) -> SharedKeys {
        Rc::clone(&self.keys)
    }

    /// Adds a line to what is written down.
    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.borrow_mut().push(line());
        }
    }

    /// Whether the fuse is over: everything from then on never happened.
    #[must_use]
    pub(crate) fn is_over(&self) -> bool {
        !self.remains.is_empty()
    }

    /// What the sudden end has left: the futures of that one moment, of which the first is lived.
    pub(crate) fn take_remains(&mut self) -> Vec<Remains> {
        std::mem::take(&mut self.remains)
    }

    /// Operations whose completion the writer has not seen.
    #[must_use]
    pub(crate) fn outstanding(&self) -> usize {
        self.kinds.len()
    }

    /// Operations that have failed.
    #[must_use]
    pub(crate) fn faults(&self) -> u64 {
        self.faults
    }

    /// An error that the disk gives only to those who ask for what makes no sense, or too early.
    #[must_use]
    pub(crate) fn misuse(&self) -> Option<&str> {
        self.misuse.as_deref()
    }

    /// Notes how many steps the session has taken.
    pub(crate) fn note_steps(&mut self, steps: u64) {
        self.stats.steps_max = steps;
    }

    /// Counts something that has happened.
    pub(crate) fn note(&mut self, name: &str) {
        self.stats.note(name);
    }

    /// What has happened, to be added to the whole.
    pub(crate) fn take_stats(&mut self) -> Stats {
        std::mem::take(&mut self.stats)
    }

    /// The disk below.
    #[must_use]
    pub(crate) fn sim(&self) -> &SimDisk {
        &self.sim
    }

    /// Changes the disk's room.
    pub(crate) fn set_capacity(&mut self, bytes: u64) {
        self.sim.set_capacity(bytes);
    }

    /// Changes how the disk fails.
    pub(crate) fn set_faults(&mut self, faults: SimFaults) {
        self.sim.set_faults(faults);
    }

    /// What a sudden end now would leave.
    #[must_use]
    pub(crate) fn end_now(&self, how: Sudden, seed: u64) -> Remains {
        // A filesystem whose journal has failed takes nothing more until it is mounted again.
        let how = if self.sim.journal_failed() { Sudden::PowerCut } else { how };
        let disk = match how {
            Sudden::PowerCut => self.sim.crash_with(seed),
            Sudden::Kill => self.sim.kill_with(seed),
        };
        let announced = self.watermark.as_ref().map_or(self.announced, |mark| mark.durable());
        let published = self.checkpoints.as_ref().and_then(|it| it.newest());
        let keys = self.keys.borrow().after(how == Sudden::PowerCut, seed);
        Remains { how, disk, announced, published, keys }
    }

    /// Something has happened: the fuse burns.
    pub(crate) fn moment(&mut self) {
        match &mut self.fuse {
            Some(Fuse { after: None, moments: 0, how, seed, futures }) => {
                let (how, seed, futures) = (*how, *seed, *futures);
                self.fuse = None;
                self.say(|| format!("{how:?}"));
                self.remains = (0..futures).map(|n| self.end_now(how, seed ^ n)).collect();
            }
            Some(Fuse { after: None, moments, .. }) => *moments -= 1,
            Some(_) | None => {}
        }
    }

    /// An operation is submitted: the fuse may have waited for it.
    fn ignite(&mut self, submitted: OpKind) {
        let Some(Fuse { after, .. }) = &mut self.fuse else { return };
        if let Some((kind, nth)) = after.filter(|(kind, _)| *kind == submitted) {
            *after = nth.checked_sub(1).map(|nth| (kind, nth));
        }
    }

    fn look_at_zeros(&mut self, id: OpId, op: &Op) {
        match op {
            Op::Create { .. } => self.was_full = false,
            Op::Write { buf, .. } if FrameHeader::seqs(buf).is_some() => {
                self.frames.insert(id);
                if self.frames.len() >= self.frames_max {
                    self.was_full = true;
                    self.note("as many frames as there may be");
                }
            }
            Op::Zero { .. } if self.was_full => {
                let why = "zeros for a segment though the disk had all the frames it may have";
                self.misuse.get_or_insert(why.to_owned());
            }
            Op::Zero { .. } => self.note("zeros"),
            _ => {}
        }
    }

    fn note_all(&mut self, done: &mut [Completion]) {
        for completion in done {
            self.frames.remove(&completion.id);
            let Some(kind) = self.kinds.remove(&completion.id) else { continue };
            if let Some(liar) = &mut self.liar {
                liar.completed(kind, completion);
            }
            let result = &completion.result;
            if let Some(trace) = &self.trace {
                let how = result.as_ref().map_or_else(ToString::to_string, |()| "ok".into());
                trace.borrow_mut().push(format!("  {} {kind:?}: {how}", completion.id.0));
            }
            let Err(error) = result else { continue };
            let no_room = error.kind() == io::ErrorKind::StorageFull;
            if !no_room && error.raw_os_error() != Some(EIO) {
                self.misuse.get_or_insert(format!("{kind:?}: {error}"));
            }
            self.faults += 1;
            self.stats.note_fault(kind, no_room);
        }
    }
}

impl Disk for Stage {
    fn submit(&mut self, id: OpId, op: Op) {
        self.moment();
        self.say(|| format!("{} {}", id.0, describe(&op)));
        if let Op::Write { buf, len, .. } = &op
            && FrameHeader::decode(&buf[..*len]) == Err(FormatError::UnknownCodec(CODEC_ZSTD))
        {
            self.note("compressed frames");
        }
        self.look_at_zeros(id, &op);
        self.kinds.insert(id, OpKind::of(&op));
        self.ignite(OpKind::of(&op));
        match (&mut self.liar, &mut self.late) {
            (Some(liar), _) => liar.submit(&mut self.sim, id, op),
            (None, Some(late)) if matches!(op, Op::Close { .. }) => late.push_back((id, op)),
            (None, _) => self.sim.submit(id, op),
        }
        self.moment();
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        let mut arrived = Vec::new();
        self.sim.poll(&mut arrived);
        if let Some(liar) = &mut self.liar {
            liar.poll(&mut arrived);
        }
        self.note_all(&mut arrived);
        done.append(&mut arrived);
        self.moment();
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        let late = self.late.as_mut().filter(|late| late.len() == self.kinds.len());
        if let Some((id, op)) = late.and_then(VecDeque::pop_front) {
            self.sim.submit(id, op);
        }
        if self.liar.as_ref().is_none_or(|liar| !liar.is_ready()) {
            self.sim.wait(timeout);
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.sim.waker()
    }

    fn geometry(&self) -> Geometry {
        self.sim.geometry()
    }

    fn list(&mut self) -> io::Result<Vec<Listed>> {
        self.sim.list()
    }

    fn read(&mut self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.sim.read(name, offset, buf)
    }
}

/// An operation without the bytes that it carries.
fn describe(op: &Op) -> String {
    match op {
        Op::Write { file, offset, len, buf } => {
            let magic = String::from_utf8_lossy(&buf[..8.min(*len)]).into_owned();
            let magic: String = magic.chars().take_while(char::is_ascii_uppercase).collect();
            format!("Write {magic} file {} at {offset:#x}, {len:#x} bytes", file.0)
        }
        other => format!("{other:?}"),
    }
}
