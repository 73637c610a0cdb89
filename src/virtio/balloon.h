/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon (virtio 1.2, section 5.5) with free page reporting: pages that the guest has
 * free go back to the host by themselves. The balloon proper can be blown up too ("target" and virtio_mmio_config_changed).
 */
#ifndef WALNUT_VIRTIO_BALLOON_H
#define WALNUT_VIRTIO_BALLOON_H

#include "virtio/device.h"

#define BALLOON_PAGE 4096U

struct balloon {
	const struct gmem *mem; /* borrowed */
	uint32_t target;        /* pages the host wants, atomic */
	uint32_t actual;        /* pages the guest says it gave, atomic */
	uint64_t returned;      /* bytes given back to the host so far, atomic */
};

struct virtio_ops balloon_ops(void);

#endif
