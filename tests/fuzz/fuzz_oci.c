/* SPDX-License-Identifier: Apache-2.0 */
/* The runtime specification's parser, fed with any JSON. */
/* sources: src/oci/spec.c src/oci/process.c src/oci/hooks.c src/oci/validate.c src/oci/capability.c src/oci/parse.c src/oci/resources.c src/oci/seccomp.c src/base/buf.c src/base/err.c src/base/json.c */
/* libs: -ljansson */
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "oci/parse.h"
#include "oci/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *json = oci_json_parse((const char *)data, size, "input", &err);
	struct oci_spec *spec = NULL;

	if (json && !oci_spec_parse(json, &spec, &err))
		oci_spec_free(spec);
	return 0;
}
