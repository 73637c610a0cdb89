/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's mounts and the volumes of the engine.
 *
 * A mount point is a JSON object with the fields of Docker's inspect (Type, Name, Source, Destination, Driver, Mode, RW,
 * Propagation) and, in lower case, what only the engine wants to know: "anonymous", "nocopy", "nonrecursive",
 * "shallow_ro", "create", "options" (of a tmpfs), "labels", "driver_opts".
 */
#ifndef WALNUT_ENGINE_MOUNTS_H
#define WALNUT_ENGINE_MOUNTS_H

#include "engine/engine.h"

struct engine_container;

struct engine_volume {
	struct engine_volume *next;
	char *name;
	json_t *labels, *options; /* objects of strings */
	int64_t created_ns;
};

/* mount_parse.c, without any state. */

/**
 * mounts_parse - the mounts that a request asks for
 * @config, @host: Docker's Config and HostConfig
 *
 * HostConfig.Binds and HostConfig.Mounts, in this order; Config.Volumes and VolumesFrom are not looked at.
 * Return: a new array of mount points, or NULL with Docker's words (EINVAL; ENOSYS for what is not built).
 */
json_t *mounts_parse(const json_t *host, struct err *err) MUST_CHECK;
/* mount_path_clean - an absolute path without "//", ".", ".." and a "/" at the end; in place. */
void mount_path_clean(char *path);
/* volume_options_check - the options of the driver "local". */
int volume_options_check(const json_t *options, struct err *err) MUST_CHECK;

/* mounts.c */

/* mounts_refuse - what the isolation of a request's container cannot do. */
int mounts_refuse(const json_t *config, const json_t *host, enum engine_isolation isolation,
		  struct err *err) MUST_CHECK;
/* mounts_attach - settle a new container's mounts: c->mounts; makes the volumes that are missing. */
int mounts_attach(struct engine_container *c, struct err *err) MUST_CHECK;
/* mounts_spec - add them to a run's OCI mounts; an entry of ours at the same place gives way. */
int mounts_spec(struct engine_container *c, json_t *mounts, struct err *err) MUST_CHECK;
/* mounts_populate - for the shim: volumes that take what the image has at their place; empty after the first run. */
json_t *mounts_populate(const struct engine_container *c) MUST_CHECK;
/* mounts_volumes - for the shim: filesystems to mount as volumes in its namespace: [{"at", "type", "device", "options"}]. */
json_t *mounts_volumes(const struct engine_container *c) MUST_CHECK;
/* mounts_inspect - Docker's Mounts. */
json_t *mounts_inspect(const struct engine_container *c) MUST_CHECK;
/* mounts_match - the filter "volume" of the list: a volume's name, or a place in the container. */
bool mounts_match(const struct engine_container *c, const json_t *filters);
/* mounts_event - "mount" or "unmount" of each volume. */
void mounts_event(const struct engine_container *c, const char *action);

/* volume.c */

struct engine_volume *engine_volume_find(struct engine *e, const char *name, struct err *err) MUST_CHECK;
/* engine_volume_create - from Docker's create body; an existing one of the name is given back. */
int engine_volume_create(struct engine *e, const json_t *body, struct engine_volume **out, struct err *err) MUST_CHECK;
int engine_volume_remove(struct engine *e, struct engine_volume *v, struct err *err) MUST_CHECK;
/* engine_volume_mountpoint - where its files are. */
void engine_volume_mountpoint(const struct engine *e, const char *name, char *path, size_t n);
/* engine_volume_kind - "": a folder; "tmpfs", "bind": the engine mounts it; "device": the shim does. */
const char *engine_volume_kind(const struct engine_volume *v);
/* engine_volume_references - how many containers have it; @id: one of them. */
int engine_volume_references(const struct engine *e, const char *name, const char **id);
json_t *engine_volume_json(const struct engine *e, const struct engine_volume *v, bool usage);
/* engine_volume_list - Docker's /volumes. NULL with @err. */
json_t *engine_volume_list(struct engine *e, const char *filters, bool usage, struct err *err) MUST_CHECK;
/* engine_volume_prune - @all: named ones too, whatever the filter "all" says. NULL with @err. */
json_t *engine_volume_prune(struct engine *e, const char *filters, bool all, struct err *err) MUST_CHECK;
/* engine_volume_event - attributes: the driver, and @more (stolen, may be NULL). */
void engine_volume_event(struct engine *e, const char *name, const char *action, json_t *more);
/* volumes_load, volumes_free - with the engine. */
int volumes_load(struct engine *e, struct err *err) MUST_CHECK;
void volumes_free(struct engine *e);
/* volumes_mount - before a shim is started: tmpfs and bind volumes of the container are mounted on the host. */
int volumes_mount(struct engine_container *c, struct err *err) MUST_CHECK;
/* volumes_release - unmount those that no shim uses. */
void volumes_release(struct engine *e);
/* volumes_drop_anonymous - the container is gone, and its anonymous volumes with it. */
void volumes_drop_anonymous(struct engine *e, const json_t *mounts);

#endif
