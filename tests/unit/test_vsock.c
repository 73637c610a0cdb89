/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-vsock against a driver made of two queues: connect, data, half-close, credit, hostile packets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_vsock.h>
#include <sys/socket.h>

#include "base/loop.h"
#include "ring.h"
#include "virtio/vsock.h"

#define HEADER  sizeof(struct virtio_vsock_hdr)
#define RX_AT   0U
#define TX_AT   0x10000U
#define RX_DATA 0x40000U
#define TX_DATA 0x80000U

static struct ring rx, tx;
static struct gmem mem;
static struct virtio_device device;
static struct vsock *v;
static struct virtio_ops ops;
static struct err err;
static int accepted_fd;
static uint16_t seen; /* rx packets looked at */

static int on_accept(void *arg, uint32_t port, int fd)
{
	accepted_fd = fd;
	return 0;
}

static int setup(void **state)
{
	uint8_t *memory = calloc(1, RING_MEM);

	rx = (struct ring){ memory, RX_AT, 8 };
	tx = (struct ring){ memory, TX_AT, 8 };
	memset(&device, 0, sizeof(device));
	v = vsock_new(on_accept, NULL);
	ops = vsock_ops();
	device.state = v;
	device.loop = loop_new(&err);
	accepted_fd = -1;
	seen = 0;
	if (!memory || !v || ring_start(&rx, &mem, &device.queues[0]) || ring_start(&tx, &mem, &device.queues[1]) ||
	    vsock_listen(v, 1024))
		return -1;
	for (uint16_t i = 0; i < 8; i++) {
		ring_desc(&rx, i, RING_BASE + RX_DATA + i * 4096U, 4096, 2, 0);
		ring_offer(&rx, i);
	}
	return 0;
}

static int teardown(void **state)
{
	vsock_free(v);
	loop_free(device.loop);
	free(rx.memory);
	if (accepted_fd >= 0)
		(void)close(accepted_fd);
	return 0;
}

static void guest_sends(uint16_t op, uint32_t host_port, uint32_t flags, const void *bytes, uint32_t len,
			uint32_t say_len)
{
	struct virtio_vsock_hdr h = { .src_cid = 3,
				      .dst_cid = 2,
				      .src_port = 77,
				      .dst_port = host_port,
				      .len = say_len,
				      .type = 1,
				      .op = op,
				      .flags = flags,
				      .buf_alloc = 8 };

	memcpy(tx.memory + TX_DATA, &h, HEADER);
	if (len)
		memcpy(tx.memory + TX_DATA + HEADER, bytes, len);
	ring_desc(&tx, 0, RING_BASE + TX_DATA, (uint32_t)HEADER + len, 0, 0);
	ring_offer(&tx, 0);
	ops.kick(&device, 1);
}

/* next - the next packet to the guest; op 0: none. */
static struct virtio_vsock_hdr next(void)
{
	struct virtio_vsock_hdr h = { 0 };
	uint32_t id;

	if (ring_used_idx(&rx) == seen)
		return h;
	memcpy(&id, ring_used(&rx) + 4 + 8U * (seen % 8), 4);
	memcpy(&h, rx.memory + RX_DATA + id * 4096U, HEADER);
	seen++;
	ring_offer(&rx, (uint16_t)id);
	return h;
}

static void step(void)
{
	for (int i = 0; i < 4; i++)
		assert_int_equal(loop_step(device.loop, 0, &err), 0);
}

static void test_unlistened(void **state)
{
	guest_sends(VIRTIO_VSOCK_OP_REQUEST, 9, 0, NULL, 0, 0);
	assert_int_equal(next().op, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(accepted_fd, -1);
}

static void test_talk(void **state)
{
	struct virtio_vsock_hdr h;
	char back[32] = "";

	guest_sends(VIRTIO_VSOCK_OP_REQUEST, 1024, 0, NULL, 0, 0);
	assert_int_equal(next().op, VIRTIO_VSOCK_OP_RESPONSE);
	guest_sends(VIRTIO_VSOCK_OP_RW, 1024, 0, "hello", 5, 5);
	assert_int_equal(read(accepted_fd, back, sizeof(back)), 5);
	assert_string_equal(back, "hello");

	assert_int_equal(write(accepted_fd, "0123456789", 10), 10);
	step();
	h = next();
	assert_int_equal(h.op, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(h.len, 8); /* the guest's credit */
	assert_int_equal(next().op, 0);

	guest_sends(VIRTIO_VSOCK_OP_SHUTDOWN, 1024, VIRTIO_VSOCK_SHUTDOWN_SEND, NULL, 0, 0);
	assert_int_equal(read(accepted_fd, back, sizeof(back)), 0);
	guest_sends(VIRTIO_VSOCK_OP_SHUTDOWN, 1024, 3, NULL, 0, 0);
	assert_int_equal(next().op, VIRTIO_VSOCK_OP_RST);
}

static void test_host_half_close(void **state)
{
	struct virtio_vsock_hdr h;

	guest_sends(VIRTIO_VSOCK_OP_REQUEST, 1024, 0, NULL, 0, 0);
	assert_int_equal(next().op, VIRTIO_VSOCK_OP_RESPONSE);
	assert_int_equal(shutdown(accepted_fd, SHUT_WR), 0);
	step();
	h = next();
	assert_int_equal(h.op, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(h.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	guest_sends(VIRTIO_VSOCK_OP_RW, 1024, 0, "x", 1, 1); /* the other way still works */
	assert_int_equal(read(accepted_fd, &(char){ 0 }, 1), 1);
}

static void test_hostile(void **state)
{
	static uint8_t big[60000];
	uint16_t op = 0;

	guest_sends(VIRTIO_VSOCK_OP_RW, 1024, 0, "x", 1, 1); /* no such connection */
	assert_int_equal(next().op, VIRTIO_VSOCK_OP_RST);
	guest_sends(VIRTIO_VSOCK_OP_REQUEST, 1024, 0, NULL, 0, 0);
	assert_int_equal(next().op, VIRTIO_VSOCK_OP_RESPONSE);
	guest_sends(VIRTIO_VSOCK_OP_RW, 1024, 0, "x", 1, 500); /* longer than the chain: dropped */
	assert_int_equal(next().op, 0);
	for (int i = 0; i < 32 && op != VIRTIO_VSOCK_OP_RST; i++) { /* more than its credit */
		guest_sends(VIRTIO_VSOCK_OP_RW, 1024, 0, big, sizeof(big), sizeof(big));
		op = next().op;
	}
	assert_int_equal(op, VIRTIO_VSOCK_OP_RST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_unlistened, setup, teardown),
		cmocka_unit_test_setup_teardown(test_talk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_host_half_close, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
