/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of "docker top" for a guest: the agent says what processes there are, this lays them out as ps(1) does for
 * the arguments that people use: -ef, aux, and a list of columns (-o pid,args). Others are refused by name.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "api/routes.h"
#include "base/cleanup.h"
#include "base/json.h"

/* Names of a column in -o, its title, and the member of the agent's object. */
static const struct column {
	const char *names, *title, *member;
} columns[] = {
	{ " pid ", "PID", "pid" },
	{ " ppid ", "PPID", "ppid" },
	{ " uid ", "UID", "uid" },
	{ " user euser uname ", "USER", "user" },
	{ " c ", "C", "c" },
	{ " stime start_time ", "STIME", "start" },
	{ " start ", "START", "start" },
	{ " tty tt tname ", "TTY", "tty" },
	{ " time cputime ", "TIME", "time" },
	{ " cmd ", "CMD", "args" },
	{ " args command ", "COMMAND", "args" },
	{ " comm ucmd ", "COMMAND", "comm" },
	{ " stat state s ", "STAT", "state" },
	{ " rss rsz ", "RSS", "rss_kb" },
	{ " vsz vsize ", "VSZ", "vsz_kb" },
	{ " nlwp thcount ", "NLWP", "threads" },
	{ " %cpu pcpu ", "%CPU", "cpu" },
	{ " %mem pmem ", "%MEM", "mem" },
};

static void cell_time(const json_t *p, const char *member, char *out, size_t n)
{
	long long s = (long long)json_int(p, member, 0);
	time_t at = (time_t)s;
	struct tm tm;

	if (strcmp(member, "start"))
		(void)snprintf(out, n, "%02lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
	else if (localtime_r(&at, &tm))
		(void)strftime(out, n, "%H:%M", &tm);
}

static json_t *cell(const json_t *p, const char *member)
{
	const json_t *v = json_object_get(p, member);
	char text[64] = "?";

	if (!strcmp(member, "time") || !strcmp(member, "start"))
		cell_time(p, member, text, sizeof(text));
	else if (!strcmp(member, "user") && !json_int(p, "uid", -1))
		return json_string("root");
	else if (!strcmp(member, "user"))
		(void)snprintf(text, sizeof(text), "%lld", (long long)json_int(p, "uid", 0));
	else if (!strcmp(member, "tty"))
		return json_string(*json_str(p, "tty", "") ? json_str(p, "tty", "") : "?");
	else if (!strcmp(member, "c") || !strcmp(member, "cpu") || !strcmp(member, "mem"))
		(void)snprintf(text, sizeof(text), strcmp(member, "c") ? "0.0" : "0");
	else if (json_is_string(v))
		return json_incref((json_t *)v);
	else
		(void)snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(v));
	return json_string(text);
}

static int add_columns(const struct column **chosen, size_t *n, char *list, struct err *err)
{
	char *save = NULL, wrapped[64];

	for (char *name = strtok_r(list, ", ", &save); name; name = strtok_r(NULL, ", ", &save)) {
		size_t i = 0;

		(void)snprintf(wrapped, sizeof(wrapped), " %.40s ", name);
		for (char *p = wrapped; *p; p++)
			*p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
		while (i < ARRAY_LEN(columns) && !strstr(columns[i].names, wrapped))
			i++;
		if (i == ARRAY_LEN(columns) || *n == 32)
			return err_set(err, EINVAL, "top: the column %.40s is not known for a hyperv container", name);
		chosen[(*n)++] = &columns[i];
	}
	return 0;
}

static int choose(const char *args, const struct column **chosen, size_t *n, struct err *err)
{
	static const char *const short_forms[] = { "-ef", "-e", "-f", "ef", "-eF", "-ely" }, *const aux[] = {
		"aux", "-aux", "axu", "ax", "au"
	};
	char list[512] = "";
	const char *o;

	for (size_t i = 0; i < ARRAY_LEN(aux); i++)
		if (!strcmp(args, aux[i]))
			(void)strcpy(list, "user,pid,%cpu,%mem,vsz,rss,tty,stat,start,time,args");
	for (size_t i = 0; i < 4; i++)
		if (!strcmp(args, short_forms[i]))
			(void)strcpy(list, "uid,pid,ppid,c,stime,tty,time,cmd");
	o = strstr(args, "o ");
	if (!*list && o && strspn(args, "-eaAxfo ") >= (size_t)(o - args))
		(void)snprintf(list, sizeof(list), "%s", o + 2);
	if (!*list)
		return err_set(
			err, ENOSYS,
			"top: the arguments %.100s of ps are not supported for a hyperv container: there are -ef, aux "
			"and -o COLUMN,...",
			args);
	return add_columns(chosen, n, list, err);
}

json_t *ps_table(const json_t *processes, const char *args, struct err *err)
{
	const struct column *chosen[32];
	size_t n = 0, i;
	json_t *p, *titles, *rows;
	bool full = args[0] == '-' && args[1] == 'e', pid = false;

	if (!json_is_array(processes)) {
		(void)err_set(err, ENOSYS, "top is not supported by this guest's agent");
		return NULL;
	}
	if (choose(args, chosen, &n, err))
		return NULL;
	titles = json_array();
	rows = json_array();
	for (size_t c = 0; c < n; c++) {
		pid = pid || !strcmp(chosen[c]->title, "PID");
		(void)json_array_append_new(titles, json_string(chosen[c]->title));
	}
	json_array_foreach(processes, i, p) {
		json_t *row = json_array();

		for (size_t c = 0; c < n; c++) /* -ef shows names under UID, as ps does */
			(void)json_array_append_new(
				row, cell(p, full && !strcmp(chosen[c]->member, "uid") ? "user" : chosen[c]->member));
		(void)json_array_append_new(rows, row);
	}
	if (!pid)
		(void)err_set(err, EIO, "Couldn't find PID field in ps output");
	json_t *out = pid ? json_pack("{s:O, s:O}", "Titles", titles, "Processes", rows) : NULL;

	json_decref(titles);
	json_decref(rows);
	return out;
}
