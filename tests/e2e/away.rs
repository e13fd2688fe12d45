//! Times without a daemon: what happened between two sessions, or was in the memory of a writer that was
//! killed, is stated when the next one begins, exactly.

use crate::rig::audit::{Rule, Turn, auditctl, rules};
use crate::rig::kept::Kept;
use crate::rig::{Running, has, on, record_from, temp_dir};
use rustix::process::Signal;
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// The user whose calls are audited; nobody else has this number.
const UID: u32 = 54_331;

fn daemon(trail: &Path) -> Running {
    let mut command = record_from("netlink", trail);
    let mut running = Running::start(&mut command, Stdio::null());
    // An older trail has something to acknowledge before.
    running.wait_until("attached", |it| it.said().contains("recording kernel audit as pid"));
    assert!(!running.has_ended(), "{}", running.said());
    running
}

fn end(running: Running) {
    running.signal(Signal::TERM);
    running.end().expect(0);
}

/// A process that opens a file so many times, and others to begin with.
fn producer(opens: u32) -> Running {
    let id = UID.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "sh", "-c"]);
    let script = "n=$1; while [ $n -gt 0 ]; do n=$((n-1)); : </dev/null; done";
    command.args([script, "sh", &opens.to_string()]);
    Running::start(&mut command, Stdio::null())
}

fn produce(opens: u32) {
    producer(opens).end().expect(0);
}

/// Of an event of a call, what comes after its first record.
const AFTER_THE_CALL: [&str; 4] = ["CWD", "PATH", "PROCTITLE", "EOE"];

/// Events of the producers that the trail has, by the record of the call.
pub(crate) fn recorded(trail: &Path) -> u64 {
    calls(trail).values().filter(|it| **it == Call::Ours).count() as u64
}

/// Events of which the trail has only what comes after the record of the call: the beginning is lost. Each is stated as
/// partial or, if the rest came so late that nothing was expected any more, as lost.
pub(crate) fn headless(trail: &Path) -> u64 {
    calls(trail).values().filter(|it| **it == Call::Lost).count() as u64
}

#[derive(PartialEq)]
enum Call {
    Ours,
    Another,
    Lost,
}

fn calls(trail: &Path) -> HashMap<String, Call> {
    // Not the export, which leaves EOE out: an event may have nothing else.
    let shown = on("show", trail, &[]).expect(0);
    let mut calls = HashMap::new();
    for line in shown.text().lines() {
        let Some((head, id)) = line.split_once(" audit(") else { continue };
        let id = id.split(')').next().expect("a part").to_owned();
        let kind = head.split_whitespace().last().expect("a type");
        if kind == "SYSCALL" {
            let ours = line.ends_with("key=\"e2e-storm\"");
            calls.insert(id, if ours { Call::Ours } else { Call::Another });
        } else if AFTER_THE_CALL.contains(&kind) {
            calls.entry(id).or_insert(Call::Lost);
        }
    }
    calls
}

/// Events that are stated as lost, each exactly, and why.
pub(crate) fn stated(trail: &Path) -> (u64, Vec<String>) {
    let report = on("verify", trail, &["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).expect("a report");
    assert_eq!(report["source_gaps"]["count"], 0, "{report:#}");
    let statements = report["losses"]["statements"].as_array().expect("a list").clone();
    let (mut events, mut causes) = (0, Vec::new());
    for said in statements {
        let said = &said["statement"];
        causes.push(format!("{} {} {}", said["cause"], said["certainty"], said["count"]));
        if said["unit"] == "events" && said["cause"] != "partial-event" {
            assert_eq!(said["certainty"], "exactly", "{said}");
            events += said["count"].as_u64().expect("a number");
        }
    }
    (events, causes)
}

/// What is accounted for is what was made: events of the producers, and up to two that the daemon's filter makes when it is
/// loaded and when it is gone. Those without a beginning may be stated as lost.
#[track_caller]
fn assert_is_made(accounted: u64, headless: u64, made: u64, causes: &[String]) {
    let expected = made.saturating_sub(headless)..=made + 2;
    assert!(expected.contains(&accounted), "{accounted} and {headless} of {made}: {causes:?}");
}

#[test]
fn what_a_killed_daemon_had_and_what_came_until_the_next_is_stated_exactly() {
    if !has("setpriv") {
        return;
    }
    let Some(turn) = Turn::take() else { return };
    let dir = temp_dir();
    let trail = dir.path().join("trail");
    let Some(rule) = Rule::opens_by(UID) else { return };
    const OPENS_EACH: u32 = 40_000;
    // What each producer opens before its first round.
    let first = daemon(&trail);
    produce(0);
    end(first);
    let besides = recorded(&trail);
    assert!(besides > 0);

    let kept = Kept::of(&trail);
    let mut killed = daemon(&trail);
    let before = killed.acknowledged();
    let producers = [producer(OPENS_EACH), producer(OPENS_EACH)];
    killed.wait_until("a storm", |it| it.acknowledged() > before.map(|seq| seq + 50_000));
    kept.kill_both();
    drop(killed);
    let missed = recorded(&trail);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let last = daemon(&trail);
    for producer in producers {
        producer.end().expect(0);
    }
    produce(10);
    drop(rule);
    end(last);
    turn.put_back();

    let (recorded, (lost, causes)) = (recorded(&trail), stated(&trail));
    let made = 4 * besides + 2 * u64::from(OPENS_EACH) + 10;
    eprintln!(
        "{made} made, {missed} before the kill, {recorded} recorded, {lost} lost: {causes:?}"
    );
    assert!(lost > 0, "the storm went on without a daemon");
    assert_is_made(recorded + lost, headless(&trail), made, &causes);
    let verified = on("verify", &trail, &[]).expect(4);
    assert!(verified.text().contains("no-daemon"), "{}", verified.text());
}

#[test]
fn what_comes_between_two_sessions_is_stated_if_audit_was_left_on() {
    if !has("setpriv") {
        return;
    }
    let Some(turn) = Turn::take() else { return };
    let dir = temp_dir();
    let trail = dir.path().join("trail");
    // Nothing goes on recording if this fails.
    let _kept = Kept::of(&trail);
    let Some(rule) = Rule::opens_by(UID) else { return };
    // Audit off between them, as somebody else may have left it on: nothing is owed.
    auditctl(&["-e", "0"]);
    end(daemon(&trail));
    produce(50);
    end(daemon(&trail));
    on("verify", &trail, &[]).expect(0);

    auditctl(&["-e", "1"]);
    let counting = daemon(&trail);
    produce(7);
    end(counting);
    let events = recorded(&trail);
    // Nothing happens in between but what the daemon itself does to give its place back.
    end(daemon(&trail));
    let (before, causes) = stated(&trail);
    assert_is_made(before, 0, 0, &causes);
    produce(7);
    end(daemon(&trail));
    drop(rule);
    turn.put_back();
    let (lost, causes) = stated(&trail);
    // The same events, which now nobody took.
    assert_eq!(recorded(&trail), events);
    assert_is_made(lost, 0, before + events, &causes);
    on("verify", &trail, &[]).expect(4);
}

#[test]
fn what_a_killed_holder_of_the_turn_has_left_is_gone_for_the_next() {
    let Some(turn) = Turn::take() else { return };
    let Some(rule) = Rule::opens_by(UID) else { return };
    assert!(rules().contains("e2e-storm"));
    // As if it had been killed: nobody removes it.
    std::mem::forget(rule);
    drop(turn);
    let Some(_turn) = Turn::take() else { return };
    assert!(!rules().contains("e2e-storm"), "{}", rules());
}
