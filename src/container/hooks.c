/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hooks (runtime-spec, config.md): programs with the container's state as JSON on stdin. What a hook writes to
 * stderr is told when it fails; one that takes longer than its timeout is killed.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "container/internal.h"

char *container_state_text(const struct container_config *c, const char *status, pid_t pid)
{
	CLEAN_JSON json_t *state =
		json_pack("{s:s, s:s, s:s, s:s, s:s}", "ociVersion", c->spec->oci_version, "id", c->id, "status",
			  status, "bundle", c->bundle ? c->bundle : "", "root", c->rootfs ? c->rootfs : "");

	if (!state || (pid && json_object_set_new(state, "pid", json_integer(pid)) < 0) ||
	    (c->spec->annotations && json_object_set(state, "annotations", c->spec->annotations) < 0))
		return NULL;
	return json_text(state);
}

/* A file, not a pipe: a hook that does not read must not make us wait. */
static int state_file(const char *text, struct err *err)
{
	CLEAN_FD int fd = memfd_create("state", MFD_CLOEXEC);

	if (fd < 0 || fd_write_full(fd, text, strlen(text)) < 0)
		return err_sys(err, errno, "cannot write the state for a hook");
	return take_fd(&fd);
}

static _Noreturn void hook_main(const struct oci_hook *h, const char *text, int messages)
{
	sigset_t none;
	struct err err = ERR_INIT;
	int in = state_file(text, &err);

	(void)sigemptyset(&none);
	if (in < 0 || lseek(in, 0, SEEK_SET) < 0 || dup2(in, 0) < 0 || dup2(messages, 2) < 0 ||
	    sigprocmask(SIG_SETMASK, &none, NULL) < 0 || syscall(SYS_close_range, 3U, ~0U, 4U /* CLOEXEC */) < 0)
		_exit(126);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)execve(h->path, h->args, h->env_given ? h->env : environ);
	(void)dprintf(2, "%s", strerror(errno));
	_exit(127);
}

static void cleanup_pidfd(const int *fd)
{
	cleanup_fd(fd);
}

/* The end of stderr, for the error's sentence. */
static void read_messages(int fd, char *text, size_t size)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t n = 0;
	ssize_t got;

	while (n + 1 < size && poll(&p, 1, 0) > 0 && (got = read(fd, text + n, size - 1 - n)) > 0)
		n += (size_t)got;
	while (n && (text[n - 1] == '\n' || text[n - 1] == ' '))
		n--;
	text[n] = 0;
}

static int run_one(const struct oci_hook *h, const char *kind, const char *state, struct err *err)
{
	char messages[256] = "";
	CLEAN(cleanup_pidfd) int pidfd = -1;
	CLEAN_FD int in = -1, out = -1;
	int pipe_[2], status = 0, ready;
	struct pollfd p;
	pid_t pid;

	if (pipe2(pipe_, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_sys(err, errno, "cannot make a pipe for the %s hook %s", kind, h->path);
	in = pipe_[0];
	out = pipe_[1];
	(void)fcntl(out, F_SETFL, 0);
	pid = clone_process(0, &pidfd, -1);
	if (pid == 0)
		hook_main(h, state, out);
	if (pid < 0)
		return err_sys(err, errno, "cannot run the %s hook %s", kind, h->path);
	p = (struct pollfd){ .fd = pidfd, .events = POLLIN };
	do
		ready = poll(&p, 1, h->timeout ? h->timeout * 1000 : -1);
	while (ready < 0 && errno == EINTR);
	if (ready == 0) {
		process_reap(pid, pidfd);
		return err_set(err, ETIMEDOUT, "the %s hook %s was killed after its timeout of %d s", kind, h->path,
			       h->timeout);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	read_messages(in, messages, sizeof(messages));
	return err_set(err, EIO, "error running hook: the %s hook %s %s %d%s%s", kind, h->path,
		       WIFEXITED(status) ? "ended with exit status" : "was killed by signal",
		       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), *messages ? ": " : "", messages);
}

int container_run_hooks(const struct container_config *config, enum oci_hook_kind kind, const char *status, pid_t pid,
			struct err *err)
{
	const struct oci_hook_list *l = config->spec ? &config->spec->hooks.kinds[kind] : NULL;
	CLEAN_FREE char *state = NULL;
	struct err first = ERR_INIT;

	if (!l || !l->count)
		return 0;
	state = container_state_text(config, status, pid);
	if (!state)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < l->count; i++) {
		struct err e = ERR_INIT;

		if (run_one(&l->hooks[i], oci_hook_name(kind), state, &e) == 0)
			continue;
		/* of those that run at the end all have their turn */
		if (kind != OCI_HOOK_POSTSTOP) {
			*err = e;
			return -e.code;
		}
		if (!first.code)
			first = e;
	}
	if (first.code)
		*err = first;
	return -first.code;
}
