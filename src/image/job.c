/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work that walnut-worker does, as the engine sees it: a child with a pipe of
 * JSON lines. At the end of the pipe the child is killed (a dead one does not
 * mind) and reaped; only then its files are looked at, since nobody can change
 * them any more. They enter the store by rename, after fsync.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "image/source.h"
#include "image/store.h"

struct image_job {
	struct image_store *s;
	struct loop *l;
	struct loop_source *watch;
	int pipe;
	pid_t pid;
	char *staging;
	struct buf in;
	bool import;
	char *ref, *message;
	json_t *config; /* import: the image's "config" after the changes */
	image_progress_fn progress;
	image_done_fn done;
	void *arg;
};

static void job_free(struct image_job *j)
{
	loop_remove(j->watch);
	close_fd(&j->pipe);
	if (j->pid > 0) {
		(void)kill(j->pid, SIGKILL);
		while (waitpid(j->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (j->staging)
		(void)!fd_remove_tree(AT_FDCWD, j->staging, NULL);
	buf_free(&j->in);
	free(j->staging);
	free(j->ref);
	free(j->message);
	json_decref(j->config);
	free(j);
}

void image_job_cancel(struct image_job *j)
{
	job_free(j);
}

static bool digest_ok(const char *d)
{
	return strlen(d) == 71 && !strncmp(d, "sha256:", 7) && strspn(d + 7, "0123456789abcdef") == 64;
}

/* adopt - one file of the staging becomes a blob. */
static int adopt(struct image_job *j, int64_t number, const char *kind, const char *digest, int64_t size,
		 struct err *err)
{
	CLEAN_FREE char *from = NULL, *to = NULL;
	struct stat st;

	if (number < 0 || number > 100000 || !digest_ok(digest))
		return err_set(err, EPROTO, "walnut-worker gave a bad result");
	if (asprintf(&from, "%s/layer-%d.%s", j->staging, (int)number, kind) < 0 ||
	    asprintf(&to, "%s/blobs/sha256/%s", j->s->dir, digest + 7) < 0)
		return err_set(err, ENOMEM, "no memory for the image store");
	if (access(to, F_OK) == 0)
		return 0;
	CLEAN_FD int fd = open(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_size != size)
		return err_set(err, EPROTO, "walnut-worker left no proper file of a layer");
	if (fchown(fd, 0, 0) < 0 || fchmod(fd, 0444) < 0 || fsync(fd) < 0 || rename(from, to) < 0)
		return err_sys(err, errno, "cannot store a layer");
	return 0;
}

static int adopt_layers(struct image_job *j, json_t *layers, struct err *err)
{
	json_t *l;
	size_t i;

	json_array_foreach(layers, i, l) {
		int64_t number = json_int(l, "number", -1);
		int rc = digest_ok(json_str(l, "diff_id", "")) ? 0 : -EPROTO;

		if (rc == 0)
			rc = adopt(j, number, "erofs", json_str(l, "erofs", ""), json_int(l, "erofs_size", -1), err);
		if (rc == 0)
			rc = adopt(j, number, "recipe", json_str(l, "recipe", ""), json_int(l, "recipe_size", -1), err);
		if (rc < 0)
			return err && err->code ? rc : err_set(err, EPROTO, "walnut-worker gave a bad result");
		json_object_del(l, "number");
	}
	return 0;
}

static void report(struct image_job *j, const char *what, const char *name)
{
	CLEAN_FREE char *text = NULL;

	if (!j->progress || asprintf(&text, "%s: %s\n", what, name) < 0)
		return;
	CLEAN_JSON json_t *line = json_pack("{s:s}", "stream", text);

	if (line)
		j->progress(j->arg, line);
}

static int finish_load(struct image_job *j, json_t *result, json_t **out, struct err *err)
{
	json_t *list = json_object_get(result, "images"), *im, *shown = json_array();
	size_t i;

	*out = json_pack("{s:o}", "images", shown);
	json_array_foreach(list, i, im) {
		const char *config = json_str(im, "config", "");
		const struct image *made;
		int rc = adopt_layers(j, json_object_get(im, "layers"), err);

		if (rc == 0)
			rc = store_add(j->s, config, strlen(config), json_object_get(im, "layers"),
				       json_object_get(im, "tags"), &made, err);
		if (rc < 0)
			return rc;
		json_t *names = json_array(), *t;
		size_t k;

		json_array_foreach(json_object_get(im, "tags"), k, t) {
			struct image_ref r;
			char name[600];

			if (image_ref_parse(json_string_value(t), true, &r, err) < 0)
				return -EINVAL;
			image_ref_familiar(&r, name, sizeof(name));
			json_array_append_new(names, json_string(name));
			report(j, "Loaded image", name);
		}
		if (k == 0)
			report(j, "Loaded image ID", made->id);
		json_array_append_new(shown, json_pack("{s:s,s:o}", "id", made->id, "tags", names));
	}
	return 0;
}

static int finish_import(struct image_job *j, json_t *result, json_t **out, struct err *err)
{
	json_t *layer = json_object_get(result, "layer");
	CLEAN_JSON json_t *layers = json_pack("[O]", layer);
	CLEAN_JSON json_t *tags = json_array();
	const struct image *made;
	char now[64];
	time_t t = time(NULL);
	struct tm tm;
	int rc = layers ? adopt_layers(j, layers, err) : err_set(err, EPROTO, "walnut-worker gave a bad result");

	if (rc < 0)
		return rc;
	(void)strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
	CLEAN_JSON json_t *config = json_pack("{s:s,s:s,s:s,s:O,s:{s:s,s:[s]},s:[{s:s,s:s}]}", "architecture", "amd64",
					      "os", "linux", "created", now, "config", j->config, "rootfs", "type",
					      "layers", "diff_ids", json_str(layer, "diff_id", ""), "history",
					      "created", now, "comment", j->message ? j->message : "");
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

static void job_end(struct image_job *j)
{
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *line = NULL;
	CLEAN_JSON json_t *out = NULL;
	json_t *e, *result;
	int rc = 0;

	loop_remove(j->watch);
	j->watch = NULL;
	(void)kill(j->pid, SIGKILL);
	while (waitpid(j->pid, NULL, 0) < 0 && errno == EINTR)
		;
	j->pid = 0;
	if (j->in.len)
		line = json_parse(buf_bytes(&j->in), j->in.len, "walnut-worker's result", &err);
	e = json_object_get(line, "error");
	result = json_object_get(line, "result");
	if (e)
		rc = err_set(&err, (int)json_int(e, "code", EIO), "%s", json_str(e, "message", "unknown"));
	else if (!result)
		rc = err_set(&err, EIO, "walnut-worker ended without a result (it crashed or was killed)");
	else if (!j->staging)
		out = json_object();
	else
		rc = j->import ? finish_import(j, result, &out, &err) : finish_load(j, result, &out, &err);
	j->done(j->arg, rc < 0 ? &err : NULL, rc < 0 ? NULL : out);
	job_free(j);
}

static void job_read(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct image_job *j = arg;
	ssize_t n = buf_read(&j->in, fd, 65536);

	if (n > 0 || n == -EAGAIN || n == -EINTR)
		return;
	job_end(j);
}

/* place - in the child: put descriptors at 0, 1, 3, 4, 5 and close the rest. */
static void child(const struct image_store *s, const char *verb, int in, int out, int report_fd, int dir, int plan)
{
	char uid[16], gid[16], max[32];
	const int from[] = { in, out, report_fd, dir, plan }, to[] = { 0, 1, 3, 4, 5 };
	int high[5];

	for (int i = 0; i < 5; i++)
		high[i] = from[i] >= 0 ? fcntl(from[i], F_DUPFD, 20) : open("/dev/null", O_RDWR);
	for (int i = 0; i < 5; i++) {
		if (high[i] < 0 || dup2(high[i], to[i]) < 0)
			_exit(126);
	}
	if (close_range(6, ~0U, 0) < 0)
		_exit(126);
	sigset_t none;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)snprintf(uid, sizeof(uid), "%u", s->uid);
	(void)snprintf(gid, sizeof(gid), "%u", s->gid);
	(void)snprintf(max, sizeof(max), "%llu", (unsigned long long)s->max_layer);
	(void)execl(s->worker, "walnut-worker", verb, uid, gid, max, (char *)NULL);
	_exit(127);
}

static struct image_job *job_start(struct image_store *s, struct loop *l, const char *verb, int in, int out, int dir,
				   int plan, struct image_job *j, struct err *err)
{
	int p[2];

	j->s = s;
	j->l = l;
	j->in.limit = 128U << 20;
	if (access(s->worker, X_OK) < 0 || pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0) {
		(void)err_sys(err, errno, "cannot start walnut-worker (%s)", s->worker);
		job_free(j);
		return NULL;
	}
	j->pipe = p[0];
	(void)!fd_set_nonblock(p[1], false);
	j->pid = fork();
	if (j->pid == 0)
		child(s, verb, in, out, p[1], dir, plan);
	(void)close(p[1]);
	j->watch = j->pid < 0 ? NULL : loop_add_fd(l, p[0], EPOLLIN, job_read, j, err);
	if (!j->watch) {
		if (j->pid < 0)
			(void)err_sys(err, errno, "cannot start walnut-worker");
		job_free(j);
		return NULL;
	}
	return j;
}

static struct image_job *job_new(image_progress_fn progress, image_done_fn done, void *arg, struct err *err)
{
	struct image_job *j = calloc(1, sizeof(*j));

	if (!j) {
		(void)err_set(err, ENOMEM, "no memory to start walnut-worker");
		return NULL;
	}
	j->pipe = -1;
	j->progress = progress;
	j->done = done;
	j->arg = arg;
	return j;
}

static struct image_job *start_read(struct image_store *s, struct loop *l, const char *verb, int in,
				    struct image_job *j, struct err *err)
{
	CLEAN_FD int dir = -1;

	if (asprintf(&j->staging, "%s/tmp/load-XXXXXX", s->data) < 0)
		j->staging = NULL;
	if (j->staging && !mkdtemp(j->staging)) {
		free(j->staging);
		j->staging = NULL;
	}
	if (j->staging)
		dir = open(j->staging, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || fchown(dir, s->uid, s->gid) < 0) {
		(void)err_sys(err, errno, "cannot make a staging folder in %s/tmp", s->data);
		job_free(j);
		return NULL;
	}
	return job_start(s, l, verb, in, -1, dir, -1, j, err);
}

struct image_job *image_load_start(struct image_store *s, struct loop *l, int in, bool quiet,
				   image_progress_fn progress, image_done_fn done, void *arg, struct err *err)
{
	struct image_job *j = job_new(progress, done, arg, err);

	return j ? start_read(s, l, "load", in, j, err) : NULL;
}

struct image_job *image_import_start(struct image_store *s, struct loop *l, int in, const char *ref,
				     const char *message, const json_t *changes, image_progress_fn progress,
				     image_done_fn done, void *arg, struct err *err)
{
	struct image_job *j;
	struct image_ref r;

	if (ref && *ref && image_ref_parse(ref, true, &r, err) < 0)
		return NULL;
	if (json_array_size(changes)) {
		(void)err_set(err, ENOTSUP, "import: changes (\"%.100s\") are not supported yet",
			      json_is_string(json_array_get(changes, 0)) ? json_string_value(json_array_get(changes, 0))
									 : "");
		return NULL;
	}
	j = job_new(progress, done, arg, err);
	if (!j)
		return NULL;
	j->import = true;
	j->ref = strdup(ref ? ref : "");
	j->message = strdup(message ? message : "");
	j->config = json_object();
	return start_read(s, l, "import", in, j, err);
}

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
	CLEAN_FREE char *text = json_text(plan);
	CLEAN_FD int fd = memfd_create("plan", MFD_CLOEXEC);
	CLEAN_FD int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (!text || fd < 0 || dir < 0 || fd_write_full(fd, text, strlen(text)) < 0 || lseek(fd, 0, SEEK_SET) < 0) {
		(void)err_sys(err, errno, "cannot plan an archive");
		return NULL;
	}
	struct image_job *j = job_new(NULL, done, arg, err);

	return j ? job_start(s, l, "save", -1, out, dir, fd, j, err) : NULL;
}
