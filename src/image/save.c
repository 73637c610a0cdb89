/* SPDX-License-Identifier: Apache-2.0 */
/* Save: the engine plans an archive that is docker-archive and OCI layout in one; walnut-worker writes it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "image/job.h"
#include "image/source.h"

/* plan_layer - a layer's entry, once. Return: its descriptor for the manifest. */
static json_t *plan_layer(json_t *plan, json_t *seen, const struct image_layer *o)
{
	char name[128];

	(void)snprintf(name, sizeof(name), "blobs/sha256/%s", o->diff_id + 7);
	if (!json_object_get(seen, name)) {
		json_object_set_new(seen, name, json_true());
		json_array_append_new(plan, json_pack("{s:s,s:s,s:s,s:s,s:I}", "name", name, "diff_id", o->diff_id,
						      "erofs", o->erofs_digest + 7, "recipe", o->recipe_digest + 7,
						      "size", (json_int_t)o->tar_size));
	}
	return json_pack("{s:s,s:s,s:I}", "mediaType", "application/vnd.oci.image.layer.v1.tar", "digest", o->diff_id,
			 "size", (json_int_t)o->tar_size);
}

/* plan_text - a blob or file of text; @name NULL: named by its digest. Return: a descriptor of it. */
static json_t *plan_text(json_t *plan, json_t *seen, const char *name, const char *text, const char *type)
{
	struct sha256_ctx sha;
	uint8_t sum[SHA256_DIGEST_SIZE];
	char digest[DIGEST_TEXT], path[128];

	sha256_init(&sha);
	sha256_update(&sha, strlen(text), (const uint8_t *)text);
	sha256_digest(&sha, sizeof(sum), sum);
	digest_text(sum, digest);
	(void)snprintf(path, sizeof(path), "blobs/sha256/%s", digest + 7);
	if (!name)
		name = path;
	if (!json_object_get(seen, name)) {
		json_object_set_new(seen, name, json_true());
		json_array_append_new(plan, json_pack("{s:s,s:s}", "name", name, "text", text));
	}
	return json_pack("{s:s,s:s,s:I}", "mediaType", type, "digest", digest, "size", (json_int_t)strlen(text));
}

static int plan_image(struct image_store *s, const char *ref, const struct image *im, json_t *plan, json_t *seen,
		      json_t *docker, json_t *index, struct err *err)
{
	CLEAN_FREE char *path = NULL;
	CLEAN_JSON json_t *layers = json_array();
	CLEAN_JSON json_t *names = json_array();
	struct image_ref r;
	char name[600], full[600];
	size_t len;

	if (asprintf(&path, "%s/blobs/sha256/%s", s->dir, im->id + 7) < 0)
		return err_set(err, ENOMEM, "no memory to save images");
	CLEAN_FREE char *config = fd_read_file(AT_FDCWD, path, 8U << 20, &len, err);

	if (!config)
		return -EIO;
	for (size_t i = 0; i < im->nlayers; i++) {
		(void)snprintf(name, sizeof(name), "blobs/sha256/%s", im->layers[i].diff_id + 7);
		json_array_append_new(names, json_string(name));
		json_array_append_new(layers, plan_layer(plan, seen, &im->layers[i]));
	}
	json_t *d = plan_text(plan, seen, NULL, config, "application/vnd.oci.image.config.v1+json");
	CLEAN_JSON json_t *m = json_pack("{s:i,s:s,s:o,s:O}", "schemaVersion", 2, "mediaType",
					 "application/vnd.oci.image.manifest.v1+json", "config", d, "layers", layers);
	CLEAN_FREE char *text = m ? json_text(m) : NULL;

	if (!text)
		return err_set(err, ENOMEM, "no memory to save images");
	d = plan_text(plan, seen, NULL, text, "application/vnd.oci.image.manifest.v1+json");
	json_t *tags = json_array();

	if (image_ref_parse(ref, true, &r, NULL) == 0) {
		image_ref_familiar(&r, name, sizeof(name));
		image_ref_full(&r, full, sizeof(full));
		for (size_t k = 0; k < im->nrepo_tags; k++) {
			if (strcmp(im->repo_tags[k], name) != 0)
				continue;
			json_array_append_new(tags, json_string(name));
			json_object_set_new(d, "annotations",
					    json_pack("{s:s,s:s}", "io.containerd.image.name", full,
						      "org.opencontainers.image.ref.name", r.tag));
		}
	}
	json_array_append_new(index, d);
	(void)snprintf(full, sizeof(full), "blobs/sha256/%s", im->id + 7);
	json_array_append_new(docker, json_pack("{s:s,s:o,s:O}", "Config", full, "RepoTags", tags, "Layers", names));
	return 0;
}

static void saved(void *arg, const json_t *result, const struct err *err)
{
	struct image_job *j = arg;

	j->proc = NULL;
	job_done(j, err, result);
}

struct image_job *image_save_start(struct image_store *s, struct loop *l, const char *const *names, size_t n, int out,
				   image_done_fn done, void *arg, struct err *err)
{
	CLEAN_JSON json_t *plan = json_array();
	CLEAN_JSON json_t *seen = json_object();
	CLEAN_JSON json_t *docker = json_array();
	CLEAN_JSON json_t *index = json_object();
	CLEAN_FREE char *path = NULL;
	json_t *list = json_array();

	json_object_set_new(index, "schemaVersion", json_integer(2));
	json_object_set_new(index, "mediaType", json_string("application/vnd.oci.image.index.v1+json"));
	json_object_set_new(index, "manifests", list);
	for (size_t i = 0; i < n; i++) {
		const struct image *im = image_find(s, names[i], err);

		if (!im || plan_image(s, names[i], im, plan, seen, docker, list, err) < 0)
			return NULL;
	}
	CLEAN_FREE char *index_text = json_text(index);
	CLEAN_FREE char *docker_text = json_text(docker);

	if (!index_text || !docker_text || asprintf(&path, "%s/blobs/sha256", s->dir) < 0) {
		(void)err_set(err, ENOMEM, "no memory to save images");
		return NULL;
	}
	json_decref(plan_text(plan, seen, "index.json", index_text, ""));
	json_decref(plan_text(plan, seen, "manifest.json", docker_text, ""));
	json_decref(plan_text(plan, seen, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}", ""));
	CLEAN_FD int fd = worker_plan(plan, err);
	CLEAN_FD int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return NULL;
	if (dir < 0) {
		(void)err_sys(err, errno, "cannot open %s", path);
		return NULL;
	}
	struct image_job *j = job_new(s, l, NULL, done, arg, err);
	struct worker_spec spec = { .verb = "save", .in = -1, .out = out, .dir = dir, .plan = fd };

	if (j && !(j->proc = worker_spawn(s, l, &spec, NULL, saved, j, err)))
		job_free(take_ptr(j));
	return j;
}
