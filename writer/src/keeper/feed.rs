//! The shared memory as what feeds a session of receiving, in place of the socket.
//!
//! Time is that of the entries: what the keeper saw and when. So a writer that is behind, or reads something again,
//! judges as one would have that had read it at once.

use super::MemoryError;
use super::consumer::Consumer;
use super::entry::{Empty, Entry};
use super::layout::Position;
use super::memory::Done;
use super::session::{Role, Session};
use crate::clock::Now;
use crate::source::Sink;
use crate::source::control::Received;
use crate::source::intake::Moment;
use crate::source::netlink::Stop;
use crate::source::netlink::feed::Feed;
use crate::source::nlmsg::{self, Message};
use crate::source::past::Settled;
use graven_format::{Flags, Record, Source};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a reader that found nothing after a busy time lets more gather.
const PAUSE_TIME: Duration = Duration::from_millis(1);
/// Longest wait for the keeper.
const POLL_TIME: Duration = Duration::from_millis(100);
/// Time between two entries that counts as receiving; see the feed of the socket.
const ACTIVE_NS_MAX: u64 = 200_000_000;
/// Datagrams given out at once: those of some calls of the keeper.
const DATAGRAMS_MAX: usize = 256;

/// What the writer needs of its trail.
pub trait Progress: Sink {
    /// How many records of the trail are durable.
    fn durable(&self) -> u64;
}

impl Progress for crate::Trail {
    fn durable(&self) -> u64 {
        crate::Trail::durable(self)
    }
}

/// What a writer that takes up a session has to know.
#[derive(Debug)]
pub struct Kept<'a> {
    /// What is read.
    pub consumer: Consumer,
    /// What the keeper told that stands in the trail at and behind the seq of what is done: it is read again, and
    /// not appended again.
    pub told: Vec<Vec<u8>>,
    /// The session: what ending for good will do.
    pub session: Session,
    /// The keeper wakes the writer by it.
    pub wake: &'a OwnedFd,
    /// Set when no keeper will come any more: what is in the memory is the rest.
    pub over: &'a AtomicBool,
}

/// The feed. It moves what is done when what it gave out has become durable.
pub(crate) struct SharedFeed<'a, P: ?Sized> {
    kept: Kept<'a>,
    progress: &'a P,
    /// Records that are given out again; those that receive them leave them out.
    again: u64,
    /// Where it is said why the memory cannot be read.
    trouble: &'a OnceLock<MemoryError>,
    /// The datagrams that were taken last, one behind the other.
    bytes: Vec<u8>,
    /// Where each of them ends, and how long it was.
    ends: Vec<(usize, usize)>,
    now: Moment,
    failed_sends: Option<u32>,
    /// Records that are read again have to come before this.
    again_below: Position,
    /// Positions up to which everything was given out, with the seq below which its records are.
    given: VecDeque<Done>,
    /// Up to where everything is settled, once that is durable, and what of it is.
    settled: Option<Settled>,
    durably_settled: Option<Settled>,
}

impl<'a, P: Progress + ?Sized> SharedFeed<'a, P> {
    pub(crate) fn new(
        kept: Kept<'a>,
        progress: &'a P,
        again: u64,
        trouble: &'a OnceLock<MemoryError>,
    ) -> Result<Self, MemoryError> {
        let again_below = kept.consumer.memory().head()?;
        let durably_settled = settled_of(&kept.consumer.done());
        let mut this = Self {
            kept,
            progress,
            again,
            trouble,
            bytes: Vec::new(),
            ends: Vec::with_capacity(DATAGRAMS_MAX),
            now: Moment::default(),
            failed_sends: None,
            again_below,
            given: VecDeque::new(),
            settled: None,
            durably_settled,
        };
        // The time begins with the first entry.
        if this.kept.consumer.look()?
            && let Some(entry) = this.kept.consumer.peek()?
        {
            let at = entry.at();
            (this.now.realtime_ns, this.now.boottime_ns) = (at.realtime_ns, at.boottime_ns);
        }
        Ok(this)
    }

    fn fail(&self, error: MemoryError) -> Errno {
        let _ = self.trouble.set(error);
        Errno::BADMSG
    }

    /// What was given out before has been appended by now; and what is durable is done.
    fn account(&mut self) {
        if self.again > 0 {
            return;
        }
        let (position, seq) = (self.kept.consumer.position(), self.progress.next_seq());
        match self.given.back_mut() {
            Some(last) if last.seq == seq => last.position = position,
            _ => self.given.push_back(Done { position, seq, more: [0; 4] }),
        }
        let durable = self.progress.durable();
        if let Some(settled) = self.settled.take_if(|settled| settled.by <= durable) {
            self.durably_settled = Some(settled);
        }
        let mut done = None;
        while let Some(first) = self.given.front().filter(|first| first.seq <= durable) {
            done = Some(*first);
            self.given.pop_front();
        }
        if let Some(done) = done {
            let more = self.durably_settled.map_or([0; 4], words_of);
            self.kept.consumer.set_done(Done { more, ..done });
        }
    }

    /// Takes entries of one moment.
    fn read(&mut self) -> Result<Received, MemoryError> {
        self.bytes.clear();
        self.ends.clear();
        let mut moment = None;
        while self.ends.len() < DATAGRAMS_MAX && self.kept.consumer.look()? {
            let Some(entry) = self.kept.consumer.peek()? else { break };
            let at = entry.at();
            // A moment ends with the socket empty, or where the time is another.
            let ends_here =
                !matches!(entry, Entry::Datagram { .. }) || moment.is_some_and(|it| it != at);
            if ends_here && !self.ends.is_empty() {
                break;
            }
            moment = Some(at);
            let passed_ns = at.boottime_ns.saturating_sub(self.now.boottime_ns).min(ACTIVE_NS_MAX);
            let active_ns = self.now.active_ns + passed_ns;
            self.now =
                Moment { realtime_ns: at.realtime_ns, boottime_ns: at.boottime_ns, active_ns };
            if self.again > 0 && self.kept.consumer.position() >= self.again_below {
                return Err(MemoryError::Corrupted("the trail has records that are not in it"));
            }
            match self.kept.consumer.take()? {
                Some(Entry::Datagram { whole_len, bytes, .. }) => {
                    if self.again > 0 && matches!(nlmsg::parse(bytes), Some(Message::Record { .. }))
                    {
                        self.again -= 1;
                    }
                    self.bytes.extend_from_slice(bytes);
                    self.ends.push((self.bytes.len(), whole_len));
                }
                Some(Entry::Empty(Empty { failed_sends, .. })) => {
                    self.failed_sends = failed_sends.or(self.failed_sends);
                    return Ok(Received::Empty);
                }
                Some(Entry::Note { at, text }) => {
                    if let Some((kind, text)) = text.split_first_chunk::<2>() {
                        tell(
                            self.progress,
                            &mut self.kept.told,
                            u16::from_le_bytes(*kind),
                            at,
                            text,
                        );
                    }
                }
                None => {}
            }
        }
        Ok(if self.ends.is_empty() { Received::Later } else { Received::Some })
    }
}

impl<P: Progress + ?Sized> Feed for SharedFeed<'_, P> {
    fn take(&mut self) -> Result<Received, Errno> {
        self.account();
        let over = self.kept.over.load(Ordering::Acquire);
        match self.read() {
            Ok(Received::Later) if over => Err(self.fail(MemoryError::Over)),
            received => received.map_err(|error| self.fail(error)),
        }
    }

    fn now(&self) -> Moment {
        self.now
    }

    fn datagrams(&mut self) -> impl Iterator<Item = (&[u8], usize)> {
        let bytes = &self.bytes;
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(end, _)| end));
        starts
            .zip(&self.ends)
            .map(move |(start, &(end, whole_len))| (&bytes[start..end], whole_len))
    }

    fn failed_sends(&mut self) -> Option<u32> {
        self.failed_sends
    }

    fn own_events(&self) -> u64 {
        [Role::Keeper, Role::Writer].map(|role| self.kept.session.exempt(role).1).iter().sum()
    }

    fn settled(&mut self, settled: &Settled) {
        // The last one waits until it is durable; there will be another.
        self.settled.get_or_insert(*settled);
    }

    fn wait(&mut self, stop: &Stop, busy: bool) -> Result<(), Errno> {
        let memory = self.kept.consumer.memory();
        let more =
            memory.head().map_err(|error| self.fail(error))? != self.kept.consumer.position();
        if busy && !more {
            return stop.wait_or(&[], PAUSE_TIME);
        }
        let asleep = memory.fall_asleep(self.kept.consumer.position());
        if asleep.map_err(|error| self.fail(error))? {
            stop.wait_or(&[self.kept.wake.as_fd()], POLL_TIME)?;
            self.kept.consumer.memory().awake();
            let _ = rustix::io::read(self.kept.wake, &mut [0; 8]);
        }
        Ok(())
    }
}

/// Appends what the keeper tells as a record of ours, unless it was before.
fn tell(sink: &(impl Sink + ?Sized), told: &mut Vec<Vec<u8>>, kind: u16, at: Now, text: &[u8]) {
    if let Some(index) = told.iter().position(|before| before == text) {
        told.swap_remove(index);
        return;
    }
    let Now { realtime_ns, boottime_ns } = at;
    let (source, flags) = (Source::Graven, Flags::NONE);
    let record =
        Record { source, kind, flags, realtime_ns, boottime_ns, source_seq: 0, bytes: text };
    // A trail that takes nothing any more has failed, which the next datagram finds.
    let _ = sink.append(&record);
}

/// A place as words beside what is done; zeros are none.
fn words_of(settled: Settled) -> [u64; 4] {
    let Settled { seq, serial, halves, lost, by } = settled;
    let known = 1 << 33 | u64::from(halves) << 32;
    [seq, u64::from(serial) | known, u64::from(lost), by]
}

/// The place that what is done was said with.
#[must_use]
pub fn settled_of(done: &Done) -> Option<Settled> {
    let [seq, serial, lost, by] = done.more;
    (serial >> 33 == 1).then_some(Settled {
        seq,
        serial: serial as u32,
        halves: serial >> 32 & 1 == 1,
        lost: lost as u32,
        by,
    })
}
