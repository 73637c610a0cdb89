/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The self-test of KVM: a tiny virtual machine counts to 100 000 in kernel mode
 * (protected mode, privilege level 0) and is timed. Some machines offer a KVM
 * that interprets kernel-mode code, about a million instructions a second; a
 * kernel does not boot in a useful time there, so such a KVM counts as absent.
 */
#include "engine/accelerator.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "base/cleanup.h"

#define LOOPS       100000U
#define NATIVE_MIPS 50U /* below this, kernel mode is emulated */
#define TEST_MS     500

const char *accelerator_name(enum accelerator_kind kind)
{
	return kind == ACCELERATOR_KVM ? "kvm" : kind == ACCELERATOR_SOFTWARE ? "software" : "none";
}

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static int set_registers(int vcpu)
{
	struct kvm_segment code = {
		.base = 0, .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1
	};
	struct kvm_regs regs = { .rip = 0x1000, .rflags = 2, .rcx = LOOPS };
	struct kvm_sregs sregs;

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		return -errno;
	sregs.cs = code;
	code.type = 3;
	code.selector = 16;
	sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = code;
	sregs.cr0 |= 1; /* protected mode */
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) || ioctl(vcpu, KVM_SET_REGS, &regs))
		return -errno;
	return 0;
}

/* run_loop - Return: million instructions a second, or -errno. In a process of its own, killed when it takes too long. */
static int run_loop(void)
{
	static const unsigned char code[] = { 0x49, 0x75, 0xfd, 0xf4 }; /* 1: dec %ecx; jnz 1b; hlt */
	CLEAN_FD int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = -1, vcpu = -1;
	struct kvm_userspace_memory_region region = { .memory_size = 0x4000 };
	struct kvm_run *run;
	int64_t begin;
	char *memory;
	int size, rc;

	if (kvm < 0)
		return -errno;
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return -ENODEV;
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return -errno;
	memory = mmap(NULL, 0x4000, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return -errno;
	memcpy(memory + 0x1000, code, sizeof(code));
	region.userspace_addr = (uint64_t)(uintptr_t)memory;
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region))
		return -errno;
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vcpu < 0 || size < (int)sizeof(*run))
		return -errno;
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		return -errno;
	rc = set_registers(vcpu);
	if (rc)
		return rc;
	begin = now_us();
	while (ioctl(vcpu, KVM_RUN, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (run->exit_reason != KVM_EXIT_HLT)
		return -EIO;
	begin = now_us() - begin;
	return (int)(2 * LOOPS / (uint64_t)(begin > 0 ? begin : 1));
}

static int measure_kvm(void)
{
	CLEAN_FD int in = -1, out = -1;
	int fds[2], mips = -ETIMEDOUT, status;
	int64_t end = now_us() + TEST_MS * 1000;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	in = fds[0];
	out = fds[1];
	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid) {
		mips = run_loop();
		_exit(write(out, &mips, sizeof(mips)) != (ssize_t)sizeof(mips));
	}
	while (now_us() < end && waitpid(pid, &status, WNOHANG) == 0) {
		struct timespec nap = { .tv_nsec = 500000 };

		nanosleep(&nap, NULL);
	}
	if (read(in, &mips, sizeof(mips)) != (ssize_t)sizeof(mips)) {
		(void)kill(pid, SIGKILL);
		mips = -ETIMEDOUT;
	}
	(void)waitpid(pid, &status, 0);
	return mips;
}

static void find_qemu(struct accelerator *a)
{
	const char *path = getenv("PATH");
	CLEAN_FREE char *copy =
		strdup(path && *path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	char *rest = copy;

	for (char *dir; (dir = strsep(&rest, ":"));) {
		int n = snprintf(a->qemu, sizeof(a->qemu), "%s/qemu-system-x86_64", dir);

		if (n > 0 && (size_t)n < sizeof(a->qemu) && *dir == '/' && !access(a->qemu, X_OK))
			return;
	}
	a->qemu[0] = '\0';
}

int accelerator_choose(const char *wanted, struct accelerator *out, struct err *err)
{
	static int measured;
	char kvm[256];
	int mips;

	*out = (struct accelerator){ 0 };
	if (strcmp(wanted, "auto") && strcmp(wanted, "kvm") && strcmp(wanted, "software"))
		return err_set(err, EINVAL, "unknown accelerator \"%s\": it is auto, kvm or software", wanted);
	find_qemu(out);
	/* The machine does not change while the engine runs: measure once. */
	if (!measured)
		measured = measure_kvm();
	mips = measured;
	if (mips > 0)
		out->kvm_mips = (uint64_t)mips;
	if (mips == -ENOENT)
		snprintf(kvm, sizeof(kvm), "this machine has no /dev/kvm");
	else if (mips == -ETIMEDOUT)
		snprintf(kvm, sizeof(kvm),
			 "this machine's KVM emulates kernel mode (below 0.4 million instructions per second)");
	else if (mips < 0)
		snprintf(kvm, sizeof(kvm), "KVM does not work here (%s)", strerror(-mips));
	else if (mips < (int)NATIVE_MIPS)
		snprintf(kvm, sizeof(kvm),
			 "this machine's KVM emulates kernel mode (%d million instructions per second)", mips);
	else
		snprintf(kvm, sizeof(kvm),
			 "this machine's KVM runs kernel mode at native speed (%d million instructions per second)",
			 mips);
	if (mips >= (int)NATIVE_MIPS && strcmp(wanted, "software") != 0) {
		out->kind = ACCELERATOR_KVM;
		snprintf(out->reason, sizeof(out->reason), "%s", kvm);
		return 0;
	}
	if (!strcmp(wanted, "kvm"))
		return err_set(err, EOPNOTSUPP,
			       "accelerator kvm is not available: %s; use --accelerator=software, or a machine with "
			       "hardware virtualization switched on (nested, if it is a virtual machine itself)",
			       kvm);
	if (!out->qemu[0] && !strcmp(wanted, "software"))
		return err_set(
			err, EOPNOTSUPP,
			"accelerator software is not available: qemu-system-x86_64 is not in PATH; install the package "
			"qemu-system-x86");
	if (!out->qemu[0]) {
		snprintf(out->reason, sizeof(out->reason),
			 "%s, and qemu-system-x86_64 is not in PATH: install the package "
			 "qemu-system-x86 to run hyperv containers",
			 kvm);
		return 0;
	}
	out->kind = ACCELERATOR_SOFTWARE;
	if (!strcmp(wanted, "software"))
		snprintf(out->reason, sizeof(out->reason), "asked for by --accelerator=software; %s", kvm);
	else
		snprintf(out->reason, sizeof(out->reason), "%s", kvm);
	return 0;
}
