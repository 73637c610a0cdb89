/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walnut-tree VERB ROOT [PATH], started by walnutd; the answer is on standard output.
 *
 *	stat ROOT PATH       one line: {"stat": {...}}
 *	get ROOT PATH        the line, then the archive of PATH
 *	put ROOT PATH OPT    reads an archive from standard input; one line: {}
 *	export ROOT          {}, then the archive of all
 *	changes ROOT         one line: {"changes": [...]}
 *	layer ROOT           writes the writable layer as an image's layer to standard input (a pipe's writing end), then {}
 *
 * ROOT is JSON: {"pid": N} for a container that runs, or {"layers": [EROFS files, lowest first], "upper", "work", "at": an
 * empty folder to mount on} for one that does not. OPT: {"keep_kind": bool, "own": bool, "uid", "gid"}.
 * A failure is a line {"error": {"code": errno, "message"}}; after an archive has begun it is the exit status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "image/layer_mount.h"
#include "tree/tree.h"

#define LAYERS_MAX 128

static int answer(json_t *value)
{
	CLEAN_JSON json_t *owned = value;
	CLEAN_FREE char *text = value ? json_text(value) : NULL;
	CLEAN_BUF struct buf line = BUF_INIT;

	return text && !buf_printf(&line, "%s\n", text) && !fd_write_full(STDOUT_FILENO, buf_bytes(&line), line.len)
		       ? 0
		       : 1;
}

static int answer_error(const struct err *err)
{
	json_t *text = json_string(err->msg);

	(void)answer(json_pack("{s:{s:i, s:o}}", "error", "code", err->code, "message",
			       text ? text : json_string("(a name that is not UTF-8)")));
	return 1;
}

static int private_mounts(struct err *err)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return err_sys(err, errno, "make a mount namespace");
	return 0;
}

/* The layers below @at/N, and all of them (with @upper if there is one) on @at/root. */
static int mount_layers(const json_t *root, bool writable, char path[PATH_MAX], struct err *err)
{
	const json_t *layers = json_object_get(root, "layers");
	const char *at = json_str(root, "at", "");
	char *folders[LAYERS_MAX] = { 0 };
	size_t n = json_array_size(layers);
	int rc = private_mounts(err);

	if (!rc && (!n || n > LAYERS_MAX || !*at))
		rc = err_set(err, EINVAL, "a root has 1 to %d layers", LAYERS_MAX);
	/* a tmpfs of this namespace: nothing is left in the folder */
	if (!rc && mount("tmpfs", at, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700"))
		rc = err_sys(err, errno, "mount on %s", at);
	for (size_t i = 0; i < n && !rc; i++) {
		if (asprintf(&folders[i], "%s/%zu", at, i) < 0) {
			folders[i] = NULL;
			rc = err_sys(err, ENOMEM, "mount the layers");
		}
		if (!rc)
			rc = fd_mkdir_p(folders[i], 0700, err);
		if (!rc)
			rc = layer_mount(json_string_value(json_array_get(layers, i)), folders[i], err);
	}
	(void)snprintf(path, PATH_MAX, "%s/root", at);
	if (!rc)
		rc = fd_mkdir_p(path, 0755, err);
	if (!rc)
		rc = overlay_mount((const char *const *)folders, n, writable ? json_str(root, "upper", NULL) : NULL,
				   writable ? json_str(root, "work", NULL) : NULL, false, path, err);
	for (size_t i = 0; i < n; i++)
		free(folders[i]);
	return rc;
}

/* The running container's root without what is mounted in it: as with Docker, /proc, /dev and tmpfs are out of reach. */
static int open_running(pid_t pid, int *fd, struct err *err)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid);
	CLEAN_FD int ns = open(path, O_RDONLY | O_CLOEXEC);

	if (ns < 0 || setns(ns, CLONE_NEWNS))
		return err_sys(err, errno, "enter the container's mount namespace");
	*fd = (int)syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	return *fd < 0 ? err_sys(err, errno, "open the container's root") : 0;
}

/* What is needed to write files of all owners and kinds, and nothing else. */
static int drop_privileges(struct err *err)
{
	const uint32_t keep = 1U << CAP_CHOWN | 1U << CAP_DAC_OVERRIDE | 1U << CAP_FOWNER | 1U << CAP_FSETID |
			      1U << CAP_MKNOD | 1U << CAP_SETFCAP;
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { .effective = keep, .permitted = keep }, { 0 } };

	for (int i = 0; i < 64; i++)
		if (i > 31 || !(keep >> i & 1))
			(void)prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_capset, &head, data))
		return err_sys(err, errno, "give up privileges");
	return 0;
}

static int enter_root(const json_t *root, struct err *err)
{
	int64_t pid = json_int(root, "pid", 0);
	char path[PATH_MAX];
	CLEAN_FD int fd = -1;
	int rc = pid ? open_running((pid_t)pid, &fd, err) : mount_layers(root, true, path, err);

	if (rc < 0)
		return rc;
	if (!pid) {
		fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			return err_sys(err, errno, "open the container's root");
	}
	if (fchdir(fd) || chroot(".") || chdir("/"))
		return err_sys(err, errno, "enter the container's root");
	(void)umask(0);
	return drop_privileges(err);
}

/* The last part of a path names the archive's first entry: "/a/b" b, "/a/b/." ".", "/" "/" (then "."). */
static const char *entry_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (slash && !slash[1]) { /* "a/": the folder's own name */
		while (slash > path && slash[-1] != '/')
			slash--;
		return *slash == '/' ? "." : slash;
	}
	return slash ? slash + 1 : path;
}

static int do_get(const char *path, struct err *err)
{
	CLEAN_FREE char *name = strdup(entry_name(path));
	json_t *st = tree_stat(path, err);

	if (!st || !name)
		return answer_error(err);
	for (char *p = name; *p; p++)
		if (*p == '/')
			*p = 0;
	if (answer(json_pack("{s:o}", "stat", st)))
		return 1;
	return tree_write_tar(path, name, STDOUT_FILENO, err) < 0;
}

static int do_put(const char *path, const json_t *o, struct err *err)
{
	struct tree_extract_options options = {
		.keep_kind = json_bool(o, "keep_kind", false),
		.own = json_bool(o, "own", false),
		.uid = (uint32_t)json_int(o, "uid", 0),
		.gid = (uint32_t)json_int(o, "gid", 0),
	};
	struct stat st;

	if (stat(path, &st)) {
		(void)err_sys(err, errno, "look at %s", path);
		return answer_error(err);
	}
	if (!S_ISDIR(st.st_mode)) {
		(void)err_set(err, EINVAL, "extraction point is not a directory");
		return answer_error(err);
	}
	CLEAN_FREE char *real = realpath(path, NULL);

	if (tree_extract(STDIN_FILENO, real ? real : path, &options, err) < 0) {
		if (err->code == ENOENT) /* a name of the archive, not the path that was asked for */
			err->code = EIO;
		return answer_error(err);
	}
	return answer(json_object());
}

static int do_changes(const json_t *root, struct err *err)
{
	CLEAN_FD int upper = open(json_str(root, "upper", ""), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	CLEAN_FD int lower = -1;
	char path[PATH_MAX];
	json_t *list = NULL;

	if (upper < 0 && errno == ENOENT)
		return answer(json_pack("{s:[]}", "changes"));
	if (upper < 0)
		(void)err_sys(err, errno, "open the writable layer");
	else if (!mount_layers(root, false, path, err)) {
		lower = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		list = tree_changes(upper, lower, err);
	}
	return list ? answer(json_pack("{s:o}", "changes", list)) : answer_error(err);
}

/* The answer comes after the archive: whoever reads that knows then that it is whole. */
static int do_layer(const json_t *root, struct err *err)
{
	CLEAN_FD int upper = open(json_str(root, "upper", ""), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	CLEAN_FD int lower = -1;
	char path[PATH_MAX];

	if (upper < 0 && errno != ENOENT)
		(void)err_sys(err, errno, "open the writable layer");
	else if (!mount_layers(root, false, path, err)) {
		lower = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (tree_write_layer(upper, lower, STDIN_FILENO, err) == 0)
			return answer(json_object());
	}
	return answer_error(err);
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	const char *verb = argc > 2 ? argv[1] : "", *path = argc > 3 ? argv[3] : "/";
	CLEAN_JSON json_t *root = argc > 2 ? json_parse(argv[2], strlen(argv[2]), "root", &err) : NULL;
	CLEAN_JSON json_t *options = argc > 4 ? json_parse(argv[4], strlen(argv[4]), "options", &err) : NULL;

	if (!root || (argc > 4 && !options)) {
		(void)fprintf(stderr, "usage: walnut-tree VERB ROOT [PATH [OPTIONS]] (started by walnutd)\n");
		return 2;
	}
	if (!strcmp(verb, "changes"))
		return do_changes(root, &err);
	if (!strcmp(verb, "layer"))
		return do_layer(root, &err);
	if (enter_root(root, &err) < 0)
		return answer_error(&err);
	if (!strcmp(verb, "stat")) {
		json_t *st = tree_stat(path, &err);

		return st ? answer(json_pack("{s:o}", "stat", st)) : answer_error(&err);
	}
	if (!strcmp(verb, "get"))
		return do_get(path, &err);
	if (!strcmp(verb, "put"))
		return do_put(path, options, &err);
	if (!strcmp(verb, "export"))
		return answer(json_object()) || tree_write_tar("/", "", STDOUT_FILENO, &err) < 0;
	(void)err_set(&err, EINVAL, "walnut-tree does not know %.40s", verb);
	return answer_error(&err);
}
