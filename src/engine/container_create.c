/* SPDX-License-Identifier: Apache-2.0 */
/* Making a container from Docker's create body: its name, the image's defaults, its folder; and renaming it. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container_internal.h"
#include "engine/network.h"
#include "engine/mounts.h"

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

/* Config's fields in the order of Docker's inspect (moby, api/types/container/config.go); NULL: shown only when set. */
static const struct {
	const char *key, *otherwise;
	char type;
} config_fields[] = {
	{ "Hostname", "\"\"", 's' },
	{ "Domainname", "\"\"", 's' },
	{ "User", "\"\"", 's' },
	{ "AttachStdin", "false", 'b' },
	{ "AttachStdout", "false", 'b' },
	{ "AttachStderr", "false", 'b' },
	{ "ExposedPorts", NULL, 'o' },
	{ "Tty", "false", 'b' },
	{ "OpenStdin", "false", 'b' },
	{ "StdinOnce", "false", 'b' },
	{ "Env", "[]", 'a' },
	{ "Cmd", "null", 'w' },
	{ "Healthcheck", NULL, 'o' },
	{ "ArgsEscaped", NULL, 'b' },
	{ "Image", "\"\"", 's' },
	{ "Volumes", "null", 'o' },
	{ "WorkingDir", "\"\"", 's' },
	{ "Entrypoint", "null", 'w' },
	{ "NetworkDisabled", NULL, 'b' },
	{ "MacAddress", NULL, 's' },
	{ "OnBuild", "null", 'a' },
	{ "Labels", "{}", 'o' },
	{ "StopSignal", NULL, 's' },
	{ "StopTimeout", NULL, 'i' },
	{ "Shell", NULL, 'w' },
};

static bool config_type(const json_t *v, char type)
{
	switch (type) {
	case 's': return json_is_string(v);
	case 'b': return json_is_boolean(v);
	case 'i': return json_is_integer(v);
	case 'a': return json_is_array(v);
	case 'w': return json_is_array(v) || json_is_string(v); /* a lone string stands for a list of one */
	default: return json_is_object(v);
	}
}

static bool all_strings(const json_t *v)
{
	size_t i;
	json_t *item;

	json_array_foreach(v, i, item)
		if (!json_is_string(item))
			return false;
	return true;
}

/* The request's Config, whole and in order: what Docker does not know is left out. NULL with @err. */
static json_t *config_complete(const json_t *body, struct err *err)
{
	json_t *out = json_object();

	for (size_t i = 0; i < ARRAY_LEN(config_fields); i++) {
		const char *key = config_fields[i].key, *name;
		json_t *have = NULL, *v;

		json_object_foreach((json_t *)body, name, v)
			if (!strcasecmp(name, key) && !json_is_null(v))
				have = v;
		if (have && (!config_type(have, config_fields[i].type) || !all_strings(have))) {
			(void)err_set(err, EINVAL, "%s has the wrong JSON type", key);
			json_decref(out);
			return NULL;
		}
		if (have && json_is_string(have) && config_fields[i].type == 'w')
			(void)json_object_set_new(out, key, json_pack("[O]", have));
		else if (have && ((config_fields[i].otherwise && config_fields[i].type != 'o') || json_nonempty(have) ||
				  json_is_integer(have)))
			(void)json_object_set_new(out, key, json_deep_copy(have));
		else if (config_fields[i].otherwise)
			(void)json_object_set_new(out, key,
						  json_loads(config_fields[i].otherwise, JSON_DECODE_ANY, NULL));
	}
	return out;
}

static void merge_labels(json_t *config, const json_t *image)
{
	const json_t *theirs = json_object_get(image, "Labels");
	json_t *labels = json_is_object(theirs) ? json_deep_copy(theirs) : json_object();

	(void)json_object_update(labels, json_object_get(config, "Labels"));
	(void)json_object_set_new(config, "Labels", labels);
}

/* As Docker: without one of its own the image's; with one, what it leaves at zero comes from the image's. */
static void merge_health(json_t *config, const json_t *image)
{
	const json_t *theirs = json_object_get(image, "Healthcheck");
	json_t *own = json_object_get(config, "Healthcheck"), *v;
	const char *key;

	if (!json_is_object(theirs))
		return;
	if (!own) {
		(void)json_object_set_new(config, "Healthcheck", json_deep_copy(theirs));
		return;
	}
	json_object_foreach((json_t *)theirs, key, v)
		if (!json_nonempty(json_object_get(own, key)))
			(void)json_object_set(own, key, v);
}

static void merge_volumes(json_t *config, const json_t *image)
{
	const json_t *theirs = json_object_get(image, "Volumes");
	json_t *volumes;

	if (!json_nonempty(theirs))
		return;
	volumes = json_deep_copy(theirs);
	(void)json_object_update(volumes, json_object_get(config, "Volumes"));
	(void)json_object_set_new(config, "Volumes", volumes);
}

static int container_merge(json_t *config, const json_t *image, struct err *err)
{
	static const char *const keys[] = {
		"User", "WorkingDir", "StopSignal", "ExposedPorts", "StopTimeout", "Shell"
	};
	const json_t *entry = json_object_get(config, "Entrypoint");

	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		merge_default(config, image, keys[i]);
	merge_volumes(config, image);
	merge_env(config, image);
	merge_labels(config, image);
	merge_health(config, image);
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

static int config_check(const json_t *config, struct err *err)
{
	static const char host_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
	const char *cwd = json_str(config, "WorkingDir", ""), *host = json_str(config, "Hostname", "");
	const char *stop = json_str(config, "StopSignal", "");
	size_t i;
	json_t *v;

	if (*cwd && *cwd != '/')
		return err_set(err, EINVAL,
			       "the working directory '%.200s' is invalid, it needs to be an absolute path", cwd);
	if (strlen(host) > 63 || host[strspn(host, host_chars)])
		return err_set(err, EINVAL, "invalid hostname format: %.100s", host);
	if (*stop && engine_signal_number(stop, err) < 0)
		return -err->code;
	json_array_foreach(json_object_get(config, "Env"), i, v) {
		const char *text = json_string_value(v);

		if (!*text || *text == '=')
			return err_set(err, EINVAL, "invalid environment variable: %.200s", text);
	}
	return 0;
}

static void default_hostname(struct engine_container *c)
{
	char host[65] = "";

	if (*json_str(c->config, "Hostname", ""))
		return;
	/* as Docker: with the host's network or UTS namespace the host's name */
	if (!strcmp(json_str(c->host_config, "NetworkMode", ""), "host") ||
	    !strcmp(json_str(c->host_config, "UTSMode", ""), "host"))
		(void)gethostname(host, sizeof(host) - 1);
	else
		(void)snprintf(host, sizeof(host), "%.12s", c->id);
	(void)json_object_set_new(c->config, "Hostname", json_string(host));
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

/* --runtime=process and --runtime=hyperv say what --isolation says; together they must agree. */
static int resolve_isolation(struct engine_container *c, const json_t *host, struct err *err)
{
	const char *runtime = json_str(host, "Runtime", ""), *isolation = json_str(host, "Isolation", "");
	bool named = !strcmp(runtime, "process") || !strcmp(runtime, "hyperv");

	if (named && *isolation && strcasecmp(isolation, "default") && strcasecmp(isolation, runtime))
		return err_set(err, EINVAL, "--runtime=%s and --isolation=%.20s contradict each other", runtime,
			       isolation);
	return parse_isolation(c->engine, named ? runtime : isolation, &c->isolation, err);
}

static int container_make(struct engine_container *c, const json_t *body, struct err *err)
{
	const json_t *host = json_object_get(body, "HostConfig");

	if (host && !json_is_object(host) && !json_is_null(host))
		return err_set(err, EINVAL, "HostConfig has the wrong JSON type");
	c->config = config_complete(body, err);
	c->host_config = json_is_object(host) ? json_deep_copy(host) : json_object();
	if (!c->config || resolve_isolation(c, host, err) ||
	    container_refuse(c->config, c->host_config, c->isolation, err) ||
	    mounts_refuse(c->config, c->host_config, c->isolation, err) ||
	    container_check_limits(c->host_config, err) || config_check(c->config, err))
		return -err->code;
	const struct image *im = image_find(c->engine->images, json_str(c->config, "Image", ""), err);

	if (!im)
		return -err->code;
	/* what can not be started here is not made either: nothing is left behind */
	if (c->isolation == ENGINE_ISOLATION_HYPERV && container_check_machine(c->engine, err) < 0)
		return -err->code;
	c->image_id = strdup(im->id);
	if (container_merge(c->config, json_object_get(im->config, "config"), err) || config_check(c->config, err))
		return -err->code;
	container_defaults(c);
	if (publish_check(c->config, c->host_config, err) ||
	    endpoints_create(c, json_object_get(body, "NetworkingConfig"), err))
		return -err->code;
	default_hostname(c);
	if (!c->image_id || container_paths(c))
		return err_sys(err, ENOMEM, "create a container");
	if (fd_mkdir_p(c->data_dir, 0710, err))
		return -err->code;
	if (mounts_attach(c, err)) {
		struct err ignored = ERR_INIT;

		(void)!fd_remove_tree(AT_FDCWD, c->data_dir, &ignored);
		return -err->code;
	}
	return 0;
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
	if (json_object_get(c->endpoints, "host") && json_nonempty(json_object_get(c->host_config, "PortBindings")))
		(void)json_array_append_new(warnings,
					    json_string("Published ports are discarded when using host network mode"));
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
