//! Hashes of one batch: as many lanes as the processor has beside one hash after the other.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use graven_format::merkle::{CompactRange, Hash, Hashing, OneByOne, Scratch};
use graven_writer::hash::Lanes;
use std::hint::black_box;

/// SHA-256 blocks of a leaf: prefix, header and payload, 0x80 and the length.
fn blocks(payload_len: usize) -> usize {
    (1 + 32 + payload_len + 1 + 8).div_ceil(64)
}

/// Records back to back as they stand in a frame; their hashes do not depend on what they say.
fn records(lens: &[usize]) -> Vec<u8> {
    let mut stored = Vec::new();
    for len in lens {
        stored.extend((*len as u32).to_le_bytes());
        stored.resize(stored.len() + 28 + len, 7);
    }
    stored
}

/// Time divided by elements is the time of one block.
fn leaves(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("leaves, a block");
    let mut lanes = Lanes::new();
    let mixed: Vec<usize> = (0..700).map(|n| n * 7919 % 537).collect();
    let batches =
        [("300 bytes", vec![300; 780]), ("mixed", mixed), ("8 of 300 bytes", vec![300; 8])];
    for (name, lens) in batches {
        let stored = records(&lens);
        let mut out: Vec<Hash> = Vec::with_capacity(lens.len());
        group.throughput(Throughput::Elements(lens.iter().map(|len| blocks(*len) as u64).sum()));
        let mut bench = |hashing: &mut dyn FnMut(&[u8], &mut Vec<Hash>), width| {
            group.bench_function(BenchmarkId::new(name, width), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    hashing(black_box(&stored), &mut out);
                });
            });
        };
        bench(&mut |stored, out| OneByOne.leaves(stored, out), 1);
        let width = lanes.width();
        if width > 1 {
            bench(&mut |stored, out| lanes.leaves(stored, out), width);
        }
    }
}

/// Time divided by elements is the time of one record's node.
fn nodes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nodes, a record");
    let batch = vec![[5; 32]; 780];
    group.throughput(Throughput::Elements(batch.len() as u64));
    let mut range = CompactRange::new(0);
    group.bench_function("appended one by one", |bencher| {
        bencher.iter(|| batch.iter().for_each(|leaf| range.append(*leaf)));
    });
    let mut range = CompactRange::new(0);
    let (mut scratch, mut lanes) = (Scratch::new(batch.len()), Lanes::new());
    group.bench_function("appended all together", |bencher| {
        bencher.iter(|| range.append_all(&batch, &mut scratch, &mut lanes));
    });
}

criterion_group!(benches, leaves, nodes);
criterion_main!(benches);
