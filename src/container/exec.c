/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A further process in a running container. A helper joins the container's namespaces and clones the process with
 * CLONE_PARENT, so that it is a child of the caller and in the container's pid namespace.
 */
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/internal.h"
#include "container/seccomp_notify.h"

static int namespace_flags(const struct oci_spec *s)
{
	int flags = s->namespaces | CLONE_NEWNS;

	for (size_t i = 0; i < s->namespace_paths_count; i++)
		flags |= s->namespace_paths[i].flag;
	return flags;
}

static _Noreturn void exec_main(const struct container *c, const struct oci_process *p, int sync, int label)
{
	struct err err = ERR_INIT;
	enum container_exec_failure why = CONTAINER_EXEC_OTHER;
	struct process_exec e = { .process = p,
				  .capabilities = &c->config.spec->process.capabilities,
				  .bpf = c->config.seccomp_bpf,
				  .bpf_size = c->config.seccomp_bpf_size,
				  .seccomp_flags = c->config.seccomp_flags,
				  .keep_groups = process_keeps_groups(c->config.spec),
				  .label = label };
	int console = -1, number, r;
	int *const keep[] = { &sync, &e.label, &e.listener };
	CLEAN_FREE char *message = seccomp_notify_message(&c->config, "running");

	e.listener = message ? c->config.seccomp_socket : -1;
	e.listener_message = message;

	if (report_wait_go(sync) < 0 || setsid() < 0)
		_exit(127);
	if (namespace_flags(c->config.spec) & CLONE_NEWCGROUP && setns(c->pidfd, CLONE_NEWCGROUP) < 0) {
		(void)err_sys(&err, errno, "cannot join the container's cgroup namespace");
		report_fail(sync, why, &err);
	}
	r = settle(c->config.stdio, c->config.preserve_fds, keep, ARRAY_LEN(keep));
	if (r < 0) {
		(void)err_sys(&err, -r, "cannot set up stdin, stdout and stderr");
		report_fail(sync, why, &err);
	}
	if (p->terminal) {
		console = rootfs_open_console(AT_FDCWD, &number, &err);
		if (console < 0 || process_console(console, p, &err) < 0)
			report_fail(sync, why, &err);
	}
	if (report_send(sync, REPORT_READY, 0, console) < 0)
		_exit(127);
	if (console >= 0)
		(void)close(console);
	if (process_exec(&e, &why, &err) < 0)
		report_fail(sync, why, &err);
	_exit(127);
}

/* A user namespace that we are in already can not be joined again. */
static bool same_user_namespace(pid_t pid)
{
	char path[48];
	struct stat ours, theirs;

	(void)snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	return stat("/proc/self/ns/user", &ours) == 0 && stat(path, &theirs) == 0 && ours.st_ino == theirs.st_ino;
}

static int join(struct container *c, struct err *err)
{
	int flags = namespace_flags(c->config.spec) & ~CLONE_NEWCGROUP;

	if (flags & CLONE_NEWUSER && same_user_namespace(c->pid))
		flags &= ~CLONE_NEWUSER;
	/* a process of the container must not trace this one or look at its memory (CVE-2016-9962) */
	if (prctl(PR_SET_DUMPABLE, 0) < 0 || setns(c->pidfd, flags) < 0)
		return err_sys(err, errno, "cannot join the container");
	if (flags & CLONE_NEWUSER) {
		if ((setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0) && errno != EINVAL)
			return err_sys(err, errno, "cannot become root of the container's user namespace");
		if (prctl(PR_SET_DUMPABLE, 0) < 0)
			return err_sys(err, errno, "cannot forbid to trace the set-up");
	}
	return 0;
}

static _Noreturn void exec_helper(struct container *c, const struct oci_process *p, int sync)
{
	struct err err = ERR_INIT;
	int pidfd = -1, label = -1;
	pid_t pid;

	if (labels_check(c->config.spec, p, &err) < 0 || labels_open(p, &label, &err) < 0 || join(c, &err) < 0)
		report_fail(sync, CONTAINER_EXEC_OTHER, &err);
	pid = clone_process(CLONE_PARENT, &pidfd, -1);
	if (pid == 0)
		exec_main(c, p, sync, label);
	if (pid < 0) {
		(void)err_sys(&err, errno, "cannot clone a process in the container");
		report_fail(sync, CONTAINER_EXEC_OTHER, &err);
	}
	_exit(report_send(sync, REPORT_PID, pid, pidfd) < 0);
}

static int follow(struct container *c, int sync, const struct oci_process *p, struct container_process *out,
		  struct report *rep, struct err *err)
{
	int r = c->cgroup ? cgroup_add(c->cgroup, out->pid, err) : 0;

	if (r < 0 || (r = process_set_oom_score(out->pid, p, err)) < 0 || (r = report_go(sync, err)) < 0)
		return r;
	r = report_receive(sync, rep, &out->console, err);
	if (r == 0)
		return err_set(err, ECHILD, "the process died while it was set up");
	return r < 0 ? r : report_receive(sync, rep, NULL, err);
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
	if (c->config.exec_cgroup && *c->config.exec_cgroup)
		return err_set(err, ENOTSUP, "exec: --cgroup is not built in this version");
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
	r = report_receive(sync, &rep, &out->pidfd, err);
	while (waitpid(helper, NULL, 0) < 0 && errno == EINTR)
		;
	if (r <= 0)
		return r < 0 ? r : err_set(err, ECHILD, "the helper that enters the container died");
	out->pid = rep.pid;
	r = follow(c, sync, process, out, &rep, err);
	if (why)
		*why = r < 0 ? rep.kind == REPORT_FAILED ? rep.why : CONTAINER_EXEC_OTHER : CONTAINER_EXEC_OK;
	if (r < 0) {
		process_reap(out->pid, out->pidfd);
		close_fd(&out->pidfd);
		close_fd(&out->console);
	}
	return r < 0 ? r : 0;
}
