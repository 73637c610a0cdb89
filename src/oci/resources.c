/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing of linux.resources and linux.intelRdt (runtime-spec, config-linux.md). */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "oci/parse.h"
#include "oci/resources.h"

#define P       "linux.resources."
#define DEV_MAX UINT32_MAX

/* An array of @n+1 zeroed members of @size, so that an empty one is not NULL. */
static void *items(const json_t *array, size_t size, struct err *err)
{
	void *p = calloc(json_array_size(array) + 1, size);

	if (!p)
		(void)oci_no_memory(err);
	return p;
}

static int parse_device_rule(const json_t *v, struct oci_device_rule *d, struct err *err)
{
	const char *type = json_str(v, "type", "a"), *access = json_str(v, "access", "rwm");
	int r;

	if (!json_is_object(v))
		return oci_bad_type(err, P "devices", "an array of objects");
	d->major = d->minor = OCI_DEVICE_ANY;
	if ((r = oci_get_bool(v, P "devices.allow", &d->allow, err)) < 0 ||
	    (r = oci_get_integer(v, P "devices.major", -1, DEV_MAX, &d->major, err)) < 0 ||
	    (r = oci_get_integer(v, P "devices.minor", -1, DEV_MAX, &d->minor, err)) < 0)
		return r;
	if (!*type)
		type = "a";
	d->type = type[0] == 'u' ? 'c' : type[0];
	if (type[1] || !strchr("abc", d->type))
		return err_set(err, EINVAL,
			       "OCI spec: " P "devices.type is '%s': not one of a (all), c, u (character), b (block)",
			       type);
	for (; *access; access++) {
		if (!strchr("rwm", *access))
			return err_set(err, EINVAL,
				       "OCI spec: " P
				       "devices.access has '%c': not one of r (read), w (write), m (mknod)",
				       *access);
		d->access |= *access == 'r' ? OCI_DEVICE_READ : *access == 'w' ? OCI_DEVICE_WRITE : OCI_DEVICE_MKNOD;
	}
	if (!d->access)
		d->access = OCI_DEVICE_READ | OCI_DEVICE_WRITE | OCI_DEVICE_MKNOD;
	return 0;
}

static int parse_devices(const json_t *json, struct oci_resources *res, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = oci_get_array(json, P "devices", &a, err);

	if (r < 0)
		return r;
	res->devices = items(a, sizeof(*res->devices), err);
	if (!res->devices)
		return -ENOMEM;
	json_array_foreach(a, i, v) {
		r = parse_device_rule(v, &res->devices[res->devices_count], err);
		if (r < 0)
			return r;
		res->devices_count++;
	}
	return 0;
}

static int parse_memory(const json_t *json, struct oci_resources *res, struct err *err)
{
	const json_t *m;
	int r = oci_get_object(json, P "memory", &m, err);

	if (r < 0 || !m)
		return r;
	if ((r = oci_get_integer(m, P "memory.limit", -1, INT64_MAX, &res->memory_limit, err)) < 0 ||
	    (r = oci_get_integer(m, P "memory.swap", -1, INT64_MAX, &res->memory_swap, err)) < 0 ||
	    (r = oci_get_integer(m, P "memory.reservation", -1, INT64_MAX, &res->memory_reservation, err)) < 0 ||
	    (r = oci_get_integer(m, P "memory.kernel", -1, INT64_MAX, &res->memory_kernel, err)) < 0 ||
	    (r = oci_get_integer(m, P "memory.kernelTCP", -1, INT64_MAX, &res->memory_kernel_tcp, err)) < 0 ||
	    (r = oci_get_u64(m, P "memory.swappiness", &res->memory_swappiness, &res->memory_swappiness_given, err)) <
		    0 ||
	    (r = oci_get_bool(m, P "memory.disableOOMKiller", &res->oom_kill_disable, err)) < 0 ||
	    (r = oci_get_bool(m, P "memory.useHierarchy", &res->use_hierarchy, err)) < 0 ||
	    (r = oci_get_bool(m, P "memory.checkBeforeUpdate", &res->memory_check, err)) < 0)
		return r;
	res->oom_kill_given = json_is_boolean(json_object_get(m, "disableOOMKiller"));
	/* Docker and containerd write all ones for "the machine's default". */
	if (res->memory_swappiness == UINT64_MAX)
		res->memory_swappiness_given = false;
	if (res->memory_swappiness_given && res->memory_swappiness > 100)
		return err_set(err, EINVAL, "OCI spec: " P "memory.swappiness must be 0 to 100");
	/* swap counts memory and swap together */
	if (res->memory_swap > 0 && res->memory_limit > 0 && res->memory_swap < res->memory_limit)
		return err_set(err, EINVAL,
			       "OCI spec: " P
			       "memory.swap is memory and swap together: it must not be below memory.limit");
	return 0;
}

static int parse_cpu(const json_t *json, struct oci_resources *res, struct err *err)
{
	const json_t *c;
	int r = oci_get_object(json, P "cpu", &c, err);

	if (r < 0 || !c)
		return r;
	if ((r = oci_get_u64(c, P "cpu.shares", &res->cpu_shares, NULL, err)) < 0 ||
	    (r = oci_get_integer(c, P "cpu.quota", -1, INT64_MAX, &res->cpu_quota, err)) < 0 ||
	    (r = oci_get_u64(c, P "cpu.period", &res->cpu_period, NULL, err)) < 0 ||
	    (r = oci_get_u64(c, P "cpu.burst", &res->cpu_burst, &res->cpu_burst_given, err)) < 0 ||
	    (r = oci_get_integer(c, P "cpu.realtimeRuntime", -1, INT64_MAX, &res->cpu_rt_runtime, err)) < 0 ||
	    (r = oci_get_u64(c, P "cpu.realtimePeriod", &res->cpu_rt_period, NULL, err)) < 0 ||
	    (r = oci_get_integer(c, P "cpu.idle", 0, 1, &res->cpu_idle, err)) < 0 ||
	    (r = oci_get_string(c, P "cpu.cpus", &res->cpuset_cpus, err)) < 0 ||
	    (r = oci_get_string(c, P "cpu.mems", &res->cpuset_mems, err)) < 0)
		return r;
	res->cpu_rt_runtime_given = json_is_integer(json_object_get(c, "realtimeRuntime"));
	res->cpu_idle_given = json_is_integer(json_object_get(c, "idle"));
	return 0;
}

static int parse_device_number(const json_t *v, const char *what, unsigned int *major, unsigned int *minor,
			       struct err *err)
{
	int64_t ma = -1, mi = -1;

	if (!json_is_object(v))
		return oci_bad_type(err, what, "an array of objects");
	if (oci_get_integer(v, "major", 0, DEV_MAX, &ma, err) < 0 ||
	    oci_get_integer(v, "minor", 0, DEV_MAX, &mi, err) < 0)
		return err_wrap(err, "%s", what);
	if (ma < 0 || mi < 0)
		return err_set(err, EINVAL, "OCI spec: each of %s needs a major and a minor number", what);
	*major = (unsigned int)ma;
	*minor = (unsigned int)mi;
	return 0;
}

static int parse_weight(const json_t *o, const char *key, uint16_t *out, struct err *err)
{
	int64_t n = 0;
	int r = oci_get_integer(o, key, 0, UINT16_MAX, &n, err);

	if (r < 0)
		return r;
	if (n && (n < 10 || n > 1000))
		return err_set(err, EINVAL, "OCI spec: %s must be 10 to 1000", key);
	*out = (uint16_t)n;
	return 0;
}

static int parse_block_weights(const json_t *b, struct oci_resources *res, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = oci_get_array(b, P "blockIO.weightDevice", &a, err);

	if (r < 0 || !a)
		return r;
	res->block_weights = items(a, sizeof(*res->block_weights), err);
	if (!res->block_weights)
		return -ENOMEM;
	json_array_foreach(a, i, v) {
		struct oci_block_weight *w = &res->block_weights[res->block_weights_count++];

		if ((r = parse_device_number(v, P "blockIO.weightDevice", &w->major, &w->minor, err)) < 0 ||
		    (r = parse_weight(v, P "blockIO.weightDevice.weight", &w->weight, err)) < 0 ||
		    (r = parse_weight(v, P "blockIO.weightDevice.leafWeight", &w->leaf_weight, err)) < 0)
			return r;
	}
	return 0;
}

static int parse_throttles(const json_t *b, struct oci_resources *res, struct err *err)
{
	static const char *const keys[] = { P "blockIO.throttleReadBpsDevice", P "blockIO.throttleWriteBpsDevice",
					    P "blockIO.throttleReadIOPSDevice", P "blockIO.throttleWriteIOPSDevice" };

	for (size_t k = 0; k < ARRAY_LEN(keys); k++) {
		const json_t *a, *v;
		struct oci_throttle *more;
		size_t i;
		int r = oci_get_array(b, keys[k], &a, err);

		if (r < 0)
			return r;
		if (!json_array_size(a))
			continue;
		more = realloc(res->throttles, (res->throttles_count + json_array_size(a)) * sizeof(*more));
		if (!more)
			return oci_no_memory(err);
		res->throttles = more;
		json_array_foreach(a, i, v) {
			struct oci_throttle *t = &res->throttles[res->throttles_count];

			*t = (struct oci_throttle){ .kind = (enum oci_throttle_kind)k };
			if ((r = parse_device_number(v, keys[k], &t->major, &t->minor, err)) < 0 ||
			    (r = oci_get_u64(v, "rate", &t->rate, NULL, err)) < 0)
				return r;
			res->throttles_count++;
		}
	}
	return 0;
}

static int parse_block(const json_t *json, struct oci_resources *res, struct err *err)
{
	const json_t *b;
	int r = oci_get_object(json, P "blockIO", &b, err);

	if (r < 0 || !b)
		return r;
	if ((r = parse_weight(b, P "blockIO.weight", &res->block_weight, err)) < 0 ||
	    (r = parse_weight(b, P "blockIO.leafWeight", &res->block_leaf_weight, err)) < 0 ||
	    (r = parse_block_weights(b, res, err)) < 0)
		return r;
	return parse_throttles(b, res, err);
}

/* "64KB", "2MB", "1GB": what the hugetlb controller's files are called. */
static bool is_page_size(const char *s)
{
	size_t n = s ? strspn(s, "0123456789") : 0;

	return n && n < 10 && s[n] && strchr("KMG", s[n]) && s[n + 1] == 'B' && !s[n + 2];
}

static int parse_hugepages(const json_t *json, struct oci_resources *res, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = oci_get_array(json, P "hugepageLimits", &a, err);

	if (r < 0 || !a)
		return r;
	res->hugepages = items(a, sizeof(*res->hugepages), err);
	if (!res->hugepages)
		return -ENOMEM;
	json_array_foreach(a, i, v) {
		struct oci_hugepage_limit *h = &res->hugepages[res->hugepages_count++];

		if (!json_is_object(v))
			return oci_bad_type(err, P "hugepageLimits", "an array of objects");
		if ((r = oci_get_string(v, P "hugepageLimits.pageSize", &h->page_size, err)) < 0 ||
		    (r = oci_get_u64(v, P "hugepageLimits.limit", &h->limit, NULL, err)) < 0)
			return r;
		if (!is_page_size(h->page_size))
			return err_set(err, EINVAL,
				       "OCI spec: " P
				       "hugepageLimits.pageSize is '%s': not a size such as 64KB, 2MB, 1GB",
				       h->page_size ? h->page_size : "");
	}
	return 0;
}

static int parse_network(const json_t *json, struct oci_resources *res, struct err *err)
{
	const json_t *n, *a, *v;
	int64_t class = 0, priority = 0;
	size_t i;
	int r = oci_get_object(json, P "network", &n, err);

	if (r < 0 || !n)
		return r;
	if ((r = oci_get_integer(n, P "network.classID", 0, UINT32_MAX, &class, err)) < 0 ||
	    (r = oci_get_array(n, P "network.priorities", &a, err)) < 0)
		return r;
	res->net_class = (uint32_t) class;
	res->net_priorities = items(a, sizeof(*res->net_priorities), err);
	if (!res->net_priorities)
		return -ENOMEM;
	json_array_foreach(a, i, v) {
		struct oci_net_priority *p = &res->net_priorities[res->net_priorities_count++];

		if (!json_is_object(v))
			return oci_bad_type(err, P "network.priorities", "an array of objects");
		if ((r = oci_get_string(v, P "network.priorities.name", &p->name, err)) < 0 ||
		    (r = oci_get_integer(v, P "network.priorities.priority", 0, UINT32_MAX, &priority, err)) < 0)
			return r;
		if (!p->name || !*p->name || strpbrk(p->name, " \n"))
			return err_set(err, EINVAL, "OCI spec: " P "network.priorities.name must name an interface");
		p->priority = (uint32_t)priority;
	}
	return 0;
}

static int parse_rdma(const json_t *json, struct oci_resources *res, struct err *err)
{
	const json_t *o;
	const char *key;
	json_t *v;
	int r = oci_get_object(json, P "rdma", &o, err);

	if (r < 0 || !o)
		return r;
	res->rdma = calloc(json_object_size(o) + 1, sizeof(*res->rdma));
	if (!res->rdma)
		return oci_no_memory(err);
	json_object_foreach((json_t *)(uintptr_t)o, key, v) {
		struct oci_rdma_limit *d = &res->rdma[res->rdma_count++];

		d->hca_handles = d->hca_objects = -1;
		if (!json_is_object(v))
			return oci_bad_type(err, P "rdma", "an object of objects");
		if (!*key || strpbrk(key, " \n"))
			return err_set(err, EINVAL, "OCI spec: " P "rdma: '%s' is no name of a device", key);
		d->device = strdup(key);
		if (!d->device)
			return oci_no_memory(err);
		if ((r = oci_get_integer(v, P "rdma.hcaHandles", 0, UINT32_MAX, &d->hca_handles, err)) < 0 ||
		    (r = oci_get_integer(v, P "rdma.hcaObjects", 0, UINT32_MAX, &d->hca_objects, err)) < 0)
			return r;
		if (d->hca_handles < 0 && d->hca_objects < 0)
			return err_set(err, EINVAL, "OCI spec: " P "rdma.%s needs hcaHandles, hcaObjects or both", key);
	}
	return 0;
}

/*
 * "The container runtime MUST NOT interpret": but a key is the name of a file in the container's own cgroup, and
 * nothing else: no path, and not a file that moves processes or controllers about.
 */
static int check_unified_key(const char *key, struct err *err)
{
	if (!*key || strchr(key, '/') || !strchr(key, '.') || key[0] == '.')
		return err_set(err, EINVAL,
			       "OCI spec: " P "unified: '%s' is not the name of a cgroup v2 file such as memory.high",
			       key);
	if (strcmp(key, "cgroup.procs") == 0 || strcmp(key, "cgroup.threads") == 0 || strcmp(key, "cgroup.kill") == 0 ||
	    strcmp(key, "cgroup.freeze") == 0)
		return err_set(err, EINVAL, "OCI spec: " P "unified: %s is the runtime's to write", key);
	return 0;
}

static int parse_unified(const json_t *json, struct oci_resources *res, struct err *err)
{
	const json_t *o;
	const char *key;
	json_t *v;
	int r = oci_get_object(json, P "unified", &o, err);

	if (r < 0 || !o)
		return r;
	res->unified = calloc(json_object_size(o) + 1, sizeof(*res->unified));
	if (!res->unified)
		return oci_no_memory(err);
	json_object_foreach((json_t *)(uintptr_t)o, key, v) {
		struct oci_unified *u = &res->unified[res->unified_count++];

		r = check_unified_key(key, err);
		if (r < 0)
			return r;
		u->key = strdup(key);
		if (!u->key)
			return oci_no_memory(err);
		if ((r = oci_dup_value(v, P "unified", &u->value, err)) < 0)
			return r;
	}
	return 0;
}

int oci_resources_read(const json_t *json, struct oci_resources *res, struct err *err)
{
	const json_t *pids;
	int r;

	if (!json_is_object(json))
		return oci_bad_type(err, "linux.resources", "an object");
	if ((r = parse_memory(json, res, err)) < 0 || (r = parse_cpu(json, res, err)) < 0 ||
	    (r = oci_get_object(json, P "pids", &pids, err)) < 0 ||
	    (r = oci_get_integer(pids, P "pids.limit", -1, INT64_MAX, &res->pids_limit, err)) < 0 ||
	    (r = parse_block(json, res, err)) < 0 || (r = parse_hugepages(json, res, err)) < 0 ||
	    (r = parse_network(json, res, err)) < 0 || (r = parse_rdma(json, res, err)) < 0 ||
	    (r = parse_unified(json, res, err)) < 0)
		return r;
	return parse_devices(json, res, err);
}

void oci_resources_fini(struct oci_resources *r)
{
	free(r->cpuset_cpus);
	free(r->cpuset_mems);
	free(r->block_weights);
	free(r->throttles);
	for (size_t i = 0; i < r->hugepages_count; i++)
		free(r->hugepages[i].page_size);
	free(r->hugepages);
	for (size_t i = 0; i < r->net_priorities_count; i++)
		free(r->net_priorities[i].name);
	free(r->net_priorities);
	for (size_t i = 0; i < r->rdma_count; i++)
		free(r->rdma[i].device);
	free(r->rdma);
	for (size_t i = 0; i < r->unified_count; i++) {
		free(r->unified[i].key);
		free(r->unified[i].value);
	}
	free(r->unified);
	free(r->devices);
	*r = (struct oci_resources){ 0 };
}

int oci_resources_parse(const json_t *json, struct oci_resources **out, struct err *err)
{
	CLEAN(cleanup_oci_resources) struct oci_resources *res = calloc(1, sizeof(*res));
	int r;

	if (!res)
		return oci_no_memory(err);
	r = oci_resources_read(json, res, err);
	if (r < 0)
		return r;
	*out = take_ptr(res);
	return 0;
}

void oci_resources_free(struct oci_resources *r)
{
	if (r)
		oci_resources_fini(r);
	free(r);
}

#undef P
#define P "linux.intelRdt."

int oci_rdt_read(const json_t *json, struct oci_rdt *rdt, struct err *err)
{
	bool cmt = false, mbm = false;
	int r;

	if (!json || json_is_null(json))
		return 0;
	if (!json_is_object(json))
		return oci_bad_type(err, "linux.intelRdt", "an object");
	rdt->given = true;
	if ((r = oci_get_string(json, P "closID", &rdt->clos_id, err)) < 0 ||
	    (r = oci_get_string(json, P "l3CacheSchema", &rdt->l3_schema, err)) < 0 ||
	    (r = oci_get_string(json, P "memBwSchema", &rdt->mem_schema, err)) < 0 ||
	    (r = oci_get_strings(json, P "schemata", &rdt->schemata, err)) < 0 ||
	    (r = oci_get_bool(json, P "enableCMT", &cmt, err)) < 0 ||
	    (r = oci_get_bool(json, P "enableMBM", &mbm, err)) < 0 ||
	    (r = oci_get_bool(json, P "enableMonitoring", &rdt->monitoring, err)) < 0)
		return r;
	rdt->monitoring = rdt->monitoring || cmt || mbm;
	if (rdt->clos_id && (!*rdt->clos_id || strchr(rdt->clos_id, '/') || rdt->clos_id[0] == '.'))
		return err_set(err, EINVAL, "OCI spec: " P "closID is '%s': it must be the name of one folder",
			       rdt->clos_id);
	return 0;
}

void oci_rdt_fini(struct oci_rdt *rdt)
{
	free(rdt->clos_id);
	free(rdt->l3_schema);
	free(rdt->mem_schema);
	oci_free_strings(rdt->schemata);
	*rdt = (struct oci_rdt){ 0 };
}
