/* SPDX-License-Identifier: Apache-2.0 */
/* What runs in containers and what it uses: stats (stream, one-shot) and top. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/http.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container.h"

#define SAMPLE_MS 1000
#define ANSWER_MS 5000 /* a guest that does not answer must not hold the stream */
#define PS_MAX    (8U << 20)

/* ---- stats ---- */

struct stats_state {
	struct http_conn *conn;
	struct engine *engine;
	char id[65];
	struct loop_timer *timer; /* the next sample, or the end of the patience with this one */
	struct stats_ask *ask;    /* the shim's answer is awaited */
	json_t *before;           /* the sample before: {"cpu", "read"} */
	bool stream, pair;        /* pair: without a stream, the second of two samples is shown */
};

/* One question to the shim. It outlives the stream that asked, if need be. */
struct stats_ask {
	struct stats_state *state; /* NULL: nobody waits any more */
};

static void stats_tick(struct loop *l, void *arg);

static void stats_free(struct stats_state *s)
{
	if (s->timer)
		loop_cancel(s->timer);
	if (s->ask)
		s->ask->state = NULL;
	json_decref(s->before);
	free(s);
}

static void stats_closed(struct http_conn *c, void *arg)
{
	stats_free(arg);
}

/* As Docker: a container without a limit has the machine's memory. */
static json_int_t memory_limit(int64_t limit)
{
	json_int_t machine = (json_int_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);

	return limit > 0 && limit < machine ? limit : machine;
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
	return json_pack("{s:{s:I, s:I, s:I}, s:I, s:i, s:{s:I, s:I, s:I}}", "cpu_usage", "total_usage",
			 (json_int_t)json_int(r, "cpu_total_ns", 0), "usage_in_kernelmode",
			 (json_int_t)json_int(r, "cpu_system_ns", 0), "usage_in_usermode",
			 (json_int_t)json_int(r, "cpu_user_ns", 0), "system_cpu_usage", (json_int_t)system_cpu_ns(),
			 "online_cpus", (int)sysconf(_SC_NPROCESSORS_ONLN), "throttling_data", "periods",
			 (json_int_t)json_int(r, "cpu_periods", 0), "throttled_periods",
			 (json_int_t)json_int(r, "cpu_throttled_periods", 0), "throttled_time",
			 (json_int_t)json_int(r, "cpu_throttled_ns", 0));
}

/* A sample that was not taken has Docker's zero values. */
static json_t *stats_no_cpu(void)
{
	return json_pack("{s:{s:i, s:i, s:i}, s:{s:i, s:i, s:i}}", "cpu_usage", "total_usage", 0, "usage_in_kernelmode",
			 0, "usage_in_usermode", 0, "throttling_data", "periods", 0, "throttled_periods", 0,
			 "throttled_time", 0);
}

static json_t *stats_memory(const json_t *r)
{
	json_int_t cache = (json_int_t)json_int(r, "memory_cache", 0);
	json_int_t inactive = (json_int_t)json_int(r, "memory_inactive_file", 0);

	/* inactive_file is what clients subtract from the use (version 2), total_inactive_file with version 1 */
	return json_pack("{s:I, s:I, s:I, s:{s:I, s:I, s:I}}", "usage", (json_int_t)json_int(r, "memory_usage", 0),
			 "max_usage", (json_int_t)json_int(r, "memory_max_usage", 0), "limit",
			 memory_limit(json_int(r, "memory_limit", 0)), "stats", "cache", cache, "inactive_file",
			 inactive, "total_inactive_file", inactive);
}

static json_t *stats_blkio(void)
{
	return json_pack("{s:n, s:n, s:n, s:n, s:n, s:n, s:n, s:n}", "io_service_bytes_recursive",
			 "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
			 "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive");
}

/* @r: the shim's counters; NULL: the container does not run. */
static json_t *stats_json(const struct stats_state *s, const struct engine_container *k, const json_t *r, json_t *cpu)
{
	const json_t *before = json_object_get(s->before, "cpu");
	char now[40];
	json_t *pids = r ? json_pack("{s:I}", "current", (json_int_t)json_int(r, "pids_current", 0)) : json_object();

	if (json_int(r, "pids_limit", 0) > 0)
		(void)json_object_set_new(pids, "limit", json_integer(json_int(r, "pids_limit", 0)));
	return json_pack("{s:s, s:s, s:o, s:o, s:i, s:{}, s:O, s:o, s:o, s:s+, s:s}", "read",
			 r ? engine_time_text(engine_now_ns(), now) : "0001-01-01T00:00:00Z", "preread",
			 json_str(s->before, "read", "0001-01-01T00:00:00Z"), "pids_stats", pids, "blkio_stats",
			 stats_blkio(), "num_procs", 0, "storage_stats", "cpu_stats", cpu, "precpu_stats",
			 before ? json_incref((json_t *)before) : stats_no_cpu(), "memory_stats",
			 r ? stats_memory(r) : json_object(), "name", "/", k->name, "id", k->id);
}

static void stats_next(struct stats_state *s, uint64_t ms)
{
	s->timer = loop_add_timer(s->engine->loop, ms, stats_tick, s);
}

/* One sample is there, or none is to be had. */
static void stats_sample(struct stats_state *s, const json_t *r)
{
	struct engine_container *k = engine_container_find(s->engine, s->id, NULL);
	CLEAN_JSON json_t *cpu = r ? stats_cpu(r) : stats_no_cpu();
	CLEAN_JSON json_t *j = k ? stats_json(s, k, r, cpu) : NULL;
	char now[40];

	json_decref(s->before);
	s->before = r ? json_pack("{s:O, s:s}", "cpu", cpu, "read", engine_time_text(engine_now_ns(), now)) : NULL;
	if (s->pair && r) {
		s->pair = false;
		stats_next(s, SAMPLE_MS);
		return;
	}
	CLEAN_FREE char *text = j ? json_text(j) : NULL;
	CLEAN_BUF struct buf line = BUF_INIT;

	if (text && !buf_printf(&line, "%s\n", text) && http_stream_write(s->conn, buf_bytes(&line), line.len) > PS_MAX)
		k = NULL; /* a client that never reads */
	if (s->stream && k) {
		stats_next(s, SAMPLE_MS);
		return;
	}
	http_on_close(s->conn, NULL, NULL);
	http_stream_end(s->conn);
	stats_free(s);
}

static void stats_late(struct loop *l, void *arg)
{
	struct stats_state *s = arg;

	s->timer = NULL;
	s->ask->state = NULL;
	s->ask = NULL;
	stats_sample(s, NULL);
}

static void stats_answered(json_t *r, const struct err *err, void *arg)
{
	struct stats_ask *ask = arg;
	struct stats_state *s = ask->state;

	free(ask);
	if (!s)
		return;
	s->ask = NULL;
	if (s->timer)
		loop_cancel(take_ptr(s->timer));
	stats_sample(s, r);
}

static void stats_tick(struct loop *l, void *arg)
{
	struct stats_state *s = arg;
	struct engine_container *k = engine_container_find(s->engine, s->id, NULL);

	s->timer = NULL;
	if (!k || !k->shim || (k->state != ENGINE_RUNNING && k->state != ENGINE_PAUSED)) {
		stats_sample(s, NULL);
		return;
	}
	s->ask = calloc(1, sizeof(*s->ask));
	bug_on(!s->ask);
	s->ask->state = s;
	s->timer = loop_add_timer(s->engine->loop, ANSWER_MS, stats_late, s);
	shim_client_call(k->shim, "stats", NULL, NULL, 0, stats_answered, s->ask);
}

static void stats(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = route_container(c, r, arg);
	struct stats_state *s = k ? calloc(1, sizeof(*s)) : NULL;
	bool stream = http_query_bool(r, "stream", true), once = http_query_bool(r, "one-shot", false);

	if (!k)
		return;
	bug_on(!s);
	if (stream && once) {
		free(s);
		http_reply_error_status(c, 400, "cannot have stream=true and one-shot=true");
		return;
	}
	*s = (struct stats_state){ .conn = c, .engine = arg, .stream = stream, .pair = !stream && !once };
	(void)strcpy(s->id, k->id);
	http_stream_begin(c, 200, "application/json");
	http_on_close(c, stats_closed, s);
	stats_next(s, 0); /* from the loop: an answer at once may end the connection under our feet */
}

/* ---- top ---- */

struct top {
	struct http_conn *conn; /* NULL: the client has gone */
	struct engine *engine;
	struct loop_source *source;
	json_t *pids;
	struct buf out;
	pid_t child;
	int fd;
};

static void top_free(struct top *t)
{
	loop_remove(t->source);
	if (t->child > 0) {
		(void)kill(t->child, SIGKILL);
		(void)waitpid(t->child, NULL, 0);
	}
	close_fd(&t->fd);
	buf_free(&t->out);
	json_decref(t->pids);
	free(t);
}

static void top_closed(struct http_conn *c, void *arg)
{
	struct top *t = arg;

	t->conn = NULL;
	if (t->child > 0)
		top_free(t);
}

static json_t *split_words(char *line, size_t most)
{
	json_t *words = json_array();

	for (char *at = line + strspn(line, " \t"); *at; at += strspn(at, " \t")) {
		size_t n = json_array_size(words) + 1 == most ? strlen(at) : strcspn(at, " \t");

		while (n && at[n - 1] == ' ')
			n--;
		json_t *word = json_stringn(at, n);

		(void)json_array_append_new(words, word ? word : json_string("?"));
		at += n;
	}
	return words;
}

/* Keeps the lines of ps whose PID is one of the container's. NULL: there is no such column. */
static json_t *top_table(struct top *t)
{
	CLEAN_JSON json_t *titles = NULL, *rows = json_array();
	char *save = NULL, *line = strtok_r(buf_bytes(&t->out), "\n", &save);
	size_t column = 0, i;
	json_t *v;

	titles = split_words(line ? line : (char[]){ "" }, SIZE_MAX);
	while (column < json_array_size(titles) && strcmp(json_string_value(json_array_get(titles, column)), "PID"))
		column++;
	if (column == json_array_size(titles))
		return NULL;
	while ((line = strtok_r(NULL, "\n", &save))) {
		json_t *words = split_words(line, json_array_size(titles));
		long long pid = atoll(json_string_value(json_array_get(words, column)) ?: "-1");
		bool ours = false;

		json_array_foreach(t->pids, i, v)
			ours = ours || json_integer_value(v) == pid;
		if (ours)
			(void)json_array_append(rows, words);
		json_decref(words);
	}
	return json_pack("{s:O, s:O}", "Titles", titles, "Processes", rows);
}

static void top_readable(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct top *t = arg;
	ssize_t n = buf_read(&t->out, fd, 65536);
	int status = 0;

	if (n > 0 || n == -EAGAIN || n == -EINTR)
		return;
	(void)waitpid(t->child, &status, 0); /* it has closed its output: it ends */
	t->child = 0;
	http_on_close(t->conn, NULL, NULL);
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		char *text = buf_bytes(&t->out);

		text[strcspn(text, "\n")] = 0;
		if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
			http_reply_error_status(t->conn, 500,
						"Error running ps: it is not on this machine (install procps)");
		else
			http_reply_error_status(t->conn, 500, "Error running ps: %.300s", text);
	} else {
		json_t *table = top_table(t);

		if (table)
			http_reply_json(t->conn, 200, table);
		else
			http_reply_error_status(t->conn, 500, "Couldn't find PID field in ps output");
	}
	top_free(t);
}

static _Noreturn void top_child(char *args, int out)
{
	char *argv[64] = { (char *)"ps" }, *save = NULL;
	size_t n = 1;

	for (char *a = strtok_r(args, " ", &save); a && n < ARRAY_LEN(argv) - 1; a = strtok_r(NULL, " ", &save))
		argv[n++] = a;
	(void)dup2(out, 1);
	(void)dup2(out, 2);
	(void)execvp("ps", argv);
	_exit(127);
}

static void top_run(struct top *t, const char *args)
{
	CLEAN_FREE char *copy = strdup(args);
	struct err err = ERR_INIT;
	CLEAN_FD int theirs = -1;
	int p[2];

	if (!copy || pipe2(p, O_CLOEXEC)) {
		(void)err_sys(&err, errno, "run ps");
	} else {
		t->fd = p[0];
		theirs = p[1];
		t->out.limit = PS_MAX;
		t->child = fork();
		if (!t->child)
			top_child(copy, theirs);
		if (t->child < 0 || fd_set_nonblock(t->fd, true))
			(void)err_sys(&err, errno, "run ps");
		else
			t->source = loop_add_fd(t->engine->loop, t->fd, EPOLLIN, top_readable, t, &err);
	}
	if (!err.code)
		return;
	http_on_close(t->conn, NULL, NULL);
	http_reply_error(t->conn, &err);
	top_free(t);
}

struct top_ask {
	struct top *top;
	bool inside; /* a guest's processes: the agent's list, not the host's ps */
	char args[512];
};

static void top_answered(json_t *r, const struct err *err, void *arg)
{
	struct top_ask *ask = arg;
	struct top *t = ask->top;

	if (!t->conn) {
		top_free(t);
	} else if (err) {
		http_on_close(t->conn, NULL, NULL);
		http_reply_error(t->conn, err);
		top_free(t);
	} else if (ask->inside) {
		struct err why = ERR_INIT;
		json_t *table = ps_table(json_object_get(r, "processes"), ask->args, &why);

		http_on_close(t->conn, NULL, NULL);
		if (table)
			http_reply_json(t->conn, 200, table);
		else
			http_reply_error(t->conn, &why);
		top_free(t);
	} else {
		t->pids = json_incref(json_object_get(r, "pids"));
		top_run(t, ask->args);
	}
	free(ask);
}

/* As Docker: a column must not pretend to be the PID. */
static bool renames_pid(const char *args)
{
	const char *at = strstr(args, "=PID");

	return at && (at - args < 3 || strncmp(at - 3, "pid", 3));
}

static void top(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = route_container(c, r, arg);
	const char *args = http_query(r, "ps_args");

	if (!k)
		return;
	args = args && *args ? args : "-ef";
	if (k->state == ENGINE_RESTARTING)
		http_reply_error_status(c, 409, "Container %s is restarting, wait until the container is running",
					k->id);
	else if (!k->shim || (k->state != ENGINE_RUNNING && k->state != ENGINE_PAUSED))
		http_reply_error_status(c, 409, "container %s is not running", k->id);
	else if (renames_pid(args) || strlen(args) > 500)
		http_reply_error_status(c, 400, "specifying \"%.200s\" is not allowed", args);
	else {
		struct top *t = calloc(1, sizeof(*t));
		struct top_ask *ask = calloc(1, sizeof(*ask));

		bug_on(!t || !ask);
		*t = (struct top){ .conn = c, .engine = arg, .fd = -1 };
		*ask = (struct top_ask){ .top = t, .inside = k->isolation == ENGINE_ISOLATION_HYPERV };
		(void)strcpy(ask->args, args);
		http_on_close(c, top_closed, t);
		engine_container_event(k, "top", NULL);
		shim_client_call(k->shim, "pids", NULL, NULL, 0, top_answered, ask);
	}
}

const struct http_route routes_stats[] = {
	{ "GET", "/containers/{id}/stats", stats, false },
	{ "GET", "/containers/{id}/top", top, false },
	{ 0 },
};
