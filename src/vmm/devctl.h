/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket between shim and device process: SEQPACKET, one struct a packet, host byte order. */
#ifndef WALNUT_VMM_DEVCTL_H
#define WALNUT_VMM_DEVCTL_H

#include <stdint.h>

enum devctl_type {
	DEVCTL_LISTEN = 1,   /* shim to device: port */
	DEVCTL_UNLISTEN = 2, /* shim to device: port */
	DEVCTL_ACCEPTED = 3, /* device to shim: port, with one stream socket (SCM_RIGHTS) */
};

struct devctl_packet {
	uint32_t type;
	uint32_t port;
};

#endif
