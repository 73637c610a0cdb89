/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the verbs of the walnut command. */
#ifndef WALNUT_CLI_CLI_H
#define WALNUT_CLI_CLI_H

#include "cli/client.h"

#define EXIT_ENGINE 125 /* the engine or the command line is at fault, not the container (Docker's convention) */

struct cli {
	struct client client;
};

/* A verb: argv[0] is its name. Return: the exit status. Prints its own errors. */
typedef int (*cli_verb_fn)(struct cli *cli, int argc, char **argv);

struct cli_verb {
	const char *name, *arguments, *summary;
	cli_verb_fn fn;
};

/* cli_fail - print "walnut: <sentence>" to stderr. Return: 1. */
int cli_fail(const struct err *err);
int cli_usage_error(const struct cli_verb *verb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* cli_path - "prefix" + encoded @name + "suffix"; owned by the caller (free); NULL without memory. */
char *cli_path(const char *prefix, const char *name, const char *suffix) MUST_CHECK;

extern const struct cli_verb cli_run_verbs[];    /* run, create, exec, start, attach, wait */
extern const struct cli_verb cli_object_verbs[]; /* ps, images, logs, stop, rm, ... */

extern const struct cli_verb cli_watch_verbs[]; /* top, stats, diff, export, cp, prune, df */

extern const struct cli_verb cli_registry_verbs[]; /* pull, push, search, login, logout, commit */

/* cli_pull - "walnut pull". Return: the exit status; errors are printed. @platform may be NULL. */
int cli_pull(struct cli *cli, const char *image, const char *platform, bool all, bool quiet);

/* cli_run_flags - print the flags of run and create, of exec, or of attach; nothing for other verbs. */
void cli_run_flags(const char *verb, FILE *out);

#endif
