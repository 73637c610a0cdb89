/* SPDX-License-Identifier: Apache-2.0 */
/* Making a container from Docker's create body: its name, the image's defaults, its folder; and renaming it. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container_internal.h"

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
