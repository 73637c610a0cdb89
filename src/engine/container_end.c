/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a run, as the shim tells it, and the restart policy. */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "container/cgroup.h"
#include "engine/container_internal.h"
#include "engine/network.h"
#include "engine/mounts.h"

static void container_restart_now(struct loop *l, void *arg)
{
	struct engine_container *c = arg;

	c->restart_timer = NULL;
	c->restart_count++;
	engine_container_start(c, NULL, NULL);
}

static bool container_should_restart(const struct engine_container *c)
{
	const json_t *policy = json_object_get(c->host_config, "RestartPolicy");
	const char *name = json_str(policy, "Name", "no");
	int64_t most = json_int(policy, "MaximumRetryCount", 0);

	if (c->manual_stop || c->removing)
		return false;
	if (!strcmp(name, "always") || !strcmp(name, "unless-stopped"))
		return true;
	return !strcmp(name, "on-failure") && c->exit_code && (!most || c->restart_count < most);
}

void container_ended(struct engine_container *c, const json_t *exit)
{
	char code[16];

	if (!container_live(c) && !c->starting)
		return;
	c->exit_code = (int)json_int(exit, "exit_code", 137);
	c->oom_killed = json_bool(exit, "oom_killed", false);
	c->finished_ns = json_int(exit, "finished_at_ns", engine_now_ns());
	(void)snprintf(c->error, sizeof(c->error), "%s", json_str(exit, "error", ""));
	c->pid = 0;
	if (!container_live(c))
		container_move(c, ENGINE_RUNNING);
	container_move(c, ENGINE_EXITED);
	endpoints_close(c);
	health_stop(c);
	engine_exec_drop_all(c, false);
	container_release_shim(c);
	mounts_event(c, "unmount");
	(void)snprintf(code, sizeof(code), "%d", c->exit_code);
	engine_container_event(c, "die", json_pack("{s:s}", "exitCode", code));
	if (container_should_restart(c)) {
		/* 100 ms, doubled up to a minute; from the beginning after ten seconds of running */
		if (c->finished_ns - c->started_ns > 10000000000LL || !c->restart_delay_ms)
			c->restart_delay_ms = 100;
		else
			c->restart_delay_ms = c->restart_delay_ms * 2 > 60000 ? 60000 : c->restart_delay_ms * 2;
		c->state = ENGINE_RESTARTING;
		c->restart_timer = loop_add_timer(c->engine->loop, c->restart_delay_ms, container_restart_now, c);
	}
	engine_container_save(c);
	container_fire(c, false);
	container_maybe_remove(c);
}

void engine_container_on_shim_event(struct engine_container *c, const char *event, const json_t *params)
{
	if (!strcmp(event, "exited"))
		container_ended(c, params);
	else if (!strcmp(event, "exec_exited"))
		engine_exec_ended(c->engine, json_str(params, "exec_id", ""), (int)json_int(params, "exit_code", 0));
	else if (!strcmp(event, "oom"))
		engine_container_event(c, "oom", NULL);
	else if (!strcmp(event, "detached") && !json_str(params, "exec_id", NULL))
		engine_container_event(c, "detach", NULL);
}

/* A shim that was killed has freed nothing: what still runs is found by its cgroup, and ends; mounts went with the shim. */
static void container_free_leftovers(const struct engine_container *c)
{
	struct cgroup *cgroup = NULL;
	struct err err = ERR_INIT;
	char path[80];
	const struct cgroup_config config = { .path = path };

	(void)snprintf(path, sizeof(path), "/walnut/%s", c->id);
	if (cgroup_create(&cgroup, &config, &err) < 0)
		log_warn("container %.12s: %s", c->id, err.msg);
	else
		cgroup_free(cgroup);
}

void engine_container_on_shim_gone(struct engine_container *c)
{
	char path[PATH_MAX];
	size_t n;

	(void)snprintf(path, sizeof(path), "%s/exit.json", c->data_dir);
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, path, 65536, &n, NULL);
	CLEAN_JSON json_t *exit = text ? json_parse(text, n, "exit.json", NULL) : NULL;

	if (!exit)
		container_free_leftovers(c);
	if (!container_live(c))
		return;
	if (!exit)
		exit = json_pack("{s:i, s:s}", "exit_code", 137, "error", "the container's shim ended unexpectedly");
	container_ended(c, exit);
}
