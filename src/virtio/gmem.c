/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory: mapping and translation. */
#include "virtio/gmem.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

int gmem_map(struct gmem *m, uint64_t guest, uint64_t user, uint64_t size, int fd, uint64_t offset, struct err *err)
{
	uint64_t end;
	struct stat st;
	void *map;

	if (m->count == GMEM_REGIONS_MAX)
		return err_set(err, EINVAL, "more than %d memory regions", GMEM_REGIONS_MAX);
	if (size == 0 || __builtin_add_overflow(offset, size, &end) ||
	    __builtin_add_overflow(guest, size, &(uint64_t){ 0 }) ||
	    __builtin_add_overflow(user, size, &(uint64_t){ 0 }) || end > (uint64_t)INT64_MAX)
		return err_set(err, EINVAL, "a memory region wraps around");
	if (fstat(fd, &st) < 0)
		return err_sys(err, errno, "guest memory");
	if (end > (uint64_t)st.st_size)
		return err_set(err, EINVAL, "a memory region is larger than its file");
	map = mmap(NULL, (size_t)end, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (map == MAP_FAILED)
		return err_sys(err, errno, "cannot map guest memory");
	m->regions[m->count++] = (struct gmem_region){ .guest = guest,
						       .user = user,
						       .size = size,
						       .host = (uint8_t *)map + offset,
						       .map = map,
						       .map_len = (size_t)end };
	return 0;
}

void gmem_unmap_all(struct gmem *m)
{
	for (size_t i = 0; i < m->count; i++)
		if (m->regions[i].map)
			(void)munmap(m->regions[i].map, m->regions[i].map_len);
	memset(m, 0, sizeof(*m));
}

static void *translate(const struct gmem_region *r, uint64_t base, uint64_t addr, uint64_t len)
{
	uint64_t offset;

	if (addr < base || len == 0)
		return NULL;
	offset = addr - base;
	if (offset >= r->size || len > r->size - offset)
		return NULL;
	return r->host + offset;
}

void *gmem_at(const struct gmem *m, uint64_t guest, uint64_t len)
{
	for (size_t i = 0; i < m->count; i++) {
		void *p = translate(&m->regions[i], m->regions[i].guest, guest, len);

		if (p)
			return p;
	}
	return NULL;
}

void *gmem_at_user(const struct gmem *m, uint64_t user, uint64_t len)
{
	for (size_t i = 0; i < m->count; i++) {
		void *p = translate(&m->regions[i], m->regions[i].user, user, len);

		if (p)
			return p;
	}
	return NULL;
}
