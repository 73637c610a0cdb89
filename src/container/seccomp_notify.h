/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters with the action SCMP_ACT_NOTIFY: their listener's descriptor goes over the socket linux.seccomp.listenerPath
 * with the "container process state" (runtime-spec, config-linux.md).
 */
#ifndef WALNUT_CONTAINER_SECCOMP_NOTIFY_H
#define WALNUT_CONTAINER_SECCOMP_NOTIFY_H

#include <stddef.h>

#include "base/err.h"
#include "container/container.h"

/* seccomp_notify_connect - as the creator, on the host: sets config's seccomp_socket and host_proc. */
int seccomp_notify_connect(const struct oci_seccomp *s, struct container_config *config, struct err *err) MUST_CHECK;
void seccomp_notify_close(struct container_config *config);

/* seccomp_notify_message - what is sent, for the calling process; the caller's. NULL: no listener, or no memory. */
char *seccomp_notify_message(const struct container_config *config, const char *status);

/* seccomp_notify_load - load the filter for the caller and send its listener. Return: 0 or -errno. */
int seccomp_notify_load(const void *bpf, size_t size, unsigned int flags, int sock, const char *message,
			struct err *err) MUST_CHECK;

#endif
