//! The kernel's audit status, for those who only look: to ask for it can take as long as a producer may be
//! made to wait.

use super::nlmsg::Status;
use crate::clock;
use std::sync::{Arc, Mutex, PoisonError};

/// The kernel's audit status as it was last asked for.
#[derive(Clone, Debug, Default)]
pub struct LastStatus(Arc<Mutex<Option<(u64, Status)>>>);

impl LastStatus {
    /// The status, and when it was that in nanoseconds since boot; `None` before the first answer.
    #[must_use]
    pub fn get(&self) -> Option<(u64, Status)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, status: Status) {
        let at_ns = clock::now().boottime_ns;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((at_ns, status));
    }
}
