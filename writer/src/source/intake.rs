//! What becomes of one datagram: a record in the sink, a mark in the window, a loss statement.
//!
//! No socket and no clock: the receiving thread in [`super::netlink`] brings both.

use graven_format::loss::{Cause, Certainty, LossStatement};
use graven_format::{Flags, Record, Source, kind};
use memchr::memmem;

use super::nlmsg::{self, Message, Status};
use super::past::Past;
use super::window::{Gap, Missing, Tolerance, Window};
use super::{AppendError, Sink};
use crate::clock::Now;
use crate::own::{self, Own};
use marks::Places;

mod marks;

/// How long the window waits. Two seconds bridge any preemption of a producer between taking its
/// serial and queueing its record; the end of an event may come one queue wait later.
pub(crate) const TOLERANCE: Tolerance =
    Tolerance { time_ns: 2_000_000_000, event_time_ns: 70_000_000_000 };

/// How long a rise of the kernel's `lost` counter waits for gaps that explain it.
const SETTLE_NS: u64 = TOLERANCE.time_ns + 1_000_000_000;

/// Failed sends of one record after which the kernel gives it up.
const TRIES: u32 = 6;

/// More gaps than this found at once are stated as one: a statement each would be a storm of its
/// own just when the trail is behind.
const STATEMENTS_AT_ONCE_MAX: usize = 64;

/// What one session of receiving brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records given to the sink, without loss statements.
    pub records: u64,
    /// Different events among them, from the opening marker on.
    pub events: u64,
    /// Heartbeats and markers among the records.
    pub heartbeats: u64,
    /// Loss statements given to the sink.
    pub statements: u64,
    /// Whole events stated as missing.
    pub lost_events: u64,
    /// Records stated as missing beyond those events.
    pub lost_records: u64,
    /// Events stated as partial.
    pub partial_events: u64,
    /// Sends that found the socket full; each was tried again, so that it does not mean a loss.
    pub overruns: u64,
    /// Records without the kernel's stamp; they are kept, but no gap can show beside them.
    pub unstamped: u64,
    /// Times that another process tried to become the audit daemon.
    pub takeovers: u64,
    /// Whether everything up to the closing marker is in the sink or stated as missing.
    pub drained: bool,
}

/// When something happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    /// Nanoseconds since 1970.
    pub(crate) realtime_ns: u64,
    /// Nanoseconds since boot.
    pub(crate) boottime_ns: u64,
    /// Nanoseconds in which the receiver was able to receive.
    pub(crate) active_ns: u64,
}

/// What the receiving thread has to know about a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Our own heartbeat or marker of this number, with its serial.
    Heartbeat { number: u64, serial: u32 },
    /// The record that says that auditing is off.
    Disabled,
}

/// The number of the marker that attaching ends with; heartbeats count on from it.
pub(crate) const OPENING: u64 = 0;
/// The number of the marker that ends receiving; it may be written more than once.
pub(crate) const CLOSING: u64 = u64::MAX;

/// The text of heartbeat `number`.
pub(crate) fn heartbeat_text(number: u64) -> String {
    format!("op=graven-heartbeat count={number} res=success")
}

/// What a session has to know of how this process is the audit daemon.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// The processes that write heartbeats and markers: the one that is registered, and this one.
    pub(crate) pids: [u32; 2],
    /// The kernel's counter when it registered.
    pub(crate) lost: u32,
    /// Whether audit stays on afterwards.
    pub(crate) left_on: bool,
    /// Events that giving everything back makes after the closing marker.
    pub(crate) own: u64,
}

pub(crate) struct Intake<'a> {
    sink: &'a dyn Sink,
    terms: Terms,
    window: Window,
    /// Whether the session has its opening marker.
    opened: bool,
    /// Whether the window goes on with what was owed to the session before.
    goes_on: bool,
    /// When the last record was of a session in another boot that may have lost its end.
    other_boot_ns: Option<u64>,
    /// Missing events that the last session's process itself made behind its end.
    own: u64,
    /// Records that are in the trail and come again.
    leave_out: u64,
    places: Places,
    summary: Summary,
    now: Moment,
    /// The realtime of the last moment without a hole in the window.
    whole_at_ns: u64,
    lost_counter: u32,
    failed_counter: u32,
    /// Failed sends since the counter last stood still.
    failed_in_a_row: u32,
    unsettled: Unsettled,
}

/// Signs of loss that may be the same loss.
#[derive(Default)]
struct Unsettled {
    /// When the first sign came.
    since_ns: Option<u64>,
    /// Records by which the kernel's counter rose.
    lost: u64,
    /// Events that the window gave up.
    gap_events: u64,
    overrun: bool,
}

impl<'a> Intake<'a> {
    /// What `past` is owed is owed still. Unless that was taken up, a session begins, and its opening
    /// marker is to come.
    pub(crate) fn new(sink: &'a dyn Sink, terms: Terms, past: Past, now: Moment) -> Self {
        let goes_on = past.window.is_some();
        let new = !past.taken_up;
        let mut window = past.window.unwrap_or_else(|| Window::new(TOLERANCE));
        let mut unsettled = Unsettled::default();
        if goes_on {
            window.resume(now.active_ns, new);
            // A counter that fell was reset: what it shows came after that.
            let rise = terms.lost.checked_sub(past.lost).unwrap_or(terms.lost);
            if rise > 0 {
                let gap_events = past.stated_events;
                let since_ns = Some(now.active_ns);
                unsettled = Unsettled { since_ns, lost: rise.into(), gap_events, overrun: false };
            }
        }
        // What comes again stands behind this seq already.
        let begin_seq = past.count_from.unwrap_or_else(|| sink.next_seq());
        Self {
            sink,
            terms,
            window,
            opened: goes_on && !new,
            goes_on,
            other_boot_ns: past.other_boot_ns,
            own: past.own,
            leave_out: past.counted,
            places: Places::new(begin_seq, now.active_ns),
            summary: Summary::default(),
            now,
            whole_at_ns: if goes_on { past.last_ns } else { now.realtime_ns },
            lost_counter: terms.lost,
            failed_counter: 0,
            failed_in_a_row: 0,
            unsettled,
        }
    }

    /// Whether the opening marker is behind it.
    pub(crate) fn is_opened(&self) -> bool {
        self.opened
    }

    /// Giving everything back makes so many events more.
    pub(crate) fn makes_more(&mut self, events: u64) {
        if self.terms.left_on {
            self.terms.own += events;
        }
    }

    pub(crate) fn set_now(&mut self, now: Moment) {
        self.now = now;
    }

    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// Records received that are not our own heartbeats.
    pub(crate) fn traffic(&self) -> u64 {
        self.summary.records - self.summary.heartbeats
    }

    /// The socket answered ENOBUFS, which it does only where the option against it is not known.
    pub(crate) fn overrun(&mut self) {
        self.summary.overruns += 1;
        self.unsettled.overrun = true;
        self.unsettled.since_ns.get_or_insert(self.now.active_ns);
    }

    /// The socket's counter of sends that failed for want of room, read when it was found empty.
    ///
    /// The kernel drops a record only after [`TRIES`] failures in a row: one from its main queue
    /// and five from its retry queue. Fewer between two moments of rest cannot have lost one.
    pub(crate) fn failed_sends(&mut self, count: u32) {
        let rise = count.wrapping_sub(std::mem::replace(&mut self.failed_counter, count));
        self.summary.overruns += u64::from(rise);
        self.failed_in_a_row =
            if rise == 0 { 0 } else { self.failed_in_a_row.saturating_add(rise) };
        if self.failed_in_a_row >= TRIES {
            self.unsettled.overrun = true;
            self.unsettled.since_ns.get_or_insert(self.now.active_ns);
        }
    }

    /// Takes datagrams of the kernel in the order of their coming, each with the number of bytes
    /// that were sent, and says what the receiving thread has to know of them.
    pub(crate) fn datagrams<'d>(
        &mut self,
        datagrams: impl Iterator<Item = (&'d [u8], usize)>,
    ) -> Result<Vec<Seen>, AppendError> {
        let mut records = Vec::with_capacity(datagrams.size_hint().1.unwrap_or_default());
        let mut seen = Vec::new();
        for (bytes, whole_len) in datagrams {
            let (kind, payload) = match nlmsg::parse(bytes) {
                Some(Message::Record { kind, payload }) => (kind, payload),
                Some(Message::Replace { pid }) => {
                    // The record of it stands behind what came before it.
                    self.append_all(&mut records)?;
                    self.record_takeover(pid)?;
                    continue;
                }
                Some(
                    Message::Ack { .. }
                    | Message::Reply { .. }
                    | Message::Done { .. }
                    | Message::Control,
                )
                | None => {
                    continue;
                }
            };
            let serial = nlmsg::stamp(payload).map(|stamp| stamp.serial);
            if self.leave_out > 0 {
                self.leave_out -= 1;
                self.summary.records += 1;
                seen.extend(self.note(kind, payload, serial));
                continue;
            }
            if whole_len > bytes.len() {
                // The statement stands in front of its record.
                self.append_all(&mut records)?;
                let range = serial.map(|serial| (u64::from(serial), u64::from(serial)));
                let from_ns = self.now.realtime_ns;
                self.state(Cause::InputTooLong, Certainty::Exactly, 1, range, from_ns)?;
            }
            records.push(Record {
                source: Source::Netlink,
                kind,
                flags: Flags::NONE,
                realtime_ns: self.now.realtime_ns,
                boottime_ns: self.now.boottime_ns,
                source_seq: serial.map_or(0, u64::from),
                bytes: payload,
            });
            seen.extend(self.note(kind, payload, serial));
        }
        self.append_all(&mut records)?;
        Ok(seen)
    }

    fn note(&mut self, kind: u16, payload: &[u8], serial: Option<u32>) -> Option<Seen> {
        let Some(serial) = serial else {
            self.summary.unstamped += 1;
            return None;
        };
        self.window.note(serial, kind);
        self.see(kind, payload, serial)
    }

    fn append_all(&mut self, records: &mut Vec<Record<'_>>) -> Result<(), AppendError> {
        self.sink.append_all(records)?;
        self.summary.records += records.len() as u64;
        records.clear();
        Ok(())
    }

    fn see(&mut self, kind: u16, payload: &[u8], serial: u32) -> Option<Seen> {
        match kind {
            kind::TRUSTED_APP => {
                let number = self.heartbeat(payload)?;
                self.summary.heartbeats += 1;
                Some(Seen::Heartbeat { number, serial })
            }
            kind::CONFIG_CHANGE => {
                memmem::find(payload, b" audit_enabled=0 ").map(|_| Seen::Disabled)
            }
            _ => None,
        }
    }

    fn heartbeat(&self, payload: &[u8]) -> Option<u64> {
        self.terms.pids.iter().find_map(|pid| heartbeat_number(payload, *pid))
    }

    /// The kernel's counters were read.
    pub(crate) fn status(&mut self, status: &Status) {
        // A counter that fell was reset by someone; what it shows came after that.
        let rise = status.lost.checked_sub(self.lost_counter).unwrap_or(status.lost);
        self.lost_counter = status.lost;
        if rise > 0 {
            self.unsettled.lost += u64::from(rise);
            self.unsettled.since_ns.get_or_insert(self.now.active_ns);
        }
    }

    /// Looks for what is missing. Call it when the socket was found empty.
    pub(crate) fn tick(&mut self) -> Result<(), AppendError> {
        if self.leave_out > 0 {
            // The window is ahead of the time.
            return Ok(());
        }
        let missing = self.window.tick(self.now.active_ns);
        let whole = self.window.is_settled();
        self.state_missing(&missing)?;
        if whole {
            self.whole_at_ns = self.now.realtime_ns;
        }
        match self.unsettled.since_ns {
            Some(since_ns) if self.now.active_ns >= since_ns + SETTLE_NS => self.settle(),
            _ => Ok(()),
        }
    }

    /// Ends: states everything up to the serial `last` that is still missing. `drained` says
    /// whether the closing marker came back.
    pub(crate) fn finish(mut self, last: u32, drained: bool) -> Result<Summary, AppendError> {
        let missing = self.window.finish(last);
        self.state_missing(&missing)?;
        self.settle()?;
        if !drained {
            self.state(Cause::Undrained, Certainty::AtLeast, 0, None, self.whole_at_ns)?;
        }
        self.close(last, drained)?;
        self.summary.events = self.window.events();
        self.summary.drained = drained;
        Ok(self.summary)
    }

    /// Another process wanted this one's place; that it lives is why it did not get it.
    fn record_takeover(&mut self, pid: Option<u32>) -> Result<(), AppendError> {
        self.summary.takeovers += 1;
        let Moment { realtime_ns, boottime_ns, .. } = self.now;
        let own = Own::new(own::ERR, "takeover-attempt", Now { realtime_ns, boottime_ns });
        let own = own.field("pid", pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string()));
        own.result(false).append(self.sink).map(drop)
    }

    fn state_missing(&mut self, missing: &Missing) -> Result<(), AppendError> {
        if missing.is_empty() {
            return Ok(());
        }
        // What was lost was made after the window was last whole, or shortly before, when a
        // producer already had its serial.
        let from_ns = self.whole_at_ns.saturating_sub(TOLERANCE.time_ns);
        self.state_gaps(Cause::NoDaemon, &missing.absent, from_ns)?;
        self.state_gaps(Cause::SerialGap, &missing.gaps, from_ns)?;
        if let [first, ..] = missing.partial[..] {
            let last = missing.partial.last().copied().unwrap_or(first);
            let count = missing.partial.len() as u64;
            self.summary.partial_events += count;
            let range = (u64::from(first), u64::from(last));
            // Not exactly: an event that lost a record between its first and its last looks whole.
            self.state(Cause::PartialEvent, Certainty::AtLeast, count, Some(range), from_ns)?;
        }
        Ok(())
    }

    /// States whole events, less those that the last session's process made behind its end.
    fn state_gaps(&mut self, cause: Cause, gaps: &[Gap], from_ns: u64) -> Result<(), AppendError> {
        let all: u64 = gaps.iter().map(Gap::events).sum();
        let ours = if cause == Cause::NoDaemon { all.min(self.own) } else { 0 };
        self.own -= ours;
        let events = all - ours;
        self.summary.lost_events += events;
        // The kernel may have counted also what a predecessor made itself.
        self.unsettled.gap_events += all;
        if events > 0 {
            self.unsettled.since_ns.get_or_insert(self.now.active_ns);
        }
        match gaps {
            gaps if gaps.len() <= STATEMENTS_AT_ONCE_MAX => {
                let mut ours = ours;
                for gap in gaps {
                    let count = gap.events() - ours.min(gap.events());
                    ours -= gap.events() - count;
                    if count > 0 {
                        let range = Some((u64::from(gap.first), u64::from(gap.last)));
                        self.state(cause, Certainty::Exactly, count, range, from_ns)?;
                    }
                }
            }
            [first, .., last] if events > 0 => {
                let range = Some((u64::from(first.first), u64::from(last.last)));
                self.state(cause, Certainty::Exactly, events, range, from_ns)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// States what the window cannot know: records that the kernel counted as lost and that no gap
    /// explains, because an event that is refused before it begins takes no serial.
    ///
    /// A missing event had at least one record, so that counting only the rest says
    /// no loss twice.
    fn settle(&mut self) -> Result<(), AppendError> {
        let Unsettled { lost, gap_events, overrun, .. } = std::mem::take(&mut self.unsettled);
        let from_ns = self.whole_at_ns.saturating_sub(TOLERANCE.time_ns + SETTLE_NS);
        let unexplained = lost.saturating_sub(gap_events);
        if unexplained > 0 {
            let certainty = if gap_events == 0 { Certainty::Exactly } else { Certainty::AtLeast };
            self.summary.lost_records += unexplained;
            self.state(Cause::KernelLost, certainty, unexplained, None, from_ns)?;
        }
        // The socket was full for long enough to lose records. No event is missing, but a record
        // from the middle of one would not show.
        if overrun && lost == 0 && gap_events == 0 {
            self.state(Cause::Enobufs, Certainty::AtLeast, 0, None, from_ns)?;
        }
        Ok(())
    }

    fn state(
        &mut self,
        cause: Cause,
        certainty: Certainty,
        count: u64,
        range: Option<(u64, u64)>,
        from_ns: u64,
    ) -> Result<(), AppendError> {
        let Moment { realtime_ns, boottime_ns, .. } = self.now;
        let between_ns = Some((from_ns.min(realtime_ns), realtime_ns));
        let statement =
            LossStatement { source: Source::Netlink, cause, certainty, count, range, between_ns };
        let payload = statement.encode(realtime_ns);
        self.sink.append(&LossStatement::record(&payload, realtime_ns, boottime_ns))?;
        self.summary.statements += 1;
        Ok(())
    }
}

/// The number of a heartbeat that process `pid` wrote. The kernel writes the process id itself, in
/// front of the text, so that no other process can forge one.
fn heartbeat_number(payload: &[u8], pid: u32) -> Option<u64> {
    let body = &payload[memmem::find(payload, b"): ")? + 3..];
    let rest = body.strip_prefix(b"pid=")?;
    let (writer, rest) = rest.split_at_checked(rest.iter().position(|&byte| byte == b' ')?)?;
    (std::str::from_utf8(writer).ok()?.parse() == Ok(pid)).then_some(())?;
    const TEXT: &[u8] = b" msg='op=graven-heartbeat count=";
    let digits = &rest[memmem::find(rest, TEXT)? + TEXT.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;
