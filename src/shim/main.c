/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walnut-shim --id ID --run-dir DIR --data-dir DIR, with the engine's socket as descriptor 3.
 *
 * The shim is the leader of its own session, a subreaper (what the container leaves behind is its
 * child), and lives in a private mount namespace: all mounts of the container go with the processes.
 * The end: the process is reaped -> its output drained -> exit.json -> the container freed -> "exited"
 * -> "shutdown" from the engine, 10 s, or no engine.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "shim/backend.h"
#include "shim/stdio.h"

#define ENGINE_FD   3
#define ISOLATED    "WALNUT_SHIM_ISOLATED" /* in the environment: the steps before the second exec are done */
#define SHUTDOWN_MS 10000

int64_t shim_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void shim_started(struct shim *sh, pid_t pid, struct shim_reply *r)
{
	sh->state = SHIM_RUNNING;
	sh->pid = pid;
	control_reply(r, json_pack("{s:i, s:I}", "pid", (int)pid, "started_at_ns", (json_int_t)shim_now_ns()));
}

void shim_start_failed(struct shim *sh, const struct err *err, struct shim_reply *r)
{
	sh->state = SHIM_EXITED;
	sh->exit.code = err->code == ENOENT ? 127 : err->code == EACCES ? 126 : 128;
	sh->exit.finished_at_ns = shim_now_ns();
	(void)snprintf(sh->exit.error, sizeof(sh->exit.error), "%s", err->msg);
	if (sh->backend)
		sh->backend->destroy(sh);
	control_fail(r, err);
	session_close_clients(sh->main);
	shim_maybe_end(sh);
}

void shim_end(struct shim *sh)
{
	sh->ending = true;
	shim_maybe_end(sh);
}

static void on_end_timer(struct loop *l, void *arg)
{
	struct shim *sh = arg;

	sh->end_timer = NULL;
	shim_end(sh);
}

void shim_maybe_end(struct shim *sh)
{
	if (sh->state == SHIM_STARTING || sh->state == SHIM_RUNNING)
		return;
	if (!sh->ending && control_connected(sh))
		return;
	if (sh->state == SHIM_EXITED && session_has_clients(sh->main))
		return;
	loop_stop(sh->loop);
}

static void write_exit(struct shim *sh)
{
	CLEAN_JSON json_t *exit_json = shim_exit_json(&sh->exit);
	CLEAN_FREE char *text = exit_json ? json_text(exit_json) : NULL;
	CLEAN_FREE char *path = NULL;
	struct err err = ERR_INIT;

	if (!text || asprintf(&path, "%s/exit.json", sh->data_dir) < 0) {
		path = NULL;
		log_error("write exit.json: no memory");
		return;
	}
	if (fd_replace_file(AT_FDCWD, path, text, strlen(text), 0600, &err) < 0)
		log_error("%s", err.msg);
}

void shim_session_finished(struct session *s)
{
	struct shim *sh = s->shim;

	if (s->exec_id) {
		control_event(sh, "exec_exited",
			      json_pack("{s:s, s:i}", "exec_id", s->exec_id, "exit_code", s->exit_code));
		return;
	}
	sh->exit.code = s->exit_code;
	sh->exit.finished_at_ns = shim_now_ns();
	if (!sh->backend->end || !sh->backend->end(sh))
		shim_finished(sh);
}

void shim_finished(struct shim *sh)
{
	sh->backend->ended(sh);
	sh->backend->destroy(sh);
	sh->state = SHIM_EXITED;
	write_exit(sh);
	if (sh->exit.oom_killed)
		control_event(sh, "oom", NULL);
	control_event(sh, "exited", shim_exit_json(&sh->exit));
	sh->end_timer = loop_add_timer(sh->loop, SHUTDOWN_MS, on_end_timer, sh);
	shim_maybe_end(sh);
}

static int exit_code_of(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void on_signal_fd(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct shim *sh = arg;
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		; /* SIGTERM, SIGINT and SIGHUP are not for the shim: it ends with its container */
	/* The virtual machine's processes are reaped by vmm/vm.h, which has their pidfds. */
	if (sh->backend && !sh->backend->reaped)
		return;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (sh->backend)
			(void)sh->backend->reaped(sh, pid, exit_code_of(status));
	}
}

static int watch_signals(struct shim *sh, int *fd, struct err *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	(void)signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return err_sys(err, errno, "block signals");
	*fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (*fd < 0)
		return err_sys(err, errno, "make a signalfd");
	return loop_add_fd(sh->loop, *fd, EPOLLIN, on_signal_fd, sh, err) ? 0 : -err->code;
}

static int isolate(struct err *err)
{
	(void)setsid(); /* fails if the engine did it already */
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		return err_sys(err, errno, "become a subreaper");
	if (unshare(CLONE_NEWNS) < 0)
		return err_sys(err, errno, "make a mount namespace (walnut-shim needs root)");
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return err_sys(err, errno, "make the mount namespace private");
	return 0;
}

/*
 * Until the container's program is executed its processes are forks of this one, and can be made to execute
 * /proc/self/exe: its file must be out of their reach (CVE-2019-5736). So this program runs from a read-only
 * mount of its own file, which it makes in its private mount namespace and then executes.
 */
static int protect_own_file(char **argv, struct err *err)
{
	CLEAN_FD int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	char path[PATH_MAX];
	struct statvfs fs;
	ssize_t n;

	if (self < 0 || fstatvfs(self, &fs) < 0)
		return err_sys(err, errno, "look at walnut-shim's own file");
	if (fs.f_flag & ST_RDONLY)
		return 0;
	n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	if (n < 0)
		return err_sys(err, errno, "find walnut-shim's own file");
	path[n] = '\0';
	if (mount(path, path, NULL, MS_BIND, NULL) < 0 ||
	    mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
		return err_sys(err, errno, "make %s read-only for this container", path);
	/* A second private namespace would make this mount, and with it our own path, unreachable. */
	if (setenv(ISOLATED, "1", 1) < 0)
		return err_sys(err, errno, "execute %s again", path);
	(void)execv(path, argv);
	return err_sys(err, errno, "execute %s from its read-only mount", path);
}

static int set_up(struct shim *sh, char **argv, int *signals, struct err *err)
{
	struct stat st;
	int rc = 0;

	if (!getenv(ISOLATED)) {
		rc = isolate(err);
		if (!rc)
			rc = protect_own_file(argv, err);
	}
	(void)unsetenv(ISOLATED);
	if (rc < 0)
		return rc;
	sh->loop = loop_new(err);
	if (!sh->loop)
		return -err->code;
	rc = watch_signals(sh, signals, err);
	if (rc < 0)
		return rc;
	sh->main = session_new(sh, NULL, err);
	if (!sh->main)
		return -err->code;
	rc = control_listen(sh, err);
	if (rc < 0)
		return rc;
	if (fstat(ENGINE_FD, &st) < 0 || !S_ISSOCK(st.st_mode))
		return err_set(err, EINVAL, "descriptor 3 is not the engine's socket");
	return control_add(sh, ENGINE_FD, err);
}

static void tear_down(struct shim *sh)
{
	CLEAN_FREE char *path = NULL;

	control_close_all(sh);
	if (asprintf(&path, "%s/shim.sock", sh->run_dir) < 0)
		path = NULL;
	if (path)
		(void)unlink(path);
	while (sh->execs) {
		struct session *s = sh->execs;

		sh->execs = s->next;
		session_free(s);
	}
	session_free(sh->main);
	loop_free(sh->loop);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "id", required_argument, NULL, 'i' },
		{ "run-dir", required_argument, NULL, 'r' },
		{ "data-dir", required_argument, NULL, 'd' },
		{ NULL, 0, NULL, 0 },
	};
	struct shim sh = { .listener = -1 };
	struct err err = ERR_INIT;
	int signals = -1, c, rc;

	log_init("walnut-shim", LOG_LEVEL_INFO);
	(void)mallopt(M_ARENA_MAX, 1);
	(void)mallopt(M_TRIM_THRESHOLD, 128 << 10);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'i')
			sh.id = optarg;
		else if (c == 'r')
			sh.run_dir = optarg;
		else if (c == 'd')
			sh.data_dir = optarg;
		else
			return 2;
	}
	if (!sh.id || !sh.run_dir || !sh.data_dir || optind != argc) {
		(void)fprintf(stderr, "usage: walnut-shim --id ID --run-dir DIR --data-dir DIR (started by walnutd)\n");
		return 2;
	}
	rc = set_up(&sh, argv, &signals, &err);
	if (!rc)
		rc = loop_run(sh.loop, &err);
	if (rc < 0)
		log_error("%s", err.msg);
	if (sh.loop)
		tear_down(&sh);
	close_fd(&signals);
	return rc < 0 ? 1 : 0;
}
