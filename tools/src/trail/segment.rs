//! One segment, read from end to end and remembered in bounded memory.

use crate::trail::dir::{SegmentFile, TrailDir};
use crate::trail::ends;
use crate::trail::notes::{Notes, Reader};
use crate::trail::scan::{self, How};
use crate::trail::tiles;
use crate::verify::clock::{Clocks, Times};
use crate::verify::parts::Parts;
use crate::verify::serials::Serials;
use graven_format::loss::{LossError, LossStatement};
use graven_format::merkle::Hash;
use graven_format::recovery::Found;
use graven_format::scan::{Event, Expect, Outcome, Prefix};
use graven_format::trailer::Tally;
use graven_format::{Finding, FindingKind, Flags, FormatError, Source};
use graven_writer::retention::Statement;
use std::io;
use std::ops::{ControlFlow, Range};
use std::time::Duration;

/// Most findings of one segment that are kept; the others are counted. A segment that has more
/// is damaged whatever they say.
pub const FINDINGS_MAX: usize = 1000;

/// Most loss statements of one segment that are kept; the others are counted.
pub const LOSSES_MAX: usize = 10_000;

/// How often the end of a running trail is read again, and how long it is given in between. A
/// write that is in flight for longer than a second is left as it is found.
const SETTLE_ROUNDS: u32 = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// Where and when an intact record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its seq.
    pub seq: u64,
    /// Its time, nanoseconds since 1970.
    pub realtime_ns: u64,
}

/// A finding and the intact records around it in its segment.
#[derive(Clone, Debug)]
pub struct Placed {
    /// What is wrong.
    pub finding: Finding,
    /// The last intact record before it.
    pub before: Option<Stamp>,
    /// The first intact record after it.
    pub after: Option<Stamp>,
}

/// A record that states a loss.
#[derive(Clone, Debug)]
pub struct LossFound {
    /// Where it is.
    pub stamp: Stamp,
    /// What it says.
    pub statement: Result<LossStatement, LossError>,
}

/// A segment as it was read.
#[derive(Debug)]
pub struct SegmentRead {
    /// Which one.
    pub file: SegmentFile,
    /// Whether all of it was read; if not, only what header and trailer say is known.
    pub whole: bool,
    /// What is wrong with it.
    pub findings: Vec<Placed>,
    /// Findings that were not kept.
    pub findings_left_out: u64,
    /// What is known at its end.
    pub outcome: Outcome,
    /// Offset after its last byte that is not zero.
    pub extent: u64,
    /// Intact records in it.
    pub records: u64,
    /// The first of them.
    pub first: Option<Stamp>,
    /// The last of them.
    pub last: Option<Stamp>,
    /// Records that state a loss.
    pub losses: Vec<LossFound>,
    /// Those that were not kept.
    pub losses_left_out: u64,
    /// Intact records whose source promises no completeness.
    pub best_effort: u64,
    /// The serials of the kernel's audit in it.
    pub serials: Serials,
    /// What it has of the kernel shim's.
    pub parts: Parts,
    /// The last record in it that says which segments were removed from the trail's beginning.
    pub retention: Option<(Stamp, Statement)>,
    /// Its keys, and the checkpoints in it.
    pub notes: Notes,
    /// If something is wrong in it: the seqs of those records that its trailer's root still covers.
    pub confirmed: Vec<Range<u64>>,
    /// The sizes that were asked for and lie in it, and the roots of trees of so many records.
    pub roots: Vec<(u64, Hash)>,
    /// Its clocks.
    pub clocks: Clocks,
}

impl SegmentRead {
    /// What recovery would see of it.
    #[must_use]
    pub fn found(&self) -> Found {
        Found {
            segment: self.file.segment,
            first_seq: self.file.first_seq,
            findings: self.findings.iter().map(|placed| placed.finding.clone()).collect(),
            outcome: self.outcome.clone(),
        }
    }
}

/// Collects what [`SegmentRead`] keeps.
#[derive(Default)]
struct Collector {
    findings: Vec<Placed>,
    findings_left_out: u64,
    /// Findings before this index know the record after them.
    placed: usize,
    records: u64,
    first: Option<Stamp>,
    last: Option<Stamp>,
    losses: Vec<LossFound>,
    losses_left_out: u64,
    best_effort: u64,
    serials: Serials,
    parts: Parts,
    retention: Option<(Stamp, Statement)>,
    clocks: Clocks,
}

impl Collector {
    fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Record { seq, record, .. } => {
                let stamp = Stamp { seq: *seq, realtime_ns: record.realtime_ns };
                self.first.get_or_insert(stamp);
                self.last = Some(stamp);
                self.records += 1;
                self.best_effort += u64::from(record.source == Source::Import);
                let (realtime_ns, boottime_ns) = (record.realtime_ns, record.boottime_ns);
                self.clocks.take(Times { seq: *seq, realtime_ns, boottime_ns });
                self.findings[self.placed..].iter_mut().for_each(|it| it.after = Some(stamp));
                self.placed = self.findings.len();
                if let Some(statement) = Statement::parse(record) {
                    self.retention = Some((stamp, statement));
                }
                if record.flags.contains(Flags::LOSS) {
                    let statement = LossStatement::parse(record.bytes).map(|(it, _)| it);
                    if let Ok(statement) = &statement {
                        self.serials.state(statement, stamp);
                        self.parts.state(statement);
                    }
                    if self.losses.len() < LOSSES_MAX {
                        self.losses.push(LossFound { stamp, statement });
                    } else {
                        self.losses_left_out += 1;
                    }
                } else {
                    self.serials.take(record, stamp);
                    self.parts.take(record, stamp);
                }
            }
            Event::Finding(finding) if self.findings.len() < FINDINGS_MAX => {
                let finding = finding.clone();
                self.findings.push(Placed { finding, before: self.last, after: None });
            }
            Event::Finding(_) => self.findings_left_out += 1,
            Event::Header(_) | Event::Frame { .. } | Event::Trailer(_) => {}
        }
    }
}

/// Reads a segment, with every hash if `merkle`.
///
/// # Errors
/// What the system says.
pub fn read(
    dir: &TrailDir,
    file: &SegmentFile,
    merkle: bool,
    how: How<'_>,
) -> io::Result<SegmentRead> {
    let opened = dir.open_segment(file)?;
    let expect = Expect {
        segment: file.segment,
        first_seq: file.first_seq,
        trail_id: dir.trail_id(),
        merkle,
    };
    let mut collector = Collector::default();
    // Signatures are checked where hashes are: recovery's view of the end needs neither.
    let mut notes = merkle.then(|| Reader::new(how.sizes));
    let mut scanned = scan::scan(&opened, expect, how, &mut |event| {
        collector.take(&event);
        notes.iter_mut().for_each(|notes| notes.take(&event));
        ControlFlow::Continue(())
    })?;
    let end_seq = scanned.outcome.prefix.next_seq;
    // The index was compared and is not needed any more; a trail may have very many segments.
    scanned.outcome.prefix.tally.index = Vec::new();
    if let Some(trailer) = &mut scanned.outcome.trailer {
        trailer.tally.index = Vec::new();
    }
    let confirmed = match &scanned.outcome {
        Outcome { header: Some(header), trailer: Some(trailer), .. }
            if merkle && !collector.findings.is_empty() =>
        {
            tiles::confirmed(&opened, expect, how, header, trailer)?
        }
        _ => Vec::new(),
    };
    let Collector {
        findings,
        findings_left_out,
        records,
        first,
        last,
        losses,
        losses_left_out,
        best_effort,
        serials,
        parts,
        retention,
        clocks,
        ..
    } = collector;
    Ok(SegmentRead {
        file: file.clone(),
        whole: true,
        findings,
        findings_left_out,
        outcome: scanned.outcome,
        extent: scanned.extent,
        records,
        first,
        last,
        losses,
        losses_left_out,
        best_effort,
        serials: serials.end(),
        parts: parts.end(),
        retention,
        notes: notes.map(|notes| notes.end(end_seq)).unwrap_or_default(),
        confirmed,
        roots: scanned.roots,
        clocks,
    })
}

/// Reads only the header and the trailer of a segment that has both.
///
/// # Errors
/// What the system says.
pub fn read_ends(dir: &TrailDir, file: &SegmentFile) -> io::Result<SegmentRead> {
    let opened = dir.open_segment(file)?;
    let (header, trailer) = (ends::header(&opened)?, ends::trailer(&opened)?);
    let mut findings = Vec::new();
    let mut wrong = |kind, offset| {
        let finding = Finding { kind, offset, len: 0, seq: file.first_seq, missing: 0 };
        findings.push(Placed { finding, before: None, after: None });
    };
    let mut place = |stated: (u64, u64)| {
        let named = [("segment", file.segment, stated.0), ("first_seq", file.first_seq, stated.1)];
        for (field, expected, found) in named.into_iter().filter(|it| it.1 != it.2) {
            wrong(FindingKind::Misplaced { field, expected, found }, 0);
        }
    };
    if let Ok(header) = &header {
        place((header.segment, header.first_seq));
    }
    let stranger = |id| dir.trail_id().is_some_and(|known| known != id);
    if header.as_ref().is_ok_and(|header| stranger(header.trail_id)) {
        wrong(
            FindingKind::Header(FormatError::Field {
                what: "segment header",
                field: "trail_id",
                value: 0,
            }),
            0,
        );
    }
    let (header, trailer) = match (header, trailer) {
        (Ok(header), trailer) => (Some(header), trailer),
        (Err(bad), trailer) => {
            wrong(FindingKind::Header(bad.why), bad.offset);
            (None, trailer)
        }
    };
    let trailer = match trailer {
        Ok((trailer, _)) => Some(trailer),
        Err(bad) => {
            wrong(FindingKind::Tail(bad.why), bad.offset);
            None
        }
    };
    let next_seq = file.first_seq;
    Ok(SegmentRead {
        file: file.clone(),
        whole: false,
        findings,
        findings_left_out: 0,
        outcome: Outcome {
            header,
            trailer,
            prefix: Prefix { next_seq, tally: Tally::new(0, 0), tree: None },
            announced: 0,
            end_seq: next_seq,
        },
        extent: 0,
        records: 0,
        first: None,
        last: None,
        losses: Vec::new(),
        losses_left_out: 0,
        best_effort: 0,
        serials: Serials::default(),
        parts: Parts::default(),
        retention: None,
        notes: Notes::default(),
        confirmed: Vec::new(),
        roots: Vec::new(),
        clocks: Clocks::default(),
    })
}

/// The same, of a segment that a running writer may be writing to. Frames that are in flight look
/// torn while a later one is already there. They are given time; what the writer adds meanwhile is
/// read as zeros, so that the end which is waited for does not move.
///
/// # Errors
/// What the system says.
pub fn read_settled(
    dir: &TrailDir,
    file: &SegmentFile,
    merkle: bool,
    how: How<'_>,
) -> io::Result<SegmentRead> {
    let mut read = self::read(dir, file, merkle, how)?;
    if dir.writer.is_none() {
        return Ok(read);
    }
    let limit = Some(read.extent);
    for _ in 0..SETTLE_ROUNDS {
        if read.findings.is_empty() {
            break;
        }
        std::thread::sleep(SETTLE_PAUSE);
        read = self::read(dir, file, merkle, How { limit, ..how })?;
    }
    Ok(read)
}
