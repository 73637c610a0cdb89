/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walnut-runtime, the OCI runtime command. Its command line is that of runc and crun, because its callers
 * (containerd, dockerd, podman's conmon, CRI-O) know only that. No process of it stays: between commands a
 * container is its first process, its cgroup and its state folder.
 */
#ifndef WALNUT_RUNTIME_RUNTIME_H
#define WALNUT_RUNTIME_RUNTIME_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "container/container.h"

enum runtime_cgroup_manager { RUNTIME_CGROUPFS, RUNTIME_SYSTEMD, RUNTIME_CGROUP_DISABLED };

/* The options that stand before the command. */
struct runtime_options {
	const char *root;
	const char *log; /* NULL: stderr */
	bool log_json, debug;
	enum runtime_cgroup_manager manager;
};

/* A command: argv[0] is its name. Return: the exit status, or -errno with @err. */
struct runtime_command {
	const char *name;
	const char *arguments;
	const char *summary;
	int (*run)(const struct runtime_options *o, int argc, char **argv, struct err *err);
	bool enters; /* processes of it run inside a container: its own file must be out of reach */
};

int command_create(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_run(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_start(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_exec(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_state(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_list(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_kill(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_delete(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_ps(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_pause(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_resume(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_update(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_events(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_features(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_spec(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;
int command_checkpoint(const struct runtime_options *o, int argc, char **argv, struct err *err) MUST_CHECK;

/* command_usage - "walnut-runtime NAME ...: arguments"; for a wrong command line. Return: -EINVAL. */
int command_usage(const char *name, struct err *err);
/* command_one_id - the only argument left after the options. Return: 0 or -EINVAL. */
int command_one_id(int argc, char **argv, const char **id, struct err *err) MUST_CHECK;

/* runtime_log - one line of @level ("error", "warning", "debug") in the log, in the format that was asked for. */
void runtime_log(const struct runtime_options *o, const char *level, const char *text);

void runtime_warn(const struct runtime_options *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* self_protect - become a copy of this program that no container can write to (CVE-2019-5736). */
int self_protect(char **argv, struct err *err) MUST_CHECK;

/* What is known of a container: its folder below the root. */
struct state {
	char id[256];
	int dir;   /* the folder; locked as long as it is open */
	int root;  /* the folder of all */
	pid_t pid; /* of the first process; 0: not yet */
	uint64_t
		start_time; /* of @pid, in clock ticks since boot: tells it from a later process with the same number */
	char *bundle, *rootfs, *cgroup_path; /* owned */
	enum runtime_cgroup_manager manager;
	bool has_poststart, has_poststop; /* whether the configuration has such hooks */
	json_t *cgroup;                   /* container_cgroup's; owned */
	json_t *json;                     /* owned; the document itself */
};

enum state_status { STATE_CREATING, STATE_CREATED, STATE_RUNNING, STATE_PAUSED, STATE_STOPPED };

#define START_SOCKET "start.sock"

/* state_new - make and lock the folder of a new container. -EEXIST when there is one. */
int state_new(struct state *s, const struct runtime_options *o, const char *id, struct err *err) MUST_CHECK;
/* state_save - write the document. */
int state_save(struct state *s, const struct oci_spec *spec, struct err *err) MUST_CHECK;
/* state_open - find and lock a container's folder. -ENOENT when there is none. */
int state_open(struct state *s, const struct runtime_options *o, const char *id, struct err *err) MUST_CHECK;
/* state_remove - remove the folder. */
int state_remove(struct state *s, struct err *err) MUST_CHECK;
void state_close(struct state *s);
#define CLEAN_STATE __attribute__((cleanup(state_close)))

enum state_status state_status(const struct state *s);
const char *state_status_name(enum state_status status);
/* state_document - what "state" prints; a new reference or NULL. */
json_t *state_document(const struct state *s);
/* state_spec - the configuration the container was created with; the caller's (oci_spec_free). */
int state_spec(const struct state *s, struct oci_spec **out, struct err *err) MUST_CHECK;
/* state_config - how the container library is to find this container again. @spec: may be NULL when nothing is executed. */
void state_config(const struct state *s, const struct oci_spec *spec, struct container_config *config);
/* process_start_time - field 22 of /proc/PID/stat. Return: false when there is no such process or it is a zombie. */
bool process_start_time(pid_t pid, uint64_t *ticks);

/* config_read - read and parse the configuration in @bundle; @text (may be NULL) is its text, the caller's. */
int config_read(const char *file, struct oci_spec **out, char **text, size_t *len, struct err *err) MUST_CHECK;

/* seccomp_prepare - the filter of a configuration (NULL: none) for the container library; *bpf is the caller's. */
int seccomp_prepare(const char *root, const struct oci_seccomp *s, struct container_config *config, void **bpf,
		    struct err *err) MUST_CHECK;

/* console_send - hand the terminal's master side to who listens at @path. */
int console_send(const char *path, int master, struct err *err) MUST_CHECK;
/*
 * foreground_wait - pass signals on to @pidfd, copy between our terminal and @console (-1: none) until the
 * process has ended. Return: its exit status, 128+N for signal N, or -errno.
 */
int foreground_wait(pid_t pid, int pidfd, int console, struct err *err) MUST_CHECK;
/* foreground_block - block the signals that foreground_wait passes on, from before the process exists. */
void foreground_block(void);

int write_pid_file(const char *path, pid_t pid, struct err *err) MUST_CHECK;
/*
 * reserve_descriptors - of descriptors 3 to 2+n those that are open are the caller's; no file of ours may take one of
 * the others. *n becomes smaller when the last ones are not open.
 */
int reserve_descriptors(unsigned int *n, struct err *err) MUST_CHECK;
int parse_count(const char *text, const char *what, unsigned int max, unsigned int *out, struct err *err) MUST_CHECK;

#endif
