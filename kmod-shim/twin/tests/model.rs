//! Tasks, kills, readers that die and write nonsense, in any order: the core does what a model of it says, and the
//! invariants I1 to I7 of docs/kernel-shim.md hold of what readers saw.
//!
//! - `GRAVEN_TWIN_STEPS`: how many steps at least.
//! - `GRAVEN_TWIN_SEED`: where the random numbers start; what a failure prints is the seed of its round, which is the first then.
//! - `GRAVEN_TWIN_RECORDS`: how many records the threads make.

#[path = "model/faults.rs"]
mod faults;
#[path = "model/mutants.rs"]
mod mutants;
#[path = "model/reader.rs"]
mod reader;
#[path = "model/rings.rs"]
mod rings;
#[path = "model/sanitized.rs"]
mod sanitized;
#[path = "model/task.rs"]
mod task;
#[path = "model/threads.rs"]
mod threads;
#[path = "model/world.rs"]
mod world;

use world::World;

const STEPS: u64 = 4_000_000;

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

struct SayOnFailure(u64);

impl Drop for SayOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to see it again: GRAVEN_TWIN_SEED={} GRAVEN_TWIN_STEPS=1", self.0);
        }
    }
}

#[test]
fn random_interleavings_keep_the_invariants() {
    let least = number_from("GRAVEN_TWIN_STEPS").unwrap_or(STEPS);
    let first = number_from("GRAVEN_TWIN_SEED").unwrap_or_else(|| fastrand::u64(..1 << 48));
    let (mut steps, mut seed) = (0, first);
    let mut seen = world::Seen::default();
    while steps < least {
        let say = SayOnFailure(seed);
        let mut world = World::new(seed);
        steps += world.run();
        seen.add(&world.seen);
        drop(say);
        seed += 1;
    }
    println!("{steps} steps in {} rounds from seed {first}: {seen:?}", seed - first);
    // A model in which nothing happens proves nothing.
    if least >= STEPS {
        seen.assert_all();
    }
}
