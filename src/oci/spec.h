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

/* process.scheduler, for sched_setattr(2). */
struct oci_scheduler {
	bool given;
	unsigned int policy; /* SCHED_* */
	int nice;
	unsigned int priority;
	uint64_t flags;                     /* SCHED_FLAG_* */
	uint64_t runtime, deadline, period; /* ns */
};

/* process.ioPriority, for ioprio_set(2). */
struct oci_io_priority {
	bool given;
	int class, priority; /* IOPRIO_CLASS_*; 0 (highest) to 7 */
};

struct oci_process {
	bool terminal;
	unsigned short console_height, console_width; /* 0: not given */
	struct oci_user user;
	char **args; /* NULL-terminated, at least one */
	char **env;  /* NULL-terminated */
	char *cwd;   /* absolute */
	struct oci_capabilities capabilities;
	char *unknown_capability; /* the first name that was passed over; NULL: none */
	bool capabilities_given;  /* false: the process gets none (init) or init's (exec) */
	struct oci_rlimit *rlimits;
	size_t rlimits_count;
	bool no_new_privileges;
	bool oom_score_adj_given;
	int oom_score_adj;
	char *apparmor_profile, *selinux_label; /* NULL: not given */
	struct oci_scheduler scheduler;
	struct oci_io_priority io_priority;
	/* execCPUAffinity: lists of processors as in cpuset(7), for an exec; NULL: not given */
	char *cpu_affinity_initial, *cpu_affinity_final;
};

/* A range of ids: [container, container+size) inside are [host, host+size) outside. */
struct oci_id_map {
	uint32_t container, host, size;
};

struct oci_mount {
	char *destination; /* absolute, inside the root filesystem */
	char *type;        /* "bind", "proc", "tmpfs", ...; never NULL */
	char *source;      /* NULL: not given */
	char **options;    /* NULL-terminated */
	/* idmapped mount: uidMappings and gidMappings; both or none */
	struct oci_id_map *uid_map, *gid_map;
	size_t uid_map_count, gid_map_count;
};

struct oci_device {
	char *path;
	char type; /* 'c', 'b', 'p' */
	unsigned int major, minor;
	mode_t mode; /* permission bits */
	uid_t uid;
	gid_t gid;
};

/* A program of the hooks; runtime-spec, config.md, "POSIX-platform Hooks". */
struct oci_hook {
	char *path;     /* absolute */
	char **args;    /* NULL-terminated, args[0] included; never NULL */
	char **env;     /* NULL-terminated; never NULL */
	bool env_given; /* false: the runtime's own, as runc and crun do */
	int timeout;    /* seconds; 0: none */
};

enum oci_hook_kind {
	OCI_HOOK_PRESTART,
	OCI_HOOK_CREATE_RUNTIME,
	OCI_HOOK_CREATE_CONTAINER,
	OCI_HOOK_START_CONTAINER,
	OCI_HOOK_POSTSTART,
	OCI_HOOK_POSTSTOP,
	OCI_HOOK_KINDS
};

struct oci_hook_list {
	struct oci_hook *hooks;
	size_t count;
};

/* An entry of linux.timeOffsets. */
struct oci_time_offset {
	bool given;
	int64_t secs;
	uint32_t nanosecs;
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
	char *oci_version; /* "1.0.0" when not given */
	bool version_given;
	bool process_given; /* false: process is empty; enough for what is never started */
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
	char *cgroups_path;                   /* NULL: not given */
	struct oci_id_map *uid_map, *gid_map; /* of the new user namespace */
	size_t uid_map_count, gid_map_count;
	struct oci_time_offset monotonic, boottime; /* of the new time namespace */
	char *mount_label;                          /* SELinux; NULL: not given */
	bool personality_given;
	unsigned long personality; /* for personality(2) */
	struct {
		struct oci_hook_list kinds[OCI_HOOK_KINDS];
	} hooks;
	json_t *annotations;              /* an object of strings; NULL: not given; owned */
	unsigned long rootfs_propagation; /* MS_PRIVATE, MS_SLAVE, MS_SHARED, with MS_REC; 0: not given */
};

/* oci_spec_parse - a config.json. *out is the caller's (oci_spec_free). Return: 0 or -EINVAL, -ENOMEM. */
int oci_spec_parse(const json_t *json, struct oci_spec **out, struct err *err) MUST_CHECK;
void oci_spec_free(struct oci_spec *spec); /* NULL is allowed */

/* oci_spec_validate - what fields mean together: namespaces that sysctls, a hostname, mappings need. */
int oci_spec_validate(const struct oci_spec *spec, struct err *err) MUST_CHECK;
/* oci_spec_namespace - whether the container has a namespace of its own or a joined one. @path: of the latter, or NULL. */
bool oci_spec_namespace(const struct oci_spec *spec, int flag, const char **path);

/* oci_process_parse - a "process" object; *out is the caller's (oci_process_free). */
int oci_process_parse(const json_t *json, struct oci_process **out, struct err *err) MUST_CHECK;
void oci_process_free(struct oci_process *process); /* NULL is allowed */

/* Parts of oci_spec_parse; *p is zeroed before and needs oci_process_fini after, whatever they return. */
int oci_process_read(const json_t *json, struct oci_process *p, struct err *err) MUST_CHECK;
void oci_process_fini(struct oci_process *p);
int oci_hooks_read(const json_t *hooks, struct oci_hook_list kinds[OCI_HOOK_KINDS], struct err *err) MUST_CHECK;
void oci_hooks_fini(struct oci_hook_list kinds[OCI_HOOK_KINDS]);
const char *oci_hook_name(enum oci_hook_kind kind);

/* Changes to a process, for exec. @args: copied, NULL-terminated. */
int oci_process_set_args(struct oci_process *p, char **args, struct err *err) MUST_CHECK;
/* oci_process_add_env - "NAME=VALUE", in the place of an earlier NAME. */
int oci_process_add_env(struct oci_process *p, const char *text, struct err *err) MUST_CHECK;
/* oci_process_pass_sockets - LISTEN_FDS=@n and LISTEN_PID=1: sd_listen_fds(3). */
int oci_process_pass_sockets(struct oci_process *p, unsigned int n, struct err *err) MUST_CHECK;

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
