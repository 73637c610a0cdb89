/* SPDX-License-Identifier: Apache-2.0 */
/* From a layer's tar to EROFS and recipe, and back. */
#include "image/layer.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "image/erofs_write.h"
#include "image/tar.h"

#define LITERAL (64U << 10)
#define COPY    (1U << 20)

struct recipe {
	int fd;
	ZSTD_CCtx *z;
	uint8_t *literal, *out;
	size_t len;
	uint64_t range_at, range_len;
	uint64_t size;
};

static int recipe_put(struct recipe *r, const void *bytes, size_t n, ZSTD_EndDirective end, struct err *err)
{
	ZSTD_inBuffer in = { bytes, n, 0 };
	size_t left;

	do {
		ZSTD_outBuffer out = { r->out, LITERAL, 0 };
		int rc;

		left = ZSTD_compressStream2(r->z, &out, &in, end);
		if (ZSTD_isError(left))
			return err_set(err, EIO, "cannot compress a layer's recipe: %s", ZSTD_getErrorName(left));
		rc = fd_write_full(r->fd, r->out, out.pos);
		if (rc < 0)
			return err_sys(err, -rc, "cannot write a layer's recipe");
		r->size += out.pos;
	} while (end == ZSTD_e_end ? left != 0 : in.pos < in.size);
	return 0;
}

static int recipe_flush(struct recipe *r, struct err *err)
{
	int rc = 0;

	if (r->range_len) {
		uint8_t rec[17] = { 'R' };
		uint64_t at = htole64(r->range_at), len = htole64(r->range_len);

		memcpy(rec + 1, &at, 8);
		memcpy(rec + 9, &len, 8);
		rc = recipe_put(r, rec, sizeof(rec), ZSTD_e_continue, err);
		r->range_len = 0;
	}
	if (rc == 0 && r->len) {
		uint8_t rec[5] = { 'L' };
		uint32_t len = htole32((uint32_t)r->len);

		memcpy(rec + 1, &len, 4);
		rc = recipe_put(r, rec, sizeof(rec), ZSTD_e_continue, err);
		if (rc == 0)
			rc = recipe_put(r, r->literal, r->len, ZSTD_e_continue, err);
		r->len = 0;
	}
	return rc;
}

static int recipe_literal(void *arg, const void *bytes, size_t n, struct err *err)
{
	struct recipe *r = arg;
	const uint8_t *p = bytes;

	while (n) {
		size_t step = LITERAL - r->len < n ? LITERAL - r->len : n;

		if (r->range_len || r->len == LITERAL) {
			int rc = recipe_flush(r, err);

			if (rc < 0)
				return rc;
			continue;
		}
		memcpy(r->literal + r->len, p, step);
		r->len += step;
		p += step;
		n -= step;
	}
	return 0;
}

static int recipe_range(struct recipe *r, uint64_t at, uint64_t n, struct err *err)
{
	int rc = 0;

	if (r->len || (r->range_len && r->range_at + r->range_len != at))
		rc = recipe_flush(r, err);
	if (!r->range_len)
		r->range_at = at;
	r->range_len += n;
	return rc;
}

static void recipe_fini(struct recipe *r)
{
	(void)ZSTD_freeCCtx(r->z);
	free(r->literal);
	free(r->out);
}

static int copy_file(struct tar_reader *t, struct erofs_writer *w, struct recipe *r, uint64_t base, struct err *err)
{
	struct tar_segment whole = { 0, t->entry.size };
	const struct tar_segment *s = t->entry.sparse ? t->entry.segments : &whole;
	size_t left = t->entry.sparse ? t->entry.nsegments : 1;
	uint64_t at = 0;
	const uint8_t *p;
	size_t n;
	int rc;

	while ((rc = tar_data(t, &p, &n, err)) > 0) {
		while (n) {
			while (left && at == s->len) {
				s++;
				left--;
				at = 0;
			}
			if (!left)
				return err_set(err, EINVAL, "the tar archive has a bad map of a sparse file");
			size_t step = s->len - at < n ? (size_t)(s->len - at) : n;

			rc = erofs_data(w, base + s->offset + at, p, step, err);
			if (rc == 0)
				rc = recipe_range(r, base + s->offset + at, step, err);
			if (rc < 0)
				return rc;
			at += step;
			p += step;
			n -= step;
		}
	}
	return rc;
}

static int convert(struct source_hash *h, struct erofs_writer *w, struct recipe *r, struct err *err)
{
	struct tar_reader t;
	int rc;

	tar_init(&t, &h->s);
	t.literal = recipe_literal;
	t.arg = r;
	while ((rc = tar_next(&t, err)) > 0) {
		uint64_t at;

		rc = erofs_add(w, &t.entry, &at, err);
		if (rc == 0 && t.entry.type == '0' && t.entry.size)
			rc = copy_file(&t, w, r, at, err);
		if (rc < 0)
			break;
	}
	tar_fini(&t);
	return rc;
}

int layer_convert(struct source *tar, int erofs, int recipe, uint64_t max, struct layer_info *out, struct err *err)
{
	struct recipe r = { .fd = recipe, .z = ZSTD_createCCtx(), .literal = malloc(LITERAL), .out = malloc(LITERAL) };
	struct erofs_writer *w = erofs_new(erofs);
	uint8_t sum[SHA256_DIGEST_SIZE];
	struct source_hash h;
	int rc;

	*out = (struct layer_info){ 0 };
	source_hash_init(&h, tar, max);
	if (!r.z || !r.literal || !r.out || !w)
		rc = err_set(err, ENOMEM, "no memory to convert a layer");
	else
		rc = convert(&h, w, &r, err);
	if (rc == 0)
		rc = recipe_flush(&r, err);
	if (rc == 0)
		rc = recipe_put(&r, "E", 1, ZSTD_e_end, err);
	if (rc == 0) {
		sha256_digest(&h.sha, sizeof(sum), sum);
		digest_text(sum, out->diff_id);
		out->tar_size = h.total;
		rc = erofs_finish(w, sum, &out->erofs_size, &out->content, err);
	}
	out->recipe_size = r.size;
	erofs_free(w);
	recipe_fini(&r);
	return rc;
}

struct output {
	layer_sink sink;
	void *arg;
	struct sha256_ctx sha;
	uint8_t *block;
};

static int emit(struct output *o, const void *bytes, size_t n, struct err *err)
{
	sha256_update(&o->sha, n, bytes);
	return o->sink(o->arg, bytes, n, err);
}

static int emit_range(struct output *o, int erofs, uint64_t at, uint64_t n, struct err *err)
{
	while (n) {
		ssize_t got = pread(erofs, o->block, n < COPY ? (size_t)n : COPY, (off_t)at);
		int rc;

		if (got <= 0)
			return err_set(err, EIO, "a layer of the store is damaged: its file is too short");
		rc = emit(o, o->block, (size_t)got, err);
		if (rc < 0)
			return rc;
		at += (uint64_t)got;
		n -= (uint64_t)got;
	}
	return 0;
}

static int rebuild(struct source *s, int erofs, struct output *o, struct err *err)
{
	for (;;) {
		uint8_t rec[16], op;
		uint64_t at, len;
		uint32_t n;
		int rc;

		if (source_read(s, &op, 1, err) != 1)
			break;
		if (op == 'E')
			return 0;
		if (op == 'R' && source_read(s, rec, 16, err) == 16) {
			memcpy(&at, rec, 8);
			memcpy(&len, rec + 8, 8);
			rc = emit_range(o, erofs, le64toh(at), le64toh(len), err);
		} else if (op == 'L' && source_read(s, &n, 4, err) == 4 && (n = le32toh(n)) <= LITERAL &&
			   source_read(s, o->block, n, err) == (long)n) {
			rc = emit(o, o->block, n, err);
		} else {
			break;
		}
		if (rc < 0)
			return rc;
	}
	return err_set(err, EIO, "a layer of the store is damaged: its recipe cannot be read");
}

int layer_rebuild(int erofs, int recipe, layer_sink sink, void *arg, char digest[DIGEST_TEXT], struct err *err)
{
	struct output o = { .sink = sink, .arg = arg, .block = malloc(COPY) };
	uint8_t sum[SHA256_DIGEST_SIZE];
	struct source_fd in = { 0 };
	struct source_unzip z = { 0 };
	int rc = o.block ? source_fd_init(&in, recipe, err) : err_set(err, ENOMEM, "no memory to save a layer");

	sha256_init(&o.sha);
	if (rc == 0)
		rc = source_unzip_init(&z, &in.s, COMPRESSION_ZSTD, err);
	if (rc == 0)
		rc = rebuild(&z.s, erofs, &o, err);
	if (rc == 0) {
		sha256_digest(&o.sha, sizeof(sum), sum);
		digest_text(sum, digest);
	}
	source_unzip_fini(&z);
	source_fd_fini(&in);
	free(o.block);
	return rc;
}
