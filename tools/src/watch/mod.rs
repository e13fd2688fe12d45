//! `graven watch`: what a running writer tells, as it changes.
//!
//! The view is drawn with escape sequences of every terminal since the VT100, by hand: a screen of text, some
//! bars and one line of small bars need no library of widgets, and this is the binary that runs as root.

use crate::status::Snapshot;
use crate::status::client::{AskError, Asked};
use crate::status::protocol::{Request, What};
use crate::trail::live;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

pub mod line;
pub mod screen;
pub mod terminal;

/// How long after a failure the writer is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// What has happened and was not looked at yet.
const EVENTS_MAX: usize = 64;

/// Something that changes the view.
#[derive(Debug)]
pub enum Event {
    /// The writer has told how it is.
    Snapshot(Box<Snapshot>),
    /// It does not, and why.
    Silent(String),
    /// A byte that was typed.
    Key(u8),
    /// The terminal has another size.
    Resized,
    /// A signal that ends the command.
    Signal(i32),
}

/// Events, and who makes them.
#[derive(Debug)]
pub struct Events {
    sender: SyncSender<Event>,
    receiver: Receiver<Event>,
}

impl Events {
    /// Events of the writer of the trail in `dir`, at this interval. It is asked again for as long as
    /// it takes.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn of_writer(dir: &Path, every: Duration) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(EVENTS_MAX);
        let (dir, told): (PathBuf, _) = (dir.to_owned(), sender.clone());
        thread::Builder::new().name("graven-asks".to_owned()).spawn(move || {
            loop {
                let why = follow(&dir, every, &told);
                if told.send(Event::Silent(why)).is_err() {
                    return;
                }
                thread::sleep(AGAIN.max(every));
            }
        })?;
        Ok(Self { sender, receiver })
    }

    /// Where more events go.
    #[must_use]
    pub fn sender(&self) -> SyncSender<Event> {
        self.sender.clone()
    }

    /// The next event; `None` is not reached, because the writer's events never end.
    pub fn next(&self) -> Option<Event> {
        self.receiver.recv().ok()
    }
}

/// Passes on what the writer tells until it does not any more, and returns why.
fn follow(dir: &Path, every: Duration, events: &SyncSender<Event>) -> String {
    let ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
    let request = Request { interval_ms: Some(ms), ..Request::new(What::Watch) };
    let followed = || -> Result<(), AskError> {
        let mut asked = Asked::ask(dir, request, every)?;
        loop {
            let snapshot = asked.next_snapshot()?;
            if events.send(Event::Snapshot(snapshot)).is_err() {
                return Ok(());
            }
        }
    };
    let Err(why) = followed() else { return String::new() };
    match live::writer_of(dir) {
        None => "no writer runs".to_owned(),
        Some(_) => format!("a writer runs, and does not tell its status: {why}"),
    }
}
