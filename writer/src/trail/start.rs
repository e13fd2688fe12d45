//! From a locked directory to an engine with its first segment.

use super::{Opened, Options, Shared, sleep};
use crate::clock;
use crate::dir::LockedDir;
use crate::disk::{Disk, DiskReport, IoBuf, Wake, open_disk};
use crate::engine::metrics::Metrics;
use crate::engine::recover::{Recovered, recover};
use crate::engine::{Cadence, Engine, Settings, Signing, Turn};
use crate::error::{OpenError, WriteError};
use crate::keys::files::{self, KeyFiles};
use crate::keys::{Choice, InForce, KeyOption, KeyTrouble, LocalKeys, choose};
use crate::ring::Ring;
use crate::room::Room;
use graven_format::consts::{CHECKPOINT_STORED_BYTES_MAX, FRAME_BYTES_MAX, HOST_BYTES_MAX};
use graven_format::key_file::KeyFile;
use graven_format::name;
use graven_format::note::{Note, Signed};
use rustix::io::Errno;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long opening a trail may spend on zeroing its first segment.
const FIRST_ZEROING_NS: u64 = 200_000_000;

/// Batches of the ring that may be in use without end, beside those that may be in flight: one is filled while another waits to be
/// taken, or is hashed.
const STANDING_BESIDE_FLIGHT: usize = 2;

/// Opens the disk, recovers, and prepares the first segment.
pub(super) fn start(
    dir: &LockedDir,
    options: &Options,
    wrap: impl FnOnce(Box<dyn Disk>) -> Box<dyn Disk>,
) -> Result<(Engine<Box<dyn Disk>>, Shared), OpenError> {
    let io = |operation| {
        let path = dir.path().to_owned();
        move |source| OpenError::Io { operation, path, source }
    };
    let mut buffers = (0..options.ring_buffers())
        .map(|_| IoBuf::new(FRAME_BYTES_MAX))
        .collect::<io::Result<Vec<_>>>()
        .map_err(io("allocation of the ring for"))?;
    let (disk, report) = open_disk(dir.path(), options.disk, &mut buffers, Some(dir.lock()))
        .map_err(io("opening the disk of"))?;
    let mut disk = wrap(disk);
    let mut local = files::read_all(dir.path()).map_err(io("reading the keys of"))?;
    local.may_break = options.key == KeyOption::Restart;
    let recovered = recover(&mut disk, dir.trail_id(), &local, clock::now())?;
    let key = settle_keys(dir, &local, &recovered)?;
    let settings = Settings {
        segment_bytes: options.segment_bytes,
        in_flight_max: options.in_flight_max,
        zero_ahead: options.zero_ahead.unwrap_or_else(|| zeroing_helps(&report)),
        on_full: options.on_full,
        compress: options.compress,
        boot_id: boot_id(),
        host: host(),
    };
    let opened = Opened {
        trail_id: dir.trail_id(),
        next_seq: recovered.next_seq(),
        boot_id: settings.boot_id,
        disk: report,
        broken: recovered.in_force.filter(|it| key.as_ref().is_some_and(|key| !is_of(key, it))),
        recovered: recovered.clone(),
        key: key.as_ref().map(|file| file.key.public().clone()),
    };
    let ring = Ring::new(buffers, recovered.next_seq(), disk.waker());
    let mut ring = ring.with_standing(options.in_flight_max + STANDING_BESIDE_FLIGHT);
    if key.is_some() {
        ring = ring.with_checkpoints(CHECKPOINT_STORED_BYTES_MAX);
    }
    let ring = Arc::new(ring);
    let watermark = Arc::new(recovered.watermark());
    let (accepted, durable) = (Arc::clone(&ring), Arc::clone(&watermark));
    let unsettled = move || durable.durable()..accepted.stats().next_seq;
    let (ring_too, watermark_too) = (Arc::clone(&ring), Arc::clone(&watermark));
    let metrics = Arc::new(Metrics::default());
    let room = Arc::new(Room::new(disk.waker(), unsettled));
    let signing = key.map(|key| signing(key, dir, options, &recovered, disk.waker()));
    let metrics_too = Arc::clone(&metrics);
    let mut engine = Engine::new(disk, ring_too, watermark_too, metrics_too, settings, recovered)
        .map_err(io("allocation of buffers for"))?;
    if let Some(signing) = signing {
        engine = engine.with_signing(signing);
    }
    let (checkpoints, opened) = (engine.checkpoints(), Arc::new(opened));
    let requests = engine.requests();
    let losses = Arc::default();
    let shared = Shared {
        ring,
        watermark,
        metrics,
        room,
        gate: Arc::default(),
        checkpoints,
        requests,
        losses,
        opened,
    };
    prepare_first(&mut engine)?;
    Ok((engine, shared))
}

/// Whether the trail's key in force is this one.
fn is_of(file: &KeyFile, in_force: &InForce) -> bool {
    file.key.public().bytes() == in_force.key
}

/// The key that signs from here on, if one does. Ends a change of keys that was cut off.
fn settle_keys(
    dir: &LockedDir,
    local: &LocalKeys,
    recovered: &Recovered,
) -> Result<Option<KeyFile>, OpenError> {
    let path = dir.path();
    let io = |operation| {
        let path = path.to_owned();
        move |source| OpenError::Io { operation, path, source }
    };
    let restart = |epoch| {
        let (now, segment) = (clock::now(), recovered.next_segment);
        let file = files::generate(dir.trail_id(), epoch, now.realtime_ns, segment)?;
        files::create(path, &file).map(|()| Some(file))
    };
    match choose(local, recovered.in_force) {
        Ok(Choice::Unsigned) if local.may_break => restart(0).map_err(io("making of a key in")),
        Ok(Choice::Unsigned) => Ok(None),
        Ok(Choice::Current(file)) => {
            if local.next_exists {
                files::erase(&path.join(name::KEY_NEXT)).map_err(io("erasing the next key in"))?;
            }
            Ok(Some(file))
        }
        Ok(Choice::Next(file)) => {
            files::install(path).map_err(io("erasing the last key in"))?;
            Ok(Some(file))
        }
        Err(KeyTrouble::Missing { in_force, .. }) if local.may_break => {
            restart(in_force.epoch + 1).map_err(io("making of a key in"))
        }
        Err(trouble) => Err(trouble.into()),
    }
}

/// What the engine signs with.
fn signing(
    key: KeyFile,
    dir: &LockedDir,
    options: &Options,
    recovered: &Recovered,
    wake: Arc<dyn Wake>,
) -> Signing {
    let nanoseconds = |it: Duration| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX);
    let cadence = Cadence {
        interval_ns: options.checkpoint.map(nanoseconds),
        epoch_ns: nanoseconds(options.epoch),
        epoch_segments: options.epoch_segments,
    };
    let signed =
        Note::parse(&recovered.note).is_ok_and(|note| note.verify(key.key.public()) == Signed::Yes);
    let store = KeyFiles::new(dir.path().to_owned(), dir.trail_id(), wake);
    Signing { key, signed, store: Box::new(store), cadence }
}

/// Runs the engine until the first segment is there, so that a disk without room for one is an
/// error now and not a wait later.
fn prepare_first<D: Disk>(engine: &mut Engine<D>) -> Result<(), OpenError> {
    let hurry_at_ns = clock::now().boottime_ns.saturating_add(FIRST_ZEROING_NS);
    while !engine.is_ready() {
        let now = clock::now();
        if now.boottime_ns >= hurry_at_ns {
            engine.hurry();
        }
        match engine.turn(now) {
            Turn::Failed(error) => return Err(error.into()),
            Turn::Sleep { until_ns } if !engine.waits_for_room() => {
                sleep(engine, Some(until_ns.unwrap_or(hurry_at_ns)));
            }
            _ => {}
        }
        if engine.waits_for_room() && engine.is_settled() {
            return Err(OpenError::Write(WriteError {
                operation: "allocation",
                file: "the first segment".to_owned(),
                offset: None,
                durable: engine.durable(),
                accepted: engine.durable(),
                no_room: true,
                source: Arc::new(Errno::NOSPC.into()),
            }));
        }
    }
    Ok(())
}

/// Whether overwriting written blocks is faster here than writing reserved ones. Filesystems
/// that never overwrite in place, or keep everything in memory, gain nothing.
fn zeroing_helps(report: &DiskReport) -> bool {
    matches!(report.filesystem.as_str(), "ext4" | "xfs")
}

/// The kernel's random id of this boot; zeros where there is no /proc.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map_or([0; 16], |id| {
        let mut bytes = id.to_le_bytes();
        // As the text has it: most significant digits first.
        bytes.reverse();
        bytes
    })
}

fn host() -> Vec<u8> {
    let mut host = rustix::system::uname().nodename().to_bytes().to_vec();
    host.truncate(HOST_BYTES_MAX);
    host
}
