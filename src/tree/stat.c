/* SPDX-License-Identifier: Apache-2.0 */
/* X-Docker-Container-Path-Stat: a file's state as Docker tells it, with Go's mode bits (io/fs, FileMode). */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tree/tree.h"

static json_int_t go_mode(mode_t m)
{
	json_int_t mode = m & 0777;

	switch (m & S_IFMT) {
	case S_IFDIR: mode |= 1LL << 31; break;
	case S_IFLNK: mode |= 1LL << 27; break;
	case S_IFBLK: mode |= 1LL << 26; break;
	case S_IFCHR: mode |= 1LL << 26 | 1LL << 21; break;
	case S_IFIFO: mode |= 1LL << 25; break;
	case S_IFSOCK: mode |= 1LL << 24; break;
	}
	return mode | (m & S_ISUID ? 1LL << 23 : 0) | (m & S_ISGID ? 1LL << 22 : 0) | (m & S_ISVTX ? 1LL << 20 : 0);
}

json_t *tree_stat(const char *path, struct err *err)
{
	CLEAN_FREE char *target = NULL;
	CLEAN_FREE char *copy = strdup(path);
	char when[80], day[40];
	struct stat st;
	struct tm tm;
	const char *name;

	if (!copy || lstat(path, &st)) {
		(void)err_sys(err, errno, "look at %s", path);
		return NULL;
	}
	for (size_t n = strlen(copy); n > 1 && (copy[n - 1] == '/' || (copy[n - 1] == '.' && copy[n - 2] == '/')); n--)
		copy[n - 1] = 0;
	name = strrchr(copy, '/');
	name = name && name[1] ? name + 1 : copy;
	if (S_ISLNK(st.st_mode)) {
		target = realpath(path, NULL); /* inside the root; one that leads nowhere is said as it is */
		if (!target && (target = calloc(1, PATH_MAX)) && readlink(path, target, PATH_MAX - 1) < 0)
			*target = 0;
	}
	(void)gmtime_r(&st.st_mtim.tv_sec, &tm);
	(void)strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	if (st.st_mtim.tv_nsec)
		(void)snprintf(when, sizeof(when), "%s.%09ldZ", day, st.st_mtim.tv_nsec);
	else
		(void)snprintf(when, sizeof(when), "%sZ", day);
	return json_pack("{s:s, s:I, s:I, s:s, s:s}", "name", name, "size", (json_int_t)st.st_size, "mode",
			 go_mode(st.st_mode), "mtime", when, "linkTarget", target ? target : "");
}
