//! What was given on the command line, and so counts before the file.

use super::Config;
use super::value::{Bytes, Every, Number, Time, Word};
use crate::recording::TrailArgs;
use crate::recording::open::Interval;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches};
use std::collections::BTreeSet;

/// The names of the options that were given, and not left to their defaults. Flattened into a command as its first
/// member it takes no option of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given(BTreeSet<String>);

impl Given {
    /// Whether the option of this name was given.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.0.contains(option)
    }
}

impl clap::Args for Given {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given =
            |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
        Ok(Self(matches.ids().filter(given).map(|id| id.as_str().to_owned()).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Puts what was given into `config`, and the outcome into `args`: from then on both say the same.
pub fn settle(config: &mut Config, args: &mut TrailArgs, given: &Given) {
    macro_rules! both {
        ($($option:literal: $section:ident.$key:ident = $arg:ident, $into:expr, $from:expr;)+) => {$(
            if given.has($option) {
                config.$section.$key = $into(args.$arg.clone());
            } else {
                args.$arg = $from(config.$section.$key.clone());
            }
        )+};
    }
    let count = |it: u64| Number(i64::try_from(it).unwrap_or(i64::MAX));
    both! {
        "trail": trail.dir = trail, |it| it, |it| it;
        "on_full": trail.on_full = on_full, Word, |it: Word<_>| it.0;
        "segment_bytes": trail.segment_bytes = segment_bytes, Bytes, |it: Bytes<_, _>| it.0;
        "ring_bytes": trail.ring_bytes = ring_bytes, Bytes, |it: Bytes<_, _>| it.0;
        "disk": trail.disk = disk, Word, |it: Word<_>| it.0;
        "compress": trail.compress = compress, Word, |it: Word<_>| it.0;
        "quiet": trail.quiet = quiet, |it| it, |it| it;
        "checkpoint_interval": checkpoint.interval = checkpoint_interval,
            |it: Interval| Every(it.0), |it: Every<_, _>| Interval(it.0);
        "checkpoint_to": checkpoint.to = checkpoint_to, |it| it, |it| it;
        "checkpoint_exec": checkpoint.exec = checkpoint_exec, |it| it, |it| it;
        "epoch": checkpoint.epoch = epoch, Time, |it: Time<_, _>| it.0;
        "epoch_segments": checkpoint.epoch_segments = epoch_segments, count,
            |it: Number<_, _>| it.0.unsigned_abs();
    }
}
