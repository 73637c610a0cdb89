/* sources: src/virtio/virtq.c src/virtio/gmem.c src/virtio/blk.c src/base/err.c */
/* libs: */
/* SPDX-License-Identifier: Apache-2.0 */
/* A random ring in 64 KiB of guest memory, drained through the queue into the block device. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "virtio/blk.h"

#define MEM 65536U

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct virtq_chain c;
	static uint8_t *m;
	static struct blk b;
	struct gmem mem = { .count = 1 };
	struct virtq q = { .call_fd = -1 };
	struct err err;

	if (!m) {
		int fd = memfd_create("disk", 0);

		m = aligned_alloc(4096, MEM);
		if (!m || fd < 0 || ftruncate(fd, 16384) < 0 || blk_add(&b, fd, 16384, &err) < 0)
			abort();
	}
	memset(m, 0, MEM);
	memcpy(m, data, size < MEM ? size : MEM);
	mem.regions[0] = (struct gmem_region){ .guest = 0x1000, .user = 0, .size = MEM, .host = m };
	/* Small areas close together, so that short inputs reach all: 8 descriptors, available at 128, used at 160. */
	if (virtq_start(&q, &mem, 8, m, m + 128, m + 160, 0, &err) < 0)
		abort();
	for (int i = 0; i < 64 && virtq_pop(&q, &c) == 1; i++)
		virtq_push(&q, c.head, blk_request(&b, &c));
	return 0;
}
