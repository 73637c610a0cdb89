/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parsers of this folder share. A key may be given with the path to it
 * ("linux.resources.cpu.quota"): the part after the last dot is looked up, the whole is
 * what an error names. An absent or null member leaves *out alone and is no error.
 */
#ifndef WALNUT_OCI_PARSE_H
#define WALNUT_OCI_PARSE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define OCI_ITEMS_MAX 100000U /* of one array */

/*
 * oci_json_parse - as json_parse, but whole numbers of 2^63 and more, which jansson refuses and callers
 * write (2^64-1 is "unlimited" in rlimits), arrive as strings of digits; oci_get_u64 takes these.
 */
json_t *oci_json_parse(const char *text, size_t len, const char *what, struct err *err) MUST_CHECK;

int oci_no_memory(struct err *err);
int oci_bad_type(struct err *err, const char *key, const char *want);
/* oci_refuse - an error unless the member is absent or empty. */
int oci_refuse(const json_t *o, const char *key, struct err *err) MUST_CHECK;

int oci_get_object(const json_t *o, const char *key, const json_t **out, struct err *err) MUST_CHECK;
int oci_get_array(const json_t *o, const char *key, const json_t **out, struct err *err) MUST_CHECK;
int oci_dup_value(const json_t *v, const char *key, char **out, struct err *err) MUST_CHECK;
int oci_get_string(const json_t *o, const char *key, char **out, struct err *err) MUST_CHECK;
/* oci_get_strings - NULL-terminated; always allocated. */
int oci_get_strings(const json_t *o, const char *key, char ***out, struct err *err) MUST_CHECK;
int oci_get_integer(const json_t *o, const char *key, int64_t min, int64_t max, int64_t *out,
		    struct err *err) MUST_CHECK;
/* oci_get_u64 - 0 to 2^64-1; *given (may be NULL) is set when it is there. */
int oci_get_u64(const json_t *o, const char *key, uint64_t *out, bool *given, struct err *err) MUST_CHECK;
/* oci_value_u64 - the value itself. Return: false when it is no such number. */
bool oci_value_u64(const json_t *v, uint64_t *out) MUST_CHECK;
int oci_get_bool(const json_t *o, const char *key, bool *out, struct err *err) MUST_CHECK;
void oci_free_strings(char **a);

#endif
