/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-vsock (virtio 1.2, section 5.10): stream connections that the guest
 * opens to host ports somebody listens on. The host's end of each is a unix
 * stream socket, handed out by a callback; half-closes and flow control go both ways.
 */
#ifndef WALNUT_VIRTIO_VSOCK_H
#define WALNUT_VIRTIO_VSOCK_H

#include "virtio/device.h"

#define VSOCK_CONNS_MAX  256
#define VSOCK_PORTS_MAX  256
#define VSOCK_BUF_BYTES  (64U << 10)
#define VSOCK_RESETS_MAX 128
#define VSOCK_GUEST_CID  3

struct vsock;

/* vsock_accept_fn - take the host's end of a new connection (@fd: the callee's). Negative: the guest gets a reset. */
typedef int (*vsock_accept_fn)(void *arg, uint32_t port, int fd);

/* vsock_new - NULL without memory. vsock_free - closes all connections. */
struct vsock *vsock_new(vsock_accept_fn accept, void *arg);
void vsock_free(struct vsock *v);
struct virtio_ops vsock_ops(void);
/* vsock_listen, vsock_unlisten - Return: 0, -ENOSPC (too many), -EEXIST, -ENOENT. */
int vsock_listen(struct vsock *v, uint32_t port) MUST_CHECK;
int vsock_unlisten(struct vsock *v, uint32_t port) MUST_CHECK;

#endif
