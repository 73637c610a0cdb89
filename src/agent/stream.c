/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard streams: connections to the host on one side, pipes or a terminal on
 * the other (not the socket itself: programs reopen /dev/stdout, which fails on a
 * socket). A pump moves bytes one way; it reads only when it has written all it
 * had, so a slow reader slows its writer and nothing grows.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/log.h"

#define PUMP_SIZE   65536
#define PUMP_ROUNDS 16 /* reads in one callback, so that one stream cannot starve the others */
#define PIPE_SIZE   262144

struct pump {
	struct agent *agent;
	struct pump *next, **link;
	const void *owner; /* compared, never followed */
	bool input, to_socket;
	int from, to; /* owned */
	struct loop_source *source;
	bool waits_to_write;
	size_t start, len;
	char bytes[PUMP_SIZE];
};

int stream_dial(struct agent *a, int port, struct err *err)
{
	struct sockaddr_vm vm = { .svm_family = AF_VSOCK, .svm_cid = LINK_HOST_CID, .svm_port = (unsigned int)port };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	const struct sockaddr *to = a->test_dir ? (struct sockaddr *)&un : (struct sockaddr *)&vm;
	socklen_t len = a->test_dir ? sizeof(un) : sizeof(vm);
	CLEAN_FD int sock = -1;

	if (port < LINK_CONTROL_PORT || port > LINK_STREAM_LAST)
		return err_set(err, EINVAL, "port %d of the host is not one for streams", port);
	if (a->test_dir &&
	    snprintf(un.sun_path, sizeof(un.sun_path), "%s/%d", a->test_dir, port) >= (int)sizeof(un.sun_path))
		return err_set(err, ENAMETOOLONG, "the folder of sockets has too long a name");
	sock = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return err_sys(err, errno, "make a socket to the host");
	if (connect(sock, to, len) < 0)
		return err_sys(err, errno, "connect to port %d of the host", port);
	return take_fd(&sock);
}

static int open_one(struct agent *a, const json_t *streams, const char *name, int i, struct agent_streams *out,
		    struct err *err)
{
	int64_t port = json_int(streams, name, 0);
	int ends[2];

	if (!port) {
		out->container[i] = open("/dev/null", (i ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
		return out->container[i] < 0 ? err_sys(err, errno, "open /dev/null") : 0;
	}
	if (port < 0 || port > LINK_STREAM_LAST)
		return err_set(err, EINVAL, "the port for %s is not valid", name);
	out->host[i] = stream_dial(a, (int)port, err);
	if (out->host[i] < 0)
		return out->host[i];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_sys(err, errno, "make a pipe");
	(void)fcntl(ends[0], F_SETPIPE_SZ, PIPE_SIZE);
	/* Programs that changed their user reopen /dev/stdout; the pipe is the container's alone. */
	(void)fchmod(ends[0], 0666);
	out->agent[i] = ends[i ? 0 : 1];
	out->container[i] = ends[i ? 1 : 0];
	return 0;
}

int streams_open(struct agent *a, const json_t *streams, bool terminal, struct agent_streams *out, struct err *err)
{
	static const char *const names[3] = { "stdin", "stdout", "stderr" };
	int64_t port = json_int(streams, "console", 0);
	int rc;

	*out = AGENT_STREAMS_INIT;
	if (port < 0 || port > LINK_STREAM_LAST || (port && !terminal))
		return err_set(err, EINVAL, "a stream for a console, but no terminal");
	if (port) {
		out->console = stream_dial(a, (int)port, err);
		if (out->console < 0)
			return out->console;
	}
	for (int i = 0; i < 3; i++) {
		rc = open_one(a, terminal ? NULL : streams, names[i], i, out, err);
		if (rc < 0) {
			streams_close(out);
			return rc;
		}
	}
	return 0;
}

void streams_close(struct agent_streams *s)
{
	for (int i = 0; i < 3; i++) {
		close_fd(&s->host[i]);
		close_fd(&s->agent[i]);
		close_fd(&s->container[i]);
	}
	close_fd(&s->console);
}

static void pump_free(struct pump *p)
{
	*p->link = p->next;
	if (p->next)
		p->next->link = p->link;
	loop_remove(p->source);
	if (p->to_socket)
		(void)shutdown(p->to, SHUT_WR);
	close_fd(&p->from);
	close_fd(&p->to);
	free(p);
}

static void pump_ready(struct loop *l, int fd, uint32_t events, void *arg);

/* One descriptor at a time is watched: epoll reports a hang-up of the other even when nothing is asked. */
static int pump_watch(struct pump *p, bool to_write)
{
	struct err err = ERR_INIT;

	if (p->source && p->waits_to_write == to_write)
		return 0;
	loop_remove(p->source);
	p->waits_to_write = to_write;
	p->source = loop_add_fd(p->agent->loop, to_write ? p->to : p->from, to_write ? EPOLLOUT : EPOLLIN, pump_ready,
				p, &err);
	if (!p->source)
		log_error("a stream: %s", err.msg);
	return p->source ? 0 : -err.code;
}

/* Return: 1 when written out, 0 to wait, or -errno. */
static int pump_write(struct pump *p)
{
	while (p->len) {
		ssize_t n = write(p->to, p->bytes + p->start, p->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		p->start += (size_t)n;
		p->len -= (size_t)n;
	}
	return 1;
}

static void pump_ready(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct pump *p = arg;
	int rc;

	for (int i = 0; i < PUMP_ROUNDS; i++) {
		ssize_t n;

		rc = pump_write(p);
		if (rc <= 0) {
			if (rc < 0 || pump_watch(p, true) < 0)
				pump_free(p);
			return;
		}
		n = read(p->from, p->bytes, sizeof(p->bytes));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) { /* the end; a terminal without a process reports EIO */
			pump_free(p);
			return;
		}
		p->start = 0;
		p->len = (size_t)n;
	}
	/* What the last round read must go out before more is read. */
	rc = pump_write(p);
	if (rc < 0 || pump_watch(p, rc == 0) < 0)
		pump_free(p);
}

/* Takes both descriptors, also on failure. */
static int pump_new(struct agent *a, const void *owner, bool input, int from, int to, bool to_socket, struct err *err)
{
	struct pump *p = malloc(sizeof(*p));

	if (!p || from < 0 || to < 0 || fd_set_nonblock(from, true) < 0 || fd_set_nonblock(to, true) < 0) {
		close_fd(&from);
		close_fd(&to);
		free(p);
		return err_sys(err, p ? EBADF : ENOMEM, "carry a stream");
	}
	p->agent = a;
	p->owner = owner;
	p->input = input;
	p->to_socket = to_socket;
	p->from = from;
	p->to = to;
	p->source = NULL;
	p->waits_to_write = false;
	p->start = p->len = 0;
	p->next = a->pumps;
	p->link = &a->pumps;
	if (p->next)
		p->next->link = &p->next;
	a->pumps = p;
	if (pump_watch(p, false) < 0) {
		pump_free(p);
		return err_set(err, ENOMEM, "a stream cannot be watched");
	}
	return 0;
}

static int dup_of(int fd)
{
	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

int streams_run(struct agent *a, struct agent_process *p, struct agent_streams *s, int console, struct err *err)
{
	int rc = 0;

	for (int i = 0; i < 3; i++)
		close_fd(&s->container[i]);
	if (s->console >= 0) {
		/* Two directions: each pump gets descriptors of its own, which epoll tells apart. */
		rc = pump_new(a, p, true, dup_of(s->console), dup_of(console), false, err);
		if (!rc)
			rc = pump_new(a, p, false, dup_of(console), take_fd(&s->console), true, err);
	}
	if (!rc && s->host[0] >= 0)
		rc = pump_new(a, p, true, take_fd(&s->host[0]), take_fd(&s->agent[0]), false, err);
	for (int i = 1; i < 3 && !rc; i++)
		if (s->host[i] >= 0)
			rc = pump_new(a, p, false, take_fd(&s->agent[i]), take_fd(&s->host[i]), true, err);
	streams_close(s);
	return rc;
}

void streams_end_input(struct agent_process *p)
{
	struct pump *pump = p->agent->pumps, *next;

	for (; pump; pump = next) {
		next = pump->next;
		if (pump->owner == p && pump->input)
			pump_free(pump);
	}
}

void streams_free(struct agent *a)
{
	while (a->pumps)
		pump_free(a->pumps); /* NOLINT(clang-analyzer-unix.Malloc): it takes itself off the list */
}
