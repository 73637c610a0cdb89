/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses are held in network order; arithmetic is on the last 64 bits, which hold every host part we hand out. */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/address.h"

static unsigned int bits(const struct net_address *a)
{
	return a->family == AF_INET6 ? 128 : 32;
}

int net_address_parse(const char *text, struct net_address *out)
{
	char copy[INET6_ADDRSTRLEN + 1];
	const char *slash = strchr(text, '/');
	size_t n = slash ? (size_t)(slash - text) : strlen(text);
	char *end = NULL;
	unsigned long prefix;

	if (!n || n >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, n);
	copy[n] = 0;
	*out = (struct net_address){ .family = strchr(copy, ':') ? AF_INET6 : AF_INET };
	if (inet_pton(out->family, copy, out->bytes) != 1)
		return -EINVAL;
	out->prefix = bits(out);
	if (!slash)
		return 0;
	if (slash[1] < '0' || slash[1] > '9')
		return -EINVAL;
	prefix = strtoul(slash + 1, &end, 10);
	if (*end || prefix > bits(out))
		return -EINVAL;
	out->prefix = (unsigned int)prefix;
	return 0;
}

const char *net_address_text(const struct net_address *a, char *out)
{
	if (!a->family || !inet_ntop(a->family, a->bytes, out, NET_ADDRESS_TEXT))
		*out = 0;
	return out;
}

const char *net_address_cidr(const struct net_address *a, char *out)
{
	size_t n = strlen(net_address_text(a, out));

	if (n)
		(void)snprintf(out + n, NET_ADDRESS_TEXT - n, "/%u", a->prefix);
	return out;
}

struct net_address net_subnet_base(const struct net_address *a)
{
	struct net_address base = *a;

	for (unsigned int i = 0; i < bits(a) / 8; i++) {
		unsigned int kept = a->prefix > i * 8 ? a->prefix - i * 8 : 0;

		if (kept < 8)
			base.bytes[i] &= (uint8_t)(0xff00U >> kept);
	}
	return base;
}

uint64_t net_subnet_size(const struct net_address *subnet)
{
	unsigned int host = bits(subnet) - subnet->prefix;

	return host >= 64 ? UINT64_MAX : 1ULL << host;
}

static uint64_t low(const struct net_address *a)
{
	uint64_t wide;

	if (a->family == AF_INET)
		return ntohl(a->v4.s_addr);
	memcpy(&wide, a->bytes + 8, 8);
	return be64toh(wide);
}

bool net_subnet_at(const struct net_address *subnet, uint64_t n, struct net_address *out)
{
	struct net_address base = net_subnet_base(subnet);
	uint64_t value = low(&base) + n, wide = htobe64(value);

	if (n >= net_subnet_size(subnet) || value < n)
		return false;
	*out = base;
	if (base.family == AF_INET)
		out->v4.s_addr = htonl((uint32_t)value);
	else
		memcpy(out->bytes + 8, &wide, 8);
	return true;
}

bool net_address_equal(const struct net_address *a, const struct net_address *b)
{
	return a->family == b->family && !memcmp(a->bytes, b->bytes, bits(a) / 8);
}

bool net_subnet_has(const struct net_address *subnet, const struct net_address *a)
{
	struct net_address masked = *a, base = net_subnet_base(subnet);

	if (a->family != subnet->family)
		return false;
	masked.prefix = subnet->prefix;
	masked = net_subnet_base(&masked);
	return net_address_equal(&masked, &base);
}

bool net_subnets_overlap(const struct net_address *a, const struct net_address *b)
{
	return a->prefix <= b->prefix ? net_subnet_has(a, b) : net_subnet_has(b, a);
}

/* Docker's default-address-pools: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in parts of /20. */
bool net_default_subnet(unsigned int n, struct net_address *out)
{
	*out = (struct net_address){ .family = AF_INET };
	if (n < 15) {
		out->prefix = 16;
		out->v4.s_addr = htonl(0xac110000U + (n << 16));
		return true;
	}
	out->prefix = 20;
	out->v4.s_addr = htonl(0xc0a80000U + ((n - 15) << 12));
	return n < 31;
}

int net_mac_parse(const char *text, struct net_mac *out)
{
	if (strlen(text) != 17)
		return -EINVAL;
	for (int i = 0; i < 6; i++) {
		char digits[3] = { text[i * 3], text[i * 3 + 1], 0 }, *end;

		if (i < 5 && text[i * 3 + 2] != ':' && text[i * 3 + 2] != '-')
			return -EINVAL;
		out->bytes[i] = (uint8_t)strtoul(digits, &end, 16);
		if (*end || digits[0] == '+' || digits[0] == '-' || digits[0] == ' ')
			return -EINVAL;
	}
	return out->bytes[0] & 1 ? -EINVAL : 0;
}

const char *net_mac_text(const struct net_mac *mac, char out[18])
{
	const uint8_t *b = mac->bytes;

	(void)snprintf(out, 18, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5]);
	return out;
}

struct net_mac net_mac_of(const struct net_address *a)
{
	struct net_mac mac = { { 0x02, 0x42 } };

	memcpy(mac.bytes + 2, a->family == AF_INET6 ? a->bytes + 12 : a->bytes, 4);
	return mac;
}

int net_pick_address(const struct net_address *subnet, const struct net_address *range,
		     bool (*used)(const struct net_address *a, void *arg), void *arg, uint64_t *from,
		     struct net_address *out)
{
	const struct net_address *within = range && range->family ? range : subnet;
	uint64_t size = net_subnet_size(within);
	uint64_t tries = size > 1U << 20 ? 1U << 20 : size;
	struct net_address last;
	bool broadcast = subnet->family == AF_INET && subnet->prefix < 31 &&
			 net_subnet_at(subnet, net_subnet_size(subnet) - 1, &last);
	struct net_address base = net_subnet_base(subnet);

	for (uint64_t i = 0; i < tries; i++) {
		uint64_t n = (*from + i) % size;

		if (!net_subnet_at(within, n, out))
			continue;
		out->prefix = subnet->prefix;
		if ((subnet->prefix < bits(subnet) - 1 && net_address_equal(out, &base)) ||
		    (broadcast && net_address_equal(out, &last)) || used(out, arg))
			continue;
		*from = n + 1;
		return 0;
	}
	return -ENOSPC;
}
