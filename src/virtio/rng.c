/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng. A request is answered at once, with at most 4 KiB: the guest asks again. */
#include "virtio/rng.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <sys/random.h>

#define ANSWER_MAX 4096U

static void kick(struct virtio_device *d, unsigned int i)
{
	struct virtq *q = &d->queues[i];
	struct virtq_chain c;
	bool any = false;

	while (virtq_pop(q, &c) == 1) {
		uint8_t bytes[ANSWER_MAX];
		size_t want = c.in_bytes < ANSWER_MAX ? c.in_bytes : ANSWER_MAX;
		ssize_t got;

		if (want == 0) {
			virtq_break(q);
			break;
		}
		do {
			got = getrandom(bytes, want, 0);
		} while (got < 0 && errno == EINTR);
		virtq_push(q, c.head,
			   got > 0 ? (uint32_t)iov_copy_in(c.iov + c.out_count, c.in_count, 0, bytes, (size_t)got) : 0);
		any = true;
	}
	if (any)
		virtq_notify(q);
}

static void get_config(struct virtio_device *d, uint32_t offset, uint32_t len, uint8_t *to)
{
}

struct virtio_ops rng_ops(void)
{
	return (struct virtio_ops){
		.name = "rng", .id = VIRTIO_ID_RNG, .queues = 1, .queue_max = 8, .get_config = get_config, .kick = kick
	};
}
