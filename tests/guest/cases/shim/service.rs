//! The unit file with the module's records: that it reads them within what the unit allows.

use super::trail::{each_once, records};
use super::{NUMBERS, Rig, load};
use crate::rig::{here, verify};
use crate::service::{installed, run, said};
use graven_guest::Line;

/// The module is loaded before: the unit may not.
const CONFIG: &str = r#"
[trail]
source = "shim"
[shim]
rules = "/etc/graven/shim.rules"
"#;

const SCRIPT: &str = r#"
up 0 started
grep -E '^(Seccomp|NoNewPrivs|CapBnd|CapEff):' /proc/$pid/status
load calls 2 20000 & loading=$!
sleep 1
kill -9 $pid; up $pid killed
wait $loading; echo "load: $?"
systemctl reload graven; echo "reload: $?"
sleep 25; up 0 watched
stop
graven shim unload; echo "unload: $?"
umount /var/lib/graven; echo "umount: $?"
"#;

#[test]
fn the_service_reads_it() {
    let Some(rig) = Rig::of(Line::V6_12) else { return };
    let Some(mut initramfs) = installed(&rig.kernel, CONFIG, SCRIPT) else { return };
    let Some(load) = load() else { return };
    if here(initramfs.program("load", &load).map(drop)).is_none() {
        return;
    }
    initramfs.file("graven_shim.ko", 0o644, rig.module.clone()).file(
        "etc/graven/shim.rules",
        0o640,
        NUMBERS.into(),
    );
    let Some(machine) = rig.machine_of(initramfs) else { return };
    let Some(verdict) = run(machine.size(1024, 2), rig.dir.path()) else { return };
    let words = [
        "started: running, restarts 0",
        "Seccomp:\t2",
        "killed: running, restarts 1",
        "load: 0",
        "reload: 0",
        "watched: running, restarts 1",
        "stop: 0, inactive, success",
        "unload: 0",
        "umount: 0",
    ];
    said(&verdict, &words);
    verify(&rig.trail(), &[0]);
    each_once(&records(&rig.trail()), 2, 20_000);
}
