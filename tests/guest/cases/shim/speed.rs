//! What recording costs a storm of opens, beside kernel audit with auditd in the same guest and the same round. Ratios: QEMU
//! interprets. With Debian's QEMU the guest's two processors take turns, so that what a daemon needs is part of what a storm takes;
//! `tests/guest/newer-qemu` has one with which they need not.
//!
//! `cargo test --release -p graven --test guest -- --ignored speed --nocapture`; `GRAVEN_GUEST_SHIM_ROUNDS` says how many rounds, for
//! five of which the disk has room, and `GRAVEN_GUEST_AUDITD_ROUNDS` how many of them are auditd's too, which takes ten times as
//! long as the rest.
//!
//! Each storm is long enough to fill what lies between the kernel and the disk before the clock starts: of kernel audit a
//! backlog of 8,192 records, which are 1,638 events, of the shim two rings of 8,192 slots. Both daemons write to the same disk; auditd
//! runs as a service (`-n`): with `-f` it writes to its standard output, and syncs nothing.

use super::Rig;
use super::trail::calls_of;
use crate::rig::{here, number, verify};
use graven_guest::End;
use std::collections::BTreeMap;

/// `openat`.
const OPENAT: u32 = 257;

/// Opens of a recorded storm, and those before the clock starts; the script has them too.
const RECORDED: u64 = 150_000;

/// Debian 12's auditd.conf, as far as it concerns writing; the format and the flush come in front. It keeps five logs: what is
/// counted must be there.
const DEBIAN: &str = "\
local_events = yes
write_logs = yes
log_file = /mnt/audit/audit.log
log_group = root
max_log_file = 8
num_logs = 99
priority_boost = 4
name_format = NONE
max_log_file_action = ROTATE
space_left = 75
space_left_action = SYSLOG
admin_space_left = 50
admin_space_left_action = SUSPEND
disk_full_action = SUSPEND
disk_error_action = SUSPEND
distribute_network = no
q_depth = 2000
overflow_action = SYSLOG
max_restarts = 10
plugin_dir = /etc/audit/plugins.d
end_of_event_timeout = 2
";

/// How auditd is set: as Debian ships it, without names for numbers, with a flush for each record.
pub(super) const AUDITDS: [(&str, &str); 3] = [
    ("auditd-shipped", "log_format = ENRICHED\nflush = INCREMENTAL_ASYNC\nfreq = 50\n"),
    ("auditd-raw", "log_format = RAW\nflush = INCREMENTAL_ASYNC\nfreq = 50\n"),
    ("auditd-data", "log_format = RAW\nflush = DATA\n"),
];

/// What auditd needs besides its programs.
pub(super) fn auditd_files() -> Vec<(String, String)> {
    let conf =
        |(name, how): (&str, &str)| (format!("etc/{name}/auditd.conf"), format!("{how}{DEBIAN}"));
    let mut files: Vec<_> = AUDITDS.into_iter().map(conf).collect();
    let others = [
        ("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        // There are no plugins, and the folder must be there.
        ("etc/audit/plugins.d/none", ""),
    ];
    files.extend(others.map(|(path, text)| (path.to_owned(), text.to_owned())));
    files
}

/// Functions of the guest's shell. `audited NAME RULE COMMAND…` runs a command that makes so many events under auditd with
/// the settings NAME; then `$there` events are on the disk, the first of them `$took` hundredths of a second ago.
pub(super) const AUDITED: &str = r#"
ln -s /run /var/run 2>/dev/null || { mkdir -p /var; ln -s /run /var/run; }
# Hundredths of a second since boot.
now() { read -r now rest </proc/uptime; now=${now%.*}${now#*.}; now=${now#0}; }
audited() {
    of=$1; rule=$2; shift 2
    rm -rf /mnt/audit; mkdir -m 700 /mnt/audit
    auditd -n -s enable -c /etc/$of >/tmp/auditd 2>&1 & auditd=$!
    n=0; while ! auditctl -s | grep -q '^pid [1-9]'; do [ $n -lt 200 ] || { cat /tmp/auditd; exit 1; }; n=$((n + 1)); sleep 0.1; done
    # As Debian's rules have it.
    auditctl -b 8192 >/dev/null; auditctl --backlog_wait_time 60000 >/dev/null; auditctl -f 1 >/dev/null
    auditctl -a always,exit -F arch=b64 $rule -F uid=1000 || exit 1
    now; begun=$now
    "$@" || exit 1
    auditctl -D >/dev/null
    while ! auditctl -s | grep -q '^backlog 0'; do sleep 0.1; done
    auditctl -e 0 >/dev/null; kill $auditd; wait $auditd || { cat /tmp/auditd; exit 1; }
    now; took=$((now - begun))
    there=$(cat /mnt/audit/audit.log* | grep -c '^type=SYSCALL .* uid=1000 ')
    rm -rf /mnt/audit; sync
}
"#;

/// `opens NAME COUNT BEFORE` prints how long one takes; a line `disk` has events made, events on the disk, and hundredths of
/// a second from the first one until the daemon had all of them there and was gone.
const SCRIPT: &str = r#"
opens() { echo "open $1 $(load opens $2 $3 | cut -d' ' -f2)"; }
echo '-a always,exit -F arch=b64 -S openat -F uid=1000' >/opens.rules
echo '-a always,exit -F arch=b64 -S openat -F uid=9' >/others.rules
round=0; while [ $round -lt $rounds ]; do
    opens nothing 80000 2000
    load_shim --slots 8192
    opens loaded 80000 2000
    # What a writer does at its start, zeroing its first segments, is not what the call costs.
    record others; sleep 2; opens unmatched 80000 2000; ended; sleep 2
    record opens; now; begun=$now
    opens recorded 140000 10000
    ended; now; echo "disk recorded 150000 150000 $((now - begun))"
    graven shim unload || exit 1
    if [ $round -lt $auditd_rounds ]; then
        for how in auditd-shipped auditd-raw auditd-data; do
            audited $how "-S openat" opens $how 4000 2500
            echo "disk $how 6500 $there $took"
        done
    fi
    round=$((round + 1))
done
umount /mnt"#;

/// What a guest has measured, by name, in the order of rounds.
#[derive(Default)]
struct Measured {
    /// Seconds an open.
    open: BTreeMap<String, Vec<f64>>,
    /// Events on the disk a second, and of how many made how many are there.
    disk: BTreeMap<String, Vec<(f64, u64, u64)>>,
}

impl Measured {
    fn read(output: &str) -> Self {
        let mut this = Self::default();
        for line in output.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["open", name, seconds] => {
                    this.open.entry(name.to_owned()).or_default().push(seconds.parse().unwrap());
                }
                ["disk", name, made, there, took] => {
                    let there: u64 = there.parse().unwrap();
                    let seconds = took.parse::<f64>().unwrap() / 100.0;
                    let one = (there as f64 / seconds, made.parse().unwrap(), there);
                    this.disk.entry(name.to_owned()).or_default().push(one);
                }
                _ => {}
            }
        }
        this
    }

    /// A storm's time over that of nothing, round by round.
    fn slower(&self, name: &str) -> Vec<f64> {
        self.open[name]
            .iter()
            .zip(&self.open["nothing"])
            .map(|(it, nothing)| it / nothing)
            .collect()
    }
}

/// Median and range.
pub(super) fn spread(mut of: Vec<f64>) -> String {
    of.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", of[of.len() / 2], of[0], of[of.len() - 1])
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let rounds = number("GRAVEN_GUEST_SHIM_ROUNDS").unwrap_or(3);
    let auditd_rounds = number("GRAVEN_GUEST_AUDITD_ROUNDS").unwrap_or(rounds);
    for rig in Rig::all().into_iter().rev() {
        let script = format!("rounds={rounds}; auditd_rounds={auditd_rounds}\n{AUDITED}{SCRIPT}");
        let files = auditd_files();
        let Some(machine) = rig.machine_with(&script, &["auditd", "auditctl"], &files) else {
            return;
        };
        // auditd takes nearly all of it.
        let machine = machine.limit(std::time::Duration::from_secs(1200 * rounds));
        let Some(running) = here(machine.boot(rig.dir.path())) else { return };
        let verdict = running.end().unwrap().expect(&End::Script(0));
        let measured = Measured::read(&verdict.output);
        let release = &rig.kernel.release;
        eprintln!("{release}: an open takes {} µs", {
            spread(measured.open["nothing"].iter().map(|it| it * 1e6).collect())
        });
        for name in measured.open.keys().filter(|name| *name != "nothing") {
            eprintln!("{release} {name}: {} times that", spread(measured.slower(name)));
        }
        let recorded = &measured.disk["recorded"];
        for (name, rates) in &measured.disk {
            let rate = spread(rates.iter().map(|it| it.0).collect());
            let over = recorded.iter().zip(rates).map(|(ours, it)| ours.0 / it.0).collect();
            let missing: Vec<u64> = rates.iter().map(|it| it.1 - it.2).collect();
            eprintln!(
                "{release} {name}: {rate} events/s on the disk, recorded is {} times that; of {} missing {missing:?}",
                spread(over),
                rates[0].1
            );
        }
        // What the script says of the shim.
        let trail = rig.trail();
        verify(&trail, &[0]);
        assert_eq!(calls_of(&trail, OPENAT), rounds * RECORDED);
    }
}
