//! A byte-for-byte copy of a trail, compared with the original, beside what `verify` says of it.

use crate::exit::Exit;
use crate::fresh::{self, Fresh, read_failed, write_failed};
use crate::recording::Failure;
use crate::trail::dir::open_regular;
use crate::trail::scan::read_some;
use crate::verify::report::hex;
use crate::verify::{self, Report};
use graven_format::name::Name;
use rustix::fs::{Advice, fadvise};
use sha2::{Digest as _, Sha256};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The checksums, as `sha256sum -c` reads them.
pub const SUMS: &str = "SHA256SUMS";
/// The report of `verify`.
pub const REPORT: &str = "report.json";
/// What the original is called once it was moved aside.
pub const SUFFIX_MOVED: &str = ".quarantined";

/// Bytes read at once.
const CHUNK_BYTES: usize = 512 * 1024;
/// What is a hole in the copy if it is zero: a page, which is no less than a block anywhere.
const BLOCK_BYTES: usize = 4096;
/// In so many bytes of a file that is not of a trail a private key is looked for.
const SECRET_BYTES: usize = 4096;
/// How the text of a private key starts.
const SECRET: &[u8] = b"PRIVATE+KEY+";

/// A file that was copied and compared.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Its name.
    pub name: OsString,
    /// Its length, holes included.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// A file that was not copied.
#[derive(Clone, Debug)]
pub struct LeftOut {
    /// Its name.
    pub name: OsString,
    /// Why.
    pub why: &'static str,
}

/// What was done.
#[derive(Debug)]
pub struct Quarantined {
    /// Files of the copy, without report and checksums.
    pub files: Vec<Copied>,
    /// Files that it lacks.
    pub left_out: Vec<LeftOut>,
    /// What `verify` says of the trail.
    pub report: Report,
    /// What the original is called now, if it was moved.
    pub moved: Option<PathBuf>,
}

/// Copies the trail in `dir` to `dest`, which must not exist, compares every file of the copy, and
/// then renames the original if `move_aside`.
///
/// # Errors
/// [`Failure`], ready to be said; the trail is as it was.
pub fn quarantine(dir: &Path, dest: &Path, move_aside: bool) -> Result<Quarantined, Failure> {
    let aside = if move_aside { Some(Aside::of(dir)?) } else { None };
    let _held = fresh::hold(dir)?;
    // Also says whether it is a trail at all, before anything is made.
    let report = verify::verify(dir, &verify::Options::default())
        .map_err(|why| Failure::new(Exit::CannotCheck, &why.to_string()).help(why.help()))?;
    let fresh = Fresh::make(dest, dir)?;
    if let Some(aside) = &aside
        && let Err(failure) = aside.check()
    {
        // It is empty, and ours.
        let _ = std::fs::remove_dir(fresh.path());
        return Err(failure);
    }
    let filled = fill(dir, fresh.path(), &report);
    let (files, left_out) = filled.map_err(|failure| fresh.unfinished(failure))?;
    fresh.finish()?;
    let moved = aside.map(|aside| aside.rename(dest)).transpose()?;
    Ok(Quarantined { files, left_out, report, moved })
}

/// Fills the new directory `to`.
fn fill(dir: &Path, to: &Path, report: &Report) -> Result<(Vec<Copied>, Vec<LeftOut>), Failure> {
    let (mut files, mut left_out) = (Vec::new(), Vec::new());
    for name in names(dir).map_err(|why| read_failed("list", dir, None, &why))? {
        if matches!(name.to_str(), Some(SUMS | REPORT)) {
            left_out.push(LeftOut { name, why: "quarantine writes one of its own" });
            continue;
        }
        let path = dir.join(&name);
        let source = match open_regular(&path) {
            Err(why) if why.kind() == io::ErrorKind::InvalidInput => {
                left_out.push(LeftOut { name, why: "not a regular file" });
                continue;
            }
            opened => opened.map_err(|why| read_failed("open", &path, None, &why))?,
        };
        if is_secret(&name, &source).map_err(|why| read_failed("read", &path, None, &why))? {
            left_out.push(LeftOut { name, why: "a private key" });
            continue;
        }
        files.push(copy(&source, &path, to, name)?);
    }
    let mut sums = Vec::new();
    for file in &files {
        sum_line(&mut sums, &file.sha256, &file.name);
    }
    let mut json = serde_json::to_vec(report)
        .map_err(|why| Failure::new(Exit::CannotCheck, &format!("the report: {why}")))?;
    json.push(b'\n');
    sum_line(&mut sums, &Sha256::digest(&json).into(), OsStr::new(REPORT));
    write_new(&to.join(REPORT), &json)?;
    write_new(&to.join(SUMS), &sums)?;
    Ok((files, left_out))
}

/// All names in a directory, sorted.
fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = std::fs::read_dir(dir)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Whether a file holds a private key: by its name, or by its text if it is none of a trail's.
fn is_secret(name: &OsStr, file: &File) -> io::Result<bool> {
    if matches!(name.to_str(), Some("key" | "key.next" | "key.witness")) {
        return Ok(true);
    }
    if name.to_str().and_then(Name::parse).is_some() {
        return Ok(false);
    }
    let mut start = [0; SECRET_BYTES];
    let len = read_some(file, &mut start, 0)?;
    Ok(start[..len].windows(SECRET.len()).any(|bytes| bytes == SECRET))
}

/// Copies one file, makes the copy durable, and reads it back from the device.
fn copy(source: &File, path: &Path, to: &Path, name: OsString) -> Result<Copied, Failure> {
    let copy_path = to.join(&name);
    let wrote = |operation| {
        let copy_path = copy_path.clone();
        move |why: io::Error| write_failed(operation, &copy_path, &why)
    };
    let copy = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&copy_path)
        .map_err(wrote("make"))?;
    let mut hash = Sha256::new();
    let bytes = read_all(source, path, &mut |chunk, offset| {
        hash.update(chunk);
        write_sparse(&copy, chunk, offset).map_err(wrote("write"))
    })?;
    copy.set_len(bytes).map_err(wrote("write"))?;
    if let Ok(modified) = source.metadata().and_then(|meta| meta.modified()) {
        // When it was written last is worth keeping, and nothing depends on it.
        let _ = copy.set_modified(modified);
    }
    copy.sync_all().map_err(wrote("sync"))?;
    // What is compared is what the device has, where the system follows the advice.
    let _ = fadvise(&copy, 0, None, Advice::DontNeed);
    let mut found = Sha256::new();
    read_all(&copy, &copy_path, &mut |chunk, _| {
        found.update(chunk);
        Ok(())
    })?;
    let sha256: [u8; 32] = hash.finalize().into();
    if sha256 != <[u8; 32]>::from(found.finalize()) {
        let text = format!("{} is not what was written to it", copy_path.display());
        return Err(Failure::new(Exit::Damage, &text).help("name a directory on another device"));
    }
    Ok(Copied { name, bytes, sha256 })
}

/// Takes a piece of a file and its offset.
type Visit<'a> = dyn FnMut(&[u8], u64) -> Result<(), Failure> + 'a;

/// Gives the bytes of a file to `visit` piece by piece, with their offsets; returns how many.
fn read_all(file: &File, path: &Path, visit: &mut Visit<'_>) -> Result<u64, Failure> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let len = read_some(file, &mut chunk, offset)
            .map_err(|why| read_failed("read", path, Some(offset), &why))?;
        if len == 0 {
            return Ok(offset);
        }
        visit(&chunk[..len], offset)?;
        offset += len as u64;
    }
}

/// Writes what is not zero, so that what was a hole is one again.
fn write_sparse(file: &File, chunk: &[u8], offset: u64) -> io::Result<()> {
    let mut at = 0;
    let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let blocks: Vec<&[u8]> = chunk.chunks(BLOCK_BYTES).collect();
    for run in blocks.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let len: usize = run.iter().map(|block| block.len()).sum();
        if !is_zero(run[0]) {
            file.write_all_at(&chunk[at..at + len], offset + at as u64)?;
        }
        at += len;
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|why| write_failed("write", path, &why))
}

/// One line as `sha256sum` writes it: a name with a backslash or an end of line is escaped, and
/// the line then starts with a backslash.
fn sum_line(out: &mut Vec<u8>, sha256: &[u8; 32], name: &OsStr) {
    let mut escaped = Vec::new();
    for byte in name.as_bytes() {
        match byte {
            b'\\' => escaped.extend_from_slice(b"\\\\"),
            b'\n' => escaped.extend_from_slice(b"\\n"),
            b'\r' => escaped.extend_from_slice(b"\\r"),
            byte => escaped.push(*byte),
        }
    }
    if escaped.len() != name.len() {
        out.push(b'\\');
    }
    out.extend_from_slice(hex(sha256).as_bytes());
    out.extend_from_slice(b"  ");
    out.extend_from_slice(&escaped);
    out.push(b'\n');
}

/// The original, to be renamed.
struct Aside {
    from: PathBuf,
    to: PathBuf,
}

impl Aside {
    fn of(dir: &Path) -> Result<Self, Failure> {
        // `.` and `..` are no names.
        let from = match dir.file_name() {
            Some(_) => dir.components().as_path().to_owned(),
            None => dir.canonicalize().map_err(|why| read_failed("find", dir, None, &why))?,
        };
        let to = fresh::with_suffix(&from, SUFFIX_MOVED);
        let aside = Self { from, to };
        aside.check()?;
        Ok(aside)
    }

    /// Whether its new name is free.
    fn check(&self) -> Result<(), Failure> {
        match std::fs::symlink_metadata(&self.to) {
            Err(_) => Ok(()),
            Ok(_) => {
                let text = format!("{} exists", self.to.display());
                Err(Failure::new(Exit::CannotCheck, &text)
                    .note("the original would be called that; nothing was done")
                    .help("move it elsewhere, or leave out --move"))
            }
        }
    }

    fn rename(self, dest: &Path) -> Result<PathBuf, Failure> {
        match fresh::rename_new(&self.from, &self.to) {
            Ok(()) => Ok(self.to),
            Err(why) => {
                let (from, to) = (self.from.display(), self.to.display());
                let text = format!("cannot rename {from} to {to}: {why}");
                Err(Failure::new(Exit::CannotCheck, &text)
                    .note(format!("the copy is complete: {}", crate::escape::path(dest)))
                    .help("rename it by hand, or record to another directory; a mount point has no other name"))
            }
        }
    }
}
