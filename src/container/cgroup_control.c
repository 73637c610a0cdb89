/* SPDX-License-Identifier: Apache-2.0 */
/* What is done to the processes of a cgroup, and what is read from it. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/cgroup_internal.h"

#define DEPTH_MAX 32

bool cgroup_is_v2(const struct cgroup *g)
{
	return g->v2;
}

bool cgroup_mount_source(const struct cgroup *g, unsigned int n, const char **name, char *path, size_t size)
{
	for (unsigned int i = 0; i < CGROUP_CONTROLLERS; i++) {
		if (!g->path[i] || g->dir[i] < 0 || n-- > 0)
			continue;
		*name = i == CGROUP_SYSTEMD ? "systemd" : cgroup_controller_name((enum cgroup_controller)i);
		return snprintf(path, size, "%s", g->path[i]) < (int)size;
	}
	return false;
}

bool cgroup_frozen(const struct cgroup *g)
{
	CLEAN_FREE char *state = NULL;

	if (g->v2)
		return cgroup_key(g->dir[CGROUP_UNIFIED], "cgroup.events", "frozen") == 1;
	state = cgroup_read(g->dir[CGROUP_FREEZER], "freezer.state");
	return state && strncmp(state, "THAWED", 6) != 0;
}

static bool freeze_done(const struct cgroup *g, bool frozen)
{
	CLEAN_FREE char *state = NULL;

	if (g->v2)
		return cgroup_frozen(g) == frozen;
	state = cgroup_read(g->dir[CGROUP_FREEZER], "freezer.state");
	return state && strncmp(state, frozen ? "FROZEN" : "THAWED", 6) == 0;
}

int cgroup_freeze(struct cgroup *g, bool frozen, struct err *err)
{
	int dir = cgroup_dir(g, CGROUP_FREEZER), r;

	if (g->manager == CGROUP_MANAGER_DISABLED)
		return err_set(err, ENOTSUP, "a container without a cgroup can not be paused");
	r = g->v2 ? cgroup_write(dir, "cgroup.freeze", frozen ? "1" : "0", err)
		  : cgroup_write(dir, "freezer.state", frozen ? "FROZEN" : "THAWED", err);
	for (int i = 0; r == 0 && i < 1000; i++) {
		if (freeze_done(g, frozen))
			return 0;
		/* version 1 may hang in FREEZING when a process forks at the same time: ask again */
		if (!g->v2 && frozen && i % 50 == 49)
			r = cgroup_write(dir, "freezer.state", "FROZEN", err);
		(void)usleep(i < 20 ? 200 : 2000);
	}
	return r < 0 ? r : err_set(err, ETIMEDOUT, "the container did not %s in time", frozen ? "freeze" : "thaw");
}

static int collect(int dir, unsigned int depth, pid_t **pids, size_t *n)
{
	CLEAN_FREE char *text = cgroup_read(dir, "cgroup.procs");
	CLEAN_DIR DIR *d = NULL;
	struct dirent *e;
	int fd;

	for (char *p = text, *end; p && *p; p = end) {
		long pid = strtol(p, &end, 10);
		pid_t *more;

		if (end == p)
			break;
		end += strspn(end, "\n");
		if (!pid) /* of a pid namespace that is not below ours */
			continue;
		more = realloc(*pids, (*n + 1) * sizeof(pid_t));
		if (!more)
			return -ENOMEM;
		*pids = more;
		(*pids)[(*n)++] = (pid_t)pid;
	}
	fd = dir < 0 ? -1 : openat(dir, ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (fd < 0 || depth >= DEPTH_MAX || !(d = fdopendir(fd))) {
		if (fd >= 0)
			(void)close(fd);
		return 0;
	}
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
	int dir = cgroup_dir(g, CGROUP_PIDS), r;

	for (int i = 0; dir < 0 && i < CGROUP_CONTROLLERS; i++)
		dir = g->dir[i];
	*n = 0;
	r = collect(dir, 0, &list, n);
	if (r < 0)
		return err_sys(err, -r, "cannot list the container's processes");
	*pids = take_ptr(list);
	return 0;
}

int cgroup_signal(struct cgroup *g, int sig, struct err *err)
{
	CLEAN_FREE pid_t *pids = NULL;
	size_t n = 0;
	int r = sig == SIGKILL ? cgroup_kill(g, err) : cgroup_pids(g, &pids, &n, err);

	for (size_t i = 0; r == 0 && i < n; i++)
		if (kill(pids[i], sig) < 0 && errno != ESRCH)
			r = err_sys(err, errno, "cannot send signal %d to process %d", sig, pids[i]);
	return r;
}

int cgroup_kill(struct cgroup *g, struct err *err)
{
	if (g->manager == CGROUP_MANAGER_DISABLED)
		return 0;
	/* on a hybrid machine too: what forks meanwhile is killed; the rest of the loop thaws and looks for strays */
	if (fd_write_file(g->dir[CGROUP_UNIFIED], "cgroup.kill", O_WRONLY, "1", 1, NULL) == 0 && g->v2)
		return 0;
	for (int round = 0; round < 50; round++) {
		CLEAN_FREE pid_t *pids = NULL;
		size_t n;
		int r = cgroup_pids(g, &pids, &n, err);

		if (r < 0 || n == 0)
			return r;
		/* something forks faster than it is killed: hold it still meanwhile */
		if (round > 10 && cgroup_freeze(g, true, NULL) < 0)
			(void)usleep(100);
		for (size_t i = 0; i < n; i++)
			if (pids[i] != getpid())
				(void)kill(pids[i], SIGKILL);
		/* a frozen process of version 1 does not die */
		r = cgroup_frozen(g) ? cgroup_freeze(g, false, NULL) : 0;
		(void)usleep(r < 0 || round > 10 ? 2000 : 200);
	}
	return 0; /* zombies that their parent has not reaped are still listed */
}

static uint64_t limit_of(uint64_t n)
{
	return n > UINT64_C(1) << 60 ? 0 : n;
}

int cgroup_stats(struct cgroup *g, struct container_stats *o, struct err *err)
{
	int mem = cgroup_dir(g, CGROUP_MEMORY), acct = cgroup_dir(g, CGROUP_CPUACCT), pids = cgroup_dir(g, CGROUP_PIDS);

	*o = (struct container_stats){ 0 };
	if (g->v2) {
		o->memory_usage = cgroup_number(mem, "memory.current");
		o->memory_limit = limit_of(cgroup_number(mem, "memory.max"));
		o->memory_max_usage = cgroup_number(mem, "memory.peak");
		o->memory_cache = cgroup_key(mem, "memory.stat", "file");
		o->oom_kills = cgroup_key(mem, "memory.events", "oom_kill");
		o->cpu_total_ns = cgroup_key(acct, "cpu.stat", "usage_usec") * 1000;
		o->cpu_user_ns = cgroup_key(acct, "cpu.stat", "user_usec") * 1000;
		o->cpu_system_ns = cgroup_key(acct, "cpu.stat", "system_usec") * 1000;
	} else {
		o->memory_usage = cgroup_number(mem, "memory.usage_in_bytes");
		o->memory_limit = limit_of(cgroup_number(mem, "memory.limit_in_bytes"));
		o->memory_max_usage = cgroup_number(mem, "memory.max_usage_in_bytes");
		o->memory_cache = cgroup_key(mem, "memory.stat", "total_cache");
		o->oom_kills = cgroup_key(mem, "memory.oom_control", "oom_kill");
		o->cpu_total_ns = cgroup_number(acct, "cpuacct.usage");
		o->cpu_user_ns = cgroup_number(acct, "cpuacct.usage_user");
		o->cpu_system_ns = cgroup_number(acct, "cpuacct.usage_sys");
	}
	o->pids_current = cgroup_number(pids, "pids.current");
	o->pids_limit = limit_of(cgroup_number(pids, "pids.max"));
	return 0;
}

static json_int_t as_int(uint64_t n)
{
	return n > INT64_MAX ? INT64_MAX : (json_int_t)n;
}

/* "key value" lines as an object. */
static json_t *flat_file(int dir, const char *file)
{
	CLEAN_FREE char *text = cgroup_read(dir, file);
	json_t *o = json_object();
	char *save = NULL;

	for (char *l = text ? strtok_r(text, "\n", &save) : NULL; o && l; l = strtok_r(NULL, "\n", &save)) {
		char *space = strchr(l, ' ');

		if (!space)
			continue;
		*space = 0;
		if (json_object_set_new(o, l, json_integer((json_int_t)strtoull(space + 1, NULL, 10))) < 0)
			break;
	}
	return o;
}

/* "MAJOR:MINOR Operation value" lines of version 1; the total line has no device. */
static json_t *block_file(int dir, const char *file)
{
	CLEAN_FREE char *text = cgroup_read(dir, file);
	json_t *a = json_array();
	char *save = NULL, op[16];
	unsigned int major, minor;
	unsigned long long value;

	for (char *l = text ? strtok_r(text, "\n", &save) : NULL; a && l; l = strtok_r(NULL, "\n", &save))
		if (sscanf(l, "%u:%u %15s %llu", &major, &minor, op, &value) == 4 &&
		    json_array_append_new(a, json_pack("{s:I, s:I, s:s, s:I}", "major", (json_int_t)major, "minor",
						       (json_int_t)minor, "op", op, "value", (json_int_t)value)) < 0)
			break;
	return a;
}

/* io.stat of version 2, "MAJOR:MINOR rbytes=1 wbytes=2 rios=3 wios=4", as version 1 has it: what runc prints. */
static void block_line(char *line, json_t *bytes, json_t *ios)
{
	static const struct {
		const char *key, *op;
		bool io;
	} keys[] = {
		{ "rbytes=", "Read", false },
		{ "wbytes=", "Write", false },
		{ "rios=", "Read", true },
		{ "wios=", "Write", true },
	};
	unsigned int major, minor;

	if (sscanf(line, "%u:%u ", &major, &minor) != 2)
		return;
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		const char *at = strstr(line, keys[i].key);

		if (at &&
		    json_array_append_new(keys[i].io ? ios : bytes,
					  json_pack("{s:I, s:I, s:s, s:I}", "major", (json_int_t)major, "minor",
						    (json_int_t)minor, "op", keys[i].op, "value",
						    (json_int_t)strtoull(at + strlen(keys[i].key), NULL, 10))) < 0)
			return;
	}
}

static json_t *block_stats(const struct cgroup *g)
{
	static const char recursive[] = "blkio.throttle.io_service_bytes_recursive";
	int dir = cgroup_dir(g, CGROUP_BLKIO);
	json_t *bytes, *ios;

	if (g->v2) {
		CLEAN_FREE char *text = cgroup_read(dir, "io.stat");
		char *save = NULL;

		bytes = json_array();
		ios = json_array();
		for (char *l = text ? strtok_r(text, "\n", &save) : NULL; l; l = strtok_r(NULL, "\n", &save))
			block_line(l, bytes, ios);
	} else if (cgroup_has(dir, recursive)) {
		bytes = block_file(dir, recursive);
		ios = block_file(dir, "blkio.throttle.io_serviced_recursive");
	} else {
		bytes = block_file(dir, "blkio.throttle.io_service_bytes");
		ios = block_file(dir, "blkio.throttle.io_serviced");
	}
	return json_pack("{s:o, s:o}", "ioServiceBytesRecursive", bytes, "ioServicedRecursive", ios);
}

/* Of every page size that the cgroup has files for. */
static json_t *hugepage_stats(const struct cgroup *g)
{
	int dir = cgroup_dir(g, CGROUP_HUGETLB),
	    copy = dir < 0 ? -1 : openat(dir, ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	const char *suffix = g->v2 ? ".current" : ".usage_in_bytes";
	json_t *o = json_object();
	CLEAN_DIR DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	char name[300];

	while (d && (e = readdir(d))) {
		const char *size = e->d_name + 8,
			   *end = strncmp(e->d_name, "hugetlb.", 8) == 0 ? strchr(size, '.') : NULL;
		char key[32];

		if (!end || strcmp(end, suffix) != 0)
			continue;
		(void)snprintf(key, sizeof(key), "%.*s", (int)(end - size), size);
		(void)snprintf(name, sizeof(name), "hugetlb.%s%s", key, g->v2 ? ".events" : ".failcnt");
		if (json_object_set_new(
			    o, key,
			    json_pack("{s:I, s:I}", "usage", as_int(cgroup_number(dir, e->d_name)), "failcnt",
				      as_int(g->v2 ? cgroup_key(dir, name, "max") : cgroup_number(dir, name)))) < 0)
			break;
	}
	return o;
}

/* What a kind of memory is limited to and uses; swap counts memory and swap together. */
static json_t *memory_kind(const struct cgroup *g, const char *v1, const char *v2)
{
	int dir = cgroup_dir(g, CGROUP_MEMORY);
	const char *base = g->v2 ? v2 : v1;
	char limit[64], usage[64], max[64], failed[64];

	(void)snprintf(limit, sizeof(limit), "%s%s", base ? base : "", g->v2 ? ".max" : ".limit_in_bytes");
	(void)snprintf(usage, sizeof(usage), "%s%s", base ? base : "", g->v2 ? ".current" : ".usage_in_bytes");
	(void)snprintf(max, sizeof(max), "%s%s", base ? base : "", g->v2 ? ".peak" : ".max_usage_in_bytes");
	(void)snprintf(failed, sizeof(failed), "%s.failcnt", base ? base : "");
	return json_pack("{s:I, s:I, s:I, s:I}", "limit", base ? as_int(cgroup_number(dir, limit)) : 0, "usage",
			 base ? as_int(cgroup_number(dir, usage)) : 0, "max",
			 base ? as_int(cgroup_number(dir, max)) : 0, "failcnt",
			 base && !g->v2 ? as_int(cgroup_number(dir, failed)) : 0);
}

json_t *cgroup_stats_json(struct cgroup *g, struct err *err)
{
	struct container_stats s;
	int mem = cgroup_dir(g, CGROUP_MEMORY), cpu = cgroup_dir(g, CGROUP_CPU);
	json_t *o;

	if (cgroup_stats(g, &s, err) < 0)
		return NULL;
	o = json_pack("{s:{s:{s:I, s:I, s:I}, s:{s:I, s:I, s:I}}, s:{s:{s:I, s:I, s:I, s:I}, s:I, s:o, s:o, s:o, s:o}, "
		      "s:{s:I, s:I}, s:o, s:o}",
		      "cpu", "usage", "total", as_int(s.cpu_total_ns), "kernel", as_int(s.cpu_system_ns), "user",
		      as_int(s.cpu_user_ns), "throttling", "periods", as_int(cgroup_key(cpu, "cpu.stat", "nr_periods")),
		      "throttledPeriods", as_int(cgroup_key(cpu, "cpu.stat", "nr_throttled")), "throttledTime",
		      as_int(g->v2 ? cgroup_key(cpu, "cpu.stat", "throttled_usec") * 1000
				   : cgroup_key(cpu, "cpu.stat", "throttled_time")),
		      "memory", "usage", "limit", as_int(s.memory_limit ? s.memory_limit : UINT64_MAX), "usage",
		      as_int(s.memory_usage), "max", as_int(s.memory_max_usage), "failcnt",
		      as_int(g->v2 ? cgroup_key(mem, "memory.events", "max") : cgroup_number(mem, "memory.failcnt")),
		      "cache", as_int(s.memory_cache), "raw", flat_file(mem, "memory.stat"), "swap",
		      memory_kind(g, "memory.memsw", "memory.swap"), "kernel", memory_kind(g, "memory.kmem", NULL),
		      "kernelTCP", memory_kind(g, "memory.kmem.tcp", NULL), "pids", "current", as_int(s.pids_current),
		      "limit", as_int(s.pids_limit), "blkio", block_stats(g), "hugetlb", hugepage_stats(g));
	if (!o)
		(void)err_set(err, ENOMEM, "out of memory");
	return o;
}

int cgroup_oom_open(struct cgroup *g, struct err *err)
{
	int dir = cgroup_dir(g, CGROUP_MEMORY);
	CLEAN_FD int fd = -1, control = -1;
	char text[64], path[48];

	if (g->v2) {
		fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d/memory.events", dir);
		if (fd < 0 || inotify_add_watch(fd, path, IN_MODIFY) < 0)
			return err_sys(err, errno, "cannot watch the cgroup's memory.events");
		return take_fd(&fd);
	}
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	control = dir < 0 ? -1 : openat(dir, "memory.oom_control", O_RDONLY | O_CLOEXEC);
	(void)snprintf(text, sizeof(text), "%d %d", fd, control);
	if (fd < 0 || control < 0)
		return err_sys(err, errno, "cannot watch the cgroup's memory.oom_control");
	if (cgroup_write(dir, "cgroup.event_control", text, err) < 0)
		return -err->code;
	return take_fd(&fd);
}

uint64_t cgroup_oom_read(struct cgroup *g, int fd)
{
	int dir = cgroup_dir(g, CGROUP_MEMORY);
	char bytes[1024];

	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
	return g->v2 ? cgroup_key(dir, "memory.events", "oom_kill") : cgroup_key(dir, "memory.oom_control", "oom_kill");
}

json_t *cgroup_features(void)
{
	/* systemd: its driver has not been tried on a machine that runs systemd, so it is not claimed */
	return json_pack("{s:b, s:b, s:b, s:b, s:b}", "v1", true, "v2", true, "systemd", false, "systemdUser", false,
			 "rdma", true);
}
