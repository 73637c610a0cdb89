/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing byte buffer with a limit. Consumed from the front, filled at the
 * back; always followed by a NUL that does not count, so text can be read from it.
 */
#ifndef WALNUT_BASE_BUF_H
#define WALNUT_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct buf {
	char *data;   /* owned; allocated block */
	size_t start; /* offset of the first byte not consumed */
	size_t len;   /* bytes not consumed */
	size_t size;  /* of the block */
	size_t limit; /* len never passes it; 0: 1 GiB */
};

#define BUF_INIT ((struct buf){ 0 })

void buf_free(struct buf *b);
#define CLEAN_BUF __attribute__((cleanup(buf_free), unused))

static inline char *buf_bytes(const struct buf *b)
{
	return b->data ? b->data + b->start : (char *)"";
}

/* buf_reserve - room for @n more bytes at the back. Return: where they go, or NULL (no memory, limit). */
char *buf_reserve(struct buf *b, size_t n) MUST_CHECK;
/* buf_commit - @n bytes of the reserved room were filled. */
void buf_commit(struct buf *b, size_t n);
/* buf_consume - drop @n bytes from the front; @n at most b->len. */
void buf_consume(struct buf *b, size_t n);
/* buf_append, buf_puts, buf_printf - Return: 0, -ENOMEM, or -E2BIG at the limit. */
int buf_append(struct buf *b, const void *bytes, size_t n) MUST_CHECK;
int buf_puts(struct buf *b, const char *text) MUST_CHECK;
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3))) MUST_CHECK;

/* buf_read - one read(2) of at most @max bytes. Return: bytes, 0 at end of file, -errno (-EAGAIN too). */
ssize_t buf_read(struct buf *b, int fd, size_t max) MUST_CHECK;
/* buf_write - one write(2) of what there is; consumes it. Return: bytes written or -errno. */
ssize_t buf_write(struct buf *b, int fd) MUST_CHECK;

#endif
