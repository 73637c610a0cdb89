/* SPDX-License-Identifier: Apache-2.0 */
/* The json-file log of a container: Docker's format, with rotation. */
#ifndef WALNUT_SHIM_LOGFILE_H
#define WALNUT_SHIM_LOGFILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct logfile;

/* Bytes of a line after which Docker writes it in parts. */
#define LOGFILE_LINE_MAX 16384

/**
 * logfile_open - open for appending, created when absent
 * @max_size: bytes after which the file is rotated; 0 or less: never
 * @max_files: how many are kept, the current one included; below 1 is 1
 */
struct logfile *logfile_open(const char *path, int64_t max_size, int max_files, struct err *err) MUST_CHECK;

/* logfile_write - bytes as they came from @stream (1 stdout, 2 stderr); whole lines are written at once.
 * A failure to write (a full disk) is logged to stderr once and the output is lost to the log. */
void logfile_write(struct logfile *log, int stream, const char *bytes, size_t n);
/**
 * logfile_rest - what a reader of the log that stands at @offset of the file @inode has not seen yet
 * @put: called with the bytes of one stream (1, 2), in order; ends with those of lines that are not written yet
 *
 * A reader whose file was rotated away meanwhile gets the current file from its beginning.
 */
void logfile_rest(struct logfile *log, uint64_t inode, int64_t offset,
		  void (*put)(void *arg, int stream, const char *bytes, size_t n), void *arg);
/* logfile_finish - write what remains of unfinished lines. */
void logfile_finish(struct logfile *log);
void logfile_close(struct logfile *log); /* NULL is allowed; finishes first */

#endif
