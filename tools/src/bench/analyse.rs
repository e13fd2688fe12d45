//! From what was logged to what it means. Everything here is exact up to the clock: no sampling takes place in a run.

use super::appender::Blocked;
use super::drive::Ran;
use super::stats::histogram;
use super::theory::Moments;
use hdrhistogram::Histogram;

/// Points of queue depth over time.
const DEPTH_POINTS: u64 = 400;

/// Pieces in which a time of growing exposure is counted.
const EXPOSURE_PIECES: u64 = 16;

/// What one run has shown, of the records that were due after the warm-up.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Seconds of the part that counts.
    pub seconds: f64,
    /// Records that were due.
    pub offered: u64,
    /// Of these, records that became durable.
    pub durable: u64,
    /// Of these, records that were dropped.
    pub lost: u64,
    /// Of these, records that could not be offered before the end.
    pub unsent: u64,
    /// Records that became durable during the schedule.
    pub durable_in_time: u64,
    /// Nanoseconds from due to durable; for what was not offered, to the end.
    pub latency: Histogram<u64>,
    /// Nanoseconds from due to the start of the record's write.
    pub wait: Histogram<u64>,
    /// Nanoseconds of the write, a record.
    pub service: Histogram<u64>,
    /// Age of the oldest record that is not durable, weighted with time.
    pub exposure: Histogram<u64>,
    /// The writes.
    pub writes: Writes,
    /// Distances between records that are due.
    pub gaps: Moments,
    /// Seconds from the start of the schedule, and records that are due and not durable, the warm-up included.
    pub depth: Vec<(f64, u64)>,
    /// Waits of producers, the warm-up included.
    pub blocked: Blocked,
    /// Processor nanoseconds a record, the warm-up included.
    pub cpu_ns_per_record: f64,
    /// Bytes written a record, the warm-up included.
    pub bytes_per_record: f64,
    /// Bytes of zeros written ahead a record.
    pub zeroed_per_record: f64,
    /// How late records were offered, at the 99th percentile.
    pub late_p99_ns: u64,
    /// The same in the mean.
    pub late_mean_ns: u64,
    /// Records a second of producers beside.
    pub hogs_per_s: f64,
}

/// The server's side.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writes {
    /// How long each occupied the server: from the end of the one before, or from its first record's due time if nothing
    /// waited then, to its end. This is what the theory calls service.
    pub occupied: Moments,
    /// How long each kept who came from a write of his own: the same, or until the next one started beside it.
    pub kept: Moments,
    /// The sum of exp(-λ·kept).
    pub nobody: f64,
    /// The sum of the squares of the time by which `kept` was longer than it takes until as many have come as the largest
    /// write had.
    pub over_squares: f64,
    /// Seconds from occupation to the start of the write, summed over records.
    pub gap_sum: f64,
    /// Records in them.
    pub records: f64,
    /// Those that started before the one before had ended.
    pub overlapping: f64,
    /// Between the starts of two that lead.
    pub intervals: Moments,
    /// Seconds from the start of the write that leads to that of the record's own, summed over records.
    pub behind_sum: f64,
}

impl Writes {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            occupied: self.occupied.and(other.occupied),
            kept: self.kept.and(other.kept),
            nobody: self.nobody + other.nobody,
            over_squares: self.over_squares + other.over_squares,
            gap_sum: self.gap_sum + other.gap_sum,
            records: self.records + other.records,
            overlapping: self.overlapping + other.overlapping,
            intervals: self.intervals.and(other.intervals),
            behind_sum: self.behind_sum + other.behind_sum,
        }
    }
}

/// Computes all of it. Times are nanoseconds from the start of the schedule.
#[must_use]
pub fn analyse(ran: &Ran, warm_up_ns: u64, length_ns: u64) -> Measured {
    let from_ns = ran.start_ns + warm_up_ns;
    let to_ns = ran.start_ns + length_ns;
    let counts = |dues: &[u64]| dues.iter().filter(|due| **due >= from_ns).count() as u64;
    let durable = counts(&ran.due_ns);
    let (lost, unsent) = (counts(&ran.lost_due_ns), counts(&ran.unsent_due_ns));
    let mut arrivals: Vec<u64> = ran.due_ns.iter().copied().filter(|due| *due != 0).collect();
    arrivals.extend(&ran.unsent_due_ns);
    arrivals.sort_unstable();
    let mut gaps = Moments::default();
    for pair in arrivals.windows(2).filter(|pair| pair[0] >= from_ns) {
        gaps.add((pair[1] - pair[0]) as f64 / 1e9);
    }
    let seconds = (length_ns - warm_up_ns) as f64 / 1e9;
    let all = ran.due_ns.iter().filter(|due| **due != 0).count().max(1) as f64;
    let mut measured = Measured {
        seconds,
        offered: durable + lost + unsent,
        durable,
        lost,
        unsent,
        durable_in_time: 0,
        latency: histogram(),
        wait: histogram(),
        service: histogram(),
        exposure: exposure(ran, from_ns, to_ns),
        writes: writes(ran, from_ns, (durable + unsent) as f64 / seconds),
        gaps,
        depth: depth(ran, &arrivals, length_ns),
        blocked: ran.logs.blocked,
        cpu_ns_per_record: ran.cpu_ns as f64 / all,
        bytes_per_record: ran.logs.written_bytes as f64 / all,
        zeroed_per_record: ran.logs.zeroed_bytes as f64 / all,
        late_p99_ns: ran.late_p99_ns,
        late_mean_ns: ran.late_mean_ns,
        hogs_per_s: ran.hogs_per_s,
    };
    latencies(ran, from_ns, to_ns, &mut measured);
    measured
}

/// The three times of each record.
fn latencies(ran: &Ran, from_ns: u64, to_ns: u64, measured: &mut Measured) {
    let mut moves = ran.logs.moves.iter().peekable();
    let mut writes = ran.logs.served.iter().peekable();
    for (seq, due_ns) in (ran.first_seq..).zip(&ran.due_ns) {
        while moves.next_if(|it| it.durable <= seq).is_some() {}
        while writes.next_if(|it| it.first_seq + it.count <= seq).is_some() {}
        if *due_ns < from_ns {
            continue;
        }
        if let Some(it) = moves.peek() {
            measured.latency.saturating_record(it.at_ns.saturating_sub(*due_ns).max(1));
            measured.durable_in_time += u64::from(it.at_ns <= to_ns);
        }
        if let Some(write) = writes.peek() {
            measured.wait.saturating_record(write.start_ns.saturating_sub(*due_ns).max(1));
            measured.service.saturating_record(write.end_ns.saturating_sub(write.start_ns).max(1));
        }
    }
    for due_ns in ran.unsent_due_ns.iter().filter(|due| **due >= from_ns) {
        measured.latency.saturating_record(ran.end_ns.saturating_sub(*due_ns).max(1));
    }
}

/// How old the oldest record was that was not durable: it grows with time, and falls when the watermark moves.
fn exposure(ran: &Ran, from_ns: u64, to_ns: u64) -> Histogram<u64> {
    let mut histogram = histogram();
    let mut since_ns = from_ns;
    let mut oldest = 0;
    let end = [super::appender::Move { at_ns: to_ns, durable: 0 }];
    for it in ran.logs.moves.iter().chain(&end) {
        // Records that are Graven's own have no due time.
        while ran.due_ns.get(oldest).is_some_and(|due| *due == 0) {
            oldest += 1;
        }
        let until_ns = it.at_ns.min(to_ns);
        if until_ns > since_ns {
            match ran.due_ns.get(oldest) {
                Some(due_ns) => grow(&mut histogram, *due_ns, since_ns, until_ns),
                None => histogram.saturating_record_n(1, until_ns - since_ns),
            }
            since_ns = until_ns;
        }
        oldest =
            usize::try_from(it.durable.saturating_sub(ran.first_seq)).unwrap_or(oldest).max(oldest);
    }
    histogram
}

/// Counts the time from `since_ns` to `until_ns`, in which the oldest record is one that was due at `due_ns`.
fn grow(histogram: &mut Histogram<u64>, due_ns: u64, since_ns: u64, until_ns: u64) {
    let from_ns = due_ns.clamp(since_ns, until_ns);
    // Before it was due there was none.
    histogram.saturating_record_n(1, from_ns - since_ns);
    let length_ns = until_ns - from_ns;
    let mut before_ns = 0;
    for piece in 1..=EXPOSURE_PIECES {
        let end_ns = length_ns * piece / EXPOSURE_PIECES;
        // With a watermark that moves for others' records, it may be due only later, and the length is 0.
        let age_ns = (from_ns + end_ns).saturating_sub(due_ns).max(1);
        histogram.saturating_record_n(age_ns, end_ns - before_ns);
        before_ns = end_ns;
    }
}

/// Records that are due and not durable, at points of the schedule.
fn depth(ran: &Ran, arrivals: &[u64], length_ns: u64) -> Vec<(f64, u64)> {
    // Durable records of the schedule up to each seq: the trail has others too.
    let mut own = 0;
    let before: Vec<u64> = std::iter::once(0)
        .chain(ran.due_ns.iter().map(|due| {
            own += u64::from(*due != 0);
            own
        }))
        .collect();
    (0..=DEPTH_POINTS)
        .map(|point| {
            let offset_ns = length_ns * point / DEPTH_POINTS;
            let at_ns = ran.start_ns + offset_ns;
            let due = arrivals.partition_point(|due| *due <= at_ns) as u64;
            let moved = ran.logs.moves.partition_point(|it| it.at_ns <= at_ns);
            let durable =
                moved.checked_sub(1).map_or(ran.first_seq, |last| ran.logs.moves[last].durable);
            let index = usize::try_from(durable - ran.first_seq)
                .unwrap_or(usize::MAX)
                .min(before.len() - 1);
            (offset_ns as f64 / 1e9, due.saturating_sub(before[index]))
        })
        .collect()
}

fn writes(ran: &Ran, from_ns: u64, rate: f64) -> Writes {
    let mut writes = Writes::default();
    let most = ran.logs.served.iter().map(|it| it.count).max().unwrap_or(0) as f64;
    let (mut before_end_ns, mut before_start_ns) = (0, 0);
    for (at, it) in ran.logs.served.iter().enumerate() {
        let dues = usize::try_from(it.first_seq - ran.first_seq).unwrap_or(usize::MAX);
        let mut dues =
            ran.due_ns.iter().skip(dues).take(it.count as usize).filter(|due| **due != 0);
        let first_due_ns = dues.next().copied();
        let last_end_ns = before_end_ns;
        before_end_ns = before_end_ns.max(it.end_ns);
        let last_start_ns = before_start_ns;
        if it.leads {
            before_start_ns = it.start_ns;
        }
        let Some(first_due_ns) = first_due_ns.filter(|due| *due >= from_ns) else { continue };
        let seconds = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns) as f64 / 1e9;
        let occupied_ns = last_end_ns.max(first_due_ns).min(it.start_ns);
        let occupied = seconds(occupied_ns, it.end_ns);
        writes.occupied.add(occupied);
        let next_start_ns = ran.logs.served.get(at + 1).map_or(u64::MAX, |next| next.start_ns);
        let kept = seconds(occupied_ns, it.end_ns.min(next_start_ns));
        writes.kept.add(kept);
        writes.nobody += (-rate * kept).exp();
        writes.over_squares += (kept - most / rate).max(0.0).powi(2);
        writes.records += it.count as f64;
        writes.gap_sum += seconds(occupied_ns, it.start_ns) * it.count as f64;
        writes.overlapping += f64::from(u8::from(it.start_ns < last_end_ns));
        writes.behind_sum += seconds(before_start_ns, it.start_ns) * it.count as f64;
        if it.leads && last_start_ns > 0 {
            writes.intervals.add(seconds(last_start_ns, it.start_ns));
        }
    }
    writes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::appender::{Logs, Served};

    /// Five records at 0, 10, 20, 30 and 60 (µs from the start), written as 1, 3 and 1, 20 µs each.
    fn ran() -> Ran {
        let us = |us: u64| 1_000_000_000 + us * 1000;
        let write = |first_seq, count, start| Served {
            first_seq,
            count,
            start_ns: us(start),
            end_ns: us(start + 20),
            leads: true,
        };
        let mut logs = Logs {
            served: vec![write(7, 1, 0), write(8, 2, 20), write(10, 2, 60)],
            ..Logs::default()
        };
        logs.settle(7);
        let due_ns = vec![us(0), us(10), us(20), us(30), us(60)];
        Ran { start_ns: us(0), end_ns: us(80), due_ns, first_seq: 7, logs, ..Ran::default() }
    }

    #[test]
    fn a_run_of_five_records_by_hand() {
        let it = analyse(&ran(), 0, 100_000);
        assert_eq!(
            (it.offered, it.durable, it.lost, it.unsent, it.durable_in_time),
            (5, 5, 0, 0, 5)
        );
        let recorded = |h: &Histogram<u64>| -> Vec<(u64, u64)> {
            h.iter_recorded()
                .map(|at| (at.value_iterated_to().div_euclid(100) * 100, at.count_at_value()))
                .collect()
        };
        // Durable at 20, 40, 40, 80, 80: 20, 30, 20, 50, 20 after they were due.
        assert_eq!(recorded(&it.latency), [(20_000, 3), (30_000, 1), (50_000, 1)]);
        assert_eq!(recorded(&it.wait), [(0, 3), (10_000, 1), (30_000, 1)]);
        // The oldest record was at most 50 µs old, when the last write ended; nothing was exposed for the last 20 µs.
        assert!((it.exposure.max() as i64 - 50_000).abs() < 64, "{}", it.exposure.max());
        assert_eq!(it.exposure.len(), 100_000, "weighted with time");
        let idle = it.exposure.count_between(0, 1);
        assert!((20_000..21_500).contains(&idle), "{idle}");
        assert_eq!(it.writes.occupied.count, 3.0);
        // From the end of the one before, or from its first record if that is later: 20, 20, and 40 to 80.
        assert!((it.writes.occupied.sum - 80e-6).abs() < 1e-9, "{:?}", it.writes);
        let depth = |us: f64| {
            it.depth.iter().find(|(at, _)| (at * 1e6 - us).abs() < 0.01).expect("a point").1
        };
        assert_eq!(
            (depth(15.0), depth(35.0), depth(50.0), depth(70.0), depth(90.0)),
            (2, 3, 1, 2, 0)
        );
    }

    #[test]
    fn what_was_not_offered_counts_as_long_as_it_waited() {
        let mut ran = ran();
        ran.unsent_due_ns.push(ran.start_ns + 30_000);
        ran.lost_due_ns.push(ran.start_ns + 31_000);
        let it = analyse(&ran, 25_000, 100_000);
        assert_eq!((it.offered, it.durable, it.lost, it.unsent), (4, 2, 1, 1));
        assert_eq!(it.latency.len(), 3);
        // Due at 30, the end is at 80.
        assert!((it.latency.max() as i64 - 50_000).abs() < 64);
    }
}
