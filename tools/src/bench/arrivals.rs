//! When records are due: seeded processes, all of the same mean rate.

use super::units;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A process of arrivals; its mean rate comes with [`Arrivals::due_ns`].
#[derive(Clone, Debug, PartialEq)]
pub enum Arrivals {
    /// One record each period.
    Constant,
    /// Without memory.
    Poisson,
    /// Poisson whose rate is `factor` times the mean for `on`, and less for `off`, in turn.
    OnOff(Bursts),
    /// The same with sojourns that are exponential with these means: a Markov-modulated Poisson process of two states.
    Mmpp(Bursts),
    /// The distances between a trail's records, scaled to the mean rate, over and over.
    Replay(PathBuf),
}

/// Two rates that take turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bursts {
    /// How long the high rate lasts.
    pub on: Duration,
    /// How long the low one does.
    pub off: Duration,
    /// The high rate over the mean.
    pub factor: f64,
}

impl Bursts {
    /// The low rate over the mean.
    #[must_use]
    pub fn low(&self) -> f64 {
        let (on, off) = (self.on.as_secs_f64(), self.off.as_secs_f64());
        ((on + off - self.factor * on) / off).max(0.0)
    }

    fn parse(text: &str, rest: &str) -> Result<Self, String> {
        let parts: Vec<_> = rest.split(':').collect();
        let [on, off, factor] = parts[..] else {
            return Err(format!("`{text}` lacks ON:OFF:FACTOR, as in onoff:100ms:1900ms:10"));
        };
        let (on, off) = (units::duration(on)?, units::duration(off)?);
        let factor: f64 = factor.parse().map_err(|_| format!("`{factor}` is no factor"))?;
        let most = (on + off).as_secs_f64() / on.as_secs_f64();
        if !(factor >= 1.0 && factor <= most * 1.000_001) {
            return Err(format!(
                "the factor of `{text}` must be from 1 to {most:.3}, which leaves nothing for OFF"
            ));
        }
        Ok(Self { on, off, factor })
    }
}

impl FromStr for Arrivals {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        match (name, rest) {
            ("constant", "") => Ok(Self::Constant),
            ("poisson", "") => Ok(Self::Poisson),
            ("onoff", rest) => Bursts::parse(text, rest).map(Self::OnOff),
            ("mmpp", rest) => Bursts::parse(text, rest).map(Self::Mmpp),
            ("replay", dir) if !dir.is_empty() => Ok(Self::Replay(dir.into())),
            _ => Err(format!(
                "`{text}` is none of constant, poisson, onoff:ON:OFF:FACTOR, mmpp:ON:OFF:FACTOR, replay:DIR"
            )),
        }
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bursts =
            |it: &Bursts| format!("{}:{}:{}", units::show(it.on), units::show(it.off), it.factor);
        match self {
            Self::Constant => f.write_str("constant"),
            Self::Poisson => f.write_str("poisson"),
            Self::OnOff(it) => write!(f, "onoff:{}", bursts(it)),
            Self::Mmpp(it) => write!(f, "mmpp:{}", bursts(it)),
            Self::Replay(dir) => write!(f, "replay:{}", crate::escape::path(dir)),
        }
    }
}

impl Arrivals {
    /// Nanoseconds from the start at which records are due, in order, for `length`, at a mean of `rate` a second. `gaps` are the
    /// distances to replay, with mean 1. With one seed, another rate gives the same draws on another scale.
    #[must_use]
    pub fn due_ns(&self, rate: f64, length: Duration, seed: u64, gaps: &[f64]) -> Vec<u64> {
        let end = length.as_secs_f64();
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut due = Vec::with_capacity((rate * end * 1.1) as usize + 16);
        let mut push = |at: f64| {
            let fits = at < end;
            if fits {
                due.push((at * 1e9) as u64);
            }
            fits
        };
        match self {
            Self::Constant => {
                let mut n = 0.0;
                while push(n / rate) {
                    n += 1.0;
                }
            }
            Self::Poisson => {
                let mut at = exponential(&mut rng) / rate;
                while push(at) {
                    at += exponential(&mut rng) / rate;
                }
            }
            Self::Replay(_) => {
                // Each seed begins elsewhere in the trail.
                let skip = rng.usize(..gaps.len().max(1));
                let mut at = 0.0;
                for gap in gaps.iter().cycle().skip(skip) {
                    at += gap / rate;
                    if !push(at) {
                        break;
                    }
                }
            }
            Self::OnOff(bursts) => modulated(bursts, rate, &mut rng, &mut push, |mean, _| mean),
            Self::Mmpp(bursts) => {
                modulated(bursts, rate, &mut rng, &mut push, |mean, rng| mean * exponential(rng));
            }
        }
        due
    }
}

/// A draw from the exponential distribution of mean 1.
#[must_use]
pub fn exponential(rng: &mut fastrand::Rng) -> f64 {
    -(1.0 - rng.f64()).ln()
}

/// Two rates in turn, beginning with the low one: unit exponentials are spent at the rate in force.
fn modulated(
    bursts: &Bursts,
    rate: f64,
    rng: &mut fastrand::Rng,
    push: &mut dyn FnMut(f64) -> bool,
    sojourn: impl Fn(f64, &mut fastrand::Rng) -> f64,
) {
    let states =
        [(bursts.off.as_secs_f64(), bursts.low()), (bursts.on.as_secs_f64(), bursts.factor)];
    let mut turn = 0;
    let mut at = 0.0;
    let mut state_end = sojourn(states[0].0, rng);
    let mut left = exponential(rng);
    loop {
        let now_rate = rate * states[turn].1;
        let until_end = (state_end - at) * now_rate;
        if left <= until_end {
            at += left / now_rate;
            if !push(at) {
                return;
            }
            left = exponential(rng);
        } else {
            left -= until_end;
            at = state_end;
            turn = 1 - turn;
            state_end = at + sojourn(states[turn].0, rng);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(200);

    fn read(text: &str) -> Arrivals {
        text.parse().expect(text)
    }

    #[test]
    fn every_process_has_the_mean_that_was_asked_for_and_follows_its_seed() {
        let gaps = [0.5, 0.25, 2.25];
        for (text, tolerance) in [
            ("constant", 1e-4),
            ("poisson", 0.02),
            ("onoff:100ms:1.9s:10", 0.03),
            ("onoff:100ms:900ms:10", 0.03),
            ("mmpp:20ms:180ms:5", 0.08),
            ("replay:x", 1e-3),
        ] {
            let arrivals = read(text);
            assert_eq!(arrivals.to_string(), text);
            let due = arrivals.due_ns(1000.0, LENGTH, 7, &gaps);
            assert!(due.is_sorted(), "{text}");
            assert!(due.last().is_some_and(|last| *last < units::ns(LENGTH)), "{text}");
            let mean = due.len() as f64 / LENGTH.as_secs_f64();
            assert!((mean / 1000.0 - 1.0).abs() < tolerance, "{text}: {mean}");
            assert_eq!(due, arrivals.due_ns(1000.0, LENGTH, 7, &gaps), "{text}");
            let other = arrivals.due_ns(1000.0, LENGTH, 8, &gaps);
            assert_eq!(due == other, text == "constant", "{text}");
        }
    }

    #[test]
    fn another_rate_is_the_same_draws_on_another_scale() {
        let slow = read("poisson").due_ns(100.0, LENGTH, 3, &[]);
        let fast = read("poisson").due_ns(1000.0, LENGTH, 3, &[]);
        for (slow, fast) in slow.iter().zip(&fast) {
            assert!(slow.abs_diff(fast * 10) <= 10, "{slow} {fast}");
        }
    }

    #[test]
    fn bursts_are_as_high_and_as_long_as_asked_for() {
        let due = read("onoff:100ms:1900ms:10").due_ns(1000.0, LENGTH, 1, &[]);
        // Each period begins with the low rate.
        let high = due.iter().filter(|at| *at % 2_000_000_000 >= 1_900_000_000).count() as f64;
        let rate = high / (LENGTH.as_secs_f64() / 20.0);
        assert!((rate / 10_000.0 - 1.0).abs() < 0.03, "{rate}");
        let low = (due.len() as f64 - high) / (LENGTH.as_secs_f64() * 0.95);
        assert!((low / 526.3 - 1.0).abs() < 0.03, "{low}");
    }

    #[test]
    fn distances_of_poisson_have_the_variance_of_their_mean() {
        let due = read("poisson").due_ns(1000.0, LENGTH, 5, &[]);
        let gaps: Vec<_> = due.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance / (mean * mean) - 1.0).abs() < 0.03, "{variance}");
    }

    #[test]
    fn what_is_no_process_is_refused() {
        for text in [
            "",
            "poison",
            "onoff",
            "onoff:1ms:1ms",
            "onoff:1ms:1ms:3",
            "mmpp:1ms:1ms:0.5",
            "replay:",
            "poisson:1",
        ] {
            assert!(text.parse::<Arrivals>().is_err(), "{text}");
        }
    }
}
