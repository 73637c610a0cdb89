/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP parser: heads, chunked bodies, route patterns. */
/* sources: src/api/http_parse.c src/base/err.c */
/* libs: */
#include <stdlib.h>
#include <string.h>

#include "api/http_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const patterns[] = { "/a/{b}/c", "/images/{name:*}/json", "/{x:*}/{y:*}/{z}", "/_ping" };
	struct err err = ERR_INIT;
	size_t n = http_head_end((const char *)data, size), nparams;
	struct http_chunks chunks = { 0 };
	struct http_param params[HTTP_PARAMS_MAX];
	struct http_head *h = malloc(sizeof(*h));
	char *head = malloc(n + 1);

	if (n && h && head) {
		memcpy(head, data, n);
		if (!http_head_parse(head, n, h, &err))
			for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns) && strlen(h->path) < 200; i++)
				(void)http_match(patterns[i], h->path, params, &nparams);
	}
	for (size_t at = n; at < size;) {
		const char *run;
		size_t nrun;
		long taken = http_chunks_next(&chunks, (const char *)data + at, size - at, &run, &nrun);

		if (taken <= 0)
			break;
		if (nrun && (run < (const char *)data || run + nrun > (const char *)data + size))
			abort();
		at += (size_t)taken;
	}
	free(head);
	free(h);
	return 0;
}
