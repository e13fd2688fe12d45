//! Applications on a full disk: they wait, have their answers when there is room, and none for what was given up.

use crate::rig::mount::{Mounted, can_mount};
use crate::rig::{NO_RECORDS, Ran, Running, SEGMENT, graven, on, temp_dir};
use graven_client::{Client, ClientError};
use rustix::process::Signal;
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
    application: JoinHandle<(Vec<u64>, Option<ClientError>)>,
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
        command.args(["--ring-bytes", "2M", "--compress-sealed", "0"]);
        let mut running = Running::start(&mut command, Stdio::null());
        running.wait_until("the socket", |it| it.said().contains("taking records"));
        let client = Client::connect(&socket).expect("it listens");
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

/// Sends every record, and gives the seqs of its answers and why there are no more.
fn apply(mut client: Client, answered: &AtomicU64) -> (Vec<u64>, Option<ClientError>) {
    let mut seqs = Vec::new();
    let mut take = |client: &mut Client| -> Result<(), ClientError> {
        let answer = client.answer()?;
        assert_eq!(answer.id, seqs.len() as u64, "in their order");
        seqs.push(answer.seq);
        answered.store(seqs.len() as u64, Ordering::Relaxed);
        Ok(())
    };
    let mut all = || -> Result<(), ClientError> {
        for id in 0..COUNT {
            while client.is_full() {
                take(&mut client)?;
            }
            client.send(id, &payload(id))?;
        }
        while client.unanswered() > 0 {
            take(&mut client)?;
        }
        Ok(())
    };
    let ended = all().err();
    (seqs, ended)
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
    let (seqs, ended) = application.join().expect("no panic");
    assert!(ended.is_none(), "{ended:?}");
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
    let before = answered.load(Ordering::Relaxed);
    running.signal(Signal::TERM);
    end(running, 6);
    let (seqs, ended) = application.join().expect("no panic");
    assert!(ended.is_some(), "it is told that nothing more comes");
    assert_eq!(seqs.len() as u64, before);
    check(&trail, &seqs);
}
