//! A reader that takes parts, makes them durable, moves tails, dies anywhere in between, and may write nonsense.

use crate::rings::{Expected, Model, Placed, is_gap};
use fastrand::Rng;
use graven_shim_abi::decode::{self, parse};
use graven_shim_abi::{Call, Item, PART_LAST, PART_ORPHAN, PART_PAD, Part};
use graven_shim_twin::{Reader, Twin};
use std::collections::BTreeMap;

/// What is durable, by (ring, ring_seq).
type Durable = BTreeMap<(u32, u64), Vec<u8>>;

#[derive(Clone, Default)]
struct Place {
    /// What lies before it is durable, as the reader knows.
    tail: u64,
    /// How far it has read.
    read: u64,
    /// Read and not durable; where each ends.
    pending: Vec<(u64, Vec<u8>)>,
    /// There is nonsense where the tail was.
    hostile: bool,
}

pub(crate) struct SimReader {
    pub(crate) alive: bool,
    memory: Reader,
    places: Vec<Place>,
    durable: Durable,
    pub(crate) pads: u64,
}

impl SimReader {
    pub(crate) fn new(twin: &Twin, ring_count: u32) -> Self {
        let memory = Reader::map(&twin.memory().unwrap()).unwrap();
        let places = vec![Place::default(); ring_count as usize];
        Self { alive: true, memory, places, durable: Durable::new(), pads: 0 }
    }

    pub(crate) fn memory(&self) -> &Reader {
        &self.memory
    }

    /// The part at this place is what the model says.
    fn compared(&self, ring: usize, placed: &Placed) -> Vec<u8> {
        let (bytes, slots) = self.memory.part(ring as u32, placed.at).expect("a part");
        assert_eq!(slots, placed.slots, "the slots of a part");
        let (is, should) = (Part::read(&bytes), Part::read(&placed.bytes));
        assert!(
            bytes == placed.bytes,
            "I6: ring {ring}, position {}, byte for byte: {is:?} is not, or behind it, {should:?}",
            placed.at
        );
        bytes
    }

    /// Reads the next part of a ring, if there is one.
    pub(crate) fn read(&mut self, model: &Model, ring: usize) -> bool {
        let at = self.places[ring].read;
        if at == self.memory.head(ring as u32) {
            return false;
        }
        let placed = model.rings[ring].parts.iter().find(|placed| placed.at == at);
        let placed = placed.expect("the model has a part where the reader is");
        let bytes = self.compared(ring, placed);
        let place = &mut self.places[ring];
        place.read += placed.slots;
        place.pending.push((place.read, bytes));
        true
    }

    /// Makes some of what was read durable, and moves the tail over it. Whether that moved.
    pub(crate) fn advance(&mut self, model: &mut Model, ring: usize, parts: usize) -> bool {
        let parts = parts.min(self.places[ring].pending.len());
        if parts == 0 || self.places[ring].hostile {
            return false;
        }
        // Nothing was overwritten up to here.
        for placed in &model.rings[ring].parts {
            self.compared(ring, placed);
        }
        let tail = self.make_durable(ring, parts);
        self.places[ring].pending.drain(..parts);
        self.places[ring].tail = tail;
        self.memory.set_tail(ring as u32, tail);
        model.rings[ring].tail = tail;
        true
    }

    fn make_durable(&mut self, ring: usize, parts: usize) -> u64 {
        let place = &self.places[ring];
        for (_, bytes) in &place.pending[..parts] {
            let header = Part::read(bytes).unwrap();
            if header.kind == PART_PAD {
                self.pads += 1;
                continue;
            }
            assert_eq!(header.ring as usize, ring, "a part says its ring");
            let before = self.durable.insert((header.ring, header.ring_seq), bytes.clone());
            assert!(before.is_none_or(|before| before == *bytes), "one part for each name");
        }
        place.pending[parts - 1].0
    }

    /// With what it had read; perhaps just after that was durable.
    pub(crate) fn die(&mut self, rng: &mut Rng) {
        for ring in 0..self.places.len() {
            let parts = self.places[ring].pending.len();
            if parts > 0 && rng.bool() {
                self.make_durable(ring, rng.usize(1..=parts));
            }
        }
        self.places.fill(Place::default());
        self.alive = false;
    }

    /// Another one, which knows of tails what is in the memory. How many it has put right.
    pub(crate) fn attach(&mut self, model: &mut Model) -> u64 {
        self.alive = true;
        let mut wrong = 0;
        for (ring, place) in (0..).zip(&mut self.places) {
            let (tail, believed) = (self.memory.tail(ring), self.memory.producer(ring).tail);
            let tail = if (believed..=self.memory.head(ring)).contains(&tail) {
                tail
            } else {
                wrong += 1;
                self.memory.set_tail(ring, believed);
                believed
            };
            model.rings[ring as usize].tail = tail;
            *place = Place { tail, read: tail, ..Place::default() };
        }
        wrong
    }

    pub(crate) fn write_nonsense(&mut self, rng: &mut Rng, model: &mut Model, ring: usize) {
        let its = &mut model.rings[ring];
        let (least, most) = (its.believed, its.head);
        let tail = match rng.u8(..5) {
            0 => most.wrapping_add(1),
            1 => least.wrapping_sub(1),
            2 => most.wrapping_add(rng.u64(1..=2 * model.slots)),
            3 => least.wrapping_sub(rng.u64(1..=2 * model.slots)),
            _ => rng.u64(..),
        };
        if (least..=most).contains(&tail) {
            return;
        }
        its.tail = tail;
        self.memory.set_tail(ring as u32, tail);
        self.places[ring].hostile = true;
    }

    /// Writes the right tail again.
    pub(crate) fn repair(&mut self, model: &mut Model, ring: usize) -> bool {
        let place = &mut self.places[ring];
        if !std::mem::take(&mut place.hostile) {
            return false;
        }
        self.memory.set_tail(ring as u32, place.tail);
        model.rings[ring].tail = place.tail;
        true
    }

    /// Everything arrived, once, whole and in order. How many records have more than one part.
    pub(crate) fn check_all(&self, model: &Model, expected: &mut BTreeMap<u64, Expected>) -> u64 {
        let mut records: BTreeMap<u64, Vec<decode::PartView<'_>>> = BTreeMap::new();
        let (mut next, mut passed) = (BTreeMap::<u32, u64>::new(), 0);
        for ((ring, ring_seq), bytes) in &self.durable {
            let dense = next.entry(*ring).or_default();
            assert_eq!(ring_seq, dense, "ring_seq of ring {ring} is dense");
            *dense += 1;
            let part = parse(bytes).expect("a part that can be decoded");
            if let decode::Body::Gap(gap) = part.body {
                assert!(is_gap(bytes) && part.is_last() && gap.from_ns <= gap.to_ns);
                assert!(gap.count > 0 && part.header.order <= model.order_next, "a gap says when");
                passed += gap.count;
                continue;
            }
            records.entry(part.header.order).or_default().push(part);
        }
        for (ring, its) in model.rings.iter().enumerate() {
            assert_eq!(
                next.get(&(ring as u32)).copied().unwrap_or(0),
                its.ring_seq,
                "all of ring {ring}"
            );
        }
        assert_eq!(passed, model.passed, "every call that passed is in a gap");
        assert!(
            records.keys().copied().eq(0..model.order_next),
            "order is dense: {:?}",
            records.keys()
        );
        let in_parts = records.values().filter(|parts| parts.len() > 1).count() as u64;
        for (order, mut parts) in records {
            parts.sort_by_key(|part| part.header.part);
            let record = expected.remove(&order).expect("a record that was expected");
            check_record(&record, &parts);
        }
        assert!(expected.is_empty(), "I3: records that did not arrive");
        in_parts
    }
}

fn check_record(expected: &Expected, parts: &[decode::PartView<'_>]) {
    assert!(parts.iter().map(|part| part.header.part).eq(0..parts.len() as u32), "parts are dense");
    let last = parts.iter().filter(|part| part.is_last()).count();
    assert!(
        last == 1 && parts[parts.len() - 1].is_last(),
        "LAST is on the last part, and only there"
    );
    let first = parts[0].call().expect("a record begins with a call");
    let count = if parts.len() == 1 { expected.items.len() as u32 } else { u32::MAX };
    assert_eq!(*first, Call { items: count, ..expected.call });
    let orphan = parts.iter().any(|part| part.has(PART_ORPHAN));
    assert!(orphan || !expected.is_cut(), "a record that is cut is an orphan's");
    let flags = parts.iter().fold(0, |flags, part| flags | part.header.flags);
    assert_eq!(flags & !(PART_LAST | PART_ORPHAN), expected.flags, "flags");
    let mut items = expected.items.iter();
    for item in parts.iter().flat_map(decode::PartView::items) {
        let (header, bytes) = items.next().expect("an item that was put in");
        let object = bytes.len() - item.bytes.len();
        let len = (Item::LEN + bytes.len()) as u32;
        assert_eq!(item.header, Item { bytes: len, ..*header });
        assert_eq!(item.bytes, &bytes[object..]);
    }
    assert!(items.next().is_none(), "all items came out");
}
