/* SPDX-License-Identifier: Apache-2.0 */
/* walnut: the command line for machines without Docker's client. Same verbs, same flags, same output. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define DEFAULT_SOCKET "/run/walnut/walnut.sock"
#define ENGINE_LOG     "/run/walnut/walnutd.log"

static const struct cli_verb *const tables[] = { cli_run_verbs, cli_object_verbs, cli_registry_verbs, cli_watch_verbs };

int cli_fail(const struct err *err)
{
	(void)fprintf(stderr, "walnut: %s\n", err->msg);
	return 1;
}

int cli_usage_error(const struct cli_verb *verb, const char *fmt, ...)
{
	va_list ap;

	(void)fprintf(stderr, "walnut %s: ", verb->name);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fprintf(stderr, "\nUsage: walnut %s %s\nSee 'walnut help %s'.\n", verb->name, verb->arguments,
		      verb->name);
	return EXIT_ENGINE;
}

char *cli_path(const char *prefix, const char *name, const char *suffix)
{
	CLEAN_FREE char *encoded = url_encode(name);
	char *path;

	if (!encoded || asprintf(&path, "%s%s%s", prefix, encoded, suffix) < 0)
		return NULL;
	return path;
}

static void print_help(FILE *out)
{
	(void)fputs("Usage: walnut [-H unix://PATH] VERB [OPTIONS] [ARGUMENTS]\n\n"
		    "Runs containers from unmodified Docker images, each in one of two ways:\n"
		    "  --isolation=process   namespaces and cgroups on this machine's kernel\n"
		    "  --isolation=hyperv    its own micro virtual machine with its own kernel\n\n"
		    "Verbs:\n",
		    out);
	for (size_t t = 0; t < ARRAY_LEN(tables); t++)
		for (const struct cli_verb *v = tables[t]; v->name; v++)
			(void)fprintf(out, "  %-10s %s\n", v->name, v->summary);
	(void)fputs("\nThe engine's socket: -H, else WALNUT_HOST, else unix://" DEFAULT_SOCKET
		    ".\nAs root, the engine is started when none runs there.\n",
		    out);
}

static int print_verb_help(const struct cli_verb *verb)
{
	(void)printf("Usage: walnut %s %s\n\n%s\n", verb->name, verb->arguments, verb->summary);
	cli_run_flags(verb->name, stdout);
	return 0;
}

static const struct cli_verb *find_verb(const char *name)
{
	for (size_t t = 0; t < ARRAY_LEN(tables); t++)
		for (const struct cli_verb *v = tables[t]; v->name; v++)
			if (!strcmp(v->name, name))
				return v;
	return NULL;
}

/* Starts walnutd (beside this executable, else from PATH) in a session of its own. */
static int spawn_engine(struct err *err)
{
	char self[4096], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 16);
	pid_t pid;
	int log, rc;

	rc = fd_mkdir_p("/run/walnut", 0711, err);
	if (rc < 0)
		return rc;
	pid = fork();
	if (pid < 0)
		return err_sys(err, errno, "start the engine");
	if (pid)
		return 0;
	(void)setsid();
	log = open(ENGINE_LOG, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log >= 0) {
		(void)dup2(log, STDERR_FILENO);
		(void)dup2(log, STDOUT_FILENO);
	}
	(void)close(STDIN_FILENO);
	(void)open("/dev/null", O_RDONLY);
	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		(void)strcpy(slash ? slash + 1 : self, "walnutd");
		(void)execl(self, "walnutd", (char *)NULL);
	}
	(void)execlp("walnutd", "walnutd", (char *)NULL);
	_exit(127);
}

/* Makes sure that an engine listens. Only the default socket's engine is started. */
static int need_engine(const struct cli *cli, struct err *err)
{
	const struct timespec pause = { .tv_nsec = 10000000 };
	struct err first = ERR_INIT;
	int fd = client_connect(&cli->client, &first);

	if (fd >= 0) {
		(void)close(fd);
		return 0;
	}
	if (strcmp(cli->client.socket_path, DEFAULT_SOCKET)) {
		*err = first;
		return -first.code;
	}
	if (geteuid())
		return err_set(err, EPERM, "no engine runs and only root can start one: use sudo, or start walnutd");
	if (spawn_engine(err) < 0)
		return -err->code;
	for (int i = 0; i < 500; i++) {
		(void)nanosleep(&pause, NULL);
		fd = client_connect(&cli->client, &first);
		if (fd >= 0) {
			(void)close(fd);
			return 0;
		}
		if (waitpid(-1, NULL, WNOHANG) > 0)
			break;
	}
	return err_set(err, ECONNREFUSED, "the engine did not start: see " ENGINE_LOG);
}

static int set_host(struct cli *cli, const char *host)
{
	cli->client.socket_path = host;
	if (!strncmp(host, "unix://", 7))
		cli->client.socket_path = host + 7;
	if (cli->client.socket_path[0] == '/')
		return 0;
	(void)fprintf(stderr, "walnut: the engine's address is unix:///PATH, not '%s'\n", host);
	return EXIT_ENGINE;
}

int main(int argc, char **argv)
{
	const char *host = getenv("WALNUT_HOST");
	struct cli cli = { .client = { .socket_path = DEFAULT_SOCKET } };
	const struct cli_verb *verb;
	struct err err = ERR_INIT;
	int at = 1;

	(void)signal(SIGPIPE, SIG_IGN);
	if (at + 1 < argc && (!strcmp(argv[at], "-H") || !strcmp(argv[at], "--host"))) {
		host = argv[at + 1];
		at += 2;
	}
	if (host && set_host(&cli, host))
		return EXIT_ENGINE;
	if (at < argc && (!strcmp(argv[at], "-v") || !strcmp(argv[at], "--version"))) {
		(void)puts("Walnut version " WALNUT_VERSION);
		return 0;
	}
	if (at >= argc || !strcmp(argv[at], "help") || !strcmp(argv[at], "-h") || !strcmp(argv[at], "--help")) {
		verb = at + 1 < argc ? find_verb(argv[at + 1]) : NULL;
		if (verb)
			return print_verb_help(verb);
		print_help(stdout);
		return 0;
	}
	verb = find_verb(argv[at]);
	if (!verb) {
		(void)fprintf(stderr, "walnut: '%s' is not a walnut verb: see 'walnut help'\n", argv[at]);
		return EXIT_ENGINE;
	}
	if (at + 1 < argc && !strcmp(argv[at + 1], "--help"))
		return print_verb_help(verb);
	if (need_engine(&cli, &err) < 0) {
		(void)cli_fail(&err);
		return strcmp(verb->name, "run") ? 1 : EXIT_ENGINE; /* as docker's */
	}
	return verb->fn(&cli, argc - at, argv + at);
}
