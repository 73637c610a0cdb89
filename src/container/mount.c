/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spec's mounts (runtime-spec, config.md, "Mounts"; mount(8)). A mount is made detached, gets its options, and is
 * then attached at a descriptor: no path is looked up twice, so nothing can be swapped in between.
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/internal.h"

#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif

enum special {
	NOTHING,
	BIND,
	RBIND,
	REMOUNT,
	COPY_UP,
	IDMAP,
	RIDMAP,
	SUPERBLOCK /* an option of the filesystem, by its own name */
};

static const struct {
	const char *name;
	uint64_t set, clear, propagation;
	bool rec;
	enum special special;
} options[] = {
	{ "acl", .special = SUPERBLOCK },
	{ "async", .special = NOTHING },
	{ "atime", 0, MOUNT_ATTR__ATIME },
	{ "bind", .special = BIND },
	{ "defaults" },
	{ "dev", 0, MOUNT_ATTR_NODEV },
	{ "diratime", 0, MOUNT_ATTR_NODIRATIME },
	{ "dirsync", .special = SUPERBLOCK },
	{ "exec", 0, MOUNT_ATTR_NOEXEC },
	{ "idmap", .special = IDMAP },
	{ "iversion", .special = SUPERBLOCK },
	{ "lazytime", .special = SUPERBLOCK },
	{ "loud" },
	{ "mand", .special = SUPERBLOCK },
	{ "noacl", .special = SUPERBLOCK },
	{ "noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME },
	{ "nodev", MOUNT_ATTR_NODEV },
	{ "nodiratime", MOUNT_ATTR_NODIRATIME },
	{ "noexec", MOUNT_ATTR_NOEXEC },
	{ "noiversion" },
	{ "nolazytime" },
	{ "nomand" },
	{ "norelatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME },
	{ "nostrictatime", 0, MOUNT_ATTR__ATIME },
	{ "nosuid", MOUNT_ATTR_NOSUID },
	{ "nosymfollow", MOUNT_ATTR_NOSYMFOLLOW },
	{ "private", .propagation = MS_PRIVATE },
	{ "ratime", 0, MOUNT_ATTR__ATIME, .rec = true },
	{ "rbind", .special = RBIND },
	{ "rdev", 0, MOUNT_ATTR_NODEV, .rec = true },
	{ "rdiratime", 0, MOUNT_ATTR_NODIRATIME, .rec = true },
	{ "relatime", 0, MOUNT_ATTR__ATIME },
	{ "remount", .special = REMOUNT },
	{ "rexec", 0, MOUNT_ATTR_NOEXEC, .rec = true },
	{ "ridmap", .special = RIDMAP },
	{ "rnoatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME, .rec = true },
	{ "rnodev", MOUNT_ATTR_NODEV, .rec = true },
	{ "rnodiratime", MOUNT_ATTR_NODIRATIME, .rec = true },
	{ "rnoexec", MOUNT_ATTR_NOEXEC, .rec = true },
	{ "rnorelatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME, .rec = true },
	{ "rnostrictatime", 0, MOUNT_ATTR__ATIME, .rec = true },
	{ "rnosuid", MOUNT_ATTR_NOSUID, .rec = true },
	{ "rnosymfollow", MOUNT_ATTR_NOSYMFOLLOW, .rec = true },
	{ "ro", MOUNT_ATTR_RDONLY },
	{ "rprivate", .propagation = MS_PRIVATE, .rec = true },
	{ "rrelatime", 0, MOUNT_ATTR__ATIME, .rec = true },
	{ "rro", MOUNT_ATTR_RDONLY, .rec = true },
	{ "rrw", 0, MOUNT_ATTR_RDONLY, .rec = true },
	{ "rshared", .propagation = MS_SHARED, .rec = true },
	{ "rslave", .propagation = MS_SLAVE, .rec = true },
	{ "rstrictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME, .rec = true },
	{ "rsuid", 0, MOUNT_ATTR_NOSUID, .rec = true },
	{ "rsymfollow", 0, MOUNT_ATTR_NOSYMFOLLOW, .rec = true },
	{ "runbindable", .propagation = MS_UNBINDABLE, .rec = true },
	{ "rw", 0, MOUNT_ATTR_RDONLY },
	{ "shared", .propagation = MS_SHARED },
	{ "silent" },
	{ "slave", .propagation = MS_SLAVE },
	{ "strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME },
	{ "suid", 0, MOUNT_ATTR_NOSUID },
	{ "symfollow", 0, MOUNT_ATTR_NOSYMFOLLOW },
	{ "sync", .special = SUPERBLOCK },
	{ "tmpcopyup", .special = COPY_UP },
	{ "unbindable", .propagation = MS_UNBINDABLE },
};

/* What the options of one mount come to. */
struct wanted {
	struct mount_attr top, all; /* of the mount itself, of it and what is below it */
	uint64_t propagation;
	bool propagation_rec, bind, rec, remount, copy_up, idmap, idmap_rec;
	char **data; /* the filesystem's own; borrowed strings, owned array */
	size_t ndata;
};

static void wanted_fini(struct wanted *w)
{
	free((void *)w->data);
}

const char *const *container_mount_options(void)
{
	static const char *names[ARRAY_LEN(options) + 1];

	for (size_t i = 0; i < ARRAY_LEN(options); i++)
		names[i] = options[i].name;
	return names;
}

/* Return: whether @o is not the filesystem's. */
static bool take_option(const char *o, struct wanted *w)
{
	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		struct mount_attr *attr = options[i].rec ? &w->all : &w->top;

		if (strcmp(options[i].name, o) != 0)
			continue;
		if (options[i].propagation) {
			w->propagation = options[i].propagation;
			w->propagation_rec = options[i].rec;
			return true;
		}
		/* the later of "ro" and "rw" wins */
		attr->attr_set = (attr->attr_set & ~options[i].clear) | options[i].set;
		attr->attr_clr = (attr->attr_clr & ~(options[i].set & ~(uint64_t)MOUNT_ATTR__ATIME)) | options[i].clear;
		w->bind |= options[i].special == BIND || options[i].special == RBIND;
		w->rec |= options[i].special == RBIND;
		w->remount |= options[i].special == REMOUNT;
		w->copy_up |= options[i].special == COPY_UP;
		w->idmap |= options[i].special == IDMAP || options[i].special == RIDMAP;
		w->idmap_rec |= options[i].special == RIDMAP;
		return options[i].special != SUPERBLOCK;
	}
	return false;
}

static int read_options(const struct oci_mount *m, struct wanted *w, struct err *err)
{
	size_t n = 0;

	while (m->options[n])
		n++;
	w->data = calloc(n + 1, sizeof(char *));
	if (!w->data)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++)
		if (!take_option(m->options[i], w))
			w->data[w->ndata++] = m->options[i];
	w->bind |= strcmp(m->type, "bind") == 0;
	w->idmap |= m->uid_map_count;
	return 0;
}

static bool has_option(const struct oci_mount *m, const char *name)
{
	for (char **o = m->options; *o; o++)
		if (strcmp(*o, name) == 0)
			return true;
	return false;
}

bool mount_is_bind(const struct oci_mount *m)
{
	return (strcmp(m->type, "bind") == 0 || has_option(m, "bind") || has_option(m, "rbind")) &&
	       !has_option(m, "remount");
}

bool mount_wants_idmap(const struct oci_mount *m)
{
	return m->uid_map_count || has_option(m, "idmap") || has_option(m, "ridmap");
}

static int set_attr(int mount, struct mount_attr *attr, bool rec, const char *what, struct err *err)
{
	if (!attr->attr_set && !attr->attr_clr && !attr->propagation)
		return 0;
	if (mount_setattr(mount, "", AT_EMPTY_PATH | (rec ? AT_RECURSIVE : 0), attr, sizeof(*attr)) < 0)
		return err_sys(err, errno, "cannot set the options of the mount at %s", what);
	return 0;
}

static int set_options(int mount, struct wanted *w, const char *what, struct err *err)
{
	int r = set_attr(mount, &w->all, true, what, err);

	return r < 0 ? r : set_attr(mount, &w->top, false, what, err);
}

/* After it is attached: a peer group is that of the place, too. */
static int set_propagation(int mount, const struct wanted *w, const char *what, struct err *err)
{
	struct mount_attr attr = { .propagation = w->propagation };

	return set_attr(mount, &attr, w->propagation_rec, what, err);
}

static int map_ids(int tree, const struct oci_mount *m, const struct wanted *w, const struct oci_spec *s,
		   struct err *err)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP };
	CLEAN_FD int user = -1;

	if (m->uid_map_count)
		user = idmap_open(m->uid_map, m->uid_map_count, m->gid_map, m->gid_map_count, err);
	else if (s->uid_map_count)
		user = idmap_open(s->uid_map, s->uid_map_count, s->gid_map, s->gid_map_count, err);
	else
		return err_set(
			err, EINVAL,
			"the mount at %s: the option idmap needs uidMappings and gidMappings, of the mount or of the "
			"container",
			m->destination);
	if (user < 0)
		return user;
	attr.userns_fd = (uint64_t)(unsigned int)user;
	if (mount_setattr(tree, "", AT_EMPTY_PATH | (w->idmap_rec ? AT_RECURSIVE : 0), &attr, sizeof(attr)) < 0)
		return err_sys(err, errno, "cannot map the ids of the mount at %s (not every filesystem can)",
			       m->destination);
	return 0;
}

static int open_bind(const struct oci_mount *m, const struct wanted *w, struct err *err)
{
	int tree;

	if (!m->source || !*m->source)
		return err_set(err, EINVAL, "the bind mount at %s has no source", m->destination);
	tree = open_tree(AT_FDCWD, m->source,
			 OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (unsigned int)(w->rec ? AT_RECURSIVE : 0));
	return tree < 0 ? err_sys(err, errno, "cannot bind %s to %s", m->source, m->destination) : tree;
}

int mount_open_source(const struct oci_mount *m, const struct oci_spec *s, struct err *err)
{
	CLEAN(wanted_fini) struct wanted w = { 0 };
	struct mount_attr attr = { .propagation = MS_PRIVATE };
	CLEAN_FD int tree = -1;
	int r = read_options(m, &w, err);

	if (r < 0)
		return r;
	tree = open_bind(m, &w, err);
	if (tree < 0)
		return tree;
	/* it is still a member of the host's peer group: leave, unless what is mounted there is to appear */
	if (w.propagation != MS_SLAVE && w.propagation != MS_SHARED &&
	    mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0)
		return err_sys(err, errno, "cannot make the mount at %s private", m->destination);
	if (w.idmap && (r = map_ids(tree, m, &w, s, err)) < 0)
		return r;
	return take_fd(&tree);
}

static int mount_bind(int root, const struct oci_mount *m, struct wanted *w, int opened, struct err *err)
{
	CLEAN_FD int target = -1, tree = opened >= 0 ? -1 : open_bind(m, w, err);
	struct stat st;
	int fd = opened >= 0 ? opened : tree, r;

	if (fd < 0)
		return fd;
	if (w->ndata)
		return err_set(err, EINVAL, "unknown option '%s' of the bind mount at %s", w->data[0], m->destination);
	if (fstat(fd, &st) < 0)
		return err_sys(err, errno, "cannot bind %s to %s", m->source, m->destination);
	if ((r = set_options(fd, w, m->destination, err)) < 0)
		return r;
	target = rootfs_open_target(root, m->destination, S_ISDIR(st.st_mode), err);
	if (target < 0 || (r = rootfs_attach(fd, target, m->destination, err)) < 0)
		return target < 0 ? target : r;
	return set_propagation(fd, w, m->destination, err);
}

int mount_bind_file(int root, const char *source, const char *path, bool readonly, struct err *err)
{
	char *none[] = { NULL };
	struct oci_mount m = { .destination = (char *)(uintptr_t)path,
			       .source = (char *)(uintptr_t)source,
			       .type = (char *)(uintptr_t) "bind",
			       .options = none };
	struct wanted w = { .top.attr_set = readonly ? MOUNT_ATTR_RDONLY : 0 };

	return mount_bind(root, &m, &w, -1, err);
}

static int configure(int fs, const char *type, const char *option, const struct oci_mount *m, struct err *err)
{
	const char *equals = strchr(option, '=');
	CLEAN_FREE char *key = strndup(option, equals ? (size_t)(equals - option) : strlen(option));

	if (!key)
		return err_set(err, ENOMEM, "out of memory");
	if (fsconfig(fs, equals ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key, equals ? equals + 1 : NULL, 0) == 0)
		return 0;
	/* devpts has one instance a mount since Linux 4.7, and takes the option that says so no more in every version */
	if (strcmp(option, "newinstance") == 0)
		return 0;
	return err_sys(err, errno, "cannot mount %s at %s: option %s", type, m->destination, option);
}

/* A new filesystem, detached. */
static int open_filesystem(const struct oci_mount *m, const struct wanted *w, const char *more, struct err *err)
{
	CLEAN_FD int fs = fsopen(m->type, FSOPEN_CLOEXEC);
	int r = 0, mount;

	if (fs < 0)
		return err_sys(err, errno, "cannot mount %s at %s%s", m->type, m->destination,
			       errno == ENODEV ? " (this kernel does not know the type)" : "");
	if (m->source && *m->source && fsconfig(fs, FSCONFIG_SET_STRING, "source", m->source, 0) < 0)
		return err_sys(err, errno, "cannot mount %s at %s: source %s", m->type, m->destination, m->source);
	for (size_t i = 0; r == 0 && i < w->ndata; i++)
		r = configure(fs, m->type, w->data[i], m, err);
	if (r == 0 && more)
		r = configure(fs, m->type, more, m, err);
	if (r < 0)
		return r;
	if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 || (mount = fsmount(fs, FSMOUNT_CLOEXEC, 0)) < 0)
		return err_sys(err, errno, "cannot mount %s at %s", m->type, m->destination);
	return mount;
}

int mount_empty(struct err *err)
{
	struct oci_mount m = { .destination = (char *)(uintptr_t) "a masked folder",
			       .type = (char *)(uintptr_t) "tmpfs",
			       .source = (char *)(uintptr_t) "tmpfs" };
	struct wanted w = { .top.attr_set = MOUNT_ATTR_RDONLY };
	CLEAN_FD int mount = open_filesystem(&m, &w, "nr_blocks=1", err);
	int r = mount < 0 ? mount : set_options(mount, &w, m.destination, err);

	return r < 0 ? r : take_fd(&mount);
}

/* A tmpfs over a folder of the image has that folder's mode unless one is given. */
static const char *inherit_mode(const struct oci_mount *m, const struct wanted *w, int target, char text[32])
{
	struct stat st;

	if (strcmp(m->type, "tmpfs") != 0 || fstat(target, &st) < 0)
		return NULL;
	for (size_t i = 0; i < w->ndata; i++)
		if (strncmp(w->data[i], "mode=", 5) == 0)
			return NULL;
	(void)snprintf(text, 32, "mode=%o", st.st_mode & 07777);
	return text;
}

/* Without privilege over the network namespace a new sysfs may not be mounted: the host's is bound, read-only in effect. */
static int bind_sysfs(int root, const struct oci_mount *m, struct wanted *w, struct err *err)
{
	struct oci_mount bind = { .destination = m->destination, .source = (char *)(uintptr_t) "/sys" };

	w->rec = true;
	w->ndata = 0;
	return mount_bind(root, &bind, w, -1, err);
}

static int mount_new(int root, const struct oci_mount *m, struct wanted *w, struct err *err)
{
	CLEAN_FD int target = rootfs_open_target(root, m->destination, true, err), mount = -1, below = -1;
	char mode[32];
	int r;

	if (target < 0)
		return target;
	mount = open_filesystem(m, w, inherit_mode(m, w, target, mode), err);
	if (mount == -EPERM && strcmp(m->type, "sysfs") == 0)
		return bind_sysfs(root, m, w, err);
	if (mount < 0)
		return mount;
	if (w->copy_up) {
		if (strcmp(m->type, "tmpfs") != 0)
			return err_set(err, EINVAL, "the mount at %s: tmpcopyup is an option of tmpfs", m->destination);
		below = openat(target, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (below < 0)
			return err_sys(err, errno, "tmpcopyup: cannot open %s", m->destination);
		if ((r = copy_tree(below, mount, err)) < 0)
			return r;
	}
	if ((r = set_options(mount, w, m->destination, err)) < 0 ||
	    (r = rootfs_attach(mount, target, m->destination, err)) < 0)
		return r;
	return set_propagation(mount, w, m->destination, err);
}

static int remount(int root, const struct oci_mount *m, struct wanted *w, struct err *err)
{
	CLEAN_FD int target = fd_open_beneath(root, m->destination, O_PATH | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
	int r;

	if (target < 0)
		return err_sys(err, -target, "cannot open the mount point %s in the container", m->destination);
	if (w->ndata)
		return err_set(err, EINVAL, "unknown option '%s' of the remount of %s", w->data[0], m->destination);
	r = set_options(target, w, m->destination, err);
	return r < 0 ? r : set_propagation(target, w, m->destination, err);
}

static int bind_cgroup(int root, const char *from, const char *path, struct wanted *w, struct err *err)
{
	char *none[] = { NULL };
	struct oci_mount bind = { .destination = (char *)(uintptr_t)path,
				  .source = (char *)(uintptr_t)from,
				  .type = (char *)(uintptr_t) "bind",
				  .options = none };

	w->rec = false;
	w->ndata = 0;
	return mount_bind(root, &bind, w, -1, err);
}

/* The container's own cgroup folders at the place of the hierarchies. */
static int mount_cgroup(int root, const struct oci_mount *m, struct wanted *w, const struct cgroup *g,
			const struct container_config *config, struct err *err)
{
	char *data[] = { (char *)(uintptr_t) "mode=755", NULL };
	struct oci_mount top = { .destination = m->destination,
				 .source = (char *)(uintptr_t) "tmpfs",
				 .type = (char *)(uintptr_t) "tmpfs" };
	struct wanted rw = { .data = data, .ndata = 1 };
	bool v2 = cgroup_is_v2(g);
	int r = v2 ? 0 : mount_new(root, &top, &rw, err);

	for (unsigned int i = 0; r == 0; i++) {
		char from[4096], path[4096];
		const char *name;

		if (!cgroup_mount_source(g, i, &name, from, sizeof(from)))
			break;
		(void)snprintf(path, sizeof(path), "%s%s%s", m->destination, v2 ? "" : "/", v2 ? "" : name);
		r = bind_cgroup(root, from, path, w, err);
	}
	if (r == 0 && !v2 && w->top.attr_set & MOUNT_ATTR_RDONLY) {
		CLEAN_FD int target =
			fd_open_beneath(root, m->destination, O_PATH | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);

		r = target < 0 ? err_sys(err, -target, "cannot open %s", m->destination)
			       : set_attr(target, &w->top, false, m->destination, err);
	}
	return r;
}

/*
 * What is below /proc stays the kernel's, but for files that lxcfs and the like replace (CVE-2019-16884,
 * CVE-2023-28642: a mount there would hide what protects the container).
 */
static int check_proc(int root, const struct oci_mount *m, int opened, struct err *err)
{
	static const char *const allowed[] = { "/proc/cpuinfo",
					       "/proc/diskstats",
					       "/proc/meminfo",
					       "/proc/stat",
					       "/proc/swaps",
					       "/proc/uptime",
					       "/proc/loadavg",
					       "/proc/slabinfo",
					       "/proc/net/dev",
					       "/proc/sys/kernel/ns_last_pid",
					       "/proc/sys/crypto/fips_enabled" };
	const char *d = m->destination;
	struct statfs fs;

	(void)root;
	if (strncmp(d, "/proc", 5) != 0 || (d[5] && d[5] != '/'))
		return 0;
	if (!d[5 + strspn(d + 5, "/")]) {
		if (!mount_is_bind(m))
			return strcmp(m->type, "proc") == 0 || strcmp(m->type, "tmpfs") == 0
				       ? 0
				       : err_set(err, EINVAL, "\"%s\" cannot be mounted because it is at /proc", d);
		if ((opened >= 0 ? fstatfs(opened, &fs) : statfs(m->source ? m->source : "", &fs)) < 0 ||
		    (unsigned long)fs.f_type != PROC_SUPER_MAGIC)
			return err_set(err, EINVAL, "\"%s\" cannot be mounted because it is not of type proc", d);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
		if (strcmp(d, allowed[i]) == 0)
			return 0;
	return err_set(err, EINVAL, "\"%s\" cannot be mounted because it is inside /proc", d);
}

static int mount_one(int root, const struct oci_mount *m, const struct container_config *config, int opened,
		     const struct cgroup *g, struct err *err)
{
	CLEAN(wanted_fini) struct wanted w = { 0 };
	int r = read_options(m, &w, err);

	if (r < 0 || (r = check_proc(root, m, opened, err)) < 0)
		return r;
	if (w.remount)
		return remount(root, m, &w, err);
	if (w.idmap && !mount_is_bind(m))
		return err_set(err, EINVAL, "the mount at %s: only bind mounts can have mapped ids", m->destination);
	if (w.bind)
		return mount_bind(root, m, &w, opened, err);
	if (strcmp(m->type, "cgroup") == 0 || strcmp(m->type, "cgroup2") == 0)
		return g ? mount_cgroup(root, m, &w, g, config, err)
			 : err_set(err, EINVAL, "the mount at %s: the container has no cgroup", m->destination);
	return mount_new(root, m, &w, err);
}

int mount_all(int root, const struct container_config *config, const struct prepared *p, const struct cgroup *g,
	      struct err *err)
{
	const struct oci_spec *s = config->spec;
	int r = 0;

	for (size_t i = 0; r == 0 && i < s->mounts_count; i++)
		r = mount_one(root, &s->mounts[i], config, p->mounts[i], g, err);
	return r;
}
