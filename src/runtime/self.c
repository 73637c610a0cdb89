/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Until a container's program is executed its process is this program, and the program may be a script whose
 * interpreter is /proc/self/exe: through it a container could open this file and, when nobody executes it
 * any more, write to it (CVE-2019-5736). So commands that enter a container run from a read-only mount of this
 * file that belongs to no mount namespace; without the right to make one, from a sealed copy in memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "runtime/runtime.h"

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

extern char **environ;

static int open_mount(void)
{
	struct mount_attr ro = { .attr_set = MOUNT_ATTR_RDONLY };
	int fd = open_tree(AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (fd >= 0 && mount_setattr(fd, "", AT_EMPTY_PATH, &ro, sizeof(ro)) < 0)
		close_fd(&fd);
	return fd;
}

static int open_copy(int self, struct err *err)
{
	CLEAN_FD int copy = memfd_create("walnut-runtime", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct stat st;
	off_t at = 0;

	if (copy < 0 || fstat(self, &st) < 0)
		return err_sys(err, errno, "cannot copy this program");
	while (at < st.st_size)
		if (sendfile(copy, self, &at, (size_t)(st.st_size - at)) <= 0)
			return err_sys(err, errno ? errno : EIO, "cannot copy this program");
	if (fchmod(copy, 0555) < 0 || fcntl(copy, F_ADD_SEALS, SEALS) < 0)
		return err_sys(err, errno, "cannot seal the copy of this program");
	return take_fd(&copy);
}

int self_protect(char **argv, struct err *err)
{
	CLEAN_FD int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), fd = -1;
	struct statvfs fs;
	int seals;

	if (self < 0 || fstatvfs(self, &fs) < 0)
		return err_sys(err, errno, "cannot look at this program's own file in /proc");
	seals = fcntl(self, F_GET_SEALS);
	if (fs.f_flag & ST_RDONLY || (seals >= 0 && (seals & SEALS) == SEALS))
		return 0;
	fd = open_mount();
	if (fd < 0)
		fd = open_copy(self, err);
	if (fd < 0)
		return fd;
	(void)syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
	return err_sys(err, errno, "cannot execute this program again from its protected copy");
}
