/* SPDX-License-Identifier: Apache-2.0 */
/* The "process" object (runtime-spec, config.md): parsing, and the changes that exec makes to a copy. */
#include <linux/ioprio.h>
#include <linux/sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "oci/parse.h"
#include "oci/spec.h"

static int parse_capability_set(const json_t *caps, const char *key, uint64_t *mask, char **unknown, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = oci_get_array(caps, key, &a, err);

	if (r < 0)
		return r;
	json_array_foreach(a, i, v) {
		int n = json_is_string(v) ? oci_capability_number(json_string_value(v)) : -EINVAL;

		if (!json_is_string(v))
			return err_set(err, EINVAL, "OCI spec: process.capabilities.%s must be an array of strings",
				       key);
		/* config.md: what this machine does not know MUST be a warning and SHOULD NOT be a failure */
		if (n < 0 && !*unknown && !(*unknown = strdup(json_string_value(v))))
			return oci_no_memory(err);
		if (n < 0)
			continue;
		*mask |= UINT64_C(1) << n;
	}
	return 0;
}

static int parse_capabilities(const json_t *json, struct oci_process *p, struct err *err)
{
	const struct {
		const char *key;
		uint64_t *mask;
	} sets[] = {
		{ "bounding", &p->capabilities.bounding },       { "effective", &p->capabilities.effective },
		{ "inheritable", &p->capabilities.inheritable }, { "permitted", &p->capabilities.permitted },
		{ "ambient", &p->capabilities.ambient },
	};
	const json_t *caps;
	int r = oci_get_object(json, "capabilities", &caps, err);

	if (r < 0 || !caps)
		return r;
	p->capabilities_given = true;
	for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
		r = parse_capability_set(caps, sets[i].key, sets[i].mask, &p->unknown_capability, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static const struct {
	const char *name;
	int resource;
} rlimits[] = {
	{ "RLIMIT_AS", RLIMIT_AS },
	{ "RLIMIT_CORE", RLIMIT_CORE },
	{ "RLIMIT_CPU", RLIMIT_CPU },
	{ "RLIMIT_DATA", RLIMIT_DATA },
	{ "RLIMIT_FSIZE", RLIMIT_FSIZE },
	{ "RLIMIT_LOCKS", RLIMIT_LOCKS },
	{ "RLIMIT_MEMLOCK", RLIMIT_MEMLOCK },
	{ "RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE },
	{ "RLIMIT_NICE", RLIMIT_NICE },
	{ "RLIMIT_NOFILE", RLIMIT_NOFILE },
	{ "RLIMIT_NPROC", RLIMIT_NPROC },
	{ "RLIMIT_RSS", RLIMIT_RSS },
	{ "RLIMIT_RTPRIO", RLIMIT_RTPRIO },
	{ "RLIMIT_RTTIME", RLIMIT_RTTIME },
	{ "RLIMIT_SIGPENDING", RLIMIT_SIGPENDING },
	{ "RLIMIT_STACK", RLIMIT_STACK },
};

/* An unlimited value is -1 or 2^64-1; json_parse alone reads the latter as a real. */
static int rlimit_value(const json_t *o, const char *key, uint64_t *out, struct err *err)
{
	const json_t *v = json_object_get(o, key);

	if (json_is_real(v) && json_real_value(v) >= 9.2e18)
		*out = UINT64_MAX;
	else if (json_is_integer(v) && json_integer_value(v) == -1)
		*out = UINT64_MAX;
	else if (!oci_value_u64(v, out))
		return err_set(err, EINVAL, "OCI spec: process.rlimits: %s must be a number from 0 to 2^64-1", key);
	return 0;
}

static int parse_rlimits(const json_t *json, struct oci_process *p, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = oci_get_array(json, "rlimits", &a, err);

	if (r < 0 || !a)
		return r;
	p->rlimits = calloc(json_array_size(a) + 1, sizeof(*p->rlimits));
	if (!p->rlimits)
		return oci_no_memory(err);
	json_array_foreach(a, i, v) {
		struct oci_rlimit *l = &p->rlimits[p->rlimits_count];
		const char *type = json_str(v, "type", "");

		l->resource = -1;
		for (size_t k = 0; k < ARRAY_LEN(rlimits); k++)
			if (strcmp(rlimits[k].name, type) == 0)
				l->resource = rlimits[k].resource;
		if (l->resource < 0)
			return err_set(
				err, EINVAL,
				"OCI spec: process.rlimits: unknown rlimit '%s' (RLIMIT_NOFILE and the others of "
				"setrlimit(2) are known)",
				type);
		for (size_t k = 0; k < p->rlimits_count; k++)
			if (p->rlimits[k].resource == l->resource)
				return err_set(err, EINVAL, "OCI spec: process.rlimits: %s is given twice", type);
		r = rlimit_value(v, "soft", &l->soft, err);
		if (r == 0)
			r = rlimit_value(v, "hard", &l->hard, err);
		if (r < 0)
			return r;
		if (l->soft > l->hard)
			return err_set(err, EINVAL, "OCI spec: the soft limit of %s is above its hard limit", type);
		p->rlimits_count++;
	}
	return 0;
}

static int parse_user(const json_t *json, struct oci_user *u, struct err *err)
{
	const json_t *user, *a, *v;
	int64_t uid = 0, gid = 0;
	size_t i;
	int r;

	u->umask = -1;
	r = oci_get_object(json, "user", &user, err);
	if (r < 0 || !user)
		return r;
	if ((r = oci_get_integer(user, "uid", 0, UINT32_MAX - 1, &uid, err)) < 0 ||
	    (r = oci_get_integer(user, "gid", 0, UINT32_MAX - 1, &gid, err)) < 0 ||
	    (r = oci_get_integer(user, "umask", 0, 0777, &u->umask, err)) < 0 ||
	    (r = oci_get_string(user, "username", &u->username, err)) < 0 ||
	    (r = oci_get_array(user, "additionalGids", &a, err)) < 0)
		return r;
	u->uid = (uid_t)uid;
	u->gid = (gid_t)gid;
	if (u->username && !*u->username) {
		free(u->username);
		u->username = NULL;
	}
	u->additional_gids = calloc(json_array_size(a) + 1, sizeof(gid_t));
	if (!u->additional_gids)
		return oci_no_memory(err);
	json_array_foreach(a, i, v) {
		if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= UINT32_MAX)
			return oci_bad_type(err, "additionalGids", "an array of group numbers");
		u->additional_gids[u->additional_gids_count++] = (gid_t)json_integer_value(v);
	}
	return 0;
}

static const struct {
	const char *name;
	unsigned int policy;
} policies[] = {
	{ "SCHED_OTHER", SCHED_NORMAL },      { "SCHED_FIFO", SCHED_FIFO }, { "SCHED_RR", SCHED_RR },
	{ "SCHED_BATCH", SCHED_BATCH },       { "SCHED_ISO", 4 },           { "SCHED_IDLE", SCHED_IDLE },
	{ "SCHED_DEADLINE", SCHED_DEADLINE },
};

static const struct {
	const char *name;
	uint64_t flag;
} scheduler_flags[] = {
	{ "SCHED_FLAG_RESET_ON_FORK", SCHED_FLAG_RESET_ON_FORK },
	{ "SCHED_FLAG_RECLAIM", SCHED_FLAG_RECLAIM },
	{ "SCHED_FLAG_DL_OVERRUN", SCHED_FLAG_DL_OVERRUN },
	{ "SCHED_FLAG_KEEP_POLICY", SCHED_FLAG_KEEP_POLICY },
	{ "SCHED_FLAG_KEEP_PARAMS", SCHED_FLAG_KEEP_PARAMS },
	{ "SCHED_FLAG_UTIL_CLAMP_MIN", SCHED_FLAG_UTIL_CLAMP_MIN },
	{ "SCHED_FLAG_UTIL_CLAMP_MAX", SCHED_FLAG_UTIL_CLAMP_MAX },
};

static int parse_scheduler_flags(const json_t *o, struct oci_scheduler *s, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r = oci_get_array(o, "process.scheduler.flags", &a, err);

	json_array_foreach(a, i, v) {
		const char *name = json_is_string(v) ? json_string_value(v) : "";
		uint64_t flag = 0;

		for (size_t k = 0; k < ARRAY_LEN(scheduler_flags); k++)
			if (strcmp(scheduler_flags[k].name, name) == 0)
				flag = scheduler_flags[k].flag;
		if (!flag)
			return err_set(err, EINVAL, "OCI spec: process.scheduler.flags: unknown flag '%s'", name);
		s->flags |= flag;
	}
	return r;
}

static int parse_scheduler(const json_t *json, struct oci_scheduler *s, struct err *err)
{
	const json_t *o;
	const char *policy;
	int64_t nice = 0, priority = 0;
	int r = oci_get_object(json, "process.scheduler", &o, err);

	if (r < 0 || !o)
		return r;
	policy = json_str(o, "policy", "");
	s->policy = UINT32_MAX;
	for (size_t i = 0; i < ARRAY_LEN(policies); i++)
		if (strcmp(policies[i].name, policy) == 0)
			s->policy = policies[i].policy;
	if (s->policy == UINT32_MAX)
		return err_set(err, EINVAL,
			       "OCI spec: process.scheduler.policy '%s' is unknown (SCHED_OTHER, SCHED_FIFO, SCHED_RR, "
			       "SCHED_BATCH, SCHED_ISO, SCHED_IDLE, SCHED_DEADLINE)",
			       policy);
	if ((r = oci_get_integer(o, "process.scheduler.nice", -20, 19, &nice, err)) < 0 ||
	    (r = oci_get_integer(o, "process.scheduler.priority", 0, 99, &priority, err)) < 0 ||
	    (r = parse_scheduler_flags(o, s, err)) < 0 ||
	    (r = oci_get_u64(o, "process.scheduler.runtime", &s->runtime, NULL, err)) < 0 ||
	    (r = oci_get_u64(o, "process.scheduler.deadline", &s->deadline, NULL, err)) < 0 ||
	    (r = oci_get_u64(o, "process.scheduler.period", &s->period, NULL, err)) < 0)
		return r;
	if (priority && s->policy != SCHED_FIFO && s->policy != SCHED_RR)
		return err_set(err, EINVAL,
			       "OCI spec: process.scheduler.priority can only be given for SCHED_FIFO and SCHED_RR");
	if (s->policy != SCHED_DEADLINE && (s->runtime || s->deadline || s->period))
		return err_set(err, EINVAL,
			       "OCI spec: process.scheduler: runtime, deadline and period are for SCHED_DEADLINE only");
	s->nice = (int)nice;
	s->priority = (unsigned int)priority;
	s->given = true;
	return 0;
}

static int parse_io_priority(const json_t *json, struct oci_io_priority *p, struct err *err)
{
	static const char *const classes[] = { "", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE" };
	const json_t *o;
	const char *name;
	int64_t priority = 0;
	int r = oci_get_object(json, "process.ioPriority", &o, err);

	if (r < 0 || !o)
		return r;
	name = json_str(o, "class", "");
	for (size_t i = 1; i < ARRAY_LEN(classes); i++)
		if (strcmp(name, classes[i]) == 0)
			p->class = (int)i;
	if (!p->class)
		return err_set(err, EINVAL,
			       "OCI spec: process.ioPriority.class '%s' is unknown (IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, "
			       "IOPRIO_CLASS_IDLE)",
			       name);
	r = oci_get_integer(o, "process.ioPriority.priority", 0, 7, &priority, err);
	p->priority = (int)priority;
	p->given = true;
	return r;
}

static int check_cpus(const char *key, const char *list, struct err *err)
{
	if (!list || (*list && strspn(list, "0123456789,- ") == strlen(list)))
		return 0;
	return err_set(err, EINVAL, "OCI spec: process.execCPUAffinity.%s '%s' is not a list of processors like 0-3,7",
		       key, list);
}

static int parse_affinity(const json_t *json, struct oci_process *p, struct err *err)
{
	const json_t *o;
	int r = oci_get_object(json, "process.execCPUAffinity", &o, err);

	if (r < 0 || !o)
		return r;
	if ((r = oci_get_string(o, "initial", &p->cpu_affinity_initial, err)) < 0 ||
	    (r = oci_get_string(o, "final", &p->cpu_affinity_final, err)) < 0 ||
	    (r = check_cpus("initial", p->cpu_affinity_initial, err)) < 0)
		return r;
	return check_cpus("final", p->cpu_affinity_final, err);
}

static int check_env(char **env, struct err *err)
{
	for (; *env; env++)
		if (!strchr(*env, '=') || **env == '=')
			return err_set(err, EINVAL, "OCI spec: process.env: '%s' is not NAME=VALUE", *env);
	return 0;
}

static int parse_size(const json_t *json, struct oci_process *p, struct err *err)
{
	const json_t *size;
	int64_t height = 0, width = 0;
	int r = oci_get_object(json, "consoleSize", &size, err);

	if (r < 0 || (r = oci_get_integer(size, "consoleSize.height", 0, UINT16_MAX, &height, err)) < 0 ||
	    (r = oci_get_integer(size, "consoleSize.width", 0, UINT16_MAX, &width, err)) < 0)
		return r;
	p->console_height = (unsigned short)height;
	p->console_width = (unsigned short)width;
	return 0;
}

int oci_process_read(const json_t *json, struct oci_process *p, struct err *err)
{
	int64_t adj = INT32_MIN;
	int r;

	if (!json_is_object(json))
		return oci_bad_type(err, "process", "an object");
	if ((r = oci_get_bool(json, "terminal", &p->terminal, err)) < 0 || (r = parse_size(json, p, err)) < 0 ||
	    (r = parse_user(json, &p->user, err)) < 0 || (r = oci_get_strings(json, "args", &p->args, err)) < 0 ||
	    (r = oci_get_strings(json, "env", &p->env, err)) < 0 ||
	    (r = oci_get_string(json, "cwd", &p->cwd, err)) < 0 || (r = parse_capabilities(json, p, err)) < 0 ||
	    (r = parse_rlimits(json, p, err)) < 0 ||
	    (r = oci_get_bool(json, "noNewPrivileges", &p->no_new_privileges, err)) < 0 ||
	    (r = oci_get_string(json, "apparmorProfile", &p->apparmor_profile, err)) < 0 ||
	    (r = oci_get_string(json, "selinuxLabel", &p->selinux_label, err)) < 0 ||
	    (r = parse_scheduler(json, &p->scheduler, err)) < 0 ||
	    (r = parse_io_priority(json, &p->io_priority, err)) < 0 || (r = parse_affinity(json, p, err)) < 0 ||
	    (r = oci_get_integer(json, "oomScoreAdj", -1000, 1000, &adj, err)) < 0 || (r = check_env(p->env, err)) < 0)
		return r;
	p->oom_score_adj_given = adj != INT32_MIN;
	p->oom_score_adj = p->oom_score_adj_given ? (int)adj : 0;
	if (!p->args[0])
		return err_set(err, EINVAL, "OCI spec: process.args must not be empty");
	if (!p->cwd && !(p->cwd = strdup("/")))
		return oci_no_memory(err);
	if (p->cwd[0] != '/')
		return err_set(err, EINVAL, "OCI spec: process.cwd must be an absolute path: '%s'", p->cwd);
	return 0;
}

void oci_process_fini(struct oci_process *p)
{
	free(p->user.additional_gids);
	free(p->user.username);
	oci_free_strings(p->args);
	oci_free_strings(p->env);
	free(p->cwd);
	free(p->rlimits);
	free(p->apparmor_profile);
	free(p->unknown_capability);
	free(p->selinux_label);
	free(p->cpu_affinity_initial);
	free(p->cpu_affinity_final);
}

void oci_process_free(struct oci_process *p)
{
	if (p)
		oci_process_fini(p);
	free(p);
}

int oci_process_parse(const json_t *json, struct oci_process **out, struct err *err)
{
	CLEAN(cleanup_oci_process) struct oci_process *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return oci_no_memory(err);
	r = oci_process_read(json, p, err);
	if (r < 0)
		return r;
	*out = take_ptr(p);
	return 0;
}

int oci_process_set_args(struct oci_process *p, char **args, struct err *err)
{
	size_t n = 0;
	char **copy;

	while (args[n])
		n++;
	copy = calloc(n + 1, sizeof(char *));
	if (!copy)
		return oci_no_memory(err);
	for (size_t i = 0; i < n; i++) {
		copy[i] = strdup(args[i]);
		if (!copy[i]) {
			oci_free_strings(copy);
			return oci_no_memory(err);
		}
	}
	oci_free_strings(p->args);
	p->args = copy;
	return 0;
}

int oci_process_add_env(struct oci_process *p, const char *text, struct err *err)
{
	const char *equals = strchr(text, '=');
	size_t name = equals ? (size_t)(equals - text) + 1 : 0, n = 0;
	char *copy, **more;

	if (name < 2)
		return err_set(err, EINVAL, "the environment variable '%s' is not NAME=VALUE", text);
	copy = strdup(text);
	if (!copy)
		return oci_no_memory(err);
	for (; p->env[n]; n++)
		if (strncmp(p->env[n], text, name) == 0) {
			free(p->env[n]);
			p->env[n] = copy;
			return 0;
		}
	more = reallocarray((void *)p->env, n + 2, sizeof(char *));
	if (!more) {
		free(copy);
		return oci_no_memory(err);
	}
	more[n] = copy;
	more[n + 1] = NULL;
	p->env = more;
	return 0;
}

int oci_process_pass_sockets(struct oci_process *p, unsigned int n, struct err *err)
{
	char text[32];
	int r;

	(void)snprintf(text, sizeof(text), "LISTEN_FDS=%u", n);
	r = oci_process_add_env(p, text, err);
	return r < 0 ? r : oci_process_add_env(p, "LISTEN_PID=1", err);
}
