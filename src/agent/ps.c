/* SPDX-License-Identifier: Apache-2.0 */
/* What ps(1) would show of the container's processes, read from /proc (proc(5)); the container needs no ps. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/fd.h"

#define STAT_MAX 4096

/* The fields of /proc/PID/stat that are used. */
struct stat_line {
	char state;
	int ppid, tty;
	unsigned long long utime, stime, threads, start, vsize, rss; /* clock ticks, ticks, -, ticks, bytes, pages */
};

static bool parse_stat(const char *text, struct stat_line *s)
{
	const char *at = strrchr(text, ')'); /* the name before it may hold anything */
	unsigned long long field[25];        /* by proc(5)'s numbers, from the fourth on */

	if (!at || at[1] != ' ' || !at[2])
		return false;
	s->state = at[2];
	at += 3;
	/* Not by sscanf(3), whose code would be 7 % of the guest's initramfs. */
	for (size_t i = 4; i < ARRAY_LEN(field); i++) {
		char *end;

		field[i] = strtoull(at, &end, 10);
		if (end == at)
			return false;
		at = end;
	}
	s->ppid = (int)field[4];
	s->tty = (int)field[7];
	s->utime = field[14];
	s->stime = field[15];
	s->threads = field[20];
	s->start = field[22];
	s->vsize = field[23];
	s->rss = field[24];
	return true;
}

static void read_args(int dir, const char *comm, char out[LINK_ARGS_MAX + 1])
{
	char raw[LINK_ARGS_MAX + 1] = "";
	CLEAN_FD int fd = openat(dir, "cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, raw, LINK_ARGS_MAX);

	while (n > 0 && !raw[n - 1])
		n--;
	for (ssize_t i = 0; i < n; i++)
		if (!raw[i])
			raw[i] = ' ';
	if (n > 0)
		raw[n] = '\0';
	else
		(void)snprintf(raw, sizeof(raw), "[%s]", comm); /* as ps shows a process without arguments */
	link_text_clean(out, LINK_ARGS_MAX + 1, raw);
}

static void tty_name(int device, char out[32])
{
	unsigned int number = minor((unsigned int)device);

	*out = '\0';
	if (device && major((unsigned int)device) >= 136 && major((unsigned int)device) <= 143)
		(void)snprintf(out, 32, "pts/%u", number + (major((unsigned int)device) - 136) * 256);
	else if (device)
		(void)snprintf(out, 32, "%u:%u", major((unsigned int)device), number);
}

static long long started_at(unsigned long long ticks)
{
	struct timespec now, up;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	(void)clock_gettime(CLOCK_BOOTTIME, &up);
	return now.tv_sec - up.tv_sec + (long long)(ticks / (unsigned long long)sysconf(_SC_CLK_TCK));
}

json_t *ps_process(pid_t pid)
{
	char path[32], comm[64] = "", clean[64], args[LINK_ARGS_MAX + 1], tty[32], state[2] = "";
	unsigned long long hz = (unsigned long long)sysconf(_SC_CLK_TCK);
	unsigned long long page = (unsigned long long)sysconf(_SC_PAGESIZE);
	CLEAN_FREE char *text = NULL;
	CLEAN_FD int dir = -1;
	struct stat_line s;
	struct stat st;
	const char *open_at, *close_at;

	(void)snprintf(path, sizeof(path), "/proc/%d", pid);
	dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	text = dir < 0 ? NULL : fd_read_file(dir, "stat", STAT_MAX, NULL, NULL);
	if (!text || !parse_stat(text, &s) || fstat(dir, &st) < 0)
		return NULL; /* it has ended */
	open_at = strchr(text, '(');
	close_at = strrchr(text, ')');
	if (open_at && close_at > open_at)
		(void)snprintf(comm, sizeof(comm), "%.*s", (int)(close_at - open_at - 1), open_at + 1);
	link_text_clean(clean, sizeof(clean), comm);
	read_args(dir, clean, args);
	tty_name(s.tty, tty);
	state[0] = s.state;
	return json_pack("{s:i, s:i, s:I, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "pid", (int)pid, "ppid",
			 s.ppid, "uid", (json_int_t)st.st_uid, "comm", clean, "args", args, "state", state, "tty", tty,
			 "start", (json_int_t)started_at(s.start), "time", (json_int_t)((s.utime + s.stime) / hz),
			 "threads", (json_int_t)s.threads, "vsz_kb", (json_int_t)(s.vsize / 1024), "rss_kb",
			 (json_int_t)(s.rss * page / 1024));
}
