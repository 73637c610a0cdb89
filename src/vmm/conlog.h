/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest's kernel prints: passed on to the shim, at most so much a second, and the last of it
 * kept. From several threads. Never blocks: what the shim does not take, or is too much, is dropped and counted.
 */
#ifndef WALNUT_VMM_CONLOG_H
#define WALNUT_VMM_CONLOG_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONLOG_KEPT  65536U
#define CONLOG_RATE  65536U  /* bytes a second */
#define CONLOG_BURST 262144U /* bytes at once: a whole boot with all messages */

struct conlog {
	int fd; /* borrowed, a socket; -1: none */
	pthread_mutex_t lock;
	uint64_t tokens, refilled_ms, dropped;
	uint64_t total; /* bytes that came to `kept` */
	char kept[CONLOG_KEPT];
	char line[128]; /* from the serial port, byte by byte */
	size_t line_len;
};

void conlog_init(struct conlog *c, int fd);
/* conlog_write - @arg: the struct conlog, as console_ops calls it. */
void conlog_write(void *arg, const void *bytes, size_t n);
/* conlog_put - one byte; passed on with its line. */
void conlog_put(struct conlog *c, char byte);
/* conlog_find - the text that follows @mark up to the line's end, in what is kept. Return: found. */
bool conlog_find(struct conlog *c, const char *mark, char *to, size_t size);

#endif
