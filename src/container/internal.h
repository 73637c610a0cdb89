/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this library share. All of it runs in the container's first process, before exec. */
#ifndef WALNUT_CONTAINER_INTERNAL_H
#define WALNUT_CONTAINER_INTERNAL_H

#include "container/cgroup.h"

/* rootfs_enter - all mounts of @config's spec, devices, masked paths; then pivot_root. cwd is "/" after it. */
int rootfs_enter(const struct container_config *config, const struct cgroup *g, int *console_master,
		 struct err *err) MUST_CHECK;
/* rootfs_open_console - a new terminal from the devpts below @root. *slave_number for its path. */
int rootfs_open_console(int root, int *slave_number, struct err *err) MUST_CHECK;
/* rootfs_make_folder - mkdir -p inside @root. */
int rootfs_make_folder(int root, const char *path, mode_t mode, struct err *err) MUST_CHECK;

/* loopback_up - bring "lo" of this network namespace up. */
int loopback_up(struct err *err) MUST_CHECK;

/* process_console - make the terminal @master's other end stdin, stdout and stderr, and controlling. */
int process_console(int master, const struct oci_process *p, struct err *err) MUST_CHECK;
/* process_exec - become @p; only returns on failure, with *why. @caps used when @p has none. */
int process_exec(const struct oci_process *p, const struct oci_capabilities *caps, const void *bpf, size_t bpf_size,
		 enum container_exec_failure *why, int (*wait_start)(void *), void *arg, struct err *err) MUST_CHECK;

#endif
