//! Anchors: checkpoints that were kept elsewhere than in the trail, and what they say of it.
//!
//! An anchor that the trail's own records lead to proves them up to its size. One that they do not lead to, though the
//! trail's key has signed it, proves that the records were replaced; the first that differs and the
//! last that does not say where. What witnesses have signed on it is for [`witnesses`] to
//! say; one that a trusted witness has cosigned needs no signature of the trail's own key.

use crate::escape::Escaped;
use crate::trail::segment::SegmentRead;
use crate::verify::problems::Problems;
use crate::verify::report::{Class, Problem, hex};
use crate::verify::scope::Scope;
use crate::verify::witnesses::{self, Cosigner, Cosigners, Trusted, WitnessReport};
use graven_format::lines::{Head, TextError};
use graven_format::merkle::Hash;
use graven_format::note::{Note, Signed};
use graven_format::signer::Signer;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Most anchors at once.
pub const ANCHORS_MAX: usize = 100_000;

/// Longest file of anchors.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A checkpoint that was kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The file that it was read from, for messages.
    pub file: String,
    /// The line of the file that it begins with.
    pub line: usize,
    /// What it says.
    pub head: Head,
    /// The note, whole.
    pub text: Vec<u8>,
}

/// Reads the notes that stand one behind the other in `bytes`; empty lines between them are passed
/// over.
///
/// # Errors
/// [`TextError`] names the line of the file.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Vec<Anchor>, TextError> {
    let (mut anchors, mut left, mut line) = (Vec::new(), bytes, 1);
    loop {
        while let Some(rest) = left.strip_prefix(b"\n") {
            (left, line) = (rest, line + 1);
        }
        if left.is_empty() {
            return Ok(anchors);
        }
        if anchors.len() == ANCHORS_MAX {
            return Err(TextError::TooLong { what: "checkpoints", max: ANCHORS_MAX });
        }
        let (note, rest, next) = Note::parse_first(left).map_err(|why| match why {
            TextError::Line { line: of_note, expected } => {
                TextError::Line { line: line + of_note - 1, expected }
            }
            why => why,
        })?;
        let text = left[..left.len() - rest.len()].to_vec();
        anchors.push(Anchor { file: file.to_owned(), line, head: note.checkpoint.head, text });
        (left, line) = (rest, line + next - 1);
    }
}

/// The sizes of these anchors, in rising order, each once.
#[must_use]
pub fn sizes(anchors: &[Anchor]) -> Vec<u64> {
    let mut sizes: Vec<u64> = anchors.iter().map(|anchor| anchor.head.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// What an anchor says of the trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The trail's records up to its size are those that it covers.
    Consistent,
    /// The same, but the trail does not have it: a checkpoint is a record or the end of a trailer before
    /// anybody else gets it, and neither goes away.
    Gone,
    /// The trail's key has signed it, and the trail's records lead to another root.
    Forked,
    /// It covers more records than the trail has.
    BeyondEnd,
    /// The key of its place has not signed it: it proves nothing, or the trail's key was replaced.
    NotSigned,
    /// A cosignature on it claims to be a trusted witness's and is not: it proves nothing.
    CosignatureForged,
    /// It is another trail's.
    OtherTrail,
    /// The root at its size cannot be computed: the trail is damaged before it.
    NotComputable,
    /// Its size is not among the records that were checked.
    NotChecked,
}

/// One anchor in the report.
#[derive(Clone, Debug, Serialize)]
pub struct AnchorReport {
    /// The file that it was read from.
    pub file: String,
    /// The line that it begins with.
    pub line: usize,
    /// Records that it covers.
    pub size: u64,
    /// The root that it states, in hexadecimal.
    pub root: String,
    /// What it says of the trail.
    pub status: Status,
    /// The trail's root at this size, where that is known.
    pub found: Option<String>,
    /// The trusted witnesses that have cosigned it.
    pub cosigned: Vec<Cosigner>,
    /// The names of those that have signed it, or claim to, and whose keys were not given.
    pub unknown: Vec<String>,
    /// Where in the note a forged cosignature is, and whose it claims to be.
    #[serde(skip)]
    forged: Option<(String, usize)>,
}

/// All that anchors say.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Anchors {
    /// Each of them, the smallest in front.
    pub checked: Vec<AnchorReport>,
    /// Records that are proven to be those of an anchor.
    pub proven: u64,
    /// The seqs among which the first record is that is not what it was: from `start` up to, without, `end`.
    pub fork: Option<Range<u64>>,
    /// What each trusted witness has seen of the trail.
    pub witnesses: Vec<WitnessReport>,
    /// Records that as many of them as are needed have seen.
    pub witnessed: Option<u64>,
}

/// Roots and signers of the trail at the anchors' sizes.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    places: BTreeMap<u64, (Option<Hash>, Option<Signer>)>,
    /// Sizes for which the trail has its own checkpoint.
    made: BTreeSet<u64>,
}

impl Seen {
    /// Takes what a segment shows.
    pub(crate) fn take(&mut self, read: &SegmentRead) {
        // Where a segment ends and the next begins, the one that knows more counts.
        for (size, root) in &read.roots {
            self.places.entry(*size).or_default().0.get_or_insert(*root);
        }
        self.made.extend(&read.notes.made);
        for (size, signer) in &read.notes.signers {
            self.places.entry(*size).or_default().1.get_or_insert_with(|| signer.clone());
        }
    }

    /// Compares the anchors with a trail of this origin that ends at `end_seq`; `last` signs at its end.
    #[allow(clippy::too_many_arguments, reason = "all that the judge knows of the whole trail")]
    pub(crate) fn judge(
        &self,
        anchors: &[Anchor],
        trusted: Trusted<'_>,
        scope: &Scope,
        origin: Option<&str>,
        end_seq: u64,
        last: Option<&Signer>,
        problems: &mut Problems,
    ) -> Anchors {
        let mut sorted: Vec<&Anchor> = anchors.iter().collect();
        sorted.sort_by_key(|anchor| anchor.head.size);
        let (mut all, mut before) = (Anchors::default(), 0);
        for anchor in sorted {
            let size = anchor.head.size;
            let place = self.places.get(&size).filter(|_| size <= end_seq);
            let found = place.and_then(|(root, _)| *root);
            // Where nothing could be read, nobody knows which key signs.
            let signer = match place {
                None if size > end_seq => last,
                place => place.and_then(|(_, signer)| signer.as_ref()),
            };
            let cosigners = Cosigners::of_anchor(anchor, trusted.keys);
            let status = match status(anchor, &cosigners, origin, end_seq, found, signer) {
                status @ (Status::OtherTrail | Status::CosignatureForged) => status,
                _ if !scope.covers(size) => Status::NotChecked,
                Status::Consistent if !self.made.contains(&size) && scope.has_note_place(size) => {
                    Status::Gone
                }
                status => status,
            };
            match status {
                Status::Consistent | Status::Gone if size > all.proven => {
                    (before, all.proven) = (all.proven, size);
                }
                // Of two anchors of one size, one may fit: that says nothing of where the other forks.
                Status::Forked if all.fork.is_none() => {
                    let start = if all.proven < size { all.proven } else { before };
                    all.fork = Some(start..size);
                }
                _ => {}
            }
            all.checked.push(AnchorReport {
                file: anchor.file.clone(),
                line: anchor.line,
                size,
                root: hex(&anchor.head.root),
                status,
                found: found.map(|root| hex(&root)),
                cosigned: cosigners.known,
                unknown: cosigners.unknown,
                forged: cosigners.forged,
            });
        }
        all.witnesses = witnesses::reports(trusted, &all);
        all.witnessed = witnesses::seen_by(trusted.needed, &all.witnesses);
        witnesses::too_few(trusted, &all.witnesses).into_iter().for_each(|it| problems.push(it));
        all.checked.iter().for_each(|report| {
            problems_of(report, end_seq, all.fork.as_ref())
                .into_iter()
                .for_each(|it| problems.push(it));
        });
        all
    }
}

fn status(
    anchor: &Anchor,
    cosigners: &Cosigners,
    origin: Option<&str>,
    end_seq: u64,
    found: Option<Hash>,
    signer: Option<&Signer>,
) -> Status {
    let Head { origin: of, size, root } = &anchor.head;
    if origin.is_some_and(|origin| origin != of) {
        return Status::OtherTrail;
    }
    if cosigners.forged.is_some() {
        return Status::CosignatureForged;
    }
    let signed = |key| Note::parse(&anchor.text).map_or(Signed::No, |note| note.verify(key));
    let signed = signer.and_then(|signer| signer.key.as_ref()).map_or(Signed::No, signed);
    if *size > end_seq {
        // Which key signs there is not known, unless it is still the last one.
        return if signed == Signed::Forged { Status::NotSigned } else { Status::BeyondEnd };
    }
    if signer.is_none() {
        return Status::NotComputable;
    }
    // A witness takes only what was signed in the trail's name and continues what it has seen.
    let witnessed = signed == Signed::No && !cosigners.known.is_empty();
    match found {
        _ if signed != Signed::Yes && !witnessed => Status::NotSigned,
        None => Status::NotComputable,
        Some(found) if found == *root => Status::Consistent,
        Some(_) => Status::Forked,
    }
}

fn problems_of(report: &AnchorReport, end_seq: u64, fork: Option<&Range<u64>>) -> Option<Problem> {
    let AnchorReport { file, line, size, status, .. } = report;
    let (class, kind, message, seq) = match status {
        Status::Consistent | Status::NotChecked => return None,
        Status::Forked => {
            let message = format!("the records before seq {size} are not those that were signed");
            (Class::Damage, "fork", message, fork.map_or(0, |fork| fork.start))
        }
        Status::BeyondEnd => {
            let message = format!(
                "the trail was cut or rolled back: {size} records were signed, it has {end_seq}"
            );
            (Class::Damage, "rolled-back", message, end_seq)
        }
        Status::Gone => {
            let message = "the records are those that were signed; the checkpoint itself, in the record or \
                           the trailer behind them, is gone";
            (Class::Damage, "checkpoint-gone", message.to_owned(), *size)
        }
        Status::NotSigned => {
            let message =
                "the key of its place in the trail has not signed this checkpoint".to_owned();
            (Class::Damage, "anchor-signature", message, *size)
        }
        Status::CosignatureForged => {
            let name = report.forged.as_ref().map_or("", |(name, _)| name);
            let name = Escaped(name.as_bytes());
            let message =
                format!("a cosignature is forged: the key of the witness {name} did not make it");
            (Class::Damage, "cosignature", message, *size)
        }
        Status::OtherTrail => {
            let message = "this checkpoint is another trail's, or the whole trail was replaced";
            (Class::Damage, "other-trail", message.to_owned(), 0)
        }
        Status::NotComputable => {
            let message =
                format!("the root over {size} records cannot be computed and was not compared");
            (Class::Unchecked, "anchor", message, *size)
        }
    };
    let mut problem = Problem::new(class, kind, message)
        .at(seq, 0)
        .note(format!("the checkpoint of {size} records in {file}, line {line}"));
    if let Some((_, of_note)) = report.forged.as_ref().filter(|_| kind == "cosignature") {
        problem = problem.note(format!("the cosignature is in line {}", line + of_note - 1));
    }
    Some(match fork.filter(|_| *status == Status::Forked) {
        Some(Range { start, end }) => problem.note(format!(
            "the first record that differs is one of seq {start} to {}",
            end.saturating_sub(1)
        )),
        None => problem,
    })
}
