//! The tables of 2004 with the module loaded, beside kernel audit in the same guest. Ratios: QEMU interprets. There is no compiler,
//! so no build.
//!
//! `cargo test -p graven --test guest -- --ignored seeds --nocapture`

use super::Rig;
use super::speed::auditd_files;
use crate::rig::here;
use graven_guest::End;
use std::time::Duration;

/// Without the module, where the shim's rows say so; then with it.
const SCRIPT: &str = "\
ln -s busybox /bin/true; mkdir -p /var/log; ln -s /run /var/run
seeds() { graven bench seeds --dir /mnt --repetitions 3 --seconds 50ms --json /tmp/$@ 2>/tmp/said || { cat /tmp/said; exit 1; }; echo; }
seeds without
load_shim --slots 8192
seeds with --condition shim-rules,shim
graven shim unload || exit 1
cat /tmp/without /tmp/with >/dev/ttyS2
umount /mnt";

#[test]
#[ignore = "a measurement"]
fn seeds() {
    for rig in Rig::all() {
        let Some(machine) = rig.machine_with(SCRIPT, &["auditd", "auditctl"], &auditd_files())
        else {
            return;
        };
        // Memory for a keeper's 256 MiB.
        let machine = machine.size(1024, 2).limit(Duration::from_secs(1200));
        let Some(running) = here(machine.boot(rig.dir.path())) else { return };
        let verdict = running.end().unwrap().expect(&End::Script(0));
        eprintln!("{} in {:?}\n{}", rig.kernel.release, verdict.took, verdict.output);
        let reports: Vec<serde_json::Value> = serde_json::Deserializer::from_slice(&verdict.data)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let [without, with] = &reports[..] else { panic!("{}", verdict.told()) };
        let row = |report: &serde_json::Value, condition: &str| {
            let rows = report["rows"].as_array().unwrap().iter();
            rows.clone().find(|it| it["condition"] == condition).unwrap().clone()
        };
        for (report, condition, is_there) in [
            (without, "off", true),
            (without, "discard", true),
            (without, "auditd", true),
            (without, "graven", true),
            (without, "shim", false),
            (with, "shim-rules", true),
            (with, "shim", true),
        ] {
            let row = row(report, condition);
            for call in row["calls"].as_array().unwrap() {
                assert_eq!(call["us"]["median"].is_f64(), is_there, "{condition}: {call}");
                assert_eq!(call["us"]["reason"].is_string(), !is_there, "{condition}: {call}");
            }
            assert!(row["build"]["seconds"]["reason"].is_string(), "there is no compiler");
        }
        // Each call that was made is in the trail, which states no loss.
        let recorded = &row(with, "shim")["recorded"];
        assert_eq!(recorded["null_calls"], recorded["recorded"], "{recorded}");
        assert_eq!(recorded["verified"], serde_json::json!([0, 0, 0]));
        assert_eq!(row(with, "shim-rules")["recorded"]["recorded"], 0);
    }
}
