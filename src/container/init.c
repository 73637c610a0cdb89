/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first process of a container, from its clone to the exec of its program. It runs code of ours only, cannot
 * be traced (dumpable off), and all descriptors that are not the program's are close-on-exec.
 */
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/internal.h"
#include "container/seccomp_notify.h"

void process_reap(pid_t pid, int pidfd)
{
	if (pidfd >= 0)
		(void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

int process_set_oom_score(pid_t pid, const struct oci_process *p, struct err *err)
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
	/* an ordinary user may only raise it */
	if (r == -EACCES && geteuid() != 0)
		return 0;
	return r < 0 ? err_wrap(err, "cannot set oom_score_adj to %s", text) : 0;
}

/* A copy of @fd that is close-on-exec and out of the way of the program's descriptors. */
static int move_up(int *fd, int first)
{
	int copy;

	if (*fd < 0 || *fd >= first)
		return 0;
	copy = fcntl(*fd, F_DUPFD_CLOEXEC, first);
	if (copy < 0)
		return -errno;
	*fd = copy;
	return 0;
}

/* Close what lies between the descriptors of @keep, and after: the locks and folders of our creator among it. */
static int close_others(int first, int *const keep[], size_t n)
{
	for (;;) {
		int next = -1;

		for (size_t i = 0; i < n; i++)
			if (*keep[i] >= first && (next < 0 || *keep[i] < next))
				next = *keep[i];
		if (next > first && syscall(SYS_close_range, (unsigned int)first, (unsigned int)next - 1, 0) < 0)
			return -errno;
		if (next < 0)
			return syscall(SYS_close_range, (unsigned int)first, ~0U, 0) < 0 ? -errno : 0;
		first = next + 1;
	}
}

int settle(const int stdio[3], unsigned int preserve, int *const keep[], size_t n)
{
	static const int reset[] = { SIGHUP,  SIGINT,  SIGQUIT, SIGPIPE, SIGALRM, SIGTERM, SIGUSR1, SIGUSR2,
				     SIGCHLD, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG,  SIGXCPU, SIGXFSZ, SIGWINCH };
	int first = 3 + (int)preserve, from[3], r;
	sigset_t none;

	for (size_t i = 0; i < n; i++)
		if ((r = move_up(keep[i], first)) < 0)
			return r;
	for (int i = 0; i < 3; i++) {
		from[i] = stdio[i] < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : stdio[i];
		/* not to be overwritten before it is used */
		if (from[i] >= 0 && from[i] < 3 && from[i] != i)
			from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, first);
		if (from[i] < 0)
			return -errno;
	}
	for (int i = 0; i < 3; i++)
		if (from[i] == i ? fcntl(i, F_SETFD, 0) < 0 : dup2(from[i], i) < 0)
			return -errno;
	r = close_others(first, keep, n);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_LEN(reset); i++)
		(void)signal(reset[i], SIG_DFL);
	(void)sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? -errno : 0;
}

/* A session keyring of its own, so that the creator's keys are not the container's (keyrings(7)). */
static int join_keyring(const struct container_config *config, struct err *err)
{
	char name[300];

	if (config->no_new_keyring)
		return 0;
	(void)snprintf(name, sizeof(name), "_ses.%s", config->id ? config->id : "walnut");
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) >= 0 || errno == ENOSYS || errno == EPERM)
		return 0;
	return err_sys(err, errno, "cannot make a session keyring (--no-new-keyring does without)");
}

bool process_keeps_groups(const struct oci_spec *s)
{
	const char *value = json_string_value(json_object_get(s->annotations, "run.oci.keep_original_groups"));

	return value && strcmp(value, "1") == 0;
}

/* Be root of the user namespace: what is made from now on belongs to ids that it maps. */
static int become_root(const struct oci_spec *s, const struct prepared *p, struct err *err)
{
	CLEAN_FREE char *groups = NULL;

	if (!p->user)
		return 0;
	groups = fd_read_file(AT_FDCWD, "/proc/self/setgroups", 16, NULL, NULL);
	if (!process_keeps_groups(s) && groups && strncmp(groups, "deny", 4) != 0 && setgroups(0, NULL) < 0 &&
	    errno != EPERM)
		return err_sys(err, errno, "cannot drop the groups of the host");
	if (setresgid(0, 0, 0) < 0 && errno != EINVAL)
		return err_sys(err, errno, "cannot become group 0 of the user namespace");
	if (setresuid(0, 0, 0) < 0 && errno != EINVAL)
		return err_sys(err, errno, "cannot become user 0 of the user namespace");
	return 0;
}

static int enter_namespaces(struct container *c, struct prepared *p, struct err *err)
{
	const struct oci_spec *s = c->config.spec;
	int r = 0;

	if (!p->helper && ((r = namespaces_join(s, p, true, err)) < 0 || (r = namespaces_join(s, p, false, err)) < 0))
		return r;
	if ((r = become_root(s, p, err)) < 0)
		return r;
	if (s->namespaces & CLONE_NEWNET && (r = loopback_up(err)) < 0)
		return r;
	if (s->namespaces & CLONE_NEWCGROUP && unshare(CLONE_NEWCGROUP) < 0)
		return err_sys(err, errno, "cannot make a cgroup namespace");
	if (s->hostname && sethostname(s->hostname, strlen(s->hostname)) < 0)
		return err_sys(err, errno, "cannot set the hostname '%s'", s->hostname);
	if (s->domainname && setdomainname(s->domainname, strlen(s->domainname)) < 0)
		return err_sys(err, errno, "cannot set the domain name '%s'", s->domainname);
	return 0;
}

static bool has_hooks(const struct oci_spec *s, enum oci_hook_kind kind)
{
	return s->hooks.kinds[kind].count;
}

/* Those of the host are run by the creator, those of the container here; all before the host's root goes. */
static int run_hooks(struct container *c, int sync, struct err *err)
{
	const struct oci_spec *s = c->config.spec;
	int r;

	if (has_hooks(s, OCI_HOOK_PRESTART) || has_hooks(s, OCI_HOOK_CREATE_RUNTIME)) {
		r = report_send(sync, REPORT_HOOKS, 0, -1);
		if (r == 0)
			r = report_wait_go(sync);
		if (r < 0)
			return err_sys(err, -r, "the container's creator is gone");
	}
	return container_run_hooks(&c->config, OCI_HOOK_CREATE_CONTAINER, "creating", getpid(), err);
}

static int set_up(struct container *c, struct prepared *p, int sync, int *console, int *label, struct err *err)
{
	const struct oci_spec *s = c->config.spec;
	int r = 0, root = -1;

	/* without a user namespace it can enter by itself, which costs less than to be moved */
	if (!p->user && !p->helper && c->cgroup && (r = cgroup_enter(c->cgroup, err)) < 0)
		return r;
	if ((r = report_wait_go(sync)) < 0)
		return err_sys(err, -r, "the container's creator is gone");
	if (setsid() < 0)
		return err_sys(err, errno, "cannot make a session");
	if ((r = join_keyring(&c->config, err)) < 0 || (r = enter_namespaces(c, p, err)) < 0)
		return r;
	/* after the user changed, which resets it */
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		return err_sys(err, errno, "cannot forbid to trace the set-up");
	if ((r = labels_open(&s->process, label, err)) < 0 ||
	    (r = rootfs_build(&c->config, p, c->cgroup, console, &root, err)) < 0)
		return r;
	if (s->personality_given && personality(s->personality) < 0)
		r = err_sys(err, errno, "cannot set linux.personality");
	if (r == 0)
		r = run_hooks(c, sync, err);
	if (r == 0)
		r = rootfs_pivot(&c->config, root, err);
	(void)close(root);
	return r;
}

struct wait_start {
	struct container *c;
	int *sync;
	int console;
};

/* Tell that all is ready and wait for the word to start, from the creator or at the socket. */
static int wait_start(void *arg, struct err *err)
{
	struct wait_start *w = arg;
	const struct container_config *config = &w->c->config;
	int r = report_send(*w->sync, REPORT_READY, 0, w->console);

	if (w->console >= 0)
		(void)close(w->console);
	if (r == 0 && config->start_socket > 0) {
		(void)close(*w->sync);
		do
			*w->sync = accept4(config->start_socket, NULL, NULL, SOCK_CLOEXEC);
		while (*w->sync < 0 && errno == EINTR);
		r = *w->sync < 0 ? -errno : 0;
	}
	if (r == 0)
		r = report_wait_go(*w->sync);
	if (r < 0)
		return err_sys(err, -r, "the container was not started");
	return container_run_hooks(config, OCI_HOOK_START_CONTAINER, "created", getpid(), err);
}

_Noreturn void init_main(struct container *c, struct prepared *p, int sync)
{
	static const struct oci_capabilities none;
	const struct oci_process *process = &c->config.spec->process;
	struct err err = ERR_INIT;
	enum container_exec_failure why = CONTAINER_EXEC_OTHER;
	struct wait_start w = { .c = c, .sync = &sync, .console = -1 };
	struct process_exec e = { .process = process,
				  .capabilities = &none,
				  .bpf = c->config.seccomp_bpf,
				  .bpf_size = c->config.seccomp_bpf_size,
				  .seccomp_flags = c->config.seccomp_flags,
				  .check_program = c->config.check_program,
				  .keep_groups = process_keeps_groups(c->config.spec),
				  .wait_start = wait_start,
				  .arg = &w };
	int listener = c->config.start_socket > 0 ? c->config.start_socket : -1;
	int *const keep[] = { &sync, &w.console, &listener, &e.label, &e.listener };
	CLEAN_FREE char *message = seccomp_notify_message(&c->config, "created");
	int r;

	e.listener = message ? c->config.seccomp_socket : -1;
	e.listener_message = message;

	if (process->terminal)
		c->config.stdio[0] = c->config.stdio[1] = c->config.stdio[2] = -1;
	if (set_up(c, p, sync, &w.console, &e.label, &err) < 0)
		report_fail(sync, why, &err);
	r = settle(c->config.stdio, c->config.preserve_fds, keep, ARRAY_LEN(keep));
	c->config.start_socket = listener;
	if (r < 0) {
		(void)err_sys(&err, -r, "cannot set up stdin, stdout and stderr");
		report_fail(sync, why, &err);
	}
	if (process->terminal && process_console(w.console, process, &err) < 0)
		report_fail(sync, why, &err);
	if (process_exec(&e, &why, &err) < 0)
		report_fail(sync, why, &err);
	_exit(127);
}
