//! The audit netlink path: a storm of `openat` by a test uid, consumed in turn by a receiver that
//! discards, by Graven, and by auditd.
//!
//! A figure is events per second from the first event to the consumer's last progress, so that a
//! consumer that falls behind pays for its queue. One kernel has one audit daemon: a lock file
//! keeps other users of this bench and of the tests away, and everything is put back.

use crate::kernel::{Turn, UID, auditctl};
use crate::stats::print;
use anyhow::{Context, Result, ensure};
use graven_tools::bench::seeds::auditd::{Auditd, RAW_ASYNC, RAW_DATA, SHIPPED};
use graven_writer::source::kaudit::{self, Daemon};
use graven_writer::source::netlink::{Stop, receive};
use graven_writer::source::nlmsg::{self, StatusChange};
use graven_writer::source::past::Past;
use graven_writer::source::{AppendError, Sink};
use graven_writer::{Options, Trail, clock};
use rustix::net::netlink::{AUDIT, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
    sockopt,
};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A consumer that has made no progress for this long is done.
const QUIET: Duration = Duration::from_millis(500);

/// `openat` until the time is over; prints how many there were. Runs as the test uid.
pub(crate) fn storm(seconds: f64) -> Result<()> {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut events = 0u64;
    while Instant::now() < until {
        for _ in 0..100 {
            drop(File::open("/dev/null")?);
        }
        events += 100;
    }
    println!("{events}");
    Ok(())
}

/// One round of one consumer.
#[derive(Clone, Copy, Debug)]
struct Round {
    events_per_s: f64,
    lost: u64,
}

/// A consumer under test: how much it has consumed so far, in whatever unit, and how many events
/// it has kept at the end.
trait Consumer {
    fn progress(&self) -> u64;
    fn events(self: Box<Self>) -> Result<u64>;
}

/// Measures the consumers in turn; with `only_graven` just Graven, to be looked at with a profiler.
pub(crate) fn netlink(
    dir: &Path,
    rounds: usize,
    seconds: f64,
    only_graven: bool,
    attach: &kaudit::Options,
    options: &Options,
) -> Result<()> {
    let turn = Turn::take()?;
    let names = [
        "receive and discard",
        "graven, every barrier",
        "auditd RAW incremental_async",
        "auditd as Debian ships it",
        "auditd RAW flush=data",
        "graven record, keeper and writer",
    ];
    let mut rates: [Vec<f64>; 6] = Default::default();
    let mut lost = [0; 6];
    for round in 0..rounds {
        for (at, rates) in rates.iter_mut().enumerate() {
            if only_graven && at != 1 {
                continue;
            }
            turn.go_on()?;
            let scratch = dir.join(format!("netlink-{round}-{at}"));
            fs::DirBuilder::new().mode(0o700).create(&scratch)?;
            let result = match at {
                0 => run(seconds, |_| Ok(Box::new(Discard::start()?))),
                1 => run(seconds, |_| Ok(Box::new(Graven::start(&scratch, attach, options)?))),
                2 => run(seconds, |_| Ok(Box::new(auditd(&scratch, RAW_ASYNC)?))),
                3 => run(seconds, |_| Ok(Box::new(auditd(&scratch, SHIPPED)?))),
                4 => run(seconds, |_| Ok(Box::new(auditd(&scratch, RAW_DATA)?))),
                _ => run(seconds, |_| Ok(Box::new(Record::start(&scratch)?))),
            }
            .with_context(|| names[at])?;
            fs::remove_dir_all(&scratch)?;
            rates.push(result.events_per_s / 1e3);
            lost[at] += result.lost;
        }
    }
    println!("netlink: openat by two processes of a test uid, five records an event");
    for (name, rates) in names.iter().zip(&rates).filter(|(_, rates)| !rates.is_empty()) {
        print(name, rates, "k events/s");
    }
    if only_graven {
        return Ok(());
    }
    let ratio = |of: usize, to: usize| -> Vec<f64> {
        rates[of].iter().zip(&rates[to]).map(|(of, to)| of / to).collect()
    };
    print("graven over discarding", &ratio(1, 0), "");
    print("two processes over discarding", &ratio(5, 0), "");
    for (peer, name) in names.iter().enumerate().take(5).skip(2) {
        print(&format!("graven over {name}"), &ratio(1, peer), "");
        print(&format!("two processes over {name}"), &ratio(5, peer), "");
    }
    println!("events lost over all rounds: {}", {
        let each: Vec<_> = names.iter().zip(lost).map(|(n, l)| format!("{n} {l}")).collect();
        each.join(", ")
    });
    Ok(())
}

fn run(seconds: f64, start: impl FnOnce(()) -> Result<Box<dyn Consumer>>) -> Result<Round> {
    auditctl(&["-D"])?;
    auditctl(&["-e", "0"])?;
    let consumer = start(())?;
    auditctl(&["-b", "8192"])?;
    auditctl(&[
        "-a",
        "exit,always",
        "-F",
        "arch=b64",
        "-S",
        "openat",
        "-F",
        &format!("uid={UID}"),
    ])?;
    let begin = Instant::now();
    let storms: Vec<Child> = (0..2).map(|_| spawn_storm(seconds)).collect::<Result<_>>()?;
    let mut produced = 0;
    for mut storm in storms {
        let mut text = String::new();
        storm.stdout.take().context("storm has no output")?.read_to_string(&mut text)?;
        ensure!(storm.wait()?.success(), "the storm failed");
        produced += text.trim().parse::<u64>()?;
    }
    let (mut last, mut seen) = (Instant::now(), consumer.progress());
    while last.elapsed() < QUIET {
        std::thread::sleep(Duration::from_millis(2));
        let now = consumer.progress();
        if now != seen {
            (last, seen) = (Instant::now(), now);
        }
    }
    let took = last - begin;
    auditctl(&["-D"])?;
    let kept = consumer.events()?;
    // The loader of the storm's program opens files too: never fewer than the storm counted.
    Ok(Round {
        events_per_s: produced as f64 / took.as_secs_f64(),
        lost: produced.saturating_sub(kept),
    })
}

fn spawn_storm(seconds: f64) -> Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["storm", "--seconds", &seconds.to_string()])
        .uid(UID)
        .gid(UID)
        .stdout(Stdio::piped())
        .spawn()
        .context("the storm does not start")
}

/// A daemon that does nothing with what it receives: the most that this path can do.
struct Discard {
    count: Arc<[AtomicU64; 2]>,
    end: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Discard {
    fn start() -> Result<Self> {
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(AUDIT),
        )?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_recv_buffer_size_force(&fd, 64 << 20)?;
        let set = |change: StatusChange| -> Result<()> {
            let message = nlmsg::request(nlmsg::SET, 1, &change.encode());
            sendto(&fd, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
            Ok(())
        };
        let none = StatusChange::default();
        set(StatusChange { pid: Some(std::process::id()), ..none })?;
        set(StatusChange { enabled: Some(1), ..none })?;
        let count = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let end = Arc::new(AtomicBool::new(false));
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(Duration::from_millis(50)))?;
        let (counts, ended) = (count.clone(), end.clone());
        let thread = std::thread::spawn(move || {
            let mut buf = vec![0; 64 * 1024];
            while !ended.load(Ordering::Relaxed) {
                let Ok((len, _)) = recv(&fd, &mut buf[..], RecvFlags::empty()) else { continue };
                let is_syscall = len >= 6 && buf[4..6] == 1300u16.to_le_bytes();
                counts[0].fetch_add(1, Ordering::Relaxed);
                counts[1].fetch_add(u64::from(is_syscall), Ordering::Relaxed);
            }
            let release = StatusChange { pid: Some(0), ..StatusChange::default() };
            let message = nlmsg::request(nlmsg::SET, 2, &release.encode());
            sendto(&fd, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
            Ok(())
        });
        Ok(Self { count, end, thread: Some(thread) })
    }
}

impl Consumer for Discard {
    fn progress(&self) -> u64 {
        self.count[0].load(Ordering::Relaxed)
    }

    fn events(mut self: Box<Self>) -> Result<u64> {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
        }
        Ok(self.count[1].load(Ordering::Relaxed))
    }
}

/// Graven itself, to a trail behind barriers.
struct Graven {
    trail: Arc<Counted>,
    stop: Arc<Stop>,
    thread: std::thread::JoinHandle<Result<()>>,
}

/// A trail that counts SYSCALL records as they are accepted.
struct Counted {
    trail: Trail,
    syscalls: AtomicU64,
}

impl Sink for Counted {
    fn append(&self, record: &graven_format::Record<'_>) -> Result<u64, AppendError> {
        self.syscalls.fetch_add(u64::from(record.kind == 1300), Ordering::Relaxed);
        Sink::append(&self.trail, record)
    }

    fn next_seq(&self) -> u64 {
        self.trail.next_seq()
    }

    fn append_all(&self, records: &[graven_format::Record<'_>]) -> Result<(), AppendError> {
        let syscalls = records.iter().filter(|record| record.kind == 1300).count() as u64;
        self.syscalls.fetch_add(syscalls, Ordering::Relaxed);
        self.trail.append_all(records)
    }
}

impl Graven {
    fn start(dir: &Path, attach: &kaudit::Options, options: &Options) -> Result<Self> {
        let trail = Trail::open(&dir.join("trail"), options)?;
        let trail = Arc::new(Counted { trail, syscalls: AtomicU64::new(0) });
        let stop = Arc::new(Stop::new()?);
        let daemon = Daemon::attach(attach)?;
        if let Some(why) = daemon.mapping_refused() {
            eprintln!("  graven: records are not mapped: {why}");
        }
        let (sink, until) = (trail.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let now = || {
                let now = clock::now();
                (now.realtime_ns, now.boottime_ns)
            };
            receive(&daemon, &*sink, Past::default(), &until, now)?;
            Ok(daemon.detach()?)
        });
        Ok(Self { trail, stop, thread })
    }
}

impl Consumer for Graven {
    fn progress(&self) -> u64 {
        // Heartbeats go on for ever; what counts is the storm, and that it is durable.
        let syscalls = self.trail.syscalls.load(Ordering::Relaxed);
        let ring = self.trail.trail.ring();
        if ring.next_seq == self.trail.trail.durable() {
            syscalls
        } else {
            u64::MAX - ring.next_seq
        }
    }

    fn events(self: Box<Self>) -> Result<u64> {
        self.stop.request();
        self.thread.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
        let totals = self.trail.trail.totals();
        let (records, bytes) = (totals.records, totals.frame_bytes);
        eprintln!("  graven: {records} records in {} frames, {bytes} bytes", totals.frames);
        Ok(self.trail.syscalls.load(Ordering::Relaxed))
    }
}

/// `graven record` as it is installed: two processes.
struct Record {
    child: Child,
    trail: PathBuf,
    durable: Arc<AtomicU64>,
    reader: std::thread::JoinHandle<()>,
}

impl Record {
    fn start(dir: &Path) -> Result<Self> {
        let trail = dir.join("trail");
        let mut child = graven()?
            .args(["record", "--source", "netlink", "--ack", "--quiet", "--trail"])
            .arg(&trail)
            .stdout(Stdio::piped())
            .spawn()
            .context("graven does not start: cargo build --release -p graven")?;
        let lines = BufReader::new(child.stdout.take().context("graven has no output")?).lines();
        let durable = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&durable);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(seq) = line.strip_prefix("durable ").and_then(|seq| seq.parse().ok()) {
                    told.store(seq, Ordering::Relaxed);
                }
            }
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        while durable.load(Ordering::Relaxed) == 0 {
            ensure!(Instant::now() < deadline, "graven did not begin");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { child, trail, durable, reader })
    }
}

/// The program beside this one.
pub(crate) fn graven() -> Result<Command> {
    Ok(Command::new(std::env::current_exe()?.with_file_name("graven")))
}

impl Consumer for Record {
    fn progress(&self) -> u64 {
        // Heartbeats and checkpoints go on for ever, a few a second.
        self.durable.load(Ordering::Relaxed) / 64
    }

    fn events(mut self: Box<Self>) -> Result<u64> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        ensure!(self.child.wait()?.success(), "graven did not end well");
        self.reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        let mut export = graven()?
            .args(["export", "--format", "raw"])
            .arg(&self.trail)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(export.stdout.take().context("no output")?).split(b'\n');
        let count = lines.try_fold(0, |count, line| {
            Ok::<_, std::io::Error>(count + u64::from(line?.starts_with(b"type=SYSCALL ")))
        })?;
        ensure!(export.wait()?.success(), "the trail cannot be exported");
        Ok(count)
    }
}

/// auditd, as the audit daemon.
pub(crate) fn auditd(dir: &Path, format: &str) -> Result<Auditd> {
    Auditd::start(dir, format).context("auditd does not start: install the package auditd")
}

impl Consumer for Auditd {
    fn progress(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    fn events(mut self: Box<Self>) -> Result<u64> {
        self.end()?;
        let text = fs::read(&self.log)?;
        let lines = text.split(|byte| *byte == b'\n');
        Ok(lines.filter(|line| line.starts_with(b"type=SYSCALL ")).count() as u64)
    }
}
