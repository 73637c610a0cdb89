/* SPDX-License-Identifier: Apache-2.0 */
/* A container's files for clients: walnut-tree is started, its first line read; what follows is the caller's. */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "engine/container_internal.h"

#define HEAD_MAX (64U << 20) /* the list of changes of a large layer is one line */

struct engine_tree {
	struct loop *loop;
	struct loop_source *source;
	pid_t pid;
	int out; /* its standard output */
	struct buf head;
	engine_tree_fn fn;
	void *arg;
};

struct tree_reaper {
	pid_t pid;
	int tries;
};

static void tree_reap(struct loop *l, void *arg)
{
	struct tree_reaper *r = arg;

	if (waitpid(r->pid, NULL, WNOHANG) || ++r->tries > 3000 ||
	    !loop_add_timer(l, r->tries < 50 ? 20 : 1000, tree_reap, r))
		free(r);
}

static void tree_free(struct engine_tree *t)
{
	struct tree_reaper *r = calloc(1, sizeof(*r));

	loop_remove(t->source);
	close_fd(&t->out);
	buf_free(&t->head);
	if (r) {
		r->pid = t->pid;
		tree_reap(t->loop, r);
	}
	free(t);
}

void engine_tree_cancel(struct engine_tree *t)
{
	(void)kill(t->pid, SIGKILL);
	tree_free(t);
}

/* The first line is whole, or will never be. */
static void tree_tell(struct engine_tree *t, size_t len)
{
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *head = len ? json_parse(buf_bytes(&t->head), len, "walnut-tree's answer", &err) : NULL;
	const json_t *failure = json_object_get(head, "error");
	CLEAN_FD int out = take_fd(&t->out);
	engine_tree_fn fn = t->fn;
	void *arg = t->arg;
	CLEAN_BUF struct buf more = t->head;

	loop_remove(take_ptr(t->source));
	t->head = BUF_INIT;
	if (failure)
		(void)err_set(&err, (int)json_int(failure, "code", EIO), "%s", json_str(failure, "message", "?"));
	else if (!head)
		(void)err_set(&err, EIO, "walnut-tree, which reads the container's files, ended unexpectedly");
	buf_consume(&more, len < more.len ? len + 1 : more.len);
	tree_free(t);
	fn(err.code ? NULL : head, err.code ? &err : NULL, out, &more, arg);
}

static void tree_readable(struct loop *l, int fd, uint32_t events, void *arg)
{
	struct engine_tree *t = arg;
	ssize_t n = buf_read(&t->head, fd, 65536);
	const char *end;

	if (n == -EAGAIN || n == -EINTR)
		return;
	end = n > 0 ? memchr(buf_bytes(&t->head), '\n', t->head.len) : NULL;
	if (n > 0 && !end && t->head.len < HEAD_MAX)
		return;
	tree_tell(t, end ? (size_t)(end - buf_bytes(&t->head)) : 0);
}

static json_t *tree_root(struct engine_container *c, struct err *err)
{
	char path[PATH_MAX];
	json_t *root, *layers;

	if (container_live(c))
		return json_pack("{s:i, s:[], s:s+, s:s+}", "pid", (int)c->pid, "layers", "upper", c->data_dir,
				 "/upper", "at", c->run_dir, "/tree");
	layers = container_layers(c, err);
	if (!layers || container_prepare(c, err)) {
		json_decref(layers);
		return NULL;
	}
	root = json_pack("{s:o, s:s+, s:s+, s:s+}", "layers", layers, "upper", c->data_dir, "/upper", "work",
			 c->data_dir, "/work", "at", c->run_dir, "/tree");
	(void)snprintf(path, sizeof(path), "%s/tree", c->run_dir);
	if (fd_mkdir_p(path, 0700, err)) {
		json_decref(root);
		return NULL;
	}
	return root;
}

/* "changes" and "layer" compare files of the host, whether the container runs or not. */
static json_t *changes_root(struct engine_container *c, struct err *err)
{
	char path[PATH_MAX];
	json_t *layers = container_layers(c, err);

	(void)snprintf(path, sizeof(path), "%s/tree", c->run_dir);
	if (!layers || fd_mkdir_p(path, 0700, err)) {
		json_decref(layers);
		return NULL;
	}
	return json_pack("{s:o, s:s+, s:s}", "layers", layers, "upper", c->data_dir, "/upper", "at", path);
}

struct engine_tree *engine_tree_start(struct engine_container *c, const char *verb, const char *path,
				      const json_t *options, int in, engine_tree_fn fn, void *arg, struct err *err)
{
	CLEAN_FREE char *program = engine_find_program(c->engine, "walnut-tree");
	CLEAN_FREE char *option_text = options ? json_text(options) : NULL;
	CLEAN_FREE char *root_text = NULL;
	CLEAN_JSON json_t *root = NULL;
	CLEAN_FD int theirs = -1;
	struct engine_tree *t;
	int p[2];

	if (c->isolation == ENGINE_ISOLATION_HYPERV) {
		(void)err_set(
			err, ENOSYS,
			"the files of a hyperv container can not be reached by cp, export and diff in this version of "
			"Walnut: the host never reads a disk that a guest wrote; use docker exec with tar");
		return NULL;
	}
	if (!program) {
		(void)err_set(err, EIO, "walnut-tree is not installed: it is looked for beside walnutd and in PATH");
		return NULL;
	}
	root = strcmp(verb, "changes") && strcmp(verb, "layer") ? tree_root(c, err) : changes_root(c, err);
	root_text = root ? json_text(root) : NULL;
	t = root_text ? calloc(1, sizeof(*t)) : NULL;
	if (!t || pipe2(p, O_CLOEXEC)) {
		free(t);
		if (!err->code)
			(void)err_sys(err, errno, "start walnut-tree");
		return NULL;
	}
	theirs = p[1];
	*t = (struct engine_tree){ .loop = c->engine->loop, .out = p[0], .fn = fn, .arg = arg };
	t->pid = fork();
	if (!t->pid) {
		(void)signal(SIGPIPE, SIG_DFL);
		(void)dup2(theirs, STDOUT_FILENO);
		if (in >= 0)
			(void)dup2(in, STDIN_FILENO);
		(void)execl(program, "walnut-tree", verb, root_text, path, option_text, (char *)NULL);
		_exit(127);
	}
	if (t->pid > 0 && !fd_set_nonblock(t->out, true))
		t->source = loop_add_fd(t->loop, t->out, EPOLLIN, tree_readable, t, err);
	if (t->source)
		return t;
	if (!err->code)
		(void)err_sys(err, errno, "start walnut-tree");
	if (t->pid > 0)
		(void)kill(t->pid, SIGKILL);
	tree_free(t);
	return NULL;
}
