/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life cycle. The creator clones init with its namespaces and talks to it over a SEQPACKET pair whose ends are
 * close-on-exec: creator GO (cgroup and id maps are set), init HOOKS (only if there are hooks of the host; the creator runs
 * them) and GO, init READY (with the terminal), creator GO (start), then end of file (exec done) or FAILED. A container
 * that is started by another process takes that last GO from a connection to its socket, and answers there.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/internal.h"

#define KILL_TIMEOUT_MS 10000

static void cleanup_container(struct container **c)
{
	container_free(*c);
}

/* Join what can only be joined before the clone, then clone init as a sibling. */
static _Noreturn void helper_main(struct container *c, struct prepared *p, uint64_t flags, int sync)
{
	const struct oci_spec *s = c->config.spec;
	struct err err = ERR_INIT;
	int pidfd = -1;
	pid_t pid;

	if (namespaces_join(s, p, true, &err) < 0 || namespaces_time(s, &err) < 0 ||
	    namespaces_join(s, p, false, &err) < 0)
		report_fail(sync, CONTAINER_EXEC_OTHER, &err);
	pid = clone_process((flags & ~(uint64_t)CLONE_NEWTIME) | CLONE_PARENT, &pidfd, -1);
	if (pid == 0)
		init_main(c, p, sync);
	if (pid < 0) {
		(void)err_sys(&err, errno, "cannot clone the container's first process");
		report_fail(sync, CONTAINER_EXEC_OTHER, &err);
	}
	_exit(report_send(sync, REPORT_PID, pid, pidfd) < 0);
}

static int clone_by_helper(struct container *c, struct prepared *p, uint64_t flags, int sync, struct err *err)
{
	struct report rep = { 0 };
	pid_t helper = fork();
	int r;

	if (helper == 0) {
		(void)close(c->sync);
		helper_main(c, p, flags, sync);
	}
	if (helper < 0)
		return err_sys(err, errno, "cannot fork");
	(void)close(sync);
	r = report_receive(c->sync, &rep, &c->pidfd, err);
	while (waitpid(helper, NULL, 0) < 0 && errno == EINTR)
		;
	if (r <= 0)
		return r < 0 ? r : err_set(err, ECHILD, "the helper that joins the namespaces died");
	c->pid = rep.pid;
	c->running = true;
	return 0;
}

/* Born in its cgroup of version 2, which costs less than to be moved there; *@placed: it was, or enters by itself. */
static int clone_init(struct container *c, struct prepared *p, bool *placed, struct err *err)
{
	uint64_t flags = (uint64_t)(c->config.spec->namespaces & ~CLONE_NEWCGROUP) | CLONE_NEWNS;
	int pair[2], cgroup = c->cgroup ? cgroup_fd(c->cgroup) : -1;
	const char *mount_path;

	if (oci_spec_namespace(c->config.spec, CLONE_NEWNS, &mount_path) && mount_path)
		flags &= ~(uint64_t)CLONE_NEWNS;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(err, errno, "cannot make a socket pair");
	c->sync = pair[0];
	*placed = false;
	if (p->helper)
		return clone_by_helper(c, p, flags, pair[1], err);
	c->pid = clone_process(flags, &c->pidfd, cgroup);
	*placed = !p->user && (cgroup >= 0 || !c->cgroup || !cgroup_is_v2(c->cgroup));
	if (c->pid < 0 && cgroup >= 0) {
		c->pid = clone_process(flags, &c->pidfd, -1);
		*placed = false;
	}
	if (c->pid == 0) {
		(void)close(pair[0]);
		init_main(c, p, pair[1]);
	}
	(void)close(pair[1]);
	if (c->pid < 0)
		return err_sys(err, errno, "cannot clone the container's first process");
	c->running = true;
	return 0;
}

/* The next report that is not about hooks: those of the host are run here, while init waits. */
static int follow_init(struct container *c, int *console, struct err *err)
{
	for (;;) {
		struct report rep = { 0 };
		int r = report_receive(c->sync, &rep, console, err);

		if (r == 0)
			return err_set(
				err, ECHILD,
				"the container's first process died while it was set up (a memory limit that is too "
				"low kills it)");
		if (r < 0)
			return r;
		if (rep.kind != REPORT_HOOKS)
			return 0;
		if ((r = container_run_hooks(&c->config, OCI_HOOK_PRESTART, "creating", c->pid, err)) < 0 ||
		    (r = container_run_hooks(&c->config, OCI_HOOK_CREATE_RUNTIME, "creating", c->pid, err)) < 0 ||
		    (r = report_go(c->sync, err)) < 0)
			return r;
	}
}

static int create_init(struct container *c, int *console, struct err *err)
{
	const struct oci_spec *s = c->config.spec;
	CLEAN(prepared_close) struct prepared p = { .rootfs = -1 };
	bool placed = false;
	int r = prepared_open(&p, &c->config, err);

	if (r < 0 || (r = clone_init(c, &p, &placed, err)) < 0)
		return r;
	if (!placed && c->cgroup && (r = cgroup_add(c->cgroup, c->pid, err)) < 0)
		return r;
	if (s->namespaces & CLONE_NEWUSER &&
	    (r = namespaces_map(c->pid, s->uid_map, s->uid_map_count, s->gid_map, s->gid_map_count, err)) < 0)
		return r;
	if ((r = process_set_oom_score(c->pid, &s->process, err)) < 0 || (r = report_go(c->sync, err)) < 0)
		return r;
	return follow_init(c, console, err);
}

static int make_cgroup(struct container *c, struct err *err)
{
	const struct container_config *config = &c->config;
	struct cgroup_config g = { .manager = config->cgroup_disabled  ? CGROUP_MANAGER_DISABLED
					      : config->cgroup_systemd ? CGROUP_MANAGER_SYSTEMD
								       : CGROUP_MANAGER_FS,
				   .path = config->cgroup_path,
				   .id = config->id,
				   .resources = &config->spec->resources,
				   .annotations = config->spec->annotations,
				   .rootless = config->rootless };
	int r = cgroup_create(&c->cgroup, &g, err);

	if (r == 0)
		r = cgroup_apply(c->cgroup, &config->spec->resources, err);
	return r < 0 ? r : cgroup_apply_devices(c->cgroup, &config->spec->resources, err);
}

static struct container *new_container(const struct container_config *config)
{
	struct container *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->config = *config;
	c->pidfd = c->sync = -1;
	if (config->seccomp_bpf_size) {
		c->seccomp_bpf = malloc(config->seccomp_bpf_size);
		if (!c->seccomp_bpf) {
			free(c);
			return NULL;
		}
		memcpy(c->seccomp_bpf, config->seccomp_bpf, config->seccomp_bpf_size);
	}
	c->config.seccomp_bpf = c->seccomp_bpf;
	return c;
}

int container_create(struct container **out, const struct container_config *config, int *console, struct err *err)
{
	CLEAN(cleanup_container) struct container *c = NULL;
	int r;

	*console = -1;
	if (!config->spec->process_given)
		return err_set(err, EINVAL, "the configuration has no process");
	r = labels_check(config->spec, &config->spec->process, err);
	if (r < 0)
		return r;
	c = new_container(config);
	if (!c)
		return err_set(err, ENOMEM, "out of memory");
	if ((r = make_cgroup(c, err)) < 0 || (r = create_init(c, console, err)) < 0) {
		close_fd(console);
		return r;
	}
	*out = take_ptr(c);
	return 0;
}

/* Say GO and hear what came of it. */
static int start(int sync, enum container_exec_failure *why, struct err *err)
{
	struct report rep = { 0 };
	int r = report_go(sync, err);

	if (r == 0)
		r = report_receive(sync, &rep, NULL, err);
	if (why)
		*why = r < 0 ? rep.kind == REPORT_FAILED ? rep.why : CONTAINER_EXEC_OTHER : CONTAINER_EXEC_OK;
	return r;
}

int container_start(struct container *c, enum container_exec_failure *why, struct err *err)
{
	int r = c->sync < 0 ? err_set(err, EBUSY, "the container was started already") : start(c->sync, why, err);

	close_fd(&c->sync);
	if (r < 0 && c->running) {
		process_reap(c->pid, c->pidfd);
		c->running = false;
	}
	return r < 0 ? r : 0;
}

/* Through the folder's descriptor: the path may be longer than a socket's address. */
static int socket_address(int dir, const char *name, struct sockaddr_un *sa, struct err *err)
{
	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d/%s", dir, name) >= (int)sizeof(sa->sun_path))
		return err_set(err, ENAMETOOLONG, "the name of the start socket is too long: %s", name);
	return 0;
}

int container_listen(int dir, const char *name, struct err *err)
{
	CLEAN_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un sa;
	int r = socket_address(dir, name, &sa, err);

	if (r < 0)
		return r;
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 1) < 0)
		return err_sys(err, errno, "cannot make the container's start socket");
	return take_fd(&fd);
}

int container_start_by_socket(int dir, const char *name, enum container_exec_failure *why, struct err *err)
{
	CLEAN_FD int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un sa;
	int r = socket_address(dir, name, &sa, err);

	if (r < 0)
		return r;
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return err_sys(err, errno, "cannot reach the container's first process");
	r = start(fd, why, err);
	return r < 0 ? r : 0;
}

int container_open(struct container **out, const struct container_config *config, pid_t pid, struct err *err)
{
	struct container *c = new_container(config);
	int r = 0;

	if (!c)
		return err_set(err, ENOMEM, "out of memory");
	c->opened = true;
	c->pid = pid;
	c->pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	c->running = c->pidfd >= 0;
	if (config->cgroup_saved)
		r = cgroup_load(&c->cgroup, config->cgroup_saved, err);
	c->config.cgroup_saved = NULL;
	if (r < 0) {
		container_detach(c);
		return r;
	}
	*out = c;
	return 0;
}

void container_detach(struct container *c)
{
	if (!c)
		return;
	close_fd(&c->sync);
	close_fd(&c->pidfd);
	cgroup_close(c->cgroup);
	free(c->seccomp_bpf);
	free(c);
}

json_t *container_cgroup(const struct container *c)
{
	return c->cgroup ? cgroup_save(c->cgroup) : NULL;
}

int container_is_paused(const struct container_config *config, bool *paused, struct err *err)
{
	struct cgroup *g;
	int r;

	*paused = false;
	if (!config->cgroup_saved)
		return 0;
	r = cgroup_load(&g, config->cgroup_saved, err);
	if (r < 0)
		return r;
	*paused = cgroup_frozen(g);
	cgroup_close(g);
	return 0;
}

pid_t container_pid(const struct container *c)
{
	return c->pid;
}
int container_pidfd(const struct container *c)
{
	return c->pidfd;
}

static int no_cgroup(struct err *err)
{
	return err_set(err, ENOTSUP, "the container has no cgroup");
}

int container_signal(struct container *c, int sig, struct err *err)
{
	if (syscall(SYS_pidfd_send_signal, c->pidfd, sig, NULL, 0) < 0)
		return err_sys(err, errno, "cannot send signal %d to the container", sig);
	return 0;
}

int container_signal_all(struct container *c, int sig, struct err *err)
{
	return c->cgroup ? cgroup_signal(c->cgroup, sig, err) : container_signal(c, sig, err);
}

int container_kill_all(struct container *c, struct err *err)
{
	if (c->pidfd >= 0 && syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
		return err_sys(err, errno, "cannot kill the container");
	if (!c->cgroup)
		return 0;
	if (cgroup_frozen(c->cgroup) && cgroup_freeze(c->cgroup, false, NULL) < 0)
		return cgroup_kill(c->cgroup, err);
	return cgroup_kill(c->cgroup, err);
}

int container_destroy(struct container *c, struct err *err)
{
	struct pollfd p = { .fd = c->pidfd, .events = POLLIN };
	int r = 0;

	if (c->running) {
		if (syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
			r = err_sys(err, errno, "cannot kill the container");
		/* frozen, it does not die (version 1) */
		if (r == 0 && poll(&p, 1, 0) == 0 && c->cgroup && cgroup_frozen(c->cgroup))
			r = cgroup_freeze(c->cgroup, false, err);
		if (r == 0 && poll(&p, 1, KILL_TIMEOUT_MS) == 0)
			r = err_set(err, ETIMEDOUT, "the container's first process does not end after SIGKILL");
	}
	if (r == 0 && c->cgroup)
		r = cgroup_remove(c->cgroup, err);
	container_detach(c);
	return r;
}

int container_pause(struct container *c, bool paused, struct err *err)
{
	return c->cgroup ? cgroup_freeze(c->cgroup, paused, err) : no_cgroup(err);
}

int container_pids(struct container *c, pid_t **pids, size_t *n, struct err *err)
{
	return c->cgroup ? cgroup_pids(c->cgroup, pids, n, err) : no_cgroup(err);
}

int container_stats(struct container *c, struct container_stats *out, struct err *err)
{
	return c->cgroup ? cgroup_stats(c->cgroup, out, err) : no_cgroup(err);
}

json_t *container_stats_json(struct container *c, struct err *err)
{
	if (c->cgroup)
		return cgroup_stats_json(c->cgroup, err);
	(void)no_cgroup(err);
	return NULL;
}

int container_oom_open(struct container *c, struct err *err)
{
	return c->cgroup ? cgroup_oom_open(c->cgroup, err) : no_cgroup(err);
}

uint64_t container_oom_read(struct container *c, int fd)
{
	return cgroup_oom_read(c->cgroup, fd);
}

int container_update(struct container *c, const struct oci_resources *r, struct err *err)
{
	int n = c->cgroup ? cgroup_apply(c->cgroup, r, err) : no_cgroup(err);

	return n < 0 || !r->devices_count ? n : cgroup_apply_devices(c->cgroup, r, err);
}

void container_free(struct container *c)
{
	siginfo_t info;

	if (!c)
		return;
	close_fd(&c->sync);
	if (c->running && c->pidfd >= 0) {
		(void)syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
		if (c->cgroup && cgroup_frozen(c->cgroup) && cgroup_freeze(c->cgroup, false, NULL) < 0)
			errno = 0;
		if (waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED) < 0)
			errno = 0; /* reaped by the caller */
	}
	cgroup_free(c->cgroup);
	close_fd(&c->pidfd);
	free(c->seccomp_bpf);
	free(c);
}
