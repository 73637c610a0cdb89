/* sources: src/vmm/boot.c src/vmm/ram.c src/virtio/gmem.c src/base/err.c src/base/fd.c */
/* libs: */
/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels of any bytes (ELF and bzImage): loading fails or puts something into guest memory, and nowhere else. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/boot.h"
#include "vmm/ram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct boot_config config = { .initrd_fd = -1, .cmdline = "quiet", .vcpus = 1 };
	struct boot_entry entry;
	struct gmem ram;
	struct err err;
	int fd;

	if (size < 2)
		return 0;
	fd = memfd_create("kernel", 0);
	/* The first bytes choose the file's size, so that short inputs have segments to map; an odd one adds an initramfs. */
	if (fd < 0 || pwrite(fd, data + 2, size - 2, 0) < 0 || ftruncate(fd, (off_t)(size - 2 + data[0] * 1024U)) < 0 ||
	    ram_create(&ram, RAM_MIN, &err) < 0)
		abort();
	config.kernel_fd = fd;
	config.vcpus = data[1] % 40;
	if (data[1] & 0x80)
		config.initrd_fd = fd;
	if (boot_load(&ram, &config, &entry, &err) == 0 && !gmem_at(&ram, entry.rip, 1))
		abort();
	gmem_unmap_all(&ram);
	(void)close(fd);
	return 0;
}
