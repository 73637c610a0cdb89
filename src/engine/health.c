/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health checks (Docker's HEALTHCHECK): a command that is run in the container from time to time; its exit status makes
 * the container starting, healthy or unhealthy. Times and thresholds as moby's daemon/health.go.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container_internal.h"

#define HEALTH_LOG    5
#define HEALTH_OUTPUT 4096
#define SECOND        1000000000LL
#define DRAIN_MS      5000

struct health {
	struct engine_container *container;
	const char *status; /* "starting", "healthy", "unhealthy" */
	int streak;
	json_t *log;
	struct loop_timer *timer; /* the next probe, or the timeout of the one that runs */

	/* the probe that runs */
	struct engine_exec *exec;
	int sock;
	struct loop_source *source;
	struct buf output;
	int64_t began_ns;
	int exit_code;
	bool ended, timed_out;
};

static const json_t *health_config(const struct engine_container *c)
{
	const json_t *config = json_object_get(c->config, "Healthcheck"), *test = json_object_get(config, "Test");
	const char *kind = json_string_value(json_array_get(test, 0));

	return kind && strcmp(kind, "NONE") != 0 ? config : NULL;
}

static int64_t health_time(const struct health *h, const char *key, int64_t otherwise)
{
	return json_int(health_config(h->container), key, 0) ?: otherwise;
}

static void health_probe(struct loop *l, void *arg);

static void health_schedule(struct health *h)
{
	bool young = engine_now_ns() - h->container->started_ns < health_time(h, "StartPeriod", 0);
	int64_t ns = health_time(h, "Interval", 30 * SECOND);

	if (young && !strcmp(h->status, "starting"))
		ns = health_time(h, "StartInterval", ns < 5 * SECOND ? ns : 5 * SECOND);
	h->timer = loop_add_timer(h->container->engine->loop, (uint64_t)(ns / 1000000), health_probe, h);
}

static void health_set(struct health *h, const char *status)
{
	char action[64];

	if (!strcmp(h->status, status))
		return;
	h->status = status;
	(void)snprintf(action, sizeof(action), "health_status: %s", status);
	engine_container_event(h->container, action, NULL);
}

static void health_judge(struct health *h)
{
	struct engine_container *c = h->container;
	int64_t retries = health_time(h, "Retries", 3);

	if (!h->exit_code) {
		h->streak = 0;
		health_set(h, "healthy");
		return;
	}
	/* failures do not count while it starts */
	if (!strcmp(h->status, "starting") && h->began_ns - c->started_ns < health_time(h, "StartPeriod", 0))
		return;
	if (++h->streak >= retries)
		health_set(h, "unhealthy");
}

static void probe_clear(struct health *h)
{
	if (h->timer)
		loop_cancel(take_ptr(h->timer));
	loop_remove(take_ptr(h->source));
	close_fd(&h->sock);
	if (h->exec)
		h->exec->on_end = NULL;
	h->exec = NULL;
	h->ended = h->timed_out = false;
}

static void probe_finish(struct health *h)
{
	char began[40], ended[40];
	json_t *text;

	if (h->timed_out) {
		int64_t ns = health_time(h, "Timeout", 30 * SECOND);

		h->exit_code = -1;
		buf_free(&h->output);
		(void)!buf_printf(&h->output, "Health check exceeded timeout (%gs)", (double)ns / SECOND);
	}
	text = json_stringn(buf_bytes(&h->output), h->output.len);
	(void)json_array_append_new(h->log,
				    json_pack("{s:s, s:s, s:i, s:o}", "Start", engine_time_text(h->began_ns, began),
					      "End", engine_time_text(engine_now_ns(), ended), "ExitCode", h->exit_code,
					      "Output", text ? text : json_string("(not UTF-8)")));
	while (json_array_size(h->log) > HEALTH_LOG)
		(void)json_array_remove(h->log, 0);
	buf_free(&h->output);
	probe_clear(h);
	health_judge(h);
	health_schedule(h);
}

static void probe_readable(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct health *h = arg;
	char piece[4096];
	ssize_t n;

	while ((n = read(fd, piece, sizeof(piece))) > 0) {
		size_t room = HEALTH_OUTPUT - h->output.len;

		(void)!buf_append(&h->output, piece, (size_t)n < room ? (size_t)n : room);
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	loop_remove(take_ptr(h->source));
	if (h->ended)
		probe_finish(h);
}

static void probe_drained(struct loop *l, void *arg)
{
	struct health *h = arg;

	h->timer = NULL;
	probe_finish(h);
}

static void probe_ended(struct engine_exec *x, void *arg)
{
	struct health *h = arg;

	h->ended = true;
	h->exit_code = x->exit_code;
	h->exec = NULL;
	if (h->timer)
		loop_cancel(take_ptr(h->timer));
	if (h->source && !h->timed_out) /* its last output; what it left behind may hold the socket open for ever */
		h->timer = loop_add_timer(h->container->engine->loop, DRAIN_MS, probe_drained, h);
	else
		probe_finish(h);
}

static void probe_timeout(struct loop *l, void *arg)
{
	struct health *h = arg;

	h->timer = NULL;
	h->timed_out = true;
	if (h->exec && h->container->shim)
		shim_client_call(h->container->shim, "signal",
				 json_pack("{s:s, s:i}", "exec_id", h->exec->id, "signal", SIGKILL), NULL, 0, NULL,
				 NULL);
	h->timer = loop_add_timer(l, DRAIN_MS, probe_drained, h); /* a shim that does not answer is no reason to wait */
}

static void probe_started(struct engine_exec *x, const struct err *err, void *arg)
{
	struct engine_container *c = x ? engine_container_find(arg, x->container->id, NULL) : NULL;
	struct health *h = c ? c->health : NULL;

	if (!x || !err || !h || h->exec != x)
		return;
	(void)!buf_printf(&h->output, "%s", err->msg);
	x->on_end = NULL;
	probe_ended(x, h);
}

static json_t *probe_command(const struct engine_container *c)
{
	const json_t *test = json_object_get(health_config(c), "Test"), *shell = json_object_get(c->config, "Shell");
	json_t *cmd = json_array();
	size_t i;
	json_t *v;

	if (!strcmp(json_string_value(json_array_get(test, 0)), "CMD-SHELL")) {
		if (json_array_size(shell))
			(void)json_array_extend(cmd, (json_t *)shell);
		else
			(void)json_array_extend(cmd, json_pack("[s, s]", "/bin/sh", "-c"));
	}
	json_array_foreach(test, i, v)
		if (i)
			(void)json_array_append(cmd, v);
	return cmd;
}

static void health_probe(struct loop *l, void *arg)
{
	struct health *h = arg;
	struct engine_container *c = h->container;
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *body = NULL;
	struct engine_exec *x = NULL;
	CLEAN_FD int theirs = -1;
	int pair[2];

	h->timer = NULL;
	if (c->state == ENGINE_PAUSED || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
		health_schedule(h);
		return;
	}
	h->sock = pair[0];
	theirs = pair[1];
	h->began_ns = engine_now_ns();
	h->source = loop_add_fd(l, h->sock, EPOLLIN, probe_readable, h, &err);
	body = json_pack("{s:o, s:b, s:b}", "Cmd", probe_command(c), "AttachStdout", true, "AttachStderr", true);
	if (!h->source || engine_exec_create(c, body, &x, &err)) {
		log_warn("health check of %.12s: %s", c->id, err.msg);
		probe_clear(h);
		health_schedule(h);
		return;
	}
	h->exec = x;
	x->raw = true;
	x->on_end = probe_ended;
	x->on_end_arg = h;
	h->timer = loop_add_timer(l, (uint64_t)(health_time(h, "Timeout", 30 * SECOND) / 1000000), probe_timeout, h);
	engine_exec_start(x, theirs, NULL, NULL, probe_started, c->engine);
}

void health_start(struct engine_container *c)
{
	struct health *h;

	health_free(c);
	if (!health_config(c) || !(h = calloc(1, sizeof(*h))))
		return;
	h->container = c;
	h->sock = -1;
	h->status = "starting";
	h->log = json_array();
	c->health = h;
	health_schedule(h);
}

/* As Docker: a container that has ended is unhealthy. */
void health_stop(struct engine_container *c)
{
	struct health *h = c->health;

	if (!h)
		return;
	probe_clear(h);
	h->status = "unhealthy";
}

void health_free(struct engine_container *c)
{
	struct health *h = c->health;

	if (!h)
		return;
	probe_clear(h);
	buf_free(&h->output);
	json_decref(h->log);
	free(h);
	c->health = NULL;
}

const char *health_status(const struct engine_container *c)
{
	return c->health ? c->health->status : "none";
}

json_t *health_json(const struct engine_container *c)
{
	const struct health *h = c->health;

	if (!h)
		return health_config(c) ? json_pack("{s:s, s:i, s:[]}", "Status", "starting", "FailingStreak", 0, "Log")
					: NULL;
	return json_pack("{s:s, s:i, s:O}", "Status", h->status, "FailingStreak", h->streak, "Log", h->log);
}
