//! Which records can still be proven, whatever else is damaged.
//!
//! A record is, if all of its segment's records up to a trailer, a checkpoint or the next header fold,
//! together with the tree in their own header, to the root that stands there. Rows of segments whose
//! trees follow from each other are one range under their last root.

use crate::trail::notes::Seen;
use crate::trail::segment::SegmentRead;
use crate::verify::judge::own_root;
use crate::verify::report::hex;
use graven_format::merkle::Hash;
use graven_format::trailer::Trailer;
use serde::Serialize;

/// Most ranges that are listed.
const RANGES_MAX: usize = 10_000;

/// What states a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The segment's trailer.
    Trailer,
    /// A checkpoint in the segment, whose signature is right.
    Checkpoint,
    /// The header of the segment after it.
    NextHeader,
}

/// Records that are those that a root was stated over.
#[derive(Clone, Debug, Serialize)]
pub struct Provable {
    /// The seq of the first.
    pub seq: u64,
    /// One past the seq of the last, and how many records the root covers.
    pub end_seq: u64,
    /// The root, in hexadecimal.
    pub root: String,
    /// What states it.
    pub by: By,
    /// The segment in which it is stated.
    pub file: String,
    /// Up to this seq a signature covers them; `null` without one.
    pub signed_until: Option<u64>,
}

/// Collects ranges in the order of the trail.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    list: Vec<Provable>,
    left_out: u64,
    /// The root of the last range.
    root: Option<Hash>,
    open: Option<Open>,
}

/// A segment that no trailer confirms.
#[derive(Debug)]
struct Open {
    seq: u64,
    end_seq: u64,
    before: Option<Hash>,
    root: Hash,
    file: String,
    newest: Option<Seen>,
}

impl Ranges {
    /// Goes on with a segment, of which `file` is the path; `signed` if its key is the trail's.
    pub(crate) fn segment(&mut self, read: &SegmentRead, file: String, signed: bool) {
        let header = read.outcome.header.as_ref();
        let before = header.and_then(|header| header.before.root());
        self.close(before, &file);
        let seq = header.map_or(read.file.first_seq, |header| header.first_seq);
        let newest = read.notes.newest.filter(|newest| signed && newest.size > seq);
        let end_seq = read.outcome.prefix.next_seq;
        let Some(root) = own_root(read).filter(|_| end_seq > seq) else { return };
        let stated = read.outcome.trailer.as_ref().map(|it: &Trailer| (it.end_seq(), it.root));
        if stated == Some((end_seq, root)) {
            let signed_until = newest.map(|newest| newest.size);
            self.push(
                before,
                root,
                Provable { seq, end_seq, root: hex(&root), by: By::Trailer, file, signed_until },
            );
        } else {
            self.open = Some(Open { seq, end_seq, before, root, file, newest });
        }
    }

    /// A segment that could not be read follows.
    pub(crate) fn unreadable(&mut self) {
        self.close(None, "");
    }

    /// Decides on a segment without a trailer, when the next header in `file` is known to follow a
    /// tree of this root.
    fn close(&mut self, next: Option<Hash>, file: &str) {
        let Some(open) = self.open.take() else { return };
        let signed_until = open.newest.map(|newest| newest.size);
        let (seq, before) = (open.seq, open.before);
        if next == Some(open.root) {
            let (end_seq, root, file) = (open.end_seq, hex(&open.root), file.to_owned());
            let range = Provable { seq, end_seq, root, by: By::NextHeader, file, signed_until };
            self.push(before, open.root, range);
        } else if let Some(newest) = open.newest.filter(|newest| newest.size <= open.end_seq) {
            let (end_seq, root, file) = (newest.size, hex(&newest.root), open.file);
            let range = Provable { seq, end_seq, root, by: By::Checkpoint, file, signed_until };
            self.push(before, newest.root, range);
        }
    }

    fn push(&mut self, before: Option<Hash>, root: Hash, range: Provable) {
        let follows = before.is_some() && before == self.root;
        self.root = Some(root);
        if let Some(last) = self.list.last_mut()
            && follows
            && last.end_seq == range.seq
        {
            let signed_until = range.signed_until.or(last.signed_until);
            *last = Provable { seq: last.seq, signed_until, ..range };
        } else if self.list.len() < RANGES_MAX {
            self.list.push(range);
        } else {
            self.left_out += 1;
            self.root = None;
        }
    }

    /// The ranges, and how many more there were.
    pub(crate) fn end(mut self) -> (Vec<Provable>, u64) {
        self.close(None, "");
        (self.list, self.left_out)
    }
}
