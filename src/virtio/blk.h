/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-blk (virtio 1.2, section 5.2) over files: several read-only ones end to end, or one read-write. */
#ifndef WALNUT_VIRTIO_BLK_H
#define WALNUT_VIRTIO_BLK_H

#include "virtio/device.h"

#define BLK_EXTENTS_MAX  128
#define BLK_EXTENT_ALIGN 4096

struct blk_extent {
	int fd;          /* borrowed */
	uint64_t start;  /* on the disk */
	uint64_t length; /* on the disk: the file's, rounded up; the rest reads as zeros */
};

struct blk {
	struct blk_extent extents[BLK_EXTENTS_MAX];
	size_t count;
	uint64_t capacity; /* bytes */
	bool read_only;
	char serial[20];
};

/* blk_add - append a file of @size bytes to the disk. */
int blk_add(struct blk *b, int fd, uint64_t size, struct err *err) MUST_CHECK;
/* blk_ops - the operations of this disk (its features depend on it). */
struct virtio_ops blk_ops(const struct blk *b);
/* blk_request - carry out one chain; returns the bytes written into it, 0: it broke the rules (no header, no status byte). */
uint32_t blk_request(struct blk *b, const struct virtq_chain *c);

#endif
