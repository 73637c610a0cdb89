/* SPDX-License-Identifier: Apache-2.0 */
/* HostConfig of a create request: any JSON is refused with a sentence, or becomes whole. */
/* sources: src/engine/host_config.c src/base/err.c src/base/json.c */
/* libs: -ljansson -lm */
#include <stdlib.h>
#include <string.h>

#include "engine/container_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

void spec_default_paths(json_t *host)
{
	(void)json_object_set_new(host, "MaskedPaths", json_array());
}

const char *engine_isolation_name(enum engine_isolation i)
{
	return i == ENGINE_ISOLATION_HYPERV ? "hyperv" : "process";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *body = json_loadb((const char *)data, size, 0, NULL), *host = json_object_get(body, "HostConfig");

	for (int iso = 0; json_is_object(body) && iso < 2; iso++) {
		struct engine_container c = { .isolation = iso ? ENGINE_ISOLATION_HYPERV : ENGINE_ISOLATION_PROCESS };
		struct err err = ERR_INIT;

		c.host_config = json_is_object(host) ? json_deep_copy(host) : json_object();
		if (container_refuse(body, c.host_config, c.isolation, &err) ||
		    container_check_limits(c.host_config, &err)) {
			if (!err.code || !err.msg[0])
				abort();
		} else {
			container_defaults(&c);
			if (!json_str(c.host_config, "NetworkMode", "")[0])
				abort();
		}
		json_decref(c.host_config);
	}
	json_decref(body);
	return 0;
}
