/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tar archive to files, inside the root that this process has made its own: "..", absolute names and links lead nowhere
 * else. Owners, modes, times and attributes are the archive's; what cannot be made is an error that names the entry.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "image/tar.h"
#include "tree/tree.h"

#define FOLDERS_MAX (1U << 20)

/* A folder's time is set when all is in it. */
struct folder_time {
	char *path;
	struct timespec mtime;
};

struct extract {
	const struct tree_extract_options *o;
	const char *base;
	struct folder_time *folders;
	size_t nfolders;
};

/* @base/@name without "..": its parts, cleaned as Go's filepath.Join does. NULL without memory or when too long. */
static char *join_clean(const char *base, const char *name)
{
	CLEAN_FREE char *copy = strdup(name);
	CLEAN_BUF struct buf out = BUF_INIT;
	char *save = NULL;
	size_t root = strlen(base);

	if (!copy || buf_puts(&out, base))
		return NULL;
	for (char *part = strtok_r(copy, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
		if (!strcmp(part, "."))
			continue;
		if (!strcmp(part, "..")) {
			char *slash = strrchr(buf_bytes(&out) + root, '/');

			if (slash)
				out.len = (size_t)(slash - buf_bytes(&out));
			buf_bytes(&out)[out.len] = 0;
			continue;
		}
		if (buf_printf(&out, "/%s", part))
			return NULL;
	}
	return out.len < PATH_MAX ? strdup(out.len ? buf_bytes(&out) : "/") : NULL;
}

static int make_parents(const char *path, struct err *err)
{
	CLEAN_FREE char *copy = strdup(path);
	char *slash = copy ? strrchr(copy, '/') : NULL;
	struct stat st;

	if (!copy)
		return err_sys(err, ENOMEM, "unpack");
	if (!slash || slash == copy)
		return 0;
	*slash = 0;
	return stat(copy, &st) ? fd_mkdir_p(copy, 0777, err) : 0;
}

/* Makes room for the entry. Return: 1 when the folder that it is, is there already. */
static int make_room(struct extract *x, const char *path, const struct tar_entry *e, struct err *err)
{
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : err_sys(err, errno, "unpack %s", e->path);
	if (x->o->keep_kind && S_ISDIR(st.st_mode) && e->type != '5')
		return err_set(err, EINVAL, "cannot overwrite directory \"%.200s\" with non-directory \"%.200s\"", path,
			       e->path);
	if (x->o->keep_kind && !S_ISDIR(st.st_mode) && e->type == '5')
		return err_set(err, EINVAL, "cannot overwrite non-directory \"%.200s\" with directory \"%.200s\"", path,
			       e->path);
	if (S_ISDIR(st.st_mode) && e->type == '5')
		return 1;
	return fd_remove_tree(AT_FDCWD, path, err);
}

static int write_content(struct tar_reader *t, const char *path, struct err *err)
{
	const struct tar_entry *e = &t->entry;
	CLEAN_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	uint64_t at = 0, in_segment = 0;
	size_t segment = 0, n;
	const uint8_t *p;
	int rc;

	if (fd < 0)
		return err_sys(err, errno, "create %s", path);
	while ((rc = tar_data(t, &p, &n, err)) > 0) {
		while (n) {
			size_t piece = n;
			uint64_t where = at;

			if (e->sparse) {
				while (segment < e->nsegments && in_segment == e->segments[segment].len) {
					segment++;
					in_segment = 0;
				}
				if (segment == e->nsegments)
					break;
				where = e->segments[segment].offset + in_segment;
				if (piece > e->segments[segment].len - in_segment)
					piece = (size_t)(e->segments[segment].len - in_segment);
			}
			rc = fd_pwrite_full(fd, p, piece, (off_t)where);
			if (rc < 0)
				return err_sys(err, -rc, "write %s", path);
			at += piece;
			in_segment += piece;
			p += piece;
			n -= piece;
		}
	}
	if (!rc && e->sparse && ftruncate(fd, (off_t)e->real_size))
		return err_sys(err, errno, "write %s", path);
	return rc;
}

static int make_entry(struct extract *x, struct tar_reader *t, const char *path, bool there, struct err *err)
{
	const struct tar_entry *e = &t->entry;
	CLEAN_FREE char *target = NULL;
	int rc = 0;

	switch (e->type) {
	case '0': return write_content(t, path, err);
	case '1':
		target = join_clean(x->base, e->link ? e->link : "");
		rc = target ? link(target, path) : -1;
		break;
	case '2': rc = symlink(e->link ? e->link : "", path); break;
	case '3':
	case '4':
		rc = mknod(path, (e->type == '3' ? S_IFCHR : S_IFBLK) | 0600, makedev(e->dev_major, e->dev_minor));
		break;
	case '5': rc = there ? 0 : mkdir(path, 0700); break;
	case '6': rc = mkfifo(path, 0600); break;
	default:
		return err_set(err, EINVAL, "the archive's entry %.200s is of an unknown kind ('%c')", e->path,
			       e->type);
	}
	return rc ? err_sys(err, errno, "create %s", path) : 0;
}

static int note_folder(struct extract *x, const char *path, struct timespec mtime, struct err *err)
{
	struct folder_time *more;

	if (x->nfolders == FOLDERS_MAX)
		return err_set(err, E2BIG, "the archive has more than %u folders", FOLDERS_MAX);
	if (!(x->nfolders & (x->nfolders - 1))) {
		more = realloc(x->folders, (x->nfolders ? x->nfolders * 2 : 1) * sizeof(*more));
		if (!more)
			return err_sys(err, ENOMEM, "unpack");
		x->folders = more;
	}
	x->folders[x->nfolders] = (struct folder_time){ strdup(path), mtime };
	return x->folders[x->nfolders++].path ? 0 : err_sys(err, ENOMEM, "unpack");
}

static int set_attributes(struct extract *x, const struct tar_entry *e, const char *path, struct err *err)
{
	const struct timespec mtime = { .tv_sec = e->mtime, .tv_nsec = (long)e->mtime_nsec };
	const struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, mtime };

	if (e->type == '1')
		return 0;
	if (lchown(path, x->o->own ? x->o->uid : e->uid, x->o->own ? x->o->gid : e->gid))
		return err_sys(err, errno, "give %s its owner", path);
	if (e->type != '2' && chmod(path, e->mode & 07777))
		return err_sys(err, errno, "give %s its mode", path);
	for (size_t i = 0; i < e->nxattrs; i++) /* as Docker: what the file system does not have is left out */
		if (lsetxattr(path, e->xattrs[i].name, e->xattrs[i].value, e->xattrs[i].len, 0) && errno != ENOTSUP &&
		    errno != EPERM)
			return err_sys(err, errno, "set %s of %s", e->xattrs[i].name, path);
	if (e->type == '5')
		return note_folder(x, path, mtime, err);
	(void)utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
	return 0;
}

static int one_entry(struct extract *x, struct tar_reader *t, struct err *err)
{
	CLEAN_FREE char *path = join_clean(x->base, t->entry.path);
	int rc;

	if (!path)
		return err_set(err, ENAMETOOLONG, "the archive's entry %.100s... has too long a name", t->entry.path);
	if (t->entry.type == 'g' || t->entry.type == 'x')
		return 0;
	if (!strcmp(path, *x->base ? x->base : "/"))
		return 0; /* "." is the folder itself: Docker leaves it as it is */
	rc = make_parents(path, err);
	if (!rc)
		rc = make_room(x, path, &t->entry, err);
	if (rc < 0)
		return rc;
	rc = make_entry(x, t, path, rc == 1, err);
	return rc < 0 ? rc : set_attributes(x, &t->entry, path, err);
}

int tree_extract(int in, const char *path, const struct tree_extract_options *o, struct err *err)
{
	CLEAN_FREE char *base = strdup(strcmp(path, "/") ? path : "");
	struct extract x = { .o = o, .base = base };
	struct source_fd raw = { 0 };
	struct source_unzip unzip = { 0 };
	enum compression kind;
	struct tar_reader t;
	int rc;

	if (!base)
		return err_sys(err, ENOMEM, "unpack");
	for (size_t n = strlen(base); n && base[n - 1] == '/'; n--)
		base[n - 1] = 0;
	rc = source_fd_init(&raw, in, err);
	if (rc < 0)
		return rc;
	rc = source_fill(&raw.s, err);
	kind = rc > 0 ? compression_guess(raw.s.p, raw.s.n) : COMPRESSION_NONE;
	if (rc >= 0 && kind != COMPRESSION_NONE)
		rc = source_unzip_init(&unzip, &raw.s, kind, err);
	if (rc < 0) {
		source_fd_fini(&raw);
		return rc;
	}
	tar_init(&t, kind == COMPRESSION_NONE ? &raw.s : &unzip.s);
	while ((rc = tar_next(&t, err)) > 0) {
		rc = one_entry(&x, &t, err);
		if (rc < 0)
			break;
	}
	for (size_t i = x.nfolders; i-- > 0;) {
		const struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, x.folders[i].mtime };

		(void)utimensat(AT_FDCWD, x.folders[i].path, times, AT_SYMLINK_NOFOLLOW);
		free(x.folders[i].path);
	}
	free(x.folders);
	tar_fini(&t);
	if (kind != COMPRESSION_NONE)
		source_unzip_fini(&unzip);
	source_fd_fini(&raw);
	return rc;
}
