/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files to a tar archive (POSIX.1-2001 pax): ustar headers, with an extended header where ustar cannot say it: long names,
 * large numbers, parts of a second, extended attributes. Sockets have no form in an archive and are left out, as Docker does.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "tree/tree.h"

#define BLOCK     512
#define DEPTH_MAX 1024

struct seen { /* a file with several names */
	dev_t dev;
	ino_t ino;
	char *name;
};

struct writer {
	int out;
	dev_t dev; /* of the first entry: others are mounts */
	struct buf buf;
	void *seen; /* tsearch tree of struct seen */
	bool layer; /* overlayfs's marks become whiteouts */
	int lower;  /* of a layer: the image's root */
};

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

	free(s->name);
	free(s);
}

static int flush(struct writer *w, size_t least, struct err *err)
{
	int rc = 0;

	if (w->buf.len >= least && w->buf.len) {
		rc = fd_write_full(w->out, buf_bytes(&w->buf), w->buf.len);
		buf_consume(&w->buf, w->buf.len);
	}
	return rc < 0 ? err_sys(err, -rc, "write the archive") : 0;
}

static int put(struct writer *w, const void *bytes, size_t n, struct err *err)
{
	if (buf_append(&w->buf, bytes, n))
		return err_sys(err, ENOMEM, "write the archive");
	return flush(w, 1 << 18, err);
}

static int pad(struct writer *w, uint64_t size, struct err *err)
{
	static const char zeros[BLOCK];

	return size % BLOCK ? put(w, zeros, BLOCK - (size_t)(size % BLOCK), err) : 0;
}

/* An extended header's record: "LENGTH KEY=VALUE\n", where LENGTH counts itself. */
static int pax_add(struct buf *pax, const char *key, const void *value, size_t n)
{
	size_t rest = strlen(key) + n + 3, len = rest + 1;
	char digits[24];

	while ((size_t)snprintf(digits, sizeof(digits), "%zu", len) + rest != len)
		len = rest + strlen(digits);
	if (buf_printf(pax, "%zu %s=", len, key) || buf_append(pax, value, n))
		return -ENOMEM;
	return buf_puts(pax, "\n");
}

static int pax_number(struct buf *pax, const char *key, uint64_t value)
{
	char text[24];

	return pax_add(pax, key, text, (size_t)snprintf(text, sizeof(text), "%llu", (unsigned long long)value));
}

/* A number in octal; false when it does not fit (then the extended header says it). */
static bool octal(char *field, size_t width, uint64_t value)
{
	bool fits = value < UINT64_C(1) << (3 * (width - 1));

	(void)snprintf(field, width, "%0*llo", (int)width - 1, (unsigned long long)(fits ? value : 0));
	return fits;
}

static int put_header(struct writer *w, const char *name, const char *link, const struct stat *st, char type,
		      uint64_t size, struct err *err)
{
	char h[BLOCK] = { 0 };
	unsigned sum = 0;

	(void)strncpy(h, name, 100);
	(void)octal(h + 100, 8, st->st_mode & 07777);
	(void)octal(h + 108, 8, st->st_uid);
	(void)octal(h + 116, 8, st->st_gid);
	(void)octal(h + 124, 12, size);
	(void)octal(h + 136, 12, st->st_mtim.tv_sec < 0 ? 0 : (uint64_t)st->st_mtim.tv_sec);
	memset(h + 148, ' ', 8);
	h[156] = type;
	(void)strncpy(h + 157, link, 100);
	memcpy(h + 257, "ustar\00000", 8);
	if (type == '3' || type == '4') {
		(void)octal(h + 329, 8, major(st->st_rdev));
		(void)octal(h + 337, 8, minor(st->st_rdev));
	}
	for (size_t i = 0; i < BLOCK; i++)
		sum += (unsigned char)h[i];
	(void)snprintf(h + 148, 8, "%06o", sum);
	return put(w, h, BLOCK, err);
}

static int pax_xattrs(struct buf *pax, const char *proc_path)
{
	char names[65536], value[65536], key[300];
	ssize_t n = llistxattr(proc_path, names, sizeof(names)), len;
	int rc = 0;

	for (const char *name = names; n > 0 && name < names + n && !rc; name += strlen(name) + 1) {
		/* the overlay's own and those that only root of the host may see are no part of the file */
		if (strncmp(name, "user.", 5) && strcmp(name, "security.capability"))
			continue;
		len = lgetxattr(proc_path, name, value, sizeof(value));
		if (len < 0 || snprintf(key, sizeof(key), "SCHILY.xattr.%s", name) >= (int)sizeof(key))
			continue;
		rc = pax_add(pax, key, value, (size_t)len);
	}
	return rc;
}

static bool ascii(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text >= 0x80)
			return false;
	return true;
}

/* The extended header, if there is anything to say in it, and the header. */
static int put_entry(struct writer *w, int dir, const char *file, const char *name, const char *link,
		     const struct stat *st, char type, uint64_t size, struct err *err)
{
	CLEAN_BUF struct buf pax = BUF_INIT;
	char path[PATH_MAX + 64], stamp[48];
	char field[12];
	int rc = 0;

	if (strlen(name) > 100 || !ascii(name))
		rc = pax_add(&pax, "path", name, strlen(name));
	if (!rc && (strlen(link) > 100 || !ascii(link)))
		rc = pax_add(&pax, "linkpath", link, strlen(link));
	if (!rc && !octal(field, 12, size))
		rc = pax_number(&pax, "size", size);
	if (!rc && !octal(field, 8, st->st_uid))
		rc = pax_number(&pax, "uid", st->st_uid);
	if (!rc && !octal(field, 8, st->st_gid))
		rc = pax_number(&pax, "gid", st->st_gid);
	if (!rc && (st->st_mtim.tv_nsec || st->st_mtim.tv_sec < 0))
		rc = pax_add(&pax, "mtime", stamp,
			     (size_t)snprintf(stamp, sizeof(stamp), "%lld.%09ld", (long long)st->st_mtim.tv_sec,
					      st->st_mtim.tv_nsec));
	if (!rc && type != '1' && type != '2') {
		CLEAN_FD int fd = openat(dir, file, O_PATH | O_NOFOLLOW | O_CLOEXEC);

		(void)snprintf(path, sizeof(path), "%s", file);
		if (fd >= 0 && fchdir(dir) == 0) /* this process has one thread and uses its folder for this only */
			rc = pax_xattrs(&pax, path);
	}
	if (rc)
		return err_sys(err, ENOMEM, "write the archive");
	if (pax.len) {
		struct stat plain = { .st_mode = 0644 };

		if (put_header(w, "PaxHeaders.0/x", "", &plain, 'x', pax.len, err) ||
		    put(w, buf_bytes(&pax), pax.len, err) || pad(w, pax.len, err))
			return -err->code;
	}
	return put_header(w, name, link, st, type, size, err);
}

/* Exactly @size bytes, as the header says: zeros if the file has become shorter. */
static int put_content(struct writer *w, int dir, const char *file, uint64_t size, struct err *err)
{
	CLEAN_FD int fd = openat(dir, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	CLEAN_FREE char *piece = malloc(1 << 16);
	uint64_t left = size;

	if (!piece)
		return err_sys(err, ENOMEM, "read %s", file);
	if (w->layer && fd >= 0 && fgetxattr(fd, "trusted.overlay.metacopy", piece, 0) >= 0)
		return err_set(err, ENOTSUP,
			       "the file %.200s has no content of its own (overlayfs's metacopy): turn it off", file);
	while (left) {
		size_t want = left < 1 << 16 ? (size_t)left : 1 << 16;
		ssize_t got = fd >= 0 ? fd_read_full(fd, piece, want) : 0;

		if (got <= 0) {
			memset(piece, 0, want);
			got = (ssize_t)want;
		}
		if (put(w, piece, (size_t)got, err))
			return -err->code;
		left -= (uint64_t)got;
	}
	return pad(w, size, err);
}

static int put_regular(struct writer *w, int dir, const char *file, const char *name, const struct stat *st,
		       struct err *err)
{
	if (st->st_nlink > 1) {
		struct seen key = { .dev = st->st_dev, .ino = st->st_ino };
		struct seen *const *had = tfind(&key, &w->seen, seen_compare), *add;

		if (had)
			return put_entry(w, dir, file, name, (*had)->name, st, '1', 0, err);
		add = calloc(1, sizeof(*add));
		if (!add || !(add->name = strdup(name)) ||
		    ((*add = (struct seen){ st->st_dev, st->st_ino, add->name }),
		     !tsearch(add, &w->seen, seen_compare))) {
			free(add);
			return err_sys(err, ENOMEM, "write the archive");
		}
	}
	if (put_entry(w, dir, file, name, "", st, '0', (uint64_t)st->st_size, err))
		return -err->code;
	return put_content(w, dir, file, (uint64_t)st->st_size, err);
}

static int add(struct writer *w, int dir, const char *file, const char *name, int depth, struct err *err);

/* --- what is special in a layer --- */

/* The image's file of that name. */
static bool in_lower(const struct writer *w, const char *name, struct stat *st)
{
	CLEAN_FD int fd = fd_open_beneath(w->lower, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);

	return fd >= 0 && !fstat(fd, st);
}

static int put_mark(struct writer *w, const char *name, struct err *err)
{
	const struct stat plain = { .st_mode = S_IFREG | 0600 };
	CLEAN_BUF struct buf pax = BUF_INIT;

	if ((strlen(name) > 100 || !ascii(name)) && pax_add(&pax, "path", name, strlen(name)))
		return err_sys(err, ENOMEM, "write the archive");
	if (pax.len && (put_header(w, "PaxHeaders.0/x", "", &(struct stat){ .st_mode = 0644 }, 'x', pax.len, err) ||
			put(w, buf_bytes(&pax), pax.len, err) || pad(w, pax.len, err)))
		return -err->code;
	return put_header(w, name, "", &plain, '0', 0, err);
}

/* "a/b" is deleted: "a/.wh.b". */
static int put_whiteout(struct writer *w, const char *name, struct err *err)
{
	const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
	CLEAN_FREE char *mark = NULL;
	struct stat st;

	if (!in_lower(w, name, &st))
		return 0;
	if (asprintf(&mark, "%.*s.wh.%s", (int)(base - name), name, base) < 0) {
		mark = NULL;
		return err_sys(err, ENOMEM, "write the archive");
	}
	return put_mark(w, mark, err);
}

static int put_opaque(struct writer *w, int dir, const char *file, const char *slash, struct err *err)
{
	CLEAN_FD int fd = openat(dir, file, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	CLEAN_FREE char *mark = NULL;
	struct stat st;
	char value[8];

	/* Features of overlayfs that we never turn on: what such a folder holds is not below it. */
	if (fd >= 0 && fgetxattr(fd, "trusted.overlay.redirect", value, 0) >= 0)
		return err_set(err, ENOTSUP, "the folder /%.200s was renamed by overlayfs's redirect_dir: turn it off",
			       slash);
	if (fd < 0 || !tree_opaque(fd) || !in_lower(w, slash, &st))
		return 0;
	if (asprintf(&mark, "%s.wh..wh..opq", slash) < 0) {
		mark = NULL;
		return err_sys(err, ENOMEM, "write the archive");
	}
	return put_mark(w, mark, err);
}

static bool skip_folder(const struct writer *w, int dir, const char *file, const char *path, const struct stat *st);

/* Is it there only because the engine put it there? */
static bool skip(const struct writer *w, int dir, const char *file, const char *name)
{
	CLEAN_FREE char *path = NULL;
	struct stat st;

	if (asprintf(&path, "/%s", name) < 0) {
		path = NULL;
		return false;
	}
	if (fstatat(dir, file, &st, AT_SYMLINK_NOFOLLOW) || tree_whiteout(&st))
		return false;
	if (S_ISDIR(st.st_mode))
		return skip_folder(w, dir, file, path, &st);
	return tree_engine_made(path) && (!st.st_size || S_ISLNK(st.st_mode));
}

static bool skip_folder(const struct writer *w, int dir, const char *file, const char *path, const struct stat *st)
{
	struct stat old;
	bool same = in_lower(w, path + 1, &old) && old.st_mode == st->st_mode && old.st_uid == st->st_uid &&
		    old.st_gid == st->st_gid;

	if (!tree_engine_made(path) && !(same && (!strcmp(path, "/etc") || !strcmp(path, "/sbin"))))
		return false;
	int fd = openat(dir, file, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	CLEAN_DIR DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *e;

	while (d && (e = readdir(d))) {
		CLEAN_FREE char *sub = NULL;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (asprintf(&sub, "%s/%s", path + 1, e->d_name) < 0) {
			sub = NULL;
			return false;
		}
		if (!skip(w, dirfd(d), e->d_name, sub))
			return false;
	}
	return true;
}

static int add_below(struct writer *w, int dir, const char *file, const char *name, int depth, struct err *err)
{
	int fd = openat(dir, file, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	CLEAN_DIR DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *e;
	int rc = 0;

	if (!d) {
		close_fd(&fd);
		return errno == ENOENT ? 0 : err_sys(err, errno, "read the folder %s", name);
	}
	if (depth > DEPTH_MAX)
		return err_set(err, ELOOP, "the folder %.200s... is more than %d levels deep", name, DEPTH_MAX);
	while (!rc && (e = readdir(d))) {
		CLEAN_FREE char *sub = NULL;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (asprintf(&sub, "%s%s", name, e->d_name) < 0) {
			sub = NULL;
			return err_sys(err, ENOMEM, "write the archive");
		}
		rc = add(w, dirfd(d), e->d_name, sub, depth + 1, err);
	}
	return rc;
}

static int add(struct writer *w, int dir, const char *file, const char *name, int depth, struct err *err)
{
	char link[PATH_MAX] = "";
	CLEAN_FREE char *slash = NULL;
	struct stat st;
	ssize_t n;

	if (fstatat(dir, file, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT && depth ? 0 : err_sys(err, errno, "look at %s", name);
	if (!depth)
		w->dev = st.st_dev;
	if (w->layer && depth && tree_whiteout(&st))
		return put_whiteout(w, name, err);
	if (w->layer && depth && skip(w, dir, file, name))
		return 0;
	switch (st.st_mode & S_IFMT) {
	case S_IFREG: return put_regular(w, dir, file, name, &st, err);
	case S_IFLNK:
		n = readlinkat(dir, file, link, sizeof(link) - 1);
		if (n < 0)
			return err_sys(err, errno, "read the link %s", name);
		link[n] = 0;
		return put_entry(w, dir, file, name, link, &st, '2', 0, err);
	case S_IFCHR: return put_entry(w, dir, file, name, "", &st, '3', 0, err);
	case S_IFBLK: return put_entry(w, dir, file, name, "", &st, '4', 0, err);
	case S_IFIFO: return put_entry(w, dir, file, name, "", &st, '6', 0, err);
	case S_IFDIR: break;
	default: return 0;
	}
	if (asprintf(&slash, "%s/", name) < 0) {
		slash = NULL;
		return err_sys(err, ENOMEM, "write the archive");
	}
	/* the root of an export has no entry of its own */
	if (*name && put_entry(w, dir, file, slash, "", &st, '5', 0, err))
		return -err->code;
	if (w->layer && *name && put_opaque(w, dir, file, slash, err))
		return -err->code;
	return st.st_dev == w->dev ? add_below(w, dir, file, *name ? slash : "", depth, err) : 0;
}

static int write_all(struct writer *w, int dir, const char *path, const char *name, struct err *err)
{
	static const char end[2 * BLOCK];
	int rc = dir == -1 ? 0 : add(w, dir, path, name, 0, err);

	if (!rc)
		rc = put(w, end, sizeof(end), err);
	if (!rc)
		rc = flush(w, 1, err);
	tdestroy(w->seen, seen_free);
	buf_free(&w->buf);
	return rc;
}

int tree_write_tar(const char *path, const char *name, int out, struct err *err)
{
	struct writer w = { .out = out };

	return write_all(&w, AT_FDCWD, path, name, err);
}

int tree_write_layer(int upper, int lower, int out, struct err *err)
{
	struct writer w = { .out = out, .layer = true, .lower = lower };

	return write_all(&w, upper, ".", "", err);
}
