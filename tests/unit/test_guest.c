/* SPDX-License-Identifier: Apache-2.0 */
/* Hand-made guests of a few bytes on KVM: how machines end, what reaches the bus, pause and resume. Skipped without /dev/kvm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "vmm/guest.h"
#include "vmm/ram.h"

#define CODE 0x100000ULL

static struct gmem ram;
static struct guest guest;
static struct err err;
static int kvm_fd = -1;
static char log_text[4096];

static void note(const char *what, uint64_t at, uint32_t len, const uint8_t *bytes)
{
	size_t n = strlen(log_text);

	(void)snprintf(log_text + n, sizeof(log_text) - n, "%s %llx %u %02x;", what, (unsigned long long)at, len,
		       bytes[0]);
}

static void on_out(void *arg, uint16_t port, uint32_t len, const uint8_t *from)
{
	if (port == 0x64)
		guest_end(&guest, GUEST_RESET, NULL);
	else
		note("out", port, len, from);
}

static void on_in(void *arg, uint16_t port, uint32_t len, uint8_t *to)
{
	to[0] = 0x5a;
	note("in", port, len, to);
}

static void on_write(void *arg, uint64_t addr, uint32_t len, const uint8_t *from)
{
	note("write", addr, len, from);
}

static void on_read(void *arg, uint64_t addr, uint32_t len, uint8_t *to)
{
	to[0] = 0x33;
	note("read", addr, len, to);
}

static void start(const void *code, size_t n, unsigned int vcpus)
{
	const struct guest_bus bus = { .out = on_out, .in = on_in, .write = on_write, .read = on_read };
	const struct boot_entry entry = { .rip = CODE };

	log_text[0] = '\0';
	if (kvm_fd < 0)
		kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm_fd < 0)
		skip(); /* this machine has no /dev/kvm */
	assert_int_equal(ram_create(&ram, RAM_MIN, &err), 0);
	memcpy(gmem_at(&ram, CODE, n), code, n);
	assert_int_equal(guest_create(&guest, kvm_fd, &ram, vcpus, &bus, &err), 0);
	assert_int_equal(guest_set_entry(&guest, &entry, &err), 0);
	assert_int_equal(guest_start(&guest, &err), 0);
}

static bool wait_for(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

static enum guest_end finish(void)
{
	enum guest_end how;

	assert_true(wait_for(guest.end_fd, 20000));
	how = (enum guest_end)guest.end;
	guest_destroy(&guest);
	gmem_unmap_all(&ram);
	return how;
}

static enum guest_end run(const void *code, size_t n)
{
	start(code, n, 1);
	guest_resume(&guest);
	return finish();
}

static void test_reset(void **state)
{
	static const uint8_t code[] = { 0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe }; /* mov $0xfe,%al; out %al,$0x64; jmp . */

	assert_int_equal(run(code, sizeof(code)), GUEST_RESET);
}

static void test_triple_fault(void **state)
{
	static const uint8_t code[] = { 0x0f, 0x0b }; /* ud2, without an interrupt table */

	assert_int_equal(run(code, sizeof(code)), GUEST_TRIPLE_FAULT);
}

static void test_code_outside_of_memory(void **state)
{
	static const uint8_t code[] = {
		0xea, 0, 0, 0, 0xd0, 0x10, 0
	}; /* ljmp $0x10,$0xd0000000: no instruction there */
	enum guest_end how = run(code, sizeof(code));

	/* KVM reads zeros there from the bus or cannot emulate: both are the end of it, neither ours. */
	assert_true(how == GUEST_INTERNAL_ERROR || how == GUEST_TRIPLE_FAULT);
}

static void test_bus(void **state)
{
	static const uint8_t code[] = {
		0x66, 0xba, 0x34, 0x12,             /* mov $0x1234,%dx */
		0xec,                               /* in (%dx),%al */
		0xef,                               /* out %eax,(%dx) */
		0xbe, 0x00, 0x00, 0x10, 0x00,       /* mov $CODE,%esi */
		0xb9, 0x03, 0x00, 0x00, 0x00,       /* mov $3,%ecx */
		0xf3, 0x6e,                         /* rep outsb */
		0xa2, 0x04, 0x10, 0x00, 0xc0,       /* mov %al,0xc0001004 */
		0xa1, 0x08, 0x10, 0x00, 0xc0,       /* mov 0xc0001008,%eax */
		0xe6, 0x80,                         /* out %al,$0x80 */
		0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe, /* reset */
	};

	assert_int_equal(run(code, sizeof(code)), GUEST_RESET);
	assert_string_equal(log_text, "in 1234 1 5a;out 1234 4 5a;out 1234 1 66;out 1234 1 ba;out 1234 1 34;"
				      "write c0001004 1 5a;read c0001008 4 33;out 80 1 33;");
}

/* A guest that never leaves by itself comes to rest when told, stays there, goes on, and is ended. */
static void test_pause_and_end_a_loop(void **state)
{
	static const uint8_t code[] = { 0xff, 0x05, 0x00, 0x00, 0x20, 0x00, 0xeb, 0xf8 }; /* 1: incl 0x200000; jmp 1b */
	volatile uint32_t *count;
	uint32_t seen;
	uint64_t n;

	start(code, sizeof(code), 1);
	count = gmem_at(&ram, 0x200000, 4);
	(void)usleep(20000);
	assert_int_equal(*count, 0); /* it rests until it is resumed */
	for (int i = 0; i < 3; i++) {
		guest_resume(&guest);
		for (int k = 0; k < 2000 && *count < 1000; k++)
			(void)usleep(10000);
		assert_true(*count >= 1000);
		guest_pause(&guest);
		assert_true(wait_for(guest.rest_fd, 20000));
		assert_int_equal(read(guest.rest_fd, &n, sizeof(n)), sizeof(n));
		seen = *count;
		(void)usleep(20000);
		assert_int_equal(*count, seen);
		*count = 0;
	}
	guest_resume(&guest);
	guest_end(&guest, GUEST_STOPPED, NULL);
	guest_end(&guest, GUEST_RESET, NULL); /* the first word stands */
	assert_int_equal(finish(), GUEST_STOPPED);
}

/* A halted processor and ones that were never started sleep in KVM: they come out too. */
static void test_end_sleeping_processors(void **state)
{
	static const uint8_t code[] = { 0xfa, 0xf4, 0xeb, 0xfd }; /* cli; 1: hlt; jmp 1b */
	uint64_t n;

	start(code, sizeof(code), BOOT_VCPUS_MAX);
	guest_resume(&guest);
	(void)usleep(50000);
	guest_pause(&guest);
	assert_true(wait_for(guest.rest_fd, 20000));
	assert_int_equal(read(guest.rest_fd, &n, sizeof(n)), sizeof(n));
	guest_end(&guest, GUEST_STOPPED, NULL);
	assert_int_equal(finish(), GUEST_STOPPED);
}

static void test_exits_are_counted(void **state)
{
	static const uint8_t code[] = { 0xe6, 0x80, 0xe6, 0x80, 0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe };
	uint64_t io;

	start(code, sizeof(code), 1);
	guest_resume(&guest);
	assert_true(wait_for(guest.end_fd, 20000));
	io = guest_exits(&guest, KVM_EXIT_IO);
	assert_int_equal(finish(), GUEST_RESET);
	assert_int_equal(io, 3);
}

static void test_bad_machines(void **state)
{
	const struct guest_bus bus = { .out = on_out };

	assert_int_equal(ram_create(&ram, RAM_MIN - 4096, &err), -22);
	assert_int_equal(ram_create(&ram, RAM_MAX + 4096, &err), -22);
	assert_int_equal(ram_create(&ram, RAM_MIN + 1, &err), -22);
	assert_int_equal(ram_create(&ram, RAM_MIN, &err), 0);
	assert_int_equal(guest_create(&guest, -1, &ram, 0, &bus, &err), -22);
	guest_destroy(&guest);
	assert_int_equal(guest_create(&guest, -1, &ram, BOOT_VCPUS_MAX + 1, &bus, &err), -22);
	guest_destroy(&guest);
	gmem_unmap_all(&ram);
	/* 64 GiB are there but not committed. */
	assert_int_equal(ram_create(&ram, RAM_MAX, &err), 0);
	assert_int_equal(ram.count, 2);
	assert_non_null(gmem_at(&ram, RAM_HOLE_END, 4096));
	assert_null(gmem_at(&ram, RAM_HOLE_START, 1));
	assert_null(gmem_at(&ram, RAM_HOLE_START - 1, 2));
	gmem_unmap_all(&ram);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_triple_fault),
		cmocka_unit_test(test_code_outside_of_memory),
		cmocka_unit_test(test_bus),
		cmocka_unit_test(test_pause_and_end_a_loop),
		cmocka_unit_test(test_end_sleeping_processors),
		cmocka_unit_test(test_exits_are_counted),
		cmocka_unit_test(test_bad_machines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
