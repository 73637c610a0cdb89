/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process container: namespaces, cgroup, mounts, capabilities, seccomp, devices
 * and console, set up from an OCI runtime-spec document. Used by walnut-shim on the
 * host and by walnut-agent inside a micro-VM; knows neither.
 *
 * The caller provides the root filesystem mounted in its own (private) mount
 * namespace. Life cycle: created (init waits before exec) -> running -> stopped.
 */
#ifndef WALNUT_CONTAINER_CONTAINER_H
#define WALNUT_CONTAINER_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "oci/spec.h"

struct container;

struct container_config {
	const char *id;
	const struct oci_spec *spec; /* borrowed until container_free */
	const char *rootfs;          /* mounted, in the caller's mount namespace */
	const char *cgroup_path;     /* e.g. "/walnut/ID", below each hierarchy's root (or v2's) */
	int stdio[3];                /* become 0, 1, 2 unless the spec asks for a terminal; borrowed */
	const void *seccomp_bpf;     /* array of struct sock_filter; NULL: no filter */
	size_t seccomp_bpf_size;     /* bytes */
	const char *init_path;       /* docker-init bound at /sbin/docker-init; NULL: none */

	/* What follows is walnut-runtime's; zero is the usual. */
	const char *bundle;        /* for the state that hooks read */
	unsigned int preserve_fds; /* descriptors 3 to 2+N stay open in the program */
	int start_socket; /* container_listen's: the program waits for container_start_by_socket; 0: for the creator */
	bool check_program; /* create fails when the program does not exist */
	bool no_pivot;      /* move the mount and chroot, for a root that is the initial ramfs */
	bool no_new_keyring;
	bool cgroup_systemd, cgroup_disabled;
	bool rootless;              /* what only root may do is done without where the result is as safe */
	const json_t *cgroup_saved; /* container_open: what container_cgroup gave; borrowed for the call */
	const char *exec_cgroup;    /* container_exec: a cgroup below the container's */
	unsigned int seccomp_flags; /* SECCOMP_FILTER_FLAG_* */
	int seccomp_socket;         /* seccomp_notify_connect's: where the filter's listener goes; 0: it has none */
	int host_proc;              /* the host's /proc, for that; 0: not open */
};

/* Why a program could not be executed: maps to Docker's exit codes 127 and 126. */
enum container_exec_failure {
	CONTAINER_EXEC_OK,
	CONTAINER_EXEC_NOT_FOUND,
	CONTAINER_EXEC_NOT_EXECUTABLE,
	CONTAINER_EXEC_OTHER
};

/**
 * container_create - build the container; its init waits just before exec
 * @console: set to the terminal's master side (owned by the caller) when spec->process.terminal; else -1
 *
 * On failure nothing is left (no cgroup, no process). Return: 0 with *out, or -errno.
 */
int container_create(struct container **out, const struct container_config *config, int *console,
		     struct err *err) MUST_CHECK;

/* container_start - let init exec. @why (may be NULL) tells what an exec failure was; init is then dead and reaped. */
int container_start(struct container *c, enum container_exec_failure *why, struct err *err) MUST_CHECK;

/*
 * container_listen - the socket at which a created container waits to be started, @name in the folder @dir.
 * Return: the descriptor for container_config.start_socket.
 */
int container_listen(int dir, const char *name, struct err *err) MUST_CHECK;
/* container_start_by_socket - as container_start, from any process that reaches the socket. */
int container_start_by_socket(int dir, const char *name, enum container_exec_failure *why, struct err *err) MUST_CHECK;
/* container_detach - forget a container that goes on without us. NULL is allowed. */
void container_detach(struct container *c);
/* container_open - a container that another process made: its first process is @pid (dead, perhaps). */
int container_open(struct container **out, const struct container_config *config, pid_t pid,
		   struct err *err) MUST_CHECK;
/* container_cgroup - what container_open needs to find the cgroup; new reference or NULL. */
json_t *container_cgroup(const struct container *c);
/* container_is_paused - in the state that @config's cgroup has. */
int container_is_paused(const struct container_config *config, bool *paused, struct err *err) MUST_CHECK;
/* container_destroy - kill what runs, wait for its end, remove the cgroup; frees @c in any case. */
int container_destroy(struct container *c, struct err *err) MUST_CHECK;
/* container_signal_all - @sig to every process in the cgroup. */
int container_signal_all(struct container *c, int sig, struct err *err) MUST_CHECK;
/*
 * container_run_hooks - the hooks of a kind, one after the other, with the state on stdin
 * @status, @pid: for the state; @pid 0: left out
 */
int container_run_hooks(const struct container_config *config, enum oci_hook_kind kind, const char *status, pid_t pid,
			struct err *err) MUST_CHECK;
/* container_mount_options - the names that are known, NULL-terminated; constants. */
const char *const *container_mount_options(void);

/* A process added to a running container. */
struct container_process {
	pid_t pid;   /* in the caller's pid namespace; a child of the caller, to be reaped with waitpid */
	int pidfd;   /* owned */
	int console; /* terminal's master or -1; owned */
};

/* container_exec - run @process (user, cwd, env, args, capabilities, terminal as in the spec) inside. */
int container_exec(struct container *c, const struct oci_process *process, const int stdio[3],
		   struct container_process *out, enum container_exec_failure *why, struct err *err) MUST_CHECK;

pid_t container_pid(const struct container *c); /* init's, a child of the caller */
int container_pidfd(const struct container *c); /* borrowed */

int container_signal(struct container *c, int sig, struct err *err) MUST_CHECK; /* to init */
int container_kill_all(struct container *c, struct err *err) MUST_CHECK; /* SIGKILL to every process; thaws first */
int container_pause(struct container *c, bool paused, struct err *err) MUST_CHECK; /* freezer */
/* container_pids - every process inside, host pids; *pids owned by the caller (free). */
int container_pids(struct container *c, pid_t **pids, size_t *n, struct err *err) MUST_CHECK;

struct container_stats {
	uint64_t memory_usage, memory_limit, memory_max_usage, memory_cache; /* bytes; limit 0: none */
	uint64_t cpu_total_ns, cpu_user_ns, cpu_system_ns;
	uint64_t pids_current, pids_limit;
	uint64_t oom_kills;
};
int container_stats(struct container *c, struct container_stats *out, struct err *err) MUST_CHECK;
/* container_stats_json - the "data" of runc's `events --stats`; new reference, NULL on error. */
json_t *container_stats_json(struct container *c, struct err *err);
/* container_oom_open, container_oom_read - as cgroup_oom_open and cgroup_oom_read. */
int container_oom_open(struct container *c, struct err *err) MUST_CHECK;
uint64_t container_oom_read(struct container *c, int fd);
/* container_update - apply new limits (memory, cpu, pids) to the running container. */
int container_update(struct container *c, const struct oci_resources *r, struct err *err) MUST_CHECK;

/* container_add_machine_devices - to @spec, before container_create: every device node below /dev of this machine. */
int container_add_machine_devices(struct oci_spec *spec, struct err *err) MUST_CHECK;

/* container_free - kill what still runs, remove the cgroup, free. NULL is allowed. */
void container_free(struct container *c);

#endif
