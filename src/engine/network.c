/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network's bridge is made when the first container needs it and stays until the network is removed, so that an
 * engine without containers has touched nothing of the host.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container_internal.h"
#include "engine/network.h"
#include "net/netns.h"

#define OPTION_BRIDGE     "com.docker.network.bridge.name"
#define OPTION_ICC        "com.docker.network.bridge.enable_icc"
#define OPTION_MASQUERADE "com.docker.network.bridge.enable_ip_masquerade"
#define OPTION_MTU        "com.docker.network.driver.mtu"

static const char *const driver_names[] = { "null", "host", "bridge" };

static bool option_on(const json_t *options, const char *name)
{
	const char *text = json_str(options, name, "true");

	return strcasecmp(text, "false") && strcmp(text, "0");
}

bool engine_network_fixed(const struct engine_network *n)
{
	return !strcmp(n->name, "bridge") || !strcmp(n->name, "host") || !strcmp(n->name, "none");
}

static void network_free(struct engine_network *n)
{
	if (!n)
		return;
	json_decref(n->config);
	free(n->name);
	free(n);
}

static void cleanup_network(struct engine_network **n)
{
	network_free(*n);
}

struct engine_network *engine_network_find(struct engine *e, const char *ref, struct err *err)
{
	struct engine_network *found = NULL;
	size_t len = strlen(ref);

	for (struct engine_network *n = e->networks; n; n = n->next)
		if (!strcmp(n->id, ref) || !strcmp(n->name, !strcmp(ref, "default") ? "bridge" : ref))
			return n;
	for (struct engine_network *n = e->networks; len && n; n = n->next) {
		if (strncmp(n->id, ref, len))
			continue;
		if (found) {
			(void)err_set(err, EINVAL, "network %s is ambiguous (2 matches found on ID prefix)", ref);
			return NULL;
		}
		found = n;
	}
	if (!found)
		(void)err_set(err, ENOENT, "network %s not found", ref);
	return found;
}

/* ---- subnets ---- */

struct overlap {
	const struct net_address *wanted;
	bool found;
};

static int check_overlap(const struct net_address *subnet, void *arg)
{
	struct overlap *o = arg;

	o->found = o->found || net_subnets_overlap(subnet, o->wanted);
	return o->found;
}

static bool network_overlaps(struct engine *e, const struct net_address *wanted)
{
	for (struct engine_network *n = e->networks; n; n = n->next)
		for (int i = 0; i < NETWORK_FAMILIES; i++)
			if (n->subnet[i].family && net_subnets_overlap(&n->subnet[i], wanted))
				return true;
	return false;
}

/* A subnet that no network of ours has and no route of the host leads to. */
static int choose_subnet(struct engine_network *n, struct err *err)
{
	CLEAN(netlink_close) struct netlink link = { 0 };
	struct net_address candidate;

	if (netlink_open(&link, -1, err))
		return -err->code;
	for (unsigned int i = 0; net_default_subnet(i, &candidate); i++) {
		struct overlap o = { &candidate, network_overlaps(n->engine, &candidate) };

		if (!o.found && netlink_each_subnet(&link, check_overlap, &o, err))
			return -err->code;
		if (o.found)
			continue;
		n->subnet[NETWORK_V4] = candidate;
		return 0;
	}
	return err_set(err, EIO,
		       "all predefined address pools have been fully subnetted: remove networks, or give a --subnet");
}

/* fdXX:XXXX:XXXX:XXXX::/64 from the network's id (RFC 4193, 3.2.2: pseudo-random). */
static void choose_subnet6(struct engine_network *n)
{
	struct net_address *a = &n->subnet[NETWORK_V6];

	*a = (struct net_address){ .family = AF_INET6, .prefix = 64 };
	a->bytes[0] = 0xfd;
	for (int i = 1; i < 8; i++) {
		char digits[3] = { n->id[i * 2], n->id[i * 2 + 1], 0 };

		a->bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
}

static int parse_pool(struct engine_network *n, const json_t *pool, struct err *err)
{
	const char *subnet = json_str(pool, "Subnet", ""), *gateway = json_str(pool, "Gateway", "");
	const char *range = json_str(pool, "IPRange", "");
	struct net_address a, base;
	int family;

	if (!*subnet)
		return *gateway || *range
			       ? err_set(err, EINVAL, "invalid IPAM config: a gateway or range needs a subnet")
			       : 0;
	if (net_address_parse(subnet, &a) || !strchr(subnet, '/'))
		return err_set(err, EINVAL, "invalid subnet %.60s: invalid CIDR block notation", subnet);
	family = a.family == AF_INET6 ? NETWORK_V6 : NETWORK_V4;
	base = net_subnet_base(&a);
	if (!net_address_equal(&a, &base)) {
		char text[NET_ADDRESS_TEXT];

		return err_set(err, EINVAL, "invalid subnet %.60s: it should be %s", subnet,
			       net_address_cidr(&base, text));
	}
	if (a.prefix > (family == NETWORK_V4 ? 30 : 126))
		return err_set(err, EINVAL, "invalid subnet %.60s: too small for a gateway and a container", subnet);
	if (n->subnet[family].family)
		return err_set(err, EINVAL,
			       "a network has one subnet of each address family in this version of Walnut");
	n->subnet[family] = base;
	if (*gateway &&
	    (net_address_parse(gateway, &n->gateway[family]) || !net_subnet_has(&base, &n->gateway[family])))
		return err_set(err, EINVAL, "invalid gateway %.60s: no address in the subnet %.60s", gateway, subnet);
	if (*range && (net_address_parse(range, &n->range[family]) || !net_subnet_has(&base, &n->range[family]) ||
		       n->range[family].prefix < base.prefix))
		return err_set(err, EINVAL, "invalid ip-range %.60s: not inside the subnet %.60s", range, subnet);
	return 0;
}

static int parse_ipam(struct engine_network *n, bool fresh, struct err *err)
{
	const json_t *ipam = json_object_get(n->config, "IPAM");
	const char *driver = json_str(ipam, "Driver", "default");
	size_t i;
	json_t *pool;

	if (*driver && strcmp(driver, "default"))
		return err_set(err, EINVAL, "IPAM driver %.60s is not supported by Walnut: there is \"default\"",
			       driver);
	json_array_foreach(json_object_get(ipam, "Config"), i, pool)
		if (parse_pool(n, pool, err))
			return -err->code;
	if (!n->subnet[NETWORK_V4].family && json_bool(n->config, "EnableIPv4", true)) {
		if (choose_subnet(n, err))
			return -err->code;
		(void)json_object_set_new(n->config, "AutoSubnet", json_true());
	}
	if (!n->subnet[NETWORK_V6].family && json_bool(n->config, "EnableIPv6", false))
		choose_subnet6(n);
	for (int f = 0; f < NETWORK_FAMILIES; f++) {
		if (!n->subnet[f].family)
			continue;
		if (fresh && network_overlaps(n->engine, &n->subnet[f]))
			return err_set(err, EPERM,
				       "invalid pool request: Pool overlaps with other one on this address space");
		if (!n->gateway[f].family)
			(void)net_subnet_at(&n->subnet[f], 1, &n->gateway[f]);
		n->gateway[f].prefix = n->subnet[f].prefix;
	}
	return 0;
}

/* IPAM.Config as it was settled, for inspect and the database. */
static void keep_ipam(struct engine_network *n)
{
	json_t *pools = json_array(), *options = json_object_get(json_object_get(n->config, "IPAM"), "Options");
	char text[NET_ADDRESS_TEXT];

	for (int f = 0; f < NETWORK_FAMILIES; f++) {
		if (!n->subnet[f].family)
			continue;
		json_t *pool = json_pack("{s:s}", "Subnet", net_address_cidr(&n->subnet[f], text));

		if (n->range[f].family)
			(void)json_object_set_new(pool, "IPRange", json_string(net_address_cidr(&n->range[f], text)));
		(void)json_object_set_new(pool, "Gateway", json_string(net_address_text(&n->gateway[f], text)));
		(void)json_array_append_new(pools, pool);
	}
	(void)json_object_set_new(n->config, "IPAM",
				  json_pack("{s:s, s:O, s:o}", "Driver", "default", "Options",
					    json_is_object(options) ? options : json_object(), "Config", pools));
}

/* ---- life ---- */

static int check_options(const json_t *options, struct err *err)
{
	static const char *const known[] = { OPTION_BRIDGE,
					     OPTION_ICC,
					     OPTION_MASQUERADE,
					     OPTION_MTU,
					     "com.docker.network.bridge.default_bridge",
					     "com.docker.network.bridge.host_binding_ipv4",
					     "com.docker.network.container_iface_prefix" };
	const char *name;
	json_t *v;

	json_object_foreach((json_t *)options, name, v) {
		bool found = false;

		for (size_t i = 0; i < ARRAY_LEN(known); i++)
			found = found || !strcmp(name, known[i]);
		if (!found || !json_is_string(v))
			return err_set(err, EINVAL, "network option %.100s is not supported by Walnut", name);
	}
	return 0;
}

/* From n->name, n->id and n->config to the rest. @fresh: a user asks for it now. */
static int network_settle(struct engine_network *n, bool fresh, struct err *err)
{
	const json_t *options = json_object_get(n->config, "Options");
	const char *driver = json_str(n->config, "Driver", "bridge"), *mtu = json_str(options, OPTION_MTU, "0");

	for (n->driver = NETWORK_NULL; strcmp(driver, driver_names[n->driver]); n->driver++)
		if (n->driver == NETWORK_BRIDGE)
			return err_set(err, ENOENT, "plugin \"%.60s\" not found: Walnut has the network driver bridge",
				       driver);
	if (n->driver != NETWORK_BRIDGE)
		return 0;
	if (check_options(options, err))
		return -err->code;
	n->internal = json_bool(n->config, "Internal", false);
	n->masquerade = option_on(options, OPTION_MASQUERADE);
	n->icc = option_on(options, OPTION_ICC);
	n->mtu = (unsigned int)strtoul(mtu, NULL, 10);
	if (n->mtu && (n->mtu < 68 || n->mtu > 65535))
		return err_set(err, EINVAL, "invalid MTU %.20s: 68 to 65535", mtu);
	if (strlen(json_str(options, OPTION_BRIDGE, "")) >= sizeof(n->bridge))
		return err_set(err, EINVAL, "the bridge name %.60s is too long: at most 15 bytes",
			       json_str(options, OPTION_BRIDGE, ""));
	if (*json_str(options, OPTION_BRIDGE, ""))
		(void)snprintf(n->bridge, sizeof(n->bridge), "%s", json_str(options, OPTION_BRIDGE, ""));
	else if (!strcmp(n->name, "bridge"))
		(void)snprintf(n->bridge, sizeof(n->bridge), "wn%.6s-br", n->engine->id);
	else
		(void)snprintf(n->bridge, sizeof(n->bridge), "wn-%.12s", n->id);
	if (parse_ipam(n, fresh, err))
		return -err->code;
	keep_ipam(n);
	return 0;
}

static int network_store(struct engine_network *n, struct err *err)
{
	CLEAN_JSON json_t *state = json_pack("{s:I}", "Created", (json_int_t)n->created_ns);

	return db_put_object(n->engine, "network", n->id, n->name, n->config, state, err);
}

static int name_check(struct engine *e, const char *name, struct err *err)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
	static const char *const predefined[] = { "bridge", "host", "none", "default" };

	if (!*name)
		return err_set(err, EINVAL, "network name cannot be empty");
	if (strlen(name) > 200 || name[strspn(name, allowed)] || strchr("_.-", *name))
		return err_set(err, EINVAL,
			       "invalid network name \"%.100s\": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name);
	for (size_t i = 0; i < ARRAY_LEN(predefined); i++)
		if (!strcmp(name, predefined[i]))
			return err_set(err, EPERM, "operation is not permitted on predefined %s network", name);
	for (struct engine_network *n = e->networks; n; n = n->next)
		if (!strcmp(n->name, name))
			return err_set(err, EEXIST, "network with name %s already exists", name);
	return 0;
}

static void network_add(struct engine_network *n)
{
	struct engine_network **p = &n->engine->networks;

	while (*p)
		p = &(*p)->next;
	*p = n;
}

static void network_event(const struct engine_network *n, const char *action)
{
	events_emit(n->engine, "network", action, n->id,
		    json_pack("{s:s, s:s}", "name", n->name, "type", driver_names[n->driver]));
}

int engine_network_create(struct engine *e, const json_t *body, struct engine_network **out, struct err *err)
{
	CLEAN(cleanup_network) struct engine_network *n = calloc(1, sizeof(*n));
	static const char *const unsupported[] = { "Ingress", "ConfigOnly" };
	const char *driver = json_str(body, "Driver", ""), *scope = json_str(body, "Scope", "");

	if (!n || !(n->name = strdup(json_str(body, "Name", ""))))
		return err_sys(err, ENOMEM, "create a network");
	n->engine = e;
	n->created_ns = engine_now_ns();
	engine_random_id(n->id);
	n->config = json_deep_copy(body);
	if (name_check(e, n->name, err))
		return -err->code;
	if (!strcmp(driver, "host") || !strcmp(driver, "null"))
		return err_set(err, EPERM, "only one instance of \"%s\" network is allowed", driver);
	if (*scope && strcmp(scope, "local"))
		return err_set(err, EINVAL, "network scope %.40s needs a swarm, which Walnut is not part of", scope);
	for (size_t i = 0; i < ARRAY_LEN(unsupported); i++)
		if (json_bool(body, unsupported[i], false))
			return err_set(err, EINVAL, "network field %s is not supported by Walnut", unsupported[i]);
	if (!*driver)
		(void)json_object_set_new(n->config, "Driver", json_string("bridge"));
	if (network_settle(n, true, err) || network_store(n, err))
		return -err->code;
	network_add(n);
	network_event(n, "create");
	*out = take_ptr(n);
	return 0;
}

static int network_load(struct engine *e, const char *id, const char *name, json_t *config, json_t *state)
{
	CLEAN(cleanup_network) struct engine_network *n = calloc(1, sizeof(*n));
	struct err err = ERR_INIT;

	if (!n || !(n->name = strdup(name)))
		return -ENOMEM;
	n->engine = e;
	(void)snprintf(n->id, sizeof(n->id), "%s", id);
	n->config = json_incref(config);
	n->created_ns = json_int(state, "Created", 0);
	if (network_settle(n, false, &err)) {
		log_error("network %s: %s", name, err.msg);
		return 0;
	}
	network_add(take_ptr(n));
	return 0;
}

static int make_fixed(struct engine *e, const char *name, const char *driver, struct err *err)
{
	CLEAN(cleanup_network) struct engine_network *n = calloc(1, sizeof(*n));

	if (!n || !(n->name = strdup(name)))
		return err_sys(err, ENOMEM, "create the network %s", name);
	n->engine = e;
	engine_random_id(n->id);
	n->created_ns = engine_now_ns();
	n->config = json_pack("{s:s, s:s, s:{}, s:{}, s:{s:s, s:{}, s:[]}}", "Name", name, "Driver", driver, "Options",
			      "Labels", "IPAM", "Driver", "default", "Options", "Config");
	if (network_settle(n, true, err) || network_store(n, err))
		return -err->code;
	network_add(take_ptr(n));
	return 0;
}

int engine_networks_open(struct engine *e, struct err *err)
{
	static const char *const fixed[][2] = { { "bridge", "bridge" }, { "host", "host" }, { "none", "null" } };

	if (db_each_object(e, "network", network_load, err))
		return -err->code;
	for (size_t i = 0; i < ARRAY_LEN(fixed); i++) {
		struct err none = ERR_INIT;

		if (!engine_network_find(e, fixed[i][0], &none) && make_fixed(e, fixed[i][0], fixed[i][1], err))
			return err_wrap(err, "make the network %s", fixed[i][0]);
	}
	return 0;
}

const char *engine_network_used(const struct engine_network *n, bool running, const struct engine_container *except)
{
	for (struct engine_container *c = n->engine->containers; c; c = c->next)
		if (c != except && json_object_get(c->endpoints, n->name) &&
		    (!running || container_live(c) || c->starting))
			return c->name;
	return NULL;
}

static int remove_bridge(struct engine_network *n, struct err *err)
{
	CLEAN(netlink_close) struct netlink link = { 0 };

	/* a bridge that the user named may have been there before */
	if (n->driver != NETWORK_BRIDGE ||
	    (!n->made && *json_str(json_object_get(n->config, "Options"), OPTION_BRIDGE, "")))
		return 0;
	return netlink_open(&link, -1, err) ?: netlink_delete(&link, n->bridge, err);
}

static bool bridge_exists(const struct engine_network *n)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/sys/class/net/%s", n->bridge);
	return n->driver == NETWORK_BRIDGE && !access(path, F_OK);
}

/* An engine that ends leaves nothing on the host that no running container needs. */
static void take_down(struct engine *e)
{
	struct err err = ERR_INIT;
	bool any = false, left = false;

	for (struct engine_network *n = e->networks; n; n = n->next) {
		any = any || n->up || bridge_exists(n);
		if (engine_network_used(n, true, NULL)) {
			left = left || n->up;
			continue;
		}
		if (remove_bridge(n, &err))
			log_warn("network %s: %s", n->name, err.msg);
		n->up = false;
	}
	if (any && !left && engine_rules_apply(e, &err))
		log_warn("%s", err.msg);
}

void engine_networks_close(struct engine *e)
{
	take_down(e);
	while (e->networks) {
		struct engine_network *n = e->networks;

		e->networks = n->next;
		network_free(n);
	}
}

int engine_network_remove(struct engine_network *n, struct err *err)
{
	struct engine *e = n->engine;
	const char *user;

	if (engine_network_fixed(n))
		return err_set(err, EPERM, "%s is a pre-defined network and cannot be removed", n->name);
	user = engine_network_used(n, true, NULL);
	if (user)
		return err_set(err, EPERM,
			       "error while removing network: network %s has active endpoints (name:\"%s\")", n->name,
			       user);
	if (remove_bridge(n, err) || db_delete_object(e, n->id, err))
		return -err->code;
	for (struct engine_network **p = &e->networks; *p; p = &(*p)->next) {
		if (*p == n) {
			*p = n->next;
			break;
		}
	}
	network_event(n, "destroy");
	bool had_rules = n->up;

	network_free(n);
	return had_rules ? engine_rules_apply(e, err) : 0;
}

/* A subnet that we chose may have been taken by another program before its bridge was made: choose anew. */
static int keep_clear(struct engine_network *n, struct netlink *link, struct err *err)
{
	struct overlap o = { &n->subnet[NETWORK_V4], false };

	if (!json_bool(n->config, "AutoSubnet", false))
		return 0;
	if (netlink_each_subnet(link, check_overlap, &o, err))
		return -err->code;
	if (!o.found)
		return 0;
	n->subnet[NETWORK_V4] = n->gateway[NETWORK_V4] = (struct net_address){ 0 };
	if (choose_subnet(n, err))
		return -err->code;
	(void)net_subnet_at(&n->subnet[NETWORK_V4], 1, &n->gateway[NETWORK_V4]);
	keep_ipam(n);
	return network_store(n, err);
}

int engine_network_up(struct engine_network *n, struct err *err)
{
	CLEAN(netlink_close) struct netlink link = { 0 };
	struct err absent = ERR_INIT;
	char path[80];
	int index;

	if (n->up || n->driver != NETWORK_BRIDGE)
		return 0;
	if (netlink_open(&link, -1, err))
		return -err->code;
	index = netlink_index(&link, n->bridge, &absent);
	if (index < 0) {
		if (keep_clear(n, &link, err) || netlink_add_bridge(&link, n->bridge, NULL, n->mtu, err))
			return -err->code;
		n->made = true;
	}
	index = netlink_index(&link, n->bridge, err);
	if (index < 0 || netlink_change(&link, n->bridge, &(struct netlink_change){ .up = true }, err))
		return -err->code;
	for (int f = 0; f < NETWORK_FAMILIES; f++)
		if (n->gateway[f].family && netlink_add_address(&link, index, &n->gateway[f], err))
			return err_wrap(err, "network %s", n->name);
	/* published ports are reachable from the host's own 127.0.0.1 (ip-sysctl.rst: route_localnet) */
	(void)snprintf(path, sizeof(path), "net/ipv4/conf/%s/route_localnet", n->bridge);
	if (netns_write_sysctl(-1, path, "1", err) ||
	    (!n->internal && netns_write_sysctl(-1, "net/ipv4/ip_forward", "1", err)) ||
	    (n->subnet[NETWORK_V6].family && !n->internal &&
	     netns_write_sysctl(-1, "net/ipv6/conf/all/forwarding", "1", err)))
		return -err->code;
	n->up = true;
	return engine_rules_apply(n->engine, err);
}

/* ---- what users see ---- */

static json_t *inspect_containers(const struct engine_network *n)
{
	json_t *all = json_object();

	for (struct engine_container *c = n->engine->containers; c; c = c->next) {
		const json_t *s = json_object_get(c->endpoints, n->name);
		const char *v4 = json_str(s, "IPAddress", ""), *v6 = json_str(s, "GlobalIPv6Address", "");

		if (!s || !container_live(c))
			continue;
		json_t *one = json_pack("{s:s, s:s, s:s}", "Name", c->name, "EndpointID", json_str(s, "EndpointID", ""),
					"MacAddress", json_str(s, "MacAddress", ""));

		(void)json_object_set_new(one, "IPv4Address",
					  *v4 ? json_sprintf("%s/%d", v4, (int)json_int(s, "IPPrefixLen", 0))
					      : json_string(""));
		(void)json_object_set_new(one, "IPv6Address",
					  *v6 ? json_sprintf("%s/%d", v6, (int)json_int(s, "GlobalIPv6PrefixLen", 0))
					      : json_string(""));
		(void)json_object_set_new(all, c->id, one);
	}
	return all;
}

static json_t *object_or_empty(const json_t *v)
{
	return json_is_object(v) ? json_incref((json_t *)v) : json_object();
}

json_t *engine_network_inspect(const struct engine_network *n, bool containers)
{
	char created[40];
	json_t *j = json_pack(
		"{s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:O, s:b, s:b, s:b, s:{s:s}, s:b, s:o, s:o, s:o}", "Name", n->name,
		"Id", n->id, "Created", engine_time_text(n->created_ns, created), "Scope", "local", "Driver",
		driver_names[n->driver], "EnableIPv4", n->subnet[NETWORK_V4].family != 0 || n->driver != NETWORK_BRIDGE,
		"EnableIPv6", n->subnet[NETWORK_V6].family != 0, "IPAM", json_object_get(n->config, "IPAM"), "Internal",
		n->internal, "Attachable", json_bool(n->config, "Attachable", false), "Ingress", 0, "ConfigFrom",
		"Network", "", "ConfigOnly", 0, "Containers", containers ? inspect_containers(n) : json_object(),
		"Options", object_or_empty(json_object_get(n->config, "Options")), "Labels",
		object_or_empty(json_object_get(n->config, "Labels")));

	return j;
}

/* "name" and "id" match parts, as Docker's. */
static bool part_match(const json_t *filters, const char *key, const char *value)
{
	const json_t *wanted = json_object_get(filters, key);
	size_t i;
	json_t *v;

	json_array_foreach((json_t *)wanted, i, v)
		if (strstr(value, json_string_value(v) ?: ""))
			return true;
	return !wanted;
}

static bool network_matches(const struct engine_network *n, const json_t *filters)
{
	bool dangling = !engine_network_fixed(n) && !engine_network_used(n, false, NULL);

	return part_match(filters, "name", n->name) && part_match(filters, "id", n->id) &&
	       filters_match(filters, "driver", driver_names[n->driver]) && filters_match(filters, "scope", "local") &&
	       filters_match(filters, "type", engine_network_fixed(n) ? "builtin" : "custom") &&
	       (!json_object_get(filters, "dangling") ||
		filters_match(filters, "dangling", dangling ? "true" : "false") ||
		filters_match(filters, "dangling", dangling ? "1" : "0")) &&
	       filters_match_labels(filters, json_object_get(n->config, "Labels"));
}

json_t *engine_network_list(struct engine *e, const char *text, struct err *err)
{
	static const char *const keys[] = { "name", "id", "driver", "scope", "type", "label", "dangling", NULL };
	CLEAN_JSON json_t *filters = filters_parse(text, err);

	if (!filters || filters_known(filters, keys, err))
		return NULL;
	json_t *list = json_array();

	for (struct engine_network *n = e->networks; n; n = n->next)
		if (network_matches(n, filters))
			(void)json_array_append_new(list, engine_network_inspect(n, false));
	return list;
}

json_t *engine_networks_prune(struct engine *e, const char *text, struct err *err)
{
	static const char *const keys[] = { "until", "label", "label!", NULL };
	CLEAN_JSON json_t *filters = filters_parse(text, err);
	const char *until;
	int64_t before = INT64_MAX;

	if (!filters || filters_known(filters, keys, err))
		return NULL;
	until = json_string_value(json_array_get(json_object_get(filters, "until"), 0));
	if (until && engine_parse_time(until, &before)) {
		(void)err_set(err, EINVAL, "filter until=%.60s is no time", until);
		return NULL;
	}
	json_t *names = json_array();

	for (struct engine_network *n = e->networks, *next; n; n = next) {
		next = n->next;
		if (engine_network_fixed(n) || engine_network_used(n, false, NULL) || n->created_ns >= before ||
		    !filters_match_labels(filters, json_object_get(n->config, "Labels")))
			continue;
		(void)json_array_append_new(names, json_string(n->name));
		if (engine_network_remove(n, err)) {
			json_decref(names);
			return NULL;
		}
	}
	return names;
}
