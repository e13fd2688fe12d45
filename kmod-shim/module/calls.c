// SPDX-License-Identifier: GPL-2.0
/*
 * Which arguments of which calls are path names, and what each is to the call. Numbers are the architecture's;
 * a call that is not here is recorded all the same, and its names have no role.
 */
#include <asm/unistd_32_ia32.h>
#include <asm/unistd_64.h>
#include <linux/audit.h>

#include "shim.h"

#define NONE SHIM_NO_DIR
#define TARGET(argument) { { argument, NONE, GRAVEN_ROLE_TARGET } }
#define TARGET_AT(dir, argument) { { argument, dir, GRAVEN_ROLE_TARGET } }
#define BOTH(name) __NR_##name, __NR_ia32_##name
#define ONLY_64(name) __NR_##name, 0
#define ONLY_32(name) NO_CALL, __NR_ia32_##name
#define NO_CALL 0xffff

static const struct shim_call calls[] = {
	{ BOTH(open), 1, TARGET(0) },
	{ BOTH(openat), 1, TARGET_AT(0, 1) },
	{ BOTH(openat2), 1, TARGET_AT(0, 1) },
	{ BOTH(creat), 1, TARGET(0) },
	{ BOTH(stat), 1, TARGET(0) },
	{ BOTH(lstat), 1, TARGET(0) },
	{ ONLY_32(oldstat), 1, TARGET(0) },
	{ ONLY_32(oldlstat), 1, TARGET(0) },
	{ ONLY_32(stat64), 1, TARGET(0) },
	{ ONLY_32(lstat64), 1, TARGET(0) },
	{ __NR_newfstatat, __NR_ia32_fstatat64, 1, TARGET_AT(0, 1) },
	{ BOTH(statx), 1, TARGET_AT(0, 1) },
	{ BOTH(statfs), 1, TARGET(0) },
	{ ONLY_32(statfs64), 1, TARGET(0) },
	{ BOTH(access), 1, TARGET(0) },
	{ BOTH(faccessat), 1, TARGET_AT(0, 1) },
	{ BOTH(faccessat2), 1, TARGET_AT(0, 1) },
	{ BOTH(readlink), 1, TARGET(0) },
	{ BOTH(readlinkat), 1, TARGET_AT(0, 1) },
	{ BOTH(chdir), 1, TARGET(0) },
	{ BOTH(chroot), 1, TARGET(0) },
	{ BOTH(mkdir), 1, TARGET(0) },
	{ BOTH(mkdirat), 1, TARGET_AT(0, 1) },
	{ BOTH(rmdir), 1, TARGET(0) },
	{ BOTH(unlink), 1, TARGET(0) },
	{ BOTH(unlinkat), 1, TARGET_AT(0, 1) },
	{ BOTH(rename), 2, { { 0, NONE, GRAVEN_ROLE_OLD }, { 1, NONE, GRAVEN_ROLE_NEW } } },
	{ BOTH(renameat), 2, { { 1, 0, GRAVEN_ROLE_OLD }, { 3, 2, GRAVEN_ROLE_NEW } } },
	{ BOTH(renameat2), 2, { { 1, 0, GRAVEN_ROLE_OLD }, { 3, 2, GRAVEN_ROLE_NEW } } },
	{ BOTH(link), 2, { { 0, NONE, GRAVEN_ROLE_OLD }, { 1, NONE, GRAVEN_ROLE_NEW } } },
	{ BOTH(linkat), 2, { { 1, 0, GRAVEN_ROLE_OLD }, { 3, 2, GRAVEN_ROLE_NEW } } },
	{ BOTH(symlink), 2, { { 0, NONE, GRAVEN_ROLE_TEXT }, { 1, NONE, GRAVEN_ROLE_NEW } } },
	{ BOTH(symlinkat), 2, { { 0, NONE, GRAVEN_ROLE_TEXT }, { 2, 1, GRAVEN_ROLE_NEW } } },
	{ BOTH(chmod), 1, TARGET(0) },
	{ BOTH(fchmodat), 1, TARGET_AT(0, 1) },
#ifdef __NR_fchmodat2
	{ BOTH(fchmodat2), 1, TARGET_AT(0, 1) },
#endif
	{ BOTH(chown), 1, TARGET(0) },
	{ BOTH(lchown), 1, TARGET(0) },
	{ ONLY_32(chown32), 1, TARGET(0) },
	{ ONLY_32(lchown32), 1, TARGET(0) },
	{ BOTH(fchownat), 1, TARGET_AT(0, 1) },
	{ BOTH(mknod), 1, TARGET(0) },
	{ BOTH(mknodat), 1, TARGET_AT(0, 1) },
	{ BOTH(truncate), 1, TARGET(0) },
	{ ONLY_32(truncate64), 1, TARGET(0) },
	{ BOTH(utime), 1, TARGET(0) },
	{ BOTH(utimes), 1, TARGET(0) },
	{ BOTH(futimesat), 1, TARGET_AT(0, 1) },
	{ BOTH(utimensat), 1, TARGET_AT(0, 1) },
	{ ONLY_32(utimensat_time64), 1, TARGET_AT(0, 1) },
	{ BOTH(execve), 1, { { 0, NONE, GRAVEN_ROLE_PROGRAM } } },
	{ BOTH(execveat), 1, { { 1, 0, GRAVEN_ROLE_PROGRAM } } },
	{ BOTH(mount), 1, TARGET(1) },
	{ BOTH(umount2), 1, TARGET(0) },
	{ BOTH(pivot_root), 2, { { 0, NONE, GRAVEN_ROLE_NEW }, { 1, NONE, GRAVEN_ROLE_OLD } } },
	{ BOTH(open_tree), 1, TARGET_AT(0, 1) },
	{ BOTH(move_mount), 2, { { 1, 0, GRAVEN_ROLE_OLD }, { 3, 2, GRAVEN_ROLE_NEW } } },
	{ BOTH(fspick), 1, TARGET_AT(0, 1) },
	{ BOTH(mount_setattr), 1, TARGET_AT(0, 1) },
	{ BOTH(swapon), 1, TARGET(0) },
	{ BOTH(swapoff), 1, TARGET(0) },
	{ BOTH(acct), 1, TARGET(0) },
	{ BOTH(quotactl), 1, TARGET(1) },
	{ BOTH(uselib), 1, TARGET(0) },
	{ BOTH(setxattr), 1, TARGET(0) },
	{ BOTH(lsetxattr), 1, TARGET(0) },
	{ BOTH(getxattr), 1, TARGET(0) },
	{ BOTH(lgetxattr), 1, TARGET(0) },
	{ BOTH(listxattr), 1, TARGET(0) },
	{ BOTH(llistxattr), 1, TARGET(0) },
	{ BOTH(removexattr), 1, TARGET(0) },
	{ BOTH(lremovexattr), 1, TARGET(0) },
	{ BOTH(inotify_add_watch), 1, TARGET(1) },
	{ ONLY_64(fanotify_mark), 1, TARGET_AT(3, 4) },
	/* Its mask takes two arguments there. */
	{ ONLY_32(fanotify_mark), 1, TARGET_AT(4, 5) },
	{ BOTH(name_to_handle_at), 1, TARGET_AT(0, 1) },
};

#define NUMBERS 512

/* By number: the index in calls[] plus 1; 0: not there. */
static u8 by_64[NUMBERS], by_32[NUMBERS];

int shim_calls_start(void)
{
	size_t i;

	BUILD_BUG_ON(ARRAY_SIZE(calls) >= 255);
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		if (calls[i].nr != NO_CALL)
			by_64[calls[i].nr] = i + 1;
		if (calls[i].nr32)
			by_32[calls[i].nr32] = i + 1;
	}
	return 0;
}

const struct shim_call *shim_call(u32 arch, long nr)
{
	u8 index;

	if (nr < 0 || nr >= NUMBERS)
		return NULL;
	index = arch == AUDIT_ARCH_I386 ? by_32[nr] : by_64[nr];
	return index ? &calls[index - 1] : NULL;
}

bool shim_is_exit(u32 arch, long nr)
{
	if (arch == AUDIT_ARCH_I386)
		return nr == __NR_ia32_exit || nr == __NR_ia32_exit_group;
	return nr == __NR_exit || nr == __NR_exit_group;
}

bool shim_is_exec(u32 arch, long nr)
{
	if (arch == AUDIT_ARCH_I386)
		return nr == __NR_ia32_execve || nr == __NR_ia32_execveat;
	return nr == __NR_execve || nr == __NR_execveat;
}

/* The same numbers on both. */
bool shim_is_io_uring(u32 arch, long nr)
{
	return nr >= __NR_io_uring_setup && nr <= __NR_io_uring_register;
}
