/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio over MMIO (virtio 1.2, section 4.2), the device's side: a page of registers.
 *
 * Registers are written by the guest's processors, so by several threads: a lock is held over
 * each access. What starts or stops the device (status) is done in the device's own thread, which
 * the processor waits for; so device code knows no locks. Interrupt status and "needs reset" are
 * set by the device's thread at any time: atomics. Queue notifications come by eventfd.
 */
#ifndef WALNUT_VIRTIO_MMIO_H
#define WALNUT_VIRTIO_MMIO_H

#include <pthread.h>

#include "virtio/device.h"

#define VIRTIO_MMIO_SIZE 0x1000U

struct virtio_mmio;

/* virtio_mmio_thread_fn - run @fn(@m) in the device's thread and return when it is done. */
typedef void (*virtio_mmio_thread_fn)(void *arg, void (*fn)(struct virtio_mmio *m), struct virtio_mmio *m);

struct virtio_mmio_queue {
	uint32_t num, ready;
	uint64_t desc, avail, used; /* guest addresses */
};

struct virtio_mmio {
	struct virtio_device *dev; /* borrowed; NULL: an empty slot (device id 0) */
	const struct gmem *mem;    /* borrowed */
	virtio_mmio_thread_fn run;
	void *run_arg;
	pthread_mutex_t lock;
	uint32_t status; /* bit NEEDS_RESET: atomic */
	uint32_t isr;    /* atomic */
	uint32_t generation;
	uint32_t device_features_sel, driver_features_sel, queue_sel;
	uint64_t driver_features;
	uint32_t complaints; /* about this driver in the log, atomic */
	struct virtio_mmio_queue queues[VIRTIO_QUEUES_MAX];
	int irq_fd;                     /* owned eventfd; -1: none */
	int kick_fd[VIRTIO_QUEUES_MAX]; /* owned eventfds */
};

/**
 * virtio_mmio_init - put a device behind registers
 * @dev: its ops, state and loop are set; NULL: an empty slot
 * @run: NULL: registers are accessed in the device's thread (tests)
 *
 * Makes the eventfds and watches the queues' in the device's loop (if it has one).
 */
int virtio_mmio_init(struct virtio_mmio *m, struct virtio_device *dev, const struct gmem *mem,
		     virtio_mmio_thread_fn run, void *run_arg, struct err *err) MUST_CHECK;
void virtio_mmio_fini(struct virtio_mmio *m);
/* virtio_mmio_read, virtio_mmio_write - an access of 1, 2, 4 or 8 bytes; odd ones read zeros and change nothing. */
void virtio_mmio_read(struct virtio_mmio *m, uint32_t offset, uint32_t len, uint8_t *to);
void virtio_mmio_write(struct virtio_mmio *m, uint32_t offset, uint32_t len, const uint8_t *from);
/* virtio_mmio_config_changed - the device's configuration is another now: tell the driver. From the device's thread. */
void virtio_mmio_config_changed(struct virtio_mmio *m);

#endif
