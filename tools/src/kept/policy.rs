//! What the keeper does when the writer has ended: the one place where it is decided.

use crate::exit::Exit;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Recording ends, with this code.
    End(u8),
    /// The writer is started again, and the keeper holds the records until then.
    Again,
}

/// The writer ended with this code, or was killed. `opened` says whether the trail was ever open, `stopping`
/// whether recording was asked to end.
#[must_use]
pub(super) fn after(code: Option<u8>, opened: bool, stopping: bool) -> Next {
    const SUCCESS: u8 = Exit::Success.code();
    const STORAGE: u8 = Exit::Storage.code();
    const CANNOT: u8 = Exit::CannotCheck.code();
    match code {
        // It was killed, or an assertion ended it: what it had is with the keeper.
        None => Next::Again,
        Some(SUCCESS) => Next::End(SUCCESS),
        // What was asked for cannot be done.
        Some(code) if !opened => Next::End(code),
        // Whoever asked for the end is told that it was no good one.
        Some(code) if stopping => Next::End(code),
        // The next writer reads the truth from the disk, once that answers; the trail may be locked until then.
        Some(STORAGE | CANNOT) => Next::Again,
        // Damage, no room where that is to end it, a kernel that does not give: that stays so.
        Some(code) => Next::End(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let storage = Some(Exit::Storage.code());
        assert_eq!(after(None, false, false), Next::Again);
        assert_eq!(after(None, true, true), Next::Again);
        assert_eq!(after(Some(0), true, false), Next::End(0));
        assert_eq!(after(storage, false, false), Next::End(5));
        assert_eq!(after(storage, true, false), Next::Again);
        assert_eq!(after(storage, true, true), Next::End(5));
        assert_eq!(after(Some(6), true, false), Next::End(6));
        assert_eq!(after(Some(2), true, false), Next::Again);
    }
}
