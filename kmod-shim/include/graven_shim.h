/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What Graven's kernel side and its reader share: memory with rings, and the records in them.
 *
 * Everything is little-endian and naturally aligned, with no hidden padding. kmod-shim/abi is the same in
 * Rust; its test compiles this file and compares every offset, size and constant. docs/kernel-shim.md has
 * the rules.
 */
#ifndef GRAVEN_SHIM_H
#define GRAVEN_SHIM_H

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/ioctl.h>
#include <linux/types.h>
#else
#include <linux/ioctl.h>
#include <linux/types.h>
#include <stddef.h>
#endif

/* "GRVNSHIM", read as a little-endian number. */
#define GRAVEN_SHIM_MAGIC 0x4d4948534e565247ULL
/* The reader refuses a version that it does not know, by name. */
#define GRAVEN_SHIM_VERSION 1

/*
 * The memory: a control page; then for each ring a producer page, a consumer page and the slots.
 * The kernel side believes nothing of it but a tail, and that only after a check.
 */
#define GRAVEN_SHIM_PAGE_BYTES 4096
#define GRAVEN_SHIM_SLOT_BYTES 256
#define GRAVEN_SHIM_RINGS_MAX 1024
#define GRAVEN_SHIM_SLOTS_MAX 1048576
/* A part of a record fits into the task's buffer and into a quarter of a ring. */
#define GRAVEN_SHIM_PART_BYTES_MIN 512
#define GRAVEN_SHIM_PART_BYTES_MAX 16384

/* graven_control.state */
#define GRAVEN_STATE_PASSING 1 /* calls go on unrecorded, and are counted */

struct graven_control {
	__u64 magic;
	__u32 version;
	__u32 ring_count;
	__u64 instance; /* random for each load: (instance, ring, ring_seq) names a part for ever */
	__u32 slot_bytes;
	__u32 slots; /* of each ring; a power of two */
	__u32 part_bytes_max;
	__u32 state; /* GRAVEN_STATE_… */
	__u64 rings_offset; /* of the first ring's producer page */
	__u64 ring_stride; /* from one ring's producer page to the next one's */
	__u64 order_next; /* at least as many records have got a number; all of them arrive. GRAVEN_IOC_STATUS is exact */
	__u64 passed; /* calls that went on unrecorded, ever */
	__u32 waiting; /* tasks that sleep until there is room */
	__u32 orphans; /* complete records whose task is gone, not in a ring yet */
};

/* Written by the kernel side. Positions count slots from 0 and never wrap; slot = position mod slots. */
struct graven_producer {
	__u64 head; /* what lies before it is whole: load with acquire */
	__u64 ring_seq; /* the next part's */
	__u64 bad_tails; /* looks at a tail that was impossible: the ring counts as full then */
	__u64 tail; /* the last possible one that was looked at: where a reader begins that finds an impossible one */
};

/* Written by the reader. */
struct graven_consumer {
	__u64 tail; /* what lies before it is durable and may be overwritten: store with release */
	__u64 read; /* how far the reader has come; only a hint for poll */
};

/* graven_part.kind */
#define GRAVEN_PART_PAD 0 /* nothing up to the ring's end; has no ring_seq of its own */
#define GRAVEN_PART_CALL 1 /* struct graven_call, then items */
#define GRAVEN_PART_MORE 2 /* items of the same record */
#define GRAVEN_PART_GAP 3 /* struct graven_gap */

/* graven_part.flags */
#define GRAVEN_PART_LAST 1 /* the record ends with this part */
#define GRAVEN_PART_ORPHAN 2 /* its task was killed before the part was in a ring */
#define GRAVEN_PART_NO_RETURN 4 /* the call did not return: its task ended in it */
#define GRAVEN_PART_CUT 8 /* the task was killed before the rest of the record was read */
#define GRAVEN_PART_REFUSED 16 /* the call was refused by policy */
#define GRAVEN_PART_UNSEEN 32 /* what is done by means of this call later is not captured (io_uring) */

/* Starts at a slot, is contiguous, and takes as many slots as it needs. */
struct graven_part {
	__u32 bytes; /* with this header, without what fills the last slot; a pad's: all of it */
	__u16 kind;
	__u16 flags;
	__u32 ring;
	__u32 part; /* of its record, from 0 */
	__u64 ring_seq; /* dense in its ring */
	__u64 order; /* of its record: dense over all rings, taken when the call ended. Of a gap: that many records had one */
};

/* graven_call.captured: a field whose bit is not set is not captured, whatever it holds. */
#define GRAVEN_CAPTURED_START 0x1 /* start_ns, start_boot_ns */
#define GRAVEN_CAPTURED_END 0x2
#define GRAVEN_CAPTURED_ARGS 0x4
#define GRAVEN_CAPTURED_RESULT 0x8
#define GRAVEN_CAPTURED_TASK 0x10 /* pid, tid, ppid */
#define GRAVEN_CAPTURED_CREDENTIALS 0x20 /* uid to fsgid */
#define GRAVEN_CAPTURED_AUID 0x40
#define GRAVEN_CAPTURED_SESSION 0x80
#define GRAVEN_CAPTURED_COMM 0x100
#define GRAVEN_CAPTURED_PERSONALITY 0x200
/* Every name that the kernel looked up is among the items, or is there as not captured. */
#define GRAVEN_CAPTURED_NAMES 0x400
#define GRAVEN_CAPTURED_SOCKADDR 0x800
#define GRAVEN_CAPTURED_ARGV 0x1000

struct graven_call {
	__u64 start_ns; /* CLOCK_REALTIME */
	__u64 end_ns;
	__u64 start_boot_ns; /* CLOCK_BOOTTIME */
	__u64 captured;
	__u64 args[6];
	__s64 result; /* or minus errno */
	__u32 arch; /* AUDIT_ARCH_… */
	__u32 nr; /* of that arch */
	__u32 pid; /* the process's, in the first namespace, as all ids */
	__u32 tid;
	__u32 ppid;
	__u32 auid;
	__u32 session;
	__u32 uid;
	__u32 gid;
	__u32 euid;
	__u32 suid;
	__u32 fsuid;
	__u32 egid;
	__u32 sgid;
	__u32 fsgid;
	__u32 personality;
	__u8 comm[16]; /* ends with the first zero */
	__u32 items; /* of the whole record, all parts; ~0 if not known when this part was written */
	__u32 reserved;
};

/* graven_item.kind */
#define GRAVEN_ITEM_NAME 1 /* struct graven_object, then the name as given */
#define GRAVEN_ITEM_CWD 2
#define GRAVEN_ITEM_EXE 3
#define GRAVEN_ITEM_ARGV 4 /* bytes of arguments, each ended by a zero */
#define GRAVEN_ITEM_SOCKADDR 5
#define GRAVEN_ITEM_PROCTITLE 6
#define GRAVEN_ITEM_TTY 7

/* graven_item.role, of a name */
#define GRAVEN_ROLE_NONE 0
#define GRAVEN_ROLE_TARGET 1 /* what the call is about */
#define GRAVEN_ROLE_PARENT 2 /* the folder that it changes */
#define GRAVEN_ROLE_OLD 3 /* rename, link: from here */
#define GRAVEN_ROLE_NEW 4 /* rename, link, symlink: to here */
#define GRAVEN_ROLE_TEXT 5 /* what a symlink says; not looked up */
#define GRAVEN_ROLE_PROGRAM 6 /* execve: the file */
#define GRAVEN_ROLE_INTERPRETER 7 /* execve: what runs the file */

/* graven_item.flags */
#define GRAVEN_ITEM_NOT_CAPTURED 1 /* there was one; its bytes could not be had */
#define GRAVEN_ITEM_CUT 2 /* bytes are missing at its end */
#define GRAVEN_ITEM_CONTINUES 4 /* goes on in the next part's first item */
#define GRAVEN_ITEM_FROM_USER 8 /* read from user memory: not sure to be what the kernel acted on */
#define GRAVEN_ITEM_NO_OBJECT 16 /* struct graven_object is not captured */
#define GRAVEN_ITEM_MADE 32 /* the call made the object */

/* Starts at a multiple of 8 from its part's start. */
struct graven_item {
	__u32 bytes; /* with this header, without what fills up to the next one */
	__u16 kind;
	__u16 role;
	__u32 flags;
	__u32 index; /* among its kind; of argv: the first argument's */
};

struct graven_object {
	__u64 inode;
	__u32 dev_major;
	__u32 dev_minor;
	__u32 rdev_major;
	__u32 rdev_minor;
	__u32 mode;
	__u32 uid;
	__u32 gid;
	__s32 dir_fd; /* what the name is relative to; AT_FDCWD: the item of the cwd */
};

/* graven_gap.reason */
#define GRAVEN_GAP_NO_READER 1 /* policy pass: no room, and nobody reads */

struct graven_gap {
	__u64 from_ns; /* the first one's; CLOCK_BOOTTIME */
	__u64 to_ns; /* the last one's */
	__u64 count; /* calls that went on unrecorded */
	__u32 reason;
	__u32 reserved;
};

/* What to do when there is no room and nobody has the device open. */
#define GRAVEN_NO_READER_BLOCK 0
#define GRAVEN_NO_READER_PANIC 1
#define GRAVEN_NO_READER_PASS 2

/* graven_rule.action */
#define GRAVEN_RULE_NEVER 0
#define GRAVEN_RULE_AUDIT 1

/* graven_rule.fields: what the rule asks for; a rule without any is for every call. */
#define GRAVEN_RULE_ARCH 0x1
#define GRAVEN_RULE_CALLS 0x2 /* with GRAVEN_RULE_ARCH only */
#define GRAVEN_RULE_UID 0x4 /* the real one: uid_from to uid_to */
#define GRAVEN_RULE_AUID 0x8
#define GRAVEN_RULE_SESSION 0x10
#define GRAVEN_RULE_PID 0x20 /* of the process */
#define GRAVEN_RULE_FOLLOWED 0x40 /* who said GRAVEN_IOC_FOLLOW, and all that descends from it */
#define GRAVEN_RULE_SUCCESS 0x80 /* the result is no error */
#define GRAVEN_RULE_FAILURE 0x100
#define GRAVEN_RULE_FIELDS 0x1ff

#define GRAVEN_RULES_MAX 64

/* Of all rules the first one that fits decides; if none does, the call is not recorded. */
struct graven_rule {
	__u32 action;
	__u32 fields;
	__u32 arch; /* AUDIT_ARCH_… */
	__u32 uid_from;
	__u32 uid_to;
	__u32 auid;
	__u32 session;
	__u32 pid;
	__u64 calls[8]; /* bit n: the call n */
};

struct graven_rules {
	__u32 count;
	__u32 reserved;
	struct graven_rule rules[GRAVEN_RULES_MAX];
};

/* graven_policy.io_uring: its operations are not system calls. */
#define GRAVEN_IO_URING_REFUSE 0 /* its calls fail with EPERM for whom a rule records */
#define GRAVEN_IO_URING_UNSEEN 1 /* they succeed, and their record says UNSEEN */

struct graven_policy {
	__u32 no_reader; /* GRAVEN_NO_READER_… */
	__u32 no_reader_ms; /* so long a task waits before PANIC or PASS */
	__u32 io_uring;
	__u32 pinned; /* 1: the module cannot be unloaded any more */
};

/* Bits of graven_status.hooks: where the kernel's own copies are taken. */
#define GRAVEN_HOOK_NAMES 0x1
#define GRAVEN_HOOK_OPENED 0x2
#define GRAVEN_HOOK_CHANGED 0x4
#define GRAVEN_HOOK_RENAMED 0x8
#define GRAVEN_HOOK_LINKED 0x10
#define GRAVEN_HOOK_REMOVED 0x20
#define GRAVEN_HOOK_CONNECT 0x40
#define GRAVEN_HOOK_BIND 0x80
#define GRAVEN_HOOK_SEND 0x100
#define GRAVEN_HOOK_RECEIVED 0x200
#define GRAVEN_HOOK_LOOKED 0x400
#define GRAVEN_HOOK_MADE 0x800

struct graven_status {
	__u64 instance;
	__u64 order_next; /* records that have got a number */
	__u64 passed; /* calls that went on unrecorded, ever */
	__u64 skipped; /* times that a call was put off before it began */
	__u64 waited; /* times that a task slept for want of room */
	__u64 waited_ns; /* all of these sleeps */
	__u64 refused; /* calls of io_uring that were refused */
	__u64 bad_tails;
	__u64 memory_bytes; /* of buffers, now; the rings not counted */
	__u32 version;
	__u32 tasks; /* that have a buffer */
	__u32 waiting;
	__u32 orphans;
	__u32 reader; /* the process that reads; 0: none */
	__u32 absent_ms; /* how long there has been none */
	__u32 hooks; /* that are in place: GRAVEN_HOOK_… */
	__u32 hooks_wanted;
	__u32 rules;
	__u32 follow_all; /* 1: a child could not be marked, so everybody counts as followed */
	struct graven_policy policy;
};

/*
 * The device: opened for reading and writing by one process, the reader, which is exempt; for reading by
 * anybody who may. All of the memory can be mapped for reading, consumer pages one by one for writing.
 */
#define GRAVEN_IOC_ADVANCED _IO('G', 1) /* tails moved: whoever waits may go on */
#define GRAVEN_IOC_RULES _IOW('G', 2, struct graven_rules) /* replaces all of them at once */
#define GRAVEN_IOC_POLICY _IOW('G', 3, struct graven_policy)
#define GRAVEN_IOC_STATUS _IOR('G', 4, struct graven_status)
#define GRAVEN_IOC_FOLLOW _IO('G', 5) /* the caller, and all that will descend from it */

_Static_assert(sizeof(struct graven_rule) == 96, "graven_rule");
_Static_assert(sizeof(struct graven_rules) == 6152, "graven_rules");
_Static_assert(sizeof(struct graven_policy) == 16, "graven_policy");
_Static_assert(sizeof(struct graven_status) == 128, "graven_status");
_Static_assert(sizeof(struct graven_control) == 80, "graven_control");
_Static_assert(offsetof(struct graven_control, rings_offset) == 40, "graven_control.rings_offset");
_Static_assert(offsetof(struct graven_control, waiting) == 72, "graven_control.waiting");
_Static_assert(sizeof(struct graven_producer) == 32, "graven_producer");
_Static_assert(sizeof(struct graven_consumer) == 16, "graven_consumer");
_Static_assert(sizeof(struct graven_part) == 32, "graven_part");
_Static_assert(offsetof(struct graven_part, order) == 24, "graven_part.order");
_Static_assert(sizeof(struct graven_call) == 176, "graven_call");
_Static_assert(offsetof(struct graven_call, result) == 80, "graven_call.result");
_Static_assert(offsetof(struct graven_call, comm) == 152, "graven_call.comm");
_Static_assert(sizeof(struct graven_item) == 16, "graven_item");
_Static_assert(sizeof(struct graven_object) == 40, "graven_object");
_Static_assert(sizeof(struct graven_gap) == 32, "graven_gap");
_Static_assert(sizeof(struct graven_control) <= GRAVEN_SHIM_PAGE_BYTES, "control page");

#endif
