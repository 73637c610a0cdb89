/* SPDX-License-Identifier: Apache-2.0 */
/* Starting a container: what its shim is told. */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container_internal.h"
#include "engine/network.h"
#include "engine/mounts.h"
#include "engine/accelerator.h"

#define SCRATCH_SIZE (20LL << 30)

struct start_call {
	struct engine_container *c;
	engine_done_fn done;
	void *arg;
	bool network; /* what failed is the network, before there was a task */
};

struct shim_client *engine_container_shim(struct engine_container *c, struct err *err)
{
	/* what is mounted on the host now is in the shim's namespace, too */
	struct err later = ERR_INIT; /* an attach goes on: the start that follows says why a volume can not be had */

	if (!c->shim && volumes_mount(c, &later))
		log_debug("%s", later.msg);
	if (!c->shim && shim_client_spawn(c, &c->shim, err))
		return NULL;
	return c->shim;
}

void container_release_shim(struct engine_container *c)
{
	if (!c->shim)
		return;
	shim_client_call(c->shim, "shutdown", NULL, NULL, 0, NULL, NULL);
	shim_client_free(c->shim);
	c->shim = NULL;
	volumes_release(c->engine);
}

static int start_exit_code(const struct err *err)
{
	if (strstr(err->msg, "executable file not found") || strstr(err->msg, "no such file or directory") ||
	    strstr(err->msg, "No such file or directory"))
		return 127;
	return err->code == EACCES || strstr(err->msg, "permission denied") || strstr(err->msg, "Permission denied")
		       ? 126
		       : 128;
}

void container_maybe_remove(struct engine_container *c)
{
	if (json_bool(c->host_config, "AutoRemove", false) && !c->removing)
		engine_container_remove(c, false, NULL, NULL);
}

static void container_start_failed(struct start_call *call, const struct err *why)
{
	struct engine_container *c = call->c;
	struct err err = ERR_INIT;

	c->starting = false;
	c->exit_code = start_exit_code(why);
	/* 127 and 126 are the container's own fault: Docker answers 400 */
	if (call->network) {
		c->exit_code = 128;
		err = *why;
	} else {
		(void)err_set(&err, c->exit_code == 128 ? EIO : EINVAL,
			      "failed to create task for container: %.400s%s: unknown", why->msg,
			      why->code == ENOSPC ? ": free space on that file system" : "");
	}
	endpoints_close(c);
	(void)snprintf(c->error, sizeof(c->error), "%s", err.msg);
	container_release_shim(c);
	if (c->state == ENGINE_RESTARTING)
		container_move(c, ENGINE_EXITED);
	engine_container_save(c);
	if (call->done)
		call->done(c, &err, call->arg);
	free(call);
	container_fire(c, false);
	container_maybe_remove(c);
}

static void container_started(json_t *result, const struct err *err, void *arg)
{
	struct start_call *call = arg;
	struct engine_container *c = call->c;

	if (err) {
		container_start_failed(call, err);
		return;
	}
	c->starting = false;
	if (!container_live(c))
		container_move(c, ENGINE_RUNNING);
	c->pid = (pid_t)json_int(result, "pid", 0);
	c->started_ns = json_int(result, "started_at_ns", engine_now_ns());
	engine_container_save(c);
	mounts_event(c, "mount");
	endpoints_started(c);
	engine_container_event(c, "start", NULL);
	health_start(c);
	if (call->done)
		call->done(c, NULL, call->arg);
	free(call);
}

json_t *container_layers(struct engine_container *c, struct err *err)
{
	const struct image *im = image_find(c->engine->images, c->image_id, err);
	json_t *layers = im ? json_array() : NULL;

	for (size_t i = 0; im && i < im->nlayers; i++)
		(void)json_array_append_new(layers, json_string(im->layers[i].erofs_path));
	return layers;
}

static void guest_files(const struct engine *e, char kernel[PATH_MAX], char initrd[PATH_MAX])
{
	static const char *const dirs[] = { "/../lib/walnut/nano", "/nano", "/../nano", "/../../nano" };
	const char *env = getenv("WALNUT_NANO_DIR");

	for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
		const char *base = env ? env : e->self_dir, *rest = env ? "" : dirs[i];

		(void)snprintf(kernel, PATH_MAX, "%s%s/vmlinux", base, rest);
		(void)snprintf(initrd, PATH_MAX, "%s%s/initramfs.cpio", base, rest);
		if (env || !access(kernel, R_OK))
			return;
	}
}

static int machine_choose(const struct engine *e, struct accelerator *accelerator, char kernel[PATH_MAX],
			  char initrd[PATH_MAX], struct err *err)
{
	if (accelerator_choose(e->config.accelerator, accelerator, err) < 0)
		return err_wrap(err, "hyperv isolation is not available");
	if (accelerator->kind == ACCELERATOR_NONE)
		return err_set(err, EOPNOTSUPP, "hyperv isolation is not available: %s", accelerator->reason);
	guest_files(e, kernel, initrd);
	if (access(kernel, R_OK) || access(initrd, R_OK))
		return err_set(
			err, EOPNOTSUPP,
			"hyperv isolation is not available: the guest kernel and initramfs (vmlinux, initramfs.cpio) "
			"are not there; 'make nano' builds them, and WALNUT_NANO_DIR may name their folder");
	return 0;
}

int container_check_machine(const struct engine *e, struct err *err)
{
	struct accelerator accelerator;
	char kernel[PATH_MAX], initrd[PATH_MAX];

	return machine_choose(e, &accelerator, kernel, initrd, err);
}

/* As many processors as the container may use at once, rounded up. */
static int64_t machine_processors(const json_t *host)
{
	int64_t nano = json_int(host, "NanoCpus", 0), quota = json_int(host, "CpuQuota", 0);
	int64_t period = json_int(host, "CpuPeriod", 0);

	if (nano > 0)
		return (nano + 999999999) / 1000000000;
	period = period > 0 ? period : 100000;
	return quota > 0 ? (quota + period - 1) / period : 1;
}

static json_t *container_vm(struct engine_container *c, struct err *err)
{
	int64_t memory = json_int(c->host_config, "Memory", 0);
	struct accelerator accelerator;
	char kernel[PATH_MAX], initrd[PATH_MAX];

	if (machine_choose(c->engine, &accelerator, kernel, initrd, err) < 0) {
		err->code = EIO;
		return NULL;
	}
	return json_pack("{s:s, s:s, s:I, s:I, s:s, s:s}", "kernel", kernel, "initrd", initrd, "memory_bytes",
			 (json_int_t)(memory ? memory + (64 << 20) : 512 << 20), "vcpus",
			 (json_int_t)machine_processors(c->host_config), "accelerator",
			 accelerator_name(accelerator.kind), "qemu", accelerator.qemu);
}

/* The init that --init asks for: a path of the host, or any for a guest, which has its own. */
static int container_init(struct engine_container *c, char **out, struct err *err)
{
	char path[PATH_MAX];

	if (c->isolation == ENGINE_ISOLATION_HYPERV) {
		*out = strdup("/walnut-init");
	} else if (!(*out = engine_find_program(c->engine, "walnut-init"))) {
		(void)snprintf(path, sizeof(path), "%s/walnut-init", getenv("WALNUT_NANO_DIR") ?: "/nonexistent");
		if (!access(path, X_OK))
			*out = strdup(path);
	}
	return *out ? 0
		    : err_set(err, EIO,
			      "--init needs the program walnut-init ('make nano' builds it), which is not beside walnutd");
}

static json_t *container_start_params(struct engine_container *c, json_t *spec, bool seccomp, struct err *err)
{
	bool hyperv = c->isolation == ENGINE_ISOLATION_HYPERV;
	const json_t *log = json_object_get(c->host_config, "LogConfig");
	const json_t *log_options = json_object_get(log, "Config");
	CLEAN_JSON json_t *layers = container_layers(c, err);
	CLEAN_JSON json_t *vm = layers && hyperv ? container_vm(c, err) : json_null();
	CLEAN_FREE char *init = NULL;
	const char *size = json_str(json_object_get(c->host_config, "StorageOpt"), "size", "");
	int64_t scratch_size = SCRATCH_SIZE, max_size = 0;

	if (json_bool(c->host_config, "Init", false) && container_init(c, &init, err))
		return NULL;
	if ((*size && (scratch_size = engine_parse_size(size, 1024)) < 0) ||
	    (max_size = engine_parse_size(json_str(log_options, "max-size", "0"), 1000)) < 0)
		max_size = 0; /* both were checked when the container was created */

	if (!layers || !vm)
		return NULL;
	json_t *p = json_pack("{s:O, s:s, s:b, s:b, s:{s:s, s:s, s:I, s:i}, s:{s:O}, s:s+, s:b, s:{s:i, s:i}}", "spec",
			      spec, "isolation", engine_isolation_name(c->isolation), "stdin_open",
			      json_bool(c->config, "OpenStdin", false), "stdin_once",
			      json_bool(c->config, "StdinOnce", false), "log", "driver",
			      json_str(log, "Type", "json-file"), "path", c->log_path, "max_size", (json_int_t)max_size,
			      "max_file", atoi(json_str(log_options, "max-file", "1")), "rootfs", "layers", layers,
			      "cgroup_path", "/walnut/", c->id, "seccomp", seccomp, "console", "height",
			      c->console_height, "width", c->console_width);
	json_t *rootfs = json_object_get(p, "rootfs");
	char path[PATH_MAX];

	if (hyperv) {
		(void)snprintf(path, sizeof(path), "%s/scratch.ext4", c->data_dir);
		(void)json_object_set_new(rootfs, "scratch", json_string(path));
		(void)json_object_set_new(rootfs, "scratch_size", json_integer(scratch_size));
		(void)json_object_set(p, "vm", vm);
	} else {
		(void)snprintf(path, sizeof(path), "%s/upper", c->data_dir);
		(void)json_object_set_new(rootfs, "upper", json_string(path));
		(void)snprintf(path, sizeof(path), "%s/work", c->data_dir);
		(void)json_object_set_new(rootfs, "work", json_string(path));
	}
	(void)json_object_set_new(rootfs, "throwaway", json_boolean(json_bool(c->host_config, "AutoRemove", false)));
	(void)json_object_set_new(p, "volumes", mounts_volumes(c));
	(void)json_object_set_new(p, "populate", mounts_populate(c));
	if (init)
		(void)json_object_set_new(p, "init_path", json_string(init));
	if (json_bool(c->host_config, "Privileged", false))
		(void)json_object_set_new(p, "all_devices", json_true());
	return p;
}

int container_prepare(struct engine_container *c, struct err *err)
{
	char path[PATH_MAX];
	static const char *const subdirs[] = { "upper", "work" };

	(void)snprintf(path, sizeof(path), "%s/exit.json", c->data_dir);
	(void)unlink(path);
	if (c->isolation == ENGINE_ISOLATION_HYPERV)
		return 0; /* the shim makes the scratch disk */
	for (size_t i = 0; i < ARRAY_LEN(subdirs); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", c->data_dir, subdirs[i]);
		if (fd_mkdir_p(path, i ? 0700 : 0755, err))
			return -err->code;
	}
	return 0;
}

void engine_container_start(struct engine_container *c, engine_done_fn done, void *arg)
{
	struct err err = ERR_INIT;
	struct start_call *call = calloc(1, sizeof(*call));
	CLEAN_FD int bpf = -1;
	CLEAN_FD int netns = -1;
	int fds[2];
	size_t nfds = 0;

	if (container_live(c) || c->starting) {
		free(call);
		(void)err_set(&err, EALREADY, "container already started");
		if (done)
			done(c, &err, arg);
		return;
	}
	bug_on(!call);
	*call = (struct start_call){ .c = c, .done = done, .arg = arg };
	if (c->restart_timer) /* asked for while it waited for its restart */
		loop_cancel(take_ptr(c->restart_timer));
	else if (c->state != ENGINE_RESTARTING)
		c->restart_count = 0;
	c->starting = true;
	c->manual_stop = false;
	c->error[0] = 0;
	c->oom_killed = false;
	call->network = endpoints_prepare(c, &err) || endpoints_open(c, &netns, &err);
	CLEAN_JSON json_t *spec = call->network || container_prepare(c, &err) ? NULL : spec_build(c, &err);

	if (spec && volumes_mount(c, &err))
		spec = (json_decref(spec), NULL);
	if (spec && spec_uses_seccomp(c))
		bpf = spec_seccomp_memfd(c, spec, &err);
	json_t *params = spec && !err.code ? container_start_params(c, spec, bpf >= 0, &err) : NULL;
	struct shim_client *shim = params ? engine_container_shim(c, &err) : NULL;

	if (!shim) {
		json_decref(params);
		container_start_failed(call, &err);
		return;
	}
	if (bpf >= 0)
		fds[nfds++] = bpf;
	if (netns >= 0) {
		(void)json_object_set_new(params, "netns", json_integer((json_int_t)nfds));
		fds[nfds++] = netns;
	}
	shim_client_call(shim, "start", params, fds, nfds, container_started, call);
}
