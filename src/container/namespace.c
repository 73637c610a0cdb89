/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces: joined by path, user namespaces with their id maps, time namespaces with their offsets.
 * namespaces(7), user_namespaces(7), time_namespaces(7).
 *
 * What is on the host's side is opened before the first process exists: paths mean the creator's mount namespace, and
 * a process in a user namespace may not reach the sources of its mounts.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "container/internal.h"

pid_t clone_process(uint64_t flags, int *pidfd, int cgroup)
{
	struct clone_args a = { .flags = flags | CLONE_PIDFD | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
				.pidfd = (uint64_t)(uintptr_t)pidfd,
				.exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD,
				.cgroup = cgroup >= 0 ? (unsigned int)cgroup : 0 };

	return (pid_t)syscall(SYS_clone3, &a, sizeof(a));
}

static const char *flag_name(int flag)
{
	return flag == CLONE_NEWPID    ? "pid"
	       : flag == CLONE_NEWNET  ? "network"
	       : flag == CLONE_NEWNS   ? "mount"
	       : flag == CLONE_NEWIPC  ? "ipc"
	       : flag == CLONE_NEWUTS  ? "uts"
	       : flag == CLONE_NEWUSER ? "user"
	       : flag == CLONE_NEWTIME ? "time"
				       : "cgroup";
}

static int open_namespace(const struct oci_namespace_path *n, struct err *err)
{
	CLEAN_FD int fd = open(n->path, O_RDONLY | O_CLOEXEC);
	int type = fd < 0 ? -1 : ioctl(fd, NS_GET_NSTYPE);

	if (fd < 0)
		return err_sys(err, errno, "linux.namespaces: cannot open the %s namespace %s", flag_name(n->flag),
			       n->path);
	if (type != n->flag)
		return err_set(err, EINVAL, "linux.namespaces: %s is not a %s namespace", n->path, flag_name(n->flag));
	return take_fd(&fd);
}

void prepared_close(struct prepared *p)
{
	for (size_t i = 0; p->namespaces && i < p->namespaces_count; i++)
		close_fd(&p->namespaces[i]);
	for (size_t i = 0; p->mounts && i < p->mounts_count; i++)
		close_fd(&p->mounts[i]);
	close_fd(&p->rootfs);
	free(take_ptr(p->namespaces));
	free(take_ptr(p->mounts));
}

static int *descriptors(size_t n)
{
	int *fds = calloc(n + 1, sizeof(int));

	for (size_t i = 0; fds && i < n; i++)
		fds[i] = -1;
	return fds;
}

/* A detached mount leaves the creator's peer group, or what the container mounts would appear on the host. */
static int open_rootfs(const char *path, struct err *err)
{
	struct mount_attr attr = { .propagation = MS_PRIVATE };
	CLEAN_FD int fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

	if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0)
		return err_sys(err, errno, "cannot open the root filesystem %s", path);
	return take_fd(&fd);
}

static int open_mounts(struct prepared *p, const struct container_config *config, struct err *err)
{
	const struct oci_spec *s = config->spec;
	bool user = p->user && !config->rootless;

	for (size_t i = 0; i < s->mounts_count; i++) {
		const struct oci_mount *m = &s->mounts[i];

		if (!mount_is_bind(m) || !(user || mount_wants_idmap(m)))
			continue;
		p->mounts[i] = mount_open_source(m, s, err);
		if (p->mounts[i] < 0)
			return p->mounts[i];
	}
	if (user)
		p->rootfs = open_rootfs(config->rootfs, err);
	return user && p->rootfs < 0 ? p->rootfs : 0;
}

int prepared_open(struct prepared *p, const struct container_config *config, struct err *err)
{
	const struct oci_spec *s = config->spec;
	bool new_user = s->namespaces & CLONE_NEWUSER;

	*p = (struct prepared){ .rootfs = -1,
				.user = new_user,
				.helper = s->namespaces & CLONE_NEWTIME,
				.namespaces_count = s->namespace_paths_count,
				.mounts_count = s->mounts_count };
	p->namespaces = descriptors(p->namespaces_count);
	p->mounts = descriptors(p->mounts_count);
	if (!p->namespaces || !p->mounts)
		return err_set(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < s->namespace_paths_count; i++) {
		int flag = s->namespace_paths[i].flag;

		p->namespaces[i] = open_namespace(&s->namespace_paths[i], err);
		if (p->namespaces[i] < 0)
			return p->namespaces[i];
		p->user |= flag == CLONE_NEWUSER;
		p->helper |= flag == CLONE_NEWUSER || flag == CLONE_NEWPID || flag == CLONE_NEWTIME || new_user;
	}
	return open_mounts(p, config, err);
}

/*
 * With the rights of the host those that belong to it, then the user namespace, then those that belong to that. @before_user:
 * the first round, in which what is refused is left for the second.
 */
int namespaces_join(const struct oci_spec *s, const struct prepared *p, bool before_user, struct err *err)
{
	for (size_t i = 0; i < p->namespaces_count; i++) {
		int flag = s->namespace_paths[i].flag;

		if (p->namespaces[i] < 0 || (flag == CLONE_NEWUSER) == before_user)
			continue;
		if (setns(p->namespaces[i], flag) < 0) {
			if (flag != CLONE_NEWUSER && before_user && errno == EPERM)
				continue;
			/* the namespace we are in already */
			if (flag == CLONE_NEWUSER && errno == EINVAL) {
				close_fd(&p->namespaces[i]);
				continue;
			}
			return err_sys(err, errno, "linux.namespaces: cannot join the %s namespace %s", flag_name(flag),
				       s->namespace_paths[i].path);
		}
		close_fd(&p->namespaces[i]);
	}
	if (before_user)
		return 0;
	for (size_t i = 0; i < p->namespaces_count; i++) {
		if (p->namespaces[i] < 0)
			continue;
		if (setns(p->namespaces[i], s->namespace_paths[i].flag) < 0)
			return err_sys(err, errno, "linux.namespaces: cannot join the %s namespace %s",
				       flag_name(s->namespace_paths[i].flag), s->namespace_paths[i].path);
		close_fd(&p->namespaces[i]);
	}
	return 0;
}

int namespaces_time(const struct oci_spec *s, struct err *err)
{
	const struct {
		const char *name;
		const struct oci_time_offset *offset;
	} clocks[] = { { "monotonic", &s->monotonic }, { "boottime", &s->boottime } };

	if (!(s->namespaces & CLONE_NEWTIME))
		return 0;
	if (unshare(CLONE_NEWTIME) < 0)
		return err_sys(err, errno, "cannot make a time namespace");
	for (size_t i = 0; i < ARRAY_LEN(clocks); i++) {
		char line[96];
		int r;

		if (!clocks[i].offset->given)
			continue;
		(void)snprintf(line, sizeof(line), "%s %" PRId64 " %u\n", clocks[i].name, clocks[i].offset->secs,
			       clocks[i].offset->nanosecs);
		r = fd_write_file(AT_FDCWD, "/proc/self/timens_offsets", O_WRONLY, line, strlen(line), err);
		if (r < 0)
			return err_wrap(err, "linux.timeOffsets.%s", clocks[i].name);
	}
	return 0;
}

/* newuidmap(1) and newgidmap(1) write maps of more than the caller's own id, as /etc/subuid allows. */
static int map_by_program(const char *program, pid_t pid, const struct oci_id_map *m, size_t n, struct err *err)
{
	char **args = calloc(n * 3 + 3, sizeof(char *));
	char(*numbers)[16] = calloc(n * 3 + 1, sizeof(*numbers));
	int status = -1;
	pid_t child;

	if (!args || !numbers) {
		free((void *)args);
		free(numbers);
		return err_set(err, ENOMEM, "out of memory");
	}
	args[0] = (char *)(uintptr_t)program;
	(void)snprintf(numbers[0], sizeof(*numbers), "%d", pid);
	args[1] = numbers[0];
	for (size_t i = 0; i < n; i++) {
		const uint32_t values[3] = { m[i].container, m[i].host, m[i].size };

		for (size_t k = 0; k < 3; k++) {
			(void)snprintf(numbers[1 + i * 3 + k], sizeof(*numbers), "%u", values[k]);
			args[2 + i * 3 + k] = numbers[1 + i * 3 + k];
		}
	}
	child = fork();
	if (child == 0) {
		(void)execvp(program, args);
		_exit(127);
	}
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	free((void *)args);
	free(numbers);
	if (child < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return err_set(err, EPERM,
			       "%s could not write the id map (package uidmap, /etc/subuid and /etc/subgid)", program);
	return 0;
}

static int map_by_file(pid_t pid, const char *file, const struct oci_id_map *m, size_t n, struct err *err)
{
	CLEAN_BUF struct buf text = BUF_INIT;
	char path[48];
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = buf_printf(&text, "%u %u %u\n", m[i].container, m[i].host, m[i].size);
	if (r < 0)
		return err_set(err, ENOMEM, "out of memory");
	(void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	return fd_write_file(AT_FDCWD, path, O_WRONLY, buf_bytes(&text), text.len, err);
}

int namespaces_map(pid_t pid, const struct oci_id_map *uid, size_t uids, const struct oci_id_map *gid, size_t gids,
		   struct err *err)
{
	bool single = uids == 1 && gids == 1 && uid->size == 1 && gid->size == 1 && uid->host == geteuid() &&
		      gid->host == getegid();
	char path[48];
	int r;

	if (geteuid() != 0 && !single) {
		r = map_by_program("newgidmap", pid, gid, gids, err);
		return r < 0 ? r : map_by_program("newuidmap", pid, uid, uids, err);
	}
	if (geteuid() != 0) {
		/* without privilege a group map needs this first: user_namespaces(7) */
		(void)snprintf(path, sizeof(path), "/proc/%d/setgroups", pid);
		r = fd_write_file(AT_FDCWD, path, O_WRONLY, "deny", 4, err);
		if (r < 0)
			return r;
	}
	r = map_by_file(pid, "gid_map", gid, gids, err);
	if (r < 0)
		return err_wrap(err, "linux.gidMappings");
	r = map_by_file(pid, "uid_map", uid, uids, err);
	return r < 0 ? err_wrap(err, "linux.uidMappings") : 0;
}

int idmap_open(const struct oci_id_map *uid, size_t uids, const struct oci_id_map *gid, size_t gids, struct err *err)
{
	char path[48];
	int pidfd = -1, fd = -1, r;
	pid_t pid = clone_process(CLONE_NEWUSER, &pidfd, -1);

	if (pid == 0)
		for (;;)
			(void)pause();
	if (pid < 0)
		return err_sys(err, errno, "cannot make a user namespace for an idmapped mount");
	r = namespaces_map(pid, uid, uids, gid, gids, err);
	if (r == 0) {
		(void)snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			r = err_sys(err, errno, "cannot open the user namespace of an idmapped mount");
	}
	process_reap(pid, pidfd);
	close_fd(&pidfd);
	return r < 0 ? r : fd;
}
