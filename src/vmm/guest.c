/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: `wanted` is what the processors shall do. A processor's thread looks at it
 * before every entry into the guest and rests on it as a futex. Whoever changes it then sets
 * immediate_exit in every processor's shared page and signals its thread: a thread in the guest
 * comes out, one on its way in does not get in, one elsewhere looks at `wanted` before it enters.
 * The signal's handler does nothing. immediate_exit is cleared by the thread before it looks.
 */
#include "vmm/guest.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

#define KICK_SIGNAL SIGUSR1
#define TSS_ADDRESS 0xfffbd000U /* three pages that real mode on Intel needs, in the hole */

enum { WANT_REST, WANT_RUN, WANT_END };

static void on_kick_signal(int sig)
{
}

static void signal_event(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) < 0)
		return; /* readable already */
}

const char *guest_end_text(enum guest_end how)
{
	switch (how) {
	case GUEST_RESET: return "was reset by its own kernel";
	case GUEST_PANIC: return "ended: its own kernel panicked";
	case GUEST_TRIPLE_FAULT: return "ended by a triple fault";
	case GUEST_INTERNAL_ERROR: return "did something that KVM cannot emulate";
	case GUEST_ENTRY_FAILED: return "could not be entered: the processor refused its state";
	case GUEST_UNKNOWN_EXIT: return "left for a reason that the monitor does not know";
	case GUEST_RUN_FAILED: return "could not be run by KVM";
	case GUEST_STOPPED: return "was stopped";
	default: return "runs";
	}
}

void guest_end(struct guest *g, enum guest_end how, const char *text)
{
	uint32_t runs = GUEST_RUNS;

	if (!__atomic_compare_exchange_n(&g->end, &runs, (uint32_t)how, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return;
	(void)snprintf(g->end_text, sizeof(g->end_text), "%s", text ? text : guest_end_text(how));
	signal_event(g->end_fd);
}

uint64_t guest_exits(const struct guest *g, unsigned int reason)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < g->vcpus && reason < GUEST_EXITS; i++)
		sum += __atomic_load_n(&g->vcpu[i].exits[reason], __ATOMIC_RELAXED);
	return sum;
}

uint64_t guest_kvm_exits(const struct guest *g)
{
	uint64_t sum = 0, n;

	for (unsigned int i = 0; i < g->vcpus; i++)
		if (g->vcpu[i].stats_fd >= 0 &&
		    pread(g->vcpu[i].stats_fd, &n, sizeof(n), g->vcpu[i].exits_at) == (ssize_t)sizeof(n))
			sum += n;
	return sum;
}

/* Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD: a header, descriptors with names, values. */
static void find_stats(struct guest_vcpu *c)
{
	CLEAN_FREE struct kvm_stats_desc *d = NULL;
	struct kvm_stats_header h;
	size_t size;

	c->stats_fd = ioctl(c->fd, KVM_GET_STATS_FD, NULL);
	if (c->stats_fd < 0 || pread(c->stats_fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) || h.name_size > 256) {
		close_fd(&c->stats_fd);
		return;
	}
	size = sizeof(*d) + h.name_size;
	d = calloc(1, size + 1);
	for (uint32_t i = 0; d && i < h.num_desc; i++) {
		if (pread(c->stats_fd, d, size, (off_t)(h.desc_offset + i * size)) != (ssize_t)size)
			break;
		if (strcmp(d->name, "exits") == 0) {
			c->exits_at = (off_t)h.data_offset + d->offset;
			return;
		}
	}
	close_fd(&c->stats_fd);
}

/* ---- a processor's thread */

static void port_io(struct guest *g, struct kvm_run *run)
{
	uint8_t *at = (uint8_t *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++, at += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			g->bus.out(g->bus.arg, run->io.port, run->io.size, at);
		} else {
			memset(at, 0, run->io.size);
			g->bus.in(g->bus.arg, run->io.port, run->io.size, at);
		}
	}
}

static void memory_io(struct guest *g, struct kvm_run *run)
{
	if (run->mmio.len > sizeof(run->mmio.data))
		return;
	if (run->mmio.is_write) {
		g->bus.write(g->bus.arg, run->mmio.phys_addr, run->mmio.len, run->mmio.data);
		return;
	}
	memset(run->mmio.data, 0, sizeof(run->mmio.data));
	g->bus.read(g->bus.arg, run->mmio.phys_addr, run->mmio.len, run->mmio.data);
}

static void ended(struct guest_vcpu *c, enum guest_end how, const char *what, uint64_t code)
{
	struct kvm_regs regs = { 0 };
	char text[128];

	(void)ioctl(c->fd, KVM_GET_REGS, &regs);
	(void)snprintf(text, sizeof(text), "%s (%s %#llx, processor %u at %#llx)", guest_end_text(how), what,
		       (unsigned long long)code, c->index, (unsigned long long)regs.rip);
	guest_end(c->guest, how, text);
}

static void handle_exit(struct guest_vcpu *c)
{
	struct kvm_run *run = c->run;
	uint32_t reason = run->exit_reason;

	__atomic_fetch_add(&c->exits[reason < GUEST_EXITS ? reason : GUEST_EXITS - 1], 1, __ATOMIC_RELAXED);
	switch (reason) {
	case KVM_EXIT_IO: port_io(c->guest, run); break;
	case KVM_EXIT_MMIO: memory_io(c->guest, run); break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN: break;
	case KVM_EXIT_SHUTDOWN: ended(c, GUEST_TRIPLE_FAULT, "exit", reason); break;
	case KVM_EXIT_INTERNAL_ERROR:
		ended(c, GUEST_INTERNAL_ERROR, "KVM internal error", run->internal.suberror);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		ended(c, GUEST_ENTRY_FAILED, "hardware reason", run->fail_entry.hardware_entry_failure_reason);
		break;
	default: ended(c, GUEST_UNKNOWN_EXIT, "exit", reason); break;
	}
}

static long futex(uint32_t *at, int op, uint32_t value)
{
	return syscall(SYS_futex, at, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/* rest - until the processors shall do something else than @now. */
static void rest(struct guest *g, uint32_t now)
{
	if (__atomic_add_fetch(&g->resting, 1, __ATOMIC_SEQ_CST) == g->vcpus)
		signal_event(g->rest_fd);
	while (__atomic_load_n(&g->wanted, __ATOMIC_SEQ_CST) == now)
		(void)futex(&g->wanted, FUTEX_WAIT, now);
	__atomic_fetch_sub(&g->resting, 1, __ATOMIC_SEQ_CST);
}

static void run_processor(struct guest_vcpu *c)
{
	struct guest *g = c->guest;

	for (;;) {
		uint32_t wanted;

		__atomic_store_n(&c->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		wanted = __atomic_load_n(&g->wanted, __ATOMIC_SEQ_CST);
		if (wanted == WANT_END)
			return;
		if (wanted == WANT_REST || __atomic_load_n(&g->end, __ATOMIC_SEQ_CST) != GUEST_RUNS) {
			rest(g, wanted);
			/* The host's clock went on meanwhile: the guest's watchdogs shall not take it for a hang. */
			(void)ioctl(c->fd, KVM_KVMCLOCK_CTRL, 0);
			continue;
		}
		if (ioctl(c->fd, KVM_RUN, 0) == 0)
			handle_exit(c);
		else if (errno != EINTR && errno != EAGAIN)
			ended(c, GUEST_RUN_FAILED, "error", (uint64_t)errno);
	}
}

static void *vcpu_main(void *arg)
{
	struct guest_vcpu *c = arg;
	struct guest *g = c->guest;
	struct err err = ERR_INIT;

	c->tid = (pid_t)syscall(SYS_gettid);
	if (g->bus.confine && g->bus.confine(g->bus.arg, &err) < 0)
		guest_end(g, GUEST_RUN_FAILED, err.msg);
	run_processor(c);
	return NULL;
}

/* ---- control */

static void want(struct guest *g, uint32_t what)
{
	__atomic_store_n(&g->wanted, what, __ATOMIC_SEQ_CST);
	for (unsigned int i = 0; i < g->vcpus; i++) {
		struct guest_vcpu *c = &g->vcpu[i];

		if (!c->started)
			continue;
		__atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		(void)syscall(SYS_tgkill, g->pid, c->tid, KICK_SIGNAL);
	}
	(void)futex(&g->wanted, FUTEX_WAKE, INT_MAX);
}

void guest_resume(struct guest *g)
{
	__atomic_store_n(&g->wanted, WANT_RUN, __ATOMIC_SEQ_CST);
	(void)futex(&g->wanted, FUTEX_WAKE, INT_MAX);
}

void guest_pause(struct guest *g)
{
	want(g, WANT_REST);
}

int guest_start(struct guest *g, struct err *err)
{
	struct sigaction action = { .sa_handler = on_kick_signal };
	uint64_t n;

	g->pid = getpid();
	if (sigaction(KICK_SIGNAL, &action, NULL) < 0)
		return err_sys(err, errno, "signal handler");
	for (unsigned int i = 0; i < g->vcpus; i++) {
		int rc = pthread_create(&g->vcpu[i].thread, NULL, vcpu_main, &g->vcpu[i]);

		if (rc)
			return err_sys(err, rc, "start processor %u", i);
		g->vcpu[i].started = true;
	}
	/* All rest now: from here on every thread has its filter and its number. */
	while (read(g->rest_fd, &n, sizeof(n)) < 0)
		if (errno != EINTR && errno != EAGAIN)
			return err_sys(err, errno, "processors");
		else
			(void)usleep(50);
	if (__atomic_load_n(&g->end, __ATOMIC_SEQ_CST) != GUEST_RUNS)
		return err_set(err, EPERM, "a processor's thread: %s", g->end_text);
	return 0;
}

/* ---- making */

static int add_memory(struct guest *g, struct err *err)
{
	for (size_t i = 0; i < g->ram->count; i++) {
		const struct gmem_region *r = &g->ram->regions[i];
		struct kvm_userspace_memory_region slot = { .slot = (uint32_t)i,
							    .guest_phys_addr = r->guest,
							    .memory_size = r->size,
							    .userspace_addr = (uint64_t)(uintptr_t)r->host };

		if (ioctl(g->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
			return err_sys(err, errno, "KVM does not take the guest's memory");
	}
	return 0;
}

static int add_vcpu(struct guest *g, unsigned int i, struct err *err)
{
	struct guest_vcpu *c = &g->vcpu[i];

	c->guest = g;
	c->index = i;
	c->fd = ioctl(g->vm_fd, KVM_CREATE_VCPU, i);
	if (c->fd < 0)
		return err_sys(err, errno, "KVM cannot make processor %u", i);
	c->run = mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (c->run == MAP_FAILED) {
		c->run = NULL;
		return err_sys(err, errno, "map processor %u", i);
	}
	find_stats(c);
	return cpu_identify(g->kvm_fd, c->fd, i, g->vcpus, err);
}

static int make_vm(struct guest *g, struct err *err)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	int size = ioctl(g->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	if (ioctl(g->kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION || size < (int)sizeof(struct kvm_run))
		return err_set(err, ENODEV, "KVM has an unknown version");
	if (ioctl(g->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) <= 0)
		return err_set(err, ENODEV,
			       "KVM is too old (immediate_exit is missing): Linux 4.13 or later is needed");
	g->run_size = (size_t)size;
	g->vm_fd = ioctl(g->kvm_fd, KVM_CREATE_VM, 0);
	if (g->vm_fd < 0)
		return err_sys(err, errno, "KVM cannot make a virtual machine");
	if (ioctl(g->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS) < 0)
		return err_sys(err, errno, "KVM_SET_TSS_ADDR");
	if (ioctl(g->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0 || ioctl(g->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
		return err_sys(err, errno, "KVM's interrupt controllers");
	return 0;
}

int guest_create(struct guest *g, int kvm_fd, const struct gmem *ram, unsigned int vcpus, const struct guest_bus *bus,
		 struct err *err)
{
	int rc;

	*g = (struct guest){
		.kvm_fd = kvm_fd, .vm_fd = -1, .ram = ram, .bus = *bus, .vcpus = vcpus, .rest_fd = -1, .end_fd = -1
	};
	for (unsigned int i = 0; i < BOOT_VCPUS_MAX; i++)
		g->vcpu[i].fd = g->vcpu[i].stats_fd = -1;
	if (vcpus == 0 || vcpus > BOOT_VCPUS_MAX) {
		g->vcpus = 0;
		return err_set(err, EINVAL, "a virtual machine has 1 to %u processors, not %u", BOOT_VCPUS_MAX, vcpus);
	}
	g->rest_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (g->rest_fd < 0 || g->end_fd < 0)
		return err_sys(err, errno, "eventfd");
	rc = make_vm(g, err);
	if (rc == 0)
		rc = add_memory(g, err);
	for (unsigned int i = 0; rc == 0 && i < vcpus; i++)
		rc = add_vcpu(g, i, err);
	return rc;
}

int guest_set_entry(struct guest *g, const struct boot_entry *entry, struct err *err)
{
	return cpu_set_up(g->vcpu[0].fd, entry, err);
}

int guest_connect_irq(struct guest *g, uint32_t gsi, int fd, struct err *err)
{
	struct kvm_irqfd irq = { .fd = (uint32_t)fd, .gsi = gsi };

	return ioctl(g->vm_fd, KVM_IRQFD, &irq) < 0 ? err_sys(err, errno, "KVM_IRQFD of line %u", gsi) : 0;
}

int guest_connect_kick(struct guest *g, uint64_t addr, uint32_t value, int fd, struct err *err)
{
	struct kvm_ioeventfd kick = {
		.datamatch = value, .addr = addr, .len = 4, .fd = fd, .flags = KVM_IOEVENTFD_FLAG_DATAMATCH
	};

	return ioctl(g->vm_fd, KVM_IOEVENTFD, &kick) < 0 ? err_sys(err, errno, "KVM_IOEVENTFD") : 0;
}

void guest_destroy(struct guest *g)
{
	want(g, WANT_END);
	for (unsigned int i = 0; i < g->vcpus; i++) {
		struct guest_vcpu *c = &g->vcpu[i];

		if (c->started)
			(void)pthread_join(c->thread, NULL);
		if (c->run)
			(void)munmap(c->run, g->run_size);
		close_fd(&c->fd);
		close_fd(&c->stats_fd);
	}
	g->vcpus = 0;
	close_fd(&g->vm_fd);
	close_fd(&g->rest_fd);
	close_fd(&g->end_fd);
}
