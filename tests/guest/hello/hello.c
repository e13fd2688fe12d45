// SPDX-License-Identifier: GPL-2.0
/*
 * The smallest module that shows that the harness builds, loads and unloads one: it has a file of its
 * own while it is loaded.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

static ssize_t hello_read(struct file *file, char __user *to, size_t count, loff_t *at)
{
	static const char words[] = "hello from " KBUILD_MODNAME "\n";

	return simple_read_from_buffer(to, count, at, words, sizeof(words) - 1);
}

static const struct file_operations hello_operations = {
	.owner = THIS_MODULE,
	.read = hello_read,
};

static struct miscdevice hello_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "graven-hello",
	.fops = &hello_operations,
};

module_misc_device(hello_device);

MODULE_DESCRIPTION("Graven's test harness: a module that loads and unloads");
MODULE_LICENSE("GPL");
