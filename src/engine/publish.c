/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Published ports. Packets are led to the container by the host's packet rules; a socket that is bound and never listens
 * keeps the port from other programs of the host, and tells of a conflict.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "engine/container_internal.h"
#include "engine/network.h"

#define PORTS_MAX 4096 /* of one container */

static const struct {
	const char *name;
	int protocol, type;
} protocols[] = { { "tcp", IPPROTO_TCP, SOCK_STREAM },
		  { "udp", IPPROTO_UDP, SOCK_DGRAM },
		  { "sctp", IPPROTO_SCTP, SOCK_STREAM } };

static const char *protocol_name(int protocol)
{
	for (size_t i = 0; i < ARRAY_LEN(protocols); i++)
		if (protocols[i].protocol == protocol)
			return protocols[i].name;
	return "tcp";
}

static bool parse_number(const char *text, char **end, uint16_t *out)
{
	unsigned long n = *text >= '0' && *text <= '9' ? strtoul(text, end, 10) : 65536;

	*out = (uint16_t)n;
	return n < 65536;
}

/* "80", "80/tcp": a container's port. */
static int parse_key(const char *key, uint16_t *port, int *protocol, struct err *err)
{
	char *end;

	if (!parse_number(key, &end, port) || !*port || (*end && *end != '/'))
		return err_set(err, EINVAL, "invalid port specification: \"%.60s\"", key);
	for (size_t i = 0; i < ARRAY_LEN(protocols); i++) {
		if (*end && strcasecmp(end + 1, protocols[i].name) != 0)
			continue;
		*protocol = protocols[i].protocol;
		return 0;
	}
	return err_set(err, EINVAL, "invalid proto: %.20s", end + 1);
}

/* "", "0", "8080", "8080-8090": where on the host. 0 to 0: any. */
static int parse_range(const char *text, uint16_t *first, uint16_t *last, struct err *err)
{
	char *end;

	*first = *last = 0;
	if (!*text)
		return 0;
	if (!parse_number(text, &end, first))
		return err_set(err, EINVAL, "invalid port number: '%.40s'", text);
	*last = *first;
	if (*end == '-' && !parse_number(end + 1, &end, last))
		return err_set(err, EINVAL, "invalid port number: '%.40s'", text);
	return *end || *last < *first ? err_set(err, EINVAL, "invalid port number: '%.40s'", text) : 0;
}

static int parse_host(const char *text, struct net_address *out, struct err *err)
{
	if (net_address_parse(*text ? text : "0.0.0.0", out) || strchr(text, '/'))
		return err_set(err, EINVAL, "invalid IP address: %.60s", text);
	return 0;
}

static int check_binding(const char *key, const json_t *b, struct err *err)
{
	const json_t *ip = json_object_get(b, "HostIp"), *port = json_object_get(b, "HostPort");
	struct net_address host;
	uint16_t first, last;

	if (!json_is_object(b) || (ip && !json_is_string(ip) && !json_is_null(ip)) ||
	    (port && !json_is_string(port) && !json_is_null(port)))
		return err_set(err, EINVAL, "HostConfig.PortBindings.%.40s has the wrong JSON type", key);
	return parse_range(json_str(b, "HostPort", ""), &first, &last, err)
		       ?: parse_host(json_str(b, "HostIp", ""), &host, err);
}

int publish_check(const json_t *config, const json_t *host, struct err *err)
{
	uint16_t port;
	int protocol;
	const char *key;
	json_t *list, *b;
	size_t i, count = 0;

	json_object_foreach(json_object_get(config, "ExposedPorts"), key, list)
		if (parse_key(key, &port, &protocol, err))
			return -err->code;
	json_object_foreach(json_object_get(host, "PortBindings"), key, list) {
		if (parse_key(key, &port, &protocol, err))
			return -err->code;
		if (!json_is_array(list) && !json_is_null(list))
			return err_set(err, EINVAL, "HostConfig.PortBindings.%.40s has the wrong JSON type", key);
		json_array_foreach(list, i, b)
			if (check_binding(key, b, err))
				return -err->code;
		count += json_array_size(list);
	}
	return count > PORTS_MAX
		       ? err_set(err, EINVAL, "a container has at most %d published ports, not %zu", PORTS_MAX, count)
		       : 0;
}

/* ---- holding ---- */

static int socket_type(int protocol)
{
	return protocol == IPPROTO_UDP ? SOCK_DGRAM : SOCK_STREAM;
}

/* Bind @p->host_port (0: any) and keep it. Return: 0 or -errno. */
static int port_hold(struct engine_port *p)
{
	CLEAN_FD int fd = socket(p->host.family, socket_type(p->protocol) | SOCK_CLOEXEC, p->protocol);
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(p->host_port), .sin_addr = p->host.v4 };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(p->host_port), .sin6_addr = p->host.v6 };
	bool six = p->host.family == AF_INET6;
	struct sockaddr *a = six ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
	socklen_t size = six ? sizeof(v6) : sizeof(v4);

	/* without the SCTP module nobody else can have the port either */
	if (fd < 0)
		return p->protocol == IPPROTO_SCTP && errno == EPROTONOSUPPORT && p->host_port ? 0 : -errno;
	if (six && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ 1 }, sizeof(int)))
		return -errno;
	if (bind(fd, a, size) || getsockname(fd, a, &size))
		return -errno;
	p->host_port = ntohs(six ? v6.sin6_port : v4.sin_port);
	p->held = take_fd(&fd);
	return 0;
}

static bool is_zero(const struct net_address *a)
{
	static const uint8_t zero[16];

	return !memcmp(a->bytes, zero, a->family == AF_INET6 ? 16 : 4);
}

/* Does a container of ours have it? Docker words that differently from a program of the host. */
static bool port_ours(const struct engine *e, const struct engine_port *wanted)
{
	for (const struct engine_container *c = e->containers; c; c = c->next)
		for (size_t i = 0; i < c->port_count; i++) {
			const struct engine_port *p = &c->ports[i];

			if (p != wanted && p->protocol == wanted->protocol && p->host_port == wanted->host_port &&
			    p->host.family == wanted->host.family &&
			    (is_zero(&p->host) || is_zero(&wanted->host) || net_address_equal(&p->host, &wanted->host)))
				return true;
		}
	return false;
}

static int hold_failed(const struct engine_container *c, const struct engine_port *p, int code, struct err *err)
{
	char host[NET_ADDRESS_TEXT], to[NET_ADDRESS_TEXT] = "";
	struct net_address inner;
	const char *network, *endpoint = "";
	json_t *s;

	json_object_foreach(c->endpoints, network, s)
		endpoint = json_str(s, "EndpointID", "");
	(void)net_address_text(&p->host, host);
	if (code == EADDRINUSE && port_ours(c->engine, p))
		return err_set(err, EIO,
			       "driver failed programming external connectivity on endpoint %s (%s): Bind for %s:%d "
			       "failed: port is already allocated",
			       c->name, endpoint, host, p->host_port);
	if (endpoints_address(c, p->host.family, &inner))
		(void)net_address_text(&inner, to);
	return err_set(err, EIO,
		       "driver failed programming external connectivity on endpoint %s (%s): failed to bind host port "
		       "for %s:%d:%s:%d/%s: %s",
		       c->name, endpoint, host, p->host_port, to, p->container_port, protocol_name(p->protocol),
		       code == EADDRINUSE ? "address already in use" : strerror(code));
}

static struct engine_port *port_append(struct engine_container *c, const struct engine_port *p)
{
	struct engine_port *more = reallocarray(c->ports, c->port_count + 1, sizeof(*more));

	if (!more)
		return NULL;
	c->ports = more;
	c->ports[c->port_count] = *p;
	c->ports[c->port_count].held = -1;
	return &c->ports[c->port_count++];
}

/* One binding: the first port of the range that is free. */
static int port_open(struct engine_container *c, const struct engine_port *wanted, uint16_t first, uint16_t last,
		     struct err *err)
{
	struct engine_port *p = port_append(c, wanted);
	int rc = -EADDRINUSE;

	if (!p)
		return err_sys(err, ENOMEM, "publish a port");
	for (unsigned int n = first; n <= last && rc == -EADDRINUSE; n++) {
		p->host_port = (uint16_t)n;
		rc = port_hold(p);
	}
	return rc ? hold_failed(c, p, -rc, err) : 0;
}

/* An empty HostIp means every address, of each family that the container has (Docker, "port publishing"). */
static int binding_open(struct engine_container *c, const char *key, const json_t *b, struct err *err)
{
	struct engine_port p = { .held = -1 };
	uint16_t first, last;
	struct net_address own;
	const char *ip = json_str(b, "HostIp", "");

	if (parse_key(key, &p.container_port, &p.protocol, err) ||
	    parse_range(json_str(b, "HostPort", ""), &first, &last, err) || parse_host(ip, &p.host, err))
		return -err->code;
	if (!endpoints_address(c, p.host.family, &own) && *ip)
		return err_set(err, EIO, "cannot publish %s on %.60s: the container has no address of that family", key,
			       ip);
	if (endpoints_address(c, p.host.family, &own)) {
		if (port_open(c, &p, first, last, err))
			return -err->code;
		first = last = c->ports[c->port_count - 1].host_port; /* the other family gets the same */
	}
	if (*ip || !endpoints_address(c, AF_INET6, &own))
		return 0;
	p.host = (struct net_address){ .family = AF_INET6, .prefix = 128 };
	return port_open(c, &p, first, last, err);
}

int publish_open(struct engine_container *c, struct err *err)
{
	const json_t *bindings = json_object_get(c->host_config, "PortBindings");
	struct net_address own;
	const char *key;
	json_t *list, *b;
	size_t i;

	/* internal networks and "none" lead nowhere: as with Docker nothing is published, and that is no error */
	if (!endpoints_address(c, AF_INET, &own) && !endpoints_address(c, AF_INET6, &own))
		return 0;
	json_object_foreach((json_t *)bindings, key, list)
		json_array_foreach(list, i, b)
			if (binding_open(c, key, b, err))
				return -err->code;
	json_object_foreach(json_object_get(c->config, "ExposedPorts"), key, list)
		if (json_bool(c->host_config, "PublishAllPorts", false) &&
		    !json_array_size(json_object_get(bindings, key)) && binding_open(c, key, NULL, err))
			return -err->code;
	return c->port_count ? engine_rules_apply(c->engine, err) : 0;
}

void publish_close(struct engine_container *c)
{
	struct err err = ERR_INIT;
	size_t count = c->port_count;

	for (size_t i = 0; i < count; i++)
		close_fd(&c->ports[i].held);
	free(take_ptr(c->ports));
	c->port_count = 0;
	if (count && engine_rules_apply(c->engine, &err))
		log_error("container %.12s: %s", c->id, err.msg);
}

void publish_forget(struct engine_container *c)
{
	for (size_t i = 0; i < c->port_count; i++)
		close_fd(&c->ports[i].held);
	free(take_ptr(c->ports));
	c->port_count = 0;
}

int publish_retarget(struct engine_container *c, struct err *err)
{
	return c->port_count ? engine_rules_apply(c->engine, err) : 0;
}

/* ---- what users see, and the record ---- */

json_t *publish_inspect(const struct engine_container *c)
{
	json_t *out = json_object(), *v;
	const char *name;
	char key[24], host[NET_ADDRESS_TEXT], number[8];

	if (!container_live(c))
		return out;
	json_object_foreach(json_object_get(c->config, "ExposedPorts"), name, v)
		(void)json_object_set_new(out, name, json_null());
	for (size_t i = 0; i < c->port_count; i++) {
		const struct engine_port *p = &c->ports[i];

		(void)snprintf(key, sizeof(key), "%u/%s", p->container_port, protocol_name(p->protocol));
		(void)snprintf(number, sizeof(number), "%u", p->host_port);
		if (!json_is_array(json_object_get(out, key)))
			(void)json_object_set_new(out, key, json_array());
		(void)json_array_append_new(
			json_object_get(out, key),
			json_pack("{s:s, s:s}", "HostIp", net_address_text(&p->host, host), "HostPort", number));
	}
	return out;
}

json_t *publish_summary(const struct engine_container *c)
{
	CLEAN_JSON json_t *ports = publish_inspect(c);
	json_t *out = json_array(), *list, *b;
	const char *key;
	size_t i;

	json_object_foreach(ports, key, list) {
		const char *slash = strchr(key, '/');
		int port = atoi(key);
		const char *type = slash ? slash + 1 : "tcp";

		if (!json_is_array(list))
			(void)json_array_append_new(out, json_pack("{s:i, s:s}", "PrivatePort", port, "Type", type));
		json_array_foreach(list, i, b)
			(void)json_array_append_new(
				out, json_pack("{s:s, s:i, s:i, s:s}", "IP", json_str(b, "HostIp", ""), "PrivatePort",
					       port, "PublicPort", atoi(json_str(b, "HostPort", "")), "Type", type));
	}
	return out;
}

json_t *publish_save(const struct engine_container *c)
{
	json_t *out = json_array();
	char host[NET_ADDRESS_TEXT];

	for (size_t i = 0; i < c->port_count; i++) {
		const struct engine_port *p = &c->ports[i];

		(void)json_array_append_new(out, json_pack("{s:i, s:s, s:i, s:i}", "Protocol", p->protocol, "HostIp",
							   net_address_text(&p->host, host), "HostPort", p->host_port,
							   "ContainerPort", p->container_port));
	}
	return out;
}

int publish_load(struct engine_container *c, const json_t *saved, struct err *err)
{
	size_t i;
	json_t *v;

	json_array_foreach((json_t *)saved, i, v) {
		struct engine_port p = { .protocol = (int)json_int(v, "Protocol", IPPROTO_TCP),
					 .host_port = (uint16_t)json_int(v, "HostPort", 0),
					 .container_port = (uint16_t)json_int(v, "ContainerPort", 0) };

		if (parse_host(json_str(v, "HostIp", ""), &p.host, err))
			return -err->code;
		if (!port_append(c, &p))
			return err_sys(err, ENOMEM, "read the container's ports");
		/* one that another program took meanwhile is still led to the container by the rules */
		int rc = port_hold(&c->ports[c->port_count - 1]);

		if (rc)
			log_warn("container %.12s: port %u of the host: %s", c->id, p.host_port, strerror(-rc));
	}
	return 0;
}
