/* SPDX-License-Identifier: Apache-2.0 */
/* The engine as a whole: opening and closing, times, ids and filters. */
#include "engine/engine.h"
#include "engine/network.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container.h"
#include "engine/mounts.h"
#include "image/image.h"

int64_t engine_now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

char *engine_time_text(int64_t ns, char *out)
{
	time_t s = (time_t)(ns / 1000000000);
	struct tm tm;
	char date[24];

	if (ns <= 0) {
		(void)strcpy(out, "0001-01-01T00:00:00Z");
		return out;
	}
	(void)gmtime_r(&s, &tm);
	(void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	(void)snprintf(out, 40, "%s.%09dZ", date, (int)(ns % 1000000000));
	return out;
}

static const char *parse_fraction(const char *p, int64_t *ns)
{
	int64_t unit = 100000000;

	*ns = 0;
	if (*p != '.')
		return p;
	for (p++; *p >= '0' && *p <= '9'; p++, unit /= 10)
		*ns += (*p - '0') * unit;
	return p;
}

int engine_parse_time(const char *text, int64_t *ns)
{
	struct tm tm = { 0 };
	int64_t part;
	char *end;
	int64_t s = strtoll(text, &end, 10);

	if (end == text)
		return -EINVAL;
	if (!*end || *end == '.') {
		if (*parse_fraction(end, &part) || s < 0 || s > INT64_MAX / 1000000000 - 1)
			return -EINVAL;
		*ns = s * 1000000000 + part;
		return 0;
	}
	const char *p = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (!p)
		return -EINVAL;
	p = parse_fraction(p, &part);
	int64_t at = (int64_t)timegm(&tm);
	int h, m;

	if ((*p == '+' || *p == '-') && sscanf(p + 1, "%2d:%2d", &h, &m) == 2)
		at -= (*p == '+' ? 1 : -1) * (h * 3600 + m * 60);
	else if (strcmp(p, "Z"))
		return -EINVAL;
	*ns = at * 1000000000 + part;
	return 0;
}

int engine_parse_until(const char *text, int64_t *ns)
{
	static const struct {
		const char *unit;
		double seconds;
	} units[] = { { "ms", 0.001 }, { "h", 3600 }, { "m", 60 }, { "s", 1 } };
	const char *p = text;
	double sum = 0;

	if (!engine_parse_time(text, ns))
		return 0;
	while (*p) {
		char *end;
		double n = strtod(p, &end);
		size_t i = 0;

		while (i < ARRAY_LEN(units) && strncmp(end, units[i].unit, strlen(units[i].unit)))
			i++;
		if (end == p || i == ARRAY_LEN(units) || n < 0 || n > 1e9)
			return -EINVAL;
		sum += n * units[i].seconds;
		p = end + strlen(units[i].unit);
	}
	*ns = engine_now_ns() - (int64_t)(sum * 1e9);
	return p == text ? -EINVAL : 0;
}

void engine_random_id(char out[65])
{
	unsigned char bytes[32];

	bug_on(getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes));
	for (size_t i = 0; i < sizeof(bytes); i++)
		(void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

json_t *filters_parse(const char *text, struct err *err)
{
	json_t *out = json_object();

	if (!text || !*text)
		return out;
	CLEAN_JSON json_t *in = json_parse(text, strlen(text), "filters", err);
	const char *key;
	json_t *values;

	if (!in || !json_is_object(in)) {
		json_decref(out);
		(void)err_set(err, EINVAL, "invalid filter: not a JSON object");
		return NULL;
	}
	json_object_foreach(in, key, values) {
		json_t *list = json_array();
		const char *value;
		json_t *v;
		size_t i;

		if (json_is_object(values))
			json_object_foreach(values, value, v)
				(void)json_array_append_new(list, json_string(value));
		else
			json_array_foreach(values, i, v)
				if (json_is_string(v))
					(void)json_array_append(list, v);
		(void)json_object_set_new(out, key, list);
	}
	return out;
}

int filters_known(const json_t *filters, const char *const *keys, struct err *err)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)filters, key, v) {
		const char *const *k = keys;

		while (*k && strcmp(*k, key))
			k++;
		if (!*k)
			return err_set(err, EINVAL, "invalid filter '%s'", key);
	}
	return 0;
}

bool filters_match(const json_t *filters, const char *key, const char *value)
{
	const json_t *list = json_object_get(filters, key);
	size_t i;
	json_t *v;

	if (!json_array_size(list))
		return true;
	json_array_foreach(list, i, v)
		if (!strcmp(json_string_value(v), value))
			return true;
	return false;
}

bool filters_match_labels(const json_t *filters, const json_t *labels)
{
	size_t i;
	json_t *v;

	json_array_foreach(json_object_get(filters, "label"), i, v) {
		CLEAN_FREE char *key = strdup(json_string_value(v));
		char *eq = key ? strchr(key, '=') : NULL;

		if (eq)
			*eq = 0;
		const char *have = key ? json_str(labels, key, NULL) : NULL;

		if (!have || (eq && strcmp(have, eq + 1)))
			return false;
	}
	return true;
}

const char *engine_isolation_name(enum engine_isolation i)
{
	return i == ENGINE_ISOLATION_HYPERV ? "hyperv" : "process";
}

void engine_counts(const struct engine *e, int *running, int *paused, int *stopped)
{
	*running = *paused = *stopped = 0;
	for (const struct engine_container *c = e->containers; c; c = c->next)
		++*(c->state == ENGINE_RUNNING ? running : c->state == ENGINE_PAUSED ? paused : stopped);
}

enum image_use engine_image_use(void *arg, const char *image_id, char *why, size_t why_size)
{
	bool running;
	const char *id = engine_image_in_use(arg, image_id, &running);

	if (!id)
		return IMAGE_UNUSED;
	(void)snprintf(why, why_size, "%.12s", id);
	return running ? IMAGE_USED_RUNNING : IMAGE_USED_STOPPED;
}

const char *engine_image_in_use(const struct engine *e, const char *image_id, bool *running)
{
	const char *found = NULL;

	if (running)
		*running = false;
	for (const struct engine_container *c = e->containers; c; c = c->next) {
		if (strcmp(c->image_id, image_id))
			continue;
		if (c->state == ENGINE_RUNNING || c->state == ENGINE_PAUSED || c->state == ENGINE_RESTARTING) {
			if (running)
				*running = true;
			return c->id;
		}
		found = c->id;
	}
	return found;
}

char *engine_find_program(const struct engine *e, const char *name)
{
	/* beside walnutd; in a build tree (src/api beside src/shim); libexec; PATH */
	static const char *const places[] = { "%s/%s", "%s/../libexec/walnut/%s", "%s/../lib/walnut/%s" };
	char path[PATH_MAX];

	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		(void)snprintf(path, sizeof(path), places[i], e->self_dir, name);
#pragma GCC diagnostic pop
		if (!access(path, X_OK))
			return strdup(path);
	}
	const char *dash = strchr(name, '-');

	if (dash) {
		(void)snprintf(path, sizeof(path), "%s/../%s/%s", e->self_dir, dash + 1, name);
		if (!access(path, X_OK))
			return strdup(path);
	}
	const char *search = getenv("PATH");
	CLEAN_FREE char *dirs = strdup(search ? search : "/usr/local/bin:/usr/bin:/bin");
	char *save = NULL;

	for (char *d = dirs ? strtok_r(dirs, ":", &save) : NULL; d; d = strtok_r(NULL, ":", &save)) {
		(void)snprintf(path, sizeof(path), "%s/%s", d, name);
		if (!access(path, X_OK))
			return strdup(path);
	}
	return NULL;
}

static int engine_make_dirs(struct engine *e, struct err *err)
{
	char path[PATH_MAX];
	static const char *const below[] = { "containers" };
	int rc = fd_mkdir_p(e->config.data_root, 0711, err);

	for (size_t i = 0; !rc && i < ARRAY_LEN(below); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", e->config.data_root, below[i]);
		rc = fd_mkdir_p(path, 0710, err);
	}
	(void)snprintf(path, sizeof(path), "%s/containers", e->config.exec_root);
	return rc ? rc : fd_mkdir_p(path, 0710, err);
}

static int engine_open_images(struct engine *e, struct err *err)
{
	char tmp[PATH_MAX];
	CLEAN_FREE char *worker = engine_find_program(e, "walnut-worker");
	struct image_options options = e->config.images;

	options.data = e->config.data_root;
	options.worker = worker;
	(void)snprintf(tmp, sizeof(tmp), "%s/tmp", e->config.data_root);
	int rc = fd_remove_tree(AT_FDCWD, tmp, err);

	if (rc < 0)
		return rc;
	e->images = image_store_open(&options, err);
	return e->images ? 0 : -err->code;
}

int engine_open(struct engine **out, struct loop *l, struct engine_config *config, struct err *err)
{
	struct engine *e = calloc(1, sizeof(*e));
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (!e || !(e->events = events_new())) {
		free(e);
		return err_sys(err, ENOMEM, "start the engine");
	}
	e->loop = l;
	e->config = *config;
	e->started_ns = engine_now_ns();
	self[n > 0 ? n : 0] = 0;
	if (strrchr(self, '/'))
		*strrchr(self, '/') = 0;
	e->self_dir = strdup(self);
	int rc = engine_make_dirs(e, err);

	if (!rc)
		rc = db_open(e, err);
	if (!rc)
		rc = engine_open_images(e, err);
	if (!rc)
		rc = volumes_load(e, err);
	if (!rc)
		rc = engine_networks_open(e, err);
	if (!rc)
		rc = engine_container_adopt_all(e, err);
	if (rc) {
		engine_close(e);
		return rc;
	}
	*out = e;
	return 0;
}

void engine_close(struct engine *e)
{
	engine_networks_close(e);
	while (e->containers) {
		struct engine_container *c = e->containers;

		e->containers = c->next;
		engine_container_free(c);
	}
	volumes_free(e);
	if (e->images)
		image_store_free(e->images);
	db_close(e);
	events_free(e->events);
	free(e->seccomp);
	free(e->seccomp_key);
	free(e->self_dir);
	free(e);
}
