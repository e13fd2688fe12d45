//! A kill before any store of any of the three, and memory of which any word may be wrong.

use super::map::fuse;
use super::*;
use crate::clock::Now;
use crate::source::mapped::Mapped;
use proptest::prelude::*;
use std::os::unix::net::UnixDatagram;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Shorter datagrams are left to the socket.
const NOTE_BYTES: usize = 16;
const AT: Now = Now { realtime_ns: 1, boottime_ns: 2 };

/// The datagram of this number: of any length, and no two alike.
fn datagram(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((8..len).map(|at| (at as u64).wrapping_mul(number + 1) as u8 & 0x3f));
    bytes
}

/// Keeper, writer, and what is between and behind them.
struct World {
    memory: Arc<Memory>,
    mapped: Option<Arc<Mapped>>,
    ours: UnixDatagram,
    theirs: UnixDatagram,
    producer: Producer,
    packer: Packer,
    consumer: Consumer,
    sent: u64,
    /// What the writer has, in the trail's order: the numbers of the datagrams.
    trail: Vec<u64>,
    /// How much of it is behind a barrier.
    durable: usize,
    /// Datagrams that are in the trail already and are read again.
    skip: usize,
    notes_sent: u64,
    notes_read: u64,
    packed: u64,
    refused: u64,
}

impl World {
    fn new() -> Self {
        Self::with(|_| None)
    }

    /// With a ring beside the socket that is filled before it, and is full soon; none where bpf(2) is refused, which is said.
    fn mapped() -> Option<Self> {
        let bytes = 4 * rustix::param::page_size();
        let world = Self::with(|socket| Mapped::attach(socket, bytes).ok().map(Arc::new));
        if world.mapped.is_none() {
            eprintln!("SKIPPED: bpf(2) is refused here");
            return None;
        }
        Some(world)
    }

    fn with(map: impl FnOnce(&UnixDatagram) -> Option<Arc<Mapped>>) -> Self {
        let memory = Arc::new(Memory::create(0).expect("memory"));
        let (ours, theirs) = UnixDatagram::pair().expect("sockets");
        theirs.set_nonblocking(true).expect("non-blocking");
        let mapped = map(&ours);
        let (producer, left) = Producer::go_on(&memory, mapped.clone(), AT).expect("new");
        assert_eq!(left, 0);
        let packer = producer.packer();
        let consumer = Consumer::go_on(&memory).expect("new");
        Self {
            memory,
            mapped,
            ours,
            theirs,
            producer,
            packer,
            consumer,
            sent: 0,
            trail: Vec::new(),
            durable: 0,
            skip: 0,
            notes_sent: 0,
            notes_read: 0,
            packed: 0,
            refused: 0,
        }
    }

    fn send(&mut self, count: usize, len: usize) {
        for _ in 0..count {
            if self.theirs.send(&datagram(self.sent, len)).is_err() {
                return;
            }
            self.sent += 1;
        }
    }

    /// Runs a part of one of the actors, which may be killed before its n-th store; true if it was.
    fn run(&mut self, kill_after: Option<u32>, act: impl FnOnce(&mut Self)) -> bool {
        fuse::set(kill_after);
        let outcome = catch_unwind(AssertUnwindSafe(|| act(self)));
        fuse::set(None);
        match outcome {
            Ok(()) => false,
            Err(payload) if payload.is::<fuse::Killed>() => true,
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    fn keeper(&mut self, kill_after: Option<u32>, act: impl FnOnce(&mut Self)) {
        let mut killed = self.run(kill_after, act);
        // The successor may be killed as well.
        let mut again = kill_after.map(|steps| steps / 2);
        while killed {
            killed = self.run(again, |it| {
                let mapped = it.mapped.clone();
                (it.producer, _) = Producer::go_on(&it.memory, mapped, AT).expect("not corrupted");
                it.packer = it.producer.packer();
            });
            again = None;
        }
    }

    fn receive(&mut self, kill_after: Option<u32>) {
        self.keeper(kill_after, |it| {
            let taken = it.producer.receive(&it.ours, || AT).expect("not corrupted");
            it.refused += u64::from(taken.expect("the socket works") == Taken::NoRoom);
        });
    }

    fn note(&mut self, kill_after: Option<u32>) {
        self.note_of(NOTE_BYTES, kill_after);
    }

    fn note_of(&mut self, len: usize, kill_after: Option<u32>) {
        let before = self.memory.head().expect("a position");
        let mut text = vec![0; len];
        text[..8].copy_from_slice(&self.notes_sent.to_le_bytes());
        self.keeper(kill_after, |it| {
            it.producer.note(AT, &text).expect("not corrupted");
        });
        self.notes_sent += u64::from(self.memory.head() != Ok(before));
    }

    fn empty(&mut self, kill_after: Option<u32>) {
        self.keeper(kill_after, |it| {
            it.producer.empty(Empty { at: AT, failed_sends: Some(7) }).expect("not corrupted");
        });
    }

    fn pack(&mut self, kill_after: Option<u32>) {
        self.keeper(kill_after, |it| {
            it.packed += u64::from(it.packer.step().expect("not corrupted"));
        });
    }

    /// Reads up to so many entries into the trail.
    fn read(&mut self, count: usize) {
        for _ in 0..count {
            if !self.consumer.look().expect("not corrupted") {
                return;
            }
            match self.consumer.take().expect("not corrupted").expect("there is one") {
                Entry::Datagram { bytes, whole_len, .. } => {
                    let number = u64::from_le_bytes(*bytes.first_chunk().expect("a number"));
                    assert_eq!(bytes, datagram(number, bytes.len()), "byte for byte");
                    assert_eq!(whole_len, bytes.len());
                    if self.skip > 0 {
                        assert_eq!(self.trail[self.trail.len() - self.skip], number);
                        self.skip -= 1;
                    } else {
                        assert_eq!(number, self.trail.len() as u64, "none lost, doubled or moved");
                        self.trail.push(number);
                    }
                }
                Entry::Note { text, .. } => {
                    let number = u64::from_le_bytes(*text.first_chunk().expect("a number"));
                    // Those that are not done are read again.
                    assert!(number <= self.notes_read);
                    self.notes_read = number + 1;
                }
                Entry::Empty(empty) => assert_eq!(empty.failed_sends, Some(7)),
            }
        }
    }

    /// A barrier completes, and what is done moves.
    fn commit(&mut self, kill_after: Option<u32>) {
        self.durable = self.trail.len();
        if self.skip > 0 {
            return;
        }
        let done =
            Done { position: self.consumer.position(), seq: self.trail.len() as u64, more: [9; 4] };
        if self.run(kill_after, |it| it.consumer.set_done(done)) {
            self.kill_writer(0);
        }
    }

    /// The writer dies; of what was not durable some may be in the trail.
    fn kill_writer(&mut self, survive: usize) {
        self.trail.truncate((self.durable + survive).min(self.trail.len()));
        self.consumer = Consumer::go_on(&self.memory).expect("not corrupted");
        self.skip = self.trail.len() - usize::try_from(self.consumer.done().seq).expect("small");
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Send { count, len } => self.send(count, len),
            Act::Receive(kill) => self.receive(kill),
            Act::Note(kill) => self.note(kill),
            Act::Empty(kill) => self.empty(kill),
            Act::Pack(kill) => self.pack(kill),
            Act::Read(count) => self.read(count),
            Act::Commit(kill) => self.commit(kill),
            Act::KillWriter(survive) => self.kill_writer(survive),
        }
    }

    fn drain(mut self) -> Self {
        // What the socket has refused and the filter has counted is waited for.
        let until = Instant::now() + Duration::from_secs(5);
        let mut rounds = 0;
        while rounds < 1000 || self.mapped.is_some() && (self.trail.len() as u64) < self.sent {
            self.receive(None);
            self.read(usize::MAX);
            self.commit(None);
            rounds += 1;
            assert!(Instant::now() < until, "{} of {}", self.trail.len(), self.sent);
        }
        assert_eq!(self.trail.len() as u64, self.sent);
        assert_eq!(self.notes_read, self.notes_sent);
        assert!(self.producer.used_permille().expect("not corrupted") < 150, "all is given back");
        self
    }
}

#[derive(Clone, Debug)]
enum Act {
    Send { count: usize, len: usize },
    Receive(Option<u32>),
    Note(Option<u32>),
    Empty(Option<u32>),
    Pack(Option<u32>),
    Read(usize),
    Commit(Option<u32>),
    KillWriter(usize),
}

fn kill() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![2 => Just(None), 1 => (0_u32..130).prop_map(Some), 1 => (0_u32..12).prop_map(Some)]
}

fn act() -> impl Strategy<Value = Act> {
    let len = prop_oneof![8_usize..600, 8_usize..4000, 30_000_usize..=65_536];
    prop_oneof![
        6 => (1_usize..12, len).prop_map(|(count, len)| Act::Send { count, len }),
        6 => kill().prop_map(Act::Receive),
        1 => kill().prop_map(Act::Note),
        1 => kill().prop_map(Act::Empty),
        3 => kill().prop_map(Act::Pack),
        1 => (1_usize..60).prop_map(Act::Read),
        1 => kill().prop_map(Act::Commit),
        1 => (0_usize..20).prop_map(Act::KillWriter),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whoever_is_killed_nothing_is_lost_doubled_or_moved(
        acts in proptest::collection::vec(act(), 1..250)
    ) {
        let mut world = World::new();
        acts.into_iter().for_each(|act| world.act(act));
        world.drain();
    }

    #[test]
    fn nor_of_what_the_kernel_leaves_in_a_ring_beside_the_socket(
        acts in proptest::collection::vec(act(), 1..250)
    ) {
        let Some(mut world) = World::mapped() else { return Ok(()) };
        acts.into_iter().for_each(|act| world.act(act));
        world.drain();
    }

    /// Whatever a word says, it is an error or it is taken for what it says.
    #[test]
    fn a_corrupted_memory_is_an_error_and_no_panic(
        words in proptest::collection::vec((0_usize..700, any::<u64>(), 0_u32..64), 1..20),
        rotten in any::<u64>(),
    ) {
        let mut world = World::new();
        for _ in 0..6 {
            world.send(8, 40_000);
            world.receive(None);
        }
        world.read(5);
        world.commit(None);
        world.send(4, 100);
        for (index, value, shift) in words {
            // Most words of a memory are small numbers.
            let value = value >> shift;
            let at = match index {
                0..32 => layout::AT_HEAD + 8 * (index % 2),
                32..64 => layout::AT_DONE[index % 2] + 8 * (index % 8),
                64..128 => world.memory.geometry.descriptor(index as u64 % 12).0 + 8 * (index % 2),
                128..160 => world.memory.geometry.staging + 8 * index,
                _ => world.memory.geometry.frame(index % 8) + (rotten as usize % 0x4000 + index) * 8,
            };
            world.memory.map.store(at, value, Ordering::Relaxed);
            if let Ok(mut consumer) = Consumer::go_on(&world.memory) {
                while let Ok(true) = consumer.look() {
                    if consumer.take().is_err() {
                        break;
                    }
                }
            }
            if let Ok((mut producer, _)) = Producer::go_on(&world.memory, None, AT) {
                let _ = producer.note(AT, b"note");
                let _ = producer.receive(&world.ours, || AT);
                let mut packer = producer.packer();
                let _ = packer.step();
            }
        }
    }
}

/// What happens then is said then: the next keeper does not know it.
#[test]
fn a_memory_that_takes_nothing_more_takes_notes() {
    let mut world = World::new();
    while world.refused == 0 {
        world.send(4, 60_000);
        world.receive(None);
    }
    for _ in 0..60 {
        let before = world.notes_sent;
        world.note_of(4096, None);
        assert_eq!(world.notes_sent, before + 1);
        world.receive(None);
    }
    assert_eq!(world.refused, 61, "that room is for nothing else");
    world.drain();
}

#[test]
fn a_kill_before_each_single_store_costs_nothing() {
    // A batch that ends one block and begins another; a block that is compressed; what is done.
    for steps in 0.. {
        let mut world = World::new();
        let mut killed = false;
        for round in 0..70 {
            world.send(10, 65_536);
            world.send(10, 100);
            let kill = |at: i32| (at == round).then_some(steps);
            let before = world.producer.head();
            world.receive(kill(15));
            killed |= round == 15 && world.memory.head() != Ok(before);
            world.pack(kill(60));
            if round == 65 {
                world.read(300);
                world.commit(Some(steps));
            }
        }
        assert!(world.packed > 0, "the memory was under pressure");
        world.drain();
        if steps > 140 {
            assert!(killed);
            return;
        }
    }
}

#[test]
fn a_full_memory_takes_nothing_and_loses_nothing() {
    let mut world = World::new();
    // What cannot be compressed.
    let mut state = 1_u64;
    while world.refused == 0 {
        let bytes: Vec<u8> = world
            .sent
            .to_le_bytes()
            .into_iter()
            .chain((8..60_000).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            }))
            .collect();
        assert!(world.sent < 1000, "it is full some day");
        world.sent += u64::from(world.theirs.send(&bytes).is_ok());
        world.receive(None);
        while world.packer.step().expect("not corrupted") {}
    }
    assert_eq!(world.producer.used_permille(), Ok(1000));
    let mut read = 0;
    for _ in 0..10 {
        while world.consumer.look().expect("not corrupted") {
            if let Some(Entry::Datagram { bytes, .. }) =
                world.consumer.take().expect("not corrupted")
            {
                assert_eq!(u64::from_le_bytes(*bytes.first_chunk().expect("a number")), read);
                read += 1;
            }
        }
        let done = Done { position: world.consumer.position(), seq: read, more: [read; 4] };
        world.consumer.set_done(done);
        assert_eq!(world.memory.done(), Ok(done));
        world.receive(None);
    }
    assert_eq!(read, world.sent);
}

#[test]
fn text_under_pressure_takes_a_tenth() {
    let mut world = World::new();
    for _ in 0..60 {
        world.send(8, 60_000);
        world.receive(None);
        while world.packer.step().expect("not corrupted") {}
    }
    assert!(world.sent * 60_000 > 10 << 20, "more than the memory holds as it is: {}", world.sent);
    assert_eq!(world.refused, 0);
    world.drain();
}

#[test]
fn another_process_finds_the_same_and_a_foreign_memory_is_refused() {
    let mut world = World::new();
    world.send(3, 100);
    world.receive(None);
    let dup = |memory: &Memory| {
        std::os::fd::AsFd::as_fd(memory).try_clone_to_owned().expect("a descriptor")
    };
    let other = Arc::new(Memory::open(dup(&world.memory)).expect("the same"));
    let mut consumer = Consumer::go_on(&other).expect("not corrupted");
    assert_eq!(consumer.look(), Ok(true));
    let entry = consumer.take().expect("not corrupted").expect("there is one");
    assert_eq!(entry, Entry::Datagram { at: AT, whole_len: 100, bytes: &datagram(0, 100) });
    other.session(3).store(9, Ordering::Relaxed);
    assert_eq!(world.memory.session(3).load(Ordering::Relaxed), 9);
    for at in [layout::AT_MAGIC, layout::AT_VERSION, layout::AT_BYTES, layout::AT_FRAMES] {
        let memory = Memory::create(0).expect("memory");
        memory.map.store(at, 5, Ordering::Relaxed);
        assert!(Memory::open(dup(&memory)).is_err(), "{at}");
    }
    let file = std::fs::File::open("/dev/null").expect("it is there");
    assert!(Memory::open(file.into()).is_err());
}

#[test]
fn who_sleeps_is_woken_once() {
    let mut world = World::new();
    let read = world.consumer.position();
    assert!(!world.memory.wants_waking());
    assert_eq!(world.memory.fall_asleep(read), Ok(true));
    assert!(world.memory.wants_waking() && !world.memory.wants_waking());
    world.note(None);
    assert_eq!(world.memory.fall_asleep(read), Ok(false), "there is something to read");
    assert!(!world.memory.wants_waking());
}

#[test]
fn what_was_said_of_a_head_that_never_came_does_not_come_true_of_another() {
    // A note is as long as this datagram, so that the head behind it is the one that the datagram would have had.
    for steps in 0..60 {
        let Some(mut world) = World::mapped() else { return };
        world.send(1, NOTE_BYTES);
        world.receive(Some(steps));
        world.note(None);
        world.empty(Some(0));
        world.drain();
    }
}

/// A ring that spills into the socket, and every step of taking both: of a batch of the ring, of one of the socket, and of the
/// next.
#[test]
fn a_kill_before_each_single_store_costs_nothing_of_ring_and_socket() {
    for round in 0..4 {
        for steps in 0..70 {
            let Some(mut world) = World::mapped() else { return };
            // Half of them do not fit the ring; the socket takes the next ones.
            world.send(4, 3000);
            world.send(6, 3000);
            for at in 0..4 {
                world.receive((at == round).then_some(steps));
                world.send(1, 100);
            }
            world.empty(Some(0));
            world.drain();
        }
    }
}
