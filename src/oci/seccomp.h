/* SPDX-License-Identifier: Apache-2.0 */
/* linux.seccomp of the OCI runtime specification (config-linux.md, "Seccomp"). */
#ifndef WALNUT_OCI_SECCOMP_H
#define WALNUT_OCI_SECCOMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum oci_seccomp_action {
	OCI_SECCOMP_KILL_THREAD, /* SCMP_ACT_KILL too */
	OCI_SECCOMP_KILL_PROCESS,
	OCI_SECCOMP_TRAP,
	OCI_SECCOMP_ERRNO,
	OCI_SECCOMP_TRACE,
	OCI_SECCOMP_ALLOW,
	OCI_SECCOMP_LOG,
	OCI_SECCOMP_NOTIFY
};

enum oci_seccomp_operator {
	OCI_SECCOMP_NE,
	OCI_SECCOMP_LT,
	OCI_SECCOMP_LE,
	OCI_SECCOMP_EQ,
	OCI_SECCOMP_GE,
	OCI_SECCOMP_GT,
	OCI_SECCOMP_MASKED_EQ /* (argument & value) == value_two */
};

struct oci_seccomp_arg {
	unsigned int index; /* 0 to 5 */
	enum oci_seccomp_operator op;
	uint64_t value, value_two;
};

struct oci_seccomp_rule {
	char **names; /* NULL-terminated, at least one */
	enum oci_seccomp_action action;
	unsigned int errno_ret; /* of ERRNO and TRACE; EPERM when not given */
	struct oci_seccomp_arg *args;
	size_t args_count;
};

struct oci_seccomp {
	enum oci_seccomp_action default_action;
	unsigned int default_errno_ret; /* of ERRNO and TRACE; EPERM when not given */
	char **architectures;           /* "SCMP_ARCH_X86_64", NULL-terminated; never NULL */
	unsigned int flags;             /* SECCOMP_FILTER_FLAG_* for seccomp(2) */
	char *listener_path;            /* NULL: not given */
	char *listener_metadata;        /* NULL: not given */
	struct oci_seccomp_rule *rules;
	size_t rules_count;
	bool notifies; /* a rule has the action NOTIFY */
};

/* oci_seccomp_parse - a "linux.seccomp" object; *out is the caller's (oci_seccomp_free). */
int oci_seccomp_parse(const json_t *json, struct oci_seccomp **out, struct err *err) MUST_CHECK;
void oci_seccomp_free(struct oci_seccomp *s); /* NULL is allowed */

static inline void cleanup_oci_seccomp(struct oci_seccomp **p)
{
	oci_seccomp_free(*p);
}

/* Names by number, NULL past the end: for `features`. */
const char *oci_seccomp_action_name(unsigned int n);
const char *oci_seccomp_operator_name(unsigned int n);
const char *oci_seccomp_flag_name(unsigned int n);
/* oci_seccomp_flag_bit - of the n-th flag, for seccomp(2). */
unsigned int oci_seccomp_flag_bit(unsigned int n);

#endif
