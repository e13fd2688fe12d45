/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the module share. docs/kernel-shim.md has the design and the invariants.
 */
#ifndef SHIM_H
#define SHIM_H

#include <linux/hashtable.h>
#include <linux/sched.h>
#include <linux/task_work.h>
#include <linux/version.h>
#include <linux/wait.h>

#include "../core/graven_core.h"

#ifndef CONFIG_X86_64
#error "graven_shim: only x86-64: a call is put off by going back over its instruction, which has 2 bytes there"
#endif
#ifdef CONFIG_X86_X32_ABI
#error "graven_shim: a kernel with the x32 ABI was never tried"
#endif
#ifdef CONFIG_PREEMPT_RT
#error "graven_shim: a real-time kernel was never tried: locks may sleep there"
#endif
#ifndef CONFIG_DYNAMIC_FTRACE_WITH_ARGS
#error "graven_shim: the kernel needs CONFIG_DYNAMIC_FTRACE_WITH_ARGS"
#endif
#if !defined(CONFIG_HAVE_SYSCALL_TRACEPOINTS) || !defined(CONFIG_TASKS_RCU)
#error "graven_shim: the kernel needs system call tracepoints and CONFIG_TASKS_RCU"
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "graven_shim: needs Linux 6.1 or newer"
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#error "graven_shim: Linux 6.1 to 6.12 was tried; look at the entry code and the hooked functions first"
#endif

#define SHIM_NAMES_MAX 4

/* What a task is doing, as far as the hooks of its calls care. Only the task itself looks or writes. */
enum shim_state {
	SHIM_IDLE,
	SHIM_PUT_OFF, /* the call was skipped, and starts again after a sleep at the boundary to user mode */
	SHIM_LAST_CALL, /* the same, of a call that does not return: its record is made before it starts */
	SHIM_IN_CALL, /* the buffer has a record that begins */
	SHIM_REFUSED, /* the same, of a call that is refused */
	SHIM_ENDED, /* the record has a number, and is finished at the boundary to user mode */
};

/* A file as a hook saw it. */
struct shim_object {
	struct graven_object object;
	bool known;
	bool made; /* by the call */
};

/* What a call does with what a name of it stands for: each is seen elsewhere. */
enum shim_which {
	SHIM_OPENED,
	SHIM_CHANGED, /* or removed */
	SHIM_OLD,
	SHIM_NEW,
	SHIM_LOOKED, /* looked at */
	SHIM_MADE,
	SHIM_OBJECTS, /* none of these */
};

/* A name in the buffer: the user's pointer says which argument it was. */
struct shim_name {
	const void __user *pointer;
	u32 at; /* of its item, in the buffer */
};

struct shim_task {
	struct hlist_node node;
	struct task_struct *task;
	struct rcu_head rcu;
	struct callback_head work;
	struct gs_buffer *buffer;
	enum shim_state state;
	bool working; /* work is queued or runs */
	bool gone; /* the task has ended: the work frees this */
	bool followed;
	bool exit_said; /* the record of the exit with args[0] is in a ring */
	bool judged; /* what rules say depends on the outcome */
	bool names_lost; /* there were more than fit */
	u32 name_count;
	u32 sockaddrs;
	u32 arch;
	long nr;
	u64 args[6];
	struct shim_name names[SHIM_NAMES_MAX];
	const void *making; /* the dentry of what the call makes: to compare, not to look into */
	struct shim_object objects[SHIM_OBJECTS];
};

/* tasks.c */
extern wait_queue_head_t shim_room; /* who waits for room */
extern wait_queue_head_t shim_readers;
int shim_tasks_start(void);
void shim_tasks_stop(void);
struct shim_task *shim_task_find(void);
int shim_follow(void);
bool shim_followed(const struct shim_task *task);
void shim_advanced(void);
void shim_tasks_status(struct graven_status *status);

/* The calling task's, if it is in a call that is recorded. */
static inline struct shim_task *shim_in_call(void)
{
	struct shim_task *task = shim_task_find();

	return task && task->state == SHIM_IN_CALL ? task : NULL;
}

/* record.c */
void shim_record_begin(struct shim_task *task, struct pt_regs *regs);
void shim_record_end(struct shim_task *task, long result);
void shim_record_finish(struct shim_task *task, bool (*push)(struct shim_task *task, u16 flags));
void shim_name(struct shim_task *task, const char *name, const void __user *pointer);
void shim_sockaddr(struct shim_task *task, const void *address, int bytes);

/* hooks.c */
int shim_hooks_start(void);
void shim_hooks_stop(void);
u32 shim_hooks(void);
u32 shim_hooks_wanted(void);

/* calls.c */
struct shim_path {
	u8 argument; /* of the name */
	u8 dir; /* of the descriptor that it is relative to, or SHIM_NO_DIR */
	u8 role;
	u8 which; /* enum shim_which */
};

#define SHIM_NO_DIR 0xff

struct shim_call {
	u16 nr; /* on x86-64 */
	u16 nr32; /* on i386; 0: there is none */
	u8 paths;
	struct shim_path path[2];
};

const struct shim_call *shim_call(u32 arch, long nr);
bool shim_is_exit(u32 arch, long nr);
bool shim_is_exec(u32 arch, long nr);
bool shim_is_io_uring(u32 arch, long nr);
int shim_calls_start(void);

/* rules.c */
enum shim_match { SHIM_NO, SHIM_YES, SHIM_DEPENDS };

bool shim_rules_name(long nr);
enum shim_match shim_match(u32 arch, long nr, const struct shim_task *task);
bool shim_match_result(const struct shim_task *task, long result);
long shim_rules_set(const struct graven_rules __user *from);
void shim_rules_free(void);
u32 shim_rules_count(void);

/* device.c */
extern struct gs_core shim_core;
extern struct graven_policy shim_policy;
int shim_device_start(u32 rings, u32 slots, u32 part_bytes);
void shim_device_hide(void);
void shim_device_stop(void);
bool shim_exempt(void);
u32 shim_absent_ms(void);

/* An error as calls return it: -1 to -4095. */
static inline bool shim_is_error(long result)
{
	return (unsigned long)result >= (unsigned long)-4095L;
}

#endif
