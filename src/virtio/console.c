/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-console. Queue 0 (input) is left alone: nobody types. The rings are small, because
 * the driver fills the input ring with a page an entry.
 */
#include "virtio/console.h"

#include <linux/virtio_ids.h>

#define OUTPUT 1

static void kick(struct virtio_device *d, unsigned int i)
{
	struct console *con = d->state;
	struct virtq *q = &d->queues[i];
	struct virtq_chain c;
	bool any = false;

	if (i != OUTPUT)
		return;
	while (virtq_pop(q, &c) == 1) {
		if (c.in_count) {
			virtq_break(q);
			break;
		}
		for (unsigned int k = 0; k < c.out_count; k++)
			con->write(con->arg, c.iov[k].iov_base, c.iov[k].iov_len);
		virtq_push(q, c.head, 0);
		any = true;
	}
	if (any)
		virtq_notify(q);
}

static void get_config(struct virtio_device *d, uint32_t offset, uint32_t len, uint8_t *to)
{
}

struct virtio_ops console_ops(void)
{
	return (struct virtio_ops){ .name = "console",
				    .id = VIRTIO_ID_CONSOLE,
				    .queues = 2,
				    .queue_max = 16,
				    .get_config = get_config,
				    .kick = kick };
}
