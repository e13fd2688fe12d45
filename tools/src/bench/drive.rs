//! The open loop: each record is offered when it is due, and whatever makes it late counts against every record behind it.

use super::appender::{Appender, Logs, RunError};
use super::units::{self, now_ns};
use super::workload::{Workload, text};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Records that Graven may append of its own among those of a run: checkpoints and keys.
const OWN_RECORDS_MAX: usize = 65_536;

/// Records a second that producers beside may append: no writer here takes as many.
const HOGS_RATE_MAX: f64 = 20e6;

/// A producer looks at the time again after so many records: one whose records are all late would never do so.
const RECORDS_A_LOOK: usize = 64;

/// How long before a record is due a producer that shares its processor wakes.
const WAKE_AHEAD_NS: u64 = 60_000;

/// Who produces.
#[derive(Clone, Copy, Debug)]
pub struct Producers<'a> {
    /// How many threads.
    pub count: usize,
    /// The processor of a single one.
    pub cpu: usize,
    /// Threads beside them that never pause: what they append is not measured.
    pub hogs: usize,
    /// Ends all of them early.
    pub stop: &'a AtomicBool,
}

/// A run, before anything is computed from it.
#[derive(Debug, Default)]
pub struct Ran {
    /// When the schedule began.
    pub start_ns: u64,
    /// When the last record was durable.
    pub end_ns: u64,
    /// When each accepted record was due, by seq from [`Ran::first_seq`] on; 0 is none of the schedule's, as are those of
    /// producers beside.
    pub due_ns: Vec<u64>,
    /// Seq of the first record.
    pub first_seq: u64,
    /// When records that were dropped were due.
    pub lost_due_ns: Vec<u64>,
    /// When records that were not offered before the end were due.
    pub unsent_due_ns: Vec<u64>,
    /// What the appender has done.
    pub logs: Logs,
    /// Processor nanoseconds of the appender: its threads, and producers inside it.
    pub cpu_ns: u64,
    /// How late the first record of each look was offered, at the 99th percentile.
    pub late_p99_ns: u64,
    /// The same in the mean.
    pub late_mean_ns: u64,
    /// Records a second that producers beside have appended.
    pub hogs_per_s: f64,
}

/// A processor for the only producer: it spins, and the kernel completes barriers on the processor that serves the disk's
/// interrupts. If they shared one, the scheduler would be measured.
pub struct Apart {
    all: Option<CpuSet>,
    own: Option<CpuSet>,
}

impl Apart {
    /// Leaves all processors but the producer's to the threads that the caller starts next, if there are others.
    #[must_use]
    pub fn new(producers: &Producers<'_>) -> Self {
        let all = sched_getaffinity(None).ok();
        let own = producers.cpu;
        let can = |all: &CpuSet| own < CpuSet::MAX_CPU && all.is_set(own) && all.count() > 1;
        let alone = producers.count + producers.hogs == 1;
        let Some(mut others) = all.filter(|all| alone && can(all)) else {
            return Self { all, own: None };
        };
        others.unset(own);
        let mut only = CpuSet::new();
        only.set(own);
        let own = sched_setaffinity(None, &others).is_ok().then_some(only);
        Self { all, own }
    }

    /// Moves the calling thread, the producer, there. Says whether it may spin.
    fn enter(&self) -> bool {
        self.own.is_some_and(|own| sched_setaffinity(None, &own).is_ok())
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(all) = &self.all {
            // Only this process is concerned, and only its next figures.
            let _ = sched_setaffinity(None, all);
        }
    }
}

/// What one producer has seen.
#[derive(Default)]
struct Produced {
    lost: Vec<u64>,
    unsent: Vec<u64>,
    late: Vec<u64>,
    in_append_ns: u64,
    cpu_ns: u64,
}

struct Load<'a> {
    appender: &'a dyn Appender,
    offsets_ns: &'a [u64],
    workload: &'a Workload,
    payload: &'a [u8],
    dues: &'a [AtomicU64],
    start_ns: u64,
    /// The schedule's length.
    length_ns: u64,
    /// Nothing is offered from then on.
    end_ns: u64,
    apart: &'a Apart,
    producers: Producers<'a>,
}

/// Offers the records that are due at these distances from the start, dealt to the producers in turn, until `grace` after the
/// last; waits until all that was taken is durable, and ends the appender. `Apart` stands since before the appender began.
///
/// # Errors
/// [`RunError`]: the run is void.
pub fn drive(
    appender: Box<dyn Appender>,
    (workload, offsets_ns): (&Workload, &[u64]),
    (length, grace): (Duration, Duration),
    producers: Producers<'_>,
    apart: &Apart,
) -> Result<Ran, RunError> {
    let payload = text(workload.sizes.iter().copied().max().unwrap_or(1));
    let hogs_most = (HOGS_RATE_MAX * length.as_secs_f64()) as usize * producers.hogs.min(1);
    let dues: Vec<AtomicU64> =
        (0..offsets_ns.len() + OWN_RECORDS_MAX + hogs_most).map(|_| AtomicU64::new(0)).collect();
    // The producers need some time to get to their places.
    let start_ns = now_ns() + 5_000_000;
    let end_ns = start_ns + units::ns(length + grace);
    let load = Load {
        appender: &*appender,
        offsets_ns,
        workload,
        payload: &payload,
        dues: &dues,
        start_ns,
        length_ns: units::ns(length),
        end_ns,
        apart,
        producers,
    };
    let cpu_before = units::process_cpu_ns();
    let (produced, hogs): (Vec<_>, Vec<_>) = std::thread::scope(|scope| {
        let hogs: Vec<_> = (0..producers.hogs)
            .map(|index| {
                scope.spawn({
                    let load = &load;
                    move || load.hog(index)
                })
            })
            .collect();
        let threads: Vec<_> = (0..producers.count)
            .map(|index| {
                scope.spawn({
                    let load = &load;
                    move || load.produce(index)
                })
            })
            .collect();
        let produced = threads.into_iter().map(joined).collect::<Result<_, RunError>>()?;
        Ok::<_, RunError>((produced, hogs.into_iter().map(joined).collect::<Result<_, _>>()?))
    })?;
    appender.drain()?;
    let (drained_ns, cpu_after) = (now_ns(), units::process_cpu_ns());
    let first_seq = appender.first_seq();
    let logs = appender.finish()?;
    let mut ran = Ran { start_ns, end_ns: drained_ns, first_seq, ..Ran::default() };
    let mut late = Vec::new();
    let (mut in_append_ns, mut producers_cpu_ns) = (0, 0);
    for it in produced {
        ran.lost_due_ns.extend(it.lost);
        ran.unsent_due_ns.extend(it.unsent);
        late.extend(it.late);
        in_append_ns += it.in_append_ns;
        producers_cpu_ns += it.cpu_ns;
    }
    for (count, cpu_ns) in hogs {
        ran.hogs_per_s += count as f64 / length.as_secs_f64();
        producers_cpu_ns += cpu_ns;
    }
    late.sort_unstable();
    ran.late_p99_ns = late.get(late.len() * 99 / 100).copied().unwrap_or(0);
    ran.late_mean_ns = late.iter().sum::<u64>() / late.len().max(1) as u64;
    let accepted = offsets_ns.len() - ran.lost_due_ns.len() - ran.unsent_due_ns.len();
    ran.due_ns = dues.into_iter().map(AtomicU64::into_inner).collect();
    let last = ran.due_ns.iter().rposition(|due| *due != 0).map_or(0, |at| at + 1);
    ran.due_ns.truncate(last);
    let known = ran.due_ns.iter().filter(|due| **due != 0).count();
    assert_eq!(known, accepted, "every record that was offered was taken or dropped");
    // A producer works while it appends and does not wait; what it spins beside that is no cost of the appender's.
    let working_ns = in_append_ns.saturating_sub(logs.blocked.total_ns) + logs.waiting_cpu_ns;
    ran.cpu_ns = (cpu_after - cpu_before).saturating_sub(producers_cpu_ns) + working_ns;
    ran.logs = logs;
    Ok(ran)
}

impl Load<'_> {
    /// Appends without a pause while the schedule lasts. How many records that were, and the processor time it took.
    fn hog(&self, index: usize) -> Result<(u64, u64), RunError> {
        while now_ns() < self.start_ns {
            std::thread::sleep(Duration::from_micros(100));
        }
        let cpu_before = units::thread_cpu_ns();
        let (mut count, until_ns) = (0, self.start_ns + self.length_ns);
        let mut sizes = self.workload.sizes.iter().cycle().skip(index);
        loop {
            let now = now_ns();
            if now >= until_ns || self.producers.stop.load(Ordering::Relaxed) {
                return Ok((count, units::thread_cpu_ns() - cpu_before));
            }
            let size = sizes.next().copied().unwrap_or(1);
            count += u64::from(self.appender.append(now, &self.payload[..size])?.is_some());
        }
    }

    fn produce(&self, index: usize) -> Result<Produced, RunError> {
        let spins = self.apart.enter();
        let mut produced = Produced::default();
        let step = self.producers.count;
        let mut at = index;
        let cpu_before = units::thread_cpu_ns();
        let first_seq = self.appender.first_seq();
        while at < self.offsets_ns.len() {
            let now = now_ns();
            if now >= self.end_ns || self.producers.stop.load(Ordering::Relaxed) {
                break;
            }
            let due_ns = self.start_ns + self.offsets_ns[at];
            if due_ns > now {
                pause(due_ns - now, spins);
                continue;
            }
            produced.late.push(now - due_ns);
            for _ in 0..RECORDS_A_LOOK {
                let Some(offset_ns) = self.offsets_ns.get(at) else { break };
                let due_ns = self.start_ns + offset_ns;
                if due_ns > now {
                    break;
                }
                let size = self.workload.sizes[at % self.workload.sizes.len()];
                match self.appender.append(due_ns, &self.payload[..size])? {
                    Some(seq) => {
                        let place =
                            usize::try_from(seq - first_seq).ok().and_then(|at| self.dues.get(at));
                        place.ok_or_else(too_many)?.store(due_ns, Ordering::Relaxed);
                    }
                    None => produced.lost.push(due_ns),
                }
                at += step;
            }
            produced.in_append_ns += now_ns() - now;
        }
        produced.cpu_ns = units::thread_cpu_ns() - cpu_before;
        let unsent = self.offsets_ns.iter().skip(at).step_by(step);
        produced.unsent.extend(unsent.map(|offset_ns| self.start_ns + offset_ns));
        Ok(produced)
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn too_many() -> RunError {
    RunError::Append("the trail has got more records of its own than a run expects".to_owned())
}

/// Lets time pass: on a processor of its own by spinning, or else asleep.
fn pause(left_ns: u64, spins: bool) {
    if spins {
        std::hint::spin_loop();
    } else if left_ns > WAKE_AHEAD_NS {
        std::thread::sleep(Duration::from_nanos(left_ns - WAKE_AHEAD_NS));
    } else {
        std::thread::yield_now();
    }
}

/// Producers that never pause, for so long; returns records that became durable a second.
///
/// # Errors
/// [`RunError`]: the run is void.
pub fn saturate(
    appender: Box<dyn Appender>,
    workload: &Workload,
    length: Duration,
    producers: Producers<'_>,
    apart: &Apart,
) -> Result<f64, RunError> {
    let payload = text(workload.sizes.iter().copied().max().unwrap_or(1));
    let start_ns = now_ns();
    let end_ns = start_ns + units::ns(length);
    let produce = |index: usize| {
        apart.enter();
        let mut taken = 0_u64;
        let mut sizes = workload.sizes.iter().cycle().skip(index);
        while now_ns() < end_ns && !producers.stop.load(Ordering::Relaxed) {
            // One that waits for each record is asked for the time each time: it costs nothing beside the wait.
            let now = now_ns();
            for size in sizes.by_ref().take(RECORDS_A_LOOK) {
                taken += u64::from(appender.append(now, &payload[..*size])?.is_some());
                if taken.is_multiple_of(8) && now_ns() >= end_ns {
                    break;
                }
            }
        }
        Ok(taken)
    };
    let produce = &produce;
    let taken: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..producers.count).map(|index| scope.spawn(move || produce(index))).collect();
        threads.into_iter().map(joined).sum::<Result<u64, RunError>>()
    })?;
    appender.drain()?;
    let took_ns = now_ns() - start_ns;
    appender.finish()?;
    Ok(taken as f64 * 1e9 / took_ns as f64)
}
