/* SPDX-License-Identifier: Apache-2.0 */
/* The registers of virtio over MMIO: what a driver may do when, and what it gets when it does not keep to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include "base/loop.h"
#include "ring.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/mmio.h"
#include "virtio/rng.h"

#define ACK    1U
#define DRIVER 2U
#define DRV_OK 4U
#define FEATS  8U
#define RESETS 64U
#define FAILED 128U

static struct virtio_mmio mmio;
static struct virtio_device device;
static struct gmem mem;
static struct ring ring;
static struct blk disk;
static struct loop *loop;
static struct err err;

static int setup_device(const struct virtio_ops *ops, void *state)
{
	loop = loop_new(&err);
	ring = (struct ring){ .memory =
				      mmap(NULL, RING_MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
			      .size = 8 };
	mem = (struct gmem){ .count = 1 };
	mem.regions[0] = (struct gmem_region){ .guest = RING_BASE, .size = RING_MEM, .host = ring.memory };
	device = (struct virtio_device){ .ops = *ops, .state = state, .loop = loop };
	return loop ? virtio_mmio_init(&mmio, &device, &mem, NULL, NULL, &err) : -1;
}

static int setup(void **state)
{
	struct virtio_ops ops;
	int fd = memfd_create("disk", MFD_CLOEXEC);

	disk = (struct blk){ 0 };
	if (fd < 0 || ftruncate(fd, 8192) || blk_add(&disk, fd, 8192, &err))
		return -1;
	ops = blk_ops(&disk);
	return setup_device(&ops, &disk);
}

static int teardown(void **state)
{
	virtio_mmio_fini(&mmio);
	loop_free(loop);
	if (disk.count)
		(void)close(disk.extents[0].fd);
	disk.count = 0;
	return munmap(ring.memory, RING_MEM);
}

static uint32_t get(uint32_t reg)
{
	uint32_t value = 0xdddddddd;

	virtio_mmio_read(&mmio, reg, 4, (uint8_t *)&value);
	return value;
}

static void put(uint32_t reg, uint32_t value)
{
	virtio_mmio_write(&mmio, reg, 4, (uint8_t *)&value);
}

static void features(uint64_t f)
{
	put(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	put(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)f);
	put(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	put(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(f >> 32));
}

static void negotiate(void)
{
	put(VIRTIO_MMIO_STATUS, ACK);
	put(VIRTIO_MMIO_STATUS, ACK | DRIVER);
	features(VIRTIO_VERSION_1);
	put(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATS);
}

static void queue(uint32_t i, uint32_t num)
{
	put(VIRTIO_MMIO_QUEUE_SEL, i);
	put(VIRTIO_MMIO_QUEUE_NUM, num);
	put(VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)RING_BASE);
	put(VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)RING_BASE + 0x4000);
	put(VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)RING_BASE + 0x6000);
	put(VIRTIO_MMIO_QUEUE_READY, 1);
}

static void start(uint32_t i)
{
	negotiate();
	queue(i, ring.size);
	put(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATS | DRV_OK);
}

static void notify(uint32_t i)
{
	put(VIRTIO_MMIO_QUEUE_NOTIFY, i);
	assert_int_equal(loop_step(loop, 0, &err), 0);
}

static void test_identity(void **state)
{
	assert_int_equal(get(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	assert_int_equal(get(VIRTIO_MMIO_VERSION), 2);
	assert_int_equal(get(VIRTIO_MMIO_DEVICE_ID), 2);
	put(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	assert_int_equal(get(VIRTIO_MMIO_DEVICE_FEATURES), 1);
	put(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	assert_int_equal(get(VIRTIO_MMIO_DEVICE_FEATURES), 0);
	assert_int_equal(get(VIRTIO_MMIO_QUEUE_NUM_MAX), 128);
	put(VIRTIO_MMIO_QUEUE_SEL, 1);
	assert_int_equal(get(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	put(VIRTIO_MMIO_QUEUE_SEL, UINT32_MAX);
	assert_int_equal(get(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	assert_int_equal(get(VIRTIO_MMIO_QUEUE_READY), 0);
	assert_int_equal(get(VIRTIO_MMIO_SHM_LEN_LOW), UINT32_MAX);
}

static void test_access_widths(void **state)
{
	uint8_t bytes[8] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	virtio_mmio_read(&mmio, VIRTIO_MMIO_MAGIC_VALUE, 2, bytes);
	assert_int_equal(bytes[0], 0);
	virtio_mmio_read(&mmio, VIRTIO_MMIO_MAGIC_VALUE + 1, 4, bytes);
	assert_int_equal(bytes[0], 0);
	virtio_mmio_write(&mmio, VIRTIO_MMIO_STATUS, 1, (uint8_t[]){ ACK });
	assert_int_equal(get(VIRTIO_MMIO_STATUS), 0);
	virtio_mmio_read(&mmio, VIRTIO_MMIO_CONFIG, 1, bytes);
	assert_int_equal(bytes[0], 16); /* sectors */
	virtio_mmio_read(&mmio, VIRTIO_MMIO_CONFIG, 8, bytes);
	assert_int_equal(bytes[0], 16);
	memset(bytes, 0xff, sizeof(bytes));
	virtio_mmio_read(&mmio, VIRTIO_MMIO_SIZE - 4, 8, bytes);
	assert_int_equal(bytes[0], 0);
}

static void test_status_order(void **state)
{
	put(VIRTIO_MMIO_STATUS, DRV_OK);
	assert_int_equal(get(VIRTIO_MMIO_STATUS), 0);
	put(VIRTIO_MMIO_STATUS, ACK);
	put(VIRTIO_MMIO_STATUS, ACK | FEATS);
	assert_int_equal(get(VIRTIO_MMIO_STATUS), ACK);
	put(VIRTIO_MMIO_STATUS, ACK | DRIVER);
	put(VIRTIO_MMIO_STATUS, ACK); /* takes a bit back */
	assert_int_equal(get(VIRTIO_MMIO_STATUS), ACK | DRIVER);
	put(VIRTIO_MMIO_STATUS, FAILED);
	put(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATS);
	assert_int_equal(get(VIRTIO_MMIO_STATUS), ACK | DRIVER | FAILED);
	put(VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(get(VIRTIO_MMIO_STATUS), 0);
}

static void test_features(void **state)
{
	features(VIRTIO_VERSION_1); /* too early: not taken */
	put(VIRTIO_MMIO_STATUS, ACK | DRIVER);
	put(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATS);
	assert_int_equal(get(VIRTIO_MMIO_STATUS), ACK | DRIVER);
	features(VIRTIO_VERSION_1 | 1ULL << 28 /* indirect: not offered */);
	put(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATS);
	assert_int_equal(get(VIRTIO_MMIO_STATUS), ACK | DRIVER);
	features(1ULL << VIRTIO_BLK_F_FLUSH); /* without version 1 */
	put(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATS);
	assert_int_equal(get(VIRTIO_MMIO_STATUS), ACK | DRIVER);
	features(VIRTIO_VERSION_1 | 1ULL << VIRTIO_BLK_F_FLUSH);
	put(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATS);
	assert_int_equal(get(VIRTIO_MMIO_STATUS), ACK | DRIVER | FEATS);
	features(0);
	assert_int_equal(mmio.driver_features, VIRTIO_VERSION_1 | 1ULL << VIRTIO_BLK_F_FLUSH);
}

/* The queue registers of a running device are frozen (the lesson of CVE-2026-5747). */
static void test_queue_registers_frozen(void **state)
{
	queue(0, 4);
	assert_int_equal(mmio.queues[0].num, 0); /* before "features ok" */
	start(0);
	put(VIRTIO_MMIO_QUEUE_NUM, 0x10000);
	put(VIRTIO_MMIO_QUEUE_DESC_LOW, 0xfffff000);
	assert_int_equal(mmio.queues[0].num, ring.size);
	assert_int_equal(mmio.queues[0].desc, RING_BASE);
	assert_int_equal(device.queues[0].size, ring.size);
}

static void offer_read(void)
{
	struct virtio_blk_outhdr h = { .type = VIRTIO_BLK_T_IN };

	memcpy(ring.memory + 0x8000, &h, sizeof(h));
	ring_desc(&ring, 0, RING_BASE + 0x8000, sizeof(h), 1, 1);
	ring_desc(&ring, 1, RING_BASE + 0x9000, 513, 2, 0);
	ring_offer(&ring, 0);
}

static void test_request_and_interrupt(void **state)
{
	start(0);
	offer_read();
	notify(0);
	assert_int_equal(ring_used_idx(&ring), 1);
	assert_int_equal(get(VIRTIO_MMIO_INTERRUPT_STATUS), 1);
	put(VIRTIO_MMIO_INTERRUPT_ACK, 1);
	assert_int_equal(get(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	notify(7); /* no such queue */
	assert_int_equal(get(VIRTIO_MMIO_STATUS), ACK | DRIVER | FEATS | DRV_OK);
}

static void test_notify_before_driver_ok(void **state)
{
	negotiate();
	queue(0, ring.size);
	offer_read();
	notify(0);
	assert_int_equal(ring_used_idx(&ring), 0);
	put(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATS | DRV_OK);
	assert_int_equal(ring_used_idx(&ring), 1);
}

static void expect_needs_reset(void)
{
	assert_true(get(VIRTIO_MMIO_STATUS) & RESETS);
	assert_true(get(VIRTIO_MMIO_INTERRUPT_STATUS) & 2);
	put(VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(get(VIRTIO_MMIO_STATUS), 0);
	assert_int_equal(get(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	memset(ring.memory, 0, RING_MEM);
}

static void test_needs_reset(void **state)
{
	start(0);
	ring_set_idx(&ring, 100);
	notify(0);
	expect_needs_reset();
	start(0);
	offer_read();
	notify(0);
	assert_int_equal(ring_used_idx(&ring), 1);
}

static void test_bad_queue_addresses(void **state)
{
	static const uint32_t bad[][3] = { { 0, 0x4000, 0x6000 },
					   { 0x100000, 0x104001, 0x106000 },
					   { 0x100000, 0x1ffff8, 0x106000 },
					   { 0x100000, 0x104000, 0xfffffffc } };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		negotiate();
		put(VIRTIO_MMIO_QUEUE_NUM, 8);
		put(VIRTIO_MMIO_QUEUE_DESC_LOW, bad[i][0]);
		put(VIRTIO_MMIO_QUEUE_AVAIL_LOW, bad[i][1]);
		put(VIRTIO_MMIO_QUEUE_USED_LOW, bad[i][2]);
		put(VIRTIO_MMIO_QUEUE_READY, 1);
		put(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATS | DRV_OK);
		expect_needs_reset();
	}
	negotiate();
	queue(0, 3);
	put(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATS | DRV_OK);
	expect_needs_reset();
}

static void test_empty_slot(void **state)
{
	struct virtio_mmio slot;

	assert_int_equal(virtio_mmio_init(&slot, NULL, &mem, NULL, NULL, &err), 0);
	for (uint32_t reg = 0; reg < VIRTIO_MMIO_SIZE; reg += 4) {
		uint32_t value = 0;

		virtio_mmio_write(&slot, reg, 4, (uint8_t *)&value);
		virtio_mmio_read(&slot, reg, 4, (uint8_t *)&value);
		assert_true(reg == VIRTIO_MMIO_MAGIC_VALUE || reg == VIRTIO_MMIO_VERSION ||
			    reg == VIRTIO_MMIO_VENDOR_ID || value == 0);
	}
	virtio_mmio_fini(&slot);
}

/* ---- the small devices */

static int setup_rng(void **state)
{
	struct virtio_ops ops = rng_ops();

	return setup_device(&ops, NULL);
}

static void test_rng(void **state)
{
	static const uint8_t zeros[64];

	start(0);
	ring_desc(&ring, 0, RING_BASE + 0x8000, 64, 2, 0);
	ring_desc(&ring, 1, RING_BASE + 0x9000, 64, 0, 0); /* nothing to write to */
	ring_offer(&ring, 0);
	notify(0);
	assert_int_equal(ring_used_idx(&ring), 1);
	assert_memory_not_equal(ring.memory + 0x8000, zeros, 64);
	ring_offer(&ring, 1);
	notify(0);
	expect_needs_reset();
}

static char printed[64];

static void on_print(void *arg, const void *bytes, size_t n)
{
	strncat(printed, bytes, n);
}

static int setup_console(void **state)
{
	static struct console console = { .write = on_print };
	struct virtio_ops ops = console_ops();

	printed[0] = '\0';
	return setup_device(&ops, &console);
}

static void test_console(void **state)
{
	start(1);
	memcpy(ring.memory + 0x8000, "hello, world", 12);
	ring_desc(&ring, 0, RING_BASE + 0x8000, 7, 1, 1);
	ring_desc(&ring, 1, RING_BASE + 0x8007, 5, 0, 0);
	ring_offer(&ring, 0);
	notify(1);
	assert_string_equal(printed, "hello, world");
	ring_desc(&ring, 2, RING_BASE + 0x8000, 7, 2, 0); /* the wrong direction */
	ring_offer(&ring, 2);
	notify(1);
	expect_needs_reset();
}

static struct balloon balloon;

static int setup_balloon(void **state)
{
	struct virtio_ops ops = balloon_ops();

	balloon = (struct balloon){ .mem = &mem };
	return setup_device(&ops, &balloon);
}

static size_t resident(size_t offset, size_t len)
{
	unsigned char pages[RING_MEM / 4096];
	size_t n = 0;

	assert_int_equal(mincore(ring.memory + offset, len, pages), 0);
	for (size_t i = 0; i < len / 4096; i++)
		n += pages[i] & 1;
	return n;
}

/* Memory that the guest reports free goes back to the host: the pages are not there any more. */
static void test_balloon_reporting(void **state)
{
	start(2);
	memset(ring.memory + 0x40000, 0xaa, 0x20000);
	assert_int_equal(resident(0x40000, 0x20000), 32);
	ring_desc(&ring, 0, RING_BASE + 0x40000, 0x10000, 3, 1);
	ring_desc(&ring, 1, RING_BASE + 0x50800, 0x2000, 2, 0); /* one whole page of it */
	ring_offer(&ring, 0);
	notify(2);
	assert_int_equal(balloon.returned, 0x11000);
	assert_int_equal(resident(0x40000, 0x20000), 32 - 17);
	assert_int_equal(ring.memory[0x40000], 0);
	assert_int_equal(ring.memory[0x50800], 0xaa);
	assert_int_equal(ring.memory[0x51000], 0);
}

static void test_balloon_inflate(void **state)
{
	uint32_t pages[] = { (RING_BASE + 0x40000) / 4096, (RING_BASE + 0x43000) / 4096 }, config = 7;

	balloon.target = 2;
	assert_int_equal(get(VIRTIO_MMIO_CONFIG), 2);
	start(0);
	memset(ring.memory + 0x40000, 0xaa, 0x4000);
	memcpy(ring.memory + 0x8000, pages, sizeof(pages));
	ring_desc(&ring, 0, RING_BASE + 0x8000, sizeof(pages), 0, 0);
	ring_offer(&ring, 0);
	notify(0);
	assert_int_equal(resident(0x40000, 0x4000), 2);
	virtio_mmio_write(&mmio, VIRTIO_MMIO_CONFIG + 4, 4, (uint8_t *)&config);
	assert_int_equal(balloon.actual, 7);
	virtio_mmio_config_changed(&mmio);
	assert_int_equal(get(VIRTIO_MMIO_CONFIG_GENERATION), 1);
	/* A page that is no memory breaks the rules. */
	pages[0] = UINT32_MAX;
	memcpy(ring.memory + 0x8000, pages, sizeof(pages));
	ring_offer(&ring, 0);
	notify(0);
	expect_needs_reset();
}

int main(void)
{
#define TEST(f)          cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TEST_WITH(f, up) cmocka_unit_test_setup_teardown(f, up, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_identity),
		TEST(test_access_widths),
		TEST(test_status_order),
		TEST(test_features),
		TEST(test_queue_registers_frozen),
		TEST(test_request_and_interrupt),
		TEST(test_notify_before_driver_ok),
		TEST(test_needs_reset),
		TEST(test_bad_queue_addresses),
		TEST(test_empty_slot),
		TEST_WITH(test_rng, setup_rng),
		TEST_WITH(test_console, setup_console),
		TEST_WITH(test_balloon_reporting, setup_balloon),
		TEST_WITH(test_balloon_inflate, setup_balloon),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
