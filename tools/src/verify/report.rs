//! What `verify` finds, as data: the text for people and the JSON for programs say the same.

use crate::exit::Exit;
use crate::verify::anchors::Anchors;
use crate::verify::clock::Clock;
use crate::verify::gaps::SourceGaps;
use crate::verify::keys::Signatures;
use crate::verify::provable::Provable;
use crate::verify::scope::Scope;
use serde::Serialize;

/// Version of the JSON that `verify --json` prints. Fields may be added within a version; none
/// changes its meaning.
pub const SCHEMA_VERSION: u32 = 1;

/// What a verification found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The directory.
    pub trail: String,
    /// The trail's id in hexadecimal, if its identity is intact.
    pub trail_id: Option<String>,
    /// When the trail was created.
    pub created: Option<String>,
    /// The one thing to know.
    pub verdict: Verdict,
    /// What the process ends with.
    pub exit_code: u8,
    /// The writer that was running meanwhile.
    pub writer: Option<WriterReport>,
    /// The state in which a writer that starts now would find the end of the trail: a label of the
    /// recovery table, `refused` if it would not touch it.
    pub recovery: Option<&'static str>,
    /// What of it was checked, and what was not.
    pub scope: Scope,
    /// Its files.
    pub segments: Segments,
    /// Its records.
    pub records: Records,
    /// The RFC 6962 tree over all records, if all of the trail was checked and is intact.
    pub root: Option<Root>,
    /// Its keys and checkpoints.
    pub signatures: Signatures,
    /// What checkpoints that were kept elsewhere say of it.
    pub anchors: Anchors,
    /// What is wrong, in the order of seq.
    pub problems: Vec<Problem>,
    /// Problems that were found and are not listed.
    pub problems_left_out: u64,
    /// The records that are still those that a root was stated over, whatever is damaged.
    pub provable: Vec<Provable>,
    /// Ranges of those that are not listed.
    pub provable_left_out: u64,
    /// What the trail itself says is missing.
    pub losses: Losses,
    /// What is missing by the source's own numbers, and is not stated.
    pub source_gaps: SourceGaps,
    /// Boots, and steps of the real-time clock. They do not change the verdict.
    pub clock: Clock,
    /// Temporary files: a segment being prepared, or what a crash left. They hold nothing that was
    /// announced.
    pub temporary_files: Vec<String>,
}

/// The one thing to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Complete and intact, as far as [`Scope`] says that it was checked.
    Intact,
    /// Damage or tampering.
    Damaged,
    /// Part of it could not be checked, and the rest is intact.
    Unchecked,
    /// Intact, but loss statements or source gaps are in range.
    Losses,
    /// Intact, but ends in a torn tail that was never announced durable.
    TornTail,
}

impl Verdict {
    /// What the process ends with.
    #[must_use]
    pub const fn exit(self) -> Exit {
        match self {
            Self::Intact => Exit::Success,
            Self::Damaged => Exit::Damage,
            Self::Unchecked => Exit::CannotCheck,
            Self::Losses => Exit::Losses,
            Self::TornTail => Exit::TornTail,
        }
    }
}

impl Verdict {
    /// It in a few words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Damaged => "DAMAGED",
            Self::Unchecked => "NOT CHECKED in full",
            Self::Losses => "intact, with losses",
            Self::TornTail => "intact, with a torn tail",
        }
    }
}

/// A writer that is running.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WriterReport {
    /// Its pid, if it is known.
    pub pid: Option<u32>,
}

/// The files of a trail.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Segments {
    /// Segments that are there.
    pub count: u64,
    /// Those with an intact trailer.
    pub sealed: u64,
    /// Bytes in them up to the last one that is not zero.
    pub bytes: u64,
}

/// The records of a trail.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Records {
    /// Intact records.
    pub intact: u64,
    /// Intact records without a gap from seq 0 on; 0 if the first was not checked.
    pub intact_prefix: u64,
    /// One past the last seq that the trail, or what was checked of it, is known to have, or to have had.
    pub end_seq: u64,
    /// Records that are known to be missing or unreadable.
    pub missing: u64,
    /// Of the intact ones, those of sources that promise no completeness: what came through auditd or by
    /// multicast.
    pub best_effort: u64,
    /// Intact records that were never announced and that recovery removes.
    pub unannounced: u64,
    /// Time of the first intact record.
    pub time_first: Option<String>,
    /// Time of the last intact record.
    pub time_last: Option<String>,
}

/// The tree over all records.
#[derive(Clone, Debug, Serialize)]
pub struct Root {
    /// Records that it covers.
    pub size: u64,
    /// SHA-256 in hexadecimal.
    pub hash: String,
}

/// What a problem means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A file that does not belong to a trail. Nothing of the trail is touched by it.
    ForeignFile,
    /// A write that was cut off before anything in it was announced.
    Tail,
    /// It could not be read.
    Unchecked,
    /// A later version wrote it.
    Unsupported,
    /// Something that had been announced is not what it was.
    Damage,
}

/// Something that is not as the writer wrote it, or could not be checked.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// What it means.
    pub class: Class,
    /// A stable word for it.
    pub kind: &'static str,
    /// It in one sentence.
    pub message: String,
    /// The file that it is in, or that is missing.
    pub file: Option<String>,
    /// The number of the segment that this file is, or was.
    pub segment: Option<u64>,
    /// First byte of it in the file.
    pub offset: Option<u64>,
    /// Bytes that it covers.
    pub len: Option<u64>,
    /// The seq at which it is.
    pub seq: Option<u64>,
    /// Records that are missing there: seq up to seq + missing.
    pub missing: u64,
    /// The last intact record before it.
    pub before: Option<StampReport>,
    /// The first intact record after it.
    pub after: Option<StampReport>,
    /// Who says so, and what is known to be good all the same.
    pub notes: Vec<String>,
    /// What to do.
    pub help: Option<&'static str>,
}

/// Where and when a record is.
#[derive(Clone, Debug, Serialize)]
pub struct StampReport {
    /// Its seq.
    pub seq: u64,
    /// Its time.
    pub time: String,
}

/// What the trail itself says is missing.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Losses {
    /// How many statements there are.
    pub count: u64,
    /// The statements.
    pub statements: Vec<Loss>,
    /// Statements that are not listed.
    pub left_out: u64,
}

/// One loss statement.
#[derive(Clone, Debug, Serialize)]
pub struct Loss {
    /// Seq of the record that states it.
    pub seq: u64,
    /// When it was stated.
    pub time: String,
    /// What it says; absent if it is not written as a loss statement should be.
    pub statement: Option<Statement>,
}

/// What a loss statement says.
#[derive(Clone, Debug, Serialize)]
pub struct Statement {
    /// The source it is missing from.
    pub source: &'static str,
    /// Why.
    pub cause: &'static str,
    /// `exactly` or `at-least`.
    pub certainty: &'static str,
    /// How much.
    pub count: u64,
    /// Of what: `records` or `events`.
    pub unit: &'static str,
    /// The source's own numbers, first and last.
    pub range: Option<(u64, u64)>,
    /// When: from and to.
    pub between: Option<(String, String)>,
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
