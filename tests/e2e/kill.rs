//! kill -9 at any moment, again and again on the same trail: what was acknowledged is there, what was
//! not is a prefix of what was sent, and the next start goes on where the trail ends.

use crate::rig::feeder::{Feeder, Plan, Speed};
use crate::rig::lines::{Lines, lines_acknowledged};
use crate::rig::random::Random;
use crate::rig::{Ran, number, on, record_signed, temp_dir};
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;

/// Rounds on one trail before the next one is begun, which bounds what has to be checked every time.
const ROUNDS_A_TRAIL: u64 = 25;

/// Most lines sent in one round: some segments.
const LINES_A_ROUND: u64 = 3000;

#[test]
fn a_killed_writer_loses_nothing_that_it_announced() {
    let rounds = number("GRAVEN_E2E_KILL_ROUNDS").unwrap_or(200);
    let seed = Random::seed();
    eprintln!("GRAVEN_E2E_SEED={seed}");
    std::thread::scope(|scope| {
        for worker in 0..2 {
            scope.spawn(move || {
                let mut random = Random::new(seed.wrapping_add(worker));
                let mut left = rounds / 2;
                let mut seen = Seen::default();
                while left > 0 {
                    left -= one_trail(left.min(ROUNDS_A_TRAIL), random.next(), &mut seen);
                }
                eprintln!("kill -9, worker {worker}: {seen:?}");
                assert!(rounds < 100 || seen.killed_with_records > 0, "the kills come too early");
            });
        }
    });
}

/// What the rounds were like, to see that they are not all the same.
#[derive(Debug, Default)]
struct Seen {
    rounds: u64,
    /// Killed after something had been acknowledged.
    killed_with_records: u64,
    /// Killed before that: while it started or recovered.
    killed_at_start: u64,
    ended_by_itself: u64,
    stopped: u64,
    torn: u64,
    records: u64,
    /// Records that were there and had not been acknowledged.
    unannounced: u64,
}

/// At most so many rounds on a new trail; returns how many.
fn one_trail(rounds: u64, seed: u64, seen: &mut Seen) -> u64 {
    let dir = temp_dir();
    let trail = dir.path().join("trail");
    let lines = Lines { seed, bytes_max: 8 * 1024, long_every: 50 };
    let mut random = Random::new(seed);
    let mut next = 0;
    for round in 0..rounds {
        seen.rounds += 1;
        let before = next;
        next = match one_round(&trail, &lines, next, &mut random, seen) {
            Ok(next) => next,
            // What follows the beginning of a line is no line of ours.
            Err(Cut) => return round + 1,
        };
        assert!(next >= before, "seed {seed}, round {round}: {before} records, then {next}");
    }
    seen.records += next;
    // The last start seals what the last kill left.
    let ran = crate::rig::run(&mut record_signed(&trail), &lines.bytes(next, next + 10)).expect(0);
    assert_eq!(lines_acknowledged(&trail, &ran, 0), next + 10, "seed {seed}");
    let last = ran.acknowledged().expect("what it acknowledged").to_string();
    on("verify", &trail, &["--durable", &last]).expect(0);
    assert_eq!(lines.check(&trail), next + 10, "seed {seed}");
    rounds
}

/// The last record is the beginning of a line, the rest of which was not read before a signal.
struct Cut;

/// Starts, feeds, kills, checks; returns how many records the trail has then.
fn one_round(
    trail: &Path,
    lines: &Lines,
    next: u64,
    random: &mut Random,
    seen: &mut Seen,
) -> Result<u64, Cut> {
    let plan = Plan {
        lines: *lines,
        from: next,
        to: next + 1 + random.below(LINES_A_ROUND),
        speed: if random.one_in(3) { Speed::Full } else { Speed::Bursts(1 + random.below(8000)) },
        seed: random.next(),
    };
    let mut command = record_signed(trail);
    command.args(["--disk", if random.one_in(3) { "sync" } else { "auto" }]);
    // A small ring is there sooner, so that more of the time is spent on records.
    command.args(["--ring-bytes", if random.one_in(4) { "64M" } else { "2M" }]);
    let (mut running, feeder) = Feeder::start(&mut command, plan);
    if random.one_in(3) {
        // While it starts, or recovers.
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
    } else {
        running.wait_until("an acknowledgement", |it| it.acknowledged().is_some());
        std::thread::sleep(Duration::from_micros(random.below(120_000)));
    }
    let ran = if random.one_in(12) {
        running.signal(Signal::TERM);
        feeder.stop();
        running.end()
    } else {
        running.kill()
    };
    let sent = feeder.join();
    judge(trail, lines, next, sent, &ran, seen)
}

/// Checks what a round has left.
fn judge(
    trail: &Path,
    lines: &Lines,
    next: u64,
    sent: u64,
    ran: &Ran,
    seen: &mut Seen,
) -> Result<u64, Cut> {
    let code = ran.code();
    match code {
        -9 if ran.stdout.is_empty() => seen.killed_at_start += 1,
        -9 => seen.killed_with_records += 1,
        0 => seen.ended_by_itself += 1,
        // The default action of SIGTERM, before it is caught.
        -15 => seen.stopped += 1,
        _ => panic!("seed {}: exit code {code}: {}", lines.seed, ran.stderr),
    }
    if !trail.join("identity").exists() {
        assert_eq!(
            (next, ran.acknowledged()),
            (0, None),
            "seed {}: records were acknowledged of no trail",
            lines.seed
        );
        return Ok(0);
    }
    let durable = ran.acknowledged().map(|seq| seq.to_string());
    let args: Vec<&str> = durable.iter().flat_map(|seq| ["--durable", seq.as_str()]).collect();
    let verified = on("verify", trail, &args);
    assert!(
        matches!(verified.code(), 0 | 3),
        "seed {}: verify ends with {}: {}{}",
        lines.seed,
        verified.code(),
        verified.text(),
        verified.stderr
    );
    seen.torn += u64::from(verified.code() == 3);
    let acknowledged = lines_acknowledged(trail, ran, next);
    let exported = on("export", trail, &[]).expect(0).stdout;
    let (whole, rest) = lines.count_and_rest(&exported);
    let cut = !rest.is_empty();
    // A signal comes between two reads, and a read ends anywhere. The record says so, and it is
    // the last one.
    let mut line = Vec::new();
    lines.write(whole, &mut line);
    let begun = code == 0 && line.starts_with(rest) && !rest.ends_with(b"\n");
    assert!(!cut || begun, "seed {}: record {whole} is not what was sent", lines.seed);
    let there = whole + u64::from(cut);
    assert!(there >= acknowledged, "seed {}: {there} of {acknowledged} are there", lines.seed);
    // A burst may have been taken whose end the feeder did not see.
    assert!(there <= sent + 64, "seed {}: {there} are there of {sent} sent", lines.seed);
    seen.unannounced += there - acknowledged;
    if code == 0 {
        assert_eq!(verified.code(), 0, "a clean stop leaves no torn tail");
        assert_eq!(there, acknowledged, "seed {}: a clean stop acknowledges all", lines.seed);
    }
    if cut { Err(Cut) } else { Ok(whole) }
}
