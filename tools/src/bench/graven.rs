//! Graven's own writer as an appender: a whole trail, over a disk that notes when each write starts and ends.

use super::appender::{Appender, Blocked, Logs, Move, RunError, Served};
use super::device::Service;
use super::units::{self, now_ns};
use graven_format::frame::FrameHeader;
use graven_format::{Flags, Record, Source};
use graven_writer::disk::{Completion, Disk, Geometry, Listed, Op, OpId, Wake};
use graven_writer::{Options, Trail, Watermark, clock};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// A trail that is written.
pub struct Graven {
    trail: Trail,
    log: Arc<Mutex<Logs>>,
    first_seq: u64,
    /// What the realtime clock is ahead of the other.
    realtime_ahead_ns: u64,
}

impl Graven {
    /// Opens a new trail in `dir`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(
        dir: &Path,
        options: &Options,
        service: Service,
        seed: u64,
    ) -> Result<Self, RunError> {
        let (log, watermark) =
            (Arc::<Mutex<Logs>>::default(), Arc::<OnceLock<Arc<Watermark>>>::default());
        let (log_too, watermark_too) = (Arc::clone(&log), Arc::clone(&watermark));
        let wrap = move |inner| -> Box<dyn Disk> {
            Box::new(Watched {
                inner,
                log: log_too,
                watermark: watermark_too,
                durable: 0,
                service,
                rng: fastrand::Rng::with_seed(seed),
                frames: Vec::new(),
                held: Vec::new(),
                fresh: Vec::new(),
            })
        };
        let trail = Trail::open_on(dir, options, wrap)?;
        // Opening is not part of any run.
        *lock(&log) = Logs::default();
        let _ = watermark.set(trail.watermark());
        let now = clock::now();
        let realtime_ahead_ns = now.realtime_ns.wrapping_sub(now.boottime_ns);
        let first_seq = trail.opened().next_seq;
        Ok(Self { trail, log, first_seq, realtime_ahead_ns })
    }

    /// Waits until the record of this seq is durable.
    ///
    /// # Errors
    /// It will not be.
    pub fn wait(&self, seq: u64) -> Result<(), RunError> {
        let waited = self.trail.watermark().wait_past(seq);
        waited.map(drop).map_err(|why| RunError::Append(why.to_string()))
    }
}

impl Appender for Graven {
    fn append(&self, due_ns: u64, bytes: &[u8]) -> Result<Option<u64>, RunError> {
        let realtime_ns = due_ns.wrapping_add(self.realtime_ahead_ns);
        let (source, kind, flags, source_seq) = (Source::Socket, 0, Flags::NONE, 0);
        let record =
            Record { source, kind, flags, realtime_ns, boottime_ns: due_ns, source_seq, bytes };
        match self.trail.append(&record) {
            Ok(ticket) => Ok(Some(ticket.seq())),
            Err(why) => Err(RunError::Append(why.to_string())),
        }
    }

    fn first_seq(&self) -> u64 {
        self.first_seq
    }

    fn drain(&self) -> Result<(), RunError> {
        let accepted = self.trail.ring().next_seq;
        if accepted > self.first_seq { self.wait(accepted - 1) } else { Ok(()) }
    }

    fn finish(self: Box<Self>) -> Result<Logs, RunError> {
        let summary = self.trail.close()?;
        let mut logs = std::mem::take(&mut *lock(&self.log));
        logs.served.sort_by_key(|it| it.first_seq);
        let ring = summary.ring;
        let (count, total_ns, max_ns) = (ring.waits, ring.wait_ns_total, ring.wait_ns_max);
        logs.blocked = Blocked { count, total_ns, max_ns };
        Ok(logs)
    }
}

fn lock(log: &Mutex<Logs>) -> MutexGuard<'_, Logs> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stands between the engine and the driver, on the engine's thread.
struct Watched {
    inner: Box<dyn Disk>,
    log: Arc<Mutex<Logs>>,
    watermark: Arc<OnceLock<Arc<Watermark>>>,
    /// Where the watermark was seen last.
    durable: u64,
    service: Service,
    rng: fastrand::Rng,
    /// Frames in flight.
    frames: Vec<(OpId, Served)>,
    /// What has completed, and is told of when its time has come.
    held: Vec<(u64, Completion)>,
    fresh: Vec<Completion>,
}

impl Watched {
    /// The watermark moves between two calls of the engine.
    fn look(&mut self) {
        let Some(watermark) = self.watermark.get() else { return };
        let durable = watermark.durable();
        if durable != self.durable {
            self.durable = durable;
            lock(&self.log).moves.push(Move { at_ns: now_ns(), durable });
        }
    }

    fn hold(&mut self, from_ns: u64, completion: Completion) {
        let until_ns = from_ns + units::ns(self.service.draw(&mut self.rng));
        self.held.push((until_ns, completion));
    }

    fn release(&mut self, completion: Completion, at_ns: u64, done: &mut Vec<Completion>) {
        if let Some(at) = self.frames.iter().position(|(id, _)| *id == completion.id) {
            let (_, mut served) = self.frames.swap_remove(at);
            served.end_ns = at_ns;
            lock(&self.log).served.push(served);
        }
        done.push(completion);
    }
}

impl Disk for Watched {
    fn submit(&mut self, id: OpId, op: Op) {
        self.look();
        match &op {
            Op::Write { buf, len, .. } => {
                lock(&self.log).written_bytes += *len as u64;
                if let Some(seqs) = FrameHeader::seqs(buf) {
                    let (first_seq, count) = (seqs.start, seqs.end - seqs.start);
                    self.frames.push((
                        id,
                        Served { first_seq, count, start_ns: now_ns(), end_ns: 0, leads: true },
                    ));
                }
            }
            Op::Zero { len, .. } => lock(&self.log).zeroed_bytes += *len,
            _ => {}
        }
        match op {
            Op::Write { buf, .. } if self.service.is_model() => {
                self.hold(now_ns(), Completion { id, result: Ok(()), buf: Some(buf) });
            }
            Op::Zero { .. } if self.service.is_model() => {
                self.held.push((0, Completion { id, result: Ok(()), buf: None }));
            }
            op => self.inner.submit(id, op),
        }
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        self.look();
        let mut fresh = std::mem::take(&mut self.fresh);
        self.inner.poll(&mut fresh);
        if fresh.is_empty() && self.held.is_empty() {
            self.fresh = fresh;
            return;
        }
        let now = now_ns();
        for completion in fresh.drain(..) {
            // Only writes are slower: what else there is belongs to no record.
            if matches!(self.service, Service::Throttled(_)) && completion.buf.is_some() {
                self.hold(now, completion);
            } else {
                self.release(completion, now, done);
            }
        }
        self.fresh = fresh;
        let (due, held) =
            std::mem::take(&mut self.held).into_iter().partition(|(until, _)| *until <= now);
        self.held = held;
        let due: Vec<(u64, Completion)> = due;
        for (_, completion) in due {
            self.release(completion, now, done);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.look();
        let Some(next_ns) = self.held.iter().map(|(until_ns, _)| *until_ns).min() else {
            return self.inner.wait(timeout);
        };
        let held = Duration::from_nanos(next_ns.saturating_sub(now_ns()));
        self.inner.wait(Some(timeout.map_or(held, |timeout| timeout.min(held))));
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.waker()
    }

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn list(&mut self) -> io::Result<Vec<Listed>> {
        self.inner.list()
    }

    fn read(&mut self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(name, offset, buf)
    }
}
