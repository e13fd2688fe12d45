//! What an administrator may ask for when room gets short, done for real: the guest is halted, or its kernel
//! panics. What Graven says of it is in the trail before.

use crate::rig::{graven, here, kernel, machine, said, temp_dir, verify, with_graven};
use graven_guest::{CacheMode, End, Image, Line, Verdict};

/// This init changes the run level as one does, and says so.
const TELINIT: &str =
    "#!/bin/sh\necho \"telinit $1\" >/dev/ttyS1\n[ \"$1\" != 0 ] || poweroff -f\n";

/// Records lines, and takes the room away once some are durable.
const SCRIPT: &str = r#"
mount -t ext4 /dev/vda /mnt || exit 1
{ n=0; while :; do echo $n; n=$((n + 1)); usleep 1000; done; } |
    graven record --source stdin --ack --segment-bytes 1M --trail /mnt/trail OPTIONS |
    tee /tmp/acknowledged >/dev/ttyS2 &
while [ ! -s /tmp/acknowledged ]; do sleep 0.1; done
fallocate -l 40M /mnt/ballast
sleep 20
pidof graven >/dev/null && echo "still recording"
killall graven
while pidof graven >/dev/null; do sleep 0.1; done
umount /mnt
"#;

/// Runs a guest in which room gets short and this is what is to be done; nothing if this machine cannot.
fn shorten(action: &str, options: &str) -> Option<Verdict> {
    let (kernel, dir) = (kernel(Line::V6_12)?, temp_dir());
    let image = here(Image::ext4(&dir.path().join("disk"), 64))?;
    let mut initramfs = with_graven(&kernel)?;
    let options = format!("--admin-space-left 30M --admin-space-left-action {action} {options}");
    initramfs
        .file("sbin/telinit", 0o755, TELINIT.into())
        .script(&SCRIPT.replace("OPTIONS", &options));
    let machine = machine(&kernel, initramfs)?.disk(image.disk(CacheMode::Writeback));
    let verdict = here(machine.boot(dir.path()))?.end().unwrap();
    let trail = image.copy_out("/trail", dir.path()).unwrap();
    verify(&trail, &[0, 3]);
    let trail = trail.to_string_lossy();
    let data = String::from_utf8_lossy(&verdict.data);
    let last = data.lines().next_back().and_then(|line| line.strip_prefix("durable "));
    let durable = graven(&["verify", &trail, "--durable", last.expect("acknowledged")]);
    assert!(matches!(durable.status.code(), Some(0 | 3)), "{}", said(&durable));
    let shown = said(&graven(&["show", &trail]));
    assert!(shown.contains(&format!("act={action}")), "{}\n{shown}", verdict.told());
    Some(verdict)
}

#[test]
fn the_machine_is_halted() {
    let Some(verdict) = shorten("halt", "") else { return };
    assert!(verdict.output.contains("telinit 0"), "{}", verdict.told());
    verdict.expect(&End::PoweredOff);
}

#[test]
fn the_machine_goes_to_single_user_mode() {
    let Some(verdict) = shorten("single", "") else { return };
    for words in ["telinit 1", "still recording"] {
        assert!(verdict.output.contains(words), "{words}: {}", verdict.told());
    }
    verdict.expect(&End::Script(0));
}

#[test]
fn the_kernel_panics() {
    let Some(verdict) = shorten("panic", "--allow-panic") else { return };
    assert!(matches!(verdict.end, End::Panic(_)), "{}", verdict.told());
    assert!(verdict.complaints().is_empty(), "{}", verdict.told());
}
