/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pull. The engine asks for the manifest and the config, which are small, and
 * checks their digests itself; that chain is what is trusted. Each layer goes through
 * three processes, so that nothing is on disk before it is in its final form:
 *
 *	walnut-fetch (network, TLS) -> "hash" (parses nothing) -> "layer" (unpacks, converts)
 *
 * A layer that is converted is hashed once more ("digest"), put among the blobs and
 * written down by the registry's digest: a pull that is killed is taken up there,
 * and pulls at the same time share the work.
 */
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "image/registry.h"
#include "image/source.h"

#define LAYERS_MAX 512
#define PARALLEL   3 /* as Docker's max-concurrent-downloads */

enum layer_state { LAYER_WAITING, LAYER_RUNNING, LAYER_DONE };

struct pull_layer {
	struct pull *pull;
	unsigned number;
	const char *digest; /* of the manifest's JSON */
	int64_t size;
	enum layer_state state;
	struct worker_proc *fetch, *hash, *convert, *digests;
	json_t *hashed, *converted;
	struct err fetch_err, hash_err, convert_err;
	bool shown_waiting;
};

struct pull {
	struct image_job *j;
	struct pull *next; /* of the store's */
	struct registry registry;
	struct image_ref ref;
	char reference[160];    /* the tag or digest asked for */
	char want[DIGEST_TEXT]; /* what the next manifest must be, or "" */
	char top[DIGEST_TEXT];  /* of the first manifest: what the name is remembered with */
	char os[32], arch[32], variant[32];
	bool platform_given;
	json_t *manifest;
	char *config;
	size_t config_len;
	struct pull_layer *layers;
	size_t n;
	int depth;
};

static void pull_free(void *arg)
{
	struct pull *p = arg;
	struct image_store *s = p->j->s;

	for (struct pull **at = &s->pulls; *at; at = &(*at)->next) {
		if (*at == p) {
			*at = p->next;
			break;
		}
	}
	for (size_t i = 0; i < p->n; i++) {
		struct pull_layer *l = &p->layers[i];

		worker_kill(l->fetch);
		worker_kill(l->hash);
		worker_kill(l->convert);
		worker_kill(l->digests);
		json_decref(l->hashed);
		json_decref(l->converted);
	}
	registry_close(&p->registry);
	json_decref(p->manifest);
	free(p->layers);
	free(p->config);
	free(p);
}

static void start_layers(struct pull *p);

/* others - let the other pulls look again: a layer has come, or will not. */
static void others(struct image_store *s)
{
	size_t n = 0;

	for (struct pull *p = s->pulls; p; p = p->next)
		n++;
	/* A pull may end, and leave the list, when it looks. */
	for (size_t i = 0; i < n; i++) {
		struct pull *p = s->pulls;

		for (size_t k = 0; p && k < i; k++)
			p = p->next;
		if (p && p->j->staging_fd >= 0)
			start_layers(p);
	}
}

static void fail(struct pull *p, const struct err *err)
{
	struct image_store *s = p->j->s;

	job_done(p->j, err, NULL);
	others(s);
}

static void show(const struct pull *p, const char *status, const char *id, json_t *detail)
{
	job_show(p->j, status, id, detail);
}

static void show_layer(const struct pull_layer *l, const char *status, json_t *detail)
{
	show(l->pull, status, l->digest + 7, detail ? detail : json_object());
}

static void digest_of(const void *bytes, size_t n, char out[DIGEST_TEXT])
{
	struct sha256_ctx sha;
	uint8_t sum[SHA256_DIGEST_SIZE];

	sha256_init(&sha);
	sha256_update(&sha, n, bytes);
	sha256_digest(&sha, sizeof(sum), sum);
	digest_text(sum, out);
}

/* --- the end --- */

static json_t *layer_records(struct pull *p, struct err *err)
{
	json_t *list = json_array();

	for (size_t i = 0; i < p->n; i++) {
		json_t *record = store_layer(p->j->s, p->layers[i].digest);

		if (!record) {
			json_decref(list);
			(void)err_set(err, EIO, "the layer %.19s is gone from the store", p->layers[i].digest);
			return NULL;
		}
		json_array_append_new(list, record);
	}
	return list;
}

static bool points_to(const struct image_store *s, const char *name, const char *id)
{
	const struct image *im = store_by_id(s, id);

	for (size_t i = 0; im && i < im->nrepo_tags; i++)
		if (!strcmp(im->repo_tags[i], name))
			return true;
	for (size_t i = 0; im && i < im->nrepo_digests; i++)
		if (!strcmp(im->repo_digests[i], name))
			return true;
	return false;
}

static void finish(struct pull *p)
{
	struct image_store *s = p->j->s;
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *layers = layer_records(p, &err);
	CLEAN_JSON json_t *names = json_array();
	struct image_ref by_digest = p->ref, by_tag = p->ref;
	char name[600], digest_name[600], id[DIGEST_TEXT], text[800];
	const struct image *im = NULL;

	by_digest.tag[0] = 0;
	(void)snprintf(by_digest.digest, sizeof(by_digest.digest), "%s", p->top);
	image_ref_familiar(&by_digest, digest_name, sizeof(digest_name));
	by_tag.digest[0] = 0;
	image_ref_familiar(p->ref.digest[0] ? &by_digest : &by_tag, name, sizeof(name));
	digest_of(p->config, p->config_len, id);
	bool fresh = !points_to(s, name, id);

	json_array_append_new(names, json_string(digest_name));
	if (!p->ref.digest[0])
		json_array_append_new(names, json_string(name));
	int rc = layers ? store_add(s, p->config, p->config_len, layers, names, &im, &err) : -err.code;

	if (rc == 0)
		rc = store_commit(s, &err);
	else if (layers)
		store_revert(s);
	if (rc < 0) {
		fail(p, &err);
		return;
	}
	for (size_t i = 0; i < p->n; i++)
		json_object_del(s->ready, p->layers[i].digest);
	(void)!store_ready_save(s, NULL);
	(void)snprintf(text, sizeof(text), "Digest: %s", p->top);
	show(p, text, NULL, NULL);
	(void)snprintf(text, sizeof(text), "Status: %s for %s",
		       fresh ? "Downloaded newer image" : "Image is up to date", name);
	show(p, text, NULL, NULL);
	CLEAN_JSON json_t *result = json_pack("{s:s,s:s}", "id", id, "name", name);

	job_done(p->j, NULL, result);
	others(s);
}

/* --- layers --- */

static void layer_stored(void *arg, const json_t *files, const struct err *failed)
{
	struct pull_layer *l = arg;
	struct pull *p = l->pull;
	struct image_store *s = p->j->s;
	struct err err = failed ? *failed : ERR_INIT;
	CLEAN_JSON json_t *list = json_pack("[O]", l->converted);

	l->digests = NULL;
	int rc = files ? job_adopt(p->j, list, files, &err) : -err.code;

	if (rc == 0) {
		json_object_set_new(
			l->converted, "blob",
			json_pack("{s:s,s:I,s:s}", "digest", l->digest, "size", (json_int_t)l->size, "mediaType",
				  json_str(json_array_get(json_object_get(p->manifest, "layers"), l->number),
					   "mediaType", "")));
		json_object_set(s->ready, l->digest, l->converted);
		rc = store_ready_save(s, &err);
	}
	if (rc < 0) {
		fail(p, &err);
		return;
	}
	l->state = LAYER_DONE;
	show_layer(l, "Pull complete", NULL);
	others(s);
}

/* layer_check - all three processes have ended. */
static void layer_check(struct pull_layer *l)
{
	struct pull *p = l->pull;
	struct err err = ERR_INIT;
	const json_t *ids = NULL;

	if (l->fetch || l->hash || l->convert)
		return;
	/* The first cause: a broken pipe is the consequence of what the next one says. */
	if (l->fetch_err.code && l->fetch_err.code != EPIPE)
		err = l->fetch_err;
	else if (l->hashed && !l->fetch_err.code &&
		 (strcmp(json_str(l->hashed, "digest", ""), l->digest) || json_int(l->hashed, "size", -1) != l->size))
		(void)err_set(&err, EINVAL, "filesystem layer verification failed for digest %s", l->digest);
	else if (l->convert_err.code)
		err = l->convert_err;
	else if (l->hash_err.code)
		err = l->hash_err;
	else if (!l->hashed || !l->converted)
		(void)err_set(&err, EIO, "the layer %.19s did not come through", l->digest);
	CLEAN_JSON json_t *config = err.code ? NULL : json_parse(p->config, p->config_len, "the image's config", &err);

	ids = json_object_get(json_object_get(config, "rootfs"), "diff_ids");
	const char *want = json_string_value(json_array_get(ids, l->number));

	if (!err.code && (!want || strcmp(want, json_str(l->converted, "diff_id", "")) != 0))
		(void)err_set(&err, EINVAL,
			      "the layer %.19s does not match the image's config: %s is expected, %s was found",
			      l->digest, want ? want : "nothing", json_str(l->converted, "diff_id", ""));
	if (!err.code) {
		CLEAN_JSON json_t *list = json_pack("[O]", l->converted);

		json_object_set_new(l->converted, "number", json_integer(l->number));
		l->digests = job_digest(p->j, list, layer_stored, l, &err);
		if (l->digests)
			return;
	}
	fail(p, &err);
}

static void fetched(void *arg, const json_t *result, const struct err *err)
{
	struct pull_layer *l = arg;

	l->fetch = NULL;
	if (err)
		l->fetch_err = *err;
	else
		show_layer(l, "Download complete", NULL);
	layer_check(l);
}

static void hashed(void *arg, const json_t *result, const struct err *err)
{
	struct pull_layer *l = arg;

	l->hash = NULL;
	l->hashed = json_incref((json_t *)(uintptr_t)result);
	if (err)
		l->hash_err = *err;
	layer_check(l);
}

static void converted(void *arg, const json_t *result, const struct err *err)
{
	struct pull_layer *l = arg;

	l->convert = NULL;
	l->converted = json_incref((json_t *)(uintptr_t)result);
	if (err)
		l->convert_err = *err;
	layer_check(l);
}

static void layer_line(void *arg, const json_t *line)
{
	struct pull_layer *l = arg;

	show_layer(l, "Downloading",
		   json_pack("{s:I,s:I}", "current", (json_int_t)json_int(line, "progress", 0), "total",
			     (json_int_t)l->size));
}

static int layer_start(struct pull_layer *l, struct err *err)
{
	struct pull *p = l->pull;
	struct image_job *j = p->j;
	int a[2] = { -1, -1 }, b[2] = { -1, -1 };
	CLEAN_JSON json_t *number = json_pack("{s:i}", "number", (int)l->number);

	l->state = LAYER_RUNNING;
	if (pipe2(a, O_CLOEXEC) < 0 || pipe2(b, O_CLOEXEC) < 0) {
		int code = errno;

		if (a[0] >= 0) {
			(void)close(a[0]);
			(void)close(a[1]);
		}
		return err_sys(err, code, "no pipe for a layer");
	}
	CLEAN_FD int plan = worker_plan(number, err);
	CLEAN_FD int a0 = a[0], a1 = a[1], b0 = b[0], b1 = b[1];

	(void)fcntl(a1, F_SETPIPE_SZ, 1 << 20);
	(void)fcntl(b1, F_SETPIPE_SZ, 1 << 20);
	struct worker_spec hash = { .verb = "hash", .in = a0, .out = b1, .dir = p->registry.root_fd, .plan = -1 };
	struct worker_spec convert = { .verb = "layer", .in = b0, .out = -1, .dir = j->staging_fd, .plan = plan };
	json_t *more = json_pack("{s:s,s:I}", "digest", l->digest, "size", (json_int_t)l->size);

	if (plan >= 0)
		l->convert = worker_spawn(j->s, j->l, &convert, NULL, converted, l, err);
	if (l->convert)
		l->hash = worker_spawn(j->s, j->l, &hash, NULL, hashed, l, err);
	if (l->hash)
		l->fetch = registry_ask(&p->registry, j, "blob", more, -1, a1, layer_line, fetched, l, err);
	else
		json_decref(more);
	show_layer(l, "Pulling fs layer", NULL);
	return l->fetch ? 0 : -err->code;
}

static bool busy_elsewhere(const struct pull_layer *l)
{
	for (const struct pull *p = l->pull->j->s->pulls; p; p = p->next)
		for (size_t i = 0; i < p->n; i++)
			if (&p->layers[i] != l && p->layers[i].state == LAYER_RUNNING &&
			    !strcmp(p->layers[i].digest, l->digest))
				return true;
	return false;
}

/* take_known - the layer is here already: keep it until this pull ends. */
static bool take_known(struct pull_layer *l)
{
	struct image_store *s = l->pull->j->s;
	CLEAN_JSON json_t *record = store_layer(s, l->digest);

	if (!record)
		return false;
	json_object_set(s->ready, l->digest, record);
	l->state = LAYER_DONE;
	show_layer(l, "Already exists", NULL);
	return true;
}

static void start_layers(struct pull *p)
{
	struct err err = ERR_INIT;
	size_t running = 0, done = 0;

	for (size_t i = 0; i < p->n; i++) {
		struct pull_layer *l = &p->layers[i];

		if (l->state == LAYER_WAITING)
			(void)take_known(l);
		running += l->state == LAYER_RUNNING;
		done += l->state == LAYER_DONE;
	}
	for (size_t i = 0; i < p->n; i++) {
		struct pull_layer *l = &p->layers[i];

		if (l->state != LAYER_WAITING)
			continue;
		if (running < PARALLEL && !busy_elsewhere(l)) {
			running++;
			if (layer_start(l, &err) < 0) {
				fail(p, &err);
				return;
			}
		} else if (!l->shown_waiting) {
			l->shown_waiting = true;
			show_layer(l, "Waiting", NULL);
		}
	}
	if (done == p->n)
		finish(p);
}

/* --- manifest and config --- */

static int check_config(struct pull *p, struct err *err)
{
	CLEAN_JSON json_t *config = json_parse(p->config, p->config_len, "the image's config", err);
	const char *os = json_str(config, "os", "linux"), *arch = json_str(config, "architecture", "amd64");
	char name[600];

	if (!config)
		return -EINVAL;
	if (json_array_size(json_object_get(json_object_get(config, "rootfs"), "diff_ids")) != p->n)
		return err_set(err, EINVAL, "the image's config does not name as many layers as its manifest");
	image_ref_familiar(&p->ref, name, sizeof(name));
	if (strcmp(os, "linux") != 0)
		return err_set(err, EINVAL, "image operating system \"%.40s\" cannot be used on this platform", os);
	/* A single manifest says nothing of its platform: the config does. */
	if (p->platform_given && (strcmp(arch, p->arch) || strcmp(os, p->os)))
		return err_set(
			err, ENOENT,
			"image with reference %.200s was found but does not provide the specified platform (%s/%s%s%s)",
			name, p->os, p->arch, p->variant[0] ? "/" : "", p->variant);
	return 0;
}

static void got_config(void *arg, const json_t *result, const struct err *failed)
{
	struct pull *p = arg;
	struct err err = failed ? *failed : ERR_INIT;
	const char *want = json_str(json_object_get(p->manifest, "config"), "digest", "");
	const json_t *text = json_object_get(result, "text");
	char digest[DIGEST_TEXT];

	p->j->proc = NULL;
	if (result) {
		p->config_len = json_string_length(text);
		p->config = strdup(json_is_string(text) ? json_string_value(text) : "");
		if (!p->config || strlen(p->config) != p->config_len) {
			(void)err_set(&err, EINVAL, "the image's config is no text");
		} else {
			digest_of(p->config, p->config_len, digest);
			if (strcmp(digest, want) != 0)
				(void)err_set(&err, EINVAL, "image config verification failed for digest %s", want);
			else
				(void)!check_config(p, &err);
		}
	}
	if (err.code || job_stage(p->j, &err) < 0)
		fail(p, &err);
	else
		start_layers(p);
}

static int take_layers(struct pull *p, struct err *err)
{
	const json_t *list = json_object_get(p->manifest, "layers"), *d;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > LAYERS_MAX)
		return err_set(err, EINVAL, "the registry's manifest is no image's, or has more than %d layers",
			       LAYERS_MAX);
	p->layers = calloc(json_array_size(list) + 1, sizeof(*p->layers));
	if (!p->layers)
		return err_set(err, ENOMEM, "no memory to pull an image");
	json_array_foreach(list, i, d) {
		struct pull_layer *l = &p->layers[p->n++];

		*l = (struct pull_layer){ .pull = p,
					  .number = (unsigned)i,
					  .digest = json_str(d, "digest", ""),
					  .size = json_int(d, "size", -1) };
		if (!digest_valid(l->digest) || l->size <= 0)
			return err_set(err, EINVAL, "the registry's manifest has a bad layer (%zu)", i + 1);
		if (json_array_size(json_object_get(d, "urls")))
			return err_set(err, ENOTSUP,
				       "the image has a layer that lies elsewhere (foreign layers are not supported)");
	}
	return 0;
}

static void got_manifest(void *arg, const json_t *result, const struct err *err);

static int ask_manifest(struct pull *p, const char *reference, struct err *err)
{
	p->j->proc = registry_ask(&p->registry, p->j, "manifest", json_pack("{s:s}", "reference", reference), -1, -1,
				  NULL, got_manifest, p, err);
	return p->j->proc ? 0 : -err->code;
}

/* choose - the index's manifest for the platform, into p->want. */
static int choose(struct pull *p, const json_t *list, struct err *err)
{
	const json_t *d;
	size_t i;

	json_array_foreach(list, i, d) {
		const json_t *at = json_object_get(d, "platform");
		const char *digest = json_str(d, "digest", "");

		if (strcmp(json_str(at, "os", ""), p->os) || strcmp(json_str(at, "architecture", ""), p->arch) ||
		    (p->variant[0] && strcmp(json_str(at, "variant", ""), p->variant)))
			continue;
		if (!digest_valid(digest))
			return err_set(err, EINVAL, "the registry's index has a bad digest \"%.80s\"", digest);
		(void)snprintf(p->want, sizeof(p->want), "%s", digest);
		return 0;
	}
	return err_set(err, ENOENT, "no matching manifest for %s/%s%s%s in the manifest list entries", p->os, p->arch,
		       p->variant[0] ? "/" : "", p->variant);
}

/* is_here - the store has this image with these very layers; then its config is read there. */
static bool is_here(struct pull *p, const char *id)
{
	const struct image *im = store_by_id(p->j->s, id);
	bool same = im && im->nlayers == p->n;

	for (size_t i = 0; same && i < p->n; i++)
		same = im->layers[i].blob && !strcmp(json_str(im->layers[i].blob, "digest", ""), p->layers[i].digest);
	CLEAN_FREE char *path = same ? store_blob_path(p->j->s, id) : NULL;

	p->config = path ? fd_read_file(AT_FDCWD, path, 8U << 20, &p->config_len, NULL) : NULL;
	if (p->config && check_config(p, NULL) == 0)
		return true;
	free(take_ptr(p->config));
	return false;
}

static int use_manifest(struct pull *p, const json_t *result, struct err *err)
{
	const json_t *text = json_object_get(result, "text");
	size_t len = json_string_length(text);
	const char *bytes = json_is_string(text) ? json_string_value(text) : "";
	char digest[DIGEST_TEXT];
	json_t *list;

	digest_of(bytes, len, digest);
	if (p->want[0] && strcmp(digest, p->want) != 0)
		return err_set(err, EINVAL, "manifest verification failed for digest %s", p->want);
	if (!p->top[0])
		(void)snprintf(p->top, sizeof(p->top), "%s", digest);
	registry_learn(&p->registry, result);
	json_decref(p->manifest);
	p->manifest = json_parse(bytes, len, "the registry's manifest", err);
	if (!p->manifest)
		return -EINVAL;
	if (json_int(p->manifest, "schemaVersion", 0) != 2)
		return err_set(
			err, ENOTSUP,
			"the image is of the old schema 1, which is not supported: push it again with a newer client");
	list = json_object_get(p->manifest, "manifests");
	if (list) {
		if (++p->depth > 3)
			return err_set(err, EINVAL, "the registry's indexes name each other");
		int rc = choose(p, list, err);

		return rc < 0 ? rc : ask_manifest(p, p->want, err);
	}
	const char *config = json_str(json_object_get(p->manifest, "config"), "digest", "");
	int rc = take_layers(p, err);

	if (rc == 0 && !digest_valid(config))
		rc = err_set(err, EINVAL, "the registry's manifest has a bad config");
	if (rc < 0)
		return rc;
	if (is_here(p, config))
		return 0;
	p->j->proc = registry_ask(&p->registry, p->j, "text", json_pack("{s:s}", "digest", config), -1, -1, NULL,
				  got_config, p, err);
	return p->j->proc ? 0 : -err->code;
}

/* explain - Docker's words for what a registry refuses. */
static void explain(const struct pull *p, struct err *err)
{
	struct image_ref r = p->ref;
	char name[600], cause[256];

	(void)snprintf(cause, sizeof(cause), "%.255s", err->msg);
	if (err->code == EACCES && !strncmp(cause, "denied", 6)) {
		r.tag[0] = r.digest[0] = 0;
		image_ref_familiar(&r, name, sizeof(name));
		(void)err_set(
			err, ENOENT,
			"pull access denied for %.200s, repository does not exist or may require 'docker login': %s",
			name, cause);
	} else if (err->code == ENOENT && strncmp(cause, "no matching", 11) && strncmp(cause, "image with", 10)) {
		bool nameless = !strncmp(cause, "name unknown", 12);

		if (nameless)
			r.tag[0] = r.digest[0] = 0;
		image_ref_familiar(&r, name, sizeof(name));
		(void)err_set(err, ENOENT, "%s %.200s not found: %s", nameless ? "repository" : "manifest for", name,
			      cause);
	}
}

static void got_manifest(void *arg, const json_t *result, const struct err *failed)
{
	struct pull *p = arg;
	struct err err = failed ? *failed : ERR_INIT;
	bool first = !p->top[0];

	p->j->proc = NULL;
	int rc = result ? use_manifest(p, result, &err) : -err.code;

	if (rc < 0) {
		explain(p, &err);
		fail(p, &err);
	} else if (first) {
		struct image_ref r = p->ref;
		char name[600], text[700];

		r.tag[0] = r.digest[0] = 0;
		image_ref_familiar(&r, name, sizeof(name));
		(void)snprintf(text, sizeof(text), "Pulling from %s",
			       !strcmp(r.domain, "docker.io") ? r.path : name + strlen(r.domain) + 1);
		CLEAN_JSON json_t *line = json_pack("{s:s,s:s}", "status", text, "id", p->reference);

		if (p->j->progress)
			p->j->progress(p->j->arg, line);
	}
	if (rc == 0 && p->config)
		finish(p);
}

static int take_platform(struct pull *p, const char *platform, struct err *err)
{
	(void)snprintf(p->os, sizeof(p->os), "linux");
	(void)snprintf(p->arch, sizeof(p->arch), "amd64");
	if (!platform || !*platform)
		return 0;
	p->platform_given = true;
	int n = sscanf(platform, "%31[a-z0-9]/%31[a-z0-9_]/%31[a-z0-9]", p->os, p->arch, p->variant);

	if (n < 1 || strlen(p->os) + (n > 1 ? 1 + strlen(p->arch) : 0) + (n > 2 ? 1 + strlen(p->variant) : 0) !=
			     strlen(platform))
		return err_set(err, EINVAL, "\"%.100s\" is an invalid platform", platform);
	/* One part: an operating system or an architecture. */
	if (n == 1 && strcmp(p->os, "linux") && strcmp(p->os, "windows")) {
		(void)snprintf(p->arch, sizeof(p->arch), "%s", p->os);
		(void)snprintf(p->os, sizeof(p->os), "linux");
	}
	if (!strcmp(p->arch, "x86_64"))
		(void)snprintf(p->arch, sizeof(p->arch), "amd64");
	if (!strcmp(p->arch, "aarch64"))
		(void)snprintf(p->arch, sizeof(p->arch), "arm64");
	return 0;
}

struct image_job *image_pull_start(struct image_store *s, struct loop *l, const char *ref, const char *platform,
				   const json_t *auth, image_progress_fn progress, image_done_fn done, void *arg,
				   struct err *err)
{
	struct image_ref r;

	if (image_ref_parse(ref, true, &r, err) < 0)
		return NULL;
	struct image_job *j = job_new(s, l, progress, done, arg, err);
	struct pull *p = j ? calloc(1, sizeof(*p)) : NULL;

	if (!p) {
		job_free(j);
		(void)err_set(err, ENOMEM, "no memory to pull an image");
		return NULL;
	}
	*p = (struct pull){ .j = j, .next = s->pulls, .registry = REGISTRY_INIT, .ref = r };
	s->pulls = p;
	j->more = p;
	j->more_free = pull_free;
	(void)snprintf(p->reference, sizeof(p->reference), "%s", r.digest[0] ? r.digest : r.tag);
	(void)snprintf(p->want, sizeof(p->want), "%s", r.digest);
	if (r.digest[0])
		p->ref.tag[0] = 0;
	if (take_platform(p, platform, err) < 0 ||
	    registry_open(&p->registry, s, r.domain, r.path, "pull", auth, err) < 0 ||
	    ask_manifest(p, p->reference, err) < 0) {
		job_free(j);
		return NULL;
	}
	return j;
}
