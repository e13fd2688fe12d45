//! SHA-256 of the two shapes that the tree is made of. Their lengths and padding are known
//! beforehand, so the blocks go straight to the library's compression function: a tenth less
//! time than through its buffering interface, on the path that limits the writer.

use crate::consts::{HASH_BYTES, RECORD_HEADER_BYTES};
use sha2::block_api::compress256;

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

const BLOCK_BYTES: usize = 64;

/// Payload bytes in the first block of a leaf, behind the prefix and the record's header.
const HEAD_BYTES: usize = BLOCK_BYTES - 1 - RECORD_HEADER_BYTES;

/// SHA-256 of 0x00, a record's header and its payload.
pub(crate) fn leaf(header: &[u8; RECORD_HEADER_BYTES], payload: &[u8]) -> [u8; HASH_BYTES] {
    let mut state = INITIAL;
    let mut block = [0; BLOCK_BYTES];
    block[1..=RECORD_HEADER_BYTES].copy_from_slice(header);
    let message_len = 1 + RECORD_HEADER_BYTES + payload.len();
    let Some((head, payload)) = payload.split_first_chunk::<HEAD_BYTES>() else {
        block[1 + RECORD_HEADER_BYTES..message_len].copy_from_slice(payload);
        return finish(&mut state, block, message_len);
    };
    block[1 + RECORD_HEADER_BYTES..].copy_from_slice(head);
    compress256(&mut state, &[block]);
    let (blocks, rest) = payload.as_chunks::<BLOCK_BYTES>();
    if !blocks.is_empty() {
        compress256(&mut state, blocks);
    }
    block = [0; BLOCK_BYTES];
    block[..rest.len()].copy_from_slice(rest);
    finish(&mut state, block, message_len)
}

/// SHA-256 of 0x01 and two hashes.
pub(crate) fn node(left: &[u8; HASH_BYTES], right: &[u8; HASH_BYTES]) -> [u8; HASH_BYTES] {
    let mut state = INITIAL;
    let mut blocks = [[0; BLOCK_BYTES]; 2];
    let [first, second] = &mut blocks;
    first[0] = 0x01;
    first[1..=HASH_BYTES].copy_from_slice(left);
    first[1 + HASH_BYTES..].copy_from_slice(&right[..HASH_BYTES - 1]);
    second[0] = right[HASH_BYTES - 1];
    second[1] = 0x80;
    put_len(second, 1 + 2 * HASH_BYTES);
    compress256(&mut state, &blocks);
    bytes(state)
}

/// Pads the last block, of which `message_len` modulo the block are used, and ends the hash.
fn finish(
    state: &mut [u32; 8],
    mut block: [u8; BLOCK_BYTES],
    message_len: usize,
) -> [u8; HASH_BYTES] {
    let used = message_len % BLOCK_BYTES;
    block[used] = 0x80;
    if used + 1 + size_of::<u64>() > BLOCK_BYTES {
        compress256(state, &[block]);
        block = [0; BLOCK_BYTES];
    }
    put_len(&mut block, message_len);
    compress256(state, &[block]);
    bytes(*state)
}

#[expect(clippy::big_endian_bytes, reason = "SHA-256 is big-endian")]
fn put_len(block: &mut [u8; BLOCK_BYTES], message_len: usize) {
    let bits = message_len as u64 * 8;
    block[BLOCK_BYTES - size_of::<u64>()..].copy_from_slice(&bits.to_be_bytes());
}

#[expect(clippy::big_endian_bytes, reason = "SHA-256 is big-endian")]
fn bytes(state: [u32; 8]) -> [u8; HASH_BYTES] {
    let mut hash = [0; HASH_BYTES];
    for (to, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *to = word.to_be_bytes();
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use sha2::{Digest, Sha256};

    #[test]
    fn hashes_are_the_library_s_for_every_length_of_the_last_block() {
        let header: [u8; RECORD_HEADER_BYTES] = core::array::from_fn(|n| n as u8);
        let payload: Vec<u8> = (0..5000u32).map(|n| (n * 7 % 251) as u8).collect();
        for len in (0..400).chain([4064, 4096, 5000]) {
            let payload = &payload[..len];
            let expected =
                Sha256::new().chain_update([0]).chain_update(header).chain_update(payload);
            let expected: [u8; HASH_BYTES] = expected.finalize().into();
            assert_eq!(leaf(&header, payload), expected, "{len}");
        }
        let (left, right) = ([0xa5; HASH_BYTES], [0x3c; HASH_BYTES]);
        let expected = Sha256::new().chain_update([1]).chain_update(left).chain_update(right);
        let expected: [u8; HASH_BYTES] = expected.finalize().into();
        assert_eq!(node(&left, &right), expected);
    }
}
