//! Opening a trail for writing.

use crate::diag::{Diagnostic, Level};
use crate::escape;
use crate::recording::Failure;
use crate::witness::{self, Witness};
use graven_writer::disk::DiskChoice;
use graven_writer::keys::KeyOption;
use graven_writer::{Compress, OnFull, Opened, Options, Trail};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options of every command that writes a trail.
#[derive(Clone, Debug, clap::Args)]
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
    /// producers wait. A burst, or a disk that stands still, may fill all of it; who is faster than the disk for long
    /// gets 4M of it
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "64M")]
    pub ring_bytes: u64,
    /// How to write
    #[arg(long, value_enum, default_value_t = DiskArg::Auto, value_name = "DRIVER")]
    pub disk: DiskArg,
    /// Whether frames are compressed on their way to the disk
    #[arg(long, value_enum, default_value_t = CompressArg::Auto, value_name = "WHEN")]
    pub compress: CompressArg,
    /// The first key of a new trail, as `graven keygen` made it; it is moved into the trail and the
    /// file is erased
    #[arg(long, value_name = "FILE", conflicts_with_all = ["no_key", "restart_key"])]
    pub key: Option<PathBuf>,
    /// Make a new trail without a key: nothing in it is signed
    #[arg(long, conflicts_with = "restart_key")]
    pub no_key: bool,
    /// Go on with a new first key where the trail's key is gone, or where there never was one:
    /// `graven verify` shows the break
    #[arg(long)]
    pub restart_key: bool,
    /// How old a record grows before a signed checkpoint covers it, 10ms to 24h; or `off`
    #[arg(long, value_name = "TIME", value_parser = parse_interval, default_value = "1s")]
    pub checkpoint_interval: Interval,
    /// Append each durable checkpoint to this file, behind a barrier
    #[arg(long, value_name = "FILE")]
    pub checkpoint_to: Option<PathBuf>,
    /// Give each durable checkpoint, or at least the newest, to this command of the shell on
    /// standard input
    #[arg(long, value_name = "CMD")]
    pub checkpoint_exec: Option<String>,
    /// Have each durable checkpoint, or at least the newest, cosigned by this C2SP witness; may be given more
    /// than once
    ///
    /// VKEY is the witness's key, name+id+base64, and URL what its operator calls the submission prefix. @FILE is a file
    /// that holds both. The cosigned checkpoint goes where --checkpoint-to and --checkpoint-exec say too, and the newest
    /// into the trail's directory as `cosigned`. The witness must know the trail, by the key that is said when it is
    /// made. A witness that does not answer is said, and tried again; recording never waits for it.
    #[arg(long, value_name = "VKEY@URL", value_parser = witness::parse, conflicts_with = "no_key")]
    pub witness: Vec<Witness>,
    /// How long a witness may take to answer, 1s to 1h; at the end of recording it is waited for no longer
    #[arg(long, value_name = "TIME", value_parser = witness::parse_timeout, default_value = "10s")]
    pub witness_timeout: Duration,
    /// How long a key signs before it is erased and another follows it, 1s to 365d
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "15m")]
    pub epoch: Duration,
    /// In how many segments a key signs at most
    #[arg(long, value_name = "COUNT", default_value_t = graven_writer::EPOCH_SEGMENTS_DEFAULT)]
    pub epoch_segments: u64,
    /// Write metrics to this file, for the textfile collector of node_exporter; it is removed when
    /// recording ends
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// How often the file of metrics is written, 1s to 1h
    #[arg(long, value_name = "TIME", value_parser = parse_metrics_interval, default_value = "15s")]
    pub metrics_interval: Duration,
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
    /// Memory that the writer will have fixed at its start, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        Options { ring_bytes: self.ring_bytes, ..Options::default() }.memory_bytes()
    }

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
            key: match (&self.key, self.no_key, self.restart_key) {
                (Some(file), ..) => KeyOption::Given(file.clone()),
                (None, true, _) => KeyOption::Unsigned,
                (None, false, true) => KeyOption::Restart,
                (None, false, false) => KeyOption::Auto,
            },
            checkpoint: self.checkpoint_interval.0,
            epoch: self.epoch,
            epoch_segments: self.epoch_segments,
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
    say_key(path, opened);
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

/// The first key is what whoever verifies the trail needs.
fn say_key(path: &Path, opened: &Opened) {
    let Some(key) = &opened.key else { return };
    if opened.broken.is_some() {
        Diagnostic::warning("the trail's last key is gone: a new first key signs from here on")
            .at(escape::path(path))
            .note(format!("its public key is {key}"))
            .note("`graven verify` shows the break, and needs this key for what follows it")
            .emit();
    } else if opened.recovered.next_segment == 0 {
        Diagnostic::new(Level::Note, "a new trail, signed by a key of its own")
            .at(escape::path(path))
            .note(format!("its public key is {key}"))
            .help("keep the public key elsewhere: `graven verify` trusts what follows from it")
            .emit();
    }
}

/// How old a record grows without a checkpoint; none if there is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(pub Option<Duration>);

fn parse_interval(text: &str) -> Result<Interval, String> {
    if text == "off" { Ok(Interval(None)) } else { parse_time(text).map(|it| Interval(Some(it))) }
}

/// A time as a number with ms, s, m, h or d.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let ms = match &text[digits.len()..] {
        "ms" => 1_u64,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("expected a number with ms, s, m, h or d".to_owned()),
    };
    let number = if digits.starts_with('+') { None } else { digits.parse::<u64>().ok() };
    number
        .and_then(|number| number.checked_mul(ms))
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a number with ms, s, m, h or d".to_owned())
}

/// How often metrics may be written.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_metrics_interval(text: &str) -> Result<Duration, String> {
    let in_range = Duration::from_secs(1)..=Duration::from_secs(3600);
    parse_time(text).and_then(|time| match in_range.contains(&time) {
        true => Ok(time),
        false => Err("expected 1s to 1h".to_owned()),
    })
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
    fn times_have_a_unit() {
        for (text, ms) in [("10ms", 10), ("1s", 1000), ("15m", 900_000), ("365d", 31_536_000_000)] {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(ms)));
        }
        for text in ["", "s", "1", "-1s", "+1s", "1.5s", "1w", "99999999999999999999d"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
        assert_eq!(parse_interval("off"), Ok(Interval(None)));
        assert_eq!(parse_metrics_interval("1h"), Ok(Duration::from_secs(3600)));
        assert!(parse_metrics_interval("999ms").is_err());
    }

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
