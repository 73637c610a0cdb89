/* SPDX-License-Identifier: Apache-2.0 */
/* The rules that a hostile driver may break, each on its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "ring.h"

#define NEXT     1
#define WRITE    2
#define INDIRECT 4

static struct ring ring;
static struct gmem mem;
static struct virtq q;
static struct virtq_chain chain;

static int setup(void **state)
{
	free(ring.memory);
	ring = (struct ring){ .memory = calloc(1, RING_MEM), .size = 4 };
	return ring.memory ? ring_start(&ring, &mem, &q) : -1;
}

static void expect_broken(void)
{
	assert_int_equal(virtq_pop(&q, &chain), -71 /* -EPROTO */);
	assert_true(q.broken);
	assert_int_equal(virtq_pop(&q, &chain), 0);
}

static void test_good_chain(void **state)
{
	ring_desc(&ring, 2, RING_BASE + 0x8000, 16, NEXT, 0);
	ring_desc(&ring, 0, RING_BASE + 0x9000, 100, WRITE, 0);
	ring_offer(&ring, 2);
	assert_int_equal(virtq_pop(&q, &chain), 1);
	assert_int_equal(chain.head, 2);
	assert_int_equal(chain.out_count, 1);
	assert_int_equal(chain.in_bytes, 100);
	virtq_push(&q, chain.head, 7);
	assert_int_equal(ring_used_idx(&ring), 1);
	assert_int_equal(virtq_pop(&q, &chain), 0);
}

static void test_sizes_and_alignment(void **state)
{
	struct err err;
	uint8_t *m = ring.memory;

	assert_true(virtq_start(&q, &mem, 0, m, m, m, 0, &err) < 0);
	assert_true(virtq_start(&q, &mem, 3, m, m, m, 0, &err) < 0);
	assert_true(virtq_start(&q, &mem, VIRTQ_SIZE_MAX * 2, m, m, m, 0, &err) < 0);
	assert_true(virtq_start(&q, &mem, 4, m + 8, m, m, 0, &err) < 0);
	assert_true(virtq_start(&q, &mem, 4, m, m + 1, m, 0, &err) < 0);
	assert_true(virtq_start(&q, &mem, 4, m, m, m + 2, 0, &err) < 0);
	assert_true(virtq_start(&q, &mem, 4, NULL, m, m, 0, &err) < 0);
}

static void test_index_jumps(void **state)
{
	ring_set_idx(&ring, 5);
	expect_broken();
}

static void test_head_out_of_range(void **state)
{
	ring_offer(&ring, 4);
	expect_broken();
}

static void test_next_out_of_range(void **state)
{
	ring_desc(&ring, 0, RING_BASE, 1, NEXT, 4);
	ring_offer(&ring, 0);
	expect_broken();
}

static void test_loop(void **state)
{
	ring_desc(&ring, 0, RING_BASE, 1, NEXT, 1);
	ring_desc(&ring, 1, RING_BASE, 1, NEXT, 0);
	ring_offer(&ring, 0);
	expect_broken();
}

static void test_read_after_write(void **state)
{
	ring_desc(&ring, 0, RING_BASE, 1, WRITE | NEXT, 1);
	ring_desc(&ring, 1, RING_BASE, 1, 0, 0);
	ring_offer(&ring, 0);
	expect_broken();
}

static void test_indirect(void **state)
{
	ring_desc(&ring, 0, RING_BASE, 16, INDIRECT, 0);
	ring_offer(&ring, 0);
	expect_broken();
}

static void test_addresses(void **state)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
	} bad[] = { { 0, 1 },
		    { RING_BASE - 1, 2 },
		    { RING_BASE + RING_MEM, 1 },
		    { RING_BASE + RING_MEM - 1, 2 },
		    { UINT64_MAX, 2 },
		    { RING_BASE, UINT32_MAX },
		    { RING_BASE, 0 } };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(setup(NULL), 0);
		ring_desc(&ring, 0, bad[i].addr, bad[i].len, 0, 0);
		ring_offer(&ring, 0);
		expect_broken();
	}
}

static void on_broken(void *arg)
{
	++*(int *)arg;
}

/* The transport hears of a broken rule, once; the driver's reset (a new start) heals it. */
static void test_broken_is_told_once(void **state)
{
	int told = 0;

	q.on_broken = on_broken;
	q.on_broken_arg = &told;
	ring_set_idx(&ring, 5);
	expect_broken();
	virtq_break(&q);
	assert_int_equal(told, 1);
	q.on_broken = NULL;
	assert_int_equal(setup(NULL), 0);
	assert_false(q.broken);
}

static void test_slices(void **state)
{
	char a[4] = "abc", b[4] = "def", out[7] = { 0 };
	struct iovec iov[2] = { { a, 3 }, { b, 3 } }, part[2];

	assert_int_equal(iov_copy_out(iov, 2, 2, out, 9), 4);
	assert_string_equal(out, "cdef");
	assert_int_equal(iov_slice(iov, 2, 2, 2, part, 2), 2);
	assert_int_equal(part[0].iov_len, 1);
	assert_int_equal(part[1].iov_len, 1);
	assert_int_equal(iov_copy_in(iov, 2, 5, "XY", 2), 1);
	assert_string_equal(b, "deX");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_good_chain, setup),
		cmocka_unit_test_setup(test_sizes_and_alignment, setup),
		cmocka_unit_test_setup(test_index_jumps, setup),
		cmocka_unit_test_setup(test_head_out_of_range, setup),
		cmocka_unit_test_setup(test_next_out_of_range, setup),
		cmocka_unit_test_setup(test_loop, setup),
		cmocka_unit_test_setup(test_read_after_write, setup),
		cmocka_unit_test_setup(test_indirect, setup),
		cmocka_unit_test_setup(test_addresses, setup),
		cmocka_unit_test_setup(test_broken_is_told_once, setup),
		cmocka_unit_test(test_slices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
