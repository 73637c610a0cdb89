/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loop devices (include/uapi/linux/loop.h, LOOP_CONFIGURE) and overlayfs by the
 * new mount API, which has no limit of a page on the list of lower folders'
 * names as long as each is one option ("lowerdir+", Linux 6.5); older kernels
 * get one "lowerdir", of at most a page, with names relative to the folder that holds them all.
 */
#include "image/layer_mount.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <linux/major.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"

#define LOCK_PATH "/run/walnut/loop.lock"

/* loop_serves - is the loop device @dev backed by the file that @st describes, read-only, from its start? */
static bool loop_serves(int dev, const struct stat *st)
{
	struct loop_info64 info = { 0 };

	if (ioctl(dev, LOOP_GET_STATUS64, &info) < 0)
		return false;
	return info.lo_inode == st->st_ino && info.lo_device == st->st_dev && info.lo_offset == 0 &&
	       info.lo_sizelimit == 0 && (info.lo_flags & LO_FLAGS_READ_ONLY) && (info.lo_flags & LO_FLAGS_AUTOCLEAR);
}

/* find_shared - an open descriptor of a loop device that serves the file, or -1. */
static int find_shared(const struct stat *st, char *name, size_t size)
{
	CLEAN_DIR DIR *dir = opendir("/sys/block");
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		char path[320];

		if (strncmp(e->d_name, "loop", 4) != 0)
			continue;
		(void)snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", e->d_name);
		if (access(path, F_OK) < 0)
			continue;
		(void)snprintf(name, size, "/dev/%.32s", e->d_name);
		CLEAN_FD int dev = open(name, O_RDONLY | O_CLOEXEC);

		if (dev >= 0 && loop_serves(dev, st))
			return take_fd(&dev);
	}
	return -1;
}

/* make_loop - configure a free loop device. Another program may take it first: tried again. */
static int make_loop(int file, const char *path, char *name, size_t size, struct err *err)
{
	CLEAN_FD int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

	if (control < 0)
		return err_sys(err, errno, "cannot mount layers: /dev/loop-control");
	for (int tries = 0; tries < 64; tries++) {
		struct loop_config config = { .fd = (uint32_t)file };
		int number = ioctl(control, LOOP_CTL_GET_FREE);

		if (number < 0)
			return err_sys(err, errno, "cannot get a free loop device");
		(void)snprintf(name, size, "/dev/loop%d", number);
		if (access(name, F_OK) < 0 && errno == ENOENT)
			(void)mknod(name, S_IFBLK | 0660, makedev(LOOP_MAJOR, (unsigned)number));
		CLEAN_FD int dev = open(name, O_RDONLY | O_CLOEXEC);

		if (dev < 0)
			return err_sys(err, errno, "cannot open the loop device %s", name);
		config.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
		(void)snprintf((char *)config.info.lo_file_name, sizeof(config.info.lo_file_name), "%.60s", path);
		if (ioctl(dev, LOOP_CONFIGURE, &config) == 0)
			return take_fd(&dev);
		if (errno != EBUSY && errno != ENXIO)
			return err_sys(err, errno, "cannot set up the loop device %s for %s", name, path);
	}
	return err_set(err, EBUSY, "cannot get a free loop device: others took each one first");
}

int layer_mount(const char *erofs_path, const char *target, struct err *err)
{
	CLEAN_FD int file = open(erofs_path, O_RDONLY | O_CLOEXEC);
	char name[64];
	struct stat st;
	int rc = fd_mkdir_p("/run/walnut", 0711, err);

	if (rc < 0)
		return rc;
	if (file < 0 || fstat(file, &st) < 0)
		return err_sys(err, errno, "cannot open the layer %s", erofs_path);
	CLEAN_FD int lock = open(LOCK_PATH, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return err_sys(err, errno, "cannot lock %s", LOCK_PATH);
	/* The device stays open until it is mounted: autoclear would take it away in between. */
	CLEAN_FD int dev = find_shared(&st, name, sizeof(name));

	if (dev < 0)
		dev = make_loop(file, erofs_path, name, sizeof(name), err);
	if (dev < 0)
		return dev;
	if (mount(name, target, "erofs", MS_RDONLY | MS_NODEV, NULL) < 0)
		return err_sys(err, errno, "cannot mount the layer %s (EROFS, by %s) on %s", erofs_path, name, target);
	return 0;
}

/* overlay_escape - append a path, with what overlayfs treats specially escaped. */
static int overlay_escape(struct buf *b, const char *path)
{
	for (; *path; path++) {
		if ((*path == ':' || *path == ',' || *path == '\\') && buf_append(b, "\\", 1) < 0)
			return -ENOMEM;
		if (buf_append(b, path, 1) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* common_folder - Return: the length of the folder's path, with its slash, that all of these are directly in; or 0. */
static size_t common_folder(const char *const *lowers, size_t n)
{
	const char *slash = strrchr(lowers[0], '/');
	size_t length = slash ? (size_t)(slash - lowers[0]) + 1 : 0;

	for (size_t i = 1; i < n; i++)
		if (strncmp(lowers[i], lowers[0], length) || strchr(lowers[i] + length, '/'))
			return 0;
	return length;
}

static int lowers_text(struct buf *b, const char *const *lowers, size_t n, size_t skip, struct err *err)
{
	if (buf_printf(b, "lowerdir=") < 0)
		return err_set(err, ENOMEM, "no memory for an overlay's options");
	for (size_t i = n; i-- > 0;) {
		if ((i != n - 1 && buf_append(b, ":", 1) < 0) || overlay_escape(b, lowers[i] + skip) < 0)
			return err_set(err, ENOMEM, "no memory for an overlay's options");
	}
	return 0;
}

/* mount_from - mount(2) an overlay with names relative to a folder. The process has one thread: it has one working folder. */
static int mount_from(const char *lower, size_t folder, const char *target, unsigned long flags, const char *options)
{
	CLEAN_FD int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	CLEAN_FREE char *path = strndup(lower, folder);
	int rc;

	if (here < 0 || !path || chdir(path) < 0)
		return -errno;
	rc = mount("overlay", target, "overlay", flags, options) < 0 ? -errno : 0;
	return fchdir(here) < 0 && rc == 0 ? -errno : rc;
}

/* overlay_legacy - mount(2), for kernels whose overlayfs has no fsconfig strings of this kind. */
static int overlay_legacy(const char *const *lowers, size_t n, const char *upper, const char *work, bool throwaway,
			  const char *target, struct err *err)
{
	CLEAN_BUF struct buf options = BUF_INIT;
	bool absolute = target[0] == '/' && (!upper || (upper[0] == '/' && work[0] == '/'));
	size_t folder = absolute ? common_folder(lowers, n) : 0;
	int rc = lowers_text(&options, lowers, n, folder, err);

	if (rc == 0 && upper)
		rc = buf_printf(&options, ",upperdir=");
	if (rc == 0 && upper)
		rc = overlay_escape(&options, upper);
	if (rc == 0 && upper)
		rc = buf_printf(&options, ",workdir=");
	if (rc == 0 && upper)
		rc = overlay_escape(&options, work);
	if (rc == 0 && throwaway)
		rc = buf_printf(&options, ",volatile");
	if (rc < 0)
		return err_set(err, ENOMEM, "no memory for an overlay's options");
	if (options.len >= 4095)
		return err_set(err, E2BIG, "the image has too many layers for this kernel's overlayfs");
	rc = mount_from(folder ? lowers[0] : ".", folder ? folder : 1, target, upper ? 0 : MS_RDONLY,
			buf_bytes(&options));
	return rc < 0 ? err_sys(err, -rc, "cannot mount the overlay on %s", target) : 0;
}

/*
 * overlay_forget_volatile - remove the mark of an earlier "volatile" mount, which the kernel takes for a crash
 *
 * Documentation/filesystems/overlayfs.rst, "Volatile mount": the mark is there to be removed by who knows that the
 * upper folder's data are all in the page cache. A machine that crashed in between loses a container that was to be
 * removed anyway.
 */
static void overlay_forget_volatile(const char *work)
{
	static const char *const marks[] = { "work/incompat/volatile/dirty", "work/incompat/volatile" };
	CLEAN_FD int dir = open(work, O_DIRECTORY | O_PATH | O_CLOEXEC);

	for (size_t i = 0; i < ARRAY_LEN(marks) && dir >= 0; i++)
		if (unlinkat(dir, marks[i], i ? AT_REMOVEDIR : 0) < 0)
			return; /* there is none, or the mount will say why not */
}

int overlay_mount(const char *const *lowers, size_t n, const char *upper, const char *work, bool throwaway,
		  const char *target, struct err *err)
{
	bool separate = true;

	if (n == 0)
		return err_set(err, EINVAL, "an overlay needs at least one layer");
	if (!upper && n == 1) {
		if (mount(lowers[0], target, NULL, MS_BIND, NULL) < 0)
			return err_sys(err, errno, "cannot bind %s on %s", lowers[0], target);
		return 0;
	}
	throwaway = throwaway && upper;
	if (upper)
		overlay_forget_volatile(work);
	CLEAN_FD int fs = fsopen("overlay", FSOPEN_CLOEXEC);

	if (fs < 0)
		return overlay_legacy(lowers, n, upper, work, throwaway, target, err);
	for (size_t i = n; i-- > 0 && separate;) {
		if (fsconfig(fs, FSCONFIG_SET_STRING, "lowerdir+", lowers[i], 0) < 0)
			separate = false;
	}
	if (!separate ||
	    (upper && (fsconfig(fs, FSCONFIG_SET_STRING, "upperdir", upper, 0) < 0 ||
		       fsconfig(fs, FSCONFIG_SET_STRING, "workdir", work, 0) < 0)) ||
	    (throwaway && fsconfig(fs, FSCONFIG_SET_FLAG, "volatile", NULL, 0) < 0))
		return overlay_legacy(lowers, n, upper, work, throwaway, target, err);
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return overlay_legacy(lowers, n, upper, work, throwaway, target, err);
	CLEAN_FD int mnt = fsmount(fs, FSMOUNT_CLOEXEC, upper ? 0 : MOUNT_ATTR_RDONLY);

	if (mnt < 0 || move_mount(mnt, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_sys(err, errno, "cannot mount the overlay on %s", target);
	return 0;
}
