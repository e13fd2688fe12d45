//! The process itself: how the system treats it when memory or time is short, and what it may do. All of this is done
//! before any other thread is there, because the kernel keeps niceness and capabilities a thread; only the one that
//! writes to standard error is, which has given up all.

use crate::config::{Config, ProcessSection};
use crate::diag::Diagnostic;
use crate::escape;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Memory beside the ring that is locked at most; what is measured is below half of it.
const BESIDE_THE_RING_BYTES: u64 = 64 << 20;

/// What recording needs once its sockets are open: to ask and tell the kernel's audit, to write the heartbeat, and to
/// have its ring registered with io_uring.
const NEEDED: CapabilitySet =
    CapabilitySet::AUDIT_CONTROL.union(CapabilitySet::AUDIT_WRITE).union(CapabilitySet::IPC_LOCK);

/// What it needs besides if the trail, or where checkpoints go, belongs to somebody else.
const FOREIGN: CapabilitySet =
    CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::DAC_READ_SEARCH).union(CapabilitySet::FOWNER);

/// Does what the configuration asks for, and says what cannot be done: none of it keeps from recording.
pub fn settle(config: &Config, memory_bytes: u64) {
    let ProcessSection { oom_score, priority, mlock, drop_capabilities, .. } = &config.process;
    if let Err(why) = set_oom_score(oom_score.0) {
        cannot(&format!("set process.oom_score to {}", oom_score.0), &why)
            .help("it takes CAP_SYS_RESOURCE; OOMScoreAdjust= of a service sets it too")
            .emit();
    }
    let priority = i32::try_from(priority.0).unwrap_or_default();
    if let Err(why) = setpriority_process(None, priority) {
        cannot(&format!("set process.priority to {priority}"), &why.into())
            .help("it takes CAP_SYS_NICE; Nice= of a service sets it too")
            .emit();
    }
    if *mlock && let Err(why) = lock_memory(memory_bytes + BESIDE_THE_RING_BYTES) {
        cannot("keep memory out of swap", &why)
            .help("it takes CAP_IPC_LOCK, or LimitMEMLOCK=infinity of a service; or set process.mlock = false")
            .emit();
    }
    if *drop_capabilities && let Err(why) = drop_to(needed(config)) {
        cannot("give up capabilities", &why)
            .note("recording goes on with those that there are")
            .emit();
    }
}

fn cannot(what: &str, why: &io::Error) -> Diagnostic {
    let why = escape::Escaped(why.to_string().as_bytes()).to_string();
    Diagnostic::warning(format!("cannot {what}: {why}"))
}

fn set_oom_score(score: i64) -> io::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    // Whoever has set it to that is not asked for more.
    if std::fs::read_to_string(FILE)?.trim() == score.to_string() {
        return Ok(());
    }
    std::fs::write(FILE, score.to_string())
}

/// Keeps memory out of swap from when it is first used, unless the limit would then refuse some of it later.
fn lock_memory(bytes: u64) -> io::Result<()> {
    let unlimited = Rlimit { current: None, maximum: None };
    let has_capability = capabilities(None)?.effective.contains(CapabilitySet::IPC_LOCK);
    if !has_capability && setrlimit(Resource::Memlock, unlimited).is_err() {
        let limit = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
        if limit < bytes {
            let text = format!("{limit} bytes may be locked, and up to {bytes} would be");
            return Err(io::Error::other(text));
        }
    }
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}

/// The capabilities to keep.
fn needed(config: &Config) -> CapabilitySet {
    let kept = config.process.keep_capabilities.iter();
    let kept = kept.fold(NEEDED, |set, capability| set.union(capability.0));
    // The socket is made afterwards, and again by each writer that takes a dead one's place.
    let grouped = config.socket.group.map_or(CapabilitySet::empty(), |_| CapabilitySet::CHOWN);
    let kept = kept.union(grouped);
    let places = [
        Some(config.trail.dir.as_path()),
        config.checkpoint.to.as_deref(),
        config.socket.listen.as_deref(),
    ];
    if places.into_iter().flatten().any(is_foreign) { kept.union(FOREIGN) } else { kept }
}

/// Whether a path, or what is there of it, belongs to another user.
fn is_foreign(path: &Path) -> bool {
    let there = path.ancestors().find_map(|path| std::fs::metadata(path).ok());
    there.is_some_and(|it| it.uid() != rustix::process::geteuid().as_raw())
}

/// Gives up all others in this thread, also for what is executed later.
///
/// # Errors
/// What the system says.
pub fn drop_to(kept: CapabilitySet) -> io::Result<()> {
    let had = capabilities(None)?;
    // Of what cannot be had no more is heard either.
    if had.effective.contains(CapabilitySet::SETPCAP) {
        for capability in (CapabilitySet::all() & !kept).iter() {
            match remove_capability_from_bounding_set(capability) {
                // The kernel does not know it.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(why) => return Err(why.into()),
            }
        }
    }
    clear_ambient_capability_set()?;
    Ok(set_capabilities(
        None,
        CapabilitySets {
            effective: had.effective & kept,
            permitted: had.permitted & kept,
            inheritable: CapabilitySet::empty(),
        },
    )?)
}
