//! The kernel shim: records that wait for room, read from shared memory and kept there until they are durable.
//!
//! # Two threads
//! The reader copies parts from the rings to the sink, the ring with the lowest order first. The releaser waits until they are
//! durable and moves the tails: a part's room is given back when the trail has it, and not before. Whoever is killed has
//! lost nothing: the next reader begins at the tails, and what the trail has already is told by ring and
//! number ([`Past`]).
//!
//! # Order
//! Each ring is read in its own order. A part whose number is late, because its task slept for want of room, is not waited for:
//! it takes its place when it comes, and its number says where it belongs.
//!
//! # The end
//! Rules are removed, so that no call begins to be recorded. What has got its number arrives; what is in a call still, such as
//! a read that waits for hours, is recorded when that ends, for whoever reads then.

mod device;
mod mark;
mod memory;
mod past;
pub mod rules;

pub use device::{DEVICE, Device, follow_me};
pub use graven_shim_abi::{Policy, Rules, Status};
pub use mark::{Mark, State};
pub use memory::Memory;
pub use past::Past;

use super::netlink::Stop;
use super::{AppendError, Sink};
use crate::clock::{self, Now};
use crate::{WaitError, Watermark};
use graven_format::loss::{Cause, Certainty, LossStatement};
use graven_format::{Flags, Record, Source};
use graven_shim_abi::{Gap, PART_CALL, PART_GAP, Part};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Bytes of parts that go to the sink at once, if there are as many.
const BATCH_BYTES: usize = 256 * 1024;
/// Batches that wait to be durable.
const BATCHES_MAX: usize = 64;
/// After something has come, the rings are left alone for so many times as long as the last batch took to be durable: no
/// record wakes anybody, what comes meanwhile shares a barrier, and barriers take a fiftieth of the time. A fast disk has
/// records after some milliseconds; on a machine where a barrier is dear, those who work do not pay for one each time.
const PAUSES_PER_BARRIER: u32 = 50;
/// And no shorter than this, which is also how long they are left alone where a ring fills: over an eighth of it came in
/// one go, and whoever finds it full would have to wait.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// And no longer.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// How long a wait for more may take before the stop is looked at again.
const IDLE: Duration = Duration::from_millis(500);
/// Parts between two marks.
const MARK_PARTS: u64 = 65_536;
/// How long the end waits for tasks that wait for room, while they go on.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// So long nothing may have come at the end.
const QUIET: Duration = Duration::from_millis(20);

/// Why there is no reading from the shim, or no more.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// There is no such device.
    #[error(
        "the kernel module is not loaded: there is no {DEVICE}; help: `graven shim load`, or `modprobe graven_shim`"
    )]
    Absent,
    /// Another process reads.
    #[error("another process reads from the kernel module; help: `graven shim status` names it")]
    Taken,
    /// The kernel side is another version, or no shim.
    #[error(
        "{DEVICE} is not what this version reads: {0}; help: load the module of the same version"
    )]
    Foreign(String),
    /// Something that the kernel side wrote cannot be.
    #[error("ring {ring}, position {position}: {what}")]
    Ring {
        /// Which ring.
        ring: u32,
        /// Slots from its beginning.
        position: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The system says no.
    #[error("cannot {what}: {why}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        #[source]
        why: io::Error,
    },
    /// The trail takes no records any more.
    #[error("the trail does not take records any more: {0}")]
    Sink(#[from] AppendError),
    /// They do not become durable.
    #[error("what was read does not become durable: {0}")]
    Durable(#[from] WaitError),
}

/// What is asked of the kernel side, besides its memory.
pub trait Kernel: Sync {
    /// Tails have moved: whoever waits may go on.
    ///
    /// # Errors
    /// [`ShimError::System`].
    fn advanced(&self) -> Result<(), ShimError>;

    /// Replaces all rules.
    ///
    /// # Errors
    /// [`ShimError::System`].
    fn set_rules(&self, rules: &Rules) -> Result<(), ShimError>;

    /// How it is doing.
    ///
    /// # Errors
    /// [`ShimError::System`].
    fn status(&self) -> Result<Status, ShimError>;

    /// What can be read when there is more in the rings, if that can be waited for.
    fn readable(&self) -> Option<BorrowedFd<'_>>;
}

/// What was read in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records: system calls.
    pub calls: u64,
    /// Parts of them.
    pub parts: u64,
    /// Parts that the trail had already.
    pub known: u64,
    /// Calls that went on unrecorded by policy.
    pub passed: u64,
    /// Parts that are missing, stated as lost.
    pub lost: u64,
}

/// Reads until asked to stop, then removes the rules, reads what is there, and returns when all of it is durable.
///
/// `past` is what the trail says of earlier sessions.
///
/// # Errors
/// [`ShimError`]. What was not durable is in the rings still.
pub fn receive(
    kernel: &dyn Kernel,
    memory: &Memory,
    sink: &dyn Sink,
    watermark: &Watermark,
    past: &Past,
    stop: &Stop,
) -> Result<Summary, ShimError> {
    let (give_back, given_back) = mpsc::sync_channel(BATCHES_MAX);
    let barrier_ns = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let releaser = std::thread::Builder::new()
            .name("graven-release".to_owned())
            .spawn_scoped(scope, || release(kernel, memory, watermark, given_back, &barrier_ns))
            .map_err(|why| ShimError::System { what: "start a thread", why })?;
        let mut reader = Reader::new(kernel, memory, sink, past, give_back, &barrier_ns);
        // It ends before its sender is gone only because it has failed.
        let read = reader.read_all(stop, past, &|| releaser.is_finished());
        let summary = reader.summary;
        drop(reader);
        let released = releaser.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A reader ends without a releaser, or nobody would ever have room again; then that one says why.
        released.and(read)?;
        Ok(summary)
    })
}

/// Positions up to which each ring was read, and how many records the trail has with that.
struct Batch {
    upto: u64,
    tails: Vec<u64>,
    sent: Instant,
}

/// Moves tails to what is durable, and says how long the last batch took to be that.
fn release(
    kernel: &dyn Kernel,
    memory: &Memory,
    watermark: &Watermark,
    batches: mpsc::Receiver<Batch>,
    barrier_ns: &AtomicU64,
) -> Result<(), ShimError> {
    while let Ok(mut batch) = batches.recv() {
        let mut durable = match batch.upto.checked_sub(1) {
            Some(last) => watermark.wait_past(last)?,
            None => 0,
        };
        // One barrier often covers several.
        while let Ok(next) = batches.try_recv() {
            if next.upto > durable {
                move_tails(kernel, memory, &batch.tails)?;
                durable = watermark.wait_past(next.upto.saturating_sub(1))?;
            }
            batch = next;
        }
        move_tails(kernel, memory, &batch.tails)?;
        let took_ns = u64::try_from(batch.sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
        barrier_ns.store(took_ns, Ordering::Relaxed);
    }
    Ok(())
}

fn move_tails(kernel: &dyn Kernel, memory: &Memory, tails: &[u64]) -> Result<(), ShimError> {
    for (ring, tail) in (0..).zip(tails) {
        memory.set_tail(ring, *tail);
    }
    kernel.advanced()
}

/// How long the rings are left alone, after so many of the slots of one were found in use and a batch took so long to be
/// durable.
fn pause(fullest: u64, slots: u32, barrier: Duration) -> Duration {
    if fullest > u64::from(slots) / 8 {
        return PAUSE_MIN;
    }
    barrier.saturating_mul(PAUSES_PER_BARRIER).clamp(PAUSE_MIN, PAUSE_MAX)
}

/// A ring as far as it is read.
struct Ring {
    position: u64,
    /// The number that the next part must have, if it is known.
    next: Option<u64>,
    /// The part at `position`, copied.
    front: Vec<u8>,
    front_end: u64,
}

struct Reader<'a> {
    kernel: &'a dyn Kernel,
    memory: &'a Memory,
    sink: &'a dyn Sink,
    rings: Vec<Ring>,
    batches: mpsc::SyncSender<Batch>,
    /// How long the last of them took to be durable.
    barrier_ns: &'a AtomicU64,
    summary: Summary,
    parts_at_mark: u64,
    /// Slots that the last pass found in the fullest ring.
    fullest: u64,
}

/// A part that goes to the sink with others.
struct Taken {
    header: Part,
    bytes: std::ops::Range<usize>,
}

impl<'a> Reader<'a> {
    fn new(
        kernel: &'a dyn Kernel,
        memory: &'a Memory,
        sink: &'a dyn Sink,
        past: &Past,
        batches: mpsc::SyncSender<Batch>,
        barrier_ns: &'a AtomicU64,
    ) -> Self {
        let rings = (0..memory.rings())
            .map(|ring| Ring {
                position: memory.tail(ring),
                next: past.next(memory.control().instance, ring),
                front: Vec::new(),
                front_end: 0,
            })
            .collect();
        let summary = Summary::default();
        Self {
            kernel,
            memory,
            sink,
            rings,
            batches,
            barrier_ns,
            summary,
            parts_at_mark: 0,
            fullest: 0,
        }
    }

    fn read_all(
        &mut self,
        stop: &Stop,
        past: &Past,
        failed: &dyn Fn() -> bool,
    ) -> Result<(), ShimError> {
        if let Some(since_ns) = past.left_open(self.memory.control().instance) {
            self.state_left_open(since_ns)?;
        }
        self.begin(past)?;
        while !stop.is_requested() {
            if failed() {
                return Ok(());
            }
            if self.pass()? == 0 {
                self.wait(stop)?;
            } else {
                let barrier = Duration::from_nanos(self.barrier_ns.load(Ordering::Relaxed));
                std::thread::sleep(pause(self.fullest, self.memory.control().slots, barrier));
            }
        }
        self.kernel.set_rules(&Rules::default())?;
        let drained = self.drain(failed)?;
        if failed() {
            return Ok(());
        }
        self.mark(if drained { State::End } else { State::Left }, BTreeMap::new())
    }

    /// Reads until nothing is left that has its number; false: tasks wait still, and what they have is left.
    fn drain(&mut self, failed: &dyn Fn() -> bool) -> Result<bool, ShimError> {
        let (mut came, begun) = (Instant::now(), Instant::now());
        while !failed() {
            if self.pass()? > 0 || !self.is_released() {
                came = Instant::now();
            } else if came.elapsed() >= QUIET {
                // A gap, or an orphan, that waited for the room that was given back last.
                self.kernel.advanced()?;
                let status = self.kernel.status()?;
                let done = status.waiting == 0 && status.orphans == 0;
                if self.pass()? == 0 && (done || begun.elapsed() >= DRAIN_TIME) {
                    return Ok(done);
                }
            }
            std::thread::sleep(PAUSE_MIN);
        }
        Ok(false)
    }

    /// Whether all room is given back up to where this process has read.
    fn is_released(&self) -> bool {
        (0..).zip(&self.rings).all(|(ring, read)| self.memory.tail(ring) == read.position)
    }

    /// Nothing is there.
    fn wait(&self, stop: &Stop) -> Result<(), ShimError> {
        for (ring, read) in (0..).zip(&self.rings) {
            self.memory.set_read(ring, read.position);
        }
        let waited = |why: Errno| ShimError::System { what: "wait for records", why: why.into() };
        match self.kernel.readable() {
            Some(fd) => stop.wait_or(&[fd], IDLE).map_err(waited)?,
            None => stop.wait_or(&[], PAUSE_MIN).map_err(waited)?,
        }
        // What waits on the other side for a reason of its own, such as a gap that was counted just now, is looked at.
        self.kernel.advanced()
    }

    /// Takes what is there, once. How many parts that were.
    fn pass(&mut self) -> Result<u64, ShimError> {
        let heads: Vec<u64> = (0..self.memory.rings()).map(|ring| self.memory.head(ring)).collect();
        let ahead =
            heads.iter().zip(&self.rings).map(|(head, ring)| head.saturating_sub(ring.position));
        self.fullest = ahead.max().unwrap_or(0);
        let mut count = 0;
        loop {
            let mut bytes = Vec::new();
            let mut taken = Vec::new();
            while bytes.len() < BATCH_BYTES {
                let Some(part) = self.lowest(&heads, &mut bytes)? else { break };
                taken.extend(part);
                count += 1;
            }
            if bytes.is_empty() && taken.is_empty() {
                self.release_to_here();
                return Ok(count);
            }
            self.append(&bytes, &taken)?;
        }
    }

    /// The part with the lowest number that is at the front of a ring; `Some(None)` if the trail has it already.
    fn lowest(
        &mut self,
        heads: &[u64],
        bytes: &mut Vec<u8>,
    ) -> Result<Option<Option<Taken>>, ShimError> {
        let mut lowest: Option<(usize, Part)> = None;
        for (index, head) in heads.iter().enumerate() {
            let Some(part) = self.front(index, *head)? else { continue };
            if lowest.is_none_or(|(_, than)| (part.order, part.part) < (than.order, than.part)) {
                lowest = Some((index, part));
            }
        }
        let Some((index, header)) = lowest else { return Ok(None) };
        let ring = &mut self.rings[index];
        let from = bytes.len();
        let known = ring.next.is_some_and(|next| header.ring_seq < next);
        let missing = ring.next.filter(|next| *next < header.ring_seq);
        if known {
            self.summary.known += 1;
        } else {
            bytes.append(&mut ring.front);
            ring.next = Some(header.ring_seq.saturating_add(1));
        }
        ring.front.clear();
        ring.position = ring.front_end;
        if let Some(next) = missing {
            self.state_missing(next, header.ring_seq - 1)?;
        }
        Ok(Some((!known).then_some(Taken { header, bytes: from..bytes.len() })))
    }

    /// Copies the part at the front of a ring, past pads; `None` if there is none.
    fn front(&mut self, index: usize, head: u64) -> Result<Option<Part>, ShimError> {
        let ring = &mut self.rings[index];
        while ring.front.is_empty() && ring.position != head {
            let number = index as u32;
            ring.front_end = self.memory.part(number, ring.position, head, &mut ring.front)?;
            if ring.front.is_empty() {
                ring.position = ring.front_end;
            }
        }
        Ok(Part::read(&ring.front))
    }

    fn append(&mut self, bytes: &[u8], taken: &[Taken]) -> Result<(), ShimError> {
        let now = clock::now();
        let records: Vec<Record<'_>> = taken
            .iter()
            .map(|part| Record {
                source: Source::Shim,
                kind: part.header.kind,
                flags: Flags::NONE,
                realtime_ns: now.realtime_ns,
                boottime_ns: now.boottime_ns,
                source_seq: part.header.order,
                bytes: &bytes[part.bytes.clone()],
            })
            .collect();
        // Stated before its part is in the trail: who is killed between the two states it twice, and not never.
        for part in taken.iter().filter(|part| part.header.kind == PART_GAP) {
            self.state_gap(&bytes[part.bytes.clone()], now)?;
        }
        self.sink.append_all(&records)?;
        self.summary.parts += taken.len() as u64;
        let calls = taken.iter().filter(|part| part.header.kind == PART_CALL);
        self.summary.calls += calls.count() as u64;
        self.release_to_here();
        if self.summary.parts - self.parts_at_mark >= MARK_PARTS {
            self.mark(State::Mark, BTreeMap::new())?;
        }
        Ok(())
    }

    /// What was read up to here may be given back when it is durable. A releaser that is gone says itself why.
    fn release_to_here(&mut self) {
        let tails: Vec<u64> = self.rings.iter().map(|ring| ring.position).collect();
        if !self.is_released() {
            let _ = self.batches.send(Batch {
                upto: self.sink.next_seq(),
                tails,
                sent: Instant::now(),
            });
        }
    }

    /// Says where this session begins. What the module's own test took is missing in no trail; what another reader took
    /// before that is stated first, so that who is killed here states it twice, and not never.
    fn begin(&mut self, past: &Past) -> Result<(), ShimError> {
        for (number, (first, _)) in &past.tested {
            let next = self.rings.get(*number as usize).and_then(|ring| ring.next);
            if let Some(next) = next.filter(|next| next < first) {
                self.state_missing(next, first - 1)?;
            }
        }
        self.mark(State::Begin, past.tested.clone())?;
        for (number, (_, last)) in &past.tested {
            if let Some(ring) = self.rings.get_mut(*number as usize) {
                ring.next = Some(last.saturating_add(1));
            }
        }
        Ok(())
    }

    /// Says where this session stands, so that the next one knows what the trail has.
    fn mark(&mut self, state: State, tested: BTreeMap<u32, (u64, u64)>) -> Result<(), ShimError> {
        self.parts_at_mark = self.summary.parts;
        let next = (0..).zip(&self.rings).filter_map(|(ring, read)| Some((ring, read.next?)));
        let instance = self.memory.control().instance;
        let mark = Mark { state, instance, next: next.collect(), tested };
        mark.record(self.memory.rings()).append(self.sink)?;
        Ok(())
    }

    /// A gap that the kernel side states is a loss of this trail.
    fn state_gap(&mut self, bytes: &[u8], now: Now) -> Result<(), ShimError> {
        let gap = bytes.get(Part::LEN..).and_then(Gap::read).unwrap_or_default();
        self.summary.passed = self.summary.passed.saturating_add(gap.count);
        let realtime =
            |boot_ns: u64| now.realtime_ns.saturating_sub(now.boottime_ns.saturating_sub(boot_ns));
        self.state(LossStatement {
            source: Source::Shim,
            cause: Cause::Dropped,
            certainty: Certainty::Exactly,
            count: gap.count,
            range: None,
            between_ns: Some((realtime(gap.from_ns), realtime(gap.to_ns))),
        })
    }

    /// The module that was read before is gone, and nobody had read it to its end.
    fn state_left_open(&mut self, since_ns: u64) -> Result<(), ShimError> {
        let now = clock::now().realtime_ns;
        self.state(LossStatement {
            source: Source::Shim,
            cause: Cause::Undrained,
            certainty: Certainty::AtLeast,
            count: 0,
            range: None,
            between_ns: Some((since_ns.min(now), now)),
        })
    }

    /// Numbers of a ring that never came.
    fn state_missing(&mut self, first: u64, last: u64) -> Result<(), ShimError> {
        let count = (last - first).saturating_add(1);
        self.summary.lost = self.summary.lost.saturating_add(count);
        self.state(LossStatement {
            source: Source::Shim,
            cause: Cause::SerialGap,
            certainty: Certainty::Exactly,
            count,
            range: Some((first, last)),
            between_ns: None,
        })
    }

    fn state(&self, statement: LossStatement) -> Result<(), ShimError> {
        let now = clock::now();
        let text = statement.encode(now.realtime_ns);
        let record = LossStatement::record(&text, now.realtime_ns, now.boottime_ns);
        self.sink.append(&record)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_left_alone_for_as_long_as_barriers_are_dear_unless_one_fills() {
        let micros = Duration::from_micros;
        assert_eq!(pause(0, 8192, Duration::ZERO), micros(1_000));
        assert_eq!(pause(1024, 8192, micros(100)), micros(5_000));
        assert_eq!(pause(1025, 8192, micros(100)), micros(1_000));
        // A disk that stands still.
        assert_eq!(pause(0, 8192, Duration::MAX), micros(50_000));
        assert_eq!(pause(40, 256, Duration::MAX), micros(1_000));
    }
}
