/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-console (virtio 1.2, section 5.3), one port, output only: what the guest's kernel prints. */
#ifndef WALNUT_VIRTIO_CONSOLE_H
#define WALNUT_VIRTIO_CONSOLE_H

#include "virtio/device.h"

/* The device's state. @write takes what the guest printed; it must not block. */
struct console {
	void (*write)(void *arg, const void *bytes, size_t n);
	void *arg;
};

struct virtio_ops console_ops(void);

#endif
