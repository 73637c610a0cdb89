/* SPDX-License-Identifier: Apache-2.0 */
/* Have a function run in the thread of an event loop, and wait for it. */
#ifndef WALNUT_VMM_HANDOFF_H
#define WALNUT_VMM_HANDOFF_H

#include <pthread.h>

#include "base/loop.h"
#include "virtio/mmio.h"

struct handoff {
	int fd; /* owned eventfd */
	pthread_mutex_t turn, lock;
	pthread_cond_t done;
	void (*fn)(struct virtio_mmio *m);
	struct virtio_mmio *m;
};

int handoff_init(struct handoff *h, struct loop *loop, struct err *err) MUST_CHECK;
/* handoff_run - a virtio_mmio_thread_fn; @arg: the struct handoff. Not from the loop's own thread. */
void handoff_run(void *arg, void (*fn)(struct virtio_mmio *m), struct virtio_mmio *m);

#endif
