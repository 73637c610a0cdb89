/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's side of a split virtqueue (virtio 1.2, section 2.7), written
 * for a hostile driver: every index and descriptor is read once and checked
 * before use; a chain is at most as long as the queue; indirect tables are not
 * offered, so refused. A driver that breaks a rule breaks its queue, nothing else.
 */
#ifndef WALNUT_VIRTIO_VIRTQ_H
#define WALNUT_VIRTIO_VIRTQ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtio/gmem.h"

#define VIRTQ_SIZE_MAX 1024 /* QEMU over virtio-mmio offers this to every driver */

struct virtq {
	const struct gmem *mem; /* borrowed */
	uint16_t size;
	uint8_t *desc, *avail, *used; /* in guest memory; NULL: not started */
	uint16_t next_avail;
	uint16_t next_used;
	bool broken;   /* the driver broke a rule: nothing is taken any more */
	int call_fd;   /* borrowed eventfd that interrupts the driver; -1: none */
	uint32_t *isr; /* the transport's interrupt status, bit 0 set before an interrupt; NULL: none */
	/* Called once when the driver broke a rule: the transport says so to the driver. NULL: not. */
	void (*on_broken)(void *arg);
	void *on_broken_arg;
};

struct virtq_chain {
	uint16_t head;
	unsigned int out_count, in_count; /* segments the device reads, then those it writes */
	uint32_t out_bytes, in_bytes;
	struct iovec iov[VIRTQ_SIZE_MAX]; /* out segments first */
};

/* virtq_start - check and take a queue's three areas. Return: 0, or -errno with @err. */
int virtq_start(struct virtq *q, const struct gmem *mem, uint32_t size, void *desc, void *avail, void *used,
		uint16_t next_avail, struct err *err) MUST_CHECK;
void virtq_stop(struct virtq *q);
/* virtq_pop - the next chain. Return: 1, 0 (none), -EPROTO (the driver broke a rule; q->broken is set). */
int virtq_pop(struct virtq *q, struct virtq_chain *c) MUST_CHECK;
/* virtq_break - the driver broke a rule of the device: take nothing from it until it resets. */
void virtq_break(struct virtq *q);
/* virtq_unpop - put the chain just popped back. */
void virtq_unpop(struct virtq *q);
/* virtq_push - hand a chain back with @written bytes in its in segments; virtq_notify - interrupt the driver if it wants. */
void virtq_push(struct virtq *q, uint16_t head, uint32_t written);
void virtq_notify(struct virtq *q);

/* Bytes for the three areas of a queue of @size. */
static inline uint64_t virtq_desc_bytes(uint32_t size)
{
	return 16ULL * size;
}
static inline uint64_t virtq_avail_bytes(uint32_t size)
{
	return 6 + 2ULL * size;
}
static inline uint64_t virtq_used_bytes(uint32_t size)
{
	return 6 + 8ULL * size;
}

/* iov_copy_out - copy up to @n bytes from segments at @offset; iov_slice - the part of segments that is [offset, offset+len). */
size_t iov_copy_out(const struct iovec *iov, unsigned int count, size_t offset, void *to, size_t n);
size_t iov_copy_in(const struct iovec *iov, unsigned int count, size_t offset, const void *from, size_t n);
unsigned int iov_slice(const struct iovec *iov, unsigned int count, size_t offset, size_t len, struct iovec *out,
		       unsigned int room);

#endif
