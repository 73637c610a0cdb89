/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory as the device process sees it: a few regions of shared memory,
 * and the one place where a guest address becomes a pointer. A range is
 * translated only if the whole of it lies in one region.
 */
#ifndef WALNUT_VIRTIO_GMEM_H
#define WALNUT_VIRTIO_GMEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define GMEM_REGIONS_MAX 8

struct gmem_region {
	uint64_t guest; /* guest physical address */
	uint64_t user;  /* address in the front end's process, in which vhost-user names the rings */
	uint64_t size;
	uint8_t *host; /* where the region is here */
	void *map;     /* the mapping, owned; NULL: borrowed memory (tests) */
	size_t map_len;
};

struct gmem {
	struct gmem_region regions[GMEM_REGIONS_MAX];
	size_t count;
};

/* gmem_map - map @size bytes at @offset of @fd (borrowed) as a further region. Return: 0 or -errno with @err. */
int gmem_map(struct gmem *m, uint64_t guest, uint64_t user, uint64_t size, int fd, uint64_t offset,
	     struct err *err) MUST_CHECK;
void gmem_unmap_all(struct gmem *m);
/* gmem_at - @len bytes at a guest physical address; NULL when not wholly in one region, or @len is 0. */
void *gmem_at(const struct gmem *m, uint64_t guest, uint64_t len);
/* gmem_at_user - the same for an address of the front end's process. */
void *gmem_at_user(const struct gmem *m, uint64_t user, uint64_t len);

#endif
