/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walnut-fetch: speaks to registries for the engine (OCI distribution-spec,
 * Docker's token authentication), in a sandbox with a network and no files.
 *
 *	walnut-fetch manifest|text|blob|head|put-blob|put-manifest|login|get UID GID MAX
 *
 * It parses no archive and judges no digest: a blob's bytes go to descriptor 1 as
 * they come, texts go to the engine, which checks them. It is a program of its own so
 * that only the processes with a network carry libcurl and a TLS library.
 *
 * Descriptors: 0 a blob (put-blob), 1 a blob (blob), 3 JSON lines to the engine,
 * 4 its root: /etc/resolv.conf, hosts, CA certificates; 5 the plan: {bases: [URL],
 * repo, reference, digest, size, username, password, identity, token, insecure, actions}.
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "image/sandbox.h"
#include "image/source.h"

#define FD_ENGINE  3
#define FD_DIR     4
#define FD_PLAN    5
#define TEXT_MAX   (8U << 20)
#define TRIES      6
#define RESUME_MIN (64U << 10) /* bytes that an attempt must bring, for more attempts to follow */

struct request {
	const char *method, *url, *accept, *content_type;
	const char *body; /* or NULL */
	bool upload;      /* the body is descriptor 0 */
	bool stream;      /* the answer's body goes to descriptor 1 */
	uint64_t offset;  /* of a stream: bytes passed on before */
};

struct answer {
	long status;
	struct buf body;
	char type[128], location[2048], digest[128], bearer[2048];
	bool basic;
	long retry_after;
	uint64_t skip, offset, range_at; /* stream: bytes to drop, asked from, given from */
	bool begun;
	int write_error;
};

static CURL *curl;
static json_t *plan;
static char authorization[16384]; /* the header's value; "" when none */
static struct sha256_ctx upload_sha;
static uint64_t upload_size, passed_total;

static void say(json_t *line)
{
	CLEAN_JSON json_t *owned = line;
	CLEAN_FREE char *text = line ? json_text(line) : NULL;

	if (!text || fd_write_full(FD_ENGINE, text, strlen(text)) < 0 || fd_write_full(FD_ENGINE, "\n", 1) < 0)
		_exit(1);
}

static bool at_mirror;

/* want - a text of the plan. A mirror hears no secret that is meant for the registry it mirrors. */
static const char *want(const char *key)
{
	static const char *const secrets[] = { "username", "password", "identity", "registry_token", "authorization" };

	for (size_t i = 0; at_mirror && i < ARRAY_LEN(secrets); i++)
		if (!strcmp(key, secrets[i]))
			return "";
	return json_str(plan, key, "");
}

static void progress(uint64_t n)
{
	static struct timespec last;
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	if ((now.tv_sec - last.tv_sec) * 1000 + (now.tv_nsec - last.tv_nsec) / 1000000 < 100)
		return;
	last = now;
	say(json_pack("{s:I}", "progress", (json_int_t)n));
}

/* --- one request --- */

static void copy(char *to, size_t size, const char *p, size_t n)
{
	(void)snprintf(to, size, "%.*s", (int)(n < size ? n : size - 1), p);
}

static size_t on_header(char *p, size_t one, size_t n, void *arg)
{
	struct answer *a = arg;
	char *colon = memchr(p, ':', n);
	size_t len = n;

	if (n > 5 && !strncmp(p, "HTTP/", 5)) {
		/* Of redirects and 100 Continue only the last answer counts. */
		a->type[0] = a->location[0] = a->digest[0] = a->bearer[0] = 0;
		a->basic = false;
		a->retry_after = 0;
		a->range_at = 0;
		return n;
	}
	if (!colon)
		return n;
	const char *v = colon + 1;

	while (len && (p[len - 1] == '\r' || p[len - 1] == '\n' || p[len - 1] == ' '))
		len--;
	while (v < p + len && *v == ' ')
		v++;
	size_t name = (size_t)(colon - p), vlen = v < p + len ? (size_t)(p + len - v) : 0;

	if (name == 12 && !strncasecmp(p, "content-type", 12)) {
		copy(a->type, sizeof(a->type), v, vlen);
		*strchrnul(a->type, ';') = 0;
	} else if (name == 8 && !strncasecmp(p, "location", 8)) {
		copy(a->location, sizeof(a->location), v, vlen);
	} else if (name == 21 && !strncasecmp(p, "docker-content-digest", 21)) {
		copy(a->digest, sizeof(a->digest), v, vlen);
	} else if (name == 11 && !strncasecmp(p, "retry-after", 11)) {
		a->retry_after = strtol(v, NULL, 10);
	} else if (name == 13 && !strncasecmp(p, "content-range", 13)) {
		a->range_at = vlen > 6 ? strtoull(v + 6, NULL, 10) : 0;
	} else if (name == 16 && !strncasecmp(p, "www-authenticate", 16)) {
		if (vlen > 7 && !strncasecmp(v, "bearer ", 7))
			copy(a->bearer, sizeof(a->bearer), v + 7, vlen - 7);
		else if (vlen >= 5 && !strncasecmp(v, "basic", 5))
			a->basic = true;
	}
	return n;
}

static size_t on_body(char *p, size_t one, size_t n, void *arg)
{
	struct answer *a = arg;

	return buf_append(&a->body, p, n) < 0 ? 0 : n;
}

/* on_blob - an answer's bytes go on, unless it is an error's text; those that were passed on before are skipped. */
static size_t on_blob(char *p, size_t one, size_t n, void *arg)
{
	struct answer *a = arg;
	size_t left = n;
	long status = 0;

	(void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	if (status != 200 && status != 206)
		return on_body(p, one, n, arg);
	if (!a->begun) {
		a->begun = true;
		if (status == 206 && a->range_at != a->offset) {
			a->write_error = EPROTO;
			return 0;
		}
		a->skip = status == 200 ? a->offset : 0;
	}
	if (a->skip) {
		size_t step = a->skip < left ? (size_t)a->skip : left;

		a->skip -= step;
		p += step;
		left -= step;
	}
	/* Not one byte more than the manifest says. */
	uint64_t size = (uint64_t)json_int(plan, "size", 0), room = size - passed_total;

	if (left > room) {
		a->write_error = EFBIG;
		return 0;
	}
	int rc = left ? fd_write_full(1, p, left) : 0;

	if (rc < 0) {
		a->write_error = -rc;
		return 0;
	}
	passed_total += left;
	progress(passed_total);
	return n;
}

static size_t on_upload(char *p, size_t one, size_t n, void *arg)
{
	ssize_t got;

	do {
		got = read(0, p, one * n);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return CURL_READFUNC_ABORT;
	sha256_update(&upload_sha, (size_t)got, (const uint8_t *)p);
	upload_size += (uint64_t)got;
	progress(upload_size);
	return (size_t)got;
}

static struct curl_slist *headers_of(const struct request *r, bool authorize)
{
	struct curl_slist *h = NULL;
	char line[17000];

	if (authorize && authorization[0]) {
		(void)snprintf(line, sizeof(line), "Authorization: %s", authorization);
		h = curl_slist_append(h, line);
	}
	if (r->accept) {
		(void)snprintf(line, sizeof(line), "Accept: %s", r->accept);
		h = curl_slist_append(h, line);
	}
	if (r->content_type) {
		(void)snprintf(line, sizeof(line), "Content-Type: %s", r->content_type);
		h = curl_slist_append(h, line);
	}
	/* No waiting for "100 Continue"; a streamed body has no length. */
	h = curl_slist_append(h, "Expect:");
	return r->upload ? curl_slist_append(h, "Transfer-Encoding: chunked") : h;
}

static void set_common(const struct request *r, struct answer *a)
{
	bool insecure = json_bool(plan, "insecure", false);
	const char *schemes = insecure ? "http,https" : strncmp(r->url, "http:", 5) ? "https" : "http,https";

	curl_easy_reset(curl);
	(void)curl_easy_setopt(curl, CURLOPT_URL, r->url);
	(void)curl_easy_setopt(curl, CURLOPT_USERAGENT, "walnut/" WALNUT_VERSION);
	(void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 15L);
	(void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)json_int(plan, "stall", 30));
	(void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	(void)curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, schemes);
	/* libcurl sends our Authorization header only to the host it was meant for. */
	(void)curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, r->upload || r->body ? 0L : 1L);
	(void)curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 10L);
	(void)curl_easy_setopt(curl, CURLOPT_CAINFO, "/ca.crt");
	(void)curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
	if (insecure) {
		(void)curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
		(void)curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (json_bool(plan, "client_cert", false)) {
		(void)curl_easy_setopt(curl, CURLOPT_SSLCERT, "/client.cert");
		(void)curl_easy_setopt(curl, CURLOPT_SSLKEY, "/client.key");
	}
	(void)curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(curl, CURLOPT_HEADERDATA, a);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, r->stream ? on_blob : on_body);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, a);
	(void)curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L << 10);
}

/* perform - one request, no retries. Return: 0 with an answer of any status, or -errno (no answer). */
static int perform(const struct request *r, bool authorize, struct answer *a, struct err *err)
{
	char text[CURL_ERROR_SIZE] = "", range[40];
	struct curl_slist *h = headers_of(r, authorize);

	buf_free(&a->body);
	*a = (struct answer){ .body.limit = TEXT_MAX };
	set_common(r, a);
	(void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, text);
	(void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, h);
	if (r->upload) {
		(void)curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
		(void)curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_upload);
	}
	if (!strcmp(r->method, "HEAD"))
		(void)curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
	else if (r->body)
		(void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, r->body);
	if (strcmp(r->method, "GET") && strcmp(r->method, "HEAD"))
		(void)curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, r->method);
	if (r->offset) {
		(void)snprintf(range, sizeof(range), "%llu-", (unsigned long long)r->offset);
		(void)curl_easy_setopt(curl, CURLOPT_RANGE, range);
		a->offset = r->offset;
	}
	CURLcode rc = curl_easy_perform(curl);

	(void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &a->status);
	curl_slist_free_all(h);
	if (rc == CURLE_OK)
		return 0;
	if (a->write_error == EFBIG)
		return err_set(err, EFBIG, "the registry sends more bytes than the manifest says");
	if (a->write_error)
		return err_sys(err, a->write_error, "cannot pass on what the registry sends");
	/* No TLS there, or not with a certificate that is known: to try again is no use. */
	bool tls =
		rc == CURLE_SSL_CONNECT_ERROR || rc == CURLE_PEER_FAILED_VERIFICATION || rc == CURLE_SSL_CACERT_BADFILE;

	return err_set(err, tls ? EPROTO : EIO, "%.300s: %.200s", r->url, text[0] ? text : curl_easy_strerror(rc));
}

/* --- authentication --- */

/* parameter - the value of KEY="VALUE" in a challenge. */
static void parameter(const char *challenge, const char *key, char *out, size_t size)
{
	size_t n = strlen(key);

	*out = 0;
	for (const char *p = challenge; (p = strcasestr(p, key)); p += n) {
		bool start = p == challenge || p[-1] == ',' || p[-1] == ' ';

		if (!start || p[n] != '=')
			continue;
		p += n + 1;
		if (*p == '"')
			copy(out, size, p + 1, strcspn(p + 1, "\""));
		else
			copy(out, size, p, strcspn(p, ", "));
		return;
	}
}

static void set_basic(void)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	CLEAN_FREE char *pair = NULL;
	int n = asprintf(&pair, "%.4000s:%.4000s", want("username"), want("password"));
	char *out = authorization + sprintf(authorization, "Basic ");

	for (int i = 0; i < n; i += 3) {
		const uint8_t *p = (const uint8_t *)pair + i;
		unsigned v = (unsigned)p[0] << 16 | (i + 1 < n ? (unsigned)p[1] << 8 : 0) | (i + 2 < n ? p[2] : 0U);

		*out++ = digits[v >> 18];
		*out++ = digits[v >> 12 & 63];
		*out++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
		*out++ = i + 2 < n ? digits[v & 63] : '=';
	}
	*out = 0;
}

/* error_text - a registry's own words: the first of its "errors", or the status. */
static void error_text(const struct answer *a, char *code, char *out, size_t size)
{
	CLEAN_JSON json_t *doc = a->body.len ? json_loadb(buf_bytes(&a->body), a->body.len, 0, NULL) : NULL;
	const json_t *e = json_array_get(json_object_get(doc, "errors"), 0);
	const char *message = json_str(e, "message", json_str(doc, "details", json_str(doc, "message", "")));

	copy(code, 64, json_str(e, "code", ""), 63);
	for (char *c = code; *c; c++)
		*c = *c == '_' ? ' ' : (char)(*c | 0x20);
	if (*message)
		(void)snprintf(out, size, "%s%s%.250s", code, *code ? ": " : "", message);
	else
		(void)snprintf(out, size, "received unexpected HTTP status: %ld", a->status);
	for (char *c = out; *c; c++)
		*c = (unsigned char)*c < ' ' ? ' ' : *c;
}

static int get_token(const char *challenge, struct err *err)
{
	char realm[1024], service[512], scope[600], word[64], text[300];
	const char *identity = want("identity");
	CLEAN_FREE char *s = NULL, *v = NULL, *user = NULL;
	CLEAN_FREE char *url = NULL, *form = NULL;
	struct answer a = { 0 };

	parameter(challenge, "realm", realm, sizeof(realm));
	parameter(challenge, "service", service, sizeof(service));
	parameter(challenge, "scope", scope, sizeof(scope));
	if (!scope[0] && *want("repo"))
		(void)snprintf(scope, sizeof(scope), "repository:%.255s:%s", want("repo"),
			       json_str(plan, "actions", "pull"));
	if (strncmp(realm, "https://", 8) &&
	    (strncmp(realm, "http://", 7) || (!json_bool(plan, "insecure", false) && (*want("username") || *identity))))
		return err_set(err, EACCES, "the registry's token server \"%.200s\" is not secure", realm);
	s = curl_easy_escape(curl, service, 0);
	v = curl_easy_escape(curl, scope, 0);
	user = curl_easy_escape(curl, identity, 0);
	struct request r = { .method = "GET" };

	if (*identity) {
		if (asprintf(&form, "grant_type=refresh_token&client_id=walnut&service=%s&scope=%s&refresh_token=%s", s,
			     v, user) < 0 ||
		    !(url = strdup(realm)))
			return err_set(err, ENOMEM, "no memory for a token");
		r = (struct request){ .method = "POST",
				      .body = form,
				      .content_type = "application/x-www-form-urlencoded" };
	} else if (asprintf(&url, "%s%cservice=%s%s%s%s", realm, strchr(realm, '?') ? '&' : '?', s,
			    scope[0] ? "&scope=" : "", v, *want("username") ? "&account=walnut" : "") < 0) {
		return err_set(err, ENOMEM, "no memory for a token");
	}
	r.url = url;
	authorization[0] = 0;
	if (*want("username") && !*identity)
		set_basic();
	int rc = perform(&r, true, &a, err);

	authorization[0] = 0;
	if (rc < 0)
		return rc;
	CLEAN_JSON json_t *doc = a.body.len ? json_loadb(buf_bytes(&a.body), a.body.len, 0, NULL) : NULL;
	const char *token = json_str(doc, "token", json_str(doc, "access_token", ""));

	if (a.status == 200 && *token && strlen(token) < sizeof(authorization) - 10 && !strpbrk(token, "\r\n")) {
		(void)snprintf(authorization, sizeof(authorization), "Bearer %s", token);
	} else {
		error_text(&a, word, text, sizeof(text));
		rc = err_set(err, a.status == 401 || a.status == 403 ? EACCES : EIO, "%s",
			     a.status == 401 || a.status == 403 ? "unauthorized: incorrect username or password"
								: text);
	}
	buf_free(&a.body);
	return rc;
}

/* authorize - answer a challenge. Return: 0 try again, or -errno. */
static int authorize(const struct answer *a, struct err *err)
{
	char challenge[2048];
	bool had = authorization[0];

	(void)snprintf(challenge, sizeof(challenge), "%s", a->bearer);
	if (challenge[0])
		return get_token(challenge, err);
	if (a->basic && *want("username") && !had) {
		set_basic();
		return 0;
	}
	return err_set(err, EACCES, "%s",
		       *want("username") ? "unauthorized: incorrect username or password"
					 : "no basic auth credentials");
}

static bool passing(long status)
{
	return status == 429 || status == 408 || (status >= 500 && status != 501);
}

/* ask - a request with authentication and retries. Return: 0 with the last answer, -errno when there is none. */
static int ask(struct request *r, struct answer *a, struct err *err)
{
	bool challenged = false;
	uint64_t delay = 300;

	for (int try = 0;; try++) {
		/* What was passed on is not asked for again. */
		if (r->stream)
			r->offset = passed_total;
		int rc = perform(r, true, a, err);

		if (rc == 0 && a->status == 401 && !challenged) {
			challenged = true;
			rc = authorize(a, err);
			if (rc < 0)
				return rc;
			try--;
			continue;
		}
		bool again = rc == -EIO || (rc == 0 && passing(a->status));

		/* A server that never answered is another base's turn; a body that was sent cannot be sent again. */
		if (!again || r->upload || try == TRIES - 1 || (rc < 0 && a->status == 0 && try == 1))
			return rc;
		if (a->retry_after > 0 && a->retry_after <= 60)
			delay = (uint64_t)a->retry_after * 1000;
		struct timespec t = { (time_t)(delay / 1000), (long)(delay % 1000) * 1000000 };

		(void)nanosleep(&t, NULL);
		delay = delay < 5000 ? delay * 2 : delay;
	}
}

/* refused - the sentence for an answer that is not the wanted one. */
static int refused(const struct answer *a, struct err *err)
{
	char code[64], text[300];

	error_text(a, code, text, sizeof(text));
	if (a->status == 429)
		return err_set(err, EBUSY,
			       "toomanyrequests: the registry limits how much is pulled: wait, or log in (%s)", text);
	return err_set(err,
		       a->status == 404                       ? ENOENT
		       : a->status == 401 || a->status == 403 ? EACCES
							      : EIO,
		       "%s", text);
}

/* --- verbs --- */

static const char *const manifest_types =
	"application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
	"application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

static int get_text(const char *url, const char *accept, json_t **result, struct err *err)
{
	struct request r = { .method = "GET", .url = url, .accept = accept };
	struct answer a = { 0 };
	int rc = ask(&r, &a, err);

	if (rc == 0 && a.status != 200)
		rc = refused(&a, err);
	if (rc == 0) {
		*result = json_pack("{s:s%,s:s,s:s,s:s}", "text", buf_bytes(&a.body), a.body.len, "type", a.type,
				    "digest", a.digest, "authorization", authorization);
		if (!*result)
			rc = err_set(err, EINVAL, "the registry's answer is no text");
	}
	buf_free(&a.body);
	return rc;
}

static int get_blob(const char *url, json_t **result, struct err *err)
{
	uint64_t size = (uint64_t)json_int(plan, "size", 0), before = 0;
	int idle = 0;

	while (passed_total < size || size == 0) {
		struct request r = { .method = "GET", .url = url, .stream = true, .offset = passed_total };
		struct answer a = { 0 };
		int rc = ask(&r, &a, err);

		if (rc == 0 && a.status != 200 && a.status != 206)
			rc = refused(&a, err);
		buf_free(&a.body);
		if (rc < 0 && rc != -EIO)
			return rc;
		/* A few bytes at a time are no progress: such a registry would keep us for ever. */
		idle = passed_total - before >= RESUME_MIN ? 0 : idle + 1;
		before = passed_total;
		if (rc < 0 && idle >= 2)
			return rc;
		if (passed_total < size && idle >= TRIES)
			return err_set(err, EIO, "the registry sent %llu of %llu bytes and then no more",
				       (unsigned long long)passed_total, (unsigned long long)size);
		if (size == 0)
			break;
	}
	*result = json_pack("{s:I,s:s}", "bytes", (json_int_t)passed_total, "authorization", authorization);
	return 0;
}

static int head(const char *url, json_t **result, struct err *err)
{
	struct request r = { .method = "HEAD", .url = url };
	struct answer a = { 0 };
	int rc = ask(&r, &a, err);

	if (rc == 0 && a.status != 200 && a.status != 404)
		rc = refused(&a, err);
	*result = json_pack("{s:b,s:s}", "there", a.status == 200, "authorization", authorization);
	buf_free(&a.body);
	return rc;
}

/* location - an absolute URL from an answer's Location. Owned by the caller. */
static char *location(const char *base, const char *to)
{
	CURLU *u = curl_url();
	char *text = NULL, *out = NULL;

	if (u && curl_url_set(u, CURLUPART_URL, base, 0) == CURLUE_OK &&
	    curl_url_set(u, CURLUPART_URL, to, 0) == CURLUE_OK && curl_url_get(u, CURLUPART_URL, &text, 0) == CURLUE_OK)
		out = strdup(text);
	curl_free(text);
	curl_url_cleanup(u);
	return out;
}

static int finish_upload(const char *to, json_t **result, struct err *err)
{
	uint8_t sum[SHA256_DIGEST_SIZE];
	char digest[DIGEST_TEXT];
	CLEAN_FREE char *url = NULL;
	struct answer a = { 0 };

	sha256_digest(&upload_sha, sizeof(sum), sum);
	digest_text(sum, digest);
	if (asprintf(&url, "%s%cdigest=%s", to, strchr(to, '?') ? '&' : '?', digest) < 0)
		return err_set(err, ENOMEM, "no memory for an upload");
	struct request r = { .method = "PUT", .url = url, .body = "", .content_type = "application/octet-stream" };
	int rc = ask(&r, &a, err);

	if (rc == 0 && a.status != 201)
		rc = refused(&a, err);
	*result = json_pack("{s:s,s:I,s:s}", "digest", digest, "size", (json_int_t)upload_size, "authorization",
			    authorization);
	buf_free(&a.body);
	return rc;
}

/* put_blob - POST, PATCH in one chunked body, PUT with the digest, which is known only then. */
static int put_blob(const char *base, json_t **result, struct err *err)
{
	CLEAN_FREE char *url = NULL, *to = NULL, *next = NULL;
	struct answer a = { 0 };

	if (asprintf(&url, "%s/v2/%s/blobs/uploads/", base, want("repo")) < 0)
		return err_set(err, ENOMEM, "no memory for an upload");
	struct request post = { .method = "POST", .url = url, .body = "" };
	int rc = ask(&post, &a, err);

	if (rc == 0 && a.status != 202)
		rc = refused(&a, err);
	if (rc == 0 && !(to = location(url, a.location)))
		rc = err_set(err, EIO, "the registry gave no place for an upload");
	if (rc < 0)
		goto out;
	struct request patch = {
		.method = "PATCH", .url = to, .upload = true, .content_type = "application/octet-stream"
	};

	sha256_init(&upload_sha);
	rc = ask(&patch, &a, err);
	if (rc == 0 && a.status != 202 && a.status != 204)
		rc = refused(&a, err);
	next = rc == 0 ? location(to, a.location[0] ? a.location : to) : NULL;
	if (rc == 0 && !next)
		rc = err_set(err, EIO, "the registry gave no place for an upload");
	if (rc == 0)
		rc = finish_upload(next, result, err);
out:
	buf_free(&a.body);
	return rc;
}

static int put_manifest(const char *url, json_t **result, struct err *err)
{
	struct request r = { .method = "PUT", .url = url, .body = want("text"), .content_type = want("type") };
	struct answer a = { 0 };
	int rc = ask(&r, &a, err);

	if (rc == 0 && a.status != 201 && a.status != 200)
		rc = refused(&a, err);
	*result = json_pack("{s:s}", "digest", a.digest);
	buf_free(&a.body);
	return rc;
}

static int at_base(const char *verb, const char *base, json_t **result, struct err *err)
{
	bool blob = !strcmp(verb, "text") || !strcmp(verb, "blob") || !strcmp(verb, "head");
	CLEAN_FREE char *url = NULL;
	int n;

	if (!strcmp(verb, "login"))
		n = asprintf(&url, "%s/v2/", base);
	else if (!strcmp(verb, "get"))
		n = asprintf(&url, "%s%s", base, want("path"));
	else
		n = asprintf(&url, "%s/v2/%s/%s/%s", base, want("repo"), blob ? "blobs" : "manifests",
			     want(blob ? "digest" : "reference"));
	if (n < 0)
		return err_set(err, ENOMEM, "no memory for a request");
	if (!strcmp(verb, "blob"))
		return get_blob(url, result, err);
	if (!strcmp(verb, "head"))
		return head(url, result, err);
	if (!strcmp(verb, "put-blob"))
		return put_blob(base, result, err);
	if (!strcmp(verb, "put-manifest"))
		return put_manifest(url, result, err);
	return get_text(url, strcmp(verb, "manifest") ? NULL : manifest_types, result, err);
}

static int run(const char *verb, json_t **result, struct err *err)
{
	const json_t *bases = json_object_get(plan, "bases"), *base;
	int rc = -EIO;
	size_t i;

	json_array_foreach(bases, i, base) {
		at_mirror = i < (size_t)json_int(plan, "mirrors", 0);
		copy(authorization, sizeof(authorization), want("authorization"), strlen(want("authorization")));
		if (*want("registry_token"))
			(void)snprintf(authorization, sizeof(authorization), "Bearer %.16000s", want("registry_token"));
		rc = at_base(verb, json_is_string(base) ? json_string_value(base) : "", result, err);
		if (rc == 0)
			json_object_set_new(*result, "base", json_integer((json_int_t)i));
		/* The next one only when this one gave nothing: a mirror may fail as it likes, a body goes once. */
		if (rc == 0 || passed_total || upload_size || !(at_mirror || rc == -EIO || rc == -EPROTO))
			break;
	}
	return rc;
}

static int read_plan(struct err *err)
{
	CLEAN_BUF struct buf b = BUF_INIT;
	ssize_t n;

	while ((n = buf_read(&b, FD_PLAN, 65536)) > 0)
		;
	plan = n < 0 ? NULL : json_parse(buf_bytes(&b), b.len, "the plan", err);
	return plan ? 0 : err_set(err, EINVAL, "walnut-fetch: cannot read its plan");
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	json_t *result = NULL;

	if (argc != 5) {
		fprintf(stderr, "walnut-fetch is started by walnutd\n");
		return 2;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	int rc = read_plan(&err);

	if (rc == 0 && (curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK || !(curl = curl_easy_init())))
		rc = err_set(&err, ENOMEM, "walnut-fetch: libcurl does not start");
	if (rc == 0)
		rc = sandbox_enter(SANDBOX_NETWORK, FD_DIR, (uid_t)strtoul(argv[2], NULL, 10),
				   (gid_t)strtoul(argv[3], NULL, 10), &err);
	if (rc == 0)
		rc = run(argv[1], &result, &err);
	if (rc < 0)
		say(json_pack("{s:{s:i,s:s}}", "error", "code", -rc, "message", err.msg));
	else
		say(json_pack("{s:o}", "result", result ? result : json_object()));
	return rc < 0;
}
