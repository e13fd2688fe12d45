//! A new trail of what is intact in a damaged one.
//!
//! Records are copied in the order of their seq and get new ones. A record stands in at most one
//! place: what contradicts what was read before, such as a segment that is there twice, is left out
//! and said. Where records are missing, a loss statement says so.

use crate::exit::Exit;
use crate::fresh::{self, Fresh};
use crate::recording::Failure;
use crate::trail::stream::{self, Item};
use crate::trail::{SegmentFile, TrailDir};
use crate::verify::{self, Report, Verdict};
use graven_format::loss::{Cause, Certainty, LossStatement};
use graven_format::{Class, Flags, Record, Source};
use graven_writer::source::AppendError;
use graven_writer::{OnFull, Options, Trail, clock};
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::Path;

/// What became of old seqs, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Records that were copied.
    Copied {
        /// Seq of the first of them in the old trail; the others follow without a gap.
        first: u64,
        /// How many they are.
        count: u64,
        /// Seq of the first of them in the new trail.
        new_first: u64,
    },
    /// Checkpoints, which were not copied.
    Checkpoints {
        /// Seq of the first of them.
        first: u64,
        /// How many they are.
        count: u64,
    },
    /// Records that are missing or cannot be read.
    Lost {
        /// Seq of the first of them.
        first: u64,
        /// How many they are.
        count: u64,
        /// Whether there may have been more.
        at_least: bool,
        /// Seq of the loss statement in the new trail.
        new_seq: u64,
    },
    /// Intact records whose seqs contradict other records or the place of their segment.
    LeftOut {
        /// Seq of the first of them.
        first: u64,
        /// How many they are.
        count: u64,
    },
}

impl Step {
    /// Takes in a step of one record that goes on where this one ends; false if it does not.
    fn grows(&mut self, next: &Self) -> bool {
        let (first, count, goes_on) = match (self, next) {
            (
                Self::Copied { first, count, new_first },
                Self::Copied { first: seq, new_first: new_seq, .. },
            ) => {
                let goes_on = *new_first + *count == *new_seq;
                (first, count, goes_on.then_some(seq))
            }
            (Self::Checkpoints { first, count }, Self::Checkpoints { first: seq, .. })
            | (Self::LeftOut { first, count }, Self::LeftOut { first: seq, .. }) => {
                (first, count, Some(seq))
            }
            _ => return false,
        };
        let grows = goes_on.is_some_and(|seq| first.checked_add(*count) == Some(*seq));
        *count += u64::from(grows);
        grows
    }
}

/// How many there were of each [`Step`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that were copied.
    pub copied: u64,
    /// Checkpoints that were not.
    pub checkpoints: u64,
    /// Records that are missing or cannot be read.
    pub lost: u64,
    /// Loss statements that were written.
    pub statements: u64,
    /// Intact records that were left out.
    pub left_out: u64,
    /// Segments and frames that the system did not let us read, or that a later version wrote.
    pub unread: u64,
}

/// What was done.
#[derive(Debug)]
pub struct Salvaged {
    /// How much.
    pub counts: Counts,
    /// What `verify` says of the old trail.
    pub old: Report,
    /// What `verify` says of the new one: that it is intact.
    pub new: Report,
}

impl Salvaged {
    /// What the process ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.counts {
            Counts { left_out: 1.., .. } => Exit::Damage,
            Counts { unread: 1.., .. } => Exit::CannotCheck,
            Counts { statements: 1.., .. } => Exit::Losses,
            _ => Exit::Success,
        }
    }
}

/// Writes what is intact in the trail in `dir` to a new trail in `dest`, which must not exist, in
/// segments of `segment_bytes`, and verifies that. `tell` gets each step.
///
/// # Errors
/// [`Failure`], ready to be said; the trail is as it was.
pub fn salvage(
    dir: &Path,
    dest: &Path,
    segment_bytes: u64,
    tell: &mut dyn FnMut(Step),
) -> Result<Salvaged, Failure> {
    let _held = fresh::hold(dir)?;
    let verify = |path: &Path| {
        verify::verify(path, &verify::Options::default())
            .map_err(|why| Failure::new(Exit::CannotCheck, &why.to_string()).help(why.help()))
    };
    let old = verify(dir)?;
    let from = TrailDir::open(dir)
        .map_err(|why| Failure::new(Exit::CannotCheck, &why.to_string()).help(why.help()))?;
    let fresh = Fresh::make(dest, dir)?;
    // What retention has removed is not missing.
    let start_seq = old.scope.removed.as_ref().map_or(0, |removed| removed.end_seq);
    let seqs = start_seq..old.records.end_seq;
    let written = write(&from, fresh.path(), segment_bytes, seqs, tell)
        .and_then(|counts| Ok((counts, checked(&fresh, verify(fresh.path())?)?)));
    let (counts, mut new) = written.map_err(|failure| fresh.unfinished(failure))?;
    new.trail = crate::escape::path(fresh.dest());
    fresh.finish()?;
    Ok(Salvaged { counts, old, new })
}

/// The report of the new trail, if that is as it should be.
fn checked(fresh: &Fresh, report: Report) -> Result<Report, Failure> {
    match report.verdict {
        Verdict::Intact | Verdict::Losses => Ok(report),
        verdict => {
            let text = format!("{} was written and is {}", fresh.path().display(), verdict.words());
            Err(Failure::new(Exit::Storage, &text).help("name a directory on another device"))
        }
    }
}

/// Writes the new trail and seals it.
fn write(
    from: &TrailDir,
    to: &Path,
    segment_bytes: u64,
    seqs: Range<u64>,
    tell: &mut dyn FnMut(Step),
) -> Result<Counts, Failure> {
    // Nobody would make room while it waits.
    let options = Options { segment_bytes, on_full: OnFull::End, ..Options::default() };
    let trail = Trail::open(to, &options).map_err(|why| no_room(why.into()))?;
    let mut copier = Copier::new(from, &trail, tell);
    copier.next = seqs.start;
    let mut copied = Ok(());
    stream::stream(from, &(0..u64::MAX), &mut |item| {
        copied = copier.item(&item);
        if copied.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let copied = copied.and_then(|()| copier.end(seqs.end));
    let counts = copier.counts;
    // If a record was not taken, this says why.
    trail.close().map_err(|why| no_room(why.into()))?;
    copied.map_err(|why| Failure::new(Exit::Storage, &why.to_string()))?;
    Ok(counts)
}

/// The failure with what to do about a full disk here.
fn no_room(failure: Failure) -> Failure {
    match failure.exit {
        Exit::NoRoom => failure.help("make room there, or name a directory on another filesystem"),
        _ => failure,
    }
}

/// Copies records and keeps account of seqs.
struct Copier<'a> {
    from: &'a TrailDir,
    trail: &'a Trail,
    tell: &'a mut dyn FnMut(Step),
    counts: Counts,
    /// The old seq that should come next: all before it were copied, or are accounted for.
    next: u64,
    /// Time of the last intact record.
    last_ns: Option<u64>,
    /// The segment that is read, and the seq at which the next one says it starts.
    place: Option<(SegmentFile, u64)>,
    /// The step that may grow.
    open: Option<Step>,
}

impl<'a> Copier<'a> {
    fn new(from: &'a TrailDir, trail: &'a Trail, tell: &'a mut dyn FnMut(Step)) -> Self {
        let counts = Counts::default();
        Self { from, trail, tell, counts, next: 0, last_ns: None, place: None, open: None }
    }

    fn item(&mut self, item: &Item<'_>) -> Result<(), AppendError> {
        match item {
            Item::Record { file, seq, record } => return self.record(file, *seq, record),
            Item::Finding { class: Class::Unsupported, .. } => self.counts.unread += 1,
            // What is no file is damage: see `verify`.
            Item::Unreadable { why, .. } if why.kind() != io::ErrorKind::InvalidInput => {
                self.counts.unread += 1;
            }
            // The next record shows what is missing.
            Item::Finding { .. } | Item::Unreadable { .. } | Item::Missing { .. } => {}
        }
        Ok(())
    }

    fn record(
        &mut self,
        file: &SegmentFile,
        seq: u64,
        record: &Record<'_>,
    ) -> Result<(), AppendError> {
        if seq < self.next || seq >= self.place_end(file) {
            self.counts.left_out += 1;
            self.step(Step::LeftOut { first: seq, count: 1 });
            return Ok(());
        }
        let checkpoint = record.flags.contains(Flags::CHECKPOINT);
        if checkpoint && record.source != Source::Graven {
            // No writer makes it, and a trail that holds it is damaged: it is missing.
            return Ok(());
        }
        if seq > self.next {
            let between = self.last_ns.map(|last_ns| (last_ns, record.realtime_ns));
            self.lost(seq, Certainty::Exactly, between)?;
        }
        self.next = seq + 1;
        self.last_ns = Some(record.realtime_ns);
        if checkpoint {
            self.counts.checkpoints += 1;
            self.step(Step::Checkpoints { first: seq, count: 1 });
            return Ok(());
        }
        let new_first = self.trail.append(record)?.seq();
        self.counts.copied += 1;
        self.step(Step::Copied { first: seq, count: 1, new_first });
        Ok(())
    }

    /// States what is missing before `to`.
    fn lost(
        &mut self,
        to: u64,
        certainty: Certainty,
        between_ns: Option<(u64, u64)>,
    ) -> Result<(), AppendError> {
        let (first, count) = (self.next, to - self.next);
        let statement = LossStatement {
            source: Source::Graven,
            cause: Cause::Damaged,
            certainty,
            count,
            range: Some((first, to - 1)),
            between_ns,
        };
        let now = clock::now();
        let payload = statement.encode(now.realtime_ns);
        let record = LossStatement::record(&payload, now.realtime_ns, now.boottime_ns);
        let new_seq = self.trail.append(&record)?.seq();
        self.counts.lost += count;
        self.counts.statements += 1;
        let at_least = certainty == Certainty::AtLeast;
        self.step(Step::Lost { first, count, at_least, new_seq });
        self.next = to;
        Ok(())
    }

    /// All was read, and the old trail is known to have gone to `end_seq`.
    fn end(&mut self, end_seq: u64) -> Result<(), AppendError> {
        if end_seq > self.next {
            self.lost(end_seq, Certainty::AtLeast, None)?;
        }
        if let Some(step) = self.open.take() {
            (self.tell)(step);
        }
        Ok(())
    }

    /// Where the segments after `file` start by their names. Without this, one frame with a
    /// seq far ahead would make all that follows come too late.
    fn place_end(&mut self, file: &SegmentFile) -> u64 {
        match &self.place {
            Some((at, end)) if at == file => *end,
            _ => {
                let follows = |next: &&SegmentFile| {
                    next.segment > file.segment && next.first_seq >= file.first_seq
                };
                let next = self.from.segments.iter().find(follows);
                let end = next.map_or(u64::MAX, |next| next.first_seq);
                self.place = Some((file.clone(), end));
                end
            }
        }
    }

    /// Tells the last step unless this one only lets it grow.
    fn step(&mut self, step: Step) {
        if self.open.as_mut().is_some_and(|open| open.grows(&step)) {
            return;
        }
        if let Some(before) = self.open.replace(step) {
            (self.tell)(before);
        }
    }
}
