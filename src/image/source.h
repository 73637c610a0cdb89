/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte sources that can be stacked without copying: a source shows its next
 * bytes (p, n); the reader takes some with source_take() and asks for more with
 * source_fill(). A descriptor, a part of another source, a hash on the way, a
 * decompressor.
 */
#ifndef WALNUT_IMAGE_SOURCE_H
#define WALNUT_IMAGE_SOURCE_H

#include <nettle/sha2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct source {
	const uint8_t *p; /* the next bytes, valid until source_fill */
	size_t n;
	/* Show at least one more byte when n is 0. Return: 1, 0 at the end, or -errno. */
	int (*fill)(struct source *s, struct err *err);
	void (*fini)(struct source *s);
};

/* source_fill - make n at least 1. Return: 1, 0 at the end, -errno. */
int source_fill(struct source *s, struct err *err) MUST_CHECK;
static inline void source_take(struct source *s, size_t n)
{
	s->p += n;
	s->n -= n;
}
/* source_read - copy @n bytes or fewer at the end. Return: bytes or -errno. */
long source_read(struct source *s, void *to, size_t n, struct err *err) MUST_CHECK;

struct source_fd {
	struct source s;
	int fd;
	uint8_t *block;
};
int source_fd_init(struct source_fd *f, int fd, struct err *err) MUST_CHECK;
void source_fd_fini(struct source_fd *f);

struct source_mem {
	struct source s;
};
void source_mem_init(struct source_mem *m, const void *bytes, size_t n);

/* Another source's next @left bytes, after a prefix that was already read from it (peeked). */
struct source_part {
	struct source s;
	struct source *from;
	uint8_t prefix[512];
	size_t prefix_len;
	bool prefix_shown;
	size_t shown; /* bytes lent from @from's window */
	uint64_t left;
};
/* source_part_init - peeks at up to 512 bytes, in prefix. -EINVAL if @from ends early is found when reading. */
int source_part_init(struct source_part *p, struct source *from, uint64_t size, struct err *err) MUST_CHECK;
/* source_part_drain - read what is left. */
int source_part_drain(struct source_part *p, struct err *err) MUST_CHECK;

/* Hashes and counts what passes; refuses more than max bytes (0: no limit). */
struct source_hash {
	struct source s;
	struct source *from;
	size_t shown;
	struct sha256_ctx sha;
	uint64_t total;
	uint64_t max;
};
void source_hash_init(struct source_hash *h, struct source *from, uint64_t max);
/* source_hash_text - after the end: "sha256:…" */
#define DIGEST_TEXT 72
void digest_text(const uint8_t sum[SHA256_DIGEST_SIZE], char out[DIGEST_TEXT]);
void source_hash_text(struct source_hash *h, char out[DIGEST_TEXT]);

enum compression { COMPRESSION_NONE, COMPRESSION_GZIP, COMPRESSION_ZSTD };
enum compression compression_guess(const uint8_t *p, size_t n);

struct source_unzip {
	struct source s;
	struct source *from;
	enum compression kind;
	void *stream;
	uint8_t *block;
	bool mid; /* inside a frame or member */
};
int source_unzip_init(struct source_unzip *u, struct source *from, enum compression kind, struct err *err) MUST_CHECK;
void source_unzip_fini(struct source_unzip *u);

#endif
