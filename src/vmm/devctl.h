/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket between shim and walnut-vmm: SEQPACKET, one struct a packet, host byte order. */
#ifndef WALNUT_VMM_DEVCTL_H
#define WALNUT_VMM_DEVCTL_H

#include <stdint.h>

enum devctl_type {
	DEVCTL_LISTEN = 1,   /* shim to device: port */
	DEVCTL_UNLISTEN = 2, /* shim to device: port */
	DEVCTL_ACCEPTED = 3, /* device to shim: port, with one stream socket (SCM_RIGHTS) */
	DEVCTL_PAUSE = 4,    /* shim to monitor: stop the processors; the status page says when they rest */
	DEVCTL_RESUME = 5,   /* shim to monitor */
	DEVCTL_BALLOON = 6,  /* shim to monitor: port = pages the guest shall give back */
};

struct devctl_packet {
	uint32_t type;
	uint32_t port;
};

#endif
