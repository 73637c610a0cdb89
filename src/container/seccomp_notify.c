/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filter may ask the listener about any call, sendmsg and write too, so the process that has loaded it can not be
 * the one that hands the listener over. A thread that was made before, and so has no filter, does. Until it is done the
 * other makes no system call at all.
 */
#include "container/seccomp_notify.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "container/internal.h"

#define WAITING    (-1)
#define STACK_SIZE (64U << 10)

int seccomp_notify_connect(const struct oci_seccomp *s, struct container_config *config, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	CLEAN_FD int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(s->listener_path) >= sizeof(a.sun_path))
		return err_set(err, ENAMETOOLONG, "linux.seccomp.listenerPath %s is longer than %zu bytes",
			       s->listener_path, sizeof(a.sun_path) - 1);
	(void)strcpy(a.sun_path, s->listener_path);
	if (sock < 0 || connect(sock, (struct sockaddr *)&a, sizeof(a)) < 0)
		return err_sys(err, errno, "cannot connect to linux.seccomp.listenerPath %s", s->listener_path);
	config->host_proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (config->host_proc < 0) {
		config->host_proc = 0;
		return err_sys(err, errno, "cannot open /proc");
	}
	config->seccomp_socket = take_fd(&sock);
	return 0;
}

void seccomp_notify_close(struct container_config *config)
{
	if (config->seccomp_socket > 0)
		(void)close(config->seccomp_socket);
	if (config->host_proc > 0)
		(void)close(config->host_proc);
	config->seccomp_socket = config->host_proc = 0;
}

char *seccomp_notify_message(const struct container_config *config, const char *status)
{
	const struct oci_seccomp *s = config->spec ? config->spec->seccomp : NULL;
	CLEAN_FREE char *state = NULL;
	CLEAN_JSON json_t *o = NULL, *parsed = NULL;
	char number[24];
	ssize_t n;
	pid_t pid;

	if (!s || config->seccomp_socket <= 0)
		return NULL;
	/* our number in the host's pid namespace, which getpid() does not tell: proc(5), /proc/self */
	n = readlinkat(config->host_proc, "self", number, sizeof(number) - 1);
	if (n <= 0)
		return NULL;
	number[n] = '\0';
	pid = atoi(number);
	state = container_state_text(config, status, pid);
	parsed = state ? json_loads(state, 0, NULL) : NULL;
	o = parsed ? json_pack("{s:O, s:[s], s:i, s:s, s:O}", "ociVersion", json_object_get(parsed, "ociVersion"),
			       "fds", "seccompFd", "pid", (int)pid, "metadata",
			       s->listener_metadata ? s->listener_metadata : "", "state", parsed)
		   : NULL;
	return o ? json_text(o) : NULL;
}

struct handover {
	int sock;
	const char *message;
	atomic_int fd;   /* WAITING, or what the kernel gave: a descriptor or -errno - 1 */
	atomic_int done; /* WAITING, 0, or an errno */
};

static void *hand_over(void *arg)
{
	struct handover *h = arg;
	int fd, e = 0;

	while ((fd = atomic_load(&h->fd)) == WAITING)
		(void)sched_yield();
	if (fd >= 0) {
		ssize_t n = fd_send(h->sock, h->message, strlen(h->message), &fd, 1);

		e = n < 0 ? (int)-n : 0;
		(void)close(h->sock);
		(void)close(fd);
	}
	atomic_store(&h->done, e);
	return NULL;
}

int seccomp_notify_load(const void *bpf, size_t size, unsigned int flags, int sock, const char *message,
			struct err *err)
{
	struct sock_fprog prog = { .len = (unsigned short)(size / sizeof(struct sock_filter)),
				   .filter = (struct sock_filter *)(uintptr_t)bpf };
	static struct handover h;
	pthread_attr_t attr;
	pthread_t thread;
	long fd;
	int e;

	h.sock = sock;
	h.message = message;
	atomic_store(&h.fd, WAITING);
	atomic_store(&h.done, WAITING);
	e = pthread_attr_init(&attr);
	if (!e)
		e = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (!e)
		e = pthread_attr_setstacksize(&attr, STACK_SIZE);
	if (!e)
		e = pthread_create(&thread, &attr, hand_over, &h);
	if (e)
		return err_sys(err, e, "linux.seccomp: cannot make the thread that hands the listener over");
	/* TSYNC would give that thread the filter; the program that follows has one thread anyway */
	fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		     (flags & ~(unsigned int)SECCOMP_FILTER_FLAG_TSYNC) | SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
	e = fd < 0 ? errno : 0;
	atomic_store(&h.fd, fd < 0 ? -e - 1 : (int)fd);
	while (atomic_load(&h.done) == WAITING)
		;
	if (e)
		return err_sys(err, e, "cannot load the seccomp filter with a listener");
	e = atomic_load(&h.done);
	return e ? err_sys(err, e, "cannot send the seccomp listener to linux.seccomp.listenerPath") : 0;
}
