//! The part of the campaign that every test run makes.

use graven_mutations::campaign;

#[test]
fn every_change_is_found_located_and_never_called_a_torn_tail() {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let stats = campaign(0..22_000, threads).unwrap_or_else(|why| panic!("{why:?}"));
    println!("{stats}");
    assert!(stats.changes >= 20_000, "{}", stats.changes);
}
