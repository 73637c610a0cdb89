/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Load and import. One worker parses the archive and leaves files in a staging
 * folder; when it is dead, a second one, which parses nothing, hashes them and
 * brings them to disk; only then they enter the store, under the names that the
 * second one gave. What the first one says is checked for form, and believed only
 * about its own archive: it could have made the archive say the same.
 */
#include "image/job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "image/source.h"

void job_show(const struct image_job *j, const char *status, const char *id, json_t *detail)
{
	CLEAN_JSON json_t *line = json_pack("{s:s}", "status", status);

	if (id)
		json_object_set_new(line, "id", json_sprintf("%.12s", id));
	if (detail)
		json_object_set_new(line, "progressDetail", detail);
	if (j->progress)
		j->progress(j->arg, line);
}

void job_free(struct image_job *j)
{
	if (!j)
		return;
	worker_kill(j->proc);
	if (j->more)
		j->more_free(j->more);
	close_fd(&j->staging_fd);
	if (j->staging)
		(void)!fd_remove_tree(AT_FDCWD, j->staging, NULL);
	free(j->staging);
	free(j->ref);
	free(j->message);
	json_decref(j->config);
	json_decref(j->result);
	free(j);
}

void image_job_cancel(struct image_job *j)
{
	job_free(j);
}

struct image_job *job_new(struct image_store *s, struct loop *l, image_progress_fn progress, image_done_fn done,
			  void *arg, struct err *err)
{
	struct image_job *j = calloc(1, sizeof(*j));

	if (!j) {
		(void)err_set(err, ENOMEM, "no memory for an image's job");
		return NULL;
	}
	*j = (struct image_job){ .s = s, .l = l, .staging_fd = -1, .progress = progress, .done = done, .arg = arg };
	return j;
}

void job_done(struct image_job *j, const struct err *err, const json_t *result)
{
	struct err said = err ? *err : ERR_INIT;

	if (said.code == ENOSPC)
		(void)err_set(&said, ENOSPC, "%.300s: free space on the file system of %.150s", err->msg, j->s->data);
	/* The staging is gone when the client hears of the end. */
	image_done_fn done = j->done;
	void *arg = j->arg;
	CLEAN_JSON json_t *kept = json_incref((json_t *)(uintptr_t)result);

	job_free(j);
	done(arg, err ? &said : NULL, kept);
}

int job_stage(struct image_job *j, struct err *err)
{
	if (asprintf(&j->staging, "%s/tmp/load-XXXXXX", j->s->data) < 0)
		j->staging = NULL;
	if (j->staging && !mkdtemp(j->staging)) {
		free(j->staging);
		j->staging = NULL;
	}
	if (j->staging)
		j->staging_fd = open(j->staging, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (j->staging_fd < 0 || fchown(j->staging_fd, j->s->uid, j->s->gid) < 0)
		return err_sys(err, errno, "cannot make a staging folder in %s/tmp", j->s->data);
	return 0;
}

/* --- from staging to the store --- */

static const char *const kinds[] = { "erofs", "recipe" };

static void file_name(const json_t *layer, size_t kind, char out[64])
{
	(void)snprintf(out, 64, "layer-%d.%s", (int)json_int(layer, "number", -1), kinds[kind]);
}

struct worker_proc *job_digest(struct image_job *j, const json_t *layers, worker_end_fn end, void *arg, struct err *err)
{
	CLEAN_JSON json_t *names = json_array();
	const json_t *layer;
	size_t i;

	json_array_foreach(layers, i, layer) {
		int64_t number = json_int(layer, "number", -1);
		const char *diff_id = json_str(layer, "diff_id", "");

		if (number < 0 || number > 100000 || !digest_valid(diff_id)) {
			(void)err_set(err, EPROTO, "walnut-worker gave a bad result");
			return NULL;
		}
		for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
			char name[64];

			file_name(layer, k, name);
			json_array_append_new(names, json_string(name));
		}
	}
	CLEAN_FD int plan = worker_plan(names, err);
	struct worker_spec spec = { .verb = "digest", .in = -1, .out = -1, .dir = j->staging_fd, .plan = plan };

	if (plan < 0)
		return NULL;
	return worker_spawn(j->s, j->l, &spec, NULL, end, arg, err);
}

/* adopt - one file of the staging becomes a blob. */
static int adopt(struct image_job *j, const char *name, const char *digest, int64_t size, struct err *err)
{
	CLEAN_FREE char *to = NULL;
	struct stat st;

	if (!digest_valid(digest))
		return err_set(err, EPROTO, "walnut-worker gave a bad result");
	if (asprintf(&to, "%s/blobs/sha256/%s", j->s->dir, digest + 7) < 0)
		return err_set(err, ENOMEM, "no memory for the image store");
	if (access(to, F_OK) == 0)
		return 0;
	CLEAN_FD int fd = openat(j->staging_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_size != size)
		return err_set(err, EPROTO, "walnut-worker left no proper file of a layer");
	if (fchown(fd, 0, 0) < 0 || fchmod(fd, 0444) < 0 || renameat(j->staging_fd, name, AT_FDCWD, to) < 0)
		return err_sys(err, errno, "cannot store a layer");
	return 0;
}

int job_adopt(struct image_job *j, json_t *layers, const json_t *files, struct err *err)
{
	json_t *layer;
	size_t i;

	json_array_foreach(layers, i, layer) {
		for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
			char name[64], size_key[32];

			file_name(layer, k, name);
			const json_t *file = json_object_get(files, name);
			const char *digest = json_str(file, "digest", "");
			int64_t size = json_int(file, "size", -1);
			int rc = adopt(j, name, digest, size, err);

			if (rc < 0)
				return rc;
			(void)snprintf(size_key, sizeof(size_key), "%s_size", kinds[k]);
			json_object_set_new(layer, kinds[k], json_string(digest));
			json_object_set_new(layer, size_key, json_integer(size));
		}
		json_object_del(layer, "number");
	}
	return 0;
}

/* --- load and import --- */

static void report(struct image_job *j, const char *what, const char *name)
{
	CLEAN_FREE char *text = NULL;

	if (!j->progress || asprintf(&text, "%s: %s\n", what, name) < 0)
		return;
	CLEAN_JSON json_t *line = json_pack("{s:s}", "stream", text);

	if (line)
		j->progress(j->arg, line);
}

static void report_loaded(struct image_job *j, const json_t *out)
{
	const json_t *im, *name;
	size_t i, k;

	json_array_foreach(json_object_get(out, "images"), i, im) {
		const json_t *names = json_object_get(im, "tags");

		json_array_foreach(names, k, name)
			report(j, "Loaded image", json_string_value(name));
		if (k == 0)
			report(j, "Loaded image ID", json_str(im, "id", ""));
	}
}

static int finish_load(struct image_job *j, const json_t *result, const json_t *files, json_t **out, struct err *err)
{
	json_t *im, *shown = json_array();
	size_t i;

	*out = json_pack("{s:o}", "images", shown);
	json_array_foreach(json_object_get(result, "images"), i, im) {
		const char *config = json_str(im, "config", "");
		json_t *layers = json_object_get(im, "layers"), *names = json_array(), *t;
		CLEAN_JSON json_t *entry = json_pack("{s:o}", "tags", names);
		const struct image *made;
		size_t k;
		int rc = job_adopt(j, layers, files, err);

		if (rc < 0)
			return rc;
		rc = store_add(j->s, config, strlen(config), layers, json_object_get(im, "tags"), &made, err);
		if (rc < 0)
			return rc;
		json_array_foreach(json_object_get(im, "tags"), k, t) {
			struct image_ref r;
			char name[600];

			rc = image_ref_parse(json_string_value(t), true, &r, err);
			if (rc < 0)
				return rc;
			image_ref_familiar(&r, name, sizeof(name));
			json_array_append_new(names, json_string(name));
		}
		json_object_set_new(entry, "id", json_string(made->id));
		json_array_append(shown, entry);
	}
	return 0;
}

static int finish_import(struct image_job *j, const json_t *result, const json_t *files, json_t **out, struct err *err)
{
	json_t *layer = json_object_get(result, "layer");
	CLEAN_JSON json_t *layers = json_pack("[O]", layer);
	CLEAN_JSON json_t *tags = json_array();
	const struct image *made;
	char now[64];
	struct timespec t;
	struct tm tm;
	int rc = layers ? job_adopt(j, layers, files, err) : err_set(err, EPROTO, "walnut-worker gave a bad result");

	if (rc < 0)
		return rc;
	(void)clock_gettime(CLOCK_REALTIME, &t);
	size_t n = strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%S", gmtime_r(&t.tv_sec, &tm));

	(void)snprintf(now + n, sizeof(now) - n, ".%09ldZ", t.tv_nsec);
	const char *comment = j->message && *j->message ? j->message : "Imported from -";
	CLEAN_JSON json_t *config =
		json_pack("{s:s,s:s,s:s,s:s,s:O,s:{s:s,s:[s]},s:[{s:s,s:s}]}", "architecture", "amd64", "os", "linux",
			  "created", now, "comment", comment, "config", j->config, "rootfs", "type", "layers",
			  "diff_ids", json_str(layer, "diff_id", ""), "history", "created", now, "comment", comment);
	CLEAN_FREE char *text = config ? json_text(config) : NULL;

	if (!text)
		return err_set(err, ENOMEM, "no memory to import an image");
	if (j->ref && *j->ref)
		json_array_append_new(tags, json_string(j->ref));
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
	int rc = files ? 0 : -err.code;

	j->proc = NULL;
	if (rc == 0) {
		rc = j->import ? finish_import(j, j->result, files, &out, &err)
			       : finish_load(j, j->result, files, &out, &err);
		/* All images of an archive or none: index.json is written once, or read again. */
		if (rc == 0)
			rc = store_commit(j->s, &err);
		else
			store_revert(j->s);
	}
	if (rc == 0 && !j->import)
		report_loaded(j, out);
	job_done(j, rc < 0 ? &err : NULL, rc < 0 ? NULL : out);
}

/* all_layers - the layers of all images of a result, one list. */
static json_t *all_layers(const struct image_job *j)
{
	json_t *list = json_array(), *im, *layer;
	size_t i, k;

	if (j->import) {
		json_array_append(list, json_object_get(j->result, "layer"));
		return list;
	}
	json_array_foreach(json_object_get(j->result, "images"), i, im)
		json_array_foreach(json_object_get(im, "layers"), k, layer)
			json_array_append(list, layer);
	return list;
}

static void parsed(void *arg, const json_t *result, const struct err *failed)
{
	static const int bad[] = { E2BIG, EFBIG, ENAMETOOLONG, ELOOP, ENOTSUP };
	struct image_job *j = arg;
	struct err err = failed ? *failed : ERR_INIT;

	j->proc = NULL;
	/* Whatever rule the archive breaks, the request is a bad one. */
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		err.code = err.code == bad[i] ? EINVAL : err.code;
	j->result = json_incref((json_t *)(uintptr_t)result);
	if (result) {
		CLEAN_JSON json_t *layers = all_layers(j);

		j->proc = job_digest(j, layers, digested, j, &err);
		if (j->proc)
			return;
	}
	job_done(j, &err, NULL);
}

static struct image_job *start_read(struct image_job *j, const char *verb, int in, struct err *err)
{
	struct worker_spec spec = { .verb = verb, .in = in, .out = -1, .plan = -1 };

	if (job_stage(j, err) == 0) {
		spec.dir = j->staging_fd;
		j->proc = worker_spawn(j->s, j->l, &spec, NULL, parsed, j, err);
	}
	if (j->proc)
		return j;
	job_free(j);
	return NULL;
}

struct image_job *image_load_start(struct image_store *s, struct loop *l, int in, bool quiet,
				   image_progress_fn progress, image_done_fn done, void *arg, struct err *err)
{
	struct image_job *j = job_new(s, l, progress, done, arg, err);

	return j ? start_read(j, "load", in, err) : NULL;
}

struct image_job *image_import_start(struct image_store *s, struct loop *l, int in, const char *ref,
				     const char *message, const json_t *changes, image_progress_fn progress,
				     image_done_fn done, void *arg, struct err *err)
{
	CLEAN_JSON json_t *config = json_object();
	struct image_job *j;
	struct image_ref r;
	const json_t *change;
	size_t i;

	if (ref && *ref && image_ref_parse(ref, true, &r, err) < 0)
		return NULL;
	if (ref && *ref && r.digest[0]) {
		(void)err_set(err, EINVAL, "cannot import digest reference");
		return NULL;
	}
	json_array_foreach(changes, i, change)
		if (image_config_change(config, json_is_string(change) ? json_string_value(change) : "", err) < 0)
			return NULL;
	j = job_new(s, l, progress, done, arg, err);
	if (!j)
		return NULL;
	j->import = true;
	j->ref = strdup(ref ? ref : "");
	j->message = strdup(message ? message : "");
	j->config = json_incref(config);
	return start_read(j, "import", in, err);
}
