/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: one thread, epoll, level-triggered. A source or a timer may be
 * removed from any callback, its own included; it is freed after the round.
 */
#ifndef WALNUT_BASE_LOOP_H
#define WALNUT_BASE_LOOP_H

#include <stdint.h>
#include <sys/epoll.h>

#include "base/err.h"

struct loop;
struct loop_source;
struct loop_timer;

/* @events: EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR, EPOLLRDHUP */
typedef void (*loop_fd_fn)(struct loop *l, int fd, uint32_t events, void *arg);
typedef void (*loop_timer_fn)(struct loop *l, void *arg);

struct loop *loop_new(struct err *err) MUST_CHECK;
void loop_free(struct loop *l); /* removes all sources and timers; closes no descriptor of the caller */

/* loop_add_fd - watch @fd (borrowed). Return: the source (freed by loop_remove or loop_free) or NULL. */
struct loop_source *loop_add_fd(struct loop *l, int fd, uint32_t events, loop_fd_fn fn, void *arg,
				struct err *err) MUST_CHECK;
void loop_set_events(struct loop_source *s, uint32_t events);
void loop_remove(struct loop_source *s); /* NULL is allowed */

/* loop_add_timer - call once after @ms milliseconds (monotonic). NULL without memory. */
struct loop_timer *loop_add_timer(struct loop *l, uint64_t ms, loop_timer_fn fn, void *arg) MUST_CHECK;
void loop_cancel(struct loop_timer *t); /* NULL is allowed; not after it has fired */

/* loop_run - until loop_stop. Return: 0 or -errno. */
int loop_run(struct loop *l, struct err *err) MUST_CHECK;
void loop_stop(struct loop *l);
/* loop_step - one round; waits at most @timeout_ms (-1: for ever). Return: 0 or -errno. */
int loop_step(struct loop *l, int timeout_ms, struct err *err) MUST_CHECK;

#endif
