//! The key by which witnesses know a trail, in the file `key.witness` of its directory.
//!
//! A witness is told once which key a log has, and a trail's own keys end after minutes. This one stays. It keeps
//! others from sending a witness checkpoints in the trail's name and proves nothing of the trail: whoever
//! takes it can make the witness refuse the trail from then on, which is seen, and no more.

use graven_format::lines::trail_of;
use graven_format::note::SecretKey;
use graven_writer::keys::files;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use zeroize::Zeroizing;

pub use graven_format::name::KEY_WITNESS;

/// Longest file that is a key.
const FILE_BYTES_MAX: u64 = 512;

/// The key of the trail in `dir`, which is made if there is none; and whether it was.
///
/// # Errors
/// What the system says, or that the file holds no key of this origin.
pub fn open(dir: &Path, origin: &str) -> io::Result<(SecretKey, bool)> {
    let path = dir.join(KEY_WITNESS);
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW);
    // One that is there need not be writable.
    let opened = match options.open(&path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => None,
        opened => read(&opened?)?,
    };
    let (text, made) = match opened {
        Some(text) => (text, false),
        None => make(dir, &mut options, origin)?,
    };
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let key = SecretKey::parse(text.trim_end())
        .map_err(|why| wrong(format!("{KEY_WITNESS} holds no key: {why}")))?;
    if key.public().name() != origin {
        return Err(wrong(format!("{KEY_WITNESS} is another trail's: {}", key.public().name())));
    }
    Ok((key, made))
}

/// The file's text; `None` if whoever made it was cut off before it was whole, and so before it was told anybody.
fn read(file: &File) -> io::Result<Option<Zeroizing<String>>> {
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.ends_with('\n').then_some(text))
}

/// Writes a new key, unless another process was faster.
fn make(
    dir: &Path,
    options: &mut OpenOptions,
    origin: &str,
) -> io::Result<(Zeroizing<String>, bool)> {
    let mut file = options.write(true).create(true).mode(0o600).open(dir.join(KEY_WITNESS))?;
    // Given back when the file is closed.
    flock(&file, FlockOperation::LockExclusive)?;
    if let Some(text) = read(&file)? {
        return Ok((text, false));
    }
    let trail = trail_of(origin).ok_or_else(|| io::Error::other("its origin is no trail's"))?;
    let key = files::generate(trail, 0, 0, 0)?.key;
    let mut text = key.to_text();
    text.push('\n');
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok((text, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "graven/30313233343536373839616263646566";

    #[test]
    fn it_is_made_once_and_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let (first, made) = open(dir.path(), ORIGIN).expect("a key");
        assert!(made);
        let (again, made) = open(dir.path(), ORIGIN).expect("a key");
        assert!(!made && again.public() == first.public() && first.public().name() == ORIGIN);
        let path = dir.path().join(KEY_WITNESS);
        // Cut off while it was made, nobody was told of it.
        std::fs::write(&path, "PRIVATE+KEY+graven/3031").expect("a file");
        let (other, made) = open(dir.path(), ORIGIN).expect("a key");
        assert!(made && other.public() != first.public());
        for wrong in ["not a key\n", &format!("{}\n", *other.to_text())] {
            std::fs::write(&path, wrong).expect("a file");
            let other_origin = ORIGIN.replace('0', "1");
            assert!(open(dir.path(), &other_origin).is_err(), "{wrong}");
        }
        std::fs::remove_file(&path).expect("it is there");
        std::os::unix::fs::symlink("/dev/null", &path).expect("a link");
        assert!(open(dir.path(), ORIGIN).is_err());
        assert!(open(&dir.path().join("none"), ORIGIN).is_err());
    }
}
