//! A driver in a directory of its own, and the little that the tests need around it.

use graven_writer::disk::{Completion, Disk, DiskChoice, FileId, IoBuf, Op, OpId, open_disk};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// Bytes of a buffer.
const BUFFER_BYTES: usize = 64 * 1024;

/// Buffers that are registered.
const BUFFERS: usize = 16;

pub(crate) struct Rig {
    pub(crate) disk: Box<dyn Disk>,
    choice: DiskChoice,
    at: TempDir,
    buffers: Vec<IoBuf>,
    next_id: u64,
    done: Vec<Completion>,
}

/// Runs a test with each driver in each place.
pub(crate) fn everywhere(test: impl Fn(&mut Rig)) {
    for place in [env!("CARGO_TARGET_TMPDIR"), "/dev/shm"] {
        for choice in [DiskChoice::Uring, DiskChoice::Sync] {
            let Ok(at) = tempfile::tempdir_in(place) else {
                eprintln!("SKIPPED: no directory in {place}");
                continue;
            };
            eprintln!("{choice:?} in {place}");
            match Rig::new(at, choice) {
                Some(mut rig) => test(&mut rig),
                None => eprintln!("SKIPPED: no io_uring here"),
            }
        }
    }
}

impl Rig {
    /// `None` if there is no io_uring and that was asked for.
    pub(crate) fn new(at: TempDir, choice: DiskChoice) -> Option<Self> {
        let (disk, buffers) = open(at.path(), choice)?;
        Some(Self { disk, choice, at, buffers, next_id: 0, done: Vec::new() })
    }

    pub(crate) fn path(&self) -> &Path {
        self.at.path()
    }

    /// Drops the driver with all that it has in flight, and opens the directory again.
    pub(crate) fn reopen(&mut self) {
        let empty = tempfile::tempdir().unwrap();
        self.disk = open(empty.path(), DiskChoice::Sync).unwrap().0;
        (self.disk, self.buffers) = open(self.at.path(), self.choice).unwrap();
        self.done.clear();
    }

    pub(crate) fn align(&self) -> usize {
        self.disk.geometry().align_bytes as usize
    }

    pub(crate) fn buffer(&mut self) -> IoBuf {
        self.buffers.pop().unwrap_or_else(|| IoBuf::new(BUFFER_BYTES).unwrap())
    }

    pub(crate) fn take_buffers(&mut self) -> Vec<IoBuf> {
        std::mem::take(&mut self.buffers)
    }

    pub(crate) fn submit(&mut self, op: Op) -> OpId {
        let id = OpId(self.next_id);
        self.next_id += 1;
        self.disk.submit(id, op);
        id
    }

    /// The next completion, whichever it is.
    pub(crate) fn next(&mut self) -> Completion {
        loop {
            if self.done.is_empty() {
                self.disk.poll(&mut self.done);
            }
            if !self.done.is_empty() {
                return self.done.remove(0);
            }
            self.disk.wait(Some(Duration::from_secs(60)));
        }
    }

    /// Runs one operation to its end; it is the only one in flight.
    pub(crate) fn run(&mut self, op: Op) -> Completion {
        let id = self.submit(op);
        let done = self.next();
        assert_eq!(done.id, id);
        done
    }

    pub(crate) fn ok(&mut self, op: Op) {
        let said = format!("{op:?}");
        if let Err(error) = self.run(op).result {
            panic!("{said}: {error}");
        }
    }

    /// The error number with which an operation ends.
    pub(crate) fn errno(&mut self, op: Op) -> i32 {
        self.run(op).result.unwrap_err().raw_os_error().unwrap()
    }

    /// Writes one aligned unit of `byte`.
    pub(crate) fn write(&mut self, file: FileId, offset: u64, byte: u8) -> Completion {
        let len = self.align();
        let mut buf = self.buffer();
        buf[..len].fill(byte);
        self.run(Op::Write { file, offset, buf, len })
    }
}

fn open(at: &Path, choice: DiskChoice) -> Option<(Box<dyn Disk>, Vec<IoBuf>)> {
    let mut buffers: Vec<_> = (0..BUFFERS).map(|_| IoBuf::new(BUFFER_BYTES).unwrap()).collect();
    match open_disk(at, choice, &mut buffers, None) {
        Ok((disk, report)) => {
            eprintln!("  {report}");
            Some((disk, buffers))
        }
        Err(error) if choice == DiskChoice::Uring && error.to_string().contains("io_uring") => None,
        Err(error) => panic!("{error}"),
    }
}

/// The whole of a file, as the driver reads it.
pub(crate) fn text_of(disk: &mut dyn Disk, name: &str) -> Vec<u8> {
    let mut text = Vec::new();
    let mut buf = vec![0; 1 << 20];
    loop {
        let len = disk.read(name, text.len() as u64, &mut buf).unwrap();
        if len == 0 {
            return text;
        }
        text.extend_from_slice(&buf[..len]);
    }
}
