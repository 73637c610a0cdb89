/* SPDX-License-Identifier: Apache-2.0 */
/* Routes of containers. */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api/http.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container.h"

#define MUX_TYPE "application/vnd.docker.multiplexed-stream"
#define RAW_TYPE "application/vnd.docker.raw-stream"

static struct engine_container *find(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container *k = engine_container_find(arg, http_param(r, "id"), &err);

	if (!k)
		http_reply_error(c, &err);
	return k;
}

static void reply_done(struct engine_container *k, const struct err *err, void *arg)
{
	if (err && err->code == EALREADY)
		http_reply_empty(arg, 304);
	else if (err)
		http_reply_error(arg, err);
	else
		http_reply_empty(arg, 204);
}

static void list(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	json_t *j = engine_container_list(arg, http_query_bool(r, "all", false), atoi(http_query(r, "limit") ?: "0"),
					  http_query_bool(r, "size", false), http_query(r, "filters"), &err);

	if (j)
		http_reply_json(c, 200, j);
	else
		http_reply_error(c, &err);
}

static void create(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *body = json_parse(r->body, r->body_len, "request body", &err);
	CLEAN_JSON json_t *warnings = json_array();
	struct engine_container *k;

	if (body && !json_is_object(body))
		(void)err_set(&err, EINVAL, "config cannot be empty in order to create a container");
	if (!body || err.code || engine_container_create(arg, http_query(r, "name"), body, warnings, &k, &err))
		http_reply_error(c, &err);
	else
		http_reply_json(c, 201, json_pack("{s:s, s:O}", "Id", k->id, "Warnings", warnings));
}

static void inspect(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = find(c, r, arg);

	if (k)
		http_reply_json(c, 200, engine_container_inspect(k, http_query_bool(r, "size", false)));
}

static void start(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = find(c, r, arg);

	if (k)
		engine_container_start(k, reply_done, c);
}

static int timeout_of(const struct http_request *r)
{
	return http_query(r, "t") ? atoi(http_query(r, "t")) : INT_MIN;
}

static void stop(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = find(c, r, arg);

	if (k)
		engine_container_stop(k, http_query(r, "signal"), timeout_of(r), reply_done, c);
}

static void restart_stopped(struct engine_container *k, const struct err *err, void *arg)
{
	if (err && err->code != EALREADY)
		http_reply_error(arg, err);
	else
		engine_container_start(k, reply_done, arg);
}

static void restart(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = find(c, r, arg);

	if (k)
		engine_container_stop(k, http_query(r, "signal"), timeout_of(r), restart_stopped, c);
}

static void kill_one(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = find(c, r, arg);

	if (k)
		engine_container_signal(k, http_query(r, "signal"), reply_done, c);
}

static void pause_one(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = find(c, r, arg);

	if (k)
		engine_container_pause(k, true, reply_done, c);
}

static void unpause(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = find(c, r, arg);

	if (k)
		engine_container_pause(k, false, reply_done, c);
}

static void remove_one(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = find(c, r, arg);

	if (k)
		engine_container_remove(k, http_query_bool(r, "force", false), reply_done, c);
}

static void rename_one(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container *k = find(c, r, arg);

	if (k && engine_container_rename(k, http_query(r, "name") ?: "", &err))
		http_reply_error(c, &err);
	else if (k)
		http_reply_empty(c, 204);
}

static void update_done(struct engine_container *k, const struct err *err, void *arg)
{
	if (err)
		http_reply_error(arg, err);
	else
		http_reply_json(arg, 200, json_pack("{s:[]}", "Warnings"));
}

static void update(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container *k = find(c, r, arg);
	CLEAN_JSON json_t *body = k ? json_parse(r->body, r->body_len, "request body", &err) : NULL;

	if (k && body)
		engine_container_update(k, body, update_done, c);
	else if (k)
		http_reply_error(c, &err);
}

struct wait_state {
	struct http_conn *conn;
	struct engine *engine;
	char id[65];
	struct engine_waiter *waiter;
};

static void wait_fire(int code, const char *error, void *arg)
{
	struct wait_state *w = arg;
	CLEAN_JSON json_t *j = json_pack("{s:i}", "StatusCode", code);

	if (error && *error)
		(void)json_object_set_new(j, "Error", json_pack("{s:s}", "Message", error));
	CLEAN_FREE char *text = json_text(j);

	http_on_close(w->conn, NULL, NULL);
	(void)http_stream_write(w->conn, text, strlen(text));
	http_stream_end(w->conn);
	free(w);
}

static void wait_closed(struct http_conn *c, void *arg)
{
	struct wait_state *w = arg;
	struct engine_container *k = engine_container_find(w->engine, w->id, NULL);

	if (k)
		engine_container_unwait(k, w->waiter);
	free(w);
}

static void wait_one(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = find(c, r, arg);
	const char *text = http_query(r, "condition") ?: "";
	enum engine_wait condition = !strcmp(text, "next-exit") ? ENGINE_WAIT_NEXT_EXIT
				     : !strcmp(text, "removed") ? ENGINE_WAIT_REMOVED
								: ENGINE_WAIT_NOT_RUNNING;

	if (!k)
		return;
	if (condition == ENGINE_WAIT_NOT_RUNNING && *text && strcmp(text, "not-running")) {
		http_reply_error_status(c, 400, "invalid condition: \"%s\"", text);
		return;
	}
	struct wait_state *w = calloc(1, sizeof(*w));

	bug_on(!w);
	w->conn = c;
	w->engine = arg;
	(void)strcpy(w->id, k->id);
	http_stream_begin(c, 200, "application/json");
	struct engine_waiter *waiter = engine_container_wait(k, condition, wait_fire, w);

	if (waiter) {
		w->waiter = waiter;
		http_on_close(c, wait_closed, w);
	}
}

/* ---- attach ---- */

static void attach_replay(struct engine_container *k, int sock, bool out, bool err_too)
{
	struct logs_options o = { .out = out, .err = err_too, .tail = -1, .mux = !json_bool(k->config, "Tty", false) };
	struct logs_reader *reader = logs_open(k->log_path, &o, NULL);
	bool past = false;
	struct buf b = BUF_INIT;

	while (reader && logs_next(reader, &b, &past) > 0) {
		(void)!fd_write_full(sock, buf_bytes(&b), b.len);
		buf_consume(&b, b.len);
	}
	buf_free(&b);
	logs_close(reader);
}

static void attach_failed(json_t *result, const struct err *err, void *arg)
{
	if (err)
		log_warn("attach: %s", err->msg);
}

static void attach(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container *k = find(c, r, arg);
	struct buf early = BUF_INIT;
	CLEAN_FD int sock = -1;

	if (!k)
		return;
	bool tty = json_bool(k->config, "Tty", false), out = http_query_bool(r, "stdout", false);
	bool in = http_query_bool(r, "stdin", false), err_too = http_query_bool(r, "stderr", false);
	bool logs = http_query_bool(r, "logs", false), stream = http_query_bool(r, "stream", false);
	CLEAN_FREE char *keys = strdup(http_query(r, "detachKeys") ?: "");
	bool ended = k->state == ENGINE_EXITED && !k->starting;

	if (k->state == ENGINE_PAUSED)
		(void)err_set(&err, EBUSY, "container %s is paused, unpause the container before attach", k->id);
	if (err.code || (stream && !engine_container_shim(k, &err))) {
		http_reply_error(c, &err);
		return;
	}
	(void)ended;
	sock = http_hijack(c, tty ? RAW_TYPE : MUX_TYPE, &early);
	if (early.len)
		log_warn("attach %.12s: %zu bytes sent before the answer are lost", k->id, early.len);
	buf_free(&early);
	if (sock < 0)
		return;
	if (logs)
		attach_replay(k, sock, out, err_too);
	if (stream)
		shim_client_call(k->shim, "attach",
				 json_pack("{s:b, s:b, s:b, s:b, s:s}", "stdin", in, "stdout", out, "stderr", err_too,
					   "mux", !tty, "detach_keys", keys),
				 &sock, 1, attach_failed, NULL);
	engine_container_event(k, "attach", NULL);
}

static void resized(json_t *result, const struct err *err, void *arg)
{
	if (err)
		http_reply_error(arg, err);
	else
		http_reply_empty(arg, 200);
}

static void resize(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = find(c, r, arg);

	if (!k)
		return;
	k->console_height = atoi(http_query(r, "h") ?: "0");
	k->console_width = atoi(http_query(r, "w") ?: "0");
	if (!k->shim || k->state != ENGINE_RUNNING)
		http_reply_error_status(c, 409, "container %s is not running", k->id);
	else
		shim_client_call(k->shim, "resize",
				 json_pack("{s:i, s:i}", "height", k->console_height, "width", k->console_width), NULL,
				 0, resized, c);
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

static void logs(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container *k = find(c, r, arg);
	const char *tail = http_query(r, "tail"), *since = http_query(r, "since"), *until = http_query(r, "until");
	struct logs_options o = { .tail = tail && *tail && strcmp(tail, "all") ? atol(tail) : -1 };

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
		(void)err_set(&err, EINVAL, "invalid value for \"since\" or \"until\"");
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

/* ---- stats ---- */

struct stats_state {
	struct http_conn *conn; /* NULL: the client is gone while the shim was asked */
	struct engine *engine;
	char id[65];
	struct loop_timer *timer;
	json_t *before; /* cpu_stats of the last sample */
	bool stream, once, asked;
};

static void stats_free(struct stats_state *s)
{
	json_decref(s->before);
	free(s);
}

static void stats_closed(struct http_conn *c, void *arg)
{
	struct stats_state *s = arg;

	s->conn = NULL;
	if (s->timer)
		loop_cancel(s->timer);
	if (!s->asked)
		stats_free(s);
}

/* As Docker: a container without a limit has the machine's memory. */
static json_int_t memory_limit(int64_t limit)
{
	return limit > 0 ? limit : (json_int_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

static uint64_t system_cpu_ns(void)
{
	size_t n;
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, "/proc/stat", 1 << 20, &n, NULL);
	char *at = text ? text + 3 : NULL;
	uint64_t sum = 0;

	for (int i = 0; at && i < 8; i++)
		sum += strtoull(at, &at, 10);
	return sum * (1000000000 / (uint64_t)sysconf(_SC_CLK_TCK));
}

static json_t *stats_cpu(const json_t *r)
{
	return json_pack("{s:{s:I, s:I, s:I}, s:I, s:i, s:{s:i, s:i, s:i}}", "cpu_usage", "total_usage",
			 (json_int_t)json_int(r, "cpu_total_ns", 0), "usage_in_kernelmode",
			 (json_int_t)json_int(r, "cpu_system_ns", 0), "usage_in_usermode",
			 (json_int_t)json_int(r, "cpu_user_ns", 0), "system_cpu_usage", (json_int_t)system_cpu_ns(),
			 "online_cpus", (int)sysconf(_SC_NPROCESSORS_ONLN), "throttling_data", "periods", 0,
			 "throttled_periods", 0, "throttled_time", 0);
}

static void stats_tick(struct loop *l, void *arg);

static void stats_answered(json_t *r, const struct err *err, void *arg)
{
	struct stats_state *s = arg;
	struct engine_container *k = engine_container_find(s->engine, s->id, NULL);

	s->asked = false;
	if (!s->conn) {
		stats_free(s);
		return;
	}
	CLEAN_JSON json_t *cpu = r ? stats_cpu(r) : json_object();
	bool first = !s->before;

	if (first && !s->once && r) {
		s->before = json_incref(cpu);
		s->timer = loop_add_timer(s->engine->loop, s->stream ? 0 : 1000, stats_tick, s);
		return;
	}
	char now[64] = "0001-01-01T00:00:00Z";
	CLEAN_FREE char *name = NULL;
	struct timespec ts;
	struct tm tm;

	if (!clock_gettime(CLOCK_REALTIME, &ts) && gmtime_r(&ts.tv_sec, &tm))
		(void)strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (asprintf(&name, "/%s", k ? k->name : "") < 0)
		name = NULL;
	CLEAN_JSON json_t *j = json_pack(
		"{s:s, s:s, s:s, s:s, s:{s:I, s:I}, s:{s:[]}, s:O, s:O, s:{s:I, s:I, s:{s:I}}}", "read", now, "preread",
		now, "name", name ?: "", "id", s->id, "pids_stats", "current",
		(json_int_t)json_int(r, "pids_current", 0), "limit", (json_int_t)json_int(r, "pids_limit", 0),
		"blkio_stats", "io_service_bytes_recursive", "cpu_stats", cpu, "precpu_stats",
		s->before ? s->before : cpu, "memory_stats", "usage", (json_int_t)json_int(r, "memory_usage", 0),
		"limit", memory_limit(json_int(r, "memory_limit", 0)), "stats", "inactive_file", (json_int_t)0);
	CLEAN_FREE char *text = j ? json_text(j) : NULL;

	if (text)
		(void)http_stream_write(s->conn, text, strlen(text));
	json_decref(s->before);
	s->before = json_incref(cpu);
	if (s->stream && r) {
		s->timer = loop_add_timer(s->engine->loop, 1000, stats_tick, s);
		return;
	}
	http_on_close(s->conn, NULL, NULL);
	http_stream_end(s->conn);
	stats_free(s);
}

static void stats_tick(struct loop *l, void *arg)
{
	struct stats_state *s = arg;
	struct engine_container *k = engine_container_find(s->engine, s->id, NULL);

	s->timer = NULL;
	s->asked = true;
	if (k && k->shim)
		shim_client_call(k->shim, "stats", NULL, NULL, 0, stats_answered, s);
	else
		stats_answered(NULL, NULL, s);
}

static void stats(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = find(c, r, arg);
	struct stats_state *s = k ? calloc(1, sizeof(*s)) : NULL;

	if (!k)
		return;
	bug_on(!s);
	s->conn = c;
	s->engine = arg;
	s->stream = http_query_bool(r, "stream", true);
	s->once = http_query_bool(r, "one-shot", false);
	(void)strcpy(s->id, k->id);
	http_stream_begin(c, 200, "application/json");
	http_on_close(c, stats_closed, s);
	stats_tick(NULL, s);
}

static void not_yet(struct http_conn *c, const struct http_request *r, void *arg)
{
	http_reply_error_status(c, 501, "%s is not supported by this version of Walnut", strrchr(r->path, '/') + 1);
}

const struct http_route routes_containers[] = {
	{ "GET", "/containers/json", list, false },
	{ "POST", "/containers/create", create, false },
	{ "GET", "/containers/{id}/json", inspect, false },
	{ "POST", "/containers/{id}/start", start, false },
	{ "POST", "/containers/{id}/stop", stop, false },
	{ "POST", "/containers/{id}/restart", restart, false },
	{ "POST", "/containers/{id}/kill", kill_one, false },
	{ "POST", "/containers/{id}/pause", pause_one, false },
	{ "POST", "/containers/{id}/unpause", unpause, false },
	{ "POST", "/containers/{id}/wait", wait_one, false },
	{ "POST", "/containers/{id}/attach", attach, false },
	{ "POST", "/containers/{id}/resize", resize, false },
	{ "POST", "/containers/{id}/rename", rename_one, false },
	{ "POST", "/containers/{id}/update", update, false },
	{ "GET", "/containers/{id}/logs", logs, false },
	{ "GET", "/containers/{id}/top", not_yet, false },
	{ "GET", "/containers/{id}/stats", stats, false },
	{ "DELETE", "/containers/{id}", remove_one, false },
	{ 0 },
};
