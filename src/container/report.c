/* SPDX-License-Identifier: Apache-2.0 */
/* The words between a container's creator and the processes it sets up: see container.c. */
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/internal.h"

int report_send(int sync, enum report_kind kind, pid_t pid, int fd)
{
	struct report r = { .kind = kind, .pid = pid };
	ssize_t n = fd_send(sync, &r, sizeof(r), &fd, fd >= 0 ? 1 : 0);

	return n < 0 ? (int)n : 0;
}

_Noreturn void report_fail(int sync, enum container_exec_failure why, const struct err *err)
{
	struct report r = { .kind = REPORT_FAILED, .why = why, .err = *err };

	if (send(sync, &r, sizeof(r), MSG_NOSIGNAL) < 0)
		_exit(126);
	_exit(127);
}

int report_receive(int sync, struct report *r, int *fd, struct err *err)
{
	int fds[FD_PASS_MAX];
	size_t n = 0;
	ssize_t got = fd_recv(sync, r, sizeof(*r), fds, &n);

	for (size_t i = 0; i < n; i++) {
		if (i == 0 && fd && *fd < 0)
			*fd = fds[0];
		else
			(void)close(fds[i]);
	}
	if (got == -ECONNRESET || got == 0)
		return 0;
	if (got != (ssize_t)sizeof(*r))
		return err_sys(err, got < 0 ? (int)-got : EPROTO, "cannot hear from the container's first process");
	if (r->kind == REPORT_FAILED) {
		r->err.msg[ERR_MSG_SIZE - 1] = 0;
		return err_set(err, r->err.code ? r->err.code : EIO, "%s", r->err.msg);
	}
	return 1;
}

int report_go(int sync, struct err *err)
{
	return send(sync, "g", 1, MSG_NOSIGNAL) == 1 ? 0 : err_sys(err, errno, "the container's first process is gone");
}

int report_wait_go(int sync)
{
	char byte;
	ssize_t n;

	do
		n = recv(sync, &byte, 1, 0);
	while (n < 0 && errno == EINTR);
	return n == 1 ? 0 : n == 0 ? -ECANCELED : -errno;
}
