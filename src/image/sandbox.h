/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fence around a worker. sandbox_enter() is called before the first byte
 * from outside is read; from then on the process has no privilege, no capability,
 * one folder as "/", and the system calls of its kind.
 */
#ifndef WALNUT_IMAGE_SANDBOX_H
#define WALNUT_IMAGE_SANDBOX_H

#include <sys/types.h>

#include "base/err.h"

enum sandbox_kind {
	SANDBOX_FILES,   /* reads and writes files of its folder; no network */
	SANDBOX_NETWORK, /* the host's network, threads (the resolver's); its folder is read-only */
};

/* sandbox_enter - @dir: descriptor of the only folder that will exist; closed. Return: 0 or -errno. */
int sandbox_enter(enum sandbox_kind kind, int dir, uid_t uid, gid_t gid, struct err *err) MUST_CHECK;

#endif
