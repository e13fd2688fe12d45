//! What becomes of the pieces of a plugin's stream: records, statements, and words about what is neither.

use super::decode::Piece;
use super::line::{self, CUT_BYTES, Seen};
use crate::clock::Now;
use crate::own::{self, Own};
use crate::source::serials::Serials;
use crate::source::{AppendError, Sink};
use graven_format::loss::{Cause, Certainty};
use graven_format::{Flags, Record, Source, kind};

/// Malformed pieces that get a record of their own each; of the rest only the number is said.
const MALFORMED_SAID_MAX: u64 = 20;

/// Records with a missing end between two statements of it.
const CUT_STATED: u64 = 1024;

/// The daemon's own types. Their numbers are no serials of the kernel's, and they are never cut.
const DAEMON: std::ops::RangeInclusive<u16> = 1200..=1299;

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes.
    pub bytes: u64,
    /// Records given to the sink, malformed ones included.
    pub records: u64,
    /// Of these, what is no record of auditd's; each was kept as it came.
    pub malformed: u64,
    /// Lines that were too long; each is a loss statement.
    pub too_long: u64,
    /// Records that are known to have lost their end before they came.
    pub cut: u64,
    /// Events that never came, by their serials.
    pub lost_events: u64,
    /// Loss statements given to the sink.
    pub statements: u64,
    /// Times that the stream began anew: for the socket of af_unix.
    pub reconnects: u64,
}

/// Something that whoever runs this should know at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// So many bytes at this offset are no record of auditd's. They were kept as they came.
    Malformed {
        /// Offset of the first of them in the stream.
        offset: u64,
        /// How many.
        bytes: u64,
        /// Seq of the record that keeps them.
        seq: u64,
    },
    /// A line is too long to be kept.
    TooLong {
        /// Its offset in the stream.
        offset: u64,
        /// Its bytes.
        bytes: u64,
    },
    /// Records come without their last 16 bytes. It is said once.
    Cut {
        /// Offset of the first one that shows it.
        offset: u64,
    },
}

/// Records whose end is missing.
#[derive(Debug, Default)]
struct Cut {
    /// It is so for every record: an end of event shows it, because how it ends is known.
    all: bool,
    said: bool,
    unstated: u64,
    first: u64,
    last: u64,
}

pub(crate) struct Feed<'a> {
    pub(crate) sink: &'a dyn Sink,
    trouble: &'a mut dyn FnMut(Trouble),
    now: Now,
    pub(crate) serials: Serials,
    cut: Cut,
    composed: Vec<u8>,
    pub(crate) summary: Summary,
}

impl<'a> Feed<'a> {
    pub(crate) fn new(sink: &'a dyn Sink, trouble: &'a mut dyn FnMut(Trouble), now: Now) -> Self {
        Self {
            sink,
            trouble,
            now,
            serials: Serials::new(Source::Import, now),
            cut: Cut::default(),
            composed: Vec::new(),
            summary: Summary::default(),
        }
    }

    pub(crate) fn set_now(&mut self, now: Now) {
        self.now = now;
        self.serials.set_now(now);
    }

    pub(crate) fn piece(&mut self, offset: u64, piece: Piece<'_>) -> Result<(), AppendError> {
        match piece {
            Piece::Line(text) => self.line(offset, text, 0, true),
            Piece::Unended(text) => {
                let kind = line::read(text).map_or(0, |seen| seen.kind);
                self.malformed(offset, text, kind, Flags::UNTERMINATED)
            }
            Piece::Garbage(bytes) => self.malformed(offset, bytes, 0, Flags::UNTERMINATED),
            Piece::TooLong(bytes) => {
                self.summary.too_long += 1;
                self.serials.state(Certainty::Exactly, Cause::InputTooLong, 1, None, self.sink)?;
                (self.trouble)(Trouble::TooLong { offset, bytes });
                Ok(())
            }
            Piece::Binary { version, kind, payload } => {
                // The decoder believes no larger one.
                let kind = u16::try_from(kind).unwrap_or(0);
                let mut composed = std::mem::take(&mut self.composed);
                if version == 0 {
                    line::compose(kind, payload, &mut composed);
                } else {
                    composed.clear();
                    composed.extend_from_slice(payload);
                    line::one_line(&mut composed);
                }
                let fed = self.line(offset, &composed, kind, version == 0);
                self.composed = composed;
                fed
            }
        }
    }

    /// One line. `kind` is what came beside it, if anything did; `may_be_cut` says that some auditd cuts
    /// what comes in this form.
    fn line(
        &mut self,
        offset: u64,
        text: &[u8],
        kind: u16,
        may_be_cut: bool,
    ) -> Result<(), AppendError> {
        let Some(seen) = line::read(text) else {
            return self.malformed(offset, text, kind, Flags::NONE);
        };
        let kind = if kind == 0 { seen.kind } else { kind };
        self.append(kind, Flags::NONE, seen.serial.map_or(0, u64::from), text)?;
        if let (Some(serial), false, false) = (seen.serial, seen.node, DAEMON.contains(&kind)) {
            self.serials.note(serial, kind, self.sink)?;
        }
        self.look_for_cut(offset, Seen { kind, ..seen }, may_be_cut && !seen.node)
    }

    fn look_for_cut(&mut self, offset: u64, seen: Seen, may_be: bool) -> Result<(), AppendError> {
        if seen.kind == kind::EOE && may_be {
            // Also the other way round: whoever was replaced by a sound one.
            self.cut.all = seen.cut;
        }
        if !(seen.cut || self.cut.all && may_be && !DAEMON.contains(&seen.kind)) {
            return Ok(());
        }
        self.summary.cut += 1;
        self.cut.unstated += 1;
        if let Some(serial) = seen.serial.map(u64::from) {
            self.cut.first = if self.cut.first == 0 { serial } else { self.cut.first };
            self.cut.last = serial;
        }
        if !self.cut.said {
            self.cut.said = true;
            (self.trouble)(Trouble::Cut { offset });
            Own::new(own::ERR, "plugin-cut", self.now)
                .field("offset", offset)
                .field("bytes", CUT_BYTES)
                .result(false)
                .append(self.sink)?;
            return self.state_cut();
        }
        if self.cut.unstated >= CUT_STATED { self.state_cut() } else { Ok(()) }
    }

    /// The ends of these events never came.
    fn state_cut(&mut self) -> Result<(), AppendError> {
        let Cut { unstated, first, last, .. } = self.cut;
        let range = (first > 0 && first <= last).then_some((first, last));
        self.cut = Cut { unstated: 0, first: 0, last: 0, ..self.cut };
        self.serials.state(Certainty::AtLeast, Cause::PartialEvent, unstated, range, self.sink)
    }

    /// Kept as it came; without a type, unless one came beside it.
    fn malformed(
        &mut self,
        offset: u64,
        bytes: &[u8],
        kind: u16,
        flags: Flags,
    ) -> Result<(), AppendError> {
        let seq = self.append(kind, flags, 0, bytes)?;
        self.summary.malformed += 1;
        let len = bytes.len() as u64;
        if self.summary.malformed <= MALFORMED_SAID_MAX {
            Own::new(own::ERR, "plugin-malformed", self.now)
                .field("offset", offset)
                .field("bytes", len)
                .field("record", seq)
                .result(false)
                .append(self.sink)?;
        }
        (self.trouble)(Trouble::Malformed { offset, bytes: len, seq });
        Ok(())
    }

    fn append(
        &mut self,
        kind: u16,
        flags: Flags,
        source_seq: u64,
        bytes: &[u8],
    ) -> Result<u64, AppendError> {
        self.summary.records += 1;
        let Now { realtime_ns, boottime_ns } = self.now;
        let source = Source::Import;
        let record = Record { source, kind, flags, realtime_ns, boottime_ns, source_seq, bytes };
        self.sink.append(&record)
    }

    /// The stream has ended.
    pub(crate) fn finish(&mut self) -> Result<(), AppendError> {
        self.serials.finish(self.sink)?;
        if self.cut.unstated > 0 {
            self.state_cut()?;
        }
        self.summary.lost_events = self.serials.lost_events;
        self.summary.statements = self.serials.statements;
        if self.summary.malformed > MALFORMED_SAID_MAX {
            Own::new(own::ERR, "plugin-malformed", self.now)
                .field("count", self.summary.malformed)
                .result(false)
                .append(self.sink)?;
        }
        Ok(())
    }
}
