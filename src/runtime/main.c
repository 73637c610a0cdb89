/* SPDX-License-Identifier: Apache-2.0 */
/* walnut-runtime's command line: options of all commands, the commands, where errors go. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "runtime/runtime.h"

static const struct runtime_command commands[] = {
	{ "create", "[options] ID", "create a container; its program waits for start", command_create, true },
	{ "start", "ID", "start the program of a created container", command_start, false },
	{ "run", "[options] ID", "create and start a container", command_run, true },
	{ "exec", "[options] ID COMMAND [ARG...]", "run a further program in a container", command_exec, true },
	{ "state", "ID", "print a container's state as JSON", command_state, false },
	{ "list", "[options]", "list the containers", command_list, false },
	{ "kill", "[options] ID [SIGNAL]", "send a signal (default SIGTERM) to a container's first process",
	  command_kill, false },
	{ "delete", "[options] ID", "remove a stopped container", command_delete, false },
	{ "ps", "[options] ID [PS OPTION...]", "list a container's processes", command_ps, false },
	{ "pause", "ID", "freeze a container's processes", command_pause, false },
	{ "resume", "ID", "let them run again", command_resume, false },
	{ "update", "[options] ID", "change a container's limits", command_update, false },
	{ "events", "[options] ID", "print a container's use of resources and its out-of-memory events", command_events,
	  false },
	{ "features", "", "print what this runtime supports as JSON", command_features, false },
	{ "spec", "[options]", "write a configuration to start from", command_spec, false },
	{ "checkpoint", "ID", "not supported", command_checkpoint, false },
	{ "restore", "ID", "not supported", command_checkpoint, false },
};

static void usage(FILE *out)
{
	(void)fprintf(out, "Usage: walnut-runtime [options] COMMAND [arguments]\n\nCommands:\n");
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		(void)fprintf(out, "  %-11s %s\n", commands[i].name, commands[i].summary);
	(void)fprintf(out, "\nOptions:\n"
			   "  --root DIR                 folder of the containers' state\n"
			   "  --log FILE                 where errors are written (default: standard error)\n"
			   "  --log-format text|json     in which form\n"
			   "  --log-level LEVEL          error, warning, info or debug\n"
			   "  --debug                    as --log-level debug\n"
			   "  --systemd-cgroup           as --cgroup-manager systemd\n"
			   "  --cgroup-manager MANAGER   cgroupfs, systemd or disabled\n"
			   "  --rootless true|false|auto accepted; found out without it\n"
			   "  -h, --help                 this text\n"
			   "  -v, --version              the version\n"
			   "\n\"walnut-runtime COMMAND --help\" describes a command.\n");
}

static void version(void)
{
	(void)printf("walnut-runtime version %s\nspec: 1.2.0\n+SELINUX +APPARMOR +CAP +SECCOMP +EBPF +JANSSON\n",
		     WALNUT_VERSION);
}

int command_usage(const char *name, struct err *err)
{
	const char *arguments = "";

	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			arguments = commands[i].arguments;
	return err_set(err, EINVAL, "usage: walnut-runtime %s %s", name, arguments);
}

int command_one_id(int argc, char **argv, const char **id, struct err *err)
{
	if (argc - optind < 1)
		return err_set(err, EINVAL, "%s: a container ID is required", argv[0]);
	if (argc - optind > 1)
		return err_set(err, EINVAL, "%s: one container ID is expected, but there is also '%s'", argv[0],
			       argv[optind + 1]);
	*id = argv[optind];
	return 0;
}

/* The message with what JSON and logrus' text form need escaped. */
static int append_escaped(struct buf *b, const char *text)
{
	int r = 0;

	for (; *text && r == 0; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			r = buf_printf(b, "\\%c", c);
		else if (c == '\n')
			r = buf_puts(b, "\\n");
		else if (c < 0x20)
			r = buf_printf(b, "\\u%04x", c);
		else
			r = buf_append(b, text, 1);
	}
	return r;
}

void runtime_log(const struct runtime_options *o, const char *level, const char *text)
{
	CLEAN_BUF struct buf line = BUF_INIT;
	CLEAN_FD int fd = -1;
	time_t now = time(NULL);
	struct tm tm;
	char when[40];

	if (!gmtime_r(&now, &tm) || !strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm))
		when[0] = 0;
	if (o->log)
		fd = open(o->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (buf_printf(&line, o->log_json ? "{\"level\":\"%s\",\"msg\":\"" : "time=\"%s\" level=%s msg=\"",
		       o->log_json ? level : when, level) < 0 ||
	    append_escaped(&line, text) < 0 ||
	    buf_printf(&line, o->log_json ? "\",\"time\":\"%s\"}\n" : "\"\n", when) < 0)
		return;
	if (o->log && fd >= 0 && fd_write_full(fd, buf_bytes(&line), line.len) < 0)
		close_fd(&fd);
	/* as runc: what went wrong is told on stderr too, in plain words when the log is elsewhere */
	if (o->log && strcmp(level, "error") == 0)
		(void)dprintf(STDERR_FILENO, "%s\n", text);
	else if (!o->log && fd_write_full(STDERR_FILENO, buf_bytes(&line), line.len) < 0)
		return;
}

void runtime_warn(const struct runtime_options *o, const char *fmt, ...)
{
	char text[ERR_MSG_SIZE];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (o->log)
		runtime_log(o, "warning", text);
}

static int parse_manager(const char *name, struct runtime_options *o, struct err *err)
{
	if (strcmp(name, "cgroupfs") == 0)
		o->manager = RUNTIME_CGROUPFS;
	else if (strcmp(name, "systemd") == 0)
		o->manager = RUNTIME_SYSTEMD;
	else if (strcmp(name, "disabled") == 0)
		o->manager = RUNTIME_CGROUP_DISABLED;
	else
		return err_set(err, EINVAL, "--cgroup-manager is '%s'; cgroupfs, systemd and disabled are known", name);
	return 0;
}

enum {
	OPTION_ROOT = 256,
	OPTION_LOG,
	OPTION_LOG_FORMAT,
	OPTION_LOG_LEVEL,
	OPTION_DEBUG,
	OPTION_SYSTEMD,
	OPTION_MANAGER,
	OPTION_IGNORED
};

static const struct option options[] = {
	{ "root", required_argument, NULL, OPTION_ROOT },
	{ "log", required_argument, NULL, OPTION_LOG },
	{ "log-format", required_argument, NULL, OPTION_LOG_FORMAT },
	{ "log-level", required_argument, NULL, OPTION_LOG_LEVEL },
	{ "debug", no_argument, NULL, OPTION_DEBUG },
	{ "systemd-cgroup", no_argument, NULL, OPTION_SYSTEMD },
	{ "cgroup-manager", required_argument, NULL, OPTION_MANAGER },
	{ "rootless", required_argument, NULL, OPTION_IGNORED },
	{ "criu", required_argument, NULL, OPTION_IGNORED },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'v' },
	{ 0 },
};

/* Return: 0 to go on, 1 when all is done, -EINVAL. */
static int parse_options(int argc, char **argv, struct runtime_options *o, struct err *err)
{
	int c, r = 0;

	opterr = 0;
	while (r == 0 && (c = getopt_long(argc, argv, "+hv", options, NULL)) >= 0) {
		switch (c) {
		case OPTION_ROOT: o->root = optarg; break;
		case OPTION_LOG: /* crun's form "file:PATH" too */
			o->log = strncmp(optarg, "file:", 5) == 0 ? optarg + 5 : *optarg ? optarg : NULL;
			break;
		case OPTION_LOG_FORMAT:
			o->log_json = strcmp(optarg, "json") == 0;
			if (!o->log_json && strcmp(optarg, "text") != 0)
				r = err_set(err, EINVAL, "--log-format is '%s'; text and json are known", optarg);
			break;
		case OPTION_LOG_LEVEL: o->debug = strcmp(optarg, "debug") == 0; break;
		case OPTION_DEBUG: o->debug = true; break;
		case OPTION_SYSTEMD: o->manager = RUNTIME_SYSTEMD; break;
		case OPTION_MANAGER: r = parse_manager(optarg, o, err); break;
		case OPTION_IGNORED: break;
		case 'h': usage(stdout); return 1;
		case 'v': version(); return 1;
		default:
			r = err_set(err, EINVAL, "unknown option '%s', or its value is missing; see --help",
				    argv[optind - 1]);
		}
	}
	return r;
}

static const char *default_root(char *path, size_t size)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");

	/* root of a user namespace that an ordinary user made may not write there */
	if (geteuid() == 0 && access("/run", W_OK) == 0)
		return "/run/walnut-runtime";
	if (runtime && *runtime == '/')
		(void)snprintf(path, size, "%s/walnut-runtime", runtime);
	else
		(void)snprintf(path, size, "/tmp/walnut-runtime-%u", geteuid());
	return path;
}

static int dispatch(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	int first = optind;

	if (first >= argc) {
		usage(stdout);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		const struct runtime_command *c = &commands[i];
		int r;

		if (strcmp(c->name, argv[first]) != 0)
			continue;
		if (argc > first + 1 &&
		    (strcmp(argv[first + 1], "--help") == 0 || strcmp(argv[first + 1], "-h") == 0)) {
			(void)printf("Usage: walnut-runtime %s %s\n\n%s\n\nThe options are described in "
				     "walnut-runtime(8).\n",
				     c->name, c->arguments, c->summary);
			return 0;
		}
		r = c->enters ? self_protect(argv, err) : 0;
		optind = 0; /* glibc: start again, on another vector */
		return r < 0 ? r : c->run(o, argc - first, argv + first, err);
	}
	if (strcmp(argv[first], "help") == 0) {
		usage(stdout);
		return 0;
	}
	return err_set(err, EINVAL, "unknown command '%s'; see --help", argv[first]);
}

int main(int argc, char **argv)
{
	struct runtime_options o = { 0 };
	struct err err = ERR_INIT;
	char root[4096];
	bool exec;
	int r;

	/* a descriptor 0 to 2 that is closed would be taken by a file of ours */
	while ((r = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && r <= 2)
		(void)fcntl(r, F_SETFD, 0);
	if (r > 2)
		(void)close(r);
	r = parse_options(argc, argv, &o, &err);
	if (r > 0)
		return 0;
	exec = r == 0 && optind < argc && strcmp(argv[optind], "exec") == 0;
	if (!o.root)
		o.root = default_root(root, sizeof(root));
	if (r == 0)
		r = dispatch(&o, argc, argv, &err);
	if (fflush(stdout) != 0 && r == 0)
		r = err_sys(&err, errno, "cannot write to standard output");
	if (r >= 0)
		return r;
	runtime_log(&o, "error", err.msg);
	/* runc-exec(8): 255 says that it was not the program that failed, which may well exit with 1 */
	return exec ? 255 : 1;
}
