/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AppArmor profiles and SELinux labels: written to /proc/thread-self/attr/exec, they hold from the next exec on.
 * A machine without the security module that is asked for refuses by name: running without would be silent.
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/internal.h"

static bool apparmor_enabled(void)
{
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, "/sys/module/apparmor/parameters/enabled", 16, NULL, NULL);

	return text && text[0] == 'Y';
}

bool labels_selinux(void)
{
	struct statfs fs;

	return statfs("/sys/fs/selinux", &fs) == 0 && (unsigned long)fs.f_type == SELINUX_MAGIC;
}

static bool wants(const char *label)
{
	return label && *label;
}

static bool confined(const struct oci_process *p)
{
	return wants(p->apparmor_profile) && strcmp(p->apparmor_profile, "unconfined") != 0;
}

int labels_check(const struct oci_spec *s, const struct oci_process *p, struct err *err)
{
	if (confined(p) && !apparmor_enabled())
		return err_set(
			err, ENOTSUP,
			"process.apparmorProfile: the profile '%s' is given but AppArmor is not enabled on this host "
			"(config provided but apparmor not supported)",
			p->apparmor_profile);
	if (wants(p->selinux_label) && !labels_selinux())
		return err_set(
			err, ENOTSUP,
			"process.selinuxLabel: selinux label is specified in config, but selinux is disabled or not "
			"supported");
	if (wants(s->mount_label) && !labels_selinux())
		return err_set(err, ENOTSUP,
			       "linux.mountLabel: selinux label is specified in config, but selinux is disabled or not "
			       "supported");
	return 0;
}

int labels_open(const struct oci_process *p, int *fd, struct err *err)
{
	*fd = -1;
	if (!confined(p) && !wants(p->selinux_label))
		return 0;
	if (confined(p))
		*fd = open("/proc/thread-self/attr/apparmor/exec", O_WRONLY | O_CLOEXEC);
	if (*fd < 0)
		*fd = open("/proc/thread-self/attr/exec", O_WRONLY | O_CLOEXEC);
	return *fd < 0 ? err_sys(err, errno, "cannot set the security label of the process") : 0;
}

int labels_apply(const struct oci_process *p, int fd, struct err *err)
{
	CLEAN_FREE char *text = NULL;
	bool apparmor = confined(p);
	const char *label = apparmor ? p->apparmor_profile : p->selinux_label;

	if (fd < 0)
		return 0;
	if (asprintf(&text, "%s%s", apparmor ? "exec " : "", label) < 0)
		return err_set(err, ENOMEM, "out of memory");
	if (write(fd, text, strlen(text)) < 0)
		return err_sys(err, errno, "cannot set the %s '%s'", apparmor ? "AppArmor profile" : "SELinux label",
			       label);
	return 0;
}
