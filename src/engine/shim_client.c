/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shim, seen from the engine: started with one end of a socketpair as descriptor 3, or found
 * again on its own socket after the engine was restarted. Requests are answered by id.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/msg.h"
#include "engine/container.h"
#include "link/link.h"

struct shim_call {
	struct shim_call *next;
	int64_t id;
	shim_answer_fn fn;
	void *arg;
};

struct shim_client {
	struct engine_container *container; /* NULL once let go */
	struct loop *loop;
	int fd;
	pid_t pid; /* our child, or 0 */
	struct loop_source *source;
	struct msg_stream stream;
	struct shim_call *calls;
	int64_t last_id;
	int depth;
};

/* A child that is gone from our lists: reaped by polling, since walnut-worker's owner waits for its own. */
struct shim_reaper {
	pid_t pid;
	int tries;
};

static void shim_reap(struct loop *l, void *arg)
{
	struct shim_reaper *r = arg;

	if (waitpid(r->pid, NULL, WNOHANG) || ++r->tries > 3000 ||
	    !loop_add_timer(l, r->tries < 20 ? 20 : 1000, shim_reap, r))
		free(r);
}

static void shim_reap_later(struct shim_client *s)
{
	struct shim_reaper *r;

	if (s->pid <= 0 || !(r = calloc(1, sizeof(*r))))
		return;
	r->pid = s->pid;
	s->pid = 0;
	shim_reap(s->loop, r);
}

static void shim_dispose(struct shim_client *s)
{
	while (s->calls) {
		struct shim_call *call = s->calls;

		s->calls = call->next;
		free(call);
	}
	loop_remove(s->source);
	s->source = NULL;
	msg_stream_fini(&s->stream);
	close_fd(&s->fd);
	shim_reap_later(s);
	free(s);
}

static void shim_fail_calls(struct shim_client *s)
{
	struct err err = ERR_INIT;

	(void)err_set(&err, EPIPE, "the container's shim ended");
	while (s->calls) {
		struct shim_call *call = s->calls;

		s->calls = call->next;
		if (call->fn)
			call->fn(NULL, &err, call->arg);
		free(call);
	}
}

static void shim_answer(struct shim_client *s, json_t *message)
{
	struct shim_call **p = &s->calls;
	struct err err = ERR_INIT;

	while (*p && (*p)->id != json_int(message, "id", -1))
		p = &(*p)->next;
	if (!*p)
		return;
	struct shim_call *call = *p;
	int rc = msg_failed(message, &err);

	*p = call->next;
	if (call->fn)
		call->fn(rc ? NULL : json_object_get(message, "result"), rc ? &err : NULL, call->arg);
	free(call);
}

static void shim_readable(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct shim_client *s = arg;
	struct err err = ERR_INIT;
	int rc = 1;

	s->depth++;
	while (s->container) {
		CLEAN_JSON json_t *message = NULL;

		rc = msg_recv(&s->stream, &message, NULL, NULL, &err);
		if (rc != 1)
			break;
		const char *event = json_str(message, "event", NULL);

		if (event)
			engine_container_on_shim_event(s->container, event, json_object_get(message, "params"));
		else
			shim_answer(s, message);
	}
	s->depth--;
	if (!s->container) {
		if (!s->depth)
			shim_dispose(s);
		return;
	}
	if (rc == -EAGAIN)
		return;
	if (rc < 0)
		log_warn("shim of %.12s: %s", s->container->id, err.msg[0] ? err.msg : strerror(-rc));
	struct engine_container *c = s->container;

	s->depth++;
	c->shim = NULL;
	shim_fail_calls(s);
	s->container = NULL;
	s->depth--;
	shim_dispose(s);
	engine_container_on_shim_gone(c);
}

static struct shim_client *shim_client_new(struct engine_container *c, int *fd, struct err *err)
{
	struct shim_client *s = calloc(1, sizeof(*s));

	if (!s || fd_set_nonblock(*fd, true)) {
		free(s);
		(void)err_sys(err, ENOMEM, "talk to the shim");
		return NULL;
	}
	s->container = c;
	s->loop = c->engine->loop;
	s->fd = take_fd(fd);
	msg_stream_init(&s->stream, s->fd, true);
	s->source = loop_add_fd(s->loop, s->fd, EPOLLIN, shim_readable, s, err);
	if (!s->source) {
		shim_dispose(s);
		return NULL;
	}
	return s;
}

static _Noreturn void shim_child(const char *path, struct engine_container *c, int sock)
{
	char *const argv[] = { (char *)"walnut-shim", (char *)"--id", c->id, (char *)"--run-dir", c->run_dir,
			       (char *)"--data-dir",  c->data_dir,    NULL };
	sigset_t none;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	if (sock == 3) {
		(void)fcntl(3, F_SETFD, 0);
	} else if (dup2(sock, 3) < 0) {
		_exit(125);
	}
	(void)execv(path, argv);
	_exit(125);
}

int shim_client_spawn(struct engine_container *c, struct shim_client **out, struct err *err)
{
	CLEAN_FREE char *path = engine_find_program(c->engine, "walnut-shim");
	CLEAN_FD int ours = -1;
	CLEAN_FD int theirs = -1;
	int pair[2];

	if (!path)
		return err_set(err, EIO, "walnut-shim is not installed: it is looked for beside walnutd and in PATH");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_sys(err, errno, "start the shim");
	ours = pair[0];
	theirs = pair[1];
	if (fd_mkdir_p(c->run_dir, 0710, err))
		return -err->code;
	pid_t pid = vfork();

	if (pid < 0)
		return err_sys(err, errno, "start the shim");
	if (!pid)
		shim_child(path, c, theirs);
	struct shim_client *s = shim_client_new(c, &ours, err);

	if (!s)
		return -err->code;
	s->pid = pid;
	*out = s;
	return 0;
}

int shim_client_connect(struct engine_container *c, struct shim_client **out, struct err *err)
{
	CLEAN_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CLEAN_FD int dir = open(c->run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (fd < 0 || dir < 0)
		return err_sys(err, errno, "connect to the shim");
	/* through the folder's descriptor: a path may be longer than sun_path */
	(void)snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/shim.sock", dir);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)))
		return err_sys(err, errno, "connect to the shim");
	*out = shim_client_new(c, &fd, err);
	return *out ? 0 : -err->code;
}

void shim_client_call(struct shim_client *s, const char *method, json_t *params, const int *fds, size_t nfds,
		      shim_answer_fn fn, void *arg)
{
	struct shim_call *call = calloc(1, sizeof(*call));
	CLEAN_JSON json_t *message = msg_request(++s->last_id, method, params ? params : json_object());
	struct err err = ERR_INIT;

	if (!call || !message) {
		free(call);
		(void)err_sys(&err, ENOMEM, "ask the shim");
	} else if (!msg_send(s->fd, message, fds, nfds, &err)) {
		*call = (struct shim_call){ .next = s->calls, .id = s->last_id, .fn = fn, .arg = arg };
		s->calls = call;
		return;
	} else {
		free(call);
		(void)err_wrap(&err, "ask the container's shim");
	}
	if (fn)
		fn(NULL, &err, arg);
}

void shim_client_put_early(json_t *params, const struct buf *early)
{
	CLEAN_FREE char *text = early->len ? link_base64_encode(buf_bytes(early), early->len) : NULL;

	if (text)
		(void)json_object_set_new(params, "early", json_string(text));
}

void shim_client_free(struct shim_client *s)
{
	if (!s)
		return;
	s->container = NULL;
	if (s->depth)
		return; /* shim_readable disposes of it */
	shim_dispose(s);
}
