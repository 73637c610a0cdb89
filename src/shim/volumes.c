/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volumes before a container's start. Filesystems that need a server or a disk are mounted in the shim's own namespace, so that
 * they go with it and nobody else waits for them. A volume that is empty takes what the image has at its place, with owner and
 * mode (docs.docker.com, "Volumes", "Populate a volume using a container").
 */
#include "shim/volumes.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "container/copy.h"

static const struct {
	const char *word;
	unsigned long flag;
} mount_words[] = { { "ro", MS_RDONLY },
		    { "rw", 0 },
		    { "nosuid", MS_NOSUID },
		    { "nodev", MS_NODEV },
		    { "noexec", MS_NOEXEC },
		    { "noatime", MS_NOATIME },
		    { "nodiratime", MS_NODIRATIME },
		    { "relatime", MS_RELATIME },
		    { "sync", MS_SYNCHRONOUS },
		    { "defaults", 0 } };

static int mount_one(const json_t *v, struct err *err)
{
	const char *at = json_str(v, "at", ""), *device = json_str(v, "device", ""), *type = json_str(v, "type", "");
	CLEAN_FREE char *words = strdup(json_str(v, "options", ""));
	CLEAN_BUF struct buf data = BUF_INIT;
	unsigned long flags = 0;
	char *save = NULL;

	for (char *w = words ? strtok_r(words, ",", &save) : NULL; w; w = strtok_r(NULL, ",", &save)) {
		size_t i = 0;

		while (i < ARRAY_LEN(mount_words) && strcmp(mount_words[i].word, w) != 0)
			i++;
		if (i < ARRAY_LEN(mount_words))
			flags |= mount_words[i].flag;
		else if (buf_printf(&data, "%s%s", data.len ? "," : "", w) < 0)
			return err_sys(err, ENOMEM, "mount a volume");
	}
	if (mount(device, at, type, flags, buf_bytes(&data)) < 0)
		return err_sys(err, errno,
			       "error while mounting volume '%s': failed to mount local volume: mount %.100s:%s (%s)",
			       at, device, at, type);
	return 0;
}

static bool folder_is_empty(int fd)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEAN_DIR DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;

	while (dir && (e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			return false;
	return dir != NULL;
}

/* A copy that was cut short is begun anew: the mark beside the folder says that nobody but the copy wrote there. */
static int empty_folder(int fd, struct err *err)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
	CLEAN_DIR DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;

	while (dir && rc >= 0 && (e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			rc = fd_remove_tree(fd, e->d_name, err);
	return rc < 0 ? rc : 0;
}

static int fill(int from, const char *to, struct err *err)
{
	CLEAN_FD int volume = open(to, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char mark[PATH_MAX];
	int rc;

	if (volume < 0)
		return err_sys(err, errno, "open the volume %s", to);
	if (flock(volume, LOCK_EX) < 0) /* two containers may start at once with one new volume */
		return err_sys(err, errno, "lock the volume %s", to);
	(void)snprintf(mark, sizeof(mark), "%.4000s.filling", to);
	if (access(mark, F_OK) == 0 && (rc = empty_folder(volume, err)) < 0)
		return rc;
	if (!folder_is_empty(volume))
		return 0;
	rc = fd_write_file(AT_FDCWD, mark, O_WRONLY | O_CREAT, "", 0, err);
	if (rc >= 0)
		rc = container_copy_tree(from, volume, "fill the volume", err);
	if (rc >= 0)
		rc = container_copy_look(from, volume, "fill the volume", err);
	if (rc >= 0 && unlink(mark) < 0)
		rc = err_sys(err, errno, "remove %s", mark);
	return rc < 0 ? rc : 0;
}

static int fill_one(int root, const json_t *v, struct err *err)
{
	const char *place = json_str(v, "from", "");
	CLEAN_FD int from = fd_open_beneath(root, place, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0, 0);
	struct stat st;

	if (from == -ENOENT || from == -ENOTDIR)
		return 0;
	if (from < 0 || fstat(from, &st) < 0)
		return err_sys(err, from < 0 ? -from : errno, "open %s of the image", place);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, EINVAL, "cannot mount volume over existing file, file exists %s", place);
	return fill(from, json_str(v, "to", ""), err);
}

int volumes_prepare(const json_t *params, const char *rootfs, struct err *err)
{
	CLEAN_FD int root = open(rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
	size_t i;
	json_t *v;

	if (root < 0)
		return err_sys(err, errno, "open the container's root");
	json_array_foreach(json_object_get(params, "volumes"), i, v)
		if (mount_one(v, err) < 0)
			return -err->code;
	json_array_foreach(json_object_get(params, "populate"), i, v)
		if (fill_one(root, v, err) < 0)
			return -err->code;
	return 0;
}
