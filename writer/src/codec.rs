//! Zstandard for frames: contexts that are made once and used again.

use crate::hash::Lanes;
use graven_format::codec::{CODEC_ZSTD, DecodeError, Decoding};
use graven_format::consts::FRAME_BYTES_MAX;
use graven_format::merkle::{Hash, Hashing};
use std::fmt;
use zstd_safe::{CCtx, CParameter, DCtx};

/// First bytes of a Zstandard frame: what is skipped by decoders begins otherwise.
const FRAME_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// Levels that a frame can be compressed with: Zstandard's own.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// What a reader of segments needs of the processor: the fastest hashing, and a decoder.
#[derive(Default)]
pub struct Reading {
    lanes: Lanes,
    /// Made for the first compressed frame: most segments of a trail may have none.
    zstd: Option<DCtx<'static>>,
}

impl Reading {
    /// Finds out what the processor has.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl Hashing for Reading {
    fn leaves(&mut self, records: &[u8], out: &mut Vec<Hash>) {
        self.lanes.leaves(records, out);
    }

    fn nodes(&mut self, children: &[Hash], out: &mut Vec<Hash>) {
        self.lanes.nodes(children, out);
    }
}

impl Decoding for Reading {
    fn decode(&mut self, codec: u8, stored: &[u8], raw: &mut [u8]) -> Result<(), DecodeError> {
        if codec != CODEC_ZSTD {
            return Err(DecodeError::UnknownCodec(codec));
        }
        let wrong = DecodeError::Payload(raw.len() as u32);
        // One frame and nothing behind it: the library itself would go on with the next one.
        let whole = zstd_safe::find_frame_compressed_size(stored) == Ok(stored.len());
        if !stored.starts_with(&FRAME_MAGIC) || !whole {
            return Err(wrong);
        }
        // In one call, `raw` is the window: no length in the frame can make it take more memory.
        let context = self.zstd.get_or_insert_with(DCtx::create);
        let len = context.decompress(raw, stored).map_err(|_| wrong)?;
        if len == raw.len() { Ok(()) } else { Err(wrong) }
    }
}

/// Compresses the records of one frame after the other, with memory that is fixed at start.
pub struct Compressor {
    context: CCtx<'static>,
    scratch: Box<[u8]>,
}

impl Compressor {
    /// At this level, one of [`LEVELS`].
    ///
    /// # Panics
    /// If the library does not know it.
    #[must_use]
    pub fn new(level: i32) -> Self {
        let mut context = CCtx::create();
        context
            .set_parameter(CParameter::CompressionLevel(level))
            .expect("the library knows its own levels");
        let mut this = Self { context, scratch: vec![0; FRAME_BYTES_MAX].into() };
        // The context takes its memory with the longest input that it will see.
        let longest = vec![0; FRAME_BYTES_MAX];
        this.compress(&longest, FRAME_BYTES_MAX);
        this
    }

    /// `records` as one Zstandard frame of at most `len_max` bytes; `None` if it would be longer.
    pub fn compress(&mut self, records: &[u8], len_max: usize) -> Option<&[u8]> {
        let room = len_max.min(self.scratch.len());
        let len = self.context.compress2(&mut self.scratch[..room], records).ok()?;
        Some(&self.scratch[..len])
    }

    /// Bytes of memory that it holds.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.context.sizeof() + self.scratch.len()
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").field("memory_bytes", &self.memory_bytes()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(stored: &[u8], raw_len: usize) -> Result<Vec<u8>, DecodeError> {
        let mut raw = vec![0xAA; raw_len];
        Reading::new().decode(CODEC_ZSTD, stored, &mut raw).map(|()| raw)
    }

    #[test]
    fn what_is_compressed_decodes_and_memory_stays_what_it_was() {
        for level in [1, 3, 6, 19] {
            let mut compressor = Compressor::new(level);
            let at_start = compressor.memory_bytes();
            for len in [1, 31, 32, 1000, 70_000, FRAME_BYTES_MAX] {
                let raw: Vec<u8> = (0..len).map(|at| (at * at / 7) as u8 & 15).collect();
                let stored = compressor.compress(&raw, FRAME_BYTES_MAX).expect("room").to_vec();
                assert_eq!(decode(&stored, len).as_deref(), Ok(&raw[..]), "{len} bytes");
            }
            assert_eq!(compressor.memory_bytes(), at_start, "level {level}");
        }
    }

    #[test]
    fn what_would_not_be_shorter_is_left() {
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let raw: Vec<u8> = (0..10_000).map(|_| noise()).collect();
        assert!(Compressor::new(1).compress(&raw, raw.len() - 1).is_none());
    }

    #[test]
    fn anything_but_one_whole_frame_of_the_stated_length_is_refused() {
        let raw = b"type=1300 msg=audit(1:2): ".repeat(40);
        let stored = Compressor::new(1).compress(&raw, FRAME_BYTES_MAX).expect("room").to_vec();
        assert_eq!(decode(&stored, raw.len()).as_deref(), Ok(&raw[..]));
        let wrong = |raw_len: usize| Err(DecodeError::Payload(raw_len as u32));
        for raw_len in [0, 32, raw.len() - 1, raw.len() + 1, FRAME_BYTES_MAX] {
            assert_eq!(decode(&stored, raw_len), wrong(raw_len));
        }
        let skippable = [0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
        let refused = [
            stored[..stored.len() - 1].to_vec(),
            [&stored[..], &[0]].concat(),
            [&stored[..], &stored].concat(),
            [&stored[..], &skippable].concat(),
            [&skippable[..], &stored].concat(),
            skippable.to_vec(),
            Vec::new(),
        ];
        for stored in refused {
            assert_eq!(decode(&stored, raw.len()), wrong(raw.len()), "{stored:02x?}");
        }
        let other = Reading::new().decode(2, &stored, &mut [0; 9]);
        assert_eq!(other, Err(DecodeError::UnknownCodec(2)));
    }

    #[test]
    fn a_frame_that_would_fill_any_memory_fills_its_own_length_only() {
        // 256 MiB of zeros, in a window as large as the library makes them.
        let mut context = CCtx::create();
        for parameter in [CParameter::CompressionLevel(19), CParameter::WindowLog(27)] {
            context.set_parameter(parameter).expect("a parameter");
        }
        let mut bomb = vec![0; 1 << 20];
        let zeros = vec![0; 1 << 28];
        let len = context.compress2(&mut bomb[..], &zeros[..]).expect("it is short");
        assert!(len < FRAME_BYTES_MAX, "{len} bytes");
        assert_eq!(decode(&bomb[..len], 1000), Err(DecodeError::Payload(1000)));
    }
}
