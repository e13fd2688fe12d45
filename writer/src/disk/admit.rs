//! What both drivers check before an operation may go to the kernel.

use super::dir::plain_name;
use super::progress::Progress;
use super::{Completion, FileId, Geometry, IoBuf, Op, OpId};
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::ffi::CString;

/// The largest offset that a file can have (`loff_t`).
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// An operation that has been found well-formed.
#[derive(Debug)]
pub(super) enum Work {
    Open { file: FileId, name: CString, create: bool },
    Allocate { file: FileId, len: u64 },
    Zero { file: FileId, progress: Progress },
    Write { file: FileId, progress: Progress, buf: IoBuf },
    Truncate { file: FileId, len: u64 },
    Sync { file: FileId },
    Rename { from: CString, to: CString },
    Remove { name: CString },
    SyncDir,
    Close { file: FileId },
}

impl Work {
    /// Checks `op`, or gives its buffer back with the reason for its refusal: EINVAL for a name
    /// that is not plain or a range that is not aligned, ENAMETOOLONG, EFBIG.
    pub(super) fn new(op: Op, geometry: Geometry) -> Result<Self, (Errno, Option<IoBuf>)> {
        let align = u64::from(geometry.align_bytes);
        let name = |name: String| plain_name(&name).map_err(|errno| (errno, None));
        let size = |len: u64| if len <= FILE_BYTES_MAX { Ok(len) } else { Err(Errno::FBIG) };
        Ok(match op {
            Op::Create { file, name: it } => Self::Open { file, name: name(it)?, create: true },
            Op::Open { file, name: it } => Self::Open { file, name: name(it)?, create: false },
            Op::Allocate { file, len } => {
                Self::Allocate { file, len: size(len).map_err(|errno| (errno, None))? }
            }
            Op::Truncate { file, len } => {
                Self::Truncate { file, len: size(len).map_err(|errno| (errno, None))? }
            }
            Op::Zero { file, offset, len } => match range(offset, len, align) {
                Ok(progress) => Self::Zero { file, progress },
                Err(errno) => return Err((errno, None)),
            },
            Op::Write { file, offset, buf, len } => match range(offset, len as u64, align) {
                Ok(progress) if len > 0 && len <= buf.len() => Self::Write { file, progress, buf },
                Ok(_) => return Err((Errno::INVAL, Some(buf))),
                Err(errno) => return Err((errno, Some(buf))),
            },
            Op::Sync { file } => Self::Sync { file },
            Op::Rename { from, to } => Self::Rename { from: name(from)?, to: name(to)? },
            Op::Remove { name: it } => Self::Remove { name: name(it)? },
            Op::SyncDir => Self::SyncDir,
            Op::Close { file } => Self::Close { file },
        })
    }

    /// The open file that this needs and must not lose while it is in flight.
    pub(super) fn file(&self) -> Option<FileId> {
        match self {
            Self::Allocate { file, .. }
            | Self::Zero { file, .. }
            | Self::Write { file, .. }
            | Self::Truncate { file, .. }
            | Self::Sync { file } => Some(*file),
            Self::Open { .. }
            | Self::Close { .. }
            | Self::Rename { .. }
            | Self::Remove { .. }
            | Self::SyncDir => None,
        }
    }

    /// Whether the end of this makes data durable, so that its failure may not be followed by a
    /// success on the same file.
    pub(super) fn is_barrier(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Sync { .. })
    }

    /// The end of this work.
    pub(super) fn complete(self, id: OpId, result: Result<(), Errno>) -> Completion {
        let buf = if let Self::Write { buf, .. } = self { Some(buf) } else { None };
        Completion { id, result: result.map_err(Into::into), buf }
    }
}

/// The range of a write, if it is aligned and a file can have it.
fn range(offset: u64, len: u64, align: u64) -> Result<Progress, Errno> {
    if !offset.is_multiple_of(align) || !len.is_multiple_of(align) {
        return Err(Errno::INVAL);
    }
    match offset.checked_add(len) {
        Some(end) if end <= FILE_BYTES_MAX => Ok(Progress::new(offset, len)),
        _ => Err(Errno::FBIG),
    }
}

/// The end of an operation that was never begun.
pub(super) fn refuse(id: OpId, op: Op, errno: Errno) -> Completion {
    let buf = if let Op::Write { buf, .. } = op { Some(buf) } else { None };
    Completion { id, result: Err(errno.into()), buf }
}

/// The open files of a driver, by the engine's number, each with what the driver keeps of it.
#[derive(Debug)]
pub(super) struct Files<T>(HashMap<FileId, File<T>>);

#[derive(Debug)]
struct File<T> {
    /// Absent while it is being opened or closed: the number is taken, the file is not usable.
    open: Option<T>,
    /// Operations in flight.
    busy: u32,
    /// The first failure of a barrier.
    failed: Option<Errno>,
}

impl<T> Files<T> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    /// Takes a number for a file that is about to be opened; EEXIST if it is in use.
    pub(super) fn reserve(&mut self, file: FileId) -> Result<(), Errno> {
        if self.0.contains_key(&file) {
            return Err(Errno::EXIST);
        }
        self.0.insert(file, File { open: None, busy: 0, failed: None });
        Ok(())
    }

    /// The file is open.
    pub(super) fn opened(&mut self, file: FileId, open: T) {
        self.0.insert(file, File { open: Some(open), busy: 0, failed: None });
    }

    /// Gives the number back.
    pub(super) fn forget(&mut self, file: FileId) {
        self.0.remove(&file);
    }

    /// An open file; EBADF if the number means none.
    pub(super) fn get(&self, file: FileId) -> Result<&T, Errno> {
        self.0.get(&file).and_then(|it| it.open.as_ref()).ok_or(Errno::BADF)
    }

    /// Begins an operation on an open file: EBADF if it is none, its first failure if it has
    /// failed and this is a barrier.
    pub(super) fn begin(&mut self, file: FileId, barrier: bool) -> Result<(), Errno> {
        self.check(file, barrier)?;
        if let Some(it) = self.0.get_mut(&file) {
            it.busy += 1;
        }
        Ok(())
    }

    /// Whether an operation on this file may still go to the kernel; errors as [`Files::begin`].
    pub(super) fn check(&self, file: FileId, barrier: bool) -> Result<(), Errno> {
        let it = self.0.get(&file).filter(|it| it.open.is_some()).ok_or(Errno::BADF)?;
        it.failed.filter(|_| barrier).map_or(Ok(()), Err)
    }

    /// Ends an operation on an open file. A barrier that ends well after another has failed has
    /// failed too.
    pub(super) fn end(
        &mut self,
        file: FileId,
        barrier: bool,
        result: Result<(), Errno>,
    ) -> Result<(), Errno> {
        let Some(it) = self.0.get_mut(&file) else { return result };
        it.busy = it.busy.saturating_sub(1);
        if !barrier {
            return result;
        }
        if let Err(errno) = result {
            it.failed.get_or_insert(errno);
        }
        result.and(it.failed.map_or(Ok(()), Err))
    }

    /// Takes an open file to close it: EBADF if there is none, EBUSY with operations in flight.
    /// The number stays taken until [`Files::forget`].
    pub(super) fn close(&mut self, file: FileId) -> Result<T, Errno> {
        let it = self.0.get_mut(&file).ok_or(Errno::BADF)?;
        if it.busy > 0 {
            return Err(Errno::BUSY);
        }
        it.open.take().ok_or(Errno::BADF)
    }
}

/// A queue in front of something that takes one operation at a time.
#[derive(Debug, Default)]
pub(super) struct Lane {
    taken: bool,
    waiting: VecDeque<usize>,
}

impl Lane {
    /// Whether operation `slot` may start now; if not it waits its turn.
    pub(super) fn enter(&mut self, slot: usize) -> bool {
        if self.taken {
            self.waiting.push_back(slot);
            return false;
        }
        self.taken = true;
        true
    }

    /// The operation that had the lane is over; the next one, if any, has it now.
    pub(super) fn leave(&mut self) -> Option<usize> {
        let next = self.waiting.pop_front();
        self.taken = next.is_some();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry { align_bytes: 4096, direct: true };
    const FILE: FileId = FileId(1);

    #[test]
    fn a_refused_write_gives_its_buffer_back() {
        let write = |offset, len| {
            let buf = IoBuf::new(8192).unwrap();
            Work::new(Op::Write { file: FILE, offset, buf, len }, GEOMETRY)
        };
        assert!(write(4096, 8192).is_ok());
        for (offset, len) in [(512, 4096), (0, 512), (0, 0), (0, 12288)] {
            let (errno, buf) = write(offset, len).unwrap_err();
            assert_eq!((errno, buf.is_some()), (Errno::INVAL, true), "{offset} {len}");
        }
        let (errno, buf) = write(FILE_BYTES_MAX + 1 - 4096, 8192).unwrap_err();
        assert_eq!((errno, buf.is_some()), (Errno::FBIG, true));
    }

    #[test]
    fn a_failed_file_stays_failed_for_barriers_until_it_is_opened_anew() {
        let mut files = Files::new();
        files.reserve(FILE).unwrap();
        assert_eq!(files.reserve(FILE), Err(Errno::EXIST));
        assert_eq!(files.begin(FILE, true), Err(Errno::BADF), "still opening");
        files.opened(FILE, ());
        files.begin(FILE, true).unwrap();
        files.begin(FILE, true).unwrap();
        assert_eq!(files.close(FILE), Err(Errno::BUSY));
        assert_eq!(files.end(FILE, true, Err(Errno::IO)), Err(Errno::IO));
        assert_eq!(files.end(FILE, true, Ok(())), Err(Errno::IO), "was in flight beside it");
        assert_eq!(files.begin(FILE, true), Err(Errno::IO));
        files.begin(FILE, false).unwrap();
        assert_eq!(files.end(FILE, false, Err(Errno::NOSPC)), Err(Errno::NOSPC));
        files.close(FILE).unwrap();
        assert_eq!(files.begin(FILE, true), Err(Errno::BADF));
        files.forget(FILE);
        files.reserve(FILE).unwrap();
        files.opened(FILE, ());
        files.begin(FILE, true).unwrap();
    }

    #[test]
    fn a_lane_takes_one_at_a_time_in_order() {
        let mut lane = Lane::default();
        assert!(lane.enter(1));
        assert!(!lane.enter(2));
        assert!(!lane.enter(3));
        assert_eq!(lane.leave(), Some(2));
        assert!(!lane.enter(4));
        assert_eq!([lane.leave(), lane.leave(), lane.leave()], [Some(3), Some(4), None]);
        assert!(lane.enter(5));
    }
}
