/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The systemd cgroup driver: a container is a transient scope that systemd makes when asked over D-Bus
 * (org.freedesktop.systemd1.Manager.StartTransientUnit). libsystemd is loaded with dlopen when it is needed.
 */
#ifndef WALNUT_CONTAINER_CGROUP_SYSTEMD_H
#define WALNUT_CONTAINER_CGROUP_SYSTEMD_H

#include "container/cgroup.h"

/* cgroup_systemd_create - start the scope and open its folders. */
int cgroup_systemd_create(struct cgroup *g, const struct cgroup_config *config, struct err *err) MUST_CHECK;
/* cgroup_systemd_update - tell systemd about new limits, so that it does not reset them. No scope: nothing. */
int cgroup_systemd_update(struct cgroup *g, const struct oci_resources *r, struct err *err) MUST_CHECK;
/* cgroup_systemd_release - the container's process is in the scope: the process that held it open may go. */
void cgroup_systemd_release(struct cgroup *g);
/* cgroup_systemd_stop - end the scope. No scope: nothing. */
int cgroup_systemd_stop(struct cgroup *g, struct err *err) MUST_CHECK;

/* One property of the scope. */
struct cgroup_property {
	char name[40];
	char type;       /* as in D-Bus: 's' string, 't' u64, 'b' bool, 'y' bytes, 'd' i32 as "i" */
	char text[256];  /* of 's' */
	uint64_t number; /* of 't', 'b', 'i' */
	unsigned char bytes[128];
	size_t nbytes; /* of 'y': an array of bytes ("ay") */
};

#define CGROUP_PROPERTIES_MAX 64
struct cgroup_properties {
	struct cgroup_property item[CGROUP_PROPERTIES_MAX];
	size_t n;
};

/* cgroup_systemd_name - "slice:prefix:name" as a slice and a unit; the caller's. NULL or empty: the default of @id. */
int cgroup_systemd_name(const char *path, const char *id, bool rootless, char **slice, char **unit,
			struct err *err) MUST_CHECK;
/* cgroup_systemd_slice_path - "a-b.slice" is "/a.slice/a-b.slice"; the caller's. */
int cgroup_systemd_slice_path(const char *slice, char **path, struct err *err) MUST_CHECK;
/* cgroup_systemd_properties - limits as systemd's properties, for the version of cgroups. */
int cgroup_systemd_properties(struct cgroup_properties *p, const struct oci_resources *r, bool v2,
			      struct err *err) MUST_CHECK;

#endif
