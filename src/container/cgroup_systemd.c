/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The systemd cgroup driver: a transient scope by org.freedesktop.systemd1.Manager.StartTransientUnit (systemd's D-Bus
 * interface, org.freedesktop.systemd1(5)). The calls are made by systemd's own busctl(1): it is there wherever systemd is,
 * and a static program has no libsystemd.
 */
#include "container/cgroup_systemd.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/cgroup_internal.h"

#define UNIT_MAX 255 /* UNIT_NAME_MAX of systemd */

int cgroup_systemd_name(const char *path, const char *id, bool rootless, char **slice, char **unit, struct err *err)
{
	const char *prefix = "walnut", *name = id, *first, *second;
	CLEAN_FREE char *s = NULL, *u = NULL;
	size_t n;

	if (path && *path) {
		first = strchr(path, ':');
		second = first ? strchr(first + 1, ':') : NULL;
		if (!second || strchr(second + 1, ':'))
			return err_set(
				err, EINVAL,
				"linux.cgroupsPath is '%s': with systemd it must have the form \"slice:prefix:name\"",
				path);
		s = strndup(path, (size_t)(first - path));
		prefix = first + 1;
		name = second + 1;
		n = (size_t)(second - prefix);
	} else {
		s = strdup("");
		n = strlen(prefix);
	}
	if (s && !*s) {
		free(s);
		s = strdup(rootless ? "user.slice" : "system.slice");
	}
	n = strlen(name) > 6 && strcmp(name + strlen(name) - 6, ".slice") == 0 ? 0 : n;
	if (!s || asprintf(&u, "%.*s%s%s%s", (int)n, prefix, n ? "-" : "", name,
			   strlen(name) > 6 && strcmp(name + strlen(name) - 6, ".slice") == 0 ? "" : ".scope") < 0) {
		u = NULL;
		return err_set(err, ENOMEM, "out of memory");
	}
	if (!*name || strlen(u) > UNIT_MAX || strpbrk(u, "/ \n"))
		return err_set(err, EINVAL, "linux.cgroupsPath: '%s' can not be the name of a systemd unit", u);
	*slice = take_ptr(s);
	*unit = take_ptr(u);
	return 0;
}

/* systemd.slice(5): "-" is the root, "a-b.slice" is below "a.slice". */
int cgroup_systemd_slice_path(const char *slice, char **path, struct err *err)
{
	size_t len = strlen(slice), n = len > 6 ? len - 6 : 0, out = 0;
	char *p;

	if (!n || strcmp(slice + n, ".slice") != 0 || strchr(slice, '/') || strstr(slice, "--") ||
	    (slice[0] == '-' && n > 1) || (slice[n - 1] == '-' && n > 1))
		return err_set(err, EINVAL, "linux.cgroupsPath: '%s' is not the name of a systemd slice", slice);
	p = calloc(1, (len + 8) * (len + 1));
	if (!p)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 1; i <= n && strcmp(slice, "-.slice") != 0; i++)
		if (i == n || slice[i] == '-') {
			p[out++] = '/';
			memcpy(p + out, slice, i);
			memcpy(p + out + i, ".slice", 6);
			out += i + 6;
		}
	*path = p;
	return 0;
}

static void add_number(struct cgroup_properties *p, const char *name, char type, uint64_t n)
{
	struct cgroup_property *i = &p->item[p->n];

	if (p->n == CGROUP_PROPERTIES_MAX)
		return;
	*i = (struct cgroup_property){ .type = type, .number = n };
	(void)snprintf(i->name, sizeof(i->name), "%s", name);
	p->n++;
}

/* -1 is systemd's "infinity". */
static void add_limit(struct cgroup_properties *p, const char *name, int64_t n)
{
	if (n)
		add_number(p, name, 't', n < 0 ? UINT64_MAX : (uint64_t)n);
}

/* "0-2,5" as a mask of bits, the first CPU lowest. */
static int add_set(struct cgroup_properties *p, const char *name, const char *list, struct err *err)
{
	struct cgroup_property *i = &p->item[p->n];

	if (!list || !*list || p->n == CGROUP_PROPERTIES_MAX)
		return 0;
	*i = (struct cgroup_property){ .type = 'y' };
	(void)snprintf(i->name, sizeof(i->name), "%s", name);
	for (const char *s = list; *s;) {
		char *end;
		unsigned long a = strtoul(s, &end, 10), b = a;

		if (end != s && *end == '-') {
			s = end + 1;
			b = strtoul(s, &end, 10);
		}
		if (end == s || b < a || b >= 8 * sizeof(i->bytes) || (*end && *end != ','))
			return err_set(err, EINVAL, "linux.resources.cpu: '%s' is not a list such as 0-2,5", list);
		for (unsigned long k = a; k <= b; k++)
			i->bytes[k / 8] = (unsigned char)(i->bytes[k / 8] | 1U << k % 8);
		i->nbytes = b / 8 + 1 > i->nbytes ? b / 8 + 1 : i->nbytes;
		s = *end ? end + 1 : end;
	}
	p->n++;
	return 0;
}

/* CPUQuotaPerSecUSec: microseconds in a second, as systemd rounds it, up to 10 ms. */
static void add_quota(struct cgroup_properties *p, const struct oci_resources *r)
{
	uint64_t period = r->cpu_period ? r->cpu_period : 100000, quota;

	if (r->cpu_quota > 0) {
		quota = (uint64_t)r->cpu_quota * 1000000 / period;
		add_number(p, "CPUQuotaPerSecUSec", 't', (quota + 9999) / 10000 * 10000);
	} else if (r->cpu_quota < 0) {
		add_number(p, "CPUQuotaPerSecUSec", 't', UINT64_MAX);
	}
	if (r->cpu_period)
		add_number(p, "CPUQuotaPeriodUSec", 't', r->cpu_period);
}

int cgroup_systemd_properties(struct cgroup_properties *p, const struct oci_resources *r, bool v2, struct err *err)
{
	uint64_t shares = r->cpu_shares < 2 ? 2 : r->cpu_shares > 262144 ? 262144 : r->cpu_shares;

	add_limit(p, v2 ? "MemoryMax" : "MemoryLimit", r->memory_limit);
	if (v2) {
		add_limit(p, "MemoryLow", r->memory_reservation);
		if (r->memory_swap < 0 || (r->memory_swap && r->memory_limit > 0))
			add_number(p, "MemorySwapMax", 't',
				   r->memory_swap < 0 ? UINT64_MAX : (uint64_t)(r->memory_swap - r->memory_limit));
	}
	if (r->cpu_shares)
		add_number(p, v2 ? "CPUWeight" : "CPUShares", 't', v2 ? 1 + (shares - 2) * 9999 / 262142 : shares);
	add_quota(p, r);
	if (r->block_weight)
		add_number(p, v2 ? "IOWeight" : "BlockIOWeight", 't',
			   v2 ? 1 + (r->block_weight - 10U) * 9999U / 990U : r->block_weight);
	add_limit(p, "TasksMax", r->pids_limit);
	if (!v2)
		return 0;
	if (add_set(p, "AllowedCPUs", r->cpuset_cpus, err) < 0 ||
	    add_set(p, "AllowedMemoryNodes", r->cpuset_mems, err) < 0)
		return -err->code;
	return 0;
}

#define ARGS_MAX (16 + CGROUP_PROPERTIES_MAX * 132)
struct arguments {
	char *v[ARGS_MAX + 1];
	size_t n;
	bool failed;
};

static void arg(struct arguments *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void arg(struct arguments *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (a->n == ARGS_MAX || vasprintf(&a->v[a->n], fmt, ap) < 0) {
		a->failed = true;
		if (a->n < ARGS_MAX)
			a->v[a->n] = NULL;
	} else {
		a->n++;
	}
	va_end(ap);
}

static void arguments_fini(struct arguments **a)
{
	for (size_t i = 0; *a && i < (*a)->n; i++)
		free((*a)->v[i]);
	free(*a);
}

/* busctl's arguments of a(sv). */
static void arg_properties(struct arguments *a, const struct cgroup_properties *p)
{
	for (size_t i = 0; i < p->n; i++) {
		const struct cgroup_property *q = &p->item[i];

		arg(a, "%s", q->name);
		arg(a, "%s", q->type == 'y' ? "ay" : (const char[]){ q->type, 0 });
		if (q->type == 'y') {
			arg(a, "%zu", q->nbytes);
			for (size_t k = 0; k < q->nbytes; k++)
				arg(a, "%u", q->bytes[k]);
		} else if (q->type == 's') {
			arg(a, "%s", q->text);
		} else if (q->type == 'b') {
			arg(a, "%s", q->number ? "true" : "false");
		} else {
			arg(a, "%" PRIu64, q->number);
		}
	}
}

static struct arguments *call_of(const char *method, const char *types, bool user)
{
	struct arguments *a = calloc(1, sizeof(*a));
	static const char *const words[] = { "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
					     "org.freedesktop.systemd1.Manager" };

	if (!a)
		return NULL;
	arg(a, "busctl");
	arg(a, user ? "--user" : "--system");
	arg(a, "--quiet");
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		arg(a, "%s", words[i]);
	arg(a, "%s", method);
	arg(a, "%s", types);
	return a;
}

static int call(const struct arguments *a, const char *what, struct err *err)
{
	char text[256] = "";
	int out[2], status = 0;
	ssize_t n;
	pid_t pid;

	if (a->failed)
		return err_set(err, ENOMEM, "out of memory");
	if (pipe2(out, O_CLOEXEC) < 0)
		return err_sys(err, errno, "cannot make a pipe");
	pid = fork();
	if (pid == 0) {
		if (dup2(out[1], 1) >= 0 && dup2(out[1], 2) >= 0)
			(void)execvp("busctl", a->v);
		_exit(127);
	}
	(void)close(out[1]);
	n = pid > 0 ? fd_read_full(out[0], text, sizeof(text) - 1) : 0;
	(void)close(out[0]);
	if (pid < 0)
		return err_sys(err, errno, "cannot run busctl");
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	text[n > 0 ? strcspn(text, "\n") : 0] = '\0';
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return err_set(err, ENOENT, "%s: there is no busctl (package systemd)", what);
	return err_set(err, EIO, "%s: %s", what, *text ? text : "busctl failed");
}

/* A process that does nothing: a scope is made with a process and ends with its last. */
static pid_t start_holder(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
			_exit(1);
		for (;;)
			(void)pause();
	}
	return pid;
}

static int start_scope(struct cgroup *g, const struct cgroup_config *config, const char *slice, struct err *err)
{
	CLEAN(arguments_fini) struct arguments *a = call_of("StartTransientUnit", "ssa(sv)a(sa(sv))", g->rootless);
	CLEAN_FREE struct cgroup_properties *p = calloc(1, sizeof(*p));
	int r;

	if (!a || !p)
		return err_set(err, ENOMEM, "out of memory");
	r = config->resources ? cgroup_systemd_properties(p, config->resources, g->v2, err) : 0;
	if (r < 0)
		return r;
	add_number(p, "Delegate", 'b', 1);
	add_number(p, "DefaultDependencies", 'b', 0);
	g->holder = start_holder();
	if (g->holder < 0) {
		g->holder = 0;
		return err_sys(err, errno, "cannot fork");
	}
	arg(a, "%s", g->unit);
	arg(a, "replace");
	arg(a, "%zu", p->n + 3);
	arg_properties(a, p);
	arg(a, "Description");
	arg(a, "s");
	arg(a, "walnut container %s", config->id);
	arg(a, "Slice");
	arg(a, "s");
	arg(a, "%s", slice);
	arg(a, "PIDs");
	arg(a, "au");
	arg(a, "1");
	arg(a, "%d", g->holder);
	arg(a, "0");
	return call(a, "cannot start the container's scope by systemd", err);
}

static bool asks_properties(const json_t *annotations)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)(uintptr_t)annotations, key, v)
		if (strncmp(key, "org.systemd.property.", 21) == 0)
			return true;
	return false;
}

int cgroup_systemd_create(struct cgroup *g, const struct cgroup_config *config, struct err *err)
{
	struct cgroup_config there = *config;
	CLEAN_FREE char *slice = NULL, *base = NULL, *path = NULL;
	int r = cgroup_systemd_name(config->path, config->id, config->rootless, &slice, &g->unit, err);

	if (r < 0 || (r = cgroup_systemd_slice_path(slice, &base, err)) < 0)
		return r;
	if (asks_properties(config->annotations))
		return err_set(err, ENOTSUP, "the annotations org.systemd.property.* are not built in this version");
	if (access("/run/systemd/system", F_OK) < 0)
		return err_set(err, ENOTSUP,
			       "systemd does not run on this machine: use cgroupfs (leave out --systemd-cgroup)");
	if (g->rootless)
		return err_set(err, ENOTSUP, "the systemd cgroup driver is not built for users other than root");
	g->v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
	r = start_scope(g, config, slice, err);
	/* the job is done some time after the answer */
	for (int i = 0; r == 0 && i < 500; i++) {
		char file[64];
		CLEAN_FREE char *text = NULL;

		(void)snprintf(file, sizeof(file), "/proc/%d/cgroup", g->holder);
		text = fd_read_file(AT_FDCWD, file, 1 << 16, NULL, NULL);
		if (text && strstr(text, g->unit))
			break;
		(void)usleep(10000);
	}
	if (r == 0 && asprintf(&path, "%s/%s", base, g->unit) < 0) {
		path = NULL;
		r = err_set(err, ENOMEM, "out of memory");
	}
	there.path = path;
	if (r == 0)
		r = cgroup_hierarchies(g, &there, err);
	if (r < 0) {
		struct err ignored = ERR_INIT;

		if (cgroup_systemd_stop(g, &ignored) < 0)
			cgroup_systemd_release(g);
	}
	return r;
}

int cgroup_systemd_update(struct cgroup *g, const struct oci_resources *r, struct err *err)
{
	CLEAN(arguments_fini) struct arguments *a = NULL;
	CLEAN_FREE struct cgroup_properties *p = NULL;
	int rc;

	if (!g->unit || g->holder) /* a scope that was just started knows its limits */
		return 0;
	a = call_of("SetUnitProperties", "sba(sv)", g->rootless);
	p = calloc(1, sizeof(*p));
	if (!a || !p)
		return err_set(err, ENOMEM, "out of memory");
	rc = cgroup_systemd_properties(p, r, g->v2, err);
	if (rc < 0 || !p->n)
		return rc;
	arg(a, "%s", g->unit);
	arg(a, "true");
	arg(a, "%zu", p->n);
	arg_properties(a, p);
	return call(a, "cannot tell systemd about the new limits", err);
}

void cgroup_systemd_release(struct cgroup *g)
{
	if (!g->holder)
		return;
	(void)kill(g->holder, SIGKILL);
	while (waitpid(g->holder, NULL, 0) < 0 && errno == EINTR)
		;
	g->holder = 0;
}

int cgroup_systemd_stop(struct cgroup *g, struct err *err)
{
	CLEAN(arguments_fini) struct arguments *a = NULL;
	struct err ignored = ERR_INIT;

	cgroup_systemd_release(g);
	if (!g->unit)
		return 0;
	a = call_of("StopUnit", "ss", g->rootless);
	if (!a)
		return err_set(err, ENOMEM, "out of memory");
	arg(a, "%s", g->unit);
	arg(a, "replace");
	/* an empty scope ends by itself, so there may be none any more */
	if (call(a, "cannot stop the container's scope", &ignored) < 0)
		errno = ignored.code;
	return 0;
}
