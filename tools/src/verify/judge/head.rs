//! A trail whose oldest segments are not there: removed by retention, as a record in what is left says, or missing.
//!
//! The record counts if a checkpoint covers it, in a trail that is signed; if it says of no fewer segments that they were
//! removed than are missing; and if what is left goes on from the tree that it states. Then nothing is wrong. What was in
//! them is known by that tree alone.

use super::Judge;
use crate::time::rfc3339;
use crate::trail::SegmentFile;
use crate::trail::segment::{SegmentRead, Stamp};
use crate::verify::report::{Class, Problem};
use crate::verify::scope::Removed;
use graven_format::merkle::Hash;
use graven_writer::retention::Statement;

/// The beginning of what is there, if it is not that of the trail.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// The first segment that is there.
    first: Option<SegmentFile>,
    /// Of each segment that is there, if it is not: its number, its first seq, and the root over all before it.
    roots: Vec<(u64, u64, Hash)>,
    /// The last record that says what was removed.
    statement: Option<(Stamp, Statement)>,
}

impl Head {
    /// The first segment is not number 0.
    pub(super) fn is_missing(&mut self, file: &SegmentFile) {
        self.first = Some(file.clone());
    }

    /// Takes what a segment that belongs to the trail up to `end_seq` says.
    pub(super) fn take(&mut self, read: &SegmentRead, end_seq: u64) {
        let SegmentFile { segment, first_seq } = read.file;
        let header = read.outcome.header.as_ref().filter(|_| self.first.is_some());
        if let Some(root) = header.and_then(|header| header.before.root()) {
            self.roots.push((segment, first_seq, root));
        }
        let within = |(stamp, _): &(Stamp, Statement)| stamp.seq < end_seq;
        self.statement = read.retention.filter(within).or(self.statement);
    }
}

impl Judge<'_> {
    /// Says why the beginning is not there, once all was read.
    pub(super) fn settle_head(&mut self) {
        let Some(first) = self.head.first.take() else { return };
        let said = self.head.statement;
        // Removing may have been cut off: then what is left of what was to go follows on.
        let says = said.filter(|(_, says)| {
            let next = says.last_segment.saturating_add(1);
            next >= first.segment && self.head.roots.contains(&(next, says.end_seq, says.root))
        });
        let Some((stamp, _)) = says else {
            let missing = self.missing_head(&first);
            return self.problems.push(match said {
                Some((stamp, says)) => missing.note(format!(
                    "seq {} says that retention removed the segments up to {}, which are those before seq {}: that does \
                     not explain it",
                    stamp.seq, says.last_segment, says.end_seq
                )),
                None => missing,
            });
        };
        if !self.chain.covers(stamp.seq) {
            let text = format!("seq {} says that retention removed them", stamp.seq);
            let mut problem = self.missing_head(&first);
            if self.chain.is_broken() {
                problem.class = Class::Unchecked;
                problem.missing = 0;
                problem = problem.note(format!(
                    "{text}; whether the trail's key has signed that could not be checked"
                ));
            } else {
                problem = problem.note(format!("{text}, but no checkpoint covers that"));
            }
            return self.problems.push(problem);
        }
        self.scope.removed = Some(Removed {
            first_segment: 0,
            last_segment: first.segment.saturating_sub(1),
            end_seq: first.first_seq,
            stated_by: stamp.seq,
            time: rfc3339(stamp.realtime_ns),
        });
    }

    fn missing_head(&self, first: &SegmentFile) -> Problem {
        let message = match first.segment {
            1 => "segment 0 is missing".to_owned(),
            next => format!("segments 0 to {} are missing", next - 1),
        };
        let missing = SegmentFile { segment: 0, first_seq: 0 };
        Problem::new(Class::Damage, "missing-segment", message)
            .in_file(self.file(&missing))
            .at(0, first.first_seq)
            .note(format!("{} says that seq {} follows", first.name(), first.first_seq))
    }
}
