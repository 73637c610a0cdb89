/* SPDX-License-Identifier: Apache-2.0 */
/* vhost-user from the front end's side: a disk set up by messages, used, broken by a bad ring, and set up again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_blk.h>

#include "base/fd.h"
#include "base/loop.h"
#include "ring.h"
#include "virtio/blk.h"
#include "virtio/vhost_user.h"

/* QEMU, docs/interop/vhost-user.rst */
enum { GET_FEATURES = 1, SET_FEATURES = 2, SET_MEM_TABLE = 5, SET_NUM = 8, SET_ADDR = 9, SET_BASE = 10, GET_BASE = 11 };
enum { SET_KICK = 12, SET_CALL = 13, SET_ERR = 14, GET_CONFIG = 24 };

static struct loop *loop;
static struct vu_device device;
static struct blk disk;
static struct ring ring;
static struct err err;
static int front, kick_fd, call_fd, err_fd;
static bool gone;

static void on_gone(struct vu_device *d)
{
	gone = true;
}

static void send_message(uint32_t request, const void *payload, uint32_t size, const int *fds, size_t nfds)
{
	uint32_t header[3] = { request, 1, size };
	char bytes[512];

	memcpy(bytes, header, sizeof(header));
	memcpy(bytes + sizeof(header), payload, size);
	assert_int_equal(fd_send(front, bytes, sizeof(header) + size, fds, nfds), sizeof(header) + size);
	assert_int_equal(loop_step(loop, 0, &err), 0);
}

static void send_state(uint32_t request, uint32_t queue, uint32_t num)
{
	send_message(request, (uint32_t[]){ queue, num }, 8, NULL, 0);
}

static void send_fd(uint32_t request, int fd)
{
	send_message(request, (uint64_t[]){ 0 }, 8, &fd, 1);
}

static bool signalled(int fd)
{
	uint64_t n;

	return read(fd, &n, sizeof(n)) == sizeof(n);
}

static void set_up_queue(void)
{
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} addr = { 0, 0, RING_BASE, RING_BASE + 0x6000, RING_BASE + 0x4000, 0 };

	memset(ring.memory, 0, RING_MEM);
	send_state(SET_NUM, 0, ring.size);
	send_state(SET_BASE, 0, 0);
	send_message(SET_ADDR, &addr, sizeof(addr), NULL, 0);
	send_fd(SET_CALL, call_fd);
	send_fd(SET_ERR, err_fd);
	send_fd(SET_KICK, kick_fd);
}

static int setup(void **state)
{
	int pair[2], file = memfd_create("disk", MFD_CLOEXEC), memory = memfd_create("memory", MFD_CLOEXEC);
	struct virtio_ops ops;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || ftruncate(file, 8192) || ftruncate(memory, RING_MEM))
		return -1;
	gone = false;
	front = pair[0];
	kick_fd = eventfd(0, EFD_NONBLOCK);
	call_fd = eventfd(0, EFD_NONBLOCK);
	err_fd = eventfd(0, EFD_NONBLOCK);
	ring = (struct ring){ mmap(NULL, RING_MEM, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0), 0, 8 };
	disk = (struct blk){ 0 };
	loop = loop_new(&err);
	if (!loop || blk_add(&disk, file, 8192, &err))
		return -1;
	ops = blk_ops(&disk);
	if (vu_init(&device, &ops, &disk, loop, pair[1], on_gone, &err))
		return -1;
	send_message(SET_FEATURES, (uint64_t[]){ 1ULL << 32 }, 8, NULL, 0);
	send_message(SET_MEM_TABLE, (uint64_t[]){ 1, RING_BASE, RING_MEM, RING_BASE, 0 }, 40, &memory, 1);
	(void)close(memory);
	set_up_queue();
	return 0;
}

static int teardown(void **state)
{
	vu_fini(&device);
	loop_free(loop);
	(void)close(front);
	(void)close(kick_fd);
	(void)close(call_fd);
	(void)close(err_fd);
	return munmap(ring.memory, RING_MEM);
}

static void kick(void)
{
	assert_int_equal(write(kick_fd, (uint64_t[]){ 1 }, 8), 8);
	assert_int_equal(loop_step(loop, 0, &err), 0);
}

static void offer_request(uint32_t type)
{
	struct virtio_blk_outhdr h = { .type = type };

	memcpy(ring.memory + 0x8000, &h, sizeof(h));
	ring_desc(&ring, 0, RING_BASE + 0x8000, sizeof(h), 1, 1);
	ring_desc(&ring, 1, RING_BASE + 0x9000, 513, 2, 0);
	ring_offer(&ring, 0);
}

static void test_request(void **state)
{
	offer_request(VIRTIO_BLK_T_IN);
	kick();
	assert_int_equal(ring_used_idx(&ring), 1);
	assert_int_equal(ring.memory[0x9000 + 512], VIRTIO_BLK_S_OK);
	assert_true(signalled(call_fd));
	assert_false(signalled(err_fd));
	assert_false(gone);
}

static void test_broken_ring(void **state)
{
	ring_set_idx(&ring, 100);
	kick();
	assert_true(signalled(err_fd));
	assert_false(gone);
	/* Nothing more is taken from it, and the front end hears of it once. */
	ring_set_idx(&ring, 0);
	offer_request(VIRTIO_BLK_T_IN);
	kick();
	assert_int_equal(ring_used_idx(&ring), 0);
	assert_false(signalled(err_fd));
	/* Set up anew, it works. */
	set_up_queue();
	offer_request(VIRTIO_BLK_T_IN);
	kick();
	assert_int_equal(ring_used_idx(&ring), 1);
}

static void test_request_without_status_byte(void **state)
{
	struct virtio_blk_outhdr h = { .type = VIRTIO_BLK_T_FLUSH };

	memcpy(ring.memory + 0x8000, &h, sizeof(h));
	ring_desc(&ring, 0, RING_BASE + 0x8000, sizeof(h), 0, 0);
	ring_offer(&ring, 0);
	kick();
	assert_true(signalled(err_fd));
	assert_int_equal(ring_used_idx(&ring), 0);
}

static void test_front_end_breaks_protocol(void **state)
{
	send_state(SET_NUM, 1, 8);
	assert_true(gone);
}

static void test_config_out_of_range(void **state)
{
	send_message(GET_CONFIG, (uint32_t[]){ 200, 100, 0 }, 12, NULL, 0);
	assert_true(gone);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = { TEST(test_request), TEST(test_broken_ring),
					    TEST(test_request_without_status_byte),
					    TEST(test_front_end_breaks_protocol), TEST(test_config_out_of_range) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
