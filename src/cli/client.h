/* SPDX-License-Identifier: Apache-2.0 */
/* The CLI's HTTP client: one connection to the engine's unix socket per request. Blocking. */
#ifndef WALNUT_CLI_CLIENT_H
#define WALNUT_CLI_CLIENT_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"

struct client {
	const char *socket_path;
	const char *auth; /* X-Registry-Auth's value, or NULL */
};

/* One answer being read. */
struct reply {
	int fd; /* owned */
	int status;
	bool chunked, upgraded;
	int64_t left; /* bytes of the body or of the chunk; -1: until the peer closes */
	struct buf in;
};

void reply_fini(struct reply *r);
#define CLEAN_REPLY __attribute__((cleanup(reply_fini)))

/* client_connect - Return: a connected socket (owned by the caller) or -errno. */
int client_connect(const struct client *c, struct err *err) MUST_CHECK;

/**
 * client_send - send a request and read the answer's head
 * @body: JSON, borrowed; NULL: none
 * @body_fd: if not -1, its bytes are the body (chunked)
 * @upgrade: ask for a raw stream
 */
int client_send(const struct client *c, const char *method, const char *path, const json_t *body, int body_fd,
		bool upgrade, struct reply *out, struct err *err) MUST_CHECK;

/* reply_read - the next bytes of the body. Return: bytes, 0 at its end, -errno. */
ssize_t reply_read(struct reply *r, void *bytes, size_t n, struct err *err) MUST_CHECK;
/* reply_all - the whole body, NUL-terminated, in @out. */
int reply_all(struct reply *r, struct buf *out, struct err *err) MUST_CHECK;
/* reply_error - @err from an answer with status 400 and above ({"message": ...}). Return: -EREMOTEIO. */
int reply_error(struct reply *r, struct err *err);

/* client_json - a whole exchange. *out (new reference; may be NULL to drop it). Return: 0, or -EREMOTEIO when the engine says no. */
int client_json(const struct client *c, const char *method, const char *path, const json_t *body, json_t **out,
		struct err *err) MUST_CHECK;

/* url_encode - owned by the caller (free). */
char *url_encode(const char *text) MUST_CHECK;

#endif
