/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walnut-agent: start, connect to the host, serve. When the control connection
 * ends, so does the virtual machine: there is nobody left to run for.
 *
 * For tests on a host, not as PID 1: walnut-agent --test-dir DIR --test-rootfs DIR,
 * where the host's ports are unix sockets DIR/PORT and "setup" mounts nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/log.h"

static void control_ready(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct agent *a = arg;
	struct err err = ERR_INIT;
	int rc;

	for (;;) {
		CLEAN_JSON json_t *message = NULL;

		rc = msg_recv(&a->control, &message, NULL, NULL, &err);
		if (rc == -EAGAIN)
			return;
		if (rc == 1)
			rc = rpc_handle(a, message, &err);
		else if (!rc)
			rc = err_set(&err, EPIPE, "the host closed the control connection");
		if (rc < 0) {
			log_error("%s", err.msg);
			loop_stop(l);
			return;
		}
	}
}

static void child_ended(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct signalfd_siginfo info;

	while (read(fd, &info, sizeof(info)) > 0)
		;
	rpc_reap(arg);
}

static int say_hello(struct agent *a)
{
	struct utsname u = { 0 };
	struct sysinfo s = { 0 };

	(void)uname(&u);
	(void)sysinfo(&s);
	return rpc_event(a, "hello",
			 json_pack("{s:i, s:s, s:I}", "version", LINK_VERSION, "kernel", u.release, "memory_bytes",
				   (json_int_t)s.totalram * (json_int_t)s.mem_unit));
}

static int serve(struct agent *a, struct err *err)
{
	sigset_t chld;
	int fd, rc;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigemptyset(&chld);
	(void)sigaddset(&chld, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &chld, NULL);
	a->signals = signalfd(-1, &chld, SFD_NONBLOCK | SFD_CLOEXEC);
	if (a->signals < 0)
		return err_sys(err, errno, "watch for children");
	a->loop = loop_new(err);
	if (!a->loop)
		return -err->code;
	fd = stream_dial(a, LINK_CONTROL_PORT, err);
	if (fd < 0)
		return fd;
	rc = fd_set_nonblock(fd, true);
	if (rc < 0)
		return err_sys(err, -rc, "prepare the control connection");
	msg_stream_init(&a->control, fd, false);
	if (!loop_add_fd(a->loop, fd, EPOLLIN, control_ready, a, err) ||
	    !loop_add_fd(a->loop, a->signals, EPOLLIN, child_ended, a, err))
		return -err->code;
	rc = say_hello(a);
	return rc < 0 ? err_sys(err, -rc, "greet the host") : loop_run(a->loop, err);
}

/* The last answer must reach the host before the machine is gone: the host closes when it has it. */
static void drain_control(struct agent *a)
{
	struct pollfd pfd = { .fd = a->control.fd, .events = POLLRDHUP };

	streams_free(a);
	if (!a->loop || shutdown(a->control.fd, SHUT_WR) < 0)
		return;
	(void)poll(&pfd, 1, 2000);
}

int main(int argc, char **argv)
{
	struct agent a = { .pid1 = getpid() == 1, .control.fd = -1, .signals = -1, .oom = -1 };
	struct err err = ERR_INIT;
	int rc = 0;

	log_init("walnut-agent", LOG_LEVEL_INFO);
	if (a.pid1) {
		rc = boot_guest(&err);
	} else if (argc == 5 && !strcmp(argv[1], "--test-dir") && !strcmp(argv[3], "--test-rootfs")) {
		a.test_dir = argv[2];
		a.test_rootfs = argv[4];
		if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
			rc = err_sys(&err, errno, "make a mount namespace");
	} else {
		(void)fprintf(stderr, "walnut-agent is the first process of a micro-VM; "
				      "for tests: walnut-agent --test-dir DIR --test-rootfs DIR\n");
		return 2;
	}
	if (!rc)
		rc = serve(&a, &err);
	if (rc < 0)
		log_error("%s", err.msg);
	drain_control(&a);
	if (a.pid1)
		boot_power_off();
	container_free(a.container);
	oci_spec_free(a.spec);
	return rc < 0;
}
