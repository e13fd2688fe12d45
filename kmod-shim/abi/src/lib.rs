//! What Graven's kernel side and its reader share, in Rust: the same as `kmod-shim/include/graven_shim.h`, whose
//! rules are in `docs/kernel-shim.md`. A test compiles that file and compares every offset, size and constant.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod decode;
pub mod encode;
pub mod layout;

use layout::{constants, layout};

constants! {
    /// "GRVNSHIM", read as a little-endian number.
    MAGIC: u64 = 0x4d4948534e565247, "GRAVEN_SHIM_MAGIC";
    /// The reader refuses a version that it does not know, by name.
    VERSION: u32 = 1, "GRAVEN_SHIM_VERSION";
    /// Bytes of a page: the control page, then for each ring its producer page, its consumer page, its slots.
    PAGE_BYTES: usize = 4096, "GRAVEN_SHIM_PAGE_BYTES";
    /// Bytes of a slot.
    SLOT_BYTES: usize = 256, "GRAVEN_SHIM_SLOT_BYTES";
    /// The most rings.
    RINGS_MAX: u32 = 1024, "GRAVEN_SHIM_RINGS_MAX";
    /// The most slots of a ring.
    SLOTS_MAX: u32 = 1_048_576, "GRAVEN_SHIM_SLOTS_MAX";
    /// The least that `part_bytes_max` may be; a part fits into a quarter of a ring.
    PART_BYTES_MIN: usize = 512, "GRAVEN_SHIM_PART_BYTES_MIN";
    /// The most that `part_bytes_max` may be.
    PART_BYTES_MAX: usize = 16384, "GRAVEN_SHIM_PART_BYTES_MAX";
    /// Calls go on unrecorded, and are counted.
    STATE_PASSING: u32 = 1, "GRAVEN_STATE_PASSING";
    /// Nothing up to the ring's end; has no ring_seq of its own.
    PART_PAD: u16 = 0, "GRAVEN_PART_PAD";
    /// A [`Call`], then items.
    PART_CALL: u16 = 1, "GRAVEN_PART_CALL";
    /// Items of the same record.
    PART_MORE: u16 = 2, "GRAVEN_PART_MORE";
    /// A [`Gap`].
    PART_GAP: u16 = 3, "GRAVEN_PART_GAP";
    /// The record ends with this part.
    PART_LAST: u16 = 1, "GRAVEN_PART_LAST";
    /// Its task was killed before the part was in a ring.
    PART_ORPHAN: u16 = 2, "GRAVEN_PART_ORPHAN";
    /// The call did not return: its task ended in it.
    PART_NO_RETURN: u16 = 4, "GRAVEN_PART_NO_RETURN";
    /// The task was killed before the rest of the record was read.
    PART_CUT: u16 = 8, "GRAVEN_PART_CUT";
    /// The call was refused by policy.
    PART_REFUSED: u16 = 16, "GRAVEN_PART_REFUSED";
    /// What is done by means of this call later is not captured (io_uring).
    PART_UNSEEN: u16 = 32, "GRAVEN_PART_UNSEEN";
    /// The times of its start.
    CAPTURED_START: u64 = 0x1, "GRAVEN_CAPTURED_START";
    /// The time of its end.
    CAPTURED_END: u64 = 0x2, "GRAVEN_CAPTURED_END";
    /// The six arguments.
    CAPTURED_ARGS: u64 = 0x4, "GRAVEN_CAPTURED_ARGS";
    /// The outcome.
    CAPTURED_RESULT: u64 = 0x8, "GRAVEN_CAPTURED_RESULT";
    /// The ids `pid`, `tid`, `ppid`.
    CAPTURED_TASK: u64 = 0x10, "GRAVEN_CAPTURED_TASK";
    /// The fields `uid` to `fsgid`.
    CAPTURED_CREDENTIALS: u64 = 0x20, "GRAVEN_CAPTURED_CREDENTIALS";
    /// Who logged in.
    CAPTURED_AUID: u64 = 0x40, "GRAVEN_CAPTURED_AUID";
    /// The login's session.
    CAPTURED_SESSION: u64 = 0x80, "GRAVEN_CAPTURED_SESSION";
    /// The thread's name.
    CAPTURED_COMM: u64 = 0x100, "GRAVEN_CAPTURED_COMM";
    /// The personality.
    CAPTURED_PERSONALITY: u64 = 0x200, "GRAVEN_CAPTURED_PERSONALITY";
    /// Every name that the kernel looked up is among the items, or is there as not captured.
    CAPTURED_NAMES: u64 = 0x400, "GRAVEN_CAPTURED_NAMES";
    /// Every socket address, in the same way.
    CAPTURED_SOCKADDR: u64 = 0x800, "GRAVEN_CAPTURED_SOCKADDR";
    /// Every argument of an execve, in the same way.
    CAPTURED_ARGV: u64 = 0x1000, "GRAVEN_CAPTURED_ARGV";
    /// An [`Object`], then the name as given.
    ITEM_NAME: u16 = 1, "GRAVEN_ITEM_NAME";
    /// The working folder.
    ITEM_CWD: u16 = 2, "GRAVEN_ITEM_CWD";
    /// The running program's path.
    ITEM_EXE: u16 = 3, "GRAVEN_ITEM_EXE";
    /// Bytes of arguments, each ended by a zero.
    ITEM_ARGV: u16 = 4, "GRAVEN_ITEM_ARGV";
    /// A socket address.
    ITEM_SOCKADDR: u16 = 5, "GRAVEN_ITEM_SOCKADDR";
    /// The command line as the process shows it.
    ITEM_PROCTITLE: u16 = 6, "GRAVEN_ITEM_PROCTITLE";
    /// The terminal's name.
    ITEM_TTY: u16 = 7, "GRAVEN_ITEM_TTY";
    /// No name, or of unknown role.
    ROLE_NONE: u16 = 0, "GRAVEN_ROLE_NONE";
    /// What the call is about.
    ROLE_TARGET: u16 = 1, "GRAVEN_ROLE_TARGET";
    /// The folder that it changes.
    ROLE_PARENT: u16 = 2, "GRAVEN_ROLE_PARENT";
    /// Rename, link: from here.
    ROLE_OLD: u16 = 3, "GRAVEN_ROLE_OLD";
    /// Rename, link, symlink: to here.
    ROLE_NEW: u16 = 4, "GRAVEN_ROLE_NEW";
    /// What a symlink says; not looked up.
    ROLE_TEXT: u16 = 5, "GRAVEN_ROLE_TEXT";
    /// Execve: the file.
    ROLE_PROGRAM: u16 = 6, "GRAVEN_ROLE_PROGRAM";
    /// Execve: what runs the file.
    ROLE_INTERPRETER: u16 = 7, "GRAVEN_ROLE_INTERPRETER";
    /// There was one; its bytes could not be had.
    ITEM_NOT_CAPTURED: u32 = 1, "GRAVEN_ITEM_NOT_CAPTURED";
    /// Bytes are missing at its end.
    ITEM_CUT: u32 = 2, "GRAVEN_ITEM_CUT";
    /// Goes on in the next part's first item.
    ITEM_CONTINUES: u32 = 4, "GRAVEN_ITEM_CONTINUES";
    /// Read from user memory: not sure to be what the kernel acted on.
    ITEM_FROM_USER: u32 = 8, "GRAVEN_ITEM_FROM_USER";
    /// The [`Object`] is not captured.
    ITEM_NO_OBJECT: u32 = 16, "GRAVEN_ITEM_NO_OBJECT";
    /// The call made the object.
    ITEM_MADE: u32 = 32, "GRAVEN_ITEM_MADE";
    /// Policy pass: no room, and nobody reads.
    GAP_NO_READER: u32 = 1, "GRAVEN_GAP_NO_READER";
    /// Without room and reader: wait.
    NO_READER_BLOCK: u32 = 0, "GRAVEN_NO_READER_BLOCK";
    /// Panic, after the time that the policy names.
    NO_READER_PANIC: u32 = 1, "GRAVEN_NO_READER_PANIC";
    /// Let calls go on unrecorded after that time, counted in a gap.
    NO_READER_PASS: u32 = 2, "GRAVEN_NO_READER_PASS";
    /// What fits the rule is not recorded.
    RULE_NEVER: u32 = 0, "GRAVEN_RULE_NEVER";
    /// What fits the rule is recorded.
    RULE_AUDIT: u32 = 1, "GRAVEN_RULE_AUDIT";
    /// `arch` counts.
    RULE_ARCH: u32 = 0x1, "GRAVEN_RULE_ARCH";
    /// `calls` counts; only with [`RULE_ARCH`].
    RULE_CALLS: u32 = 0x2, "GRAVEN_RULE_CALLS";
    /// The real uid lies from `uid_from` to `uid_to`.
    RULE_UID: u32 = 0x4, "GRAVEN_RULE_UID";
    /// `auid` counts.
    RULE_AUID: u32 = 0x8, "GRAVEN_RULE_AUID";
    /// `session` counts.
    RULE_SESSION: u32 = 0x10, "GRAVEN_RULE_SESSION";
    /// `pid`, of the process, counts.
    RULE_PID: u32 = 0x20, "GRAVEN_RULE_PID";
    /// Who said [`IOC_FOLLOW`], and all that descends from it.
    RULE_FOLLOWED: u32 = 0x40, "GRAVEN_RULE_FOLLOWED";
    /// The result is no error.
    RULE_SUCCESS: u32 = 0x80, "GRAVEN_RULE_SUCCESS";
    /// The result is an error.
    RULE_FAILURE: u32 = 0x100, "GRAVEN_RULE_FAILURE";
    /// All bits that a rule may have.
    RULE_FIELDS: u32 = 0x1ff, "GRAVEN_RULE_FIELDS";
    /// The most rules.
    RULES_MAX: usize = 64, "GRAVEN_RULES_MAX";
    /// Calls of io_uring fail with EPERM for whom a rule records.
    IO_URING_REFUSE: u32 = 0, "GRAVEN_IO_URING_REFUSE";
    /// They succeed, and their record says [`PART_UNSEEN`].
    IO_URING_UNSEEN: u32 = 1, "GRAVEN_IO_URING_UNSEEN";
    /// Path names.
    HOOK_NAMES: u32 = 0x1, "GRAVEN_HOOK_NAMES";
    /// Files that were opened.
    HOOK_OPENED: u32 = 0x2, "GRAVEN_HOOK_OPENED";
    /// Files whose attributes changed.
    HOOK_CHANGED: u32 = 0x4, "GRAVEN_HOOK_CHANGED";
    /// Files that were renamed.
    HOOK_RENAMED: u32 = 0x8, "GRAVEN_HOOK_RENAMED";
    /// Files that got another name.
    HOOK_LINKED: u32 = 0x10, "GRAVEN_HOOK_LINKED";
    /// Files that were removed.
    HOOK_REMOVED: u32 = 0x20, "GRAVEN_HOOK_REMOVED";
    /// Addresses of connect.
    HOOK_CONNECT: u32 = 0x40, "GRAVEN_HOOK_CONNECT";
    /// Addresses of bind.
    HOOK_BIND: u32 = 0x80, "GRAVEN_HOOK_BIND";
    /// Addresses that are sent to.
    HOOK_SEND: u32 = 0x100, "GRAVEN_HOOK_SEND";
    /// Addresses that the kernel gives to the program.
    HOOK_RECEIVED: u32 = 0x200, "GRAVEN_HOOK_RECEIVED";
    /// What is only looked at.
    HOOK_LOOKED: u32 = 0x400, "GRAVEN_HOOK_LOOKED";
    /// What mkdir, mknod and symlink make.
    HOOK_MADE: u32 = 0x800, "GRAVEN_HOOK_MADE";
    /// Tails moved: whoever waits may go on.
    IOC_ADVANCED: u32 = 0x4701, "GRAVEN_IOC_ADVANCED";
    /// [`Rules`], which replace all that there were.
    IOC_RULES: u32 = 0x5808_4702, "GRAVEN_IOC_RULES";
    /// A [`Policy`].
    IOC_POLICY: u32 = 0x4010_4703, "GRAVEN_IOC_POLICY";
    /// Gives a [`Status`].
    IOC_STATUS: u32 = 0x8080_4704, "GRAVEN_IOC_STATUS";
    /// The caller, and all that will descend from it, are followed.
    IOC_FOLLOW: u32 = 0x4705, "GRAVEN_IOC_FOLLOW";
}

layout! {
    /// The first page: what the reader must know, and how the kernel side is doing.
    Control, "graven_control" {
        /// [`MAGIC`].
        magic: u64,
        /// [`VERSION`].
        version: u32,
        /// How many rings there are.
        ring_count: u32,
        /// Random for each load: (instance, ring, ring_seq) names a part for ever.
        instance: u64,
        /// Bytes of a slot.
        slot_bytes: u32,
        /// Of each ring; a power of two.
        slots: u32,
        /// The longest part.
        part_bytes_max: u32,
        /// `STATE_…` bits.
        state: u32,
        /// Of the first ring's producer page.
        rings_offset: u64,
        /// From one ring's producer page to the next one's.
        ring_stride: u64,
        /// At least as many records have got a number; all of them arrive. [`Status`] is exact.
        order_next: u64,
        /// Calls that went on unrecorded, ever.
        passed: u64,
        /// Tasks that sleep until there is room.
        waiting: u32,
        /// Complete records whose task is gone, not in a ring yet.
        orphans: u32,
    }
}

layout! {
    /// A ring's first page, written by the kernel side. Positions count slots from 0 and never wrap.
    Producer, "graven_producer" {
        /// What lies before it is whole: load with acquire.
        head: u64,
        /// The next part's.
        ring_seq: u64,
        /// Looks at a tail that was impossible: the ring counts as full then.
        bad_tails: u64,
        /// The last possible one that was looked at: where a reader begins that finds an impossible one.
        tail: u64,
    }
}

layout! {
    /// A ring's second page, written by the reader.
    Consumer, "graven_consumer" {
        /// What lies before it is durable and may be overwritten: store with release.
        tail: u64,
        /// How far the reader has come; only a hint for poll.
        read: u64,
    }
}

layout! {
    /// What every part of a record starts with. It starts at a slot and is contiguous.
    Part, "graven_part" {
        /// With this header, without what fills the last slot; a pad's: all of it.
        bytes: u32,
        /// `PART_…`.
        kind: u16,
        /// `PART_…` bits.
        flags: u16,
        /// The ring that it was put into.
        ring: u32,
        /// Its place in its record, from 0.
        part: u32,
        /// Dense in its ring.
        ring_seq: u64,
        /// Of its record: dense over all rings, taken when the call ended.
        order: u64,
    }
}

layout! {
    /// A system call: what follows the header of a part of kind [`PART_CALL`]; items follow.
    Call, "graven_call" {
        /// CLOCK_REALTIME.
        start_ns: u64,
        /// The same, when it ended.
        end_ns: u64,
        /// CLOCK_BOOTTIME.
        start_boot_ns: u64,
        /// `CAPTURED_…` bits: what is not set was not captured, whatever the field holds.
        captured: u64,
        /// As the kernel got them.
        args: [u64; 6],
        /// What it returned, or minus errno.
        result: i64,
        /// AUDIT_ARCH_…
        arch: u32,
        /// The call's number, which belongs to that arch.
        nr: u32,
        /// The process's, in the first namespace, as all ids.
        pid: u32,
        /// The thread's.
        tid: u32,
        /// The parent process's.
        ppid: u32,
        /// Who logged in, all ones if nobody did.
        auid: u32,
        /// Of the login, all ones if there is none.
        session: u32,
        /// Real.
        uid: u32,
        /// Real.
        gid: u32,
        /// Effective.
        euid: u32,
        /// Saved.
        suid: u32,
        /// For files.
        fsuid: u32,
        /// Effective.
        egid: u32,
        /// Saved.
        sgid: u32,
        /// For files.
        fsgid: u32,
        /// As `personality(2)` has it.
        personality: u32,
        /// Ends with the first zero.
        comm: [u8; 16],
        /// Of the whole record, all parts; ~0 if not known when this part was written.
        items: u32,
        /// Zero.
        reserved: u32,
    }
}

layout! {
    /// What every item starts with. It starts at a multiple of 8 from its part's start.
    Item, "graven_item" {
        /// With this header, without what fills up to the next one.
        bytes: u32,
        /// `ITEM_…`.
        kind: u16,
        /// `ROLE_…`.
        role: u16,
        /// `ITEM_…` bits.
        flags: u32,
        /// Among its kind; of argv: the first argument's.
        index: u32,
    }
}

layout! {
    /// What a name led to: an item of kind [`ITEM_NAME`] starts with it, the name as given follows.
    Object, "graven_object" {
        /// Its number.
        inode: u64,
        /// Of the device that it lies on.
        dev_major: u32,
        /// Of the device that it lies on.
        dev_minor: u32,
        /// Of the device that it is.
        rdev_major: u32,
        /// Of the device that it is.
        rdev_minor: u32,
        /// Kind and permissions.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// What the name is relative to; AT_FDCWD: the item of the cwd.
        dir_fd: i32,
    }
}

layout! {
    /// Calls that went on unrecorded by policy.
    Gap, "graven_gap" {
        /// The first one's; CLOCK_BOOTTIME.
        from_ns: u64,
        /// The last one's.
        to_ns: u64,
        /// Calls that went on unrecorded.
        count: u64,
        /// `GAP_…`.
        reason: u32,
        /// Zero.
        reserved: u32,
    }
}

layout! {
    /// Of all rules the first one that fits decides; if none does, the call is not recorded.
    Rule, "graven_rule" {
        /// [`RULE_AUDIT`] or [`RULE_NEVER`].
        action: u32,
        /// Which of the fields count: `RULE_…` bits.
        fields: u32,
        /// `AUDIT_ARCH_…`.
        arch: u32,
        /// The least real uid.
        uid_from: u32,
        /// The greatest real uid.
        uid_to: u32,
        /// Who logged in.
        auid: u32,
        /// Of the login.
        session: u32,
        /// Of the process.
        pid: u32,
        /// Bit n: the call n.
        calls: [u64; 8],
    }
}

layout! {
    /// All rules at once. Made by [`Rules::of`].
    Rules, "graven_rules" {
        /// How many there are.
        count: u32,
        /// Zero.
        reserved: u32,
        /// Each a [`Rule`], in two dimensions for the sake of `Default`.
        rules: [[[u64; 12]; 8]; 8],
    }
}

layout! {
    /// What the kernel side does where it has a choice.
    Policy, "graven_policy" {
        /// `NO_READER_…`.
        no_reader: u32,
        /// Milliseconds that a task waits before PANIC or PASS.
        no_reader_ms: u32,
        /// `IO_URING_…`.
        io_uring: u32,
        /// 1: the module cannot be unloaded any more.
        pinned: u32,
    }
}

layout! {
    /// How the kernel side is doing.
    Status, "graven_status" {
        /// Of this load.
        instance: u64,
        /// Records that have got a number.
        order_next: u64,
        /// Calls that went on unrecorded, ever.
        passed: u64,
        /// Times that a call was put off before it began.
        skipped: u64,
        /// Times that a task slept for want of room.
        waited: u64,
        /// All of these sleeps.
        waited_ns: u64,
        /// Calls of io_uring that were refused.
        refused: u64,
        /// Looks at a tail that was impossible.
        bad_tails: u64,
        /// Of the tasks' buffers, now; the rings not counted.
        memory_bytes: u64,
        /// [`VERSION`].
        version: u32,
        /// That have a buffer.
        tasks: u32,
        /// That sleep until there is room.
        waiting: u32,
        /// Complete records whose task is gone, not in a ring yet.
        orphans: u32,
        /// The process that reads; 0: none.
        reader: u32,
        /// Milliseconds since there was one.
        absent_ms: u32,
        /// That are in place: `HOOK_…` bits.
        hooks: u32,
        /// That should be.
        hooks_wanted: u32,
        /// How many there are.
        rules: u32,
        /// 1: a child could not be marked, so everybody counts as followed.
        follow_all: u32,
        /// A [`Policy`].
        policy: [u32; 4],
    }
}

impl Rules {
    /// These; nothing if they are more than [`RULES_MAX`].
    #[must_use]
    pub fn of(rules: &[Rule]) -> Option<Self> {
        let mut all = Self { count: u32::try_from(rules.len()).ok()?, ..Self::default() };
        for (at, rule) in rules.iter().enumerate() {
            let place = all.rules.as_flattened_mut().get_mut(at)?;
            for (word, bytes) in place.iter_mut().zip(rule.to_bytes().as_chunks().0) {
                *word = u64::from_le_bytes(*bytes);
            }
        }
        Some(all)
    }
}
