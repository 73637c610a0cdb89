/* SPDX-License-Identifier: Apache-2.0 */
/* What the store's own sources share. */
#ifndef WALNUT_IMAGE_STORE_H
#define WALNUT_IMAGE_STORE_H

#include "image/image.h"

struct image_store {
	char *data, *dir, *worker;
	unsigned uid, gid;
	uint64_t max_layer;
	struct image **images;
	size_t n;
	unsigned serial;
};

/* store_put_blob - write bytes as a blob, if it is not there. @digest of 72 bytes is set. */
int store_put_blob(struct image_store *s, const void *bytes, size_t n, char *digest, struct err *err) MUST_CHECK;
/**
 * store_add - add an image whose blobs are in place, and write index.json
 * @layers: array of {diff_id, erofs, recipe, tar_size, erofs_size, recipe_size, size}
 * @tags: array of names; they move from the images that had them
 */
int store_add(struct image_store *s, const char *config, size_t len, json_t *layers, const json_t *tags,
	      const struct image **out, struct err *err) MUST_CHECK;

#endif
