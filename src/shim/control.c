/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control protocol (ARCHITECTURE.md, "Engine to shim"): the engine's socketpair and
 * whoever connects to shim.sock as uid 0. Every connection may send every request; events
 * go to all of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/msg.h"
#include "link/link.h"
#include "shim/backend.h"
#include "shim/logfile.h"
#include "shim/stdio.h"

#define EARLY_MAX (4U << 20)

struct conn {
	struct shim *shim;
	struct conn *next;
	uint64_t number;
	int fd;
	struct loop_source *source;
	struct msg_stream in;
	bool dead;
};

struct call {
	struct shim *shim;
	struct shim_reply *reply;
	const json_t *params;
	int *fds; /* a handler that keeps one sets it to -1 */
	size_t nfds;
};

json_t *shim_exit_json(const struct shim_exit *e)
{
	json_t *error = json_string(e->error);

	return json_pack("{s:i, s:b, s:o, s:I}", "exit_code", e->code, "oom_killed", e->oom_killed, "error",
			 error ? error : json_string("(not UTF-8)"), "finished_at_ns", (json_int_t)e->finished_at_ns);
}

static void conn_close(struct conn *c)
{
	if (c->dead)
		return;
	c->dead = true;
	loop_remove(c->source);
	c->source = NULL;
	msg_stream_fini(&c->in);
	close_fd(&c->fd);
}

static void bury_conns(struct shim *sh)
{
	struct conn **at = &sh->conns, *c;

	while ((c = *at)) {
		if (!c->dead) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		free(c);
	}
}

bool control_connected(const struct shim *sh)
{
	for (const struct conn *c = sh->conns; c; c = c->next) {
		if (!c->dead)
			return true;
	}
	return false;
}

static void conn_send(struct conn *c, json_t *message)
{
	struct err err = ERR_INIT;

	if (msg_send(c->fd, message, NULL, 0, &err) < 0) {
		if (err.code != EPIPE && err.code != ECONNRESET) /* an engine that has heard enough, or has ended */
			log_warn("%s", err.msg);
		conn_close(c);
	}
}

static void answer(struct shim_reply *r, json_t *message)
{
	for (struct conn *c = r->shim->conns; c; c = c->next) {
		if (c->number == r->conn && !c->dead)
			conn_send(c, message);
	}
	json_decref(message);
	free(r);
}

void control_reply(struct shim_reply *r, json_t *result)
{
	answer(r, msg_result(r->id, result));
}

void control_fail(struct shim_reply *r, const struct err *err)
{
	answer(r, msg_error(r->id, err));
}

void control_event(struct shim *sh, const char *event, json_t *params)
{
	CLEAN_JSON json_t *message = msg_event(event, params);

	for (struct conn *c = sh->conns; c; c = c->next) {
		if (!c->dead)
			conn_send(c, message);
	}
}

static void fail(struct call *k, int code, const char *text)
{
	struct err err = ERR_INIT;

	(void)err_set(&err, code, "%s", text);
	control_fail(k->reply, &err);
}

static void on_hello(struct call *k)
{
	struct shim *sh = k->shim;
	const char *state = sh->state == SHIM_EXITED ? "exited" : sh->state == SHIM_RUNNING ? "running" : "new";

	control_reply(k->reply, json_pack("{s:i, s:s, s:s, s:i, s:o}", "version", 1, "id", sh->id, "state", state,
					  "pid", (int)sh->pid, "exit",
					  sh->state == SHIM_EXITED ? shim_exit_json(&sh->exit) : json_null()));
}

static int open_log(struct session *s, const json_t *log, struct err *err)
{
	const char *driver = json_str(log, "driver", "none"), *path = json_str(log, "path", NULL);

	if (!strcmp(driver, "none") || !*driver)
		return 0;
	if (strcmp(driver, "json-file") != 0)
		return err_set(err, EINVAL, "the shim does not know the log driver \"%s\"", driver);
	if (!path)
		return err_set(err, EINVAL, "the json-file log has no path");
	s->log = logfile_open(path, json_int(log, "max_size", 0), (int)json_int(log, "max_file", 1), err);
	return s->log ? 0 : -err->code;
}

static void on_start(struct call *k)
{
	struct shim *sh = k->shim;
	const char *isolation = json_str(k->params, "isolation", "process");
	bool seccomp = json_bool(k->params, "seccomp", false);
	int64_t netns = json_int(k->params, "netns", -1);
	struct err err = ERR_INIT;

	if (sh->state != SHIM_NEW) {
		fail(k, EALREADY, "the container was started already");
		return;
	}
	if (seccomp && !k->nfds) {
		fail(k, EINVAL, "start: the seccomp program's descriptor is missing");
		return;
	}
	if (netns >= (int64_t)k->nfds) {
		fail(k, EINVAL, "start: the network namespace's descriptor is missing");
		return;
	}
	if (!strcmp(isolation, "process"))
		sh->backend = &backend_process;
	else if (!strcmp(isolation, "hyperv"))
		sh->backend = &backend_hyperv;
	if (!sh->backend) {
		fail(k, EINVAL, "start: the isolation is neither \"process\" nor \"hyperv\"");
		return;
	}
	if (open_log(sh->main, json_object_get(k->params, "log"), &err) < 0) {
		shim_start_failed(sh, &err, k->reply);
		return;
	}
	sh->stdin_open = json_bool(k->params, "stdin_open", false);
	sh->stdin_once = json_bool(k->params, "stdin_once", false);
	sh->main->close_stdin = sh->stdin_once;
	sh->state = SHIM_STARTING;
	sh->netns = netns >= 0 ? k->fds[netns] : -1;
	sh->backend->start(sh, k->params, seccomp ? k->fds[0] : -1, k->reply);
}

static struct client_options client_options(const json_t *params)
{
	return (struct client_options){
		.in = json_bool(params, "stdin", false),
		.out = json_bool(params, "stdout", false),
		.err = json_bool(params, "stderr", false),
		.mux = json_bool(params, "mux", false),
		.detach_keys = json_str(params, "detach_keys", NULL),
		.replay = json_object_get(params, "log_offset") != NULL,
		.log_inode = (uint64_t)json_int(params, "log_inode", 0),
		.log_offset = json_int(params, "log_offset", 0),
	};
}

/* Bytes that the client sent before it was attached: base64 in "early". */
static int early_input(const json_t *params, unsigned char **bytes, struct client_options *o, struct err *err)
{
	const char *text = json_str(params, "early", NULL);
	int rc = text ? link_base64_decode(text, EARLY_MAX, bytes, &o->early_len) : 0;

	o->early = *bytes;
	return rc < 0 ? err_set(err, EINVAL, "attach: the early input is not valid") : 0;
}

static void on_attach(struct call *k)
{
	struct client_options o = client_options(k->params);
	CLEAN_FREE unsigned char *early = NULL;
	struct err err = ERR_INIT;

	if (k->nfds != 1) {
		fail(k, EINVAL, "attach: the client's socket is missing");
		return;
	}
	if (early_input(k->params, &early, &o, &err) < 0 ||
	    session_attach(k->shim->main, take_fd(&k->fds[0]), &o, &err) < 0)
		control_fail(k->reply, &err);
	else
		control_reply(k->reply, NULL);
}

static struct session *find_exec(struct shim *sh, const char *exec_id)
{
	for (struct session *s = sh->execs; s; s = s->next) {
		if (!strcmp(s->exec_id, exec_id))
			return s;
	}
	return NULL;
}

/* The session that exec_id names, or the container's own. NULL: answered with an error. */
static struct session *named_session(struct call *k)
{
	const char *exec_id = json_str(k->params, "exec_id", NULL);
	struct session *s = exec_id && *exec_id ? find_exec(k->shim, exec_id) : k->shim->main;

	if (!s || s->exited) {
		fail(k, ESRCH, s ? "the process has ended" : "no such exec");
		return NULL;
	}
	return s;
}

static void on_exec(struct call *k)
{
	struct shim *sh = k->shim;
	struct client_options o = client_options(k->params);
	const char *exec_id = json_str(k->params, "exec_id", NULL);
	CLEAN_FREE unsigned char *early = NULL;
	struct err err = ERR_INIT;
	struct session *s;

	if (!exec_id || !*exec_id || find_exec(sh, exec_id)) {
		fail(k, exec_id && *exec_id ? EEXIST : EINVAL, "exec: the exec_id is missing or in use");
		return;
	}
	s = session_new(sh, exec_id, &err);
	if (!s) {
		control_fail(k->reply, &err);
		return;
	}
	s->close_stdin = true;
	if (early_input(k->params, &early, &o, &err) < 0 ||
	    (k->nfds && session_attach(s, take_fd(&k->fds[0]), &o, &err) < 0)) {
		session_free(s);
		control_fail(k->reply, &err);
		return;
	}
	s->next = sh->execs;
	sh->execs = s;
	sh->backend->exec(sh, s, k->params, k->reply);
}

static void on_resize(struct call *k)
{
	struct session *s = named_session(k);
	int64_t height = json_int(k->params, "height", 0), width = json_int(k->params, "width", 0);

	if (!s)
		return;
	if (height < 0 || height > 65535 || width < 0 || width > 65535)
		fail(k, EINVAL, "the size of the terminal is out of range");
	else if (!s->tty)
		fail(k, ENOTTY, "the process has no terminal");
	else
		k->shim->backend->resize(k->shim, s, (unsigned)height, (unsigned)width, k->reply);
}

static void on_signal(struct call *k)
{
	struct session *s = named_session(k);
	int64_t sig = json_int(k->params, "signal", 0);

	if (!s)
		return;
	if (sig < 1 || sig > 64)
		fail(k, EINVAL, "signal: no such signal");
	else
		k->shim->backend->signal(k->shim, s, (int)sig, k->reply);
}

static void on_pause(struct call *k)
{
	k->shim->backend->pause(k->shim, true, k->reply);
}

static void on_resume(struct call *k)
{
	k->shim->backend->pause(k->shim, false, k->reply);
}

static void on_stats(struct call *k)
{
	k->shim->backend->stats(k->shim, k->reply);
}

static void on_pids(struct call *k)
{
	k->shim->backend->pids(k->shim, k->reply);
}

static void on_update(struct call *k)
{
	k->shim->backend->update(k->shim, k->params, k->reply);
}

static void on_shutdown(struct call *k)
{
	if (k->shim->state == SHIM_RUNNING || k->shim->state == SHIM_STARTING) {
		fail(k, EBUSY, "the container still runs");
		return;
	}
	control_reply(k->reply, NULL);
	shim_end(k->shim);
}

static const struct method {
	const char *name;
	bool running; /* only while the container runs */
	void (*fn)(struct call *k);
} methods[] = {
	{ "hello", false, on_hello }, { "start", false, on_start },  { "attach", false, on_attach },
	{ "exec", true, on_exec },    { "resize", true, on_resize }, { "signal", true, on_signal },
	{ "pause", true, on_pause },  { "resume", true, on_resume }, { "stats", true, on_stats },
	{ "pids", true, on_pids },    { "update", true, on_update }, { "shutdown", false, on_shutdown },
};

static void dispatch(struct conn *c, const json_t *message, int *fds, size_t nfds)
{
	struct shim *sh = c->shim;
	const char *name = json_str(message, "method", "");
	struct call k = { .shim = sh, .params = json_object_get(message, "params"), .fds = fds, .nfds = nfds };

	k.reply = malloc(sizeof(*k.reply));
	if (!k.reply) {
		conn_close(c);
		return;
	}
	*k.reply = (struct shim_reply){ .shim = sh, .conn = c->number, .id = json_int(message, "id", 0) };
	for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
		if (strcmp(methods[i].name, name) != 0)
			continue;
		if (methods[i].running && sh->state != SHIM_RUNNING)
			fail(&k, ESRCH, "the container is not running");
		else
			methods[i].fn(&k);
		return;
	}
	fail(&k, ENOSYS, "the shim does not know this request");
}

static void conn_event(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct conn *c = arg;
	struct shim *sh = c->shim;

	while (!c->dead) {
		CLEAN_JSON json_t *message = NULL;
		struct err err = ERR_INIT;
		int fds[FD_PASS_MAX], rc;
		size_t nfds = 0;

		rc = msg_recv(&c->in, &message, fds, &nfds, &err);
		if (rc == -EAGAIN)
			break;
		if (rc <= 0) {
			if (rc < 0 && rc != -ECONNRESET)
				log_warn("%s", err.msg);
			conn_close(c);
			break;
		}
		dispatch(c, message, fds, nfds);
		for (size_t i = 0; i < nfds; i++)
			close_fd(&fds[i]);
	}
	if (!c->dead && !c->in.in.len)
		buf_free(&c->in.in); /* 64 KiB that an idle shim does not need */
	bury_conns(sh);
	shim_maybe_end(sh);
}

int control_add(struct shim *sh, int fd, struct err *err)
{
	CLEAN_FD int sock = fd;
	struct conn *c = calloc(1, sizeof(*c));
	int rc = c ? fd_set_nonblock(sock, true) : -ENOMEM;

	if (!rc)
		rc = fd_set_cloexec(sock, true);
	if (rc < 0) {
		free(c);
		return err_sys(err, -rc, "accept a control connection");
	}
	c->source = loop_add_fd(sh->loop, sock, EPOLLIN, conn_event, c, err);
	if (!c->source) {
		free(c);
		return -err->code;
	}
	c->shim = sh;
	c->number = ++sh->next_conn;
	c->fd = take_fd(&sock);
	msg_stream_init(&c->in, c->fd, true);
	c->next = sh->conns;
	sh->conns = c;
	return 0;
}

static void on_connection(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct shim *sh = arg;
	CLEAN_FD int sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);
	struct err err = ERR_INIT;

	if (sock < 0)
		return;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.uid != 0) {
		log_warn("a connection of uid %u was refused", peer.uid);
		return;
	}
	if (control_add(sh, take_fd(&sock), &err) < 0)
		log_warn("%s", err.msg);
}

/* The socket is made before anything else is, so that an engine that restarts finds it. */
int control_listen(struct shim *sh, struct err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	CLEAN_FD int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	CLEAN_FD int dir = open(sh->run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (sock < 0 || dir < 0)
		return err_sys(err, errno, "create shim.sock in %s", sh->run_dir);
	/* Through the folder's descriptor: a path may be longer than sun_path (108 bytes, unix(7)). */
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/shim.sock", dir);
	if (unlink(addr.sun_path) < 0 && errno != ENOENT)
		return err_sys(err, errno, "remove the old shim.sock in %s", sh->run_dir);
	if (bind(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0 || chmod(addr.sun_path, 0600) < 0 ||
	    listen(sock, 8) < 0)
		return err_sys(err, errno, "listen on shim.sock in %s", sh->run_dir);
	sh->listener_source = loop_add_fd(sh->loop, sock, EPOLLIN, on_connection, sh, err);
	if (!sh->listener_source)
		return -err->code;
	sh->listener = take_fd(&sock);
	return 0;
}

void control_close_all(struct shim *sh)
{
	for (struct conn *c = sh->conns; c; c = c->next)
		conn_close(c);
	bury_conns(sh);
	loop_remove(sh->listener_source);
	sh->listener_source = NULL;
	close_fd(&sh->listener);
}
