//! Medians, and lines to print them in.

/// The median; the lower of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Prints one figure: its name, its median, its range, its unit.
pub(crate) fn print(name: &str, values: &[f64], unit: &str) {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    println!("{name:<44} {:>10.3} {unit:<12} ({min:.3} to {max:.3})", median(values.to_vec()));
}

/// What an open loop of `rate` records a second would see of a device whose writes take these times,
/// one after the other: a record waits for the write under way when it is due, and for the next, which
/// takes all that have come. Returns the median and the 99th percentile in microseconds.
pub(crate) fn open_loop(cycles_ns: &[u64], rate: u64) -> (f64, f64) {
    let mut latencies_ns = Vec::new();
    let mut start_ns = 0;
    for pair in cycles_ns.windows(2) {
        let end_ns = start_ns + pair[0];
        loop {
            let due_ns = latencies_ns.len() as u64 * 1_000_000_000 / rate;
            if due_ns >= end_ns {
                break;
            }
            latencies_ns.push(end_ns + pair[1] - due_ns);
        }
        start_ns = end_ns;
    }
    latencies_ns.sort_unstable();
    let at = |percent: usize| {
        let index = latencies_ns.len() * percent / 100;
        latencies_ns.get(index).map_or(f64::NAN, |&ns| ns as f64 / 1e3)
    };
    (at(50), at(99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_waits_for_the_write_under_way_and_the_next() {
        // A record each 10 µs, writes of 40 µs: from 50 to 80 µs.
        let (p50, p99) = open_loop(&[40_000; 1000], 100_000);
        assert_eq!((p50, p99), (70.0, 80.0));
        // One write of 10 ms in a hundred holds up most of the records.
        let mut cycles = vec![40_000; 1000];
        cycles.iter_mut().step_by(100).for_each(|cycle| *cycle = 10_000_000);
        let (p50, p99) = open_loop(&cycles, 100_000);
        assert!(p50 > 2_000.0 && p99 > 9_000.0, "{p50} {p99}");
        assert!(open_loop(&[], 100_000).0.is_nan());
    }
}
