//! Removes the oldest sealed segments of a trail, as an administrator has asked for, and says so in the trail first.
//!
//! 1. [`Retention::due`] says which segments may go: the oldest ones, each sealed and named by the header of the next. One
//!    that is damaged stays, and with it all after it: it is evidence. The last [`KEPT_MIN`] stay whatever was asked for:
//!    recovery reads two, and one of them says which key signs.
//! 2. Whoever asked records [`Removal::statement`], waits until that is durable, and in a signed trail until a checkpoint
//!    covers it.
//! 3. [`Retention::remove`] unlinks them, oldest first, each behind a sync of the directory.
//!
//! A crash between any two steps leaves a trail of which no more is missing than a record in it says, so `verify` can
//! tell a beginning that was removed from one that somebody took away. The statement holds the root of the tree over all that is
//! gone: what is left goes on from it.

use crate::clock::Now;
use crate::own::{Own, ROTATE};
use crate::rewrite::{RewriteError, Segment, read_header, read_trailer};
use graven_format::merkle::Hash;
use graven_format::name::Name;
use graven_format::trailer::Trailer;
use graven_format::{Record, Source};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Segments that always stay: the one in use, and the two that recovery and the chain of keys need.
pub const KEPT_MIN: usize = 3;

/// The `op` of the record.
const OP: &str = "retention";

/// What is to be kept. A segment goes when it is over any of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// So many segments, the one in use among them.
    pub segments: Option<u64>,
    /// So many bytes of all segments together.
    pub bytes: Option<u64>,
    /// Records that are so old at most, in nanoseconds.
    pub age_ns: Option<u64>,
}

impl Keep {
    /// Whether anything is ever removed.
    #[must_use]
    pub fn removes(&self) -> bool {
        *self != Self::default()
    }
}

/// What a record in the trail says was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The number of the last segment that was removed, and all before it are gone.
    pub last_segment: u64,
    /// One past the seq of their last record.
    pub end_seq: u64,
    /// The root over all records before that seq.
    pub root: Hash,
}

impl Statement {
    /// Reads one out of a record; `None` if it is none.
    #[must_use]
    pub fn parse(record: &Record<'_>) -> Option<Self> {
        if record.source != Source::Graven || record.kind != ROTATE {
            return None;
        }
        let text = std::str::from_utf8(record.bytes).ok()?;
        let (_, fields) = text.strip_prefix("audit(")?.split_once("): ")?;
        let mut fields = fields.split(' ');
        let mut next = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=');
        if next("op")? != OP {
            return None;
        }
        next("first-segment")?;
        let last_segment = number(next("last-segment")?)?;
        let end_seq = number(next("end-seq")?)?;
        let digits = next("root")?;
        let mut root = [0; 32];
        // A sign would be read as a digit.
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, at) in root.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
        }
        Some(Self { last_segment, end_seq, root })
    }
}

/// A number as it is written here: digits, and nothing before them.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Segments that are to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// They, oldest first; at least one.
    pub segments: Vec<Segment>,
    /// What is said of them.
    pub says: Statement,
    /// Why.
    reason: &'static str,
}

impl Removal {
    /// The record that has to be durable before anything is removed.
    #[must_use]
    pub fn statement(&self, at: Now) -> Own {
        let Statement { last_segment, end_seq, root } = self.says;
        let root = root.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Own::new(ROTATE, OP, at)
            .field("first-segment", self.segments.first().map_or(0, |first| first.segment))
            .field("last-segment", last_segment)
            .field("end-seq", end_seq)
            .field("root", root)
            .field("why", self.reason)
    }
}

/// Removes segments of one trail.
#[derive(Debug)]
pub struct Retention {
    dir: PathBuf,
    opened: File,
}

/// A segment as its directory shows it.
#[derive(Clone, Copy, Debug)]
struct Held {
    segment: Segment,
    bytes: u64,
}

impl Retention {
    /// For the trail in `dir`.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self { dir: dir.to_owned(), opened: File::open(dir)? })
    }

    /// What is to be removed now, if anything is.
    ///
    /// # Errors
    /// The directory, or a segment in it, cannot be read.
    pub fn due(&self, keep: &Keep, realtime_ns: u64) -> Result<Option<Removal>, RewriteError> {
        let held = self.segments()?;
        let mut total: u64 = held.iter().map(|it| it.bytes).sum();
        let (mut says, mut reason, mut count) = (None, "", 0);
        for (index, pair) in held.windows(2).enumerate().take(held.len().saturating_sub(KEPT_MIN)) {
            let (this, next) = (pair[0], pair[1]);
            let left = (held.len() - index) as u64;
            let Some((trailer, follows)) = self.settled(&this.segment, &next.segment)? else {
                break;
            };
            let old = |age_ns| trailer.tally.realtime_max_ns < realtime_ns.saturating_sub(age_ns);
            reason = if keep.segments.is_some_and(|most| left > most) {
                "keep"
            } else if keep.bytes.is_some_and(|most| total > most) {
                "max_total"
            } else if keep.age_ns.is_some_and(old) {
                "max_age"
            } else {
                break;
            };
            (says, count) = (Some(follows), index + 1);
            total = total.saturating_sub(this.bytes);
        }
        let segments = held[..count].iter().map(|it| it.segment).collect();
        Ok(says.map(|says| Removal { segments, says, reason }))
    }

    /// The trailer of a segment that the next one names, and what is said of all up to it.
    fn settled(
        &self,
        this: &Segment,
        next: &Segment,
    ) -> Result<Option<(Trailer, Statement)>, RewriteError> {
        if this.segment.checked_add(1) != Some(next.segment) {
            return Ok(None);
        }
        let path = self.dir.join(this.name());
        // What is damaged is left for whoever verifies.
        let trailer = match read_trailer(&path) {
            Err(RewriteError::Format { .. }) => None,
            read => read?,
        };
        let header = read_header(&self.dir.join(next.name()))?;
        let (Some(trailer), Some(header)) = (trailer, header) else { return Ok(None) };
        let follows = trailer.segment == this.segment
            && trailer.chain_crc() == header.prev_crc
            && trailer.end_seq() == next.first_seq
            && header.first_seq == next.first_seq
            && header.before.root() == Some(trailer.root);
        let says =
            Statement { last_segment: this.segment, end_seq: next.first_seq, root: trailer.root };
        Ok(follows.then_some((trailer, says)))
    }

    /// Removes them, and says how many are gone: one that is being rewritten stays until the next time, and so do those after
    /// it.
    ///
    /// # Errors
    /// What the system says; those before are gone.
    pub fn remove(&self, removal: &Removal) -> Result<usize, RewriteError> {
        for (index, segment) in removal.segments.iter().enumerate() {
            let path = self.dir.join(segment.name());
            let io = |operation| {
                let path = path.clone();
                move |source| RewriteError::Io { operation, path, source }
            };
            let file = match File::open(&path) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(io("open"))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(index),
                Err(TryLockError::Error(why)) => return Err(io("lock")(why)),
            }
            fs::remove_file(&path).map_err(io("remove"))?;
            self.opened.sync_all().map_err(io("sync the directory of"))?;
        }
        Ok(removal.segments.len())
    }

    fn segments(&self) -> Result<Vec<Held>, RewriteError> {
        let io = |operation| {
            let path = self.dir.clone();
            move |source| RewriteError::Io { operation, path, source }
        };
        let mut held = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io("list"))? {
            let entry = entry.map_err(io("list"))?;
            let name = entry.file_name();
            if let Some(Name::Segment { segment, first_seq }) = name.to_str().and_then(Name::parse)
            {
                let bytes = entry.metadata().map_err(io("list"))?.len();
                held.push(Held { segment: Segment { segment, first_seq }, bytes });
            }
        }
        held.sort_unstable_by_key(|it| it.segment);
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removal() -> Removal {
        let says = Statement { last_segment: 7, end_seq: 900, root: [0xAB; 32] };
        Removal { segments: vec![Segment { segment: 4, first_seq: 500 }], says, reason: "keep" }
    }

    #[test]
    fn a_statement_is_read_back_and_nothing_else_is_one() {
        let (own, says) = (removal().statement(Now::default()), removal().says);
        let record = own.record();
        assert_eq!(Statement::parse(&record), Some(says));
        let text = String::from_utf8_lossy(record.bytes).into_owned();
        assert!(
            text.contains("op=retention first-segment=4 last-segment=7 end-seq=900 root=abab"),
            "{text}"
        );
        // Anybody may send such a text as a record of theirs.
        assert_eq!(Statement::parse(&Record { source: Source::Stdin, ..record }), None);
        for other in [
            text.replace("last-segment=7", "last-segment=x"),
            text.replace("end-seq=900", "end-seq=+900"),
            text.replace("root=ab", "root=é"),
            text.replace("root=ab", "root=+1"),
            text.replace("op=retention", "op=rotate"),
            text[..40].to_owned(),
            String::new(),
        ] {
            assert_eq!(
                Statement::parse(&Record { bytes: other.as_bytes(), ..record }),
                None,
                "{other}"
            );
        }
    }
}
