/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes between a process and its clients.
 *
 * Output: a chunk is read, written to the log, and given to each client: written at once
 * if its socket takes it, else queued. While a queue is over QUEUE_SOFT the process's
 * output is not read (so it feels the back-pressure, as with a pipe). A client that makes
 * no progress for STALL_MS while others are attached is dropped, so that it can not
 * stall them for ever; a lone client may wait as long as it likes (a pager).
 *
 * Input: a client's bytes are read while less than IN_SOFT waits to be written. A half-close
 * ends the process's stdin where that is wished. On a terminal the detach keys are looked for.
 *
 * Every descriptor has one epoll source (a terminal's is duplicated). A source whose events are
 * not wanted is removed, since epoll reports hang-ups in any case.
 */
#include "shim/stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "shim/logfile.h"

#define PIPE_SIZE  (1 << 20)
#define CHUNK      65536
#define QUEUE_SOFT (256U << 10)
#define QUEUE_HARD (8U << 20)
#define IN_SOFT    65536U
#define STALL_MS   30000
#define DRAIN_MS   2000

struct client {
	struct session *session;
	struct client *next;
	int fd;
	struct loop_source *source;
	uint32_t events;
	struct client_options want;
	bool read_ended, gone, closing, dead;
	bool moved; /* took bytes since the last look */
	unsigned char keys[DETACH_KEYS_MAX];
	unsigned nkeys, matched;
	struct buf queue;
};

static void client_event(struct loop *l, int fd, uint32_t events, void *arg);
static void in_event(struct loop *l, int fd, uint32_t events, void *arg);
static void out_event(struct loop *l, int fd, uint32_t events, void *arg);
static void update(struct session *s);

int detach_parse(const char *text, unsigned char keys[DETACH_KEYS_MAX], struct err *err)
{
	int n = 0;

	if (!text || !*text)
		text = "ctrl-p,ctrl-q";
	for (;;) {
		size_t len = strcspn(text, ",");
		unsigned char key;

		if (len == 0 && *text == ',' && (text[1] == ',' || !text[1]))
			len = 1; /* a comma itself */
		if (n == DETACH_KEYS_MAX)
			return err_set(err, EINVAL, "the detach keys are more than %d", DETACH_KEYS_MAX);
		if (len == 1) {
			key = (unsigned char)text[0];
		} else if (len == 6 && !strncasecmp(text, "ctrl-", 5)) {
			key = (unsigned char)text[5];
			if (key >= 'a' && key <= 'z')
				key = (unsigned char)(key - 'a' + 1);
			else if (key >= '@' && key <= '_')
				key = (unsigned char)(key - '@');
			else
				return err_set(err, EINVAL, "Unknown character: '%.*s'", (int)len, text);
		} else {
			return err_set(err, EINVAL, "Unknown character: '%.*s'", (int)len, text);
		}
		keys[n++] = key;
		text += len;
		if (!*text)
			return n;
		text++;
	}
}

struct session *session_new(struct shim *sh, const char *exec_id, struct err *err)
{
	struct session *s = calloc(1, sizeof(*s));

	if (s && exec_id && !(s->exec_id = strdup(exec_id))) {
		free(s);
		s = NULL;
	}
	if (!s) {
		(void)err_sys(err, ENOMEM, "make a session");
		return NULL;
	}
	s->shim = sh;
	s->in_fd = s->console = -1;
	for (int i = 0; i < 2; i++)
		s->out[i] = (struct stream){ .session = s, .type = i + 1, .fd = -1 };
	return s;
}

static void client_free(struct client *c)
{
	loop_remove(c->source);
	close_fd(&c->fd);
	buf_free(&c->queue);
	free(c);
}

static void close_source(struct loop_source **source, int *fd)
{
	loop_remove(*source);
	*source = NULL;
	close_fd(fd);
}

void session_free(struct session *s)
{
	struct client *c;

	if (!s)
		return;
	while ((c = s->clients)) {
		s->clients = c->next;
		client_free(c);
	}
	for (int i = 0; i < 2; i++)
		close_source(&s->out[i].source, &s->out[i].fd);
	close_source(&s->in_source, &s->in_fd);
	close_fd(&s->console);
	loop_cancel(s->drain);
	loop_cancel(s->stall);
	buf_free(&s->in);
	logfile_close(s->log);
	free(s->exec_id);
	free(s);
}

static int make_pipe(int *ours, int *theirs, bool ours_reads, struct err *err)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return err_sys(err, errno, "make a pipe");
	(void)fcntl(p[0], F_SETPIPE_SZ, PIPE_SIZE); /* the limit of an unprivileged user does not matter: only speed */
	*ours = ours_reads ? p[0] : p[1];
	*theirs = ours_reads ? p[1] : p[0];
	return 0;
}

int session_pipes(struct session *s, bool stdin_open, int child[3], struct err *err)
{
	CLEAN_FD int in = -1, out = -1, errs = -1;
	CLEAN_FD int cin = -1, cout = -1, cerrs = -1;
	int rc;

	if (stdin_open) {
		rc = make_pipe(&in, &cin, false, err);
		if (rc < 0)
			return rc;
	} else {
		cin = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (cin < 0)
			return err_sys(err, errno, "open /dev/null");
	}
	rc = make_pipe(&out, &cout, true, err);
	if (!rc)
		rc = make_pipe(&errs, &cerrs, true, err);
	if (!rc)
		rc = session_streams(s, take_fd(&in), take_fd(&out), take_fd(&errs), err);
	if (rc < 0)
		return rc;
	child[0] = take_fd(&cin);
	child[1] = take_fd(&cout);
	child[2] = take_fd(&cerrs);
	return 0;
}

int session_streams(struct session *s, int in, int out, int err_fd, struct err *err)
{
	int fds[3] = { in, out, err_fd }, rc;

	s->in_fd = in;
	s->stdin_open = in >= 0;
	s->out[0].fd = out;
	s->out[1].fd = err_fd;
	for (int i = 0; i < 3; i++) {
		rc = fds[i] < 0 ? 0 : fd_set_nonblock(fds[i], true);
		if (rc < 0)
			return err_sys(err, -rc, "prepare the streams");
	}
	return 0;
}

int session_console(struct session *s, int fd, struct err *err)
{
	int in = fcntl(fd, F_DUPFD_CLOEXEC, 3), out = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	s->tty = true;
	s->console = fd;
	if (in < 0 || out < 0) {
		(void)err_sys(err, errno, "duplicate the terminal");
		close_fd(&in);
		close_fd(&out);
		return -err->code;
	}
	return session_streams(s, in, out, -1, err);
}

/* Sets what epoll watches to @events; 0 removes the source. */
static void watch(struct session *s, struct loop_source **source, int fd, uint32_t events, loop_fd_fn fn, void *arg)
{
	struct err err = ERR_INIT;

	if (!events || fd < 0) {
		loop_remove(*source);
		*source = NULL;
	} else if (!*source) {
		*source = loop_add_fd(s->shim->loop, fd, events, fn, arg, &err);
		if (!*source)
			log_error("%s", err.msg);
	}
}

static void client_drop(struct client *c)
{
	loop_remove(c->source);
	c->source = NULL;
	close_fd(&c->fd);
	c->dead = true;
}

/* The peer has closed both ways: it takes no more output, but what it wrote is still read. */
static void client_gone(struct client *c)
{
	c->gone = true;
	loop_remove(c->source);
	c->source = NULL;
	buf_consume(&c->queue, c->queue.len);
	c->want.out = c->want.err = false;
}

static void client_flush(struct client *c)
{
	while (c->queue.len) {
		ssize_t put = send(c->fd, buf_bytes(&c->queue), c->queue.len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0 && errno == EAGAIN)
			return;
		if (put < 0) {
			client_gone(c);
			return;
		}
		c->moved = true;
		buf_consume(&c->queue, (size_t)put);
	}
	if (!c->queue.len && c->queue.size > QUEUE_SOFT)
		buf_free(&c->queue);
}

static void client_put(struct client *c, int type, const char *bytes, size_t n)
{
	unsigned char head[8] = { (unsigned char)type,
				  0,
				  0,
				  0,
				  (unsigned char)(n >> 24),
				  (unsigned char)(n >> 16),
				  (unsigned char)(n >> 8),
				  (unsigned char)n };
	struct iovec iov[2] = { { head, c->want.mux ? sizeof(head) : 0 }, { (void *)(uintptr_t)bytes, n } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	size_t done = 0;
	ssize_t put;

	if (c->dead || c->gone || c->closing)
		return;
	if (!c->queue.len) {
		do
			put = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		while (put < 0 && errno == EINTR);
		if (put < 0 && errno != EAGAIN) {
			client_gone(c);
			return;
		}
		done = put > 0 ? (size_t)put : 0;
	}
	for (int i = 0; i < 2; i++) {
		size_t skip = done < iov[i].iov_len ? done : iov[i].iov_len;

		done -= skip;
		if (buf_append(&c->queue, (char *)iov[i].iov_base + skip, iov[i].iov_len - skip) < 0) {
			log_warn("an attached client that does not read was dropped");
			client_drop(c);
			return;
		}
	}
}

static void put_output(struct session *s, int type, const char *bytes, size_t n)
{
	if (s->log)
		logfile_write(s->log, type, bytes, n);
	for (struct client *c = s->clients; c; c = c->next) {
		if (type == 1 ? c->want.out : c->want.err)
			client_put(c, type, bytes, n);
	}
}

static bool any_full(const struct session *s)
{
	for (const struct client *c = s->clients; c; c = c->next) {
		if (!c->dead && !c->gone && c->queue.len > QUEUE_SOFT)
			return true;
	}
	return false;
}

static void out_event(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct stream *st = arg;
	struct session *s = st->session;
	CLEAN_FREE char *chunk = malloc(CHUNK);
	ssize_t got;

	if (!chunk)
		return;
	for (int i = 0; i < 4 && (s->exited || !any_full(s)); i++) {
		got = read(st->fd, chunk, CHUNK);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			break;
		if (got <= 0) { /* a terminal answers EIO when the last process has closed it */
			close_source(&st->source, &st->fd);
			break;
		}
		put_output(s, st->type, chunk, (size_t)got);
		if (got < CHUNK / 2)
			break;
	}
	update(s);
}

/* Ends the process's stdin when that is due: a pipe is closed, a stream to a guest half-closed. */
static void end_in(struct session *s)
{
	if (!s->in_ended || s->in.len || s->in_fd < 0)
		return;
	if (shutdown(s->in_fd, SHUT_WR) < 0)
		close_source(&s->in_source, &s->in_fd);
}

static void write_in(struct session *s)
{
	ssize_t put;

	while (s->in.len && s->in_fd >= 0) {
		put = buf_write(&s->in, s->in_fd);
		if (put == -EINTR)
			continue;
		if (put == -EAGAIN)
			return;
		if (put < 0) {
			/* The process has closed its stdin: as with a pipe, the rest is lost. */
			buf_consume(&s->in, s->in.len);
			if (!s->tty)
				close_source(&s->in_source, &s->in_fd);
		}
	}
	end_in(s);
	if (!s->in.len && s->in.size > 2 * IN_SOFT)
		buf_free(&s->in);
}

/* Whether @c's bytes may be read now. */
static bool wants_read(const struct session *s, const struct client *c)
{
	if (c->dead || c->read_ended)
		return false;
	if (!c->want.in)
		return true; /* to notice its end; what it writes is dropped */
	if (!s->started && !s->exited)
		return false;
	return s->in_fd < 0 || s->in_ended || s->in.len < IN_SOFT;
}

static void client_input_ended(struct client *c)
{
	struct session *s = c->session;

	c->read_ended = true;
	if (c->want.in && s->close_stdin && !s->tty)
		s->in_ended = true;
}

static void client_detach(struct client *c)
{
	struct session *s = c->session;
	json_t *params = json_object();

	if (params && s->exec_id)
		(void)json_object_set_new(params, "exec_id", json_string(s->exec_id));
	control_event(s->shim, "detached", params);
	c->closing = true;
	c->read_ended = true;
}

/* Copies a terminal's input to the process, watching for the detach keys. Return: false if they came. */
static int filter_keys(struct client *c, const char *bytes, size_t n)
{
	struct session *s = c->session;
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++) {
		if ((unsigned char)bytes[i] == c->keys[c->matched]) {
			if (++c->matched == c->nkeys) {
				c->matched = 0;
				return 1;
			}
			continue;
		}
		rc = buf_append(&s->in, c->keys, c->matched);
		c->matched = 0;
		if (!rc && (unsigned char)bytes[i] == c->keys[0]) {
			c->matched = 1;
			continue;
		}
		if (!rc)
			rc = buf_append(&s->in, bytes + i, 1);
	}
	return rc;
}

/* Input of a client, for the process. Return: 1 when the detach keys came. */
static int client_input(struct client *c, const char *bytes, size_t n)
{
	struct session *s = c->session;

	return s->tty && c->nkeys ? filter_keys(c, bytes, n) : buf_append(&s->in, bytes, n);
}

static void client_read(struct client *c)
{
	struct session *s = c->session;
	CLEAN_FREE char *chunk = NULL;
	ssize_t got;
	int rc = 0;

	while (wants_read(s, c)) {
		if (!chunk)
			chunk = malloc(CHUNK);
		if (!chunk)
			return;
		got = recv(c->fd, chunk, CHUNK, MSG_DONTWAIT);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			break;
		if (got <= 0) {
			client_input_ended(c);
			break;
		}
		if (!c->want.in || s->in_fd < 0 || s->in_ended)
			continue;
		rc = client_input(c, chunk, (size_t)got);
		if (rc > 0)
			client_detach(c);
		write_in(s);
		if (got < CHUNK / 2 && !c->gone) /* one that is gone has no event to come back by */
			break;
	}
}

static void client_event(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct client *c = arg;
	struct session *s = c->session;

	if (events & (EPOLLHUP | EPOLLERR))
		client_gone(c);
	else if (events & EPOLLOUT)
		client_flush(c);
	if (events & (EPOLLIN | EPOLLHUP))
		client_read(c);
	update(s);
}

static void in_event(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct session *s = arg;

	write_in(s);
	for (struct client *c = s->clients; c; c = c->next) {
		if (c->gone)
			client_read(c); /* has no source of its own any more */
	}
	update(s);
}

static void drop_stalled(struct loop *l, void *arg)
{
	struct session *s = arg;
	unsigned others = 0;

	s->stall = NULL;
	for (struct client *c = s->clients; c; c = c->next)
		others++;
	for (struct client *c = s->clients; c; c = c->next) {
		if (c->queue.len > QUEUE_SOFT && !c->moved && (others > 1 || s->exited)) {
			log_warn("an attached client that does not read was dropped");
			client_drop(c);
		}
		c->moved = false;
	}
	update(s);
}

static void finish(struct session *s)
{
	s->finished = true;
	loop_cancel(s->drain);
	s->drain = NULL;
	for (int i = 0; i < 2; i++)
		close_source(&s->out[i].source, &s->out[i].fd);
	close_source(&s->in_source, &s->in_fd);
	if (s->log) {
		logfile_close(s->log);
		s->log = NULL;
	}
	shim_session_finished(s);
	session_close_clients(s);
}

static void update_client(struct session *s, struct client *c)
{
	uint32_t events = 0;

	if (c->gone) {
		if (c->read_ended || !c->want.in || s->finished)
			client_drop(c);
		return;
	}
	if (c->closing && !c->queue.len) {
		/* Closing with unread input in the socket would be a reset: the peer would lose its last bytes. */
		char waste[512];

		if (!s->returned)
			(void)shutdown(c->fd, SHUT_WR);
		while (!s->returned && recv(c->fd, waste, sizeof(waste), MSG_DONTWAIT) > 0)
			;
		client_drop(c);
		return;
	}
	if (!c->closing && wants_read(s, c))
		events |= EPOLLIN;
	if (c->queue.len)
		events |= EPOLLOUT;
	if (!c->source) {
		watch(s, &c->source, c->fd, events ? events : EPOLLERR, client_event, c);
		c->events = events;
	} else if (events != c->events) {
		loop_set_events(c->source, events);
		c->events = events;
	}
}

/* An exec that has ended and whose clients are gone; from a timer, as callers up the stack may still use it. */
static void reap_exec(struct loop *l, void *arg)
{
	struct session *s = arg;
	struct session **at = &s->shim->execs;

	s->drain = NULL;
	while (*at && *at != s)
		at = &(*at)->next;
	if (*at)
		*at = s->next;
	session_free(s);
}

/* Brings what is watched in line with the state; called at the end of every callback. May finish the session. */
static void update(struct session *s)
{
	struct client **at = &s->clients, *c;
	bool full;

	while ((c = *at)) {
		if (!c->dead)
			update_client(s, c);
		if (c->dead) {
			*at = c->next;
			client_free(c);
			continue;
		}
		at = &c->next;
	}
	full = any_full(s);
	if (full && !s->stall)
		s->stall = loop_add_timer(s->shim->loop, STALL_MS, drop_stalled, s);
	if (s->finished) {
		if (!s->clients && s->exec_id && !s->drain)
			s->drain = loop_add_timer(s->shim->loop, 0, reap_exec, s);
		if (!s->clients)
			shim_maybe_end(s->shim);
		return;
	}
	if (!s->started)
		return;
	for (int i = 0; i < 2; i++)
		watch(s, &s->out[i].source, s->out[i].fd, full && !s->exited ? 0 : EPOLLIN, out_event, &s->out[i]);
	end_in(s);
	watch(s, &s->in_source, s->in_fd, s->in.len ? EPOLLOUT : 0, in_event, s);
	if (s->exited && s->out[0].fd < 0 && s->out[1].fd < 0)
		finish(s);
}

int session_begin(struct session *s, struct err *err)
{
	s->started = true;
	for (struct client *c = s->clients; c; c = c->next) {
		if (c->gone)
			client_read(c);
	}
	update(s);
	return 0;
}

static void drain_over(struct loop *l, void *arg)
{
	struct session *s = arg;

	s->drain = NULL;
	if (!s->finished)
		finish(s);
}

void session_exited(struct session *s, int exit_code)
{
	if (s->exited)
		return;
	s->exited = true;
	s->exit_code = exit_code;
	close_source(&s->in_source, &s->in_fd);
	s->drain = loop_add_timer(s->shim->loop, DRAIN_MS, drain_over, s);
	update(s);
}

static void client_replay(void *arg, int stream, const char *bytes, size_t n)
{
	struct client *c = arg;

	if (stream == 1 ? c->want.out : c->want.err)
		client_put(c, stream, bytes, n);
}

int session_attach(struct session *s, int fd, const struct client_options *o, struct err *err)
{
	CLEAN_FD int sock = fd;
	struct client *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return err_sys(err, ENOMEM, "attach a client");
	rc = detach_parse(o->detach_keys, c->keys, err);
	if (rc < 0) {
		free(c);
		return rc;
	}
	c->nkeys = (unsigned)rc;
	rc = fd_set_nonblock(sock, true);
	if (rc < 0) {
		free(c);
		return err_sys(err, -rc, "attach a client");
	}
	c->session = s;
	c->want = *o;
	c->want.detach_keys = NULL;
	c->queue.limit = QUEUE_HARD;
	c->fd = take_fd(&sock);
	c->closing = s->finished;
	c->next = s->clients;
	s->clients = c;
	if (o->replay && s->log)
		logfile_rest(s->log, o->log_inode, o->log_offset, client_replay, c);
	if (o->early_len && o->in && client_input(c, o->early, o->early_len) > 0)
		client_detach(c);
	update(s);
	return 0;
}

void session_return_clients(struct session *s)
{
	s->returned = true;
	session_close_clients(s);
}

void session_close_clients(struct session *s)
{
	for (struct client *c = s->clients; c; c = c->next)
		c->closing = true;
	s->finished = true;
	update(s);
}

bool session_has_clients(const struct session *s)
{
	return s && s->clients;
}
