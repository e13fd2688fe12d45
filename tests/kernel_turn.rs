//! Whose turn it is at the kernel's audit, which there is once for all processes of a machine.
//!
//! Not a crate: included by the tests and the benchmarks that need it.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

/// Nobody else has the turn while this lives. The kernel takes it back if the process dies.
pub(crate) struct Turn {
    _name: UnixListener,
}

/// Waits for the turn. It is a name of the network's, as kernel audit's own socket is: a lock file would be another
/// one for whoever has another root or another `/run`.
pub(crate) fn take() -> io::Result<Turn> {
    let name = SocketAddr::from_abstract_name("graven-kernel-audit")?;
    loop {
        match UnixListener::bind_addr(&name) {
            Ok(name) => return Ok(Turn { _name: name }),
            Err(taken) if taken.kind() == io::ErrorKind::AddrInUse => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(why) => return Err(why),
        }
    }
}
