/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Isolation "hyperv": a micro virtual machine (vmm/vm.h) and the agent in it
 * (ARCHITECTURE.md, "Shim to agent").
 *
 * start: boot -> the agent connects to port 1024 and says hello -> setup -> create ->
 * start. Each request has one function that takes its answer. Streams: the shim listens
 * on a port of its own for each, the agent connects to all before it answers create or
 * exec, and a port is listened to for one connection only. The guest is hostile: what it
 * says goes through link/link.h, and what does not fit ends the machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/msg.h"
#include "link/link.h"
#include "shim/backend.h"
#include "shim/stdio.h"
#include "vmm/vm.h"

#define BOOT_MS      120000
#define CONSOLE_KEPT 16384
#define SCRATCH_SIZE (20LL << 30)

struct hyperv;

/* A stream that the agent is to open. */
struct port {
	struct port *next;
	uint32_t number;
	int fd; /* -1 until it is open */
};

struct streams {
	struct port *in, *out, *err, *console;
};

/* A request that waits for the agent's answer. @failure NULL: it succeeded. @fn answers @reply and sets it NULL. */
struct pending {
	struct pending *next;
	int64_t id;
	void (*fn)(struct shim *sh, struct pending *p, const json_t *result, const struct err *failure);
	struct shim_reply *reply; /* may be NULL */
	char *exec_id;
};

struct hyperv {
	struct vm *vm;
	struct loop_source *control, *console, *qemu, *device, *agent_source;
	struct loop_timer *boot;
	int agent; /* -1: not connected */
	struct msg_stream in;
	int64_t next_id;
	uint32_t next_port;
	struct port *ports;
	struct pending *pending;
	struct shim_reply *start; /* not yet answered */
	json_t *params;
	char *seccomp; /* base64 */
	struct streams streams;
	char tail[CONSOLE_KEPT + 1];
	size_t tail_len;
	bool oom, failed, over;
};

static void pump_accepts(struct shim *sh);

static void free_pending(struct pending *p)
{
	free(p->exec_id);
	free(p);
}

static void hyperv_destroy(struct shim *sh)
{
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;
	struct pending *p;
	struct port *port;

	if (!h)
		return;
	sh->backend_data = NULL;
	(void)err_set(&err, ESRCH, "the virtual machine has ended");
	while ((p = h->pending)) {
		h->pending = p->next;
		if (p->reply)
			control_fail(p->reply, &err);
		free_pending(p);
	}
	loop_cancel(h->boot);
	loop_remove(h->control);
	loop_remove(h->console);
	loop_remove(h->qemu);
	loop_remove(h->device);
	loop_remove(h->agent_source);
	if (h->agent >= 0)
		msg_stream_fini(&h->in);
	close_fd(&h->agent);
	while ((port = h->ports)) {
		h->ports = port->next;
		close_fd(&port->fd);
		free(port);
	}
	vm_free(h->vm);
	json_decref(h->params);
	free(h->seccomp);
	free(h);
}

static void read_console(struct hyperv *h);

/* What the guest's kernel said last, if it panicked, is the cause of whatever was seen of the machine. */
static void name_panic(struct hyperv *h, struct err *why)
{
	static const char mark[] = "Kernel panic - not syncing: ";
	const char *at;

	for (int i = 0; i < 16 && h->console; i++)
		read_console(h);
	h->tail[h->tail_len] = 0;
	at = strstr(h->tail, mark);
	if (at) {
		at += sizeof(mark) - 1;
		(void)err_set(why, EIO, "the container's own kernel panicked: %.*s", (int)strcspn(at, "\n"), at);
	}
}

/* The machine is over or can not be trusted any more: end the start or the container. */
static void machine_failed(struct shim *sh, const struct err *reason)
{
	struct hyperv *h = sh->backend_data;
	struct err cause = *reason;
	const struct err *why = &cause;
	struct shim_reply *start;

	if (!h || h->failed)
		return;
	h->failed = true;
	name_panic(h, &cause);
	if (h->tail_len)
		log_error("%s; the guest's console: %.*s", why->msg, (int)h->tail_len, h->tail);
	start = take_ptr(h->start);
	if (start) {
		shim_start_failed(sh, why, start);
		return;
	}
	vm_kill(h->vm);
	for (struct session *s = sh->execs; s; s = s->next) {
		if (s->started)
			session_exited(s, 137);
	}
	if (!sh->main->exited) {
		(void)snprintf(sh->exit.error, sizeof(sh->exit.error), "%s", why->msg);
		session_exited(sh->main, 137);
	}
}

static void agent_call(struct shim *sh, const char *method, json_t *params, struct shim_reply *reply,
		       const char *exec_id,
		       void (*fn)(struct shim *, struct pending *, const json_t *, const struct err *))
{
	struct hyperv *h = sh->backend_data;
	struct pending *p = calloc(1, sizeof(*p));
	CLEAN_JSON json_t *message = NULL;
	struct err err = ERR_INIT;

	if (!p || (exec_id && !(p->exec_id = strdup(exec_id)))) {
		json_decref(params);
		free(p);
		(void)err_sys(&err, ENOMEM, "ask the agent");
		if (reply)
			control_fail(reply, &err);
		return;
	}
	p->id = ++h->next_id;
	p->fn = fn;
	p->reply = reply;
	p->next = h->pending;
	h->pending = p;
	message = msg_request(p->id, method, params);
	if (h->agent < 0)
		(void)err_set(&err, ENOTCONN, "the agent is not connected");
	else
		(void)!msg_send(h->agent, message, NULL, 0, &err);
	if (err.code)
		machine_failed(sh, &err);
}

/* ---- streams */

static struct port *add_port(struct hyperv *h, struct err *err)
{
	struct port *port = calloc(1, sizeof(*port));

	if (!port) {
		(void)err_sys(err, ENOMEM, "make a stream");
		return NULL;
	}
	if (h->next_port >= LINK_STREAM_LAST)
		h->next_port = LINK_STREAM_PORT;
	port->number = h->next_port++;
	port->fd = -1;
	port->next = h->ports;
	h->ports = port;
	return vm_listen(h->vm, port->number, err) < 0 ? NULL : port;
}

static json_t *make_streams(struct hyperv *h, struct streams *out, bool terminal, bool in, struct err *err)
{
	struct {
		const char *name;
		struct port **port;
		bool wanted;
	} all[] = {
		{ "stdin", &out->in, in && !terminal },
		{ "stdout", &out->out, !terminal },
		{ "stderr", &out->err, !terminal },
		{ "console", &out->console, terminal },
	};
	json_t *streams = json_object();

	for (size_t i = 0; streams && i < ARRAY_LEN(all); i++) {
		if (!all[i].wanted)
			continue;
		*all[i].port = add_port(h, err);
		if (!*all[i].port) {
			json_decref(streams);
			return NULL;
		}
		(void)json_object_set_new(streams, all[i].name, json_integer((*all[i].port)->number));
	}
	return streams;
}

static int take_port(struct hyperv *h, struct port *port)
{
	struct port **at = &h->ports;
	int fd;

	if (!port)
		return -1;
	while (*at != port)
		at = &(*at)->next;
	*at = port->next;
	fd = port->fd;
	free(port);
	return fd;
}

static int connect_session(struct hyperv *h, struct session *s, struct streams *st, struct err *err)
{
	bool terminal = st->console, in = st->in;
	int console = take_port(h, st->console), fd_in = take_port(h, st->in);
	int out = take_port(h, st->out), errs = take_port(h, st->err);

	*st = (struct streams){ 0 };
	if (terminal && console >= 0)
		return session_console(s, console, err);
	if (!terminal && out >= 0 && errs >= 0 && (!in || fd_in >= 0))
		return session_streams(s, fd_in, out, errs, err);
	close_fd(&console);
	close_fd(&fd_in);
	close_fd(&out);
	close_fd(&errs);
	return err_set(err, EPROTO, "the guest did not open the streams");
}

/* ---- start */

static void send_size(struct shim *sh, const char *exec_id, const json_t *console)
{
	int64_t height = json_int(console, "height", 0), width = json_int(console, "width", 0);
	json_t *params;

	if (height < 1 || width < 1)
		return;
	params = json_pack("{s:I, s:I}", "height", (json_int_t)height, "width", (json_int_t)width);
	if (params && exec_id)
		(void)json_object_set_new(params, "exec_id", json_string(exec_id));
	agent_call(sh, "resize", params, NULL, NULL, NULL);
}

static void start_done(struct shim *sh, struct pending *p, const json_t *result, const struct err *failure)
{
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;

	if (failure) {
		machine_failed(sh, failure);
		return;
	}
	shim_started(sh, vm_qemu_pid(h->vm), take_ptr(h->start));
	if (sh->main->tty)
		send_size(sh, NULL, json_object_get(h->params, "console"));
	json_decref(h->params);
	h->params = NULL;
	if (session_begin(sh->main, &err) < 0)
		log_error("%s", err.msg);
}

/* An error of the set-up must not look like the program's own (127, 126). */
static void setup_failed(struct shim *sh, const struct err *failure)
{
	struct err err = *failure;

	if (err.code == ENOENT || err.code == EACCES)
		err.code = EIO;
	machine_failed(sh, &err);
}

static void create_done(struct shim *sh, struct pending *p, const json_t *result, const struct err *failure)
{
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;

	if (failure) {
		setup_failed(sh, failure);
		return;
	}
	pump_accepts(sh);
	if (sh->backend_data != h || h->failed)
		return;
	if (connect_session(h, sh->main, &h->streams, &err) < 0) {
		machine_failed(sh, &err);
		return;
	}
	agent_call(sh, "start", NULL, NULL, NULL, start_done);
}

static void setup_done(struct shim *sh, struct pending *p, const json_t *result, const struct err *failure)
{
	struct hyperv *h = sh->backend_data;
	json_t *spec = json_object_get(h->params, "spec"), *streams, *params;
	bool terminal = json_bool(json_object_get(spec, "process"), "terminal", false);
	struct err err = ERR_INIT;

	if (failure) {
		setup_failed(sh, failure);
		return;
	}
	streams = make_streams(h, &h->streams, terminal, sh->stdin_open, &err);
	if (!streams) {
		machine_failed(sh, &err);
		return;
	}
	params = json_pack("{s:O, s:o, s:b}", "spec", spec, "streams", streams, "init",
			   json_str(h->params, "init_path", NULL) != NULL);
	if (params && h->seccomp)
		(void)json_object_set_new(params, "seccomp_bpf", json_string(h->seccomp));
	agent_call(sh, "create", params, NULL, NULL, create_done);
}

/* The engine's files (hosts, hostname, resolv.conf): bind mounts from the data folder. Others can not be had yet. */
static int collect_files(struct shim *sh, const json_t *spec, json_t *files, struct err *err)
{
	const json_t *mounts = json_object_get(spec, "mounts"), *mount;
	size_t i, data_len = strlen(sh->data_dir), len;

	json_array_foreach(mounts, i, mount) {
		const char *source = json_str(mount, "source", ""), *type = json_str(mount, "type", "");
		CLEAN_FREE char *text = NULL;

		if (strcmp(type, "bind") != 0)
			continue;
		if (strncmp(source, sh->data_dir, data_len) != 0 || source[data_len] != '/')
			return err_set(err, ENOSYS, "the mount of %s: bind mounts are not possible with hyperv yet",
				       source);
		text = fd_read_file(AT_FDCWD, source, 256 << 10, &len, err);
		if (!text || json_object_set_new(files, source, json_stringn(text, len)) < 0)
			return err->code ? -err->code : err_set(err, EINVAL, "%s is not text", source);
	}
	return 0;
}

static void send_setup(struct shim *sh)
{
	struct hyperv *h = sh->backend_data;
	const json_t *spec = json_object_get(h->params, "spec"), *rootfs = json_object_get(h->params, "rootfs");
	size_t n = json_array_size(json_object_get(rootfs, "layers"));
	CLEAN_JSON json_t *files = json_object();
	CLEAN_FREE char *entropy = NULL;
	json_t *layers = json_array();
	struct err err = ERR_INIT;
	unsigned char seed[64];

	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(layers,
					    json_pack("{s:I, s:I}", "offset", (json_int_t)vm_layer_offset(h->vm, i),
						      "length", (json_int_t)vm_layer_length(h->vm, i)));
	if (getrandom(seed, sizeof(seed), 0) == (ssize_t)sizeof(seed))
		entropy = link_base64_encode(seed, sizeof(seed));
	explicit_bzero(seed, sizeof(seed));
	if (collect_files(sh, spec, files, &err) < 0) {
		json_decref(layers);
		setup_failed(sh, &err);
		return;
	}
	agent_call(sh, "setup",
		   json_pack("{s:I, s:s, s:s, s:o, s:b, s:O}", "time_ns", (json_int_t)shim_now_ns(), "entropy",
			     entropy ? entropy : "", "hostname", json_str(spec, "hostname", "walnut"), "layers", layers,
			     "scratch", json_str(rootfs, "scratch", NULL) != NULL, "files", files),
		   NULL, NULL, setup_done);
}

/* ---- what the agent says */

static void on_agent_event(struct shim *sh, const struct link_event *e)
{
	struct hyperv *h = sh->backend_data;

	switch (e->kind) {
	case LINK_EVENT_HELLO:
		if (h->boot) {
			loop_cancel(h->boot);
			h->boot = NULL;
			send_setup(sh);
		}
		break;
	case LINK_EVENT_EXITED:
		h->oom |= e->oom_killed;
		h->over = true;
		if (!h->start)
			session_exited(sh->main, e->exit_code);
		break;
	case LINK_EVENT_EXEC_EXITED:
		for (struct session *s = sh->execs; s; s = s->next) {
			if (!strcmp(s->exec_id, e->exec_id)) {
				session_exited(s, e->exit_code);
				break;
			}
		}
		break;
	case LINK_EVENT_OOM: h->oom = true; break;
	}
}

static int on_agent_answer(struct shim *sh, const json_t *message, struct err *err)
{
	struct hyperv *h = sh->backend_data;
	struct pending **at = &h->pending, *p;
	const json_t *result = NULL;
	struct err failure = ERR_INIT;
	int64_t id;
	int rc = link_answer_parse(message, &id, &result, &failure, err);

	if (rc < 0)
		return rc;
	while (*at && (*at)->id != id)
		at = &(*at)->next;
	p = *at;
	if (!p)
		return err_set(err, EBADMSG, "the agent answered what was not asked");
	*at = p->next;
	if (p->fn)
		p->fn(sh, p, result, failure.code ? &failure : NULL);
	else if (p->reply && failure.code)
		control_fail(p->reply, &failure);
	else if (p->reply)
		control_reply(p->reply, NULL);
	free_pending(p);
	return 0;
}

static void agent_event(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct shim *sh = arg;
	struct hyperv *h = sh->backend_data;

	while (h && sh->backend_data == h && !h->failed) {
		CLEAN_JSON json_t *message = NULL;
		struct link_event event;
		struct err err = ERR_INIT;
		int rc = msg_recv(&h->in, &message, NULL, NULL, &err);

		if (rc == -EAGAIN)
			return;
		if (rc == 0)
			rc = err_set(&err, EPIPE, "the virtual machine's agent ended");
		if (rc > 0 && link_is_event(message)) {
			rc = link_event_parse(message, &event, &err);
			if (!rc)
				on_agent_event(sh, &event);
		} else if (rc > 0) {
			rc = on_agent_answer(sh, message, &err);
		}
		if (rc < 0 && sh->backend_data == h) {
			loop_remove(h->agent_source);
			h->agent_source = NULL;
			if (!h->over)
				machine_failed(sh, &err);
			return;
		}
	}
}

static void on_agent_connected(struct shim *sh, int fd)
{
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;

	h->agent = fd;
	msg_stream_init(&h->in, fd, false);
	(void)!vm_unlisten(h->vm, LINK_CONTROL_PORT, &err);
	if (!fd_set_nonblock(fd, true))
		h->agent_source = loop_add_fd(sh->loop, fd, EPOLLIN, agent_event, sh, &err);
	if (!h->agent_source) {
		(void)err_set(&err, EIO, "the agent's connection can not be watched");
		machine_failed(sh, &err);
	}
}

static void pump_accepts(struct shim *sh)
{
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;
	struct port *port;
	uint32_t number;
	int fd, rc;

	while ((rc = vm_next_accept(h->vm, &number, &fd, &err)) > 0) {
		if (number == LINK_CONTROL_PORT && h->agent < 0) {
			on_agent_connected(sh, fd);
			if (sh->backend_data != h)
				return;
			continue;
		}
		for (port = h->ports; port && (port->number != number || port->fd >= 0); port = port->next)
			;
		if (port) {
			port->fd = fd;
			(void)!vm_unlisten(h->vm, number, &err);
		} else {
			(void)close(fd);
		}
	}
	if (rc < 0) {
		loop_remove(h->control);
		h->control = NULL;
		if (!h->over)
			machine_failed(sh, &err);
	}
}

static void control_event_fd(struct loop *l, int fd, uint32_t events, void *arg)
{
	pump_accepts(arg);
}

static void read_console(struct hyperv *h)
{
	int fd = vm_console_fd(h->vm);
	ssize_t got;

	if (h->tail_len > CONSOLE_KEPT / 2) {
		memmove(h->tail, h->tail + h->tail_len - CONSOLE_KEPT / 2, CONSOLE_KEPT / 2);
		h->tail_len = CONSOLE_KEPT / 2;
	}
	got = read(fd, h->tail + h->tail_len, CONSOLE_KEPT - h->tail_len);
	if (got > 0) {
		for (ssize_t i = 0; i < got; i++) {
			char *c = &h->tail[h->tail_len + (size_t)i];

			if ((*c < ' ' && *c != '\n') || *c == 127)
				*c = ' ';
		}
		h->tail_len += (size_t)got;
	} else if (got == 0 || errno != EAGAIN) {
		loop_remove(h->console);
		h->console = NULL;
	}
}

static void console_event(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct shim *sh = arg;

	read_console(sh->backend_data);
}

static void machine_event(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct shim *sh = arg;
	struct hyperv *h = sh->backend_data;
	struct err err = { .code = EIO };

	loop_remove(fd == vm_qemu_pidfd(h->vm) ? h->qemu : h->device);
	if (fd == vm_qemu_pidfd(h->vm))
		h->qemu = NULL;
	else
		h->device = NULL;
	if (!vm_exit_text(h->vm, err.msg, sizeof(err.msg)))
		(void)err_set(&err, EIO, "the virtual machine ended");
	if (!h->over)
		machine_failed(sh, &err);
}

static void boot_over(struct loop *l, void *arg)
{
	struct shim *sh = arg;
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;

	h->boot = NULL;
	(void)err_set(&err, ETIMEDOUT, "the virtual machine did not boot in %d s", BOOT_MS / 1000);
	machine_failed(sh, &err);
}

/* ---- the machine */

static int make_scratch(const char *path, int64_t size, struct err *err)
{
	char *argv[] = { (char *)"mke2fs",
			 (char *)"-q",
			 (char *)"-F",
			 (char *)"-t",
			 (char *)"ext4",
			 (char *)"-m",
			 (char *)"0",
			 (char *)"-E",
			 (char *)"lazy_itable_init=1,lazy_journal_init=1,nodiscard",
			 (char *)(uintptr_t)path,
			 NULL };
	char *envp[] = { (char *)"PATH=/sbin:/usr/sbin:/bin:/usr/bin", NULL };
	CLEAN_FD int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	pid_t pid;
	int rc, status;

	if (fd < 0)
		return errno == EEXIST ? 0 : err_sys(err, errno, "create the scratch disk %s", path);
	if (ftruncate(fd, size > 0 ? (off_t)size : (off_t)SCRATCH_SIZE) < 0)
		return err_sys(err, errno, "size the scratch disk");
	rc = posix_spawn(&pid, "/sbin/mke2fs", NULL, NULL, argv, envp);
	if (!rc && (waitpid(pid, &status, 0) < 0 || status))
		rc = EIO;
	if (rc)
		(void)unlink(path);
	return rc ? err_sys(err, rc == ENOENT ? EIO : rc, "make the scratch disk (/sbin/mke2fs of e2fsprogs)") : 0;
}

struct disks {
	int layers[VM_LAYERS_MAX];
	size_t n;
	int scratch;
};

static void disks_close(struct disks *d)
{
	for (size_t i = 0; i < d->n; i++)
		close_fd(&d->layers[i]);
	close_fd(&d->scratch);
}

static int open_disks(struct disks *d, const json_t *rootfs, struct err *err)
{
	const json_t *layers = json_object_get(rootfs, "layers"), *layer;
	const char *scratch = json_str(rootfs, "scratch", NULL);
	size_t i;

	if (json_array_size(layers) > VM_LAYERS_MAX)
		return err_set(err, EINVAL, "more than %d layers", VM_LAYERS_MAX);
	json_array_foreach(layers, i, layer) {
		const char *path = json_is_string(layer) ? json_string_value(layer) : "";

		d->layers[i] = open(path, O_RDONLY | O_CLOEXEC);
		if (d->layers[i] < 0)
			return err_sys(err, errno, "open the layer %s", path);
		d->n = i + 1;
	}
	if (!scratch)
		return 0;
	if (make_scratch(scratch, json_int(rootfs, "scratch_size", 0), err) < 0)
		return -err->code;
	d->scratch = open(scratch, O_RDWR | O_CLOEXEC);
	return d->scratch < 0 ? err_sys(err, errno, "open the scratch disk %s", scratch) : 0;
}

static int watch_machine(struct shim *sh, struct hyperv *h, struct err *err)
{
	if (vm_listen(h->vm, LINK_CONTROL_PORT, err) < 0)
		return -err->code;
	h->control = loop_add_fd(sh->loop, vm_control_fd(h->vm), EPOLLIN, control_event_fd, sh, err);
	if (h->control)
		h->console = loop_add_fd(sh->loop, vm_console_fd(h->vm), EPOLLIN, console_event, sh, err);
	if (h->console)
		h->qemu = loop_add_fd(sh->loop, vm_qemu_pidfd(h->vm), EPOLLIN, machine_event, sh, err);
	if (h->qemu)
		h->device = loop_add_fd(sh->loop, vm_device_pidfd(h->vm), EPOLLIN, machine_event, sh, err);
	if (!h->device)
		return -err->code;
	h->boot = loop_add_timer(sh->loop, BOOT_MS, boot_over, sh);
	return h->boot ? 0 : err_sys(err, ENOMEM, "start the virtual machine");
}

static int read_seccomp(struct hyperv *h, int fd, struct err *err)
{
	CLEAN_FREE unsigned char *bpf = malloc(LINK_SECCOMP_MAX);
	ssize_t got;

	if (fd < 0)
		return 0;
	got = bpf ? pread(fd, bpf, LINK_SECCOMP_MAX, 0) : -1;
	if (got <= 0)
		return err_set(err, EIO, "the seccomp program could not be read");
	h->seccomp = link_base64_encode(bpf, (size_t)got);
	return h->seccomp ? 0 : err_sys(err, ENOMEM, "encode the seccomp program");
}

static int boot(struct shim *sh, struct hyperv *h, const json_t *params, int seccomp, struct err *err)
{
	const json_t *vm = json_object_get(params, "vm");
	CLEAN(disks_close) struct disks d = { .scratch = -1 };
	struct vm_config config = {
		.kernel = json_str(vm, "kernel", NULL),
		.initrd = json_str(vm, "initrd", NULL),
		.memory_bytes = (uint64_t)json_int(vm, "memory_bytes", 512 << 20),
		.vcpus = (unsigned)json_int(vm, "vcpus", 1),
		.accelerator = json_str(vm, "accelerator", NULL),
	};
	int rc = read_seccomp(h, seccomp, err);

	if (!rc && (!config.kernel || !config.initrd))
		rc = err_set(err, EINVAL, "start: vm.kernel or vm.initrd is missing");
	if (!rc)
		rc = open_disks(&d, json_object_get(params, "rootfs"), err);
	if (rc < 0)
		return rc;
	config.layer_fds = d.layers;
	config.layer_count = d.n;
	config.scratch_fd = d.scratch;
	rc = vm_start(&h->vm, &config, err);
	return rc < 0 ? rc : watch_machine(sh, h, err);
}

static void hyperv_start(struct shim *sh, const json_t *params, int seccomp, struct shim_reply *r)
{
	struct hyperv *h = calloc(1, sizeof(*h));
	struct err err = ERR_INIT;

	if (!h) {
		(void)err_sys(&err, ENOMEM, "start the virtual machine");
		shim_start_failed(sh, &err, r);
		return;
	}
	sh->backend_data = h;
	h->agent = -1;
	h->next_port = LINK_STREAM_PORT;
	h->start = r;
	h->params = json_incref((json_t *)(uintptr_t)params);
	if (boot(sh, h, params, seccomp, &err) < 0)
		setup_failed(sh, &err);
}

/* ---- requests to the running container */

/* An exec that waits for its answer keeps its streams here, behind its session. */
struct exec_wait {
	struct streams streams;
	json_t *console;
};

static void exec_done(struct shim *sh, struct pending *p, const json_t *result, const struct err *failure)
{
	struct hyperv *h = sh->backend_data;
	struct session *s = sh->execs;
	struct err err = ERR_INIT;
	struct exec_wait *w;
	pid_t pid = 0;

	while (s && strcmp(s->exec_id, p->exec_id) != 0)
		s = s->next;
	if (!s)
		return;
	pump_accepts(sh);
	w = s->backend_data;
	s->backend_data = NULL;
	if (failure)
		err = *failure;
	else if (!link_pid_parse(result, &pid, &err))
		(void)connect_session(h, s, &w->streams, &err);
	if (err.code) {
		session_return_clients(s);
		control_fail(p->reply, &err);
	} else {
		s->pid = pid;
		control_reply(p->reply, json_pack("{s:i}", "pid", (int)pid));
		if (s->tty)
			send_size(sh, s->exec_id, w->console);
		(void)!session_begin(s, &err);
	}
	p->reply = NULL;
	json_decref(w->console);
	free(w);
}

static void hyperv_exec(struct shim *sh, struct session *s, const json_t *params, struct shim_reply *r)
{
	struct hyperv *h = sh->backend_data;
	struct exec_wait *w = calloc(1, sizeof(*w));
	json_t *process = json_object_get(params, "process"), *streams = NULL;
	struct err err = ERR_INIT;

	if (!w)
		(void)err_sys(&err, ENOMEM, "exec");
	else
		streams = make_streams(h, &w->streams, json_bool(process, "terminal", false),
				       json_bool(params, "stdin", false), &err);
	if (!streams || !process) {
		if (!err.code)
			(void)err_set(&err, EINVAL, "exec: the process is missing");
		json_decref(streams);
		free(w);
		session_return_clients(s);
		control_fail(r, &err);
		return;
	}
	w->console = json_incref(json_object_get(params, "console"));
	s->backend_data = w;
	agent_call(sh, "exec",
		   json_pack("{s:s, s:O, s:o}", "exec_id", s->exec_id, "process", process, "streams", streams), r,
		   s->exec_id, exec_done);
}

static json_t *with_exec(const struct session *s, json_t *params)
{
	if (params && s->exec_id)
		(void)json_object_set_new(params, "exec_id", json_string(s->exec_id));
	return params;
}

static void hyperv_signal(struct shim *sh, struct session *s, int sig, struct shim_reply *r)
{
	agent_call(sh, "signal", with_exec(s, json_pack("{s:i}", "signal", sig)), r, NULL, NULL);
}

static void hyperv_resize(struct shim *sh, struct session *s, unsigned height, unsigned width, struct shim_reply *r)
{
	agent_call(sh, "resize", with_exec(s, json_pack("{s:i, s:i}", "height", (int)height, "width", (int)width)), r,
		   NULL, NULL);
}

static void hyperv_pause(struct shim *sh, bool paused, struct shim_reply *r)
{
	agent_call(sh, paused ? "pause" : "resume", NULL, r, NULL, NULL);
}

static void stats_done(struct shim *sh, struct pending *p, const json_t *result, const struct err *failure)
{
	struct link_stats stats;
	struct err err = ERR_INIT;

	if (failure || link_stats_parse(result, &stats, &err) < 0)
		control_fail(p->reply, failure ? failure : &err);
	else
		control_reply(p->reply, json_deep_copy(result));
	p->reply = NULL;
}

static void pids_done(struct shim *sh, struct pending *p, const json_t *result, const struct err *failure)
{
	CLEAN_FREE pid_t *pids = NULL;
	struct err err = ERR_INIT;
	size_t n;

	if (failure || link_pids_parse(result, &pids, &n, &err) < 0)
		control_fail(p->reply, failure ? failure : &err);
	else
		control_reply(p->reply, json_deep_copy(result));
	p->reply = NULL;
}

static void hyperv_stats(struct shim *sh, struct shim_reply *r)
{
	agent_call(sh, "stats", NULL, r, NULL, stats_done);
}

static void hyperv_pids(struct shim *sh, struct shim_reply *r)
{
	agent_call(sh, "pids", NULL, r, NULL, pids_done);
}

static void hyperv_update(struct shim *sh, const json_t *params, struct shim_reply *r)
{
	agent_call(sh, "update", json_deep_copy(params), r, NULL, NULL);
}

static void hyperv_ended(struct shim *sh)
{
	struct hyperv *h = sh->backend_data;

	if (h)
		sh->exit.oom_killed = h->oom;
}

const struct shim_backend backend_hyperv = {
	.name = "hyperv",
	.start = hyperv_start,
	.exec = hyperv_exec,
	.signal = hyperv_signal,
	.resize = hyperv_resize,
	.pause = hyperv_pause,
	.stats = hyperv_stats,
	.pids = hyperv_pids,
	.update = hyperv_update,
	.ended = hyperv_ended,
	.destroy = hyperv_destroy,
};
