/* SPDX-License-Identifier: Apache-2.0 */
/* The "hooks" object (runtime-spec, config.md, "POSIX-platform Hooks"). */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "oci/parse.h"
#include "oci/spec.h"

static const char *const names[OCI_HOOK_KINDS] = { "prestart",       "createRuntime", "createContainer",
						   "startContainer", "poststart",     "poststop" };

const char *oci_hook_name(enum oci_hook_kind kind)
{
	return names[kind];
}

static int read_hook(const json_t *json, const char *kind, struct oci_hook *h, struct err *err)
{
	int64_t timeout = 0;
	int r;

	if (!json_is_object(json))
		return err_set(err, EINVAL, "OCI spec: hooks.%s must hold objects", kind);
	if ((r = oci_get_string(json, "path", &h->path, err)) < 0 ||
	    (r = oci_get_strings(json, "args", &h->args, err)) < 0 ||
	    (r = oci_get_strings(json, "env", &h->env, err)) < 0 ||
	    (r = oci_get_integer(json, "timeout", 1, INT32_MAX / 1000, &timeout, err)) < 0)
		return r;
	h->timeout = (int)timeout;
	h->env_given = json_is_array(json_object_get(json, "env"));
	if (!h->path || h->path[0] != '/')
		return err_set(err, EINVAL, "OCI spec: hooks.%s: path must be an absolute path: '%s'", kind,
			       h->path ? h->path : "");
	if (!h->args[0]) {
		char **args = calloc(2, sizeof(char *));

		if (!args || !(args[0] = strdup(h->path))) {
			free((void *)args);
			return oci_no_memory(err);
		}
		oci_free_strings(h->args);
		h->args = args;
	}
	return 0;
}

int oci_hooks_read(const json_t *hooks, struct oci_hook_list kinds[OCI_HOOK_KINDS], struct err *err)
{
	for (size_t k = 0; k < OCI_HOOK_KINDS; k++) {
		const json_t *a, *v;
		size_t i;
		int r = oci_get_array(hooks, names[k], &a, err);

		if (r < 0)
			return r;
		if (!a)
			continue;
		kinds[k].hooks = calloc(json_array_size(a) + 1, sizeof(struct oci_hook));
		if (!kinds[k].hooks)
			return oci_no_memory(err);
		json_array_foreach(a, i, v) {
			r = read_hook(v, names[k], &kinds[k].hooks[kinds[k].count++], err);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

void oci_hooks_fini(struct oci_hook_list kinds[OCI_HOOK_KINDS])
{
	for (size_t k = 0; k < OCI_HOOK_KINDS; k++) {
		for (size_t i = 0; i < kinds[k].count; i++) {
			free(kinds[k].hooks[i].path);
			oci_free_strings(kinds[k].hooks[i].args);
			oci_free_strings(kinds[k].hooks[i].env);
		}
		free(kinds[k].hooks);
	}
}
