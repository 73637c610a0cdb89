/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walnut-vmm run: one virtual machine on KVM, in a process that holds nothing but the descriptors it was
 * started with. First it gives everything else up (own user, empty root, no network, no capability,
 * Landlock), then it reads the kernel and makes the machine; so not even that happens with privilege.
 *
 * Threads: this one with the devices' loop; the disks' (their requests block); one for each processor.
 * Every thread sets its system call filter before the first instruction of the guest.
 *
 * Machine: RAM, KVM's interrupt controllers and timer, virtio-mmio devices from 0xc0001000 on (one page
 * and one interrupt line each, told on the kernel's command line), a serial port that only prints, and
 * the keyboard controller's reset. The exit status is how the machine ended (enum guest_end).
 */
#include "vmm/run.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "virtio/balloon.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/mmio.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"
#include "vmm/confine.h"
#include "vmm/conlog.h"
#include "vmm/guest.h"
#include "vmm/handoff.h"
#include "vmm/jail.h"
#include "vmm/ports.h"
#include "vmm/ram.h"
#include "vmm/status.h"

#define MMIO_BASE   0xc0001000ULL
#define DEVICES_MAX 8
#define SERIAL      0x3f8U
#define SERIAL_LCR  3U
#define SERIAL_LSR  5U
#define LCR_DLAB    0x80U
#define LSR_EMPTY   0x60U /* may be written to */
#define KEYBOARD    0x64U
#define KBD_RESET   0xfeU
#define PVPANIC     0x505U /* QEMU, docs/specs/pvpanic.txt */
#define STATUS_MS   250

/* Lines of the interrupt controller that nothing else on a PC uses, one a device. */
static const uint32_t lines[DEVICES_MAX] = { 5, 6, 7, 9, 10, 11, 12, 14 };

struct run {
	/* what was asked for */
	uid_t uid;
	gid_t gid;
	unsigned int vcpus;
	uint64_t memory;
	const char *cmdline;
	int kvm_fd, kernel_fd, initrd_fd, control_fd, console_fd, status_fd;
	struct blk layers, scratch;
	/* the machine */
	struct loop *loop, *disk_loop;
	struct handoff call, disk_call;
	struct gmem ram;
	struct guest guest;
	struct ports ports;
	struct conlog conlog;
	struct console console;
	struct balloon balloon;
	struct virtio_device devices[DEVICES_MAX];
	struct virtio_mmio mmio[DEVICES_MAX];
	unsigned int device_count;
	uint8_t serial_lcr; /* atomic */
	bool pausing;
	struct vmm_status *status;
};

/* ---- what processors reach outside of memory */

static void out(void *arg, uint16_t port, uint32_t len, const uint8_t *from)
{
	struct run *r = arg;

	if (port == SERIAL && !(__atomic_load_n(&r->serial_lcr, __ATOMIC_RELAXED) & LCR_DLAB))
		conlog_put(&r->conlog, (char)from[0]);
	else if (port == SERIAL + SERIAL_LCR)
		__atomic_store_n(&r->serial_lcr, from[0], __ATOMIC_RELAXED);
	else if (port == KEYBOARD && from[0] == KBD_RESET)
		guest_end(&r->guest, GUEST_RESET, NULL);
	else if (port == PVPANIC && (from[0] & 1))
		guest_end(&r->guest, GUEST_PANIC, NULL);
}

static void in(void *arg, uint16_t port, uint32_t len, uint8_t *to)
{
	if (port == SERIAL + SERIAL_LSR)
		to[0] = LSR_EMPTY;
	else if (port == PVPANIC)
		to[0] = 1;
}

static struct virtio_mmio *device_at(struct run *r, uint64_t addr, uint32_t *offset)
{
	uint64_t i = (addr - MMIO_BASE) / VIRTIO_MMIO_SIZE;

	*offset = (uint32_t)((addr - MMIO_BASE) % VIRTIO_MMIO_SIZE);
	return addr >= MMIO_BASE && i < r->device_count ? &r->mmio[i] : NULL;
}

static void mem_write(void *arg, uint64_t addr, uint32_t len, const uint8_t *from)
{
	uint32_t offset;
	struct virtio_mmio *m = device_at(arg, addr, &offset);

	if (m)
		virtio_mmio_write(m, offset, len, from);
}

static void mem_read(void *arg, uint64_t addr, uint32_t len, uint8_t *to)
{
	uint32_t offset;
	struct virtio_mmio *m = device_at(arg, addr, &offset);

	if (m)
		virtio_mmio_read(m, offset, len, to);
}

static int confine_vcpu(void *arg, struct err *err)
{
	return confine_thread(CONFINE_VCPU, err);
}

/* ---- the shim's wishes, and what it is told */

static void update_status(struct run *r)
{
	struct vmm_status *s = r->status;

	for (unsigned int i = 0; i < STATUS_EXITS && i < GUEST_EXITS; i++)
		s->exits[i] = guest_exits(&r->guest, i);
	s->returned_bytes = __atomic_load_n(&r->balloon.returned, __ATOMIC_RELAXED);
	s->kvm_exits = guest_kvm_exits(&r->guest);
}

static void on_accepted(void *arg)
{
	struct run *r = arg;
	struct vmm_status *s = r->status;

	if (s->hello_exits)
		return;
	s->hello_kvm_exits = guest_kvm_exits(&r->guest);
	for (unsigned int i = 0; i < GUEST_EXITS; i++)
		s->hello_exits += guest_exits(&r->guest, i);
}

static void set_state(struct run *r, enum status_state state)
{
	update_status(r);
	__atomic_store_n(&r->status->state, (uint32_t)state, __ATOMIC_RELEASE);
}

static void on_timer(struct loop *l, void *arg)
{
	struct run *r = arg;

	update_status(r);
	if (!loop_add_timer(l, STATUS_MS, on_timer, r))
		log_debug("no memory for a timer");
}

/* The exit status tells how it ended; what KVM said in detail goes to the console, which the shim keeps. */
static _Noreturn void end(struct run *r)
{
	struct vmm_status *s = r->status;
	char panic[160];

	guest_pause(&r->guest);
	conlog_put(&r->conlog, '\n');
	if (r->guest.end != GUEST_RESET)
		log_warn("the virtual machine %s", r->guest.end_text);
	if ((r->guest.end == GUEST_RESET || r->guest.end == GUEST_PANIC) &&
	    conlog_find(&r->conlog, "Kernel panic - not syncing: ", panic, sizeof(panic))) {
		r->guest.end = GUEST_PANIC;
		(void)snprintf(r->guest.end_text, sizeof(r->guest.end_text), "ended: its own kernel panicked: %s",
			       panic);
	}
	s->end = r->guest.end;
	memcpy(s->end_text, r->guest.end_text, sizeof(s->end_text) - 1);
	set_state(r, STATUS_ENDED);
	_exit((int)r->guest.end);
}

static void on_end(struct loop *l, int fd, uint32_t events, void *arg)
{
	end(arg);
}

static void on_rest(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct run *r = arg;
	uint64_t n;

	if (read(fd, &n, sizeof(n)) == (ssize_t)sizeof(n) && r->pausing)
		set_state(r, STATUS_PAUSED);
}

static void set_balloon(struct run *r, uint32_t pages)
{
	uint64_t most = r->memory / BALLOON_PAGE;

	__atomic_store_n(&r->balloon.target, pages < most ? pages : (uint32_t)most, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < r->device_count; i++)
		if (r->devices[i].state == &r->balloon)
			virtio_mmio_config_changed(&r->mmio[i]);
}

static void on_control(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct run *r = arg;
	struct devctl_packet p;
	int rc = ports_receive(&r->ports, &p);

	if (rc < 0) {
		guest_end(&r->guest, GUEST_STOPPED, "was stopped: its shim is gone");
		end(r);
	}
	if (rc == 0)
		return;
	if (p.type == DEVCTL_PAUSE) {
		r->pausing = true;
		guest_pause(&r->guest);
	} else if (p.type == DEVCTL_RESUME) {
		r->pausing = false;
		set_state(r, STATUS_RUNNING);
		guest_resume(&r->guest);
	} else if (p.type == DEVCTL_BALLOON) {
		set_balloon(r, p.port);
	}
}

/* ---- making the machine */

static int add_device(struct run *r, const struct virtio_ops *ops, void *state, bool disk, struct err *err)
{
	unsigned int i = r->device_count;

	bug_on(i == DEVICES_MAX);
	r->devices[i] = (struct virtio_device){ .ops = *ops, .state = state, .loop = disk ? r->disk_loop : r->loop };
	r->device_count++;
	return virtio_mmio_init(&r->mmio[i], &r->devices[i], &r->ram, handoff_run, disk ? &r->disk_call : &r->call,
				err);
}

static int add_devices(struct run *r, struct err *err)
{
	struct virtio_ops ops = vsock_ops();
	int rc;

	r->console = (struct console){ .write = conlog_write, .arg = &r->conlog };
	r->balloon = (struct balloon){ .mem = &r->ram };
	rc = add_device(r, &ops, r->ports.vsock, false, err);
	ops = console_ops();
	if (rc == 0)
		rc = add_device(r, &ops, &r->console, false, err);
	ops = rng_ops();
	if (rc == 0)
		rc = add_device(r, &ops, NULL, false, err);
	ops = balloon_ops();
	if (rc == 0)
		rc = add_device(r, &ops, &r->balloon, false, err);
	if (rc == 0 && r->layers.count) {
		r->layers.read_only = true;
		memcpy(r->layers.serial, "walnut-layers", 13);
		ops = blk_ops(&r->layers);
		rc = add_device(r, &ops, &r->layers, true, err);
	}
	if (rc == 0 && r->scratch.count) {
		memcpy(r->scratch.serial, "walnut-scratch", 14);
		ops = blk_ops(&r->scratch);
		rc = add_device(r, &ops, &r->scratch, true, err);
	}
	return rc;
}

/* Interrupts by irqfd, notifications by ioeventfd: neither passes through this process's code. */
static int connect_devices(struct run *r, struct err *err)
{
	for (unsigned int i = 0; i < r->device_count; i++) {
		uint64_t notify = MMIO_BASE + i * VIRTIO_MMIO_SIZE + 0x50;
		int rc = guest_connect_irq(&r->guest, lines[i], r->mmio[i].irq_fd, err);

		for (unsigned int k = 0; rc == 0 && k < r->devices[i].ops.queues; k++)
			rc = guest_connect_kick(&r->guest, notify, k, r->mmio[i].kick_fd[k], err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int load(struct run *r, struct err *err)
{
	CLEAN_BUF struct buf cmdline = BUF_INIT;
	struct boot_config config = { .kernel_fd = r->kernel_fd, .initrd_fd = r->initrd_fd, .vcpus = r->vcpus };
	struct boot_entry entry;
	int rc = buf_puts(&cmdline, r->cmdline);

	for (unsigned int i = 0; rc == 0 && i < r->device_count; i++)
		rc = buf_printf(&cmdline, " virtio_mmio.device=4K@%#llx:%u",
				(unsigned long long)(MMIO_BASE + i * VIRTIO_MMIO_SIZE), lines[i]);
	if (rc < 0)
		return err_set(err, ENOMEM, "out of memory");
	config.cmdline = buf_bytes(&cmdline);
	rc = boot_load(&r->ram, &config, &entry, err);
	return rc < 0 ? rc : guest_set_entry(&r->guest, &entry, err);
}

static int make_loops(struct run *r, struct err *err)
{
	int rc;

	r->loop = loop_new(err);
	r->disk_loop = r->loop ? loop_new(err) : NULL;
	if (!r->disk_loop)
		return -err->code;
	rc = handoff_init(&r->call, r->loop, err);
	if (rc == 0)
		rc = handoff_init(&r->disk_call, r->disk_loop, err);
	if (rc == 0)
		rc = ports_init(&r->ports, r->control_fd, err);
	r->ports.on_accepted = on_accepted;
	r->ports.on_accepted_arg = r;
	return rc;
}

static int make_machine(struct run *r, struct err *err)
{
	const struct guest_bus bus = {
		.arg = r, .out = out, .in = in, .write = mem_write, .read = mem_read, .confine = confine_vcpu
	};
	int rc;

	r->status = mmap(NULL, STATUS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, r->status_fd, 0);
	if (r->status == MAP_FAILED)
		return err_sys(err, errno, "the status page");
	r->status->vcpus = r->vcpus;
	r->status->memory_bytes = r->memory;
	conlog_init(&r->conlog, r->console_fd);
	rc = make_loops(r, err);
	if (rc == 0)
		rc = ram_create(&r->ram, r->memory, err);
	if (rc == 0)
		rc = add_devices(r, err);
	if (rc == 0)
		rc = guest_create(&r->guest, r->kvm_fd, &r->ram, r->vcpus, &bus, err);
	if (rc == 0)
		rc = connect_devices(r, err);
	if (rc == 0)
		rc = load(r, err);
	if (rc == 0 && (!loop_add_fd(r->loop, r->control_fd, EPOLLIN, on_control, r, err) ||
			!loop_add_fd(r->loop, r->guest.end_fd, EPOLLIN, on_end, r, err) ||
			!loop_add_fd(r->loop, r->guest.rest_fd, EPOLLIN, on_rest, r, err) ||
			!loop_add_timer(r->loop, STATUS_MS, on_timer, r)))
		rc = err->code ? -err->code : err_set(err, ENOMEM, "out of memory");
	return rc;
}

/* ---- threads */

static void *disks_main(void *arg)
{
	struct run *r = arg;
	struct err err = ERR_INIT;

	if (confine_thread(CONFINE_DISKS, &err) < 0 || loop_run(r->disk_loop, &err) < 0)
		log_error("disks: %s", err.msg);
	_exit(1);
}

static int start_threads(struct run *r, struct err *err)
{
	pthread_t thread;
	int rc = pthread_create(&thread, NULL, disks_main, r);

	if (rc)
		return err_sys(err, rc, "start the disks' thread");
	rc = guest_start(&r->guest, err);
	return rc < 0 ? rc : confine_thread(CONFINE_DEVICES, err);
}

/* ---- arguments */

static bool number(const char *arg, const char *name, uint64_t *value)
{
	size_t n = strlen(name);
	char *rest;

	if (strncmp(arg, name, n) != 0 || arg[n] != '=' || arg[n + 1] < '0' || arg[n + 1] > '9')
		return false;
	errno = 0;
	*value = strtoull(arg + n + 1, &rest, 10);
	return errno == 0 && *rest == '\0';
}

static int add_file(struct blk *b, int fd, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(err, EINVAL, "a disk's descriptor is not a regular file");
	return blk_add(b, fd, (uint64_t)st.st_size, err);
}

static int *descriptor(struct run *r, const char *arg, uint64_t *value)
{
	const struct {
		const char *name;
		int *at;
	} names[] = {
		{ "--kvm", &r->kvm_fd },         { "--kernel", &r->kernel_fd },   { "--initrd", &r->initrd_fd },
		{ "--control", &r->control_fd }, { "--console", &r->console_fd }, { "--status", &r->status_fd },
	};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (number(arg, names[i].name, value))
			return names[i].at;
	return NULL;
}

static int parse_one(struct run *r, const char *arg, struct err *err)
{
	uint64_t value;
	int *fd = descriptor(r, arg, &value);

	if (fd)
		*fd = (int)value;
	else if (number(arg, "--uid", &value))
		r->uid = (uid_t)value;
	else if (number(arg, "--gid", &value))
		r->gid = (gid_t)value;
	else if (number(arg, "--vcpus", &value))
		r->vcpus = value <= BOOT_VCPUS_MAX ? (unsigned int)value : 0;
	else if (number(arg, "--memory", &value))
		r->memory = value;
	else if (strncmp(arg, "--cmdline=", 10) == 0)
		r->cmdline = arg + 10;
	else if (number(arg, "--layer", &value))
		return add_file(&r->layers, (int)value, err);
	else if (number(arg, "--scratch-file", &value))
		return add_file(&r->scratch, (int)value, err);
	else
		return err_set(err, EINVAL, "unknown argument %s", arg);
	return 0;
}

static int parse(struct run *r, int argc, char **argv, struct err *err)
{
	for (int i = 1; i < argc; i++) {
		int rc = parse_one(r, argv[i], err);

		if (rc < 0)
			return rc;
	}
	if (r->uid == 0 || r->kvm_fd < 0 || r->kernel_fd < 0 || r->control_fd < 0 || r->status_fd < 0)
		return err_set(err, EINVAL, "--uid, --kvm, --kernel, --control and --status are needed");
	return 0;
}

static int give_up_rights(struct run *r, struct err *err)
{
	int rc = jail_root(NULL, 0, err);

	if (rc == 0)
		rc = jail_limits(1024, UINT64_MAX, err);
	if (rc == 0)
		rc = jail_drop(r->uid, r->gid, err);
	return rc < 0 ? rc : confine_files(err);
}

static uint64_t cpu_ns(void)
{
	struct timespec t = { 0 };

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

int run_main(int argc, char **argv)
{
	static struct run r = { .kvm_fd = -1,
				.kernel_fd = -1,
				.initrd_fd = -1,
				.control_fd = -1,
				.console_fd = -1,
				.status_fd = -1,
				.vcpus = 1,
				.cmdline = "" };
	struct err err = ERR_INIT;
	int rc;

	log_init("walnut-vmm", getenv("WALNUT_VMM_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN);
	tzset(); /* reads its files now: the log needs them, and soon there are none */
	(void)signal(SIGPIPE, SIG_IGN);
	rc = parse(&r, argc, argv, &err);
	if (rc == 0)
		rc = give_up_rights(&r, &err);
	if (rc == 0)
		rc = make_machine(&r, &err);
	if (rc == 0)
		rc = start_threads(&r, &err);
	if (rc == 0) {
		r.status->start_cpu_ns = cpu_ns();
		set_state(&r, STATUS_RUNNING);
		guest_resume(&r.guest);
		if (loop_run(r.loop, &err) == 0)
			(void)err_set(&err, EIO, "the machine's event loop ended");
	}
	log_error("run: %s", err.msg);
	if (r.status && r.status != MAP_FAILED)
		memcpy(r.status->end_text, err.msg, sizeof(err.msg) - 1);
	_exit(1);
}
