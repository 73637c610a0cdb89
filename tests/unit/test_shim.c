/* SPDX-License-Identifier: Apache-2.0 */
/* The shim's log file and detach keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "shim/logfile.h"
#include "shim/stdio.h"

/* The shim's main program is not linked: what stdio.c and control.c call of it. */
void shim_session_finished(struct session *s)
{
}
void shim_maybe_end(struct shim *sh)
{
}
void control_event(struct shim *sh, const char *event, json_t *params)
{
	json_decref(params);
}

static json_t *records(const char *path)
{
	struct err err = ERR_INIT;
	size_t len;
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, path, 1 << 24, &len, &err);
	json_t *all = json_array();
	json_t *one;

	assert_non_null(text);
	for (char *line = text, *nl; (nl = strchr(line, '\n')); line = nl + 1) {
		one = json_parse(line, (size_t)(nl - line), "a record", &err);
		assert_non_null(one);
		assert_non_null(json_str(one, "time", NULL));
		json_array_append_new(all, one);
	}
	return all;
}

static const char *text_of(const json_t *all, size_t i)
{
	return json_str(json_array_get(all, i), "log", "(none)");
}

static void test_records(void **state)
{
	char path[] = "/tmp/walnut-test-log-XXXXXX";
	CLEAN_FD int fd = mkstemp(path);
	CLEAN_FREE char *big = malloc(40000);
	CLEAN_JSON json_t *all = NULL;
	struct err err = ERR_INIT;
	struct logfile *log = logfile_open(path, -1, 1, &err);

	assert_non_null(log);
	memset(big, 'a', 40000);
	logfile_write(log, 1, "one\ntw", 6);
	logfile_write(log, 2, "err\n", 4);
	logfile_write(log, 1, "o\n\xff\"\\<\x01\n", 8);
	logfile_write(log, 1, big, 16383);
	logfile_write(log, 1, "\xc3\xa9z\n", 4);
	logfile_write(log, 1, "end", 3);
	logfile_close(log);
	all = records(path);
	assert_int_equal(json_array_size(all), 7);
	assert_string_equal(text_of(all, 0), "one\n");
	assert_string_equal(text_of(all, 1), "err\n");
	assert_string_equal(json_str(json_array_get(all, 1), "stream", ""), "stderr");
	assert_string_equal(text_of(all, 2), "two\n");
	assert_string_equal(text_of(all, 3), "\xef\xbf\xbd\"\\<\x01\n");
	assert_int_equal(strlen(text_of(all, 4)), 16383);
	assert_string_equal(text_of(all, 5), "\xc3\xa9z\n");
	assert_string_equal(text_of(all, 6), "end");
	(void)unlink(path);
}

static void test_detach_keys(void **state)
{
	unsigned char keys[DETACH_KEYS_MAX];
	struct err err = ERR_INIT;

	assert_int_equal(detach_parse(NULL, keys, &err), 2);
	assert_int_equal(keys[0], 16);
	assert_int_equal(keys[1], 17);
	assert_int_equal(detach_parse("a,ctrl-@,ctrl-[", keys, &err), 3);
	assert_int_equal(keys[0], 'a');
	assert_int_equal(keys[1], 0);
	assert_int_equal(keys[2], 27);
	assert_true(detach_parse("ctrl-", keys, &err) < 0);
	assert_true(detach_parse("ctrl-1", keys, &err) < 0);
	assert_true(detach_parse("abc", keys, &err) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_records),
		cmocka_unit_test(test_detach_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
