/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Isolation "process": the container library on the host's kernel. The root filesystem is
 * mounted below the run folder in the shim's private mount namespace: each layer once,
 * overlayfs over them with the container's upper folder. Mounts are taken down when the
 * container has ended, and at the latest with the namespace.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "container/container.h"
#include "image/layer_mount.h"
#include "shim/backend.h"
#include "shim/stdio.h"
#include "shim/volumes.h"

#define LAYERS_MAX 128

struct exec_process {
	struct exec_process *next;
	char *exec_id;
	pid_t pid;
	int pidfd;
};

struct process {
	struct container *container;
	struct oci_spec *spec;
	size_t layers;
	bool overlay;
	pid_t pid;
	struct exec_process *execs;
};

static int join(char out[PATH_MAX], struct err *err, const char *dir, const char *rest)
{
	int n = snprintf(out, PATH_MAX, "%s/%s", dir, rest);

	return n < 0 || n >= PATH_MAX ? err_set(err, ENAMETOOLONG, "the path %s/%s is too long", dir, rest) : 0;
}

static char *layer_folder(struct shim *sh, size_t i)
{
	char *path;

	return asprintf(&path, "%s/layers/%zu", sh->run_dir, i) < 0 ? NULL : path;
}

static int mount_rootfs(struct shim *sh, struct process *p, const json_t *rootfs, const char *target, struct err *err)
{
	const json_t *layers = json_object_get(rootfs, "layers");
	size_t n = json_array_size(layers);
	char *folders[LAYERS_MAX] = { 0 };
	int rc = 0;

	if (!n || n > LAYERS_MAX)
		return err_set(err, EINVAL, "the root filesystem has %zu layers; 1 to %d are possible", n, LAYERS_MAX);
	for (size_t i = 0; i < n && !rc; i++) {
		const char *layer = json_string_value(json_array_get(layers, i));

		folders[i] = layer_folder(sh, i);
		if (!layer || !folders[i]) {
			rc = err_set(err, layer ? ENOMEM : EINVAL, "layer %zu has no path", i);
			break;
		}
		rc = fd_mkdir_p(folders[i], 0700, err);
		if (!rc)
			rc = layer_mount(layer, folders[i], err);
		if (!rc)
			p->layers = i + 1;
	}
	if (!rc)
		rc = overlay_mount((const char *const *)folders, n, json_str(rootfs, "upper", NULL),
				   json_str(rootfs, "work", NULL), json_bool(rootfs, "throwaway", false), target, err);
	if (!rc)
		p->overlay = true;
	for (size_t i = 0; i < n; i++)
		free(folders[i]);
	return rc;
}

static void unmount_rootfs(struct shim *sh, struct process *p)
{
	char path[PATH_MAX];
	struct err err = ERR_INIT;

	if (!join(path, &err, sh->run_dir, "rootfs")) {
		if (p->overlay && umount2(path, MNT_DETACH) < 0)
			log_warn("unmount %s: %s", path, strerror(errno));
		(void)rmdir(path);
	}
	for (size_t i = 0; i < p->layers; i++) {
		CLEAN_FREE char *folder = layer_folder(sh, i);

		if (folder && umount2(folder, MNT_DETACH) < 0)
			log_warn("unmount %s: %s", folder, strerror(errno));
		if (folder)
			(void)rmdir(folder);
	}
	if (!join(path, &err, sh->run_dir, "layers"))
		(void)rmdir(path);
	p->overlay = false;
	p->layers = 0;
}

static void process_destroy(struct shim *sh)
{
	struct process *p = sh->backend_data;
	struct exec_process *e;

	if (!p)
		return;
	container_free(p->container);
	unmount_rootfs(sh, p);
	oci_spec_free(p->spec);
	while ((e = p->execs)) {
		p->execs = e->next;
		close_fd(&e->pidfd);
		free(e->exec_id);
		free(e);
	}
	free(p);
	sh->backend_data = NULL;
}

static int read_seccomp(int fd, void **bpf, size_t *size, struct err *err)
{
	struct stat st;
	ssize_t got;

	if (fd < 0)
		return 0;
	if (fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > 65536 * 8)
		return err_set(err, EINVAL, "the seccomp program has an impossible size");
	*bpf = malloc((size_t)st.st_size);
	if (!*bpf)
		return err_sys(err, ENOMEM, "read the seccomp program");
	got = pread(fd, *bpf, (size_t)st.st_size, 0);
	if (got != st.st_size)
		return err_set(err, EIO, "the seccomp program could not be read");
	*size = (size_t)got;
	return 0;
}

static void close3(int (*fds)[3])
{
	for (int i = 0; i < 3; i++)
		close_fd(&(*fds)[i]);
}

static int map_exec_failure(enum container_exec_failure why, struct err *err, int rc)
{
	if (why == CONTAINER_EXEC_NOT_FOUND)
		err->code = ENOENT;
	else if (why == CONTAINER_EXEC_NOT_EXECUTABLE)
		err->code = EACCES;
	else if (why == CONTAINER_EXEC_OK && (err->code == ENOENT || err->code == EACCES))
		err->code = EIO; /* not the program's fault: must not become 127 or 126 */
	return why == CONTAINER_EXEC_OK ? rc : -err->code;
}

/* Creates and starts the container; the streams are the session's. */
static int launch(struct shim *sh, struct process *p, const json_t *params, const char *rootfs, int seccomp,
		  struct err *err)
{
	enum container_exec_failure why = CONTAINER_EXEC_OK;
	CLEAN_FREE void *bpf = NULL;
	int child[3] __attribute__((cleanup(close3))) = { -1, -1, -1 };
	struct container_config config = {
		.id = sh->id,
		.spec = p->spec,
		.rootfs = rootfs,
		.cgroup_path = json_str(params, "cgroup_path", NULL),
		.init_path = json_str(params, "init_path", NULL),
	};
	int console = -1, rc;

	rc = read_seccomp(seccomp, &bpf, &config.seccomp_bpf_size, err);
	if (rc < 0)
		return rc;
	config.seccomp_bpf = bpf;
	if (!p->spec->process.terminal) {
		rc = session_pipes(sh->main, sh->stdin_open, child, err);
		if (rc < 0)
			return rc;
	}
	memcpy(config.stdio, child, sizeof(child));
	rc = container_create(&p->container, &config, &console, err);
	if (rc < 0)
		return map_exec_failure(why, err, rc);
	if (console >= 0) {
		rc = session_console(sh->main, console, err);
		if (rc < 0)
			return rc;
	}
	p->pid = container_pid(p->container);
	rc = container_start(p->container, &why, err);
	return rc < 0 ? map_exec_failure(why, err, rc) : 0;
}

static void set_size(struct session *s, unsigned height, unsigned width)
{
	struct winsize ws = { .ws_row = (unsigned short)height, .ws_col = (unsigned short)width };

	if (s->console >= 0 && height && width && ioctl(s->console, TIOCSWINSZ, &ws) < 0)
		log_warn("resize the terminal: %s", strerror(errno));
}

static void set_first_size(struct session *s, const json_t *console)
{
	int64_t height = json_int(console, "height", 0), width = json_int(console, "width", 0);

	if (height > 0 && height < 65536 && width > 0 && width < 65536)
		set_size(s, (unsigned)height, (unsigned)width);
}

/* The namespace that the engine made has no path but its descriptor's. */
static void join_network(const struct shim *sh, const json_t *spec)
{
	const json_t *list = json_object_get(json_object_get(spec, "linux"), "namespaces");
	size_t i;
	json_t *v;

	json_array_foreach((json_t *)list, i, v)
		if (sh->netns >= 0 && !strcmp(json_str(v, "type", ""), "network"))
			(void)json_object_set_new(v, "path", json_sprintf("/proc/self/fd/%d", sh->netns));
}

static int start(struct shim *sh, const json_t *params, int seccomp, struct err *err)
{
	struct process *p = calloc(1, sizeof(*p));
	char rootfs[PATH_MAX];
	int rc;

	if (!p)
		return err_sys(err, ENOMEM, "start the container");
	sh->backend_data = p;
	join_network(sh, json_object_get(params, "spec"));
	rc = oci_spec_parse(json_object_get(params, "spec"), &p->spec, err);
	if (!rc && json_bool(params, "all_devices", false))
		rc = container_add_machine_devices(p->spec, err);
	if (!rc)
		rc = join(rootfs, err, sh->run_dir, "rootfs");
	if (!rc)
		rc = fd_mkdir_p(rootfs, 0755, err);
	if (!rc)
		rc = mount_rootfs(sh, p, json_object_get(params, "rootfs"), rootfs, err);
	if (!rc)
		rc = volumes_prepare(params, rootfs, err);
	if (rc < 0)
		return map_exec_failure(CONTAINER_EXEC_OK, err, rc);
	rc = launch(sh, p, params, rootfs, seccomp, err);
	if (rc < 0)
		return rc;
	set_first_size(sh->main, json_object_get(params, "console"));
	return 0;
}

static void process_start(struct shim *sh, const json_t *params, int seccomp, struct shim_reply *r)
{
	struct err err = ERR_INIT;
	struct process *p;

	if (start(sh, params, seccomp, &err) < 0) {
		shim_start_failed(sh, &err, r);
		return;
	}
	p = sh->backend_data;
	shim_started(sh, p->pid, r);
	if (session_begin(sh->main, &err) < 0)
		log_error("%s", err.msg);
}

static int exec_start(struct shim *sh, struct session *s, const json_t *params, struct err *err)
{
	struct process *p = sh->backend_data;
	__attribute__((cleanup(cleanup_oci_process))) struct oci_process *process = NULL;
	int child[3] __attribute__((cleanup(close3))) = { -1, -1, -1 };
	struct container_process out = { .pidfd = -1, .console = -1 };
	enum container_exec_failure why = CONTAINER_EXEC_OK;
	struct exec_process *e;
	int rc = oci_process_parse(json_object_get(params, "process"), &process, err);

	if (rc < 0)
		return rc;
	e = calloc(1, sizeof(*e));
	if (!e || !(e->exec_id = strdup(s->exec_id))) {
		free(e);
		return err_sys(err, ENOMEM, "exec");
	}
	if (!process->terminal)
		rc = session_pipes(s, json_bool(params, "stdin", false), child, err);
	if (!rc) {
		rc = container_exec(p->container, process, child, &out, &why, err);
		if (rc < 0)
			rc = map_exec_failure(why, err, rc);
	}
	if (rc < 0) {
		free(e->exec_id);
		free(e);
		return rc;
	}
	s->pid = e->pid = out.pid;
	e->pidfd = out.pidfd;
	e->next = p->execs;
	p->execs = e;
	if (out.console >= 0) {
		rc = session_console(s, out.console, err);
		if (rc < 0)
			return rc;
		set_first_size(s, json_object_get(params, "console"));
	}
	return 0;
}

static void process_exec(struct shim *sh, struct session *s, const json_t *params, struct shim_reply *r)
{
	struct err err = ERR_INIT;

	if (exec_start(sh, s, params, &err) < 0) {
		session_return_clients(s);
		control_fail(r, &err);
		return;
	}
	control_reply(r, json_pack("{s:i}", "pid", (int)s->pid));
	if (session_begin(s, &err) < 0)
		log_error("%s", err.msg);
}

static void done(struct shim_reply *r, int rc, json_t *result, const struct err *err)
{
	if (rc < 0)
		control_fail(r, err);
	else
		control_reply(r, result);
}

static void process_signal(struct shim *sh, struct session *s, int sig, struct shim_reply *r)
{
	struct process *p = sh->backend_data;
	struct err err = ERR_INIT;
	int rc = 0;

	if (!s->exec_id) {
		rc = container_signal(p->container, sig, &err);
		/* a paused container dies too, as with Docker; version 1's freezer holds it until it is thawed */
		if (!rc && sig == SIGKILL)
			rc = container_pause(p->container, false, &err);
	} else {
		struct exec_process *e = p->execs;

		while (e && e->pid != s->pid)
			e = e->next;
		if (!e || syscall(SYS_pidfd_send_signal, e->pidfd, sig, NULL, 0) < 0)
			rc = err_sys(&err, e ? errno : ESRCH, "signal the exec");
	}
	done(r, rc, NULL, &err);
}

static void process_resize(struct shim *sh, struct session *s, unsigned height, unsigned width, struct shim_reply *r)
{
	set_size(s, height, width);
	control_reply(r, NULL);
}

static void process_pause(struct shim *sh, bool paused, struct shim_reply *r)
{
	struct process *p = sh->backend_data;
	struct err err = ERR_INIT;

	done(r, container_pause(p->container, paused, &err), NULL, &err);
}

static json_t *stats_json(const struct container_stats *s)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "memory_usage",
			 (json_int_t)s->memory_usage, "memory_limit", (json_int_t)s->memory_limit, "memory_max_usage",
			 (json_int_t)s->memory_max_usage, "memory_cache", (json_int_t)s->memory_cache, "cpu_total_ns",
			 (json_int_t)s->cpu_total_ns, "cpu_user_ns", (json_int_t)s->cpu_user_ns, "cpu_system_ns",
			 (json_int_t)s->cpu_system_ns, "pids_current", (json_int_t)s->pids_current, "pids_limit",
			 (json_int_t)s->pids_limit, "oom_kills", (json_int_t)s->oom_kills);
}

static void process_stats(struct shim *sh, struct shim_reply *r)
{
	struct process *p = sh->backend_data;
	struct container_stats stats = { 0 };
	struct err err = ERR_INIT;
	int rc = container_stats(p->container, &stats, &err);

	done(r, rc, rc < 0 ? NULL : stats_json(&stats), &err);
}

static void process_pids(struct shim *sh, struct shim_reply *r)
{
	struct process *p = sh->backend_data;
	CLEAN_FREE pid_t *pids = NULL;
	struct err err = ERR_INIT;
	json_t *list = NULL;
	size_t n = 0;
	int rc = container_pids(p->container, &pids, &n, &err);

	if (!rc)
		list = json_array();
	for (size_t i = 0; !rc && i < n; i++)
		(void)json_array_append_new(list, json_integer(pids[i]));
	done(r, rc, rc ? NULL : json_pack("{s:o}", "pids", list), &err);
}

static void process_update(struct shim *sh, const json_t *params, struct shim_reply *r)
{
	struct process *p = sh->backend_data;
	__attribute__((cleanup(cleanup_oci_resources))) struct oci_resources *resources = NULL;
	struct err err = ERR_INIT;
	int rc = oci_resources_parse(json_object_get(params, "resources"), &resources, &err);

	if (!rc)
		rc = container_update(p->container, resources, &err);
	done(r, rc, NULL, &err);
}

static bool process_reaped(struct shim *sh, pid_t pid, int exit_code)
{
	struct process *p = sh->backend_data;
	struct session *s;

	if (!p)
		return false;
	if (pid == p->pid) {
		session_exited(sh->main, exit_code);
		return true;
	}
	for (s = sh->execs; s && s->pid != pid; s = s->next)
		;
	for (struct exec_process **at = &p->execs; *at; at = &(*at)->next) {
		struct exec_process *e = *at;

		if (e->pid != pid)
			continue;
		*at = e->next;
		close_fd(&e->pidfd);
		free(e->exec_id);
		free(e);
		break;
	}
	if (s)
		session_exited(s, exit_code);
	return s;
}

static void process_ended(struct shim *sh)
{
	struct process *p = sh->backend_data;
	struct container_stats stats = { 0 };
	struct err err = ERR_INIT;

	if (!container_stats(p->container, &stats, &err))
		sh->exit.oom_killed = stats.oom_kills > 0;
}

const struct shim_backend backend_process = {
	.name = "process",
	.start = process_start,
	.exec = process_exec,
	.signal = process_signal,
	.resize = process_resize,
	.pause = process_pause,
	.stats = process_stats,
	.pids = process_pids,
	.update = process_update,
	.reaped = process_reaped,
	.ended = process_ended,
	.destroy = process_destroy,
};
