/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Release of resources by scope: the one idiom used throughout Walnut.
 *
 *	CLEAN_FREE char *path = NULL;
 *	CLEAN_FD int fd = -1;
 *	...
 *	return take_fd(&fd);		(hand the descriptor over to the caller)
 *
 * A variable marked CLEAN_* must be initialised where it is declared.
 */
#ifndef WALNUT_BASE_CLEANUP_H
#define WALNUT_BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *p)
{
	int saved = errno;

	free(*(void **)p);
	errno = saved;
}

static inline void cleanup_fd(const int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		(void)close(*fd);
	errno = saved;
}

static inline void cleanup_file(FILE **f)
{
	if (*f)
		(void)fclose(*f);
}

static inline void cleanup_dir(DIR **d)
{
	if (*d)
		(void)closedir(*d);
}

#define CLEAN_FREE __attribute__((cleanup(cleanup_free), unused))
#define CLEAN_FD   __attribute__((cleanup(cleanup_fd), unused))
#define CLEAN_FILE __attribute__((cleanup(cleanup_file), unused))
#define CLEAN_DIR  __attribute__((cleanup(cleanup_dir), unused))
#define CLEAN(fn)  __attribute__((cleanup(fn), unused))

/* take_fd - the descriptor in *fd, whose variable no longer owns it. */
static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

/* close_fd - close *fd if it is open and mark it closed. */
static inline void close_fd(int *fd)
{
	cleanup_fd(fd);
	*fd = -1;
}

/* take_ptr - the pointer in p, which becomes NULL. */
#define take_ptr(p)                         \
	({                                  \
		__typeof__(p) taken_ = (p); \
		(p) = NULL;                 \
		taken_;                     \
	})

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
