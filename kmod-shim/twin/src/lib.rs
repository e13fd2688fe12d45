//! The shim's state machine in user space: the C that runs in the kernel, compiled over a memfd that a reader maps as it
//! maps the module's device. Tests play the tasks; nothing of it is for production.
//!
//! What the module does around the core, a test does here: it sleeps when told to wait, and calls [`Twin::drain`] when tails
//! have moved.

#![deny(unsafe_code)]

mod ffi;
mod reader;

use graven_shim_abi::{
    Call, Item, NO_READER_BLOCK, NO_READER_PANIC, NO_READER_PASS, PART_CUT, PART_NO_RETURN, Status,
    VERSION,
};
pub use reader::Reader;
use rustix::fs::MemfdFlags;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// What a task does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On.
    Go,
    /// Sleep until there may be room, then ask again.
    Wait,
    /// On, unrecorded: [`Task::pass`] counts it; a record that is complete becomes an orphan.
    Pass,
    /// The machine stops.
    Panic,
}

/// What is done without a reader and without room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReader {
    /// Wait.
    Block,
    /// Stop the machine, after a time.
    Panic,
    /// Let calls go on unrecorded after a time, counted.
    Pass,
}

struct Inner {
    core: ffi::Core,
    memory: File,
    instance: u64,
}

/// Rings in a memfd, and the state machine that fills them.
#[derive(Clone)]
pub struct Twin(Arc<Inner>);

impl Twin {
    /// Rings that are all empty.
    ///
    /// # Errors
    /// Such rings cannot be (as the module says when it is loaded), or there is no memory for them.
    pub fn new(ring_count: u32, slots: u32, part_bytes_max: u32) -> io::Result<Self> {
        let bytes = ffi::bytes(ring_count, slots, part_bytes_max);
        if bytes == 0 {
            let what = format!(
                "{ring_count} rings of {slots} slots with parts of {part_bytes_max} bytes cannot be"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let memory = File::from(rustix::fs::memfd_create("graven-twin", MemfdFlags::CLOEXEC)?);
        memory.set_len(bytes)?;
        let instance = fastrand::u64(..);
        let core = ffi::Core::new(&memory, ring_count, slots, part_bytes_max, instance)?;
        Ok(Self(Arc::new(Inner { core, memory, instance })))
    }

    /// The memory, for a reader to map.
    ///
    /// # Errors
    /// There are no more file descriptors.
    pub fn memory(&self) -> io::Result<File> {
        self.0.memory.try_clone()
    }

    /// Its bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.0.core.len()
    }

    /// A task that has no buffer yet.
    #[must_use]
    pub fn task(&self) -> Task {
        Task { twin: self.clone(), buffer: None, state: State::Empty }
    }

    /// Puts into rings what waits: a gap, orphans. What the module does at `IOC_ADVANCED` and when the reader goes.
    pub fn drain(&self, hint: u32) {
        self.0.core.drain(hint);
    }

    /// What is done without a reader and without room, once there has been none for so long.
    pub fn set_policy(&self, no_reader: NoReader, after_ms: u32) {
        let policy = match no_reader {
            NoReader::Block => NO_READER_BLOCK,
            NoReader::Panic => NO_READER_PANIC,
            NoReader::Pass => NO_READER_PASS,
        };
        self.0.core.policy(policy, after_ms);
    }

    /// There was no room for a record: what now? `absent_ms` as in [`Task::enter`].
    #[must_use]
    pub fn full(&self, absent_ms: u32) -> Verdict {
        verdict(self.0.core.full(absent_ms))
    }

    /// What `IOC_STATUS` would say, as far as the core knows it: the rest is zero.
    #[must_use]
    pub fn status(&self) -> Status {
        let counts = self.0.core.counts();
        Status {
            instance: self.0.instance,
            order_next: counts.order_next,
            passed: counts.passed,
            bad_tails: counts.bad_tails,
            memory_bytes: counts.memory_bytes,
            version: VERSION,
            tasks: counts.buffers,
            orphans: counts.orphans,
            ..Status::default()
        }
    }
}

impl fmt::Debug for Twin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Twin").field("instance", &self.0.instance).finish_non_exhaustive()
    }
}

fn verdict(of: u32) -> Verdict {
    match of {
        0 => Verdict::Go,
        1 => Verdict::Wait,
        2 => Verdict::Pass,
        _ => Verdict::Panic,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No record.
    Empty,
    /// A record without a number, whose first part is in the buffer.
    InCall,
    /// A record with a number; so many of its parts are in rings.
    Ended { parts: u32 },
}

/// A task: what it may do next is asserted, as the module's own states make it sure there.
///
/// Dropped, it ends as it does in the module: a record that it has becomes an orphan.
pub struct Task {
    twin: Twin,
    buffer: Option<ffi::Buffer>,
    state: State,
}

impl Task {
    fn buffer(&mut self) -> &mut ffi::Buffer {
        self.buffer.as_mut().expect("a task with a record has a buffer")
    }

    /// A call is about to start. `hint`: the processor; `absent_ms`: how long there has been no reader, 0 while there is one.
    ///
    /// # Panics
    /// If the task has a record, or there is no memory for a buffer.
    pub fn enter(&mut self, hint: u32, absent_ms: u32) -> Verdict {
        assert_eq!(self.state, State::Empty, "a call starts with an empty buffer");
        if self.buffer.is_none() {
            self.buffer = Some(self.twin.0.core.buffer().expect("memory for a buffer"));
        }
        verdict(self.twin.0.core.enter(hint, absent_ms))
    }

    /// A call goes on unrecorded.
    pub fn pass(&self, now_ns: u64) {
        self.twin.0.core.pass(now_ns);
    }

    /// The record of a call begins. How many items there are is filled in later.
    ///
    /// # Panics
    /// If it was not let in with [`Task::enter`], or has a record.
    pub fn begin(&mut self, call: &Call) {
        assert_eq!(self.state, State::Empty, "one record at a time");
        self.buffer().begin(&call.to_bytes());
        self.state = State::InCall;
    }

    /// Sets the fields of the call anew, as when it ends. False: its part is in a ring already.
    pub fn call(&mut self, call: &Call) -> bool {
        if !matches!(self.state, State::InCall | State::Ended { parts: 0 }) {
            return false;
        }
        self.buffer().call(&call.to_bytes());
        true
    }

    /// The part in the buffer has these `PART_…` as well.
    ///
    /// # Panics
    /// If there is no record.
    pub fn flags(&mut self, flags: u16) {
        assert_ne!(self.state, State::Empty, "a record has begun");
        self.buffer().flags(flags);
    }

    /// The bytes that the next item may have; `None` if there is no room for one.
    #[must_use]
    pub fn item_room(&self) -> Option<u32> {
        Some(self.buffer.as_ref()?.item_room()).filter(|room| *room > 0)
    }

    /// Adds an item; of a name, its bytes start with its object. False: it does not fit into this part.
    ///
    /// # Panics
    /// If there is no record.
    pub fn item(&mut self, kind: u16, role: u16, flags: u32, index: u32, bytes: &[u8]) -> bool {
        assert_ne!(self.state, State::Empty, "a record has begun");
        self.buffer().item(Item { bytes: 0, kind, role, flags, index }, bytes)
    }

    /// The record is not wanted after all.
    ///
    /// # Panics
    /// If there is none, or it has a number.
    pub fn forget(&mut self) {
        assert_eq!(self.state, State::InCall, "a record without a number");
        self.buffer().forget();
        self.state = State::Empty;
    }

    /// The call has ended: the record gets its number, and arrives.
    ///
    /// # Panics
    /// If there is no record, or it has one.
    pub fn number(&mut self) {
        assert_eq!(self.state, State::InCall, "a record without a number");
        let buffer = self.buffer.as_mut().expect("a task with a record has a buffer");
        self.twin.0.core.number(buffer);
        self.state = State::Ended { parts: 0 };
    }

    /// Puts the part in the buffer into a ring; false: none has room. With [`PART_LAST`](graven_shim_abi::PART_LAST) the
    /// record is done then, else the next part of it begins.
    ///
    /// # Panics
    /// If there is no record with a number.
    pub fn push(&mut self, hint: u32, flags: u16) -> bool {
        let State::Ended { parts } = self.state else { panic!("a record has a number") };
        let buffer = self.buffer.as_mut().expect("a task with a record has a buffer");
        if !self.twin.0.core.push(hint, buffer, flags) {
            return false;
        }
        let last = flags & graven_shim_abi::PART_LAST != 0;
        self.state = if last { State::Empty } else { State::Ended { parts: parts + 1 } };
        true
    }

    /// The task cannot wait: its record is an orphan, in a ring at once if there is room.
    ///
    /// # Panics
    /// If there is no record with a number.
    pub fn orphan(&mut self, hint: u32, flags: u16) {
        assert!(matches!(self.state, State::Ended { .. }), "a record has a number");
        let buffer = self.buffer.take().expect("a task with a record has a buffer");
        self.twin.0.core.orphan(hint, buffer, flags);
        self.state = State::Empty;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut flags = PART_CUT;
        if self.state == State::InCall {
            self.number();
            flags |= PART_NO_RETURN;
        }
        if self.state == State::Empty {
            if let Some(buffer) = self.buffer.take() {
                self.twin.0.core.free(buffer);
            }
        } else {
            self.orphan(0, flags);
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("state", &self.state).finish_non_exhaustive()
    }
}
