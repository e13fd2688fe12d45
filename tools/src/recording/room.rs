//! A full disk, said while it lasts: recording that waits in silence looks like recording that hangs.

use crate::diag::{Diagnostic, Level};
use crate::escape;
use crate::exit::Exit;
use crate::recording::{Failure, TrailArgs, summary};
use graven_writer::{Room, RoomChange, Trail};
use std::thread;

/// Runs `record` on the trail while another thread says when it begins to wait for room and when it
/// goes on. `record` closes the trail. `producers` says what a wait means for them; `exit` is for
/// the case that no thread can be started.
///
/// # Errors
/// What `record` says, or that there is no thread: then no record was taken.
pub fn while_told<T>(
    args: &TrailArgs,
    trail: Trail,
    producers: &str,
    exit: Exit,
    record: impl FnOnce(Trail) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let room = trail.room();
    thread::scope(|scope| {
        thread::Builder::new()
            .name("graven-room".to_owned())
            .spawn_scoped(scope, move || tell(&room, args, producers))
            .map_err(|why| Failure::thread(exit, &why).note("no record was taken"))?;
        record(trail)
    })
}

/// Says each wait once when it begins and once when it ends, until the writer has ended.
fn tell(room: &Room, args: &TrailArgs, producers: &str) {
    let mut seen = 0;
    while let Some(change) = room.next(&mut seen) {
        diagnostic(change, args, producers).emit();
    }
}

fn diagnostic(change: RoomChange, args: &TrailArgs, producers: &str) -> Diagnostic {
    let diagnostic = match change {
        RoomChange::Missing => {
            Diagnostic::warning("the trail's filesystem has no room: recording waits")
                .note(producers)
                .help(format!(
                    "make room for a segment of {} bytes there, or raise the quota: recording goes \
                     on by itself",
                    args.segment_bytes
                ))
        }
        RoomChange::Returned { waited_ns } => {
            let waited = summary::duration(waited_ns);
            let title = format!("there is room again after {waited}: recording goes on");
            Diagnostic::new(Level::Note, title)
        }
    };
    diagnostic.at(escape::path(&args.trail))
}
