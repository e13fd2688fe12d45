//! A trail taken apart into its records, and put together again by the format's own encoders: what
//! somebody with the program, and with a key or without, can make of it.

use graven_format::consts::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES};
use graven_format::frame::{self, FrameFields};
use graven_format::lines::{Head, origin};
use graven_format::merkle::{CompactRange, OneByOne, Scratch, SegmentTree, leaf_hash_stored};
use graven_format::note::{Checkpoint, Note, PublicKey, SecretKey};
use graven_format::scan::{Event, Expect, Scanner};
use graven_format::segment::SegmentHeader;
use graven_format::trailer::{SealReason, Tally, TallyFrame, Trailer};
use graven_format::{Flags, Record, Source, kind, name};
use graven_writer::codec::Reading;
use std::ops::Range;

/// The files of a trail: its identity and its segments, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Name and content, sorted by name.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A record as it is stored, and what to do with it when the trail is made anew.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Header and payload.
    pub bytes: Vec<u8>,
    /// Of a checkpoint: the epoch whose key has signed it, and the next key.
    pub note: Option<(usize, Option<PublicKey>)>,
}

/// A segment's records, in frames.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The header as it was: what depends on other segments is computed again.
    pub header: SegmentHeader,
    /// The records of each frame.
    pub frames: Vec<Vec<Stored>>,
    /// Why it was sealed, and when.
    pub reason: (SealReason, u64),
    /// The trailer's note, and the epoch whose key has signed it.
    pub note: (Vec<u8>, usize),
}

/// A trail, every segment of it sealed.
#[derive(Clone, Debug)]
pub struct Model {
    /// The file `identity`.
    pub identity: Vec<u8>,
    /// Its segments, oldest first.
    pub segments: Vec<Segment>,
}

/// Where something stands in a segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the file in [`Image::files`].
    pub file: usize,
    /// The bytes of the frame, the header, or the trailer.
    pub bytes: Range<usize>,
}

impl Model {
    /// Takes an intact trail apart.
    ///
    /// # Panics
    /// If it is not intact and sealed.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let (mut identity, mut segments) = (Vec::new(), Vec::new());
        for (file, bytes) in &image.files {
            match name::Name::parse(file) {
                Some(name::Name::Segment { segment, first_seq }) => {
                    let expect = Expect { segment, first_seq, trail_id: None, merkle: true };
                    segments.push(read(expect, bytes));
                }
                _ => identity.clone_from(bytes),
            }
        }
        Self { identity, segments }
    }

    /// Every record, with its place: segment, frame, index.
    pub fn records(&self) -> impl Iterator<Item = ((usize, usize, usize), &Stored)> {
        self.segments.iter().enumerate().flat_map(|(s, segment)| {
            segment.frames.iter().enumerate().flat_map(move |(f, frame)| {
                frame.iter().enumerate().map(move |(r, record)| ((s, f, r), record))
            })
        })
    }

    /// Makes checkpoints: one ends each second frame, the trailers have one, and `keys` follow each
    /// other at every third checkpoint.
    pub fn sign(&mut self, keys: &[SecretKey]) {
        let (mut epoch, mut frames) = (0, 0);
        for segment in &mut self.segments {
            segment.header.epoch = epoch as u64;
            segment.header.key = keys[epoch].public().bytes();
            for frame in &mut segment.frames {
                frames += 1;
                if frames % 2 == 1 {
                    continue;
                }
                let next = keys.get(epoch + 1).filter(|_| frames % 6 == 0);
                frame.push(checkpoint(epoch, next.map(|key| key.public().clone())));
                epoch += usize::from(next.is_some());
            }
            segment.note = (b"to be signed".to_vec(), epoch);
        }
    }

    /// Takes every signature and key away.
    pub fn strip(&mut self) {
        for segment in &mut self.segments {
            (segment.header.epoch, segment.header.key) = (0, [0; 32]);
            segment.note.0.clear();
            segment.frames.iter_mut().for_each(|frame| frame.retain(|it| it.note.is_none()));
            segment.frames.retain(|frame| !frame.is_empty());
        }
    }

    /// The trail's files: every length, checksum, hash and name as the writer would make them. A
    /// note is signed again where `key_of` knows its epoch's key, and stays what it was elsewhere.
    #[must_use]
    pub fn encode<'a>(&self, key_of: impl Fn(usize) -> Option<&'a SecretKey>) -> Image {
        let mut files = Vec::new();
        let (mut before, mut prev_crc) = (CompactRange::new(0), 0);
        for (number, segment) in (0..).zip(&self.segments) {
            let header = SegmentHeader {
                segment: number,
                first_seq: before.end(),
                prev_crc,
                before: before.clone(),
                ..segment.header.clone()
            };
            let name = name::segment(number, header.first_seq);
            let (bytes, crc, range) = encode(segment, header, &key_of);
            before.extend(&range);
            prev_crc = crc;
            files.push((name, bytes));
        }
        files.push((name::IDENTITY.to_owned(), self.identity.clone()));
        files.sort();
        Image { files }
    }
}

/// A checkpoint whose text is made when it is signed.
fn checkpoint(epoch: usize, successor: Option<PublicKey>) -> Stored {
    let record = Record {
        source: Source::Graven,
        kind: kind::TRUSTED_APP,
        flags: Flags::CHECKPOINT,
        realtime_ns: 1_700_000_000_000_000_000,
        boottime_ns: 1,
        source_seq: 0,
        bytes: b"",
    };
    Stored { bytes: record.header().to_vec(), note: Some((epoch, successor)) }
}

fn read(expect: Expect, bytes: &[u8]) -> Segment {
    let mut scanner = Scanner::with_hashing(expect, Reading::new());
    scanner.push(bytes);
    scanner.end();
    let mut frames: Vec<Vec<Stored>> = Vec::new();
    let mut epoch = 0;
    while let Some(event) = scanner.next_event() {
        match event {
            Event::Frame { .. } => frames.push(Vec::new()),
            Event::Record { record, .. } => {
                let stored = [&record.header()[..], record.bytes].concat();
                let mut note = None;
                if record.flags.contains(Flags::CHECKPOINT) {
                    let successor = Note::parse(record.bytes).expect("a note").checkpoint.successor;
                    note = Some((epoch, successor.clone()));
                    epoch += usize::from(successor.is_some());
                }
                let frame = frames.last_mut().expect("records follow their frame");
                frame.push(Stored { bytes: stored, note });
            }
            Event::Finding(finding) => panic!("not intact: {finding}"),
            Event::Header(header) => epoch = header.epoch as usize,
            Event::Trailer(_) => {}
        }
    }
    let outcome = scanner.outcome();
    let trailer = outcome.trailer.expect("sealed");
    Segment {
        header: outcome.header.expect("a header"),
        frames,
        reason: (trailer.reason, trailer.sealed_realtime_ns),
        note: (trailer.note, epoch),
    }
}

/// A segment's bytes, its trailer's checksum, and the compact range of its records.
fn encode<'a>(
    segment: &Segment,
    header: SegmentHeader,
    key_of: impl Fn(usize) -> Option<&'a SecretKey>,
) -> (Vec<u8>, u32, CompactRange) {
    let (mut file, crc) = header.encode();
    let mut tally = Tally::new(file.len() as u64, crc);
    let mut tree = SegmentTree::new(header.first_seq);
    let origin = origin(header.trail_id);
    let sign = |tree: &SegmentTree, epoch: usize, successor, sealed| {
        let mut whole = header.before.clone();
        whole.extend(&tree.range());
        let root = whole.root().expect("from 0 on");
        let head = Head { origin: origin.clone(), size: tree.end(), root };
        key_of(epoch).map(|key| key.sign(&Checkpoint { head, successor, sealed }).into_bytes())
    };
    for frame in &segment.frames {
        let first_seq = tree.end();
        let mut buf = vec![0; FRAME_BYTES_MAX];
        let mut end = FRAME_HEADER_BYTES;
        let mut times = Vec::new();
        for stored in frame {
            let mut bytes = stored.bytes.clone();
            if let Some((epoch, successor)) = &stored.note
                && let Some(note) = sign(&tree, *epoch, successor.clone(), None)
            {
                bytes.truncate(RECORD_HEADER_BYTES);
                bytes[..4].copy_from_slice(&(note.len() as u32).to_le_bytes());
                bytes.extend(note);
            }
            buf[end..end + bytes.len()].copy_from_slice(&bytes);
            end += bytes.len();
            let leaf = [leaf_hash_stored(&bytes)];
            tree.append_all(&leaf, &mut Scratch::default(), &mut OneByOne);
            times.push(Record::decode(&bytes).map_or(0, |(record, _)| record.realtime_ns));
        }
        let fields = FrameFields {
            record_count: frame.len() as u32,
            prev_crc: tally.last_crc,
            trail_id: header.trail_id,
            segment: header.segment,
            first_seq,
            announced: first_seq,
        };
        let (len, crc) = frame::seal(&mut buf, end, header.align_bytes, &fields);
        tally.add(&TallyFrame {
            first_seq,
            offset: file.len() as u64,
            frame_len: len as u64,
            crc,
            record_count: frame.len() as u64,
            record_bytes: (end - FRAME_HEADER_BYTES) as u64,
            realtime_first_ns: times[0],
            realtime_min_ns: times.iter().copied().min().expect("a frame has a record"),
            realtime_max_ns: times.iter().copied().max().expect("a frame has a record"),
        });
        file.extend_from_slice(&buf[..len]);
    }
    let (reason, sealed_ns) = segment.reason;
    let (note, epoch) = &segment.note;
    let mut trailer = Trailer::new(&header, tally, &tree, reason, sealed_ns);
    trailer.note = note.clone();
    if !note.is_empty()
        && let Some(signed) = sign(&tree, *epoch, None, Some(trailer.seal_hash(&header)))
    {
        trailer.note = signed;
    }
    let (bytes, crc) = trailer.encode(header.align_bytes);
    file.extend(bytes);
    (file, crc, tree.range())
}

impl Image {
    /// Where header, frames and trailer of a segment's file are.
    #[must_use]
    pub fn places(&self, file: usize) -> Vec<Place> {
        let (name, bytes) = &self.files[file];
        let Some(name::Name::Segment { segment, first_seq }) = name::Name::parse(name) else {
            return vec![Place { file, bytes: 0..bytes.len() }];
        };
        let expect = Expect { segment, first_seq, trail_id: None, merkle: false };
        let mut scanner = Scanner::with_hashing(expect, Reading::new());
        scanner.push(bytes);
        scanner.end();
        let mut starts = vec![0];
        while let Some(event) = scanner.next_event() {
            if let Event::Frame { offset, .. } = event {
                starts.push(offset as usize);
            }
        }
        starts.push(scanner.outcome().prefix.tally.frames_end as usize);
        starts.push(bytes.len());
        starts.windows(2).map(|pair| Place { file, bytes: pair[0]..pair[1] }).collect()
    }

    /// Indexes of the segments' files.
    #[must_use]
    pub fn segments(&self) -> Vec<usize> {
        let is_segment = |index: &usize| self.files[*index].0.ends_with(".seg");
        (0..self.files.len()).filter(is_segment).collect()
    }
}
