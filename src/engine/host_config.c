/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HostConfig: what a request may ask, what is refused by name, and Docker's defaults for what it leaves out.
 * One table names every field that Docker's API has (moby, api/types/container/hostconfig.go), its JSON type, its default
 * in inspect, and who can do it; a field that is not in the table, or that nobody here can do, is refused when it is set.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container_internal.h"

enum support {
	SUPPORTED,
	PROCESS_ONLY, /* needs the host's kernel */
	UNSUPPORTED,
	WINDOWS, /* no meaning on Linux; Docker's own daemon refuses it too */
};

static const struct host_field {
	const char *key;
	char type; /* s string, i integer, b boolean, a array, o object, * any */
	enum support support;
	const char *
		otherwise; /* JSON, shown by inspect when the request leaves the field out; NULL: the field is not shown */
} host_fields[] = {
	{ "Binds", 'a', SUPPORTED, "null" },
	{ "ContainerIDFile", 's', SUPPORTED, "\"\"" },
	{ "LogConfig", 'o', SUPPORTED, "{\"Type\":\"json-file\",\"Config\":{}}" },
	{ "NetworkMode", 's', SUPPORTED, "\"bridge\"" },
	{ "PortBindings", 'o', SUPPORTED, "{}" },
	{ "RestartPolicy", 'o', SUPPORTED, "{\"Name\":\"no\",\"MaximumRetryCount\":0}" },
	{ "AutoRemove", 'b', SUPPORTED, "false" },
	{ "VolumeDriver", 's', SUPPORTED, "\"\"" },
	{ "VolumesFrom", 'a', SUPPORTED, "null" },
	{ "ConsoleSize", 'a', SUPPORTED, "[0,0]" },
	{ "Annotations", 'o', SUPPORTED, NULL },
	{ "CapAdd", 'a', SUPPORTED, "null" },
	{ "CapDrop", 'a', SUPPORTED, "null" },
	{ "CgroupnsMode", 's', SUPPORTED, "\"private\"" },
	{ "Dns", 'a', SUPPORTED, "[]" },
	{ "DnsOptions", 'a', SUPPORTED, "[]" },
	{ "DnsSearch", 'a', SUPPORTED, "[]" },
	{ "ExtraHosts", 'a', SUPPORTED, "null" },
	{ "GroupAdd", 'a', SUPPORTED, "null" },
	{ "IpcMode", 's', SUPPORTED, "\"private\"" },
	{ "Cgroup", 's', UNSUPPORTED, "\"\"" },
	{ "Links", 'a', UNSUPPORTED, "null" },
	{ "OomScoreAdj", 'i', SUPPORTED, "0" },
	{ "PidMode", 's', SUPPORTED, "\"\"" },
	{ "Privileged", 'b', SUPPORTED, "false" },
	{ "PublishAllPorts", 'b', SUPPORTED, "false" },
	{ "ReadonlyRootfs", 'b', SUPPORTED, "false" },
	{ "SecurityOpt", 'a', SUPPORTED, "null" },
	{ "StorageOpt", 'o', SUPPORTED, NULL },
	{ "Tmpfs", 'o', SUPPORTED, NULL },
	{ "UTSMode", 's', SUPPORTED, "\"\"" },
	{ "UsernsMode", 's', SUPPORTED, "\"\"" },
	{ "ShmSize", 'i', SUPPORTED, "67108864" },
	{ "Sysctls", 'o', SUPPORTED, NULL },
	{ "Runtime", 's', SUPPORTED, "\"walnut\"" },
	{ "Isolation", 's', SUPPORTED, "\"\"" },
	{ "CpuShares", 'i', SUPPORTED, "0" },
	{ "Memory", 'i', SUPPORTED, "0" },
	{ "NanoCpus", 'i', SUPPORTED, "0" },
	{ "CgroupParent", 's', UNSUPPORTED, "\"\"" },
	{ "BlkioWeight", 'i', UNSUPPORTED, "0" },
	{ "BlkioWeightDevice", 'a', UNSUPPORTED, "[]" },
	{ "BlkioDeviceReadBps", 'a', UNSUPPORTED, "[]" },
	{ "BlkioDeviceWriteBps", 'a', UNSUPPORTED, "[]" },
	{ "BlkioDeviceReadIOps", 'a', UNSUPPORTED, "[]" },
	{ "BlkioDeviceWriteIOps", 'a', UNSUPPORTED, "[]" },
	{ "CpuPeriod", 'i', SUPPORTED, "0" },
	{ "CpuQuota", 'i', SUPPORTED, "0" },
	{ "CpuRealtimePeriod", 'i', UNSUPPORTED, "0" },
	{ "CpuRealtimeRuntime", 'i', UNSUPPORTED, "0" },
	{ "CpusetCpus", 's', SUPPORTED, "\"\"" },
	{ "CpusetMems", 's', SUPPORTED, "\"\"" },
	{ "Devices", 'a', PROCESS_ONLY, "[]" },
	{ "DeviceCgroupRules", 'a', UNSUPPORTED, "null" },
	{ "DeviceRequests", 'a', UNSUPPORTED, "null" },
	{ "KernelMemory", 'i', UNSUPPORTED, NULL },
	{ "KernelMemoryTCP", 'i', UNSUPPORTED, NULL },
	{ "MemoryReservation", 'i', SUPPORTED, "0" },
	{ "MemorySwap", 'i', SUPPORTED, "0" },
	{ "MemorySwappiness", 'i', SUPPORTED, "null" },
	{ "OomKillDisable", 'b', SUPPORTED, "false" },
	{ "PidsLimit", 'i', SUPPORTED, "null" },
	{ "Ulimits", 'a', SUPPORTED, "[]" },
	{ "CpuCount", 'i', WINDOWS, "0" },
	{ "CpuPercent", 'i', WINDOWS, "0" },
	{ "IOMaximumIOps", 'i', WINDOWS, "0" },
	{ "IOMaximumBandwidth", 'i', WINDOWS, "0" },
	{ "Mounts", 'a', SUPPORTED, NULL },
	{ "MaskedPaths", 'a', SUPPORTED, NULL },
	{ "ReadonlyPaths", 'a', SUPPORTED, NULL },
	{ "Init", 'b', SUPPORTED, NULL },
};

bool json_nonempty(const json_t *v)
{
	switch (json_typeof(v ? v : json_null())) {
	case JSON_OBJECT: return json_object_size(v);
	case JSON_ARRAY: return json_array_size(v);
	case JSON_STRING: return json_string_length(v);
	case JSON_INTEGER: return json_integer_value(v) != 0;
	case JSON_REAL: return true;
	case JSON_TRUE: return true;
	default: return false;
	}
}

/* Docker's sizes: a number with k, m, g, t or p, with or without b; @base is 1000 or 1024. Return: bytes, or -1. */
int64_t engine_parse_size(const char *text, int64_t base)
{
	static const char units[] = "kmgtp";
	char *end;
	double n = strtod(text, &end);
	const char *unit;

	if (end == text || n < 0 || !strchr("0123456789.", *text))
		return -1;
	while (*end == ' ')
		end++;
	unit = *end ? strchr(units, *end | 0x20) : NULL;
	if (unit) {
		for (const char *u = units; u <= unit; u++)
			n *= (double)base;
		end++;
		if (*end == 'i')
			end++;
	}
	if (*end == 'b' || *end == 'B')
		end++;
	return *end || n > 9e18 ? -1 : (int64_t)n;
}

static int check_log(const json_t *log, struct err *err)
{
	const char *type = json_str(log, "Type", ""), *key, *text;
	json_t *v;
	char *end;

	if (*type && strcmp(type, "json-file") && strcmp(type, "none"))
		return err_set(err, ENOSYS, "log driver %s is not supported by this version of Walnut", type);
	json_object_foreach(json_object_get(log, "Config"), key, v) {
		text = json_string_value(v) ?: "";
		if (!strcmp(key, "max-size")) {
			if (engine_parse_size(text, 1000) < 0 && strcmp(text, "-1"))
				return err_set(err, EINVAL, "invalid value for max-size: invalid size: '%s'", text);
		} else if (!strcmp(key, "max-file")) {
			if (strtol(text, &end, 10) < 1 || *end || end == text)
				return err_set(err, EINVAL,
					       "invalid value for max-file: '%s': it is a number of at least 1", text);
		} else {
			return err_set(
				err, EINVAL,
				"log opt '%s' is not supported by this version of Walnut for the json-file log driver",
				key);
		}
	}
	return 0;
}

static int check_storage(const json_t *options, enum engine_isolation isolation, struct err *err)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)options, key, v) {
		if (strcasecmp(key, "size"))
			return err_set(err, EINVAL, "unknown option %s for --storage-opt: the only one is size", key);
		if (engine_parse_size(json_string_value(v) ?: "", 1024) < 16 << 20)
			return err_set(err, EINVAL, "--storage-opt size=%s is not a size of at least 16m",
				       json_string_value(v) ?: "");
		if (isolation == ENGINE_ISOLATION_PROCESS)
			return err_set(err, EINVAL,
				       "--storage-opt size is supported only with --isolation=hyperv: "
				       "overlay on this backing filesystem has no project quota");
	}
	return 0;
}

static int check_security(const json_t *options, struct err *err)
{
	static const char *const known[] = { "no-new-privileges",       "no-new-privileges:true",
					     "no-new-privileges=true",  "no-new-privileges:false",
					     "no-new-privileges=false", "seccomp=unconfined",
					     "seccomp:unconfined",      "seccomp=builtin",
					     "apparmor=unconfined",     "apparmor:unconfined",
					     "label=disable",           "label:disable" };
	bool apparmor = !access("/sys/kernel/security/apparmor", F_OK),
	     selinux = !access("/sys/fs/selinux/enforce", F_OK);
	size_t i;
	json_t *v;

	json_array_foreach(options, i, v) {
		const char *text = json_string_value(v) ?: "";
		bool ok = false;

		for (size_t k = 0; k < ARRAY_LEN(known); k++)
			ok = ok || !strcmp(text, known[k]);
		/* as with Docker, a module that this host does not have is not asked */
		ok = ok || (!apparmor && !strncmp(text, "apparmor", 8) && strchr("=:", text[8]) && text[8]);
		ok = ok || (!selinux && !strncmp(text, "label", 5) && strchr("=:", text[5]) && text[5]);
		if (!ok)
			return err_set(err, ENOSYS, "SecurityOpt %.200s is not supported by this version of Walnut",
				       text);
	}
	return 0;
}

static bool json_is_kind(const json_t *v, char type)
{
	switch (type) {
	case 's': return json_is_string(v);
	case 'i': return json_is_integer(v) || (json_is_real(v) && json_real_value(v) == floor(json_real_value(v)));
	case 'b': return json_is_boolean(v);
	case 'a': return json_is_array(v);
	case 'o': return json_is_object(v);
	default: return true;
	}
}

static const struct host_field *find_field(const char *key)
{
	for (size_t i = 0; i < ARRAY_LEN(host_fields); i++)
		if (!strcasecmp(host_fields[i].key, key)) /* as Go's decoder: any case */
			return &host_fields[i];
	return NULL;
}

static int check_fields(const json_t *host, enum engine_isolation isolation, struct err *err)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)host, key, v) {
		const struct host_field *f = find_field(key);

		if (json_is_null(v))
			continue;
		if (f && !json_is_kind(v, f->type))
			return err_set(err, EINVAL, "HostConfig.%s has the wrong JSON type", key);
		if (!json_nonempty(v))
			continue;
		if (!f)
			return err_set(err, EINVAL, "HostConfig.%.100s is not known to this version of Walnut", key);
		if (f->support == WINDOWS)
			return err_set(err, EINVAL, "invalid option: %s is only supported on Windows", key);
		if (f->support == UNSUPPORTED)
			return err_set(err, ENOSYS, "HostConfig.%s is not supported by this version of Walnut", key);
		if (f->support == PROCESS_ONLY && isolation == ENGINE_ISOLATION_HYPERV)
			return err_set(err, EINVAL, "HostConfig.%s is only possible with --isolation=process", key);
	}
	return 0;
}

/* "host" and "container:ID" share what is the host kernel's: only process isolation can. */
static int check_mode(const json_t *host, const char *key, const char *const *allowed, enum engine_isolation isolation,
		      struct err *err)
{
	const char *mode = json_str(host, key, "");
	bool shares = !strcmp(mode, "host") || !strncmp(mode, "container:", 10), known = !*mode;

	for (; *allowed; allowed++)
		known = known || (strcmp(*allowed, "container:") ? !strcmp(*allowed, mode)
								 : !strncmp(mode, "container:", 10) && mode[10]);
	if (!known)
		return err_set(err, EINVAL, "invalid %s: %.200s", key, mode);
	if (shares && isolation == ENGINE_ISOLATION_HYPERV && strcmp(key, "UsernsMode") != 0)
		return err_set(err, EINVAL, "%s %.200s is only possible with --isolation=process", key, mode);
	return 0;
}

static int check_modes(const json_t *host, enum engine_isolation isolation, struct err *err)
{
	static const char *const pid[] = { "host", "container:", NULL }, *const ipc[] = { "host",    "container:",
											  "private", "shareable",
											  "none",    NULL },
				 *const one[] = { "host", NULL }, *const cgroup[] = { "host", "private", NULL };
	const char *network = json_str(host, "NetworkMode", "");

	if (!strcmp(network, "container:"))
		return err_set(err, EINVAL, "invalid container format container:<name|id>");
	if ((!strcmp(network, "host") || !strncmp(network, "container:", 10)) && isolation == ENGINE_ISOLATION_HYPERV)
		return err_set(err, EINVAL, "NetworkMode %.200s is only possible with --isolation=process", network);
	if (!strcmp(json_str(host, "IpcMode", ""), "none") || !strncmp(json_str(host, "IpcMode", ""), "container:", 10))
		return err_set(err, ENOSYS, "HostConfig.IpcMode=%.100s is not supported by this version of Walnut",
			       json_str(host, "IpcMode", ""));
	if (check_mode(host, "PidMode", pid, isolation, err) || check_mode(host, "IpcMode", ipc, isolation, err) ||
	    check_mode(host, "UTSMode", one, isolation, err) || check_mode(host, "UsernsMode", one, isolation, err) ||
	    check_mode(host, "CgroupnsMode", cgroup, isolation, err))
		return -err->code;
	return 0;
}

static int check_health(const json_t *health, struct err *err)
{
	static const char *const times[] = { "Interval", "Timeout", "StartPeriod", "StartInterval" };
	const json_t *test = json_object_get(health, "Test");
	const char *kind = json_string_value(json_array_get(test, 0)) ?: "";

	for (size_t i = 0; i < ARRAY_LEN(times); i++) {
		int64_t ns = json_int(health, times[i], 0);

		if (ns && ns < 1000000)
			return err_set(err, EINVAL, "%s in Healthcheck cannot be less than 1ms", times[i]);
	}
	if (json_int(health, "Retries", 0) < 0)
		return err_set(err, EINVAL, "Retries in Healthcheck cannot be negative");
	if (json_array_size(test) && strcmp(kind, "NONE") && strcmp(kind, "CMD") && strcmp(kind, "CMD-SHELL"))
		return err_set(err, EINVAL, "Unknown healthcheck type '%.100s' (expected 'CMD')", kind);
	return 0;
}

int container_refuse(const json_t *config, const json_t *host, enum engine_isolation isolation, struct err *err)
{
	const char *runtime = json_str(host, "Runtime", "");

	if (check_fields(host, isolation, err))
		return -err->code;
	if (*runtime && strcmp(runtime, "walnut") && strcmp(runtime, "process") && strcmp(runtime, "hyperv"))
		return err_set(err, EINVAL, "unknown or invalid runtime name: %.100s", runtime);
	if (check_modes(host, isolation, err) || check_health(json_object_get(config, "Healthcheck"), err) ||
	    check_log(json_object_get(host, "LogConfig"), err) ||
	    check_storage(json_object_get(host, "StorageOpt"), isolation, err) ||
	    check_security(json_object_get(host, "SecurityOpt"), err))
		return -err->code;
	return 0;
}

static int check_memory(const json_t *host, struct err *err)
{
	int64_t memory = json_int(host, "Memory", 0), swap = json_int(host, "MemorySwap", 0);
	int64_t reserved = json_int(host, "MemoryReservation", 0), swappiness = json_int(host, "MemorySwappiness", -1);

	if (memory && memory < 6 << 20)
		return err_set(err, EINVAL, "Minimum memory limit allowed is 6MB");
	if (memory > 0 && swap > 0 && swap < memory)
		return err_set(err, EINVAL, "Minimum memoryswap limit should be larger than memory limit, see usage");
	if (!memory && swap > 0)
		return err_set(err, EINVAL,
			       "You should always set the Memory limit when using Memoryswap limit, see usage");
	if (swappiness != -1 && (swappiness < 0 || swappiness > 100))
		return err_set(err, EINVAL, "Invalid value: %lld, valid memory swappiness range is 0-100",
			       (long long)swappiness);
	if (reserved && reserved < 6 << 20)
		return err_set(err, EINVAL, "Minimum memory reservation allowed is 6MB");
	if (memory > 0 && reserved > 0 && memory < reserved)
		return err_set(err, EINVAL,
			       "Minimum memory limit can not be less than memory reservation limit, see usage");
	if (json_int(host, "ShmSize", 0) < 0)
		return err_set(err, EINVAL, "SHM size can not be less than 0");
	return 0;
}

/* A list such as "0-2,5": every number below @count. */
static int check_cpuset(const char *key, const char *text, long count, struct err *err)
{
	const char *what = strcmp(key, "CpusetCpus") ? "mems" : "cpus";
	const char *p = text;

	while (*p) {
		char *end;
		long from = strtol(p, &end, 10), to = from;
		bool digits = end != p && *p >= '0' && *p <= '9';

		if (digits && *end == '-') {
			p = end + 1;
			to = strtol(p, &end, 10);
			digits = end != p && to >= from;
		}
		if (!digits || (*end && *end != ','))
			return err_set(err, EINVAL, "Invalid value %.100s for cpuset %s", text, what);
		if (to >= count)
			return err_set(err, EINVAL,
				       "Requested %s are not available - requested %.100s, available: 0-%ld",
				       strcmp(what, "cpus") ? "memory nodes" : "CPUs", text, count - 1);
		p = *end ? end + 1 : end;
	}
	return 0;
}

static int check_cpu(const json_t *host, struct err *err)
{
	int64_t nano = json_int(host, "NanoCpus", 0), period = json_int(host, "CpuPeriod", 0);
	int64_t quota = json_int(host, "CpuQuota", 0), shares = json_int(host, "CpuShares", 0);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (nano > 0 && period > 0)
		return err_set(err, EINVAL, "Conflicting options: Nano CPUs and CPU Period cannot both be set");
	if (nano > 0 && quota > 0)
		return err_set(err, EINVAL, "Conflicting options: Nano CPUs and CPU Quota cannot both be set");
	if (nano < 0 || (nano && nano < 10000000) || nano > cpus * 1000000000LL)
		return err_set(err, EINVAL,
			       "range of CPUs is from 0.01 to %ld.00, as there are only %ld CPUs available", cpus,
			       cpus);
	if (shares < 0)
		return err_set(err, EINVAL, "invalid CPU shares (%lld): value must be a positive integer",
			       (long long)shares);
	if (period && (period < 1000 || period > 1000000))
		return err_set(err, EINVAL,
			       "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
	if (quota > 0 && quota < 1000)
		return err_set(err, EINVAL, "CPU cfs quota can not be less than 1ms (i.e. 1000)");
	if (check_cpuset("CpusetCpus", json_str(host, "CpusetCpus", ""), sysconf(_SC_NPROCESSORS_CONF), err))
		return -err->code;
	return check_cpuset("CpusetMems", json_str(host, "CpusetMems", ""), 1024, err);
}

int container_check_restart(const json_t *restart, bool auto_remove, struct err *err)
{
	static const char *const policies[] = { "", "no", "always", "on-failure", "unless-stopped" };
	const char *policy = json_str(restart, "Name", "");
	int64_t count = json_int(restart, "MaximumRetryCount", 0);
	bool known = false;

	for (size_t i = 0; i < ARRAY_LEN(policies); i++)
		known = known || !strcmp(policy, policies[i]);
	if (!known)
		return err_set(
			err, EINVAL,
			"invalid restart policy: unknown policy '%.100s'; use one of 'no', 'always', 'on-failure', "
			"or 'unless-stopped'",
			policy);
	if (count < 0)
		return err_set(err, EINVAL, "invalid restart policy: maximum retry count cannot be negative");
	if (count && strcmp(policy, "on-failure"))
		return err_set(err, EINVAL,
			       "invalid restart policy: maximum retry count can only be used with 'on-failure'");
	if (auto_remove && *policy && strcmp(policy, "no"))
		return err_set(err, EINVAL, "can't create 'AutoRemove' container with restart policy");
	return 0;
}

static int check_lists(const json_t *host, struct err *err)
{
	static const char *const lists[] = { "CapAdd",    "CapDrop",    "Dns",      "DnsOptions",
					     "DnsSearch", "ExtraHosts", "GroupAdd", "SecurityOpt" };
	size_t k;
	json_t *v;

	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		json_array_foreach(json_object_get(host, lists[i]), k, v)
			if (!json_is_string(v))
				return err_set(err, EINVAL, "HostConfig.%s holds something that is not a string",
					       lists[i]);
	json_array_foreach(json_object_get(host, "ExtraHosts"), k, v)
		if (!strpbrk(json_string_value(v), ":="))
			return err_set(err, EINVAL, "bad format for add-host: \"%.200s\"", json_string_value(v));
	json_array_foreach(json_object_get(host, "GroupAdd"), k, v)
		if (!json_string_length(v) || strspn(json_string_value(v), "0123456789") != json_string_length(v))
			return err_set(
				err, ENOSYS,
				"GroupAdd %.100s is not supported by this version of Walnut: only numeric groups are",
				json_string_value(v));
	json_array_foreach(json_object_get(host, "Ulimits"), k, v)
		if (!*json_str(v, "Name", "") || json_int(v, "Soft", 0) < -1 ||
		    (json_int(v, "Hard", 0) != -1 && json_int(v, "Soft", 0) > json_int(v, "Hard", 0)))
			return err_set(err, EINVAL,
				       "ulimit soft limit must be less than or equal to hard limit: %lld > %lld",
				       (long long)json_int(v, "Soft", 0), (long long)json_int(v, "Hard", 0));
	return 0;
}

int container_check_limits(const json_t *host, struct err *err)
{
	int64_t adjust = json_int(host, "OomScoreAdj", 0);

	if (check_memory(host, err) || check_cpu(host, err) || check_lists(host, err) ||
	    container_check_restart(json_object_get(host, "RestartPolicy"), json_bool(host, "AutoRemove", false), err))
		return -err->code;
	if (adjust < -1000 || adjust > 1000)
		return err_set(err, EINVAL, "Invalid value %lld, range for oom score adj is [-1000, 1000]",
			       (long long)adjust);
	return 0;
}

/* The whole HostConfig in the table's order: what was asked, else the default. */
static json_t *host_complete(const json_t *asked)
{
	json_t *out = json_object();

	for (size_t i = 0; i < ARRAY_LEN(host_fields); i++) {
		const struct host_field *f = &host_fields[i];
		json_t *have = NULL, *v;
		const char *key;

		json_object_foreach((json_t *)asked, key, v)
			if (!strcasecmp(key, f->key))
				have = v;
		if (have && !json_is_null(have) && (f->otherwise || json_nonempty(have) || json_is_boolean(have)))
			(void)json_object_set(out, f->key, have);
		else if (f->otherwise)
			(void)json_object_set_new(out, f->key, json_loads(f->otherwise, JSON_DECODE_ANY, NULL));
	}
	return out;
}

static void default_where(json_t *host, const char *key, bool empty)
{
	if (empty)
		(void)json_object_set_new(host, key, json_loads(find_field(key)->otherwise, JSON_DECODE_ANY, NULL));
}

void container_defaults(struct engine_container *c)
{
	json_t *host = host_complete(c->host_config), *log = json_object_get(host, "LogConfig");
	const json_t *restart = json_object_get(host, "RestartPolicy");

	json_decref(c->host_config);
	c->host_config = host;
	default_where(host, "NetworkMode",
		      !*json_str(host, "NetworkMode", "") || !strcmp(json_str(host, "NetworkMode", ""), "default"));
	default_where(host, "IpcMode", !*json_str(host, "IpcMode", ""));
	default_where(host, "CgroupnsMode", !*json_str(host, "CgroupnsMode", ""));
	default_where(host, "Runtime", !*json_str(host, "Runtime", ""));
	default_where(host, "ShmSize", !json_int(host, "ShmSize", 0));
	default_where(host, "RestartPolicy", !*json_str(restart, "Name", ""));
	if (!json_is_integer(json_object_get(json_object_get(host, "RestartPolicy"), "MaximumRetryCount")))
		(void)json_object_set_new(json_object_get(host, "RestartPolicy"), "MaximumRetryCount", json_integer(0));
	if (!*json_str(log, "Type", ""))
		(void)json_object_set_new(log, "Type", json_string("json-file"));
	if (!json_is_object(json_object_get(log, "Config")))
		(void)json_object_set_new(log, "Config", json_object());
	if (!json_bool(host, "Privileged", false))
		spec_default_paths(host);
	/* as Docker: -1 and 0 mean "not set" */
	default_where(host, "MemorySwappiness", json_int(host, "MemorySwappiness", -1) == -1);
	default_where(host, "PidsLimit", json_int(host, "PidsLimit", 0) <= 0);
	/* as Docker: a memory limit alone allows as much swap again */
	if (json_int(host, "Memory", 0) > 0 && !json_int(host, "MemorySwap", 0))
		(void)json_object_set_new(host, "MemorySwap", json_integer(json_int(host, "Memory", 0) * 2));
	(void)json_object_set_new(host, "Isolation", json_string(engine_isolation_name(c->isolation)));
}
