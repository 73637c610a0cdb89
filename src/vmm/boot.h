/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading a Linux kernel into guest memory: an uncompressed vmlinux with a PVH entry, or a bzImage
 * by the 64-bit boot protocol. No firmware, no ACPI: an MP table tells of processors and interrupts.
 */
#ifndef WALNUT_VMM_BOOT_H
#define WALNUT_VMM_BOOT_H

#include <stdbool.h>

#include "virtio/gmem.h"

#define BOOT_CMDLINE_MAX 4096U
#define BOOT_VCPUS_MAX   32U

/* Where things are in guest memory; all below the kernel at 1 MiB. */
#define BOOT_GDT        0x500ULL
#define BOOT_START_INFO 0x6000ULL /* PVH; the memory map follows in the page */
#define BOOT_ZERO_PAGE  0x7000ULL /* 64-bit protocol */
#define BOOT_STACK      0x8ff0ULL
#define BOOT_PML4       0x9000ULL /* 64-bit protocol: 1 GiB mapped one to one by 2 MiB pages; three tables */
#define BOOT_CMDLINE    0x20000ULL
#define BOOT_MPTABLE    0x9fc00ULL /* in the last KiB of base memory, where kernels look (MP specification 1.4, 4) */
#define BOOT_KERNEL_MIN 0x100000ULL

#define BOOT_IOAPIC 0xfec00000U
#define BOOT_LAPIC  0xfee00000U

struct boot_config {
	int kernel_fd; /* borrowed */
	int initrd_fd; /* borrowed; -1: none */
	const char *cmdline;
	unsigned int vcpus;
};

/* How the first processor starts. */
struct boot_entry {
	bool long_mode; /* else 32-bit protected mode without paging */
	uint64_t rip;
	uint64_t rbx; /* PVH: the start info */
	uint64_t rsi; /* 64-bit protocol: the zero page */
};

/* boot_load - Return: 0, or -errno with @err (ENOEXEC: not a kernel that can be started). */
int boot_load(const struct gmem *ram, const struct boot_config *config, struct boot_entry *entry,
	      struct err *err) MUST_CHECK;
/* boot_write_mptable - for tests; boot_load calls it. */
int boot_write_mptable(const struct gmem *ram, unsigned int vcpus, struct err *err) MUST_CHECK;

#endif
