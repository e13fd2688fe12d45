//! Segments made with the crate's own encoders, in the order and with the chains that the writer
//! gives them, and a reader that collects all that the scanner says.

use graven_format::consts::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, SEGMENT_BYTES_MIN};
use graven_format::frame::{self, FrameFields};
use graven_format::kind::TRUSTED_APP;
use graven_format::lines::{Head, origin};
use graven_format::merkle::{CompactRange, OneByOne, Scratch, SegmentTree, leaf_hash};
use graven_format::note::{Checkpoint, SecretKey};
use graven_format::recovery::Found;
use graven_format::scan::{Event, Expect, Outcome, Scanner};
use graven_format::segment::SegmentHeader;
use graven_format::trailer::{SealReason, Tally, TallyFrame, Trailer};
use graven_format::{Class, Finding, Flags, Record, Source, TrailId};
use graven_writer::codec::{Compressor, Reading};

pub(crate) const TRAIL: TrailId = TrailId(*b"the trail's id \x01");

/// A record that owns its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rec {
    pub(crate) source: Source,
    pub(crate) kind: u16,
    pub(crate) flags: Flags,
    pub(crate) realtime_ns: u64,
    pub(crate) boottime_ns: u64,
    pub(crate) source_seq: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Rec {
    pub(crate) fn record(&self) -> Record<'_> {
        let Self { source, kind, flags, realtime_ns, boottime_ns, source_seq, .. } = *self;
        Record { source, kind, flags, realtime_ns, boottime_ns, source_seq, bytes: &self.bytes }
    }

    /// As it stands in a frame.
    pub(crate) fn stored(&self) -> Vec<u8> {
        [&self.record().header()[..], &self.bytes].concat()
    }

    fn of(record: &Record<'_>) -> Self {
        let Record { source, kind, flags, realtime_ns, boottime_ns, source_seq, bytes } = *record;
        let bytes = bytes.to_vec();
        Self { source, kind, flags, realtime_ns, boottime_ns, source_seq, bytes }
    }
}

/// The `n`th of a row of records that differ, with `len` bytes of payload. The golden files are
/// made of these.
pub(crate) fn rec(n: u64, len: usize) -> Rec {
    Rec {
        source: Source::ALL[(n % 7) as usize],
        kind: 1300 + (n % 40) as u16,
        flags: Flags::NONE,
        realtime_ns: 1_700_000_000_000_000_000 + (n * 7919 % 1000) * 1_000_000,
        boottime_ns: 5_000_000_000 + n,
        source_seq: n,
        bytes: (0..len).map(|i| (i as u64 * 31 + n * 17 + 3) as u8).collect(),
    }
}

/// `count` records of about `len` bytes.
pub(crate) fn recs(from: u64, count: u64, len: usize) -> Vec<Rec> {
    (from..from + count).map(|n| rec(n, len + (n % 5) as usize)).collect()
}

/// Where a frame is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameAt {
    pub(crate) offset: usize,
    pub(crate) len: usize,
    pub(crate) first_seq: u64,
}

impl FrameAt {
    pub(crate) fn end(&self) -> usize {
        self.offset + self.len
    }
}

/// A segment while it is written.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    /// Header and frames.
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: Vec<Rec>,
    pub(crate) frames: Vec<FrameAt>,
    pub(crate) tally: Tally,
    pub(crate) tree: SegmentTree,
    /// What its trailer says of an earlier one.
    pub(crate) first_crc: Option<u32>,
    /// Who signs its trailer.
    pub(crate) key: Option<SecretKey>,
}

/// A checkpoint over all records of the trail up to the end of `segment`.
pub(crate) fn checkpoint(segment: &Segment, key: &SecretKey, next: Option<&SecretKey>) -> Rec {
    let head = Head {
        origin: origin(segment.header.trail_id),
        size: segment.next_seq(),
        root: segment.trailer(SealReason::Stop).root,
    };
    let successor = next.map(|key| key.public().clone());
    let checkpoint = Checkpoint { head, successor, sealed: None };
    Rec {
        source: Source::Graven,
        kind: TRUSTED_APP,
        flags: Flags::CHECKPOINT,
        bytes: key.sign(&checkpoint).into_bytes(),
        ..rec(segment.next_seq(), 0)
    }
}

impl Segment {
    pub(crate) fn with(header: SegmentHeader) -> Self {
        let (bytes, crc) = header.encode();
        Self {
            records: Vec::new(),
            frames: Vec::new(),
            tally: Tally::new(bytes.len() as u64, crc),
            tree: SegmentTree::new(header.first_seq),
            first_crc: None,
            key: None,
            bytes,
            header,
        }
    }

    /// Segment 0 of a trail.
    pub(crate) fn first(align_bytes: u32) -> Self {
        Self::with(SegmentHeader {
            crc: 0,
            align_bytes,
            prev_crc: 0,
            trail_id: TRAIL,
            segment: 0,
            first_seq: 0,
            segment_len: SEGMENT_BYTES_MIN,
            created_realtime_ns: 1_700_000_000_000_000_000,
            created_boottime_ns: 4_000_000_000,
            boot_id: *b"sixteen bytes id",
            host: b"host.example".to_vec(),
            epoch: 0,
            key: [0; 32],
            before: CompactRange::new(0),
        })
    }

    /// The segment after this one, when this one is sealed with `trailer`.
    pub(crate) fn successor(&self, trailer: &Trailer) -> Self {
        let mut before = self.header.before.clone();
        before.extend(&self.tree.range());
        let prev_crc = trailer.first_crc.unwrap_or(trailer.encode(self.header.align_bytes).1);
        Self::with(SegmentHeader {
            prev_crc,
            segment: self.header.segment + 1,
            first_seq: self.next_seq(),
            before,
            ..self.header.clone()
        })
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.header.first_seq + self.records.len() as u64
    }

    /// Appends one frame of `records`, formed when `announced` records were durable.
    pub(crate) fn frame(&mut self, records: &[Rec], announced: u64) -> &mut Self {
        self.frame_as(records, announced, None)
    }

    /// The same, compressed.
    pub(crate) fn frame_zstd(&mut self, records: &[Rec], announced: u64) -> &mut Self {
        let raw: Vec<u8> = records.iter().flat_map(Rec::stored).collect();
        let mut compressor = Compressor::new(3);
        let payload = compressor.compress(&raw, FRAME_BYTES_MAX - FRAME_HEADER_BYTES);
        let payload = payload.expect("records that are not noise").to_vec();
        self.frame_as(records, announced, Some(&payload))
    }

    /// The same, with this for a payload that is compressed.
    pub(crate) fn frame_as(
        &mut self,
        records: &[Rec],
        announced: u64,
        payload: Option<&[u8]>,
    ) -> &mut Self {
        let mut buf = vec![0xAA; FRAME_BYTES_MAX];
        let mut end = FRAME_HEADER_BYTES;
        for rec in records {
            end += rec.record().encode(&mut buf[end..]);
            let leaf = [leaf_hash(&rec.record())];
            self.tree.append_all(&leaf, &mut Scratch::default(), &mut OneByOne);
        }
        let first_seq = self.next_seq();
        let fields = FrameFields {
            record_count: records.len() as u32,
            prev_crc: self.tally.last_crc,
            trail_id: self.header.trail_id,
            segment: self.header.segment,
            first_seq,
            announced,
        };
        let align_bytes = self.header.align_bytes;
        let (len, crc) = match payload {
            Some(payload) => {
                let stored_end = FRAME_HEADER_BYTES + payload.len();
                buf[FRAME_HEADER_BYTES..stored_end].copy_from_slice(payload);
                let raw_len = end - FRAME_HEADER_BYTES;
                frame::seal_zstd(&mut buf, stored_end, align_bytes, &fields, raw_len)
            }
            None => frame::seal(&mut buf, end, align_bytes, &fields),
        };
        let times = || records.iter().map(|rec| rec.realtime_ns);
        let offset = self.bytes.len();
        self.tally.add(&TallyFrame {
            first_seq,
            offset: offset as u64,
            frame_len: len as u64,
            crc,
            record_count: records.len() as u64,
            record_bytes: (end - FRAME_HEADER_BYTES) as u64,
            realtime_first_ns: times().next().expect("a frame has a record"),
            realtime_min_ns: times().min().expect("a frame has a record"),
            realtime_max_ns: times().max().expect("a frame has a record"),
        });
        self.bytes.extend_from_slice(&buf[..len]);
        self.frames.push(FrameAt { offset, len, first_seq });
        self.records.extend_from_slice(records);
        self
    }

    pub(crate) fn trailer(&self, reason: SealReason) -> Trailer {
        let sealed_ns = 1_700_000_009_000_000_000;
        let new = Trailer::new(&self.header, self.tally.clone(), &self.tree, reason, sealed_ns);
        let mut trailer = Trailer { first_crc: self.first_crc, ..new };
        if let Some(key) = &self.key {
            let origin = origin(self.header.trail_id);
            let head = Head { origin, size: self.next_seq(), root: trailer.root };
            let sealed = Some(trailer.seal_hash(&self.header));
            trailer.note = key.sign(&Checkpoint { head, successor: None, sealed }).into_bytes();
        }
        trailer
    }

    /// Sealed by a clean stop: the trailer directly after the last frame.
    pub(crate) fn trimmed(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.extend_from_slice(&self.trailer(SealReason::Stop).encode(self.header.align_bytes).0);
        bytes
    }

    /// Sealed because it was full: zeros, then the trailer at the end of what was reserved.
    pub(crate) fn full(&self) -> Vec<u8> {
        let trailer = self.trailer(SealReason::Full).encode(self.header.align_bytes).0;
        let mut bytes = self.unsealed();
        let start = bytes.len() - trailer.len();
        assert!(start >= self.bytes.len(), "the writer keeps room for the trailer");
        bytes[start..].copy_from_slice(&trailer);
        bytes
    }

    /// Not sealed: zeros up to what was reserved.
    pub(crate) fn unsealed(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(self.header.segment_len as usize, 0);
        bytes
    }

    pub(crate) fn expect(&self) -> Expect {
        Expect {
            segment: self.header.segment,
            first_seq: self.header.first_seq,
            trail_id: Some(self.header.trail_id),
            merkle: true,
        }
    }
}

/// Three frames of a few records each at the smallest alignment: the segment most tests damage.
pub(crate) fn three_frames() -> Segment {
    let mut segment = Segment::first(512);
    segment.frame(&recs(0, 3, 100), 0);
    segment.frame(&recs(3, 5, 200), 3);
    segment.frame(&recs(8, 2, 40), 8);
    segment
}

/// All that the scanner says of a segment.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// Every event as text: what two readings of the same bytes must have in common.
    pub(crate) events: Vec<String>,
    pub(crate) records: Vec<(u64, Rec)>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) outcome: Outcome,
    /// Most bytes that the scanner held.
    pub(crate) buffer_bytes: usize,
}

impl Scanned {
    /// The worst class among the findings, when the segment is the trail's last.
    pub(crate) fn worst(&self) -> Option<Class> {
        self.findings.iter().map(|finding| finding.class(self.outcome.announced, true)).max()
    }

    pub(crate) fn found(self, expect: &Expect) -> Found {
        let Self { findings, outcome, .. } = self;
        Found { segment: expect.segment, first_seq: expect.first_seq, findings, outcome }
    }
}

/// Reads `bytes` in pushes whose lengths are those of `chunks`, over and over.
pub(crate) fn scan_in(bytes: &[u8], expect: Expect, chunks: &[usize]) -> Scanned {
    let mut scanner = Scanner::with_hashing(expect, Reading::new());
    let (mut events, mut records, mut findings) = (Vec::new(), Vec::new(), Vec::new());
    let mut buffer_bytes = 0;
    let mut drain = |scanner: &mut Scanner<Reading>| {
        while let Some(event) = scanner.next_event() {
            events.push(format!("{event:?}"));
            match event {
                Event::Record { seq, record, .. } => records.push((seq, Rec::of(&record))),
                Event::Finding(finding) => findings.push(finding),
                Event::Header(_) | Event::Frame { .. } | Event::Trailer(_) => {}
            }
        }
        buffer_bytes = buffer_bytes.max(scanner.buffer_bytes());
    };
    let mut left = bytes;
    let mut chunks = chunks.iter().cycle();
    while !left.is_empty() {
        let (chunk, rest) = left.split_at(left.len().min(*chunks.next().expect("one chunk")));
        scanner.push(chunk);
        drain(&mut scanner);
        left = rest;
    }
    scanner.end();
    drain(&mut scanner);
    Scanned { events, records, findings, outcome: scanner.outcome(), buffer_bytes }
}

/// Reads `bytes` in pushes of 64 KiB.
pub(crate) fn scan(bytes: &[u8], expect: Expect) -> Scanned {
    scan_in(bytes, expect, &[64 * 1024])
}

/// Writes a frame's CRC again after a field was changed.
pub(crate) fn fix_frame_crc(frame: &mut [u8]) {
    let crc = graven_format::checksum::crc32(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Writes a segment header's CRC again after a field was changed.
pub(crate) fn fix_header_crc(header: &mut [u8]) {
    let crc = graven_format::checksum::crc32(&header[12..]);
    header[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// Writes both CRCs of a trailer again after a field was changed.
pub(crate) fn fix_trailer_crc(trailer: &mut [u8]) {
    let footer = trailer.len() - 16;
    let crc = graven_format::checksum::crc32(&trailer[12..footer]).to_le_bytes();
    trailer[8..12].copy_from_slice(&crc);
    trailer[footer + 12..].copy_from_slice(&crc);
}
