/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of all networks and published ports, in one nftables table of our
 * own: replaced whole, in one transaction, from a description.
 * Other tables are never touched.
 */
#ifndef WALNUT_NET_FIREWALL_H
#define WALNUT_NET_FIREWALL_H

#include "net/address.h"

struct firewall_network {
	char bridge[IFNAMSIZ];
	struct net_address subnets[2]; /* family 0: none */
	bool internal;                 /* no way out and in */
	bool masquerade;               /* containers' addresses are hidden behind the host's */
};

/* One published port of one address family. */
struct firewall_port {
	int protocol;                 /* IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP */
	struct net_address host;      /* family as @container's; all zero: every address of the host */
	uint16_t host_port;           /* host order */
	struct net_address container; /* where it goes */
	uint16_t container_port;
};

struct firewall {
	const char *table; /* its name, in family inet: every engine of a host has its own */
	const struct firewall_network *networks;
	size_t network_count;
	const struct firewall_port *ports;
	size_t port_count;
};

/* firewall_text - the table as an nft(8) script; owned by the caller (free). NULL without memory. */
char *firewall_text(const struct firewall *f) MUST_CHECK;
/* firewall_apply - replace our table. ENOSYS-like errors name what the host's kernel misses. */
int firewall_apply(const struct firewall *f, struct err *err) MUST_CHECK;
/* firewall_remove - our table is gone afterwards; none is success. */
int firewall_remove(const char *table, struct err *err) MUST_CHECK;
/* firewall_present - false when our table is missing: another program flushed the rules. */
bool firewall_present(const char *table);

#endif
