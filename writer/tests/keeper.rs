//! Keeper and writer as real processes over a real socket, killed with SIGKILL at any moment, again and again: every
//! datagram arrives once, whole and in its order.
//!
//! Both run in processes of this test's own program, which is told its role by its environment.

use graven_writer::clock;
use graven_writer::keeper::{Consumer, Done, Empty, Entry, Memory, Producer, Taken, spawn};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Kills while datagrams come without an end.
const KILLS: u64 = 40;
const ROLE: &str = "GRAVEN_TEST_KEEPER_ROLE";
const TRAIL: &str = "GRAVEN_TEST_KEEPER_TRAIL";

/// The datagram of this number: mostly short, now and then long enough to fill blocks, as text that compresses.
fn datagram(number: u64) -> Vec<u8> {
    let len = if number.is_multiple_of(11) { 9000 } else { 40 + number as usize % 400 };
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((8..len).map(|at| b'a' + ((at as u64 ^ number) % 16) as u8));
    bytes
}

/// Starts this program in a role.
fn start(role: &str, socket: &UnixDatagram, memory: &Memory, trail: &Path) -> Child {
    let fds = [socket.as_fd(), memory.as_fd()];
    let numbers = fds.map(|fd| fd.as_raw_fd().to_string()).join(",");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "in_a_role", "--ignored", "--nocapture"]);
    command.env(ROLE, format!("{role},{numbers}")).env(TRAIL, trail);
    command.stdout(Stdio::null());
    spawn::spawn(&mut command, &fds).expect("it starts")
}

/// What the processes of the test below do: until they are killed.
#[test]
#[ignore = "it is started by another test"]
fn in_a_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut words = role.split(',');
    let role = words.next().expect("a role").to_owned();
    let mut fd = || -> OwnedFd {
        let number = words.next().and_then(|word| word.parse().ok()).expect("a number");
        spawn::inherited(number).expect("inherited")
    };
    let socket = UnixDatagram::from(fd());
    let memory = Arc::new(Memory::open(fd()).expect("the memory"));
    match &*role {
        "keeper" => keep(&socket, &memory),
        _ => write(&memory, &std::env::var(TRAIL).expect("a path")),
    }
}

fn keep(socket: &UnixDatagram, memory: &Arc<Memory>) {
    let (mut producer, _) = Producer::go_on(memory, None, clock::now()).expect("not corrupted");
    let mut packer = producer.packer();
    std::thread::spawn(move || {
        loop {
            if !packer.step().expect("not corrupted") {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    });
    loop {
        match producer
            .receive(socket, clock::now)
            .expect("not corrupted")
            .expect("the socket works")
        {
            Taken::Some(_) => {}
            Taken::Nothing => {
                producer
                    .empty(Empty { at: clock::now(), failed_sends: None })
                    .expect("not corrupted");
                std::thread::sleep(Duration::from_micros(200));
            }
            Taken::NoRoom => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// The trail is a file of numbers; what was written to it survives a kill.
fn write(memory: &Arc<Memory>, trail: &str) {
    let mut file = OpenOptions::new().read(true).write(true).open(trail).expect("the trail");
    let whole = file.metadata().expect("its length").len() / 8;
    file.set_len(8 * whole).expect("what was cut is nothing");
    file.seek(SeekFrom::End(0)).expect("its end");
    let mut consumer = Consumer::go_on(memory).expect("not corrupted");
    let mut again = whole - consumer.done().seq;
    let mut next = whole - again;
    loop {
        let mut bytes = Vec::new();
        while bytes.len() < 8 * 300 && consumer.look().expect("not corrupted") {
            let Some(Entry::Datagram { bytes: taken, .. }) =
                consumer.take().expect("not corrupted")
            else {
                continue;
            };
            assert_eq!(taken, datagram(next), "datagram {next}");
            if again > 0 {
                again -= 1;
            } else {
                bytes.extend(next.to_le_bytes());
            }
            next += 1;
        }
        file.write_all(&bytes).expect("the trail takes it");
        // Not each time, so that there is something to read again; and slowly, so that the memory fills.
        if again == 0 && next.is_multiple_of(3) {
            consumer.set_done(Done { position: consumer.position(), seq: next, more: [0; 4] });
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

#[test]
fn either_process_is_killed_at_any_moment_and_every_datagram_arrives_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    File::create(&trail).expect("a file");
    let memory = Memory::create(0).expect("memory");
    let (ours, theirs) = UnixDatagram::pair().expect("sockets");
    let enough = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&enough);
    let sender = std::thread::spawn(move || {
        let mut number = 0;
        while !ended.load(Ordering::Relaxed) {
            // It waits while the socket is full.
            ours.send(&datagram(number)).expect("it is taken");
            number += 1;
            if number.is_multiple_of(64) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        (ours, number)
    });
    let mut processes = ["keeper", "writer"].map(|role| start(role, &theirs, &memory, &trail));
    for kills in 0..KILLS {
        // Sometimes before it has begun, sometimes in the middle.
        std::thread::sleep(Duration::from_millis(5 + kills * 37 % 150));
        let index = (kills % 2) as usize;
        for (process, role) in processes.iter_mut().zip(["keeper", "writer"]) {
            assert!(
                process.try_wait().expect("it is ours").is_none(),
                "the {role} ended by itself"
            );
        }
        processes[index].kill().expect("it runs");
        processes[index].wait().expect("it is ours");
        processes[index] = start(["keeper", "writer"][index], &theirs, &memory, &trail);
    }
    enough.store(true, Ordering::Relaxed);
    let (_ours, sent) = sender.join().expect("all was sent");
    let there = || std::fs::metadata(&trail).expect("the trail").len() / 8;
    let deadline = Instant::now() + Duration::from_secs(100);
    while there() < sent && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    for process in &mut processes {
        process.kill().expect("it runs");
        process.wait().expect("it is ours");
    }
    let mut bytes = Vec::new();
    File::open(&trail).expect("the trail").read_to_end(&mut bytes).expect("the trail");
    let numbers: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("eight")))
        .collect();
    assert_eq!(numbers.len() as u64, sent, "after {KILLS} kills");
    assert!(numbers.into_iter().eq(0..sent), "each once and in order, after {KILLS} kills");
}
