/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing of the OCI runtime specification's config.json (runtime-spec 1.0 to 1.x,
 * config.md and config-linux.md). Wrong types and unknown values are errors that
 * name the field. Fields that ask for something this engine does not do are errors too.
 */
#include <ctype.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "oci/spec.h"

#define ITEMS_MAX 100000U /* of one array */

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory while reading the OCI spec");
}

static int bad_type(struct err *err, const char *key, const char *want)
{
	return err_set(err, EINVAL, "OCI spec: %s must be %s", key, want);
}

/* A member that is absent or null is NULL; one of another type is an error. */
static int get_object(const json_t *o, const char *key, const json_t **out, struct err *err)
{
	const json_t *v = json_object_get(o, key);

	*out = NULL;
	if (!v || json_is_null(v))
		return 0;
	if (!json_is_object(v))
		return bad_type(err, key, "an object");
	*out = v;
	return 0;
}

static int get_array(const json_t *o, const char *key, const json_t **out, struct err *err)
{
	const json_t *v = json_object_get(o, key);

	*out = NULL;
	if (!v || json_is_null(v))
		return 0;
	if (!json_is_array(v) || json_array_size(v) > ITEMS_MAX)
		return bad_type(err, key, "an array");
	*out = v;
	return 0;
}

static int dup_value(const json_t *v, const char *key, char **out, struct err *err)
{
	if (!json_is_string(v))
		return bad_type(err, key, "a string");
	if (strlen(json_string_value(v)) != json_string_length(v))
		return bad_type(err, key, "a string without NUL");
	*out = strdup(json_string_value(v));
	return *out ? 0 : no_memory(err);
}

static int get_string(const json_t *o, const char *key, char **out, struct err *err)
{
	const json_t *v = json_object_get(o, key);

	if (!v || json_is_null(v))
		return 0;
	return dup_value(v, key, out, err);
}

static int get_strings(const json_t *o, const char *key, char ***out, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r;

	r = get_array(o, key, &a, err);
	if (r < 0)
		return r;
	*out = calloc(json_array_size(a) + 1, sizeof(char *));
	if (!*out)
		return no_memory(err);
	json_array_foreach(a, i, v) {
		r = dup_value(v, key, &(*out)[i], err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int get_integer(const json_t *o, const char *key, int64_t min, int64_t max, int64_t *out, struct err *err)
{
	const json_t *v = json_object_get(o, key);

	if (!v || json_is_null(v))
		return 0;
	if (!json_is_integer(v))
		return bad_type(err, key, "an integer");
	if (json_integer_value(v) < min || json_integer_value(v) > max)
		return err_set(err, EINVAL, "OCI spec: %s is out of range: %" JSON_INTEGER_FORMAT, key,
			       json_integer_value(v));
	*out = json_integer_value(v);
	return 0;
}

static int get_bool(const json_t *o, const char *key, bool *out, struct err *err)
{
	const json_t *v = json_object_get(o, key);

	if (!v || json_is_null(v))
		return 0;
	if (!json_is_boolean(v))
		return bad_type(err, key, "true or false");
	*out = json_is_true(v);
	return 0;
}

static void free_strings(char **a)
{
	for (size_t i = 0; a && a[i]; i++)
		free(a[i]);
	free((void *)a);
}

static int parse_capability_set(const json_t *caps, const char *key, uint64_t *mask, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = get_array(caps, key, &a, err);

	if (r < 0)
		return r;
	json_array_foreach(a, i, v) {
		int n = json_is_string(v) ? oci_capability_number(json_string_value(v)) : -EINVAL;

		if (n < 0)
			return err_set(err, EINVAL, "OCI spec: unknown capability in %s: %s", key,
				       json_is_string(v) ? json_string_value(v) : "not a string");
		*mask |= UINT64_C(1) << n;
	}
	return 0;
}

static int parse_capabilities(const json_t *json, struct oci_process *p, struct err *err)
{
	const struct {
		const char *key;
		uint64_t *mask;
	} sets[] = {
		{ "bounding", &p->capabilities.bounding },       { "effective", &p->capabilities.effective },
		{ "inheritable", &p->capabilities.inheritable }, { "permitted", &p->capabilities.permitted },
		{ "ambient", &p->capabilities.ambient },
	};
	const json_t *caps;
	int r = get_object(json, "capabilities", &caps, err);

	if (r < 0 || !caps)
		return r;
	p->capabilities_given = true;
	for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
		r = parse_capability_set(caps, sets[i].key, sets[i].mask, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static const struct {
	const char *name;
	int resource;
} rlimits[] = {
	{ "RLIMIT_AS", RLIMIT_AS },
	{ "RLIMIT_CORE", RLIMIT_CORE },
	{ "RLIMIT_CPU", RLIMIT_CPU },
	{ "RLIMIT_DATA", RLIMIT_DATA },
	{ "RLIMIT_FSIZE", RLIMIT_FSIZE },
	{ "RLIMIT_LOCKS", RLIMIT_LOCKS },
	{ "RLIMIT_MEMLOCK", RLIMIT_MEMLOCK },
	{ "RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE },
	{ "RLIMIT_NICE", RLIMIT_NICE },
	{ "RLIMIT_NOFILE", RLIMIT_NOFILE },
	{ "RLIMIT_NPROC", RLIMIT_NPROC },
	{ "RLIMIT_RSS", RLIMIT_RSS },
	{ "RLIMIT_RTPRIO", RLIMIT_RTPRIO },
	{ "RLIMIT_RTTIME", RLIMIT_RTTIME },
	{ "RLIMIT_SIGPENDING", RLIMIT_SIGPENDING },
	{ "RLIMIT_STACK", RLIMIT_STACK },
};

/* An unlimited value is -1 or 2^64-1, which jansson reads as a real. */
static int rlimit_value(const json_t *o, const char *key, uint64_t *out, struct err *err)
{
	const json_t *v = json_object_get(o, key);

	if (json_is_real(v) && json_real_value(v) >= 9.2e18)
		*out = UINT64_MAX;
	else if (json_is_integer(v) && json_integer_value(v) >= -1)
		*out = (uint64_t)json_integer_value(v);
	else
		return err_set(err, EINVAL, "OCI spec: an rlimit's %s must be a number", key);
	return 0;
}

static int parse_rlimits(const json_t *json, struct oci_process *p, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = get_array(json, "rlimits", &a, err);

	if (r < 0 || !a)
		return r;
	p->rlimits = calloc(json_array_size(a) + 1, sizeof(*p->rlimits));
	if (!p->rlimits)
		return no_memory(err);
	json_array_foreach(a, i, v) {
		struct oci_rlimit *l = &p->rlimits[p->rlimits_count];
		const char *type = json_str(v, "type", "");

		l->resource = -1;
		for (size_t k = 0; k < ARRAY_LEN(rlimits); k++)
			if (strcmp(rlimits[k].name, type) == 0)
				l->resource = rlimits[k].resource;
		if (l->resource < 0)
			return err_set(err, EINVAL, "OCI spec: unknown rlimit '%s'", type);
		r = rlimit_value(v, "soft", &l->soft, err);
		if (r == 0)
			r = rlimit_value(v, "hard", &l->hard, err);
		if (r < 0)
			return r;
		if (l->soft > l->hard)
			return err_set(err, EINVAL, "OCI spec: the soft limit of %s is above its hard limit", type);
		p->rlimits_count++;
	}
	return 0;
}

static int parse_user(const json_t *json, struct oci_user *u, struct err *err)
{
	const json_t *user, *a, *v;
	int64_t uid = 0, gid = 0;
	size_t i;
	int r;

	u->umask = -1;
	r = get_object(json, "user", &user, err);
	if (r < 0 || !user)
		return r;
	if ((r = get_integer(user, "uid", 0, UINT32_MAX - 1, &uid, err)) < 0 ||
	    (r = get_integer(user, "gid", 0, UINT32_MAX - 1, &gid, err)) < 0 ||
	    (r = get_integer(user, "umask", 0, 0777, &u->umask, err)) < 0 ||
	    (r = get_string(user, "username", &u->username, err)) < 0 ||
	    (r = get_array(user, "additionalGids", &a, err)) < 0)
		return r;
	u->uid = (uid_t)uid;
	u->gid = (gid_t)gid;
	if (u->username && !*u->username) {
		free(u->username);
		u->username = NULL;
	}
	u->additional_gids = calloc(json_array_size(a) + 1, sizeof(gid_t));
	if (!u->additional_gids)
		return no_memory(err);
	json_array_foreach(a, i, v) {
		if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= UINT32_MAX)
			return bad_type(err, "additionalGids", "an array of group numbers");
		u->additional_gids[u->additional_gids_count++] = (gid_t)json_integer_value(v);
	}
	return 0;
}

static int parse_process(const json_t *json, struct oci_process *p, struct err *err)
{
	const json_t *size;
	int64_t height = 0, width = 0, adj = INT32_MIN;
	int r;

	if (!json_is_object(json))
		return bad_type(err, "process", "an object");
	if ((r = get_bool(json, "terminal", &p->terminal, err)) < 0 ||
	    (r = get_object(json, "consoleSize", &size, err)) < 0 || (r = parse_user(json, &p->user, err)) < 0 ||
	    (r = get_strings(json, "args", &p->args, err)) < 0 || (r = get_strings(json, "env", &p->env, err)) < 0 ||
	    (r = get_string(json, "cwd", &p->cwd, err)) < 0 || (r = parse_capabilities(json, p, err)) < 0 ||
	    (r = parse_rlimits(json, p, err)) < 0 ||
	    (r = get_bool(json, "noNewPrivileges", &p->no_new_privileges, err)) < 0 ||
	    (r = get_integer(json, "oomScoreAdj", -1000, 1000, &adj, err)) < 0)
		return r;
	if ((r = get_integer(size, "height", 0, UINT16_MAX, &height, err)) < 0 ||
	    (r = get_integer(size, "width", 0, UINT16_MAX, &width, err)) < 0)
		return r;
	p->console_height = (unsigned short)height;
	p->console_width = (unsigned short)width;
	p->oom_score_adj_given = adj != INT32_MIN;
	p->oom_score_adj = p->oom_score_adj_given ? (int)adj : 0;
	if (!p->args[0])
		return err_set(err, EINVAL, "OCI spec: process.args must not be empty");
	if (!p->cwd && !(p->cwd = strdup("/")))
		return no_memory(err);
	if (p->cwd[0] != '/')
		return err_set(err, EINVAL, "OCI spec: process.cwd must be an absolute path: '%s'", p->cwd);
	return 0;
}

static int parse_device_rule(const json_t *v, struct oci_device_rule *d, struct err *err)
{
	const char *type = json_str(v, "type", "a"), *access = json_str(v, "access", "rwm");
	int r;

	d->major = d->minor = OCI_DEVICE_ANY;
	if ((r = get_bool(v, "allow", &d->allow, err)) < 0 ||
	    (r = get_integer(v, "major", -1, UINT32_MAX, &d->major, err)) < 0 ||
	    (r = get_integer(v, "minor", -1, UINT32_MAX, &d->minor, err)) < 0)
		return r;
	if (!*type)
		type = "a";
	d->type = type[0] == 'u' ? 'c' : type[0];
	if (type[1] || !strchr("abc", d->type))
		return err_set(err, EINVAL, "OCI spec: unknown type of device '%s' in a device rule", type);
	for (; *access; access++) {
		if (!strchr("rwm", *access))
			return err_set(err, EINVAL, "OCI spec: unknown access '%c' in a device rule", *access);
		d->access |= *access == 'r' ? OCI_DEVICE_READ : *access == 'w' ? OCI_DEVICE_WRITE : OCI_DEVICE_MKNOD;
	}
	if (!d->access)
		d->access = OCI_DEVICE_READ | OCI_DEVICE_WRITE | OCI_DEVICE_MKNOD;
	return 0;
}

/* Limits that this engine does not set: refused unless empty. */
static int refuse(const json_t *o, const char *key, struct err *err)
{
	const json_t *v = json_object_get(o, key);

	if (!v || json_is_null(v) || (json_is_array(v) && json_array_size(v) == 0) ||
	    (json_is_object(v) && json_object_size(v) == 0) || (json_is_integer(v) && json_integer_value(v) == 0) ||
	    (json_is_string(v) && json_string_length(v) == 0))
		return 0;
	return err_set(err, EINVAL, "OCI spec: %s is not supported yet", key);
}

static int parse_resources(const json_t *json, struct oci_resources *res, struct err *err)
{
	const json_t *memory, *cpu, *pids, *devices, *v;
	int64_t shares = 0, period = 0;
	size_t i;
	int r;

	if (!json_is_object(json))
		return bad_type(err, "linux.resources", "an object");
	if ((r = get_object(json, "memory", &memory, err)) < 0 || (r = get_object(json, "cpu", &cpu, err)) < 0 ||
	    (r = get_object(json, "pids", &pids, err)) < 0 || (r = get_array(json, "devices", &devices, err)) < 0 ||
	    (r = refuse(json, "blockIO", err)) < 0 || (r = refuse(json, "hugepageLimits", err)) < 0 ||
	    (r = refuse(json, "network", err)) < 0 || (r = refuse(json, "rdma", err)) < 0 ||
	    (r = refuse(json, "unified", err)) < 0 || (r = refuse(memory, "kernel", err)) < 0 ||
	    (r = refuse(memory, "kernelTCP", err)) < 0 || (r = refuse(memory, "swappiness", err)) < 0 ||
	    (r = refuse(cpu, "realtimeRuntime", err)) < 0 || (r = refuse(cpu, "realtimePeriod", err)) < 0 ||
	    (r = refuse(cpu, "burst", err)) < 0 || (r = refuse(cpu, "idle", err)) < 0)
		return r;
	if ((r = get_integer(memory, "limit", -1, INT64_MAX, &res->memory_limit, err)) < 0 ||
	    (r = get_integer(memory, "swap", -1, INT64_MAX, &res->memory_swap, err)) < 0 ||
	    (r = get_integer(memory, "reservation", -1, INT64_MAX, &res->memory_reservation, err)) < 0 ||
	    (r = get_bool(memory, "disableOOMKiller", &res->oom_kill_disable, err)) < 0 ||
	    (r = get_integer(cpu, "shares", 0, INT64_MAX, &shares, err)) < 0 ||
	    (r = get_integer(cpu, "quota", -1, INT64_MAX, &res->cpu_quota, err)) < 0 ||
	    (r = get_integer(cpu, "period", 0, INT64_MAX, &period, err)) < 0 ||
	    (r = get_string(cpu, "cpus", &res->cpuset_cpus, err)) < 0 ||
	    (r = get_string(cpu, "mems", &res->cpuset_mems, err)) < 0 ||
	    (r = get_integer(pids, "limit", -1, INT64_MAX, &res->pids_limit, err)) < 0)
		return r;
	res->cpu_shares = (uint64_t)shares;
	res->cpu_period = (uint64_t)period;
	res->devices = calloc(json_array_size(devices) + 1, sizeof(*res->devices));
	if (!res->devices)
		return no_memory(err);
	json_array_foreach(devices, i, v) {
		r = parse_device_rule(v, &res->devices[res->devices_count], err);
		if (r < 0)
			return r;
		res->devices_count++;
	}
	return 0;
}

static int parse_mounts(const json_t *json, struct oci_spec *s, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = get_array(json, "mounts", &a, err);

	if (r < 0)
		return r;
	s->mounts = calloc(json_array_size(a) + 1, sizeof(*s->mounts));
	if (!s->mounts)
		return no_memory(err);
	json_array_foreach(a, i, v) {
		struct oci_mount *m = &s->mounts[s->mounts_count++];

		if (!json_is_object(v))
			return bad_type(err, "a mount", "an object");
		if ((r = get_string(v, "destination", &m->destination, err)) < 0 ||
		    (r = get_string(v, "type", &m->type, err)) < 0 ||
		    (r = get_string(v, "source", &m->source, err)) < 0 ||
		    (r = get_strings(v, "options", &m->options, err)) < 0 || (r = refuse(v, "uidMappings", err)) < 0 ||
		    (r = refuse(v, "gidMappings", err)) < 0)
			return r;
		if (!m->destination || m->destination[0] != '/')
			return err_set(err, EINVAL, "OCI spec: a mount's destination must be an absolute path: '%s'",
				       m->destination ? m->destination : "");
		for (char **o = m->options; !m->type && *o; o++)
			if ((strcmp(*o, "bind") == 0 || strcmp(*o, "rbind") == 0) && !(m->type = strdup("bind")))
				return no_memory(err);
		if (!m->type)
			return err_set(err, EINVAL, "OCI spec: the mount of %s has no type", m->destination);
	}
	return 0;
}

static const struct {
	const char *name;
	int flag;
} namespaces[] = {
	{ "pid", CLONE_NEWPID }, { "network", CLONE_NEWNET }, { "mount", CLONE_NEWNS },
	{ "ipc", CLONE_NEWIPC }, { "uts", CLONE_NEWUTS },     { "cgroup", CLONE_NEWCGROUP },
};

static int parse_namespaces(const json_t *linux_, struct oci_spec *s, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int seen = 0, r = get_array(linux_, "namespaces", &a, err);

	if (r < 0)
		return r;
	s->namespace_paths = calloc(json_array_size(a) + 1, sizeof(*s->namespace_paths));
	if (!s->namespace_paths)
		return no_memory(err);
	json_array_foreach(a, i, v) {
		const char *type = json_str(v, "type", ""), *path = json_str(v, "path", "");
		int flag = 0;

		for (size_t k = 0; k < ARRAY_LEN(namespaces); k++)
			if (strcmp(namespaces[k].name, type) == 0)
				flag = namespaces[k].flag;
		if (!flag)
			return err_set(err, EINVAL, "OCI spec: namespaces of type '%s' are not supported", type);
		if (seen & flag)
			return err_set(err, EINVAL, "OCI spec: the %s namespace is given twice", type);
		seen |= flag;
		if (!*path) {
			s->namespaces |= flag;
			continue;
		}
		s->namespace_paths[s->namespace_paths_count].flag = flag;
		s->namespace_paths[s->namespace_paths_count].path = strdup(path);
		if (!s->namespace_paths[s->namespace_paths_count++].path)
			return no_memory(err);
	}
	return 0;
}

static int parse_devices(const json_t *linux_, struct oci_spec *s, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = get_array(linux_, "devices", &a, err);

	if (r < 0)
		return r;
	s->devices = calloc(json_array_size(a) + 1, sizeof(*s->devices));
	if (!s->devices)
		return no_memory(err);
	json_array_foreach(a, i, v) {
		struct oci_device *d = &s->devices[s->devices_count++];
		const char *type = json_str(v, "type", "");
		int64_t major = 0, minor = 0, mode = 0666, uid = 0, gid = 0;

		if ((r = get_string(v, "path", &d->path, err)) < 0 ||
		    (r = get_integer(v, "major", 0, UINT32_MAX, &major, err)) < 0 ||
		    (r = get_integer(v, "minor", 0, UINT32_MAX, &minor, err)) < 0 ||
		    (r = get_integer(v, "fileMode", 0, UINT32_MAX, &mode, err)) < 0 ||
		    (r = get_integer(v, "uid", 0, UINT32_MAX - 1, &uid, err)) < 0 ||
		    (r = get_integer(v, "gid", 0, UINT32_MAX - 1, &gid, err)) < 0)
			return r;
		if (!d->path || d->path[0] != '/')
			return err_set(err, EINVAL, "OCI spec: a device's path must be absolute");
		d->type = type[0] == 'u' ? 'c' : type[0];
		if (!type[0] || type[1] || !strchr("cbp", d->type))
			return err_set(err, EINVAL, "OCI spec: unknown type '%s' of device %s", type, d->path);
		d->major = (unsigned int)major;
		d->minor = (unsigned int)minor;
		d->mode = (mode_t)mode & 07777;
		d->uid = (uid_t)uid;
		d->gid = (gid_t)gid;
	}
	return 0;
}

static int parse_sysctl(const json_t *linux_, struct oci_spec *s, struct err *err)
{
	const json_t *o;
	const char *key;
	json_t *v;
	int r = get_object(linux_, "sysctl", &o, err);

	if (r < 0 || !o)
		return r;
	s->sysctl = calloc(json_object_size(o) + 1, sizeof(*s->sysctl));
	if (!s->sysctl)
		return no_memory(err);
	json_object_foreach((json_t *)(uintptr_t)o, key, v) {
		struct oci_sysctl *c = &s->sysctl[s->sysctl_count++];

		if (!*key || strstr(key, ".."))
			return err_set(err, EINVAL, "OCI spec: bad name of a sysctl: '%s'", key);
		c->key = strdup(key);
		if (!c->key)
			return no_memory(err);
		r = dup_value(v, key, &c->value, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int parse_propagation(const json_t *linux_, struct oci_spec *s, struct err *err)
{
	const struct {
		const char *name;
		unsigned long flags;
	} modes[] = {
		{ "private", MS_PRIVATE },
		{ "rprivate", MS_PRIVATE | MS_REC },
		{ "slave", MS_SLAVE },
		{ "rslave", MS_SLAVE | MS_REC },
	};
	const char *mode = json_str(linux_, "rootfsPropagation", "");

	if (!*mode)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(modes); i++)
		if (strcmp(mode, modes[i].name) == 0) {
			s->rootfs_propagation = modes[i].flags;
			return 0;
		}
	return err_set(err, EINVAL, "OCI spec: rootfsPropagation '%s' is not supported", mode);
}

static int parse_linux(const json_t *json, struct oci_spec *s, struct err *err)
{
	const json_t *l, *resources;
	int r = get_object(json, "linux", &l, err);

	if (r < 0)
		return r;
	if ((r = parse_namespaces(l, s, err)) < 0 || (r = parse_devices(l, s, err)) < 0 ||
	    (r = parse_sysctl(l, s, err)) < 0 || (r = parse_propagation(l, s, err)) < 0 ||
	    (r = get_strings(l, "maskedPaths", &s->masked_paths, err)) < 0 ||
	    (r = get_strings(l, "readonlyPaths", &s->readonly_paths, err)) < 0 ||
	    (r = get_string(l, "cgroupsPath", &s->cgroups_path, err)) < 0 ||
	    (r = get_object(l, "resources", &resources, err)) < 0 || (r = refuse(l, "uidMappings", err)) < 0 ||
	    (r = refuse(l, "gidMappings", err)) < 0 || (r = refuse(l, "intelRdt", err)) < 0 ||
	    (r = refuse(l, "mountLabel", err)) < 0 || (r = refuse(l, "personality", err)) < 0)
		return r;
	return resources ? parse_resources(resources, &s->resources, err) : 0;
}

static int parse_spec(const json_t *json, struct oci_spec *s, struct err *err)
{
	const json_t *root;
	int r;

	if (!json_is_object(json))
		return bad_type(err, "config.json", "an object");
	if (!json_object_get(json, "process"))
		return err_set(err, EINVAL, "OCI spec: there is no process");
	if ((r = parse_process(json_object_get(json, "process"), &s->process, err)) < 0 ||
	    (r = get_object(json, "root", &root, err)) < 0 || (r = get_string(root, "path", &s->rootfs, err)) < 0 ||
	    (r = get_bool(root, "readonly", &s->rootfs_readonly, err)) < 0 ||
	    (r = get_string(json, "hostname", &s->hostname, err)) < 0 ||
	    (r = get_string(json, "domainname", &s->domainname, err)) < 0 || (r = refuse(json, "hooks", err)) < 0 ||
	    (r = parse_mounts(json, s, err)) < 0)
		return r;
	return parse_linux(json, s, err);
}

static void process_fini(struct oci_process *p)
{
	free(p->user.additional_gids);
	free(p->user.username);
	free_strings(p->args);
	free_strings(p->env);
	free(p->cwd);
	free(p->rlimits);
}

static void resources_fini(struct oci_resources *r)
{
	free(r->cpuset_cpus);
	free(r->cpuset_mems);
	free(r->devices);
}

void oci_process_free(struct oci_process *p)
{
	if (p)
		process_fini(p);
	free(p);
}

void oci_resources_free(struct oci_resources *r)
{
	if (r)
		resources_fini(r);
	free(r);
}

void oci_spec_free(struct oci_spec *s)
{
	if (!s)
		return;
	process_fini(&s->process);
	resources_fini(&s->resources);
	free(s->rootfs);
	free(s->hostname);
	free(s->domainname);
	for (size_t i = 0; i < s->mounts_count; i++) {
		free(s->mounts[i].destination);
		free(s->mounts[i].type);
		free(s->mounts[i].source);
		free_strings(s->mounts[i].options);
	}
	free(s->mounts);
	for (size_t i = 0; i < s->namespace_paths_count; i++)
		free(s->namespace_paths[i].path);
	free(s->namespace_paths);
	for (size_t i = 0; i < s->devices_count; i++)
		free(s->devices[i].path);
	free(s->devices);
	for (size_t i = 0; i < s->sysctl_count; i++) {
		free(s->sysctl[i].key);
		free(s->sysctl[i].value);
	}
	free(s->sysctl);
	free_strings(s->masked_paths);
	free_strings(s->readonly_paths);
	free(s->cgroups_path);
	free(s);
}

int oci_spec_parse(const json_t *json, struct oci_spec **out, struct err *err)
{
	CLEAN(cleanup_oci_spec) struct oci_spec *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return no_memory(err);
	r = parse_spec(json, s, err);
	if (r < 0)
		return r;
	*out = take_ptr(s);
	return 0;
}

int oci_process_parse(const json_t *json, struct oci_process **out, struct err *err)
{
	CLEAN(cleanup_oci_process) struct oci_process *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return no_memory(err);
	r = parse_process(json, p, err);
	if (r < 0)
		return r;
	*out = take_ptr(p);
	return 0;
}

int oci_resources_parse(const json_t *json, struct oci_resources **out, struct err *err)
{
	CLEAN(cleanup_oci_resources) struct oci_resources *res = calloc(1, sizeof(*res));
	int r;

	if (!res)
		return no_memory(err);
	r = parse_resources(json, res, err);
	if (r < 0)
		return r;
	*out = take_ptr(res);
	return 0;
}
