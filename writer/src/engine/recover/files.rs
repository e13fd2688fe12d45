//! Recovery's own way to the disk: one operation at a time, each waited for.

use super::Recovery;
use crate::disk::{Disk, FileId, IoBuf, Op, OpId};
use crate::error::{OpenError, WriteError};
use graven_format::consts::align_up;
use std::io;
use std::sync::Arc;

/// The number of the one file that recovery has open; the engine's begin after it is closed.
pub(super) const RECOVERY_FILE: FileId = FileId(0);

impl<D: Disk> Recovery<'_, D> {
    /// Writes to the open file behind a barrier. A trail that was copied to a disk with larger
    /// blocks has segments of smaller ones: what else is in the first and last block is written
    /// again as it is.
    pub(super) fn write(
        &mut self,
        operation: &'static str,
        file: &str,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), OpenError> {
        let align_bytes = self.disk.geometry().align_bytes;
        let before = (offset % u64::from(align_bytes)) as usize;
        let end = before + bytes.len();
        let len = align_up(end as u64, align_bytes) as usize;
        let mut buf = IoBuf::new(len).map_err(|source| OpenError::Io {
            operation: "allocation of a buffer for",
            path: file.into(),
            source,
        })?;
        let offset = offset - before as u64;
        self.read_exact(file, offset, &mut buf[..before])?;
        buf[before..end].copy_from_slice(bytes);
        let mut at = end;
        while at < len {
            match self.read(file, offset + at as u64, &mut buf[at..len])? {
                0 => break,
                read => at += read,
            }
        }
        self.run(operation, file, Op::Write { file: RECOVERY_FILE, offset, buf, len })
    }

    pub(super) fn open(&mut self, name: &str) -> Result<(), OpenError> {
        self.run("opening", name, Op::Open { file: RECOVERY_FILE, name: name.to_owned() })
    }

    /// Cuts the open file and closes it.
    pub(super) fn cut(&mut self, name: &str, len: u64) -> Result<(), OpenError> {
        self.run("truncation", name, Op::Truncate { file: RECOVERY_FILE, len })?;
        self.run("sync", name, Op::Sync { file: RECOVERY_FILE })?;
        self.run("closing", name, Op::Close { file: RECOVERY_FILE })
    }

    pub(super) fn remove(&mut self, name: &str) -> Result<(), OpenError> {
        self.run("removal", name, Op::Remove { name: name.to_owned() })?;
        self.run("sync of the directory", name, Op::SyncDir)
    }

    /// Submits one operation and waits for it.
    pub(super) fn run(
        &mut self,
        operation: &'static str,
        file: &str,
        op: Op,
    ) -> Result<(), OpenError> {
        let id = OpId(self.next_op);
        self.next_op += 1;
        self.disk.submit(id, op);
        let mut done = Vec::new();
        loop {
            self.disk.poll(&mut done);
            if let Some(completion) = done.pop() {
                debug_assert_eq!(completion.id, id);
                return completion.result.map_err(|source| {
                    OpenError::Write(WriteError {
                        operation,
                        file: file.to_owned(),
                        offset: None,
                        durable: 0,
                        accepted: 0,
                        no_room: false,
                        source: Arc::new(source),
                    })
                });
            }
            self.disk.wait(None);
        }
    }

    pub(super) fn read(
        &mut self,
        name: &str,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, OpenError> {
        self.disk.read(name, offset, buf).map_err(|source| OpenError::Io {
            operation: "reading",
            path: name.into(),
            source,
        })
    }

    pub(super) fn read_exact(
        &mut self,
        name: &str,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), OpenError> {
        let mut have = 0;
        while have < buf.len() {
            let read = self.read(name, offset + have as u64, &mut buf[have..])?;
            if read == 0 {
                let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(OpenError::Io { operation: "reading", path: name.into(), source });
            }
            have += read;
        }
        Ok(())
    }
}
