/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images. Archives pass through pipes between the client's connection and the
 * sandboxed worker; nothing of them is looked at here.
 */
#include "api/routes.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "engine/engine.h"
#include "image/image.h"

static json_t *strings(char *const *list, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(a, json_string(list[i]));
	return a;
}

static void set(json_t *o, const char *key, json_t *value)
{
	(void)json_object_set_new(o, key, value);
}

static void image_event(struct engine *e, const char *action, const char *id, const char *name)
{
	events_emit(e, "image", action, id, json_pack("{s:s}", "name", name));
}

static enum image_use image_used(void *arg, const char *image_id, char *why, size_t why_size)
{
	bool running = false;
	const char *id = engine_image_in_use(arg, image_id, &running);

	if (!id)
		return IMAGE_UNUSED;
	snprintf(why, why_size, "%.12s", id);
	return running ? IMAGE_USED_RUNNING : IMAGE_USED_STOPPED;
}

static const struct image *find(struct http_conn *c, struct engine *e, const char *name)
{
	struct err err = ERR_INIT;
	const struct image *im = image_find(e->images, name, &err);

	if (!im)
		http_reply_error(c, &err);
	return im;
}

static bool name_matches(const char *name, const char *pattern)
{
	const char *colon = strrchr(name, ':');
	CLEAN_FREE char *bare = colon ? strndup(name, (size_t)(colon - name)) : strdup(name);

	return !fnmatch(pattern, name, FNM_PATHNAME) || (bare && !fnmatch(pattern, bare, FNM_PATHNAME));
}

static bool truth(const char *text, bool *ok)
{
	static const char *const yes[] = { "1", "t", "T", "true", "TRUE", "True" };
	static const char *const no[] = { "0", "f", "F", "false", "FALSE", "False" };

	for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
		if (!strcmp(text, yes[i]) || !strcmp(text, no[i]))
			return !strcmp(text, yes[i]);
	}
	*ok = false;
	return false;
}

/* What a list of filters asks of an image, with the images and times it names looked up. */
struct image_filter {
	const json_t *filters;
	int dangling; /* -1: not asked */
	int64_t before, since, until;
};

static int filter_init(struct image_filter *f, struct engine *e, const json_t *filters, struct err *err)
{
	static const char *const borders[] = { "before", "since" };
	const json_t *v;
	bool ok = true;
	size_t i;

	*f = (struct image_filter){ filters, -1, INT64_MAX, INT64_MIN, INT64_MAX };
	json_array_foreach(json_object_get(filters, "dangling"), i, v)
		f->dangling = truth(json_string_value(v), &ok);
	if (!ok)
		return err_set(err, EINVAL, "invalid filter 'dangling=%.100s'",
			       json_string_value(json_array_get(json_object_get(filters, "dangling"), 0)));
	for (size_t b = 0; b < ARRAY_LEN(borders); b++)
		json_array_foreach(json_object_get(filters, borders[b]), i, v) {
			const struct image *other = image_find(e->images, json_string_value(v), err);

			if (!other)
				return -err->code;
			if (b)
				f->since = other->created_unix > f->since ? other->created_unix : f->since;
			else
				f->before = other->created_unix < f->before ? other->created_unix : f->before;
		}
	json_array_foreach(json_object_get(filters, "until"), i, v) {
		int64_t ns = 0;

		if (engine_parse_until(json_string_value(v), &ns))
			return err_set(err, EINVAL, "invalid filter 'until=%.100s'", json_string_value(v));
		f->until = ns / 1000000000 < f->until ? ns / 1000000000 : f->until;
	}
	return 0;
}

static bool list_matches(const struct image *im, const struct image_filter *f)
{
	const json_t *labels = json_object_get(json_object_get(im->config, "config"), "Labels"), *v;
	size_t i;

	if (!filters_match_labels(f->filters, labels) || (f->dangling >= 0 && (im->nrepo_tags == 0) != f->dangling) ||
	    im->created_unix >= f->before || im->created_unix <= f->since || im->created_unix > f->until)
		return false;
	/* label!=X: none of them may match. */
	json_array_foreach(json_object_get(f->filters, "label!"), i, v) {
		CLEAN_JSON json_t *one = json_pack("{s:[O]}", "label", v);

		if (filters_match_labels(one, labels))
			return false;
	}
	return true;
}

static json_t *list_tags(const struct image *im, const json_t *filters)
{
	const json_t *patterns = json_object_get(filters, "reference"), *v;
	json_t *a;
	size_t k;

	if (!patterns)
		return strings(im->repo_tags, im->nrepo_tags);
	a = json_array();
	for (size_t i = 0; i < im->nrepo_tags; i++)
		json_array_foreach(patterns, k, v)
			if (name_matches(im->repo_tags[i], json_string_value(v))) {
				(void)json_array_append_new(a, json_string(im->repo_tags[i]));
				break;
			}
	return a;
}

static void images_list(struct http_conn *c, const struct http_request *r, void *arg)
{
	static const char *const keys[] = {
		"before", "dangling", "label", "label!", "reference", "since", "until", NULL
	};
	struct engine *e = arg;
	struct image_filter f;
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *filters = filters_parse(http_query(r, "filters"), &err);
	json_t *list;

	if (!filters || filters_known(filters, keys, &err) || filter_init(&f, e, filters, &err)) {
		http_reply_error(c, &err);
		return;
	}
	list = json_array();
	for (size_t i = 0; i < image_count(e->images); i++) {
		const struct image *im = image_at(e->images, i);
		json_t *tags = list_tags(im, filters), *o, *labels;

		if (!list_matches(im, &f) || (json_object_get(filters, "reference") && !json_array_size(tags))) {
			json_decref(tags);
			continue;
		}
		labels = json_object_get(json_object_get(im->config, "config"), "Labels");
		o = json_pack("{s:s,s:s,s:o,s:o,s:I,s:I,s:I,s:I}", "Id", im->id, "ParentId", "", "RepoTags", tags,
			      "RepoDigests", strings(im->repo_digests, im->nrepo_digests), "Created",
			      (json_int_t)im->created_unix, "Size", (json_int_t)im->size, "SharedSize", (json_int_t)-1,
			      "Containers", (json_int_t)-1);
		if (r->api_minor < 44)
			set(o, "VirtualSize", json_integer((json_int_t)im->size));
		set(o, "Labels", labels ? json_incref(labels) : json_null());
		(void)json_array_append_new(list, o);
	}
	http_reply_json(c, 200, list);
}

/* inspect_config - with all keys that Docker's clients were shown before API 1.50, set or not. */
static json_t *inspect_config(const json_t *config, int api_minor)
{
	json_t *o = json_pack("{s:s,s:s,s:s,s:b,s:b,s:b,s:b,s:b,s:b,s:n,s:n,s:s,s:n,s:s,s:n,s:n,s:n}", "Hostname", "",
			      "Domainname", "", "User", "", "AttachStdin", 0, "AttachStdout", 0, "AttachStderr", 0,
			      "Tty", 0, "OpenStdin", 0, "StdinOnce", 0, "Env", "Cmd", "Image", "", "Volumes",
			      "WorkingDir", "", "Entrypoint", "OnBuild", "Labels");

	if (api_minor >= 50)
		json_object_clear(o);
	(void)json_object_update(o, (json_t *)(uintptr_t)config);
	return o;
}

static void images_inspect(struct http_conn *c, const struct http_request *r, void *arg)
{
	static const char *const optional[][2] = { { "variant", "Variant" }, { "os.version", "OsVersion" } };
	const struct image *im = find(c, arg, http_param(r, "name"));
	const char *parent;
	json_t *o, *layers, *config;

	if (!im)
		return;
	layers = json_array();
	for (size_t i = 0; i < im->nlayers; i++)
		(void)json_array_append_new(layers, json_string(im->layers[i].diff_id));
	config = json_object_get(im->config, "config");
	/* of a commit; another engine's image may name one that is not here */
	parent = json_str(im->config, "parent", "");
	if (!digest_valid(parent) || !image_find(((struct engine *)arg)->images, parent, NULL))
		parent = "";
	o = json_pack("{s:s,s:o,s:o,s:s,s:s,s:s,s:s,s:s,s:s,s:s}", "Id", im->id, "RepoTags",
		      strings(im->repo_tags, im->nrepo_tags), "RepoDigests",
		      strings(im->repo_digests, im->nrepo_digests), "Parent", parent, "Comment",
		      json_str(im->config, "comment", ""), "Created", im->created, "DockerVersion",
		      json_str(im->config, "docker_version", ""), "Author", json_str(im->config, "author", ""),
		      "Architecture", json_str(im->config, "architecture", "amd64"), "Os",
		      json_str(im->config, "os", "linux"));
	set(o, "Config", inspect_config(config, r->api_minor));
	for (size_t i = 0; i < ARRAY_LEN(optional); i++) {
		const char *text = json_str(im->config, optional[i][0], "");

		if (*text)
			set(o, optional[i][1], json_string(text));
	}
	set(o, "Size", json_integer((json_int_t)im->size));
	if (r->api_minor < 45)
		set(o, "Container", json_string(json_str(im->config, "container", "")));
	/* Docker shows it before API 1.45 only; docker-compose 1, which asks for the newest, cannot recreate a container without it */
	set(o, "ContainerConfig", inspect_config(config, r->api_minor));
	if (r->api_minor < 44)
		set(o, "VirtualSize", json_integer((json_int_t)im->size));
	set(o, "GraphDriver", json_pack("{s:s,s:n}", "Name", "erofs-overlay", "Data"));
	set(o, "RootFS", json_pack("{s:s,s:o}", "Type", "layers", "Layers", layers));
	set(o, "Metadata", json_pack("{s:s}", "LastTagTime", "0001-01-01T00:00:00Z"));
	http_reply_json(c, 200, o);
}

static void images_history(struct http_conn *c, const struct http_request *r, void *arg)
{
	const struct image *im = find(c, arg, http_param(r, "name"));

	if (im)
		http_reply_json(c, 200, image_history(im));
}

static void images_tag(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine *e = arg;
	const char *repo = http_query(r, "repo"), *tag = http_query(r, "tag");
	const struct image *im = find(c, e, http_param(r, "name"));
	struct err err = ERR_INIT;
	char target[600];

	if (!im)
		return;
	snprintf(target, sizeof(target), "%s%s%s", repo ? repo : "", tag && *tag ? ":" : "", tag ? tag : "");
	if (image_tag(e->images, http_param(r, "name"), target, &err)) {
		http_reply_error(c, &err);
		return;
	}
	im = image_find(e->images, target, &err);
	if (im)
		image_event(e, "tag", im->id, target);
	http_reply_empty(c, 201);
}

static void report_removed(struct engine *e, const json_t *list)
{
	const json_t *v;
	size_t i;

	json_array_foreach(list, i, v) {
		const char *tag = json_str(v, "Untagged", NULL), *id = json_str(v, "Deleted", NULL);

		if (tag || id)
			image_event(e, tag ? "untag" : "delete", tag ? tag : id, tag ? tag : id);
	}
}

static void images_remove(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine *e = arg;
	struct err err = ERR_INIT;
	json_t *out = NULL;

	if (image_remove(e->images, http_param(r, "name"), http_query_bool(r, "force", false), image_used, e, &out,
			 &err)) {
		http_reply_error(c, &err);
		return;
	}
	report_removed(e, out);
	http_reply_json(c, 200, out);
}

struct prune {
	struct engine *engine;
	struct image_filter filter;
	bool all;
};

static bool prune_pick(void *arg, const struct image *im)
{
	const struct prune *p = arg;

	return (p->all || im->nrepo_tags == 0) && list_matches(im, &p->filter);
}

static enum image_use prune_used(void *arg, const char *id, char *why, size_t why_size)
{
	return image_used(((struct prune *)arg)->engine, id, why, why_size);
}

static void images_prune(struct http_conn *c, const struct http_request *r, void *arg)
{
	static const char *const keys[] = { "dangling", "label", "label!", "until", NULL };
	struct prune p = { .engine = arg };
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *filters = filters_parse(http_query(r, "filters"), &err);
	json_t *out = NULL;
	uint64_t freed = 0;

	if (!filters || filters_known(filters, keys, &err) || filter_init(&p.filter, arg, filters, &err)) {
		http_reply_error(c, &err);
		return;
	}
	/* Here "dangling" says which images are meant at all: false is all unused ones. */
	p.all = p.filter.dangling == 0;
	p.filter.dangling = -1;
	if (image_prune(p.engine->images, prune_pick, prune_used, &p, &out, &freed, &err)) {
		http_reply_error(c, &err);
		return;
	}
	report_removed(arg, out);
	events_emit(arg, "image", "prune", "",
		    json_pack("{s:o}", "reclaimed", json_sprintf("%llu", (unsigned long long)freed)));
	http_reply_json(c, 200, json_pack("{s:o,s:I}", "ImagesDeleted", out, "SpaceReclaimed", (json_int_t)freed));
}

/* --- archives --- */

/* A load, import or save under way: over when the job and the copy of the bytes are. */
struct archive {
	struct engine *engine;
	struct http_conn *conn;
	struct image_job *job;
	int fd; /* our end of the pipe */
	bool copying, begun, failed, import;
	char *name;
};

static void archive_end(struct archive *a)
{
	if (a->job || a->copying)
		return;
	free(a->name);
	free(a);
}

static void load_line(struct archive *a, const json_t *line)
{
	CLEAN_FREE char *text = json_text(line);
	CLEAN_BUF struct buf b = BUF_INIT;

	if (!a->begun)
		http_stream_begin(a->conn, 200, "application/json");
	a->begun = true;
	if (text && !buf_printf(&b, "%s\r\n", text))
		(void)http_stream_write(a->conn, buf_bytes(&b), b.len);
}

static void load_progress(void *arg, const json_t *progress)
{
	load_line(arg, progress);
}

static void load_events(struct archive *a, const json_t *result)
{
	const json_t *v;
	size_t i;

	json_array_foreach(json_object_get(result, "images"), i, v)
		image_event(a->engine, "load", json_str(v, "id", ""), json_str(v, "id", ""));
	if (a->import)
		image_event(a->engine, "import", json_str(result, "id", ""),
			    a->name && *a->name ? a->name : json_str(result, "id", ""));
}

static void load_done(void *arg, const struct err *err, const json_t *result)
{
	struct archive *a = arg;

	a->job = NULL;
	if (!a->conn) {
		archive_end(a);
		return;
	}
	if (err && !a->begun) {
		http_reply_error(a->conn, err);
	} else {
		if (err) {
			CLEAN_JSON json_t *line =
				json_pack("{s:{s:s},s:s}", "errorDetail", "message", err->msg, "error", err->msg);

			load_line(a, line);
		} else {
			load_events(a, result);
			if (a->import) {
				CLEAN_JSON json_t *line = json_pack("{s:s}", "status", json_str(result, "id", ""));

				load_line(a, line);
			}
			if (!a->begun)
				http_stream_begin(a->conn, 200, "application/json");
		}
		http_stream_end(a->conn);
	}
	archive_end(a);
}

static void load_copied(struct http_conn *c, int rc, void *arg)
{
	struct archive *a = arg;

	close_fd(&a->fd);
	a->copying = false;
	/* EPIPE: the worker has ended and says why. Else the client went away in the middle: nothing may be kept. */
	if (rc && rc != -EPIPE && a->job) {
		image_job_cancel(take_ptr(a->job));
		if (a->begun)
			http_stream_end(c);
		else
			http_reply_error_status(c, 400, "the archive is not whole: the request's body ended early");
	}
	archive_end(a);
}

static struct archive *archive_new(struct engine *e, struct http_conn *c, int *other, bool reads)
{
	struct archive *a = calloc(1, sizeof(*a));
	int fds[2];

	if (!a || pipe2(fds, O_CLOEXEC)) {
		free(a);
		http_reply_error_status(c, 500, "no pipe to the worker: %s", strerror(errno));
		return NULL;
	}
	*a = (struct archive){ .engine = e, .conn = c, .fd = fds[reads ? 0 : 1], .copying = true };
	*other = fds[reads ? 1 : 0];
	return a;
}

static void archive_refuse(struct archive *a, const struct err *err)
{
	close_fd(&a->fd);
	a->copying = false;
	http_reply_error(a->conn, err);
	archive_end(a);
}

static void images_load(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine *e = arg;
	struct err err = ERR_INIT;
	CLEAN_FD int in = -1;
	struct archive *a = archive_new(e, c, &in, false);

	if (!a)
		return;
	a->job = image_load_start(e->images, e->loop, in, http_query_bool(r, "quiet", false), load_progress, load_done,
				  a, &err);
	if (a->job)
		http_body_to_fd(c, a->fd, load_copied, a);
	else
		archive_refuse(a, &err);
}

static void images_create(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine *e = arg;
	const char *from = http_query(r, "fromSrc"), *repo = http_query(r, "repo"), *tag = http_query(r, "tag");
	CLEAN_JSON json_t *changes = json_array();
	CLEAN_FD int in = -1;
	struct err err = ERR_INIT;
	struct archive *a;
	char name[600];
	const char *change;

	if (http_query(r, "fromImage")) {
		images_pull(c, r, arg);
		return;
	}
	if (!from || strcmp(from, "-")) {
		http_reply_error_status(c, 501, "importing from a URL is not built in Walnut yet: send the archive");
		return;
	}
	for (size_t i = 0; (change = http_query_all(r, "changes", i)); i++)
		(void)json_array_append_new(changes, json_string(change));
	snprintf(name, sizeof(name), "%s%s%s", repo ? repo : "", repo && *repo && tag && *tag ? ":" : "",
		 repo && *repo && tag ? tag : "");
	a = archive_new(e, c, &in, false);
	if (!a)
		return;
	a->import = true;
	a->name = strdup(name);
	a->job = image_import_start(e->images, e->loop, in, name, http_query(r, "message"), changes, load_progress,
				    load_done, a, &err);
	if (a->job)
		http_body_to_fd(c, a->fd, load_copied, a);
	else
		archive_refuse(a, &err);
}

static void save_over(struct archive *a)
{
	if (a->job || a->copying)
		return;
	if (a->failed)
		http_stream_abort(a->conn);
	else
		http_stream_end(a->conn);
	archive_end(a);
}

static void save_done(void *arg, const struct err *err, const json_t *result)
{
	struct archive *a = arg;

	a->job = NULL;
	if (err) {
		log_error("save: %s", err->msg);
		a->failed = true;
	}
	save_over(a);
}

static void save_copied(struct http_conn *c, int rc, void *arg)
{
	struct archive *a = arg;

	close_fd(&a->fd);
	a->copying = false;
	if (rc) {
		a->failed = true;
		if (a->job)
			image_job_cancel(take_ptr(a->job));
	}
	save_over(a);
}

static void save(struct http_conn *c, struct engine *e, const char *const *names, size_t n)
{
	struct err err = ERR_INIT;
	CLEAN_FD int out = -1;
	struct archive *a;

	for (size_t i = 0; i < n; i++)
		if (!find(c, e, names[i]))
			return;
	a = archive_new(e, c, &out, true);
	if (!a)
		return;
	a->job = image_save_start(e->images, e->loop, names, n, out, save_done, a, &err);
	if (!a->job) {
		archive_refuse(a, &err);
		return;
	}
	http_stream_begin(c, 200, "application/x-tar");
	http_stream_fd(c, a->fd, save_copied, a);
}

static void images_get(struct http_conn *c, const struct http_request *r, void *arg)
{
	const char *names[256];
	size_t n = 0;

	while (n < ARRAY_LEN(names) && (names[n] = http_query_all(r, "names", n)))
		n++;
	if (!n)
		http_reply_error_status(c, 400, "no image names in the query");
	else
		save(c, arg, names, n);
}

static void images_get_one(struct http_conn *c, const struct http_request *r, void *arg)
{
	const char *name = http_param(r, "name");

	save(c, arg, &name, 1);
}

const struct http_route routes_images[] = {
	{ "GET", "/images/json", images_list, false },
	{ "GET", "/images/get", images_get, false },
	{ "POST", "/images/load", images_load, true },
	{ "POST", "/images/create", images_create, true },
	{ "POST", "/images/prune", images_prune, false },
	{ "GET", "/images/{name:*}/json", images_inspect, false },
	{ "GET", "/images/{name:*}/history", images_history, false },
	{ "GET", "/images/{name:*}/get", images_get_one, false },
	{ "POST", "/images/{name:*}/tag", images_tag, false },
	{ "DELETE", "/images/{name:*}", images_remove, false },
	{ NULL, NULL, NULL, false },
};
