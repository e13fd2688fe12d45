/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What the core needs of where it is compiled: the kernel, or a user-space program that is its twin.
 */
#ifndef GRAVEN_ENV_H
#define GRAVEN_ENV_H

#ifdef __KERNEL__

#include <linux/atomic.h>
#include <linux/kernel.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/types.h>

typedef spinlock_t gs_lock_t;
#define gs_lock_init(lock) spin_lock_init(lock)
#define gs_lock(lock) spin_lock(lock)
#define gs_unlock(lock) spin_unlock(lock)

#define gs_load(p) READ_ONCE(*(p))
#define gs_store(p, v) WRITE_ONCE(*(p), (v))
#define gs_load_acquire(p) smp_load_acquire(p)
#define gs_store_release(p, v) smp_store_release((p), (v))

typedef atomic64_t gs_counter_t;
#define gs_counter_set(c, v) atomic64_set((c), (v))
#define gs_counter_read(c) ((__u64)atomic64_read(c))
/* The value before. */
#define gs_counter_take(c) ((__u64)atomic64_fetch_inc(c))

#else

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <linux/types.h>

typedef struct {
	char held;
} gs_lock_t;

static inline void gs_lock_init(gs_lock_t *lock)
{
	lock->held = 0;
}

static inline void gs_lock(gs_lock_t *lock)
{
	while (__atomic_test_and_set(&lock->held, __ATOMIC_ACQUIRE))
		;
}

static inline void gs_unlock(gs_lock_t *lock)
{
	__atomic_clear(&lock->held, __ATOMIC_RELEASE);
}

#define gs_load(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define gs_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define gs_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define gs_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

typedef __u64 gs_counter_t;
#define gs_counter_set(c, v) __atomic_store_n((c), (v), __ATOMIC_RELAXED)
#define gs_counter_read(c) __atomic_load_n((c), __ATOMIC_RELAXED)
#define gs_counter_take(c) __atomic_fetch_add((c), 1, __ATOMIC_RELAXED)

#endif

#endif
