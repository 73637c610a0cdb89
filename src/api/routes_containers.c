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

struct engine_container *route_container(struct http_conn *c, const struct http_request *r, void *arg)
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
	struct engine_container *k = route_container(c, r, arg);

	if (k)
		http_reply_json(c, 200, engine_container_inspect(k, http_query_bool(r, "size", false)));
}

static void start(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = route_container(c, r, arg);

	if (k)
		engine_container_start(k, reply_done, c);
}

static int timeout_of(const struct http_request *r)
{
	return http_query(r, "t") ? atoi(http_query(r, "t")) : INT_MIN;
}

static void stop(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = route_container(c, r, arg);

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
	struct engine_container *k = route_container(c, r, arg);

	if (k)
		engine_container_stop(k, http_query(r, "signal"), timeout_of(r), restart_stopped, c);
}

static void kill_one(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = route_container(c, r, arg);

	if (k)
		engine_container_signal(k, http_query(r, "signal"), reply_done, c);
}

static void pause_one(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = route_container(c, r, arg);

	if (k)
		engine_container_pause(k, true, reply_done, c);
}

static void unpause(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = route_container(c, r, arg);

	if (k)
		engine_container_pause(k, false, reply_done, c);
}

static void remove_one(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = route_container(c, r, arg);

	if (k)
		k->drop_volumes = http_query_bool(r, "v", false);
	if (k)
		engine_container_remove(k, http_query_bool(r, "force", false), reply_done, c);
}

static void rename_one(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container *k = route_container(c, r, arg);

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
	struct engine_container *k = route_container(c, r, arg);
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
	struct engine_container *k = route_container(c, r, arg);
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

static void resized(json_t *result, const struct err *err, void *arg)
{
	if (err)
		http_reply_error(arg, err);
	else
		http_reply_empty(arg, 200);
}

static void resize(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_container *k = route_container(c, r, arg);

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

/* ---- prune ---- */

static void prune_done(json_t *result, void *arg)
{
	http_reply_json(arg, 200, result);
}

static void prune(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;

	if (engine_container_prune(arg, http_query(r, "filters"), prune_done, c, &err))
		http_reply_error(c, &err);
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
	{ "POST", "/containers/{id}/resize", resize, false },
	{ "POST", "/containers/{id}/rename", rename_one, false },
	{ "POST", "/containers/{id}/update", update, false },
	{ "POST", "/containers/prune", prune, false },
	{ "DELETE", "/containers/{id}", remove_one, false },
	{ 0 },
};
