//! The unit file under systemd itself, which is the guest's first process: that what the unit forbids is nothing that the
//! daemon needs, and that systemd and the two processes agree on who is the service.

use crate::rig::{export, here, kernel, machine, skip, temp_dir, verify};
use graven_guest::{CacheMode, End, Image, Initramfs, Kernel, Line, Machine, Verdict};
use std::fs;
use std::path::Path;

const SYSTEMD: &str = "/lib/systemd/systemd";
const UNITS: &str = "/lib/systemd/system";

/// The unit as it is installed.
const UNIT: &str = include_str!("../../../tools/packaging/graven.service");

/// Of systemd's own units, what a boot to `multi-user.target` goes through.
const TARGETS: [&str; 12] = [
    "basic",
    "local-fs",
    "local-fs-pre",
    "multi-user",
    "paths",
    "shutdown",
    "slices",
    "sockets",
    "swap",
    "sysinit",
    "timers",
    "umount",
];

/// What the kernel starts in place of the harness's own, and what then becomes systemd.
const FIRST: &str = r#"#!/bin/busybox sh
export PATH=/bin
/bin/busybox mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
mount -t ext4 /dev/vda /var/lib/graven
[ ! -e /graven_shim.ko ] || graven shim load --module /graven_shim.ko
exec /lib/systemd/systemd
"#;

/// What is installed beside the unit.
const CONFIG: &str = r#"
[netlink]
rules = "/etc/audit/audit.rules"
"#;
const RULES: &str = "-D\n-a always,exit -F arch=b64 -S openat -F path=/watched -k watched\n";

/// What judges the service, as another one.
const CHECK_UNIT: &str = r#"
[Unit]
After=graven.service
[Service]
Type=oneshot
ExecStart=/bin/busybox sh /script
"#;

/// Soon enough to see that it is fed also by who took the keeper's place.
const WATCHDOG: &str = "[Service]\nWatchdogSec=20s\n";

/// `up PID WORDS` waits until the service has a main process that lives and is another than that, `$pid`, and says how it is.
const COMMON: &str = r#"
export PATH=/bin
stty -F /dev/ttyS1 raw
exec </dev/null >/dev/ttyS1 2>&1
end() { echo "guest: end $1"; exec >/dev/console 2>&1; sync; poweroff -f; }
of() { systemctl show graven --value -p "$1"; }
until_so() { n=0; until "$@"; do n=$((n + 1)); [ $n -lt 300 ] || { echo "never: $*"; systemctl status graven; dmesg | tail -n 40; end 1; }; sleep 0.2; done; }
is_up() { [ "$(of ActiveState)" = active ] && pid=$(of MainPID) && [ "$pid" != "$1" ] && [ -d "/proc/$pid" ]; }
up() { until_so is_up "$1"; echo "$2: $(of SubState), restarts $(of NRestarts)"; }
stop() { systemctl stop graven; echo "stop: $?, $(of ActiveState), $(of Result)"; }
"#;

/// `open N` makes N events.
const SCRIPT: &str = r#"
open() { n=0; while [ $n -lt $1 ]; do : </watched; n=$((n + 1)); done; }
is_another() { pid=$(pidof graven-writer) && [ "$pid" != "$1" ]; }
up 0 started
grep -E '^(Seccomp|NoNewPrivs|CapBnd|CapEff):' /proc/$pid/status
open 100

keeper=$pid
open 300 & opening=$!
kill -9 $keeper; up $keeper keeper; wait $opening

writer=$(pidof graven-writer)
open 300 & opening=$!
kill -9 $writer; until_so is_another $writer; wait $opening; up 0 writer

systemctl reload graven; echo "reload: $?"
open 100
sleep 25; up 0 watched

stop; auditctl -s; auditctl -l
systemctl start graven; echo "start: $?"; up 0 again
open 100

both="$(of MainPID) $(pidof graven-writer)"
kill -STOP $both; kill -9 $both
up "${both% *}" both
open 100

graven status /var/lib/graven/trail
echo last; stop
umount /var/lib/graven; echo "umount: $?"
"#;

/// A guest in which the service is installed with this configuration, and systemd starts it and then the script; nothing if this
/// machine cannot.
pub(crate) fn installed(kernel: &Kernel, config: &str, script: &str) -> Option<Initramfs> {
    if !Path::new(SYSTEMD).exists() {
        skip("there is no systemd (apt-get install systemd)");
        return None;
    }
    let mut initramfs = here(Initramfs::new(kernel))?;
    let graven = Path::new(env!("CARGO_BIN_EXE_graven"));
    here(initramfs.placed(Path::new(SYSTEMD)))?;
    here(initramfs.program_at("usr/bin/graven", graven))?;
    initramfs.link("bin/graven", "/usr/bin/graven").link("bin/kill", "busybox");
    here(initramfs.host_program("systemctl", "systemd"))?;
    for target in TARGETS {
        let unit = format!("{UNITS}/{target}.target");
        initramfs.file(unit.trim_start_matches('/'), 0o644, fs::read(&unit).unwrap());
    }
    let to = "etc/systemd/system";
    for (name, text) in [("graven", UNIT), ("check", CHECK_UNIT)] {
        let unit = format!("{name}.service");
        initramfs.file(&format!("{to}/{unit}"), 0o644, text.into());
        initramfs.link(&format!("{to}/multi-user.target.wants/{unit}"), &format!("../{unit}"));
    }
    initramfs.file(&format!("{to}/graven.service.d/test.conf"), 0o644, WATCHDOG.into());
    initramfs.link(&format!("{to}/default.target"), &format!("{UNITS}/multi-user.target"));
    for (path, mode, text) in [
        ("first", 0o755, FIRST),
        ("etc/graven/graven.toml", 0o640, config),
        ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", 0o644, "root:x:0:\n"),
        ("watched", 0o644, "x"),
    ] {
        initramfs.file(path, mode, text.into());
    }
    for dir in ["root", "home", "var/tmp", "var/lib/graven"] {
        initramfs.directory(dir);
    }
    initramfs.script(&format!("{COMMON}{script}end 0\n"));
    Some(initramfs)
}

/// How it ends; the script must end well.
pub(crate) fn run(machine: Machine, dir: &Path) -> Option<Verdict> {
    let command_line = "rdinit=/first systemd.default_standard_output=kmsg \
                        systemd.default_standard_error=kmsg systemd.show_status=no";
    let running = here(machine.command_line(command_line).boot(dir))?;
    let verdict = running.end().unwrap().expect(&End::Script(0));
    eprintln!("{:?}\n{}", verdict.took, verdict.output);
    Some(verdict)
}

/// What it said.
#[track_caller]
pub(crate) fn said(verdict: &Verdict, all: &[&str]) {
    for words in all {
        assert!(verdict.output.contains(words), "{words}: {}", verdict.told());
    }
}

#[test]
fn systemd_starts_restarts_reloads_and_stops_it() {
    let (Some(kernel), dir) = (kernel(Line::V6_12), temp_dir()) else { return };
    let Some(image) = here(Image::ext4(&dir.path().join("disk"), 1024)) else { return };
    let Some(mut initramfs) = installed(&kernel, CONFIG, SCRIPT) else { return };
    if here(initramfs.host_program("auditctl", "auditd").map(drop)).is_none() {
        return;
    }
    // Where the daemon looks for it.
    initramfs.link("sbin/auditctl", "/bin/auditctl");
    initramfs.file("etc/audit/audit.rules", 0o640, RULES.into());
    let Some(machine) = machine(&kernel, initramfs) else { return };
    let machine = machine.disk(image.disk(CacheMode::Writeback)).size(1280, 2);
    let Some(verdict) = run(machine, dir.path()) else { return };
    let words = [
        "started: running, restarts 0",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "keeper: running, restarts 0",
        "writer: running, restarts 0",
        "reload: 0",
        "watched: running, restarts 0",
        "\nstop: 0, inactive, success\nenabled 0\nfailure 1\npid 0\n",
        "No rules",
        "start: 0\nagain: running, restarts 0",
        "both: running, restarts 1",
        "last\nstop: 0, inactive, success",
        "umount: 0",
    ];
    said(&verdict, &words);
    let trail = image.copy_out("/trail", dir.path()).unwrap();
    // What systemd itself said of the restart came while nobody was there.
    verify(&trail, &[0, 4]);
    let log = export(&trail);
    let watched = log
        .lines()
        .filter(|line| line.starts_with("type=SYSCALL") && line.contains(r#"key="watched""#))
        .filter(|line| line.contains(" syscall=257 "))
        .count();
    assert_eq!(watched, 1000, "{log}");
}
