//! The keys of a trail from the first on: each header's must follow from the segment before it, and
//! every checkpoint be signed by the key of its place.

use crate::keys::{self, EpochKey};
use crate::time::rfc3339;
use crate::trail::TrailDir;
use crate::trail::notes::{Notes, Seen, Wrong};
use crate::trail::segment::SegmentRead;
use crate::verify::problems::Problems;
use crate::verify::report::{Class, Problem, hex};
use graven_format::consts::ALIGN_BYTES_MIN;
use graven_format::note::PublicKey;
use graven_format::signer::{SignatureError, Signer};
use serde::Serialize;
use std::ops::Range;

/// What is known of a trail's signatures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Signatures {
    /// Whether the trail has a key.
    pub signed: bool,
    /// The key that it, or what was checked of it, begins with.
    pub key: Option<String>,
    /// Whether that is the key that was given; without one, the trail's own word for it is all there is.
    pub key_given: bool,
    /// How many keys came before the first and before the last one that is here.
    pub epochs: Option<(u64, u64)>,
    /// Checkpoints that are signed by the key of their place.
    pub checked: u64,
    /// Checkpoints that could not be judged, for damage before them.
    pub unchecked: u64,
    /// The newest checkpoint whose signature is right, before anything that is wrong.
    pub newest: Option<Checkpoint>,
    /// Records after it that were checked: no signature covers them.
    pub uncovered: u64,
}

/// A checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Checkpoint {
    /// Records that it covers.
    pub size: u64,
    /// Root over them, in hexadecimal.
    pub root: String,
    /// When it was made.
    pub time: String,
    /// How many keys came before the one that signed it.
    pub epoch: u64,
}

/// Follows the keys through the segments, in the order of the trail.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// The key that the trail must begin with.
    trusted: Option<PublicKey>,
    /// The first signer that has a key.
    first: Option<Signer>,
    /// Whether a header was readable.
    begun: bool,
    /// The last signer that is known, and whether the next header's must be it.
    last: Option<Signer>,
    sure: bool,
    checked: u64,
    unchecked: u64,
    newest: Option<Seen>,
    /// Something is wrong with a key or a signature.
    broken: bool,
    /// Segments that are not there were passed since the last one.
    gap: bool,
    /// The keys that are proven from the trusted one on, if what is looked at does not begin with it.
    proven: Option<Vec<EpochKey>>,
}

/// The keys of the trail in `dir` that are proven from the first, `trusted` one on, as far as they can be followed.
pub(crate) fn proven(dir: &TrailDir, trusted: &PublicKey) -> Vec<EpochKey> {
    let mut proven = Vec::new();
    // Where they end is said by the key that is not among them.
    let _ = keys::follow(dir, Some(trusted), |key| proven.push(key));
    proven
}

impl Chain {
    pub(crate) fn new(trusted: Option<&PublicKey>) -> Self {
        Self { trusted: trusted.cloned(), ..Self::default() }
    }

    /// Begins with a segment that is not the trail's first, with these keys before it.
    pub(crate) fn begin_later(&mut self, proven: Vec<EpochKey>) {
        self.proven = Some(proven);
    }

    /// The segments that come next are not there, and that is no damage.
    pub(crate) fn gap(&mut self) {
        self.gap = true;
    }

    /// Whether something is wrong with a key or a signature so far.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Goes on with a segment that belongs to the trail up to `end_seq`; `file` is its path. After
    /// an `orphan`, which recovery removes, only its own notes are looked at.
    pub(crate) fn segment(
        &mut self,
        read: &SegmentRead,
        file: &str,
        end_seq: u64,
        orphan: bool,
        problems: &mut Problems,
    ) {
        if orphan {
            return;
        }
        let notes = &read.notes;
        if let Some(begin) = &notes.begin {
            self.begin(begin, read.file.first_seq, file, problems);
            (self.sure, self.begun) = (true, true);
        } else {
            self.sure = false;
        }
        self.take_newest(notes, end_seq);
        for wrong in notes.wrong.iter().filter(|wrong| wrong.seq <= end_seq) {
            self.broken = true;
            problems.push(problem(wrong, read, file));
        }
        if notes.wrong_left_out > 0 {
            let message = format!("{} more wrong signatures in this segment", notes.wrong_left_out);
            let problem = Problem::new(Class::Damage, "signature", message);
            problems.push(problem.in_file(file.to_owned()).at(read.file.first_seq, 0));
        }
        self.checked += notes.checked;
        self.unchecked += notes.unchecked;
        self.sure = notes.end.is_some() && self.sure;
        self.last = notes.end.clone().or(self.last.take());
    }

    /// A segment that could not be read: the keys named in it are not known.
    pub(crate) fn unreadable(&mut self) {
        self.sure = false;
    }

    fn begin(&mut self, begin: &Signer, seq: u64, file: &str, problems: &mut Problems) {
        let mut say = |class, message: String| {
            let problem = Problem::new(class, "key", message).in_file(file.to_owned());
            problems.push(problem.at(seq, 0));
        };
        let gap = std::mem::take(&mut self.gap);
        match &self.first {
            // A trail may begin without a key; from the first one on it is signed.
            None => {
                let Some(found) = &begin.key else { return };
                let trusted = self.trusted.as_ref().filter(|key| *key != found);
                let known = |it: &&EpochKey| it.epoch == begin.epoch;
                let later = self.proven.as_ref().map(|keys| keys.iter().find(known));
                if let (Some(key), Some(None)) = (trusted, later)
                    && begin.epoch > 0
                {
                    self.broken = true;
                    let message =
                        format!("that the key {found} follows from {key} cannot be shown here");
                    say(Class::Unchecked, message);
                } else if let Some(key) = trusted
                    && !matches!(later, Some(Some(it)) if it.key == *found)
                {
                    self.broken = true;
                    say(
                        Class::Damage,
                        format!("the trail's first key is {found}, and {key} was given"),
                    );
                }
                if (seq == 0 || self.begun && !gap) && begin.epoch != 0 {
                    self.broken = true;
                    say(
                        Class::Damage,
                        format!(
                            "the trail's first key says that it came after {} others",
                            begin.epoch
                        ),
                    );
                }
                self.first = Some(begin.clone());
            }
            Some(_) if gap => {
                if self.last.as_ref() != Some(begin) {
                    self.broken = true;
                    let message = "the key in its header cannot be followed over the segments that are not here";
                    say(Class::Unchecked, message.into());
                }
            }
            Some(_) if self.sure && self.last.as_ref() != Some(begin) => {
                self.broken = true;
                say(
                    Class::Damage,
                    "the key in its header does not follow from the segment before it".into(),
                );
            }
            Some(_) if !self.sure => {
                self.broken = true;
                let message = "the key in its header cannot be followed from the first: what stands \
                               before it is damaged or missing";
                say(Class::Damage, message.into());
            }
            Some(_) => {}
        }
    }

    fn take_newest(&mut self, notes: &Notes, end_seq: u64) {
        if !self.broken
            && let Some(newest) = notes.newest.filter(|newest| newest.size <= end_seq)
        {
            self.newest = Some(newest);
        }
    }

    /// Whether a checkpoint whose signature is right covers this record, if the trail is signed.
    pub(crate) fn covers(&self, seq: u64) -> bool {
        self.first.is_none() || self.newest.is_some_and(|newest| newest.size > seq)
    }

    /// What is to be reported when the records of these seqs were checked.
    pub(crate) fn report(self, seqs: Range<u64>) -> Signatures {
        let signed = self.first.is_some();
        let covered = self.newest.map_or(0, |newest| newest.size);
        let epochs = self.first.as_ref().zip(self.last.as_ref());
        Signatures {
            signed,
            key_given: self.trusted.is_some(),
            epochs: epochs.map(|(first, last)| (first.epoch, last.epoch)),
            key: self.first.and_then(|first| first.key).map(|key| key.to_string()),
            checked: self.checked,
            unchecked: self.unchecked,
            newest: self.newest.map(|newest| Checkpoint {
                size: newest.size,
                root: hex(&newest.root),
                time: rfc3339(newest.realtime_ns),
                epoch: newest.epoch,
            }),
            uncovered: seqs.end.saturating_sub(covered.max(seqs.start)),
        }
    }

    /// The key that was given, if the trail has none.
    pub(crate) fn missing(&self) -> Option<&PublicKey> {
        self.trusted.as_ref().filter(|_| self.first.is_none())
    }

    /// The last signer that is known.
    pub(crate) fn last(&self) -> Option<&Signer> {
        self.last.as_ref()
    }
}

fn problem(wrong: &Wrong, read: &SegmentRead, file: &str) -> Problem {
    let (kind, what) = match wrong.why {
        SignatureError::Key => ("key", "a segment's key"),
        SignatureError::Missing => ("unsigned", "a checkpoint"),
        SignatureError::Unkeyed | SignatureError::Other | SignatureError::Forged => {
            ("signature", "a checkpoint")
        }
        SignatureError::Successor => ("key", "a checkpoint"),
    };
    let mut problem = Problem::new(Class::Damage, kind, format!("{what}: {}", wrong.why))
        .in_file(file.to_owned())
        .at(wrong.seq, 0)
        .note("this is no accident: whoever wrote it did not have the key, or removed what the key had signed");
    let trailer = read.outcome.trailer.as_ref().map(|trailer| u64::from(trailer.trailer_len));
    // A trailer may end with zeros, and always ends with a block.
    let end = read.extent.next_multiple_of(ALIGN_BYTES_MIN.into());
    problem.offset = wrong.offset.or_else(|| end.checked_sub(trailer?));
    problem
}
