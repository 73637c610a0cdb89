/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers over jansson. */
#include "base/json.h"

#include <errno.h>

json_t *json_parse(const char *text, size_t len, const char *what, struct err *err)
{
	json_error_t error;
	json_t *value = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);

	if (!value)
		(void)err_set(err, EINVAL, "%s is not valid JSON: line %d, column %d: %s", what, error.line,
			      error.column, error.text);
	return value;
}

const char *json_str(const json_t *object, const char *key, const char *otherwise)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s ? s : otherwise;
}

int64_t json_int(const json_t *object, const char *key, int64_t otherwise)
{
	const json_t *v = json_object_get(object, key);

	return json_is_integer(v) ? json_integer_value(v) : otherwise;
}

bool json_bool(const json_t *object, const char *key, bool otherwise)
{
	const json_t *v = json_object_get(object, key);

	return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

char *json_text(const json_t *value)
{
	return json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
}
