//! What a trail has of the shim.

use graven_format::Source;
use graven_format::name::Name;
use graven_format::scan::{Event, Expect, Scanner};
use graven_shim_abi::decode::{Body, ItemView, parse};
use graven_shim_abi::{Call, ITEM_ARGV, Item, Object, Part};
use graven_writer::codec::Reading;
use std::collections::BTreeMap;
use std::path::Path;

/// `getppid`, whose arguments number it.
pub(super) const NUMBERED: u32 = 110;

/// An item, on its own.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) header: Item,
    pub(super) bytes: Vec<u8>,
    pub(super) object: Option<Object>,
}

/// A record whose parts were put together.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub(super) call: Call,
    pub(super) flags: u16,
    pub(super) items: Vec<Piece>,
    /// Of each part that has come, its items. Parts of one record may lie in several rings, and come in any order.
    parts: BTreeMap<u32, Vec<Piece>>,
    last: Option<u32>,
}

impl Whole {
    /// The bytes of all items of a kind and a role.
    pub(super) fn item(&self, kind: u16, role: u16) -> Option<&[u8]> {
        let of = |it: &&Piece| it.header.kind == kind && it.header.role == role;
        self.items.iter().find(of).map(|it| &it.bytes[..])
    }

    /// All arguments of a program, one behind the other.
    pub(super) fn arguments(&self) -> Vec<u8> {
        let arguments = self.items.iter().filter(|it| it.header.kind == ITEM_ARGV);
        arguments.flat_map(|it| it.bytes.clone()).collect()
    }
}

/// Every record by its number. Checks that parts of each ring and records are dense and there once, and that each is whole.
pub(super) fn records(trail: &Path) -> BTreeMap<u64, Whole> {
    let mut records: BTreeMap<u64, Whole> = BTreeMap::new();
    let mut rings: BTreeMap<u32, u64> = BTreeMap::new();
    parts(trail, &mut |header, body, items| {
        // What the module's own test has made before is in no trail.
        let next = rings.entry(header.ring).or_insert(header.ring_seq);
        assert_eq!(header.ring_seq, *next, "ring {}: dense, and there once", header.ring);
        *next += 1;
        if matches!(body, Body::Gap(_)) {
            return;
        }
        let whole = records.entry(header.order).or_default();
        whole.flags |= header.flags;
        if header.flags & graven_shim_abi::PART_LAST != 0 {
            whole.last = Some(header.part);
        }
        if let Body::Call(call, _) = body {
            whole.call = *call;
        }
        let items = items.into_iter().map(|item| Piece {
            header: item.header,
            bytes: item.bytes.to_vec(),
            object: item.object,
        });
        let twice = whole.parts.insert(header.part, items.collect());
        assert!(twice.is_none(), "order {}: part {} is there twice", header.order, header.part);
    });
    let first = records.keys().next().copied().unwrap_or(0);
    for (at, (order, whole)) in (first..).zip(&mut records) {
        assert_eq!(*order, at, "orders are dense");
        assert!(
            whole.parts.keys().copied().eq(0..=whole.last.unwrap_or(0)),
            "order {order}: whole"
        );
        assert!(whole.last.is_some(), "order {order}: whole");
        whole.items = std::mem::take(&mut whole.parts).into_values().flatten().collect();
    }
    records
}

/// How many records there are of calls with this number that were made by the workloads' user.
pub(super) fn calls_of(trail: &Path, nr: u32) -> u64 {
    let mut count = 0;
    parts(trail, &mut |_, body, _| {
        count +=
            u64::from(matches!(body, Body::Call(call, _) if call.nr == nr && call.uid == 1000));
    });
    count
}

/// How often each number of each producer is there.
pub(super) fn numbers(records: &BTreeMap<u64, Whole>) -> BTreeMap<(u64, u64), u32> {
    let mut numbers = BTreeMap::new();
    for whole in records.values().filter(|it| it.call.nr == NUMBERED) {
        *numbers.entry((whole.call.args[1], whole.call.args[0])).or_default() += 1;
    }
    numbers
}

/// Fails unless each of these producers has each number once, and there is nothing else.
#[track_caller]
pub(super) fn each_once(records: &BTreeMap<u64, Whole>, producers: u64, count: u64) {
    let numbers = numbers(records);
    let doubled = numbers.values().filter(|times| **times != 1).count();
    let wanted = (0..producers).flat_map(|producer| (0..count).map(move |n| (producer, n)));
    let missing = wanted.filter(|key| !numbers.contains_key(key)).count();
    let there = numbers.len() as u64;
    assert!(
        doubled == 0 && missing == 0 && there == producers * count,
        "{missing} missing, {doubled} not once, {there} there of {}",
        producers * count
    );
}

fn parts(trail: &Path, visit: &mut dyn FnMut(Part, &Body<'_>, Vec<ItemView<'_>>)) {
    let mut segments: Vec<(u64, u64, _)> = std::fs::read_dir(trail)
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str().and_then(Name::parse)?;
            let Name::Segment { segment, first_seq } = name else { return None };
            Some((segment, first_seq, path))
        })
        .collect();
    segments.sort();
    for (segment, first_seq, path) in segments {
        let expect = Expect { segment, first_seq, trail_id: None, merkle: false };
        let mut scanner = Scanner::with_hashing(expect, Reading::new());
        scanner.push(&std::fs::read(path).unwrap());
        scanner.end();
        while let Some(event) = scanner.next_event() {
            let Event::Record { record, .. } = event else { continue };
            if record.source == Source::Shim {
                let part = parse(record.bytes).unwrap_or_else(|why| panic!("{why}"));
                visit(part.header, &part.body, part.items().collect());
            }
        }
    }
}
