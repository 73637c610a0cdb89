/* SPDX-License-Identifier: Apache-2.0 */
/* Limits (runtime-spec, config-linux.md, "Control groups") as files of version 1 and version 2. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/cgroup_internal.h"
#include "container/cgroup_systemd.h"

void cgroup_set(struct cgroup_settings *s, int dir, const char *file, const char *fmt, ...)
{
	struct cgroup_setting *i = &s->item[s->n];
	va_list ap;
	int n;

	if (s->err.code)
		return;
	if (s->n == CGROUP_SETTINGS_MAX || strlen(file) >= sizeof(i->file)) {
		(void)err_set(&s->err, E2BIG, "linux.resources asks for more than %d settings", CGROUP_SETTINGS_MAX);
		return;
	}
	*i = (struct cgroup_setting){ .dir = dir };
	(void)strcpy(i->file, file);
	va_start(ap, fmt);
	n = vsnprintf(i->value, sizeof(i->value), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(i->value))
		(void)err_set(&s->err, E2BIG, "linux.resources: the value for %s is too long", file);
	s->n++;
}

void cgroup_set_limit(struct cgroup_settings *s, int dir, const char *file, int64_t n, const char *unlimited)
{
	if (n < 0)
		cgroup_set(s, dir, file, "%s", unlimited);
	else
		cgroup_set(s, dir, file, "%" PRId64, n);
}

/* A value may be refused for the sake of another that comes later (memory and memory+swap, quota and period). */
int cgroup_settings_write(struct cgroup_settings *s, struct err *err)
{
	if (s->err.code) {
		*err = s->err;
		return -err->code;
	}
	for (int round = 0; round < 3; round++)
		for (size_t i = 0; i < s->n; i++) {
			struct cgroup_setting *item = &s->item[i];
			int r = item->done ? 0 : cgroup_write(item->dir, item->file, item->value, err);

			item->done = item->done || r == 0;
			if (r < 0 && (r != -EINVAL || round == 2))
				return r;
		}
	return 0;
}

bool cgroup_swap_possible(void)
{
	CLEAN_FREE char *text = fd_read_file(-1, "/proc/swaps", 65536, NULL, NULL);
	const char *line = text ? strchr(text, '\n') : NULL;

	return line && line[1];
}

static int check_use(int dir, const char *file, const struct oci_resources *m, struct err *err)
{
	if (!m->memory_check || m->memory_limit <= 0 || cgroup_number(dir, file) <= (uint64_t)m->memory_limit)
		return 0;
	return err_set(err, EBUSY,
		       "linux.resources.memory.checkBeforeUpdate: more is used than the new limit of %" PRId64 " bytes",
		       m->memory_limit);
}

/* memory.kernel: the kernel gave it up (5.16: EOPNOTSUPP); the specification allows to go without (NOT RECOMMENDED). */
static int kernel_memory_v1(int dir, const struct oci_resources *m, struct err *err)
{
	char text[24];
	int r;

	if (!m->memory_kernel)
		return 0;
	(void)snprintf(text, sizeof(text), "%" PRId64, m->memory_kernel);
	r = cgroup_write(dir, "memory.kmem.limit_in_bytes", text, err);
	return r == -EOPNOTSUPP || r == -ENOENT ? 0 : r;
}

static int memory_v1(struct cgroup *g, struct cgroup_settings *s, const struct oci_resources *m, struct err *err)
{
	int dir = g->dir[CGROUP_MEMORY], r;
	bool memsw = cgroup_has(dir, "memory.memsw.limit_in_bytes");
	int64_t swap = m->memory_swap;

	if ((r = check_use(dir, "memory.usage_in_bytes", m, err)) < 0 || (r = kernel_memory_v1(dir, m, err)) < 0)
		return r;
	if (swap > 0 && dir >= 0 && !memsw && cgroup_swap_possible())
		return err_set(err, ENOTSUP,
			       "linux.resources.memory.swap: this kernel does not account swap (boot it with "
			       "swapaccount=1)");

	if (m->memory_limit)
		cgroup_set_limit(s, dir, "memory.limit_in_bytes", m->memory_limit, "-1");
	/* an unlimited memory with a limited sum of both makes no sense: as runc, both */
	if (m->memory_limit < 0 && !swap)
		swap = -1;
	if (swap && memsw)
		cgroup_set_limit(s, dir, "memory.memsw.limit_in_bytes", swap, "-1");
	if (m->memory_reservation)
		cgroup_set_limit(s, dir, "memory.soft_limit_in_bytes", m->memory_reservation, "-1");
	if (m->memory_kernel_tcp)
		cgroup_set_limit(s, dir, "memory.kmem.tcp.limit_in_bytes", m->memory_kernel_tcp, "-1");
	if (m->memory_swappiness_given)
		cgroup_set(s, dir, "memory.swappiness", "%" PRIu64, m->memory_swappiness);
	if (m->oom_kill_disable)
		cgroup_set(s, dir, "memory.oom_control", "1");
	else if (m->oom_kill_given && cgroup_key(dir, "memory.oom_control", "oom_kill_disable"))
		cgroup_set(s, dir, "memory.oom_control", "0");
	if (m->use_hierarchy && !cgroup_number(dir, "memory.use_hierarchy"))
		cgroup_set(s, dir, "memory.use_hierarchy", "1");
	return 0;
}

static void cpu_v1(struct cgroup *g, struct cgroup_settings *s, const struct oci_resources *c)
{
	int dir = g->dir[CGROUP_CPU], set = g->dir[CGROUP_CPUSET];

	if (c->cpu_shares)
		cgroup_set(s, dir, "cpu.shares", "%" PRIu64, c->cpu_shares);
	if (c->cpu_period)
		cgroup_set(s, dir, "cpu.cfs_period_us", "%" PRIu64, c->cpu_period);
	if (c->cpu_quota)
		cgroup_set_limit(s, dir, "cpu.cfs_quota_us", c->cpu_quota, "-1");
	if (c->cpu_burst_given)
		cgroup_set(s, dir, "cpu.cfs_burst_us", "%" PRIu64, c->cpu_burst);
	if (c->cpu_rt_period)
		cgroup_set(s, dir, "cpu.rt_period_us", "%" PRIu64, c->cpu_rt_period);
	if (c->cpu_rt_runtime_given)
		cgroup_set(s, dir, "cpu.rt_runtime_us", "%" PRId64, c->cpu_rt_runtime);
	if (c->cpu_idle_given)
		cgroup_set(s, dir, "cpu.idle", "%" PRId64, c->cpu_idle);
	if (c->cpuset_cpus && *c->cpuset_cpus)
		cgroup_set(s, set, "cpuset.cpus", "%s", c->cpuset_cpus);
	if (c->cpuset_mems && *c->cpuset_mems)
		cgroup_set(s, set, "cpuset.mems", "%s", c->cpuset_mems);
}

static void block_v1(struct cgroup *g, struct cgroup_settings *s, const struct oci_resources *b)
{
	static const char *const files[] = { "blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device",
					     "blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device" };
	int dir = g->dir[CGROUP_BLKIO];
	/* the weights are those of the I/O scheduler: CFQ's until Linux 4.20, BFQ's since */
	bool bfq = !cgroup_has(dir, "blkio.weight");
	const char *weight = bfq ? "blkio.bfq.weight" : "blkio.weight";

	if (b->block_weight)
		cgroup_set(s, dir, weight, "%u", b->block_weight);
	if (b->block_leaf_weight)
		cgroup_set(s, dir, "blkio.leaf_weight", "%u", b->block_leaf_weight);
	for (size_t i = 0; i < b->block_weights_count; i++) {
		const struct oci_block_weight *w = &b->block_weights[i];

		if (w->weight)
			cgroup_set(s, dir, bfq ? "blkio.bfq.weight_device" : "blkio.weight_device", "%u:%u %u",
				   w->major, w->minor, w->weight);
		if (w->leaf_weight)
			cgroup_set(s, dir, "blkio.leaf_weight_device", "%u:%u %u", w->major, w->minor, w->leaf_weight);
	}
	for (size_t i = 0; i < b->throttles_count; i++)
		cgroup_set(s, dir, files[b->throttles[i].kind], "%u:%u %" PRIu64, b->throttles[i].major,
			   b->throttles[i].minor, b->throttles[i].rate);
}

static void rdma(int dir, struct cgroup_settings *s, const struct oci_resources *r)
{
	for (size_t i = 0; i < r->rdma_count; i++) {
		char handles[48] = "", objects[48] = "";

		if (r->rdma[i].hca_handles >= 0)
			(void)snprintf(handles, sizeof(handles), " hca_handle=%" PRId64, r->rdma[i].hca_handles);
		if (r->rdma[i].hca_objects >= 0)
			(void)snprintf(objects, sizeof(objects), " hca_object=%" PRId64, r->rdma[i].hca_objects);
		cgroup_set(s, dir, "rdma.max", "%s%s%s", r->rdma[i].device, handles, objects);
	}
}

/* The limit of what is used, and, where the kernel has it (5.7), of what is reserved: as runc and crun. */
static void hugepages(int dir, struct cgroup_settings *s, const struct oci_resources *r, const char *limit)
{
	char file[64];

	for (size_t i = 0; i < r->hugepages_count; i++) {
		(void)snprintf(file, sizeof(file), "hugetlb.%s.%s", r->hugepages[i].page_size, limit);
		cgroup_set(s, dir, file, "%" PRIu64, r->hugepages[i].limit);
		(void)snprintf(file, sizeof(file), "hugetlb.%s.rsvd.%s", r->hugepages[i].page_size, limit);
		if (cgroup_has(dir, file))
			cgroup_set(s, dir, file, "%" PRIu64, r->hugepages[i].limit);
	}
}

int cgroup_apply_v1(struct cgroup *g, const struct oci_resources *r, struct err *err)
{
	struct cgroup_settings *s CLEAN_FREE = calloc(1, sizeof(*s));
	bool v2_pages = g->dir[CGROUP_HUGETLB] < 0 && g->dir[CGROUP_UNIFIED] >= 0;
	int n;

	if (!s)
		return err_set(err, ENOMEM, "out of memory");
	if (r->unified_count)
		return err_set(
			err, ENOTSUP,
			"invalid configuration: linux.resources.unified needs cgroup version 2, and this machine "
			"has version 1");
	n = memory_v1(g, s, r, err);
	if (n < 0)
		return n;
	cpu_v1(g, s, r);
	if (r->pids_limit)
		cgroup_set_limit(s, g->dir[CGROUP_PIDS], "pids.max", r->pids_limit, "max");
	block_v1(g, s, r);
	/* on a hybrid machine the controller may be the v2 tree's */
	if (v2_pages)
		hugepages(g->dir[CGROUP_UNIFIED], s, r, "max");
	else
		hugepages(g->dir[CGROUP_HUGETLB], s, r, "limit_in_bytes");
	if (r->net_class)
		cgroup_set(s, g->dir[CGROUP_NET_CLS], "net_cls.classid", "%u", r->net_class);
	for (size_t i = 0; i < r->net_priorities_count; i++)
		cgroup_set(s, g->dir[CGROUP_NET_PRIO], "net_prio.ifpriomap", "%s %u", r->net_priorities[i].name,
			   r->net_priorities[i].priority);
	rdma(g->dir[CGROUP_RDMA], s, r);
	return cgroup_settings_write(s, err);
}

static int memory_v2(int dir, struct cgroup_settings *s, const struct oci_resources *m, struct err *err)
{
	int64_t swap = m->memory_swap;

	int64_t limit = m->memory_limit;
	uint64_t now;

	if (check_use(dir, "memory.current", m, err) < 0)
		return -err->code;
	/* an update of the sum alone: of the limit that holds */
	now = swap > 0 && !limit ? cgroup_number(dir, "memory.max") : 0;
	if (now && now < INT64_MAX)
		limit = (int64_t)now;
	if (limit > 0 && swap > 0 && swap < limit)
		return err_set(err, EINVAL,
			       "linux.resources.memory.swap (memory and swap together) is below memory.limit");
	if (swap > 0 && limit <= 0)
		return err_set(err, EINVAL, "linux.resources.memory.swap needs memory.limit, with cgroup version 2");
	if (swap > 0 && !cgroup_has(dir, "memory.swap.max") && cgroup_swap_possible())
		return err_set(err, ENOTSUP, "linux.resources.memory.swap: the cgroup has no memory.swap.max");
	if (m->memory_limit < 0 && !swap)
		swap = -1;
	if (swap && cgroup_has(dir, "memory.swap.max"))
		cgroup_set_limit(s, dir, "memory.swap.max", swap < 0 ? -1 : swap - limit, "max");
	if (m->memory_limit)
		cgroup_set_limit(s, dir, "memory.max", m->memory_limit, "max");
	if (m->memory_reservation)
		cgroup_set_limit(s, dir, "memory.low", m->memory_reservation, "max");
	return 0;
}

static void cpu_v2(int dir, struct cgroup_settings *s, const struct oci_resources *c)
{
	CLEAN_FREE char *now = c->cpu_quota || c->cpu_period ? cgroup_read(dir, "cpu.max") : NULL;
	const char *space = now ? strchr(now, ' ') : NULL;
	uint64_t period = c->cpu_period ? c->cpu_period : space ? strtoull(space, NULL, 10) : 0;
	int64_t quota = c->cpu_quota ? c->cpu_quota : now ? strtoll(now, NULL, 10) : 0; /* "max" is 0 */

	if (!period)
		period = 100000; /* the kernel's default */
	if (c->cpu_idle_given)
		cgroup_set(s, dir, "cpu.idle", "%" PRId64, c->cpu_idle);
	/* shares 2 to 262144 are weights 1 to 10000 */
	if (c->cpu_shares && !(c->cpu_idle_given && c->cpu_idle)) {
		uint64_t n = c->cpu_shares < 2 ? 2 : c->cpu_shares > 262144 ? 262144 : c->cpu_shares;

		cgroup_set(s, dir, "cpu.weight", "%" PRIu64, 1 + (n - 2) * 9999 / 262142);
	}
	/* quota and period are one file: what is not given stays */
	if (now || c->cpu_quota || c->cpu_period)
		(quota > 0 ? cgroup_set(s, dir, "cpu.max", "%" PRId64 " %" PRIu64, quota, period)
			   : cgroup_set(s, dir, "cpu.max", "max %" PRIu64, period));
	if (c->cpu_burst_given)
		cgroup_set(s, dir, "cpu.max.burst", "%" PRIu64, c->cpu_burst);
	if (c->cpuset_cpus && *c->cpuset_cpus)
		cgroup_set(s, dir, "cpuset.cpus", "%s", c->cpuset_cpus);
	if (c->cpuset_mems && *c->cpuset_mems)
		cgroup_set(s, dir, "cpuset.mems", "%s", c->cpuset_mems);
}

/* blkio's 10 to 1000 are io.weight's 1 to 10000 */
static unsigned int io_weight(unsigned int weight)
{
	return 1 + (weight - 10U) * 9999U / 990U;
}

static bool has_leaf_weight(const struct oci_resources *b)
{
	for (size_t i = 0; i < b->block_weights_count; i++)
		if (b->block_weights[i].leaf_weight)
			return true;
	return b->block_leaf_weight != 0;
}

static void block_v2(int dir, struct cgroup_settings *s, const struct oci_resources *b)
{
	static const char *const keys[] = { "rbps", "wbps", "riops", "wiops" };
	bool bfq = cgroup_has(dir, "io.bfq.weight");

	if (b->block_weight && bfq)
		cgroup_set(s, dir, "io.bfq.weight", "%u", b->block_weight);
	else if (b->block_weight)
		cgroup_set(s, dir, "io.weight", "%u", io_weight(b->block_weight));
	for (size_t i = 0; i < b->block_weights_count; i++)
		if (b->block_weights[i].weight)
			cgroup_set(s, dir, bfq ? "io.bfq.weight" : "io.weight", "%u:%u %u", b->block_weights[i].major,
				   b->block_weights[i].minor,
				   bfq ? b->block_weights[i].weight : io_weight(b->block_weights[i].weight));
	for (size_t i = 0; i < b->throttles_count; i++) {
		const struct oci_throttle *t = &b->throttles[i];

		if (t->rate)
			cgroup_set(s, dir, "io.max", "%u:%u %s=%" PRIu64, t->major, t->minor, keys[t->kind], t->rate);
		else
			cgroup_set(s, dir, "io.max", "%u:%u %s=max", t->major, t->minor, keys[t->kind]);
	}
}

static int unified(struct cgroup *g, struct cgroup_settings *s, const struct oci_resources *r, struct err *err)
{
	for (size_t i = 0; i < r->unified_count; i++) {
		const char *key = r->unified[i].key;

		/* a file of a controller, of this cgroup; cgroup.* is not a limit but the runtime's own business */
		if (strchr(key, '/') || !strchr(key, '.') || key[0] == '.')
			return err_set(err, EINVAL,
				       "linux.resources.unified: '%s' is not the name of a file like memory.high", key);
		cgroup_set(s, g->dir[CGROUP_UNIFIED], key, "%s", r->unified[i].value);
	}
	return 0;
}

int cgroup_apply_v2(struct cgroup *g, const struct oci_resources *r, struct err *err)
{
	struct cgroup_settings *s CLEAN_FREE = calloc(1, sizeof(*s));
	int dir = g->dir[CGROUP_UNIFIED], n;

	if (!s)
		return err_set(err, ENOMEM, "out of memory");
	if (r->cpu_rt_runtime_given || r->cpu_rt_period)
		return err_set(err, ENOTSUP,
			       "linux.resources.cpu: cgroup version 2 has no realtimeRuntime and realtimePeriod");
	if (r->net_class || r->net_priorities_count)
		return err_set(err, ENOTSUP, "linux.resources.network: cgroup version 2 has no classID and priorities");
	if (has_leaf_weight(r))
		return err_set(err, ENOTSUP, "linux.resources.blockIO: cgroup version 2 has no leafWeight");
	if (r->memory_kernel > 0 || r->memory_kernel_tcp > 0 || r->memory_swappiness_given || r->oom_kill_disable)
		return err_set(
			err, ENOTSUP,
			"linux.resources.memory: cgroup version 2 has no kernel, kernelTCP, swappiness and disableOOMKiller");
	n = memory_v2(dir, s, r, err);
	if (n < 0)
		return n;
	cpu_v2(dir, s, r);
	if (r->pids_limit)
		cgroup_set_limit(s, dir, "pids.max", r->pids_limit, "max");
	block_v2(dir, s, r);
	hugepages(dir, s, r, "max");
	rdma(dir, s, r);
	n = unified(g, s, r, err);
	return n < 0 ? n : cgroup_settings_write(s, err);
}

int cgroup_apply(struct cgroup *g, const struct oci_resources *r, struct err *err)
{
	int n;

	if (g->manager == CGROUP_MANAGER_DISABLED)
		return 0;
	n = cgroup_systemd_update(g, r, err);
	if (n < 0)
		return n;
	return g->v2 ? cgroup_apply_v2(g, r, err) : cgroup_apply_v1(g, r, err);
}

/* What every container may do: runtime-spec, "Default Devices"; as runc's and crun's lists. */
static const struct oci_device_rule always[] = {
	{ true, 'c', OCI_DEVICE_ANY, OCI_DEVICE_ANY, OCI_DEVICE_MKNOD },
	{ true, 'b', OCI_DEVICE_ANY, OCI_DEVICE_ANY, OCI_DEVICE_MKNOD },
	{ true, 'c', 1, 3, 7 },
	{ true, 'c', 1, 5, 7 },
	{ true, 'c', 1, 7, 7 },
	{ true, 'c', 1, 8, 7 },
	{ true, 'c', 1, 9, 7 },
	{ true, 'c', 5, 0, 7 },
	{ true, 'c', 5, 1, 7 },
	{ true, 'c', 5, 2, 7 },
	{ true, 'c', 136, OCI_DEVICE_ANY, 7 },
};

static int write_device_rule(int dir, const struct oci_device_rule *d, char type, struct err *err)
{
	char major[24] = "*", minor[24] = "*", text[80];

	if (d->major != OCI_DEVICE_ANY)
		(void)snprintf(major, sizeof(major), "%" PRId64, d->major);
	if (d->minor != OCI_DEVICE_ANY)
		(void)snprintf(minor, sizeof(minor), "%" PRId64, d->minor);
	(void)snprintf(text, sizeof(text), "%c %s:%s %s%s%s", type, major, minor,
		       d->access & OCI_DEVICE_READ ? "r" : "", d->access & OCI_DEVICE_WRITE ? "w" : "",
		       d->access & OCI_DEVICE_MKNOD ? "m" : "");
	return cgroup_write(dir, d->allow ? "devices.allow" : "devices.deny", type == 'a' ? "a" : text, err);
}

static int devices_v1(int dir, const struct oci_device_rule *rules, size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		const struct oci_device_rule *d = &rules[i];
		bool all = d->type == 'a' && d->access == 7 && d->major == OCI_DEVICE_ANY && d->minor == OCI_DEVICE_ANY;
		int r;

		/* to the kernel an "a" is everything, whatever follows it (cgroup-v1/devices.rst) */
		if (d->type == 'a' && !all) {
			r = write_device_rule(dir, d, 'b', err);
			if (r == 0)
				r = write_device_rule(dir, d, 'c', err);
		} else {
			r = write_device_rule(dir, d, d->type, err);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static bool allows_all(const struct oci_device_rule *d)
{
	return d->allow && d->type == 'a' && d->access == 7 && d->major == OCI_DEVICE_ANY && d->minor == OCI_DEVICE_ANY;
}

int cgroup_apply_devices(struct cgroup *g, const struct oci_resources *r, struct err *err)
{
	const struct oci_device_rule *last = r->devices_count ? &r->devices[r->devices_count - 1] : NULL;
	CLEAN_FREE struct oci_device_rule *all = NULL;
	size_t n = r->devices_count;
	int rc;

	if (!n || g->manager == CGROUP_MANAGER_DISABLED)
		return 0;
	/* everything is allowed: nothing to add, and nothing to load */
	if (allows_all(last) && n == 1 && g->v2)
		return 0;
	all = calloc(n + ARRAY_LEN(always), sizeof(*all));
	if (!all)
		return err_set(err, ENOMEM, "out of memory");
	memcpy(all, r->devices, n * sizeof(*all));
	if (!allows_all(last)) {
		memcpy(all + n, always, sizeof(always));
		n += ARRAY_LEN(always);
	}
	if (g->v2) {
		rc = cgroup_attach_devices(g->dir[CGROUP_UNIFIED], all, n, err);
		/* a user may not load programs, nor make device nodes or mounts without nodev: nothing is lost */
		return g->rootless && rc == -EPERM ? 0 : rc;
	}
	return g->dir[CGROUP_DEVICES] < 0 ? err_set(err, ENOTSUP, "this machine has no cgroup controller for devices")
					  : devices_v1(g->dir[CGROUP_DEVICES], all, n, err);
}
