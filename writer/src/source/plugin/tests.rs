use super::*;
use graven_format::{Flags, Record};
use proptest::prelude::*;
use std::cell::RefCell;
use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    source: Source,
    kind: u16,
    flags: Flags,
    seq: u64,
    text: Vec<u8>,
}

#[derive(Default)]
struct List(Mutex<Vec<Kept>>);

impl Sink for List {
    fn next_seq(&self) -> u64 {
        self.0.lock().expect("no panic").len() as u64
    }

    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError> {
        let mut list = self.0.lock().expect("no panic");
        list.push(Kept {
            source: record.source,
            kind: record.kind,
            flags: record.flags,
            seq: record.source_seq,
            text: record.bytes.to_vec(),
        });
        Ok(list.len() as u64 - 1)
    }
}

impl List {
    fn of(&self, source: Source) -> Vec<Kept> {
        self.0.lock().expect("no panic").iter().filter(|it| it.source == source).cloned().collect()
    }

    /// What we said ourselves, as text.
    fn own(&self) -> Vec<String> {
        let text = |it: Kept| String::from_utf8(it.text).expect("text");
        self.of(Source::Graven).into_iter().map(text).collect()
    }

    fn statements(&self) -> Vec<LossStatement> {
        let list = self.of(Source::Graven).into_iter();
        list.filter_map(|it| LossStatement::parse(&it.text).ok()).map(|(it, _)| it).collect()
    }
}

/// Reads a stream to its end.
fn fed(bytes: &[u8]) -> (List, Summary, Vec<Trouble>) {
    let (input, mut output) = UnixStream::pair().expect("a pair");
    let (stopped, _stop) = UnixStream::pair().expect("a pair");
    let (list, troubles) = (List::default(), RefCell::new(Vec::new()));
    let summary = std::thread::scope(|scope| {
        scope.spawn(move || output.write_all(bytes).expect("written"));
        let trouble = &mut |it| troubles.borrow_mut().push(it);
        let (sink, now, format) = (&list, &crate::clock::now, Format::Auto);
        read(Plugin { sink, now, format, stopped: stopped.as_fd(), trouble }, input.as_fd())
    });
    (list, summary.expect("everything is read"), troubles.into_inner())
}

/// Records as auditd logs them, with the EOE that it does not, and their payloads.
const EVENT: [(u16, &str); 4] = [
    (1300, "audit(1733000000.123:7): arch=c000003e syscall=257 success=yes key=\"k\""),
    (1307, "audit(1733000000.123:7): cwd=\"/root\""),
    (1327, "audit(1733000000.123:7): proctitle=6C73"),
    (1320, "audit(1733000000.123:7): "),
];

fn log_line(kind: u16, payload: &str) -> String {
    format!("type={} msg={payload}", graven_format::kind::Kind(kind))
}

fn binary(version: u32, kind: u16, payload: &[u8]) -> Vec<u8> {
    let words = [version, 16, kind.into(), payload.len() as u32];
    [words.iter().flat_map(|word| word.to_ne_bytes()).collect(), payload.to_vec()].concat()
}

#[test]
fn the_same_event_is_the_same_records_in_every_format() {
    let mut streams = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for (kind, payload) in EVENT {
        let line = log_line(kind, payload);
        streams[0].extend_from_slice(format!("{line}\n").as_bytes());
        streams[1].extend_from_slice(&binary(0, kind, payload.as_bytes()));
        streams[2].extend_from_slice(&binary(1, kind, line.as_bytes()));
        // As af_unix makes them of lines.
        streams[3].extend_from_slice(&binary(1, 0, line.as_bytes()));
    }
    for stream in streams {
        let (list, summary, troubles) = fed(&stream);
        let got = list.of(Source::Import);
        assert_eq!(got.len(), 4);
        for (record, (kind, payload)) in got.iter().zip(EVENT) {
            assert_eq!(record.text, log_line(kind, payload).as_bytes());
            assert_eq!((record.kind, record.seq, record.flags), (kind, 7, Flags::NONE));
        }
        assert_eq!(troubles, []);
        let expected = Summary { bytes: stream.len() as u64, records: 4, ..Summary::default() };
        assert_eq!(summary, expected);
        assert!(list.own()[0].ends_with("op=source source=plugin best-effort=yes res=success"));
        assert_eq!(list.own().len(), 1);
    }
}

#[test]
fn lines_that_are_enriched_or_named_are_kept_whole() {
    let lines: [&[u8]; 4] = [
        b"node=web-1 type=CWD msg=audit(1733000000.123:900): cwd=\"/\"",
        b"type=USER_LOGIN msg=audit(1733000000.123:8): pid=1 msg='op=login res=success'\x1dUID=\"root\" AUID=\"unset\"",
        b"type=UNKNOWN[1999] msg=audit(1733000000.123:8): name=\"\xff\xfe\"",
        b"type=DAEMON_START msg=audit(1733000000.123:4711): op=start",
    ];
    let (list, summary, troubles) = fed(&lines.map(|line| [line, b"\n"].concat()).concat());
    let got = list.of(Source::Import);
    let texts: Vec<_> = got.iter().map(|it| &it.text[..]).collect();
    assert_eq!(texts, lines);
    let numbers: Vec<_> = got.iter().map(|it| (it.kind, it.seq)).collect();
    assert_eq!(numbers, [(1307, 900), (1112, 8), (1999, 8), (1200, 4711)]);
    // Neither another machine's serials nor the daemon's own numbers are ours to miss.
    assert_eq!((summary.statements, troubles), (0, vec![]));
}

#[test]
fn events_that_auditd_dropped_are_stated() {
    let lines =
        [5, 6, 9, 10].map(|n| format!("type=CWD msg=audit(1.002:{n}): cwd=\"/\"\n")).concat();
    let (list, summary, _) = fed(lines.as_bytes());
    let statements = list.statements();
    assert_eq!(statements.len(), 1);
    assert_eq!((statements[0].source, statements[0].cause), (Source::Import, Cause::SerialGap));
    assert_eq!((statements[0].certainty, statements[0].range), (Certainty::Exactly, Some((7, 8))));
    assert_eq!((summary.lost_events, summary.statements), (2, 1));
}

#[test]
fn an_auditd_that_cuts_the_last_sixteen_bytes_is_found_out_and_said() {
    let cut = |(kind, payload): (u16, &str)| (kind, payload[..payload.len() - 16].to_owned());
    let event = EVENT.map(cut);
    let as_binary = event.clone().map(|(kind, text)| binary(0, kind, text.as_bytes())).concat();
    let as_lines = event.clone().map(|(kind, text)| log_line(kind, &text) + "\n").concat();
    for stream in [as_binary.repeat(3), as_lines.repeat(3).into_bytes()] {
        let (list, summary, troubles) = fed(&stream);
        let got = list.of(Source::Import);
        assert_eq!(got.len(), 12);
        for (record, (kind, text)) in got.iter().zip(event.iter().cycle()) {
            assert_eq!(record.text, log_line(*kind, text).as_bytes(), "kept as it came");
        }
        assert_eq!(troubles.len(), 1);
        assert!(matches!(troubles[0], Trouble::Cut { offset } if offset > 0));
        // From the first end of an event on it is known; before, of a record that lost its stamp.
        assert_eq!((summary.cut, summary.malformed), (10, 0));
        let own = list.own();
        assert!(own.iter().any(|it| it.contains("op=plugin-cut offset=")), "{own:?}");
        let stated: u64 = list.statements().iter().map(|it| it.count).sum();
        assert_eq!(stated, 10);
        assert!(list.statements().iter().all(|it| it.cause == Cause::PartialEvent));
    }
    // Enriched records of the same auditd are whole, and so are its own.
    let line = log_line(1300, EVENT[0].1);
    let (_, summary, _) = fed(&binary(1, 1300, line.as_bytes()));
    assert_eq!(summary.cut, 0);
}

#[test]
fn what_is_no_record_is_kept_and_said_with_its_offset() {
    let (list, summary, troubles) =
        fed(b"type=CWD msg=audit(1.002:3): a\nwhat?\n\ntype=EOE msg=aud");
    let got = list.of(Source::Import);
    let texts: Vec<_> = got.iter().map(|it| (it.kind, it.flags, &it.text[..])).collect();
    let whole = (1307, Flags::NONE, &b"type=CWD msg=audit(1.002:3): a"[..]);
    let raw = (0, Flags::NONE, &b"what?"[..]);
    let cut_off = (1320, Flags::UNTERMINATED, &b"type=EOE msg=aud"[..]);
    assert_eq!(texts, [whole, raw, (0, Flags::NONE, b""), cut_off]);
    assert_eq!(summary.malformed, 3);
    let seqs = [2, 4, 6];
    let offsets: [(u64, u64); 3] = [(31, 5), (37, 0), (38, 16)];
    for ((trouble, (offset, bytes)), seq) in troubles.iter().zip(offsets).zip(seqs) {
        assert_eq!(*trouble, Trouble::Malformed { offset, bytes, seq });
        let said =
            format!("op=plugin-malformed offset={offset} bytes={bytes} record={seq} res=failed");
        assert!(list.own().iter().any(|it| it.ends_with(&said)), "{said}");
    }
    let long = [&vec![b'x'; 200_000][..], b"\n"].concat();
    let (list, summary, troubles) = fed(&long);
    assert_eq!((summary.too_long, summary.records), (1, 0));
    assert_eq!(troubles, [Trouble::TooLong { offset: 0, bytes: 200_000 }]);
    assert_eq!(list.statements()[0].cause, Cause::InputTooLong);
    let many = b"?\n".repeat(50);
    let (list, summary, _) = fed(&many);
    assert_eq!((summary.malformed, list.of(Source::Import).len()), (50, 50));
    assert_eq!(list.own().len(), 1 + 20 + 1);
    assert!(list.own()[21].ends_with("op=plugin-malformed count=50 res=failed"));
}

#[test]
fn a_socket_that_goes_and_comes_again_is_followed_and_the_gap_stated() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("events");
    let address = SocketAddrUnix::new(&path).expect("short");
    let (stopped, stop) = UnixStream::pair().expect("a pair");
    let list = List::default();
    let waited = Mutex::new(0);
    let summary = std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let (sink, now, format) = (&list, &crate::clock::now, Format::Auto);
            let plugin =
                Plugin { sink, now, format, stopped: stopped.as_fd(), trouble: &mut |_| {} };
            follow(plugin, &address, &mut |_| *waited.lock().expect("no panic") += 1)
        });
        for (life, bytes) in
            [b"type=CWD msg=audit(1.002:1): a\n".to_vec(), binary(0, 1307, b"audit(1.002:2): b")]
                .into_iter()
                .enumerate()
        {
            while life == 0 && *waited.lock().expect("no panic") == 0 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            let listener = UnixListener::bind(&path).expect("bound");
            let (mut socket, _) = listener.accept().expect("it connects");
            socket.write_all(&bytes).expect("written");
            while list.of(Source::Import).len() <= life {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            std::fs::remove_file(&path).expect("removed");
            if life == 1 {
                // It is connected when it is told to stop.
                stop.shutdown(std::net::Shutdown::Both).expect("shut down");
                return follower.join().expect("no panic");
            }
        }
        unreachable!("two lives")
    });
    let summary = summary.expect("followed");
    assert_eq!((summary.records, summary.reconnects, summary.statements), (2, 1, 1));
    let statements = list.statements();
    assert_eq!(statements.len(), 1);
    assert_eq!((statements[0].cause, statements[0].count), (Cause::NoDaemon, 0));
    assert_eq!(statements[0].certainty, Certainty::AtLeast);
    assert!(list.own()[0].contains("op=source source=af-unix best-effort=yes"));
}

#[test]
fn a_stop_takes_what_is_there_first() {
    let (input, mut output) = UnixStream::pair().expect("a pair");
    let (stopped, stop) = UnixStream::pair().expect("a pair");
    drop(stop);
    let lines = b"type=CWD msg=audit(1.002:3): a\n".repeat(100);
    output.write_all(&lines).expect("written");
    let list = List::default();
    let (sink, now, format) = (&list, &crate::clock::now, Format::String);
    let plugin = Plugin { sink, now, format, stopped: stopped.as_fd(), trouble: &mut |_| {} };
    let summary = read(plugin, input.as_fd()).expect("read");
    assert_eq!(summary.records, 100);
}

proptest! {
    #[test]
    fn any_stream_gives_the_same_records_however_it_is_cut(
        parts in proptest::collection::vec(prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..30),
            (0_usize..4, 0_u32..5).prop_map(|(at, serial)| {
                let (kind, payload) = EVENT[at];
                binary(0, kind, payload.replace(":7)", &format!(":{serial})")).as_bytes())
            }),
            (0_usize..4, 1_usize..60).prop_map(|(at, len)| {
                let (kind, payload) = EVENT[at];
                (log_line(kind, &payload[..len.min(payload.len())]) + "\n").into_bytes()
            }),
        ], 0..12),
        piece in 1_usize..80,
    ) {
        let sent = parts.concat();
        let (one, other) = (List::default(), List::default());
        let summary = super::fed(&sent, piece, Format::Auto, &one).expect("taken");
        prop_assert_eq!(super::fed(&sent, usize::MAX, Format::Auto, &other), Ok(summary));
        prop_assert_eq!(one.of(Source::Import), other.of(Source::Import));
        prop_assert_eq!(one.own(), other.own());
    }
}

/// Every line of the real logs that are there, in every format.
#[test]
fn real_lines_come_out_as_they_went_in() {
    fn logs(dir: &std::path::Path, into: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => logs(&path, into),
                path if path.extension().is_some_and(|it| it == "log") => into.push(path),
                _ => {}
            }
        }
    }
    let Some(dir) = std::env::var_os("GRAVEN_AUDIT_SAMPLES") else {
        eprintln!("SKIPPED: GRAVEN_AUDIT_SAMPLES names no directory of audit logs");
        return;
    };
    let mut files = Vec::new();
    logs(dir.as_ref(), &mut files);
    let mut compared = 0;
    for file in files {
        let log = std::fs::read(&file).expect("readable");
        let lines: Vec<_> =
            log.split(|byte| *byte == b'\n').filter(|it| line::read(it).is_some()).collect();
        let as_lines = lines.iter().flat_map(|it| [*it, b"\n"].concat()).collect();
        let as_v1: Vec<u8> = lines.iter().flat_map(|it| binary(1, 0, it)).collect();
        let as_v0: Vec<u8> = lines
            .iter()
            // Whoever wrote these did not know the type's name, which we may.
            .filter(|it| !it.starts_with(b"type=UNKNOWN["))
            .filter_map(|it| {
                let kind = line::read(it).filter(|it| !it.node && it.kind > 0)?.kind;
                let at = memchr::memmem::find(it, b" msg=")? + 5;
                Some(binary(0, kind, &it[at..]))
            })
            .flatten()
            .collect();
        let (list, ..) = fed(&as_v0);
        let mut left = lines.iter();
        for record in list.of(Source::Import) {
            assert!(left.any(|it| **it == record.text), "{file:?}: a line of version 0 is another");
        }
        for stream in [as_lines, as_v1] {
            let (list, summary, troubles) = fed(&stream);
            let records = list.of(Source::Import);
            assert!(records.iter().map(|it| &it.text[..]).eq(lines.iter().copied()), "{file:?}");
            assert_eq!((summary.malformed, summary.cut), (0, 0), "{file:?} {troubles:?}");
        }
        compared += lines.len();
    }
    assert!(compared > 100, "{compared} lines");
    eprintln!("{compared} real lines, three formats");
}
