/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a set-up process to the program: user, limits, capabilities, seccomp, exec.
 * Order: everything that needs privilege first; the filter before the capabilities
 * are dropped unless no_new_privs allows it last.
 */
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/ioprio.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/internal.h"
#include "container/seccomp_notify.h"

#define GROUPS_MAX 1024

struct identity {
	uid_t uid;
	gid_t gid;
	gid_t groups[GROUPS_MAX];
	size_t ngroups;
	char home[4096];
};

static char *read_database(const char *path)
{
	CLEAN_FD int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	char *text;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > 16 << 20)
		return NULL;
	text = calloc(1, (size_t)st.st_size + 1);
	n = text ? fd_read_full(fd, text, (size_t)st.st_size) : -1;
	if (n >= 0)
		return text;
	free(text);
	return NULL;
}

static bool parse_number(const char *s, uint32_t *out)
{
	uint64_t n = 0;

	if (!*s || strspn(s, "0123456789") != strlen(s) || strlen(s) > 10)
		return false;
	n = strtoull(s, NULL, 10);
	*out = (uint32_t)n;
	return n < UINT32_MAX;
}

/* Split a line of passwd or group at ':'. Return: fields. */
static size_t split(char *line, char **f, size_t max)
{
	size_t n = 0;

	for (char *p = line; p && n < max;) {
		f[n++] = strsep(&p, ":");
	}
	return n;
}

/* Find @user (name or number) in /etc/passwd. Return: whether found. */
static bool find_user(const char *user, struct identity *id, char *name, size_t size)
{
	CLEAN_FREE char *text = read_database("/etc/passwd");
	char *save = NULL, *f[7];
	uint32_t want = 0, uid, gid;
	bool numeric = parse_number(user, &want);

	for (char *l = text ? strtok_r(text, "\n", &save) : NULL; l; l = strtok_r(NULL, "\n", &save)) {
		if (split(l, f, 7) < 6 || !parse_number(f[2], &uid) || !parse_number(f[3], &gid))
			continue;
		if (strcmp(f[0], user) != 0 && !(numeric && uid == want))
			continue;
		id->uid = uid;
		id->gid = gid;
		(void)snprintf(id->home, sizeof(id->home), "%s", f[5]);
		(void)snprintf(name, size, "%s", f[0]);
		return true;
	}
	return false;
}

static bool in_list(char *list, const char *name)
{
	char *save = NULL;

	for (char *m = strtok_r(list, ",", &save); m; m = strtok_r(NULL, ",", &save))
		if (strcmp(m, name) == 0)
			return true;
	return false;
}

/* With @group: find it. Without: add the groups that list @name. */
static bool find_groups(const char *group, const char *name, struct identity *id)
{
	CLEAN_FREE char *text = read_database("/etc/group");
	char *save = NULL, *f[4];
	uint32_t gid, want = 0;
	bool numeric = group && parse_number(group, &want);

	for (char *l = text ? strtok_r(text, "\n", &save) : NULL; l; l = strtok_r(NULL, "\n", &save)) {
		size_t n = split(l, f, 4);

		if (n < 3 || !parse_number(f[2], &gid))
			continue;
		if (group && (strcmp(f[0], group) == 0 || (numeric && gid == want))) {
			id->gid = gid;
			return true;
		}
		if (!group && n == 4 && id->ngroups < GROUPS_MAX && in_list(f[3], name))
			id->groups[id->ngroups++] = gid;
	}
	if (numeric)
		id->gid = want;
	return numeric;
}

static int resolve_user(const struct oci_user *u, struct identity *id, struct err *err)
{
	char name[256] = "", number[16];
	CLEAN_FREE char *user = strdup(u->username ? u->username : "");
	char *group = user ? strchr(user, ':') : NULL;

	if (!user)
		return err_set(err, ENOMEM, "out of memory");
	if (!u->username) {
		(void)snprintf(number, sizeof(number), "%u", u->uid);
		(void)find_user(number, id, name, sizeof(name));
		id->uid = u->uid;
		id->gid = u->gid;
	} else {
		if (group)
			*group++ = 0;
		if (!find_user(*user ? user : "0", id, name, sizeof(name)) && *user) {
			if (!parse_number(user, &id->uid))
				return err_set(err, EINVAL,
					       "unable to find user %s: no matching entries in passwd file", user);
		}
		if (group && *group) {
			if (!find_groups(group, NULL, id))
				return err_set(err, EINVAL,
					       "unable to find group %s: no matching entries in group file", group);
		} else if (*name) {
			(void)find_groups(NULL, name, id);
		}
	}
	for (size_t i = 0; i < u->additional_gids_count && id->ngroups < GROUPS_MAX; i++)
		id->groups[id->ngroups++] = u->additional_gids[i];
	return 0;
}

int process_console(int master, const struct oci_process *p, struct err *err)
{
	struct winsize ws = { .ws_row = p->console_height, .ws_col = p->console_width };
	int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);

	if (slave < 0)
		return err_sys(err, errno, "cannot open the terminal's other end");
	if (ws.ws_row && ws.ws_col && ioctl(master, TIOCSWINSZ, &ws) < 0)
		return err_sys(err, errno, "cannot set the terminal's size");
	if (ioctl(slave, TIOCSCTTY, 0) < 0)
		return err_sys(err, errno, "cannot make the terminal controlling");
	for (int i = 0; i < 3; i++)
		if (dup2(slave, i) < 0)
			return err_sys(err, errno, "cannot set up the terminal");
	if (slave > 2)
		(void)close(slave);
	return 0;
}

static void own_stdio(uid_t uid, gid_t gid)
{
	for (int i = 0; i < 3; i++) {
		struct stat st;

		if (fstat(i, &st) < 0 || (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)) || S_ISSOCK(st.st_mode))
			continue;
		if (fchown(i, uid, S_ISCHR(st.st_mode) ? st.st_gid : gid) < 0)
			continue; /* not ours to change: the program may still use it */
	}
}

#define FLAG_WAIT_KILLABLE (1U << 5) /* SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: newer than Debian 12's headers */

static int load_filter(const struct process_exec *e, struct err *err)
{
	const void *bpf = e->bpf;
	size_t size = e->bpf_size;
	/* without a listener there is nothing to wait killably for, and the kernel refuses the flag */
	unsigned int flags = e->seccomp_flags & ~FLAG_WAIT_KILLABLE;
	struct sock_fprog prog = { .len = (unsigned short)(size / sizeof(struct sock_filter)),
				   .filter = (struct sock_filter *)(uintptr_t)bpf };

	if (!bpf || !size)
		return 0;
	if (size % sizeof(struct sock_filter) || size / sizeof(struct sock_filter) > BPF_MAXINSNS)
		return err_set(err, EINVAL, "the seccomp filter has a bad size");
	if (e->listener_message)
		return seccomp_notify_load(bpf, size, e->seccomp_flags, e->listener, e->listener_message, err);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog) < 0)
		return err_sys(err, errno, "cannot load the seccomp filter");
	return 0;
}

static int capset_mask(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2];

	for (unsigned int i = 0; i < 2; i++) {
		d[i].effective = (uint32_t)(effective >> (32 * i));
		d[i].permitted = (uint32_t)(permitted >> (32 * i));
		d[i].inheritable = (uint32_t)(inheritable >> (32 * i));
	}
	return (int)syscall(SYS_capset, &h, d);
}

static uint64_t available(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2] = { 0 };

	return syscall(SYS_capget, &h, d) < 0 ? 0 : d[0].permitted | (uint64_t)d[1].permitted << 32;
}

/* Capabilities that the caller lacks can not be given: they are left out, as a smaller machine would. */
static int become(const struct identity *id, const struct oci_capabilities *caps, bool groups, struct err *err)
{
	uint64_t have = available(), permitted = caps->permitted & have;

	for (int i = 0; i <= 63 && prctl(PR_CAPBSET_READ, i) >= 0; i++)
		if (!(caps->bounding >> i & 1) && prctl(PR_CAPBSET_DROP, i) < 0)
			return err_sys(err, errno, "cannot drop capability %d", i);
	if (prctl(PR_SET_KEEPCAPS, 1) < 0 || (groups && setgroups(id->ngroups, id->groups) < 0) ||
	    setresgid(id->gid, id->gid, id->gid) < 0 || setresuid(id->uid, id->uid, id->uid) < 0)
		return err_sys(err, errno, "cannot become user %u:%u", id->uid, id->gid);
	if (capset_mask(caps->effective & permitted, permitted, caps->inheritable & have) < 0)
		return err_sys(err, errno, "cannot set the capabilities");
	for (int i = 0; i < OCI_CAPABILITIES_COUNT; i++)
		if ((caps->ambient & permitted & caps->inheritable) >> i & 1 &&
		    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0) < 0)
			return err_sys(err, errno, "cannot raise ambient capability %d", i);
	return prctl(PR_SET_KEEPCAPS, 0) < 0 ? err_sys(err, errno, "cannot reset keepcaps") : 0;
}

static const char *get_env(char **env, const char *name)
{
	size_t n = strlen(name);

	for (; env && *env; env++)
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
			return *env + n + 1;
	return NULL;
}

static int look_up(const struct oci_process *p, char *path, size_t size, enum container_exec_failure *why,
		   struct err *err)
{
	const char *name = p->args[0], *search = get_env(p->env, "PATH");
	struct stat st;

	if (strchr(name, '/')) {
		int e;

		(void)snprintf(path, size, "%s", name);
		e = stat(path, &st) < 0 ? errno : S_ISDIR(st.st_mode) ? EISDIR : access(path, X_OK) < 0 ? EACCES : 0;
		if (!e)
			return 0;
		*why = e == ENOENT || e == ENOTDIR ? CONTAINER_EXEC_NOT_FOUND : CONTAINER_EXEC_NOT_EXECUTABLE;
		return err_set(err, e, "exec: \"%s\": %s", name,
			       e == ENOENT   ? "no such file or directory"
			       : e == EACCES ? "permission denied"
			       : e == EISDIR ? "is a directory"
					     : strerror(e));
	}
	for (const char *s = search ? search : ""; *name && *s; s += *s == ':') {
		size_t n = strcspn(s, ":");

		(void)snprintf(path, size, "%.*s%s%s", (int)n, s, n ? "/" : "./", name);
		s += n;
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0)
			return 0;
	}
	*why = CONTAINER_EXEC_NOT_FOUND;
	return err_set(err, ENOENT, "exec: \"%s\": executable file not found in $PATH", name);
}

static int set_rlimits(const struct oci_process *p, struct err *err)
{
	for (size_t i = 0; i < p->rlimits_count; i++) {
		struct rlimit l = { .rlim_cur = p->rlimits[i].soft, .rlim_max = p->rlimits[i].hard };

		if (setrlimit((__rlimit_resource_t)p->rlimits[i].resource, &l) < 0)
			return err_sys(err, errno, "cannot set rlimit %d to %lu:%lu", p->rlimits[i].resource,
				       (unsigned long)l.rlim_cur, (unsigned long)l.rlim_max);
	}
	return 0;
}

static int enter_cwd(const char *cwd, struct err *err)
{
	char now[4096];

	if (chdir(cwd) < 0)
		return err_sys(err, errno, "cannot change to the working directory %s", cwd);
	if (!getcwd(now, sizeof(now)) || now[0] != '/')
		return err_set(err, EPERM, "the working directory %s is outside of the container", cwd);
	return 0;
}

/* sched_setattr(2)'s argument, which the C library does not have. */
struct scheduling {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static int set_scheduling(const struct oci_process *p, struct err *err)
{
	const struct oci_scheduler *s = &p->scheduler;
	struct scheduling attr = { .size = sizeof(attr),
				   .policy = s->policy,
				   .flags = s->flags,
				   .nice = s->nice,
				   .priority = s->priority,
				   .runtime = s->runtime,
				   .deadline = s->deadline,
				   .period = s->period };

	if (s->given && syscall(SYS_sched_setattr, 0, &attr, 0) < 0)
		return err_sys(err, errno, "cannot set process.scheduler");
	if (p->io_priority.given && syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0,
					    IOPRIO_PRIO_VALUE(p->io_priority.class, p->io_priority.priority)) < 0)
		return err_sys(err, errno, "cannot set process.ioPriority");
	return 0;
}

/* "0-3,7" for this process; cpuset(7), "List format". */
static int set_affinity(const char *list, const char *which, struct err *err)
{
	cpu_set_t set;
	char *end;

	if (!list)
		return 0;
	CPU_ZERO(&set);
	for (const char *s = list + strspn(list, ", "); *s; s = end + strspn(end, ", ")) {
		unsigned long first = strtoul(s, &end, 10), last = first;

		if (end == s)
			return err_set(err, EINVAL, "process.execCPUAffinity.%s: bad list '%s'", which, list);
		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		if (first > last || last >= CPU_SETSIZE)
			return err_set(err, EINVAL, "process.execCPUAffinity.%s: bad range in '%s'", which, list);
		for (unsigned long i = first; i <= last; i++)
			CPU_SET(i, &set);
	}
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		return err_sys(err, errno, "cannot set process.execCPUAffinity.%s to %s", which, list);
	return 0;
}

/* In a user namespace of an ordinary user nobody may change groups: user_namespaces(7). */
static int may_set_groups(const struct identity *id, bool *may, struct err *err)
{
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, "/proc/self/setgroups", 16, NULL, NULL);

	*may = !text || strncmp(text, "deny", 4) != 0;
	if (!*may && id->ngroups)
		return err_set(
			err, EPERM,
			"process.user.additionalGids: the user namespace does not allow to set additional groups");
	return 0;
}

static char **complete_env(const struct oci_process *p, const struct identity *id, struct err *err)
{
	size_t n = 0;
	char **env;

	while (p->env && p->env[n])
		n++;
	env = calloc(n + 2, sizeof(char *));
	if (!env) {
		(void)err_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	if (n)
		(void)memcpy((void *)env, (const void *)p->env, n * sizeof(char *));
	if (!get_env(p->env, "HOME") && asprintf(&env[n], "HOME=%s", *id->home ? id->home : "/") < 0)
		env[n] = NULL;
	return env;
}

static int report_exec(const char *name, int e, enum container_exec_failure *why, struct err *err)
{
	*why = e == ENOENT                   ? CONTAINER_EXEC_NOT_FOUND
	       : e == EACCES || e == ENOEXEC ? CONTAINER_EXEC_NOT_EXECUTABLE
					     : CONTAINER_EXEC_OTHER;
	return err_set(err, e, "exec: \"%s\": %s", name,
		       e == ENOENT    ? "no such file or directory"
		       : e == EACCES  ? "permission denied"
		       : e == ENOEXEC ? "exec format error"
				      : strerror(e));
}

static int prepare(const struct process_exec *e, const struct identity *id, struct err *err)
{
	const struct oci_process *p = e->process;
	int r;

	own_stdio(id->uid, id->gid);
	if ((r = set_scheduling(p, err)) < 0 ||
	    (!e->wait_start && (r = set_affinity(p->cpu_affinity_initial, "initial", err)) < 0) ||
	    (!e->wait_start && (r = set_affinity(p->cpu_affinity_final, "final", err)) < 0) ||
	    (r = set_rlimits(p, err)) < 0)
		return r;
	return 0;
}

int process_exec(const struct process_exec *e, enum container_exec_failure *why, struct err *err)
{
	const struct oci_process *p = e->process;
	struct identity *id = calloc(1, sizeof(*id));
	char *path = malloc(PATH_MAX), **env;
	bool groups;
	int r, cwd;

	*why = CONTAINER_EXEC_OTHER;
	if (!id || !path)
		return err_set(err, ENOMEM, "out of memory");
	if ((r = resolve_user(&p->user, id, err)) < 0 || (r = may_set_groups(id, &groups, err)) < 0)
		return r;
	groups = groups && !e->keep_groups;
	env = complete_env(p, id, err);
	if (!env || (r = prepare(e, id, err)) < 0)
		return -err->code;
	if (e->check_program && (r = look_up(p, path, PATH_MAX, why, err)) < 0 && *why == CONTAINER_EXEC_NOT_FOUND)
		return r;
	if (e->wait_start && (r = e->wait_start(e->arg, err)) < 0)
		return r;
	*why = CONTAINER_EXEC_OTHER;
	if (p->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_sys(err, errno, "cannot set no_new_privs");
	if ((r = labels_apply(p, e->label, err)) < 0)
		return r;
	if (!p->no_new_privileges && (r = load_filter(e, err)) < 0)
		return r;
	/* as runc does: a folder that only one of the two, root with all capabilities or the user, may enter, will do */
	cwd = enter_cwd(p->cwd, err);
	if (cwd < 0 && cwd != -EACCES)
		return cwd;
	if ((r = become(id, p->capabilities_given ? &p->capabilities : e->capabilities, groups, err)) < 0 ||
	    (cwd < 0 && (r = enter_cwd(p->cwd, err)) < 0) || (r = look_up(p, path, PATH_MAX, why, err)) < 0)
		return r;
	(void)umask(p->user.umask < 0 ? 022 : (mode_t)p->user.umask);
	if (p->no_new_privileges && (r = load_filter(e, err)) < 0)
		return r;
	(void)execve(path, p->args, env);
	return report_exec(p->args[0], errno, why, err);
}
