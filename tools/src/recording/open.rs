//! Opening a trail for writing.

use crate::diag::{Diagnostic, Level};
use crate::escape;
use crate::recording::Failure;
use graven_writer::disk::DiskChoice;
use graven_writer::{Compress, OnFull, Opened, Options, Trail};
use std::path::{Path, PathBuf};

/// Options of every command that writes a trail.
#[derive(Debug, clap::Args)]
pub struct TrailArgs {
    /// The trail's directory; made if it does not exist
    #[arg(long, value_name = "DIR")]
    pub trail: PathBuf,
    /// What to do when the disk has no room for another segment: wait until there is, or end with
    /// exit code 6
    #[arg(long, value_enum, default_value_t = OnFullArg::Wait, value_name = "ACTION")]
    pub on_full: OnFullArg,
    /// Bytes of a segment, 512K to 1G
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "64M")]
    pub segment_bytes: u64,
    /// Bytes of memory that records wait in for the disk, 1M to 4G: when it is full, the
    /// producers wait
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "64M")]
    pub ring_bytes: u64,
    /// How to write
    #[arg(long, value_enum, default_value_t = DiskArg::Auto, value_name = "DRIVER")]
    pub disk: DiskArg,
    /// Whether frames are compressed on their way to the disk
    #[arg(long, value_enum, default_value_t = CompressArg::Auto, value_name = "WHEN")]
    pub compress: CompressArg,
    /// Say only what goes wrong
    #[arg(long, short)]
    pub quiet: bool,
}

/// What to do when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnFullArg {
    /// Producers wait until there is room again
    Wait,
    /// End with exit code 6
    End,
}

/// Whether frames are compressed on their way to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CompressArg {
    /// While the disk is too slow for what is to be written
    Auto,
    /// As they are, always
    Never,
    /// Each frame that becomes shorter by it: fewer bytes written, more processor time
    Always,
}

/// How to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DiskArg {
    /// io_uring if the kernel has it, else sync
    Auto,
    /// io_uring or nothing
    Uring,
    /// pwrite and fdatasync
    Sync,
}

impl TrailArgs {
    /// Opens the trail and says what was found.
    ///
    /// # Errors
    /// [`Failure`], ready to be said.
    pub fn open(&self) -> Result<Trail, Failure> {
        let options = Options {
            segment_bytes: self.segment_bytes,
            ring_bytes: self.ring_bytes,
            disk: match self.disk {
                DiskArg::Auto => DiskChoice::Auto,
                DiskArg::Uring => DiskChoice::Uring,
                DiskArg::Sync => DiskChoice::Sync,
            },
            on_full: match self.on_full {
                OnFullArg::Wait => OnFull::Wait,
                OnFullArg::End => OnFull::End,
            },
            compress: match self.compress {
                CompressArg::Auto => Compress::Auto,
                CompressArg::Never => Compress::Never,
                CompressArg::Always => Compress::Always,
            },
            ..Options::default()
        };
        let trail = Trail::open(&self.trail, &options)?;
        if !self.quiet {
            say(&self.trail, trail.opened());
        }
        Ok(trail)
    }
}

/// What a person should know about how the trail was found and how it is written.
fn say(path: &Path, opened: &Opened) {
    for step in &opened.recovered.steps {
        let label = step.label.name();
        let mut note =
            Diagnostic::new(Level::Note, format!("the writer before this one died: {label}"));
        note = match step.cut_at {
            Some(offset) => {
                note.at(format!("{}: offset {offset:#x}", escape::path(&path.join(&step.file))))
            }
            None => note.at(escape::path(&path.join(&step.file))),
        };
        if step.removed_orphan {
            note = note.note("a later segment of which nothing was announced was removed");
        }
        note.note(format!(
            "everything that was announced durable is there: seq 0..{}",
            step.next_seq
        ))
        .emit();
    }
    for foreign in &opened.recovered.foreign {
        let file = escape::path(&path.join(foreign));
        Diagnostic::warning("a file that does not belong to a trail").at(file).emit();
    }
    if let Some(why) = &opened.disk.fallback_reason {
        let why = escape::Escaped(why.as_bytes());
        Diagnostic::warning(format!("io_uring cannot be used: {why}"))
            .note(format!(
                "writing with {} instead: slower, and no less durable",
                opened.disk.driver
            ))
            .emit();
    }
    for warning in &opened.disk.warnings {
        Diagnostic::warning(escape::Escaped(warning.as_bytes()).to_string()).emit();
    }
}

/// Bytes as a number with an optional K, M or G of 1024.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1_u64,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err("expected a number, or one with K, M or G".to_owned()),
    };
    let number = if digits.starts_with('+') { None } else { digits.parse::<u64>().ok() };
    number
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "expected a number, or one with K, M or G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units_of_1024() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("64M", 64 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        for text in ["", "M", "-1", "+1", "1.5M", "1T", "99999999999999999999", "9999999999999G"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
