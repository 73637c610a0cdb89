/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From HostConfig.Binds and HostConfig.Mounts to mount points. Rules and words are Docker's (docs.docker.com,
 * "Bind mounts", "Volumes", "tmpfs mounts"; API reference, HostConfig).
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/container_internal.h"
#include "engine/mounts.h"

void mount_path_clean(char *path)
{
	char *out = path;

	if (*path != '/') /* refused later, with its name */
		return;
	for (const char *p = path; *p;) {
		size_t n;

		p += strspn(p, "/");
		n = strcspn(p, "/");
		if (n == 2 && !strncmp(p, "..", 2)) {
			while (out > path && *--out != '/')
				;
		} else if (n && !(n == 1 && *p == '.')) {
			*out++ = '/';
			memmove(out, p, n);
			out += n;
		}
		p += n;
	}
	if (out == path)
		*out++ = '/';
	*out = 0;
}

static json_t *clean_copy(const char *path)
{
	CLEAN_FREE char *copy = strdup(path);

	if (!copy)
		return NULL;
	mount_path_clean(copy);
	return json_string(copy);
}

static bool is_propagation(const char *word)
{
	static const char *const words[] = { "private", "rprivate", "slave", "rslave", "shared", "rshared" };

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (!strcmp(words[i], word))
			return true;
	return false;
}

static int check_propagation(const char *word, struct err *err)
{
	if (*word && !is_propagation(word))
		return err_set(err, EINVAL, "invalid propagation mode: %.60s", word);
	/* a container's mounts live in its shim's namespace; what is mounted on the host later does not get there yet */
	if (*word && strcmp(word, "private") && strcmp(word, "rprivate"))
		return err_set(
			err, ENOSYS,
			"bind propagation %s is not supported by this version of Walnut: there are rprivate and private",
			word);
	return 0;
}

/* What is common to a mount of every type. */
static int check_target(const char *target, struct err *err)
{
	CLEAN_FREE char *clean = strdup(target);

	if (!clean)
		return err_sys(err, ENOMEM, "read a mount");
	if (!*target)
		return err_set(err, EINVAL, "field Target must not be empty");
	if (*target != '/')
		return err_set(err, EINVAL, "invalid mount path: '%.200s' mount path must be absolute", target);
	mount_path_clean(clean);
	if (!strcmp(clean, "/"))
		return err_set(err, EINVAL, "invalid specification: destination can't be '/'");
	if (strlen(clean) >= PATH_MAX)
		return err_set(err, EINVAL, "invalid mount path: longer than a path can be");
	return 0;
}

static json_t *new_point(const char *type, const char *source, const char *target, const char *mode, bool readonly)
{
	bool volume = !strcmp(type, "volume");
	json_t *p = json_pack("{s:s}", "Type", type);

	if (volume)
		(void)json_object_set_new(p, "Name", json_string(source));
	(void)json_object_set_new(p, "Source",
				  volume    ? json_string("")
				  : *source ? clean_copy(source)
					    : json_string(""));
	(void)json_object_set_new(p, "Destination", clean_copy(target));
	if (volume)
		(void)json_object_set_new(p, "Driver", json_string("local"));
	(void)json_object_set_new(p, "Mode", json_string(mode));
	(void)json_object_set_new(p, "RW", json_boolean(!readonly));
	(void)json_object_set_new(p, "Propagation", json_string(!strcmp(type, "bind") ? "rprivate" : ""));
	return p;
}

/* ---- Binds: SOURCE:TARGET[:MODE] ---- */

struct bind_mode {
	bool readonly, nocopy;
	const char *propagation;
};

/* Each kind of word once; "consistent" and its like are for Docker on other systems, z and Z for SELinux. */
static bool parse_mode(char *text, bool volume, struct bind_mode *m)
{
	unsigned int seen = 0;
	char *save = NULL;

	if (!*text)
		return false;
	for (const char *w = strtok_r(text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		unsigned int kind;

		if (!strcmp(w, "ro") || !strcmp(w, "rw")) {
			kind = 1;
			m->readonly = w[1] == 'o';
		} else if (!strcmp(w, "z") || !strcmp(w, "Z")) {
			kind = 2;
		} else if (!strcmp(w, "nocopy")) {
			kind = 4;
			m->nocopy = true;
		} else if (is_propagation(w)) {
			if (volume)
				return false;
			kind = 8;
			m->propagation = w;
		} else if (!strcmp(w, "consistent") || !strcmp(w, "cached") || !strcmp(w, "delegated")) {
			kind = 16;
		} else {
			return false;
		}
		if (seen & kind)
			return false;
		seen |= kind;
	}
	return seen;
}

static int wrong_bind(const char *spec, struct err *err)
{
	return err_wrap(err, "invalid volume specification: '%.200s'", spec);
}

static json_t *parse_bind(const char *spec, struct err *err)
{
	CLEAN_FREE char *copy = strdup(spec);
	CLEAN_FREE char *words = NULL;
	char *target = copy ? strchr(copy, ':') : NULL, *mode = NULL;
	struct bind_mode m = { .propagation = "" };
	json_t *p;

	if (target) {
		*target++ = 0;
		mode = strchr(target, ':');
		if (mode)
			*mode++ = 0;
	}
	if (!target || !*copy || !*target || (mode && strchr(mode, ':'))) {
		(void)err_set(err, EINVAL, "invalid volume specification: '%.200s'", spec);
		return NULL;
	}
	words = strdup(mode ? mode : "");
	if (!words || (mode && !parse_mode(words, *copy != '/', &m))) {
		(void)err_set(err, EINVAL, "invalid volume specification: '%.200s': invalid mode: %.60s", spec, mode);
		return NULL;
	}
	if (check_target(target, err) || check_propagation(m.propagation, err)) {
		if (err->code == EINVAL)
			(void)err_wrap(err, "invalid mount config for type \"%s\"", *copy == '/' ? "bind" : "volume");
		(void)wrong_bind(spec, err);
		return NULL;
	}
	p = new_point(*copy == '/' ? "bind" : "volume", copy, target, mode ? mode : "", m.readonly);
	if (*m.propagation)
		(void)json_object_set_new(p, "Propagation", json_string(m.propagation));
	if (m.nocopy)
		(void)json_object_set_new(p, "nocopy", json_true());
	if (*copy == '/')
		(void)json_object_set_new(p, "create", json_true());
	return p;
}

/* ---- Mounts ---- */

static int check_extra(const json_t *m, const char *type, struct err *err)
{
	static const struct {
		const char *field, *type;
	} fields[] = { { "BindOptions", "bind" },
		       { "VolumeOptions", "volume" },
		       { "TmpfsOptions", "tmpfs" },
		       { "ImageOptions", "image" },
		       { "ClusterOptions", "cluster" } };

	for (size_t i = 0; i < ARRAY_LEN(fields); i++)
		if (strcmp(fields[i].type, type) && json_nonempty(json_object_get(m, fields[i].field)))
			return err_set(err, EINVAL, "field %s must not be specified", fields[i].field);
	return 0;
}

static int fill_bind(const json_t *m, json_t *p, struct err *err)
{
	const json_t *o = json_object_get(m, "BindOptions");
	const char *source = json_str(m, "Source", ""), *propagation = json_str(o, "Propagation", "");
	bool shallow = json_bool(o, "ReadOnlyNonRecursive", false),
	     deep = json_bool(o, "ReadOnlyForceRecursive", false);

	if (!*source)
		return err_set(err, EINVAL, "field Source must not be empty");
	if (*source != '/')
		return err_set(err, EINVAL, "invalid mount path: '%.200s' mount path must be absolute", source);
	if (check_propagation(propagation, err))
		return -err->code;
	if ((shallow || deep) && !json_bool(m, "ReadOnly", false))
		return err_set(err, EINVAL, "mount source is not read-only: ReadOnly%sRecursive needs ReadOnly",
			       shallow ? "Non" : "Force");
	if (shallow && deep)
		return err_set(err, EINVAL, "ReadOnlyNonRecursive and ReadOnlyForceRecursive contradict each other");
	if (*propagation)
		(void)json_object_set_new(p, "Propagation", json_string(propagation));
	if (json_bool(o, "NonRecursive", false))
		(void)json_object_set_new(p, "nonrecursive", json_true());
	if (shallow)
		(void)json_object_set_new(p, "shallow_ro", json_true());
	if (json_bool(o, "CreateMountpoint", false))
		(void)json_object_set_new(p, "create", json_true());
	return 0;
}

static int fill_volume(const json_t *m, json_t *p, struct err *err)
{
	const json_t *o = json_object_get(m, "VolumeOptions"), *driver = json_object_get(o, "DriverConfig");
	const char *name = json_str(driver, "Name", "");

	if (!*json_str(m, "Source", "")) {
		if (json_bool(m, "ReadOnly", false))
			return err_set(err, EINVAL, "must not set ReadOnly mode when using anonymous volumes");
		(void)json_object_set_new(p, "anonymous", json_true());
	}
	if (*json_str(o, "Subpath", ""))
		return err_set(err, ENOSYS, "volume-subpath is not supported by this version of Walnut");
	if (*name && strcmp(name, "local"))
		return err_set(err, ENOENT, "error looking up volume plugin %.60s: plugin \"%.60s\" not found", name,
			       name);
	if (json_bool(o, "NoCopy", false))
		(void)json_object_set_new(p, "nocopy", json_true());
	if (json_is_object(json_object_get(o, "Labels")))
		(void)json_object_set(p, "labels", json_object_get(o, "Labels"));
	if (json_nonempty(json_object_get(driver, "Options"))) {
		if (volume_options_check(json_object_get(driver, "Options"), err))
			return -err->code;
		(void)json_object_set(p, "driver_opts", json_object_get(driver, "Options"));
	}
	return 0;
}

static int fill_tmpfs(const json_t *m, json_t *p, struct err *err)
{
	const json_t *o = json_object_get(m, "TmpfsOptions"), *pair;
	int64_t size = json_int(o, "SizeBytes", 0), mode = json_int(o, "Mode", 0);
	json_t *options = json_pack("[s,s,s]", "noexec", "nosuid", "nodev");
	size_t i;

	(void)json_object_set_new(p, "options", options);
	if (*json_str(m, "Source", ""))
		return err_set(err, EINVAL, "field Source must not be specified");
	if (size < 0 || mode < 0 || mode > 07777)
		return err_set(err, EINVAL, "TmpfsOptions: a size is not negative, and a mode at most 7777 (octal)");
	if (size)
		(void)json_array_append_new(options, json_sprintf("size=%lld", (long long)size));
	if (mode)
		(void)json_array_append_new(options, json_sprintf("mode=%llo", (unsigned long long)mode));
	if (json_bool(m, "ReadOnly", false))
		(void)json_array_append_new(options, json_string("ro"));
	json_array_foreach(json_object_get(o, "Options"), i, pair) { /* API 1.46: [["uid", "1000"], ["exec"]] */
		const char *key = json_string_value(json_array_get(pair, 0));
		const char *value = json_string_value(json_array_get(pair, 1));

		if (!key || !*key || strpbrk(key, ",=") || json_array_size(pair) > 2 || (value && strchr(value, ',')))
			return err_set(err, EINVAL, "invalid option array length or form in TmpfsOptions.Options");
		(void)json_array_append_new(options, value ? json_sprintf("%s=%s", key, value) : json_string(key));
		for (size_t k = 0; k < 3; k++)
			if (!strncmp(json_string_value(json_array_get(options, k)) ?: "", "no", 2) &&
			    !strcmp(json_string_value(json_array_get(options, k)) + 2, key)) {
				(void)json_array_remove(options, k);
				break;
			}
	}
	return 0;
}

static int fill_mount(const json_t *m, const char *type, json_t *p, struct err *err)
{
	if (check_target(json_str(m, "Target", ""), err) || check_extra(m, type, err))
		return -err->code;
	if (!strcmp(type, "bind"))
		return fill_bind(m, p, err);
	return !strcmp(type, "volume") ? fill_volume(m, p, err) : fill_tmpfs(m, p, err);
}

static json_t *parse_mount(const json_t *m, struct err *err)
{
	const char *type = json_str(m, "Type", "");
	json_t *p;

	if (strcmp(type, "bind") && strcmp(type, "volume") && strcmp(type, "tmpfs")) {
		(void)err_set(err, EINVAL, "invalid mount config for type \"%.40s\": mount type unknown", type);
		return NULL;
	}
	p = new_point(type, json_str(m, "Source", ""), json_str(m, "Target", ""), "", json_bool(m, "ReadOnly", false));
	if (fill_mount(m, type, p, err)) {
		if (err->code == EINVAL)
			(void)err_wrap(err, "invalid mount config for type \"%s\"", type);
		json_decref(p);
		return NULL;
	}
	return p;
}

static int add_point(json_t *list, json_t *point, const json_t *tmpfs, struct err *err)
{
	CLEAN_JSON json_t *p = point;
	const char *target = json_str(p, "Destination", ""), *key;
	bool twice = false;
	size_t i;
	json_t *v;

	if (!p)
		return -err->code;
	json_array_foreach(list, i, v)
		twice = twice || !strcmp(json_str(v, "Destination", ""), target);
	json_object_foreach((json_t *)tmpfs, key, v)
		twice = twice || !strcmp(key, target);
	if (twice)
		return err_set(err, EINVAL, "Duplicate mount point: %.300s", target);
	return json_array_append(list, p) ? err_sys(err, ENOMEM, "read the mounts") : 0;
}

json_t *mounts_parse(const json_t *host, struct err *err)
{
	CLEAN_JSON json_t *list = json_array();
	const json_t *tmpfs = json_object_get(host, "Tmpfs");
	const char *key;
	size_t i;
	json_t *v;

	json_object_foreach((json_t *)tmpfs, key, v)
		if (check_target(key, err)) {
			(void)err_wrap(err, "invalid mount config for type \"tmpfs\"");
			return NULL;
		}
	json_array_foreach(json_object_get(host, "Binds"), i, v) {
		if (!json_is_string(v)) {
			(void)err_set(err, EINVAL, "HostConfig.Binds holds something that is not a string");
			return NULL;
		}
		if (add_point(list, parse_bind(json_string_value(v), err), tmpfs, err))
			return NULL;
	}
	json_array_foreach(json_object_get(host, "Mounts"), i, v)
		if (add_point(list, parse_mount(v, err), tmpfs, err))
			return NULL;
	return json_incref(list);
}

int volume_options_check(const json_t *options, struct err *err)
{
	static const char *const known[] = { "type", "o", "device", "size" };
	const char *key, *type = json_str(options, "type", ""), *device = json_str(options, "device", "");
	json_t *v;

	json_object_foreach((json_t *)options, key, v) {
		bool found = false;

		for (size_t i = 0; i < ARRAY_LEN(known); i++)
			found = found || !strcmp(known[i], key);
		if (!found)
			return err_set(err, EINVAL, "invalid option: \"%.100s\"", key);
		if (!json_is_string(v))
			return err_set(err, EINVAL, "DriverOpts.%s is not a string", key);
	}
	if (*json_str(options, "size", ""))
		return err_set(err, EINVAL, "quota size requested but no quota support");
	if ((*device || json_object_get(options, "o")) && !*type)
		return err_set(err, EINVAL, "missing required option: \"type\"");
	if ((*type || json_object_get(options, "o")) && !*device)
		return err_set(err, EINVAL, "missing required option: \"device\"");
	return 0;
}
