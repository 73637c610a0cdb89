/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The back end's side of the vhost-user protocol (QEMU, docs/interop/vhost-user.rst):
 * one connected unix socket is one virtio device. The front end hands over
 * guest memory, rings and eventfds; a device's own code sees queues and config bytes.
 */
#ifndef WALNUT_VIRTIO_VHOST_USER_H
#define WALNUT_VIRTIO_VHOST_USER_H

#include "base/loop.h"
#include "virtio/virtq.h"

#define VU_QUEUES_MAX 2
#define VU_CONFIG_MAX 256

struct vu_device;

struct vu_ops {
	const char *name;
	uint64_t features; /* of this device kind; VERSION_1 and PROTOCOL_FEATURES are added */
	uint16_t queues;
	/* get_config - fill @len zeroed bytes of config space from @offset (bounds checked to VU_CONFIG_MAX). */
	void (*get_config)(struct vu_device *d, uint32_t offset, uint32_t len, uint8_t *to);
	/* kick - the driver notified queue @i, or the queue just started. */
	void (*kick)(struct vu_device *d, unsigned int i);
	/* stopped - queue @i was stopped (reset of the guest). May be NULL. */
	void (*stopped)(struct vu_device *d, unsigned int i);
};

struct vu_queue {
	struct virtq q;
	struct vu_device *device;
	uint32_t num;
	uint64_t desc, avail, used; /* front end addresses */
	uint16_t base;
	bool have_addr, enabled;
	int kick_fd, call_fd; /* owned */
	struct loop_source *kick_source;
};

struct vu_device {
	struct vu_ops ops;
	void *state;
	struct loop *loop;
	int fd; /* owned */
	struct loop_source *source;
	uint64_t features, protocol_features;
	bool enable_needed;
	struct gmem mem;
	struct vu_queue queues[VU_QUEUES_MAX];
	void (*gone)(struct vu_device *d); /* the front end closed or broke the protocol */
};

/* vu_init - serve a device on @fd (owned from now on). Return: 0 or -errno with @err. */
int vu_init(struct vu_device *d, const struct vu_ops *ops, void *state, struct loop *loop, int fd,
	    void (*gone)(struct vu_device *), struct err *err) MUST_CHECK;
void vu_fini(struct vu_device *d);

#endif
