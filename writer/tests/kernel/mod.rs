//! What the kernel tests share: the turn, the list that records go to, and children that make
//! events.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use graven_format::loss::LossStatement;
use graven_format::{Record, Source, kind};
use graven_writer::source::calls::CallSet;
use graven_writer::source::kaudit::{self, Daemon, Options, Scope};
use graven_writer::source::netlink::{NetlinkError, Stop, Summary, receive_through};
use graven_writer::source::nlmsg::Status;
use graven_writer::source::past::Past;
use graven_writer::source::session::fresh_session;
use graven_writer::source::{AppendError, Sink};

#[path = "../../../tests/kernel_turn.rs"]
mod kernel_turn;

/// Held while a test may be the audit daemon.
pub(crate) struct Turn {
    _turn: kernel_turn::Turn,
}

/// Waits for the turn; `None` if this machine cannot run the test, which is then said.
pub(crate) fn turn() -> Option<Turn> {
    let skip = |why: &str| {
        // In one piece, or another test's output comes in between.
        let _ = std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes());
        None
    };
    if !rustix::process::geteuid().is_root() {
        return skip("not root");
    }
    let turn = kernel_turn::take().expect("the turn");
    match kaudit::status() {
        Err(error) => skip(&error.to_string()),
        Ok(Status { pid: 0, enabled: 0 | 1, .. }) => Some(Turn { _turn: turn }),
        Ok(Status { pid, enabled, .. }) => {
            skip(&format!("pid {pid} is registered, enabled {enabled}"))
        }
    }
}

pub(crate) fn now() -> (u64, u64) {
    use rustix::time::{ClockId, clock_gettime};
    let [realtime, boottime] = [ClockId::Realtime, ClockId::Boottime].map(|clock| {
        let time = clock_gettime(clock);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    });
    (realtime, boottime)
}

#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) source: Source,
    pub(crate) kind: u16,
    pub(crate) seq: u64,
    pub(crate) realtime_ns: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Keeps what it gets, or only counts it.
#[derive(Default)]
pub(crate) struct List {
    pub(crate) kept: Mutex<Vec<Kept>>,
    pub(crate) records: AtomicU64,
    /// Keep only statements and count the rest.
    pub(crate) counts_only: bool,
    pub(crate) events: Mutex<BTreeMap<u64, u32>>,
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
            realtime_ns: record.realtime_ns,
            bytes: record.bytes.to_vec(),
        });
        Ok(seq)
    }

    fn next_seq(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}

impl List {
    pub(crate) fn statements(&self) -> Vec<LossStatement> {
        let kept = self.kept.lock().unwrap();
        kept.iter()
            .filter(|kept| kept.source == Source::Graven && kept.kind == kind::DAEMON_ERR)
            .map(|kept| LossStatement::parse(&kept.bytes).expect("a statement").0)
            .collect()
    }
}

/// A child in a fresh session that opens files when told to.
pub(crate) struct Child {
    pid: libc::pid_t,
    pub(crate) session: u32,
    go: PipeWriter,
}

impl Child {
    /// The child waits for [`Child::go`], then opens `/dev/null` `opens` times.
    pub(crate) fn new(opens: u32) -> Self {
        Self::that(|| open_files(opens))
    }

    /// The child waits for [`Child::go`], then makes one 32-bit call, creat(2) of `/dev/null`.
    pub(crate) fn with_older_abi() -> Self {
        Self::that(create_by_int_80)
    }

    fn that(work: impl FnOnce() -> bool) -> Self {
        let (mut from_child, to_parent) = std::io::pipe().expect("pipe");
        let (from_parent, go) = std::io::pipe().expect("pipe");
        // SAFETY: the child calls only async-signal-safe functions, and ends with `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork");
        if pid == 0 {
            let done = enter_session(&to_parent, &from_parent) && work();
            // SAFETY: it ends the process.
            unsafe { libc::_exit(i32::from(!done)) }
        }
        drop((to_parent, from_parent));
        let mut number = [0; 4];
        from_child.read_exact(&mut number).expect("the child has its session");
        Self { pid, session: u32::from_le_bytes(number), go }
    }

    pub(crate) fn go(&mut self) {
        self.go.write_all(&[1]).expect("the child waits");
    }

    pub(crate) fn wait(self) {
        assert_eq!(self.code(), 0);
    }

    /// Waits for the child and gives its status.
    pub(crate) fn code(self) -> i32 {
        let mut status = 0;
        // SAFETY: `status` is a place for the child's status.
        let ended = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        assert_eq!(ended, self.pid);
        status
    }
}

/// Tells the parent a fresh session and waits for its leave. Like all that a child does here it
/// neither allocates nor takes a lock nor unwinds.
fn enter_session(to_parent: &PipeWriter, from_parent: &PipeReader) -> bool {
    let Ok(session) = fresh_session() else { return false };
    let number = session.to_le_bytes();
    // SAFETY: the buffer is four bytes long.
    let written = unsafe { libc::write(to_parent.as_raw_fd(), number.as_ptr().cast(), 4) };
    let mut byte = 0_u8;
    // SAFETY: the buffer is one byte long.
    let read = unsafe { libc::read(from_parent.as_raw_fd(), (&raw mut byte).cast(), 1) };
    written == 4 && read == 1
}

const PATH: &CStr = c"/dev/null";

fn open_files(opens: u32) -> bool {
    (0..opens).all(|_| {
        // SAFETY: the path ends with a zero.
        let fd = unsafe { libc::openat(libc::AT_FDCWD, PATH.as_ptr(), libc::O_RDONLY) };
        // SAFETY: nobody else knows this descriptor.
        let closed = unsafe { libc::close(fd) };
        closed == 0
    })
}

fn create_by_int_80() -> bool {
    // A 32-bit pointer is needed for the path.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping touches no other memory.
    let low = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) };
    if low == libc::MAP_FAILED {
        return false;
    }
    let path = PATH.to_bytes_with_nul();
    // SAFETY: the mapping is longer than the path, and nothing else uses it.
    unsafe { std::ptr::copy_nonoverlapping(path.as_ptr(), low.cast(), path.len()) };
    let mut eax: u32 = 8;
    // SAFETY: the call reads the path only; ebx, which the compiler keeps for itself, is put back,
    // and r8 to r11 are named because some kernels clear them.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "mov ebx, {path:e}",
            "int 0x80",
            "pop rbx",
            path = in(reg) low.addr() as u32,
            inout("eax") eax,
            in("ecx") 0o644,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    eax.cast_signed() >= 0
}

/// Runs `during` while a thread receives, then drains and detaches.
pub(crate) fn session(
    list: &List,
    during: impl FnOnce(&Daemon),
    tap: impl FnMut(&[u8]) -> bool + Send,
) -> Result<Summary, NetlinkError> {
    session_with(&Options::default(), list, during, tap)
}

pub(crate) fn session_with(
    options: &Options,
    list: &List,
    during: impl FnOnce(&Daemon),
    tap: impl FnMut(&[u8]) -> bool + Send,
) -> Result<Summary, NetlinkError> {
    let daemon = Daemon::attach(options).expect("attach");
    let stop = Stop::new().expect("stop");
    let summary = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let summary = receive_through(&daemon, list, Past::default(), &stop, now, tap);
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
pub(crate) fn settings() -> Status {
    let status = kaudit::status().expect("status");
    Status { lost: 0, backlog: 0, backlog_waited_ticks: None, ..status }
}

pub(crate) fn rules() -> String {
    let output = std::process::Command::new("auditctl").arg("-l").output();
    output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn opens() -> CallSet {
    CallSet::from_names(["openat"]).expect("known")
}

pub(crate) fn has(record: &Kept, text: &str) -> bool {
    String::from_utf8_lossy(&record.bytes).contains(text)
}

/// Starts `producers` children that open `opens` files each and waits for them.
pub(crate) fn storm(daemon: &Daemon, producers: usize, opens_each: u32, meanwhile: impl FnOnce()) {
    let mut children: Vec<_> = (0..producers).map(|_| Child::new(opens_each)).collect();
    for child in &children {
        daemon.audit(Scope::Session(child.session), &opens()).expect("rules");
    }
    children.iter_mut().for_each(Child::go);
    meanwhile();
    children.into_iter().for_each(Child::wait);
}
