//! One layout, written once: the tables in the modules' documentation are what the encoders write,
//! and `docs/format.md` holds the same tables.

use crate::common::{Segment, TRAIL, rec};
use graven_format::consts::*;
use graven_format::identity::Identity;
use graven_format::loss::{Cause, LossStatement};
use graven_format::trailer::{IndexEntry, SealReason};
use graven_format::{Flags, Source, TrailId};
use std::fmt::Write as _;

const DOCUMENT: &str = include_str!("../../../docs/format.md");
const FIELDS: &str = "| offset | size | field |";

/// Modules whose documentation has tables, and whether the first one is a layout.
const MODULES: [(&str, &str); 7] = [
    ("identity", include_str!("../../src/identity.rs")),
    ("segment", include_str!("../../src/segment.rs")),
    ("frame", include_str!("../../src/frame.rs")),
    ("record", include_str!("../../src/record.rs")),
    ("trailer", include_str!("../../src/trailer.rs")),
    ("name", include_str!("../../src/name.rs")),
    ("recovery", include_str!("../../src/recovery.rs")),
];

/// The lines of the table in a module's documentation, links to other items taken away.
fn table_of(module: &str) -> Vec<String> {
    let (_, source) = MODULES.iter().find(|(name, _)| *name == module).expect("a module");
    source
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.replace("[`", "`").replace("`]", "`").replace("crate::", ""))
        .collect()
}

struct Row {
    offset: String,
    size: String,
    field: String,
}

fn rows(module: &str) -> Vec<Row> {
    let table = table_of(module);
    assert_eq!(table[0], FIELDS, "{module}");
    table[2..]
        .iter()
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').splitn(3, '|').map(str::trim).collect();
            let [offset, size, field] = cells[..] else { panic!("{line}") };
            Row { offset: offset.into(), size: size.into(), field: field.into() }
        })
        .collect()
}

impl Row {
    /// Offset and size, where they are numbers.
    fn place(&self) -> Option<(usize, usize)> {
        Some((self.offset.parse().ok()?, self.size.parse().ok()?))
    }

    /// The field's name: the text before a colon or comma, without quotes.
    fn name(&self) -> String {
        let end = self.field.find([':', ',']).unwrap_or(self.field.len());
        self.field[..end].replace('`', "")
    }
}

#[test]
fn the_document_holds_the_tables_of_the_modules() {
    let lines: Vec<&str> = DOCUMENT.lines().collect();
    for (module, _) in MODULES {
        let table = table_of(module);
        assert!(table.len() > 3, "{module} has a table");
        let there = lines.windows(table.len()).any(|window| window == table);
        assert!(there, "docs/format.md lacks the table of {module}:\n{}", table.join("\n"));
    }
}

#[test]
fn fields_follow_one_another_without_a_gap() {
    let sizes = [
        ("identity", graven_format::identity::IDENTITY_BYTES),
        ("segment", SEGMENT_HEADER_FIXED_BYTES),
        ("frame", FRAME_HEADER_BYTES),
        ("record", RECORD_HEADER_BYTES),
        ("trailer", TRAILER_FIXED_BYTES),
    ];
    for (module, expected) in sizes {
        let mut end = 0;
        for (offset, size) in rows(module).iter().filter_map(Row::place) {
            assert_eq!(offset, end, "{module}");
            end = offset + size;
        }
        assert_eq!(end, expected, "{module}");
    }
}

/// Asserts that each row of the table is where the encoder put its value; `expected` has a row's
/// name, its bytes, and its place where the table has no number for it.
fn assert_values(module: &str, bytes: &[u8], expected: &[(&str, Vec<u8>, Option<usize>)]) {
    let rows = rows(module);
    assert_eq!(rows.len(), expected.len(), "{module}: every row is checked");
    for (row, (name, value, at)) in rows.iter().zip(expected) {
        assert_eq!(row.name(), *name, "{module}");
        let offset = match (row.place(), at) {
            (Some((offset, size)), None) => {
                assert_eq!(size, value.len(), "{module} {name}");
                offset
            }
            (None, Some(at)) => *at,
            _ => panic!("{module} {name}: a place in the table or in the test"),
        };
        assert_eq!(&bytes[offset..offset + value.len()], &value[..], "{module} {name}");
    }
}

fn u16le(value: u16) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

fn u32le(value: u32) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

fn u64le(value: u64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

fn crc(bytes: &[u8]) -> Vec<u8> {
    u32le(graven_format::checksum::crc32(bytes))
}

/// A segment in which no two fields have the same value.
fn distinctive() -> Segment {
    let mut header = Segment::first(1024).header;
    header.prev_crc = 0x1111_1112;
    header.segment = 0x2222_2222_2222_2223;
    header.first_seq = 5;
    header.segment_len = 0x0090_0000;
    header.created_realtime_ns = 0x3333_3333_3333_3334;
    header.created_boottime_ns = 0x4444_4444_4444_4445;
    header.epoch = 0x5555_5555_5555_5556;
    header.key = [0x66; 32];
    for n in 0..5u8 {
        header.before.append([0xA0 + n; 32]);
    }
    let mut segment = Segment::with(header);
    segment.frame(&[rec(61, 700), rec(62, 801)], 4);
    segment
}

#[test]
fn the_segment_header_is_as_in_its_table() {
    let segment = distinctive();
    let bytes = &segment.bytes[..1024];
    let header = &segment.header;
    let mut host = header.host.clone();
    host.resize(64, 0);
    let expected = [
        ("magic GRAVENSG", b"GRAVENSG".to_vec(), None),
        ("crc", crc(&bytes[12..]), None),
        ("version", u16le(1), None),
        ("zero", vec![0; 2], None),
        ("features", vec![0; 4], None),
        ("header_len", u32le(1024), None),
        ("align", u32le(1024), None),
        ("prev_crc", u32le(header.prev_crc), None),
        ("trail_id", TRAIL.0.to_vec(), None),
        ("segment", u64le(header.segment), None),
        ("first_seq", u64le(5), None),
        ("segment_len", u64le(header.segment_len), None),
        ("created_realtime_ns", u64le(header.created_realtime_ns), None),
        ("created_boottime_ns", u64le(header.created_boottime_ns), None),
        ("boot_id", header.boot_id.to_vec(), None),
        ("host_len", vec![12], None),
        ("peak_count", vec![2], None),
        ("zero", vec![0; 6], None),
        ("host", host, None),
        ("epoch", u64le(header.epoch), None),
        ("key", header.key.to_vec(), None),
        (
            "the compact range of all records before this segment",
            header.before.nodes().concat(),
            Some(216),
        ),
    ];
    assert_values("segment", bytes, &expected);
}

#[test]
fn the_frame_header_is_as_in_its_table() {
    let segment = distinctive();
    let frame = &segment.bytes[1024..];
    let payload_len = (700 + 801 + 2 * RECORD_HEADER_BYTES) as u32;
    let expected = [
        ("magic GRVF", b"GRVF".to_vec(), None),
        ("crc", crc(&frame[8..]), None),
        ("frame_len", u32le(2048), None),
        ("payload_len", u32le(payload_len), None),
        ("raw_len", u32le(payload_len), None),
        ("record_count", u32le(2), None),
        ("codec", vec![0], None),
        ("zero", vec![0; 3], None),
        ("prev_crc", segment.bytes[8..12].to_vec(), None),
        ("trail_id", TRAIL.0.to_vec(), None),
        ("segment", u64le(segment.header.segment), None),
        ("first_seq", u64le(5), None),
        ("announced", u64le(4), None),
    ];
    assert_values("frame", frame, &expected);
}

#[test]
fn the_record_header_is_as_in_its_table() {
    let segment = distinctive();
    let record = &segment.records[0];
    let expected = [
        ("payload_len", u32le(700), None),
        ("kind", u16le(record.kind), None),
        ("source", vec![record.source as u8], None),
        ("flags", vec![record.flags.bits()], None),
        ("realtime_ns", u64le(record.realtime_ns), None),
        ("boottime_ns", u64le(record.boottime_ns), None),
        ("source_seq", u64le(61), None),
    ];
    assert_values("record", &segment.bytes[1024 + FRAME_HEADER_BYTES..], &expected);
}

#[test]
fn the_trailer_is_as_in_its_table() {
    let segment = distinctive();
    let mut trailer = segment.trailer(SealReason::Recovery);
    trailer.first_crc = Some(0x7777_7778);
    trailer.note = b"a note of this length".to_vec();
    let (bytes, _) = trailer.encode(1024);
    let times = [segment.records[0].realtime_ns, segment.records[1].realtime_ns];
    let IndexEntry { seq, offset, realtime_ns } = trailer.tally.index[0];
    assert_eq!((seq, offset, realtime_ns), (5, 1024, times[0]));
    let nodes = trailer.range.nodes().concat();
    let expected = [
        ("magic GRAVENTR", b"GRAVENTR".to_vec(), None),
        ("crc", crc(&bytes[12..1024 - 16]), None),
        ("trailer_len", u32le(1024), None),
        ("trail_id", TRAIL.0.to_vec(), None),
        ("segment", u64le(segment.header.segment), None),
        ("first_seq", u64le(5), None),
        ("record_count", u64le(2), None),
        ("frame_count", u64le(1), None),
        ("frames_end", u64le(3072), None),
        ("last_crc", segment.bytes[1028..1032].to_vec(), None),
        ("reason", vec![2], None),
        ("level", vec![10], None),
        ("note_len", u16le(21), None),
        ("realtime_min_ns", u64le(times[0].min(times[1])), None),
        ("realtime_max_ns", u64le(times[0].max(times[1])), None),
        ("record_bytes", u64le(700 + 801 + 64), None),
        ("sealed_realtime_ns", u64le(trailer.sealed_realtime_ns), None),
        ("root", trailer.root.to_vec(), None),
        ("node_count", u32le(trailer.range.nodes().len() as u32), None),
        ("index_count", u32le(1), None),
        ("first_crc", u32le(0x7777_7778), None),
        ("rewritten", vec![1], None),
        ("zero", vec![0; 3], None),
        ("block_count", u32le(0), None),
        ("zero", vec![0; 4], None),
        ("the compact range of this segment's records", nodes.clone(), Some(168)),
        ("the hash of each whole block in the segment", Vec::new(), Some(168 + nodes.len())),
        (
            "index",
            [u64le(seq), u64le(offset), u64le(realtime_ns)].concat(),
            Some(168 + nodes.len()),
        ),
        ("a signed note", trailer.note.clone(), Some(168 + nodes.len() + 24)),
        ("footer magic GRAVENED", b"GRAVENED".to_vec(), Some(1024 - 16)),
        ("trailer_len again", u32le(1024), Some(1024 - 8)),
        ("crc again", crc(&bytes[12..1024 - 16]), Some(1024 - 4)),
    ];
    assert_values("trailer", &bytes, &expected);
}

#[test]
fn the_identity_is_as_in_its_table() {
    let created_realtime_ns = 0x1122_3344_5566_7788;
    let bytes = Identity { trail_id: TrailId([7; 16]), created_realtime_ns }.encode();
    let expected = [
        ("magic GRAVENID", b"GRAVENID".to_vec(), None),
        ("CRC-32 of the bytes after it", crc(&bytes[12..]), None),
        ("format version", u16le(1), None),
        ("zero", vec![0; 2], None),
        ("trail id", vec![7; 16], None),
        ("creation time", u64le(created_realtime_ns), None),
    ];
    assert_values("identity", &bytes, &expected);
}

#[test]
fn the_document_states_the_limits_of_the_code() {
    let limits: [(&str, u64); 19] = [
        ("FORMAT_VERSION", FORMAT_VERSION.into()),
        ("FEATURES_KNOWN", FEATURES_KNOWN.into()),
        ("RECORD_HEADER_BYTES", RECORD_HEADER_BYTES as u64),
        ("RECORD_PAYLOAD_BYTES_MAX", RECORD_PAYLOAD_BYTES_MAX as u64),
        ("FRAME_HEADER_BYTES", FRAME_HEADER_BYTES as u64),
        ("FRAME_BYTES_MAX", FRAME_BYTES_MAX as u64),
        ("FRAME_RECORDS_MAX", FRAME_RECORDS_MAX as u64),
        ("ALIGN_BYTES_MIN", ALIGN_BYTES_MIN.into()),
        ("ALIGN_BYTES_MAX", ALIGN_BYTES_MAX.into()),
        ("HOST_BYTES_MAX", HOST_BYTES_MAX as u64),
        ("PEAKS_MAX", PEAKS_MAX as u64),
        ("RANGE_NODES_MAX", RANGE_NODES_MAX as u64),
        ("BLOCK_LEVEL", BLOCK_LEVEL.into()),
        ("BLOCKS_MAX", BLOCKS_MAX as u64),
        ("NOTE_STORED_BYTES_MAX", NOTE_STORED_BYTES_MAX as u64),
        ("INDEX_STRIDE_BYTES", INDEX_STRIDE_BYTES),
        ("SEGMENT_BYTES_MIN", SEGMENT_BYTES_MIN),
        ("SEGMENT_BYTES_MAX", SEGMENT_BYTES_MAX),
        ("SEGMENT_BYTES_DEFAULT", SEGMENT_BYTES_DEFAULT),
    ];
    for (name, value) in limits {
        let row = format!("| `{name}` | {value} |");
        assert!(DOCUMENT.contains(&row), "docs/format.md lacks {row}");
    }
}

#[test]
fn the_document_names_every_source_flag_and_reason() {
    let sources = Source::ALL.map(|source| (source as u8, source.name()));
    let flags = [
        (Flags::LOSS.bits(), "LOSS"),
        (Flags::UNTERMINATED.bits(), "UNTERMINATED"),
        (Flags::CHECKPOINT.bits(), "CHECKPOINT"),
    ];
    let reasons = [SealReason::Full, SealReason::Stop, SealReason::Recovery]
        .map(|reason| (reason as u8, reason.name()));
    for (number, name) in sources.into_iter().chain(flags).chain(reasons) {
        let row = format!("| {number} | `{name}` |");
        assert!(DOCUMENT.contains(&row), "docs/format.md lacks {row}");
    }
}

#[test]
fn the_document_shows_the_loss_statement_of_the_module() {
    let source = include_str!("../../src/loss.rs");
    let example = source.lines().find_map(|line| line.strip_prefix("//! audit("));
    let example = format!("audit({}", example.expect("the module has an example"));
    LossStatement::parse(example.as_bytes()).expect("it is one");
    assert!(DOCUMENT.lines().any(|line| line == example), "docs/format.md lacks {example}");
    for cause in Cause::ALL {
        assert!(DOCUMENT.contains(&format!("`{}`", cause.name())), "{}", cause.name());
    }
}

/// Characters for one byte in a box.
const BYTE_CHARS: usize = 11;

/// The boxes of 8-byte rows that a layout table makes.
fn boxes(module: &str) -> String {
    let rule = format!("      +{}\n", format!("{:-<1$}+", "", BYTE_CHARS - 1).repeat(8));
    let mut text = rule.clone();
    let (mut line, mut line_at) = (String::new(), String::new());
    let mut used = 0;
    for row in rows(module) {
        let name = row.name();
        let (bytes, label) = match row.place() {
            Some((_, size)) if size <= 8 => (size, name),
            _ => (8, format!("{name}: {} bytes", row.size)),
        };
        if used == 0 {
            let at = row.offset.split(' ').next_back().unwrap_or_default();
            line_at = if row.offset.contains('−') { format!("−{at}") } else { at.to_string() };
        }
        let width = bytes * BYTE_CHARS - 1;
        assert!(label.chars().count() <= width, "{label}");
        let padded = if label.chars().count() < width { format!(" {label}") } else { label };
        let _ = write!(line, "{padded:<width$}|");
        used += bytes;
        assert!(used <= 8, "{module}: a field does not cross a row");
        if used == 8 {
            let _ = write!(text, "{line_at:>5} |{line}\n{rule}");
            line.clear();
            used = 0;
        }
    }
    assert_eq!(used, 0, "{module}: the last row is whole");
    text
}

#[test]
fn the_boxes_in_the_document_are_those_of_the_tables() {
    for module in ["identity", "segment", "frame", "record", "trailer"] {
        let boxes = boxes(module);
        assert!(DOCUMENT.contains(&boxes), "docs/format.md lacks the box of {module}:\n{boxes}");
    }
}
