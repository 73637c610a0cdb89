/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of routes, each ended by a NULL method. The handlers' argument is struct engine. */
#ifndef WALNUT_API_ROUTES_H
#define WALNUT_API_ROUTES_H

#include "api/http.h"

extern const struct http_route routes_containers[];
extern const struct http_route routes_exec[];
extern const struct http_route routes_images[];
extern const struct http_route routes_system[];

/* route_not_built - the answer of a route of Docker's that is not built yet: 501 with its name. */
void route_not_built(struct http_conn *c, const struct http_request *r, void *arg);

#endif
