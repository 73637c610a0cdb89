/* SPDX-License-Identifier: Apache-2.0 */
/* The default seccomp filter, compiled with libseccomp. */
#include "container/seccomp_profile.h"

#include <errno.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define BPF_MAX (1U << 20)

/* clone(2) may not make these namespaces without CAP_SYS_ADMIN. */
#define CLONE_NAMESPACES \
	(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP)

static const char allowed[] =
	"accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 "
	"clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 "
	"clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 "
	"epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old "
	"eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate "
	"fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr "
	"flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate "
	"ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat getcpu getcwd "
	"getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer "
	"getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid "
	"getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid "
	"gettimeofday getuid getuid32 getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch "
	"io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup "
	"io_submit ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 "
	"lgetxattr link linkat listen listxattr llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 "
	"madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock "
	"mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive "
	"mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap msgctl msgget msgrcv msgsnd "
	"msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat openat2 "
	"pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 "
	"prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev "
	"pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg "
	"remap_file_pages removexattr rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction "
	"rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait "
	"rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam "
	"sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval "
	"sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler "
	"sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 "
	"sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 "
	"setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid "
	"setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 "
	"setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn "
	"socketcall socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat sync "
	"sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime "
	"timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 "
	"timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat "
	"utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev "
	"arch_prctl modify_ldt ptrace process_vm_readv process_vm_writev ";

static const struct {
	int cap;
	const char *calls;
} with_capability[] = {
	{ CAP_DAC_READ_SEARCH, "open_by_handle_at " },
	{ CAP_SYS_ADMIN, "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount "
			 "mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname "
			 "sethostname setns syslog umount umount2 unshare " },
	{ CAP_SYS_BOOT, "reboot " },
	{ CAP_SYS_CHROOT, "chroot " },
	{ CAP_SYS_MODULE, "delete_module init_module finit_module " },
	{ CAP_SYS_PACCT, "acct " },
	{ CAP_SYS_PTRACE, "kcmp pidfd_getfd process_madvise " },
	{ CAP_SYS_RAWIO, "iopl ioperm " },
	{ CAP_SYS_TIME, "settimeofday stime clock_settime clock_settime64 " },
	{ CAP_SYS_TTY_CONFIG, "vhangup " },
	{ CAP_SYS_NICE, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node " },
	{ CAP_SYSLOG, "syslog " },
	{ CAP_BPF, "bpf " },
	{ CAP_PERFMON, "perf_event_open " },
};

static void release_filter(scmp_filter_ctx *f)
{
	if (*f)
		seccomp_release(*f);
}

/* Allows each call named in @names; a name that this libseccomp or this machine does not have is passed over. */
static int allow_names(scmp_filter_ctx f, const char *names)
{
	char name[64];
	size_t n;
	int nr, rc;

	for (; *names; names += n + 1) {
		n = strcspn(names, " ");
		bug_on(n >= sizeof(name));
		memcpy(name, names, n);
		name[n] = '\0';
		nr = seccomp_syscall_resolve_name(name);
		if (nr == __NR_SCMP_ERROR || nr < 0)
			continue;
		rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, nr, 0);
		if (rc < 0 && rc != -EEXIST)
			return rc;
	}
	return 0;
}

/* Calls allowed only with certain arguments. */
static int allow_by_argument(scmp_filter_ctx f, uint64_t caps)
{
	static const uint32_t personalities[] = { 0x0, 0x8, 0x20000, 0x20008, 0xffffffff };
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(personalities) && !rc; i++)
		rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(personality), 1,
				      SCMP_A0_64(SCMP_CMP_EQ, personalities[i]));
	/* AF_VSOCK reaches the host or the hypervisor past all networks. */
	if (!rc)
		rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0_64(SCMP_CMP_NE, 40));
	if (rc || caps & 1ULL << CAP_SYS_ADMIN)
		return rc;
	rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
			      SCMP_A0_64(SCMP_CMP_MASKED_EQ, CLONE_NAMESPACES, 0));
	/* clone3's flags lie in memory: ENOSYS makes libc fall back to clone. */
	if (!rc)
		rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	return rc;
}

static int export_bpf(scmp_filter_ctx f, void **bpf, size_t *len, struct err *err)
{
	CLEAN_FD int fd = memfd_create("seccomp", MFD_CLOEXEC);
	CLEAN_FREE void *bytes = NULL;
	struct stat st;
	int rc;

	if (fd < 0)
		return err_sys(err, errno, "compile the seccomp filter");
	rc = seccomp_export_bpf(f, fd);
	if (rc < 0)
		return err_sys(err, -rc, "compile the seccomp filter");
	if (fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > BPF_MAX)
		return err_set(err, EINVAL, "the compiled seccomp filter has a wrong size");
	bytes = malloc((size_t)st.st_size);
	if (!bytes)
		return err_sys(err, ENOMEM, "compile the seccomp filter");
	if (pread(fd, bytes, (size_t)st.st_size, 0) != st.st_size)
		return err_set(err, EIO, "the compiled seccomp filter could not be read");
	*bpf = take_ptr(bytes);
	*len = (size_t)st.st_size;
	return 0;
}

int seccomp_default_bpf(uint64_t caps, void **bpf, size_t *len, struct err *err)
{
	CLEAN(release_filter) scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int rc;

	if (!f)
		return err_sys(err, ENOMEM, "compile the seccomp filter");
	/* A binary tree of the calls instead of a list: fewer instructions for each call. */
	rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (!rc)
		rc = allow_names(f, allowed);
	for (size_t i = 0; i < ARRAY_LEN(with_capability) && !rc; i++)
		if (caps & 1ULL << with_capability[i].cap)
			rc = allow_names(f, with_capability[i].calls);
	if (!rc)
		rc = allow_by_argument(f, caps);
	if (rc < 0)
		return err_sys(err, -rc, "compile the seccomp filter");
	return export_bpf(f, bpf, len, err);
}
