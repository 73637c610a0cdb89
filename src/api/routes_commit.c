/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /commit. walnut-tree writes the container's writable layer into a pipe that a worker reads; the engine keeps the
 * pipe open until walnut-tree has said that the archive is whole, so half of one can never become an image.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/http.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "engine/container.h"
#include "image/image.h"

struct commit {
	struct http_conn *conn; /* NULL: the client has gone */
	struct engine *engine;
	char id[65];
	char *ref, *image;
	json_t *config, *facts;
	struct engine_tree *tree;
	struct image_job *job;
	int gate;             /* the pipe's writing end */
	bool pausing, paused; /* pausing: the shim is asked to pause, or to go on */
	struct err failure;
	char made[80];
};

static void commit_free(struct commit *k)
{
	free(k->ref);
	free(k->image);
	json_decref(k->config);
	json_decref(k->facts);
	free(k);
}

static void commit_say(struct commit *k)
{
	struct engine_container *c = engine_container_find(k->engine, k->id, NULL);

	if (!k->failure.code && c)
		engine_container_event(c, "commit",
				       json_pack("{s:s,s:s,s:s}", "comment", json_str(k->facts, "comment", ""),
						 "imageID", k->made, "imageRef", k->ref));
	if (k->conn) {
		http_on_close(k->conn, NULL, NULL);
		if (k->failure.code)
			http_reply_error(k->conn, &k->failure);
		else
			http_reply_json(k->conn, 201, json_pack("{s:s}", "Id", k->made));
	}
	commit_free(k);
}

static void commit_unpaused(struct engine_container *c, const struct err *err, void *arg)
{
	struct commit *k = arg;

	k->pausing = false;
	commit_say(k);
}

/* The container goes on before the client hears of the end, as with Docker. */
static void commit_answer(struct commit *k)
{
	struct engine_container *c = engine_container_find(k->engine, k->id, NULL);

	if (k->paused && c && c->state == ENGINE_PAUSED) {
		k->pausing = true;
		engine_container_pause(c, false, commit_unpaused, k);
	} else {
		commit_say(k);
	}
}

static void commit_fail(struct commit *k, const struct err *err)
{
	if (!k->failure.code)
		k->failure = *err;
	if (k->job)
		image_job_cancel(take_ptr(k->job));
	if (k->tree)
		engine_tree_cancel(take_ptr(k->tree));
	close_fd(&k->gate);
	commit_answer(k);
}

static void commit_closed(struct http_conn *conn, void *arg)
{
	struct commit *k = arg;
	struct err err = ERR_INIT;

	k->conn = NULL;
	(void)err_set(&err, ECONNRESET, "the client went away");
	if (!k->pausing)
		commit_fail(k, &err);
	else if (!k->paused) /* the shim's answer ends it */
		k->failure = err;
}

static void layer_written(const json_t *head, const struct err *err, int out, const struct buf *more, void *arg)
{
	struct commit *k = arg;

	k->tree = NULL;
	if (err)
		commit_fail(k, err);
	else
		close_fd(&k->gate); /* the worker comes to the archive's end */
}

static void image_made(void *arg, const struct err *err, const json_t *result)
{
	struct commit *k = arg;

	k->job = NULL;
	if (err) {
		commit_fail(k, err);
		return;
	}
	(void)snprintf(k->made, sizeof(k->made), "%s", json_str(result, "id", ""));
	commit_answer(k);
}

static void commit_run(struct commit *k, struct engine_container *c)
{
	struct err err = ERR_INIT;
	int p[2];

	if (pipe2(p, O_CLOEXEC)) {
		(void)err_sys(&err, errno, "commit a container");
		commit_fail(k, &err);
		return;
	}
	CLEAN_FD int in = p[0];

	k->gate = p[1];
	k->job = image_commit_start(k->engine->images, k->engine->loop, in, k->image, k->ref, k->config, k->facts,
				    image_made, k, &err);
	if (k->job)
		k->tree = engine_tree_start(c, "layer", NULL, NULL, k->gate, layer_written, k, &err);
	if (!k->tree)
		commit_fail(k, &err);
}

static void commit_paused(struct engine_container *c, const struct err *err, void *arg)
{
	struct commit *k = arg;
	struct err failure = err ? *err : k->failure;

	k->pausing = false;
	k->paused = !err;
	if (failure.code)
		commit_fail(k, &failure);
	else
		commit_run(k, c);
}

/* The request's name, as "name:tag"; NULL with @err. */
static char *wanted_name(const struct http_request *r, struct err *err)
{
	const char *repo = http_query(r, "repo") ?: "", *tag = http_query(r, "tag") ?: "";
	struct image_ref ref;
	char *name = NULL;

	if (asprintf(&name, "%s%s%s", repo, *repo && *tag ? ":" : "", *repo ? tag : "") < 0) {
		(void)err_sys(err, ENOMEM, "commit a container");
		return NULL;
	}
	if (*name &&
	    (image_ref_parse(name, true, &ref, err) ||
	     (ref.digest[0] && err_set(err, EINVAL, "refusing to create a reference with a digest: %s", name)))) {
		free(name);
		return NULL;
	}
	return name;
}

static json_t *wanted_config(const struct engine_container *c, const struct http_request *r, struct err *err)
{
	CLEAN_JSON json_t *changes = json_array();
	CLEAN_JSON json_t *body = NULL;
	const char *change;

	if (r->body_len && strspn(r->body, " \t\r\n") < r->body_len && strncmp(r->body, "null", 4)) {
		body = json_parse(r->body, r->body_len, "the request's body", err);
		if (!body)
			return NULL;
	}
	/* "changes" is one text of lines, or comes once a line */
	for (size_t i = 0; (change = http_query_all(r, "changes", i)); i++)
		while (*change) {
			size_t n = strcspn(change, "\n");

			if (strspn(change, " \t\r") < n)
				(void)json_array_append_new(changes, json_stringn(change, n));
			change += n + (change[n] == '\n');
		}
	return image_commit_config(c->config, body, changes, err);
}

/* What the last step of the image's history was made by: the container's command. */
static char *command_of(const struct engine_container *c)
{
	CLEAN_BUF struct buf b = BUF_INIT;
	const json_t *v;
	size_t i;

	json_array_foreach(json_object_get(c->config, "Cmd"), i, v)
		if (buf_printf(&b, "%s%s", i ? " " : "", json_is_string(v) ? json_string_value(v) : ""))
			break;
	return strdup(buf_bytes(&b));
}

static struct commit *commit_new(struct engine_container *c, const struct http_request *r, struct err *err)
{
	CLEAN_FREE char *command = command_of(c);
	struct commit *k = calloc(1, sizeof(*k));

	if (!k || !command) {
		free(k);
		(void)err_sys(err, ENOMEM, "commit a container");
		return NULL;
	}
	*k = (struct commit){ .engine = c->engine, .gate = -1, .image = strdup(c->image_id) };
	(void)strcpy(k->id, c->id);
	k->ref = wanted_name(r, err);
	k->config = k->ref ? wanted_config(c, r, err) : NULL;
	k->facts = json_pack("{s:s,s:s,s:s,s:s}", "author", http_query(r, "author") ?: "", "comment",
			     http_query(r, "comment") ?: "", "created_by", command, "container", c->id);
	if (k->config && k->facts && k->image)
		return k;
	if (!err->code)
		(void)err_set(err, EINVAL, "the author or the comment is not UTF-8");
	commit_free(k);
	return NULL;
}

static void commit(struct http_conn *conn, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	const char *name = http_query(r, "container") ?: "";
	struct engine_container *c = engine_container_find(arg, name, &err);
	struct commit *k;

	if (c && c->isolation == ENGINE_ISOLATION_HYPERV)
		(void)err_set(
			&err, ENOSYS,
			"a hyperv container can not be committed in this version of Walnut: the host never reads a disk "
			"that a guest wrote; use docker exec with tar and docker import");
	else if (c && (c->removing || c->state == ENGINE_REMOVING || c->state == ENGINE_DEAD))
		(void)err_set(&err, EBUSY, "You cannot commit container %s which is %s", c->id,
			      c->state == ENGINE_DEAD ? "Dead" : "being removed");
	k = err.code || !c ? NULL : commit_new(c, r, &err);
	if (!k) {
		http_reply_error(conn, &err);
		return;
	}
	k->conn = conn;
	http_on_close(conn, commit_closed, k);
	if (c->state == ENGINE_RUNNING && http_query_bool(r, "pause", true)) {
		k->pausing = true;
		engine_container_pause(c, true, commit_paused, k);
	} else {
		commit_run(k, c);
	}
}

const struct http_route routes_commit[] = {
	{ "POST", "/commit", commit, false },
	{ 0 },
};
