/* SPDX-License-Identifier: Apache-2.0 */
/* What the machine's two processes give up. They start in fresh pid, mount, network, IPC and UTS namespaces (vm_qemu.c). */
#ifndef WALNUT_VMM_JAIL_H
#define WALNUT_VMM_JAIL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct jail_bind {
	const char *at; /* where in the new root, e.g. "/usr"; its parent must exist */
	int fd;         /* O_PATH descriptor of the file or folder; shown read-only */
};

/* jail_root - replace the root by a read-only tmpfs that holds only @binds. Needs an own mount namespace. */
int jail_root(const struct jail_bind *binds, size_t count, struct err *err) MUST_CHECK;
/* jail_drop - become @uid/@gid without groups, capabilities or a way to gain any; die with the parent (SIGKILL). */
int jail_drop(uid_t uid, gid_t gid, struct err *err) MUST_CHECK;
/* jail_limits - resource limits: descriptors, no file larger than @file_bytes (the guest memory is one), no core, locked memory none. */
int jail_limits(uint64_t descriptors, uint64_t file_bytes, struct err *err) MUST_CHECK;

#endif
