/* SPDX-License-Identifier: Apache-2.0 */
/* The copy of a folder's contents into a new tmpfs (mount option tmpcopyup) or a new volume. Never follows a link. */
#include <fcntl.h>
#include <search.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/copy.h"
#include "container/internal.h"

#define DEPTH_MAX 128
#define ATTRS_MAX 65536

/* A file with several names: where its copy is. */
struct seen {
	dev_t dev;
	ino_t ino;
	int dir; /* a descriptor of the folder of the first copy; owned */
	char *name;
};

struct copy {
	const char *what;
	void *seen; /* tsearch tree of struct seen */
	struct err *err;
};

static int copy_folder(struct copy *c, int from, int to, unsigned int depth);

static int fail(const struct copy *c, int code, const char *doing, const char *name)
{
	return err_sys(c->err, code, "%s: cannot %s %s", c->what, doing, name);
}

static int seen_compare(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->dev == y->dev ? 0 : x->dev < y->dev ? -1 : 1;
}

static void seen_free(void *p)
{
	struct seen *s = p;

	close_fd(&s->dir);
	free(s->name);
	free(s);
}

/* The first copy of a file that has more names than this, or NULL (then this one is remembered). */
static const struct seen *find_seen(struct copy *c, const struct stat *st, int to, const char *name)
{
	struct seen key = { .dev = st->st_dev, .ino = st->st_ino }, *s, **at;

	if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
		return NULL;
	at = tfind(&key, &c->seen, seen_compare);
	if (at)
		return *at;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL; /* a copy more */
	*s = key;
	s->dir = fcntl(to, F_DUPFD_CLOEXEC, 3);
	s->name = strdup(name);
	if (s->dir < 0 || !s->name || !tsearch(s, &c->seen, seen_compare))
		seen_free(s);
	return NULL;
}

static int copy_bytes(int from, int to)
{
	for (;;) {
		ssize_t n = sendfile(to, from, NULL, 1 << 30);

		if (n <= 0)
			return n < 0 ? -errno : 0;
	}
}

/* Attributes that the filesystem does not take (tmpfs knows few) are left out. */
static void copy_attributes(int from, int to)
{
	CLEAN_FREE char *names = malloc(ATTRS_MAX), *value = malloc(ATTRS_MAX);
	ssize_t n = names && value ? flistxattr(from, names, ATTRS_MAX) : 0;

	for (char *name = names; n > 0 && name < names + n; name += strlen(name) + 1) {
		ssize_t size = fgetxattr(from, name, value, ATTRS_MAX);

		if (size >= 0 && fsetxattr(to, name, value, (size_t)size, 0) < 0)
			continue;
	}
}

/* The owner first: a new owner takes set-user-id bits and capabilities away. */
static int copy_look(const struct copy *c, int from, int to, const struct stat *st, const char *name)
{
	const struct timespec times[2] = { st->st_atim, st->st_mtim };

	if (fchown(to, st->st_uid, st->st_gid) < 0 || fchmod(to, st->st_mode & 07777) < 0)
		return fail(c, errno, "set the owner of", name);
	copy_attributes(from, to);
	return futimens(to, times) < 0 ? fail(c, errno, "set the times of", name) : 0;
}

static int copy_file(struct copy *c, int from, int to, const char *name, const struct stat *st, unsigned int depth)
{
	bool folder = S_ISDIR(st->st_mode);
	CLEAN_FD int in =
		openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | (folder ? O_DIRECTORY : 0));
	CLEAN_FD int out = -1;
	int r;

	if (in < 0)
		return fail(c, errno, "open", name);
	if (folder && mkdirat(to, name, 0700) < 0)
		return fail(c, errno, "make", name);
	out = openat(to, name, O_NOFOLLOW | O_CLOEXEC | (folder ? O_RDONLY | O_DIRECTORY : O_WRONLY | O_CREAT | O_EXCL),
		     0600);
	if (out < 0)
		return fail(c, errno, "make", name);
	r = folder ? copy_folder(c, in, out, depth + 1) : copy_bytes(in, out);
	if (r < 0)
		return folder ? r : fail(c, -r, "copy", name);
	return copy_look(c, in, out, st, name);
}

static int copy_entry(struct copy *c, int from, int to, const char *name, unsigned int depth)
{
	const struct seen *first;
	struct stat st;
	char link[4096];
	ssize_t n;

	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(c, errno, "look at", name);
	first = find_seen(c, &st, to, name);
	if (first)
		return linkat(first->dir, first->name, to, name, 0) < 0 ? fail(c, errno, "link", name) : 0;
	if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))
		return copy_file(c, from, to, name, &st, depth);
	if (S_ISLNK(st.st_mode)) {
		n = readlinkat(from, name, link, sizeof(link) - 1);
		if (n < 0)
			return fail(c, errno, "read the link", name);
		link[n] = 0;
		if (symlinkat(link, to, name) < 0)
			return fail(c, errno, "make the link", name);
	} else if (mknodat(to, name, st.st_mode, st.st_rdev) < 0 || fchmodat(to, name, st.st_mode & 07777, 0) < 0) {
		return fail(c, errno, "make the node", name);
	}
	if (fchownat(to, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(c, errno, "set the owner of", name);
	return utimensat(to, name, (const struct timespec[2]){ st.st_atim, st.st_mtim }, AT_SYMLINK_NOFOLLOW) < 0
		       ? fail(c, errno, "set the times of", name)
		       : 0;
}

static int copy_folder(struct copy *c, int from, int to, unsigned int depth)
{
	int fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	CLEAN_DIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d || depth > DEPTH_MAX) {
		r = errno;
		if (fd >= 0 && !d)
			(void)close(fd);
		return fail(c, depth > DEPTH_MAX ? ELOOP : r, "list", "a folder");
	}
	while (r == 0 && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = copy_entry(c, fd, to, e->d_name, depth);
	return r;
}

int container_copy_tree(int from, int to, const char *what, struct err *err)
{
	struct copy c = { .what = what, .err = err };
	int r = copy_folder(&c, from, to, 0);

	tdestroy(c.seen, seen_free);
	return r;
}

int container_copy_look(int from, int to, const char *what, struct err *err)
{
	const struct copy c = { .what = what, .err = err };
	struct stat st;

	if (fstat(from, &st) < 0)
		return fail(&c, errno, "look at", "the folder");
	return copy_look(&c, from, to, &st, "the folder");
}

int copy_tree(int from, int to, struct err *err)
{
	return container_copy_tree(from, to, "tmpcopyup", err);
}
