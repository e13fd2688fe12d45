//! What runs beside a recording for its space: the thread that watches it, and the one that removes old segments.

use crate::config::{Config, SpaceSection};
use crate::daemon::reload::Part;
use crate::exit::Exit;
use crate::recording::retention::{Kept, Removing};
use crate::recording::space::{Control, Space};
use crate::recording::{Failure, TrailArgs};
use graven_format::Source;
use graven_writer::Trail;
use graven_writer::policy::Settings;
use std::sync::Arc;

/// The threads.
#[derive(Debug)]
pub struct Housekeeping {
    space: Space,
    removing: Removing,
}

/// What can be told to them.
#[derive(Clone, Debug)]
pub struct Told {
    control: Arc<Control>,
    kept: Arc<Kept>,
    ring_bytes: u64,
    segment_bytes: u64,
}

/// Whether what was asked for fits together.
///
/// # Errors
/// What does not.
pub fn check(section: &SpaceSection, args: &TrailArgs) -> Result<Settings, Failure> {
    settings(section, args.ring_bytes, args.segment_bytes)
}

fn settings(
    section: &SpaceSection,
    ring_bytes: u64,
    segment_bytes: u64,
) -> Result<Settings, Failure> {
    section.settings(ring_bytes, segment_bytes).map_err(|why| {
        Failure::new(Exit::CannotCheck, &format!("space.{why}"))
            .help("`graven config explain space` says what each key takes")
    })
}

impl Housekeeping {
    /// Starts them for the writer of `trail`, whose records are of `source`.
    ///
    /// # Errors
    /// What was asked for does not fit together, or the system refuses; nothing was recorded.
    pub fn start(
        section: &SpaceSection,
        args: &TrailArgs,
        source: Source,
        trail: &Trail,
    ) -> Result<Self, Failure> {
        let settings = check(section, args)?;
        let removing = Removing::start(&args.trail, section.keep_what(), trail)?;
        match Space::start(section, settings, &args.trail, source, trail) {
            Ok(space) => Ok(Self { space, removing }),
            Err(failure) => {
                removing.end();
                Err(failure)
            }
        }
    }

    /// For those who have something to tell them.
    #[must_use]
    pub fn told(&self, args: &TrailArgs) -> Told {
        let (ring_bytes, segment_bytes) = (args.ring_bytes, args.segment_bytes);
        Told {
            control: self.space.control(),
            kept: self.removing.kept(),
            ring_bytes,
            segment_bytes,
        }
    }

    /// Ends them, after the trail has ended; `storage_failed` if that is why.
    pub fn end(self, storage_failed: bool) {
        self.removing.end();
        // What is not in the trail was said.
        let _ = self.space.end(storage_failed);
    }
}

impl Told {
    /// The memory in which the kernel's records wait is nearly full, or has room again.
    pub fn ring(&self, full: bool) {
        self.control.ring(full);
    }

    /// The administrator says that all is well again: what is not acts anew.
    pub fn resume(&self) {
        self.control.resume();
    }
}

impl Part for Told {
    fn check(&mut self, newer: &Config) -> Result<(), Failure> {
        settings(&newer.space, self.ring_bytes, self.segment_bytes).map(drop)
    }

    fn apply(&mut self, newer: &Config) -> Result<Vec<&'static str>, Failure> {
        let settings = settings(&newer.space, self.ring_bytes, self.segment_bytes)?;
        self.control.reload(settings, newer.space.clone());
        self.kept.set(newer.space.keep_what());
        Ok(Vec::new())
    }
}
