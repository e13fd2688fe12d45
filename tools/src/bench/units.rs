//! Durations as people write them, and one clock for everything that is measured.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Nanoseconds since boot: the clock by which records are due and become durable.
#[must_use]
pub fn now_ns() -> u64 {
    read(ClockId::Boottime)
}

/// Processor nanoseconds of the calling thread.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    read(ClockId::ThreadCPUTime)
}

/// Processor nanoseconds of this process, all threads.
#[must_use]
pub fn process_cpu_ns() -> u64 {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(time.tv_nsec))
}

/// Nanoseconds of a duration.
#[must_use]
pub fn ns(it: Duration) -> u64 {
    u64::try_from(it.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads `200us`, `5ms` or `1.5s`; at most an hour.
///
/// # Errors
/// A sentence that says how it should look.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write 200us, 5ms or 1.5s, at most 3600s");
    let at = text.find(|c: char| c != '.' && !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * scale;
    if !(seconds > 0.0 && seconds <= 3600.0) {
        return Err(wrong());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A duration with the unit that suits it.
#[must_use]
pub fn show(it: Duration) -> String {
    let us = it.as_secs_f64() * 1e6;
    let (value, unit) = match us {
        us if us < 1e3 => (us, "us"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Sleeps for so long, more exactly than the system does.
pub fn sleep_exactly(it: Duration) {
    const SPIN_NS: u64 = 60_000;
    let until_ns = now_ns().saturating_add(ns(it));
    sleep_until(until_ns.saturating_sub(SPIN_NS));
    while now_ns() < until_ns {
        std::hint::spin_loop();
    }
}

/// Sleeps until this moment.
pub fn sleep_until(until_ns: u64) {
    let left_ns = until_ns.saturating_sub(now_ns());
    if left_ns > 0 {
        std::thread::sleep(Duration::from_nanos(left_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        for (text, us, shown) in [
            ("200us", 200, "200us"),
            ("5ms", 5_000, "5ms"),
            ("1.5s", 1_500_000, "1.5s"),
            ("0.2ms", 200, "200us"),
        ] {
            let read = duration(text).expect(text);
            assert_eq!((read, show(read).as_str()), (Duration::from_micros(us), shown));
        }
        for text in ["", "5", "ms", "0ms", "-1s", "3601s", "1e3s", "5 ms", "1.2.3s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
