/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state folder of a container, ROOT/ID: "state.json" (what a later command needs), "config.json" (a copy,
 * because changes to the bundle's must not count after create) and, until the container is started,
 * "start.sock". The folder itself is the lock (flock). Whether the container runs is never written down
 * but looked up, so it can not be wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "container/seccomp_filter.h"
#include "container/seccomp_notify.h"
#include "oci/parse.h"
#include "runtime/runtime.h"

#define CONFIG_MAX (16U << 20)

static int check_id(const char *id, struct err *err)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.";

	if (!*id)
		return err_set(err, EINVAL, "invalid container ID: it is empty");
	if (strlen(id) > 255 || strspn(id, allowed) != strlen(id) || *id == '.')
		return err_set(
			err, EINVAL,
			"invalid container ID format: '%.64s' (letters, digits, '_', '+', '-' and '.' are allowed, "
			"not '.' first, at most 255)",
			id);
	return 0;
}

static int open_root(const struct runtime_options *o, bool make, struct err *err)
{
	int fd = open(o->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0 && errno == ENOENT && make) {
		r = fd_mkdir_p(o->root, 0711, err);
		if (r < 0)
			return r;
		fd = open(o->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	return fd < 0 ? err_sys(err, errno, "cannot open the state folder %s", o->root) : fd;
}

static int lock_folder(struct state *s, struct err *err)
{
	struct stat st;

	while (flock(s->dir, LOCK_EX) < 0)
		if (errno != EINTR)
			return err_sys(err, errno, "cannot lock the state of container %s", s->id);
	if (fstat(s->dir, &st) < 0 || st.st_nlink == 0)
		return err_set(err, ENOENT, "container does not exist: %s", s->id);
	return 0;
}

void state_close(struct state *s)
{
	json_decref(s->json);
	json_decref(s->cgroup);
	s->json = s->cgroup = NULL;
	close_fd(&s->dir);
	close_fd(&s->root);
	free(take_ptr(s->bundle));
	free(take_ptr(s->rootfs));
	free(take_ptr(s->cgroup_path));
}

static int prepare(struct state *s, const struct runtime_options *o, const char *id, bool make, struct err *err)
{
	int r = check_id(id, err);

	*s = (struct state){ .dir = -1, .root = -1 };
	if (r < 0)
		return r;
	(void)snprintf(s->id, sizeof(s->id), "%s", id);
	s->root = open_root(o, make, make ? err : NULL);
	if (s->root < 0 && !make)
		return err_set(err, ENOENT, "container does not exist: %s", id);
	return s->root < 0 ? s->root : 0;
}

int state_new(struct state *s, const struct runtime_options *o, const char *id, struct err *err)
{
	int r = prepare(s, o, id, true, err);

	if (r < 0)
		return r;
	s->manager = o->manager;
	if (mkdirat(s->root, id, 0711) < 0)
		return errno == EEXIST ? err_set(err, EEXIST, "container with given ID already exists: %s", id)
				       : err_sys(err, errno, "cannot make the state folder of container %s", id);
	s->dir = openat(s->root, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (s->dir < 0) {
		r = err_sys(err, errno, "cannot open the state folder of container %s", id);
		(void)unlinkat(s->root, id, AT_REMOVEDIR);
		return r;
	}
	return lock_folder(s, err);
}

static const char *const managers[] = { "cgroupfs", "systemd", "disabled" };

int state_save(struct state *s, const struct oci_spec *spec, struct err *err)
{
	char created[64], day[32];
	struct timespec now;
	struct tm tm;
	CLEAN_FREE char *text = NULL;
	int r;

	if (clock_gettime(CLOCK_REALTIME, &now) < 0 || !gmtime_r(&now.tv_sec, &tm) ||
	    !strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm))
		return err_sys(err, errno, "cannot read the time");
	(void)snprintf(created, sizeof(created), "%s.%09ldZ", day, now.tv_nsec);
	s->has_poststart = spec->hooks.kinds[OCI_HOOK_POSTSTART].count;
	s->has_poststop = spec->hooks.kinds[OCI_HOOK_POSTSTOP].count;
	json_decref(s->json);
	s->json = json_pack("{s:s, s:s, s:I, s:I, s:s, s:s, s:s, s:s?, s:s, s:b, s:b, s:I, s:O?, s:O?}", "ociVersion",
			    spec->oci_version, "id", s->id, "pid", (json_int_t)s->pid, "startTime",
			    (json_int_t)s->start_time, "bundle", s->bundle, "rootfs", s->rootfs, "created", created,
			    "cgroupPath", s->cgroup_path, "cgroupManager", managers[s->manager], "poststart",
			    s->has_poststart, "poststop", s->has_poststop, "uid", (json_int_t)geteuid(), "annotations",
			    spec->annotations, "cgroup", s->cgroup);
	text = s->json ? json_text(s->json) : NULL;
	if (!text)
		return err_set(err, ENOMEM, "out of memory while writing the state of container %s", s->id);
	/* not fd_replace_file: the root is a tmpfs, which does not survive what fsync is for */
	r = fd_write_file(s->dir, "state.json.new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, text, strlen(text), err);
	if (r < 0)
		return r;
	if (renameat(s->dir, "state.json.new", s->dir, "state.json") < 0)
		return err_sys(err, errno, "cannot write the state of container %s", s->id);
	return 0;
}

static int take_document(struct state *s, struct err *err)
{
	const char *manager = json_str(s->json, "cgroupManager", "cgroupfs"), *bundle, *rootfs, *path;

	bundle = json_str(s->json, "bundle", NULL);
	rootfs = json_str(s->json, "rootfs", NULL);
	path = json_str(s->json, "cgroupPath", NULL);
	s->cgroup = json_incref(json_object_get(s->json, "cgroup"));
	s->pid = (pid_t)json_int(s->json, "pid", 0);
	s->start_time = (uint64_t)json_int(s->json, "startTime", 0);
	s->has_poststart = json_bool(s->json, "poststart", false);
	s->has_poststop = json_bool(s->json, "poststop", false);
	for (size_t i = 0; i < ARRAY_LEN(managers); i++)
		if (strcmp(manager, managers[i]) == 0)
			s->manager = (enum runtime_cgroup_manager)i;
	if (!bundle || !rootfs || s->pid <= 0)
		return err_set(err, EINVAL, "the state of container %s is damaged; delete --force removes it", s->id);
	s->bundle = strdup(bundle);
	s->rootfs = strdup(rootfs);
	s->cgroup_path = path ? strdup(path) : NULL;
	return s->bundle && s->rootfs && (s->cgroup_path || !path) ? 0 : err_set(err, ENOMEM, "out of memory");
}

int state_open(struct state *s, const struct runtime_options *o, const char *id, struct err *err)
{
	CLEAN_FREE char *text = NULL;
	size_t len;
	int r = prepare(s, o, id, false, err);

	if (r < 0)
		return r;
	s->dir = openat(s->root, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (s->dir < 0)
		return errno == ENOENT ? err_set(err, ENOENT, "container does not exist: %s", id)
				       : err_sys(err, errno, "cannot open the state of container %s", id);
	r = lock_folder(s, err);
	if (r < 0)
		return r;
	text = fd_read_file(s->dir, "state.json", CONFIG_MAX, &len, err);
	if (!text)
		return err_wrap(err, "container %s was not created completely (delete --force removes it)", id);
	s->json = json_parse(text, len, "state.json", err);
	return s->json ? take_document(s, err) : -err->code;
}

int state_remove(struct state *s, struct err *err)
{
	return fd_remove_tree(s->root, s->id, err);
}

bool process_start_time(pid_t pid, uint64_t *ticks)
{
	char path[32], text[1024], *at;
	CLEAN_FD int fd = -1;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = 0;
	/* the name in brackets may hold anything: the fields begin after the last bracket */
	at = strrchr(text, ')');
	if (!at || !at[1] || !at[2] || strchr("ZXx", at[2]))
		return false;
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	if (!at)
		return false;
	*ticks = strtoull(at + 1, NULL, 10);
	return true;
}

enum state_status state_status(const struct state *s)
{
	struct container_config config;
	uint64_t ticks = 0;
	bool paused = false;

	if (!s->pid)
		return STATE_CREATING;
	if (!process_start_time(s->pid, &ticks) || ticks != s->start_time)
		return STATE_STOPPED;
	if (faccessat(s->dir, START_SOCKET, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return STATE_CREATED;
	state_config(s, NULL, &config);
	if (s->manager != RUNTIME_CGROUP_DISABLED && container_is_paused(&config, &paused, NULL) < 0)
		paused = false;
	return paused ? STATE_PAUSED : STATE_RUNNING;
}

const char *state_status_name(enum state_status status)
{
	static const char *const names[] = { "creating", "created", "running", "paused", "stopped" };

	return names[status];
}

json_t *state_document(const struct state *s)
{
	enum state_status status = state_status(s);
	json_t *annotations = json_object_get(s->json, "annotations");

	return json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:O*, s:s}", "ociVersion",
			 json_str(s->json, "ociVersion", ""), "id", s->id, "pid",
			 (json_int_t)(status == STATE_STOPPED ? 0 : s->pid), "status", state_status_name(status),
			 "bundle", s->bundle, "rootfs", s->rootfs, "created", json_str(s->json, "created", ""),
			 "annotations", json_is_object(annotations) ? annotations : NULL, "owner", "");
}

void state_config(const struct state *s, const struct oci_spec *spec, struct container_config *config)
{
	*config = (struct container_config){ .id = s->id,
					     .spec = spec,
					     .rootfs = s->rootfs,
					     .bundle = s->bundle,
					     .cgroup_path = s->cgroup_path,
					     .cgroup_saved = json_is_object(s->cgroup) ? s->cgroup : NULL,
					     .rootless = geteuid() != 0,
					     .check_program = true,
					     .cgroup_systemd = s->manager == RUNTIME_SYSTEMD,
					     .cgroup_disabled = s->manager == RUNTIME_CGROUP_DISABLED,
					     .stdio = { 0, 1, 2 } };
}

static int parse_config(const char *text, size_t len, struct oci_spec **out, struct err *err)
{
	CLEAN_JSON json_t *json = oci_json_parse(text, len, "config.json", err);

	return json ? oci_spec_parse(json, out, err) : -err->code;
}

int config_read(const char *file, struct oci_spec **out, char **text, size_t *len, struct err *err)
{
	CLEAN_FREE char *bytes = fd_read_file(AT_FDCWD, file, CONFIG_MAX, len, err);
	int r;

	if (!bytes)
		return -err->code;
	r = parse_config(bytes, *len, out, err);
	if (r == 0 && text)
		*text = take_ptr(bytes);
	return r;
}

int state_spec(const struct state *s, struct oci_spec **out, struct err *err)
{
	size_t len;
	CLEAN_FREE char *text = fd_read_file(s->dir, "config.json", CONFIG_MAX, &len, err);

	return text ? parse_config(text, len, out, err) : -err->code;
}

int seccomp_prepare(const char *root, const struct oci_seccomp *s, struct container_config *config, void **bpf,
		    struct err *err)
{
	char cache[PATH_MAX];
	int r;

	if (!s)
		return 0;
	if (s->notifies && (r = seccomp_notify_connect(s, config, err)) < 0)
		return r;
	(void)snprintf(cache, sizeof(cache), "%s/.seccomp", root);
	r = seccomp_filter_compile(s, cache, bpf, &config->seccomp_bpf_size, err);
	config->seccomp_bpf = *bpf;
	config->seccomp_flags = s->flags;
	return r;
}
