//! Which system calls to audit: names to bit masks, for both ABIs that a 64-bit x86 kernel serves.
//!
//! A rule is for one ABI. A set of calls therefore yields two masks, one for the 64-bit calls and
//! one for the 32-bit calls of `int 0x80`, and a name stands for all the calls that do the same
//! thing there (`chown` is also `chown32`, `connect` is also `socketcall`), so that the older way
//! in is no hole.
//!
//! Known hole: the kernel's audit cannot select calls made through the x32 ABI, whose numbers lie
//! past every mask. Kernels built without x32, which is the default, do not have it.

use std::collections::BTreeSet;

use syscalls::{x86, x86_64};

use super::nlmsg::MASK_WORDS;

/// `AUDIT_ARCH_X86_64`: 64-bit calls.
pub const ARCH_X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`: 32-bit calls, also those of `int 0x80` in a 64-bit program.
pub const ARCH_I386: u32 = 0x4000_0003;

/// The calls that `graven run` audits unless told otherwise: those that open, create, change,
/// remove, execute, connect, or change who a process is and what the system lets it do.
///
/// Not among them, because they only move data through what was opened or tell what is: read,
/// write, stat, poll, futex and their like.
pub const DEFAULT: &[&str] = &[
    // Open and create.
    "open",
    "openat",
    "openat2",
    "creat",
    "mknod",
    "mknodat",
    "mkdir",
    "mkdirat",
    "symlink",
    "symlinkat",
    "link",
    "linkat",
    "memfd_create",
    "name_to_handle_at",
    "open_by_handle_at",
    // Remove and rename.
    "unlink",
    "unlinkat",
    "rmdir",
    "rename",
    "renameat",
    "renameat2",
    // Change content and attributes.
    "truncate",
    "ftruncate",
    "fallocate",
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "utime",
    "utimes",
    "utimensat",
    "futimesat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "setxattrat",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "removexattrat",
    "file_setattr",
    // Execute, create processes, reach into other processes.
    "execve",
    "execveat",
    "fork",
    "vfork",
    "clone",
    "clone3",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "pidfd_getfd",
    "kill",
    "tkill",
    "tgkill",
    "pidfd_send_signal",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    // Network.
    "socket",
    "connect",
    "bind",
    "listen",
    "accept",
    "accept4",
    // Identity and privilege.
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
    "setgroups",
    "capset",
    "setns",
    "unshare",
    "chroot",
    "pivot_root",
    "seccomp",
    "keyctl",
    "add_key",
    "request_key",
    "landlock_restrict_self",
    // The system itself.
    "mount",
    "umount2",
    "move_mount",
    "open_tree",
    "open_tree_attr",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "swapon",
    "swapoff",
    "quotactl",
    "quotactl_fd",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "sethostname",
    "setdomainname",
    "settimeofday",
    "clock_settime",
    "adjtimex",
    "clock_adjtime",
    "acct",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "iopl",
    "ioperm",
    "modify_ldt",
    // Submission rings do their work without system calls: their set-up has to show. What they do
    // is audited by the rule for ring operations, see `Daemon::audit`.
    "io_uring_setup",
    "io_uring_register",
];

/// Calls of the 32-bit ABI that do what a 64-bit name says.
const ALSO_I386: &[(&str, &[&str])] = &[
    ("chown", &["chown32"]),
    ("fchown", &["fchown32"]),
    ("lchown", &["lchown32"]),
    ("setuid", &["setuid32"]),
    ("setgid", &["setgid32"]),
    ("setreuid", &["setreuid32"]),
    ("setregid", &["setregid32"]),
    ("setresuid", &["setresuid32"]),
    ("setresgid", &["setresgid32"]),
    ("setfsuid", &["setfsuid32"]),
    ("setfsgid", &["setfsgid32"]),
    ("setgroups", &["setgroups32"]),
    ("truncate", &["truncate64"]),
    ("ftruncate", &["ftruncate64"]),
    ("utimensat", &["utimensat_time64"]),
    ("umount2", &["umount"]),
    ("settimeofday", &["stime"]),
    ("clock_settime", &["clock_settime64"]),
    ("clock_adjtime", &["clock_adjtime64"]),
    ("mmap", &["mmap2"]),
    ("fcntl", &["fcntl64"]),
    ("sendfile", &["sendfile64"]),
    ("stat", &["stat64", "oldstat"]),
    ("lstat", &["lstat64", "oldlstat"]),
    ("fstat", &["fstat64", "oldfstat"]),
    ("newfstatat", &["fstatat64"]),
    ("recvmmsg", &["recvmmsg_time64"]),
    ("futex", &["futex_time64"]),
];

/// Calls that the 32-bit ABI also reaches through `socketcall`.
const THROUGH_SOCKETCALL: &[&str] = &[
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

/// Calls that the 32-bit ABI also reaches through `ipc`.
const THROUGH_IPC: &[&str] = &[
    "semop",
    "semget",
    "semctl",
    "semtimedop",
    "msgsnd",
    "msgrcv",
    "msgget",
    "msgctl",
    "shmat",
    "shmdt",
    "shmget",
    "shmctl",
];

/// The name of a call of this ABI; none if the ABI is another one, or the number is not known here.
#[must_use]
pub fn name(arch: u32, number: u32) -> Option<&'static str> {
    let number = usize::try_from(number).ok()?;
    match arch {
        ARCH_X86_64 => x86_64::Sysno::new(number).map(|call| call.name()),
        ARCH_I386 => x86::Sysno::new(number).map(|call| call.name()),
        _ => None,
    }
}

/// A set of calls, as masks of call numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSet {
    /// The 64-bit calls.
    pub x86_64: [u32; MASK_WORDS],
    /// The 32-bit calls.
    pub i386: [u32; MASK_WORDS],
}

/// Why names are no set of calls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallsError {
    /// Neither ABI has a call of this name.
    #[error("unknown system call `{name}`{}", near(.similar))]
    Unknown {
        /// The name as given.
        name: String,
        /// Known names that look like it, nearest first.
        similar: Vec<&'static str>,
    },
    /// No name was given.
    #[error("no system call named: name some, or ask for all")]
    Empty,
}

/// The part of an error that suggests names.
fn near(similar: &[&'static str]) -> String {
    if similar.is_empty() {
        return String::new();
    }
    format!("; did you mean {}?", similar.join(", "))
}

impl CallSet {
    /// Every call, also those that no table here knows yet.
    #[must_use]
    pub const fn all() -> Self {
        Self { x86_64: [u32::MAX; MASK_WORDS], i386: [u32::MAX; MASK_WORDS] }
    }

    /// The calls of [`DEFAULT`].
    #[must_use]
    pub fn default_calls() -> Self {
        let mut set = Self::none();
        for name in DEFAULT {
            set.add(name);
        }
        set
    }

    /// The calls of these names in both ABIs.
    ///
    /// # Errors
    /// A name that neither ABI knows, with names like it, or no name at all.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, CallsError> {
        let mut set = Self::none();
        for name in names {
            if !set.add(name) {
                return Err(CallsError::Unknown { name: name.into(), similar: similar(name) });
            }
        }
        if set == Self::none() { Err(CallsError::Empty) } else { Ok(set) }
    }

    const fn none() -> Self {
        Self { x86_64: [0; MASK_WORDS], i386: [0; MASK_WORDS] }
    }

    /// Adds what `name` stands for; false if neither ABI knows it.
    fn add(&mut self, name: &str) -> bool {
        let mut known = false;
        if let Ok(call) = name.parse::<x86_64::Sysno>() {
            set_bit(&mut self.x86_64, call.id());
            known = true;
        }
        let others =
            ALSO_I386.iter().find(|&&(of, _)| of == name).map_or(&[][..], |&(_, also)| also);
        let socketcall = THROUGH_SOCKETCALL.contains(&name).then_some("socketcall");
        let ipc = THROUGH_IPC.contains(&name).then_some("ipc");
        for name in [name].into_iter().chain(others.iter().copied()).chain(socketcall).chain(ipc) {
            if let Ok(call) = name.parse::<x86::Sysno>() {
                set_bit(&mut self.i386, call.id());
                known = true;
            }
        }
        known
    }
}

/// Sets the bit of a call's number; numbers past the mask do not exist in either table.
fn set_bit(mask: &mut [u32; MASK_WORDS], number: i32) {
    if let Some(word) = usize::try_from(number / 32).ok().and_then(|index| mask.get_mut(index)) {
        *word |= 1 << (number % 32);
    }
}

/// Up to three known names that look like `name`, nearest first.
fn similar(name: &str) -> Vec<&'static str> {
    /// Changes of one letter at most; more is no likeness but chance.
    const DISTANCE_MAX: usize = 3;
    /// Longer names than any call has are not compared: the comparison is quadratic.
    const NAME_BYTES_MAX: usize = 64;
    if name.len() > NAME_BYTES_MAX {
        return Vec::new();
    }
    let known: BTreeSet<&'static str> = x86_64::Sysno::iter()
        .map(|call| call.name())
        .chain(x86::Sysno::iter().map(|call| call.name()))
        .collect();
    let limit = DISTANCE_MAX.min(name.len() / 2);
    let mut found: Vec<_> = known
        .into_iter()
        .map(|known| (distance(name.as_bytes(), known.as_bytes()), known))
        .filter(|&(distance, _)| distance <= limit)
        .collect();
    found.sort();
    found.into_iter().take(3).map(|(_, known)| known).collect()
}

/// How many letters must be put in, taken out or changed to make `left` into `right`.
fn distance(left: &[u8], right: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (at, to) in right.iter().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn has(mask: &[u32; MASK_WORDS], number: usize) -> bool {
        mask[number / 32] >> (number % 32) & 1 == 1
    }

    #[test]
    fn a_name_is_its_number_in_both_abis() {
        let set = CallSet::from_names(["openat", "chown", "connect"]).expect("known");
        for (number, name) in [(257, "openat"), (92, "chown"), (42, "connect")] {
            assert!(has(&set.x86_64, number), "{name}");
        }
        let i386 = [
            (295, "openat"),
            (182, "chown"),
            (212, "chown32"),
            (362, "connect"),
            (102, "socketcall"),
        ];
        for (number, name) in i386 {
            assert!(has(&set.i386, number), "{name}");
        }
        let bits = |mask: [u32; MASK_WORDS]| mask.iter().map(|word| word.count_ones()).sum::<u32>();
        assert_eq!((bits(set.x86_64), bits(set.i386)), (3, 5));
    }

    #[test]
    fn every_default_call_and_every_alias_is_known() {
        let set = CallSet::from_names(DEFAULT.iter().copied()).expect("known");
        assert_eq!(set, CallSet::default_calls());
        for &(of, also) in ALSO_I386 {
            assert!(of.parse::<x86_64::Sysno>().is_ok(), "{of}");
            for name in also {
                assert!(name.parse::<x86::Sysno>().is_ok(), "{name}");
            }
        }
        for name in THROUGH_SOCKETCALL.iter().chain(THROUGH_IPC) {
            assert!(name.parse::<x86_64::Sysno>().is_ok(), "{name}");
        }
        let unique: BTreeSet<_> = DEFAULT.iter().collect();
        assert_eq!(unique.len(), DEFAULT.len());
    }

    #[test]
    fn an_unknown_name_is_answered_with_those_like_it() {
        let error = CallSet::from_names(["opanat"]).expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "unknown system call `opanat`; did you mean openat, openat2, open?"
        );
        let error = CallSet::from_names(["x"]).expect_err("unknown");
        assert_eq!(error.to_string(), "unknown system call `x`");
        assert_eq!(CallSet::from_names([]), Err(CallsError::Empty));
    }

    #[test]
    fn a_number_has_the_name_that_its_abi_gives_it() {
        assert_eq!(name(ARCH_X86_64, 257), Some("openat"));
        assert_eq!(name(ARCH_I386, 5), Some("open"));
        assert_eq!(name(ARCH_X86_64, 100_000), None);
        assert_eq!(name(0, 257), None);
    }

    /// The numbers that the audit package's own table gives, where it is installed.
    #[test]
    fn the_numbers_agree_with_ausyscall() {
        for (arch, number_of) in [
            (
                "x86_64",
                (|name| name.parse::<x86_64::Sysno>().ok().map(|call| call.id())) as fn(&str) -> _,
            ),
            ("i386", |name| name.parse::<x86::Sysno>().ok().map(|call| call.id())),
        ] {
            let Ok(output) = Command::new("ausyscall").args([arch, "--dump"]).output() else {
                eprintln!("SKIPPED: ausyscall is not installed");
                return;
            };
            let text = String::from_utf8_lossy(&output.stdout);
            let mut compared = 0;
            for line in text.lines() {
                let Some((number, name)) = line.split_once('\t') else { continue };
                let Ok(number) = number.parse::<i32>() else { continue };
                if let Some(ours) = number_of(name) {
                    assert_eq!(ours, number, "{arch} {name}");
                    compared += 1;
                }
            }
            assert!(compared > 300, "{arch}: {compared} compared");
        }
    }
}
