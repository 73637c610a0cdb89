/* SPDX-License-Identifier: Apache-2.0 */
/* The log sink: one write(2) a line, so lines of several processes do not mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/utc.h"

static const char *log_program = "walnut";
static enum log_level log_least = LOG_LEVEL_INFO;

void log_init(const char *program, enum log_level level)
{
	log_program = program;
	log_least = level;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	char line[1200], when[UTC_SIZE];
	struct timespec now;
	va_list ap;
	int used;

	if (level > log_least)
		return;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	utc_format(now.tv_sec, when, sizeof(when));
	used = snprintf(line, sizeof(line), "%s.%03ldZ %s %s: ", when, now.tv_nsec / 1000000, log_program,
			names[level]);
	va_start(ap, fmt);
	(void)vsnprintf(line + used, sizeof(line) - (size_t)used - 1, fmt, ap);
	va_end(ap);
	(void)strcat(line, "\n");
	if (write(STDERR_FILENO, line, strlen(line)) < 0)
		return; /* nowhere left to say so */
}
