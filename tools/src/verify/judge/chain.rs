//! What the segments say of each other: numbers, seqs, trailers and headers side by side.

use super::{Before, Judge, end_seq, own_root};
use crate::trail::SegmentFile;
use crate::trail::segment::SegmentRead;
use crate::verify::Read;
use crate::verify::report::{Class, Problem, StampReport};
use crate::verify::scope::Kind;
use graven_format::FindingKind;
use graven_format::note::Note;
use graven_format::signer::Signer;

impl Judge<'_> {
    /// Whether segments are missing, or doubled, before this one.
    pub(super) fn check_place(&mut self, before: Option<&Before<'_>>, file: &SegmentFile) {
        let due = before.map_or(Some(0), |before| before.file.segment.checked_add(1));
        let part = self.scope.kind == Kind::Part;
        if before.is_none() && (part || file.segment > 0) {
            // Of a range it is said that what is before was not checked.
            if self.scope.kind == Kind::Trail {
                self.head.is_missing(file);
            }
            return;
        }
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
        if part {
            self.chain.gap();
            self.check_gap(before, file);
            return;
        }
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

    /// Segments that are not in this part lie between these two.
    fn check_gap(&mut self, before: Option<&Before<'_>>, file: &SegmentFile) {
        let end = before.and_then(|before| before.end_seq).unwrap_or(0);
        if file.first_seq < end {
            let start = file.first_seq;
            let message = format!("starts at seq {start}, but an earlier segment ends at {end}");
            let problem = Problem::new(Class::Damage, "overlap", message).in_file(self.file(file));
            self.problems.push(problem.at(start, 0));
        }
    }

    /// A segment beside those that are checked: it must have its ends, or its header if it comes after them.
    pub(super) fn neighbour(&mut self, (file, read): &Read, before: bool) {
        let read = match read {
            Ok(read) => read,
            Err(why) => return self.unreadable(file, why),
        };
        self.scope.joined.push(self.file(file));
        for placed in &read.findings {
            let trailer = matches!(placed.finding.kind, FindingKind::Tail(_));
            if trailer && !before {
                continue;
            }
            let class = match placed.finding.class(0, false) {
                graven_format::Class::Unsupported => Class::Unsupported,
                _ => Class::Damage,
            };
            let mut problem = Problem::of_finding(class, self.file(file), file.first_seq, placed);
            if trailer && class == Class::Damage {
                problem.message =
                    "has no intact trailer, though another segment follows".to_owned();
            }
            self.problems.push(problem.note("its records were not asked for and were not read"));
        }
    }

    /// Looks at the segment after those that are checked.
    pub(super) fn join(&mut self, before: Option<&Read>, after: &Read) {
        let (file, read) = after;
        let before = before.map(Before::of);
        self.check_place(before.as_ref(), file);
        self.neighbour(after, false);
        if let Ok(read) = read {
            self.check_chain(before.as_ref(), read, false);
            self.provable.segment(read, self.file(file), true);
        }
    }

    /// Whether the key of a segment is the one that has signed the trailer of its neighbour.
    fn check_joint_key(&mut self, previous: &SegmentRead, read: &SegmentRead) {
        let trailer = previous.outcome.trailer.as_ref().filter(|it| !it.note.is_empty());
        let (Some(trailer), Some(header)) = (trailer, &read.outcome.header) else { return };
        let signs = Signer::of(header).is_ok_and(|signer| {
            Note::parse(&trailer.note).is_ok_and(|it| signer.check(&it).is_ok())
        });
        if !signs {
            let message =
                "the key in its header has not signed the trailer of the segment before it";
            let problem = Problem::new(Class::Damage, "key", message);
            self.problems.push(problem.in_file(self.file(&read.file)).at(read.file.first_seq, 0));
        }
    }

    /// What a segment and the one before it say of each other.
    pub(super) fn check_chain(
        &mut self,
        before: Option<&Before<'_>>,
        read: &SegmentRead,
        orphan: bool,
    ) {
        let file = self.file(&read.file);
        let damage = |kind, message: String| Problem::new(Class::Damage, kind, message);
        let Some(before) = before else {
            if read.file.segment > 0 {
                return;
            }
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
        if !(previous.whole && read.whole) {
            self.check_joint_key(previous, read);
        }
        let Some(trailer) = &previous.outcome.trailer else {
            if !orphan && previous.whole {
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
}
