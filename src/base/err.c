/* SPDX-License-Identifier: Apache-2.0 */
/* Error values: formatting without allocation. */
#include "base/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* the analyser's own (err.h) */
#undef err_set
#undef err_sys
#undef err_wrap

int err_set(struct err *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return -code;
	err->code = code;
	va_start(ap, fmt);
	(void)vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	return -code;
}

int err_sys(struct err *err, int code, const char *fmt, ...)
{
	va_list ap;
	size_t used;

	if (!err)
		return -code;
	err->code = code;
	va_start(ap, fmt);
	(void)vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	used = strlen(err->msg);
	(void)snprintf(err->msg + used, sizeof(err->msg) - used, ": %s", strerror(code));
	return -code;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
	char old[ERR_MSG_SIZE];
	va_list ap;
	size_t used;

	if (!err)
		return -EXIT_FAILURE;
	memcpy(old, err->msg, sizeof(old));
	va_start(ap, fmt);
	(void)vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	used = strlen(err->msg);
	(void)snprintf(err->msg + used, sizeof(err->msg) - used, ": %s", old);
	return -err->code;
}

void err_bug(const char *file, int line, const char *what)
{
	(void)fprintf(stderr, "walnut: bug: %s:%d: %s\n", file, line, what);
	abort();
}
