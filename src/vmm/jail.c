/* SPDX-License-Identifier: Apache-2.0 */
/* The jail of the machine's processes: root, identity, limits. */
#include "vmm/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

static int bind_one(const struct jail_bind *b, struct err *err)
{
	char from[32];
	struct stat st;

	if (fstat(b->fd, &st) < 0)
		return err_sys(err, errno, "jail: %s", b->at);
	if (S_ISDIR(st.st_mode)) {
		if (mkdir(b->at + 1, 0755) < 0)
			return err_sys(err, errno, "jail: mkdir %s", b->at);
	} else {
		CLEAN_FD int fd = open(b->at + 1, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);

		if (fd < 0)
			return err_sys(err, errno, "jail: create %s", b->at);
	}
	(void)snprintf(from, sizeof(from), "/proc/self/fd/%d", b->fd);
	if (mount(from, b->at + 1, NULL, MS_BIND, NULL) < 0 ||
	    mount(NULL, b->at + 1, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
		return err_sys(err, errno, "jail: bind %s", b->at);
	return 0;
}

int jail_root(const struct jail_bind *binds, size_t count, struct err *err)
{
	/* The fresh tmpfs covers a folder that every system has; binds come by descriptor, so what it hides matters not. */
	static const char at[] = "/tmp";

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return err_sys(err, errno, "jail: make mounts private");
	if (mount("jail", at, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=64k") < 0)
		return err_sys(err, errno, "jail: tmpfs");
	if (chdir(at) < 0)
		return err_sys(err, errno, "jail: chdir");
	for (size_t i = 0; i < count; i++) {
		int rc;

		if (strncmp(binds[i].at, "/etc/", 5) == 0 && mkdir("etc", 0755) < 0 && errno != EEXIST)
			return err_sys(err, errno, "jail: mkdir /etc");
		rc = bind_one(&binds[i], err);
		if (rc < 0)
			return rc;
	}
	if (mount(NULL, at, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
		return err_sys(err, errno, "jail: read-only root");
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return err_sys(err, errno, "jail: pivot_root");
	return 0;
}

int jail_drop(uid_t uid, gid_t gid, struct err *err)
{
	for (int cap = 0; cap < 64; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno == EPERM)
			return err_sys(err, errno, "jail: capability bounding set");
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return err_sys(err, errno, "jail: become user %u", (unsigned int)uid);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ||
	    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_sys(err, errno, "jail: prctl");
	return 0;
}

int jail_limits(uint64_t descriptors, uint64_t file_bytes, struct err *err)
{
	const struct {
		__rlimit_resource_t what;
		rlim_t value;
	} limits[] = {
		{ RLIMIT_NOFILE, descriptors },
		{ RLIMIT_FSIZE, file_bytes },
		{ RLIMIT_CORE, 0 },
		{ RLIMIT_MEMLOCK, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(limits); i++)
		if (setrlimit(limits[i].what, &(struct rlimit){ limits[i].value, limits[i].value }) < 0)
			return err_sys(err, errno, "jail: resource limit");
	return 0;
}
