//! What goes back to one client. Two threads have it: the one that serves every client, and the one that
//! answers while the first waits for room.

use graven_client::wire::{ANSWER_BYTES, Answer, REFUSED};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A record that waits to be durable.
#[derive(Clone, Copy, Debug)]
struct Pending {
    id: u64,
    seq: u64,
    /// A loss statement stands at `seq` in its place.
    refused: bool,
}

/// A connection and what is to be written to it.
#[derive(Debug)]
pub(super) struct Line<S> {
    pub(super) stream: S,
    outbox: Mutex<Outbox>,
}

#[derive(Debug, Default)]
struct Outbox {
    /// In the order of their seqs.
    pending: VecDeque<Pending>,
    /// Bytes that wait for the client to take them.
    out: Vec<u8>,
    /// Nothing can be written any more.
    broken: bool,
}

/// How a line is.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// The seq that the next answer waits for.
    pub(super) awaits: Option<u64>,
    /// Whether answers wait for the client to take them.
    pub(super) has_answers: bool,
    /// Records without an answer that the client has taken.
    pub(super) unanswered: usize,
    /// Whether it failed.
    pub(super) broken: bool,
}

impl<S> Line<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, outbox: Mutex::default() }
    }

    pub(super) fn state(&self) -> State {
        let outbox = self.lock();
        State {
            awaits: outbox.pending.front().filter(|_| !outbox.broken).map(|pending| pending.seq),
            has_answers: !outbox.out.is_empty() && !outbox.broken,
            unanswered: outbox.pending.len() + outbox.out.len() / ANSWER_BYTES,
            broken: outbox.broken,
        }
    }

    /// What is written before every answer.
    pub(super) fn greet(&self, bytes: &[u8]) {
        self.lock().out.extend_from_slice(bytes);
    }

    /// A record, or the statement in its place, has this seq.
    pub(super) fn push(&self, id: u64, seq: u64, refused: bool) {
        self.lock().pending.push_back(Pending { id, seq, refused });
    }

    /// The connection has failed.
    pub(super) fn fail(&self) {
        self.lock().broken = true;
    }

    /// A thread that died with this lock held had nothing half done: bytes that were written are taken out
    /// at once.
    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Line<S>
where
    for<'s> &'s S: Write,
{
    /// Answers what is durable now, as far as the client takes it, and returns the seq that is waited for
    /// next.
    pub(super) fn answer(&self, durable: u64) -> Option<u64> {
        let mut outbox = self.lock();
        let Outbox { pending, out, broken } = &mut *outbox;
        while let Some(&Pending { id, seq, refused }) = pending.front()
            && seq < durable
        {
            let seq = if refused { REFUSED } else { seq };
            out.extend_from_slice(&Answer { id, seq }.encode());
            pending.pop_front();
        }
        while !out.is_empty() && !*broken {
            match (&self.stream).write(out) {
                Ok(written) => drop(out.drain(..written)),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                // It is gone, and its answers with it.
                Err(_) => *broken = true,
            }
        }
        pending.front().filter(|_| !*broken).map(|pending| pending.seq)
    }
}
