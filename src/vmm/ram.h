/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's memory in the monitor: anonymous, private, never committed before it is touched.
 * RAM lies from 0 to at most 3 GiB and from 4 GiB on; between are the devices and the interrupt controllers.
 */
#ifndef WALNUT_VMM_RAM_H
#define WALNUT_VMM_RAM_H

#include "virtio/gmem.h"

#define RAM_HOLE_START 0xc0000000ULL
#define RAM_HOLE_END   0x100000000ULL
#define RAM_MIN        (32ULL << 20)
#define RAM_MAX        (64ULL << 30)

/* ram_create - @bytes (a multiple of 4096 between RAM_MIN and RAM_MAX) as one or two regions of @m. */
int ram_create(struct gmem *m, uint64_t bytes, struct err *err) MUST_CHECK;
/* ram_map_file - show @len bytes of a file at @guest, copy on write; both addresses page aligned, the range in RAM. */
int ram_map_file(const struct gmem *m, uint64_t guest, uint64_t len, int fd, uint64_t offset,
		 struct err *err) MUST_CHECK;

#endif
