/* SPDX-License-Identifier: Apache-2.0 */
/* Isolation "hyperv": a micro virtual machine (vmm/vm.h) and the agent in it. */
#include <errno.h>

#include "shim/backend.h"

static void hyperv_start(struct shim *sh, const json_t *params, int seccomp, struct shim_reply *r)
{
	struct err err = ERR_INIT;

	(void)err_set(&err, ENOSYS, "isolation hyperv is not built into this walnut-shim yet");
	shim_start_failed(sh, &err, r);
}

static void hyperv_destroy(struct shim *sh)
{
}

const struct shim_backend backend_hyperv = { .name = "hyperv", .start = hyperv_start, .destroy = hyperv_destroy };
