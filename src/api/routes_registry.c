/* SPDX-License-Identifier: Apache-2.0 */
/* Registries: pull, push, login, search. The work is done by walnut-fetch and walnut-worker; here are Docker's forms. */
#include "api/routes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "engine/engine.h"
#include "image/image.h"

struct transfer {
	struct engine *engine;
	struct http_conn *conn;
	struct image_job *job;
	bool begun;
	char *name;
};

static void transfer_free(struct transfer *t)
{
	free(t->name);
	free(t);
}

/* gone - the client went away: as in Docker, that ends a pull or push. */
static void gone(struct http_conn *c, void *arg)
{
	struct transfer *t = arg;

	if (t->job)
		image_job_cancel(t->job);
	transfer_free(t);
}

static void line_out(struct transfer *t, const json_t *line)
{
	CLEAN_FREE char *text = json_text(line);
	CLEAN_BUF struct buf b = BUF_INIT;

	if (!t->begun)
		http_stream_begin(t->conn, 200, "application/json");
	t->begun = true;
	if (text && !buf_printf(&b, "%s\r\n", text))
		(void)http_stream_write(t->conn, buf_bytes(&b), b.len);
}

static void on_progress(void *arg, const json_t *line)
{
	line_out(arg, line);
}

static void event(struct transfer *t, const char *action, const json_t *result)
{
	const char *name = json_str(result, "name", t->name);

	events_emit(t->engine, "image", action, name, json_pack("{s:s}", "name", name));
}

static void transfer_end(struct transfer *t, const struct err *err)
{
	http_on_close(t->conn, NULL, NULL);
	if (err && !t->begun) {
		http_reply_error(t->conn, err);
	} else {
		if (err) {
			CLEAN_JSON json_t *line =
				json_pack("{s:{s:s},s:s}", "errorDetail", "message", err->msg, "error", err->msg);

			line_out(t, line);
		}
		if (!t->begun)
			http_stream_begin(t->conn, 200, "application/json");
		http_stream_end(t->conn);
	}
	transfer_free(t);
}

static void pulled(void *arg, const struct err *err, const json_t *result)
{
	struct transfer *t = arg;

	t->job = NULL;
	if (!err)
		event(t, "pull", result);
	transfer_end(t, err);
}

static void pushed(void *arg, const struct err *err, const json_t *result)
{
	struct transfer *t = arg;

	t->job = NULL;
	if (!err)
		event(t, "push", result);
	transfer_end(t, err);
}

/* credentials - X-Registry-Auth: base64url of JSON, with or without padding. New reference; NULL when there are none. */
static json_t *credentials(const struct http_request *r)
{
	const char *text = http_header(r, "X-Registry-Auth");
	CLEAN_BUF struct buf b = BUF_INIT;
	unsigned bits = 0, have = 0;

	for (; text && *text && *text != '='; text++) {
		char c = *text == '+' ? '-' : *text == '/' ? '_' : *text;
		static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
		const char *at = strchr(digits, c);

		if (!at)
			return NULL;
		bits = bits << 6 | (unsigned)(at - digits);
		have += 6;
		if (have >= 8) {
			char byte = (char)(bits >> (have - 8) & 0xff);

			have -= 8;
			if (buf_append(&b, &byte, 1))
				return NULL;
		}
	}
	return b.len ? json_parse(buf_bytes(&b), b.len, "X-Registry-Auth", NULL) : NULL;
}

static struct transfer *transfer_new(struct engine *e, struct http_conn *c, const char *name)
{
	struct transfer *t = calloc(1, sizeof(*t));

	if (!t || !(t->name = strdup(name))) {
		free(t);
		http_reply_error_status(c, 500, "no memory for a transfer");
		return NULL;
	}
	t->engine = e;
	t->conn = c;
	return t;
}

static void started(struct transfer *t, const struct err *err)
{
	if (t->job)
		http_on_close(t->conn, gone, t);
	else
		transfer_end(t, err);
}

void images_pull(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine *e = arg;
	const char *from = http_query(r, "fromImage"), *tag = http_query(r, "tag");
	CLEAN_JSON json_t *auth = credentials(r);
	struct err err = ERR_INIT;
	struct image_ref ref;
	char name[600];

	if (image_ref_parse(from, false, &ref, &err)) {
		http_reply_error(c, &err);
		return;
	}
	if (!ref.tag[0] && !ref.digest[0] && !(tag && *tag)) {
		http_reply_error_status(c, 501, "pulling all tags of %.300s is not built in Walnut yet: name a tag",
					from);
		return;
	}
	(void)snprintf(name, sizeof(name), "%s%s%s", from, tag && *tag ? strchr(tag, ':') ? "@" : ":" : "",
		       tag ? tag : "");
	struct transfer *t = transfer_new(e, c, name);

	if (!t)
		return;
	t->job = image_pull_start(e->images, e->loop, name, http_query(r, "platform"), auth, on_progress, pulled, t,
				  &err);
	started(t, &err);
}

static void images_push(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine *e = arg;
	const char *tag = http_query(r, "tag");
	CLEAN_JSON json_t *auth = credentials(r);
	struct err err = ERR_INIT;
	char name[600];

	(void)snprintf(name, sizeof(name), "%s%s%s", http_param(r, "name"), tag && *tag ? ":" : "", tag ? tag : "");
	struct transfer *t = transfer_new(e, c, name);

	if (!t)
		return;
	t->job = image_push_start(e->images, e->loop, name, auth, on_progress, pushed, t, &err);
	started(t, &err);
}

static void login_done(void *arg, const struct err *err, const json_t *result)
{
	struct transfer *t = arg;

	http_on_close(t->conn, NULL, NULL);
	if (err)
		http_reply_error_status(t->conn,
					err->code == EACCES   ? 401
					: err->code == EINVAL ? 400
							      : 500,
					"%s", err->msg);
	else
		http_reply_json(t->conn, 200, json_pack("{s:s,s:s}", "Status", "Login Succeeded", "IdentityToken", ""));
	transfer_free(t);
}

static void auth_check(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine *e = arg;
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *auth = json_parse(r->body, r->body_len, "the request's body", &err);
	struct transfer *t = auth ? transfer_new(e, c, "") : NULL;

	if (!auth)
		http_reply_error(c, &err);
	if (!t)
		return;
	t->job = image_login_start(e->images, e->loop, auth, login_done, t, &err);
	started(t, &err);
}

static void search_done(void *arg, const struct err *err, const json_t *result)
{
	struct transfer *t = arg;

	http_on_close(t->conn, NULL, NULL);
	if (err)
		http_reply_error(t->conn, err);
	else
		http_reply_json(t->conn, 200, json_incref(json_object_get(result, "results")));
	transfer_free(t);
}

static void images_search(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine *e = arg;
	const char *term = http_query(r, "term"), *limit = http_query(r, "limit");
	CLEAN_JSON json_t *auth = credentials(r);
	struct err err = ERR_INIT;
	unsigned n = limit && *limit ? (unsigned)strtoul(limit, NULL, 10) : 25;

	if (!term || !*term || n < 1 || n > 100) {
		http_reply_error_status(
			c, 400,
			n < 1 || n > 100 ? "limit %u is outside the range of [1, 100]" : "no term to search for", n);
		return;
	}
	struct transfer *t = transfer_new(e, c, term);

	if (!t)
		return;
	t->job = image_search_start(e->images, e->loop, term, n, auth, search_done, t, &err);
	started(t, &err);
}

const struct http_route routes_registry[] = {
	{ "GET", "/images/search", images_search, false },
	{ "POST", "/auth", auth_check, false },
	{ "POST", "/images/{name:*}/push", images_push, false },
	{ NULL, NULL, NULL, false },
};
