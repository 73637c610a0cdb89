/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections of the HTTP server: one state machine a connection, driven by
 * conn_pump() from the event loop.
 *
 *	HEAD -> BODY -> HANDLING -> (answer whole and sent) -> HEAD ... or LINGER -> closed
 *
 * While a request is handled nothing more is read (pipelined requests wait in the
 * kernel or in @in), and a client that goes away shows as EPOLLHUP. A connection
 * outlives its client until the handler has answered, so that answers "now or
 * later" are always safe; a handler that asked by http_on_close to be told is
 * told instead, and must forget the connection then.
 *
 * An answer that ends before the request's body was read is followed by a short
 * lingering close, so that the client reads the answer and not a reset.
 */
#include "api/http.h"
#include "api/http_parse.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"

#define BODY_MAX     (4U << 20)
#define PIECE        (64U << 10)
#define STREAM_QUEUE (256U << 10) /* http_stream_fd waits above this */
#define CONNS_MAX    2048
#define LINGER_MS    10000

enum conn_state { CONN_HEAD, CONN_BODY, CONN_HANDLING, CONN_LINGER };
enum answer_state { ANSWER_NONE, ANSWER_STREAM, ANSWER_DONE };

struct http_server {
	struct loop *loop;
	int fd;
	struct loop_source *source;
	struct loop_timer *pause;
	const struct http_route *const *routes;
	void *arg;
	struct http_conn *conns;
	size_t nconns;
};

/* A copy between the connection and a descriptor of the handler. */
struct transfer {
	bool on;
	int fd;
	struct loop_source *source; /* while the descriptor is not ready */
	void (*done)(struct http_conn *, int, void *);
	void *arg;
};

struct http_conn {
	struct http_request request; /* public part */
	struct http_server *server;
	struct http_conn *prev, *next;
	int fd; /* -1: the client has gone */
	struct loop_source *source;
	struct loop_timer *kick;
	struct loop_timer *linger;
	enum conn_state state;
	enum answer_state answer;
	int hold; /* > 0: inside a callback that still uses the connection */
	bool freeing, ended, broken, running;

	struct buf in, out, body;
	char *head_bytes;
	struct http_head head;
	bool has_head;
	struct http_param params[HTTP_PARAMS_MAX];
	char *param_names[HTTP_PARAMS_MAX];
	char *param_values[HTTP_PARAMS_MAX];
	size_t nparams;
	struct http_chunks chunks;
	int64_t left; /* of a body with a length */
	bool body_whole, continued, chunk_out, headless;
	struct buf extra; /* headers set by the handler */
	struct transfer to_fd, from_fd;

	void (*drain)(struct http_conn *, void *);
	void *drain_arg;
	void (*on_close)(struct http_conn *, void *);
	void *close_arg;
};

static void conn_pump(struct http_conn *c);
static void conn_event(struct loop *l, int fd, uint32_t events, void *arg);

static struct http_conn *conn_of(const struct http_request *r)
{
	return (struct http_conn *)(uintptr_t)r; /* the first member */
}

const char *http_query(const struct http_request *r, const char *name)
{
	return http_query_all(r, name, 0);
}

const char *http_query_all(const struct http_request *r, const char *name, size_t i)
{
	const struct http_head *h = &conn_of(r)->head;

	for (size_t at = 0; at < h->nquery; at++)
		if (!strcmp(h->query[at].name, name) && i-- == 0)
			return h->query[at].value;
	return NULL;
}

bool http_query_bool(const struct http_request *r, const char *name, bool otherwise)
{
	static const char *const no[] = { "", "0", "no", "false", "none" };
	const char *value = http_query(r, name);

	if (!value)
		return otherwise;
	for (size_t i = 0; i < ARRAY_LEN(no); i++)
		if (!strcasecmp(value, no[i]))
			return false;
	return true;
}

const char *http_header(const struct http_request *r, const char *name)
{
	const struct http_head *h = &conn_of(r)->head;

	for (size_t i = 0; i < h->nfields; i++)
		if (!strcasecmp(h->fields[i].name, name))
			return h->fields[i].value;
	return NULL;
}

const char *http_param(const struct http_request *r, const char *name)
{
	const struct http_conn *c = conn_of(r);

	for (size_t i = 0; i < c->nparams; i++)
		if (!strcmp(c->param_names[i], name))
			return c->param_values[i];
	return NULL;
}

static void transfer_stop(struct transfer *t)
{
	loop_remove(t->source);
	*t = (struct transfer){ .fd = -1 };
}

/* request_clear - ready for the next request of the same connection. */
static void request_clear(struct http_conn *c)
{
	for (size_t i = 0; i < c->nparams; i++) {
		free(c->param_names[i]);
		free(c->param_values[i]);
	}
	c->nparams = 0;
	free(take_ptr(c->head_bytes));
	c->has_head = false;
	c->head.nquery = c->head.nfields = 0;
	buf_free(&c->body);
	buf_free(&c->extra);
	transfer_stop(&c->to_fd);
	transfer_stop(&c->from_fd);
	c->drain = NULL;
	c->on_close = NULL;
	c->answer = ANSWER_NONE;
	c->body_whole = c->continued = c->chunk_out = c->headless = false;
	memset(&c->chunks, 0, sizeof(c->chunks));
	memset(&c->request, 0, sizeof(c->request));
}

static void conn_detach(struct http_conn *c)
{
	loop_remove(take_ptr(c->source));
	if (c->kick)
		loop_cancel(take_ptr(c->kick));
	if (c->linger)
		loop_cancel(take_ptr(c->linger));
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

/* conn_free - at once, or when the callbacks that use it have returned. */
static void conn_free(struct http_conn *c)
{
	if (!c->freeing) {
		c->freeing = true;
		conn_detach(c);
		transfer_stop(&c->to_fd);
		transfer_stop(&c->from_fd);
		c->on_close = NULL;
		c->drain = NULL;
	}
	if (c->hold)
		return;
	request_clear(c);
	buf_free(&c->in);
	buf_free(&c->out);
	if (c->server) {
		if (c->prev)
			c->prev->next = c->next;
		else
			c->server->conns = c->next;
		if (c->next)
			c->next->prev = c->prev;
		c->server->nconns--;
	}
	free(c);
}

static void conn_release(struct http_conn *c)
{
	if (--c->hold == 0 && c->freeing)
		conn_free(c);
}

/* conn_gone - the client is away; tell whoever works for it. The caller holds @c. */
static void conn_gone(struct http_conn *c)
{
	void (*fn)(struct http_conn *, void *);

	if (c->freeing)
		return;
	conn_detach(c);
	buf_free(&c->out);
	if (c->state != CONN_HANDLING) {
		conn_free(c);
		return;
	}
	for (int i = 0; i < 2; i++) {
		struct transfer *t = i ? &c->from_fd : &c->to_fd, was = *t;

		if (!was.on)
			continue;
		transfer_stop(t);
		if (was.done)
			was.done(c, -ECONNRESET, was.arg);
		if (c->freeing)
			return;
	}
	if (c->answer == ANSWER_DONE) {
		conn_free(c);
		return;
	}
	if (c->on_close) {
		fn = take_ptr(c->on_close);
		fn(c, c->close_arg);
		conn_free(c);
	} else if (c->drain) {
		fn = take_ptr(c->drain);
		fn(c, c->drain_arg);
	}
}

static void kick_fire(struct loop *l, void *arg)
{
	struct http_conn *c = arg;

	c->kick = NULL;
	conn_event(l, c->fd, 0, c);
}

/* conn_kick - run the pump soon, from the loop. */
static void conn_kick(struct http_conn *c)
{
	if (c->fd >= 0 && !c->kick && !c->freeing)
		c->kick = loop_add_timer(c->server->loop, 0, kick_fire, c);
}

static void conn_update_events(struct http_conn *c)
{
	uint32_t events = 0;
	bool wants_input;

	if (!c->source)
		return;
	switch (c->state) {
	case CONN_HANDLING: wants_input = c->to_fd.on && !c->to_fd.source && !c->body_whole; break;
	default: wants_input = true;
	}
	if (wants_input && !c->ended)
		events |= EPOLLIN;
	if (c->out.len || c->broken)
		events |= EPOLLOUT;
	loop_set_events(c->source, events);
}

/* conn_flush - write what the client takes. */
static void conn_flush(struct http_conn *c)
{
	while (c->out.len && !c->broken && c->fd >= 0) {
		size_t n = c->out.len < (1U << 20) ? c->out.len : 1U << 20;
		ssize_t sent = send(c->fd, buf_bytes(&c->out), n, MSG_NOSIGNAL);

		if (sent < 0) {
			if (errno == EINTR)
				continue;
			if (errno != EAGAIN)
				c->broken = true; /* the loop tells the handler */
			break;
		}
		buf_consume(&c->out, (size_t)sent);
	}
	if (c->broken)
		buf_free(&c->out);
	conn_update_events(c);
}

static void conn_queue(struct http_conn *c, const void *bytes, size_t n)
{
	if (c->fd < 0 || c->broken || !n)
		return;
	if (buf_append(&c->out, bytes, n)) {
		log_warn("http: answer dropped: out of memory");
		c->broken = true;
		conn_kick(c);
	}
}

static const char *status_text(int status)
{
	switch (status) {
	case 200: return "OK";
	case 201: return "Created";
	case 202: return "Accepted";
	case 204: return "No Content";
	case 304: return "Not Modified";
	case 400: return "Bad Request";
	case 401: return "Unauthorized";
	case 403: return "Forbidden";
	case 404: return "Not Found";
	case 406: return "Not Acceptable";
	case 409: return "Conflict";
	case 413: return "Content Too Large";
	case 431: return "Request Header Fields Too Large";
	case 500: return "Internal Server Error";
	case 501: return "Not Implemented";
	case 503: return "Service Unavailable";
	case 505: return "HTTP Version Not Supported";
	default: return status < 400 ? "OK" : "Error";
	}
}

/* answer_head - @length: of the body; -1: not known (chunked); -2: no body at all. */
static void answer_head(struct http_conn *c, int status, const char *content_type, int64_t length)
{
	CLEAN_BUF struct buf b = BUF_INIT;
	time_t now = time(NULL);
	struct tm tm;
	char date[64], size[64] = "";
	int rc;

	gmtime_r(&now, &tm);
	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	c->headless = c->has_head && !strcmp(c->head.method, "HEAD");
	c->chunk_out = length == -1 && c->head.http_minor == 1;
	if (c->chunk_out)
		snprintf(size, sizeof(size), "Transfer-Encoding: chunked\r\n");
	else if (length >= 0)
		snprintf(size, sizeof(size), "Content-Length: %lld\r\n", (long long)length);
	if (length == -1 && !c->chunk_out)
		c->head.keep_alive = false;
	rc = buf_printf(&b,
			"HTTP/1.1 %d %s\r\nApi-Version: 1.%d\r\nDocker-Experimental: false\r\nOstype: linux\r\n"
			"Server: Walnut/%s (linux)\r\nDate: %s\r\n%s%s%s%.*s%s%s\r\n",
			status, status_text(status), HTTP_API_MINOR, WALNUT_VERSION, date,
			content_type ? "Content-Type: " : "", content_type ? content_type : "",
			content_type ? "\r\n" : "", (int)c->extra.len, buf_bytes(&c->extra), size,
			c->head.keep_alive ? "" : "Connection: close\r\n");
	if (rc)
		c->broken = true;
	conn_queue(c, buf_bytes(&b), b.len);
}

/* answer_finish - the answer is queued whole. */
static void answer_finish(struct http_conn *c)
{
	c->answer = ANSWER_DONE;
	c->on_close = NULL;
	c->drain = NULL;
	transfer_stop(&c->from_fd);
	if (c->fd < 0) {
		conn_free(c);
		return;
	}
	conn_flush(c);
	if (!c->running)
		conn_kick(c); /* also closes, when that is due */
}

static void answer_whole(struct http_conn *c, int status, const char *content_type, const void *bytes, size_t n)
{
	if (c->answer != ANSWER_NONE) {
		log_error("http: a second answer to %s %s", c->request.method ? c->request.method : "?",
			  c->request.path ? c->request.path : "?");
		return;
	}
	answer_head(c, status, content_type, status == 204 || status == 304 ? -2 : (int64_t)n);
	if (!c->headless)
		conn_queue(c, bytes, n);
	answer_finish(c);
}

void http_reply_empty(struct http_conn *c, int status)
{
	answer_whole(c, status, NULL, "", 0);
}

void http_reply_text(struct http_conn *c, int status, const char *content_type, const char *text)
{
	answer_whole(c, status, content_type, text, strlen(text));
}

void http_reply_json(struct http_conn *c, int status, json_t *value)
{
	CLEAN_JSON json_t *owned = value;
	char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
	CLEAN_BUF struct buf b = BUF_INIT;

	if (!text || buf_printf(&b, "%s\n", text))
		answer_whole(c, 500, "application/json", "{\"message\":\"out of memory\"}\n", 28);
	else
		answer_whole(c, status, "application/json", buf_bytes(&b), b.len);
	free(text);
}

void http_reply_error_status(struct http_conn *c, int status, const char *fmt, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (unsigned char *p = (unsigned char *)text; *p; p++)
		if (*p >= 0x80) { /* cut short, or not UTF-8: JSON must be valid all the same */
			json_t *ok = json_string(text);

			if (!ok)
				for (; *p; p++)
					*p = *p >= 0x80 ? '?' : *p;
			json_decref(ok);
			break;
		}
	http_reply_json(c, status, json_pack("{s:s}", "message", text));
}

static int error_status(int code)
{
	switch (code) {
	case EINVAL: return 400;
	case ENOENT: return 404;
	case EEXIST:
	case EBUSY: return 409;
	case EALREADY: return 304;
	case EPERM:
	case EACCES: return 403;
	case ENOSYS:
	case EOPNOTSUPP: return 501;
	default: return 500;
	}
}

void http_reply_error(struct http_conn *c, const struct err *e)
{
	if (e->code == EALREADY)
		http_reply_empty(c, 304);
	else
		http_reply_error_status(c, error_status(e->code), "%s", e->msg[0] ? e->msg : strerror(e->code));
}

void http_set_header(struct http_conn *c, const char *name, const char *value)
{
	if (!strpbrk(value, "\r\n") && !buf_printf(&c->extra, "%s: %s\r\n", name, value))
		return;
	log_warn("http: header %s dropped", name);
}

void http_stream_begin(struct http_conn *c, int status, const char *content_type)
{
	bug_on(c->answer != ANSWER_NONE);
	answer_head(c, status, content_type, -1);
	c->answer = ANSWER_STREAM;
	conn_flush(c);
}

static void stream_queue(struct http_conn *c, const void *bytes, size_t n)
{
	char line[24];

	if (!n || c->headless || c->fd < 0 || c->answer != ANSWER_STREAM)
		return;
	if (c->chunk_out)
		conn_queue(c, line, (size_t)snprintf(line, sizeof(line), "%zx\r\n", n));
	conn_queue(c, bytes, n);
	if (c->chunk_out)
		conn_queue(c, "\r\n", 2);
}

size_t http_stream_write(struct http_conn *c, const void *bytes, size_t n)
{
	stream_queue(c, bytes, n);
	if (c->fd >= 0)
		conn_flush(c);
	return c->out.len;
}

void http_stream_end(struct http_conn *c)
{
	if (c->answer != ANSWER_STREAM)
		return;
	if (c->chunk_out && !c->headless)
		conn_queue(c, "0\r\n\r\n", 5);
	answer_finish(c);
}

void http_stream_abort(struct http_conn *c)
{
	if (c->fd >= 0)
		(void)shutdown(c->fd, SHUT_RDWR);
	http_stream_end(c);
}

void http_on_drain(struct http_conn *c, void (*fn)(struct http_conn *, void *), void *arg)
{
	c->drain = fn;
	c->drain_arg = arg;
	if (!c->out.len)
		conn_kick(c);
}

void http_on_close(struct http_conn *c, void (*fn)(struct http_conn *, void *), void *arg)
{
	c->on_close = fn;
	c->close_arg = arg;
}

static void transfer_done(struct http_conn *c, struct transfer *t, int rc)
{
	struct transfer was = *t;

	transfer_stop(t);
	if (was.done)
		was.done(c, rc, was.arg);
}

static void transfer_ready(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct http_conn *c = arg;

	/* One round of level-triggered readiness; armed again when the copy meets EAGAIN. */
	if (fd == c->to_fd.fd && c->to_fd.source)
		loop_remove(take_ptr(c->to_fd.source));
	if (fd == c->from_fd.fd && c->from_fd.source)
		loop_remove(take_ptr(c->from_fd.source));
	conn_event(l, c->fd, 0, c);
}

static void transfer_wait(struct http_conn *c, struct transfer *t, uint32_t events)
{
	struct err err = ERR_INIT;

	t->source = loop_add_fd(c->server->loop, t->fd, events, transfer_ready, c, &err);
	if (!t->source)
		transfer_done(c, t, -(err.code ? err.code : EIO));
}

static void transfer_start(struct http_conn *c, struct transfer *t, int fd,
			   void (*done)(struct http_conn *, int, void *), void *arg)
{
	*t = (struct transfer){ .on = true, .fd = fd, .done = done, .arg = arg };
	if (fd_set_nonblock(fd, true))
		log_debug("http: descriptor %d stays blocking", fd);
	conn_kick(c);
}

static void gone_later(struct loop *l, void *arg)
{
	struct http_conn *c = arg;

	c->kick = NULL;
	c->hold++;
	conn_gone(c);
	conn_release(c);
}

void http_stream_fd(struct http_conn *c, int fd, void (*done)(struct http_conn *, int, void *), void *arg)
{
	transfer_start(c, &c->from_fd, fd, done, arg);
	if (c->fd < 0 && !c->kick)
		c->kick = loop_add_timer(c->server->loop, 0, gone_later, c);
}

void http_body_to_fd(struct http_conn *c, int fd, void (*done)(struct http_conn *, int, void *), void *arg)
{
	transfer_start(c, &c->to_fd, fd, done, arg);
	if (c->fd < 0 && !c->kick)
		c->kick = loop_add_timer(c->server->loop, 0, gone_later, c);
	if (c->head.expect_continue && !c->continued && c->answer == ANSWER_NONE && !c->body_whole) {
		c->continued = true;
		conn_queue(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
		conn_flush(c);
	}
}

int http_hijack(struct http_conn *c, const char *content_type, struct buf *early)
{
	CLEAN_BUF struct buf b = BUF_INIT;
	CLEAN_FD int fd = -1;
	int rc;

	rc = c->head.upgrade ? buf_printf(&b,
					  "HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\n"
					  "Upgrade: tcp\r\nApi-Version: 1.%d\r\nDocker-Experimental: false\r\n"
					  "Ostype: linux\r\n\r\n",
					  content_type, HTTP_API_MINOR)
			     : buf_printf(&b, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\n\r\n", content_type);
	if (c->fd < 0 || c->broken || rc) {
		c->answer = ANSWER_DONE;
		c->on_close = NULL;
		conn_free(c);
		return rc ? rc : -EPIPE;
	}
	loop_remove(take_ptr(c->source));
	fd = take_fd(&c->fd);
	if (early) {
		*early = c->in;
		c->in = BUF_INIT;
	}
	while (b.len && !rc) {
		ssize_t n = send(fd, buf_bytes(&b), b.len, MSG_NOSIGNAL);

		if (n >= 0) {
			buf_consume(&b, (size_t)n);
		} else if (errno == EAGAIN) {
			struct pollfd p = { .fd = fd, .events = POLLOUT };

			if (poll(&p, 1, 5000) <= 0)
				rc = -EPIPE;
		} else if (errno != EINTR) {
			rc = -errno;
		}
	}
	c->answer = ANSWER_DONE;
	conn_free(c);
	return rc ? rc : take_fd(&fd);
}

/* --- reading --- */

/* refuse - the request cannot be understood: answer and close. */
static void refuse(struct http_conn *c, int status, const char *text)
{
	c->state = CONN_HANDLING;
	c->head.keep_alive = false;
	c->body_whole = false;
	if (!c->has_head)
		c->head.http_minor = 1;
	http_reply_error_status(c, status, "%s", text);
}

static const struct http_route *find_route(struct http_conn *c, const char *method)
{
	for (const struct http_route *const *table = c->server->routes; *table; table++)
		for (const struct http_route *r = *table; r->method; r++) {
			if (strcmp(r->method, method) || !http_match(r->path, c->head.path, c->params, &c->nparams))
				continue;
			for (size_t i = 0; i < c->nparams; i++) {
				const struct http_param *p = &c->params[i];

				c->param_names[i] = strndup(p->name, p->name_len);
				c->param_values[i] = strndup(c->head.path + p->start, p->len);
				if (!c->param_names[i] || !c->param_values[i]) {
					c->nparams = i + 1;
					return NULL;
				}
			}
			return r;
		}
	c->nparams = 0;
	return NULL;
}

static void dispatch(struct http_conn *c, const struct http_route *route)
{
	c->state = CONN_HANDLING;
	c->request.body = buf_bytes(&c->body);
	c->request.body_len = c->body.len;
	route->handler(c, &c->request, c->server->arg);
}

/* take_body - decode what has arrived, up to @max bytes in c->body. Return: 0 or a status to refuse with. */
static int take_body(struct http_conn *c, size_t max)
{
	while (!c->body_whole && c->in.len && c->body.len < max) {
		const char *data = buf_bytes(&c->in);
		size_t n = c->in.len < max - c->body.len ? c->in.len : max - c->body.len, ndata = 0;
		long taken;

		if (c->head.chunked) {
			taken = http_chunks_next(&c->chunks, data, n, &data, &ndata);
			if (taken < 0)
				return 400;
		} else {
			ndata = (int64_t)n < c->left ? n : (size_t)c->left;
			c->left -= (int64_t)ndata;
			taken = (long)ndata;
		}
		if (ndata && buf_append(&c->body, data, ndata))
			return 500;
		buf_consume(&c->in, (size_t)taken);
		c->body_whole = c->head.chunked ? c->chunks.state == HTTP_CHUNK_DONE : !c->left;
	}
	return 0;
}

static bool pump_head(struct http_conn *c)
{
	struct err err = ERR_INIT;
	size_t n;
	int status;

	/* RFC 9112 2.2: an empty line before the request is ignored */
	while (c->in.len >= 2 && !memcmp(buf_bytes(&c->in), "\r\n", 2))
		buf_consume(&c->in, 2);
	n = http_head_end(buf_bytes(&c->in), c->in.len < HTTP_HEAD_MAX ? c->in.len : HTTP_HEAD_MAX);
	if (!n) {
		if (c->in.len < HTTP_HEAD_MAX)
			return false;
		refuse(c, 431, "the request's head is larger than 64 KiB");
		return true;
	}
	c->head_bytes = malloc(n + 1);
	if (!c->head_bytes) {
		refuse(c, 500, "out of memory");
		return true;
	}
	memcpy(c->head_bytes, buf_bytes(&c->in), n);
	buf_consume(&c->in, n);
	status = http_head_parse(c->head_bytes, n, &c->head, &err);
	if (status) {
		refuse(c, status, err.msg);
		return true;
	}
	c->has_head = true;
	c->left = c->head.content_length > 0 ? c->head.content_length : 0;
	c->body_whole = !c->head.chunked && !c->left;
	c->request = (struct http_request){
		.method = c->head.method, .path = c->head.path, .api_minor = c->head.api_minor, .body = ""
	};
	c->state = CONN_BODY;
	return true;
}

static bool pump_body(struct http_conn *c)
{
	const struct http_route *route = find_route(c, c->head.method);
	int status;

	if (!route && !strcmp(c->head.method, "HEAD"))
		route = find_route(c, "GET");
	if (!route) {
		c->state = CONN_HANDLING;
		http_reply_error_status(c, 404, "page not found");
		return true;
	}
	if (route->streams_body) {
		dispatch(c, route);
		return true;
	}
	if (c->left > BODY_MAX) {
		refuse(c, 413, "the request's body is larger than 4 MiB");
		return true;
	}
	if (c->head.expect_continue && !c->continued && !c->body_whole && !c->in.len) {
		c->continued = true;
		conn_queue(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
		conn_flush(c);
	}
	status = take_body(c, BODY_MAX + 1);
	if (status || c->body.len > BODY_MAX) {
		refuse(c, status ? status : 413,
		       status ? "malformed chunked body" : "the request's body is larger than 4 MiB");
		return true;
	}
	if (!c->body_whole) { /* matched again when more has come */
		for (size_t i = 0; i < c->nparams; i++) {
			free(c->param_names[i]);
			free(c->param_values[i]);
		}
		c->nparams = 0;
		return false;
	}
	dispatch(c, route);
	return true;
}

/* pump_to_fd - move the body on. Return: true when something moved. */
static bool pump_to_fd(struct http_conn *c)
{
	bool moved = false;

	while (c->to_fd.on && !c->to_fd.source) {
		ssize_t n;

		if (!c->body.len) {
			size_t before = c->in.len;

			if (take_body(c, PIECE)) {
				c->head.keep_alive = false;
				transfer_done(c, &c->to_fd, -EBADMSG);
				return true;
			}
			moved = moved || before != c->in.len;
		}
		if (!c->body.len) {
			if (c->body_whole) {
				transfer_done(c, &c->to_fd, 0);
				return true;
			}
			if (c->ended) {
				transfer_done(c, &c->to_fd, -ECONNRESET);
				return true;
			}
			break;
		}
		n = buf_write(&c->body, c->to_fd.fd);
		if (n == -EAGAIN) {
			transfer_wait(c, &c->to_fd, EPOLLOUT);
			break;
		}
		if (n < 0 && n != -EINTR) {
			buf_free(&c->body);
			transfer_done(c, &c->to_fd, (int)n);
			return true;
		}
		moved = true;
	}
	return moved;
}

static bool pump_from_fd(struct http_conn *c)
{
	CLEAN_FREE char *piece = NULL;

	if (!c->from_fd.on || c->from_fd.source || c->answer != ANSWER_STREAM)
		return false;
	piece = malloc(PIECE);
	for (int round = 0; c->from_fd.on && c->out.len < STREAM_QUEUE && round < 32; round++) {
		ssize_t n = piece ? read(c->from_fd.fd, piece, PIECE) : -ENOMEM;

		if (n > 0) {
			http_stream_write(c, piece, (size_t)n);
			continue;
		}
		if (n < 0 && piece && errno == EINTR)
			continue;
		if (n < 0 && piece && errno == EAGAIN) {
			transfer_wait(c, &c->from_fd, EPOLLIN);
			return false;
		}
		transfer_done(c, &c->from_fd, n == 0 ? 0 : piece ? -errno : -ENOMEM);
		return true;
	}
	if (c->from_fd.on && c->out.len < STREAM_QUEUE)
		conn_kick(c);
	return false;
}

static void linger_over(struct loop *l, void *arg)
{
	struct http_conn *c = arg;

	c->linger = NULL;
	c->hold++;
	conn_free(c);
	conn_release(c);
}

/* pump_next - the answer is sent whole: next request, or close. */
static void pump_next(struct http_conn *c)
{
	bool whole = c->body_whole || (c->has_head && !c->head.chunked && !c->left);

	if (c->head.keep_alive && whole) {
		request_clear(c);
		c->state = CONN_HEAD;
		return;
	}
	if (whole || c->ended) {
		conn_free(c);
		return;
	}
	/* the client still sends: let it finish, so that it reads the answer */
	request_clear(c);
	c->head.keep_alive = false;
	shutdown(c->fd, SHUT_WR);
	c->state = CONN_LINGER;
	buf_free(&c->in);
	c->linger = loop_add_timer(c->server->loop, LINGER_MS, linger_over, c);
	if (!c->linger)
		conn_free(c);
}

static bool pump_handling(struct http_conn *c)
{
	bool again = pump_to_fd(c);

	if (c->freeing || c->state != CONN_HANDLING)
		return false;
	again |= pump_from_fd(c);
	if (c->freeing)
		return false;
	if (c->out.len || c->broken)
		return false;
	if (c->answer == ANSWER_DONE && !c->to_fd.on) {
		pump_next(c);
		return true;
	}
	if (c->drain) {
		void (*fn)(struct http_conn *, void *) = take_ptr(c->drain);

		fn(c, c->drain_arg);
		return true;
	}
	return again;
}

static void conn_pump(struct http_conn *c)
{
	bool again = true;

	for (int round = 0; again && !c->freeing && c->fd >= 0; round++) {
		if (round == 64) { /* let others have a turn */
			conn_kick(c);
			break;
		}
		switch (c->state) {
		case CONN_HEAD: again = c->out.len == 0 && pump_head(c); break;
		case CONN_BODY: again = pump_body(c); break;
		case CONN_HANDLING: again = pump_handling(c); break;
		default: buf_free(&c->in); again = false;
		}
	}
}

static bool conn_wants_input(const struct http_conn *c)
{
	if (c->ended || c->fd < 0)
		return false;
	return c->state != CONN_HANDLING || (c->to_fd.on && !c->to_fd.source && !c->body_whole);
}

static void conn_event(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct http_conn *c = arg;

	c->hold++;
	c->running = true;
	conn_flush(c);
	if ((events & (EPOLLIN | EPOLLHUP)) && conn_wants_input(c)) {
		ssize_t n = buf_read(&c->in, c->fd, PIECE);

		if (n == 0)
			c->ended = true;
		else if (n < 0 && n != -EAGAIN && n != -EINTR)
			c->broken = true;
	}
	if (!c->broken)
		conn_pump(c);
	if (!c->freeing && c->fd >= 0) {
		if (c->ended && c->state != CONN_HANDLING)
			conn_free(c); /* at its end, or in the middle of a request */
		else if (c->broken || (events & EPOLLERR) ||
			 ((events & EPOLLHUP) && !conn_wants_input(c) && c->state == CONN_HANDLING))
			conn_gone(c);
		else
			conn_update_events(c);
	}
	c->running = false;
	conn_release(c);
}

static void server_resume(struct loop *l, void *arg)
{
	struct http_server *s = arg;

	s->pause = NULL;
	loop_set_events(s->source, EPOLLIN);
}

static void server_accept(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct http_server *s = arg;

	for (int i = 0; i < 64; i++) {
		struct err err = ERR_INIT;
		CLEAN_FD int sock = s->nconns < CONNS_MAX ? accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK) : -1;
		struct http_conn *c;

		if (sock < 0 && s->nconns < CONNS_MAX && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
			return;
		c = sock >= 0 ? calloc(1, sizeof(*c)) : NULL;
		if (!c) {
			/* out of descriptors, connections or memory: try again a little later */
			s->pause = loop_add_timer(l, 100, server_resume, s);
			if (s->pause)
				loop_set_events(s->source, 0);
			return;
		}
		c->fd = take_fd(&sock);
		c->to_fd.fd = c->from_fd.fd = -1;
		c->source = loop_add_fd(l, c->fd, EPOLLIN, conn_event, c, &err);
		if (!c->source) {
			log_warn("http: %s", err.msg);
			close(c->fd);
			free(c);
			return;
		}
		c->server = s;
		c->next = s->conns;
		if (c->next)
			c->next->prev = c;
		s->conns = c;
		s->nconns++;
	}
}

struct http_server *http_server_new(struct loop *l, int listen_fd, const struct http_route *const *routes, void *arg,
				    struct err *err)
{
	CLEAN_FD int fd = listen_fd;
	struct http_server *s = calloc(1, sizeof(*s));
	int rc = fd_set_nonblock(fd, true);

	if (!s || rc) {
		free(s);
		err_sys(err, s ? -rc : ENOMEM, "HTTP server");
		return NULL;
	}
	signal(SIGPIPE, SIG_IGN); /* the reader of a body may end early */
	*s = (struct http_server){ .loop = l, .fd = -1, .routes = routes, .arg = arg };
	s->source = loop_add_fd(l, fd, EPOLLIN, server_accept, s, err);
	if (!s->source) {
		free(s);
		return NULL;
	}
	s->fd = take_fd(&fd);
	return s;
}

void http_server_free(struct http_server *s)
{
	if (!s)
		return;
	while (s->conns) {
		struct http_conn *c = s->conns;

		c->hold++; /* NOLINT(clang-analyzer-unix.Malloc): what was freed is off the list */
		conn_gone(c);
		c->freeing = false; /* NOLINT(clang-analyzer-unix.Malloc): held */
		c->hold = 1;
		conn_free(c);
		conn_release(c);
	}
	loop_remove(s->source);
	if (s->pause)
		loop_cancel(s->pause);
	close(s->fd);
	free(s);
}
