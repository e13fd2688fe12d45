//! What the engine tells the ring of its rest, on a simulated disk and by a clock of the test's.

use super::*;
use crate::disk::sim::{SimDisk, SimOptions};
use crate::keys::LocalKeys;
use crate::source::AppendError;
use graven_format::consts::RECORD_HEADER_BYTES;
use graven_format::{Flags, Source};
use recover::recover;

const BATCHES: usize = 12;
const STANDING: usize = 3;
const FRAME_BYTES: usize = 8192;
/// One record of this length fills a batch.
const WHOLE: usize = FRAME_BYTES - FRAME_HEADER_BYTES - RECORD_HEADER_BYTES;

/// A writer whose disk ends each operation as soon as somebody looks.
struct Writer {
    ring: Arc<Ring<IoBuf>>,
    engine: Engine<SimDisk>,
    now: Now,
}

impl Writer {
    fn new() -> Self {
        let mut disk = SimDisk::new(1, SimOptions::default());
        let trail_id = TrailId([7; 16]);
        let recovered = recover(&mut disk, trail_id, &LocalKeys::default(), Now::default());
        let recovered = recovered.expect("an empty directory");
        let settings = Settings {
            segment_bytes: 64 << 20,
            in_flight_max: 1,
            zero_ahead: false,
            on_full: OnFull::Wait,
            compress: Compress::Never,
            boot_id: [0; 16],
            host: Vec::new(),
        };
        let buffers = (0..BATCHES).map(|_| IoBuf::new(FRAME_BYTES).expect("memory")).collect();
        let ring = Ring::new(buffers, 0, disk.waker()).with_standing(STANDING);
        let ring = Arc::new(ring);
        let (watermark, metrics) = (Arc::new(recovered.watermark()), Arc::default());
        let engine = Engine::new(disk, Arc::clone(&ring), watermark, metrics, settings, recovered);
        Self { ring, engine: engine.expect("memory"), now: Now::default() }
    }

    fn append(&self, len: usize) -> bool {
        let bytes = vec![b'x'; len];
        let record = Record {
            source: Source::Socket,
            kind: 1300,
            flags: Flags::NONE,
            realtime_ns: 1,
            boottime_ns: 1,
            source_seq: 0,
            bytes: &bytes,
        };
        match self.ring.try_append(&record) {
            Ok(_) => true,
            Err(AppendError::Full) => false,
            Err(why) => panic!("{why}"),
        }
    }

    /// How many records find room now that fill a batch each.
    fn fill(&self) -> usize {
        (0..).take_while(|_| self.append(WHOLE)).count()
    }

    fn turn(&mut self) -> bool {
        let turn = self.engine.turn(self.now);
        assert!(!matches!(turn, Turn::Failed(_) | Turn::Finished), "{turn:?}");
        self.engine.disk().wait(None);
        matches!(turn, Turn::Again)
    }

    /// Writes all that there is, in no time.
    fn drain(&mut self) {
        while self.turn() || self.ring.stats().batches_free < BATCHES {}
    }

    /// Leaves nothing of what a burst may have.
    fn spend(&mut self) {
        while self.fill() > STANDING {
            self.drain();
        }
        self.drain();
    }

    /// A second in which the disk always has one record of this length, and a millisecond for it.
    fn a_second_of(&mut self, len: usize) {
        for _ in 0..1000 {
            assert!(self.append(len));
            self.turn();
            self.now.boottime_ns += 1_000_000;
        }
        self.drain();
    }
}

/// A stream that is light, and never pauses, leaves most of the disk's time to others: a burst finds the ring behind it.
/// Behind a stream that fills its frames it finds no more than may stand.
#[test]
fn a_burst_finds_what_others_have_left_of_the_disk() {
    let mut writer = Writer::new();
    writer.drain();
    assert_eq!(writer.fill(), BATCHES, "a trail begins rested");
    writer.drain();
    writer.spend();
    assert_eq!(writer.fill(), STANDING);
    writer.drain();
    writer.a_second_of(WHOLE);
    assert_eq!(writer.fill(), STANDING);
    writer.drain();
    writer.a_second_of(WHOLE / 2);
    let half = STANDING + (BATCHES - STANDING) / 2;
    assert!(writer.fill().abs_diff(half) <= 1);
    writer.drain();
    writer.spend();
    writer.a_second_of(0);
    assert!(writer.fill() >= BATCHES - 1);
}
