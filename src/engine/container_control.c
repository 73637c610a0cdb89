/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of a container: stop, kill, pause, update, remove. */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container_internal.h"
#include "engine/mounts.h"

#define KILL_WAIT_MS 10000

struct stop_call {
	struct engine_container *c;
	struct engine *engine;
	engine_done_fn done;
	void *arg;
	struct loop_timer *timer;
	struct engine_waiter *waiter;
};

static void stop_ended(int code, const char *error, void *arg)
{
	struct stop_call *s = arg;

	if (s->timer)
		loop_cancel(s->timer);
	if (s->c->manual_stop)
		engine_container_event(s->c, "stop", NULL);
	if (s->done)
		s->done(s->c, NULL, s->arg);
	free(s);
}

static void stop_kill(struct loop *l, void *arg)
{
	struct stop_call *s = arg;

	s->timer = NULL;
	if (s->c->shim)
		shim_client_call(s->c->shim, "signal", json_pack("{s:i}", "signal", SIGKILL), NULL, 0, NULL, NULL);
}

void engine_container_stop(struct engine_container *c, const char *signal, int timeout, engine_done_fn done, void *arg)
{
	struct err err = ERR_INIT;
	const char *name = signal && *signal ? signal : json_str(c->config, "StopSignal", "");
	int sig = engine_signal_number(*name ? name : "SIGTERM", &err);

	if (c->state == ENGINE_RESTARTING) {
		c->manual_stop = true;
		if (c->restart_timer)
			loop_cancel(c->restart_timer);
		c->restart_timer = NULL;
		container_move(c, ENGINE_EXITED);
		engine_container_save(c);
		container_fire(c, false);
	} else if (sig > 0 && container_live(c) && c->shim) {
		struct stop_call *s = calloc(1, sizeof(*s));

		bug_on(!s);
		*s = (struct stop_call){ .c = c, .done = done, .arg = arg };
		c->manual_stop = true;
		if (timeout == INT_MIN)
			timeout = (int)json_int(c->config, "StopTimeout", 10);
		if (c->state == ENGINE_PAUSED)
			shim_client_call(c->shim, "resume", NULL, NULL, 0, NULL, NULL);
		shim_client_call(c->shim, "signal", json_pack("{s:i}", "signal", sig), NULL, 0, NULL, NULL);
		engine_container_event(c, "kill", json_pack("{s:o}", "signal", json_sprintf("%d", sig)));
		if (timeout >= 0)
			s->timer = loop_add_timer(c->engine->loop, (uint64_t)timeout * 1000 + 1, stop_kill, s);
		(void)engine_container_wait(c, ENGINE_WAIT_NEXT_EXIT, stop_ended, s);
		return;
	} else if (sig > 0) {
		(void)err_set(&err, EALREADY, "container already stopped");
	}
	if (done)
		done(c, err.code ? &err : NULL, arg);
}

struct simple_call {
	struct engine_container *c;
	engine_done_fn done;
	void *arg;
	int what;
};

static void simple_done(json_t *result, const struct err *err, void *arg)
{
	struct simple_call *s = arg;
	struct engine_container *c = s->c;

	if (!err && s->what && container_live(c)) {
		enum engine_state to = s->what == 1 ? ENGINE_PAUSED : ENGINE_RUNNING;

		if (c->state != to)
			container_move(c, to);
		engine_container_save(c);
		engine_container_event(c, s->what == 1 ? "pause" : "unpause", NULL);
	}
	if (s->done)
		s->done(c, err, s->arg);
	free(s);
}

static void container_ask(struct engine_container *c, const char *method, json_t *params, int what, engine_done_fn done,
			  void *arg)
{
	struct simple_call *s = calloc(1, sizeof(*s));

	bug_on(!s);
	*s = (struct simple_call){ c, done, arg, what };
	shim_client_call(c->shim, method, params, NULL, 0, simple_done, s);
}

static void kill_ended(int code, const char *error, void *arg)
{
	struct stop_call *s = arg;

	if (s->timer)
		loop_cancel(s->timer);
	s->done(s->c, NULL, s->arg);
	free(s);
}

static void kill_late(struct loop *l, void *arg)
{
	struct stop_call *s = arg;
	struct err err = ERR_INIT;

	(void)err_set(&err, EIO, "container %s did not exit within 10 seconds of the kill", s->c->id);
	engine_container_unwait(s->c, s->waiter);
	s->done(s->c, &err, s->arg);
	free(s);
}

void engine_container_signal(struct engine_container *c, const char *signal, engine_done_fn done, void *arg)
{
	struct err err = ERR_INIT;
	int sig = engine_signal_number(signal && *signal ? signal : "SIGKILL", &err);

	if (sig > 0 && (!container_live(c) || !c->shim))
		(void)err_set(&err, EBUSY, "container %s is not running", c->id);
	if (err.code) {
		done(c, &err, arg);
		return;
	}
	if (sig == SIGKILL || sig == engine_signal_number(json_str(c->config, "StopSignal", "SIGTERM"), NULL))
		c->manual_stop = true;
	engine_container_event(c, "kill", json_pack("{s:o}", "signal", json_sprintf("%d", sig)));
	if (sig == SIGKILL) {
		/* answered when it is dead; a shim that cannot do it is no reason to wait for ever */
		struct stop_call *s = calloc(1, sizeof(*s));

		bug_on(!s);
		*s = (struct stop_call){ .c = c, .done = done, .arg = arg };
		s->waiter = engine_container_wait(c, ENGINE_WAIT_NEXT_EXIT, kill_ended, s);
		s->timer = loop_add_timer(c->engine->loop, KILL_WAIT_MS, kill_late, s);
		shim_client_call(c->shim, "signal", json_pack("{s:i}", "signal", sig), NULL, 0, NULL, NULL);
		return;
	}
	container_ask(c, "signal", json_pack("{s:i}", "signal", sig), 0, done, arg);
}

void engine_container_pause(struct engine_container *c, bool pause, engine_done_fn done, void *arg)
{
	struct err err = ERR_INIT;

	if (!container_live(c) || !c->shim)
		(void)err_set(&err, EBUSY, "container %s is not running", c->id);
	else if (pause == (c->state == ENGINE_PAUSED))
		(void)err_set(&err, EBUSY, "Container %s is %s paused", c->id, pause ? "already" : "not");
	if (err.code)
		done(c, &err, arg);
	else
		container_ask(c, pause ? "pause" : "resume", NULL, pause ? 1 : 2, done, arg);
}

/* ---- update ---- */

struct update_call {
	struct engine_container *c;
	json_t *merged; /* HostConfig as it is when the shim has said yes */
	engine_done_fn done;
	void *arg;
};

static void update_done(json_t *result, const struct err *failure, void *arg)
{
	struct update_call *u = arg;
	struct engine_container *c = u->c;
	struct err err = ERR_INIT;

	if (failure) {
		(void)err_set(&err, failure->code == EINVAL ? EINVAL : EIO, "Cannot update container %s: %.300s", c->id,
			      failure->msg);
	} else {
		json_decref(c->host_config);
		c->host_config = json_incref(u->merged);
		engine_container_save(c);
		engine_container_event(c, "update", NULL);
	}
	u->done(c, failure ? &err : NULL, u->arg);
	json_decref(u->merged);
	free(u);
}

/* The fields that Docker's update has (moby, api/types/container/hostconfig.go, UpdateConfig) and that are done here. */
static int update_merge(const struct engine_container *c, const json_t *body, json_t *merged, struct err *err)
{
	static const char *const known[] = { "CpuShares",  "Memory",     "NanoCpus",     "CpuPeriod",
					     "CpuQuota",   "CpusetCpus", "CpusetMems",   "MemoryReservation",
					     "MemorySwap", "PidsLimit",  "RestartPolicy" };
	int64_t swap = json_int(c->host_config, "MemorySwap", 0), memory = json_int(body, "Memory", 0);
	const json_t *restart = json_object_get(body, "RestartPolicy");
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)body, key, v) {
		size_t i = 0;

		if (!json_nonempty(v) || (!strcmp(key, "RestartPolicy") && !*json_str(v, "Name", "")))
			continue;
		while (i < ARRAY_LEN(known) && strcmp(known[i], key))
			i++;
		if (i == ARRAY_LEN(known))
			return err_set(err, ENOSYS, "update of %.100s is not supported by this version of Walnut", key);
		(void)json_object_set(merged, key, v);
	}
	if (memory > 0 && swap > 0 && memory > swap && !json_int(body, "MemorySwap", 0))
		return err_set(
			err, EINVAL,
			"Memory limit should be smaller than already set memoryswap limit, update the memoryswap at "
			"the same time");
	if (*json_str(restart, "Name", "") && strcmp(json_str(restart, "Name", ""), "no") &&
	    json_bool(c->host_config, "AutoRemove", false))
		return err_set(err, EINVAL,
			       "Restart policy cannot be updated because AutoRemove is enabled for the container");
	return container_check_limits(merged, err);
}

void engine_container_update(struct engine_container *c, const json_t *body, engine_done_fn done, void *arg)
{
	struct err err = ERR_INIT;
	struct update_call *u = calloc(1, sizeof(*u));
	CLEAN_JSON json_t *spec = NULL;

	bug_on(!u);
	*u = (struct update_call){ c, json_deep_copy(c->host_config), done, arg };
	if (update_merge(c, body, u->merged, &err)) {
		done(c, &err, arg);
		json_decref(u->merged);
		free(u);
		return;
	}
	if (!container_live(c) || !c->shim) {
		update_done(NULL, NULL, u);
		return;
	}
	spec = spec_resources_only(u->merged);
	shim_client_call(c->shim, "update", json_pack("{s:O}", "resources", spec), NULL, 0, update_done, u);
}

static void container_delete(struct engine_container *c, engine_done_fn done, void *arg)
{
	struct err err = ERR_INIT;
	struct engine_container **p = &c->engine->containers;

	container_release_shim(c);
	c->state = ENGINE_REMOVING;
	if (fd_remove_tree(AT_FDCWD, c->data_dir, &err) < 0 || fd_remove_tree(AT_FDCWD, c->run_dir, &err) < 0 ||
	    db_delete_container(c->engine, c->id, &err)) {
		c->state = ENGINE_DEAD;
		c->removing = false;
		engine_container_save(c);
		log_error("remove container %.12s: %s", c->id, err.msg);
		if (done)
			done(c, &err, arg);
		return;
	}
	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	if (c->drop_volumes || json_bool(c->host_config, "AutoRemove", false))
		volumes_drop_anonymous(c->engine, c->mounts);
	engine_container_event(c, "destroy", NULL);
	if (done)
		done(c, NULL, arg);
	container_fire(c, true);
	engine_container_free(c);
}

struct remove_call {
	struct engine_container *c;
	engine_done_fn done;
	void *arg;
};

static void remove_later(struct loop *l, void *arg)
{
	struct remove_call *r = arg;

	container_delete(r->c, r->done, r->arg);
	free(r);
}

/* From a fresh round of the loop: the callers up the stack still use the container. */
static void remove_soon(int code, const char *error, void *arg)
{
	struct remove_call *r = arg;

	bug_on(!loop_add_timer(r->c->engine->loop, 0, remove_later, r));
}

void engine_container_remove(struct engine_container *c, bool force, engine_done_fn done, void *arg)
{
	struct err err = ERR_INIT;

	if (c->removing)
		(void)err_set(&err, EBUSY, "removal of container %s is already in progress", c->id);
	else if ((container_live(c) || c->starting || c->state == ENGINE_RESTARTING) && !force)
		(void)err_set(&err, EBUSY,
			      "cannot remove container \"%s\": container is %s: stop the container before "
			      "removing or force remove",
			      c->name, engine_state_name(c->state));
	if (err.code) {
		if (done)
			done(c, &err, arg);
		return;
	}
	struct remove_call *r = calloc(1, sizeof(*r));

	bug_on(!r);
	*r = (struct remove_call){ c, done, arg };
	c->removing = true;
	if (c->restart_timer)
		loop_cancel(c->restart_timer);
	c->restart_timer = NULL;
	if (container_live(c) && c->shim) {
		c->manual_stop = true;
		(void)engine_container_wait(c, ENGINE_WAIT_NEXT_EXIT, remove_soon, r);
		shim_client_call(c->shim, "signal", json_pack("{s:i}", "signal", SIGKILL), NULL, 0, NULL, NULL);
		engine_container_event(c, "kill", json_pack("{s:s}", "signal", "9"));
		return;
	}
	remove_soon(0, NULL, r);
}

/* ---- prune ---- */

struct prune_call {
	json_t *deleted;
	int64_t freed;
	int left; /* removals not yet answered, and one for the loop that starts them */
	void (*done)(json_t *, void *);
	void *arg;
};

static void prune_finish(struct prune_call *p)
{
	if (--p->left)
		return;
	p->done(json_pack("{s:o, s:I}", "ContainersDeleted",
			  json_array_size(p->deleted) ? json_incref(p->deleted) : json_null(), "SpaceReclaimed",
			  (json_int_t)p->freed),
		p->arg);
	json_decref(p->deleted);
	free(p);
}

static void prune_removed(struct engine_container *c, const struct err *err, void *arg)
{
	struct prune_call *p = arg;

	if (!err)
		(void)json_array_append_new(p->deleted, json_string(c->id));
	prune_finish(p);
}

static bool prune_wants(const struct engine_container *c, const json_t *filters, int64_t until_ns)
{
	CLEAN_JSON json_t *none = json_pack("{s:O?}", "label", json_object_get(filters, "label!"));
	const json_t *labels = json_object_get(c->config, "Labels");

	if (c->state != ENGINE_CREATED && c->state != ENGINE_EXITED && c->state != ENGINE_DEAD)
		return false;
	if (c->starting || c->removing || (until_ns && c->created_ns >= until_ns))
		return false;
	return filters_match_labels(filters, labels) &&
	       (!json_object_get(filters, "label!") || !filters_match_labels(none, labels));
}

int engine_container_prune(struct engine *e, const char *text, void (*done)(json_t *result, void *arg), void *arg,
			   struct err *err)
{
	static const char *const keys[] = { "label", "label!", "until", NULL };
	CLEAN_JSON json_t *filters = filters_parse(text, err);
	const json_t *until = json_object_get(filters, "until");
	const char *when = json_string_value(json_array_get(until, 0));
	int64_t until_ns = 0;

	if (!filters || filters_known(filters, keys, err))
		return -err->code;
	if (json_array_size(until) > 1)
		return err_set(err, EINVAL, "more than one until filter specified");
	if (when && engine_parse_until(when, &until_ns))
		return err_set(err, EINVAL, "invalid filter 'until=%.100s'", when);
	struct prune_call *p = calloc(1, sizeof(*p));

	if (!p)
		return err_sys(err, ENOMEM, "prune containers");
	*p = (struct prune_call){ .deleted = json_array(), .left = 1, .done = done, .arg = arg };
	for (struct engine_container *c = e->containers, *next; c; c = next) {
		next = c->next;
		if (!prune_wants(c, filters, until_ns))
			continue;
		p->left++; /* NOLINT(clang-analyzer-unix.Malloc): our own count keeps it */
		p->freed += engine_container_size_rw(c);
		engine_container_remove(c, false, prune_removed, p);
	}
	json_t *freed = json_sprintf(
		"%lld", (long long)p->freed); /* NOLINT(clang-analyzer-unix.Malloc): our own count keeps it */

	events_emit(e, "container", "prune", "", json_pack("{s:o}", "reclaimed", freed));
	prune_finish(p);
	return 0;
}
