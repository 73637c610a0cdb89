/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pure parsing of HTTP/1.1 requests (RFC 9112): heads and chunked bodies, on bytes
 * in memory, without input or output. Everything a client can send is bounded here.
 */
#ifndef WALNUT_API_HTTP_PARSE_H
#define WALNUT_API_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define HTTP_HEAD_MAX    (64U << 10)
#define HTTP_FIELDS_MAX  100
#define HTTP_QUERY_MAX   256
#define HTTP_API_MINOR   47
#define HTTP_API_MINIMUM 24

struct http_pair {
	const char *name;
	const char *value;
};

/* A parsed head; all text points into the bytes that were parsed. */
struct http_head {
	const char *method;
	const char *path; /* decoded; without the version prefix */
	int http_minor;   /* HTTP/1.0 or 1.1 */
	int api_minor;
	int64_t content_length; /* -1: none given */
	bool chunked;
	bool keep_alive;
	bool expect_continue;
	bool upgrade;
	size_t nfields, nquery;
	struct http_pair fields[HTTP_FIELDS_MAX];
	struct http_pair query[HTTP_QUERY_MAX];
};

/* http_head_end - Return: the length of the head at the front of @bytes, its empty line included; 0: not whole yet. */
size_t http_head_end(const char *bytes, size_t len);

/**
 * http_head_parse - parse one whole head in place
 * @bytes: http_head_end() bytes, followed by one writable byte; changed
 *
 * Return: 0, or the HTTP status to refuse the request with (400, 431, 501, 505), @err set.
 */
int http_head_parse(char *bytes, size_t len, struct http_head *h, struct err *err) MUST_CHECK;

/* http_decode - undo percent-encoding in place ("+" is a space if @plus). Return: 0 or -EINVAL (bad digits, a NUL). */
int http_decode(char *text, bool plus) MUST_CHECK;

/* A chunked body being decoded; zeroed: at its start. */
struct http_chunks {
	enum {
		HTTP_CHUNK_SIZE,
		HTTP_CHUNK_EXT,
		HTTP_CHUNK_DATA,
		HTTP_CHUNK_END,
		HTTP_CHUNK_TRAILER,
		HTTP_CHUNK_DONE
	} state;
	uint64_t left; /* bytes of this chunk */
	unsigned digits;
	size_t trailer; /* bytes of size lines' extensions and trailers so far */
	size_t line;    /* bytes of the trailer line */
	bool cr;
};

/**
 * http_chunks_next - take bytes up to the end of one run of data
 * @data: set to the run inside @bytes, @ndata to its length (may be 0)
 *
 * Return: bytes taken (0: none or done), or -EINVAL.
 */
long http_chunks_next(struct http_chunks *c, const char *bytes, size_t len, const char **data,
		      size_t *ndata) MUST_CHECK;

/* http_match - does @path fit the route's @pattern? Parts go to @params as (name, value) offsets; at most 4. */
struct http_param {
	const char *name;
	size_t name_len;
	size_t start, len; /* of the value in the path */
};
#define HTTP_PARAMS_MAX 4
bool http_match(const char *pattern, const char *path, struct http_param *params, size_t *nparams);

#endif
