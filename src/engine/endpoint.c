/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What connects a container to a network: addresses, and for a running one a veth pair whose inner end is in the
 * container's namespace. The engine makes that namespace before the container and passes its descriptor to the shim:
 * there is no file of it, so it goes with its last process, and takes the pairs with it.
 *
 * The order of settings in one endpoint is Docker's (moby, api/types/network/endpoint.go); "WantMac" and "Interface" are ours.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container_internal.h"
#include "engine/network.h"
#include "net/netns.h"

static const char *const address_keys[NETWORK_FAMILIES] = { "IPAddress", "GlobalIPv6Address" };
static const char *const prefix_keys[NETWORK_FAMILIES] = { "IPPrefixLen", "GlobalIPv6PrefixLen" };
static const char *const gateway_keys[NETWORK_FAMILIES] = { "Gateway", "IPv6Gateway" };
static const char *const wanted_keys[NETWORK_FAMILIES] = { "IPv4Address", "IPv6Address" };

static const char *network_mode(const struct engine_container *c)
{
	return json_str(c->host_config, "NetworkMode", "bridge");
}

/* The network of an endpoint, by its key; NULL when it was removed meanwhile. */
static struct engine_network *network_of(const struct engine_container *c, const char *name)
{
	for (struct engine_network *n = c->engine->networks; n; n = n->next)
		if (!strcmp(n->name, name))
			return n;
	return NULL;
}

static void endpoint_event(const struct engine_container *c, const struct engine_network *n, const char *action)
{
	events_emit(c->engine, "network", action, n->id,
		    json_pack("{s:s, s:s, s:s}", "container", c->id, "name", n->name, "type",
			      json_str(n->config, "Driver", "bridge")));
}

bool endpoints_own_network(const struct engine_container *c)
{
	const char *name;
	json_t *s;

	return false; /* until devices in containers work */
	json_object_foreach(c->endpoints, name, s) {
		const struct engine_network *n = network_of(c, name);

		if (!n || n->driver == NETWORK_BRIDGE)
			return true;
	}
	return false;
}

bool endpoints_user_network(const struct engine_container *c)
{
	const char *name;
	json_t *s;

	json_object_foreach(c->endpoints, name, s)
		if (strcmp(name, "bridge") && strcmp(name, "host") && strcmp(name, "none"))
			return true;
	return false;
}

/* ---- what a request may ask ---- */

/* What a setting must be, and Docker's words for what only users' networks have. @n NULL: not known yet. */
static int endpoint_check(const struct engine_network *n, const json_t *given, struct err *err)
{
	static const char *const unsupported[] = { "Links", "DriverOpts" };
	const json_t *ipam = json_object_get(given, "IPAMConfig");
	const char *mac = json_str(given, "MacAddress", "");
	bool user = !n || !engine_network_fixed(n);
	struct net_mac parsed;

	if (given && !json_is_object(given) && !json_is_null(given))
		return err_set(err, EINVAL, "the settings of an endpoint have the wrong JSON type");
	for (size_t i = 0; i < ARRAY_LEN(unsupported); i++)
		if (json_nonempty(json_object_get(given, unsupported[i])))
			return err_set(err, ENOSYS,
				       "NetworkingConfig.EndpointsConfig.%s is not supported by this version of Walnut",
				       unsupported[i]);
	if (*mac && net_mac_parse(mac, &parsed))
		return err_set(err, EINVAL, "invalid MAC address: %.40s", mac);
	if (json_nonempty(json_object_get(ipam, "LinkLocalIPs")))
		return err_set(err, ENOSYS, "IPAMConfig.LinkLocalIPs is not supported by this version of Walnut");
	if (json_array_size(json_object_get(given, "Aliases")) && !user)
		return err_set(err, EINVAL, "network-scoped aliases are only supported for user-defined networks");
	for (int f = 0; f < NETWORK_FAMILIES; f++) {
		const char *text = json_str(ipam, wanted_keys[f], "");
		struct net_address a;

		if (!*text)
			continue;
		if (net_address_parse(text, &a) || strchr(text, '/') || a.family != (f ? AF_INET6 : AF_INET))
			return err_set(err, EINVAL, "invalid IPv%d address: %.60s", f ? 6 : 4, text);
		if (!user)
			return err_set(err, EINVAL,
				       "user specified IP address is supported on user defined networks only");
		if (n && (!n->subnet[f].family || json_bool(n->config, "AutoSubnet", false)))
			return err_set(err, EINVAL,
				       "user specified IP address is supported only when connecting to networks with "
				       "user configured subnets");
	}
	return 0;
}

static int endpoint_add(struct engine_container *c, const char *name, const json_t *given, struct err *err)
{
	struct err unknown = ERR_INIT;
	const struct engine_network *n = engine_network_find(c->engine, name, &unknown);
	json_t *s = json_object(), *v;
	static const char *const kept[] = { "IPAMConfig", "Links", "Aliases", "DriverOpts", "GwPriority" };

	if (!s || endpoint_check(n, given, err)) {
		json_decref(s);
		return err->code ? -err->code : err_sys(err, ENOMEM, "connect to the network %.60s", name);
	}
	for (size_t i = 0; i < ARRAY_LEN(kept); i++)
		if ((v = json_object_get(given, kept[i])) && (json_nonempty(v) || json_is_object(v)))
			(void)json_object_set_new(s, kept[i], json_deep_copy(v));
	if (*json_str(given, "MacAddress", ""))
		(void)json_object_set(s, "WantMac", json_object_get(given, "MacAddress"));
	(void)json_object_set_new(c->endpoints, n ? n->name : name, s);
	return 0;
}

/* The devices of containers are not there yet, in either isolation: nothing may look as if it were connected. */
static int check_built(const struct engine_container *c, struct err *err)
{
	const json_t *host = c->host_config;
	const char *name;
	json_t *s;

	json_object_foreach(c->endpoints, name, s)
		if (strcmp(name, "bridge") && strcmp(name, "host") && strcmp(name, "none"))
			return err_set(
				err, ENOSYS,
				"network %.100s: networks of one's own are not supported by this version of Walnut",
				name);
	if (json_nonempty(json_object_get(host, "PortBindings")) || json_bool(host, "PublishAllPorts", false))
		return err_set(err, ENOSYS,
			       "HostConfig.PortBindings: published ports are not supported by this version of Walnut");
	return 0;
}

static int check_mix(const struct engine_container *c, struct err *err)
{
	const char *mode = network_mode(c);
	bool shared = !strncmp(mode, "container:", 10);

	if ((shared && json_object_size(c->endpoints)) ||
	    (json_object_get(c->endpoints, "host") && (json_object_size(c->endpoints) > 1 || strcmp(mode, "host"))))
		return err_set(err, EINVAL,
			       "conflicting options: container sharing network namespace with another container or "
			       "host cannot be connected to any other network");
	if (json_object_get(c->endpoints, "none") && json_object_size(c->endpoints) > 1)
		return err_set(err, EINVAL,
			       "container cannot be connected to multiple networks with one of the networks in private "
			       "(none) mode");
	if (shared && (json_nonempty(json_object_get(c->host_config, "PortBindings")) ||
		       json_bool(c->host_config, "PublishAllPorts", false)))
		return err_set(err, EINVAL, "conflicting options: port publishing and the container type network mode");
	return check_built(c, err);
}

int endpoints_create(struct engine_container *c, const json_t *networking, struct err *err)
{
	const json_t *given = json_object_get(networking, "EndpointsConfig");
	const char *mode = network_mode(c), *name, *mac = json_str(c->config, "MacAddress", "");
	bool shared = !strncmp(mode, "container:", 10);
	bool fixed = !strcmp(mode, "bridge") || !strcmp(mode, "host") || !strcmp(mode, "none");
	struct err unknown = ERR_INIT;
	const struct engine_network *n = shared ? NULL : engine_network_find(c->engine, mode, &unknown);
	json_t *v;

	c->endpoints = json_object();
	json_object_foreach((json_t *)given, name, v)
		if (endpoint_add(c, name, v, err))
			return -err->code;
	if (!shared &&
	    (!json_object_size(c->endpoints) || (!fixed && !json_object_get(c->endpoints, n ? n->name : mode))) &&
	    endpoint_add(c, mode, NULL, err))
		return -err->code;
	if (*mac && (v = json_object_get(c->endpoints, n ? n->name : mode))) {
		struct net_mac parsed;

		if (net_mac_parse(mac, &parsed))
			return err_set(err, EINVAL, "invalid MAC address: %.40s", mac);
		(void)json_object_set_new(v, "WantMac", json_string(mac));
	}
	return check_mix(c, err);
}

/* ---- addresses ---- */

struct taken {
	const struct engine_network *network;
};

static bool address_taken(const struct net_address *a, void *arg)
{
	const struct engine_network *n = ((struct taken *)arg)->network;
	int f = a->family == AF_INET6 ? NETWORK_V6 : NETWORK_V4;
	char text[NET_ADDRESS_TEXT];

	if (net_address_equal(a, &n->gateway[f]))
		return true;
	(void)net_address_text(a, text);
	for (const struct engine_container *c = n->engine->containers; c; c = c->next)
		if (!strcmp(json_str(json_object_get(c->endpoints, n->name), address_keys[f], ""), text))
			return true;
	return false;
}

static int choose_address(struct engine_network *n, const json_t *s, int f, struct net_address *out, struct err *err)
{
	const char *wanted = json_str(json_object_get(s, "IPAMConfig"), wanted_keys[f], "");
	struct taken taken = { n };
	char text[NET_ADDRESS_TEXT];

	if (*wanted) {
		if (net_address_parse(wanted, out) || !net_subnet_has(&n->subnet[f], out))
			return err_set(err, EINVAL, "invalid address %.60s: it is not in the subnet %s of network %s",
				       wanted, net_address_cidr(&n->subnet[f], text), n->name);
		out->prefix = n->subnet[f].prefix;
		return address_taken(out, &taken) ? err_set(err, EPERM, "Address already in use: %.60s", wanted) : 0;
	}
	if (net_pick_address(&n->subnet[f], &n->range[f], address_taken, &taken, &n->next_address[f], out))
		return err_set(err, EIO, "no available IPv%d addresses on this network's address pools: %s (%s)",
			       f ? 6 : 4, n->name, n->id);
	return 0;
}

static const char *const run_keys[] = { "NetworkID",   "EndpointID", "MacAddress",        "IPAddress",
					"IPPrefixLen", "Gateway",    "GlobalIPv6Address", "GlobalIPv6PrefixLen",
					"IPv6Gateway", "Interface" };

static void endpoint_release(json_t *s)
{
	for (size_t i = 0; i < ARRAY_LEN(run_keys); i++)
		(void)json_object_del(s, run_keys[i]);
}

/* The lowest number of an ethN that the container does not have. */
static int free_interface(const struct engine_container *c)
{
	for (int i = 0;; i++) {
		bool used = false;
		const char *name;
		json_t *s;

		json_object_foreach(c->endpoints, name, s)
			used = used || json_int(s, "Interface", -1) == i;
		if (!used)
			return i;
	}
}

static int endpoint_allocate(struct engine_container *c, struct engine_network *n, json_t *s, struct err *err)
{
	char id[65], text[NET_ADDRESS_TEXT], mac_text[18];
	struct net_mac mac = { 0 };

	for (int f = 0; f < NETWORK_FAMILIES; f++) {
		struct net_address a;

		if (!n->subnet[f].family)
			continue;
		if (choose_address(n, s, f, &a, err))
			return -err->code;
		if (f == NETWORK_V4 || !n->subnet[NETWORK_V4].family)
			mac = net_mac_of(&a);
		(void)json_object_set_new(s, address_keys[f], json_string(net_address_text(&a, text)));
		(void)json_object_set_new(s, prefix_keys[f], json_integer(a.prefix));
		if (!n->internal)
			(void)json_object_set_new(s, gateway_keys[f],
						  json_string(net_address_text(&n->gateway[f], text)));
	}
	engine_random_id(id);
	(void)json_object_set_new(s, "NetworkID", json_string(n->id));
	(void)json_object_set_new(s, "EndpointID", json_string(id));
	if (n->driver == NETWORK_BRIDGE) {
		const char *wanted = json_str(s, "WantMac", NULL);

		(void)json_object_set_new(s, "MacAddress", json_string(wanted ?: net_mac_text(&mac, mac_text)));
		(void)json_object_set_new(s, "Interface", json_integer(free_interface(c)));
	}
	return 0;
}

int endpoints_prepare(struct engine_container *c, struct err *err)
{
	const char *name;
	json_t *s;

	json_object_foreach(c->endpoints, name, s) {
		struct engine_network *n = engine_network_find(c->engine, name, err);

		endpoint_release(s);
		if (!n)
			return -err->code;
		if (true)
			continue; /* only the default networks got here; there is no device for them yet */
		if (endpoint_check(n, s, err) || engine_network_up(n, err) || endpoint_allocate(c, n, s, err))
			return -err->code;
	}
	return publish_open(c, err);
}

/* Through which endpoint the container reaches the world: by priority, then by name (moby, libnetwork/endpoint.go, Less). */
static json_t *endpoint_outward(const struct engine_container *c)
{
	json_t *best = NULL, *s;
	const char *name, *best_name = "";

	json_object_foreach(c->endpoints, name, s) {
		int64_t more = json_int(s, "GwPriority", 0) - json_int(best, "GwPriority", 0);

		if (!*json_str(s, "Gateway", "") && !*json_str(s, "IPv6Gateway", ""))
			continue;
		if (best && (more < 0 || (!more && strcmp(name, best_name) > 0)))
			continue;
		best = s;
		best_name = name;
	}
	return best;
}

bool endpoints_address(const struct engine_container *c, int family, struct net_address *out)
{
	const json_t *s = endpoint_outward(c);
	const char *text = json_str(s, address_keys[family == AF_INET6 ? NETWORK_V6 : NETWORK_V4], "");

	return *text && !net_address_parse(text, out);
}

const char *endpoints_host_gateway(struct engine *e, char *out)
{
	struct err ignored = ERR_INIT;
	const struct engine_network *n = engine_network_find(e, "bridge", &ignored);

	*out = 0;
	return n && n->gateway[NETWORK_V4].family ? net_address_text(&n->gateway[NETWORK_V4], out) : out;
}

/* ---- the kernel's side ---- */

static void host_name(const json_t *s, char out[IFNAMSIZ])
{
	(void)snprintf(out, IFNAMSIZ, "veth%.11s", json_str(s, "EndpointID", ""));
}

static int inner_end(struct netlink *inside, const json_t *s, const char *inner, struct err *err)
{
	int index = netlink_index(inside, inner, err);

	if (index < 0 || netlink_change(inside, inner, &(struct netlink_change){ .up = true }, err))
		return -err->code;
	for (int f = 0; f < NETWORK_FAMILIES; f++) {
		const char *text = json_str(s, address_keys[f], "");
		struct net_address a;

		if (!*text || net_address_parse(text, &a))
			continue;
		a.prefix = (unsigned int)json_int(s, prefix_keys[f], a.prefix);
		if (netlink_add_address(inside, index, &a, err))
			return -err->code;
	}
	return 0;
}

static int endpoint_attach(struct engine_network *n, const json_t *s, int netns, struct netlink *inside,
			   struct err *err)
{
	CLEAN(netlink_close) struct netlink host = { 0 };
	struct net_mac mac;
	char outer[IFNAMSIZ], inner[IFNAMSIZ];
	int bridge;

	host_name(s, outer);
	(void)snprintf(inner, sizeof(inner), "eth%d", (int)json_int(s, "Interface", 0));
	if (net_mac_parse(json_str(s, "MacAddress", ""), &mac))
		return err_set(err, EINVAL, "invalid MAC address: %.40s", json_str(s, "MacAddress", ""));
	if (netlink_open(&host, -1, err) || (bridge = netlink_index(&host, n->bridge, err)) < 0 ||
	    netlink_add_veth(&host, outer, inner, netns, &mac, n->mtu, err))
		return err_wrap(err, "network %s", n->name);
	struct netlink_change up = { .master = bridge, .up = true, .isolated = !n->icc };

	if (netlink_change(&host, outer, &up, err) || inner_end(inside, s, inner, err)) {
		struct err ignored = ERR_INIT;

		if (netlink_delete(&host, outer, &ignored))
			log_warn("%s", ignored.msg);
		return err_wrap(err, "network %s", n->name);
	}
	return 0;
}

/* One default route of each family, through the outward endpoint. */
static int set_routes(struct engine_container *c, struct netlink *inside, struct err *err)
{
	const json_t *out = endpoint_outward(c);
	const char *name;
	json_t *s;

	json_object_foreach(c->endpoints, name, s) {
		char inner[IFNAMSIZ];

		if (json_int(s, "Interface", -1) < 0)
			continue;
		(void)snprintf(inner, sizeof(inner), "eth%d", (int)json_int(s, "Interface", 0));
		int index = netlink_index(inside, inner, err);

		if (index < 0)
			return -err->code;
		for (int f = 0; f < NETWORK_FAMILIES; f++) {
			const char *text = json_str(s, gateway_keys[f], "");
			struct net_address gateway;

			if (!*text || net_address_parse(text, &gateway))
				continue;
			if (s == out ? netlink_add_default_route(inside, index, &gateway, 0, err)
				     : netlink_delete_default_route(inside, index, gateway.family, err))
				return -err->code;
		}
	}
	return 0;
}

int endpoints_open(struct engine_container *c, int *netns, struct err *err)
{
	CLEAN_FD int fd = -1;
	CLEAN(netlink_close) struct netlink inside = { 0 };
	const char *name;
	json_t *s;

	*netns = -1;
	if (!endpoints_own_network(c))
		return 0;
	fd = netns_new(err);
	if (fd < 0 || netlink_open(&inside, fd, err) ||
	    netlink_change(&inside, "lo", &(struct netlink_change){ .up = true }, err))
		return -err->code;
	json_object_foreach(c->endpoints, name, s) {
		struct engine_network *n = network_of(c, name);

		if (n && n->driver == NETWORK_BRIDGE && endpoint_attach(n, s, fd, &inside, err))
			return -err->code;
	}
	if (set_routes(c, &inside, err))
		return -err->code;
	*netns = take_fd(&fd);
	return 0;
}

void endpoints_started(struct engine_container *c)
{
	const char *name;
	json_t *s;

	json_object_foreach(c->endpoints, name, s) {
		const struct engine_network *n = network_of(c, name);

		if (n && *json_str(s, "EndpointID", ""))
			endpoint_event(c, n, "connect");
	}
}

/* Does another running container live in this one's namespace? Then the pairs do not go with this one's processes. */
static bool namespace_shared(const struct engine_container *c)
{
	struct err ignored = ERR_INIT;

	for (const struct engine_container *other = c->engine->containers; other; other = other->next) {
		const char *mode = network_mode(other);

		if (other != c && container_live(other) && !strncmp(mode, "container:", 10) &&
		    engine_container_find(c->engine, mode + 10, &ignored) == c)
			return true;
	}
	return false;
}

static void delete_pair(const json_t *s)
{
	CLEAN(netlink_close) struct netlink host = { 0 };
	struct err err = ERR_INIT;
	char outer[IFNAMSIZ];

	host_name(s, outer);
	if (netlink_open(&host, -1, &err) || netlink_delete(&host, outer, &err))
		log_warn("%s", err.msg);
}

void endpoints_close(struct engine_container *c)
{
	bool shared = namespace_shared(c);
	const char *name;
	json_t *s;

	publish_close(c);
	json_object_foreach(c->endpoints, name, s) {
		const struct engine_network *n = network_of(c, name);

		if (!*json_str(s, "EndpointID", ""))
			continue;
		if (shared && json_int(s, "Interface", -1) >= 0)
			delete_pair(s);
		if (n && c->state != ENGINE_CREATED)
			endpoint_event(c, n, "disconnect");
		endpoint_release(s);
	}
}

/* ---- of running containers ---- */

/* The container's own line in its /etc/hosts, which is mounted: the file is changed in place. */
static void hosts_change(const struct engine_container *c, const json_t *s, bool add)
{
	CLEAN_BUF struct buf out = BUF_INIT;
	char path[PATH_MAX], *save = NULL;
	struct err err = ERR_INIT;
	int rc = 0;

	(void)snprintf(path, sizeof(path), "%s/hosts", c->data_dir);
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, path, 1 << 20, NULL, &err);

	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line && !rc; line = strtok_r(NULL, "\n", &save)) {
		size_t n = strcspn(line, "\t ");
		bool own = false;

		for (int f = 0; f < NETWORK_FAMILIES; f++) {
			const char *a = json_str(s, address_keys[f], "");

			own = own || (*a && strlen(a) == n && !strncmp(a, line, n));
		}
		if (!own)
			rc = buf_printf(&out, "%s\n", line);
	}
	for (int f = 0; add && f < NETWORK_FAMILIES && !rc; f++)
		if (*json_str(s, address_keys[f], ""))
			rc = buf_printf(&out, "%s\t%s\n", json_str(s, address_keys[f], ""),
					json_str(c->config, "Hostname", ""));
	if (!text || rc || fd_write_file(AT_FDCWD, path, O_WRONLY | O_TRUNC, buf_bytes(&out), out.len, &err))
		log_warn("container %.12s: /etc/hosts is not up to date: %s", c->id, err.msg);
}

static int open_namespace(const struct engine_container *c, struct err *err)
{
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)c->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? err_sys(err, errno, "open the network namespace of container %s", c->name) : fd;
}

static int connect_running(struct engine_container *c, struct engine_network *n, json_t *s, struct err *err)
{
	CLEAN_FD int fd = open_namespace(c, err);
	CLEAN(netlink_close) struct netlink inside = { 0 };

	if (fd < 0 || engine_network_up(n, err) || endpoint_allocate(c, n, s, err) || netlink_open(&inside, fd, err) ||
	    endpoint_attach(n, s, fd, &inside, err))
		return -err->code;
	if (set_routes(c, &inside, err)) {
		delete_pair(s);
		return -err->code;
	}
	hosts_change(c, s, true);
	endpoint_event(c, n, "connect");
	return publish_retarget(c, err);
}

static int check_connect(const struct engine_container *c, const struct engine_network *n, struct err *err)
{
	const char *mode = network_mode(c);

	if (c->removing || c->state == ENGINE_DEAD)
		return err_set(err, EPERM,
			       "container %s is marked for removal and cannot be connected or disconnected "
			       "to the network",
			       c->id);
	if (!strncmp(mode, "container:", 10) || json_object_get(c->endpoints, "host"))
		return err_set(err, EPERM,
			       "container sharing network namespace with another container or host cannot be connected "
			       "to any other network");
	if (n->driver == NETWORK_HOST)
		return err_set(err, EPERM,
			       "container cannot be disconnected from host network or connected to host network");
	if (true)
		return err_set(err, ENOSYS, "connect and disconnect are not supported by this version of Walnut");
	return 0;
}

int endpoints_connect(struct engine_container *c, struct engine_network *n, const json_t *settings, struct err *err)
{
	if (check_connect(c, n, err))
		return -err->code;
	if (json_object_get(c->endpoints, n->name))
		return err_set(err, EPERM, "endpoint with name %s already exists in network %s", c->name, n->name);
	if (json_object_size(c->endpoints) && (n->driver == NETWORK_NULL || json_object_get(c->endpoints, "none")))
		return err_set(err, EPERM,
			       "container cannot be connected to multiple networks with one of the networks in private "
			       "(none) mode");
	if (endpoint_add(c, n->name, settings, err))
		return -err->code;
	if (container_live(c) && connect_running(c, n, json_object_get(c->endpoints, n->name), err)) {
		(void)json_object_del(c->endpoints, n->name);
		return -err->code;
	}
	engine_container_save(c);
	return 0;
}

int endpoints_disconnect(struct engine_container *c, struct engine_network *n, bool force, struct err *err)
{
	json_t *s = json_object_get(c->endpoints, n->name);

	if (!s)
		return err_set(err, EPERM, "container %s is not connected to network %s", c->id, n->name);
	if (n->driver == NETWORK_HOST)
		return err_set(err, EPERM,
			       "container cannot be disconnected from host network or connected to host network");
	if (check_connect(c, n, err))
		return -err->code;
	CLEAN_JSON json_t *gone = json_incref(s);

	(void)json_object_del(c->endpoints, n->name);
	if (container_live(c)) {
		CLEAN(netlink_close) struct netlink inside = { 0 };
		CLEAN_FD int fd = open_namespace(c, err);

		if (json_int(gone, "Interface", -1) >= 0)
			delete_pair(gone);
		hosts_change(c, gone, false);
		endpoint_event(c, n, "disconnect");
		engine_container_save(c);
		if (fd < 0 || netlink_open(&inside, fd, err) || set_routes(c, &inside, err))
			return -err->code;
		return publish_retarget(c, err);
	}
	engine_container_save(c);
	return 0;
}

int endpoints_adopt(struct engine_container *c, struct err *err)
{
	const char *name;
	json_t *s;

	json_object_foreach(c->endpoints, name, s) {
		struct engine_network *n = network_of(c, name);

		if (!container_live(c))
			endpoint_release(s);
		else if (n && *json_str(s, "EndpointID", "") && engine_network_up(n, err))
			return -err->code;
	}
	return 0;
}

/* ---- what users see ---- */

static json_t *dns_names(const struct engine_container *c, const json_t *s)
{
	json_t *names = json_pack("[s]", c->name), *v;
	char short_id[13];
	size_t i;

	(void)snprintf(short_id, sizeof(short_id), "%.12s", c->id);
	json_array_foreach(json_object_get(s, "Aliases"), i, v)
		(void)json_array_append(names, v);
	(void)json_array_append_new(names, json_string(short_id));
	if (strcmp(json_str(c->config, "Hostname", ""), short_id) != 0 && *json_str(c->config, "Hostname", ""))
		(void)json_array_append(names, json_object_get(c->config, "Hostname"));
	return names;
}

static json_t *or_null(const json_t *s, const char *key)
{
	return json_incref(json_object_get(s, key) ?: json_null());
}

static json_t *inspect_one(const struct engine_container *c, const char *name, const json_t *s)
{
	const struct engine_network *n = network_of(c, name);
	bool user = !n || !engine_network_fixed(n);
	const char *mac = json_str(s, "MacAddress", json_str(s, "WantMac", ""));

	return json_pack("{s:o, s:o, s:o, s:s, s:o, s:I, s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:I, s:o}", "IPAMConfig",
			 or_null(s, "IPAMConfig"), "Links", or_null(s, "Links"), "Aliases", or_null(s, "Aliases"),
			 "MacAddress", mac, "DriverOpts", or_null(s, "DriverOpts"), "GwPriority",
			 (json_int_t)json_int(s, "GwPriority", 0), "NetworkID", json_str(s, "NetworkID", ""),
			 "EndpointID", json_str(s, "EndpointID", ""), "Gateway", json_str(s, "Gateway", ""),
			 "IPAddress", json_str(s, "IPAddress", ""), "IPPrefixLen",
			 (json_int_t)json_int(s, "IPPrefixLen", 0), "IPv6Gateway", json_str(s, "IPv6Gateway", ""),
			 "GlobalIPv6Address", json_str(s, "GlobalIPv6Address", ""), "GlobalIPv6PrefixLen",
			 (json_int_t)json_int(s, "GlobalIPv6PrefixLen", 0), "DNSNames",
			 user && *json_str(s, "EndpointID", "") ? dns_names(c, s) : json_null());
}

json_t *endpoints_inspect(const struct engine_container *c)
{
	static const char *const top[] = { "EndpointID", "Gateway",     "GlobalIPv6Address", "GlobalIPv6PrefixLen",
					   "IPAddress",  "IPPrefixLen", "IPv6Gateway",       "MacAddress" };
	CLEAN_JSON json_t *empty = json_object();
	CLEAN_JSON json_t *bridge = inspect_one(c, "bridge", json_object_get(c->endpoints, "bridge") ?: empty);
	json_t *networks = json_object(), *s, *j;
	const char *name;
	char key[64] = "";

	if (container_live(c) && c->isolation == ENGINE_ISOLATION_PROCESS)
		(void)snprintf(key, sizeof(key), "/proc/%d/ns/net", (int)c->pid);
	j = json_pack("{s:s, s:s, s:s, s:o, s:b, s:s, s:i, s:n, s:n}", "Bridge", "", "SandboxID", *key ? c->id : "",
		      "SandboxKey", key, "Ports", publish_inspect(c), "HairpinMode", 0, "LinkLocalIPv6Address", "",
		      "LinkLocalIPv6PrefixLen", 0, "SecondaryIPAddresses", "SecondaryIPv6Addresses");
	for (size_t i = 0; i < ARRAY_LEN(top); i++)
		(void)json_object_set(j, top[i], json_object_get(bridge, top[i]));
	json_object_foreach(c->endpoints, name, s)
		(void)json_object_set_new(networks, name, inspect_one(c, name, s));
	(void)json_object_set_new(j, "Networks", networks);
	return j;
}
