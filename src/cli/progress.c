/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Draws the engine's progress stream as Docker's client does: on a terminal a line for each layer, which is
 * rewritten in place; elsewhere a line for each step, without the counting.
 */
#include "cli/progress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BAR_FROM 110 /* columns from which there is room for the bar */

struct progress {
	bool terminal, quiet, failed;
	int columns;
	json_t *lines; /* layer: its line's number */
	progress_aux_fn aux;
	void *arg;
};

/* Four digits, units of 1000 (go-units' HumanSize). */
static void size_text(int64_t bytes, char out[32])
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB" };
	double n = (double)bytes;
	size_t u = 0;

	for (; n >= 1000 && u < ARRAY_LEN(units) - 1; u++)
		n /= 1000;
	(void)snprintf(out, 32, "%.4g%s", n, units[u]);
}

static void bar_text(const struct progress *p, int64_t current, int64_t total, char *out, size_t size)
{
	static const char full[] = "==================================================";
	char now[32], all[32];
	int half = total > 0 ? (int)((double)current / (double)total * 100) / 2 : 0;

	*out = 0;
	if (current <= 0 && total <= 0)
		return;
	size_text(current, now);
	size_text(total, all);
	half = half > 50 ? 50 : half;
	if (total <= 0)
		(void)snprintf(out, size, "%8s", now);
	else if (p->columns > BAR_FROM)
		(void)snprintf(out, size, "[%.*s>%*s] %8s%s%s", half, full, 50 - half, "", now,
			       current > total ? "" : "/", current > total ? "" : all);
	else
		(void)snprintf(out, size, "%8s%s%s", now, current > total ? "" : "/", current > total ? "" : all);
}

/* How far above the cursor a layer's line is; a new layer gets a line. */
static int go_to(struct progress *p, const char *id)
{
	json_t *known = json_object_get(p->lines, id);
	int line, up;

	if (!known) {
		known = json_integer((json_int_t)json_object_size(p->lines));
		(void)json_object_set_new(p->lines, id, known);
		if (p->terminal)
			(void)putchar('\n');
	}
	line = (int)json_integer_value(known);
	up = (int)json_object_size(p->lines) - line;
	if (p->terminal)
		(void)printf("\x1b[%dA", up);
	return up;
}

static void draw(struct progress *p, const json_t *step)
{
	const json_t *detail = json_object_get(step, "progressDetail");
	const char *id = json_str(step, "id", ""), *stream = json_str(step, "stream", NULL);
	const char *status = json_str(step, "status", "");
	char bar[160];
	int up = 0;

	bar_text(p, json_int(detail, "current", 0), json_int(detail, "total", 0), bar, sizeof(bar));
	if (stream) {
		(void)fputs(stream, stdout);
		return;
	}
	if (!json_object_get(step, "status") || (*bar && !p->terminal))
		return;
	if (*id && detail)
		up = go_to(p, id);
	else
		(void)json_object_clear(p->lines);
	if (p->terminal && detail)
		(void)fputs("\x1b[2K\r", stdout);
	(void)printf("%s%s%s", id, *id ? ": " : "", status);
	if (p->terminal && detail)
		(void)printf(" %s\r", bar);
	else
		(void)putchar('\n');
	if (up && p->terminal)
		(void)printf("\x1b[%dB", up);
	(void)fflush(stdout);
}

static void take_line(struct progress *p, const char *text, size_t n)
{
	CLEAN_JSON json_t *step = NULL;
	const char *problem;

	while (n && (text[n - 1] == '\r' || text[n - 1] == ' '))
		n--;
	if (!n)
		return;
	step = json_parse(text, n, "the engine's progress", NULL);
	problem = json_str(step, "error", NULL);
	if (problem) {
		(void)fflush(stdout);
		(void)fprintf(stderr, "walnut: %s\n", problem);
		p->failed = true;
	} else if (json_object_get(step, "aux")) {
		if (p->aux)
			p->aux(json_object_get(step, "aux"), p->arg);
	} else if (!p->quiet) {
		draw(p, step);
	}
}

int progress_show(struct reply *r, bool quiet, progress_aux_fn aux, void *arg, struct err *err)
{
	struct winsize size = { 0 };
	CLEAN_JSON json_t *lines = json_object();
	struct progress p = { .quiet = quiet, .lines = lines, .aux = aux, .arg = arg };
	CLEAN_BUF struct buf text = BUF_INIT;
	char piece[16384], *end;
	ssize_t got;

	p.terminal = isatty(STDOUT_FILENO);
	p.columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
	while ((got = reply_read(r, piece, sizeof(piece), err)) > 0) {
		if (buf_append(&text, piece, (size_t)got) < 0)
			return err_set(err, E2BIG, "a line of the engine's progress is too long");
		while (text.len && (end = memchr(buf_bytes(&text), '\n', text.len))) {
			size_t n = (size_t)(end - buf_bytes(&text));

			take_line(&p, buf_bytes(&text), n);
			buf_consume(&text, n + 1);
		}
	}
	take_line(&p, buf_bytes(&text), text.len);
	return got < 0 ? (int)got : p.failed;
}
