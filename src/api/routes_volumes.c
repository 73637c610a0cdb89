/* SPDX-License-Identifier: Apache-2.0 */
/* Routes of volumes. */
#include <string.h>

#include "api/http.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "engine/mounts.h"

static void list(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	json_t *volumes = engine_volume_list(arg, http_query(r, "filters"), false, &err);

	if (volumes)
		http_reply_json(c, 200, json_pack("{s:o, s:n}", "Volumes", volumes, "Warnings"));
	else
		http_reply_error(c, &err);
}

static void create(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *body = r->body_len ? json_parse(r->body, r->body_len, "request body", &err) : json_object();
	struct engine_volume *v;

	if (body && !json_is_object(body))
		(void)err_set(&err, EINVAL, "the request body is not a JSON object");
	if (!body || err.code || engine_volume_create(arg, body, &v, &err))
		http_reply_error(c, &err);
	else
		http_reply_json(c, 201, engine_volume_json(arg, v, false));
}

static void inspect(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	const struct engine_volume *v = engine_volume_find(arg, http_param(r, "name"), &err);

	if (v)
		http_reply_json(c, 200, engine_volume_json(arg, v, false));
	else
		http_reply_error(c, &err);
}

static void remove_one(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_volume *v = engine_volume_find(arg, http_param(r, "name"), &err);
	bool force = http_query_bool(r, "force", false);

	/* as Docker: "force" is content when there is none; what is in use stays */
	if ((!v && !force) || (v && engine_volume_remove(arg, v, &err)))
		http_reply_error(c, &err);
	else
		http_reply_empty(c, 204);
}

static void prune(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	json_t *result;

	/* before API 1.42 named volumes went, too */
	result = engine_volume_prune(arg, http_query(r, "filters"), r->api_minor < 42, &err);
	if (result)
		http_reply_json(c, 200, result);
	else
		http_reply_error(c, &err);
}

const struct http_route routes_volumes[] = {
	{ "GET", "/volumes", list, false },
	{ "POST", "/volumes/create", create, false },
	{ "POST", "/volumes/prune", prune, false },
	{ "GET", "/volumes/{name}", inspect, false },
	{ "DELETE", "/volumes/{name}", remove_one, false },
	{ 0 },
};
