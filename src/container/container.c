/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life cycle. The parent clones init with its namespaces and talks to it over a
 * SEQPACKET pair whose ends are close-on-exec: parent GO (cgroup is set), init READY
 * (with the terminal), parent GO (start), then end of file (exec done) or FAILED.
 * An exec'd process is cloned by a helper that joined the namespaces, with
 * CLONE_PARENT, so that it is a child of the caller.
 */
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/internal.h"

#define SYNC_FD    3
#define CONSOLE_FD 4

struct container {
	struct cgroup *cgroup;
	struct container_config config;
	void *seccomp_bpf; /* ours: an exec needs it as long as the container lives */
	pid_t pid;
	int pidfd, sync; /* owned; sync is closed once started */
	bool running;
};

enum report_kind { REPORT_READY = 1, REPORT_PID, REPORT_FAILED };
struct report {
	enum report_kind kind;
	enum container_exec_failure why;
	pid_t pid;
	struct err err;
};

static void cleanup_container(struct container **c)
{
	container_free(*c);
}

static pid_t clone_process(uint64_t flags, int *pidfd)
{
	struct clone_args a = { .flags = flags | CLONE_PIDFD,
				.pidfd = (uint64_t)(uintptr_t)pidfd,
				.exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD };

	return (pid_t)syscall(SYS_clone3, &a, sizeof(a));
}

/* The first process: born in its cgroup of version 2, which costs less than to be moved there. *@placed: it was. */
static pid_t clone_init(struct container *c, uint64_t flags, bool *placed)
{
	struct clone_args a = { .flags = flags | CLONE_PIDFD | CLONE_INTO_CGROUP,
				.pidfd = (uint64_t)(uintptr_t)&c->pidfd,
				.exit_signal = SIGCHLD,
				.cgroup = (unsigned int)c->cgroup->dir[0] };
	pid_t pid;

	*placed = !c->cgroup->v2; /* version 1: it enters by itself */
	if (*placed)
		return clone_process(flags, &c->pidfd);
	pid = (pid_t)syscall(SYS_clone3, &a, sizeof(a));
	*placed = pid >= 0;
	return pid >= 0 ? pid : clone_process(flags, &c->pidfd);
}

static _Noreturn void fail(int sync, enum container_exec_failure why, const struct err *err)
{
	struct report r = { .kind = REPORT_FAILED, .why = why, .err = *err };

	if (send(sync, &r, sizeof(r), MSG_NOSIGNAL) < 0)
		_exit(126);
	_exit(127);
}

static int wait_go(void *arg)
{
	char byte;
	ssize_t n;

	do
		n = recv(*(int *)arg, &byte, 1, 0);
	while (n < 0 && errno == EINTR);
	return n == 1 ? 0 : n == 0 ? -ECANCELED : -errno;
}

/* Descriptors 0 to 2 are @stdio, 3 is @sync, all others are closed; signals are as after exec. */
static int settle(const int stdio[3], int *sync, int *console)
{
	int high[5] = { -1, -1, -1, -1, -1 };
	sigset_t none;

	for (int i = 0; i < 4; i++) {
		int from = i < 3 ? stdio[i] : *sync;

		high[i] = from < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : from;
		high[i] = high[i] < 0 ? -1 : fcntl(high[i], F_DUPFD_CLOEXEC, 10);
		if (high[i] < 0)
			return -errno;
	}
	if (*console >= 0 && *console <= SYNC_FD) {
		*console = fcntl(*console, F_DUPFD_CLOEXEC, 10);
		if (*console < 0)
			return -errno;
	}
	for (int i = 0; i < 4; i++)
		if (dup3(high[i], i, i == SYNC_FD ? O_CLOEXEC : 0) < 0)
			return -errno;
	*sync = SYNC_FD;
	if (*console >= 0) {
		high[4] = fcntl(*console, F_DUPFD_CLOEXEC, 10);
		if (high[4] < 0 || dup3(high[4], CONSOLE_FD, O_CLOEXEC) < 0)
			return -errno;
		*console = CONSOLE_FD;
	}
	if (close_range(*console >= 0 ? CONSOLE_FD + 1 : SYNC_FD + 1, ~0U, 0) < 0)
		return -errno;
	for (int i = 1; i < 65; i++)
		if (i != SIGKILL && i != SIGSTOP)
			(void)signal(i, SIG_DFL);
	(void)sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? -errno : 0;
}

static int report_ready(int sync, int console)
{
	struct report r = { .kind = REPORT_READY };
	ssize_t n = fd_send(sync, &r, sizeof(r), &console, console >= 0 ? 1 : 0);

	return n < 0 ? (int)n : 0;
}

static int join_paths(const struct oci_spec *s, struct err *err)
{
	for (size_t i = 0; i < s->namespace_paths_count; i++) {
		CLEAN_FD int fd = open(s->namespace_paths[i].path, O_RDONLY | O_CLOEXEC);

		if (s->namespace_paths[i].flag == CLONE_NEWPID || s->namespace_paths[i].flag == CLONE_NEWNS)
			return err_set(err, ENOTSUP, "joining a pid or mount namespace is not supported yet");
		if (fd < 0 || setns(fd, s->namespace_paths[i].flag) < 0)
			return err_sys(err, errno, "cannot join the namespace %s", s->namespace_paths[i].path);
	}
	return 0;
}

static int init_setup(struct container *c, int *sync, int *console, struct err *err)
{
	const struct oci_spec *s = c->config.spec;
	int r = cgroup_enter(c->cgroup, err);

	if (r < 0)
		return r;
	if ((r = wait_go(sync)) < 0)
		return err_sys(err, -r, "the container's creator is gone");
	if (setsid() < 0)
		return err_sys(err, errno, "cannot make a session");
	if ((r = join_paths(s, err)) < 0)
		return r;
	if (s->namespaces & CLONE_NEWNET && (r = loopback_up(err)) < 0)
		return r;
	if (s->namespaces & CLONE_NEWCGROUP && unshare(CLONE_NEWCGROUP) < 0)
		return err_sys(err, errno, "cannot make a cgroup namespace");
	if (s->hostname && sethostname(s->hostname, strlen(s->hostname)) < 0)
		return err_sys(err, errno, "cannot set the hostname '%s'", s->hostname);
	if (s->domainname && setdomainname(s->domainname, strlen(s->domainname)) < 0)
		return err_sys(err, errno, "cannot set the domain name '%s'", s->domainname);
	if ((r = rootfs_enter(&c->config, c->cgroup, console, err)) < 0)
		return r;
	r = settle(c->config.stdio, sync, console);
	return r < 0 ? err_sys(err, -r, "cannot set up stdin, stdout and stderr") : 0;
}

struct init_wait {
	int *sync;
	int console;
};

static int init_wait_start(void *arg)
{
	struct init_wait *w = arg;
	int r = report_ready(*w->sync, w->console);

	if (w->console >= 0)
		(void)close(w->console);
	return r < 0 ? r : wait_go(w->sync);
}

static _Noreturn void init_main(struct container *c, int sync)
{
	static const struct oci_capabilities none;
	struct err err = ERR_INIT;
	enum container_exec_failure why = CONTAINER_EXEC_OTHER;
	struct init_wait w = { .sync = &sync, .console = -1 };
	const struct oci_process *p = &c->config.spec->process;
	int console = -1;

	if (p->terminal)
		c->config.stdio[0] = c->config.stdio[1] = c->config.stdio[2] = -1;
	if (init_setup(c, &sync, &console, &err) < 0)
		fail(sync, why, &err);
	if (p->terminal && process_console(console, p, &err) < 0)
		fail(sync, why, &err);
	w.console = console;
	if (process_exec(p, &none, c->config.seccomp_bpf, c->config.seccomp_bpf_size, &why, init_wait_start, &w, &err) <
	    0)
		fail(sync, why, &err);
	_exit(127);
}

/* The next report. @fd is set to the descriptor that came along. Return: 1, 0 at end of file, -errno. */
static int receive(int sync, struct report *r, int *fd, struct err *err)
{
	int fds[FD_PASS_MAX];
	size_t n = 0;
	ssize_t got = fd_recv(sync, r, sizeof(*r), fds, &n);

	for (size_t i = 0; i < n; i++) {
		if (i == 0 && fd && *fd < 0)
			*fd = fds[0];
		else
			(void)close(fds[i]);
	}
	if (got == -ECONNRESET || got == 0)
		return 0;
	if (got != (ssize_t)sizeof(*r))
		return err_sys(err, got < 0 ? (int)-got : EPROTO, "cannot hear from the container's first process");
	if (r->kind == REPORT_FAILED) {
		r->err.msg[ERR_MSG_SIZE - 1] = 0;
		return err_set(err, r->err.code ? r->err.code : EIO, "%s", r->err.msg);
	}
	return 1;
}

static int go(int sync, struct err *err)
{
	return send(sync, "g", 1, MSG_NOSIGNAL) == 1 ? 0 : err_sys(err, errno, "the container's first process is gone");
}

static int set_oom_score(pid_t pid, const struct oci_process *p, struct err *err)
{
	char path[64], text[16];
	int r;
	CLEAN_FREE char *now = NULL;

	if (!p->oom_score_adj_given)
		return 0;
	(void)snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", pid);
	(void)snprintf(text, sizeof(text), "%d", p->oom_score_adj);
	now = fd_read_file(AT_FDCWD, path, 64, NULL, err);
	if (now && atoi(now) == p->oom_score_adj)
		return 0;
	r = fd_write_file(AT_FDCWD, path, O_WRONLY, text, strlen(text), err);
	return r < 0 ? err_wrap(err, "cannot set oom_score_adj to %s", text) : 0;
}

static void reap(pid_t pid, int pidfd)
{
	if (pidfd >= 0)
		(void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static int create_init(struct container *c, int *console, struct err *err)
{
	const struct oci_spec *s = c->config.spec;
	struct report rep = { 0 };
	int pair[2], r = 0;
	bool placed;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(err, errno, "cannot make a socket pair");
	c->sync = pair[0];
	c->pid = clone_init(c, (uint64_t)(s->namespaces & ~CLONE_NEWCGROUP) | CLONE_NEWNS, &placed);
	if (c->pid == 0) {
		(void)close(pair[0]);
		init_main(c, pair[1]);
	}
	(void)close(pair[1]);
	if (c->pid < 0)
		return err_sys(err, errno, "cannot clone the container's first process");
	c->running = true;
	if (!placed)
		r = cgroup_add(c->cgroup, c->pid, err);
	if (r < 0 || (r = set_oom_score(c->pid, &s->process, err)) < 0 || (r = go(c->sync, err)) < 0)
		return r;
	r = receive(c->sync, &rep, console, err);
	if (r == 0)
		return err_set(err, ECHILD, "the container's first process died while it was set up");
	return r < 0 ? r : 0;
}

int container_create(struct container **out, const struct container_config *config, int *console, struct err *err)
{
	CLEAN(cleanup_container) struct container *c = calloc(1, sizeof(*c));
	int r;

	*console = -1;
	if (!c)
		return err_set(err, ENOMEM, "out of memory");
	c->config = *config;
	c->pidfd = c->sync = -1;
	if (config->seccomp_bpf_size) {
		c->seccomp_bpf = malloc(config->seccomp_bpf_size);
		if (!c->seccomp_bpf)
			return err_set(err, ENOMEM, "out of memory");
		memcpy(c->seccomp_bpf, config->seccomp_bpf, config->seccomp_bpf_size);
	}
	c->config.seccomp_bpf = c->seccomp_bpf;
	r = cgroup_create(&c->cgroup, config->cgroup_path, err);
	if (r < 0)
		return r;
	if ((r = cgroup_apply(c->cgroup, &config->spec->resources, err)) < 0 ||
	    (r = cgroup_apply_devices(c->cgroup, &config->spec->resources, err)) < 0 ||
	    (r = create_init(c, console, err)) < 0) {
		close_fd(console);
		return r;
	}
	*out = take_ptr(c);
	return 0;
}

int container_start(struct container *c, enum container_exec_failure *why, struct err *err)
{
	struct report rep = { 0 };
	int r = c->sync < 0 ? err_set(err, EBUSY, "the container was started already") : go(c->sync, err);

	if (r == 0)
		r = receive(c->sync, &rep, NULL, err);
	close_fd(&c->sync);
	if (why)
		*why = r < 0 ? rep.kind == REPORT_FAILED ? rep.why : CONTAINER_EXEC_OTHER : CONTAINER_EXEC_OK;
	if (r < 0 && c->running) {
		reap(c->pid, c->pidfd);
		c->running = false;
	}
	return r < 0 ? r : 0;
}

static _Noreturn void exec_main(const struct container *c, const struct oci_process *p, int sync)
{
	struct err err = ERR_INIT;
	enum container_exec_failure why = CONTAINER_EXEC_OTHER;
	int console = -1, number, root;

	if (wait_go(&sync) < 0 || setsid() < 0)
		_exit(127);
	if (c->config.spec->namespaces & CLONE_NEWCGROUP && setns(c->pidfd, CLONE_NEWCGROUP) < 0) {
		(void)err_sys(&err, errno, "cannot join the container's cgroup namespace");
		fail(sync, why, &err);
	}
	root = settle(c->config.stdio, &sync, &console);
	if (root < 0) {
		(void)err_sys(&err, -root, "cannot set up stdin, stdout and stderr");
		fail(sync, why, &err);
	}
	if (p->terminal) {
		console = rootfs_open_console(AT_FDCWD, &number, &err);
		if (console < 0 || process_console(console, p, &err) < 0)
			fail(sync, why, &err);
	}
	if (report_ready(sync, console) < 0)
		_exit(127);
	if (console >= 0)
		(void)close(console);
	if (process_exec(p, &c->config.spec->process.capabilities, c->config.seccomp_bpf, c->config.seccomp_bpf_size,
			 &why, NULL, NULL, &err) < 0)
		fail(sync, why, &err);
	_exit(127);
}

/* Join the namespaces, then clone the process as a sibling. */
static _Noreturn void exec_helper(struct container *c, const struct oci_process *p, int sync)
{
	int flags = (c->config.spec->namespaces & ~CLONE_NEWCGROUP) | CLONE_NEWNS, pidfd = -1;
	struct report r = { .kind = REPORT_PID };
	struct err err = ERR_INIT;

	for (size_t i = 0; i < c->config.spec->namespace_paths_count; i++)
		flags |= c->config.spec->namespace_paths[i].flag;
	/* a process of the container must not trace this one or look at its memory */
	if (prctl(PR_SET_DUMPABLE, 0) < 0 || setns(c->pidfd, flags) < 0) {
		(void)err_sys(&err, errno, "cannot join the container");
		fail(sync, CONTAINER_EXEC_OTHER, &err);
	}
	r.pid = clone_process(CLONE_PARENT, &pidfd);
	if (r.pid == 0)
		exec_main(c, p, sync);
	if (r.pid < 0) {
		(void)err_sys(&err, errno, "cannot clone a process in the container");
		fail(sync, CONTAINER_EXEC_OTHER, &err);
	}
	_exit(fd_send(sync, &r, sizeof(r), &pidfd, 1) < 0);
}

static int exec_follow(struct container *c, int sync, const struct oci_process *p, struct container_process *out,
		       struct report *rep, struct err *err)
{
	int r;

	if ((r = cgroup_add(c->cgroup, out->pid, err)) < 0 || (r = set_oom_score(out->pid, p, err)) < 0 ||
	    (r = go(sync, err)) < 0)
		return r;
	r = receive(sync, rep, &out->console, err);
	if (r == 0)
		return err_set(err, ECHILD, "the process died while it was set up");
	return r < 0 ? r : receive(sync, rep, NULL, err);
}

int container_exec(struct container *c, const struct oci_process *process, const int stdio[3],
		   struct container_process *out, enum container_exec_failure *why, struct err *err)
{
	struct report rep = { 0 };
	int pair[2], r;
	pid_t helper;
	CLEAN_FD int sync = -1;

	*out = (struct container_process){ .pid = -1, .pidfd = -1, .console = -1 };
	if (why)
		*why = CONTAINER_EXEC_OTHER;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(err, errno, "cannot make a socket pair");
	sync = pair[0];
	helper = fork();
	if (helper == 0) {
		(void)close(pair[0]);
		for (int i = 0; i < 3; i++)
			c->config.stdio[i] = process->terminal ? -1 : stdio[i];
		exec_helper(c, process, pair[1]);
	}
	(void)close(pair[1]);
	if (helper < 0)
		return err_sys(err, errno, "cannot fork");
	r = receive(sync, &rep, &out->pidfd, err);
	while (waitpid(helper, NULL, 0) < 0 && errno == EINTR)
		;
	if (r <= 0)
		return r < 0 ? r : err_set(err, ECHILD, "the helper that enters the container died");
	out->pid = rep.pid;
	r = exec_follow(c, sync, process, out, &rep, err);
	if (why)
		*why = r < 0 ? rep.kind == REPORT_FAILED ? rep.why : CONTAINER_EXEC_OTHER : CONTAINER_EXEC_OK;
	if (r < 0) {
		reap(out->pid, out->pidfd);
		close_fd(&out->pidfd);
		close_fd(&out->console);
	}
	return r < 0 ? r : 0;
}

pid_t container_pid(const struct container *c)
{
	return c->pid;
}
int container_pidfd(const struct container *c)
{
	return c->pidfd;
}

int container_signal(struct container *c, int sig, struct err *err)
{
	if (syscall(SYS_pidfd_send_signal, c->pidfd, sig, NULL, 0) < 0)
		return err_sys(err, errno, "cannot send signal %d to the container", sig);
	return 0;
}

int container_kill_all(struct container *c, struct err *err)
{
	if (syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
		return err_sys(err, errno, "cannot kill the container");
	if (cgroup_freeze(c->cgroup, false, NULL) < 0)
		return cgroup_kill(c->cgroup, err);
	return cgroup_kill(c->cgroup, err);
}

int container_pause(struct container *c, bool paused, struct err *err)
{
	return cgroup_freeze(c->cgroup, paused, err);
}

int container_pids(struct container *c, pid_t **pids, size_t *n, struct err *err)
{
	return cgroup_pids(c->cgroup, pids, n, err);
}

int container_stats(struct container *c, struct container_stats *out, struct err *err)
{
	return cgroup_stats(c->cgroup, out, err);
}

int container_update(struct container *c, const struct oci_resources *r, struct err *err)
{
	return cgroup_apply(c->cgroup, r, err);
}

void container_free(struct container *c)
{
	siginfo_t info;

	if (!c)
		return;
	close_fd(&c->sync);
	if (c->running && c->pidfd >= 0) {
		(void)syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
		if (cgroup_freeze(c->cgroup, false, NULL) < 0)
			errno = 0;
		if (waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED) < 0)
			errno = 0; /* reaped by the caller */
	}
	cgroup_free(c->cgroup);
	close_fd(&c->pidfd);
	free(c->seccomp_bpf);
	free(c);
}
