/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of the running container: exec, the terminal's size, pause, limits, and what it uses. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "shim/hyperv.h"

void hyperv_send_size(struct shim *sh, const char *exec_id, const json_t *console)
{
	int64_t height = json_int(console, "height", 0), width = json_int(console, "width", 0);
	json_t *params;

	if (height < 1 || width < 1)
		return;
	params = json_pack("{s:I, s:I}", "height", (json_int_t)height, "width", (json_int_t)width);
	if (params && exec_id)
		(void)json_object_set_new(params, "exec_id", json_string(exec_id));
	hyperv_call(sh, "resize", params, NULL, NULL, NULL);
}

/* An exec that waits for its answer keeps its streams here, behind its session. */
struct exec_wait {
	struct hyperv_streams streams;
	json_t *console;
};

static void exec_done(struct shim *sh, struct hyperv_pending *p, const json_t *result, const struct err *failure)
{
	struct hyperv *h = sh->backend_data;
	struct session *s = sh->execs;
	struct err err = ERR_INIT;
	struct exec_wait *w;
	pid_t pid = 0;

	while (s && strcmp(s->exec_id, p->exec_id) != 0)
		s = s->next;
	if (!s)
		return;
	hyperv_accept(sh);
	w = s->backend_data;
	s->backend_data = NULL;
	if (failure)
		err = *failure;
	else if (!link_pid_parse(result, &pid, &err))
		(void)!hyperv_streams_connect(h, s, &w->streams, &err);
	if (err.code) {
		session_return_clients(s);
		control_fail(p->reply, &err);
	} else {
		s->pid = pid;
		control_reply(p->reply, json_pack("{s:i}", "pid", (int)pid));
		if (s->tty)
			hyperv_send_size(sh, s->exec_id, w->console);
		(void)!session_begin(s, &err);
	}
	p->reply = NULL;
	json_decref(w->console);
	free(w);
}

void hyperv_exec(struct shim *sh, struct session *s, const json_t *params, struct shim_reply *r)
{
	struct hyperv *h = sh->backend_data;
	struct exec_wait *w = calloc(1, sizeof(*w));
	json_t *process = json_object_get(params, "process"), *streams = NULL;
	struct err err = ERR_INIT;

	if (!w)
		(void)err_sys(&err, ENOMEM, "exec");
	else
		streams = hyperv_streams_make(h, &w->streams, json_bool(process, "terminal", false),
					      json_bool(params, "stdin", false), &err);
	if (!streams || !process) {
		if (!err.code)
			(void)err_set(&err, EINVAL, "exec: the process is missing");
		json_decref(streams);
		free(w);
		session_return_clients(s);
		control_fail(r, &err);
		return;
	}
	w->console = json_incref(json_object_get(params, "console"));
	s->backend_data = w;
	hyperv_call(sh, "exec",
		    json_pack("{s:s, s:O, s:o}", "exec_id", s->exec_id, "process", process, "streams", streams), r,
		    s->exec_id, exec_done);
}

static json_t *with_exec(const struct session *s, json_t *params)
{
	if (params && s->exec_id)
		(void)json_object_set_new(params, "exec_id", json_string(s->exec_id));
	return params;
}

void hyperv_resize(struct shim *sh, struct session *s, unsigned height, unsigned width, struct shim_reply *r)
{
	hyperv_call(sh, "resize", with_exec(s, json_pack("{s:i, s:i}", "height", (int)height, "width", (int)width)), r,
		    NULL, NULL);
}

static void paused(struct shim *sh, struct hyperv_pending *p, const json_t *result, const struct err *failure)
{
	struct hyperv *h = sh->backend_data;

	if (failure)
		control_fail(p->reply, failure);
	else
		control_reply(p->reply, NULL);
	p->reply = NULL;
	h->paused = !failure && !h->over;
}

/* The container is frozen in its guest, so it is frozen whoever is looked after there; then the processors rest too. */
void hyperv_pause(struct shim *sh, bool pause, struct shim_reply *r)
{
	struct hyperv *h = sh->backend_data;

	if (!pause && h->paused) {
		h->paused = false;
		hyperv_rest(h, false);
	}
	hyperv_call(sh, pause ? "pause" : "resume", NULL, r, NULL, pause ? paused : NULL);
}

static void stats_done(struct shim *sh, struct hyperv_pending *p, const json_t *result, const struct err *failure)
{
	struct link_stats stats;
	struct err err = ERR_INIT;

	if (failure || link_stats_parse(result, &stats, &err) < 0)
		control_fail(p->reply, failure ? failure : &err);
	else
		control_reply(p->reply, json_deep_copy(result));
	p->reply = NULL;
}

static void pids_done(struct shim *sh, struct hyperv_pending *p, const json_t *result, const struct err *failure)
{
	CLEAN_JSON json_t *processes = NULL;
	CLEAN_FREE pid_t *pids = NULL;
	struct err err = ERR_INIT;
	size_t n;

	if (!failure && !link_pids_parse(result, &pids, &n, &err))
		processes = link_processes_copy(result, &err);
	if (!processes)
		control_fail(p->reply, failure ? failure : &err);
	else
		control_reply(p->reply, json_pack("{s:o, s:O}", "pids", json_deep_copy(json_object_get(result, "pids")),
						  "processes", processes));
	p->reply = NULL;
}

void hyperv_stats(struct shim *sh, struct shim_reply *r)
{
	hyperv_call(sh, "stats", NULL, r, NULL, stats_done);
}

void hyperv_pids(struct shim *sh, struct shim_reply *r)
{
	hyperv_call(sh, "pids", NULL, r, NULL, pids_done);
}

/* The guest has its own processors: those of the host are chosen for the machine (hyperv_machine.c). */
json_t *hyperv_guest_resources(const json_t *resources)
{
	json_t *copy = json_deep_copy(resources), *cpu = json_object_get(copy, "cpu");

	(void)json_object_del(cpu, "cpus");
	(void)json_object_del(cpu, "mems");
	return copy;
}

void hyperv_update(struct shim *sh, const json_t *params, struct shim_reply *r)
{
	const json_t *resources = json_object_get(params, "resources");
	struct err err = ERR_INIT;

	if (!resources)
		(void)err_set(&err, EINVAL, "update: the resources are missing");
	else
		(void)!hyperv_update_machine(sh->backend_data, resources, &err);
	if (err.code)
		control_fail(r, &err);
	else
		hyperv_call(sh, "update", json_pack("{s:o}", "resources", hyperv_guest_resources(resources)), r, NULL,
			    NULL);
}
