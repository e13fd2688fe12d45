//! One part of a record, read from its bytes: borrowed views, nothing assumed of the bytes.
//!
//! [`parse`] looks at all lengths once and says where the first wrong one is. What it returns can then be walked without
//! errors. What this version does not know, a kind of part or of item, is kept as it is: a newer kernel side may say more.

use crate::{
    Call, Gap, ITEM_ARGV, ITEM_CONTINUES, ITEM_CUT, ITEM_CWD, ITEM_EXE, ITEM_FROM_USER, ITEM_MADE,
    ITEM_NAME, ITEM_NO_OBJECT, ITEM_NOT_CAPTURED, ITEM_PROCTITLE, ITEM_SOCKADDR, ITEM_TTY, Item,
    Object, PART_BYTES_MAX, PART_CALL, PART_GAP, PART_LAST, PART_MORE, PART_PAD, Part,
};

/// Items start at multiples of this, counted from their part's start.
pub const ITEM_ALIGN: usize = 8;

/// Why bytes are no part. Offsets count from the part's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A structure does not fit into what is left.
    #[error("offset {offset}: {what} needs {needed} bytes, {have} are left in the part")]
    Short {
        /// Where it starts.
        offset: usize,
        /// Its name in C.
        what: &'static str,
        /// The bytes that it has.
        needed: usize,
        /// The bytes that are there.
        have: usize,
    },
    /// The header's length is not that of the bytes.
    #[error("offset 0: the part says that it has {said} bytes, {have} are there")]
    Length {
        /// What the header says.
        said: u32,
        /// What is there.
        have: usize,
    },
    /// It is longer than a part may be.
    #[error("offset 0: a part of {0} bytes is over the limit of {PART_BYTES_MAX}")]
    TooLong(usize),
    /// What fills a ring up to its end, which is part of no record.
    #[error("offset 4: a pad is no part of a record")]
    Pad,
    /// An item's length does not hold its own header, or goes past the part's end.
    #[error(
        "offset {offset}: the item says that it has {said} bytes; its kind needs {least}, and {most} are left"
    )]
    ItemLength {
        /// Where it starts.
        offset: usize,
        /// What it says.
        said: u32,
        /// The least for its kind.
        least: usize,
        /// What is left in the part.
        most: usize,
    },
    /// Bytes follow that belong to nothing.
    #[error("offset {offset}: {len} bytes follow the gap")]
    Trailing {
        /// Where they start.
        offset: usize,
        /// How many they are.
        len: usize,
    },
}

impl DecodeError {
    /// Where in the part it is wrong.
    #[must_use]
    pub const fn offset(&self) -> usize {
        match *self {
            Self::Short { offset, .. }
            | Self::ItemLength { offset, .. }
            | Self::Trailing { offset, .. } => offset,
            Self::Length { .. } | Self::TooLong(_) => 0,
            Self::Pad => core::mem::offset_of!(Part, kind),
        }
    }
}

/// A part whose lengths are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartView<'a> {
    /// What it starts with.
    pub header: Part,
    /// What follows.
    pub body: Body<'a>,
}

/// What a part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A system call and the first of its items.
    Call(Call, Items<'a>),
    /// More items of the same record.
    More(Items<'a>),
    /// Calls that went on unrecorded.
    Gap(Gap),
    /// Of a kind that this version does not know: all bytes behind the header.
    Unknown(&'a [u8]),
}

impl<'a> PartView<'a> {
    /// Whether the record ends with this part.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.has(PART_LAST)
    }

    /// Whether one of these `PART_…` bits is set.
    #[must_use]
    pub const fn has(&self, flags: u16) -> bool {
        self.header.flags & flags != 0
    }

    /// The system call, if the part starts with one.
    #[must_use]
    pub const fn call(&self) -> Option<&Call> {
        match &self.body {
            Body::Call(call, _) => Some(call),
            _ => None,
        }
    }

    /// The items of the part, none if it has no place for any.
    #[must_use]
    pub const fn items(&self) -> Items<'a> {
        match self.body {
            Body::Call(_, items) | Body::More(items) => items,
            Body::Gap(_) | Body::Unknown(_) => Items { part: &[], at: 0 },
        }
    }
}

/// An item whose lengths are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemView<'a> {
    /// What it starts with.
    pub header: Item,
    /// Of a name: what it led to, unless that was not captured.
    pub object: Option<Object>,
    /// Its bytes: of a name, those of the name.
    pub bytes: &'a [u8],
}

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A name that the kernel got, and what it led to.
    Name,
    /// The working folder.
    Cwd,
    /// The running program's path.
    Exe,
    /// Arguments of an execve, each ended by a zero.
    Argv,
    /// A socket address.
    Sockaddr,
    /// The command line as the process shows it.
    Proctitle,
    /// The terminal's name.
    Tty,
    /// One that this version does not know.
    Unknown(u16),
}

impl ItemView<'_> {
    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> ItemKind {
        match self.header.kind {
            ITEM_NAME => ItemKind::Name,
            ITEM_CWD => ItemKind::Cwd,
            ITEM_EXE => ItemKind::Exe,
            ITEM_ARGV => ItemKind::Argv,
            ITEM_SOCKADDR => ItemKind::Sockaddr,
            ITEM_PROCTITLE => ItemKind::Proctitle,
            ITEM_TTY => ItemKind::Tty,
            other => ItemKind::Unknown(other),
        }
    }

    /// Whether its bytes were had, be it not all of them.
    #[must_use]
    pub const fn is_captured(&self) -> bool {
        self.header.flags & ITEM_NOT_CAPTURED == 0
    }

    /// Whether bytes are missing at its end.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.header.flags & ITEM_CUT != 0
    }

    /// Whether it goes on in the next part.
    #[must_use]
    pub const fn continues(&self) -> bool {
        self.header.flags & ITEM_CONTINUES != 0
    }

    /// Whether it was read from user memory, and so may not be what the kernel acted on.
    #[must_use]
    pub const fn is_from_user(&self) -> bool {
        self.header.flags & ITEM_FROM_USER != 0
    }

    /// Whether the call made what it names.
    #[must_use]
    pub const fn is_made(&self) -> bool {
        self.header.flags & ITEM_MADE != 0
    }
}

/// The items of a part, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Items<'a> {
    part: &'a [u8],
    at: usize,
}

impl<'a> Items<'a> {
    /// The item at the place that was reached, and where it starts; nothing at the end.
    fn step(&mut self) -> Option<Result<ItemView<'a>, DecodeError>> {
        let left = self.part.get(self.at..).filter(|left| !left.is_empty())?;
        let item = item(left, self.at);
        // A part may end with its last item, or with what would fill up to the next.
        self.at = match &item {
            Ok(item) => self.at + (item.header.bytes as usize).next_multiple_of(ITEM_ALIGN),
            Err(_) => self.part.len(),
        };
        Some(item)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = ItemView<'a>;

    fn next(&mut self) -> Option<ItemView<'a>> {
        // All of them were looked at when the part was parsed.
        self.step()?.ok()
    }
}

/// The item that `left` starts with, `offset` bytes from its part's start.
fn item(left: &[u8], offset: usize) -> Result<ItemView<'_>, DecodeError> {
    let header = read(Item::read(left), offset, "graven_item", Item::LEN, left)?;
    let least = Item::LEN + if header.kind == ITEM_NAME { Object::LEN } else { 0 };
    let said = header.bytes as usize;
    let wrong = DecodeError::ItemLength { offset, said: header.bytes, least, most: left.len() };
    if said < least {
        return Err(wrong);
    }
    let bytes = left.get(least..said).ok_or(wrong)?;
    let object = if header.kind == ITEM_NAME && header.flags & ITEM_NO_OBJECT == 0 {
        Object::read(&left[Item::LEN..])
    } else {
        None
    };
    Ok(ItemView { header, object, bytes })
}

/// What was read, or that there were too few bytes for it.
fn read<T>(
    it: Option<T>,
    offset: usize,
    what: &'static str,
    needed: usize,
    left: &[u8],
) -> Result<T, DecodeError> {
    it.ok_or(DecodeError::Short { offset, what, needed, have: left.len() })
}

/// Items from `at` on, all of which are looked at.
fn items(part: &[u8], at: usize) -> Result<Items<'_>, DecodeError> {
    let items = Items { part, at };
    let mut look = items;
    while let Some(item) = look.step() {
        item?;
    }
    Ok(items)
}

/// Reads a part that is exactly `bytes`: as it lies in a ring, without what fills its last slot.
///
/// # Errors
/// [`DecodeError`] says what is wrong and where; nothing is assumed of `bytes`.
pub fn parse(bytes: &[u8]) -> Result<PartView<'_>, DecodeError> {
    let header = read(Part::read(bytes), 0, "graven_part", Part::LEN, bytes)?;
    if bytes.len() > PART_BYTES_MAX {
        return Err(DecodeError::TooLong(bytes.len()));
    }
    if header.bytes as usize != bytes.len() {
        return Err(DecodeError::Length { said: header.bytes, have: bytes.len() });
    }
    let behind = &bytes[Part::LEN..];
    let body = match header.kind {
        PART_PAD => return Err(DecodeError::Pad),
        PART_CALL => {
            let call = read(Call::read(behind), Part::LEN, "graven_call", Call::LEN, behind)?;
            Body::Call(call, items(bytes, Part::LEN + Call::LEN)?)
        }
        PART_MORE => Body::More(items(bytes, Part::LEN)?),
        PART_GAP => {
            let gap = read(Gap::read(behind), Part::LEN, "graven_gap", Gap::LEN, behind)?;
            let offset = Part::LEN + Gap::LEN;
            let len = bytes.len() - offset;
            if len > 0 {
                return Err(DecodeError::Trailing { offset, len });
            }
            Body::Gap(gap)
        }
        _ => Body::Unknown(behind),
    };
    Ok(PartView { header, body })
}

const _: () = assert!(Part::LEN.is_multiple_of(ITEM_ALIGN) && Call::LEN.is_multiple_of(ITEM_ALIGN));
