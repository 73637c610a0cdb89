/* SPDX-License-Identifier: Apache-2.0 */
/* A container's life: the state machine, driven by requests and by its shim's events. */
#include "engine/container.h"

#include "engine/accelerator.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"

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

static void container_move(struct engine_container *c, enum engine_state to)
{
	bug_on(!(state_moves[c->state] & (1U << to)));
	c->state = to;
}

static bool container_live(const struct engine_container *c)
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
	CLEAN_JSON json_t *config = json_pack("{s:O, s:O, s:s, s:I}", "Config", c->config, "HostConfig", c->host_config,
					      "ImageID", c->image_id, "Created", (json_int_t)c->created_ns);
	CLEAN_JSON json_t *state =
		json_pack("{s:s, s:I, s:I, s:i, s:i, s:b, s:s, s:i, s:b}", "Status", state_names[c->state], "StartedAt",
			  (json_int_t)c->started_ns, "FinishedAt", (json_int_t)c->finished_ns, "Pid", (int)c->pid,
			  "ExitCode", c->exit_code, "OOMKilled", c->oom_killed, "Error", c->error, "RestartCount",
			  c->restart_count, "ManualStop", c->manual_stop);

	if (db_put_container(c->engine, c->id, c->name, config, state, &err))
		log_error("container %.12s: %s", c->id, err.msg);
}

static int container_paths(struct engine_container *c)
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
	free(c->name);
	free(c->image_id);
	free(c->data_dir);
	free(c->run_dir);
	free(c->log_path);
	free(c);
}

/* ---- creation ---- */

static const char *const adjectives[] = { "amber", "brave", "calm",   "clever", "eager", "gentle", "happy", "keen",
					  "lucid", "merry", "nimble", "quiet",  "rapid", "sharp",  "sunny", "witty" };
static const char *const nouns[] = { "acorn", "birch", "cedar", "elm",   "fern",   "hazel",   "juniper", "larch",
				     "maple", "oak",   "pecan", "rowan", "spruce", "thistle", "walnut",  "willow" };

static bool name_taken(struct engine *e, const char *name, const char **by)
{
	for (struct engine_container *c = e->containers; c; c = c->next)
		if (!strcmp(c->name, name)) {
			*by = c->id;
			return true;
		}
	return false;
}

static int name_check(struct engine *e, const char *name, struct err *err)
{
	static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	static const char rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
	const char *by = "";

	if (!*name || !strchr(first, *name) || !name[1] || name[strspn(name, rest)])
		return err_set(err, EINVAL, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
			       name);
	if (name_taken(e, name, &by))
		return err_set(err, EEXIST,
			       "Conflict. The container name \"/%s\" is already in use by container \"%s\". "
			       "You have to remove (or rename) that container to be able to reuse that name.",
			       name, by);
	return 0;
}

static char *name_invent(struct engine *e, const char *id)
{
	const char *by;
	char *name = NULL;
	unsigned seed = (unsigned)strtoul((char[]){ id[0], id[1], id[2], id[3], 0 }, NULL, 16);

	for (unsigned i = 0; i < 4096; i++, seed += 7919) {
		free(name);
		if (asprintf(&name, i < 64 ? "%s_%s" : "%s_%s%u", adjectives[seed % 16], nouns[seed / 16 % 16], i) < 0)
			return NULL;
		if (!name_taken(e, name, &by))
			break;
	}
	return name;
}

static bool json_nonempty(const json_t *v)
{
	switch (json_typeof(v ? v : json_null())) {
	case JSON_OBJECT: return json_object_size(v);
	case JSON_ARRAY: return json_array_size(v);
	case JSON_STRING: return json_string_length(v);
	case JSON_INTEGER: return json_integer_value(v) != 0;
	case JSON_REAL: return true;
	case JSON_TRUE: return true;
	default: return false;
	}
}

/* Docker's sizes: a number with k, m, g, t or p, with or without b; @base is 1000 or 1024. Return: bytes, or -1. */
static int64_t parse_size(const char *text, int64_t base)
{
	static const char units[] = "kmgtp";
	char *end;
	double n = strtod(text, &end);
	const char *unit;

	if (end == text || n < 0 || !strchr("0123456789.", *text))
		return -1;
	while (*end == ' ')
		end++;
	unit = *end ? strchr(units, *end | 0x20) : NULL;
	if (unit) {
		for (const char *u = units; u <= unit; u++)
			n *= (double)base;
		end++;
		if (*end == 'i')
			end++;
	}
	if (*end == 'b' || *end == 'B')
		end++;
	return *end || n > 9e18 ? -1 : (int64_t)n;
}

static int check_log(const json_t *log, struct err *err)
{
	const char *type = json_str(log, "Type", ""), *key, *text;
	json_t *v;
	char *end;

	if (*type && strcmp(type, "json-file") && strcmp(type, "none"))
		return err_set(err, ENOSYS, "log driver %s is not supported by this version of Walnut", type);
	json_object_foreach(json_object_get(log, "Config"), key, v) {
		text = json_string_value(v) ?: "";
		if (!strcmp(key, "max-size")) {
			if (parse_size(text, 1000) < 0 && strcmp(text, "-1"))
				return err_set(err, EINVAL, "invalid value for max-size: invalid size: '%s'", text);
		} else if (!strcmp(key, "max-file")) {
			if (strtol(text, &end, 10) < 1 || *end || end == text)
				return err_set(err, EINVAL,
					       "invalid value for max-file: '%s': it is a number of at least 1", text);
		} else {
			return err_set(
				err, EINVAL,
				"log opt '%s' is not supported by this version of Walnut for the json-file log driver",
				key);
		}
	}
	return 0;
}

static int check_storage(const json_t *options, enum engine_isolation isolation, struct err *err)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)options, key, v) {
		if (strcasecmp(key, "size"))
			return err_set(err, EINVAL, "unknown option %s for --storage-opt: the only one is size", key);
		if (parse_size(json_string_value(v) ?: "", 1024) < 16 << 20)
			return err_set(err, EINVAL, "--storage-opt size=%s is not a size of at least 16m",
				       json_string_value(v) ?: "");
		if (isolation == ENGINE_ISOLATION_PROCESS)
			return err_set(err, EINVAL,
				       "--storage-opt size is supported only with --isolation=hyperv: "
				       "overlay on this backing filesystem has no project quota");
	}
	return 0;
}

static int check_security(const json_t *options, struct err *err)
{
	static const char *const known[] = { "no-new-privileges",       "no-new-privileges:true",
					     "no-new-privileges=true",  "no-new-privileges:false",
					     "no-new-privileges=false", "seccomp=unconfined",
					     "seccomp:unconfined",      "seccomp=builtin",
					     "apparmor=unconfined",     "apparmor:unconfined",
					     "label=disable",           "label:disable" };
	bool apparmor = !access("/sys/kernel/security/apparmor", F_OK),
	     selinux = !access("/sys/fs/selinux/enforce", F_OK);
	size_t i;
	json_t *v;

	json_array_foreach(options, i, v) {
		const char *text = json_string_value(v) ?: "";
		bool ok = false;

		for (size_t k = 0; k < ARRAY_LEN(known); k++)
			ok = ok || !strcmp(text, known[k]);
		/* as with Docker, a module that this host does not have is not asked */
		ok = ok || (!apparmor && !strncmp(text, "apparmor", 8) && strchr("=:", text[8]) && text[8]);
		ok = ok || (!selinux && !strncmp(text, "label", 5) && strchr("=:", text[5]) && text[5]);
		if (!ok)
			return err_set(err, ENOSYS, "SecurityOpt %.200s is not supported by this version of Walnut",
				       text);
	}
	return 0;
}

static int container_refuse(const json_t *config, const json_t *host, enum engine_isolation isolation, struct err *err)
{
	static const char *const host_keys[] = { "Binds",
						 "Mounts",
						 "PortBindings",
						 "PublishAllPorts",
						 "Devices",
						 "DeviceRequests",
						 "DeviceCgroupRules",
						 "Links",
						 "VolumesFrom",
						 "CgroupParent",
						 "Cgroup",
						 "UsernsMode",
						 "UTSMode",
						 "VolumeDriver",
						 "Dns",
						 "DnsOptions",
						 "DnsSearch",
						 "ExtraHosts",
						 "GroupAdd",
						 "BlkioWeight",
						 "BlkioWeightDevice",
						 "BlkioDeviceReadBps",
						 "BlkioDeviceWriteBps",
						 "BlkioDeviceReadIOps",
						 "BlkioDeviceWriteIOps",
						 "CpuRealtimePeriod",
						 "CpuRealtimeRuntime",
						 "CpuCount",
						 "CpuPercent",
						 "IOMaximumIOps",
						 "IOMaximumBandwidth" };
	const char *network = json_str(host, "NetworkMode", "default");
	const char *runtime = json_str(host, "Runtime", "");
	static const char *const modes[] = { "PidMode", "IpcMode" };

	for (size_t i = 0; i < ARRAY_LEN(host_keys); i++)
		if (json_nonempty(json_object_get(host, host_keys[i])))
			return err_set(err, ENOSYS, "HostConfig.%s is not supported by this version of Walnut",
				       host_keys[i]);
	if (json_nonempty(json_object_get(config, "Volumes")))
		return err_set(err, ENOSYS, "Volumes are not supported by this version of Walnut");
	const json_t *health = json_object_get(json_object_get(config, "Healthcheck"), "Test");

	if (json_array_size(health) && strcmp(json_string_value(json_array_get(health, 0)) ?: "", "NONE"))
		return err_set(err, ENOSYS, "Healthcheck is not supported by this version of Walnut");
	if (*runtime)
		return err_set(err, EINVAL, "unknown or invalid runtime name: %s", runtime);
	if (*network && strcmp(network, "default") && strcmp(network, "none") && strcmp(network, "bridge") &&
	    strcmp(network, "host"))
		return err_set(err, ENOSYS, "NetworkMode %s is not supported by this version of Walnut", network);
	if (!strcmp(network, "host") && isolation == ENGINE_ISOLATION_HYPERV)
		return err_set(err, EINVAL, "NetworkMode host is only possible with --isolation=process");
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		const char *mode = json_str(host, modes[i], "");

		if (*mode && strcmp(mode, "private") && (strcmp(mode, "shareable") || i == 0))
			return err_set(err, ENOSYS, "HostConfig.%s=%s is not supported by this version of Walnut",
				       modes[i], mode);
	}
	if (check_log(json_object_get(host, "LogConfig"), err) ||
	    check_storage(json_object_get(host, "StorageOpt"), isolation, err) ||
	    check_security(json_object_get(host, "SecurityOpt"), err))
		return -err->code;
	return 0;
}

static void merge_default(json_t *config, const json_t *image, const char *key)
{
	if (!json_nonempty(json_object_get(config, key)) && json_nonempty(json_object_get(image, key)))
		(void)json_object_set_new(config, key, json_deep_copy(json_object_get(image, key)));
}

static void merge_env(json_t *config, const json_t *image)
{
	json_t *env = json_object_get(config, "Env"), *v, *w;
	size_t i, j;

	if (!json_is_array(env)) {
		env = json_array();
		(void)json_object_set_new(config, "Env", env);
	}
	json_array_foreach(json_object_get(image, "Env"), i, v) {
		const char *text = json_string_value(v) ?: "";
		size_t n = strcspn(text, "=");
		bool have = false;

		json_array_foreach(env, j, w) {
			const char *other = json_string_value(w) ?: "";

			have = have || (strcspn(other, "=") == n && !strncmp(other, text, n));
		}
		if (!have)
			(void)json_array_append(env, v);
	}
}

static int container_merge(json_t *config, const json_t *image, struct err *err)
{
	static const char *const keys[] = { "User", "WorkingDir", "StopSignal", "ExposedPorts" };
	const json_t *entry = json_object_get(config, "Entrypoint");
	json_t *labels =
		json_object_get(image, "Labels") ? json_deep_copy(json_object_get(image, "Labels")) : json_object();

	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		merge_default(config, image, keys[i]);
	merge_env(config, image);
	if (!json_is_object(labels)) {
		json_decref(labels);
		labels = json_object();
	}
	if (json_is_object(json_object_get(config, "Labels")))
		(void)json_object_update(labels, json_object_get(config, "Labels"));
	(void)json_object_set_new(config, "Labels", labels);
	/* an Entrypoint of the request drops the image's Cmd; [""] clears the image's Entrypoint */
	if (!json_array_size(entry)) {
		if (!json_array_size(json_object_get(config, "Cmd")))
			merge_default(config, image, "Cmd");
		merge_default(config, image, "Entrypoint");
	} else if (json_array_size(entry) == 1 && !*(json_string_value(json_array_get(entry, 0)) ?: "")) {
		(void)json_object_set_new(config, "Entrypoint", json_null());
	}
	if (!json_array_size(json_object_get(config, "Cmd")) && !json_array_size(json_object_get(config, "Entrypoint")))
		return err_set(err, EINVAL, "no command specified");
	return 0;
}

static int parse_isolation(struct engine *e, const char *text, enum engine_isolation *out, struct err *err)
{
	*out = e->config.isolation;
	if (!strcasecmp(text, "process"))
		*out = ENGINE_ISOLATION_PROCESS;
	else if (!strcasecmp(text, "hyperv"))
		*out = ENGINE_ISOLATION_HYPERV;
	else if (*text && strcasecmp(text, "default"))
		return err_set(err, EINVAL, "invalid isolation '%s': it is default, process or hyperv", text);
	return 0;
}

static int container_check_limits(const json_t *host, struct err *err)
{
	int64_t memory = json_int(host, "Memory", 0);
	const json_t *restart = json_object_get(host, "RestartPolicy");
	const char *policy = json_str(restart, "Name", "");
	struct err ignored;

	(void)ignored;
	if (memory && memory < 6 * 1024 * 1024)
		return err_set(err, EINVAL, "Minimum memory limit allowed is 6MB");
	if (*policy && strcmp(policy, "no") && strcmp(policy, "always") && strcmp(policy, "unless-stopped") &&
	    strcmp(policy, "on-failure"))
		return err_set(err, EINVAL, "invalid restart policy: unknown policy '%s'", policy);
	if (json_bool(host, "AutoRemove", false) && *policy && strcmp(policy, "no"))
		return err_set(err, EINVAL, "can't create 'AutoRemove' container with restart policy");
	return 0;
}

static void container_defaults(struct engine_container *c)
{
	static const struct {
		const char *key, *json;
	} defaults[] = { { "NetworkMode", "\"default\"" },
			 { "IpcMode", "\"private\"" },
			 { "CgroupnsMode", "\"private\"" },
			 { "ShmSize", "67108864" },
			 { "LogConfig", "{\"Type\":\"json-file\",\"Config\":{}}" },
			 { "RestartPolicy", "{\"Name\":\"no\",\"MaximumRetryCount\":0}" } };

	for (size_t i = 0; i < ARRAY_LEN(defaults); i++) {
		const json_t *have = json_object_get(c->host_config, defaults[i].key);

		if (!json_nonempty(have) ||
		    (json_is_object(have) && !*json_str(have, "Type", json_str(have, "Name", ""))))
			(void)json_object_set_new(c->host_config, defaults[i].key,
						  json_loads(defaults[i].json, JSON_DECODE_ANY, NULL));
	}
	(void)json_object_set_new(c->host_config, "Isolation", json_string(engine_isolation_name(c->isolation)));
	if (!*json_str(c->config, "Hostname", "")) {
		char host[13];

		(void)snprintf(host, sizeof(host), "%.12s", c->id);
		(void)json_object_set_new(c->config, "Hostname", json_string(host));
	}
}

static int container_make(struct engine_container *c, const json_t *body, struct err *err)
{
	struct engine *e = c->engine;
	const char *ref = json_str(body, "Image", "");
	const json_t *host = json_object_get(body, "HostConfig");

	c->config = json_deep_copy(body);
	c->host_config = json_is_object(host) ? json_deep_copy(host) : json_object();
	(void)json_object_del(c->config, "HostConfig");
	(void)json_object_del(c->config, "NetworkingConfig");
	if (parse_isolation(e, json_str(host, "Isolation", ""), &c->isolation, err) ||
	    container_refuse(c->config, c->host_config, c->isolation, err) ||
	    container_check_limits(c->host_config, err))
		return -err->code;
	const struct image *im = image_find(e->images, ref, err);

	if (!im)
		return -err->code;
	c->image_id = strdup(im->id);
	const json_t *image_config = json_object_get(im->config, "config");

	if (container_merge(c->config, image_config, err))
		return -err->code;
	if (*json_str(c->config, "StopSignal", "") &&
	    engine_signal_number(json_str(c->config, "StopSignal", ""), err) < 0)
		return -err->code;
	container_defaults(c);
	if (!c->image_id || container_paths(c))
		return err_sys(err, ENOMEM, "create a container");
	return fd_mkdir_p(c->data_dir, 0710, err);
}

int engine_container_create(struct engine *e, const char *name, const json_t *body, json_t *warnings,
			    struct engine_container **out, struct err *err)
{
	if (name && *name == '/')
		name++;
	if (name && *name && name_check(e, name, err))
		return -err->code;
	struct engine_container *c = calloc(1, sizeof(*c));

	if (!c)
		return err_sys(err, ENOMEM, "create a container");
	c->engine = e;
	engine_random_id(c->id);
	c->created_ns = engine_now_ns();
	c->name = name && *name ? strdup(name) : name_invent(e, c->id);
	if (!c->name || container_make(c, body, err)) {
		engine_container_free(c);
		return -(err->code ? err->code : ENOMEM);
	}
	c->next = e->containers;
	e->containers = c;
	engine_container_save(c);
	engine_container_event(c, "create", NULL);
	*out = c;
	return 0;
}

int engine_container_rename(struct engine_container *c, const char *name, struct err *err)
{
	if (*name == '/')
		name++;
	if (!*name)
		return err_set(err, EINVAL, "Neither old nor new names may be empty");
	if (!strcmp(name, c->name))
		return err_set(err, EINVAL, "Renaming a container with the same name as its current name");
	if (name_check(c->engine, name, err))
		return -err->code;
	char *copy = strdup(name);

	if (!copy)
		return err_sys(err, ENOMEM, "rename");
	json_t *old = json_pack("{s:s+}", "oldName", "/", c->name);

	free(c->name);
	c->name = copy;
	engine_container_save(c);
	engine_container_event(c, "rename", old);
	return 0;
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

static void container_fire(struct engine_container *c, bool removed)
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

/* ---- start ---- */

struct start_call {
	struct engine_container *c;
	engine_done_fn done;
	void *arg;
};

struct shim_client *engine_container_shim(struct engine_container *c, struct err *err)
{
	if (!c->shim && shim_client_spawn(c, &c->shim, err))
		return NULL;
	return c->shim;
}

static void container_release_shim(struct engine_container *c)
{
	if (!c->shim)
		return;
	shim_client_call(c->shim, "shutdown", NULL, NULL, 0, NULL, NULL);
	shim_client_free(c->shim);
	c->shim = NULL;
}

static int start_exit_code(const struct err *err)
{
	if (strstr(err->msg, "executable file not found") || strstr(err->msg, "no such file or directory") ||
	    strstr(err->msg, "No such file or directory"))
		return 127;
	return err->code == EACCES || strstr(err->msg, "permission denied") || strstr(err->msg, "Permission denied")
		       ? 126
		       : 128;
}

static void container_maybe_remove(struct engine_container *c)
{
	if (json_bool(c->host_config, "AutoRemove", false) && !c->removing)
		engine_container_remove(c, false, NULL, NULL);
}

static void container_start_failed(struct start_call *call, const struct err *why)
{
	struct engine_container *c = call->c;
	struct err err = ERR_INIT;

	c->starting = false;
	c->exit_code = start_exit_code(why);
	/* 127 and 126 are the container's own fault: Docker answers 400 */
	(void)err_set(&err, c->exit_code == 128 ? EIO : EINVAL, "failed to create task for container: %.400s: unknown",
		      why->msg);
	(void)snprintf(c->error, sizeof(c->error), "%s", err.msg);
	c->finished_ns = c->finished_ns;
	container_release_shim(c);
	if (c->state == ENGINE_RESTARTING)
		container_move(c, ENGINE_EXITED);
	engine_container_save(c);
	if (call->done)
		call->done(c, &err, call->arg);
	free(call);
	container_fire(c, false);
	container_maybe_remove(c);
}

static void container_started(json_t *result, const struct err *err, void *arg)
{
	struct start_call *call = arg;
	struct engine_container *c = call->c;

	if (err) {
		container_start_failed(call, err);
		return;
	}
	c->starting = false;
	if (!container_live(c))
		container_move(c, ENGINE_RUNNING);
	c->pid = (pid_t)json_int(result, "pid", 0);
	c->started_ns = json_int(result, "started_at_ns", engine_now_ns());
	engine_container_save(c);
	engine_container_event(c, "start", NULL);
	if (call->done)
		call->done(c, NULL, call->arg);
	free(call);
}

static json_t *container_layers(struct engine_container *c, struct err *err)
{
	const struct image *im = image_find(c->engine->images, c->image_id, err);
	json_t *layers = im ? json_array() : NULL;

	for (size_t i = 0; im && i < im->nlayers; i++)
		(void)json_array_append_new(layers, json_string(im->layers[i].erofs_path));
	return layers;
}

static json_t *container_vm(struct engine_container *c, struct err *err)
{
	static const char *const dirs[] = { "%s/../lib/walnut/nano", "%s/nano", "%s/../nano", "%s/../../nano" };
	const char *env = getenv("WALNUT_NANO_DIR");
	int64_t memory = json_int(c->host_config, "Memory", 0);
	int64_t cpus = (json_int(c->host_config, "NanoCpus", 0) + 999999999) / 1000000000;
	struct accelerator accelerator;
	char dir[PATH_MAX] = "", kernel[PATH_MAX + 16], initrd[PATH_MAX + 16];

	if (env)
		(void)snprintf(dir, sizeof(dir), "%s", env);
	for (size_t i = 0; !env && i < ARRAY_LEN(dirs); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		(void)snprintf(dir, sizeof(dir), dirs[i], c->engine->self_dir);
#pragma GCC diagnostic pop
		(void)snprintf(kernel, sizeof(kernel), "%s/vmlinux", dir);
		if (!access(kernel, R_OK))
			break;
	}
	if (accelerator_choose(c->engine->config.accelerator, &accelerator, err) < 0)
		return NULL;
	if (accelerator.kind == ACCELERATOR_NONE) {
		(void)err_set(err, EIO, "hyperv isolation is not available: %s", accelerator.reason);
		return NULL;
	}
	(void)snprintf(kernel, sizeof(kernel), "%s/vmlinux", dir);
	(void)snprintf(initrd, sizeof(initrd), "%s/initramfs.cpio", dir);
	if (access(kernel, R_OK) || access(initrd, R_OK)) {
		(void)err_set(
			err, ENOENT,
			"hyperv isolation needs the guest kernel and initramfs (vmlinux, initramfs.cpio: 'make nano' builds them), "
			"which are not there; set WALNUT_NANO_DIR to their folder");
		err->code = EIO;
		return NULL;
	}
	return json_pack("{s:s, s:s, s:I, s:I, s:s}", "kernel", kernel, "initrd", initrd, "memory_bytes",
			 (json_int_t)(memory ? memory + (64 << 20) : 512 << 20), "vcpus", (json_int_t)(cpus ? cpus : 1),
			 "accelerator", accelerator_name(accelerator.kind));
}

/* The init that --init asks for: a path of the host, or any for a guest, which has its own. */
static int container_init(struct engine_container *c, char **out, struct err *err)
{
	char path[PATH_MAX];

	if (c->isolation == ENGINE_ISOLATION_HYPERV) {
		*out = strdup("/walnut-init");
	} else if (!(*out = engine_find_program(c->engine, "walnut-init"))) {
		(void)snprintf(path, sizeof(path), "%s/walnut-init", getenv("WALNUT_NANO_DIR") ?: "/nonexistent");
		if (!access(path, X_OK))
			*out = strdup(path);
	}
	return *out ? 0
		    : err_set(err, EIO,
			      "--init needs the program walnut-init ('make nano' builds it), which is not beside walnutd");
}

static json_t *container_start_params(struct engine_container *c, json_t *spec, bool seccomp, struct err *err)
{
	bool hyperv = c->isolation == ENGINE_ISOLATION_HYPERV;
	const json_t *log = json_object_get(c->host_config, "LogConfig");
	const json_t *log_options = json_object_get(log, "Config");
	CLEAN_JSON json_t *layers = container_layers(c, err);
	CLEAN_JSON json_t *vm = layers && hyperv ? container_vm(c, err) : json_null();
	CLEAN_FREE char *init = NULL;
	const char *size = json_str(json_object_get(c->host_config, "StorageOpt"), "size", "");
	int64_t scratch_size = SCRATCH_SIZE, max_size = 0;

	if (json_bool(c->host_config, "Init", false) && container_init(c, &init, err))
		return NULL;
	if ((*size && (scratch_size = parse_size(size, 1024)) < 0) ||
	    (max_size = parse_size(json_str(log_options, "max-size", "0"), 1000)) < 0)
		max_size = 0; /* both were checked when the container was created */

	if (!layers || !vm)
		return NULL;
	json_t *p = json_pack("{s:O, s:s, s:b, s:b, s:{s:s, s:s, s:I, s:i}, s:{s:O}, s:s+, s:b, s:{s:i, s:i}}", "spec",
			      spec, "isolation", engine_isolation_name(c->isolation), "stdin_open",
			      json_bool(c->config, "OpenStdin", false), "stdin_once",
			      json_bool(c->config, "StdinOnce", false), "log", "driver",
			      json_str(log, "Type", "json-file"), "path", c->log_path, "max_size", (json_int_t)max_size,
			      "max_file", atoi(json_str(log_options, "max-file", "1")), "rootfs", "layers", layers,
			      "cgroup_path", "/walnut/", c->id, "seccomp", seccomp, "console", "height",
			      c->console_height, "width", c->console_width);
	json_t *rootfs = json_object_get(p, "rootfs");
	char path[PATH_MAX];

	if (hyperv) {
		(void)snprintf(path, sizeof(path), "%s/scratch.ext4", c->data_dir);
		(void)json_object_set_new(rootfs, "scratch", json_string(path));
		(void)json_object_set_new(rootfs, "scratch_size", json_integer(scratch_size));
		(void)json_object_set(p, "vm", vm);
	} else {
		(void)snprintf(path, sizeof(path), "%s/upper", c->data_dir);
		(void)json_object_set_new(rootfs, "upper", json_string(path));
		(void)snprintf(path, sizeof(path), "%s/work", c->data_dir);
		(void)json_object_set_new(rootfs, "work", json_string(path));
	}
	if (init)
		(void)json_object_set_new(p, "init_path", json_string(init));
	return p;
}

static int container_prepare(struct engine_container *c, struct err *err)
{
	char path[PATH_MAX];
	static const char *const subdirs[] = { "upper", "work" };

	(void)snprintf(path, sizeof(path), "%s/exit.json", c->data_dir);
	(void)unlink(path);
	if (c->isolation == ENGINE_ISOLATION_HYPERV)
		return 0; /* the shim makes the scratch disk */
	for (size_t i = 0; i < ARRAY_LEN(subdirs); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", c->data_dir, subdirs[i]);
		if (fd_mkdir_p(path, i ? 0700 : 0755, err))
			return -err->code;
	}
	return 0;
}

void engine_container_start(struct engine_container *c, engine_done_fn done, void *arg)
{
	struct err err = ERR_INIT;
	struct start_call *call = calloc(1, sizeof(*call));
	CLEAN_FD int bpf = -1;

	if (container_live(c) || c->starting) {
		free(call);
		(void)err_set(&err, EALREADY, "container already started");
		if (done)
			done(c, &err, arg);
		return;
	}
	bug_on(!call);
	*call = (struct start_call){ c, done, arg };
	c->starting = true;
	c->manual_stop = false;
	c->error[0] = 0;
	c->oom_killed = false;
	CLEAN_JSON json_t *spec = container_prepare(c, &err) ? NULL : spec_build(c, &err);

	if (spec && spec_uses_seccomp(c))
		bpf = spec_seccomp_memfd(c, spec, &err);
	json_t *params = spec && !err.code ? container_start_params(c, spec, bpf >= 0, &err) : NULL;
	struct shim_client *shim = params ? engine_container_shim(c, &err) : NULL;

	if (!shim) {
		json_decref(params);
		container_start_failed(call, &err);
		return;
	}
	shim_client_call(shim, "start", params, &bpf, bpf >= 0 ? 1 : 0, container_started, call);
}

/* ---- end ---- */

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

static void container_ended(struct engine_container *c, const json_t *exit)
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
	engine_exec_drop_all(c, false);
	container_release_shim(c);
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

void engine_container_on_shim_gone(struct engine_container *c)
{
	char path[PATH_MAX];
	size_t n;

	if (!container_live(c))
		return;
	(void)snprintf(path, sizeof(path), "%s/exit.json", c->data_dir);
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, path, 65536, &n, NULL);
	CLEAN_JSON json_t *exit = text ? json_parse(text, n, "exit.json", NULL) : NULL;

	if (!exit)
		exit = json_pack("{s:i, s:s}", "exit_code", 137, "error", "the container's shim ended unexpectedly");
	container_ended(c, exit);
}

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

void engine_container_update(struct engine_container *c, const json_t *body, engine_done_fn done, void *arg)
{
	struct err err = ERR_INIT;
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)body, key, v)
		if (json_nonempty(v))
			(void)json_object_set(c->host_config, key, v);
	engine_container_save(c);
	engine_container_event(c, "update", NULL);
	CLEAN_JSON json_t *spec = container_live(c) && c->shim ? spec_build(c, &err) : NULL;

	if (spec)
		container_ask(
			c, "update",
			json_pack("{s:O}", "resources", json_object_get(json_object_get(spec, "linux"), "resources")),
			0, done, arg);
	else
		done(c, err.code ? &err : NULL, arg);
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
			      c->name, state_names[c->state]);
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

/* ---- after a restart of the engine ---- */

static void adopt_hello(json_t *result, const struct err *err, void *arg)
{
	struct engine_container *c = arg;

	if (err || !container_live(c))
		return;
	if (!strcmp(json_str(result, "state", ""), "exited"))
		container_ended(c, json_object_get(result, "exit"));
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
	return container_paths(c);
}

int engine_container_adopt_all(struct engine *e, struct err *err)
{
	int rc = db_each_container(e, adopt_one, err);

	for (struct engine_container *c = e->containers, *next; !rc && c; c = next) {
		struct err why = ERR_INIT;
		const char *policy = json_str(json_object_get(c->host_config, "RestartPolicy"), "Name", "no");

		next = c->next;
		if (container_live(c)) {
			if (shim_client_connect(c, &c->shim, &why))
				engine_container_on_shim_gone(c);
			else
				shim_client_call(c->shim, "hello", NULL, NULL, 0, adopt_hello, c);
		} else if (c->state == ENGINE_RESTARTING ||
			   (c->state == ENGINE_EXITED &&
			    (!strcmp(policy, "always") || (!strcmp(policy, "unless-stopped") && !c->manual_stop)))) {
			c->state = ENGINE_EXITED;
			engine_container_start(c, NULL, NULL);
		} else if (json_bool(c->host_config, "AutoRemove", false) && c->state != ENGINE_CREATED) {
			engine_container_remove(c, false, NULL, NULL);
		}
	}
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
