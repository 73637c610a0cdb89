/* SPDX-License-Identifier: Apache-2.0 */
/* A driver for tests: one split queue in a piece of memory that plays the guest's. */
#ifndef WALNUT_TESTS_RING_H
#define WALNUT_TESTS_RING_H

#include <string.h>

#include "virtio/virtq.h"

#define RING_MEM  (1U << 20)
#define RING_BASE 0x100000ULL /* guest address of the memory */

struct ring {
	uint8_t *memory; /* of RING_MEM bytes */
	uint32_t at;     /* the queue's place in it */
	uint16_t size;
};

static inline void ring_desc(struct ring *r, unsigned int i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	uint8_t *d = r->memory + r->at + 16U * i;

	memcpy(d, &addr, 8);
	memcpy(d + 8, &len, 4);
	memcpy(d + 12, &flags, 2);
	memcpy(d + 14, &next, 2);
}

static inline uint8_t *ring_avail(struct ring *r)
{
	return r->memory + r->at + 0x4000;
}
static inline uint8_t *ring_used(struct ring *r)
{
	return r->memory + r->at + 0x6000;
}

static inline void ring_set_idx(struct ring *r, uint16_t idx)
{
	memcpy(ring_avail(r) + 2, &idx, 2);
}

static inline void ring_offer(struct ring *r, uint16_t head)
{
	uint16_t idx;

	memcpy(&idx, ring_avail(r) + 2, 2);
	memcpy(ring_avail(r) + 4 + 2U * (idx % r->size), &head, 2);
	ring_set_idx(r, (uint16_t)(idx + 1));
}

static inline uint16_t ring_used_idx(struct ring *r)
{
	uint16_t idx;

	memcpy(&idx, ring_used(r) + 2, 2);
	return idx;
}

static inline int ring_start(struct ring *r, struct gmem *m, struct virtq *q)
{
	struct err err;

	*m = (struct gmem){ .count = 1 };
	m->regions[0] =
		(struct gmem_region){ .guest = RING_BASE, .user = RING_BASE, .size = RING_MEM, .host = r->memory };
	q->call_fd = -1;
	return virtq_start(q, m, r->size, r->memory + r->at, ring_avail(r), ring_used(r), 0, &err);
}

#endif
