/* SPDX-License-Identifier: Apache-2.0 */
/* Typed access to the members of a JSON object; errors name the member. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "oci/parse.h"

/* Decimal digits at @s, at most @max. */
static size_t digits(const char *s, size_t max)
{
	size_t n = 0;

	while (n < max && s[n] >= '0' && s[n] <= '9')
		n++;
	return n;
}

static bool too_big(const char *s, size_t n)
{
	static const char limit[] = "9223372036854775807"; /* 2^63-1: 19 digits */

	return n > 19 || (n == 19 && memcmp(s, limit, 19) > 0);
}

/* The next too big whole number outside of strings at or after @at. Return: its offset, or @len. */
static size_t find_big(const char *text, size_t len, size_t at, size_t *ndigits)
{
	bool string = false;

	for (size_t i = at; i < len; i++) {
		size_t n;

		if (string && text[i] == '\\') {
			i++;
			continue;
		}
		if (text[i] == '"')
			string = !string;
		if (string || text[i] < '0' || text[i] > '9')
			continue;
		n = digits(text + i, len - i);
		if (too_big(text + i, n) && (i == 0 || text[i - 1] != '-') &&
		    (i + n == len || !strchr(".eE", text[i + n]))) {
			*ndigits = n;
			return i;
		}
		i += n - 1;
	}
	return len;
}

json_t *oci_json_parse(const char *text, size_t len, const char *what, struct err *err)
{
	CLEAN_BUF struct buf b = BUF_INIT;
	size_t n = 0, at = find_big(text, len, 0, &n), done = 0;

	if (at == len)
		return json_parse(text, len, what, err);
	for (; at < len; done = at + n, at = find_big(text, len, done, &n))
		if (buf_append(&b, text + done, at - done) < 0 || buf_puts(&b, "\"") < 0 ||
		    buf_append(&b, text + at, n) < 0 || buf_puts(&b, "\"") < 0) {
			(void)oci_no_memory(err);
			return NULL;
		}
	if (buf_append(&b, text + done, len - done) < 0) {
		(void)oci_no_memory(err);
		return NULL;
	}
	return json_parse(buf_bytes(&b), b.len, what, err);
}

int oci_no_memory(struct err *err)
{
	return err_set(err, ENOMEM, "out of memory while reading the OCI spec");
}

int oci_bad_type(struct err *err, const char *key, const char *want)
{
	return err_set(err, EINVAL, "OCI spec: %s must be %s", key, want);
}

static const json_t *member(const json_t *o, const char *key)
{
	const char *dot = strrchr(key, '.');
	const json_t *v = json_object_get(o, dot ? dot + 1 : key);

	return json_is_null(v) ? NULL : v;
}

int oci_refuse(const json_t *o, const char *key, struct err *err)
{
	const json_t *v = member(o, key);

	if (!v || (json_is_array(v) && json_array_size(v) == 0) || (json_is_object(v) && json_object_size(v) == 0) ||
	    (json_is_integer(v) && json_integer_value(v) == 0) || (json_is_string(v) && json_string_length(v) == 0))
		return 0;
	return err_set(err, EINVAL, "OCI spec: %s is not supported yet", key);
}

int oci_get_object(const json_t *o, const char *key, const json_t **out, struct err *err)
{
	const json_t *v = member(o, key);

	*out = NULL;
	if (v && !json_is_object(v))
		return oci_bad_type(err, key, "an object");
	*out = v;
	return 0;
}

int oci_get_array(const json_t *o, const char *key, const json_t **out, struct err *err)
{
	const json_t *v = member(o, key);

	*out = NULL;
	if (v && (!json_is_array(v) || json_array_size(v) > OCI_ITEMS_MAX))
		return oci_bad_type(err, key, "an array");
	*out = v;
	return 0;
}

int oci_dup_value(const json_t *v, const char *key, char **out, struct err *err)
{
	if (!json_is_string(v))
		return oci_bad_type(err, key, "a string");
	if (strlen(json_string_value(v)) != json_string_length(v))
		return oci_bad_type(err, key, "a string without NUL");
	*out = strdup(json_string_value(v));
	return *out ? 0 : oci_no_memory(err);
}

int oci_get_string(const json_t *o, const char *key, char **out, struct err *err)
{
	const json_t *v = member(o, key);

	return v ? oci_dup_value(v, key, out, err) : 0;
}

int oci_get_strings(const json_t *o, const char *key, char ***out, struct err *err)
{
	const json_t *a, *v;
	size_t i;
	int r;

	r = oci_get_array(o, key, &a, err);
	if (r < 0)
		return r;
	*out = calloc(json_array_size(a) + 1, sizeof(char *));
	if (!*out)
		return oci_no_memory(err);
	json_array_foreach(a, i, v) {
		r = oci_dup_value(v, key, &(*out)[i], err);
		if (r < 0)
			return r;
	}
	return 0;
}

int oci_get_integer(const json_t *o, const char *key, int64_t min, int64_t max, int64_t *out, struct err *err)
{
	const json_t *v = member(o, key);

	if (!v)
		return 0;
	if (!json_is_integer(v))
		return oci_bad_type(err, key, "an integer");
	if (json_integer_value(v) < min || json_integer_value(v) > max)
		return err_set(err, EINVAL,
			       "OCI spec: %s is out of range: %" JSON_INTEGER_FORMAT " (allowed: %" PRId64
			       " to %" PRId64 ")",
			       key, json_integer_value(v), min, max);
	*out = json_integer_value(v);
	return 0;
}

bool oci_value_u64(const json_t *v, uint64_t *out)
{
	const char *s = json_string_value(v);
	char *end = NULL;

	if (json_is_integer(v) && json_integer_value(v) >= 0) {
		*out = (uint64_t)json_integer_value(v);
		return true;
	}
	if (!s || !digits(s, 1))
		return false;
	errno = 0;
	*out = strtoull(s, &end, 10);
	return errno == 0 && *end == '\0';
}

int oci_get_u64(const json_t *o, const char *key, uint64_t *out, bool *given, struct err *err)
{
	const json_t *v = member(o, key);

	if (!v)
		return 0;
	if (!oci_value_u64(v, out))
		return oci_bad_type(err, key, "a whole number from 0 to 2^64-1");
	if (given)
		*given = true;
	return 0;
}

int oci_get_bool(const json_t *o, const char *key, bool *out, struct err *err)
{
	const json_t *v = member(o, key);

	if (!v)
		return 0;
	if (!json_is_boolean(v))
		return oci_bad_type(err, key, "true or false");
	*out = json_is_true(v);
	return 0;
}

void oci_free_strings(char **a)
{
	for (size_t i = 0; a && a[i]; i++)
		free(a[i]);
	free((void *)a);
}
