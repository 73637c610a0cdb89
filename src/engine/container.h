/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container as the engine knows it: configuration (Docker's create body), state
 * and its shim. Errors carry an errno; http status is derived from it (see http.h).
 */
#ifndef WALNUT_ENGINE_CONTAINER_H
#define WALNUT_ENGINE_CONTAINER_H

#include "engine/engine.h"

enum engine_state {
	ENGINE_CREATED,
	ENGINE_RUNNING,
	ENGINE_PAUSED,
	ENGINE_RESTARTING,
	ENGINE_REMOVING,
	ENGINE_EXITED,
	ENGINE_DEAD,
	ENGINE_STATES
};

enum engine_wait { ENGINE_WAIT_NOT_RUNNING, ENGINE_WAIT_NEXT_EXIT, ENGINE_WAIT_REMOVED };

/* Called once; @err NULL on success. */
typedef void (*engine_done_fn)(struct engine_container *c, const struct err *err, void *arg);
typedef void (*engine_wait_fn)(int exit_code, const char *error, void *arg);

struct health;
struct engine_port;

struct engine_waiter {
	struct engine_waiter *next;
	enum engine_wait condition;
	engine_wait_fn fn;
	void *arg;
};

struct engine_container {
	struct engine_container *next;
	struct engine *engine;
	char id[65];
	char *name;          /* without "/" */
	json_t *config;      /* Docker's Config, image defaults merged in */
	json_t *host_config; /* Docker's HostConfig, all fields */
	char *image_id;      /* "sha256:..." */
	json_t *mounts;      /* mount points: mounts.h */
	enum engine_isolation isolation;
	enum engine_state state;
	int64_t created_ns, started_ns, finished_ns;
	pid_t pid;
	int exit_code;
	bool oom_killed;
	char error[ERR_MSG_SIZE];
	int restart_count;
	bool manual_stop; /* the user stopped it: restart policies keep off */
	bool starting, removing;
	bool drop_volumes; /* removed with its anonymous volumes */
	bool cgroup_unused;
	struct shim_client *shim;
	struct engine_waiter *waiters;
	struct loop_timer *restart_timer;
	uint64_t restart_delay_ms;
	char *data_dir, *run_dir, *log_path;
	int console_height, console_width;
	json_t *endpoints; /* network.h: network name -> Docker's EndpointSettings */
	struct engine_port *ports;
	size_t port_count;
	struct health *health; /* NULL: no health check, or never started */
};

const char *engine_state_name(enum engine_state s);

/* engine_container_find - by id, name (with or without "/") or unique id prefix. NULL with err ENOENT/EINVAL. */
struct engine_container *engine_container_find(struct engine *e, const char *ref, struct err *err) MUST_CHECK;
/* engine_container_create - from Docker's create body. @warnings: array to append to. */
int engine_container_create(struct engine *e, const char *name, const json_t *body, json_t *warnings,
			    struct engine_container **out, struct err *err) MUST_CHECK;
void engine_container_start(struct engine_container *c, engine_done_fn done, void *arg);
/* engine_container_stop - stop signal, then SIGKILL after @timeout seconds (-1: never; INT_MIN: the container's own). */
void engine_container_stop(struct engine_container *c, const char *signal, int timeout, engine_done_fn done, void *arg);
void engine_container_signal(struct engine_container *c, const char *signal, engine_done_fn done, void *arg);
void engine_container_pause(struct engine_container *c, bool pause, engine_done_fn done, void *arg);
void engine_container_remove(struct engine_container *c, bool force, engine_done_fn done, void *arg);
int engine_container_rename(struct engine_container *c, const char *name, struct err *err) MUST_CHECK;
void engine_container_update(struct engine_container *c, const json_t *body, engine_done_fn done, void *arg);
/* engine_container_wait - one call of @fn when the condition holds, perhaps before this returns (then NULL). */
struct engine_waiter *engine_container_wait(struct engine_container *c, enum engine_wait condition, engine_wait_fn fn,
					    void *arg);
void engine_container_unwait(struct engine_container *c, struct engine_waiter *w);
/* engine_container_shim - the shim's client, started when there is none. */
struct shim_client *engine_container_shim(struct engine_container *c, struct err *err) MUST_CHECK;
void engine_container_free(struct engine_container *c);
void engine_container_save(struct engine_container *c);
void engine_container_event(struct engine_container *c, const char *action, json_t *more);
int engine_container_adopt_all(struct engine *e, struct err *err) MUST_CHECK;

/* engine_container_size_rw - bytes of its writable layer; engine_container_size_root - with its image's. */
int64_t engine_container_size_rw(const struct engine_container *c);
/* engine_tree_size - bytes of the files below a folder. */
int64_t engine_tree_size(const char *path);
int64_t engine_container_size_root(const struct engine_container *c, int64_t size_rw);
json_t *engine_container_inspect(struct engine_container *c, bool size);
json_t *engine_container_summary(struct engine_container *c, bool size);
/* engine_container_list - Docker's /containers/json. */
json_t *engine_container_list(struct engine *e, bool all, int limit, bool size, const char *filters,
			      struct err *err) MUST_CHECK;
/**
 * engine_container_prune - remove the containers that do not run
 * @filters: Docker's: label, label!, until
 * @done: called once, with {"ContainersDeleted": [...], "SpaceReclaimed": n} (new reference)
 *
 * Return: 0, or -EINVAL for a filter (@done is not called then).
 */
int engine_container_prune(struct engine *e, const char *filters, void (*done)(json_t *result, void *arg), void *arg,
			   struct err *err) MUST_CHECK;
/* engine_signal_number - "TERM", "SIGTERM", "15", "RTMIN+3". Return: number or -EINVAL. */
int engine_signal_number(const char *name, struct err *err);

/* spec_build.c: the OCI runtime spec of a container's next run; writes hosts, hostname, resolv.conf. */
json_t *spec_build(struct engine_container *c, struct err *err) MUST_CHECK;
/* spec_build_process - an exec's OCI process. */
json_t *spec_build_process(struct engine_container *c, const json_t *exec_config, struct err *err) MUST_CHECK;
/* spec_seccomp_memfd - the default profile for the container, as a memfd; -ENOENT when it runs without. */
int spec_seccomp_memfd(struct engine_container *c, const json_t *spec, struct err *err) MUST_CHECK;
bool spec_uses_seccomp(const struct engine_container *c);

/* exec.c */
struct engine_exec {
	struct engine_exec *next;
	struct engine *engine;
	struct engine_container *container;
	char id[65];
	json_t *config; /* ExecConfig of the create request */
	bool started, running;
	bool raw; /* both outputs as one stream of bytes, without a terminal */
	int exit_code;
	pid_t pid;
	struct loop_timer *expiry;
	void (*on_end)(struct engine_exec *x, void *arg); /* of one that the engine itself started */
	void *on_end_arg;
};

int engine_exec_create(struct engine_container *c, const json_t *body, struct engine_exec **out,
		       struct err *err) MUST_CHECK;
struct engine_exec *engine_exec_find(struct engine *e, const char *id, struct err *err) MUST_CHECK;
typedef void (*engine_exec_fn)(struct engine_exec *x, const struct err *err, void *arg);
/**
 * engine_exec_start
 * @sock: the client's socket (borrowed, sent to the shim) or -1 when detached
 * @early: what the client sent before its answer; may be NULL
 * @console: {"height", "width"}; stolen, may be NULL
 */
void engine_exec_start(struct engine_exec *x, int sock, const struct buf *early, json_t *console, engine_exec_fn done,
		       void *arg);
json_t *engine_exec_inspect(const struct engine_exec *x);
void engine_exec_ended(struct engine *e, const char *exec_id, int exit_code);
/* engine_exec_forget - free one that has ended. */
void engine_exec_forget(struct engine_exec *x);
void engine_exec_drop_all(struct engine_container *c, bool forget);

/* shim_client.c: @fn is called once with the result, or with @err set (also when the shim ends). */
typedef void (*shim_answer_fn)(json_t *result, const struct err *err, void *arg);
int shim_client_spawn(struct engine_container *c, struct shim_client **out, struct err *err) MUST_CHECK;
int shim_client_connect(struct engine_container *c, struct shim_client **out, struct err *err) MUST_CHECK;
/* @params stolen; @fds borrowed. @fn may be NULL. */
void shim_client_call(struct shim_client *s, const char *method, json_t *params, const int *fds, size_t nfds,
		      shim_answer_fn fn, void *arg);
/* shim_client_put_early - add what a client sent before its answer to the params of attach or exec. */
void shim_client_put_early(json_t *params, const struct buf *early);
/* shim_client_free - let go; the shim goes on (unless it was told to shut down). */
void shim_client_free(struct shim_client *s);
/* Implemented by container.c: */
void engine_container_on_shim_event(struct engine_container *c, const char *event, const json_t *params);
void engine_container_on_shim_gone(struct engine_container *c);

/* tree.c: the files of a container, by walnut-tree. */
struct engine_tree;
/*
 * Called once. @head: {"stat"}, {"changes"} or {}; NULL with @err. @out: the archive, if there is one (borrowed: duplicate it);
 * @more: its bytes that came with the head.
 */
typedef void (*engine_tree_fn)(const json_t *head, const struct err *err, int out, const struct buf *more, void *arg);
/**
 * engine_tree_start
 * @verb: "stat", "get", "put", "export", "changes", "layer"
 * @in: for "put": where the archive is read; for "layer": where it is written (borrowed); else -1
 *
 * Return: NULL with @err (@fn is not called then).
 */
struct engine_tree *engine_tree_start(struct engine_container *c, const char *verb, const char *path,
				      const json_t *options, int in, engine_tree_fn fn, void *arg,
				      struct err *err) MUST_CHECK;
/* engine_tree_cancel - before @fn was called; it is not called any more. */
void engine_tree_cancel(struct engine_tree *t);

/* logs.c */
struct logs_options {
	bool out, err, follow, timestamps, mux;
	int64_t since_ns, until_ns;
	long tail; /* -1: all */
};
struct logs_reader;
/* logs_open - a reader over the json-file log and its rotated files (absent: empty). */
struct logs_reader *logs_open(const char *path, const struct logs_options *o, struct err *err) MUST_CHECK;
/* logs_next - append what is there now to @out, at most about 256 KiB. Return: bytes appended, 0 at the end, -errno. */
ssize_t logs_next(struct logs_reader *r, struct buf *out, bool *past_until) MUST_CHECK;
/* logs_position - where the next line begins: the file's inode (0: there is none yet) and the offset. */
void logs_position(const struct logs_reader *r, uint64_t *inode, int64_t *offset);
void logs_close(struct logs_reader *r);

#endif
