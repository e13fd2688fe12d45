//! What is in a trail directory.

use crate::trail::live::{self, Writer};
use graven_format::identity::{IDENTITY_BYTES, Identity};
use graven_format::name::{self, Name};
use graven_format::segment::SegmentHeader;
use graven_format::{FormatError, TrailId};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A segment's file, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentFile {
    /// Its number.
    pub segment: u64,
    /// Seq of its first record.
    pub first_seq: u64,
}

impl SegmentFile {
    /// Its file name.
    #[must_use]
    pub fn name(&self) -> String {
        name::segment(self.segment, self.first_seq)
    }
}

/// What a directory that is, or may be, a trail holds.
#[derive(Debug)]
pub struct TrailDir {
    /// The directory as it was named.
    pub path: PathBuf,
    /// Its identity, or what is wrong with the file; `None` if there is no such file.
    pub identity: Option<Result<Identity, FormatError>>,
    /// Segments, by age.
    pub segments: Vec<SegmentFile>,
    /// Segments being prepared and the temporary of the identity.
    pub temporaries: Vec<String>,
    /// Files whose names no trail has.
    pub foreign: Vec<OsString>,
    /// The writer that is running, if one is.
    pub writer: Option<Writer>,
    /// The trail's id by the word of its segments, where there is no identity and need be none.
    stated_id: Option<TrailId>,
}

/// Why a directory cannot be read as a trail.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused.
    #[error("cannot {operation} {}: {why}", crate::escape::path(path))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// There is neither an identity nor a segment.
    #[error("{} is not a trail: it holds neither an identity nor a segment", crate::escape::path(.0))]
    NotATrail(PathBuf),
    /// A file that was named has no segment's name.
    #[error(
        "{} has no segment's name{}",
        crate::escape::path(path),
        was.as_ref().map_or(String::new(), |was| format!("; its header says that it was {was}"))
    )]
    NotASegment {
        /// The file.
        path: PathBuf,
        /// The name that it should have, if it is a segment.
        was: Option<String>,
    },
    /// The files that were named are not of one directory.
    #[error("the segments that were named are in several directories")]
    Scattered,
}

impl OpenError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Io { why, .. } => match why.kind() {
                io::ErrorKind::PermissionDenied => {
                    "a trail is readable by its owner only: run this as that user"
                }
                io::ErrorKind::NotADirectory => "name the directory, not a file in it",
                io::ErrorKind::NotFound => "name a trail that `graven record` or `graven run` made",
                _ => "nothing is known about the trail; try again once it can be read",
            },
            Self::NotATrail(_) => "name the directory given to `graven record --trail`",
            Self::NotASegment { was: Some(_), .. } => "give it back its name",
            Self::NotASegment { .. } => {
                "name a trail's directory, or segments that have their names"
            }
            Self::Scattered => "bring them into one directory, or verify each by itself",
        }
    }
}

impl TrailDir {
    /// Lists the directory. Nothing is locked, so a writer may go on meanwhile.
    ///
    /// # Errors
    /// [`OpenError`] if it cannot be listed or is no trail.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |operation, path: &Path| {
            let path = path.to_owned();
            move |why| OpenError::Io { operation, path, why }
        };
        let mut dir = Self {
            path: path.to_owned(),
            identity: read_identity(path).map_err(io("read", &path.join(name::IDENTITY)))?,
            segments: Vec::new(),
            temporaries: Vec::new(),
            foreign: Vec::new(),
            // Looked at before the listing: who starts later cannot have left what is listed.
            writer: live::writer_of(path),
            stated_id: None,
        };
        for entry in std::fs::read_dir(path).map_err(io("list", path))? {
            let file_name = entry.map_err(io("list", path))?.file_name();
            let Some((text, known)) =
                file_name.to_str().and_then(|text| Some((text, Name::parse(text)?)))
            else {
                // mkfs makes this one, and a trail deserves a filesystem of its own.
                if file_name != "lost+found" {
                    dir.foreign.push(file_name);
                }
                continue;
            };
            match known {
                Name::Segment { segment, first_seq } => {
                    dir.segments.push(SegmentFile { segment, first_seq });
                }
                Name::Temporary { .. } | Name::Identity { temporary: true } => {
                    dir.temporaries.push(text.to_owned());
                }
                Name::Identity { temporary: false }
                | Name::Lock
                | Name::Key { .. }
                | Name::WitnessKey
                | Name::Checkpoint { .. }
                | Name::Cosigned { .. }
                | Name::Control
                | Name::Reserve => {}
            }
        }
        if dir.identity.is_none() && dir.segments.is_empty() {
            return Err(OpenError::NotATrail(path.to_owned()));
        }
        dir.segments.sort_unstable();
        dir.temporaries.sort_unstable();
        dir.foreign.sort_unstable();
        Ok(dir)
    }

    /// Some segments of a trail, by their files, which are in one directory.
    ///
    /// # Errors
    /// [`OpenError`] if they are not, if one has no segment's name, or if the directory cannot be listed.
    pub fn open_files(paths: &[PathBuf]) -> Result<Self, OpenError> {
        let parent = |path: &PathBuf| match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => PathBuf::from("/"),
        };
        let mut parents = paths.iter().map(parent);
        let at = parents.next().unwrap_or_default();
        if parents.any(|it| it != at) {
            return Err(OpenError::Scattered);
        }
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let io = |why| OpenError::Io { operation: "read", path: path.clone(), why };
            std::fs::symlink_metadata(path).map_err(io)?;
            let named = path.file_name().and_then(|name| name.to_str()).and_then(Name::parse);
            let Some(Name::Segment { segment, first_seq }) = named else {
                let was = header_of(path).map(|it| name::segment(it.segment, it.first_seq));
                return Err(OpenError::NotASegment { path: path.clone(), was });
            };
            files.push(SegmentFile { segment, first_seq });
        }
        let mut dir = Self::open(&at)?;
        // Whoever writes there writes at the end.
        dir.writer =
            dir.writer.filter(|_| dir.segments.last().is_some_and(|it| files.contains(it)));
        files.sort_unstable();
        files.dedup();
        (dir.segments, dir.temporaries, dir.foreign) = (files, Vec::new(), Vec::new());
        Ok(dir)
    }

    /// The same without an identity of its own: a part of a trail, whose segments say of which.
    #[must_use]
    pub fn part(mut self) -> Self {
        if self.identity.is_none() {
            let header = |file: &SegmentFile| header_of(&self.path.join(file.name()));
            self.stated_id = self.segments.iter().find_map(header).map(|header| header.trail_id);
        }
        self
    }

    /// The trail's id, if its identity is intact, or if none is needed.
    #[must_use]
    pub fn trail_id(&self) -> Option<TrailId> {
        let identity = self.identity.as_ref().and_then(|it| it.as_ref().ok());
        identity.map(|identity| identity.trail_id).or(self.stated_id)
    }

    /// Opens a segment for reading.
    ///
    /// # Errors
    /// What the system says; `InvalidInput` if it is no regular file.
    pub fn open_segment(&self, file: &SegmentFile) -> io::Result<File> {
        open_regular(&self.path.join(file.name()))
    }
}

/// Opens a regular file; whoever may write to the directory cannot make the reader wait at a
/// pipe or follow a link out of it.
///
/// # Errors
/// What the system says; `InvalidInput` if it is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let not_regular = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::LOOP) => return Err(not_regular()),
        opened => File::from(opened?),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// The header of the segment that a file is, if it is one.
#[must_use]
pub fn header_of(path: &Path) -> Option<SegmentHeader> {
    let mut bytes = Vec::new();
    open_regular(path).ok()?.take(64 * 1024).read_to_end(&mut bytes).ok()?;
    let len = SegmentHeader::header_len(&bytes).ok()?;
    SegmentHeader::decode(bytes.get(..len)?).ok()
}

/// The identity, or `None` if there is no such file.
fn read_identity(path: &Path) -> io::Result<Option<Result<Identity, FormatError>>> {
    let file = match open_regular(&path.join(name::IDENTITY)) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    // One byte more than there may be, so that a longer file is not taken for a good one.
    file.take(IDENTITY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(Identity::decode(&bytes)))
}

/// A name for a message.
#[must_use]
pub fn name_text(name: &std::ffi::OsStr) -> String {
    crate::escape::Escaped(name.as_bytes()).to_string()
}
