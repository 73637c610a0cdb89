/* SPDX-License-Identifier: Apache-2.0 */
/* The detach keys of a request, checked before the connection is given away: "a", "ctrl-p,ctrl-q" (moby, pkg/term). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/routes.h"

int detach_keys_check(const char *text, struct err *err)
{
	const char *at = text;

	while (*at) {
		size_t n = strcspn(at, ",");
		char key = n == 6 ? at[5] : 0;
		bool control =
			n == 6 && !strncasecmp(at, "ctrl-", 5) &&
			((key >= 'a' && key <= 'z') || (key >= 'A' && key <= 'Z') || (key && strchr("@[\\]^_", key)));

		if (n != 1 && !control)
			return err_set(err, EINVAL, "Invalid detach keys (%.100s) provided: Unknown character: '%.*s'",
				       text, (int)(n < 40 ? n : 40), at);
		at += n + (at[n] == ',');
	}
	return 0;
}
