/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks as Docker has them: bridges of the host, with subnets; the fixed ones (bridge, host, none) and users' own.
 * And endpoints: what connects a container to one. A container's endpoints are a JSON object, network name to Docker's
 * EndpointSettings, kept in its record; the running ones have their addresses in it.
 */
#ifndef WALNUT_ENGINE_NETWORK_H
#define WALNUT_ENGINE_NETWORK_H

#include "engine/container.h"
#include "net/address.h"

enum network_driver { NETWORK_NULL, NETWORK_HOST, NETWORK_BRIDGE };
enum { NETWORK_V4, NETWORK_V6, NETWORK_FAMILIES };

struct engine_network {
	struct engine_network *next;
	struct engine *engine;
	char id[65];
	char *name;
	json_t *config; /* Docker's create body, completed */
	int64_t created_ns;
	enum network_driver driver;
	char bridge[IFNAMSIZ];
	struct net_address subnet[NETWORK_FAMILIES]; /* family 0: none */
	struct net_address gateway[NETWORK_FAMILIES];
	struct net_address range[NETWORK_FAMILIES];
	uint64_t next_address[NETWORK_FAMILIES];
	unsigned int mtu; /* 0: the kernel's */
	bool internal, masquerade, icc;
	bool up;   /* its bridge exists */
	bool made; /* and was made by this process */
};

/* engine_networks_open - from the database; the fixed networks are made on the first run. */
int engine_networks_open(struct engine *e, struct err *err) MUST_CHECK;
void engine_networks_close(struct engine *e);
/* engine_network_find - by id, name or unique id prefix. */
struct engine_network *engine_network_find(struct engine *e, const char *ref, struct err *err) MUST_CHECK;
int engine_network_create(struct engine *e, const json_t *body, struct engine_network **out,
			  struct err *err) MUST_CHECK;
int engine_network_remove(struct engine_network *n, struct err *err) MUST_CHECK;
/* engine_networks_prune - users' networks without containers. Return: their names, NULL with err. */
json_t *engine_networks_prune(struct engine *e, const char *filters, struct err *err) MUST_CHECK;
json_t *engine_network_inspect(const struct engine_network *n, bool containers) MUST_CHECK;
json_t *engine_network_list(struct engine *e, const char *filters, struct err *err) MUST_CHECK;
/* engine_network_up - its bridge exists, has its addresses, and rules are there. */
int engine_network_up(struct engine_network *n, struct err *err) MUST_CHECK;
/* engine_network_fixed - bridge, host or none: not to be removed. */
bool engine_network_fixed(const struct engine_network *n);
/* engine_network_used - some container that is not @except has an endpoint on it; its name or NULL. */
const char *engine_network_used(const struct engine_network *n, bool running, const struct engine_container *except);

/* endpoint.c */
/* endpoints_create - from NetworkMode and NetworkingConfig of the create request. */
int endpoints_create(struct engine_container *c, const json_t *networking, struct err *err) MUST_CHECK;
/* endpoints_prepare - addresses for a start; bridges up. */
int endpoints_prepare(struct engine_container *c, struct err *err) MUST_CHECK;
/* endpoints_open - a namespace with every endpoint in it, for a process container. Return: descriptor, -1: has none. */
int endpoints_open(struct engine_container *c, int *netns, struct err *err) MUST_CHECK;
/* endpoints_started - tell of it, once the container runs. */
void endpoints_started(struct engine_container *c);
/* endpoints_address - where published ports lead to; false: the container has no such address. */
bool endpoints_address(const struct engine_container *c, int family, struct net_address *out);
/* endpoints_host_gateway - the host's address on the default bridge, or "". Return: @out, of NET_ADDRESS_TEXT bytes. */
const char *endpoints_host_gateway(struct engine *e, char *out);
/* endpoints_close - after the end: addresses and ports are free again. */
void endpoints_close(struct engine_container *c);
int endpoints_connect(struct engine_container *c, struct engine_network *n, const json_t *settings,
		      struct err *err) MUST_CHECK;
int endpoints_disconnect(struct engine_container *c, struct engine_network *n, bool force, struct err *err) MUST_CHECK;
/* endpoints_inspect - Docker's NetworkSettings. */
json_t *endpoints_inspect(const struct engine_container *c) MUST_CHECK;
/* endpoints_adopt - after a restart of the engine, of a container that runs. */
int endpoints_adopt(struct engine_container *c, struct err *err) MUST_CHECK;
/* endpoints_own_network - does the container have a namespace of its own, made by the engine? */
bool endpoints_own_network(const struct engine_container *c);
/* endpoints_user_network - on a network of users, where names are served. */
bool endpoints_user_network(const struct engine_container *c);

/* publish.c: a port of the host that leads to one of a container. */
struct engine_port {
	int protocol;
	uint16_t host_port, container_port;
	struct net_address host;
	int held; /* bound and never listened on: others get "address already in use" */
};
/* publish_open - hold what HostConfig asks for; random ones are chosen. */
int publish_open(struct engine_container *c, struct err *err) MUST_CHECK;
void publish_close(struct engine_container *c);
/* publish_forget - the record goes, the published ports stay as they are. */
void publish_forget(struct engine_container *c);
/* publish_retarget - the container's addresses have changed. */
int publish_retarget(struct engine_container *c, struct err *err) MUST_CHECK;
/* publish_inspect - Docker's NetworkSettings.Ports. publish_summary - the Ports of the list. */
json_t *publish_inspect(const struct engine_container *c) MUST_CHECK;
json_t *publish_summary(const struct engine_container *c) MUST_CHECK;
/* publish_check - HostConfig.PortBindings and Config.ExposedPorts are well-formed. */
int publish_check(const json_t *config, const json_t *host, struct err *err) MUST_CHECK;
/* publish_save, publish_load - for the container's record. */
json_t *publish_save(const struct engine_container *c) MUST_CHECK;
int publish_load(struct engine_container *c, const json_t *saved, struct err *err) MUST_CHECK;

/* rules.c: bring the host's rules to what networks and ports say. */
int engine_rules_apply(struct engine *e, struct err *err) MUST_CHECK;
void engine_table_name(const struct engine *e, char *out, size_t size);

#endif
