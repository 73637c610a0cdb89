/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-balloon. Queues: inflate, deflate, and, as neither statistics nor hints are offered,
 * free page reporting as the third: its chains are ranges of the guest's free memory. A page
 * given back is read as zeros (or as its file's bytes) when the guest next touches it.
 */
#include "virtio/balloon.h"

#include <endian.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <string.h>
#include <sys/mman.h>

#define INFLATE 0
#define REPORT  2

static void give_back(struct balloon *b, void *at, size_t len)
{
	uintptr_t from = ((uintptr_t)at + BALLOON_PAGE - 1) & ~(uintptr_t)(BALLOON_PAGE - 1);
	uintptr_t to = ((uintptr_t)at + len) & ~(uintptr_t)(BALLOON_PAGE - 1);

	if (from < to && madvise((void *)from, to - from, MADV_DONTNEED) == 0)
		__atomic_fetch_add(&b->returned, to - from, __ATOMIC_RELAXED);
}

/* A list of page numbers; one that is no RAM breaks the rules. */
static bool inflate(struct balloon *b, const struct virtq_chain *c)
{
	for (size_t at = 0; at + sizeof(uint32_t) <= c->out_bytes; at += sizeof(uint32_t)) {
		uint32_t page = 0;
		void *host;

		(void)iov_copy_out(c->iov, c->out_count, at, &page, sizeof(page));
		host = gmem_at(b->mem, (uint64_t)le32toh(page) * BALLOON_PAGE, BALLOON_PAGE);
		if (!host)
			return false;
		give_back(b, host, BALLOON_PAGE);
	}
	return true;
}

static void kick(struct virtio_device *d, unsigned int i)
{
	struct balloon *b = d->state;
	struct virtq *q = &d->queues[i];
	struct virtq_chain c;
	bool any = false;

	while (virtq_pop(q, &c) == 1) {
		if (i == INFLATE && !inflate(b, &c)) {
			virtq_break(q);
			break;
		}
		for (unsigned int k = 0; i == REPORT && k < c.in_count; k++)
			give_back(b, c.iov[c.out_count + k].iov_base, c.iov[c.out_count + k].iov_len);
		virtq_push(q, c.head, 0);
		any = true;
	}
	if (any)
		virtq_notify(q);
}

static void get_config(struct virtio_device *d, uint32_t offset, uint32_t len, uint8_t *to)
{
	struct balloon *b = d->state;
	struct virtio_balloon_config config = {
		.num_pages = htole32(__atomic_load_n(&b->target, __ATOMIC_RELAXED)),
		.actual = htole32(__atomic_load_n(&b->actual, __ATOMIC_RELAXED)),
	};

	if (offset < sizeof(config))
		memcpy(to, (uint8_t *)&config + offset, len < sizeof(config) - offset ? len : sizeof(config) - offset);
}

static void set_config(struct virtio_device *d, uint32_t offset, uint32_t len, const uint8_t *from)
{
	struct balloon *b = d->state;
	uint32_t value;

	if (offset != offsetof(struct virtio_balloon_config, actual) || len != sizeof(value))
		return;
	memcpy(&value, from, sizeof(value));
	__atomic_store_n(&b->actual, le32toh(value), __ATOMIC_RELAXED);
}

struct virtio_ops balloon_ops(void)
{
	return (struct virtio_ops){ .name = "balloon",
				    .id = VIRTIO_ID_BALLOON,
				    .features = 1ULL << VIRTIO_BALLOON_F_DEFLATE_ON_OOM |
						1ULL << VIRTIO_BALLOON_F_REPORTING,
				    .queues = 3,
				    .queue_max = 32,
				    .get_config = get_config,
				    .set_config = set_config,
				    .kick = kick };
}
