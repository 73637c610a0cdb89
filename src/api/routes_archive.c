/* SPDX-License-Identifier: Apache-2.0 */
/* A container's files: cp both ways (archive), export, diff (changes). The work is walnut-tree's. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/http.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "engine/container.h"

#define STAT_HEADER "X-Docker-Container-Path-Stat"

struct job {
	struct http_conn *conn;
	struct engine *engine;
	char id[65];
	char *path;
	struct engine_tree *tree; /* until it has answered */
	int fd;                   /* the archive: from walnut-tree, or to it */
	bool head_only, body_done, answered;
	struct err failure;
};

static void job_free(struct job *j)
{
	if (j->tree)
		engine_tree_cancel(j->tree);
	close_fd(&j->fd);
	free(j->path);
	free(j);
}

static void job_closed(struct http_conn *c, void *arg)
{
	job_free(arg);
}

static struct job *job_new(struct http_conn *c, const struct http_request *r, void *arg, struct engine_container **k)
{
	struct err err = ERR_INIT;
	struct job *j;

	*k = engine_container_find(arg, http_param(r, "id"), &err);
	if (!*k) {
		http_reply_error(c, &err);
		return NULL;
	}
	j = calloc(1, sizeof(*j));
	bug_on(!j);
	*j = (struct job){ .conn = c, .engine = arg, .fd = -1 };
	(void)strcpy(j->id, (*k)->id);
	return j;
}

/* "/a" of "a" and "/a": paths are from the container's root. NULL: answered. */
static bool job_path(struct job *j, const struct http_request *r)
{
	const char *path = http_query(r, "path") ?: "";

	if (!*path || asprintf(&j->path, "%s%s", *path == '/' ? "" : "/", path) < 0) {
		j->path = NULL;
		http_reply_error_status(j->conn, 400, "missing value for path: the query names none");
		job_free(j);
		return false;
	}
	return true;
}

static void job_fail(struct job *j, const struct err *err)
{
	const struct engine_container *k = engine_container_find(j->engine, j->id, NULL);

	http_on_close(j->conn, NULL, NULL);
	if (err->code == ENOENT && j->path)
		http_reply_error_status(j->conn, 404, "Could not find the file %s in container %s", j->path,
					k ? k->name : j->id);
	else if (err->code == ENOTDIR || err->code == ELOOP || err->code == ENAMETOOLONG)
		http_reply_error_status(j->conn, 400, "%s", err->msg);
	else
		http_reply_error(j->conn, err);
	job_free(j);
}

static void set_stat(struct http_conn *c, const json_t *stat)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	CLEAN_FREE char *text = stat ? json_text(stat) : NULL;
	size_t n = text ? strlen(text) : 0;
	CLEAN_FREE char *out = malloc(n * 4 / 3 + 8);
	char *to = out;

	if (!text || !out)
		return;
	for (size_t i = 0; i < n; i += 3) {
		unsigned v = (unsigned)(unsigned char)text[i] << 16;

		v |= i + 1 < n ? (unsigned)(unsigned char)text[i + 1] << 8 : 0;
		v |= i + 2 < n ? (unsigned)(unsigned char)text[i + 2] : 0;
		*to++ = digits[v >> 18];
		*to++ = digits[v >> 12 & 63];
		*to++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
		*to++ = i + 2 < n ? digits[v & 63] : '=';
	}
	*to = 0;
	http_set_header(c, STAT_HEADER, out);
}

static void stream_done(struct http_conn *c, int rc, void *arg)
{
	struct job *j = arg;

	if (rc != -ECONNRESET)
		http_on_close(c, NULL, NULL);
	if (rc && rc != -ECONNRESET)
		http_stream_abort(c);
	else if (!rc)
		http_stream_end(c);
	job_free(j);
}

static void stream_begin(struct job *j, const char *type, int out, const struct buf *more)
{
	j->fd = fcntl(out, F_DUPFD_CLOEXEC, 3);
	http_on_close(j->conn, NULL, NULL);
	http_stream_begin(j->conn, 200, type);
	(void)http_stream_write(j->conn, buf_bytes(more), more->len);
	http_stream_fd(j->conn, j->fd, stream_done, j);
}

static void archive_ready(const json_t *head, const struct err *err, int out, const struct buf *more, void *arg)
{
	struct job *j = arg;

	j->tree = NULL;
	if (err) {
		job_fail(j, err);
		return;
	}
	set_stat(j->conn, json_object_get(head, "stat"));
	if (!j->head_only) {
		stream_begin(j, "application/x-tar", out, more);
		return;
	}
	http_on_close(j->conn, NULL, NULL);
	http_reply_empty(j->conn, 200);
	job_free(j);
}

static void archive(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container *k = NULL;
	struct job *j = job_new(c, r, arg, &k);

	if (!j || !job_path(j, r))
		return;
	j->head_only = !strcmp(r->method, "HEAD");
	j->tree = engine_tree_start(k, j->head_only ? "stat" : "get", j->path, NULL, -1, archive_ready, j, &err);
	if (!j->tree) {
		job_fail(j, &err);
		return;
	}
	http_on_close(c, job_closed, j);
	if (!j->head_only)
		engine_container_event(k, "archive-path", NULL);
}

/* When both are over: walnut-tree with its answer, and the copy of the body to it. */
static void put_finish(struct job *j)
{
	struct err failure = j->failure;

	if (!j->answered || !j->body_done)
		return;
	if (failure.code) {
		job_fail(j, &failure);
		return;
	}
	http_on_close(j->conn, NULL, NULL);
	http_reply_empty(j->conn, 200);
	job_free(j);
}

static void put_answered(const json_t *head, const struct err *err, int out, const struct buf *more, void *arg)
{
	struct job *j = arg;

	j->tree = NULL;
	j->answered = true;
	if (err)
		j->failure = *err;
	put_finish(j); /* after a failure the rest of the body ends in a pipe without a reader */
}

static void body_copied(struct http_conn *c, int rc, void *arg)
{
	struct job *j = arg;

	j->body_done = true;
	close_fd(&j->fd);
	if (rc == -ECONNRESET) /* job_closed comes, or the archive is found to end too early */
		return;
	put_finish(j);
}

static bool put_owner(const struct engine_container *k, json_t *options, struct err *err)
{
	const char *user = json_str(k->config, "User", "");
	char *end;
	unsigned long uid = strtoul(user, &end, 10), gid = *end == ':' ? strtoul(end + 1, &end, 10) : 0;

	if (!*user)
		return true;
	if (*end) {
		(void)err_set(
			err, ENOSYS,
			"copyUIDGID is supported by this version of Walnut only when the container's user is numeric, not %.100s",
			user);
		return false;
	}
	(void)json_object_set_new(options, "own", json_true());
	(void)json_object_set_new(options, "uid", json_integer((json_int_t)uid));
	(void)json_object_set_new(options, "gid", json_integer((json_int_t)gid));
	return true;
}

static void archive_put(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container *k = NULL;
	struct job *j = job_new(c, r, arg, &k);
	CLEAN_JSON json_t *options = json_pack("{s:b}", "keep_kind", http_query_bool(r, "noOverwriteDirNonDir", false));
	CLEAN_FD int theirs = -1;
	int p[2] = { -1, -1 };

	if (!j || !job_path(j, r))
		return;
	if (json_bool(k->host_config, "ReadonlyRootfs", false))
		(void)err_set(&err, EPERM, "container rootfs is marked read-only");
	else if (http_query_bool(r, "copyUIDGID", false) && !put_owner(k, options, &err))
		;
	else if (pipe2(p, O_CLOEXEC))
		(void)err_sys(&err, errno, "copy to the container");
	if (err.code) {
		job_fail(j, &err);
		return;
	}
	theirs = p[0];
	j->fd = p[1];
	j->tree = engine_tree_start(k, "put", j->path, options, theirs, put_answered, j, &err);
	if (!j->tree) {
		job_fail(j, &err);
		return;
	}
	engine_container_event(k, "extract-to-dir", NULL);
	http_on_close(c, job_closed, j);
	http_body_to_fd(c, j->fd, body_copied, j);
}

static void export_ready(const json_t *head, const struct err *err, int out, const struct buf *more, void *arg)
{
	struct job *j = arg;

	j->tree = NULL;
	if (err)
		job_fail(j, err);
	else
		stream_begin(j, "application/octet-stream", out, more);
}

static void export_all(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container *k = NULL;
	struct job *j = job_new(c, r, arg, &k);

	if (!j)
		return;
	j->tree = engine_tree_start(k, "export", NULL, NULL, -1, export_ready, j, &err);
	if (!j->tree) {
		job_fail(j, &err);
		return;
	}
	http_on_close(c, job_closed, j);
	engine_container_event(k, "export", NULL);
}

static void changes_ready(const json_t *head, const struct err *err, int out, const struct buf *more, void *arg)
{
	struct job *j = arg;
	const json_t *list = json_object_get(head, "changes");

	j->tree = NULL;
	if (err) {
		job_fail(j, err);
		return;
	}
	http_on_close(j->conn, NULL, NULL);
	/* as Docker: none is null */
	http_reply_json(j->conn, 200, json_array_size(list) ? json_incref((json_t *)list) : json_null());
	job_free(j);
}

static void changes(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container *k = NULL;
	struct job *j = job_new(c, r, arg, &k);

	if (!j)
		return;
	j->tree = engine_tree_start(k, "changes", NULL, NULL, -1, changes_ready, j, &err);
	if (j->tree)
		http_on_close(c, job_closed, j);
	else
		job_fail(j, &err);
}

const struct http_route routes_archive[] = {
	{ "HEAD", "/containers/{id}/archive", archive, false },
	{ "GET", "/containers/{id}/archive", archive, false },
	{ "PUT", "/containers/{id}/archive", archive_put, true },
	{ "GET", "/containers/{id}/export", export_all, false },
	{ "GET", "/containers/{id}/changes", changes, false },
	{ 0 },
};
