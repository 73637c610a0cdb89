/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A processor of the guest: what CPUID says, and the registers it starts with. Sources: Linux's
 * Documentation/virt/kvm/{api,cpuid}.rst and Documentation/x86/boot.rst, Xen's pvh.markdown, AMD's
 * Architecture Programmer's Manual volume 3 (CPUID), Intel's SDM volume 3 (leaf 0xb, local APIC).
 */
#include "vmm/guest.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/cleanup.h"

#define CPUID_MAX          256U
#define MSR_TSC            0x10U
#define MSR_MISC_ENABLE    0x1a0U
#define MSR_MTRR_DEF_TYPE  0x2ffU
#define MTRR_ON_WRITE_BACK (1U << 11 | 6U)
#define CR0_PE             1U
#define CR0_ET             16U
#define CR0_PG             (1U << 31)
#define CR4_PAE            (1U << 5)
#define EFER_LME           (1U << 8)
#define EFER_LMA           (1U << 10)
#define APIC_LVT0          0x350
#define APIC_LVT1          0x360
#define APIC_MODE_NMI      4U
#define APIC_MODE_EXTINT   7U

static uint32_t bits_for(unsigned int count)
{
	uint32_t bits = 0;

	while ((1U << bits) < count)
		bits++;
	return bits;
}

/* One package of @count cores without threads, whose APIC id is their index. */
static void patch(struct kvm_cpuid_entry2 *e, unsigned int index, unsigned int count, bool deadline)
{
	switch (e->function) {
	case 1:
		e->ebx = (e->ebx & 0x0000ffffU) | index << 24 | count << 16;
		e->ecx |= 1U << 31; /* there is a hypervisor */
		if (deadline)
			e->ecx |= 1U << 24; /* the timer of KVM's local APIC has a TSC deadline mode */
		e->edx = count > 1 ? e->edx | 1U << 28 : e->edx & ~(1U << 28);
		break;
	case 4: /* Intel: cores of the package, none of which shares a cache but the last level */
		if (e->eax & 31)
			e->eax = (e->eax & 0x3fffU) | (count - 1) << 26 |
				 (((e->eax >> 5 & 7) >= 3 ? count - 1 : 0) << 14);
		break;
	case 0xb:
	case 0x1f:
		e->ecx = (e->index & 0xff) | (e->index == 0 ? 1U : e->index == 1 ? 2U : 0U) << 8;
		e->eax = e->index == 1 ? bits_for(count) : 0;
		e->ebx = e->index == 0 ? 1 : e->index == 1 ? count : 0;
		e->edx = index;
		break;
	case 0x80000008: e->ecx = bits_for(count) << 12 | (count - 1); break;
	case 0x8000001e:
		e->eax = index;
		e->ebx = index;
		e->ecx = 0;
		break;
	default: break;
	}
}

int cpu_identify(int kvm_fd, int vcpu_fd, unsigned int index, unsigned int count, struct err *err)
{
	CLEAN_FREE struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(struct kvm_cpuid_entry2));
	bool deadline = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;

	if (!cpuid)
		return err_set(err, ENOMEM, "out of memory");
	cpuid->nent = CPUID_MAX;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
		return err_sys(err, errno, "KVM_GET_SUPPORTED_CPUID");
	for (uint32_t i = 0; i < cpuid->nent; i++)
		patch(&cpuid->entries[i], index, count, deadline);
	return ioctl(vcpu_fd, KVM_SET_CPUID2, cpuid) < 0 ? err_sys(err, errno, "KVM_SET_CPUID2") : 0;
}

static int set_msrs(int fd, struct err *err)
{
	static const struct kvm_msr_entry entries[] = {
		{ .index = MSR_TSC },
		{ .index = MSR_MISC_ENABLE, .data = 1 /* fast string operations */ },
		{ .index = MSR_MTRR_DEF_TYPE, .data = MTRR_ON_WRITE_BACK },
	};
	CLEAN_FREE struct kvm_msrs *msrs = calloc(1, sizeof(*msrs) + sizeof(entries));
	int n;

	if (!msrs)
		return err_set(err, ENOMEM, "out of memory");
	msrs->nmsrs = ARRAY_LEN(entries);
	memcpy(msrs->entries, entries, sizeof(entries));
	n = ioctl(fd, KVM_SET_MSRS, msrs);
	if (n < 0)
		return err_sys(err, errno, "KVM_SET_MSRS");
	return n == (int)ARRAY_LEN(entries)
		       ? 0
		       : err_set(err, EIO, "KVM does not take model-specific register %#x", entries[n].index);
}

static int set_fpu(int fd, struct err *err)
{
	struct kvm_fpu fpu = { .fcw = 0x37f, .mxcsr = 0x1f80 };

	return ioctl(fd, KVM_SET_FPU, &fpu) < 0 ? err_sys(err, errno, "KVM_SET_FPU") : 0;
}

static void set_long_mode(struct kvm_sregs *s)
{
	s->cs.db = 0;
	s->cs.l = 1;
	s->cr0 |= CR0_PG;
	s->cr3 = BOOT_PML4;
	s->cr4 |= CR4_PAE;
	s->efer |= EFER_LME | EFER_LMA;
}

static int set_sregs(int fd, bool long_mode, struct err *err)
{
	const struct kvm_segment data = {
		.limit = 0xffffffff, .selector = 0x18, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1
	};
	struct kvm_sregs s;

	if (ioctl(fd, KVM_GET_SREGS, &s) < 0)
		return err_sys(err, errno, "KVM_GET_SREGS");
	s.cs = data;
	s.cs.type = 11;
	s.cs.selector = 0x10;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.tr = (struct kvm_segment){ .limit = 0x67, .selector = 0x20, .type = 11, .present = 1 };
	s.gdt.base = BOOT_GDT;
	s.gdt.limit = 5 * 8 - 1;
	s.idt.base = 0;
	s.idt.limit = 0;
	s.cr0 = CR0_PE | CR0_ET;
	s.cr4 = 0;
	s.efer = 0;
	if (long_mode)
		set_long_mode(&s);
	return ioctl(fd, KVM_SET_SREGS, &s) < 0 ? err_sys(err, errno, "KVM_SET_SREGS") : 0;
}

/* Interrupts of the legacy controller come in on LINT0, as the MP table says. */
static int set_lint(int fd, struct err *err)
{
	struct kvm_lapic_state apic;
	uint32_t mode;

	if (ioctl(fd, KVM_GET_LAPIC, &apic) < 0)
		return err_sys(err, errno, "KVM_GET_LAPIC");
	mode = APIC_MODE_EXTINT << 8;
	memcpy(apic.regs + APIC_LVT0, &mode, sizeof(mode));
	mode = APIC_MODE_NMI << 8;
	memcpy(apic.regs + APIC_LVT1, &mode, sizeof(mode));
	return ioctl(fd, KVM_SET_LAPIC, &apic) < 0 ? err_sys(err, errno, "KVM_SET_LAPIC") : 0;
}

int cpu_set_up(int vcpu_fd, const struct boot_entry *entry, struct err *err)
{
	struct kvm_regs regs = { .rip = entry->rip,
				 .rbx = entry->rbx,
				 .rsi = entry->rsi,
				 .rsp = BOOT_STACK,
				 .rbp = BOOT_STACK,
				 .rflags = 2 };
	int rc = set_msrs(vcpu_fd, err);

	if (rc == 0 && ioctl(vcpu_fd, KVM_SET_REGS, &regs) < 0)
		rc = err_sys(err, errno, "KVM_SET_REGS");
	if (rc == 0)
		rc = set_fpu(vcpu_fd, err);
	if (rc == 0)
		rc = set_sregs(vcpu_fd, entry->long_mode, err);
	return rc < 0 ? rc : set_lint(vcpu_fd, err);
}
