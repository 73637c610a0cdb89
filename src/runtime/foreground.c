/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container whose command line waits for it: signals are passed on, our terminal is joined to the
 * container's, the exit status becomes ours. And handing the terminal to somebody else (--console-socket).
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>

#include "base/buf.h"
#include "base/fd.h"
#include "runtime/runtime.h"

#define PENDING_MAX (64U << 10)

int console_send(const char *path, int master, struct err *err)
{
	CLEAN_FD int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char name[64] = "/dev/ptmx";
	ssize_t n;

	if (strlen(path) >= sizeof(sa.sun_path))
		return err_set(err, ENAMETOOLONG, "--console-socket %s: a socket's path has at most %zu bytes", path,
			       sizeof(sa.sun_path) - 1);
	(void)strcpy(sa.sun_path, path);
	if (sock < 0 || connect(sock, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return err_sys(err, errno, "cannot connect to --console-socket %s", path);
	n = fd_send(sock, name, strlen(name), &master, 1);
	return n < 0 ? err_sys(err, (int)-n, "cannot send the terminal to --console-socket %s", path) : 0;
}

int write_pid_file(const char *path, pid_t pid, struct err *err)
{
	char text[16];
	int r;

	(void)snprintf(text, sizeof(text), "%d", pid);
	r = fd_write_file(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, text, strlen(text), err);
	return r < 0 ? err_wrap(err, "--pid-file") : 0;
}

int parse_count(const char *text, const char *what, unsigned int max, unsigned int *out, struct err *err)
{
	unsigned long n = isdigit((unsigned char)*text) ? strtoul(text, NULL, 10) : ULONG_MAX;

	if (strspn(text, "0123456789") != strlen(text) || n > max)
		return err_set(err, EINVAL, "%s is '%s'; a number from 0 to %u is expected", what, text, max);
	*out = (unsigned int)n;
	return 0;
}

int reserve_descriptors(unsigned int *n, struct err *err)
{
	unsigned int last = 0;

	for (unsigned int i = 0; i < *n; i++)
		if (fcntl((int)i + 3, F_GETFD) >= 0)
			last = i + 1;
	*n = last;
	for (unsigned int i = 0; i < last; i++) {
		int fd = fcntl((int)i + 3, F_GETFD) >= 0 ? -1 : open("/dev/null", O_RDONLY | O_CLOEXEC);

		/* the lowest that is free: the one in question */
		if (fd >= 0 && fd != (int)i + 3)
			return err_set(err, EBADF, "--preserve-fds: descriptor %u can not be reserved", i + 3);
	}
	return 0;
}

static void passed_signals(sigset_t *set)
{
	(void)sigfillset(set);
	/* what is ours, and what a fault of ours would raise */
	for (const int *s = (const int[]){ SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGTTIN, SIGTTOU, 0 }; *s;
	     s++)
		(void)sigdelset(set, *s);
}

void foreground_block(void)
{
	sigset_t set;

	passed_signals(&set);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
}

struct foreground {
	int pidfd, console, signals;
	struct buf in, out; /* to the container, from it */
	bool input_open;
	bool raw;
	struct termios saved;
};

static void foreground_fini(struct foreground *f)
{
	if (f->raw)
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &f->saved);
	close_fd(&f->signals);
	buf_free(&f->in);
	buf_free(&f->out);
}

static void copy_size(int console)
{
	struct winsize ws;

	if (console >= 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) == 0)
		(void)ioctl(console, TIOCSWINSZ, &ws);
}

static void make_raw(struct foreground *f)
{
	struct termios raw;

	if (f->console < 0 || tcgetattr(STDIN_FILENO, &f->saved) < 0)
		return;
	raw = f->saved;
	cfmakeraw(&raw);
	f->raw = tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) == 0;
	copy_size(f->console);
}

static void pass_signals(struct foreground *f)
{
	struct signalfd_siginfo info;

	while (read(f->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		int sig = (int)info.ssi_signo;

		if (sig == SIGWINCH)
			copy_size(f->console);
		else if (sig != SIGCHLD && sig != SIGPIPE && sig != SIGURG &&
			 syscall(SYS_pidfd_send_signal, f->pidfd, sig, NULL, 0) < 0)
			continue; /* it has just ended: the poll says so */
	}
}

/* Move bytes between stdin, the terminal and stdout. Return: false at the terminal's end. */
static bool copy_console(struct foreground *f, const struct pollfd *in, const struct pollfd *console)
{
	ssize_t n;

	if (in->revents) {
		n = buf_read(&f->in, STDIN_FILENO, 16384);
		f->input_open = n > 0 || n == -EAGAIN || n == -EINTR;
	}
	if (console->revents & POLLOUT && f->in.len && buf_write(&f->in, f->console) < 0)
		f->in.len = 0;
	if (console->revents & (POLLIN | POLLHUP)) {
		n = buf_read(&f->out, f->console, 16384);
		if (n == 0 || n == -EIO)
			return false;
	}
	if (f->out.len) {
		if (fd_write_full(STDOUT_FILENO, buf_bytes(&f->out), f->out.len) < 0)
			errno = 0; /* nobody reads: the container goes on */
		buf_consume(&f->out, f->out.len);
	}
	return true;
}

static void round_(struct foreground *f, bool *ended)
{
	struct pollfd p[4] = {
		{ .fd = f->pidfd, .events = POLLIN },
		{ .fd = f->signals, .events = POLLIN },
		{ .fd = f->console, .events = (short)(POLLIN | (f->in.len ? POLLOUT : 0)) },
		{ .fd = f->console >= 0 && f->input_open && f->in.len < PENDING_MAX ? STDIN_FILENO : -1,
		  .events = POLLIN },
	};

	if (poll(p, 4, -1) < 0)
		return;
	if (p[1].revents)
		pass_signals(f);
	if (f->console >= 0 && !copy_console(f, &p[3], &p[2]))
		f->console = -1;
	*ended = p[0].revents != 0;
}

/* What was written before the end is still in the terminal. */
static void drain(struct foreground *f)
{
	struct pollfd none = { 0 }, p = { .fd = f->console, .events = POLLIN };

	while (f->console >= 0 && poll(&p, 1, 0) > 0 && copy_console(f, &none, &p))
		;
}

int foreground_wait(pid_t pid, int pidfd, int console, struct err *err)
{
	CLEAN(foreground_fini) struct foreground f = { .pidfd = pidfd, .console = console, .input_open = true };
	bool ended = false;
	siginfo_t info = { 0 };
	sigset_t set;

	passed_signals(&set);
	f.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (f.signals < 0)
		return err_sys(err, errno, "cannot watch signals");
	make_raw(&f);
	while (!ended)
		round_(&f, &ended);
	drain(&f);
	while (waitid(P_PID, (id_t)pid, &info, WEXITED) < 0)
		if (errno != EINTR)
			return err_sys(err, errno, "cannot wait for the container's process %d", pid);
	return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}
