/* SPDX-License-Identifier: Apache-2.0 */
/* What pull, push, login and search share: where a registry is, with which secrets, and how walnut-fetch is started. */
#ifndef WALNUT_IMAGE_REGISTRY_H
#define WALNUT_IMAGE_REGISTRY_H

#include "image/job.h"

struct registry {
	json_t *plan; /* bases, repo, secrets, …; each request adds its own */
	char *root;   /* the folder that is walnut-fetch's "/" */
	int root_fd;
};

#define REGISTRY_INIT ((struct registry){ .root_fd = -1 })

/* registry_open - @actions: "pull" or "pull,push". */
int registry_open(struct registry *r, struct image_store *s, const char *domain, const char *repo, const char *actions,
		  const json_t *auth, struct err *err) MUST_CHECK;
void registry_close(struct registry *r);
/**
 * registry_ask - start a request
 * @more: keys added to the plan (stolen)
 * @in, @out: a blob's bytes, or -1; borrowed
 */
struct worker_proc *registry_ask(struct registry *r, struct image_job *j, const char *verb, json_t *more, int in,
				 int out, worker_line_fn line, worker_end_fn end, void *arg,
				 struct err *err) MUST_CHECK;
/* registry_learn - keep the base that answered and the token it gave. */
void registry_learn(struct registry *r, const json_t *result);

#endif
