/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last fence of walnut-vmm's threads: a list of system calls for each kind of thread, anything else
 * ends the process; and Landlock, where the kernel has it, which leaves no file to open at all.
 */
#ifndef WALNUT_VMM_CONFINE_H
#define WALNUT_VMM_CONFINE_H

#include "base/err.h"

enum confine_kind {
	CONFINE_DEVICES, /* loop, vsock, console, balloon: the main thread of either role */
	CONFINE_DISKS,
	CONFINE_VCPU,
	CONFINE_KINDS,
};

/* confine_thread - set the calling thread's filter. It cannot be taken off. no_new_privs must be set. */
int confine_thread(enum confine_kind kind, struct err *err) MUST_CHECK;
/* confine_files - no file can be opened, made or removed any more, by any path (Landlock). Absent kernels: success. */
int confine_files(struct err *err) MUST_CHECK;
/* confine_count - system calls in a list, for tests. */
unsigned int confine_count(enum confine_kind kind);

#endif
