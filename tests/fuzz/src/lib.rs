//! What must hold for every input. The fuzz targets call these functions, and so does a test that
//! runs the kept corpus with the stable compiler.

use graven_format::checksum::crc32;
use graven_format::consts::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, SEGMENT_BYTES_MIN};
use graven_format::cosignature::{Cosigned, TIME_S_MAX, WitnessKey};
use graven_format::frame::{FrameFields, seal_zstd};
use graven_format::loss::LossStatement;
use graven_format::merkle::CompactRange;
use graven_format::note::{NOTE_BYTES_MAX, Note, PublicKey, SIGNATURES_MAX, SecretKey, Signed};
use graven_format::proof::text::Document;
use graven_format::recovery::{Action, Found, Label, decide};
use graven_format::scan::{Event, Expect, Outcome, Scanner};
use graven_format::segment::SegmentHeader;
use graven_format::signer::Signer;
use graven_format::trailer::{SealReason, Trailer};
use graven_format::{Finding, TrailId};
use graven_writer::codec::Reading;

/// Bits of an input's first byte.
pub const KNOWN_TRAIL: u8 = 1;
/// Whether leaves are hashed.
pub const MERKLE: u8 = 2;
/// Whether checksums are made right first, so that what is behind them is reached.
pub const FIX_CRCS: u8 = 4;
/// Whether files are filled with zeros up to the smallest segment.
pub const FILL: u8 = 8;

/// The trail of the kept corpus.
pub const TRAIL: TrailId = TrailId([
    0x10, 0x21, 0x32, 0x43, 0x54, 0x65, 0x76, 0x87, 0x98, 0xA9, 0xBA, 0xCB, 0xDC, 0xED, 0xFE, 0x0F,
]);

/// The witness of the kept corpus: a public one.
pub const WITNESS: &str = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";

/// Longest file made of an input: more only makes each run slower.
const FILE_BYTES_MAX: usize = 2 * SEGMENT_BYTES_MIN as usize;

/// The reader: an input is flags, the length of a push, and a file.
///
/// # Panics
/// If something does not hold.
pub fn scan(input: &[u8]) {
    let [flags, push, file @ ..] = input else { return };
    let file = prepared(*flags, file);
    let push = 1 + usize::from(*push) * 16;
    let expect = expect(*flags, &file);
    let (events, findings, outcome) = read(&file, expect, push);
    let (again, ..) = read(&file, expect, file.len().max(1));
    assert!(events == again, "the same bytes say the same, however they are pushed");
    for finding in &findings {
        assert!(finding.offset + finding.len <= file.len() as u64, "{finding:?}");
    }
    if findings.is_empty() {
        let header = outcome.header.expect("a file without findings has a header");
        assert_eq!(outcome.end_seq, outcome.prefix.next_seq);
        assert_eq!(header.first_seq + outcome.prefix.tally.record_count, outcome.end_seq);
        if let Some(trailer) = outcome.trailer {
            assert_eq!(trailer.tally, outcome.prefix.tally);
        }
    }
}

/// The records of a compressed frame: an input is the length and number of records that are stated,
/// and what is compressed. All else of the file is as it should be.
///
/// # Panics
/// If something does not hold.
pub fn compressed(input: &[u8]) {
    let [a, b, c, d, low, high, payload @ ..] = input else { return };
    let file = compressed_file(
        u32::from_le_bytes([*a, *b, *c, *d]),
        u16::from_le_bytes([*low, *high]).into(),
        &payload[..payload.len().min(FRAME_BYTES_MAX / 2)],
    );
    let expect = Expect { merkle: true, ..expect(KNOWN_TRAIL, &file) };
    let (events, findings, outcome) = read(&file, expect, 64 * 1024);
    let (again, ..) = read(&file, expect, 1000);
    assert!(events == again, "the same bytes say the same, however they are pushed");
    if findings.is_empty() {
        let tally = outcome.prefix.tally;
        assert_eq!((tally.frame_count, tally.record_count), (1, outcome.end_seq));
        assert_eq!(tally.record_bytes, u64::from(u32::from_le_bytes([*a, *b, *c, *d])));
    }
}

/// A segment, not sealed, of one frame of codec 1.
#[must_use]
pub fn compressed_file(raw_len: u32, record_count: u32, payload: &[u8]) -> Vec<u8> {
    let (header, prev_crc) = SegmentHeader {
        crc: 0,
        align_bytes: 512,
        prev_crc: 0,
        trail_id: TRAIL,
        segment: 0,
        first_seq: 0,
        segment_len: SEGMENT_BYTES_MIN,
        created_realtime_ns: 0,
        created_boottime_ns: 0,
        boot_id: [0; 16],
        host: Vec::new(),
        epoch: 0,
        key: [0; 32],
        before: CompactRange::new(0),
    }
    .encode();
    let mut frame = vec![0; FRAME_BYTES_MAX];
    let end = FRAME_HEADER_BYTES + payload.len().max(1);
    frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + payload.len()].copy_from_slice(payload);
    let (trail_id, segment, first_seq, announced) = (TRAIL, 0, 0, 0);
    let fields = FrameFields { record_count: 1, prev_crc, trail_id, segment, first_seq, announced };
    let (len, _) = seal_zstd(&mut frame, end, 512, &fields, 32);
    frame.truncate(len);
    frame[16..20].copy_from_slice(&raw_len.to_le_bytes());
    frame[20..24].copy_from_slice(&record_count.to_le_bytes());
    let crc = crc32(&frame[8..]).to_le_bytes();
    frame[4..8].copy_from_slice(&crc);
    let mut file = [header, frame].concat();
    file.resize(SEGMENT_BYTES_MIN as usize, 0);
    file
}

/// Recovery: an input is flags, the first file's length (two bytes), and two files.
///
/// # Panics
/// If something does not hold.
pub fn recovery(input: &[u8]) {
    let [flags, low, high, files @ ..] = input else { return };
    let split = usize::from(u16::from_le_bytes([*low, *high])).min(files.len());
    let (before, last) = files.split_at(split);
    let (before, last) = (prepared(*flags, before), prepared(*flags, last));
    let last_found = found(*flags, &last);
    if let Ok(decision) = decide(None, Some(&last_found)) {
        carry_out(*flags, last.clone(), &last_found.outcome, &decision.action);
    }
    let before_found = found(*flags, &before);
    if let Ok(decision) = decide(Some(&before_found), Some(&last_found)) {
        let (file, found) =
            if decision.remove_orphan { (before, before_found) } else { (last, last_found) };
        carry_out(*flags, file, &found.outcome, &decision.action);
    }
}

/// A record's payload that may be a loss statement.
///
/// # Panics
/// If something does not hold.
pub fn loss(input: &[u8]) {
    if let Ok((statement, at_ns)) = LossStatement::parse(input) {
        assert_eq!(statement.encode(at_ns), input, "a statement has one encoding");
    }
}

/// The text of a proof.
///
/// # Panics
/// If something does not hold.
pub fn proof(input: &[u8]) {
    if let Ok(document) = Document::parse(input) {
        assert_eq!(document.to_string().as_bytes(), input, "a proof has one text");
        // Whether it does is up to the input; that it is decided is not.
        let _ = document.holds();
    }
}

/// Notes one behind the other, or a key.
///
/// # Panics
/// If something does not hold.
pub fn note(input: &[u8]) {
    let key = SecretKey::from_seed("graven/102132435465768798a9bacbdcedfe0f", &[1; 32]);
    let key = key.expect("a key").public().clone();
    let witness = WitnessKey::parse(WITNESS).expect("a key");
    let (mut left, mut lines) = (input, 1);
    while let Ok((note, rest, line)) = Note::parse_first(left) {
        let text = &left[..left.len() - rest.len()];
        assert!(text.len() <= NOTE_BYTES_MAX && !text.is_empty());
        assert_eq!(Note::parse(text).as_ref(), Ok(&note), "a note is the same alone");
        assert!(note.signers().count() <= SIGNATURES_MAX);
        let claims = note.signers().filter(|signer| *signer == (key.name(), key.id())).count();
        assert_eq!(note.verify(&key) == Signed::No, claims == 0, "what it claims is looked at");
        let claims = note.signers().filter(|signer| *signer == (witness.name(), witness.id()));
        match note.cosigned(&witness) {
            Cosigned::No => assert_eq!(claims.count(), 0, "what it claims is looked at"),
            Cosigned::Forged(line) => assert!((5..lines_of(text)).contains(&line)),
            Cosigned::At(time_s) => assert!((1..=TIME_S_MAX).contains(&time_s)),
        }
        for line in note.cosignatures(&witness) {
            assert!(text.windows(line.len()).any(|bytes| bytes == line.as_bytes()));
        }
        let mut signer = Signer { epoch: u64::MAX, key: Some(key.clone()) };
        let _ = signer.follow(note.checkpoint.clone());
        lines += line - 1;
        left = rest;
    }
    assert!(lines <= lines_of(input));
    let Ok(text) = core::str::from_utf8(input) else { return };
    if let Ok(key) = PublicKey::parse(text) {
        assert_eq!(PublicKey::parse(&key.to_string()), Ok(key));
    }
    if let Ok(key) = WitnessKey::parse(text) {
        assert_eq!(WitnessKey::parse(&key.to_string()), Ok(key));
    }
    if let Ok(key) = SecretKey::parse(text) {
        let again = SecretKey::parse(&key.to_text()).expect("its own text");
        assert_eq!(again.public(), key.public());
    }
}

/// The number of the line that comes after these.
fn lines_of(text: &[u8]) -> usize {
    1 + text.iter().filter(|byte| **byte == b'\n').count()
}

/// A trailer, its index and hashes: an input is flags and its bytes.
///
/// # Panics
/// If something does not hold.
pub fn trailer(input: &[u8]) {
    let [flags, bytes @ ..] = input else { return };
    let bytes = prepared(flags & !FILL, bytes);
    let Ok(trailer) = Trailer::decode(&bytes) else { return };
    let place = trailer.first_seq..trailer.end_seq();
    let mut before = None;
    for (start, level, _) in trailer.subtrees() {
        let end = start.checked_add(1 << level).expect("no leaf is behind the last");
        assert!(place.start <= start && end <= place.end && start % (1 << level) == 0);
        let order = (start, core::cmp::Reverse(level));
        assert!(before < Some(order), "in order, and each once");
        before = Some(order);
    }
    // With another padding than the smallest it is not written again, and is as good.
    let encoded = [512, 1024, 2048, 4096].map(|align_bytes| trailer.encode(align_bytes).0);
    for encoded in encoded.iter().filter(|encoded| encoded.len() == bytes.len()) {
        assert!(*encoded == bytes, "a trailer has one encoding");
    }
}

/// Does what was decided and asserts that then nothing is left to do.
fn carry_out(flags: u8, mut file: Vec<u8>, outcome: &Outcome, action: &Action) {
    match action {
        Action::None | Action::Remove => return,
        Action::Trim(len) => file.truncate(*len as usize),
        Action::Seal(prefix) => {
            let header = outcome.header.as_ref().expect("what is sealed has a header");
            let tree = prefix.tree.as_ref().expect("read with hashes");
            let trailer = Trailer::new(header, prefix.tally.clone(), tree, SealReason::Recovery, 0);
            let (bytes, _) = trailer.encode(header.align_bytes);
            file.truncate(prefix.tally.frames_end as usize);
            file.extend_from_slice(&bytes);
        }
    }
    let found = found(flags & !FIX_CRCS, &file);
    assert_eq!(found.findings, [], "carried out, it is intact");
    let again = decide(None, Some(&found)).expect("carried out, it is in the table");
    assert_eq!(again.label, Label::Sealed);
}

fn found(flags: u8, file: &[u8]) -> Found {
    let expect = Expect { merkle: true, ..expect(flags, file) };
    let (_, findings, outcome) = read(file, expect, 64 * 1024);
    Found { segment: expect.segment, first_seq: expect.first_seq, findings, outcome }
}

/// All events as text, the findings, and the outcome.
fn read(file: &[u8], expect: Expect, push: usize) -> (Vec<String>, Vec<Finding>, Outcome) {
    let (mut events, mut findings) = (Vec::new(), Vec::new());
    let mut scanner = Scanner::with_hashing(expect, Reading::new());
    let mut drain = |scanner: &mut Scanner<Reading>| {
        while let Some(event) = scanner.next_event() {
            events.push(format!("{event:?}"));
            if let Event::Finding(finding) = event {
                assert!(!finding.to_string().is_empty());
                findings.push(finding);
            }
        }
    };
    for bytes in file.chunks(push) {
        scanner.push(bytes);
        drain(&mut scanner);
        let bytes_max = 2 * (push + FRAME_BYTES_MAX) + FRAME_BYTES_MAX;
        assert!(scanner.buffer_bytes() <= bytes_max, "memory is bounded");
    }
    scanner.end();
    drain(&mut scanner);
    (events, findings, scanner.outcome())
}

/// What a file of this header would be named.
fn expect(flags: u8, file: &[u8]) -> Expect {
    let number = |at: usize| {
        let bytes = file.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    Expect {
        segment: number(48),
        first_seq: number(56),
        trail_id: (flags & KNOWN_TRAIL != 0).then_some(TRAIL),
        merkle: flags & MERKLE != 0,
    }
}

fn prepared(flags: u8, file: &[u8]) -> Vec<u8> {
    let mut file = file[..file.len().min(FILE_BYTES_MAX)].to_vec();
    if flags & FIX_CRCS != 0 {
        fix_crcs(&mut file);
    }
    if flags & FILL != 0 && !file.is_empty() {
        file.resize(file.len().max(SEGMENT_BYTES_MIN as usize), 0);
    }
    file
}

/// Makes right the checksum of whatever seems to start at an aligned offset.
fn fix_crcs(file: &mut [u8]) {
    let length_at = |bytes: &[u8], at: usize| {
        let field = bytes.get(at..at + 4)?;
        let len = u32::from_le_bytes(field.try_into().ok()?) as usize;
        (64..=FRAME_BYTES_MAX.min(bytes.len())).contains(&len).then_some(len)
    };
    for start in (0..file.len()).step_by(512) {
        let here = &mut file[start..];
        if here.starts_with(b"GRVF")
            && let Some(len) = length_at(here, 8)
        {
            let crc = crc32(&here[8..len]).to_le_bytes();
            here[4..8].copy_from_slice(&crc);
        } else if here.starts_with(b"GRAVENSG")
            && let Some(len) = length_at(here, 20)
        {
            let crc = crc32(&here[12..len]).to_le_bytes();
            here[8..12].copy_from_slice(&crc);
        } else if here.starts_with(b"GRAVENTR")
            && let Some(len) = length_at(here, 12)
        {
            let crc = crc32(&here[12..len - 16]).to_le_bytes();
            here[8..12].copy_from_slice(&crc);
            here[len - 4..len].copy_from_slice(&crc);
        }
    }
}
