//! What the daemon says of itself in the trail (FAU_GEN.1): the same words in the same order as auditd, so that whoever
//! reads its `DAEMON_START` reads ours.

use super::who::Who;
use graven_writer::clock::{self, Now};
use graven_writer::own::{self, Own};
use sha2::{Digest as _, Sha256};
use std::path::Path;

fn new(kind: u16, op: &str) -> Own {
    let Now { realtime_ns, boottime_ns } = clock::now();
    Own::new(kind, op, Now { realtime_ns, boottime_ns })
}

/// `DAEMON_START`: recording begins.
#[must_use]
pub fn start(myself: &Who) -> Own {
    let kernel = rustix::system::uname();
    let own = new(own::START, "start")
        .field("ver", env!("CARGO_PKG_VERSION"))
        .field("format", "raw")
        // The kernel's name is of its builder's making, and a word.
        .field(
            "kernel",
            kernel.release().to_string_lossy().replace(|c: char| !c.is_ascii_graphic(), "_"),
        );
    myself.started(own).result(true)
}

/// `DAEMON_CONFIG`: the configuration in force, by its file and the hash of what is in it.
#[must_use]
pub fn config(file: &Path, text: &[u8], myself: &Who) -> Own {
    let own = new(own::CONFIG, "config").text("file", file.as_os_str().as_encoded_bytes());
    myself.asked(own.field("sha256", hex(&Sha256::digest(text)))).result(true)
}

/// `DAEMON_CONFIG`: rules were loaded, or could not be.
#[must_use]
pub fn rules(file: &Path, text: &[u8], (added, removed): (usize, usize), success: bool) -> Own {
    let own = new(own::CONFIG, "load-rules").text("file", file.as_os_str().as_encoded_bytes());
    let own = own.field("sha256", hex(&Sha256::digest(text)));
    let own = own.field("added", added).field("removed", removed);
    // Without these fields auditd's tools take a record of this kind for a broken one.
    Who::myself().asked(own).result(success)
}

/// `DAEMON_CONFIG`: somebody had the configuration read again. auditd writes it so too: its tools do not know
/// `DAEMON_RECONFIG`.
#[must_use]
pub fn reconfigured(who: &Who, changed: &[String], waits: &[String], success: bool) -> Own {
    let state = if success && !changed.is_empty() { "changed" } else { "no-change" };
    let mut own = who.asked(new(own::CONFIG, "reconfigure").field("state", state));
    for (name, keys) in [("keys", changed), ("restart", waits)] {
        if !keys.is_empty() {
            own = own.field(name, keys.join(","));
        }
    }
    own.result(success)
}

/// `DAEMON_ROTATE`: somebody had the segment in use sealed, up to this seq.
#[must_use]
pub fn rotated(who: &Who) -> Own {
    who.asked(new(own::ROTATE, "rotate-logs")).result(true)
}

/// `DAEMON_RESUME`: somebody had recording go on, if it waited.
#[must_use]
pub fn resumed(who: &Who, success: bool) -> Own {
    who.asked(new(own::RESUME, "resume-logging")).result(success)
}

/// `DAEMON_END`: somebody ended recording.
#[must_use]
pub fn ended(who: &Who) -> Own {
    who.ended(new(own::END, "terminate")).result(true)
}

/// `DAEMON_ABORT`: recording could not go on.
#[must_use]
pub fn aborted(myself: &Who) -> Own {
    myself.asked(new(own::ABORT, "error-halt")).result(false)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
