//! What the core must do, written once more, without memory shared with anybody: where each part goes, and its bytes.

use graven_shim_abi::encode::PartBuilder;
use graven_shim_abi::{
    Call, GAP_NO_READER, Gap, Item, NO_READER_BLOCK, NO_READER_PASS, PART_CUT, PART_GAP, PART_LAST,
    PART_ORPHAN, PART_PAD, Part, SLOT_BYTES,
};
use graven_shim_twin::Verdict;
use std::collections::VecDeque;

/// A part that is in a ring.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) at: u64,
    pub(crate) slots: u64,
    /// Of a pad, its header.
    pub(crate) bytes: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Ring {
    index: u32,
    pub(crate) head: u64,
    pub(crate) ring_seq: u64,
    pub(crate) bad_tails: u64,
    /// The last possible tail that the core has looked at.
    pub(crate) believed: u64,
    /// What the reader has written.
    pub(crate) tail: u64,
    /// From the believed tail to the head: what lies before that may be overwritten.
    pub(crate) parts: VecDeque<Placed>,
}

impl Ring {
    fn is_possible(&self) -> bool {
        self.tail >= self.believed && self.tail <= self.head
    }

    /// Slots that may be written.
    fn look(&mut self, slots: u64) -> u64 {
        if !self.is_possible() {
            self.bad_tails += 1;
            return 0;
        }
        self.believed = self.tail;
        while self.parts.front().is_some_and(|placed| placed.at < self.believed) {
            self.parts.pop_front();
        }
        slots - (self.head - self.tail)
    }

    fn put(&mut self, slots: u64, part: &Draft) -> bool {
        let mut bytes = part.bytes(self.index, self.ring_seq);
        let need = bytes.len().div_ceil(SLOT_BYTES) as u64;
        let to_end = slots - self.head % slots;
        let fill = if need > to_end { to_end } else { 0 };
        if self.look(slots) < fill + need {
            return false;
        }
        if fill > 0 {
            let len = fill as u32 * SLOT_BYTES as u32;
            let (kind, ring) = (PART_PAD, self.index);
            let pad = Part { bytes: len, kind, ring, flags: 0, part: 0, ring_seq: 0, order: 0 };
            self.parts.push_back(Placed {
                at: self.head,
                slots: fill,
                bytes: pad.to_bytes().to_vec(),
            });
        }
        bytes.shrink_to_fit();
        self.parts.push_back(Placed { at: self.head + fill, slots: need, bytes });
        self.head += fill + need;
        self.ring_seq += 1;
        true
    }
}

/// A part that is not in a ring yet.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) order: u64,
    pub(crate) part: u32,
    pub(crate) flags: u16,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Record { call: Option<Call>, items: Vec<(Item, Vec<u8>)>, items_in_record: u32 },
    Gap(Gap),
}

impl Draft {
    fn bytes(&self, ring: u32, ring_seq: u64) -> Vec<u8> {
        let mut built = match &self.body {
            Body::Gap(gap) => PartBuilder::gap(self.order, gap),
            Body::Record { call: Some(call), items_in_record, .. } => {
                let known = self.flags & PART_LAST != 0;
                let items = if known { *items_in_record } else { u32::MAX };
                PartBuilder::call(self.order, &Call { items, ..*call })
            }
            Body::Record { .. } => PartBuilder::more(self.order, self.part),
        };
        if let Body::Record { items, .. } = &self.body {
            for (item, bytes) in items {
                built = built.item(*item, bytes);
            }
        }
        built.flags(self.flags).ring(ring, ring_seq).build()
    }
}

/// All rings, and what waits for them.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) rings: Vec<Ring>,
    pub(crate) slots: u64,
    pub(crate) part_bytes_max: usize,
    pub(crate) no_reader: u32,
    pub(crate) no_reader_ms: u32,
    pub(crate) order_next: u64,
    pub(crate) passed: u64,
    pub(crate) gap: Option<Gap>,
    pub(crate) orphans: VecDeque<Draft>,
}

impl Model {
    pub(crate) fn new(ring_count: u32, slots: u32, part_bytes_max: u32) -> Self {
        Self {
            rings: (0..ring_count).map(|index| Ring { index, ..Ring::default() }).collect(),
            slots: slots.into(),
            part_bytes_max: part_bytes_max as usize,
            no_reader: NO_READER_BLOCK,
            no_reader_ms: 0,
            order_next: 0,
            passed: 0,
            gap: None,
            orphans: VecDeque::new(),
        }
    }

    pub(crate) fn full(&self, absent_ms: u32) -> Verdict {
        if self.no_reader == NO_READER_BLOCK || absent_ms == 0 || absent_ms < self.no_reader_ms {
            Verdict::Wait
        } else if self.no_reader == NO_READER_PASS {
            Verdict::Pass
        } else {
            Verdict::Panic
        }
    }

    /// A call starts only where there is room for two of the longest parts, and no orphans are.
    pub(crate) fn enter(&self, absent_ms: u32) -> Verdict {
        let two = 2 * self.part_bytes_max.div_ceil(SLOT_BYTES) as u64;
        let free = |ring: &Ring| ring.is_possible() && self.slots - (ring.head - ring.tail) >= two;
        if self.orphans.is_empty() && self.rings.iter().any(free) {
            Verdict::Go
        } else {
            self.full(absent_ms)
        }
    }

    pub(crate) fn pass(&mut self, now_ns: u64) {
        let first = Gap { from_ns: now_ns, reason: GAP_NO_READER, ..Gap::default() };
        let gap = self.gap.get_or_insert(first);
        gap.to_ns = now_ns;
        gap.count += 1;
        self.passed += 1;
    }

    fn put_anywhere(&mut self, hint: u32, part: &Draft) -> bool {
        let count = self.rings.len();
        let first = hint as usize % count;
        (0..count).any(|i| self.rings[(first + i) % count].put(self.slots, part))
    }

    fn put_gap(&mut self, hint: u32) -> bool {
        let Some(gap) = self.gap else { return true };
        let order = self.order_next;
        let part = Draft { order, part: 0, flags: PART_LAST, body: Body::Gap(gap) };
        let said = self.put_anywhere(hint, &part);
        if said {
            self.gap = None;
        }
        said
    }

    /// Whether it is in a ring.
    pub(crate) fn push(&mut self, hint: u32, part: &Draft) -> bool {
        self.put_gap(hint) && self.put_anywhere(hint, part)
    }

    pub(crate) fn orphan(&mut self, hint: u32, mut part: Draft) {
        part.flags |= PART_LAST | PART_ORPHAN;
        // Where there is room, and nobody is first in line, it does not wait.
        if !self.orphans.is_empty() || !self.push(hint, &part) {
            self.orphans.push_back(part);
        }
    }

    pub(crate) fn drain(&mut self, hint: u32) {
        for ring in &mut self.rings {
            ring.look(self.slots);
        }
        while self.put_gap(hint) {
            let Some(part) = self.orphans.pop_front() else { break };
            if !self.put_anywhere(hint, &part) {
                self.orphans.push_front(part);
                break;
            }
        }
    }
}

/// What a record that arrived must say, all parts together.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) call: Call,
    pub(crate) flags: u16,
    pub(crate) items: Vec<(Item, Vec<u8>)>,
}

impl Expected {
    pub(crate) fn is_cut(&self) -> bool {
        self.flags & PART_CUT != 0
    }
}

/// Whether a part is a gap, by its bytes.
pub(crate) fn is_gap(bytes: &[u8]) -> bool {
    Part::read(bytes).is_some_and(|part| part.kind == PART_GAP)
}
