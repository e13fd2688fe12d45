//! Keeper and writer on the real kernel: either may be killed or stopped at any moment, and not one event is
//! lost or doubled; both together are a gap that the next start states.

use crate::away::{headless, recorded, stated};
use crate::rig::audit::{Rule, Turn, rules};
use crate::rig::kept::{Kept, Role};
use crate::rig::mount::{Mounted, can_mount};
use crate::rig::random::Random;
use crate::rig::{Ran, Running, graven, has, number, on, record_from, run, skip, temp_dir};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The user whose calls are audited; nobody else has this number.
const UID: u32 = 54_331;

/// Rounds of a campaign, each with one kill.
const ROUNDS: u64 = 4;

const FILE: &str = "/dev/null";

/// Opens that make a round long enough for a kill in its middle.
const OPENS: u32 = 5000;

/// With as little memory as there can be.
fn daemon(trail: &Path, options: &[&str]) -> Running {
    daemon_with("8M", trail, options)
}

fn daemon_with(memory: &str, trail: &Path, options: &[&str]) -> Running {
    daemon_saying_to(Stdio::piped(), memory, trail, options)
}

fn daemon_saying_to(stderr: Stdio, memory: &str, trail: &Path, options: &[&str]) -> Running {
    let mut command = record_from("netlink", trail);
    command.args(["--keeper-ring", memory]).args(options);
    let mut running = Running::start_saying_to(&mut command, Stdio::null(), stderr);
    running.wait_until("the opening marker", |it| it.acknowledged().is_some());
    assert!(!running.has_ended(), "{}", running.said());
    running
}

/// What every test here begins with. Taken apart in this order, the last of it ends first.
struct Scene {
    turn: Turn,
    rule: Rule,
    dir: TempDir,
    trail: PathBuf,
    kept: Kept,
}

impl Scene {
    /// `None` if this machine cannot, which is then said.
    fn set() -> Option<Self> {
        if !has("setpriv") {
            return None;
        }
        let turn = Turn::take()?;
        let rule = Rule::opens_by(UID)?;
        let dir = temp_dir();
        let trail = dir.path().join("trail");
        let kept = Kept::of(&trail);
        Some(Self { turn, rule, dir, trail, kept })
    }
}

/// Asks recording to end, whichever process the signal reaches, and waits for that.
fn end(kept: &Kept, running: Running) -> Ran {
    kept.signal(Role::Keeper, Signal::TERM);
    kept.wait_for_end();
    running.end()
}

/// A process that opens a file so many times, and makes an event each time; with a pause after each, in seconds.
fn opener(opens: u32, pause: Option<&str>) -> Running {
    let id = UID.to_string();
    let pause = pause.map_or(String::new(), |pause| format!("sleep {pause};"));
    let text = format!("i=0; while [ $i -lt {opens} ]; do i=$((i+1)); : <{FILE}; {pause} done");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "sh", "-c", &text]);
    Running::start(&mut command, Stdio::null())
}

/// How many events of the openers the trail has, each of which is there once.
fn events(trail: &Path) -> usize {
    let exported = run(graven().arg("export").arg(trail).args(["--format", "raw"]), b"").expect(0);
    let name = format!("name=\"{FILE}\"");
    let mut seen: HashMap<String, u32> = HashMap::new();
    for line in
        exported.text().lines().filter(|it| it.starts_with("type=PATH ") && it.contains(&name))
    {
        let stamp =
            line.split_once("msg=").and_then(|(_, rest)| rest.split_once(": ")).expect("a stamp").0;
        *seen.entry(stamp.to_owned()).or_default() += 1;
    }
    let doubled: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).take(3).collect();
    assert!(doubled.is_empty(), "doubled: {doubled:?}");
    seen.len()
}

/// Ends recording, and checks that all is there.
fn end_and_check(kept: &Kept, running: Running, trail: &Path, expected: u32) -> Ran {
    let ran = end(kept, running);
    let verified = on("verify", trail, &[]);
    assert_eq!(verified.code(), 0, "{}{}{}", verified.text(), verified.stderr, ran.stderr);
    assert_eq!(events(trail), expected as usize, "{}", ran.stderr);
    ran
}

fn exempting_rules() -> String {
    rules().lines().filter(|line| line.contains("graven-exempt")).collect()
}

/// Kills in a storm, in each round, what `kill` does; not one event is lost or doubled, and each death is told, but that of a
/// keeper that was killed before it took the place.
fn killed_in_a_storm(kill: impl Fn(u64, &Kept, &mut Random, &Running) -> Vec<(Role, u32)>) {
    let Some(Scene { turn: _turn, rule, dir: _dir, trail, kept }) = Scene::set() else { return };
    let seed = Random::seed();
    eprintln!("GRAVEN_E2E_SEED={seed}");
    let mut random = Random::new(seed);
    // Beside other tests the disk may be busy for longer than the least memory holds: then the kernel gives its daemon up.
    let running = daemon_with("64M", &trail, &[]);
    let begun_by = kept.pid(Role::Keeper);
    let rounds = number("GRAVEN_E2E_KEPT_ROUNDS").unwrap_or(ROUNDS);
    let mut killed = Vec::new();
    for round in 0..rounds {
        let openers = [opener(OPENS, None), opener(OPENS, None)];
        std::thread::sleep(Duration::from_millis(random.below(400)));
        killed.extend(kill(round, &kept, &mut random, &running));
        for opener in openers {
            opener.end().expect(0);
        }
    }
    drop(rule);
    let expected = 2 * OPENS * u32::try_from(rounds).expect("small");
    let ran = end_and_check(&kept, running, &trail, expected);
    let exported = on("export", &trail, &["--format", "raw"]).expect(0).text();
    for (role, pid) in killed {
        let (name, told) = match role {
            Role::Writer => ("writer", true),
            // The first thing it does is to say whose place it takes.
            Role::Keeper => {
                ("keeper", pid == begun_by || exported.contains(&format!(" by={pid} ")))
            }
        };
        let is_told = exported.contains(&format!("op={name}-died pid={pid} "));
        assert_eq!(is_told, told, "{role:?} {pid}: {}", ran.stderr);
    }
    assert_eq!(exempting_rules(), "", "no rule of ours stays");
}

/// Kills it, and waits until another has taken its place.
fn kill_one(kept: &Kept, role: Role, running: &Running) -> (Role, u32) {
    let pid = kept.signal(role, Signal::KILL);
    kept.successor(role, pid, || running.said());
    (role, pid)
}

#[test]
fn either_may_be_killed_in_a_storm_and_not_one_event_is_lost_or_doubled() {
    killed_in_a_storm(|round, kept, _, running| {
        let role = if round % 2 == 0 { Role::Writer } else { Role::Keeper };
        vec![kill_one(kept, role, running)]
    });
}

/// The successor has only just executed its program, and is all that is left.
#[test]
fn the_other_may_be_killed_as_soon_as_there_is_a_successor() {
    killed_in_a_storm(|_, kept, random, running| {
        let roles = [Role::Writer, Role::Keeper];
        let first = usize::from(random.below(2) == 0);
        let one = kill_one(kept, roles[first], running);
        std::thread::sleep(Duration::from_micros(random.below(4) * random.below(5000)));
        vec![one, kill_one(kept, roles[1 - first], running)]
    });
}

/// A terminal that somebody has stopped, or a pipe that nobody reads.
#[test]
fn nobody_waits_for_standard_error() {
    let Some(Scene { turn: _turn, rule, dir: _dir, trail, kept }) = Scene::set() else { return };
    let (unread, full) = pipe_with(PipeFlags::NONBLOCK).expect("a pipe");
    while rustix::io::write(&full, &[b' '; 4096]).is_ok() {}
    fcntl_setfl(&full, OFlags::empty()).expect("it is ours");
    let running = daemon_saying_to(Stdio::from(full), "64M", &trail, &[]);
    let mut killed = 0;
    for role in [Role::Writer, Role::Keeper, Role::Writer, Role::Keeper] {
        let openers = [opener(OPENS, None), opener(OPENS, None)];
        kill_one(&kept, role, &running);
        killed += 1;
        for opener in openers {
            opener.end().expect(0);
        }
    }
    drop(rule);
    end_and_check(&kept, running, &trail, 2 * OPENS * killed);
    drop(unread);
}

/// Executing the writer's program may wait for the disk, as anything that reads a file.
#[test]
fn the_keeper_takes_records_while_the_writer_is_being_started() {
    if !has("strace") {
        return;
    }
    let Some(Scene { turn: _turn, rule, dir: _dir, trail, kept }) = Scene::set() else { return };
    let running = daemon_with("256M", &trail, &[]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=execve", "-e", "inject=execve:delay_enter=8000000"]);
    let keeper = kept.pid(Role::Keeper);
    let strace = Running::start(strace.args(["-p", &keeper.to_string()]), Stdio::null());
    wait_for("strace", || {
        let status = std::fs::read_to_string(format!("/proc/{keeper}/status")).expect("it lives");
        !status.contains("TracerPid:\t0\n")
    });
    let writer = kept.signal(Role::Writer, Signal::KILL);
    // More than the kernel holds for a daemon that stands still.
    let opens = 100_000;
    let begun = Instant::now();
    for opener in [opener(opens, None), opener(opens, None)] {
        opener.end().expect(0);
    }
    let took = begun.elapsed();
    kept.successor(Role::Writer, writer, || running.said());
    let waited = begun.elapsed();
    drop(strace);
    drop(rule);
    end_and_check(&kept, running, &trail, 2 * opens);
    eprintln!("{took:?} of storm, {waited:?} until there was a writer");
}

#[test]
fn a_writer_stopped_for_three_seconds_loses_nothing() {
    let Some(Scene { turn: _turn, rule, dir: _dir, trail, kept }) = Scene::set() else { return };
    let running = daemon(&trail, &[]);
    // A thousand and more a second, for longer than the stop.
    let begun = Instant::now();
    kept.signal(Role::Writer, Signal::STOP);
    let mut opens = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        opener(100, None).end().expect(0);
        opens += 100;
    }
    kept.signal(Role::Writer, Signal::CONT);
    eprintln!("{opens} events while the writer was stopped");
    assert!(opens > 1000, "{opens}");
    drop(rule);
    let ran = end_and_check(&kept, running, &trail, opens);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
}

#[test]
fn both_killed_is_a_gap_that_the_next_start_states() {
    let Some(Scene { turn, rule, dir: _dir, trail, kept }) = Scene::set() else { return };
    let running = daemon(&trail, &[]);
    opener(500, None).end().expect(0);
    running_has(&kept, &running);
    kept.kill_both();
    drop(running);
    // Nobody receives these.
    opener(300, None).end().expect(0);
    let running = daemon(&trail, &[]);
    opener(500, None).end().expect(0);
    drop(rule);
    end(&kept, running).expect(0);
    // The next start has found what the killed ones had set, and has given that back.
    turn.put_back();
    let verified = on("verify", &trail, &[]);
    assert_eq!(verified.code(), 4, "{}{}", verified.text(), verified.stderr);
    assert!(verified.text().contains("no-daemon"), "{}", verified.text());
    let there = events(&trail);
    assert!((500..=1000).contains(&there), "{there}");
    assert_eq!(exempting_rules(), "", "what the killed ones left is removed too");
}

/// Gives what was made the time to become durable.
fn running_has(kept: &Kept, running: &Running) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while running.acknowledged().is_none_or(|seq| seq < 500 * 5) {
        assert!(Instant::now() < deadline, "{:?} {}", kept.processes(), running.said());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A new cgroup that can be frozen, in either hierarchy; it is removed on drop.
struct Cgroup {
    path: PathBuf,
    file: &'static str,
}

impl Cgroup {
    /// `None` if this machine has no such hierarchy, which is then said.
    fn new(root: &str, file: &'static str) -> Option<Self> {
        let path = Path::new(root).join(format!("graven-e2e-{}", std::process::id()));
        if std::fs::create_dir(&path).is_ok() && path.join(file).exists() {
            return Some(Self { path, file });
        }
        let _ = std::fs::remove_dir(&path);
        None
    }

    fn any() -> Vec<Self> {
        let places = [
            ("/sys/fs/cgroup/freezer", "freezer.state"),
            ("/sys/fs/cgroup/unified", "cgroup.freeze"),
            ("/sys/fs/cgroup", "cgroup.freeze"),
        ];
        let made: Vec<Self> =
            places.into_iter().filter_map(|(root, file)| Self::new(root, file)).collect();
        if made.is_empty() {
            skip("no cgroup can be made here that could be frozen");
        }
        made
    }

    fn take(&self, running: &Running) {
        std::fs::write(self.path.join("cgroup.procs"), running.pid().to_string())
            .expect("it takes it");
    }

    fn is_frozen(&self) -> bool {
        let text = std::fs::read_to_string(self.path.join(self.file)).expect("its state");
        matches!(text.trim(), "1" | "FROZEN" | "FREEZING")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its processes have ended, or end now.
        for _ in 0..200 {
            if std::fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} could not be removed", self.path.display());
    }
}

#[track_caller]
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn producers_are_frozen_while_the_memory_is_full_and_thawed_even_by_our_death() {
    let Some(Scene { turn, rule, dir: _dir, trail, kept }) = Scene::set() else { return };
    let cgroups = Cgroup::any();
    if cgroups.is_empty() {
        return;
    }
    let mut options = vec!["--ring-full", "freeze"];
    for cgroup in &cgroups {
        options.extend(["--freeze-cgroup", cgroup.path.to_str().expect("a name")]);
    }
    let running = daemon(&trail, &options);
    kept.signal(Role::Writer, Signal::STOP);
    // More than the memory holds, also when it is compressed.
    let opens = 150_000;
    let openers: Vec<Running> = cgroups
        .iter()
        .map(|cgroup| {
            let opener = opener(opens, None);
            cgroup.take(&opener);
            opener
        })
        .collect();
    wait_for("freezing", || cgroups.iter().all(Cgroup::is_frozen));
    kept.signal(Role::Writer, Signal::CONT);
    wait_for("thawing", || !cgroups.iter().any(Cgroup::is_frozen));

    kept.signal(Role::Writer, Signal::STOP);
    wait_for("freezing again", || cgroups.iter().all(Cgroup::is_frozen));
    kept.kill_both();
    wait_for("thawing by the guard", || !cgroups.iter().any(Cgroup::is_frozen));
    drop(openers);
    drop(running);
    drop(rule);
    let verified = on("verify", &trail, &[]);
    assert!(matches!(verified.code(), 0 | 3), "frozen producers lose nothing: {}", verified.text());
    // Whoever starts next removes what killed ones have left.
    let running = daemon(&trail, &[]);
    end(&kept, running).expect(0);
    turn.put_back();
}

/// The policy that lets producers go on: what finds no room is gone, and stated to the event, while somebody is told.
#[test]
fn what_finds_no_room_may_be_dropped_and_is_stated_to_the_event() {
    let Some(Scene { turn: _turn, rule, dir, trail, kept }) = Scene::set() else { return };
    let told = dir.path().join("told");
    let program = dir.path().join("tell");
    let script = format!("#!/bin/sh\necho \"$1\" >>{}\n", told.display());
    std::fs::write(&program, script).expect("written");
    std::fs::set_permissions(&program, Permissions::from_mode(0o700)).expect("it is ours");
    let action = format!("exec {}", program.display());
    let besides = besides(dir.path());
    let running = daemon(&trail, &["--ring-full", "drop", "--ring-full-action", &action]);
    kept.signal(Role::Writer, Signal::STOP);
    // More than the memory holds, also when it is compressed, and than the kernel's own queue.
    let opens = 150_000;
    let begun = Instant::now();
    opener(opens, None).end().expect(0);
    let took = begun.elapsed();
    kept.signal(Role::Writer, Signal::CONT);
    wait_for("the program", || told.exists());
    // Behind a gap, which the next records show.
    opener(10, None).end().expect(0);
    drop(rule);
    end(&kept, running).expect(0);

    assert!(took < Duration::from_secs(50), "nobody waited for the writer: {took:?}");
    assert_eq!(std::fs::read_to_string(&told).expect("it is there"), "ring_full\n");
    let exported = on("export", &trail, &["--format", "raw"]).expect(0).text();
    assert!(exported.contains("op=ring-full action=drop used="), "it is told");
    let dropped = exported.split("op=ring-room action=drop used=").nth(1).expect("the end is told");
    assert!(!dropped.contains(" dropped=0 "), "{}", &dropped[..100]);
    let lost = accounted(&trail, u64::from(opens + 10) + 2 * besides);
    assert!(lost > 1000, "{lost}");
}

/// What is recorded and what is stated as lost are the events that were made; says how many are lost.
#[track_caller]
fn accounted(trail: &Path, made: u64) -> u64 {
    let (lost, causes) = stated(trail);
    let lost = lost - missing_heartbeats(trail);
    let accounted = recorded(trail) + lost;
    // Those without a beginning are stated as partial, or as lost if their end came late.
    let headless = headless(trail);
    let expected = made - headless..=made;
    assert!(expected.contains(&accounted), "{accounted} and {headless} of {made}: {causes:?}");
    lost
}

/// Heartbeats that are among what is lost: the daemon writes one when it has seen nothing for a second, and numbers them.
fn missing_heartbeats(trail: &Path) -> u64 {
    let exported = on("export", trail, &["--format", "raw"]).expect(0).text();
    let numbers = exported.split("op=graven-heartbeat count=").skip(1);
    let numbers = numbers.filter_map(|it| it.split(' ').next()?.parse::<u64>().ok());
    // The last is the closing marker.
    let numbers: Vec<u64> = numbers.filter(|it| *it != u64::MAX).collect();
    numbers.iter().max().map_or(0, |last| last + 1 - numbers.len() as u64)
}

/// What an opener opens before its first round.
fn besides(dir: &Path) -> u64 {
    let trail = dir.join("before");
    let kept = Kept::of(&trail);
    let running = daemon(&trail, &[]);
    opener(0, None).end().expect(0);
    end_and_check(&kept, running, &trail, 0);
    recorded(&trail)
}

/// Nobody takes a stopped keeper's place, and its socket holds so much: the rest is gone, and stated to the event.
#[test]
fn a_keeper_stopped_in_a_storm_is_a_loss_that_is_stated_to_the_event() {
    let Some(Scene { turn: _turn, rule, dir, trail, kept }) = Scene::set() else { return };
    let besides = besides(dir.path());
    let running = daemon(&trail, &[]);
    let opens = 100_000;
    kept.signal(Role::Keeper, Signal::STOP);
    let openers = [opener(opens, None), opener(opens, None)];
    std::thread::sleep(Duration::from_secs(4));
    kept.signal(Role::Keeper, Signal::CONT);
    for opener in openers {
        opener.end().expect(0);
    }
    opener(10, None).end().expect(0);
    drop(rule);
    end(&kept, running).expect(0);
    let lost = accounted(&trail, u64::from(2 * opens + 10) + 3 * besides);
    eprintln!("{lost} events lost, and stated");
}

/// EIO poisons the writer, which ends; what it had at hand is with the keeper, and the next one goes on.
#[test]
fn an_error_of_the_disk_costs_the_writer_and_not_one_event() {
    if !has("strace") {
        return;
    }
    let Some(Scene { turn: _turn, rule, dir: _dir, trail, kept }) = Scene::set() else { return };
    let running = daemon(&trail, &["--disk", "sync"]);
    opener(500, None).end().expect(0);
    let writer = kept.pid(Role::Writer);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=2"]);
    let strace = Running::start(strace.args(["-p", &writer.to_string()]), Stdio::null());
    let opener_under_way = opener(5000, None);
    wait_for("the next writer", || {
        kept.processes().iter().any(|(role, pid)| *role == Role::Writer && *pid != writer)
    });
    opener_under_way.end().expect(0);
    opener(500, None).end().expect(0);
    drop(rule);
    drop(strace);
    end_and_check(&kept, running, &trail, 6000);
    let exported = on("export", &trail, &["--format", "raw"]).expect(0).text();
    assert!(exported.contains(&format!("op=writer-died pid={writer} code=5")), "it is told");
}

/// As a service is ended: each process gets the signal, and the keeper passes its own on, here long after. That is one signal; two
/// would give up what waits for room.
#[test]
fn a_signal_to_both_is_one_also_if_the_keeper_passes_it_on_late() {
    if !can_mount() {
        return;
    }
    let Some(Scene { turn: _turn, rule: _rule, dir: _dir, .. }) = Scene::set() else { return };
    // Frames of few events take a block each: without the ballast there is room for whatever they come to.
    let disk = Mounted::ext4(256, 512);
    let ballast = disk.fill(9 << 20);
    let (trail, opens) = (disk.trail(), 20_000);
    let kept = Kept::of(&trail);
    let options = ["--ring-bytes", "2M", "--compress", "never", "--compress-sealed", "0"];
    let mut running = daemon_with("64M", &trail, &options);
    opener(opens, None).end().expect(0);
    running.wait_until("a full disk", |it| it.said().contains("recording waits"));
    kept.signal(Role::Keeper, Signal::STOP);
    kept.signal(Role::Writer, Signal::TERM);
    running.wait_until("the question", |it| it.said().contains("another signal"));
    kept.signal(Role::Keeper, Signal::TERM);
    std::thread::sleep(Duration::from_millis(500));
    kept.signal(Role::Keeper, Signal::CONT);
    std::thread::sleep(Duration::from_secs(2));
    assert!(!running.has_ended(), "{}", running.said());
    assert!(!running.said().contains("given up"), "{}", running.said());
    std::fs::remove_file(ballast).expect("it is there");
    kept.wait_for_end();
    let ran = running.end().expect(0);
    assert_eq!(on("verify", &trail, &[]).code(), 0, "{}", ran.stderr);
    assert_eq!(events(&trail), opens as usize, "{}", ran.stderr);
}

/// An administrator's shell in a cgroup that was named is not frozen with it, and that is recorded.
#[test]
fn what_holds_a_process_of_an_exempt_user_is_not_frozen() {
    let Some(Scene { turn: _turn, rule, dir: _dir, trail, kept }) = Scene::set() else { return };
    let cgroups = Cgroup::any();
    let Some(cgroup) = cgroups.first() else { return };
    let (path, uid) = (cgroup.path.to_str().expect("a name"), UID.to_string());
    let options = ["--ring-full", "freeze", "--freeze-cgroup", path, "--freeze-exempt", &uid];
    let running = daemon(&trail, &options);
    kept.signal(Role::Writer, Signal::STOP);
    // More than the memory holds, also when it is compressed.
    let opener = opener(150_000, None);
    cgroup.take(&opener);
    wait_for("the high-water mark", || running.said().contains("nearly full"));
    // What was done about it is done by then, or at once.
    std::thread::sleep(Duration::from_millis(200));
    assert!(!cgroup.is_frozen());
    kept.signal(Role::Writer, Signal::CONT);
    opener.end().expect(0);
    drop(rule);
    end(&kept, running).expect(0);
    let exported = on("export", &trail, &["--format", "raw"]).expect(0).text();
    let told = exported.lines().find(|line| line.contains("op=ring-full action=freeze"));
    assert!(told.is_some_and(|line| line.ends_with("res=failed")), "{told:?}");
}
