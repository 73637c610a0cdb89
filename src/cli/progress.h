/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's progress stream: a JSON object a line. */
#ifndef WALNUT_CLI_PROGRESS_H
#define WALNUT_CLI_PROGRESS_H

#include "cli/client.h"

typedef void (*progress_aux_fn)(const json_t *aux, void *arg);

/* progress_show - draw it until its end. @aux may be NULL. Return: 0, 1 when it told an error (printed), -errno. */
int progress_show(struct reply *r, bool quiet, progress_aux_fn aux, void *arg, struct err *err) MUST_CHECK;

#endif
