//! Parts are read as they were made, and whatever else comes is refused with its offset or kept, and never a panic.

use graven_shim_abi::decode::{Body, DecodeError, ItemKind, PartView, parse};
use graven_shim_abi::encode::PartBuilder;
use graven_shim_abi::{
    Call, Gap, ITEM_ARGV, ITEM_CONTINUES, ITEM_CUT, ITEM_CWD, ITEM_EXE, ITEM_FROM_USER, ITEM_NAME,
    ITEM_NO_OBJECT, ITEM_NOT_CAPTURED, ITEM_PROCTITLE, ITEM_SOCKADDR, ITEM_TTY, Item, Object,
    PART_BYTES_MAX, PART_LAST, PART_ORPHAN, PART_PAD, Part, ROLE_NEW, ROLE_OLD,
};
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert_eq, proptest};

const OBJECT: Object = Object {
    inode: 9,
    dev_major: 8,
    dev_minor: 1,
    rdev_major: 0,
    rdev_minor: 0,
    mode: 0o100_644,
    uid: 1,
    gid: 2,
    dir_fd: -100,
};

fn call() -> Call {
    Call {
        args: [1, 2, 3, 4, 5, 6],
        result: -2,
        comm: *b"cat\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ..Call::default()
    }
}

/// A rename with an item of every kind, of odd lengths.
fn rename() -> Vec<u8> {
    PartBuilder::call(7, &call())
        .flags(PART_LAST | PART_ORPHAN)
        .ring(3, 41)
        .item(Item::of(ITEM_CWD), b"/tmp")
        .name(ROLE_OLD, 0, &OBJECT, b"a")
        .item(
            Item {
                role: ROLE_NEW,
                index: 1,
                flags: ITEM_NO_OBJECT | ITEM_FROM_USER,
                ..Item::of(ITEM_NAME)
            },
            &[&[0xff; Object::LEN][..], b"some/b"].concat(),
        )
        .item(Item::of(ITEM_EXE), b"/bin/mv")
        .item(Item { flags: ITEM_CUT | ITEM_CONTINUES, ..Item::of(ITEM_ARGV) }, b"mv\0a\0b")
        .item(Item { flags: ITEM_NOT_CAPTURED, ..Item::of(ITEM_SOCKADDR) }, b"")
        .item(Item::of(ITEM_PROCTITLE), b"mv\0a\0b\0")
        .item(Item::of(ITEM_TTY), b"pts0")
        .item(Item { index: 5, ..Item::of(99) }, b"later")
        .build()
}

#[test]
fn every_kind_of_item_comes_back_as_it_was_made() {
    let bytes = rename();
    let part = parse(&bytes).unwrap();
    assert_eq!((part.header.order, part.header.ring, part.header.ring_seq), (7, 3, 41));
    assert!(part.is_last() && part.has(PART_ORPHAN));
    assert_eq!(part.call(), Some(&call()));
    let items: Vec<_> = part.items().collect();
    let kinds: Vec<_> = items.iter().map(|item| (item.kind(), item.bytes)).collect();
    assert_eq!(
        kinds,
        [
            (ItemKind::Cwd, &b"/tmp"[..]),
            (ItemKind::Name, b"a"),
            (ItemKind::Name, b"some/b"),
            (ItemKind::Exe, b"/bin/mv"),
            (ItemKind::Argv, b"mv\0a\0b"),
            (ItemKind::Sockaddr, b""),
            (ItemKind::Proctitle, b"mv\0a\0b\0"),
            (ItemKind::Tty, b"pts0"),
            (ItemKind::Unknown(99), b"later"),
        ]
    );
    assert_eq!((items[1].header.role, items[1].object), (ROLE_OLD, Some(OBJECT)));
    assert_eq!((items[2].header.role, items[2].object), (ROLE_NEW, None));
    assert!(items[2].is_from_user() && items[2].is_captured());
    assert!(items[4].is_cut() && items[4].continues());
    assert!(!items[5].is_captured());
    assert_eq!(items[8].header.index, 5);
}

#[test]
fn later_parts_gaps_and_kinds_of_later_versions_are_read() {
    let bytes = PartBuilder::more(7, 2).item(Item::of(ITEM_ARGV), b"x\0").build();
    let part = parse(&bytes).unwrap();
    assert_eq!((part.header.part, part.is_last(), part.call()), (2, false, None));
    assert_eq!(part.items().map(|item| item.bytes).collect::<Vec<_>>(), [b"x\0"]);
    let gap = Gap { from_ns: 1, to_ns: 2, count: 3, reason: 1, reserved: 0 };
    let bytes = PartBuilder::gap(8, &gap).build();
    let part = parse(&bytes).unwrap();
    assert_eq!((part.body, part.items().count()), (Body::Gap(gap), 0));
    let bytes = PartBuilder::new(9, 8).raw(b"what").build();
    assert_eq!(parse(&bytes).unwrap().body, Body::Unknown(b"what"));
}

#[test]
fn an_error_names_its_offset() {
    let said = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
    assert_eq!(said(&[0; 8]), "offset 0: graven_part needs 32 bytes, 8 are left in the part");
    let with_len = |mut bytes: Vec<u8>, len: usize| {
        bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
        bytes.resize(len, 0);
        bytes
    };
    assert_eq!(
        said(&with_len(PartBuilder::new(1, 0).build(), 48)),
        "offset 32: graven_call needs 176 bytes, 16 are left in the part"
    );
    assert_eq!(
        said(&with_len(PartBuilder::more(0, 1).build(), 40)),
        "offset 32: graven_item needs 16 bytes, 8 are left in the part"
    );
    let short = PartBuilder::more(0, 1).item(Item::of(ITEM_NAME), b"no object").build();
    assert_eq!(
        said(&short),
        "offset 32: the item says that it has 25 bytes; its kind needs 56, and 25 are left"
    );
    let gap = PartBuilder::gap(0, &Gap::default()).raw(b"more").build();
    assert_eq!(said(&gap), "offset 64: 4 bytes follow the gap");
    assert_eq!(parse(&PartBuilder::new(PART_PAD, 0).build()), Err(DecodeError::Pad));
    let long = vec![0; PART_BYTES_MAX + 1];
    assert_eq!(parse(&long), Err(DecodeError::TooLong(PART_BYTES_MAX + 1)));
    let mut bytes = rename();
    bytes.push(0);
    assert!(matches!(parse(&bytes), Err(DecodeError::Length { .. })));
}

/// Walks all there is: what was parsed can be walked.
fn walk(part: &PartView<'_>) -> usize {
    part.items().map(|item| item.bytes.len()).sum()
}

#[test]
fn cut_anywhere_it_is_refused_and_at_an_items_end_it_is_a_shorter_part() {
    let bytes = rename();
    let mut ends = Vec::new();
    for len in 0..bytes.len() {
        assert!(parse(&bytes[..len]).is_err(), "its length is no longer right: {len}");
        let mut cut = bytes[..len].to_vec();
        if len >= Part::LEN {
            cut[..4].copy_from_slice(&(len as u32).to_le_bytes());
        }
        if let Ok(part) = parse(&cut) {
            assert!(walk(&part) <= len);
            ends.push(len);
        }
    }
    // Behind the call, and behind each of the nine items but the last, with what fills up to the next and without.
    assert_eq!(ends.first(), Some(&(Part::LEN + Call::LEN)));
    let shorter = |len: &usize| {
        let mut cut = bytes[..*len].to_vec();
        cut[..4].copy_from_slice(&(*len as u32).to_le_bytes());
        parse(&cut).unwrap().items().count()
    };
    let counts: Vec<_> = ends.iter().map(shorter).collect();
    assert!(counts.is_sorted());
    for count in 0..9 {
        assert!(counts.contains(&count), "{count} items: {counts:?}");
    }
}

#[test]
fn whatever_bit_is_flipped_it_is_refused_or_read_to_its_end() {
    let bytes = rename();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match parse(&flipped) {
            Ok(part) => assert!(walk(&part) <= flipped.len(), "bit {bit}"),
            Err(why) => {
                // It may be later: from a wrong length on, or as another kind, all is read as something else.
                assert!(why.offset() < flipped.len(), "bit {bit}: {why}");
            }
        }
        if bit < 32 {
            assert!(parse(&flipped).is_err(), "the length is checked: bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read_to_their_end(mut bytes in vec(any::<u8>(), 0..600), kind in 0_u16..5) {
        if bytes.len() >= Part::LEN {
            let len = bytes.len() as u32;
            bytes[..4].copy_from_slice(&len.to_le_bytes());
            bytes[4..6].copy_from_slice(&kind.to_le_bytes());
        }
        if let Ok(part) = parse(&bytes) {
            assert!(walk(&part) <= bytes.len());
        }
    }

    #[test]
    fn any_items_come_back_as_they_were_made(
        items in vec((0_u16..10, any::<u16>(), any::<u32>(), any::<u32>(), vec(any::<u8>(), 0..90)), 0..12),
        order in any::<u64>(),
    ) {
        let mut builder = PartBuilder::more(order, 1);
        let mut made = Vec::new();
        for (kind, role, flags, index, mut bytes) in items {
            if kind == ITEM_NAME && bytes.len() < Object::LEN {
                bytes.resize(Object::LEN, 7);
            }
            let header = Item { bytes: 0, kind, role, flags, index };
            builder = builder.item(header, &bytes);
            let skip = if kind == ITEM_NAME { Object::LEN } else { 0 };
            made.push((Item { bytes: (Item::LEN + bytes.len()) as u32, ..header }, bytes[skip..].to_vec()));
        }
        let bytes = builder.build();
        let part = parse(&bytes).unwrap();
        prop_assert_eq!(part.header.order, order);
        let read: Vec<_> = part.items().map(|item| (item.header, item.bytes.to_vec())).collect();
        prop_assert_eq!(read, made);
    }
}
