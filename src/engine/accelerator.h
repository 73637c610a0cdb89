/* SPDX-License-Identifier: Apache-2.0 */
/* What runs the virtual machines of hyperv containers here, and why. */
#ifndef WALNUT_ENGINE_ACCELERATOR_H
#define WALNUT_ENGINE_ACCELERATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum accelerator_kind { ACCELERATOR_NONE, ACCELERATOR_SOFTWARE, ACCELERATOR_KVM };

struct accelerator {
	enum accelerator_kind kind;
	uint64_t kvm_mips;         /* millions of instructions a second of kernel-mode code; 0: not measured */
	char qemu[256];            /* path of qemu-system-x86_64; "" */
	char reason[ERR_MSG_SIZE]; /* one sentence */
};

/* accelerator_name - "kvm", "software", "none". */
const char *accelerator_name(enum accelerator_kind kind);

/**
 * accelerator_choose - test the machine and choose
 * @wanted: "auto", "kvm" or "software"
 *
 * Takes milliseconds (half a second at most). Return: 0; with @err, -EINVAL (unknown name) or -EOPNOTSUPP (what was wanted
 * can not be had). "auto" never fails: kind is ACCELERATOR_NONE then, and reason says what to do.
 */
int accelerator_choose(const char *wanted, struct accelerator *out, struct err *err) MUST_CHECK;

#endif
