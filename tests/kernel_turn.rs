//! Whose turn it is at the kernel's audit, which there is once for all processes of a machine.
//!
//! Not a crate: included by the tests that need it, and through a symbolic link by the benchmarks in `tools`.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Keys of the rules that holders of the turn add.
const KEYS: [&str; 6] =
    ["e2e-storm", "e2e-one", "e2e-two", "graven-bench", "graven-seeds", "graven-test"];

/// Nobody else has the turn while this lives. The kernel takes it back if the process dies.
#[derive(Debug)]
pub(crate) struct Turn {
    _name: UnixListener,
}

/// Waits for the turn.
pub(crate) fn take() -> io::Result<Turn> {
    loop {
        if let Some(turn) = try_take()? {
            return Ok(turn);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Takes the turn if nobody has it. It is a name of the network's, as kernel audit's own socket is: a lock file would be
/// another one for whoever has another root or another `/run`.
pub(crate) fn try_take() -> io::Result<Option<Turn>> {
    let name = SocketAddr::from_abstract_name("graven-kernel-audit")?;
    match UnixListener::bind_addr(&name) {
        Ok(name) => {
            remove_rules_of_the_dead();
            Ok(Some(Turn { _name: name }))
        }
        Err(taken) if taken.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(why) => Err(why),
    }
}

/// The kernel takes back the turn of a holder that was killed, but not its rules: with them the next would record too much, or
/// refuse to begin.
fn remove_rules_of_the_dead() {
    for key in KEYS {
        // Without auditctl, or the right to use it, nobody has added any.
        let mut auditctl = Command::new("auditctl");
        auditctl.args(["-D", "-k", key]).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = auditctl.status();
    }
}
