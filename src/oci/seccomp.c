/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing of linux.seccomp (runtime-spec, config-linux.md, "Seccomp"). */
#include "oci/seccomp.h"

#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "oci/parse.h"

#define P         "linux.seccomp."
#define ERRNO_MAX 4095 /* MAX_ERRNO of linux/err.h; the kernel caps SECCOMP_RET_DATA of ERRNO at it */

/* Newer than the kernel headers of Debian 12. */
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

static const char *const actions[] = {
	[OCI_SECCOMP_KILL_THREAD] = "SCMP_ACT_KILL_THREAD",
	[OCI_SECCOMP_KILL_PROCESS] = "SCMP_ACT_KILL_PROCESS",
	[OCI_SECCOMP_TRAP] = "SCMP_ACT_TRAP",
	[OCI_SECCOMP_ERRNO] = "SCMP_ACT_ERRNO",
	[OCI_SECCOMP_TRACE] = "SCMP_ACT_TRACE",
	[OCI_SECCOMP_ALLOW] = "SCMP_ACT_ALLOW",
	[OCI_SECCOMP_LOG] = "SCMP_ACT_LOG",
	[OCI_SECCOMP_NOTIFY] = "SCMP_ACT_NOTIFY",
};

static const char *const operators[] = {
	[OCI_SECCOMP_NE] = "SCMP_CMP_NE",
	[OCI_SECCOMP_LT] = "SCMP_CMP_LT",
	[OCI_SECCOMP_LE] = "SCMP_CMP_LE",
	[OCI_SECCOMP_EQ] = "SCMP_CMP_EQ",
	[OCI_SECCOMP_GE] = "SCMP_CMP_GE",
	[OCI_SECCOMP_GT] = "SCMP_CMP_GT",
	[OCI_SECCOMP_MASKED_EQ] = "SCMP_CMP_MASKED_EQ",
};

static const struct {
	const char *name;
	unsigned int bit;
} flags[] = {
	{ "SECCOMP_FILTER_FLAG_TSYNC", SECCOMP_FILTER_FLAG_TSYNC },
	{ "SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG },
	{ "SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW },
	{ "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV },
};

const char *oci_seccomp_action_name(unsigned int n)
{
	return n < ARRAY_LEN(actions) ? actions[n] : NULL;
}

const char *oci_seccomp_operator_name(unsigned int n)
{
	return n < ARRAY_LEN(operators) ? operators[n] : NULL;
}

const char *oci_seccomp_flag_name(unsigned int n)
{
	return n < ARRAY_LEN(flags) ? flags[n].name : NULL;
}

unsigned int oci_seccomp_flag_bit(unsigned int n)
{
	return n < ARRAY_LEN(flags) ? flags[n].bit : 0;
}

/* Required: absent is an error. */
static int parse_action(const json_t *o, const char *key, enum oci_seccomp_action *out, struct err *err)
{
	const char *name = json_str(o, strrchr(key, '.') + 1, NULL);

	if (name && strcmp(name, "SCMP_ACT_KILL") == 0) {
		*out = OCI_SECCOMP_KILL_THREAD;
		return 0;
	}
	for (size_t i = 0; name && i < ARRAY_LEN(actions); i++)
		if (strcmp(name, actions[i]) == 0) {
			*out = (enum oci_seccomp_action)i;
			return 0;
		}
	return err_set(err, EINVAL,
		       "OCI spec: %s is '%s': not one of SCMP_ACT_ALLOW, _ERRNO, _KILL, _KILL_PROCESS, _KILL_THREAD, "
		       "_LOG, _NOTIFY, _TRACE, _TRAP",
		       key, name ? name : "");
}

static int parse_errno(const json_t *o, const char *key, enum oci_seccomp_action action, unsigned int *out,
		       struct err *err)
{
	int64_t n = -1, max = action == OCI_SECCOMP_TRACE ? UINT16_MAX : ERRNO_MAX;
	int r = oci_get_integer(o, key, 0, max, &n, err);

	if (r < 0)
		return r;
	*out = n < 0 ? EPERM : (unsigned int)n;
	if (n >= 0 && action != OCI_SECCOMP_ERRNO && action != OCI_SECCOMP_TRACE)
		return err_set(err, EINVAL, "OCI spec: %s is allowed with SCMP_ACT_ERRNO and SCMP_ACT_TRACE only", key);
	return 0;
}

static int parse_arg(const json_t *v, struct oci_seccomp_arg *arg, struct err *err)
{
	const char *op = json_str(v, "op", "");
	int64_t index = -1;
	int r;

	if (!json_is_object(v))
		return oci_bad_type(err, P "syscalls.args", "an array of objects");
	if ((r = oci_get_integer(v, P "syscalls.args.index", 0, 5, &index, err)) < 0 ||
	    (r = oci_get_u64(v, P "syscalls.args.value", &arg->value, NULL, err)) < 0 ||
	    (r = oci_get_u64(v, P "syscalls.args.valueTwo", &arg->value_two, NULL, err)) < 0)
		return r;
	if (index < 0)
		return err_set(err, EINVAL, "OCI spec: " P "syscalls.args.index is missing");
	arg->index = (unsigned int)index;
	for (size_t i = 0; i < ARRAY_LEN(operators); i++)
		if (strcmp(op, operators[i]) == 0) {
			arg->op = (enum oci_seccomp_operator)i;
			return 0;
		}
	return err_set(err, EINVAL,
		       "OCI spec: " P "syscalls.args.op is '%s': not one of SCMP_CMP_NE, _LT, _LE, _EQ, _GE, _GT, "
		       "_MASKED_EQ",
		       op);
}

static int parse_rule(const json_t *v, struct oci_seccomp_rule *rule, struct err *err)
{
	const json_t *args, *a;
	size_t i;
	int r;

	if (!json_is_object(v))
		return oci_bad_type(err, P "syscalls", "an array of objects");
	if ((r = oci_get_strings(v, P "syscalls.names", &rule->names, err)) < 0 ||
	    (r = parse_action(v, P "syscalls.action", &rule->action, err)) < 0 ||
	    (r = parse_errno(v, P "syscalls.errnoRet", rule->action, &rule->errno_ret, err)) < 0 ||
	    (r = oci_get_array(v, P "syscalls.args", &args, err)) < 0)
		return r;
	if (!rule->names[0])
		return err_set(err, EINVAL, "OCI spec: " P "syscalls.names must name at least one call");
	rule->args = calloc(json_array_size(args) + 1, sizeof(*rule->args));
	if (!rule->args)
		return oci_no_memory(err);
	json_array_foreach(args, i, a) {
		r = parse_arg(a, &rule->args[rule->args_count++], err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int parse_flags(const json_t *json, struct oci_seccomp *s, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = oci_get_array(json, P "flags", &a, err);

	if (r < 0)
		return r;
	json_array_foreach(a, i, v) {
		const char *name = json_is_string(v) ? json_string_value(v) : "";
		unsigned int bit = 0;

		for (size_t k = 0; k < ARRAY_LEN(flags); k++)
			if (strcmp(name, flags[k].name) == 0)
				bit = flags[k].bit;
		if (!bit)
			return err_set(err, EINVAL,
				       "OCI spec: " P "flags has '%s': not one of SECCOMP_FILTER_FLAG_TSYNC, _LOG, "
				       "_SPEC_ALLOW, _WAIT_KILLABLE_RECV",
				       name);
		s->flags |= bit;
	}
	return 0;
}

static int parse_rules(const json_t *json, struct oci_seccomp *s, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = oci_get_array(json, P "syscalls", &a, err);

	if (r < 0)
		return r;
	s->rules = calloc(json_array_size(a) + 1, sizeof(*s->rules));
	if (!s->rules)
		return oci_no_memory(err);
	json_array_foreach(a, i, v) {
		r = parse_rule(v, &s->rules[s->rules_count++], err);
		if (r < 0)
			return r;
		s->notifies = s->notifies || s->rules[i].action == OCI_SECCOMP_NOTIFY;
	}
	return 0;
}

/* What the specification demands between members. */
static int check(const struct oci_seccomp *s, struct err *err)
{
	if (s->default_action == OCI_SECCOMP_NOTIFY)
		return err_set(err, EINVAL,
			       "OCI spec: " P "defaultAction must not be SCMP_ACT_NOTIFY: nothing could answer for the "
			       "calls that start the program");
	if (s->notifies && (!s->listener_path || !*s->listener_path))
		return err_set(err, EINVAL,
			       "OCI spec: " P "listenerPath must be given with the action SCMP_ACT_NOTIFY");
	if (s->listener_metadata && *s->listener_metadata && (!s->listener_path || !*s->listener_path))
		return err_set(err, EINVAL, "OCI spec: " P "listenerMetadata must not be given without listenerPath");
	return 0;
}

int oci_seccomp_parse(const json_t *json, struct oci_seccomp **out, struct err *err)
{
	CLEAN(cleanup_oci_seccomp) struct oci_seccomp *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return oci_no_memory(err);
	if (!json_is_object(json))
		return oci_bad_type(err, "linux.seccomp", "an object");
	if ((r = parse_action(json, P "defaultAction", &s->default_action, err)) < 0 ||
	    (r = parse_errno(json, P "defaultErrnoRet", s->default_action, &s->default_errno_ret, err)) < 0 ||
	    (r = oci_get_strings(json, P "architectures", &s->architectures, err)) < 0 ||
	    (r = parse_flags(json, s, err)) < 0 ||
	    (r = oci_get_string(json, P "listenerPath", &s->listener_path, err)) < 0 ||
	    (r = oci_get_string(json, P "listenerMetadata", &s->listener_metadata, err)) < 0 ||
	    (r = parse_rules(json, s, err)) < 0 || (r = check(s, err)) < 0)
		return r;
	*out = take_ptr(s);
	return 0;
}

void oci_seccomp_free(struct oci_seccomp *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->rules_count; i++) {
		oci_free_strings(s->rules[i].names);
		free(s->rules[i].args);
	}
	free(s->rules);
	oci_free_strings(s->architectures);
	free(s->listener_path);
	free(s->listener_metadata);
	free(s);
}
