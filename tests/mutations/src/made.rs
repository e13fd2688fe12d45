//! Trails to be changed, made by the writer itself.

use crate::change::Original;
use crate::model::{Image, Model};
use anyhow::{Context as _, ensure};
use fastrand::Rng;
use graven_format::consts::SEGMENT_BYTES_MIN;
use graven_format::identity::Identity;
use graven_format::lines::origin;
use graven_format::note::SecretKey;
use graven_format::{Flags, Record, Source, TrailId, name};
use graven_writer::RING_BYTES_MIN;
use graven_writer::keys::KeyOption;
use graven_writer::rewrite::{Rewriter, Rewritten};
use graven_writer::{Options, Trail};
use std::ops::ControlFlow;
use std::path::Path;
use tempfile::TempDir;

/// When it was.
const TIME_NS: u64 = 1_700_000_000_000_000_000;

/// The kinds of trails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As it is written without a key.
    Unsigned,
    /// With checkpoints and several epochs.
    Signed,
    /// The same, its segments but the last one compressed.
    Compressed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Signed, Self::Compressed, Self::Unsigned];
}

/// A directory in memory, if there is one.
///
/// # Errors
/// It cannot be made.
pub fn scratch() -> std::io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

/// Writes the files that are not what they were `before`, and removes those that are no more.
///
/// # Errors
/// The file system's.
pub fn write(dir: &Path, image: &Image, before: Option<&Image>) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let old = before.map_or(&[][..], |image| &image.files[..]);
    for (name, _) in old {
        if !image.files.iter().any(|(kept, _)| kept == name) {
            std::fs::remove_file(dir.join(name))?;
        }
    }
    for file in image.files.iter().filter(|file| !old.contains(file)) {
        std::fs::write(dir.join(&file.0), &file.1)?;
    }
    Ok(())
}

/// A trail of this kind: several lives of a writer, a few frames each.
///
/// # Errors
/// It cannot be written.
pub fn original(kind: Kind, seed: u64) -> anyhow::Result<Original> {
    let mut random = Rng::with_seed(seed);
    let other = written(&mut random)?.encode(|_| None);
    let mut model = written(&mut random)?;
    let Identity { trail_id, .. } = Identity::decode(&model.identity).context("its identity")?;
    if kind == Kind::Unsigned {
        let image = model.encode(|_| None);
        return Ok(Original { image, model, keys: Vec::new(), other, compressed: false });
    }
    let mut key = || {
        let seed: [u8; 32] = std::array::from_fn(|_| random.u8(..));
        SecretKey::from_seed(&origin(trail_id), &seed)
    };
    let keys = vec![key()?, key()?, key()?];
    model.sign(&keys);
    let image = model.encode(|epoch| keys.get(epoch));
    let compressed = kind == Kind::Compressed;
    let image = if compressed { compress(&image)? } else { image };
    let model = Model::of(&image);
    Ok(Original { image, model, keys, other, compressed })
}

/// The same trail, rewritten as `graven compress` does it.
fn compress(image: &Image) -> anyhow::Result<Image> {
    let scratch = scratch()?;
    let dir = scratch.path().join("trail");
    write(&dir, image, None)?;
    let mut rewriter = Rewriter::new(&dir, 3)?;
    for pair in rewriter.segments()?.windows(2) {
        let done = rewriter.rewrite(&pair[0], &pair[1], &mut || ControlFlow::Continue(()))?;
        // A segment of one small frame takes its blocks either way.
        ensure!(matches!(done, Rewritten::Smaller { .. } | Rewritten::NotSmaller), "{done:?}");
    }
    read(&dir)
}

/// The trail's files.
fn read(dir: &Path) -> anyhow::Result<Image> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let file = entry.file_name().into_string().ok().context("a name of the trail")?;
        if file == name::IDENTITY || file.ends_with(".seg") {
            files.push((file, std::fs::read(entry.path())?));
        }
    }
    files.sort();
    Ok(Image { files })
}

/// What a writer leaves that was opened and closed a few times. Its id, its times and where its frames
/// end, which are the machine's, are replaced: the same seed is the same trail.
fn written(random: &mut Rng) -> anyhow::Result<Model> {
    let scratch = scratch()?;
    let dir = scratch.path().join("trail");
    let options = Options {
        segment_bytes: SEGMENT_BYTES_MIN,
        ring_bytes: RING_BYTES_MIN,
        key: KeyOption::Unsigned,
        ..Options::default()
    };
    let (mut line, mut plan) = (0, Vec::new());
    for _ in 0..4 {
        let trail = Trail::open(&dir, &options).map_err(anyhow::Error::from)?;
        let frames: Vec<u8> = (0..random.u8(2..6)).map(|_| random.u8(1..6)).collect();
        plan.push(frames.clone());
        for records in frames {
            let mut last = None;
            for _ in 0..records {
                let bytes: Vec<u8> =
                    (0..random.usize(..300)).map(|_| random.u8(b'a'..b'e')).collect();
                line += 1;
                let record = Record {
                    source: Source::Stdin,
                    kind: 0,
                    flags: Flags::NONE,
                    realtime_ns: TIME_NS + line * 1_000_000,
                    boottime_ns: line,
                    source_seq: line,
                    bytes: &bytes,
                };
                last = Some(trail.append(&record)?);
            }
            last.context("a record")?.wait_durable()?;
        }
        trail.close()?;
    }
    let mut model = Model::of(&read(&dir)?);
    let trail_id = TrailId(std::array::from_fn(|_| random.u8(..)));
    model.identity = Identity { trail_id, created_realtime_ns: TIME_NS }.encode().to_vec();
    for (segment, frames) in model.segments.iter_mut().zip(plan) {
        let header = &mut segment.header;
        (header.trail_id, header.boot_id) = (trail_id, [7; 16]);
        (header.created_realtime_ns, header.created_boottime_ns) = (TIME_NS, 1);
        segment.reason.1 = TIME_NS;
        let mut records = std::mem::take(&mut segment.frames).into_iter().flatten();
        let mut frame = |count: u8| records.by_ref().take(count.into()).collect();
        segment.frames = frames.into_iter().map(&mut frame).collect();
    }
    Ok(model)
}
