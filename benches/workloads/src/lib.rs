//! Fixed work on the hot paths: ring, frames, tree, reader, and what takes the kernel's messages apart.
//!
//! Each [`Workload`] does the same steps on the same inputs whenever it runs: no clock, no randomness, no disk, no
//! second thread. So what criterion times (`benches/benches/workloads.rs`) is what `tests/instructions` has valgrind
//! count and compares with the last release.

pub mod text;

mod merkle;
mod messages;
mod ring;
mod scan;
mod seal;

/// One piece of work that always costs the same.
pub struct Workload {
    /// The area and what is done there: `area/what`.
    pub name: &'static str,
    /// What [`Work::units`] counts.
    pub unit: Unit,
    /// Makes the inputs.
    pub prepare: fn() -> Work,
}

/// What a workload's cost is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Records, messages, hashes or proofs.
    Items,
    /// Bytes that are read or written.
    Bytes,
}

/// Prepared inputs, and what to do with them.
pub struct Work {
    /// How many of the workload's [`Unit`] a run takes.
    pub units: u64,
    /// Does it once. It checks its own result, so that a run that did nothing panics.
    pub run: Box<dyn FnMut()>,
}

/// All of them, those of an area together.
pub const WORKLOADS: &[Workload] = &[
    ring::APPEND,
    ring::APPEND_ALL,
    seal::PLAIN,
    seal::COMPRESSED,
    merkle::LEAVES,
    merkle::APPEND,
    merkle::ROOT,
    merkle::INCLUSION,
    merkle::CONSISTENCY,
    scan::RECORDS,
    scan::VERIFIED,
    scan::COMPRESSED,
    messages::NETLINK,
    messages::SHIM,
];

/// Runs of which the instructions are counted.
pub const RUNS: u32 = 10;

/// The region whose instructions are counted: valgrind is told the name of this function. Preparing, and a first run
/// that finds out what the processor has and takes memory, stay outside.
#[inline(never)]
pub fn counted_region(run: &mut dyn FnMut(), runs: u32) {
    for _ in 0..runs {
        run();
    }
}

/// What of the processor the code paths depend on, as this process sees it: valgrind shows a processor of its own.
#[must_use]
pub fn processor() -> String {
    let mut seen = vec![std::env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! look {
            ($($feature:tt),*) => {
                $(if is_x86_feature_detected!($feature) { seen.push($feature); })*
            };
        }
        look!(
            "sse4.2",
            "pclmulqdq",
            "avx",
            "avx2",
            "bmi2",
            "sha",
            "vpclmulqdq",
            "avx512f",
            "avx512bw"
        );
    }
    seen.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_workload_can_be_run_again_and_has_a_name_of_its_own() {
        let mut names = BTreeSet::new();
        for workload in WORKLOADS {
            assert!(workload.name.split_once('/').is_some(), "{}", workload.name);
            assert!(names.insert(workload.name), "{} is there twice", workload.name);
            let mut work = (workload.prepare)();
            assert!(work.units > 0, "{}", workload.name);
            counted_region(&mut work.run, 2);
        }
    }
}
