// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * See graven_core.h for what each function promises, docs/kernel-shim.md for the invariants.
 *
 * Locks: a ring's own for its head; the core's for orphans and the gap. Whoever has the core's may take a
 * ring's, never the other way round.
 */
#include "graven_core.h"

#define PART_HEADER ((__u32)sizeof(struct graven_part))

static __u32 slots_of(__u32 bytes)
{
	return (bytes + GRAVEN_SHIM_SLOT_BYTES - 1) / GRAVEN_SHIM_SLOT_BYTES;
}

static __u64 ring_stride(__u32 slots)
{
	return 2 * GRAVEN_SHIM_PAGE_BYTES + (__u64)slots * GRAVEN_SHIM_SLOT_BYTES;
}

__u64 gs_bytes(__u32 ring_count, __u32 slots, __u32 part_bytes_max)
{
	if (!ring_count || ring_count > GRAVEN_SHIM_RINGS_MAX)
		return 0;
	if (part_bytes_max < GRAVEN_SHIM_PART_BYTES_MIN || part_bytes_max > GRAVEN_SHIM_PART_BYTES_MAX)
		return 0;
	if (!slots || slots & (slots - 1) || slots > GRAVEN_SHIM_SLOTS_MAX)
		return 0;
	/* So that a part and what fills up to the ring's end fit in at once; and whole pages. */
	if (slots / 4 < slots_of(part_bytes_max) ||
	    slots % (GRAVEN_SHIM_PAGE_BYTES / GRAVEN_SHIM_SLOT_BYTES))
		return 0;
	return GRAVEN_SHIM_PAGE_BYTES + ring_count * ring_stride(slots);
}

void gs_init(struct gs_core *core, void *memory, __u64 instance)
{
	struct graven_control *control = memory;
	__u8 *at = (__u8 *)memory + GRAVEN_SHIM_PAGE_BYTES;
	__u32 i;

	core->control = control;
	gs_counter_set(&core->order_next, 0);
	gs_counter_set(&core->passed, 0);
	gs_lock_init(&core->lock);
	core->orphans = NULL;
	core->orphans_end = &core->orphans;
	core->orphan_count = 0;
	memset(&core->gap, 0, sizeof(core->gap));

	for (i = 0; i < core->ring_count; i++, at += ring_stride(core->slots)) {
		struct gs_ring *ring = &core->rings[i];

		gs_lock_init(&ring->lock);
		ring->index = i;
		ring->producer = (struct graven_producer *)at;
		ring->consumer = (struct graven_consumer *)(at + GRAVEN_SHIM_PAGE_BYTES);
		ring->slots = at + 2 * GRAVEN_SHIM_PAGE_BYTES;
		ring->head = 0;
		ring->tail = 0;
		ring->ring_seq = 0;
		ring->bad_tails = 0;
	}

	control->version = GRAVEN_SHIM_VERSION;
	control->ring_count = core->ring_count;
	control->instance = instance;
	control->slot_bytes = GRAVEN_SHIM_SLOT_BYTES;
	control->slots = core->slots;
	control->part_bytes_max = core->part_bytes_max;
	control->rings_offset = GRAVEN_SHIM_PAGE_BYTES;
	control->ring_stride = ring_stride(core->slots);
	gs_store_release(&control->magic, GRAVEN_SHIM_MAGIC);
}

/* The reader may have written anything there. What cannot be means full: then nothing is overwritten. */
static bool possible(const struct gs_ring *ring, __u64 tail)
{
	return tail >= ring->tail && tail <= ring->head;
}

/* The ring's lock is held. */
static __u32 room(const struct gs_core *core, struct gs_ring *ring)
{
	__u64 tail = gs_load_acquire(&ring->consumer->tail);

	if (!possible(ring, tail)) {
		gs_store(&ring->bad_tails, ring->bad_tails + 1);
		gs_store(&ring->producer->bad_tails, ring->bad_tails);
		return 0;
	}
	gs_store(&ring->tail, tail);
	gs_store(&ring->producer->tail, tail);
	return core->slots - (__u32)(ring->head - tail);
}

static __u8 *slot(const struct gs_core *core, const struct gs_ring *ring, __u64 position)
{
	return ring->slots + (position & (core->slots - 1)) * GRAVEN_SHIM_SLOT_BYTES;
}

/* Writes what goes before a part that must not be split. The ring's lock is held. */
static void pad(const struct gs_core *core, const struct gs_ring *ring, __u32 slots)
{
	struct graven_part *part = (struct graven_part *)slot(core, ring, ring->head);

	memset(part, 0, sizeof(*part));
	part->bytes = slots * GRAVEN_SHIM_SLOT_BYTES;
	part->kind = GRAVEN_PART_PAD;
	part->ring = ring->index;
}

/* Puts a part into this ring; false if there is no room. Its ring and ring_seq are filled in. */
static bool put(const struct gs_core *core, struct gs_ring *ring, struct graven_part *part)
{
	__u32 need = slots_of(part->bytes);
	bool done = false;
	__u32 to_end, fill;

	gs_lock(&ring->lock);
	to_end = core->slots - (__u32)(ring->head & (core->slots - 1));
	fill = need > to_end ? to_end : 0;
	if (room(core, ring) >= fill + need) {
		if (fill)
			pad(core, ring, fill);
		part->ring = ring->index;
		part->ring_seq = ring->ring_seq;
		memcpy(slot(core, ring, ring->head + fill), part, part->bytes);
		gs_store(&ring->head, ring->head + fill + need);
		ring->ring_seq++;
		gs_store(&ring->producer->ring_seq, ring->ring_seq);
		gs_store_release(&ring->producer->head, ring->head);
		done = true;
	}
	gs_unlock(&ring->lock);
	return done;
}

/* The ith to try, from the one of `hint` on: each once, whatever the hint is. */
static struct gs_ring *nth(const struct gs_core *core, __u32 hint, __u32 i)
{
	return &core->rings[(hint % core->ring_count + i) % core->ring_count];
}

static bool put_anywhere(const struct gs_core *core, __u32 hint, struct graven_part *part)
{
	__u32 i;

	for (i = 0; i < core->ring_count; i++) {
		if (put(core, nth(core, hint, i), part))
			return true;
	}
	return false;
}

/* Without its lock: a hint. What it is wrong about, somebody finds who has a record and waits with that. */
static bool seems_free(const struct gs_core *core, const struct gs_ring *ring)
{
	__u64 believed = gs_load_acquire(&ring->tail);
	__u64 tail, head;

	tail = gs_load_acquire(&ring->consumer->tail);
	head = gs_load_acquire(&ring->head);
	/* These do not belong together, and could look full though the ring never was: no reason to stop the machine. */
	if (gs_load(&ring->consumer->tail) != tail)
		return true;
	if (tail < believed || tail > head || head - tail > core->slots)
		return false;
	return core->slots - (__u32)(head - tail) >= 2 * slots_of(core->part_bytes_max);
}

void gs_policy(struct gs_core *core, __u32 no_reader, __u32 no_reader_ms)
{
	gs_lock(&core->lock);
	gs_store_release(&core->no_reader, GRAVEN_NO_READER_BLOCK);
	gs_store_release(&core->no_reader_ms, no_reader_ms);
	gs_store_release(&core->no_reader, no_reader);
	gs_unlock(&core->lock);
}

enum gs_verdict gs_full(const struct gs_core *core, __u32 absent_ms)
{
	__u32 policy = gs_load_acquire(&core->no_reader);
	__u32 after_ms = gs_load_acquire(&core->no_reader_ms);

	if (policy == GRAVEN_NO_READER_BLOCK || !absent_ms || absent_ms < after_ms)
		return GS_WAIT;
	/* One policy with the time of another would stop the machine for nothing: the next look sees the new one whole. */
	if (policy != gs_load(&core->no_reader))
		return GS_WAIT;
	return policy == GRAVEN_NO_READER_PASS ? GS_PASS : GS_PANIC;
}

enum gs_verdict gs_enter(struct gs_core *core, __u32 hint, __u32 absent_ms)
{
	__u32 i;

	if (!gs_load(&core->orphan_count)) {
		for (i = 0; i < core->ring_count; i++) {
			if (seems_free(core, nth(core, hint, i)))
				return GS_GO;
		}
	}
	return gs_full(core, absent_ms);
}

void gs_pass(struct gs_core *core, __u64 now_ns)
{
	gs_lock(&core->lock);
	if (!core->gap.count) {
		core->gap.from_ns = now_ns;
		core->gap.reason = GRAVEN_GAP_NO_READER;
	}
	core->gap.to_ns = now_ns;
	gs_store(&core->gap.count, core->gap.count + 1);
	gs_counter_take(&core->passed);
	gs_store(&core->control->passed, gs_counter_read(&core->passed));
	gs_store(&core->control->state, GRAVEN_STATE_PASSING);
	gs_unlock(&core->lock);
}

static struct graven_part *part_of(struct gs_buffer *buffer)
{
	return (struct graven_part *)buffer->data;
}

struct graven_call *gs_begin(struct gs_buffer *buffer)
{
	buffer->part = 0;
	buffer->items = 0;
	buffer->used = PART_HEADER + sizeof(struct graven_call);
	memset(buffer->data, 0, buffer->used);
	part_of(buffer)->kind = GRAVEN_PART_CALL;
	return gs_call(buffer);
}

struct graven_call *gs_call(struct gs_buffer *buffer)
{
	return (struct graven_call *)(buffer->data + PART_HEADER);
}

void gs_flags(struct gs_buffer *buffer, __u16 flags)
{
	part_of(buffer)->flags |= flags;
}

static __u32 aligned(__u32 bytes)
{
	return (bytes + 7) & ~7U;
}

void *gs_item_room(struct gs_buffer *buffer, __u32 *bytes)
{
	__u32 at = aligned(buffer->used) + (__u32)sizeof(struct graven_item);

	if (at >= buffer->size)
		return NULL;
	*bytes = buffer->size - at;
	return buffer->data + at;
}

void gs_item(struct gs_buffer *buffer, __u16 kind, __u16 role, __u32 flags, __u32 index, __u32 bytes)
{
	__u32 at = aligned(buffer->used);
	struct graven_item *item = (struct graven_item *)(buffer->data + at);

	memset(buffer->data + buffer->used, 0, at - buffer->used);
	item->bytes = (__u32)sizeof(*item) + bytes;
	item->kind = kind;
	item->role = role;
	item->flags = flags;
	item->index = index;
	buffer->used = at + item->bytes;
	buffer->items++;
}

void gs_forget(struct gs_buffer *buffer)
{
	buffer->used = 0;
}

void gs_number(struct gs_core *core, struct gs_buffer *buffer)
{
	buffer->order = gs_counter_take(&core->order_next);
	/* Somebody with a later number may have been here first: it is the least there are. */
	gs_store(&core->control->order_next, buffer->order + 1);
}

/* What is known only now. */
static struct graven_part *finished(struct gs_buffer *buffer, __u16 flags)
{
	struct graven_part *part = part_of(buffer);

	part->bytes = buffer->used;
	part->flags |= flags;
	part->part = buffer->part;
	part->order = buffer->order;
	if (part->kind == GRAVEN_PART_CALL)
		gs_call(buffer)->items = flags & GRAVEN_PART_LAST ? buffer->items : ~0U;
	return part;
}

/* The core's lock is held. Whether there is no gap any more. */
static bool put_gap(struct gs_core *core, __u32 hint)
{
	struct {
		struct graven_part part;
		struct graven_gap gap;
	} whole;

	if (!core->gap.count)
		return true;
	memset(&whole, 0, sizeof(whole));
	whole.part.bytes = sizeof(whole);
	whole.part.kind = GRAVEN_PART_GAP;
	whole.part.flags = GRAVEN_PART_LAST;
	whole.part.order = gs_counter_read(&core->order_next);
	whole.gap = core->gap;
	if (!put_anywhere(core, hint, &whole.part))
		return false;
	gs_store(&core->gap.count, 0);
	gs_store(&core->control->state, 0);
	return true;
}

bool gs_push(struct gs_core *core, __u32 hint, struct gs_buffer *buffer, __u16 flags)
{
	/* A gap is said before any record that is put into a ring after it. */
	if (gs_load(&core->gap.count)) {
		bool said;

		gs_lock(&core->lock);
		said = put_gap(core, hint);
		gs_unlock(&core->lock);
		if (!said)
			return false;
	}
	if (!put_anywhere(core, hint, finished(buffer, flags)))
		return false;
	if (flags & GRAVEN_PART_LAST) {
		buffer->used = 0;
	} else {
		buffer->part++;
		buffer->used = PART_HEADER;
		memset(buffer->data, 0, PART_HEADER);
		part_of(buffer)->kind = GRAVEN_PART_MORE;
	}
	return true;
}

/*
 * Where there is room it must not wait: a reader with nothing to read moves no tail, so nobody would come for it, and
 * the gate would be shut, which is a reason to pass or to stop the machine. Looking and waiting are under the lock that
 * gs_drain takes, so that no tail moves unseen in between.
 */
struct gs_buffer *gs_orphan(struct gs_core *core, __u32 hint, struct gs_buffer *buffer, __u16 flags)
{
	struct graven_part *part = finished(buffer, flags | GRAVEN_PART_LAST | GRAVEN_PART_ORPHAN);

	buffer->next = NULL;
	gs_lock(&core->lock);
	if (!core->orphans && put_gap(core, hint) && put_anywhere(core, hint, part)) {
		gs_unlock(&core->lock);
		buffer->used = 0;
		return buffer;
	}
	*core->orphans_end = buffer;
	core->orphans_end = &buffer->next;
	gs_store(&core->orphan_count, core->orphan_count + 1);
	gs_store(&core->control->orphans, core->orphan_count);
	gs_unlock(&core->lock);
	return NULL;
}

struct gs_buffer *gs_drain(struct gs_core *core, __u32 hint)
{
	struct gs_buffer *empty = NULL;
	__u32 i;

	/* Also if nothing waits here: what is wrong with a tail is to be seen though the gate is shut and nobody pushes. */
	for (i = 0; i < core->ring_count; i++) {
		gs_lock(&core->rings[i].lock);
		room(core, &core->rings[i]);
		gs_unlock(&core->rings[i].lock);
	}
	gs_lock(&core->lock);
	while (put_gap(core, hint) && core->orphans) {
		struct gs_buffer *buffer = core->orphans;

		if (!put_anywhere(core, hint, part_of(buffer)))
			break;
		core->orphans = buffer->next;
		if (!core->orphans)
			core->orphans_end = &core->orphans;
		gs_store(&core->orphan_count, core->orphan_count - 1);
		gs_store(&core->control->orphans, core->orphan_count);
		buffer->used = 0;
		buffer->next = empty;
		empty = buffer;
	}
	gs_unlock(&core->lock);
	return empty;
}
