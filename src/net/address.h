/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, subnets and their allocation. Pure functions on values; nothing here asks the kernel. */
#ifndef WALNUT_NET_ADDRESS_H
#define WALNUT_NET_ADDRESS_H

#include <stddef.h>

#include "net/netlink.h"

#define NET_ADDRESS_TEXT 64 /* bytes for address "/" prefix NUL */

/* net_address_parse - "10.0.0.1", "10.0.0.1/24", "fd00::1/64"; no prefix: the whole address. Return: 0 or -EINVAL. */
int net_address_parse(const char *text, struct net_address *out) MUST_CHECK;
/* net_address_text - without the prefix; net_address_cidr - with it. Return: @out, of NET_ADDRESS_TEXT bytes. */
const char *net_address_text(const struct net_address *a, char *out);
const char *net_address_cidr(const struct net_address *a, char *out);

/* net_subnet_base - @a with its host bits cleared. */
struct net_address net_subnet_base(const struct net_address *a);
/* net_subnet_at - the address that is @n after the subnet's base, with its prefix; false when it is outside. */
bool net_subnet_at(const struct net_address *subnet, uint64_t n, struct net_address *out);
/* net_subnet_size - addresses in it, at most UINT64_MAX. */
uint64_t net_subnet_size(const struct net_address *subnet);
/* net_subnet_has - does @a (its prefix does not matter) lie in @subnet? */
bool net_subnet_has(const struct net_address *subnet, const struct net_address *a);
bool net_subnets_overlap(const struct net_address *a, const struct net_address *b);
bool net_address_equal(const struct net_address *a, const struct net_address *b); /* prefixes do not matter */

/* net_default_subnet - the @n-th of the subnets that networks get without asking (Docker's pools); false after the last. */
bool net_default_subnet(unsigned int n, struct net_address *out);

/* net_mac_parse - "02:42:ac:11:00:02" or with dashes. Return: 0 or -EINVAL (multicast addresses too). */
int net_mac_parse(const char *text, struct net_mac *out) MUST_CHECK;
const char *net_mac_text(const struct net_mac *mac, char out[18]);
/* net_mac_of - a locally administered address, the same for the same IPv4 address: neighbours' caches stay true. */
struct net_mac net_mac_of(const struct net_address *a);

/*
 * net_pick_address - a free address of @subnet within @range (NULL: all of it)
 * @used: says whether an address is taken; the base, the broadcast address and, for IPv4, nothing else are skipped
 * @from: where to begin, so that an address just given back is not given out at once; advanced
 *
 * Return: 0 or -ENOSPC.
 */
int net_pick_address(const struct net_address *subnet, const struct net_address *range,
		     bool (*used)(const struct net_address *a, void *arg), void *arg, uint64_t *from,
		     struct net_address *out) MUST_CHECK;

#endif
