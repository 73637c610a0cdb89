/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The back end's side of the vhost-user protocol (QEMU, docs/interop/vhost-user.rst):
 * one connected unix socket is one virtio device. The front end hands over
 * guest memory, rings and eventfds. A queue whose driver broke a rule is reported
 * on its error eventfd (VHOST_USER_SET_VRING_ERR) and stays off until it is started anew.
 */
#ifndef WALNUT_VIRTIO_VHOST_USER_H
#define WALNUT_VIRTIO_VHOST_USER_H

#include "virtio/device.h"

#define VU_CONFIG_MAX 256

struct vu_device;

struct vu_queue {
	struct virtq *q; /* of the device */
	struct vu_device *device;
	uint32_t num;
	uint64_t desc, avail, used; /* front end addresses */
	uint16_t base;
	bool have_addr, enabled;
	int kick_fd, call_fd, err_fd; /* owned */
	struct loop_source *kick_source;
};

struct vu_device {
	struct virtio_device dev;
	int fd; /* owned */
	struct loop_source *source;
	uint64_t protocol_features;
	bool enable_needed;
	struct gmem mem;
	struct vu_queue queues[VIRTIO_QUEUES_MAX];
	void (*gone)(struct vu_device *d); /* the front end closed or broke the protocol */
};

/* vu_init - serve a device on @fd (owned from now on). Return: 0 or -errno with @err. */
int vu_init(struct vu_device *d, const struct virtio_ops *ops, void *state, struct loop *loop, int fd,
	    void (*gone)(struct vu_device *), struct err *err) MUST_CHECK;
void vu_fini(struct vu_device *d);

#endif
