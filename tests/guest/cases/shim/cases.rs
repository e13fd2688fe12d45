//! The cases. Most run on both lines of kernels.

use super::Rig;
use super::trail::{NUMBERED, Whole, each_once, numbers};
use crate::rig::{export, number, verify};
use graven_shim_abi::{
    ITEM_MADE, ITEM_NAME, ITEM_NOT_CAPTURED, ITEM_SOCKADDR, PART_NO_RETURN, PART_ORPHAN,
    PART_REFUSED, ROLE_NEW, ROLE_OLD, ROLE_PROGRAM, ROLE_TARGET, ROLE_TEXT,
};
use std::collections::BTreeMap;

/// Of what is done again and again.
pub(super) fn rounds() -> u64 {
    number("GRAVEN_GUEST_SHIM_ROUNDS").unwrap_or(4)
}

/// Small rings, four producers: they wait, and nothing is missing.
#[test]
fn a_storm_through_small_rings_is_all_there() {
    let count = number("GRAVEN_GUEST_SHIM_CALLS").unwrap_or(50_000) / 4;
    for rig in Rig::all() {
        let script = format!(
            "load_shim --slots 256\nrecord numbers\nload calls 4 {count} || exit 1\nended\n\
             echo waited $(field waited)\ngraven shim unload || exit 1\numount /mnt"
        );
        let Some((verdict, records)) = rig.recorded(&script) else { return };
        each_once(&records, 4, count);
        let waited = |line: &str| line.strip_prefix("waited ")?.parse::<u64>().ok();
        let waited = verdict.output.lines().find_map(waited);
        assert!(waited > Some(0), "producers were slowed down: {}", verdict.told());
        eprintln!("{}", verdict.output);
    }
}

/// Whoever reads is killed again and again in the storm: what it had is not there twice, what it had not is there.
#[test]
fn a_reader_that_is_killed_loses_and_doubles_nothing() {
    let rounds = rounds();
    let count = 5_000 * rounds;
    for rig in Rig::all() {
        let script = format!(
            "load_shim --slots 512\nrecord numbers\nload calls 4 {count} &\nload=$!\n\
             n=0; while [ $n -lt {rounds} ]; do\n\
               usleep $((150000 + n * 37000 % 200000)); kill -9 $reader; wait $reader\n\
               usleep $((n * 61000 % 150000)); record numbers; n=$((n + 1))\n\
             done\n\
             wait $load || exit 1\nfinish"
        );
        let Some((_, records)) = rig.recorded(&script) else { return };
        each_once(&records, 4, count);
    }
}

/// Tasks that sleep in a call have a buffer and no room in a ring: others go on. Killed while rings are full, their records
/// are orphans, and arrive.
#[test]
fn tasks_asleep_in_calls_hold_up_nobody() {
    for rig in Rig::all() {
        let script = "\
load_shim --slots 256
record all
load sleepers 64 /tmp/pids &
sleepers=$!
n=0; while [ \"$(field tasks)\" -lt 64 ]; do [ $n -lt 600 ] || exit 1; n=$((n + 1)); sleep 0.05; done
sleep 1
load calls 2 3000 || exit 1
# The rings fill up while the reader stands still.
kill -STOP $reader
load calls 2 3000 2 &
load=$!
n=0; while [ \"$(field waiting)\" -lt 2 ]; do [ $n -lt 600 ] || exit 1; n=$((n + 1)); sleep 0.05; done
kill -9 $(cat /tmp/pids)
# The rest of the machine goes on.
sleep 1; date >/dev/null; ls / >/dev/null
echo orphans $(field orphans) waiting $(field waiting)
kill -CONT $reader
wait $load || exit 1
kill $sleepers; wait $sleepers
finish";
        let Some((verdict, records)) = rig.recorded(script) else { return };
        each_once(&records, 4, 3000);
        let reads = |it: &&Whole| it.call.nr == 0 && it.call.args[2] == 1;
        let reads: Vec<_> = records.values().filter(reads).collect();
        assert_eq!(reads.len(), 64, "each read has ended once: {}", verdict.told());
        let orphans = records.values().filter(|it| it.flags & PART_ORPHAN != 0).count();
        eprintln!("{}{orphans} orphans", verdict.output);
    }
}

/// Signals, restarts, threads, forks, vforks, execs, ptrace, int 0x80, seccomp: programs see the same.
#[test]
fn programs_cannot_see_that_they_are_recorded() {
    for rig in Rig::all() {
        // As small as rings can be, so that calls are put off all the time.
        let script = "\
load same >/tmp/before || exit 1
load_shim --slots 256
record all
load same >/tmp/during || exit 1
ended
graven shim unload || exit 1
cat /tmp/during
cmp /tmp/before /tmp/during || { cat /tmp/before; exit 1; }
umount /mnt";
        let Some((verdict, records)) = rig.recorded(script) else { return };
        eprintln!("{}{} records", verdict.output, records.len());
        let exits = records.values().filter(|it| it.flags & PART_NO_RETURN != 0).count();
        assert!(exits > 200, "calls that do not return are there: {exits}");
        let i386 = records.values().filter(|it| it.call.arch == 0x4000_0003).count();
        assert!(i386 >= 1000, "int 0x80 has its architecture: {i386}");
    }
}

#[test]
fn it_comes_and_goes_under_load() {
    let cycles = rounds();
    for rig in Rig::all() {
        let script = format!(
            "load calls 3 1000000000 & load=$!\n\
             i=0; while [ $i -lt {cycles} ]; do\n\
                 load_shim --slots 256; record numbers; usleep 100000\n\
                 ended; graven shim unload || exit 1\n\
                 i=$((i + 1)); echo cycle $i\n\
             done\n\
             kill -0 $load || exit 1\n\
             kill -9 $load $(pidof load); wait $load\numount /mnt"
        );
        let Some(verdict) = rig.run(&script) else { return };
        eprintln!("{}: {cycles} cycles in {:?}", rig.kernel.release, verdict.took);
        // Of each load but the last something may be missing if calls were under way at its end.
        verify(&rig.trail(), &[0, 4]);
    }
}

/// Without a reader, tasks that are recorded wait, all others do not, and nothing is missing afterwards. A killed one dies.
#[test]
fn without_a_reader_who_is_recorded_waits_and_can_be_killed() {
    for rig in Rig::all() {
        let script = "\
load_shim --slots 256
record numbers
kill -9 $reader; wait $reader
load calls 2 2000 & load=$!
load calls 1 100000 7 & victim=$!
n=0; while [ \"$(field waiting)\" -lt 3 ]; do [ $n -lt 600 ] || exit 1; n=$((n + 1)); sleep 0.05; done
sleep 2
kill -0 $load || exit 1
# The shell, and this, are recorded by no rule.
date >/dev/null
read -r child rest </proc/$victim/task/$victim/children
kill -9 $child; wait $victim && exit 1
record numbers
wait $load || exit 1
finish";
        let Some((_, records)) = rig.recorded(script) else { return };
        let numbers = numbers(&records);
        assert!(numbers.values().all(|times| *times == 1));
        let of = |producer| numbers.keys().filter(|key| key.0 == producer).count();
        assert_eq!((of(0), of(1)), (2000, 2000));
        assert!(of(7) < 100_000);
    }
}

/// A name that another thread rewrites: what is recorded is what the kernel acted on.
#[test]
fn a_recorded_name_and_its_outcome_agree() {
    let count = number("GRAVEN_GUEST_SHIM_OPENS").unwrap_or(30_000);
    for rig in Rig::all() {
        let script = format!("load_shim\nrecord all\nload race {count} || exit 1\nfinish");
        let Some((verdict, records)) = rig.recorded(&script) else { return };
        let mut outcomes: BTreeMap<(Vec<u8>, bool), u64> = BTreeMap::new();
        for whole in records.values().filter(|it| it.call.nr == 257) {
            let Some(name) = whole.item(ITEM_NAME, ROLE_TARGET) else { continue };
            if name.starts_with(b"/tmp/") {
                *outcomes.entry((name.to_vec(), whole.call.result >= 0)).or_default() += 1;
            }
        }
        let of = |name: &[u8], good| outcomes.get(&(name.to_vec(), good)).copied().unwrap_or(0);
        eprintln!("{outcomes:?}");
        assert_eq!(of(b"/tmp/there", false), 0, "{}", verdict.told());
        assert!(
            outcomes.keys().all(|(name, good)| *good == (name == b"/tmp/there")),
            "{outcomes:?}"
        );
        assert!(outcomes.values().sum::<u64>() >= count);
        assert!(of(b"/tmp/there", true) > 0 && outcomes.len() > 1, "it did race: {outcomes:?}");
    }
}

/// A working folder that another thread changes, of which one is removed and one unmounted meanwhile.
#[test]
fn the_recorded_folder_is_one_that_there_was() {
    for rig in Rig::all() {
        let script = "\
mkdir /tmp/mounted
load_shim
record all
load wander 20000 & load=$!
while kill -0 $load 2>/dev/null; do
    mount -t tmpfs -o mode=755 none /tmp/mounted || exit 1
    umount -l /tmp/mounted || exit 1
done
wait $load || exit 1
finish";
        let Some((_, records)) = rig.recorded(script) else { return };
        let mut seen: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for whole in records.values().filter(|it| it.call.nr == NUMBERED) {
            let folder = whole.item(graven_shim_abi::ITEM_CWD, 0).expect("each has one");
            *seen.entry(folder.to_vec()).or_default() += 1;
        }
        let text: Vec<_> = seen.keys().map(|it| String::from_utf8_lossy(it)).collect();
        eprintln!("{text:?} {:?}", seen.values());
        let there = ["/", "/tmp/mounted", "/tmp/wandered", "/tmp/wandered (deleted)"];
        assert!(text.iter().all(|it| there.contains(&&**it)), "{text:?}");
        assert!(seen.len() > 1 && seen.values().sum::<u64>() >= 20_000, "it did move: {seen:?}");
    }
}

/// Tails that cannot be mean full: nothing is overwritten, nobody is harmed. Who left them there is gone, and the next reader
/// learns the right ones.
#[test]
fn garbage_for_a_tail_means_full() {
    for rig in Rig::all() {
        let script = "\
load_shim --slots 256
record numbers
kill -9 $reader; wait $reader
load calls 2 3000 & load=$!
load garbage 3 || exit 1
[ \"$(field bad_tails)\" -gt 0 ] || exit 1
record numbers
wait $load || exit 1
finish";
        let Some((_, records)) = rig.recorded(script) else { return };
        each_once(&records, 2, 3000);
    }
}

/// Sessions of one load, each of which has the module tested first: what that took is no loss, and who was in a call since the
/// session before is recorded in the next one, also if the call ends during the test.
#[test]
fn one_session_follows_another() {
    for rig in Rig::all() {
        let script = "\
load_shim --slots 1024
record all
load calls 1 500 0 || exit 1
load sleepers 8 /tmp/pids & sleepers=$!
n=0; while [ \"$(field tasks)\" -lt 8 ]; do [ $n -lt 600 ] || exit 1; n=$((n + 1)); sleep 0.05; done
sleep 1
ended
round=1; while [ $round -lt 5 ]; do
    # Two of them end about when the next session tests.
    { usleep $((round * 90000)); kill -9 $(sed -n \"$((round * 2 - 1)),$((round * 2))p\" /tmp/pids); } & killer=$!
    record all; load calls 1 500 $round || exit 1
    wait $killer
    ended
    round=$((round + 1))
done
kill $sleepers; wait $sleepers
graven shim self-test || exit 1
record all
finish";
        let Some((verdict, records)) = rig.recorded(script) else { return };
        each_once(&records, 5, 500);
        let reads = records.values().filter(|it| it.call.nr == 0 && it.call.args[2] == 1).count();
        assert_eq!(reads, 8, "{}", verdict.told());
    }
}

/// A daemon that loads the module as its configuration says, and at SIGHUP reads its rules again: those with an error leave
/// the ones in force, and each change is in the trail.
#[test]
fn a_daemon_reads_its_rules_again() {
    for rig in Rig::all() {
        let script = r#"
configured() { cat >/graven.toml <<END
[trail]
dir = "/mnt/trail"
source = "shim"
segment_bytes = "8M"
compress_sealed = 0
[shim]
module = "/graven_shim.ko"
slots = 1024
rules = "/live.rules"
io_uring = "unseen"
$1
END
}
heard() {
    tries=0
    while ! grep -q "$1" /tmp/reader; do
        kill -0 $reader && [ $tries -lt 600 ] || { echo "no $1"; cat /tmp/reader; exit 1; }
        tries=$((tries + 1)); sleep 0.05
    done
}
again() { kill -HUP $reader; heard "$1"; }
configured; cp /numbers.rules /live.rules
graven record --config /graven.toml 2>/tmp/reader &
reader=$!
heard 'recording from the kernel module'
[ "$(field slots)" = 1024 ] || exit 1
graven shim status --json | grep -q '"io_uring":"unseen"' || exit 1
load calls 1 500 0 || exit 1
echo '-a never,exit' >/live.rules
again 'in force now: shim.rules$'
load calls 1 500 1 || exit 1
echo '-a always,exit -F arch=b64 -S getppidd' >/live.rules
again 'line 1: getppidd: no such system call there'
heard 'the rules in force stay'
[ "$(field rules)" = 1 ] || exit 1
load calls 1 500 2 || exit 1
cp /numbers.rules /live.rules; configured 'no_reader = "pass"'
again 'in force now: shim.no_reader, shim.rules$'
graven shim status --json | grep -q '"no_reader":"pass","no_reader_ms":60000,"io_uring":"unseen"' || exit 1
load calls 1 500 3 || exit 1
configured 'no_reader = "drop"'
again 'key shim.no_reader'
configured; rm /live.rules
again 'cannot read the rules'
load calls 1 500 4 || exit 1
finish"#;
        let Some((verdict, records)) = rig.recorded(script) else { return };
        let numbers = numbers(&records);
        let of = |producer| numbers.keys().filter(|key| key.0 == producer).count();
        assert_eq!([0, 1, 2, 3, 4].map(of), [500, 0, 0, 500, 500], "{}", verdict.told());
        let exported = export(&rig.trail());
        let of = |text: &str| exported.matches(text).count();
        assert_eq!(of("op=load-rules file=\"/live.rules\""), 3, "{exported}");
        assert_eq!(of(" added=1 removed=1 "), 2);
        assert_eq!(of("op=config file=\"/graven.toml\""), 1);
        assert_eq!(of("op=reconfigure state=changed "), 2);
        assert!(of("op=reconfigure state=no-change ") >= 3);
        assert!(of("res=failed") >= 3);
    }
}

/// One call of each kind: names with their roles, outcomes, addresses, arguments that take several parts.
#[test]
fn a_record_says_what_the_kernel_acted_on() {
    for rig in Rig::all() {
        let script = "\
load_shim
graven shim self-test || exit 1
mkdir -m 777 /mnt/open || exit 1
graven run --trail /mnt/trail --source shim --syscalls all --quiet -- load tour; [ $? = 5 ] || exit 1
graven shim unload || exit 1
umount /mnt";
        let Some((verdict, records)) = rig.recorded(script) else { return };
        // The records of the module's own test, which is root's, are there too.
        let records: Vec<_> = records.into_values().filter(|it| it.call.uid == 1000).collect();
        let find = |nr: u32, role: u16, name: &[u8]| {
            let fits = |it: &&Whole| it.call.nr == nr && it.item(ITEM_NAME, role) == Some(name);
            records
                .iter()
                .find(fits)
                .unwrap_or_else(|| panic!("{nr} {}", String::from_utf8_lossy(name)))
        };
        let made = find(257, ROLE_TARGET, b"made");
        assert!(made.call.result >= 0 && made.call.uid == 1000);
        assert_eq!(made.items[0].object.map(|it| it.mode), Some(0o100_640));
        assert!(made.items[0].header.flags & ITEM_MADE != 0, "the open made it");
        check_objects(&records, &verdict.output);
        let renamed = find(82, ROLE_OLD, b"made");
        assert_eq!(renamed.item(ITEM_NAME, ROLE_NEW), Some(&b"moved"[..]));
        assert_eq!(renamed.item(graven_shim_abi::ITEM_CWD, 0), Some(&b"/tmp/tour"[..]));
        assert_eq!(find(86, ROLE_OLD, b"moved").item(ITEM_NAME, ROLE_NEW), Some(&b"second"[..]));
        assert_eq!(find(88, ROLE_TEXT, b"text").item(ITEM_NAME, ROLE_NEW), Some(&b"symbolic"[..]));
        let again = find(264, ROLE_OLD, b"symbolic");
        assert_eq!(again.item(ITEM_NAME, ROLE_NEW), Some(&b"/tmp/tour/renamed"[..]));
        assert_eq!(find(87, ROLE_TARGET, b"second").call.result, 0);
        assert_eq!(find(257, ROLE_TARGET, b"/tmp/tour/missing").call.result, -2);
        let fault = records.iter().find(|it| it.call.nr == 257 && it.call.result == -14).unwrap();
        assert!(
            fault.items.iter().any(|it| {
                it.header.kind == ITEM_NAME && it.header.flags & ITEM_NOT_CAPTURED != 0
            })
        );
        let connect = records.iter().find(|it| it.call.nr == 42).unwrap();
        let address = connect.item(ITEM_SOCKADDR, 0).unwrap();
        assert!(connect.call.result == -2 && address[2..].starts_with(b"/tmp/nobody\0"));
        let ring = records.iter().find(|it| it.call.nr == 425).unwrap();
        assert!(ring.call.result == -1 && ring.flags & PART_REFUSED != 0);
        assert_eq!(find(59, ROLE_PROGRAM, b"/bin/missing").arguments(), b"missing\0one\0two\0");
        let long = find(59, ROLE_PROGRAM, b"/proc/self/exe");
        let arguments = [&b"load\0ended\0"[..], &[b'x'; 20_000], b"\0last\0"].concat();
        assert!(long.call.result == 0 && long.arguments() == arguments);
    }
}

/// What was made and looked at is the inode that it is. `said`: the tour's own words of each name.
fn check_objects(records: &[Whole], said: &str) {
    // mkdir, mknodat, symlink.
    const MADE: [(u32, u16); 3] = [(83, ROLE_TARGET), (259, ROLE_TARGET), (88, ROLE_NEW)];
    // newfstatat, statx, readlink, access, listxattr, chdir.
    const LOOKED: [u32; 6] = [262, 332, 89, 21, 194, 80];
    let mut inodes = BTreeMap::new();
    for line in said.lines() {
        let words: Vec<_> = line.split(' ').collect();
        if let ["inode", name, inode, mode] = words[..] {
            let mode = u32::from_str_radix(mode, 8).unwrap();
            inodes.insert(name.as_bytes(), (inode.parse::<u64>().unwrap(), mode));
        }
    }
    let (mut made, mut looked) = (0, BTreeMap::<u32, u32>::new());
    for whole in records {
        for piece in whole.items.iter().filter(|piece| piece.header.kind == ITEM_NAME) {
            let Some(is) = inodes.get(&piece.bytes[..]) else { continue };
            let kind = (whole.call.nr, piece.header.role);
            let object = piece.object.map(|object| (object.inode, object.mode));
            let by_it = piece.header.flags & ITEM_MADE != 0;
            if whole.call.result < 0 {
                assert_eq!((object, by_it), (None, false), "{kind:?}: it failed");
            } else if MADE.contains(&kind) {
                assert_eq!((object, by_it), (Some(*is), true), "{kind:?}");
                made += 1;
            } else if LOOKED.contains(&whole.call.nr) {
                let follows = whole.call.nr == 332 && piece.bytes.starts_with(b"/mnt");
                let is = if follows { inodes[&b"/mnt/open/folder"[..]] } else { *is };
                assert_eq!((object, by_it), (Some(is), false), "{kind:?}");
                *looked.entry(whole.call.nr).or_default() += 1;
            } else if whole.call.nr == 257 {
                assert_eq!((object, by_it), (Some(*is), false), "it was there");
            }
        }
    }
    assert_eq!((made, inodes.len()), (7, 7), "{said}");
    assert!(looked.keys().copied().eq([21, 80, 89, 194, 262, 332]), "{looked:?}");
}

/// Pulled in the middle of a storm, again and again. Straight after a cut the trail has all that was announced and is complete or
/// ends in a torn tail that was not announced: what the module's rings had is not known to be missing, it is not known at all. The
/// next session on that trail, of another load of the module, states just this, and nothing else.
#[test]
fn a_power_cut_in_a_storm_costs_nothing_that_was_announced() {
    let rounds = rounds();
    let mut random = fastrand::Rng::with_seed(number("GRAVEN_GUEST_SEED").unwrap_or(7));
    let rigs = Rig::all();
    let (mut torn, mut announced) = (0, 0);
    for round in 0..rounds {
        let Some(rig) = rigs.get(round as usize % rigs.len().max(1)) else { return };
        // Of this kernel's disk, the trail that the cut before has left.
        let before = round.checked_sub(rigs.len() as u64);
        let next_session = before.map_or(String::new(), |before| {
            format!(
                "load_shim --slots 1024\ntrail=/mnt/trail-{before}\nrecord numbers\n\
                 load calls 1 100 9 || exit 1\nended\n\
                 graven shim unload || exit 1\necho went on\n"
            )
        });
        let script = format!(
            "{next_session}\
             load_shim --slots 1024\n\
             graven record --source shim --trail /mnt/trail-{round} --shim-rules /numbers.rules --quiet \
             --segment-bytes 512K --ack >/dev/ttyS2 &\n\
             load calls 2 100000000\nexit 1"
        );
        let Some(machine) = rig.machine(&script) else { return };
        let Some(mut running) = crate::rig::here(machine.boot(rig.dir.path())) else { return };
        let heard = running.wait_until(|it| last(&it.data()).is_some());
        std::thread::sleep(std::time::Duration::from_millis(random.u64(..2000)));
        let verdict = running.power_cut().unwrap();
        assert!(heard, "nothing was announced: {}", verdict.told());
        let upto = last(&verdict.data).unwrap();
        let trail = rig.trail_of(&format!("trail-{round}"));
        let trail = trail.to_string_lossy();
        let verified = crate::rig::graven(&["verify", &trail, "--durable", &upto.to_string()]);
        let (code, said) = (verified.status.code(), crate::rig::said(&verified));
        assert!(matches!(code, Some(0 | 3)), "straight after the cut: {code:?}: {said}");
        assert!(losses(&trail).is_empty());
        (torn, announced) = (torn + u64::from(code == Some(3)), announced + upto + 1);
        eprintln!("cut {round} on {}: {upto} announced, verify {code:?}", rig.kernel.release);
        let Some(before) = before else { continue };
        assert!(verdict.output.contains("went on"), "{}", verdict.told());
        let trail = rig.trail_of(&format!("trail-{before}"));
        verify(&trail, &[4]);
        let losses = losses(&trail.to_string_lossy());
        assert!(
            matches!(&losses[..], [one] if one.contains("cause=undrained certainty=at-least count=0")),
            "{losses:#?}"
        );
    }
    eprintln!("{rounds} power cuts: {announced} records announced and there, {torn} torn tails");
}

/// What a trail states as lost.
fn losses(trail: &str) -> Vec<String> {
    let shown = crate::rig::said(&crate::rig::graven(&["show", trail]));
    shown.lines().filter(|line| line.contains("op=loss")).map(str::to_owned).collect()
}

/// The highest seq in lines `durable N`.
fn last(data: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(data);
    let line = text.rsplit_once('\n')?.0.lines().next_back()?;
    line.strip_prefix("durable ")?.parse().ok()
}
