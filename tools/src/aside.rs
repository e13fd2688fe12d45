//! Standard error that nobody waits for.
//!
//! It may be a terminal that somebody has stopped, or a pipe that nobody reads: then whoever writes to it stands still,
//! and a keeper that stands still takes no records. So a process that records has a thread that writes.

use crate::daemon::process::drop_to;
use rustix::thread::CapabilitySet;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Texts that wait for the thread; more are left out, and counted.
const WAITING_MAX: usize = 256;
/// How long a process that ends waits until everything is written.
const END_TIME: Duration = Duration::from_secs(1);

static TO_WRITE: OnceLock<SyncSender<ToWrite>> = OnceLock::new();
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

enum ToWrite {
    Text(Vec<u8>),
    /// Everything before this is written when it is dropped.
    End(#[expect(dead_code, reason = "its drop is what it is for")] SyncSender<()>),
}

/// From now on nobody in this process waits for standard error. Without a thread for it they do.
pub fn begin() {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    let thread = thread::Builder::new().name("graven-stderr".to_owned());
    let write = move || {
        // It is older than what the process gives up once it knows its configuration, and needs nothing of it.
        let _ = drop_to(CapabilitySet::empty());
        write_all(&receiver, &mut io::stderr(), &LEFT_OUT);
    };
    if thread.spawn(write).is_ok() {
        let _ = TO_WRITE.set(sender);
    }
}

/// Writes to standard error what `write` does, with colours where they belong. That nobody listens there is no reason
/// to fail.
pub fn say(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
    let Some(to_write) = TO_WRITE.get() else {
        let _ = write(&mut anstream::stderr().lock());
        return;
    };
    let choice = anstream::AutoStream::choice(&io::stderr());
    let mut text = anstream::AutoStream::new(Vec::new(), choice);
    let _ = write(&mut text);
    if to_write.try_send(ToWrite::Text(text.into_inner())).is_err() {
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until what was said is written, but not for ever. The last thing that a process does.
pub fn end() {
    let (sender, receiver) = sync_channel(0);
    if let Some(to_write) = TO_WRITE.get()
        && to_write.try_send(ToWrite::End(sender)).is_ok()
    {
        let _ = receiver.recv_timeout(END_TIME);
    }
}

fn write_all(receiver: &Receiver<ToWrite>, out: &mut impl Write, left_out: &AtomicU64) {
    for text in receiver {
        let ToWrite::Text(text) = text else { continue };
        let _ = out.write_all(&text);
        let count = left_out.swap(0, Ordering::Relaxed);
        if count > 0 {
            let _ =
                writeln!(out, "warning: {count} messages were left out: standard error took none");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_said_behind_what_was_not() {
        let (sender, receiver) = sync_channel(3);
        let (ended, end) = sync_channel::<()>(0);
        for text in ["one\n", "two\n"] {
            sender.send(ToWrite::Text(text.into())).unwrap();
        }
        sender.send(ToWrite::End(ended)).unwrap();
        assert!(sender.try_send(ToWrite::Text("three\n".into())).is_err(), "there is no room");
        drop(sender);
        let mut out = Vec::new();
        write_all(&receiver, &mut out, &AtomicU64::new(1));
        let left_out = "warning: 1 messages were left out: standard error took none\n";
        assert_eq!(String::from_utf8(out).unwrap(), format!("one\n{left_out}two\n"));
        assert!(end.recv().is_err(), "its end was passed");
    }
}
