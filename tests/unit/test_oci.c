/* SPDX-License-Identifier: Apache-2.0 */
/* The runtime specification's parser: what it reads, and that it names what it refuses. */
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/json.h"
#include "oci/spec.h"

#define SPEC(process, rest) "{\"ociVersion\":\"1.0.2\",\"root\":{\"path\":\"rootfs\"},\"process\":" process rest "}"
#define TRUE_PROCESS        "{\"cwd\":\"/\",\"args\":[\"true\"]}"

static int parse(const char *text, struct oci_spec **out, struct err *err)
{
	CLEAN_JSON json_t *json = json_parse(text, strlen(text), "the test's spec", err);

	assert_non_null(json);
	*out = NULL;
	return oci_spec_parse(json, out, err);
}

static void refused(const char *text, const char *named)
{
	__attribute__((cleanup(cleanup_oci_spec))) struct oci_spec *spec = NULL;
	struct err err = ERR_INIT;

	assert_int_equal(parse(text, &spec, &err), -EINVAL);
	if (!strstr(err.msg, named))
		fail_msg("\"%s\" does not name %s", err.msg, named);
}

static void test_reads_a_whole_process(void **state)
{
	__attribute__((cleanup(cleanup_oci_spec))) struct oci_spec *spec = NULL;
	struct err err = ERR_INIT;
	int rc = parse(SPEC("{\"terminal\":true,\"user\":{\"uid\":7,\"gid\":8,\"additionalGids\":[9]},\"cwd\":\"/tmp\","
			    "\"args\":[\"sh\",\"-c\",\"true\"],\"env\":[\"A=b\"],\"noNewPrivileges\":true,"
			    "\"capabilities\":{\"bounding\":[\"CAP_CHOWN\"],\"effective\":[\"CAP_CHOWN\"]},"
			    "\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"soft\":10,\"hard\":20}]}",
			    ",\"hostname\":\"h\",\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"mount\"}],"
			    "\"resources\":{\"memory\":{\"limit\":1048576},\"pids\":{\"limit\":5}}}"),
		       &spec, &err);

	(void)state;
	if (rc)
		fail_msg("%s", err.msg);
	assert_true(spec->process.terminal && spec->process.no_new_privileges);
	assert_int_equal(spec->process.user.uid, 7);
	assert_int_equal(spec->process.user.additional_gids[0], 9);
	assert_string_equal(spec->process.args[2], "true");
	assert_null(spec->process.args[3]);
	assert_int_equal(spec->process.capabilities.bounding, 1ULL << CAP_CHOWN);
	assert_int_equal(spec->process.rlimits[0].hard, 20);
	assert_int_equal(spec->namespaces & (CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET), CLONE_NEWPID | CLONE_NEWNS);
	assert_int_equal(spec->resources.memory_limit, 1048576);
	assert_int_equal(spec->resources.pids_limit, 5);
}

static void test_refusals_name_the_field(void **state)
{
	(void)state;
	refused("{\"ociVersion\":\"1.0.2\"}", "process");
	refused(SPEC("{\"cwd\":\"/\",\"args\":[]}", ""), "process.args");
	refused(SPEC("{\"cwd\":\"tmp\",\"args\":[\"true\"]}", ""), "process.cwd");
	refused(SPEC("{\"cwd\":\"/\",\"args\":[7]}", ""), "args");
	refused(SPEC("{\"cwd\":\"/\",\"args\":[\"true\"],\"capabilities\":{\"bounding\":[\"CAP_FLY\"]}}", ""),
		"CAP_FLY");
	refused(SPEC("{\"cwd\":\"/\",\"args\":[\"true\"],\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"soft\":2,\"hard\":1}]}",
		     ""),
		"soft limit");
	refused(SPEC(TRUE_PROCESS, ",\"mounts\":[{\"destination\":\"proc\",\"type\":\"proc\"}]"), "destination");
	refused(SPEC(TRUE_PROCESS, ",\"linux\":{\"namespaces\":[{\"type\":\"moon\"}]}"), "moon");
	refused(SPEC(TRUE_PROCESS, ",\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"pid\"}]}"), "twice");
	refused(SPEC(TRUE_PROCESS, ",\"linux\":{\"devices\":[{\"path\":\"dev/x\",\"type\":\"c\"}]}"), "device");
}

static void test_capability_names(void **state)
{
	(void)state;
	assert_int_equal(oci_capability_number("CAP_SYS_ADMIN"), CAP_SYS_ADMIN);
	assert_int_equal(oci_capability_number("sys_admin"), CAP_SYS_ADMIN);
	assert_int_equal(oci_capability_number("CAP_"), -EINVAL);
	for (int i = 0; i < OCI_CAPABILITIES_COUNT; i++)
		assert_int_equal(oci_capability_number(oci_capability_name(i)), i);
	assert_null(oci_capability_name(OCI_CAPABILITIES_COUNT));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads_a_whole_process),
		cmocka_unit_test(test_refusals_name_the_field),
		cmocka_unit_test(test_capability_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
