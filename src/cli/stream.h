/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal's side of attach, exec and logs: raw mode, size, Docker's frames. */
#ifndef WALNUT_CLI_STREAM_H
#define WALNUT_CLI_STREAM_H

#include "cli/client.h"

struct stream_options {
	bool stdin_open, tty;
	const char *resize_path; /* "/containers/ID/resize"; NULL: none */
	const struct client *client;
};

/* stream_session - copy both ways over an upgraded connection until the engine ends it. Return: 0 or -errno. */
int stream_session(struct reply *r, const struct stream_options *o, struct err *err) MUST_CHECK;
/* stream_frames - copy a body of Docker's frames (or raw bytes with @tty) to stdout and stderr. */
int stream_frames(struct reply *r, bool tty, struct err *err) MUST_CHECK;
/* stream_resize - tell the engine the terminal's size; failures are of no consequence to the session. */
void stream_resize(const struct client *c, const char *resize_path);

#endif
