//! Memory in a storm of kernel audit: what a recording process holds is fixed by its ring, also while the disk
//! takes nothing and the kernel goes on sending.

use crate::rig::audit::{Rule, Turn};
use crate::rig::kept::{Kept, Role};
use crate::rig::mount::{Mounted, can_mount};
use crate::rig::{Running, has, on, record_from};
use rustix::process::Signal;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The user whose calls are audited; nobody else has this number.
const UID: u32 = 54_329;

const RING_BYTES: u64 = 8 << 20;

/// What both processes hold of the shared memory: what was asked for, and the area for datagrams beside it.
const KEEPER_RING_BYTES: u64 = (8 << 20) + (3 << 20);

/// What `docs/architecture.md` states: resident bytes beyond the ring.
const BEYOND_THE_RING_BYTES: u64 = (20 << 20) + 2 * MAPPED_BYTES;
/// Where the kernel leaves records: in memory that is mapped, and therefore counted, twice.
const MAPPED_BYTES: u64 = 4 << 20;

/// And what the kernel holds for the socket: the 64 MiB that are asked for, doubled for its bookkeeping, and
/// the record that goes over it.
const SOCKET_BYTES: u64 = (128 << 20) + (64 << 10);

/// How long a storm is watched.
const STORM_TIME: Duration = Duration::from_secs(3);

/// The most that was seen of a process while it was watched, in bytes.
#[derive(Debug, Default)]
struct Peak {
    keeper: u64,
    writer: u64,
    socket: u64,
}

impl Peak {
    fn look(&mut self, kept: &Kept) {
        for (role, pid) in kept.processes() {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            let status = status.expect("it runs");
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("its peak");
            let resident = kib.parse::<u64>().expect("a number") << 10;
            match role {
                Role::Keeper => self.keeper = resident,
                Role::Writer => self.writer = resident,
            }
        }
        // Columns: address, protocol (9 is audit), port, groups, bytes received and not taken.
        let sockets = std::fs::read_to_string("/proc/net/netlink").expect("the kernel lists them");
        for line in sockets.lines() {
            let columns: Vec<&str> = line.split_whitespace().collect();
            if columns.get(1) == Some(&"9") {
                self.socket = self.socket.max(columns[4].parse().expect("a number"));
            }
        }
    }

    fn check(&self, what: &str) {
        eprintln!("storm, {what}: {self:?}");
        assert!(self.keeper <= KEEPER_RING_BYTES + BEYOND_THE_RING_BYTES, "{what}: {self:?}");
        let most = RING_BYTES + KEEPER_RING_BYTES + BEYOND_THE_RING_BYTES;
        assert!(self.writer <= most, "{what}: {self:?}");
        assert!(self.socket <= SOCKET_BYTES, "{what}: {self:?}");
    }
}

fn daemon(trail: &Path, options: &[&str]) -> Running {
    let mut command = record_from("netlink", trail);
    command.args(["--ring-bytes", &RING_BYTES.to_string(), "--keeper-ring", "8M"]).args(options);
    let mut running = Running::start(&mut command, Stdio::null());
    running.wait_until("the opening marker", |it| it.acknowledged().is_some());
    assert!(!running.has_ended(), "{}", running.said());
    running
}

/// Two processes that open files until they are killed.
fn producers() -> [Running; 2] {
    std::array::from_fn(|_| {
        let id = UID.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "sh", "-c"]);
        Running::start(command.arg("while :; do : </dev/null; done"), Stdio::null())
    })
}

fn watch(running: &mut Running, kept: &Kept, peak: &mut Peak) {
    let begun = Instant::now();
    while begun.elapsed() < STORM_TIME {
        assert!(!running.has_ended(), "{}", running.said());
        peak.look(kept);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends the daemon, whose trail is then intact; what the kernel dropped while nobody took it is stated.
fn end(running: Running, trail: &Path) -> i32 {
    running.signal(Signal::TERM);
    running.end().expect(0);
    let verified = on("verify", trail, &[]);
    assert!(matches!(verified.code(), 0 | 4), "{}{}", verified.text(), verified.stderr);
    verified.code()
}

#[test]
fn memory_is_bounded_in_a_storm_of_kernel_audit() {
    if !has("setpriv") || !can_mount() {
        return;
    }
    let Some(_turn) = Turn::take() else { return };
    let disk = Mounted::ext4(512, 512);
    let trail = disk.trail();
    let Some(rule) = Rule::opens_by(UID) else { return };
    let kept = Kept::of(&trail);
    let mut running = daemon(&trail, &[]);
    let mut peak = Peak::default();
    let before = running.acknowledged();
    let producers = producers();
    watch(&mut running, &kept, &mut peak);
    drop(producers);
    assert!(running.acknowledged() > before.map(|seq| seq + 10_000), "it was a storm");
    drop(rule);
    end(running, &trail);
    peak.check("a disk that works");
}

/// The disk has no room, so that nothing leaves the ring and the receiver waits with a full socket.
#[test]
fn memory_is_bounded_in_a_storm_when_the_disk_takes_nothing() {
    if !has("setpriv") || !can_mount() {
        return;
    }
    let Some(_turn) = Turn::take() else { return };
    // Large enough for all that waits in the socket and before it.
    let disk = Mounted::ext4(512, 512);
    let ballast = disk.fill(6 << 20);
    let trail = disk.trail();
    let Some(rule) = Rule::opens_by(UID) else { return };
    let kept = Kept::of(&trail);
    // What is sealed would become smaller, and make room.
    let mut running = daemon(&trail, &["--compress-sealed", "0"]);
    let mut peak = Peak::default();
    let producers = producers();
    running.wait_until("full disk", |_| disk.free_bytes() < 512 << 10);
    watch(&mut running, &kept, &mut peak);
    let before = running.acknowledged();
    // What waits in the shared memory is compressed: it holds many times its size.
    for _ in 0..10 {
        watch(&mut running, &kept, &mut peak);
        if peak.socket > 32 << 20 {
            break;
        }
    }
    assert_eq!(running.acknowledged(), before, "the disk takes nothing");
    assert!(peak.socket > 32 << 20, "the kernel's side fills up: {peak:?}");
    peak.check("a disk that takes nothing");
    // Room first: producers that wait for the kernel's queue end when it is emptied.
    std::fs::remove_file(ballast).expect("it is there");
    drop(producers);
    running.wait_until("going on", |it| it.acknowledged() > before);
    drop(rule);
    peak.look(&kept);
    let code = end(running, &trail);
    peak.check(&format!("after it, verify says {code}"));
}
