//! The server of the queue, for the reference appenders: the disk, a slower one, or a model of one.

use super::appender::RunError;
use super::arrivals::exponential;
use super::units;
use graven_writer::disk::IoBuf;
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bytes of a file that writes go around in.
pub const FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of one write at most: those of Graven's frames.
pub const WRITE_BYTES_MAX: usize = 256 * 1024;
/// What direct writes are aligned to: no filesystem asks for more.
const ALIGN_BYTES: usize = 4096;
const _: () = assert!(FILE_BYTES.is_multiple_of(WRITE_BYTES_MAX as u64));
const _: () = assert!(WRITE_BYTES_MAX.is_multiple_of(ALIGN_BYTES));

/// Who serves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Service {
    /// The disk.
    Disk,
    /// The disk, and so much longer for each write.
    Throttled(Duration),
    /// Nothing is written: each write sleeps for exactly so long.
    ModelFixed(Duration),
    /// The same, with an exponential distribution of this mean.
    ModelExponential(Duration),
}

impl FromStr for Service {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "disk" {
            return Ok(Self::Disk);
        }
        type Kind = (&'static str, fn(Duration) -> Service);
        let kinds: [Kind; 3] = [
            ("throttled:", Self::Throttled),
            ("model:fixed:", Self::ModelFixed),
            ("model:exp:", Self::ModelExponential),
        ];
        let found = kinds.iter().find_map(|(name, make)| Some((text.strip_prefix(name)?, make)));
        let Some((rest, make)) = found else {
            return Err(format!(
                "`{text}` is none of disk, throttled:TIME, model:fixed:TIME, model:exp:TIME"
            ));
        };
        units::duration(rest).map(make)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str("disk"),
            Self::Throttled(it) => write!(f, "throttled:{}", units::show(*it)),
            Self::ModelFixed(it) => write!(f, "model:fixed:{}", units::show(*it)),
            Self::ModelExponential(it) => write!(f, "model:exp:{}", units::show(*it)),
        }
    }
}

impl Service {
    /// Whether nothing is written.
    #[must_use]
    pub fn is_model(self) -> bool {
        matches!(self, Self::ModelFixed(_) | Self::ModelExponential(_))
    }

    /// How long one write takes beside the disk.
    #[must_use]
    pub fn draw(self, rng: &mut fastrand::Rng) -> Duration {
        match self {
            Self::Disk => Duration::ZERO,
            Self::Throttled(it) | Self::ModelFixed(it) => it,
            Self::ModelExponential(it) => it.mul_f64(exponential(rng)),
        }
    }
}

/// A file of zeros, written around in.
#[derive(Debug)]
pub struct Device {
    file: File,
    direct: bool,
    service: Service,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    offset: u64,
    rng: fastrand::Rng,
    written_bytes: u64,
}

impl Device {
    /// Makes the file, or takes the one that is there. `direct` goes past the page cache where the filesystem can.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(dir: &Path, direct: bool, service: Service, seed: u64) -> Result<Self, RunError> {
        let path = dir.join(if direct { "direct" } else { "buffered" });
        let failed = |why| RunError::Io("a file of the reference appenders cannot be made", why);
        if !service.is_model() && !path.exists() {
            zero(&path).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(service.is_model());
        let flags = OFlags::DIRECT.bits() as i32;
        let tried = if direct {
            options.clone().custom_flags(flags).open(&path)
        } else {
            options.open(&path)
        };
        let (file, direct) = match tried {
            Err(why) if direct && why.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                (options.open(&path).map_err(failed)?, false)
            }
            opened => (opened.map_err(failed)?, direct),
        };
        let rng = fastrand::Rng::with_seed(seed);
        Ok(Self {
            file,
            direct,
            service,
            state: Mutex::new(State { offset: 0, rng, written_bytes: 0 }),
        })
    }

    /// Where the next write goes, and how long it takes beside the disk.
    fn next(&self, len: u64) -> (u64, Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.offset + len > FILE_BYTES {
            state.offset = 0;
        }
        let offset = state.offset;
        state.offset += len;
        state.written_bytes += len;
        let delay = self.service.draw(&mut state.rng);
        (offset, delay)
    }

    /// Writes the first `len` bytes as one barrier; the bytes up to the alignment are written too.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_dsync(&self, buf: &IoBuf, len: usize) -> io::Result<()> {
        let len = if self.direct { len.next_multiple_of(ALIGN_BYTES) } else { len };
        let (offset, delay) = self.next(len as u64);
        if !self.service.is_model() {
            let slices = [IoSlice::new(&buf[..len])];
            let written = pwritev2(&self.file, &slices, offset, ReadWriteFlags::DSYNC)?;
            if written != len {
                return Err(io::Error::new(io::ErrorKind::WriteZero, "the disk took only a part"));
            }
        }
        units_sleep(delay);
        Ok(())
    }

    /// Writes bytes through the page cache, and waits for fdatasync.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_sync(&self, bytes: &[u8]) -> io::Result<()> {
        let (offset, delay) = self.next(bytes.len() as u64);
        if !self.service.is_model() {
            self.file.write_all_at(bytes, offset)?;
            self.file.sync_data()?;
        }
        units_sleep(delay);
        Ok(())
    }

    /// Bytes of all writes so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).written_bytes
    }
}

fn units_sleep(delay: Duration) {
    if !delay.is_zero() {
        units::sleep_exactly(delay);
    }
}

/// A file of which every block has been written, so that later writes change no metadata.
fn zero(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES) {
        Err(Errno::OPNOTSUPP) | Ok(()) => {}
        Err(why) => return Err(why.into()),
    }
    let zeros = vec![0; 1 << 20];
    for _ in 0..FILE_BYTES >> 20 {
        file.write_all(&zeros)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_as_they_are_shown() {
        for text in ["disk", "throttled:2ms", "model:fixed:100us", "model:exp:1.5ms"] {
            assert_eq!(text.parse::<Service>().expect(text).to_string(), text);
        }
        for text in ["", "model", "model:exp", "model:exp:", "throttled:0s", "ssd"] {
            assert!(text.parse::<Service>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_model_has_the_mean_that_was_asked_for() {
        let mut rng = fastrand::Rng::with_seed(1);
        let service = Service::ModelExponential(Duration::from_millis(1));
        let mean = (0..100_000).map(|_| service.draw(&mut rng).as_secs_f64()).sum::<f64>() / 1e5;
        assert!((mean / 1e-3 - 1.0).abs() < 0.02, "{mean}");
    }
}
