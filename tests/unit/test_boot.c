/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel loading: small ELF files and bzImages, good and bad, and the tables a kernel finds in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <elf.h>
#include <errno.h>

#include "vmm/boot.h"
#include "vmm/ram.h"

#define PHYS 0x1000000ULL

static struct gmem ram;
static struct boot_entry entry;
static struct err err;

struct image {
	Elf64_Ehdr h;
	Elf64_Phdr p[2];
	struct {
		Elf64_Nhdr h;
		char name[4];
		uint32_t entry;
	} note;
};

static struct image image;

static int setup(void **state)
{
	image = (struct image){
		.h = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
		       .e_type = ET_EXEC,
		       .e_machine = EM_X86_64,
		       .e_phoff = offsetof(struct image, p),
		       .e_phentsize = sizeof(Elf64_Phdr),
		       .e_phnum = 2 },
		.p = { { .p_type = PT_LOAD,
			 .p_offset = 4096,
			 .p_paddr = PHYS,
			 .p_filesz = 3 * 4096 + 100,
			 .p_memsz = 5 * 4096 },
		       { .p_type = PT_NOTE,
			 .p_offset = offsetof(struct image, note),
			 .p_filesz = sizeof(image.note) } },
		.note = { .h = { .n_namesz = 4, .n_descsz = 4, .n_type = 18 }, .name = "Xen", .entry = PHYS + 0x40 },
	};
	return ram_create(&ram, RAM_MIN, &err);
}

static int teardown(void **state)
{
	gmem_unmap_all(&ram);
	return 0;
}

static int file_of(const void *bytes, size_t n, size_t size)
{
	int fd = memfd_create("kernel", MFD_CLOEXEC);

	assert_int_equal(pwrite(fd, bytes, n, 0), (ssize_t)n);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static int load_file(int fd, int initrd, const char *cmdline)
{
	struct boot_config config = { .kernel_fd = fd, .initrd_fd = initrd, .cmdline = cmdline, .vcpus = 2 };
	int rc = boot_load(&ram, &config, &entry, &err);

	(void)close(fd);
	if (initrd >= 0)
		(void)close(initrd);
	return rc;
}

static int load(void)
{
	static uint8_t bytes[5 * 4096];

	memset(bytes, 0, sizeof(bytes));
	memcpy(bytes, &image, sizeof(image));
	for (size_t i = 4096; i < 4 * 4096 + 100; i++)
		bytes[i] = (uint8_t)(i / 4096);
	memset(bytes + 4 * 4096 + 100, 0xee, 200); /* of the file, not of the segment */
	return load_file(file_of(bytes, sizeof(bytes), sizeof(bytes)), -1, "quiet");
}

static void test_elf(void **state)
{
	const uint8_t *at = gmem_at(&ram, PHYS, 5 * 4096);
	uint64_t info[6];

	assert_int_equal(load(), 0);
	assert_false(entry.long_mode);
	assert_int_equal(entry.rip, PHYS + 0x40);
	assert_int_equal(at[0], 1);
	assert_int_equal(at[3 * 4096 - 1], 3);
	assert_int_equal(at[3 * 4096 + 99], 4);
	assert_int_equal(at[3 * 4096 + 100], 0); /* what follows in memory is zero, whatever follows in the file */
	assert_string_equal(gmem_at(&ram, BOOT_CMDLINE, 6), "quiet");
	memcpy(info, gmem_at(&ram, entry.rbx, sizeof(info)), sizeof(info));
	assert_int_equal((uint32_t)info[0], 0x336ec578);
	assert_int_equal(info[1] >> 32, 0); /* no modules */
	assert_int_equal(info[3], BOOT_CMDLINE);
}

/* The initramfs is the file's pages until the guest writes: then its own. What is after the file is zeros. */
static void test_copy_on_write(void **state)
{
	static uint8_t bytes[5 * 4096];
	int initrd = file_of("cpio", 4, 5000);
	uint8_t *at = gmem_at(&ram, RAM_MIN - 8192, 8192), back = 0;

	memcpy(bytes, &image, sizeof(image));
	assert_int_equal(load_file(file_of(bytes, sizeof(bytes), sizeof(bytes)), dup(initrd), ""), 0);
	assert_int_equal(pwrite(initrd, "x", 1, 0), 1);
	assert_int_equal(at[0], 'x'); /* mapped, not read */
	at[1] = 'y';
	assert_int_equal(pread(initrd, &back, 1, 1), 1);
	assert_int_equal(back, 'p');
	assert_int_equal(at[5000], 0);
	(void)close(initrd);
}

static void test_bad_elf(void **state)
{
#define BAD(change)                                 \
	do {                                        \
		(void)teardown(NULL);               \
		assert_int_equal(setup(NULL), 0);   \
		change;                             \
		assert_int_equal(load(), -ENOEXEC); \
	} while (0)
	BAD(image.h.e_ident[EI_CLASS] = ELFCLASS32);
	BAD(image.h.e_machine = EM_386);
	BAD(image.h.e_phnum = 0);
	BAD(image.h.e_phnum = 65);
	BAD(image.h.e_phentsize = 32);
	BAD(image.h.e_phoff = 1 << 20);
	BAD(image.h.e_phoff = UINT64_MAX);
	BAD(image.p[0].p_filesz = UINT64_MAX);
	BAD(image.p[0].p_offset = UINT64_MAX - 10);
	BAD(image.p[0].p_memsz = 100);
	BAD(image.p[0].p_memsz = RAM_MIN);
	BAD(image.p[0].p_paddr = UINT64_MAX - 4096);
	BAD(image.p[0].p_paddr = 0x1000);
	BAD(image.p[0].p_paddr = RAM_MIN - 4096);
	BAD(image.p[1].p_filesz = 1 << 20);
	BAD(image.p[1].p_type = PT_NULL);
	BAD(image.note.h.n_namesz = 100);
	BAD(image.note.h.n_descsz = UINT32_MAX);
	BAD(image.note.h.n_type = 17);
	BAD(image.note.entry = 0);
	BAD(image.note.entry = PHYS + 5 * 4096);
}

static void test_initrd(void **state)
{
	static uint8_t bytes[5 * 4096];
	uint64_t *module;

	memcpy(bytes, &image, sizeof(image));
	assert_int_equal(load_file(file_of(bytes, sizeof(bytes), sizeof(bytes)), file_of("cpio", 4, 5000), ""), 0);
	module = gmem_at(&ram, 0x6080, 16);
	assert_int_equal(module[0], RAM_MIN - 8192);
	assert_int_equal(module[1], 5000);
	assert_memory_equal(gmem_at(&ram, module[0], 4), "cpio", 4);
	assert_int_equal(load_file(file_of(bytes, sizeof(bytes), sizeof(bytes)), file_of("cpio", 4, RAM_MIN), ""),
			 -E2BIG);
}

static void test_cmdline_too_long(void **state)
{
	static char line[BOOT_CMDLINE_MAX + 1];
	static uint8_t bytes[5 * 4096];

	memset(line, 'a', BOOT_CMDLINE_MAX);
	memcpy(bytes, &image, sizeof(image));
	assert_int_equal(load_file(file_of(bytes, sizeof(bytes), sizeof(bytes)), -1, line), -E2BIG);
}

static void test_bzimage(void **state)
{
	static uint8_t bytes[16384];
	const uint8_t *zero;
	uint32_t value;

	bytes[0x1f1] = 1; /* setup sectors */
	memcpy(bytes + 0x1fe, "\x55\xaa", 2);
	memcpy(bytes + 0x202, "HdrS\x0f\x02", 6);
	bytes[0x236] = 1; /* 64-bit entry */
	memcpy(bytes + 0x258, &(uint64_t){ PHYS }, 8);
	memcpy(bytes + 0x260, &(uint32_t){ 65536 }, 4);
	bytes[1024] = 0xab;
	assert_int_equal(load_file(file_of(bytes, sizeof(bytes), sizeof(bytes)), -1, "quiet"), 0);
	assert_true(entry.long_mode);
	assert_int_equal(entry.rip, PHYS + 0x200);
	assert_int_equal(entry.rsi, BOOT_ZERO_PAGE);
	assert_int_equal(*(uint8_t *)gmem_at(&ram, PHYS, 1), 0xab);
	zero = gmem_at(&ram, BOOT_ZERO_PAGE, 4096);
	assert_int_equal(zero[0x1e8], 3); /* memory map */
	assert_int_equal(zero[0x210], 0xff);
	memcpy(&value, zero + 0x228, 4);
	assert_int_equal(value, BOOT_CMDLINE);
	bytes[0x236] = 0;
	assert_int_equal(load_file(file_of(bytes, sizeof(bytes), sizeof(bytes)), -1, ""), -ENOEXEC);
	bytes[0x236] = 1;
	bytes[0x206] = 0x0b;
	assert_int_equal(load_file(file_of(bytes, sizeof(bytes), sizeof(bytes)), -1, ""), -ENOEXEC);
	bytes[0x206] = 0x0f;
	memset(bytes + 0x260, 0xff, 4); /* needs 4 GiB */
	assert_int_equal(load_file(file_of(bytes, sizeof(bytes), sizeof(bytes)), -1, ""), -ENOEXEC);
	memcpy(bytes + 0x202, "junk", 4);
	assert_int_equal(load_file(file_of(bytes, sizeof(bytes), sizeof(bytes)), -1, ""), -ENOEXEC);
	assert_int_equal(load_file(file_of("MZ", 2, 2), -1, ""), -ENOEXEC);
}

static uint8_t sum(const uint8_t *at, size_t n)
{
	uint8_t all = 0;

	while (n--)
		all = (uint8_t)(all + *at++);
	return all;
}

static void test_mptable(void **state)
{
	for (unsigned int vcpus = 1; vcpus <= BOOT_VCPUS_MAX; vcpus++) {
		const uint8_t *at = gmem_at(&ram, BOOT_MPTABLE, 1024), *e = at + 16 + 44;
		unsigned int kinds[5] = { 0 };
		uint16_t length, entries;

		assert_int_equal(boot_write_mptable(&ram, vcpus, &err), 0);
		assert_memory_equal(at, "_MP_", 4);
		assert_int_equal(sum(at, 16), 0);
		assert_memory_equal(at + 16, "PCMP", 4);
		memcpy(&length, at + 20, 2);
		memcpy(&entries, at + 16 + 34, 2);
		assert_true(length <= 1024 - 16);
		assert_int_equal(sum(at + 16, length), 0);
		for (unsigned int i = 0; i < entries; i++) {
			assert_true(*e < 5);
			kinds[*e]++;
			e += *e == 0 ? 20 : 8;
		}
		assert_ptr_equal(e, at + 16 + length);
		assert_int_equal(kinds[0], vcpus);
		assert_int_equal(kinds[3], 24);
		assert_int_equal(kinds[4], 2);
	}
	assert_int_equal(boot_write_mptable(&ram, 0, &err), -EINVAL);
	assert_int_equal(boot_write_mptable(&ram, BOOT_VCPUS_MAX + 1, &err), -EINVAL);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = { TEST(test_elf),    TEST(test_copy_on_write),    TEST(test_bad_elf),
					    TEST(test_initrd), TEST(test_cmdline_too_long), TEST(test_bzimage),
					    TEST(test_mptable) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
