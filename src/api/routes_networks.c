/* SPDX-License-Identifier: Apache-2.0 */
/* /networks: Docker's networks. */
#include <string.h>

#include "api/http.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "engine/container.h"
#include "engine/network.h"

static struct engine_network *route_network(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_network *n = engine_network_find(arg, http_param(r, "id"), &err);

	if (!n)
		http_reply_error(c, &err);
	return n;
}

/* A JSON object of a request; NULL: that was answered. */
static json_t *route_body(struct http_conn *c, const struct http_request *r)
{
	struct err err = ERR_INIT;
	json_t *body = json_parse(r->body, r->body_len, "request body", &err);

	if (json_is_object(body))
		return body;
	json_decref(body);
	if (!err.code)
		(void)err_set(&err, EINVAL, "the request's body is no JSON object");
	http_reply_error(c, &err);
	return NULL;
}

static void list(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	json_t *all = engine_network_list(arg, http_query(r, "filters"), &err);

	if (all)
		http_reply_json(c, 200, all);
	else
		http_reply_error(c, &err);
}

static void inspect(struct http_conn *c, const struct http_request *r, void *arg)
{
	const struct engine_network *n = route_network(c, r, arg);
	const char *scope = http_query(r, "scope");

	if (!n)
		return;
	if (scope && *scope && strcmp(scope, "local") != 0)
		http_reply_error_status(c, 404, "network %s not found", http_param(r, "id"));
	else
		http_reply_json(c, 200, engine_network_inspect(n, true));
}

static void create(struct http_conn *c, const struct http_request *r, void *arg)
{
	CLEAN_JSON json_t *body = route_body(c, r);
	struct engine_network *n;
	struct err err = ERR_INIT;

	if (!body)
		return;
	if (engine_network_create(arg, body, &n, &err))
		http_reply_error(c, &err);
	else
		http_reply_json(c, 201, json_pack("{s:s, s:s}", "Id", n->id, "Warning", ""));
}

static void delete (struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine_network *n = route_network(c, r, arg);
	struct err err = ERR_INIT;

	if (!n)
		return;
	if (engine_network_remove(n, &err))
		http_reply_error(c, &err);
	else
		http_reply_empty(c, 204);
}

static void prune(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	json_t *names = engine_networks_prune(arg, http_query(r, "filters"), &err);

	if (!names) {
		http_reply_error(c, &err);
		return;
	}
	events_emit(arg, "network", "prune", "", json_pack("{s:s}", "reclaimed", "0"));
	http_reply_json(c, 200, json_pack("{s:o}", "NetworksDeleted", names));
}

static void change(struct http_conn *c, const struct http_request *r, void *arg, bool connect)
{
	struct engine_network *n = route_network(c, r, arg);
	CLEAN_JSON json_t *body = n ? route_body(c, r) : NULL;
	struct engine_container *k;
	struct err err = ERR_INIT;

	if (!body)
		return;
	k = engine_container_find(arg, json_str(body, "Container", ""), &err);
	if (!k || (connect ? endpoints_connect(k, n, json_object_get(body, "EndpointConfig"), &err)
			   : endpoints_disconnect(k, n, json_bool(body, "Force", false), &err)))
		http_reply_error(c, &err);
	else
		http_reply_empty(c, 200);
}

static void join(struct http_conn *c, const struct http_request *r, void *arg)
{
	change(c, r, arg, true);
}

static void leave(struct http_conn *c, const struct http_request *r, void *arg)
{
	change(c, r, arg, false);
}

const struct http_route routes_networks[] = {
	{ "GET", "/networks", list, false },
	{ "POST", "/networks/create", create, false },
	{ "POST", "/networks/prune", prune, false },
	{ "GET", "/networks/{id}", inspect, false },
	{ "DELETE", "/networks/{id}", delete, false },
	{ "POST", "/networks/{id}/connect", join, false },
	{ "POST", "/networks/{id}/disconnect", leave, false },
	{ 0 },
};
