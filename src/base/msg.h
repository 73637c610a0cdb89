/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Framed control messages: u32 little-endian length, then that many bytes of
 * JSON (one object). Used engine <-> shim over unix sockets, where descriptors
 * can travel with a message ("fds": N in the object), and shim <-> agent over
 * vsock, where they can not.
 *
 *	request  {"id": 7, "method": "exec", "params": {...}}
 *	answer   {"id": 7, "result": {...}}  or  {"id": 7, "error": {"code": ERRNO, "message": "..."}}
 *	event    {"event": "exited", "params": {...}}
 */
#ifndef WALNUT_BASE_MSG_H
#define WALNUT_BASE_MSG_H

#include "base/buf.h"
#include "base/fd.h"
#include "base/json.h"

#define MSG_MAX (4U << 20) /* bytes of one message */

struct msg_stream {
	int fd;          /* borrowed */
	bool passes_fds; /* a unix socket */
	struct buf in;
	int fds[FD_PASS_MAX]; /* received, not yet taken; owned */
	size_t nfds;
};

void msg_stream_init(struct msg_stream *s, int fd, bool passes_fds);
void msg_stream_fini(struct msg_stream *s);

/**
 * msg_recv - the next whole message
 * @fds: room for FD_PASS_MAX descriptors, owned by the caller on success; NULL: none are accepted
 * @nfds: set to the number of descriptors that came with this message; may be NULL with @fds
 *
 * On a blocking descriptor waits for a whole message. Return: 1 with *out set (new reference),
 * 0 when the peer closed, -EAGAIN (non-blocking, nothing whole yet), or -errno with @err.
 */
int msg_recv(struct msg_stream *s, json_t **out, int *fds, size_t *nfds, struct err *err) MUST_CHECK;

/**
 * msg_send - send one message, whole; blocks (polls) at most 10 s on a full non-blocking socket
 * @fds: sent along, borrowed; "fds" is added to @message when @nfds is not 0
 */
int msg_send(int fd, json_t *message, const int *fds, size_t nfds, struct err *err) MUST_CHECK;

/* Builders: new references, NULL without memory; @params, @result stolen (may be NULL). */
json_t *msg_request(int64_t id, const char *method, json_t *params);
json_t *msg_event(const char *event, json_t *params);
json_t *msg_result(int64_t id, json_t *result);
json_t *msg_error(int64_t id, const struct err *e);
/* msg_failed - if @answer is an error, copy it to @err and return -code; else 0. */
int msg_failed(const json_t *answer, struct err *err) MUST_CHECK;

#endif
