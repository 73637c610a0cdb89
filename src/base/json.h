/* SPDX-License-Identifier: Apache-2.0 */
/* Small helpers over jansson: parsing with limits, getters with defaults, scope release. */
#ifndef WALNUT_BASE_JSON_H
#define WALNUT_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

static inline void cleanup_json(json_t **j)
{
	json_decref(*j);
}
#define CLEAN_JSON __attribute__((cleanup(cleanup_json), unused))

/**
 * json_parse - parse a whole document (duplicate keys are refused)
 * @what: names the document in the error
 *
 * Return: a new reference, or NULL with @err set (EINVAL).
 */
json_t *json_parse(const char *text, size_t len, const char *what, struct err *err) MUST_CHECK;

/* Getters: the member's value, or the default when it is absent, null or of another type. Borrowed. */
const char *json_str(const json_t *object, const char *key, const char *otherwise);
int64_t json_int(const json_t *object, const char *key, int64_t otherwise);
bool json_bool(const json_t *object, const char *key, bool otherwise);
/* json_text - compact text, owned by the caller (free); NULL without memory. */
char *json_text(const json_t *value) MUST_CHECK;

#endif
