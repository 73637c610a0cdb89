/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an init must do before and after: kernel filesystems, sysctls, loopback,
 * power-off. The initramfs cannot be pivoted away from (pivot_root(2): "the current
 * root is the rootfs"), so a tmpfs is moved over it, as switch_root(8) does.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/log.h"

static const struct guest_mount {
	const char *source, *target, *type;
	unsigned long flags;
	const char *data;
} mounts[] = {
	{ "proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL },
	{ "sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL },
	{ "devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, NULL },
	{ "devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5" },
	{ "cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL },
	{ "run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755" },
};

/* A setting the guest's kernel lacks is not worth failing for: the kernel is the host's choice. */
static const struct guest_sysctl {
	const char *path, *value;
} sysctls[] = {
	{ "/proc/sys/vm/max_map_count", "262144" },
	{ "/proc/sys/vm/overcommit_memory", "1" },
	/* Near the end of its memory a machine reads the same programs from disk again and again: out of memory then, at once. */
	{ "/sys/kernel/mm/lru_gen/min_ttl_ms", "1000" },
	{ "/proc/sys/net/ipv4/ip_unprivileged_port_start", "0" },
	{ "/proc/sys/net/ipv4/ping_group_range", "0 2147483647" },
	{ "/proc/sys/kernel/yama/ptrace_scope", "1" },
	{ "/proc/sys/kernel/dmesg_restrict", "1" },
	{ "/proc/sys/kernel/pid_max", "4194304" },
	{ "/proc/sys/fs/file-max", "1048576" },
	{ "/proc/sys/fs/inotify/max_user_instances", "1024" },
	{ "/proc/sys/fs/inotify/max_user_watches", "524288" },
	{ "/proc/sys/net/core/somaxconn", "4096" },
};

static int copy_file(const char *from, const char *to, mode_t mode, struct err *err)
{
	CLEAN_FREE char *bytes = NULL;
	size_t n;
	int rc;

	bytes = fd_read_file(AT_FDCWD, from, 4U << 20, &n, err);
	if (!bytes)
		return -err->code;
	rc = fd_write_file(AT_FDCWD, to, O_WRONLY | O_CREAT | O_TRUNC, bytes, n, err);
	if (rc < 0)
		return rc;
	return chmod(to, mode) < 0 ? err_sys(err, errno, "change the mode of %s", to) : 0;
}

static int switch_root(struct err *err)
{
	int rc;

	(void)mkdir("/new", 0755);
	if (mount("root", "/new", "tmpfs", 0, "mode=0755") < 0)
		return err_sys(err, errno, "mount the guest's root");
	rc = copy_file(LINK_GUEST_INIT, "/new" LINK_GUEST_INIT, 0755, err);
	if (rc < 0)
		return rc;
	(void)unlink(LINK_GUEST_INIT);
	if (chdir("/new") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return err_sys(err, errno, "change to the guest's root");
	return 0;
}

static int loopback_up(struct err *err)
{
	CLEAN_FD int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = { .ifr_name = "lo" };

	if (sock < 0 || ioctl(sock, SIOCGIFFLAGS, &ifr) < 0)
		return err_sys(err, errno, "look at the loopback interface");
	ifr.ifr_flags = (short)(ifr.ifr_flags | IFF_UP | IFF_RUNNING);
	if (ioctl(sock, SIOCSIFFLAGS, &ifr) < 0)
		return err_sys(err, errno, "bring up the loopback interface");
	return 0;
}

static void device_links(void)
{
	static const char *const links[][2] = {
		{ "/proc/self/fd", "/dev/fd" },       { "/proc/self/fd/0", "/dev/stdin" },
		{ "/proc/self/fd/1", "/dev/stdout" }, { "/proc/self/fd/2", "/dev/stderr" },
		{ "pts/ptmx", "/dev/ptmx" },
	};

	(void)unlink("/dev/ptmx"); /* devtmpfs's own would open another devpts than ours */
	for (size_t i = 0; i < ARRAY_LEN(links); i++)
		if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
			log_warn("link %s: %s", links[i][1], strerror(errno));
}

/* Everything the container could be limited by must be on for the children of the root cgroup. */
static void cgroup_controllers(void)
{
	static const char *const all[] = { "+memory", "+cpu", "+pids", "+io", "+cpuset", "+hugetlb" };

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		struct err ignored = ERR_INIT;

		if (fd_write_file(AT_FDCWD, "/sys/fs/cgroup/cgroup.subtree_control", O_WRONLY, all[i], strlen(all[i]),
				  &ignored) < 0)
			log_debug("%s", ignored.msg);
	}
}

int boot_guest(struct err *err)
{
	struct rlimit files = { 1048576, 1048576 };
	int rc = switch_root(err);

	if (rc < 0)
		return rc;
	(void)umask(022);
	for (size_t i = 0; i < ARRAY_LEN(mounts); i++) {
		const struct guest_mount *m = &mounts[i];

		if (mkdir(m->target, 0755) < 0 && errno != EEXIST)
			return err_sys(err, errno, "make %s", m->target);
		if (mount(m->source, m->target, m->type, m->flags, m->data) < 0)
			return err_sys(err, errno, "mount %s", m->target);
	}
	(void)mkdir("/tmp", 01777);
	(void)mkdir("/dev/shm", 01777);
	device_links();
	cgroup_controllers();
	for (size_t i = 0; i < ARRAY_LEN(sysctls); i++) {
		struct err ignored = ERR_INIT;

		if (fd_write_file(AT_FDCWD, sysctls[i].path, O_WRONLY, sysctls[i].value, strlen(sysctls[i].value),
				  &ignored) < 0)
			log_debug("%s", ignored.msg);
	}
	(void)setrlimit(RLIMIT_NOFILE, &files);
	return loopback_up(err);
}

void boot_stop_disks(void)
{
	struct timespec wait = { .tv_nsec = 5000000 };

	/* All but ourselves; a namespace's init takes its processes with it. */
	(void)kill(-1, SIGKILL);
	for (int i = 0; i < 200; i++) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);

		if (pid < 0)
			break;
		if (!pid)
			(void)nanosleep(&wait, NULL);
	}
	/* An unmount writes all; it fails while something of the container still holds a file, and then a sync must do. */
	if (umount2(LINK_GUEST_ROOTFS, 0) < 0) {
		sync();
		(void)umount2(LINK_GUEST_ROOTFS, MNT_DETACH);
	}
	if (umount2("/run/scratch", 0) < 0) {
		sync();
		(void)mount(NULL, "/run/scratch", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	}
}

void boot_power_off(void)
{
	/* Without ACPI there is no power switch: "reboot=t" makes a restart a triple fault, which ends the VM. */
	(void)reboot(RB_AUTOBOOT);
	for (;;)
		(void)pause();
}
