//! Format version 1, bit for bit: files kept beside the tests, which the encoders must reproduce
//! and the reader must read as listed, for as long as version 1 is read.

use crate::common::{Rec, Segment, checkpoint, rec, recs, scan};
use graven_format::identity::Identity;
use graven_format::lines::origin;
use graven_format::merkle::{CompactRange, leaf_hash_stored, node_count};
use graven_format::note::SecretKey;
use graven_format::scan::{Event, Expect, Scanner};
use graven_format::segment::SegmentHeader;
use graven_format::trailer::{SealReason, Trailer};
use graven_format::{Flags, Source, TrailId, name};
use graven_writer::codec::{Compressor, Reading};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::path::PathBuf;

pub(crate) const REGENERATE: &str = "GRAVEN_REGENERATE_GOLDEN";

/// SHA-256 over the golden files of 1.0, in the order of their names: these bytes never change again.
/// A later version has golden files of its own beside them.
const FROZEN: &str = "ea39095f4ab16a891951ad1facad3922c1d85b4d1c8bf758a32b236edd9b7db4";

/// The trail of the golden files. Segment 9 stands alone: its header is the longest.
const GOLDEN_TRAIL: TrailId = TrailId([
    0x10, 0x21, 0x32, 0x43, 0x54, 0x65, 0x76, 0x87, 0x98, 0xA9, 0xBA, 0xCB, 0xDC, 0xED, 0xFE, 0x0F,
]);

pub(crate) fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// The three smallest things that a payload can be hard about: empty, no UTF-8, a line feed.
fn first() -> Segment {
    let mut segment = Segment::with(SegmentHeader {
        trail_id: GOLDEN_TRAIL,
        host: b"golden.example".to_vec(),
        ..Segment::first(512).header
    });
    let hard = |n, bytes: &[u8]| Rec { bytes: bytes.to_vec(), ..rec(n, 0) };
    segment.frame(&[hard(0, b""), hard(1, b"\xFF\xFE caf\xE9 \x00"), hard(2, b"a\nb")], 0);
    segment
}

/// Several frames, every source, flag and extreme.
fn second() -> Segment {
    let before = first();
    let mut segment = before.successor(&before.trailer(SealReason::Stop));
    segment.header.align_bytes = 4096;
    segment = Segment::with(segment.header);
    segment.frame(&recs(3, 7, 50), 3);
    let extreme = Rec {
        source: Source::Import,
        kind: u16::MAX,
        flags: Flags::LOSS | Flags::UNTERMINATED,
        realtime_ns: u64::MAX,
        boottime_ns: u64::MAX,
        source_seq: u64::MAX,
        bytes: (0..=255).collect(),
    };
    segment.frame(&[extreme], 3).frame(&recs(11, 2, 400), 10);
    segment
}

/// Not sealed: the file goes on with zeros up to what was reserved, which are not stored here.
fn third() -> Segment {
    let before = second();
    let mut segment = before.successor(&before.trailer(SealReason::Recovery));
    segment.header.align_bytes = 512;
    segment = Segment::with(segment.header);
    segment.frame(&recs(13, 3, 80), 13).frame(&recs(16, 1, 900), 13);
    segment
}

/// The longest header fields, over two blocks.
fn longest_header() -> Segment {
    let first_seq = (1 << 20) - 1;
    let nodes: Vec<_> =
        (0..node_count(0, first_seq) as u64).map(|n| leaf_hash_stored(&n.to_le_bytes())).collect();
    let mut segment = Segment::with(SegmentHeader {
        prev_crc: u32::MAX,
        segment: 9,
        first_seq,
        created_realtime_ns: u64::MAX,
        created_boottime_ns: u64::MAX,
        boot_id: [0xFF; 16],
        host: [b'h'; 64].to_vec(),
        before: CompactRange::from_nodes(0, first_seq, &nodes).expect("as many as it has"),
        ..first().header
    });
    segment.frame(&[rec(first_seq, 20)], first_seq);
    segment
}

/// Signed: a checkpoint that ends its key's epoch, records after it, a trailer that was written
/// again and is signed by the next key.
fn signed() -> Segment {
    let key = |seed| SecretKey::from_seed(&origin(GOLDEN_TRAIL), &[seed; 32]).expect("a key");
    let (old, new) = (key(1), key(2));
    let before = longest_header();
    let mut segment = Segment::with(SegmentHeader {
        epoch: 3,
        key: old.public().bytes(),
        ..before.successor(&before.trailer(SealReason::Full)).header
    });
    segment.frame(&recs(segment.next_seq(), 3, 30), 0);
    let last = checkpoint(&segment, &old, Some(&new));
    let after = recs(segment.next_seq() + 1, 2, 10);
    segment.frame(&[&[last][..], &after].concat(), 0);
    segment.first_crc = Some(0x0102_0304);
    segment.key = Some(new);
    segment
}

/// The records of the compressed frame, and the payload that is kept of it: another version of the
/// library may find another one.
pub(crate) fn compressed_frame() -> (Vec<Rec>, Vec<u8>) {
    let records: Vec<Rec> = (0..40)
        .map(|n| {
            let text = format!("audit(1700000000.{n:03}:{}): cwd=\"/home/user{}\"", 500 + n, n % 3);
            Rec { bytes: text.into_bytes(), ..rec(n, 0) }
        })
        .collect();
    if std::env::var_os(REGENERATE).is_some() {
        let raw: Vec<u8> = records.iter().flat_map(Rec::stored).collect();
        let mut compressor = Compressor::new(19);
        let payload = compressor.compress(&raw, raw.len()).expect("it is shorter");
        std::fs::write(path("payload.zst"), payload).expect("the golden directory is writable");
    }
    (records, std::fs::read(path("payload.zst")).expect("the golden payload"))
}

/// Rewritten: a compressed frame between two that are not.
fn compressed() -> Segment {
    let before = signed();
    let mut segment = before.successor(&before.trailer(SealReason::Full));
    segment.frame(&recs(segment.next_seq(), 2, 30), 0);
    let (records, payload) = compressed_frame();
    segment.frame_as(&records, 0, Some(&payload));
    segment.frame(&recs(segment.next_seq(), 1, 300), 0);
    segment.first_crc = Some(0x0506_0708);
    segment
}

/// Every golden segment: the bytes kept, and the whole file.
pub(crate) fn segments() -> Vec<(Segment, Vec<u8>, Vec<u8>)> {
    let sealed = |segment: Segment, reason| {
        let mut bytes = segment.bytes.clone();
        bytes.extend(segment.trailer(reason).encode(segment.header.align_bytes).0);
        (segment, bytes.clone(), bytes)
    };
    let third = third();
    let (kept, whole) = (third.bytes.clone(), third.unsealed());
    vec![
        sealed(first(), SealReason::Stop),
        sealed(second(), SealReason::Recovery),
        (third, kept, whole),
        sealed(longest_header(), SealReason::Full),
        sealed(signed(), SealReason::Full),
        sealed(compressed(), SealReason::Full),
    ]
}

fn identity() -> [u8; 40] {
    let created_realtime_ns = 1_700_000_000_000_000_000;
    Identity { trail_id: GOLDEN_TRAIL, created_realtime_ns }.encode()
}

fn file_name(segment: &Segment) -> String {
    name::segment(segment.header.segment, segment.header.first_seq)
}

/// What the reader says of all golden segments, one event a line. Written out field by field, so
/// that it changes only when the meaning of the bytes does.
fn listing() -> String {
    let mut text = String::new();
    for (segment, _, whole) in segments() {
        let expect = Expect { trail_id: Some(GOLDEN_TRAIL), ..segment.expect() };
        let _ = writeln!(text, "{}", file_name(&segment));
        let mut scanner = Scanner::with_hashing(expect, Reading::new());
        scanner.push(&whole);
        scanner.end();
        while let Some(event) = scanner.next_event() {
            let _ = writeln!(text, "  {}", line(&event));
        }
    }
    text
}

fn line(event: &Event<'_>) -> String {
    match event {
        Event::Header(header) => format!(
            "header crc={:08x} align={} prev_crc={:08x} trail={} segment={} first_seq={} len={} \
             realtime={} boottime={} boot={} host={} epoch={} key={} before={}",
            header.crc,
            header.align_bytes,
            header.prev_crc,
            header.trail_id,
            header.segment,
            header.first_seq,
            header.segment_len,
            header.created_realtime_ns,
            header.created_boottime_ns,
            hex(&header.boot_id),
            hex(&header.host),
            header.epoch,
            hex(&header.key),
            hex(&header.before.nodes().concat()),
        ),
        Event::Frame { header, offset } => format!(
            "frame at={offset} crc={:08x} len={} payload={} raw={} codec={} records={} \
             prev_crc={:08x} first_seq={} announced={}",
            header.crc,
            header.frame_len,
            header.payload_len,
            header.raw_len,
            header.codec,
            header.record_count,
            header.prev_crc,
            header.first_seq,
            header.announced,
        ),
        Event::Record { seq, offset, record } => format!(
            "record seq={seq} at={offset} source={} kind={} flags={} realtime={} boottime={} \
             source_seq={} bytes={}",
            record.source.name(),
            record.kind,
            record.flags.bits(),
            record.realtime_ns,
            record.boottime_ns,
            record.source_seq,
            hex(record.bytes),
        ),
        Event::Trailer(trailer) => trailer_line(trailer),
        Event::Finding(finding) => format!("finding at={} {finding}", finding.offset),
    }
}

fn trailer_line(trailer: &Trailer) -> String {
    let tally = &trailer.tally;
    let index: Vec<String> = tally
        .index
        .iter()
        .map(|entry| format!("{}@{}/{}", entry.seq, entry.offset, entry.realtime_ns))
        .collect();
    format!(
        "trailer crc={:08x} len={} first_seq={} records={} frames={} frames_end={} \
         last_crc={:08x} realtime={}..{} record_bytes={} reason={} sealed={} root={} range={} \
         level={} blocks={} index={} first_crc={:08x?} note={}",
        trailer.crc,
        trailer.trailer_len,
        trailer.first_seq,
        tally.record_count,
        tally.frame_count,
        tally.frames_end,
        tally.last_crc,
        tally.realtime_min_ns,
        tally.realtime_max_ns,
        tally.record_bytes,
        trailer.reason.name(),
        trailer.sealed_realtime_ns,
        hex(&trailer.root),
        hex(&trailer.range.nodes().concat()),
        trailer.block_level(),
        hex(&trailer.blocks.concat()),
        index.join(","),
        trailer.first_crc,
        hex(&trailer.note),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares `bytes` with the file kept, or writes it when told to by name.
fn check(file: &str, bytes: &[u8]) {
    if std::env::var_os(REGENERATE).is_some() {
        std::fs::write(path(file), bytes).expect("the golden directory is writable");
        return;
    }
    let kept = std::fs::read(path(file)).unwrap_or_default();
    if kept == bytes {
        return;
    }
    let at = kept.iter().zip(bytes).position(|(kept, new)| kept != new);
    panic!(
        "format v1 is frozen: what the encoders write now differs from tests/golden/{file} at \
         byte {:#x} ({} bytes kept, {} now). Trails of version 1 exist; a change of what is \
         written needs a new version or feature bit. Only if version 1 was never released: set \
         {REGENERATE}=1.",
        at.unwrap_or_else(|| kept.len().min(bytes.len())),
        kept.len(),
        bytes.len(),
    );
}

#[test]
fn the_golden_files_are_those_that_were_frozen() {
    let mut names: Vec<_> = std::fs::read_dir(path(""))
        .expect("the golden directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    names.sort();
    let all = names.iter().fold(Sha256::new(), |hash, file| {
        hash.chain_update(std::fs::read(file).expect("a golden file"))
    });
    assert_eq!(
        hex(&all.finalize()),
        FROZEN,
        "format 1.0 is frozen: a change of its bytes needs another version"
    );
}

#[test]
fn the_encoders_write_version_1_bit_for_bit() {
    for (segment, kept, _) in segments() {
        check(&file_name(&segment), &kept);
    }
    check(name::IDENTITY, &identity());
}

#[test]
fn the_reader_reads_version_1_as_listed() {
    check("listing.txt", listing().as_bytes());
    for (segment, _, whole) in segments() {
        let scanned = scan(&whole, segment.expect());
        assert_eq!(scanned.findings, [], "{}", file_name(&segment));
        let records: Vec<Rec> = scanned.records.into_iter().map(|(_, rec)| rec).collect();
        assert_eq!(records, segment.records);
    }
}

#[test]
fn the_worked_example_in_the_document_is_the_first_golden_file() {
    let bytes = std::fs::read(path(&file_name(&first()))).expect("the golden file");
    let document = include_str!("../../../docs/format.md");
    for line in hexdump(&bytes) {
        assert!(document.contains(&line), "docs/format.md lacks the line\n{line}");
    }
}

/// The lines of `hexdump -C`, rows of zeros left out.
fn hexdump(bytes: &[u8]) -> Vec<String> {
    let rows = bytes.chunks(16).zip((0..).step_by(16));
    rows.filter(|(row, _)| row.iter().any(|byte| *byte != 0))
        .map(|(row, at)| {
            let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
            let text: String = row
                .iter()
                .map(|byte| if (32..127).contains(byte) { char::from(*byte) } else { '.' })
                .collect();
            format!("{at:08x}  {}  {}  |{text}|", hex[..8].join(" "), hex[8..].join(" "))
        })
        .collect()
}
