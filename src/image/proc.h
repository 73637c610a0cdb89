/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker process as the engine sees it: a sandboxed child that reports JSON
 * lines on a pipe and ends with one of {"result": ...} or {"error": {...}}.
 */
#ifndef WALNUT_IMAGE_PROC_H
#define WALNUT_IMAGE_PROC_H

#include "base/json.h"
#include "base/loop.h"
#include "image/store.h"

struct worker_proc;

struct worker_spec {
	bool network; /* walnut-fetch instead of walnut-worker */
	const char *verb;
	int in, out, dir, plan; /* the child's 0, 1, 4, 5; -1: /dev/null. Borrowed */
};

/* A line that is neither result nor error; borrowed. */
typedef void (*worker_line_fn)(void *arg, const json_t *line);
/*
 * Called once, when the child has ended and was reaped: nobody writes to its
 * files any more. @result is borrowed; NULL: @err says why. @p is freed after it.
 */
typedef void (*worker_end_fn)(void *arg, const json_t *result, const struct err *err);

struct worker_proc *worker_spawn(struct image_store *s, struct loop *l, const struct worker_spec *spec,
				 worker_line_fn line, worker_end_fn end, void *arg, struct err *err) MUST_CHECK;
/* worker_kill - end it at once, without a callback; NULL is allowed. */
void worker_kill(struct worker_proc *p);
/* worker_plan - a memfd with the text of @plan, for the child's descriptor 5. */
int worker_plan(const json_t *plan, struct err *err) MUST_CHECK;

#endif
