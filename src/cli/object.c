/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs on containers, images and the system that exist already: lists, inspection, life cycle, archives. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/stream.h"

static const struct cli_verb *self(const char *name)
{
	const struct cli_verb *v = cli_object_verbs;

	while (strcmp(v->name, name))
		v++;
	return v;
}

/* Takes the option @name (with its value) from argv[*at]. Return: the value, or NULL when argv[*at] is another. */
static const char *option(int argc, char **argv, int *at, const char *name, const char *letter)
{
	size_t n = strlen(name);

	if (!strncmp(argv[*at], name, n) && argv[*at][n] == '=')
		return argv[*at] + n + 1;
	if ((strcmp(argv[*at], name) && (!letter || strcmp(argv[*at], letter))) || *at + 1 >= argc || !argv[*at + 1])
		return NULL;
	return argv[++*at];
}

static bool is_flag(const char *arg, const char *name, const char *letter)
{
	return !strcmp(arg, name) || (letter && !strcmp(arg, letter));
}

/* POST (or another method) on each named object; prints the name of each that worked. */
static int each(struct cli *cli, const char *method, const char *prefix, const char *suffix, int n, char **names)
{
	struct err err = ERR_INIT;
	int status = 0;

	for (int i = 0; i < n; i++) {
		CLEAN_FREE char *path = cli_path(prefix, names[i], suffix);

		if (!path || client_json(&cli->client, method, path, NULL, NULL, &err) < 0)
			status = cli_fail(&err);
		else
			(void)puts(names[i]);
	}
	return status;
}

static int verb_stop(struct cli *cli, int argc, char **argv)
{
	const char *value, *signal = NULL, *seconds = NULL;
	CLEAN_FREE char *suffix = NULL;
	int at;

	for (at = 1; at < argc && argv[at][0] == '-'; at++) {
		if ((value = option(argc, argv, &at, "--time", "-t")) ||
		    (value = option(argc, argv, &at, "--timeout", NULL)))
			seconds = value;
		else if ((value = option(argc, argv, &at, "--signal", "-s")))
			signal = value;
		else
			return cli_usage_error(self(argv[0]), "unknown flag: %s", argv[at]);
	}
	if (at >= argc)
		return cli_usage_error(self(argv[0]), "a container is needed");
	if (asprintf(&suffix, "/%s?%s%s%s%s", argv[0], seconds ? "t=" : "", seconds ? seconds : "",
		     signal ? "&signal=" : "", signal ? signal : "") < 0)
		return EXIT_ENGINE;
	return each(cli, "POST", "/containers/", suffix, argc - at, argv + at);
}

static int verb_kill(struct cli *cli, int argc, char **argv)
{
	const char *value, *signal = "KILL";
	CLEAN_FREE char *suffix = NULL;
	int at;

	for (at = 1; at < argc && argv[at][0] == '-'; at++) {
		value = option(argc, argv, &at, "--signal", "-s");
		if (!value)
			return cli_usage_error(self("kill"), "unknown flag: %s", argv[at]);
		signal = value;
	}
	if (at >= argc)
		return cli_usage_error(self("kill"), "a container is needed");
	if (asprintf(&suffix, "/kill?signal=%s", signal) < 0)
		return EXIT_ENGINE;
	return each(cli, "POST", "/containers/", suffix, argc - at, argv + at);
}

static int verb_pause(struct cli *cli, int argc, char **argv)
{
	if (argc < 2)
		return cli_usage_error(self(argv[0]), "a container is needed");
	return each(cli, "POST", "/containers/", argv[0][0] == 'p' ? "/pause" : "/unpause", argc - 1, argv + 1);
}

static int verb_rm(struct cli *cli, int argc, char **argv)
{
	bool force = false;
	int at;

	for (at = 1; at < argc && argv[at][0] == '-'; at++) {
		if (is_flag(argv[at], "--force", "-f"))
			force = true;
		else if (!is_flag(argv[at], "--volumes", "-v"))
			return cli_usage_error(self("rm"), "unknown flag: %s", argv[at]);
	}
	if (at >= argc)
		return cli_usage_error(self("rm"), "a container is needed");
	return each(cli, "DELETE", "/containers/", force ? "?force=1" : "", argc - at, argv + at);
}

static int verb_rename(struct cli *cli, int argc, char **argv)
{
	CLEAN_FREE char *encoded = argc == 3 ? url_encode(argv[2]) : NULL;
	CLEAN_FREE char *path = NULL;
	struct err err = ERR_INIT;

	if (argc != 3)
		return cli_usage_error(self("rename"), "a container and its new name are needed");
	if (!encoded || asprintf(&path, "/containers/%s/rename?name=%s", argv[1], encoded) < 0)
		return EXIT_ENGINE;
	return client_json(&cli->client, "POST", path, NULL, NULL, &err) < 0 ? cli_fail(&err) : 0;
}

static int verb_rmi(struct cli *cli, int argc, char **argv)
{
	struct err err = ERR_INIT;
	bool force = false;
	int at, status = 0;

	for (at = 1; at < argc && argv[at][0] == '-'; at++) {
		if (!is_flag(argv[at], "--force", "-f"))
			return cli_usage_error(self("rmi"), "unknown flag: %s", argv[at]);
		force = true;
	}
	if (at >= argc)
		return cli_usage_error(self("rmi"), "an image is needed");
	for (; at < argc; at++) {
		CLEAN_FREE char *path = cli_path("/images/", argv[at], force ? "?force=1" : "");
		CLEAN_JSON json_t *answer = NULL;
		json_t *line;
		size_t i;

		if (!path || client_json(&cli->client, "DELETE", path, NULL, &answer, &err) < 0) {
			status = cli_fail(&err);
			continue;
		}
		json_array_foreach(answer, i, line) {
			const char *untagged = json_str(line, "Untagged", NULL);

			(void)printf("%s: %s\n", untagged ? "Untagged" : "Deleted",
				     untagged ? untagged : json_str(line, "Deleted", ""));
		}
	}
	return status;
}

static int verb_tag(struct cli *cli, int argc, char **argv)
{
	CLEAN_FREE char *repo = argc == 3 ? strdup(argv[2]) : NULL;
	CLEAN_FREE char *source = NULL;
	CLEAN_FREE char *path = NULL;
	struct err err = ERR_INIT;
	char *colon, *slash;

	if (argc != 3)
		return cli_usage_error(self("tag"), "a source and a target are needed");
	source = url_encode(argv[1]);
	slash = repo ? strrchr(repo, '/') : NULL;
	colon = repo ? strchr(slash ? slash : repo, ':') : NULL;
	if (colon)
		*colon = '\0';
	if (!repo || !source ||
	    asprintf(&path, "/images/%s/tag?repo=%s&tag=%s", source, repo, colon ? colon + 1 : "latest") < 0)
		return EXIT_ENGINE;
	return client_json(&cli->client, "POST", path, NULL, NULL, &err) < 0 ? cli_fail(&err) : 0;
}

/* "3 minutes ago" for a time in seconds since 1970. */
static void ago(int64_t when, char *out, size_t size)
{
	static const struct {
		int64_t seconds;
		const char *unit;
	} units[] = { { 31536000, "year" }, { 2592000, "month" }, { 604800, "week" }, { 86400, "day" },
		      { 3600, "hour" },     { 60, "minute" },     { 1, "second" } };
	int64_t past = (int64_t)time(NULL) - when, n;

	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		n = past / units[i].seconds;
		if (n < 1)
			continue;
		(void)snprintf(out, size, "%lld %s%s ago", (long long)n, units[i].unit, n == 1 ? "" : "s");
		return;
	}
	(void)snprintf(out, size, "Less than a second ago");
}

static void human_size(int64_t bytes, char *out, size_t size)
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB" };
	double n = (double)bytes;
	size_t u = 0;

	while (n >= 1000 && u + 1 < ARRAY_LEN(units)) {
		n /= 1000;
		u++;
	}
	(void)snprintf(out, size, n < 10 && u ? "%.3g%s" : "%.3g%s", n, units[u]);
}

/* Characters of UTF-8 @text. */
static size_t text_width(const char *text)
{
	size_t n = 0;

	for (; text && *text; text++)
		n += (*text & 0xc0) != 0x80;
	return n;
}

/* Columns as wide as their widest cell, three spaces apart (Docker's lists). @rows: arrays of strings. */
static void print_table(const json_t *rows)
{
	size_t width[8] = { 0 }, r, c, n;
	json_t *row, *cell;

	json_array_foreach(rows, r, row)
		json_array_foreach(row, c, cell) {
			n = text_width(json_string_value(cell));
			if (c < ARRAY_LEN(width) && n > width[c])
				width[c] = n;
		}
	json_array_foreach(rows, r, row) {
		json_array_foreach(row, c, cell) {
			const char *text = json_string_value(cell);

			(void)fputs(text, stdout);
			if (c + 1 < json_array_size(row))
				(void)printf("%*s", (int)(width[c % ARRAY_LEN(width)] - text_width(text)) + 3, "");
		}
		(void)putchar('\n');
	}
}

/* Return: 0 or -1. */
static int add_row(json_t *rows, json_t *row)
{
	return row ? json_array_append_new(rows, row) : -1;
}

static int container_row(json_t *rows, const json_t *c, bool whole)
{
	const char *id = json_str(c, "Id", ""), *full = json_str(c, "Command", ""), *name;
	char created[64], command[64];
	size_t n = 0;

	ago(json_int(c, "Created", 0), created, sizeof(created));
	name = json_string_value(json_array_get(json_object_get(c, "Names"), 0));
	/* 19 characters at most, and never half of one. */
	while (full[n] && text_width(full) > 20 && n < 19)
		n++;
	while (n && (full[n] & 0xc0) == 0x80)
		n--;
	if (n && !whole)
		(void)snprintf(command, sizeof(command), "\"%.*s…\"", (int)n, full);
	else
		(void)snprintf(command, sizeof(command), "\"%.60s\"", full);
	return add_row(rows,
		       json_pack("[s#,s,s%,s,s,s]", id, (int)strnlen(id, whole ? 64 : 12), json_str(c, "Image", ""),
				 command, strlen(command), created, json_str(c, "Status", ""), name ? name + 1 : ""));
}

/* {"key":{"value":true}} for repeated --filter key=value. */
static int add_filter(json_t *filters, const char *pair)
{
	const char *at = strchr(pair, '=');
	CLEAN_FREE char *key = at ? strndup(pair, (size_t)(at - pair)) : NULL;
	json_t *values;

	if (!key)
		return -EINVAL;
	values = json_object_get(filters, key);
	if (!values) {
		values = json_object();
		if (json_object_set_new(filters, key, values) < 0)
			return -ENOMEM;
	}
	return json_object_set_new(values, at + 1, json_true());
}

static int verb_ps(struct cli *cli, int argc, char **argv)
{
	bool all = false, quiet = false, whole = false, json = false;
	CLEAN_JSON json_t *filters = json_object();
	CLEAN_JSON json_t *rows = json_array();
	CLEAN_JSON json_t *list = NULL;
	CLEAN_FREE char *text = NULL;
	CLEAN_FREE char *encoded = NULL;
	CLEAN_FREE char *path = NULL;
	struct err err = ERR_INIT;
	const char *value;
	json_t *c;
	size_t i;

	for (int at = 1; at < argc; at++) {
		if (is_flag(argv[at], "-aq", "-qa"))
			all = quiet = true;
		else if (is_flag(argv[at], "--all", "-a"))
			all = true;
		else if (is_flag(argv[at], "--quiet", "-q"))
			quiet = true;
		else if (is_flag(argv[at], "--no-trunc", NULL))
			whole = true;
		else if ((value = option(argc, argv, &at, "--filter", "-f"))) {
			if (add_filter(filters, value) < 0)
				return cli_usage_error(self("ps"), "a filter is KEY=VALUE, not '%s'", value);
		} else if ((value = option(argc, argv, &at, "--format", NULL)) && !strcmp(value, "json"))
			json = true;
		else
			return cli_usage_error(self("ps"), "unknown flag, or one that is not built yet: %s", argv[at]);
	}
	text = json_text(filters);
	encoded = text ? url_encode(text) : NULL;
	if (!encoded || asprintf(&path, "/containers/json?all=%d&filters=%s", all, encoded) < 0)
		return EXIT_ENGINE;
	if (client_json(&cli->client, "GET", path, NULL, &list, &err) < 0)
		return cli_fail(&err);
	if (!quiet && !json &&
	    add_row(rows, json_pack("[s,s,s,s,s,s]", "CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES")))
		return EXIT_ENGINE;
	json_array_foreach(list, i, c) {
		CLEAN_FREE char *line = json ? json_text(c) : NULL;

		if (line)
			(void)puts(line);
		else if (quiet)
			(void)printf("%.*s\n", whole ? 64 : 12, json_str(c, "Id", ""));
		else if (container_row(rows, c, whole) < 0)
			return EXIT_ENGINE;
	}
	print_table(rows);
	return 0;
}

static void print_image(const json_t *image, const char *tag, bool quiet)
{
	const char *id = json_str(image, "Id", ""), *colon = strrchr(tag, ':');
	char created[64], size[32];

	if (!strncmp(id, "sha256:", 7))
		id += 7;
	if (quiet) {
		(void)printf("%.12s\n", id);
		return;
	}
	ago(json_int(image, "Created", 0), created, sizeof(created));
	human_size(json_int(image, "Size", 0), size, sizeof(size));
	(void)printf("%-24.*s %-16s %-14.12s %-20s %s\n", colon ? (int)(colon - tag) : (int)strlen(tag), tag,
		     colon ? colon + 1 : "<none>", id, created, size);
}

static int verb_images(struct cli *cli, int argc, char **argv)
{
	CLEAN_JSON json_t *list = NULL;
	struct err err = ERR_INIT;
	bool quiet = false;
	json_t *image, *tag, *tags;
	size_t i, k;

	for (int at = 1; at < argc; at++) {
		if (!is_flag(argv[at], "--quiet", "-q") && !is_flag(argv[at], "--all", "-a"))
			return cli_usage_error(self("images"), "unknown flag, or one that is not built yet: %s",
					       argv[at]);
		quiet |= is_flag(argv[at], "--quiet", "-q");
	}
	if (client_json(&cli->client, "GET", "/images/json", NULL, &list, &err) < 0)
		return cli_fail(&err);
	if (!quiet)
		(void)printf("%-24s %-16s %-14s %-20s %s\n", "REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE");
	json_array_foreach(list, i, image) {
		tags = json_object_get(image, "RepoTags");
		if (!json_array_size(tags))
			print_image(image, "<none>:<none>", quiet);
		json_array_foreach(tags, k, tag)
			print_image(image, json_string_value(tag), quiet);
	}
	return 0;
}

static int verb_history(struct cli *cli, int argc, char **argv)
{
	CLEAN_FREE char *path = argc == 2 ? cli_path("/images/", argv[1], "/history") : NULL;
	CLEAN_JSON json_t *list = NULL;
	struct err err = ERR_INIT;
	char created[64], size[32];
	const char *id;
	json_t *step;
	size_t i;

	if (!path)
		return cli_usage_error(self("history"), "an image is needed");
	if (client_json(&cli->client, "GET", path, NULL, &list, &err) < 0)
		return cli_fail(&err);
	(void)printf("%-14s %-20s %-46s %s\n", "IMAGE", "CREATED", "CREATED BY", "SIZE");
	json_array_foreach(list, i, step) {
		id = json_str(step, "Id", "<missing>");
		ago(json_int(step, "Created", 0), created, sizeof(created));
		human_size(json_int(step, "Size", 0), size, sizeof(size));
		(void)printf("%-14.12s %-20s %-46.45s %s\n", strncmp(id, "sha256:", 7) ? id : id + 7, created,
			     json_str(step, "CreatedBy", ""), size);
	}
	return 0;
}

static int verb_inspect(struct cli *cli, int argc, char **argv)
{
	CLEAN_JSON json_t *found = json_array();
	CLEAN_FREE char *text = NULL;
	struct err err = ERR_INIT;
	int status = 0;

	if (argc < 2)
		return cli_usage_error(self("inspect"), "a container or an image is needed");
	for (int i = 1; i < argc; i++) {
		CLEAN_FREE char *container = cli_path("/containers/", argv[i], "/json");
		CLEAN_FREE char *image = cli_path("/images/", argv[i], "/json");
		json_t *object = NULL;

		if (!container || !image)
			return EXIT_ENGINE;
		if (client_json(&cli->client, "GET", container, NULL, &object, &err) < 0 &&
		    client_json(&cli->client, "GET", image, NULL, &object, &err) < 0) {
			(void)fprintf(stderr, "walnut: no such object: %s\n", argv[i]);
			status = 1;
		} else if (json_array_append_new(found, object) < 0) {
			return EXIT_ENGINE;
		}
	}
	text = json_dumps(found, JSON_INDENT(4));
	if (text)
		(void)puts(text);
	return status;
}

static int verb_logs(struct cli *cli, int argc, char **argv)
{
	const char *value, *tail = "all", *since = "", *name = NULL;
	bool follow = false, times = false;
	CLEAN_FREE char *inspect_path = NULL;
	CLEAN_FREE char *path = NULL;
	CLEAN_JSON json_t *inspect = NULL;
	CLEAN_REPLY struct reply r = { .fd = -1 };
	struct err err = ERR_INIT;

	for (int at = 1; at < argc; at++) {
		if (is_flag(argv[at], "--follow", "-f"))
			follow = true;
		else if (is_flag(argv[at], "--timestamps", "-t"))
			times = true;
		else if ((value = option(argc, argv, &at, "--tail", "-n")))
			tail = value;
		else if ((value = option(argc, argv, &at, "--since", NULL)))
			since = value;
		else if (argv[at][0] == '-')
			return cli_usage_error(self("logs"), "unknown flag: %s", argv[at]);
		else
			name = argv[at];
	}
	if (!name)
		return cli_usage_error(self("logs"), "a container is needed");
	inspect_path = cli_path("/containers/", name, "/json");
	if (!inspect_path || client_json(&cli->client, "GET", inspect_path, NULL, &inspect, &err) < 0)
		return cli_fail(&err);
	if (asprintf(&path, "/containers/%s/logs?stdout=1&stderr=1&follow=%d&timestamps=%d&tail=%s&since=%s",
		     json_str(inspect, "Id", ""), follow, times, tail, since) < 0)
		return EXIT_ENGINE;
	if (client_send(&cli->client, "GET", path, NULL, -1, false, &r, &err) < 0)
		return cli_fail(&err);
	if (r.status >= 400 ? reply_error(&r, &err) < 0
			    : stream_frames(&r, json_bool(json_object_get(inspect, "Config"), "Tty", false), &err) < 0)
		return cli_fail(&err);
	return 0;
}

/* Prints a progress stream (one JSON object a line). Return: the exit status. */
static int print_progress(struct reply *r)
{
	CLEAN_BUF struct buf text = BUF_INIT;
	struct err err = ERR_INIT;
	char *line, *rest = NULL;
	int status = 0;

	if (r->status >= 400) {
		(void)reply_error(r, &err);
		return cli_fail(&err);
	}
	if (reply_all(r, &text, &err) < 0)
		return cli_fail(&err);
	for (line = strtok_r(buf_bytes(&text), "\r\n", &rest); line; line = strtok_r(NULL, "\r\n", &rest)) {
		CLEAN_JSON json_t *step = json_parse(line, strlen(line), "the engine's progress", &err);
		const char *problem = json_str(step, "error", NULL);

		if (problem) {
			(void)fprintf(stderr, "walnut: %s\n", problem);
			status = 1;
		} else if (json_object_get(step, "stream")) {
			(void)fputs(json_str(step, "stream", ""), stdout);
		} else if (!json_object_get(step, "progressDetail") && json_object_get(step, "status")) {
			(void)puts(json_str(step, "status", ""));
		}
	}
	return status;
}

static int verb_load(struct cli *cli, int argc, char **argv)
{
	const char *value, *input = NULL;
	CLEAN_REPLY struct reply r = { .fd = -1 };
	CLEAN_FD int fd = -1;
	struct err err = ERR_INIT;

	for (int at = 1; at < argc; at++) {
		if ((value = option(argc, argv, &at, "--input", "-i")))
			input = value;
		else if (!is_flag(argv[at], "--quiet", "-q"))
			return cli_usage_error(self("load"), "unknown flag: %s", argv[at]);
	}
	fd = input ? open(input, O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
	if (fd < 0) {
		(void)err_sys(&err, errno, "open %s", input ? input : "the standard input");
		return cli_fail(&err);
	}
	if (client_send(&cli->client, "POST", "/images/load?quiet=1", NULL, fd, false, &r, &err) < 0)
		return cli_fail(&err);
	return print_progress(&r);
}

static int verb_import(struct cli *cli, int argc, char **argv)
{
	CLEAN_REPLY struct reply r = { .fd = -1 };
	CLEAN_FREE char *repo = NULL;
	CLEAN_FREE char *path = NULL;
	CLEAN_FD int fd = -1;
	struct err err = ERR_INIT;
	char *colon;

	if (argc < 2 || argc > 3)
		return cli_usage_error(self("import"), "a file (or -) and at most one name are needed");
	repo = strdup(argc == 3 ? argv[2] : "");
	colon = repo ? strrchr(repo, ':') : NULL;
	if (colon && !strchr(colon, '/'))
		*colon = '\0';
	else
		colon = NULL;
	if (!repo || asprintf(&path, "/images/create?fromSrc=-&repo=%s&tag=%s", repo, colon ? colon + 1 : "") < 0)
		return EXIT_ENGINE;
	fd = strcmp(argv[1], "-") ? open(argv[1], O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
	if (fd < 0) {
		(void)err_sys(&err, errno, "open %s", argv[1]);
		return cli_fail(&err);
	}
	if (client_send(&cli->client, "POST", path, NULL, fd, false, &r, &err) < 0)
		return cli_fail(&err);
	return print_progress(&r);
}

static int verb_save(struct cli *cli, int argc, char **argv)
{
	CLEAN_BUF struct buf path = BUF_INIT;
	CLEAN_REPLY struct reply r = { .fd = -1 };
	CLEAN_FD int fd = -1;
	const char *value, *output = NULL;
	struct err err = ERR_INIT;
	char piece[65536];
	ssize_t got;
	int rc = buf_puts(&path, "/images/get"), named = 0;

	for (int at = 1; at < argc && !rc; at++) {
		if ((value = option(argc, argv, &at, "--output", "-o"))) {
			output = value;
		} else {
			CLEAN_FREE char *encoded = url_encode(argv[at]);

			rc = encoded ? buf_printf(&path, "%cnames=%s", named++ ? '&' : '?', encoded) : -ENOMEM;
		}
	}
	if (rc || !named)
		return cli_usage_error(self("save"), "an image is needed");
	if (!output && isatty(STDOUT_FILENO))
		return cli_usage_error(self("save"), "an archive is not written to a terminal: use -o or redirect");
	if (client_send(&cli->client, "GET", buf_bytes(&path), NULL, -1, false, &r, &err) < 0 ||
	    (r.status >= 400 && reply_error(&r, &err) < 0))
		return cli_fail(&err);
	fd = output ? open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : dup(STDOUT_FILENO);
	if (fd < 0) {
		(void)err_sys(&err, errno, "create %s", output ? output : "the output");
		return cli_fail(&err);
	}
	while ((got = reply_read(&r, piece, sizeof(piece), &err)) > 0) {
		rc = fd_write_full(fd, piece, (size_t)got);
		if (rc < 0) {
			(void)err_sys(&err, -rc, "write the archive");
			return cli_fail(&err);
		}
	}
	return got < 0 ? cli_fail(&err) : 0;
}

static int verb_events(struct cli *cli, int argc, char **argv)
{
	CLEAN_REPLY struct reply r = { .fd = -1 };
	struct err err = ERR_INIT;
	char piece[8192];
	ssize_t got;

	if (argc > 1)
		return cli_usage_error(self("events"), "unknown argument, or one that is not built yet: %s", argv[1]);
	if (client_send(&cli->client, "GET", "/events", NULL, -1, false, &r, &err) < 0 ||
	    (r.status >= 400 && reply_error(&r, &err) < 0))
		return cli_fail(&err);
	while ((got = reply_read(&r, piece, sizeof(piece), &err)) > 0)
		if (fd_write_full(STDOUT_FILENO, piece, (size_t)got) < 0)
			break;
	return got < 0 ? cli_fail(&err) : 0;
}

static int verb_version(struct cli *cli, int argc, char **argv)
{
	CLEAN_JSON json_t *v = NULL;
	struct err err = ERR_INIT;

	(void)argc;
	(void)argv;
	if (client_json(&cli->client, "GET", "/version", NULL, &v, &err) < 0)
		return cli_fail(&err);
	(void)printf(
		"Client:\n Version:      %s\n\nServer:\n Version:      %s\n API version:  %s (minimum version %s)\n"
		" Kernel:       %s\n OS/Arch:      %s/%s\n",
		WALNUT_VERSION, json_str(v, "Version", "?"), json_str(v, "ApiVersion", "?"),
		json_str(v, "MinAPIVersion", "?"), json_str(v, "KernelVersion", "?"), json_str(v, "Os", "?"),
		json_str(v, "Arch", "?"));
	return 0;
}

/* "name, name" of the strings in @list, after "@key: ". */
static void print_names(const char *key, const json_t *list)
{
	json_t *name;
	size_t i;

	(void)printf("%s:", key);
	json_array_foreach(list, i, name)
		(void)printf("%s %s", i ? "," : "", json_string_value(name));
	(void)puts(json_array_size(list) ? "" : " none");
}

/* What each controller that is absent takes away; the engine says which are there (Docker's members). */
static void print_missing(const json_t *info)
{
	static const struct {
		const char *member, *without;
	} needs[] = { { "MemoryLimit", "--memory" },
		      { "CpuCfsQuota", "--cpus" },
		      { "CPUShares", "--cpu-shares" },
		      { "CPUSet", "--cpuset-cpus" },
		      { "PidsLimit", "--pids-limit" } };

	for (size_t i = 0; i < ARRAY_LEN(needs); i++)
		if (!json_bool(info, needs[i].member, true))
			(void)printf(
				"WARNING: %s has no effect: this machine's kernel or its cgroup mounts lack the controller\n",
				needs[i].without);
}

/* The doctor: what runs where, by which means and why, and what is amiss. */
static void print_info(const json_t *info)
{
	const json_t *accelerator = json_object_get(info, "Accelerator");
	const char *kind = json_str(accelerator, "Name", "unknown"), *guest = json_str(accelerator, "Kernel", NULL);
	const char *text;
	char memory[32];
	json_t *warning;
	size_t i;

	human_size(json_int(info, "MemTotal", 0), memory, sizeof(memory));
	(void)printf("Client:\n Version: %s\n\nServer:\n", WALNUT_VERSION);
	(void)printf(" Server Version: %s\n", json_str(info, "ServerVersion", "?"));
	(void)printf(" Containers: %lld\n  Running: %lld\n  Paused: %lld\n  Stopped: %lld\n Images: %lld\n",
		     (long long)json_int(info, "Containers", 0), (long long)json_int(info, "ContainersRunning", 0),
		     (long long)json_int(info, "ContainersPaused", 0),
		     (long long)json_int(info, "ContainersStopped", 0), (long long)json_int(info, "Images", 0));
	(void)printf(" Default Isolation: %s\n", json_str(info, "Isolation", "?"));
	(void)printf(" Isolation process: namespaces on kernel %s\n", json_str(info, "KernelVersion", "?"));
	(void)printf(" Isolation hyperv: %s\n",
		     strcmp(kind, "none") ? "own kernel in a virtual machine" : "not available");
	(void)printf("  Accelerator: %s\n  Reason: %s\n", kind, json_str(accelerator, "Reason", "not said"));
	text = json_str(accelerator, "Qemu", "");
	if (*text)
		(void)printf("  QEMU: %s\n", text);
	if (guest)
		(void)printf("  Guest Kernel: %s\n", guest);
	(void)printf(" Storage Driver: %s\n Logging Driver: %s\n", json_str(info, "Driver", "?"),
		     json_str(info, "LoggingDriver", "?"));
	(void)printf(" Cgroup Driver: %s\n Cgroup Version: %s\n", json_str(info, "CgroupDriver", "?"),
		     json_str(info, "CgroupVersion", "?"));
	print_names(" Security Options", json_object_get(info, "SecurityOptions"));
	(void)printf(" Kernel Version: %s\n Operating System: %s\n OSType: %s\n Architecture: %s\n",
		     json_str(info, "KernelVersion", "?"), json_str(info, "OperatingSystem", "?"),
		     json_str(info, "OSType", "?"), json_str(info, "Architecture", "?"));
	(void)printf(" CPUs: %lld\n Total Memory: %s\n Name: %s\n ID: %s\n Root Dir: %s\n",
		     (long long)json_int(info, "NCPU", 0), memory, json_str(info, "Name", "?"),
		     json_str(info, "ID", "?"), json_str(info, "DockerRootDir", "?"));
	print_missing(info);
	json_array_foreach(json_object_get(info, "Warnings"), i, warning)
		(void)puts(json_string_value(warning));
}

static int verb_info(struct cli *cli, int argc, char **argv)
{
	CLEAN_JSON json_t *info = NULL;
	CLEAN_FREE char *text = NULL;
	struct err err = ERR_INIT;

	if (argc > 1 && strcmp(argv[1], "--format=json"))
		return cli_usage_error(self("info"), "only --format=json is built");
	if (client_json(&cli->client, "GET", "/info", NULL, &info, &err) < 0)
		return cli_fail(&err);
	if (argc > 1) {
		text = json_text(info);
		(void)puts(text ? text : "");
		return 0;
	}
	print_info(info);
	return 0;
}

const struct cli_verb cli_object_verbs[] = {
	{ "ps", "[-a] [-q] [--no-trunc] [--filter KEY=VALUE] [--format json]", "List containers", verb_ps },
	{ "inspect", "NAME...", "Show all about containers or images, as JSON", verb_inspect },
	{ "logs", "[-f] [-t] [--tail N] [--since TIME] CONTAINER", "Fetch the logs of a container", verb_logs },
	{ "stop", "[-t SECONDS] [-s SIGNAL] CONTAINER...", "Stop running containers", verb_stop },
	{ "restart", "[-t SECONDS] [-s SIGNAL] CONTAINER...", "Restart containers", verb_stop },
	{ "kill", "[-s SIGNAL] CONTAINER...", "Kill running containers", verb_kill },
	{ "pause", "CONTAINER...", "Pause all processes of containers", verb_pause },
	{ "unpause", "CONTAINER...", "Unpause all processes of containers", verb_pause },
	{ "rename", "CONTAINER NEW_NAME", "Rename a container", verb_rename },
	{ "rm", "[-f] CONTAINER...", "Remove containers", verb_rm },
	{ "images", "[-q]", "List images", verb_images },
	{ "history", "IMAGE", "Show how an image was made", verb_history },
	{ "load", "[-i FILE]", "Load images from a docker or OCI archive", verb_load },
	{ "save", "[-o FILE] IMAGE...", "Save images to an archive", verb_save },
	{ "import", "FILE|- [NAME[:TAG]]", "Make an image from a root filesystem's tar", verb_import },
	{ "tag", "SOURCE TARGET", "Give an image another name", verb_tag },
	{ "rmi", "[-f] IMAGE...", "Remove images", verb_rmi },
	{ "events", "", "Print events as they happen, as JSON", verb_events },
	{ "version", "", "Show the versions of client and engine", verb_version },
	{ "info", "[--format=json]", "Show the engine's state: accelerator and why, kernels, cgroups", verb_info },
	{ 0 },
};
