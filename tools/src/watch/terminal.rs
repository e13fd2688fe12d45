//! The terminal while it is ours: raw, on its other screen, without a cursor; and as it was afterwards,
//! however the command ends.

use super::Event;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;
use std::io::{self, Write as _};
use std::panic;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

/// To the other screen, which does not scroll what was there away; lines are cut and not wrapped.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// How the terminal was, while it is ours.
static BEFORE: OnceLock<Mutex<Option<Termios>>> = OnceLock::new();

/// The terminal, until it is dropped.
#[derive(Debug)]
pub struct Terminal {
    _private: (),
}

impl Terminal {
    /// Takes the terminal that standard input and output are, and sends what is typed and what signals come to
    /// `events`.
    ///
    /// # Errors
    /// What the system says; the terminal is then as it was.
    pub fn take(events: SyncSender<Event>) -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin)?;
        let mut signals = Signals::new([SIGWINCH, SIGINT, SIGTERM, SIGHUP])?;
        let mut raw = before.clone();
        raw.make_raw();
        let place = BEFORE.get_or_init(Mutex::default);
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        // Dropped if one of the following fails.
        let terminal = Self { _private: () };
        restore_on_panic();
        tcsetattr(stdin, OptionalActions::Flush, &raw)?;
        show(ENTER)?;
        let typed = events.clone();
        thread::Builder::new().name("graven-keys".to_owned()).spawn(move || {
            let mut bytes = [0; 64];
            // An input that has ended is a terminal that has gone; a signal says so.
            while let Ok(count @ 1..) = rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
                for byte in &bytes[..count] {
                    if typed.send(Event::Key(*byte)).is_err() {
                        return;
                    }
                }
            }
        })?;
        thread::Builder::new().name("graven-signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                let event = if signal == SIGWINCH { Event::Resized } else { Event::Signal(signal) };
                if events.send(event).is_err() {
                    return;
                }
            }
        })?;
        Ok(terminal)
    }

    /// Columns and rows.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        match tcgetwinsize(rustix::stdio::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            // A serial line does not know.
            _ => (80, 24),
        }
    }

    /// Shows a screen in one write, over the one before.
    ///
    /// # Errors
    /// What the terminal says.
    pub fn draw(&self, lines: &[String]) -> io::Result<()> {
        let mut out = String::from("\x1b[H");
        for (at, line) in lines.iter().enumerate() {
            if at > 0 {
                out.push_str("\r\n");
            }
            out.push_str(line);
            out.push_str("\x1b[0m\x1b[K");
        }
        out.push_str("\x1b[J");
        show(&out)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

fn show(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Makes the terminal what it was, once.
fn restore() {
    let before =
        BEFORE.get().and_then(|it| it.lock().unwrap_or_else(PoisonError::into_inner).take());
    if let Some(before) = before {
        // A terminal that is gone needs nothing.
        let _ = show(LEAVE);
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &before);
    }
}

/// What a panic says is to be read on the screen that stays.
fn restore_on_panic() {
    let said = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore();
        said(info);
    }));
}
