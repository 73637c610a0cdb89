/* SPDX-License-Identifier: Apache-2.0 */
/* The host's packet rules, made from the networks that are up and the ports that are published. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/container_internal.h"
#include "engine/network.h"
#include "net/firewall.h"

static void put_network(struct firewall_network *out, const struct engine_network *n)
{
	*out = (struct firewall_network){ .internal = n->internal, .masquerade = n->masquerade };
	memcpy(out->bridge, n->bridge, sizeof(out->bridge));
	for (int f = 0; f < NETWORK_FAMILIES; f++)
		out->subnets[f] = n->subnet[f];
}

static size_t put_ports(struct firewall_port *out, const struct engine_container *c)
{
	size_t count = 0;

	for (size_t i = 0; i < c->port_count; i++) {
		const struct engine_port *p = &c->ports[i];
		struct net_address to;

		if (!endpoints_address(c, p->host.family, &to))
			continue;
		out[count++] = (struct firewall_port){ .protocol = p->protocol,
						       .host = p->host,
						       .host_port = p->host_port,
						       .container = to,
						       .container_port = p->container_port };
	}
	return count;
}

int engine_rules_apply(struct engine *e, struct err *err)
{
	size_t networks = 0, ports = 0;
	char table[32];

	for (const struct engine_network *n = e->networks; n; n = n->next)
		networks += n->up;
	for (const struct engine_container *c = e->containers; c; c = c->next)
		ports += c->port_count;
	CLEAN_FREE struct firewall_network *network = calloc(networks + 1, sizeof(*network));
	CLEAN_FREE struct firewall_port *port = calloc(ports + 1, sizeof(*port));
	struct firewall f = { .table = table, .networks = network, .ports = port };

	engine_table_name(e, table, sizeof(table));
	if (!networks)
		return firewall_remove(table, err);
	if (!network || !port)
		return err_sys(err, ENOMEM, "write the nftables rules");
	for (const struct engine_network *n = e->networks; n; n = n->next)
		if (n->up)
			put_network(&network[f.network_count++], n);
	for (const struct engine_container *c = e->containers; c; c = c->next)
		f.port_count += put_ports(&port[f.port_count], c);
	return firewall_apply(&f, err);
}

void engine_table_name(const struct engine *e, char *out, size_t size)
{
	(void)snprintf(out, size, "walnut_%.6s", e->id);
}
