/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory of the monitor. */
#include "vmm/ram.h"

#include <errno.h>
#include <sys/mman.h>

#define PAGE_MASK_ 4095ULL
#define HUGE_PAGE  (2ULL << 20)

/* map_aligned - memory that begins on a 2 MiB boundary, as the guest's address of it does: else KVM could not use huge pages. */
static void *map_aligned(uint64_t bytes)
{
	uint64_t all = bytes + HUGE_PAGE, skip;
	uint8_t *map =
		mmap(NULL, (size_t)all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		return map;
	skip = (HUGE_PAGE - (uintptr_t)map % HUGE_PAGE) % HUGE_PAGE;
	if (skip)
		(void)munmap(map, (size_t)skip);
	(void)munmap(map + skip + bytes, (size_t)(HUGE_PAGE - skip));
	return map + skip;
}

static int add_region(struct gmem *m, uint64_t guest, uint64_t bytes, struct err *err)
{
	void *map = map_aligned(bytes);

	if (map == MAP_FAILED)
		return err_sys(err, errno, "%llu MiB of guest memory", (unsigned long long)(bytes >> 20));
	/* A fault, and an exit of the guest, for each 2 MiB that it touches, not for each 4 KiB. */
	(void)madvise(map, (size_t)bytes, MADV_HUGEPAGE);
	m->regions[m->count++] = (struct gmem_region){
		.guest = guest, .size = bytes, .host = map, .map = map, .map_len = (size_t)bytes
	};
	return 0;
}

int ram_create(struct gmem *m, uint64_t bytes, struct err *err)
{
	uint64_t low = bytes < RAM_HOLE_START ? bytes : RAM_HOLE_START;
	int rc;

	*m = (struct gmem){ .count = 0 };
	if (bytes < RAM_MIN || bytes > RAM_MAX || (bytes & PAGE_MASK_))
		return err_set(err, EINVAL, "a virtual machine has 32 MiB to 64 GiB of memory, not %llu bytes",
			       (unsigned long long)bytes);
	rc = add_region(m, 0, low, err);
	if (rc == 0 && bytes > low)
		rc = add_region(m, RAM_HOLE_END, bytes - low, err);
	return rc;
}

int ram_map_file(const struct gmem *m, uint64_t guest, uint64_t len, int fd, uint64_t offset, struct err *err)
{
	void *at = gmem_at(m, guest, len);

	if (!at || ((guest | len | offset) & PAGE_MASK_))
		return err_set(err, EINVAL, "a file cannot be mapped at %#llx of guest memory",
			       (unsigned long long)guest);
	if (mmap(at, (size_t)len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)offset) ==
	    MAP_FAILED)
		return err_sys(err, errno, "map a file into guest memory");
	return 0;
}
