/* SPDX-License-Identifier: Apache-2.0 */
/* Network namespaces: a short visit of the calling thread, and sockets and taps made in one. */
#ifndef WALNUT_NET_NETNS_H
#define WALNUT_NET_NETNS_H

#include "base/err.h"

/* The namespace to come back to; netns_back at the end of scope. */
struct netns_visit {
	int home;
};
#define NETNS_NO_VISIT     \
	{                  \
		.home = -1 \
	}

/* netns_enter - the calling thread is in @netns until netns_back. */
int netns_enter(struct netns_visit *visit, int netns, struct err *err) MUST_CHECK;
/* netns_back - a thread that could not come back would do the host's work in a container: that aborts. */
void netns_back(struct netns_visit *visit);

/* netns_new - a new network namespace, which lives as long as a descriptor or a process of it. Return: descriptor. */
int netns_new(struct err *err) MUST_CHECK;

/* netns_socket - socket(2) inside @netns, close-on-exec. Return: descriptor or -errno. */
int netns_socket(int netns, int domain, int type, int protocol, struct err *err) MUST_CHECK;

/* netns_write_sysctl - write /proc/sys/@path ("net/ipv4/ip_forward") as seen inside @netns (-1: here). */
int netns_write_sysctl(int netns, const char *path, const char *value, struct err *err) MUST_CHECK;

/* netns_open_tap - a tap @name (vnet header, no packet information) in the thread's namespace. Return: descriptor. */
int netns_open_tap(const char *name, struct err *err) MUST_CHECK;

#endif
