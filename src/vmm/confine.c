/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System call filters as classic BPF (Documentation/userspace-api/seccomp_filter.rst), written
 * directly: the lists are short and fixed, and compiling them at each start would cost milliseconds.
 * Beside each call stands what needs it.
 */
#include "vmm/confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

#define VALUES_MAX 4

enum check { ANY, ARG_IS, ARG_LACKS };

struct rule {
	uint16_t nr;
	uint8_t check, arg;
	uint32_t values[VALUES_MAX]; /* ARG_IS: one of those that are not 0; ARG_LACKS: none of the bits of the first */
};

#define NO_EXEC(call)               \
	{                           \
		call, ARG_LACKS, 2, \
		{                   \
			PROT_EXEC   \
		}                   \
	}

static const struct rule devices[] = {
	{ .nr = SYS_epoll_wait },                   /* the loop */
	{ .nr = SYS_epoll_ctl },                    /* the loop: connections come and go */
	{ .nr = SYS_read },                         /* eventfds, vhost-user messages */
	{ .nr = SYS_write },                        /* eventfds, the log */
	{ .nr = SYS_pread64 },                      /* KVM's counters */
	{ .nr = SYS_readv },                        /* vsock: a socket's bytes into guest memory */
	{ .nr = SYS_sendmsg },                      /* vsock: guest memory to a socket; descriptors to the shim */
	{ .nr = SYS_recvmsg },                      /* vhost-user: descriptors */
	{ .nr = SYS_sendto },                       /* vsock: buffered bytes; console */
	{ .nr = SYS_recvfrom },                     /* control */
	{ .nr = SYS_shutdown },                     /* vsock: half-close */
	{ .nr = SYS_close },                        /* vsock */
	{ SYS_socketpair, ARG_IS, 0, { AF_UNIX } }, /* vsock: a new connection */
	{ .nr = SYS_fcntl },                        /* vsock: non-blocking */
	{ .nr = SYS_newfstatat },                   /* vhost-user: the size of guest memory (fstat) */
	NO_EXEC(SYS_mmap),                          /* vhost-user: guest memory; malloc */
	NO_EXEC(SYS_mprotect),                      /* malloc */
	{ .nr = SYS_munmap },                       /* the same */
	{ .nr = SYS_mremap },                       /* realloc */
	{ .nr = SYS_brk },                          /* malloc */
	{ .nr = SYS_madvise },                      /* balloon; malloc */
	{ .nr = SYS_futex },                        /* between threads */
	{ .nr = SYS_getrandom },                    /* rng */
	{ .nr = SYS_clock_gettime },                /* timers, the log, where the vDSO cannot */
	{ .nr = SYS_tgkill },                       /* a processor's thread comes out of the guest */
	{ SYS_ioctl, ARG_IS, 1, { KVM_GET_REGS, KVM_GET_SREGS } }, /* a dump */
	{ .nr = SYS_rt_sigprocmask },                              /* abort */
	{ .nr = SYS_rt_sigreturn },
	{ .nr = SYS_exit_group },
};

static const struct rule disks[] = {
	{ .nr = SYS_epoll_wait },    { .nr = SYS_epoll_ctl },      { .nr = SYS_read },
	{ .nr = SYS_write },         { .nr = SYS_preadv },         { .nr = SYS_pwritev },
	{ .nr = SYS_pwrite64 },  /* zeros */
	{ .nr = SYS_fallocate }, /* discard, write zeroes */
	{ .nr = SYS_fdatasync }, /* flush */
	{ .nr = SYS_recvmsg },   /* vhost-user */
	{ .nr = SYS_close },         { .nr = SYS_fcntl },          { .nr = SYS_newfstatat },
	NO_EXEC(SYS_mmap),           NO_EXEC(SYS_mprotect),        { .nr = SYS_munmap },
	{ .nr = SYS_brk },           { .nr = SYS_madvise },        { .nr = SYS_futex },
	{ .nr = SYS_clock_gettime }, { .nr = SYS_rt_sigprocmask }, { .nr = SYS_rt_sigreturn },
	{ .nr = SYS_exit_group },
};

static const struct rule vcpu[] = {
	{ SYS_ioctl, ARG_IS, 1, { KVM_RUN, KVM_GET_REGS, KVM_KVMCLOCK_CTRL } },
	{ .nr = SYS_write },         /* eventfds: notifications, the end; the log */
	{ .nr = SYS_futex },         /* rest; wait for a device's thread */
	{ .nr = SYS_sendto },        /* serial console */
	{ .nr = SYS_clock_gettime }, /* its rate limit */
	{ .nr = SYS_rt_sigreturn },  /* out of the guest */
	{ .nr = SYS_exit_group },
};

static const struct {
	const struct rule *rules;
	unsigned int count;
} lists[CONFINE_KINDS] = {
	[CONFINE_DEVICES] = { devices, ARRAY_LEN(devices) },
	[CONFINE_DISKS] = { disks, ARRAY_LEN(disks) },
	[CONFINE_VCPU] = { vcpu, ARRAY_LEN(vcpu) },
};

#define ALLOW       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define KILL        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(field))
#define PROGRAM_MAX 256

struct program {
	struct sock_filter code[PROGRAM_MAX];
	unsigned short len;
};

static void emit(struct program *p, struct sock_filter instruction)
{
	bug_on(p->len == PROGRAM_MAX);
	p->code[p->len++] = instruction;
}

/* A rule ends the program when its number matches, one way or the other. Arguments: the low half, little endian. */
static void emit_rule(struct program *p, const struct rule *r)
{
	unsigned short jump = p->len;

	emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, r->nr, 0, 0));
	if (r->check != ANY)
		emit(p, (struct sock_filter)LOAD(offsetof(struct seccomp_data, args) + 8U * r->arg));
	if (r->check == ARG_LACKS) {
		emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, r->values[0], 0, 1));
		emit(p, (struct sock_filter)KILL);
	}
	for (unsigned int i = 0; r->check == ARG_IS && i < VALUES_MAX && r->values[i]; i++) {
		emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, r->values[i], 0, 1));
		emit(p, (struct sock_filter)ALLOW);
	}
	if (r->check == ARG_IS)
		emit(p, (struct sock_filter)KILL);
	else
		emit(p, (struct sock_filter)ALLOW);
	p->code[jump].jf = (uint8_t)(p->len - jump - 1);
}

int confine_thread(enum confine_kind kind, struct err *err)
{
	struct program p = { .len = 0 };
	struct sock_fprog prog;

	emit(&p, (struct sock_filter)LOAD(offsetof(struct seccomp_data, arch)));
	emit(&p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0));
	emit(&p, (struct sock_filter)KILL);
	emit(&p, (struct sock_filter)LOAD(offsetof(struct seccomp_data, nr)));
	for (unsigned int i = 0; i < lists[kind].count; i++)
		emit_rule(&p, &lists[kind].rules[i]);
	emit(&p, (struct sock_filter)KILL);
	prog = (struct sock_fprog){ .len = p.len, .filter = p.code };
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
		return err_sys(err, errno, "jail: system call filter");
	return 0;
}

unsigned int confine_count(enum confine_kind kind)
{
	return lists[kind].count;
}

int confine_files(struct err *err)
{
	/* ABI 1: all that a file system offers, and no rule that allows any. */
	const struct landlock_ruleset_attr all = { .handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1 };
	CLEAN_FD int fd = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);

	if (fd < 0 && (errno == ENOSYS || errno == EOPNOTSUPP))
		return 0;
	if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		return err_sys(err, errno, "jail: Landlock");
	return 0;
}
