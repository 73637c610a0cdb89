/* SPDX-License-Identifier: Apache-2.0 */
/* What is done to a container that exists: state, list, kill, delete, ps, pause, resume. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pwd.h>
#include <regex.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "runtime/runtime.h"

static const struct option no_options[] = { { 0 } };

static int only_id(int argc, char **argv, const char **id, struct err *err)
{
	if (getopt_long(argc, argv, "", no_options, NULL) >= 0)
		return command_usage(argv[0], err);
	return command_one_id(argc, argv, id, err);
}

static int print_json(json_t *json, struct err *err)
{
	int r = json ? json_dumpf(json, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : -1;

	json_decref(json);
	if (r < 0)
		return err_set(err, ENOMEM, "cannot write the JSON document");
	(void)putchar('\n');
	return 0;
}

int command_state(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	CLEAN_STATE struct state s = { .dir = -1, .root = -1 };
	const char *id = NULL;
	int r = only_id(argc, argv, &id, err);

	if (r == 0)
		r = state_open(&s, o, id, err);
	return r < 0 ? r : print_json(state_document(&s), err);
}

static void print_row(const struct state *s, const json_t *d)
{
	struct stat st;
	char owner[64] = "";

	/* by number where the name is not known: a static program has no other name services than the file */
	if (fstat(s->dir, &st) == 0)
		(void)snprintf(owner, sizeof(owner), st.st_uid == 0 ? "root" : "#%u", st.st_uid);
	(void)printf("%-11s %-11lld %-11s %-23s %-29s %s\n", s->id, (long long)json_int(d, "pid", 0),
		     json_str(d, "status", ""), s->bundle, json_str(d, "created", ""), owner);
}

enum list_format { LIST_TABLE, LIST_JSON, LIST_QUIET };

static int list_one(const struct runtime_options *o, const char *id, enum list_format format, json_t *all)
{
	CLEAN_STATE struct state s = { .dir = -1, .root = -1 };
	CLEAN_JSON json_t *d = NULL;
	struct err ignored = ERR_INIT;

	if (format == LIST_QUIET) {
		(void)printf("%s\n", id);
		return 0;
	}
	/* a container that is being created or removed is not listed */
	if (state_open(&s, o, id, &ignored) < 0)
		return 0;
	d = state_document(&s);
	if (!d)
		return -ENOMEM;
	if (format == LIST_JSON)
		return json_array_append(all, d);
	print_row(&s, d);
	return 0;
}

static int is_container(const struct dirent *e)
{
	return e->d_name[0] != '.' && (e->d_type == DT_DIR || e->d_type == DT_UNKNOWN);
}

int command_list(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	static const struct option options[] = { { "format", required_argument, NULL, 'f' },
						 { "quiet", no_argument, NULL, 'q' },
						 { 0 } };
	enum list_format format = LIST_TABLE;
	struct dirent **entries = NULL;
	CLEAN_JSON json_t *all = json_array();
	int c, n, r = 0;

	while ((c = getopt_long(argc, argv, "f:q", options, NULL)) >= 0) {
		if (c == 'q')
			format = LIST_QUIET;
		else if (c == 'f' && strcmp(optarg, "json") == 0)
			format = LIST_JSON;
		else if (c != 'f')
			return command_usage(argv[0], err);
		else if (strcmp(optarg, "table") != 0)
			return err_set(err, EINVAL, "list: invalid format option '%s'; table and json are known",
				       optarg);
	}
	n = scandir(o->root, &entries, is_container, alphasort);
	if (n < 0 && errno != ENOENT)
		return err_sys(err, errno, "cannot list %s", o->root);
	if (format == LIST_TABLE)
		(void)printf("%-11s %-11s %-11s %-23s %-29s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER");
	for (int i = 0; i < n; i++) {
		if (r == 0)
			r = list_one(o, entries[i]->d_name, format, all);
		free(entries[i]);
	}
	free((void *)entries);
	if (r < 0)
		return err_set(err, ENOMEM, "out of memory");
	if (format == LIST_JSON) {
		/* one line, and "null" for none: as runc */
		if (json_dumpf(n > 0 ? all : json_null(), stdout, JSON_COMPACT | JSON_ENCODE_ANY) < 0)
			return err_set(err, ENOMEM, "cannot write the JSON document");
		(void)putchar('\n');
	}
	return 0;
}

static int parse_signal(const char *text, int *sig, struct err *err)
{
	const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
	char *end;
	long n;

	if (isdigit((unsigned char)*text)) {
		n = strtol(text, &end, 10);
		if (*end || n < 0 || n > SIGRTMAX)
			return err_set(err, EINVAL, "kill: unknown signal '%s'", text);
		*sig = (int)n;
		return 0;
	}
	for (int i = 1; i < 32; i++)
		if (sigabbrev_np(i) && strcasecmp(sigabbrev_np(i), name) == 0) {
			*sig = i;
			return 0;
		}
	if (strcasecmp(name, "IOT") == 0 || strcasecmp(name, "CLD") == 0 || strcasecmp(name, "POLL") == 0) {
		*sig = strcasecmp(name, "IOT") == 0 ? SIGABRT : strcasecmp(name, "CLD") == 0 ? SIGCHLD : SIGIO;
		return 0;
	}
	/* the kernel's numbers: the C library keeps the first two for itself, so SIGRTMIN here is its 34 */
	if (strncasecmp(name, "RTMIN", 5) == 0 || strncasecmp(name, "RTMAX", 5) == 0) {
		n = name[5] ? strtol(name + 5, &end, 10) : 0;
		n += strncasecmp(name, "RTMIN", 5) == 0 ? SIGRTMIN : SIGRTMAX;
		if ((!name[5] || !*end) && n >= SIGRTMIN && n <= SIGRTMAX) {
			*sig = (int)n;
			return 0;
		}
	}
	return err_set(err, EINVAL, "kill: unknown signal '%s'", text);
}

static int open_container(const struct state *s, struct container **out, struct err *err)
{
	struct container_config config;

	state_config(s, NULL, &config);
	return container_open(out, &config, s->pid, err);
}

static int kill_container(const struct state *s, int sig, bool all, struct err *err)
{
	struct container *c = NULL;
	enum state_status status = state_status(s);
	int r;

	if (status == STATE_STOPPED && !all)
		return err_set(err, ESRCH, "container not running: %s is stopped", s->id);
	r = open_container(s, &c, err);
	if (r == 0)
		r = all ? container_signal_all(c, sig, err) : container_signal(c, sig, err);
	/* a frozen process of version 1 dies when it thaws */
	if (r == 0 && sig == SIGKILL && status == STATE_PAUSED)
		r = container_pause(c, false, err);
	container_detach(c);
	return r;
}

int command_kill(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	static const struct option options[] = { { "all", no_argument, NULL, 'a' },
						 { "regex", no_argument, NULL, 'r' },
						 { 0 } };
	CLEAN_STATE struct state s = { .dir = -1, .root = -1 };
	bool all = false;
	int c, r, sig = SIGTERM;

	while ((c = getopt_long(argc, argv, "a", options, NULL)) >= 0) {
		if (c != 'a')
			return command_usage(argv[0], err);
		all = true;
	}
	if (argc - optind < 1)
		return err_set(err, EINVAL, "kill: a container ID is required");
	if (argc - optind > 2)
		return err_set(err, EINVAL, "kill: there are too many arguments: '%s'", argv[optind + 2]);
	if (argc - optind == 2 && (r = parse_signal(argv[optind + 1], &sig, err)) < 0)
		return r;
	r = state_open(&s, o, argv[optind], err);
	return r < 0 ? r : kill_container(&s, sig, all, err);
}

static int destroy(const struct runtime_options *o, struct state *s, struct err *err)
{
	CLEAN(cleanup_oci_spec) struct oci_spec *spec = NULL;
	struct container_config config;
	struct container *c = NULL;
	struct err hook = ERR_INIT;
	int r = s->has_poststop ? state_spec(s, &spec, err) : 0;

	if (r < 0)
		return r;
	r = open_container(s, &c, err);
	if (r < 0)
		return r;
	r = container_destroy(c, err);
	if (r < 0)
		return r;
	if (spec) {
		state_config(s, spec, &config);
		/* a hook that fails is told and does not keep the container alive (runtime.md, lifecycle) */
		if (container_run_hooks(&config, OCI_HOOK_POSTSTOP, "stopped", 0, &hook) < 0)
			runtime_log(o, "warning", hook.msg);
	}
	return state_remove(s, err);
}

static int delete_one(const struct runtime_options *o, const char *id, bool force, struct err *err)
{
	CLEAN_STATE struct state s = { .dir = -1, .root = -1 };
	enum state_status status;
	int r = state_open(&s, o, id, err);

	if (r == -ENOENT && s.dir < 0)
		return force ? 0 : r;
	if (r < 0)
		return force && s.dir >= 0 ? state_remove(&s, err) : r;
	status = state_status(&s);
	if (status != STATE_STOPPED && status != STATE_CREATED && !force)
		return err_set(err, EBUSY, "cannot delete container %s that is not stopped: %s", id,
			       state_status_name(status));
	return destroy(o, &s, err);
}

static int delete_matching(const struct runtime_options *o, const char *pattern, bool force, struct err *err)
{
	struct dirent **entries = NULL;
	regex_t regex;
	int n, r = 0;

	if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB) != 0)
		return err_set(err, EINVAL, "delete: '%s' is not a regular expression", pattern);
	n = scandir(o->root, &entries, is_container, alphasort);
	for (int i = 0; i < n; i++) {
		if (r == 0 && regexec(&regex, entries[i]->d_name, 0, NULL, 0) == 0)
			r = delete_one(o, entries[i]->d_name, force, err);
		free(entries[i]);
	}
	free((void *)entries);
	regfree(&regex);
	return r;
}

int command_delete(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	static const struct option options[] = { { "force", no_argument, NULL, 'f' },
						 { "regex", no_argument, NULL, 'r' },
						 { 0 } };
	bool force = false, regex = false;
	const char *id = NULL;
	int c, r;

	while ((c = getopt_long(argc, argv, "f", options, NULL)) >= 0) {
		if (c != 'f' && c != 'r')
			return command_usage(argv[0], err);
		force |= c == 'f';
		regex |= c == 'r';
	}
	r = command_one_id(argc, argv, &id, err);
	if (r < 0)
		return r;
	return regex ? delete_matching(o, id, force, err) : delete_one(o, id, force, err);
}

static int freeze(const struct runtime_options *o, int argc, char **argv, bool paused, struct err *err)
{
	CLEAN_STATE struct state s = { .dir = -1, .root = -1 };
	struct container *c = NULL;
	enum state_status status;
	const char *id = NULL;
	int r = only_id(argc, argv, &id, err);

	if (r < 0 || (r = state_open(&s, o, id, err)) < 0)
		return r;
	status = state_status(&s);
	if (paused ? status != STATE_RUNNING && status != STATE_CREATED : status != STATE_PAUSED)
		return err_set(err, EINVAL,
			       paused ? "container not running: %s is %s" : "container not paused: %s is %s", id,
			       state_status_name(status));
	r = open_container(&s, &c, err);
	if (r == 0)
		r = container_pause(c, paused, err);
	container_detach(c);
	return r;
}

int command_pause(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	return freeze(o, argc, argv, true, err);
}

int command_resume(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	return freeze(o, argc, argv, false, err);
}

static bool has_pid(const pid_t *pids, size_t n, long pid)
{
	for (size_t i = 0; i < n; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

/* ps(1)'s lines of @pids: its column "PID" is found by the heading. */
static int print_ps(char **args, const pid_t *pids, size_t n, struct err *err)
{
	int pipe_[2], status = 0, column = -1;
	CLEAN_FREE char *line = NULL;
	CLEAN_FILE FILE *in = NULL;
	size_t size = 0;
	pid_t child;

	if (pipe2(pipe_, O_CLOEXEC) < 0)
		return err_sys(err, errno, "cannot make a pipe");
	child = fork();
	if (child == 0) {
		if (dup2(pipe_[1], STDOUT_FILENO) >= 0)
			(void)execvp("ps", args);
		_exit(127);
	}
	(void)close(pipe_[1]);
	in = fdopen(pipe_[0], "r");
	if (child < 0 || !in)
		return err_sys(err, errno, "cannot run ps");
	while (getline(&line, &size, in) > 0) {
		CLEAN_FREE char *copy = strdup(line);
		char *save = NULL, *word = copy ? strtok_r(copy, " \t\n", &save) : NULL;
		bool heading = column < 0;

		for (int i = 0; word; i++, word = strtok_r(NULL, " \t\n", &save)) {
			if (heading && strcmp(word, "PID") == 0)
				column = i;
			else if (!heading && i == column && !has_pid(pids, n, strtol(word, NULL, 10)))
				line[0] = 0;
		}
		if (column < 0)
			return err_set(err, EINVAL, "ps: couldn't find PID field in ps output");
		(void)fputs(line, stdout);
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : err_set(err, EIO, "ps: the program ps failed");
}

static int print_pids(const pid_t *pids, size_t n, struct err *err)
{
	(void)putchar('[');
	for (size_t i = 0; i < n; i++)
		(void)printf("%s%d", i ? "," : "", pids[i]);
	(void)printf("]\n");
	return 0;
}

int command_ps(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	static const struct option options[] = { { "format", required_argument, NULL, 'f' }, { 0 } };
	static char *usual[] = { (char *)"ps", (char *)"-ef", NULL };
	CLEAN_STATE struct state s = { .dir = -1, .root = -1 };
	struct container *c = NULL;
	CLEAN_FREE pid_t *pids = NULL;
	bool json = false;
	size_t n = 0;
	int option, r;

	while ((option = getopt_long(argc, argv, "+f:", options, NULL)) >= 0) {
		if (option != 'f')
			return command_usage(argv[0], err);
		json = strcmp(optarg, "json") == 0;
		if (!json && strcmp(optarg, "table") != 0)
			return err_set(err, EINVAL, "ps: invalid format option '%s'; table and json are known", optarg);
	}
	if (optind >= argc)
		return err_set(err, EINVAL, "ps: a container ID is required");
	r = state_open(&s, o, argv[optind], err);
	if (r == 0)
		r = open_container(&s, &c, err);
	if (r == 0)
		r = container_pids(c, &pids, &n, err);
	container_detach(c);
	if (r < 0)
		return r;
	if (json)
		return print_pids(pids, n, err);
	argv[optind] = usual[0];
	return print_ps(optind + 1 < argc ? argv + optind : usual, pids, n, err);
}

int command_checkpoint(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	return err_set(err, ENOTSUP, "%s is not supported by walnut-runtime", argv[0]);
}
