/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A micro virtual machine, as its shim sees it: one confined process (on KVM: walnut-vmm) or two (the
 * machine: QEMU, software CPU; the devices: walnut-vmm) that die with the
 * shim and with each other, and a control socket on which guest connections
 * arrive. Nothing here blocks but vm_start (some 10 ms) and vm_free.
 *
 * Integrate: add vm_control_fd, vm_console_fd and both pidfds to the loop
 * (EPOLLIN). Control readable: vm_next_accept until it returns 0. Console
 * readable: read() some, keep the last few KiB for errors, drop the rest. A
 * pidfd readable: the machine is over (vm_exit_text says how); vm_free.
 */
#ifndef WALNUT_VMM_VM_H
#define WALNUT_VMM_VM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define VM_LAYERS_MAX 128

struct vm;

struct vm_config {
	const char *kernel;        /* path of an uncompressed vmlinux with a PVH entry */
	const char *initrd;        /* path of the initramfs */
	const char *cmdline_extra; /* appended to the kernel's command line; NULL: nothing */
	uint64_t memory_bytes;     /* at least 32 MiB; rounded up to 2 MiB */
	unsigned int vcpus;        /* 0: 1 */
	const int *layer_fds;      /* borrowed, readable: the first disk, /dev/vda, read-only, end to end */
	size_t layer_count;        /* at most VM_LAYERS_MAX; 0: no layers disk */
	int scratch_fd;            /* borrowed, read-write: the next disk (/dev/vdb after a layers disk); -1: none */
	const char *accelerator;   /* "kvm" or "software"; NULL: software */
	const char *qemu_path;     /* NULL: /usr/bin/qemu-system-x86_64 */
	const char *vmm_path;      /* walnut-vmm; NULL: beside the running executable */
	uid_t uid;                 /* of both processes; 0: 65534 */
	gid_t gid;                 /* 0: 65534 */
	/* Called in the caller's process for each child, before the child does anything, to put it into a cgroup. NULL: not. */
	int (*place)(void *arg, pid_t pid, struct err *err);
	void *place_arg;
};

/**
 * vm_start - start the two processes; the guest begins to boot
 * @out: the machine, freed with vm_free
 *
 * Listen before the guest asks: call vm_listen at once after this (the guest needs milliseconds to get there).
 * Return: 0, or -errno with @err (ENOENT: no QEMU, no kernel; EINVAL: the configuration).
 */
int vm_start(struct vm **out, const struct vm_config *config, struct err *err) MUST_CHECK;
/* vm_free - kill and reap both processes, close all descriptors. NULL is allowed. */
void vm_free(struct vm *vm);
/* vm_kill - SIGKILL to both processes; their pidfds become readable. */
void vm_kill(struct vm *vm);

/* vm_listen - accept guest connections to this port of the host (CID 2) from now on; vm_unlisten - reset them again. */
int vm_listen(struct vm *vm, uint32_t port, struct err *err) MUST_CHECK;
int vm_unlisten(struct vm *vm, uint32_t port, struct err *err) MUST_CHECK;
/**
 * vm_next_accept - the next guest connection, without waiting
 * @port: the host port it is to
 * @fd: a stream socket, close-on-exec, blocking; the caller's. shutdown(SHUT_WR) is the half-close the guest sees.
 *
 * Return: 1 with both set, 0 none now, -errno with @err (the device process is gone).
 */
int vm_next_accept(struct vm *vm, uint32_t *port, int *fd, struct err *err) MUST_CHECK;

/**
 * vm_pause - let the processors rest, or go on
 *
 * The agent does not answer while they rest. Takes a millisecond. Return: 0; -ENOSYS by software: not possible there
 * (@err not set); or -errno with @err.
 */
int vm_pause(struct vm *vm, bool paused, struct err *err) MUST_CHECK;
/* vm_status - what the monitor says of itself (vmm/status.h), hostile; NULL by software. */
const struct vmm_status *vm_status(const struct vm *vm);

/* Descriptors below are the machine's: watch and read them, do not close them. */
int vm_control_fd(const struct vm *vm);
/* vm_console_fd - what the guest's kernel prints (non-blocking pipe); must be drained, or the guest's messages wait. */
int vm_console_fd(const struct vm *vm);
int vm_qemu_pidfd(const struct vm *vm);
/* vm_device_pidfd - -1 on KVM, where one process does it all. */
int vm_device_pidfd(const struct vm *vm);
pid_t vm_qemu_pid(const struct vm *vm);

/* vm_layer_offset, vm_layer_length - where layer @i lies on the first disk, in bytes (multiples of 4096; length rounded up). */
uint64_t vm_layer_offset(const struct vm *vm, size_t i);
uint64_t vm_layer_length(const struct vm *vm, size_t i);

/**
 * vm_exit_text - how the machine ended, once a pidfd is readable (reaps without waiting)
 *
 * Return: true when one of the processes is over; @text gets one sentence such as "the virtual machine ended".
 */
bool vm_exit_text(struct vm *vm, char *text, size_t size);

#endif
