/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The state machine of the shim: task buffers, rings and orphans. Plain C that the module and its user-space
 * twin compile alike. It never sleeps, allocates or looks at a task: what calls it does.
 *
 * A buffer belongs to one task. It is empty, or holds one part of a record that is being made or waits for
 * room. It is emptied by gs_push alone, or given away to the orphans.
 */
#ifndef GRAVEN_CORE_H
#define GRAVEN_CORE_H

#include "graven_env.h"
#include "../include/graven_shim.h"

struct gs_buffer {
	struct gs_buffer *next; /* among the orphans */
	__u64 order; /* of its record, once that has got one */
	__u32 size; /* bytes of data[] */
	__u32 used; /* bytes of the part in data[]; 0: the buffer is empty */
	__u32 part; /* the number of that part in its record */
	__u32 items; /* in the record so far */
	__u8 data[] __attribute__((aligned(8)));
};

/* What is in shared memory is written only; what the core believes is here. */
struct gs_ring {
	gs_lock_t lock;
	__u32 index;
	struct graven_producer *producer;
	struct graven_consumer *consumer;
	__u8 *slots;
	__u64 head;
	__u64 tail; /* the last one that was possible */
	__u64 ring_seq;
	__u64 bad_tails;
};

struct gs_core {
	struct graven_control *control;
	__u32 ring_count;
	__u32 slots; /* of each ring; a power of two */
	__u32 part_bytes_max;
	__u32 no_reader; /* GRAVEN_NO_READER_…; set by gs_policy */
	__u32 no_reader_ms; /* so long a task waits without a reader, unless it is to BLOCK */

	gs_counter_t order_next;
	gs_counter_t passed;

	gs_lock_t lock; /* of what follows */
	struct gs_buffer *orphans; /* the oldest */
	struct gs_buffer **orphans_end;
	__u32 orphan_count;
	struct graven_gap gap; /* not in a ring yet, if its count is not 0 */

	struct gs_ring *rings;
};

/* What a task does now. */
enum gs_verdict {
	GS_GO, /* on */
	GS_WAIT, /* sleep until there may be room, then ask again */
	GS_PASS, /* on, unrecorded: gs_pass counts it; a record that is complete becomes an orphan */
	GS_PANIC, /* the machine stops */
};

/* Bytes of the memory for these rings; 0 if they cannot be. */
__u64 gs_bytes(__u32 ring_count, __u32 slots, __u32 part_bytes_max);

/* Lays out the memory, which is all zeros. The core has its geometry already. */
void gs_init(struct gs_core *core, void *memory, __u64 instance);

/* What is done without a reader. */
void gs_policy(struct gs_core *core, __u32 no_reader, __u32 no_reader_ms);

/*
 * A call is about to start, and its task owns an empty buffer. `absent_ms`: how long there has been no reader;
 * 0 while there is one.
 */
enum gs_verdict gs_enter(struct gs_core *core, __u32 hint, __u32 absent_ms);

/* There was no room for a record: what now? */
enum gs_verdict gs_full(const struct gs_core *core, __u32 absent_ms);

/* A call goes on unrecorded. */
void gs_pass(struct gs_core *core, __u64 now_ns);

/* The record of a call begins. Its graven_call is zeros. */
struct graven_call *gs_begin(struct gs_buffer *buffer);

/* As long as the record's first part is in the buffer. */
struct graven_call *gs_call(struct gs_buffer *buffer);

/* The part in the buffer has these GRAVEN_PART_… as well. */
void gs_flags(struct gs_buffer *buffer, __u16 flags);

/* Where the bytes of the next item go, and for how many there is room; NULL if there is for none. */
void *gs_item_room(struct gs_buffer *buffer, __u32 *bytes);

/* `bytes` are there. */
void gs_item(struct gs_buffer *buffer, __u16 kind, __u16 role, __u32 flags, __u32 index, __u32 bytes);

/* The record is not wanted after all. It has no order number. */
void gs_forget(struct gs_buffer *buffer);

/* The call has ended: from here on its record arrives. */
void gs_number(struct gs_core *core, struct gs_buffer *buffer);

/*
 * Puts the part in the buffer into a ring, the one of `hint` if that has room; false if none has. With
 * GRAVEN_PART_LAST among the flags the buffer is empty then, else it has the beginning of the next part.
 */
bool gs_push(struct gs_core *core, __u32 hint, struct gs_buffer *buffer, __u16 flags);

/*
 * The task cannot wait. `flags`: as of gs_push, LAST is added. Returns the buffer if the record is in a ring and it is
 * empty, which is the caller's to free; NULL if it is among the orphans, and the core's.
 */
struct gs_buffer *gs_orphan(struct gs_core *core, __u32 hint, struct gs_buffer *buffer, __u16 flags);

/*
 * Puts into rings what waits: a gap, orphans. To be called when tails may have moved. Returns the buffers that
 * are empty now, a list by `next`, which are the caller's to free.
 */
struct gs_buffer *gs_drain(struct gs_core *core, __u32 hint);

#endif
