//! Power cuts in a storm, again and again on the same trail: what was acknowledged to the host is there, the
//! rest is a prefix of what was sent, and the next boot goes on where the trail ends.
//!
//! A guest's data port takes acknowledgements out of it, so the host knows of them whatever becomes of the
//! guest. Two kinds of disk: an image, which has all that QEMU completed, so that a cut loses what the
//! guest's kernel kept to itself; and one with a volatile write cache, of which a cut also loses any sectors
//! that no flush has covered.

use crate::rig::{export, graven, here, kernel, machine, number, said, temp_dir, with_graven};
use graven_guest::{CacheMode, Disk, Image, Kernel, Line, Loss, Machine, Volatile};
use std::path::Path;
use std::time::Duration;

/// Cuts on one trail before the next is begun, which bounds what has to be checked every time.
const CUTS_A_TRAIL: u64 = 10;

const IMAGE_MIB: u64 = 192;

/// How the guest sees its disk.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Image(CacheMode),
    Volatile,
}

/// What the cuts were like, to see that they are not all the same.
#[derive(Debug, Default)]
struct Seen {
    cuts: u64,
    /// Cut before anything was acknowledged in this life: at boot, at recovery.
    early: u64,
    torn: u64,
    lines: u64,
    /// Lines that were there and had not been acknowledged.
    unannounced: u64,
    /// Bytes that were in a volatile cache at a cut.
    cached_bytes: usize,
}

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    let seed = number("GRAVEN_GUEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let cuts = number("GRAVEN_GUEST_CUTS").unwrap_or(6);
    eprintln!("GRAVEN_GUEST_SEED={seed}");
    let kernels: Vec<Kernel> = Line::ALL.into_iter().filter_map(kernel).collect();
    if kernels.is_empty() {
        return;
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seen = Seen::default();
    while seen.cuts < cuts {
        let cuts_here = CUTS_A_TRAIL.min(cuts - seen.cuts);
        if one_trail(&kernels, cuts_here, &mut random, &mut seen).is_none() {
            return;
        }
    }
    eprintln!("power cuts: {seen:?}");
    assert!(cuts < 6 || seen.early < seen.cuts, "every cut comes too early: {seen:?}");
}

/// The same with a disk that answers a flush and does nothing: the test must notice.
#[test]
fn a_disk_that_lies_is_noticed() {
    let Some(kernel) = kernel(Line::V6_12) else { return };
    let dir = temp_dir();
    let Some(image) = here(Image::ext4(&dir.path().join("disk"), IMAGE_MIB)) else { return };
    let mut disk = Volatile::open_lying(image.path()).unwrap();
    let Some(machine) = guest(&kernel, disk.plug().unwrap(), 0, false) else { return };
    let Some(mut running) = here(machine.boot(dir.path())) else { return };
    let acknowledged = running.wait_until(|it| last_acknowledged(&it.data()).is_some());
    let verdict = running.power_cut().unwrap();
    assert!(acknowledged, "{}", verdict.told());
    let mut random = fastrand::Rng::with_seed(0);
    disk.power_cut(Loss::Everything, &mut random).unwrap();
    let judged = judge(&image, dir.path(), &verdict.data, 0, &mut Seen::default());
    assert!(judged.is_err(), "{judged:?}");
}

/// At most so many cuts on a new trail. Nothing if this machine cannot.
fn one_trail(
    kernels: &[Kernel],
    cuts: u64,
    random: &mut fastrand::Rng,
    seen: &mut Seen,
) -> Option<()> {
    let dir = temp_dir();
    let image = here(Image::ext4(&dir.path().join("disk"), IMAGE_MIB))?;
    let mut next = 0;
    for _ in 0..cuts {
        let kernel = random.choice(kernels)?;
        let kind = match random.u32(..6) {
            0 => Kind::Image(CacheMode::Writeback),
            1 => Kind::Image(CacheMode::None),
            _ => Kind::Volatile,
        };
        let mut volatile = Volatile::open(image.path()).unwrap();
        let disk = match kind {
            Kind::Image(cache) => image.disk(cache),
            Kind::Volatile => volatile.plug().unwrap(),
        };
        let machine = guest(kernel, disk, next, random.bool())?;
        let mut running = here(machine.boot(dir.path()))?;
        if random.u32(..4) == 0 {
            running.wait_until(|it| it.output().contains("mounted"));
        } else {
            running.wait_until(|it| last_acknowledged(&it.data()).is_some());
        }
        std::thread::sleep(Duration::from_millis(random.u64(..1500)));
        let verdict = running.power_cut().unwrap();
        let complaints = verdict.complaints();
        assert!(complaints.is_empty() && verdict.output.contains("mounted"), "{}", verdict.told());
        seen.cached_bytes += volatile.power_cut(Loss::Anything, random).unwrap();
        let what = format!("{kind:?} under {}, from line {next}", kernel.release);
        next = judge(&image, dir.path(), &verdict.data, next, seen)
            .unwrap_or_else(|why| panic!("{what}: {why}\n{}", verdict.told()));
        eprintln!("{what}: {next} lines, {:?}", verdict.took);
    }
    seen.lines += next;
    Some(())
}

/// A guest that records lines from this number on, as fast as they come, or as a shell counts.
fn guest(kernel: &Kernel, disk: Disk, from: u64, slow: bool) -> Option<Machine> {
    let mut initramfs = with_graven(kernel)?;
    let lines = if slow {
        format!("n={from}; while :; do echo $n; n=$((n + 1)); done")
    } else {
        format!("seq {from} 1000000000")
    };
    // Keys change often, so that cuts fall into that too.
    initramfs.script(&format!(
        "mount -t ext4 /dev/vda /mnt || exit 1\n\
         echo mounted\n\
         {{ {lines}; }} | graven record --source stdin --ack --segment-bytes 512K --trail /mnt/trail \
         --checkpoint-interval 50ms --epoch-segments 1 >/dev/ttyS2\n\
         exit 1\n"
    ));
    Some(machine(kernel, initramfs)?.disk(disk))
}

/// The highest seq in lines `durable N`. A line that was cut off is none.
fn last_acknowledged(data: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(data);
    let whole = text.rsplit_once('\n')?.0;
    let last = whole.lines().next_back()?;
    let seq = last.strip_prefix("durable ").and_then(|seq| seq.parse().ok());
    Some(seq.unwrap_or_else(|| panic!("{last:?} is no acknowledgement")))
}

/// Checks what a cut has left, of a trail that had `before` lines; returns how many it has now.
fn judge(
    image: &Image,
    dir: &Path,
    data: &[u8],
    before: u64,
    seen: &mut Seen,
) -> Result<u64, String> {
    seen.cuts += 1;
    let acknowledged = last_acknowledged(data);
    seen.early += u64::from(acknowledged.is_none());
    let _ = std::fs::remove_dir_all(dir.join("trail"));
    let copied = image.copy_out("/trail", dir);
    let begun = copied.as_ref().is_ok_and(|trail| trail.join("identity").exists());
    if !begun && acknowledged.is_none() && before == 0 {
        return Ok(0);
    }
    let trail = copied.map_err(|why| why.to_string())?;
    let trail = &trail.to_string_lossy()[..];
    let durable = acknowledged.map(|seq| seq.to_string());
    let mut args = vec!["verify", trail];
    args.extend(durable.iter().flat_map(|seq| ["--durable", seq]));
    let verified = graven(&args);
    match verified.status.code() {
        Some(0) => {}
        Some(3) => seen.torn += 1,
        code => return Err(format!("verify ends with {code:?}: {}", said(&verified))),
    }
    let exported = export(Path::new(trail));
    let mut lines = 0;
    // Graven's own records are among them.
    for line in exported.lines().filter(|line| !line.starts_with("type=DAEMON_")) {
        if line.parse() != Ok(lines) {
            return Err(format!("line {lines} is {line:?}"));
        }
        lines += 1;
    }
    let needed = acknowledged.map_or(before, |seq| seq + 1 - others(trail, seq));
    if lines < needed.max(before) {
        return Err(format!("{lines} lines are there of {needed} acknowledged, {before} before"));
    }
    seen.unannounced += lines - needed;
    Ok(lines)
}

/// How many records up to this seq are Graven's own and no lines.
fn others(trail: &str, seq: u64) -> u64 {
    let shown = graven(&["show", trail, "--json", "--seq", &format!("..={seq}")]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    shown.lines().filter(|line| !line.contains(r#""source":"stdin""#)).count() as u64
}
