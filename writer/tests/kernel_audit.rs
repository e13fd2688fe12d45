//! Against the real kernel: being its audit daemon, losing nothing, and giving the place back.
//!
//! A kernel has one audit daemon, so each test holds a lock file while it is it. Rules are for a
//! fresh session of the test's own child only. Without root, without kernel audit, or beside
//! another audit daemon a test says `SKIPPED` and why.

#![cfg(target_arch = "x86_64")]

mod kernel;

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use graven_format::loss::{Cause, Certainty};
use graven_format::{Source, kind};
use graven_writer::source::calls::CallSet;
use graven_writer::source::kaudit::{self, AttachError, Daemon, Handed, Options, Scope};
use graven_writer::source::nlmsg::{self, Message};
use graven_writer::source::session::{SpawnError, spawn_in_fresh_session};

use kernel::{Child, Kept, List, has, opens, rules, session, session_with, settings, storm, turn};

/// A program of the kernel's comes or goes. That of a session that ended is freed from a soft interrupt, some milliseconds
/// later, and the kernel lets the record of it be part of the event of whichever task was interrupted.
const BPF: u16 = 1334;

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
            if raw.is_empty() {
                // What is made meanwhile must not carry the time of before.
                std::thread::sleep(Duration::from_millis(50));
            }
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
    for record in kept.iter().filter(|kept| kept.kind != BPF) {
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
    for record in kept.iter() {
        let made = nlmsg::stamp(&record.bytes).expect("stamp");
        let made_ns = made.seconds * 1_000_000_000 + u64::from(made.millis) * 1_000_000;
        assert!(record.realtime_ns >= made_ns, "taken before it was made: {record:?}");
    }
    // Byte for byte what came over the socket, in its order, and nothing beside it.
    let sent: Vec<_> = raw
        .iter()
        .filter_map(|datagram| match nlmsg::parse(datagram) {
            Some(Message::Record { kind, .. }) => Some((kind, &datagram[16..])),
            _ => None,
        })
        .collect();
    let of_kernel = kept.iter().filter(|kept| kept.source == Source::Netlink);
    let taken: Vec<_> = of_kernel.map(|kept| (kept.kind, &kept.bytes[..])).collect();
    assert_eq!(sent, taken);
    assert_eq!(summary.records, taken.len() as u64);
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
    assert!(summary.events >= u64::from(2 * OPENS_EACH), "all lie in the window: {summary:?}");
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

/// No simulation: the receiver sleeps longer than the kernel is patient, in a small socket.
/// Depending on its boot line the kernel does not count what it then drops.
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
            (Cause::PartialEvent, Certainty::AtLeast, 1, Some((partial, partial))),
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

/// As after a standstill in which the kernel has given the place to the next one that asked.
#[test]
fn one_that_ends_late_leaves_the_place_as_another_has_it() {
    let Some(_turn) = turn() else { return };
    let before = (settings(), rules());
    let daemon = Daemon::attach(&Options::default()).expect("attached");
    let has_it = settings();
    let mut gone = std::process::Command::new("true").spawn().expect("true");
    gone.wait().expect("it ends");
    let handed = Handed { registered: gone.id(), ..daemon.handed() };
    let data = daemon.data().try_clone_to_owned().expect("a descriptor");
    let late = Daemon::inherit(data, &handed).expect("a socket");
    late.give_back_for().expect("there is nothing to give back");
    assert_eq!(settings(), has_it, "audit stays on, with the limits of whoever is the daemon");
    daemon.detach().expect("given back");
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
fn a_command_is_audited_from_its_first_execve_to_its_children() {
    let Some(_turn) = turn() else { return };
    let list = List::default();
    let mut number = 0;
    let summary = session(
        &list,
        |daemon| {
            let mut command = std::process::Command::new("/bin/sh");
            command.args(["-c", "/bin/cat /dev/null; exec /bin/true"]);
            let mut child = spawn_in_fresh_session(command, |session| {
                number = session;
                daemon.audit(Scope::Session(session), &CallSet::default_calls()).map(drop)
            })
            .expect("started");
            assert!(child.wait().expect("ended").success());
        },
        |_| true,
    )
    .expect("received");
    assert_eq!(list.statements(), []);
    assert_eq!((summary.drained, summary.lost_events), (true, 0));
    let kept = list.kept.lock().unwrap();
    let mut executed = kept.iter().filter(|record| record.kind == 1309);
    for program in ["/bin/sh", "/bin/cat", "/bin/true"] {
        let record = executed.next().expect("an execve");
        assert!(has(record, &format!("a0=\"{program}\"")), "{program}");
    }
    let session = format!(" ses={number} ");
    let calls = kept.iter().filter(|record| has(record, "key=\"graven\"") && has(record, &session));
    assert!(calls.count() > 10);
}

/// The 32-bit way in: `int 0x80` in a 64-bit program.
#[test]
fn the_calls_of_the_older_abi_are_audited_too() {
    let Some(_turn) = turn() else { return };
    let list = List::default();
    let mut served = false;
    session(
        &list,
        |daemon| {
            let mut child = Child::with_older_abi();
            daemon.audit(Scope::Session(child.session), &CallSet::default_calls()).expect("rules");
            child.go();
            served = child.code() == 0;
        },
        |_| true,
    )
    .expect("received");
    if !served {
        eprintln!("SKIPPED: this kernel serves no 32-bit calls");
        return;
    }
    let kept = list.kept.lock().unwrap();
    // 8 is creat(2) there.
    let made = kept.iter().filter(|record| has(record, "arch=40000003 syscall=8 "));
    assert_eq!(made.count(), 1);
}

#[test]
fn a_command_that_cannot_be_prepared_or_started_does_not_run() {
    let Some(_turn) = turn() else { return };
    let marker = std::env::temp_dir().join(format!("graven-must-not-exist-{}", std::process::id()));
    let mut command = std::process::Command::new("/bin/touch");
    command.arg(&marker);
    let refused = spawn_in_fresh_session(command, |_| Err("no rule today")).expect_err("refused");
    assert!(matches!(refused, SpawnError::Prepare("no rule today")), "{refused:?}");
    assert!(!marker.exists());
    let command = std::process::Command::new("/no/such/program");
    let missing = spawn_in_fresh_session(command, |_| Ok::<(), &str>(())).expect_err("missing");
    assert!(
        matches!(&missing, SpawnError::Spawn(error) if error.kind() == std::io::ErrorKind::NotFound)
    );
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
