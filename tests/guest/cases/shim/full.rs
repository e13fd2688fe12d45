//! The trail's disk is full: who is recorded waits, whoever it is, and can be killed; the administrator's shell and process 1 go on; and
//! with room it goes on by itself.

use super::Rig;
use super::trail::{numbers, records};
use crate::rig::{here, verify};
use graven_guest::{CacheMode, End, Image};

/// The disk, and what a file takes of it that is removed later: less is left than the numbers need.
const DISK_MIB: u64 = 64;
const LEFT_MIB: u64 = 8;

/// Calls of each of four producers.
const COUNT: u64 = 15_000;

/// Records everybody but the administrator, whom his login tells. `standstill` waits until no call has ended for two seconds.
const SCRIPT: &str = r#"
echo '-a never,exit -F auid=0' >/everybody.rules
echo '-a always,exit' >>/everybody.rules
printf '#!/bin/sh\necho 1000 >/proc/self/loginuid\nexec "$@"\n' >/bin/as_user; chmod 755 /bin/as_user
standstill() {
    n=0; before=none
    while now=$(field records); [ "$now" != "$before" ]; do
        [ $n -lt 200 ] || { echo it goes on; exit 1; }
        n=$((n + 1)); before=$now; sleep 2
    done
}
free() { df -k /small | awk 'NR == 2 { print $4 }'; }
mount -t ext4 /dev/vdb /small || exit 1
dd if=/dev/zero of=/small/filler bs=1M count=$(($(free) / 1024 - left)) 2>/dev/null || exit 1
echo 0 >/proc/self/loginuid
load_shim --slots 256
trail=/small/trail
record everybody --compress never
as_user load calls 4 $count & load=$!
as_user load calls 1 100000000 7 & victim=$!
n=0; until grep -q 'has no room: recording waits' /tmp/reader; do
    kill -0 $reader && [ $n -lt 1200 ] || { cat /tmp/reader; exit 1; }
    n=$((n + 1)); sleep 0.1
done
standstill
echo "made $before waiting $(field waiting)"
# All five who make calls sleep in one.
[ $(field waiting) -ge 5 ] || exit 1
read -r child rest </proc/$victim/task/$victim/children
producers="$child $(cat /proc/$load/task/$load/children)"
[ "$(echo $producers | wc -w)" = 5 ] || exit 1
for task in $producers; do
    # Who waits looks now and then whether there is room: it may run just now.
    n=0; until grep -q '^State:.[SD] ' /proc/$task/status; do
        [ $n -lt 50 ] || { cat /proc/$task/status; exit 1; }
        n=$((n + 1)); sleep 0.05
    done
done
# Whoever comes now waits at its first call.
as_user load calls 1 100 8 & late=$!
# The administrator works.
mkdir /tmp/desk && echo x >/tmp/desk/note && mv /tmp/desk/note /tmp/desk/moved && [ "$(cat /tmp/desk/moved)" = x ] || exit 1
# So does process 1, which no rule exempts: it takes in whose parent is gone.
orphan=$(sh -c 'sleep 0.3 >/dev/null & echo $!')
n=0; while [ -d /proc/$orphan ]; do [ $n -lt 100 ] || { echo process 1 stands; exit 1; }; n=$((n + 1)); sleep 0.1; done
# A task that waits can be killed.
kill -9 $child
n=0; while grep -q '^State:[^Z]*$' /proc/$child/status 2>/dev/null; do
    [ $n -lt 100 ] || { echo it cannot be killed; cat /proc/$child/status; exit 1; }
    n=$((n + 1)); sleep 0.1
done
echo "killed, orphans $(field orphans)"
standstill
grep -q 'there is room again' /tmp/reader && exit 1
[ $(field passed) = 0 ] || exit 1
kill -0 $load && kill -0 $late || exit 1
# Room, and nothing else.
rm /small/filler
wait $load || exit 1
wait $late || exit 1
wait $victim && exit 1
[ $(grep -c 'there is room again' /tmp/reader) -ge 1 ] || exit 1
ended
cat /tmp/reader
graven shim unload || exit 1
umount /small /mnt"#;

#[test]
fn a_full_disk_makes_who_is_recorded_wait_and_nobody_else() {
    for rig in Rig::all() {
        let Some(small) = here(Image::ext4(&rig.dir.path().join("small"), DISK_MIB)) else {
            return;
        };
        let script = format!("mkdir /small\nleft={LEFT_MIB}\ncount={COUNT}\n{SCRIPT}");
        let Some(machine) = rig.machine(&script) else { return };
        let machine = machine.disk(small.disk(CacheMode::Writeback));
        let Some(running) = here(machine.boot(rig.dir.path())) else { return };
        let verdict = running.end().unwrap().expect(&End::Script(0));
        eprintln!("{}: {:?}\n{}", rig.kernel.release, verdict.took, verdict.output);
        let trail = small.copy_out("/trail", rig.dir.path()).unwrap();
        verify(&trail, &[0]);
        let numbers = numbers(&records(&trail));
        let of = |producer| numbers.keys().filter(|key| key.0 == producer).count() as u64;
        assert!(numbers.values().all(|times| *times == 1), "a number is there twice");
        for producer in 0..4 {
            assert_eq!(of(producer), COUNT, "producer {producer}");
        }
        assert_eq!(of(8), 100, "who came while there was no room");
        // Up to the call in which it was killed.
        assert!(numbers.contains_key(&(7, of(7) - 1)), "the killed one's are dense");
    }
}
