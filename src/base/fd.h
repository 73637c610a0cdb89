/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors: whole reads and writes, safe opening, passing, small files. All descriptors made here are close-on-exec. */
#ifndef WALNUT_BASE_FD_H
#define WALNUT_BASE_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* fd_read_full - read until @n bytes or the end of the file. Return: bytes read or -errno. */
ssize_t fd_read_full(int fd, void *bytes, size_t n) MUST_CHECK;
/* fd_write_full - write all of it. Return: 0 or -errno. */
int fd_write_full(int fd, const void *bytes, size_t n) MUST_CHECK;
int fd_pwrite_full(int fd, const void *bytes, size_t n, off_t at) MUST_CHECK;
int fd_set_nonblock(int fd, bool on) MUST_CHECK;
/* fd_set_cloexec - on or off. */
int fd_set_cloexec(int fd, bool on) MUST_CHECK;

/**
 * fd_open_beneath - open a path that must stay below a folder
 * @dir: descriptor of the folder that is "/" for @path and for symlinks in it (openat2 RESOLVE_IN_ROOT)
 * @resolve: further RESOLVE_* flags, e.g. RESOLVE_NO_SYMLINKS
 *
 * Return: descriptor (owned by the caller) or -errno.
 */
int fd_open_beneath(int dir, const char *path, int flags, mode_t mode, uint64_t resolve) MUST_CHECK;

/* fd_read_file - the whole file, NUL-terminated, at most @max bytes. Owned by the caller (free); NULL on error. */
char *fd_read_file(int dir, const char *path, size_t max, size_t *len, struct err *err) MUST_CHECK;
/* fd_write_file - create or truncate and write (for /proc, /sys and cgroup files: @flags O_WRONLY). */
int fd_write_file(int dir, const char *path, int flags, const void *bytes, size_t n, struct err *err) MUST_CHECK;
/* fd_replace_file - write beside, fsync, rename: a reader or a crash sees the old or the new, never half. */
int fd_replace_file(int dir, const char *path, const void *bytes, size_t n, mode_t mode, struct err *err) MUST_CHECK;
/* fd_mkdir_p - make a folder and its parents. Return: 0 or -errno. */
int fd_mkdir_p(const char *path, mode_t mode, struct err *err) MUST_CHECK;
/* fd_remove_tree - remove a file or a folder with all in it; never follows symlinks; absent is success. */
int fd_remove_tree(int dir, const char *path, struct err *err) MUST_CHECK;

#define FD_PASS_MAX 64
/* fd_send - send bytes (at least one) with descriptors over a unix socket. Return: bytes sent or -errno. */
ssize_t fd_send(int sock, const void *bytes, size_t n, const int *fds, size_t nfds) MUST_CHECK;
/**
 * fd_recv - receive bytes and descriptors from a unix socket
 * @fds: room for FD_PASS_MAX descriptors; the caller owns those that arrive (close-on-exec)
 * @nfds: set to their number
 *
 * Return: bytes, 0 when the peer closed, or -errno.
 */
ssize_t fd_recv(int sock, void *bytes, size_t n, int *fds, size_t *nfds) MUST_CHECK;

#endif
