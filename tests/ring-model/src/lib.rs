//! The writer's ring over shuttle's primitives.
//!
//! The modules `batch`, `bounded` and `state` are the writer's own source files, not copies: they take
//! mutex and condition variable from the `sync` module beside them, and here that module is
//! shuttle's. What the model checker explores is therefore the code that runs in production.

use graven_writer::disk::Wake;
use graven_writer::source::AppendError;

pub use batch::Batch;
pub use bounded::{Ring, RingStats, WakeOn};
pub use sync::PASSES_MAX;

#[path = "../../../writer/src/ring/batch.rs"]
mod batch;
#[path = "../../../writer/src/ring/bounded.rs"]
mod bounded;
#[path = "../../../writer/src/ring/state.rs"]
mod state;
mod sync;
