// SPDX-License-Identifier: GPL-2.0
/*
 * Graven's kernel shim: capture, wait when there is no room, hand over.
 */
#include <linux/cpumask.h>
#include <linux/module.h>

#include "shim.h"

static uint rings;
module_param(rings, uint, 0444);
MODULE_PARM_DESC(rings, "rings (default: one for each possible processor)");

static uint slots = 4096;
module_param(slots, uint, 0444);
MODULE_PARM_DESC(slots, "slots of 256 bytes in each ring, a power of two (default 4096)");

static uint part_bytes = 12288;
module_param(part_bytes, uint, 0444);
MODULE_PARM_DESC(part_bytes, "bytes of a part of a record, at most a quarter of a ring (default 12288)");

static int __init shim_start(void)
{
	int error;

	if (!rings)
		rings = min_t(uint, num_possible_cpus(), GRAVEN_SHIM_RINGS_MAX);
	shim_calls_start();
	error = shim_device_start(rings, slots, part_bytes);
	if (error)
		return error;
	error = shim_hooks_start();
	if (error)
		goto no_hooks;
	error = shim_tasks_start();
	if (error)
		goto no_tasks;
	pr_info("graven_shim: %u rings of %u slots\n", rings, slots);
	return 0;

no_tasks:
	shim_hooks_stop();
no_hooks:
	shim_device_hide();
	shim_rules_free();
	shim_device_stop();
	return error;
}

/* Nobody has the device open: each open file holds the module. */
static void __exit shim_end(void)
{
	shim_device_hide();
	shim_tasks_stop();
	shim_rules_free();
	shim_device_stop();
}

module_init(shim_start);
module_exit(shim_end);

MODULE_DESCRIPTION("Graven: audit records that wait for room, and are never dropped");
MODULE_AUTHOR("The Graven authors");
MODULE_LICENSE("Dual MIT/GPL");
