/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walnut-shim: the process beside each running container. It owns the container's
 * stdio, its log and its exit status, and outlives the engine.
 *
 * One event loop, three parts: control.c speaks with the engine, stdio.c moves bytes
 * between the container, its log and the attached clients, and a backend (process.c,
 * hyperv.c) runs the container. main.c ties them together and follows the life cycle
 * new -> starting -> running -> exited.
 */
#ifndef WALNUT_SHIM_SHIM_H
#define WALNUT_SHIM_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "base/loop.h"

struct shim_backend;
struct logfile;
struct conn;
struct client;
struct session;

enum shim_state { SHIM_NEW, SHIM_STARTING, SHIM_RUNNING, SHIM_EXITED };

/* How the container (or the start) ended. */
struct shim_exit {
	int code;
	bool oom_killed;
	int64_t finished_at_ns;
	char error[ERR_MSG_SIZE];
};

struct shim {
	struct loop *loop;
	const char *id, *run_dir, *data_dir;
	enum shim_state state;
	pid_t pid;
	struct shim_exit exit;

	const struct shim_backend *backend; /* NULL before start */
	void *backend_data;                 /* the backend's own */

	struct session *main; /* the container's own stdio; there from the beginning */
	struct session *execs;
	bool stdin_open, stdin_once;
	int netns; /* during start: the namespace that the engine made, or -1 (borrowed) */

	int listener;
	struct loop_source *listener_source;
	struct conn *conns;
	uint64_t next_conn;
	bool ending; /* no more requests; ends when the clients have their bytes */
	struct loop_timer *end_timer;
};

/* A request that is still to be answered, exactly once, by control_reply or control_fail (which free it). */
struct shim_reply {
	struct shim *shim;
	uint64_t conn;
	int64_t id;
};

/* main.c */
int64_t shim_now_ns(void);
/* shim_started - the backend's start has succeeded. Answers @r. */
void shim_started(struct shim *sh, pid_t pid, struct shim_reply *r);
/* shim_start_failed - it has not; the clients that wait are closed. Answers @r. */
void shim_start_failed(struct shim *sh, const struct err *err, struct shim_reply *r);
/* shim_session_finished - from stdio.c: the process has ended and all its output was passed on. */
void shim_session_finished(struct session *s);
/* shim_finished - from a backend whose end() returned true: it has ended. */
void shim_finished(struct shim *sh);
/* shim_maybe_end - stop the loop if nothing keeps the shim. */
void shim_maybe_end(struct shim *sh);
/* shim_end - no more requests: end as soon as the clients have their bytes. */
void shim_end(struct shim *sh);

/* control.c */
int control_listen(struct shim *sh, struct err *err) MUST_CHECK;
int control_add(struct shim *sh, int fd, struct err *err) MUST_CHECK; /* takes @fd, also on failure */
void control_close_all(struct shim *sh);
bool control_connected(const struct shim *sh);
void control_event(struct shim *sh, const char *event, json_t *params); /* to all; steals @params */
void control_reply(struct shim_reply *r, json_t *result);               /* steals @result; NULL: {} */
void control_fail(struct shim_reply *r, const struct err *err);
json_t *shim_exit_json(const struct shim_exit *e);

#endif
