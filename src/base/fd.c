/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors. */
#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

ssize_t fd_read_full(int fd, void *bytes, size_t n)
{
	size_t done = 0;
	ssize_t got;

	while (done < n) {
		got = read(fd, (char *)bytes + done, n - done);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (!got)
			break;
		done += (size_t)got;
	}
	return (ssize_t)done;
}

int fd_write_full(int fd, const void *bytes, size_t n)
{
	size_t done = 0;
	ssize_t put;

	while (done < n) {
		put = write(fd, (const char *)bytes + done, n - done);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		done += (size_t)put;
	}
	return 0;
}

int fd_pwrite_full(int fd, const void *bytes, size_t n, off_t at)
{
	size_t done = 0;
	ssize_t put;

	while (done < n) {
		put = pwrite(fd, (const char *)bytes + done, n - done, at + (off_t)done);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		done += (size_t)put;
	}
	return 0;
}

int fd_set_nonblock(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0 ? -errno : 0;
}

int fd_set_cloexec(int fd, bool on)
{
	return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0) < 0 ? -errno : 0;
}

int fd_open_beneath(int dir, const char *path, int flags, mode_t mode, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
		.mode = flags & (O_CREAT | O_TMPFILE) ? mode : 0,
		.resolve = resolve | RESOLVE_IN_ROOT,
	};
	long fd;

	do
		fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));
	while (fd < 0 && (errno == EINTR || errno == EAGAIN));
	return fd < 0 ? -errno : (int)fd;
}

char *fd_read_file(int dir, const char *path, size_t max, size_t *len, struct err *err)
{
	CLEAN_FREE char *text = NULL;
	CLEAN_FD int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	size_t size = 4096, used = 0;
	ssize_t got;
	char *grown;

	if (fd < 0) {
		(void)err_sys(err, errno, "open %s", path);
		return NULL;
	}
	for (;;) {
		grown = realloc(text, size + 1);
		if (!grown) {
			(void)err_sys(err, ENOMEM, "read %s", path);
			return NULL;
		}
		text = grown;
		got = fd_read_full(fd, text + used, size - used);
		if (got < 0) {
			(void)err_sys(err, (int)-got, "read %s", path);
			return NULL;
		}
		used += (size_t)got;
		if (used > max) {
			(void)err_set(err, EFBIG, "%s has more than %zu bytes", path, max);
			return NULL;
		}
		if (used < size)
			break;
		size *= 2;
	}
	text[used] = '\0';
	if (len)
		*len = used;
	return take_ptr(text);
}

int fd_write_file(int dir, const char *path, int flags, const void *bytes, size_t n, struct err *err)
{
	CLEAN_FD int fd = openat(dir, path, flags | O_CLOEXEC, 0644);
	int rc;

	if (fd < 0)
		return err_sys(err, errno, "open %s", path);
	rc = fd_write_full(fd, bytes, n);
	return rc < 0 ? err_sys(err, -rc, "write %s", path) : 0;
}

int fd_replace_file(int dir, const char *path, const void *bytes, size_t n, mode_t mode, struct err *err)
{
	CLEAN_FREE char *beside = NULL;
	CLEAN_FD int fd = -1;
	int rc;

	if (asprintf(&beside, "%s.new", path) < 0) {
		beside = NULL;
		return err_sys(err, ENOMEM, "write %s", path);
	}
	fd = openat(dir, beside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return err_sys(err, errno, "create %s", beside);
	rc = fd_write_full(fd, bytes, n);
	if (!rc && fsync(fd) < 0)
		rc = -errno;
	if (!rc && renameat(dir, beside, dir, path) < 0)
		rc = -errno;
	if (rc < 0) {
		(void)unlinkat(dir, beside, 0);
		return err_sys(err, -rc, "write %s", path);
	}
	return 0;
}

int fd_mkdir_p(const char *path, mode_t mode, struct err *err)
{
	CLEAN_FREE char *copy = strdup(path);
	char *slash;

	if (!copy)
		return err_sys(err, ENOMEM, "create folder %s", path);
	for (slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(copy, mode) < 0 && errno != EEXIST)
			return err_sys(err, errno, "create folder %s", copy);
		*slash = '/';
	}
	if (mkdir(copy, mode) < 0 && errno != EEXIST)
		return err_sys(err, errno, "create folder %s", copy);
	return 0;
}

#define REMOVE_ROUNDS 100

static int remove_folder(int dir, const char *name, unsigned depth);

static int remove_entries(DIR *d, unsigned depth)
{
	struct dirent *e;
	int rc;

	rewinddir(d);
	while ((errno = 0, e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (!unlinkat(dirfd(d), e->d_name, 0) || errno == ENOENT)
			continue;
		if (errno != EISDIR && errno != EPERM)
			return -errno;
		rc = remove_folder(dirfd(d), e->d_name, depth + 1);
		if (rc < 0 && rc != -ENOENT)
			return rc;
	}
	return -errno;
}

static int remove_folder(int dir, const char *name, unsigned depth)
{
	CLEAN_DIR DIR *d = NULL;
	int fd, rc;

	if (depth > 512)
		return -ELOOP;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	d = fdopendir(fd);
	if (!d) {
		rc = -errno;
		(void)close(fd);
		return rc;
	}
	/* a process that ends at the same time may still make a file or two, such as its socket */
	for (int round = 0; round < REMOVE_ROUNDS; round++) {
		rc = remove_entries(d, depth);
		if (rc < 0)
			return rc;
		rc = unlinkat(dir, name, AT_REMOVEDIR) < 0 ? -errno : 0;
		if (rc != -ENOTEMPTY)
			break;
	}
	return rc;
}

int fd_remove_tree(int dir, const char *path, struct err *err)
{
	int rc = 0;

	if (unlinkat(dir, path, 0) < 0) {
		rc = -errno;
		if (rc == -EISDIR || rc == -EPERM)
			rc = remove_folder(dir, path, 0);
	}
	if (rc < 0 && rc != -ENOENT)
		return err_sys(err, -rc, "remove %s", path);
	return 0;
}

ssize_t fd_send(int sock, const void *bytes, size_t n, const int *fds, size_t nfds)
{
	union {
		char room[CMSG_SPACE(sizeof(int) * FD_PASS_MAX)];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;
	ssize_t put;

	if (nfds > FD_PASS_MAX)
		return -EINVAL;
	if (nfds) {
		msg.msg_control = control.room;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	do
		put = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (put < 0 && errno == EINTR);
	return put < 0 ? -errno : put;
}

ssize_t fd_recv(int sock, void *bytes, size_t n, int *fds, size_t *nfds)
{
	union {
		char room[CMSG_SPACE(sizeof(int) * FD_PASS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = bytes, .iov_len = n };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.room,
		.msg_controllen = sizeof(control.room),
	};
	struct cmsghdr *c;
	ssize_t got;

	*nfds = 0;
	do
		got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	for (c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		*nfds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), *nfds * sizeof(int));
	}
	return got;
}
