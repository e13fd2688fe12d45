// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What the guests' tests of the kernel shim have recorded. Each command is a workload whose calls can be told
 * apart afterwards: numbered ones are getppid with its number and its producer's as arguments, which the
 * kernel ignores and the record keeps.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "graven_shim.h"

#define UID 1000

static void must(int good, const char *what)
{
	if (!good) {
		fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static void become_user(void)
{
	must(!setresgid(UID, UID, UID) && !setresuid(UID, UID, UID), "setuid");
}

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

static void number(long producer, long n)
{
	syscall(SYS_getppid, n, producer);
}

static void wait_for_all(void)
{
	int status;

	for (;;) {
		pid_t pid = wait(&status);

		if (pid < 0)
			return;
		must(WIFEXITED(status) && !WEXITSTATUS(status), "a child");
	}
}

/* calls PRODUCERS COUNT [FIRST] */
static int calls(long producers, long count, long first)
{
	double begun = now();

	for (long producer = 0; producer < producers; producer++) {
		if (fork())
			continue;
		become_user();
		for (long n = 0; n < count; n++)
			number(first + producer, n);
		_exit(0);
	}
	wait_for_all();
	printf("calls: %.0f a second\n", producers * count / (now() - begun));
	return 0;
}

/*
 * opens COUNT [BEFORE]: seconds for one of so many opens and closes of a file that is there, behind so many that fill what
 * stands between the kernel and the disk
 */
static int opens(long count, long before)
{
	double begun = 0;

	become_user();
	for (long n = -before; n < count; n++) {
		int fd;

		if (n == 0)
			begun = now();
		fd = open("/watched", O_RDONLY);
		must(fd >= 0, "open");
		close(fd);
	}
	printf("opens: %.9f\n", (now() - begun) / count);
	return 0;
}

/* user COMMAND WORD…: a command, as the user who is recorded */
static int user(char **words)
{
	become_user();
	execvp(words[0], words);
	must(0, words[0]);
	return 1;
}

/* sleepers COUNT FILE: so many processes in a read that does not end; their ids are in FILE when all are in it */
static int sleepers(long count, const char *file)
{
	FILE *out = fopen(file, "w");
	int ends[2];

	must(out && !pipe(ends), "pipe");
	for (long n = 0; n < count; n++) {
		pid_t pid = fork();

		if (!pid) {
			char byte;

			close(ends[1]);
			become_user();
			/* Recognised by its length. */
			read(ends[0], &byte, 1);
			_exit(0);
		}
		fprintf(out, "%d\n", pid);
	}
	fclose(out);
	sleep(600);
	return 0;
}

static char racing[64] = "/tmp/there";
static atomic_int racing_on = 1;

/* The name stays as it is for a moment: QEMU on one thread changes the processor at jumps only. */
static void pause_for(int turns)
{
	while (turns--)
		__asm__ volatile("" ::: "memory");
}

static void *rewrite(void *unused)
{
	while (racing_on) {
		memcpy(racing + 5, "there", 5);
		pause_for(20);
		memcpy(racing + 5, "never", 5);
		pause_for(20);
	}
	return unused;
}

/* race COUNT: opens of a name that another thread rewrites: one is there, one never is */
static int race(long count)
{
	pthread_t thread;
	long there = 0;

	close(open("/tmp/there", O_CREAT | O_WRONLY, 0644));
	become_user();
	must(!pthread_create(&thread, NULL, rewrite, NULL), "thread");
	for (long n = 0; n < count; n++) {
		int fd = syscall(SYS_openat, AT_FDCWD, racing, O_RDONLY);

		there += fd >= 0;
		if (fd >= 0)
			close(fd);
		if (n % 16 == 0)
			sched_yield();
	}
	racing_on = 0;
	pthread_join(thread, NULL);
	printf("race: %ld of %ld were there\n", there, count);
	return 0;
}

/* From folder to folder, of which one is removed while it is the working one, and one may be a mount that is. */
static void *move_about(void *unused)
{
	while (racing_on) {
		mkdir("/tmp/wandered", 0755);
		must(!chdir("/tmp/wandered"), "chdir");
		pause_for(20);
		rmdir("/tmp/wandered");
		pause_for(20);
		must(!chdir("/tmp/mounted"), "chdir");
		pause_for(20);
		must(!chdir("/"), "chdir");
	}
	return unused;
}

/* wander COUNT: calls of a thread whose working folder another one changes */
static int wander(long count)
{
	pthread_t thread;

	become_user();
	must(!pthread_create(&thread, NULL, move_about, NULL), "thread");
	for (long n = 0; n < count; n++) {
		syscall(SYS_getppid);
		if (n % 16 == 0)
			sched_yield();
	}
	racing_on = 0;
	pthread_join(thread, NULL);
	return 0;
}

/* garbage SECONDS: a reader that writes everything but the truth into the tails, and leaves it there */
static int garbage(long seconds)
{
	int fd = open("/dev/graven", O_RDWR);
	struct graven_control *control = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	struct graven_consumer *pages[64];
	__u64 truth[64];
	unsigned int seed = 1, i;
	double end = now() + seconds;

	must(fd >= 0 && control != MAP_FAILED && control->ring_count <= 64, "map");
	for (i = 0; i < control->ring_count; i++) {
		pages[i] = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
				control->rings_offset + i * control->ring_stride + 4096);
		must(pages[i] != MAP_FAILED, "map a consumer page");
		truth[i] = pages[i]->tail;
	}
	while (now() < end) {
		for (i = 0; i < control->ring_count; i++) {
			__u64 wrong[] = { ~0ULL, truth[i] - 1, 1ULL << 63, rand_r(&seed), 0 };
			__u64 tail = wrong[rand_r(&seed) % 5];

			/* Whatever is possible would give room back that was not read. */
			if (tail >= truth[i] && tail < 1ULL << 31)
				tail |= 1ULL << 40;
			__atomic_store_n(&pages[i]->tail, tail, __ATOMIC_RELEASE);
		}
		ioctl(fd, GRAVEN_IOC_ADVANCED);
	}
	for (i = 0; i < control->ring_count; i++)
		__atomic_store_n(&pages[i]->tail, ~0ULL, __ATOMIC_RELEASE);
	/* What a reader may not do. */
	must(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED, "write to the control page");
	must(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, control->rings_offset + 4096) == MAP_FAILED,
	     "write to slots");
	must(mprotect(control, 4096, PROT_READ | PROT_WRITE) < 0, "write to the control page later");
	must(open("/dev/graven", O_RDWR) < 0 && errno == EBUSY, "a second reader");
	return 0;
}

static volatile sig_atomic_t caught;

static void on_signal(int signal)
{
	caught += signal == SIGALRM;
	/* A call of its own. */
	getppid();
}

static void *thread_body(void *argument)
{
	long sum = 0;

	for (int n = 0; n < 2000; n++)
		sum += syscall(SYS_getppid) == getppid();
	*(long *)argument = sum;
	return NULL;
}

static void *exec_from_thread(void *unused)
{
	execl("/proc/self/exe", "load", "ended", "well", (char *)NULL);
	return unused;
}

static long i386_getpid(void)
{
	long result;

	__asm__ volatile("int $0x80" : "=a"(result) : "0"(20L) : "memory", "r8", "r9", "r10", "r11");
	return result;
}

/* How a child ends that does this. */
static int end_of(void (*body)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		body();
		_exit(7);
	}
	must(waitpid(pid, &status, 0) == pid, "waitpid");
	return status;
}

static void exec_well(void)
{
	execl("/proc/self/exe", "load", "ended", "well", (char *)NULL);
}

static void exec_thread(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, exec_from_thread, NULL);
	pthread_join(thread, NULL);
}

static void killed(void)
{
	kill(getpid(), SIGKILL);
}

static void abandoned(void)
{
	syscall(SYS_exit_group, 33);
}

static void traced(void)
{
	ptrace(PTRACE_TRACEME, 0, 0, 0);
	raise(SIGSTOP);
	for (int n = 0; n < 200; n++)
		syscall(SYS_getppid);
	_exit(11);
}

/* Stops of a child that is traced call by call; its results must be its parent's id. */
static long trace(void)
{
	long wrong = 0;
	int status;
	pid_t pid = fork();

	if (!pid)
		traced();
	must(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "traced");
	ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD);
	for (;;) {
		ptrace(PTRACE_SYSCALL, pid, 0, 0);
		must(waitpid(pid, &status, 0) == pid, "waitpid");
		if (WIFEXITED(status))
			return wrong + WEXITSTATUS(status);
		wrong += !WIFSTOPPED(status);
	}
}

/* same: prints what programs can see of the calls they make; it must not depend on who looks */
static int same(void)
{
	struct itimerval tick = { { 0, 500 }, { 0, 500 } }, off = { { 0, 0 }, { 0, 0 } };
	struct sigaction action = { .sa_handler = on_signal };
	long sums[4], wrong = 0;
	pthread_t threads[4];
	int fds[2], n;
	char bytes[16];

	become_user();
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &tick, NULL);
	for (n = 0; n < 20000; n++) {
		wrong += syscall(SYS_getppid) != getppid();
		wrong += open("/never", O_RDONLY) != -1 || errno != ENOENT;
		wrong += close(-1) != -1 || errno != EBADF;
		wrong += open((char *)8, O_RDONLY) != -1 || errno != EFAULT;
	}
	/* Interrupted sleeps, without and with a restart. */
	for (n = 0; n < 20; n++) {
		struct timespec second = { 1, 0 };

		wrong += nanosleep(&second, NULL) != -1 || errno != EINTR;
	}
	action.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &action, NULL);
	must(!pipe(fds), "pipe");
	if (!fork()) {
		usleep(20000);
		wrong += write(fds[1], "x", 1) != 1;
		_exit(wrong != 0);
	}
	while (read(fds[0], bytes, 1) != 1)
		wrong++;
	setitimer(ITIMER_REAL, &off, NULL);
	printf("signals %d, wrong %ld\n", caught > 10, wrong);
	wait_for_all();

	for (n = 0; n < 4; n++)
		must(!pthread_create(&threads[n], NULL, thread_body, &sums[n]), "thread");
	for (n = 0; n < 4; n++)
		pthread_join(threads[n], NULL);
	printf("threads %ld %ld %ld %ld\n", sums[0], sums[1], sums[2], sums[3]);

	for (n = 0; n < 50; n++) {
		wrong += end_of(exec_well) != 5 << 8;
		wrong += end_of(abandoned) != 33 << 8;
		wrong += end_of(killed) != SIGKILL;
		wrong += end_of(exec_thread) != 5 << 8;
		if (!vfork())
			_exit(0);
		wait(NULL);
	}
	printf("children %ld\n", wrong);
	for (n = 0; n < 1000; n++)
		wrong += i386_getpid() != getpid();
	printf("int 0x80 %ld\n", wrong);
	printf("traced %ld\n", trace());
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (!fork()) {
		prctl(PR_SET_SECCOMP, 1, 0, 0, 0);
		syscall(SYS_getppid);
		_exit(0);
	}
	wait(&n);
	printf("seccomp %d\n", WIFSIGNALED(n) ? WTERMSIG(n) : -1);
	return 0;
}

/* tour: one call of each kind whose record is looked at */
static void say_inode(const char *name)
{
	struct stat seen;

	must(!lstat(name, &seen), name);
	printf("inode %s %lu %o\n", name, (unsigned long)seen.st_ino, seen.st_mode);
}

/* What is made and looked at, here and in another folder. */
static void look_around(void)
{
	struct statx seen;
	char text[8];

	mkdir("folder", 0710);
	mknod("pipe", S_IFIFO | 0600, 0);
	mknod("plain", S_IFREG | 0601, 0);
	symlink("text", "symlinked");
	mkdir("/mnt/open/folder", 0711);
	mknod("/mnt/open/pipe", S_IFIFO | 0602, 0);
	symlink("folder", "/mnt/open/symlinked");
	/* It is there already. */
	close(open("plain", O_CREAT | O_WRONLY, 0640));
	mkdir("folder", 0700);
	statx(AT_FDCWD, "folder", 0, STATX_INO, &seen);
	access("pipe", R_OK);
	access("pipe", X_OK);
	access("missing", R_OK);
	readlink("symlinked", text, sizeof(text));
	/* Through a link to what it leads to. */
	statx(AT_FDCWD, "/mnt/open/symlinked", 0, STATX_INO, &seen);
	getxattr("plain", "user.none", text, sizeof(text));
	listxattr("/mnt/open/folder", text, sizeof(text));
	chdir("folder");
	chdir("..");
	say_inode("folder");
	say_inode("pipe");
	say_inode("plain");
	say_inode("symlinked");
	say_inode("/mnt/open/folder");
	say_inode("/mnt/open/pipe");
	say_inode("/mnt/open/symlinked");
}

static int tour(void)
{
	struct sockaddr_un address = { AF_UNIX, "/tmp/nobody" };
	char *long_one = malloc(20001);
	int fd;

	umask(0);
	become_user();
	mkdir("/tmp/tour", 0755);
	chdir("/tmp/tour");
	fd = open("made", O_CREAT | O_WRONLY, 0640);
	close(fd);
	rename("made", "moved");
	link("moved", "second");
	symlink("text", "symbolic");
	chmod("moved", 0600);
	renameat(AT_FDCWD, "symbolic", AT_FDCWD, "/tmp/tour/renamed");
	unlink("second");
	look_around();
	open((char *)8, O_RDONLY);
	open("/tmp/tour/missing", O_RDONLY);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	connect(fd, (struct sockaddr *)&address, sizeof(address));
	syscall(SYS_io_uring_setup, 1, NULL);
	execl("/bin/missing", "missing", "one", "two", (char *)NULL);
	memset(long_one, 'x', 20000);
	long_one[20000] = 0;
	execl("/proc/self/exe", "load", "ended", long_one, "last", (char *)NULL);
	return 1;
}

int main(int count, char **words)
{
	const char *what = count > 1 ? words[1] : "";
	long first = count > 2 ? atol(words[2]) : 0, second = count > 3 ? atol(words[3]) : 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(what, "calls"))
		return calls(first, second, count > 4 ? atol(words[4]) : 0);
	if (!strcmp(what, "opens"))
		return opens(first, second);
	if (!strcmp(what, "user") && count > 2)
		return user(words + 2);
	if (!strcmp(what, "sleepers"))
		return sleepers(first, words[3]);
	if (!strcmp(what, "race"))
		return race(first);
	if (!strcmp(what, "wander"))
		return wander(first);
	if (!strcmp(what, "garbage"))
		return garbage(first);
	if (!strcmp(what, "same"))
		return same();
	if (!strcmp(what, "tour"))
		return tour();
	/* What the others execute. */
	return strcmp(what, "ended") ? 2 : 5;
}
