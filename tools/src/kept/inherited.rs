//! What one of the two processes is told when the other starts it: its role, and the numbers of the
//! descriptors that it inherits, as one word of the command line.

use graven_writer::keeper::spawn::inherited;
use graven_writer::keeper::{Memory, MemoryError, Role, Session, Vault};
use rustix::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::ffi::OsString;
use std::str::FromStr;
use std::sync::Arc;

/// The option of `graven record` that this is the value of. Nobody gives it by hand.
pub(super) const OPTION: &str = "--inherited";

/// `keeper:` or `writer:` with `DATA,MEMORY,WAKE,END,ALIVE,VAULT,PEER` and, where the kernel leaves records in mapped memory,
/// `,RING,STATE`; or `guard:` with `END`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherited {
    /// One of the two.
    Peer {
        /// Which.
        role: Role,
        /// Its descriptors.
        fds: Descriptors,
    },
    /// The process that thaws what the others have frozen.
    Guard {
        /// The end of a pipe.
        end: RawFd,
    },
}

/// Numbers of the descriptors that a process inherits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    always: [RawFd; 7],
    mapped: Option<[RawFd; 2]>,
}

impl FromStr for Inherited {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it is for graven itself".to_owned();
        if let Some(end) = text.strip_prefix(super::guard::ROLE) {
            return end.parse().map(|end| Self::Guard { end }).map_err(|_| wrong());
        }
        let (role, fds) = text.split_once(':').ok_or_else(wrong)?;
        let role = [Role::Keeper, Role::Writer].into_iter().find(|it| it.name() == role);
        let fds: Vec<RawFd> =
            fds.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
        let fds = match *fds {
            [a, b, c, d, e, f, g] => Descriptors { always: [a, b, c, d, e, f, g], mapped: None },
            [a, b, c, d, e, f, g, ring, state] => {
                Descriptors { always: [a, b, c, d, e, f, g], mapped: Some([ring, state]) }
            }
            _ => return Err(wrong()),
        };
        Ok(Self::Peer { role: role.ok_or_else(wrong)?, fds })
    }
}

/// The descriptors that both hold, and one to watch the peer by.
#[derive(Debug)]
pub struct Shared {
    /// The socket that the kernel's records come from.
    pub(super) data: OwnedFd,
    /// The memory.
    pub(super) memory: Arc<Memory>,
    /// The keeper wakes the writer by it.
    pub(super) wake: OwnedFd,
    /// The pipe by which a guard learns that all have ended: its end,
    pub(super) end: OwnedFd,
    /// and what keepers and writers hold.
    pub(super) alive: OwnedFd,
    /// What was done to the kernel's rules.
    pub(super) vault: Vault,
    /// Where the kernel leaves records beside the socket, if it does: its ring and its state.
    pub(super) mapped: Option<[OwnedFd; 2]>,
}

impl Shared {
    /// The configuration in force, if there is a file of it.
    ///
    /// # Errors
    /// [`MemoryError::Corrupted`].
    pub(super) fn config(&self) -> Result<Option<String>, MemoryError> {
        self.vault.config()
    }

    /// The descriptors in their order, with one of the process itself.
    pub(super) fn fds<'a>(&'a self, own: &'a OwnedFd) -> Vec<BorrowedFd<'a>> {
        let Self { data, memory, wake, end, alive, vault, mapped } = self;
        let mut fds = vec![
            data.as_fd(),
            memory.as_fd(),
            wake.as_fd(),
            end.as_fd(),
            alive.as_fd(),
            vault.as_fd(),
            own.as_fd(),
        ];
        fds.extend(mapped.iter().flatten().map(AsFd::as_fd));
        fds
    }
}

/// Takes the descriptors, once, and that of the process which started this one.
///
/// # Errors
/// They are none, or the memory is not what it should be.
pub(super) fn open(fds: Descriptors) -> Result<(Shared, OwnedFd), MemoryError> {
    let failed = |errno| MemoryError::System { operation: "inheriting", errno };
    let Descriptors { always, mapped } = fds;
    let mut seen: Vec<RawFd> = always.into_iter().chain(mapped.into_iter().flatten()).collect();
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(failed(Errno::BADF));
    }
    let [data, memory, wake, end, alive, vault, peer] = always.map(inherited);
    let mapped = match mapped.map(|fds| fds.map(inherited)) {
        None => None,
        Some([ring, state]) => Some([ring.map_err(failed)?, state.map_err(failed)?]),
    };
    let memory = Arc::new(Memory::open(memory.map_err(failed)?)?);
    let shared = Shared {
        data: data.map_err(failed)?,
        vault: Vault::of(vault.map_err(failed)?, &Session::of(&memory)),
        memory,
        wake: wake.map_err(failed)?,
        end: end.map_err(failed)?,
        alive: alive.map_err(failed)?,
        mapped,
    };
    Ok((shared, peer.map_err(failed)?))
}

/// The arguments of this process, with which one is started in `role`. Options for a trail that does not exist
/// yet are left out once it was `opened`: the key has been moved into it.
pub(super) fn arguments(role: Role, fds: &[BorrowedFd<'_>], opened: bool) -> Vec<OsString> {
    let numbers: Vec<String> = fds.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let numbers = numbers.join(",");
    let mut given = std::env::args_os().skip(1);
    let mut arguments = Vec::new();
    while let Some(argument) = given.next() {
        let text = argument.to_string_lossy();
        match &*text {
            OPTION => drop(given.next()),
            "--key" if opened => drop(given.next()),
            "--restart-key" if opened => {}
            _ if text.starts_with("--inherited=") || opened && text.starts_with("--key=") => {}
            "--" => break,
            _ => arguments.push(argument),
        }
    }
    arguments.push(OPTION.into());
    arguments.push(format!("{}:{numbers}", role.name()).into());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_graven_itself_says_is_taken() {
        let read = |text: &str| text.parse::<Inherited>();
        let of = |always, mapped| Descriptors { always, mapped };
        let writer =
            |mapped| Inherited::Peer { role: Role::Writer, fds: of([3, 4, 5, 6, 7, 8, 9], mapped) };
        assert_eq!(read("writer:3,4,5,6,7,8,9"), Ok(writer(None)));
        assert_eq!(read("writer:3,4,5,6,7,8,9,10,11"), Ok(writer(Some([10, 11]))));
        assert_eq!(read("guard:9"), Ok(Inherited::Guard { end: 9 }));
        for text in [
            "",
            "writer",
            "writer:3,4,5",
            "writer:3,4,5,6,7,8,9,10",
            "reader:3,4,5,6,7,8,9",
            "keeper:a",
            "guard:",
            "guard:3,4",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(open(of([900, 900, 901, 902, 903, 904, 905], None)).is_err());
        assert!(open(of([0, 1, 2, 900, 901, 902, 903], None)).is_err());
        assert!(open(of([900, 901, 902, 903, 904, 905, 906], Some([907, 900]))).is_err());
    }
}
