/* sources: src/virtio/virtq.c src/virtio/gmem.c src/virtio/vsock.c src/base/err.c src/base/buf.c src/base/fd.c src/base/log.c src/base/utc.c src/base/loop.c */
/* libs: */
/* SPDX-License-Identifier: Apache-2.0 */
/* Random packets from the guest; each input byte group is an operation on one of four connections. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>

#include <linux/virtio_vsock.h>

#include "../unit/ring.h"
#include "base/loop.h"
#include "virtio/vsock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_accept(void *arg, uint32_t port, int fd)
{
	int *fds = arg;

	if (port == 3)
		return close(fd), -1;
	if (fds[port])
		(void)close(fds[port]);
	fds[port] = fd;
	return 0;
}

static void host_acts(int *fd, uint8_t what)
{
	static char bytes[4096];

	if (!*fd)
		return;
	if (what & 1 && send(*fd, bytes, what * 8U, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return;
	if (what & 2 && recv(*fd, bytes, sizeof(bytes), MSG_DONTWAIT) < 0)
		return;
	if (what & 4)
		(void)shutdown(*fd, SHUT_WR);
	if (what & 8) {
		(void)close(*fd);
		*fd = 0;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ring rx = { calloc(1, RING_MEM), 0, 8 }, tx = { rx.memory, 0x10000, 8 };
	int fds[8] = { 0 };
	struct vsock *v = vsock_new(on_accept, fds);
	struct virtio_ops ops = vsock_ops();
	struct gmem mem;
	struct virtio_device d = { .state = v };
	struct err err;

	d.loop = loop_new(&err);
	if (!rx.memory || !v || !d.loop || ring_start(&rx, &mem, &d.queues[0]) || ring_start(&tx, &mem, &d.queues[1]))
		abort();
	for (uint32_t p = 1; p < 4; p++)
		if (vsock_listen(v, p) < 0)
			abort();
	for (; size >= 8; data += 8, size -= 8) {
		struct virtio_vsock_hdr h = { .src_cid = 3,
					      .dst_cid = 2,
					      .src_port = data[0] & 1,
					      .dst_port = data[1] & 7,
					      .op = data[2] & 15,
					      .type = 1,
					      .flags = data[3],
					      .len = data[4] * 64U,
					      .buf_alloc = data[5] * 16U,
					      .fwd_cnt = data[6] };

		memcpy(tx.memory + 0x80000, &h, sizeof(h));
		ring_desc(&tx, 0, RING_BASE + 0x80000, (uint32_t)sizeof(h) + data[4] * 64U, 0, 0);
		ring_offer(&tx, 0);
		ring_desc(&rx, data[7] & 7, RING_BASE + 0x40000 + (data[7] & 7) * 4096U, data[7] * 16U + 1, 2, 0);
		if (data[7] & 0x40)
			ring_offer(&rx, data[7] & 7);
		ops.kick(&d, data[7] & 1);
		host_acts(&fds[data[1] & 3], data[7] >> 4);
		if (loop_step(d.loop, 0, &err) < 0)
			abort();
	}
	ops.stopped(&d, 1);
	vsock_free(v);
	loop_free(d.loop);
	for (size_t i = 0; i < 8; i++)
		if (fds[i])
			(void)close(fds[i]);
	free(rx.memory);
	return 0;
}
