//! The oracle is only worth something if it finds mistakes: each lie must be found out.

use graven_simulator::{Lie, live};

/// Lives within which a lie must be found out. Most are in the first; a hidden error needs a
/// life in which a write fails.
const SEEDS: u64 = 200;

#[test]
fn every_lie_is_found_out() {
    for lie in Lie::ALL {
        let found = (0..SEEDS).find_map(|seed| Some((seed, live(seed, Some(lie), false).err()?)));
        let (seed, failure) = found.unwrap_or_else(|| panic!("{lie:?} is believed"));
        println!("{lie:?}: found out by seed {seed}: {}", failure.what);
    }
}
