//! Which records can still be proven, whatever else is damaged.
//!
//! A record is, if all of its segment's records up to a trailer, a checkpoint or the next header fold,
//! together with the tree in their own header, to the root that stands there. Rows of segments whose
//! trees follow from each other are one range under their last root. In a damaged segment with an intact trailer
//! the same holds of each block whose hash is in the trailer.

use crate::trail::notes::Seen;
use crate::trail::segment::SegmentRead;
use crate::verify::judge::own_root;
use crate::verify::report::hex;
use graven_format::merkle::Hash;
use graven_format::trailer::Trailer;
use serde::Serialize;
use std::ops::Range;

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
    /// One past the seq of the last.
    pub end_seq: u64,
    /// How many records, from seq 0 on, the root covers.
    pub size: u64,
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
    root: Option<Hash>,
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
        let (end_seq, root) = (read.outcome.prefix.next_seq, own_root(read));
        let trailer = read.outcome.trailer.as_ref().filter(|_| read.whole);
        if let (Some(trailer), Some(root)) = (trailer, root)
            && (trailer.end_seq(), trailer.root) == (end_seq, root)
        {
            if end_seq > seq {
                self.push(before, root, range(seq..end_seq, trailer, &file, newest));
            }
        } else if let Some(trailer) = trailer.filter(|_| !read.confirmed.is_empty()) {
            self.parts(before, &read.confirmed, trailer, &file, newest);
        } else if end_seq > seq || newest.is_some() {
            self.open = Some(Open { seq, end_seq, before, root, file, newest });
        }
    }

    /// A damaged segment, of which its trailer still covers the `confirmed` records, and a checkpoint
    /// those before it.
    fn parts(
        &mut self,
        mut before: Option<Hash>,
        confirmed: &[Range<u64>],
        trailer: &Trailer,
        file: &str,
        newest: Option<Seen>,
    ) {
        let mut from = trailer.first_seq;
        let first_end = confirmed.iter().find(|it| it.start == from).map_or(from, |it| it.end);
        if let Some(newest) = newest.filter(|newest| newest.size > first_end) {
            self.push(before.take(), newest.root, checkpoint(from, &newest, file.to_owned()));
            from = newest.size;
        }
        for part in confirmed.iter().filter(|part| part.end > from) {
            let part = part.start.max(from)..part.end;
            let before = before.take().filter(|_| part.start == trailer.first_seq);
            self.push(before, trailer.root, range(part, trailer, file, None));
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
        let (seq, before) = (open.seq, open.before);
        if let Some(root) = open.root.filter(|root| next == Some(*root)) {
            let (end_seq, file) = (open.end_seq, file.to_owned());
            let signed_until = open.newest.map(|newest| newest.size);
            let (size, hash, by) = (end_seq, hex(&root), By::NextHeader);
            let range = Provable { seq, end_seq, size, root: hash, by, file, signed_until };
            self.push(before, root, range);
        } else if let Some(newest) = open.newest {
            self.push(before, newest.root, checkpoint(seq, &newest, open.file));
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

/// Records that the root in the trailer in `file` covers.
fn range(seqs: Range<u64>, trailer: &Trailer, file: &str, newest: Option<Seen>) -> Provable {
    Provable {
        seq: seqs.start,
        end_seq: seqs.end,
        size: trailer.end_seq(),
        root: hex(&trailer.root),
        by: By::Trailer,
        file: file.to_owned(),
        signed_until: newest.map(|newest| newest.size.min(seqs.end)),
    }
}

/// Records from `seq` on that the checkpoint in `file` covers.
fn checkpoint(seq: u64, newest: &Seen, file: String) -> Provable {
    let (size, root, by) = (newest.size, hex(&newest.root), By::Checkpoint);
    Provable { seq, end_seq: size, size, root, by, file, signed_until: Some(size) }
}
