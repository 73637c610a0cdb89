/* SPDX-License-Identifier: Apache-2.0 */
/* rtnetlink requests, built and parsed with libmnl. Attribute numbers: linux/if_link.h, linux/rtnetlink.h. */
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sched.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "net/netlink.h"
#include "net/netns.h"

#define REQUEST_MAX 1024

struct request {
	union {
		struct nlmsghdr align;
		char bytes[REQUEST_MAX];
	};
	struct nlmsghdr *header;
};

int netlink_open(struct netlink *n, int netns, struct err *err)
{
	CLEAN(netns_back) struct netns_visit visit = NETNS_NO_VISIT;
	/* the kernel answers at once; an engine that waits for ever would be worse than one that says what failed */
	struct timeval patience = { .tv_sec = 10 };

	*n = (struct netlink){ .sequence = (unsigned int)time(NULL) };
	if (netns >= 0 && netns_enter(&visit, netns, err))
		return -err->code;
	n->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!n->socket || mnl_socket_bind(n->socket, 0, MNL_SOCKET_AUTOPID) < 0 ||
	    setsockopt(mnl_socket_get_fd(n->socket), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0) {
		int code = errno;

		netlink_close(n);
		return err_sys(err, code, "open a netlink socket");
	}
	return 0;
}

void netlink_close(struct netlink *n)
{
	if (n->socket)
		(void)mnl_socket_close(n->socket);
	n->socket = NULL;
}

static void *request_init(struct request *r, uint16_t type, uint16_t flags, size_t extra)
{
	r->header = mnl_nlmsg_put_header(r->bytes);
	r->header->nlmsg_type = type;
	r->header->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	return mnl_nlmsg_put_extra_header(r->header, extra);
}

/* Send, and read answers until the end of the request. Return: 0, or -errno of the kernel. */
static int request_run(struct netlink *n, struct request *r, mnl_cb_t fn, void *arg)
{
	char answer[16384];
	ssize_t got;
	int rc = MNL_CB_OK;

	/* NLM_F_DUMP is two bits, of which NLM_F_EXCL is one */
	if ((r->header->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP)
		r->header->nlmsg_flags |= NLM_F_ACK;
	r->header->nlmsg_seq = ++n->sequence;
	if (mnl_socket_sendto(n->socket, r->header, r->header->nlmsg_len) < 0)
		return -errno;
	while (rc > MNL_CB_STOP) {
		got = mnl_socket_recvfrom(n->socket, answer, sizeof(answer));
		if (got < 0)
			return -errno;
		rc = mnl_cb_run(answer, (size_t)got, n->sequence, mnl_socket_get_portid(n->socket), fn, arg);
	}
	return rc < 0 ? -errno : 0;
}

static int name_ok(const char *name, struct err *err)
{
	size_t len = strlen(name);

	if (!len || len >= IFNAMSIZ)
		return err_set(err, EINVAL, "\"%.40s\" is no name of a network interface: 1 to 15 bytes", name);
	return 0;
}

int netlink_add_bridge(struct netlink *n, const char *name, const struct net_mac *mac, unsigned int mtu,
		       struct err *err)
{
	struct request r;
	struct nlattr *info, *data;
	int rc;

	if (name_ok(name, err))
		return -err->code;
	(void)request_init(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(r.header, IFLA_IFNAME, name);
	if (mac)
		mnl_attr_put(r.header, IFLA_ADDRESS, sizeof(mac->bytes), mac->bytes);
	if (mtu)
		mnl_attr_put_u32(r.header, IFLA_MTU, mtu);
	info = mnl_attr_nest_start(r.header, IFLA_LINKINFO);
	mnl_attr_put_strz(r.header, IFLA_INFO_KIND, "bridge");
	data = mnl_attr_nest_start(r.header, IFLA_INFO_DATA);
	mnl_attr_put_u32(r.header, IFLA_BR_FORWARD_DELAY, 0);
	mnl_attr_nest_end(r.header, data);
	mnl_attr_nest_end(r.header, info);
	rc = request_run(n, &r, NULL, NULL);
	return rc ? err_sys(err, -rc, "make the bridge %s", name) : 0;
}

int netlink_add_veth(struct netlink *n, const char *name, const char *peer, int netns, const struct net_mac *mac,
		     unsigned int mtu, struct err *err)
{
	struct request r;
	struct nlattr *info, *data, *other;
	int rc;

	if (name_ok(name, err) || name_ok(peer, err))
		return -err->code;
	(void)request_init(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(r.header, IFLA_IFNAME, name);
	if (mtu)
		mnl_attr_put_u32(r.header, IFLA_MTU, mtu);
	info = mnl_attr_nest_start(r.header, IFLA_LINKINFO);
	mnl_attr_put_strz(r.header, IFLA_INFO_KIND, "veth");
	data = mnl_attr_nest_start(r.header, IFLA_INFO_DATA);
	other = mnl_attr_nest_start(r.header, VETH_INFO_PEER);
	(void)mnl_nlmsg_put_extra_header(r.header, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(r.header, IFLA_IFNAME, peer);
	mnl_attr_put_u32(r.header, IFLA_NET_NS_FD, (uint32_t)netns);
	if (mac)
		mnl_attr_put(r.header, IFLA_ADDRESS, sizeof(mac->bytes), mac->bytes);
	if (mtu)
		mnl_attr_put_u32(r.header, IFLA_MTU, mtu);
	mnl_attr_nest_end(r.header, other);
	mnl_attr_nest_end(r.header, data);
	mnl_attr_nest_end(r.header, info);
	rc = request_run(n, &r, NULL, NULL);
	return rc ? err_sys(err, -rc, "make the veth pair %s and %s", name, peer) : 0;
}

int netlink_delete(struct netlink *n, const char *name, struct err *err)
{
	struct request r;
	int rc;

	if (name_ok(name, err))
		return -err->code;
	(void)request_init(&r, RTM_DELLINK, 0, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(r.header, IFLA_IFNAME, name);
	rc = request_run(n, &r, NULL, NULL);
	return rc && rc != -ENODEV ? err_sys(err, -rc, "remove the network interface %s", name) : 0;
}

int netlink_change(struct netlink *n, const char *name, const struct netlink_change *change, struct err *err)
{
	struct request r;
	struct ifinfomsg *link = request_init(&r, RTM_NEWLINK, 0, sizeof(*link));
	int index = netlink_index(n, name, err), rc;

	if (index < 0)
		return index;
	link->ifi_index = index;
	link->ifi_change = change->up || change->down ? IFF_UP : 0;
	link->ifi_flags = change->up ? IFF_UP : 0;
	if (change->master)
		mnl_attr_put_u32(r.header, IFLA_MASTER, change->master < 0 ? 0 : (uint32_t)change->master);
	if (change->rename)
		mnl_attr_put_strz(r.header, IFLA_IFNAME, change->rename);
	if (change->mac)
		mnl_attr_put(r.header, IFLA_ADDRESS, sizeof(change->mac->bytes), change->mac->bytes);
	if (change->mtu)
		mnl_attr_put_u32(r.header, IFLA_MTU, change->mtu);
	rc = request_run(n, &r, NULL, NULL);
	if (!rc && change->isolated) {
		struct nlattr *info, *data;

		link = request_init(&r, RTM_NEWLINK, 0, sizeof(*link));
		link->ifi_index = index;
		info = mnl_attr_nest_start(r.header, IFLA_LINKINFO);
		mnl_attr_put_strz(r.header, IFLA_INFO_SLAVE_KIND, "bridge");
		data = mnl_attr_nest_start(r.header, IFLA_INFO_SLAVE_DATA);
		mnl_attr_put_u8(r.header, IFLA_BRPORT_ISOLATED, 1);
		mnl_attr_nest_end(r.header, data);
		mnl_attr_nest_end(r.header, info);
		rc = request_run(n, &r, NULL, NULL);
	}
	return rc ? err_sys(err, -rc, "change the network interface %s", name) : 0;
}

static int take_index(const struct nlmsghdr *header, void *arg)
{
	const struct ifinfomsg *link = mnl_nlmsg_get_payload(header);

	*(int *)arg = link->ifi_index;
	return MNL_CB_OK;
}

int netlink_index(struct netlink *n, const char *name, struct err *err)
{
	struct request r;
	int index = -ENODEV, rc;

	if (name_ok(name, err))
		return -err->code;
	(void)request_init(&r, RTM_GETLINK, 0, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(r.header, IFLA_IFNAME, name);
	rc = request_run(n, &r, take_index, &index);
	return rc || index < 0 ? err_sys(err, rc ? -rc : ENODEV, "look for the network interface %s", name) : index;
}

static size_t address_size(const struct net_address *a)
{
	return a->family == AF_INET6 ? 16 : 4;
}

int netlink_add_address(struct netlink *n, int index, const struct net_address *a, struct err *err)
{
	struct request r;
	struct ifaddrmsg *m = request_init(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(*m));
	int rc;

	m->ifa_family = (uint8_t)a->family;
	m->ifa_prefixlen = (uint8_t)a->prefix;
	m->ifa_index = (uint32_t)index;
	if (a->family == AF_INET6)
		m->ifa_flags = IFA_F_NODAD;
	mnl_attr_put(r.header, IFA_LOCAL, address_size(a), a->bytes);
	mnl_attr_put(r.header, IFA_ADDRESS, address_size(a), a->bytes);
	if (a->family == AF_INET && a->prefix < 31) {
		struct in_addr broadcast = { a->v4.s_addr | htonl((uint32_t)((1ULL << (32 - a->prefix)) - 1)) };

		mnl_attr_put(r.header, IFA_BROADCAST, 4, &broadcast);
	}
	rc = request_run(n, &r, NULL, NULL);
	return rc && rc != -EEXIST ? err_sys(err, -rc, "give an address to a network interface") : 0;
}

static void default_route(struct request *r, uint16_t type, uint16_t flags, int index, int family)
{
	struct rtmsg *m = request_init(r, type, flags, sizeof(*m));

	m->rtm_family = (uint8_t)family;
	m->rtm_table = RT_TABLE_MAIN;
	m->rtm_protocol = RTPROT_BOOT;
	m->rtm_scope = type == RTM_DELROUTE ? RT_SCOPE_NOWHERE : RT_SCOPE_UNIVERSE;
	m->rtm_type = type == RTM_DELROUTE ? RTN_UNSPEC : RTN_UNICAST;
	mnl_attr_put_u32(r->header, RTA_OIF, (uint32_t)index);
}

int netlink_add_default_route(struct netlink *n, int index, const struct net_address *gateway, uint32_t metric,
			      struct err *err)
{
	struct request r;
	int rc;

	default_route(&r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, index, gateway->family);
	mnl_attr_put(r.header, RTA_GATEWAY, address_size(gateway), gateway->bytes);
	if (metric)
		mnl_attr_put_u32(r.header, RTA_PRIORITY, metric);
	rc = request_run(n, &r, NULL, NULL);
	return rc && rc != -EEXIST ? err_sys(err, -rc, "add the default route") : 0;
}

int netlink_delete_default_route(struct netlink *n, int index, int family, struct err *err)
{
	struct request r;
	int rc;

	default_route(&r, RTM_DELROUTE, 0, index, family);
	rc = request_run(n, &r, NULL, NULL);
	return rc && rc != -ESRCH ? err_sys(err, -rc, "remove the default route") : 0;
}

struct each {
	int (*fn)(const struct net_address *subnet, void *arg);
	void *arg;
	struct net_address route; /* being read */
	bool has_destination, stopped;
};

static int route_attribute(const struct nlattr *attr, void *arg)
{
	struct each *each = arg;

	if (mnl_attr_get_type(attr) == RTA_DST && mnl_attr_get_payload_len(attr) == address_size(&each->route)) {
		memcpy(each->route.bytes, mnl_attr_get_payload(attr), address_size(&each->route));
		each->has_destination = true;
	}
	return MNL_CB_OK;
}

static int one_route(const struct nlmsghdr *header, void *arg)
{
	const struct rtmsg *m = mnl_nlmsg_get_payload(header);
	struct each *each = arg;

	each->route = (struct net_address){ .family = m->rtm_family, .prefix = m->rtm_dst_len };
	each->has_destination = false;
	if (!m->rtm_dst_len || m->rtm_table != RT_TABLE_MAIN || (m->rtm_family != AF_INET && m->rtm_family != AF_INET6))
		return MNL_CB_OK;
	if (mnl_attr_parse(header, sizeof(*m), route_attribute, each) < 0)
		return MNL_CB_ERROR;
	/* the rest of the dump is read and dropped: the socket's next answer must be the next request's */
	if (each->has_destination && !each->stopped)
		each->stopped = each->fn(&each->route, each->arg) != 0;
	return MNL_CB_OK;
}

int netlink_each_subnet(struct netlink *n, int (*fn)(const struct net_address *subnet, void *arg), void *arg,
			struct err *err)
{
	struct each each = { .fn = fn, .arg = arg };
	struct request r;
	struct rtmsg *m = request_init(&r, RTM_GETROUTE, NLM_F_DUMP, sizeof(*m));
	int rc;

	m->rtm_family = AF_UNSPEC;
	rc = request_run(n, &r, one_route, &each);
	return rc ? err_sys(err, -rc, "read the host's routes") : 0;
}
