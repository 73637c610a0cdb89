/* SPDX-License-Identifier: Apache-2.0 */
/* Ports listened to, and connections handed to the shim. */
#include "vmm/ports.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

static int accepted(void *arg, uint32_t port, int fd)
{
	struct ports *p = arg;
	struct devctl_packet packet = { .type = DEVCTL_ACCEPTED, .port = port };
	ssize_t n = fd_send(p->control, &packet, sizeof(packet), &fd, 1);

	(void)close(fd);
	if (p->on_accepted)
		p->on_accepted(p->on_accepted_arg);
	return n == (ssize_t)sizeof(packet) ? 0 : -EAGAIN;
}

int ports_init(struct ports *p, int control, struct err *err)
{
	*p = (struct ports){ .control = control };
	p->vsock = vsock_new(accepted, p);
	return p->vsock ? 0 : err_set(err, ENOMEM, "out of memory");
}

int ports_receive(struct ports *p, struct devctl_packet *packet)
{
	ssize_t n = recv(p->control, packet, sizeof(*packet), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n != (ssize_t)sizeof(*packet))
		return -EPIPE;
	if (packet->type == DEVCTL_LISTEN && vsock_listen(p->vsock, packet->port) == -ENOSPC)
		log_error("devices: too many vsock ports");
	if (packet->type == DEVCTL_UNLISTEN && vsock_unlisten(p->vsock, packet->port) < 0)
		log_debug("devices: port %u was not listened to", packet->port);
	return 1;
}
