/* SPDX-License-Identifier: Apache-2.0 */
/* Framed JSON messages with descriptors. */
#include "base/msg.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

#define SEND_PATIENCE_MS 10000

void msg_stream_init(struct msg_stream *s, int fd, bool passes_fds)
{
	*s = (struct msg_stream){ .fd = fd, .passes_fds = passes_fds, .in = { .limit = MSG_MAX + 65536 + 4 } };
}

static void close_all(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)close(fds[i]);
}

void msg_stream_fini(struct msg_stream *s)
{
	close_all(s->fds, s->nfds);
	s->nfds = 0;
	buf_free(&s->in);
}

static ssize_t fill(struct msg_stream *s)
{
	int got_fds[FD_PASS_MAX];
	size_t ngot;
	ssize_t got;
	char *room;

	if (!s->passes_fds)
		return buf_read(&s->in, s->fd, 65536);
	room = buf_reserve(&s->in, 65536);
	if (!room)
		return -ENOMEM;
	got = fd_recv(s->fd, room, 65536, got_fds, &ngot);
	if (got > 0)
		buf_commit(&s->in, (size_t)got);
	if (ngot > FD_PASS_MAX - s->nfds) {
		close_all(got_fds, ngot);
		return -EMFILE;
	}
	memcpy(s->fds + s->nfds, got_fds, ngot * sizeof(int));
	s->nfds += ngot;
	return got;
}

/* Takes the descriptors that @message says came with it off the queue. */
static int take_fds(struct msg_stream *s, const json_t *message, int *fds, size_t *nfds)
{
	int64_t n = json_int(message, "fds", 0);

	if (n < 0 || (size_t)n > s->nfds || (n && !fds))
		return -EBADMSG;
	if (nfds)
		*nfds = (size_t)n;
	if (n)
		memcpy(fds, s->fds, (size_t)n * sizeof(int));
	s->nfds -= (size_t)n;
	memmove(s->fds, s->fds + n, s->nfds * sizeof(int));
	return 0;
}

int msg_recv(struct msg_stream *s, json_t **out, int *fds, size_t *nfds, struct err *err)
{
	CLEAN_JSON json_t *message = NULL;
	uint32_t len;
	ssize_t got;
	int rc;

	for (;;) {
		if (s->in.len >= sizeof(len)) {
			memcpy(&len, buf_bytes(&s->in), sizeof(len));
			len = le32toh(len);
			if (len < 2 || len > MSG_MAX)
				return err_set(err, EBADMSG, "a control message of %u bytes is not allowed", len);
			if (s->in.len - sizeof(len) >= len)
				break;
		}
		got = fill(s);
		if (got == -EAGAIN)
			return -EAGAIN;
		if (got < 0)
			return err_sys(err, (int)-got, "receive a control message");
		if (!got)
			return s->in.len ? err_set(err, EBADMSG, "the peer closed inside a control message") : 0;
	}
	message = json_parse(buf_bytes(&s->in) + sizeof(len), len, "a control message", err);
	buf_consume(&s->in, sizeof(len) + len);
	if (!message)
		return -EBADMSG;
	if (!json_is_object(message))
		return err_set(err, EBADMSG, "a control message is not an object");
	rc = take_fds(s, message, fds, nfds);
	if (rc < 0)
		return err_set(err, -rc, "a control message came with the wrong number of descriptors");
	*out = take_ptr(message);
	return 1;
}

int msg_send(int fd, json_t *message, const int *fds, size_t nfds, struct err *err)
{
	CLEAN_FREE char *text = NULL;
	CLEAN_FREE char *frame = NULL;
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };
	size_t len, done = 0;
	uint32_t le;
	ssize_t put;

	if (!message)
		return err_sys(err, ENOMEM, "send a control message");
	if (nfds && json_object_set_new(message, "fds", json_integer((json_int_t)nfds)) < 0)
		return err_sys(err, ENOMEM, "send a control message");
	text = json_text(message);
	len = text ? strlen(text) : 0;
	frame = text ? malloc(len + sizeof(le)) : NULL;
	if (!frame)
		return err_sys(err, ENOMEM, "send a control message");
	if (len > MSG_MAX)
		return err_set(err, EMSGSIZE, "a control message of %zu bytes is too large", len);
	le = htole32((uint32_t)len);
	memcpy(frame, &le, sizeof(le));
	memcpy(frame + sizeof(le), text, len);
	len += sizeof(le);
	while (done < len) {
		put = fd_send(fd, frame + done, len - done, fds, done ? 0 : nfds);
		if (put == -EAGAIN) {
			if (poll(&pfd, 1, SEND_PATIENCE_MS) <= 0)
				return err_set(err, ETIMEDOUT, "the peer does not read its control messages");
			continue;
		}
		if (put < 0)
			return err_sys(err, (int)-put, "send a control message");
		done += (size_t)put;
	}
	return 0;
}

static json_t *build(const char *key, json_t *value, json_t *message)
{
	if (!value)
		value = json_object();
	if (!message || !value || json_object_set_new(message, key, value) < 0) {
		json_decref(message);
		return NULL;
	}
	return message;
}

json_t *msg_request(int64_t id, const char *method, json_t *params)
{
	return build("params", params, json_pack("{s:I, s:s}", "id", (json_int_t)id, "method", method));
}

json_t *msg_event(const char *event, json_t *params)
{
	return build("params", params, json_pack("{s:s}", "event", event));
}

json_t *msg_result(int64_t id, json_t *result)
{
	return build("result", result, json_pack("{s:I}", "id", (json_int_t)id));
}

json_t *msg_error(int64_t id, const struct err *e)
{
	/* The text may hold bytes of a file name that are not UTF-8: JSON can not carry those. */
	json_t *text = json_string(e->msg);

	return json_pack("{s:I, s:{s:i, s:o}}", "id", (json_int_t)id, "error", "code", e->code, "message",
			 text ? text : json_string("error (its text is not UTF-8)"));
}

int msg_failed(const json_t *answer, struct err *err)
{
	const json_t *e = json_object_get(answer, "error");
	int64_t code;

	if (!e)
		return 0;
	code = json_int(e, "code", EIO);
	if (code <= 0 || code > 4095)
		code = EIO;
	return err_set(err, (int)code, "%s", json_str(e, "message", "the peer reports an error"));
}
