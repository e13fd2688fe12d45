//! The status of a recording of kernel audit: what the kernel says is in it.

use crate::rig::audit::Turn;
use crate::rig::kept::{Kept, Role};
use crate::rig::{Running, on, record_from, temp_dir};
use rustix::process::Signal;
use std::process::{Command, Stdio};

#[test]
fn the_status_has_what_the_kernel_says() {
    let Some(turn) = Turn::take() else { return };
    let dir = temp_dir();
    let trail = dir.path().join("trail");
    let kept = Kept::of(&trail);
    let mut running = Running::start(&mut record_from("netlink", &trail), Stdio::null());
    let status = || on("status", &trail, &["--json"]).text();
    running.wait_until("the kernel's answer", |_| status().contains("\"enabled\":1"));
    let told: serde_json::Value = serde_json::from_str(&status()).expect("JSON");
    assert_eq!(told["source"], "netlink");
    // The keeper is registered, and the writer tells.
    let kernel = (&told["kernel"]["pid"], &told["kernel"]["enabled"]);
    assert_eq!(kernel, (&running.pid().into(), &1.into()));
    assert_eq!(told["pid"], kept.pid(Role::Writer));
    let number = |name: &str| told["kernel"][name].as_u64().expect(name);
    assert!(number("backlog_limit") >= 8192, "{told:#}");
    // It is asked twice a second, and makes producers wait for a minute.
    assert!(number("age_ns") < 10_000_000_000, "{told:#}");
    assert!((50..70).contains(&(number("wait_limit_ns") / 1_000_000_000)), "{told:#}");
    let text = on("status", &trail, &["--metrics"]).text();
    assert!(text.contains("graven_kernel_backlog_limit_records{"), "{text}");
    // As anything may do that has the right to: a journal of systemd's when it starts, an administrator.
    let enable = |enabled: &str| {
        let set = Command::new("auditctl").args(["-e", enabled]).output().expect("auditctl");
        assert!(set.status.success(), "{set:?}");
    };
    on("status", &trail, &[]).expect(0);
    enable("0");
    running.wait_until("the alarm", |_| on("status", &trail, &[]).text().contains("audit_off"));
    on("status", &trail, &[]).expect(2);
    enable("1");
    running.wait_until("its end", |_| on("status", &trail, &[]).code() == 0);
    running.signal(Signal::TERM);
    running.end().expect(0);
    on("status", &trail, &[]).expect(2).says("");
    drop(turn);
}
