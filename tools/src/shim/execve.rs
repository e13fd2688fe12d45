//! The arguments of an execve as the EXECVE records of an event.
//!
//! Audit's own records hold about 7,500 bytes each. An argument that does not fit into what is left of one is
//! written as `aN_len=` (the digits or characters that follow in all) and pieces `aN[0]=`, `aN[1]=`, …, over as many
//! records as it needs; whoever reads them joins the pieces.

use super::value::{Hex, Untrusted, needs_hex};
use graven_shim_abi::decode::{ItemKind, ItemView};
use std::fmt::Write as _;

/// What a record holds at most, without its stamp.
const RECORD_BYTES_MAX: usize = 7500;
/// The least room that is worth starting an argument in.
const ROOM_BYTES_MIN: usize = 104;
/// The name of a piece, ` a4294967295_len=… a4294967295[…]=`, is shorter.
const PIECE_NAME_BYTES_MAX: usize = 96;

/// One argument.
#[derive(Debug, PartialEq, Eq)]
struct Argument {
    /// Its place, from 0.
    index: u64,
    bytes: Vec<u8>,
}

/// The arguments among these items, in order; nothing if none were captured.
///
/// An argument goes on in a later item if that item's index says so and its bytes have not ended. So an item that
/// is missing leaves a hole and moves nothing.
fn arguments<'a>(items: impl Iterator<Item = ItemView<'a>>) -> Option<Vec<Argument>> {
    let mut all: Option<Vec<Argument>> = None;
    let mut open = false;
    for item in items.filter(|item| item.kind() == ItemKind::Argv && item.is_captured()) {
        let all = all.get_or_insert_default();
        let mut index = u64::from(item.header.index);
        let mut goes_on = open && all.last().is_some_and(|last| last.index == index);
        let mut left = item.bytes;
        while !left.is_empty() {
            let end = left.iter().position(|byte| *byte == 0);
            let piece = &left[..end.unwrap_or(left.len())];
            match all.last_mut() {
                Some(last) if goes_on => last.bytes.extend_from_slice(piece),
                _ => all.push(Argument { index, bytes: piece.to_vec() }),
            }
            (goes_on, open) = (false, end.is_none());
            index += 1;
            left = end.map_or(&[][..], |end| &left[end + 1..]);
        }
    }
    all
}

/// What follows the stamp in each EXECVE record of the event that these items are of.
pub(super) fn records<'a>(items: impl Iterator<Item = ItemView<'a>>) -> Vec<String> {
    let Some(arguments) = arguments(items) else { return Vec::new() };
    let argc = arguments.iter().map(|argument| argument.index + 1).max().unwrap_or(0);
    let mut records =
        Records { done: Vec::new(), text: format!("argc={argc}"), room: RECORD_BYTES_MAX };
    arguments.iter().for_each(|argument| records.push(argument));
    records.done.push(records.text);
    records.done
}

/// Records that are being filled.
struct Records {
    done: Vec<String>,
    text: String,
    /// What is left in the last one.
    room: usize,
}

impl Records {
    fn push(&mut self, Argument { index, bytes }: &Argument) {
        // What goes over several records is in digits, so that pieces can be joined.
        let hex = needs_hex(bytes) || bytes.len() >= RECORD_BYTES_MAX;
        let (each, quotes) = if hex { (2, 0) } else { (1, 2) };
        let mut left = &bytes[..];
        for piece in 0_u64.. {
            if self.room < ROOM_BYTES_MIN {
                let full = std::mem::take(&mut self.text);
                self.done.push(full);
                self.room = RECORD_BYTES_MAX;
            }
            let begun = self.text.len();
            let fits = left.len() * each + quotes + PIECE_NAME_BYTES_MAX <= self.room;
            // The first field of a record stands right behind the stamp.
            let space = if self.text.is_empty() { "" } else { " " };
            let name = if piece == 0 && fits {
                format!("{space}a{index}=")
            } else if piece == 0 {
                format!("{space}a{index}_len={} a{index}[0]=", bytes.len() * each)
            } else {
                format!("{space}a{index}[{piece}]=")
            };
            let count = (self.room.saturating_sub(name.len() + quotes) / each).min(left.len());
            let (now, later) = left.split_at(count);
            let _ = if hex {
                write!(self.text, "{name}{}", Hex(now))
            } else {
                write!(self.text, "{name}{}", Untrusted(now))
            };
            self.room = self.room.saturating_sub(self.text.len() - begun);
            left = later;
            if left.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graven_shim_abi::decode::parse;
    use graven_shim_abi::encode::PartBuilder;
    use graven_shim_abi::{ITEM_ARGV, ITEM_CONTINUES, ITEM_NOT_CAPTURED, Item};

    /// The records of one item for each of these indexes and bytes, in parts of their own.
    fn of(items: &[(u32, u32, &[u8])]) -> Vec<String> {
        let parts: Vec<_> = (0..)
            .zip(items)
            .map(|(part, (index, flags, bytes))| {
                let header = Item { index: *index, flags: *flags, ..Item::of(ITEM_ARGV) };
                PartBuilder::more(1, part).item(header, bytes).build()
            })
            .collect();
        records(parts.iter().flat_map(|part| parse(part).expect("a part").items()))
    }

    #[test]
    fn arguments_are_numbered_quoted_and_encoded() {
        assert_eq!(of(&[(0, 0, b"ls\0\0a b\0")]), ["argc=3 a0=\"ls\" a1=\"\" a2=612062"]);
        assert_eq!(of(&[(0, ITEM_NOT_CAPTURED, b"")]), [""; 0]);
        assert_eq!(of(&[(0, 0, b"")]), ["argc=0"]);
    }

    #[test]
    fn an_argument_goes_on_in_the_next_part_and_a_hole_moves_nothing() {
        let c = ITEM_CONTINUES;
        assert_eq!(
            of(&[(0, c, b"x\0ab"), (1, c, b"cd\0"), (2, 0, b"e\0")]),
            ["argc=3 a0=\"x\" a1=\"abcd\" a2=\"e\""]
        );
        assert_eq!(of(&[(0, c, b"x\0ab"), (4, 0, b"y\0")]), ["argc=5 a0=\"x\" a1=\"ab\" a4=\"y\""]);
    }

    #[test]
    fn no_record_is_too_long_and_no_byte_is_lost() {
        let long = vec![b'a'; 9000];
        let odd = vec![b' '; 8000];
        let many = b"word\0".repeat(3000);
        let items: [(u32, u32, &[u8]); 3] = [(0, 0, &many), (3000, 0, &long), (3001, 0, &odd)];
        let records = of(&items);
        assert!(records.len() > 8, "{}", records.len());
        assert!(records.iter().all(|record| record.len() <= RECORD_BYTES_MAX + "argc=3002".len()));
        let text = records.join(" ");
        for index in 0..3000 {
            assert!(
                text.contains(&format!(" a{index}=\"word\""))
                    || text.contains(&format!(" a{index}_len=4 "))
            );
        }
        for (index, byte, len) in [(3000, "61", 18_000), (3001, "20", 16_000)] {
            assert!(text.contains(&format!(" a{index}_len={len} a{index}[0]=")), "{index}");
            let pieces = text.split(' ').filter(|field| field.starts_with(&format!("a{index}[")));
            let joined: String =
                pieces.map(|field| field.split_once('=').expect("a field").1).collect();
            assert_eq!(joined, byte.repeat(len / 2), "{index}");
        }
    }
}
