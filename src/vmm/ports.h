/* SPDX-License-Identifier: Apache-2.0 */
/* The vsock ports that the shim listens to, over the control socket (devctl.h). */
#ifndef WALNUT_VMM_PORTS_H
#define WALNUT_VMM_PORTS_H

#include "virtio/vsock.h"
#include "vmm/devctl.h"

struct ports {
	int control; /* borrowed */
	struct vsock *vsock;
	/* Called after each connection; NULL: not. */
	void (*on_accepted)(void *arg);
	void *on_accepted_arg;
};

/* ports_init - make the vsock device whose connections go to @control. */
int ports_init(struct ports *p, int control, struct err *err) MUST_CHECK;
/* ports_receive - one packet from the shim; what concerns ports is done. Return: 1 with @packet, 0: none now, -EPIPE: gone. */
int ports_receive(struct ports *p, struct devctl_packet *packet) MUST_CHECK;

#endif
