/* SPDX-License-Identifier: Apache-2.0 */
/* Events: a ring of the last 256, and subscribers with filters. The fields are Docker's (events.Message). */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/engine.h"

#define EVENTS_KEPT 256

struct events_subscriber {
	struct events_subscriber *next;
	struct events *events;
	json_t *filters;
	events_fn fn;
	void *arg;
	bool gone;
};

struct events {
	json_t *ring[EVENTS_KEPT];
	size_t next;
	struct events_subscriber *subscribers;
	int depth;
};

struct events *events_new(void)
{
	return calloc(1, sizeof(struct events));
}

static void events_sweep(struct events *ev)
{
	struct events_subscriber **p = &ev->subscribers;

	while (*p) {
		struct events_subscriber *s = *p;

		if (!s->gone) {
			p = &s->next;
			continue;
		}
		*p = s->next;
		json_decref(s->filters);
		free(s);
	}
}

void events_free(struct events *ev)
{
	if (!ev)
		return;
	for (size_t i = 0; i < EVENTS_KEPT; i++)
		json_decref(ev->ring[i]);
	for (struct events_subscriber *s = ev->subscribers; s; s = s->next)
		s->gone = true;
	events_sweep(ev);
	free(ev);
}

static bool event_names(const json_t *event, const json_t *filters, const char *key)
{
	const json_t *actor = json_object_get(event, "Actor");
	const json_t *list = json_object_get(filters, key);
	const char *id = json_str(actor, "ID", "");
	const char *name = json_str(json_object_get(actor, "Attributes"), "name", "");
	size_t i;
	json_t *v;

	if (!json_array_size(list))
		return true;
	if (strcmp(json_str(event, "Type", ""), key))
		return false;
	json_array_foreach(list, i, v) {
		const char *want = json_string_value(v);

		if (!strcmp(want, name) || (*want && !strncmp(id, want, strlen(want))))
			return true;
	}
	return false;
}

static bool event_action(const json_t *event, const json_t *filters)
{
	const json_t *list = json_object_get(filters, "event");
	const char *action = json_str(event, "Action", "");
	size_t i;
	json_t *v;

	if (!json_array_size(list))
		return true;
	json_array_foreach(list, i, v) {
		size_t n = strlen(json_string_value(v));

		/* "exec_create" stands for "exec_create: CMD" */
		if (!strncmp(action, json_string_value(v), n) && (!action[n] || action[n] == ':'))
			return true;
	}
	return false;
}

static bool event_matches(const json_t *event, const json_t *filters)
{
	static const char *const named[] = { "container", "network", "volume", "daemon" };

	if (!json_object_size(filters))
		return true;
	if (!event_action(event, filters) || !filters_match(filters, "type", json_str(event, "Type", "")) ||
	    !filters_match(filters, "scope", "local") ||
	    !filters_match_labels(filters, json_object_get(json_object_get(event, "Actor"), "Attributes")))
		return false;
	for (size_t i = 0; i < ARRAY_LEN(named); i++)
		if (!event_names(event, filters, named[i]))
			return false;
	if (json_array_size(json_object_get(filters, "image"))) {
		const json_t *actor = json_object_get(event, "Actor");

		if (!filters_match(filters, "image", json_str(actor, "ID", "")) &&
		    !filters_match(filters, "image", json_str(json_object_get(actor, "Attributes"), "image", "")) &&
		    !filters_match(filters, "image", json_str(json_object_get(actor, "Attributes"), "name", "")))
			return false;
	}
	return true;
}

void events_emit(struct engine *e, const char *type, const char *action, const char *actor_id, json_t *attributes)
{
	struct events *ev = e->events;
	int64_t now = engine_now_ns();
	const char *image = json_str(attributes, "image", NULL);
	json_t *event = json_pack("{s:s, s:s, s:{s:s, s:o}, s:s, s:I, s:I}", "Type", type, "Action", action, "Actor",
				  "ID", actor_id, "Attributes", attributes ? attributes : json_object(), "scope",
				  "local", "time", (json_int_t)(now / 1000000000), "timeNano", (json_int_t)now);

	if (!event)
		return;
	if (!strcmp(type, "container") || !strcmp(type, "image")) { /* the form of API 1.21 and before */
		(void)json_object_set_new(event, "status", json_string(action));
		(void)json_object_set_new(event, "id", json_string(actor_id));
		if (image)
			(void)json_object_set_new(event, "from", json_string(image));
	}
	json_decref(ev->ring[ev->next]);
	ev->ring[ev->next] = event;
	ev->next = (ev->next + 1) % EVENTS_KEPT;
	json_incref(event);
	ev->depth++;
	for (struct events_subscriber *s = ev->subscribers; s; s = s->next)
		if (!s->gone && event_matches(event, s->filters))
			s->fn(event, s->arg);
	if (!--ev->depth)
		events_sweep(ev);
	json_decref(event);
}

void events_replay(struct engine *e, int64_t since_ns, int64_t until_ns, const json_t *filters, events_fn fn, void *arg)
{
	for (size_t i = 0; i < EVENTS_KEPT; i++) {
		json_t *event = e->events->ring[(e->events->next + i) % EVENTS_KEPT];
		int64_t at = event ? json_int(event, "timeNano", 0) : 0;

		if (event && at >= since_ns && (!until_ns || at <= until_ns) && event_matches(event, filters))
			fn(event, arg);
	}
}

struct events_subscriber *events_subscribe(struct engine *e, json_t *filters, events_fn fn, void *arg)
{
	struct events_subscriber *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	*s = (struct events_subscriber){ .next = e->events->subscribers, .events = e->events, .fn = fn, .arg = arg };
	s->filters = json_incref(filters);
	e->events->subscribers = s;
	return s;
}

void events_unsubscribe(struct events_subscriber *s)
{
	if (!s)
		return;
	s->gone = true;
	if (!s->events->depth)
		events_sweep(s->events);
}
