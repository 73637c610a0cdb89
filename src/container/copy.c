/* SPDX-License-Identifier: Apache-2.0 */
/* The copy of a folder's contents into a new tmpfs (mount option tmpcopyup). Never follows a link. */
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/internal.h"

#define DEPTH_MAX 128
#define ATTRS_MAX 65536

static int copy_folder(int from, int to, unsigned int depth, struct err *err);

static int copy_bytes(int from, int to)
{
	for (;;) {
		ssize_t n = sendfile(to, from, NULL, 1 << 30);

		if (n <= 0)
			return n < 0 ? -errno : 0;
	}
}

/* Attributes that the filesystem does not take (tmpfs knows few) are left out. */
static void copy_attributes(int from, int to)
{
	CLEAN_FREE char *names = malloc(ATTRS_MAX), *value = malloc(ATTRS_MAX);
	ssize_t n = names && value ? flistxattr(from, names, ATTRS_MAX) : 0;

	for (char *name = names; n > 0 && name < names + n; name += strlen(name) + 1) {
		ssize_t size = fgetxattr(from, name, value, ATTRS_MAX);

		if (size >= 0 && fsetxattr(to, name, value, (size_t)size, 0) < 0)
			continue;
	}
}

static int copy_file(int from, int to, const char *name, const struct stat *st, unsigned int depth, struct err *err)
{
	bool folder = S_ISDIR(st->st_mode);
	CLEAN_FD int in =
		openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | (folder ? O_DIRECTORY : 0));
	CLEAN_FD int out = -1;
	int r;

	if (in < 0)
		return err_sys(err, errno, "tmpcopyup: cannot open %s", name);
	if (folder && mkdirat(to, name, 0700) < 0)
		return err_sys(err, errno, "tmpcopyup: cannot make %s", name);
	out = openat(to, name, O_NOFOLLOW | O_CLOEXEC | (folder ? O_RDONLY | O_DIRECTORY : O_WRONLY | O_CREAT | O_EXCL),
		     0600);
	if (out < 0)
		return err_sys(err, errno, "tmpcopyup: cannot make %s", name);
	r = folder ? copy_folder(in, out, depth + 1, err) : copy_bytes(in, out);
	if (r < 0)
		return folder ? r : err_sys(err, -r, "tmpcopyup: cannot copy %s", name);
	copy_attributes(in, out);
	if (fchown(out, st->st_uid, st->st_gid) < 0 || fchmod(out, st->st_mode & 07777) < 0)
		return err_sys(err, errno, "tmpcopyup: cannot set the owner of %s", name);
	return 0;
}

static int copy_entry(int from, int to, const char *name, unsigned int depth, struct err *err)
{
	struct stat st;
	char link[4096];
	ssize_t n;

	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(err, errno, "tmpcopyup: cannot look at %s", name);
	if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))
		return copy_file(from, to, name, &st, depth, err);
	if (S_ISLNK(st.st_mode)) {
		n = readlinkat(from, name, link, sizeof(link) - 1);
		if (n < 0)
			return err_sys(err, errno, "tmpcopyup: cannot read the link %s", name);
		link[n] = 0;
		if (symlinkat(link, to, name) < 0)
			return err_sys(err, errno, "tmpcopyup: cannot make the link %s", name);
	} else if (mknodat(to, name, st.st_mode, st.st_rdev) < 0 || fchmodat(to, name, st.st_mode & 07777, 0) < 0) {
		return err_sys(err, errno, "tmpcopyup: cannot make the node %s", name);
	}
	return fchownat(to, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0
		       ? err_sys(err, errno, "tmpcopyup: cannot set the owner of %s", name)
		       : 0;
}

static int copy_folder(int from, int to, unsigned int depth, struct err *err)
{
	int fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	CLEAN_DIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d || depth > DEPTH_MAX) {
		r = errno;
		if (fd >= 0 && !d)
			(void)close(fd);
		return err_sys(err, depth > DEPTH_MAX ? ELOOP : r, "tmpcopyup: cannot list a folder");
	}
	while (r == 0 && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = copy_entry(fd, to, e->d_name, depth, err);
	return r;
}

int copy_tree(int from, int to, struct err *err)
{
	return copy_folder(from, to, 0, err);
}
