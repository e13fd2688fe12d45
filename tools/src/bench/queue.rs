//! The reference appenders, written as simply as such things are: one lock, one queue, threads behind it.

use super::appender::{Appender, Discipline, Logs, RunError, Served};
use super::device::{Device, WRITE_BYTES_MAX};
use super::units::{self, now_ns};
use graven_writer::disk::IoBuf;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of all buffers: those of Graven's ring.
const QUEUE_BYTES: usize = graven_writer::RING_BYTES_DEFAULT as usize;

/// Each record stands behind its length.
const LENGTH_BYTES: usize = 4;

/// When a full queue is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Wait,
    Drop,
}

struct Chunk {
    buf: IoBuf,
    len: usize,
    first_seq: u64,
    count: u64,
}

struct State {
    chunks: VecDeque<Chunk>,
    free: Vec<IoBuf>,
    next_seq: u64,
    /// Records that are durable, in whatever order.
    served_count: u64,
    idle: usize,
    closed: bool,
    failure: Option<Arc<io::Error>>,
    logs: Logs,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    room: Condvar,
    device: Device,
    capacity: u64,
    full: Full,
}

/// A queue in memory with writers behind it.
pub struct Queued {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
}

impl Queued {
    /// Starts the writers. With `lossless` producers wait even where the discipline drops.
    ///
    /// # Errors
    /// Memory or threads are lacking.
    pub fn start(discipline: Discipline, device: Device, lossless: bool) -> Result<Self, RunError> {
        let (depth, interval, capacity, full) = match discipline {
            Discipline::Timer(interval) => (1, Some(interval), u64::MAX, Full::Wait),
            Discipline::Greedy(depth) => (depth, None, u64::MAX, Full::Wait),
            Discipline::Drop(records) if !lossless => (1, None, records as u64, Full::Drop),
            Discipline::Drop(records) | Discipline::Block(records) => {
                (1, None, records as u64, Full::Wait)
            }
            Discipline::Graven | Discipline::Sync => (1, None, u64::MAX, Full::Wait),
        };
        let buffers = (0..QUEUE_BYTES / WRITE_BYTES_MAX).map(|_| IoBuf::new(WRITE_BYTES_MAX));
        let free = buffers.collect::<io::Result<_>>().map_err(|why| RunError::Io("memory", why))?;
        let (chunks, logs) = (VecDeque::new(), Logs::default());
        let state = State {
            chunks,
            free,
            next_seq: 0,
            served_count: 0,
            idle: 0,
            closed: false,
            failure: None,
            logs,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Condvar::new(),
            device,
            capacity,
            full,
        });
        let mut queued = Self { shared, writers: Vec::new() };
        for _ in 0..depth {
            let shared = Arc::clone(&queued.shared);
            let write = move || match interval {
                Some(interval) => shared.write_by_timer(interval),
                None => shared.write_greedily(),
            };
            let thread = std::thread::Builder::new().name("bench-writer".to_owned());
            let thread = thread.spawn(write).map_err(|why| RunError::Io("a thread", why))?;
            queued.writers.push(thread);
        }
        Ok(queued)
    }

    fn end(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
        for writer in self.writers.drain(..) {
            // One that has panicked has said so.
            let _ = writer.join();
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one chunk and gives its buffer back; `false` once the disk has failed.
    fn write(&self, chunk: Chunk, leads: bool) -> bool {
        let start_ns = now_ns();
        let written = self.device.write_dsync(&chunk.buf, chunk.len);
        let end_ns = now_ns();
        let mut state = self.lock();
        let Chunk { buf, first_seq, count, .. } = chunk;
        let written = match written {
            Ok(()) => {
                state.logs.served.push(Served { first_seq, count, start_ns, end_ns, leads });
                state.served_count += count;
                state.free.push(buf);
                true
            }
            Err(why) => {
                state.failure = Some(Arc::new(why));
                false
            }
        };
        drop(state);
        self.room.notify_all();
        written
    }

    fn write_greedily(&self) {
        loop {
            let mut state = self.lock();
            let chunk = loop {
                if let Some(chunk) = state.chunks.pop_front() {
                    break chunk;
                }
                if state.closed || state.failure.is_some() {
                    return;
                }
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            };
            drop(state);
            if !self.write(chunk, true) {
                return;
            }
        }
    }

    fn write_by_timer(&self, interval: Duration) {
        let mut tick_ns = now_ns();
        loop {
            tick_ns = (tick_ns + units::ns(interval)).max(now_ns());
            units::sleep_until(tick_ns);
            let mut state = self.lock();
            let chunks = std::mem::take(&mut state.chunks);
            let closed = state.closed || state.failure.is_some();
            drop(state);
            for (index, chunk) in chunks.into_iter().enumerate() {
                if !self.write(chunk, index == 0) {
                    return;
                }
            }
            if closed {
                return;
            }
        }
    }
}

impl State {
    /// Puts the record into the queue if there is a buffer for it.
    fn push(&mut self, bytes: &[u8]) -> Option<u64> {
        let len = LENGTH_BYTES + bytes.len();
        if self.chunks.back().is_none_or(|chunk| chunk.len + len > WRITE_BYTES_MAX) {
            let buf = self.free.pop()?;
            self.chunks.push_back(Chunk { buf, len: 0, first_seq: self.next_seq, count: 0 });
        }
        let chunk = self.chunks.back_mut()?;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        chunk.buf[chunk.len..chunk.len + LENGTH_BYTES].copy_from_slice(&length);
        chunk.buf[chunk.len + LENGTH_BYTES..chunk.len + len].copy_from_slice(bytes);
        chunk.len += len;
        chunk.count += 1;
        self.next_seq += 1;
        Some(self.next_seq - 1)
    }

    fn check(&self) -> Result<(), RunError> {
        let copy = |why: &io::Error| {
            why.raw_os_error().map_or_else(|| why.kind().into(), io::Error::from_raw_os_error)
        };
        self.failure.as_ref().map_or(Ok(()), |why| Err(RunError::Io("a write failed", copy(why))))
    }
}

impl Appender for Queued {
    fn append(&self, _due_ns: u64, bytes: &[u8]) -> Result<Option<u64>, RunError> {
        let mut state = self.shared.lock();
        let mut since_ns = None;
        let seq = loop {
            state.check()?;
            let has_room = state.next_seq - state.served_count < self.shared.capacity;
            if let Some(seq) = has_room.then(|| state.push(bytes)).flatten() {
                break seq;
            }
            if self.shared.full == Full::Drop {
                return Ok(None);
            }
            since_ns.get_or_insert_with(now_ns);
            state = self.shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        if let Some(since_ns) = since_ns {
            state.logs.blocked.add(now_ns() - since_ns);
        }
        let wake = state.idle > 0;
        drop(state);
        if wake {
            self.shared.work.notify_one();
        }
        Ok(Some(seq))
    }

    fn first_seq(&self) -> u64 {
        0
    }

    fn drain(&self) -> Result<(), RunError> {
        let mut state = self.shared.lock();
        while state.served_count < state.next_seq {
            state.check()?;
            state = self.shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.check()
    }

    fn finish(mut self: Box<Self>) -> Result<Logs, RunError> {
        self.end();
        let mut state = self.shared.lock();
        state.check()?;
        let mut logs = std::mem::take(&mut state.logs);
        logs.settle(0);
        logs.written_bytes = self.shared.device.written_bytes();
        Ok(logs)
    }
}

/// Each record is written by its producer, one at a time.
pub struct SyncPerRecord {
    device: Device,
    state: Mutex<(u64, Logs)>,
}

impl SyncPerRecord {
    /// An appender over `device`.
    #[must_use]
    pub fn new(device: Device) -> Self {
        Self { device, state: Mutex::default() }
    }
}

impl Appender for SyncPerRecord {
    fn append(&self, _due_ns: u64, bytes: &[u8]) -> Result<Option<u64>, RunError> {
        let (come_ns, cpu_ns) = (now_ns(), units::thread_cpu_ns());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let start_ns = now_ns();
        self.device.write_sync(bytes).map_err(|why| RunError::Io("a write failed", why))?;
        let end_ns = now_ns();
        let (next_seq, logs) = &mut *state;
        let first_seq = *next_seq;
        *next_seq += 1;
        logs.served.push(Served { first_seq, count: 1, start_ns, end_ns, leads: true });
        logs.blocked.add(end_ns - come_ns);
        logs.waiting_cpu_ns += units::thread_cpu_ns() - cpu_ns;
        Ok(Some(first_seq))
    }

    fn first_seq(&self) -> u64 {
        0
    }

    fn drain(&self) -> Result<(), RunError> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Logs, RunError> {
        let mut logs = self.state.into_inner().unwrap_or_else(PoisonError::into_inner).1;
        logs.settle(0);
        logs.written_bytes = self.device.written_bytes();
        Ok(logs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::device::Service;

    fn queued(discipline: Discipline, service: Service) -> (tempfile::TempDir, Box<dyn Appender>) {
        let dir = tempfile::tempdir().expect("a directory");
        let device = Device::open(dir.path(), true, service, 1).expect("a device");
        (dir, Box::new(Queued::start(discipline, device, false).expect("threads")))
    }

    fn offer(appender: &dyn Appender, count: usize) -> Vec<Option<u64>> {
        (0..count).map(|_| appender.append(1, b"record").expect("no failure")).collect()
    }

    #[test]
    fn what_finds_a_full_queue_is_lost_and_counted_to_the_record() {
        // Nothing is served while the records are offered: a write takes far longer.
        let slow = Service::ModelFixed(Duration::from_millis(300));
        let (_dir, appender) = queued(Discipline::Drop(5), slow);
        let taken = offer(&*appender, 100);
        assert_eq!(taken[..6], [Some(0), Some(1), Some(2), Some(3), Some(4), None]);
        assert_eq!(taken.iter().filter(|it| it.is_none()).count(), 95);
        appender.drain().expect("no failure");
        assert_eq!(
            offer(&*appender, 7).iter().flatten().copied().collect::<Vec<_>>(),
            [5, 6, 7, 8, 9]
        );
        appender.drain().expect("no failure");
        let logs = appender.finish().expect("no failure");
        assert_eq!(logs.served.iter().map(|it| it.count).sum::<u64>(), 10);
        assert_eq!(logs.moves.last().map(|it| it.durable), Some(10));
        assert_eq!(logs.blocked.count, 0, "who loses does not wait");
    }

    #[test]
    fn who_finds_a_full_queue_waits_where_nothing_may_be_lost() {
        let (_dir, appender) =
            queued(Discipline::Block(5), Service::ModelFixed(Duration::from_millis(20)));
        let taken = offer(&*appender, 100);
        assert_eq!(taken, (0..100).map(Some).collect::<Vec<_>>());
        appender.drain().expect("no failure");
        let logs = appender.finish().expect("no failure");
        assert_eq!(logs.moves.last().map(|it| it.durable), Some(100));
        assert!(logs.blocked.count >= 19 && logs.blocked.max_ns > 5_000_000, "{:?}", logs.blocked);
    }

    #[test]
    fn every_discipline_makes_what_it_took_durable_on_a_real_file() {
        for text in ["greedy:1", "greedy:3", "timer:1ms", "drop:100000", "block:7"] {
            let (_dir, appender) = queued(text.parse().expect(text), Service::Disk);
            assert_eq!(offer(&*appender, 2000).iter().flatten().count(), 2000, "{text}");
            appender.drain().expect("no failure");
            let logs = appender.finish().expect("no failure");
            assert_eq!(logs.moves.last().map(|it| it.durable), Some(2000), "{text}");
            assert!(logs.written_bytes >= 2000 * 10, "{text}: {}", logs.written_bytes);
            assert!(logs.served.iter().all(|it| it.end_ns > it.start_ns), "{text}");
        }
    }
}
