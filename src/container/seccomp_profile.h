/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The default seccomp filter, with the semantics of Docker's default profile
 * (docs.docker.com, "Seccomp security profiles for Docker"): an allow list, EPERM for
 * the rest, and calls that are allowed only with a capability. Linked by the engine alone.
 */
#ifndef WALNUT_CONTAINER_SECCOMP_PROFILE_H
#define WALNUT_CONTAINER_SECCOMP_PROFILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/**
 * seccomp_default_bpf - the default filter as BPF
 * @caps: the container's bounding capabilities, bit N for capability N
 * @bpf: an array of struct sock_filter, owned by the caller (free)
 * @len: its size in bytes
 */
int seccomp_default_bpf(uint64_t caps, void **bpf, size_t *len, struct err *err) MUST_CHECK;

#endif
