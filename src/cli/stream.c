/* SPDX-License-Identifier: Apache-2.0 */
/* Attach sessions and frames (Docker Engine API, "Attach to a container": stream format). */
#include "cli/stream.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

struct raw_terminal {
	bool active;
	struct termios before;
};

static void raw_end(struct raw_terminal *t)
{
	if (t->active)
		(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &t->before);
}

static void raw_begin(struct raw_terminal *t)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &t->before) < 0)
		return;
	raw = t->before;
	cfmakeraw(&raw);
	t->active = !tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

void stream_resize(const struct client *c, const char *resize_path)
{
	struct winsize size;
	char path[512];
	struct err ignored;

	if (!resize_path || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
		return;
	(void)snprintf(path, sizeof(path), "%s?h=%u&w=%u", resize_path, size.ws_row, size.ws_col);
	if (client_json(c, "POST", path, NULL, NULL, &ignored) < 0)
		return;
}

/* Takes whole frames (or raw bytes) from @in to stdout and stderr. */
static int drain_frames(struct buf *in, bool tty)
{
	unsigned char head[8];
	size_t size;
	int rc;

	while (in->len) {
		if (tty) {
			rc = fd_write_full(STDOUT_FILENO, buf_bytes(in), in->len);
			buf_consume(in, in->len);
			return rc;
		}
		if (in->len < sizeof(head))
			return 0;
		memcpy(head, buf_bytes(in), sizeof(head));
		size = (size_t)head[4] << 24 | (size_t)head[5] << 16 | (size_t)head[6] << 8 | head[7];
		if (head[0] > 2 || size > (64U << 20))
			return -EBADMSG;
		if (in->len < sizeof(head) + size)
			return 0;
		rc = fd_write_full(head[0] == 2 ? STDERR_FILENO : STDOUT_FILENO, buf_bytes(in) + sizeof(head), size);
		if (rc < 0)
			return rc;
		buf_consume(in, sizeof(head) + size);
	}
	return 0;
}

int stream_frames(struct reply *r, bool tty, struct err *err)
{
	CLEAN_BUF struct buf in = BUF_INIT;
	CLEAN_FREE char *piece = malloc(65536);
	ssize_t got;
	int rc;

	if (!piece)
		return err_sys(err, ENOMEM, "read the stream");
	while ((got = reply_read(r, piece, 65536, err)) > 0) {
		rc = buf_append(&in, piece, (size_t)got);
		if (!rc)
			rc = drain_frames(&in, tty);
		if (rc < 0)
			return err_sys(err, -rc, "write the output");
	}
	return (int)got;
}

/* Copies what stdin has to the container. Return: false at its end. */
static bool pump_stdin(int sock)
{
	char piece[32768];
	ssize_t got = read(STDIN_FILENO, piece, sizeof(piece));

	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (got <= 0 || fd_write_full(sock, piece, (size_t)got) < 0) {
		(void)shutdown(sock, SHUT_WR);
		return false;
	}
	return true;
}

int stream_session(struct reply *r, const struct stream_options *o, struct err *err)
{
	CLEAN(raw_end) struct raw_terminal terminal = { 0 };
	CLEAN_BUF struct buf in = BUF_INIT;
	CLEAN_FD int winch = -1;
	bool reading = o->stdin_open;
	struct signalfd_siginfo sig;
	sigset_t set;
	ssize_t got;
	int rc;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGWINCH);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	winch = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (o->tty && o->stdin_open)
		raw_begin(&terminal);
	rc = buf_append(&in, buf_bytes(&r->in), r->in.len);
	if (!rc)
		rc = drain_frames(&in, o->tty);
	while (!rc) {
		struct pollfd p[] = {
			{ .fd = r->fd, .events = POLLIN },
			{ .fd = reading ? STDIN_FILENO : -1, .events = POLLIN },
			{ .fd = winch, .events = POLLIN },
		};

		if (poll(p, ARRAY_LEN(p), -1) < 0) {
			if (errno == EINTR)
				continue;
			return err_sys(err, errno, "wait for the session");
		}
		if (p[2].revents & POLLIN && read(winch, &sig, sizeof(sig)) > 0)
			stream_resize(o->client, o->resize_path);
		if (p[1].revents)
			reading = pump_stdin(r->fd);
		if (!p[0].revents)
			continue;
		got = buf_read(&in, r->fd, 65536);
		if (!got || got == -ECONNRESET)
			return 0;
		if (got < 0)
			return err_sys(err, (int)-got, "read from the container");
		rc = drain_frames(&in, o->tty);
	}
	return err_sys(err, -rc, "write the container's output");
}
