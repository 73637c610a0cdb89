/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device nodes of a privileged container: all that /dev of the machine it runs on has (the host's, or the guest's),
 * as Docker does. Left out is what every container has of its own: terminals, shared memory, queues, the console.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "container/container.h"

#define DEVICES_MAX 4096
#define DEPTH_MAX   8

static bool left_out(const char *name)
{
	static const char *const names[] = { ".", "..", "pts", "shm", "fd", "mqueue", "console", ".udev", ".lxc" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (!strcmp(names[i], name))
			return true;
	return false;
}

static int add_device(struct oci_spec *s, const char *path, const struct stat *st, struct err *err)
{
	struct oci_device *more;

	for (size_t i = 0; i < s->devices_count; i++)
		if (!strcmp(s->devices[i].path, path))
			return 0; /* what was asked for by name goes first */
	if (s->devices_count >= DEVICES_MAX)
		return err_set(err, E2BIG, "this machine has more than %d devices", DEVICES_MAX);
	more = realloc(s->devices, (s->devices_count + 1) * sizeof(*more));
	if (!more)
		return err_sys(err, ENOMEM, "list the devices");
	s->devices = more;
	more[s->devices_count] = (struct oci_device){ .path = strdup(path),
						      .type = S_ISBLK(st->st_mode) ? 'b' : 'c',
						      .major = major(st->st_rdev),
						      .minor = minor(st->st_rdev),
						      .mode = st->st_mode & 07777,
						      .uid = st->st_uid,
						      .gid = st->st_gid };
	return more[s->devices_count++].path ? 0 : err_sys(err, ENOMEM, "list the devices");
}

static int add_folder(struct oci_spec *s, int at, const char *name, const char *path, unsigned int depth,
		      struct err *err)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
	CLEAN_DIR DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		close_fd(&fd);
		return 0; /* it is gone, or not ours to see */
	}
	while (!rc && (e = readdir(dir))) {
		CLEAN_FREE char *below = NULL;
		struct stat st;

		if (left_out(e->d_name) || fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (asprintf(&below, "%s/%s", path, e->d_name) < 0) {
			below = NULL;
			return err_sys(err, ENOMEM, "list the devices");
		}
		if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX)
			rc = add_folder(s, dirfd(dir), e->d_name, below, depth + 1, err);
		else if (S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode))
			rc = add_device(s, below, &st, err);
	}
	return rc;
}

int container_add_machine_devices(struct oci_spec *spec, struct err *err)
{
	return add_folder(spec, AT_FDCWD, "/dev", "/dev", 0, err);
}
