/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtnetlink (rtnetlink(7)) as a container engine needs it: links, addresses,
 * routes, of the namespace in which the socket was opened. Each call is one
 * request whose answer is waited for; the kernel answers at once.
 */
#ifndef WALNUT_NET_NETLINK_H
#define WALNUT_NET_NETLINK_H

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct mnl_socket;

/* An IPv4 or IPv6 address with its prefix length; family 0: none. */
struct net_address {
	int family; /* AF_INET, AF_INET6 */
	unsigned int prefix;
	union {
		struct in_addr v4;
		struct in6_addr v6;
		uint8_t bytes[16];
	};
};

struct netlink {
	struct mnl_socket *socket;
	unsigned int sequence;
};

struct net_mac {
	uint8_t bytes[6];
};

/* netlink_open - for the calling thread's namespace, or @netns (borrowed descriptor; the thread comes back). */
int netlink_open(struct netlink *n, int netns, struct err *err) MUST_CHECK;
void netlink_close(struct netlink *n);

/* netlink_add_bridge - a bridge that does not wait before it forwards. -EEXIST when a link has that name. */
int netlink_add_bridge(struct netlink *n, const char *name, const struct net_mac *mac, unsigned int mtu,
		       struct err *err) MUST_CHECK;
/* netlink_add_veth - a pair: @name here, @peer in the namespace @netns with @mac. @mtu 0: the default. */
int netlink_add_veth(struct netlink *n, const char *name, const char *peer, int netns, const struct net_mac *mac,
		     unsigned int mtu, struct err *err) MUST_CHECK;
/* netlink_delete - remove a link; none of that name is success. */
int netlink_delete(struct netlink *n, const char *name, struct err *err) MUST_CHECK;

struct netlink_change {
	int master; /* interface index; 0: leave, -1: no master */
	bool up, down;
	bool isolated;             /* as a bridge port: talks to no other isolated port (set with master) */
	const char *rename;        /* NULL: leave */
	const struct net_mac *mac; /* NULL: leave */
	unsigned int mtu;          /* 0: leave */
};
int netlink_change(struct netlink *n, const char *name, const struct netlink_change *change,
		   struct err *err) MUST_CHECK;
/* netlink_index - of a link. Return: index, -ENODEV, or -errno. */
int netlink_index(struct netlink *n, const char *name, struct err *err) MUST_CHECK;

/* netlink_add_address - the address exists already: success. IPv6 addresses skip duplicate address detection. */
int netlink_add_address(struct netlink *n, int index, const struct net_address *a, struct err *err) MUST_CHECK;
/* netlink_add_default_route - by @gateway through link @index, with @metric (0: the kernel's). */
int netlink_add_default_route(struct netlink *n, int index, const struct net_address *gateway, uint32_t metric,
			      struct err *err) MUST_CHECK;
int netlink_delete_default_route(struct netlink *n, int index, int family, struct err *err) MUST_CHECK;

/* netlink_each_subnet - every IPv4 and IPv6 prefix that a route of the main table or an address here uses. */
int netlink_each_subnet(struct netlink *n, int (*fn)(const struct net_address *subnet, void *arg), void *arg,
			struct err *err) MUST_CHECK;

#endif
