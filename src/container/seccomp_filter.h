/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seccomp filters from linux.seccomp (runtime-spec, config-linux.md, "Seccomp"), compiled with libseccomp. Compiled
 * programs are kept in a cache: to compile one of some hundred rules takes longer than all else that a start does.
 * Linked by walnut-runtime only; the engine's containers get their filter as bytes.
 */
#ifndef WALNUT_CONTAINER_SECCOMP_FILTER_H
#define WALNUT_CONTAINER_SECCOMP_FILTER_H

#include <stddef.h>

#include "base/err.h"
#include "oci/seccomp.h"

/**
 * seccomp_filter_compile - @s as a program
 * @cache: a folder (made when absent, 0700) for compiled programs; NULL: compile always
 * @bpf: an array of struct sock_filter, owned by the caller (free); *size in bytes
 *
 * Names of system calls that this machine's libseccomp does not know are passed over, as runc does.
 */
int seccomp_filter_compile(const struct oci_seccomp *s, const char *cache, void **bpf, size_t *size,
			   struct err *err) MUST_CHECK;

#endif
