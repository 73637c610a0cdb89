/* SPDX-License-Identifier: Apache-2.0 */
/* Removing images: Docker's rules for names, ids and users; and the blobs that no image needs. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/source.h"
#include "image/store.h"

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "no memory for the image store");
}

/* needed - the set of digests that images refer to. New reference. */
static json_t *needed(const struct image_store *s)
{
	json_t *set = json_object();

	for (size_t i = 0; i < s->n; i++) {
		const struct image *im = s->images[i];

		json_object_set_new(set, im->id + 7, json_true());
		json_object_set_new(set, im->manifest_digest + 7, json_true());
		for (size_t k = 0; k < im->nlayers; k++) {
			json_object_set_new(set, im->layers[k].erofs_digest + 7, json_true());
			json_object_set_new(set, im->layers[k].recipe_digest + 7, json_true());
		}
	}
	const char *digest;
	json_t *layer;

	json_object_foreach(s->ready, digest, layer) {
		json_object_set_new(set, json_str(layer, "erofs", "sha256:") + 7, json_true());
		json_object_set_new(set, json_str(layer, "recipe", "sha256:") + 7, json_true());
	}
	return set;
}

void store_collect(struct image_store *s)
{
	CLEAN_JSON json_t *keep = needed(s);
	CLEAN_FREE char *path = NULL;
	struct dirent *e;

	if (!keep || asprintf(&path, "%s/blobs/sha256", s->dir) < 0)
		return;
	CLEAN_DIR DIR *dir = opendir(path);

	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] != '.' && !json_object_get(keep, e->d_name))
			(void)unlinkat(dirfd(dir), e->d_name, 0);
	}
}

static bool layer_shared(const struct image_store *s, const struct image_layer *l)
{
	for (size_t i = 0; i < s->n; i++)
		for (size_t k = 0; k < s->images[i]->nlayers; k++)
			if (!strcmp(s->images[i]->layers[k].erofs_digest, l->erofs_digest))
				return true;
	return false;
}

/* chain_ids - the layers' chain ids (OCI image-spec, config.md: "Layer ChainID"). */
static void chain_id(const struct image *im, size_t n, char out[DIGEST_TEXT])
{
	char text[2 * DIGEST_TEXT];
	uint8_t sum[SHA256_DIGEST_SIZE];
	struct sha256_ctx sha;

	(void)snprintf(out, DIGEST_TEXT, "%.71s", im->layers[0].diff_id);
	for (size_t i = 1; i <= n; i++) {
		(void)snprintf(text, sizeof(text), "%s %.71s", out, im->layers[i].diff_id);
		sha256_init(&sha);
		sha256_update(&sha, strlen(text), (const uint8_t *)text);
		sha256_digest(&sha, sizeof(sum), sum);
		digest_text(sum, out);
	}
}

/* take_out - an image without names leaves the list; what it alone had is reported. The caller commits and collects. */
static void take_out(struct image_store *s, struct image *im, json_t *out, uint64_t *freed)
{
	size_t i = 0;

	while (s->images[i] != im)
		i++;
	memmove(&s->images[i], &s->images[i + 1], (s->n - i - 1) * sizeof(*s->images));
	s->n--;
	json_array_append_new(out, json_pack("{s:s}", "Deleted", im->id));
	for (i = im->nlayers; i-- > 0;) {
		char chain[DIGEST_TEXT];

		if (layer_shared(s, &im->layers[i]))
			continue;
		chain_id(im, i, chain);
		json_array_append_new(out, json_pack("{s:s}", "Deleted", chain));
		*freed += im->layers[i].size;
	}
	store_image_free(im);
}

static void untag_all(struct image *im, json_t *out)
{
	while (im->nrepo_tags || im->nrepo_digests) {
		const char *name = im->nrepo_tags ? im->repo_tags[0] : im->repo_digests[0];
		CLEAN_FREE char *copy = strdup(name);

		json_array_append_new(out, json_pack("{s:s}", "Untagged", name));
		if (!copy || !store_drop_name(im, copy))
			break;
	}
}

static int finish(struct image_store *s, struct err *err)
{
	int rc = store_commit(s, err);

	if (rc == 0)
		store_collect(s);
	return rc;
}

/* repository - length of the name before its tag or digest */
static size_t repository(const char *name)
{
	const char *at = strchr(name, '@'), *slash = strrchr(name, '/'), *colon;

	if (at)
		return (size_t)(at - name);
	colon = strchr(slash ? slash : name, ':');
	return colon ? (size_t)(colon - name) : strlen(name);
}

static bool same_repository(const char *a, const char *b)
{
	size_t n = repository(a);

	return n == repository(b) && !strncmp(a, b, n);
}

/* single_reference - at most one tag, and all digests in its repository. */
static bool single_reference(const struct image *im)
{
	const char *first = im->nrepo_tags ? im->repo_tags[0] : im->nrepo_digests ? im->repo_digests[0] : NULL;

	for (size_t i = 0; i < im->nrepo_digests; i++)
		if (!same_repository(first, im->repo_digests[i]))
			return false;
	return im->nrepo_tags <= 1;
}

/* conflict - why an image may not go; Docker's words. @named_too: names count. */
static int conflict(const struct image *im, enum image_use use, const char *who, bool force, bool named_too,
		    struct err *err)
{
	const char *why = NULL;

	if (use == IMAGE_USED_RUNNING)
		return err_set(
			err, EBUSY,
			"conflict: unable to delete %.12s (cannot be forced) - image is being used by running container %s",
			im->id + 7, who);
	if (force)
		return 0;
	if (named_too && im->nrepo_tags + im->nrepo_digests)
		why = "image is referenced in multiple repositories";
	else if (use == IMAGE_USED_STOPPED)
		return err_set(
			err, EBUSY,
			"conflict: unable to delete %.12s (must be forced) - image is being used by stopped container %s",
			im->id + 7, who);
	return why ? err_set(err, EBUSY, "conflict: unable to delete %.12s (must be forced) - %s", im->id + 7, why) : 0;
}

/* untag - drop the name, and the digests of its repository with its last tag. */
static void untag(struct image *im, const char *name, json_t *out)
{
	bool tag_left = false;

	(void)store_drop_name(im, name);
	json_array_append_new(out, json_pack("{s:s}", "Untagged", name));
	for (size_t i = 0; i < im->nrepo_tags; i++)
		tag_left = tag_left || same_repository(im->repo_tags[i], name);
	for (size_t i = im->nrepo_digests; !strchr(name, '@') && !tag_left && i-- > 0;) {
		CLEAN_FREE char *digest = strdup(im->repo_digests[i]);

		if (!digest || !same_repository(digest, name))
			continue;
		json_array_append_new(out, json_pack("{s:s}", "Untagged", digest));
		(void)store_drop_name(im, digest);
	}
}

static bool is_id(const struct image *im, const char *ref)
{
	return !strncmp(im->id, ref, strlen(ref)) || !strncmp(im->id + 7, ref, strlen(ref));
}

int image_remove(struct image_store *s, const char *ref, bool force, image_use_fn use, void *arg, json_t **out,
		 struct err *err)
{
	const struct image *found = image_find(s, ref, err);
	struct image *im = found ? store_by_id(s, found->id) : NULL;
	CLEAN_JSON json_t *list = json_array();
	struct image_ref r;
	char name[600], who[128] = "";
	uint64_t freed = 0;
	int rc = 0;

	if (!im)
		return -err->code;
	enum image_use u = use ? use(arg, im->id, who, sizeof(who)) : IMAGE_UNUSED;
	bool by_name = !is_id(im, ref) && image_ref_parse(ref, true, &r, NULL) == 0;

	if (by_name) {
		if (r.digest[0])
			r.tag[0] = 0;
		image_ref_familiar(&r, name, sizeof(name));
		if (!force && single_reference(im) && u != IMAGE_UNUSED)
			return err_set(
				err, EBUSY,
				"conflict: unable to remove repository reference \"%.200s\" (must force) - container %s is using its referenced image %.12s",
				ref, who, im->id + 7);
		untag(im, name, list);
		/* What still has a name, or a user, stays. */
		if (im->nrepo_tags + im->nrepo_digests == 0 && conflict(im, u, who, force, false, NULL) == 0)
			take_out(s, im, list, &freed);
	} else {
		rc = conflict(im, u, who, force, !single_reference(im), err);
		if (rc < 0)
			return rc;
		untag_all(im, list);
		take_out(s, im, list, &freed);
	}
	rc = finish(s, err);
	if (rc == 0)
		*out = json_incref(list);
	return rc;
}

int image_prune(struct image_store *s, image_pick_fn pick, image_use_fn use, void *arg, json_t **out, uint64_t *freed,
		struct err *err)
{
	CLEAN_JSON json_t *list = json_array();
	char who[128];

	*freed = 0;
	if (!list)
		return no_memory(err);
	for (size_t i = s->n; i-- > 0;) {
		struct image *im = s->images[i];

		if (pick ? !pick(arg, im) : im->nrepo_tags != 0)
			continue;
		if (use && use(arg, im->id, who, sizeof(who)) != IMAGE_UNUSED)
			continue;
		untag_all(im, list);
		take_out(s, im, list, freed);
	}
	/* Layers of pulls that never ended are garbage too. */
	if (!s->pulls) {
		json_object_clear(s->ready);
		(void)!store_ready_save(s, NULL);
	}
	int rc = finish(s, err);

	if (rc == 0)
		*out = json_incref(list);
	return rc;
}
