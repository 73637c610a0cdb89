/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernel loading. Sources: System V ABI (ELF), Xen's docs/misc/pvh.markdown and
 * xen/include/public/arch-x86/hvm/start_info.h (PVH), Linux's Documentation/x86/boot.rst
 * (bzImage), Intel's MultiProcessor Specification 1.4.
 *
 * A kernel is read, not mapped: it patches most pages of its text while it boots (alternatives, return thunks), so
 * a mapping saved 5 MiB of 33 for a machine, and cost two exits a page of 4 KiB: 9400 until the agent's first message instead
 * of 2500, and a third more time (tests/kvm/compare). The initramfs, read once from front to end, is mapped copy on write.
 * The files are the host's own, but every number in them is checked.
 */
#include "vmm/boot.h"

#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vmm/ram.h"

#define PAGE              4096ULL
#define PHDRS_MAX         64
#define NOTE_MAX          65536U
#define XEN_PHYS32_ENTRY  18 /* XEN_ELFNOTE_PHYS32_ENTRY */
#define HVM_MAGIC         0x336ec578U
#define HVM_MEMMAP        0x6100ULL
#define HVM_MODULE        0x6080ULL
#define E820_RAM          1U
#define E820_RESERVED     2U
#define BASE_MEMORY_END   BOOT_MPTABLE
#define IOAPIC_PINS       24U
#define BZIMAGE_LOAD_HIGH 0x1000000ULL

struct hvm_start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};

struct hvm_module {
	uint64_t address, size, cmdline, reserved;
};

struct hvm_memmap {
	uint64_t address, size;
	uint32_t type, reserved;
};

struct loader {
	const struct gmem *ram;
	const struct boot_config *config;
	uint64_t kernel_size; /* of the file */
	uint64_t kernel_end;  /* in guest memory */
	uint64_t initrd, initrd_size;
};

static int read_at(int fd, void *to, size_t n, uint64_t at, struct err *err)
{
	size_t done = 0;

	while (done < n) {
		ssize_t got = pread(fd, (char *)to + done, n - done, (off_t)(at + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_sys(err, errno, "read the guest's kernel");
		if (got == 0)
			return err_set(err, ENOEXEC, "the guest's kernel is cut short");
		done += (size_t)got;
	}
	return 0;
}

static int put(const struct gmem *ram, uint64_t at, const void *bytes, size_t n, struct err *err)
{
	void *to = gmem_at(ram, at, n);

	if (!to)
		return err_set(err, EFAULT, "guest memory is too small");
	memcpy(to, bytes, n);
	return 0;
}

static int read_into(struct loader *l, uint64_t guest, uint64_t n, uint64_t offset, struct err *err)
{
	void *to = n ? gmem_at(l->ram, guest, n) : NULL;

	if (n == 0)
		return 0;
	if (!to)
		return err_set(err, ENOEXEC, "the kernel does not fit into guest memory");
	return read_at(l->config->kernel_fd, to, (size_t)n, offset, err);
}

static int load_segment(struct loader *l, const Elf64_Phdr *p, struct err *err)
{
	uint64_t end;

	if (p->p_memsz == 0)
		return 0;
	if (p->p_filesz > p->p_memsz || p->p_offset > l->kernel_size || p->p_filesz > l->kernel_size - p->p_offset)
		return err_set(err, ENOEXEC, "the kernel's program headers are wrong");
	if (__builtin_add_overflow(p->p_paddr, p->p_memsz, &end) || p->p_paddr < BOOT_KERNEL_MIN ||
	    end > l->ram->regions[0].size)
		return err_set(err, ENOEXEC, "the kernel does not fit into %llu MiB of memory",
			       (unsigned long long)(l->ram->regions[0].size >> 20));
	if (end > l->kernel_end)
		l->kernel_end = end;
	return read_into(l, p->p_paddr, p->p_filesz, p->p_offset, err);
}

/* find_entry - the PVH entry point in a note segment; 0: not there. */
static int find_entry(struct loader *l, const Elf64_Phdr *p, uint64_t *entry, struct err *err)
{
	CLEAN_FREE uint8_t *notes = NULL;
	size_t size = (size_t)p->p_filesz, at = 0;
	int rc;

	if (size > NOTE_MAX || p->p_offset > l->kernel_size || size > l->kernel_size - p->p_offset)
		return err_set(err, ENOEXEC, "the kernel's notes are wrong");
	notes = malloc(size + 1);
	if (!notes)
		return err_set(err, ENOMEM, "out of memory");
	rc = read_at(l->config->kernel_fd, notes, size, p->p_offset, err);
	while (rc == 0 && size - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr h;
		size_t name = at + sizeof(h), desc;

		memcpy(&h, notes + at, sizeof(h));
		desc = name + (((size_t)h.n_namesz + 3) & ~3UL);
		if (desc > size || h.n_descsz > size - desc)
			break;
		if (h.n_type == XEN_PHYS32_ENTRY && h.n_namesz == 4 && memcmp(notes + name, "Xen", 4) == 0 &&
		    (h.n_descsz == 4 || h.n_descsz == 8))
			memcpy(entry, notes + desc, h.n_descsz);
		at = desc + (((size_t)h.n_descsz + 3) & ~3UL);
		if (at > size)
			break;
	}
	return rc;
}

static int load_elf(struct loader *l, const Elf64_Ehdr *h, uint64_t *entry, struct err *err)
{
	Elf64_Phdr phdrs[PHDRS_MAX] = { 0 };
	int rc;

	if (h->e_ident[EI_CLASS] != ELFCLASS64 || h->e_ident[EI_DATA] != ELFDATA2LSB || h->e_machine != EM_X86_64 ||
	    h->e_phentsize != sizeof(phdrs[0]) || h->e_phnum == 0 || h->e_phnum > PHDRS_MAX ||
	    h->e_phoff > l->kernel_size)
		return err_set(err, ENOEXEC, "the kernel is not an x86-64 ELF executable");
	rc = read_at(l->config->kernel_fd, phdrs, h->e_phnum * sizeof(phdrs[0]), h->e_phoff, err);
	*entry = 0;
	for (unsigned int i = 0; rc == 0 && i < h->e_phnum; i++) {
		if (phdrs[i].p_type == PT_LOAD)
			rc = load_segment(l, &phdrs[i], err);
		else if (phdrs[i].p_type == PT_NOTE)
			rc = find_entry(l, &phdrs[i], entry, err);
	}
	if (rc == 0 && (*entry < BOOT_KERNEL_MIN || *entry >= l->kernel_end || *entry > UINT32_MAX))
		return err_set(err, ENOEXEC, "the kernel has no PVH entry: build it with CONFIG_PVH=y");
	return rc;
}

static int load_bzimage(struct loader *l, struct boot_params *zero, uint64_t *entry, struct err *err)
{
	struct setup_header *h = &zero->hdr;
	uint64_t at, offset, need;
	uint8_t bytes[0x290 - 0x1f1];
	int rc = read_at(l->config->kernel_fd, bytes, sizeof(bytes), 0x1f1, err);

	if (rc < 0)
		return rc;
	memcpy(h, bytes, sizeof(*h) < sizeof(bytes) ? sizeof(*h) : sizeof(bytes));
	if (h->boot_flag != 0xaa55 || h->header != 0x53726448 /* HdrS */)
		return err_set(err, ENOEXEC, "the kernel is neither an ELF executable nor a bzImage");
	if (h->version < 0x20c || !(h->xloadflags & XLF_KERNEL_64))
		return err_set(
			err, ENOEXEC,
			"the bzImage has no 64-bit entry (boot protocol 2.12): a 64-bit kernel of at least Linux 3.8 is needed");
	offset = ((h->setup_sects ? h->setup_sects : 4U) + 1U) * 512ULL;
	at = h->pref_address >= BOOT_KERNEL_MIN && h->pref_address % PAGE == 0 ? h->pref_address : BZIMAGE_LOAD_HIGH;
	need = h->init_size;
	if (offset >= l->kernel_size || need < l->kernel_size - offset)
		need = l->kernel_size > offset ? l->kernel_size - offset : 0;
	if (need == 0 || at >= l->ram->regions[0].size || need > l->ram->regions[0].size - at ||
	    at + need > (1ULL << 30))
		return err_set(err, ENOEXEC, "the kernel does not fit into %llu MiB of memory",
			       (unsigned long long)(l->ram->regions[0].size >> 20));
	l->kernel_end = at + need;
	*entry = at + 0x200;
	return read_into(l, at, l->kernel_size - offset, offset, err);
}

/* The initramfs goes to the end of the first region's memory, on a page, mapped. */
static int load_initrd(struct loader *l, struct err *err)
{
	const struct gmem_region *low = &l->ram->regions[0];
	uint64_t room;
	struct stat st;

	if (l->config->initrd_fd < 0)
		return 0;
	if (fstat(l->config->initrd_fd, &st) < 0)
		return err_sys(err, errno, "the initramfs");
	if (!S_ISREG(st.st_mode) || st.st_size <= 0)
		return err_set(err, EINVAL, "the initramfs is empty or no file");
	l->initrd_size = (uint64_t)st.st_size;
	room = (l->initrd_size + PAGE - 1) & ~(PAGE - 1);
	if (room > low->size || low->size - room < l->kernel_end || low->size - room > UINT32_MAX)
		return err_set(err, E2BIG, "kernel and initramfs do not fit into %llu MiB of memory",
			       (unsigned long long)(low->size >> 20));
	l->initrd = low->size - room;
	return ram_map_file(l->ram, l->initrd, room, l->config->initrd_fd, 0, err);
}

static unsigned int memory_map(const struct gmem *ram, struct hvm_memmap map[4])
{
	unsigned int n = 0;

	map[n++] = (struct hvm_memmap){ 0, BASE_MEMORY_END, E820_RAM, 0 };
	map[n++] = (struct hvm_memmap){ BASE_MEMORY_END, BOOT_KERNEL_MIN - BASE_MEMORY_END, E820_RESERVED, 0 };
	map[n++] = (struct hvm_memmap){ BOOT_KERNEL_MIN, ram->regions[0].size - BOOT_KERNEL_MIN, E820_RAM, 0 };
	if (ram->count > 1)
		map[n++] = (struct hvm_memmap){ ram->regions[1].guest, ram->regions[1].size, E820_RAM, 0 };
	return n;
}

static int write_start_info(struct loader *l, struct err *err)
{
	struct hvm_memmap map[4];
	struct hvm_module module = { .address = l->initrd, .size = l->initrd_size };
	struct hvm_start_info info = {
		.magic = HVM_MAGIC,
		.version = 1,
		.nr_modules = l->initrd_size ? 1 : 0,
		.modlist = l->initrd_size ? HVM_MODULE : 0,
		.cmdline = BOOT_CMDLINE,
		.memmap = HVM_MEMMAP,
		.memmap_entries = memory_map(l->ram, map),
	};
	int rc = put(l->ram, BOOT_START_INFO, &info, sizeof(info), err);

	if (rc == 0)
		rc = put(l->ram, HVM_MODULE, &module, sizeof(module), err);
	return rc < 0 ? rc : put(l->ram, HVM_MEMMAP, map, sizeof(map), err);
}

static int write_zero_page(struct loader *l, struct boot_params *zero, struct err *err)
{
	struct hvm_memmap map[4];
	unsigned int n = memory_map(l->ram, map);

	for (unsigned int i = 0; i < n; i++)
		zero->e820_table[i] =
			(struct boot_e820_entry){ .addr = map[i].address, .size = map[i].size, .type = map[i].type };
	zero->e820_entries = (uint8_t)n;
	zero->hdr.type_of_loader = 0xff;
	zero->hdr.loadflags |= LOADED_HIGH;
	zero->hdr.cmd_line_ptr = (uint32_t)BOOT_CMDLINE;
	zero->hdr.ramdisk_image = (uint32_t)l->initrd;
	zero->hdr.ramdisk_size = (uint32_t)l->initrd_size;
	return put(l->ram, BOOT_ZERO_PAGE, zero, sizeof(*zero), err);
}

static int write_page_tables(const struct gmem *ram, struct err *err)
{
	/* 3: present, writable; 0x80: a 2 MiB page */
	uint64_t top = (BOOT_PML4 + PAGE) | 3, second = (BOOT_PML4 + 2 * PAGE) | 3, leaves[512];
	int rc = put(ram, BOOT_PML4, &top, sizeof(top), err);

	for (uint64_t i = 0; i < ARRAY_LEN(leaves); i++)
		leaves[i] = i << 21 | 0x83;
	if (rc == 0)
		rc = put(ram, BOOT_PML4 + PAGE, &second, sizeof(second), err);
	return rc < 0 ? rc : put(ram, BOOT_PML4 + 2 * PAGE, leaves, sizeof(leaves), err);
}

/* What the 64-bit protocol wants: code at selector 0x10, data at 0x18; the state of the registers repeats it (cpu.c). */
static int write_gdt(const struct gmem *ram, struct err *err)
{
	static const uint64_t gdt[] = { 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00008b0000000067 };

	return put(ram, BOOT_GDT, gdt, sizeof(gdt), err);
}

/* ---- the MP table */

struct mp_floating {
	char signature[4];
	uint32_t table;
	uint8_t length, revision, checksum, features[5];
};

struct mp_table {
	char signature[4];
	uint16_t length;
	uint8_t revision, checksum;
	char oem[8], product[12];
	uint32_t oem_table;
	uint16_t oem_size, entries;
	uint32_t lapic;
	uint16_t extended_length;
	uint8_t extended_checksum, reserved;
};

struct mp_processor {
	uint8_t type, apic_id, apic_version, flags;
	uint32_t signature, features, reserved[2];
};

struct mp_bus {
	uint8_t type, id;
	char name[6];
};

struct mp_ioapic {
	uint8_t type, id, version, flags;
	uint32_t address;
};

struct mp_interrupt {
	uint8_t type, kind;
	uint16_t flags;
	uint8_t bus, irq, apic, pin;
};

enum { MP_PROCESSOR, MP_BUS, MP_IOAPIC, MP_INTERRUPT, MP_LOCAL_INTERRUPT };

struct mp_writer {
	uint8_t bytes[1024 - sizeof(struct mp_floating)];
	size_t len;
	uint16_t entries;
};

static void mp_add(struct mp_writer *w, const void *entry, size_t n)
{
	bug_on(n > sizeof(w->bytes) - w->len);
	memcpy(w->bytes + w->len, entry, n);
	w->len += n;
	w->entries++;
}

static uint8_t mp_sum(const void *bytes, size_t n)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum = (uint8_t)(sum + ((const uint8_t *)bytes)[i]);
	return (uint8_t)-sum;
}

int boot_write_mptable(const struct gmem *ram, unsigned int vcpus, struct err *err)
{
	struct mp_floating f = {
		.signature = "_MP_", .table = (uint32_t)(BOOT_MPTABLE + sizeof(f)), .length = 1, .revision = 4
	};
	struct mp_table t = {
		.signature = "PCMP", .revision = 4, .oem = "WALNUT  ", .product = "MICROVM     ", .lapic = BOOT_LAPIC
	};
	struct mp_writer w = { .len = sizeof(t) };
	int rc;

	if (vcpus == 0 || vcpus > BOOT_VCPUS_MAX)
		return err_set(err, EINVAL, "1 to %u processors, not %u", BOOT_VCPUS_MAX, vcpus);
	for (unsigned int i = 0; i < vcpus; i++)
		mp_add(&w,
		       &(struct mp_processor){ .type = MP_PROCESSOR,
					       .apic_id = (uint8_t)i,
					       .apic_version = 0x14,
					       .flags = i == 0 ? 3 : 1,
					       .signature = 0x600,
					       .features = 0x201 },
		       sizeof(struct mp_processor));
	mp_add(&w, &(struct mp_bus){ .type = MP_BUS, .name = "ISA   " }, sizeof(struct mp_bus));
	mp_add(&w,
	       &(struct mp_ioapic){
		       .type = MP_IOAPIC, .id = (uint8_t)vcpus, .version = 0x11, .flags = 1, .address = BOOT_IOAPIC },
	       sizeof(struct mp_ioapic));
	/* Flags 0: as the bus has it, for ISA edge-triggered and active high. */
	for (uint8_t i = 0; i < IOAPIC_PINS; i++)
		mp_add(&w, &(struct mp_interrupt){ .type = MP_INTERRUPT, .irq = i, .apic = (uint8_t)vcpus, .pin = i },
		       sizeof(struct mp_interrupt));
	mp_add(&w, &(struct mp_interrupt){ .type = MP_LOCAL_INTERRUPT, .kind = 3 /* ExtINT */, .apic = 0, .pin = 0 },
	       sizeof(struct mp_interrupt));
	mp_add(&w, &(struct mp_interrupt){ .type = MP_LOCAL_INTERRUPT, .kind = 1 /* NMI */, .apic = 0xff, .pin = 1 },
	       sizeof(struct mp_interrupt));
	t.length = (uint16_t)w.len;
	t.entries = w.entries;
	memcpy(w.bytes, &t, sizeof(t));
	t.checksum = mp_sum(w.bytes, w.len);
	memcpy(w.bytes, &t, sizeof(t));
	f.checksum = mp_sum(&f, sizeof(f));
	rc = put(ram, BOOT_MPTABLE, &f, sizeof(f), err);
	return rc < 0 ? rc : put(ram, BOOT_MPTABLE + sizeof(f), w.bytes, w.len, err);
}

int boot_load(const struct gmem *ram, const struct boot_config *config, struct boot_entry *entry, struct err *err)
{
	struct loader l = { .ram = ram, .config = config };
	struct boot_params zero = { 0 };
	size_t cmdline = strlen(config->cmdline) + 1;
	struct stat st;
	Elf64_Ehdr h;
	int rc;

	*entry = (struct boot_entry){ 0 };
	if (fstat(config->kernel_fd, &st) < 0)
		return err_sys(err, errno, "the guest's kernel");
	if (cmdline > BOOT_CMDLINE_MAX)
		return err_set(err, E2BIG, "the kernel's command line is longer than %u bytes", BOOT_CMDLINE_MAX - 1);
	l.kernel_size = (uint64_t)st.st_size;
	rc = read_at(config->kernel_fd, &h, sizeof(h), 0, err);
	if (rc < 0)
		return rc;
	entry->long_mode = memcmp(h.e_ident, ELFMAG, SELFMAG) != 0;
	if (entry->long_mode)
		rc = load_bzimage(&l, &zero, &entry->rip, err);
	else
		rc = load_elf(&l, &h, &entry->rip, err);
	if (rc == 0)
		rc = load_initrd(&l, err);
	if (rc == 0)
		rc = put(ram, BOOT_CMDLINE, config->cmdline, cmdline, err);
	if (rc == 0)
		rc = write_gdt(ram, err);
	if (rc == 0)
		rc = boot_write_mptable(ram, config->vcpus, err);
	if (rc < 0)
		return rc;
	if (!entry->long_mode) {
		entry->rbx = BOOT_START_INFO;
		return write_start_info(&l, err);
	}
	entry->rsi = BOOT_ZERO_PAGE;
	rc = write_page_tables(ram, err);
	return rc < 0 ? rc : write_zero_page(&l, &zero, err);
}
