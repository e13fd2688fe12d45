//! Boots and steps of the clock in the report of `graven verify`, from files to JSON and text.

mod common;

use common::{Maker, on, stdin};
use graven_format::trailer::SealReason;

const SECOND_NS: u64 = 1_000_000_000;

#[test]
fn a_step_is_listed_and_is_no_failure() {
    let mut maker = Maker::new();
    maker.begin();
    let mut records = [0, 1, 2].map(|line| stdin(line, b"text"));
    for record in &mut records[1..] {
        record.realtime_ns += 7 * SECOND_NS;
    }
    maker.frame(&records);
    maker.seal(SealReason::Full);
    // The next segment is seven seconds back again: its boot is the same.
    maker.frames(1);
    maker.seal(SealReason::Full);

    let ran = on("verify", maker.path(), &["--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let clock = &ran.json()["clock"];
    assert_eq!(clock["boots"].as_array().map(Vec::len), Some(1), "{clock:#}");
    let steps = clock["steps"].as_array().expect("steps");
    let seqs: Vec<_> = steps.iter().map(|step| step["seq"].as_u64()).collect();
    assert_eq!(seqs, [Some(1), Some(3)], "{clock:#}");
    let seconds: Vec<_> = steps
        .iter()
        .map(|step| (step["step_ns"].as_f64().expect("a number") / 1e9).round() as i64)
        .collect();
    assert_eq!(seconds, [7, -7], "{clock:#}");

    let text = on("verify", maker.path(), &[]).text();
    assert!(text.contains("set forwards by 7.0"), "{text}");
    assert!(text.contains("set back by 7.0") || text.contains("set back by 6.9"), "{text}");
}

#[test]
fn a_steady_clock_has_no_steps() {
    let maker = Maker::sealed(3, 2);
    let ran = on("verify", maker.path(), &["--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.json()["clock"]["steps"].as_array().map(Vec::len), Some(0));
    let text = on("verify", maker.path(), &[]).text();
    assert!(!text.contains("clock"), "{text}");
}
