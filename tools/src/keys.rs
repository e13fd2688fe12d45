//! The keys of a trail, each proven from the first: what its key has signed in its last checkpoint.
//!
//! Headers and trailers say in which segments a key ended; only those are read, and what is not sealed.

use crate::trail::scan::{self, How};
use crate::trail::{SegmentFile, TrailDir, ends};
use graven_format::note::{Note, PublicKey};
use graven_format::scan::{Event, Expect};
use graven_format::signer::{SignatureError, Signer};
use graven_format::{Flags, FormatError, Source};
use std::io;
use std::ops::ControlFlow;

/// A key and the tree from which on it signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochKey {
    /// How many keys came before it.
    pub epoch: u64,
    /// It signs checkpoints over more than so many records, the first key of a trail those over 0 too.
    pub from: u64,
    /// The key.
    pub key: PublicKey,
}

/// Why the keys cannot be followed to the end.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The trail has no segment.
    #[error("the trail has no segment yet, and so no key")]
    Empty,
    /// It is not signed.
    #[error("the trail is not signed")]
    Unsigned,
    /// The first key is not the one that is trusted.
    #[error("the trail's first key is {0}, another than the one given")]
    Trusted(Box<PublicKey>),
    /// A header is not intact.
    #[error("{why}")]
    Header {
        /// The segment.
        file: SegmentFile,
        /// Why.
        why: FormatError,
    },
    /// A key does not follow.
    #[error("{why}")]
    Signature {
        /// The segment.
        file: SegmentFile,
        /// Why.
        why: SignatureError,
    },
    /// A header's key is not the one that the segments before it lead to.
    #[error("the key in this segment's header does not follow from the segments before it")]
    Broken {
        /// The segment.
        file: SegmentFile,
    },
    /// A segment cannot be read.
    #[error("cannot read the segment: {why}")]
    Unreadable {
        /// The segment.
        file: SegmentFile,
        /// What the system said.
        why: io::Error,
    },
}

/// Shows each key to `visit`, from the first on; the first must be `trusted` if that is given. What was
/// shown before an error is proven.
///
/// # Errors
/// [`KeysError`] says where the keys cannot be followed any further.
pub fn follow(
    dir: &TrailDir,
    trusted: Option<&PublicKey>,
    mut visit: impl FnMut(EpochKey),
) -> Result<(), KeysError> {
    if dir.segments.is_empty() {
        return Err(KeysError::Empty);
    }
    // A trail may begin without a key; from the first one on it is signed.
    let (mut begin, mut found) = (0, None);
    for (index, file) in dir.segments.iter().enumerate() {
        let signer = header(dir, file)?;
        if let Some(key) = &signer.key {
            (begin, found) = (index, Some((key.clone(), file.first_seq, signer)));
            break;
        }
    }
    let (key, from, mut now) = found.ok_or(KeysError::Unsigned)?;
    if trusted.is_some_and(|trusted| *trusted != key) {
        return Err(KeysError::Trusted(Box::new(key)));
    }
    visit(EpochKey { epoch: now.epoch, from, key });
    for (index, file) in dir.segments.iter().enumerate().skip(begin) {
        let next = dir.segments.get(index + 1);
        let expected = next.map(|next| header(dir, next)).transpose()?;
        if !still_signs(dir, file, &now)? {
            segment(dir, file, &mut now, &mut visit)?;
        }
        if let (Some(next), Some(expected)) = (next, expected)
            && expected != now
        {
            return Err(KeysError::Broken { file: next.clone() });
        }
    }
    Ok(())
}

fn header(dir: &TrailDir, file: &SegmentFile) -> Result<Signer, KeysError> {
    let unreadable = |why| KeysError::Unreadable { file: file.clone(), why };
    let opened = dir.open_segment(file).map_err(unreadable)?;
    let header = ends::header(&opened).map_err(unreadable)?;
    let header = header.map_err(|bad| KeysError::Header { file: file.clone(), why: bad.why })?;
    Signer::of(&header).map_err(|why| KeysError::Signature { file: file.clone(), why })
}

/// Whether the trailer shows that the key of the segment's beginning signs at its end too: then it
/// has named no successor, and the records need no reading.
fn still_signs(dir: &TrailDir, file: &SegmentFile, now: &Signer) -> Result<bool, KeysError> {
    let unreadable = |why| KeysError::Unreadable { file: file.clone(), why };
    let opened = dir.open_segment(file).map_err(unreadable)?;
    let Ok((trailer, _)) = ends::trailer(&opened).map_err(unreadable)? else { return Ok(false) };
    Ok(Note::parse(&trailer.note).is_ok_and(|note| now.check(&note).is_ok()))
}

/// Follows the successors that a segment names.
fn segment(
    dir: &TrailDir,
    file: &SegmentFile,
    now: &mut Signer,
    visit: &mut impl FnMut(EpochKey),
) -> Result<(), KeysError> {
    let unreadable = |why| KeysError::Unreadable { file: file.clone(), why };
    let opened = dir.open_segment(file).map_err(unreadable)?;
    let expect = Expect {
        segment: file.segment,
        first_seq: file.first_seq,
        trail_id: dir.trail_id(),
        merkle: false,
    };
    let mut wrong = None;
    let mut read = |event: Event<'_>| {
        if let Event::Record { seq, record, .. } = event
            && record.flags.contains(Flags::CHECKPOINT)
            && record.source == Source::Graven
            && let Ok(note) = Note::parse(record.bytes)
            && note.checkpoint.successor.is_some()
        {
            match now.check(&note).and_then(|()| now.follow(note.checkpoint)) {
                Ok(()) => visit_key(now, seq, visit),
                Err(why) => {
                    wrong = Some(KeysError::Signature { file: file.clone(), why });
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    };
    scan::scan(&opened, expect, How::default(), &mut read).map_err(unreadable)?;
    wrong.map_or(Ok(()), Err)
}

fn visit_key(now: &Signer, from: u64, visit: &mut impl FnMut(EpochKey)) {
    let (epoch, key) = (now.epoch, now.key.clone());
    key.into_iter().for_each(|key| visit(EpochKey { epoch, from, key }));
}
