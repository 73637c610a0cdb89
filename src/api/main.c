/* SPDX-License-Identifier: Apache-2.0 */
/* walnutd: options, the lock on the data root, the listening socket, the loop. */
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "api/http.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/engine.h"

#define REGISTRIES_MAX 64

static int wake_fd = -1; /* the signal handler's end of a pipe */

static void on_signal(int sig)
{
	int saved = errno;

	(void)!write(wake_fd, "", 1);
	errno = saved;
}

static void on_wake(struct loop *l, int fd, uint32_t events, void *arg)
{
	loop_stop(l);
}

static int listen_on(const char *host, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (strncmp(host, "unix://", 7))
		return err_set(err, EINVAL, "--host %s: only unix://PATH is supported", host);
	if (strlen(host + 7) >= sizeof(a.sun_path) || host[7] != '/')
		return err_set(err, EINVAL, "--host %s: not an absolute path of at most 107 bytes", host);
	(void)strcpy(a.sun_path, host + 7);
	CLEAN_FREE char *dir = strdup(a.sun_path);
	CLEAN_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*strrchr(dir, '/') = 0;
	if (*dir && fd_mkdir_p(dir, 0755, err))
		return -err->code;
	(void)unlink(a.sun_path);
	mode_t old = umask(0117);
	int rc = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&a, sizeof(a));

	(void)umask(old);
	if (rc || listen(fd, 128))
		return err_sys(err, errno, "listen on %s", a.sun_path);
	return take_fd(&fd);
}

static int lock_data(const char *root, struct err *err)
{
	CLEAN_FREE char *path = NULL;

	if (fd_mkdir_p(root, 0711, err) || asprintf(&path, "%s/lock", root) < 0)
		return -(err->code ? err->code : ENOMEM);
	CLEAN_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_sys(err, errno, "open %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB))
		return err_set(err, EBUSY, "an engine is already running on %s: stop it, or choose another --data-root",
			       root);
	return take_fd(&fd);
}

static int serve(struct engine_config *config, const char *pidfile, struct err *err)
{
	static const struct http_route *const tables[] = { routes_archive,
							   routes_commit,
							   routes_containers,
							   routes_df,
							   routes_exec,
							   routes_images,
							   routes_networks,
							   routes_registry,
							   routes_stats,
							   routes_stream,
							   routes_system,
							   routes_volumes,
							   NULL };
	CLEAN_FD int lock = lock_data(config->data_root, err);
	CLEAN_FD int wake = -1;
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct engine *e = NULL;
	char text[16];
	int pair[2];

	if (lock < 0)
		return lock;
	struct loop *l = loop_new(err);

	if (!l || engine_open(&e, l, config, err))
		return -err->code;
	int listener = listen_on(config->host, err);

	if (listener < 0)
		return listener;
	struct http_server *server = http_server_new(l, listener, tables, e, err);

	if (!server || pipe2(pair, O_CLOEXEC | O_NONBLOCK))
		return -(err->code ? err->code : errno);
	wake = pair[0];
	wake_fd = pair[1];
	(void)sigaction(SIGTERM, &sa, NULL);
	(void)sigaction(SIGINT, &sa, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	if (!loop_add_fd(l, wake, EPOLLIN, on_wake, NULL, err))
		return -err->code;
	if (pidfile) {
		int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());

		if (fd_replace_file(AT_FDCWD, pidfile, text, (size_t)n, 0644, err))
			return -err->code;
	}
	log_info("API listens on %s", config->host);
	int rc = loop_run(l, err);

	log_info("stopping; containers go on running");
	http_server_free(server);
	engine_close(e);
	loop_free(l);
	(void)unlink(config->host + 7);
	if (pidfile)
		(void)unlink(pidfile);
	return rc;
}

static void usage(FILE *f)
{
	(void)fputs("Usage: walnutd [OPTIONS]\n\nThe Walnut container engine.\n\n"
		    "  -H, --host unix://PATH       where the API listens (default unix:///run/walnut/walnut.sock)\n"
		    "      --data-root DIR          state and images (default /var/lib/walnut)\n"
		    "      --exec-root DIR          sockets of running containers (default /run/walnut)\n"
		    "      --exec-opt isolation=X   default isolation: process or hyperv\n"
		    "      --accelerator X          auto, kvm or software\n"
		    "      --log-level X            error, warn, info or debug\n"
		    "      --max-layer-size BYTES   refuse larger layers, unpacked (default 64g)\n"
		    "      --insecure-registry X    HOST[:PORT] or network: plain HTTP, any certificate (repeatable)\n"
		    "      --registry-mirror URL    ask this before Docker Hub (repeatable)\n"
		    "      --registry-certs DIR     HOST[:PORT]/ca.crt and such (default /etc/docker/certs.d)\n"
		    "  -p, --pidfile PATH           write the process id there\n"
		    "  -v, --version                print the version\n"
		    "      --help                   this text\n",
		    f);
}

static int fail(const char *text, const char *value)
{
	(void)fprintf(stderr, "walnutd: %s%s\n", text, value);
	return 1;
}

/* parse_bytes - "64g" as bytes; 0 when it is no size. */
static uint64_t parse_bytes(const char *text)
{
	char *end;
	unsigned long long v = strtoull(text, &end, 10);
	unsigned shift = *end == 'k' || *end == 'K'   ? 10
			 : *end == 'm' || *end == 'M' ? 20
			 : *end == 'g' || *end == 'G' ? 30
						      : 0;

	if (shift)
		end++;
	return *text < '0' || *text > '9' || *end || v > UINT64_MAX >> 1 >> shift ? 0 : v << shift;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "host", 1, NULL, 'H' },
						 { "data-root", 1, NULL, 'd' },
						 { "exec-root", 1, NULL, 'e' },
						 { "exec-opt", 1, NULL, 'o' },
						 { "accelerator", 1, NULL, 'a' },
						 { "log-level", 1, NULL, 'l' },
						 { "pidfile", 1, NULL, 'p' },
						 { "version", 0, NULL, 'v' },
						 { "help", 0, NULL, 'h' },
						 { "max-layer-size", 1, NULL, 'L' },
						 { "insecure-registry", 1, NULL, 'I' },
						 { "registry-mirror", 1, NULL, 'M' },
						 { "registry-certs", 1, NULL, 'C' },
						 { 0 } };
	static const char *insecure[REGISTRIES_MAX + 1], *mirrors[REGISTRIES_MAX + 1];
	static const char *const levels[] = { "error", "warn", "info", "debug" };
	struct engine_config config = { .host = (char *)"unix:///run/walnut/walnut.sock",
					.data_root = (char *)"/var/lib/walnut",
					.exec_root = (char *)"/run/walnut",
					.accelerator = (char *)"auto",
					.log_level = (char *)"info" };
	const char *pidfile = NULL;
	struct err err = ERR_INIT;
	size_t level = 0, ninsecure = 0, nmirrors = 0;

	config.images.insecure = insecure;
	config.images.mirrors = mirrors;
	for (int o; (o = getopt_long(argc, argv, "H:p:v", options, NULL)) != -1;) {
		switch (o) {
		case 'H': config.host = optarg; break;
		case 'd': config.data_root = optarg; break;
		case 'e': config.exec_root = optarg; break;
		case 'l': config.log_level = optarg; break;
		case 'p': pidfile = optarg; break;
		case 'v': (void)printf("walnutd version %s\n", WALNUT_VERSION); return 0;
		case 'h': usage(stdout); return 0;
		case 'C': config.images.certs = optarg; break;
		case 'L':
			config.images.max_layer = parse_bytes(optarg);
			if (!config.images.max_layer)
				return fail("--max-layer-size is a number of bytes with k, m or g, not ", optarg);
			break;
		case 'I':
		case 'M':
			if (o == 'I' ? ninsecure == REGISTRIES_MAX : nmirrors == REGISTRIES_MAX)
				return fail("too many registries at ", optarg);
			if (o == 'I')
				insecure[ninsecure++] = optarg;
			else
				mirrors[nmirrors++] = optarg;
			break;
		case 'a':
			config.accelerator = optarg;
			if (strcmp(optarg, "auto") && strcmp(optarg, "kvm") && strcmp(optarg, "software"))
				return fail("--accelerator is auto, kvm or software, not ", optarg);
			break;
		case 'o':
			if (!strcmp(optarg, "isolation=hyperv"))
				config.isolation = ENGINE_ISOLATION_HYPERV;
			else if (strcmp(optarg, "isolation=process") && strcmp(optarg, "isolation=default"))
				return fail("--exec-opt knows isolation=process and isolation=hyperv, not ", optarg);
			break;
		default: usage(stderr); return 1;
		}
	}
	if (optind < argc)
		return fail("unexpected argument ", argv[optind]);
	while (level < ARRAY_LEN(levels) && strcmp(levels[level], config.log_level))
		level++;
	if (level == ARRAY_LEN(levels))
		return fail("--log-level is error, warn, info or debug, not ", config.log_level);
	if (geteuid())
		return fail("must run as root, to make containers: use sudo", "");
	log_init("walnutd", (enum log_level)level);
	if (serve(&config, pidfile, &err)) {
		log_error("%s", err.msg);
		return 1;
	}
	return 0;
}
