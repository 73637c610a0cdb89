/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walnut-vmm devices: the virtio devices of one machine, in a process that has
 * nothing but the descriptors it was started with: the vhost-user sockets, the
 * disks' files, and the control socket to the shim (devctl.h). Two threads, each with a loop
 * of its own and nothing shared: disks, whose requests block, and everything else. It ends when the machine or the shim closes its socket.
 */
#include "vmm/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "virtio/blk.h"
#include "virtio/vhost_user.h"
#include "virtio/vsock.h"
#include "vmm/devctl.h"
#include "vmm/jail.h"

struct devices {
	struct loop *loop, *disk_loop;
	pthread_barrier_t disks_run;
	uid_t uid;
	gid_t gid;
	int control, vsock_fd, layers_fd, scratch_fd;
	struct vsock *vsock;
	struct blk layers, scratch;
	struct vu_device vu_vsock, vu_layers, vu_scratch;
};

/* From either thread: the machine is over, and the kernel frees everything. */
static void gone(struct vu_device *d)
{
	_exit(0);
}

static int accepted(void *arg, uint32_t port, int fd)
{
	struct devices *d = arg;
	struct devctl_packet p = { .type = DEVCTL_ACCEPTED, .port = port };
	ssize_t n = fd_send(d->control, &p, sizeof(p), &fd, 1);

	(void)close(fd);
	return n == (ssize_t)sizeof(p) ? 0 : -EAGAIN;
}

static void on_control(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct devices *d = arg;
	struct devctl_packet p;
	ssize_t n = recv(fd, &p, sizeof(p), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != (ssize_t)sizeof(p)) {
		loop_stop(l);
		return;
	}
	if (p.type == DEVCTL_LISTEN && vsock_listen(d->vsock, p.port) == -ENOSPC)
		log_error("devices: too many vsock ports");
	if (p.type == DEVCTL_UNLISTEN && vsock_unlisten(d->vsock, p.port) < 0)
		log_debug("devices: port %u was not listened to", p.port);
}

static int add_file(struct blk *b, int fd, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "a disk's descriptor is not a regular file");
	return blk_add(b, fd, (uint64_t)st.st_size, err);
}

static bool option(const char *arg, const char *name, int *value)
{
	size_t n = strlen(name);

	if (strncmp(arg, name, n) != 0 || arg[n] != '=')
		return false;
	*value = atoi(arg + n + 1);
	return true;
}

static int parse(struct devices *d, int argc, char **argv, struct err *err)
{
	for (int i = 1; i < argc; i++) {
		int value = -1, rc = 0;

		if (option(argv[i], "--uid", &value))
			d->uid = (uid_t)value;
		else if (option(argv[i], "--gid", &value))
			d->gid = (gid_t)value;
		else if (option(argv[i], "--control", &value))
			d->control = value;
		else if (option(argv[i], "--vsock", &value))
			d->vsock_fd = value;
		else if (option(argv[i], "--layers", &value))
			d->layers_fd = value;
		else if (option(argv[i], "--scratch", &value))
			d->scratch_fd = value;
		else if (option(argv[i], "--layer", &value))
			rc = add_file(&d->layers, value, err);
		else if (option(argv[i], "--scratch-file", &value))
			rc = add_file(&d->scratch, value, err);
		else
			return err_set(err, EINVAL, "unknown argument %s", argv[i]);
		if (rc < 0)
			return rc;
	}
	if (d->control < 0 || d->vsock_fd < 0 || d->uid == 0)
		return err_set(err, EINVAL, "--control, --vsock and --uid are needed");
	return 0;
}

static int serve(struct devices *d, struct err *err)
{
	struct virtio_ops ops = vsock_ops();
	int rc;

	d->loop = loop_new(err);
	d->disk_loop = d->loop ? loop_new(err) : NULL;
	if (!d->disk_loop)
		return -err->code;
	d->vsock = vsock_new(accepted, d);
	if (!d->vsock)
		return err_set(err, ENOMEM, "out of memory");
	if (!loop_add_fd(d->loop, d->control, EPOLLIN, on_control, d, err))
		return -err->code;
	rc = vu_init(&d->vu_vsock, &ops, d->vsock, d->loop, d->vsock_fd, gone, err);
	if (rc == 0 && d->layers_fd >= 0) {
		d->layers.read_only = true;
		memcpy(d->layers.serial, "walnut-layers", 13);
		ops = blk_ops(&d->layers);
		rc = vu_init(&d->vu_layers, &ops, &d->layers, d->disk_loop, d->layers_fd, gone, err);
	}
	if (rc == 0 && d->scratch_fd >= 0) {
		memcpy(d->scratch.serial, "walnut-scratch", 14);
		ops = blk_ops(&d->scratch);
		rc = vu_init(&d->vu_scratch, &ops, &d->scratch, d->disk_loop, d->scratch_fd, gone, err);
	}
	return rc;
}

static void *disks_main(void *arg)
{
	struct devices *d = arg;
	struct err err = ERR_INIT;

	(void)pthread_barrier_wait(&d->disks_run);
	if (loop_run(d->disk_loop, &err) < 0)
		log_error("devices: %s", err.msg);
	_exit(1);
}

/* A thread of its own for the disks: a slow host disk must not keep the container's output and signals waiting. */
static int start_disks(struct devices *d, struct err *err)
{
	pthread_t thread;
	int rc;

	if (d->layers_fd < 0 && d->scratch_fd < 0)
		return 0;
	rc = pthread_barrier_init(&d->disks_run, NULL, 2);
	if (!rc)
		rc = pthread_create(&thread, NULL, disks_main, d);
	/* What a thread does to begin, the filter would not let it do any more: wait for it. */
	if (!rc)
		(void)pthread_barrier_wait(&d->disks_run);
	return rc ? err_sys(err, rc, "start the disks' thread") : 0;
}

/* The system calls that serving needs, in all threads; any other ends the process. */
static int filter(struct err *err)
{
	static const int allowed[] = {
		SCMP_SYS(read),         SCMP_SYS(write),      SCMP_SYS(readv),         SCMP_SYS(preadv),
		SCMP_SYS(pwrite64),     SCMP_SYS(pwritev),    SCMP_SYS(sendmsg),       SCMP_SYS(recvmsg),
		SCMP_SYS(sendto),       SCMP_SYS(recvfrom),   SCMP_SYS(shutdown),      SCMP_SYS(close),
		SCMP_SYS(epoll_wait),   SCMP_SYS(epoll_ctl),  SCMP_SYS(newfstatat),    SCMP_SYS(fcntl),
		SCMP_SYS(fallocate),    SCMP_SYS(fdatasync),  SCMP_SYS(munmap),        SCMP_SYS(brk),
		SCMP_SYS(madvise),      SCMP_SYS(futex),      SCMP_SYS(clock_gettime), SCMP_SYS(rt_sigprocmask),
		SCMP_SYS(rt_sigreturn), SCMP_SYS(exit_group), SCMP_SYS(mremap),
	};
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int rc = ctx ? seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1) : -ENOMEM;

	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(allowed); i++)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
	if (rc == 0)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				      SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (rc == 0)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				      SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (rc == 0)
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	if (rc == 0)
		rc = seccomp_load(ctx);
	if (ctx)
		seccomp_release(ctx);
	return rc == 0 ? 0 : err_sys(err, -rc, "jail: system call filter");
}

int devices_main(int argc, char **argv)
{
	static struct devices d = { .control = -1, .vsock_fd = -1, .layers_fd = -1, .scratch_fd = -1 };
	struct err err = ERR_INIT;
	int rc;

	log_init("walnut-vmm", getenv("WALNUT_VMM_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN);
	tzset(); /* reads its files now: the log needs them, and soon there are none */
	(void)signal(SIGPIPE, SIG_IGN);
	rc = parse(&d, argc, argv, &err);
	if (rc == 0)
		rc = jail_root(NULL, 0, &err);
	if (rc == 0)
		rc = jail_limits(1024, UINT64_MAX, &err);
	if (rc == 0)
		rc = jail_drop(d.uid, d.gid, &err);
	if (rc == 0)
		rc = serve(&d, &err);
	if (rc == 0)
		rc = start_disks(&d, &err);
	if (rc == 0)
		rc = filter(&err);
	if (rc == 0)
		rc = loop_run(d.loop, &err);
	if (rc < 0)
		log_error("devices: %s", err.msg);
	/* The machine is over; the kernel frees everything. */
	_exit(rc < 0 ? 1 : 0);
}
