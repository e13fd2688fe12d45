//! Graven's library in this process.

use super::super::appender::Appender as _;
use super::super::device::Service;
use super::super::graven::Graven;
use super::super::process::{Trouble, Usage};
use super::super::units::now_ns;
use super::library::Ran;
use super::load::{Client, Group, Load, Mode, push};
use super::records::Tally;
use crate::trail::TrailDir;
use crate::trail::stream::{self, Item};
use graven_format::Source;
use graven_writer::{Compress, Options};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Runs it on a new trail.
///
/// # Errors
/// [`Trouble`]
pub fn run(dir: &Path, load: &Load<'_>) -> Result<Ran, Trouble> {
    // These records are more alike than audit's, and nobody else compresses them.
    let options = Options { compress: Compress::Never, ..Options::default() };
    let trail = Graven::open(&dir.join("trail"), &options, Service::Disk, 0)
        .map_err(|why| Trouble::said(why.to_string()))?;
    let handed = Mutex::default();
    let clients = (0..load.producers).map(|_| -> Box<dyn Client + '_> {
        Box::new(Producer { trail: &trail, waits: load.mode != Mode::Stream, handed: &handed })
    });
    let (before, start_ns) = (Usage::own(), now_ns());
    let mut pushed = push(load, clients.collect())?;
    trail.drain().map_err(|why| Trouble::said(why.to_string()))?;
    if load.mode == Mode::Stream {
        pushed.took_ns = now_ns() - start_ns;
    }
    let usage = Usage::own().since(before);
    let logs = Box::new(trail).finish().map_err(|why| Trouble::said(why.to_string()))?;
    for (seq, handed_ns) in handed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let at = logs.moves.partition_point(|it| it.durable <= seq);
        if let Some(it) = logs.moves.get(at) {
            pushed.latency.saturating_record(it.at_ns.saturating_sub(handed_ns));
        }
    }
    Ok(Ran { pushed, usage })
}

/// Reads the trail.
///
/// # Errors
/// It is damaged, or has what was not sent.
pub fn read(dir: &Path, tally: &mut Tally<'_>) -> Result<(), Trouble> {
    let dir = TrailDir::open(&dir.join("trail")).map_err(|why| Trouble::said(why.to_string()))?;
    let mut seen = Ok(());
    stream::stream(&dir, &(0..u64::MAX), &mut |item| {
        seen = match item {
            // Checkpoints and keys are its own.
            Item::Record { record, .. } if record.source != Source::Socket => Ok(()),
            Item::Record { record, .. } => tally.see(record.bytes),
            other => Err(Trouble::Said(format!("the trail is damaged: {other:?}"))),
        };
        if seen.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    seen
}

struct Producer<'a> {
    trail: &'a Graven,
    waits: bool,
    /// Of the first record of each group in a stream: its seq, and when it was handed over.
    handed: &'a Mutex<Vec<(u64, u64)>>,
}

impl Client for Producer<'_> {
    fn push(&mut self, group: &Group) -> Result<(), Trouble> {
        let now = now_ns();
        let (mut first, mut last) = (None, None);
        for record in group.records() {
            last = self.trail.append(now, record).map_err(|why| Trouble::said(why.to_string()))?;
            first = first.or(last);
        }
        match (self.waits, first, last) {
            (true, _, Some(last)) => {
                self.trail.wait(last).map_err(|why| Trouble::said(why.to_string()))
            }
            (false, Some(first), _) => {
                let mut handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
                handed.push((first, now));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
