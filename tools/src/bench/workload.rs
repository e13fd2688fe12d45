//! What is offered: sizes and distances, given or taken from a trail.

use super::arrivals::Arrivals;
use crate::diag::Diagnostic;
use crate::escape;
use crate::trail::TrailDir;
use crate::trail::stream::{self, Item};
use graven_format::consts::RECORD_PAYLOAD_BYTES_MAX;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Records of a trail that are looked at: what comes later repeats, for what it is used for here.
const SAMPLE_RECORDS_MAX: usize = 1_000_000;

/// How long records are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// All the same.
    Fixed(usize),
    /// As those of a trail, in their order.
    Trail(PathBuf),
}

impl FromStr for Sizes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(dir) = text.strip_prefix("trail:").filter(|dir| !dir.is_empty()) {
            return Ok(Self::Trail(dir.into()));
        }
        match text.parse() {
            Ok(bytes) if (1..=RECORD_PAYLOAD_BYTES_MAX).contains(&bytes) => Ok(Self::Fixed(bytes)),
            _ => Err(format!(
                "`{text}` is neither a number of bytes from 1 to {RECORD_PAYLOAD_BYTES_MAX} nor trail:DIR"
            )),
        }
    }
}

impl Sizes {
    /// All of them in turn.
    ///
    /// # Errors
    /// A diagnostic that names the trail.
    pub fn read(&self) -> Result<Vec<usize>, Diagnostic> {
        match self {
            Self::Fixed(bytes) => Ok(vec![*bytes]),
            Self::Trail(dir) => Ok(sample(dir)?.iter().map(|(_, bytes)| *bytes).collect()),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(bytes) => write!(f, "{bytes} bytes"),
            Self::Trail(dir) => write!(f, "those of {}", escape::path(dir)),
        }
    }
}

/// Everything that is offered but the rate.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The process.
    pub arrivals: Arrivals,
    /// Distances to replay, with mean 1.
    pub gaps: Vec<f64>,
    /// Sizes in turn.
    pub sizes: Vec<usize>,
    /// Records a second of the trail that is replayed.
    pub recorded_rate: Option<f64>,
}

impl Workload {
    /// Reads what is taken from trails.
    ///
    /// # Errors
    /// A diagnostic that names the trail.
    pub fn new(arrivals: &Arrivals, sizes: &Sizes) -> Result<Self, Diagnostic> {
        let (gaps, recorded_rate) = match arrivals {
            Arrivals::Replay(dir) => replayed(dir, &sample(dir)?)?,
            _ => (Vec::new(), None),
        };
        Ok(Self { arrivals: arrivals.clone(), gaps, sizes: sizes.read()?, recorded_rate })
    }

    /// Mean bytes of a record.
    #[must_use]
    pub fn mean_bytes(&self) -> f64 {
        self.sizes.iter().sum::<usize>() as f64 / self.sizes.len().max(1) as f64
    }
}

/// When the records of a trail were taken, and their sizes.
fn sample(path: &Path) -> Result<Vec<(u64, usize)>, Diagnostic> {
    let dir =
        TrailDir::open(path).map_err(|why| Diagnostic::error(why.to_string()).help(why.help()))?;
    let mut records = Vec::new();
    stream::stream(&dir, &(0..u64::MAX), &mut |item| {
        if let Item::Record { record, .. } = item {
            records.push((record.realtime_ns, record.bytes.len()));
        }
        if records.len() < SAMPLE_RECORDS_MAX {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    if records.is_empty() {
        return Err(Diagnostic::error("the trail has no record that can be read")
            .at(escape::path(path))
            .help("run `graven verify` on it, or name another trail"));
    }
    Ok(records)
}

/// Distances over their mean, and the mean rate.
fn replayed(path: &Path, records: &[(u64, usize)]) -> Result<(Vec<f64>, Option<f64>), Diagnostic> {
    let mut times: Vec<_> = records.iter().map(|(at_ns, _)| *at_ns).collect();
    // The clock may have stepped, and records of one datagram are older than the one before.
    times.sort_unstable();
    let gaps: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
    let mean_ns = gaps.iter().sum::<f64>() / gaps.len() as f64;
    if mean_ns.is_nan() || mean_ns <= 0.0 {
        return Err(Diagnostic::error("the trail's records have no distances to replay")
            .at(escape::path(path))
            .help("name a trail with at least two records of different times"));
    }
    Ok((gaps.iter().map(|gap| gap / mean_ns).collect(), Some(1e9 / mean_ns)))
}

/// Payload that looks like audit text: its content matters only where frames are compressed.
#[must_use]
pub fn text(bytes: usize) -> Vec<u8> {
    let text = b"arch=c000003e syscall=257 success=yes exit=3 a0=ffffff9c a1=7ffd2 items=1 ppid=1 ";
    text.iter().copied().cycle().take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_of_a_trail_keep_their_shape() {
        let (gaps, rate) = replayed("t".as_ref(), &[(3_000, 1), (0, 1), (1_000, 1), (1_000, 1)])
            .expect("distances");
        assert_eq!(gaps, [1.0, 0.0, 2.0]);
        assert_eq!(rate, Some(1e6));
        assert!(replayed("t".as_ref(), &[(5, 1), (5, 1)]).is_err());
        assert!(replayed("t".as_ref(), &[(5, 1)]).is_err());
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!("300".parse(), Ok(Sizes::Fixed(300)));
        assert_eq!("trail:/x".parse(), Ok(Sizes::Trail("/x".into())));
        for text in ["", "0", "trail:", "9999999999", "big"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }
}
