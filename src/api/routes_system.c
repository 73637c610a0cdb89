/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine itself: ping, version, info, events; and the parts of the API that are not built, each answered by name.
 */
#include "api/routes.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "api/http_parse.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "engine/accelerator.h"
#include "engine/engine.h"
#include "image/image.h"

#define CGROUP2_MAGIC 0x63677270

static void sys_ping(struct http_conn *c, const struct http_request *r, void *arg)
{
	http_set_header(c, "Cache-Control", "no-cache, no-store, must-revalidate");
	http_set_header(c, "Pragma", "no-cache");
	http_set_header(c, "Builder-Version", "1");
	http_set_header(c, "Swarm", "inactive");
	http_reply_text(c, 200, "text/plain; charset=utf-8", "OK");
}

static void sys_version(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct utsname u = { 0 };
	json_t *details, *v;

	uname(&u);
	details = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "ApiVersion", "1.47", "MinAPIVersion", "1.24", "Os", "linux",
			    "Arch", "amd64", "KernelVersion", u.release, "Experimental", "false");
	v = json_pack("{s:{s:s},s:[{s:s,s:s,s:o}],s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s}", "Platform", "Name",
		      "Walnut Engine", "Components", "Name", "Engine", "Version", WALNUT_VERSION, "Details", details,
		      "Version", WALNUT_VERSION, "ApiVersion", "1.47", "MinAPIVersion", "1.24", "Os", "linux", "Arch",
		      "amd64", "KernelVersion", u.release, "GitCommit", "", "GoVersion", "", "BuildTime", "");
	http_reply_json(c, 200, v);
}

static void os_release(char *name, size_t nname, char *version, size_t nversion)
{
	CLEAN_FREE char *text = fd_read_file(-100, "/etc/os-release", 65536, NULL, NULL);
	char *rest = text;

	snprintf(name, nname, "Linux");
	*version = '\0';
	for (char *line; rest && (line = strsep(&rest, "\n"));) {
		char *value = strchr(line, '=');
		size_t n;

		if (!value)
			continue;
		*value++ = '\0';
		n = strlen(value);
		if (n >= 2 && (*value == '"' || *value == '\'') && value[n - 1] == *value) {
			value[n - 1] = '\0';
			value++;
		}
		if (!strcmp(line, "PRETTY_NAME"))
			snprintf(name, nname, "%s", value);
		else if (!strcmp(line, "VERSION_ID"))
			snprintf(version, nversion, "%s", value);
	}
}

static void set(json_t *o, const char *key, json_t *value)
{
	(void)json_object_set_new(o, key, value);
}

static void info_host(json_t *o)
{
	struct statfs fs = { 0 };
	struct utsname u = { 0 };
	struct sysinfo si = { 0 };
	char name[256], version[64], host[256] = "";
	bool v2 = !statfs("/sys/fs/cgroup", &fs) && fs.f_type == CGROUP2_MAGIC;

	uname(&u);
	sysinfo(&si);
	os_release(name, sizeof(name), version, sizeof(version));
	gethostname(host, sizeof(host) - 1);
	set(o, "KernelVersion", json_string(u.release));
	set(o, "OperatingSystem", json_string(name));
	set(o, "OSVersion", json_string(version));
	set(o, "OSType", json_string("linux"));
	set(o, "Architecture", json_string(u.machine));
	set(o, "NCPU", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
	set(o, "MemTotal", json_integer((json_int_t)si.totalram * si.mem_unit));
	set(o, "Name", json_string(host));
	set(o, "CgroupDriver", json_string("cgroupfs"));
	set(o, "CgroupVersion", json_string(v2 ? "2" : "1"));
}

static bool file_says(const char *path, char first)
{
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, path, 4096, NULL, NULL);

	return text && *text == first;
}

static bool controller_there(const char *controllers, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = controllers; p && (p = strstr(p, name)); p += n)
		if ((p == controllers || p[-1] == ' ') && (!p[n] || p[n] == ' ' || p[n] == '\n'))
			return true;
	return false;
}

/* Each of Docker's flags, with where cgroup version 1 and version 2 show it; NULL: that version does not have it. */
static const struct {
	const char *flag, *v1, *v2_controller, *warning;
} limits[] = {
	{ "MemoryLimit", "memory/memory.limit_in_bytes", "memory", "WARNING: No memory limit support" },
	{ "SwapLimit", "memory/memory.memsw.limit_in_bytes", "memory", "WARNING: No swap limit support" },
	{ "OomKillDisable", "memory/memory.oom_control", NULL, NULL },
	{ "CpuCfsPeriod", "cpu/cpu.cfs_period_us", "cpu", "WARNING: No cpu cfs period support" },
	{ "CpuCfsQuota", "cpu/cpu.cfs_quota_us", "cpu", "WARNING: No cpu cfs quota support" },
	{ "CPUShares", "cpu/cpu.shares", "cpu", "WARNING: No cpu shares support" },
	{ "CPUSet", "cpuset/cpuset.cpus", "cpuset", "WARNING: No cpuset support" },
	{ "PidsLimit", "pids/cgroup.procs", "pids", "WARNING: No pids limit support" },
};

static void info_limits(json_t *o, json_t *warnings)
{
	CLEAN_FREE char *controllers = fd_read_file(AT_FDCWD, "/sys/fs/cgroup/cgroup.controllers", 4096, NULL, NULL);
	char path[128];

	for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
		bool there;

		(void)snprintf(path, sizeof(path), "/sys/fs/cgroup/%s", limits[i].v1);
		there = controllers ? limits[i].v2_controller && controller_there(controllers, limits[i].v2_controller)
				    : !access(path, F_OK);
		set(o, limits[i].flag, json_boolean(there));
		if (!there && limits[i].warning)
			(void)json_array_append_new(warnings, json_string(limits[i].warning));
	}
	set(o, "IPv4Forwarding", json_boolean(file_says("/proc/sys/net/ipv4/ip_forward", '1')));
	set(o, "BridgeNfIptables", json_boolean(file_says("/proc/sys/net/bridge/bridge-nf-call-iptables", '1')));
	set(o, "BridgeNfIp6tables", json_boolean(file_says("/proc/sys/net/bridge/bridge-nf-call-ip6tables", '1')));
}

static json_int_t open_files(void)
{
	CLEAN_DIR DIR *dir = opendir("/proc/self/fd");
	json_int_t n = -3; /* ".", ".." and the folder itself */

	while (dir && readdir(dir))
		n++;
	return n;
}

/* What does not change while the engine runs. */
static void info_fixed(json_t *o)
{
	set(o, "Debug", json_false());
	set(o, "LiveRestoreEnabled", json_true());
	set(o, "ExperimentalBuild", json_false());
	set(o, "NFd", json_integer(open_files()));
	set(o, "NGoroutines", json_integer(1));
	set(o, "NEventsListener", json_integer(0));
	set(o, "LoggingDriver", json_string("json-file"));
	set(o, "Driver", json_string("erofs-overlay"));
	set(o, "Plugins",
	    json_pack("{s:[],s:[s,s,s],s:n,s:[s,s]}", "Volume", "Network", "bridge", "host", "null", "Authorization",
		      "Log", "json-file", "none"));
	set(o, "RegistryConfig", json_pack("{s:[],s:{},s:n}", "InsecureRegistryCIDRs", "IndexConfigs", "Mirrors"));
	set(o, "GenericResources", json_null());
	set(o, "HttpProxy", json_string(""));
	set(o, "HttpsProxy", json_string(""));
	set(o, "NoProxy", json_string(""));
	set(o, "IndexServerAddress", json_string("https://index.docker.io/v1/"));
	set(o, "Runtimes",
	    json_pack("{s:{s:s}, s:{s:s}, s:{s:s}}", "hyperv", "path", "walnut-shim", "process", "path", "walnut-shim",
		      "walnut", "path", "walnut-shim"));
	set(o, "DefaultRuntime", json_string("walnut"));
	set(o, "Swarm",
	    json_pack("{s:s,s:s,s:s,s:b,s:s,s:n}", "NodeID", "", "NodeAddr", "", "LocalNodeState", "inactive",
		      "ControlAvailable", 0, "Error", "", "RemoteManagers"));
	set(o, "ContainerdCommit", json_pack("{s:s}", "ID", ""));
	set(o, "RuncCommit", json_pack("{s:s}", "ID", ""));
	set(o, "InitCommit", json_pack("{s:s}", "ID", ""));
	set(o, "InitBinary", json_string("walnut-shim"));
	set(o, "SecurityOptions", json_pack("[s, s]", "name=seccomp,profile=builtin", "name=cgroupns"));
	set(o, "CDISpecDirs", json_array());
}

static void sys_info(struct http_conn *c, const struct http_request *r, void *arg)
{
	struct engine *e = arg;
	struct accelerator a;
	struct err err = ERR_INIT;
	char now[40], text[ERR_MSG_SIZE + 64];
	int running, paused, stopped;
	json_t *o = json_object(), *warnings = json_array();

	engine_counts(e, &running, &paused, &stopped);
	if (accelerator_choose(e->config.accelerator ? e->config.accelerator : "auto", &a, &err))
		snprintf(a.reason, sizeof(a.reason), "%s", err.msg);
	set(o, "ID", json_string(e->id));
	set(o, "Containers", json_integer(running + paused + stopped));
	set(o, "ContainersRunning", json_integer(running));
	set(o, "ContainersPaused", json_integer(paused));
	set(o, "ContainersStopped", json_integer(stopped));
	set(o, "Images", json_integer(e->images ? (json_int_t)image_count(e->images) : 0));
	set(o, "ServerVersion", json_string(WALNUT_VERSION));
	set(o, "SystemTime", json_string(engine_time_text(engine_now_ns(), now)));
	set(o, "DockerRootDir", json_string(e->config.data_root ? e->config.data_root : ""));
	set(o, "Isolation", json_string(engine_isolation_name(e->config.isolation)));
	info_host(o);
	info_fixed(o);
	info_limits(o, warnings);
	set(o, "DriverStatus",
	    json_pack("[[s,s],[s,s],[s,s]]", "Layers", "EROFS", "hyperv accelerator", accelerator_name(a.kind),
		      "Reason", a.reason));
	snprintf(text, sizeof(text), "walnut.accelerator=%s", accelerator_name(a.kind));
	set(o, "Labels", json_pack("[s]", text));
	set(o, "Accelerator",
	    json_pack("{s:s,s:s,s:s,s:I}", "Name", accelerator_name(a.kind), "Reason", a.reason, "Qemu", a.qemu,
		      "KvmMips", (json_int_t)a.kvm_mips));
	if (a.kind == ACCELERATOR_NONE) {
		snprintf(text, sizeof(text), "WARNING: hyperv containers can not run: %s", a.reason);
		(void)json_array_append_new(warnings, json_string(text));
	}
	set(o, "Warnings", warnings);
	http_reply_json(c, 200, o);
}

/* --- events --- */

struct watch {
	struct engine *engine;
	struct http_conn *conn;
	struct events_subscriber *subscriber;
	struct loop_timer *end;
};

static void watch_event(const json_t *event, void *arg)
{
	struct watch *w = arg;
	CLEAN_FREE char *text = json_text(event);
	CLEAN_BUF struct buf b = BUF_INIT;

	if (text && !buf_printf(&b, "%s\n", text))
		(void)http_stream_write(w->conn, buf_bytes(&b), b.len);
}

static void watch_free(struct watch *w)
{
	events_unsubscribe(w->subscriber);
	if (w->end)
		loop_cancel(w->end);
	free(w);
}

static void watch_closed(struct http_conn *c, void *arg)
{
	watch_free(arg);
}

static void watch_until(struct loop *l, void *arg)
{
	struct watch *w = arg;
	struct http_conn *c = w->conn;

	w->end = NULL;
	http_on_close(c, NULL, NULL);
	watch_free(w);
	http_stream_end(c);
}

static void sys_events(struct http_conn *c, const struct http_request *r, void *arg)
{
	static const char *const keys[] = { "config", "container", "daemon", "event",  "image",
					    "label",  "network",   "node",   "plugin", "scope",
					    "secret", "service",   "type",   "volume", NULL };
	struct engine *e = arg;
	struct err err = ERR_INIT;
	CLEAN_JSON json_t *filters = filters_parse(http_query(r, "filters"), &err);
	const char *since = http_query(r, "since"), *until = http_query(r, "until");
	int64_t since_ns = 0, until_ns = 0, now = engine_now_ns();
	struct watch *w;

	if (!filters || filters_known(filters, keys, &err)) {
		http_reply_error(c, &err);
		return;
	}
	if ((since && *since && engine_parse_time(since, &since_ns)) ||
	    (until && *until && engine_parse_time(until, &until_ns))) {
		http_reply_error_status(c, 400, "invalid time in since or until");
		return;
	}
	if (until_ns && since_ns > until_ns) {
		http_reply_error_status(c, 400, "`since` time (%s) cannot be after `until` time (%s)", since, until);
		return;
	}
	w = calloc(1, sizeof(*w));
	if (!w) {
		http_reply_error_status(c, 500, "out of memory");
		return;
	}
	*w = (struct watch){ .engine = e, .conn = c };
	http_stream_begin(c, 200, "application/json");
	if (since && *since)
		events_replay(e, since_ns, until_ns, filters, watch_event, w);
	if (until_ns && until_ns <= now) {
		free(w);
		http_stream_end(c);
		return;
	}
	http_on_close(c, watch_closed, w);
	w->subscriber = events_subscribe(e, filters, watch_event, w);
	if (until_ns)
		w->end = loop_add_timer(e->loop, (uint64_t)(until_ns - now) / 1000000 + 1, watch_until, w);
}

/* --- plugins --- */

static void sys_empty(struct http_conn *c, const struct http_request *r, void *arg)
{
	http_reply_json(c, 200, json_array());
}

static void sys_plugin(struct http_conn *c, const struct http_request *r, void *arg)
{
	http_reply_error_status(c, 404, "plugin \"%s\" not found", http_param(r, "name"));
}

static void sys_swarm(struct http_conn *c, const struct http_request *r, void *arg)
{
	http_reply_error_status(c, 503,
				"This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm "
				"join\" to connect this node to swarm and try again.");
}

void route_not_built(struct http_conn *c, const struct http_request *r, void *arg)
{
	http_reply_error_status(c, 501, "%s %s is not built in Walnut yet", r->method, r->path);
}

const struct http_route routes_system[] = {
	{ "GET", "/_ping", sys_ping, false },
	{ "GET", "/version", sys_version, false },
	{ "GET", "/info", sys_info, false },
	{ "GET", "/events", sys_events, false },
	{ "GET", "/plugins", sys_empty, false },
	{ "GET", "/plugins/privileges", route_not_built, false },
	{ "POST", "/plugins/pull", route_not_built, false },
	{ "POST", "/plugins/create", route_not_built, false },
	{ "GET", "/plugins/{name:*}/json", sys_plugin, false },
	{ "GET", "/containers/{id}/attach/ws", route_not_built, false },
	{ "GET", "/containers/{id}/checkpoints", route_not_built, false },
	{ "POST", "/containers/{id}/checkpoints", route_not_built, false },
	{ "POST", "/build", route_not_built, false },
	{ "POST", "/build/prune", route_not_built, false },
	{ "POST", "/session", route_not_built, false },
	{ "GET", "/distribution/{name:*}/json", route_not_built, false },
	{ "GET", "/swarm", sys_swarm, false },
	{ "POST", "/swarm/{verb}", sys_swarm, false },
	{ "GET", "/nodes", sys_swarm, false },
	{ "GET", "/services", sys_swarm, false },
	{ "GET", "/tasks", sys_swarm, false },
	{ "GET", "/secrets", sys_swarm, false },
	{ "GET", "/configs", sys_swarm, false },
	{ "GET", "/nodes/{id}", sys_swarm, false },
	{ "GET", "/services/{id}", sys_swarm, false },
	{ "GET", "/secrets/{id}", sys_swarm, false },
	{ "GET", "/configs/{id}", sys_swarm, false },
	{ "POST", "/services/create", sys_swarm, false },
	{ "POST", "/secrets/create", sys_swarm, false },
	{ "POST", "/configs/create", sys_swarm, false },
	{ NULL, NULL, NULL, false },
};
