//! Applications on a full disk: they wait, have their answers when there is room, and none for what was given up.

use crate::rig::mount::{Mounted, can_mount};
use crate::rig::{NO_RECORDS, Ran, Running, SEGMENT, graven, on, temp_dir};
use graven_client::wire::{ANSWER_BYTES, Answer, Hello, RecordHeader, VERSION, WELCOME_BYTES};
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Records of [`RECORD_BYTES`]: more than the disk takes with its ballast, and less than without.
const COUNT: u64 = 2500;
const RECORD_BYTES: usize = 8 * 1024;
const DISK_MIB: u64 = 40;
const BALLAST_LEAVES: u64 = 9 << 20;

/// How long no answer may come before the recorder counts as waiting for room.
const STANDSTILL: Duration = Duration::from_secs(2);

fn payload(id: u64) -> Vec<u8> {
    format!("{id} ").into_bytes().into_iter().cycle().take(RECORD_BYTES).collect()
}

/// A recorder that waits for room, and an application that waits for it.
struct Waiting {
    _dir: tempfile::TempDir,
    _disk: Mounted,
    ballast: PathBuf,
    trail: PathBuf,
    running: Running,
    /// Answers that have come.
    answered: Arc<AtomicU64>,
    application: JoinHandle<Vec<u64>>,
}

impl Waiting {
    fn new() -> Self {
        let dir = temp_dir();
        let disk = Mounted::ext4(DISK_MIB, 512);
        let ballast = disk.fill(BALLAST_LEAVES);
        let (trail, socket) = (disk.trail(), dir.path().join("socket"));
        let mut command = graven();
        command.args(["record", "--source", "socket", "--segment-bytes", SEGMENT, "--trail"]);
        command.arg(&trail).args(NO_RECORDS).arg("--path").arg(&socket);
        command.args(["--ring-bytes", "2M", "--compress-sealed", "0", "--ack"]);
        let mut running = Running::start(&mut command, Stdio::null());
        running.wait_until("the socket", |it| it.said().contains("taking records"));
        let client = UnixStream::connect(&socket).expect("it listens");
        let answered = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&answered);
        let application = std::thread::spawn(move || apply(client, &counter));
        running.wait_until("full disk", |it| it.said().contains("has no room"));
        let count = || answered.load(Ordering::Relaxed);
        loop {
            let before = count();
            std::thread::sleep(STANDSTILL);
            if count() == before {
                break;
            }
        }
        assert!(!running.has_ended() && count() < COUNT, "it waits: {}", running.said());
        Self { _dir: dir, _disk: disk, ballast, trail, running, answered, application }
    }
}

/// Sends every record while another thread takes the answers; gives their seqs, until there are no more.
fn apply(mut stream: UnixStream, answered: &AtomicU64) -> Vec<u64> {
    stream.write_all(&Hello { version: VERSION }.encode()).expect("it reads");
    let mut welcome = [0; WELCOME_BYTES];
    stream.read_exact(&mut welcome).expect("welcome");
    let mut to = stream.try_clone().expect("a clone");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for id in 0..COUNT {
                let header = RecordHeader { id, len: RECORD_BYTES as u32 }.encode();
                // Whoever gives up does not read what is left.
                if to.write_all(&[&header[..], &payload(id)].concat()).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
        let mut seqs = Vec::new();
        let mut bytes = [0; ANSWER_BYTES];
        while stream.read_exact(&mut bytes).is_ok() {
            let answer = Answer::decode(&bytes);
            assert_eq!(answer.id, seqs.len() as u64, "in their order");
            seqs.push(answer.seq);
            answered.store(seqs.len() as u64, Ordering::Relaxed);
        }
        seqs
    })
}

/// What was answered is in the trail, where the answers say.
fn check(trail: &Path, seqs: &[u64]) {
    for (id, seq) in (0..).zip(seqs).step_by(97).chain((0..).zip(seqs).last()) {
        let exported = on("export", trail, &["--seq", &seq.to_string()]).stdout;
        assert_eq!(exported, [payload(id), b"\n".to_vec()].concat(), "record {id}, seq {seq}");
    }
}

fn end(running: Running, code: i32) -> Ran {
    running.end().expect(code)
}

#[test]
fn applications_wait_while_the_disk_is_full_and_lose_nothing() {
    if !can_mount() {
        return;
    }
    let Waiting { ballast, trail, running, application, _dir, _disk, .. } = Waiting::new();
    assert!(running.said().contains("applications wait in their writes"), "{}", running.said());
    std::fs::remove_file(ballast).expect("it is there");
    let seqs = application.join().expect("no panic");
    assert_eq!(seqs.len() as u64, COUNT);
    running.signal(Signal::TERM);
    end(running, 0).says("room again after").says("2500 records of 1 applications");
    on("verify", &trail, &[]).expect(0);
    check(&trail, &seqs);
}

#[test]
fn what_is_given_up_on_a_full_disk_was_never_answered() {
    if !can_mount() {
        return;
    }
    let Waiting { trail, mut running, answered, application, _dir, _disk, .. } = Waiting::new();
    running.signal(Signal::TERM);
    running.wait_until("what waits", |it| it.said().contains("records wait for room"));
    // Also while it waits itself it answers what is durable: all behind the record that says who we are.
    assert_eq!(Some(answered.load(Ordering::Relaxed)), running.acknowledged());
    running.signal(Signal::TERM);
    end(running, 6);
    let seqs = application.join().expect("no panic");
    assert!((seqs.len() as u64) < COUNT);
    check(&trail, &seqs);
}
