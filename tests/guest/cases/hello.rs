//! The harness itself: both kernels start, a module that was built against their headers is loaded and
//! unloaded, and what must be no success is none.

use crate::rig::{cache, here, kernel, machine, temp_dir};
use graven_guest::{End, Headers, Initramfs, Line};
use std::path::Path;
use std::time::Duration;

const SCRIPT: &str = "\
set -e
uname -r
test \"$(nproc)\" = 2
insmod /hello.ko
grep -q '^hello ' /proc/modules
cat /dev/graven-hello
rmmod hello
if grep -q '^hello ' /proc/modules; then exit 1; fi
test ! -e /dev/graven-hello
exit 42";

#[test]
fn a_module_is_built_loaded_and_unloaded() {
    for line in Line::ALL {
        let (Some(cache), Some(kernel)) = (cache(), kernel(line)) else { continue };
        let Some(headers) = here(Headers::fetch(&cache, &kernel)) else { continue };
        let (dir, build) = (temp_dir(), temp_dir());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guest/hello");
        let module = headers.build(&source, build.path(), "hello").unwrap();
        let Some(mut initramfs) = here(Initramfs::new(&kernel)) else { return };
        initramfs.script(SCRIPT).file("hello.ko", 0o644, std::fs::read(module).unwrap());
        let Some(machine) = machine(&kernel, initramfs) else { return };
        // As a module needs it that attaches probes under load.
        let machine = machine.size(384, 2).single_thread();
        let Some(running) = here(machine.boot(dir.path())) else { return };
        let verdict = running.end().unwrap();
        eprintln!("{}: {:?}", kernel.release, verdict.took);
        // A module from outside the tree taints the kernel, which says so; that is no complaint.
        let verdict = verdict.expect(&End::Script(42));
        assert_eq!(verdict.output.lines().next(), Some(&kernel.release[..]));
        assert!(verdict.output.contains("hello from hello"), "{}", verdict.told());
    }
}

#[test]
fn a_guest_that_fails_is_told_as_what_it_is() {
    let Some(kernel) = kernel(Line::V6_12) else { return };
    let end_of = |script: &str, limit: u64| {
        let dir = temp_dir();
        let mut initramfs = here(Initramfs::new(&kernel))?;
        initramfs.script(script);
        let machine = machine(&kernel, initramfs)?.limit(Duration::from_secs(limit));
        Some(here(machine.boot(dir.path()))?.end().unwrap())
    };
    let Some(panicked) = end_of("echo c >/proc/sysrq-trigger; sleep 60", 60) else { return };
    assert_eq!(panicked.end, End::Panic("sysrq triggered crash".to_owned()), "{}", panicked.told());
    let Some(hung) = end_of("while :; do sleep 1; done", 12) else { return };
    assert_eq!(hung.end, End::TooLong, "{}", hung.told());
    let Some(off) = end_of("poweroff -f", 60) else { return };
    assert_eq!(off.end, End::PoweredOff, "{}", off.told());
}
