/* SPDX-License-Identifier: Apache-2.0 */
/* The output of containers: attach, with the log before it if it is wanted, and logs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "api/http.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container.h"

#define MUX_TYPE "application/vnd.docker.multiplexed-stream"
#define RAW_TYPE "application/vnd.docker.raw-stream"
#define HEAD_MS  20

/* ---- attach ---- */

/*
 * A client that is being attached. With logs=1 it first gets the log, at its own pace; the shim then continues from where
 * the log was read to, so that nothing is lost or doubled between the two.
 */
struct attach {
	struct engine *engine;
	char id[65];
	int sock;
	struct loop_source *source;
	struct loop_timer *delay;
	struct logs_reader *reader;
	struct buf out, early;
	bool in, out_too, err_too, mux, stream, logs;
	char *keys;
};

static void attach_free(struct attach *a)
{
	loop_remove(a->source);
	if (a->delay)
		loop_cancel(a->delay);
	logs_close(a->reader);
	buf_free(&a->out);
	buf_free(&a->early);
	close_fd(&a->sock);
	free(a->keys);
	free(a);
}

static void attach_failed(json_t *result, const struct err *err, void *arg)
{
	if (err)
		log_warn("attach: %s", err->msg);
}

/* Hands the client over to the shim. */
static void attach_live(struct attach *a)
{
	struct err err = ERR_INIT;
	struct engine_container *k = engine_container_find(a->engine, a->id, NULL);
	struct shim_client *shim = k && a->stream ? engine_container_shim(k, &err) : NULL;
	json_t *params;
	uint64_t inode = 0;
	int64_t offset = 0;

	if (!shim) {
		attach_free(a);
		return;
	}
	params = json_pack("{s:b, s:b, s:b, s:b, s:s}", "stdin", a->in, "stdout", a->out_too, "stderr", a->err_too,
			   "mux", a->mux, "detach_keys", a->keys);
	if (a->reader) {
		logs_position(a->reader, &inode, &offset);
		(void)json_object_set_new(params, "log_inode", json_integer((json_int_t)inode));
		(void)json_object_set_new(params, "log_offset", json_integer(offset));
	}
	shim_client_put_early(params, &a->early);
	shim_client_call(shim, "attach", params, &a->sock, 1, attach_failed, NULL);
	engine_container_event(k, "attach", NULL);
	attach_free(a);
}

static void attach_replay(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct attach *a = arg;
	bool past = false;
	ssize_t n = 1;

	for (int round = 0; n > 0; round++) {
		if (!a->out.len)
			n = logs_next(a->reader, &a->out, &past);
		if (n > 0 && round == 16)
			return; /* others have a turn */
		while (n > 0 && a->out.len) {
			ssize_t put = send(fd, buf_bytes(&a->out), a->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

			if (put < 0 && errno == EAGAIN)
				return;
			if (put < 0 && errno != EINTR) {
				attach_free(a);
				return;
			}
			if (put > 0)
				buf_consume(&a->out, (size_t)put);
		}
	}
	loop_remove(take_ptr(a->source));
	attach_live(a);
}

static void attach_go(struct loop *l, void *arg)
{
	struct attach *a = arg;
	struct err err = ERR_INIT;

	a->delay = NULL;
	a->source = loop_add_fd(l, a->sock, EPOLLOUT, attach_replay, a, &err);
	if (!a->source)
		attach_free(a);
}

static int attach_begin(struct attach *a, const struct engine_container *k, struct err *err)
{
	struct logs_options o = { .out = a->out_too, .err = a->err_too, .tail = -1, .mux = a->mux };

	if (!a->logs) {
		attach_live(a);
		return 0;
	}
	a->reader = logs_open(k->log_path, &o, err);
	if (!a->reader)
		return -err->code;
	/*
	 * Clients that read the answer's head through a buffer and then go on with the bare socket (python3-docker) lose what
	 * came together with the head: it is given a moment.
	 */
	a->delay = loop_add_timer(a->engine->loop, HEAD_MS, attach_go, a);
	return a->delay ? 0 : err_sys(err, ENOMEM, "attach");
}

static void attach(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container *k = route_container(c, r, arg);
	struct attach *a = k ? calloc(1, sizeof(*a)) : NULL;

	if (!k)
		return;
	bug_on(!a);
	a->sock = -1;
	a->engine = arg;
	a->mux = !json_bool(k->config, "Tty", false);
	a->in = http_query_bool(r, "stdin", false);
	a->out_too = http_query_bool(r, "stdout", false);
	a->err_too = http_query_bool(r, "stderr", false);
	a->logs = http_query_bool(r, "logs", false);
	a->stream = http_query_bool(r, "stream", false);
	a->keys = strdup(http_query(r, "detachKeys") ?: "");
	(void)strcpy(a->id, k->id);
	if (!a->in && !a->out_too && !a->err_too && a->stream)
		(void)err_set(&err, EINVAL, "Bad parameters: you must choose at least one stream");
	else if (k->state == ENGINE_PAUSED)
		(void)err_set(&err, EBUSY, "container %s is paused, unpause the container before attach", k->id);
	else if (k->state == ENGINE_RESTARTING)
		(void)err_set(&err, EBUSY, "container %s is restarting, wait until the container is running", k->id);
	if (err.code || detach_keys_check(a->keys, &err) || (a->stream && !engine_container_shim(k, &err))) {
		attach_free(a);
		http_reply_error(c, &err);
		return;
	}
	a->sock = http_hijack(c, a->mux ? MUX_TYPE : RAW_TYPE, &a->early);
	if (a->sock < 0 || attach_begin(a, k, &err)) {
		if (err.code)
			log_warn("attach: %s", err.msg);
		attach_free(a);
	}
}

/* ---- logs ---- */

struct logs_state {
	struct http_conn *conn;
	struct engine *engine;
	char id[65];
	struct logs_reader *reader;
	struct loop_timer *timer;
	bool follow, draining;
};

static void logs_end(struct logs_state *s, bool gone)
{
	if (s->timer)
		loop_cancel(s->timer);
	logs_close(s->reader);
	if (!gone) {
		http_on_close(s->conn, NULL, NULL);
		http_stream_end(s->conn);
	}
	free(s);
}

static void logs_closed(struct http_conn *c, void *arg)
{
	logs_end(arg, true);
}

static void logs_pump(struct logs_state *s);

static void logs_tick(struct loop *l, void *arg)
{
	struct logs_state *s = arg;

	s->timer = NULL;
	logs_pump(s);
}

static void logs_drained(struct http_conn *c, void *arg)
{
	logs_pump(arg);
}

static void logs_pump(struct logs_state *s)
{
	struct engine_container *k = engine_container_find(s->engine, s->id, NULL);
	bool live = k && (k->state == ENGINE_RUNNING || k->state == ENGINE_PAUSED || k->state == ENGINE_RESTARTING);
	struct buf b = BUF_INIT;
	bool past = false;
	ssize_t n = logs_next(s->reader, &b, &past);
	size_t queued = n > 0 ? http_stream_write(s->conn, buf_bytes(&b), b.len) : 0;

	buf_free(&b);
	if (queued > 0)
		http_on_drain(s->conn, logs_drained, s);
	else if (n > 0)
		s->timer = loop_add_timer(s->engine->loop, 0, logs_tick, s);
	else if (n < 0 || past || !s->follow || !live)
		logs_end(s, false);
	else
		s->timer = loop_add_timer(s->engine->loop, 100, logs_tick, s);
}

/* As Docker: a tail that is no number, or negative, is all. */
static long tail_of(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);

	return *end || n < 0 ? -1 : n;
}

static void logs(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container *k = route_container(c, r, arg);
	const char *tail = http_query(r, "tail"), *since = http_query(r, "since"), *until = http_query(r, "until");
	struct logs_options o = { .tail = tail && *tail && strcmp(tail, "all") ? tail_of(tail) : -1 };

	if (!k)
		return;
	bool tty = json_bool(k->config, "Tty", false);

	o.out = http_query_bool(r, "stdout", false);
	o.err = http_query_bool(r, "stderr", false);
	o.timestamps = http_query_bool(r, "timestamps", false);
	o.mux = !tty;
	if (!o.out && !o.err)
		(void)err_set(&err, EINVAL, "Bad parameters: you must choose at least one stream");
	else if (!strcmp(json_str(json_object_get(k->host_config, "LogConfig"), "Type", ""), "none"))
		(void)err_set(&err, EIO, "configured logging driver does not support reading");
	else if ((since && *since && engine_parse_time(since, &o.since_ns)) ||
		 (until && *until && engine_parse_time(until, &o.until_ns)))
		(void)err_set(&err, EINVAL,
			      "invalid value for \"since\" or \"until\": a time is RFC 3339 or seconds since 1970");
	struct logs_state *s = err.code ? NULL : calloc(1, sizeof(*s));

	if (s)
		s->reader = logs_open(k->log_path, &o, &err);
	if (!s || !s->reader) {
		free(s);
		http_reply_error(c, &err);
		return;
	}
	s->conn = c;
	s->engine = arg;
	s->follow = http_query_bool(r, "follow", false);
	(void)strcpy(s->id, k->id);
	http_stream_begin(c, 200, tty ? RAW_TYPE : MUX_TYPE);
	http_on_close(c, logs_closed, s);
	logs_pump(s);
}

const struct http_route routes_stream[] = {
	{ "POST", "/containers/{id}/attach", attach, false },
	{ "GET", "/containers/{id}/logs", logs, false },
	{ 0 },
};
