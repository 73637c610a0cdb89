/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual machine of a container: its disks, its cgroup, its two processes and what they leave when they end.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "shim/hyperv.h"

#define END_WAIT_MS  200
#define SCRATCH_SIZE (20LL << 30)

/* A process that ends closes its sockets before it can be reaped: give it the time. */
void hyperv_name_end(struct hyperv *h, struct err *why)
{
	struct pollfd ends[2] = { { .fd = -1 }, { .fd = -1 } };

	if (!h->vm || (why->code != EPIPE && why->code != ECONNRESET && why->code != EBADMSG))
		return;
	ends[0] = (struct pollfd){ .fd = vm_qemu_pidfd(h->vm), .events = POLLIN };
	ends[1] = (struct pollfd){ .fd = vm_device_pidfd(h->vm), .events = POLLIN };
	if (poll(ends, ARRAY_LEN(ends), END_WAIT_MS) > 0)
		(void)vm_exit_text(h->vm, why->msg, sizeof(why->msg));
}

/* What the guest's kernel said last, if it panicked, is the cause of whatever was seen of the machine. */
void hyperv_name_panic(struct hyperv *h, struct err *why)
{
	static const char mark[] = "Kernel panic - not syncing: ";
	const char *at;

	for (int i = 0; i < 16 && h->console; i++)
		hyperv_read_console(h);
	h->tail[h->tail_len] = 0;
	at = strstr(h->tail, mark);
	if (at) {
		at += sizeof(mark) - 1;
		(void)err_set(why, EIO, "the container's own kernel panicked: %.*s", (int)strcspn(at, "\n"), at);
	}
}

void hyperv_read_console(struct hyperv *h)
{
	int fd = vm_console_fd(h->vm);
	ssize_t got;

	if (h->tail_len > HYPERV_CONSOLE_KEPT / 2) {
		memmove(h->tail, h->tail + h->tail_len - HYPERV_CONSOLE_KEPT / 2, HYPERV_CONSOLE_KEPT / 2);
		h->tail_len = HYPERV_CONSOLE_KEPT / 2;
	}
	got = read(fd, h->tail + h->tail_len, HYPERV_CONSOLE_KEPT - h->tail_len);
	if (got > 0) {
		for (ssize_t i = 0; i < got; i++) {
			char *c = &h->tail[h->tail_len + (size_t)i];

			if ((*c < ' ' && *c != '\n') || *c == 127)
				*c = ' ';
		}
		h->tail_len += (size_t)got;
	} else if (got == 0 || errno != EAGAIN) {
		loop_remove(h->console);
		h->console = NULL;
	}
}

static void console_event(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct shim *sh = arg;

	hyperv_read_console(sh->backend_data);
}

static void control_ready(struct loop *l, int fd, uint32_t events, void *arg)
{
	hyperv_accept(arg);
}

static void machine_ended(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct shim *sh = arg;
	struct hyperv *h = sh->backend_data;
	struct err err = { .code = EIO };

	loop_remove(fd == vm_qemu_pidfd(h->vm) ? h->qemu : h->device);
	if (fd == vm_qemu_pidfd(h->vm))
		h->qemu = NULL;
	else
		h->device = NULL;
	if (!vm_exit_text(h->vm, err.msg, sizeof(err.msg)))
		(void)err_set(&err, EIO, "the virtual machine ended");
	hyperv_lost(sh, &err);
}

/* ---- disks */

/*
 * A new disk is formatted while the guest boots, under another name: a file with the disk's name is always whole. Its
 * inode tables and journal stay holes. A container that is removed at its end needs no journal: after a failure there
 * is nobody to read the disk.
 */
static int format_scratch(struct hyperv *h, const char *path, bool throwaway, struct err *err)
{
	char *argv[] = { (char *)"mke2fs",
			 (char *)"-q",
			 (char *)"-F",
			 (char *)"-t",
			 (char *)"ext4",
			 (char *)"-m",
			 (char *)"0",
			 (char *)"-E",
			 (char *)"lazy_itable_init=1,lazy_journal_init=1,nodiscard",
			 (char *)"-O",
			 (char *)(throwaway ? "^resize_inode,^has_journal" : "^resize_inode"),
			 (char *)(uintptr_t)path,
			 NULL };
	char *envp[] = { (char *)"PATH=/sbin:/usr/sbin:/bin:/usr/bin", NULL };
	int rc = posix_spawn(&h->format, "/sbin/mke2fs", NULL, NULL, argv, envp);

	/* ENOENT would be read as "no such program in the container" */
	return rc ? err_sys(err, rc == ENOENT ? EIO : rc, "make the scratch disk (/sbin/mke2fs of e2fsprogs)") : 0;
}

static int open_scratch(struct hyperv *h, const json_t *rootfs, int *out, struct err *err)
{
	const char *path = json_str(rootfs, "scratch", NULL);
	int64_t size = json_int(rootfs, "scratch_size", 0);
	CLEAN_FREE char *made = NULL;

	*out = open(path, O_RDWR | O_CLOEXEC);
	if (*out >= 0 || errno != ENOENT)
		return *out < 0 ? err_sys(err, errno, "open the scratch disk %s", path) : 0;
	if (asprintf(&made, "%s.new", path) < 0) {
		made = NULL;
		return err_sys(err, ENOMEM, "make the scratch disk");
	}
	*out = open(made, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (*out < 0)
		return err_sys(err, errno, "create the scratch disk %s", made);
	if (ftruncate(*out, size > 0 ? (off_t)size : (off_t)SCRATCH_SIZE) < 0)
		return err_sys(err, errno, "size the scratch disk");
	return format_scratch(h, made, json_bool(rootfs, "throwaway", false), err);
}

int hyperv_scratch_ready(struct hyperv *h, struct err *err)
{
	const char *path = json_str(json_object_get(h->params, "rootfs"), "scratch", NULL);
	CLEAN_FREE char *made = NULL;
	int status = -1;

	if (h->format <= 0)
		return 0;
	while (waitpid(h->format, &status, 0) < 0 && errno == EINTR)
		;
	h->format = 0;
	if (status)
		return err_set(err, EIO, "the scratch disk %s could not be formatted: mke2fs failed (disk full?)",
			       path);
	if (asprintf(&made, "%s.new", path) < 0) {
		made = NULL;
		return err_sys(err, ENOMEM, "make the scratch disk");
	}
	return rename(made, path) < 0 ? err_sys(err, errno, "make the scratch disk %s", path) : 0;
}

void hyperv_scratch_abandon(struct hyperv *h)
{
	if (h->format <= 0)
		return;
	(void)kill(h->format, SIGKILL);
	(void)waitpid(h->format, NULL, 0);
	h->format = 0;
}

struct disks {
	int layers[VM_LAYERS_MAX];
	size_t n;
	int scratch;
};

static void disks_close(struct disks *d)
{
	for (size_t i = 0; i < d->n; i++)
		close_fd(&d->layers[i]);
	close_fd(&d->scratch);
}

static int open_disks(struct hyperv *h, struct disks *d, const json_t *rootfs, struct err *err)
{
	const json_t *layers = json_object_get(rootfs, "layers"), *layer;
	const char *scratch = json_str(rootfs, "scratch", NULL);
	size_t i;

	if (json_array_size(layers) > VM_LAYERS_MAX)
		return err_set(err, EINVAL, "more than %d layers", VM_LAYERS_MAX);
	json_array_foreach(layers, i, layer) {
		const char *path = json_is_string(layer) ? json_string_value(layer) : "";

		d->layers[i] = open(path, O_RDONLY | O_CLOEXEC);
		if (d->layers[i] < 0)
			return err_sys(err, errno, "open the layer %s", path);
		d->n = i + 1;
	}
	return scratch ? open_scratch(h, rootfs, &d->scratch, err) : 0;
}

/* ---- the host's cgroup */

/*
 * What the two processes need beside the guest's memory: QEMU's code cache (tb-size) and heap, 90 MiB at the most
 * that was seen (a guest that wrote twice its memory and then ran out of it); and room for the page cache of the disks' files,
 * which is charged to whoever reads them first and given back when it is wanted.
 */
#define MEMORY_OVERHEAD (192ULL << 20)
#define PIDS_OVERHEAD   32

static int make_cgroup(struct hyperv *h, const json_t *params, struct err *err)
{
	const json_t *given = json_object_get(json_object_get(json_object_get(params, "spec"), "linux"), "resources");
	CLEAN(cleanup_oci_resources) struct oci_resources *r = NULL;
	const char *path = json_str(params, "cgroup_path", NULL);
	struct oci_resources limits = { .memory_limit = (int64_t)(h->memory_bytes + MEMORY_OVERHEAD),
					.pids_limit = h->vcpus + PIDS_OVERHEAD };
	int rc;

	if (!path)
		return 0;
	rc = given ? oci_resources_parse(given, &r, err) : 0;
	if (rc == 0)
		rc = cgroup_create(&h->cgroup, &(struct cgroup_config){ .path = path }, err);
	if (rc < 0)
		return rc;
	if (r) {
		limits.cpu_shares = r->cpu_shares;
		limits.cpuset_cpus = r->cpuset_cpus;
		limits.cpuset_mems = r->cpuset_mems;
		h->cpu_quota = r->cpu_quota;
		h->cpu_period = r->cpu_period;
	}
	return cgroup_apply(h->cgroup, &limits, err);
}

static int place(void *arg, pid_t pid, struct err *err)
{
	struct hyperv *h = arg;

	return h->cgroup ? cgroup_add(h->cgroup, pid, err) : 0;
}

void hyperv_limit_cpu(struct hyperv *h, bool limited)
{
	struct oci_resources r = { .cpu_period = h->cpu_period, .cpu_quota = limited ? h->cpu_quota : -1 };
	struct err err = ERR_INIT;

	h->cpu_limited = limited;
	if (h->cgroup && h->cpu_quota > 0 && cgroup_apply(h->cgroup, &r, &err) < 0)
		log_warn("%s", err.msg);
}

int hyperv_update_machine(struct hyperv *h, const json_t *resources, struct err *err)
{
	CLEAN(cleanup_oci_resources) struct oci_resources *r = NULL;
	struct oci_resources limits = { 0 };
	int rc = oci_resources_parse(resources, &r, err);

	if (rc < 0)
		return rc;
	if (r->memory_limit > 0 && (uint64_t)r->memory_limit > h->memory_bytes)
		return err_set(
			err, EINVAL,
			"the container's virtual machine has %llu MiB of memory, and the limit can not be raised above "
			"it while it runs: stop the container, update it and start it again",
			(unsigned long long)(h->memory_bytes >> 20));
	if (r->cpu_quota > 0 && (uint64_t)r->cpu_quota > h->vcpus * (r->cpu_period ? r->cpu_period : 100000))
		return err_set(
			err, EINVAL,
			"the container's virtual machine has %u processor%s, and more can not be added while it runs: "
			"stop the container, update it and start it again",
			h->vcpus, h->vcpus == 1 ? "" : "s");
	limits.cpu_shares = r->cpu_shares;
	limits.cpuset_cpus = r->cpuset_cpus;
	limits.cpuset_mems = r->cpuset_mems;
	rc = h->cgroup ? cgroup_apply(h->cgroup, &limits, err) : 0;
	if (rc < 0 || !r->cpu_quota)
		return rc;
	h->cpu_quota = r->cpu_quota;
	h->cpu_period = r->cpu_period;
	limits = (struct oci_resources){ .cpu_quota = h->cpu_quota, .cpu_period = h->cpu_period };
	return h->cgroup && h->cpu_limited ? cgroup_apply(h->cgroup, &limits, err) : 0;
}

void hyperv_rest(struct hyperv *h, bool rest)
{
	struct err err = ERR_INIT;
	int rc = h->vm ? vm_pause(h->vm, rest, &err) : 0;

	if (rc < 0 && rc != -ENOSYS)
		log_warn("%s", err.msg);
}

bool hyperv_host_oom(struct hyperv *h)
{
	struct container_stats stats = { 0 };
	struct err err = ERR_INIT;

	return h->cgroup && !cgroup_stats(h->cgroup, &stats, &err) && stats.oom_kills;
}

/* ---- the machine */

#define NOBODY              65534U
#define MACHINE_USERS       0x70000000U
#define MACHINE_USERS_COUNT 0x10000000U

static int watch_machine(struct shim *sh, struct hyperv *h, struct err *err)
{
	if (vm_listen(h->vm, LINK_CONTROL_PORT, err) < 0)
		return -err->code;
	h->control = loop_add_fd(sh->loop, vm_control_fd(h->vm), EPOLLIN, control_ready, sh, err);
	if (h->control)
		h->console = loop_add_fd(sh->loop, vm_console_fd(h->vm), EPOLLIN, console_event, sh, err);
	if (h->console)
		h->qemu = loop_add_fd(sh->loop, vm_qemu_pidfd(h->vm), EPOLLIN, machine_ended, sh, err);
	if (!h->qemu || vm_device_pidfd(h->vm) < 0)
		return h->qemu ? 0 : -err->code;
	h->device = loop_add_fd(sh->loop, vm_device_pidfd(h->vm), EPOLLIN, machine_ended, sh, err);
	return h->device ? 0 : -err->code;
}

static int read_seccomp(struct hyperv *h, int fd, struct err *err)
{
	CLEAN_FREE unsigned char *bpf = malloc(LINK_SECCOMP_MAX);
	ssize_t got;

	if (fd < 0)
		return 0;
	got = bpf ? pread(fd, bpf, LINK_SECCOMP_MAX, 0) : -1;
	if (got <= 0)
		return err_set(err, EIO, "the seccomp program could not be read");
	h->seccomp = link_base64_encode(bpf, (size_t)got);
	return h->seccomp ? 0 : err_sys(err, ENOMEM, "encode the seccomp program");
}

/*
 * A user for this machine alone, so that a monitor that was taken over can not signal or trace another one's: from a range that
 * neither distributions nor systemd nor subordinate ids use, by the container's id. In a user namespace with few users: nobody.
 */
static uid_t machine_user(const char *id)
{
	CLEAN_FREE char *map = NULL;
	struct err ignored = ERR_INIT;
	unsigned long first = 0, outside = 0, count = 0;
	uint32_t hash = 2166136261U; /* FNV-1a */

	map = fd_read_file(AT_FDCWD, "/proc/self/uid_map", 4096, NULL, &ignored);
	if (map && (sscanf(map, "%lu %lu %lu", &first, &outside, &count) != 3 || first != 0 || count < UINT32_MAX))
		return NOBODY;
	for (; *id; id++)
		hash = (hash ^ (unsigned char)*id) * 16777619U;
	return MACHINE_USERS + (hash & (MACHINE_USERS_COUNT - 1));
}

int hyperv_boot(struct shim *sh, struct hyperv *h, const json_t *params, int seccomp, struct err *err)
{
	const json_t *vm = json_object_get(params, "vm");
	CLEAN(disks_close) struct disks d = { .scratch = -1 };
	struct vm_config config = {
		.kernel = json_str(vm, "kernel", NULL),
		.initrd = json_str(vm, "initrd", NULL),
		.memory_bytes = (uint64_t)json_int(vm, "memory_bytes", 512 << 20),
		.vcpus = (unsigned)json_int(vm, "vcpus", 1),
		.accelerator = json_str(vm, "accelerator", NULL),
		.qemu_path = *json_str(vm, "qemu", "") ? json_str(vm, "qemu", NULL) : NULL,
		.uid = machine_user(sh->id),
		.place = place,
		.place_arg = h,
	};
	int rc = read_seccomp(h, seccomp, err);

	config.gid = config.uid;
	h->memory_bytes = config.memory_bytes;
	h->vcpus = config.vcpus ? config.vcpus : 1;

	if (!rc && (!config.kernel || !config.initrd))
		rc = err_set(err, EINVAL, "start: vm.kernel or vm.initrd is missing");
	if (!rc)
		rc = make_cgroup(h, params, err);
	if (!rc)
		rc = open_disks(h, &d, json_object_get(params, "rootfs"), err);
	if (rc < 0)
		return rc;
	config.layer_fds = d.layers;
	config.layer_count = d.n;
	config.scratch_fd = d.scratch;
	rc = vm_start(&h->vm, &config, err);
	return rc < 0 ? rc : watch_machine(sh, h, err);
}
