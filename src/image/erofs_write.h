/* SPDX-License-Identifier: Apache-2.0 */
/* Writes an EROFS file in one pass over a layer's tar: file contents as they come, metadata at the end. */
#ifndef WALNUT_IMAGE_EROFS_WRITE_H
#define WALNUT_IMAGE_EROFS_WRITE_H

#include "image/tar.h"

struct erofs_writer;

/* erofs_new - write to the empty file @fd (borrowed). NULL without memory. */
struct erofs_writer *erofs_new(int fd) MUST_CHECK;
void erofs_free(struct erofs_writer *w);

/**
 * erofs_add - put one tar entry into the tree; the caller then gives a file's contents with erofs_data
 * @at: set to the offset of the file's first byte in the EROFS file (regular files)
 */
int erofs_add(struct erofs_writer *w, const struct tar_entry *e, uint64_t *at, struct err *err) MUST_CHECK;
/* erofs_data - write a file's bytes at @at; offsets only grow. */
int erofs_data(struct erofs_writer *w, uint64_t at, const void *bytes, size_t n, struct err *err) MUST_CHECK;
/* erofs_finish - write the metadata and the superblock. *size: of the EROFS file; *content: sum of file sizes. */
int erofs_finish(struct erofs_writer *w, const uint8_t uuid[16], uint64_t *size, uint64_t *content,
		 struct err *err) MUST_CHECK;

#endif
