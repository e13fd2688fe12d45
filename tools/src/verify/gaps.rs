//! Source gaps: serials of the kernel's audit, and numbers of the kernel shim's rings ([`super::parts`]), that are neither in
//! the trail nor stated there as lost.
//!
//! The serials themselves say so, whatever the writer says: every event takes one, and each brings at least one
//! record. A session is owed those from behind its opening marker to its closing marker. Where it has no
//! closing mark, because it was cut off or goes on, it is judged up to where it said last that all was
//! settled; a session that goes on with what another was owed is judged with it.
//!
//! Judging begins at a session's beginning. Where records may be missing for another reason, because they are
//! damaged, were not read, or are in another part, it begins again at the next mark that allows it.

use crate::time::rfc3339;
use crate::trail::segment::{SegmentRead, Stamp};
use crate::verify::parts::{Missing, Rings};
use crate::verify::serials::{Coverage, Hole, Piece};
use graven_format::session::What;
use serde::Serialize;

/// Most gaps that are listed.
const GAPS_MAX: usize = 10_000;

/// Most holes that may wait for a statement, or for their records. A trail that has more is not judged there.
const HOLES_MAX: usize = 1 << 16;

/// What is missing and not stated.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceGaps {
    /// Sessions of receiving from the kernel that were judged; one in which judging began again counts again.
    pub sessions: u64,
    /// Those without an end in what was checked: cut off, or still running. What came behind the last mark of
    /// such a session is not judged.
    pub without_end: u64,
    /// How often judging had to begin again because records are damaged, or were not read.
    pub not_judged: u64,
    /// Sessions of reading from the kernel shim that were judged by the numbers of its rings.
    pub shim_sessions: u64,
    /// Those without an end.
    pub shim_without_end: u64,
    /// Gaps that are not stated.
    pub count: u64,
    /// Events in them, at least one record each; of the shim, parts of records.
    pub events: u64,
    /// The gaps.
    pub gaps: Vec<SourceGap>,
    /// Gaps that are not listed.
    pub left_out: u64,
}

/// Consecutive numbers of a source that are neither in the trail nor stated there.
#[derive(Clone, Debug, Serialize)]
pub struct SourceGap {
    /// The source.
    pub source: &'static str,
    /// Of the shim: the ring whose numbers they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring: Option<u32>,
    /// The first number.
    pub first: u64,
    /// The last number; below the first where they wrap.
    pub last: u64,
    /// Events that are missing and not stated; fewer than the range has if a statement covers the others.
    pub events: u64,
    /// Seq of the record with which it shows.
    pub seq: u64,
    /// The time of that record.
    pub time: String,
}

/// Where the trail stands in its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Nothing is owed.
    Outside,
    /// In a session.
    Inside,
    /// Records may be missing that stood before this seq. If they were in another trail, no mark's seq
    /// counts in this one.
    Blind { from: u64, elsewhere: bool },
}

/// Judges segments in the order of the trail.
#[derive(Debug)]
pub(crate) struct Gaps {
    at: At,
    coverage: Coverage,
    rings: Rings,
    boot_id: Option<[u8; 16]>,
    next_seq: u64,
    found: SourceGaps,
}

impl Default for Gaps {
    fn default() -> Self {
        Self {
            at: At::Outside,
            coverage: Coverage::default(),
            rings: Rings::default(),
            boot_id: None,
            next_seq: 0,
            found: SourceGaps::default(),
        }
    }
}

impl Gaps {
    /// The next segment, which ends before `end_seq`. Only what shows at a record that was `asked` for counts.
    pub(crate) fn segment(
        &mut self,
        read: &SegmentRead,
        end_seq: u64,
        asked: &dyn Fn(&Stamp) -> bool,
    ) {
        if read.file.first_seq != self.next_seq {
            self.blind(read.file.first_seq, false);
            self.rings.blind();
        }
        self.next_seq = end_seq;
        let boot_id = read.outcome.header.as_ref().map(|header| header.boot_id);
        if boot_id != self.boot_id {
            self.boot_id = boot_id;
            self.coverage = Coverage::default();
            if self.at == At::Inside {
                self.found.without_end += 1;
                self.at = At::Outside;
            }
        }
        let inside = read.findings.iter().any(|placed| placed.after.is_some());
        let damaged = inside || read.findings_left_out > 0 || read.serials.damaged;
        if damaged || read.serials.too_many {
            self.blind(end_seq, read.serials.damaged);
        }
        if damaged || read.parts.too_many {
            self.rings.blind();
        } else {
            let mut found = Vec::new();
            self.rings.segment(&read.parts, &mut |missing| found.push(missing));
            found.iter().filter(|it| asked(&it.at)).for_each(|it| self.report_ring(it));
            if !read.findings.is_empty() {
                self.rings.blind();
            }
        }
        if damaged || read.serials.too_many {
            return;
        }
        for piece in &read.serials.pieces {
            self.piece(piece, asked);
        }
        if !read.findings.is_empty() || self.coverage.holes() > HOLES_MAX {
            self.blind(end_seq, false);
        }
    }

    /// A segment that could not be read.
    pub(crate) fn unreadable(&mut self) {
        self.blind(u64::MAX, false);
        self.rings.blind();
    }

    fn blind(&mut self, from: u64, elsewhere: bool) {
        self.coverage = Coverage::default();
        // Where reading begins, the scope says what was not read.
        let read = self.boot_id.is_some() && !matches!(self.at, At::Blind { .. });
        self.found.not_judged += u64::from(read);
        let before = matches!(self.at, At::Blind { elsewhere: true, .. });
        self.at = At::Blind { from, elsewhere: elsewhere || before };
    }

    fn piece(&mut self, piece: &Piece, asked: &dyn Fn(&Stamp) -> bool) {
        self.coverage.merge(&piece.coverage);
        for said in &piece.said {
            let missing = self.coverage.state(said.first, said.last);
            if missing > said.count && self.at == At::Inside && asked(&said.at) {
                self.report(said.first, said.last, missing - said.count, said.at);
            }
        }
        if let Some((mark, at)) = &piece.settled {
            match self.at {
                At::Inside => self.settle(mark.serial, *at, asked),
                At::Blind { from, elsewhere: false } if mark.seq >= from => {
                    self.coverage.begin_behind(mark.serial);
                    self.at = At::Inside;
                    self.found.sessions += 1;
                }
                At::Outside | At::Blind { .. } => {}
            }
        }
        let Some((mark, at)) = &piece.end else { return };
        match mark.what {
            What::Open { goes_on } => {
                self.found.sessions += 1;
                self.found.without_end += u64::from(self.at == At::Inside);
                if !goes_on || self.at != At::Inside {
                    self.coverage.begin_behind(mark.serial);
                }
                self.at = At::Inside;
            }
            What::Close { .. } => {
                if self.at == At::Inside {
                    self.settle(mark.serial, *at, asked);
                }
                self.at = At::Outside;
            }
            What::Settled { .. } => {}
        }
    }

    fn settle(&mut self, serial: u32, at: Stamp, asked: &dyn Fn(&Stamp) -> bool) {
        for hole in self.coverage.missing_to(serial, at).iter().filter(|hole| asked(&hole.at)) {
            let Hole { first, last, at } = *hole;
            self.report(first as u32, last as u32, hole.serials(), at);
        }
    }

    fn report(&mut self, first: u32, last: u32, events: u64, at: Stamp) {
        let (first, last) = (first.into(), last.into());
        self.add(SourceGap {
            source: "netlink",
            ring: None,
            first,
            last,
            events,
            seq: at.seq,
            time: rfc3339(at.realtime_ns),
        });
    }

    fn report_ring(&mut self, missing: &Missing) {
        let Missing { ring, first, last, at } = *missing;
        self.add(SourceGap {
            source: "shim",
            ring: Some(ring),
            first,
            last,
            events: (last - first).saturating_add(1),
            seq: at.seq,
            time: rfc3339(at.realtime_ns),
        });
    }

    fn add(&mut self, gap: SourceGap) {
        self.found.count += 1;
        self.found.events = self.found.events.saturating_add(gap.events);
        if self.found.gaps.len() == GAPS_MAX {
            self.found.left_out += 1;
        } else {
            self.found.gaps.push(gap);
        }
    }

    /// What was found.
    pub(crate) fn end(mut self) -> SourceGaps {
        self.found.without_end += u64::from(self.at == At::Inside);
        self.rings.end();
        self.found.shim_sessions = self.rings.sessions;
        self.found.shim_without_end = self.rings.without_end;
        self.found
    }
}
