/* SPDX-License-Identifier: Apache-2.0 */
/* sources: src/link/link.c src/base/err.c src/base/json.c src/base/buf.c */
/* libs: -ljansson */
/* A hostile agent: any bytes as a control message, through every check that the shim makes. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "link/link.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct err err = ERR_INIT, failure;
	CLEAN_JSON json_t *message = json_parse((const char *)bytes, n, "fuzz", &err);
	CLEAN_FREE unsigned char *out = NULL;
	CLEAN_FREE pid_t *pids = NULL;
	struct link_event event;
	struct link_stats stats;
	const json_t *result;
	const char *text;
	int64_t id;
	size_t count;
	pid_t pid;

	if (!json_is_object(message))
		return 0;
	if (link_is_event(message)) {
		if (!link_event_parse(message, &event, &err) && (event.exit_code < 0 || event.exit_code > 255))
			abort();
		return 0;
	}
	if (link_answer_parse(message, &id, &result, &failure, &err) < 0 || !result)
		return 0;
	(void)!link_stats_parse(result, &stats, &err);
	(void)!link_pid_parse(result, &pid, &err);
	(void)!link_pids_parse(result, &pids, &count, &err);
	json_decref(link_processes_copy(result, &err));
	text = json_str(result, "text", NULL);
	if (text && !link_base64_decode(text, 4096, &out, &count) && count > 4096)
		abort();
	return 0;
}
