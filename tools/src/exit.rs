//! Every exit code of `graven`, in one place.
//!
//! | code | `verify`, `show`, `export` | `record` |
//! |---|---|---|
//! | 0 | complete and intact; for `show` and `export`: all that was asked for was written | everything that was read is durable |
//! | 1 | damage or tampering was found | the trail is damaged and recovery refuses to go on; or a witness has seen another trail |
//! | 2 | could not check: usage, I/O, permission, not a trail, a later version | usage, the trail cannot be opened, or a thread cannot be started |
//! | 3 | intact, but ends in a torn tail that was never announced durable | |
//! | 4 | intact, but loss statements are in range | |
//! | 5 | | storage failed; what was announced durable stays durable |
//! | 6 | | no room: at start, or later if `--on-full end` was asked for or a second signal gave up the wait |
//! | 7 | | some input was refused; each refusal is a loss statement in the trail |
//! | 8 | | kernel audit is not available, or another daemon holds it |
//!
//! `verify` of a range or a part ends with these codes for what it checked; 2 also if what was asked for is not
//! there, or if a part ends in a way that it alone cannot explain.
//!
//! When several apply, `verify` says the gravest for whoever relies on the trail: 1, then 2,
//! then 4, then 3. A segment that cannot be read does not hide that another is damaged, and a
//! torn tail, which loses nothing that was promised, does not hide that something was lost.
//!
//! `run` ends as its command does: its exit code, or 128 + n if signal n killed it. When graven
//! itself fails it is 125; a command that cannot be executed is 126, one that is not found 127.
//!
//! `prove` ends with 0 if the proof was written, 1 if what it needs is damaged, 2 if it cannot be
//! made: usage, out of range, I/O, a later version. `check-proof` ends with 0 if the proof holds and
//! leads to the roots and sizes that were given, 1 if not, 2 if it cannot be read.
//!
//! `keys` ends with 0 if every key follows from the first, 1 if one does not, 2 if they cannot be read.
//!
//! `quarantine` ends with 0 if the copy is complete and equal, 1 if a copy is not what was written, 2 if it
//! cannot be made, 5 and 6 as `record` does. `salvage` ends with 0 if every record was copied, 4 if losses
//! are stated for some, 1 if intact records contradict each other and were left out, 2 if it cannot be
//! done or a part could not be read, 5 and 6 as `record` does.
//!
//! `compress` ends with 0 if all was done, 1 if a segment is damaged and was left as it is, 2 if it
//! could not be done.
//!
//! `checkpoint` ends with 0 if it was printed, copied and cosigned as was asked, 1 if a witness has seen another
//! trail than this one, 2 otherwise.
//! `status` ends as checks for Nagios and its kin do: 0 if a writer runs and is well, 1 if somebody should
//! look, 2 if none runs or records do not become durable, 3 if that is not known, usage errors included.
//!
//! A configuration that is wrong is 2 for every command that reads one (auditd's is 6): it is how the command was asked.
//!
//! `bench` ends with 0 if it has measured, 2 if it could not; a signal ends it as it ends any process, once its files are
//! removed.
//!
//! The other commands know 0 and 2.

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done and is well.
    Success = 0,
    /// Damage or tampering was found.
    Damage = 1,
    /// It could not be done or checked: usage, I/O, permission, not a trail, a later version.
    CannotCheck = 2,
    /// Intact, but ends in a torn tail that was never announced durable.
    TornTail = 3,
    /// Intact, but loss statements are in range.
    Losses = 4,
    /// Storage failed.
    Storage = 5,
    /// There is no room, and the writer was told to end.
    NoRoom = 6,
    /// Some input was refused.
    Refused = 7,
    /// Kernel audit is not available, or another daemon holds it.
    KernelAudit = 8,
    /// `run`: graven itself failed.
    RunFailed = 125,
    /// `run`: the command cannot be executed.
    NotExecutable = 126,
    /// `run`: the command was not found.
    NotFound = 127,
}

impl Exit {
    /// The exit of a process of ours that ended with this number.
    #[must_use]
    pub fn of(code: u8) -> Self {
        let known = [
            Self::Success,
            Self::Damage,
            Self::Storage,
            Self::NoRoom,
            Self::Refused,
            Self::KernelAudit,
        ];
        known.into_iter().find(|exit| exit.code() == code).unwrap_or(Self::CannotCheck)
    }

    /// The number that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}
