// SPDX-License-Identifier: GPL-2.0
/*
 * The device: memory to map, one reader, and what it asks for.
 */
#include <linux/cpumask.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "shim.h"

struct gs_core shim_core;
struct graven_policy shim_policy;

static void *memory;
static u64 memory_bytes;
static DEFINE_MUTEX(device_mutex); /* of the reader's coming and going, and of the policy */
static pid_t reader; /* 0: none */
static u64 absent_since; /* CLOCK_BOOTTIME, ns */

/* PID 1, and whoever the records go to: if they wait, everybody does for ever. */
bool shim_exempt(void)
{
	return current->tgid == 1 || current->tgid == READ_ONCE(reader);
}

u32 shim_absent_ms(void)
{
	u64 ns;

	if (READ_ONCE(reader))
		return 0;
	ns = ktime_get_boottime_ns() - READ_ONCE(absent_since);
	return clamp_t(u64, div_u64(ns, NSEC_PER_MSEC), 1, U32_MAX);
}

static int on_open(struct inode *inode, struct file *file)
{
	int error = 0;

	file->private_data = NULL;
	if (!(file->f_mode & FMODE_WRITE))
		return 0;
	mutex_lock(&device_mutex);
	if (reader) {
		error = -EBUSY;
	} else {
		WRITE_ONCE(reader, current->tgid);
		file->private_data = &reader;
		/* Whoever was looking at a tail of the reader before has looked: what the producer page says is what is believed. */
		shim_advanced();
	}
	mutex_unlock(&device_mutex);
	return error;
}

/* When the last mapping is gone as well. */
static int on_release(struct inode *inode, struct file *file)
{
	if (!file->private_data)
		return 0;
	mutex_lock(&device_mutex);
	WRITE_ONCE(absent_since, ktime_get_boottime_ns());
	WRITE_ONCE(reader, 0);
	mutex_unlock(&device_mutex);
	/* It may have moved tails and not said so. */
	shim_advanced();
	return 0;
}

/* Whether this is a consumer page and nothing else. */
static bool is_consumer_page(u64 offset, u64 bytes)
{
	u32 i;

	for (i = 0; bytes == PAGE_SIZE && i < shim_core.ring_count; i++) {
		if (memory + offset == (void *)shim_core.rings[i].consumer)
			return true;
	}
	return false;
}

static int on_mmap(struct file *file, struct vm_area_struct *vma)
{
	u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT, bytes = vma->vm_end - vma->vm_start;

	if (offset > memory_bytes || bytes > memory_bytes - offset || !(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (!file->private_data || !is_consumer_page(offset, bytes)) {
		if (vma->vm_flags & VM_WRITE)
			return -EPERM;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
		vm_flags_clear(vma, VM_MAYWRITE);
#else
		vma->vm_flags &= ~VM_MAYWRITE;
#endif
	}
	return remap_vmalloc_range(vma, memory, vma->vm_pgoff);
}

static __poll_t on_poll(struct file *file, poll_table *table)
{
	u32 i;

	poll_wait(file, &shim_readers, table);
	/* Behind the queue: whoever puts something in afterwards sees us there. */
	smp_mb();
	for (i = 0; i < shim_core.ring_count; i++) {
		const struct gs_ring *ring = &shim_core.rings[i];

		if (READ_ONCE(ring->head) != READ_ONCE(ring->consumer->read))
			return EPOLLIN | EPOLLRDNORM;
	}
	return 0;
}

static long policy_set(const struct graven_policy __user *from)
{
	struct graven_policy policy;

	if (copy_from_user(&policy, from, sizeof(policy)))
		return -EFAULT;
	if (policy.no_reader > GRAVEN_NO_READER_PASS || policy.io_uring > GRAVEN_IO_URING_UNSEEN || policy.pinned > 1)
		return -EINVAL;
	mutex_lock(&device_mutex);
	if (policy.pinned && !shim_policy.pinned)
		__module_get(THIS_MODULE);
	policy.pinned |= shim_policy.pinned;
	shim_policy = policy;
	gs_policy(&shim_core, policy.no_reader, policy.no_reader_ms);
	mutex_unlock(&device_mutex);
	return 0;
}

static long status_get(struct graven_status __user *to)
{
	struct graven_status status = {
		.version = GRAVEN_SHIM_VERSION,
		.instance = shim_core.control->instance,
		.order_next = gs_counter_read(&shim_core.order_next),
		.passed = gs_counter_read(&shim_core.passed),
		.orphans = READ_ONCE(shim_core.orphan_count),
		.reader = READ_ONCE(reader),
		.absent_ms = shim_absent_ms(),
		.hooks = shim_hooks(),
		.hooks_wanted = shim_hooks_wanted(),
		.rules = shim_rules_count(),
	};
	u32 i;

	mutex_lock(&device_mutex);
	status.policy = shim_policy;
	mutex_unlock(&device_mutex);
	for (i = 0; i < shim_core.ring_count; i++)
		status.bad_tails += READ_ONCE(shim_core.rings[i].bad_tails);
	shim_tasks_status(&status);
	return copy_to_user(to, &status, sizeof(status)) ? -EFAULT : 0;
}

static long on_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	switch (command) {
	case GRAVEN_IOC_STATUS:
		return status_get((struct graven_status __user *)argument);
	case GRAVEN_IOC_FOLLOW:
		return shim_follow();
	}
	if (!file->private_data)
		return -EPERM;
	switch (command) {
	case GRAVEN_IOC_ADVANCED:
		shim_advanced();
		return 0;
	case GRAVEN_IOC_RULES:
		return shim_rules_set((const struct graven_rules __user *)argument);
	case GRAVEN_IOC_POLICY:
		return policy_set((const struct graven_policy __user *)argument);
	}
	return -ENOTTY;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = on_open,
	.release = on_release,
	.mmap = on_mmap,
	.poll = on_poll,
	.unlocked_ioctl = on_ioctl,
	/* The structures are the same for 32-bit programs, whose pointers are the low half. */
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "graven",
	.mode = 0600,
	.fops = &operations,
};

int shim_device_start(u32 rings, u32 slots, u32 part_bytes)
{
	int error = -ENOMEM;

	BUILD_BUG_ON(PAGE_SIZE != GRAVEN_SHIM_PAGE_BYTES);
	memory_bytes = gs_bytes(rings, slots, part_bytes);
	if (!memory_bytes) {
		pr_err("graven_shim: %u rings of %u slots with parts of %u bytes cannot be\n", rings, slots, part_bytes);
		return -EINVAL;
	}
	memory = vmalloc_user(memory_bytes);
	shim_core.rings = kcalloc(rings, sizeof(*shim_core.rings), GFP_KERNEL);
	if (!memory || !shim_core.rings)
		goto failed;
	shim_core.ring_count = rings;
	shim_core.slots = slots;
	shim_core.part_bytes_max = part_bytes;
	gs_init(&shim_core, memory, get_random_u64());
	absent_since = ktime_get_boottime_ns();
	error = misc_register(&device);
	if (!error)
		return 0;
failed:
	kfree(shim_core.rings);
	vfree(memory);
	return error;
}

void shim_device_hide(void)
{
	misc_deregister(&device);
}

void shim_device_stop(void)
{
	kfree(shim_core.rings);
	vfree(memory);
}
