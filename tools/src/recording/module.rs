//! The kernel module itself: loading it, unloading it, and what there is to choose.

use super::Failure;
use crate::escape::{self, Escaped};
use crate::exit::Exit;
use crate::recording::shim::failure;
use graven_writer::source::shim::{Device, Policy, ShimError};
use rustix::io::Errno;
use rustix::system::{delete_module, init_module};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The module's name.
const MODULE: &str = "graven_shim";

/// What there is to do without a reader and room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NoReader {
    /// Wait on
    Block,
    /// Stop the machine
    Panic,
    /// Go on unrecorded, which is counted and stated
    Pass,
}

/// What becomes of calls of io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IoUring {
    /// They fail with EPERM
    Refuse,
    /// They succeed, and their record says that what they do is not seen
    Unseen,
}

/// How it is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loading {
    /// Its file; modprobe looks for it where the kernel's modules are if there is none.
    pub file: Option<PathBuf>,
    /// Rings; as many as there can be processors if there is none.
    pub rings: Option<u32>,
    /// Slots of each ring.
    pub slots: Option<u32>,
}

/// What is asked of it besides rules; the rest stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// What is done without a reader, and after how many milliseconds.
    pub no_reader: Option<(NoReader, u32)>,
    /// What becomes of io_uring.
    pub io_uring: Option<IoUring>,
    /// Whether it is never unloaded any more; that stays so.
    pub pin: bool,
}

impl Choice {
    /// Makes it the policy in force, of whose other half nothing changes.
    ///
    /// # Errors
    /// [`Failure`] with [`Exit::KernelAudit`].
    pub fn apply(&self, device: &Device) -> Result<(), Failure> {
        if *self == Self::default() {
            return Ok(());
        }
        self.over(device).map_err(|why| failure(&why))
    }

    fn over(&self, device: &Device) -> Result<(), ShimError> {
        use graven_writer::source::shim::Kernel as _;
        let [no_reader, no_reader_ms, io_uring, pinned] = device.status()?.policy;
        let (no_reader, no_reader_ms) =
            self.no_reader.map_or((no_reader, no_reader_ms), |(action, ms)| (action as u32, ms));
        let io_uring = self.io_uring.map_or(io_uring, |action| action as u32);
        let pinned = if self.pin { 1 } else { pinned };
        device.set_policy(&Policy { no_reader, no_reader_ms, io_uring, pinned })
    }
}

/// Loads it.
///
/// # Errors
/// [`Failure`]: there is no such module, or the kernel refuses it.
pub fn load(loading: &Loading) -> Result<(), Failure> {
    let numbers = [("rings", loading.rings), ("slots", loading.slots)];
    let given = numbers.into_iter().filter_map(|(name, number)| Some((name, number?)));
    let parameters: Vec<_> = given.map(|(name, number)| format!("{name}={number}")).collect();
    match &loading.file {
        Some(file) => insert(file, &parameters.join(" ")),
        None => probe(&parameters),
    }
}

fn insert(file: &Path, parameters: &str) -> Result<(), Failure> {
    let place = escape::path(file);
    let image = std::fs::read(file).map_err(|why| {
        Failure::new(Exit::CannotCheck, &format!("cannot read it: {why}")).at(place.clone())
    })?;
    let parameters = CString::new(parameters).unwrap_or_default();
    init_module(&image, &parameters).map_err(|why| refused("load it", why).at(place))
}

fn probe(parameters: &[String]) -> Result<(), Failure> {
    let probed = Command::new("modprobe").arg(MODULE).args(parameters).output();
    let output = probed.map_err(|why| {
        Failure::new(Exit::CannotCheck, &format!("cannot run modprobe: {why}"))
            .help("name the module's file: --module FILE, or shim.module in the configuration")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = Escaped(output.stderr.trim_ascii()).to_string();
    let title = format!("modprobe does not load {MODULE}: {said}");
    Err(Failure::new(Exit::CannotCheck, &title).help(
        "install it for this kernel (docs/kernel-shim.md), or name its file: --module FILE, or shim.module in the \
         configuration",
    ))
}

/// Unloads it.
///
/// # Errors
/// [`Failure`] with [`Exit::KernelAudit`]: somebody has its device open, or it is pinned.
pub fn unload() -> Result<(), Failure> {
    let name = CString::new(MODULE).unwrap_or_default();
    // Does not wait for whoever has it open.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    delete_module(&name, nonblock).map_err(|why| refused("unload it", why))
}

fn refused(what: &str, why: Errno) -> Failure {
    let failure = Failure::new(Exit::KernelAudit, &format!("the kernel does not {what}: {why}"));
    match why {
        Errno::PERM => failure.help(
            "be root; secure boot wants a signed module; a service that may not (ProtectKernelModules=) has it loaded \
             before it starts",
        ),
        Errno::EXIST => failure.note("it is loaded already").help("`graven shim status`"),
        Errno::NOENT => failure.note("it is not loaded"),
        Errno::AGAIN | Errno::BUSY => failure
            .note("it is in use, or pinned")
            .help("`graven shim status` names the reader; end that one first"),
        Errno::NOEXEC => {
            failure.note("it was built for another kernel").help("build it for this one")
        }
        Errno::INVAL => failure.note("the kernel's log says why").help("`dmesg | tail`"),
        _ => failure.help("the kernel's log may say more: `dmesg | tail`"),
    }
}
