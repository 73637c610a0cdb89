/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng (virtio 1.2, section 5.4): the host kernel's random bytes. */
#ifndef WALNUT_VIRTIO_RNG_H
#define WALNUT_VIRTIO_RNG_H

#include "virtio/device.h"

struct virtio_ops rng_ops(void);

#endif
