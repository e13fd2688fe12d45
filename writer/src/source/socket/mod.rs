//! Applications' own records over a Unix socket, each answered when it is durable. The protocol is
//! in `docs/socket.md`, its bytes in `graven_client::wire`.
//!
//! # One thread, whatever the number of clients
//! It waits for all of them at once, reads a little from each that has something, appends it, and
//! answers what became durable. Nobody is waited for alone: a client that does not read its answers is
//! not read from any more once 4096 of its records wait, and costs
//! the others nothing. A second thread waits for the watermark and answers, so that what is durable is answered also
//! while the first one waits for room.
//!
//! # Back-pressure
//! When the ring is full the thread waits in the append, as every source does: no client is read
//! from, their sockets fill, and their writes wait. There is no drop path. Clients past
//! [`Options::clients_max`] wait to be accepted.
//!
//! # Who said it
//! Who connects gets a number from 1 to 999, which no other connection has meanwhile, and an own record
//! (`DAEMON_ACCEPT`) with the kernel's word for who it is stands in front of its first record. Each record
//! has that number as its kind: the payload stays what it was, byte for byte, and no number is
//! one of an audit type. `DAEMON_CLOSE` says how the connection ended.

mod answers;
mod inbox;
mod line;
mod listener;
mod peer;
mod server;
mod session;

pub use listener::{ListenError, Listener, MODE_MAX};
pub use server::{CLIENTS_DEFAULT, CLIENTS_MAX, Options, SocketError, Summary, serve};

use crate::clock::Now;
use crate::source::Sink;
use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};

/// What a client that has sent `sent`, in pieces of at most `piece` bytes, is answered when everything
/// is durable: for tests and the fuzzer, which bring the sink.
///
/// # Panics
/// If the sink takes no record.
#[doc(hidden)]
pub fn served(sent: &[u8], piece: usize, sink: &dyn Sink) -> Vec<u8> {
    struct Memory<'a> {
        sent: Cell<&'a [u8]>,
        piece: usize,
        answers: RefCell<Vec<u8>>,
    }
    impl Read for &Memory<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let sent = self.sent.get();
            let len = self.piece.min(buf.len()).min(sent.len());
            buf[..len].copy_from_slice(&sent[..len]);
            self.sent.set(&sent[len..]);
            Ok(len)
        }
    }
    impl Write for &Memory<'_> {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.answers.borrow_mut().write(&buf[..buf.len().min(self.piece)])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let trail_id = graven_format::TrailId([7; 16]);
    let common = session::Common { sink, awaits: &|_, _| (), now: &Now::default, trail_id };
    let peer = peer::Peer { pid: 1, uid: 2, gid: 3, auid: 4, session: 5 };
    let stream = Memory { sent: Cell::new(sent), piece: piece.max(1), answers: RefCell::default() };
    let mut session = session::Session::new(stream, 42, peer, 0);
    while !session.is_over() {
        if session.wants_more() {
            session.read(common).expect("the sink takes everything");
        }
        session.line.answer(u64::MAX);
    }
    session.close(common).expect("the sink takes everything");
    session.line.stream.answers.take()
}

#[cfg(test)]
mod tests;
