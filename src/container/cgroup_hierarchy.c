/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the cgroup hierarchies are, and making a container's folders in them.
 *
 * /proc/self/cgroup (cgroups(7)) lists the hierarchies with our own place in each. They are mounted where everybody
 * expects them, /sys/fs/cgroup/CONTROLLERS; only when one is not there is mountinfo searched, which is long on a
 * machine with many containers.
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "container/cgroup_internal.h"

#define ROOT      "/sys/fs/cgroup"
#define TEXT_MAX_ (4U << 20) /* of mountinfo */

static bool is_fs(const char *path, unsigned long magic)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && (unsigned long)fs.f_type == magic;
}

char *cgroup_clean_path(const char *path)
{
	size_t n = 0, len = strlen(path);
	char *out = calloc(1, len + 2);

	for (const char *s = path; out && *s;) {
		size_t k = strcspn(s, "/");

		if (k == 2 && s[0] == '.' && s[1] == '.') {
			while (n && out[--n] != '/')
				;
		} else if (k && !(k == 1 && *s == '.')) {
			out[n++] = '/';
			memcpy(out + n, s, k);
			n += k;
		}
		s += k + (s[k] == '/');
	}
	if (out)
		out[n] = '\0';
	return out;
}

/* Is @name a whole member of the comma list @list, @len long? */
static bool in_list(const char *list, size_t len, const char *name)
{
	size_t n = strlen(name);

	for (const char *s = list, *end = list + len; s < end;) {
		const char *comma = memchr(s, ',', (size_t)(end - s));
		size_t k = (size_t)((comma ? comma : end) - s);

		if (k == n && memcmp(s, name, n) == 0)
			return true;
		s += k + 1;
	}
	return false;
}

/*
 * The mount of a hierarchy, from mountinfo (proc(5)): "ID PARENT MAJ:MIN ROOT TARGET OPTIONS [FIELDS] - TYPE SOURCE
 * SUPEROPTIONS". @controller NULL: version 2. Return: the caller's string or NULL.
 */
static char *find_mount(const char *controller)
{
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, "/proc/self/mountinfo", TEXT_MAX_, NULL, NULL);
	char *save = NULL;

	for (char *l = text ? strtok_r(text, "\n", &save) : NULL; l; l = strtok_r(NULL, "\n", &save)) {
		char *type = strstr(l, " - cgroup"), *target = l, *options;

		for (int i = 0; target && i < 4; i++)
			target = (target = strchr(target, ' ')) ? target + 1 : NULL;
		if (!type || !target || !strchr(target, ' '))
			continue;
		type += 3;
		*strchr(target, ' ') = '\0';
		options = strrchr(type, ' ');
		if (!controller ? strncmp(type, "cgroup2 ", 8) == 0
				: strncmp(type, "cgroup ", 7) == 0 && options &&
					  in_list(options + 1, strlen(options + 1), controller))
			return strdup(target);
	}
	return NULL;
}

/* The mount of the version 1 hierarchy with @list ("cpu,cpuacct", "name=systemd"); NULL: not mounted. The caller's. */
static char *hierarchy_mount(const char *list, size_t len)
{
	const char *equals = memchr(list, '=', len), *comma = memchr(list, ',', len);
	size_t first = comma ? (size_t)(comma - list) : len;
	char path[256], name[64];

	if (equals)
		(void)snprintf(path, sizeof(path), ROOT "/%.*s", (int)(len - (size_t)(equals + 1 - list)), equals + 1);
	else
		(void)snprintf(path, sizeof(path), ROOT "/%.*s", (int)len, list);
	if (is_fs(path, CGROUP_SUPER_MAGIC))
		return strdup(path);
	(void)snprintf(path, sizeof(path), ROOT "/%.*s", (int)first, list);
	if (comma && is_fs(path, CGROUP_SUPER_MAGIC))
		return strdup(path);
	(void)snprintf(name, sizeof(name), "%.*s", (int)first, list);
	return find_mount(name);
}

static char *join(const char *a, const char *b, const char *c)
{
	char *s = NULL;

	return asprintf(&s, "%s%s%s", a, b, c) < 0 ? NULL : s;
}

/*
 * The folder's path in a hierarchy mounted at @mount where we are in @own. In a container without a cgroup namespace
 * @own is the host's path, which is not below the mount: the mount's root is then our own place.
 */
static char *folder_path(const struct cgroup_config *config, const char *mount, const char *own)
{
	CLEAN_FREE char *path = cgroup_clean_path(config->path && *config->path ? config->path : config->id);
	CLEAN_FREE char *here = cgroup_clean_path(strncmp(own, "/..", 3) == 0 ? "/" : own);
	CLEAN_FREE char *parent = NULL;

	if (!path || !here || !*path)
		return NULL;
	if (config->path && config->path[0] == '/')
		return join(mount, path, "");
	parent = join(mount, here, "");
	if (parent && access(parent, F_OK) < 0)
		*here = '\0';
	return join(mount, here, path);
}

/* Make @path (below @mount). *had: how much of the path was there before. */
static int make_folder(const char *mount, char *path, size_t *had, struct err *err)
{
	size_t len = strlen(path);

	*had = len;
	if (mkdir(path, 0755) == 0) {
		*had = (size_t)(strrchr(path, '/') - path);
		return 0;
	}
	if (errno == EEXIST)
		return 0;
	if (errno != ENOENT)
		return err_sys(err, errno, "cannot make the cgroup %s", path);
	for (size_t n = strlen(mount) + 1; n <= len; n++) {
		bool made;
		int e;

		if (path[n] != '/' && path[n] != '\0')
			continue;
		path[n] = '\0';
		made = mkdir(path, 0755) == 0;
		e = made ? 0 : errno;
		if (made && *had == len)
			*had = (size_t)(strrchr(path, '/') - path);
		if (!made && e != EEXIST)
			(void)err_sys(err, e, "cannot make the cgroup %s", path);
		if (n < len)
			path[n] = '/';
		if (!made && e != EEXIST)
			return -e;
	}
	return 0;
}

/* Undo make_folder. */
static void unmake_folder(char *path, size_t had)
{
	while (strlen(path) > had && rmdir(path) == 0)
		*strrchr(path, '/') = '\0';
}

static bool empty_text(const char *s)
{
	return !s || !*s || *s == '\n';
}

/* A new cpuset folder of version 1 is empty and takes no process: give it, and its parents, what the parent has. */
static int fill_cpuset(const char *mount, const char *path, struct err *err)
{
	static const char *const files[] = { "cpuset.cpus", "cpuset.mems" };
	CLEAN_FREE char *parent = strdup(path);
	CLEAN_FD int dir = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC), up = -1;
	bool filled = true;
	int r;

	if (!parent || dir < 0)
		return err_sys(err, parent ? errno : ENOMEM, "cannot open the cgroup %s", path);
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		CLEAN_FREE char *have = cgroup_read(dir, files[i]);

		filled = filled && !empty_text(have);
	}
	*strrchr(parent, '/') = '\0';
	if (filled || strlen(path) <= strlen(mount))
		return 0;
	r = fill_cpuset(mount, parent, err);
	if (r < 0)
		return r;
	up = open(parent, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		CLEAN_FREE char *have = cgroup_read(dir, files[i]), *from = cgroup_read(up, files[i]);

		if (empty_text(have) && from && (r = cgroup_write(dir, files[i], from, err)) < 0)
			return r;
	}
	return 0;
}

/* Version 2: let the children of @path use the controllers it has. */
static void enable_controllers(const char *path)
{
	CLEAN_FD int dir = open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	CLEAN_FREE char *have = cgroup_read(dir, "cgroup.controllers"),
			*on = cgroup_read(dir, "cgroup.subtree_control");
	char all[512] = "", *save = NULL, *name;
	size_t n = 0;

	for (name = have ? strtok_r(have, " \n", &save) : NULL; name; name = strtok_r(NULL, " \n", &save)) {
		char *at = on ? strstr(on, name) : NULL;
		size_t k = strlen(name);

		/* "cpu" is not "cpuset" */
		while (at && !((at == on || at[-1] == ' ') && (at[k] == ' ' || at[k] == '\n' || !at[k])))
			at = strstr(at + 1, name);
		if (!at && n + k + 3 < sizeof(all))
			n += (size_t)snprintf(all + n, sizeof(all) - n, "%s+%s", n ? " " : "", name);
	}
	if (!n || fd_write_file(dir, "cgroup.subtree_control", O_WRONLY, all, n, NULL) == 0)
		return;
	/* One refuses (below a threaded cgroup, or with processes in @path): a limit that needs it says so when set. */
	save = NULL;
	for (name = strtok_r(all, " ", &save); name; name = strtok_r(NULL, " ", &save))
		if (fd_write_file(dir, "cgroup.subtree_control", O_WRONLY, name, strlen(name), NULL) < 0)
			continue;
}

/* A child of a threaded cgroup is "domain invalid" until it is made threaded too. */
static int check_type(int dir, const char *path, struct err *err)
{
	CLEAN_FREE char *type = cgroup_read(dir, "cgroup.type");
	int r;

	if (!type || strncmp(type, "domain invalid", 14) != 0)
		return 0;
	r = cgroup_write(dir, "cgroup.type", "threaded", err);
	return r < 0 ? err_wrap(err, "the cgroup %s is in an invalid state (cgroup.type is 'domain invalid')", path)
		     : 0;
}

static int check_existing(struct cgroup *g, enum cgroup_controller c)
{
	CLEAN_FREE char *procs = cgroup_read(g->dir[c], "cgroup.procs");

	if (procs && *procs)
		g->warning = "container's cgroup is not empty: other processes are in it";
	else if (cgroup_frozen(g))
		g->warning = "container's cgroup unexpectedly frozen";
	return 0;
}

int cgroup_make_v2(struct cgroup *g, const char *root, const char *path, struct err *err)
{
	CLEAN_FREE char *copy = strdup(path), *want = NULL, *have = NULL;
	CLEAN_FD int top = open(root, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	size_t had = 0, len = strlen(path);
	int r;

	if (!copy)
		return err_set(err, ENOMEM, "out of memory");
	r = make_folder(root, copy, &had, err);
	if (r == 0)
		r = cgroup_open_folder(g, CGROUP_UNIFIED, path, err);
	if (r < 0) {
		unmake_folder(copy, had);
		return r;
	}
	if (had == len)
		(void)check_existing(g, CGROUP_UNIFIED);
	if (!g->v2)
		return 0;
	want = cgroup_read(top, "cgroup.controllers");
	have = cgroup_read(g->dir[CGROUP_UNIFIED], "cgroup.controllers");
	if (want && have && strcmp(want, have) == 0)
		return 0;
	for (size_t n = strlen(root); n < len; n++)
		if (copy[n] == '/') {
			copy[n] = '\0';
			enable_controllers(copy);
			copy[n] = '/';
		}
	r = check_type(g->dir[CGROUP_UNIFIED], path, err);
	if (r < 0)
		unmake_folder(copy, had);
	return r;
}

static int make_v1(struct cgroup *g, const struct cgroup_config *config, const char *list, size_t len, const char *own,
		   struct err *err)
{
	CLEAN_FREE char *mount = hierarchy_mount(list, len), *path = mount ? folder_path(config, mount, own) : NULL;
	int r = 0, first = -1;
	size_t had = 0;

	if (!mount)
		return 0; /* not mounted: a limit that needs it says so when it is set */
	if (!path)
		return err_set(err, EINVAL, "bad cgroup path '%s'", config->path ? config->path : config->id);
	for (int i = 0; i < CGROUP_UNIFIED && r == 0; i++) {
		const char *name = cgroup_controller_name((enum cgroup_controller)i);

		if (!in_list(list, len, name))
			continue;
		if (first < 0 && (r = make_folder(mount, path, &had, err)) < 0)
			break;
		/* the same folder for a controller of the same hierarchy: the first one enters and removes it */
		if (first >= 0) {
			g->dir[i] = fcntl(g->dir[first], F_DUPFD_CLOEXEC, 3);
			continue;
		}
		first = i;
		r = cgroup_open_folder(g, (enum cgroup_controller)i, path, err);
		if (r == 0 && had == strlen(path) && i != CGROUP_SYSTEMD)
			(void)check_existing(g, (enum cgroup_controller)i);
	}
	if (r == 0 && in_list(list, len, "cpuset"))
		r = fill_cpuset(mount, path, err);
	if (r < 0 && first >= 0)
		unmake_folder(path, had);
	return r;
}

static int make_unified(struct cgroup *g, const struct cgroup_config *config, const char *own, struct err *err)
{
	CLEAN_FREE char *mount = is_fs(ROOT, CGROUP2_SUPER_MAGIC)              ? strdup(ROOT)
				 : is_fs(ROOT "/unified", CGROUP2_SUPER_MAGIC) ? strdup(ROOT "/unified")
									       : NULL;
	CLEAN_FREE char *parent = strdup(own), *path = NULL;

	if (!mount && g->v2)
		mount = find_mount(NULL);
	if (!mount && !g->v2)
		return 0;
	if (!mount || !parent)
		return err_set(err, ENOTSUP, "no cgroup hierarchy is mounted at %s", ROOT);
	/* a cgroup with processes, such as our own, can not hand controllers to children: beside it, then */
	if (g->v2 && strrchr(parent, '/'))
		*strrchr(parent, '/') = '\0';
	path = folder_path(config, mount, parent);
	if (!path)
		return err_set(err, EINVAL, "bad cgroup path '%s'", config->path ? config->path : config->id);
	return cgroup_make_v2(g, mount, path, err);
}

/* All lines "N:LIST:PATH" of /proc/self/cgroup; version 2's is "0::PATH". */
static int make_all(struct cgroup *g, const struct cgroup_config *config, char *text, struct err *err)
{
	char *save = NULL;
	int r = 0, ignored = 0;

	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		char *list = strchr(l, ':'), *own = list ? strchr(list + 1, ':') : NULL;
		size_t len = own ? (size_t)(own - list - 1) : 0;

		if (!own || (len && g->v2))
			continue;
		r = len ? make_v1(g, config, list + 1, len, own + 1, err) : make_unified(g, config, own + 1, err);
		if (r < 0 && config->rootless && (r == -EACCES || r == -EPERM || r == -EROFS)) {
			ignored = r;
			continue;
		}
		/* a hybrid machine's v2 tree is there for cgroup.kill only */
		if (r < 0 && !len && !g->v2)
			continue;
		if (r < 0)
			return r;
	}
	for (int i = 0; i < CGROUP_CONTROLLERS; i++)
		if (g->dir[i] >= 0)
			return 0;
	return ignored ? ignored : err_set(err, ENOTSUP, "no cgroup hierarchy is mounted at %s", ROOT);
}

int cgroup_hierarchies(struct cgroup *g, const struct cgroup_config *config, struct err *err)
{
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, "/proc/self/cgroup", TEXT_MAX_, NULL, err);
	CLEAN_FREE char *clean = cgroup_clean_path(config->path && *config->path ? config->path
						   : config->id                  ? config->id
										 : "");
	int r;

	if (!text)
		return err_wrap(err, "cannot find the cgroups");
	if (!clean)
		return err_set(err, ENOMEM, "out of memory");
	if (!*clean)
		return err_set(err, EINVAL, "linux.cgroupsPath: a container needs a cgroup below the root, not '%s'",
			       config->path ? config->path : "");
	g->v2 = is_fs(ROOT, CGROUP2_SUPER_MAGIC) || (strchr(text, '\n') == strrchr(text, '\n') && text[0] == '0');
	r = make_all(g, config, text, err);
	for (int i = 0, why = 0; r < 0 && i < CGROUP_CONTROLLERS; i++)
		if (g->path[i] && rmdir(g->path[i]) < 0)
			why = errno; /* was there before, or in use */
		else
			(void)why;
	return r;
}
