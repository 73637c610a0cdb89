/* SPDX-License-Identifier: Apache-2.0 */
/* A container's state machine, its record in the database, who waits for it, and its adoption after a restart of the engine. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container_internal.h"
#include "engine/network.h"
#include "engine/mounts.h"

#define KILL_WAIT_MS 10000
#define SCRATCH_SIZE (20LL << 30)

static const char *const state_names[ENGINE_STATES] = { "created",  "running", "paused", "restarting",
							"removing", "exited",  "dead" };
/* Allowed moves: bit N of row M is M -> N. */
#define TO(s) (1U << ENGINE_##s)
static const unsigned state_moves[ENGINE_STATES] = {
	[ENGINE_CREATED] = TO(RUNNING) | TO(REMOVING) | TO(EXITED) | TO(CREATED),
	[ENGINE_RUNNING] = TO(PAUSED) | TO(EXITED) | TO(RESTARTING),
	[ENGINE_PAUSED] = TO(RUNNING) | TO(EXITED) | TO(RESTARTING),
	[ENGINE_RESTARTING] = TO(RUNNING) | TO(EXITED),
	[ENGINE_REMOVING] = TO(DEAD),
	[ENGINE_EXITED] = TO(RUNNING) | TO(REMOVING) | TO(EXITED) | TO(CREATED),
	[ENGINE_DEAD] = TO(REMOVING),
};

const char *engine_state_name(enum engine_state s)
{
	return state_names[s];
}

void container_move(struct engine_container *c, enum engine_state to)
{
	bug_on(!(state_moves[c->state] & (1U << to)));
	c->state = to;
}

bool container_live(const struct engine_container *c)
{
	return c->state == ENGINE_RUNNING || c->state == ENGINE_PAUSED;
}

struct engine_container *engine_container_find(struct engine *e, const char *ref, struct err *err)
{
	struct engine_container *found = NULL;
	const char *name = *ref == '/' ? ref + 1 : ref;
	size_t n = strlen(ref);

	for (struct engine_container *c = e->containers; c; c = c->next)
		if (!strcmp(c->id, ref) || !strcmp(c->name, name))
			return c;
	for (struct engine_container *c = e->containers; n && c; c = c->next) {
		if (strncmp(c->id, ref, n))
			continue;
		if (found) {
			(void)err_set(err, EINVAL, "multiple IDs found with provided prefix: %s", ref);
			return NULL;
		}
		found = c;
	}
	if (!found)
		(void)err_set(err, ENOENT, "No such container: %s", ref);
	return found;
}

void engine_container_event(struct engine_container *c, const char *action, json_t *more)
{
	json_t *attributes = json_object();
	json_t *labels = json_object_get(c->config, "Labels");

	if (json_is_object(labels))
		(void)json_object_update(attributes, labels);
	(void)json_object_set_new(attributes, "image", json_string(json_str(c->config, "Image", "")));
	(void)json_object_set_new(attributes, "name", json_string(c->name));
	if (more)
		(void)json_object_update(attributes, more);
	json_decref(more);
	events_emit(c->engine, "container", action, c->id, attributes);
}

void engine_container_save(struct engine_container *c)
{
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *config =
		json_pack("{s:O, s:O, s:s, s:I, s:O?}", "Config", c->config, "HostConfig", c->host_config, "ImageID",
			  c->image_id, "Created", (json_int_t)c->created_ns, "Mounts", c->mounts);
	CLEAN_JSON json_t *state = json_pack(
		"{s:s, s:I, s:I, s:i, s:i, s:b, s:s, s:i, s:b, s:O?, s:o}", "Status", state_names[c->state],
		"StartedAt", (json_int_t)c->started_ns, "FinishedAt", (json_int_t)c->finished_ns, "Pid", (int)c->pid,
		"ExitCode", c->exit_code, "OOMKilled", c->oom_killed, "Error", c->error, "RestartCount",
		c->restart_count, "ManualStop", c->manual_stop, "Endpoints", c->endpoints, "Ports", publish_save(c));

	if (db_put_container(c->engine, c->id, c->name, config, state, &err))
		log_error("container %.12s: %s", c->id, err.msg);
}

int container_paths(struct engine_container *c)
{
	struct engine *e = c->engine;

	if (asprintf(&c->data_dir, "%s/containers/%s", e->config.data_root, c->id) < 0 ||
	    asprintf(&c->run_dir, "%s/containers/%s", e->config.exec_root, c->id) < 0 ||
	    asprintf(&c->log_path, "%s/%s-json.log", c->data_dir, c->id) < 0)
		return -ENOMEM;
	return 0;
}

void engine_container_free(struct engine_container *c)
{
	health_free(c);
	engine_exec_drop_all(c, true);
	shim_client_free(c->shim);
	if (c->restart_timer)
		loop_cancel(c->restart_timer);
	while (c->waiters) {
		struct engine_waiter *w = c->waiters;

		c->waiters = w->next;
		free(w);
	}
	json_decref(c->config);
	json_decref(c->host_config);
	json_decref(c->endpoints);
	publish_forget(c);
	json_decref(c->mounts);
	free(c->name);
	free(c->image_id);
	free(c->data_dir);
	free(c->run_dir);
	free(c->log_path);
	free(c);
}

/* ---- waiting ---- */

struct engine_waiter *engine_container_wait(struct engine_container *c, enum engine_wait condition, engine_wait_fn fn,
					    void *arg)
{
	if (condition == ENGINE_WAIT_NOT_RUNNING && !container_live(c) && !c->starting &&
	    c->state != ENGINE_RESTARTING) {
		fn(c->exit_code, c->error, arg);
		return NULL;
	}
	struct engine_waiter *w = calloc(1, sizeof(*w));

	if (!w) {
		fn(c->exit_code, "out of memory", arg);
		return NULL;
	}
	*w = (struct engine_waiter){ .next = c->waiters, .condition = condition, .fn = fn, .arg = arg };
	c->waiters = w;
	return w;
}

void engine_container_unwait(struct engine_container *c, struct engine_waiter *w)
{
	for (struct engine_waiter **p = &c->waiters; *p; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			free(w);
			return;
		}
}

void container_fire(struct engine_container *c, bool removed)
{
	struct engine_waiter *fire = NULL, **p = &c->waiters;

	while (*p) {
		struct engine_waiter *w = *p;

		if (!removed && w->condition == ENGINE_WAIT_REMOVED) {
			p = &w->next;
			continue;
		}
		*p = w->next;
		w->next = fire;
		fire = w;
	}
	while (fire) {
		struct engine_waiter *w = fire;

		fire = w->next;
		w->fn(c->exit_code, "", w->arg); /* why is in inspect, and in start's answer */
		free(w);
	}
}

/* ---- after a restart of the engine ---- */

static void adopt_hello(json_t *result, const struct err *err, void *arg)
{
	struct engine_container *c = arg;

	if (err || !container_live(c))
		return;
	if (!strcmp(json_str(result, "state", ""), "exited"))
		container_ended(c, json_object_get(result, "exit"));
}

/* Its endpoints, and for one that runs the ports it holds. */
static int adopt_network(struct engine_container *c, const json_t *state)
{
	struct err err = ERR_INIT;

	c->endpoints = json_incref(json_object_get(state, "Endpoints"));
	if ((!c->endpoints && endpoints_create(c, NULL, &err)) || endpoints_adopt(c, &err) ||
	    (container_live(c) && publish_load(c, json_object_get(state, "Ports"), &err)))
		log_error("container %.12s: its networks: %s", c->id, err.msg);
	return 0;
}

static int adopt_one(struct engine *e, const char *id, const char *name, json_t *config, json_t *state)
{
	struct engine_container *c = calloc(1, sizeof(*c));
	const char *status = json_str(state, "Status", "exited");

	if (!c)
		return -ENOMEM;
	c->engine = e;
	(void)snprintf(c->id, sizeof(c->id), "%s", id);
	c->name = strdup(name);
	c->config = json_incref(json_object_get(config, "Config"));
	c->host_config = json_incref(json_object_get(config, "HostConfig"));
	c->image_id = strdup(json_str(config, "ImageID", ""));
	c->mounts = json_incref(json_object_get(config, "Mounts"));
	c->created_ns = json_int(config, "Created", 0);
	c->isolation = !strcmp(json_str(c->host_config, "Isolation", ""), "hyperv") ? ENGINE_ISOLATION_HYPERV
										    : ENGINE_ISOLATION_PROCESS;
	while (c->state < ENGINE_DEAD && strcmp(state_names[c->state], status))
		c->state++;
	c->started_ns = json_int(state, "StartedAt", 0);
	c->finished_ns = json_int(state, "FinishedAt", 0);
	c->pid = (pid_t)json_int(state, "Pid", 0);
	c->exit_code = (int)json_int(state, "ExitCode", 0);
	c->oom_killed = json_bool(state, "OOMKilled", false);
	c->restart_count = (int)json_int(state, "RestartCount", 0);
	c->manual_stop = json_bool(state, "ManualStop", false);
	(void)snprintf(c->error, sizeof(c->error), "%s", json_str(state, "Error", ""));
	c->next = e->containers;
	e->containers = c;
	return adopt_network(c, state) ?: container_paths(c);
}

int engine_container_adopt_all(struct engine *e, struct err *err)
{
	int rc = db_each_container(e, adopt_one, err);

	/* before anything ends or starts: the rules know every port */
	for (struct engine_network *n = e->networks; !rc && n; n = n->next) {
		if (n->up) {
			rc = engine_rules_apply(e, err);
			break;
		}
	}

	for (struct engine_container *c = e->containers, *next; !rc && c; c = next) {
		struct err why = ERR_INIT;
		const char *policy = json_str(json_object_get(c->host_config, "RestartPolicy"), "Name", "no");

		next = c->next;
		if (container_live(c)) {
			if (shim_client_connect(c, &c->shim, &why))
				engine_container_on_shim_gone(c);
			else
				shim_client_call(c->shim, "hello", NULL, NULL, 0, adopt_hello, c);
			health_start(c);
		} else if (c->state == ENGINE_RESTARTING ||
			   (c->state == ENGINE_EXITED &&
			    (!strcmp(policy, "always") || (!strcmp(policy, "unless-stopped") && !c->manual_stop)))) {
			c->state = ENGINE_EXITED;
			engine_container_start(c, NULL, NULL);
		} else if (json_bool(c->host_config, "AutoRemove", false) && c->state != ENGINE_CREATED) {
			engine_container_remove(c, false, NULL, NULL);
		}
	}
	volumes_release(e);
	return rc;
}

int engine_signal_number(const char *name, struct err *err)
{
	char *end;
	const char *text = name;
	long n = strtol(name, &end, 10);

	if (end != name && !*end && n > 0 && n < 65)
		return (int)n;
	if (!strncasecmp(text, "SIG", 3))
		text += 3;
	for (int i = 1; i < 32; i++)
		if (sigabbrev_np(i) && !strcasecmp(sigabbrev_np(i), text))
			return i;
	if (!strncasecmp(text, "RTMIN", 5) && (!text[5] || text[5] == '+') && atoi(text + 5) >= 0 &&
	    atoi(text + 5) < 31)
		return 34 + atoi(text + 5);
	return err_set(err, EINVAL, "Invalid signal: %s", name);
}
