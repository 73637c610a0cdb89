/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What code that took over a worker could do: the program enters the worker's
 * sandbox as walnut-worker does, then tries to leave it in every way at hand.
 * "worker_escape" runs itself for both kinds of sandbox; needs root and no sanitizer, else it is skipped (77).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/sandbox.h"

static int failures;

static void must_fail(const char *what, long rc)
{
	if (rc >= 0) {
		(void)fprintf(stderr, "worker_escape: %s worked\n", what);
		failures++;
	}
}

static void files(void)
{
	static const char *const paths[] = { "/etc/passwd",    "../../../../etc/passwd",
					     "/proc/self/mem", "/proc/1/root/etc",
					     "/dev/null",      "/sys",
					     "/var",           "/proc/self/ns/net" };
	struct stat st;

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		must_fail(paths[i], open(paths[i], O_RDONLY));
		must_fail(paths[i], stat(paths[i], &st));
	}
	/* No descriptor but the ones it was given. */
	for (int fd = 4; fd < 1024; fd++)
		must_fail("fstat of a descriptor that was left open", fstat(fd, &st));
	must_fail("mkdir", mkdir("d", 0700));
	must_fail("symlink", symlink("/etc/passwd", "l"));
	must_fail("link", link("inside", "other"));
	must_fail("chroot", chroot("."));
	must_fail("chmod", chmod("inside", 04777));
	must_fail("mknod", mknod("n", S_IFCHR | 0666, 0));
	must_fail("mount", mount("none", "/", "tmpfs", 0, NULL));
	must_fail("umount", umount2("/", MNT_DETACH));
	must_fail("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, NULL, 0));
	must_fail("openat2", syscall(SYS_openat2, AT_FDCWD, "inside", NULL, 0));
	must_fail("io_uring_setup", syscall(SYS_io_uring_setup, 1, NULL));
	must_fail("memfd_create", syscall(SYS_memfd_create, "m", 0));
}

static void processes(void)
{
	char *const argv[] = { (char *)"inside", NULL };
	char byte;
	struct iovec local = { &byte, 1 }, remote = { &byte, 1 };

	must_fail("execve", execve("/inside", argv, NULL));
	must_fail("execveat", syscall(SYS_execveat, AT_FDCWD, "/inside", argv, NULL, 0));
	must_fail("fork", syscall(SYS_fork));
	must_fail("vfork", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
	must_fail("clone3", syscall(SYS_clone3, NULL, 0));
	must_fail("ptrace", ptrace(PTRACE_TRACEME, 0, NULL, NULL));
	must_fail("ptrace of the parent", ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
	must_fail("kill", syscall(SYS_kill, 1, 0));
	must_fail("pidfd_open", syscall(SYS_pidfd_open, 1, 0));
	must_fail("process_vm_readv", process_vm_readv(1, &local, 1, &remote, 1, 0));
	must_fail("prctl", prctl(PR_SET_DUMPABLE, 1));
	must_fail("setuid", setuid(0));
	must_fail("setresuid", setresuid(0, 0, 0));
	must_fail("setns", setns(0, CLONE_NEWNET));
	must_fail("unshare", unshare(CLONE_NEWUSER));
	must_fail("bpf", syscall(SYS_bpf, BPF_PROG_LOAD, NULL, 0));
	must_fail("perf_event_open", syscall(SYS_perf_event_open, NULL, 0, 0, -1, 0));
	must_fail("keyctl", syscall(SYS_keyctl, 0, 0, 0, 0, 0));
	must_fail("userfaultfd", syscall(SYS_userfaultfd, 0));
	must_fail("init_module", syscall(SYS_init_module, NULL, 0, ""));
	must_fail("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
}

static void network(void)
{
	must_fail("a socket of IPv4", socket(AF_INET, SOCK_STREAM, 0));
	must_fail("a socket of IPv6", socket(AF_INET6, SOCK_DGRAM, 0));
	must_fail("a unix socket", socket(AF_UNIX, SOCK_STREAM, 0));
	must_fail("a netlink socket", socket(AF_NETLINK, SOCK_RAW, 0));
	must_fail("a packet socket", socket(AF_PACKET, SOCK_RAW, 0));
}

static int inside(enum sandbox_kind kind)
{
	char dir[] = "/tmp/worker-escape-XXXXXX";
	struct err err = ERR_INIT;
	int fd;

	if (!mkdtemp(dir) || (fd = open(dir, O_RDONLY | O_DIRECTORY)) < 0 || fchown(fd, 65534, 65534) < 0)
		return 1;
	(void)close(openat(fd, "inside", O_WRONLY | O_CREAT, 0755));
	if (close_range(6, ~0U, 0) < 0 || dup2(fd, 4) != 4 || (fd != 4 && close(fd) < 0) || close_range(5, ~0U, 0) < 0)
		return 1;
	/* The folder goes before the fence is up; an unlinked folder can still be a root. */
	(void)unlinkat(4, "inside", 0);
	(void)rmdir(dir);
	if (sandbox_enter(kind, 4, 65534, 65534, &err) < 0) {
		(void)fprintf(stderr, "worker_escape: %s\n", err.msg);
		return 1;
	}
	if (kind == SANDBOX_FILES)
		network();
	files();
	processes();
	return failures != 0;
}

int main(void)
{
	int bad = 0;

#ifdef __SANITIZE_ADDRESS__
	return 77; /* the sanitizer's shadow is larger than the address space that the sandbox allows */
#endif
	if (geteuid() != 0)
		return 77;
	for (int kind = SANDBOX_FILES; kind <= SANDBOX_NETWORK; kind++) {
		int status = -1;
		pid_t pid = fork();

		if (pid == 0)
			_exit(inside((enum sandbox_kind)kind));
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
			(void)fprintf(stderr, "worker_escape: sandbox %d: status %x\n", kind, (unsigned)status);
			bad = 1;
		}
	}
	return bad;
}
