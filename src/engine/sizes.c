/* SPDX-License-Identifier: Apache-2.0 */
/* How much of the disk a container uses: SizeRw (its writable layer) and SizeRootFs (with its image). */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/container_internal.h"

#define DEPTH_MAX 512 /* a folder this deep was made to be in the way; what is below it is not counted */

/* Bytes of the files below @fd (taken). The container may change them meanwhile: no link is followed. */
static int64_t tree_size(int fd, int depth)
{
	CLEAN_FD int owned = fd;
	CLEAN_DIR DIR *dir = depth < DEPTH_MAX ? fdopendir(owned) : NULL;
	const struct dirent *d;
	int64_t sum = 0;

	if (!dir)
		return 0;
	(void)take_fd(&owned);
	while ((d = readdir(dir))) {
		struct stat st;
		int sub;

		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") ||
		    fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		if (S_ISREG(st.st_mode))
			sum += st.st_size;
		else if (S_ISLNK(st.st_mode))
			sum += st.st_size;
		if (!S_ISDIR(st.st_mode))
			continue;
		sub = openat(dirfd(dir), d->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub >= 0)
			sum += tree_size(sub, depth + 1);
	}
	return sum;
}

int64_t engine_tree_size(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? 0 : tree_size(fd, 0);
}

int64_t engine_container_size_rw(const struct engine_container *c)
{
	char path[PATH_MAX];
	struct stat st;

	if (c->isolation ==
	    ENGINE_ISOLATION_HYPERV) { /* the guest's file system is not read here: what its disk takes */
		(void)snprintf(path, sizeof(path), "%s/scratch.ext4", c->data_dir);
		return stat(path, &st) ? 0 : st.st_blocks * 512;
	}
	(void)snprintf(path, sizeof(path), "%s/upper", c->data_dir);
	return engine_tree_size(path);
}

int64_t engine_container_size_root(const struct engine_container *c, int64_t size_rw)
{
	const struct image *im = image_find(c->engine->images, c->image_id, NULL);

	return size_rw + (im ? (int64_t)im->size : 0);
}
