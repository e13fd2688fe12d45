//! The parts of one record, brought together by its `order`.
//!
//! Parts of other records lie between them, and parts of one record that went into several rings may come in any
//! order. A record is whole when its parts are dense from 0 to the one with `LAST`. What never becomes whole is given out at
//! the end, with what there is.

use graven_format::Record;
use graven_shim_abi::decode::{self, Body, PartView};
use std::collections::BTreeMap;
use std::io;

/// Bytes of parts that may wait for others. The largest argument list that the kernel takes is 6 MiB; past this,
/// what began first is given out as it is.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// One record, or as much of it as there is.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Its number.
    pub order: u64,
    /// Nanoseconds since 1970 when its first part was taken from the ring.
    pub realtime_ns: u64,
    /// Nanoseconds since boot at the same moment.
    pub boottime_ns: u64,
    /// Its parts, in order.
    pub parts: Vec<PartView<'a>>,
}

/// Is given each record; what it fails with ends the gathering.
pub type Emit<'a> = dyn FnMut(&Event<'_>) -> io::Result<()> + 'a;

/// A record of which parts are missing.
#[derive(Debug)]
struct Open {
    /// How many began before it.
    age: u64,
    realtime_ns: u64,
    boottime_ns: u64,
    /// By their place in the record.
    parts: BTreeMap<u32, Vec<u8>>,
    /// The place of the one with `LAST`.
    last: Option<u32>,
}

impl Open {
    /// Whether this part can be one of the same record. Numbers begin again when the module is loaded again: the
    /// same place twice, or a place behind the last one, is another record.
    fn can_hold(&self, part: &PartView<'_>) -> bool {
        let at = part.header.part;
        let behind = self.last.is_some_and(|last| at > last || part.is_last());
        let before = part.is_last() && self.parts.keys().any(|other| *other > at);
        !self.parts.contains_key(&at) && !behind && !before
    }

    fn is_whole(&self) -> bool {
        self.last.is_some_and(|last| self.parts.len() as u64 == u64::from(last) + 1)
    }

    fn bytes(&self) -> usize {
        self.parts.values().map(Vec::len).sum()
    }
}

/// The records of which parts are missing.
#[derive(Debug, Default)]
pub struct Gatherer {
    open: BTreeMap<u64, Open>,
    /// Their numbers, by age.
    by_age: BTreeMap<u64, u64>,
    bytes: usize,
    begun: u64,
}

impl Gatherer {
    /// Takes the part that `record` holds, and gives out what is whole with it.
    ///
    /// # Errors
    /// What `emit` says.
    pub fn take(
        &mut self,
        record: &Record<'_>,
        part: &PartView<'_>,
        emit: &mut Emit<'_>,
    ) -> io::Result<()> {
        let order = part.header.order;
        // A gap has the number of the next record, and is none of its parts.
        if let Body::Gap(_) = part.body {
            let (realtime_ns, boottime_ns) = (record.realtime_ns, record.boottime_ns);
            return emit(&Event { order, realtime_ns, boottime_ns, parts: vec![*part] });
        }
        if self.open.get(&order).is_some_and(|open| !open.can_hold(part)) {
            self.give(order, emit)?;
        }
        let (realtime_ns, boottime_ns) = (record.realtime_ns, record.boottime_ns);
        if part.header.part == 0 && part.is_last() && !self.open.contains_key(&order) {
            return emit(&Event { order, realtime_ns, boottime_ns, parts: vec![*part] });
        }
        let open = self.open.entry(order).or_insert_with(|| {
            self.begun += 1;
            self.by_age.insert(self.begun, order);
            let parts = BTreeMap::new();
            Open { age: self.begun, realtime_ns, boottime_ns, parts, last: None }
        });
        open.parts.insert(part.header.part, record.bytes.to_vec());
        if part.is_last() {
            open.last = Some(part.header.part);
        }
        self.bytes += record.bytes.len();
        if open.is_whole() {
            self.give(order, emit)?;
        }
        while self.bytes > WAITING_BYTES_MAX {
            let Some(order) = self.by_age.values().next().copied() else { break };
            self.give(order, emit)?;
        }
        Ok(())
    }

    /// Gives out all that is left, as it began: no part follows.
    ///
    /// # Errors
    /// What `emit` says.
    pub fn end(&mut self, emit: &mut Emit<'_>) -> io::Result<()> {
        while let Some(order) = self.by_age.values().next().copied() {
            self.give(order, emit)?;
        }
        Ok(())
    }

    fn give(&mut self, order: u64, emit: &mut Emit<'_>) -> io::Result<()> {
        let Some(open) = self.open.remove(&order) else { return Ok(()) };
        self.by_age.remove(&open.age);
        self.bytes -= open.bytes();
        // All of them were parsed before they were kept.
        let parts = open.parts.values().filter_map(|bytes| decode::parse(bytes).ok()).collect();
        let Open { realtime_ns, boottime_ns, .. } = open;
        emit(&Event { order, realtime_ns, boottime_ns, parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graven_format::{Flags, Source};
    use graven_shim_abi::encode::PartBuilder;
    use graven_shim_abi::{Call, PART_LAST};

    /// Every record given out as its order and the places of its parts.
    fn gathered(parts: &[(u64, u32, bool)], padding: usize) -> Vec<(u64, Vec<u32>)> {
        let mut gatherer = Gatherer::default();
        let mut given = Vec::new();
        let mut emit = |event: &Event<'_>| {
            given.push((event.order, event.parts.iter().map(|part| part.header.part).collect()));
            Ok(())
        };
        for &(order, part, last) in parts {
            let builder = if part == 0 {
                PartBuilder::call(order, &Call::default())
            } else {
                PartBuilder::more(order, part)
            };
            let item = graven_shim_abi::Item::of(graven_shim_abi::ITEM_ARGV);
            let builder = builder.item(item, &vec![b'x'; padding]);
            let bytes = builder.flags(if last { PART_LAST } else { 0 }).build();
            let record = Record {
                source: Source::Shim,
                kind: 1,
                flags: Flags::NONE,
                realtime_ns: 1,
                boottime_ns: 1,
                source_seq: order,
                bytes: &bytes,
            };
            let part = decode::parse(&bytes).expect("a part");
            gatherer.take(&record, &part, &mut emit).expect("taken");
        }
        gatherer.end(&mut emit).expect("ended");
        assert_eq!((gatherer.bytes, gatherer.open.len(), gatherer.by_age.len()), (0, 0, 0));
        given
    }

    #[test]
    fn parts_come_together_in_any_order_and_between_others() {
        let parts =
            [(5, 1, true), (6, 0, true), (5, 0, false), (7, 2, true), (7, 0, false), (7, 1, false)];
        assert_eq!(gathered(&parts, 0), [(6, vec![0]), (5, vec![0, 1]), (7, vec![0, 1, 2])]);
    }

    #[test]
    fn what_never_becomes_whole_comes_at_the_end_as_it_began() {
        let parts = [(9, 0, false), (3, 1, false), (9, 2, true), (4, 0, true)];
        assert_eq!(gathered(&parts, 0), [(4, vec![0]), (9, vec![0, 2]), (3, vec![1])]);
    }

    #[test]
    fn a_number_that_comes_again_is_another_record() {
        // The module was loaded again while parts of the old record were missing.
        let parts =
            [(5, 0, false), (5, 0, true), (6, 1, false), (6, 0, true), (7, 1, true), (7, 2, false)];
        let expected =
            [(5, vec![0]), (5, vec![0]), (6, vec![1]), (6, vec![0]), (7, vec![1]), (7, vec![2])];
        assert_eq!(gathered(&parts, 0), expected);
    }

    #[test]
    fn what_waits_is_bounded() {
        let count = (WAITING_BYTES_MAX / 16_000 + 10) as u64;
        let parts: Vec<_> =
            (0..count).map(|order| (order, 0, false)).chain([(u64::MAX, 0, true)]).collect();
        let given = gathered(&parts, 16_000);
        let at = given.iter().position(|(order, _)| *order == u64::MAX).expect("it is there");
        let part_bytes = 16_000 + 32 + 176 + 16;
        assert_eq!(at, count as usize - WAITING_BYTES_MAX / part_bytes, "so many had to go before");
        assert_eq!(given.len() as u64, count + 1);
        assert_eq!(given[0].0, 0);
    }
}
