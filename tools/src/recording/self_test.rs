//! Whether the kernel module sees what it should: a child makes calls whose records are known beforehand.

use crate::exit::Exit;
use crate::recording::child::{self, StartError};
use crate::recording::shim::{Shim, failure};
use crate::recording::{Failure, kernel};
use graven_shim_abi::decode::{Body, parse};
use graven_shim_abi::{
    Call, ITEM_ARGV, ITEM_CWD, ITEM_MADE, ITEM_NAME, ITEM_SOCKADDR, Item, Object, PART_NO_RETURN,
    ROLE_NEW, ROLE_OLD, ROLE_PROGRAM, ROLE_TARGET,
};
use graven_writer::source::calls::CallSet;
use graven_writer::source::shim::{Device, Kernel as _, Rules, rules};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long no record of the child's may come. It bounds a hang: where many want the processors, this program's own start takes
/// seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Calls of x86-64.
const CONNECT: u32 = 42;
const EXECVE: u32 = 59;
const RENAMES: [u32; 3] = [82, 264, 316];
const MKDIRS: [u32; 2] = [83, 258];
const OPENAT: u32 = 257;
const STATX: u32 = 332;

/// A record of the child's.
#[derive(Debug, Default)]
struct Seen {
    call: Call,
    flags: u16,
    items: Vec<(Item, Option<Object>, Vec<u8>)>,
}

impl Seen {
    fn has(&self, kind: u16, role: u16, bytes: &[u8]) -> bool {
        self.item(kind, role, bytes).is_some()
    }

    fn item(&self, kind: u16, role: u16, bytes: &[u8]) -> Option<&(Item, Option<Object>, Vec<u8>)> {
        self.items.iter().find(|(it, _, are)| (it.kind, it.role) == (kind, role) && are == bytes)
    }

    /// The inode of its target, and whether the call has made that.
    fn target(&self, name: &[u8]) -> Option<(u64, bool)> {
        let (item, object, _) = self.item(ITEM_NAME, ROLE_TARGET, name)?;
        Some(((*object)?.inode, item.flags & ITEM_MADE != 0))
    }
}

/// Makes the calls, in this folder. For the child.
///
/// # Errors
/// One of them did not go as it must.
pub fn make_calls(dir: &Path) -> io::Result<()> {
    std::env::set_current_dir(dir)?;
    std::fs::write("made", "")?;
    std::fs::rename("made", "moved")?;
    std::fs::create_dir("folder")?;
    std::fs::metadata("folder")?;
    let missing = std::fs::File::open("missing").map(drop);
    let refused = UnixStream::connect("nobody").map(drop);
    match (missing, refused) {
        (Err(one), Err(other)) if one.kind() == other.kind() => Ok(()),
        _ => Err(io::Error::other("something was there that nobody made")),
    }
}

/// The calls of the test. Few, so that their records fit into rings from which nothing is taken meanwhile.
const CALLS: [&str; 10] = [
    "openat",
    "rename",
    "renameat",
    "renameat2",
    "mkdir",
    "mkdirat",
    "statx",
    "connect",
    "execve",
    "exit_group",
];

/// What the test has left in the rings, behind what was there before.
#[derive(Debug)]
pub struct Left {
    /// Up to where each ring was read.
    positions: Vec<u64>,
    /// Of each ring with parts, the first and the last number.
    numbers: BTreeMap<u32, (u64, u64)>,
    /// Nothing but the test's: not what was there before, and nobody's who was in a call since rules were there.
    alone: bool,
}

impl Left {
    /// Takes it out of the rings, if that takes nothing else: then the numbers of each ring that are in no trail, the first
    /// and the last. Else it stays, for the trail.
    ///
    /// # Errors
    /// [`Failure`] with [`Exit::KernelAudit`].
    pub fn take(self, shim: &Shim) -> Result<BTreeMap<u32, (u64, u64)>, Failure> {
        if !self.alone {
            return Ok(BTreeMap::new());
        }
        for (ring, position) in (0..).zip(self.positions) {
            shim.memory().set_tail(ring, position);
        }
        shim.device.advanced().map_err(|why| failure(&why))?;
        Ok(self.numbers)
    }
}

/// Has a child make calls and looks at their records, which stay in the rings. Rules are gone then.
///
/// # Errors
/// [`Failure`] with [`Exit::KernelAudit`] names what was not seen.
pub fn run(shim: &Shim) -> Result<Left, Failure> {
    let system = |what: &'static str| {
        move |why: io::Error| Failure::new(Exit::CannotCheck, &format!("cannot {what}: {why}"))
    };
    // In memory if it can be: other file systems do not all say what was made, or say another inode than they have.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let dir = dir.map_err(system("make a folder"))?;
    let program = std::env::current_exe().map_err(system("find this program"))?;
    let observer = Device::observer().map_err(|why| failure(&why))?;
    let follow = observer.file().as_fd().try_clone_to_owned().map_err(system("keep the device"))?;
    let calls = CallSet::from_names(CALLS)
        .map_err(|why| Failure::new(Exit::CannotCheck, &why.to_string()))?;
    shim.device.set_rules(&rules::followed(&calls)).map_err(|why| failure(&why))?;
    let words = [
        program.as_os_str().to_owned(),
        "shim".into(),
        "self-test".into(),
        "--as-child".into(),
        dir.path().as_os_str().to_owned(),
    ];
    let found = child_seen(shim, &words, follow);
    let cleared = shim.device.set_rules(&Rules::default()).map_err(|why| failure(&why));
    let found = found?;
    cleared?;
    let missing = missing(&found.seen, &words, dir.path());
    if !missing.is_empty() {
        let title =
            format!("the kernel module does not see what it should: {}", missing.join(", "));
        return Err(Failure::new(Exit::KernelAudit, &title)
            .note(format!("of {} records of a child's calls", found.seen.len()))
            .help("this kernel is none that the module was made for: docs/kernel-shim.md"));
    }
    Ok(found.left)
}

/// What was in the rings.
#[derive(Debug)]
struct Found {
    /// The child's records.
    seen: Vec<Seen>,
    left: Left,
}

/// Runs the child, and reads until the record of its exit is there.
fn child_seen(shim: &Shim, words: &[OsString], follow: OwnedFd) -> Result<Found, Failure> {
    let memory = shim.memory();
    let positions = (0..memory.rings()).map(|ring| memory.head(ring)).collect();
    let alone = (0..memory.rings()).all(|ring| memory.head(ring) == memory.tail(ring));
    let mut left = Left { positions, numbers: BTreeMap::new(), alone };
    let mut child = child::start(words, Some(follow), |_| true).map_err(|why| match why {
        StartError::Thread(why) => Failure::thread(Exit::CannotCheck, &why),
        why => kernel::failure(&format!("cannot start a child: {why}")),
    })?;
    let pid = child.id();
    let mut seen: BTreeMap<u64, Seen> = BTreeMap::new();
    let (mut count, mut came) = (0, Instant::now());
    loop {
        read(shim, &mut left, &mut seen)?;
        if seen.len() > count {
            (count, came) = (seen.len(), Instant::now());
        }
        let ended = |it: &Seen| it.call.pid == pid && it.flags & PART_NO_RETURN != 0;
        if seen.values().any(ended) {
            break;
        }
        if came.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::new(Exit::KernelAudit, "the module's own test does not end")
                .note(format!("{count} records of it came, and none for {} s", PATIENCE.as_secs()))
                .help("rings that are too small hold it up: `graven shim load --slots`"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    if !child.wait().is_ok_and(|status| status.success()) {
        return Err(Failure::new(Exit::CannotCheck, "the child did not make its calls"));
    }
    left.alone &= seen.values().all(|it| it.call.pid == pid);
    let seen = seen.into_values().filter(|it| it.call.pid == pid).collect();
    Ok(Found { seen, left })
}

/// Reads what has come since.
fn read(shim: &Shim, left: &mut Left, seen: &mut BTreeMap<u64, Seen>) -> Result<(), Failure> {
    let memory = shim.memory();
    for (ring, position) in (0..).zip(&mut left.positions) {
        let head = memory.head(ring);
        while *position != head {
            let mut bytes = Vec::new();
            *position =
                memory.part(ring, *position, head, &mut bytes).map_err(|why| failure(&why))?;
            let Ok(part) = parse(&bytes) else { continue };
            let number = part.header.ring_seq;
            left.numbers.entry(ring).or_insert((number, number)).1 = number;
            let one = seen.entry(part.header.order).or_default();
            one.flags |= part.header.flags;
            if let Body::Call(call, _) = part.body {
                one.call = call;
            }
            let items = part.items();
            one.items.extend(items.map(|it| (it.header, it.object, it.bytes.to_vec())));
        }
    }
    Ok(())
}

/// What should be among the records and is not, in words.
fn missing(seen: &[Seen], words: &[OsString], dir: &Path) -> Vec<&'static str> {
    let mut argv = Vec::new();
    for word in words {
        argv.extend_from_slice(word.as_bytes());
        argv.push(0);
    }
    let dir = std::fs::canonicalize(dir).unwrap_or_default();
    let address = [&unix_family().to_le_bytes()[..], b"nobody\0"].concat();
    let renamed = |it: &Seen| {
        RENAMES.contains(&it.call.nr)
            && it.call.result == 0
            && it.has(ITEM_NAME, ROLE_OLD, b"made")
            && it.has(ITEM_NAME, ROLE_NEW, b"moved")
    };
    let opened = |it: &Seen, name: &[u8], good: bool| {
        it.call.nr == OPENAT
            && (it.call.result >= 0) == good
            && it.has(ITEM_NAME, ROLE_TARGET, name)
            && it.has(ITEM_CWD, 0, dir.as_os_str().as_bytes())
    };
    let started = |it: &Seen| {
        let arguments = it.items.iter().filter(|(item, ..)| item.kind == ITEM_ARGV);
        let arguments: Vec<u8> = arguments.flat_map(|(.., bytes)| bytes.clone()).collect();
        it.call.nr == EXECVE
            && it.call.result == 0
            && it.has(ITEM_NAME, ROLE_PROGRAM, words[0].as_bytes())
            && arguments == argv
    };
    let connected = |it: &Seen| {
        let is =
            |bytes: &[u8]| bytes.starts_with(&address) || bytes == &address[..address.len() - 1];
        it.call.nr == CONNECT
            && it.call.result < 0
            && it.items.iter().any(|(item, _, bytes)| item.kind == ITEM_SOCKADDR && is(bytes))
    };
    let inode = |name: &str| std::fs::metadata(dir.join(name)).map_or(0, |it| it.ino());
    let (file, folder) = (inode("moved"), inode("folder"));
    let created = |it: &Seen| it.call.nr == OPENAT && it.target(b"made") == Some((file, true));
    let made =
        |it: &Seen| MKDIRS.contains(&it.call.nr) && it.target(b"folder") == Some((folder, true));
    let looked = |it: &Seen| it.call.nr == STATX && it.target(b"folder") == Some((folder, false));
    let wanted: [(&str, bool); 8] = [
        ("the program and its arguments", seen.iter().any(started)),
        ("a file that was opened", seen.iter().any(|it| opened(it, b"made", true))),
        ("a file that was not there", seen.iter().any(|it| opened(it, b"missing", false))),
        ("that a file was made", seen.iter().any(created)),
        ("a folder that was made", seen.iter().any(made)),
        ("a folder that was looked at", seen.iter().any(looked)),
        ("both names of a rename", seen.iter().any(renamed)),
        ("the address of a socket", seen.iter().any(connected)),
    ];
    wanted.into_iter().filter(|(_, is)| !is).map(|(what, _)| what).collect()
}

/// `AF_UNIX`, as an address begins.
fn unix_family() -> u16 {
    rustix::net::AddressFamily::UNIX.as_raw()
}
