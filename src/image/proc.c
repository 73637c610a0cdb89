/* SPDX-License-Identifier: Apache-2.0 */
/* Start, read and reap a worker. */
#include "image/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"

#define REPORT_MAX (128U << 20) /* bytes of one line: a result holds the configs of all images of an archive */

struct worker_proc {
	struct loop_source *watch;
	int pipe;
	pid_t pid;
	struct buf in;
	size_t scanned;
	worker_line_fn line;
	worker_end_fn end;
	void *arg;
	json_t *result;
	struct err err;
	bool over; /* a result or an error came */
};

void worker_kill(struct worker_proc *p)
{
	if (!p)
		return;
	loop_remove(p->watch);
	close_fd(&p->pipe);
	if (p->pid > 0) {
		(void)kill(p->pid, SIGKILL);
		while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	buf_free(&p->in);
	json_decref(p->result);
	free(p);
}

static void take_line(struct worker_proc *p, const char *text, size_t n)
{
	CLEAN_JSON json_t *line = json_parse(text, n, "walnut-worker's report", &p->err);
	const json_t *e = json_object_get(line, "error");

	if (p->over)
		return;
	if (!line) {
		p->over = true;
	} else if (e) {
		p->over = true;
		(void)err_set(&p->err, (int)json_int(e, "code", EIO), "%s", json_str(e, "message", "unknown"));
		if (p->err.code <= 0 || p->err.code > 4095)
			p->err.code = EIO;
	} else if (json_object_get(line, "result")) {
		p->over = true;
		p->result = json_incref(json_object_get(line, "result"));
	} else if (p->line) {
		p->line(p->arg, line);
	}
}

static void finish(struct worker_proc *p)
{
	loop_remove(p->watch);
	p->watch = NULL;
	(void)kill(p->pid, SIGKILL);
	while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
		;
	p->pid = 0;
	if (!p->over)
		(void)err_set(&p->err, EIO, "walnut-worker ended without a result (it crashed or was killed)");
	p->end(p->arg, p->err.code ? NULL : p->result, p->err.code ? &p->err : NULL);
	worker_kill(p);
}

static void on_pipe(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct worker_proc *p = arg;
	ssize_t n = buf_read(&p->in, fd, 65536);

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		finish(p);
		return;
	}
	for (char *nl; (nl = memchr(buf_bytes(&p->in) + p->scanned, '\n', p->in.len - p->scanned));) {
		size_t len = (size_t)(nl - buf_bytes(&p->in));

		take_line(p, buf_bytes(&p->in), len);
		buf_consume(&p->in, len + 1);
		p->scanned = 0;
	}
	p->scanned = p->in.len;
}

/* child - put descriptors at 0, 1, 3, 4, 5, close the rest, become the program. */
static void child(const struct image_store *s, const struct worker_spec *spec, int report)
{
	const int from[] = { spec->in, spec->out, report, spec->dir, spec->plan }, to[] = { 0, 1, 3, 4, 5 };
	const char *program = spec->network ? s->fetcher : s->worker;
	char uid[16], gid[16], max[32];
	int high[5];
	sigset_t none;

	for (int i = 0; i < 5; i++)
		high[i] = from[i] >= 0 ? fcntl(from[i], F_DUPFD, 20) : open("/dev/null", O_RDWR);
	for (int i = 0; i < 5; i++) {
		if (high[i] < 0 || dup2(high[i], to[i]) < 0)
			_exit(126);
	}
	if (close_range(6, ~0U, 0) < 0)
		_exit(126);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)snprintf(uid, sizeof(uid), "%u", s->uid);
	(void)snprintf(gid, sizeof(gid), "%u", s->gid);
	(void)snprintf(max, sizeof(max), "%llu", (unsigned long long)s->max_layer);
	(void)execl(program, spec->network ? "walnut-fetch" : "walnut-worker", spec->verb, uid, gid, max, (char *)NULL);
	_exit(127);
}

struct worker_proc *worker_spawn(struct image_store *s, struct loop *l, const struct worker_spec *spec,
				 worker_line_fn line, worker_end_fn end, void *arg, struct err *err)
{
	const char *program = spec->network ? s->fetcher : s->worker;
	struct worker_proc *p = calloc(1, sizeof(*p));
	int fds[2];

	if (!p || access(program, X_OK) < 0 || pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) {
		(void)err_sys(err, p ? errno : ENOMEM, "cannot start %s", program);
		free(p);
		return NULL;
	}
	*p = (struct worker_proc){ .pipe = fds[0], .line = line, .end = end, .arg = arg, .in.limit = REPORT_MAX };
	(void)!fd_set_nonblock(fds[1], false);
	p->pid = fork();
	if (p->pid == 0)
		child(s, spec, fds[1]);
	(void)close(fds[1]);
	if (p->pid < 0)
		(void)err_sys(err, errno, "cannot start %s", program);
	else
		p->watch = loop_add_fd(l, p->pipe, EPOLLIN, on_pipe, p, err);
	if (!p->watch) {
		worker_kill(p);
		return NULL;
	}
	return p;
}

int worker_plan(const json_t *plan, struct err *err)
{
	CLEAN_FREE char *text = json_text(plan);
	CLEAN_FD int fd = memfd_create("plan", MFD_CLOEXEC);

	if (!text || fd < 0 || fd_write_full(fd, text, strlen(text)) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return err_sys(err, text ? errno : ENOMEM, "cannot write a worker's plan");
	return take_fd(&fd);
}
