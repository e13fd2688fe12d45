//! What recording costs a storm of opens, beside kernel audit with auditd in the same guest. Ratios: QEMU interprets.
//!
//! `cargo test -p graven --test guest -- --ignored speed --nocapture`

use super::Rig;
use crate::rig::here;
use graven_guest::End;
use std::collections::BTreeMap;

const AUDITD: &str = "\
log_file = /var/log/audit/audit.log
log_format = RAW
log_group = root
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = 1000
max_log_file_action = IGNORE
space_left = 2
space_left_action = IGNORE
admin_space_left = 1
admin_space_left_action = IGNORE
disk_full_action = IGNORE
disk_error_action = IGNORE
";

pub(super) const FILES: [(&str, &str); 3] = [
    ("etc/audit/auditd.conf", AUDITD),
    ("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
    ("etc/group", "root:x:0:\n"),
];

/// `opens NAME COUNT` prints how long one takes.
const SCRIPT: &str = "\
opens() { echo \"$1 $(load opens $2 | cut -d' ' -f2)\"; }
echo '-a always,exit -F arch=b64 -S openat -F uid=1000' >/opens.rules
echo '-a always,exit -F arch=b64 -S openat -F uid=9' >/others.rules
round=0; while [ $round -lt 5 ]; do
    opens nothing 20000
    load_shim --slots 8192
    opens loaded 20000
    record others; opens unmatched 20000; ended
    record opens; opens recorded 20000; ended
    graven shim unload || exit 1
    round=$((round + 1))
done
mkdir -p /var/log /mnt/audit; ln -s /mnt/audit /var/log/audit; chmod 700 /mnt/audit; ln -s /run /var/run
auditd -f >/tmp/auditd 2>&1 &
n=0; while ! auditctl -s | grep -q '^pid [1-9]'; do [ $n -lt 100 ] || { cat /tmp/auditd; exit 1; }; n=$((n + 1)); sleep 0.1; done
auditctl -e 1 >/dev/null; auditctl -b 8192 >/dev/null
auditctl -a always,exit -F arch=b64 -S openat -F uid=1000 || exit 1
opens auditd 500; opens auditd 500; opens auditd 500
auditctl -D >/dev/null; auditctl -e 0 >/dev/null; kill $(pidof auditd); sleep 1
umount /mnt";

#[test]
#[ignore = "a measurement"]
fn speed() {
    for rig in Rig::all() {
        let Some(machine) = rig.machine_with(SCRIPT, &["auditd", "auditctl"], &FILES) else {
            return;
        };
        let Some(running) = here(machine.boot(rig.dir.path())) else { return };
        let verdict = running.end().unwrap();
        let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for line in verdict.output.lines() {
            if let Some((name, Ok(seconds))) = line.split_once(' ').map(|(n, s)| (n, s.parse())) {
                all.entry(name).or_default().push(seconds);
            }
        }
        let mut median = |name: &str| {
            let of = all.get_mut(name).unwrap_or_else(|| panic!("{name}: {}", verdict.told()));
            of.sort_by(f64::total_cmp);
            of[of.len() / 2]
        };
        let nothing = median("nothing");
        for name in ["loaded", "unmatched", "recorded", "auditd"] {
            let it = median(name);
            eprintln!(
                "{} {name}: {:.1} µs an open, {:.2} of {:.1} µs",
                rig.kernel.release,
                it * 1e6,
                it / nothing,
                nothing * 1e6
            );
        }
        assert_eq!(verdict.end, End::Script(0), "{}", verdict.told());
    }
}
