/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json as Docker's client writes it: "auths": {server: {"auth": base64 of user:password, "identitytoken"}},
 * "credsStore" and "credHelpers": the name NAME of a program docker-credential-NAME, which is spoken with by
 * "get", "store" and "erase" (the protocol of docker-credential-helpers).
 */
#include "cli/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"

#define CONFIG_MAX (4U << 20)

void credentials_server(const char *image, char *out, size_t size)
{
	const char *slash = strchr(image, '/');
	size_t n = slash ? (size_t)(slash - image) : 0;

	/* As in a reference: the first part is a host when it cannot be a part of a name. */
	if (!n || !(memchr(image, '.', n) || memchr(image, ':', n) || (n == 9 && !strncmp(image, "localhost", 9))) ||
	    (n == 9 && !strncmp(image, "docker.io", 9)) || (n == 15 && !strncmp(image, "index.docker.io", 15)))
		(void)snprintf(out, size, "%s", HUB);
	else
		(void)snprintf(out, size, "%.*s", (int)(n & 0xff), image);
}

char *base64_encode(const void *bytes, size_t n, bool url)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = bytes;
	char *out = malloc(n * 4 / 3 + 8), *to = out;

	for (size_t i = 0; out && i < n; i += 3) {
		unsigned v =
			(unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0U);

		*to++ = digits[v >> 18];
		*to++ = digits[v >> 12 & 63];
		*to++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
		*to++ = i + 2 < n ? digits[v & 63] : '=';
	}
	if (!out)
		return NULL;
	*to = 0;
	for (to = out; url && *to; to++)
		*to = *to == '+' ? '-' : *to == '/' ? '_' : *to;
	return out;
}

/* Text only: what cannot be one ends it. Owned by the caller. */
static char *base64_decode(const char *text)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *out = malloc(strlen(text) + 1), *to = out;
	unsigned bits = 0, have = 0;

	for (; out && *text; text++) {
		const char *at = strchr(digits, *text);

		if (!at)
			break;
		bits = bits << 6 | (unsigned)(at - digits);
		have += 6;
		if (have >= 8) {
			have -= 8;
			*to++ = (char)(bits >> have & 0xff);
		}
	}
	if (out)
		*to = 0;
	return out;
}

/* --- the file --- */

static char *config_dir(void)
{
	const char *dir = getenv("DOCKER_CONFIG"), *home = getenv("HOME");
	char *path = NULL;

	if (dir && *dir)
		return strdup(dir);
	return asprintf(&path, "%s/.docker", home && *home ? home : "/root") < 0 ? NULL : path;
}

/* The file's document; {} when there is none, NULL with @err when it cannot be read. */
static json_t *config_read(struct err *err)
{
	CLEAN_FREE char *dir = config_dir();
	CLEAN_FREE char *path = NULL;
	size_t n = 0;

	if (!dir || asprintf(&path, "%s/config.json", dir) < 0) {
		(void)err_sys(err, ENOMEM, "read the credentials");
		return NULL;
	}
	if (access(path, F_OK) < 0 && (errno == ENOENT || errno == ENOTDIR))
		return json_object();
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, path, CONFIG_MAX, &n, err);
	json_t *doc = text ? json_parse(text, n, path, err) : NULL;

	if (doc && !json_is_object(doc)) {
		json_decref(doc);
		(void)err_set(err, EINVAL, "%s is no JSON object: repair or remove it", path);
		return NULL;
	}
	return doc;
}

static int config_write(const json_t *doc, struct err *err)
{
	CLEAN_FREE char *dir = config_dir();
	CLEAN_FREE char *path = NULL;
	CLEAN_FREE char *real = NULL;
	CLEAN_FREE char *text = json_dumps(doc, JSON_INDENT(4) | JSON_PRESERVE_ORDER);

	if (!dir || !text || asprintf(&path, "%s/config.json", dir) < 0)
		return err_sys(err, ENOMEM, "write the credentials");
	if (fd_mkdir_p(dir, 0700, err) < 0)
		return -err->code;
	real = realpath(path, NULL); /* a link stays one */
	return fd_replace_file(AT_FDCWD, real ? real : path, text, strlen(text), 0600, err);
}

/* --- helpers --- */

static const char *helper_of(const json_t *config, const char *server)
{
	const char *own = json_str(json_object_get(config, "credHelpers"), server, "");

	return *own ? own : json_str(config, "credsStore", "");
}

/* Runs docker-credential-NAME; its output in @out. Return: its exit status, or -errno. */
static int helper_run(const char *name, const char *verb, const char *input, struct buf *out, struct err *err)
{
	CLEAN_FREE char *program = NULL;
	int in[2], answer[2], status = 0;
	pid_t pid;

	if (strchr(name, '/') || asprintf(&program, "docker-credential-%s", name) < 0)
		return err_set(err, EINVAL, "\"%.100s\" is no credential helper's name", name);
	if (pipe2(in, O_CLOEXEC))
		return err_sys(err, errno, "start %s", program);
	CLEAN_FD int theirs = in[0], ours = in[1];

	if (pipe2(answer, O_CLOEXEC))
		return err_sys(err, errno, "start %s", program);
	CLEAN_FD int from = answer[0], to = answer[1];

	pid = fork();
	if (pid < 0)
		return err_sys(err, errno, "start %s", program);
	if (!pid) {
		(void)dup2(theirs, STDIN_FILENO);
		(void)dup2(to, STDOUT_FILENO);
		(void)execlp(program, program, verb, (char *)NULL);
		_exit(127);
	}
	close_fd(&theirs);
	close_fd(&to);
	(void)!fd_write_full(ours, input, strlen(input));
	close_fd(&ours);
	out->limit = CONFIG_MAX;
	while (buf_read(out, from, 4096) > 0)
		;
	if (waitpid(pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) == 127)
		return err_set(err, ENOENT, "the credential helper %s, which config.json names, cannot be run",
			       program);
	return WEXITSTATUS(status);
}

static json_t *helper_get(const char *name, const char *server)
{
	CLEAN_BUF struct buf out = BUF_INIT;
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *doc = NULL;

	if (helper_run(name, "get", server, &out, &err)) {
		if (err.code)
			(void)fprintf(stderr, "walnut: %s\n", err.msg);
		return NULL;
	}
	doc = json_parse(buf_bytes(&out), out.len, "a credential helper's answer", &err);
	const char *user = json_str(doc, "Username", ""), *secret = json_str(doc, "Secret", "");

	if (!*user)
		return NULL;
	if (!strcmp(user, "<token>"))
		return json_pack("{s:s,s:s}", "identitytoken", secret, "serveraddress", server);
	return json_pack("{s:s,s:s,s:s}", "username", user, "password", secret, "serveraddress", server);
}

/* --- what the verbs use --- */

/* "https://host/v1/" and "host" are the same server. */
static bool same_server(const char *a, const char *b)
{
	const char *at = strstr(a, "://"), *bt = strstr(b, "://");

	a = at ? at + 3 : a;
	b = bt ? bt + 3 : b;
	return strcspn(a, "/") == strcspn(b, "/") && !strncmp(a, b, strcspn(a, "/"));
}

static const char *key_of(const json_t *auths, const char *server)
{
	const char *key;
	json_t *v;

	if (json_object_get(auths, server))
		return server;
	json_object_foreach((json_t *)(uintptr_t)auths, key, v)
		if (same_server(key, server))
			return key;
	return NULL;
}

json_t *credentials_get(const char *server)
{
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *config = config_read(&err);
	const json_t *auths = json_object_get(config, "auths"), *entry;
	const char *key = key_of(auths, server), *helper = helper_of(config, server), *token;

	if (!config)
		(void)fprintf(stderr, "walnut: %s\n", err.msg);
	if (*helper)
		return helper_get(helper, server);
	entry = key ? json_object_get(auths, key) : NULL;
	token = json_str(entry, "identitytoken", "");
	if (*token)
		return json_pack("{s:s,s:s}", "identitytoken", token, "serveraddress", server);
	CLEAN_FREE char *pair = base64_decode(json_str(entry, "auth", ""));
	char *colon = pair ? strchr(pair, ':') : NULL;

	if (!colon)
		return NULL;
	*colon = 0;
	return json_pack("{s:s,s:s,s:s}", "username", pair, "password", colon + 1, "serveraddress", server);
}

int credentials_put(const char *server, const json_t *auth, bool *plain, struct err *err)
{
	CLEAN_JSON json_t *config = config_read(err);
	const char *helper = helper_of(config, server), *token = json_str(auth, "identitytoken", "");
	const char *user = json_str(auth, "username", ""), *password = json_str(auth, "password", "");
	CLEAN_BUF struct buf out = BUF_INIT;
	json_t *auths;

	*plain = !*helper;
	if (!config)
		return -err->code;
	if (*helper) {
		CLEAN_JSON json_t *doc = json_pack("{s:s,s:s,s:s}", "ServerURL", server, "Username",
						   *token ? "<token>" : user, "Secret", *token ? token : password);
		CLEAN_FREE char *text = doc ? json_text(doc) : NULL;
		int rc = text ? helper_run(helper, "store", text, &out, err) : -ENOMEM;

		return rc > 0 ? err_set(err, EIO, "docker-credential-%s does not keep the credentials: %.200s", helper,
					buf_bytes(&out))
			      : rc;
	}
	CLEAN_FREE char *pair = NULL;

	if (asprintf(&pair, "%s:%s", user, *token ? "" : password) < 0) {
		pair = NULL;
		return err_sys(err, ENOMEM, "keep the credentials");
	}
	CLEAN_FREE char *encoded = base64_encode(pair, strlen(pair), false);

	auths = json_object_get(config, "auths");
	if (!json_is_object(auths)) {
		auths = json_object();
		(void)json_object_set_new(config, "auths", auths);
	}
	const char *old = key_of(auths, server);

	if (old)
		(void)json_object_del(auths, old);
	json_t *entry = json_pack("{s:s}", "auth", encoded ? encoded : "");

	if (*token)
		(void)json_object_set_new(entry, "identitytoken", json_string(token));
	(void)json_object_set_new(auths, server, entry);
	return config_write(config, err);
}

int credentials_erase(const char *server, struct err *err)
{
	CLEAN_JSON json_t *config = config_read(err);
	const char *helper = helper_of(config, server), *key;
	json_t *auths = json_object_get(config, "auths");
	CLEAN_BUF struct buf out = BUF_INIT;

	if (!config)
		return -err->code;
	key = key_of(auths, server);
	if (*helper) {
		int rc = helper_run(helper, "erase", server, &out, err);

		if (rc < 0 || !key)
			return rc < 0 ? rc : 0;
	}
	if (!key)
		return -ENOENT;
	(void)json_object_del(auths, key);
	return config_write(config, err);
}
