//! Checkpoints and keys on the real disk: every note is signed by the key of its place, and keys
//! that have signed are gone.

use graven_format::key_file::KeyFile;
use graven_format::merkle::{CompactRange, leaf_hash};
use graven_format::name::{self, Name};
use graven_format::note::{Note, PublicKey, Signed};
use graven_format::scan::{Event, Expect, Scanner};
use graven_format::{Flags, Record, Source};
use graven_writer::keys::files;
use graven_writer::keys::{KeyOption, KeyTrouble};
use graven_writer::{CheckpointError, Compress, OpenError, Options, Trail, clock};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn record(bytes: &[u8]) -> Record<'_> {
    let now = clock::now();
    Record {
        source: Source::Stdin,
        kind: 0,
        flags: Flags::NONE,
        realtime_ns: now.realtime_ns,
        boottime_ns: now.boottime_ns,
        source_seq: 0,
        bytes,
    }
}

fn options() -> Options {
    Options {
        segment_bytes: 1024 * 1024,
        ring_bytes: 2 * 1024 * 1024,
        checkpoint: None,
        ..Options::default()
    }
}

/// A trail as somebody reads it who follows the keys from the first one.
#[derive(Debug, Default)]
struct Read {
    /// Each note that is signed by the key of its place: its size, and whether it is a record.
    notes: Vec<(u64, bool)>,
    records: u64,
    checkpoints: u64,
    epochs: u64,
    segments: u64,
    key: Option<PublicKey>,
    all: Vec<Vec<u8>>,
}

/// Reads a sealed trail; panics on any finding and on any note that its key has not signed.
fn read(dir: &Path) -> Read {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let (mut read, mut tree) = (Read::default(), CompactRange::new(0));
    for name in names {
        let Some(Name::Segment { segment, first_seq }) = Name::parse(&name) else { continue };
        let mut scanner = Scanner::new(Expect { segment, first_seq, trail_id: None, merkle: true });
        scanner.push(&fs::read(dir.join(&name)).unwrap());
        scanner.end();
        while let Some(event) = scanner.next_event() {
            match event {
                Event::Header(header) => {
                    let origin = graven_format::lines::origin(header.trail_id);
                    let key = PublicKey::new(&origin, &header.key).expect("a key in each header");
                    assert_eq!(header.epoch, read.epochs);
                    assert_eq!(*read.key.get_or_insert(key.clone()), key, "the key of its place");
                    read.segments += 1;
                }
                Event::Record { seq, record, .. } => {
                    if record.flags.contains(Flags::CHECKPOINT) {
                        let note = Note::parse(record.bytes).expect("a note");
                        assert_eq!(note.verify(read.key.as_ref().unwrap()), Signed::Yes);
                        assert_eq!(note.checkpoint.head.size, seq);
                        assert_eq!(Some(note.checkpoint.head.root), tree.root());
                        read.notes.push((seq, true));
                        read.checkpoints += 1;
                        if let Some(next) = note.checkpoint.successor {
                            read.key = Some(next);
                            read.epochs += 1;
                        }
                    } else {
                        read.records += 1;
                    }
                    read.all.push(record.bytes.to_vec());
                    tree.append(leaf_hash(&record));
                }
                Event::Finding(finding) => panic!("{name}: {finding} {finding:?}"),
                _ => {}
            }
        }
        let trailer = scanner.outcome().trailer.expect("sealed");
        let note = Note::parse(&trailer.note).expect("a signed trailer");
        assert_eq!(note.verify(read.key.as_ref().unwrap()), Signed::Yes);
        assert_eq!(Some(note.checkpoint.head.root), tree.root());
        read.notes.push((trailer.end_seq(), false));
    }
    read
}

/// The key that a directory has.
fn own_key(dir: &Path) -> KeyFile {
    files::read(&dir.join(name::KEY)).unwrap().expect("a file").expect("a key")
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_checkpoint_is_made_on_demand_at_a_cadence_and_at_the_end_and_never_for_itself() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("trail");
    let interval = Some(Duration::from_millis(50));
    let trail = Trail::open(&path, &Options { checkpoint: interval, ..options() }).unwrap();
    assert!(trail.checkpoints().newest().is_none());
    for n in 0..5_u8 {
        trail.append(&record(&[n])).unwrap();
    }
    let asked = trail.checkpoint().unwrap();
    assert!(asked.size >= 5 && trail.durable() > asked.size);
    assert_eq!(trail.checkpoint().unwrap().size, asked.size, "nothing has come since");
    // What the interval asks for comes without being asked for, and nothing comes of it.
    let ticket = trail.append(&record(b"later")).unwrap();
    let due = trail.checkpoints().wait_covering(ticket.seq() + 1).unwrap();
    let next_seq = trail.ring().next_seq;
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(trail.ring().next_seq, next_seq, "an idle trail does not grow");
    assert_eq!(due.size + 1, next_seq);
    let summary = trail.close().unwrap();
    let last = summary.checkpoint.expect("a signed end");
    assert_eq!(last.size, summary.durable);
    let read = read(&path);
    assert_eq!((read.records, read.checkpoints), (6, 2));
    assert_eq!(read.notes.last(), Some(&(summary.durable, false)));
    // The note that the trail ends with is the newest of the next writer until it has its own.
    let trail = Trail::open(&path, &options()).unwrap();
    assert_eq!(trail.checkpoint().unwrap().note, last.note);
}

#[test]
fn keys_follow_one_another_and_are_gone() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("trail");
    // Compressed, these records would not fill segments.
    let options = Options { epoch_segments: 2, compress: Compress::Never, ..options() };
    let mut seeds = Vec::new();
    for life in 0..3 {
        let trail = Trail::open(&path, &options).unwrap();
        seeds.push(own_key(&path).to_text());
        for n in 0..6000_u32 {
            trail.append(&record(&[n as u8; 1000])).unwrap();
        }
        trail.close().unwrap();
        let read = read(&path);
        assert_eq!(read.records, 6000 * (life + 1));
        assert!(read.epochs > life, "{} epochs in {} segments", read.epochs, read.segments);
        let own = own_key(&path);
        assert_eq!(Some(own.key.public()), read.key.as_ref());
        assert_eq!(own.epoch, read.epochs);
        assert!(seeds.iter().all(|old| **old != *own.to_text()));
    }
}

#[test]
fn an_epoch_ends_by_time_also_when_nothing_comes_any_more() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("trail");
    let options = Options { epoch: Duration::from_secs(1), ..options() };
    let trail = Trail::open(&path, &options).unwrap();
    let first = own_key(&path);
    trail.append(&record(b"one")).unwrap();
    trail.checkpoint().unwrap();
    eventually("the key changes", || {
        files::read(&path.join(name::KEY))
            .unwrap()
            .is_some_and(|read| read.is_ok_and(|own| own.epoch == 1))
    });
    // A key that has signed nothing has nothing to be erased for.
    let next_seq = trail.ring().next_seq;
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(trail.ring().next_seq, next_seq);
    trail.close().unwrap();
    let read = read(&path);
    assert_eq!((read.records, read.epochs), (1, 1));
    assert_ne!(own_key(&path).key.public(), first.key.public());
}

/// A change of keys that is cut off between any two of its steps is ended or undone by the next
/// opening, by what the trail says.
#[test]
fn a_change_of_keys_that_was_cut_off_is_ended_or_undone() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("trail");
    let trail = Trail::open(&path, &options()).unwrap();
    let first = own_key(&path);
    trail.append(&record(b"one")).unwrap();
    trail.close().unwrap();

    // The next key was made, and no record names it.
    let unused = files::generate(first.trail_id, 1, 0, 0).unwrap();
    files::write(&path.join(name::KEY_NEXT), &unused).unwrap();
    Trail::open(&path, &options()).unwrap().close().unwrap();
    assert_eq!(*own_key(&path).to_text(), *first.to_text());
    assert!(!path.join(name::KEY_NEXT).exists());
    // It was being made.
    fs::write(path.join(name::KEY_NEXT), "graven-key@v1\nepo").unwrap();
    Trail::open(&path, &options()).unwrap().close().unwrap();
    assert_eq!(*own_key(&path).to_text(), *first.to_text());
    assert!(!path.join(name::KEY_NEXT).exists());

    // A record names it; the first one was not erased, was erased in part, or was erased.
    let changed = Options { epoch: Duration::from_secs(1), ..options() };
    let trail = Trail::open(&path, &changed).unwrap();
    trail.append(&record(b"two")).unwrap();
    trail.checkpoint().unwrap();
    eventually("the key changes", || {
        files::read(&path.join(name::KEY))
            .unwrap()
            .is_some_and(|read| read.is_ok_and(|own| own.epoch == 1))
    });
    trail.close().unwrap();
    let next = own_key(&path);
    let half = first.to_text().as_bytes()[..90].to_vec();
    for left in [first.to_text().as_bytes().to_vec(), half, vec![0; 200]] {
        fs::write(path.join(name::KEY), left).unwrap();
        files::write(&path.join(name::KEY_NEXT), &next).unwrap();
        Trail::open(&path, &options()).unwrap().close().unwrap();
        assert_eq!(*own_key(&path).to_text(), *next.to_text());
        assert!(!path.join(name::KEY_NEXT).exists());
        read(&path);
    }
}

#[test]
fn a_key_that_is_gone_is_missed_before_anything_is_written() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("trail");
    let trail = Trail::open(&path, &options()).unwrap();
    trail.append(&record(b"one")).unwrap();
    trail.close().unwrap();
    let own = own_key(&path);
    fs::remove_file(path.join(name::KEY)).unwrap();
    for key in [KeyOption::Auto, KeyOption::Unsigned] {
        let refused = Trail::open(&path, &Options { key, ..options() });
        assert!(matches!(refused, Err(OpenError::Key(KeyTrouble::Missing { .. }))), "{refused:?}");
    }
    let trail = Trail::open(&path, &Options { key: KeyOption::Restart, ..options() }).unwrap();
    assert_eq!(trail.opened().broken.map(|it| it.key), Some(own.key.public().bytes()));
    trail.close().unwrap();
    assert_eq!(own_key(&path).epoch, 1);
}

#[test]
fn a_first_key_made_elsewhere_names_the_trail_and_is_erased_there() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (path, given) = (dir.path().join("trail"), dir.path().join("given"));
    let trail_id = graven_writer::dir::random_id().unwrap();
    let made = files::generate(trail_id, 0, 1, 0).unwrap();
    files::write(&given, &made).unwrap();
    let with_key = Options { key: KeyOption::Given(given.clone()), ..options() };
    let trail = Trail::open(&path, &with_key).unwrap();
    assert_eq!(trail.opened().trail_id, trail_id);
    assert_eq!(trail.opened().key.as_ref(), Some(made.key.public()));
    assert!(!given.exists());
    trail.append(&record(b"one")).unwrap();
    trail.close().unwrap();
    assert_eq!(read(&path).key.as_ref(), Some(made.key.public()));
    // The same command once more, and another trail's key.
    Trail::open(&path, &with_key).unwrap().close().unwrap();
    let other = files::generate(graven_writer::dir::random_id().unwrap(), 0, 1, 0).unwrap();
    files::write(&given, &other).unwrap();
    let refused = Trail::open(&path, &with_key);
    assert!(matches!(refused, Err(OpenError::Key(KeyTrouble::OtherTrail { .. }))), "{refused:?}");
    assert!(given.exists(), "what was refused is left alone");
    let another = files::generate(trail_id, 0, 1, 0).unwrap();
    files::write(&given, &another).unwrap();
    let refused = Trail::open(&path, &with_key);
    assert!(matches!(refused, Err(OpenError::Key(KeyTrouble::HasAnother { .. }))), "{refused:?}");
}

#[test]
fn an_unsigned_trail_stays_unsigned_until_it_is_told() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("trail");
    for key in [KeyOption::Unsigned, KeyOption::Auto] {
        let trail = Trail::open(&path, &Options { key, ..options() }).unwrap();
        assert!(matches!(trail.checkpoint(), Err(CheckpointError::Unsigned)));
        trail.append(&record(b"one")).unwrap();
        assert_eq!(trail.close().unwrap().checkpoint, None);
        assert!(!path.join(name::KEY).exists());
    }
    let trail = Trail::open(&path, &Options { key: KeyOption::Restart, ..options() }).unwrap();
    trail.append(&record(b"two")).unwrap();
    assert!(trail.close().unwrap().checkpoint.is_some());
}

#[test]
fn another_interval_counts_from_when_it_is_set() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let trail = Trail::open(dir.path(), &options()).unwrap();
    let newest = || trail.checkpoints().newest().map_or(0, |it| it.size);
    trail.append(&record(b"one")).unwrap().wait_durable().unwrap();
    assert_eq!(newest(), 0, "no record gets a checkpoint for its age");
    trail.asker().set_checkpoint_interval(Some(Duration::from_millis(10)));
    eventually("what was there before is covered", || newest() == 1);
    trail.append(&record(b"two")).unwrap().wait_durable().unwrap();
    eventually("what comes later is covered", || newest() == 3);
    trail.asker().set_checkpoint_interval(None);
    let before = newest();
    trail.append(&record(b"three")).unwrap().wait_durable().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(newest(), before, "and none again");
    trail.close().unwrap();
    let read = read(dir.path());
    assert_eq!((read.records, read.checkpoints), (3, 2));
}
