/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-blk requests: ranges, directions, files end to end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_blk.h>

#include "virtio/blk.h"

static uint8_t data[8192], status;
static struct virtio_blk_outhdr header;

static uint8_t request(struct blk *b, uint32_t type, uint64_t sector, size_t out, size_t in)
{
	static struct virtq_chain c;

	header = (struct virtio_blk_outhdr){ .type = type, .sector = sector };
	status = 0xff;
	memset(&c, 0, sizeof(c));
	c.iov[c.out_count++] = (struct iovec){ &header, sizeof(header) };
	if (out)
		c.iov[c.out_count++] = (struct iovec){ data, out };
	if (in)
		c.iov[c.out_count + c.in_count++] = (struct iovec){ data, in };
	c.iov[c.out_count + c.in_count++] = (struct iovec){ &status, 1 };
	c.out_bytes = (uint32_t)(sizeof(header) + out);
	c.in_bytes = (uint32_t)(in + 1);
	(void)blk_request(b, &c);
	return status;
}

static int file(const char *text, off_t size)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);

	assert_true(fd >= 0 && ftruncate(fd, size) == 0);
	assert_int_equal(pwrite(fd, text, strlen(text), 0), (ssize_t)strlen(text));
	return fd;
}

static void test_layers(void **state)
{
	struct blk b = { .read_only = true };
	struct err err;

	assert_int_equal(blk_add(&b, file("one", 5000), 5000, &err), 0);
	assert_int_equal(blk_add(&b, file("two", 4096), 4096, &err), 0);
	assert_int_equal(b.capacity, 12288);
	memset(data, 0xee, sizeof(data));
	assert_int_equal(request(&b, VIRTIO_BLK_T_IN, 8, 0, 8192),
			 VIRTIO_BLK_S_OK); /* across both, past the end of the first */
	assert_int_equal(data[0], 0);
	assert_int_equal(data[4095], 0);
	assert_memory_equal(data + 4096, "two", 3);
	assert_int_equal(request(&b, VIRTIO_BLK_T_OUT, 0, 512, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(&b, VIRTIO_BLK_T_DISCARD, 0, 16, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(&b, VIRTIO_BLK_T_IN, 24, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(&b, VIRTIO_BLK_T_IN, 23, 0, 1024), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(&b, VIRTIO_BLK_T_IN, UINT64_MAX, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(&b, VIRTIO_BLK_T_IN, UINT64_MAX / 512, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(&b, VIRTIO_BLK_T_IN, 0, 0, 100), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(&b, VIRTIO_BLK_T_IN, 0, 512, 512), VIRTIO_BLK_S_IOERR);
}

static void test_scratch(void **state)
{
	struct virtio_blk_discard_write_zeroes range = { .sector = 8, .num_sectors = 8 };
	struct blk b = { .serial = "serial" };
	struct err err;
	char back[4] = "";
	int fd = file("", 1 << 20);

	assert_int_equal(blk_add(&b, fd, 1 << 20, &err), 0);
	memcpy(data, "abc", 3);
	assert_int_equal(request(&b, VIRTIO_BLK_T_OUT, 8, 512, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(pread(fd, back, 3, 4096), 3);
	assert_string_equal(back, "abc");
	assert_int_equal(request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
	memcpy(data, &range, sizeof(range));
	assert_int_equal(request(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, sizeof(range), 0), VIRTIO_BLK_S_OK);
	assert_int_equal(pread(fd, back, 3, 4096), 3);
	assert_int_equal(back[0], 0);
	range.sector = UINT64_MAX;
	memcpy(data, &range, sizeof(range));
	assert_int_equal(request(&b, VIRTIO_BLK_T_DISCARD, 0, sizeof(range), 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(&b, VIRTIO_BLK_T_DISCARD, 0, 15, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(&b, VIRTIO_BLK_T_GET_ID, 0, 0, 20), VIRTIO_BLK_S_OK);
	assert_string_equal((char *)data, "serial");
	assert_int_equal(request(&b, 77, 0, 0, 0), VIRTIO_BLK_S_UNSUPP);
}

/* Discard gives the host its blocks back; write-zeroes that must not unmap keeps them. */
static void test_discard_frees_blocks(void **state)
{
	struct virtio_blk_discard_write_zeroes range = { .sector = 0, .num_sectors = 2048 };
	struct blk b = { 0 };
	struct err err;
	struct stat st;
	int fd = file("", 1 << 20);

	assert_int_equal(blk_add(&b, fd, 1 << 20, &err), 0);
	memset(data, 1, sizeof(data));
	for (uint64_t sector = 0; sector < 2048; sector += 16)
		assert_int_equal(request(&b, VIRTIO_BLK_T_OUT, sector, sizeof(data), 0), VIRTIO_BLK_S_OK);
	assert_true(fstat(fd, &st) == 0 && st.st_blocks == 2048);
	memcpy(data, &range, sizeof(range));
	assert_int_equal(request(&b, VIRTIO_BLK_T_DISCARD, 0, sizeof(range), 0), VIRTIO_BLK_S_OK);
	assert_true(fstat(fd, &st) == 0 && st.st_blocks == 0);
	assert_int_equal(st.st_size, 1 << 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_layers), cmocka_unit_test(test_scratch),
					    cmocka_unit_test(test_discard_frees_blocks) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
