//! `graven record --source socket` and `--listen`: what applications send is answered when it is durable, whatever
//! they or the recorder do.

mod common;

use common::on;
use graven_client::wire::{self, Hello, RecordHeader};
use graven_client::{Client, ClientError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A recorder that does not outlive its test.
struct Recorder {
    child: Child,
    socket: PathBuf,
    trail: PathBuf,
}

impl Recorder {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let (socket, trail) = (dir.join("socket"), dir.join("trail"));
        let child = Command::new(assert_cmd::cargo::cargo_bin("graven"))
            .args(["record", "--source", "socket", "--segment-bytes", "1M", "--ring-bytes", "4M"])
            .args(["--checkpoint-interval", "off", "--quiet", "--trail"])
            .arg(&trail)
            .arg("--path")
            .arg(&socket)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut recorder = Self { child, socket, trail };
        recorder.wait_until_it_listens();
        recorder
    }

    fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(&self.socket).is_err() {
            let ended = self.child.try_wait().expect("it can be waited for");
            assert!(ended.is_none() && Instant::now() < deadline, "it does not listen: {ended:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn connect(&self) -> Client {
        Client::connect(&self.socket).expect("it listens")
    }

    /// Ends it and returns its exit code and what it said.
    fn end(mut self, signal: rustix::process::Signal) -> (Option<i32>, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut said).expect("text");
        (self.child.wait().expect("it ends").code(), said)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A record as `show --json` has it.
struct Shown {
    seq: u64,
    source: String,
    kind: u64,
    id: u64,
    text: String,
}

fn shown(trail: &Path) -> Vec<Shown> {
    let ran = on("show", trail, &["--json"]);
    assert!(ran.code == 0, "{}", ran.stderr);
    let one = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        Shown {
            seq: line["seq"].as_u64().expect("a seq"),
            source: line["source"].as_str().expect("a source").to_owned(),
            kind: line["type_number"].as_u64().expect("a number"),
            id: line["source_seq"].as_u64().expect("a number"),
            text: line["payload"]["text"].as_str().unwrap_or_default().to_owned(),
        }
    };
    ran.text().lines().map(one).collect()
}

#[test]
fn a_record_is_where_its_answer_says_and_whose_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::start(dir.path(), &["--mode", "600"]);
    let mode = std::fs::metadata(&recorder.socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let mut client = recorder.connect();
    let number = u64::from(client.welcome().client);
    let first = client.record(b"door 7 opened").expect("durable");
    client.send(u64::MAX, b"").expect("sent");
    client.send(5, b"door 7 closed\n\0\xff").expect("sent");
    let second = client.answer().expect("durable");
    let third = client.answer().expect("durable");
    assert_eq!((second.id, third.id), (u64::MAX, 5));
    assert!(matches!(client.answer(), Err(ClientError::NothingSent)));
    // While it runs.
    assert_eq!(
        on("export", &recorder.trail, &["--seq", &format!("{first}")]).stdout,
        b"door 7 opened\n"
    );
    drop(client);
    let trail = recorder.trail.clone();
    let socket = recorder.socket.clone();
    let (code, said) = recorder.end(rustix::process::Signal::TERM);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(!socket.exists(), "its name is gone");
    assert_eq!(on("verify", &trail, &[]).code, 0);
    let shown = shown(&trail);
    let records: Vec<_> = shown.iter().filter(|it| it.source == "socket").collect();
    let places: Vec<_> = records.iter().map(|it| (it.seq, it.kind, it.id)).collect();
    let expected = [(first, number, 1), (second.seq, number, u64::MAX), (third.seq, number, 5)];
    assert_eq!(places, expected);
    let (uid, pid) = (rustix::process::getuid().as_raw(), std::process::id());
    let connect = format!("op=socket-connect client={number} pid={pid} uid={uid} ");
    let opened = shown.iter().find(|it| it.text.contains(&connect)).expect("who it was");
    assert!(opened.seq < first && opened.kind == 1207, "{}", opened.text);
    let close = format!("op=socket-close client={number} pid={pid} ");
    let closed = shown.iter().find(|it| it.text.contains(&close)).expect("how it ended");
    assert!(
        closed.seq > third.seq && closed.text.contains("reason=eof records=3 "),
        "{}",
        closed.text
    );
    let bytes = on("export", &trail, &["--seq", &third.seq.to_string()]).stdout;
    assert_eq!(bytes, b"door 7 closed\n\0\xff\n");
    let text = on("show", &trail, &["--seq", &first.to_string()]).text();
    assert!(text.contains(&format!(" socket client[{number}] door 7 opened")), "{text}");
}

#[test]
fn the_example_of_the_documentation_works() {
    let Ok(python) = Command::new("python3").arg("--version").output() else {
        eprintln!("SKIPPED: there is no python3");
        return;
    };
    assert!(python.status.success());
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::start(dir.path(), &[]);
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/graven_socket.py");
    let output = Command::new("python3")
        .arg(example)
        .arg(&recorder.socket)
        .args(["door 7 opened", "", "door 7 closed"])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers = String::from_utf8(output.stdout).expect("text");
    let trail = recorder.trail.clone();
    drop(recorder);
    let shown = shown(&trail);
    let records: Vec<_> = shown.iter().filter(|it| it.source == "socket").collect();
    let expected: String = records.iter().map(|it| format!("{} {}\n", it.id, it.seq)).collect();
    assert_eq!(answers, expected);
    let texts: Vec<_> = records.iter().map(|it| it.text.as_str()).collect();
    assert_eq!(texts, ["door 7 opened", "", "door 7 closed"]);
}

/// Sends as fast as it is answered until the recorder is gone; gives each id's seq.
fn load(mut client: Client, name: usize) -> Vec<(u64, u64)> {
    let mut answered = Vec::new();
    for id in 0.. {
        while client.is_full() {
            match client.answer() {
                Ok(answer) => answered.push((answer.id, answer.seq)),
                Err(_) => return answered,
            }
        }
        if client.send(id, format!("{name} {id}").as_bytes()).is_err() {
            break;
        }
    }
    while let Ok(answer) = client.answer() {
        answered.push((answer.id, answer.seq));
    }
    answered
}

#[test]
fn every_answered_record_survives_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut all = Vec::new();
    for round in 0..6_u64 {
        let recorder = Recorder::start(dir.path(), &[]);
        let answered: Vec<_> = std::thread::scope(|scope| {
            let loads: Vec<_> = (0..4)
                .map(|name| {
                    let client = recorder.connect();
                    scope.spawn(move || load(client, name))
                })
                .collect();
            std::thread::sleep(Duration::from_millis(150 + 60 * round));
            recorder.end(rustix::process::Signal::KILL);
            loads.into_iter().map(|load| load.join().expect("no panic")).collect()
        });
        assert!(answered.iter().any(|it| !it.is_empty()), "the kill came too early");
        all.push(answered);
    }
    let trail = dir.path().join("trail");
    // The next start seals what the last kill left.
    let (code, said) = Recorder::start(dir.path(), &[]).end(rustix::process::Signal::TERM);
    assert_eq!(code, Some(0), "{said}");
    let verified = on("verify", &trail, &[]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    let shown = shown(&trail);
    let mut compared = 0;
    for (name, (id, seq)) in all
        .iter()
        .flat_map(|round| round.iter().enumerate())
        .flat_map(|(name, it)| it.iter().map(move |it| (name, *it)))
    {
        let record =
            shown.get(seq as usize).unwrap_or_else(|| panic!("answered seq {seq} is gone"));
        assert_eq!((record.seq, record.id), (seq, id));
        assert_eq!(record.text, format!("{name} {id}"));
        compared += 1;
    }
    eprintln!("{compared} answered records in {} of the trail", shown.len());
    assert!(compared > 100);
}

#[test]
fn a_stop_answers_what_was_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::start(dir.path(), &[]);
    let trail = recorder.trail.clone();
    let answered = std::thread::scope(|scope| {
        let client = recorder.connect();
        let load = scope.spawn(move || load(client, 0));
        std::thread::sleep(Duration::from_millis(200));
        let (code, said) = recorder.end(rustix::process::Signal::TERM);
        assert_eq!((code, said.as_str()), (Some(0), ""));
        load.join().expect("no panic")
    });
    let taken = shown(&trail).iter().filter(|it| it.source == "socket").count();
    assert_eq!(answered.len(), taken, "each record in the trail was answered, and no other");
    assert!(taken > 0);
}

#[test]
fn who_is_slow_or_silent_or_speaks_another_language_holds_nobody_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::start(dir.path(), &[]);
    // One takes no answers, and sends until it cannot.
    let mut greedy = UnixStream::connect(&recorder.socket).expect("it listens");
    greedy.write_all(&Hello { version: wire::VERSION }.encode()).expect("written");
    greedy.set_nonblocking(true).expect("it can be");
    let record = [&RecordHeader { id: 1, len: 100 }.encode()[..], &[b'g'; 100]].concat();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut full = 0;
    let mut at = 0;
    while full < 50 {
        assert!(Instant::now() < deadline, "there is no end to what it may send");
        match greedy.write(&record[at..]) {
            Ok(written) => (at, full) = ((at + written) % record.len(), 0),
            Err(_) => {
                full += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    // Others say nothing, or half a record, or something else.
    let silent = UnixStream::connect(&recorder.socket).expect("it listens");
    let mut half = UnixStream::connect(&recorder.socket).expect("it listens");
    half.write_all(&Hello { version: wire::VERSION }.encode()).expect("written");
    half.write_all(&[1; 7]).expect("written");
    let mut stranger = UnixStream::connect(&recorder.socket).expect("it listens");
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    let mut answer = Vec::new();
    let _ = stranger.read_to_end(&mut answer);
    assert_eq!(answer, b"", "it is closed without a word");
    let mut gone = recorder.connect();
    gone.send(1, b"without waiting").expect("sent");
    gone.flush().expect("written");
    drop(gone);
    let mut client = recorder.connect();
    let begin = Instant::now();
    for _ in 0..200 {
        client.record(b"meanwhile").expect("durable");
    }
    eprintln!("200 records one by one beside them: {:?}", begin.elapsed());
    let status = std::fs::read_to_string(format!("/proc/{}/status", recorder.child.id()));
    let status = status.expect("it runs");
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let kib: u64 = memory.trim().trim_end_matches(" kB").parse().expect("a number");
    // The ring and 16 MiB for all else is what the whole process may take.
    assert!(kib < 64 * 1024, "{kib} KiB resident");
    let trail = recorder.trail.clone();
    let (code, _) = recorder.end(rustix::process::Signal::TERM);
    assert_eq!(code, Some(0), "who takes no answers does not keep it from ending");
    drop((silent, half, greedy));
    let shown = shown(&trail);
    let closed = |text: &str| shown.iter().filter(|it| it.text.contains(text)).count();
    assert_eq!(closed("reason=stranger"), 1);
    assert_eq!(closed("unfinished-bytes=7"), 1);
    assert_eq!(shown.iter().filter(|it| it.text == "without waiting").count(), 1);
    assert_eq!(on("verify", &trail, &[]).code, 0);
}

#[test]
fn a_hundred_clients_and_those_that_do_not_fit_yet() {
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::start(dir.path(), &["--clients", "60"]);
    let seqs: Vec<u64> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..100)
            .map(|name| {
                let socket = &recorder.socket;
                scope.spawn(move || {
                    let mut client = Client::connect(socket).expect("its turn comes");
                    let one = |n| client.record(format!("{name} {n}").as_bytes()).expect("durable");
                    (0..20).map(one).collect::<Vec<u64>>()
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect()
    });
    let trail = recorder.trail.clone();
    let (code, said) = recorder.end(rustix::process::Signal::TERM);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let shown = shown(&trail);
    for (place, seq) in seqs.iter().enumerate() {
        assert_eq!(shown[*seq as usize].text, format!("{} {}", place / 20, place % 20));
    }
    assert_eq!(seqs.len(), 2000);
    let mut open = std::collections::BTreeSet::new();
    for record in &shown {
        let client = || {
            let rest = record.text.split_once("client=").expect("a client").1;
            rest.split(' ').next().and_then(|it| it.parse::<u64>().ok()).expect("a number")
        };
        match record.kind {
            1207 => assert!(open.insert(client()), "a number is one client's at a time"),
            1208 => assert!(open.remove(&client())),
            _ if record.source == "socket" => assert!(open.contains(&record.kind)),
            _ => {}
        }
        assert!(open.len() <= 60);
    }
    assert!(open.is_empty());
}

#[test]
fn what_is_too_long_is_refused_and_stated() {
    let dir = tempfile::tempdir().expect("a directory");
    let recorder = Recorder::start(dir.path(), &[]);
    let mut client = recorder.connect();
    let long = vec![b'x'; 131_073];
    assert!(matches!(client.record(&long), Err(ClientError::TooLong { len: 131_073, .. })));
    client.record(&long[1..]).expect("the longest is durable");
    let mut other = UnixStream::connect(&recorder.socket).expect("it listens");
    other.write_all(&Hello { version: wire::VERSION }.encode()).expect("written");
    other.write_all(&RecordHeader { id: 77, len: 131_073 }.encode()).expect("written");
    let mut answers = Vec::new();
    other.read_to_end(&mut answers).expect("answered and closed");
    let answer = answers[wire::WELCOME_BYTES..].first_chunk().map(wire::Answer::decode);
    assert_eq!(answer, Some(wire::Answer { id: 77, seq: wire::REFUSED }));
    let trail = recorder.trail.clone();
    drop(client);
    assert_eq!(recorder.end(rustix::process::Signal::TERM).0, Some(0));
    let verified = on("verify", &trail, &[]);
    assert_eq!(verified.code, 4, "a loss is stated");
    assert!(
        verified.text().contains("1 record is missing from source socket"),
        "{}",
        verified.text()
    );
}

#[test]
fn who_may_not_connect_cannot() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: this test needs root");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("set");
    let recorder = Recorder::start(dir.path(), &["--group", "64999"]);
    let script = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
    let connects = |uid: u32, gid: u32| {
        use std::os::unix::process::CommandExt as _;
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(&recorder.socket).uid(uid).gid(gid);
        python.output().map(|output| output.status.success())
    };
    let Ok(other) = connects(64_999, 64_998) else {
        eprintln!("SKIPPED: there is no python3");
        return;
    };
    assert!(!other, "others cannot connect");
    assert!(connects(64_999, 64_999).expect("python3"), "the group can");
    let mode = std::fs::metadata(&recorder.trail).expect("a trail").permissions().mode();
    assert_eq!(mode & 0o077, 0, "and nobody can read the trail");
}

#[test]
fn options_that_mean_nothing_and_sockets_that_cannot_be_are_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let trail = dir.path().join("trail");
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").expect("written");
    let file = file.to_str().expect("text");
    for (args, text) in [
        (&["--source", "socket"][..], "source socket needs --path"),
        (
            &["--source", "stdin", "--path", "x"],
            "--path is an option of sources af-unix and socket",
        ),
        (
            &["--source", "stdin", "--listen", "x"],
            "--listen is an option of sources netlink and multicast",
        ),
        (
            &["--source", "stdin", "--mode", "600"],
            "--mode is an option of source socket and --listen",
        ),
        (&["--source", "socket", "--path", "x", "--format", "auto"], "--format is an option of"),
        (&["--source", "socket", "--path", file], "there is something that is no socket"),
        (
            &["--source", "socket", "--path", "/nonexistent/dir/socket"],
            "cannot make the directory of",
        ),
    ] {
        let output = Command::new(assert_cmd::cargo::cargo_bin("graven"))
            .args(["record", "--trail"])
            .arg(&trail)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(text), "{args:?}: {said}");
    }
    assert_eq!(std::fs::read(file).expect("there"), b"mine");
}

/// What `--config` says of the socket is what it is; where it means nothing, its key is named.
#[test]
fn a_configuration_makes_the_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let (trail, socket) = (dir.path().join("trail"), dir.path().join("from-the-file"));
    let config = dir.path().join("graven.toml");
    let write = |source: &str, keys: &str| {
        let trail = trail.display();
        let text = format!(
            "[trail]\ndir = \"{trail}\"\nsource = \"{source}\"\nsegment_bytes = \"1M\"\nring_bytes = \"4M\"\n\
             quiet = true\n[checkpoint]\ninterval = \"off\"\n[space]\nspace_left = \"1M\"\nadmin_space_left = 0\n\
             reserve = \"off\"\n[process]\npriority = 0\noom_score = 0\nmlock = false\n[socket]\n{keys}"
        );
        std::fs::write(&config, text).expect("written");
    };
    let command = || {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("graven"));
        command.args(["record", "--config"]).arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let listen = format!("listen = \"{}\"\n", socket.display());
    for (source, keys, text) in [
        ("stdin", listen.as_str(), "socket.listen"),
        ("socket", "", "socket.listen"),
        ("socket", "listen = \"/tmp/socket\"\nmode = \"0770\"\n", ":19:8, key socket.mode"),
        ("netlink", "mode = \"0600\"\n", "socket.mode"),
    ] {
        write(source, keys);
        let output = command().output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{source} {keys}: {said}");
        assert!(said.contains(text), "{source} {keys}: {said}");
        assert!(!trail.exists(), "nothing was begun");
    }
    // A group that is not ours takes a capability, which is kept though others are given up.
    let gid = if rustix::process::geteuid().is_root() {
        4711
    } else {
        rustix::process::getegid().as_raw()
    };
    write("socket", &format!("{listen}mode = \"0620\"\ngroup = \"{gid}\"\nclients = 3\n"));
    let child = command().spawn().expect("it starts");
    let mut recorder = Recorder { child, socket: socket.clone(), trail: trail.clone() };
    recorder.wait_until_it_listens();
    let is = std::fs::metadata(&socket).expect("a socket");
    assert_eq!(is.permissions().mode() & 0o7777, 0o620);
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&is), gid);
    let mut client = recorder.connect();
    client.send(1, b"by the file").expect("it reads");
    client.flush().expect("it reads");
    client.answer().expect("it answers");
    drop(client);
    let (code, said) = recorder.end(rustix::process::Signal::TERM);
    assert_eq!(code, Some(0), "{said}");
    assert!(shown(&trail).iter().any(|it| it.text == "by the file"));
}
