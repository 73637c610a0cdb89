/* SPDX-License-Identifier: Apache-2.0 */
/* update and events: limits and use of resources of a running container. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/fd.h"
#include "oci/parse.h"
#include "runtime/runtime.h"

static int open_running(const struct runtime_options *o, const char *id, struct state *s, struct container **c,
			struct err *err)
{
	struct container_config config;
	enum state_status status;
	int r = state_open(s, o, id, err);

	if (r < 0)
		return r;
	status = state_status(s);
	if (status == STATE_STOPPED)
		return err_set(err, EINVAL, "container not running: %s is stopped", id);
	state_config(s, NULL, &config);
	return container_open(c, &config, s->pid, err);
}

/* The flags of runc's and crun's update, and where their values belong in linux.resources. */
static const struct flag {
	const char *name, *group, *key;
	char type; /* 'b' bytes with a suffix, 'i' number, 's' text */
} flags[] = {
	{ "blkio-weight", "blockIO", "weight", 'i' },
	{ "cpu-period", "cpu", "period", 'i' },
	{ "cpu-quota", "cpu", "quota", 'i' },
	{ "cpu-burst", "cpu", "burst", 'i' },
	{ "cpu-share", "cpu", "shares", 'i' },
	{ "cpu-shares", "cpu", "shares", 'i' },
	{ "cpu-rt-period", "cpu", "realtimePeriod", 'i' },
	{ "cpu-rt-runtime", "cpu", "realtimeRuntime", 'i' },
	{ "cpu-idle", "cpu", "idle", 'i' },
	{ "cpuset-cpus", "cpu", "cpus", 's' },
	{ "cpuset-mems", "cpu", "mems", 's' },
	{ "kernel-memory", "memory", "kernel", 'b' },
	{ "kernel-memory-tcp", "memory", "kernelTCP", 'b' },
	{ "memory", "memory", "limit", 'b' },
	{ "memory-reservation", "memory", "reservation", 'b' },
	{ "memory-swap", "memory", "swap", 'b' },
	{ "pids-limit", "pids", "limit", 'i' },
};

static int parse_number(const struct flag *f, const char *text, json_int_t *out, struct err *err)
{
	static const char suffixes[] = "bkmgt";
	char *end;
	long long n;
	const char *suffix;

	errno = 0;
	n = strtoll(text, &end, 10);
	if (end == text || errno)
		return err_set(err, EINVAL, "update: --%s '%s' is not a number", f->name, text);
	suffix = *end && f->type == 'b' ? strchr(suffixes, *end | 0x20) : NULL;
	if (suffix && *suffix && (!end[1] || strcmp(end + 1, "b") == 0 || strcmp(end + 1, "B") == 0)) {
		if (__builtin_mul_overflow(n, 1LL << (10 * (suffix - suffixes)), &n))
			return err_set(err, ERANGE, "update: --%s '%s' is too large", f->name, text);
	} else if (*end) {
		return err_set(err, EINVAL, "update: --%s '%s' is not a number", f->name, text);
	}
	*out = n;
	return 0;
}

static int set_flag(json_t *resources, const struct flag *f, const char *text, struct err *err)
{
	json_t *group = json_object_get(resources, f->group);
	json_int_t n = 0;
	int r = f->type == 's' ? 0 : parse_number(f, text, &n, err);

	if (r < 0)
		return r;
	if (!group) {
		group = json_object();
		if (json_object_set_new(resources, f->group, group) < 0)
			return err_set(err, ENOMEM, "out of memory");
	}
	if (json_object_set_new(group, f->key, f->type == 's' ? json_string(text) : json_integer(n)) < 0)
		return err_set(err, ENOMEM, "out of memory");
	return 0;
}

static char *read_stdin(size_t *len)
{
	CLEAN_BUF struct buf b = BUF_INIT;
	ssize_t n;

	b.limit = 16U << 20;
	while ((n = buf_read(&b, STDIN_FILENO, 65536)) > 0 || n == -EINTR)
		;
	*len = b.len;
	return n < 0 ? NULL : strndup(buf_bytes(&b), b.len);
}

static json_t *read_resources(const char *file, struct err *err)
{
	size_t len = 0;
	bool in = strcmp(file, "-") == 0;
	CLEAN_FREE char *text = in ? read_stdin(&len) : fd_read_file(AT_FDCWD, file, 16U << 20, &len, err);

	if (!text) {
		if (in)
			(void)err_set(err, EIO, "update: cannot read standard input");
		return NULL;
	}
	return oci_json_parse(text, len, in ? "standard input" : file, err);
}

enum { OPTION_FLAG = 1000, OPTION_IGNORED };

static void make_options(struct option *options)
{
	static const char *const rdt[] = { "l3-cache-schema", "mem-bw-schema" };
	size_t n = 0;

	for (; n < ARRAY_LEN(flags); n++)
		options[n] = (struct option){ flags[n].name, required_argument, NULL, OPTION_FLAG + (int)n };
	for (size_t i = 0; i < ARRAY_LEN(rdt); i++)
		options[n++] = (struct option){ rdt[i], required_argument, NULL, 'x' };
	options[n++] = (struct option){ "resources", required_argument, NULL, 'r' };
	options[n] = (struct option){ 0 };
}

int command_update(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	struct option options[ARRAY_LEN(flags) + 4];
	CLEAN_STATE struct state s = { .dir = -1, .root = -1 };
	CLEAN_JSON json_t *resources = json_object();
	CLEAN(cleanup_oci_resources) struct oci_resources *parsed = NULL;
	struct container *c = NULL;
	const char *id, *file = NULL;
	int option, r = 0;

	make_options(options);
	while (r == 0 && (option = getopt_long(argc, argv, "r:", options, NULL)) >= 0) {
		if (option == 'r')
			file = optarg;
		else if (option == 'x')
			r = err_set(err, ENOTSUP, "update: Intel RDT can not be updated in this version");
		else if (option >= OPTION_FLAG)
			r = set_flag(resources, &flags[option - OPTION_FLAG], optarg, err);
		else
			return command_usage(argv[0], err);
	}
	if (r < 0 || (r = command_one_id(argc, argv, &id, err)) < 0)
		return r;
	if (file) {
		json_decref(resources);
		resources = read_resources(file, err);
	}
	if (!resources)
		return err_set(err, EINVAL, "%s", err->code ? err->msg : "out of memory");
	if ((r = oci_resources_parse(resources, &parsed, err)) < 0 || (r = open_running(o, id, &s, &c, err)) < 0)
		return r;
	r = container_update(c, parsed, err);
	container_detach(c);
	return r;
}

static int print_stats(struct container *c, const char *id, struct err *err)
{
	json_t *data = container_stats_json(c, err);
	CLEAN_JSON json_t *event = data ? json_pack("{s:s, s:s, s:o}", "type", "stats", "id", id, "data", data) : NULL;

	if (!event)
		return data ? err_set(err, ENOMEM, "out of memory") : -err->code;
	if (json_dumpf(event, stdout, JSON_COMPACT) < 0)
		return err_set(err, EIO, "cannot write the event");
	(void)putchar('\n');
	return fflush(stdout) == 0 ? 0 : err_sys(err, errno, "cannot write the event");
}

/* Until the container ends: its use every @interval ms, and each kill of the kernel for want of memory. */
static int watch(struct container *c, const char *id, int interval, struct err *err)
{
	CLEAN_FD int oom = container_oom_open(c, err);
	uint64_t seen, now;
	int r = 0, ready;

	if (oom < 0)
		return oom;
	seen = container_oom_read(c, oom);
	while (r == 0) {
		struct pollfd p[2] = { { .fd = container_pidfd(c), .events = POLLIN },
				       { .fd = oom, .events = POLLIN } };

		ready = poll(p, 2, interval);
		if (ready == 0)
			r = print_stats(c, id, err);
		/* at the end too: what was killed may have been the first process */
		now = ready > 0 ? container_oom_read(c, oom) : seen;
		if (now > seen) {
			(void)printf("{\"type\":\"oom\",\"id\":\"%s\"}\n", id);
			(void)fflush(stdout);
		}
		seen = now;
		if (p[0].revents)
			break;
	}
	return r;
}

static int parse_interval(const char *text, int *ms, struct err *err)
{
	char *end;
	double n = strtod(text, &end);

	if (end == text || n <= 0 || n > 1e6 || (*end && strcmp(end, "s") != 0 && strcmp(end, "ms") != 0))
		return err_set(err, EINVAL, "events: --interval '%s' is not a duration like 5s", text);
	*ms = (int)(strcmp(end, "ms") == 0 ? n : n * 1000);
	return *ms > 0 ? 0 : err_set(err, EINVAL, "events: --interval '%s' is too short", text);
}

int command_events(const struct runtime_options *o, int argc, char **argv, struct err *err)
{
	static const struct option options[] = { { "stats", no_argument, NULL, 's' },
						 { "interval", required_argument, NULL, 'i' },
						 { 0 } };
	CLEAN_STATE struct state s = { .dir = -1, .root = -1 };
	struct container *c = NULL;
	bool once = false;
	const char *id;
	int option, r = 0, interval = 5000;

	while (r == 0 && (option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (option == 's')
			once = true;
		else if (option == 'i')
			r = parse_interval(optarg, &interval, err);
		else
			return command_usage(argv[0], err);
	}
	if (r < 0 || (r = command_one_id(argc, argv, &id, err)) < 0 || (r = open_running(o, id, &s, &c, err)) < 0)
		return r;
	close_fd(&s.dir); /* the lock: this may take as long as the container lives */
	r = once ? print_stats(c, id, err) : watch(c, id, interval, err);
	container_detach(c);
	return r;
}
