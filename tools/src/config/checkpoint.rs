use super::schema::section;
use super::value::{Every, Number, Time};
use std::path::PathBuf;
use std::time::Duration;

section! {
    /// Signed checkpoints and the keys that sign them. What proves the trail is a checkpoint that is kept where
    /// nobody who has this machine can change it.
    pub struct CheckpointSection in "checkpoint" {
        /// How old a record grows before a signed checkpoint covers it; "off": only what ends a
        /// segment is signed.
        [reload] interval: Every<10, 86_400_000> = Every(Some(Duration::from_secs(1)));
        /// Append each durable checkpoint to this file, behind a barrier.
        [restart] to: Option<PathBuf> = None, like "\"/mnt/worm/checkpoints\"";
        /// Give each durable checkpoint, or at least the newest, to this command of the shell on standard input.
        [restart] exec: Option<String> = None, like "\"ssh loghost cat '>>' checkpoints\"";
        /// How long a key signs before it is erased and another follows it.
        [restart] epoch: Time<1000, 31_536_000_000> = Time(Duration::from_secs(15 * 60));
        /// In how many segments a key signs at most.
        [restart] epoch_segments: Number<1, 1_000_000_000> =
            Number(graven_writer::EPOCH_SEGMENTS_DEFAULT as i64);
    }
}
