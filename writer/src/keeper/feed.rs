//! The shared memory as what feeds a session of receiving, in place of the socket.
//!
//! Time is that of the entries: what the keeper saw and when. So a writer that is behind, or reads something again,
//! judges as one would have that had read it at once.

use super::consumer::Consumer;
use super::entry::{Empty, Entry};
use super::layout::Position;
use super::memory::Done;
use super::MemoryError;
use crate::source::Sink;
use crate::source::control::Received;
use crate::source::intake::Moment;
use crate::source::netlink::Stop;
use crate::source::netlink::feed::Feed;
use crate::source::nlmsg::{self, Message};
use rustix::event::PollFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::sync::OnceLock;
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
    /// How many records of the source netlink the trail has at and behind the seq of what is done:
    /// so many are read again, and are not appended again.
    pub appended: u64,
    /// The keeper wakes the writer by it.
    pub wake: &'a OwnedFd,
    /// Where it is said why the memory cannot be read, if that is why receiving ended.
    pub trouble: &'a OnceLock<MemoryError>,
}

/// The feed. It moves what is done when what it gave out has become durable.
pub(crate) struct SharedFeed<'a, P: ?Sized> {
    kept: Kept<'a>,
    progress: &'a P,
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
}

impl<'a, P: Progress + ?Sized> SharedFeed<'a, P> {
    pub(crate) fn new(kept: Kept<'a>, progress: &'a P) -> Result<Self, MemoryError> {
        let again_below = kept.consumer.memory().head()?;
        let mut this = Self {
            kept,
            progress,
            bytes: Vec::new(),
            ends: Vec::with_capacity(DATAGRAMS_MAX),
            now: Moment::default(),
            failed_sends: None,
            again_below,
            given: VecDeque::new(),
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
        let _ = self.kept.trouble.set(error);
        Errno::BADMSG
    }

    /// What was given out before has been appended by now; and what is durable is done.
    fn account(&mut self) {
        if self.kept.appended > 0 {
            return;
        }
        let (position, seq) = (self.kept.consumer.position(), self.progress.next_seq());
        match self.given.back_mut() {
            Some(last) if last.seq == seq => last.position = position,
            _ => self.given.push_back(Done { position, seq }),
        }
        let durable = self.progress.durable();
        let mut done = None;
        while let Some(first) = self.given.front().filter(|first| first.seq <= durable) {
            done = Some(*first);
            self.given.pop_front();
        }
        if let Some(done) = done {
            self.kept.consumer.set_done(done);
        }
    }

    /// Takes entries of one moment.
    fn read(&mut self) -> Result<Received, MemoryError> {
        (self.bytes.clear(), self.ends.clear());
        let mut moment = None;
        while self.ends.len() < DATAGRAMS_MAX && self.kept.consumer.look()? {
            let Some(entry) = self.kept.consumer.peek()? else { break };
            let at = entry.at();
            // A moment ends with the socket empty, or where the time is another.
            let ends_here = !matches!(entry, Entry::Datagram { .. }) || moment.is_some_and(|it| it != at);
            if ends_here && !self.ends.is_empty() {
                break;
            }
            moment = Some(at);
            let passed_ns = at.boottime_ns.saturating_sub(self.now.boottime_ns).min(ACTIVE_NS_MAX);
            let active_ns = self.now.active_ns + passed_ns;
            self.now =
                Moment { realtime_ns: at.realtime_ns, boottime_ns: at.boottime_ns, active_ns };
            let again = self.kept.appended > 0;
            if again && self.kept.consumer.position() >= self.again_below {
                return Err(MemoryError::Corrupted("the trail has records that are not in it"));
            }
            match self.kept.consumer.take()? {
                Some(Entry::Datagram { whole_len, bytes, .. }) => {
                    if again && matches!(nlmsg::parse(bytes), Some(Message::Record { .. })) {
                        self.kept.appended -= 1;
                    } else if !again {
                        self.bytes.extend_from_slice(bytes);
                        self.ends.push((self.bytes.len(), whole_len));
                    }
                }
                Some(Entry::Empty(Empty { failed_sends, .. })) => {
                    self.failed_sends = failed_sends.or(self.failed_sends);
                    return Ok(Received::Empty);
                }
                Some(Entry::Note { .. }) | None => {}
            }
        }
        Ok(if self.ends.is_empty() { Received::Later } else { Received::Some })
    }
}

impl<P: Progress + ?Sized> Feed for SharedFeed<'_, P> {
    fn take(&mut self) -> Result<Received, Errno> {
        self.account();
        self.read().map_err(|error| self.fail(error))
    }

    fn now(&self) -> Moment {
        self.now
    }

    fn datagrams(&mut self) -> impl Iterator<Item = (&[u8], usize)> {
        let mut start = 0;
        self.ends.iter().map(move |&(end, whole_len)| {
            let bytes = &self.bytes[start..end];
            start = end;
            (bytes, whole_len)
        })
    }

    fn failed_sends(&mut self) -> Option<u32> {
        self.failed_sends
    }

    fn wait(&mut self, stop: &Stop, busy: bool) -> Result<(), Errno> {
        if busy {
            return stop.wait_or(self.kept.wake, PollFlags::empty(), PAUSE_TIME);
        }
        let memory = self.kept.consumer.memory();
        let asleep = memory.fall_asleep(self.kept.consumer.position());
        if asleep.map_err(|error| self.fail(error))? {
            stop.wait_or(self.kept.wake, PollFlags::IN, POLL_TIME)?;
            self.kept.consumer.memory().awake();
            let _ = rustix::io::read(self.kept.wake, &mut [0; 8]);
        }
        Ok(())
    }
}
