/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this library share. */
#ifndef WALNUT_CONTAINER_INTERNAL_H
#define WALNUT_CONTAINER_INTERNAL_H

#include <signal.h>

#include "container/cgroup.h"

struct container {
	struct cgroup *cgroup; /* NULL: found again without one */
	struct container_config config;
	void *seccomp_bpf; /* ours: an exec needs it as long as the container lives */
	pid_t pid;
	int pidfd, sync; /* owned; sync is closed once started */
	bool running;
	bool opened; /* by container_open: the process is not our child */
};

/* What a process that is set up tells its creator, over a SEQPACKET pair. */
enum report_kind { REPORT_READY = 1, REPORT_PID, REPORT_HOOKS, REPORT_FAILED };
struct report {
	enum report_kind kind;
	enum container_exec_failure why;
	pid_t pid;
	struct err err;
};

/* report_send - with @fd (-1: none). report_fail - tell and end the process. */
int report_send(int sync, enum report_kind kind, pid_t pid, int fd) MUST_CHECK;
_Noreturn void report_fail(int sync, enum container_exec_failure why, const struct err *err);
/* report_receive - *fd is set to the descriptor that came along. Return: 1, 0 at end of file, -errno. */
int report_receive(int sync, struct report *r, int *fd, struct err *err) MUST_CHECK;
/* report_go, report_wait_go - the creator's only word. */
int report_go(int sync, struct err *err) MUST_CHECK;
int report_wait_go(int sync) MUST_CHECK;

/*
 * What has to be opened on the host's side before the first process exists: namespaces to join, and mounts that the
 * container's user namespace may not reach or may not map.
 */
struct prepared {
	int *namespaces; /* of spec->namespace_paths; owned */
	int *mounts;     /* detached mounts of spec->mounts, -1: made inside; owned */
	int rootfs;      /* detached mount, -1: opened inside */
	size_t namespaces_count, mounts_count;
	bool user;   /* in another user namespace than the creator */
	bool helper; /* a helper joins namespaces and clones */
};
int prepared_open(struct prepared *p, const struct container_config *config, struct err *err) MUST_CHECK;
void prepared_close(struct prepared *p);

/* namespaces_join - those of @p that this process can join itself; all but user and pid. */
int namespaces_join(const struct oci_spec *s, const struct prepared *p, bool before_user, struct err *err) MUST_CHECK;
/* namespaces_map - write the id maps of @pid's new user namespace. */
int namespaces_map(pid_t pid, const struct oci_id_map *uid, size_t uids, const struct oci_id_map *gid, size_t gids,
		   struct err *err) MUST_CHECK;
/* namespaces_time - a new time namespace for children, with its offsets. */
int namespaces_time(const struct oci_spec *s, struct err *err) MUST_CHECK;
/* idmap_open - a user namespace with these maps, for MOUNT_ATTR_IDMAP. Return: descriptor. */
int idmap_open(const struct oci_id_map *uid, size_t uids, const struct oci_id_map *gid, size_t gids,
	       struct err *err) MUST_CHECK;
/* clone_process - clone3 with @cgroup (-1: none) of version 2. CLONE_PARENT: a sibling. */
pid_t clone_process(uint64_t flags, int *pidfd, int cgroup);

/* mount_open_source - the detached mount of a bind mount, with its options; for prepared_open. */
int mount_open_source(const struct oci_mount *m, const struct oci_spec *s, struct err *err) MUST_CHECK;
/* mount_wants_idmap - whether @m is to be mapped. */
bool mount_wants_idmap(const struct oci_mount *m);
bool mount_is_bind(const struct oci_mount *m);

/* init_main - the first process, until its program is executed. Never returns. */
_Noreturn void init_main(struct container *c, struct prepared *p, int sync);
/*
 * settle - descriptors 0 to 2 are @stdio, then come @preserve of the caller's; of the others only those of @keep (-1:
 * none), which are close-on-exec and may be moved, stay open; signals are as after exec
 */
int settle(const int stdio[3], unsigned int preserve, int *const keep[], size_t n) MUST_CHECK;
/* process_keeps_groups - whether an annotation asks for the creator's groups, as podman's keep-groups does. */
bool process_keeps_groups(const struct oci_spec *s);
void process_reap(pid_t pid, int pidfd);
/* process_set_oom_score - of @pid as @p asks. */
int process_set_oom_score(pid_t pid, const struct oci_process *p, struct err *err) MUST_CHECK;

/* rootfs_enter - all mounts of @config's spec, devices, masked paths, as far as before pivot_root. *root: the new root. */
int rootfs_build(const struct container_config *config, const struct prepared *p, const struct cgroup *g,
		 int *console_master, int *root, struct err *err) MUST_CHECK;
/* rootfs_pivot - make @root "/"; cwd is "/" after it. */
int rootfs_pivot(const struct container_config *config, int root, struct err *err) MUST_CHECK;
/* rootfs_open_console - a new terminal from the devpts below @root. *slave_number for its path. */
int rootfs_open_console(int root, int *slave_number, struct err *err) MUST_CHECK;
/* rootfs_make_folder - mkdir -p inside @root. */
int rootfs_make_folder(int root, const char *path, mode_t mode, struct err *err) MUST_CHECK;
/* rootfs_open_parent - the folder of @path's last name, made if absent; @name is set to that name. */
int rootfs_open_parent(int root, const char *path, const char **name, struct err *err) MUST_CHECK;
/* rootfs_open_target - @path below @root as a mount point, made if absent. */
int rootfs_open_target(int root, const char *path, bool folder, struct err *err) MUST_CHECK;
/* rootfs_attach - put the detached @mount at @target. */
int rootfs_attach(int mount, int target, const char *what, struct err *err) MUST_CHECK;

/* mount_all - the spec's mounts, in order. */
int mount_all(int root, const struct container_config *config, const struct prepared *p, const struct cgroup *g,
	      struct err *err) MUST_CHECK;
/* mount_bind_file - @source at @path, read-only if @readonly. */
int mount_bind_file(int root, const char *source, const char *path, bool readonly, struct err *err) MUST_CHECK;
/* mount_tmpfs - an empty read-only detached tmpfs. */
int mount_empty(struct err *err) MUST_CHECK;
/* copy_tree - what is in folder @from into folder @to: modes, owners, links, attributes. */
int copy_tree(int from, int to, struct err *err) MUST_CHECK;
/* devices_make - nodes and links of /dev. */
int devices_make(int root, const struct oci_spec *s, struct err *err) MUST_CHECK;

/* labels_check - that the machine has what the labels of @p are for. */
int labels_check(const struct oci_spec *s, const struct oci_process *p, struct err *err) MUST_CHECK;
/* labels_open - what labels_apply writes to; -1 in *fd: nothing. While /proc is still the host's. */
int labels_open(const struct oci_process *p, int *fd, struct err *err) MUST_CHECK;
int labels_apply(const struct oci_process *p, int fd, struct err *err) MUST_CHECK;
bool labels_selinux(void);

/* loopback_up - bring "lo" of this network namespace up. */
int loopback_up(struct err *err) MUST_CHECK;

/* process_console - make the terminal @master's other end stdin, stdout and stderr, and controlling. */
int process_console(int master, const struct oci_process *p, struct err *err) MUST_CHECK;

/* How a program is executed. */
struct process_exec {
	const struct oci_process *process;
	const struct oci_capabilities *capabilities; /* used when the process has none of its own */
	const void *bpf;
	size_t bpf_size;
	unsigned int seccomp_flags;
	int label;          /* labels_open's */
	bool check_program; /* look for it before waiting, too */
	bool keep_groups;   /* the creator's additional groups stay: annotation run.oci.keep_original_groups */
	int (*wait_start)(void *arg, struct err *err); /* may be NULL */
	void *arg;
	int listener;                 /* the socket that a filter's listener is sent to; with @listener_message */
	const char *listener_message; /* NULL: the filter has no listener */
};
/* process_exec - become the program; only returns on failure, with *why. */
int process_exec(const struct process_exec *e, enum container_exec_failure *why, struct err *err) MUST_CHECK;

/* container_state_text - the state as hooks and seccomp listeners get it (runtime-spec, runtime.md); the caller's. */
char *container_state_text(const struct container_config *config, const char *status, pid_t pid);

#endif
