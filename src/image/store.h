/* SPDX-License-Identifier: Apache-2.0 */
/* What the store's own sources share. */
#ifndef WALNUT_IMAGE_STORE_H
#define WALNUT_IMAGE_STORE_H

#include "image/image.h"

struct image_store {
	char *data, *dir, *worker, *fetcher;
	unsigned uid, gid;
	uint64_t max_layer;
	const char *const *insecure, *const *mirrors;
	const char *certs;
	struct image **images;
	size_t n;
	json_t *ready;      /* layers that a pull has stored, by the registry's digest; kept for the next pull */
	struct pull *pulls; /* under way */
};

/* store_put_blob - write bytes as a blob, if it is not there. @digest of 72 bytes is set. */
int store_put_blob(struct image_store *s, const void *bytes, size_t n, char *digest, struct err *err) MUST_CHECK;
/**
 * store_add - add an image whose blobs are in place, in memory
 * @layers: array of {diff_id, erofs, recipe, tar_size, erofs_size, recipe_size, size, blob}
 * @tags: array of names; they move from the images that had them
 *
 * Follow it with store_commit, or store_revert after an error.
 */
int store_add(struct image_store *s, const char *config, size_t len, json_t *layers, const json_t *tags,
	      const struct image **out, struct err *err) MUST_CHECK;
/* store_commit - write index.json; when that fails, revert. */
int store_commit(struct image_store *s, struct err *err) MUST_CHECK;
/* store_revert - be again what index.json says, and collect. All images move in memory. */
void store_revert(struct image_store *s);
/* store_collect - remove blobs that no image needs. */
void store_collect(struct image_store *s);
/* store_ready_save - write down the ready layers. store_ready_read - at the start; stale ones are forgotten. */
int store_ready_save(struct image_store *s, struct err *err) MUST_CHECK;
void store_ready_read(struct image_store *s);
/* store_layer - the record of a layer by a registry's digest: {diff_id, erofs, ...}. New reference or NULL. */
json_t *store_layer(const struct image_store *s, const char *digest) MUST_CHECK;
/* store_name - @text ("name:tag" or "name@digest") names @im from now on, and no other. */
int store_name(struct image_store *s, struct image *im, const char *text, struct err *err) MUST_CHECK;
bool store_drop_name(struct image *im, const char *name);
struct image *store_by_id(const struct image_store *s, const char *id) MUST_CHECK;
char *store_blob_path(const struct image_store *s, const char *digest) MUST_CHECK;
void store_image_free(struct image *im);

#endif
