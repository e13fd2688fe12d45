use super::schema::section;
use super::value::{Bytes, Number, Word};
use crate::cmd::record::Source;
use crate::recording::open::{CompressArg, DiskArg, OnFullArg};
use graven_writer::rewrite::LEVEL_DEFAULT;
use std::path::PathBuf;

section! {
    /// The trail: where it is and how it is written.
    pub struct TrailSection in "trail" {
        /// The trail's directory; made if it does not exist, for its owner alone.
        [restart] dir: PathBuf = PathBuf::from("/var/lib/graven/trail");
        /// Where records come from. `netlink` takes auditd's place.
        [restart] source: Word<Source> = Word(Source::Netlink);
        /// What to do when the disk has no room for another segment: wait until there is, while producers wait
        /// too, or end with exit code 6.
        [restart] on_full: Word<OnFullArg> = Word(OnFullArg::Wait);
        /// Bytes of a segment, a multiple of 4096. One segment is always prepared ahead.
        [restart] segment_bytes: Bytes<{ 512 << 10 }, { 1 << 30 }> = Bytes(64 << 20);
        /// Bytes of memory that records wait in for the disk: when it is full, the producers wait.
        [restart] ring_bytes: Bytes<{ 1 << 20 }, { 4 << 30 }> = Bytes(64 << 20);
        /// How to write: io_uring if the kernel has it, io_uring or nothing, or pwrite and fdatasync.
        [restart] disk: Word<DiskArg> = Word(DiskArg::Auto);
        /// Whether frames are compressed on their way to the disk: while it is too slow, never, or always.
        [restart] compress: Word<CompressArg> = Word(CompressArg::Auto);
        /// Zstandard level at which sealed segments are compressed in the background; 0 leaves them as they are.
        [restart] compress_sealed: Number<0, 19> = Number(LEVEL_DEFAULT as i64);
        /// Say only what goes wrong.
        [restart] quiet: bool = false;
    }
}
