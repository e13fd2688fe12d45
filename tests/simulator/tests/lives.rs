//! The lives that are lived on every change.

use graven_simulator::{campaign, live};
use std::thread::available_parallelism;

/// Enough for everything in [`MUST_HAPPEN`] to happen many times.
const SEEDS: u64 = 2400;

/// A simulator in which one of these never happens tests less than it says.
const MUST_HAPPEN: [&str; 51] = [
    "recovery:fresh",
    "recovery:sealed",
    "recovery:untrimmed",
    "recovery:unused",
    "recovery:open",
    "recovery:torn",
    "recovery:lost-write",
    "recovery:orphan",
    "fault:Create:no-room",
    "fault:Open",
    "fault:Allocate:no-room",
    "fault:Zero",
    "fault:Write",
    "fault:Truncate",
    "fault:Sync",
    "fault:Rename",
    "fault:Remove",
    "fault:SyncDir",
    "fault:Close",
    "power cuts",
    "kills",
    "sudden ends",
    "ends in recovery",
    "recoveries that failed",
    "ends by failure",
    "ends by no room",
    "ends by no room at start",
    "clean stops",
    "other futures",
    "sector:dropped",
    "sector:kept",
    "sector:torn",
    "bit flips",
    "flips refused",
    "flips found",
    "flips of no account",
    "waits for room",
    "gives up waiting for room",
    "seals by request",
    "clock jumps",
    "moves",
    "compressed frames",
    "zeros",
    "as many frames as there may be",
    "checkpoints published",
    "keys: prepared",
    "keys: installed",
    "keys: failed",
    "keys: ended by opening",
    "keys: undone by opening",
    "ends in settling keys",
];

#[test]
fn every_life_keeps_what_was_announced() {
    let threads = available_parallelism().map_or(1, usize::from);
    let stats = campaign(0..SEEDS, threads, None).unwrap_or_else(|report| panic!("{report}"));
    println!("{stats}");
    let missing: Vec<_> = MUST_HAPPEN.into_iter().filter(|name| stats.count(name) == 0).collect();
    assert!(missing.is_empty(), "in {SEEDS} lives these never happened: {missing:?}");
    assert_eq!(stats.seeds, SEEDS);
}

#[test]
fn the_same_seed_is_the_same_life() {
    for seed in 10_000..10_050 {
        let lives = [live(seed, None, true), live(seed, None, true)];
        let [one, other] = lives.map(|life| life.unwrap_or_else(|failure| panic!("{failure:?}")));
        assert_eq!(one, other, "seed {seed}");
        assert_ne!(one.trace_hash, live(seed + 50, None, false).unwrap().trace_hash);
    }
}
