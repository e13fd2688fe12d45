//! Trails to be changed, made by the writer itself.

use crate::change::Original;
use crate::model::{Image, Model};
use anyhow::Context as _;
use fastrand::Rng;
use graven_format::consts::SEGMENT_BYTES_MIN;
use graven_format::identity::Identity;
use graven_format::lines::origin;
use graven_format::note::SecretKey;
use graven_format::{Flags, Record, Source, name};
use graven_writer::RING_BYTES_MIN;
use graven_writer::{Options, Trail};
use std::path::Path;
use tempfile::TempDir;

/// The kinds of trails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As it is written without a key.
    Unsigned,
    /// With checkpoints and several epochs.
    Signed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Signed, Self::Unsigned];
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
    let image = written(&mut random)?;
    let other = written(&mut random)?;
    let mut model = Model::of(&image);
    let Identity { trail_id, .. } = Identity::decode(&model.identity).context("its identity")?;
    if kind == Kind::Unsigned {
        return Ok(Original { image, model, keys: Vec::new(), other });
    }
    let mut key = || SecretKey::from_seed(&origin(trail_id), &[random.u8(..); 32]);
    let keys = vec![key()?, key()?, key()?];
    model.sign(&keys);
    let image = model.encode(|epoch| keys.get(epoch));
    let model = Model::of(&image);
    Ok(Original { image, model, keys, other })
}

/// What a writer leaves that was opened and closed a few times.
fn written(random: &mut Rng) -> anyhow::Result<Image> {
    let scratch = scratch()?;
    let dir = scratch.path().join("trail");
    let options = Options {
        segment_bytes: SEGMENT_BYTES_MIN,
        ring_bytes: RING_BYTES_MIN,
        ..Options::default()
    };
    let mut line = 0;
    for _ in 0..4 {
        let trail = Trail::open(&dir, &options).map_err(anyhow::Error::from)?;
        for _ in 0..random.u8(2..6) {
            let mut last = None;
            for _ in 0..random.u8(1..6) {
                let bytes: Vec<u8> = (0..random.usize(..300)).map(|_| random.u8(..)).collect();
                line += 1;
                let record = Record {
                    source: Source::Stdin,
                    kind: 0,
                    flags: Flags::NONE,
                    realtime_ns: 1_700_000_000_000_000_000 + line * 1_000_000,
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
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&dir)? {
        let entry = entry?;
        let file = entry.file_name().into_string().ok().context("a name of the trail")?;
        if file == name::IDENTITY || file.ends_with(".seg") {
            files.push((file, std::fs::read(entry.path())?));
        }
    }
    files.sort();
    Ok(Image { files })
}
