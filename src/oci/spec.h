/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The OCI runtime specification's config.json, parsed and checked into C structs.
 * What a parsed document asks for and this library does not know is an error that
 * names the field, except for fields that only describe (annotations).
 *
 * All strings and arrays belong to the struct that holds them.
 */
#ifndef WALNUT_OCI_SPEC_H
#define WALNUT_OCI_SPEC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/err.h"
#include "oci/resources.h"
#include "oci/seccomp.h"

struct oci_user {
	uid_t uid;
	gid_t gid;
	gid_t *additional_gids;
	size_t additional_gids_count;
	int64_t umask; /* -1: not given (022) */
	/*
	 * Docker's form "name", "uid", "name:group", "uid:gid", to be resolved in the root filesystem's
	 * /etc/passwd and /etc/group when the process starts; NULL: the numbers above are used.
	 * additional_gids are added to what is found. JSON: process.user.username.
	 */
	char *username;
};

/* Capabilities as masks: bit N is capability N of linux/capability.h. */
struct oci_capabilities {
	uint64_t bounding, effective, inheritable, permitted, ambient;
};

struct oci_rlimit {
	int resource;        /* RLIMIT_* */
	uint64_t soft, hard; /* UINT64_MAX: unlimited */
};

struct oci_process {
	bool terminal;
	unsigned short console_height, console_width; /* 0: not given */
	struct oci_user user;
	char **args; /* NULL-terminated, at least one */
	char **env;  /* NULL-terminated */
	char *cwd;   /* absolute */
	struct oci_capabilities capabilities;
	bool capabilities_given; /* false: the process gets none (init) or init's (exec) */
	struct oci_rlimit *rlimits;
	size_t rlimits_count;
	bool no_new_privileges;
	bool oom_score_adj_given;
	int oom_score_adj;
};

struct oci_mount {
	char *destination; /* absolute, inside the root filesystem */
	char *type;        /* "bind", "proc", "tmpfs", ...; never NULL */
	char *source;      /* NULL: not given */
	char **options;    /* NULL-terminated */
};

struct oci_device {
	char *path;
	char type; /* 'c', 'b', 'p' */
	unsigned int major, minor;
	mode_t mode; /* permission bits */
	uid_t uid;
	gid_t gid;
};

struct oci_namespace_path {
	int flag; /* CLONE_NEW* */
	char *path;
};

struct oci_sysctl {
	char *key; /* "net.ipv4.ip_forward" */
	char *value;
};

struct oci_spec {
	struct oci_process process;
	char *rootfs; /* root.path; informative: container_config.rootfs is what is used; may be NULL */
	bool rootfs_readonly;
	char *hostname, *domainname; /* NULL: not given */
	struct oci_mount *mounts;
	size_t mounts_count;

	int namespaces;                             /* mask of CLONE_NEW* to be new */
	struct oci_namespace_path *namespace_paths; /* namespaces to join; not in the mask */
	size_t namespace_paths_count;
	struct oci_device *devices; /* besides the default ones */
	size_t devices_count;
	struct oci_resources resources;
	struct oci_rdt rdt;
	struct oci_seccomp *seccomp;           /* NULL: not given */
	char **masked_paths, **readonly_paths; /* NULL-terminated */
	struct oci_sysctl *sysctl;
	size_t sysctl_count;
	char *cgroups_path;               /* NULL: not given */
	unsigned long rootfs_propagation; /* MS_PRIVATE, MS_SLAVE, MS_SHARED, with MS_REC; 0: not given */
};

/* oci_spec_parse - a config.json. *out is the caller's (oci_spec_free). Return: 0 or -EINVAL, -ENOMEM. */
int oci_spec_parse(const json_t *json, struct oci_spec **out, struct err *err) MUST_CHECK;
void oci_spec_free(struct oci_spec *spec); /* NULL is allowed */

/* oci_process_parse - a "process" object; *out is the caller's (oci_process_free). */
int oci_process_parse(const json_t *json, struct oci_process **out, struct err *err) MUST_CHECK;
void oci_process_free(struct oci_process *process); /* NULL is allowed */

static inline void cleanup_oci_spec(struct oci_spec **p)
{
	oci_spec_free(*p);
}
static inline void cleanup_oci_process(struct oci_process **p)
{
	oci_process_free(*p);
}

/* oci_capability_number - "CAP_CHOWN" or "chown", any case. Return: its number or -EINVAL. */
int oci_capability_number(const char *name) MUST_CHECK;
/* oci_capability_name - "CAP_CHOWN"; NULL for an unknown number. A constant. */
const char *oci_capability_name(int number);
#define OCI_CAPABILITIES_COUNT 41

#endif
