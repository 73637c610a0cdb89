/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of routes, each ended by a NULL method. The handlers' argument is struct engine. */
#ifndef WALNUT_API_ROUTES_H
#define WALNUT_API_ROUTES_H

#include "api/http.h"

struct engine_container;

extern const struct http_route routes_archive[];
extern const struct http_route routes_commit[];
extern const struct http_route routes_containers[];
extern const struct http_route routes_df[];
extern const struct http_route routes_exec[];
extern const struct http_route routes_images[];
extern const struct http_route routes_networks[];
extern const struct http_route routes_registry[];
extern const struct http_route routes_stats[];
extern const struct http_route routes_stream[];
extern const struct http_route routes_system[];
extern const struct http_route routes_volumes[];

/* ps_table - {"Titles", "Processes"} of a guest's processes for ps's @args. NULL with @err. */
json_t *ps_table(const json_t *processes, const char *args, struct err *err) MUST_CHECK;
/* detach_keys_check - "ctrl-p,ctrl-q" and the like; "" is allowed. Return: 0 or -EINVAL with Docker's words. */
int detach_keys_check(const char *text, struct err *err) MUST_CHECK;
/* route_container - the container of a request's {id}. NULL: there is none, and that was answered. @arg: the engine. */
struct engine_container *route_container(struct http_conn *c, const struct http_request *r, void *arg);
/* images_pull - POST /images/create?fromImage= */
void images_pull(struct http_conn *c, const struct http_request *r, void *arg);
/* route_not_built - the answer of a route of Docker's that is not built yet: 501 with its name. */
void route_not_built(struct http_conn *c, const struct http_request *r, void *arg);

#endif
