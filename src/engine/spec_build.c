/* SPDX-License-Identifier: Apache-2.0 */
/* From Docker's container configuration to the OCI runtime spec of one run. */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "container/seccomp_profile.h"
#include "oci/spec.h"
#include "engine/container.h"

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

static int spec_files(struct engine_container *c, json_t *mounts, struct err *err)
{
	const char *host = json_str(c->config, "Hostname", ""), *domain = json_str(c->config, "Domainname", "");
	CLEAN_FREE char *hosts = NULL, *hostname = NULL;
	size_t n;
	CLEAN_FREE char *resolv = fd_read_file(AT_FDCWD, "/etc/resolv.conf", 65536, &n, NULL);

	if (asprintf(&hosts,
		     "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n"
		     "ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n127.0.1.1\t%s%s%s%s%s\n",
		     host, *domain ? "." : "", domain, *domain ? " " : "", *domain ? host : "") < 0 ||
	    asprintf(&hostname, "%s\n", host) < 0)
		return err_sys(err, ENOMEM, "write the container's files");
	if (spec_file(c, mounts, "resolv.conf", "/etc/resolv.conf", resolv ? resolv : "", err) ||
	    spec_file(c, mounts, "hostname", "/etc/hostname", hostname, err) ||
	    spec_file(c, mounts, "hosts", "/etc/hosts", hosts, err))
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
				  json_pack("{s:i, s:i, s:s}", "uid", 0, "gid", 0, "username",
					    *user ? user : json_str(c->config, "User", "")));
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

json_t *spec_build(struct engine_container *c, struct err *err)
{
	json_t *spec = oci_default_spec();
	json_t *process = json_object_get(spec, "process"), *l = json_object_get(spec, "linux");
	json_t *mounts = json_object_get(spec, "mounts"), *v;
	const json_t *host = c->host_config;
	bool tty = json_bool(c->config, "Tty", false);
	const char *cwd = json_str(c->config, "WorkingDir", "");
	size_t i;

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
	(void)json_object_set_new(
		process, "user",
		json_pack("{s:i, s:i, s:s}", "uid", 0, "gid", 0, "username", json_str(c->config, "User", "")));
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
	if (json_object_size(json_object_get(host, "Sysctls")))
		(void)json_object_set(l, "sysctl", json_object_get(host, "Sysctls"));
	if (!strcmp(json_str(host, "NetworkMode", ""), "host"))
		json_array_foreach(json_object_get(l, "namespaces"), i, v)
			if (!strcmp(json_str(v, "type", ""), "network")) {
				(void)json_array_remove(json_object_get(l, "namespaces"), i);
				break;
			}
	if (spec_caps(host, process, err) || spec_security(host, spec, err) || spec_files(c, mounts, err)) {
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
