//! The clock over the fixed work of `graven-workloads`: ring, seal, tree, reader, messages of the kernel. What valgrind
//! counts of the same work is compared with the last release: `benches/workloads/tests/instructions`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use graven_workloads::{Unit, WORKLOADS, Work};

fn workloads(criterion: &mut Criterion) {
    for workload in WORKLOADS {
        let Work { units, mut run } = (workload.prepare)();
        let (area, what) = workload.name.split_once('/').unwrap_or(("", workload.name));
        let mut group = criterion.benchmark_group(area);
        group.throughput(match workload.unit {
            Unit::Items => Throughput::Elements(units),
            Unit::Bytes => Throughput::Bytes(units),
        });
        group.bench_function(what, |bencher| bencher.iter(&mut run));
    }
}

criterion_group!(benches, workloads);
criterion_main!(benches);
