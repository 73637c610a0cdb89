/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cgroup of a container: version 1 (one folder in each hierarchy) or version 2 (one folder).
 * A hybrid machine (v1 controllers and a v2 tree that owns none or some) is used as version 1, with a
 * folder in the v2 tree besides, for cgroup.kill.
 *
 *	create -> apply, apply_devices -> (clone into cgroup_fd, cgroup_enter | cgroup_add) -> ... -> free or remove
 *
 * A runtime that ends in between keeps cgroup_save's JSON and goes on with cgroup_load.
 */
#ifndef WALNUT_CONTAINER_CGROUP_H
#define WALNUT_CONTAINER_CGROUP_H

#include <jansson.h>

#include "container/container.h"

struct cgroup;

enum cgroup_manager {
	CGROUP_MANAGER_FS,      /* folders made by us */
	CGROUP_MANAGER_SYSTEMD, /* a transient scope, asked for over D-Bus */
	CGROUP_MANAGER_DISABLED /* no cgroup at all: the processes stay where the caller is */
};

struct cgroup_config {
	enum cgroup_manager manager;
	/*
	 * linux.cgroupsPath. Absolute: below the hierarchies' roots. Relative: below the caller's own cgroup
	 * (version 2: below its parent, as a cgroup with processes can not have limited children). NULL or empty: as
	 * the relative path @id. With systemd: "slice:prefix:name".
	 */
	const char *path;
	const char *id;
	const struct oci_resources *resources; /* may be NULL */
	const json_t *annotations;             /* the spec's; for "org.systemd.property.*"; may be NULL */
	bool rootless; /* a cgroup that may not be made is done without, unless @resources asks for limits */
};

/* cgroup_create - make the folders (and missing parents). On failure nothing is left that was not there before. */
int cgroup_create(struct cgroup **out, const struct cgroup_config *config, struct err *err) MUST_CHECK;
/* cgroup_warning - what the caller should know: it was not empty, or frozen; NULL: nothing. Borrowed. */
const char *cgroup_warning(const struct cgroup *g);

/* cgroup_save - for the state file; new reference. cgroup_load - the same cgroup, from that. */
json_t *cgroup_save(const struct cgroup *g) MUST_CHECK;
int cgroup_load(struct cgroup **out, const json_t *saved, struct err *err) MUST_CHECK;
/* cgroup_close - forget it, touch nothing. NULL is allowed. */
void cgroup_close(struct cgroup *g);
/* cgroup_remove - kill what is inside, remove the folders and those below. The struct stays the caller's. */
int cgroup_remove(struct cgroup *g, struct err *err) MUST_CHECK;
/* cgroup_free - cgroup_remove as far as it goes, and cgroup_close. NULL is allowed. */
void cgroup_free(struct cgroup *g);

/* cgroup_apply - set the limits that are given; those that are not stay. Used for updates too. */
int cgroup_apply(struct cgroup *g, const struct oci_resources *r, struct err *err) MUST_CHECK;
/*
 * cgroup_apply_devices - the rules of @r, followed by those that every container needs (null, zero, full, random,
 * urandom, tty, console, ptmx, pts, and making nodes). Replaces earlier rules. No rules: nothing is done.
 */
int cgroup_apply_devices(struct cgroup *g, const struct oci_resources *r, struct err *err) MUST_CHECK;

/* cgroup_fd - the v2 folder for clone3's CLONE_INTO_CGROUP (also on a hybrid machine); -1: none. Borrowed. */
int cgroup_fd(const struct cgroup *g);
/*
 * cgroup_enter - the caller, which has one thread only, moves itself into the version 1 hierarchies. It must have been
 * cloned into cgroup_fd.
 */
int cgroup_enter(struct cgroup *g, struct err *err) MUST_CHECK;
/* cgroup_add - move a process into all hierarchies. */
int cgroup_add(struct cgroup *g, pid_t pid, struct err *err) MUST_CHECK;

int cgroup_freeze(struct cgroup *g, bool frozen, struct err *err) MUST_CHECK;
bool cgroup_frozen(const struct cgroup *g);
/* cgroup_pids - all processes in it and below; *pids is the caller's. */
int cgroup_pids(struct cgroup *g, pid_t **pids, size_t *n, struct err *err) MUST_CHECK;
/* cgroup_signal - to every process; SIGKILL as cgroup_kill. */
int cgroup_signal(struct cgroup *g, int sig, struct err *err) MUST_CHECK;
int cgroup_kill(struct cgroup *g, struct err *err) MUST_CHECK;

int cgroup_stats(struct cgroup *g, struct container_stats *out, struct err *err) MUST_CHECK;
/* cgroup_stats_json - the "data" of `events --stats` in runc's form; new reference. */
json_t *cgroup_stats_json(struct cgroup *g, struct err *err) MUST_CHECK;
/* cgroup_oom_open - a descriptor that becomes readable (poll) at an out-of-memory kill; the caller's. */
int cgroup_oom_open(struct cgroup *g, struct err *err) MUST_CHECK;
/* cgroup_oom_read - after poll: drains it. Return: kills of the kernel in this cgroup so far. */
uint64_t cgroup_oom_read(struct cgroup *g, int fd);

bool cgroup_is_v2(const struct cgroup *g);
/*
 * cgroup_mount_source - the n-th folder that a mount of type cgroup shows in the container
 * @name: its name below the mount point; @path: on the host. Return: false after the last.
 */
bool cgroup_mount_source(const struct cgroup *g, unsigned int n, const char **name, char *path, size_t size);

/* cgroup_features - the "cgroup" object of `features`; new reference. */
json_t *cgroup_features(void);

#endif
