/* SPDX-License-Identifier: Apache-2.0 */
/* create, run and start: from a bundle to a container whose program runs. Lifecycle: runtime-spec, runtime.md. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "container/seccomp_notify.h"
#include "runtime/runtime.h"

struct create {
	const char *id, *bundle, *config_file, *pid_file, *console_socket;
	bool no_pivot, no_new_keyring, detach, keep;
	unsigned int preserve_fds;
	/* what is made of it */
	struct state state;
	struct oci_spec *spec;
	char *config_text;
	size_t config_len;
	struct container *container;
	void *bpf;
	int console;
};

static void create_fini(struct create *c)
{
	container_free(c->container);
	state_close(&c->state);
	oci_spec_free(c->spec);
	free(c->config_text);
	free(c->bpf);
	close_fd(&c->console);
}

enum {
	OPTION_CONSOLE = 256,
	OPTION_PID_FILE,
	OPTION_NO_PIVOT,
	OPTION_NO_KEYRING,
	OPTION_PRESERVE,
	OPTION_KEEP,
	OPTION_IGNORED
};

static const struct option options[] = {
	{ "bundle", required_argument, NULL, 'b' },
	{ "config", required_argument, NULL, 'f' },
	{ "console-socket", required_argument, NULL, OPTION_CONSOLE },
	{ "pid-file", required_argument, NULL, OPTION_PID_FILE },
	{ "no-pivot", no_argument, NULL, OPTION_NO_PIVOT },
	{ "no-new-keyring", no_argument, NULL, OPTION_NO_KEYRING },
	{ "no-subreaper", no_argument, NULL, OPTION_IGNORED },
	{ "preserve-fds", required_argument, NULL, OPTION_PRESERVE },
	{ "detach", no_argument, NULL, 'd' },
	{ "keep", no_argument, NULL, OPTION_KEEP },
	{ 0 },
};

static int parse_options(struct create *c, int argc, char **argv, struct err *err)
{
	int o, r = 0;

	while (r == 0 && (o = getopt_long(argc, argv, "b:f:d", options, NULL)) >= 0) {
		switch (o) {
		case 'b': c->bundle = optarg; break;
		case 'f': c->config_file = optarg; break;
		case OPTION_CONSOLE: c->console_socket = *optarg ? optarg : NULL; break;
		case OPTION_PID_FILE: c->pid_file = *optarg ? optarg : NULL; break;
		case OPTION_NO_PIVOT: c->no_pivot = true; break;
		case OPTION_NO_KEYRING: c->no_new_keyring = true; break;
		case OPTION_PRESERVE: r = parse_count(optarg, "--preserve-fds", 1024, &c->preserve_fds, err); break;
		case 'd': c->detach = true; break;
		case OPTION_KEEP: c->keep = true; break;
		case OPTION_IGNORED: break;
		default: return command_usage(argv[0], err);
		}
	}
	return r < 0 ? r : command_one_id(argc, argv, &c->id, err);
}

/* Relative files of the command line are the caller's, not the bundle's. */
static char *absolute(const char *path)
{
	char *out = NULL;
	CLEAN_FREE char *cwd = NULL;

	if (*path == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	if (!cwd || asprintf(&out, "%s/%s", cwd, path) < 0)
		return NULL;
	return out;
}

static int check_terminal(const struct create *c, bool detached, struct err *err)
{
	bool terminal = c->spec->process.terminal;

	if (terminal && detached && !c->console_socket)
		return err_set(err, EINVAL,
			       "cannot allocate tty if walnut-runtime will detach without setting console socket: "
			       "process.terminal is true, so --console-socket is required");
	if (c->console_socket && !(terminal && detached))
		return err_set(err, EINVAL,
			       "cannot use console socket if walnut-runtime will not detach or allocate tty: %s",
			       terminal ? "run is not given --detach" : "process.terminal is false");
	return 0;
}

static int read_bundle(struct create *c, const struct runtime_options *o, struct err *err)
{
	char path[PATH_MAX];
	int r;
	CLEAN_FREE char *file = c->config_file ? absolute(c->config_file) : NULL;
	struct stat st;

	if (c->bundle && chdir(c->bundle) < 0)
		return err_sys(err, errno, "cannot enter the bundle %s", c->bundle);
	r = config_read(file ? file : "config.json", &c->spec, &c->config_text, &c->config_len, err);
	if (r < 0)
		return r;
	if (!c->spec->version_given)
		return err_set(err, EINVAL, "config.json: ociVersion is required");
	if (!c->spec->process_given)
		return err_set(err, EINVAL, "config.json: process is required to create a container");
	r = oci_spec_validate(c->spec, err);
	if (r < 0)
		return r;
	if (c->spec->rdt.given)
		return err_set(err, ENOTSUP, "config.json: linux.intelRdt is not built in this version: leave it out");
	if (!c->spec->rootfs)
		return err_set(err, EINVAL, "config.json: root.path is required");
	if (!realpath(c->spec->rootfs, path) || stat(path, &st) < 0)
		return err_sys(err, errno, "config.json: root.path %s", c->spec->rootfs);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ENOTDIR, "config.json: root.path %s is not a folder", path);
	r = state_new(&c->state, o, c->id, err);
	if (r < 0)
		return r;
	c->state.rootfs = strdup(path);
	c->state.bundle = getcwd(NULL, 0);
	return c->state.rootfs && c->state.bundle ? 0 : err_set(err, ENOMEM, "out of memory");
}

static int name_cgroup(struct create *c, struct err *err)
{
	struct state *s = &c->state;
	int r = 0;

	if (c->spec->cgroups_path && *c->spec->cgroups_path)
		s->cgroup_path = strdup(c->spec->cgroups_path);
	else
		r = asprintf(&s->cgroup_path,
			     s->manager == RUNTIME_SYSTEMD ? ":walnut-runtime:%s" : "/walnut-runtime-%s", s->id);
	if (r < 0)
		s->cgroup_path = NULL;
	return s->cgroup_path ? 0 : err_set(err, ENOMEM, "out of memory");
}

static int build(struct create *c, const char *o_root, bool by_socket, struct err *err)
{
	struct container_config config;
	CLEAN_FD int listener = -1;
	CLEAN_FREE char *path = NULL;
	int r = name_cgroup(c, err);

	if (r < 0)
		return r;
	r = fd_write_file(c->state.dir, "config.json", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, c->config_text,
			  c->config_len, err);
	if (r < 0)
		return r;
	free(take_ptr(c->config_text));
	state_config(&c->state, c->spec, &config);
	config.preserve_fds = c->preserve_fds;
	config.no_pivot = c->no_pivot;
	config.no_new_keyring = c->no_new_keyring;
	r = seccomp_prepare(o_root, c->spec->seccomp, &config, &c->bpf, err);
	if (r < 0)
		return r;
	if (by_socket) {
		listener = container_listen(c->state.dir, START_SOCKET, err);
		if (listener < 0)
			return listener;
		config.start_socket = listener;
	}
	r = container_create(&c->container, &config, &c->console, err);
	seccomp_notify_close(&config);
	if (r < 0)
		return r;
	c->state.pid = container_pid(c->container);
	c->state.cgroup = container_cgroup(c->container);
	if (!process_start_time(c->state.pid, &c->state.start_time))
		return err_set(err, ECHILD, "the container's first process is gone");
	if (c->console_socket) {
		r = console_send(c->console_socket, c->console, err);
		close_fd(&c->console);
	}
	if (r == 0)
		r = state_save(&c->state, c->spec, err);
	if (r == 0 && c->pid_file)
		r = write_pid_file(c->pid_file, c->state.pid, err);
	return r;
}

/* Undo everything: the container, its cgroup, what its hooks may have done, its state. @err stays as it is. */
static void destroy(struct create *c)
{
	struct container_config config;
	struct err ignored = ERR_INIT;
	bool built = c->state.pid || c->container;

	container_free(take_ptr(c->container));
	state_config(&c->state, c->spec, &config);
	if (built && container_run_hooks(&config, OCI_HOOK_POSTSTOP, "stopped", 0, &ignored) < 0)
		ignored = ERR_INIT; /* the first error is the one to tell */
	if (state_remove(&c->state, &ignored) < 0)
		return;
}

static int prepare(struct create *c, const struct runtime_options *o, int argc, char **argv, bool create,
		   struct err *err)
{
	const char *listen_fds = getenv("LISTEN_FDS");
	unsigned int activation = 0;
	int r = parse_options(c, argc, argv, err);

	if (r < 0)
		return r;
	if (listen_fds && parse_count(listen_fds, "LISTEN_FDS", 1024, &activation, NULL) == 0)
		c->preserve_fds += activation;
	r = reserve_descriptors(&c->preserve_fds, err);
	if (r < 0)
		return r;
	if (c->pid_file && !(c->pid_file = absolute(c->pid_file)))
		return err_set(err, ENOMEM, "out of memory");
	if (c->console_socket && !(c->console_socket = absolute(c->console_socket)))
		return err_set(err, ENOMEM, "out of memory");
	r = read_bundle(c, o, err);
	if (r == 0 && c->spec->process.unknown_capability)
		runtime_warn(o, "process.capabilities: unknown capability %s is passed over",
			     c->spec->process.unknown_capability);
	if (r == 0 && activation)
		r = oci_process_pass_sockets(&c->spec->process, activation, err);
	if (r == 0)
		r = check_terminal(c, create || c->detach, err);
	if (r == 0)
		r = build(c, o->root, create, err);
	if (r < 0 && c->state.dir >= 0)
		destroy(c);
	return r;
}

int command_create(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	CLEAN(create_fini) struct create c = { .console = -1, .state = { .dir = -1, .root = -1 } };
	int r = prepare(&c, o, argc, argv, true, err);

	if (r < 0)
		return r;
	container_detach(take_ptr(c.container));
	return 0;
}

static int start_now(struct create *c, const struct runtime_options *o, struct err *err)
{
	struct container_config config;
	int r = container_start(c->container, NULL, err);

	if (r < 0 || !c->state.has_poststart)
		return r;
	state_config(&c->state, c->spec, &config);
	return container_run_hooks(&config, OCI_HOOK_POSTSTART, "running", c->state.pid, err);
}

int command_run(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	CLEAN(create_fini) struct create c = { .console = -1, .state = { .dir = -1, .root = -1 } };
	struct err later = ERR_INIT;
	int r;

	foreground_block();
	r = prepare(&c, o, argc, argv, false, err);
	if (r < 0)
		return r;
	r = start_now(&c, o, err);
	if (r < 0) {
		destroy(&c);
		return r;
	}
	if (c.detach) {
		container_detach(take_ptr(c.container));
		return 0;
	}
	/* others may look at it, execute in it and kill it while we wait */
	(void)flock(c.state.dir, LOCK_UN);
	r = foreground_wait(container_pid(c.container), container_pidfd(c.container), c.console, err);
	if (c.keep && r >= 0) {
		container_detach(take_ptr(c.container));
		return r;
	}
	if (flock(c.state.dir, LOCK_EX) < 0)
		runtime_log(o, "warning", "cannot lock the container's state");
	destroy(&c);
	(void)later;
	return r;
}

int command_start(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	CLEAN_STATE struct state s = { .dir = -1, .root = -1 };
	CLEAN(cleanup_oci_spec) struct oci_spec *spec = NULL;
	struct container_config config;
	enum state_status status;
	const char *id;
	int r;

	if (getopt_long(argc, argv, "", (const struct option[]){ { 0 } }, NULL) >= 0)
		return command_usage(argv[0], err);
	if ((r = command_one_id(argc, argv, &id, err)) < 0 || (r = state_open(&s, o, id, err)) < 0)
		return r;
	status = state_status(&s);
	if (status != STATE_CREATED)
		return err_set(err, EINVAL, "cannot start a container that is not created: %s is %s%s", id,
			       state_status_name(status),
			       status == STATE_STOPPED ? " (cannot start a container that has stopped)" : "");
	if (s.has_poststart && (r = state_spec(&s, &spec, err)) < 0)
		return r;
	r = container_start_by_socket(s.dir, START_SOCKET, NULL, err);
	if (unlinkat(s.dir, START_SOCKET, 0) < 0 && r == 0)
		r = err_sys(err, errno, "cannot note that container %s was started", id);
	if (r < 0 || !spec)
		return r;
	state_config(&s, spec, &config);
	r = container_run_hooks(&config, OCI_HOOK_POSTSTART, "running", s.pid, err);
	if (r < 0 && kill(s.pid, SIGKILL) < 0)
		return r;
	return r;
}
