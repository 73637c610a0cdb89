/* SPDX-License-Identifier: Apache-2.0 */
/* The growing byte buffer. */
#include "base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUF_DEFAULT_LIMIT ((size_t)1 << 30)

void buf_free(struct buf *b)
{
	free(b->data);
	*b = (struct buf){ .limit = b->limit };
}

char *buf_reserve(struct buf *b, size_t n)
{
	size_t limit = b->limit ? b->limit : BUF_DEFAULT_LIMIT;
	size_t want, size;
	char *grown;

	if (n > limit || b->len > limit - n)
		return NULL;
	want = b->len + n + 1;
	if (b->start + want <= b->size)
		return b->data + b->start + b->len;
	if (b->start) {
		memmove(b->data, b->data + b->start, b->len);
		b->start = 0;
	}
	if (want > b->size) {
		size = b->size ? b->size : 256;
		while (size < want)
			size *= 2;
		grown = realloc(b->data, size);
		if (!grown)
			return NULL;
		b->data = grown;
		b->size = size;
	}
	return b->data + b->len;
}

void buf_commit(struct buf *b, size_t n)
{
	b->len += n;
	b->data[b->start + b->len] = '\0';
}

void buf_consume(struct buf *b, size_t n)
{
	bug_on(n > b->len);
	b->start += n;
	b->len -= n;
	if (!b->len) {
		b->start = 0;
		if (b->data)
			b->data[0] = '\0';
	}
}

static int buf_no_room(const struct buf *b, size_t n)
{
	size_t limit = b->limit ? b->limit : BUF_DEFAULT_LIMIT;

	return n > limit || b->len > limit - n ? -E2BIG : -ENOMEM;
}

int buf_append(struct buf *b, const void *bytes, size_t n)
{
	char *room = buf_reserve(b, n);

	if (!room)
		return buf_no_room(b, n);
	if (n)
		memcpy(room, bytes, n);
	buf_commit(b, n);
	return 0;
}

int buf_puts(struct buf *b, const char *text)
{
	return buf_append(b, text, strlen(text));
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	char *room;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return -EINVAL;
	room = buf_reserve(b, (size_t)n);
	if (!room)
		return buf_no_room(b, (size_t)n);
	va_start(ap, fmt);
	(void)vsnprintf(room, (size_t)n + 1, fmt, ap);
	va_end(ap);
	buf_commit(b, (size_t)n);
	return 0;
}

ssize_t buf_read(struct buf *b, int fd, size_t max)
{
	char *room = buf_reserve(b, max);
	ssize_t n;

	if (!room)
		return buf_no_room(b, max);
	do
		n = read(fd, room, max);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	buf_commit(b, (size_t)n);
	return n;
}

ssize_t buf_write(struct buf *b, int fd)
{
	ssize_t n;

	do {
		n = send(fd, buf_bytes(b), b->len, MSG_NOSIGNAL);
		if (n < 0 && errno == ENOTSOCK)
			n = write(fd, buf_bytes(b), b->len);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	buf_consume(b, (size_t)n);
	return n;
}
