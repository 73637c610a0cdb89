/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container's view of files. Mounts are made with descriptors only (fsopen,
 * open_tree, move_mount); targets are opened below the root's descriptor by openat2,
 * so a symlink in the image can not lead a mount elsewhere. /proc and /sys are never
 * reached through symlinks, and writes below /proc check that it is procfs.
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
static int open_parent(int root, const char *path, const char **name, struct err *err)
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

static int open_target(int root, const char *path, bool folder, struct err *err)
{
	bool kernel = strncmp(path, "/proc", 5) == 0 || strncmp(path, "/sys", 4) == 0;
	uint64_t resolve = RESOLVE_NO_MAGICLINKS | (kernel ? RESOLVE_NO_SYMLINKS : 0);
	int fd = fd_open_beneath(root, path, O_PATH | O_CLOEXEC, 0, resolve), r;

	if (fd == -ENOENT && folder) {
		r = rootfs_make_folder(root, path, 0755, err);
		if (r < 0)
			return r;
	} else if (fd == -ENOENT) {
		const char *name;
		CLEAN_FD int parent = open_parent(root, path, &name, err), file = -1;

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

static int attach(int mount, int target, const char *what, struct err *err)
{
	if (move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return err_sys(err, errno, "cannot mount at %s", what);
	return 0;
}

static const struct {
	const char *name;
	uint64_t set, clear, propagation;
	bool rec;
} options[] = {
	{ "ro", MOUNT_ATTR_RDONLY },
	{ "rw", 0, MOUNT_ATTR_RDONLY },
	{ "nosuid", MOUNT_ATTR_NOSUID },
	{ "suid", 0, MOUNT_ATTR_NOSUID },
	{ "nodev", MOUNT_ATTR_NODEV },
	{ "dev", 0, MOUNT_ATTR_NODEV },
	{ "noexec", MOUNT_ATTR_NOEXEC },
	{ "exec", 0, MOUNT_ATTR_NOEXEC },
	{ "noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME },
	{ "relatime", 0, MOUNT_ATTR__ATIME },
	{ "strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME },
	{ "nodiratime", MOUNT_ATTR_NODIRATIME },
	{ "rro", MOUNT_ATTR_RDONLY, .rec = true },
	{ "bind" },
	{ "rbind" },
	{ "defaults" },
	{ "private", .propagation = MS_PRIVATE },
	{ "rprivate", .propagation = MS_PRIVATE, .rec = true },
	{ "slave", .propagation = MS_SLAVE },
	{ "rslave", .propagation = MS_SLAVE, .rec = true },
};

struct mount_options {
	struct mount_attr attr;
	bool rec, rbind;
};

/* Return: whether @o was an attribute of the mount; else it is the filesystem's. */
static bool take_option(const char *o, struct mount_options *m)
{
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		if (strcmp(options[i].name, o) != 0)
			continue;
		m->attr.attr_set = (m->attr.attr_set & ~options[i].clear) | options[i].set;
		m->attr.attr_clr |= options[i].clear;
		m->rec |= options[i].rec && !options[i].propagation;
		if (options[i].propagation)
			m->attr.propagation = options[i].propagation;
		m->rbind |= strcmp(o, "rbind") == 0;
		return true;
	}
	return false;
}

static int set_attr(int mount, struct mount_options *m, const char *what, struct err *err)
{
	if (!m->attr.attr_set && !m->attr.attr_clr && !m->attr.propagation)
		return 0;
	if (mount_setattr(mount, "", AT_EMPTY_PATH | (m->rec ? AT_RECURSIVE : 0), &m->attr, sizeof(m->attr)) < 0)
		return err_sys(err, errno, "cannot set the options of the mount at %s", what);
	return 0;
}

static int mount_bind(int root, const struct oci_mount *m, struct mount_options *o, struct err *err)
{
	CLEAN_FD int tree = -1, target = -1;
	struct stat st;
	int r;

	if (!m->source)
		return err_set(err, EINVAL, "the bind mount at %s has no source", m->destination);
	tree = open_tree(AT_FDCWD, m->source,
			 OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (unsigned int)(o->rbind ? AT_RECURSIVE : 0));
	if (tree < 0 || fstat(tree, &st) < 0)
		return err_sys(err, errno, "cannot bind %s to %s", m->source, m->destination);
	if ((r = set_attr(tree, o, m->destination, err)) < 0)
		return r;
	target = open_target(root, m->destination, S_ISDIR(st.st_mode), err);
	return target < 0 ? target : attach(tree, target, m->destination, err);
}

static int mount_new(int root, const struct oci_mount *m, const char *type, struct mount_options *o, char **data,
		     size_t ndata, struct err *err)
{
	CLEAN_FD int fs = fsopen(type, FSOPEN_CLOEXEC), mount = -1, target = -1;
	int r;

	if (fs < 0)
		return err_sys(err, errno, "cannot mount %s at %s", type, m->destination);
	if (m->source && fsconfig(fs, FSCONFIG_SET_STRING, "source", m->source, 0) < 0)
		return err_sys(err, errno, "cannot mount %s at %s: source %s", type, m->destination, m->source);
	for (size_t i = 0; i < ndata; i++) {
		char *eq = strchr(data[i], '=');
		CLEAN_FREE char *key = strndup(data[i], eq ? (size_t)(eq - data[i]) : strlen(data[i]));

		if (!key || fsconfig(fs, eq ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key, eq ? eq + 1 : NULL, 0) < 0)
			return err_sys(err, errno, "cannot mount %s at %s: option %s", type, m->destination, data[i]);
	}
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 || (mount = fsmount(fs, FSMOUNT_CLOEXEC, 0)) < 0)
		return err_sys(err, errno, "cannot mount %s at %s", type, m->destination);
	if ((r = set_attr(mount, o, m->destination, err)) < 0)
		return r;
	target = open_target(root, m->destination, true, err);
	return target < 0 ? target : attach(mount, target, m->destination, err);
}

/* The container's own cgroup folders, bound at /sys/fs/cgroup. */
static int mount_cgroup(int root, const struct oci_mount *m, struct mount_options *o, const struct cgroup *g,
			struct err *err)
{
	char *tmpfs_data[] = { (char *)"mode=755" };
	struct oci_mount top = { .destination = m->destination, .source = (char *)"tmpfs" };
	struct mount_options rw = { 0 };
	int r = g->v2 ? 0 : mount_new(root, &top, "tmpfs", &rw, tmpfs_data, 1, err);

	for (int i = 0; r == 0 && i < CGROUP_CONTROLLERS; i++) {
		CLEAN_FD int tree = -1, target = -1;
		char path[512], from[1024];

		if (g->dir[i] < 0)
			continue;
		(void)snprintf(path, sizeof(path), "%s%s%s", m->destination, g->v2 ? "" : "/",
			       g->v2 ? "" : cgroup_controller_name((enum cgroup_controller)i));
		/* by path: g->dir[i] belongs to the creator's mount namespace and can not be cloned from here */
		(void)snprintf(from, sizeof(from), "/sys/fs/cgroup/%s/%s",
			       g->v2 ? "." : cgroup_controller_name((enum cgroup_controller)i), g->path);
		tree = open_tree(AT_FDCWD, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (tree < 0)
			return err_sys(err, errno, "cannot bind the cgroup at %s", path);
		r = set_attr(tree, o, path, err);
		if (r == 0)
			r = target = open_target(root, path, true, err);
		if (target >= 0)
			r = attach(tree, target, path, err);
	}
	return r;
}

static int mount_one(int root, const struct oci_mount *m, const struct cgroup *g, struct err *err)
{
	CLEAN_FREE char **data = NULL;
	struct mount_options o = { 0 };
	size_t n = 0, count = 0;

	while (m->options[count])
		count++;
	data = calloc(count + 1, sizeof(char *));
	if (!data)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < count; i++)
		if (!take_option(m->options[i], &o))
			data[n++] = m->options[i];
	if (strcmp(m->type, "cgroup") == 0 || strcmp(m->type, "cgroup2") == 0)
		return mount_cgroup(root, m, &o, g, err);
	if (strcmp(m->type, "bind") == 0 || o.rbind) {
		if (n)
			return err_set(err, EINVAL, "unknown option '%s' of the bind mount at %s", data[0],
				       m->destination);
		return mount_bind(root, m, &o, err);
	}
	return mount_new(root, m, m->type, &o, data, n, err);
}

static int make_device(int root, const struct oci_device *d, struct err *err)
{
	const char *name;
	CLEAN_FD int parent = open_parent(root, d->path, &name, err);
	mode_t kind = d->type == 'b' ? S_IFBLK : d->type == 'p' ? S_IFIFO : S_IFCHR;

	if (parent < 0)
		return parent;
	if (mknodat(parent, name, kind | d->mode, makedev(d->major, d->minor)) == 0) {
		if (fchmodat(parent, name, d->mode, 0) < 0 || fchownat(parent, name, d->uid, d->gid, 0) < 0)
			return err_sys(err, errno, "cannot set the mode of device %s", d->path);
		return 0;
	}
	if (errno == EEXIST)
		return 0;
	if (errno == EPERM) {
		char *none[] = { NULL };
		struct oci_mount bind = { .destination = d->path, .source = d->path, .options = none };
		struct mount_options o = { 0 };

		return mount_bind(root, &bind, &o, err);
	}
	return err_sys(err, errno, "cannot make the device %s", d->path);
}

static int make_devices(int root, const struct oci_spec *s, struct err *err)
{
	static const struct {
		const char *path;
		unsigned int major, minor;
	} nodes[] = {
		{ "/dev/null", 1, 3 },   { "/dev/zero", 1, 5 },    { "/dev/full", 1, 7 },
		{ "/dev/random", 1, 8 }, { "/dev/urandom", 1, 9 }, { "/dev/tty", 5, 0 },
	};
	static const char *const links[][2] = {
		{ "pts/ptmx", "ptmx" },          { "/proc/self/fd", "fd" },       { "/proc/self/fd/0", "stdin" },
		{ "/proc/self/fd/1", "stdout" }, { "/proc/self/fd/2", "stderr" }, { "/proc/kcore", "core" },
	};
	CLEAN_FD int dev = -1;
	int r = rootfs_make_folder(root, "/dev", 0755, err);

	for (size_t i = 0; r == 0 && i < s->devices_count; i++)
		r = make_device(root, &s->devices[i], err);
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(nodes); i++) {
		struct oci_device d = { .path = (char *)(uintptr_t)nodes[i].path,
					.type = 'c',
					.major = nodes[i].major,
					.minor = nodes[i].minor,
					.mode = 0666 };

		r = make_device(root, &d, err);
	}
	if (r < 0)
		return r;
	dev = fd_open_beneath(root, "/dev", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
	if (dev < 0)
		return err_sys(err, -dev, "cannot open /dev in the container");
	for (size_t i = 0; i < ARRAY_LEN(links); i++)
		if (symlinkat(links[i][0], dev, links[i][1]) < 0 && errno != EEXIST)
			return err_sys(err, errno, "cannot make /dev/%s", links[i][1]);
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
	target = open_target(root, "/dev/console", false, err);
	if (tree < 0 || target < 0)
		return tree < 0 ? err_sys(err, errno, "cannot bind /dev/console") : target;
	return attach(tree, target, "/dev/console", err);
}

static int protect(int root, const char *path, bool mask, struct err *err)
{
	CLEAN_FD int target =
		fd_open_beneath(root, path, O_PATH | O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
	CLEAN_FD int tree = -1, null = -1;
	struct mount_options ro = { .attr.attr_set = MOUNT_ATTR_RDONLY, .rec = true };
	struct stat st;
	int r;

	if (target == -ENOENT || target == -ENOTDIR)
		return 0;
	if (target < 0 || fstat(target, &st) < 0)
		return err_sys(err, target < 0 ? -target : errno, "cannot protect %s", path);
	if (mask && S_ISDIR(st.st_mode)) {
		struct oci_mount m = { .destination = (char *)(uintptr_t)path, .source = (char *)"tmpfs" };

		ro.rec = false;
		return mount_new(root, &m, "tmpfs", &ro, NULL, 0, err);
	}
	if (mask) {
		null = fd_open_beneath(root, "/dev/null", O_PATH | O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS);
		if (null < 0 || fstat(null, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
			return err_set(err, EINVAL, "cannot mask %s: the container's /dev/null is not the null device",
				       path);
		tree = open_tree(null, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	} else {
		tree = open_tree(target, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	}
	if (tree < 0)
		return err_sys(err, errno, "cannot protect %s", path);
	r = mask ? 0 : set_attr(tree, &ro, path, err);
	return r < 0 ? r : attach(tree, target, path, err);
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

static int enter(int root, bool readonly, struct err *err)
{
	struct mount_attr ro = { .attr_set = MOUNT_ATTR_RDONLY };

	if (readonly && mount_setattr(root, "", AT_EMPTY_PATH, &ro, sizeof(ro)) < 0)
		return err_sys(err, errno, "cannot make the root filesystem read-only");
	if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return err_sys(err, errno, "cannot pivot into the root filesystem");
	return 0;
}

int rootfs_enter(const struct container_config *config, const struct cgroup *g, int *console, struct err *err)
{
	const struct oci_spec *s = config->spec;
	CLEAN_FD int tree = -1, base = -1;
	int r = 0, number;

	if (mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) < 0)
		return err_sys(err, errno, "cannot make the mounts private");
	tree = open_tree(AT_FDCWD, config->rootfs, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	base = open(config->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (tree < 0 || base < 0)
		return err_sys(err, errno, "cannot open the root filesystem %s", config->rootfs);
	r = attach(tree, base, config->rootfs, err);
	for (size_t i = 0; r == 0 && i < s->mounts_count; i++)
		r = mount_one(tree, &s->mounts[i], g, err);
	if (r == 0)
		r = make_devices(tree, s, err);
	if (r == 0 && config->init_path) {
		char *none[] = { NULL };
		struct oci_mount m = { .destination = (char *)"/sbin/docker-init",
				       .options = none,
				       .source = (char *)(uintptr_t)config->init_path };
		struct mount_options o = { .attr.attr_set = MOUNT_ATTR_RDONLY };

		r = mount_bind(tree, &m, &o, err);
	}
	if (r == 0 && s->process.terminal) {
		*console = r = rootfs_open_console(tree, &number, err);
		r = r < 0 ? r : bind_console(tree, number, err);
	}
	for (size_t i = 0; r == 0 && i < s->sysctl_count; i++)
		r = set_sysctl(tree, &s->sysctl[i], err);
	for (char **p = s->readonly_paths; r == 0 && p && *p; p++)
		r = protect(tree, *p, false, err);
	for (char **p = s->masked_paths; r == 0 && p && *p; p++)
		r = protect(tree, *p, true, err);
	if (r == 0)
		r = rootfs_make_folder(tree, s->process.cwd, 0755, err);
	return r < 0 ? r : enter(tree, s->rootfs_readonly, err);
}
