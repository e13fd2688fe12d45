// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The core under a compiler's sanitizer: tasks and a reader as threads. Says how much it did; ends with 1 if something
 * is wrong that it can see itself.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "graven_core.c"

#define TASKS 4
#define RINGS 3
#define SLOTS 32
#define PART_BYTES 1024

static struct gs_core core;
static struct gs_ring rings[RINGS];
static __u32 stop, done, absent_ms;
static __u64 seen, passed_seen;

#define failed_if(what)                                                             \
	do {                                                                        \
		if (what) {                                                         \
			fprintf(stderr, "threads.c:%d: %s\n", __LINE__, #what);     \
			exit(1);                                                    \
		}                                                                   \
	} while (0)

static __u32 chance(__u64 *random, __u32 below)
{
	*random = *random * 6364136223846793005ULL + 1442695040888963407ULL;
	return (__u32)(*random >> 33) % below;
}

static void drain(__u32 hint)
{
	struct gs_buffer *buffer = gs_drain(&core, hint);

	while (buffer) {
		struct gs_buffer *next = buffer->next;

		free(buffer);
		buffer = next;
	}
}

static struct gs_buffer *buffer_new(void)
{
	struct gs_buffer *buffer = malloc(sizeof(*buffer) + PART_BYTES);

	failed_if(!buffer);
	memset(buffer, 0, sizeof(*buffer));
	buffer->size = PART_BYTES;
	return buffer;
}

/* False: it was given up, and the buffer is gone. */
static bool push(struct gs_buffer *buffer, __u64 *random, __u16 flags)
{
	while (!gs_push(&core, chance(random, 1U << 31), buffer, flags)) {
		if (gs_full(&core, gs_load_acquire(&absent_ms)) == GS_PASS || !chance(random, 200)) {
			free(gs_orphan(&core, 0, buffer, flags ? 0 : GRAVEN_PART_CUT));
			return false;
		}
		sched_yield();
	}
	return true;
}

static struct gs_buffer *record(struct gs_buffer *buffer, __u64 *random)
{
	__u32 items = chance(random, 8), room, i;

	gs_begin(buffer)->nr = 1;
	gs_number(&core, buffer);
	for (i = 0; i < items; i++) {
		void *at = gs_item_room(buffer, &room);

		if (!at || room < 300) {
			if (!push(buffer, random, 0))
				return NULL;
			at = gs_item_room(buffer, &room);
			failed_if(!at || room < 300);
		}
		memset(at, i, 300);
		gs_item(buffer, GRAVEN_ITEM_SOCKADDR, 0, 0, i, 300);
	}
	return push(buffer, random, GRAVEN_PART_LAST) ? buffer : NULL;
}

static void *task(void *number)
{
	__u64 random = (__u64)(size_t)number;
	struct gs_buffer *buffer = NULL;

	while (!gs_load_acquire(&stop)) {
		if (!buffer)
			buffer = buffer_new();
		switch (gs_enter(&core, chance(&random, RINGS), gs_load_acquire(&absent_ms))) {
		case GS_GO:
			buffer = record(buffer, &random);
			break;
		case GS_PASS:
			gs_pass(&core, 1);
			sched_yield();
			break;
		default:
			sched_yield();
		}
	}
	free(buffer);
	__atomic_fetch_add(&done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* Whether there was anything. */
static bool read_ring(struct gs_ring *ring)
{
	__u64 tail = gs_load(&ring->consumer->tail), head = gs_load_acquire(&ring->producer->head), at = tail;
	static __u8 copy[GRAVEN_SHIM_PART_BYTES_MAX];

	while (at < head) {
		struct graven_part *part = (struct graven_part *)copy;
		__u8 *from = ring->slots + at % SLOTS * GRAVEN_SHIM_SLOT_BYTES;

		memcpy(copy, from, sizeof(*part));
		failed_if(part->bytes < sizeof(*part));
		if (part->kind != GRAVEN_PART_PAD) {
			failed_if(part->bytes > PART_BYTES);
			memcpy(copy, from, part->bytes);
			seen += part->kind == GRAVEN_PART_CALL;
			if (part->kind == GRAVEN_PART_GAP)
				passed_seen += ((struct graven_gap *)(part + 1))->count;
		}
		at += (part->bytes + GRAVEN_SHIM_SLOT_BYTES - 1) / GRAVEN_SHIM_SLOT_BYTES;
	}
	failed_if(at != head);
	if (at == tail)
		return false;
	gs_store_release(&ring->consumer->tail, at);
	drain(ring->index);
	return true;
}

static void *reader(void *unused)
{
	__u64 random = 7;
	__u32 i;
	bool any;

	while (gs_load_acquire(&done) < TASKS) {
		for (i = 0; i < RINGS; i++)
			read_ring(&rings[i]);
		if (!chance(&random, 300)) {
			gs_policy(&core, chance(&random, 2) ? GRAVEN_NO_READER_PASS : GRAVEN_NO_READER_BLOCK, 5);
			gs_store_release(&absent_ms, 9);
			for (i = chance(&random, 500); i; i--)
				sched_yield();
			gs_store_release(&absent_ms, 0);
		}
	}
	drain(0);
	do {
		for (any = false, i = 0; i < RINGS; i++)
			any |= read_ring(&rings[i]);
	} while (any);
	return unused;
}

int main(int count, char **arguments)
{
	const struct timespec moment = { .tv_nsec = 1000000 };
	__u64 records = count > 1 ? strtoull(arguments[1], NULL, 10) : 4000;
	pthread_t tasks[TASKS], its_reader;
	void *memory;
	size_t i;

	core.rings = rings;
	core.ring_count = RINGS;
	core.slots = SLOTS;
	core.part_bytes_max = PART_BYTES;
	memory = aligned_alloc(GRAVEN_SHIM_PAGE_BYTES, gs_bytes(RINGS, SLOTS, PART_BYTES));
	failed_if(!memory);
	memset(memory, 0, gs_bytes(RINGS, SLOTS, PART_BYTES));
	gs_init(&core, memory, 1);
	failed_if(pthread_create(&its_reader, NULL, reader, NULL));
	for (i = 0; i < TASKS; i++)
		failed_if(pthread_create(&tasks[i], NULL, task, (void *)(i + 1)));
	while (gs_counter_read(&core.order_next) < records)
		nanosleep(&moment, NULL);
	gs_store_release(&stop, 1);
	for (i = 0; i < TASKS; i++)
		pthread_join(tasks[i], NULL);
	pthread_join(its_reader, NULL);
	failed_if(seen != gs_counter_read(&core.order_next));
	failed_if(passed_seen != gs_counter_read(&core.passed));
	failed_if(core.orphan_count || core.gap.count || !seen);
	printf("%llu records, %llu calls passed\n", (unsigned long long)seen, (unsigned long long)passed_seen);
	free(memory);
	return 0;
}
