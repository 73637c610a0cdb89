/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroups. Kernel documentation: admin-guide/cgroup-v1/ and admin-guide/cgroup-v2.rst.
 * A hybrid machine (v1 controllers and an empty v2 tree) is used as version 1.
 * Files are opened relative to the folders' descriptors. A limit that is asked for and
 * can not be set is an error. CAP_SYS_RESOURCE is never needed.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/cgroup.h"

#define CGROUP_ROOT "/sys/fs/cgroup"
#define DEPTH_MAX   32

static const char *const controllers[CGROUP_CONTROLLERS] = { "memory", "pids",    "cpu",     "cpuacct",
							     "cpuset", "devices", "freezer", "blkio" };

const char *cgroup_controller_name(enum cgroup_controller c)
{
	return controllers[c];
}

static int dir_of(const struct cgroup *g, enum cgroup_controller c)
{
	return g->v2 ? g->dir[0] : g->dir[c];
}

static int write_text(int dir, const char *file, const char *text, struct err *err)
{
	int r;

	if (dir < 0)
		return err_set(err, ENOTSUP, "this machine has no cgroup controller for %s", file);
	r = fd_write_file(dir, file, O_WRONLY, text, strlen(text), err);
	return r < 0 ? err_wrap(err, "cannot set the cgroup's %s to '%s'", file, text) : 0;
}

static int write_number(int dir, const char *file, int64_t n, const char *unlimited, struct err *err)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "%" PRId64, n);
	return write_text(dir, file, n < 0 ? unlimited : text, err);
}

static char *read_text(int dir, const char *file)
{
	return dir < 0 ? NULL : fd_read_file(dir, file, 1 << 20, NULL, NULL);
}

static uint64_t read_number(int dir, const char *file)
{
	CLEAN_FREE char *text = read_text(dir, file);

	return text ? strtoull(text, NULL, 10) : 0;
}

/* The number after "key " at the start of a line. */
static uint64_t read_key(int dir, const char *file, const char *key)
{
	CLEAN_FREE char *text = read_text(dir, file);
	size_t n = strlen(key);

	for (char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL)
		if (strncmp(p, key, n) == 0 && p[n] == ' ')
			return strtoull(p + n, NULL, 10);
	return 0;
}

/* A new cpuset folder of version 1 is empty and takes no process: give it what its parent has. */
static int inherit_cpuset(int parent, int dir, struct err *err)
{
	static const char *const files[] = { "cpuset.cpus", "cpuset.mems" };

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		CLEAN_FREE char *have = read_text(dir, files[i]), *from = read_text(parent, files[i]);
		int r;

		if ((have && *have && *have != '\n') || !from)
			continue;
		r = write_text(dir, files[i], from, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Version 2: let the children of @dir use the controllers; those that do not exist are left out. */
static void enable_controllers(int dir)
{
	static const char *const on[] = { "+memory", "+pids", "+cpu", "+cpuset", "+io" };

	for (size_t i = 0; i < ARRAY_LEN(on); i++)
		if (fd_write_file(dir, "cgroup.subtree_control", O_WRONLY, on[i], strlen(on[i]), NULL) < 0)
			continue; /* a limit that needs it says so when it is set */
}

static int make_folder(struct cgroup *g, enum cgroup_controller c, const char *path, struct err *err)
{
	CLEAN_FREE char *copy = strdup(path);
	CLEAN_FD int at = fcntl(g->root[c], F_DUPFD_CLOEXEC, 3);
	char *save = NULL;

	if (!copy || at < 0)
		return err_sys(err, errno, "cannot make the cgroup %s", path);
	for (char *name = strtok_r(copy, "/", &save); name; name = strtok_r(NULL, "/", &save)) {
		int next;

		if (strcmp(name, "..") == 0 || strcmp(name, ".") == 0)
			return err_set(err, EINVAL, "bad cgroup path '%s'", path);
		if (g->v2)
			enable_controllers(at);
		if (mkdirat(at, name, 0755) < 0 && errno != EEXIST)
			return err_sys(err, errno, "cannot make the %s cgroup %s", controllers[c], path);
		next = openat(at, name, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (next < 0)
			return err_sys(err, errno, "cannot open the %s cgroup %s", controllers[c], path);
		if (!g->v2 && c == CGROUP_CPUSET) {
			int r = inherit_cpuset(at, next, err);

			if (r < 0) {
				(void)close(next);
				return r;
			}
		}
		(void)close(at);
		at = next;
	}
	g->dir[c] = take_fd(&at);
	return 0;
}

static void cleanup_cgroup(struct cgroup **g)
{
	cgroup_free(*g);
}

int cgroup_create(struct cgroup **out, const char *path, struct err *err)
{
	CLEAN(cleanup_cgroup) struct cgroup *g = calloc(1, sizeof(*g));
	CLEAN_FD int top = open(CGROUP_ROOT, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	struct statfs fs;
	int r, found = 0;

	if (!g)
		return err_set(err, ENOMEM, "out of memory");
	for (int i = 0; i < CGROUP_CONTROLLERS; i++)
		g->root[i] = g->dir[i] = -1;
	if (top < 0 || fstatfs(top, &fs) < 0)
		return err_sys(err, errno, "cannot open %s", CGROUP_ROOT);
	if (!path || !path[strspn(path, "/")])
		return err_set(err, EINVAL, "a container needs a cgroup path below the root");
	g->path = strdup(path);
	if (!g->path)
		return err_set(err, ENOMEM, "out of memory");
	if ((unsigned long)fs.f_type == CGROUP2_SUPER_MAGIC) {
		g->v2 = true;
		g->root[0] = take_fd(&top);
		r = make_folder(g, 0, path, err);
		if (r < 0)
			return r;
		*out = take_ptr(g);
		return 0;
	}
	for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
		CLEAN_FD int fd = openat(top, controllers[i], O_DIRECTORY | O_RDONLY | O_CLOEXEC);

		if (fd < 0 || fstatfs(fd, &fs) < 0 || (unsigned long)fs.f_type != CGROUP_SUPER_MAGIC)
			continue;
		g->root[i] = take_fd(&fd);
		r = make_folder(g, (enum cgroup_controller)i, path, err);
		if (r < 0)
			return r;
		found++;
	}
	if (!found)
		return err_set(err, ENOTSUP, "no cgroup controllers are mounted at %s", CGROUP_ROOT);
	*out = take_ptr(g);
	return 0;
}

static int apply_memory(struct cgroup *g, const struct oci_resources *m, struct err *err)
{
	int dir = dir_of(g, CGROUP_MEMORY), r = 0;

	if (g->v2) {
		if (m->memory_limit)
			r = write_number(dir, "memory.max", m->memory_limit, "max", err);
		if (r == 0 && m->memory_swap && faccessat(dir, "memory.swap.max", F_OK, 0) == 0)
			r = write_number(dir, "memory.swap.max",
					 m->memory_swap < 0 || m->memory_limit <= 0 ? -1
					 : m->memory_swap > m->memory_limit         ? m->memory_swap - m->memory_limit
										    : 0,
					 "max", err);
		if (r == 0 && m->memory_reservation)
			r = write_number(dir, "memory.low", m->memory_reservation, "max", err);
		return r;
	}
	if (m->memory_limit) {
		/* memory must never pass memory+swap: when growing, widen that first */
		if (m->memory_swap && write_number(dir, "memory.memsw.limit_in_bytes", m->memory_swap, "-1", NULL) < 0)
			r = 0;
		r = write_number(dir, "memory.limit_in_bytes", m->memory_limit, "-1", err);
	}
	if (r == 0 && m->memory_swap && faccessat(dir, "memory.memsw.limit_in_bytes", F_OK, 0) == 0)
		r = write_number(dir, "memory.memsw.limit_in_bytes", m->memory_swap, "-1", err);
	if (r == 0 && m->memory_reservation)
		r = write_number(dir, "memory.soft_limit_in_bytes", m->memory_reservation, "-1", err);
	if (r == 0 && m->oom_kill_disable)
		r = write_text(dir, "memory.oom_control", "1", err);
	return r;
}

static int apply_cpu(struct cgroup *g, const struct oci_resources *c, struct err *err)
{
	int dir = dir_of(g, CGROUP_CPU), set = dir_of(g, CGROUP_CPUSET), r = 0;
	char text[64];

	if (g->v2 && c->cpu_shares) {
		uint64_t s = c->cpu_shares < 2 ? 2 : c->cpu_shares > 262144 ? 262144 : c->cpu_shares;

		r = write_number(dir, "cpu.weight", (int64_t)(1 + (s - 2) * 9999 / 262142), "", err);
	} else if (c->cpu_shares) {
		r = write_number(dir, "cpu.shares", (int64_t)c->cpu_shares, "", err);
	}
	if (r == 0 && g->v2 && (c->cpu_quota || c->cpu_period)) {
		uint64_t period = c->cpu_period ? c->cpu_period : 100000;

		if (c->cpu_quota > 0)
			(void)snprintf(text, sizeof(text), "%" PRId64 " %" PRIu64, c->cpu_quota, period);
		else
			(void)snprintf(text, sizeof(text), "max %" PRIu64, period);
		r = write_text(dir, "cpu.max", text, err);
	} else if (!g->v2) {
		if (r == 0 && c->cpu_period)
			r = write_number(dir, "cpu.cfs_period_us", (int64_t)c->cpu_period, "", err);
		if (r == 0 && c->cpu_quota)
			r = write_number(dir, "cpu.cfs_quota_us", c->cpu_quota, "-1", err);
	}
	if (r == 0 && c->cpuset_cpus && *c->cpuset_cpus)
		r = write_text(set, "cpuset.cpus", c->cpuset_cpus, err);
	if (r == 0 && c->cpuset_mems && *c->cpuset_mems)
		r = write_text(set, "cpuset.mems", c->cpuset_mems, err);
	return r;
}

int cgroup_apply(struct cgroup *g, const struct oci_resources *r, struct err *err)
{
	int n = apply_memory(g, r, err);

	if (n == 0)
		n = apply_cpu(g, r, err);
	if (n == 0 && r->pids_limit)
		n = write_number(dir_of(g, CGROUP_PIDS), "pids.max", r->pids_limit, "max", err);
	return n;
}

int cgroup_apply_devices(struct cgroup *g, const struct oci_resources *r, struct err *err)
{
	if (r->devices_count == 0)
		return 0;
	if (g->v2)
		return cgroup_attach_device_program(g->dir[0], r, err);
	for (size_t i = 0; i < r->devices_count; i++) {
		const struct oci_device_rule *d = &r->devices[i];
		char major[24] = "*", minor[24] = "*", text[80];
		int n;

		if (d->major != OCI_DEVICE_ANY)
			(void)snprintf(major, sizeof(major), "%" PRId64, d->major);
		if (d->minor != OCI_DEVICE_ANY)
			(void)snprintf(minor, sizeof(minor), "%" PRId64, d->minor);
		(void)snprintf(text, sizeof(text), "%c %s:%s %s%s%s", d->type, major, minor,
			       d->access & OCI_DEVICE_READ ? "r" : "", d->access & OCI_DEVICE_WRITE ? "w" : "",
			       d->access & OCI_DEVICE_MKNOD ? "m" : "");
		n = write_text(g->dir[CGROUP_DEVICES], d->allow ? "devices.allow" : "devices.deny",
			       d->type == 'a' ? "a" : text, err);
		if (n < 0)
			return n;
	}
	return 0;
}

int cgroup_add(struct cgroup *g, pid_t pid, struct err *err)
{
	for (int i = 0; i < CGROUP_CONTROLLERS; i++)
		if (g->dir[i] >= 0) {
			int r = write_number(g->dir[i], "cgroup.procs", pid, "", err);

			if (r < 0)
				return r;
		}
	return 0;
}

/*
 * Moving another process takes the kernel's lock on all forks, which waits for an RCU grace period (10 ms seen); a single
 * thread that moves itself by "tasks" does without it (kernel: cgroup_procs_write_start()).
 */
int cgroup_enter(struct cgroup *g, struct err *err)
{
	for (int i = 0; i < CGROUP_CONTROLLERS && !g->v2; i++)
		if (g->dir[i] >= 0) {
			int r = write_text(g->dir[i], "tasks", "0", err);

			if (r < 0)
				return r;
		}
	return 0;
}

int cgroup_freeze(struct cgroup *g, bool frozen, struct err *err)
{
	int dir = dir_of(g, CGROUP_FREEZER);
	int r = g->v2 ? write_text(dir, "cgroup.freeze", frozen ? "1" : "0", err)
		      : write_text(dir, "freezer.state", frozen ? "FROZEN" : "THAWED", err);

	if (r < 0)
		return r;
	for (int i = 0; i < 1000; i++) {
		CLEAN_FREE char *state = g->v2 ? NULL : read_text(dir, "freezer.state");

		if (g->v2 ? read_key(dir, "cgroup.events", "frozen") == frozen
			  : state && strncmp(state, frozen ? "FROZEN" : "THAWED", 6) == 0)
			return 0;
		(void)usleep(i < 20 ? 200 : 2000);
	}
	return err_set(err, ETIMEDOUT, "the container did not %s in time", frozen ? "freeze" : "thaw");
}

static int collect(int dir, unsigned int depth, pid_t **pids, size_t *n)
{
	CLEAN_FREE char *text = read_text(dir, "cgroup.procs");
	CLEAN_DIR DIR *d = NULL;
	struct dirent *e;
	int fd;

	for (char *p = text, *end; p && *p; p = end) {
		long pid = strtol(p, &end, 10);
		pid_t *more;

		if (end == p)
			break;
		more = realloc(*pids, (*n + 1) * sizeof(pid_t));
		if (!more)
			return -ENOMEM;
		*pids = more;
		(*pids)[(*n)++] = (pid_t)pid;
		end += strspn(end, "\n");
	}
	fd = openat(dir, ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (fd < 0 || depth >= DEPTH_MAX || !(d = fdopendir(fd)))
		return fd < 0 ? -errno : 0;
	while ((e = readdir(d))) {
		CLEAN_FD int sub = -1;
		int r;

		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		sub = openat(dir, e->d_name, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		r = sub < 0 ? 0 : collect(sub, depth + 1, pids, n);
		if (r < 0)
			return r;
	}
	return 0;
}

int cgroup_pids(struct cgroup *g, pid_t **pids, size_t *n, struct err *err)
{
	CLEAN_FREE pid_t *list = NULL;
	int dir = dir_of(g, CGROUP_PIDS), r;

	for (int i = 0; dir < 0 && i < CGROUP_CONTROLLERS; i++)
		dir = g->dir[i];
	*n = 0;
	r = collect(dir, 0, &list, n);
	if (r < 0)
		return err_sys(err, -r, "cannot list the container's processes");
	*pids = take_ptr(list);
	return 0;
}

int cgroup_kill(struct cgroup *g, struct err *err)
{
	if (g->v2 && fd_write_file(g->dir[0], "cgroup.kill", O_WRONLY, "1", 1, NULL) == 0)
		return 0;
	for (int round = 0; round < 50; round++) {
		CLEAN_FREE pid_t *pids = NULL;
		size_t n;
		int r = cgroup_pids(g, &pids, &n, err);

		if (r < 0 || n == 0)
			return r;
		for (size_t i = 0; i < n; i++)
			(void)kill(pids[i], SIGKILL);
		r = cgroup_freeze(g, false, NULL); /* a frozen process of version 1 does not die */
		(void)usleep(r < 0 ? 2000 : 1000);
	}
	return 0; /* zombies that their parent has not reaped are still listed */
}

int cgroup_stats(struct cgroup *g, struct container_stats *o, struct err *err)
{
	int mem = dir_of(g, CGROUP_MEMORY), acct = dir_of(g, CGROUP_CPUACCT), pids = dir_of(g, CGROUP_PIDS);

	*o = (struct container_stats){ 0 };
	if (g->v2) {
		o->memory_usage = read_number(mem, "memory.current");
		o->memory_limit = read_number(mem, "memory.max"); /* "max" reads as 0 */
		o->memory_max_usage = read_number(mem, "memory.peak");
		o->memory_cache = read_key(mem, "memory.stat", "file");
		o->oom_kills = read_key(mem, "memory.events", "oom_kill");
		o->cpu_total_ns = read_key(acct, "cpu.stat", "usage_usec") * 1000;
		o->cpu_user_ns = read_key(acct, "cpu.stat", "user_usec") * 1000;
		o->cpu_system_ns = read_key(acct, "cpu.stat", "system_usec") * 1000;
	} else {
		o->memory_usage = read_number(mem, "memory.usage_in_bytes");
		o->memory_limit = read_number(mem, "memory.limit_in_bytes");
		if (o->memory_limit > UINT64_C(1) << 60)
			o->memory_limit = 0;
		o->memory_max_usage = read_number(mem, "memory.max_usage_in_bytes");
		o->memory_cache = read_key(mem, "memory.stat", "total_cache");
		o->oom_kills = read_key(mem, "memory.oom_control", "oom_kill");
		o->cpu_total_ns = read_number(acct, "cpuacct.usage");
		o->cpu_user_ns = read_number(acct, "cpuacct.usage_user");
		o->cpu_system_ns = read_number(acct, "cpuacct.usage_sys");
	}
	o->pids_current = read_number(pids, "pids.current");
	o->pids_limit = read_number(pids, "pids.max");
	return 0;
}

static void remove_children(int dir, unsigned int depth)
{
	CLEAN_DIR DIR *d = NULL;
	struct dirent *e;
	int fd = openat(dir, ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC);

	if (fd < 0 || depth >= DEPTH_MAX || !(d = fdopendir(fd)))
		return;
	while ((e = readdir(d))) {
		CLEAN_FD int sub = -1;

		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		sub = openat(dir, e->d_name, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (sub >= 0)
			remove_children(sub, depth + 1);
		(void)unlinkat(dir, e->d_name, AT_REMOVEDIR);
	}
}

void cgroup_free(struct cgroup *g)
{
	if (!g)
		return;
	for (int i = 0, r = 0; g->path && i < CGROUP_CONTROLLERS; i++) {
		if (g->dir[i] < 0)
			continue;
		if (i == 0)
			r = cgroup_kill(g, NULL);
		for (int n = 0; n < 100 && r <= 0; n++) {
			remove_children(g->dir[i], 0);
			if (unlinkat(g->root[i], g->path + strspn(g->path, "/"), AT_REMOVEDIR) == 0 || errno != EBUSY)
				break;
			(void)usleep(5000);
		}
		close_fd(&g->dir[i]);
	}
	for (int i = 0; i < CGROUP_CONTROLLERS; i++)
		close_fd(&g->root[i]);
	free(g->path);
	free(g);
}
