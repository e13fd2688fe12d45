// SPDX-License-Identifier: GPL-2.0
/*
 * Which calls are recorded. Rules are replaced as a whole; whoever is in a call goes on by those that it began
 * with, but for an outcome, which is judged by those of its end.
 */
#include <linux/audit.h>
#include <linux/cred.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "shim.h"

#define CALLS_WORDS ARRAY_SIZE(((struct graven_rule *)NULL)->calls)

struct shim_rules {
	u64 named[CALLS_WORDS]; /* numbers of calls, of whichever architecture, that some rule may fit */
	u32 count;
	struct graven_rule rules[];
};

static struct shim_rules __rcu *current_rules;
static u32 rule_count;
static DEFINE_MUTEX(rules_mutex);

#define OUTCOME (GRAVEN_RULE_SUCCESS | GRAVEN_RULE_FAILURE)

static bool fits_call(const struct graven_rule *rule, u32 arch, long nr)
{
	if (rule->fields & GRAVEN_RULE_ARCH && rule->arch != arch)
		return false;
	if (!(rule->fields & GRAVEN_RULE_CALLS))
		return true;
	/* A number that no rule can name is not left out: it is recorded. */
	if (nr < 0 || nr >= 64 * (long)CALLS_WORDS)
		return rule->action == GRAVEN_RULE_AUDIT;
	return rule->calls[nr / 64] >> (nr % 64) & 1;
}

static bool fits_task(const struct graven_rule *rule, const struct shim_task *task)
{
	u32 uid;

	if (rule->fields & GRAVEN_RULE_FOLLOWED && !shim_followed(task))
		return false;
	if (rule->fields & GRAVEN_RULE_UID) {
		uid = __kuid_val(current_uid());
		if (uid < rule->uid_from || uid > rule->uid_to)
			return false;
	}
	if (rule->fields & GRAVEN_RULE_AUID &&
	    rule->auid != __kuid_val(audit_get_loginuid(current)))
		return false;
	if (rule->fields & GRAVEN_RULE_SESSION && rule->session != audit_get_sessionid(current))
		return false;
	return !(rule->fields & GRAVEN_RULE_PID) || rule->pid == (u32)current->tgid;
}

/* Whether any rule may fit a call of this number: most calls go by here. With preemption off. */
bool shim_rules_name(long nr)
{
	const struct shim_rules *rules = rcu_dereference_sched(current_rules);

	if (!rules || !rules->count)
		return false;
	return nr >= 64 * (long)CALLS_WORDS || rules->named[nr / 64] >> (nr % 64) & 1;
}

/*
 * Also of a call whose outcome is not known: whether it is recorded, is not, or may be. With preemption off, which is
 * as good as rcu_read_lock().
 */
enum shim_match shim_match(u32 arch, long nr, const struct shim_task *task)
{
	const struct shim_rules *rules;
	enum shim_match match = SHIM_NO;
	bool depends = false;
	u32 i;

	rules = rcu_dereference_sched(current_rules);
	for (i = 0; rules && i < rules->count; i++) {
		const struct graven_rule *rule = &rules->rules[i];

		if (!fits_call(rule, arch, nr) || !fits_task(rule, task))
			continue;
		if (!(rule->fields & OUTCOME)) {
			match = rule->action == GRAVEN_RULE_AUDIT ? SHIM_YES : SHIM_NO;
			break;
		}
		depends = true;
	}
	return depends ? SHIM_DEPENDS : match;
}

bool shim_match_result(const struct shim_task *task, long result)
{
	const struct shim_rules *rules;
	u32 outcome = shim_is_error(result) ? GRAVEN_RULE_FAILURE : GRAVEN_RULE_SUCCESS;
	bool match = false;
	u32 i;

	rules = rcu_dereference_sched(current_rules);
	for (i = 0; rules && i < rules->count; i++) {
		const struct graven_rule *rule = &rules->rules[i];

		if (!fits_call(rule, task->arch, task->nr) || !fits_task(rule, task))
			continue;
		if (rule->fields & OUTCOME && !(rule->fields & outcome))
			continue;
		match = rule->action == GRAVEN_RULE_AUDIT;
		break;
	}
	return match;
}

static bool possible(const struct graven_rule *rule)
{
	if (rule->action > GRAVEN_RULE_AUDIT || rule->fields & ~GRAVEN_RULE_FIELDS)
		return false;
	/* The same call has another number on another architecture. */
	return !(rule->fields & GRAVEN_RULE_CALLS) || rule->fields & GRAVEN_RULE_ARCH;
}

static void name_calls(struct shim_rules *rules)
{
	u32 i, word;

	memset(rules->named, 0, sizeof(rules->named));
	for (i = 0; i < rules->count; i++) {
		const struct graven_rule *rule = &rules->rules[i];

		for (word = 0; word < CALLS_WORDS; word++)
			rules->named[word] |= rule->fields & GRAVEN_RULE_CALLS ? rule->calls[word] : ~0ULL;
	}
}

long shim_rules_set(const struct graven_rules __user *from)
{
	struct shim_rules *fresh, *old;
	u32 count, i;

	if (get_user(count, &from->count))
		return -EFAULT;
	if (count > GRAVEN_RULES_MAX)
		return -EINVAL;
	fresh = kvmalloc(struct_size(fresh, rules, count), GFP_KERNEL);
	if (!fresh)
		return -ENOMEM;
	fresh->count = count;
	if (copy_from_user(fresh->rules, from->rules, count * sizeof(fresh->rules[0]))) {
		kvfree(fresh);
		return -EFAULT;
	}
	for (i = 0; i < count; i++) {
		if (!possible(&fresh->rules[i])) {
			kvfree(fresh);
			return -EINVAL;
		}
	}
	name_calls(fresh);
	mutex_lock(&rules_mutex);
	old = rcu_replace_pointer(current_rules, fresh, lockdep_is_held(&rules_mutex));
	WRITE_ONCE(rule_count, count);
	mutex_unlock(&rules_mutex);
	synchronize_rcu();
	kvfree(old);
	/* Who sleeps may not have to any more. */
	wake_up_all(&shim_room);
	return 0;
}

u32 shim_rules_count(void)
{
	return READ_ONCE(rule_count);
}

/* Nobody looks any more. */
void shim_rules_free(void)
{
	kvfree(rcu_dereference_protected(current_rules, true));
	RCU_INIT_POINTER(current_rules, NULL);
}
