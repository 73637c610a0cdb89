/* SPDX-License-Identifier: Apache-2.0 */
/* chroot into one folder, no privileges, no capabilities, no network (or no files), a list of system calls (seccomp(2)). */
#include "image/sandbox.h"

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"

static int limit(int what, uint64_t value)
{
	struct rlimit r = { value, value };

	return setrlimit((__rlimit_resource_t)what, &r);
}

/* What reading, converting and writing needs. */
static const int common[] = {
	SCMP_SYS(read),           SCMP_SYS(write),      SCMP_SYS(pread64),
	SCMP_SYS(pwrite64),       SCMP_SYS(lseek),      SCMP_SYS(close),
	SCMP_SYS(openat),         SCMP_SYS(open),       SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),     SCMP_SYS(ftruncate),  SCMP_SYS(mmap),
	SCMP_SYS(munmap),         SCMP_SYS(mremap),     SCMP_SYS(mprotect),
	SCMP_SYS(madvise),        SCMP_SYS(brk),        SCMP_SYS(futex),
	SCMP_SYS(exit),           SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask), SCMP_SYS(getrandom),  SCMP_SYS(clock_gettime),
	SCMP_SYS(poll),           SCMP_SYS(getpid),     SCMP_SYS(gettid),
	SCMP_SYS(tgkill),         SCMP_SYS(fsync),      SCMP_SYS(tee),
};

/* What libcurl, its TLS library and the C library's resolver need besides. */
static const int network[] = {
	SCMP_SYS(socket),       SCMP_SYS(connect),
	SCMP_SYS(sendto),       SCMP_SYS(recvfrom),
	SCMP_SYS(sendmsg),      SCMP_SYS(recvmsg),
	SCMP_SYS(sendmmsg),     SCMP_SYS(bind),
	SCMP_SYS(getsockname),  SCMP_SYS(getpeername),
	SCMP_SYS(setsockopt),   SCMP_SYS(getsockopt),
	SCMP_SYS(shutdown),     SCMP_SYS(socketpair),
	SCMP_SYS(pipe),         SCMP_SYS(pipe2),
	SCMP_SYS(fcntl),        SCMP_SYS(ioctl),
	SCMP_SYS(ppoll),        SCMP_SYS(select),
	SCMP_SYS(pselect6),     SCMP_SYS(epoll_create1),
	SCMP_SYS(epoll_ctl),    SCMP_SYS(epoll_wait),
	SCMP_SYS(eventfd2),     SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),         SCMP_SYS(rt_sigaction),
	SCMP_SYS(access),       SCMP_SYS(faccessat),
	SCMP_SYS(stat),         SCMP_SYS(lstat),
	SCMP_SYS(uname),        SCMP_SYS(sysinfo),
	SCMP_SYS(nanosleep),    SCMP_SYS(clock_nanosleep),
	SCMP_SYS(gettimeofday), SCMP_SYS(time),
	SCMP_SYS(readv),        SCMP_SYS(writev),
	SCMP_SYS(sched_yield),  SCMP_SYS(prlimit64),
	SCMP_SYS(getuid),       SCMP_SYS(geteuid),
	SCMP_SYS(getgid),       SCMP_SYS(getegid),
	SCMP_SYS(readlink),     SCMP_SYS(dup),
	SCMP_SYS(getdents64),   SCMP_SYS(sched_getaffinity),
	SCMP_SYS(statfs),
};

static int filter(enum sandbox_kind kind, struct err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int rc = ctx ? 0 : -ENOMEM;

	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(common); i++)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, common[i], 0);
	for (size_t i = 0; rc == 0 && kind == SANDBOX_NETWORK && i < ARRAY_LEN(network); i++)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, network[i], 0);
	/* clone3's flags cannot be looked at (they are in memory), clone's can: the C library falls back to it. */
	if (rc == 0 && kind == SANDBOX_NETWORK)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				      SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM));
	if (rc == 0 && kind == SANDBOX_NETWORK)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	if (rc == 0)
		rc = seccomp_load(ctx);
	if (ctx)
		seccomp_release(ctx);
	return rc < 0 ? err_sys(err, -rc, "walnut-worker: cannot load its seccomp filter") : 0;
}

int sandbox_enter(enum sandbox_kind kind, int dir, uid_t uid, gid_t gid, struct err *err)
{
	int spaces = CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | (kind == SANDBOX_FILES ? CLONE_NEWNET : 0);

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_sys(err, errno, "walnut-worker: cannot enter its sandbox");
	if (unshare(spaces) < 0)
		return err_sys(err, errno, "walnut-worker: cannot leave the network");
	if (fchdir(dir) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return err_sys(err, errno, "walnut-worker: cannot change its root");
	(void)close(dir);
	for (int cap = 0; cap < 64; cap++)
		(void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0 || getuid() == 0)
		return err_sys(err, errno, "walnut-worker: cannot drop its privileges");
	/* The change of uid cleared the death signal. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)prctl(PR_SET_DUMPABLE, 0);
	/* Processes are counted by uid over all workers: threads of a resolver are only limited in number. */
	if (limit(RLIMIT_NPROC, kind == SANDBOX_FILES ? 0 : 256) < 0 || limit(RLIMIT_CORE, 0) < 0 ||
	    limit(RLIMIT_NOFILE, 64) < 0 || limit(RLIMIT_AS, 4ULL << 30) < 0)
		return err_sys(err, errno, "walnut-worker: cannot limit itself");
	return filter(kind, err);
}
