/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container's view of files. Mounts are made with descriptors only (fsopen, open_tree, move_mount); targets are
 * opened below the root's descriptor by openat2, so a symlink in the image can not lead a mount elsewhere. /proc and
 * /sys are never reached through symlinks, and writes below /proc check that it is procfs.
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/internal.h"

/* The folder that holds @path's last name, made if absent; @name is set to that name. */
int rootfs_open_parent(int root, const char *path, const char **name, struct err *err)
{
	CLEAN_FREE char *parent = strdup(path);
	char *slash;
	int fd, r;

	if (!parent)
		return err_set(err, ENOMEM, "out of memory");
	slash = strrchr(parent, '/');
	*name = strrchr(path, '/') + 1;
	if (!slash || !**name || strcmp(*name, "..") == 0)
		return err_set(err, EINVAL, "bad path in the container: '%s'", path);
	*slash = 0;
	r = rootfs_make_folder(root, parent, 0755, err);
	if (r < 0)
		return r;
	fd = fd_open_beneath(root, *parent ? parent : "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
	return fd < 0 ? err_sys(err, -fd, "cannot open %s in the container", parent) : fd;
}

int rootfs_make_folder(int root, const char *path, mode_t mode, struct err *err)
{
	CLEAN_FREE char *prefix = strdup(path);
	size_t len = strlen(path), at = 0;

	if (!prefix)
		return err_set(err, ENOMEM, "out of memory");
	while (at < len) {
		CLEAN_FD int fd = -1, parent = -1;
		size_t start = at + strspn(path + at, "/");
		size_t end = start + strcspn(path + start, "/");

		if (start == end)
			break;
		(void)memcpy(prefix, path, len + 1);
		prefix[end] = 0;
		at = end;
		fd = fd_open_beneath(root, prefix, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
		if (fd >= 0)
			continue;
		if (fd != -ENOENT)
			return err_sys(err, -fd, "cannot open %s in the container", prefix);
		prefix[start ? start - 1 : 0] = 0;
		parent = fd_open_beneath(root, *prefix ? prefix : "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0,
					 RESOLVE_NO_MAGICLINKS);
		(void)memcpy(prefix, path, len + 1);
		prefix[end] = 0;
		if (parent < 0 || (mkdirat(parent, prefix + start, mode) < 0 && errno != EEXIST))
			return err_sys(err, parent < 0 ? -parent : errno, "cannot make %s in the container", prefix);
	}
	return 0;
}

int rootfs_open_target(int root, const char *path, bool folder, struct err *err)
{
	bool kernel = strncmp(path, "/proc/", 6) == 0 || strncmp(path, "/sys/", 5) == 0;
	uint64_t resolve = RESOLVE_NO_MAGICLINKS | (kernel ? RESOLVE_NO_SYMLINKS : 0);
	int fd = fd_open_beneath(root, path, O_PATH | O_CLOEXEC, 0, resolve), r;

	if (fd == -ENOENT && folder) {
		r = rootfs_make_folder(root, path, 0755, err);
		if (r < 0)
			return r;
	} else if (fd == -ENOENT) {
		const char *name;
		CLEAN_FD int parent = rootfs_open_parent(root, path, &name, err), file = -1;

		if (parent < 0)
			return parent;
		file = openat(parent, name, O_CREAT | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);
		if (file < 0)
			return err_sys(err, errno, "cannot make %s in the container", path);
	}
	if (fd == -ENOENT)
		fd = fd_open_beneath(root, path, O_PATH | O_CLOEXEC, 0, resolve);
	return fd < 0 ? err_sys(err, -fd, "cannot open the mount point %s in the container", path) : fd;
}

int rootfs_attach(int mount, int target, const char *what, struct err *err)
{
	if (move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return err_sys(err, errno, "cannot mount at %s", what);
	return 0;
}

int rootfs_open_console(int root, int *number, struct err *err)
{
	int zero = 0;
	struct statfs fs;
	CLEAN_FD int fd = fd_open_beneath(root, "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS);

	if (fd < 0 || fstatfs(fd, &fs) < 0 || (unsigned long)fs.f_type != DEVPTS_SUPER_MAGIC)
		return err_sys(err, fd < 0 ? -fd : EINVAL, "cannot open a terminal in the container's /dev/pts");
	if (ioctl(fd, TIOCSPTLCK, &zero) < 0 || ioctl(fd, TIOCGPTN, number) < 0)
		return err_sys(err, errno, "cannot set up the terminal");
	return take_fd(&fd);
}

static int bind_console(int root, int number, struct err *err)
{
	char path[32];
	CLEAN_FD int slave = -1, tree = -1, target = -1;

	(void)snprintf(path, sizeof(path), "/dev/pts/%d", number);
	slave = fd_open_beneath(root, path, O_PATH | O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS);
	if (slave < 0)
		return err_sys(err, -slave, "cannot open %s", path);
	tree = open_tree(slave, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	target = rootfs_open_target(root, "/dev/console", false, err);
	if (tree < 0 || target < 0)
		return tree < 0 ? err_sys(err, errno, "cannot bind /dev/console") : target;
	return rootfs_attach(tree, target, "/dev/console", err);
}

/* In /proc and /sys a link would be somebody's; elsewhere the image's links are followed inside the root. */
static int open_protected(int root, const char *path, struct stat *st, struct err *err)
{
	bool kernel = strncmp(path, "/proc/", 6) == 0 || strncmp(path, "/sys/", 5) == 0;
	uint64_t resolve = RESOLVE_NO_MAGICLINKS | (kernel ? RESOLVE_NO_SYMLINKS : 0);
	int fd = fd_open_beneath(root, path, O_PATH | O_CLOEXEC, 0, resolve);

	if (fd == -ENOENT || fd == -ENOTDIR || fd == -EACCES)
		return -ENOENT;
	if (fd < 0 || fstat(fd, st) < 0) {
		int e = fd < 0 ? -fd : errno;

		if (fd >= 0)
			(void)close(fd);
		return err_sys(err, e, "cannot protect %s", path);
	}
	return fd;
}

static int make_readonly(int root, const char *path, struct err *err)
{
	struct mount_attr ro = { .attr_set = MOUNT_ATTR_RDONLY };
	struct stat st;
	CLEAN_FD int target = open_protected(root, path, &st, err), tree = -1;

	if (target < 0)
		return target == -ENOENT ? 0 : target;
	tree = open_tree(target, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	if (tree < 0 || mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &ro, sizeof(ro)) < 0)
		return err_sys(err, errno, "cannot make %s read-only", path);
	return rootfs_attach(tree, target, path, err);
}

/* The container's null device, which must be that: an image's /dev/null may be anything (CVE-2025-31133). */
static int open_null(int root, struct err *err)
{
	struct stat st;
	CLEAN_FD int null = fd_open_beneath(root, "/dev/null", O_PATH | O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS);

	if (null < 0 || fstat(null, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
		return err_set(err, EINVAL, "cannot mask paths: the container's /dev/null is not the null device");
	return take_fd(&null);
}

struct masks {
	int null, empty; /* what covers files, and folders; -1: not needed yet */
};

static int mask(int root, const char *path, struct masks *m, struct err *err)
{
	struct stat st;
	CLEAN_FD int target = open_protected(root, path, &st, err), tree = -1;
	int *from;

	if (target < 0)
		return target == -ENOENT ? 0 : target;
	from = S_ISDIR(st.st_mode) ? &m->empty : &m->null;
	if (S_ISDIR(st.st_mode) && *from < 0) {
		/* A mount can be copied once it is somewhere in this namespace (before Linux 6.15): the first folder gets itself. */
		*from = mount_empty(err);
		return *from < 0 ? *from : rootfs_attach(*from, target, path, err);
	}
	if (*from < 0)
		*from = open_null(root, err);
	if (*from < 0)
		return *from;
	tree = open_tree(*from, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0)
		return err_sys(err, errno, "cannot mask %s", path);
	return rootfs_attach(tree, target, path, err);
}

static int protect_paths(int root, const struct oci_spec *s, struct err *err)
{
	struct masks m = { -1, -1 };
	int r = 0;

	for (char **p = s->readonly_paths; r == 0 && p && *p; p++)
		r = make_readonly(root, *p, err);
	for (char **p = s->masked_paths; r == 0 && p && *p; p++)
		r = mask(root, *p, &m, err);
	close_fd(&m.null);
	close_fd(&m.empty);
	return r;
}

static int set_sysctl(int root, const struct oci_sysctl *c, struct err *err)
{
	char path[256];
	CLEAN_FD int fd = -1;
	struct statfs fs;

	(void)snprintf(path, sizeof(path), "/proc/sys/%s", c->key);
	for (char *p = path + 10; !strchr(c->key, '/') && *p; p++)
		if (*p == '.')
			*p = '/';
	fd = fd_open_beneath(root, path, O_WRONLY | O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS);
	if (fd < 0 || fstatfs(fd, &fs) < 0 || (unsigned long)fs.f_type != PROC_SUPER_MAGIC)
		return err_sys(err, fd < 0 ? -fd : EINVAL, "cannot open the sysctl %s", c->key);
	if (write(fd, c->value, strlen(c->value)) < 0)
		return err_sys(err, errno, "cannot set the sysctl %s to '%s'", c->key, c->value);
	return 0;
}

static int make_slave_or_private(const struct oci_spec *s, struct err *err)
{
	unsigned long how = s->rootfs_propagation & MS_SLAVE ? MS_SLAVE : MS_PRIVATE;

	/* shared with the host it is never: what "shared" asks for is set at the end, in the container */
	if (s->rootfs_propagation & MS_SHARED)
		how = MS_SLAVE;
	if (mount(NULL, "/", NULL, how | MS_REC, NULL) < 0)
		return err_sys(err, errno, "cannot make the mounts private");
	return 0;
}

/* The root as a mount of its own, attached over itself: pivot_root(2) wants it in this namespace. */
static int open_root(const struct container_config *config, const struct prepared *p, struct err *err)
{
	CLEAN_FD int tree = -1;
	const char *at = p->rootfs >= 0 ? "/" : config->rootfs;
	CLEAN_FD int base = open(at, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (p->rootfs >= 0)
		tree = fcntl(p->rootfs, F_DUPFD_CLOEXEC, 3);
	else
		tree = open_tree(AT_FDCWD, config->rootfs, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	if (tree < 0 || base < 0)
		return err_sys(err, errno, "cannot open the root filesystem %s", config->rootfs);
	r = rootfs_attach(tree, base, config->rootfs, err);
	return r < 0 ? r : take_fd(&tree);
}

int rootfs_build(const struct container_config *config, const struct prepared *p, const struct cgroup *g, int *console,
		 int *root, struct err *err)
{
	const struct oci_spec *s = config->spec;
	CLEAN_FD int tree = -1;
	int r = make_slave_or_private(s, err), number;

	if (r < 0)
		return r;
	tree = open_root(config, p, err);
	if (tree < 0)
		return tree;
	r = mount_all(tree, config, p, g, err);
	if (r == 0)
		r = devices_make(tree, s, err);
	if (r == 0 && config->init_path)
		r = mount_bind_file(tree, config->init_path, "/sbin/docker-init", true, err);
	if (r == 0 && s->process.terminal) {
		*console = r = rootfs_open_console(tree, &number, err);
		r = r < 0 ? r : bind_console(tree, number, err);
	}
	for (size_t i = 0; r == 0 && i < s->sysctl_count; i++)
		r = set_sysctl(tree, &s->sysctl[i], err);
	if (r == 0)
		r = protect_paths(tree, s, err);
	if (r == 0)
		r = rootfs_make_folder(tree, s->process.cwd, 0755, err);
	if (r == 0)
		*root = take_fd(&tree);
	return r;
}

int rootfs_pivot(const struct container_config *config, int root, struct err *err)
{
	struct mount_attr ro = { .attr_set = MOUNT_ATTR_RDONLY };
	unsigned long propagation = config->spec->rootfs_propagation;

	if (config->spec->rootfs_readonly && mount_setattr(root, "", AT_EMPTY_PATH, &ro, sizeof(ro)) < 0)
		return err_sys(err, errno, "cannot make the root filesystem read-only");
	if (fchdir(root) < 0)
		return err_sys(err, errno, "cannot enter the root filesystem");
	if (config->no_pivot) {
		/* the initial ramfs can not be pivoted away: cover it */
		if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
			return err_sys(err, errno, "cannot move the root filesystem to /");
	} else if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) {
		return err_sys(err, errno, "cannot pivot into the root filesystem");
	}
	if (propagation && mount(NULL, "/", NULL, propagation, NULL) < 0)
		return err_sys(err, errno, "cannot set linux.rootfsPropagation");
	return 0;
}
