/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes of the driver "local": DATA/volumes/NAME/_data, and a row of the database each. A volume with options is a
 * filesystem that is mounted there while a container uses it: a tmpfs or a bind by the engine on the host, so that containers
 * share it; what needs a server or a disk (NFS, CIFS, ext4) by each shim in its own namespace, where waiting holds up nobody.
 */
#include <fcntl.h>
#include <limits.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container_internal.h"
#include "engine/mounts.h"

#define ANONYMOUS "com.docker.volume.anonymous" /* the label that Docker marks them with, which prune looks for */

static void volume_free(struct engine_volume *v)
{
	json_decref(v->labels);
	json_decref(v->options);
	free(v->name);
	free(v);
}

void engine_volume_mountpoint(const struct engine *e, const char *name, char *path, size_t n)
{
	(void)snprintf(path, n, "%s/volumes/%s/_data", e->config.data_root, name);
}

const char *engine_volume_kind(const struct engine_volume *v)
{
	const char *type = json_str(v->options, "type", ""), *o = json_str(v->options, "o", "");
	CLEAN_FREE char *words = strdup(o);
	char *save = NULL;

	if (!*type)
		return "";
	if (!strcmp(type, "tmpfs"))
		return "tmpfs";
	for (char *w = words ? strtok_r(words, ",", &save) : NULL; w; w = strtok_r(NULL, ",", &save))
		if (!strcmp(w, "bind") || !strcmp(w, "rbind"))
			return "bind";
	return "device";
}

struct engine_volume *engine_volume_find(struct engine *e, const char *name, struct err *err)
{
	for (struct engine_volume *v = e->volumes; v; v = v->next)
		if (!strcmp(v->name, name))
			return v;
	(void)err_set(err, ENOENT, "get %s: no such volume", name);
	return NULL;
}

int engine_volume_references(const struct engine *e, const char *name, const char **id)
{
	int n = 0;

	for (const struct engine_container *c = e->containers; c; c = c->next) {
		size_t i;
		json_t *v;

		json_array_foreach(c->mounts, i, v)
			if (!strcmp(json_str(v, "Type", ""), "volume") && !strcmp(json_str(v, "Name", ""), name)) {
				*id = c->id;
				n++;
				break;
			}
	}
	return n;
}

void engine_volume_event(struct engine *e, const char *name, const char *action, json_t *more)
{
	json_t *attributes = json_pack("{s:s}", "driver", "local");

	if (more)
		(void)json_object_update(attributes, more);
	json_decref(more);
	events_emit(e, "volume", action, name, attributes);
}

/* ---- create ---- */

static int check_name(const char *name, struct err *err)
{
	static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	static const char rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";

	if (strlen(name) < 2)
		return err_set(
			err, EINVAL,
			"create %s: volume name is too short, names should be at least two alphanumeric characters",
			name);
	if (!strchr(first, *name) || name[strspn(name, rest)] || strlen(name) > 255)
		return err_set(
			err, EINVAL,
			"create %.200s: \"%.200s\" includes invalid characters for a local volume name, only "
			"\"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use "
			"absolute path",
			name, name);
	return 0;
}

static int check_body(const json_t *body, struct err *err)
{
	const json_t *labels = json_object_get(body, "Labels"), *options = json_object_get(body, "DriverOpts");
	const char *driver = json_str(body, "Driver", ""), *name = json_str(body, "Name", ""), *key;
	json_t *v;

	if ((labels && !json_is_object(labels) && !json_is_null(labels)) ||
	    (options && !json_is_object(options) && !json_is_null(options)))
		return err_set(err, EINVAL, "Labels and DriverOpts are objects of strings");
	json_object_foreach((json_t *)labels, key, v)
		if (!json_is_string(v))
			return err_set(err, EINVAL, "the label %.100s is not a string", key);
	if (*driver && strcmp(driver, "local"))
		return err_set(err, ENOENT,
			       "create %.100s: error looking up volume plugin %.60s: plugin \"%.60s\" not found", name,
			       driver, driver);
	if (json_nonempty(json_object_get(body, "ClusterVolumeSpec")))
		return err_set(err, ENOSYS, "cluster volumes are not supported by Walnut: it is no swarm");
	if (*name && check_name(name, err))
		return -err->code;
	return volume_options_check(options, err) ? err_wrap(err, "create %.100s", name) : 0;
}

/* Its key in the database, where ids are unique over all kinds of objects. */
static void volume_key(const char *name, char key[300])
{
	(void)snprintf(key, 300, "volume:%s", name);
}

static int volume_make(struct engine *e, struct engine_volume *v, struct err *err)
{
	CLEAN_JSON json_t *config = json_pack("{s:O, s:O, s:I}", "Labels", v->labels, "Options", v->options, "Created",
					      (json_int_t)v->created_ns);
	CLEAN_JSON json_t *state = json_object();
	char path[PATH_MAX], key[300];

	engine_volume_mountpoint(e, v->name, path, sizeof(path));
	*strrchr(path, '/') = 0;
	if (fd_mkdir_p(path, 0701, err))
		return err_wrap(err, "create %.100s", v->name);
	engine_volume_mountpoint(e, v->name, path, sizeof(path));
	volume_key(v->name, key);
	if (fd_mkdir_p(path, 0755, err) || db_put_object(e, "volume", key, v->name, config, state, err))
		return err_wrap(err, "create %.100s", v->name);
	return 0;
}

int engine_volume_create(struct engine *e, const json_t *body, struct engine_volume **out, struct err *err)
{
	const char *name = json_str(body, "Name", "");
	char id[65];

	if (check_body(body, err))
		return -err->code;
	if (*name && (*out = engine_volume_find(e, name, NULL)))
		return 0;
	struct engine_volume *v = calloc(1, sizeof(*v));

	if (!v)
		return err_sys(err, ENOMEM, "create a volume");
	engine_random_id(id);
	v->name = strdup(*name ? name : id);
	v->labels = json_nonempty(json_object_get(body, "Labels")) ? json_deep_copy(json_object_get(body, "Labels"))
								   : json_object();
	v->options = json_nonempty(json_object_get(body, "DriverOpts"))
			     ? json_deep_copy(json_object_get(body, "DriverOpts"))
			     : json_object();
	v->created_ns = engine_now_ns();
	if (!*name)
		(void)json_object_set_new(v->labels, ANONYMOUS, json_string(""));
	if (!v->name || !v->labels || !v->options || volume_make(e, v, err)) {
		volume_free(v);
		return err->code ? -err->code : err_sys(err, ENOMEM, "create a volume");
	}
	v->next = e->volumes;
	e->volumes = v;
	engine_volume_event(e, v->name, "create", NULL);
	*out = v;
	return 0;
}

/* ---- mounted while in use ---- */

static bool is_mounted(const char *path)
{
	struct statx sx;

	return !statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &sx) &&
	       (sx.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

/* "o" as mount(8) takes it: flags, and the rest for the filesystem. */
static int mount_words(const char *o, unsigned long *flags, struct buf *data)
{
	static const struct {
		const char *word;
		unsigned long flag;
	} known[] = { { "ro", MS_RDONLY },
		      { "rw", 0 },
		      { "bind", MS_BIND },
		      { "rbind", MS_BIND | MS_REC },
		      { "nosuid", MS_NOSUID },
		      { "nodev", MS_NODEV },
		      { "noexec", MS_NOEXEC },
		      { "noatime", MS_NOATIME },
		      { "nodiratime", MS_NODIRATIME },
		      { "relatime", MS_RELATIME },
		      { "sync", MS_SYNCHRONOUS },
		      { "defaults", 0 },
		      { "exec", 0 },
		      { "suid", 0 },
		      { "dev", 0 } };
	CLEAN_FREE char *words = strdup(o);
	char *save = NULL;
	int rc = words ? 0 : -ENOMEM;

	for (char *w = words ? strtok_r(words, ",", &save) : NULL; w && !rc; w = strtok_r(NULL, ",", &save)) {
		size_t i = 0;

		while (i < ARRAY_LEN(known) && strcmp(known[i].word, w))
			i++;
		if (i < ARRAY_LEN(known))
			*flags |= known[i].flag;
		else
			rc = buf_printf(data, "%s%s", data->len ? "," : "", w);
	}
	return rc;
}

static int volume_mount(struct engine *e, const struct engine_volume *v, struct err *err)
{
	const char *device = json_str(v->options, "device", ""), *type = json_str(v->options, "type", "");
	CLEAN_BUF struct buf data = BUF_INIT;
	unsigned long flags = 0, extra;
	char path[PATH_MAX];
	int rc;

	engine_volume_mountpoint(e, v->name, path, sizeof(path));
	if (is_mounted(path))
		return 0;
	if (mount_words(json_str(v->options, "o", ""), &flags, &data))
		return err_sys(err, ENOMEM, "mount a volume");
	extra = flags & ~(unsigned long)(MS_BIND | MS_REC);
	rc = mount(device, path, type, flags, buf_bytes(&data));
	/* a bind mount takes its flags in a second step: mount(2) */
	if (!rc && flags & MS_BIND && extra)
		rc = mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | extra, NULL);
	if (rc)
		return err_sys(err, errno,
			       "error while mounting volume '%s': failed to mount local volume: mount %.100s:%s", path,
			       device, path);
	return 0;
}

int volumes_mount(struct engine_container *c, struct err *err)
{
	size_t i;
	json_t *v;

	json_array_foreach(c->mounts, i, v) {
		const struct engine_volume *volume;

		if (strcmp(json_str(v, "Type", ""), "volume"))
			continue;
		volume = engine_volume_find(c->engine, json_str(v, "Name", ""), err);
		if (!volume)
			return -err->code;
		const char *kind = engine_volume_kind(volume);

		if (*kind && strcmp(kind, "device") && volume_mount(c->engine, volume, err))
			return -err->code;
	}
	return 0;
}

static bool volume_in_use(const struct engine *e, const struct engine_volume *volume)
{
	for (const struct engine_container *c = e->containers; c; c = c->next) {
		size_t i;
		json_t *v;

		if (!c->shim && !container_live(c) && !c->starting)
			continue;
		json_array_foreach(c->mounts, i, v)
			if (!strcmp(json_str(v, "Name", ""), volume->name))
				return true;
	}
	return false;
}

static void volume_unmount(const struct engine *e, const struct engine_volume *v)
{
	char path[PATH_MAX];

	engine_volume_mountpoint(e, v->name, path, sizeof(path));
	if (*engine_volume_kind(v) && is_mounted(path) && umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW))
		log_warn("volume %s: unmount %s: %s", v->name, path, strerror(errno));
}

void volumes_release(struct engine *e)
{
	for (const struct engine_volume *v = e->volumes; v; v = v->next)
		if (*engine_volume_kind(v) && !volume_in_use(e, v))
			volume_unmount(e, v);
}

/* ---- remove, prune ---- */

int engine_volume_remove(struct engine *e, struct engine_volume *v, struct err *err)
{
	const char *id = NULL;
	struct engine_volume **p = &e->volumes;
	char path[PATH_MAX], key[300];

	if (engine_volume_references(e, v->name, &id))
		return err_set(err, EBUSY, "remove %s: volume is in use - [%s]", v->name, id);
	volume_unmount(e, v);
	engine_volume_mountpoint(e, v->name, path, sizeof(path));
	if (is_mounted(path)) /* what is mounted there is not the volume's to remove */
		return err_set(err, EBUSY, "remove %s: %s is mounted, and not by Walnut: unmount it first", v->name,
			       path);
	*strrchr(path, '/') = 0;
	volume_key(v->name, key);
	if (db_delete_object(e, key, err) || fd_remove_tree(AT_FDCWD, path, err) < 0)
		return err_wrap(err, "remove %s", v->name);
	while (*p != v)
		p = &(*p)->next;
	*p = v->next;
	engine_volume_event(e, v->name, "destroy", NULL);
	volume_free(v);
	return 0;
}

void volumes_drop_anonymous(struct engine *e, const json_t *mounts)
{
	size_t i;
	json_t *m;

	json_array_foreach(mounts, i, m) {
		struct engine_volume *v =
			json_bool(m, "anonymous", false) ? engine_volume_find(e, json_str(m, "Name", ""), NULL) : NULL;
		struct err err = ERR_INIT;

		/* another container may have it by --volumes-from: then it stays, as with Docker */
		if (v && engine_volume_remove(e, v, &err) && err.code != EBUSY)
			log_warn("volume %s: %s", json_str(m, "Name", ""), err.msg);
	}
}

static bool filter_true(const json_t *filters, const char *key, bool *value, struct err *err)
{
	const char *text = json_string_value(json_array_get(json_object_get(filters, key), 0));

	if (!text)
		return true;
	*value = !strcmp(text, "true") || !strcmp(text, "1");
	if (!*value && strcmp(text, "false") && strcmp(text, "0")) {
		(void)err_set(err, EINVAL, "invalid filter '%s=%.100s'", key, text);
		return false;
	}
	return true;
}

json_t *engine_volume_prune(struct engine *e, const char *text, bool all, struct err *err)
{
	static const char *const keys[] = { "label", "label!", "all", NULL };
	CLEAN_JSON json_t *filters = filters_parse(text, err);
	CLEAN_JSON json_t *unwanted = json_pack("{s:O?}", "label", json_object_get(filters, "label!"));
	json_t *deleted, *freed;
	int64_t sum = 0;

	if (!filters || filters_known(filters, keys, err) || !filter_true(filters, "all", &all, err))
		return NULL;
	deleted = json_array();
	for (struct engine_volume *v = e->volumes, *next; v; v = next) {
		const char *id;
		struct err why = ERR_INIT;
		CLEAN_JSON json_t *name = json_string(v->name);

		next = v->next;
		if ((!all && !json_object_get(v->labels, ANONYMOUS)) || engine_volume_references(e, v->name, &id) ||
		    !filters_match_labels(filters, v->labels) ||
		    (json_object_get(filters, "label!") && filters_match_labels(unwanted, v->labels)))
			continue;
		CLEAN_JSON json_t *shown = engine_volume_json(e, v, true);
		int64_t size = json_int(json_object_get(shown, "UsageData"), "Size", 0);

		if (engine_volume_remove(e, v, &why)) {
			log_warn("%s", why.msg);
			continue;
		}
		sum += size;
		(void)json_array_append(deleted, name);
	}
	freed = json_sprintf("%lld", (long long)sum);
	events_emit(e, "volume", "prune", "", json_pack("{s:o}", "reclaimed", freed));
	return json_pack("{s:o, s:I}", "VolumesDeleted", deleted, "SpaceReclaimed", (json_int_t)sum);
}

/* ---- for clients ---- */

json_t *engine_volume_json(const struct engine *e, const struct engine_volume *v, bool usage)
{
	char path[PATH_MAX], created[40];
	const char *id;
	json_t *j;

	engine_volume_mountpoint(e, v->name, path, sizeof(path));
	(void)engine_time_text(v->created_ns / 1000000000 * 1000000000, created);
	if (strchr(created, '.')) /* whole seconds, as Docker */
		(void)strcpy(strchr(created, '.'), "Z");
	j = json_pack("{s:s, s:s, s:o, s:s, s:s, s:o, s:s}", "CreatedAt", created, "Driver", "local", "Labels",
		      json_nonempty(v->labels) ? json_incref(v->labels) : json_null(), "Mountpoint", path, "Name",
		      v->name, "Options", json_nonempty(v->options) ? json_incref(v->options) : json_null(), "Scope",
		      "local");
	if (usage) {
		/* as Docker: the size of what is somewhere else is not known */
		int64_t size = *engine_volume_kind(v) ? -1 : engine_tree_size(path);

		(void)json_object_set_new(j, "UsageData",
					  json_pack("{s:i, s:I}", "RefCount", engine_volume_references(e, v->name, &id),
						    "Size", (json_int_t)size));
	}
	return j;
}

/* Docker takes each value as a regular expression. */
static bool match_name(const json_t *filters, const char *name)
{
	const json_t *list = json_object_get(filters, "name");
	size_t i;
	json_t *v;

	json_array_foreach(list, i, v) {
		regex_t re;
		bool found = strstr(name, json_string_value(v)) != NULL;

		if (!found && !regcomp(&re, json_string_value(v), REG_EXTENDED | REG_NOSUB)) {
			found = !regexec(&re, name, 0, NULL, 0);
			regfree(&re);
		}
		if (found)
			return true;
	}
	return !json_array_size(list);
}

json_t *engine_volume_list(struct engine *e, const char *text, bool usage, struct err *err)
{
	static const char *const keys[] = { "dangling", "driver", "label", "label!", "name", NULL };
	CLEAN_JSON json_t *filters = filters_parse(text, err);
	CLEAN_JSON json_t *unwanted = json_pack("{s:O?}", "label", json_object_get(filters, "label!"));
	bool dangling = false, ask = json_array_size(json_object_get(filters, "dangling")) > 0;
	json_t *list;

	if (!filters || filters_known(filters, keys, err) || !filter_true(filters, "dangling", &dangling, err))
		return NULL;
	list = json_array();
	for (const struct engine_volume *v = e->volumes; v; v = v->next) {
		const char *id;

		if ((ask && dangling != !engine_volume_references(e, v->name, &id)) ||
		    !filters_match(filters, "driver", "local") || !match_name(filters, v->name) ||
		    !filters_match_labels(filters, v->labels) ||
		    (json_object_get(filters, "label!") && filters_match_labels(unwanted, v->labels)))
			continue;
		(void)json_array_append_new(list, engine_volume_json(e, v, usage));
	}
	return list;
}

/* ---- with the engine ---- */

static int volume_load(struct engine *e, const char *key, const char *name, json_t *record, json_t *state)
{
	struct engine_volume *v = calloc(1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	v->name = strdup(name);
	v->labels = json_incref(json_object_get(record, "Labels"));
	v->options = json_incref(json_object_get(record, "Options"));
	v->created_ns = json_int(record, "Created", 0);
	if (!v->name || !v->labels || !v->options) {
		volume_free(v);
		return -ENOMEM;
	}
	v->next = e->volumes;
	e->volumes = v;
	return 0;
}

int volumes_load(struct engine *e, struct err *err)
{
	char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/volumes", e->config.data_root);
	return fd_mkdir_p(path, 0701, err) ?: db_each_object(e, "volume", volume_load, err);
}

void volumes_free(struct engine *e)
{
	while (e->volumes) {
		struct engine_volume *v = e->volumes;

		e->volumes = v->next;
		volume_free(v);
	}
}
