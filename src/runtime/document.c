/* SPDX-License-Identifier: Apache-2.0 */
/* features (runtime-spec, features.md) and spec: documents that do not depend on a container. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <seccomp.h>
#include <string.h>

#include "base/fd.h"
#include "oci/seccomp.h"
#include "runtime/runtime.h"

static json_t *strings(const char *const *names)
{
	json_t *a = json_array();

	for (; a && *names; names++)
		if (json_array_append_new(a, json_string(*names)) < 0) {
			json_decref(a);
			return NULL;
		}
	return a;
}

static json_t *capability_names(void)
{
	json_t *a = json_array();

	for (int i = 0; a && i < OCI_CAPABILITIES_COUNT; i++)
		if (json_array_append_new(a, json_string(oci_capability_name(i))) < 0)
			return NULL;
	return a;
}

static const char *const hooks[] = {
	"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop", NULL
};
static const char *const namespaces[] = { "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts", NULL };
static const char *const actions[] = {
	"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO",  "SCMP_ACT_KILL",  "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
	"SCMP_ACT_LOG",   "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",         NULL
};
static const char *const operators[] = { "SCMP_CMP_EQ", "SCMP_CMP_GE",        "SCMP_CMP_GT", "SCMP_CMP_LE",
					 "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE", NULL };
static const char *const archs[] = { "SCMP_ARCH_AARCH64",  "SCMP_ARCH_ARM",         "SCMP_ARCH_MIPS",
				     "SCMP_ARCH_MIPS64",   "SCMP_ARCH_MIPS64N32",   "SCMP_ARCH_MIPSEL",
				     "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC",
				     "SCMP_ARCH_PPC64",    "SCMP_ARCH_PPC64LE",     "SCMP_ARCH_RISCV64",
				     "SCMP_ARCH_S390",     "SCMP_ARCH_S390X",       "SCMP_ARCH_X32",
				     "SCMP_ARCH_X86",      "SCMP_ARCH_X86_64",      NULL };
static const char *const flags[] = { "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
				     "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", NULL };
static const char *const unsafe[] = { NULL };

static json_t *linux_features(void)
{
	return json_pack("{s:o, s:o, s:{s:b, s:b, s:b, s:b, s:b}, s:{s:b, s:o, s:o, s:o, s:o, s:o}, s:{s:b}, s:{s:b}, "
			 "s:{s:b}, s:{s:{s:b}}}",
			 "namespaces", strings(namespaces), "capabilities", capability_names(), "cgroup", "v1", true,
			 "v2", true, "systemd", false, "systemdUser", false, "rdma", true, "seccomp", "enabled", true,
			 "actions", strings(actions), "operators", strings(operators), "archs", strings(archs),
			 "knownFlags", strings(flags), "supportedFlags", strings(flags), "apparmor", "enabled", true,
			 "selinux", "enabled", true, "intelRdt", "enabled", false, "mountExtensions", "idmap",
			 "enabled", true);
}

int command_features(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	const struct scmp_version *v = seccomp_version();
	CLEAN_JSON json_t *doc = NULL;
	char libseccomp[32];

	if (argc > 1)
		return command_usage(argv[0], err);
	(void)snprintf(libseccomp, sizeof(libseccomp), "%u.%u.%u", v->major, v->minor, v->micro);
	doc = json_pack("{s:s, s:s, s:o, s:o, s:o, s:{s:s, s:s, s:s}, s:o}", "ociVersionMin", "1.0.0", "ociVersionMax",
			"1.2.0", "hooks", strings(hooks), "mountOptions", strings(container_mount_options()), "linux",
			linux_features(), "annotations", "io.github.seccomp.libseccomp.version", libseccomp,
			"org.opencontainers.runc.checkpoint.enabled", "false", "run.walnut.version", WALNUT_VERSION,
			"potentiallyUnsafeConfigAnnotations", strings(unsafe));
	if (!doc || json_dumpf(doc, stdout, JSON_INDENT(2)) < 0)
		return err_set(err, ENOMEM, "cannot write the features document");
	(void)putchar('\n');
	return 0;
}

/* The configuration to start from: what the specification calls usual, few capabilities, all namespaces. */
static const char default_process[] =
	"{\"terminal\": true, \"user\": {\"uid\": 0, \"gid\": 0}, \"args\": [\"sh\"], \"env\": ["
	"\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\", \"TERM=xterm\"], \"cwd\": \"/\", "
	"\"rlimits\": [{\"type\": \"RLIMIT_NOFILE\", \"hard\": 1024, \"soft\": 1024}], \"noNewPrivileges\": true}";

static const char default_mounts[] =
	"[{\"destination\": \"/proc\", \"type\": \"proc\", \"source\": \"proc\"},"
	"{\"destination\": \"/dev\", \"type\": \"tmpfs\", \"source\": \"tmpfs\", \"options\": [\"nosuid\", "
	"\"strictatime\", \"mode=755\", \"size=65536k\"]},"
	"{\"destination\": \"/dev/pts\", \"type\": \"devpts\", \"source\": \"devpts\", \"options\": [\"nosuid\", "
	"\"noexec\", \"newinstance\", \"ptmxmode=0666\", \"mode=0620\", \"gid=5\"]},"
	"{\"destination\": \"/dev/shm\", \"type\": \"tmpfs\", \"source\": \"shm\", \"options\": [\"nosuid\", "
	"\"noexec\", \"nodev\", \"mode=1777\", \"size=65536k\"]},"
	"{\"destination\": \"/dev/mqueue\", \"type\": \"mqueue\", \"source\": \"mqueue\", \"options\": [\"nosuid\", "
	"\"noexec\", \"nodev\"]},"
	"{\"destination\": \"/sys\", \"type\": \"sysfs\", \"source\": \"sysfs\", \"options\": [\"nosuid\", \"noexec\", "
	"\"nodev\", \"ro\"]},"
	"{\"destination\": \"/sys/fs/cgroup\", \"type\": \"cgroup\", \"source\": \"cgroup\", \"options\": [\"nosuid\", "
	"\"noexec\", \"nodev\", \"relatime\", \"ro\"]}]";

static const char rootless_mounts[] =
	"[{\"destination\": \"/proc\", \"type\": \"proc\", \"source\": \"proc\"},"
	"{\"destination\": \"/dev\", \"type\": \"tmpfs\", \"source\": \"tmpfs\", \"options\": [\"nosuid\", "
	"\"strictatime\", \"mode=755\", \"size=65536k\"]},"
	"{\"destination\": \"/dev/pts\", \"type\": \"devpts\", \"source\": \"devpts\", \"options\": [\"nosuid\", "
	"\"noexec\", \"newinstance\", \"ptmxmode=0666\", \"mode=0620\"]},"
	"{\"destination\": \"/dev/shm\", \"type\": \"tmpfs\", \"source\": \"shm\", \"options\": [\"nosuid\", "
	"\"noexec\", \"nodev\", \"mode=1777\", \"size=65536k\"]},"
	"{\"destination\": \"/dev/mqueue\", \"type\": \"mqueue\", \"source\": \"mqueue\", \"options\": [\"nosuid\", "
	"\"noexec\", \"nodev\"]},"
	"{\"destination\": \"/sys\", \"type\": \"none\", \"source\": \"/sys\", \"options\": [\"rbind\", \"nosuid\", "
	"\"noexec\", \"nodev\", \"ro\"]}]";

static const char default_linux[] =
	"{\"resources\": {\"devices\": [{\"allow\": false, \"access\": \"rwm\"}]},"
	"\"namespaces\": [{\"type\": \"pid\"}, {\"type\": \"network\"}, {\"type\": \"ipc\"}, {\"type\": \"uts\"}, "
	"{\"type\": \"mount\"}, {\"type\": \"cgroup\"}],"
	"\"maskedPaths\": [\"/proc/acpi\", \"/proc/asound\", \"/proc/kcore\", \"/proc/keys\", \"/proc/latency_stats\", "
	"\"/proc/timer_list\", \"/proc/timer_stats\", \"/proc/sched_debug\", \"/sys/firmware\", \"/proc/scsi\"],"
	"\"readonlyPaths\": [\"/proc/bus\", \"/proc/fs\", \"/proc/irq\", \"/proc/sys\", \"/proc/sysrq-trigger\"]}";

static json_t *default_capabilities(void)
{
	static const char *const caps[] = { "CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE", NULL };

	return json_pack("{s:o, s:o, s:o}", "bounding", strings(caps), "effective", strings(caps), "permitted",
			 strings(caps));
}

static json_t *rootless_linux(void)
{
	json_t *l = json_loads(default_linux, 0, NULL);
	json_t *spaces = json_loads("[{\"type\": \"pid\"}, {\"type\": \"ipc\"}, {\"type\": \"uts\"}, {\"type\": "
				    "\"mount\"}, {\"type\": \"cgroup\"}, {\"type\": \"user\"}]",
				    0, NULL);
	json_t *uid = json_pack("[{s:i, s:I, s:i}]", "containerID", 0, "hostID", (json_int_t)geteuid(), "size", 1);
	json_t *gid = json_pack("[{s:i, s:I, s:i}]", "containerID", 0, "hostID", (json_int_t)getegid(), "size", 1);

	if (json_object_set_new(l, "namespaces", spaces) < 0 || json_object_set_new(l, "uidMappings", uid) < 0 ||
	    json_object_set_new(l, "gidMappings", gid) < 0 || json_object_del(l, "resources") < 0) {
		json_decref(l);
		return NULL;
	}
	return l;
}

/* As runc-spec(8) does: with version 1 a program finds its group by /proc/self/cgroup, which a namespace would hide. */
static void drop_cgroup_namespace(json_t *l)
{
	json_t *spaces = json_object_get(l, "namespaces");
	json_t *space;
	size_t i;

	json_array_foreach(spaces, i, space) {
		if (strcmp(json_string_value(json_object_get(space, "type")), "cgroup") == 0) {
			(void)json_array_remove(spaces, i);
			return;
		}
	}
}

static json_t *default_spec(bool rootless)
{
	json_t *process = json_loads(default_process, 0, NULL);
	json_t *l = rootless ? rootless_linux() : json_loads(default_linux, 0, NULL);

	if (access("/sys/fs/cgroup/cgroup.controllers", F_OK) < 0)
		drop_cgroup_namespace(l);
	if (json_object_set_new(process, "capabilities", default_capabilities()) < 0) {
		json_decref(process);
		json_decref(l);
		return NULL;
	}
	return json_pack("{s:s, s:o, s:{s:s, s:b}, s:s, s:o, s:o}", "ociVersion", "1.2.0", "process", process, "root",
			 "path", "rootfs", "readonly", true, "hostname", "walnut", "mounts",
			 json_loads(rootless ? rootless_mounts : default_mounts, 0, NULL), "linux", l);
}

int command_spec(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	static const struct option options[] = { { "bundle", required_argument, NULL, 'b' },
						 { "rootless", no_argument, NULL, 'r' },
						 { 0 } };
	const char *bundle = ".";
	bool rootless = false;
	CLEAN_JSON json_t *doc = NULL;
	CLEAN_FREE char *text = NULL;
	int c, dir;

	while ((c = getopt_long(argc, argv, "b:", options, NULL)) >= 0) {
		if (c != 'b' && c != 'r')
			return command_usage(argv[0], err);
		bundle = c == 'b' ? optarg : bundle;
		rootless |= c == 'r';
	}
	if (optind < argc)
		return command_usage(argv[0], err);
	doc = default_spec(rootless);
	text = doc ? json_dumps(doc, JSON_INDENT(8)) : NULL;
	if (!text)
		return err_set(err, ENOMEM, "cannot make the configuration");
	dir = open(bundle, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return err_sys(err, errno, "spec: --bundle %s", bundle);
	if (faccessat(dir, "config.json", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return err_set(err, EEXIST, "file config.json exists. Remove it first");
	c = fd_write_file(dir, "config.json", O_WRONLY | O_CREAT | O_EXCL, text, strlen(text), err);
	(void)close(dir);
	return c;
}
