/* SPDX-License-Identifier: Apache-2.0 */
/* What the cgroup files share. */
#ifndef WALNUT_CONTAINER_CGROUP_INTERNAL_H
#define WALNUT_CONTAINER_CGROUP_INTERNAL_H

#include "container/cgroup.h"

enum cgroup_controller {
	CGROUP_MEMORY,
	CGROUP_PIDS,
	CGROUP_CPU,
	CGROUP_CPUACCT,
	CGROUP_CPUSET,
	CGROUP_DEVICES,
	CGROUP_FREEZER,
	CGROUP_BLKIO,
	CGROUP_NET_CLS,
	CGROUP_NET_PRIO,
	CGROUP_HUGETLB,
	CGROUP_RDMA,
	CGROUP_PERF_EVENT,
	CGROUP_MISC,
	CGROUP_SYSTEMD, /* the named hierarchy name=systemd */
	CGROUP_UNIFIED, /* version 2: everything */
	CGROUP_CONTROLLERS
};

struct cgroup {
	bool v2; /* all controllers are version 2's: only [CGROUP_UNIFIED] is used */
	enum cgroup_manager manager;
	bool rootless;
	int dir[CGROUP_CONTROLLERS];    /* owned; -1: no such controller */
	char *path[CGROUP_CONTROLLERS]; /* the folders' paths; owned */
	char *unit;                     /* systemd's scope; NULL: none */
	pid_t holder;                   /* keeps a new scope alive until the container's process is in it; 0: none */
	const char *warning;
};

/* cgroup_dir - the folder of controller @c in either version; -1: none. Borrowed. */
static inline int cgroup_dir(const struct cgroup *g, enum cgroup_controller c)
{
	return g->dir[g->v2 ? CGROUP_UNIFIED : c];
}

const char *cgroup_controller_name(enum cgroup_controller c);
/* cgroup_new - without folders; NULL without memory. */
struct cgroup *cgroup_new(void);
/* cgroup_open_folder - take @path, which exists, as the folder of @c. */
int cgroup_open_folder(struct cgroup *g, enum cgroup_controller c, const char *path, struct err *err) MUST_CHECK;

/* Files of a cgroup. Absent ones read as NULL or 0. */
int cgroup_write(int dir, const char *file, const char *text, struct err *err) MUST_CHECK;
char *cgroup_read(int dir, const char *file);
uint64_t cgroup_number(int dir, const char *file);               /* "max" is UINT64_MAX */
uint64_t cgroup_key(int dir, const char *file, const char *key); /* the number after "key " */
bool cgroup_has(int dir, const char *file);

/* cgroup_hierarchies - make the folders of @config in every hierarchy. */
int cgroup_hierarchies(struct cgroup *g, const struct cgroup_config *config, struct err *err) MUST_CHECK;
/* cgroup_make_v2 - the folder @path of version 2 with all controllers that there are, and missing parents. */
int cgroup_make_v2(struct cgroup *g, const char *root, const char *path, struct err *err) MUST_CHECK;
/* cgroup_clean_path - without "", "." and ".." (which never leaves the root); "" or "/a/b". The caller's. */
char *cgroup_clean_path(const char *path);

/* cgroup_apply_v1, cgroup_apply_v2 - limits, without devices. */
int cgroup_apply_v1(struct cgroup *g, const struct oci_resources *r, struct err *err) MUST_CHECK;
int cgroup_apply_v2(struct cgroup *g, const struct oci_resources *r, struct err *err) MUST_CHECK;

/* Writes that are done together: a file that refuses its value for the sake of another (EINVAL) is tried again. */
#define CGROUP_SETTINGS_MAX 64
struct cgroup_setting {
	int dir;
	char file[64], value[512];
	bool done;
};
struct cgroup_settings {
	struct cgroup_setting item[CGROUP_SETTINGS_MAX];
	size_t n;
	struct err err; /* of a full or bad list */
};
void cgroup_set(struct cgroup_settings *s, int dir, const char *file, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* cgroup_set_limit - -1 is @unlimited. */
void cgroup_set_limit(struct cgroup_settings *s, int dir, const char *file, int64_t n, const char *unlimited);
int cgroup_settings_write(struct cgroup_settings *s, struct err *err) MUST_CHECK;
/* cgroup_swap_possible - is there any swap that a limit could be about. */
bool cgroup_swap_possible(void);

/* The device program (version 2). */
struct bpf_insn;
#define CGROUP_DEVICE_INSNS(rules) ((rules)*10 + 16)
/* cgroup_device_program - at most CGROUP_DEVICE_INSNS(@n) instructions. Return: how many. */
size_t cgroup_device_program(struct bpf_insn *p, const struct oci_device_rule *rules, size_t n);
int cgroup_attach_devices(int dir, const struct oci_device_rule *rules, size_t n, struct err *err) MUST_CHECK;

#endif
