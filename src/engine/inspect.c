/* SPDX-License-Identifier: Apache-2.0 */
/* A container in Docker's JSON: inspect, and the lines of ps. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "engine/container_internal.h"
#include "engine/network.h"
#include "engine/mounts.h"

static json_t *inspect_state(const struct engine_container *c)
{
	char started[40], finished[40];
	bool restarting = c->state == ENGINE_RESTARTING;

	json_t *health = health_json(c);
	json_t *j = json_pack(
		"{s:s, s:b, s:b, s:b, s:b, s:b, s:i, s:i, s:s, s:s, s:s}", "Status", engine_state_name(c->state),
		"Running", c->state == ENGINE_RUNNING || c->state == ENGINE_PAUSED || restarting, "Paused",
		c->state == ENGINE_PAUSED, "Restarting", restarting, "OOMKilled", c->oom_killed, "Dead",
		c->state == ENGINE_DEAD, "Pid", (int)c->pid, "ExitCode", c->exit_code, "Error", c->error, "StartedAt",
		engine_time_text(c->started_ns, started), "FinishedAt", engine_time_text(c->finished_ns, finished));

	if (health)
		(void)json_object_set_new(j, "Health", health);
	return j;
}

static json_t *inspect_driver(const struct engine_container *c)
{
	char name[PATH_MAX];
	json_t *data = json_object();
	const struct image *im = image_find(c->engine->images, c->image_id, NULL);
	CLEAN_BUF struct buf lower = BUF_INIT;

	for (size_t i = im ? im->nlayers : 0; i-- > 0;)
		(void)!buf_printf(&lower, "%s%s", im->layers[i].erofs_path, i ? ":" : "");
	(void)json_object_set_new(data, "LowerDir", json_string(buf_bytes(&lower)));
	if (c->isolation == ENGINE_ISOLATION_HYPERV) {
		(void)snprintf(name, sizeof(name), "%s/scratch.ext4", c->data_dir);
		(void)json_object_set_new(data, "ScratchDisk", json_string(name));
	} else {
		(void)snprintf(name, sizeof(name), "%s/rootfs", c->run_dir);
		(void)json_object_set_new(data, "MergedDir", json_string(name));
		(void)snprintf(name, sizeof(name), "%s/upper", c->data_dir);
		(void)json_object_set_new(data, "UpperDir", json_string(name));
		(void)snprintf(name, sizeof(name), "%s/work", c->data_dir);
		(void)json_object_set_new(data, "WorkDir", json_string(name));
	}
	return json_pack("{s:o, s:s}", "Data", data, "Name", "erofs-overlay");
}

static void inspect_sizes(const struct engine_container *c, json_t *j, bool summary)
{
	int64_t rw = engine_container_size_rw(c);

	if (rw || !summary)
		(void)json_object_set_new(j, "SizeRw", json_integer(rw));
	(void)json_object_set_new(j, "SizeRootFs", json_integer(engine_container_size_root(c, rw)));
}

json_t *engine_container_inspect(struct engine_container *c, bool size)
{
	char created[40];
	const json_t *entry = json_object_get(c->config, "Entrypoint");
	json_t *all = json_array();
	CLEAN_JSON json_t *execs = json_array();

	if (json_is_array(entry))
		(void)json_array_extend(all, (json_t *)entry);
	if (json_is_array(json_object_get(c->config, "Cmd")))
		(void)json_array_extend(all, json_object_get(c->config, "Cmd"));
	const char *path = json_string_value(json_array_get(all, 0)) ?: "";
	CLEAN_JSON json_t *keep = json_string(path);

	(void)json_array_remove(all, 0);
	for (struct engine_exec *x = c->engine->execs; x; x = x->next)
		if (x->container == c && x->running)
			(void)json_array_append_new(execs, json_string(x->id));
	json_t *j = json_pack(
		"{s:s, s:s, s:s, s:o, s:o, s:s, s:s+, s:s+, s:s+, s:s, s:s+, s:i, s:s, s:s, s:s, s:s, s:s, s:o}", "Id",
		c->id, "Created", engine_time_text(c->created_ns, created), "Path", json_string_value(keep), "Args",
		all, "State", inspect_state(c), "Image", c->image_id, "ResolvConfPath", c->data_dir, "/resolv.conf",
		"HostnamePath", c->data_dir, "/hostname", "HostsPath", c->data_dir, "/hosts", "LogPath", c->log_path,
		"Name", "/", c->name, "RestartCount", c->restart_count, "Driver", "erofs-overlay", "Platform", "linux",
		"MountLabel", "", "ProcessLabel", "", "AppArmorProfile", "", "ExecIDs",
		json_array_size(execs) ? json_incref(execs) : json_null());

	(void)json_object_set(j, "HostConfig", c->host_config);
	(void)json_object_set_new(j, "GraphDriver", inspect_driver(c));
	(void)json_object_set_new(j, "Mounts", mounts_inspect(c));
	(void)json_object_set(j, "Config", c->config);
	(void)json_object_set_new(j, "NetworkSettings", endpoints_inspect(c));
	if (size)
		inspect_sizes(c, j, false);
	return j;
}

/* How long, in Docker's words (go-units, HumanDuration). */
static void duration_text(int64_t s, char *out, size_t n)
{
	int64_t hours = (s + 1800) / 3600;

	if (s < 1)
		(void)snprintf(out, n, "Less than a second");
	else if (s == 1)
		(void)snprintf(out, n, "1 second");
	else if (s < 60)
		(void)snprintf(out, n, "%d seconds", (int)s);
	else if (s < 120)
		(void)snprintf(out, n, "About a minute");
	else if (s < 3600)
		(void)snprintf(out, n, "%d minutes", (int)(s / 60));
	else if (hours == 1)
		(void)snprintf(out, n, "About an hour");
	else if (hours < 48)
		(void)snprintf(out, n, "%d hours", (int)hours);
	else if (hours < 24 * 14)
		(void)snprintf(out, n, "%d days", (int)(hours / 24));
	else if (hours < 24 * 60)
		(void)snprintf(out, n, "%d weeks", (int)(hours / 24 / 7));
	else if (hours < 24 * 730)
		(void)snprintf(out, n, "%d months", (int)(hours / 24 / 30));
	else
		(void)snprintf(out, n, "%d years", (int)(hours / 24 / 365));
}

static const char *health_words(const struct engine_container *c)
{
	const char *status = health_status(c);

	return !strcmp(status, "none")       ? ""
	       : !strcmp(status, "healthy")  ? " (healthy)"
	       : !strcmp(status, "starting") ? " (health: starting)"
					     : " (unhealthy)";
}

static void status_text(const struct engine_container *c, char *out, size_t n)
{
	int64_t now = engine_now_ns();
	char up[48], since[48];

	duration_text((now - c->started_ns) / 1000000000, up, sizeof(up));
	duration_text((now - c->finished_ns) / 1000000000, since, sizeof(since));
	switch (c->state) {
	case ENGINE_RUNNING: (void)snprintf(out, n, "Up %s%s", up, health_words(c)); break;
	case ENGINE_PAUSED: (void)snprintf(out, n, "Up %s (Paused)", up); break;
	case ENGINE_RESTARTING: (void)snprintf(out, n, "Restarting (%d) %s ago", c->exit_code, since); break;
	case ENGINE_REMOVING: (void)snprintf(out, n, "Removal In Progress"); break;
	case ENGINE_DEAD: (void)snprintf(out, n, "Dead"); break;
	case ENGINE_EXITED: (void)snprintf(out, n, "Exited (%d) %s ago", c->exit_code, since); break;
	default: (void)snprintf(out, n, "Created"); break;
	}
}

json_t *engine_container_summary(struct engine_container *c, bool size)
{
	CLEAN_JSON json_t *full = engine_container_inspect(c, false);
	struct buf command = BUF_INIT;
	char status[80];
	size_t i;
	json_t *v;

	(void)!buf_puts(&command, json_str(full, "Path", ""));
	json_array_foreach(json_object_get(full, "Args"), i, v)
		(void)!buf_printf(&command, strchr(json_string_value(v) ?: "", ' ') ? " '%s'" : " %s",
				  json_string_value(v) ?: "");
	status_text(c, status, sizeof(status));
	json_t *j = json_pack(
		"{s:s, s:[s+], s:O, s:s, s:s, s:I, s:o, s:O, s:s, s:s, s:{s:s}, s:{s:O}, s:O}", "Id", c->id, "Names",
		"/", c->name, "Image", json_object_get(c->config, "Image"), "ImageID", c->image_id, "Command",
		buf_bytes(&command), "Created", (json_int_t)(c->created_ns / 1000000000), "Ports", publish_summary(c),
		"Labels", json_object_get(c->config, "Labels"), "State", engine_state_name(c->state), "Status", status,
		"HostConfig", "NetworkMode", json_str(c->host_config, "NetworkMode", "default"), "NetworkSettings",
		"Networks", json_object_get(json_object_get(full, "NetworkSettings"), "Networks"), "Mounts",
		json_object_get(full, "Mounts"));

	buf_free(&command);
	if (size)
		inspect_sizes(c, j, true);
	return j;
}

static bool list_any(const json_t *filters, const char *key, const char *value, bool part)
{
	const json_t *list = json_object_get(filters, key);
	size_t i;
	json_t *v;

	if (!json_array_size(list))
		return true;
	json_array_foreach(list, i, v) {
		const char *want = json_string_value(v);
		const char *text = *want == '^' ? want + 1 : want;
		CLEAN_FREE char *copy = strdup(*text == '/' ? text + 1 : text);
		size_t n = copy ? strlen(copy) : 0;
		bool end = n && copy[n - 1] == '$';

		if (!copy)
			continue;
		if (end)
			copy[--n] = 0;
		if (!part          ? !strncmp(value, copy, n)
		    : *want == '^' ? (end ? !strcmp(value, copy) : !strncmp(value, copy, n))
				   : strstr(value, copy) != NULL)
			return true;
	}
	return false;
}

static bool list_ancestor(const struct engine_container *c, const json_t *filters)
{
	size_t i;
	json_t *v;

	if (!json_array_size(json_object_get(filters, "ancestor")))
		return true;
	json_array_foreach(json_object_get(filters, "ancestor"), i, v) {
		const struct image *im = image_find(c->engine->images, json_string_value(v), NULL);

		if (im && !strcmp(im->id, c->image_id))
			return true;
	}
	return false;
}

static bool list_network(const struct engine_container *c, const json_t *filters)
{
	const char *name;
	json_t *s;

	if (!json_array_size(json_object_get(filters, "network")))
		return true;
	json_object_foreach(c->endpoints, name, s) {
		const char *id = json_str(s, "NetworkID", "");

		if (filters_match(filters, "network", name) || (*id && list_any(filters, "network", id, false)))
			return true;
	}
	return false;
}

/* Values that Docker refuses: a state that does not exist, an exit code that is no number. */
static int list_check(const json_t *filters, struct err *err)
{
	static const char
		*const states[] = { "created", "running", "paused", "restarting", "removing", "exited", "dead" },
		       *const healths[] = { "starting", "healthy", "unhealthy", "none" };
	size_t i;
	json_t *v;

	json_array_foreach(json_object_get(filters, "status"), i, v) {
		bool known = false;

		for (size_t k = 0; k < ARRAY_LEN(states); k++)
			known = known || !strcmp(states[k], json_string_value(v));
		if (!known)
			return err_set(err, EINVAL, "invalid filter 'status=%.100s'", json_string_value(v));
	}
	json_array_foreach(json_object_get(filters, "health"), i, v) {
		bool known = false;

		for (size_t k = 0; k < ARRAY_LEN(healths); k++)
			known = known || !strcmp(healths[k], json_string_value(v));
		if (!known)
			return err_set(err, EINVAL, "invalid filter 'health=%.100s'", json_string_value(v));
	}
	json_array_foreach(json_object_get(filters, "exited"), i, v) {
		const char *text = json_string_value(v);

		if (!*text || text[strspn(text, "-0123456789")])
			return err_set(err, EINVAL, "invalid filter 'exited=%.100s'", text);
	}
	return 0;
}

json_t *engine_container_list(struct engine *e, bool all, int limit, bool size, const char *text, struct err *err)
{
	static const char *const keys[] = { "id",        "name",   "label",  "status",  "ancestor", "exited",
					    "isolation", "before", "since",  "is-task", "network",  "volume",
					    "publish",   "expose", "health", NULL };
	CLEAN_JSON json_t *filters = filters_parse(text, err);
	const char *before_ref = json_string_value(json_array_get(json_object_get(filters, "before"), 0));
	const char *since_ref = json_string_value(json_array_get(json_object_get(filters, "since"), 0));

	if (!filters || filters_known(filters, keys, err))
		return NULL;
	if (list_check(filters, err))
		return NULL;
	const struct engine_container *before = before_ref ? engine_container_find(e, before_ref, err) : NULL;
	const struct engine_container *since = since_ref ? engine_container_find(e, since_ref, err) : NULL;

	if ((before_ref && !before) || (since_ref && !since))
		return NULL;
	all = all || limit > 0 || json_array_size(json_object_get(filters, "status")) ||
	      json_array_size(json_object_get(filters, "exited"));
	json_t *list = json_array();

	for (struct engine_container *c = e->containers; c; c = c->next) {
		char code[16];

		(void)snprintf(code, sizeof(code), "%d", c->exit_code);
		if (!all && c->state != ENGINE_RUNNING && c->state != ENGINE_PAUSED && c->state != ENGINE_RESTARTING)
			continue;
		if (!list_any(filters, "id", c->id, false) || !list_any(filters, "name", c->name, true) ||
		    !filters_match_labels(filters, json_object_get(c->config, "Labels")) ||
		    !filters_match(filters, "status", engine_state_name(c->state)) || !list_ancestor(c, filters) ||
		    !filters_match(filters, "isolation", engine_isolation_name(c->isolation)) ||
		    !filters_match(filters, "exited", code) || !filters_match(filters, "health", health_status(c)) ||
		    (json_array_size(json_object_get(filters, "exited")) && c->state != ENGINE_EXITED) ||
		    (before && c->created_ns >= before->created_ns) || (since && c->created_ns <= since->created_ns) ||
		    !list_network(c, filters) || !mounts_match(c, filters) ||
		    json_array_size(json_object_get(filters, "publish")) ||
		    json_array_size(json_object_get(filters, "expose")))
			continue;
		(void)json_array_append_new(list, engine_container_summary(c, size));
		if (limit > 0 && json_array_size(list) >= (size_t)limit)
			break;
	}
	return list;
}
