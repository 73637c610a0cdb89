/* SPDX-License-Identifier: Apache-2.0 */
/* Limits as files, on folders that stand for a cgroup of either version; the device program, interpreted. */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "container/cgroup_internal.h"
#include "container/cgroup_systemd.h"

static char folder[] = "/tmp/walnut-cgroup-XXXXXX";

static void put(const char *file, const char *text)
{
	char path[256];
	CLEAN_FD int fd = -1;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, file);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static void holds(const char *file, const char *want)
{
	char path[256];
	CLEAN_FREE char *text = NULL;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, file);
	text = fd_read_file(AT_FDCWD, path, 65536, NULL, NULL);
	assert_non_null(text);
	text[strcspn(text, "\n")] = '\0';
	assert_string_equal(text, want);
}

static int apply(bool v2, const char *json, struct err *err)
{
	CLEAN_JSON json_t *o = json_parse(json, strlen(json), "the test", err);
	CLEAN(cleanup_oci_resources) struct oci_resources *r = NULL;
	struct cgroup *g = cgroup_new();
	int rc;

	*err = ERR_INIT;
	assert_non_null(g);
	g->v2 = v2;
	for (int i = 0; i < CGROUP_CONTROLLERS; i++)
		if (v2 ? i == CGROUP_UNIFIED : i != CGROUP_UNIFIED)
			assert_int_equal(cgroup_open_folder(g, (enum cgroup_controller)i, folder, err), 0);
	assert_int_equal(oci_resources_parse(o, &r, err), 0);
	rc = cgroup_apply(g, r, err);
	if (rc == 0)
		rc = v2 ? 0 : cgroup_apply_devices(g, r, err);
	cgroup_close(g);
	return rc;
}

static void works(bool v2, const char *json)
{
	struct err err = ERR_INIT;

	if (apply(v2, json, &err) < 0)
		fail_msg("%s", err.msg);
}

static void fails(bool v2, const char *json, const char *named)
{
	struct err err = ERR_INIT;

	assert_true(apply(v2, json, &err) < 0);
	if (!strstr(err.msg, named))
		fail_msg("\"%s\" does not name %s", err.msg, named);
}

static void test_version_1(void **state)
{
	static const char *const files[] = { "memory.limit_in_bytes",
					     "memory.memsw.limit_in_bytes",
					     "memory.soft_limit_in_bytes",
					     "memory.swappiness",
					     "memory.oom_control",
					     "cpu.shares",
					     "cpu.cfs_quota_us",
					     "cpu.cfs_period_us",
					     "cpu.cfs_burst_us",
					     "cpu.rt_runtime_us",
					     "cpu.rt_period_us",
					     "cpu.idle",
					     "cpuset.cpus",
					     "cpuset.mems",
					     "pids.max",
					     "blkio.bfq.weight",
					     "blkio.bfq.weight_device",
					     "blkio.throttle.read_bps_device",
					     "blkio.throttle.write_iops_device",
					     "hugetlb.2MB.limit_in_bytes",
					     "hugetlb.2MB.rsvd.limit_in_bytes",
					     "net_cls.classid",
					     "net_prio.ifpriomap",
					     "rdma.max",
					     "devices.allow",
					     "devices.deny" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		put(files[i], "");
	works(false, "{\"memory\":{\"limit\":1048576,\"swap\":2097152,\"reservation\":-1,\"swappiness\":0,"
		     "\"disableOOMKiller\":true},\"cpu\":{\"shares\":512,\"quota\":-1,\"period\":50000,\"burst\":1000,"
		     "\"realtimeRuntime\":950,\"realtimePeriod\":1000,\"cpus\":\"0-1\",\"mems\":\"0\",\"idle\":1},"
		     "\"pids\":{\"limit\":-1},\"hugepageLimits\":[{\"pageSize\":\"2MB\",\"limit\":0}],"
		     "\"network\":{\"classID\":1048577,\"priorities\":[{\"name\":\"eth0\",\"priority\":3}]},"
		     "\"rdma\":{\"mlx5\":{\"hcaHandles\":2,\"hcaObjects\":9}},\"blockIO\":{\"weight\":300,"
		     "\"weightDevice\":[{\"major\":8,\"minor\":0,\"weight\":500}],"
		     "\"throttleReadBpsDevice\":[{\"major\":8,\"minor\":1,\"rate\":7}],"
		     "\"throttleWriteIOPSDevice\":[{\"major\":8,\"minor\":2,\"rate\":18446744073709551}]}}");
	holds("memory.limit_in_bytes", "1048576");
	holds("memory.memsw.limit_in_bytes", "2097152");
	holds("memory.soft_limit_in_bytes", "-1");
	holds("memory.swappiness", "0");
	holds("memory.oom_control", "1");
	holds("cpu.shares", "512");
	holds("cpu.cfs_quota_us", "-1");
	holds("cpu.cfs_period_us", "50000");
	holds("cpu.cfs_burst_us", "1000");
	holds("cpu.rt_runtime_us", "950");
	holds("cpu.idle", "1");
	holds("cpuset.cpus", "0-1");
	holds("pids.max", "max");
	holds("blkio.bfq.weight", "300");
	holds("blkio.bfq.weight_device", "8:0 500");
	holds("blkio.throttle.read_bps_device", "8:1 7");
	holds("blkio.throttle.write_iops_device", "8:2 18446744073709551");
	holds("hugetlb.2MB.limit_in_bytes", "0");
	holds("hugetlb.2MB.rsvd.limit_in_bytes", "0");
	holds("net_cls.classid", "1048577");
	holds("net_prio.ifpriomap", "eth0 3");
	holds("rdma.max", "mlx5 hca_handle=2 hca_object=9");
	/* the last rule of each file: to the kernel an "a" would be everything */
	works(false, "{\"devices\":[{\"allow\":false,\"access\":\"w\"}]}");
	holds("devices.deny", "c *:* w");
	holds("devices.allow", "c 136:* rwm");
	fails(false, "{\"unified\":{\"memory.high\":\"1\"}}", "unified");
	fails(false, "{\"hugepageLimits\":[{\"pageSize\":\"1GB\",\"limit\":1}]}", "hugetlb.1GB.limit_in_bytes");
}

static void test_version_2(void **state)
{
	static const char *const files[] = { "memory.max", "memory.low",    "memory.high",     "memory.swap.max",
					     "cpu.weight", "cpu.max.burst", "pids.max",        "io.weight",
					     "io.max",     "cpuset.cpus",   "hugetlb.2MB.max", "rdma.max" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		put(files[i], "");
	put("cpu.max", "max 50000\n");
	put("memory.current", "4096\n");
	works(true, "{\"memory\":{\"limit\":1048576,\"swap\":3145728,\"reservation\":524288},"
		    "\"cpu\":{\"shares\":1024,\"quota\":20000,\"cpus\":\"0\"},\"pids\":{\"limit\":9},"
		    "\"unified\":{\"memory.high\":\"900000\"},\"blockIO\":{\"weight\":10,"
		    "\"throttleWriteBpsDevice\":[{\"major\":8,\"minor\":0,\"rate\":5}]}}");
	holds("memory.max", "1048576");
	holds("memory.swap.max", "2097152");
	holds("memory.low", "524288");
	holds("memory.high", "900000");
	holds("cpu.weight", "39");
	holds("cpu.max", "20000 50000");
	holds("pids.max", "9");
	holds("io.weight", "1");
	holds("io.max", "8:0 wbps=5");
	works(true, "{\"cpu\":{\"period\":10000}}");
	holds("cpu.max", "20000 10000");
	put("memory.swap.max", "");
	works(true, "{\"memory\":{\"swap\":1048577}}"); /* of the limit that holds */
	holds("memory.swap.max", "1");
	works(true, "{\"memory\":{\"limit\":-1}}");
	holds("memory.swap.max", "max");
	works(true, "{\"cpu\":{\"shares\":262144},\"blockIO\":{\"weightDevice\":[{\"major\":8,\"minor\":0,"
		    "\"weight\":1000}]}}");
	holds("cpu.weight", "10000");
	holds("io.weight", "8:0 10000");
	fails(true, "{\"memory\":{\"limit\":4095,\"checkBeforeUpdate\":true}}", "checkBeforeUpdate");
	fails(true, "{\"memory\":{\"swap\":100}}", "memory.swap");
	fails(true, "{\"memory\":{\"swappiness\":1}}", "swappiness");
	fails(true, "{\"memory\":{\"kernel\":1}}", "kernel");
	fails(true, "{\"blockIO\":{\"leafWeight\":10}}", "leafWeight");
	fails(true, "{\"network\":{\"classID\":1}}", "classID");
	fails(true, "{\"cpu\":{\"realtimeRuntime\":1}}", "realtimeRuntime");
	fails(true, "{\"unified\":{\"memory.nothing\":\"1\"}}", "memory.nothing");
}

/* Runs a device program. Return: what it allows. */
static int interpret(const struct bpf_insn *p, size_t n, unsigned int type, unsigned int access, uint32_t major,
		     uint32_t minor)
{
	uint64_t r[11] = { 0 };
	const uint32_t context[3] = { type | access << 16, major, minor };

	for (size_t pc = 0; pc < n; pc++) {
		const struct bpf_insn *i = &p[pc];
		uint64_t src = BPF_SRC(i->code) == BPF_X ? r[i->src_reg] : (uint64_t)(uint32_t)i->imm;

		switch (i->code & ~BPF_X) {
		case BPF_LDX | BPF_MEM | BPF_W: r[i->dst_reg] = context[i->off / 4]; continue;
		case BPF_ALU | BPF_MOV | BPF_K:
		case BPF_ALU64 | BPF_MOV | BPF_K: r[i->dst_reg] = src; continue;
		case BPF_ALU | BPF_AND | BPF_K: r[i->dst_reg] &= src; continue;
		case BPF_ALU | BPF_RSH | BPF_K: r[i->dst_reg] >>= src; continue;
		case BPF_JMP | BPF_JNE | BPF_K: pc += r[i->dst_reg] != src ? (size_t)i->off : 0; continue;
		case BPF_JMP | BPF_JEQ | BPF_K: pc += r[i->dst_reg] == src ? (size_t)i->off : 0; continue;
		case BPF_JMP | BPF_EXIT: return (int)r[0];
		default: fail_msg("an instruction that is not known: %#x", i->code);
		}
	}
	fail_msg("the program runs past its end");
	return -1;
}

#define READ  BPF_DEVCG_ACC_READ
#define WRITE BPF_DEVCG_ACC_WRITE
#define MKNOD BPF_DEVCG_ACC_MKNOD
#define CHAR  BPF_DEVCG_DEV_CHAR
#define BLOCK BPF_DEVCG_DEV_BLOCK

static void test_device_program(void **state)
{
	static const struct oci_device_rule rules[] = {
		{ false, 'a', OCI_DEVICE_ANY, OCI_DEVICE_ANY, 7 },
		{ true, 'c', 1, OCI_DEVICE_ANY, 7 },
		{ false, 'c', 1, 5, OCI_DEVICE_WRITE },
		{ true, 'b', OCI_DEVICE_ANY, 3, OCI_DEVICE_READ },
		{ true, 'a', 77, OCI_DEVICE_ANY, 7 },
	};
	static const struct oci_device_rule after_all[] = {
		{ false, 'c', 1, 3, 7 },
		{ true, 'a', OCI_DEVICE_ANY, OCI_DEVICE_ANY, 7 },
		{ false, 'c', 1, 5, 7 },
	};
	struct bpf_insn p[CGROUP_DEVICE_INSNS(5)];
	size_t n = cgroup_device_program(p, rules, ARRAY_LEN(rules));

	(void)state;
	assert_int_equal(interpret(p, n, CHAR, READ | WRITE, 1, 3), 1);
	assert_int_equal(interpret(p, n, CHAR, READ, 1, 5), 1);
	assert_int_equal(interpret(p, n, CHAR, READ | WRITE, 1, 5), 0);
	assert_int_equal(interpret(p, n, BLOCK, READ, 8, 3), 1);
	assert_int_equal(interpret(p, n, BLOCK, READ | MKNOD, 8, 3), 0);
	assert_int_equal(interpret(p, n, CHAR, READ, 8, 3), 0);
	assert_int_equal(interpret(p, n, BLOCK, WRITE, 77, 1), 1);
	assert_int_equal(interpret(p, n, BLOCK, WRITE, 78, 1), 0);
	n = cgroup_device_program(p, after_all, ARRAY_LEN(after_all));
	assert_int_equal(interpret(p, n, CHAR, READ, 1, 3), 1);
	assert_int_equal(interpret(p, n, CHAR, READ, 1, 5), 0);
	n = cgroup_device_program(p, rules, 0);
	assert_int_equal(interpret(p, n, CHAR, READ, 1, 3), 0);
}

static void clean_is(const char *path, const char *want)
{
	CLEAN_FREE char *got = cgroup_clean_path(path);

	assert_string_equal(got, want);
}

static void test_paths(void **state)
{
	(void)state;
	clean_is("/a//b/./c/", "/a/b/c");
	clean_is("a/b", "/a/b");
	clean_is("../../a/../b", "/b");
	clean_is("/..", "");
	clean_is("/", "");
}

static void test_state_is_kept(void **state)
{
	struct err err = ERR_INIT;
	struct cgroup *g = cgroup_new(), *again = NULL;
	CLEAN_JSON json_t *saved = NULL;

	(void)state;
	assert_int_equal(cgroup_open_folder(g, CGROUP_MEMORY, folder, &err), 0);
	saved = cgroup_save(g);
	cgroup_close(g);
	assert_int_equal(cgroup_load(&again, saved, &err), 0);
	assert_string_equal(again->path[CGROUP_MEMORY], folder);
	assert_true(again->dir[CGROUP_MEMORY] >= 0 && !again->v2);
	cgroup_close(again);
	(void)json_object_del(saved, "paths");
	assert_int_equal(cgroup_load(&again, saved, &err), -EINVAL);
}

static void unit_is(const char *path, const char *want_slice, const char *want_unit)
{
	CLEAN_FREE char *slice = NULL, *unit = NULL;
	struct err err = ERR_INIT;

	if (cgroup_systemd_name(path, "id", false, &slice, &unit, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(slice, want_slice);
	assert_string_equal(unit, want_unit);
}

static void test_systemd_names(void **state)
{
	static const char *const bad_paths[] = { "/a/b", "a:b", "a:b:c:d", "a:b:", "a:b:c/d" };
	static const char *const bad_slices[] = { "a", ".slice", "a/b.slice", "a--b.slice", "-a.slice", "a-.slice" };
	struct err err = ERR_INIT;
	CLEAN_FREE char *deep = NULL, *root = NULL;

	(void)state;
	unit_is("user-1.slice:libpod:abc", "user-1.slice", "libpod-abc.scope");
	unit_is(":cri:abc", "system.slice", "cri-abc.scope");
	unit_is("a.slice::abc", "a.slice", "abc.scope");
	unit_is(NULL, "system.slice", "walnut-id.scope");
	for (size_t i = 0; i < ARRAY_LEN(bad_paths); i++) {
		CLEAN_FREE char *slice = NULL, *unit = NULL;

		assert_int_equal(cgroup_systemd_name(bad_paths[i], "id", false, &slice, &unit, &err), -EINVAL);
		assert_non_null(strstr(err.msg, "linux.cgroupsPath"));
	}
	assert_int_equal(cgroup_systemd_slice_path("a-b-c.slice", &deep, &err), 0);
	assert_string_equal(deep, "/a.slice/a-b.slice/a-b-c.slice");
	assert_int_equal(cgroup_systemd_slice_path("-.slice", &root, &err), 0);
	assert_string_equal(root, "");
	for (size_t i = 0; i < ARRAY_LEN(bad_slices); i++) {
		CLEAN_FREE char *path = NULL;

		assert_int_equal(cgroup_systemd_slice_path(bad_slices[i], &path, &err), -EINVAL);
	}
}

static const struct cgroup_property *property(const struct cgroup_properties *p, const char *name)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->item[i].name, name) == 0)
			return &p->item[i];
	fail_msg("there is no property %s", name);
	return NULL;
}

static void test_systemd_properties(void **state)
{
	struct oci_resources r = { .memory_limit = 1 << 20,
				   .memory_swap = 3 << 20,
				   .cpu_shares = 1024,
				   .cpu_quota = 12345,
				   .cpu_period = 100000,
				   .cpuset_cpus = (char *)"0-1,9",
				   .pids_limit = -1,
				   .block_weight = 1000 };
	struct cgroup_properties v1 = { 0 }, v2 = { 0 };
	struct err err = ERR_INIT;

	(void)state;
	assert_int_equal(cgroup_systemd_properties(&v2, &r, true, &err), 0);
	assert_int_equal(property(&v2, "MemoryMax")->number, 1 << 20);
	assert_int_equal(property(&v2, "MemorySwapMax")->number, 2 << 20);
	assert_int_equal(property(&v2, "CPUWeight")->number, 39);
	assert_int_equal(property(&v2, "CPUQuotaPerSecUSec")->number, 130000);
	assert_int_equal(property(&v2, "IOWeight")->number, 10000);
	assert_true(property(&v2, "TasksMax")->number == UINT64_MAX);
	assert_int_equal(property(&v2, "AllowedCPUs")->nbytes, 2);
	assert_int_equal(property(&v2, "AllowedCPUs")->bytes[0], 3);
	assert_int_equal(property(&v2, "AllowedCPUs")->bytes[1], 2);
	assert_int_equal(cgroup_systemd_properties(&v1, &r, false, &err), 0);
	assert_int_equal(property(&v1, "MemoryLimit")->number, 1 << 20);
	assert_int_equal(property(&v1, "CPUShares")->number, 1024);
	r.cpuset_cpus = (char *)"1-0";
	v2.n = 0;
	assert_int_equal(cgroup_systemd_properties(&v2, &r, true, &err), -EINVAL);
}

static int make_tree(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_tree(void **state)
{
	struct err err = ERR_INIT;

	(void)state;
	return fd_remove_tree(AT_FDCWD, folder, &err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_version_1),
		cmocka_unit_test(test_version_2),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_device_program),
		cmocka_unit_test(test_state_is_kept),
		cmocka_unit_test(test_systemd_names),
		cmocka_unit_test(test_systemd_properties),
	};

	return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
