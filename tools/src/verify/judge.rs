//! What the segments say together: the chain between them, the end of the trail, the verdict.
//!
//! Segments come in the order of the trail and are let go when the next one has been looked at: of
//! each only its place and its first record are kept, so a trail may have any number of them.

use crate::time::rfc3339;
use crate::trail::dir::{name_text, open_regular};
use crate::trail::segment::{LossFound, SegmentRead, Stamp};
use crate::trail::tail::Tail;
use crate::trail::{SegmentFile, TrailDir};
use crate::verify::clock::Clock;
use crate::verify::problems::Problems;
use crate::verify::report::{
    Class, Loss, Losses, Problem, Records, Report, Root, SCHEMA_VERSION, Segments, StampReport,
    Statement, Verdict, WriterReport, hex,
};
use crate::verify::{Options, Read};
use graven_format::merkle::{CompactRange, Hash};
use graven_format::name;
use graven_format::recovery::Decision;
use graven_format::segment::SegmentHeader;
use std::ffi::OsStr;
use std::io::{self, Read as _};

/// Most loss statements of a trail that are listed.
const LOSSES_MAX: usize = 10_000;

/// Puts a report together.
pub(crate) struct Judge<'a> {
    dir: &'a TrailDir,
    /// Records known to have been announced, from anything intact or from the caller.
    announced: u64,
    problems: Problems,
    segments: Segments,
    records: Records,
    losses: Losses,
    clock: Clock,
    first: Option<Stamp>,
    /// The last intact record so far.
    last: Option<Stamp>,
    /// Of each segment so far, the seq of its name and its first intact record.
    starts: Vec<(u64, Option<Stamp>)>,
    /// The largest end of a segment so far.
    seen: u64,
}

/// Where a segment stands in the trail.
#[derive(Clone, Copy)]
struct Place {
    /// It is not sealed, or none is after it.
    at_end: bool,
    /// It is after one that was not sealed yet, and recovery removes it.
    orphan: bool,
    /// Records from this seq on are not part of the trail.
    end_seq: u64,
}

/// What is known of the segment before the one that is looked at.
struct Before<'a> {
    file: &'a SegmentFile,
    read: Option<&'a SegmentRead>,
    end_seq: Option<u64>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(dir: &'a TrailDir, options: &Options<'_>) -> Self {
        let mut judge = Self {
            dir,
            announced: options.durable.map_or(0, |seq| seq.saturating_add(1)),
            problems: Problems::default(),
            segments: Segments::default(),
            records: Records::default(),
            losses: Losses::default(),
            clock: Clock::default(),
            first: None,
            last: None,
            starts: Vec::with_capacity(dir.segments.len()),
            seen: 0,
        };
        judge.check_identity();
        judge
    }

    /// Looks at a segment that is not at the end of the trail; `before` is the one that was looked
    /// at before it.
    pub(crate) fn segment(&mut self, before: Option<&Read>, this: &Read, tail: &Tail) {
        let place = Place { at_end: false, orphan: false, end_seq: tail.end_seq };
        self.announce(this);
        self.look_at(before, this, place);
    }

    /// Looks at the end of the trail, and reports on all that was read.
    pub(crate) fn report(mut self, before: Option<&Read>, tail: &Tail) -> Report {
        // What a later segment says was announced tells damage from a torn tail in this one.
        tail.segments.iter().for_each(|read| self.announce(read));
        let mut before = before;
        for (index, this) in tail.segments.iter().enumerate() {
            // The one before an orphan is at the end too, and need not be sealed.
            let at_end = index + tail.at_end >= tail.segments.len();
            let orphan = index + tail.at_end > tail.segments.len();
            self.look_at(before, this, Place { at_end, orphan, end_seq: tail.end_seq });
            before = Some(this);
        }
        self.place_after();
        self.check_end(tail);
        self.check_foreign();
        let root = self.root(tail);
        self.finish(tail, root)
    }

    fn announce(&mut self, (_, read): &Read) {
        let announced = read.as_ref().map_or(0, |read| read.outcome.announced);
        self.announced = self.announced.max(announced);
    }

    fn look_at(&mut self, before: Option<&Read>, (file, read): &Read, place: Place) {
        let before = before.map(|(file, read)| {
            let read = read.as_ref().ok();
            Before { file, read, end_seq: read.map(end_seq) }
        });
        self.check_place(before.as_ref(), file);
        match read {
            Ok(read) => {
                self.check_segment(read, place);
                let boot_id = read.outcome.header.as_ref().map(|header| header.boot_id);
                self.clock.segment(boot_id, &read.clocks, place.end_seq);
                self.check_chain(before.as_ref(), read, place.orphan);
                self.seen = self.seen.max(end_seq(read));
            }
            Err(why) => self.unreadable(file, why),
        }
        self.starts.push((file.first_seq, read.as_ref().ok().and_then(|read| read.first)));
    }

    fn file(&self, file: &SegmentFile) -> String {
        crate::escape::path(&self.dir.path.join(file.name()))
    }

    fn check_identity(&mut self) {
        let file = crate::escape::path(&self.dir.path.join(name::IDENTITY));
        let problem = match &self.dir.identity {
            Some(Ok(_)) => return,
            None => Problem::new(Class::Damage, "identity", "the trail has no identity")
                .note("segments are there, so the file was removed"),
            Some(Err(why)) => {
                let class = if why.is_unsupported() { Class::Unsupported } else { Class::Damage };
                Problem::new(class, "identity", why.to_string())
            }
        };
        self.problems.push(problem.in_file(file).at(0, 0));
    }

    /// Whether segments are missing, or doubled, before this one.
    fn check_place(&mut self, before: Option<&Before<'_>>, file: &SegmentFile) {
        let due = before.map_or(Some(0), |before| before.file.segment.checked_add(1));
        if due == Some(file.segment) {
            if before.is_none() && file.first_seq != 0 {
                let message = format!("the first segment starts at seq {}", file.first_seq);
                let problem = Problem::new(Class::Damage, "missing-records", message);
                self.problems.push(problem.in_file(self.file(file)).at(0, file.first_seq));
            }
            return;
        }
        let Some(due) = due.filter(|due| *due < file.segment) else {
            let message = format!("there is another segment of number {}", file.segment);
            let problem = Problem::new(Class::Damage, "doubled-segment", message);
            self.problems.push(problem.in_file(self.file(file)).at(file.first_seq, 0));
            return;
        };
        let last = file.segment - 1;
        let message = if due == last {
            format!("segment {due} is missing")
        } else {
            format!("segments {due} to {last} are missing")
        };
        let start = before.map_or(Some(0), |before| before.end_seq);
        let mut problem = Problem::new(Class::Damage, "missing-segment", message);
        match start {
            Some(start) => {
                problem = problem.at(start, file.first_seq.saturating_sub(start));
                let missing = SegmentFile { segment: due, first_seq: start };
                problem = problem.in_file(self.file(&missing));
            }
            None => problem = problem.at(file.first_seq, 0),
        }
        let successor = format!("{} says that seq {} follows", file.name(), file.first_seq);
        self.problems.push(problem.note(successor));
    }

    fn unreadable(&mut self, file: &SegmentFile, why: &io::Error) {
        let problem = if why.kind() == io::ErrorKind::InvalidInput {
            Problem::new(Class::Damage, "not-a-file", format!("the segment is {why}"))
        } else {
            Problem::new(Class::Unchecked, "io", format!("cannot read the segment: {why}"))
                .help("nothing is known about its records; verify again once it can be read")
        };
        self.problems.push(problem.in_file(self.file(file)).at(file.first_seq, 0));
    }

    /// What is in one segment.
    fn check_segment(&mut self, read: &SegmentRead, place: Place) {
        let Place { at_end, end_seq, .. } = place;
        self.segments.count += 1;
        self.segments.sealed += u64::from(read.outcome.trailer.is_some());
        self.segments.bytes += read.extent;
        for placed in &read.findings {
            let class = match placed.finding.class(self.announced, at_end) {
                graven_format::Class::Tail if self.dir.writer.is_some() => continue,
                graven_format::Class::Tail => Class::Tail,
                graven_format::Class::Unsupported => Class::Unsupported,
                graven_format::Class::Damage => Class::Damage,
            };
            let file = self.file(&read.file);
            let mut problem = Problem::of_finding(class, file, read.file.first_seq, placed);
            if problem.before.is_none() {
                problem.before = self.last.map(StampReport::from);
            }
            self.problems.push(problem);
        }
        if read.findings_left_out > 0 {
            let message = format!("{} more findings in this segment", read.findings_left_out);
            let problem = Problem::new(Class::Damage, "more", message);
            self.problems.push(problem.in_file(self.file(&read.file)).at(read.file.first_seq, 0));
        }
        // Intact records at the end that were never announced do not belong to the trail.
        let kept_end = end_seq.max(read.file.first_seq);
        let kept = read.outcome.prefix.next_seq.min(kept_end).saturating_sub(read.file.first_seq);
        let unannounced = if end_seq < read.outcome.end_seq && at_end {
            read.records.saturating_sub(kept)
        } else {
            0
        };
        self.records.intact += read.records - unannounced;
        self.records.unannounced += unannounced;
        self.first = self.first.or(read.first);
        self.last = read.last.or(self.last);
        for loss in read.losses.iter().filter(|loss| loss.stamp.seq < end_seq) {
            self.losses.count += 1;
            if self.losses.statements.len() < LOSSES_MAX {
                self.losses.statements.push(report_loss(loss));
            } else {
                self.losses.left_out += 1;
            }
        }
        self.losses.count += read.losses_left_out;
        self.losses.left_out += read.losses_left_out;
    }

    /// What a segment and the one before it say of each other.
    fn check_chain(&mut self, before: Option<&Before<'_>>, read: &SegmentRead, orphan: bool) {
        let file = self.file(&read.file);
        let damage = |kind, message: String| Problem::new(Class::Damage, kind, message);
        let Some(before) = before else {
            if let Some(header) = read.outcome.header.as_ref().filter(|it| it.prev_crc != 0) {
                let message = format!(
                    "the first segment follows one whose trailer has checksum {:08x}",
                    header.prev_crc
                );
                self.problems.push(damage("chain", message).in_file(file).at(0, 0));
            }
            return;
        };
        let adjacent = before.file.segment.checked_add(1) == Some(read.file.segment);
        let Some(previous) = before.read.filter(|_| adjacent) else { return };
        let (end, start) = (end_seq(previous), read.file.first_seq);
        let previous_file = self.file(&previous.file);
        let unsupported = previous
            .findings
            .iter()
            .any(|it| it.finding.class(self.announced, false) == graven_format::Class::Unsupported);
        if unsupported {
            return;
        }
        let Some(trailer) = &previous.outcome.trailer else {
            if !orphan {
                self.check_unsealed(previous, read, &previous_file);
            }
            return;
        };
        if end < start {
            let message = format!("seq {end} to {} are missing between two segments", start - 1);
            let problem = damage("missing-records", message).in_file(file.clone());
            self.problems
                .push(problem.at(end, start - end).note("both segments are as they were written"));
        } else if end > start {
            let message = format!("starts at seq {start}, but the segment before it ends at {end}");
            self.problems.push(damage("overlap", message).in_file(file.clone()).at(start, 0));
        }
        let Some(header) = &read.outcome.header else { return };
        if header.prev_crc != trailer.chain_crc() {
            let message = format!(
                "does not follow the segment before it: names trailer checksum {:08x}, that is {:08x}",
                header.prev_crc,
                trailer.chain_crc()
            );
            let problem = damage("chain", message).in_file(file.clone()).at(start, 0);
            self.problems.push(problem.note("a segment was replaced by another intact one"));
        }
        if header.before.root() != Some(trailer.root) && end == start {
            let message = "its tree of the records before it is not that of the segment before it";
            self.problems.push(damage("root", message.to_owned()).in_file(file).at(start, 0));
        }
    }

    /// A segment that is not the last and has no trailer.
    fn check_unsealed(&mut self, previous: &SegmentRead, read: &SegmentRead, file: &str) {
        let (end, start) = (end_seq(previous), read.file.first_seq);
        let mut problem = if end < start {
            let message = format!("seq {end} to {} are missing at the end of a segment", start - 1);
            Problem::new(Class::Damage, "missing-records", message)
                .at(end, start - end)
                .note(format!("{} says that it starts at seq {start}", read.file.name()))
        } else {
            Problem::new(
                Class::Damage,
                "unsealed",
                "has no trailer, though another segment follows",
            )
            .at(end, 0)
        };
        let roots =
            (own_root(previous), read.outcome.header.as_ref().and_then(|it| it.before.root()));
        if let (Some(own), Some(stated)) = roots
            && own == stated
            && end == start
        {
            problem =
                problem.note("all its records are intact: the next segment's tree confirms them");
        }
        problem.before = previous.last.map(StampReport::from);
        problem.after = read.first.map(StampReport::from);
        self.problems.push(problem.in_file(file.to_owned()));
    }

    /// Fills in the first intact record after problems at the end of a segment.
    fn place_after(&mut self) {
        for problem in self.problems.iter_mut() {
            let Some(seq) = problem.seq.filter(|_| problem.after.is_none()) else { continue };
            let from = self.starts.partition_point(|(first_seq, _)| *first_seq <= seq);
            let next = self.starts[from..].iter().find_map(|(_, first)| *first);
            problem.after = next.map(StampReport::from);
        }
    }

    /// What recovery would say of the end, and whether the trail reaches what was announced.
    fn check_end(&mut self, tail: &Tail) {
        let seen = self.seen;
        self.records.end_seq = match &tail.decision {
            Some(Ok(_)) => tail.end_seq,
            _ => seen.max(self.announced),
        };
        if let Some(Ok(Decision { remove_orphan: true, .. })) = &tail.decision
            && self.dir.writer.is_none()
            && let Some((file, Ok(orphan))) = tail.segments.last()
            && orphan.records > 0
        {
            let message = format!("{} records that were never announced", orphan.records);
            let problem = Problem::new(Class::Tail, "orphan", message).in_file(self.file(file));
            self.problems.push(
                problem.at(file.first_seq, 0).note(
                    "the segment before it was not sealed yet; the next start removes this one",
                ),
            );
        }
        let intact_end = if tail.decision.is_some() { tail.end_seq.min(seen) } else { seen };
        if self.announced > intact_end.max(self.problems.damage_end()) {
            let missing = self.announced - intact_end;
            let message = format!(
                "seq {intact_end} to {} were announced durable and are not there",
                self.announced - 1
            );
            let mut problem = Problem::new(Class::Damage, "missing-records", message);
            if let Some((file, _)) = tail.segments.last() {
                problem = problem.in_file(self.file(file));
            }
            problem.before = self.last.map(StampReport::from);
            self.problems.push(problem.at(intact_end, missing));
            self.records.end_seq = self.announced;
        }
    }

    /// Files that do not belong here. One that is a segment of this trail under a name that it never
    /// had is damage if the segment is missing.
    fn check_foreign(&mut self) {
        for foreign in &self.dir.foreign {
            let file = crate::escape::path(&self.dir.path.join(foreign));
            let known = self.dir.trail_id();
            let inside = header_of(self.dir, foreign)
                .filter(|header| known.is_none_or(|id| id == header.trail_id));
            let problem = match inside {
                Some(it) if !self.dir.segments.iter().any(|file| file.segment == it.segment) => {
                    let was = name::segment(it.segment, it.first_seq);
                    Problem::new(Class::Damage, "renamed-segment", format!("this is {was}"))
                        .note("its header is intact and is of this trail; its records were not checked")
                        .at(it.first_seq, 0)
                }
                Some(it) => Problem::new(
                    Class::ForeignFile,
                    "foreign-file",
                    format!("a copy of segment {} that does not belong here", it.segment),
                ),
                None => Problem::new(
                    Class::ForeignFile,
                    "foreign-file",
                    format!("no trail has a file of the name {}", name_text(foreign)),
                ),
            };
            self.problems.push(problem.in_file(file));
        }
    }

    /// The tree over the whole trail, if nothing is wrong with it.
    fn root(&self, tail: &Tail) -> Option<Root> {
        if self.problems.any_wrong() {
            return None;
        }
        let orphans = matches!(&tail.decision, Some(Ok(it)) if it.remove_orphan);
        // Recovery removes an orphan only where the segment before it was read too.
        let kept = tail.segments.iter().rev().nth(usize::from(orphans));
        let (size, hash) = match kept.map(|(_, read)| read) {
            None => (0, graven_format::merkle::empty_root()),
            Some(Ok(read)) => (read.outcome.prefix.next_seq, own_root(read)?),
            Some(Err(_)) => return None,
        };
        Some(Root { size, hash: hex(&hash) })
    }

    fn finish(mut self, tail: &Tail, root: Option<Root>) -> Report {
        let has = |class| self.problems.has(class);
        let verdict = if has(Class::Damage) {
            Verdict::Damaged
        } else if has(Class::Unchecked) || has(Class::Unsupported) {
            Verdict::Unchecked
        } else if self.losses.count > 0 {
            Verdict::Losses
        } else if has(Class::Tail) {
            Verdict::TornTail
        } else {
            Verdict::Intact
        };
        self.records.intact_prefix = self.problems.first_wrong().min(self.records.end_seq);
        self.records.missing = self.problems.missing();
        self.records.time_first = self.first.map(|stamp| rfc3339(stamp.realtime_ns));
        self.records.time_last = self.last.map(|stamp| rfc3339(stamp.realtime_ns));
        let (problems, problems_left_out) = self.problems.into_listed();
        let identity = self.dir.identity.as_ref().and_then(|it| it.as_ref().ok());
        Report {
            schema_version: SCHEMA_VERSION,
            trail: crate::escape::path(&self.dir.path),
            trail_id: identity.map(|it| it.trail_id.to_string()),
            created: identity.map(|it| rfc3339(it.created_realtime_ns)),
            verdict,
            exit_code: verdict.exit().code(),
            writer: self.dir.writer.map(|writer| WriterReport { pid: writer.pid }),
            recovery: tail.decision.as_ref().map(|decision| match decision {
                Ok(decision) => decision.label.name(),
                Err(_) => "refused",
            }),
            segments: self.segments,
            records: self.records,
            root,
            problems,
            problems_left_out,
            losses: self.losses,
            clock: self.clock,
            temporary_files: self.dir.temporaries.clone(),
        }
    }
}

/// One past the last seq that the segment has, or says that it had.
fn end_seq(read: &SegmentRead) -> u64 {
    let stated = read.outcome.trailer.as_ref().map(graven_format::trailer::Trailer::end_seq);
    stated.unwrap_or(read.outcome.end_seq)
}

/// The root over all records up to the end of this segment, computed from its records and the tree
/// that its header states.
fn own_root(read: &SegmentRead) -> Option<Hash> {
    let mut whole: CompactRange = read.outcome.header.as_ref()?.before.clone();
    let range = read.outcome.prefix.tree.as_ref()?.range();
    if whole.end() != range.begin() {
        return None;
    }
    whole.extend(&range);
    whole.root()
}

/// The header of the segment that a foreign file is, if it is one.
fn header_of(dir: &TrailDir, name: &OsStr) -> Option<SegmentHeader> {
    let mut bytes = Vec::new();
    let file = open_regular(&dir.path.join(name)).ok()?;
    file.take(64 * 1024).read_to_end(&mut bytes).ok()?;
    let len = SegmentHeader::header_len(&bytes).ok()?;
    SegmentHeader::decode(bytes.get(..len)?).ok()
}

fn report_loss(loss: &LossFound) -> Loss {
    let statement = loss.statement.as_ref().ok().map(|it| Statement {
        source: it.source.name(),
        cause: it.cause.name(),
        certainty: it.certainty.name(),
        count: it.count,
        unit: it.cause.unit(),
        range: it.range,
        between: it.between_ns.map(|(from, to)| (rfc3339(from), rfc3339(to))),
    });
    Loss { seq: loss.stamp.seq, time: rfc3339(loss.stamp.realtime_ns), statement }
}
