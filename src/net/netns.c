/* SPDX-License-Identifier: Apache-2.0 */
/*
 * setns(2) changes the calling thread only; walnutd has one thread that touches networks, so a visit is a pair of
 * system calls and no other code runs meanwhile. A socket stays in the namespace it was made in.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "net/netns.h"

int netns_enter(struct netns_visit *visit, int netns, struct err *err)
{
	visit->home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (visit->home < 0)
		return err_sys(err, errno, "open the host's network namespace");
	if (setns(netns, CLONE_NEWNET) < 0) {
		int code = errno;

		close_fd(&visit->home);
		return err_sys(err, code, "enter the container's network namespace");
	}
	return 0;
}

void netns_back(struct netns_visit *visit)
{
	if (visit->home < 0)
		return;
	bug_on(setns(visit->home, CLONE_NEWNET) < 0);
	close_fd(&visit->home);
}

int netns_new(struct err *err)
{
	CLEAN(netns_back) struct netns_visit visit = NETNS_NO_VISIT;
	int fd;

	visit.home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (visit.home < 0)
		return err_sys(err, errno, "open the host's network namespace");
	if (unshare(CLONE_NEWNET) < 0) {
		int code = errno;

		close_fd(&visit.home);
		return err_sys(err, code, "make a network namespace");
	}
	fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	return fd < 0 ? err_sys(err, errno, "open the new network namespace") : fd;
}

int netns_socket(int netns, int domain, int type, int protocol, struct err *err)
{
	CLEAN(netns_back) struct netns_visit visit = NETNS_NO_VISIT;
	int fd;

	if (netns_enter(&visit, netns, err))
		return -err->code;
	fd = socket(domain, type | SOCK_CLOEXEC, protocol);
	return fd < 0 ? err_sys(err, errno, "open a socket in the container's network") : fd;
}

int netns_write_sysctl(int netns, const char *path, const char *value, struct err *err)
{
	CLEAN(netns_back) struct netns_visit visit = NETNS_NO_VISIT;
	char file[256];

	if (netns >= 0 && netns_enter(&visit, netns, err))
		return -err->code;
	(void)snprintf(file, sizeof(file), "/proc/sys/%s", path);
	return fd_write_file(AT_FDCWD, file, O_WRONLY, value, strlen(value), err);
}

int netns_open_tap(const char *name, struct err *err)
{
	CLEAN_FD int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int header = 12; /* struct virtio_net_hdr_v1, virtio 1.2, 5.1.6 */

	if (fd < 0)
		return err_sys(err, errno, "open /dev/net/tun");
	(void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0)
		return err_sys(err, errno, "make the tap interface %s", name);
	return take_fd(&fd);
}
