/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer's two forms: its tar, and an EROFS file with a recipe that says how to
 * make the tar from it. The recipe is a zstd stream of records: 'L' u32 length
 * and that many bytes; 'R' u64 offset, u64 length of a range of the EROFS file;
 * 'E' the end (little-endian).
 */
#ifndef WALNUT_IMAGE_LAYER_H
#define WALNUT_IMAGE_LAYER_H

#include "image/source.h"

struct layer_info {
	char diff_id[DIGEST_TEXT];
	uint64_t tar_size, erofs_size, recipe_size, content;
};

/* layer_convert - read an uncompressed tar to its end; write the two empty files. @max: bytes of the tar, 0: no limit. */
int layer_convert(struct source *tar, int erofs, int recipe, uint64_t max, struct layer_info *out,
		  struct err *err) MUST_CHECK;
/* layer_rebuild - give the tar to @sink, piece by piece; *digest: of what was given. */
typedef int (*layer_sink)(void *arg, const void *bytes, size_t n, struct err *err);
int layer_rebuild(int erofs, int recipe, layer_sink sink, void *arg, char digest[DIGEST_TEXT],
		  struct err *err) MUST_CHECK;

#endif
