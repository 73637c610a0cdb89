/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual machine: on KVM, `walnut-vmm run`, one process; by software, QEMU's microvm under TCG,
 * its disks and its vsock served by `walnut-vmm devices`. All children are cloned into fresh
 * namespaces and wait on a pipe until the caller has put them into a cgroup;
 * QEMU then gets a read-only root with /usr and the two boot files only. The
 * write end of that pipe stays with the shim: a child that finds it closed ends.
 */
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "vmm/devctl.h"
#include "vmm/jail.h"
#include "vmm/status.h"

#define NOBODY   65534
#define ARGS_MAX (VM_LAYERS_MAX + 96)
#define CMDLINE  "console=hvc0 quiet reboot=t panic=-1 swiotlb=noforce percpu_alloc=page tsc=reliable no_timer_check"

struct vm_child {
	pid_t pid;
	int pidfd;
	int status;
	bool reaped;
};

#define CMDLINE_KVM "console=hvc0 quiet reboot=k panic=-1 swiotlb=noforce percpu_alloc=page"
#define VCPUS_MAX   32

struct vm {
	struct vm_child qemu, devices; /* on KVM walnut-vmm is the first, and there is no second */
	bool kvm;
	const struct vmm_status *status; /* the monitor's page; NULL: none */
	int control, console, alive;     /* alive: write end of the children's pipe */
	size_t layer_count;
	uint64_t offset[VM_LAYERS_MAX], length[VM_LAYERS_MAX];
};

/* A command line under construction: arguments and the descriptors that go with it, numbered from 3 in the child. */
struct command {
	char *argv[ARGS_MAX];
	size_t argc;
	int fds[VM_LAYERS_MAX + 16]; /* borrowed */
	size_t nfds;
	int exec_fd; /* the program, O_PATH; 0: by its path */
	bool failed;
};

static void command_fini(struct command *c)
{
	for (size_t i = 0; i < c->argc; i++)
		free(c->argv[i]);
}

static void __attribute__((format(printf, 2, 3))) arg(struct command *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (c->argc + 1 >= ARGS_MAX || vasprintf(&c->argv[c->argc], fmt, ap) < 0)
		c->failed = true;
	else
		c->argc++;
	va_end(ap);
}

/* give - the number that @fd will have in the child. */
static int give(struct command *c, int fd)
{
	c->fds[c->nfds++] = fd;
	return (int)c->nfds + 2;
}

/* Rate of the time stamp counter, which QEMU passes on to the guest; told by command line, it is not measured there (50 ms). */
static unsigned int tsc_khz(void)
{
#ifdef __x86_64__
	uint64_t ticks[2], ns[2];

	for (int i = 0; i < 2; i++) {
		uint64_t best = UINT64_MAX;

		for (int n = 0; n < 8; n++) {
			struct timespec t;
			uint64_t before = __builtin_ia32_rdtsc(), after;

			(void)clock_gettime(CLOCK_MONOTONIC, &t);
			after = __builtin_ia32_rdtsc();
			if (after - before >= best)
				continue;
			best = after - before;
			ticks[i] = before + best / 2;
			ns[i] = (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
		}
		if (i == 0)
			(void)nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
	if (ns[1] > ns[0] && ticks[1] > ticks[0])
		return (unsigned int)((ticks[1] - ticks[0]) * 1000000U / (ns[1] - ns[0]));
#endif
	return 0;
}

/* arrange_fds - the command's descriptors become 3, 4, ...; the error pipe follows; the rest is closed. */
static int arrange_fds(struct command *c, int *error_fd)
{
	int high[ARRAY_LEN(c->fds)], last = (int)c->nfds + 3, e, program = -1;

	e = fcntl(*error_fd, F_DUPFD_CLOEXEC, 512);
	if (e >= 0 && c->exec_fd)
		program = fcntl(c->exec_fd, F_DUPFD_CLOEXEC, 512);
	if (e < 0 || (c->exec_fd && program < 0))
		return -errno;
	for (size_t i = 0; i < c->nfds; i++) {
		high[i] = fcntl(c->fds[i], F_DUPFD_CLOEXEC, 512);
		if (high[i] < 0)
			return -errno;
	}
	for (size_t i = 0; i < c->nfds; i++)
		if (dup2(high[i], (int)i + 3) < 0)
			return -errno;
	if (dup3(e, last, O_CLOEXEC) < 0)
		return -errno;
	*error_fd = last;
	if (program >= 0) {
		if (dup3(program, ++last, O_CLOEXEC) < 0)
			return -errno;
		c->exec_fd = last;
	}
	return close_range((unsigned int)last + 1, ~0U, 0) < 0 ? -errno : 0;
}

/* What QEMU may see: programs and libraries, the loader's cache, and the two boot files. */
static int qemu_jail(const struct vm_config *config, struct err *err)
{
	const struct {
		const char *from, *at;
		bool needed;
	} shown[] = {
		{ "/usr", "/usr", true },
		{ "/lib", "/lib", false },
		{ "/lib64", "/lib64", false },
		{ "/etc/ld.so.cache", "/etc/ld.so.cache", false },
		{ config->kernel, "/kernel", true },
		{ config->initrd, "/initrd", true },
	};
	struct jail_bind binds[ARRAY_LEN(shown)];
	size_t n = 0;
	int rc;

	for (size_t i = 0; i < ARRAY_LEN(shown); i++) {
		int fd = open(shown[i].from, O_PATH | O_CLOEXEC);

		if (fd < 0 && shown[i].needed)
			return err_sys(err, errno, "%s", shown[i].from);
		if (fd >= 0)
			binds[n++] = (struct jail_bind){ .at = shown[i].at, .fd = fd };
	}
	rc = jail_root(binds, n, err);
	for (size_t i = 0; i < n; i++)
		(void)close(binds[i].fd);
	if (rc == 0)
		rc = jail_limits(1024, config->memory_bytes + (16U << 20), err);
	return rc;
}

static int child_prepare(struct command *c, const struct vm_config *config, bool is_qemu, int go, int *error_fd,
			 struct err *err)
{
	int null = open("/dev/null", O_RDWR);
	sigset_t none;
	char byte;
	int rc = 0;

	if (read(go, &byte, 1) != 1)
		return err_set(err, ECANCELED, "the start was abandoned");
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0)
		return err_sys(err, errno, "/dev/null");
	if (is_qemu)
		rc = qemu_jail(config, err);
	if (rc == 0 && is_qemu)
		rc = jail_drop(config->uid ? config->uid : NOBODY, config->gid ? config->gid : NOBODY, err);
	if (rc < 0)
		return rc;
	/* The signal for the parent's death is set now: see whether it died before. */
	struct pollfd p = { .fd = go, .events = POLLIN };

	if (poll(&p, 1, 0) < 0 || (p.revents & POLLHUP))
		return err_set(err, ECANCELED, "the shim is gone");
	rc = arrange_fds(c, error_fd);
	return rc < 0 ? err_sys(err, -rc, "descriptors") : 0;
}

/* write_map - in the child's user namespace there are root, to set the jail up with, and the machine's user; outside both are the same. */
static int write_map(pid_t pid, const char *name, unsigned int id, struct err *err)
{
	char path[64], text[64];
	int n = snprintf(text, sizeof(text), "0 0 1\n%u %u 1\n", id, id);

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return fd_write_file(AT_FDCWD, path, O_WRONLY, text, (size_t)n, err);
}

/*
 * clone_child - a process in namespaces of its own. walnut-vmm gets a user namespace too: what it could still do with the
 * kernel it does without a capability that means anything outside. Where there are none to be had (user.max_user_namespaces),
 * it has the rest of the jail.
 */
static long clone_child(struct vm_child *child, bool *user_namespace)
{
	struct clone_args args = {
		.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)&child->pidfd,
		.exit_signal = SIGCHLD,
	};
	long pid;

	if (*user_namespace) {
		args.flags |= CLONE_NEWUSER;
		pid = syscall(SYS_clone3, &args, sizeof(args));
		if (pid >= 0)
			return pid;
		args.flags &= ~(uint64_t)CLONE_NEWUSER;
		*user_namespace = false;
	}
	return syscall(SYS_clone3, &args, sizeof(args));
}

static int spawn(struct vm_child *child, struct command *c, const struct vm_config *config, bool is_qemu, int alive[2],
		 struct err *err)
{
	CLEAN_FD int error_read = -1;
	struct err e = ERR_INIT;
	int errors[2];
	ssize_t n;
	bool user_namespace = !is_qemu;
	CLEAN_FD int program = is_qemu ? -1 : open(c->argv[0], O_PATH | O_CLOEXEC);
	unsigned int uid = config->uid ? config->uid : NOBODY, gid = config->gid ? config->gid : NOBODY;
	long pid;

	/* Root of a user namespace may not pass a folder that only another user may: the program goes along open. */
	c->exec_fd = program > 0 ? program : 0;
	if (c->failed)
		return err_set(err, ENOMEM, "out of memory");
	if (pipe2(errors, O_CLOEXEC) < 0)
		return err_sys(err, errno, "pipe");
	pid = clone_child(child, &user_namespace);
	if (pid < 0) {
		int code = errno;

		(void)close(errors[0]);
		(void)close(errors[1]);
		return err_sys(err, code, "cannot start a process in new namespaces");
	}
	if (pid == 0) {
		(void)close(alive[1]);
		if (child_prepare(c, config, is_qemu, alive[0], &errors[1], &e) == 0) {
			char *env[] = { (char *)"PATH=/usr/bin:/bin",
					getenv("WALNUT_VMM_DEBUG") ? (char *)"WALNUT_VMM_DEBUG=1" : NULL, NULL };

			if (c->exec_fd)
				(void)execveat(c->exec_fd, "", c->argv, env, AT_EMPTY_PATH);
			else
				(void)execve(c->argv[0], c->argv, env);
			(void)err_sys(&e, errno, "%s", c->argv[0]);
		}
		if (write(errors[1], &e, sizeof(e)) < 0)
			_exit(126);
		_exit(127);
	}
	(void)close(errors[1]);
	error_read = errors[0];
	child->pid = (pid_t)pid;
	if (user_namespace &&
	    (write_map(child->pid, "uid_map", uid, err) < 0 || write_map(child->pid, "gid_map", gid, err) < 0))
		return -err->code;
	if (config->place) {
		int rc = config->place(config->place_arg, child->pid, err);

		if (rc < 0)
			return rc;
	}
	if (write(alive[1], "", 1) != 1)
		return err_sys(err, errno, "pipe");
	n = fd_read_full(error_read, &e, sizeof(e));
	if (n == (ssize_t)sizeof(e)) {
		*err = e;
		return err_wrap(err, "cannot start %s", c->argv[0]);
	}
	return 0;
}

static int build_devices(struct command *c, const struct vm_config *config, const char *vmm, int control, int vsock,
			 int layers, int scratch)
{
	arg(c, "%s", vmm);
	arg(c, "devices");
	arg(c, "--uid=%u", config->uid ? config->uid : NOBODY);
	arg(c, "--gid=%u", config->gid ? config->gid : NOBODY);
	arg(c, "--control=%d", give(c, control));
	arg(c, "--vsock=%d", give(c, vsock));
	if (layers >= 0)
		arg(c, "--layers=%d", give(c, layers));
	for (size_t i = 0; i < config->layer_count; i++)
		arg(c, "--layer=%d", give(c, config->layer_fds[i]));
	if (scratch >= 0) {
		arg(c, "--scratch=%d", give(c, scratch));
		arg(c, "--scratch-file=%d", give(c, config->scratch_fd));
	}
	return c->failed ? -ENOMEM : 0;
}

static int build_qemu(struct command *c, const struct vm_config *config, int vsock, int layers, int scratch,
		      int console)
{
	unsigned int vcpus = config->vcpus ? config->vcpus : 1, khz = tsc_khz();
	uint64_t memory = (config->memory_bytes + (2U << 20) - 1) >> 21 << 1; /* MiB */

	arg(c, "%s", config->qemu_path ? config->qemu_path : "/usr/bin/qemu-system-x86_64");
	arg(c, "-nodefaults");
	arg(c, "-no-user-config");
	arg(c, "-nographic");
	arg(c, "-no-reboot");
	arg(c, "-M");
	arg(c, "microvm,acpi=off,rtc=off,isa-serial=off,x-option-roms=off,memory-backend=mem");
	arg(c, "-global");
	arg(c, "virtio-mmio.force-legacy=false");
	arg(c, "-accel");
	arg(c, "tcg,thread=%s,tb-size=64", vcpus > 1 ? "multi" : "single");
	arg(c, "-cpu");
	arg(c, "max");
	arg(c, "-smp");
	arg(c, "%u", vcpus);
	arg(c, "-m");
	arg(c, "%llum", (unsigned long long)memory);
	arg(c, "-object");
	arg(c, "memory-backend-memfd,id=mem,share=on,size=%lluM", (unsigned long long)memory);
	arg(c, "-kernel");
	arg(c, "/kernel");
	arg(c, "-initrd");
	arg(c, "/initrd");
	arg(c, "-append");
	if (khz)
		arg(c, CMDLINE " tsc_early_khz=%u%s%s%s", khz, vcpus == 1 ? " noapictimer" : "",
		    config->cmdline_extra ? " " : "", config->cmdline_extra ? config->cmdline_extra : "");
	else
		arg(c, CMDLINE "%s%s", config->cmdline_extra ? " " : "",
		    config->cmdline_extra ? config->cmdline_extra : "");
	arg(c, "-sandbox");
	arg(c, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	arg(c, "-chardev");
	arg(c, "socket,id=vsock,fd=%d", give(c, vsock));
	arg(c, "-chardev");
	arg(c, "socket,id=console,fd=%d", give(c, console));
	arg(c, "-device");
	arg(c, "vhost-user-vsock-device,chardev=vsock");
	arg(c, "-device");
	arg(c, "virtio-rng-device");
	arg(c, "-device");
	arg(c, "virtio-serial-device,max_ports=1");
	arg(c, "-device");
	arg(c, "virtconsole,chardev=console");
	if (layers >= 0) {
		arg(c, "-chardev");
		arg(c, "socket,id=layers,fd=%d", give(c, layers));
		arg(c, "-device");
		arg(c, "vhost-user-blk,chardev=layers,num-queues=1,queue-size=128");
	}
	if (scratch >= 0) {
		arg(c, "-chardev");
		arg(c, "socket,id=scratch,fd=%d", give(c, scratch));
		arg(c, "-device");
		arg(c, "vhost-user-blk,chardev=scratch,num-queues=1,queue-size=128");
	}
	return c->failed ? -ENOMEM : 0;
}

static int build_run(struct command *c, const struct vm_config *config, const char *vmm, const int fds[6])
{
	static const char *const names[] = { "kvm", "kernel", "initrd", "control", "console", "status" };
	uint64_t memory = (config->memory_bytes + (2U << 20) - 1) & ~((2ULL << 20) - 1);

	arg(c, "%s", vmm);
	arg(c, "run");
	arg(c, "--uid=%u", config->uid ? config->uid : NOBODY);
	arg(c, "--gid=%u", config->gid ? config->gid : NOBODY);
	arg(c, "--vcpus=%u", config->vcpus ? config->vcpus : 1);
	arg(c, "--memory=%llu", (unsigned long long)memory);
	arg(c, "--cmdline=" CMDLINE_KVM "%s%s", config->cmdline_extra ? " " : "",
	    config->cmdline_extra ? config->cmdline_extra : "");
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		arg(c, "--%s=%d", names[i], give(c, fds[i]));
	for (size_t i = 0; i < config->layer_count; i++)
		arg(c, "--layer=%d", give(c, config->layer_fds[i]));
	if (config->scratch_fd >= 0)
		arg(c, "--scratch-file=%d", give(c, config->scratch_fd));
	return c->failed ? -ENOMEM : 0;
}

static int check(struct vm *vm, const struct vm_config *config, struct err *err)
{
	const char *qemu = config->qemu_path ? config->qemu_path : "/usr/bin/qemu-system-x86_64";
	uint64_t at = 0;

	vm->kvm = config->accelerator && strcmp(config->accelerator, "kvm") == 0;
	if (config->accelerator && !vm->kvm && strcmp(config->accelerator, "software") != 0)
		return err_set(err, EINVAL, "unknown accelerator \"%s\": it is \"kvm\" or \"software\"",
			       config->accelerator);
	if (!vm->kvm && access(qemu, X_OK) < 0)
		return err_set(err, ENOENT,
			       "%s not found: install qemu-system-x86 to run hyperv containers without KVM", qemu);
	if (access(config->kernel, R_OK) < 0)
		return err_sys(err, errno, "guest kernel %s", config->kernel);
	if (access(config->initrd, R_OK) < 0)
		return err_sys(err, errno, "guest initramfs %s", config->initrd);
	if (config->memory_bytes < 32U << 20)
		return err_set(err, EINVAL, "a virtual machine needs at least 32 MiB of memory");
	if (config->layer_count > VM_LAYERS_MAX || config->vcpus > VCPUS_MAX)
		return err_set(err, EINVAL, "too many layers (%zu) or processors (%u)", config->layer_count,
			       config->vcpus);
	for (size_t i = 0; i < config->layer_count; i++) {
		struct stat st;

		if (fstat(config->layer_fds[i], &st) < 0 || !S_ISREG(st.st_mode))
			return err_set(err, EINVAL, "layer %zu is not a regular file", i);
		vm->offset[i] = at;
		vm->length[i] = ((uint64_t)st.st_size + 4095) & ~4095ULL;
		at += vm->length[i];
	}
	vm->layer_count = config->layer_count;
	return 0;
}

static int vmm_path(const struct vm_config *config, char *path, size_t size, struct err *err)
{
	ssize_t n;
	char *slash;

	if (config->vmm_path) {
		(void)snprintf(path, size, "%s", config->vmm_path);
		return 0;
	}
	n = readlink("/proc/self/exe", path, size - 32);
	if (n < 0)
		return err_sys(err, errno, "/proc/self/exe");
	path[n] = '\0';
	slash = strrchr(path, '/');
	(void)snprintf(slash + 1, size - (size_t)(slash + 1 - path), "walnut-vmm");
	if (access(path, X_OK) == 0)
		return 0;
	/* In a build folder the executables lie in src/PART/. */
	(void)snprintf(slash + 1, size - (size_t)(slash + 1 - path), "../vmm/walnut-vmm");
	return access(path, X_OK) == 0 ? 0 : err_set(err, ENOENT, "walnut-vmm not found beside the shim");
}

static void close_pair(int (*pair)[2])
{
	cleanup_fd(&(*pair)[0]);
	cleanup_fd(&(*pair)[1]);
}

static int start_children(struct vm *vm, const struct vm_config *config, const char *vmm, struct err *err)
{
	CLEAN(command_fini) struct command qemu = { 0 };
	CLEAN(command_fini) struct command devices = { 0 };
	int control[2] __attribute__((cleanup(close_pair))) = { -1, -1 };
	int vsock[2] __attribute__((cleanup(close_pair))) = { -1, -1 };
	int layers[2] __attribute__((cleanup(close_pair))) = { -1, -1 };
	int scratch[2] __attribute__((cleanup(close_pair))) = { -1, -1 };
	int console[2] __attribute__((cleanup(close_pair))) = { -1, -1 };
	int alive[2] __attribute__((cleanup(close_pair))) = { -1, -1 };
	int rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, control) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, vsock) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) < 0 || pipe2(alive, O_CLOEXEC) < 0 ||
	    (config->layer_count && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, layers) < 0) ||
	    (config->scratch_fd >= 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, scratch) < 0))
		return err_sys(err, errno, "sockets of the virtual machine");
	if (build_devices(&devices, config, vmm, control[1], vsock[1], layers[1], scratch[1]) < 0 ||
	    build_qemu(&qemu, config, vsock[0], layers[0], scratch[0], console[1]) < 0)
		return err_set(err, ENOMEM, "out of memory");
	rc = spawn(&vm->devices, &devices, config, false, alive, err);
	if (rc == 0)
		rc = spawn(&vm->qemu, &qemu, config, true, alive, err);
	if (rc < 0)
		return rc;
	if (fd_set_nonblock(console[0], true) < 0)
		return err_set(err, EIO, "console socket");
	vm->control = take_fd(&control[0]);
	vm->console = take_fd(&console[0]);
	vm->alive = take_fd(&alive[1]);
	return 0;
}

static int map_status(struct vm *vm, int fd, struct err *err)
{
	void *page;

	if (ftruncate(fd, STATUS_BYTES) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return err_sys(err, errno, "the status page of the virtual machine");
	page = mmap(NULL, STATUS_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return err_sys(err, errno, "the status page of the virtual machine");
	vm->status = page;
	return 0;
}

static int start_monitor(struct vm *vm, const struct vm_config *config, const char *vmm, struct err *err)
{
	CLEAN(command_fini) struct command run = { 0 };
	int control[2] __attribute__((cleanup(close_pair))) = { -1, -1 };
	int console[2] __attribute__((cleanup(close_pair))) = { -1, -1 };
	int alive[2] __attribute__((cleanup(close_pair))) = { -1, -1 };
	CLEAN_FD int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	CLEAN_FD int kernel = open(config->kernel, O_RDONLY | O_CLOEXEC);
	CLEAN_FD int initrd = open(config->initrd, O_RDONLY | O_CLOEXEC);
	CLEAN_FD int status = memfd_create("walnut-vmm-status", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int rc;

	if (kvm < 0)
		return err_sys(err, errno, "/dev/kvm");
	if (kernel < 0 || initrd < 0 || status < 0)
		return err_sys(err, errno, "files of the virtual machine");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, control) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, console) < 0 ||
	    pipe2(alive, O_CLOEXEC) < 0)
		return err_sys(err, errno, "sockets of the virtual machine");
	rc = map_status(vm, status, err);
	if (rc < 0)
		return rc;
	if (build_run(&run, config, vmm, (int[]){ kvm, kernel, initrd, control[1], console[1], status }) < 0)
		return err_set(err, ENOMEM, "out of memory");
	rc = spawn(&vm->qemu, &run, config, false, alive, err);
	if (rc < 0)
		return rc;
	vm->control = take_fd(&control[0]);
	vm->console = take_fd(&console[0]);
	vm->alive = take_fd(&alive[1]);
	return 0;
}

int vm_start(struct vm **out, const struct vm_config *config, struct err *err)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	char vmm[4096];
	int rc;

	*out = NULL;
	if (!vm)
		return err_set(err, ENOMEM, "out of memory");
	vm->control = vm->console = vm->alive = vm->qemu.pidfd = vm->devices.pidfd = -1;
	rc = check(vm, config, err);
	if (rc == 0)
		rc = vmm_path(config, vmm, sizeof(vmm), err);
	if (rc == 0)
		rc = vm->kvm ? start_monitor(vm, config, vmm, err) : start_children(vm, config, vmm, err);
	if (rc < 0) {
		vm_free(vm);
		return rc;
	}
	*out = vm;
	return 0;
}

static void reap(struct vm_child *c, bool wait)
{
	if (c->pid > 0 && !c->reaped && waitpid(c->pid, &c->status, wait ? 0 : WNOHANG) == c->pid)
		c->reaped = true;
}

static void child_kill(struct vm_child *c)
{
	if (c->pid > 0 && !c->reaped)
		(void)syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
}

void vm_kill(struct vm *vm)
{
	child_kill(&vm->qemu);
	child_kill(&vm->devices);
}

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	vm_kill(vm);
	reap(&vm->qemu, true);
	reap(&vm->devices, true);
	close_fd(&vm->qemu.pidfd);
	close_fd(&vm->devices.pidfd);
	close_fd(&vm->control);
	close_fd(&vm->console);
	close_fd(&vm->alive);
	if (vm->status)
		(void)munmap((void *)(uintptr_t)vm->status, STATUS_BYTES);
	free(vm);
}

static int tell(struct vm *vm, uint32_t type, uint32_t port, struct err *err)
{
	struct devctl_packet p = { .type = type, .port = port };

	for (;;) {
		struct pollfd pf = { .fd = vm->control, .events = POLLOUT };

		if (send(vm->control, &p, sizeof(p), MSG_NOSIGNAL) == (ssize_t)sizeof(p))
			return 0;
		if (errno != EAGAIN && errno != EINTR)
			return err_sys(err, errno, "the device process of the virtual machine is gone");
		if (poll(&pf, 1, 10000) == 0)
			return err_set(err, ETIMEDOUT, "the device process of the virtual machine does not answer");
	}
}

int vm_listen(struct vm *vm, uint32_t port, struct err *err)
{
	return tell(vm, DEVCTL_LISTEN, port, err);
}

int vm_unlisten(struct vm *vm, uint32_t port, struct err *err)
{
	return tell(vm, DEVCTL_UNLISTEN, port, err);
}

int vm_next_accept(struct vm *vm, uint32_t *port, int *fd, struct err *err)
{
	struct devctl_packet p;
	int fds[FD_PASS_MAX];
	size_t nfds = 0;
	ssize_t n = fd_recv(vm->control, &p, sizeof(p), fds, &nfds);

	if (n == -EAGAIN || n == -EINTR)
		return 0;
	if (n == (ssize_t)sizeof(p) && p.type == DEVCTL_ACCEPTED && nfds == 1) {
		*port = p.port;
		*fd = fds[0];
		return 1;
	}
	for (size_t i = 0; i < nfds; i++)
		(void)close(fds[i]);
	return err_set(err, EPIPE, "the device process of the virtual machine is gone");
}

int vm_pause(struct vm *vm, bool paused, struct err *err)
{
	int rc;

	if (!vm->kvm)
		return -ENOSYS;
	rc = tell(vm, paused ? DEVCTL_PAUSE : DEVCTL_RESUME, 0, err);
	for (int i = 0; rc == 0 && i < 10000; i++) {
		uint32_t state = __atomic_load_n(&vm->status->state, __ATOMIC_ACQUIRE);

		if (state == (paused ? STATUS_PAUSED : STATUS_RUNNING) || state == STATUS_ENDED)
			return 0;
		(void)nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	}
	return rc < 0 ? rc : err_set(err, ETIMEDOUT, "the virtual machine does not come to rest");
}

const struct vmm_status *vm_status(const struct vm *vm)
{
	return vm->status;
}

int vm_control_fd(const struct vm *vm)
{
	return vm->control;
}
int vm_console_fd(const struct vm *vm)
{
	return vm->console;
}
int vm_qemu_pidfd(const struct vm *vm)
{
	return vm->qemu.pidfd;
}
int vm_device_pidfd(const struct vm *vm)
{
	return vm->devices.pidfd;
}
pid_t vm_qemu_pid(const struct vm *vm)
{
	return vm->qemu.pid;
}

uint64_t vm_layer_offset(const struct vm *vm, size_t i)
{
	bug_on(i >= vm->layer_count);
	return vm->offset[i];
}

uint64_t vm_layer_length(const struct vm *vm, size_t i)
{
	bug_on(i >= vm->layer_count);
	return vm->length[i];
}

bool vm_exit_text(struct vm *vm, char *text, size_t size)
{
	const struct vm_child *c;
	const char *what;

	reap(&vm->qemu, false);
	reap(&vm->devices, false);
	if (vm->kvm && vm->qemu.reaped && WIFEXITED(vm->qemu.status) && vm->status->end_text[0]) {
		(void)snprintf(text, size, "the virtual machine %.*s", (int)sizeof(vm->status->end_text) - 1,
			       vm->status->end_text);
		return true;
	}
	if (!vm->qemu.reaped && !vm->devices.reaped)
		return false;
	c = vm->devices.reaped && (!vm->qemu.reaped || WIFSIGNALED(vm->devices.status)) ? &vm->devices : &vm->qemu;
	what = c == &vm->qemu ? "the virtual machine" : "the device process of the virtual machine";
	if (WIFSIGNALED(c->status))
		(void)snprintf(text, size, "%s was killed by signal %d (%s)", what, WTERMSIG(c->status),
			       strsignal(WTERMSIG(c->status)));
	else if (WEXITSTATUS(c->status))
		(void)snprintf(text, size, "%s failed with status %d", what, WEXITSTATUS(c->status));
	else
		(void)snprintf(text, size, "%s ended", what);
	return true;
}
