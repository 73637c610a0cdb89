/* SPDX-License-Identifier: Apache-2.0 */
/* The tar reader and the EROFS writer's tree on hostile archives. */
/* sources: src/image/tar.c src/image/source.c src/image/erofs_write.c src/image/layer.c src/base/err.c src/base/fd.c src/base/buf.c */
/* libs: -lz -lzstd -lnettle */
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/layer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct source_mem in;
	struct layer_info info;
	struct err err = ERR_INIT;
	int erofs = memfd_create("erofs", 0), recipe = memfd_create("recipe", 0);

	source_mem_init(&in, data, size);
	if (layer_convert(&in.s, erofs, recipe, 1U << 20, &info, &err) < 0 && !err.code)
		__builtin_trap();
	(void)close(erofs);
	(void)close(recipe);
	return 0;
}
