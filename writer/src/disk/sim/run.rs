//! From submission to completion: what each operation checks, and what it does.

use super::kind::file_of;
use super::{Completion, Flying, Ino, Luck, Op, OpId, OpKind, SECTOR_BYTES, SimDisk};
use crate::disk::OPS_IN_FLIGHT_MAX;
use crate::disk::dir::plain_name;
use rustix::io::Errno;
use std::ops::Range;

/// The largest offset that a file can have.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

impl SimDisk {
    /// Puts an operation in flight, or ends it at once if it is malformed.
    pub(super) fn start(&mut self, id: OpId, op: Op) {
        let kind = OpKind::of(&op);
        self.trace_op(id, kind, &op);
        let number = self.count(kind);
        self.counts.insert(kind, number + 1);
        let ino = match self.admit(&op) {
            Ok(ino) => ino,
            Err(errno) => return self.finish(id, op, Err(errno)),
        };
        let stamp = self.tick();
        if let Some(file) = ino.and_then(|ino| self.store.files.get_mut(&ino)) {
            match &op {
                Op::Write { buf, len, .. } => file.stage(sectors(&op).start, &buf[..*len], stamp),
                Op::Zero { .. } => file.stage_zeros(sectors(&op), stamp),
                _ => {}
            }
        }
        let planned = self.planned.iter().find(|plan| (plan.0, plan.1) == (kind, number));
        let planned = planned.map(|plan| plan.2);
        self.flying.push(Flying { id, op, ino, stamp, written: 0, planned });
    }

    /// What every driver refuses: EINVAL, EBADF, EEXIST, EBUSY, ENAMETOOLONG, EFBIG.
    fn admit(&self, op: &Op) -> Result<Option<Ino>, Errno> {
        if self.flying.len() >= OPS_IN_FLIGHT_MAX {
            return Err(Errno::BUSY);
        }
        let align = u64::from(self.options.geometry.align_bytes);
        let range = |offset: u64, len: u64| match offset.checked_add(len) {
            _ if !offset.is_multiple_of(align) || !len.is_multiple_of(align) => Err(Errno::INVAL),
            Some(end) if end <= FILE_BYTES_MAX => Ok(()),
            _ => Err(Errno::FBIG),
        };
        match op {
            Op::Create { file, name } | Op::Open { file, name } => {
                plain_name(name)?;
                if self.open.contains_key(file) || self.is_opening(*file) {
                    return Err(Errno::EXIST);
                }
            }
            Op::Rename { from, to } => {
                plain_name(from)?;
                plain_name(to)?;
            }
            Op::Remove { name } => {
                plain_name(name)?;
            }
            Op::Write { buf, len, .. } if *len == 0 || *len > buf.len() => {
                return Err(Errno::INVAL);
            }
            Op::Write { offset, len, .. } => range(*offset, *len as u64)?,
            Op::Zero { offset, len, .. } => range(*offset, *len)?,
            Op::Allocate { len: 0, .. } => return Err(Errno::INVAL),
            Op::Allocate { len, .. } | Op::Truncate { len, .. } if *len > FILE_BYTES_MAX => {
                return Err(Errno::FBIG);
            }
            Op::Close { file } if self.flying.iter().any(|it| file_of(&it.op) == Some(*file)) => {
                return Err(Errno::BUSY);
            }
            _ => {}
        }
        let Some(file) = file_of(op) else { return Ok(None) };
        let closing = |it: &Flying| matches!(it.op, Op::Close { file: it } if it == file);
        if self.flying.iter().any(closing) {
            return Err(Errno::BADF);
        }
        self.open.get(&file).copied().map(Some).ok_or(Errno::BADF)
    }

    /// Whether the number is taken by an operation in flight.
    fn is_opening(&self, file: super::FileId) -> bool {
        let same = |it: &Flying| matches!(&it.op, Op::Create { file: it, .. } | Op::Open { file: it, .. } if *it == file);
        self.flying.iter().any(same)
    }

    /// An operation in flight gets on: a write perhaps by a part, any other to its end.
    pub(super) fn advance(&mut self, id: OpId) {
        let Some(index) = self.flying.iter().position(|flying| flying.id == id) else { return };
        if self.rng.chance(self.options.faults.split_ppm) && self.write_part(index) {
            return;
        }
        let flying = self.flying.remove(index);
        let (errno, ppm) = OpKind::of(&flying.op).fault(&self.options.faults);
        let by_chance = self.rng.chance(ppm).then_some(errno);
        let result = match flying.planned.or(by_chance) {
            Some(errno) => {
                self.fail(&flying);
                Err(errno)
            }
            None => self.perform(&flying),
        };
        self.finish(flying.id, flying.op, result);
    }

    /// Some more of a write is durable while the rest stays in flight. Returns whether that was
    /// possible: a write that makes its file longer may yet find the disk full, and has no parts.
    fn write_part(&mut self, index: usize) -> bool {
        let now = self.tick();
        let flying = &mut self.flying[index];
        let range = sectors(&flying.op);
        let from = range.start + flying.written;
        let Some(file) = flying.ino.and_then(|ino| self.store.files.get_mut(&ino)) else {
            return false;
        };
        let is_write = matches!(flying.op, Op::Write { .. }) && flying.planned.is_none();
        let fits = file.len() >= range.end * SECTOR_BYTES as u64;
        // At least one sector is left for the completion.
        let left = range.end.saturating_sub(from + 1);
        if !is_write || !fits || left == 0 {
            return false;
        }
        let part = 1 + self.rng.below(left);
        file.make_durable(from..from + part, flying.stamp, now);
        flying.written += part;
        true
    }

    /// An operation does what it should.
    pub(super) fn perform(&mut self, flying: &Flying) -> Result<(), Errno> {
        let now = self.tick();
        match &flying.op {
            Op::Create { file, name } => {
                if self.store.lookup(name).is_some() {
                    return Err(Errno::EXIST);
                }
                if self.room() == 0 {
                    return Err(Errno::NOSPC);
                }
                let ino = self.store.create(name, now);
                self.open.insert(*file, ino);
            }
            Op::Open { file, name } => {
                let ino = self.store.lookup(name).ok_or(Errno::NOENT)?;
                self.open.insert(*file, ino);
            }
            Op::Rename { from, to } => {
                if self.store.lookup(to).is_some() {
                    return Err(Errno::EXIST);
                }
                self.store.lookup(from).ok_or(Errno::NOENT)?;
                self.store.rename(from, to, now);
            }
            Op::Remove { name } => {
                self.store.lookup(name).ok_or(Errno::NOENT)?;
                self.store.remove(name, now);
            }
            Op::SyncDir => self.store.sync(flying.stamp),
            Op::Close { file } => {
                self.open.remove(file);
            }
            Op::Allocate { .. }
            | Op::Zero { .. }
            | Op::Write { .. }
            | Op::Truncate { .. }
            | Op::Sync { .. } => return self.perform_on_file(flying, now),
        }
        Ok(())
    }

    fn perform_on_file(&mut self, flying: &Flying, now: u64) -> Result<(), Errno> {
        let range = sectors(&flying.op);
        let room = self.room();
        let file = flying.ino.and_then(|ino| self.store.files.get_mut(&ino)).ok_or(Errno::BADF)?;
        let end = match flying.op {
            Op::Allocate { len, .. } => len,
            _ => range.end * SECTOR_BYTES as u64,
        };
        if end.saturating_sub(file.len()) > room {
            file.withdraw(range, flying.stamp);
            return Err(Errno::NOSPC);
        }
        match flying.op {
            // fallocate never makes a file shorter.
            Op::Allocate { len, .. } => file.reach(len, now),
            Op::Zero { .. } => file.make_cached(range, flying.stamp, now),
            Op::Write { .. } => {
                file.make_durable(range.start + flying.written..range.end, flying.stamp, now);
            }
            Op::Truncate { len, .. } => file.resize(len, now),
            Op::Sync { .. } => file.sync(flying.stamp),
            _ => {}
        }
        Ok(())
    }

    /// An operation fails on the device, which may have done it, or part of it.
    fn fail(&mut self, flying: &Flying) {
        let done = self.rng.chance(500_000);
        let direct = self.options.geometry.direct;
        match &flying.op {
            Op::SyncDir => {
                self.journal_failed = true;
                return self.store.fail_sync(flying.stamp, &mut self.rng);
            }
            Op::Rename { .. } | Op::Remove { .. } if done => {
                // Whether it could be done at all changes nothing: it has failed.
                let _ = self.perform(flying);
                return;
            }
            // Closed it is, whatever close says.
            Op::Close { file } => {
                self.open.remove(file);
                return;
            }
            _ => {}
        }
        let mut luck = Luck::new(&mut self.rng, &self.options.faults, direct);
        let Some(file) = flying.ino.and_then(|ino| self.store.files.get_mut(&ino)) else { return };
        let range = sectors(&flying.op);
        match flying.op {
            Op::Write { .. } => {
                file.fail_write(range.start + flying.written..range.end, flying.stamp, &mut luck);
            }
            Op::Sync { .. } => file.fail_sync(flying.stamp, &mut luck),
            Op::Zero { .. } => file.withdraw(range, flying.stamp),
            _ => {}
        }
    }

    /// The end of an operation, with its buffer.
    fn finish(&mut self, id: OpId, op: Op, result: Result<(), Errno>) {
        self.trace.number(id.0);
        self.trace.number(result.map_or_else(|errno| errno.raw_os_error() as u64, |()| 0));
        let buf = if let Op::Write { buf, .. } = op { Some(buf) } else { None };
        self.ready.push(Completion { id, result: result.map_err(Into::into), buf });
    }

    /// Bytes by which files can still grow.
    pub(super) fn room(&self) -> u64 {
        self.options.capacity_bytes.saturating_sub(self.store.used_bytes())
    }

    /// Adds a submission to the trace.
    fn trace_op(&mut self, id: OpId, kind: OpKind, op: &Op) {
        self.trace.number(id.0);
        self.trace.number(kind as u64);
        self.trace.number(file_of(op).map_or(u64::MAX, |file| u64::from(file.0)));
        match op {
            Op::Create { file, name } | Op::Open { file, name } => {
                self.trace.number(u64::from(file.0));
                self.trace.bytes(name.as_bytes());
            }
            Op::Rename { from, to } => {
                self.trace.bytes(from.as_bytes());
                self.trace.bytes(to.as_bytes());
            }
            Op::Remove { name } => self.trace.bytes(name.as_bytes()),
            Op::Allocate { len, .. } | Op::Truncate { len, .. } => self.trace.number(*len),
            Op::Zero { offset, len, .. } => {
                self.trace.number(*offset);
                self.trace.number(*len);
            }
            Op::Write { offset, buf, len, .. } => {
                self.trace.number(*offset);
                // The checksum stands for the bytes: it is fast, and they are many.
                let bytes = &buf[..(*len).min(buf.len())];
                self.trace.number(u64::from(crc32fast::hash(bytes)));
            }
            Op::Sync { .. } | Op::SyncDir | Op::Close { .. } => {}
        }
    }
}

/// The sectors that a `Write` or `Zero` covers; none for others.
pub(super) fn sectors(op: &Op) -> Range<u64> {
    let (offset, len) = match op {
        Op::Write { offset, len, .. } => (*offset, *len as u64),
        Op::Zero { offset, len, .. } => (*offset, *len),
        _ => (0, 0),
    };
    let sector = SECTOR_BYTES as u64;
    offset / sector..(offset + len) / sector
}
