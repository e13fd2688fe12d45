//! What one of the two processes is told when the other starts it: its role, and the numbers of the
//! descriptors that it inherits, as one word of the command line.

use graven_writer::keeper::spawn::inherited;
use graven_writer::keeper::{Memory, MemoryError, Role};
use rustix::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::ffi::OsString;
use std::str::FromStr;
use std::sync::Arc;

/// The option of `graven record` that this is the value of. Nobody gives it by hand.
const OPTION: &str = "--inherited";

/// `ROLE:DATA,MEMORY,WAKE,PEER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// What the process is to be.
    pub role: Role,
    fds: [RawFd; 4],
}

impl FromStr for Inherited {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it is for graven itself".to_owned();
        let (role, fds) = text.split_once(':').ok_or_else(wrong)?;
        let role = [Role::Keeper, Role::Writer].into_iter().find(|it| it.name() == role);
        let fds: Vec<RawFd> =
            fds.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
        let fds = fds.try_into().map_err(|_| wrong())?;
        Ok(Self { role: role.ok_or_else(wrong)?, fds })
    }
}

/// The descriptors that both hold, and one to watch the peer by.
#[derive(Debug)]
pub(super) struct Shared {
    /// The socket that the kernel's records come from.
    pub(super) data: OwnedFd,
    /// The memory.
    pub(super) memory: Arc<Memory>,
    /// The keeper wakes the writer by it.
    pub(super) wake: OwnedFd,
    /// The process that started this one.
    pub(super) peer: OwnedFd,
}

impl Inherited {
    /// Takes the descriptors, once.
    ///
    /// # Errors
    /// They are none, or the memory is not what it should be.
    pub(super) fn open(self) -> Result<Shared, MemoryError> {
        let failed = |errno| MemoryError::System { operation: "inheriting", errno };
        let mut seen = self.fds;
        seen.sort_unstable();
        if seen.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(failed(Errno::BADF));
        }
        let [data, memory, wake, peer] = self.fds.map(inherited);
        Ok(Shared {
            data: data.map_err(failed)?,
            memory: Arc::new(Memory::open(memory.map_err(failed)?)?),
            wake: wake.map_err(failed)?,
            peer: peer.map_err(failed)?,
        })
    }
}

/// The arguments of this process, with which the other one is started in `role`. Options for a trail that
/// does not exist yet are left out once it was `opened`: the key has been moved into it.
pub(super) fn arguments(role: Role, fds: [BorrowedFd<'_>; 4], opened: bool) -> Vec<OsString> {
    let numbers = fds.map(|fd| fd.as_fd().as_raw_fd().to_string()).join(",");
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
        let writer = Inherited { role: Role::Writer, fds: [3, 4, 5, 6] };
        assert_eq!(read("writer:3,4,5,6"), Ok(writer));
        for text in ["", "writer", "writer:3,4,5", "reader:3,4,5,6", "writer:3,4,5,6,7", "keeper:a"]
        {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read("keeper:900,900,901,902").expect("it is one").open().is_err());
        assert!(read("keeper:0,1,2,900").expect("it is one").open().is_err());
    }
}
