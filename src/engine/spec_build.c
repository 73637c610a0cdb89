/* SPDX-License-Identifier: Apache-2.0 */
/* From Docker's container configuration to the OCI runtime spec of one run. */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "container/seccomp_profile.h"
#include "oci/spec.h"
#include "engine/container_internal.h"
#include "engine/network.h"
#include "engine/mounts.h"

/* What every container starts from: Docker's defaults. */
static const char default_spec[] =
	"{'ociVersion':'1.1.0','process':{'terminal':false,'user':{'uid':0,'gid':0},'args':[],'env':[],'cwd':'/','capabilities':{"
	"'bounding':['CAP_CHOWN','CAP_DAC_OVERRIDE','CAP_FSETID','CAP_FOWNER','CAP_MKNOD','CAP_NET_RAW','CAP_SETGID',"
	"'CAP_SETUID','CAP_SETFCAP','CAP_SETPCAP','CAP_NET_BIND_SERVICE','CAP_SYS_CHROOT','CAP_KILL','CAP_AUDIT_WRITE']}},"
	"'root':{'path':'rootfs'},'mounts':["
	"{'destination':'/proc','type':'proc','source':'proc','options':['nosuid','noexec','nodev']},"
	"{'destination':'/dev','type':'tmpfs','source':'tmpfs','options':['nosuid','strictatime','mode=755','size=65536k']},"
	"{'destination':'/dev/pts','type':'devpts','source':'devpts',"
	"'options':['nosuid','noexec','newinstance','ptmxmode=0666','mode=0620','gid=5']},"
	"{'destination':'/sys','type':'sysfs','source':'sysfs','options':['nosuid','noexec','nodev','ro']},"
	"{'destination':'/sys/fs/cgroup','type':'cgroup','source':'cgroup','options':['ro','nosuid','noexec','nodev']},"
	"{'destination':'/dev/mqueue','type':'mqueue','source':'mqueue','options':['nosuid','noexec','nodev']},"
	"{'destination':'/dev/shm','type':'tmpfs','source':'shm','options':['nosuid','noexec','nodev','mode=1777','size=67108864']}],"
	"'linux':{'resources':{'devices':[{'allow':false,'access':'rwm'},"
	"{'allow':true,'type':'c','access':'m'},{'allow':true,'type':'b','access':'m'},"
	"{'allow':true,'type':'c','major':1,'minor':3,'access':'rwm'},{'allow':true,'type':'c','major':1,'minor':5,'access':'rwm'},"
	"{'allow':true,'type':'c','major':1,'minor':7,'access':'rwm'},{'allow':true,'type':'c','major':1,'minor':8,'access':'rwm'},"
	"{'allow':true,'type':'c','major':1,'minor':9,'access':'rwm'},{'allow':true,'type':'c','major':5,'minor':0,'access':'rwm'},"
	"{'allow':true,'type':'c','major':5,'minor':2,'access':'rwm'},{'allow':true,'type':'c','major':136,'access':'rwm'}]},"
	"'namespaces':[{'type':'mount'},{'type':'network'},{'type':'uts'},{'type':'pid'},{'type':'ipc'},{'type':'cgroup'}],"
	"'maskedPaths':['/proc/asound','/proc/acpi','/proc/interrupts','/proc/kcore','/proc/keys','/proc/latency_stats',"
	"'/proc/timer_list','/proc/timer_stats','/proc/sched_debug','/proc/scsi','/sys/firmware',"
	"'/sys/devices/virtual/powercap'],"
	"'readonlyPaths':['/proc/bus','/proc/fs','/proc/irq','/proc/sys','/proc/sysrq-trigger']}}";

static json_t *oci_default_spec(void)
{
	char text[sizeof(default_spec)];

	memcpy(text, default_spec, sizeof(text));
	for (char *p = text; *p; p++)
		if (*p == '\'')
			*p = '"';
	json_t *j = json_loads(text, 0, NULL);

	bug_on(!j);
	return j;
}

void spec_default_paths(json_t *host)
{
	CLEAN_JSON json_t *spec = oci_default_spec();
	const json_t *l = json_object_get(spec, "linux");

	if (!json_is_array(json_object_get(host, "MaskedPaths")))
		(void)json_object_set(host, "MaskedPaths", json_object_get(l, "maskedPaths"));
	if (!json_is_array(json_object_get(host, "ReadonlyPaths")))
		(void)json_object_set(host, "ReadonlyPaths", json_object_get(l, "readonlyPaths"));
}

static json_t *spec_args(const json_t *config)
{
	json_t *args = json_array();
	const json_t *entry = json_object_get(config, "Entrypoint"), *cmd = json_object_get(config, "Cmd");

	if (json_is_array(entry))
		(void)json_array_extend(args, (json_t *)entry);
	if (json_is_array(cmd))
		(void)json_array_extend(args, (json_t *)cmd);
	return args;
}

static bool env_has(const json_t *env, const char *name)
{
	size_t i, n = strlen(name);
	json_t *v;

	json_array_foreach(env, i, v)
		if (!strncmp(json_string_value(v) ?: "", name, n) && json_string_value(v)[n] == '=')
			return true;
	return false;
}

/* Docker's order: PATH and HOSTNAME, TERM with a terminal, then the configuration's. HOME is the library's. */
static json_t *spec_env(const json_t *config, bool tty, const json_t *more)
{
	json_t *env = json_array();
	const json_t *own = json_object_get(config, "Env");
	size_t i, j;
	json_t *v, *w;

	if (!env_has(own, "PATH"))
		(void)json_array_append_new(
			env, json_string("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
	if (!env_has(own, "HOSTNAME"))
		(void)json_array_append_new(env, json_sprintf("HOSTNAME=%s", json_str(config, "Hostname", "")));
	if (tty && !env_has(own, "TERM"))
		(void)json_array_append_new(env, json_string("TERM=xterm"));
	json_array_foreach(own, i, v)
		if (strchr(json_string_value(v) ?: "", '='))
			(void)json_array_append(env, v);
	json_array_foreach(more, i, v) {
		const char *text = json_string_value(v) ?: "";
		size_t n = strcspn(text, "=");

		json_array_foreach(env, j, w)
			if (!strncmp(json_string_value(w), text, n) && json_string_value(w)[n] == '=') {
				(void)json_array_remove(env, j);
				break;
			}
		(void)json_array_append(env, v);
	}
	return env;
}

static void caps_remove(json_t *caps, const char *name)
{
	for (size_t i = json_array_size(caps); i-- > 0;)
		if (!strcasecmp(json_string_value(json_array_get(caps, i)), name))
			(void)json_array_remove(caps, i);
}

static int spec_caps_change(json_t *caps, const json_t *list, bool add, struct err *err)
{
	size_t i;
	json_t *v;

	json_array_foreach(list, i, v) {
		const char *name = json_string_value(v) ?: "";
		const char *known;

		if (!strcasecmp(name, "ALL")) {
			(void)json_array_clear(caps);
			for (int n = 0; add && n < OCI_CAPABILITIES_COUNT; n++)
				(void)json_array_append_new(caps, json_string(oci_capability_name(n)));
			continue;
		}
		int number = oci_capability_number(name);

		if (number < 0 || !(known = oci_capability_name(number)))
			return err_set(err, EINVAL, "invalid capability: unknown capability to %s: \"%s\"",
				       add ? "add" : "drop", name);
		caps_remove(caps, known);
		if (add)
			(void)json_array_append_new(caps, json_string(known));
	}
	return 0;
}

static int spec_caps(const json_t *host, json_t *process, struct err *err)
{
	static const char *const sets[] = { "bounding", "effective", "permitted" };
	json_t *given = json_object_get(process, "capabilities");
	CLEAN_JSON json_t *caps = json_deep_copy(json_object_get(given, "bounding"));
	CLEAN_JSON json_t *all = json_pack("[s]", "ALL");

	if (!caps)
		caps = json_array();
	/* What is dropped goes first, so that "drop ALL, add X" leaves X; "add ALL, drop X" is the other way round. */
	const json_t *add = json_object_get(host, "CapAdd"), *drop = json_object_get(host, "CapDrop");
	bool add_all = false;
	size_t i;
	json_t *v;

	json_array_foreach(add, i, v)
		add_all = add_all || !strcasecmp(json_string_value(v) ?: "", "ALL");
	if (json_bool(host, "Privileged", false)) {
		if (spec_caps_change(caps, all, true, err))
			return -err->code;
	} else if (spec_caps_change(caps, add_all ? add : drop, add_all, err) ||
		   spec_caps_change(caps, add_all ? drop : add, !add_all, err)) {
		return -err->code;
	}
	json_t *out = json_object();

	for (i = 0; i < ARRAY_LEN(sets); i++)
		(void)json_object_set(out, sets[i], caps);
	(void)json_object_set_new(out, "inheritable", json_array());
	(void)json_object_set_new(process, "capabilities", out);
	return 0;
}

static int spec_security(const json_t *host, json_t *spec, struct err *err)
{
	size_t i;
	json_t *v;

	json_array_foreach(json_object_get(host, "SecurityOpt"), i, v) {
		const char *text = json_string_value(v) ?: "";

		if (!strcmp(text, "no-new-privileges") || !strcmp(text, "no-new-privileges:true") ||
		    !strcmp(text, "no-new-privileges=true"))
			(void)json_object_set_new(json_object_get(spec, "process"), "noNewPrivileges", json_true());
	}
	return 0;
}

bool spec_uses_seccomp(const struct engine_container *c)
{
	size_t i;
	json_t *v;

	if (json_bool(c->host_config, "Privileged", false))
		return false;
	json_array_foreach(json_object_get(c->host_config, "SecurityOpt"), i, v)
		if (!strcmp(json_string_value(v) ?: "", "seccomp=unconfined") ||
		    !strcmp(json_string_value(v) ?: "", "seccomp:unconfined"))
			return false;
	return true;
}

static void spec_resources(const json_t *host, json_t *linux_object)
{
	json_t *r = json_object_get(linux_object, "resources");
	json_t *memory = json_object(), *cpu = json_object();
	int64_t limit = json_int(host, "Memory", 0), swap = json_int(host, "MemorySwap", 0);
	int64_t nano = json_int(host, "NanoCpus", 0), pids = json_int(host, "PidsLimit", 0);

	if (!r) {
		r = json_object();
		(void)json_object_set_new(linux_object, "resources", r);
	}
	if (limit) {
		(void)json_object_set_new(memory, "limit", json_integer(limit));
		(void)json_object_set_new(memory, "swap", json_integer(swap ? swap : limit * 2));
	}
	if (json_bool(host, "OomKillDisable", false))
		(void)json_object_set_new(memory, "disableOOMKiller", json_true());
	if (json_is_integer(json_object_get(host, "MemorySwappiness")))
		(void)json_object_set(memory, "swappiness", json_object_get(host, "MemorySwappiness"));
	if (json_int(host, "MemoryReservation", 0))
		(void)json_object_set_new(memory, "reservation", json_integer(json_int(host, "MemoryReservation", 0)));
	if (nano) {
		(void)json_object_set_new(cpu, "period", json_integer(100000));
		(void)json_object_set_new(cpu, "quota", json_integer(nano / 10000));
	} else if (json_int(host, "CpuQuota", 0) || json_int(host, "CpuPeriod", 0)) {
		(void)json_object_set_new(cpu, "period", json_integer(json_int(host, "CpuPeriod", 0) ?: 100000));
		(void)json_object_set_new(cpu, "quota", json_integer(json_int(host, "CpuQuota", 0) ?: -1));
	}
	if (json_int(host, "CpuShares", 0))
		(void)json_object_set_new(cpu, "shares", json_integer(json_int(host, "CpuShares", 0)));
	if (*json_str(host, "CpusetCpus", ""))
		(void)json_object_set(cpu, "cpus", json_object_get(host, "CpusetCpus"));
	if (*json_str(host, "CpusetMems", ""))
		(void)json_object_set(cpu, "mems", json_object_get(host, "CpusetMems"));
	(void)json_object_set_new(r, "memory", memory);
	(void)json_object_set_new(r, "cpu", cpu);
	if (pids)
		(void)json_object_set_new(r, "pids", json_pack("{s:I}", "limit", (json_int_t)(pids < 0 ? -1 : pids)));
}

json_t *spec_resources_only(const json_t *host)
{
	CLEAN_JSON json_t *l = json_object();

	spec_resources(host, l);
	return json_incref(json_object_get(l, "resources"));
}

static void spec_rlimits(const json_t *host, json_t *process)
{
	json_t *list = json_array(), *v;
	size_t i;

	json_array_foreach(json_object_get(host, "Ulimits"), i, v) {
		CLEAN_FREE char *name = NULL;

		if (asprintf(&name, "RLIMIT_%s", json_str(v, "Name", "")) < 0)
			continue;
		for (char *p = name; *p; p++)
			*p = (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
		(void)json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "type", name, "soft",
							    (json_int_t)json_int(v, "Soft", 0), "hard",
							    (json_int_t)json_int(v, "Hard", 0)));
	}
	(void)json_object_set_new(process, "rlimits", list);
}

static int spec_file(struct engine_container *c, json_t *mounts, const char *name, const char *target, const char *text,
		     struct err *err)
{
	char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s", c->data_dir, name);
	if (fd_replace_file(AT_FDCWD, path, text, strlen(text), 0644, err))
		return -err->code;
	(void)json_array_append_new(mounts, json_pack("{s:s, s:s, s:s, s:[s,s]}", "destination", target, "type", "bind",
						      "source", path, "options", "rbind", "rprivate"));
	return 0;
}

/* The host's /etc/resolv.conf, with what --dns, --dns-search and --dns-option say instead of its own lines. */
static int spec_resolv(const json_t *host, struct buf *out)
{
	static const struct {
		const char *key, *word;
	} lists[] = { { "Dns", "nameserver" }, { "DnsSearch", "search" }, { "DnsOptions", "options" } };
	size_t n, k;
	CLEAN_FREE char *text = fd_read_file(AT_FDCWD, "/etc/resolv.conf", 65536, &n, NULL);
	char *save = NULL;
	json_t *v;
	int rc = 0;

	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line && !rc; line = strtok_r(NULL, "\n", &save)) {
		bool replaced = false;

		for (size_t i = 0; i < ARRAY_LEN(lists); i++)
			replaced = replaced || (!strncmp(line, lists[i].word, strlen(lists[i].word)) &&
						json_array_size(json_object_get(host, lists[i].key)));
		if (!replaced)
			rc = buf_printf(out, "%s\n", line);
	}
	for (size_t i = 0; i < ARRAY_LEN(lists) && !rc; i++) {
		const json_t *list = json_object_get(host, lists[i].key);

		if (i == 0) {
			json_array_foreach(list, k, v)
				rc = rc ?: buf_printf(out, "nameserver %s\n", json_string_value(v));
			continue;
		}
		if (!json_array_size(list) || !strcmp(json_string_value(json_array_get(list, 0)), "."))
			continue; /* "--dns-search ." means none */
		rc = buf_puts(out, lists[i].word);
		json_array_foreach(list, k, v)
			rc = rc ?: buf_printf(out, " %s", json_string_value(v));
		rc = rc ?: buf_puts(out, "\n");
	}
	return rc;
}

/* The container's own name: at its addresses, or without any at a loopback one. */
static int spec_own_hosts(const struct engine_container *c, struct buf *out)
{
	static const char *const keys[] = { "IPAddress", "GlobalIPv6Address" };
	const char *host = json_str(c->config, "Hostname", ""), *domain = json_str(c->config, "Domainname", ""), *name;
	CLEAN_BUF struct buf names = BUF_INIT;
	bool any = false;
	json_t *s;
	int rc = buf_printf(&names, "%s%s%s%s%s", host, *domain ? "." : "", domain, *domain ? " " : "",
			    *domain ? host : "");

	json_object_foreach(c->endpoints, name, s) {
		for (size_t i = 0; i < ARRAY_LEN(keys) && !rc; i++) {
			if (!*json_str(s, keys[i], ""))
				continue;
			rc = buf_printf(out, "%s\t%s\n", json_str(s, keys[i], ""), buf_bytes(&names));
			any = true;
		}
	}
	return rc || any ? rc : buf_printf(out, "127.0.1.1\t%s\n", buf_bytes(&names));
}

static int spec_hosts(const struct engine_container *c, struct buf *out)
{
	char gateway[NET_ADDRESS_TEXT];
	size_t i;
	json_t *v;
	int rc = buf_printf(out,
			    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n"
			    "ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n");

	json_array_foreach(json_object_get(c->host_config, "ExtraHosts"), i, v) {
		const char *text = json_string_value(v), *at = text + strcspn(text, ":="), *to = at + 1;

		/* "name:address"; host-gateway is the host, as the default bridge sees it */
		if (!strcmp(to, "host-gateway") && !*(to = endpoints_host_gateway(c->engine, gateway)))
			continue;
		rc = rc ?: buf_printf(out, "%s\t%.*s\n", to, (int)(at - text), text);
	}
	return rc ?: spec_own_hosts(c, out);
}

static int spec_files(struct engine_container *c, json_t *mounts, struct err *err)
{
	CLEAN_BUF struct buf hosts = BUF_INIT, hostname = BUF_INIT, resolv = BUF_INIT;

	if (spec_hosts(c, &hosts) || spec_resolv(c->host_config, &resolv) ||
	    buf_printf(&hostname, "%s\n", json_str(c->config, "Hostname", "")))
		return err_sys(err, ENOMEM, "write the container's files");
	if (spec_file(c, mounts, "resolv.conf", "/etc/resolv.conf", buf_bytes(&resolv), err) ||
	    spec_file(c, mounts, "hostname", "/etc/hostname", buf_bytes(&hostname), err) ||
	    spec_file(c, mounts, "hosts", "/etc/hosts", buf_bytes(&hosts), err))
		return -err->code;
	return 0;
}

static void spec_tmpfs(const json_t *host, json_t *mounts)
{
	const char *target;
	json_t *v;
	size_t i;

	json_object_foreach(json_object_get(host, "Tmpfs"), target, v) {
		json_t *options = json_pack("[s,s,s]", "noexec", "nosuid", "nodev");
		CLEAN_FREE char *text = strdup(json_string_value(v) ?: "");
		char *save = NULL;

		for (char *o = text ? strtok_r(text, ",", &save) : NULL; o; o = strtok_r(NULL, ",", &save)) {
			caps_remove(options, !strcmp(o, "exec")   ? "noexec"
					     : !strcmp(o, "suid") ? "nosuid"
					     : !strcmp(o, "dev")  ? "nodev"
								  : "");
			(void)json_array_append_new(options, json_string(o));
		}
		(void)json_array_append_new(mounts, json_pack("{s:s, s:s, s:s, s:o}", "destination", target, "type",
							      "tmpfs", "source", "tmpfs", "options", options));
	}
	json_array_foreach(mounts, i, v) {
		if (strcmp(json_str(v, "destination", ""), "/dev/shm"))
			continue;
		json_t *options = json_object_get(v, "options"), *o;
		size_t j;

		json_array_foreach(options, j, o)
			if (!strncmp(json_string_value(o), "size=", 5))
				(void)json_array_set_new(
					options, j, json_sprintf("size=%lld", (long long)json_int(host, "ShmSize", 0)));
	}
}

/* As Docker: in a network namespace of its own the container may use low ports and ping without privilege. */
static void spec_sysctl(const json_t *host, json_t *linux_object)
{
	const char *network = json_str(host, "NetworkMode", "");
	json_t *sysctl = json_object();

	if (strcmp(network, "host") && strncmp(network, "container:", 10)) {
		(void)json_object_set_new(sysctl, "net.ipv4.ip_unprivileged_port_start", json_string("0"));
		(void)json_object_set_new(sysctl, "net.ipv4.ping_group_range", json_string("0 2147483647"));
	}
	if (json_is_object(json_object_get(host, "Sysctls")))
		(void)json_object_update(sysctl, json_object_get(host, "Sysctls"));
	(void)json_object_set_new(linux_object, "sysctl", sysctl);
}

static void spec_privileged(json_t *spec, json_t *linux_object)
{
	json_t *v, *o;
	size_t i, j;

	(void)json_object_set_new(linux_object, "maskedPaths", json_array());
	(void)json_object_set_new(linux_object, "readonlyPaths", json_array());
	(void)json_object_set_new(json_object_get(linux_object, "resources"), "devices",
				  json_pack("[{s:b, s:s}]", "allow", true, "access", "rwm"));
	json_array_foreach(json_object_get(spec, "mounts"), i, v) {
		if (strncmp(json_str(v, "destination", ""), "/sys", 4))
			continue;
		json_array_foreach(json_object_get(v, "options"), j, o)
			if (!strcmp(json_string_value(o), "ro"))
				(void)json_array_set_new(json_object_get(v, "options"), j, json_string("rw"));
	}
}

static json_t *spec_user(const json_t *host, const char *user)
{
	json_t *out = json_pack("{s:i, s:i, s:s}", "uid", 0, "gid", 0, "username", user), *gids = json_array(), *v;
	size_t i;

	json_array_foreach(json_object_get(host, "GroupAdd"), i, v)
		(void)json_array_append_new(gids, json_integer(atoll(json_string_value(v))));
	(void)json_object_set_new(out, "additionalGids", gids);
	return out;
}

json_t *spec_build_process(struct engine_container *c, const json_t *x, struct err *err)
{
	CLEAN_JSON json_t *spec = oci_default_spec();
	json_t *process = json_incref(json_object_get(spec, "process"));
	bool tty = json_bool(x, "Tty", false);
	const char *user = json_str(x, "User", "");
	const char *cwd = json_str(x, "WorkingDir", "");

	(void)json_object_set_new(process, "terminal", json_boolean(tty));
	(void)json_object_set(process, "args", json_object_get(x, "Cmd"));
	(void)json_object_set_new(process, "env", spec_env(c->config, tty, json_object_get(x, "Env")));
	(void)json_object_set_new(process, "cwd",
				  json_string(*cwd ? cwd
					      : *json_str(c->config, "WorkingDir", "")
						      ? json_str(c->config, "WorkingDir", "")
						      : "/"));
	(void)json_object_set_new(process, "user",
				  spec_user(c->host_config, *user ? user : json_str(c->config, "User", "")));
	CLEAN_JSON json_t *host = json_copy(c->host_config);

	if (json_bool(x, "Privileged", false))
		(void)json_object_set_new(host, "Privileged", json_true());
	spec_rlimits(host, process);
	if (spec_caps(host, process, err)) {
		json_decref(process);
		return NULL;
	}
	return process;
}

/* The terminal's first size: the last resize before the start, else what the client said at creation (API 1.42). */
static int spec_console_size(const struct engine_container *c, json_t *process, struct err *err)
{
	const json_t *given = json_object_get(c->host_config, "ConsoleSize");
	json_int_t height = c->console_height, width = c->console_width;

	if (!height || !width) {
		height = json_integer_value(json_array_get(given, 0));
		width = json_integer_value(json_array_get(given, 1));
	}
	if (height < 0 || height > UINT16_MAX || width < 0 || width > UINT16_MAX)
		return err_set(err, EINVAL, "HostConfig.ConsoleSize [%lld, %lld] is not a terminal's height and width",
			       (long long)height, (long long)width);
	if (height && width)
		(void)json_object_set_new(process, "consoleSize",
					  json_pack("{s:I, s:I}", "height", height, "width", width));
	return 0;
}

static void namespace_remove(json_t *list, const char *type)
{
	size_t i;
	json_t *v;

	json_array_foreach(list, i, v)
		if (!strcmp(json_str(v, "type", ""), type)) {
			(void)json_array_remove(list, i);
			return;
		}
}

/* One namespace of the container: its own, the host's ("host"), or another container's ("container:NAME"). */
static int spec_share(struct engine_container *c, json_t *l, const char *mode, const char *type, const char *file,
		      struct err *err)
{
	json_t *list = json_object_get(l, "namespaces");

	if (!strcmp(mode, "host")) {
		namespace_remove(list, type);
		return 0;
	}
	if (strncmp(mode, "container:", 10))
		return 0;
	const struct engine_container *other = engine_container_find(c->engine, mode + 10, err);

	if (!other)
		return -err->code;
	if (other == c || !container_live(other) || other->isolation != ENGINE_ISOLATION_PROCESS)
		return err_set(err, EBUSY, "cannot join %s of %s container: %s", type,
			       !container_live(other) ? "a non running" : "this", other->id);
	namespace_remove(list, type);
	return json_array_append_new(list, json_pack("{s:s, s:o}", "type", type, "path",
						     json_sprintf("/proc/%d/ns/%s", (int)other->pid, file)))
		       ? err_sys(err, ENOMEM, "share a namespace")
		       : 0;
}

static int spec_namespaces(struct engine_container *c, json_t *spec, struct err *err)
{
	json_t *l = json_object_get(spec, "linux"), *mounts = json_object_get(spec, "mounts"), *v;
	const json_t *host = c->host_config;
	const char *ipc = json_str(host, "IpcMode", "");
	size_t i;

	if (spec_share(c, l, json_str(host, "NetworkMode", ""), "network", "net", err) ||
	    spec_share(c, l, json_str(host, "PidMode", ""), "pid", "pid", err) ||
	    spec_share(c, l, ipc, "ipc", "ipc", err) ||
	    spec_share(c, l, json_str(host, "UTSMode", ""), "uts", "uts", err) ||
	    spec_share(c, l, json_str(host, "CgroupnsMode", ""), "cgroup", "cgroup", err))
		return -err->code;
	if (!strcmp(json_str(host, "UTSMode", ""), "host"))
		(void)json_object_del(spec, "hostname");
	json_array_foreach(mounts, i, v)
		if (!strcmp(ipc, "host") && !strcmp(json_str(v, "destination", ""), "/dev/shm"))
			(void)json_array_set_new(mounts, i,
						 json_pack("{s:s, s:s, s:s, s:[s,s,s,s]}", "destination", "/dev/shm",
							   "type", "bind", "source", "/dev/shm", "options", "rbind",
							   "nosuid", "noexec", "nodev"));
	return 0;
}

static int spec_devices(const json_t *host, json_t *l, struct err *err)
{
	json_t *devices = json_array(), *rules = json_object_get(json_object_get(l, "resources"), "devices"), *v;
	size_t i;

	(void)json_object_set_new(l, "devices", devices);
	json_array_foreach(json_object_get(host, "Devices"), i, v) {
		const char *from = json_str(v, "PathOnHost", ""), *to = json_str(v, "PathInContainer", "");
		const char *access = json_str(v, "CgroupPermissions", "");
		struct stat st;

		if (stat(from, &st))
			return err_set(err, EINVAL,
				       "error gathering device information while adding custom device \"%.200s\": %s",
				       from, errno == ENOENT ? "no such file or directory" : strerror(errno));
		if (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode))
			return err_set(
				err, EINVAL,
				"error gathering device information while adding custom device \"%.200s\": not a "
				"device node",
				from);
		(void)json_array_append_new(
			devices, json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i}", "path", *to ? to : from, "type",
					   S_ISCHR(st.st_mode) ? "c" : "b", "major", (int)major(st.st_rdev), "minor",
					   (int)minor(st.st_rdev), "fileMode", (int)(st.st_mode & 07777), "uid",
					   (int)st.st_uid, "gid", (int)st.st_gid));
		(void)json_array_append_new(rules, json_pack("{s:b, s:s, s:i, s:i, s:s}", "allow", true, "type",
							     S_ISCHR(st.st_mode) ? "c" : "b", "major",
							     (int)major(st.st_rdev), "minor", (int)minor(st.st_rdev),
							     "access", *access ? access : "rwm"));
	}
	return 0;
}

json_t *spec_build(struct engine_container *c, struct err *err)
{
	json_t *spec = oci_default_spec();
	json_t *process = json_object_get(spec, "process"), *l = json_object_get(spec, "linux");
	json_t *mounts = json_object_get(spec, "mounts");
	const json_t *host = c->host_config;
	bool tty = json_bool(c->config, "Tty", false);
	const char *cwd = json_str(c->config, "WorkingDir", "");

	(void)json_object_set_new(process, "terminal", json_boolean(tty));
	if (tty && spec_console_size(c, process, err)) {
		json_decref(spec);
		return NULL;
	}
	(void)json_object_set_new(process, "args", spec_args(c->config));
	if (json_bool(host, "Init", false)) {
		(void)json_array_insert_new(json_object_get(process, "args"), 0, json_string("/sbin/docker-init"));
		(void)json_array_insert_new(json_object_get(process, "args"), 1, json_string("--"));
	}
	(void)json_object_set_new(process, "env", spec_env(c->config, tty, NULL));
	(void)json_object_set_new(process, "cwd", json_string(*cwd ? cwd : "/"));
	(void)json_object_set_new(process, "user", spec_user(host, json_str(c->config, "User", "")));
	if (json_int(host, "OomScoreAdj", 0))
		(void)json_object_set(process, "oomScoreAdj", json_object_get(host, "OomScoreAdj"));
	(void)json_object_set_new(spec, "hostname", json_string(json_str(c->config, "Hostname", "")));
	if (*json_str(c->config, "Domainname", ""))
		(void)json_object_set(spec, "domainname", json_object_get(c->config, "Domainname"));
	(void)json_object_set_new(
		spec, "root",
		json_pack("{s:s, s:b}", "path", "rootfs", "readonly", json_bool(host, "ReadonlyRootfs", false)));
	spec_rlimits(host, process);
	spec_resources(host, l);
	if (json_bool(host, "Privileged", false))
		spec_privileged(spec, l);
	spec_tmpfs(host, mounts);
	if (json_is_array(json_object_get(host, "MaskedPaths")))
		(void)json_object_set(l, "maskedPaths", json_object_get(host, "MaskedPaths"));
	if (json_is_array(json_object_get(host, "ReadonlyPaths")))
		(void)json_object_set(l, "readonlyPaths", json_object_get(host, "ReadonlyPaths"));
	spec_sysctl(host, l);
	if (spec_namespaces(c, spec, err) || spec_devices(host, l, err) || spec_caps(host, process, err) ||
	    spec_security(host, spec, err) || spec_files(c, mounts, err) || mounts_spec(c, mounts, err)) {
		json_decref(spec);
		return NULL;
	}
	return spec;
}

/* The profile depends on the capabilities: the last one compiled is kept. */
int spec_seccomp_memfd(struct engine_container *c, const json_t *spec, struct err *err)
{
	struct engine *e = c->engine;
	const json_t *caps =
		json_object_get(json_object_get(json_object_get(spec, "process"), "capabilities"), "bounding");
	uint64_t mask = 0;
	char key[24];
	size_t i;
	json_t *v;

	json_array_foreach(caps, i, v) {
		int number = oci_capability_number(json_string_value(v));

		if (number >= 0)
			mask |= UINT64_C(1) << number;
	}
	(void)snprintf(key, sizeof(key), "%llx", (unsigned long long)mask);
	if (!e->seccomp_key || strcmp(e->seccomp_key, key)) {
		free(e->seccomp_key);
		e->seccomp_key = NULL;
		free(take_ptr(e->seccomp));
		if (seccomp_default_bpf(mask, &e->seccomp, &e->seccomp_size, err))
			return -err->code;
		e->seccomp_key = strdup(key);
	}
	CLEAN_FD int fd = memfd_create("seccomp", MFD_CLOEXEC);

	if (fd < 0 || fd_write_full(fd, e->seccomp, e->seccomp_size) || lseek(fd, 0, SEEK_SET))
		return err_sys(err, EIO, "pass the seccomp profile");
	return take_fd(&fd);
}
