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
	refused("{\"ociVersion\":\"2.0.0\"}", "ociVersion");
	refused("{\"ociVersion\":\"1.0\"}", "ociVersion");
	refused("{\"ociVersion\":\"1..2\"}", "ociVersion");
	refused("{\"ociVersion\":\"1.0.\"}", "ociVersion");
	refused("{\"ociVersion\":\"1.0.2rc1\"}", "ociVersion");
	refused("{\"ociVersion\":\"1.0.2-rc1\",\"process\":7}", "process");
	refused("{\"ociVersion\":\"1.12.345+dev\",\"process\":7}", "process");
	refused("{\"ociVersion\":\"1.0.2\",\"process\":7}", "process");
	refused(SPEC("{\"cwd\":\"/\",\"args\":[]}", ""), "process.args");
	refused(SPEC("{\"cwd\":\"tmp\",\"args\":[\"true\"]}", ""), "process.cwd");
	refused(SPEC("{\"cwd\":\"/\",\"args\":[7]}", ""), "args");
	refused(SPEC("{\"cwd\":\"/\",\"args\":[\"true\"],\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"soft\":2,\"hard\":1}]}",
		     ""),
		"soft limit");
	refused(SPEC(TRUE_PROCESS, ",\"mounts\":[{\"type\":\"proc\"}]"), "destination");
	refused(SPEC(TRUE_PROCESS, ",\"mounts\":[{\"destination\":\"/x\",\"type\":\"bind\",\"uidMappings\":"
				   "[{\"containerID\":0,\"hostID\":1,\"size\":1}]}]"),
		"gidMappings");
	refused(SPEC(TRUE_PROCESS, ",\"hooks\":{\"poststop\":[{\"path\":\"bin/x\"}]}"), "hooks.poststop");
	refused(SPEC(TRUE_PROCESS, ",\"hooks\":{\"prestart\":[{\"path\":\"/x\",\"timeout\":0}]}"), "timeout");
	refused(SPEC(TRUE_PROCESS, ",\"annotations\":{\"a\":1}"), "annotations");
	refused(SPEC(TRUE_PROCESS, ",\"linux\":{\"personality\":{\"domain\":\"MARS\"}}"), "MARS");
	refused(SPEC(TRUE_PROCESS, ",\"linux\":{\"timeOffsets\":{\"realtime\":{\"secs\":1}}}"), "realtime");
	refused(SPEC(TRUE_PROCESS, ",\"linux\":{\"rootfsPropagation\":\"public\"}"), "rootfsPropagation");
	refused(SPEC(TRUE_PROCESS, ",\"linux\":{\"maskedPaths\":[\"proc/kcore\"]}"), "maskedPaths");
	refused(SPEC(TRUE_PROCESS, ",\"linux\":{\"uidMappings\":[{\"containerID\":0,\"hostID\":0}]}"), "uidMappings");
	refused(SPEC(TRUE_PROCESS, ",\"linux\":{\"memoryPolicy\":{\"mode\":\"MPOL_BIND\"}}"), "memoryPolicy");
	refused(SPEC("{\"cwd\":\"/\",\"args\":[\"true\"],\"scheduler\":{\"policy\":\"SCHED_BEST\"}}", ""),
		"SCHED_BEST");
	refused(SPEC("{\"cwd\":\"/\",\"args\":[\"true\"],\"scheduler\":{\"policy\":\"SCHED_OTHER\",\"priority\":3}}",
		     ""),
		"process.scheduler.priority");
	refused(SPEC("{\"cwd\":\"/\",\"args\":[\"true\"],\"ioPriority\":{\"class\":\"IOPRIO_CLASS_BE\",\"priority\":8}}",
		     ""),
		"process.ioPriority.priority");
	refused(SPEC("{\"cwd\":\"/\",\"args\":[\"true\"],\"execCPUAffinity\":{\"final\":\"all\"}}", ""),
		"execCPUAffinity");
	refused(SPEC(TRUE_PROCESS, ",\"linux\":{\"namespaces\":[{\"type\":\"moon\"}]}"), "moon");
	refused(SPEC(TRUE_PROCESS, ",\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"pid\"}]}"), "twice");
	refused(SPEC(TRUE_PROCESS, ",\"linux\":{\"devices\":[{\"path\":\"dev/x\",\"type\":\"c\"}]}"), "device");
}

static void invalid(const char *text, const char *named)
{
	__attribute__((cleanup(cleanup_oci_spec))) struct oci_spec *spec = NULL;
	struct err err = ERR_INIT;

	assert_int_equal(parse(text, &spec, &err), 0);
	assert_int_equal(oci_spec_validate(spec, &err), -EINVAL);
	if (!strstr(err.msg, named))
		fail_msg("\"%s\" does not name %s", err.msg, named);
}

static void test_unknown_capabilities_are_noted(void **state)
{
	__attribute__((cleanup(cleanup_oci_spec))) struct oci_spec *spec = NULL;
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(parse(SPEC("{\"cwd\":\"/\",\"args\":[\"true\"],\"capabilities\":{\"bounding\":"
				    "[\"CAP_FLY\",\"CAP_CHOWN\"]}}",
				    ""),
			       &spec, &err),
			 0);
	assert_string_equal(spec->process.unknown_capability, "CAP_FLY");
	assert_int_equal(spec->process.capabilities.bounding, 1ULL << CAP_CHOWN);
}

static void test_fields_that_need_a_namespace(void **state)
{
	(void)state;
	invalid(SPEC(TRUE_PROCESS, ",\"hostname\":\"h\""), "UTS namespace");
	invalid(SPEC(TRUE_PROCESS, ",\"linux\":{\"sysctl\":{\"kernel.panic\":\"1\"}}"), "kernel.panic");
	invalid(SPEC(TRUE_PROCESS, ",\"linux\":{\"sysctl\":{\"net/ipv4/ip_forward\":\"1\"}}"), "network namespace");
	invalid(SPEC(TRUE_PROCESS, ",\"linux\":{\"namespaces\":[{\"type\":\"user\"}]}"), "uidMappings");
	invalid(SPEC(TRUE_PROCESS, ",\"linux\":{\"timeOffsets\":{\"monotonic\":{\"secs\":1}}}"), "time namespace");
	invalid(SPEC(TRUE_PROCESS, ",\"linux\":{\"maskedPaths\":[\"/proc/kcore\"]}"), "maskedPaths");
}

static void test_changes_of_a_process(void **state)
{
	__attribute__((cleanup(cleanup_oci_spec))) struct oci_spec *spec = NULL;
	struct err err = ERR_INIT;
	char *args[] = { (char *)"a", (char *)"b", NULL };

	(void)state;
	assert_int_equal(parse(SPEC("{\"cwd\":\"/\",\"args\":[\"true\"],\"env\":[\"A=1\",\"AB=2\"]}", ""), &spec, &err),
			 0);
	assert_int_equal(oci_process_set_args(&spec->process, args, &err), 0);
	assert_string_equal(spec->process.args[1], "b");
	assert_int_equal(oci_process_add_env(&spec->process, "A=3", &err), 0);
	assert_int_equal(oci_process_add_env(&spec->process, "C=4", &err), 0);
	assert_int_equal(oci_process_add_env(&spec->process, "C", &err), -EINVAL);
	assert_string_equal(spec->process.env[0], "A=3");
	assert_string_equal(spec->process.env[1], "AB=2");
	assert_string_equal(spec->process.env[2], "C=4");
	assert_null(spec->process.env[3]);
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
		cmocka_unit_test(test_unknown_capabilities_are_noted),
		cmocka_unit_test(test_fields_that_need_a_namespace),
		cmocka_unit_test(test_changes_of_a_process),
		cmocka_unit_test(test_capability_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
