//! What the segments say together: the chain between them, the end of the trail, the verdict.
//!
//! Segments come in the order of the trail and are let go when the next one has been looked at: of
//! each only its place and its first record are kept, so a trail may have any number of them.

use crate::time::rfc3339;
use crate::trail::segment::{LossFound, SegmentRead, Stamp};
use crate::trail::tail::Tail;
use crate::trail::{SegmentFile, TrailDir};
use crate::verify::anchors::{self, Anchors};
use crate::verify::clock::Clock;
use crate::verify::gaps::Gaps;
use crate::verify::keys::{self, Chain, Signatures};
use crate::verify::problems::Problems;
use crate::verify::provable::Ranges;
use crate::verify::report::{
    Class, Loss, Losses, Problem, Records, Report, Root, SCHEMA_VERSION, Segments, StampReport,
    Statement, Verdict, WriterReport, hex,
};
use crate::verify::scope::{Kind, Plan, Scope};
use crate::verify::{Options, Read};
use graven_format::lines::origin;
use graven_format::merkle::{CompactRange, Hash};
use graven_format::name;
use graven_format::recovery::Decision;
use std::io;

mod announced;
mod chain;
mod foreign;
mod head;

/// Most loss statements of a trail that are listed.
const LOSSES_MAX: usize = 10_000;

/// Puts a report together.
pub(crate) struct Judge<'a> {
    dir: &'a TrailDir,
    options: &'a Options<'a>,
    scope: Scope,
    /// Records known to have been announced, from anything intact or from the caller, and who says so.
    announced: u64,
    announced_by: String,
    problems: Problems,
    segments: Segments,
    records: Records,
    losses: Losses,
    gaps: Gaps,
    clock: Clock,
    first: Option<Stamp>,
    /// The last intact record so far.
    last: Option<Stamp>,
    /// Of each segment so far, the seq of its name and its first intact record.
    starts: Vec<(u64, Option<Stamp>)>,
    /// The largest end of a segment so far.
    seen: u64,
    chain: Chain,
    anchored: anchors::Seen,
    provable: Ranges,
    head: head::Head,
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

impl<'a> Before<'a> {
    fn of((file, read): &'a Read) -> Self {
        let read = read.as_ref().ok();
        // Of a neighbour whose trailer is gone nothing says where it ends.
        let known = read.filter(|read| read.whole || read.outcome.trailer.is_some());
        Self { file, read, end_seq: known.map(end_seq) }
    }
}

impl<'a> Judge<'a> {
    pub(crate) fn new(dir: &'a TrailDir, options: &'a Options<'a>, plan: &Plan) -> Self {
        let (announced, announced_by) = announced::known(dir, options);
        let mut judge = Self {
            dir,
            options,
            scope: Scope::new(options, plan),
            announced,
            announced_by,
            problems: Problems::default(),
            segments: Segments::default(),
            records: Records::default(),
            losses: Losses::default(),
            gaps: Gaps::default(),
            clock: Clock::default(),
            first: None,
            last: None,
            starts: Vec::with_capacity(dir.segments.len()),
            seen: 0,
            chain: Chain::new(options.key),
            anchored: anchors::Seen::default(),
            provable: Ranges::default(),
            head: head::Head::default(),
        };
        judge.check_identity();
        let headless = dir.segments.first().is_some_and(|first| first.segment > 0);
        if let Some(key) = options.key.filter(|_| options.part || plan.older.start > 0 || headless)
        {
            judge.chain.begin_later(keys::proven(dir, key));
        }
        plan.before.iter().for_each(|before| judge.neighbour(before, true));
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
    /// `after` is the segment that follows, if more than its header need not be looked at.
    pub(crate) fn report(
        mut self,
        before: Option<&Read>,
        tail: &Tail,
        after: Option<&Read>,
    ) -> Report {
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
        if let Some(after) = after {
            self.join(before, after);
        }
        self.place_after();
        self.check_end(tail);
        if self.scope.kind != Kind::Range {
            self.check_foreign();
        }
        self.settle_head();
        let end_seq = self.records.end_seq;
        self.scope.end(self.options, end_seq, &mut self.problems);
        let (signatures, anchors) = self.check_signatures();
        let root = self.root(tail);
        self.finish(tail, root, signatures, anchors)
    }

    fn announce(&mut self, (file, read): &Read) {
        let announced = read.as_ref().map_or(0, |read| read.outcome.announced);
        if announced > self.announced {
            self.announced = announced;
            self.announced_by = format!("what is intact in {}", file.name());
        }
    }

    fn look_at(&mut self, before: Option<&Read>, (file, read): &Read, place: Place) {
        let before = before.map(Before::of);
        self.check_place(before.as_ref(), file);
        match read {
            Ok(read) => {
                self.check_segment(read, place);
                let boot_id = read.outcome.header.as_ref().map(|header| header.boot_id);
                self.clock.segment(boot_id, &read.clocks, place.end_seq);
                self.check_chain(before.as_ref(), read, place.orphan);
                let file = self.file(file);
                self.chain.segment(read, &file, place.end_seq, place.orphan, &mut self.problems);
                self.anchored.take(read);
                self.head.take(read, place.end_seq);
                self.seen = self.seen.max(end_seq(read));
                self.scope.read(read, end_seq(read).min(place.end_seq.max(read.file.first_seq)));
                if !place.orphan {
                    let range = self.options.range;
                    let asked = |stamp: &Stamp| {
                        range.is_none_or(|asked| asked.contains(stamp.seq, stamp.realtime_ns))
                    };
                    self.gaps.segment(read, end_seq(read), &asked);
                    self.provable.segment(read, file, !self.chain.is_broken());
                }
            }
            Err(why) => {
                self.unreadable(file, why);
                self.chain.unreadable();
                self.gaps.unreadable();
                self.provable.unreadable();
            }
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
            None if self.scope.kind == Kind::Part => return,
            None => Problem::new(Class::Damage, "identity", "the trail has no identity")
                .note("segments are there, so the file was removed"),
            Some(Err(why)) => {
                let class = if why.is_unsupported() { Class::Unsupported } else { Class::Damage };
                Problem::new(class, "identity", why.to_string())
            }
        };
        self.problems.push(problem.in_file(file).at(0, 0));
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
                // Only the end of a trail can have been cut off, and that of a part may be any place.
                graven_format::Class::Tail if self.scope.kind == Kind::Part => Class::Unchecked,
                graven_format::Class::Tail => Class::Tail,
                graven_format::Class::Unsupported => Class::Unsupported,
                graven_format::Class::Damage => Class::Damage,
            };
            let file = self.file(&read.file);
            let mut problem = Problem::of_finding(class, file, read.file.first_seq, placed);
            if problem.before.is_none() {
                problem.before = self.last.map(StampReport::from);
            }
            if class == Class::Unchecked {
                problem = problem.note(
                    "a write that was cut off, if the trail ends here, or damage: this part alone cannot tell",
                );
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
        self.records.best_effort += read.best_effort;
        self.records.unannounced += unannounced;
        self.first = self.first.or(read.first);
        self.last = read.last.or(self.last);
        let asked = |stamp: &Stamp| {
            self.options.range.is_none_or(|asked| asked.contains(stamp.seq, stamp.realtime_ns))
        };
        for loss in read.losses.iter().filter(|it| it.stamp.seq < end_seq && asked(&it.stamp)) {
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
            _ if !self.scope.end_checked => seen,
            _ => seen.max(self.announced),
        };
        if let Some(Ok(Decision { remove_orphan: true, .. })) = &tail.decision
            && self.dir.writer.is_none()
            && let Some((file, Ok(orphan))) = tail.segments.last()
            && orphan.records > 0
        {
            let message = format!("{} records that were never announced", orphan.records);
            let part = self.scope.kind == Kind::Part;
            let class = if part { Class::Unchecked } else { Class::Tail };
            let problem = Problem::new(class, "orphan", message).in_file(self.file(file));
            self.problems.push(
                problem.at(file.first_seq, 0).note(
                    "the segment before it was not sealed yet; the next start removes this one",
                ),
            );
        }
        let intact_end = if tail.decision.is_some() { tail.end_seq.min(seen) } else { seen };
        if self.scope.end_checked && self.announced > intact_end.max(self.problems.damage_end()) {
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
            problem = problem.note(format!("{} says so", self.announced_by));
            self.problems.push(problem.at(intact_end, missing));
            self.records.end_seq = self.announced;
        }
    }

    /// The tree over the whole trail, if nothing is wrong with it.
    fn root(&self, tail: &Tail) -> Option<Root> {
        if self.problems.any_wrong() || self.scope.kind != Kind::Trail {
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

    /// What keys and anchors say of the whole.
    fn check_signatures(&mut self) -> (Signatures, Anchors) {
        if let Some(key) = self.chain.missing() {
            let (class, what) = match self.scope.kind {
                Kind::Trail => (Class::Damage, "the trail is"),
                // It may be signed elsewhere.
                Kind::Range | Kind::Part => {
                    (Class::Unchecked, "the segments that were checked are")
                }
            };
            let message = format!("{what} not signed, and the key {key} was given");
            self.problems.push(Problem::new(class, "key", message).at(0, 0));
        }
        let origin = self.dir.trail_id().map(origin);
        let end_seq = self.seen.min(self.records.end_seq);
        let (origin, last) = (origin.as_deref(), self.chain.last());
        let anchors = self.anchored.judge(
            self.options.anchors,
            self.options.witnesses,
            &self.scope,
            origin,
            end_seq,
            last,
            &mut self.problems,
        );
        let start = self.scope.seqs_checked().map_or(0, |seqs| seqs.start);
        (std::mem::take(&mut self.chain).report(start..end_seq), anchors)
    }

    fn finish(
        mut self,
        tail: &Tail,
        root: Option<Root>,
        signatures: Signatures,
        anchors: Anchors,
    ) -> Report {
        let has = |class| self.problems.has(class);
        let source_gaps = self.gaps.end();
        let verdict = if has(Class::Damage) {
            Verdict::Damaged
        } else if has(Class::Unchecked) || has(Class::Unsupported) {
            Verdict::Unchecked
        } else if self.losses.count > 0 || source_gaps.count > 0 {
            Verdict::Losses
        } else if has(Class::Tail) {
            Verdict::TornTail
        } else {
            Verdict::Intact
        };
        let from_start = self.scope.removed.is_some()
            || self.scope.seqs_checked().is_none_or(|seqs| seqs.start == 0);
        let intact_prefix = self.problems.first_wrong().min(self.records.end_seq);
        self.records.intact_prefix = if from_start { intact_prefix } else { 0 };
        self.records.missing = self.problems.missing();
        self.records.time_first = self.first.map(|stamp| rfc3339(stamp.realtime_ns));
        self.records.time_last = self.last.map(|stamp| rfc3339(stamp.realtime_ns));
        let (problems, problems_left_out) = self.problems.into_listed();
        let (provable, provable_left_out) = self.provable.end();
        let identity = self.dir.identity.as_ref().and_then(|it| it.as_ref().ok());
        Report {
            schema_version: SCHEMA_VERSION,
            trail: crate::escape::path(&self.dir.path),
            trail_id: self.dir.trail_id().map(|id| id.to_string()),
            created: identity.map(|it| rfc3339(it.created_realtime_ns)),
            verdict,
            exit_code: verdict.exit().code(),
            writer: self.dir.writer.map(|writer| WriterReport { pid: writer.pid }),
            recovery: tail.decision.as_ref().filter(|_| self.scope.end_checked).map(
                |it| match it {
                    Ok(decision) => decision.label.name(),
                    Err(_) => "refused",
                },
            ),
            scope: self.scope,
            segments: self.segments,
            records: self.records,
            root,
            signatures,
            anchors,
            problems,
            problems_left_out,
            provable,
            provable_left_out,
            losses: self.losses,
            source_gaps,
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
pub(crate) fn own_root(read: &SegmentRead) -> Option<Hash> {
    let mut whole: CompactRange = read.outcome.header.as_ref()?.before.clone();
    let range = read.outcome.prefix.tree.as_ref()?.range();
    if whole.end() != range.begin() {
        return None;
    }
    whole.extend(&range);
    whole.root()
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
