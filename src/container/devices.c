/* SPDX-License-Identifier: Apache-2.0 */
/* /dev: the nodes every container has, those of the spec, and links (runtime-spec, config-linux.md, "Default Devices"). */
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/internal.h"

static mode_t node_type(const struct oci_device *d)
{
	return d->type == 'b' ? S_IFBLK : d->type == 'p' ? S_IFIFO : S_IFCHR;
}

/* What is there already must be the device that is asked for. */
static int check_existing(int parent, const char *name, const struct oci_device *d, struct err *err)
{
	struct stat st;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(err, errno, "cannot look at %s in the container", d->path);
	if ((st.st_mode & S_IFMT) != node_type(d) || (d->type != 'p' && st.st_rdev != makedev(d->major, d->minor)))
		return err_set(err, EEXIST, "linux.devices: %s exists in the container and is not the device %c %u:%u",
			       d->path, d->type, d->major, d->minor);
	return 0;
}

static int make_device(int root, const struct oci_device *d, struct err *err)
{
	const char *name;
	CLEAN_FD int parent = rootfs_open_parent(root, d->path, &name, err);

	if (parent < 0)
		return parent;
	if (mknodat(parent, name, node_type(d) | d->mode, makedev(d->major, d->minor)) == 0) {
		if (fchmodat(parent, name, d->mode, 0) < 0 ||
		    ((d->uid || d->gid) && fchownat(parent, name, d->uid, d->gid, AT_SYMLINK_NOFOLLOW) < 0))
			return err_sys(err, errno, "cannot set the mode of device %s", d->path);
		return 0;
	}
	if (errno == EEXIST)
		return check_existing(parent, name, d, err);
	/* a user namespace makes no nodes: the host's is bound */
	if (errno == EPERM)
		return mount_bind_file(root, d->path, d->path, false, err);
	return err_sys(err, errno, "cannot make the device %s", d->path);
}

static bool wants(const struct oci_spec *s, const char *path)
{
	for (size_t i = 0; i < s->devices_count; i++)
		if (strcmp(s->devices[i].path, path) == 0)
			return true;
	return false;
}

static int make_links(int root, struct err *err)
{
	static const char *const links[][2] = {
		{ "pts/ptmx", "ptmx" },          { "/proc/self/fd", "fd" },       { "/proc/self/fd/0", "stdin" },
		{ "/proc/self/fd/1", "stdout" }, { "/proc/self/fd/2", "stderr" }, { "/proc/kcore", "core" },
	};
	CLEAN_FD int dev = fd_open_beneath(root, "/dev", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);

	if (dev < 0)
		return err_sys(err, -dev, "cannot open /dev in the container");
	for (size_t i = 0; i < ARRAY_LEN(links); i++) {
		if (symlinkat(links[i][0], dev, links[i][1]) == 0)
			continue;
		/* a ptmx node of the image would be of the host's terminals */
		if (errno == EEXIST && i == 0 && unlinkat(dev, links[i][1], 0) == 0 &&
		    symlinkat(links[i][0], dev, links[i][1]) == 0)
			continue;
		if (errno != EEXIST)
			return err_sys(err, errno, "cannot make /dev/%s", links[i][1]);
	}
	return 0;
}

/* Whether /dev is another folder bound there: it is not ours to fill. */
static bool dev_is_bound(const struct oci_spec *s)
{
	for (size_t i = 0; i < s->mounts_count; i++)
		if (strcmp(s->mounts[i].destination, "/dev") == 0 && mount_is_bind(&s->mounts[i]))
			return true;
	return false;
}

int devices_make(int root, const struct oci_spec *s, struct err *err)
{
	static const struct {
		const char *path;
		unsigned int major, minor;
	} nodes[] = {
		{ "/dev/null", 1, 3 },   { "/dev/zero", 1, 5 },    { "/dev/full", 1, 7 },
		{ "/dev/random", 1, 8 }, { "/dev/urandom", 1, 9 }, { "/dev/tty", 5, 0 },
	};
	mode_t mask = umask(0);
	int r = 0;

	if (!dev_is_bound(s)) {
		r = rootfs_make_folder(root, "/dev", 0755, err);
		for (size_t i = 0; r == 0 && i < s->devices_count; i++)
			r = make_device(root, &s->devices[i], err);
		for (size_t i = 0; r == 0 && i < ARRAY_LEN(nodes); i++) {
			struct oci_device d = { .path = (char *)(uintptr_t)nodes[i].path,
						.type = 'c',
						.major = nodes[i].major,
						.minor = nodes[i].minor,
						.mode = 0666 };

			if (!wants(s, d.path))
				r = make_device(root, &d, err);
		}
		if (r == 0)
			r = make_links(root, err);
	}
	(void)umask(mask);
	return r;
}
