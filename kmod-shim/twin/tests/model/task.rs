//! A task: one step at a time, so that anything may happen between two.

use crate::rings::{Body, Draft, Expected, Model};
use fastrand::Rng;
use graven_shim_abi::{
    Call, ITEM_ARGV, ITEM_CONTINUES, ITEM_CUT, ITEM_CWD, ITEM_FROM_USER, ITEM_NAME,
    ITEM_NOT_CAPTURED, ITEM_SOCKADDR, Item, Object, PART_CUT, PART_LAST, PART_NO_RETURN,
    PART_REFUSED, PART_UNSEEN, Part,
};
use graven_shim_twin::{Task, Twin, Verdict};
use std::collections::{BTreeMap, VecDeque};

/// What is left of a part that has only its header.
const EMPTY_MORE: usize = Part::LEN;

#[derive(Debug)]
enum State {
    Idle,
    InCall,
    Ended,
}

pub(crate) struct Sim {
    task: Task,
    state: State,
    pub(crate) has_buffer: bool,
    /// The part in the buffer.
    draft: Draft,
    used: usize,
    items: u32,
    to_come: VecDeque<(Item, Vec<u8>)>,
    expected: Expected,
}

/// What the steps of all tasks share.
pub(crate) struct Around<'a> {
    pub(crate) rng: &'a mut Rng,
    pub(crate) model: &'a mut Model,
    pub(crate) twin: &'a Twin,
    pub(crate) expected: &'a mut BTreeMap<u64, Expected>,
    pub(crate) absent_ms: u32,
    pub(crate) now_ns: u64,
    pub(crate) big: bool,
    /// No call starts any more.
    pub(crate) ending: bool,
}

impl Sim {
    pub(crate) fn new(twin: &Twin) -> Self {
        let body = Body::Record { call: None, items: Vec::new(), items_in_record: 0 };
        Self {
            task: twin.task(),
            state: State::Idle,
            has_buffer: false,
            draft: Draft { order: 0, part: 0, flags: 0, body },
            used: 0,
            items: 0,
            to_come: VecDeque::new(),
            expected: Expected { call: Call::default(), flags: 0, items: Vec::new() },
        }
    }

    pub(crate) fn has_record(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    pub(crate) fn step(&mut self, around: &mut Around<'_>) {
        match self.state {
            State::Idle if around.ending => {}
            State::Idle => self.enter(around),
            State::InCall => self.in_call(around),
            State::Ended => self.ended(around),
        }
    }

    fn enter(&mut self, around: &mut Around<'_>) {
        let hint = random_hint(around.rng);
        let said = self.task.enter(hint, around.absent_ms);
        self.has_buffer = true;
        assert_eq!(said, around.model.enter(around.absent_ms), "may a call start?");
        match said {
            Verdict::Go => {
                assert_eq!(
                    around.twin.status().orphans,
                    0,
                    "I4: the gate is shut while there are orphans"
                );
                self.begin(around);
            }
            Verdict::Pass => {
                self.task.pass(around.now_ns);
                around.model.pass(around.now_ns);
            }
            Verdict::Wait | Verdict::Panic => {}
        }
    }

    fn begin(&mut self, around: &mut Around<'_>) {
        let rng = &mut *around.rng;
        let call = random_call(rng);
        self.task.begin(&call);
        let flags = [0, 0, 0, PART_REFUSED, PART_UNSEEN][rng.usize(..5)];
        self.task.flags(flags);
        let body = Body::Record { call: Some(call), items: Vec::new(), items_in_record: 0 };
        self.draft = Draft { order: 0, part: 0, flags, body };
        self.used = Part::LEN + Call::LEN;
        self.items = 0;
        self.to_come.clear();
        self.expected = Expected { call, flags, items: Vec::new() };
        self.state = State::InCall;
    }

    fn in_call(&mut self, around: &mut Around<'_>) {
        match around.rng.u32(..10) {
            0..3 => {
                // One that a hook saw: it is left out if it does not fit.
                let (item, bytes) = random_item(around.rng, 300);
                self.add(around.model, item, bytes);
            }
            3 => {
                self.task.forget();
                self.state = State::Idle;
            }
            _ => self.end(around),
        }
    }

    /// The call returns, or is left: its record has a number from here on.
    fn end(&mut self, around: &mut Around<'_>) {
        let call = Call { result: around.rng.i64(..), ..self.expected.call };
        assert!(self.task.call(&call), "the first part is in the buffer");
        self.expected.call = call;
        if let Body::Record { call: its, .. } = &mut self.draft.body {
            *its = Some(call);
        }
        self.task.number();
        self.draft.order = around.model.order_next;
        around.model.order_next += 1;
        let most = around.model.part_bytes_max - EMPTY_MORE - Item::LEN;
        for _ in 0..around.rng.u32(..4) {
            self.to_come.push_back(random_item(around.rng, most.min(700)));
        }
        if around.big && around.rng.u8(..3) == 0 {
            let bytes = random_bytes(around.rng, 3 * around.model.part_bytes_max);
            self.to_come.push_back((Item { flags: ITEM_FROM_USER, ..Item::of(ITEM_ARGV) }, bytes));
        }
        self.state = State::Ended;
    }

    /// Bytes that the next item may have.
    fn room(&self, model: &Model) -> Option<usize> {
        model
            .part_bytes_max
            .checked_sub(self.used.next_multiple_of(8) + Item::LEN)
            .filter(|room| *room > 0)
    }

    fn add(&mut self, model: &Model, item: Item, bytes: Vec<u8>) -> bool {
        let room = self.room(model);
        assert_eq!(self.task.item_room(), room.map(|room| room as u32), "room for an item");
        let added = self.task.item(item.kind, item.role, item.flags, item.index, &bytes);
        assert_eq!(
            added,
            room.is_some_and(|room| bytes.len() <= room),
            "an item of {}",
            bytes.len()
        );
        if added {
            self.used = self.used.next_multiple_of(8) + Item::LEN + bytes.len();
            self.items += 1;
            if let Body::Record { items, items_in_record, .. } = &mut self.draft.body {
                items.push((item, bytes.clone()));
                *items_in_record = self.items;
            }
            self.expected.items.push((item, bytes));
        }
        added
    }

    fn ended(&mut self, around: &mut Around<'_>) {
        let Some((item, bytes)) = self.to_come.pop_front() else {
            if self.push(around, PART_LAST) {
                self.done(around);
            }
            return;
        };
        let room = self.room(around.model);
        if room.is_some_and(|room| bytes.len() <= room) {
            assert!(self.add(around.model, item, bytes), "it fits");
        } else if let Some(room) = room.filter(|room| item.kind == ITEM_ARGV && *room >= 16) {
            let (now, later) = bytes.split_at(room);
            let continues = Item { flags: item.flags | ITEM_CONTINUES, ..item };
            assert!(self.add(around.model, continues, now.to_vec()), "it fits");
            self.to_come.push_front((item, later.to_vec()));
        } else {
            self.to_come.push_front((item, bytes));
            self.push(around, 0);
        }
    }

    /// One attempt; by policy the record is given up.
    fn push(&mut self, around: &mut Around<'_>, flags: u16) -> bool {
        let hint = random_hint(around.rng);
        let tried = Draft { flags: self.draft.flags | flags, ..self.draft.clone() };
        let pushed = self.task.push(hint, flags);
        assert_eq!(pushed, around.model.push(hint, &tried), "is there room for the part?");
        if pushed {
            let body = Body::Record { call: None, items: Vec::new(), items_in_record: self.items };
            let part = self.draft.part + 1;
            self.draft = Draft { order: self.draft.order, part, flags: 0, body };
            self.used = EMPTY_MORE;
            return true;
        }
        let said = around.twin.full(around.absent_ms);
        assert_eq!(said, around.model.full(around.absent_ms), "what to do without room");
        if said == Verdict::Pass {
            self.give_up(around, if flags == 0 { PART_CUT } else { 0 });
        }
        false
    }

    fn done(&mut self, around: &mut Around<'_>) {
        let record = std::mem::replace(
            &mut self.expected,
            Expected { call: Call::default(), flags: 0, items: Vec::new() },
        );
        let before = around.expected.insert(self.draft.order, record);
        assert!(before.is_none(), "I3: order {} was taken once", self.draft.order);
        self.state = State::Idle;
    }

    fn give_up(&mut self, around: &mut Around<'_>, flags: u16) {
        let hint = random_hint(around.rng);
        self.task.orphan(hint, flags);
        self.given_up(around, hint, flags);
    }

    fn given_up(&mut self, around: &mut Around<'_>, hint: u32, flags: u16) {
        self.has_buffer = false;
        self.draft.flags |= flags;
        self.expected.flags |= flags;
        around.model.orphan(hint, self.draft.clone());
        self.done(around);
    }

    /// SIGKILL: the task ends where it is. What takes its place is another one.
    pub(crate) fn kill(mut self, around: &mut Around<'_>) -> Self {
        let (number, flags) = match self.state {
            State::Idle => return Self::new(around.twin),
            State::InCall => (true, PART_NO_RETURN | PART_CUT),
            State::Ended if self.to_come.is_empty() => (false, 0),
            State::Ended => (false, PART_CUT),
        };
        if number {
            self.draft.order = around.model.order_next;
            around.model.order_next += 1;
        }
        if flags & PART_CUT != 0 && around.rng.bool() {
            // The twin's own way.
            self.given_up(around, 0, flags);
            return Self::new(around.twin);
        }
        if number {
            self.task.number();
        }
        self.give_up(around, flags);
        Self::new(around.twin)
    }
}

/// Any number, now and then one with which careless sums overflow.
pub(crate) fn random_hint(rng: &mut Rng) -> u32 {
    if rng.u8(..8) == 0 { u32::MAX - rng.u32(..4) } else { rng.u32(..) }
}

fn random_bytes(rng: &mut Rng, most: usize) -> Vec<u8> {
    let len = rng.usize(..=most);
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

fn random_item(rng: &mut Rng, most: usize) -> (Item, Vec<u8>) {
    let kind = [ITEM_NAME, ITEM_CWD, ITEM_SOCKADDR, 99][rng.usize(..4)];
    let flags = [0, ITEM_CUT, ITEM_NOT_CAPTURED][rng.usize(..3)];
    let mut bytes = random_bytes(rng, most);
    if kind == ITEM_NAME {
        // Its object stands before the name.
        bytes.resize(bytes.len().max(Object::LEN), 1);
    }
    (Item { bytes: 0, kind, role: rng.u16(..8), flags, index: rng.u32(..) }, bytes)
}

fn random_call(rng: &mut Rng) -> Call {
    let mut bytes = [0; Call::LEN];
    rng.fill(&mut bytes);
    Call { items: 0, ..Call::read(&bytes).expect("as many bytes as it has") }
}
