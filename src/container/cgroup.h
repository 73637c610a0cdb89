/* SPDX-License-Identifier: Apache-2.0 */
/* The cgroup of a container: version 1 (one folder a controller) or version 2 (one folder). */
#ifndef WALNUT_CONTAINER_CGROUP_H
#define WALNUT_CONTAINER_CGROUP_H

#include "container/container.h"

enum cgroup_controller {
	CGROUP_MEMORY,
	CGROUP_PIDS,
	CGROUP_CPU,
	CGROUP_CPUACCT,
	CGROUP_CPUSET,
	CGROUP_DEVICES,
	CGROUP_FREEZER,
	CGROUP_BLKIO,
	CGROUP_CONTROLLERS
};

struct cgroup {
	bool v2;
	int root[CGROUP_CONTROLLERS]; /* v1: the hierarchies; v2: only [0] */
	int dir[CGROUP_CONTROLLERS];  /* the container's folder in each; -1: no such controller; v2: all in [0] */
	char *path;
};

int cgroup_create(struct cgroup **out, const char *path, struct err *err) MUST_CHECK;
int cgroup_apply(struct cgroup *g, const struct oci_resources *r, struct err *err) MUST_CHECK;
int cgroup_apply_devices(struct cgroup *g, const struct oci_resources *r, struct err *err) MUST_CHECK;
int cgroup_add(struct cgroup *g, pid_t pid, struct err *err) MUST_CHECK;
/* cgroup_enter - the caller, which has one thread only, moves itself. Version 1 only: a clone is born in a cgroup of version 2. */
int cgroup_enter(struct cgroup *g, struct err *err) MUST_CHECK;
int cgroup_freeze(struct cgroup *g, bool frozen, struct err *err) MUST_CHECK;
int cgroup_pids(struct cgroup *g, pid_t **pids, size_t *n, struct err *err) MUST_CHECK;
int cgroup_kill(struct cgroup *g, struct err *err) MUST_CHECK;
int cgroup_stats(struct cgroup *g, struct container_stats *out, struct err *err) MUST_CHECK;
const char *cgroup_controller_name(enum cgroup_controller c);
/* cgroup_free - kill what is inside, remove the folders. */
void cgroup_free(struct cgroup *g);

/* cgroup_attach_device_program - version 2: an eBPF program that allows what @r's rules allow. */
int cgroup_attach_device_program(int dir, const struct oci_resources *r, struct err *err) MUST_CHECK;

#endif
