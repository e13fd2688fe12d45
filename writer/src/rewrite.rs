//! Rewrites sealed segments compressed, and nothing else: seqs, leaves, roots, notes stay.
//!
//! A segment is read whole, with every check, into `<number>.tmp`; that file is synced, read back
//! with every check, compared with what the segment says of itself, and only then renamed over it.
//! A crash leaves the one file or the other, whole. Whatever is not as it should be leaves the
//! segment as it was, and is an error.
//!
//! The last segment is never touched, and neither is one whose successor does not name its trailer:
//! so whoever writes the trail, and whoever recovers it, never meets a file that changes.

use crate::codec::{Compressor, Reading};
use draft::Draft;
use graven_format::name::{self, Name};
use graven_format::scan::{Event, Expect, Outcome, Scanner};
use graven_format::segment::SegmentHeader;
use graven_format::trailer::Trailer;
use graven_format::{Finding, FormatError};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

mod background;
mod draft;

pub use background::{Background, Told};

/// Zstandard level of sealed segments unless told otherwise: measured in
/// `docs/decisions/0008-compression.md`.
pub const LEVEL_DEFAULT: i32 = 6;

/// Bytes read at once.
const CHUNK_BYTES: usize = 512 * 1024;

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// It was replaced: bytes of the file before and after.
    Smaller {
        /// Before.
        before: u64,
        /// After.
        after: u64,
    },
    /// It would not become smaller, and is as it was.
    NotSmaller,
    /// It has been rewritten before.
    Already,
    /// It is not sealed, or its successor does not name its trailer yet.
    NotSettled,
    /// It was told to stop, and has left the segment as it was.
    Stopped,
}

/// Why a segment was not rewritten. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The segment is damaged.
    #[error("{}: offset {:#x}, seq {}: {finding}", path.display(), finding.offset, finding.seq)]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// The first finding.
        finding: Box<Finding>,
    },
    /// An end of the segment is not readable.
    #[error("{}: {source}", path.display())]
    Format {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: FormatError,
    },
    /// What was read back is not what was there.
    #[error("{}: what was written does not read back as the segment: {what}", path.display())]
    Differs {
        /// The temporary, which was removed.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// Somebody else compresses this trail.
    #[error("{}: another process compresses this trail", .0.display())]
    Busy(PathBuf),
}

/// A segment's file, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Its number.
    pub segment: u64,
    /// Seq of its first record.
    pub first_seq: u64,
}

impl Segment {
    /// Its file name.
    #[must_use]
    pub fn name(&self) -> String {
        name::segment(self.segment, self.first_seq)
    }
}

/// Rewrites the segments of one trail. There is one at a time, whatever the number of processes.
#[derive(Debug)]
pub struct Rewriter {
    dir: PathBuf,
    compressor: Compressor,
    /// The directory, locked: a writer has its own lock.
    locked: File,
}

impl Rewriter {
    /// For the trail in `dir`, at a Zstandard level of [`LEVELS`](crate::codec::LEVELS).
    ///
    /// # Errors
    /// The directory cannot be opened, or another rewriter has it.
    pub fn new(dir: &Path, level: i32) -> Result<Self, RewriteError> {
        let locked = File::open(dir).map_err(io("open", dir))?;
        match locked.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RewriteError::Busy(dir.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io("lock", dir)(source)),
        }
        let this = Self { dir: dir.to_owned(), compressor: Compressor::new(level), locked };
        this.remove_left_over()?;
        Ok(this)
    }

    /// The segments of the trail, oldest first.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn segments(&self) -> Result<Vec<Segment>, RewriteError> {
        let mut segments: Vec<_> = self
            .names()?
            .into_iter()
            .filter_map(|name| match name {
                Name::Segment { segment, first_seq } => Some(Segment { segment, first_seq }),
                _ => None,
            })
            .collect();
        segments.sort_unstable();
        Ok(segments)
    }

    /// Rewrites `segment`, which `next` follows. `pause` is called before each frame: it may take
    /// its time, and may end it.
    ///
    /// # Errors
    /// [`RewriteError`]; the segment is as it was, and no temporary is left unless the system
    /// refuses to remove it.
    pub fn rewrite(
        &mut self,
        segment: &Segment,
        next: &Segment,
        pause: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Rewritten, RewriteError> {
        if segment.segment.checked_add(1) != Some(next.segment) {
            return Ok(Rewritten::NotSettled);
        }
        let path = self.dir.join(segment.name());
        // Held until the name is its successor's: whoever removes old segments does not remove it meanwhile, and what
        // was removed does not come back.
        let held = File::open(&path).map_err(io("open", &path))?;
        match held.try_lock_shared() {
            Ok(()) if held.metadata().map_err(io("look at", &path))?.nlink() > 0 => {}
            Ok(()) | Err(TryLockError::WouldBlock) => return Ok(Rewritten::NotSettled),
            Err(TryLockError::Error(source)) => return Err(io("lock", &path)(source)),
        }
        let Some(follows) = read_header(&self.dir.join(next.name()))? else {
            return Ok(Rewritten::NotSettled);
        };
        let Some(trailer) = read_trailer(&path)? else { return Ok(Rewritten::NotSettled) };
        if trailer.chain_crc() != follows.prev_crc || trailer.end_seq() != next.first_seq {
            return Ok(Rewritten::NotSettled);
        }
        if trailer.first_crc.is_some() {
            return Ok(Rewritten::Already);
        }
        let temporary = self.dir.join(name::temporary(segment.segment));
        let done = self.replace(segment, &path, &temporary, pause);
        if !matches!(done, Ok(Rewritten::Smaller { .. })) {
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound && done.is_ok() => {
                    return Err(io("remove", &temporary)(error));
                }
                _ => {}
            }
        }
        done
    }

    /// Writes the temporary, checks it, and renames it.
    fn replace(
        &mut self,
        segment: &Segment,
        path: &Path,
        temporary: &Path,
        pause: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Rewritten, RewriteError> {
        let before = fs::metadata(path).map_err(io("look at", path))?.len();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(temporary)
            .map_err(io("create", temporary))?;
        let mut draft = Draft::new(&file, &mut self.compressor);
        let written = read(path, segment, &mut |event| {
            let flow = match event {
                Event::Frame { header, .. } => {
                    draft.announced = header.announced;
                    pause()
                }
                _ => ControlFlow::Continue(()),
            };
            draft.take(event).map_err(io("write", temporary))?;
            Ok(flow)
        })?;
        let Some(old) = written else { return Ok(Rewritten::Stopped) };
        let (Some(header), Some(trailer)) = (&old.header, &old.trailer) else {
            return Ok(Rewritten::NotSettled);
        };
        let (trailer, after) = draft.finish(trailer).map_err(io("write", temporary))?;
        if after >= before {
            return Ok(Rewritten::NotSmaller);
        }
        file.sync_all().map_err(io("sync", temporary))?;
        if check(temporary, segment, header, &trailer, pause)?.is_break() {
            return Ok(Rewritten::Stopped);
        }
        copy_owner(path, &file).map_err(io("set the owner of", temporary))?;
        fs::rename(temporary, path).map_err(io("rename", temporary))?;
        self.locked.sync_all().map_err(io("sync", &self.dir))?;
        Ok(Rewritten::Smaller { before, after })
    }

    /// Temporaries of segments that have their names are what a rewriter has left that was killed.
    fn remove_left_over(&self) -> Result<(), RewriteError> {
        let last = self.segments()?.last().map_or(0, |last| last.segment);
        for name in self.names()? {
            if let Name::Temporary { segment } = name
                && segment < last
            {
                let path = self.dir.join(name::temporary(segment));
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(io("remove", &path)(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<Name>, RewriteError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io("list", &self.dir))? {
            let name = entry.map_err(io("list", &self.dir))?.file_name();
            names.extend(name.to_str().and_then(Name::parse));
        }
        Ok(names)
    }
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RewriteError {
    let path = path.to_owned();
    move |source| RewriteError::Io { operation, path, source }
}

/// Owner and mode stay what they were.
fn copy_owner(from: &Path, to: &File) -> io::Result<()> {
    let (old, new) = (fs::metadata(from)?, to.metadata()?);
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        std::os::unix::fs::fchown(to, Some(old.uid()), Some(old.gid()))?;
    }
    to.set_permissions(old.permissions())
}

/// Reads a segment with every check. The visitor may end it, and then there is no outcome.
fn read(
    path: &Path,
    segment: &Segment,
    visit: &mut dyn FnMut(Event<'_>) -> Result<ControlFlow<()>, RewriteError>,
) -> Result<Option<Outcome>, RewriteError> {
    let Segment { segment, first_seq } = *segment;
    let expect = Expect { segment, first_seq, trail_id: None, merkle: true };
    let mut scanner = Scanner::with_hashing(expect, Reading::new());
    let mut file = File::open(path).map_err(io("open", path))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let len = match file.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(io("read", path))?,
        };
        if len == 0 {
            scanner.end();
        }
        scanner.push(&chunk[..len]);
        while let Some(event) = scanner.next_event() {
            if let Event::Finding(finding) = event {
                let (path, finding) = (path.to_owned(), Box::new(finding));
                return Err(RewriteError::Damaged { path, finding });
            }
            if visit(event)?.is_break() {
                return Ok(None);
            }
        }
        if len == 0 {
            return Ok(Some(scanner.outcome()));
        }
    }
}

/// Reads the new file back. The reader compares its frames with its trailer; the trailer's tree,
/// which is that of every leaf, must be the old one's.
fn check(
    path: &Path,
    segment: &Segment,
    header: &SegmentHeader,
    trailer: &Trailer,
    pause: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<ControlFlow<()>, RewriteError> {
    let found = read(path, segment, &mut |event| match event {
        Event::Frame { .. } => Ok(pause()),
        _ => Ok(ControlFlow::Continue(())),
    })?;
    let Some(found) = found else { return Ok(ControlFlow::Break(())) };
    let differs = |what| Err(RewriteError::Differs { path: path.to_owned(), what });
    let Outcome { header: Some(new_header), trailer: Some(new), .. } = found else {
        return differs("header or trailer");
    };
    if new_header != *header {
        return differs("header");
    }
    let stated = Trailer { crc: new.crc, trailer_len: new.trailer_len, ..trailer.clone() };
    if new.root != stated.root || new.range != stated.range || new.blocks != stated.blocks {
        return differs("tree");
    }
    if new.tally != stated.tally || new.end_seq() != stated.end_seq() {
        return differs("counts");
    }
    if new != stated { differs("trailer") } else { Ok(ControlFlow::Continue(())) }
}

/// The header, or `None` if it is not (yet) one.
pub(crate) fn read_header(path: &Path) -> Result<Option<SegmentHeader>, RewriteError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io("open", path))?;
    let most = u64::from(graven_format::consts::ALIGN_BYTES_MAX);
    file.take(most).read_to_end(&mut bytes).map_err(io("read", path))?;
    let header = SegmentHeader::header_len(&bytes)
        .ok()
        .and_then(|len| SegmentHeader::decode(bytes.get(..len)?).ok());
    Ok(header)
}

/// The trailer at the end of the file, or `None` if it is not sealed.
pub(crate) fn read_trailer(path: &Path) -> Result<Option<Trailer>, RewriteError> {
    use std::os::unix::fs::FileExt as _;
    let file = File::open(path).map_err(io("open", path))?;
    let len = file.metadata().map_err(io("look at", path))?.len();
    let mut footer = [0; graven_format::consts::TRAILER_FOOTER_BYTES];
    let Some(footer_at) = len.checked_sub(footer.len() as u64) else { return Ok(None) };
    file.read_exact_at(&mut footer, footer_at).map_err(io("read", path))?;
    let Some(trailer_len) = Trailer::footer_len(&footer) else { return Ok(None) };
    let Some(at) = len.checked_sub(trailer_len as u64) else { return Ok(None) };
    let mut bytes = vec![0; trailer_len];
    file.read_exact_at(&mut bytes, at).map_err(io("read", path))?;
    match Trailer::decode(&bytes) {
        Ok(trailer) => Ok(Some(trailer)),
        Err(source) => Err(RewriteError::Format { path: path.to_owned(), source }),
    }
}

/// Writes all of `bytes` at the end of the file.
fn append(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)
}
