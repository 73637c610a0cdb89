/* SPDX-License-Identifier: Apache-2.0 */
/* A container's volumes, in its shim. */
#ifndef WALNUT_SHIM_VOLUMES_H
#define WALNUT_SHIM_VOLUMES_H

#include "base/json.h"

/* volumes_prepare - from the parameters of "start": mount, then fill from what the image has in @rootfs. */
int volumes_prepare(const json_t *params, const char *rootfs, struct err *err) MUST_CHECK;

#endif
