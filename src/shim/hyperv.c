/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Isolation "hyperv": a micro virtual machine (vmm/vm.h) and the agent in it (ARCHITECTURE.md, "Shim to agent").
 *
 * Start: boot -> the agent connects and says hello -> setup, create and start, sent together; each has one function
 * that takes its answer. End: the agent says "exited" -> the output is drained -> "shutdown": the guest kills what is left,
 * writes its disk and answers -> the machine is ended. A guest that takes no part (panic, hung, killed) is ended at
 * once or after the times below, and what it had not written is lost, as with a power failure.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "shim/hyperv.h"

#define BOOT_MS 120000
#define KILL_MS 7000  /* from SIGKILL to the container's exit; the engine's patience is 10 s */
#define END_MS  20000 /* to write the disk: a guest's memory may be full of what is not written yet */

static int64_t monotonic_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void hyperv_note(const struct hyperv *h, const char *what)
{
	if (getenv("WALNUT_VMM_DEBUG"))
		log_info("%7.1f ms %s", (double)(monotonic_ns() - h->began_ns) / 1e6, what);
}

static void hyperv_destroy(struct shim *sh)
{
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;
	struct hyperv_pending *p;
	struct hyperv_port *port;

	if (!h)
		return;
	sh->backend_data = NULL;
	(void)err_set(&err, ESRCH, "the virtual machine has ended");
	while ((p = h->pending)) {
		h->pending = p->next;
		if (p->reply)
			control_fail(p->reply, &err);
		hyperv_pending_free(p);
	}
	loop_cancel(h->boot);
	loop_cancel(h->kill);
	loop_cancel(h->end);
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
	hyperv_scratch_abandon(h);
	cgroup_free(h->cgroup);
	hyperv_note(h, "the machine is gone");
	json_decref(h->params);
	free(h->seccomp);
	free(h);
}

void hyperv_failed(struct shim *sh, const struct err *reason)
{
	struct hyperv *h = sh->backend_data;
	struct err why = *reason;
	struct shim_reply *start;

	if (!h || h->failed)
		return;
	h->failed = true;
	hyperv_name_end(h, &why);
	hyperv_name_panic(h, &why);
	if (hyperv_host_oom(h)) {
		h->oom = true;
		(void)err_set(&why, ENOMEM,
			      "the virtual machine used more memory than its limit on the host and was killed");
	}
	if (h->tail_len)
		log_error("%s; the guest's console: %.*s", why.msg, (int)h->tail_len, h->tail);
	start = take_ptr(h->start);
	if (start) {
		shim_start_failed(sh, &why, start);
		return;
	}
	if (h->vm)
		vm_kill(h->vm);
	for (struct session *s = sh->execs; s; s = s->next) {
		if (s->started)
			session_exited(s, 137);
	}
	if (!sh->main->exited) {
		(void)snprintf(sh->exit.error, sizeof(sh->exit.error), "%s", why.msg);
		session_exited(sh->main, 137);
	}
}

void hyperv_lost(struct shim *sh, const struct err *reason)
{
	struct hyperv *h = sh->backend_data;

	if (h->ending) {
		log_warn("the guest ended before it had written its disk: %s", reason->msg);
		shim_finished(sh);
	} else if (!h->over) {
		hyperv_failed(sh, reason);
	}
}

/* ---- start */

/* An error of the set-up must not look like the program's own (127, 126). */
static void setup_failed(struct shim *sh, const struct err *failure)
{
	struct err err = *failure;

	if (err.code == ENOENT || err.code == EACCES)
		err.code = EIO;
	hyperv_failed(sh, &err);
}

static void start_done(struct shim *sh, struct hyperv_pending *p, const json_t *result, const struct err *failure)
{
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;

	if (failure) {
		hyperv_failed(sh, failure);
		return;
	}
	hyperv_note(h, "start");
	hyperv_limit_cpu(h, !h->over);
	shim_started(sh, vm_qemu_pid(h->vm), take_ptr(h->start));
	if (sh->main->tty)
		hyperv_send_size(sh, NULL, json_object_get(h->params, "console"));
	json_decref(h->params);
	h->params = NULL;
	if (session_begin(sh->main, &err) < 0)
		log_error("%s", err.msg);
}

static void create_done(struct shim *sh, struct hyperv_pending *p, const json_t *result, const struct err *failure)
{
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;

	if (failure) {
		setup_failed(sh, failure);
		return;
	}
	hyperv_note(h, "create");
	hyperv_accept(sh);
	if (sh->backend_data == h && !h->failed && hyperv_streams_connect(h, sh->main, &h->streams, &err) < 0)
		hyperv_failed(sh, &err);
}

static void setup_done(struct shim *sh, struct hyperv_pending *p, const json_t *result, const struct err *failure)
{
	if (failure)
		setup_failed(sh, failure);
	else
		hyperv_note(sh->backend_data, "setup");
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

static json_t *setup_params(struct shim *sh, struct err *err)
{
	struct hyperv *h = sh->backend_data;
	const json_t *spec = json_object_get(h->params, "spec"), *rootfs = json_object_get(h->params, "rootfs");
	size_t n = json_array_size(json_object_get(rootfs, "layers"));
	CLEAN_JSON json_t *files = json_object(), *layers = json_array();
	CLEAN_FREE char *entropy = NULL;
	unsigned char seed[64];

	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(layers,
					    json_pack("{s:I, s:I}", "offset", (json_int_t)vm_layer_offset(h->vm, i),
						      "length", (json_int_t)vm_layer_length(h->vm, i)));
	if (getrandom(seed, sizeof(seed), 0) == (ssize_t)sizeof(seed))
		entropy = link_base64_encode(seed, sizeof(seed));
	explicit_bzero(seed, sizeof(seed));
	if (collect_files(sh, spec, files, err) < 0)
		return NULL;
	return json_pack("{s:I, s:s, s:s, s:O, s:b, s:b, s:O}", "time_ns", (json_int_t)shim_now_ns(), "entropy",
			 entropy ? entropy : "", "hostname", json_str(spec, "hostname", "walnut"), "layers", layers,
			 "scratch", json_str(rootfs, "scratch", NULL) != NULL, "throwaway",
			 json_bool(rootfs, "throwaway", false), "files", files);
}

static json_t *create_params(struct shim *sh, struct err *err)
{
	struct hyperv *h = sh->backend_data;
	CLEAN_JSON json_t *spec = json_copy(json_object_get(h->params, "spec"));
	CLEAN_JSON json_t *linux_part = json_copy(json_object_get(spec, "linux"));
	bool terminal = json_bool(json_object_get(spec, "process"), "terminal", false);
	json_t *streams, *params;

	if (json_object_get(linux_part, "resources")) {
		(void)json_object_set_new(linux_part, "resources",
					  hyperv_guest_resources(json_object_get(linux_part, "resources")));
		(void)json_object_set(spec, "linux", linux_part);
	}
	streams = hyperv_streams_make(h, &h->streams, terminal, sh->stdin_open, err);
	if (!streams)
		return NULL;
	params = json_pack("{s:O, s:o, s:b, s:b}", "spec", spec, "streams", streams, "init",
			   json_str(h->params, "init_path", NULL) != NULL, "all_devices",
			   json_bool(h->params, "all_devices", false));
	if (params && h->seccomp)
		(void)json_object_set_new(params, "seccomp_bpf", json_string(h->seccomp));
	return params;
}

/* The agent answers in order, and a request after one that failed fails too: nothing need be waited for. */
void hyperv_booted(struct shim *sh)
{
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;
	json_t *setup, *create;

	if (!h->boot)
		return;
	loop_cancel(h->boot);
	h->boot = NULL;
	hyperv_note(h, "hello");
	setup = hyperv_scratch_ready(h, &err) < 0 ? NULL : setup_params(sh, &err);
	create = setup ? create_params(sh, &err) : NULL;
	if (!create) {
		json_decref(setup);
		if (!err.code)
			(void)err_sys(&err, ENOMEM, "set up the guest");
		setup_failed(sh, &err);
		return;
	}
	hyperv_call(sh, "setup", setup, NULL, NULL, setup_done);
	if (sh->backend_data == h && !h->failed)
		hyperv_call(sh, "create", create, NULL, NULL, create_done);
	else
		json_decref(create);
	if (sh->backend_data == h && !h->failed)
		hyperv_call(sh, "start", NULL, NULL, NULL, start_done);
}

static void boot_over(struct loop *l, void *arg)
{
	struct shim *sh = arg;
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;

	h->boot = NULL;
	(void)err_set(&err, ETIMEDOUT, "the virtual machine did not boot in %d s", BOOT_MS / 1000);
	hyperv_failed(sh, &err);
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
	h->began_ns = monotonic_ns();
	h->agent = -1;
	h->next_port = LINK_STREAM_PORT;
	h->start = r;
	h->params = json_incref((json_t *)(uintptr_t)params);
	if (hyperv_boot(sh, h, params, seccomp, &err) < 0) {
		setup_failed(sh, &err);
		return;
	}
	hyperv_note(h, "the machine is started");
	h->boot = loop_add_timer(sh->loop, BOOT_MS, boot_over, sh);
	if (!h->boot) {
		(void)err_sys(&err, ENOMEM, "start the virtual machine");
		setup_failed(sh, &err);
	}
}

/* ---- end */

static void kill_over(struct loop *l, void *arg)
{
	struct shim *sh = arg;
	struct hyperv *h = sh->backend_data;
	struct err err = ERR_INIT;

	h->kill = NULL;
	(void)err_set(&err, ETIMEDOUT,
		      "the virtual machine did not end the container within %d s of SIGKILL and was killed",
		      KILL_MS / 1000);
	if (!h->over)
		hyperv_failed(sh, &err);
}

static void hyperv_signal(struct shim *sh, struct session *s, int sig, struct shim_reply *r)
{
	struct hyperv *h = sh->backend_data;
	json_t *params = json_pack("{s:i}", "signal", sig);

	if (params && s->exec_id)
		(void)json_object_set_new(params, "exec_id", json_string(s->exec_id));
	if (sig == SIGKILL && !s->exec_id && h->paused) {
		h->paused = false; /* a frozen container dies too, and for that its machine must run */
		hyperv_rest(h, false);
	}
	if (sig == SIGKILL && !s->exec_id && !h->kill) {
		hyperv_limit_cpu(h, false); /* a share of a hundredth must not make the end last a minute */
		h->kill = loop_add_timer(sh->loop, KILL_MS, kill_over, sh);
	}
	hyperv_call(sh, "signal", params, r, NULL, NULL);
}

static void shutdown_done(struct shim *sh, struct hyperv_pending *p, const json_t *result, const struct err *failure)
{
	struct hyperv *h = sh->backend_data;

	hyperv_note(h, "shutdown");
	if (failure)
		log_warn("the guest could not write its disk: %s", failure->msg);
	shim_finished(sh);
}

static void end_over(struct loop *l, void *arg)
{
	struct shim *sh = arg;
	struct hyperv *h = sh->backend_data;

	h->end = NULL;
	(void)snprintf(sh->exit.error, sizeof(sh->exit.error),
		       "the virtual machine did not write its disk within %d s of the container's end and was killed",
		       END_MS / 1000);
	log_warn("%s", sh->exit.error);
	shim_finished(sh);
}

static bool hyperv_end(struct shim *sh)
{
	struct hyperv *h = sh->backend_data;

	/* On KVM one process is the whole machine. */
	if (!h || h->failed || !h->agent_source || !h->qemu || (!h->device && vm_device_pidfd(h->vm) >= 0))
		return false;
	hyperv_note(h, "the output is drained");
	h->ending = true;
	h->end = loop_add_timer(sh->loop, END_MS, end_over, sh);
	hyperv_call(sh, "shutdown", NULL, NULL, NULL, shutdown_done);
	return true;
}

static void hyperv_ended(struct shim *sh)
{
	struct hyperv *h = sh->backend_data;

	if (h)
		sh->exit.oom_killed = h->oom || hyperv_host_oom(h);
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
	.end = hyperv_end,
	.ended = hyperv_ended,
	.destroy = hyperv_destroy,
};
