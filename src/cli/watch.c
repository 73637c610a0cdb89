/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs that look into containers and at what they use, and that move files: top, stats, diff, export, cp, update, prune, df. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "cli/cli.h"

static const struct cli_verb *self(const char *name)
{
	for (const struct cli_verb *v = cli_watch_verbs; v->name; v++)
		if (!strcmp(v->name, name))
			return v;
	return &cli_watch_verbs[0];
}

static void human(int64_t bytes, char out[32])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double n = (double)bytes;
	size_t u = 0;

	for (; n >= 1024 && u < ARRAY_LEN(units) - 1; u++)
		n /= 1024;
	(void)snprintf(out, 32, "%.4g%s", n, units[u]);
}

static int verb_top(struct cli *cli, int argc, char **argv)
{
	CLEAN_BUF struct buf args = BUF_INIT;
	CLEAN_FREE char *encoded = NULL;
	CLEAN_FREE char *path = NULL;
	CLEAN_FREE char *suffix = NULL;
	CLEAN_JSON json_t *table = NULL;
	struct err err = ERR_INIT;
	json_t *row, *cell;
	size_t i, k;

	if (argc < 2)
		return cli_usage_error(self("top"), "a container is needed");
	for (int at = 2; at < argc; at++)
		(void)!buf_printf(&args, "%s%s", at > 2 ? " " : "", argv[at]);
	encoded = url_encode(buf_bytes(&args));
	if (!encoded || asprintf(&suffix, "/top%s%s", args.len ? "?ps_args=" : "", encoded) < 0) {
		suffix = NULL;
		return EXIT_ENGINE;
	}
	path = cli_path("/containers/", argv[1], suffix);
	if (!path || client_json(&cli->client, "GET", path, NULL, &table, &err) < 0)
		return cli_fail(&err);
	json_array_foreach(json_object_get(table, "Titles"), k, cell)
		(void)printf("%-12s", json_string_value(cell));
	(void)puts("");
	json_array_foreach(json_object_get(table, "Processes"), i, row) {
		json_array_foreach(row, k, cell)
			(void)printf("%-12s", json_string_value(cell));
		(void)puts("");
	}
	return 0;
}

static void print_stats(const json_t *s)
{
	const json_t *cpu = json_object_get(s, "cpu_stats"), *before = json_object_get(s, "precpu_stats");
	const json_t *memory = json_object_get(s, "memory_stats");
	int64_t used = json_int(json_object_get(cpu, "cpu_usage"), "total_usage", 0) -
		       json_int(json_object_get(before, "cpu_usage"), "total_usage", 0);
	int64_t passed = json_int(cpu, "system_cpu_usage", 0) - json_int(before, "system_cpu_usage", 0);
	double percent = passed > 0 ? (double)used / (double)passed * (double)json_int(cpu, "online_cpus", 1) * 100 : 0;
	const char *name = json_str(s, "name", "");
	char use[32], limit[32];

	human(json_int(memory, "usage", 0), use);
	human(json_int(memory, "limit", 0), limit);
	(void)printf("%-14.12s%-24s%6.2f%%   %10s / %-12s%lld\n", json_str(s, "id", ""), *name == '/' ? name + 1 : name,
		     percent, use, limit, (long long)json_int(json_object_get(s, "pids_stats"), "current", 0));
}

/* One sample of each container, or of those named. */
static int verb_stats(struct cli *cli, int argc, char **argv)
{
	CLEAN_JSON json_t *list = NULL;
	struct err err = ERR_INIT;
	json_t *c;
	size_t i;

	for (int at = 1; at < argc; at++)
		if (*argv[at] == '-' && strcmp(argv[at], "--no-stream"))
			return cli_usage_error(self("stats"), "unknown flag: %s", argv[at]);
	list = json_array();
	for (int at = 1; at < argc; at++)
		if (*argv[at] != '-')
			(void)json_array_append_new(list, json_pack("{s:s}", "Id", argv[at]));
	if (!json_array_size(list)) {
		json_decref(list);
		list = NULL;
		if (client_json(&cli->client, "GET", "/containers/json", NULL, &list, &err) < 0)
			return cli_fail(&err);
	}
	(void)printf("%-14s%-24s%7s   %10s / %-12s%s\n", "CONTAINER ID", "NAME", "CPU %", "MEM USAGE", "LIMIT", "PIDS");
	json_array_foreach(list, i, c) {
		CLEAN_FREE char *path = cli_path("/containers/", json_str(c, "Id", ""), "/stats?stream=0");
		CLEAN_JSON json_t *stats = NULL;

		if (!path || client_json(&cli->client, "GET", path, NULL, &stats, &err) < 0)
			return cli_fail(&err);
		print_stats(stats);
	}
	return 0;
}

static int verb_diff(struct cli *cli, int argc, char **argv)
{
	CLEAN_FREE char *path = argc == 2 ? cli_path("/containers/", argv[1], "/changes") : NULL;
	CLEAN_JSON json_t *list = NULL;
	struct err err = ERR_INIT;
	json_t *change;
	size_t i;

	if (!path)
		return cli_usage_error(self("diff"), "one container is needed");
	if (client_json(&cli->client, "GET", path, NULL, &list, &err) < 0)
		return cli_fail(&err);
	json_array_foreach(list, i, change)
		(void)printf("%c %s\n", "CAD"[json_int(change, "Kind", 0) % 3], json_str(change, "Path", ""));
	return 0;
}

/* An answer's body to a file or to standard output. */
static int fetch(struct cli *cli, const char *path, const char *output)
{
	CLEAN_REPLY struct reply r = { .fd = -1 };
	CLEAN_FD int fd = -1;
	struct err err = ERR_INIT;
	char piece[65536];
	ssize_t got;

	if (client_send(&cli->client, "GET", path, NULL, -1, false, &r, &err) < 0 ||
	    (r.status >= 400 && reply_error(&r, &err) < 0))
		return cli_fail(&err);
	fd = output ? open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : dup(STDOUT_FILENO);
	if (fd < 0) {
		(void)err_sys(&err, errno, "create %s", output ? output : "the output");
		return cli_fail(&err);
	}
	while ((got = reply_read(&r, piece, sizeof(piece), &err)) > 0) {
		int rc = fd_write_full(fd, piece, (size_t)got);

		if (rc < 0) {
			(void)err_sys(&err, -rc, "write the archive");
			return cli_fail(&err);
		}
	}
	return got < 0 ? cli_fail(&err) : 0;
}

static int verb_export(struct cli *cli, int argc, char **argv)
{
	const char *output = NULL, *name = NULL;

	for (int at = 1; at < argc; at++) {
		if ((!strcmp(argv[at], "-o") || !strcmp(argv[at], "--output")) && at + 1 < argc)
			output = argv[++at];
		else if (!strncmp(argv[at], "--output=", 9))
			output = argv[at] + 9;
		else if (*argv[at] == '-' || name)
			return cli_usage_error(self("export"), "unknown argument: %s", argv[at]);
		else
			name = argv[at];
	}
	CLEAN_FREE char *path = name ? cli_path("/containers/", name, "/export") : NULL;

	if (!path)
		return cli_usage_error(self("export"), "a container is needed");
	if (!output && isatty(STDOUT_FILENO))
		return cli_usage_error(self("export"), "an archive is not written to a terminal: use -o or redirect");
	return fetch(cli, path, output);
}

/* "CONTAINER:PATH" or NULL; *name is the caller's. */
static const char *split_remote(const char *text, char **name)
{
	const char *colon = strchr(text, ':');

	*name = colon && *text != '/' && *text != '.' ? strndup(text, (size_t)(colon - text)) : NULL;
	return *name ? colon + 1 : NULL;
}

/* Only archives: "-" on one side is a tar on standard input or output. */
static int verb_cp(struct cli *cli, int argc, char **argv)
{
	CLEAN_FREE char *from = NULL;
	CLEAN_FREE char *to = NULL;
	CLEAN_FREE char *encoded = NULL;
	CLEAN_FREE char *suffix = NULL;
	CLEAN_FREE char *path = NULL;
	CLEAN_REPLY struct reply r = { .fd = -1 };
	struct err err = ERR_INIT;

	if (argc != 3)
		return cli_usage_error(self("cp"), "a source and a target are needed");
	const char *source = split_remote(argv[1], &from), *target = split_remote(argv[2], &to);

	if (!(source && !strcmp(argv[2], "-")) && !(target && !strcmp(argv[1], "-")))
		return cli_usage_error(self("cp"),
				       "one side is CONTAINER:PATH, the other is - (a tar archive); copying files "
				       "directly is not built yet");
	encoded = url_encode(source ? source : target);
	if (!encoded || asprintf(&suffix, "/archive?path=%s", encoded) < 0) {
		suffix = NULL;
		return EXIT_ENGINE;
	}
	path = cli_path("/containers/", source ? from : to, suffix);
	if (!path)
		return EXIT_ENGINE;
	if (source)
		return fetch(cli, path, NULL);
	if (client_send(&cli->client, "PUT", path, NULL, STDIN_FILENO, false, &r, &err) < 0 ||
	    (r.status >= 400 && reply_error(&r, &err) < 0))
		return cli_fail(&err);
	return 0;
}

static int verb_prune(struct cli *cli, int argc, char **argv)
{
	CLEAN_JSON json_t *result = NULL;
	struct err err = ERR_INIT;
	char freed[32];
	json_t *id;
	size_t i;

	if (argc > 1)
		return cli_usage_error(self("prune"), "unknown argument: %s", argv[1]);
	if (client_json(&cli->client, "POST", "/containers/prune", NULL, &result, &err) < 0)
		return cli_fail(&err);
	json_array_foreach(json_object_get(result, "ContainersDeleted"), i, id)
		(void)puts(json_string_value(id));
	human(json_int(result, "SpaceReclaimed", 0), freed);
	(void)printf("Total reclaimed space: %s\n", freed);
	return 0;
}

static int verb_df(struct cli *cli, int argc, char **argv)
{
	CLEAN_JSON json_t *df = NULL;
	struct err err = ERR_INIT;
	int64_t size = 0, active = 0;
	char layers[32], writable[32];
	json_t *c;
	size_t i;

	if (argc > 1)
		return cli_usage_error(self("df"), "unknown argument: %s", argv[1]);
	if (client_json(&cli->client, "GET", "/system/df", NULL, &df, &err) < 0)
		return cli_fail(&err);
	json_array_foreach(json_object_get(df, "Containers"), i, c) {
		size += json_int(c, "SizeRw", 0);
		active += !strcmp(json_str(c, "State", ""), "running");
	}
	human(json_int(df, "LayersSize", 0), layers);
	human(size, writable);
	(void)printf("%-14s%-8s%-8s%s\n", "TYPE", "TOTAL", "ACTIVE", "SIZE");
	(void)printf("%-14s%-8zu%-8s%s\n", "Images", json_array_size(json_object_get(df, "Images")), "", layers);
	(void)printf("%-14s%-8zu%-8lld%s\n", "Containers", json_array_size(json_object_get(df, "Containers")),
		     (long long)active, writable);
	return 0;
}

const struct cli_verb cli_watch_verbs[] = {
	{ "top", "CONTAINER [PS_OPTIONS]", "Show the processes of a container", verb_top },
	{ "stats", "[--no-stream] [CONTAINER...]", "Show what containers use: processor, memory, processes; one sample",
	  verb_stats },
	{ "diff", "CONTAINER", "Show what a container changed in its files", verb_diff },
	{ "export", "[-o FILE] CONTAINER", "Write a container's files as a tar archive", verb_export },
	{ "cp", "CONTAINER:PATH - | - CONTAINER:PATH", "Copy files out of or into a container, as a tar archive",
	  verb_cp },
	{ "prune", "", "Remove all containers that do not run", verb_prune },
	{ "df", "", "Show how much of the disk images and containers use", verb_df },
	{ 0 },
};
