// SPDX-License-Identifier: GPL-2.0
/*
 * What happens to a task's calls: put off until there is room, recorded, finished at the boundary to user mode.
 *
 * The tracepoints run with preemption off: they look, count and mark. All that sleeps is task work, which runs
 * before the task is in user mode again and before it gets a signal. A task's entry is changed by that task alone.
 */
#include <asm/syscall.h>
#include <linux/audit.h>
#include <linux/delay.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/tracepoint.h>

#include "shim.h"

/* A sleeper looks again after this time though nobody woke it: its waker may have died. */
#define LOOK_AGAIN (HZ / 10)

DECLARE_WAIT_QUEUE_HEAD(shim_room);
DECLARE_WAIT_QUEUE_HEAD(shim_readers);

static DEFINE_HASHTABLE(tasks, 10);
static DEFINE_SPINLOCK(tasks_lock);
static bool stopping;
static bool follow_all;
static atomic_t between; /* tasks that are put off, from the entry to the exit of the call */
static atomic_t works; /* queued or running */
static atomic_t buffers;
static atomic_t waiting;
static u32 task_count; /* under tasks_lock; one's own entry is counted for oneself */
static u32 advances;
static atomic64_t skipped, waited, waited_ns, refused;

struct shim_task *shim_task_find(void)
{
	struct shim_task *task;

	if (!READ_ONCE(task_count))
		return NULL;
	rcu_read_lock();
	hash_for_each_possible_rcu(tasks, task, node, (unsigned long)current) {
		if (task->task == current)
			break;
	}
	rcu_read_unlock();
	/* Nobody else removes it. */
	return task;
}

static struct shim_task *task_new(struct task_struct *of, gfp_t gfp)
{
	struct shim_task *task = kzalloc(sizeof(*task), gfp | __GFP_NOWARN);

	if (!task)
		return NULL;
	task->task = of;
	spin_lock(&tasks_lock);
	hash_add_rcu(tasks, &task->node, (unsigned long)of);
	WRITE_ONCE(task_count, task_count + 1);
	spin_unlock(&tasks_lock);
	return task;
}

static void buffer_free(struct gs_buffer *buffer)
{
	if (!buffer)
		return;
	kfree(buffer);
	atomic_dec(&buffers);
}

static void buffers_free(struct gs_buffer *buffer)
{
	while (buffer) {
		struct gs_buffer *next = buffer->next;

		buffer_free(buffer);
		buffer = next;
	}
}

static struct gs_buffer *buffer_new(void)
{
	struct gs_buffer *buffer;

	buffer = kmalloc(sizeof(*buffer) + shim_core.part_bytes_max, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!buffer)
		return NULL;
	memset(buffer, 0, sizeof(*buffer));
	buffer->size = shim_core.part_bytes_max;
	atomic_inc(&buffers);
	return buffer;
}

/* Readers have moved tails, or somebody has come or gone. */
void shim_advanced(void)
{
	buffers_free(gs_drain(&shim_core, raw_smp_processor_id()));
	smp_store_release(&advances, advances + 1);
	if (wq_has_sleeper(&shim_room))
		wake_up_all(&shim_room);
}

static void stop_machine_if(enum gs_verdict verdict)
{
	/* A reader that has come meanwhile saves the machine. */
	if (verdict == GS_PANIC && shim_absent_ms())
		panic("graven: nobody has read for %u ms and there is no room for a record", shim_absent_ms());
}

static enum gs_verdict may_start(void)
{
	return gs_enter(&shim_core, raw_smp_processor_id(), shim_absent_ms());
}

/* Until something has changed since `seen` advances. False: a signal is there that ends this kind of sleep. */
static bool sleep_for_room(int state, u32 seen)
{
	u64 from = ktime_get_ns();
	bool go_on;
	DEFINE_WAIT(wait);

	prepare_to_wait(&shim_room, &wait, state);
	gs_store(&shim_core.control->waiting, (u32)atomic_inc_return(&waiting));
	go_on = !signal_pending_state(state, current);
	if (go_on && !READ_ONCE(stopping) && smp_load_acquire(&advances) == seen)
		schedule_timeout(LOOK_AGAIN);
	gs_store(&shim_core.control->waiting, (u32)atomic_dec_return(&waiting));
	finish_wait(&shim_room, &wait);
	atomic64_inc(&waited);
	atomic64_add(ktime_get_ns() - from, &waited_ns);
	return go_on && !signal_pending_state(state, current);
}

/* The task cannot wait: a ring takes the record now, or the orphans do, which are first in line. */
static void give_up(struct shim_task *task, u16 flags)
{
	struct gs_buffer *empty = gs_orphan(&shim_core, raw_smp_processor_id(), task->buffer, flags);

	task->buffer = NULL;
	if (!empty)
		return;
	buffer_free(empty);
	if (wq_has_sleeper(&shim_readers))
		wake_up_all(&shim_readers);
}

/* Puts the part that is in the task's buffer into a ring, however long that takes. False: the task cannot wait. */
static bool push(struct shim_task *task, u16 flags)
{
	for (;;) {
		u32 seen = smp_load_acquire(&advances);
		enum gs_verdict verdict;

		if (gs_push(&shim_core, raw_smp_processor_id(), task->buffer, flags)) {
			if (wq_has_sleeper(&shim_readers))
				wake_up_all(&shim_readers);
			return true;
		}
		verdict = gs_full(&shim_core, shim_absent_ms());
		stop_machine_if(verdict);
		if (verdict == GS_PASS || current->flags & PF_EXITING || READ_ONCE(stopping) ||
		    !sleep_for_room(TASK_KILLABLE, seen)) {
			give_up(task, flags & GRAVEN_PART_LAST ? flags : flags | GRAVEN_PART_CUT);
			return false;
		}
	}
}

/* The call was put off: sleeps until it may start. A signal is handled first, and the call put off again. */
static void wait_to_start(struct shim_task *task)
{
	if (!task->buffer)
		task->buffer = buffer_new();
	if (!task->buffer) {
		schedule_timeout_interruptible(1);
		return;
	}
	for (;;) {
		u32 seen = smp_load_acquire(&advances);
		enum shim_match match;

		preempt_disable();
		match = shim_match(task->arch, task->nr, task);
		preempt_enable();
		if (READ_ONCE(stopping) || may_start() != GS_WAIT || match == SHIM_NO)
			return;
		if (!sleep_for_room(TASK_INTERRUPTIBLE, seen))
			return;
	}
}

static void work(struct callback_head *head)
{
	struct shim_task *task = container_of(head, struct shim_task, work);
	enum shim_state state = task->state;

	task->state = SHIM_IDLE;
	if (state == SHIM_PUT_OFF) {
		wait_to_start(task);
	} else {
		shim_record_finish(task, push);
		task->exit_said = state == SHIM_LAST_CALL;
	}
	task->working = false;
	if (task->gone) {
		buffer_free(task->buffer);
		kfree_rcu(task, rcu);
	}
	atomic_dec(&works);
}

/* At the boundary to user mode. */
static void work_later(struct shim_task *task)
{
	task->working = true;
	atomic_inc(&works);
	init_task_work(&task->work, work);
	if (!task_work_add(current, &task->work, TWA_RESUME))
		return;
	/* It is ending and comes to no such boundary. */
	task->working = false;
	atomic_dec(&works);
	if (task->state != SHIM_PUT_OFF)
		give_up(task, GRAVEN_PART_CUT);
	task->state = SHIM_IDLE;
}

/* The kernel reads the number again behind the tracepoint: -1 is no call. */
static void put_off(struct shim_task *task, struct pt_regs *regs, enum shim_state state)
{
	task->state = state;
	atomic_inc(&between);
	atomic64_inc(&skipped);
	regs->orig_ax = -1;
}

/* It was not executed: the instruction, which has two bytes however a call is made, is once more. */
static void again(struct shim_task *task, struct pt_regs *regs)
{
	regs->orig_ax = task->nr;
	regs->ax = task->nr;
	regs->ip -= 2;
	work_later(task);
	atomic_dec(&between);
}

static void begin(struct shim_task *task, struct pt_regs *regs, enum shim_match match)
{
	shim_record_begin(task, regs);
	task->judged = match == SHIM_DEPENDS;
	if (shim_is_exit(task->arch, task->nr)) {
		/* It does not return. There is no room yet that nobody else can take, so it waits with its record. */
		shim_record_end(task, 0);
		gs_call(task->buffer)->captured &= ~(u64)GRAVEN_CAPTURED_RESULT;
		gs_flags(task->buffer, GRAVEN_PART_NO_RETURN);
		gs_number(&shim_core, task->buffer);
		put_off(task, regs, SHIM_LAST_CALL);
	} else if (shim_is_io_uring(task->arch, task->nr)) {
		if (READ_ONCE(shim_policy.io_uring) == GRAVEN_IO_URING_REFUSE) {
			gs_flags(task->buffer, GRAVEN_PART_REFUSED);
			task->state = SHIM_REFUSED;
			atomic64_inc(&refused);
			regs->orig_ax = -1;
		} else {
			gs_flags(task->buffer, GRAVEN_PART_UNSEEN);
			task->state = SHIM_IN_CALL;
		}
	} else {
		task->state = SHIM_IN_CALL;
	}
}

/* The call has not returned, and never will. */
static void end_within(struct shim_task *task)
{
	task->state = SHIM_IDLE;
	shim_record_end(task, 0);
	gs_call(task->buffer)->captured &= ~(u64)GRAVEN_CAPTURED_RESULT;
	gs_number(&shim_core, task->buffer);
	give_up(task, GRAVEN_PART_NO_RETURN | GRAVEN_PART_CUT);
}

static u64 regs_first(u32 arch, const struct pt_regs *regs)
{
	return arch == AUDIT_ARCH_I386 ? (u32)regs->bx : regs->di;
}

static void on_enter(void *data, struct pt_regs *regs, long nr)
{
	enum gs_verdict verdict;
	struct shim_task *task;
	enum shim_match match;
	u32 arch;

	if (READ_ONCE(stopping) || nr < 0 || !shim_rules_name(nr) || shim_exempt())
		return;
	arch = syscall_get_arch(current);
	task = shim_task_find();
	if (task && task->exit_said && nr == task->nr && shim_is_exit(arch, nr) &&
	    regs_first(arch, regs) == task->args[0])
		return;
	match = shim_match(arch, nr, task);
	if (match == SHIM_NO)
		return;
	if (!task)
		task = task_new(current, GFP_ATOMIC);
	if (!task) {
		/* Nothing can be remembered of it: it fails with ENOSYS, and is not executed unrecorded. */
		atomic64_inc(&refused);
		regs->orig_ax = -1;
		return;
	}
	if (task->state != SHIM_IDLE)
		end_within(task);
	task->arch = arch;
	task->nr = nr;
	if (!task->buffer) {
		put_off(task, regs, SHIM_PUT_OFF);
		return;
	}
	verdict = may_start();
	stop_machine_if(verdict);
	if (verdict == GS_GO)
		begin(task, regs, match);
	else if (verdict == GS_PASS)
		gs_pass(&shim_core, ktime_get_boottime_ns());
	else
		put_off(task, regs, SHIM_PUT_OFF);
}

static void on_exit(void *data, struct pt_regs *regs, long result)
{
	struct shim_task *task = shim_task_find();

	if (!task)
		return;
	switch (task->state) {
	case SHIM_PUT_OFF:
	case SHIM_LAST_CALL:
		again(task, regs);
		break;
	case SHIM_REFUSED:
		regs->orig_ax = task->nr;
		regs->ax = -EPERM;
		result = -EPERM;
		fallthrough;
	case SHIM_IN_CALL:
		if (task->judged && !shim_match_result(task, result)) {
			gs_forget(task->buffer);
			task->state = SHIM_IDLE;
			break;
		}
		shim_record_end(task, result);
		gs_number(&shim_core, task->buffer);
		task->state = SHIM_ENDED;
		work_later(task);
		break;
	default:
		break;
	}
}

/* A child belongs to whom its parent does. */
static void on_fork(void *data, struct task_struct *parent, struct task_struct *child)
{
	struct shim_task *task = shim_task_find();
	struct shim_task *its;

	if (!task || !task->followed || READ_ONCE(stopping))
		return;
	its = task_new(child, GFP_ATOMIC);
	if (its)
		its->followed = true;
	else
		WRITE_ONCE(follow_all, true);
}

/* In the task that ends, past its last call. */
static void on_task_end(void *data, struct task_struct *ended)
{
	struct shim_task *task = shim_task_find();

	if (!task)
		return;
	/* As after a fault of the kernel's. */
	if (task->state == SHIM_IN_CALL || task->state == SHIM_REFUSED)
		end_within(task);
	spin_lock(&tasks_lock);
	WRITE_ONCE(task_count, task_count - 1);
	hash_del_rcu(&task->node);
	spin_unlock(&tasks_lock);
	if (task->working) {
		task->gone = true;
		return;
	}
	buffer_free(task->buffer);
	kfree_rcu(task, rcu);
}

int shim_follow(void)
{
	struct shim_task *task = shim_task_find();

	if (!task)
		task = task_new(current, GFP_KERNEL);
	if (!task)
		return -ENOMEM;
	task->followed = true;
	return 0;
}

bool shim_followed(const struct shim_task *task)
{
	return READ_ONCE(follow_all) || (task && task->followed);
}

void shim_tasks_status(struct graven_status *status)
{
	status->skipped = atomic64_read(&skipped);
	status->waited = atomic64_read(&waited);
	status->waited_ns = atomic64_read(&waited_ns);
	status->refused = atomic64_read(&refused);
	status->waiting = atomic_read(&waiting);
	status->tasks = atomic_read(&buffers);
	status->memory_bytes = (u64)status->tasks * (sizeof(struct gs_buffer) + shim_core.part_bytes_max);
	status->follow_all = READ_ONCE(follow_all);
}

struct probe {
	const char *name;
	void *function;
	struct tracepoint *point;
	bool set;
};

/* In the order in which they are taken away. */
enum { ENTER, FORK, EXIT, TASK_END };
static struct probe probes[] = {
	[ENTER] = { "sys_enter", on_enter },
	[FORK] = { "sched_process_fork", on_fork },
	[EXIT] = { "sys_exit", on_exit },
	[TASK_END] = { "sched_process_exit", on_task_end },
};

static void probe_remove(struct probe *probe)
{
	if (probe->set)
		tracepoint_probe_unregister(probe->point, probe->function, NULL);
	probe->set = false;
}

static void look_at(struct tracepoint *point, void *data)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(probes); i++) {
		if (!strcmp(point->name, probes[i].name))
			probes[i].point = point;
	}
}

/* The last one in is the entry, so that no exit is missed. */
int shim_tasks_start(void)
{
	int i, error;

	for_each_kernel_tracepoint(look_at, NULL);
	for (i = ARRAY_SIZE(probes) - 1; i >= 0; i--) {
		if (!probes[i].point) {
			pr_err("graven_shim: this kernel has no tracepoint %s\n", probes[i].name);
			shim_tasks_stop();
			return -ENOENT;
		}
		error = tracepoint_probe_register(probes[i].point, probes[i].function, NULL);
		if (error) {
			pr_err("graven_shim: cannot attach to %s: %d\n", probes[i].name, error);
			shim_tasks_stop();
			return error;
		}
		probes[i].set = true;
	}
	return 0;
}

/* Frees what is left. How many records were in it. */
static u32 free_all(void)
{
	struct shim_task *task;
	struct hlist_node *next;
	u32 records = 0;
	int bucket;

	hash_for_each_safe(tasks, bucket, next, task, node) {
		records += task->buffer && task->buffer->used;
		buffer_free(task->buffer);
		hash_del_rcu(&task->node);
		kfree(task);
	}
	records += shim_core.orphan_count;
	buffers_free(shim_core.orphans);
	return records;
}

/* Nobody has the device open. New calls go by; what was put off starts; whoever waits with a record gives it up. */
void shim_tasks_stop(void)
{
	u32 records;

	WRITE_ONCE(stopping, true);
	probe_remove(&probes[ENTER]);
	probe_remove(&probes[FORK]);
	tracepoint_synchronize_unregister();
	while (atomic_read(&between))
		msleep(1);
	shim_hooks_stop();
	probe_remove(&probes[EXIT]);
	probe_remove(&probes[TASK_END]);
	tracepoint_synchronize_unregister();
	while (atomic_read(&works)) {
		wake_up_all(&shim_room);
		msleep(1);
	}
	/* Past the last instruction of the last work: it is preemptible, and has left it when it has slept or is in user mode. */
	synchronize_rcu_tasks();
	rcu_barrier();
	records = free_all();
	if (records)
		pr_warn("graven_shim: %u records, or calls that had begun, end with the module\n", records);
}
