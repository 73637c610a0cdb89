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
#include "oci/parse.h"
#include "oci/spec.h"

static int parse_capability_set(const json_t *caps, const char *key, uint64_t *mask, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = oci_get_array(caps, key, &a, err);

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
	int r = oci_get_object(json, "capabilities", &caps, err);

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
	int r = oci_get_array(json, "rlimits", &a, err);

	if (r < 0 || !a)
		return r;
	p->rlimits = calloc(json_array_size(a) + 1, sizeof(*p->rlimits));
	if (!p->rlimits)
		return oci_no_memory(err);
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
	r = oci_get_object(json, "user", &user, err);
	if (r < 0 || !user)
		return r;
	if ((r = oci_get_integer(user, "uid", 0, UINT32_MAX - 1, &uid, err)) < 0 ||
	    (r = oci_get_integer(user, "gid", 0, UINT32_MAX - 1, &gid, err)) < 0 ||
	    (r = oci_get_integer(user, "umask", 0, 0777, &u->umask, err)) < 0 ||
	    (r = oci_get_string(user, "username", &u->username, err)) < 0 ||
	    (r = oci_get_array(user, "additionalGids", &a, err)) < 0)
		return r;
	u->uid = (uid_t)uid;
	u->gid = (gid_t)gid;
	if (u->username && !*u->username) {
		free(u->username);
		u->username = NULL;
	}
	u->additional_gids = calloc(json_array_size(a) + 1, sizeof(gid_t));
	if (!u->additional_gids)
		return oci_no_memory(err);
	json_array_foreach(a, i, v) {
		if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= UINT32_MAX)
			return oci_bad_type(err, "additionalGids", "an array of group numbers");
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
		return oci_bad_type(err, "process", "an object");
	if ((r = oci_get_bool(json, "terminal", &p->terminal, err)) < 0 ||
	    (r = oci_get_object(json, "consoleSize", &size, err)) < 0 || (r = parse_user(json, &p->user, err)) < 0 ||
	    (r = oci_get_strings(json, "args", &p->args, err)) < 0 ||
	    (r = oci_get_strings(json, "env", &p->env, err)) < 0 ||
	    (r = oci_get_string(json, "cwd", &p->cwd, err)) < 0 || (r = parse_capabilities(json, p, err)) < 0 ||
	    (r = parse_rlimits(json, p, err)) < 0 ||
	    (r = oci_get_bool(json, "noNewPrivileges", &p->no_new_privileges, err)) < 0 ||
	    (r = oci_get_integer(json, "oomScoreAdj", -1000, 1000, &adj, err)) < 0)
		return r;
	if ((r = oci_get_integer(size, "height", 0, UINT16_MAX, &height, err)) < 0 ||
	    (r = oci_get_integer(size, "width", 0, UINT16_MAX, &width, err)) < 0)
		return r;
	p->console_height = (unsigned short)height;
	p->console_width = (unsigned short)width;
	p->oom_score_adj_given = adj != INT32_MIN;
	p->oom_score_adj = p->oom_score_adj_given ? (int)adj : 0;
	if (!p->args[0])
		return err_set(err, EINVAL, "OCI spec: process.args must not be empty");
	if (!p->cwd && !(p->cwd = strdup("/")))
		return oci_no_memory(err);
	if (p->cwd[0] != '/')
		return err_set(err, EINVAL, "OCI spec: process.cwd must be an absolute path: '%s'", p->cwd);
	return 0;
}

static int parse_mounts(const json_t *json, struct oci_spec *s, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = oci_get_array(json, "mounts", &a, err);

	if (r < 0)
		return r;
	s->mounts = calloc(json_array_size(a) + 1, sizeof(*s->mounts));
	if (!s->mounts)
		return oci_no_memory(err);
	json_array_foreach(a, i, v) {
		struct oci_mount *m = &s->mounts[s->mounts_count++];

		if (!json_is_object(v))
			return oci_bad_type(err, "a mount", "an object");
		if ((r = oci_get_string(v, "destination", &m->destination, err)) < 0 ||
		    (r = oci_get_string(v, "type", &m->type, err)) < 0 ||
		    (r = oci_get_string(v, "source", &m->source, err)) < 0 ||
		    (r = oci_get_strings(v, "options", &m->options, err)) < 0 ||
		    (r = oci_refuse(v, "uidMappings", err)) < 0 || (r = oci_refuse(v, "gidMappings", err)) < 0)
			return r;
		if (!m->destination || m->destination[0] != '/')
			return err_set(err, EINVAL, "OCI spec: a mount's destination must be an absolute path: '%s'",
				       m->destination ? m->destination : "");
		for (char **o = m->options; !m->type && *o; o++)
			if ((strcmp(*o, "bind") == 0 || strcmp(*o, "rbind") == 0) && !(m->type = strdup("bind")))
				return oci_no_memory(err);
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
	int seen = 0, r = oci_get_array(linux_, "namespaces", &a, err);

	if (r < 0)
		return r;
	s->namespace_paths = calloc(json_array_size(a) + 1, sizeof(*s->namespace_paths));
	if (!s->namespace_paths)
		return oci_no_memory(err);
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
			return oci_no_memory(err);
	}
	return 0;
}

static int parse_devices(const json_t *linux_, struct oci_spec *s, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = oci_get_array(linux_, "devices", &a, err);

	if (r < 0)
		return r;
	s->devices = calloc(json_array_size(a) + 1, sizeof(*s->devices));
	if (!s->devices)
		return oci_no_memory(err);
	json_array_foreach(a, i, v) {
		struct oci_device *d = &s->devices[s->devices_count++];
		const char *type = json_str(v, "type", "");
		int64_t major = 0, minor = 0, mode = 0666, uid = 0, gid = 0;

		if ((r = oci_get_string(v, "path", &d->path, err)) < 0 ||
		    (r = oci_get_integer(v, "major", 0, UINT32_MAX, &major, err)) < 0 ||
		    (r = oci_get_integer(v, "minor", 0, UINT32_MAX, &minor, err)) < 0 ||
		    (r = oci_get_integer(v, "fileMode", 0, UINT32_MAX, &mode, err)) < 0 ||
		    (r = oci_get_integer(v, "uid", 0, UINT32_MAX - 1, &uid, err)) < 0 ||
		    (r = oci_get_integer(v, "gid", 0, UINT32_MAX - 1, &gid, err)) < 0)
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
	int r = oci_get_object(linux_, "sysctl", &o, err);

	if (r < 0 || !o)
		return r;
	s->sysctl = calloc(json_object_size(o) + 1, sizeof(*s->sysctl));
	if (!s->sysctl)
		return oci_no_memory(err);
	json_object_foreach((json_t *)(uintptr_t)o, key, v) {
		struct oci_sysctl *c = &s->sysctl[s->sysctl_count++];

		if (!*key || strstr(key, ".."))
			return err_set(err, EINVAL, "OCI spec: bad name of a sysctl: '%s'", key);
		c->key = strdup(key);
		if (!c->key)
			return oci_no_memory(err);
		r = oci_dup_value(v, key, &c->value, err);
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
	int r = oci_get_object(json, "linux", &l, err);

	if (r < 0)
		return r;
	if ((r = parse_namespaces(l, s, err)) < 0 || (r = parse_devices(l, s, err)) < 0 ||
	    (r = parse_sysctl(l, s, err)) < 0 || (r = parse_propagation(l, s, err)) < 0 ||
	    (r = oci_get_strings(l, "maskedPaths", &s->masked_paths, err)) < 0 ||
	    (r = oci_get_strings(l, "readonlyPaths", &s->readonly_paths, err)) < 0 ||
	    (r = oci_get_string(l, "cgroupsPath", &s->cgroups_path, err)) < 0 ||
	    (r = oci_get_object(l, "resources", &resources, err)) < 0 || (r = oci_refuse(l, "uidMappings", err)) < 0 ||
	    (r = oci_refuse(l, "gidMappings", err)) < 0 || (r = oci_refuse(l, "mountLabel", err)) < 0 ||
	    (r = oci_refuse(l, "personality", err)) < 0)
		return r;
	if (resources && (r = oci_resources_read(resources, &s->resources, err)) < 0)
		return r;
	if ((r = oci_rdt_read(json_object_get(l, "intelRdt"), &s->rdt, err)) < 0)
		return r;
	if (json_object_get(l, "seccomp") && !json_is_null(json_object_get(l, "seccomp")))
		return oci_seccomp_parse(json_object_get(l, "seccomp"), &s->seccomp, err);
	return 0;
}

static int parse_spec(const json_t *json, struct oci_spec *s, struct err *err)
{
	const json_t *root;
	int r;

	if (!json_is_object(json))
		return oci_bad_type(err, "config.json", "an object");
	if (!json_object_get(json, "process"))
		return err_set(err, EINVAL, "OCI spec: there is no process");
	if ((r = parse_process(json_object_get(json, "process"), &s->process, err)) < 0 ||
	    (r = oci_get_object(json, "root", &root, err)) < 0 ||
	    (r = oci_get_string(root, "path", &s->rootfs, err)) < 0 ||
	    (r = oci_get_bool(root, "readonly", &s->rootfs_readonly, err)) < 0 ||
	    (r = oci_get_string(json, "hostname", &s->hostname, err)) < 0 ||
	    (r = oci_get_string(json, "domainname", &s->domainname, err)) < 0 ||
	    (r = oci_refuse(json, "hooks", err)) < 0 || (r = parse_mounts(json, s, err)) < 0)
		return r;
	return parse_linux(json, s, err);
}

static void process_fini(struct oci_process *p)
{
	free(p->user.additional_gids);
	free(p->user.username);
	oci_free_strings(p->args);
	oci_free_strings(p->env);
	free(p->cwd);
	free(p->rlimits);
}

void oci_process_free(struct oci_process *p)
{
	if (p)
		process_fini(p);
	free(p);
}

void oci_spec_free(struct oci_spec *s)
{
	if (!s)
		return;
	process_fini(&s->process);
	oci_resources_fini(&s->resources);
	oci_rdt_fini(&s->rdt);
	oci_seccomp_free(s->seccomp);
	free(s->rootfs);
	free(s->hostname);
	free(s->domainname);
	for (size_t i = 0; i < s->mounts_count; i++) {
		free(s->mounts[i].destination);
		free(s->mounts[i].type);
		free(s->mounts[i].source);
		oci_free_strings(s->mounts[i].options);
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
	oci_free_strings(s->masked_paths);
	oci_free_strings(s->readonly_paths);
	free(s->cgroups_path);
	free(s);
}

int oci_spec_parse(const json_t *json, struct oci_spec **out, struct err *err)
{
	CLEAN(cleanup_oci_spec) struct oci_spec *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return oci_no_memory(err);
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
		return oci_no_memory(err);
	r = parse_process(json, p, err);
	if (r < 0)
		return r;
	*out = take_ptr(p);
	return 0;
}
