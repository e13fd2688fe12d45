//! Trails made by hand with the format's own encoders, so that each test says byte for byte what
//! the command has in front of it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

use graven_format::consts::{FRAME_HEADER_BYTES, SEGMENT_BYTES_MIN};
use graven_format::frame::{self, FrameFields};
use graven_format::identity::Identity;
use graven_format::kind::TRUSTED_APP;
use graven_format::lines::{Head, origin};
use graven_format::loss::{Cause, Certainty, LossStatement};
use graven_format::merkle::{CompactRange, Hash, OneByOne, Scratch, SegmentTree, leaf_hash};
use graven_format::note::{Checkpoint, PublicKey, SecretKey};
use graven_format::segment::SegmentHeader;
use graven_format::trailer::{SealReason, Tally, TallyFrame, Trailer};
use graven_format::{Flags, Record, Source, TrailId, name};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

pub const ALIGN_BYTES: u32 = 4096;
pub const TIME_NS: u64 = 1_763_759_789_000_000_000;

/// A frame as it was written.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub offset: u64,
    pub len: u64,
    pub first_seq: u64,
}

/// A segment as it was written.
#[derive(Clone, Debug)]
pub struct Segment {
    pub path: PathBuf,
    pub frames: Vec<Frame>,
    pub trailer_offset: Option<u64>,
}

struct Open {
    file: File,
    header: SegmentHeader,
    tally: Tally,
    tree: SegmentTree,
    next_offset: u64,
}

/// A trail that is being made.
pub struct Maker {
    pub dir: tempfile::TempDir,
    pub trail_id: TrailId,
    pub segments: Vec<Segment>,
    pub next_seq: u64,
    /// What the next frame says was announced; what came before it unless set.
    pub announced: Option<u64>,
    whole: CompactRange,
    leaves: Vec<Hash>,
    /// Every record as it is stored.
    pub stored: Vec<Vec<u8>>,
    prev_crc: u32,
    /// How many keys came before [`Maker::key`].
    pub epoch: u64,
    /// Signs headers, checkpoints and trailers from here on; nothing is signed without.
    pub key: Option<SecretKey>,
    /// The boot of the next segment.
    pub boot_id: [u8; 16],
    open: Option<Open>,
}

impl Maker {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let trail_id = TrailId(*b"0123456789abcdef");
        let identity = Identity { trail_id, created_realtime_ns: TIME_NS };
        std::fs::write(dir.path().join(name::IDENTITY), identity.encode()).expect("identity");
        Self {
            dir,
            trail_id,
            segments: Vec::new(),
            next_seq: 0,
            announced: None,
            whole: CompactRange::new(0),
            leaves: Vec::new(),
            stored: Vec::new(),
            prev_crc: 0,
            epoch: 0,
            key: None,
            boot_id: [7; 16],
            open: None,
        }
    }

    /// `segments` sealed segments of `frames` frames of three records each.
    pub fn sealed(segments: usize, frames: usize) -> Self {
        let mut maker = Self::new();
        for _ in 0..segments {
            maker.frames(frames);
            maker.seal(SealReason::Full);
        }
        maker
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn begin(&mut self) {
        let header = SegmentHeader {
            crc: 0,
            align_bytes: ALIGN_BYTES,
            prev_crc: self.prev_crc,
            trail_id: self.trail_id,
            segment: self.segments.len() as u64,
            first_seq: self.next_seq,
            segment_len: SEGMENT_BYTES_MIN,
            created_realtime_ns: TIME_NS,
            created_boottime_ns: 1,
            boot_id: self.boot_id,
            host: b"host".to_vec(),
            epoch: self.epoch,
            key: self.key.as_ref().map_or([0; 32], |key| key.public().bytes()),
            before: self.whole.clone(),
        };
        let (bytes, crc) = header.encode();
        let path = self.path().join(name::segment(header.segment, header.first_seq));
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .read(true)
            .open(&path)
            .expect("a segment");
        file.set_len(SEGMENT_BYTES_MIN).expect("room");
        file.write_all_at(&bytes, 0).expect("the header");
        self.segments.push(Segment { path, frames: Vec::new(), trailer_offset: None });
        self.open = Some(Open {
            file,
            tally: Tally::new(bytes.len() as u64, crc),
            tree: SegmentTree::new(header.first_seq),
            next_offset: bytes.len() as u64,
            header,
        });
    }

    /// One frame of these records.
    pub fn frame(&mut self, records: &[Record<'_>]) {
        if self.open.is_none() {
            self.begin();
        }
        let announced = self.announced.unwrap_or(self.next_seq);
        let open = self.open.as_mut().expect("a segment");
        let mut buf = vec![0; graven_format::consts::FRAME_BYTES_MAX];
        let mut end = FRAME_HEADER_BYTES;
        for record in records {
            let start = end;
            end += record.encode(&mut buf[end..]);
            self.stored.push(buf[start..end].to_vec());
            let leaf = leaf_hash(record);
            open.tree.append_all(&[leaf], &mut Scratch::default(), &mut OneByOne);
            self.whole.append(leaf);
            self.leaves.push(leaf);
        }
        let fields = FrameFields {
            record_count: records.len() as u32,
            prev_crc: open.tally.last_crc,
            trail_id: self.trail_id,
            segment: open.header.segment,
            first_seq: self.next_seq,
            announced,
        };
        let (len, crc) = frame::seal(&mut buf, end, ALIGN_BYTES, &fields);
        open.file.write_all_at(&buf[..len], open.next_offset).expect("a frame");
        let times = || records.iter().map(|record| record.realtime_ns);
        open.tally.add(&TallyFrame {
            first_seq: self.next_seq,
            offset: open.next_offset,
            frame_len: len as u64,
            crc,
            record_count: records.len() as u64,
            record_bytes: (end - FRAME_HEADER_BYTES) as u64,
            realtime_first_ns: records[0].realtime_ns,
            realtime_min_ns: times().min().expect("a record"),
            realtime_max_ns: times().max().expect("a record"),
        });
        let frame = Frame { offset: open.next_offset, len: len as u64, first_seq: self.next_seq };
        self.segments.last_mut().expect("a segment").frames.push(frame);
        open.next_offset += len as u64;
        self.next_seq += records.len() as u64;
    }

    /// What a checkpoint over all records so far says.
    fn head(&self, successor: Option<PublicKey>) -> Checkpoint {
        let root = self.whole.root().expect("from 0 on");
        let head = Head { origin: origin(self.trail_id), size: self.next_seq, root };
        Checkpoint { head, successor, sealed: None }
    }

    /// The root over the first `size` records, made of the leaves alone.
    pub fn root(&self, size: u64) -> Hash {
        let mut range = CompactRange::new(0);
        self.leaves[..size as usize].iter().for_each(|leaf| range.append(*leaf));
        range.root().expect("from 0 on")
    }

    /// The key of this seed: two trails of the same seeds have the same keys.
    pub fn secret(&self, seed: u8) -> SecretKey {
        SecretKey::from_seed(&origin(self.trail_id), &[seed; 32]).expect("a key")
    }

    /// One frame of one checkpoint over all records so far. A `successor` signs what follows.
    pub fn checkpoint(&mut self, successor: Option<SecretKey>) {
        let key = self.key.clone().expect("a key");
        let note = key.sign(&self.head(successor.as_ref().map(|key| key.public().clone())));
        let record = Record {
            source: Source::Graven,
            kind: TRUSTED_APP,
            flags: Flags::CHECKPOINT,
            source_seq: 0,
            ..stdin(self.next_seq, note.as_bytes())
        };
        self.frame(&[record]);
        if successor.is_some() {
            self.epoch += 1;
            self.key = successor;
        }
    }

    /// `count` frames of three records that are all different.
    pub fn frames(&mut self, count: usize) {
        for _ in 0..count {
            let payloads: Vec<String> =
                (0..3).map(|n| format!("record number {}", self.next_seq + n)).collect();
            let records: Vec<Record<'_>> = (0..)
                .zip(&payloads)
                .map(|(n, payload)| stdin(self.next_seq + n, payload.as_bytes()))
                .collect();
            self.frame(&records);
        }
    }

    /// Seals the segment and cuts its file.
    pub fn seal(&mut self, reason: SealReason) {
        if self.open.is_none() {
            self.begin();
        }
        let open = self.open.take().expect("a segment");
        let mut trailer = Trailer::new(&open.header, open.tally, &open.tree, reason, TIME_NS);
        if let Some(key) = &self.key {
            let sealed = Some(trailer.seal_hash(&open.header));
            trailer.note = key.sign(&Checkpoint { sealed, ..self.head(None) }).into_bytes();
        }
        let (bytes, crc) = trailer.encode(ALIGN_BYTES);
        open.file.write_all_at(&bytes, open.next_offset).expect("the trailer");
        open.file.set_len(open.next_offset + bytes.len() as u64).expect("cut");
        self.segments.last_mut().expect("a segment").trailer_offset = Some(open.next_offset);
        self.prev_crc = crc;
    }

    /// Goes on in a new segment and leaves this one without a trailer.
    pub fn abandon(&mut self) {
        self.open = None;
    }

    /// Flips one bit.
    pub fn flip(&self, segment: usize, offset: u64) {
        let path = &self.segments[segment].path;
        let file = OpenOptions::new().read(true).write(true).open(path).expect("a segment");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("a byte");
        file.write_all_at(&[byte[0] ^ 1], offset).expect("a byte");
    }

    /// Overwrites.
    pub fn write(&self, segment: usize, offset: u64, bytes: &[u8]) {
        let path = &self.segments[segment].path;
        let file = OpenOptions::new().write(true).open(path).expect("a segment");
        file.write_all_at(bytes, offset).expect("bytes");
    }
}

/// A record of standard input.
pub fn stdin(line: u64, bytes: &[u8]) -> Record<'_> {
    Record {
        source: Source::Stdin,
        kind: 0,
        flags: Flags::NONE,
        realtime_ns: TIME_NS + line * 1_000_000,
        boottime_ns: line,
        source_seq: line + 1,
        bytes,
    }
}

/// A record of the kernel.
pub fn kernel(kind: u16, serial: u64, bytes: &[u8]) -> Record<'_> {
    Record { source: Source::Netlink, kind, source_seq: serial, ..stdin(serial, bytes) }
}

/// The payload of a loss statement.
pub fn loss_payload() -> Vec<u8> {
    LossStatement {
        source: Source::Netlink,
        cause: Cause::SerialGap,
        certainty: Certainty::Exactly,
        count: 5,
        range: Some((100, 104)),
        between_ns: Some((TIME_NS, TIME_NS + 1)),
    }
    .encode(TIME_NS)
}

/// Everything that a run of `graven` gave.
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|why| panic!("{why}: {}{}", self.text(), self.stderr))
    }
}

/// Runs `graven`. No run may panic, whatever it is given.
pub fn graven<I>(args: I) -> Ran
where
    I: IntoIterator,
    I::Item: AsRef<std::ffi::OsStr>,
{
    let output = assert_cmd::Command::cargo_bin("graven")
        .expect("the binary")
        .env_remove("NO_COLOR")
        .args(args)
        .output()
        .expect("it runs");
    ran(&output)
}

pub fn ran(output: &std::process::Output) -> Ran {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
    Ran { code: output.status.code().unwrap_or(-1), stdout: output.stdout.clone(), stderr }
}

/// `graven COMMAND DIR ARGS…`.
pub fn on(command: &str, dir: &Path, args: &[&str]) -> Ran {
    let mut all = vec![std::ffi::OsString::from(command), dir.into()];
    all.extend(args.iter().map(std::ffi::OsString::from));
    graven(all)
}

/// A small generator: the same mutations in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
}
