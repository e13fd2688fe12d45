//! Being the reader of the kernel shim, as `record` and `run` are.

use crate::exit::Exit;
use crate::recording::{Failure, self_test};
use graven_shim_abi::{
    HOOK_BIND, HOOK_CHANGED, HOOK_CONNECT, HOOK_LINKED, HOOK_NAMES, HOOK_OPENED, HOOK_RECEIVED,
    HOOK_REMOVED, HOOK_RENAMED, HOOK_SEND,
};
use graven_writer::Trail;
use graven_writer::source::netlink::Stop;
use graven_writer::source::shim::{
    self, Device, Kernel as _, Memory, Past, Rules, ShimError, Summary, rules,
};
use std::path::Path;

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
        Ok(Self { device, memory, past: Past::default() })
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

    /// Reads into `trail` until asked to stop; rules are gone then.
    ///
    /// # Errors
    /// [`Failure`]. If the trail does not take records any more, closing it tells why.
    pub fn receive(&self, trail: &Trail, stop: &Stop) -> Result<Summary, Failure> {
        let watermark = trail.watermark();
        shim::receive(&self.device, &self.memory, trail, &watermark, &self.past, stop).map_err(
            |why| failure(&why).note("what was not durable is in the module's rings still"),
        )
    }
}

/// The rules that are asked for, if the source is the shim.
///
/// # Errors
/// [`Failure`]: there are none, they cannot be read, or are wrong; or there are some for another source.
pub fn wanted(is_source: bool, file: Option<&Path>) -> Result<Option<Rules>, Failure> {
    let file = match (is_source, file) {
        (false, None) => return Ok(None),
        (true, Some(file)) => file,
        (false, Some(_)) => {
            return Err(Failure::new(Exit::CannotCheck, "--shim-rules is for the source shim")
                .help("no other source reads them: leave it out"));
        }
        (true, None) => {
            return Err(Failure::new(Exit::CannotCheck, "the source shim needs --shim-rules FILE")
                .help("`-a always,exit` on a line of its own is everything"));
        }
    };
    let place = crate::escape::path(file);
    let text = std::fs::read_to_string(file).map_err(|why| {
        Failure::new(Exit::CannotCheck, &format!("cannot read the rules: {why}")).at(place.clone())
    })?;
    let rules = rules::parse(&text).map_err(|why| {
        Failure::new(Exit::CannotCheck, &why.to_string())
            .at(place)
            .help("a rule is such as `-a always,exit -F arch=b64 -S execve -F auid=1000`")
    })?;
    Ok(Some(rules))
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
    const HOOKS: [(u32, &str); 10] = [
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
    ];
    HOOKS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect()
}
