// SPDX-License-Identifier: GPL-2.0
/*
 * Which arguments of which calls are path names, what each is to the call, and what that does with it. Numbers are the architecture's;
 * a call that is not here is recorded all the same, and its names have no role.
 */
#include <asm/unistd_32_ia32.h>
#include <asm/unistd_64.h>
#include <linux/audit.h>

#include "shim.h"

#define NONE SHIM_NO_DIR
#define TARGET(argument, which) { { argument, NONE, GRAVEN_ROLE_TARGET, SHIM_##which } }
#define TARGET_AT(dir, argument, which) { { argument, dir, GRAVEN_ROLE_TARGET, SHIM_##which } }
#define OLD(dir, argument) { argument, dir, GRAVEN_ROLE_OLD, SHIM_OLD }
#define NEW(dir, argument) { argument, dir, GRAVEN_ROLE_NEW, SHIM_NEW }
#define TEXT(argument) { argument, NONE, GRAVEN_ROLE_TEXT, SHIM_OBJECTS }
#define LINK(dir, argument) { argument, dir, GRAVEN_ROLE_NEW, SHIM_MADE }
#define PROGRAM(dir, argument) { { argument, dir, GRAVEN_ROLE_PROGRAM, SHIM_OBJECTS } }
#define BOTH(name) __NR_##name, __NR_ia32_##name
#define ONLY_64(name) __NR_##name, 0
#define ONLY_32(name) NO_CALL, __NR_ia32_##name
#define NO_CALL 0xffff

static const struct shim_call calls[] = {
	{ BOTH(open), 1, TARGET(0, OPENED) },
	{ BOTH(openat), 1, TARGET_AT(0, 1, OPENED) },
	{ BOTH(openat2), 1, TARGET_AT(0, 1, OPENED) },
	{ BOTH(creat), 1, TARGET(0, OPENED) },
	{ BOTH(stat), 1, TARGET(0, LOOKED) },
	{ BOTH(lstat), 1, TARGET(0, LOOKED) },
	{ ONLY_32(oldstat), 1, TARGET(0, LOOKED) },
	{ ONLY_32(oldlstat), 1, TARGET(0, LOOKED) },
	{ ONLY_32(stat64), 1, TARGET(0, LOOKED) },
	{ ONLY_32(lstat64), 1, TARGET(0, LOOKED) },
	{ __NR_newfstatat, __NR_ia32_fstatat64, 1, TARGET_AT(0, 1, LOOKED) },
	{ BOTH(statx), 1, TARGET_AT(0, 1, LOOKED) },
	{ BOTH(statfs), 1, TARGET(0, LOOKED) },
	{ ONLY_32(statfs64), 1, TARGET(0, LOOKED) },
	{ BOTH(access), 1, TARGET(0, LOOKED) },
	{ BOTH(faccessat), 1, TARGET_AT(0, 1, LOOKED) },
	{ BOTH(faccessat2), 1, TARGET_AT(0, 1, LOOKED) },
	{ BOTH(readlink), 1, TARGET(0, LOOKED) },
	{ BOTH(readlinkat), 1, TARGET_AT(0, 1, LOOKED) },
	{ BOTH(chdir), 1, TARGET(0, LOOKED) },
	{ BOTH(chroot), 1, TARGET(0, LOOKED) },
	{ BOTH(mkdir), 1, TARGET(0, MADE) },
	{ BOTH(mkdirat), 1, TARGET_AT(0, 1, MADE) },
	{ BOTH(rmdir), 1, TARGET(0, CHANGED) },
	{ BOTH(unlink), 1, TARGET(0, CHANGED) },
	{ BOTH(unlinkat), 1, TARGET_AT(0, 1, CHANGED) },
	{ BOTH(rename), 2, { OLD(NONE, 0), NEW(NONE, 1) } },
	{ BOTH(renameat), 2, { OLD(0, 1), NEW(2, 3) } },
	{ BOTH(renameat2), 2, { OLD(0, 1), NEW(2, 3) } },
	{ BOTH(link), 2, { OLD(NONE, 0), NEW(NONE, 1) } },
	{ BOTH(linkat), 2, { OLD(0, 1), NEW(2, 3) } },
	{ BOTH(symlink), 2, { TEXT(0), LINK(NONE, 1) } },
	{ BOTH(symlinkat), 2, { TEXT(0), LINK(1, 2) } },
	{ BOTH(chmod), 1, TARGET(0, CHANGED) },
	{ BOTH(fchmodat), 1, TARGET_AT(0, 1, CHANGED) },
#ifdef __NR_fchmodat2
	{ BOTH(fchmodat2), 1, TARGET_AT(0, 1, CHANGED) },
#endif
	{ BOTH(chown), 1, TARGET(0, CHANGED) },
	{ BOTH(lchown), 1, TARGET(0, CHANGED) },
	{ ONLY_32(chown32), 1, TARGET(0, CHANGED) },
	{ ONLY_32(lchown32), 1, TARGET(0, CHANGED) },
	{ BOTH(fchownat), 1, TARGET_AT(0, 1, CHANGED) },
	{ BOTH(mknod), 1, TARGET(0, MADE) },
	{ BOTH(mknodat), 1, TARGET_AT(0, 1, MADE) },
	{ BOTH(truncate), 1, TARGET(0, CHANGED) },
	{ ONLY_32(truncate64), 1, TARGET(0, CHANGED) },
	{ BOTH(utime), 1, TARGET(0, CHANGED) },
	{ BOTH(utimes), 1, TARGET(0, CHANGED) },
	{ BOTH(futimesat), 1, TARGET_AT(0, 1, CHANGED) },
	{ BOTH(utimensat), 1, TARGET_AT(0, 1, CHANGED) },
	{ ONLY_32(utimensat_time64), 1, TARGET_AT(0, 1, CHANGED) },
	{ BOTH(execve), 1, PROGRAM(NONE, 0) },
	{ BOTH(execveat), 1, PROGRAM(0, 1) },
	{ BOTH(mount), 1, TARGET(1, OBJECTS) },
	{ BOTH(umount2), 1, TARGET(0, OBJECTS) },
	{ BOTH(pivot_root), 2, { NEW(NONE, 0), OLD(NONE, 1) } },
	{ BOTH(open_tree), 1, TARGET_AT(0, 1, OPENED) },
	{ BOTH(move_mount), 2, { OLD(0, 1), NEW(2, 3) } },
	{ BOTH(fspick), 1, TARGET_AT(0, 1, OBJECTS) },
	{ BOTH(mount_setattr), 1, TARGET_AT(0, 1, OBJECTS) },
	{ BOTH(swapon), 1, TARGET(0, OBJECTS) },
	{ BOTH(swapoff), 1, TARGET(0, OBJECTS) },
	{ BOTH(acct), 1, TARGET(0, OBJECTS) },
	{ BOTH(quotactl), 1, TARGET(1, OBJECTS) },
	{ BOTH(uselib), 1, TARGET(0, OBJECTS) },
	{ BOTH(setxattr), 1, TARGET(0, LOOKED) },
	{ BOTH(lsetxattr), 1, TARGET(0, LOOKED) },
	{ BOTH(getxattr), 1, TARGET(0, LOOKED) },
	{ BOTH(lgetxattr), 1, TARGET(0, LOOKED) },
	{ BOTH(listxattr), 1, TARGET(0, LOOKED) },
	{ BOTH(llistxattr), 1, TARGET(0, LOOKED) },
	{ BOTH(removexattr), 1, TARGET(0, LOOKED) },
	{ BOTH(lremovexattr), 1, TARGET(0, LOOKED) },
	{ BOTH(inotify_add_watch), 1, TARGET(1, LOOKED) },
	{ ONLY_64(fanotify_mark), 1, TARGET_AT(3, 4, OBJECTS) },
	/* Its mask takes two arguments there. */
	{ ONLY_32(fanotify_mark), 1, TARGET_AT(4, 5, OBJECTS) },
	{ BOTH(name_to_handle_at), 1, TARGET_AT(0, 1, LOOKED) },
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
