/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Published ports are maps (protocol . port -> address . port), so a packet costs one look-up however many ports there
 * are. They are consulted for packets to the host's own addresses only (fib), from outside (prerouting) and from
 * the host itself (output); route_localnet on the bridges lets 127.0.0.1 of the host through.
 *
 * libnftables is loaded when the first rule is needed: it and what it brings cost 1.5 MB of an engine that may never
 * have a network.
 */
#include <dlfcn.h>
#include <errno.h>
#include <nftables/libnftables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "net/firewall.h"

static void put_names(FILE *b, const struct firewall *f, const char *set, bool (*has)(const struct firewall_network *n))
{
	bool first = true;

	(void)fprintf(b, "\tset %s {\n\t\ttype ifname\n", set);
	for (size_t i = 0; i < f->network_count; i++) {
		if (!has(&f->networks[i]))
			continue;
		(void)fprintf(b, "%s\"%s\"", first ? "\t\telements = { " : ", ", f->networks[i].bridge);
		first = false;
	}
	(void)fprintf(b, "%s\t}\n", first ? "" : " }\n");
}

static bool is_any(const struct firewall_network *n)
{
	return true;
}

static bool is_internal(const struct firewall_network *n)
{
	return n->internal;
}

static bool is_zero(const struct net_address *a)
{
	static const uint8_t zero[16];

	return !memcmp(a->bytes, zero, a->family == AF_INET6 ? 16 : 4);
}

static const char *protocol_name(int protocol)
{
	return protocol == IPPROTO_UDP ? "udp" : protocol == IPPROTO_SCTP ? "sctp" : "tcp";
}

/* One map of one family; @any: ports published on every address, else those on one. */
static void put_ports(FILE *b, const struct firewall *f, int family, bool any)
{
	const char *type = family == AF_INET ? "ipv4_addr" : "ipv6_addr";
	char host[NET_ADDRESS_TEXT], to[NET_ADDRESS_TEXT];
	bool first = true;

	(void)fprintf(b, "\tmap %s%s {\n\t\ttype %s%sinet_proto . inet_service : %s . inet_service\n",
		      any ? "any" : "one", family == AF_INET ? "4" : "6", any ? "" : type, any ? "" : " . ", type);
	for (size_t i = 0; i < f->port_count; i++) {
		const struct firewall_port *p = &f->ports[i];

		if (p->container.family != family || is_zero(&p->host) != any)
			continue;
		(void)fprintf(b, "%s%s%s%s . %u : %s . %u", first ? "\t\telements = { " : ", ",
			      any ? "" : net_address_text(&p->host, host), any ? "" : " . ", protocol_name(p->protocol),
			      p->host_port, net_address_text(&p->container, to), p->container_port);
		first = false;
	}
	(void)fprintf(b, "%s\t}\n", first ? "" : " }\n");
}

static void put_masquerade(FILE *b, const struct firewall *f)
{
	char text[NET_ADDRESS_TEXT];

	for (size_t i = 0; i < f->network_count; i++) {
		const struct firewall_network *n = &f->networks[i];

		for (size_t k = 0; k < ARRAY_LEN(n->subnets) && n->masquerade && !n->internal; k++) {
			struct net_address base = net_subnet_base(&n->subnets[k]);

			if (base.family)
				(void)fprintf(b, "\t\t%s saddr %s oifname != \"%s\" masquerade\n",
					      base.family == AF_INET ? "ip" : "ip6", net_address_cidr(&base, text),
					      n->bridge);
		}
	}
}

static void put_own_bridge(FILE *b, const struct firewall *f)
{
	for (size_t i = 0; i < f->network_count; i++)
		(void)fprintf(b, "\t\tiifname \"%s\" oifname \"%s\" accept\n", f->networks[i].bridge,
			      f->networks[i].bridge);
}

char *firewall_text(const struct firewall *f)
{
	char *text = NULL;
	size_t size;
	FILE *b = open_memstream(&text, &size);

	if (!b)
		return NULL;
	(void)fprintf(b, "table inet %s\ndelete table inet %s\ntable inet %s {\n", f->table, f->table, f->table);
	put_names(b, f, "bridges", is_any);
	put_names(b, f, "internal", is_internal);
	put_ports(b, f, AF_INET, true);
	put_ports(b, f, AF_INET, false);
	put_ports(b, f, AF_INET6, true);
	put_ports(b, f, AF_INET6, false);
	(void)fprintf(b, "\tchain publish {\n"
			 "\t\tdnat ip to ip daddr . meta l4proto . th dport map @one4\n"
			 "\t\tdnat ip6 to ip6 daddr . meta l4proto . th dport map @one6\n"
			 "\t\tdnat ip to meta l4proto . th dport map @any4\n"
			 "\t\tdnat ip6 to meta l4proto . th dport map @any6\n\t}\n"
			 "\tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat\n"
			 "\t\tfib daddr type local jump publish\n\t}\n"
			 "\tchain output {\n\t\ttype nat hook output priority -100\n"
			 "\t\tfib daddr type local jump publish\n\t}\n"
			 "\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat\n"
			 /* a container that reaches a published port of its own network by the host's address */
			 "\t\tiifname @bridges oifname @bridges ct status dnat masquerade\n"
			 /* the host's loopback addresses mean nothing outside of it */
			 "\t\tip saddr 127.0.0.0/8 oifname @bridges masquerade\n");
	put_masquerade(b, f);
	(void)fprintf(b, "\t}\n\tchain forward {\n\t\ttype filter hook forward priority filter\n"
			 "\t\tct state established,related accept\n");
	put_own_bridge(b, f);
	(void)fprintf(b,
		      "\t\tiifname @bridges oifname @bridges ct status dnat accept\n"
		      "\t\tiifname @bridges oifname @bridges drop\n"
		      "\t\tiifname @internal drop\n\t\toifname @internal drop\n"
		      "\t\toifname @bridges ct status dnat accept\n"
		      "\t\toifname @bridges drop\n\t}\n"
		      /* nobody but the host itself may use its loopback addresses (route_localnet would let others) */
		      "\tchain guard {\n\t\ttype filter hook prerouting priority raw\n"
		      "\t\tiifname != \"lo\" ip daddr 127.0.0.0/8 drop\n\t}\n}\n");
	bool failed = ferror(b);

	if (fclose(b) || failed) {
		free(text);
		return NULL;
	}
	return text;
}

static struct {
	struct nft_ctx *context;
	int (*run)(struct nft_ctx *context, const char *text);
	const char *(*error)(struct nft_ctx *context);
} nft;

static int nft_load(struct err *err)
{
	struct nft_ctx *(*make)(uint32_t flags);
	int (*errors)(struct nft_ctx * context), (*output)(struct nft_ctx * context);
	void *library;

	if (nft.context)
		return 0;
	library = dlopen("libnftables.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!library)
		return err_set(err, ENOENT, "networks need libnftables: %s; install the package libnftables1",
			       dlerror());
	*(void **)&make = dlsym(library, "nft_ctx_new");
	*(void **)&errors = dlsym(library, "nft_ctx_buffer_error");
	*(void **)&output = dlsym(library, "nft_ctx_buffer_output");
	*(void **)&nft.run = dlsym(library, "nft_run_cmd_from_buffer");
	*(void **)&nft.error = dlsym(library, "nft_ctx_get_error_buffer");
	if (!make || !errors || !output || !nft.run || !nft.error)
		return err_set(err, ENOSYS, "libnftables.so.1 is not the library that networks need");
	nft.context = make(NFT_CTX_DEFAULT);
	if (!nft.context || errors(nft.context) || output(nft.context))
		return err_sys(err, ENOMEM, "prepare nftables");
	return 0;
}

static int nft_do(const char *text, struct err *err)
{
	if (nft_load(err))
		return -err->code;
	if (nft.run(nft.context, text)) {
		const char *why = nft.error(nft.context);

		return err_set(err, EIO, "change the host's nftables rules: %.*s", (int)strcspn(why, "\n"), why);
	}
	return 0;
}

int firewall_apply(const struct firewall *f, struct err *err)
{
	CLEAN_FREE char *text = firewall_text(f);

	return text ? nft_do(text, err) : err_sys(err, ENOMEM, "write the nftables rules");
}

int firewall_remove(const char *table, struct err *err)
{
	char text[160];

	/* the first line makes it when it is not there, so that there is something to delete */
	(void)snprintf(text, sizeof(text), "table inet %.40s\ndelete table inet %.40s\n", table, table);
	return nft_do(text, err);
}

bool firewall_present(const char *table)
{
	char text[80];

	(void)snprintf(text, sizeof(text), "list chain inet %.40s forward\n", table);
	return !nft_do(text, &(struct err){ 0 });
}
