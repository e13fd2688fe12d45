//! Findings of the reader, and of the comparison between segments, as [`Problem`]s.

use crate::time::rfc3339;
use crate::trail::segment::{Placed, Stamp};
use crate::verify::report::{Class, Problem, StampReport};
use graven_format::FindingKind;
use graven_format::name::Name;

impl Problem {
    /// A problem of which only the sentence is known.
    #[must_use]
    pub fn new(class: Class, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            class,
            kind,
            message: message.into(),
            file: None,
            segment: None,
            offset: None,
            len: None,
            seq: None,
            missing: 0,
            before: None,
            after: None,
            notes: Vec::new(),
            help: None,
        }
    }

    /// A finding in `file`, whose first record has seq `first_seq`.
    #[must_use]
    pub fn of_finding(class: Class, file: String, first_seq: u64, placed: &Placed) -> Self {
        let finding = &placed.finding;
        let mut problem = Self::new(class, word(&finding.kind), finding.to_string());
        problem = problem.in_file(file);
        problem.offset = Some(finding.offset);
        problem.len = Some(finding.len);
        problem.missing = finding.missing;
        problem.before = placed.before.map(StampReport::from);
        problem.after = placed.after.map(StampReport::from);
        problem.seq = Some(match finding.kind {
            // These say that something in the segment is not what it was, not where.
            FindingKind::Root | FindingKind::Trailer { .. } => first_seq,
            _ => finding.seq,
        });
        if finding.missing > 0 {
            let next = finding.seq.saturating_add(finding.missing);
            problem.notes.push(match finding.kind {
                FindingKind::RecordCount { .. } => "the frame's own header counts them".to_owned(),
                FindingKind::Trailer { .. } => "the segment's trailer counts them".to_owned(),
                _ => format!("what is intact after it says so: it goes on with seq {next}"),
            });
        }
        match &finding.kind {
            FindingKind::Root => problem.notes.push(
                "every checksum fits, so this was made on purpose: a record of this segment, or the tree \
                 before it, was replaced"
                    .to_owned(),
            ),
            FindingKind::Chain { .. } => problem.notes.push(
                "both frames are intact, so this was made on purpose: frames were replaced, removed or \
                 reordered"
                    .to_owned(),
            ),
            _ => {}
        }
        problem
    }

    /// The same with the file that it is in.
    #[must_use]
    pub fn in_file(mut self, file: String) -> Self {
        let name = file.rsplit_once('/').map_or(&*file, |(_, name)| name);
        self.segment = match Name::parse(name) {
            Some(Name::Segment { segment, .. }) => Some(segment),
            _ => None,
        };
        self.file = Some(file);
        self
    }

    /// The same with where it is.
    #[must_use]
    pub fn at(mut self, seq: u64, missing: u64) -> Self {
        self.seq = Some(seq);
        self.missing = missing;
        self
    }

    /// The same with one more thing that is known.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The same with what to do.
    #[must_use]
    pub fn help(mut self, help: &'static str) -> Self {
        self.help = Some(help);
        self
    }
}

impl From<Stamp> for StampReport {
    fn from(stamp: Stamp) -> Self {
        Self { seq: stamp.seq, time: rfc3339(stamp.realtime_ns) }
    }
}

/// The stable word for a kind of finding.
fn word(kind: &FindingKind) -> &'static str {
    match kind {
        FindingKind::EmptyFile => "empty-file",
        FindingKind::Header(_) => "header",
        FindingKind::Misplaced { .. } => "misplaced",
        FindingKind::Unreadable(_) => "unreadable",
        FindingKind::Tail(_) => "tail",
        FindingKind::Gap => "gap",
        FindingKind::Chain { .. } => "chain",
        FindingKind::Sequence { .. } => "sequence",
        FindingKind::Decode(_) => "decode",
        FindingKind::Record(_) => "record",
        FindingKind::RecordCount { .. } => "record-count",
        FindingKind::Trailer { .. } => "trailer",
        FindingKind::Root => "root",
        FindingKind::Checkpoint(_) => "checkpoint",
        FindingKind::AfterTrailer => "after-trailer",
        FindingKind::Added => "added-bytes",
        FindingKind::Truncated { .. } => "truncated",
    }
}
