/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device as its own code sees it, whatever carries it (vhost_user.h, mmio.h):
 * queues, configuration bytes, features. All calls of one device come from one thread,
 * that of its loop.
 */
#ifndef WALNUT_VIRTIO_DEVICE_H
#define WALNUT_VIRTIO_DEVICE_H

#include "base/loop.h"
#include "virtio/virtq.h"

#define VIRTIO_QUEUES_MAX 4

/* Virtio 1.2, section 6 */
#define VIRTIO_VERSION_1 (1ULL << 32)

struct virtio_device;

struct virtio_ops {
	const char *name;
	uint32_t id;        /* virtio 1.2, section 5 */
	uint64_t features;  /* of this device kind; the transport adds its own */
	uint16_t queues;    /* at most VIRTIO_QUEUES_MAX */
	uint16_t queue_max; /* entries offered where the transport lets us choose: the guest pays for large rings */
	/* get_config - fill @len zeroed bytes of config space from @offset on. From any thread, as set_config. */
	void (*get_config)(struct virtio_device *d, uint32_t offset, uint32_t len, uint8_t *to);
	/* set_config - the driver writes config space; NULL: read-only. */
	void (*set_config)(struct virtio_device *d, uint32_t offset, uint32_t len, const uint8_t *from);
	/* kick - the driver notified queue @i, or the queue just started. */
	void (*kick)(struct virtio_device *d, unsigned int i);
	/* stopped - queue @i was stopped (reset of the device). May be NULL. */
	void (*stopped)(struct virtio_device *d, unsigned int i);
};

struct virtio_device {
	struct virtio_ops ops;
	void *state;
	struct loop *loop;
	uint64_t features; /* negotiated */
	struct virtq queues[VIRTIO_QUEUES_MAX];
};

#endif
