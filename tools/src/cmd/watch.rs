//! `graven watch`.

use crate::diag::Diagnostic;
use crate::exit::Exit;
use crate::output;
use crate::recording::open::parse_time;
use crate::status::protocol::INTERVAL_MS;
use crate::watch::screen::View;
use crate::watch::terminal::Terminal;
use crate::watch::{Event, Events, line};
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `graven watch`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The trail's directory
    pub dir: PathBuf,
    /// Time between two looks, 100ms to 60s
    #[arg(long, value_name = "TIME", value_parser = parse_every, default_value = "1s")]
    pub interval: Duration,
}

const AFTER_HELP: &str = "\
Shows what the writer that runs on the trail tells, as it changes: rates, how full ring and disk are, waits of producers, \
how long it takes until records are durable, losses. On a terminal it is a screen: q or Ctrl-C ends it, the space bar \
stops and goes on. Elsewhere it is one line an interval, until it is ended. If no writer runs, it is asked again.

Only the trail's user and root may ask. A reader that does not keep up is dropped, and no reader makes the writer wait.

Exit codes:
  0  it was ended with q, or nobody reads the lines any more
  2  usage, not a trail, or standard output fails

Examples:
  graven watch /var/lib/graven/trail
  graven watch /var/lib/graven/trail --interval 10s >> status.log";

/// Shows the writer until it is ended.
#[must_use]
pub fn run(args: &Args) -> Exit {
    if super::open(&args.dir).is_none() {
        return Exit::CannotCheck;
    }
    let failed = |what: &str, why: io::Error| {
        Diagnostic::error(format!("cannot {what}: {why}")).emit();
        Exit::CannotCheck
    };
    let events = match Events::of_writer(&args.dir, args.interval) {
        Ok(events) => events,
        Err(why) => return failed("start a thread", why),
    };
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        match screen(args, &events) {
            Ok(Ended::Asked) => Exit::Success,
            Ok(Ended::Signal(signal)) => {
                // The terminal is as it was: now end as the signal would have it.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
                Exit::Success
            }
            Err(why) => failed("use the terminal", why),
        }
    } else {
        output::ended(lines(&events), Exit::Success)
    }
}

fn parse_every(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    let (min, max) = INTERVAL_MS;
    let in_range = (Duration::from_millis(min)..=Duration::from_millis(max)).contains(&time);
    if in_range { Ok(time) } else { Err("expected 100ms to 60s".to_owned()) }
}

/// How a screen was left.
enum Ended {
    Asked,
    Signal(i32),
}

/// Draws what comes until it is left.
fn screen(args: &Args, events: &Events) -> io::Result<Ended> {
    let colors = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
    let trail = crate::escape::path(&args.dir);
    let terminal = Terminal::take(events.sender())?;
    let mut view = View::new(colors);
    loop {
        terminal.draw(&view.lines(&trail, terminal.size()))?;
        match events.next() {
            // In raw mode Ctrl-C and Ctrl-D are typed as any other.
            None | Some(Event::Key(b'q' | b'Q' | 3 | 4)) => return Ok(Ended::Asked),
            Some(Event::Key(b' ')) => view.paused = !view.paused,
            Some(Event::Key(_) | Event::Resized) => {}
            Some(Event::Signal(signal)) => return Ok(Ended::Signal(signal)),
            Some(Event::Snapshot(snapshot)) => view.told(snapshot),
            Some(Event::Silent(why)) => view.is_silent(why),
        }
    }
}

/// Prints a line for each look.
fn lines(events: &Events) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut said = None;
    while let Some(event) = events.next() {
        match event {
            Event::Snapshot(snapshot) => {
                said = None;
                writeln!(out, "{}", line::of(&snapshot))?;
            }
            // Once, until it speaks again.
            Event::Silent(why) if said.as_ref() != Some(&why) => {
                writeln!(out, "{why}")?;
                said = Some(why);
            }
            _ => {}
        }
        out.flush()?;
    }
    Ok(())
}
