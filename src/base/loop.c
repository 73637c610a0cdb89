/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop. Removed sources and timers stay on a list of the dead until the
 * round is over, because epoll_wait may already have returned their events.
 */
#include "base/loop.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

struct loop_source {
	struct loop *loop;
	struct loop_source *next, **link;
	int fd;
	bool dead;
	loop_fd_fn fn;
	void *arg;
};

struct loop_timer {
	struct loop *loop;
	struct loop_timer *next, **link;
	uint64_t due_ms;
	loop_timer_fn fn;
	void *arg;
};

struct loop {
	int epoll;
	bool stopped;
	struct loop_source *sources, *dead;
	struct loop_timer *timers; /* earliest first */
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

struct loop *loop_new(struct err *err)
{
	struct loop *l = calloc(1, sizeof(*l));

	if (!l) {
		(void)err_sys(err, ENOMEM, "create the event loop");
		return NULL;
	}
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll < 0) {
		(void)err_sys(err, errno, "create the event loop");
		free(l);
		return NULL;
	}
	return l;
}

static void bury_dead(struct loop *l)
{
	struct loop_source *s;

	while ((s = l->dead)) {
		l->dead = s->next;
		free(s);
	}
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	while (l->sources)
		loop_remove(l->sources);
	while (l->timers)
		loop_cancel(l->timers); /* NOLINT(clang-analyzer-unix.Malloc): it takes itself off the list */
	bury_dead(l);
	(void)close(l->epoll);
	free(l);
}

struct loop_source *loop_add_fd(struct loop *l, int fd, uint32_t events, loop_fd_fn fn, void *arg, struct err *err)
{
	struct loop_source *s = calloc(1, sizeof(*s));
	struct epoll_event ev = { .events = events, .data.ptr = s };

	if (!s) {
		(void)err_sys(err, ENOMEM, "watch a descriptor");
		return NULL;
	}
	*s = (struct loop_source){ .loop = l, .fd = fd, .fn = fn, .arg = arg };
	if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
		(void)err_sys(err, errno, "watch a descriptor");
		free(s);
		return NULL;
	}
	s->next = l->sources;
	s->link = &l->sources;
	if (s->next)
		s->next->link = &s->next;
	l->sources = s;
	return s;
}

void loop_set_events(struct loop_source *s, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = s };
	int rc = epoll_ctl(s->loop->epoll, EPOLL_CTL_MOD, s->fd, &ev);

	bug_on(rc < 0);
}

void loop_remove(struct loop_source *s)
{
	if (!s || s->dead)
		return;
	/* The owner may have closed the descriptor already, which removed it from epoll. */
	(void)epoll_ctl(s->loop->epoll, EPOLL_CTL_DEL, s->fd, NULL);
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	s->dead = true;
	s->next = s->loop->dead;
	s->loop->dead = s;
}

struct loop_timer *loop_add_timer(struct loop *l, uint64_t ms, loop_timer_fn fn, void *arg)
{
	struct loop_timer *t = calloc(1, sizeof(*t)), **at = &l->timers;

	if (!t)
		return NULL;
	*t = (struct loop_timer){ .loop = l, .due_ms = now_ms() + ms, .fn = fn, .arg = arg };
	while (*at && (*at)->due_ms <= t->due_ms)
		at = &(*at)->next;
	t->next = *at;
	t->link = at;
	if (t->next)
		t->next->link = &t->next;
	*at = t;
	return t;
}

void loop_cancel(struct loop_timer *t)
{
	if (!t)
		return;
	*t->link = t->next;
	if (t->next)
		t->next->link = t->link;
	free(t);
}

static void run_timers(struct loop *l)
{
	uint64_t now = now_ms();
	struct loop_timer *t;
	loop_timer_fn fn;
	void *arg;

	while ((t = l->timers) && t->due_ms <= now && !l->stopped) {
		fn = t->fn;
		arg = t->arg;
		loop_cancel(t);
		fn(l, arg);
	}
}

int loop_step(struct loop *l, int timeout_ms, struct err *err)
{
	struct epoll_event events[64];
	uint64_t now = now_ms();
	int n, wait = timeout_ms;

	if (l->timers) {
		uint64_t left = l->timers->due_ms > now ? l->timers->due_ms - now : 0;

		if (wait < 0 || left < (uint64_t)wait)
			wait = left > 60000 ? 60000 : (int)left;
	}
	n = epoll_wait(l->epoll, events, (int)ARRAY_LEN(events), wait);
	if (n < 0 && errno != EINTR)
		return err_sys(err, errno, "wait for events");
	for (int i = 0; i < n; i++) {
		struct loop_source *s = events[i].data.ptr;

		if (!s->dead)
			s->fn(l, s->fd, events[i].events, s->arg);
	}
	run_timers(l);
	bury_dead(l);
	return 0;
}

int loop_run(struct loop *l, struct err *err)
{
	int rc;

	l->stopped = false;
	while (!l->stopped) {
		rc = loop_step(l, -1, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

void loop_stop(struct loop *l)
{
	l->stopped = true;
}
