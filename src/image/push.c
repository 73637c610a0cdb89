/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Push, login, search. A layer that the registry has under the digest it was pulled
 * with is not sent; another is made into tar.gz by walnut-worker on its way to
 * walnut-fetch, which hashes what it sends: the digest is known at the end.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "image/registry.h"
#include "image/source.h"

#define CONFIG_TYPE   "application/vnd.docker.container.image.v1+json"
#define LAYER_TYPE    "application/vnd.docker.image.rootfs.diff.tar.gzip"
#define MANIFEST_TYPE "application/vnd.docker.distribution.manifest.v2+json"

struct push {
	struct image_job *j;
	struct registry registry;
	struct image_ref ref;
	char *id, *config;
	json_t *layers; /* of {diff_id, erofs, recipe, tar_size, blob?}; "sent": the descriptor for the manifest */
	size_t at;      /* the layer whose turn it is */
	int blobs;      /* blobs/sha256 */
	char *manifest;
	struct worker_proc *pack;
	json_t *packed, *put;
	struct err pack_err, put_err;
};

static void push_free(void *arg)
{
	struct push *p = arg;

	worker_kill(p->pack);
	registry_close(&p->registry);
	close_fd(&p->blobs);
	json_decref(p->layers);
	json_decref(p->packed);
	json_decref(p->put);
	free(p->id);
	free(p->config);
	free(p->manifest);
	free(p);
}

static json_t *current(const struct push *p)
{
	return json_array_get(p->layers, p->at);
}

static void show(const struct push *p, const char *status, const char *id, json_t *detail)
{
	job_show(p->j, status, id, detail);
}

static void show_layer(const struct push *p, const char *status, json_t *detail)
{
	show(p, status, json_str(current(p), "diff_id", "sha256:") + 7, detail ? detail : json_object());
}

static void fail(struct push *p, struct err *err)
{
	if (err->code == EACCES && !strncmp(err->msg, "denied", 6))
		(void)err_set(err, EACCES, "denied: requested access to the resource is denied");
	job_done(p->j, err, NULL);
}

static int ask(struct push *p, const char *verb, json_t *more, int in, worker_line_fn line, worker_end_fn end,
	       struct err *err)
{
	p->j->proc = registry_ask(&p->registry, p->j, verb, more, in, -1, line, end, p, err);
	return p->j->proc ? 0 : -err->code;
}

/* --- config and manifest --- */

static void manifest_put(void *arg, const json_t *result, const struct err *failed)
{
	struct push *p = arg;
	struct err err = failed ? *failed : ERR_INIT;
	char digest[DIGEST_TEXT], text[300], name[600];
	struct sha256_ctx sha;
	uint8_t sum[SHA256_DIGEST_SIZE];
	struct image_ref r = p->ref;

	p->j->proc = NULL;
	if (!result) {
		fail(p, &err);
		return;
	}
	sha256_init(&sha);
	sha256_update(&sha, strlen(p->manifest), (const uint8_t *)p->manifest);
	sha256_digest(&sha, sizeof(sum), sum);
	digest_text(sum, digest);
	(void)snprintf(text, sizeof(text), "%s: digest: %s size: %zu", p->ref.tag, digest, strlen(p->manifest));
	show(p, text, NULL, NULL);
	CLEAN_JSON json_t *aux = json_pack("{s:{},s:{s:s,s:s,s:I}}", "progressDetail", "aux", "Tag", p->ref.tag,
					   "Digest", digest, "Size", (json_int_t)strlen(p->manifest));

	if (p->j->progress)
		p->j->progress(p->j->arg, aux);
	/* The image is known by this digest from now on. */
	struct image *im = store_by_id(p->j->s, p->id);

	r.tag[0] = 0;
	(void)snprintf(r.digest, sizeof(r.digest), "%s", digest);
	image_ref_familiar(&r, name, sizeof(name));
	int rc = im ? store_name(p->j->s, im, name, &err) : 0;

	if (rc == 0)
		rc = store_commit(p->j->s, &err);
	if (rc < 0) {
		fail(p, &err);
		return;
	}
	image_ref_familiar(&p->ref, name, sizeof(name));
	CLEAN_JSON json_t *out = json_pack("{s:s,s:s}", "id", p->id, "name", name);

	job_done(p->j, NULL, out);
}

static void config_put(void *arg, const json_t *result, const struct err *failed)
{
	struct push *p = arg;
	struct err err = failed ? *failed : ERR_INIT;
	CLEAN_JSON json_t *layers = json_array();
	const json_t *l;
	size_t i;

	p->j->proc = NULL;
	if (result && strcmp(json_str(result, "digest", p->id), p->id) != 0)
		(void)err_set(&err, EIO, "the config was sent wrongly");
	json_array_foreach(p->layers, i, l)
		json_array_append(layers, json_object_get(l, "sent"));
	CLEAN_JSON json_t *m = json_pack("{s:i,s:s,s:{s:s,s:I,s:s},s:O}", "schemaVersion", 2, "mediaType",
					 MANIFEST_TYPE, "config", "mediaType", CONFIG_TYPE, "size",
					 (json_int_t)strlen(p->config), "digest", p->id, "layers", layers);

	free(p->manifest);
	p->manifest = m ? json_text(m) : NULL;
	if (!err.code && !p->manifest)
		(void)err_set(&err, ENOMEM, "no memory for a manifest");
	if (err.code ||
	    ask(p, "put-manifest",
		json_pack("{s:s,s:s,s:s}", "reference", p->ref.tag, "text", p->manifest, "type", MANIFEST_TYPE), -1,
		NULL, manifest_put, &err) < 0)
		fail(p, &err);
}

static void config_checked(void *arg, const json_t *result, const struct err *failed)
{
	struct push *p = arg;
	struct err err = failed ? *failed : ERR_INIT;
	CLEAN_FREE char *path = store_blob_path(p->j->s, p->id);

	p->j->proc = NULL;
	if (result && json_bool(result, "there", false)) {
		config_put(p, result, NULL);
		return;
	}
	CLEAN_FD int in = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (!err.code && in < 0)
		(void)err_sys(&err, errno, "cannot open the image's config");
	if (err.code || ask(p, "put-blob", json_object(), in, NULL, config_put, &err) < 0)
		fail(p, &err);
}

/* --- layers --- */

static void next_layer(struct push *p);

static void layer_done(struct push *p, json_t *descriptor, const char *status)
{
	json_object_set_new(current(p), "sent", descriptor);
	show_layer(p, status, NULL);
	p->at++;
	next_layer(p);
}

static void layer_check(struct push *p)
{
	struct err err = ERR_INIT;

	if (p->pack || p->j->proc)
		return;
	if (p->put_err.code)
		err = p->put_err;
	else if (p->pack_err.code)
		err = p->pack_err;
	else if (!p->put || !p->packed ||
		 strcmp(json_str(p->put, "digest", ""), json_str(p->packed, "digest", "?")) != 0)
		(void)err_set(&err, EIO, "a layer was sent wrongly");
	if (err.code) {
		fail(p, &err);
		return;
	}
	json_t *d = json_pack("{s:s,s:I,s:s}", "mediaType", LAYER_TYPE, "size", (json_int_t)json_int(p->put, "size", 0),
			      "digest", json_str(p->put, "digest", ""));

	json_decref(take_ptr(p->put));
	json_decref(take_ptr(p->packed));
	layer_done(p, d, "Pushed");
}

static void layer_packed(void *arg, const json_t *result, const struct err *err)
{
	struct push *p = arg;

	p->pack = NULL;
	p->packed = json_incref((json_t *)(uintptr_t)result);
	p->pack_err = err ? *err : ERR_INIT;
	layer_check(p);
}

static void layer_put(void *arg, const json_t *result, const struct err *err)
{
	struct push *p = arg;

	p->j->proc = NULL;
	p->put = json_incref((json_t *)(uintptr_t)result);
	p->put_err = err ? *err : ERR_INIT;
	if (result)
		registry_learn(&p->registry, result);
	layer_check(p);
}

static void layer_line(void *arg, const json_t *line)
{
	struct push *p = arg;

	show_layer(p, "Pushing",
		   json_pack("{s:I,s:I}", "current", (json_int_t)json_int(line, "progress", 0), "total",
			     (json_int_t)json_int(current(p), "tar_size", 0)));
}

static int send_layer(struct push *p, struct err *err)
{
	const json_t *l = current(p);
	CLEAN_JSON json_t *how = json_pack("{s:s,s:s,s:s}", "erofs", json_str(l, "erofs", "sha256:") + 7, "recipe",
					   json_str(l, "recipe", "sha256:") + 7, "diff_id", json_str(l, "diff_id", ""));
	CLEAN_FD int plan = worker_plan(how, err);
	int fds[2];

	if (plan < 0 || pipe2(fds, O_CLOEXEC) < 0)
		return err && err->code ? -err->code : err_sys(err, errno, "no pipe for a layer");
	CLEAN_FD int out = fds[1], in = fds[0];
	struct worker_spec spec = { .verb = "pack", .in = -1, .out = out, .dir = p->blobs, .plan = plan };

	p->pack = worker_spawn(p->j->s, p->j->l, &spec, NULL, layer_packed, p, err);
	return p->pack ? ask(p, "put-blob", json_object(), in, layer_line, layer_put, err) : -err->code;
}

static void layer_checked(void *arg, const json_t *result, const struct err *failed)
{
	struct push *p = arg;
	struct err err = failed ? *failed : ERR_INIT;

	p->j->proc = NULL;
	if (result)
		registry_learn(&p->registry, result);
	if (result && json_bool(result, "there", false)) {
		const json_t *b = json_object_get(current(p), "blob");

		layer_done(p,
			   json_pack("{s:s,s:I,s:s}", "mediaType", json_str(b, "mediaType", LAYER_TYPE), "size",
				     (json_int_t)json_int(b, "size", 0), "digest", json_str(b, "digest", "")),
			   "Layer already exists");
		return;
	}
	if (err.code || send_layer(p, &err) < 0)
		fail(p, &err);
}

static void next_layer(struct push *p)
{
	struct err err = ERR_INIT;
	const json_t *blob = json_object_get(current(p), "blob");
	int rc;

	if (!current(p))
		rc = ask(p, "head", json_pack("{s:s}", "digest", p->id), -1, NULL, config_checked, &err);
	else if (blob)
		rc = ask(p, "head", json_pack("{s:s}", "digest", json_str(blob, "digest", "")), -1, NULL, layer_checked,
			 &err);
	else
		rc = send_layer(p, &err);
	if (rc < 0)
		fail(p, &err);
}

static void reached(void *arg, const json_t *result, const struct err *failed)
{
	struct push *p = arg;
	struct err err = failed ? *failed : ERR_INIT;

	p->j->proc = NULL;
	if (!result) {
		fail(p, &err);
		return;
	}
	registry_learn(&p->registry, result);
	next_layer(p);
}

static int take_image(struct push *p, const struct image *im, struct err *err)
{
	CLEAN_FREE char *path = store_blob_path(p->j->s, im->id), *dir = NULL;
	size_t len;

	p->layers = json_array();
	p->id = strdup(im->id);
	if (!path || !p->id || asprintf(&dir, "%s/blobs/sha256", p->j->s->dir) < 0)
		return err_set(err, ENOMEM, "no memory to push an image");
	p->blobs = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	p->config = fd_read_file(AT_FDCWD, path, 8U << 20, &len, err);
	for (size_t i = 0; i < im->nlayers; i++) {
		const struct image_layer *l = &im->layers[i];
		json_t *o = json_pack("{s:s,s:s,s:s,s:I}", "diff_id", l->diff_id, "erofs", l->erofs_digest, "recipe",
				      l->recipe_digest, "tar_size", (json_int_t)l->tar_size);

		if (l->blob)
			json_object_set(o, "blob", l->blob);
		json_array_append_new(p->layers, o);
	}
	return p->config && p->blobs >= 0 ? 0
	       : err && err->code         ? -err->code
					  : err_sys(err, errno, "cannot open the store");
}

struct image_job *image_push_start(struct image_store *s, struct loop *l, const char *ref, const json_t *auth,
				   image_progress_fn progress, image_done_fn done, void *arg, struct err *err)
{
	struct image_ref r;
	char name[600];

	if (image_ref_parse(ref, true, &r, err) < 0)
		return NULL;
	if (r.digest[0]) {
		(void)err_set(err, EINVAL, "cannot push a digest reference");
		return NULL;
	}
	image_ref_familiar(&r, name, sizeof(name));
	const struct image *im = image_find(s, name, NULL);
	bool named = false;

	for (size_t i = 0; im && i < im->nrepo_tags; i++)
		named = named || !strcmp(im->repo_tags[i], name);
	if (!named) {
		(void)err_set(err, ENOENT, "An image does not exist locally with the tag: %.300s", name);
		return NULL;
	}
	struct image_job *j = job_new(s, l, progress, done, arg, err);
	struct push *p = j ? calloc(1, sizeof(*p)) : NULL;

	if (!p) {
		job_free(j);
		(void)err_set(err, ENOMEM, "no memory to push an image");
		return NULL;
	}
	*p = (struct push){ .j = j, .registry = REGISTRY_INIT, .ref = r, .blobs = -1 };
	j->more = p;
	j->more_free = push_free;
	if (take_image(p, im, err) < 0 ||
	    registry_open(&p->registry, s, r.domain, r.path, "pull,push", auth, err) < 0 ||
	    ask(p, "login", json_object(), -1, NULL, reached, err) < 0) {
		job_free(j);
		return NULL;
	}
	*strrchr(name, ':') = 0;
	CLEAN_FREE char *text = NULL;

	if (asprintf(&text, "The push refers to repository [%s/%s]", r.domain, r.path) >= 0)
		show(p, text, NULL, NULL);
	return j;
}

/* --- login and search --- */

struct asked {
	struct registry registry;
};

static void asked_free(void *arg)
{
	struct asked *a = arg;

	registry_close(&a->registry);
	free(a);
}

static void logged_in(void *arg, const json_t *result, const struct err *err)
{
	struct image_job *j = arg;

	j->proc = NULL;
	job_done(j, err, result);
}

static struct image_job *asked_new(struct image_store *s, struct loop *l, const char *domain, const json_t *auth,
				   image_done_fn done, void *arg, struct err *err)
{
	struct image_job *j = job_new(s, l, NULL, done, arg, err);
	struct asked *a = j ? calloc(1, sizeof(*a)) : NULL;

	if (!a) {
		job_free(j);
		return NULL;
	}
	a->registry = REGISTRY_INIT;
	j->more = a;
	j->more_free = asked_free;
	if (registry_open(&a->registry, s, domain, "", "", auth, err) == 0)
		return j;
	job_free(j);
	return NULL;
}

struct image_job *image_login_start(struct image_store *s, struct loop *l, const json_t *auth, image_done_fn done,
				    void *arg, struct err *err)
{
	const char *address = json_str(auth, "serveraddress", "");
	char domain[256];

	if (!strncmp(address, "https://", 8) || !strncmp(address, "http://", 7))
		address = strchr(address, '/') + 2;
	(void)snprintf(domain, sizeof(domain), "%.*s", (int)strcspn(address, "/") & 0xff, address);
	if (!*domain || !strcmp(domain, "index.docker.io") || !strcmp(domain, "registry-1.docker.io"))
		(void)snprintf(domain, sizeof(domain), "docker.io");
	if (strspn(domain, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]") != strlen(domain)) {
		(void)err_set(err, EINVAL, "\"%.200s\" is no registry's address", domain);
		return NULL;
	}
	struct image_job *j = asked_new(s, l, domain, auth, done, arg, err);

	if (!j)
		return NULL;
	j->proc = registry_ask(&((struct asked *)j->more)->registry, j, "login", json_object(), -1, -1, NULL, logged_in,
			       j, err);
	if (!j->proc)
		job_free(take_ptr(j));
	return j;
}

static void searched(void *arg, const json_t *result, const struct err *failed)
{
	struct image_job *j = arg;
	struct err err = failed ? *failed : ERR_INIT;
	const char *text = json_str(result, "text", "");
	CLEAN_JSON json_t *doc = result ? json_parse(text, strlen(text), "the registry's answer", &err) : NULL;
	CLEAN_JSON json_t *list = json_array();
	const json_t *v;
	size_t i;

	j->proc = NULL;
	json_array_foreach(json_object_get(doc, "results"), i, v)
		json_array_append_new(list, json_pack("{s:s,s:s,s:I,s:b,s:b}", "name", json_str(v, "name", ""),
						      "description", json_str(v, "description", ""), "star_count",
						      (json_int_t)json_int(v, "star_count", 0), "is_official",
						      json_bool(v, "is_official", false), "is_automated", 0));
	CLEAN_JSON json_t *out = json_pack("{s:O}", "results", list);

	job_done(j, doc ? NULL : &err, doc ? out : NULL);
}

struct image_job *image_search_start(struct image_store *s, struct loop *l, const char *term, unsigned limit,
				     const json_t *auth, image_done_fn done, void *arg, struct err *err)
{
	const char *slash = strchr(term, '/');
	bool other = slash && (memchr(term, '.', (size_t)(slash - term)) || memchr(term, ':', (size_t)(slash - term)));
	CLEAN_BUF struct buf path = BUF_INIT;
	char domain[256] = "index.docker.io";
	int rc;

	if (other) {
		(void)snprintf(domain, sizeof(domain), "%.*s", (int)(slash - term) & 0xff, term);
		term = slash + 1;
	}
	rc = buf_puts(&path, "/v1/search?q=");
	for (; rc == 0 && *term; term++)
		rc = isalnum((unsigned char)*term) || strchr("-_.~", *term)
			     ? buf_append(&path, term, 1)
			     : buf_printf(&path, "%%%02X", (unsigned char)*term);
	if (rc == 0)
		rc = buf_printf(&path, "&n=%u", limit);
	struct image_job *j = rc == 0 ? asked_new(s, l, domain, auth, done, arg, err) : NULL;

	if (!j)
		return NULL;
	j->proc = registry_ask(&((struct asked *)j->more)->registry, j, "get",
			       json_pack("{s:s}", "path", buf_bytes(&path)), -1, -1, NULL, searched, j, err);
	if (!j->proc)
		job_free(take_ptr(j));
	return j;
}
