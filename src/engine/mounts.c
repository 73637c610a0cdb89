/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's mounts: settled when it is created (mount_parse.c reads what is asked; here other containers and the volumes
 * come in), written into the spec of each run. The order of precedence is Docker's: Binds and Mounts over VolumesFrom over
 * Config.Volumes.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "engine/container_internal.h"
#include "engine/mounts.h"

int mounts_refuse(const json_t *config, const json_t *host, enum engine_isolation isolation, struct err *err)
{
	CLEAN_JSON json_t *list = mounts_parse(host, err);
	const char *driver = json_str(host, "VolumeDriver", ""), *what = NULL, *key;
	size_t i;
	json_t *v;

	if (!list)
		return -err->code;
	if (*driver && strcmp(driver, "local"))
		return err_set(err, ENOENT, "error looking up volume plugin %.60s: plugin \"%.60s\" not found", driver,
			       driver);
	if (isolation != ENGINE_ISOLATION_HYPERV)
		return 0;
	json_array_foreach(list, i, v)
		if (strcmp(json_str(v, "Type", ""), "tmpfs"))
			what = json_str(v, "Destination", "");
	json_object_foreach(json_object_get(config, "Volumes"), key, v)
		what = key;
	if (json_nonempty(json_object_get(host, "VolumesFrom")))
		what = "VolumesFrom";
	return what ? err_set(err, ENOSYS,
			      "the mount %.200s: bind mounts and volumes are not supported with --isolation=hyperv by "
			      "this version of Walnut, which has no virtio-fs server yet: use --tmpfs, or "
			      "--isolation=process for this container",
			      what)
		    : 0;
}

/* @p (taken) takes the place of what is at its destination. */
static void put_point(json_t *list, json_t *p)
{
	size_t i;
	json_t *v;

	json_array_foreach(list, i, v)
		if (!strcmp(json_str(v, "Destination", ""), json_str(p, "Destination", ""))) {
			(void)json_array_set_new(list, i, p);
			return;
		}
	(void)json_array_append_new(list, p);
}

static bool has_point(const json_t *list, const char *target)
{
	size_t i;
	json_t *v;

	json_array_foreach(list, i, v)
		if (!strcmp(json_str(v, "Destination", ""), target))
			return true;
	return false;
}

/* "CONTAINER[:ro|rw|z|Z]" */
static int take_from(struct engine_container *c, json_t *list, const char *text, struct err *err)
{
	CLEAN_FREE char *name = strdup(text);
	char *mode = name ? strchr(name, ':') : NULL;
	const struct engine_container *other;
	size_t i;
	json_t *v;

	if (mode)
		*mode++ = 0;
	if (!name || !*name ||
	    (mode && strcmp(mode, "ro") && strcmp(mode, "rw") && strcmp(mode, "z") && strcmp(mode, "Z")))
		return err_set(err, EINVAL, "invalid volumes-from specification: '%.200s'", text);
	other = engine_container_find(c->engine, name, err);
	if (!other) {
		err->code = EINVAL; /* 404 would speak of the image */
		return -EINVAL;
	}
	json_array_foreach(other->mounts, i, v) {
		json_t *p;

		if (!strcmp(json_str(v, "Type", ""), "tmpfs"))
			continue;
		p = json_deep_copy(v);
		if (mode && !strcmp(mode, "ro"))
			(void)json_object_set_new(p, "RW", json_false());
		(void)json_object_set_new(p, "nocopy", json_true());
		put_point(list, p);
	}
	return 0;
}

static int take_anonymous(struct engine_container *c, json_t *list, struct err *err)
{
	const char *key;
	json_t *v;

	json_object_foreach(json_object_get(c->config, "Volumes"), key, v) {
		CLEAN_FREE char *target = strdup(key);

		if (!target || *target != '/')
			return err_set(err, EINVAL, "invalid mount path: '%.200s' mount path must be absolute", key);
		mount_path_clean(target);
		if (!strcmp(target, "/"))
			return err_set(err, EINVAL, "invalid specification: destination can't be '/'");
		if (has_point(list, target) || json_object_get(json_object_get(c->host_config, "Tmpfs"), target))
			continue;
		(void)json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:b}", "Type",
							    "volume", "Name", "", "Source", "", "Destination", target,
							    "Driver", "local", "Mode", "", "RW", true, "Propagation",
							    "", "anonymous", true));
	}
	return 0;
}

/* The volume of a mount point: found, or made. */
static int settle_volume(struct engine_container *c, json_t *p, json_t *made, struct err *err)
{
	struct engine *e = c->engine;
	CLEAN_JSON json_t *body =
		json_pack("{s:s, s:O?, s:O?}", "Name", json_str(p, "Name", ""), "Labels", json_object_get(p, "labels"),
			  "DriverOpts", json_object_get(p, "driver_opts"));
	char path[PATH_MAX];
	struct engine_volume *v = NULL;
	bool known = *json_str(p, "Name", "") && engine_volume_find(e, json_str(p, "Name", ""), NULL);

	if (engine_volume_create(e, body, &v, err))
		return -err->code;
	if (!known)
		(void)json_array_append_new(made, json_string(v->name));
	engine_volume_mountpoint(e, v->name, path, sizeof(path));
	(void)json_object_set_new(p, "Name", json_string(v->name));
	(void)json_object_set_new(p, "Source", json_string(path));
	/* as Docker shows it, for SELinux; a volume of the image or of "-v /place" has none */
	if (!*json_str(p, "Mode", "") && !json_bool(p, "anonymous", false))
		(void)json_object_set_new(p, "Mode", json_string("z"));
	return 0;
}

static int settle(struct engine_container *c, json_t *p, json_t *made, struct err *err)
{
	const char *type = json_str(p, "Type", "");
	struct stat st;

	if (!strcmp(type, "volume"))
		return settle_volume(c, p, made, err);
	if (!strcmp(type, "bind") && !json_bool(p, "create", false) && stat(json_str(p, "Source", ""), &st))
		return err_set(err, EINVAL,
			       "invalid mount config for type \"bind\": bind source path does not exist: %.300s",
			       json_str(p, "Source", ""));
	return 0;
}

static int gather(struct engine_container *c, json_t *list, struct err *err)
{
	CLEAN_JSON json_t *asked = mounts_parse(c->host_config, err);
	size_t i;
	json_t *v;

	if (!asked)
		return -err->code;
	json_array_foreach(json_object_get(c->host_config, "VolumesFrom"), i, v)
		if (take_from(c, list, json_string_value(v) ?: "", err))
			return -err->code;
	json_array_foreach(asked, i, v)
		put_point(list, json_incref(v));
	/* a guest has no volumes: what its image declares as one is a folder of its disk (docs/parity.md) */
	return c->isolation == ENGINE_ISOLATION_HYPERV ? 0 : take_anonymous(c, list, err);
}

int mounts_attach(struct engine_container *c, struct err *err)
{
	CLEAN_JSON json_t *list = json_array();
	CLEAN_JSON json_t *made = json_array();
	int rc = gather(c, list, err);
	size_t i;
	json_t *v;

	json_array_foreach(list, i, v)
		rc = rc ?: settle(c, v, made, err);
	if (!rc) {
		c->mounts = json_incref(list);
		return 0;
	}
	json_array_foreach(made, i, v) { /* nothing is left of a container that is not made */
		struct engine_volume *volume = engine_volume_find(c->engine, json_string_value(v), NULL);
		struct err ignored = ERR_INIT;

		if (volume && engine_volume_remove(c->engine, volume, &ignored))
			continue;
	}
	return rc;
}

/* ---- a run ---- */

static int depth_of(const char *path)
{
	int n = 0;

	for (; *path; path++)
		n += *path == '/' && path[1];
	return n;
}

static int point_source(const json_t *p, struct err *err)
{
	const char *source = json_str(p, "Source", "");
	struct stat st;

	if (!stat(source, &st))
		return 0;
	if (errno != ENOENT || strcmp(json_str(p, "Type", ""), "bind"))
		return err_sys(err, errno, "error while creating mount source path '%.200s'", source);
	if (!json_bool(p, "create", false))
		return err_set(err, EIO,
			       "invalid mount config for type \"bind\": bind source path does not exist: %.300s",
			       source);
	return fd_mkdir_p(source, 0755, err) ? err_wrap(err, "error while creating mount source path '%.200s'", source)
					     : 0;
}

static json_t *point_spec(const json_t *p)
{
	const char *propagation = json_str(p, "Propagation", "");
	bool shallow = json_bool(p, "shallow_ro", false) || json_bool(p, "nonrecursive", false);
	json_t *options;

	if (!strcmp(json_str(p, "Type", ""), "tmpfs"))
		return json_pack("{s:s, s:s, s:s, s:O}", "destination", json_str(p, "Destination", ""), "type", "tmpfs",
				 "source", "tmpfs", "options", json_object_get(p, "options"));
	options = json_pack("[s, s]", json_bool(p, "nonrecursive", false) ? "bind" : "rbind",
			    *propagation ? propagation : "rprivate");
	if (!json_bool(p, "RW", true))
		(void)json_array_append_new(options, json_string(shallow ? "ro" : "rro"));
	return json_pack("{s:s, s:s, s:s, s:o}", "destination", json_str(p, "Destination", ""), "type", "bind",
			 "source", json_str(p, "Source", ""), "options", options);
}

/* Is @target where a user's mount is, or below a /dev of the user's own? */
static bool gives_way(const json_t *points, const char *target)
{
	return has_point(points, target) || (!strncmp(target, "/dev/", 5) && has_point(points, "/dev"));
}

/* The spec's mounts in the order they are made: the system's, then all others, the ones higher in the tree first. */
static void sort_mounts(json_t *mounts, size_t fixed)
{
	size_t n = json_array_size(mounts);

	for (size_t i = fixed + 1; i < n; i++) {
		json_t *v = json_incref(json_array_get(mounts, i));
		size_t at = i;
		int depth = depth_of(json_str(v, "destination", ""));

		while (at > fixed && depth_of(json_str(json_array_get(mounts, at - 1), "destination", "")) > depth)
			at--;
		(void)json_array_remove(mounts, i);
		(void)json_array_insert_new(mounts, at, v);
	}
}

static bool is_system(const json_t *mount)
{
	static const char *const places[] = { "/proc",          "/dev",        "/dev/pts", "/sys",
					      "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm" };
	const char *type = json_str(mount, "type", "");
	bool bind = !strcmp(type, "bind") && strcmp(json_str(mount, "destination", ""), "/dev/shm");

	for (size_t i = 0; i < ARRAY_LEN(places) && !bind; i++)
		if (!strcmp(places[i], json_str(mount, "destination", "")))
			return true;
	return false;
}

int mounts_spec(struct engine_container *c, json_t *mounts, struct err *err)
{
	size_t fixed = 0, i;
	json_t *v;

	for (i = json_array_size(mounts); i-- > 0;)
		if (gives_way(c->mounts, json_str(json_array_get(mounts, i), "destination", "")))
			(void)json_array_remove(mounts, i);
	while (fixed < json_array_size(mounts) && is_system(json_array_get(mounts, fixed)))
		fixed++;
	json_array_foreach(c->mounts, i, v) {
		if (strcmp(json_str(v, "Type", ""), "tmpfs") && point_source(v, err))
			return -err->code;
		if (json_array_append_new(mounts, point_spec(v)))
			return err_sys(err, ENOMEM, "write the mounts");
	}
	sort_mounts(mounts, fixed);
	return 0;
}

json_t *mounts_populate(const struct engine_container *c)
{
	json_t *list = json_array(), *v;
	size_t i;

	json_array_foreach(c->mounts, i, v)
		if (!c->started_ns && !strcmp(json_str(v, "Type", ""), "volume") && !json_bool(v, "nocopy", false))
			(void)json_array_append_new(list,
						    json_pack("{s:O, s:O}", "from", json_object_get(v, "Destination"),
							      "to", json_object_get(v, "Source")));
	return list;
}

json_t *mounts_volumes(const struct engine_container *c)
{
	json_t *list = json_array(), *v;
	size_t i;

	json_array_foreach(c->mounts, i, v) {
		const struct engine_volume *volume =
			strcmp(json_str(v, "Type", ""), "volume")
				? NULL
				: engine_volume_find(c->engine, json_str(v, "Name", ""), NULL);

		if (volume && !strcmp(engine_volume_kind(volume), "device"))
			(void)json_array_append_new(list, json_pack("{s:O, s:s, s:s, s:s}", "at",
								    json_object_get(v, "Source"), "type",
								    json_str(volume->options, "type", ""), "device",
								    json_str(volume->options, "device", ""), "options",
								    json_str(volume->options, "o", "")));
	}
	return list;
}

/* ---- for clients ---- */

json_t *mounts_inspect(const struct engine_container *c)
{
	static const char *const keys[] = { "Type",   "Name", "Source", "Destination",
					    "Driver", "Mode", "RW",     "Propagation" };
	json_t *list = json_array(), *v;
	size_t i;

	json_array_foreach(c->mounts, i, v) {
		json_t *out = json_object();

		for (size_t k = 0; k < ARRAY_LEN(keys); k++)
			if (json_object_get(v, keys[k]))
				(void)json_object_set(out, keys[k], json_object_get(v, keys[k]));
		(void)json_array_append_new(list, out);
	}
	return list;
}

bool mounts_match(const struct engine_container *c, const json_t *filters)
{
	size_t i;
	json_t *v;

	if (!json_array_size(json_object_get(filters, "volume")))
		return true;
	json_array_foreach(c->mounts, i, v)
		if (filters_match(filters, "volume", json_str(v, "Name", json_str(v, "Source", ""))) ||
		    filters_match(filters, "volume", json_str(v, "Destination", "")))
			return true;
	return false;
}

void mounts_event(const struct engine_container *c, const char *action)
{
	size_t i;
	json_t *v;

	json_array_foreach(c->mounts, i, v) {
		json_t *more = json_pack("{s:s}", "container", c->id);

		if (!strcmp(action, "mount"))
			(void)json_object_update_new(more, json_pack("{s:O, s:O, s:s}", "destination",
								     json_object_get(v, "Destination"), "propagation",
								     json_object_get(v, "Propagation"), "read/write",
								     json_bool(v, "RW", true) ? "true" : "false"));
		if (!strcmp(json_str(v, "Type", ""), "volume"))
			engine_volume_event(c->engine, json_str(v, "Name", ""), action, more);
		else
			json_decref(more);
	}
}
