/* SPDX-License-Identifier: Apache-2.0 */
/* Stacked byte sources; gzip members and zstd frames may follow each other (RFC 1952, RFC 8878). */
#include "image/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#define BLOCK (1U << 20)

int source_fill(struct source *s, struct err *err)
{
	return s->n ? 1 : s->fill(s, err);
}

long source_read(struct source *s, void *to, size_t n, struct err *err)
{
	size_t done = 0;

	while (done < n) {
		int rc = source_fill(s, err);

		if (rc < 0)
			return rc;
		if (rc == 0)
			break;
		size_t step = s->n < n - done ? s->n : n - done;

		memcpy((uint8_t *)to + done, s->p, step);
		source_take(s, step);
		done += step;
	}
	return (long)done;
}

static int fd_fill(struct source *s, struct err *err)
{
	struct source_fd *f = (struct source_fd *)s;
	ssize_t n;

	do {
		n = read(f->fd, f->block, BLOCK);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_sys(err, errno, "cannot read the archive");
	s->p = f->block;
	s->n = (size_t)n;
	return n > 0;
}

int source_fd_init(struct source_fd *f, int fd, struct err *err)
{
	*f = (struct source_fd){ .s.fill = fd_fill, .fd = fd, .block = malloc(BLOCK) };
	return f->block ? 0 : err_set(err, ENOMEM, "no memory to read the archive");
}

void source_fd_fini(struct source_fd *f)
{
	free(f->block);
	f->block = NULL;
}

static int mem_fill(struct source *s, struct err *err)
{
	return 0;
}

void source_mem_init(struct source_mem *m, const void *bytes, size_t n)
{
	*m = (struct source_mem){ .s = { .p = bytes, .n = n, .fill = mem_fill } };
}

static int part_fill(struct source *s, struct err *err)
{
	struct source_part *p = (struct source_part *)s;
	int rc;

	if (!p->prefix_shown) {
		p->prefix_shown = true;
		s->p = p->prefix;
		s->n = p->prefix_len;
		if (s->n)
			return 1;
	}
	source_take(p->from, p->shown);
	p->shown = 0;
	if (p->left == 0)
		return 0;
	rc = source_fill(p->from, err);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return err_set(err, EINVAL, "the archive is cut short (unexpected EOF)");
	p->shown = p->from->n < p->left ? p->from->n : (size_t)p->left;
	p->left -= p->shown;
	s->p = p->from->p;
	s->n = p->shown;
	return 1;
}

int source_part_init(struct source_part *p, struct source *from, uint64_t size, struct err *err)
{
	size_t want = size < sizeof(p->prefix) ? (size_t)size : sizeof(p->prefix);
	long got;

	*p = (struct source_part){ .s.fill = part_fill, .from = from };
	got = source_read(from, p->prefix, want, err);
	if (got < 0)
		return (int)got;
	if ((size_t)got < want)
		return err_set(err, EINVAL, "the archive is cut short (unexpected EOF)");
	p->prefix_len = want;
	p->left = size - want;
	return 0;
}

int source_part_drain(struct source_part *p, struct err *err)
{
	int rc;

	do {
		source_take(&p->s, p->s.n);
		rc = source_fill(&p->s, err);
	} while (rc > 0);
	return rc;
}

static int hash_fill(struct source *s, struct err *err)
{
	struct source_hash *h = (struct source_hash *)s;
	int rc;

	source_take(h->from, h->shown);
	h->shown = 0;
	rc = source_fill(h->from, err);
	if (rc <= 0)
		return rc;
	h->shown = h->from->n;
	h->total += h->shown;
	if (h->max && h->total > h->max)
		return err_set(err, EFBIG, "a layer is larger than the limit of %llu bytes",
			       (unsigned long long)h->max);
	sha256_update(&h->sha, h->shown, h->from->p);
	s->p = h->from->p;
	s->n = h->shown;
	return 1;
}

void source_hash_init(struct source_hash *h, struct source *from, uint64_t max)
{
	*h = (struct source_hash){ .s.fill = hash_fill, .from = from, .max = max };
	sha256_init(&h->sha);
}

void digest_text(const uint8_t sum[SHA256_DIGEST_SIZE], char out[DIGEST_TEXT])
{
	static const char hex[] = "0123456789abcdef";

	memcpy(out, "sha256:", 7);
	for (size_t i = 0; i < SHA256_DIGEST_SIZE; i++) {
		out[7 + 2 * i] = hex[sum[i] >> 4];
		out[8 + 2 * i] = hex[sum[i] & 15];
	}
	out[71] = 0;
}

void source_hash_text(struct source_hash *h, char out[DIGEST_TEXT])
{
	uint8_t sum[SHA256_DIGEST_SIZE];

	sha256_digest(&h->sha, sizeof(sum), sum);
	digest_text(sum, out);
}

enum compression compression_guess(const uint8_t *p, size_t n)
{
	if (n >= 3 && p[0] == 0x1f && p[1] == 0x8b && p[2] == 8)
		return COMPRESSION_GZIP;
	if (n >= 4 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd && p[0] == 0x28)
		return COMPRESSION_ZSTD;
	return COMPRESSION_NONE;
}

static int gzip_fill(struct source *s, struct err *err)
{
	struct source_unzip *u = (struct source_unzip *)s;
	z_stream *z = u->stream;

	z->next_out = u->block;
	z->avail_out = BLOCK;
	while (z->avail_out == BLOCK) {
		int rc = source_fill(u->from, err);

		if (rc < 0)
			return rc;
		if (rc == 0 && u->mid)
			return err_set(err, EINVAL, "the gzip data is cut short (unexpected EOF)");
		if (rc == 0)
			return 0;
		z->next_in = (Bytef *)(uintptr_t)u->from->p;
		z->avail_in = (uInt)u->from->n;
		u->mid = true;
		rc = inflate(z, Z_NO_FLUSH);
		source_take(u->from, u->from->n - z->avail_in);
		if (rc == Z_STREAM_END) {
			u->mid = false;
			(void)inflateReset(z);
		} else if (rc != Z_OK && rc != Z_BUF_ERROR) {
			return err_set(err, EINVAL, "damaged gzip data: %s",
				       z->msg ? z->msg : "cannot be decompressed");
		}
	}
	s->p = u->block;
	s->n = BLOCK - z->avail_out;
	return 1;
}

static int zstd_fill(struct source *s, struct err *err)
{
	struct source_unzip *u = (struct source_unzip *)s;
	ZSTD_outBuffer out = { u->block, BLOCK, 0 };

	while (out.pos == 0) {
		int rc = source_fill(u->from, err);

		if (rc < 0)
			return rc;
		if (rc == 0 && !u->mid)
			return 0;
		/* At the input's end the decoder may still hold output. */
		ZSTD_inBuffer in = { u->from->p, rc ? u->from->n : 0, 0 };
		size_t hint = ZSTD_decompressStream(u->stream, &out, &in);

		if (ZSTD_isError(hint))
			return err_set(err, EINVAL, "damaged zstd data: %s", ZSTD_getErrorName(hint));
		source_take(u->from, in.pos);
		u->mid = hint != 0;
		if (rc == 0 && out.pos == 0 && u->mid)
			return err_set(err, EINVAL, "the zstd data is cut short (unexpected EOF)");
	}
	s->p = u->block;
	s->n = out.pos;
	return 1;
}

int source_unzip_init(struct source_unzip *u, struct source *from, enum compression kind, struct err *err)
{
	*u = (struct source_unzip){ .from = from, .kind = kind, .block = malloc(BLOCK) };
	if (kind == COMPRESSION_GZIP) {
		z_stream *z = calloc(1, sizeof(*z));

		u->s.fill = gzip_fill;
		if (z && inflateInit2(z, 15 + 16) != Z_OK) {
			free(z);
			z = NULL;
		}
		u->stream = z;
	} else {
		u->s.fill = zstd_fill;
		u->stream = ZSTD_createDStream();
		if (u->stream)
			(void)ZSTD_DCtx_setParameter(u->stream, ZSTD_d_windowLogMax, 27);
	}
	if (!u->stream || !u->block) {
		source_unzip_fini(u);
		return err_set(err, ENOMEM, "no memory to decompress the archive");
	}
	return 0;
}

void source_unzip_fini(struct source_unzip *u)
{
	if (u->stream && u->kind == COMPRESSION_GZIP) {
		(void)inflateEnd(u->stream);
		free(u->stream);
	} else if (u->stream) {
		(void)ZSTD_freeDStream(u->stream);
	}
	free(u->block);
	u->stream = NULL;
	u->block = NULL;
}
