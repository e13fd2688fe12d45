//! Names of the files of a trail. Sorting the segments by name sorts them by age.
//!
//! | name | what it is |
//! |---|---|
//! | `0000000000000007-00000000000e02cf.seg` | segment 7, whose first record has seq 0xe02cf |
//! | `0000000000000008.tmp` | segment 8 being prepared, or rewritten: never announced, removed by recovery |
//! | `identity` | the trail's id: see [`crate::identity`] |
//! | `lock` | held by the one writer; its content is the writer's pid |
//! | `key` | the key that signs now: see `key` |
//! | `key.next` | the key of the next epoch, until the last one is erased |
//! | `key.witness` | the key by which witnesses know the trail; it signs nothing else |
//! | `checkpoint` | the checkpoint that a running writer was asked for last |
//! | `reserve` | room that is given back when there is none; its content is nothing |
//! | `cosigned` | the newest checkpoint that witnesses have cosigned |
//! | `control` | the socket at which a running writer tells its status |

use alloc::format;
use alloc::string::String;

/// The file that holds the trail's identity.
pub const IDENTITY: &str = "identity";
/// The file in which the identity is written before it is renamed.
pub const IDENTITY_TMP: &str = "identity.tmp";
/// The file that the one writer locks.
pub const LOCK: &str = "lock";

/// The file that holds the key that signs now.
pub const KEY: &str = "key";
/// The file that holds the next key, until it takes the place of [`KEY`].
pub const KEY_NEXT: &str = "key.next";
/// The file that holds the key by which witnesses know the trail.
pub const KEY_WITNESS: &str = "key.witness";
/// The file that holds the checkpoint that a running writer was asked for last.
pub const CHECKPOINT: &str = "checkpoint";
/// The socket at which a running writer tells its status; one that died leaves it behind.
pub const CONTROL: &str = "control";
/// The file in which that checkpoint is written before it is renamed.
pub const CHECKPOINT_TMP: &str = "checkpoint.tmp";
/// The file that holds the newest checkpoint that witnesses have cosigned.
pub const COSIGNED: &str = "cosigned";
/// The file in which that checkpoint is written before it is renamed.
pub const COSIGNED_TMP: &str = "cosigned.tmp";

/// The file that keeps room for what must be recorded when the disk is full.
pub const RESERVE: &str = "reserve";

/// What a file name in a trail directory means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// A segment.
    Segment {
        /// Its number, dense from 0.
        segment: u64,
        /// The seq of its first record.
        first_seq: u64,
    },
    /// A segment being prepared.
    Temporary {
        /// The number that it will have.
        segment: u64,
    },
    /// The identity, or its temporary.
    Identity {
        /// Whether it is the temporary.
        temporary: bool,
    },
    /// The lock.
    Lock,
    /// The key that signs, or the next one.
    Key {
        /// Whether it is the next one.
        next: bool,
    },
    /// The key by which witnesses know the trail.
    WitnessKey,
    /// The checkpoint that was asked for last, or its temporary.
    Checkpoint {
        /// Whether it is the temporary.
        temporary: bool,
    },
    /// The reserve.
    Reserve,
    /// The newest checkpoint that witnesses have cosigned, or its temporary.
    Cosigned {
        /// Whether it is the temporary.
        temporary: bool,
    },
    /// The socket of a running writer.
    Control,
}

impl Name {
    /// What `name` means, or `None` if no trail has a file of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            IDENTITY => return Some(Self::Identity { temporary: false }),
            IDENTITY_TMP => return Some(Self::Identity { temporary: true }),
            LOCK => return Some(Self::Lock),
            KEY => return Some(Self::Key { next: false }),
            KEY_NEXT => return Some(Self::Key { next: true }),
            KEY_WITNESS => return Some(Self::WitnessKey),
            COSIGNED => return Some(Self::Cosigned { temporary: false }),
            COSIGNED_TMP => return Some(Self::Cosigned { temporary: true }),
            CHECKPOINT => return Some(Self::Checkpoint { temporary: false }),
            CHECKPOINT_TMP => return Some(Self::Checkpoint { temporary: true }),
            RESERVE => return Some(Self::Reserve),
            CONTROL => return Some(Self::Control),
            _ => {}
        }
        if let Some(stem) = name.strip_suffix(".tmp") {
            return Some(Self::Temporary { segment: hex16(stem)? });
        }
        let (segment, first_seq) = name.strip_suffix(".seg")?.split_once('-')?;
        Some(Self::Segment { segment: hex16(segment)?, first_seq: hex16(first_seq)? })
    }
}

/// The name of a segment.
#[must_use]
pub fn segment(segment: u64, first_seq: u64) -> String {
    format!("{segment:016x}-{first_seq:016x}.seg")
}

/// The name of a segment while it is being prepared.
#[must_use]
pub fn temporary(segment: u64) -> String {
    format!("{segment:016x}.tmp")
}

/// Exactly 16 lower-case hexadecimal digits: one number has one name.
fn hex16(text: &str) -> Option<u64> {
    let canonical = text.len() == 16
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if canonical { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_sort_by_age() {
        let older = segment(7, 0xe02cf);
        let newer = segment(0x10, 0xf0000);
        assert_eq!(older, "0000000000000007-00000000000e02cf.seg");
        assert!(older < newer);
        assert_eq!(Name::parse(&older), Some(Name::Segment { segment: 7, first_seq: 0xe02cf }));
        assert_eq!(Name::parse(&temporary(8)), Some(Name::Temporary { segment: 8 }));
        assert_eq!(Name::parse("lock"), Some(Name::Lock));
        assert_eq!(Name::parse("control"), Some(Name::Control));
    }

    #[test]
    fn other_names_are_foreign() {
        for name in [
            "",
            "7-1.seg",
            "000000000000000G-0000000000000000.seg",
            "000000000000000A-0000000000000000.seg",
            "0000000000000000-0000000000000000.seg~",
            "+000000000000000-0000000000000000.seg",
            "core",
            ".tmp",
        ] {
            assert_eq!(Name::parse(name), None, "{name}");
        }
    }
}
