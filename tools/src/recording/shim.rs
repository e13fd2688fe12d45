//! Being the reader of the kernel shim, as `record` and `run` are.

use crate::config::read::read_bounded;
use crate::daemon::rules_file;
use crate::exit::Exit;
use crate::recording::{Failure, self_test};
use graven_shim_abi::{
    HOOK_BIND, HOOK_CHANGED, HOOK_CONNECT, HOOK_LINKED, HOOK_LOOKED, HOOK_MADE, HOOK_NAMES,
    HOOK_OPENED, HOOK_RECEIVED, HOOK_REMOVED, HOOK_RENAMED, HOOK_SEND,
};
use graven_writer::Trail;
use graven_writer::source::netlink::Stop;
use graven_writer::source::shim::{
    self, Device, Kernel, Memory, Past, Rules, ShimError, Status, Summary, rules,
};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What it means for those who make records that the disk has no room.
pub const PRODUCERS_WITHOUT_ROOM: &str =
    "processes wait before the system calls that are recorded; nothing is dropped";

/// The shim, with what the trail says of earlier sessions.
#[derive(Debug)]
pub struct Shim {
    /// Its device, of which this process is the reader.
    pub device: Device,
    memory: Memory,
    past: Past,
    /// Whether a session has removed its rules, to end.
    ended: Mutex<bool>,
}

impl Shim {
    /// Becomes the reader; the trail in `dir` is open.
    ///
    /// # Errors
    /// [`Failure`] with [`Exit::KernelAudit`], or the end of the trail cannot be read.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let past = Past::read(dir)?;
        Ok(Self { past, ..Self::open_alone()? })
    }

    /// The same without a trail.
    ///
    /// # Errors
    /// [`Failure`] with [`Exit::KernelAudit`].
    pub fn open_alone() -> Result<Self, Failure> {
        let device = Device::reader().map_err(|why| failure(&why))?;
        let memory = Memory::map(device.file()).map_err(|why| failure(&why))?;
        let missing = device.status().map_err(|why| failure(&why))?;
        let missing = missing.hooks_wanted & !missing.hooks;
        if missing != 0 {
            let title = format!("the kernel module lacks hooks: {}", hooks(missing).join(", "));
            return Err(Failure::new(Exit::KernelAudit, &title)
                .note("records would say of some fields that they were not captured")
                .help("the kernel's log says why: `dmesg | grep graven`"));
        }
        Ok(Self { device, memory, past: Past::default(), ended: Mutex::new(false) })
    }

    /// The rings.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Has the module show that it sees what it should, unless it has records that nobody has read: then it has
    /// worked, and these come first.
    ///
    /// # Errors
    /// [`Failure`]: nothing is recorded by a module that does not.
    pub fn prove(&mut self) -> Result<(), Failure> {
        let unread = |ring| self.memory.head(ring) != self.memory.tail(ring);
        let status = self.device.status().map_err(|why| failure(&why))?;
        // Rules that are there are somebody's who was killed: nobody may escape them for a moment.
        if status.rules > 0 || (0..self.memory.rings()).any(unread) {
            return Ok(());
        }
        let taken = self_test::run(self)?.take(self)?;
        self.past.set_tested(taken);
        Ok(())
    }

    /// Replaces the rules while a session goes on, or before it. Not when it has removed them: nobody would read what began
    /// to be recorded after that.
    ///
    /// # Errors
    /// [`Failure`] with [`Exit::KernelAudit`]; the rules are as they were.
    pub fn change_rules(&self, rules: &Rules) -> Result<(), Failure> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if *ended {
            return Err(Failure::new(Exit::KernelAudit, "recording ends: its rules are gone"));
        }
        self.device.set_rules(rules).map_err(|why| failure(&why))
    }

    /// Reads into `trail` until asked to stop; rules are gone then.
    ///
    /// # Errors
    /// [`Failure`]. If the trail does not take records any more, closing it tells why.
    pub fn receive(&self, trail: &Trail, stop: &Stop) -> Result<Summary, Failure> {
        let watermark = trail.watermark();
        shim::receive(self, &self.memory, trail, &watermark, &self.past, stop).map_err(|why| {
            failure(&why).note("what was not durable is in the module's rings still")
        })
    }
}

/// To a session, which changes rules only to remove them and end.
impl Kernel for Shim {
    fn advanced(&self) -> Result<(), ShimError> {
        self.device.advanced()
    }

    fn set_rules(&self, rules: &Rules) -> Result<(), ShimError> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        *ended = true;
        self.device.set_rules(rules)
    }

    fn status(&self) -> Result<Status, ShimError> {
        self.device.status()
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.device.readable()
    }
}

/// A file of rules that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesFile {
    /// Where it is.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
    /// What it says.
    pub rules: Rules,
}

impl RulesFile {
    /// Reads it.
    ///
    /// # Errors
    /// [`Failure`] with [`Exit::CannotCheck`]: it cannot be read, or a rule is wrong, which is said with its line.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let place = crate::escape::path(path);
        let bytes = read_bounded(path, rules_file::FILE_BYTES_MAX);
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
        let text = text.map_err(|why| {
            Failure::new(Exit::CannotCheck, &format!("cannot read the rules: {why}"))
                .at(place.clone())
        })?;
        let rules = rules::parse(&text).map_err(|why| {
            Failure::new(Exit::CannotCheck, &why.to_string())
                .at(place)
                .help("a rule is such as `-a always,exit -F arch=b64 -S execve -F auid=1000`")
        })?;
        Ok(Self { path: path.to_owned(), text, rules })
    }
}

/// A failure of the shim.
#[must_use]
pub fn failure(why: &ShimError) -> Failure {
    let text = why.to_string();
    match text.split_once("; help: ") {
        Some((title, help)) => Failure::new(Exit::KernelAudit, title).help(help),
        None => Failure::new(Exit::KernelAudit, &text),
    }
}

/// The hooks of these bits, in words.
#[must_use]
pub fn hooks(bits: u32) -> Vec<&'static str> {
    const HOOKS: [(u32, &str); 12] = [
        (HOOK_NAMES, "names"),
        (HOOK_OPENED, "opened"),
        (HOOK_CHANGED, "changed"),
        (HOOK_RENAMED, "renamed"),
        (HOOK_LINKED, "linked"),
        (HOOK_REMOVED, "removed"),
        (HOOK_CONNECT, "connect"),
        (HOOK_BIND, "bind"),
        (HOOK_SEND, "send"),
        (HOOK_RECEIVED, "received"),
        (HOOK_LOOKED, "looked"),
        (HOOK_MADE, "made"),
    ];
    HOOKS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect()
}
