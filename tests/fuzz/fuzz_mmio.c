/* sources: src/virtio/virtq.c src/virtio/gmem.c src/virtio/mmio.c src/virtio/blk.c src/virtio/rng.c src/virtio/console.c src/virtio/balloon.c src/virtio/vsock.c src/base/err.c src/base/buf.c src/base/fd.c src/base/log.c src/base/utc.c src/base/loop.c */
/* libs: -lpthread */
/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver gone wild: the first byte chooses the device, the rest are records of accesses to its registers and
 * writes to the 64 KiB of memory that its queues lie in. Records: kind, place (2 bytes), value (4 bytes).
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/virtio_mmio.h>

#include "base/loop.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/mmio.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"

#define MEM  65536U
#define BASE 0x10000U

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_print(void *arg, const void *bytes, size_t n)
{
	volatile uint8_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum = (uint8_t)(sum + ((const uint8_t *)bytes)[i]);
}

static int on_accept(void *arg, uint32_t port, int fd)
{
	return close(fd);
}

static void put(struct virtio_mmio *m, uint32_t reg, uint32_t value)
{
	virtio_mmio_write(m, reg, 4, (uint8_t *)&value);
}

/* The way to a running device, so that inputs need not find it: queues of 8 at fixed places. */
static void bring_up(struct virtio_mmio *m)
{
	put(m, VIRTIO_MMIO_STATUS, 0);
	put(m, VIRTIO_MMIO_STATUS, 1);
	put(m, VIRTIO_MMIO_STATUS, 3);
	put(m, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	put(m, VIRTIO_MMIO_DRIVER_FEATURES, 1);
	put(m, VIRTIO_MMIO_STATUS, 11);
	for (uint32_t i = 0; i < m->dev->ops.queues; i++) {
		put(m, VIRTIO_MMIO_QUEUE_SEL, i);
		put(m, VIRTIO_MMIO_QUEUE_NUM, 8);
		put(m, VIRTIO_MMIO_QUEUE_DESC_LOW, BASE + i * 256);
		put(m, VIRTIO_MMIO_QUEUE_AVAIL_LOW, BASE + i * 256 + 128);
		put(m, VIRTIO_MMIO_QUEUE_USED_LOW, BASE + i * 256 + 160);
		put(m, VIRTIO_MMIO_QUEUE_READY, 1);
	}
	put(m, VIRTIO_MMIO_STATUS, 15);
}

static struct virtio_ops choose(uint8_t which, void **state, const struct gmem *mem, struct blk *disk, struct vsock *v)
{
	static struct console console = { .write = on_print };
	static struct balloon balloon;

	switch (which % 5) {
	case 0: *state = disk; return blk_ops(disk);
	case 1: *state = NULL; return rng_ops();
	case 2: *state = &console; return console_ops();
	case 3:
		balloon = (struct balloon){ .mem = mem };
		*state = &balloon;
		return balloon_ops();
	default: *state = v; return vsock_ops();
	}
}

static void record(struct virtio_mmio *m, uint8_t *memory, const uint8_t *r)
{
	uint32_t place = (uint32_t)(r[1] | r[2] << 8), value;
	uint8_t bytes[8];

	memcpy(&value, r + 3, sizeof(value));
	switch (r[0] % 8) {
	case 0: put(m, place % VIRTIO_MMIO_SIZE & ~3U, value); break;
	case 1: virtio_mmio_write(m, place % VIRTIO_MMIO_SIZE, 1U << (r[0] >> 3 & 3), r + 3); break;
	case 2: virtio_mmio_read(m, place % VIRTIO_MMIO_SIZE, 1U << (r[0] >> 3 & 3), bytes); break;
	case 3: bring_up(m); break;
	case 4: put(m, VIRTIO_MMIO_QUEUE_NOTIFY, value); break;
	default: memcpy(memory + place % (MEM - 4), r + 3, 4); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct blk disk;
	static uint8_t *memory;
	struct gmem mem = { .count = 1 };
	struct virtio_device device = { 0 };
	struct virtio_mmio m;
	struct vsock *v = vsock_new(on_accept, NULL);
	struct err err;
	int fd;

	if (!memory) {
		fd = memfd_create("disk", 0);
		memory = mmap(NULL, MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED || fd < 0 || ftruncate(fd, 16384) < 0 || blk_add(&disk, fd, 16384, &err) < 0)
			abort();
	}
	memset(memory, 0, MEM);
	mem.regions[0] = (struct gmem_region){ .guest = BASE, .size = MEM, .host = memory };
	device.loop = loop_new(&err);
	if (!device.loop || !v || vsock_listen(v, 1) < 0 || size < 1)
		goto out;
	device.ops = choose(data[0], &device.state, &mem, &disk, v);
	if (virtio_mmio_init(&m, &device, &mem, NULL, NULL, &err) < 0)
		abort();
	for (data++, size--; size >= 7; data += 7, size -= 7) {
		record(&m, memory, data);
		if (loop_step(device.loop, 0, &err) < 0)
			abort();
	}
	virtio_mmio_fini(&m);
out:
	vsock_free(v);
	loop_free(device.loop);
	return 0;
}
