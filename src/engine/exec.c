/* SPDX-License-Identifier: Apache-2.0 */
/* Execs: further processes in a running container. Kept in memory until their container is gone. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/container.h"

#define EXEC_KEPT_MS 600000

/* "exec_create: sh -c ls", as Docker's events name it. */
static void exec_action(const struct engine_exec *x, const char *what, struct buf *out)
{
	size_t i;
	json_t *v;

	(void)!buf_puts(out, what);
	json_array_foreach(json_object_get(x->config, "Cmd"), i, v)
		(void)!buf_printf(out, "%s%s", i ? " " : "", json_string_value(v) ?: "");
}

int engine_exec_create(struct engine_container *c, const json_t *body, struct engine_exec **out, struct err *err)
{
	if (c->state == ENGINE_PAUSED)
		return err_set(err, EBUSY, "Container %s is paused, unpause the container before exec", c->id);
	if (c->state != ENGINE_RUNNING)
		return err_set(err, EBUSY, "container %s is not running", c->id);
	const json_t *cmd = json_object_get(body, "Cmd");
	size_t i;
	json_t *v;

	if (!json_array_size(cmd) && !json_string_length(cmd))
		return err_set(err, EINVAL, "No exec command specified");
	json_array_foreach(cmd, i, v)
		if (!json_is_string(v))
			return err_set(err, EINVAL, "Cmd holds something that is not a string");
	struct engine_exec *x = calloc(1, sizeof(*x));
	CLEAN_BUF struct buf action = BUF_INIT;

	if (!x)
		return err_sys(err, ENOMEM, "create an exec");
	engine_random_id(x->id);
	x->engine = c->engine;
	x->container = c;
	x->config = json_deep_copy(body);
	if (json_is_string(cmd)) /* a lone string stands for a list of one */
		(void)json_object_set_new(x->config, "Cmd", json_pack("[O]", cmd));
	x->next = c->engine->execs;
	c->engine->execs = x;
	exec_action(x, "exec_create: ", &action);
	engine_container_event(c, buf_bytes(&action), json_pack("{s:s}", "execID", x->id));
	*out = x;
	return 0;
}

struct engine_exec *engine_exec_find(struct engine *e, const char *id, struct err *err)
{
	for (struct engine_exec *x = e->execs; x; x = x->next)
		if (!strcmp(x->id, id))
			return x;
	(void)err_set(err, ENOENT, "No such exec instance: %s", id);
	return NULL;
}

struct exec_call {
	struct engine *engine;
	char id[65];
	engine_exec_fn done;
	void *arg;
};

static void exec_started(json_t *result, const struct err *err, void *arg)
{
	struct exec_call *call = arg;
	struct engine_exec *x = engine_exec_find(call->engine, call->id, NULL);

	if (x && err) {
		x->running = false;
		x->exit_code = err->code == ENOENT || strstr(err->msg, "not found") ? 127 : 126;
	} else if (x) {
		x->pid = (pid_t)json_int(result, "pid", 0);
	}
	if (call->done)
		call->done(x, err, call->arg);
	free(call);
}

void engine_exec_start(struct engine_exec *x, int sock, const struct buf *early, json_t *console, engine_exec_fn done,
		       void *arg)
{
	struct err err = ERR_INIT;
	struct exec_call *call = NULL;
	bool attached = sock >= 0;

	if (x->started)
		(void)err_set(&err, EBUSY, "exec %s has already run", x->id);
	else if (x->container->state != ENGINE_RUNNING || !x->container->shim)
		(void)err_set(&err, EBUSY, "container %s is not running", x->container->id);
	json_t *process = err.code ? NULL : spec_build_process(x->container, x->config, &err);

	if (!process || !(call = calloc(1, sizeof(*call)))) {
		json_decref(process);
		json_decref(console);
		done(x, &err, arg);
		return;
	}
	call->engine = x->engine;
	(void)strcpy(call->id, x->id);
	call->done = done;
	call->arg = arg;
	x->started = x->running = true;
	json_t *params = json_pack("{s:s, s:o, s:b, s:b, s:b, s:b, s:s, s:o}", "exec_id", x->id, "process", process,
				   "stdin", attached && json_bool(x->config, "AttachStdin", false), "stdout",
				   attached && json_bool(x->config, "AttachStdout", false), "stderr",
				   attached && json_bool(x->config, "AttachStderr", false), "mux",
				   !x->raw && !json_bool(x->config, "Tty", false), "detach_keys",
				   json_str(x->config, "DetachKeys", ""), "console",
				   console ? console : json_pack("{s:i,s:i}", "height", 0, "width", 0));
	CLEAN_BUF struct buf action = BUF_INIT;

	if (early)
		shim_client_put_early(params, early);
	exec_action(x, "exec_start: ", &action);
	engine_container_event(x->container, buf_bytes(&action), json_pack("{s:s}", "execID", x->id));
	shim_client_call(x->container->shim, "exec", params, &sock, attached ? 1 : 0, exec_started, call);
}

json_t *engine_exec_inspect(const struct engine_exec *x)
{
	const json_t *cmd = json_object_get(x->config, "Cmd");
	json_t *arguments = json_array();

	for (size_t i = 1; i < json_array_size(cmd); i++)
		(void)json_array_append(arguments, json_array_get(cmd, i));
	return json_pack(
		"{s:s, s:b, s:o, s:{s:b, s:s, s:o, s:o, s:b}, s:b, s:b, s:b, s:b, s:s, s:s, s:i}", "ID", x->id,
		"Running", x->running, "ExitCode", x->started && !x->running ? json_integer(x->exit_code) : json_null(),
		"ProcessConfig", "tty", json_bool(x->config, "Tty", false), "entrypoint",
		json_string_value(json_array_get(cmd, 0)) ?: "", "arguments", arguments, "user",
		json_string(json_str(x->config, "User", "")), "privileged", json_bool(x->config, "Privileged", false),
		"OpenStdin", json_bool(x->config, "AttachStdin", false), "OpenStderr",
		json_bool(x->config, "AttachStderr", false), "OpenStdout", json_bool(x->config, "AttachStdout", false),
		"CanRemove", false, "ContainerID", x->container->id, "DetachKeys", "", "Pid", (int)x->pid);
}

static void exec_free(struct engine_exec *x)
{
	if (x->expiry)
		loop_cancel(x->expiry);
	json_decref(x->config);
	free(x);
}

void engine_exec_forget(struct engine_exec *x)
{
	struct engine_exec **p = &x->engine->execs;

	while (*p && *p != x)
		p = &(*p)->next;
	if (*p)
		*p = x->next;
	exec_free(x);
}

static void exec_expired(struct loop *l, void *arg)
{
	struct engine_exec *x = arg;

	x->expiry = NULL;
	engine_exec_forget(x);
}

void engine_exec_ended(struct engine *e, const char *exec_id, int exit_code)
{
	struct engine_exec *x = engine_exec_find(e, exec_id, NULL);
	void (*on_end)(struct engine_exec *, void *);
	char code[16];

	if (!x || !x->running)
		return;
	x->running = false;
	x->exit_code = exit_code;
	(void)snprintf(code, sizeof(code), "%d", exit_code);
	engine_container_event(x->container, "exec_die", json_pack("{s:s, s:s}", "execID", x->id, "exitCode", code));
	on_end = take_ptr(x->on_end);
	if (on_end)
		on_end(x, x->on_end_arg);
	/* its exit status can be asked for a while */
	x->expiry = loop_add_timer(e->loop, on_end ? 0 : EXEC_KEPT_MS, exec_expired, x);
}

void engine_exec_drop_all(struct engine_container *c, bool forget)
{
	struct engine_exec **p = &c->engine->execs;

	while (*p) {
		struct engine_exec *x = *p;

		if (x->container == c && x->running) {
			x->running = false;
			x->exit_code = 137;
		}
		if (x->container != c || !forget) {
			p = &x->next;
			continue;
		}
		*p = x->next;
		exec_free(x);
	}
}
