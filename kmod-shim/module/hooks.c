// SPDX-License-Identifier: GPL-2.0
/*
 * Where the kernel's own copies pass by: entries of functions that it calls with them. Only a call that is being
 * recorded looks; for everybody else a hook is a lookup that finds nothing.
 *
 * By ftrace itself, as a kprobe at a function's entry is: without its detour over an exception's registers, and
 * PERMANENT, so that nobody turns tracing off under us.
 */
#include <linux/fs.h>
#include <linux/ftrace.h>
#include <linux/net.h>
#include <linux/socket.h>

#include "shim.h"

static unsigned long argument(struct ftrace_regs *fregs, unsigned int n)
{
#ifdef ftrace_regs_get_argument
	return ftrace_regs_get_argument(fregs, n);
#else
	return regs_get_kernel_argument(&fregs->regs, n);
#endif
}

static void see(struct shim_task *task, enum shim_which which, const struct inode *inode)
{
	struct shim_object *seen = &task->objects[which];
	struct graven_object *object = &seen->object;

	/* What the call names; a file system that stands on another asks that one afterwards. */
	if (seen->known || !inode)
		return;
	object->inode = inode->i_ino;
	object->dev_major = MAJOR(inode->i_sb->s_dev);
	object->dev_minor = MINOR(inode->i_sb->s_dev);
	object->rdev_major = MAJOR(inode->i_rdev);
	object->rdev_minor = MINOR(inode->i_rdev);
	object->mode = inode->i_mode;
	object->uid = __kuid_val(inode->i_uid);
	object->gid = __kgid_val(inode->i_gid);
	seen->known = true;
}

static void see_dentry(struct shim_task *task, enum shim_which which, const struct dentry *dentry)
{
	if (dentry)
		see(task, which, d_inode(dentry));
}

/* Every name that was taken from user memory is given back here, with what the kernel acted on. */
static void on_putname(struct shim_task *task, struct ftrace_regs *fregs)
{
	const struct filename *name = (const struct filename *)argument(fregs, 0);

	if (!IS_ERR_OR_NULL(name))
		shim_name(task, name->name, name->uptr);
}

static void on_fd_install(struct shim_task *task, struct ftrace_regs *fregs)
{
	const struct file *file = (const struct file *)argument(fregs, 1);

	if (!task->objects[SHIM_OPENED].known)
		task->objects[SHIM_OPENED].made = file->f_mode & FMODE_CREATED;
	see(task, SHIM_OPENED, file_inode(file));
}

/*
 * A call that looks at something gives back what its name led to at its end, and nothing after it: the last one is that,
 * if the call succeeds. What is given back on the way there goes by too.
 */
static void on_path_put(struct shim_task *task, struct ftrace_regs *fregs)
{
	const struct path *path = (const struct path *)argument(fregs, 0);
	const struct shim_call *call = shim_call(task->arch, task->nr);

	if (!call || call->path[0].which != SHIM_LOOKED || !path->dentry)
		return;
	task->objects[SHIM_LOOKED].known = false;
	see_dentry(task, SHIM_LOOKED, path->dentry);
}

/* The first one is the call's own; a file system that stands on another makes something there too. */
static void on_make(struct shim_task *task, struct ftrace_regs *fregs)
{
	if (!task->making)
		task->making = (const void *)argument(fregs, 2);
}

static void on_made(struct shim_task *task, struct ftrace_regs *fregs)
{
	const void *dentry = (const void *)argument(fregs, 0);

	if (!dentry || dentry != task->making)
		return;
	see(task, SHIM_MADE, (const struct inode *)argument(fregs, 1));
	task->objects[SHIM_MADE].made = true;
}

static void on_notify_change(struct shim_task *task, struct ftrace_regs *fregs)
{
	see_dentry(task, SHIM_CHANGED, (const struct dentry *)argument(fregs, 1));
}

static void on_remove(struct shim_task *task, struct ftrace_regs *fregs)
{
	see_dentry(task, SHIM_CHANGED, (const struct dentry *)argument(fregs, 2));
}

static void on_rename(struct shim_task *task, struct ftrace_regs *fregs)
{
	const struct renamedata *rename = (const struct renamedata *)argument(fregs, 0);

	see_dentry(task, SHIM_OLD, rename->old_dentry);
	/* What the name stands for afterwards. */
	see_dentry(task, SHIM_NEW, rename->old_dentry);
}

static void on_link(struct shim_task *task, struct ftrace_regs *fregs)
{
	const struct dentry *old = (const struct dentry *)argument(fregs, 0);

	see_dentry(task, SHIM_OLD, old);
	see_dentry(task, SHIM_NEW, old);
}

static void on_address(struct shim_task *task, struct ftrace_regs *fregs)
{
	shim_sockaddr(task, (const void *)argument(fregs, 1), (int)argument(fregs, 2));
}

static void on_send(struct shim_task *task, struct ftrace_regs *fregs)
{
	const struct msghdr *message = (const struct msghdr *)argument(fregs, 1);

	if (message->msg_name)
		shim_sockaddr(task, message->msg_name, message->msg_namelen);
}

static void on_received(struct shim_task *task, struct ftrace_regs *fregs)
{
	shim_sockaddr(task, (const void *)argument(fregs, 0), (int)argument(fregs, 1));
}

#define FUNCTIONS_MAX 4

/* One for all functions that give the same: setting each takes the kernel a while. */
struct hook {
	const char *functions[FUNCTIONS_MAX]; /* up to the first that is not there */
	u32 bit;
	void (*see)(struct shim_task *task, struct ftrace_regs *fregs);
	struct ftrace_ops ops;
	bool set;
};

static void on_call(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	struct shim_task *task;

	if (!in_task())
		return;
	task = shim_in_call();
	if (task)
		container_of(ops, struct hook, ops)->see(task, fregs);
}

#define HOOK(which, what, ...) \
	{ .functions = { __VA_ARGS__ }, .bit = which, .see = what, \
	  .ops = { .func = on_call, .flags = FTRACE_OPS_FL_PERMANENT } }

static struct hook hooks[] = {
	HOOK(GRAVEN_HOOK_NAMES, on_putname, "putname"),
	HOOK(GRAVEN_HOOK_OPENED, on_fd_install, "fd_install"),
	HOOK(GRAVEN_HOOK_CHANGED, on_notify_change, "notify_change"),
	HOOK(GRAVEN_HOOK_RENAMED, on_rename, "vfs_rename"),
	HOOK(GRAVEN_HOOK_LINKED, on_link, "vfs_link"),
	HOOK(GRAVEN_HOOK_REMOVED, on_remove, "vfs_unlink", "vfs_rmdir"),
	HOOK(GRAVEN_HOOK_LOOKED, on_path_put, "path_put"),
	HOOK(GRAVEN_HOOK_MADE, on_make, "vfs_create", "vfs_mkdir", "vfs_mknod", "vfs_symlink"),
	HOOK(GRAVEN_HOOK_MADE, on_made, "d_instantiate", "d_instantiate_new"),
	HOOK(GRAVEN_HOOK_CONNECT, on_address, "security_socket_connect"),
	HOOK(GRAVEN_HOOK_BIND, on_address, "security_socket_bind"),
	HOOK(GRAVEN_HOOK_SEND, on_send, "security_socket_sendmsg"),
	HOOK(GRAVEN_HOOK_RECEIVED, on_received, "move_addr_to_user"),
};

static u32 in_place;

u32 shim_hooks(void)
{
	return READ_ONCE(in_place);
}

u32 shim_hooks_wanted(void)
{
	u32 wanted = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(hooks); i++)
		wanted |= hooks[i].bit;
	return wanted;
}

static int hook_set(struct hook *hook)
{
	int error = 0, i;

	for (i = 0; !error && i < FUNCTIONS_MAX && hook->functions[i]; i++)
		error = ftrace_set_filter(&hook->ops, (unsigned char *)hook->functions[i], strlen(hook->functions[i]), !i);
	if (!error)
		error = register_ftrace_function(&hook->ops);
	hook->set = !error;
	if (error)
		pr_warn("graven_shim: cannot hook %s: %d\n", hook->functions[i - 1], error);
	return error;
}

/* A hook that this kernel does not have is said, and its fields are flagged; without names nothing goes. */
int shim_hooks_start(void)
{
	u32 missing = 0, set = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		if (hook_set(&hooks[i]))
			missing |= hooks[i].bit;
		set |= hooks[i].bit;
	}
	WRITE_ONCE(in_place, set & ~missing);
	if (missing & GRAVEN_HOOK_NAMES) {
		shim_hooks_stop();
		return -ENOENT;
	}
	return 0;
}

void shim_hooks_stop(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		if (hooks[i].set)
			unregister_ftrace_function(&hooks[i].ops);
		hooks[i].set = false;
	}
	WRITE_ONCE(in_place, 0);
}
