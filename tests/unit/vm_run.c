/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Boots a micro-VM as a shim would and runs one command in it; prints the
 * command's output, its exit code and what each step took. For finding faults in
 * the chain vmm, devices, kernel, agent, container without engine or shim.
 *
 * usage: vm_run [-kt] [-c VCPUS] [-s SCRATCH] [-v WALNUT_VMM] [-m MIB] KERNEL INITRD LAYER[,LAYER...] COMMAND [ARG...]
 *	-t: with a terminal; -s: an ext4 image; standard input goes to the command; "-" as LAYER: boot only
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/msg.h"
#include "link/link.h"
#include "vmm/status.h"
#include "vmm/vm.h"

#define PORTS 3

struct run {
	struct vm *vm;
	struct msg_stream control;
	int port[PORTS]; /* stdin (or the console), stdout, stderr */
	int64_t id;
	bool exited;
	int exit_code;
	struct timespec begin;
};

static double elapsed_ms(const struct run *r)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - r->begin.tv_sec) * 1e3 + (double)(now.tv_nsec - r->begin.tv_nsec) / 1e6;
}

static void note(const struct run *r, const char *what)
{
	(void)fprintf(stderr, "[%8.1f ms] %s\n", elapsed_ms(r), what);
}

static _Noreturn void die(struct run *r, const struct err *err)
{
	char text[256];

	(void)fprintf(stderr, "vm_run: %s\n", err->msg);
	if (r->vm && vm_exit_text(r->vm, text, sizeof(text)))
		(void)fprintf(stderr, "vm_run: %s\n", text);
	vm_free(r->vm);
	exit(125);
}

static void drain_console(struct run *r)
{
	char text[4096];
	ssize_t n;

	while ((n = read(vm_console_fd(r->vm), text, sizeof(text))) > 0)
		(void)!write(2, text, (size_t)n);
}

static void accept_all(struct run *r)
{
	struct err err = ERR_INIT;
	uint32_t port;
	int fd, rc;

	while ((rc = vm_next_accept(r->vm, &port, &fd, &err)) == 1) {
		if (port == LINK_CONTROL_PORT && r->control.fd < 0) {
			if (fd_set_nonblock(fd, true) < 0)
				die(r, &err);
			msg_stream_init(&r->control, fd, false);
		} else if (port >= LINK_STREAM_PORT && port < LINK_STREAM_PORT + PORTS) {
			r->port[port - LINK_STREAM_PORT] = fd;
		} else {
			(void)close(fd);
		}
	}
	if (rc < 0)
		die(r, &err);
}

static void copy_out(int *from, int to)
{
	char bytes[65536];
	ssize_t n = read(*from, bytes, sizeof(bytes));

	if (n > 0)
		(void)!fd_write_full(to, bytes, (size_t)n);
	else
		close_fd(from);
}

/* Input goes out of a process of its own: a write that waits must not keep us from reading output. */
static void copy_in(const struct run *r, bool console)
{
	char bytes[65536];
	ssize_t n;

	if (fork() != 0)
		return;
	while ((n = read(0, bytes, sizeof(bytes))) > 0)
		if (fd_write_full(r->port[0], bytes, (size_t)n) < 0)
			_exit(1);
	if (!console)
		(void)shutdown(r->port[0], SHUT_WR);
	_exit(0);
}

/* One wait for anything; messages are handled by the caller. */
static void step(struct run *r, bool *input, bool console)
{
	struct pollfd p[] = {
		{ .fd = vm_control_fd(r->vm), .events = POLLIN }, { .fd = vm_console_fd(r->vm), .events = POLLIN },
		{ .fd = vm_qemu_pidfd(r->vm), .events = POLLIN }, { .fd = vm_device_pidfd(r->vm), .events = POLLIN },
		{ .fd = r->control.fd, .events = POLLIN },        { .fd = r->port[1], .events = POLLIN },
		{ .fd = r->port[2], .events = POLLIN },           { .fd = console ? r->port[0] : -1, .events = POLLIN },
	};
	struct err err = ERR_INIT;

	if (*input && r->port[0] >= 0) {
		*input = false;
		copy_in(r, console);
	}
	if (poll(p, ARRAY_LEN(p), 60000) <= 0) {
		(void)err_set(&err, ETIMEDOUT, "nothing happened for a minute");
		die(r, &err);
	}
	if (p[1].revents)
		drain_console(r);
	if (p[0].revents)
		accept_all(r);
	if (p[5].revents)
		copy_out(&r->port[1], 1);
	if (p[6].revents)
		copy_out(&r->port[2], 2);
	if (p[7].revents)
		copy_out(&r->port[0], 1);
	if (p[2].revents || p[3].revents) {
		(void)err_set(&err, EIO, "the machine is gone");
		die(r, &err);
	}
}

/* Return: 1 with an answer's result (or @failure), 0 when nothing is there. */
static int next_message(struct run *r, json_t **out)
{
	struct err err = ERR_INIT;
	struct link_event event;
	int rc;

	if (r->control.fd < 0)
		return 0;
	rc = msg_recv(&r->control, out, NULL, NULL, &err);
	if (rc == -EAGAIN)
		return 0;
	if (!rc)
		(void)err_set(&err, EPIPE, "the agent closed");
	if (rc <= 0)
		die(r, &err);
	if (!link_is_event(*out))
		return 1;
	if (link_event_parse(*out, &event, &err) < 0)
		die(r, &err);
	if (event.kind == LINK_EVENT_EXITED) {
		r->exited = true;
		r->exit_code = event.exit_code;
		note(r, event.oom_killed ? "exited (out of memory)" : "exited");
	} else if (event.kind == LINK_EVENT_HELLO) {
		(void)fprintf(stderr, "[%8.1f ms] agent: kernel %s, %llu MiB\n", elapsed_ms(r), event.kernel,
			      (unsigned long long)(event.memory_bytes >> 20));
	} else {
		note(r, event.kind == LINK_EVENT_OOM ? "oom" : "an exec exited");
	}
	return 2;
}

static void call(struct run *r, const char *method, json_t *params)
{
	CLEAN_JSON json_t *request = msg_request(++r->id, method, params);
	struct err err = ERR_INIT, failure;
	const json_t *result;
	bool input = false;
	int64_t id;
	int rc;

	if (msg_send(r->control.fd, request, NULL, 0, &err) < 0)
		die(r, &err);
	for (;;) {
		CLEAN_JSON json_t *message = NULL;

		rc = next_message(r, &message);
		if (!rc)
			step(r, &input, false);
		if (rc != 1)
			continue;
		if (link_answer_parse(message, &id, &result, &failure, &err) < 0)
			die(r, &err);
		if (failure.code) {
			(void)err_wrap(&failure, "%s", method);
			die(r, &failure);
		}
		note(r, method);
		return;
	}
}

static json_t *spec_of(char **argv, bool terminal)
{
	json_t *args = json_array();

	for (; *argv; argv++)
		(void)json_array_append_new(args, json_string(*argv));
	return json_pack(
		"{s:s, s:{s:s}, s:s, s:{s:b, s:{s:i, s:i}, s:o, s:[s,s,s], s:s},"
		" s:[{s:s,s:s,s:s},{s:s,s:s,s:s},{s:s,s:s,s:s},{s:s,s:s,s:s}], s:{s:[{s:s},{s:s},{s:s},{s:s},{s:s}]}}",
		"ociVersion", "1.0.2", "root", "path", "/", "hostname", "vm-run", "process", "terminal", terminal,
		"user", "uid", 0, "gid", 0, "args", args, "env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
		"TERM=xterm", "cwd", "/", "mounts", "destination", "/proc", "type", "proc", "source", "proc",
		"destination", "/dev", "type", "tmpfs", "source", "tmpfs", "destination", "/dev/pts", "type", "devpts",
		"source", "devpts", "destination", "/sys", "type", "sysfs", "source", "sysfs", "linux", "namespaces",
		"type", "pid", "type", "mount", "type", "ipc", "type", "uts", "type", "cgroup");
}

static json_t *setup_of(struct run *r, size_t layers, bool scratch)
{
	json_t *list = json_array();
	unsigned char seed[64];
	struct timespec now;
	CLEAN_FREE char *text = NULL;

	for (size_t i = 0; i < layers; i++)
		(void)json_array_append_new(list,
					    json_pack("{s:I, s:I}", "offset", (json_int_t)vm_layer_offset(r->vm, i),
						      "length", (json_int_t)vm_layer_length(r->vm, i)));
	(void)!getrandom(seed, sizeof(seed), 0);
	(void)clock_gettime(CLOCK_REALTIME, &now);
	text = link_base64_encode(seed, sizeof(seed));
	return json_pack("{s:I, s:s, s:s, s:o, s:b, s:{s:s}}", "time_ns",
			 (json_int_t)now.tv_sec * 1000000000 + now.tv_nsec, "entropy", text, "hostname", "vm-run",
			 "layers", list, "scratch", scratch, "files", "/var/lib/walnut/hosts", "127.0.0.1 localhost\n");
}

static void run_command(struct run *r, char **argv, bool terminal)
{
	json_t *streams = terminal ? json_pack("{s:i}", "console", LINK_STREAM_PORT)
				   : json_pack("{s:i, s:i, s:i}", "stdin", LINK_STREAM_PORT, "stdout",
					       LINK_STREAM_PORT + 1, "stderr", LINK_STREAM_PORT + 2);
	bool input = true;

	call(r, "create", json_pack("{s:o, s:o, s:b}", "spec", spec_of(argv, terminal), "streams", streams, "init", 0));
	call(r, "start", NULL);
	while (!r->exited || r->port[1] >= 0 || r->port[2] >= 0) {
		CLEAN_JSON json_t *message = NULL;

		if (!next_message(r, &message))
			step(r, &input, terminal);
	}
}

int main(int argc, char **argv)
{
	struct run r = { .control.fd = -1, .port = { -1, -1, -1 } };
	struct vm_config config = { .memory_bytes = 256U << 20, .vcpus = 1, .scratch_fd = -1 };
	struct err err = ERR_INIT;
	int layers[VM_LAYERS_MAX], opt;
	bool terminal = false, none = false;
	char *name, *save = NULL;

	while ((opt = getopt(argc, argv, "+ts:v:m:a:kc:")) > 0) {
		if (opt == 't')
			terminal = true;
		else if (opt == 's')
			config.scratch_fd = open(optarg, O_RDWR | O_CLOEXEC);
		else if (opt == 'v')
			config.vmm_path = optarg;
		else if (opt == 'm')
			config.memory_bytes = strtoull(optarg, NULL, 10) << 20;
		else if (opt == 'k')
			config.accelerator = "kvm";
		else if (opt == 'c')
			config.vcpus = (unsigned int)atoi(optarg);
		else if (opt == 'a')
			config.cmdline_extra = optarg;
		else
			return 2;
	}
	if (argc - optind < 4) {
		(void)fprintf(stderr,
			      "usage: vm_run [-t] [-s SCRATCH] [-v WALNUT_VMM] [-m MIB] [-a CMDLINE] KERNEL INITRD "
			      "LAYER[,LAYER...] COMMAND [ARG...]\n");
		return 2;
	}
	argv += optind;
	config.kernel = argv[0];
	config.initrd = argv[1];
	none = !strcmp(argv[2], "-");
	for (name = none ? NULL : strtok_r(argv[2], ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		layers[config.layer_count] = open(name, O_RDONLY | O_CLOEXEC);
		if (layers[config.layer_count] < 0 || ++config.layer_count == VM_LAYERS_MAX) {
			perror(name);
			return 2;
		}
	}
	config.layer_fds = layers;
	(void)clock_gettime(CLOCK_MONOTONIC, &r.begin);
	if (vm_start(&r.vm, &config, &err) < 0)
		die(&r, &err);
	note(&r, "started");
	for (uint32_t port = LINK_CONTROL_PORT; port < LINK_STREAM_PORT + PORTS; port++)
		if (vm_listen(r.vm, port, &err) < 0)
			die(&r, &err);
	for (int rc = 0; rc != 2;) {
		CLEAN_JSON json_t *message = NULL;
		bool input = false;

		rc = next_message(&r, &message);
		if (!rc)
			step(&r, &input, false);
	}
	if (!none) {
		call(&r, "setup", setup_of(&r, config.layer_count, config.scratch_fd >= 0));
		run_command(&r, argv + 3, terminal);
	}
	if (vm_status(r.vm))
		(void)fprintf(stderr,
			      "exits until the agent's hello: %llu, of them handled by the monitor: %llu; pid %d\n",
			      (unsigned long long)vm_status(r.vm)->hello_kvm_exits,
			      (unsigned long long)vm_status(r.vm)->hello_exits, (int)vm_qemu_pid(r.vm));
	if (vm_status(r.vm))
		(void)fprintf(stderr, "processor time before the guest's first instruction: %.2f ms\n",
			      (double)vm_status(r.vm)->start_cpu_ns / 1e6);
	if (getenv("VM_RUN_HOLD"))
		(void)!system(getenv("VM_RUN_HOLD"));
	call(&r, "shutdown", NULL);
	vm_free(r.vm);
	note(&r, "gone");
	return r.exit_code;
}
