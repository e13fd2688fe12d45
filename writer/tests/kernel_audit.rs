//! Against the real kernel: being its audit daemon, losing nothing, and giving the place back.
//!
//! A kernel has one audit daemon, so each test holds a lock file while it is it. Rules are for a fresh
//! session of the test's own child only. Without root, without kernel audit, or beside
//! another audit daemon a test says `SKIPPED` and why.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use graven_format::loss::{Cause, Certainty, LossStatement};
use graven_format::{Record, Source, kind};
use graven_writer::source::calls::CallSet;
use graven_writer::source::kaudit::{self, AttachError, Daemon, Options, Scope};
use graven_writer::source::netlink::{NetlinkError, Stop, Summary, receive_through};
use graven_writer::source::nlmsg::{self, Message, Status};
use graven_writer::source::session::fresh_session;
use graven_writer::source::{AppendError, Sink};
use rustix::fs::{FlockOperation, flock};

/// Held while a test may be the audit daemon.
struct Turn {
    _lock: File,
}

/// Waits for the turn; `None` if this machine cannot run the test, which is then said.
fn turn() -> Option<Turn> {
    let skip = |why: &str| {
        eprintln!("SKIPPED: {why}");
        None
    };
    if !rustix::process::geteuid().is_root() {
        return skip("not root");
    }
    let Ok(lock) = File::create("/run/lock/graven-kernel-audit.lock") else {
        return skip("no lock file in /run/lock");
    };
    flock(&lock, FlockOperation::LockExclusive).expect("lock");
    match kaudit::status() {
        Err(error) => skip(&error.to_string()),
        Ok(Status { pid: 0, enabled: 0 | 1, .. }) => Some(Turn { _lock: lock }),
        Ok(Status { pid, enabled, .. }) => {
            skip(&format!("pid {pid} is registered, enabled {enabled}"))
        }
    }
}

fn now() -> (u64, u64) {
    use rustix::time::{ClockId, clock_gettime};
    let [realtime, boottime] = [ClockId::Realtime, ClockId::Boottime].map(|clock| {
        let time = clock_gettime(clock);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    });
    (realtime, boottime)
}

#[derive(Clone, Debug)]
struct Kept {
    source: Source,
    kind: u16,
    seq: u64,
    bytes: Vec<u8>,
}

/// Keeps what it gets, or only counts it.
#[derive(Default)]
struct List {
    kept: Mutex<Vec<Kept>>,
    records: AtomicU64,
    /// Keep only statements and count the rest.
    counts_only: bool,
    events: Mutex<BTreeMap<u64, u32>>,
}

impl Sink for List {
    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        let seq = self.records.fetch_add(1, Ordering::Relaxed);
        if self.counts_only && record.source == Source::Netlink {
            if record.kind == kind::SYSCALL {
                *self.events.lock().unwrap().entry(record.source_seq).or_default() += 1;
            }
            return Ok(seq);
        }
        self.kept.lock().unwrap().push(Kept {
            source: record.source,
            kind: record.kind,
            seq: record.source_seq,
            bytes: record.bytes.to_vec(),
        });
        Ok(seq)
    }
}

impl List {
    fn statements(&self) -> Vec<LossStatement> {
        let kept = self.kept.lock().unwrap();
        kept.iter()
            .filter(|kept| kept.source == Source::Graven)
            .map(|kept| LossStatement::parse(&kept.bytes).expect("a statement").0)
            .collect()
    }
}

/// A child in a fresh session that opens files when told to.
struct Child {
    pid: libc::pid_t,
    session: u32,
    go: PipeWriter,
}

impl Child {
    /// The child waits for [`Child::go`], then opens `/dev/null` `opens` times.
    fn new(opens: u32) -> Self {
        let (mut from_child, to_parent) = std::io::pipe().expect("pipe");
        let (from_parent, go) = std::io::pipe().expect("pipe");
        // SAFETY: the child calls only async-signal-safe functions, and ends with `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork");
        if pid == 0 {
            open_files(&to_parent, &from_parent, opens);
        }
        drop((to_parent, from_parent));
        let mut number = [0; 4];
        from_child.read_exact(&mut number).expect("the child has its session");
        Self { pid, session: u32::from_le_bytes(number), go }
    }

    fn go(&mut self) {
        self.go.write_all(&[1]).expect("the child waits");
    }

    fn wait(self) {
        let mut status = 0;
        // SAFETY: `status` is a place for the child's status.
        let ended = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        assert_eq!((ended, status), (self.pid, 0));
    }
}

/// What the child does: no allocation, no lock, no unwinding.
fn open_files(to_parent: &PipeWriter, from_parent: &PipeReader, opens: u32) -> ! {
    const PATH: &CStr = c"/dev/null";
    let failed = || {
        // SAFETY: it ends the process.
        unsafe { libc::_exit(1) }
    };
    let Ok(session) = fresh_session() else { failed() };
    let number = session.to_le_bytes();
    // SAFETY: the buffer is four bytes long.
    let written = unsafe { libc::write(to_parent.as_raw_fd(), number.as_ptr().cast(), 4) };
    let mut byte = 0_u8;
    // SAFETY: the buffer is one byte long.
    let read = unsafe { libc::read(from_parent.as_raw_fd(), (&raw mut byte).cast(), 1) };
    if written != 4 || read != 1 {
        failed();
    }
    for _ in 0..opens {
        // SAFETY: the path ends with a zero.
        let fd = unsafe { libc::openat(libc::AT_FDCWD, PATH.as_ptr(), libc::O_RDONLY) };
        // SAFETY: nobody else knows this descriptor.
        let closed = unsafe { libc::close(fd) };
        if closed != 0 {
            failed();
        }
    }
    // SAFETY: it ends the process.
    unsafe { libc::_exit(0) }
}

/// Runs `during` while a thread receives, then drains and detaches.
fn session(
    list: &List,
    during: impl FnOnce(&Daemon),
    tap: impl FnMut(&[u8]) -> bool + Send,
) -> Result<Summary, NetlinkError> {
    session_with(&Options::default(), list, during, tap)
}

fn session_with(
    options: &Options,
    list: &List,
    during: impl FnOnce(&Daemon),
    tap: impl FnMut(&[u8]) -> bool + Send,
) -> Result<Summary, NetlinkError> {
    let daemon = Daemon::attach(options).expect("attach");
    let stop = Stop::new().expect("stop");
    let summary = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let summary = receive_through(&daemon, list, &stop, now, tap);
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            eprintln!(
                "receiver: {}.{:03} s of processor time",
                time.tv_sec,
                time.tv_nsec / 1_000_000
            );
            summary
        });
        let outcome = catch_unwind(AssertUnwindSafe(|| during(&daemon)));
        stop.request();
        let summary = receiver.join().expect("no panic");
        outcome.expect("no panic");
        summary
    });
    daemon.detach().expect("detach");
    summary
}

/// What must be the same before and after.
fn settings() -> Status {
    let status = kaudit::status().expect("status");
    Status { lost: 0, backlog: 0, backlog_waited_ticks: None, ..status }
}

fn rules() -> String {
    let output = std::process::Command::new("auditctl").arg("-l").output();
    output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn opens() -> CallSet {
    CallSet::from_names(["openat"]).expect("known")
}

#[test]
fn every_file_that_a_session_opens_is_an_exact_event() {
    let Some(_turn) = turn() else { return };
    const OPENS: u32 = 100;
    let before = (settings(), rules());
    let list = List::default();
    let mut raw: Vec<Vec<u8>> = Vec::new();
    let summary = session(
        &list,
        |daemon| {
            let mut child = Child::new(OPENS);
            let added = daemon.audit(Scope::Session(child.session), &opens()).expect("rules");
            eprintln!("ring operations audited: {}", added.ring_operations);
            child.go();
            child.wait();
        },
        |datagram| {
            raw.push(datagram.to_vec());
            true
        },
    )
    .expect("received");
    assert_eq!((settings(), rules()), before, "everything is given back");
    assert!(summary.drained);
    assert_eq!(list.statements(), []);

    let kept = list.kept.lock().unwrap();
    let mut events: BTreeMap<u64, Vec<&Kept>> = BTreeMap::new();
    for record in kept.iter() {
        events.entry(record.seq).or_default().push(record);
    }
    let opened: Vec<_> = events
        .values()
        .filter(|records| records[0].kind == kind::SYSCALL && has(records[0], "syscall=257"))
        .collect();
    assert_eq!(opened.len(), OPENS as usize);
    for records in opened {
        let kinds: Vec<_> =
            records.iter().map(|record| kind::Kind(record.kind).to_string()).collect();
        assert_eq!(kinds, ["SYSCALL", "CWD", "PATH", "PROCTITLE", "EOE"]);
        assert!(has(records[0], "key=\"graven\"") && has(records[2], "name=\"/dev/null\""));
    }
    // Byte for byte what came over the socket, in its order, and nothing beside it.
    let sent: Vec<_> = raw
        .iter()
        .filter_map(|datagram| match nlmsg::parse(datagram) {
            Some(Message::Record { kind, .. }) => Some((kind, &datagram[16..])),
            _ => None,
        })
        .collect();
    let taken: Vec<_> = kept.iter().map(|kept| (kept.kind, &kept.bytes[..])).collect();
    assert_eq!(sent, taken);
    assert_eq!(summary.records, taken.len() as u64);
}

fn has(record: &Kept, text: &str) -> bool {
    String::from_utf8_lossy(&record.bytes).contains(text)
}

/// Starts `producers` children that open `opens` files each and waits for them.
fn storm(daemon: &Daemon, producers: usize, opens_each: u32, meanwhile: impl FnOnce()) {
    let mut children: Vec<_> = (0..producers).map(|_| Child::new(opens_each)).collect();
    for child in &children {
        daemon.audit(Scope::Session(child.session), &opens()).expect("rules");
    }
    children.iter_mut().for_each(Child::go);
    meanwhile();
    children.into_iter().for_each(Child::wait);
}

#[test]
fn a_storm_of_two_producers_loses_nothing_and_raises_no_alarm() {
    let Some(_turn) = turn() else { return };
    const OPENS_EACH: u32 = 40_000;
    let before = (settings(), rules());
    let lost_before = kaudit::status().expect("status").lost;
    let list = List { counts_only: true, ..List::default() };
    let started = Instant::now();
    let mut took = Duration::ZERO;
    let summary = session(
        &list,
        |daemon| {
            storm(daemon, 2, OPENS_EACH, || ());
            took = started.elapsed();
        },
        |_| true,
    )
    .expect("received");
    eprintln!("{} records in {took:?}: {summary:?}", summary.records);
    assert!(summary.drained);
    assert_eq!(list.statements(), [], "no false alarm");
    assert_eq!(kaudit::status().expect("status").lost, lost_before);
    let events = list.events.lock().unwrap();
    assert!(events.len() >= 2 * OPENS_EACH as usize, "{}", events.len());
    assert!(events.values().all(|&count| count == 1));
    assert_eq!((settings(), rules()), before);
}

#[test]
fn a_receiver_kept_from_running_for_half_a_second_loses_nothing() {
    let Some(_turn) = turn() else { return };
    const OPENS_EACH: u32 = 30_000;
    let list = List { counts_only: true, ..List::default() };
    let mut datagrams = 0_u32;
    let summary = session(
        &list,
        |daemon| storm(daemon, 2, OPENS_EACH, || ()),
        |_| {
            datagrams += 1;
            if datagrams == 20_000 {
                std::thread::sleep(Duration::from_millis(500));
            }
            true
        },
    )
    .expect("received");
    eprintln!("{summary:?}");
    assert_eq!(list.statements(), []);
    assert!(summary.drained);
    assert!(list.events.lock().unwrap().len() >= 2 * OPENS_EACH as usize);
}

/// No simulation: the receiver sleeps longer than the kernel is patient, in a small socket. Depending on
/// its boot line the kernel does not count what it then drops.
#[test]
fn what_the_kernel_itself_drops_is_stated() {
    let Some(_turn) = turn() else { return };
    const OPENS_EACH: u32 = 20_000;
    let options = Options { receive_buffer_bytes: 256 << 10, ..Options::default() };
    let lost_before = kaudit::status().expect("status").lost;
    let list = List { counts_only: true, ..List::default() };
    let mut datagrams = 0_u32;
    let summary = session_with(
        &options,
        &list,
        |daemon| storm(daemon, 2, OPENS_EACH, || ()),
        |_| {
            datagrams += 1;
            if datagrams == 20_000 {
                std::thread::sleep(Duration::from_millis(2500));
            }
            true
        },
    )
    .expect("received");
    let counted = kaudit::status().expect("status").lost - lost_before;
    let arrived = list.events.lock().unwrap().len() as u64;
    let made = u64::from(2 * OPENS_EACH);
    eprintln!("{arrived} of {made} events arrived, the kernel counted {counted}; {summary:?}");
    for said in list.statements() {
        eprintln!("{}", String::from_utf8_lossy(&said.encode(0)));
    }
    assert!(summary.drained);
    // A few events besides are the children's own set-up, and a few opens may have lost only
    // records that are not their first.
    let accounted = arrived + summary.lost_events + summary.partial_events + summary.lost_records;
    assert!(accounted >= made, "{accounted}");
    if arrived < made {
        assert!(summary.statements > 0);
        assert!(summary.lost_events <= made - arrived + 20, "no more than was lost");
    } else {
        eprintln!("SKIPPED: the kernel lost nothing this time");
    }
}

#[test]
fn datagrams_that_disappear_are_stated_exactly() {
    let Some(_turn) = turn() else { return };
    let list = List::default();
    let mut opened = BTreeMap::new();
    let mut gone = Vec::new();
    let summary = session(
        &list,
        |daemon| storm(daemon, 1, 200, || ()),
        |datagram| {
            let Some(Message::Record { kind, payload }) = nlmsg::parse(datagram) else {
                return true;
            };
            let serial = nlmsg::stamp(payload).expect("stamp").serial;
            if kind == kind::SYSCALL && payload.windows(11).any(|at| at == b"syscall=257") {
                let order = opened.len();
                opened.entry(serial).or_insert(order);
            }
            // The 50th to 54th and the 90th event disappear whole, of the 120th only the end.
            match opened.get(&serial) {
                Some(50..=54 | 90) => {
                    if kind == kind::SYSCALL {
                        gone.push(u64::from(serial));
                    }
                    false
                }
                Some(120) => kind != kind::EOE,
                _ => true,
            }
        },
    )
    .expect("received");
    eprintln!("{summary:?}");
    let partial = opened.iter().find(|&(_, &order)| order == 120).map(|(&serial, _)| serial);
    let partial = u64::from(partial.expect("opened"));
    let stated: Vec<_> = list
        .statements()
        .iter()
        .map(|said| (said.cause, said.certainty, said.count, said.range))
        .collect();
    let exactly = Certainty::Exactly;
    assert_eq!(gone.len(), 6);
    assert_eq!(
        stated,
        [
            (Cause::SerialGap, exactly, 5, Some((gone[0], gone[4]))),
            (Cause::SerialGap, exactly, 1, Some((gone[5], gone[5]))),
            (Cause::PartialEvent, exactly, 1, Some((partial, partial))),
        ]
    );
    assert_eq!((summary.lost_events, summary.partial_events, summary.lost_records), (6, 1, 0));
}

#[test]
fn a_second_daemon_is_refused_by_name_and_the_first_goes_on() {
    let Some(_turn) = turn() else { return };
    let before = (settings(), rules());
    let first = Daemon::attach(&Options::default()).expect("attach");
    let refused = Daemon::attach(&Options::default()).expect_err("one at a time");
    let AttachError::Held { pid, comm } = &refused else { panic!("{refused}") };
    assert_eq!(*pid, std::process::id());
    let own = std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("comm");
    assert_eq!(comm, own.trim_end());
    assert!(refused.to_string().contains("help:"), "{refused}");
    assert_eq!(first.status().expect("status").pid, *pid, "the first is still registered");
    drop(first);
    assert_eq!((settings(), rules()), before);
}

#[test]
fn a_panic_while_attached_gives_everything_back() {
    let Some(_turn) = turn() else { return };
    let before = (settings(), rules());
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("fd").count();
    let open_before = descriptors();
    let panicked = catch_unwind(|| {
        let daemon = Daemon::attach(&Options::default()).expect("attach");
        daemon.audit(Scope::Session(u32::MAX - 7), &CallSet::all()).expect("rules");
        daemon.audit(Scope::Uid(54_321), &CallSet::default_calls()).expect("rules");
        assert_ne!(rules(), before.1);
        assert_ne!(settings(), before.0);
        panic!("on purpose");
    });
    assert!(panicked.is_err());
    assert_eq!((settings(), rules()), before);
    assert_eq!(descriptors(), open_before, "no descriptor is left open");
}

/// Every control operation that Graven uses, and those of others, past the window: each takes
/// a serial, and each must bring a record.
#[test]
fn control_operations_leave_no_hole_in_the_serials() {
    let Some(_turn) = turn() else { return };
    let before = (settings(), rules());
    let list = List::default();
    let auditctl = |arguments: &[&str]| {
        // What it answers does not matter, only which serials it takes.
        let _ = std::process::Command::new("auditctl").args(arguments).output();
    };
    let summary = session(
        &list,
        |daemon| {
            for round in 0..20 {
                daemon.audit(Scope::Session(u32::MAX - 100 - round), &opens()).expect("rules");
                daemon.remove_rules().expect("removed");
                let _ = daemon.status().expect("status");
                auditctl(&["-b", "8192"]);
                auditctl(&["-r", "0"]);
                auditctl(&["-m", "a message of a test"]);
                auditctl(&[
                    "-a",
                    "always,exit",
                    "-F",
                    "uid=54321",
                    "-S",
                    "openat",
                    "-k",
                    "graven-test",
                ]);
                // Twice the same is refused; a refusal may take a serial as well.
                auditctl(&[
                    "-a",
                    "always,exit",
                    "-F",
                    "uid=54321",
                    "-S",
                    "openat",
                    "-k",
                    "graven-test",
                ]);
                auditctl(&[
                    "-d",
                    "always,exit",
                    "-F",
                    "uid=54321",
                    "-S",
                    "openat",
                    "-k",
                    "graven-test",
                ]);
                auditctl(&[
                    "-d",
                    "always,exit",
                    "-F",
                    "uid=54321",
                    "-S",
                    "openat",
                    "-k",
                    "graven-test",
                ]);
                let _ = Daemon::attach(&Options::default()).expect_err("one at a time");
            }
        },
        |_| true,
    )
    .expect("received");
    eprintln!("{summary:?}");
    assert!(summary.drained);
    assert_eq!(list.statements(), []);
    assert!(summary.events >= 20 * 9, "{summary:?}");
    assert_eq!((settings(), rules()), before);
}

#[test]
fn a_quiet_system_is_left_quiet() {
    let Some(_turn) = turn() else { return };
    let list = List::default();
    let summary = session(
        &list,
        |daemon| {
            storm(daemon, 1, 10, || ());
            std::thread::sleep(Duration::from_secs(4));
        },
        |_| true,
    )
    .expect("received");
    eprintln!("{summary:?}");
    assert_eq!(list.statements(), []);
    // The opening and the closing marker, and one heartbeat after the traffic; two if the traffic
    // fell across a beat.
    assert!((3..=4).contains(&summary.heartbeats), "{summary:?}");
}
