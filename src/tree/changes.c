/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a container changed: its overlay's upper folder against the image. Kinds as Docker's: 0 modified, 1 added, 2 deleted.
 * What the engine itself put there before the program ran (mount points, and the files that are mounted over) is not the
 * container's doing and is left out.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "tree/tree.h"

#define DEPTH_MAX 512

enum kind { MODIFIED, ADDED, DELETED };

struct walk {
	int lower;
	json_t *list;
};

bool tree_engine_made(const char *path)
{
	static const char *const paths[] = {
		"/dev",        "/dev/pts",  "/dev/shm",         "/dev/mqueue", "/dev/console",
		"/proc",       "/sys",      "/etc/resolv.conf", "/etc/hosts",  "/etc/hostname",
		"/.dockerenv", "/etc/mtab", "/sbin/docker-init"
	};

	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		if (!strcmp(paths[i], path))
			return true;
	return false;
}

bool tree_whiteout(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

/* The image's file of that name: its folders are never links. */
static bool in_lower(const struct walk *w, const char *path, struct stat *st)
{
	CLEAN_FD int fd = fd_open_beneath(w->lower, path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);

	return fd >= 0 && !fstat(fd, st);
}

static int note(struct walk *w, const char *path, enum kind kind, struct err *err)
{
	json_t *text = json_string(path);

	return json_array_append_new(w->list, json_pack("{s:o, s:i}", "Path", text ? text : json_string("(not UTF-8)"),
							"Kind", (int)kind))
		       ? err_sys(err, ENOMEM, "list the changes")
		       : 0;
}

/* What an opaque folder hides is deleted. */
static int note_hidden(struct walk *w, int upper, const char *path, struct err *err)
{
	int fd = fd_open_beneath(w->lower, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
	CLEAN_DIR DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *e;
	int rc = 0;

	if (!dir) {
		close_fd(&fd);
		return 0;
	}
	while (!rc && (e = readdir(dir))) {
		CLEAN_FREE char *sub = NULL;
		struct stat st;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    !fstatat(upper, e->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		if (asprintf(&sub, "%s/%s", path, e->d_name) < 0) {
			sub = NULL;
			return err_sys(err, ENOMEM, "list the changes");
		}
		rc = note(w, sub, DELETED, err);
	}
	return rc;
}

bool tree_opaque(int fd)
{
	char value[8];
	ssize_t n = fgetxattr(fd, "trusted.overlay.opaque", value, sizeof(value));

	return n == 1 && *value == 'y';
}

static int walk_folder(struct walk *w, int fd, const char *path, int depth, struct err *err);

static int walk_one(struct walk *w, int dir, const char *name, const char *path, int depth, struct err *err)
{
	struct stat st, old;
	size_t before = json_array_size(w->list);
	bool had, same;
	int rc, fd;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : err_sys(err, errno, "look at %s", path);
	had = in_lower(w, path, &old);
	if (tree_whiteout(&st))
		return had ? note(w, path, DELETED, err) : 0;
	if (!S_ISDIR(st.st_mode)) {
		if (tree_engine_made(path) && (!st.st_size || S_ISLNK(st.st_mode)))
			return 0;
		return note(w, path, had ? MODIFIED : ADDED, err);
	}
	rc = note(w, path, had ? MODIFIED : ADDED, err);
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (rc || fd < 0)
		return rc ? rc : err_sys(err, errno, "read the folder %s", path);
	if (had && tree_opaque(fd))
		rc = note_hidden(w, fd, path, err);
	if (!rc)
		rc = walk_folder(w, fd, path, depth + 1, err);
	else
		close_fd(&fd);
	/* a folder that is there only for what the engine made in it, or that the engine made */
	same = had && old.st_mode == st.st_mode && old.st_uid == st.st_uid && old.st_gid == st.st_gid;
	if (!rc && json_array_size(w->list) == before + 1 &&
	    (tree_engine_made(path) || (same && !strcmp(path, "/etc")) || (same && !strcmp(path, "/sbin"))))
		(void)json_array_remove(w->list, before);
	return rc;
}

/* Takes @fd. */
static int walk_folder(struct walk *w, int fd, const char *path, int depth, struct err *err)
{
	CLEAN_DIR DIR *dir = fdopendir(fd);
	const struct dirent *e;
	int rc = 0;

	if (!dir || depth > DEPTH_MAX) {
		if (!dir)
			close_fd(&fd);
		return err_set(err, ELOOP, "the folder %.200s is too deep", path);
	}
	while (!rc && (e = readdir(dir))) {
		CLEAN_FREE char *sub = NULL;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (asprintf(&sub, "%s/%s", path, e->d_name) < 0) {
			sub = NULL;
			return err_sys(err, ENOMEM, "list the changes");
		}
		rc = walk_one(w, dirfd(dir), e->d_name, sub, depth, err);
	}
	return rc;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(json_str(*(json_t *const *)a, "Path", ""), json_str(*(json_t *const *)b, "Path", ""));
}

json_t *tree_changes(int upper, int lower, struct err *err)
{
	struct walk w = { .lower = lower, .list = json_array() };
	CLEAN_JSON json_t *list = w.list;
	CLEAN_FREE json_t **sorted = NULL;
	int fd = openat(upper, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	size_t n, i;
	json_t *out, *v;

	if (fd < 0) {
		(void)err_sys(err, errno, "read the writable layer");
		return NULL;
	}
	if (walk_folder(&w, fd, "", 0, err))
		return NULL;
	n = json_array_size(list);
	sorted = calloc(n + 1, sizeof(*sorted));
	out = sorted ? json_array() : NULL;
	if (!out) {
		(void)err_sys(err, ENOMEM, "list the changes");
		return NULL;
	}
	json_array_foreach(list, i, v)
		sorted[i] = v;
	qsort(sorted, n, sizeof(*sorted), by_path);
	for (i = 0; i < n; i++)
		(void)json_array_append(out, sorted[i]);
	return out;
}
