/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual machine on KVM: memory, in-kernel interrupt controllers, one thread a processor. What the
 * processors ask for (ports, device memory) goes to a bus; how the machine ends is a value.
 */
#ifndef WALNUT_VMM_GUEST_H
#define WALNUT_VMM_GUEST_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "virtio/gmem.h"
#include "vmm/boot.h"

#define GUEST_EXITS 64 /* exit reasons that are counted apart; others in the last */

/* How a machine ended. Also the exit status of walnut-vmm run, so that its parent knows (vm_kvm.c). */
enum guest_end {
	GUEST_RUNS = 0,
	GUEST_RESET = 20,     /* by the keyboard controller: the way a guest restarts or powers off */
	GUEST_PANIC,          /* told by the guest */
	GUEST_TRIPLE_FAULT,   /* KVM_EXIT_SHUTDOWN */
	GUEST_INTERNAL_ERROR, /* KVM could not go on, e.g. an instruction it cannot emulate */
	GUEST_ENTRY_FAILED,   /* the processor refused the guest's state */
	GUEST_UNKNOWN_EXIT,   /* KVM said something this monitor does not know */
	GUEST_RUN_FAILED,     /* KVM_RUN failed */
	GUEST_STOPPED,        /* by the host */
};

/* What processors reach outside of memory. Called on their threads, several at a time. @to is zeroed before. */
struct guest_bus {
	void *arg;
	void (*out)(void *arg, uint16_t port, uint32_t len, const uint8_t *from);
	void (*in)(void *arg, uint16_t port, uint32_t len, uint8_t *to);
	void (*write)(void *arg, uint64_t addr, uint32_t len, const uint8_t *from);
	void (*read)(void *arg, uint64_t addr, uint32_t len, uint8_t *to);
	/* Called first thing on each processor's thread: its system call filter. Return: 0 or -errno. May be NULL. */
	int (*confine)(void *arg, struct err *err);
};

struct guest;

struct guest_vcpu {
	struct guest *guest;
	unsigned int index;
	int fd;         /* owned */
	int stats_fd;   /* owned; -1: this kernel has none */
	off_t exits_at; /* where KVM counts exits in it */
	struct kvm_run *run;
	pthread_t thread;
	pid_t tid;
	bool started;
	uint64_t exits[GUEST_EXITS]; /* atomic */
};

struct guest {
	int kvm_fd; /* borrowed */
	int vm_fd;  /* owned */
	size_t run_size;
	const struct gmem *ram;
	struct guest_bus bus;
	unsigned int vcpus;
	struct guest_vcpu vcpu[BOOT_VCPUS_MAX];
	pid_t pid;
	uint32_t wanted;  /* futex: what the processors shall do */
	uint32_t resting; /* processors that do not run now, atomic */
	int rest_fd;      /* owned eventfd: readable when all came to rest */
	int end_fd;       /* owned eventfd: readable when the machine ended */
	uint32_t end;     /* enum guest_end, atomic */
	char end_text[ERR_MSG_SIZE];
};

/* guest_create - @kvm_fd: /dev/kvm. The processors exist, in their reset state. */
int guest_create(struct guest *g, int kvm_fd, const struct gmem *ram, unsigned int vcpus, const struct guest_bus *bus,
		 struct err *err) MUST_CHECK;
/* guest_set_entry - where the first processor begins. */
int guest_set_entry(struct guest *g, const struct boot_entry *entry, struct err *err) MUST_CHECK;
/* guest_connect_irq - @fd (an eventfd) raises interrupt line @gsi; guest_connect_kick - writes of @value (4 bytes) at @addr go to @fd. */
int guest_connect_irq(struct guest *g, uint32_t gsi, int fd, struct err *err) MUST_CHECK;
int guest_connect_kick(struct guest *g, uint64_t addr, uint32_t value, int fd, struct err *err) MUST_CHECK;
/* guest_start - start the processors' threads; they rest until guest_resume. */
int guest_start(struct guest *g, struct err *err) MUST_CHECK;
void guest_resume(struct guest *g);
/* guest_pause - let the processors come to rest; does not wait: rest_fd tells. */
void guest_pause(struct guest *g);
/* guest_end - end the machine, from any thread; the first one to say so wins. */
void guest_end(struct guest *g, enum guest_end how, const char *text);
/* guest_destroy - stop the threads, wait for them, free everything. Not from a processor's thread. */
void guest_destroy(struct guest *g);
uint64_t guest_exits(const struct guest *g, unsigned int reason);
/* guest_kvm_exits - all exits, also those that KVM handled itself; 0 where the kernel (before 5.14) does not tell. */
uint64_t guest_kvm_exits(const struct guest *g);
/* guest_end_text - a sentence's end: "the virtual machine ...". */
const char *guest_end_text(enum guest_end how);

/* cpu.c: what a processor is and how it starts. */
int cpu_identify(int kvm_fd, int vcpu_fd, unsigned int index, unsigned int count, struct err *err) MUST_CHECK;
int cpu_set_up(int vcpu_fd, const struct boot_entry *entry, struct err *err) MUST_CHECK;

#endif
