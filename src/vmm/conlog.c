/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's console on the host. */
#include "vmm/conlog.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static uint64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void conlog_init(struct conlog *c, int fd)
{
	memset(c, 0, sizeof(*c));
	c->fd = fd;
	(void)pthread_mutex_init(&c->lock, NULL);
	c->tokens = CONLOG_BURST;
	c->refilled_ms = now_ms();
}

static void keep(struct conlog *c, const char *bytes, size_t n)
{
	if (n > CONLOG_KEPT) {
		c->total += n - CONLOG_KEPT;
		bytes += n - CONLOG_KEPT;
		n = CONLOG_KEPT;
	}
	while (n) {
		size_t at = (size_t)(c->total % CONLOG_KEPT);
		size_t here = CONLOG_KEPT - at < n ? CONLOG_KEPT - at : n;

		memcpy(c->kept + at, bytes, here);
		c->total += here;
		bytes += here;
		n -= here;
	}
}

static void pass_on(struct conlog *c, const char *bytes, size_t n)
{
	ssize_t sent;

	if (c->fd < 0)
		return;
	if (n > c->tokens) {
		c->dropped += n - c->tokens;
		n = (size_t)c->tokens;
	}
	if (n == 0)
		return;
	if (c->dropped && c->tokens > n + 64) {
		char note[64];
		int len = snprintf(note, sizeof(note), "\n[%llu bytes were dropped]\n", (unsigned long long)c->dropped);

		if (send(c->fd, note, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL) == len)
			c->dropped = 0;
	}
	sent = send(c->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	c->dropped += n - (size_t)(sent > 0 ? sent : 0);
	c->tokens -= n;
}

static void put_bytes(struct conlog *c, const void *bytes, size_t n)
{
	uint64_t now = now_ms();

	if (now > c->refilled_ms) {
		c->tokens += (now - c->refilled_ms) * CONLOG_RATE / 1000;
		if (c->tokens > CONLOG_BURST)
			c->tokens = CONLOG_BURST;
		c->refilled_ms = now;
	}
	keep(c, bytes, n);
	pass_on(c, bytes, n);
}

void conlog_write(void *arg, const void *bytes, size_t n)
{
	struct conlog *c = arg;

	(void)pthread_mutex_lock(&c->lock);
	put_bytes(c, bytes, n);
	(void)pthread_mutex_unlock(&c->lock);
}

void conlog_put(struct conlog *c, char byte)
{
	(void)pthread_mutex_lock(&c->lock);
	c->line[c->line_len++] = byte;
	if (byte == '\n' || c->line_len == sizeof(c->line)) {
		put_bytes(c, c->line, c->line_len);
		c->line_len = 0;
	}
	(void)pthread_mutex_unlock(&c->lock);
}

bool conlog_find(struct conlog *c, const char *mark, char *to, size_t size)
{
	static char text[CONLOG_KEPT + 1];
	size_t at = (size_t)(c->total % CONLOG_KEPT), head = c->total > CONLOG_KEPT ? CONLOG_KEPT - at : 0;
	const char *found;

	(void)pthread_mutex_lock(&c->lock);
	memcpy(text, c->kept + at, head);
	memcpy(text + head, c->kept, at);
	(void)pthread_mutex_unlock(&c->lock);
	/* A guest may print NULs; the search shall not end there. */
	for (size_t i = 0; i < head + at; i++)
		if (!text[i])
			text[i] = ' ';
	text[head + at] = '\0';
	found = strstr(text, mark);
	if (!found)
		return false;
	found += strlen(mark);
	(void)snprintf(to, size, "%.*s", (int)strcspn(found, "\r\n"), found);
	return true;
}
