/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, subnets, their allocation, and the text of the rules. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "net/address.h"
#include "net/firewall.h"

static struct net_address at(const char *text)
{
	struct net_address a;

	assert_int_equal(net_address_parse(text, &a), 0);
	return a;
}

static void parse_and_print(void **state)
{
	static const char *const bad[] = { "",          "10",          "10.0.0.0/33",
					   "10.0.0.1/", "10.0.0.1/+8", "10.0.0.1/8x",
					   "::1/129",   "fd00::g",     "1.2.3.4.5",
					   " 10.0.0.1", "10.0.0.0/-1" };
	struct net_address a;
	char text[NET_ADDRESS_TEXT];

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(net_address_parse(bad[i], &a), -EINVAL);
	a = at("172.18.3.4/20");
	assert_string_equal(net_address_cidr(&a, text), "172.18.3.4/20");
	a = net_subnet_base(&a);
	assert_string_equal(net_address_cidr(&a, text), "172.18.0.0/20");
	a = at("fd00:1:2:3:ffff::7/67");
	a = net_subnet_base(&a);
	assert_string_equal(net_address_cidr(&a, text), "fd00:1:2:3:e000::/67");
	a = at("10.1.2.3");
	assert_string_equal(net_address_text(&a, text), "10.1.2.3");
	assert_int_equal(a.prefix, 32);
}

static void membership(void **state)
{
	struct net_address net = at("172.18.0.0/16"), six = at("fd00::/64"), out;

	assert_true(net_subnet_has(&net, &(struct net_address){ .family = AF_INET, .v4.s_addr = htonl(0xac12ffff) }));
	assert_false(net_subnet_has(&net, &(struct net_address){ .family = AF_INET, .v4.s_addr = htonl(0xac130000) }));
	out = at("fd00::ffff:1");
	assert_true(net_subnet_has(&six, &out));
	assert_false(net_subnet_has(&net, &out));
	out = at("172.18.128.0/17");
	assert_true(net_subnets_overlap(&net, &out) && net_subnets_overlap(&out, &net));
	out = at("172.19.0.0/16");
	assert_false(net_subnets_overlap(&net, &out));
	assert_true(net_subnet_at(&net, 65535, &out));
	assert_false(net_subnet_at(&net, 65536, &out));
	assert_true(net_subnet_at(&six, 1ULL << 40, &out));
}

static bool first_three(const struct net_address *a, void *arg)
{
	return (ntohl(a->v4.s_addr) & 0xff) <= 3;
}

static bool all_used(const struct net_address *a, void *arg)
{
	(*(int *)arg)++;
	return true;
}

static void allocation(void **state)
{
	struct net_address net = at("10.9.8.0/29"), range = at("10.9.8.4/30"), out;
	char text[NET_ADDRESS_TEXT];
	uint64_t from = 0;
	int asked = 0;

	assert_int_equal(net_pick_address(&net, NULL, first_three, NULL, &from, &out), 0);
	assert_string_equal(net_address_cidr(&out, text), "10.9.8.4/29");
	assert_int_equal(net_pick_address(&net, NULL, first_three, NULL, &from, &out), 0);
	assert_string_equal(net_address_text(&out, text), "10.9.8.5");
	assert_int_equal(net_pick_address(&net, NULL, first_three, NULL, &from, &out), 0);
	assert_int_equal(net_pick_address(&net, NULL, first_three, NULL, &from, &out),
			 0); /* round: .7 is the broadcast */
	assert_string_equal(net_address_text(&out, text), "10.9.8.4");
	assert_int_equal(net_pick_address(&net, NULL, all_used, &asked, &from, &out), -ENOSPC);
	assert_int_equal(asked, 6); /* neither the base nor the broadcast address were offered */
	from = 0;
	assert_int_equal(net_pick_address(&net, &range, first_three, NULL, &from, &out), 0);
	assert_string_equal(net_address_cidr(&out, text), "10.9.8.4/29");
}

static void macs(void **state)
{
	struct net_mac mac;
	struct net_address a = at("172.17.0.2/16");
	char text[18];

	assert_int_equal(net_mac_parse("02:42:ac:11:00:02", &mac), 0);
	assert_string_equal(net_mac_text(&mac, text), "02:42:ac:11:00:02");
	assert_int_equal(net_mac_parse("03:42:ac:11:00:02", &mac), -EINVAL);
	assert_int_equal(net_mac_parse("02:42:ac:11:00:0g", &mac), -EINVAL);
	assert_int_equal(net_mac_parse("02:42:ac:11:00", &mac), -EINVAL);
	mac = net_mac_of(&a);
	assert_string_equal(net_mac_text(&mac, text), "02:42:ac:11:00:02");
}

static void default_pools(void **state)
{
	struct net_address a;
	char text[NET_ADDRESS_TEXT];
	unsigned int n = 0;

	assert_true(net_default_subnet(0, &a));
	assert_string_equal(net_address_cidr(&a, text), "172.17.0.0/16");
	while (net_default_subnet(n, &a))
		n++;
	assert_int_equal(n, 31);
	assert_true(net_default_subnet(30, &a));
	assert_string_equal(net_address_cidr(&a, text), "192.168.240.0/20");
}

static void rules(void **state)
{
	struct firewall_network networks[2] = {
		{ .bridge = "walnut0", .subnets = { at("172.17.0.1/16") }, .masquerade = true },
		{ .bridge = "br-in", .subnets = { at("172.18.0.1/16"), at("fd00::1/64") }, .internal = true },
	};
	struct firewall_port ports[2] = {
		{ IPPROTO_TCP, at("0.0.0.0"), 8080, at("172.17.0.2"), 80 },
		{ IPPROTO_UDP, at("127.0.0.1"), 53, at("172.17.0.3"), 5353 },
	};
	struct firewall f = { "walnut_0a1b2c", networks, 2, ports, 2 };
	CLEAN_FREE char *text = firewall_text(&f);

	assert_non_null(strstr(text, "delete table inet walnut_0a1b2c\n"));
	assert_non_null(strstr(text, "elements = { \"walnut0\", \"br-in\" }"));
	assert_non_null(strstr(text, "elements = { tcp . 8080 : 172.17.0.2 . 80 }"));
	assert_non_null(strstr(text, "elements = { 127.0.0.1 . udp . 53 : 172.17.0.3 . 5353 }"));
	assert_non_null(strstr(text, "ip saddr 172.17.0.0/16 oifname != \"walnut0\" masquerade"));
	assert_null(strstr(text, "saddr 172.18.0.0")); /* an internal network has no way out to be hidden on */
}

/* In a namespace of the test's own: every request is answered, and answered truly. */
static void links(void **state)
{
	CLEAN(netlink_close) struct netlink n = { 0 };
	struct err err = ERR_INIT;
	struct net_address a = at("10.77.0.1/24");
	CLEAN_FD int netns = -1;
	int bridge;

	if (unshare(CLONE_NEWNET) < 0)
		skip();
	netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(netlink_open(&n, -1, &err), 0);
	assert_int_equal(netlink_add_bridge(&n, "br", NULL, 1400, &err), 0);
	assert_int_equal(netlink_add_bridge(&n, "br", NULL, 0, &err), -EEXIST);
	assert_int_equal(netlink_add_veth(&n, "va", "vb", netns, &(struct net_mac){ { 2, 1, 2, 3, 4, 5 } }, 0, &err),
			 0);
	bridge = netlink_index(&n, "br", &err);
	assert_true(bridge > 0);
	assert_int_equal(netlink_change(&n, "va",
					&(struct netlink_change){ .master = bridge, .up = true, .isolated = true },
					&err),
			 0);
	assert_int_equal(netlink_change(&n, "br", &(struct netlink_change){ .up = true }, &err), 0);
	assert_int_equal(netlink_add_address(&n, bridge, &a, &err), 0);
	assert_int_equal(netlink_add_address(&n, bridge, &a, &err), 0);
	a = at("10.77.0.9");
	assert_int_equal(netlink_add_default_route(&n, bridge, &a, 0, &err), 0);
	assert_int_equal(netlink_delete_default_route(&n, bridge, AF_INET, &err), 0);
	assert_int_equal(netlink_delete(&n, "va", &err), 0);
	assert_int_equal(netlink_index(&n, "vb", &err), -ENODEV);
	assert_int_equal(netlink_delete(&n, "va", &err), 0);
	assert_int_equal(netlink_delete(&n, "br", &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parse_and_print), cmocka_unit_test(membership),
		cmocka_unit_test(allocation),      cmocka_unit_test(macs),
		cmocka_unit_test(default_pools),   cmocka_unit_test(rules),
		cmocka_unit_test(links),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
