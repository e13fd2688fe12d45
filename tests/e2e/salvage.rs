//! Quarantine and salvage onto a full disk, and from one that can only be read.

use crate::rig::lines::Lines;
use crate::rig::mount::{Mounted, can_mount};
use crate::rig::{graven, record, run, temp_dir};
use std::path::Path;

const LINES: Lines = Lines { seed: 11, bytes_max: 8 * 1024, long_every: 100 };
const COUNT: u64 = 600;

fn recorded(trail: &Path) {
    run(&mut record(trail), &LINES.bytes(0, COUNT)).expect(0);
    assert_eq!(LINES.check(trail), COUNT);
}

#[test]
fn a_full_destination_is_exit_6_and_the_trail_is_as_it_was() {
    if !can_mount() {
        return;
    }
    let room = temp_dir();
    let trail = room.path().join("trail");
    recorded(&trail);
    let disk = Mounted::ext4(40, 512);
    let dest = disk.trail();
    let ballast = disk.fill(1 << 20);
    for (command, more) in [("quarantine", &["--move"][..]), ("salvage", &[])] {
        let ran = run(graven().arg(command).arg(&trail).arg(&dest).args(more), b"").expect(6);
        let ran = ran.says("the trail is as it was").says("is not complete: remove it");
        assert!(ran.says("help: make room").stdout.is_empty(), "{command}");
        assert!(!dest.exists() && trail.exists(), "{command}");
        assert_eq!(LINES.check(&trail), COUNT);
        std::fs::remove_dir_all(dest.with_extension("partial")).expect("it is not complete");
    }
    std::fs::remove_file(ballast).expect("it is there");
    run(graven().arg("quarantine").arg(&trail).arg(&dest), b"").expect(0);
    assert_eq!(LINES.check(&dest), COUNT);
}

#[test]
fn a_disk_that_can_only_be_read_is_enough() {
    if !can_mount() {
        return;
    }
    let disk = Mounted::ext4(40, 512);
    let trail = disk.trail();
    recorded(&trail);
    disk.read_only();
    let room = temp_dir();
    for command in ["quarantine", "salvage"] {
        let dest = room.path().join(command);
        run(graven().arg(command).arg(&trail).arg(&dest), b"").expect(0);
        assert_eq!(LINES.check(&dest), COUNT, "{command}");
    }
    // The copy is whole before the original is found not to move.
    let dest = room.path().join("moved");
    let ran = run(graven().args(["quarantine", "--move"]).arg(&trail).arg(&dest), b"");
    ran.expect(2).says("the copy is complete");
    assert_eq!(LINES.check(&dest), COUNT);
}
