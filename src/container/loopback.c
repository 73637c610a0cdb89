/* SPDX-License-Identifier: Apache-2.0 */
/* A new network namespace has a loopback device that is down; programs expect 127.0.0.1 to answer. netdevice(7). */
#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/internal.h"

int loopback_up(struct err *err)
{
	CLEAN_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { .ifr_name = "lo" };

	/* a kernel without IPv4 or without a loopback device has nothing to bring up */
	if (fd < 0 && errno == EAFNOSUPPORT)
		return 0;
	if (fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &request) < 0 && errno == ENODEV)
		return 0;
	request.ifr_flags = (short)(request.ifr_flags | IFF_UP);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		return err_sys(err, errno, "cannot bring the loopback device up");
	return 0;
}
