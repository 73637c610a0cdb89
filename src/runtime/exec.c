/* SPDX-License-Identifier: Apache-2.0 */
/* exec: a further program in a running container, from a process document or from the command line. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>

#include "base/fd.h"
#include "oci/parse.h"
#include "container/seccomp_notify.h"
#include "runtime/runtime.h"

struct exec {
	const char *console_socket, *pid_file, *process_file, *cwd, *user, *apparmor, *label, *cgroup;
	char **env, **caps, **gids; /* owned arrays of borrowed strings */
	size_t env_count, caps_count, gids_count;
	bool tty, detach, no_new_privs, ignore_paused;
	unsigned int preserve_fds;
};

static void exec_fini(struct exec *e)
{
	free((void *)e->env);
	free((void *)e->caps);
	free((void *)e->gids);
}

enum {
	OPTION_CONSOLE = 256,
	OPTION_PID_FILE,
	OPTION_CWD,
	OPTION_LABEL,
	OPTION_APPARMOR,
	OPTION_NNP,
	OPTION_PRESERVE,
	OPTION_CGROUP,
	OPTION_IGNORE_PAUSED,
	OPTION_IGNORED
};

static const struct option options[] = {
	{ "console-socket", required_argument, NULL, OPTION_CONSOLE },
	{ "pid-file", required_argument, NULL, OPTION_PID_FILE },
	{ "cwd", required_argument, NULL, OPTION_CWD },
	{ "env", required_argument, NULL, 'e' },
	{ "tty", no_argument, NULL, 't' },
	{ "user", required_argument, NULL, 'u' },
	{ "additional-gids", required_argument, NULL, 'g' },
	{ "process", required_argument, NULL, 'p' },
	{ "detach", no_argument, NULL, 'd' },
	{ "process-label", required_argument, NULL, OPTION_LABEL },
	{ "apparmor", required_argument, NULL, OPTION_APPARMOR },
	{ "no-new-privs", no_argument, NULL, OPTION_NNP },
	{ "cap", required_argument, NULL, 'c' },
	{ "preserve-fds", required_argument, NULL, OPTION_PRESERVE },
	{ "cgroup", required_argument, NULL, OPTION_CGROUP },
	{ "ignore-paused", no_argument, NULL, OPTION_IGNORE_PAUSED },
	{ "no-subreaper", no_argument, NULL, OPTION_IGNORED },
	{ 0 },
};

static int add(char ***list, size_t *n, char *text, struct err *err)
{
	char **more = reallocarray((void *)*list, *n + 1, sizeof(char *));

	if (!more)
		return err_set(err, ENOMEM, "out of memory");
	*list = more;
	more[(*n)++] = text;
	return 0;
}

static int take_option(struct exec *e, int o, struct err *err)
{
	switch (o) {
	case OPTION_CONSOLE: e->console_socket = *optarg ? optarg : NULL; return 0;
	case OPTION_PID_FILE: e->pid_file = *optarg ? optarg : NULL; return 0;
	case OPTION_CWD: e->cwd = optarg; return 0;
	case 'e': return add(&e->env, &e->env_count, optarg, err);
	case 't': e->tty = true; return 0;
	case 'u': e->user = optarg; return 0;
	case 'g': return add(&e->gids, &e->gids_count, optarg, err);
	case 'p': e->process_file = *optarg ? optarg : NULL; return 0;
	case 'd': e->detach = true; return 0;
	case OPTION_LABEL: e->label = optarg; return 0;
	case OPTION_APPARMOR: e->apparmor = optarg; return 0;
	case OPTION_NNP: e->no_new_privs = true; return 0;
	case 'c': return add(&e->caps, &e->caps_count, optarg, err);
	case OPTION_PRESERVE: return parse_count(optarg, "--preserve-fds", 1024, &e->preserve_fds, err);
	case OPTION_CGROUP: e->cgroup = optarg; return 0;
	case OPTION_IGNORE_PAUSED: e->ignore_paused = true; return 0;
	case OPTION_IGNORED: return 0;
	default: return command_usage("exec", err);
	}
}

static int parse_id(const char *text, const char *what, uint32_t *out, struct err *err)
{
	char *end;
	unsigned long long n;

	/* digits alone: "1000x" must not be user 1000 (CVE-2026-30892 of crun) */
	if (!isdigit((unsigned char)*text))
		return err_set(err, EINVAL, "exec: %s '%s' is not a number", what, text);
	errno = 0;
	n = strtoull(text, &end, 10);
	if (*end || errno || n >= UINT32_MAX)
		return err_set(err, EINVAL, "exec: %s '%s' is not a number below 2^32-1", what, text);
	*out = (uint32_t)n;
	return 0;
}

static int set_user(const struct exec *e, struct oci_process *p, struct err *err)
{
	const char *colon = e->user ? strchr(e->user, ':') : NULL;
	char uid[32];
	int r = 0;

	if (e->user) {
		size_t n = colon ? (size_t)(colon - e->user) : strlen(e->user);

		if (n >= sizeof(uid))
			return err_set(err, EINVAL, "exec: --user '%s' is not UID[:GID]", e->user);
		(void)memcpy(uid, e->user, n);
		uid[n] = 0;
		r = parse_id(uid, "--user", &p->user.uid, err);
		if (r == 0 && colon)
			r = parse_id(colon + 1, "--user's group", &p->user.gid, err);
	}
	for (size_t i = 0; r == 0 && i < e->gids_count; i++) {
		gid_t *more = reallocarray(p->user.additional_gids, p->user.additional_gids_count + 1, sizeof(gid_t));

		if (!more)
			return err_set(err, ENOMEM, "out of memory");
		p->user.additional_gids = more;
		r = parse_id(e->gids[i], "--additional-gids", &more[p->user.additional_gids_count++], err);
	}
	return r;
}

static int replace(char **where, const char *with, struct err *err)
{
	char *copy = with ? strdup(with) : NULL;

	if (!with)
		return 0;
	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	free(*where);
	*where = copy;
	return 0;
}

/* The container's own process with what the command line changes. */
static int adapt(const struct exec *e, struct oci_process *p, char **args, struct err *err)
{
	int r = oci_process_set_args(p, args, err);

	for (size_t i = 0; r == 0 && i < e->env_count; i++)
		r = oci_process_add_env(p, e->env[i], err);
	for (size_t i = 0; r == 0 && i < e->caps_count; i++) {
		int cap = oci_capability_number(e->caps[i]);
		uint64_t bit;

		if (cap < 0)
			continue; /* as in a configuration: what is unknown can not be granted */
		bit = UINT64_C(1) << cap;
		p->capabilities_given = true;
		p->capabilities.bounding |= bit;
		p->capabilities.effective |= bit;
		p->capabilities.permitted |= bit;
	}
	p->terminal = e->tty;
	/* as crun: an exec says for itself whether it wants this */
	p->no_new_privileges = e->no_new_privs;
	if (r == 0)
		r = set_user(e, p, err);
	if (r == 0)
		r = replace(&p->cwd, e->cwd, err);
	if (r == 0)
		r = replace(&p->apparmor_profile, e->apparmor, err);
	if (r == 0)
		r = replace(&p->selinux_label, e->label, err);
	return r;
}

static int read_process(const char *file, struct oci_process **out, struct err *err)
{
	size_t len;
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, file, 16U << 20, &len, err);
	CLEAN_JSON json_t *json = text ? oci_json_parse(text, len, file, err) : NULL;

	return json ? oci_process_parse(json, out, err) : -err->code;
}

static int check(const struct exec *e, const struct state *s, struct err *err)
{
	enum state_status status = state_status(s);

	if (status == STATE_STOPPED || status == STATE_CREATING)
		return err_set(err, EINVAL, "cannot exec a container that has stopped: %s is %s", s->id,
			       state_status_name(status));
	if (status == STATE_PAUSED && !e->ignore_paused)
		return err_set(err, EINVAL,
			       "cannot exec in a paused container: resume %s first, or use --ignore-paused", s->id);
	return 0;
}

static int finish(const struct exec *e, struct container_process *out, struct err *err)
{
	int r = 0;

	if (e->console_socket)
		r = console_send(e->console_socket, out->console, err);
	if (r == 0 && e->pid_file)
		r = write_pid_file(e->pid_file, out->pid, err);
	if (r == 0 && !e->detach)
		r = foreground_wait(out->pid, out->pidfd, e->console_socket ? -1 : out->console, err);
	close_fd(&out->console);
	close_fd(&out->pidfd);
	return r;
}

static int execute(const struct runtime_options *o, const struct exec *e, struct state *s, char **args, struct err *err)
{
	CLEAN(cleanup_oci_spec) struct oci_spec *spec = NULL;
	CLEAN(cleanup_oci_process) struct oci_process *from_file = NULL;
	struct container_process out = { .pidfd = -1, .console = -1 };
	struct container_config config;
	struct container *container = NULL;
	CLEAN_FREE void *bpf = NULL;
	struct oci_process *p;
	const int stdio[3] = { 0, 1, 2 };
	int r = state_spec(s, &spec, err);

	if (r < 0 || (r = check(e, s, err)) < 0)
		return r;
	if (e->process_file) {
		r = read_process(e->process_file, &from_file, err);
		if (r == 0 && from_file && e->tty)
			from_file->terminal = true;
	}
	p = from_file ? from_file : &spec->process;
	if (r == 0 && !from_file)
		r = adapt(e, p, args, err);
	if (r < 0)
		return r;
	if (p->terminal && e->detach && !e->console_socket)
		return err_set(err, EINVAL,
			       "cannot allocate tty if walnut-runtime will detach without setting console socket");
	if (!p->terminal && e->console_socket)
		return err_set(err, EINVAL,
			       "cannot use console socket if walnut-runtime will not detach or allocate tty");
	state_config(s, spec, &config);
	config.preserve_fds = e->preserve_fds;
	config.exec_cgroup = e->cgroup;
	r = seccomp_prepare(o->root, spec->seccomp, &config, &bpf, err);
	if (r < 0)
		return r;
	r = container_open(&container, &config, s->pid, err);
	if (r == 0 && e->ignore_paused)
		close_fd(&s->dir); /* the lock: the process freezes as it enters, and resume must be able to thaw it */
	if (r == 0)
		r = container_exec(container, p, stdio, &out, NULL, err);
	seccomp_notify_close(&config);
	container_detach(container);
	close_fd(&s->dir); /* the lock: the container may be stopped while this program runs */
	return r < 0 ? r : finish(e, &out, err);
}

int command_exec(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	CLEAN(exec_fini) struct exec e = { 0 };
	CLEAN_STATE struct state s = { .dir = -1, .root = -1 };
	int c, r = 0;

	while (r == 0 && (c = getopt_long(argc, argv, "+e:tu:g:p:dc:", options, NULL)) >= 0)
		r = take_option(&e, c, err);
	if (r < 0)
		return r;
	if (argc - optind < 1)
		return err_set(err, EINVAL, "exec: a container ID is required");
	if (argc - optind < 2 && !e.process_file)
		return err_set(err, EINVAL, "exec: a command (process args cannot be empty) or --process is required");
	if (e.process_file && argc - optind > 1)
		return err_set(err, EINVAL, "exec: --process and a command exclude each other");
	r = reserve_descriptors(&e.preserve_fds, err);
	if (r < 0)
		return r;
	if (!e.detach)
		foreground_block();
	r = state_open(&s, o, argv[optind], err);
	return r < 0 ? r : execute(o, &e, &s, argv + optind + 1, err);
}
