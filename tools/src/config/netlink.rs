use super::schema::section;
use super::value::{Bytes, Number, Time, Word};
use crate::kept::RingFull;
use std::path::PathBuf;
use std::time::Duration;

section! {
    /// The kernel's audit while graven is its daemon. All of it is put back as it was at the end. The defaults
    /// are for losing nothing.
    pub struct NetlinkSection in "netlink" {
        /// Least length of the kernel's queue before producers wait, in records. A longer one is left alone.
        [reload] backlog_limit: Number<1, 10_000_000> = Number(8192);
        /// How long a producer waits for room in that queue before the kernel drops its record.
        [reload] backlog_wait_time: Time<0, 600_000> = Time(Duration::from_secs(60));
        /// What the kernel does when it loses a record: 0 nothing, 1 a message in its log, 2 a panic of the
        /// machine. Left as it is unless set.
        [reload] failure: Option<Number<0, 2>> = None, like "1";
        /// A file of rules as `auditctl -R` reads it, loaded when recording begins and taken back when it ends.
        /// Its lines -b, -f and --backlog_wait_time count before the keys here. `auditctl` does the loading.
        /// -e 0 and -e 2 are refused, and so is -f 2 unless failure = 2.
        [reload] rules: Option<PathBuf> = None, like "\"/etc/audit/audit.rules\"";
        /// Receive memory of the socket: it bridges the time in which the receiver is kept from running.
        [restart] receive_buffer: Bytes<{ 64 << 10 }, { 1 << 30 }> = Bytes(64 << 20);
        /// Memory in which the keeper holds records while the writer or its disk stalls: so much, and about ten times as
        /// much once it is compressed.
        [restart] keeper_ring: Bytes<{ 8 << 20 }, { 64 << 30 }> = Bytes(256 << 20);
        /// What to do when that memory is nearly full: "block" takes nothing more, so that the kernel makes producers wait
        /// for backlog_wait_time; "freeze" freezes the cgroups of freeze_cgroups before that, until half of it is free;
        /// "drop" throws away what finds no room, which is stated.
        [restart] ring_full: Word<RingFull> = Word(RingFull::Block);
        /// Cgroups to freeze then: directories with cgroup.freeze (v2) or freezer.state (v1). One that holds a process of
        /// graven, or process 1, is left alone.
        [restart] freeze_cgroups: Vec<PathBuf> = Vec::new();
        /// User ids of whom no process is ever frozen, whoever he is by now (loginuid): a cgroup that holds one is left alone.
        [restart] freeze_exempt: Vec<Number<0, 4_294_967_294>> = Vec::new();
    }
}
