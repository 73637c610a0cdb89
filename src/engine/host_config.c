/* SPDX-License-Identifier: Apache-2.0 */
/* HostConfig: what a request may ask, what is refused by name, and Docker's defaults for what it leaves out. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "engine/container_internal.h"

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

int container_refuse(const json_t *config, const json_t *host, enum engine_isolation isolation, struct err *err)
{
	static const char *const host_keys[] = { "Binds",
						 "Mounts",
						 "PortBindings",
						 "PublishAllPorts",
						 "Devices",
						 "DeviceRequests",
						 "DeviceCgroupRules",
						 "Links",
						 "VolumesFrom",
						 "CgroupParent",
						 "Cgroup",
						 "UsernsMode",
						 "UTSMode",
						 "VolumeDriver",
						 "Dns",
						 "DnsOptions",
						 "DnsSearch",
						 "ExtraHosts",
						 "GroupAdd",
						 "BlkioWeight",
						 "BlkioWeightDevice",
						 "BlkioDeviceReadBps",
						 "BlkioDeviceWriteBps",
						 "BlkioDeviceReadIOps",
						 "BlkioDeviceWriteIOps",
						 "CpuRealtimePeriod",
						 "CpuRealtimeRuntime",
						 "CpuCount",
						 "CpuPercent",
						 "IOMaximumIOps",
						 "IOMaximumBandwidth" };
	const char *network = json_str(host, "NetworkMode", "default");
	const char *runtime = json_str(host, "Runtime", "");
	static const char *const modes[] = { "PidMode", "IpcMode" };

	for (size_t i = 0; i < ARRAY_LEN(host_keys); i++)
		if (json_nonempty(json_object_get(host, host_keys[i])))
			return err_set(err, ENOSYS, "HostConfig.%s is not supported by this version of Walnut",
				       host_keys[i]);
	if (json_nonempty(json_object_get(config, "Volumes")))
		return err_set(err, ENOSYS, "Volumes are not supported by this version of Walnut");
	const json_t *health = json_object_get(json_object_get(config, "Healthcheck"), "Test");

	if (json_array_size(health) && strcmp(json_string_value(json_array_get(health, 0)) ?: "", "NONE"))
		return err_set(err, ENOSYS, "Healthcheck is not supported by this version of Walnut");
	if (*runtime)
		return err_set(err, EINVAL, "unknown or invalid runtime name: %s", runtime);
	if (*network && strcmp(network, "default") && strcmp(network, "none") && strcmp(network, "bridge") &&
	    strcmp(network, "host"))
		return err_set(err, ENOSYS, "NetworkMode %s is not supported by this version of Walnut", network);
	if (!strcmp(network, "host") && isolation == ENGINE_ISOLATION_HYPERV)
		return err_set(err, EINVAL, "NetworkMode host is only possible with --isolation=process");
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		const char *mode = json_str(host, modes[i], "");

		if (*mode && strcmp(mode, "private") && (strcmp(mode, "shareable") || i == 0))
			return err_set(err, ENOSYS, "HostConfig.%s=%s is not supported by this version of Walnut",
				       modes[i], mode);
	}
	if (check_log(json_object_get(host, "LogConfig"), err) ||
	    check_storage(json_object_get(host, "StorageOpt"), isolation, err) ||
	    check_security(json_object_get(host, "SecurityOpt"), err))
		return -err->code;
	return 0;
}

int container_check_limits(const json_t *host, struct err *err)
{
	int64_t memory = json_int(host, "Memory", 0);
	const json_t *restart = json_object_get(host, "RestartPolicy");
	const char *policy = json_str(restart, "Name", "");
	struct err ignored;

	(void)ignored;
	if (memory && memory < 6 * 1024 * 1024)
		return err_set(err, EINVAL, "Minimum memory limit allowed is 6MB");
	if (*policy && strcmp(policy, "no") && strcmp(policy, "always") && strcmp(policy, "unless-stopped") &&
	    strcmp(policy, "on-failure"))
		return err_set(err, EINVAL, "invalid restart policy: unknown policy '%s'", policy);
	if (json_bool(host, "AutoRemove", false) && *policy && strcmp(policy, "no"))
		return err_set(err, EINVAL, "can't create 'AutoRemove' container with restart policy");
	return 0;
}

void container_defaults(struct engine_container *c)
{
	static const struct {
		const char *key, *json;
	} defaults[] = { { "NetworkMode", "\"default\"" },
			 { "IpcMode", "\"private\"" },
			 { "CgroupnsMode", "\"private\"" },
			 { "ShmSize", "67108864" },
			 { "LogConfig", "{\"Type\":\"json-file\",\"Config\":{}}" },
			 { "RestartPolicy", "{\"Name\":\"no\",\"MaximumRetryCount\":0}" } };

	for (size_t i = 0; i < ARRAY_LEN(defaults); i++) {
		const json_t *have = json_object_get(c->host_config, defaults[i].key);

		if (!json_nonempty(have) ||
		    (json_is_object(have) && !*json_str(have, "Type", json_str(have, "Name", ""))))
			(void)json_object_set_new(c->host_config, defaults[i].key,
						  json_loads(defaults[i].json, JSON_DECODE_ANY, NULL));
	}
	(void)json_object_set_new(c->host_config, "Isolation", json_string(engine_isolation_name(c->isolation)));
	if (!*json_str(c->config, "Hostname", "")) {
		char host[13];

		(void)snprintf(host, sizeof(host), "%.12s", c->id);
		(void)json_object_set_new(c->config, "Hostname", json_string(host));
	}
}
