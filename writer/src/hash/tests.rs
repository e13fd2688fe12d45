//! Lanes against the library, which shares no code with them.

use super::Lanes;
use graven_format::consts::{FRAME_RECORDS_MAX, RECORD_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX};
use graven_format::merkle::{Hash, Hashing};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// What this processor takes and what one without AVX-512 takes: both have to give the same. Says so
/// where they are one and these tests can only compare the library with itself.
fn both() -> [Lanes; 2] {
    let lanes = Lanes::new();
    if lanes.width() == 1 {
        eprintln!("SKIPPED: no AVX-512 here, so only the library was tested");
    }
    [lanes, Lanes::one_by_one()]
}

/// Records with payloads of these lengths back to back, and the library's hash of each.
fn records(lens: &[usize], seed: u8) -> (Vec<u8>, Vec<Hash>) {
    let (mut stored, mut hashes) = (Vec::new(), Vec::new());
    let mut byte = seed;
    for &len in lens {
        let start = stored.len();
        stored.extend(u32::try_from(len).unwrap().to_le_bytes());
        stored.resize_with(start + RECORD_HEADER_BYTES + len, || {
            byte = byte.wrapping_mul(5).wrapping_add(113);
            byte
        });
        hashes.push(Sha256::new_with_prefix([0]).chain_update(&stored[start..]).finalize().into());
    }
    (stored, hashes)
}

fn check_leaves(lens: &[usize], seed: u8) {
    let (stored, expected) = records(lens, seed);
    for mut lanes in both() {
        // What is there already must stay.
        let mut out = vec![[seed; 32]];
        lanes.leaves(&stored, &mut out);
        assert_eq!(out[0], [seed; 32]);
        assert!(out[1..] == expected, "payloads of {lens:?} bytes, {} at once", lanes.width());
    }
}

#[test]
fn hash_of_leaves_is_the_library_s_for_every_length() {
    for len in 0..1200 {
        check_leaves(&[len; 17], len as u8);
    }
}

#[test]
fn hash_of_leaves_is_the_library_s_for_every_number_of_messages() {
    for count in 0..70 {
        check_leaves(&vec![count * 3; count], 1);
        check_leaves(&(0..count).collect::<Vec<_>>(), 2);
        check_leaves(&(0..count).rev().map(|n| n * 50).collect::<Vec<_>>(), 3);
    }
}

#[test]
fn hash_of_a_long_record_between_short_ones_is_the_library_s() {
    let mut lens: Vec<usize> = (0..40).map(|n| n * 7).collect();
    for at in [0, 20, 40] {
        lens.insert(at, RECORD_PAYLOAD_BYTES_MAX);
        check_leaves(&lens, 4);
        lens.remove(at);
    }
    check_leaves(&[RECORD_PAYLOAD_BYTES_MAX], 5);
    check_leaves(&[0; FRAME_RECORDS_MAX], 6);
}

/// The first and the last byte of a body may be the first and the last of a page that has no
/// neighbours: nothing around them may be read.
#[test]
fn hash_reads_nothing_around_the_records() {
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
    const PAGE: usize = 4096;
    let flags = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
    let map = unsafe { mmap_anonymous(std::ptr::null_mut(), 3 * PAGE, flags.0, flags.1) }.unwrap();
    for guard in [map, map.wrapping_byte_add(2 * PAGE)] {
        // SAFETY: the page is one of the mapping's, and no reference to it exists.
        unsafe { mprotect(guard, PAGE, MprotectFlags::empty()) }.unwrap();
    }
    let start = map.wrapping_byte_add(PAGE).cast::<u8>();
    // SAFETY: the middle page is mapped, initialised by the kernel, and only used through this.
    let page = unsafe { std::slice::from_raw_parts_mut(start, PAGE) };
    for len in [0, 1, 22, 23, 24, 30, 31, 32, 94, 95, 96, 300] {
        let (stored, expected) = records(&[len; 12], 7);
        let used = stored.len().min(PAGE);
        for at in [0, PAGE - used] {
            let count = if used == stored.len() { 12 } else { PAGE / (stored.len() / 12) };
            let bytes = &stored[..stored.len() / 12 * count];
            let at = if at == 0 { 0 } else { PAGE - bytes.len() };
            page[at..at + bytes.len()].copy_from_slice(bytes);
            for mut lanes in both() {
                let mut out = Vec::new();
                lanes.leaves(&page[at..at + bytes.len()], &mut out);
                assert!(out == expected[..count], "{len} bytes at {at}");
            }
        }
    }
    // SAFETY: the mapping is this test's own, and `page` is not used any more.
    unsafe { munmap(map, 3 * PAGE) }.unwrap();
}

#[test]
fn hash_of_nodes_is_the_library_s() {
    for count in (0..80).chain([1023, 1024]) {
        let children: Vec<Hash> =
            (0..count as u32).map(|n| Sha256::digest(n.to_le_bytes()).into()).collect();
        let expected: Vec<Hash> = children
            .chunks_exact(2)
            .map(|pair| {
                Sha256::new_with_prefix([1]).chain_update(pair.as_flattened()).finalize().into()
            })
            .collect();
        for mut lanes in both() {
            let mut out = Vec::new();
            lanes.nodes(&children, &mut out);
            assert_eq!(out, expected, "{count} children, {} at once", lanes.width());
        }
    }
}

/// The wide way exactly where the processor has both sets of instructions, as the kernel lists them.
#[test]
fn hash_takes_the_lanes_that_the_processor_has() {
    assert_eq!(Lanes::one_by_one().width(), 1);
    let listed = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let Some(flags) = listed.lines().find(|line| line.starts_with("flags")) else {
        eprintln!("SKIPPED: /proc/cpuinfo lists no flags of an x86 processor");
        assert_eq!(Lanes::new().width(), 1);
        return;
    };
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    let expected = if has("avx512f") && has("avx512bw") { 16 } else { 1 };
    assert_eq!(Lanes::new().width(), expected);
}

/// Hashes from another implementation (Python's hashlib, over OpenSSL), because the library that the other
/// tests compare with is also what one by one uses.
#[test]
fn hash_of_a_tree_is_another_implementation_s() {
    use graven_format::merkle::{CompactRange, Scratch};
    use graven_format::{Flags, Record, Source};
    const ROOT: &str = "3f1a810abcab2d4079463bee7bda0fed89127e6c9f1440860d7d49c5153f7e7d";
    let mut stored = Vec::new();
    for n in 0..40_u8 {
        let bytes = vec![n; n.into()];
        let record = Record {
            source: Source::Netlink,
            kind: 1300,
            flags: Flags::NONE,
            realtime_ns: 1,
            boottime_ns: 2,
            source_seq: 3,
            bytes: &bytes,
        };
        stored.extend(record.header());
        stored.extend(&bytes);
    }
    for mut lanes in both() {
        let mut leaves = Vec::new();
        lanes.leaves(&stored, &mut leaves);
        let mut range = CompactRange::new(0);
        range.append_all(&leaves, &mut Scratch::new(leaves.len()), &mut lanes);
        let root: String =
            range.root().expect("of all").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(root, ROOT, "{} at once", lanes.width());
    }
}

proptest! {
    #[test]
    fn hash_of_any_batch_is_the_library_s(
        lens in proptest::collection::vec(prop_oneof![0..200_usize, 0..1500_usize, 0..9000_usize], 0..90),
        seed in any::<u8>(),
    ) {
        check_leaves(&lens, seed);
    }
}
