/* SPDX-License-Identifier: Apache-2.0 */
/* The shim's requests, and the events that answer to nobody: exits and out-of-memory. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/log.h"

#define GUEST_CGROUP "/container"

int rpc_event(struct agent *a, const char *name, json_t *params)
{
	CLEAN_JSON json_t *message = msg_event(name, params);
	struct err err = ERR_INIT;
	int rc = msg_send(a->control.fd, message, NULL, 0, &err);

	if (rc < 0)
		log_error("send \"%s\": %s", name, err.msg);
	return rc;
}

static struct agent_process *find_process(struct agent *a, const char *id)
{
	struct agent_process *p = a->processes;

	while (p && strcmp(p->id, id) != 0)
		p = p->next;
	return p;
}

static struct agent_process *process_of(struct agent *a, const json_t *params, struct err *err)
{
	const char *id = json_str(params, "exec_id", "");
	struct agent_process *p = find_process(a, id);

	if (!p)
		(void)err_set(err, ESRCH, *id ? "no such exec, or it has ended" : "the container is not running");
	return p;
}

static struct agent_process *add_process(struct agent *a, const char *id, struct err *err)
{
	struct agent_process *p;

	if (strlen(id) > LINK_ID_MAX || find_process(a, id)) {
		(void)err_set(err, EEXIST, "the exec id is in use or too long");
		return NULL;
	}
	if (a->processes_count >= AGENT_EXECS_MAX) {
		(void)err_set(err, EAGAIN, "more than %d processes were started at once by exec", AGENT_EXECS_MAX);
		return NULL;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		(void)err_sys(err, ENOMEM, "start a process");
		return NULL;
	}
	p->agent = a;
	p->pidfd = p->console = -1;
	(void)snprintf(p->id, sizeof(p->id), "%s", id);
	p->next = a->processes;
	a->processes = p;
	a->processes_count++;
	return p;
}

static void remove_process(struct agent_process *p)
{
	struct agent_process **at = &p->agent->processes;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	p->agent->processes_count--;
	streams_end_input(p);
	close_fd(&p->pidfd);
	close_fd(&p->console);
	free(p);
}

static int need_container(struct agent *a, struct err *err)
{
	return a->container ? 0 : err_set(err, ESRCH, "the container is not created");
}

static void oom_ready(struct loop *l, int fd, uint32_t events, void *arg)
{
	char drop[4096];

	while (read(fd, drop, sizeof(drop)) > 0)
		;
	rpc_check_oom(arg);
}

void rpc_check_oom(struct agent *a)
{
	struct container_stats stats = { 0 };
	struct err err = ERR_INIT;

	if (!a->container || container_stats(a->container, &stats, &err) < 0)
		return;
	if (stats.oom_kills > a->oom_kills)
		(void)rpc_event(a, "oom", NULL);
	a->oom_kills = stats.oom_kills;
}

static void watch_oom(struct agent *a)
{
	struct err err = ERR_INIT;

	if (!a->pid1)
		return;
	a->oom = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (a->oom < 0 || inotify_add_watch(a->oom, "/sys/fs/cgroup" GUEST_CGROUP "/memory.events", IN_MODIFY) < 0 ||
	    !loop_add_fd(a->loop, a->oom, EPOLLIN, oom_ready, a, &err))
		log_warn("out-of-memory events will be seen at the exit only");
}

static int decode_filter(const json_t *params, unsigned char **bpf, size_t *n, struct err *err)
{
	const char *text = json_str(params, "seccomp_bpf", NULL);
	int rc;

	*n = 0;
	if (!text || !*text)
		return 0;
	rc = link_base64_decode(text, LINK_SECCOMP_MAX, bpf, n);
	return rc < 0 || *n % 8 ? err_set(err, EINVAL, "the seccomp filter is not valid") : 0;
}

static int create(struct agent *a, const json_t *params, json_t **result, struct err *err)
{
	CLEAN(streams_close) struct agent_streams streams = AGENT_STREAMS_INIT;
	CLEAN(cleanup_oci_spec) struct oci_spec *spec = NULL;
	CLEAN_FREE unsigned char *bpf = NULL;
	struct container_config config;
	struct agent_process *p;
	size_t bpf_size;
	int rc;

	if (!a->set_up || a->container || a->exited)
		return err_set(err, EINVAL, a->set_up ? "the container is created already" : "create before setup");
	rc = decode_filter(params, &bpf, &bpf_size, err);
	if (!rc)
		rc = oci_spec_parse(json_object_get(params, "spec"), &spec, err);
	if (!rc && json_bool(params, "all_devices", false))
		rc = container_add_machine_devices(spec, err);
	if (!rc)
		rc = streams_open(a, json_object_get(params, "streams"), spec->process.terminal, &streams, err);
	if (rc < 0)
		return rc;
	p = add_process(a, "", err);
	if (!p)
		return -err->code;
	config = (struct container_config){
		.id = "container",
		.spec = spec,
		.rootfs = a->rootfs,
		.cgroup_path = a->pid1 ? GUEST_CGROUP : "/walnut-agent-test",
		.stdio = { streams.container[0], streams.container[1], streams.container[2] },
		.seccomp_bpf = bpf,
		.seccomp_bpf_size = bpf_size,
		.init_path = json_bool(params, "init", false) ? LINK_GUEST_INIT : NULL,
	};
	rc = container_create(&a->container, &config, &p->console, err);
	if (!rc) {
		p->pid = container_pid(a->container);
		rc = streams_run(a, p, &streams, p->console, err);
		if (rc < 0) {
			container_free(a->container);
			a->container = NULL;
		}
	}
	if (rc < 0) {
		remove_process(p);
		return rc;
	}
	a->spec = take_ptr(spec);
	watch_oom(a);
	*result = json_pack("{s:i}", "pid", (int)p->pid);
	return 0;
}

/* The error numbers that the shim turns into Docker's 127 and 126. */
static int exec_failed(enum container_exec_failure why, int rc, struct err *err)
{
	if (why == CONTAINER_EXEC_NOT_FOUND)
		err->code = ENOENT;
	else if (why == CONTAINER_EXEC_NOT_EXECUTABLE)
		err->code = EACCES;
	else if (why == CONTAINER_EXEC_OTHER && (err->code == ENOENT || err->code == EACCES))
		err->code = EIO;
	return err->code ? -err->code : rc;
}

static int start(struct agent *a, const json_t *params, json_t **result, struct err *err)
{
	enum container_exec_failure why = CONTAINER_EXEC_OK;
	struct agent_process *p = find_process(a, "");
	int rc;

	if (!a->container || !p || a->started)
		return err_set(err, EINVAL, a->started ? "the container is started already" : "start before create");
	a->started = true;
	rc = container_start(a->container, &why, err);
	if (rc < 0) {
		a->exited = true;
		remove_process(p);
		return exec_failed(why, rc, err);
	}
	*result = json_pack("{s:i}", "pid", (int)p->pid);
	return 0;
}

static int exec(struct agent *a, const json_t *params, json_t **result, struct err *err)
{
	CLEAN(streams_close) struct agent_streams streams = AGENT_STREAMS_INIT;
	CLEAN(cleanup_oci_process) struct oci_process *process = NULL;
	enum container_exec_failure why = CONTAINER_EXEC_OK;
	struct container_process made = { .pidfd = -1, .console = -1 };
	const char *id = json_str(params, "exec_id", "");
	struct agent_process *p;
	int rc;

	if (!a->started || a->exited)
		return err_set(err, ESRCH, "the container is not running");
	if (!*id)
		return err_set(err, EINVAL, "exec needs an exec_id");
	rc = oci_process_parse(json_object_get(params, "process"), &process, err);
	if (!rc)
		rc = streams_open(a, json_object_get(params, "streams"), process->terminal, &streams, err);
	if (rc < 0)
		return rc;
	p = add_process(a, id, err);
	if (!p)
		return -err->code;
	rc = container_exec(a->container, process, streams.container, &made, &why, err);
	if (rc < 0) {
		remove_process(p);
		return exec_failed(why, rc, err);
	}
	p->pid = made.pid;
	p->pidfd = made.pidfd;
	p->console = made.console;
	rc = streams_run(a, p, &streams, p->console, err);
	if (rc < 0)
		(void)kill(p->pid, SIGKILL); /* its end is reported as any other */
	*result = json_pack("{s:i}", "pid", (int)p->pid);
	return rc;
}

static int do_signal(struct agent *a, const json_t *params, json_t **result, struct err *err)
{
	int64_t sig = json_int(params, "signal", 0);
	struct agent_process *p = process_of(a, params, err);

	if (!p)
		return -err->code;
	if (sig < 1 || sig > 64)
		return err_set(err, EINVAL, "signal %lld does not exist", (long long)sig);
	if (p->pidfd < 0) {
		struct err ignored = ERR_INIT;
		int rc = container_signal(a->container, (int)sig, err);

		/* a paused container dies too, as with Docker */
		if (!rc && sig == SIGKILL && container_pause(a->container, false, &ignored) < 0)
			log_debug("%s", ignored.msg);
		return rc;
	}
	return syscall(SYS_pidfd_send_signal, p->pidfd, (int)sig, NULL, 0) < 0
		       ? err_sys(err, errno, "send signal %d", (int)sig)
		       : 0;
}

static int resize(struct agent *a, const json_t *params, json_t **result, struct err *err)
{
	struct agent_process *p = process_of(a, params, err);
	int64_t height = json_int(params, "height", -1), width = json_int(params, "width", -1);
	struct winsize size = { .ws_row = (unsigned short)height, .ws_col = (unsigned short)width };

	if (!p)
		return -err->code;
	if (height < 0 || height > 65535 || width < 0 || width > 65535)
		return err_set(err, EINVAL, "a terminal cannot have this size");
	if (p->console < 0)
		return err_set(err, ENOTTY, "the process has no terminal");
	return ioctl(p->console, TIOCSWINSZ, &size) < 0 ? err_sys(err, errno, "resize the terminal") : 0;
}

static int stats(struct agent *a, const json_t *params, json_t **result, struct err *err)
{
	struct container_stats s = { 0 };
	int rc = need_container(a, err);

	if (!rc)
		rc = container_stats(a->container, &s, err);
	if (rc < 0)
		return rc;
	*result = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "memory_usage",
			    (json_int_t)s.memory_usage, "memory_limit", (json_int_t)s.memory_limit, "memory_max_usage",
			    (json_int_t)s.memory_max_usage, "memory_cache", (json_int_t)s.memory_cache, "cpu_total_ns",
			    (json_int_t)s.cpu_total_ns, "cpu_user_ns", (json_int_t)s.cpu_user_ns, "cpu_system_ns",
			    (json_int_t)s.cpu_system_ns, "pids_current", (json_int_t)s.pids_current, "pids_limit",
			    (json_int_t)s.pids_limit, "oom_kills", (json_int_t)s.oom_kills);
	return 0;
}

static int pids(struct agent *a, const json_t *params, json_t **result, struct err *err)
{
	CLEAN_JSON json_t *list = json_array(), *processes = json_array();
	CLEAN_FREE pid_t *all = NULL;
	size_t n = 0;
	int rc = need_container(a, err);

	if (!rc)
		rc = container_pids(a->container, &all, &n, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < n && i < LINK_PIDS_MAX; i++) {
		json_t *process = i < LINK_PROCESSES_MAX ? ps_process(all[i]) : NULL;

		if (json_array_append_new(list, json_integer(all[i])) < 0 ||
		    (process && json_array_append_new(processes, process) < 0))
			return err_sys(err, ENOMEM, "list processes");
	}
	*result = json_pack("{s:O, s:O}", "pids", list, "processes", processes);
	return 0;
}

static int pause_container(struct agent *a, const json_t *params, json_t **result, struct err *err)
{
	int rc = need_container(a, err);

	return rc < 0 ? rc : container_pause(a->container, true, err);
}

static int resume(struct agent *a, const json_t *params, json_t **result, struct err *err)
{
	int rc = need_container(a, err);

	return rc < 0 ? rc : container_pause(a->container, false, err);
}

static int update(struct agent *a, const json_t *params, json_t **result, struct err *err)
{
	CLEAN(cleanup_oci_resources) struct oci_resources *r = NULL;
	const json_t *given = json_object_get(params, "resources");
	int rc = need_container(a, err);

	if (!rc)
		rc = oci_resources_parse(given ? given : params, &r, err);
	return rc < 0 ? rc : container_update(a->container, r, err);
}

static int do_setup(struct agent *a, const json_t *params, json_t **result, struct err *err)
{
	return setup_guest(a, params, err);
}

static int do_shutdown(struct agent *a, const json_t *params, json_t **result, struct err *err)
{
	struct err ignored = ERR_INIT;

	if (a->container && !a->exited) {
		if (container_kill_all(a->container, &ignored) < 0)
			log_warn("%s", ignored.msg);
	}
	if (a->pid1)
		boot_stop_disks();
	else
		container_free(take_ptr(a->container));
	loop_stop(a->loop);
	return 0;
}

static const struct method {
	const char *name;
	int (*fn)(struct agent *a, const json_t *params, json_t **result, struct err *err);
} methods[] = {
	{ "setup", do_setup },        { "create", create }, { "start", start },   { "exec", exec },
	{ "signal", do_signal },      { "resize", resize }, { "stats", stats },   { "pids", pids },
	{ "pause", pause_container }, { "resume", resume }, { "update", update }, { "shutdown", do_shutdown },
};

int rpc_handle(struct agent *a, const json_t *message, struct err *err)
{
	CLEAN_JSON json_t *answer = NULL;
	const char *name = json_str(message, "method", "");
	int64_t id = json_int(message, "id", 0);
	struct err failure = ERR_INIT;
	json_t *result = NULL;
	int rc = -ENOSYS;

	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		if (!strcmp(methods[i].name, name))
			rc = methods[i].fn(a, json_object_get(message, "params"), &result, &failure);
	if (rc == -ENOSYS && !failure.code)
		(void)err_set(&failure, ENOSYS, "the agent has no request \"%.64s\"", name);
	answer = rc < 0 ? msg_error(id, &failure) : msg_result(id, result);
	return msg_send(a->control.fd, answer, NULL, 0, err);
}

static void process_ended(struct agent_process *p, int status)
{
	struct agent *a = p->agent;
	int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);

	if (*p->id) {
		(void)rpc_event(a, "exec_exited", json_pack("{s:s, s:i}", "exec_id", p->id, "exit_code", code));
	} else {
		rpc_check_oom(a);
		a->exited = true;
		(void)rpc_event(a, "exited",
				json_pack("{s:i, s:b}", "exit_code", code, "oom_killed", a->oom_kills > 0));
	}
	remove_process(p);
}

void rpc_reap(struct agent *a)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct agent_process *p = a->processes;

		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what process_ended() freed is off the list */
		while (p && p->pid != pid)
			p = p->next;
		if (p)
			process_ended(p, status);
	}
}
