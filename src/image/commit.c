/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commit: an image's layers and one more, which comes as a tar, become a new image.
 * As with import, one worker parses the tar and a second one, which parses nothing, says
 * what the files' digests are. A layer without anything in it is not kept (as Docker does).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/cleanup.h"
#include "image/job.h"
#include "image/source.h"

/* sha256 of 1024 zero bytes: the archive that holds nothing */
#define EMPTY_TAR "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

struct commit {
	char *parent;
	json_t *facts; /* author, comment, created_by, container */
};

static void commit_free(void *arg)
{
	struct commit *c = arg;

	free(c->parent);
	json_decref(c->facts);
	free(c);
}

static json_t *layer_record(const struct image_layer *l)
{
	json_t *o = json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I}", "diff_id", l->diff_id, "erofs", l->erofs_digest,
			      "recipe", l->recipe_digest, "tar_size", (json_int_t)l->tar_size, "erofs_size",
			      (json_int_t)l->erofs_size, "recipe_size", (json_int_t)l->recipe_size, "size",
			      (json_int_t)l->size);

	if (o && l->blob)
		(void)json_object_set(o, "blob", l->blob);
	return o;
}

static void set_text(json_t *o, const char *key, const char *text)
{
	if (text && *text)
		(void)json_object_set_new(o, key, json_string(text));
}

/* A member that has the wrong type in the parent's config is begun anew. */
static json_t *list_of(json_t *config, const char *key)
{
	json_t *old = json_object_get(config, key), *list = json_is_array(old) ? json_copy(old) : json_array();

	(void)json_object_set_new(config, key, list);
	return list;
}

/* The new image's whole config: the parent's with what the container and the request say. */
static json_t *make_config(const struct image_job *j, const struct image *parent, const char *diff_id)
{
	const struct commit *c = j->more;
	const char *author = json_str(c->facts, "author", ""), *comment = json_str(c->facts, "comment", "");
	json_t *config = json_copy(parent->config), *rootfs = json_object(), *step = json_object(), *ids = json_array();
	struct timespec t;
	char now[64];
	struct tm tm;

	(void)clock_gettime(CLOCK_REALTIME, &t);
	size_t n = strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%S", gmtime_r(&t.tv_sec, &tm));

	(void)snprintf(now + n, sizeof(now) - n, ".%09ldZ", t.tv_nsec);
	for (size_t i = 0; i < parent->nlayers; i++)
		(void)json_array_append_new(ids, json_string(parent->layers[i].diff_id));
	if (diff_id)
		(void)json_array_append_new(ids, json_string(diff_id));
	(void)json_object_set_new(rootfs, "type", json_string("layers"));
	(void)json_object_set_new(rootfs, "diff_ids", ids);
	(void)json_object_set_new(config, "rootfs", rootfs);
	(void)json_object_set(config, "config", j->config);
	(void)json_object_del(config, "comment");
	set_text(config, "created", now);
	set_text(config, "author", author);
	set_text(config, "comment", comment);
	set_text(config, "container", json_str(c->facts, "container", ""));
	set_text(config, "parent", parent->id);
	set_text(step, "created", now);
	set_text(step, "created_by", json_str(c->facts, "created_by", ""));
	set_text(step, "author", author);
	set_text(step, "comment", comment);
	if (!diff_id)
		(void)json_object_set_new(step, "empty_layer", json_true());
	(void)json_array_append_new(list_of(config, "history"), step);
	return config;
}

static int finish(struct image_job *j, const json_t *files, json_t **out, struct err *err)
{
	const struct commit *c = j->more;
	const struct image *parent = store_by_id(j->s, c->parent), *made;
	json_t *layer = json_object_get(j->result, "layer");
	bool empty = !strcmp(json_str(layer, "diff_id", ""), EMPTY_TAR);
	CLEAN_JSON json_t *layers = json_array();
	CLEAN_JSON json_t *added = json_array();
	CLEAN_JSON json_t *tags = json_array();
	int rc;

	if (!parent)
		return err_set(err, ENOENT, "the image %.19s was removed while a container of it was committed",
			       c->parent);
	for (size_t i = 0; i < parent->nlayers; i++)
		(void)json_array_append_new(layers, layer_record(&parent->layers[i]));
	if (!empty && (json_array_append(added, layer) || json_array_append(layers, layer)))
		return err_set(err, EPROTO, "walnut-worker gave a bad result");
	rc = job_adopt(j, added, files, err);
	if (rc < 0)
		return rc;
	CLEAN_JSON json_t *config = make_config(j, parent, empty ? NULL : json_str(layer, "diff_id", ""));
	CLEAN_FREE char *text = config ? json_text(config) : NULL;

	if (!text)
		return err_set(err, ENOMEM, "no memory to commit an image");
	if (*j->ref)
		(void)json_array_append_new(tags, json_string(j->ref));
	rc = store_add(j->s, text, strlen(text), layers, tags, &made, err);
	if (rc == 0)
		*out = json_pack("{s:s}", "id", made->id);
	return rc;
}

static void digested(void *arg, const json_t *files, const struct err *failed)
{
	struct image_job *j = arg;
	struct err err = failed ? *failed : ERR_INIT;
	CLEAN_JSON json_t *out = NULL;
	int rc = files ? finish(j, files, &out, &err) : -err.code;

	j->proc = NULL;
	if (rc == 0)
		rc = store_commit(j->s, &err);
	else if (files)
		store_revert(j->s);
	job_done(j, rc < 0 ? &err : NULL, rc < 0 ? NULL : out);
}

static void parsed(void *arg, const json_t *result, const struct err *failed)
{
	struct image_job *j = arg;
	struct err err = failed ? *failed : ERR_INIT;

	j->proc = NULL;
	j->result = json_incref((json_t *)(uintptr_t)result);
	if (result) {
		CLEAN_JSON json_t *layers = json_pack("[O]", json_object_get(result, "layer"));

		if (!layers)
			(void)err_set(&err, EPROTO, "walnut-worker gave a bad result");
		else
			j->proc = job_digest(j, layers, digested, j, &err);
		if (j->proc)
			return;
	}
	job_done(j, &err, NULL);
}

struct image_job *image_commit_start(struct image_store *s, struct loop *l, int in, const char *parent, const char *ref,
				     json_t *config, const json_t *facts, image_done_fn done, void *arg,
				     struct err *err)
{
	struct image_job *j = job_new(s, l, NULL, done, arg, err);
	struct commit *c = j ? calloc(1, sizeof(*c)) : NULL;
	struct worker_spec spec = { .verb = "import", .in = in, .out = -1, .plan = -1 };

	if (!c) {
		job_free(j);
		(void)err_set(err, ENOMEM, "no memory to commit an image");
		return NULL;
	}
	j->more = c;
	j->more_free = commit_free;
	c->parent = strdup(parent);
	c->facts = json_deep_copy(facts);
	j->ref = strdup(ref ? ref : "");
	j->config = json_incref(config);
	if (!c->parent || !c->facts || !j->ref)
		(void)err_set(err, ENOMEM, "no memory to commit an image");
	else if (job_stage(j, err) == 0) {
		spec.dir = j->staging_fd;
		j->proc = worker_spawn(s, l, &spec, NULL, parsed, j, err);
	}
	if (j->proc)
		return j;
	job_free(j);
	return NULL;
}

/* --- the container's config and the request's --- */

static bool empty_list(const json_t *v)
{
	return !v || json_is_null(v) || json_array_size(v) == 0;
}

/* A variable that the container has and the request has not. */
static void merge_env(json_t *config, const json_t *from)
{
	json_t *to = json_object_get(config, "Env"), *v, *w;
	size_t i, k;

	if (!json_is_array(to)) {
		to = json_array();
		(void)json_object_set_new(config, "Env", to);
	}
	json_array_foreach(from, i, v) {
		const char *text = json_is_string(v) ? json_string_value(v) : "";
		size_t name = strcspn(text, "=");
		bool had = false;

		json_array_foreach(to, k, w) {
			const char *other = json_is_string(w) ? json_string_value(w) : "";

			had |= strcspn(other, "=") == name && !strncmp(other, text, name);
		}
		if (!had)
			(void)json_array_append(to, v);
	}
}

/* What the request's config leaves open is the container's (as Docker merges them). */
static json_t *merge(const json_t *asked, const json_t *container)
{
	static const char *const texts[] = { "User", "WorkingDir", "StopSignal" };
	static const char *const sets[] = { "ExposedPorts", "Labels", "Volumes" };
	json_t *config = json_deep_copy(asked);
	const char *key;
	json_t *v;

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		if (!*json_str(config, texts[i], ""))
			set_text(config, texts[i], json_str(container, texts[i], ""));
	for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
		const json_t *from = json_object_get(container, sets[i]);
		json_t *to = json_object_get(config, sets[i]);

		if (!json_is_object(to) && json_object_size(from)) {
			to = json_object();
			(void)json_object_set_new(config, sets[i], to);
		}
		json_object_foreach((json_t *)(uintptr_t)from, key, v)
			if (!json_object_get(to, key))
				(void)json_object_set(to, key, v);
	}
	merge_env(config, json_object_get(container, "Env"));
	if (empty_list(json_object_get(config, "Entrypoint"))) {
		if (empty_list(json_object_get(config, "Cmd")))
			(void)json_object_set(config, "Cmd", json_object_get(container, "Cmd"));
		(void)json_object_set(config, "Entrypoint", json_object_get(container, "Entrypoint"));
	}
	if (!json_is_object(json_object_get(config, "Healthcheck")))
		(void)json_object_set(config, "Healthcheck", json_object_get(container, "Healthcheck"));
	return config;
}

/* Members of a container's config that say nothing about an image (they are no part of the OCI image-spec), and nulls. */
static void strip(json_t *config)
{
	static const char *const run_only[] = { "Hostname",     "Domainname", "AttachStdin", "AttachStdout",
						"AttachStderr", "Tty",        "OpenStdin",   "StdinOnce",
						"Image",        "MacAddress", "StopTimeout", "NetworkDisabled" };
	const char *key;
	json_t *v;
	void *next;

	for (size_t i = 0; i < ARRAY_LEN(run_only); i++)
		(void)json_object_del(config, run_only[i]);
	json_object_foreach_safe(config, next, key, v)
		if (json_is_null(v))
			(void)json_object_del(config, key);
}

json_t *image_commit_config(const json_t *container, const json_t *asked, const json_t *changes, struct err *err)
{
	CLEAN_JSON json_t *own = json_deep_copy(json_is_object(asked) && json_object_size(asked) ? asked : container);
	bool cmd = false;
	json_t *config, *v;
	size_t i;

	if (!own) {
		(void)err_set(err, ENOMEM, "no memory to commit an image");
		return NULL;
	}
	json_array_foreach(changes, i, v) {
		const char *line = json_is_string(v) ? json_string_value(v) : "";

		line += strspn(line, " \t");
		if (image_config_change(own, line, err) < 0)
			return NULL;
		cmd |= !strncasecmp(line, "CMD", 3);
		/* The Dockerfile reference: ENTRYPOINT takes away a CMD that came from before. */
		if (!strncasecmp(line, "ENTRYPOINT", 10) && !cmd)
			(void)json_object_del(own, "Cmd");
	}
	config = merge(own, container);
	strip(config);
	return config;
}
