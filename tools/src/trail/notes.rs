//! The checkpoints of one segment: whether each is signed by the key of its place.
//!
//! The key of the place is the one in the segment's header, and behind each note that names a
//! successor that one. That the header's key follows from the segment before is for who holds the
//! segments against each other.

use graven_format::finding::CheckpointError;
use graven_format::merkle::Hash;
use graven_format::note::Note;
use graven_format::scan::Event;
use graven_format::signer::{SignatureError, Signer};
use graven_format::{Finding, FindingKind, Flags, Source};

/// Most wrong signatures of one segment that are kept; the others are counted.
pub const WRONG_MAX: usize = 1000;

/// A checkpoint whose signature is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Records that it covers.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// When it was made, nanoseconds since 1970.
    pub realtime_ns: u64,
    /// How many keys came before the one that signed it.
    pub epoch: u64,
}

/// A checkpoint that does not have the signature of its place, or a header whose key is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub why: SignatureError,
    /// The seq at which it stands.
    pub seq: u64,
    /// Its offset in the segment's file; `None`: that of the trailer.
    pub offset: Option<u64>,
}

/// What a segment shows of keys and checkpoints.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Who signs when the segment begins; `None` if its header does not say.
    pub begin: Option<Signer>,
    /// Who signs when it ends; `None` if a record that is missing or unreadable may have named a successor.
    pub end: Option<Signer>,
    /// Checkpoints whose signature is right.
    pub checked: u64,
    /// Those that could not be judged, because the key of their place is not known.
    pub unchecked: u64,
    /// The last right one before anything in the segment is wrong.
    pub newest: Option<Seen>,
    /// What is wrong.
    pub wrong: Vec<Wrong>,
    /// What is wrong and was not kept.
    pub wrong_left_out: u64,
    /// Who signs at each size that was asked for and lies in the segment.
    pub signers: Vec<(u64, Signer)>,
    /// The sizes that were asked for and that a right checkpoint in the segment covers.
    pub made: Vec<u64>,
}

/// Collects [`Notes`] from what the scanner says.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    notes: Notes,
    now: Option<Signer>,
    /// Whether `now` is sure: nothing is missing since it was shown.
    sure: bool,
    /// Whether anything is wrong so far.
    found: bool,
    /// The right checkpoint before the newest.
    before: Option<Seen>,
    /// Sizes that were asked for.
    wanted: &'a [u64],
    /// Those that were not come to yet.
    sizes: &'a [u64],
}

impl<'a> Reader<'a> {
    /// Who signs at each of `sizes`, in rising order, is wanted.
    pub(crate) fn new(sizes: &'a [u64]) -> Self {
        let (notes, wanted) = (Notes::default(), sizes);
        Self { notes, now: None, sure: false, found: false, before: None, wanted, sizes }
    }

    pub(crate) fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Header(header) => {
                match Signer::of(header) {
                    Ok(signer) => self.now = Some(signer),
                    Err(why) => self.wrong(why, header.first_seq, Some(0)),
                }
                self.sure = self.now.is_some();
                self.notes.begin = self.now.clone();
                self.sizes = &self.sizes[self.sizes.partition_point(|it| *it < header.first_seq)..];
            }
            Event::Record { seq, offset, record } => {
                self.place(*seq);
                if record.flags.contains(Flags::CHECKPOINT) && record.source == Source::Graven {
                    self.note(record.bytes, *seq, Some(*offset), record.realtime_ns);
                }
            }
            Event::Trailer(trailer) => {
                let (seq, time) = (trailer.end_seq(), trailer.sealed_realtime_ns);
                let keyed = self.now.as_ref().is_some_and(|signer| signer.key.is_some());
                if !trailer.note.is_empty() {
                    self.note(&trailer.note, seq, None, time);
                } else if keyed {
                    self.wrong(SignatureError::Missing, seq, None);
                }
            }
            Event::Finding(finding) => self.finding(finding),
            Event::Frame { .. } => {}
        }
    }

    /// What is known when the segment ends at this seq.
    pub(crate) fn end(mut self, end_seq: u64) -> Notes {
        self.place(end_seq);
        self.notes.end = self.now.filter(|_| self.sure);
        self.notes
    }

    /// The record of this seq comes next.
    fn place(&mut self, seq: u64) {
        while let Some((size, rest)) = self.sizes.split_first().filter(|(size, _)| **size <= seq) {
            let signer = self.now.clone().filter(|_| *size == seq && self.sure);
            self.notes.signers.extend(signer.map(|signer| (*size, signer)));
            self.sizes = rest;
        }
    }

    fn finding(&mut self, finding: &Finding) {
        if matches!(finding.kind, FindingKind::Checkpoint(_))
            && self.notes.newest.is_some_and(|newest| newest.size == finding.seq)
            && !self.found
        {
            // It is said of a record that was shown already.
            self.notes.newest = self.before.take();
        }
        self.found = true;
        // What cannot be read as a note may have named the next key.
        let hides = matches!(
            finding.kind,
            FindingKind::Checkpoint(CheckpointError::Text(_)) | FindingKind::Record(_)
        );
        if hides || finding.missing > 0 {
            self.sure = false;
        }
    }

    fn note(&mut self, bytes: &[u8], seq: u64, offset: Option<u64>, realtime_ns: u64) {
        // What is no note the scanner has said.
        let (Ok(note), Some(now)) = (Note::parse(bytes), &mut self.now) else {
            self.notes.unchecked += 1;
            return;
        };
        match now.check(&note) {
            Ok(()) => {
                // A key that signs here has had no successor before.
                self.sure = true;
                self.notes.checked += 1;
                let checkpoint = note.checkpoint;
                let (size, root) = (checkpoint.head.size, checkpoint.head.root);
                if self.wanted.binary_search(&size).is_ok() && size == seq {
                    self.notes.made.push(size);
                }
                if !self.found {
                    self.before = self.notes.newest.take();
                    self.notes.newest = Some(Seen { size, root, realtime_ns, epoch: now.epoch });
                }
                let followed = match offset {
                    Some(_) => now.follow(checkpoint),
                    None if checkpoint.successor.is_some() => Err(SignatureError::Successor),
                    None => Ok(()),
                };
                if let Err(why) = followed {
                    self.wrong(why, seq, offset);
                }
            }
            Err(SignatureError::Other) if !self.sure => self.notes.unchecked += 1,
            Err(why) => self.wrong(why, seq, offset),
        }
    }

    fn wrong(&mut self, why: SignatureError, seq: u64, offset: Option<u64>) {
        self.found = true;
        if self.notes.wrong.len() < WRONG_MAX {
            self.notes.wrong.push(Wrong { why, seq, offset });
        } else {
            self.notes.wrong_left_out += 1;
        }
    }
}
