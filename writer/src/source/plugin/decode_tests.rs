use super::*;
use proptest::prelude::*;
use std::convert::Infallible;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owned {
    Line(Vec<u8>),
    Unended(Vec<u8>),
    TooLong(u64),
    Binary(u32, u32, Vec<u8>),
    Garbage(Vec<u8>),
}

fn decoded(format: Format, bytes: &[u8], sizes: &[usize]) -> Vec<(u64, Owned)> {
    let mut all = Vec::new();
    let mut visit = |offset, piece: Piece<'_>| -> Result<(), Infallible> {
        let piece = match piece {
            Piece::Line(text) => Owned::Line(text.to_vec()),
            Piece::Unended(text) => Owned::Unended(text.to_vec()),
            Piece::TooLong(len) => Owned::TooLong(len),
            Piece::Binary { version, kind, payload } => {
                Owned::Binary(version, kind, payload.to_vec())
            }
            Piece::Garbage(bytes) => Owned::Garbage(bytes.to_vec()),
        };
        all.push((offset, piece));
        Ok(())
    };
    let mut decoder = Decoder::new(format);
    let (mut left, mut turn) = (bytes, 0);
    while !left.is_empty() {
        let size = sizes.get(turn % sizes.len().max(1)).copied().unwrap_or(usize::MAX);
        turn += 1;
        let (now, later) = left.split_at(size.clamp(1, left.len()));
        decoder.push(now, &mut visit).expect("nothing fails");
        left = later;
    }
    decoder.finish(&mut visit).expect("nothing fails");
    all
}

fn pieces(format: Format, bytes: &[u8]) -> Vec<Owned> {
    decoded(format, bytes, &[]).into_iter().map(|(_, piece)| piece).collect()
}

fn binary(version: u32, kind: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("short");
    let mut bytes: Vec<u8> =
        [version, 16, kind, size].iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend_from_slice(payload);
    bytes
}

const V0: &[u8] = b"audit(1733000000.123:456): arch=c000003e syscall=257";
const V1: &[u8] = b"node=a type=CWD msg=audit(1733000000.123:456): cwd=\"/\"\x1dX=1";

fn stream(fixed: bool) -> (Vec<u8>, Vec<Owned>) {
    let records = [(0, 1300, V0), (1, 1307, V1), (0, 1320, b"audit(1733000000.123:456): ")];
    let mut bytes = Vec::new();
    for (version, kind, payload) in records {
        bytes.extend_from_slice(&binary(version, kind, payload));
        if fixed {
            // Left over memory: text, and nothing of note.
            let filling = V1.iter().copied().cycle().take(FIXED_BYTES - payload.len());
            bytes.extend(filling);
        }
    }
    let expected = records.map(|(version, kind, text)| Owned::Binary(version, kind, text.to_vec()));
    (bytes, expected.to_vec())
}

#[test]
fn both_ways_of_binary_records_are_told_apart() {
    for fixed in [false, true] {
        let (bytes, expected) = stream(fixed);
        assert_eq!(pieces(Format::Auto, &bytes), expected, "{fixed}");
        assert_eq!(pieces(Format::Binary, &bytes), expected, "{fixed}");
        // Alone, and what fills it up is no garbage.
        let one = if fixed { HEADER_BYTES + FIXED_BYTES } else { HEADER_BYTES + V0.len() };
        assert_eq!(pieces(Format::Auto, &bytes[..one]), expected[..1], "{fixed}");
    }
    let full = vec![b'a'; FIXED_BYTES];
    let mut bytes = binary(1, 1300, &full);
    bytes.extend_from_slice(&binary(0, 1320, b""));
    bytes.extend_from_slice(&binary(0, 1300, V0));
    let expected = [
        Owned::Binary(1, 1300, full),
        Owned::Binary(0, 1320, vec![]),
        Owned::Binary(0, 1300, V0.to_vec()),
    ];
    assert_eq!(pieces(Format::Auto, &bytes), expected);
}

#[test]
fn every_cut_of_every_format_gives_the_same() {
    let lines =
        b"type=CWD msg=audit(1.002:3): a\n\nnode=x type=EOE msg=audit(1.002:3): \nrest".to_vec();
    let long = vec![b'l'; RECORD_PAYLOAD_BYTES_MAX + 1];
    for (what, bytes) in [("lines", lines), ("compact", stream(false).0), ("fixed", stream(true).0)]
    {
        let whole = decoded(Format::Auto, &bytes, &[]);
        for cut in 1..bytes.len() {
            assert_eq!(decoded(Format::Auto, &bytes, &[cut, usize::MAX]), whole, "{what} {cut}");
        }
        assert_eq!(decoded(Format::Auto, &bytes, &[1]), whole, "{what}");
    }
    let bytes = [&b"a\n"[..], &long, b"\nb\n"].concat();
    let expected = [
        (0, Owned::Line(b"a".to_vec())),
        (2, Owned::TooLong(long.len() as u64)),
        (2 + long.len() as u64 + 1, Owned::Line(b"b".to_vec())),
    ];
    for sizes in [&[][..], &[1000], &[long.len() + 2, 1], &[long.len() + 1, 1]] {
        assert_eq!(decoded(Format::String, &bytes, sizes), expected);
    }
    let unended = decoded(Format::String, &bytes[..bytes.len() - 3], &[4096]);
    assert_eq!(unended, expected[..2]);
}

#[test]
fn what_is_no_record_is_given_out_and_reading_goes_on() {
    let (good, records) = stream(false);
    let mut bytes = good.clone();
    let noise: Vec<u8> = (0..10_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    bytes.extend_from_slice(&noise);
    bytes.extend_from_slice(&good);
    let got = decoded(Format::Auto, &bytes, &[]);
    let mut garbage = Vec::new();
    for (offset, piece) in &got {
        if let Owned::Garbage(bytes) = piece {
            assert_eq!(*offset as usize, good.len() + garbage.len());
            assert!(bytes.len() <= GARBAGE_BYTES);
            garbage.extend_from_slice(bytes);
        }
    }
    assert_eq!(garbage, noise);
    let sound: Vec<_> = got
        .iter()
        .map(|(_, it)| it.clone())
        .filter(|it| !matches!(it, Owned::Garbage(_)))
        .collect();
    assert_eq!(sound, [records.clone(), records].concat());
    // A record that the end cut off.
    for cut in 1..HEADER_BYTES + V0.len() {
        let got = pieces(Format::Binary, &good[..cut]);
        assert_eq!(got, [Owned::Garbage(good[..cut].to_vec())], "{cut}");
    }
    // A version that is not known is no record: what it means nobody knows.
    let later = binary(2, 1300, V0);
    assert_eq!(pieces(Format::Binary, &later), [Owned::Garbage(later.clone())]);
}

proptest! {
    #[test]
    fn any_bytes_are_taken_apart_the_same_however_they_are_cut_and_none_is_lost(
        parts in proptest::collection::vec(prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(16), Just(b'\n')], 0..40),
            Just(binary(0, 1300, V0)),
            Just(binary(1, 1307, V1)),
            Just(binary(0, 1320, b"")),
            Just(V1.to_vec()),
        ], 0..12),
        sizes in proptest::collection::vec(1_usize..90, 1..6),
        format in prop_oneof![Just(Format::Auto), Just(Format::String), Just(Format::Binary)],
    ) {
        let bytes = parts.concat();
        let whole = decoded(format, &bytes, &[]);
        prop_assert_eq!(decoded(format, &bytes, &sizes), whole.clone());
        let mut at = 0;
        for (offset, piece) in &whole {
            prop_assert_eq!(*offset, at);
            at += match piece {
                Owned::Line(text) => text.len() as u64 + 1,
                Owned::Unended(text) | Owned::Garbage(text) => text.len() as u64,
                Owned::TooLong(len) => len + 1,
                Owned::Binary(_, _, payload) => (HEADER_BYTES + payload.len()) as u64,
            };
        }
        prop_assert_eq!(at, bytes.len() as u64);
    }
}
