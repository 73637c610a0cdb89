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
#include "base/log.h"
#include "image/source.h"

#define JSON_MAX (8U << 20)

static int no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "no memory for the image store");
}

void store_image_free(struct image *im)
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
		json_decref(im->layers[i].blob);
	}
	for (size_t i = 0; i < im->nrepo_digests; i++)
		free(im->repo_digests[i]);
	free(im->repo_tags);
	free(im->repo_digests);
	free(im->layers);
	free(im->manifest_digest);
	free(im->id);
	json_decref(im->config);
	free(im);
}

char *store_blob_path(const struct image_store *s, const char *digest)
{
	char *p = NULL;

	return strlen(digest) == 71 && asprintf(&p, "%s/blobs/sha256/%s", s->dir, digest + 7) >= 0 ? p : NULL;
}

static int list_add(char ***list, size_t *n, const char *name)
{
	for (size_t i = 0; i < *n; i++) {
		if (!strcmp((*list)[i], name))
			return 0;
	}
	char **more = realloc(*list, (*n + 2) * sizeof(char *));

	if (!more)
		return -ENOMEM;
	*list = more;
	more[*n] = strdup(name);
	if (!more[*n])
		return -ENOMEM;
	more[++*n] = NULL;
	return 0;
}

static bool list_drop(char **list, size_t *n, const char *name)
{
	for (size_t i = 0; i < *n; i++) {
		if (strcmp(list[i], name) != 0)
			continue;
		free(list[i]);
		memmove(&list[i], &list[i + 1], (*n - i) * sizeof(char *));
		--*n;
		return true;
	}
	return false;
}

bool store_drop_name(struct image *im, const char *name)
{
	return list_drop(im->repo_tags, &im->nrepo_tags, name) || list_drop(im->repo_digests, &im->nrepo_digests, name);
}

int store_put_blob(struct image_store *s, const void *bytes, size_t n, char *digest, struct err *err)
{
	struct sha256_ctx sha;
	uint8_t sum[SHA256_DIGEST_SIZE];

	sha256_init(&sha);
	sha256_update(&sha, n, bytes);
	sha256_digest(&sha, sizeof(sum), sum);
	digest_text(sum, digest);
	CLEAN_FREE char *path = store_blob_path(s, digest);

	if (!path)
		return no_memory(err);
	return access(path, F_OK) == 0 ? 0 : fd_replace_file(AT_FDCWD, path, bytes, n, 0444, err);
}

static int64_t parse_created(const char *text)
{
	struct tm tm = { 0 };

	/* Go's zero time, which clients show as not known. */
	return strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) ? (int64_t)timegm(&tm) : -62135596800;
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

	if (!text)
		return no_memory(err);
	int rc = store_put_blob(s, text, strlen(text), digest, err);

	if (rc < 0)
		return rc;
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
		o->erofs_path = store_blob_path(s, json_str(l, "erofs", ""));
		o->size = (uint64_t)json_int(l, "size", 0);
		o->tar_size = (uint64_t)json_int(l, "tar_size", 0);
		o->erofs_size = (uint64_t)json_int(l, "erofs_size", 0);
		o->recipe_size = (uint64_t)json_int(l, "recipe_size", 0);
		o->blob = json_incref(json_object_get(l, "blob"));
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
	store_image_free(im);
	return NULL;
}

/* sync_dir - a rename in @path is on disk. */
static int sync_dir(const char *path, struct err *err)
{
	CLEAN_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? err_sys(err, errno, "cannot bring %s to disk", path) : 0;
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
			if (k == 0 && im->nrepo_digests) {
				json_t *digests = json_array();

				for (size_t n = 0; n < im->nrepo_digests; n++)
					json_array_append_new(digests, json_string(im->repo_digests[n]));
				json_object_set_new(d, "walnut.repo-digests", digests);
			}
			json_array_append_new(list, d);
		}
	}
	CLEAN_JSON json_t *doc = json_pack("{s:i,s:s,s:O}", "schemaVersion", 2, "mediaType",
					   "application/vnd.oci.image.index.v1+json", "manifests", list);
	CLEAN_FREE char *text = doc ? json_text(doc) : NULL;
	CLEAN_FREE char *path = NULL;

	CLEAN_FREE char *blobs = NULL;

	if (!text || asprintf(&path, "%s/index.json", s->dir) < 0 || asprintf(&blobs, "%s/blobs/sha256", s->dir) < 0)
		return no_memory(err);
	/* The blobs' names are on disk before the index that names them, and the index before anybody hears of it. */
	int rc = sync_dir(blobs, err);

	if (rc == 0)
		rc = fd_replace_file(AT_FDCWD, path, text, strlen(text), 0644, err);
	return rc == 0 ? sync_dir(s->dir, err) : rc;
}

struct image *store_by_id(const struct image_store *s, const char *id)
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

int store_name(struct image_store *s, struct image *im, const char *text, struct err *err)
{
	struct image_ref r;
	char name[600];
	int rc = image_ref_parse(text, true, &r, err);

	if (rc < 0)
		return rc;
	if (r.digest[0])
		r.tag[0] = 0;
	image_ref_familiar(&r, name, sizeof(name));
	for (size_t i = 0; i < s->n; i++) {
		if (s->images[i] != im)
			(void)store_drop_name(s->images[i], name);
	}
	if (r.digest[0])
		return list_add(&im->repo_digests, &im->nrepo_digests, name) < 0 ? no_memory(err) : 0;
	return list_add(&im->repo_tags, &im->nrepo_tags, name) < 0 ? no_memory(err) : 0;
}

static bool same_layers(const struct image *a, const struct image *b)
{
	bool same = a->nlayers == b->nlayers;

	for (size_t i = 0; same && i < a->nlayers; i++)
		same = !strcmp(a->layers[i].erofs_digest, b->layers[i].erofs_digest) &&
		       !strcmp(a->layers[i].diff_id, b->layers[i].diff_id);
	return same;
}

/* check_config - the layers are those that the config names. */
static int check_config(const struct image *im, struct err *err)
{
	const json_t *ids = json_object_get(json_object_get(im->config, "rootfs"), "diff_ids");
	bool ok = json_array_size(ids) == im->nlayers;

	for (size_t i = 0; ok && i < im->nlayers; i++) {
		const char *id = json_string_value(json_array_get(ids, i));

		ok = id && !strcmp(id, im->layers[i].diff_id);
	}
	return ok ? 0 : err_set(err, EINVAL, "the image's config does not name the layers it comes with");
}

static void take_names(struct image *to, struct image *from)
{
	char **tags = to->repo_tags, **digests = to->repo_digests;

	to->repo_tags = from->repo_tags;
	to->nrepo_tags = from->nrepo_tags;
	to->repo_digests = from->repo_digests;
	to->nrepo_digests = from->nrepo_digests;
	from->repo_tags = tags;
	from->repo_digests = digests;
	from->nrepo_tags = from->nrepo_digests = 0;
}

int store_add(struct image_store *s, const char *config, size_t len, json_t *layers, const json_t *tags,
	      const struct image **out, struct err *err)
{
	struct image *im = image_make(s, config, len, layers, err), *old, *drop = NULL;
	json_t *t;
	size_t i;

	if (!im)
		return err && err->code ? -err->code : -ENOMEM;
	old = store_by_id(s, im->id);
	int rc = check_config(im, err);

	if (rc == 0 && old && !same_layers(im, old))
		rc = err_set(err, EEXIST,
			     "the image %.19s is in the store with other layer files: remove it there first", im->id);
	if (rc == 0 && !old && insert(s, im) < 0)
		rc = no_memory(err);
	if (rc < 0 || old)
		drop = im;
	if (rc == 0 && old && im->nlayers && im->layers[0].blob) {
		/* The same, but now it is known what a registry calls the layers. */
		take_names(im, old);
		drop = old;
		for (i = 0; s->images[i] != old; i++)
			;
		s->images[i] = im;
	} else if (old) {
		im = old;
	}
	store_image_free(drop);
	if (rc < 0)
		return rc;
	json_array_foreach(tags, i, t) {
		rc = json_is_string(t) ? store_name(s, im, json_string_value(t), err)
				       : err_set(err, EINVAL, "an image's name is not text");
		if (rc < 0)
			return rc;
	}
	*out = im;
	return 0;
}

static int read_index(struct image_store *s, struct err *err)
{
	CLEAN_FREE char *path = NULL;
	size_t len, i, k;
	json_t *d, *r;

	if (asprintf(&path, "%s/index.json", s->dir) < 0)
		return no_memory(err);
	if (access(path, F_OK) < 0)
		return save_index(s, err);
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, path, JSON_MAX, &len, err);
	CLEAN_JSON json_t *doc = text ? json_parse(text, len, path, err) : NULL;

	if (!doc)
		return -EINVAL;
	json_array_foreach(json_object_get(doc, "manifests"), i, d) {
		CLEAN_FREE char *mp = store_blob_path(s, json_str(d, "digest", ""));
		CLEAN_FREE char *mt = mp ? fd_read_file(AT_FDCWD, mp, JSON_MAX, &len, err) : NULL;
		CLEAN_JSON json_t *m = mt ? json_parse(mt, len, mp, err) : NULL;
		const char *id = json_str(json_object_get(m, "config"), "digest", "");
		CLEAN_FREE char *cp = m ? store_blob_path(s, id) : NULL;
		CLEAN_FREE char *ct = cp ? fd_read_file(AT_FDCWD, cp, JSON_MAX, &len, err) : NULL;
		const char *name = json_str(json_object_get(d, "annotations"), "io.containerd.image.name", NULL);
		struct image *im = store_by_id(s, id);

		if (!im) {
			im = ct ? image_make(s, ct, len, json_object_get(m, "walnut.layers"), err) : NULL;
			if (!im || insert(s, im) < 0)
				return err_wrap(err, "the image store %s is damaged", s->dir);
		}
		if (name && store_name(s, im, name, err) < 0)
			return -EINVAL;
		json_array_foreach(json_object_get(d, "walnut.repo-digests"), k, r)
			if (json_is_string(r) && store_name(s, im, json_string_value(r), err) < 0)
				return -EINVAL;
	}
	return 0;
}

int store_commit(struct image_store *s, struct err *err)
{
	int rc = save_index(s, err);

	if (rc < 0)
		store_revert(s);
	return rc;
}

void store_revert(struct image_store *s)
{
	struct image_store old = *s;
	struct err err = ERR_INIT;

	s->images = NULL;
	s->n = 0;
	int rc = read_index(s, &err);
	struct image_store *gone = rc < 0 ? s : &old;

	for (size_t i = 0; i < gone->n; i++)
		store_image_free(gone->images[i]);
	free(gone->images);
	if (rc < 0) {
		log_error("the image store cannot be read again: %s", err.msg);
		s->images = old.images;
		s->n = old.n;
		return;
	}
	store_collect(s);
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
	    asprintf(&s->fetcher, "%.*swalnut-fetch", (int)(strrchr(s->worker, '/') + 1 - s->worker), s->worker) < 0 ||
	    asprintf(&s->dir, "%s/images", o->data) < 0 || asprintf(&blobs, "%s/blobs/sha256", s->dir) < 0 ||
	    asprintf(&tmp, "%s/tmp", o->data) < 0 || asprintf(&layout, "%s/oci-layout", s->dir) < 0) {
		(void)no_memory(err);
		goto fail;
	}
	s->uid = o->uid ? o->uid : 65534;
	s->gid = o->gid ? o->gid : 65534;
	s->max_layer = o->max_layer ? o->max_layer : 64ULL << 30;
	s->insecure = o->insecure;
	s->mirrors = o->mirrors;
	s->certs = o->certs ? o->certs : "/etc/docker/certs.d";
	if (fd_mkdir_p(blobs, 0755, err) < 0 || fd_mkdir_p(tmp, 0711, err) < 0 ||
	    fd_replace_file(AT_FDCWD, layout, version, strlen(version), 0644, err) < 0 || read_index(s, err) < 0)
		goto fail;
	store_ready_read(s);
	store_collect(s); /* what an engine that was killed had put there, but not yet named */
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
		store_image_free(s->images[i]);
	free(s->images);
	free(s->data);
	free(s->dir);
	free(s->worker);
	free(s->fetcher);
	json_decref(s->ready);
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
			for (size_t k = 0; r.digest[0] && k < s->images[i]->nrepo_digests; k++) {
				if (!strcmp(s->images[i]->repo_digests[k], name))
					return s->images[i];
			}
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
	int rc = im ? store_name(s, store_by_id(s, im->id), target, err) : -err->code;

	return rc < 0 ? rc : store_commit(s, err);
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

/* --- layers of pulls --- */

static char *ready_path(const struct image_store *s)
{
	char *p = NULL;

	return asprintf(&p, "%s/pulled-layers.json", s->dir) < 0 ? NULL : p;
}

int store_ready_save(struct image_store *s, struct err *err)
{
	CLEAN_FREE char *path = ready_path(s), *text = json_text(s->ready);

	if (!path || !text)
		return no_memory(err);
	if (json_object_size(s->ready) == 0)
		return unlink(path) < 0 && errno != ENOENT ? err_sys(err, errno, "cannot remove %s", path) : 0;
	return fd_replace_file(AT_FDCWD, path, text, strlen(text), 0644, err);
}

static bool blob_there(const struct image_store *s, const json_t *layer, const char *kind, const char *size)
{
	CLEAN_FREE char *path = store_blob_path(s, json_str(layer, kind, ""));
	struct stat st;

	return path && stat(path, &st) == 0 && st.st_size == json_int(layer, size, -1);
}

void store_ready_read(struct image_store *s)
{
	CLEAN_FREE char *path = ready_path(s);
	CLEAN_JSON json_t *doc = NULL;
	const char *digest;
	struct stat st;
	json_t *layer;
	void *next;
	size_t len;

	s->ready = json_object();
	if (!path || stat(path, &st) < 0)
		return;
	/* A pull that was not taken up again within a day is given up. */
	CLEAN_FREE char *text =
		st.st_mtime + 86400 < time(NULL) ? NULL : fd_read_file(AT_FDCWD, path, JSON_MAX, &len, NULL);

	doc = text ? json_parse(text, len, path, NULL) : NULL;
	json_object_foreach_safe(doc, next, digest, layer)
		if (!blob_there(s, layer, "erofs", "erofs_size") || !blob_there(s, layer, "recipe", "recipe_size"))
			json_object_del(doc, digest);
	if (json_is_object(doc))
		json_object_update(s->ready, doc);
	else
		(void)unlink(path);
}

json_t *store_layer(const struct image_store *s, const char *digest)
{
	json_t *ready = json_object_get(s->ready, digest);

	if (ready)
		return json_deep_copy(ready);
	for (size_t i = 0; i < s->n; i++) {
		for (size_t k = 0; k < s->images[i]->nlayers; k++) {
			const struct image_layer *l = &s->images[i]->layers[k];

			if (!l->blob || strcmp(json_str(l->blob, "digest", ""), digest) != 0)
				continue;
			return json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:O}", "diff_id", l->diff_id, "erofs",
					 l->erofs_digest, "recipe", l->recipe_digest, "tar_size",
					 (json_int_t)l->tar_size, "erofs_size", (json_int_t)l->erofs_size,
					 "recipe_size", (json_int_t)l->recipe_size, "size", (json_int_t)l->size, "blob",
					 l->blob);
		}
	}
	return NULL;
}
