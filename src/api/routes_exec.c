/* SPDX-License-Identifier: Apache-2.0 */
/* Routes of execs. */
#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "engine/container.h"

static json_t *body_json(struct http_conn *c, const struct http_request *r)
{
	struct err err = ERR_INIT;
	json_t *body = r->body_len ? json_parse(r->body, r->body_len, "request body", &err) : json_object();

	if (!body)
		http_reply_error(c, &err);
	return body;
}

static void exec_create(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container *k = engine_container_find(arg, http_param(r, "id"), &err);
	CLEAN_JSON json_t *body = k ? body_json(c, r) : NULL;
	struct engine_exec *x;

	if (!k || (body && engine_exec_create(k, body, &x, &err)))
		http_reply_error(c, &err);
	else if (body)
		http_reply_json(c, 201, json_pack("{s:s}", "Id", x->id));
}

static void exec_detached(struct engine_exec *x, const struct err *err, void *arg)
{
	if (err)
		http_reply_error(arg, err);
	else
		http_reply_empty(arg, 200);
}

struct exec_attached {
	int sock;
	bool mux;
};

static void exec_attached(struct engine_exec *x, const struct err *err, void *arg)
{
	struct exec_attached *a = arg;

	if (err) {
		char text[ERR_MSG_SIZE + 64];
		int n = snprintf(text + 8, sizeof(text) - 8, "OCI runtime exec failed: %s\r\n", err->msg);

		memcpy(text, (char[8]){ 1, 0, 0, 0, 0, 0, (char)(n >> 8), (char)n }, 8);
		(void)!write(a->sock, a->mux ? text : text + 8, (size_t)(a->mux ? n + 8 : n));
	}
	(void)close(a->sock);
	free(a);
}

static void exec_start(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_exec *x = engine_exec_find(arg, http_param(r, "id"), &err);
	CLEAN_JSON json_t *body = x ? body_json(c, r) : NULL;
	bool tty = x && json_bool(x->config, "Tty", false);

	if (!x) {
		http_reply_error(c, &err);
		return;
	}
	if (!body)
		return;
	if (x->started || x->container->state != ENGINE_RUNNING) {
		http_reply_error_status(
			c, 409, x->started ? "exec %s has already run" : "exec %s: its container is not running",
			x->id);
		return;
	}
	const json_t *size = json_object_get(body, "ConsoleSize");
	json_t *console = json_pack("{s:I, s:I}", "height", json_integer_value(json_array_get(size, 0)), "width",
				    json_integer_value(json_array_get(size, 1)));

	if (json_bool(body, "Detach", false)) {
		engine_exec_start(x, -1, NULL, console, exec_detached, c);
		return;
	}
	struct buf early = BUF_INIT;
	struct exec_attached *a = calloc(1, sizeof(*a));

	bug_on(!a);
	a->mux = !tty;
	a->sock = http_hijack(
		c, tty ? "application/vnd.docker.raw-stream" : "application/vnd.docker.multiplexed-stream", &early);
	if (a->sock < 0) {
		buf_free(&early);
		free(a);
		json_decref(console);
		return;
	}
	engine_exec_start(x, a->sock, &early, console, exec_attached, a);
	buf_free(&early);
}

static void exec_resized(json_t *result, const struct err *err, void *arg)
{
	if (err)
		http_reply_error(arg, err);
	else
		http_reply_empty(arg, 200);
}

static void exec_resize(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_exec *x = engine_exec_find(arg, http_param(r, "id"), &err);

	if (x && (!x->running || !x->container->shim))
		(void)err_set(&err, EBUSY, "exec %s is not running", x->id);
	if (!x || err.code)
		http_reply_error(c, &err);
	else
		shim_client_call(x->container->shim, "resize",
				 json_pack("{s:s, s:i, s:i}", "exec_id", x->id, "height",
					   atoi(http_query(r, "h") ?: "0"), "width", atoi(http_query(r, "w") ?: "0")),
				 NULL, 0, exec_resized, c);
}

static void exec_inspect(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_exec *x = engine_exec_find(arg, http_param(r, "id"), &err);

	if (x)
		http_reply_json(c, 200, engine_exec_inspect(x));
	else
		http_reply_error(c, &err);
}

const struct http_route routes_exec[] = {
	{ "POST", "/containers/{id}/exec", exec_create, false },
	{ "POST", "/exec/{id}/start", exec_start, false },
	{ "POST", "/exec/{id}/resize", exec_resize, false },
	{ "GET", "/exec/{id}/json", exec_inspect, false },
	{ 0 },
};
