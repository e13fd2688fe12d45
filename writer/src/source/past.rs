//! What the end of a trail says of the kernel's audit records: up to where everything is settled, what
//! has come since, what is stated as lost, and how the last session ended.
//!
//! A writer that begins, or takes another's place, reads it back and builds the window over serials from
//! it: what is neither in the trail nor stated there is then waited for, and stated once. It
//! begins at the place that the caller knows of, or else at the last mark in the trail
//! ([`graven_format::session`]). Marks are five seconds of receiving apart,
//! unless an event stays open for longer.
//! Memory is that of one window and one reader, whatever is read. What cannot be read counts as missing.

use super::intake::TOLERANCE;
use super::nlmsg;
use super::window::Window;
use crate::codec::Reading;
use crate::error::OpenError;
use crate::rewrite::Segment;
use graven_format::loss::{Cause, LossStatement};
use graven_format::name::Name;
use graven_format::scan::{Event, Expect, Scanner};
use graven_format::session::{Mark, What};
use graven_format::{Flags, Record, Source};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// Bytes read at once.
const CHUNK_BYTES: usize = 512 * 1024;

/// Segments without any record of the kernel, one behind the other, behind which no mark is looked for: a
/// trail that had one long ago, and only other sources since, need not be read whole.
const QUIET_SEGMENTS_MAX: usize = 16;

/// Records of what a keeper told that are remembered.
const TOLD_MAX: usize = 4096;

/// A place in a trail from which on the window over serials can be built again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// No record of a serial above `serial` stands before this seq.
    pub seq: u64,
    /// Every serial up to and with it is in the trail, or stated there as lost.
    pub serial: u32,
    /// Whether both the beginnings and the ends of events had been seen.
    pub halves: bool,
    /// The kernel's counter of lost records, as far as it was accounted for before `by`.
    pub lost: u32,
    /// All of this holds once every record before this seq is durable.
    pub by: u64,
}

/// See the module's text.
#[derive(Default)]
pub struct Past {
    /// What is known of the serials that are owed; `None` if none are.
    pub(super) window: Option<Window>,
    /// The kernel's counter, as far as it is accounted for.
    pub(super) lost: u32,
    /// Events stated since then, which may be what the counter has counted.
    pub(super) stated_events: u64,
    /// Events above the last closing marker that the writer itself made.
    pub(super) own: u64,
    /// The last session, which was in another boot, may have lost its end: when its last record was.
    pub(super) other_boot_ns: Option<u64>,
    /// When the last record of the kernel was.
    pub(super) last_ns: u64,
    /// Whether the last session, of this boot, has its opening mark and no end.
    open: bool,
    /// Whether that session goes on.
    pub(super) taken_up: bool,
    /// The seq from which on the kernel's records were counted, if it was asked for.
    pub(super) count_from: Option<u64>,
    /// How many they are.
    pub(super) counted: u64,
    /// Where the last mark of a session was seen.
    said_at: Option<u64>,
    /// What a keeper told, at or behind that seq.
    told: Vec<Vec<u8>>,
}

impl Past {
    /// Reads the end of the trail in `dir` back. Call it when the trail is open for writing, and before
    /// anything of the kernel is appended.
    ///
    /// `boot_id` is this boot's. `settled` is the place to begin at, if one is known. `count_from` is the seq
    /// from which on [`Past::netlink_records`] counts.
    ///
    /// # Errors
    /// [`OpenError`] if the system does not let it read.
    pub fn read(
        dir: &Path,
        boot_id: [u8; 16],
        settled: Option<Settled>,
        count_from: Option<u64>,
    ) -> Result<Self, OpenError> {
        let segments = segments(dir)?;
        let mut past = Self { count_from, ..Self::default() };
        let (from, at) = match settled {
            Some(at) => (holding(&segments, at.seq), Some(at)),
            None => past.look_back(dir, &segments, boot_id)?,
        };
        let from = from.min(count_from.map_or(from, |seq| holding(&segments, seq)));
        if let Some(at) = at {
            past.begin(&at);
        }
        for segment in &segments[from..] {
            scan(dir, segment, &mut |event| {
                if let Event::Record { seq, record, .. } = event {
                    past.account(seq, &record, at);
                }
            })?;
        }
        Ok(past)
    }

    /// How many records of the source netlink stand at or behind the seq that was asked for. A session
    /// leaves out as many of what it is given first.
    #[must_use]
    pub fn netlink_records(&self) -> u64 {
        self.counted
    }

    /// The same for a writer that takes the place of one that has ended, while the socket has stayed
    /// open: the session, if its opening mark is in the trail, goes on and needs no other.
    #[must_use]
    pub fn taken_up(mut self) -> Self {
        self.taken_up = self.open;
        self
    }

    /// The records at or behind the seq that was asked for that say what a keeper told.
    #[must_use]
    pub fn told(&self) -> &[Vec<u8>] {
        &self.told
    }

    /// Whether the last session has no end and something in it was said at or behind this seq.
    #[must_use]
    pub fn is_in_session_since(&self, seq: u64) -> bool {
        self.open && self.said_at >= Some(seq)
    }

    /// Looks for the last mark to begin at: the index of the segment from which on to read, and the place.
    fn look_back(
        &mut self,
        dir: &Path,
        segments: &[Segment],
        boot_id: [u8; 16],
    ) -> Result<(usize, Option<Settled>), OpenError> {
        let mut quiet = 0;
        for segment in segments.iter().rev() {
            let mut this_boot = false;
            let (mut base, mut last, mut last_ns) = (None, None, 0);
            scan(dir, segment, &mut |event| match event {
                Event::Header(header) => {
                    this_boot = header.boot_id == boot_id && boot_id != [0; 16];
                }
                Event::Record { seq, record, .. } => {
                    if record.source == Source::Netlink {
                        last_ns = record.realtime_ns;
                    }
                    if let Some(mark) = Mark::read(&record) {
                        last = Some(mark);
                        base = base_of(seq, &mark, base);
                    }
                }
                _ => {}
            })?;
            self.last_ns = self.last_ns.max(last_ns);
            quiet = if last_ns == 0 && last.is_none() { quiet + 1 } else { 0 };
            if !this_boot && let Some(last) = last {
                if !matches!(last.what, What::Close { left_on: false, .. }) {
                    self.other_boot_ns = Some(self.last_ns);
                }
                return Ok((segments.len(), None));
            }
            match base {
                Some(Some(at)) => return Ok((holding(segments, at.seq), Some(at))),
                // Nothing is owed behind it, and no other session has begun.
                Some(None) => return Ok((segments.len(), None)),
                None if quiet == QUIET_SEGMENTS_MAX => break,
                None => {}
            }
        }
        Ok((segments.len(), None))
    }

    fn begin(&mut self, at: &Settled) {
        self.window = Some(Window::at(TOLERANCE, at.serial, at.halves));
        self.lost = at.lost;
        self.open = true;
        self.said_at = Some(at.by);
    }

    /// Takes a record that the trail has, of which those from `at` on build the window.
    fn account(&mut self, seq: u64, record: &Record<'_>, at: Option<Settled>) {
        let counts = self.count_from.is_some_and(|from| seq >= from);
        self.counted += u64::from(counts && record.source == Source::Netlink);
        if counts && is_told(record) && self.told.len() < TOLD_MAX {
            self.told.push(record.bytes.to_vec());
        }
        if let Some(at) = at.filter(|at| seq >= at.seq) {
            self.take(seq, record, at.by);
        }
    }

    /// Takes a record that the trail has. Losses stated before `accounted` are in the counter already.
    fn take(&mut self, seq: u64, record: &Record<'_>, accounted: u64) {
        if record.source == Source::Netlink {
            self.last_ns = record.realtime_ns;
            let serial = nlmsg::stamp(record.bytes).map(|stamp| stamp.serial);
            if let (Some(window), Some(serial)) = (&mut self.window, serial) {
                window.note_again(serial, record.kind);
            }
        } else if record.flags.contains(Flags::LOSS) {
            if let Ok((said, _)) = LossStatement::parse(record.bytes)
                && said.source == Source::Netlink
            {
                self.stated(&said, seq >= accounted);
            }
        } else if let Some(mark) = Mark::read(record) {
            self.said_at = Some(seq);
            self.mark(&mark);
        }
    }

    fn stated(&mut self, said: &LossStatement, counts: bool) {
        match said.cause {
            Cause::KernelLost if counts => {
                // The counter itself wraps.
                self.lost = self.lost.wrapping_add(said.count as u32);
                self.stated_events = 0;
            }
            Cause::SerialGap | Cause::NoDaemon if counts => self.stated_events += said.count,
            _ => {}
        }
        let narrow = |serial: u64| u32::try_from(serial).ok();
        let partial = said.cause == Cause::PartialEvent;
        if let (Some(window), Some((first, last))) = (&mut self.window, said.range)
            && let (Some(first), Some(last)) = (narrow(first), narrow(last))
            && matches!(said.cause, Cause::SerialGap | Cause::NoDaemon | Cause::PartialEvent)
        {
            let missing = window.stated(first, last, partial);
            if said.cause == Cause::NoDaemon {
                // The others were its predecessor's own, and cannot be again.
                self.own = self.own.saturating_sub(missing.saturating_sub(said.count));
            }
        }
    }

    fn mark(&mut self, mark: &Mark) {
        match mark.what {
            What::Open { goes_on } => {
                if let Some(window) = &mut self.window
                    && goes_on
                {
                    window.reopen(mark.serial);
                }
                self.open = true;
            }
            What::Settled { .. } => (self.lost, self.stated_events) = (mark.lost, 0),
            What::Close { left_on, own } => {
                if let Some(window) = &mut self.window {
                    window.close(mark.serial);
                }
                if !left_on {
                    self.window = None;
                }
                (self.lost, self.stated_events) = (mark.lost, 0);
                (self.own, self.open) = (own, false);
            }
        }
    }
}

/// Whether a record says what a keeper told. They are few.
fn is_told(record: &Record<'_>) -> bool {
    let starts: [&[u8]; 4] = [b"ring-full", b"ring-room", b"keeper-died", b"writer-died"];
    record.source == Source::Graven
        && memchr::memmem::find(record.bytes, b":0): op=")
            .is_some_and(|at| starts.iter().any(|start| record.bytes[at + 8..].starts_with(start)))
}

/// What to begin at after this mark: `Some(None)` is that nothing is owed, `None` that nothing is known.
fn base_of(seq: u64, mark: &Mark, before: Option<Option<Settled>>) -> Option<Option<Settled>> {
    let Mark { serial, lost, .. } = *mark;
    let place = |halves| Some(Some(Settled { seq: mark.seq, serial, halves, lost, by: seq }));
    match mark.what {
        What::Open { goes_on: false } => place(false),
        What::Settled { halves } => place(halves),
        What::Close { left_on: false, .. } => Some(None),
        What::Open { goes_on: true } | What::Close { left_on: true, .. } => before,
    }
}

/// The index of the segment that holds `seq`.
fn holding(segments: &[Segment], seq: u64) -> usize {
    segments.partition_point(|segment| segment.first_seq <= seq).saturating_sub(1)
}

/// The segments of the trail, oldest first.
pub(super) fn segments(dir: &Path) -> Result<Vec<Segment>, OpenError> {
    let io = |source| OpenError::Io { operation: "listing of", path: dir.to_owned(), source };
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if let Some(Name::Segment { segment, first_seq }) = name.to_str().and_then(Name::parse) {
            segments.push(Segment { segment, first_seq });
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Shows `visit` all events of a segment, without hashing.
pub(super) fn scan(
    dir: &Path,
    segment: &Segment,
    visit: &mut dyn FnMut(Event<'_>),
) -> Result<(), OpenError> {
    let path = dir.join(segment.name());
    let failed = |source| OpenError::Io { operation: "reading", path: path.clone(), source };
    let Segment { segment, first_seq } = *segment;
    let expect = Expect { segment, first_seq, trail_id: None, merkle: false };
    let mut scanner = Scanner::with_hashing(expect, Reading::new());
    let mut file = File::open(&path).map_err(failed)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let len = match file.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(failed)?,
        };
        if len == 0 {
            scanner.end();
        }
        scanner.push(&chunk[..len]);
        while let Some(event) = scanner.next_event() {
            visit(event);
        }
        if len == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[path = "past_tests.rs"]
mod tests;
