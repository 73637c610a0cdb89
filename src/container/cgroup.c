/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cgroups: life cycle. Kernel documentation: admin-guide/cgroup-v1/ and admin-guide/cgroup-v2.rst.
 * A limit that is asked for and can not be set is an error. CAP_SYS_RESOURCE is never needed.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/cgroup_internal.h"
#include "container/cgroup_systemd.h"

#define DEPTH_MAX    32
#define REMOVE_TRIES 200
#define REMOVE_US    5000

static const char *const controllers[CGROUP_CONTROLLERS] = {
	"memory",  "pids",     "cpu",     "cpuacct", "cpuset",     "devices", "freezer",      "blkio",
	"net_cls", "net_prio", "hugetlb", "rdma",    "perf_event", "misc",    "name=systemd", "unified",
};

const char *cgroup_controller_name(enum cgroup_controller c)
{
	return controllers[c];
}

struct cgroup *cgroup_new(void)
{
	struct cgroup *g = calloc(1, sizeof(*g));

	for (int i = 0; g && i < CGROUP_CONTROLLERS; i++)
		g->dir[i] = -1;
	return g;
}

void cgroup_close(struct cgroup *g)
{
	if (!g)
		return;
	cgroup_systemd_release(g);
	for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
		close_fd(&g->dir[i]);
		free(g->path[i]);
	}
	free(g->unit);
	free(g);
}

static void cleanup_close(struct cgroup **g)
{
	cgroup_close(*g);
}

int cgroup_open_folder(struct cgroup *g, enum cgroup_controller c, const char *path, struct err *err)
{
	g->dir[c] = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (g->dir[c] < 0)
		return err_sys(err, errno, "cannot open the %s cgroup %s", controllers[c], path);
	g->path[c] = strdup(path);
	return g->path[c] ? 0 : err_set(err, ENOMEM, "out of memory");
}

int cgroup_write(int dir, const char *file, const char *text, struct err *err)
{
	int r;

	if (dir < 0)
		return err_set(err, ENOTSUP, "this machine has no cgroup controller for %s", file);
	r = fd_write_file(dir, file, O_WRONLY, text, strlen(text), err);
	if (r == -ENOENT)
		return err_set(err, ENOENT,
			       "cannot set the cgroup's %s to '%s': there is no such file (the kernel lacks it, or the "
			       "controller is not on in cgroup.subtree_control of a parent)",
			       file, text);
	return r < 0 ? err_wrap(err, "cannot set the cgroup's %s to '%s'", file, text) : 0;
}

char *cgroup_read(int dir, const char *file)
{
	return dir < 0 ? NULL : fd_read_file(dir, file, 1 << 20, NULL, NULL);
}

uint64_t cgroup_number(int dir, const char *file)
{
	CLEAN_FREE char *text = cgroup_read(dir, file);

	return !text ? 0 : strncmp(text, "max", 3) == 0 ? UINT64_MAX : strtoull(text, NULL, 10);
}

uint64_t cgroup_key(int dir, const char *file, const char *key)
{
	CLEAN_FREE char *text = cgroup_read(dir, file);
	size_t n = strlen(key);

	for (char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL)
		if (strncmp(p, key, n) == 0 && p[n] == ' ')
			return strtoull(p + n, NULL, 10);
	return 0;
}

bool cgroup_has(int dir, const char *file)
{
	return dir >= 0 && faccessat(dir, file, F_OK, 0) == 0;
}

static bool wants_limits(const struct oci_resources *r)
{
	return r && (r->memory_limit || r->memory_swap || r->memory_reservation || r->cpu_shares || r->cpu_quota ||
		     r->cpu_period || r->cpuset_cpus || r->cpuset_mems || r->pids_limit || r->block_weight ||
		     r->throttles_count || r->hugepages_count || r->rdma_count || r->unified_count);
}

/* A user who may not make cgroups runs without, as runc and crun do. */
static int without(struct cgroup *g, const struct cgroup_config *config, int r, struct err *err)
{
	if (!config->rootless || (r != -EACCES && r != -EPERM && r != -EROFS && r != -ENOTSUP))
		return r;
	if (wants_limits(config->resources))
		return err_wrap(err, "limits were asked for and this user may not set any");
	g->manager = CGROUP_MANAGER_DISABLED;
	return 0;
}

int cgroup_create(struct cgroup **out, const struct cgroup_config *config, struct err *err)
{
	CLEAN(cleanup_close) struct cgroup *g = cgroup_new();
	int r = 0;

	if (!g)
		return err_set(err, ENOMEM, "out of memory");
	g->manager = config->manager;
	g->rootless = config->rootless;
	if (config->manager == CGROUP_MANAGER_SYSTEMD)
		r = cgroup_systemd_create(g, config, err);
	else if (config->manager == CGROUP_MANAGER_FS)
		r = cgroup_hierarchies(g, config, err);
	if (r < 0)
		r = without(g, config, r, err);
	if (r < 0)
		return r;
	*out = take_ptr(g);
	return 0;
}

const char *cgroup_warning(const struct cgroup *g)
{
	return g->warning;
}

json_t *cgroup_save(const struct cgroup *g)
{
	json_t *o = json_pack("{s:b, s:i, s:b, s:s*, s:{}}", "v2", g->v2, "manager", (int)g->manager, "rootless",
			      g->rootless, "unit", g->unit, "paths");

	for (int i = 0; o && i < CGROUP_CONTROLLERS; i++)
		if (g->path[i] &&
		    json_object_set_new(json_object_get(o, "paths"), controllers[i], json_string(g->path[i])) < 0) {
			json_decref(o);
			return NULL;
		}
	return o;
}

int cgroup_load(struct cgroup **out, const json_t *saved, struct err *err)
{
	CLEAN(cleanup_close) struct cgroup *g = cgroup_new();
	const json_t *paths = json_object_get(saved, "paths");
	const char *unit = json_string_value(json_object_get(saved, "unit"));
	json_int_t manager = json_integer_value(json_object_get(saved, "manager"));

	if (!g)
		return err_set(err, ENOMEM, "out of memory");
	if (!json_is_object(paths) || manager < 0 || manager > CGROUP_MANAGER_DISABLED)
		return err_set(err, EINVAL, "the container's state has no valid cgroup");
	g->v2 = json_is_true(json_object_get(saved, "v2"));
	g->rootless = json_is_true(json_object_get(saved, "rootless"));
	g->manager = (enum cgroup_manager)manager;
	if (unit && !(g->unit = strdup(unit)))
		return err_set(err, ENOMEM, "out of memory");
	for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
		const char *path = json_string_value(json_object_get(paths, controllers[i]));
		int r = path ? cgroup_open_folder(g, (enum cgroup_controller)i, path, err) : 0;

		if (r < 0 && r != -ENOENT) /* a cgroup that is gone has nothing in it */
			return r;
		if (r < 0 && !g->path[i] && !(g->path[i] = strdup(path)))
			return err_set(err, ENOMEM, "out of memory");
	}
	*out = take_ptr(g);
	return 0;
}

int cgroup_fd(const struct cgroup *g)
{
	return g->dir[CGROUP_UNIFIED];
}

int cgroup_add(struct cgroup *g, pid_t pid, struct err *err)
{
	char text[16];

	(void)snprintf(text, sizeof(text), "%d", pid);
	for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
		int r = g->dir[i] < 0 ? 0 : cgroup_write(g->dir[i], "cgroup.procs", text, err);

		if (r == -EOPNOTSUPP && i == CGROUP_UNIFIED)
			return err_set(
				err, EOPNOTSUPP,
				"cannot move a process into the cgroup %s: it is threaded or its domain is invalid "
				"(cgroup.type)",
				g->path[i]);
		if (r < 0)
			return r;
	}
	cgroup_systemd_release(g);
	return 0;
}

/*
 * Moving another process takes the kernel's lock on all forks, which waits for an RCU grace period (10 ms seen); a
 * single thread that moves itself by "tasks" does without it (kernel: cgroup_procs_write_start()).
 */
int cgroup_enter(struct cgroup *g, struct err *err)
{
	for (int i = 0; i < CGROUP_UNIFIED; i++) {
		int r = g->dir[i] < 0 ? 0 : cgroup_write(g->dir[i], "tasks", "0", err);

		if (r < 0)
			return r;
	}
	return 0;
}

static void remove_below(int dir, unsigned int depth)
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
			remove_below(sub, depth + 1);
		(void)unlinkat(dir, e->d_name, AT_REMOVEDIR);
	}
}

/* Removes what can be removed now. Return: folders that are left. */
static int remove_folders(const struct cgroup *g, int *why)
{
	int left = 0;

	for (int i = 0; i < CGROUP_CONTROLLERS; i++) {
		if (!g->path[i] || rmdir(g->path[i]) == 0 || errno == ENOENT)
			continue;
		if (errno == EBUSY && g->dir[i] >= 0)
			remove_below(g->dir[i], 0);
		if (rmdir(g->path[i]) == 0 || errno == ENOENT)
			continue;
		*why = errno;
		left++;
	}
	return left;
}

int cgroup_remove(struct cgroup *g, struct err *err)
{
	int why = 0, r;

	cgroup_systemd_release(g);
	if (g->manager == CGROUP_MANAGER_DISABLED)
		return 0;
	if (remove_folders(g, &why) > 0) {
		r = cgroup_kill(g, err);
		if (r < 0)
			return r;
		/* a dying process leaves its cgroup only when it is reaped */
		for (int n = 0; remove_folders(g, &why) > 0; n++) {
			if (n == REMOVE_TRIES)
				return err_sys(err, why, "cannot remove the container's cgroup");
			(void)usleep(n < 20 ? 500 : REMOVE_US);
		}
	}
	return cgroup_systemd_stop(g, err);
}

void cgroup_free(struct cgroup *g)
{
	struct err ignored = ERR_INIT;

	if (g && cgroup_remove(g, &ignored) < 0)
		errno = ignored.code; /* what could be removed is */
	cgroup_close(g);
}
