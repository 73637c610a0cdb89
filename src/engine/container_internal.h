/* SPDX-License-Identifier: Apache-2.0 */
/* What the sources of a container's life share. */
#ifndef WALNUT_ENGINE_CONTAINER_INTERNAL_H
#define WALNUT_ENGINE_CONTAINER_INTERNAL_H

#include "engine/container.h"

/* container_move - to another state; a move that the table does not allow is a bug. */
void container_move(struct engine_container *c, enum engine_state to);
/* container_check_machine - can this machine run hyperv containers at all? -EOPNOTSUPP with the remedy. */
int container_check_machine(const struct engine *e, struct err *err) MUST_CHECK;
/* container_live - it runs, perhaps paused. */
bool container_live(const struct engine_container *c);
int container_paths(struct engine_container *c) MUST_CHECK;
/* container_fire - call who waits for an exit (and, @removed, for the removal). */
void container_fire(struct engine_container *c, bool removed);
void container_release_shim(struct engine_container *c);
/* container_maybe_remove - if it was created with --rm. */
void container_maybe_remove(struct engine_container *c);
/* container_ended - @exit: the shim's exit.json. */
void container_ended(struct engine_container *c, const json_t *exit);

/* container_layers - paths of the image's layers, lowest first; container_prepare - the folders of a run. */
json_t *container_layers(struct engine_container *c, struct err *err) MUST_CHECK;
int container_prepare(struct engine_container *c, struct err *err) MUST_CHECK;

/* health.c: from the start of the container to its end; status: "none", "starting", "healthy", "unhealthy". */
void health_start(struct engine_container *c);
void health_stop(struct engine_container *c);
void health_free(struct engine_container *c);
const char *health_status(const struct engine_container *c);
json_t *health_json(const struct engine_container *c); /* State.Health; NULL: none */

/* host_config.c */
/* json_nonempty - not null, false, 0, "", [] or {}. */
bool json_nonempty(const json_t *v);
/* engine_parse_size - Docker's sizes: "64m", "1.5g"; @base is 1000 or 1024. Return: bytes, or -1. */
int64_t engine_parse_size(const char *text, int64_t base);
int container_refuse(const json_t *config, const json_t *host, enum engine_isolation isolation,
		     struct err *err) MUST_CHECK;
int container_check_limits(const json_t *host, struct err *err) MUST_CHECK;
/* container_check_restart - the same for create and update. */
int container_check_restart(const json_t *restart, bool auto_remove, struct err *err) MUST_CHECK;
/* container_defaults - make host_config whole: every field that Docker's inspect shows. */
void container_defaults(struct engine_container *c);

/* spec_build.c: spec_default_paths - MaskedPaths and ReadonlyPaths where @host has none. */
void spec_default_paths(json_t *host);
/* spec_resources_only - linux.resources for a HostConfig, without devices: for an update. New reference. */
json_t *spec_resources_only(const json_t *host);

#endif
