/* SPDX-License-Identifier: Apache-2.0 */
/* Mounting layers, for the shim: EROFS files by shared loop devices, and overlayfs over them. Depends on base only. */
#ifndef WALNUT_IMAGE_LAYER_MOUNT_H
#define WALNUT_IMAGE_LAYER_MOUNT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/**
 * layer_mount - mount a layer read-only on the existing folder @target
 *
 * A loop device that already serves the same file is used again, so layers have one superblock and one page cache;
 * the device is autoclear: it goes with its last mount.
 */
int layer_mount(const char *erofs_path, const char *target, struct err *err) MUST_CHECK;

/**
 * overlay_mount - overlayfs on @target. @lowers: lowest first. @upper and @work NULL: read-only
 * @throwaway: the upper folder goes with its container: no unmount waits until all of its file system is on the disk
 */
int overlay_mount(const char *const *lowers, size_t n, const char *upper, const char *work, bool throwaway,
		  const char *target, struct err *err) MUST_CHECK;

#endif
