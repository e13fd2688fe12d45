//! Where records come from. A source is a plain blocking thread that appends to a [`Sink`].

pub mod calls;
pub(crate) mod control;
pub(crate) mod datagrams;
pub(crate) mod intake;
pub mod kaudit;
mod last_status;
pub(crate) mod mapped;
pub mod multicast;
pub mod netlink;
mod netlink_options;
pub mod nlmsg;
pub mod past;
pub mod plugin;
mod serials;
pub mod session;
pub mod shim;
pub mod socket;
pub mod stream;
pub mod window;

use graven_format::Record;

pub use last_status::LastStatus;

/// What a source feeds: the trail, or a list in a test.
pub trait Sink {
    /// Appends one record, waiting without limit while there is no room, and returns its `seq`.
    ///
    /// # Errors
    /// The trail is closed or its storage failed; the record was not taken.
    fn append(&self, record: &Record<'_>) -> Result<u64, AppendError>;

    /// The least `seq` that the next record can get.
    fn next_seq(&self) -> u64;

    /// Appends records in their order, waiting as [`Sink::append`] does.
    ///
    /// # Errors
    /// As [`Sink::append`]; some at the start may have been taken.
    fn append_all(&self, records: &[Record<'_>]) -> Result<(), AppendError> {
        records.iter().try_for_each(|record| self.append(record).map(drop))
    }
}

/// Why a record was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The trail is closed.
    #[error("the trail is closed")]
    Closed,
    /// Storage failed and the writer is poisoned for good; the text says what failed.
    #[error("storage failed: {0}")]
    Poisoned(std::sync::Arc<str>),
    /// The record is over the limit of the format.
    #[error("record of {len} bytes is over the limit of {max}")]
    TooLong {
        /// Bytes of the payload.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// There is no room now. Only `try_append` says this.
    #[error("the ring is full")]
    Full,
    /// A policy that was asked for drops records now: this one is counted, and gone. No [`Sink`] of a trail
    /// says this.
    #[error("dropped and counted, as disk_full asks for")]
    Dropped,
}
