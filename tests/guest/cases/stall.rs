//! A disk that stands still under load: device-mapper holds every request until it is told to go on.

use crate::rig::{export, here, kernel, machine, number, temp_dir, verify, with_graven};
use graven_guest::{CacheMode, End, Image, Line};

/// Events a second. The shell keeps to the clock: what it is late with it makes up for.
const RATE: u64 = 1000;

/// Seconds of load around the stall.
const AROUND_SECONDS: u64 = 5;

#[test]
fn a_disk_that_stalls_costs_no_event() {
    let stall = number("GRAVEN_GUEST_STALL_SECONDS").unwrap_or(10);
    let events = RATE * (stall + AROUND_SECONDS);
    let Some(kernel) = kernel(Line::V6_12) else { return };
    let dir = temp_dir();
    let Some(image) = here(Image::ext4(&dir.path().join("disk"), 256)) else { return };
    let Some(mut initramfs) = with_graven(&kernel) else { return };
    here(initramfs.modules(&kernel, &["dm_mod"])).expect("a module of every kernel");
    for (program, package) in [("auditctl", "auditd"), ("dmsetup", "dmsetup")] {
        if here(initramfs.host_program(program, package)).is_none() {
            return;
        }
    }
    initramfs.file("watched", 0o644, b"x".to_vec()).script(&script(events, stall));
    let Some(machine) = machine(&kernel, initramfs) else { return };
    let machine = machine.disk(image.disk(CacheMode::Writeback));
    let Some(running) = here(machine.boot(dir.path())) else { return };
    let verdict = running.end().unwrap().expect(&End::Script(0));
    let measured = |name: &str| {
        let of = |line: &str| line.strip_prefix(name)?.trim().parse::<u64>().ok();
        verdict.output.lines().find_map(of).unwrap_or_else(|| panic!("{name}: {}", verdict.told()))
    };
    let (load, during) = (measured("load centiseconds"), measured("events while it stood"));
    eprintln!(
        "{events} events in {load} cs, {during} while the disk stood for {stall} s; {:?}",
        verdict.took
    );
    assert!(during > 0, "the load waited for the disk: {}", verdict.told());
    assert_eq!(measured("acknowledged while it stood"), 0, "it did stand: {}", verdict.told());
    assert!(verdict.output.contains("record: 0"), "{}", verdict.told());
    let trail = image.copy_out("/trail", dir.path()).unwrap();
    verify(&trail, &[0]);
    let log = export(&trail);
    let watched = |line: &&str| line.starts_with("type=SYSCALL") && line.contains(" syscall=257 ");
    assert_eq!(log.lines().filter(watched).count() as u64, events);
}

/// Loads, stalls, goes on, ends, and prints what it measured.
fn script(events: u64, stall: u64) -> String {
    format!(
        r#"
echo "0 $(blockdev --getsz /dev/vda) linear /dev/vda 0" | dmsetup create --noudevsync slow || exit 1
mount -t ext4 /dev/dm-0 /mnt || exit 1
auditctl -a always,exit -F arch=b64 -S openat -F path=/watched -k watched
graven record --source netlink --ack --segment-bytes 4M --trail /mnt/trail >/tmp/acknowledged &
pid=$!
while ! auditctl -s | grep -q "^pid [1-9]" || ! auditctl -s | grep -q "^enabled 1"; do
    kill -0 $pid || exit 1
    sleep 0.1
done
# Hundredths of a second since boot.
now() {{ read -r now rest </proc/uptime; now=${{now%.*}}${{now#*.}}; }}
load() {{
    now; start=$now; made=0
    while [ $made -lt {events} ]; do
        n=0; while [ $n -lt 20 ]; do : </watched; n=$((n + 1)); done
        made=$((made + 20))
        echo $made >/tmp/made
        now; while [ $((now - start)) -lt $((made * 100 / {RATE})) ]; do usleep 5000; now; done
    done
    echo "load centiseconds $((now - start))"
}}
load &
load=$!
sleep 2
dmsetup suspend --nolockfs --noflush slow || exit 1
# What was written before may still be acknowledged.
sleep 1
read -r before </tmp/made
durable=$(wc -l </tmp/acknowledged)
sleep {stall}
read -r after </tmp/made
echo "acknowledged while it stood $(($(wc -l </tmp/acknowledged) - durable))"
dmsetup resume slow || exit 1
echo "events while it stood $((after - before))"
wait $load
kill -TERM $pid; wait $pid; echo "record: $?"
umount /mnt
"#
    )
}
