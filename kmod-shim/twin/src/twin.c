// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The core as Rust calls it: one table of functions, of which ffi.rs has the same. The memory of cores and buffers
 * is the C library's here.
 */
#include <stdlib.h>

#include "graven_core.c"

struct twin {
	struct gs_core core;
	__u32 buffers; /* that there are now */
	struct gs_ring rings[];
};

struct twin_status {
	__u64 order_next;
	__u64 passed;
	__u64 bad_tails;
	__u64 memory_bytes; /* of buffers */
	__u32 orphans;
	__u32 buffers;
};

static struct twin *twin_new(void *memory, __u32 ring_count, __u32 slots, __u32 part_bytes_max, __u64 instance)
{
	struct twin *twin = calloc(1, sizeof(*twin) + ring_count * sizeof(struct gs_ring));

	if (!twin)
		return NULL;
	twin->core.rings = twin->rings;
	twin->core.ring_count = ring_count;
	twin->core.slots = slots;
	twin->core.part_bytes_max = part_bytes_max;
	gs_init(&twin->core, memory, instance);
	return twin;
}

static struct gs_buffer *twin_buffer_new(struct twin *twin)
{
	struct gs_buffer *buffer = malloc(sizeof(*buffer) + twin->core.part_bytes_max);

	if (!buffer)
		return NULL;
	memset(buffer, 0, sizeof(*buffer));
	buffer->size = twin->core.part_bytes_max;
	__atomic_fetch_add(&twin->buffers, 1, __ATOMIC_RELAXED);
	return buffer;
}

static void twin_buffer_free(struct twin *twin, struct gs_buffer *buffer)
{
	free(buffer);
	__atomic_fetch_sub(&twin->buffers, 1, __ATOMIC_RELAXED);
}

static void free_all(struct twin *twin, struct gs_buffer *buffer)
{
	while (buffer) {
		struct gs_buffer *next = buffer->next;

		twin_buffer_free(twin, buffer);
		buffer = next;
	}
}

static void twin_free(struct twin *twin)
{
	free_all(twin, twin->core.orphans);
	free(twin);
}

static __u32 twin_enter(struct twin *twin, __u32 hint, __u32 absent_ms)
{
	return gs_enter(&twin->core, hint, absent_ms);
}

static __u32 twin_full(struct twin *twin, __u32 absent_ms)
{
	return gs_full(&twin->core, absent_ms);
}

static void twin_pass(struct twin *twin, __u64 now_ns)
{
	gs_pass(&twin->core, now_ns);
}

static void twin_begin(struct gs_buffer *buffer, const __u8 *call)
{
	memcpy(gs_begin(buffer), call, sizeof(struct graven_call));
}

static void twin_call(struct gs_buffer *buffer, const __u8 *call)
{
	memcpy(gs_call(buffer), call, sizeof(struct graven_call));
}

static bool twin_item(struct gs_buffer *buffer, __u16 kind, __u16 role, __u32 flags, __u32 index, const __u8 *from,
		      __u32 bytes)
{
	__u32 room = 0;
	void *at = gs_item_room(buffer, &room);

	if (!at || room < bytes)
		return false;
	memcpy(at, from, bytes);
	gs_item(buffer, kind, role, flags, index, bytes);
	return true;
}

static __u32 twin_item_room(struct gs_buffer *buffer)
{
	__u32 room = 0;

	return gs_item_room(buffer, &room) ? room : 0;
}

static void twin_number(struct twin *twin, struct gs_buffer *buffer)
{
	gs_number(&twin->core, buffer);
}

static bool twin_push(struct twin *twin, __u32 hint, struct gs_buffer *buffer, __u16 flags)
{
	return gs_push(&twin->core, hint, buffer, flags);
}

static void twin_orphan(struct twin *twin, __u32 hint, struct gs_buffer *buffer, __u16 flags)
{
	free_all(twin, gs_orphan(&twin->core, hint, buffer, flags));
}

static void twin_drain(struct twin *twin, __u32 hint)
{
	free_all(twin, gs_drain(&twin->core, hint));
}

static void twin_policy(struct twin *twin, __u32 no_reader, __u32 no_reader_ms)
{
	gs_policy(&twin->core, no_reader, no_reader_ms);
}

static void twin_status(struct twin *twin, struct twin_status *status)
{
	__u32 i;

	status->order_next = gs_counter_read(&twin->core.order_next);
	status->passed = gs_counter_read(&twin->core.passed);
	status->orphans = gs_load(&twin->core.orphan_count);
	status->buffers = gs_load(&twin->buffers);
	status->memory_bytes = (__u64)status->buffers * (sizeof(struct gs_buffer) + twin->core.part_bytes_max);
	status->bad_tails = 0;
	for (i = 0; i < twin->core.ring_count; i++)
		status->bad_tails += gs_load(&twin->core.rings[i].bad_tails);
}

const struct {
	__u64 (*bytes)(__u32, __u32, __u32);
	struct twin *(*create)(void *, __u32, __u32, __u32, __u64);
	void (*destroy)(struct twin *);
	struct gs_buffer *(*buffer_new)(struct twin *);
	void (*buffer_free)(struct twin *, struct gs_buffer *);
	__u32 (*enter)(struct twin *, __u32, __u32);
	__u32 (*full)(struct twin *, __u32);
	void (*pass)(struct twin *, __u64);
	void (*begin)(struct gs_buffer *, const __u8 *);
	void (*call)(struct gs_buffer *, const __u8 *);
	void (*flags)(struct gs_buffer *, __u16);
	__u32 (*item_room)(struct gs_buffer *);
	bool (*item)(struct gs_buffer *, __u16, __u16, __u32, __u32, const __u8 *, __u32);
	void (*forget)(struct gs_buffer *);
	void (*number)(struct twin *, struct gs_buffer *);
	bool (*push)(struct twin *, __u32, struct gs_buffer *, __u16);
	void (*orphan)(struct twin *, __u32, struct gs_buffer *, __u16);
	void (*drain)(struct twin *, __u32);
	void (*policy)(struct twin *, __u32, __u32);
	void (*status)(struct twin *, struct twin_status *);
} graven_twin_api = {
	gs_bytes,	twin_new,  twin_free,	   twin_buffer_new, twin_buffer_free, twin_enter, twin_full,
	twin_pass,	twin_begin, twin_call,	   gs_flags,	    twin_item_room,   twin_item,  gs_forget,
	twin_number,	twin_push, twin_orphan,	   twin_drain,	    twin_policy,      twin_status,
};
