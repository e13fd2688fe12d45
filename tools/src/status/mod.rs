//! What a running writer tells of itself: `graven status`, `graven watch`, and metrics.
//!
//! The recording process holds a [`Board`], of which a [`Snapshot`] is taken whenever somebody asks. One
//! thread, `graven-control`, answers at the trail's socket ([`server`]), another, `graven-gauge`, does what
//! may wait for a disk ([`gauge`]). Neither touches a record, and the engine never waits for either.

use crate::diag::Diagnostic;
use crate::escape;
use crate::recording::TrailArgs;
use std::sync::Arc;

pub mod board;
pub mod client;
pub mod gauge;
pub mod history;
pub mod metrics;
pub mod protocol;
pub mod server;
pub mod snapshot;
pub mod text;

pub use board::Board;
pub use snapshot::Snapshot;

/// What tells the status of a recording until it is dropped.
#[derive(Debug)]
pub struct Telling {
    _server: Option<server::Server>,
    _gauge: Option<gauge::Gauge>,
}

/// Starts to tell the status of the recording to the trail of `args`. What cannot be started is said, and
/// recording goes on without it.
#[must_use]
pub fn tell(args: &TrailArgs, board: &Arc<Board>) -> Telling {
    let dir = &args.trail;
    let gauge = gauge::Gauge::start(args, board).map_err(|why| {
        Diagnostic::warning(format!("no metrics are written: cannot start a thread: {why}"))
    });
    let server = server::Server::start(dir, board).map_err(|why| {
        Diagnostic::warning(format!("`graven status` will not be answered: {why}"))
            .at(escape::path(&dir.join(graven_format::name::CONTROL)))
    });
    let said =
        |failed: Diagnostic| failed.note("recording goes on, and is not touched by this").emit();
    Telling { _gauge: gauge.map_err(said).ok(), _server: server.map_err(said).ok() }
}
