/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 server on the event loop (RFC 9112), for the Docker Engine API: answers
 * now or later, chunked streams whose head goes out at once, hijacked connections.
 */
#ifndef WALNUT_API_HTTP_H
#define WALNUT_API_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "base/loop.h"

struct http_server;
struct http_conn;

struct http_request {
	const char *method; /* "GET", ... */
	const char *path;   /* percent-decoded, without "/v1.NN" */
	int api_minor;      /* 47 for "/v1.47/..."; the server's newest when the path names none */
	const char *body;   /* the whole body, NUL-terminated, for routes that do not stream it; "" when none */
	size_t body_len;
};

/* Values live as long as the request (until the answer is complete). NULL: absent. */
const char *http_query(const struct http_request *r, const char *name); /* percent-decoded */
bool http_query_bool(const struct http_request *r, const char *name,
		     bool otherwise); /* "1 true True" / "0 false" (Docker's rules) */
const char *http_header(const struct http_request *r, const char *name); /* case-insensitive */
/* http_query_all - value number @i (from 0) of a parameter that may come several times: names=a&names=b. */
const char *http_query_all(const struct http_request *r, const char *name, size_t i);

/* Called when the head (and, unless the route streams, the body of at most 4 MiB) is there. Must answer, now or later. */
typedef void (*http_handler)(struct http_conn *c, const struct http_request *r, void *arg);

/* One route. @path has {name} parts: "/containers/{id}/start"; {name:*} takes slashes too ("/images/{name:*}/json"). */
struct http_route {
	const char *method;
	const char *path;
	http_handler handler;
	bool streams_body; /* the handler is called after the head and uses http_body_to_fd */
};
/* http_param - the value of a {name} part of the matched path. */
const char *http_param(const struct http_request *r, const char *name);

/**
 * http_server_new - serve connections accepted from @listen_fd (owned from now on)
 * @routes: tables, each ended by a NULL method; the array of tables ends with NULL; borrowed
 * @arg: passed to each handler
 */
struct http_server *http_server_new(struct loop *l, int listen_fd, const struct http_route *const *routes, void *arg,
				    struct err *err) MUST_CHECK;
void http_server_free(struct http_server *s);

/* Answers. Exactly one of these "kinds" per request. Safe after the client has gone (they do nothing). */
void http_reply_json(struct http_conn *c, int status, json_t *value); /* @value stolen */
void http_reply_empty(struct http_conn *c, int status);
void http_reply_text(struct http_conn *c, int status, const char *content_type, const char *text);
/* http_reply_error - {"message": ...} with the status for err->code: EINVAL 400, ENOENT 404, EEXIST and EBUSY 409, EALREADY 304, EPERM/EACCES 403, ENOSYS/EOPNOTSUPP 501, else 500. */
void http_reply_error(struct http_conn *c, const struct err *e);
void http_reply_error_status(struct http_conn *c, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* http_set_header - add a header to the coming answer. */
void http_set_header(struct http_conn *c, const char *name, const char *value);

/* Chunked stream: the head is sent by begin. write queues; Return: bytes queued and not yet taken by the client. */
void http_stream_begin(struct http_conn *c, int status, const char *content_type);
size_t http_stream_write(struct http_conn *c, const void *bytes, size_t n);
void http_stream_end(struct http_conn *c);
/* http_stream_abort - end it so that the client sees that it is not whole. */
void http_stream_abort(struct http_conn *c);
/* http_on_drain - call once when the queue of a stream is empty again. */
void http_on_drain(struct http_conn *c, void (*fn)(struct http_conn *, void *), void *arg);
/* http_stream_fd - copy a descriptor (file or pipe; borrowed) to the stream until its end, then call done (0 or -errno). */
void http_stream_fd(struct http_conn *c, int fd, void (*done)(struct http_conn *, int rc, void *), void *arg);

/* http_body_to_fd - copy the request's body to @fd (borrowed, a pipe or file) with back-pressure, then call done (0 or -errno). */
void http_body_to_fd(struct http_conn *c, int fd, void (*done)(struct http_conn *, int rc, void *), void *arg);

/**
 * http_hijack - answer "101 UPGRADED" (or 200 when the client sent no Upgrade header) and give up the connection
 * @early: bytes the client sent after its head, moved to the caller
 *
 * Return: the client's socket (owned by the caller, blocking mode off) or -errno when the client has gone.
 * @c is freed.
 */
int http_hijack(struct http_conn *c, const char *content_type, struct buf *early) MUST_CHECK;

/*
 * http_on_close - called when the client goes away before the answer is complete (one callback; NULL removes it).
 * @c is freed when @fn has returned: forget it then. Without a callback @c lives until the handler has answered.
 * A running http_body_to_fd or http_stream_fd is ended first: its done gets -ECONNRESET.
 */
void http_on_close(struct http_conn *c, void (*fn)(struct http_conn *, void *), void *arg);

#endif
