/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs that speak with registries, by way of the engine, and commit: pull, push, search, login, logout. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/credentials.h"
#include "cli/progress.h"

static const struct cli_verb *self(const char *name)
{
	for (const struct cli_verb *v = cli_registry_verbs; v->name; v++)
		if (!strcmp(v->name, name))
			return v;
	return &cli_registry_verbs[0];
}

static const char *option(int argc, char **argv, int *at, const char *name, const char *letter)
{
	size_t n = strlen(name);

	if (!argv[*at])
		return NULL;
	if (!strncmp(argv[*at], name, n) && argv[*at][n] == '=')
		return argv[*at] + n + 1;
	if ((strcmp(argv[*at], name) && (!letter || strcmp(argv[*at], letter))) || *at + 1 >= argc)
		return NULL;
	return argv[*at + 1] ? argv[++*at] : NULL;
}

static bool is_flag(const char *arg, const char *name, const char *letter)
{
	return arg && (!strcmp(arg, name) || (letter && !strcmp(arg, letter)));
}

/* The header's value of what is kept for the registry @server; NULL: nothing. Owned by the caller. */
static char *auth_header(const char *server)
{
	CLEAN_JSON json_t *auth = credentials_get(server);
	CLEAN_FREE char *text = auth ? json_text(auth) : NULL;

	return text ? base64_encode(text, strlen(text), true) : NULL;
}

/* Splits "name:tag" and "name@digest" in place. Return: the tag or digest, or NULL. */
static char *split_tag(char *name)
{
	char *at = strchr(name, '@'), *slash = strrchr(name, '/'), *colon;

	if (at) {
		*at = 0;
		return at + 1;
	}
	colon = strchr(slash ? slash : name, ':');
	if (!colon)
		return NULL;
	*colon = 0;
	return colon + 1;
}

/* What docker prints at a pull's end: the name with all that was left out. */
static void print_full_name(const char *name, const char *tag)
{
	char server[300];

	credentials_server(name, server, sizeof(server));
	if (strcmp(server, HUB) != 0)
		(void)printf("%s", name);
	else if (!strncmp(name, "docker.io/", 10))
		(void)printf("docker.io/%s%s", strchr(name + 10, '/') ? "" : "library/", name + 10);
	else
		(void)printf("docker.io/%s%s", strchr(name, '/') ? "" : "library/", name);
	(void)printf("%s%s\n", strchr(tag, ':') ? "@" : ":", tag);
}

/* One POST whose answer is a progress stream, with the registry's credentials. Return: the exit status. */
static int transfer(struct cli *cli, const char *path, const char *image, bool quiet)
{
	CLEAN_REPLY struct reply r = { .fd = -1 };
	CLEAN_FREE char *auth = NULL;
	struct client client = cli->client;
	struct err err = ERR_INIT;
	char server[300];

	credentials_server(image, server, sizeof(server));
	auth = auth_header(server);
	client.auth = auth;
	if (client_send(&client, "POST", path, NULL, -1, false, &r, &err) < 0 ||
	    (r.status >= 400 && reply_error(&r, &err) < 0))
		return cli_fail(&err);
	int rc = progress_show(&r, quiet, NULL, NULL, &err);

	return rc < 0 ? cli_fail(&err) : rc;
}

int cli_pull(struct cli *cli, const char *image, const char *platform, bool all, bool quiet)
{
	CLEAN_FREE char *name = strdup(image);
	CLEAN_FREE char *path = NULL;
	char *tag = name ? split_tag(name) : NULL;
	CLEAN_FREE char *from = name ? url_encode(name) : NULL;
	CLEAN_FREE char *os = url_encode(platform ? platform : "");
	CLEAN_FREE char *escaped = url_encode(all ? "" : tag ? tag : "latest");
	int status;

	if (!from || !os || !escaped ||
	    asprintf(&path, "/images/create?fromImage=%s&tag=%s&platform=%s", from, escaped, os) < 0) {
		path = NULL;
		return EXIT_ENGINE;
	}
	if (!tag && !all && !quiet)
		(void)puts("Using default tag: latest");
	status = transfer(cli, path, name, quiet);
	if (!status && !all)
		print_full_name(name, tag ? tag : "latest");
	return status;
}

static int verb_pull(struct cli *cli, int argc, char **argv)
{
	const char *value, *platform = NULL;
	bool all = false, quiet = false;
	int at;

	for (at = 1; at < argc && argv[at][0] == '-'; at++) {
		if (is_flag(argv[at], "--all-tags", "-a"))
			all = true;
		else if (is_flag(argv[at], "--quiet", "-q"))
			quiet = true;
		else if ((value = option(argc, argv, &at, "--platform", NULL)))
			platform = value;
		else
			return cli_usage_error(self("pull"), "unknown flag: %s", argv[at]);
	}
	if (at != argc - 1)
		return cli_usage_error(self("pull"), "one image is needed");
	return cli_pull(cli, argv[at], platform, all, quiet);
}

static int push_one(struct cli *cli, const char *name, const char *tag, bool quiet)
{
	CLEAN_FREE char *escaped = url_encode(name);
	CLEAN_FREE char *escaped_tag = url_encode(tag);
	CLEAN_FREE char *path = NULL;
	int status;

	if (!escaped || !escaped_tag || asprintf(&path, "/images/%s/push?tag=%s", escaped, escaped_tag) < 0) {
		path = NULL;
		return EXIT_ENGINE;
	}
	status = transfer(cli, path, name, quiet);
	if (!status && quiet)
		print_full_name(name, tag);
	return status;
}

/* All tags of a repository that are here. */
static int push_all(struct cli *cli, const char *name, bool quiet)
{
	CLEAN_JSON json_t *list = NULL;
	struct err err = ERR_INIT;
	json_t *image, *tag;
	int status = 0, found = 0;
	size_t i, k;

	if (client_json(&cli->client, "GET", "/images/json", NULL, &list, &err) < 0)
		return cli_fail(&err);
	json_array_foreach(list, i, image)
		json_array_foreach(json_object_get(image, "RepoTags"), k, tag) {
			const char *text = json_string_value(tag);
			size_t n = strlen(name);

			if (strncmp(text, name, n) || text[n] != ':' || strchr(text + n, '/'))
				continue;
			found++;
			status |= push_one(cli, name, text + n + 1, quiet);
		}
	if (found)
		return status;
	(void)err_set(&err, ENOENT, "An image does not exist locally with the tag: %s", name);
	return cli_fail(&err);
}

static int verb_push(struct cli *cli, int argc, char **argv)
{
	bool all = false, quiet = false;
	int at;

	for (at = 1; at < argc && argv[at][0] == '-'; at++) {
		if (is_flag(argv[at], "--all-tags", "-a"))
			all = true;
		else if (is_flag(argv[at], "--quiet", "-q"))
			quiet = true;
		else
			return cli_usage_error(self("push"), "unknown flag: %s", argv[at]);
	}
	if (at != argc - 1)
		return cli_usage_error(self("push"), "one image is needed");
	CLEAN_FREE char *name = strdup(argv[at]);
	const char *tag = name ? split_tag(name) : NULL;

	if (!name)
		return EXIT_ENGINE;
	if (all && tag)
		return cli_usage_error(self("push"), "a tag is of no use with --all-tags");
	if (all)
		return push_all(cli, name, quiet);
	if (!tag && !quiet)
		(void)puts("Using default tag: latest");
	return push_one(cli, name, tag ? tag : "latest", quiet);
}

static int verb_search(struct cli *cli, int argc, char **argv)
{
	const char *value, *limit = "25";
	CLEAN_JSON json_t *list = NULL;
	CLEAN_FREE char *path = NULL;
	struct err err = ERR_INIT;
	json_t *v;
	size_t i;
	int at;

	for (at = 1; at < argc && argv[at][0] == '-'; at++) {
		if (!(value = option(argc, argv, &at, "--limit", NULL)))
			return cli_usage_error(self("search"), "unknown flag, or one that is not built yet: %s",
					       argv[at]);
		limit = value;
	}
	CLEAN_FREE char *term = at == argc - 1 ? url_encode(argv[at]) : NULL;
	CLEAN_FREE char *escaped = url_encode(limit);

	if (!term || !escaped)
		return cli_usage_error(self("search"), "one term is needed");
	if (asprintf(&path, "/images/search?term=%s&limit=%s", term, escaped) < 0) {
		path = NULL;
		return EXIT_ENGINE;
	}
	if (client_json(&cli->client, "GET", path, NULL, &list, &err) < 0)
		return cli_fail(&err);
	(void)printf("%-40s %-45s %-8s %s\n", "NAME", "DESCRIPTION", "STARS", "OFFICIAL");
	json_array_foreach(list, i, v)
		(void)printf("%-40s %-45.45s %-8lld %s\n", json_str(v, "name", ""), json_str(v, "description", ""),
			     (long long)json_int(v, "star_count", 0), json_bool(v, "is_official", false) ? "[OK]" : "");
	return 0;
}

/* --- login and logout --- */

/* A line from standard input, without its end; asked for on a terminal, unseen with @hidden. Owned by the caller. */
static char *ask(const char *what, bool hidden)
{
	bool terminal = isatty(STDIN_FILENO);
	struct termios old, quiet;
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	if (terminal)
		(void)fprintf(stderr, "%s: ", what);
	hidden = hidden && terminal && tcgetattr(STDIN_FILENO, &old) == 0;
	if (hidden) {
		quiet = old;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
	}
	n = getline(&line, &size, stdin);
	if (hidden) {
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
		(void)fputc('\n', stderr);
	}
	while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
		line[--n] = 0;
	if (n > 0)
		return line;
	free(line);
	return NULL;
}

static void login_server(const char *argument, char *out, size_t size)
{
	const char *host = argument ? strstr(argument, "://") : NULL;

	host = host ? host + 3 : argument ? argument : "";
	(void)snprintf(out, size, "%.*s", (int)(strcspn(host, "/") & 0xff), host);
	if (!*out || !strcmp(out, "docker.io") || !strcmp(out, "index.docker.io") ||
	    !strcmp(out, "registry-1.docker.io"))
		(void)snprintf(out, size, "%s", HUB);
}

static int login(struct cli *cli, const char *server, const char *user, const char *password)
{
	CLEAN_JSON json_t *auth =
		json_pack("{s:s,s:s,s:s}", "username", user, "password", password, "serveraddress", server);
	CLEAN_JSON json_t *answer = NULL;
	struct err err = ERR_INIT;
	bool plain = false;

	if (!auth) {
		(void)err_set(&err, EINVAL, "the user's name or the password is not UTF-8");
		return cli_fail(&err);
	}
	if (client_json(&cli->client, "POST", "/auth", auth, &answer, &err) < 0)
		return cli_fail(&err);
	const char *token = json_str(answer, "IdentityToken", "");

	if (*token)
		(void)json_object_set_new(auth, "identitytoken", json_string(token));
	if (credentials_put(server, auth, &plain, &err) < 0)
		return cli_fail(&err);
	if (plain)
		(void)fprintf(stderr, "WARNING! The password is stored unencrypted in config.json: a credential helper "
				      "(\"credsStore\" there) keeps it elsewhere.\n");
	(void)puts(json_str(answer, "Status", "Login Succeeded"));
	return 0;
}

static int verb_login(struct cli *cli, int argc, char **argv)
{
	const char *value, *user = NULL, *password = NULL;
	bool from_stdin = false;
	char server[300];
	int at;

	for (at = 1; at < argc && argv[at][0] == '-'; at++) {
		if ((value = option(argc, argv, &at, "--username", "-u")))
			user = value;
		else if (is_flag(argv[at], "--password-stdin", NULL))
			from_stdin = true;
		else if ((value = option(argc, argv, &at, "--password", "-p")))
			password = value;
		else
			return cli_usage_error(self("login"), "unknown flag: %s", argv[at]);
	}
	if (at < argc - 1)
		return cli_usage_error(self("login"), "at most one registry is needed");
	if (from_stdin && (password || !user))
		return cli_usage_error(self("login"), password ? "--password and --password-stdin exclude each other"
							       : "--password-stdin needs --username");
	login_server(at < argc ? argv[at] : NULL, server, sizeof(server));
	CLEAN_FREE char *asked_user = user ? NULL : ask("Username", false);
	CLEAN_FREE char *asked_password = password ? NULL : ask("Password", true);

	user = user ? user : asked_user;
	password = password ? password : asked_password;
	if (!user || !password)
		return cli_usage_error(self("login"), "a user's name and a password are needed");
	return login(cli, server, user, password);
}

static int verb_logout(struct cli *cli, int argc, char **argv)
{
	struct err err = ERR_INIT;
	char server[300];
	int rc;

	(void)cli;
	if (argc > 2)
		return cli_usage_error(self("logout"), "at most one registry is needed");
	login_server(argc > 1 ? argv[1] : NULL, server, sizeof(server));
	rc = credentials_erase(server, &err);
	if (rc == -ENOENT && !err.code) {
		(void)printf("Not logged in to %s\n", server);
		return 0;
	}
	if (rc < 0)
		return cli_fail(&err);
	(void)printf("Removing login credentials for %s\n", server);
	return 0;
}

/* --- commit --- */

static int add_query(struct buf *path, const char *key, const char *value)
{
	CLEAN_FREE char *escaped = url_encode(value);

	return escaped ? buf_printf(path, "&%s=%s", key, escaped) : -ENOMEM;
}

static int verb_commit(struct cli *cli, int argc, char **argv)
{
	CLEAN_BUF struct buf path = BUF_INIT;
	CLEAN_JSON json_t *answer = NULL;
	struct err err = ERR_INIT;
	const char *value;
	int rc = buf_puts(&path, "/commit?"), at;

	for (at = 1; at < argc && argv[at][0] == '-' && !rc; at++) {
		if ((value = option(argc, argv, &at, "--author", "-a")))
			rc = add_query(&path, "author", value);
		else if ((value = option(argc, argv, &at, "--message", "-m")))
			rc = add_query(&path, "comment", value);
		else if ((value = option(argc, argv, &at, "--change", "-c")))
			rc = add_query(&path, "changes", value);
		else if (is_flag(argv[at], "--pause", "-p") || !strncmp(argv[at], "--pause=", 8))
			rc = add_query(&path, "pause", !strncmp(argv[at], "--pause=", 8) ? argv[at] + 8 : "1");
		else
			return cli_usage_error(self("commit"), "unknown flag: %s", argv[at]);
	}
	if (at != argc - 1 && at != argc - 2)
		return cli_usage_error(self("commit"), "a container and at most one name are needed");
	if (!rc)
		rc = add_query(&path, "container", argv[at]);
	if (!rc && at == argc - 2) {
		CLEAN_FREE char *name = strdup(argv[at + 1]);
		const char *tag = name ? split_tag(name) : NULL;

		rc = name ? add_query(&path, "repo", name) : -ENOMEM;
		if (!rc && tag)
			rc = add_query(&path, "tag", tag);
	}
	if (rc)
		return EXIT_ENGINE;
	if (client_json(&cli->client, "POST", buf_bytes(&path), NULL, &answer, &err) < 0)
		return cli_fail(&err);
	(void)puts(json_str(answer, "Id", ""));
	return 0;
}

const struct cli_verb cli_registry_verbs[] = {
	{ "pull", "[-a] [-q] [--platform OS/ARCH] IMAGE", "Get an image from a registry", verb_pull },
	{ "push", "[-a] [-q] IMAGE", "Send an image to a registry", verb_push },
	{ "search", "[--limit N] TERM", "Look for images in a registry", verb_search },
	{ "login", "[-u USER] [-p PASSWORD | --password-stdin] [REGISTRY]", "Log in to a registry", verb_login },
	{ "logout", "[REGISTRY]", "Forget the credentials for a registry", verb_logout },
	{ "commit", "[-a AUTHOR] [-m MESSAGE] [-c CHANGE] [--pause=BOOL] CONTAINER [NAME[:TAG]]",
	  "Make an image from a container's changes", verb_commit },
	{ 0 },
};
