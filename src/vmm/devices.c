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
#include <signal.h>
#include <stdlib.h>
#include <string.h>
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
#include "vmm/confine.h"
#include "vmm/jail.h"
#include "vmm/ports.h"

struct devices {
	struct loop *loop, *disk_loop;
	uid_t uid;
	gid_t gid;
	int control, vsock_fd, layers_fd, scratch_fd;
	struct ports ports;
	struct blk layers, scratch;
	struct vu_device vu_vsock, vu_layers, vu_scratch;
};

/* From either thread: the machine is over, and the kernel frees everything. */
static void gone(struct vu_device *d)
{
	_exit(0);
}

static void on_control(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct devices *d = arg;
	struct devctl_packet p;

	if (ports_receive(&d->ports, &p) < 0)
		loop_stop(l);
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
	rc = ports_init(&d->ports, d->control, err);
	if (rc < 0)
		return rc;
	if (!loop_add_fd(d->loop, d->control, EPOLLIN, on_control, d, err))
		return -err->code;
	rc = vu_init(&d->vu_vsock, &ops, d->ports.vsock, d->loop, d->vsock_fd, gone, err);
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

	if (confine_thread(CONFINE_DISKS, &err) < 0 || loop_run(d->disk_loop, &err) < 0)
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
	rc = pthread_create(&thread, NULL, disks_main, d);
	return rc ? err_sys(err, rc, "start the disks' thread") : 0;
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
		rc = confine_files(&err);
	if (rc == 0)
		rc = serve(&d, &err);
	if (rc == 0)
		rc = start_disks(&d, &err);
	if (rc == 0)
		rc = confine_thread(CONFINE_DEVICES, &err);
	if (rc == 0)
		rc = loop_run(d.loop, &err);
	if (rc < 0)
		log_error("devices: %s", err.msg);
	/* The machine is over; the kernel frees everything. */
	_exit(rc < 0 ? 1 : 0);
}
