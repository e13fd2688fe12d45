//! The kernel's own audit in ways that would change the machine they are tested on until its next boot: on
//! from the first moment, locked, and with a panic where a record would be lost.

use crate::rig::{export, graven, here, kernel, machine, said, temp_dir, verify, with_graven};
use graven_guest::{CacheMode, End, Image, Kernel, Line, Verdict};
use std::path::Path;

/// What every script begins with. `open N` makes N events with the key `watched`.
const PROLOGUE: &str = r#"
mount -t ext4 /dev/vda /mnt || exit 1
open() { n=0; while [ $n -lt $1 ]; do : </watched; n=$((n + 1)); done; }
watch() { auditctl -a always,exit -F arch=b64 -S openat -F path=/watched -k watched; }
record() {
    graven record --source netlink --ack --segment-bytes 1M --trail /mnt/trail >/dev/ttyS2 &
    pid=$!
    while ! auditctl -s | grep -q "^pid [1-9]" || ! auditctl -s | grep -q "^enabled 1"; do
        kill -0 $pid || exit 1
        sleep 0.1
    done
}
finish() { kill -TERM $pid; wait $pid; echo "record: $?"; }
"#;

/// Runs a script in a guest whose command line has this, and judges how it ends; returns where the trail is,
/// if `trail` is there. Nothing if this machine cannot.
fn run(kernel: &Kernel, dir: &Path, command_line: &str, script: &str) -> Option<(Image, Verdict)> {
    let image = here(Image::ext4(&dir.join("disk"), 64))?;
    let mut initramfs = with_graven(kernel)?;
    here(initramfs.host_program("auditctl", "auditd"))?.file("watched", 0o644, b"x".to_vec());
    initramfs.script(&format!("{PROLOGUE}{script}"));
    let disk = image.disk(CacheMode::Writeback);
    let machine = machine(kernel, initramfs)?.disk(disk).command_line(command_line);
    let verdict = here(machine.boot(dir))?.end().unwrap();
    Some((image, verdict))
}

/// The kernel's serials in a log, in order, each once.
fn serials(log: &str) -> Vec<u64> {
    let of = |line: &str| {
        line.split_once("msg=audit(")?.1.split_once(':')?.1.split(')').next()?.parse().ok()
    };
    // Graven's own records have none.
    let log = log.lines().filter(|line| !line.starts_with("type=DAEMON_"));
    let mut serials: Vec<u64> = log.filter_map(of).collect();
    serials.sort_unstable();
    serials.dedup();
    serials
}

/// How many events of the rule a log has.
fn watched(log: &str) -> usize {
    let event = |line: &&str| line.starts_with("type=SYSCALL") && line.contains(r#"key="watched""#);
    // The call that added the rule has its key too, and another number.
    log.lines().filter(event).filter(|line| line.contains(" syscall=257 ")).count()
}

#[test]
fn what_the_kernel_held_before_the_daemon_arrives() {
    let script = "watch\nopen 20\nrecord\nopen 30\nfinish\nauditctl -s\numount /mnt\n";
    for line in Line::ALL {
        let (Some(kernel), dir) = (kernel(line), temp_dir()) else { continue };
        let held = "audit=1 audit_backlog_limit=8192";
        let Some((image, verdict)) = run(&kernel, dir.path(), held, script) else { return };
        let verdict = verdict.expect(&End::Script(0));
        assert!(verdict.output.contains("record: 0"), "{}", verdict.told());
        assert!(verdict.output.contains("enabled 1"), "audit was on before: {}", verdict.told());
        assert!(verdict.output.contains("\nlost 0"), "{}", verdict.told());
        let trail = image.copy_out("/trail", dir.path()).unwrap();
        verify(&trail, &[0]);
        let log = export(&trail);
        assert_eq!(watched(&log), 50, "{log}");
        // The kernel counts from its boot on: nothing is missing since then.
        let serials = serials(&log);
        let last = *serials.last().expect("events");
        assert_eq!(serials, (1..=last).collect::<Vec<_>>());
        eprintln!("{}: {last} events since boot, {:?}", kernel.release, verdict.took);
    }
}

/// With the kernel's own limit of 64 records the queue overflows, which it counts and whose serials are
/// missing between those that arrive.
#[test]
fn what_the_kernel_could_not_hold_is_stated() {
    let script = "watch\nopen 40\nauditctl -s\nrecord\nopen 30\nfinish\numount /mnt\n";
    let (Some(kernel), dir) = (kernel(Line::V6_12), temp_dir()) else { return };
    let Some((image, verdict)) = run(&kernel, dir.path(), "audit=1", script) else { return };
    let verdict = verdict.expect(&End::Script(0));
    assert!(!verdict.output.contains("\nlost 0"), "{}", verdict.told());
    let trail = image.copy_out("/trail", dir.path()).unwrap();
    let serials = serials(&export(&trail));
    let missing = serials.windows(2).map(|pair| pair[1] - pair[0] - 1).sum::<u64>();
    assert!(missing > 0, "{serials:?}");
    verify(&trail, &[4]);
}

#[test]
fn a_locked_configuration_is_refused() {
    let script = "auditctl -e 2\ngraven record --source netlink --segment-bytes 1M --trail /mnt/trail\n\
                  echo \"record: $?\"\ngraven run --segment-bytes 1M --trail /mnt/other -- true\necho \"run: $?\"\n\
                  graven doctor\n[ -e /mnt/trail ] || echo no trail\numount /mnt\n";
    for line in Line::ALL {
        let (Some(kernel), dir) = (kernel(line), temp_dir()) else { continue };
        let Some((_, verdict)) = run(&kernel, dir.path(), "audit=1", script) else { return };
        let verdict = verdict.expect(&End::Script(0));
        // It is asked before anything is made.
        for words in [
            "record: 8",
            "run: 125",
            "the audit configuration is locked",
            "only a reboot",
            "no trail",
        ] {
            assert!(verdict.output.contains(words), "{words}: {}", verdict.told());
        }
    }
}

/// `-f 2` asks the kernel to stop rather than to lose a record. While nobody takes them it holds as many as
/// its limit says; the next is one too many. That is the kernel's doing, and the trail is what it was.
#[test]
fn a_kernel_told_to_panic_does_when_the_daemon_is_killed() {
    let script = "watch\nrecord\nopen 100\n\
                  of_rule() { graven export --format raw /mnt/trail | grep -c 'syscall=257 .*key=\"watched\"'; }\n\
                  until [ \"$(of_rule)\" -ge 100 ]; do sleep 0.2; done\nauditctl -f 2\n\
                  while pidof graven graven-writer >/dev/null; do\n\
                  killall -STOP graven graven-writer; killall -9 graven graven-writer; done\n\
                  echo killed\nopen 100000\n";
    for line in Line::ALL {
        let (Some(kernel), dir) = (kernel(line), temp_dir()) else { continue };
        let Some((image, verdict)) = run(&kernel, dir.path(), "audit=1", script) else { return };
        let End::Panic(words) = &verdict.end else { panic!("{}", verdict.told()) };
        assert!(words.starts_with("audit: "), "{}", verdict.told());
        assert!(verdict.output.contains("killed"), "{}", verdict.told());
        assert!(verdict.complaints().is_empty(), "{}", verdict.told());
        eprintln!("{}: {words}, {:?}", kernel.release, verdict.took);
        let trail = image.copy_out("/trail", dir.path()).unwrap();
        verify(&trail, &[0, 3]);
        let acknowledged = String::from_utf8_lossy(&verdict.data);
        let last = acknowledged.lines().next_back().and_then(|line| line.strip_prefix("durable "));
        let trail = trail.to_string_lossy();
        let verified = graven(&["verify", &trail, "--durable", last.expect("acknowledged")]);
        assert!(matches!(verified.status.code(), Some(0 | 3)), "{}", said(&verified));
        assert!(watched(&export(Path::new(&*trail))) >= 100);
    }
}
