/* SPDX-License-Identifier: Apache-2.0 */
/* What the shim accepts from an agent, and base64. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "link/link.h"

static int parse_event(const char *text, struct link_event *out)
{
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *m = json_parse(text, strlen(text), "test", &err);
	int rc;

	assert_non_null(m);
	assert_true(link_is_event(m));
	rc = link_event_parse(m, out, &err);
	assert_true(rc == 0 || (rc == -EBADMSG && err.msg[0]));
	return rc;
}

static void events_are_checked(void **state)
{
	struct link_event e;

	assert_int_equal(parse_event("{\"event\":\"hello\",\"params\":{\"version\":1,\"kernel\":\"6.1\\u0007x\","
				     "\"memory_bytes\":5}}",
				     &e),
			 0);
	assert_int_equal(e.kind, LINK_EVENT_HELLO);
	assert_string_equal(e.kernel, "6.1?x");
	assert_int_equal(parse_event("{\"event\":\"hello\",\"params\":{\"version\":2,\"kernel\":\"k\","
				     "\"memory_bytes\":5}}",
				     &e),
			 -EBADMSG);
	assert_int_equal(parse_event("{\"event\":\"exited\",\"params\":{\"exit_code\":137,\"oom_killed\":true}}", &e),
			 0);
	assert_int_equal(e.exit_code, 137);
	assert_true(e.oom_killed);
	assert_int_equal(parse_event("{\"event\":\"exited\",\"params\":{\"exit_code\":256}}", &e), -EBADMSG);
	assert_int_equal(parse_event("{\"event\":\"exited\",\"params\":{\"exit_code\":-1}}", &e), -EBADMSG);
	assert_int_equal(parse_event("{\"event\":\"exited\",\"params\":{\"exit_code\":\"1\"}}", &e), -EBADMSG);
	assert_int_equal(parse_event("{\"event\":\"exec_exited\",\"params\":{\"exit_code\":1}}", &e), -EBADMSG);
	assert_int_equal(parse_event("{\"event\":\"exec_exited\",\"params\":{\"exit_code\":1,\"exec_id\":\"ab\"}}", &e),
			 0);
	assert_string_equal(e.exec_id, "ab");
	assert_int_equal(parse_event("{\"event\":\"other\"}", &e), -EBADMSG);
	assert_int_equal(parse_event("{\"event\":\"oom\"}", &e), 0);
}

static void answers_are_checked(void **state)
{
	struct err err = ERR_INIT, failure;
	const char text[] = "{\"id\":3,\"error\":{\"code\":99999,\"message\":\"a\\nb\"}}";
	CLEAN_JSON json_t *m = json_parse(text, strlen(text), "test", &err);
	CLEAN_JSON json_t *bad = json_pack("{s:i}", "id", 3);
	CLEAN_JSON json_t *pids = json_pack("{s:[i,i]}", "pids", 4, 0);
	CLEAN_JSON json_t *none = json_object();
	CLEAN_FREE pid_t *list = NULL;
	struct link_stats stats;
	const json_t *result;
	int64_t id;
	size_t n;

	assert_int_equal(link_answer_parse(m, &id, &result, &failure, &err), 0);
	assert_int_equal(id, 3);
	assert_null(result);
	assert_int_equal(failure.code, EIO);
	assert_string_equal(failure.msg, "a?b");
	assert_int_equal(link_answer_parse(bad, &id, &result, &failure, &err), -EBADMSG);
	assert_int_equal(link_pids_parse(pids, &list, &n, &err), -EBADMSG);
	assert_int_equal(link_stats_parse(none, &stats, &err), -EBADMSG);
}

static json_t *one_process(int pid, const char *args)
{
	return json_pack("{s:[{s:i, s:i, s:i, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i}]}", "processes", "pid", pid,
			 "ppid", 1, "uid", 0, "comm", "sh", "args", args, "state", "S", "tty", "", "start", 1, "time",
			 2, "threads", 1, "vsz_kb", 3, "rss_kb", 4);
}

static void processes_are_checked(void **state)
{
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *good = one_process(7, "sh\n-c"), *bad = one_process(-1, "sh"), *none = json_object();
	CLEAN_JSON json_t *missing = json_pack("{s:[{s:i}]}", "processes", "pid", 1);
	CLEAN_JSON json_t *copy = link_processes_copy(good, &err);
	char longest[LINK_ARGS_MAX + 2];
	CLEAN_JSON json_t *over = NULL;

	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	over = one_process(7, longest);
	assert_non_null(copy);
	assert_string_equal(json_str(json_array_get(copy, 0), "args", ""), "sh?-c");
	assert_int_equal(json_int(json_array_get(copy, 0), "pid", 0), 7);
	assert_null(link_processes_copy(bad, &err));
	assert_null(link_processes_copy(none, &err));
	assert_null(link_processes_copy(missing, &err));
	assert_null(link_processes_copy(over, &err));
}

static void base64_there_and_back(void **state)
{
	unsigned char in[70];
	size_t n;

	for (size_t len = 0; len < sizeof(in); len++) {
		CLEAN_FREE char *text = NULL;
		CLEAN_FREE unsigned char *out = NULL;

		for (size_t i = 0; i < len; i++)
			in[i] = (unsigned char)(i * 37 + len);
		text = link_base64_encode(in, len);
		assert_non_null(text);
		assert_int_equal(link_base64_decode(text, sizeof(in), &out, &n), 0);
		assert_int_equal(n, len);
		assert_memory_equal(in, out, len);
	}
}

static void base64_refuses(void **state)
{
	static const char *const bad[] = { "a", "ab=c", "a===", "====", "ab c", "abc\n" };
	unsigned char *out = NULL;
	size_t n;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(link_base64_decode(bad[i], 100, &out, &n), -EINVAL);
	assert_int_equal(link_base64_decode("AAAA", 2, &out, &n), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(events_are_checked),    cmocka_unit_test(answers_are_checked),
		cmocka_unit_test(processes_are_checked), cmocka_unit_test(base64_there_and_back),
		cmocka_unit_test(base64_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
