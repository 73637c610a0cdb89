/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store. All images are in memory; index.json is rewritten whole at each
 * change. A name appears once. Blobs are deleted when no image needs them.
 */
#include "image/store.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "image/source.h"

#define JSON_MAX (8U << 20)

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "no memory for the image store");
}

static void image_free(struct image *im)
{
	if (!im)
		return;
	for (size_t i = 0; i < im->nrepo_tags; i++)
		free(im->repo_tags[i]);
	for (size_t i = 0; i < im->nlayers; i++) {
		free(im->layers[i].diff_id);
		free(im->layers[i].erofs_path);
		free(im->layers[i].erofs_digest);
		free(im->layers[i].recipe_digest);
	}
	free(im->repo_tags);
	free(im->repo_digests);
	free(im->layers);
	free(im->manifest_digest);
	free(im->id);
	json_decref(im->config);
	free(im);
}

static char *blob_path(const struct image_store *s, const char *digest)
{
	char *p = NULL;

	return strlen(digest) == 71 && asprintf(&p, "%s/blobs/sha256/%s", s->dir, digest + 7) >= 0 ? p : NULL;
}

static int add_name(struct image *im, const char *name)
{
	char **more = realloc(im->repo_tags, (im->nrepo_tags + 2) * sizeof(char *));

	if (!more)
		return -ENOMEM;
	im->repo_tags = more;
	more[im->nrepo_tags] = strdup(name);
	if (!more[im->nrepo_tags])
		return -ENOMEM;
	more[++im->nrepo_tags] = NULL;
	return 0;
}

static bool drop_name(struct image *im, const char *name)
{
	for (size_t i = 0; i < im->nrepo_tags; i++) {
		if (strcmp(im->repo_tags[i], name) != 0)
			continue;
		free(im->repo_tags[i]);
		memmove(&im->repo_tags[i], &im->repo_tags[i + 1], (im->nrepo_tags - i) * sizeof(char *));
		im->nrepo_tags--;
		return true;
	}
	return false;
}

int store_put_blob(struct image_store *s, const void *bytes, size_t n, char *digest, struct err *err)
{
	struct sha256_ctx sha;
	uint8_t sum[SHA256_DIGEST_SIZE];

	sha256_init(&sha);
	sha256_update(&sha, n, bytes);
	sha256_digest(&sha, sizeof(sum), sum);
	digest_text(sum, digest);
	CLEAN_FREE char *path = blob_path(s, digest);

	if (!path)
		return no_memory(err);
	return access(path, F_OK) == 0 ? 0 : fd_replace_file(AT_FDCWD, path, bytes, n, 0444, err);
}

static int64_t parse_created(const char *text)
{
	struct tm tm = { 0 };

	return strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) ? (int64_t)timegm(&tm) : 0;
}

static int make_manifest(struct image_store *s, struct image *im, json_t *layers, struct err *err)
{
	char digest[DIGEST_TEXT];
	CLEAN_JSON json_t *m = json_pack("{s:i,s:s,s:{s:s,s:s,s:I},s:[],s:O}", "schemaVersion", 2, "mediaType",
					 "application/vnd.oci.image.manifest.v1+json", "config", "mediaType",
					 "application/vnd.oci.image.config.v1+json", "digest", im->id, "size",
					 (json_int_t)im->config_size, "layers", "walnut.layers", layers);

	for (size_t i = 0; i < im->nlayers; i++)
		json_array_append_new(json_object_get(m, "layers"),
				      json_pack("{s:s,s:s,s:I}", "mediaType", "application/vnd.walnut.layer.v1.erofs",
						"digest", im->layers[i].erofs_digest, "size",
						(json_int_t)im->layers[i].erofs_size));
	CLEAN_FREE char *text = m ? json_text(m) : NULL;

	if (!text || store_put_blob(s, text, strlen(text), digest, err) < 0)
		return no_memory(err);
	im->manifest_size = strlen(text);
	im->manifest_digest = strdup(digest);
	return im->manifest_digest ? 0 : no_memory(err);
}

/* image_make - from a config's text and the layers' facts. */
static struct image *image_make(struct image_store *s, const char *config, size_t len, json_t *layers, struct err *err)
{
	struct image *im = calloc(1, sizeof(*im));
	char digest[DIGEST_TEXT];
	json_t *l;
	size_t i;

	if (!im || store_put_blob(s, config, len, digest, err) < 0)
		goto fail;
	im->id = strdup(digest);
	im->config_size = len;
	im->config = json_parse(config, len, "an image's config", err);
	im->layers = calloc(json_array_size(layers) + 1, sizeof(*im->layers));
	im->repo_tags = calloc(1, sizeof(char *));
	im->repo_digests = calloc(1, sizeof(char *));
	if (!im->id || !im->config || !im->layers || !im->repo_tags || !im->repo_digests)
		goto fail;
	json_array_foreach(layers, i, l) {
		struct image_layer *o = &im->layers[im->nlayers++];

		o->diff_id = strdup(json_str(l, "diff_id", ""));
		o->erofs_digest = strdup(json_str(l, "erofs", ""));
		o->recipe_digest = strdup(json_str(l, "recipe", ""));
		o->erofs_path = blob_path(s, json_str(l, "erofs", ""));
		o->size = (uint64_t)json_int(l, "size", 0);
		o->tar_size = (uint64_t)json_int(l, "tar_size", 0);
		o->erofs_size = (uint64_t)json_int(l, "erofs_size", 0);
		o->recipe_size = (uint64_t)json_int(l, "recipe_size", 0);
		if (!o->diff_id || !o->erofs_digest || !o->recipe_digest || !o->erofs_path)
			goto fail;
		im->size += o->size;
	}
	im->created = json_str(im->config, "created", "");
	im->created_unix = parse_created(im->created);
	if (make_manifest(s, im, layers, err) == 0)
		return im;
fail:
	if (err && !err->code)
		(void)no_memory(err);
	image_free(im);
	return NULL;
}

static int save_index(struct image_store *s, struct err *err)
{
	CLEAN_JSON json_t *list = json_array();

	for (size_t i = s->n; i-- > 0;) {
		struct image *im = s->images[i];

		for (size_t k = 0; k < im->nrepo_tags || k == 0; k++) {
			json_t *d = json_pack(
				"{s:s,s:s,s:I,s:{}}", "mediaType", "application/vnd.oci.image.manifest.v1+json",
				"digest", im->manifest_digest, "size", (json_int_t)im->manifest_size, "annotations");
			struct image_ref r;
			char full[600];

			if (im->nrepo_tags && image_ref_parse(im->repo_tags[k], true, &r, NULL) == 0) {
				image_ref_full(&r, full, sizeof(full));
				json_object_set_new(json_object_get(d, "annotations"), "io.containerd.image.name",
						    json_string(full));
				json_object_set_new(json_object_get(d, "annotations"),
						    "org.opencontainers.image.ref.name", json_string(r.tag));
			}
			json_array_append_new(list, d);
		}
	}
	CLEAN_JSON json_t *doc = json_pack("{s:i,s:s,s:O}", "schemaVersion", 2, "mediaType",
					   "application/vnd.oci.image.index.v1+json", "manifests", list);
	CLEAN_FREE char *text = doc ? json_text(doc) : NULL;
	CLEAN_FREE char *path = NULL;

	if (!text || asprintf(&path, "%s/index.json", s->dir) < 0)
		return no_memory(err);
	return fd_replace_file(AT_FDCWD, path, text, strlen(text), 0644, err);
}

static struct image *by_id(const struct image_store *s, const char *id)
{
	for (size_t i = 0; i < s->n; i++) {
		if (!strcmp(s->images[i]->id, id))
			return s->images[i];
	}
	return NULL;
}

static int insert(struct image_store *s, struct image *im)
{
	struct image **more = realloc(s->images, (s->n + 1) * sizeof(*more));
	size_t i = 0;

	if (!more)
		return -ENOMEM;
	s->images = more;
	while (i < s->n && more[i]->created_unix > im->created_unix)
		i++;
	memmove(&more[i + 1], &more[i], (s->n - i) * sizeof(*more));
	more[i] = im;
	s->n++;
	return 0;
}

static int name_image(struct image_store *s, struct image *im, const char *text, struct err *err)
{
	struct image_ref r;
	char name[600];
	int rc = image_ref_parse(text, true, &r, err);

	if (rc < 0)
		return rc;
	image_ref_familiar(&r, name, sizeof(name));
	for (size_t i = 0; i < s->n; i++)
		(void)drop_name(s->images[i], name);
	return add_name(im, name) < 0 ? no_memory(err) : 0;
}

int store_add(struct image_store *s, const char *config, size_t len, json_t *layers, const json_t *tags,
	      const struct image **out, struct err *err)
{
	struct image *im = image_make(s, config, len, layers, err), *old;
	json_t *t;
	size_t i;

	if (!im)
		return err && err->code ? -err->code : -ENOMEM;
	old = by_id(s, im->id);
	if (old) {
		image_free(im);
		im = old;
	} else if (insert(s, im) < 0) {
		image_free(im);
		return no_memory(err);
	}
	json_array_foreach(tags, i, t) {
		int rc = json_is_string(t) ? name_image(s, im, json_string_value(t), err) : -EINVAL;

		if (rc < 0)
			return rc;
	}
	*out = im;
	return save_index(s, err);
}

static int read_index(struct image_store *s, struct err *err)
{
	CLEAN_FREE char *path = NULL;
	size_t len, i;
	json_t *d;

	if (asprintf(&path, "%s/index.json", s->dir) < 0)
		return no_memory(err);
	if (access(path, F_OK) < 0)
		return save_index(s, err);
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, path, JSON_MAX, &len, err);
	CLEAN_JSON json_t *doc = text ? json_parse(text, len, path, err) : NULL;

	if (!doc)
		return -EINVAL;
	json_array_foreach(json_object_get(doc, "manifests"), i, d) {
		CLEAN_FREE char *mp = blob_path(s, json_str(d, "digest", ""));
		CLEAN_FREE char *mt = mp ? fd_read_file(AT_FDCWD, mp, JSON_MAX, &len, err) : NULL;
		CLEAN_JSON json_t *m = mt ? json_parse(mt, len, mp, err) : NULL;
		const char *id = json_str(json_object_get(m, "config"), "digest", "");
		CLEAN_FREE char *cp = m ? blob_path(s, id) : NULL;
		CLEAN_FREE char *ct = cp ? fd_read_file(AT_FDCWD, cp, JSON_MAX, &len, err) : NULL;
		const char *name = json_str(json_object_get(d, "annotations"), "io.containerd.image.name", NULL);
		struct image *im = by_id(s, id);

		if (!im) {
			im = ct ? image_make(s, ct, len, json_object_get(m, "walnut.layers"), err) : NULL;
			if (!im || insert(s, im) < 0)
				return err_wrap(err, "the image store %s is damaged", s->dir);
		}
		if (name && name_image(s, im, name, err) < 0)
			return -EINVAL;
	}
	return 0;
}

struct image_store *image_store_open(const struct image_options *o, struct err *err)
{
	struct image_store *s = calloc(1, sizeof(*s));
	CLEAN_FREE char *blobs = NULL, *tmp = NULL, *layout = NULL;
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 32);
	static const char version[] = "{\"imageLayoutVersion\":\"1.0.0\"}";

	self[n > 0 ? n : 0] = 0;
	if (strrchr(self, '/'))
		memcpy(strrchr(self, '/') + 1, "walnut-worker", 14);
	if (!s || !(s->data = strdup(o->data)) || !(s->worker = strdup(o->worker ? o->worker : self)) ||
	    asprintf(&s->dir, "%s/images", o->data) < 0 || asprintf(&blobs, "%s/blobs/sha256", s->dir) < 0 ||
	    asprintf(&tmp, "%s/tmp", o->data) < 0 || asprintf(&layout, "%s/oci-layout", s->dir) < 0) {
		(void)no_memory(err);
		goto fail;
	}
	s->uid = o->uid ? o->uid : 65534;
	s->gid = o->gid ? o->gid : 65534;
	s->max_layer = o->max_layer ? o->max_layer : 64ULL << 30;
	if (fd_mkdir_p(blobs, 0755, err) < 0 || fd_mkdir_p(tmp, 0711, err) < 0 ||
	    fd_replace_file(AT_FDCWD, layout, version, strlen(version), 0644, err) < 0 || read_index(s, err) < 0)
		goto fail;
	return s;
fail:
	image_store_free(s);
	return NULL;
}

void image_store_free(struct image_store *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++)
		image_free(s->images[i]);
	free(s->images);
	free(s->data);
	free(s->dir);
	free(s->worker);
	free(s);
}

size_t image_count(const struct image_store *s)
{
	return s->n;
}

const struct image *image_at(const struct image_store *s, size_t i)
{
	return i < s->n ? s->images[i] : NULL;
}

const struct image *image_find(const struct image_store *s, const char *ref, struct err *err)
{
	const char *hex = !strncmp(ref, "sha256:", 7) ? ref + 7 : ref;
	const struct image *hit = NULL;
	struct image_ref r;
	char name[600];

	if (hex == ref && image_ref_parse(ref, true, &r, NULL) == 0) {
		if (r.digest[0])
			r.tag[0] = 0;
		image_ref_familiar(&r, name, sizeof(name));
		for (size_t i = 0; i < s->n; i++) {
			if (r.digest[0] &&
			    (!strcmp(s->images[i]->manifest_digest, r.digest) || !strcmp(s->images[i]->id, r.digest)))
				return s->images[i];
			for (size_t k = 0; k < s->images[i]->nrepo_tags; k++) {
				if (!strcmp(s->images[i]->repo_tags[k], name))
					return s->images[i];
			}
		}
	} else if (hex == ref) {
		return image_ref_parse(ref, true, &r, err) < 0 ? NULL : hit;
	}
	if (*hex && strspn(hex, "0123456789abcdef") == strlen(hex)) {
		for (size_t i = 0; i < s->n; i++) {
			if (strncmp(s->images[i]->id + 7, hex, strlen(hex)) != 0)
				continue;
			if (hit) {
				(void)err_set(err, EEXIST, "the image id prefix \"%.80s\" is ambiguous", ref);
				return NULL;
			}
			hit = s->images[i];
		}
	}
	if (!hit)
		(void)err_set(err, ENOENT, "No such image: %.300s", hex == ref ? name : ref);
	return hit;
}

int image_tag(struct image_store *s, const char *source, const char *target, struct err *err)
{
	const struct image *im = image_find(s, source, err);
	int rc = im ? name_image(s, by_id(s, im->id), target, err) : -err->code;

	return rc < 0 ? rc : save_index(s, err);
}

static bool blob_needed(const struct image_store *s, const char *digest)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct image *im = s->images[i];

		if (!strcmp(im->id, digest) || !strcmp(im->manifest_digest, digest))
			return true;
		for (size_t k = 0; k < im->nlayers; k++) {
			if (!strcmp(im->layers[k].erofs_digest, digest) || !strcmp(im->layers[k].recipe_digest, digest))
				return true;
		}
	}
	return false;
}

static void drop_blob(const struct image_store *s, const char *digest)
{
	CLEAN_FREE char *path = blob_needed(s, digest) ? NULL : blob_path(s, digest);

	if (path)
		(void)unlink(path);
}

static int delete_image(struct image_store *s, struct image *im, json_t *out, struct err *err)
{
	size_t i = 0;
	int rc;

	while (s->images[i] != im)
		i++;
	memmove(&s->images[i], &s->images[i + 1], (s->n - i - 1) * sizeof(*s->images));
	s->n--;
	rc = save_index(s, err);
	json_array_append_new(out, json_pack("{s:s}", "Deleted", im->id));
	for (i = 0; i < im->nlayers; i++) {
		drop_blob(s, im->layers[i].erofs_digest);
		drop_blob(s, im->layers[i].recipe_digest);
	}
	drop_blob(s, im->manifest_digest);
	drop_blob(s, im->id);
	image_free(im);
	return rc;
}

int image_remove(struct image_store *s, const char *ref, bool force, image_use_fn use, void *arg, json_t **out,
		 struct err *err)
{
	const struct image *found = image_find(s, ref, err);
	struct image *im = found ? by_id(s, found->id) : NULL;
	CLEAN_JSON json_t *list = json_array();
	struct image_ref r;
	char name[600] = "", why[128] = "";
	bool named = false;
	int rc = 0;

	if (!im)
		return -err->code;
	if (image_ref_parse(ref, true, &r, NULL) == 0) {
		image_ref_familiar(&r, name, sizeof(name));
		for (size_t i = 0; i < im->nrepo_tags; i++)
			named = named || !strcmp(im->repo_tags[i], name);
	}
	if (!named && im->nrepo_tags > 1 && !force)
		return err_set(
			err, EBUSY,
			"conflict: unable to delete %.12s (must be forced) - image is referenced in multiple repositories",
			im->id + 7);
	if (!named || im->nrepo_tags == 1) {
		enum image_use u = use ? use(arg, im->id, why, sizeof(why)) : IMAGE_UNUSED;

		if (u == IMAGE_USED_RUNNING && !(named && force))
			return err_set(err, EBUSY, "conflict: unable to %s %.200s (%s) - %s %.12s%s",
				       named ? "remove repository reference" : "delete", named ? name : im->id + 7,
				       named ? "must force" : "cannot be forced",
				       named ? "container" : "image is being used by running container", why,
				       named ? " is using its referenced image" : "");
		if (u == IMAGE_USED_STOPPED && !force)
			return err_set(err, EBUSY, "conflict: unable to %s %.200s (must %s) - %s %.12s%s",
				       named ? "remove repository reference" : "delete", named ? name : im->id + 7,
				       named ? "force" : "be forced",
				       named ? "container" : "image is being used by stopped container", why,
				       named ? " is using its referenced image" : "");
		while (im->nrepo_tags) {
			json_array_append_new(list, json_pack("{s:s}", "Untagged", im->repo_tags[0]));
			CLEAN_FREE char *first = strdup(im->repo_tags[0]);

			if (!first)
				return no_memory(err);
			(void)drop_name(im, first);
		}
		rc = u == IMAGE_UNUSED ? delete_image(s, im, list, err) : save_index(s, err);
	} else {
		(void)drop_name(im, name);
		json_array_append_new(list, json_pack("{s:s}", "Untagged", name));
		rc = save_index(s, err);
	}
	*out = json_incref(list);
	return rc;
}

int image_prune(struct image_store *s, bool all, image_use_fn use, void *arg, json_t **out, uint64_t *freed,
		struct err *err)
{
	CLEAN_JSON json_t *list = json_array();
	char why[128];

	*freed = 0;
	for (size_t i = s->n; i-- > 0;) {
		struct image *im = s->images[i];

		if ((im->nrepo_tags && !all) || (use && use(arg, im->id, why, sizeof(why)) != IMAGE_UNUSED))
			continue;
		for (size_t k = 0; k < im->nrepo_tags; k++)
			json_array_append_new(list, json_pack("{s:s}", "Untagged", im->repo_tags[k]));
		*freed += im->size;
		int rc = delete_image(s, im, list, err);

		if (rc < 0)
			return rc;
	}
	*out = json_incref(list);
	return 0;
}

json_t *image_history(const struct image *im)
{
	json_t *out = json_array(), *history = json_object_get(im->config, "history"), *h;
	size_t i, layer = 0;

	json_array_foreach(history, i, h) {
		uint64_t size =
			!json_bool(h, "empty_layer", false) && layer < im->nlayers ? im->layers[layer++].size : 0;

		json_array_insert_new(out, 0,
				      json_pack("{s:s,s:I,s:s,s:n,s:I,s:s}", "Id", "<missing>", "Created",
						(json_int_t)parse_created(json_str(h, "created", "")), "CreatedBy",
						json_str(h, "created_by", ""), "Tags", "Size", (json_int_t)size,
						"Comment", json_str(h, "comment", "")));
	}
	h = json_array_get(out, 0);
	if (h) {
		json_object_set_new(h, "Id", json_string(im->id));
		json_t *tags = json_array();

		for (i = 0; i < im->nrepo_tags; i++)
			json_array_append_new(tags, json_string(im->repo_tags[i]));
		json_object_set_new(h, "Tags", im->nrepo_tags ? tags : json_null());
		if (!im->nrepo_tags)
			json_decref(tags);
	}
	return out;
}
