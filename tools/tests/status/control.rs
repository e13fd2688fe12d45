//! The control socket: who may ask, what is no question, and readers that do not read.

use crate::rig::{PATIENCE, Recording, lines};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// As `status::server::CLIENTS_MAX`.
const CLIENTS_MAX: usize = 16;

fn connect(recording: &Recording) -> UnixStream {
    let stream = UnixStream::connect(recording.trail.join("control")).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Sends these bytes, and returns all that is answered until the end.
fn answer(recording: &Recording, request: &[u8]) -> String {
    let mut stream = connect(recording);
    // Whoever is refused early cannot take more.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("text")
}

fn watcher(recording: &Recording) -> UnixStream {
    let mut stream = connect(recording);
    let request = b"{\"v\":1,\"request\":\"watch\",\"interval_ms\":100}\n";
    stream.write_all(request).expect("it reads");
    stream
}

#[test]
fn what_is_no_question_is_told_so_and_harms_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut recording = Recording::start(&dir.path().join("trail"), &["--no-key"]);
    recording.feed(&lines(10), 9);
    let mut random = crate::common::Random(7);
    let noise: Vec<u8> =
        (0..3000).map(|_| random.next(256) as u8).filter(|it| *it != b'\n').collect();
    for (request, part) in [
        (&b"\n"[..], "no request"),
        (b"", "no request"),
        (b"GET / HTTP/1.1\r\n\r\n", "no request"),
        (b"{\"v\":9,\"request\":\"x\"}\n", "version 9 is not spoken here"),
        (b"{\"v\":1,\"request\":\"status\",\"x\":1}\n", "unknown field"),
        (b"{\"v\":1,\"request\":\"watch\",\"interval_ms\":0}\n", "interval_ms is from"),
        (&[b'{'; 5000], "at most 4096 bytes"),
        (&noise, "no request"),
    ] {
        let text = answer(&recording, request);
        let told: serde_json::Value = serde_json::from_str(&text).expect(&text);
        let error = told["error"].as_str().expect(&text);
        assert!(error.contains(part), "{error} instead of {part}");
    }
    // One line, of which the end is no line's end, is a question all the same.
    let text = answer(&recording, b"{\"v\":1,\"request\":\"status\"}");
    assert!(text.contains("\"durable\":10"), "{text}");
    assert_eq!(recording.end(), (0, String::new()));
}

#[test]
fn two_readers_see_the_same_writer() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut recording = Recording::start(&dir.path().join("trail"), &["--no-key"]);
    let mut readers = [watcher(&recording), watcher(&recording)].map(BufReader::new);
    let mut next = |reader: usize| -> serde_json::Value {
        let mut line = String::new();
        readers[reader].read_line(&mut line).expect("it tells");
        let mut told: serde_json::Value = serde_json::from_str(&line).expect(&line);
        told["status"].take()
    };
    for reader in [0, 1] {
        assert_eq!(next(reader)["records"]["durable"], 0);
    }
    recording.feed(&lines(100), 99);
    for reader in [0, 1, 0, 1, 1, 0] {
        let begun = Instant::now();
        while next(reader)["records"]["durable"] != 100 {
            assert!(begun.elapsed() < PATIENCE);
        }
    }
    assert_eq!(recording.status_when(|it| it["control"]["clients"] == 3)["control"]["dropped"], 0);
    drop(readers);
    // Who has gone is forgotten; the one that asks is there.
    recording.status_when(|it| it["control"]["clients"] == 1);
    assert_eq!(recording.end(), (0, String::new()));
}

#[test]
fn there_is_an_end_to_the_number_of_readers() {
    let dir = tempfile::tempdir().expect("a directory");
    let recording = Recording::start(&dir.path().join("trail"), &["--no-key"]);
    let mut readers: Vec<_> = (0..CLIENTS_MAX)
        .map(|_| {
            let begun = Instant::now();
            loop {
                let mut reader = BufReader::new(watcher(&recording));
                let mut line = String::new();
                reader.read_line(&mut line).expect("it tells");
                if line.contains("\"status\"") {
                    break reader;
                }
                // Whoever asked whether it runs may still have a place.
                assert!(begun.elapsed() < PATIENCE, "{line}");
            }
        })
        .collect();
    let ran = recording.status(&[]);
    assert_eq!(ran.code, 3, "{}", ran.text());
    assert!(ran.stderr.contains("16 others are being answered"), "{}", ran.stderr);
    readers.pop();
    let told = recording.status_when_answered();
    assert_eq!(told["control"]["refused"].as_u64().map(|it| it >= 1), Some(true), "{told:#}");
    assert_eq!(recording.end(), (0, String::new()));
}

#[test]
fn only_the_owner_and_root_are_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let recording = Recording::start(&trail, &["--no-key"]);
    let socket = trail.join("control");
    let mode = socket.metadata().expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let as_nobody = |script: &str| {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
        ]);
        command.arg(script).arg(&socket).current_dir("/").output()
    };
    if !as_nobody("pass").is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: asking as another user takes root, setpriv and /usr/bin/python3");
        return;
    }
    // Whoever is refused may be so before it has asked.
    let ask = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
               try:\n  s.sendall(b'{\"v\":1,\"request\":\"status\"}\\n')\n\
               except BrokenPipeError:\n  pass\nprint(s.recv(65536).decode())\n";
    let ask_as_nobody = || {
        let output = as_nobody(ask).expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    };
    // The directory lets nobody in, nor would the socket.
    let said = ask_as_nobody();
    assert!(said.contains("PermissionError"), "{said}");
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("it is ours");
    };
    open(dir.path(), 0o755);
    open(&trail, 0o755);
    let said = ask_as_nobody();
    assert!(said.contains("PermissionError"), "{said}");
    // And if somebody opens that, who asks is asked for.
    open(&socket, 0o666);
    let said = ask_as_nobody();
    assert!(said.contains("only the trail's owner and root may ask"), "{said}");
    assert!(!said.contains("records"), "{said}");
    assert_eq!(recording.status(&[]).code, 0);
    assert_eq!(recording.end(), (0, String::new()));
}

#[test]
fn readers_that_do_not_read_are_dropped_and_slow_nobody() {
    const RECORDS: u64 = 1_000_000;
    let dir = tempfile::tempdir().expect("a directory");
    let input = lines(RECORDS);
    let recorded = |name: &str, stuck: usize| {
        let mut recording = Recording::start(&dir.path().join(name), &["--no-key"]);
        let readers: Vec<_> = (0..stuck).map(|_| watcher(&recording)).collect();
        let begun = Instant::now();
        recording.feed(&input, RECORDS - 1);
        let took = begun.elapsed();
        if stuck > 0 {
            let told = recording.status_when_answered_as(|it| it["control"]["dropped"] == stuck);
            assert_eq!(told["control"]["clients"], 1, "only this one is left: {told:#}");
        }
        drop(readers);
        assert_eq!(recording.end(), (0, String::new()));
        took
    };
    let alone = recorded("alone", 0);
    let beside = recorded("beside", CLIENTS_MAX - 1);
    eprintln!(
        "{RECORDS} records took {alone:?} without readers, {beside:?} with ones that do not read"
    );
    assert!(beside < 3 * alone + Duration::from_secs(2), "{beside:?} instead of {alone:?}");
}

impl Recording {
    /// The status, once there is a place for who asks.
    #[track_caller]
    fn status_when_answered(&self) -> serde_json::Value {
        self.status_when_answered_as(|_| true)
    }

    /// The same, once it is as wanted.
    #[track_caller]
    fn status_when_answered_as(
        &self,
        is_it: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let begun = Instant::now();
        loop {
            let ran = self.status(&["--json"]);
            if ran.code != 3 && is_it(&ran.json()) {
                return ran.json();
            }
            assert!(begun.elapsed() < PATIENCE, "{}{}", ran.text(), ran.stderr);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
