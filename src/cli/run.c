/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs that start programs: run, create, start, exec, wait. Flags are a table:
 * each names the member of Docker's create body that it fills and how.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/cli.h"
#include "cli/stream.h"

enum flag_kind {
	FLAG_BOOL,    /* member = true */
	FLAG_STRING,  /* member = value */
	FLAG_INT,     /* member = integer value */
	FLAG_BYTES,   /* member = "64m" in bytes */
	FLAG_CPUS,    /* member = "1.5" in billionths */
	FLAG_LIST,    /* member (array) += value */
	FLAG_MAP,     /* member (object): KEY=VALUE */
	FLAG_TMPFS,   /* member (object): PATH[:OPTIONS] */
	FLAG_ULIMIT,  /* member (array) += {Name, Soft, Hard} */
	FLAG_ARGV,    /* member = [value] */
	FLAG_RESTART, /* member = {Name, MaximumRetryCount} */
	FLAG_OURS,    /* read by the verb */
};

struct flag {
	const char *name;
	char letter;
	enum flag_kind kind;
	bool host; /* in HostConfig */
	const char *member;
	const char *help; /* "VALUE|what it does" */
};

static const struct flag run_flags[] = {
	{ "add-host", 0, FLAG_LIST, true, "ExtraHosts", "NAME:ADDRESS|A line for /etc/hosts" },
	{ "cap-add", 0, FLAG_LIST, true, "CapAdd", "CAPABILITY|Give a capability, or ALL" },
	{ "cap-drop", 0, FLAG_LIST, true, "CapDrop", "CAPABILITY|Take a capability away, or ALL" },
	{ "cpu-shares", 'c', FLAG_INT, true, "CpuShares", "N|Relative share of the processors" },
	{ "cpus", 0, FLAG_CPUS, true, "NanoCpus", "N|Processors at most, such as 1.5" },
	{ "cpuset-cpus", 0, FLAG_STRING, true, "CpusetCpus", "LIST|Processors to run on, such as 0-2" },
	{ "detach", 'd', FLAG_OURS, false, "detach", "|Run in the background, print the id" },
	{ "detach-keys", 0, FLAG_OURS, false, "detach-keys", "KEYS|Keys that detach from a terminal (ctrl-p,ctrl-q)" },
	{ "domainname", 0, FLAG_STRING, false, "Domainname", "NAME|The container's NIS domain name" },
	{ "entrypoint", 0, FLAG_ARGV, false, "Entrypoint", "PROGRAM|Run this instead of the image's entrypoint" },
	{ "env", 'e', FLAG_LIST, false, "Env",
	  "NAME=VALUE|Set an environment variable; NAME alone takes it from here" },
	{ "hostname", 'h', FLAG_STRING, false, "Hostname", "NAME|The container's host name" },
	{ "init", 0, FLAG_BOOL, true, "Init", "|Run an init that reaps processes and forwards signals" },
	{ "interactive", 'i', FLAG_BOOL, false, "OpenStdin", "|Keep standard input open" },
	{ "isolation", 0, FLAG_STRING, true, "Isolation",
	  "KIND|process (this kernel) or hyperv (its own virtual machine)" },
	{ "label", 'l', FLAG_MAP, false, "Labels", "KEY=VALUE|Set a label" },
	{ "memory", 'm', FLAG_BYTES, true, "Memory", "SIZE|Memory at most, such as 512m" },
	{ "memory-swap", 0, FLAG_BYTES, true, "MemorySwap", "SIZE|Memory and swap at most; -1: any swap" },
	{ "name", 0, FLAG_OURS, false, "name", "NAME|The container's name" },
	{ "network", 0, FLAG_STRING, true, "NetworkMode", "NAME|none, bridge, host or container:NAME" },
	{ "pids-limit", 0, FLAG_INT, true, "PidsLimit", "N|Processes at most" },
	{ "privileged", 0, FLAG_BOOL, true, "Privileged", "|All capabilities and devices" },
	{ "read-only", 0, FLAG_BOOL, true, "ReadonlyRootfs", "|Mount the root filesystem read-only" },
	{ "restart", 0, FLAG_RESTART, true, "RestartPolicy", "POLICY|no, on-failure[:N], always or unless-stopped" },
	{ "rm", 0, FLAG_BOOL, true, "AutoRemove", "|Remove the container when it ends" },
	{ "security-opt", 0, FLAG_LIST, true, "SecurityOpt", "OPTION|no-new-privileges, seccomp=unconfined, ..." },
	{ "shm-size", 0, FLAG_BYTES, true, "ShmSize", "SIZE|Size of /dev/shm (64m)" },
	{ "stop-signal", 0, FLAG_STRING, false, "StopSignal", "SIGNAL|What stop sends first (SIGTERM)" },
	{ "stop-timeout", 0, FLAG_INT, false, "StopTimeout", "SECONDS|How long stop waits before SIGKILL (10)" },
	{ "storage-opt", 0, FLAG_MAP, true, "StorageOpt", "KEY=VALUE|size=SIZE: the writable disk (hyperv)" },
	{ "sysctl", 0, FLAG_MAP, true, "Sysctls", "KEY=VALUE|A kernel parameter of the container's namespaces" },
	{ "tmpfs", 0, FLAG_TMPFS, true, "Tmpfs", "PATH[:OPTIONS]|Mount a tmpfs" },
	{ "tty", 't', FLAG_BOOL, false, "Tty", "|Give the program a terminal" },
	{ "ulimit", 0, FLAG_ULIMIT, true, "Ulimits", "NAME=SOFT[:HARD]|A resource limit, such as nofile=1024" },
	{ "user", 'u', FLAG_STRING, false, "User", "NAME|User and group: NAME or ID[:GROUP]" },
	{ "workdir", 'w', FLAG_STRING, false, "WorkingDir", "PATH|The program's working folder" },
	{ 0 },
};

static const struct flag exec_flags[] = {
	{ "detach", 'd', FLAG_OURS, false, "detach", "|Run in the background, print the id" },
	{ "detach-keys", 0, FLAG_STRING, false, "DetachKeys", "KEYS|Keys that detach from a terminal (ctrl-p,ctrl-q)" },
	{ "env", 'e', FLAG_LIST, false, "Env",
	  "NAME=VALUE|Set an environment variable; NAME alone takes it from here" },
	{ "interactive", 'i', FLAG_BOOL, false, "AttachStdin", "|Keep standard input open" },
	{ "privileged", 0, FLAG_BOOL, false, "Privileged", "|All capabilities and devices" },
	{ "tty", 't', FLAG_BOOL, false, "Tty", "|Give the program a terminal" },
	{ "user", 'u', FLAG_STRING, false, "User", "NAME|User and group: NAME or ID[:GROUP]" },
	{ "workdir", 'w', FLAG_STRING, false, "WorkingDir", "PATH|The program's working folder" },
	{ 0 },
};

static const struct flag attach_flags[] = {
	{ "detach-keys", 0, FLAG_OURS, false, "detach-keys", "KEYS|Keys that detach from a terminal (ctrl-p,ctrl-q)" },
	{ "no-stdin", 0, FLAG_OURS, false, "no-stdin", "|Do not attach standard input" },
	{ 0 },
};

static const struct flag start_flags[] = {
	{ "attach", 'a', FLAG_OURS, false, "attach", "|Attach to its output" },
	{ "interactive", 'i', FLAG_OURS, false, "interactive", "|Keep standard input open" },
	{ 0 },
};

/* "64m", "1g", "512": bytes, or -1 when it is not a size. */
static int64_t parse_bytes(const char *text)
{
	char *end;
	double n = strtod(text, &end);
	static const char units[] = "bkmgt";
	const char *u = *end ? strchr(units, *end | 32) : units;

	if (end == text || !u || (*end && end[1] && strcmp(end + 1, "b") && strcmp(end + 1, "B")) || n < -1)
		return INT64_MIN;
	return (int64_t)ldexp(n, (int)(u - units) * 10);
}

static json_t *member_of(json_t *object, const char *key, json_t *(*make)(void))
{
	json_t *m = json_object_get(object, key);

	if (m)
		return m;
	m = make();
	return json_object_set_new(object, key, m) < 0 ? NULL : m;
}

static int set_ulimit(json_t *into, const char *member, const char *value)
{
	char name[32];
	long long soft, hard;
	int n = sscanf(value, "%31[^=]=%lld:%lld", name, &soft, &hard);

	if (n < 2)
		return -EINVAL;
	return json_array_append_new(member_of(into, member, json_array),
				     json_pack("{s:s, s:I, s:I}", "Name", name, "Soft", (json_int_t)soft, "Hard",
					       (json_int_t)(n == 3 ? hard : soft)));
}

static int set_pair(json_t *into, const char *member, const char *value, char separator, const char *otherwise)
{
	const char *at = strchr(value, separator);
	CLEAN_FREE char *key = at ? strndup(value, (size_t)(at - value)) : strdup(value);

	if (!key)
		return -ENOMEM;
	return json_object_set_new(member_of(into, member, json_object), key, json_string(at ? at + 1 : otherwise));
}

static int set_env(json_t *into, const char *member, const char *value)
{
	CLEAN_FREE char *pair = NULL;
	const char *from_host;

	if (strchr(value, '='))
		return json_array_append_new(member_of(into, member, json_array), json_string(value));
	from_host = getenv(value);
	if (!from_host)
		return 0;
	if (asprintf(&pair, "%s=%s", value, from_host) < 0)
		return -ENOMEM;
	return json_array_append_new(member_of(into, member, json_array), json_string(pair));
}

static int set_restart(json_t *into, const char *member, const char *value)
{
	const char *colon = strchr(value, ':');

	return json_object_set_new(into, member,
				   json_pack("{s:s#, s:i}", "Name", value,
					     colon ? (size_t)(colon - value) : strlen(value), "MaximumRetryCount",
					     colon ? atoi(colon + 1) : 0));
}

static int set_number(json_t *into, const struct flag *f, const char *value)
{
	char none[] = "", *end = none;
	int64_t n;

	if (f->kind == FLAG_BYTES)
		n = parse_bytes(value);
	else if (f->kind == FLAG_CPUS)
		n = (int64_t)llround(strtod(value, &end) * 1e9);
	else
		n = strtoll(value, &end, 10);
	if (n == INT64_MIN || !*value || *end)
		return -EINVAL;
	return json_object_set_new(into, f->member, json_integer(n));
}

static int apply_flag(const struct flag *f, const char *value, json_t *body, json_t *ours)
{
	json_t *into = f->kind == FLAG_OURS ? ours : f->host ? member_of(body, "HostConfig", json_object) : body;

	switch (f->kind) {
	case FLAG_BOOL: return json_object_set_new(into, f->member, json_boolean(!value || strcmp(value, "false")));
	case FLAG_STRING:
	case FLAG_OURS: return json_object_set_new(into, f->member, json_string(value ? value : ""));
	case FLAG_INT:
	case FLAG_BYTES:
	case FLAG_CPUS: return set_number(into, f, value);
	case FLAG_LIST:
		if (!strcmp(f->member, "Env"))
			return set_env(into, f->member, value);
		return json_array_append_new(member_of(into, f->member, json_array), json_string(value));
	case FLAG_MAP: return set_pair(into, f->member, value, '=', "");
	case FLAG_TMPFS: return set_pair(into, f->member, value, ':', "");
	case FLAG_ULIMIT: return set_ulimit(into, f->member, value);
	case FLAG_ARGV: return json_object_set_new(into, f->member, json_pack("[s]", value));
	case FLAG_RESTART: return set_restart(into, f->member, value);
	}
	return -EINVAL;
}

static bool takes_value(const struct flag *f)
{
	return !(f->kind == FLAG_BOOL ||
		 (f->kind == FLAG_OURS && strcmp(f->member, "name") && strcmp(f->member, "detach-keys")));
}

static const struct flag *find_long(const struct flag *flags, const char *name, size_t len)
{
	for (; flags->name; flags++)
		if (strlen(flags->name) == len && !strncmp(flags->name, name, len))
			return flags;
	return NULL;
}

static const struct flag *find_letter(const struct flag *flags, char letter)
{
	for (; flags->name; flags++)
		if (flags->letter == letter)
			return flags;
	return NULL;
}

/* Short flags in one argument: "-it", "-eA=b". */
static int parse_letters(const struct cli_verb *verb, const struct flag *flags, char **argv, int *at, int argc,
			 json_t *body, json_t *ours)
{
	const char *letters = argv[*at] + 1, *value;
	const struct flag *f;

	for (; *letters; letters++) {
		f = find_letter(flags, *letters);
		if (!f)
			return cli_usage_error(verb, "unknown shorthand flag: '%c' in %s", *letters, argv[*at]);
		if (!takes_value(f)) {
			if (apply_flag(f, NULL, body, ours) < 0)
				return cli_usage_error(verb, "no memory");
			continue;
		}
		value = letters[1] == '=' ? letters + 2 : letters + 1;
		if (!*value) {
			if (++*at >= argc)
				return cli_usage_error(verb, "flag needs an argument: -%c", *letters);
			value = argv[*at];
		}
		if (apply_flag(f, value, body, ours) < 0)
			return cli_usage_error(verb, "invalid argument \"%s\" for -%c", value, f->letter);
		return 0;
	}
	return 0;
}

/* Parses flags up to the first argument. Return: its index, or -(exit status). */
static int parse_flags(const struct cli_verb *verb, const struct flag *flags, int argc, char **argv, json_t *body,
		       json_t *ours)
{
	const char *name, *value;
	const struct flag *f;
	int at, status;

	for (at = 1; at < argc && argv[at][0] == '-' && argv[at][1]; at++) {
		if (!strcmp(argv[at], "--"))
			return at + 1;
		if (argv[at][1] != '-') {
			status = parse_letters(verb, flags, argv, &at, argc, body, ours);
			if (status)
				return -status;
			continue;
		}
		name = argv[at] + 2;
		f = find_long(flags, name, strcspn(name, "="));
		if (!f && !strcmp(name, "net"))
			f = find_long(flags, "network", 7);
		if (!f)
			return -cli_usage_error(verb, "unknown flag, or one that is not built yet: %s", argv[at]);
		value = strchr(name, '=');
		value = value ? value + 1 : NULL;
		if (!value && takes_value(f)) {
			if (++at >= argc)
				return -cli_usage_error(verb, "flag needs an argument: --%s", f->name);
			value = argv[at];
		}
		if (apply_flag(f, value, body, ours) < 0)
			return -cli_usage_error(verb, "invalid argument \"%s\" for --%s", value ? value : "", f->name);
	}
	return at;
}

static json_t *string_array(char **argv, int n)
{
	json_t *a = json_array();

	for (int i = 0; i < n; i++)
		if (json_array_append_new(a, json_string(argv[i])) < 0) {
			json_decref(a);
			return NULL;
		}
	return a;
}

/* As docker does, with all that is shown of it on standard error: standard output is the container's. */
static bool pull_missing(struct cli *cli, const char *image)
{
	CLEAN_FD int out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	int status;

	(void)fprintf(stderr, "Unable to find image '%s' locally\n", image);
	(void)fflush(stdout);
	if (out < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		return false;
	status = cli_pull(cli, image, NULL, false, false);
	(void)fflush(stdout);
	(void)dup2(out, STDOUT_FILENO);
	return status == 0;
}

/* Creates the container. Return: its id (free) or NULL. */
static char *create(struct cli *cli, const char *name, const json_t *body, struct err *err)
{
	CLEAN_FREE char *path = name ? cli_path("/containers/create?name=", name, "") : strdup("/containers/create");
	CLEAN_JSON json_t *answer = NULL;
	size_t i;
	json_t *warning;

	if (!path) {
		(void)err_sys(err, ENOMEM, "create the container");
		return NULL;
	}
	if (client_json(&cli->client, "POST", path, body, &answer, err) < 0) {
		if (strncmp(err->msg, "No such image", 13) != 0 || !pull_missing(cli, json_str(body, "Image", "")))
			return NULL;
		*err = ERR_INIT;
		if (client_json(&cli->client, "POST", path, body, &answer, err) < 0)
			return NULL;
	}
	json_array_foreach(json_object_get(answer, "Warnings"), i, warning)
		(void)fprintf(stderr, "WARNING: %s\n", json_string_value(warning));
	return strdup(json_str(answer, "Id", ""));
}

static int wait_status(struct reply *wait, struct err *err)
{
	CLEAN_BUF struct buf text = BUF_INIT;
	CLEAN_JSON json_t *answer = NULL;

	if (wait->status >= 400)
		return reply_error(wait, err);
	if (reply_all(wait, &text, err) < 0)
		return -err->code;
	answer = json_parse(buf_bytes(&text), text.len, "the engine's answer", err);
	return answer ? (int)json_int(answer, "StatusCode", EXIT_ENGINE) : -err->code;
}

/* Docker's exit statuses for a container that could not be started. */
static int start_failure(struct cli *cli, const char *id, const json_t *body, const struct err *err)
{
	CLEAN_FREE char *path = cli_path("/containers/", id, "?force=1");
	struct err ignored;

	(void)cli_fail(err);
	/* The engine removes it by itself too: who comes second is told that it is gone already. */
	if (path && json_bool(json_object_get(body, "HostConfig"), "AutoRemove", false) &&
	    client_json(&cli->client, "DELETE", path, NULL, NULL, &ignored) < 0)
		ignored = ERR_INIT;
	if (strstr(err->msg, "executable file not found") || strstr(err->msg, "no such file or directory"))
		return 127;
	if (strstr(err->msg, "permission denied"))
		return 126;
	return EXIT_ENGINE;
}

static bool still_running(struct cli *cli, const char *id)
{
	CLEAN_FREE char *path = cli_path("/containers/", id, "/json");
	CLEAN_JSON json_t *now = NULL;
	struct err ignored = ERR_INIT;
	const struct timespec grace = { .tv_nsec = 200000000 };

	/* An exit is recorded a moment after its last output. */
	(void)nanosleep(&grace, NULL);
	if (!path || client_json(&cli->client, "GET", path, NULL, &now, &ignored) < 0)
		return false;
	return json_bool(json_object_get(now, "State"), "Running", false);
}

/*
 * Attach, start it (unless it runs already), carry its streams. Return: its exit status, or -errno.
 * @start: start it; @keys: detach keys or NULL.
 */
static int session_run(struct cli *cli, const char *id, const json_t *body, bool start_it, bool want_stdin,
		       const char *keys, struct err *err)
{
	bool stdin_open = want_stdin && json_bool(body, "OpenStdin", false), tty = json_bool(body, "Tty", false);
	bool remove = json_bool(json_object_get(body, "HostConfig"), "AutoRemove", false);
	CLEAN_FREE char *encoded = url_encode(keys ? keys : "");
	CLEAN_FREE char *query = NULL;
	CLEAN_FREE char *attach = NULL;
	CLEAN_FREE char *wait = cli_path("/containers/", id,
					 remove     ? "/wait?condition=removed"
					 : start_it ? "/wait?condition=next-exit"
						    : "/wait");
	CLEAN_FREE char *start = cli_path("/containers/", id, "/start");
	CLEAN_FREE char *resize = cli_path("/containers/", id, "/resize");
	CLEAN_REPLY struct reply session = { .fd = -1 };
	CLEAN_REPLY struct reply waiting = { .fd = -1 };
	struct stream_options o = { stdin_open, tty, tty ? resize : NULL, &cli->client };
	int rc;

	if (!encoded || asprintf(&query, "/attach?stream=1&stdout=1&stderr=1%s%s%s", stdin_open ? "&stdin=1" : "",
				 keys ? "&detachKeys=" : "", encoded) < 0)
		return err_sys(err, ENOMEM, "run the container");
	attach = cli_path("/containers/", id, query);
	if (!attach || !wait || !start || !resize)
		return err_sys(err, ENOMEM, "run the container");
	if (client_send(&cli->client, "POST", attach, NULL, -1, true, &session, err) < 0)
		return -err->code;
	if (session.status >= 400)
		return reply_error(&session, err);
	/* The wait is asked for before the start, and its answer's head comes at once: no exit is missed. */
	if (client_send(&cli->client, "POST", wait, NULL, -1, false, &waiting, err) < 0)
		return -err->code;
	if (start_it && client_json(&cli->client, "POST", start, NULL, NULL, err) < 0)
		return start_failure(cli, id, body, err);
	if (tty)
		stream_resize(&cli->client, resize);
	rc = stream_session(&session, &o, err);
	if (rc < 0)
		return rc;
	/* The stream ended but the container runs: the user typed the detach keys. */
	if (tty && stdin_open && still_running(cli, id))
		return 0;
	return wait_status(&waiting, err);
}

static int create_or_run(struct cli *cli, int argc, char **argv, bool run)
{
	const struct cli_verb *verb = &cli_run_verbs[run ? 0 : 1];
	CLEAN_JSON json_t *body = json_object();
	CLEAN_JSON json_t *ours = json_object();
	CLEAN_FREE char *id = NULL;
	CLEAN_FREE char *start = NULL;
	struct err err = ERR_INIT;
	bool detach;
	int at = parse_flags(verb, run_flags, argc, argv, body, ours), status;

	if (at < 0)
		return -at;
	if (at >= argc)
		return cli_usage_error(verb, "an image is needed");
	detach = json_object_get(ours, "detach") != NULL;
	if (json_object_set_new(body, "Image", json_string(argv[at])) < 0 ||
	    (at + 1 < argc && json_object_set_new(body, "Cmd", string_array(argv + at + 1, argc - at - 1)) < 0) ||
	    json_object_set_new(body, "AttachStdout", json_boolean(!detach)) < 0 ||
	    json_object_set_new(body, "AttachStderr", json_boolean(!detach)) < 0 ||
	    (json_bool(body, "OpenStdin", false) && !detach &&
	     (json_object_set_new(body, "StdinOnce", json_true()) < 0 ||
	      json_object_set_new(body, "AttachStdin", json_true()) < 0)))
		return cli_usage_error(verb, "the arguments are not UTF-8");
	id = create(cli, json_str(ours, "name", NULL), body, &err);
	if (!id) {
		(void)cli_fail(&err);
		return EXIT_ENGINE;
	}
	if (!run) {
		(void)puts(id);
		return 0;
	}
	if (!detach) {
		status = session_run(cli, id, body, true, true, json_str(ours, "detach-keys", NULL), &err);
		if (status < 0)
			(void)cli_fail(&err);
		return status < 0 ? EXIT_ENGINE : status;
	}
	start = cli_path("/containers/", id, "/start");
	if (!start)
		return EXIT_ENGINE;
	if (client_json(&cli->client, "POST", start, NULL, NULL, &err) < 0)
		return start_failure(cli, id, body, &err);
	(void)puts(id);
	return 0;
}

static int verb_run(struct cli *cli, int argc, char **argv)
{
	return create_or_run(cli, argc, argv, true);
}

static int verb_create(struct cli *cli, int argc, char **argv)
{
	return create_or_run(cli, argc, argv, false);
}

static int verb_start(struct cli *cli, int argc, char **argv)
{
	CLEAN_JSON json_t *body = json_object();
	CLEAN_JSON json_t *ours = json_object();
	struct err err = ERR_INIT;
	int at = parse_flags(&cli_run_verbs[2], start_flags, argc, argv, body, ours), status = 0;

	if (at < 0)
		return -at;
	if (at >= argc)
		return cli_usage_error(&cli_run_verbs[2], "a container is needed");
	if (json_object_get(ours, "attach") || json_object_get(ours, "interactive")) {
		CLEAN_FREE char *path = cli_path("/containers/", argv[at], "/json");
		CLEAN_JSON json_t *inspect = NULL;

		if (!path || client_json(&cli->client, "GET", path, NULL, &inspect, &err) < 0)
			return cli_fail(&err);
		status = session_run(cli, argv[at], json_object_get(inspect, "Config"), true,
				     json_object_get(ours, "interactive") != NULL, NULL, &err);
		if (status < 0)
			(void)cli_fail(&err);
		return status < 0 ? EXIT_ENGINE : status;
	}
	for (; at < argc; at++) {
		CLEAN_FREE char *path = cli_path("/containers/", argv[at], "/start");

		if (!path || client_json(&cli->client, "POST", path, NULL, NULL, &err) < 0)
			status = cli_fail(&err);
		else
			(void)puts(argv[at]);
	}
	return status;
}

static int exec_status(struct cli *cli, const char *id, struct err *err)
{
	CLEAN_FREE char *path = cli_path("/exec/", id, "/json");
	CLEAN_JSON json_t *answer = NULL;

	if (!path)
		return err_sys(err, ENOMEM, "exec");
	if (client_json(&cli->client, "GET", path, NULL, &answer, err) < 0)
		return -err->code;
	return (int)json_int(answer, "ExitCode", 0);
}

static int exec_session(struct cli *cli, const char *id, const json_t *body, bool detach, struct err *err)
{
	bool tty = json_bool(body, "Tty", false);
	CLEAN_FREE char *path = cli_path("/exec/", id, "/start");
	CLEAN_FREE char *resize = cli_path("/exec/", id, "/resize");
	CLEAN_JSON json_t *start = json_pack("{s:b, s:b}", "Detach", detach, "Tty", tty);
	CLEAN_REPLY struct reply session = { .fd = -1 };
	struct stream_options o = { json_bool(body, "AttachStdin", false), tty, tty ? resize : NULL, &cli->client };

	if (!path || !resize || !start)
		return err_sys(err, ENOMEM, "exec");
	if (detach)
		return client_json(&cli->client, "POST", path, start, NULL, err);
	if (client_send(&cli->client, "POST", path, start, -1, true, &session, err) < 0)
		return -err->code;
	if (session.status >= 400)
		return reply_error(&session, err);
	if (tty)
		stream_resize(&cli->client, resize);
	if (stream_session(&session, &o, err) < 0)
		return -err->code;
	return exec_status(cli, id, err);
}

static int verb_exec(struct cli *cli, int argc, char **argv)
{
	const struct cli_verb *verb = &cli_run_verbs[3];
	CLEAN_JSON json_t *body = json_object();
	CLEAN_JSON json_t *ours = json_object();
	CLEAN_JSON json_t *answer = NULL;
	CLEAN_FREE char *path = NULL;
	struct err err = ERR_INIT;
	int at = parse_flags(verb, exec_flags, argc, argv, body, ours), status;
	bool detach;

	if (at < 0)
		return -at;
	if (at + 1 >= argc)
		return cli_usage_error(verb, "a container and a command are needed");
	detach = json_object_get(ours, "detach") != NULL;
	path = cli_path("/containers/", argv[at], "/exec");
	if (!path || json_object_set_new(body, "Cmd", string_array(argv + at + 1, argc - at - 1)) < 0 ||
	    json_object_set_new(body, "AttachStdout", json_boolean(!detach)) < 0 ||
	    json_object_set_new(body, "AttachStderr", json_boolean(!detach)) < 0)
		return cli_usage_error(verb, "the arguments are not UTF-8");
	if (client_json(&cli->client, "POST", path, body, &answer, &err) < 0)
		return cli_fail(&err);
	status = exec_session(cli, json_str(answer, "Id", ""), body, detach, &err);
	if (status >= 0)
		return status;
	(void)cli_fail(&err);
	return strstr(err.msg, "executable file not found") ? 127 : strstr(err.msg, "permission denied") ? 126 : 1;
}

static int verb_attach(struct cli *cli, int argc, char **argv)
{
	const struct cli_verb *verb = &cli_run_verbs[5];
	CLEAN_JSON json_t *inspect = NULL;
	CLEAN_JSON json_t *body = json_object();
	CLEAN_JSON json_t *ours = json_object();
	CLEAN_FREE char *path = NULL;
	struct err err = ERR_INIT;
	int at = parse_flags(verb, attach_flags, argc, argv, body, ours), status;
	const json_t *state;

	if (at < 0)
		return -at;
	if (at + 1 != argc)
		return cli_usage_error(verb, "one container is needed");
	path = cli_path("/containers/", argv[at], "/json");
	if (!path || client_json(&cli->client, "GET", path, NULL, &inspect, &err) < 0)
		return cli_fail(&err);
	state = json_object_get(inspect, "State");
	if (!json_bool(state, "Running", false)) {
		(void)fprintf(stderr, "walnut: cannot attach to a stopped container: start it first\n");
		return 1;
	}
	status = session_run(cli, argv[at], json_object_get(inspect, "Config"), false,
			     !json_object_get(ours, "no-stdin"), json_str(ours, "detach-keys", NULL), &err);
	if (status < 0)
		(void)cli_fail(&err);
	return status < 0 ? 1 : status;
}

static int verb_wait(struct cli *cli, int argc, char **argv)
{
	struct err err = ERR_INIT;
	int status = 0, code;

	if (argc < 2)
		return cli_usage_error(&cli_run_verbs[4], "a container is needed");
	for (int i = 1; i < argc; i++) {
		CLEAN_FREE char *path = cli_path("/containers/", argv[i], "/wait");
		CLEAN_REPLY struct reply r = { .fd = -1 };

		if (!path || client_send(&cli->client, "POST", path, NULL, -1, false, &r, &err) < 0 ||
		    (code = wait_status(&r, &err)) < 0)
			status = cli_fail(&err);
		else
			(void)printf("%d\n", code);
	}
	return status;
}

void cli_run_flags(const char *verb, FILE *out)
{
	static const struct {
		const char *verb;
		const struct flag *flags;
	} tables[] = { { "run", run_flags },
		       { "create", run_flags },
		       { "exec", exec_flags },
		       { "attach", attach_flags },
		       { "start", start_flags } };
	const struct flag *f = NULL;

	for (size_t i = 0; i < ARRAY_LEN(tables); i++)
		if (!strcmp(tables[i].verb, verb))
			f = tables[i].flags;
	if (f)
		(void)fputs("\nFlags:\n", out);
	for (; f && f->name; f++) {
		const char *bar = strchr(f->help, '|');
		char left[64];

		(void)snprintf(left, sizeof(left), "%c%c%c --%s%s%.*s", f->letter ? '-' : ' ',
			       f->letter ? f->letter : ' ', f->letter ? ',' : ' ', f->name, bar > f->help ? " " : "",
			       (int)(bar - f->help), f->help);
		(void)fprintf(out, "  %-32s %s\n", left, bar + 1);
	}
}

const struct cli_verb cli_run_verbs[] = {
	{ "run", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image", verb_run },
	{ "create", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", verb_create },
	{ "start", "[-a] [-i] CONTAINER...", "Start stopped containers", verb_start },
	{ "exec", "[OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container", verb_exec },
	{ "wait", "CONTAINER...", "Block until containers stop, then print their exit codes", verb_wait },
	{ "attach", "[--no-stdin] [--detach-keys KEYS] CONTAINER", "Attach to a running container", verb_attach },
	{ 0 },
};
