//! Files in, events out: feeds the format's one reader from a segment's file.

use crate::trail::ends;
use graven_format::codec::Decoding;
use graven_format::merkle::{Hash, Hashing};
use graven_format::scan::{Event, Expect, Outcome, Scanner};
use graven_format::trailer::IndexEntry;
use graven_writer::codec::Reading;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes read at once. Large enough that the disk streams, small enough for any number of cores.
const CHUNK_BYTES: usize = 512 * 1024;

/// How to read a segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct How<'a> {
    /// Read what is at or past this offset as zeros: what a running writer adds is then not seen.
    pub limit: Option<u64>,
    /// Counts bytes as they are read.
    pub progress: Option<&'a AtomicU64>,
    /// Sizes of trees, in rising order, whose roots and keys are wanted.
    pub sizes: &'a [u64],
}

/// What was read.
#[derive(Debug)]
pub struct Scanned {
    /// What is known at the end; of the part that was read if the visitor ended it.
    pub outcome: Outcome,
    /// Offset after the last byte that is not zero.
    pub extent: u64,
    /// Those of the sizes in [`How`] that lie in the segment, and the roots of trees of so many records.
    pub roots: Vec<(u64, Hash)>,
}

/// Reads a segment's file from its start and shows each event to `visit`, which may end it.
///
/// # Errors
/// What the system says.
pub fn scan(
    file: &File,
    expect: Expect,
    how: How<'_>,
    visit: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> io::Result<Scanned> {
    let mut scanner = Scanner::with_hashing(expect, Reading::new());
    scanner.want_roots(how.sizes);
    let extent = feed(&mut scanner, file, 0, how, visit)?;
    let roots = scanner.roots();
    Ok(Scanned { outcome: scanner.outcome(), extent, roots })
}

/// Pushes the file's bytes from `offset` on; returns where the last one that is not zero ends.
fn feed(
    scanner: &mut Scanner<impl Hashing + Decoding>,
    file: &File,
    mut offset: u64,
    how: How<'_>,
    visit: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut extent = 0;
    loop {
        let len = read_some(file, &mut chunk, offset)?;
        let bytes = &mut chunk[..len];
        if let Some(limit) = how.limit {
            let keep = limit.saturating_sub(offset).min(len as u64) as usize;
            bytes[keep..].fill(0);
        }
        if let Some(last) = last_not_zero(bytes) {
            extent = offset + last as u64 + 1;
        }
        offset += len as u64;
        if let Some(progress) = how.progress {
            progress.fetch_add(len as u64, Ordering::Relaxed);
        }
        if len == 0 {
            scanner.end();
        } else {
            scanner.push(bytes);
        }
        while let Some(event) = scanner.next_event() {
            if visit(event).is_break() {
                return Ok(extent);
            }
        }
        if len == 0 {
            return Ok(extent);
        }
    }
}

/// Index of the last byte that is not zero.
fn last_not_zero(bytes: &[u8]) -> Option<usize> {
    // In blocks first: most of a segment that is being written is zero.
    let (blocks, rest) = bytes.as_chunks::<64>();
    let in_rest = rest.iter().rposition(|byte| *byte != 0);
    in_rest.map(|at| blocks.len() * 64 + at).or_else(|| {
        let block = blocks.iter().rposition(|block| *block != [0; 64])?;
        let at = blocks[block].iter().rposition(|byte| *byte != 0)?;
        Some(block * 64 + at)
    })
}

/// Reads until `buf` is full or the file ends.
pub(crate) fn read_some(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buf.len() {
        match file.read_at(&mut buf[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    Ok(len)
}

/// Where reading may start so that no record from `seq` on is missed: the header and an entry of
/// the trailer's index. `None` if the segment has to be read from its start.
fn seek(file: &File, seq: u64) -> Option<(Vec<u8>, IndexEntry)> {
    let (trailer, trailer_offset) = ends::trailer(file).ok()?.ok()?;
    let entry = *trailer.tally.index.iter().rev().find(|entry| entry.seq <= seq)?;
    let header = ends::header_bytes(file).ok()?.ok()?;
    // The header alone takes the reader this far already.
    let ahead = entry.offset > header.len() as u64 && entry.offset < trailer_offset;
    ahead.then_some((header, entry))
}

/// Like [`scan`], but skips what lies before `seq` if the segment is sealed and its index tells
/// where. What is skipped is not checked, and neither is the trailer.
///
/// # Errors
/// What the system says.
pub fn scan_from(
    file: &File,
    expect: Expect,
    seq: u64,
    how: How<'_>,
    visit: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> io::Result<()> {
    let Some((header, entry)) = seek(file, seq) else {
        return scan(file, expect, how, visit).map(drop);
    };
    let mut scanner = Scanner::with_hashing(expect, Reading::new());
    scanner.push(&header);
    while let Some(event) = scanner.next_event() {
        if visit(event).is_break() {
            return Ok(());
        }
    }
    scanner.skip_to(&entry);
    feed(&mut scanner, file, entry.offset, how, visit).map(drop)
}
