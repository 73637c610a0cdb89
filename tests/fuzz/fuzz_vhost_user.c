/* sources: src/virtio/virtq.c src/virtio/gmem.c src/virtio/blk.c src/virtio/vhost_user.c src/base/err.c src/base/fd.c src/base/log.c src/base/utc.c src/base/loop.c */
/* libs: */
/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user messages to a disk. Input: records of one byte request, one byte
 * (low nibble: payload words, high nibble: descriptors sent along, kinds in turn), the words of 8 bytes.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/loop.h"
#include "virtio/blk.h"
#include "virtio/vhost_user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool over;

static void on_gone(struct vu_device *d)
{
	over = true;
}

static int memory_fd(void)
{
	static int fd = -1;

	if (fd < 0) {
		fd = memfd_create("memory", 0);
		if (fd < 0 || ftruncate(fd, 1 << 20) < 0)
			abort();
	}
	return fd;
}

static size_t send_record(int sock, const uint8_t *data, size_t size, int event)
{
	uint32_t header[3] = { data[0] % 30U, 1 | (data[0] & 0x80 ? 8U : 0U), (data[1] & 15U) * 8U };
	int fds[3] = { memory_fd(), event, memory_fd() };
	size_t words = data[1] & 15U, nfds = (data[1] >> 4) & 3U;
	const int *from = data[1] & 0x40 ? fds + 1 : fds;
	uint8_t bytes[12 + 15 * 8] = { 0 };

	if (nfds > 2)
		nfds = 2;
	if (words * 8 > size - 2)
		words = (size - 2) / 8;
	memcpy(bytes, header, sizeof(header));
	memcpy(bytes + 12, data + 2, words * 8);
	if (fd_send(sock, bytes, 12 + header[2], from, nfds) < 0)
		over = true;
	return 2 + words * 8;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct blk disk;
	int pair[2], event = eventfd(0, EFD_NONBLOCK);
	struct vu_device device;
	struct virtio_ops ops;
	struct loop *loop;
	struct err err;
	char sink[4096];

	if (!disk.count && blk_add(&disk, memory_fd(), 1 << 20, &err) < 0)
		abort();
	loop = loop_new(&err);
	ops = blk_ops(&disk);
	over = false;
	if (event < 0 || !loop || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 ||
	    vu_init(&device, &ops, &disk, loop, pair[1], on_gone, &err) < 0)
		abort();
	while (size >= 2 && !over) {
		size_t used = send_record(pair[0], data, size, event);

		data += used;
		size -= used;
		for (int i = 0; i < 2; i++)
			if (loop_step(loop, 0, &err) < 0)
				abort();
		while (recv(pair[0], sink, sizeof(sink), MSG_DONTWAIT) > 0)
			;
		if (write(event, &(uint64_t){ 1 }, 8) < 0)
			abort();
	}
	vu_fini(&device);
	loop_free(loop);
	(void)close(pair[0]);
	(void)close(event);
	return 0;
}
