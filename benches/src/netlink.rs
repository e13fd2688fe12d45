//! The audit netlink path: a storm of `openat` by a test uid, consumed in turn by a receiver that
//! discards, by Graven, and by auditd.
//!
//! A figure is events per second from the first event to the consumer's last progress, so that a
//! consumer that falls behind pays for its queue. One kernel has one audit daemon: a turn keeps
//! other users of this bench and of the tests away, and everything is put back. Storm, auditd and
//! `graven record` are those of `graven bench compare`.

use crate::kernel::Turn;
use crate::stats::print;
use anyhow::{Context, Result};
use graven_tools::bench::audit::{self, Auditd, Consumer, Keeps, Logging, Recorder};
use graven_tools::bench::process::Trouble;
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
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

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
            let auditd = |logging| -> Result<Box<dyn Consumer>> {
                Ok(Box::new(Auditd::start(&scratch, Keeps::Log(logging))?))
            };
            let start = || -> Result<Box<dyn Consumer>> {
                match at {
                    0 => Ok(Box::new(Discard::start()?)),
                    1 => Ok(Box::new(Graven::start(&scratch, attach, options)?)),
                    2 => auditd(Logging::RAW_ASYNC),
                    3 => auditd(Logging::SHIPPED),
                    4 => auditd(Logging::RAW_DATA),
                    _ => Ok(Box::new(Recorder::start(&graven()?, &scratch, audit::From::Netlink)?)),
                }
            };
            let (rate, missing) = run(&turn, seconds, start).context(names[at])?;
            fs::remove_dir_all(&scratch)?;
            rates.push(rate);
            lost[at] += missing;
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

/// Events a second up to the consumer's last progress, in thousands, and events lost.
fn run(
    turn: &Turn,
    seconds: f64,
    start: impl FnOnce() -> Result<Box<dyn Consumer>>,
) -> Result<(f64, u64)> {
    let producer = || {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["storm", "--seconds", &seconds.to_string()]);
        Ok(command)
    };
    let start = || start().map_err(|why| Trouble::Said(format!("{why:#}")));
    let storm = audit::storm(&producer, turn.interrupted(), start)?;
    // The loader of the storm's program opens files too: never fewer than the storm counted.
    let lost = storm.made.saturating_sub(storm.kept);
    Ok((storm.made as f64 / storm.took.as_secs_f64() / 1e3, lost))
}

/// A daemon that does nothing with what it receives: the most that this path can do.
struct Discard {
    count: Arc<[AtomicU64; 2]>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
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

    fn events(mut self: Box<Self>) -> Result<u64, Trouble> {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            ended(thread)?;
        }
        Ok(self.count[1].load(Ordering::Relaxed))
    }
}

fn ended(receiver: JoinHandle<Result<()>>) -> Result<(), Trouble> {
    let received = receiver.join().map_err(|_| Trouble::said("the receiver panicked"))?;
    received.map_err(|why| Trouble::Said(format!("{why:#}")))
}

/// Graven itself, to a trail behind barriers.
struct Graven {
    trail: Arc<Counted>,
    stop: Arc<Stop>,
    thread: JoinHandle<Result<()>>,
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

    fn events(self: Box<Self>) -> Result<u64, Trouble> {
        self.stop.request();
        ended(self.thread)?;
        let totals = self.trail.trail.totals();
        let (records, bytes) = (totals.records, totals.frame_bytes);
        eprintln!("  graven: {records} records in {} frames, {bytes} bytes", totals.frames);
        Ok(self.trail.syscalls.load(Ordering::Relaxed))
    }
}

/// The program beside this one.
pub(crate) fn graven() -> std::io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("graven"))
}
