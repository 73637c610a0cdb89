/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing of the OCI runtime specification's config.json (runtime-spec 1.0 to 1.x,
 * config.md and config-linux.md). Wrong types and unknown values are errors that
 * name the field. Fields that ask for something this engine does not do are errors too.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/personality.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "oci/parse.h"
#include "oci/spec.h"

static int parse_id_map(const json_t *o, const char *key, struct oci_id_map **out, size_t *n, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = oci_get_array(o, key, &a, err);

	if (r < 0 || !a)
		return r;
	*out = calloc(json_array_size(a) + 1, sizeof(**out));
	if (!*out)
		return oci_no_memory(err);
	json_array_foreach(a, i, v) {
		int64_t container = -1, host = -1, size = -1;

		if ((r = oci_get_integer(v, "containerID", 0, UINT32_MAX, &container, err)) < 0 ||
		    (r = oci_get_integer(v, "hostID", 0, UINT32_MAX, &host, err)) < 0 ||
		    (r = oci_get_integer(v, "size", 1, UINT32_MAX, &size, err)) < 0)
			return err_wrap(err, "%s", key);
		if (container < 0 || host < 0 || size < 0)
			return err_set(err, EINVAL, "OCI spec: %s: containerID, hostID and size are required", key);
		(*out)[(*n)++] = (struct oci_id_map){ (uint32_t)container, (uint32_t)host, (uint32_t)size };
	}
	return 0;
}

static bool has_option(const struct oci_mount *m, const char *name)
{
	for (char **o = m->options; *o; o++)
		if (strcmp(*o, name) == 0)
			return true;
	return false;
}

static int check_mount(struct oci_mount *m, struct err *err)
{
	if (!m->destination || !*m->destination)
		return err_set(err, EINVAL, "OCI spec: mounts: destination is required");
	if (m->destination[0] != '/') {
		char *whole = NULL;

		/* config.md: a relative one SHOULD be taken as relative to "/" */
		if (asprintf(&whole, "/%s", m->destination) < 0)
			return oci_no_memory(err);
		free(m->destination);
		m->destination = whole;
	}
	if (!m->type || !*m->type) {
		free(m->type);
		m->type = strdup(has_option(m, "bind") || has_option(m, "rbind") ? "bind" : "none");
		if (!m->type)
			return oci_no_memory(err);
	}
	if (!m->uid_map_count != !m->gid_map_count)
		return err_set(err, EINVAL, "OCI spec: the mount of %s: uidMappings and gidMappings go together",
			       m->destination);
	if (strcmp(m->type, "none") == 0 && !has_option(m, "bind") && !has_option(m, "rbind") &&
	    !has_option(m, "remount"))
		return err_set(err, EINVAL, "OCI spec: the mount of %s has no type", m->destination);
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
		    (r = parse_id_map(v, "mounts.uidMappings", &m->uid_map, &m->uid_map_count, err)) < 0 ||
		    (r = parse_id_map(v, "mounts.gidMappings", &m->gid_map, &m->gid_map_count, err)) < 0 ||
		    (r = check_mount(m, err)) < 0)
			return r;
	}
	return 0;
}

static const struct {
	const char *name;
	int flag;
} namespaces[] = {
	{ "pid", CLONE_NEWPID }, { "network", CLONE_NEWNET },   { "mount", CLONE_NEWNS },  { "ipc", CLONE_NEWIPC },
	{ "uts", CLONE_NEWUTS }, { "cgroup", CLONE_NEWCGROUP }, { "user", CLONE_NEWUSER }, { "time", CLONE_NEWTIME },
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
			return err_set(err, EINVAL, "OCI spec: linux.namespaces: unknown type '%s'", type);
		if (seen & flag)
			return err_set(err, EINVAL, "OCI spec: linux.namespaces: the %s namespace is given twice",
				       type);
		if (*path && *path != '/')
			return err_set(err, EINVAL, "OCI spec: linux.namespaces: the path '%s' is not absolute", path);
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
		int64_t major = -1, minor = -1, mode = 0666, uid = 0, gid = 0;

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
		if (d->type != 'p' && (major < 0 || minor < 0))
			return err_set(err, EINVAL, "OCI spec: linux.devices: major and minor of %s are required",
				       d->path);
		if (d->type == 'p')
			major = minor = 0;
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
		{ "private", MS_PRIVATE },       { "rprivate", MS_PRIVATE | MS_REC },
		{ "slave", MS_SLAVE },           { "rslave", MS_SLAVE | MS_REC },
		{ "shared", MS_SHARED },         { "rshared", MS_SHARED | MS_REC },
		{ "unbindable", MS_UNBINDABLE }, { "runbindable", MS_UNBINDABLE | MS_REC },
	};
	const char *mode = json_str(linux_, "rootfsPropagation", "");

	if (!*mode)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(modes); i++)
		if (strcmp(mode, modes[i].name) == 0) {
			s->rootfs_propagation = modes[i].flags;
			return 0;
		}
	return err_set(
		err, EINVAL,
		"OCI spec: linux.rootfsPropagation '%s' is unknown (private, slave, shared, unbindable, or these "
		"with an r before)",
		mode);
}

static int parse_time_offsets(const json_t *linux_, struct oci_spec *s, struct err *err)
{
	const json_t *o;
	const char *key;
	json_t *v;
	int r = oci_get_object(linux_, "linux.timeOffsets", &o, err);

	if (r < 0 || !o)
		return r;
	json_object_foreach((json_t *)(uintptr_t)o, key, v) {
		struct oci_time_offset *t = strcmp(key, "monotonic") == 0  ? &s->monotonic
					    : strcmp(key, "boottime") == 0 ? &s->boottime
									   : NULL;
		int64_t nanosecs = 0;

		if (!t)
			return err_set(err, EINVAL,
				       "OCI spec: linux.timeOffsets: unknown clock '%s' (monotonic, boottime)", key);
		if ((r = oci_get_integer(v, "secs", INT64_MIN, INT64_MAX, &t->secs, err)) < 0 ||
		    (r = oci_get_integer(v, "nanosecs", 0, 999999999, &nanosecs, err)) < 0)
			return err_wrap(err, "linux.timeOffsets.%s", key);
		t->nanosecs = (uint32_t)nanosecs;
		t->given = true;
	}
	return 0;
}

static int parse_personality(const json_t *linux_, struct oci_spec *s, struct err *err)
{
	const json_t *o, *flags = NULL;
	const char *domain;
	int r = oci_get_object(linux_, "linux.personality", &o, err);

	if (r < 0 || !o || (r = oci_get_array(o, "linux.personality.flags", &flags, err)) < 0)
		return r;
	if (json_array_size(flags))
		return err_set(err, EINVAL, "OCI spec: linux.personality.flags: none is supported");
	domain = json_str(o, "domain", "");
	if (strcmp(domain, "LINUX32") == 0)
		s->personality = PER_LINUX32;
	else if (strcmp(domain, "LINUX") == 0)
		s->personality = PER_LINUX;
	else
		return err_set(err, EINVAL, "OCI spec: linux.personality.domain '%s' is unknown (LINUX, LINUX32)",
			       domain);
	s->personality_given = true;
	return 0;
}

static int check_absolute(char **paths, const char *key, struct err *err)
{
	for (; *paths; paths++)
		if (**paths != '/')
			return err_set(err, EINVAL, "OCI spec: %s: '%s' is not an absolute path", key, *paths);
	return 0;
}

static int parse_linux(const json_t *json, struct oci_spec *s, struct err *err)
{
	const json_t *l, *resources;
	int r = oci_get_object(json, "linux", &l, err);

	if (r < 0)
		return r;
	if ((r = parse_namespaces(l, s, err)) < 0 || (r = parse_devices(l, s, err)) < 0 ||
	    (r = parse_sysctl(l, s, err)) < 0 || (r = parse_propagation(l, s, err)) < 0 ||
	    (r = parse_time_offsets(l, s, err)) < 0 || (r = parse_personality(l, s, err)) < 0 ||
	    (r = oci_get_strings(l, "maskedPaths", &s->masked_paths, err)) < 0 ||
	    (r = oci_get_strings(l, "readonlyPaths", &s->readonly_paths, err)) < 0 ||
	    (r = check_absolute(s->masked_paths, "linux.maskedPaths", err)) < 0 ||
	    (r = check_absolute(s->readonly_paths, "linux.readonlyPaths", err)) < 0 ||
	    (r = oci_get_string(l, "cgroupsPath", &s->cgroups_path, err)) < 0 ||
	    (r = parse_id_map(l, "linux.uidMappings", &s->uid_map, &s->uid_map_count, err)) < 0 ||
	    (r = parse_id_map(l, "linux.gidMappings", &s->gid_map, &s->gid_map_count, err)) < 0 ||
	    (r = oci_get_string(l, "mountLabel", &s->mount_label, err)) < 0 ||
	    (r = oci_refuse(l, "linux.netDevices", err)) < 0 || (r = oci_refuse(l, "linux.memoryPolicy", err)) < 0 ||
	    (r = oci_get_object(l, "resources", &resources, err)) < 0)
		return r;
	if (resources && (r = oci_resources_read(resources, &s->resources, err)) < 0)
		return r;
	if ((r = oci_rdt_read(json_object_get(l, "intelRdt"), &s->rdt, err)) < 0)
		return r;
	if (json_object_get(l, "seccomp") && !json_is_null(json_object_get(l, "seccomp")))
		return oci_seccomp_parse(json_object_get(l, "seccomp"), &s->seccomp, err);
	return 0;
}

/* config.md: SemVer, and every 1.x is compatible. */
/* 1.MINOR.PATCH, maybe with semver's "-rc1" or "+dev" behind it. Not by sscanf(3): it is large, and the guest carries this. */
static bool version_supported(const char *version)
{
	const char *const digits = "0123456789";
	size_t n;

	if (strncmp(version, "1.", 2))
		return false;
	version += 2;
	n = strspn(version, digits);
	if (!n || version[n] != '.')
		return false;
	version += n + 1;
	n = strspn(version, digits);
	return n && (!version[n] || strchr("-+", version[n]));
}

static int parse_version(const json_t *json, struct oci_spec *s, struct err *err)
{
	int r = oci_get_string(json, "ociVersion", &s->oci_version, err);

	if (r < 0)
		return r;
	s->version_given = s->oci_version;
	if (!s->oci_version && !(s->oci_version = strdup("1.0.0")))
		return oci_no_memory(err);
	if (!version_supported(s->oci_version))
		return err_set(err, EINVAL, "OCI spec: ociVersion '%s' is not supported (1.x.y is)", s->oci_version);
	return 0;
}

static int parse_annotations(const json_t *json, struct oci_spec *s, struct err *err)
{
	const json_t *o;
	const char *key;
	json_t *v;
	int r = oci_get_object(json, "annotations", &o, err);

	if (r < 0 || !o)
		return r;
	json_object_foreach((json_t *)(uintptr_t)o, key, v) {
		if (!*key)
			return err_set(err, EINVAL, "OCI spec: annotations: a key must not be empty");
		if (!json_is_string(v))
			return err_set(err, EINVAL, "OCI spec: annotations: the value of '%s' must be a string", key);
	}
	s->annotations = json_deep_copy(o);
	return s->annotations ? 0 : oci_no_memory(err);
}

static int parse_spec(const json_t *json, struct oci_spec *s, struct err *err)
{
	const json_t *root, *hooks, *process;
	int r;

	if (!json_is_object(json))
		return oci_bad_type(err, "config.json", "an object");
	process = json_object_get(json, "process");
	s->process_given = process && !json_is_null(process);
	if ((s->process_given && (r = oci_process_read(process, &s->process, err)) < 0) ||
	    (r = parse_version(json, s, err)) < 0 || (r = parse_annotations(json, s, err)) < 0 ||
	    (r = oci_get_object(json, "root", &root, err)) < 0 ||
	    (r = oci_get_string(root, "path", &s->rootfs, err)) < 0 ||
	    (r = oci_get_bool(root, "readonly", &s->rootfs_readonly, err)) < 0 ||
	    (r = oci_get_string(json, "hostname", &s->hostname, err)) < 0 ||
	    (r = oci_get_string(json, "domainname", &s->domainname, err)) < 0 ||
	    (r = oci_get_object(json, "hooks", &hooks, err)) < 0 ||
	    (r = oci_hooks_read(hooks, s->hooks.kinds, err)) < 0 || (r = parse_mounts(json, s, err)) < 0)
		return r;
	return parse_linux(json, s, err);
}

void oci_spec_free(struct oci_spec *s)
{
	if (!s)
		return;
	oci_process_fini(&s->process);
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
		free(s->mounts[i].uid_map);
		free(s->mounts[i].gid_map);
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
	free(s->uid_map);
	free(s->gid_map);
	free(s->mount_label);
	free(s->oci_version);
	oci_hooks_fini(s->hooks.kinds);
	json_decref(s->annotations);
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
