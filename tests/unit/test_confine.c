/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The monitor's jail as code inside it would find it: a child takes every fence on (empty root, own user, no
 * capability, Landlock, the thread's filter) and then tries what an intruder would. Needs root; skipped otherwise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/confine.h"
#include "vmm/jail.h"

#define ALIVE 42 /* the exit status of a child that could do what it tried */

enum fence { WITHOUT_FILTER, WITH_FILTER };

/* Return: the child's wait status after @crime in the jail. */
static int in_jail(enum confine_kind kind, enum fence fence, void (*crime)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct err err = ERR_INIT;

		if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC) < 0 || jail_root(NULL, 0, &err) < 0 ||
		    jail_limits(64, 0, &err) < 0 || jail_drop(65534, 65534, &err) < 0 || confine_files(&err) < 0 ||
		    (fence == WITH_FILTER && confine_thread(kind, &err) < 0)) {
			(void)fprintf(stderr, "%s\n", err.msg);
			_exit(1);
		}
		crime();
		_exit(ALIVE);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void nothing(void)
{
}
static void open_file(void)
{
	if (syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY, 0) < 0)
		_exit(errno);
}
static void make_file(void)
{
	if (syscall(SYS_openat, AT_FDCWD, "/x", O_RDWR | O_CREAT, 0600) < 0)
		_exit(errno);
}
static void make_socket(void)
{
	if (syscall(SYS_socket, AF_INET, SOCK_STREAM, 0) < 0)
		_exit(errno);
}
static void trace_parent(void)
{
	if (syscall(SYS_ptrace, PTRACE_ATTACH, getppid(), 0, 0) < 0)
		_exit(errno);
}
static void execute(void)
{
	char *none[] = { NULL };

	if (syscall(SYS_execve, "/proc/self/exe", none, none) < 0)
		_exit(errno);
}
static void start_process(void)
{
	if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) < 0)
		_exit(errno);
}
static void map_code(void)
{
	if (syscall(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) < 0)
		_exit(errno);
}
static void make_executable(void)
{
	static char page[8192];

	if (syscall(SYS_mprotect, ((uintptr_t)page + 4095) & ~4095UL, 4096, PROT_READ | PROT_EXEC) < 0)
		_exit(errno);
}
static void kill_all(void)
{
	if (syscall(SYS_kill, -1, 0) < 0)
		_exit(errno);
}
static void become_root(void)
{
	if (syscall(SYS_setresuid, 0, 0, 0) < 0)
		_exit(errno);
}
static void other_ioctl(void)
{
	if (syscall(SYS_ioctl, 0, TIOCSTI, "x") < 0)
		_exit(errno);
}
static void mount_something(void)
{
	if (syscall(SYS_mount, "proc", "/", "proc", 0, NULL) < 0)
		_exit(errno);
}

static const struct {
	const char *what;
	void (*crime)(void);
	bool other_fence; /* must fail without the filter too */
} crimes[] = {
	{ "open", open_file, true },      { "create", make_file, true },
	{ "socket", make_socket, false }, { "ptrace", trace_parent, true },
	{ "exec", execute, true },        { "fork", start_process, false },
	{ "map code", map_code, false },  { "mprotect", make_executable, false },
	{ "kill", kill_all, false },      { "setuid", become_root, true },
	{ "ioctl", other_ioctl, false },  { "mount", mount_something, true },
};

static void test_filter_ends_intruders(void **state)
{
#ifdef __SANITIZE_ADDRESS__
	skip(); /* the sanitizer's own exit makes system calls that the filter ends */
#endif
	if (geteuid() != 0)
		skip();
	for (enum confine_kind kind = 0; kind < CONFINE_KINDS; kind++) {
		assert_int_equal(WEXITSTATUS(in_jail(kind, WITH_FILTER, nothing)), ALIVE);
		for (size_t i = 0; i < sizeof(crimes) / sizeof(crimes[0]); i++) {
			int status = in_jail(kind, WITH_FILTER, crimes[i].crime);

			if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
				fail_msg("kind %d: %s was not ended by the filter (status %#x)", (int)kind,
					 crimes[i].what, (unsigned int)status);
		}
	}
}

/* The fences behind the filter hold by themselves. */
static void test_without_filter(void **state)
{
	if (geteuid() != 0)
		skip();
	for (size_t i = 0; i < sizeof(crimes) / sizeof(crimes[0]); i++) {
		int status;

		if (!crimes[i].other_fence)
			continue;
		status = in_jail(CONFINE_DEVICES, WITHOUT_FILTER, crimes[i].crime);
		if (WIFEXITED(status) && WEXITSTATUS(status) == ALIVE)
			fail_msg("%s was possible without the filter", crimes[i].what);
	}
}

static void test_lists_are_short(void **state)
{
	assert_true(confine_count(CONFINE_DEVICES) <= 35);
	assert_true(confine_count(CONFINE_DISKS) <= 35);
	assert_true(confine_count(CONFINE_VCPU) <= 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_filter_ends_intruders),
		cmocka_unit_test(test_without_filter),
		cmocka_unit_test(test_lists_are_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
