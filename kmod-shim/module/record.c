// SPDX-License-Identifier: GPL-2.0
/*
 * What a record says: numbers at once, names and addresses as the hooks see the kernel's own copies, the rest when
 * the call has ended, at the boundary to user mode.
 */
#include <asm/syscall.h>
#include <linux/audit.h>
#include <linux/compat.h>
#include <linux/cred.h>
#include <linux/dcache.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fs_struct.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/timekeeping.h>
#include <linux/tty.h>
#include <linux/uaccess.h>

#include "shim.h"

#define OBJECT_BYTES ((u32)sizeof(struct graven_object))
/* As much of a command line as audit keeps. */
#define PROCTITLE_BYTES 128
#define ARGUMENTS_MAX 65536

void shim_record_begin(struct shim_task *task, struct pt_regs *regs)
{
	struct graven_call *call = gs_begin(task->buffer);
	ktime_t now = ktime_get();
	unsigned long args[6];
	int i;

	syscall_get_arguments(current, regs, args);
	for (i = 0; i < 6; i++) {
		/* The upper half is not an argument of i386. */
		task->args[i] = task->arch == AUDIT_ARCH_I386 ? (u32)args[i] : args[i];
		call->args[i] = task->args[i];
	}
	call->arch = task->arch;
	call->nr = task->nr;
	/* By both clocks, of one look at the hardware's. */
	call->start_ns = ktime_to_ns(ktime_mono_to_real(now));
	call->start_boot_ns = ktime_to_ns(ktime_mono_to_any(now, TK_OFFS_BOOT));
	call->captured = GRAVEN_CAPTURED_START | GRAVEN_CAPTURED_ARGS;
	task->exit_said = false;
	task->names_lost = false;
	task->name_count = 0;
	task->sockaddrs = 0;
	task->making = NULL;
	memset(task->objects, 0, sizeof(task->objects));
}

/* With preemption off. */
void shim_record_end(struct shim_task *task, long result)
{
	struct graven_call *call = gs_call(task->buffer);
	const struct cred *cred = current_cred();

	call->end_ns = ktime_get_real_ns();
	call->result = result;
	call->pid = current->tgid;
	call->tid = current->pid;
	call->ppid = rcu_dereference_sched(current->real_parent)->tgid;
	/* As the first user namespace has them. */
	call->auid = __kuid_val(audit_get_loginuid(current));
	call->session = audit_get_sessionid(current);
	call->uid = __kuid_val(cred->uid);
	call->euid = __kuid_val(cred->euid);
	call->suid = __kuid_val(cred->suid);
	call->fsuid = __kuid_val(cred->fsuid);
	call->gid = __kgid_val(cred->gid);
	call->egid = __kgid_val(cred->egid);
	call->sgid = __kgid_val(cred->sgid);
	call->fsgid = __kgid_val(cred->fsgid);
	call->personality = current->personality;
	/* One of our own may be set by another thread meanwhile; it always ends with a zero. */
	memcpy(call->comm, current->comm, sizeof(call->comm));
	call->comm[sizeof(call->comm) - 1] = 0;
	call->captured |= GRAVEN_CAPTURED_END | GRAVEN_CAPTURED_RESULT | GRAVEN_CAPTURED_TASK |
			  GRAVEN_CAPTURED_CREDENTIALS | GRAVEN_CAPTURED_AUID | GRAVEN_CAPTURED_SESSION |
			  GRAVEN_CAPTURED_COMM | GRAVEN_CAPTURED_PERSONALITY;
}

/* An item of the name, whose role and object come when the call has ended. */
void shim_name(struct shim_task *task, const char *name, const void __user *pointer)
{
	struct gs_buffer *buffer = task->buffer;
	u32 room, bytes = strlen(name);
	u8 *at = gs_item_room(buffer, &room);

	if (!at || task->name_count == SHIM_NAMES_MAX || room < OBJECT_BYTES + bytes) {
		task->names_lost = true;
		return;
	}
	memset(at, 0, OBJECT_BYTES);
	memcpy(at + OBJECT_BYTES, name, bytes);
	gs_item(buffer, GRAVEN_ITEM_NAME, GRAVEN_ROLE_NONE, GRAVEN_ITEM_NO_OBJECT, task->name_count,
		OBJECT_BYTES + bytes);
	task->names[task->name_count].pointer = pointer;
	task->names[task->name_count].at = (u32)(at - buffer->data) - (u32)sizeof(struct graven_item);
	task->name_count++;
}

void shim_sockaddr(struct shim_task *task, const void *address, int bytes)
{
	u32 room;
	u8 *at = gs_item_room(task->buffer, &room);
	u32 flags = 0;

	if (!at || bytes < 0 || bytes > (int)sizeof(struct __kernel_sockaddr_storage))
		return;
	if ((u32)bytes > room) {
		bytes = room;
		flags = GRAVEN_ITEM_CUT;
	}
	memcpy(at, address, bytes);
	gs_item(task->buffer, GRAVEN_ITEM_SOCKADDR, GRAVEN_ROLE_NONE, flags, task->sockaddrs++, bytes);
}

/* Making the items of a record that has ended. */
struct making {
	struct shim_task *task;
	bool (*push)(struct shim_task *task, u16 flags);
	bool given_up; /* the task is killed: the orphans have what there was */
	u32 names;
};

/* Room for at least so many bytes, in the next part if not in this one. NULL: there is none in any. */
static u8 *room_for(struct making *making, u32 bytes, u32 *room)
{
	u8 *at = gs_item_room(making->task->buffer, room);

	if (at && *room >= bytes)
		return at;
	if (!making->push(making->task, 0)) {
		making->given_up = true;
		return NULL;
	}
	at = gs_item_room(making->task->buffer, room);
	return at && *room >= bytes ? at : NULL;
}

static void put(struct making *making, u16 kind, u16 role, u32 flags, u32 index, u32 bytes)
{
	gs_item(making->task->buffer, kind, role, flags, index, bytes);
}

static void not_captured(struct making *making, u16 kind, u32 flags)
{
	u32 room;

	if (!making->given_up && room_for(making, 0, &room))
		put(making, kind, GRAVEN_ROLE_NONE, GRAVEN_ITEM_NOT_CAPTURED | flags, 0, 0);
}

/*
 * The working folder, without a reference: others of the same folder would have theirs counted in the same place. As in a
 * walk under RCU, what d_path looks at is there for as long as this is, and it does not sleep.
 */
static char *cwd_path(char *at, int room)
{
	struct fs_struct *fs = current->fs;
	struct path path;
	unsigned int seq;
	char *made;

	rcu_read_lock();
	do {
		seq = read_seqcount_begin(&fs->seq);
		path = fs->pwd;
	} while (read_seqcount_retry(&fs->seq, seq));
	made = d_path(&path, at, room);
	rcu_read_unlock();
	return made;
}

/* A path as the task sees it, or its working folder. It is made at the end of the room, and moved. */
static void put_path(struct making *making, u16 kind, const struct path *path)
{
	u32 least = 256, room, bytes;
	u8 *at;
	char *made;

	for (;;) {
		at = room_for(making, least, &room);
		if (!at)
			break;
		made = path ? d_path(path, at, room) : cwd_path(at, room);
		if (!IS_ERR(made)) {
			bytes = strlen(made);
			memmove(at, made, bytes);
			put(making, kind, GRAVEN_ROLE_NONE, 0, 0, bytes);
			return;
		}
		/* Once more in an empty part. */
		if (PTR_ERR(made) != -ENAMETOOLONG || room >= PATH_MAX)
			break;
		least = PATH_MAX;
	}
	not_captured(making, kind, 0);
}

static struct file *exe_of(struct mm_struct *mm)
{
	struct file *file;

	rcu_read_lock();
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	file = get_file_rcu(&mm->exe_file);
#else
	file = rcu_dereference(mm->exe_file);
	if (file && !get_file_rcu(file))
		file = NULL;
#endif
	rcu_read_unlock();
	return file;
}

static void put_exe(struct making *making)
{
	struct file *file = exe_of(current->mm);

	if (!file) {
		not_captured(making, GRAVEN_ITEM_EXE, 0);
		return;
	}
	put_path(making, GRAVEN_ITEM_EXE, &file->f_path);
	fput(file);
}

static void put_tty(struct making *making)
{
	struct tty_struct *tty;
	u32 room, bytes;
	u8 *at;

	/* Most who have none never get one: they need no lock of their process to know. */
	if (!READ_ONCE(current->signal->tty))
		return;
	tty = get_current_tty();
	if (!tty)
		return;
	at = room_for(making, sizeof(tty->name), &room);
	if (at) {
		bytes = strnlen(tty->name, sizeof(tty->name));
		memcpy(at, tty->name, bytes);
		put(making, GRAVEN_ITEM_TTY, GRAVEN_ROLE_NONE, 0, 0, bytes);
	}
	tty_kref_put(tty);
}

static void put_proctitle(struct making *making)
{
	unsigned long from = READ_ONCE(current->mm->arg_start), to = READ_ONCE(current->mm->arg_end);
	u32 flags = GRAVEN_ITEM_FROM_USER, room, bytes;
	u8 *at;

	if (to <= from)
		return;
	at = room_for(making, PROCTITLE_BYTES, &room);
	if (!at)
		return;
	bytes = min_t(unsigned long, to - from, PROCTITLE_BYTES);
	if (to - from > bytes)
		flags |= GRAVEN_ITEM_CUT;
	if (copy_from_user(at, (const void __user *)from, bytes))
		not_captured(making, GRAVEN_ITEM_PROCTITLE, GRAVEN_ITEM_FROM_USER);
	else
		put(making, GRAVEN_ITEM_PROCTITLE, GRAVEN_ROLE_NONE, flags, 0, bytes);
}

/* The arguments of the program that runs now, where the kernel has put them: no code of its own has run yet. */
static void put_new_arguments(struct making *making)
{
	unsigned long at_user = current->mm->arg_start, end = current->mm->arg_end;
	u32 index = 0;

	while (at_user < end) {
		u32 room, bytes, i, first = index;
		u8 *at = room_for(making, 256, &room);

		if (!at)
			return;
		bytes = min_t(unsigned long, end - at_user, room);
		if (copy_from_user(at, (const void __user *)at_user, bytes)) {
			not_captured(making, GRAVEN_ITEM_ARGV, GRAVEN_ITEM_CUT);
			return;
		}
		for (i = 0; i < bytes; i++)
			index += !at[i];
		at_user += bytes;
		put(making, GRAVEN_ITEM_ARGV, GRAVEN_ROLE_NONE, at_user < end ? GRAVEN_ITEM_CONTINUES : 0, first, bytes);
	}
}

static bool argument_pointer(const struct shim_task *task, u64 list, u32 index, u64 *pointer)
{
	if (task->arch == AUDIT_ARCH_I386) {
		u32 short_one;

		if (get_user(short_one, (u32 __user *)(unsigned long)list + index))
			return false;
		*pointer = short_one;
		return true;
	}
	return !get_user(*pointer, (u64 __user *)(unsigned long)list + index);
}

/* One argument of a program that was not started. */
static bool put_argument(struct making *making, u64 pointer, u32 index)
{
	for (;;) {
		u32 room;
		u8 *at = room_for(making, 256, &room);
		long bytes;

		if (!at)
			return false;
		bytes = strncpy_from_user(at, (const char __user *)(unsigned long)pointer, room);
		if (bytes < 0)
			return false;
		if (bytes < room) {
			put(making, GRAVEN_ITEM_ARGV, GRAVEN_ROLE_NONE, GRAVEN_ITEM_FROM_USER, index, bytes + 1);
			return true;
		}
		put(making, GRAVEN_ITEM_ARGV, GRAVEN_ROLE_NONE, GRAVEN_ITEM_FROM_USER | GRAVEN_ITEM_CONTINUES, index,
		    bytes);
		pointer += bytes;
	}
}

static void put_old_arguments(struct making *making)
{
	const struct shim_task *task = making->task;
	/* execveat has a descriptor before. */
	u64 list = task->args[shim_call(task->arch, task->nr)->path[0].argument + 1];
	u64 pointer;
	u32 i;

	for (i = 0; list && i < ARGUMENTS_MAX; i++) {
		if (!argument_pointer(task, list, i, &pointer))
			break;
		if (!pointer)
			return;
		if (!put_argument(making, pointer, i))
			break;
	}
	if (list)
		not_captured(making, GRAVEN_ITEM_ARGV, GRAVEN_ITEM_FROM_USER | GRAVEN_ITEM_CUT);
}

static const struct shim_object *object_of(const struct shim_task *task, u8 which)
{
	if (which == SHIM_OBJECTS || !task->objects[which].known)
		return NULL;
	if (which == SHIM_LOOKED && shim_is_error(gs_call(task->buffer)->result))
		return NULL;
	return &task->objects[which];
}

/* Says of a name what it was to the call, as long as all names are in the first part. */
static void describe(struct shim_task *task, u32 name, u16 role, u8 which, s32 dir_fd)
{
	struct graven_item *item = (struct graven_item *)(task->buffer->data + task->names[name].at);
	struct graven_object *object = (struct graven_object *)(item + 1);
	const struct shim_object *seen = object_of(task, which);

	item->role = role;
	if (seen) {
		*object = seen->object;
		item->flags &= ~GRAVEN_ITEM_NO_OBJECT;
		if (seen->made)
			item->flags |= GRAVEN_ITEM_MADE;
	}
	object->dir_fd = dir_fd;
}

/* A name that the kernel did not take, as after EFAULT: what is there now, for what it is worth. */
static void put_missing(struct making *making, const struct shim_path *path, s32 dir_fd)
{
	const char __user *from = (const char __user *)(unsigned long)making->task->args[path->argument];
	u32 room, flags = GRAVEN_ITEM_NO_OBJECT | GRAVEN_ITEM_FROM_USER;
	struct graven_object *object;
	long bytes;
	u8 *at;

	if (!from)
		return;
	at = room_for(making, OBJECT_BYTES + PATH_MAX, &room);
	if (!at)
		return;
	object = (struct graven_object *)at;
	memset(object, 0, OBJECT_BYTES);
	object->dir_fd = dir_fd;
	bytes = strncpy_from_user(at + OBJECT_BYTES, from, PATH_MAX);
	if (bytes < 0) {
		flags |= GRAVEN_ITEM_NOT_CAPTURED;
		bytes = 0;
	} else if (bytes == PATH_MAX) {
		flags |= GRAVEN_ITEM_CUT;
	}
	put(making, GRAVEN_ITEM_NAME, path->role, flags, making->names++, OBJECT_BYTES + bytes);
}

static u32 find_name(const struct shim_task *task, u64 pointer, u32 taken)
{
	u32 i;

	for (i = 0; i < task->name_count; i++) {
		if (!(taken >> i & 1) && task->names[i].pointer == (const void __user *)(unsigned long)pointer)
			break;
	}
	return i;
}

/* Of a name that is no argument: what runs a program, which the program's file says. */
static u16 kernel_made_role(const struct shim_task *task, u32 name)
{
	return !task->names[name].pointer && shim_is_exec(task->arch, task->nr) ? GRAVEN_ROLE_INTERPRETER :
										     GRAVEN_ROLE_NONE;
}

/* Roles of the names that the kernel took; then those that it did not. */
static void put_names(struct making *making)
{
	struct shim_task *task = making->task;
	const struct shim_call *call = shim_call(task->arch, task->nr);
	u32 taken = 0, missing = 0, i, name;
	s32 dirs[2] = { AT_FDCWD, AT_FDCWD };

	making->names = task->name_count;
	for (i = 0; call && i < call->paths; i++) {
		const struct shim_path *path = &call->path[i];

		if (path->dir != SHIM_NO_DIR)
			dirs[i] = (s32)task->args[path->dir];
		name = find_name(task, task->args[path->argument], taken);
		if (name == task->name_count) {
			missing |= 1 << i;
			continue;
		}
		taken |= 1 << name;
		describe(task, name, path->role, path->which, dirs[i]);
	}
	for (i = 0; i < task->name_count; i++) {
		if (!(taken >> i & 1))
			describe(task, i, kernel_made_role(task, i), SHIM_OBJECTS, AT_FDCWD);
	}
	for (i = 0; call && i < call->paths && !making->given_up; i++) {
		if (missing >> i & 1)
			put_missing(making, &call->path[i], dirs[i]);
	}
}

static bool exec_succeeded(struct shim_task *task)
{
	return shim_is_exec(task->arch, task->nr) && !gs_call(task->buffer)->result;
}

/*
 * Makes the rest of the record of a call that has ended, and pushes all of it, part after part. May sleep. The
 * buffer is empty then, or with the orphans.
 */
void shim_record_finish(struct shim_task *task, bool (*push)(struct shim_task *task, u16 flags))
{
	struct making making = { .task = task, .push = push };
	struct graven_call *call = gs_call(task->buffer);
	bool is_new = exec_succeeded(task);

	if (shim_hooks() & GRAVEN_HOOK_NAMES && !task->names_lost)
		call->captured |= GRAVEN_CAPTURED_NAMES;
	if (shim_hooks() & GRAVEN_HOOK_CONNECT && shim_hooks() & GRAVEN_HOOK_BIND)
		call->captured |= GRAVEN_CAPTURED_SOCKADDR;
	if (shim_is_exec(task->arch, task->nr))
		call->captured |= GRAVEN_CAPTURED_ARGV;
	/* Names first: they are described where they lie, in the first part. */
	put_names(&making);
	if (!making.given_up)
		put_path(&making, GRAVEN_ITEM_CWD, NULL);
	if (!making.given_up && current->mm)
		put_exe(&making);
	if (!making.given_up)
		put_tty(&making);
	if (!making.given_up && current->mm)
		put_proctitle(&making);
	if (!making.given_up && is_new)
		put_new_arguments(&making);
	else if (!making.given_up && shim_is_exec(task->arch, task->nr))
		put_old_arguments(&making);
	if (!making.given_up)
		push(task, GRAVEN_PART_LAST);
}
