//! When the next segment is overwritten with zeros: not while the disk has all the frames that it may have.

use graven_format::{Flags, Record, Source};
use graven_writer::disk::{Completion, Disk, DiskChoice, Geometry, Listed, Op, OpId, Wake};
use graven_writer::keys::KeyOption;
use graven_writer::{Options, Ticket, Trail, clock};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What was submitted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// The next segment.
    Create,
    /// Some of its bytes.
    Zero,
    /// With so many of them in flight from then on.
    Write(usize),
}

/// Between the engine and the disk.
struct Watched {
    inner: Box<dyn Disk>,
    seen: Arc<Mutex<Vec<Seen>>>,
    writes: Vec<OpId>,
}

impl Disk for Watched {
    fn submit(&mut self, id: OpId, op: Op) {
        let seen = match &op {
            Op::Create { .. } => Some(Seen::Create),
            Op::Zero { .. } => Some(Seen::Zero),
            Op::Write { .. } => {
                self.writes.push(id);
                Some(Seen::Write(self.writes.len()))
            }
            _ => None,
        };
        self.seen.lock().unwrap().extend(seen);
        self.inner.submit(id, op);
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        let before = done.len();
        self.inner.poll(done);
        self.writes.retain(|id| !done[before..].iter().any(|it| it.id == *id));
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.inner.wait(timeout);
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.waker()
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn list(&mut self) -> io::Result<Vec<Listed>> {
        self.inner.list()
    }

    fn read(&mut self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(name, offset, buf)
    }
}

/// A trail, what its disk was given since it was open, and what `load` does to it.
fn seen(load: impl FnOnce(&Trail, &dyn Fn() -> Vec<Seen>)) -> Vec<Seen> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let log: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let of_disk = Arc::clone(&log);
    let wrap = move |inner| -> Box<dyn Disk> {
        Box::new(Watched { inner, seen: of_disk, writes: Vec::new() })
    };
    let options = Options {
        segment_bytes: 8 << 20,
        ring_bytes: 4 << 20,
        disk: DiskChoice::Sync,
        zero_ahead: Some(true),
        key: KeyOption::Unsigned,
        ..Options::default()
    };
    let trail = Trail::open_on(dir.path(), &options, wrap).unwrap();
    log.lock().unwrap().clear();
    load(&trail, &|| log.lock().unwrap().clone());
    trail.close().unwrap();
    std::mem::take(&mut *log.lock().unwrap())
}

fn append<'a>(trail: &'a Trail, bytes: &[u8]) -> Ticket<'a> {
    let now = clock::now();
    let record = Record {
        source: Source::Stdin,
        kind: 0,
        flags: Flags::NONE,
        realtime_ns: now.realtime_ns,
        boottime_ns: now.boottime_ns,
        source_seq: 0,
        bytes,
    };
    trail.append(&record).unwrap()
}

#[test]
fn a_disk_that_has_all_the_frames_it_may_have_gets_no_zeros_for_that_segment() {
    let in_flight_max = Options::default().in_flight_max;
    let seen = seen(|trail, seen| {
        let deadline = Instant::now() + Duration::from_secs(60);
        let full = |it: &Seen| *it == Seen::Write(in_flight_max);
        while seen().iter().filter(|it| full(it)).count() < 100 && Instant::now() < deadline {
            for _ in 0..1000 {
                append(trail, &[b'x'; 1000]);
            }
        }
    });
    let (mut full, mut found) = (false, 0);
    for it in seen {
        match it {
            Seen::Create => full = false,
            Seen::Write(writes) if writes == in_flight_max => (full, found) = (true, found + 1),
            Seen::Zero => assert!(!full, "zeros while the disk has all that it may have"),
            Seen::Write(_) => {}
        }
    }
    assert!(found > 0, "the disk never had all that it may have");
}
