//! SHA-256 of sixteen messages side by side: word *t* of sixteen states is one register.
//!
//! All messages are a prefix byte, which tells leaves from nodes, and a body. A lane whose message
//! ends takes the next one at once, so messages of different lengths share the lanes without
//! being sorted. When too few messages are left to make the width pay, they are ended one by one
//! from where they are.
//!
//! The only `unsafe` operations are the one load from a body, the conversions between a register
//! and its words, and the call into code that needs the instructions.

use graven_format::merkle::Hash;
use sha2::block_api::compress256;
use std::arch::x86_64::*;

/// Messages side by side.
pub(super) const LANES: usize = 16;

/// With fewer messages than this, one by one is faster: as measured, a step of all lanes takes as
/// long as seven to nine blocks with the processor's SHA instructions.
const LANES_WORTH: u32 = 9;

const BLOCK_BYTES: usize = 64;

/// Bytes of the padding that the last block must have room for: 0x80 and the length in bits.
const PADDING_BYTES_MIN: usize = 1 + size_of::<u64>();

/// SHA-256's initial state (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// SHA-256's constants (FIPS 180-4, 4.2.2).
#[rustfmt::skip]
const K: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5,
    0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3,
    0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc,
    0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7,
    0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13,
    0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3,
    0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5,
    0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208,
    0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// The proof that this processor has the instructions: [`Avx512::detect`] alone makes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    /// The proof, if it is true.
    pub(super) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        has.then_some(Self(()))
    }

    /// Appends to `out` the SHA-256 of `prefix` and each body, in order.
    ///
    /// # Panics
    /// If a body's length in bits is over 32 bits: a record is much shorter.
    pub(super) fn hash_all<'a>(
        self,
        prefix: u8,
        bodies: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<Hash>,
    ) {
        // SAFETY: `self` exists only if `detect` found the features that `hash_all` enables.
        unsafe { hash_all(prefix, bodies, out) }
    }
}

/// One message on its way through a lane.
#[derive(Clone, Copy)]
struct Message<'a> {
    prefix: u8,
    body: &'a [u8],
    /// Bytes of the message in the blocks before the next.
    done: usize,
    /// Where its hash goes.
    slot: usize,
}

impl Message<'_> {
    /// Its length, padding not included.
    fn len(&self) -> usize {
        1 + self.body.len()
    }

    /// Whether the next block holds the length, which ends the message.
    fn ends(&self) -> bool {
        self.len() + PADDING_BYTES_MIN <= self.done + BLOCK_BYTES
    }

    /// The bytes of the next block, one bit each, that come from the body and that are the
    /// prefix and the 0x80 behind the message.
    fn masks(&self) -> (u64, u64, u64) {
        let prefix = u64::from(self.done == 0);
        let left = self.len().saturating_sub(self.done).min(BLOCK_BYTES) as u32;
        let message = u64::MAX.unbounded_shr(u64::BITS - left);
        // Nothing if the message ends behind this block, or if the block before had the 0x80.
        let behind = self.len().checked_sub(self.done).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        (message & !prefix, prefix, 1_u64.unbounded_shl(behind as u32))
    }

    /// Ends the hash from `state` without lanes.
    fn finish(mut self, mut state: [u32; 8]) -> Hash {
        loop {
            // Whole blocks of the body go as they are.
            if let Some(rest) = self.done.checked_sub(1).and_then(|from| self.body.get(from..)) {
                let (blocks, _) = rest.as_chunks::<BLOCK_BYTES>();
                compress256(&mut state, blocks);
                self.done += blocks.len() * BLOCK_BYTES;
            }
            let mut block = [0; BLOCK_BYTES];
            // The block's part of the message, as offsets in it; the prefix shifts the body.
            let to = self.len().min(self.done + BLOCK_BYTES);
            if let Some(bytes) = self.body.get(self.done.max(1) - 1..to - 1) {
                let at = usize::from(self.done == 0);
                block[at..at + bytes.len()].copy_from_slice(bytes);
            }
            if self.done == 0 {
                block[0] = self.prefix;
            }
            if let Some(behind) = self.len().checked_sub(self.done).filter(|at| *at < BLOCK_BYTES) {
                block[behind] = 0x80;
            }
            let ends = self.ends();
            if ends {
                put_bits(&mut block, self.len());
            }
            compress256(&mut state, &[block]);
            if ends {
                return bytes(state);
            }
            self.done += BLOCK_BYTES;
        }
    }
}

/// Writes the message's length in bits where the last block has it.
#[expect(clippy::big_endian_bytes, reason = "SHA-256 is big-endian")]
fn put_bits(block: &mut [u8; BLOCK_BYTES], len: usize) {
    let bits = len as u64 * 8;
    block[BLOCK_BYTES - size_of::<u64>()..].copy_from_slice(&bits.to_be_bytes());
}

/// The hash that is this final state.
#[expect(clippy::big_endian_bytes, reason = "SHA-256 is big-endian")]
fn bytes(state: [u32; 8]) -> Hash {
    let mut hash = Hash::default();
    for (to, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *to = word.to_be_bytes();
    }
    hash
}

/// See [`Avx512::hash_all`].
#[target_feature(enable = "avx512f,avx512bw")]
fn hash_all<'a>(prefix: u8, mut bodies: impl Iterator<Item = &'a [u8]>, out: &mut Vec<Hash>) {
    let idle = Message { prefix, body: &[], done: 0, slot: usize::MAX };
    let mut lanes = [idle; LANES];
    let mut bits = [0; LANES];
    let mut state = [_mm512_setzero_si512(); 8];
    // One bit a lane: those without a message, and those with one.
    let (mut free, mut busy) = (u16::MAX, 0_u16);
    loop {
        for lane in lanes_of(free) {
            let Some(body) = bodies.next() else { break };
            lanes[lane] = Message { body, slot: out.len(), ..idle };
            bits[lane] = u32::try_from(8 * lanes[lane].len()).expect("a record is shorter");
            busy |= 1 << lane;
            out.push(Hash::default());
        }
        for (word, initial) in state.iter_mut().zip(INITIAL) {
            *word = _mm512_mask_mov_epi32(*word, free, splat(initial));
        }
        if busy.count_ones() < LANES_WORTH {
            break;
        }
        let mut ended = step(&mut state, &mut lanes, &bits) & busy;
        while ended == 0 {
            ended = step(&mut state, &mut lanes, &bits) & busy;
        }
        let words = words(&state);
        for lane in lanes_of(ended) {
            out[lanes[lane].slot] = bytes(words.map(|word| word[lane]));
        }
        busy &= !ended;
        free = ended;
    }
    let words = words(&state);
    for lane in lanes_of(busy) {
        let message = lanes[lane];
        out[message.slot] = message.finish(words.map(|word| word[lane]));
    }
}

/// The numbers of the lanes in this mask.
fn lanes_of(mut mask: u16) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros() as usize;
        mask &= mask.checked_sub(1)?;
        Some(lane)
    })
}

/// Takes one block of every lane's message into its state, and says whose last it was. A lane
/// without a message goes along: what becomes of its state is never looked at.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn step(
    state: &mut [__m512i; 8],
    lanes: &mut [Message<'_>; LANES],
    bits: &[u32; LANES],
) -> __mmask16 {
    let mut blocks = [_mm512_setzero_si512(); LANES];
    let mut ends = 0;
    for (lane, message) in lanes.iter_mut().enumerate() {
        blocks[lane] = load_block(message);
        ends |= __mmask16::from(message.ends()) << lane;
        message.done += BLOCK_BYTES;
    }
    let mut block = transpose(blocks);
    // Of the length in bits only the lower word is not zero.
    block[15] = _mm512_mask_mov_epi32(block[15], ends, vector(*bits));
    compress(state, block);
    ends
}

/// The next block of a message, padded but for its length.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_block(message: &Message<'_>) -> __m512i {
    let (body, prefix, behind) = message.masks();
    // The prefix takes the first byte of the message, so a block begins one byte earlier in the
    // body; in front of the body and behind it nothing is read.
    let from = message.body.as_ptr().wrapping_add(message.done).wrapping_sub(1);
    // SAFETY: byte n of the block is read only if bit n of `body` is set, and `masks` sets it only
    // where `done + n` is at least 1 and less than `1 + body.len()`, hence inside the body.
    // The instruction does not touch the other bytes.
    let block = unsafe { _mm512_maskz_loadu_epi8(body, from.cast()) };
    let block = _mm512_mask_mov_epi8(block, prefix, _mm512_set1_epi8(message.prefix as i8));
    _mm512_mask_mov_epi8(block, behind, _mm512_set1_epi8(0x80_u8 as i8))
}

/// From sixteen blocks of sixteen words, one a lane, to each word of all lanes, in the
/// processor's byte order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn transpose(mut rows: [__m512i; LANES]) -> [__m512i; 16] {
    let swap = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    for row in &mut rows {
        *row = _mm512_shuffle_epi8(*row, swap);
    }
    // Four rows at a time: register c of a group then has, in its quarter q, the words 4q + c of
    // its four rows.
    let mut quarters = [_mm512_setzero_si512(); 16];
    for (from, to) in rows.as_chunks::<4>().0.iter().zip(quarters.as_chunks_mut::<4>().0) {
        let low =
            [_mm512_unpacklo_epi32(from[0], from[1]), _mm512_unpacklo_epi32(from[2], from[3])];
        let high =
            [_mm512_unpackhi_epi32(from[0], from[1]), _mm512_unpackhi_epi32(from[2], from[3])];
        *to = [
            _mm512_unpacklo_epi64(low[0], low[1]),
            _mm512_unpackhi_epi64(low[0], low[1]),
            _mm512_unpacklo_epi64(high[0], high[1]),
            _mm512_unpackhi_epi64(high[0], high[1]),
        ];
    }
    // 0x88 takes quarters 0 and 2 of each operand, 0xdd quarters 1 and 3.
    let mut words = [_mm512_setzero_si512(); 16];
    for c in 0..4 {
        let even = [
            _mm512_shuffle_i32x4::<0x88>(quarters[c], quarters[4 + c]),
            _mm512_shuffle_i32x4::<0x88>(quarters[8 + c], quarters[12 + c]),
        ];
        let odd = [
            _mm512_shuffle_i32x4::<0xdd>(quarters[c], quarters[4 + c]),
            _mm512_shuffle_i32x4::<0xdd>(quarters[8 + c], quarters[12 + c]),
        ];
        words[c] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        words[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        words[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        words[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
    words
}

/// SHA-256's compression function (FIPS 180-4, 6.2.2) in every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn compress(state: &mut [__m512i; 8], mut w: [__m512i; 16]) {
    // Written out, because the words stay in registers only if their indices are constants.
    macro_rules! sixteen {
        ($each:ident) => {
            $each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
        };
    }
    let mut v = *state;
    for (group, k) in K.as_chunks::<16>().0.iter().enumerate() {
        if group > 0 {
            macro_rules! next_words {
                ($($t:literal)+) => {$(
                    let near = add(small_sigma1(w[($t + 14) % 16]), w[($t + 9) % 16]);
                    w[$t] = add(add(w[$t], small_sigma0(w[($t + 1) % 16])), near);
                    v = round(v, add(w[$t], splat(k[$t])));
                )+};
            }
            sixteen!(next_words);
        } else {
            macro_rules! first_words {
                ($($t:literal)+) => {$( v = round(v, add(w[$t], splat(k[$t]))); )+};
            }
            sixteen!(first_words);
        }
    }
    for (word, v) in state.iter_mut().zip(v) {
        *word = add(*word, v);
    }
}

/// One round, with the word and the constant already added up.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn round([a, b, c, d, e, f, g, h]: [__m512i; 8], wk: __m512i) -> [__m512i; 8] {
    let sigma1 =
        xor3(_mm512_ror_epi32::<6>(e), _mm512_ror_epi32::<11>(e), _mm512_ror_epi32::<25>(e));
    let sigma0 =
        xor3(_mm512_ror_epi32::<2>(a), _mm512_ror_epi32::<13>(a), _mm512_ror_epi32::<22>(a));
    // The truth tables of "f where e, else g" and of the majority.
    let choice = _mm512_ternarylogic_epi32::<0xca>(e, f, g);
    let majority = _mm512_ternarylogic_epi32::<0xe8>(a, b, c);
    let t1 = add(add(add(h, wk), choice), sigma1);
    [add(add(sigma0, majority), t1), a, b, c, add(d, t1), e, f, g]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn small_sigma0(x: __m512i) -> __m512i {
    xor3(_mm512_ror_epi32::<7>(x), _mm512_ror_epi32::<18>(x), _mm512_srli_epi32::<3>(x))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn small_sigma1(x: __m512i) -> __m512i {
    xor3(_mm512_ror_epi32::<17>(x), _mm512_ror_epi32::<19>(x), _mm512_srli_epi32::<10>(x))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn xor3(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x96>(x, y, z)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn add(x: __m512i, y: __m512i) -> __m512i {
    _mm512_add_epi32(x, y)
}

/// The same word in every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn splat(word: u32) -> __m512i {
    _mm512_set1_epi32(word as i32)
}

/// The register with these words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn vector(words: [u32; LANES]) -> __m512i {
    // SAFETY: both types are 64 bytes in which every bit pattern is valid, lane 0 first.
    unsafe { std::mem::transmute::<[u32; LANES], __m512i>(words) }
}

/// Each word of the state, for all lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn words(state: &[__m512i; 8]) -> [[u32; LANES]; 8] {
    // SAFETY: both types are eight times 64 bytes in which every bit pattern is valid, lane 0
    // first.
    unsafe { std::mem::transmute::<[__m512i; 8], [[u32; LANES]; 8]>(*state) }
}
